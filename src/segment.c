/*
 * segment.c
 *	  Segments, and the only code that touches their pages.
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
 * - VACUUM freezes rows, and gives the places of dead ones to others: whoever
 *   remembers a place remembers the message's id too.
 * - Truncation is logged before blocks vanish, and the commits of the deletes
 *   are flushed before that. A crash before it leaves dead rows, a crash after
 *   it an empty segment.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/heap.h"
#include "catalog/pg_am.h"
#include "catalog/storage.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "error.h"
#include "guc.h"
#include "message.h"
#include "priority.h"
#include "segment.h"
#include "slot.h"

/* Of ordered queues; several may share one. */
#define TAIL_LOCKS 64

/* With fewer rows on a page that somebody has begun it is soon others' too. */
#define MANY_ON_PAGE 8

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
	"queue segments", segment_size, segment_init, "QueueSegment", 1 + TAIL_LOCKS, NULL
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

/* Held while messages are put at the end of an ordered queue, so that the end only moves on. */
LWLock *
queue_segment_tail_lock(uint32 queue)
{
	return &locks[1 + queue % TAIL_LOCKS].lock;
}

/* ---- entries ---- */

/* The tuple in a place of a page that is pinned; false if there is none. */
static bool
tuple_at(Relation rel, Buffer buffer, OffsetNumber offset, HeapTuple tuple)
{
	Page		page = BufferGetPage(buffer);
	ItemId		item = PageGetItemId(page, offset);

	if (!ItemIdIsNormal(item))
		return false;
	tuple->t_data = (HeapTupleHeader) PageGetItem(page, item);
	tuple->t_len = ItemIdGetLength(item);
	tuple->t_tableOid = RelationGetRelid(rel);
	ItemPointerSet(&tuple->t_self, BufferGetBlockNumber(buffer), offset);
	return true;
}

static OffsetNumber
last_offset(Buffer buffer)
{
	Page		page = BufferGetPage(buffer);

	return PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
}

/* What the first row tells that is still there in full; an id of 0 if none is. */
static void
read_first(Relation rel, QueueSegmentFacts *facts)
{
	facts->first_id = 0;
	facts->visible_at = DT_NOBEGIN;
	facts->copies = false;
	facts->priority = QUEUE_PRIORITY_DEFAULT;
	facts->enqueued_at = DT_NOEND;
	for (BlockNumber block = 0; block < facts->pages && facts->first_id == 0; block++)
	{
		Buffer		buffer = ReadBuffer(rel, block);

		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		for (OffsetNumber i = FirstOffsetNumber; i <= last_offset(buffer); i++)
		{
			HeapTupleData tuple;
			QueueMessageHead head;

			if (!tuple_at(rel, buffer, i, &tuple))
				continue;
			queue_message_head(&head, &tuple, RelationGetDescr(rel));
			facts->first_id = head.id;
			facts->visible_at = head.visible_at;
			facts->copies = head.is_copy;
			facts->priority = queue_message_tuple_priority(&tuple, RelationGetDescr(rel));
			facts->enqueued_at = head.enqueued_at;
			break;
		}
		UnlockReleaseBuffer(buffer);
	}
}

/* Bytes that are stored out of line. */
static int64
read_toasted(Relation rel)
{
	Relation	toast;
	BlockNumber pages;

	if (!OidIsValid(rel->rd_rel->reltoastrelid))
		return 0;
	toast = table_open(rel->rd_rel->reltoastrelid, AccessShareLock);
	pages = RelationGetNumberOfBlocks(toast);
	table_close(toast, AccessShareLock);
	return (int64) pages * BLCKSZ;
}

/* Whether its pages hold tuples of messages. */
static bool
can_be_read(Relation rel)
{
	return rel->rd_rel->relkind == RELKIND_RELATION && rel->rd_rel->relam == HEAP_TABLE_AM_OID &&
		queue_message_fits(RelationGetDescr(rel));
}

/* Open a relation that the catalog names; NULL if it is gone, or no segment. */
Relation
queue_segment_open_by_oid(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);

	if (rel == NULL || can_be_read(rel))
		return rel;
	relation_close(rel, AccessShareLock);
	return NULL;
}

