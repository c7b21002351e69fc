/*
 * segment.h
 *	  Segments: the heap tables that hold a queue's messages.
 */
#ifndef QUEUE_SEGMENT_H
#define QUEUE_SEGMENT_H

#include "access/htup.h"
#include "access/xlogdefs.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#include "map.h"
#include "state.h"

/* What a tuple on a page is to us, now. */
typedef enum QueueTupleFate
{
	QUEUE_TUPLE_GONE,			/* never was, or is deleted for good */
	QUEUE_TUPLE_INSERTING,		/* its transaction is open */
	QUEUE_TUPLE_OWN,			/* inserted by this transaction */
	QUEUE_TUPLE_DELETING,		/* somebody's open transaction deletes it */
	QUEUE_TUPLE_UNSEEN,			/* committed, but not for the snapshot */
	QUEUE_TUPLE_LIVE,
} QueueTupleFate;

/*
 * Called for each tuple of a page under a shared content lock: may allocate
 * and raise errors, must not wait. The tuple points into the page. Returning
 * false ends the visit.
 */
typedef bool (*QueueTupleVisitor) (HeapTuple tuple, QueueTupleFate fate, void *arg);

typedef enum QueueDeleteResult
{
	QUEUE_DELETE_DONE,
	QUEUE_DELETE_GONE,			/* no such message there any more */
	QUEUE_DELETE_BUSY,			/* another transaction has its hands on it */
} QueueDeleteResult;

extern const QueueShmemPart queue_segment_shmem;

extern QueueSegment *queue_segment_at(uint32 index);
extern uint32 queue_segment_index(const QueueSegment *segment);

/* the ring */
extern void queue_ring_load(QueueState *state);
extern void queue_ring_add(QueueState *state, Oid relid, int32 number);
extern void queue_ring_remove_all(QueueState *state);
extern bool queue_ring_next(QueueState *state, uint32 *position, QueueTime now,
							QueueSegment **segment, uint32 *generation);
extern QueueTime queue_ring_due(QueueState *state);
extern void queue_ring_advance(QueueState *state, QueueSegment *full);
extern void queue_ring_reuse(QueueState *state, QueueSegment *emptied);
extern uint64 queue_ring_pages(QueueState *state, bool *sealed);
extern bool queue_ring_has(QueueState *state, Oid relid);
extern int32 queue_ring_next_number(QueueState *state);

/* relations */
extern Relation queue_segment_open(QueueSegment *segment, uint32 generation, LOCKMODE mode);
extern Relation queue_segment_open_active(QueueState *state, int64 size, QueueSegment **segment);
extern void queue_segment_grow(QueueSegment *segment, BlockNumber pages);
extern void queue_segment_refresh(QueueSegment *segment, Relation rel);

/* tuples */
extern void queue_segment_insert(Relation rel, QueueSegment *segment, HeapTuple *tuples, int n);
extern void queue_segment_visit(Relation rel, BlockNumber page, Snapshot snapshot,
								QueueTupleVisitor visitor, void *arg);
extern void queue_segment_visit_seen(Relation rel, BlockNumber page, Snapshot snapshot,
									 QueueTupleVisitor visitor, void *arg);
extern bool queue_segment_has(Relation rel, BlockNumber page, int64 id);
extern HeapTuple queue_segment_fetch(Relation rel, QueueSegment *segment, ItemPointer tid, int64 id);
extern QueueDeleteResult queue_segment_delete(Relation rel, QueueSegment *segment, ItemPointer tid, int64 id);

/* What queue_segment_prove_dead() saw: pages and their LSNs. */
typedef struct QueueDeadProof
{
	BlockNumber pages;
	bool		all_old;		/* no snapshot can see any of it */
	XLogRecPtr *lsns;
} QueueDeadProof;

extern bool queue_segment_prove_dead(Relation rel, QueueDeadProof *proof);
extern bool queue_segment_truncate(QueueSegment *segment, Relation rel, const QueueDeadProof *proof);

#endif							/* QUEUE_SEGMENT_H */
