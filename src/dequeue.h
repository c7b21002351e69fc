/*
 * dequeue.h
 *	  Claims messages: where it looks for them.
 */
#ifndef QUEUE_DEQUEUE_H
#define QUEUE_DEQUEUE_H

#include "claim.h"

extern int	queue_dequeue_claim(const QueueClaimRequest *request, Snapshot snapshot,
								QueueClaimed *claimed);
extern int	queue_dequeue_as_consumer(const QueueClaimRequest *request, Snapshot snapshot,
									  QueueClaimed *claimed, bool *stands_by);
extern TupleDesc queue_dequeue_desc(QueueState *state);

#endif							/* QUEUE_DEQUEUE_H */
