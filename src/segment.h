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

/* What a segment's file tells about its place in the ring. */
typedef struct QueueSegmentFacts
{
	Oid			relid;
	int32		number;
	uint32		relfilenumber;
	BlockNumber pages;
	int64		toasted;		/* bytes out of line */
	int64		first_id;
	int			priority;		/* of the first message */
	TimestampTz enqueued_at;	/* likewise */
	bool		copies;			/* the first message was stored again */
	TimestampTz visible_at;		/* of that message; DT_NOBEGIN: none */
	bool		half_emptied;	/* its toast table, by somebody who died */
} QueueSegmentFacts;

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

/* entries */
extern bool queue_segment_read_facts(QueueSegmentFacts *facts);
extern QueueSegment *queue_segment_allocate(QueueState *state, const QueueSegmentFacts *facts,
											QueueSegmentRole role);
extern void queue_segment_free(QueueSegment *segment);
extern bool queue_segment_is_half_emptied(Relation rel);

/* The most pages that RelationAddExtraBlocks() and its successors add for later. */
#define QUEUE_SEGMENT_AHEAD INT64CONST(512)

/* relations */
extern Relation queue_segment_open_by_oid(Oid relid);
extern Relation queue_segment_open(QueueSegment *segment, uint32 generation, LOCKMODE mode);
extern void queue_segment_check_plain(Relation rel);
extern void queue_segment_check_rewritten(QueueSegment *segment, Relation rel);
extern int64 queue_segment_bytes(QueueSegment *segment);
extern void queue_segment_grow(QueueSegment *segment, BlockNumber pages);
extern bool queue_segment_refresh(QueueSegment *segment, Relation rel);

/* tuples */
extern LWLock *queue_segment_tail_lock(uint32 queue);
extern void queue_segment_lock_toast(Relation rel);
extern void queue_segment_insert(Relation rel, QueueSegment *segment, HeapTuple *tuples, int n, bool at_end);
extern void queue_segment_visit(Relation rel, BlockNumber page, Snapshot snapshot,
								bool by_id, QueueTupleVisitor visitor, void *arg);
extern void queue_segment_visit_seen(Relation rel, BlockNumber page, Snapshot snapshot,
									 QueueTupleVisitor visitor, void *arg);
extern bool queue_segment_has(Relation rel, BlockNumber page, int64 id);
extern BlockNumber queue_segment_guess(Relation rel, int64 id);
extern HeapTuple queue_segment_fetch_held(Relation rel, QueueSegment *segment, ItemPointer tid, int64 id);
extern HeapTuple queue_segment_fetch(Relation rel, QueueSegment *segment, ItemPointer tid, int64 id);
extern QueueDeleteResult queue_segment_delete(Relation rel, QueueSegment *segment, ItemPointer tid, int64 id,
											  text **unique_key);

/* What queue_segment_prove_dead() saw: pages and their LSNs. */
typedef struct QueueDeadProof
{
	BlockNumber pages;
	bool		all_old;		/* no snapshot can see any of it */
	TransactionId oldest;		/* that some snapshot may see */
	XLogRecPtr *lsns;
} QueueDeadProof;

extern bool queue_segment_prove_dead(Relation rel, QueueDeadProof *proof);
extern bool queue_segment_truncate(QueueSegment *segment, Relation rel, const QueueDeadProof *proof);

#endif							/* QUEUE_SEGMENT_H */
