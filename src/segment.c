/*
 * segment.c
 *	  The ring of segments of a queue, and the only code that touches pages.
 *
 * What a reader must believe:
 * - A message is inserted into the active segment only, under a
 *   RowExclusiveLock kept to the end of the transaction. The role is looked at
 *   again once the lock is there.
 * - A row is deleted only by whoever holds its slot, or holds its page for a
 *   mass delete; heap_delete() never waits here.
 * - A tuple that is dead stays dead, and a page whose LSN did not move has no
 *   new tuple. So a segment is proven dead without any lock, page by page, and
 *   under the exclusive lock only the LSNs are compared. That lock is only
 *   ever taken conditionally: nobody queues behind it.
 * - Truncation is logged and flushed by RelationTruncate() before blocks
 *   vanish; commits of the deletes are older in the WAL. A crash before it
 *   leaves dead rows, a crash after it an empty segment.
 *
 * The ring's list, and the roles in it, change under the queue's ring lock.
 * Order in it is the order of age: of two segments with messages the one whose
 * first message has the lower id is older. That is how it is found again
 * after a restart; nothing about it is stored.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/heapam_xlog.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "catalog/pg_am.h"
#include "catalog/storage.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "error.h"
#include "guc.h"
#include "message.h"
#include "segment.h"
#include "slot.h"

typedef struct SegmentShared
{
	/* under the segment lock */
	uint32		used;			/* entries ever used */
	/* atomic */
	pg_atomic_uint32 generation;	/* last one given out */
} SegmentShared;

/* Attached at start, the same in every process. */
static SegmentShared *shared;
static QueueSegment *segments;
static LWLockPadded *locks;

static Size
segment_size(void)
{
	return MAXALIGN(sizeof(SegmentShared)) + mul_size(queue_max_segments, sizeof(QueueSegment));
}

static void
segment_init(void *area, bool found)
{
	shared = area;
	segments = (QueueSegment *) ((char *) area + MAXALIGN(sizeof(SegmentShared)));
	locks = GetNamedLWLockTranche("QueueSegment");
	if (found)
		return;
	memset(area, 0, segment_size());
	pg_atomic_init_u32(&shared->generation, 0);
}

const QueueShmemPart queue_segment_shmem = {
	"queue segments", segment_size, segment_init, "QueueSegment", 1, NULL
};

QueueSegment *
queue_segment_at(uint32 index)
{
	return &segments[index];
}

uint32
queue_segment_index(const QueueSegment *segment)
{
	return segment - segments;
}

/* ---- the ring ---- */

/* What a segment's file tells about its place in the ring. */
typedef struct SegmentFacts
{
	Oid			relid;
	int32		number;
	uint32		relfilenumber;
	BlockNumber pages;
	int64		first_id;
} SegmentFacts;

/* The id of the first row that is still there in full; 0 if none is. */
static int64
read_first_id(Relation rel, BlockNumber pages)
{
	int64		id = 0;

	for (BlockNumber block = 0; block < pages && id == 0; block++)
	{
		Buffer		buffer = ReadBuffer(rel, block);
		Page		page = BufferGetPage(buffer);

		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		for (OffsetNumber i = FirstOffsetNumber; i <= PageGetMaxOffsetNumber(page); i++)
		{
			ItemId		item = PageGetItemId(page, i);
			HeapTupleData tuple;

			if (!ItemIdIsNormal(item))
				continue;
			tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
			tuple.t_len = ItemIdGetLength(item);
			tuple.t_tableOid = RelationGetRelid(rel);
			id = queue_message_id(&tuple, RelationGetDescr(rel));
			break;
		}
		UnlockReleaseBuffer(buffer);
	}
	return id;
}

static bool
read_facts(SegmentFacts *facts)
{
	Relation	rel = try_relation_open(facts->relid, AccessShareLock);

	if (rel == NULL)
		return false;
	facts->relfilenumber = queue_relfilenumber(rel);
	facts->pages = RelationGetNumberOfBlocks(rel);
	facts->first_id = read_first_id(rel, facts->pages);
	relation_close(rel, AccessShareLock);
	return true;
}