/* Learn what the file says; false if the relation is gone, or no segment. */
bool
queue_segment_read_facts(QueueSegmentFacts *facts)
{
	Relation	rel = queue_segment_open_by_oid(facts->relid);

	if (rel == NULL)
		return false;
	facts->relfilenumber = queue_relfilenumber(rel);
	facts->pages = RelationGetNumberOfBlocks(rel);
	read_first(rel, facts);
	facts->toasted = read_toasted(rel);
	facts->half_emptied = queue_segment_is_half_emptied(rel);
	relation_close(rel, AccessShareLock);
	return true;
}

/* An entry for a segment that joins a ring; NULL when all are in use. */
QueueSegment *
queue_segment_allocate(QueueState *state, const QueueSegmentFacts *facts, QueueSegmentRole role)
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
		pg_atomic_init_u32(&segment->begun, facts->pages);
		pg_atomic_init_u64(&segment->toasted, facts->toasted);
		pg_atomic_init_u64(&segment->deleted_at, queue_clock_now());
		pg_atomic_init_u64(&segment->live, 0);
		pg_atomic_init_u32(&segment->kept, QUEUE_KEPT_UNSEEN);
		pg_atomic_init_u32(&segment->emptying, 0);
		pg_atomic_init_u64(&segment->retry_at, 0);
		queue_map_attach(segment);
		segment->role = role;
		/* It belongs to a bucket that is gone, but for its times. */
		segment->copies = state->ordered && facts->copies;
		segment->timed = !TIMESTAMP_IS_NOBEGIN(facts->visible_at) && !state->ordered;
		segment->priority = state->ordered ? QUEUE_PRIORITY_DEFAULT : facts->priority;
		segment->bucket = (QueueBucket) {facts->visible_at, facts->visible_at, segment->priority};
		pg_atomic_init_u32(&segment->priorities, 1 << segment->priority);
		pg_atomic_init_u32(&segment->mixed, 0);
		pg_atomic_init_u32(&segment->foreign, 1);
		pg_atomic_init_u32(&segment->absent, 0);
		pg_atomic_init_u32(&segment->surveyed, facts->pages > 0 ? 0 : pg_atomic_read_u32(&segment->generation));
		segment->emptied_by = InvalidFullTransactionId;
		segment->proven_under = InvalidTransactionId;
		segment->move_at = 0;
		segment->move_below = PG_INT64_MAX;
		segment->moving = segment->move_asked = false;
	}
	LWLockRelease(&locks[0].lock);
	return segment;
}

/* Its table is gone, or never was. For callbacks: cannot fail. */
void
queue_segment_free(QueueSegment *segment)
{
	queue_map_detach(segment);
	pg_atomic_write_u32(&segment->generation,
						pg_atomic_add_fetch_u32(&shared->generation, 1));
	segment->relid = InvalidOid;
	segment->role = QUEUE_SEGMENT_FREE;
}

/* ---- relations ---- */

QUEUE_NORETURN static void
changed_by_hand(Relation rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("segment \"%s\" was changed by hand", RelationGetRelationName(rel)),
			 errdetail("It has an index, a trigger, row security, or other columns than it should."),
			 errhint("Undo the change: segments belong to the extension.")));
}

/* What heap_insert() from C would silently pass over must not exist. */
void
queue_segment_check_plain(Relation rel)
{
	if (rel->rd_rel->relhasindex || rel->rd_rel->relhastriggers || rel->rd_rel->relrowsecurity ||
		!can_be_read(rel))
		changed_by_hand(rel);
}

/*
 * Somebody rewrote the segment (VACUUM FULL, CLUSTER, a restore): all that is
 * remembered by place is void. The caller's lock keeps rewriters out.
 */
void
queue_segment_check_rewritten(QueueSegment *segment, Relation rel)
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
		pg_atomic_write_u32(&segment->begun, pg_atomic_read_u32(&segment->pages));
		/* Marks of what is on a page are of another page now. */
		pg_atomic_fetch_add_u32(&segment->foreign, 1);
		if (pg_atomic_read_u32(&segment->pages) > 0)
			queue_map_lower_range(segment, 0, pg_atomic_read_u32(&segment->pages) - 1, 0);
	}
	LWLockRelease(lock);
	/* Slots of prepared transactions that have ended go uncounted. */
	queue_state_ask(state, QUEUE_ASK_RECOUNT);
	queue_slot_forget_segment(queue_segment_index(segment),
							  pg_atomic_read_u32(&segment->generation));
}

