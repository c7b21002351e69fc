/*
 * dedup.c
 *	  Keys that are accepted once.
 *
 * src/README.md, "Once", has what must hold. A key is a row of a table with an
 * index; whoever accepts one has looked for it under the lock of its hash, and
 * waits for transactions as a unique index does. Keys with a window are in
 * tables that follow each other in time and are truncated whole.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "dedup.h"
#include "guc.h"

/* Columns of all these tables. */
enum
{
	SEEN_HASH = 1,
	SEEN_ID,
	SEEN_ACCEPTED_AT,
	SEEN_COLUMN_COUNT = SEEN_ACCEPTED_AT
};

#define PARTS 128
#define TABLES 3

/* How long the table that a writer has chosen may be behind another that was begun since, us. */
#define CHOICE_GOOD_FOR INT64CONST(10000000)
#define CHOICE_KEPT_FOR INT64CONST(1000000)

/* So much longer than its span a table is kept, us. */
#define GRACE INT64CONST(60000000)

/* The worker's tries to lock a table at once, a millisecond apart; how often, before it waits for one; and how long. */
#define LOCK_TRIES 100
#define PATIENT_TRIES 3
#define LOCK_MOMENT "50ms"

/* Tables for windows of up to so long. */
typedef struct Span
{
	const char *name;
	int64		length;			/* us */
	int			tables;
} Span;

static const Span spans[] = {
	{"5min", 5 * USECS_PER_MINUTE, TABLES},
	{"1h", USECS_PER_HOUR, TABLES},
	{"1d", USECS_PER_DAY, TABLES},
	{"1week", 7 * USECS_PER_DAY, TABLES},
	{"1month", 31 * USECS_PER_DAY, TABLES},
	{"1year", 366 * USECS_PER_DAY, TABLES},
	{"ever", PG_INT64_MAX, 1},
};

struct QueueDedup
{
	int			span;			/* -1: unique keys */
	int64		window;			/* us */
	int			count;
	Relation	rels[TABLES];
	Relation	indexes[TABLES];
	int			current;		/* takes rows; -1: not chosen */
	QueueTime	chosen;
	CatalogIndexState inserting;
};

/* The choices of this backend, by span. */
static struct
{
	QueueTime	at;
	int			current;
}			choices[lengthof(spans)];

static LWLockPadded *locks;

static Size
dedup_size(void)
{
	return sizeof(uint64);
}

static void
dedup_init(void *area, bool found)
{
	locks = GetNamedLWLockTranche("QueueDedup");
}

const QueueShmemPart queue_dedup_shmem = {
	"queue keys accepted once", dedup_size, dedup_init, "QueueDedup", PARTS, NULL
};

static LWLock *
lock_of(const pg_uuid_t *hash)
{
	return &locks[hash->data[15] % PARTS].lock;
}

/* ---- hashes ---- */

static void
add_to_hash(pg_cryptohash_ctx *context, const void *bytes, Size length)
{
	if (pg_cryptohash_update(context, bytes, length) < 0)
		elog(ERROR, "could not compute a hash: %s", pg_cryptohash_error(context));
}