static int
compare_age(const void *a, const void *b)
{
	const SegmentFacts *x = a;
	const SegmentFacts *y = b;

	if ((x->pages == 0) != (y->pages == 0))
		return x->pages == 0 ? 1 : -1;
	if (x->first_id != y->first_id)
		return x->first_id < y->first_id ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* The ring lock must be held. NULL when all entries are in use. */
static QueueSegment *
allocate_segment(QueueState *state, const SegmentFacts *facts, QueueSegmentRole role)
{
	QueueSegment *segment = NULL;

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	if (shared->used < (uint32) queue_max_segments)
		segment = &segments[shared->used++];
	else
		for (int i = 0; i < queue_max_segments && segment == NULL; i++)
			if (segments[i].role == QUEUE_SEGMENT_FREE)
				segment = &segments[i];
	if (segment)
	{
		segment->database = state->database;
		segment->relid = facts->relid;
		segment->queue = queue_state_index(state);
		segment->next = QUEUE_NONE;
		segment->number = facts->number;
		segment->relfilenumber = facts->relfilenumber;
		pg_atomic_write_u32(&segment->generation, pg_atomic_add_fetch_u32(&shared->generation, 1));
		pg_atomic_init_u32(&segment->pages, facts->pages);
		pg_atomic_init_u64(&segment->deleted_at, queue_clock_now());
		pg_atomic_init_u64(&segment->live, 0);
		pg_atomic_init_u32(&segment->kept, QUEUE_KEPT_UNSEEN);
		pg_atomic_init_u64(&segment->retry_at, 0);
		queue_map_attach(segment);
		segment->role = role;
	}
	LWLockRelease(&locks[0].lock);
	return segment;
}

/* The ring lock must be held. */
static void
append(QueueState *state, QueueSegment *segment)
{
	uint32	   *link = &state->first_segment;

	while (*link != QUEUE_NONE)
		link = &segments[*link].next;
	*link = queue_segment_index(segment);
	segment->next = QUEUE_NONE;
}

/* The ring lock must be held. */
static void
unlink_segment(QueueState *state, QueueSegment *segment)
{
	uint32	   *link = &state->first_segment;

	while (*link != QUEUE_NONE && *link != queue_segment_index(segment))
		link = &segments[*link].next;
	if (*link != QUEUE_NONE)
		*link = segment->next;
}

/* The ring lock must be held. */
static void
free_ring(QueueState *state)
{
	while (state->first_segment != QUEUE_NONE)
	{
		QueueSegment *segment = &segments[state->first_segment];

		state->first_segment = segment->next;
		queue_map_detach(segment);
		pg_atomic_write_u32(&segment->generation,
							pg_atomic_add_fetch_u32(&shared->generation, 1));
		segment->relid = InvalidOid;
		segment->role = QUEUE_SEGMENT_FREE;
	}
	pg_atomic_write_u32(&state->active, QUEUE_NONE);
	state->reserves = 0;
}

static bool
link_ring(QueueState *state, const SegmentFacts *facts, int n)
{
	int			active = -1;

	/* The youngest with messages goes on; all empty, the first one begins. */
	for (int i = 0; i < n; i++)
		if (facts[i].pages > 0 || active < 0)
			active = i;
	for (int i = 0; i < n; i++)
	{
		QueueSegmentRole role = facts[i].pages > 0 ? QUEUE_SEGMENT_SEALED : QUEUE_SEGMENT_RESERVE;
		QueueSegment *segment = allocate_segment(state, &facts[i],
												 i == active ? QUEUE_SEGMENT_ACTIVE : role);

		if (segment == NULL)
			return false;
		append(state, segment);
		if (i == active)
			pg_atomic_write_u32(&state->active, queue_segment_index(segment));
		else if (role == QUEUE_SEGMENT_RESERVE)
			state->reserves++;
	}
	return true;
}

QUEUE_NORETURN static void
out_of_segments(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many queue segments are in use"),
			 errdetail("The limit is %d.", queue_max_segments),
			 errhint("Raise \"queue.max_segments\" and restart the server.")));
}

