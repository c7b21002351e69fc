/*
 * limit.c
 *	  What limits a queue has, in rows of queue._limit.
 *
 * A row with a name is for that key or consumer, and stands in place of the one
 * without, which is for each of them; what it leaves out is not limited. They are
 * read with the queue's definition and change as that does, at the commit of
 * queue.limit(). What is in use of them is in meter.c.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "limit.h"

/* Columns of queue._limit. */
enum
{
	LIMIT_QUEUE = 1,
	LIMIT_SCOPE,
	LIMIT_NAME,
	LIMIT_IN_FLIGHT,
	LIMIT_RATE,
	LIMIT_BURST,
	LIMIT_WEIGHT,
	LIMIT_COLUMN_COUNT = LIMIT_WEIGHT
};

const char *const queue_limit_scopes[QUEUE_LIMIT_SCOPES] = {"queue", "consumer", "key"};

static const QueueLimit no_limit = {.in_flight = -1};

/* One by name. */
typedef struct NamedLimit
{
	uint64		hash;			/* key of the table: of scope and name */
	QueueLimit	limit;
} NamedLimit;

/* What tells the names of a queue apart, over all scopes. */
uint64
queue_limit_hash(QueueLimitScope scope, const char *name, int length)
{
	return hash_bytes_extended((const unsigned char *) name, length, scope + 1);
}

void
queue_limit_forget(QueueLimits *limits)
{
	if (limits->named)
		hash_destroy(limits->named);
	limits->named = NULL;
	limits->any = false;
	for (int i = 0; i < QUEUE_LIMIT_SCOPES; i++)
		limits->each[i] = no_limit;
}

static double
number(Relation rel, HeapTuple tuple, AttrNumber column, double missing)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, column, RelationGetDescr(rel), &isnull);

	return isnull ? missing : DatumGetFloat8(value);
}

/* A restore may have stored anything. */
static void
make_sane(QueueLimit *limit)
{
	if (limit->in_flight < 1)
		limit->in_flight = -1;
	if (!(limit->rate > 0))
		limit->rate = 0;
	if (!(limit->burst > 0))
		limit->burst = Max(limit->rate, 1);
	limit->weight = limit->weight > 0 ? Min(Max(limit->weight, QUEUE_LEAST_WEIGHT), QUEUE_MOST_WEIGHT) : 0;
}