/*
 * Open a segment's relation if it is still what the caller saw; NULL if the
 * segment was emptied or dropped since, or is being emptied: nobody waits for
 * that, since nothing is in it.
 */
Relation
queue_segment_open(QueueSegment *segment, uint32 generation, LOCKMODE mode)
{
	Oid			relid = segment->relid;
	bool		dead = pg_atomic_read_u32(&segment->emptying) == generation;
	Relation	rel;

	if (pg_atomic_read_u32(&segment->generation) != generation || !OidIsValid(relid))
		return NULL;
	if (dead && !ConditionalLockRelationOid(relid, mode))
		return NULL;
	rel = try_relation_open(relid, mode);
	if (dead)
		UnlockRelationOid(relid, mode);
	if (rel == NULL)
		return NULL;
	if (!can_be_read(rel))
		changed_by_hand(rel);
	queue_segment_check_rewritten(segment, rel);
	if (pg_atomic_read_u32(&segment->generation) == generation)
		return rel;
	relation_close(rel, mode);
	return NULL;
}

/*
 * About how much a segment has taken, what is out of line included. Where many
 * insert at once, PostgreSQL extends a table by more pages than it needs just
 * then; a segment is not full while they wait to be used.
 */
int64
queue_segment_bytes(QueueSegment *segment)
{
	int64		pages = pg_atomic_read_u32(&segment->pages);
	int64		begun = pg_atomic_read_u32(&segment->begun);

	return Max(Min(begun, pages), pages - QUEUE_SEGMENT_AHEAD) * BLCKSZ +
		(int64) pg_atomic_read_u64(&segment->toasted);
}

/* Pages below this count may hold tuples. */
void
queue_segment_grow(QueueSegment *segment, BlockNumber pages)
{
	uint32		known = pg_atomic_read_u32(&segment->pages);

	while (known < pages && !pg_atomic_compare_exchange_u32(&segment->pages, &known, pages))
		;
}

/* Look at the file: rows may have come by COPY of a restore. True: it has grown. */
bool
queue_segment_refresh(QueueSegment *segment, Relation rel)
{
	BlockNumber pages = RelationGetNumberOfBlocks(rel);
	BlockNumber known = pg_atomic_read_u32(&segment->pages);

	if (pages <= known)
		return false;
	queue_segment_grow(segment, pages);
	queue_map_lower_range(segment, known, pages - 1, 0);
	return true;
}

/* ---- tuples ---- */

/*
 * Tell the map of a page that has nothing but the caller's new rows: nobody
 * need look at it before the transaction's end, which lowers it in any case.
 * The page began with our rows, so nothing of others was there before; whoever
 * adds to it lowers it at commit, also while we have it busy.
 */
static void
tell_own_page(Relation rel, QueueSegment *segment, BlockNumber block, OffsetNumber count)
{
	QueueMapHold hold;
	Buffer		buffer;
	bool		alone;

	if (queue_map_take(segment, block, QUEUE_TIME_NEVER, &hold) != QUEUE_MAP_TAKEN)
		return;
	buffer = ReadBuffer(rel, block);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	alone = last_offset(buffer) == count;
	UnlockReleaseBuffer(buffer);
	queue_map_put(&hold, alone ? QUEUE_TIME_NEVER : 0);
}

/* Note what was inserted: pages that were begun, and those that are all ours. */
static void
note_inserted(Relation rel, QueueSegment *segment, HeapTuple *tuples, int n)
{
	uint32		begun = 0;
	int			next;

	for (int first = 0; first < n; first = next)
	{
		BlockNumber block = ItemPointerGetBlockNumber(&tuples[first]->t_self);

		for (next = first + 1; next < n; next++)
			if (ItemPointerGetBlockNumber(&tuples[next]->t_self) != block)
				break;
		queue_segment_grow(segment, block + 1);
		if (ItemPointerGetOffsetNumber(&tuples[first]->t_self) != FirstOffsetNumber)
			continue;
		begun++;
		if (next - first >= MANY_ON_PAGE)
			tell_own_page(rel, segment, block, next - first);
	}
	if (begun > 0)
		pg_atomic_fetch_add_u32(&segment->begun, begun);
}