/*
 * Learn a queue's ring from the catalog and its files, once per life of the
 * server. The caller has the queue's view locked.
 */
void
queue_ring_load(QueueState *state)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	List	   *known;
	ListCell   *cell;
	SegmentFacts *facts;
	int			n = 0;
	bool		complete = true;

	if (state->loaded)
	{
		pg_read_barrier();
		return;
	}
	known = queue_catalog_segments(state->id);
	facts = palloc(sizeof(SegmentFacts) * (list_length(known) + 1));
	foreach(cell, known)
	{
		QueueCatalogSegment *row = lfirst(cell);

		facts[n].relid = row->relid;
		facts[n].number = row->number;
		if (read_facts(&facts[n]))
			n++;
	}
	qsort(facts, n, sizeof(SegmentFacts), compare_age);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (!state->loaded)
	{
		complete = link_ring(state, facts, n);
		if (!complete)
			free_ring(state);
		pg_write_barrier();
		state->loaded = complete;
	}
	LWLockRelease(lock);
	if (!complete)
		out_of_segments();
	pfree(facts);
	list_free_deep(known);
}

/* A segment that was just made joins the ring as reserve, or as the first. */
void
queue_ring_add(QueueState *state, Oid relid, int32 number)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	SegmentFacts facts = {.relid = relid,.number = number};
	QueueSegment *segment;

	if (!read_facts(&facts))
		return;
	LWLockAcquire(lock, LW_EXCLUSIVE);
	segment = allocate_segment(state, &facts, QUEUE_SEGMENT_RESERVE);
	if (segment)
	{
		append(state, segment);
		if (pg_atomic_read_u32(&state->active) == QUEUE_NONE)
		{
			segment->role = QUEUE_SEGMENT_ACTIVE;
			pg_atomic_write_u32(&state->active, queue_segment_index(segment));
		}
		else
			state->reserves++;
	}
	LWLockRelease(lock);
	if (segment == NULL)
		out_of_segments();
}

/* The queue is gone. For callbacks: cannot fail. */
void
queue_ring_remove_all(QueueState *state)
{
	LWLock	   *lock = queue_state_ring_lock(state);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	free_ring(state);
	state->loaded = false;
	LWLockRelease(lock);
}

/*
 * Walk the ring from the oldest segment on, past those that have nothing due
 * by "now". *position begins as 0. A segment that leaves the ring meanwhile
 * may make the walk miss one: the next walk finds it.
 */
bool
queue_ring_next(QueueState *state, uint32 *position, QueueTime now,
				QueueSegment **segment, uint32 *generation)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	uint32		index;
	uint32		skip = *position;
	bool		found = false;

	LWLockAcquire(lock, LW_SHARED);
	index = state->first_segment;
	while (index != QUEUE_NONE && skip > 0)
	{
		index = segments[index].next;
		skip--;
	}
	for (; index != QUEUE_NONE && !found; index = segments[index].next)
	{
		(*position)++;
		if (queue_map_due(&segments[index]) > now)
			continue;
		*segment = &segments[index];
		*generation = pg_atomic_read_u32(&segments[index].generation);
		found = true;
	}
	LWLockRelease(lock);
	return found;
}

/* The earliest time at which anything in the queue is worth a look. */
QueueTime
queue_ring_due(QueueState *state)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	QueueTime	due = QUEUE_TIME_NEVER;

	LWLockAcquire(lock, LW_SHARED);
	for (uint32 i = state->first_segment; i != QUEUE_NONE; i = segments[i].next)
	{
		if (segments[i].role == QUEUE_SEGMENT_RESERVE)
			continue;
		due = Min(due, queue_map_due(&segments[i]));
	}
	LWLockRelease(lock);
	return due;
}

/*
 * The active segment is full: go on in a reserve, if there is one. Otherwise
 * producers go on past the size until the worker has made one.
 */
