/*
 * peek.h
 *	  Reading a queue without touching it.
 */
#ifndef QUEUE_PEEK_H
#define QUEUE_PEEK_H

#include "purge.h"

/* The place of a message that this backend's peek returned last. */
extern bool queue_peek_last_place(int32 queue, int64 id, QueuePlace *place);

#endif							/* QUEUE_PEEK_H */
