/*
 * ring.h
 *	  The ring of segments of a queue.
 */
#ifndef QUEUE_RING_H
#define QUEUE_RING_H

#include "segment.h"

/*
 * Which segments of a ring: claims take turns between messages in order of
 * arrival, and those that waited for their time.
 */
typedef enum QueueLane
{
	QUEUE_LANE_ANY,
	QUEUE_LANE_BACKLOG,
	QUEUE_LANE_TIMED,
	QUEUE_LANE_COPIES,
} QueueLane;

extern void queue_ring_load(QueueState *state);
extern void queue_ring_complete(QueueState *state);
extern void queue_ring_refresh(QueueState *state, QueueSegment *segment, Relation rel);
extern void queue_ring_remove_all(QueueState *state);
extern bool queue_ring_next_in(QueueState *state, QueueLane lane, uint64 *position, QueueTime now,
							   QueueSegment **segment, uint32 *generation);
extern bool queue_ring_next(QueueState *state, uint64 *position, QueueTime now,
							QueueSegment **segment, uint32 *generation);
extern QueueTime queue_ring_due(QueueState *state);
extern void queue_ring_advance(QueueState *state, QueueSegment *full);
extern void queue_ring_reuse(QueueState *state, QueueSegment *emptied);
extern bool queue_ring_has_sealed(QueueState *state);
extern QueueTime queue_ring_reclaim_at(QueueState *state, QueueTime now);
extern bool queue_ring_has(QueueState *state, Oid relid);
extern int32 queue_ring_next_number(QueueState *state);
extern Relation queue_ring_open_active(QueueState *state, int64 size, QueueSegment **segment,
										 bool *lacking);

extern QueueBucket queue_ring_bucket(TimestampTz visible_at, TimestampTz wall);
extern Relation queue_ring_open_timed(QueueState *state, int64 size, const QueueBucket *bucket,
									  QueueSegment **segment, bool *lacking);
extern Relation queue_ring_open_copies(QueueState *state, int64 size, QueueSegment **segment,
									   bool *lacking);
extern bool queue_ring_waits(const QueueSegment *segment, TimestampTz wall);
extern void queue_ring_close_buckets(QueueState *state, TimestampTz wall);

#endif							/* QUEUE_RING_H */