void
queue_ring_advance(QueueState *state, QueueSegment *full)
{
	LWLock	   *lock = queue_state_ring_lock(state);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&state->active) == queue_segment_index(full))
	{
		for (uint32 i = state->first_segment; i != QUEUE_NONE; i = segments[i].next)
		{
			if (segments[i].role != QUEUE_SEGMENT_RESERVE)
				continue;
			full->role = QUEUE_SEGMENT_SEALED;
			unlink_segment(state, &segments[i]);
			append(state, &segments[i]);
			segments[i].role = QUEUE_SEGMENT_ACTIVE;
			state->reserves--;
			pg_atomic_write_u32(&state->active, i);
			break;
		}
	}
	LWLockRelease(lock);
}

/* An emptied segment goes to the end of the ring. Its lock is still held. */
void
queue_ring_reuse(QueueState *state, QueueSegment *emptied)
{
	LWLock	   *lock = queue_state_ring_lock(state);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	Assert(emptied->role == QUEUE_SEGMENT_SEALED);
	unlink_segment(state, emptied);
	append(state, emptied);
	emptied->role = QUEUE_SEGMENT_RESERVE;
	state->reserves++;
	LWLockRelease(lock);
}

/* Pages of all segments, and whether one may be waiting to be emptied. */
uint64
queue_ring_pages(QueueState *state, bool *sealed)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	uint64		pages = 0;

	*sealed = false;
	LWLockAcquire(lock, LW_SHARED);
	for (uint32 i = state->first_segment; i != QUEUE_NONE; i = segments[i].next)
	{
		pages += pg_atomic_read_u32(&segments[i].pages);
		*sealed |= segments[i].role == QUEUE_SEGMENT_SEALED;
	}
	LWLockRelease(lock);
	return pages;
}

bool
queue_ring_has(QueueState *state, Oid relid)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	bool		found = false;

	LWLockAcquire(lock, LW_SHARED);
	for (uint32 i = state->first_segment; i != QUEUE_NONE && !found; i = segments[i].next)
		found = segments[i].relid == relid;
	LWLockRelease(lock);
	return found;
}

int32
queue_ring_next_number(QueueState *state)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	int32		number = 1;

	LWLockAcquire(lock, LW_SHARED);
	for (uint32 i = state->first_segment; i != QUEUE_NONE; i = segments[i].next)
		number = Max(number, segments[i].number + 1);
	LWLockRelease(lock);
	return number;
}

/* ---- relations ---- */

/* What heap_insert() from C would silently pass over must not exist. */
static void
check_plain(Relation rel)
{
	if (rel->rd_rel->relhasindex || rel->rd_rel->relhastriggers || rel->rd_rel->relrowsecurity ||
		rel->rd_rel->relam != HEAP_TABLE_AM_OID || RelationGetNumberOfAttributes(rel) != QUEUE_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("segment \"%s\" was changed by hand", RelationGetRelationName(rel)),
				 errdetail("It has an index, a trigger, row security, or other columns than it should."),
				 errhint("Undo the change: segments belong to the extension.")));
}

/*
 * Somebody rewrote the segment (VACUUM FULL, CLUSTER, a restore): all that is
 * remembered by place is void. The caller's lock keeps rewriters out.
 */
static void
check_rewritten(QueueSegment *segment, Relation rel)
{
	QueueState *state = &queue_states[segment->queue];
	LWLock	   *lock = queue_state_ring_lock(state);

	if (segment->relfilenumber == queue_relfilenumber(rel))
		return;
	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (segment->relfilenumber != queue_relfilenumber(rel))
	{
		pg_atomic_write_u32(&segment->generation,
							pg_atomic_add_fetch_u32(&shared->generation, 1));
		segment->relfilenumber = queue_relfilenumber(rel);
		pg_atomic_write_u32(&segment->pages, RelationGetNumberOfBlocks(rel));
		if (pg_atomic_read_u32(&segment->pages) > 0)
			queue_map_lower_range(segment, 0, pg_atomic_read_u32(&segment->pages) - 1, 0);
	}
	LWLockRelease(lock);
	queue_slot_forget_segment(queue_segment_index(segment),
							  pg_atomic_read_u32(&segment->generation));
}