static void
see_row(Relation rel, HeapTuple tuple, QueueLimits *limits)
{
	bool		isnull;
	char	   *scope_name = TextDatumGetCString(heap_getattr(tuple, LIMIT_SCOPE, RelationGetDescr(rel), &isnull));
	char	   *name = TextDatumGetCString(heap_getattr(tuple, LIMIT_NAME, RelationGetDescr(rel), &isnull));
	Datum		in_flight = heap_getattr(tuple, LIMIT_IN_FLIGHT, RelationGetDescr(rel), &isnull);
	QueueLimit	limit = {
		.in_flight = isnull ? -1 : DatumGetInt32(in_flight),
		.rate = number(rel, tuple, LIMIT_RATE, 0),
		.burst = number(rel, tuple, LIMIT_BURST, 0),
		.weight = number(rel, tuple, LIMIT_WEIGHT, 0),
	};
	int			scope = 0;
	uint64		hash;

	make_sane(&limit);
	while (scope < QUEUE_LIMIT_SCOPES && strcmp(queue_limit_scopes[scope], scope_name) != 0)
		scope++;
	if (scope == QUEUE_LIMIT_SCOPES)
		return;
	limits->any |= !queue_limit_is_none(&limit);
	if (name[0] == '\0')
	{
		limits->each[scope] = limit;
		return;
	}
	if (limits->named == NULL)
	{
		HASHCTL		info = {
			.keysize = sizeof(uint64),
			.entrysize = sizeof(NamedLimit),
			.hcxt = TopMemoryContext
		};

		limits->named = hash_create("queue limits", 64, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	/* The name begins with a mark, see queue.limit(): an empty one can be meant. */
	hash = queue_limit_hash(scope, name + 1, strlen(name + 1));
	((NamedLimit *) hash_search(limits->named, &hash, HASH_ENTER, NULL))->limit = limit;
}

/* Read a queue's. The caller gives back what it had with queue_limit_forget(). */
void
queue_limit_read(Oid table, Oid index, int32 id, QueueLimits *limits)
{
	Relation	rel = table_open(table, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	limits->named = NULL;
	queue_limit_forget(limits);
	ScanKeyInit(&key, LIMIT_QUEUE, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	PG_TRY();
	{
		scan = systable_beginscan(rel, index, true, NULL, 1, &key);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
			see_row(rel, tuple, limits);
		systable_endscan(scan);
	}
	PG_CATCH();
	{
		/* What has names outlives the transaction. */
		queue_limit_forget(limits);
		PG_RE_THROW();
	}
	PG_END_TRY();
	table_close(rel, AccessShareLock);
}

/* Delete a queue's rows: of one scope and name, or all. */
static void
delete_rows(Relation rel, Oid index, int32 id, const char *scope, const char *name)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, LIMIT_QUEUE, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	scan = systable_beginscan(rel, index, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		its_scope = heap_getattr(tuple, LIMIT_SCOPE, RelationGetDescr(rel), &isnull);
		Datum		its_name = heap_getattr(tuple, LIMIT_NAME, RelationGetDescr(rel), &isnull);

		if (scope == NULL ||
			(strcmp(TextDatumGetCString(its_scope), scope) == 0 && strcmp(TextDatumGetCString(its_name), name) == 0))
			CatalogTupleDelete(rel, &tuple->t_self);
	}
	systable_endscan(scan);
	CommandCounterIncrement();
}

/*
 * Store a limit in place of what was there of the same name (NULL: each of the
 * scope); none if it is NULL. The caller has the queue's view locked against others
 * who do the same.
 */
void
queue_limit_write(Oid table, Oid index, int32 id, QueueLimitScope scope, const char *name,
				  const QueueLimit *limit)
{
	Relation	rel = table_open(table, RowExclusiveLock);
	/* With a mark, so that the empty one is a name. */
	char	   *stored = name ? psprintf("=%s", name) : "";
	Datum		values[LIMIT_COLUMN_COUNT];
	bool		nulls[LIMIT_COLUMN_COUNT] = {false};

	delete_rows(rel, index, id, queue_limit_scopes[scope], stored);
	if (limit)
	{
		values[LIMIT_QUEUE - 1] = Int32GetDatum(id);
		values[LIMIT_SCOPE - 1] = CStringGetTextDatum(queue_limit_scopes[scope]);
		values[LIMIT_NAME - 1] = CStringGetTextDatum(stored);
		values[LIMIT_IN_FLIGHT - 1] = Int32GetDatum(limit->in_flight);
		nulls[LIMIT_IN_FLIGHT - 1] = limit->in_flight < 0;
		values[LIMIT_RATE - 1] = Float8GetDatum(limit->rate);
		nulls[LIMIT_RATE - 1] = limit->rate == 0;
		values[LIMIT_BURST - 1] = Float8GetDatum(limit->burst);
		nulls[LIMIT_BURST - 1] = limit->rate == 0;
		values[LIMIT_WEIGHT - 1] = Float8GetDatum(limit->weight);
		nulls[LIMIT_WEIGHT - 1] = limit->weight == 0;
		CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls));
		CommandCounterIncrement();
	}
	table_close(rel, NoLock);
}

void
queue_limit_delete_all(Oid table, Oid index, int32 id)
{
	Relation	rel = table_open(table, RowExclusiveLock);

	delete_rows(rel, index, id, NULL, NULL);
	table_close(rel, NoLock);
}

/* That of one name. */
const QueueLimit *
queue_limit_of(const QueueLimits *limits, QueueLimitScope scope, uint64 hash)
{
	NamedLimit *named = limits->named ? hash_search(limits->named, &hash, HASH_FIND, NULL) : NULL;

	return named ? &named->limit : &limits->each[scope];
}
