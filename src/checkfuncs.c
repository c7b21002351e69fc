/*
 * checkfuncs.c
 *	  queue.check(): slots, pages, rows and counters against each other.
 *
 * Returns a row for each rule that is broken; none when all is well. It looks
 * at things one after the other while others work: what it finds on a busy
 * server it looks at twice before it says so.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "acl.h"
#include "catalog.h"
#include "dedup.h"
#include "error.h"
#include "lease.h"
#include "message.h"
#include "ring.h"
#include "segment.h"
#include "slot.h"

static void
put_broken(ReturnSetInfo *result, const char *queue, const char *rule, const char *detail)
{
	Datum		values[3];
	bool		nulls[3] = {false};

	nulls[0] = queue == NULL;
	values[0] = queue ? CStringGetTextDatum(queue) : (Datum) 0;
	values[1] = CStringGetTextDatum(rule);
	values[2] = CStringGetTextDatum(detail);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* A consistent copy of a slot. */
static uint64
copy_slot(uint32 number, QueueSlot *copy)
{
	QueueSlot  *slot = queue_slot(number);
	uint64		word = queue_slot_lock(slot);

	memcpy(copy, slot, sizeof(QueueSlot));
	queue_slot_unlock(slot, word);
	return word;
}

static bool
hangs_on_page(uint32 number, const QueueSlot *slot)
{
	uint32		numbers[512];
	uint32		n = queue_slot_on_page(queue_segment_at(slot->segment),
									   ItemPointerGetBlockNumber(&slot->tid), numbers, lengthof(numbers));

	for (uint32 i = 0; i < n; i++)
		if (numbers[i] == number)
			return true;
	return false;
}

/* What is wrong with a slot in use; NULL if nothing. */
static const char *
slot_fault(uint32 number, QueueSlot *slot)
{
	QueueSegment *segment = queue_segment_at(slot->segment);
	Relation	rel;
	HeapTuple	row;

	rel = queue_segment_open(segment, slot->generation, AccessShareLock);
	if (rel == NULL)
		return "its segment was emptied or dropped";
	row = queue_segment_fetch(rel, segment, &slot->tid, slot->message_id);
	relation_close(rel, AccessShareLock);
	if (row == NULL)
		return "its message is not where the slot says";
	if (!hangs_on_page(number, slot))
		return "it does not hang on its page";
	return NULL;
}

static void
check_slots(ReturnSetInfo *result)
{
	for (uint32 i = 0; i < queue_slot_count(); i++)
	{
		QueueSlot	slot;
		uint64		word;
		const char *fault = NULL;

		if (QUEUE_SLOT_STATE(pg_atomic_read_u64(&queue_slot(i)->word)) == QUEUE_SLOT_FREE)
			continue;
		/* A prepared transaction may have ended, and nobody came along since. */
		if (queue_slot(i)->database == MyDatabaseId)
			queue_lease_resolve_prepared(queue_slot(i));
		/* It may be in motion: only what stays wrong is wrong. */
		for (int tries = 0; tries < 3; tries++)
		{
			word = copy_slot(i, &slot);
			fault = NULL;
			if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_FREE || slot.database != MyDatabaseId)
				break;
			fault = slot_fault(i, &slot);
			if (fault == NULL)
				break;
			pg_usleep(1000);
		}
		if (fault)
			put_broken(result, get_rel_name(slot.view), "slot",
					   psprintf("slot %u of message " INT64_FORMAT ": %s", i, slot.message_id, fault));
	}
}

/* Free slots plus used ones are all slots. */
static void
check_slot_count(ReturnSetInfo *result)
{
	uint32		used;
	uint32		free;

	for (int tries = 0; tries < 10; tries++)
	{
		used = 0;
		free = queue_slot_free_count();
		for (uint32 i = 0; i < queue_slot_count(); i++)
			used += QUEUE_SLOT_STATE(pg_atomic_read_u64(&queue_slot(i)->word)) != QUEUE_SLOT_FREE;
		if (used + free == queue_slot_count() && free == queue_slot_free_count())
			return;
		pg_usleep(1000);
	}
	put_broken(result, NULL, "slot_count",
			   psprintf("%u slots are used and %u free, of %u", used, free, queue_slot_count()));
}