/*
 * Open a segment's relation if it is still what the caller saw; NULL if the
 * segment was emptied or dropped since.
 */
Relation
queue_segment_open(QueueSegment *segment, uint32 generation, LOCKMODE mode)
{
	Oid			relid = segment->relid;
	Relation	rel;

	if (pg_atomic_read_u32(&segment->generation) != generation || !OidIsValid(relid))
		return NULL;
	rel = try_relation_open(relid, mode);
	if (rel == NULL)
		return NULL;
	check_rewritten(segment, rel);
	if (pg_atomic_read_u32(&segment->generation) == generation)
		return rel;
	relation_close(rel, mode);
	return NULL;
}

/*
 * Open the segment that takes inserts, with a lock that the caller keeps until
 * its transaction ends. Rolls over when it has reached "size" bytes.
 */
Relation
queue_segment_open_active(QueueState *state, int64 size, QueueSegment **segment)
{
	for (int tries = 0;; tries++)
	{
		uint32		index = pg_atomic_read_u32(&state->active);
		QueueSegment *active;
		Relation	rel;
		int64		bytes;

		CHECK_FOR_INTERRUPTS();
		if (index == QUEUE_NONE || tries > 1000)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("queue has no segment"),
					 errhint("Its tables were dropped by hand; see queue.check().")));
		active = &segments[index];
		bytes = (int64) pg_atomic_read_u32(&active->pages) * BLCKSZ;
		if (bytes >= size / 2 && state->reserves == 0)
			queue_state_ask(state, QUEUE_ASK_RESERVE);
		if (bytes >= size && state->reserves > 0)
		{
			queue_ring_advance(state, active);
			queue_state_ask(state, QUEUE_ASK_RESERVE | QUEUE_ASK_RECLAIM);
			continue;
		}
		if (pg_atomic_read_u32(&active->pages) > QUEUE_MAP_MAX_PAGES - 1024)
			ereport(ERROR,
					(errcode(ERRCODE_QUEUE_FULL),
					 errmsg("queue is full"),
					 errdetail("Its active segment has %u pages, the limit is %u.",
							   pg_atomic_read_u32(&active->pages), QUEUE_MAP_MAX_PAGES - 1024),
					 errhint("The worker makes new segments; queue.health() tells why it does not.")));
		rel = try_relation_open(active->relid, RowExclusiveLock);
		if (rel == NULL)
			continue;
		check_rewritten(active, rel);
		if (active->role == QUEUE_SEGMENT_ACTIVE && active->relid == RelationGetRelid(rel))
		{
			check_plain(rel);
			*segment = active;
			return rel;
		}
		relation_close(rel, RowExclusiveLock);
	}
}

/* Pages below this count may hold tuples. */
void
queue_segment_grow(QueueSegment *segment, BlockNumber pages)
{
	uint32		known = pg_atomic_read_u32(&segment->pages);

	while (known < pages && !pg_atomic_compare_exchange_u32(&segment->pages, &known, pages))
		;
}

/* Look at the file: rows may have come by COPY of a restore. */
void
queue_segment_refresh(QueueSegment *segment, Relation rel)
{
	BlockNumber pages = RelationGetNumberOfBlocks(rel);
	BlockNumber known = pg_atomic_read_u32(&segment->pages);

	if (pages <= known)
		return;
	queue_segment_grow(segment, pages);
	queue_map_lower_range(segment, known, pages - 1, 0);
}

/* ---- tuples ---- */

/* Insert one or many rows; each tuple's t_self tells where it went. */
void
queue_segment_insert(Relation rel, QueueSegment *segment, HeapTuple *tuples, int n)
{
	CommandId	cid = GetCurrentCommandId(true);
	BlockNumber last = 0;

	if (n == 1)
	{
		heap_insert(rel, tuples[0], cid, 0, NULL);
		last = ItemPointerGetBlockNumber(&tuples[0]->t_self);
	}
	else
	{
		TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * n);

		for (int i = 0; i < n; i++)
		{
			slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
			ExecStoreHeapTuple(tuples[i], slots[i], false);
		}
		heap_multi_insert(rel, slots, n, cid, 0, NULL);
		for (int i = 0; i < n; i++)
		{
			tuples[i]->t_self = slots[i]->tts_tid;
			last = Max(last, ItemPointerGetBlockNumber(&slots[i]->tts_tid));
			ExecDropSingleTupleTableSlot(slots[i]);
		}
		pfree(slots);
	}
	queue_segment_grow(segment, last + 1);
}

