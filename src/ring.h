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
extern bool queue_ring_next_of(QueueState *state, QueueLane lane, uint32 sources, uint64 *position,
							   QueueTime now, QueueSegment **segment, uint32 *generation);
extern bool queue_ring_next(QueueState *state, uint64 *position, QueueTime now,
							QueueSegment **segment, uint32 *generation);
extern void queue_ring_lower(QueueState *state);
extern QueueTime queue_ring_due(QueueState *state);
extern void queue_ring_advance(QueueState *state, QueueSegment *full);
extern void queue_ring_reuse(QueueState *state, QueueSegment *emptied);
extern bool queue_ring_has_sealed(QueueState *state);
extern bool queue_ring_is_surveyed(QueueState *state);
extern void queue_ring_forget_survey(QueueState *state);
extern bool queue_ring_is_used(QueueState *state);
extern QueueTime queue_ring_reclaim_at(QueueState *state, QueueTime now);
extern bool queue_ring_has(QueueState *state, Oid relid);
extern int32 queue_ring_next_number(QueueState *state);

extern void queue_ring_note_priority(QueueState *state, QueueSegment *segment, BlockNumber page,
									 int priority);
extern void queue_ring_found_priority(QueueState *state, QueueSegment *segment, BlockNumber page,
									  int priority, TimestampTz head);

/* What is due sooner shares one bucket, which has no end. */
#define QUEUE_BUCKET_NEAR USECS_PER_MINUTE

/* the ring lock must be held */
extern void queue_ring_know_source(QueueState *state, int source, TimestampTz head);
extern void queue_ring_set_priority(QueueState *state, QueueSegment *segment, int priority);
extern QueueSegment *queue_ring_use_reserve(QueueState *state, QueueSegmentRole role);
extern void queue_ring_provide_copies(QueueState *state);
extern QueueSegment *queue_ring_find_bucket(QueueState *state, const QueueBucket *bucket);

extern QueueBucket queue_ring_bucket(TimestampTz visible_at, TimestampTz wall, int priority);

static inline bool
queue_bucket_is_near(const QueueBucket *bucket)
{
	return TIMESTAMP_IS_NOEND(bucket->end);
}

/* That of a priority's messages which wait for no time. */
static inline QueueBucket
queue_bucket_at_once(int priority)
{
	return (QueueBucket) {DT_NOBEGIN, DT_NOBEGIN, priority};
}

static inline bool
queue_bucket_is_at_once(const QueueBucket *bucket)
{
	return TIMESTAMP_IS_NOBEGIN(bucket->end);
}

static inline bool
queue_segment_takes_bucket(const QueueSegment *segment)
{
	return segment->role == QUEUE_SEGMENT_TIMED || segment->role == QUEUE_SEGMENT_PRIORITY;
}

static inline bool
queue_bucket_same(const QueueBucket *a, const QueueBucket *b)
{
	return a->begin == b->begin && a->end == b->end && a->priority == b->priority;
}

#endif							/* QUEUE_RING_H */
