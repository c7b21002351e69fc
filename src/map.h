/*
 * map.h
 *	  Where work may be: a hint for each page of each segment, and summaries.
 */
#ifndef QUEUE_MAP_H
#define QUEUE_MAP_H

#include "access/transam.h"
#include "common/relpath.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/block.h"
#include "storage/lwlock.h"

#include "clock.h"
#include "state.h"

#define QUEUE_MAP_GROUP_PAGES 64	/* pages a group */
#define QUEUE_MAP_DIR_GROUPS 64 /* groups a directory block */
#define QUEUE_MAP_DIRS 8		/* directory blocks kept in the segment */
#define QUEUE_MAP_ROOT_DIRS 128 /* further ones, through a root block */
#define QUEUE_MAP_MAX_PAGES \
	((QUEUE_MAP_DIRS + QUEUE_MAP_ROOT_DIRS) * QUEUE_MAP_DIR_GROUPS * QUEUE_MAP_GROUP_PAGES)

/* Where a segment stands in its life; the next states behind each. */
typedef enum QueueSegmentRole
{
	QUEUE_SEGMENT_FREE,			/* entry unused -> reserve, active, sealed */
	QUEUE_SEGMENT_RESERVE,		/* empty -> active, timed, priority, copies */
	QUEUE_SEGMENT_ACTIVE,		/* takes inserts -> sealed */
	QUEUE_SEGMENT_TIMED,		/* takes those of its bucket -> sealed */
	QUEUE_SEGMENT_PRIORITY,		/* takes those of its priority -> sealed */
	QUEUE_SEGMENT_COPIES,		/* takes what an ordered queue stores again -> sealed */
	QUEUE_SEGMENT_SEALED,		/* full -> reserve, when all is dead */
} QueueSegmentRole;

/* Why a sealed segment was not emptied when the worker last looked. */
typedef enum QueueSegmentKept
{
	QUEUE_KEPT_UNSEEN,
	QUEUE_KEPT_LIVE,			/* messages are left in it */
	QUEUE_KEPT_DELAY,			/* queue.reclaim_delay has not passed */
	QUEUE_KEPT_LOCKED,			/* somebody holds a lock on it */
	QUEUE_KEPT_IN_PROGRESS,		/* transactions on it are open */
} QueueSegmentKept;

/*
 * Times of delivery, by the wall clock, that share segments: "end" is later
 * than all of them. Without any time it is for those of a priority that can be
 * delivered at once.
 */
typedef struct QueueBucket
{
	TimestampTz begin;
	TimestampTz end;
	int			priority;		/* and this they have */
} QueueBucket;

typedef struct QueueSegment
{
	/* under the queue's ring lock */
	Oid			database;
	Oid			relid;
	uint32		queue;			/* index of its state */
	uint32		next;			/* in the ring, QUEUE_NONE at the end */
	uint64		rank;			/* grows along the ring; new at each move to its end */
	int32		number;
	QueueSegmentRole role;
	bool		timed;			/* is or was a bucket's, and not emptied since */
	bool		copies;			/* has or had copies of an ordered queue, likewise */
	QueueBucket bucket;			/* that */
	int			priority;		/* of what it takes */

	/* changed only under an exclusive lock on the relation */
	pg_atomic_uint32 generation;
	uint32		relfilenumber;

	/* atomic */
	pg_atomic_uint64 word;		/* earliest due of all groups, with version */
	pg_atomic_uint32 pages;		/* pages that may hold tuples */
	pg_atomic_uint32 begun;		/* pages that were given a first tuple */
	pg_atomic_uint32 priorities;	/* bits of those that may be on its pages */
	pg_atomic_uint32 mixed;		/* number of pages on which there may be others than its own */
	pg_atomic_uint32 foreign;	/* counts these (priority.c) */
	pg_atomic_uint32 absent;	/* priorities that are not on any of these pages */
	pg_atomic_uint32 surveyed;	/* generation of which "priorities" and "mixed" tell all */
	pg_atomic_uint64 toasted;	/* bytes out of line, when last looked at */
	pg_atomic_uint64 deleted_at;	/* QueueTime of the last committed delete */
	pg_atomic_uint64 live;		/* rows inserted minus deleted, as int64; hint */
	pg_atomic_uint32 kept;		/* QueueSegmentKept */
	pg_atomic_uint32 emptying;	/* the generation that was proven dead */
	pg_atomic_uint64 retry_at;	/* QueueTime before which not to try again */
	pg_atomic_uint32 dirs[QUEUE_MAP_DIRS];
	pg_atomic_uint32 root;

	/* the worker alone */
	FullTransactionId emptied_by;	/* and not in the reserve yet */
	QueueTime	move_at;		/* not to look before whether the rest can be moved */
	int64		move_below;		/* nor while it has more messages than this */
	TransactionId proven_under; /* the oldest that a snapshot could see when all was dead, not for all */
	bool		moving;			/* some of the rest was */
	bool		move_asked;		/* for an empty segment for the rest */
} QueueSegment;

/* What a claimer holds while it has a page's busy bit. */
typedef struct QueueMapHold
{
	QueueSegment *segment;		/* NULL: nothing held */
	BlockNumber page;
	struct MapPage *entry;
	QueueTime	was_due;
	uint8		epoch;
} QueueMapHold;

typedef enum QueueMapTake
{
	QUEUE_MAP_TAKEN,
	QUEUE_MAP_BUSY,
	QUEUE_MAP_NOT_DUE,
	QUEUE_MAP_NO_MEMORY,
} QueueMapTake;

/* The slots that hang on a page, as map.c keeps them: index + 1, 0 ends. */
#define QUEUE_MAP_CHAIN_LOCKS 128

/* Bytes. */
typedef struct QueueMapUsage
{
	int64		used;
	int64		total;
	int64		kept;			/* of these, by segments in use: they do not give way */
	int64		kept_total;
} QueueMapUsage;

extern const QueueShmemPart queue_map_shmem;

extern void queue_map_attach(QueueSegment *segment);
extern void queue_map_detach(QueueSegment *segment);
extern QueueTime queue_map_due(QueueSegment *segment);
extern void queue_map_lower(QueueSegment *segment, BlockNumber page, QueueTime due);
extern void queue_map_lower_range(QueueSegment *segment, BlockNumber first,
								  BlockNumber last, QueueTime due);
extern bool queue_map_find(QueueSegment *segment, BlockNumber from, QueueTime now,
						   BlockNumber *page, BlockNumber *busy);
extern QueueMapTake queue_map_take(QueueSegment *segment, BlockNumber page,
								   QueueTime now, QueueMapHold *hold);
extern void queue_map_put(QueueMapHold *hold, QueueTime due);
extern void queue_map_wait(QueueSegment *segment, BlockNumber page);

extern void queue_map_mark(QueueMapHold *hold, uint32 mark);
extern uint32 queue_map_marked(QueueSegment *segment, BlockNumber page);
extern void queue_map_abort(void);
extern pg_atomic_uint32 *queue_map_chain(QueueMapHold *hold);
extern pg_atomic_uint32 *queue_map_chain_hint(QueueSegment *segment, BlockNumber page);
extern LWLock *queue_map_chain_lock(pg_atomic_uint32 *chain);
extern void queue_map_usage(QueueMapUsage *usage);

#endif							/* QUEUE_MAP_H */
