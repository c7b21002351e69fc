/*
 * keystate.c
 *	  What consumers keep of a key of an ordered queue: one row of
 *	  queue._key_state a key, which commits or rolls back with the rest of their work.
 *
 * Only who holds a message of the key comes here (queue_settle_key()), and who
 * writes keeps it until his transaction has ended. So the newest committed row is
 * that of the holder before, whatever the caller's snapshot, and nobody else writes
 * it; but two transactions of one holder may, which a lock of the key sorts out.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "common/hashfn.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

#include "keystate.h"

/* Bytes of a state, as jsonb. */
#define MAX_STATE 65536

/* Columns of queue._key_state. */
enum
{
	STATE_QUEUE = 1,
	STATE_KEY,
	STATE_STATE,
	STATE_CHANGED_AT,
	STATE_COLUMN_COUNT = STATE_CHANGED_AT
};

/* A scan for the rows of a queue, or for that of one of its keys. */
static SysScanDesc
begin_scan(Relation rel, int32 id, text *key)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], STATE_QUEUE, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	/* In collation C, as the column's. */
	ScanKeyInit(&keys[1], STATE_KEY, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(key));
	return systable_beginscan(rel, queue_catalog_relation("_key_state_pkey"), true, NULL, key ? 2 : 1, keys);
}

/* NULL if it has none. */
Jsonb *
queue_keystate_read(QueueDef *def, text *key)
{
	Relation	rel = table_open(queue_catalog_relation("_key_state"), AccessShareLock);
	SysScanDesc scan = begin_scan(rel, def->id, key);
	HeapTuple	tuple = systable_getnext(scan);
	Jsonb	   *state = NULL;
	bool		isnull;

	if (HeapTupleIsValid(tuple))
		state = DatumGetJsonbPCopy(heap_getattr(tuple, STATE_STATE, RelationGetDescr(rel), &isnull));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return state;
}

/* Until the end of the transaction. */
static void
lock_key(Oid relid, int32 id, text *key)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), id);

	LockDatabaseObject(relid, (Oid) (hash >> 16), (uint16) hash, ExclusiveLock);
}

static void
check_size(const Jsonb *state)
{
	Size		size = VARSIZE(state) - VARHDRSZ;

	if (size > MAX_STATE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("state of a key is too large"),
				 errdetail("It has %zu bytes, the limit is %d.", size, MAX_STATE),
				 errhint("Store the data elsewhere, and a reference in the state.")));
}

static HeapTuple
form_row(Relation rel, QueueDef *def, text *key, Jsonb *state)
{
	Datum		values[STATE_COLUMN_COUNT];
	bool		nulls[STATE_COLUMN_COUNT] = {false};

	values[STATE_QUEUE - 1] = Int32GetDatum(def->id);
	values[STATE_KEY - 1] = PointerGetDatum(key);
	values[STATE_STATE - 1] = JsonbPGetDatum(state);
	values[STATE_CHANGED_AT - 1] = TimestampTzGetDatum(queue_clock_wall());
	return heap_form_tuple(RelationGetDescr(rel), values, nulls);
}

/* NULL: it has none any more. */
void
queue_keystate_write(QueueDef *def, text *key, Jsonb *state)
{
	Oid			relid = queue_catalog_relation("_key_state");
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	old;

	if (state)
		check_size(state);
	lock_key(relid, def->id, key);
	rel = table_open(relid, RowExclusiveLock);
	scan = begin_scan(rel, def->id, key);
	old = systable_getnext(scan);
	if (state && HeapTupleIsValid(old))
		CatalogTupleUpdate(rel, &old->t_self, form_row(rel, def, key, state));
	else if (state)
		CatalogTupleInsert(rel, form_row(rel, def, key, state));
	else if (HeapTupleIsValid(old))
		CatalogTupleDelete(rel, &old->t_self);
	systable_endscan(scan);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/* The queue is dropped. */
void
queue_keystate_delete_all(int32 id)
{
	Relation	rel = table_open(queue_catalog_relation("_key_state"), RowExclusiveLock);
	SysScanDesc scan = begin_scan(rel, id, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		CatalogTupleDelete(rel, &tuple->t_self);
	systable_endscan(scan);
	table_close(rel, NoLock);
}