/*
 * What inserts and deletes of rows with values out of line lock: for callers who
 * must not wait for that later.
 */
void
queue_segment_lock_toast(Relation rel)
{
	Oid			toastrelid = rel->rd_rel->reltoastrelid;
	Relation	toast;
	List	   *indexes;
	ListCell   *cell;

	if (!OidIsValid(toastrelid))
		return;
	toast = table_open(toastrelid, RowExclusiveLock);
	indexes = RelationGetIndexList(toast);
	foreach(cell, indexes)
		LockRelationOid(lfirst_oid(cell), RowExclusiveLock);
	list_free(indexes);
	table_close(toast, NoLock);
}

/*
 * Insert one or many rows; each tuple's t_self tells where it went. at_end: on
 * the last page or behind it; the caller has the queue's tail lock.
 */
void
queue_segment_insert(Relation rel, QueueSegment *segment, HeapTuple *tuples, int n, bool at_end)
{
	CommandId	cid = GetCurrentCommandId(true);
	/* With priorities too it matters that pages begin in order: none is filled again that a VACUUM has freed. */
	int			options = at_end || queue_priority_several(&queue_states[segment->queue]) ? HEAP_INSERT_SKIP_FSM : 0;
	bool		large = false;

	/* Not where this backend inserted last: without a target it is the last page. */
	if (at_end)
		RelationSetTargetBlock(rel, InvalidBlockNumber);

	for (int i = 0; i < n; i++)
		large |= tuples[i]->t_len > MaxHeapTupleSize;
	if (n == 1)
		heap_insert(rel, tuples[0], cid, options, NULL);
	else
	{
		TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * n);
		/* A copy is not counted: the relation's own would be remembered once a slot. */
		TupleDesc	desc = CreateTupleDescCopy(RelationGetDescr(rel));

		for (int i = 0; i < n; i++)
		{
			slots[i] = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
			ExecStoreHeapTuple(tuples[i], slots[i], false);
		}
		heap_multi_insert(rel, slots, n, cid, options, NULL);
		for (int i = 0; i < n; i++)
		{
			tuples[i]->t_self = slots[i]->tts_tid;
			ExecDropSingleTupleTableSlot(slots[i]);
		}
		FreeTupleDesc(desc);
		pfree(slots);
	}
	note_inserted(rel, segment, tuples, n);
	/* What fits into no page may have gone out of line, if it could not be compressed. */
	if (large)
		pg_atomic_write_u64(&segment->toasted, (uint64) read_toasted(rel));
}

/* What a tuple is to us; snapshot may be NULL. The content lock is held. */
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
	if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(header)))
		return QUEUE_TUPLE_OWN;
	if (TransactionIdIsValid(dirty.xmax))
		return QUEUE_TUPLE_DELETING;
	if (snapshot && !HeapTupleSatisfiesVisibility(tuple, snapshot, buffer))
		return QUEUE_TUPLE_UNSEEN;
	return QUEUE_TUPLE_LIVE;
}

typedef struct Numbered
{
	int64		id;
	OffsetNumber offset;
} Numbered;