/* What stands for a key of a queue (0: of none), which has one or more parts; NULL is a part like others. */
void
queue_dedup_hash(pg_uuid_t *hash, int32 owner, QueueDedupKind kind, const text *const *parts, int n)
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint32		prefix = pg_hton32((uint32) owner);
	char		of = (char) kind;

	if (pg_cryptohash_init(context) < 0)
		elog(ERROR, "could not compute a hash: %s", pg_cryptohash_error(context));
	add_to_hash(context, &of, 1);
	for (int i = 0; i < n; i++)
	{
		uint32		length = parts[i] ? VARSIZE_ANY_EXHDR(parts[i]) : PG_UINT32_MAX;
		uint32		order = pg_hton32(length);

		add_to_hash(context, &order, sizeof(order));
		if (parts[i] && length > 0)
			add_to_hash(context, VARDATA_ANY(parts[i]), length);
	}
	if (pg_cryptohash_final(context, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute a hash: %s", pg_cryptohash_error(context));
	pg_cryptohash_free(context);
	memcpy(hash->data, &prefix, sizeof(prefix));
	memcpy(hash->data + sizeof(prefix), digest, sizeof(hash->data) - sizeof(prefix));
}

/* ---- tables ---- */

static Oid
table_of(int span, int number)
{
	if (span < 0)
		return queue_catalog_relation("_unique_key");
	if (spans[span].tables == 1)
		return queue_catalog_relation(psprintf("_seen_%s", spans[span].name));
	return queue_catalog_relation(psprintf("_seen_%s_%d", spans[span].name, number + 1));
}

/* The index on the hashes; beside it there may be one that REINDEX CONCURRENTLY makes, or has left. */
static Relation
open_index(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	Relation	found = NULL;
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (found == NULL && index->rd_index->indisvalid && index->rd_index->indkey.values[0] == SEEN_HASH)
			found = index;
		else
			index_close(index, AccessShareLock);
	}
	list_free(indexes);
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relation \"%s\" has no valid index on its hashes", RelationGetRelationName(rel)),
				 errhint("It was changed by hand; REINDEX TABLE mends it.")));
	return found;
}

static void
open_again(QueueDedup *dedup)
{
	for (int i = 0; i < dedup->count; i++)
	{
		dedup->rels[i] = table_open(table_of(dedup->span, i), AccessShareLock);
		dedup->indexes[i] = open_index(dedup->rels[i]);
	}
}

static QueueDedup *
open_tables(int span, int count, int64 window)
{
	QueueDedup *dedup = palloc0(sizeof(QueueDedup));

	dedup->span = span;
	dedup->window = window;
	dedup->count = count;
	dedup->current = -1;
	open_again(dedup);
	return dedup;
}

/* For keys that are remembered so long, us. */
QueueDedup *
queue_dedup_open(int64 window)
{
	int			span = 0;

	while (spans[span].length < window)
		span++;
	return open_tables(span, spans[span].tables, window);
}

/* For keys that are remembered until they are forgotten. */
QueueDedup *
queue_dedup_open_unique(void)
{
	return open_tables(-1, 1, PG_INT64_MAX);
}

static void
let_go_of_current(QueueDedup *dedup)
{
	if (dedup->current >= 0)
		CatalogCloseIndexes(dedup->inserting);
	dedup->current = -1;
}

static void
close_tables(QueueDedup *dedup)
{
	let_go_of_current(dedup);
	for (int i = 0; i < dedup->count; i++)
	{
		index_close(dedup->indexes[i], AccessShareLock);
		table_close(dedup->rels[i], AccessShareLock);
	}
}

/* What has rows of ours stays locked until the transaction ends. */
void
queue_dedup_close(QueueDedup *dedup)
{
	close_tables(dedup);
	pfree(dedup);
}

/*
 * When the first row of a table was put there, dead or alive; DT_NOBEGIN: there is
 * none to ask, or the clock was set back since: its windows end with those that
 * were begun before it.
 */
static TimestampTz
begun(Relation rel)
{
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, SnapshotAny, 0, NULL);
	HeapTuple	tuple = systable_getnext(scan);
	TimestampTz result = DT_NOBEGIN;
	bool		isnull;

	if (HeapTupleIsValid(tuple))
		result = DatumGetTimestampTz(heap_getattr(tuple, SEEN_ACCEPTED_AT, RelationGetDescr(rel), &isnull));
	systable_endscan(scan);
	return result > queue_clock_wall() + GRACE ? DT_NOBEGIN : result;
}

static bool
is_empty(Relation rel)
{
	return RelationGetNumberOfBlocks(rel) == 0;
}