static QueueTupleFate
judge(HeapTuple tuple, Buffer buffer, Snapshot snapshot)
{
	HeapTupleHeader header = tuple->t_data;
	SnapshotData dirty;

	/* The common cases, told by hint bits. */
	if (HeapTupleHeaderXminCommitted(header))
	{
		if ((header->t_infomask & (HEAP_XMAX_COMMITTED | HEAP_XMAX_IS_MULTI)) == HEAP_XMAX_COMMITTED &&
			!HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask))
			return QUEUE_TUPLE_GONE;
		if (header->t_infomask & HEAP_XMAX_INVALID)
		{
			if (snapshot && !HeapTupleSatisfiesVisibility(tuple, snapshot, buffer))
				return QUEUE_TUPLE_UNSEEN;
			return QUEUE_TUPLE_LIVE;
		}
	}
	InitDirtySnapshot(dirty);
	if (!HeapTupleSatisfiesVisibility(tuple, &dirty, buffer))
		return QUEUE_TUPLE_GONE;
	if (TransactionIdIsValid(dirty.xmin))
		return QUEUE_TUPLE_INSERTING;
	if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetRawXmin(header)))
		return QUEUE_TUPLE_OWN;
	if (TransactionIdIsValid(dirty.xmax))
		return QUEUE_TUPLE_DELETING;
	if (snapshot && !HeapTupleSatisfiesVisibility(tuple, snapshot, buffer))
		return QUEUE_TUPLE_UNSEEN;
	return QUEUE_TUPLE_LIVE;
}

/* Show a page's tuples, in order of place, to a visitor. */
void
queue_segment_visit(Relation rel, BlockNumber block, Snapshot snapshot,
					QueueTupleVisitor visitor, void *arg)
{
	Buffer		buffer;
	Page		page;
	OffsetNumber last;

	/* A VACUUM may have cut empty pages off. */
	if (block >= RelationGetNumberOfBlocks(rel))
		return;
	buffer = ReadBuffer(rel, block);
	page = BufferGetPage(buffer);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	last = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
	for (OffsetNumber i = FirstOffsetNumber; i <= last; i++)
	{
		ItemId		item = PageGetItemId(page, i);
		HeapTupleData tuple;

		if (!ItemIdIsNormal(item))
			continue;
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		tuple.t_tableOid = RelationGetRelid(rel);
		ItemPointerSet(&tuple.t_self, block, i);
		if (!visitor(&tuple, judge(&tuple, buffer, snapshot), arg))
			break;
	}
	UnlockReleaseBuffer(buffer);
}

/* Show a page's tuples that an MVCC snapshot sees: for reading along. */
void
queue_segment_visit_seen(Relation rel, BlockNumber block, Snapshot snapshot,
						 QueueTupleVisitor visitor, void *arg)
{
	Buffer		buffer = ReadBuffer(rel, block);
	Page		page = BufferGetPage(buffer);
	OffsetNumber last;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	last = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
	for (OffsetNumber i = FirstOffsetNumber; i <= last; i++)
	{
		ItemId		item = PageGetItemId(page, i);
		HeapTupleData tuple;

		if (!ItemIdIsNormal(item))
			continue;
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		tuple.t_tableOid = RelationGetRelid(rel);
		ItemPointerSet(&tuple.t_self, block, i);
		if (HeapTupleSatisfiesVisibility(&tuple, snapshot, buffer) &&
			!visitor(&tuple, QUEUE_TUPLE_LIVE, arg))
			break;
	}
	UnlockReleaseBuffer(buffer);
}