static int
compare_id(const void *a, const void *b)
{
	const Numbered *x = a;
	const Numbered *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/*
 * The places of a page's tuples, in order of the ids: places have another where
 * a VACUUM has freed some that others then got.
 */
static int
list_by_id(Relation rel, Buffer buffer, OffsetNumber *offsets)
{
	Numbered	list[MaxHeapTuplesPerPage];
	OffsetNumber last = last_offset(buffer);
	HeapTupleData tuple;
	bool		sorted = true;
	int			n = 0;

	for (OffsetNumber i = FirstOffsetNumber; i <= last; i++)
	{
		if (!tuple_at(rel, buffer, i, &tuple))
			continue;
		offsets[n] = list[n].offset = i;
		list[n].id = queue_message_id(&tuple, RelationGetDescr(rel));
		sorted &= n == 0 || list[n - 1].id <= list[n].id;
		n++;
	}
	if (sorted)
		return n;
	qsort(list, n, sizeof(Numbered), compare_id);
	for (int i = 0; i < n; i++)
		offsets[i] = list[i].offset;
	return n;
}

/* Show a page's tuples, in order of place or of id, to a visitor. */
void
queue_segment_visit(Relation rel, BlockNumber block, Snapshot snapshot, bool by_id,
					QueueTupleVisitor visitor, void *arg)
{
	Buffer		buffer;
	OffsetNumber offsets[MaxHeapTuplesPerPage];
	int			n;
	TransactionId inserting = InvalidTransactionId;

	/* A VACUUM may have cut empty pages off. */
	if (block >= RelationGetNumberOfBlocks(rel))
		return;
	buffer = ReadBuffer(rel, block);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	n = by_id ? list_by_id(rel, buffer, offsets) : last_offset(buffer);
	for (int i = 0; i < n; i++)
	{
		HeapTupleData tuple;
		QueueTupleFate fate;

		if (!tuple_at(rel, buffer, by_id ? offsets[i] : FirstOffsetNumber + i, &tuple))
			continue;
		/* A large transaction's are many on a page, and each would be looked for among all processes. */
		if (TransactionIdIsValid(inserting) &&
			TransactionIdEquals(HeapTupleHeaderGetXmin(tuple.t_data), inserting))
			fate = QUEUE_TUPLE_INSERTING;
		else
			fate = judge(&tuple, buffer, snapshot);
		if (fate == QUEUE_TUPLE_INSERTING)
			inserting = HeapTupleHeaderGetXmin(tuple.t_data);
		if (!visitor(&tuple, fate, arg))
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
	OffsetNumber last;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	last = last_offset(buffer);
	for (OffsetNumber i = FirstOffsetNumber; i <= last; i++)
	{
		HeapTupleData tuple;
		bool		seen;

		if (!tuple_at(rel, buffer, i, &tuple))
			continue;
		seen = HeapTupleSatisfiesVisibility(&tuple, snapshot, buffer);
		HeapCheckForSerializableConflictOut(seen, rel, &tuple, buffer, snapshot);
		if (seen && !visitor(&tuple, QUEUE_TUPLE_LIVE, arg))
			break;
	}
	UnlockReleaseBuffer(buffer);
}

/*
 * Pin the page of a row and check that the message is still the one in that
 * place. Returns with the content lock held shared, or InvalidBuffer.
 */
static Buffer
find_row(Relation rel, QueueSegment *segment, ItemPointer tid, int64 id, bool gone_too, HeapTuple tuple)
{
	BlockNumber block = ItemPointerGetBlockNumber(tid);
	OffsetNumber offset = ItemPointerGetOffsetNumber(tid);
	Buffer		buffer;

	/* What is known of the file spares asking the kernel for each message. */
	if (block >= pg_atomic_read_u32(&segment->pages) &&
		block >= RelationGetNumberOfBlocks(rel))
		return InvalidBuffer;
	buffer = ReadBuffer(rel, block);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	if (offset <= last_offset(buffer) && tuple_at(rel, buffer, offset, tuple) &&
		queue_message_id(tuple, RelationGetDescr(rel)) == id &&
		(gone_too || judge(tuple, buffer, NULL) != QUEUE_TUPLE_GONE))
		return buffer;
	UnlockReleaseBuffer(buffer);
	return InvalidBuffer;
}

/* Whether a page has a row with this id, whatever became of it. */
bool
queue_segment_has(Relation rel, BlockNumber block, int64 id)
{
	Buffer		buffer;
	bool		found = false;
	OffsetNumber last;

	if (block >= RelationGetNumberOfBlocks(rel))
		return false;
	buffer = ReadBuffer(rel, block);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	last = last_offset(buffer);
	for (OffsetNumber i = FirstOffsetNumber; i <= last && !found; i++)
	{
		HeapTupleData tuple;

		if (!tuple_at(rel, buffer, i, &tuple))
			continue;
		found = queue_message_id(&tuple, RelationGetDescr(rel)) == id;
	}
	UnlockReleaseBuffer(buffer);
	return found;
}

/* The id of a page's first row; 0 if it has none. */
static int64
first_id_on(Relation rel, BlockNumber block)
{
	Buffer		buffer = ReadBuffer(rel, block);
	int64		id = 0;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	for (OffsetNumber i = FirstOffsetNumber; i <= last_offset(buffer) && id == 0; i++)
	{
		HeapTupleData tuple;

		if (tuple_at(rel, buffer, i, &tuple))
			id = queue_message_id(&tuple, RelationGetDescr(rel));
	}
	UnlockReleaseBuffer(buffer);
	return id;
}

/*
 * The page on which a row with this id should be, had all been stored in the
 * order of their ids: producers side by side mix them a little, and what was
 * stored again stands anywhere.
 */
BlockNumber
queue_segment_guess(Relation rel, int64 id)
{
	BlockNumber low = 0;
	BlockNumber pages = RelationGetNumberOfBlocks(rel);

	while (low + 1 < pages)
	{
		BlockNumber middle = low + (pages - low) / 2;

		if (first_id_on(rel, middle) <= id)
			low = middle;
		else
			pages = middle;
	}
	return low;
}

static HeapTuple
copy_row(Relation rel, QueueSegment *segment, ItemPointer tid, int64 id, bool gone_too)
{
	HeapTupleData tuple;
	HeapTuple	copy;
	Buffer		buffer = find_row(rel, segment, tid, id, gone_too, &tuple);

	if (!BufferIsValid(buffer))
		return NULL;
	copy = heap_copytuple(&tuple);
	UnlockReleaseBuffer(buffer);
	return copy;
}

/* A copy of the row, or NULL if the message is no longer there. */
HeapTuple
queue_segment_fetch(Relation rel, QueueSegment *segment, ItemPointer tid, int64 id)
{
	return copy_row(rel, segment, tid, id, false);
}

/* The same of one that the open transaction holds, and may have deleted. */
HeapTuple
queue_segment_fetch_held(Relation rel, QueueSegment *segment, ItemPointer tid, int64 id)
{
	return copy_row(rel, segment, tid, id, true);
}

/* A row's unique key, which is short and stored as it is; NULL: it has none. */
static text *
unique_key_of(HeapTuple tuple, Relation rel)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, QUEUE_COLUMN_UNIQUE_KEY, RelationGetDescr(rel), &isnull);
	struct varlena *key = isnull ? NULL : (struct varlena *) DatumGetPointer(value);

	/* Stored in another way it comes from somebody else. */
	if (key == NULL || VARATT_IS_EXTERNAL(key) || VARATT_IS_COMPRESSED(key))
		return NULL;
	return cstring_to_text_with_len(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
}

/*
 * Delete the row of a message whose slot (or page) the caller holds; the
 * relation is locked until the end of the transaction. Never waits. *unique_key is
 * set to a copy of that of the message, or NULL.
 */
QueueDeleteResult
queue_segment_delete(Relation rel, QueueSegment *segment, ItemPointer tid, int64 id, text **unique_key)
{
	HeapTupleData tuple;
	TM_FailureData failure;
	TM_Result	result;
	QueueTupleFate fate;
	Buffer		buffer = find_row(rel, segment, tid, id, false, &tuple);

	if (!BufferIsValid(buffer))
		return QUEUE_DELETE_GONE;
	fate = judge(&tuple, buffer, NULL);
	*unique_key = unique_key_of(&tuple, rel);
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
	OffsetNumber last = last_offset(buffer);

	for (OffsetNumber i = FirstOffsetNumber; i <= last; i++)
	{
		HeapTupleData tuple;

		if (!tuple_at(rel, buffer, i, &tuple))
			continue;
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
	proof->oldest = GetOldestNonRemovableTransactionId(rel);
	proof->pages = RelationGetNumberOfBlocks(rel);
	proof->all_old = true;
	proof->lsns = palloc(sizeof(XLogRecPtr) * (proof->pages + 1));
	for (BlockNumber block = 0; block < proof->pages; block++)
	{
		Buffer		buffer = ReadBuffer(rel, block);
		bool		dead;

		CHECK_FOR_INTERRUPTS();
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		dead = page_is_dead(rel, buffer, proof->oldest, &proof->all_old);
		proof->lsns[block] = BufferGetLSNAtomic(buffer);
		UnlockReleaseBuffer(buffer);
		if (!dead)
			return false;
	}
	return true;
}

/*
 * Whether a toast table has anything to be emptied. The index of an empty
 * table is its metapage; a longer one points to rows that VACUUM has cut off;
 * without any it waits to be made anew.
 */
static bool
toast_is_used(Relation toast, bool *half_emptied)
{
	bool		used = RelationGetNumberOfBlocks(toast) > 0;
	List	   *indexes = RelationGetIndexList(toast);
	ListCell   *cell;

	*half_emptied = false;
	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		BlockNumber blocks = RelationGetNumberOfBlocks(index);

		used |= blocks != 1;
		*half_emptied |= blocks == 0;
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return used;
}

/*
 * Cut the indexes of a toast table, which is locked exclusively: the mark of
 * one that is being emptied, until the indexes are made anew.
 */
static void
cut_indexes(Relation toast)
{
	List	   *indexes = RelationGetIndexList(toast);
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessExclusiveLock);

		RelationTruncate(index, 0);
		index_close(index, NoLock);
	}
	list_free(indexes);
}