/* The table that was begun last, or an empty one if that has rows of a whole span. */
static int
find_current(QueueDedup *dedup)
{
	TimestampTz latest = DT_NOBEGIN;
	int			current = -1;
	int			empty = -1;

	for (int i = 0; i < dedup->count; i++)
	{
		TimestampTz at;

		if (is_empty(dedup->rels[i]))
		{
			if (empty < 0)
				empty = i;
			continue;
		}
		at = begun(dedup->rels[i]);
		if (current < 0 || at > latest)
		{
			current = i;
			latest = at;
		}
	}
	if (empty >= 0 && (current < 0 || TIMESTAMP_IS_NOBEGIN(latest) ||
					   queue_clock_wall() - latest >= spans[dedup->span].length))
		return empty;
	return current;
}

static bool
is_good_choice(const QueueDedup *dedup)
{
	return dedup->current >= 0 && (dedup->count == 1 || queue_clock_now() - dedup->chosen < CHOICE_GOOD_FOR);
}

/* Choose the table that takes rows, and lock it for that, which may take long. */
static void
choose(QueueDedup *dedup)
{
	QueueTime	now = queue_clock_now();
	int			current = 0;

	if (is_good_choice(dedup))
		return;
	let_go_of_current(dedup);
	dedup->chosen = now;
	if (dedup->count > 1)
	{
		if (choices[dedup->span].at == 0 || now - choices[dedup->span].at >= CHOICE_KEPT_FOR)
		{
			choices[dedup->span].current = find_current(dedup);
			choices[dedup->span].at = now;
		}
		current = choices[dedup->span].current;
		dedup->chosen = choices[dedup->span].at;
	}
	LockRelationOid(RelationGetRelid(dedup->rels[current]), RowExclusiveLock);
	dedup->inserting = CatalogOpenIndexes(dedup->rels[current]);
	dedup->current = current;
}

/* ---- keys ---- */

/* By the index, whatever the session's settings are; nothing is opened or locked for that. */
static SysScanDesc
begin_search(Relation rel, Relation index, const pg_uuid_t *hash, SnapshotData *dirty)
{
	ScanKeyData key;

	InitDirtySnapshot(*dirty);
	ScanKeyInit(&key, SEEN_HASH, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(hash));
	return systable_beginscan_ordered(rel, index, dirty, 1, &key);
}

static HeapTuple
next_found(SysScanDesc scan)
{
	return systable_getnext_ordered(scan, ForwardScanDirection);
}

typedef enum Finding
{
	FOUND_NOTHING,
	FOUND_KEY,
	FOUND_OPEN,					/* a transaction in progress has put or deleted it */
} Finding;