/*
 * Pin the page of a row and check that the message is still the one in that
 * place. Returns with the content lock held shared, or InvalidBuffer.
 */
static Buffer
find_row(Relation rel, QueueSegment *segment, ItemPointer tid, int64 id, HeapTuple tuple)
{
	BlockNumber block = ItemPointerGetBlockNumber(tid);
	OffsetNumber offset = ItemPointerGetOffsetNumber(tid);
	Buffer		buffer;
	Page		page;

	/* What is known of the file spares asking the kernel for each message. */
	if (block >= pg_atomic_read_u32(&segment->pages) &&
		block >= RelationGetNumberOfBlocks(rel))
		return InvalidBuffer;
	buffer = ReadBuffer(rel, block);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	if (!PageIsNew(page) && offset <= PageGetMaxOffsetNumber(page))
	{
		ItemId		item = PageGetItemId(page, offset);

		if (ItemIdIsNormal(item))
		{
			tuple->t_data = (HeapTupleHeader) PageGetItem(page, item);
			tuple->t_len = ItemIdGetLength(item);
			tuple->t_tableOid = RelationGetRelid(rel);
			tuple->t_self = *tid;
			if (queue_message_id(tuple, RelationGetDescr(rel)) == id &&
				judge(tuple, buffer, NULL) != QUEUE_TUPLE_GONE)
				return buffer;
		}
	}
	UnlockReleaseBuffer(buffer);
	return InvalidBuffer;
}

/* Whether a page has a row with this id, whatever became of it. */
bool
queue_segment_has(Relation rel, BlockNumber block, int64 id)
{
	Buffer		buffer = ReadBuffer(rel, block);
	Page		page = BufferGetPage(buffer);
	bool		found = false;
	OffsetNumber last;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	last = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
	for (OffsetNumber i = FirstOffsetNumber; i <= last && !found; i++)
	{
		ItemId		item = PageGetItemId(page, i);
		HeapTupleData tuple;

		if (!ItemIdIsNormal(item))
			continue;
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		tuple.t_tableOid = RelationGetRelid(rel);
		found = queue_message_id(&tuple, RelationGetDescr(rel)) == id;
	}
	UnlockReleaseBuffer(buffer);
	return found;
}

/* A copy of the row, or NULL if the message is no longer there. */
HeapTuple
queue_segment_fetch(Relation rel, QueueSegment *segment, ItemPointer tid, int64 id)
{
	HeapTupleData tuple;
	HeapTuple	copy;
	Buffer		buffer = find_row(rel, segment, tid, id, &tuple);

	if (!BufferIsValid(buffer))
		return NULL;
	copy = heap_copytuple(&tuple);
	UnlockReleaseBuffer(buffer);
	return copy;
}

/*
 * Delete the row of a message whose slot (or page) the caller holds; the
 * relation is locked until the end of the transaction. Never waits.
 */
QueueDeleteResult
queue_segment_delete(Relation rel, QueueSegment *segment, ItemPointer tid, int64 id)
{
	HeapTupleData tuple;
	TM_FailureData failure;
	TM_Result	result;
	QueueTupleFate fate;
	Buffer		buffer = find_row(rel, segment, tid, id, &tuple);

	if (!BufferIsValid(buffer))
		return QUEUE_DELETE_GONE;
	fate = judge(&tuple, buffer, NULL);
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	/* heap_delete() raises for a row whose inserter has not committed. */
	if (fate == QUEUE_TUPLE_INSERTING)
	{
		ReleaseBuffer(buffer);
		return QUEUE_DELETE_BUSY;
	}
	result = queue_compat_heap_delete(rel, tid, GetCurrentCommandId(true), &failure);
	ReleaseBuffer(buffer);
	switch (result)
	{
		case TM_Ok:
			return QUEUE_DELETE_DONE;
		case TM_BeingModified:
		case TM_WouldBlock:
			return QUEUE_DELETE_BUSY;
		default:
			return QUEUE_DELETE_GONE;
	}
}

/* ---- emptying ---- */

