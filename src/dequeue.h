/*
 * dequeue.h
 *	  Claims messages: where it looks for them.
 */
#ifndef QUEUE_DEQUEUE_H
#define QUEUE_DEQUEUE_H

#include "claim.h"

extern int	queue_dequeue_claim(const QueueClaimRequest *request, Snapshot snapshot,
								QueueClaimed *claimed);

#endif							/* QUEUE_DEQUEUE_H */
