/*
 * ring.h
 *	  The ring of segments of a queue.
 */
#ifndef QUEUE_RING_H
#define QUEUE_RING_H

#include "segment.h"

extern void queue_ring_load(QueueState *state);
extern void queue_ring_complete(QueueState *state);
extern void queue_ring_refresh(QueueState *state, QueueSegment *segment, Relation rel);
extern void queue_ring_remove_all(QueueState *state);
extern bool queue_ring_next(QueueState *state, uint64 *position, QueueTime now,
							QueueSegment **segment, uint32 *generation);
extern QueueTime queue_ring_due(QueueState *state);
extern void queue_ring_advance(QueueState *state, QueueSegment *full);
extern void queue_ring_reuse(QueueState *state, QueueSegment *emptied);
extern bool queue_ring_has_sealed(QueueState *state);
extern bool queue_ring_has(QueueState *state, Oid relid);
extern int32 queue_ring_next_number(QueueState *state);
extern Relation queue_ring_open_active(QueueState *state, int64 size, QueueSegment **segment);

#endif							/* QUEUE_RING_H */