/*
 * Backends keep in mind where the root of an index is. Have them forget it
 * when this transaction commits, also if an earlier one made the index anew
 * and was rolled back, which tells nobody.
 */
static void
forget_roots(Relation toast)
{
	List	   *indexes = RelationGetIndexList(toast);
	ListCell   *cell;

	foreach(cell, indexes)
		CacheInvalidateRelcacheByRelid(lfirst_oid(cell));
	list_free(indexes);
}

/*
 * Whether somebody died while he emptied the segment's toast table. Nothing
 * can be stored out of line before it is emptied again.
 */
bool
queue_segment_is_half_emptied(Relation rel)
{
	Relation	toast;
	bool		half_emptied;

	if (!OidIsValid(rel->rd_rel->reltoastrelid))
		return false;
	toast = table_open(rel->rd_rel->reltoastrelid, AccessShareLock);
	toast_is_used(toast, &half_emptied);
	table_close(toast, AccessShareLock);
	return half_emptied;
}

/*
 * Empty the toast table, with its index, if there is anything in it; false if
 * its lock cannot be had without waiting.
 */
static bool
truncate_toast(Relation rel)
{
	Oid			toastrelid = rel->rd_rel->reltoastrelid;
	Relation	toast;
	bool		half_emptied;

	if (!OidIsValid(toastrelid))
		return true;
	if (!ConditionalLockRelationOid(toastrelid, AccessExclusiveLock))
		return false;
	toast = table_open(toastrelid, NoLock);
	if (toast_is_used(toast, &half_emptied))
	{
		cut_indexes(toast);
		heap_truncate_one_rel(toast);
	}
	forget_roots(toast);
	table_close(toast, NoLock);
	return true;
}