typedef struct Rows
{
	int64		count;
	TupleDesc	desc;
	int64	   *holders;		/* ids of messages that should be there, sorted */
	int			holder_count;
	int64		found;			/* of these */
} Rows;

static int
compare_id(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

static bool
count_row(HeapTuple tuple, QueueTupleFate fate, void *arg)
{
	Rows	   *rows = arg;
	int64		id;

	rows->count++;
	if (rows->holder_count == 0)
		return true;
	id = queue_message_id(tuple, rows->desc);
	rows->found += bsearch(&id, rows->holders, rows->holder_count, sizeof(int64), compare_id) != NULL;
	return true;
}

/* Look at all rows of a queue that a snapshot sees. */
static void
count_rows(QueueState *state, Snapshot snapshot, Rows *rows)
{
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	while (queue_ring_next(state, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		Relation	rel = queue_segment_open(segment, generation, AccessShareLock);
		BlockNumber pages;

		if (rel == NULL)
			continue;
		rows->desc = RelationGetDescr(rel);
		pages = RelationGetNumberOfBlocks(rel);
		for (BlockNumber page = 0; page < pages; page++)
		{
			CHECK_FOR_INTERRUPTS();
			queue_segment_visit_seen(rel, page, snapshot, count_row, rows);
		}
		relation_close(rel, AccessShareLock);
	}
}

/* Each unique key that is held has its message: both are of one snapshot. */
static void
check_unique_keys(ReturnSetInfo *result, QueueDef *def)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Rows		rows = {0};

	rows.holder_count = queue_dedup_holders(def->id, snapshot, &rows.holders);
	if (rows.holder_count > 0)
	{
		qsort(rows.holders, rows.holder_count, sizeof(int64), compare_id);
		count_rows(def->state, snapshot, &rows);
	}
	UnregisterSnapshot(snapshot);
	if (rows.found < rows.holder_count)
		put_broken(result, def->name, "unique_key",
				   psprintf(INT64_FORMAT " of %d unique keys are held by messages that are not there",
							rows.holder_count - rows.found, rows.holder_count));
	pfree(rows.holders);
}

/* The counter against a recount, if the queue stands still meanwhile. */
static void
check_counter(ReturnSetInfo *result, QueueDef *def)
{
	QueueState *state = def->state;

	for (int tries = 0; tries < 3; tries++)
	{
		int64		before;
		Rows		rows = {0};
		Snapshot	snapshot;

		if (pg_atomic_read_u32(&state->slots) > 0)
			queue_lease_resolve_all(state);
		before = queue_counted(state, QUEUE_COUNT_STORED);
		if (pg_atomic_read_u32(&state->inexact) ||
			(pg_atomic_read_u32(&state->asks) & QUEUE_ASK_RECOUNT))
			return;
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		count_rows(state, snapshot, &rows);
		UnregisterSnapshot(snapshot);
		if (rows.count == before)
			return;
		if (queue_counted(state, QUEUE_COUNT_STORED) == before && tries == 2 &&
			queue_state_committing() == 0)
			put_broken(result, def->name, "counter",
					   psprintf("the counter says " INT64_FORMAT ", there are " INT64_FORMAT,
								before, rows.count));
		pg_usleep(10000);
	}
}

/* Whether as many segments are in the ring as in the catalog: the worker makes some all the time. */
static bool
ring_is_complete(QueueDef *def)
{
	for (int tries = 0; tries < 3; tries++)
	{
		int			in_ring = 0;
		uint64		position = 0;
		QueueSegment *segment;
		uint32		generation;
		ListCell   *cell;

		foreach(cell, queue_catalog_segments(def->id))
			in_ring += queue_ring_has(def->state, ((QueueCatalogSegment *) lfirst(cell))->relid);
		while (queue_ring_next(def->state, &position, QUEUE_TIME_NEVER, &segment, &generation))
			in_ring--;
		if (in_ring == 0)
			return true;
		pg_usleep(10000);
	}
	return false;
}

/* Each segment in the catalog is in the ring, plain, and the other way round. */
static void
check_ring(ReturnSetInfo *result, QueueDef *def)
{
	List	   *known = queue_catalog_segments(def->id);
	ListCell   *cell;

	if (known == NIL)
		put_broken(result, def->name, "segments", "it has no segment");
	foreach(cell, known)
	{
		Oid			relid = ((QueueCatalogSegment *) lfirst(cell))->relid;

		Relation	rel = queue_segment_open_by_oid(relid);

		if (rel == NULL)
			put_broken(result, def->name, "segments", "the table of a segment is gone");
		else
		{
			if (queue_segment_is_half_emptied(rel))
				put_broken(result, def->name, "toast", "the toast table of a segment was emptied half way");
			relation_close(rel, AccessShareLock);
		}
	}
	if (!ring_is_complete(def))
		put_broken(result, def->name, "ring", "catalog and ring of segments differ");
}

PG_FUNCTION_INFO_V1(queue_check);
Datum
queue_check(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *cell;

	queue_error_need_write("queue.check()");
	if (!superuser() && !has_privs_of_role(GetUserId(), ROLE_PG_MONITOR))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for queue.check()"),
				 errdetail("It needs to be a superuser or a member of pg_monitor.")));
	InitMaterializedSRF(fcinfo, 0);
	check_slots(result);
	check_slot_count(result);
	foreach(cell, queue_catalog_views())
	{
		QueueDef   *def;

		LockRelationOid(lfirst_oid(cell), AccessShareLock);
		def = queue_catalog_get(lfirst_oid(cell));
		if (def)
		{
			queue_ring_load(def->state);
			check_ring(result, def);
			check_counter(result, def);
			check_unique_keys(result, def);
		}
		UnlockRelationOid(lfirst_oid(cell), AccessShareLock);
	}
	return (Datum) 0;
}

