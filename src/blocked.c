/*
 * blocked.c
 *	  Keys of ordered queues that a dead message blocks, with on_dead = block or
 *	  dead_rest.
 *
 * A row of queue._blocked_key is stored by the transaction that makes the
 * message a dead letter, and deleted by queue.unblock(), or by the worker when it
 * has moved the rest of the key (rest.c). It is what holds after a restart; in
 * between a flag of the key's entry tells (key.c), which is set before the dead
 * message's slot is gone, and found again from the rows by the next claim whenever
 * a row was changed (QueueState.blocked_changes).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_collation.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

#include "blocked.h"
#include "message.h"

/* Columns of queue._blocked_key. */
enum
{
	BLOCKED_QUEUE = 1,
	BLOCKED_KEY,
	BLOCKED_MESSAGE,
	BLOCKED_SINCE,
	BLOCKED_REST_TO,
	BLOCKED_COLUMN_COUNT = BLOCKED_REST_TO
};

/*
 * Messages without a key share that of the empty one. Those with an id below
 * "rest_to" die too; 0: none does.
 */
void
queue_blocked_insert(QueueDef *def, Datum key, bool isnull, int64 message_id, int64 rest_to)
{
	Relation	rel = table_open(queue_catalog_relation("_blocked_key"), RowExclusiveLock);
	Datum		values[BLOCKED_COLUMN_COUNT];
	bool		nulls[BLOCKED_COLUMN_COUNT] = {false};

	values[BLOCKED_QUEUE - 1] = Int32GetDatum(def->id);
	values[BLOCKED_KEY - 1] = isnull ? CStringGetTextDatum("") : key;
	values[BLOCKED_MESSAGE - 1] = Int64GetDatum(message_id);
	values[BLOCKED_SINCE - 1] = TimestampTzGetDatum(queue_clock_wall());
	values[BLOCKED_REST_TO - 1] = Int64GetDatum(rest_to);
	nulls[BLOCKED_REST_TO - 1] = rest_to == 0;
	CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls));
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/* Whether the caller has seen enough. */
typedef bool (*RowVisitor) (Relation rel, HeapTuple tuple, void *arg);

static void
visit_rows(int32 id, LOCKMODE mode, RowVisitor visitor, void *arg)
{
	Relation	rel = table_open(queue_catalog_relation("_blocked_key"), mode);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, BLOCKED_QUEUE, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	scan = systable_beginscan(rel, queue_catalog_relation("_blocked_key_pkey"), true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		if (visitor(rel, tuple, arg))
			break;
	systable_endscan(scan);
	table_close(rel, mode == AccessShareLock ? mode : NoLock);
}

typedef struct Deletion
{
	text	   *key;			/* NULL: all */
	int			deleted;
} Deletion;

static bool
delete_row(Relation rel, HeapTuple tuple, void *arg)
{
	Deletion   *deletion = arg;
	bool		isnull;
	Datum		key = heap_getattr(tuple, BLOCKED_KEY, RelationGetDescr(rel), &isnull);

	if (deletion->key && !DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, key, PointerGetDatum(deletion->key))))
		return false;
	CatalogTupleDelete(rel, &tuple->t_self);
	deletion->deleted++;
	return false;
}

/*
 * Delete the rows of a key; returns how many there were. Two at a time would want
 * the same row; deaths go on beside it.
 */
int
queue_blocked_delete(QueueDef *def, text *key)
{
	Deletion	deletion = {.key = key};

	LockDatabaseObject(queue_catalog_relation("_blocked_key"), def->id, 0, ExclusiveLock);
	visit_rows(def->id, RowExclusiveLock, delete_row, &deletion);
	return deletion.deleted;
}

void
queue_blocked_delete_all(int32 id)
{
	Deletion	deletion = {0};

	visit_rows(id, RowExclusiveLock, delete_row, &deletion);
}

/* For the worker, who waits for nobody: whether it may move and delete, to the end of the transaction. */
bool
queue_blocked_try_lock(QueueDef *def)
{
	return ConditionalLockDatabaseObject(queue_catalog_relation("_blocked_key"), def->id, 0, ExclusiveLock);
}

typedef struct Messages
{
	const int64 *ids;			/* sorted */
	int			count;
} Messages;

static int
compare_ids(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

static bool
delete_row_of_message(Relation rel, HeapTuple tuple, void *arg)
{
	Messages   *messages = arg;
	bool		isnull;
	int64		id = DatumGetInt64(heap_getattr(tuple, BLOCKED_MESSAGE, RelationGetDescr(rel), &isnull));

	if (bsearch(&id, messages->ids, messages->count, sizeof(int64), compare_ids))
		CatalogTupleDelete(rel, &tuple->t_self);
	return false;
}

/* Delete the rows of these dead messages, which get sorted. The caller has the lock. */
void
queue_blocked_delete_messages(QueueDef *def, int64 *ids, int n)
{
	Messages	messages = {ids, n};

	qsort(ids, n, sizeof(int64), compare_ids);
	visit_rows(def->id, RowExclusiveLock, delete_row_of_message, &messages);
}

typedef struct Hashes
{
	uint64	   *hashes;
	int			count;
	int			room;
} Hashes;

static bool
note_hash(Relation rel, HeapTuple tuple, void *arg)
{
	Hashes	   *found = arg;
	bool		isnull;
	text	   *key = DatumGetTextPP(heap_getattr(tuple, BLOCKED_KEY, RelationGetDescr(rel), &isnull));

	if (found->count == found->room)
	{
		found->room *= 2;
		found->hashes = repalloc_huge(found->hashes, sizeof(uint64) * found->room);
	}
	found->hashes[found->count++] = queue_message_hash_key(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	return false;
}

/* The hashes of a queue's blocked keys, as committed by now; returns how many. */
int
queue_blocked_read(QueueDef *def, uint64 **hashes)
{
	Hashes		found = {.room = 64};

	found.hashes = palloc(sizeof(uint64) * found.room);
	visit_rows(def->id, AccessShareLock, note_hash, &found);
	*hashes = found.hashes;
	return found.count;
}

typedef struct Visit
{
	QueueBlockedVisitor visitor;
	void	   *arg;
} Visit;

static bool
pass_row(Relation rel, HeapTuple tuple, void *arg)
{
	Visit	   *visit = arg;
	Datum		values[BLOCKED_COLUMN_COUNT];
	bool		nulls[BLOCKED_COLUMN_COUNT];
	QueueBlocked blocked;

	heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
	blocked.key = DatumGetTextPP(values[BLOCKED_KEY - 1]);
	blocked.message = DatumGetInt64(values[BLOCKED_MESSAGE - 1]);
	blocked.since = DatumGetTimestampTz(values[BLOCKED_SINCE - 1]);
	blocked.rest_to = nulls[BLOCKED_REST_TO - 1] ? 0 : DatumGetInt64(values[BLOCKED_REST_TO - 1]);
	visit->visitor(&blocked, visit->arg);
	return false;
}

/* Show a queue's rows, in order of key and message. */
void
queue_blocked_visit(QueueDef *def, QueueBlockedVisitor visitor, void *arg)
{
	Visit		visit = {visitor, arg};

	visit_rows(def->id, AccessShareLock, pass_row, &visit);
}