static bool
page_is_dead(Relation rel, Buffer buffer, TransactionId oldest, bool *all_old)
{
	Page		page = BufferGetPage(buffer);
	OffsetNumber last = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);

	for (OffsetNumber i = FirstOffsetNumber; i <= last; i++)
	{
		ItemId		item = PageGetItemId(page, i);
		HeapTupleData tuple;

		if (!ItemIdIsNormal(item))
			continue;
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		tuple.t_tableOid = RelationGetRelid(rel);
		ItemPointerSet(&tuple.t_self, BufferGetBlockNumber(buffer), i);
		switch (HeapTupleSatisfiesVacuum(&tuple, oldest, buffer))
		{
			case HEAPTUPLE_DEAD:
				break;
			case HEAPTUPLE_RECENTLY_DEAD:
				*all_old = false;
				break;
			default:
				return false;
		}
	}
	return true;
}

/* Whether every tuple is dead for good; remembers the LSN of each page. */
bool
queue_segment_prove_dead(Relation rel, QueueDeadProof *proof)
{
	TransactionId oldest = GetOldestNonRemovableTransactionId(rel);

	proof->pages = RelationGetNumberOfBlocks(rel);
	proof->all_old = true;
	proof->lsns = palloc(sizeof(XLogRecPtr) * (proof->pages + 1));
	for (BlockNumber block = 0; block < proof->pages; block++)
	{
		Buffer		buffer = ReadBuffer(rel, block);
		bool		dead;

		CHECK_FOR_INTERRUPTS();
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		dead = page_is_dead(rel, buffer, oldest, &proof->all_old);
		proof->lsns[block] = BufferGetLSNAtomic(buffer);
		UnlockReleaseBuffer(buffer);
		if (!dead)
			return false;
	}
	return true;
}

/* Lock the toast table and its index without waiting. */
static bool
lock_toast(Relation rel, bool *has_blocks)
{
	Oid			toastrelid = rel->rd_rel->reltoastrelid;
	Relation	toast;

	*has_blocks = false;
	if (!OidIsValid(toastrelid))
		return true;
	if (!ConditionalLockRelationOid(toastrelid, AccessExclusiveLock))
		return false;
	toast = table_open(toastrelid, NoLock);
	*has_blocks = RelationGetNumberOfBlocks(toast) > 0;
	table_close(toast, NoLock);
	return true;
}

/*
 * Empty a segment in place. The caller holds an exclusive lock on it and a
 * proof made before; returns false if the proof no longer holds, or the toast
 * table is in use. pg_class is not touched.
 */
bool
queue_segment_truncate(QueueSegment *segment, Relation rel, const QueueDeadProof *proof)
{
	bool		toast_has_blocks;

	if (RelationGetNumberOfBlocks(rel) != proof->pages)
		return false;
	for (BlockNumber block = 0; block < proof->pages; block++)
	{
		Buffer		buffer = ReadBuffer(rel, block);
		bool		same = BufferGetLSNAtomic(buffer) == proof->lsns[block];

		/* Hint bits move the LSN when checksums are on: look again. */
		if (!same)
		{
			bool		all_old = true;

			LockBuffer(buffer, BUFFER_LOCK_SHARE);
			same = page_is_dead(rel, buffer, GetOldestNonRemovableTransactionId(rel), &all_old) &&
				(all_old || !proof->all_old);
			LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		}
		ReleaseBuffer(buffer);
		if (!same)
			return false;
	}
	if (!lock_toast(rel, &toast_has_blocks))
		return false;
	if (toast_has_blocks)
		heap_truncate_one_rel(rel);
	else
		RelationTruncate(rel, 0);
	/* An ack that was prepared and committed leaves its slot behind. */
	queue_slot_forget_segment(queue_segment_index(segment), 0);
	queue_map_detach(segment);
	queue_map_attach(segment);
	pg_atomic_write_u32(&segment->pages, 0);
	pg_atomic_write_u64(&segment->live, 0);
	pg_atomic_write_u32(&segment->generation,
						pg_atomic_add_fetch_u32(&shared->generation, 1));
	return true;
}