/* ---- faults, to show that the rules above can fail ---- */

static QueueSlot *
some_slot_of(QueueState *state, uint64 *word)
{
	for (uint32 i = 0; i < queue_slot_count(); i++)
	{
		QueueSlot  *slot = queue_slot(i);

		*word = queue_slot_lock(slot);
		if (QUEUE_SLOT_STATE(*word) == QUEUE_SLOT_LEASED && slot->queue == queue_state_index(state))
			return slot;
		queue_slot_unlock(slot, *word);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the queue has no lease to break")));
}

/*
 * queue._break(queue, what): for tests, superusers only. Damages what shared
 * memory knows of a queue, until a restart; no message is touched.
 */
PG_FUNCTION_INFO_V1(queue_break);
Datum
queue_break(PG_FUNCTION_ARGS)
{
	QueueDef   *def;
	QueueSlot  *slot;
	uint64		word;
	char	   *what;

	queue_error_need_write("queue._break()");
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to break a queue")));
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		queue_error_null("argument");
	def = queue_catalog_open(PG_GETARG_TEXT_PP(0), ACL_NO_RIGHTS);
	what = text_to_cstring(PG_GETARG_TEXT_PP(1));
	ereport(WARNING,
			(errmsg("queue \"%s\" is being broken on purpose", def->name)));
	if (strcmp(what, "counter") == 0)
		queue_count(def->state, QUEUE_COUNT_STORED, 1);
	else if (strcmp(what, "slot_count") == 0)
	{
		uint32		number;
		pg_uuid_t	receipt;

		queue_slot_use_reserved(def->state, &number, &receipt);
	}
	else if (strcmp(what, "slot") == 0)
	{
		slot = some_slot_of(def->state, &word);
		slot->message_id = -slot->message_id;
		queue_slot_unlock(slot, word);
	}
	else if (strcmp(what, "chain") == 0)
	{
		slot = some_slot_of(def->state, &word);
		queue_slot_unlink(slot);
		queue_slot_unlock(slot, word);
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown fault: \"%s\"", what),
				 errhint("Faults are counter, slot_count, slot, chain.")));
	PG_RETURN_VOID();
}
