/*
 * place.h
 *	  Which segment of a queue's ring takes what is being stored.
 */
#ifndef QUEUE_PLACE_H
#define QUEUE_PLACE_H

#include "ring.h"

extern Relation queue_place_open_active(QueueState *state, int64 size, QueueSegment **segment,
										bool *lacking);
extern Relation queue_place_open_bucket(QueueState *state, int64 size, const QueueBucket *bucket,
										QueueSegment **segment, bool *lacking);
extern Relation queue_place_open_copies(QueueState *state, int64 size, QueueSegment **segment,
										bool *lacking);
extern bool queue_place_waits(const QueueSegment *segment, TimestampTz wall);
extern void queue_place_close_buckets(QueueState *state, TimestampTz wall);

#endif							/* QUEUE_PLACE_H */