/*
 * Have all commits on disk that there are. Between two pages of the WAL the
 * place of the next record is behind a header that nobody has written yet.
 */
static void
flush_commits(void)
{
	XLogRecPtr	end = GetXLogInsertRecPtr();
	uint64		header = XLogSegmentOffset(end, wal_segment_size) < XLOG_BLCKSZ
		? SizeOfXLogLongPHD : SizeOfXLogShortPHD;

	if (end % XLOG_BLCKSZ == header)
		end -= header;
	XLogFlush(end);
}

/*
 * Empty a segment in place. The caller holds an exclusive lock on it and a
 * proof made before; returns false if the proof no longer holds, or the toast
 * table is in use. pg_class is not touched.
 */
bool
queue_segment_truncate(QueueSegment *segment, Relation rel, const QueueDeadProof *proof)
{
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
	/*
	 * The commits of the deletes, asynchronous ones too, are on disk before
	 * what they deleted is gone. The heap comes last: as long as it has rows,
	 * dead ones, a segment is not taken for empty, whoever dies half way.
	 */
	flush_commits();
	if (!truncate_toast(rel))
		return false;
	/* First: should it end half way, nobody reads on past the end of the file. */
	pg_atomic_write_u32(&segment->pages, 0);
	pg_atomic_write_u32(&segment->begun, 0);
	pg_atomic_write_u64(&segment->toasted, 0);
	RelationTruncate(rel, 0);
	/* An ack that was prepared and committed leaves its slot behind. */
	queue_slot_forget_segment(queue_segment_index(segment), 0);
	queue_map_detach(segment);
	queue_map_attach(segment);
	pg_atomic_write_u64(&segment->live, 0);
	segment->proven_under = InvalidTransactionId;
	segment->move_at = 0;
	segment->move_below = PG_INT64_MAX;
	segment->moving = segment->move_asked = false;
	pg_atomic_write_u32(&segment->generation,
						pg_atomic_add_fetch_u32(&shared->generation, 1));
	return true;
}