/* The lock of the hash is held. */
static Finding
look_in(QueueDedup *dedup, int table, const pg_uuid_t *hash, int64 *id, QueueDedupRow *row, TransactionId *open)
{
	Relation	rel = dedup->rels[table];
	SnapshotData dirty;
	SysScanDesc scan;
	HeapTuple	tuple;
	Finding		finding = FOUND_NOTHING;

	if (is_empty(rel))
		return FOUND_NOTHING;
	scan = begin_search(rel, dedup->indexes[table], hash, &dirty);
	while (finding == FOUND_NOTHING && HeapTupleIsValid(tuple = next_found(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;
		TimestampTz at = DatumGetTimestampTz(heap_getattr(tuple, SEEN_ACCEPTED_AT, desc, &isnull));

		*open = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
		if (TransactionIdIsValid(*open))
			finding = FOUND_OPEN;
		else if (dedup->window == PG_INT64_MAX || at + dedup->window > queue_clock_wall())
		{
			*id = DatumGetInt64(heap_getattr(tuple, SEEN_ID, desc, &isnull));
			row->relid = RelationGetRelid(rel);
			row->tid = tuple->t_self;
			row->hash = *hash;
			row->accepted_at = at;
			finding = FOUND_KEY;
		}
	}
	systable_endscan_ordered(scan);
	return finding;
}

static Finding
look(QueueDedup *dedup, const pg_uuid_t *hash, int64 *id, QueueDedupRow *row, TransactionId *open)
{
	Finding		finding = FOUND_NOTHING;

	for (int i = 0; i < dedup->count && finding == FOUND_NOTHING; i++)
		finding = look_in(dedup, i, hash, id, row, open);
	return finding;
}

static HeapTuple
form_row(Relation rel, const pg_uuid_t *hash, int64 id, TimestampTz accepted_at)
{
	Datum		values[SEEN_COLUMN_COUNT];
	bool		nulls[SEEN_COLUMN_COUNT] = {false};

	values[SEEN_HASH - 1] = UUIDPGetDatum(hash);
	values[SEEN_ID - 1] = Int64GetDatum(id);
	values[SEEN_ACCEPTED_AT - 1] = TimestampTzGetDatum(accepted_at);
	return heap_form_tuple(RelationGetDescr(rel), values, nulls);
}

/* The lock of the hash is held, and the key is nowhere. */
static void
put(QueueDedup *dedup, const pg_uuid_t *hash, int64 id, QueueDedupRow *row)
{
	Relation	rel = dedup->rels[dedup->current];
	HeapTuple	tuple;

	row->relid = RelationGetRelid(rel);
	row->hash = *hash;
	row->accepted_at = queue_clock_wall();
	tuple = form_row(rel, hash, id, row->accepted_at);
	CatalogTupleInsertWithInfo(rel, tuple, dedup->inserting);
	row->tid = tuple->t_self;
	heap_freetuple(tuple);
}

/* Wait for a transaction, and keep nobody from the tables meanwhile. */
static void
wait_for(QueueDedup *dedup, TransactionId xid)
{
	close_tables(dedup);
	XactLockTableWait(xid, NULL, NULL, XLTW_None);
	open_again(dedup);
}

/*
 * Accept a key with this id: it is the first time, if the transaction commits.
 * False: it was accepted before, and has that id. Waits for whoever has accepted
 * it and is not done. The row is what was put or found.
 */
bool
queue_dedup_accept(QueueDedup *dedup, const pg_uuid_t *hash, int64 *id, QueueDedupRow *row)
{
	LWLock	   *lock = lock_of(hash);
	TransactionId open;

	/* Not under the lock. */
	(void) GetCurrentTransactionId();
	for (;;)
	{
		Finding		finding;

		CHECK_FOR_INTERRUPTS();
		choose(dedup);
		LWLockAcquire(lock, LW_EXCLUSIVE);
		if (!is_good_choice(dedup))
		{
			LWLockRelease(lock);
			continue;
		}
		finding = look(dedup, hash, id, row, &open);
		if (finding == FOUND_NOTHING)
			put(dedup, hash, *id, row);
		LWLockRelease(lock);
		if (finding != FOUND_OPEN)
			return finding == FOUND_NOTHING;
		wait_for(dedup, open);
	}
}

/*
 * The row of a key gets another id. It was put by an earlier command of this
 * transaction, or it is that of a message which this transaction has deleted.
 */
void
queue_dedup_set_id(const QueueDedupRow *row, int64 id)
{
	Relation	rel = table_open(row->relid, RowExclusiveLock);
	CatalogIndexState indexes = CatalogOpenIndexes(rel);
	ItemPointerData tid = row->tid;
	HeapTuple	tuple = form_row(rel, &row->hash, id, row->accepted_at);

	/* Who looks for the key reads its places in the index first: he must not find one version's, and then neither. */
	LWLockAcquire(lock_of(&row->hash), LW_EXCLUSIVE);
	CatalogTupleUpdateWithInfo(rel, &tid, tuple, indexes);
	LWLockRelease(lock_of(&row->hash));
	CatalogCloseIndexes(indexes);
	table_close(rel, NoLock);
}

/* Whether a table and its indexes can be locked at once; they stay so to the end of the transaction. */
static bool
lock_at_once(Oid relid, LOCKMODE mode)
{
	Relation	rel;
	List	   *indexes;
	ListCell   *cell;
	bool		locked = true;

	if (!ConditionalLockRelationOid(relid, mode))
		return false;
	rel = table_open(relid, NoLock);
	indexes = RelationGetIndexList(rel);
	foreach(cell, indexes)
		locked = locked && ConditionalLockRelationOid(lfirst_oid(cell), mode);
	list_free(indexes);
	table_close(rel, NoLock);
	return locked;
}

/* For the worker: whether unique keys can be forgotten without waiting for anybody. */
bool
queue_dedup_can_forget(void)
{
	return lock_at_once(table_of(-1, 0), RowExclusiveLock);
}

/* A message that had a unique key is gone, if the transaction commits. */
void
queue_dedup_forget_unique(int32 queue, const text *key, int64 id)
{
	Relation	rel = table_open(table_of(-1, 0), RowExclusiveLock);
	Relation	index = open_index(rel);
	pg_uuid_t	hash;
	SnapshotData dirty;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull;

	queue_dedup_hash(&hash, queue, QUEUE_DEDUP_UNIQUE, &key, 1);
	scan = begin_search(rel, index, &hash, &dirty);
	while (HeapTupleIsValid(tuple = next_found(scan)))
	{
		/* One in progress is another message's, which waits for us. */
		if (TransactionIdIsValid(dirty.xmin) || TransactionIdIsValid(dirty.xmax) ||
			DatumGetInt64(heap_getattr(tuple, SEEN_ID, RelationGetDescr(rel), &isnull)) != id)
			continue;
		CatalogTupleDelete(rel, &tuple->t_self);
		break;
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, NoLock);
}

/* All keys of a queue in a table; the hashes of a scan last as long as the caller's array. */
static SysScanDesc
begin_scan_of_queue(Relation rel, Relation index, int32 queue, Snapshot snapshot, pg_uuid_t ends[2])
{
	uint32		prefix = pg_hton32((uint32) queue);
	ScanKeyData keys[2];

	memset(&ends[0], 0, sizeof(pg_uuid_t));
	memset(&ends[1], 0xFF, sizeof(pg_uuid_t));
	memcpy(ends[0].data, &prefix, sizeof(prefix));
	memcpy(ends[1].data, &prefix, sizeof(prefix));
	ScanKeyInit(&keys[0], SEEN_HASH, BTGreaterEqualStrategyNumber, F_UUID_GE, UUIDPGetDatum(&ends[0]));
	ScanKeyInit(&keys[1], SEEN_HASH, BTLessEqualStrategyNumber, F_UUID_LE, UUIDPGetDatum(&ends[1]));
	return systable_beginscan_ordered(rel, index, snapshot, 2, keys);
}

static void
forget_all(Oid relid, int32 queue)
{
	Relation	rel = table_open(relid, RowExclusiveLock);
	Relation	index = open_index(rel);
	pg_uuid_t	ends[2];
	SysScanDesc scan = begin_scan_of_queue(rel, index, queue, NULL, ends);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = next_found(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		CatalogTupleDelete(rel, &tuple->t_self);
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, NoLock);
}

/* The ids of the messages that hold unique keys of a queue, as of a snapshot; returns how many. */
int
queue_dedup_holders(int32 queue, Snapshot snapshot, int64 **ids)
{
	Relation	rel = table_open(table_of(-1, 0), AccessShareLock);
	Relation	index = open_index(rel);
	pg_uuid_t	ends[2];
	SysScanDesc scan = begin_scan_of_queue(rel, index, queue, snapshot, ends);
	HeapTuple	tuple;
	int			room = 1024;
	int			n = 0;

	*ids = palloc(sizeof(int64) * room);
	while (HeapTupleIsValid(tuple = next_found(scan)))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (n == room)
			*ids = repalloc_huge(*ids, sizeof(int64) * (room *= 2));
		(*ids)[n++] = DatumGetInt64(heap_getattr(tuple, SEEN_ID, RelationGetDescr(rel), &isnull));
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return n;
}

/* The queue is dropped. What is remembered for a time goes with its tables. */
void
queue_dedup_forget_queue(int32 queue)
{
	/* What this command has put goes too. */
	CommandCounterIncrement();
	forget_all(table_of(-1, 0), queue);
	forget_all(table_of(lengthof(spans) - 1, 0), queue);
}

/* ---- the worker's part ---- */

/* Whether the windows of all keys in a table are over. */
static bool
is_over(QueueDedup *dedup, int table, const TimestampTz *begins)
{
	TimestampTz next = DT_NOEND;

	for (int i = 0; i < dedup->count; i++)
		if (i != table && !is_empty(dedup->rels[i]) && begins[i] > begins[table])
			next = Min(next, begins[i]);
	return next != DT_NOEND && next + spans[dedup->span].length + GRACE <= queue_clock_wall();
}

/*
 * Lock a table that callers lock for moments all the time: a moment without any is
 * waited for. If there was none so many times, they queue behind us for a moment.
 */
static bool
lock_exclusively(Oid relid, int *tries)
{
	for (int i = 0; i < LOCK_TRIES; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConditionalLockRelationOid(relid, AccessExclusiveLock))
		{
			*tries = 0;
			return true;
		}
		pg_usleep(1000);
	}
	if (++*tries < PATIENT_TRIES)
		return false;
	*tries = 0;
	SetConfigOption("lock_timeout", LOCK_MOMENT, PGC_SUSET, PGC_S_OVERRIDE);
	LockRelationOid(relid, AccessExclusiveLock);
	SetConfigOption("lock_timeout", QUEUE_LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	return true;
}

/* Truncate a table that was over, if its lock can be had. */
static void
truncate_table(Oid relid, TimestampTz begin, int *tries)
{
	Relation	rel;
	bool		same;

	if (!lock_exclusively(relid, tries))
		return;
	rel = table_open(relid, NoLock);
	same = !is_empty(rel) && begun(rel) == begin;
	table_close(rel, NoLock);
	if (!same)
		return;
	SPI_connect();
	SPI_execute(psprintf("TRUNCATE queue.%s", quote_identifier(get_rel_name(relid))), false, 0);
	SPI_finish();
}

/* Empty the tables of a span that are over. */
static void
tend_span(int span)
{
	/* How often a table could not be locked. */
	static int	tries[lengthof(spans)][TABLES];
	QueueDedup *dedup;
	TimestampTz begins[TABLES];
	Oid			over[TABLES];

	for (int i = 0; i < spans[span].tables; i++)
		if (!lock_at_once(table_of(span, i), AccessShareLock))
			return;
	dedup = open_tables(span, spans[span].tables, spans[span].length);
	for (int i = 0; i < dedup->count; i++)
		begins[i] = is_empty(dedup->rels[i]) ? DT_NOEND : begun(dedup->rels[i]);
	for (int i = 0; i < dedup->count; i++)
		over[i] = !is_empty(dedup->rels[i]) && is_over(dedup, i, begins)
			? RelationGetRelid(dedup->rels[i]) : InvalidOid;
	queue_dedup_close(dedup);
	for (int i = 0; i < TABLES; i++)
		if (OidIsValid(over[i]))
			truncate_table(over[i], begins[i], &tries[span][i]);
}

/* Empty tables that are over, in the worker's transaction; waits for a moment at most. */
void
queue_dedup_tend(void)
{
	for (int span = 0; span < (int) lengthof(spans) && spans[span].tables > 1; span++)
		tend_span(span);
}
