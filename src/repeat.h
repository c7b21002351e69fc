/*
 * repeat.h
 *	  A dequeue that is repeated, because its answer was lost.
 */
#ifndef QUEUE_REPEAT_H
#define QUEUE_REPEAT_H

#include "claim.h"

extern uint64 queue_repeat_number(const char *attempt_id);
extern int	queue_repeat_claim(const QueueClaimRequest *request, QueueClaimed *claimed);

#endif							/* QUEUE_REPEAT_H */
