/*
 * relaylog.c
 *	  What was confirmed, by relays with the option log.
 *
 * A row is stored by the transaction that acks, so it is there if and only if
 * the message is gone from its queue as delivered. Rows go to one of three
 * tables, that of the turn: the turn numbered n has table n % 3 + 1. A turn
 * lasts half the retention or longer. The worker ends it by emptying the table
 * of the next one and writing down when that begins, in one transaction, once
 * what is in that table is older than the retention: its own turn was the last
 * but one, and ended when the last one began. So rows are kept for the
 * retention at least, by whatever setting held meanwhile, and half of it longer
 * as a rule; nothing is deleted, and whoever writes never waits for who empties.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "clock.h"
#include "guc.h"
#include "relaylog.h"
#include "text.h"

#define TABLES 3

/* What may pass from a row's time to its commit, and from the time a turn began to its. */
#define SLACK (10 * USECS_PER_SEC)

static char *
table_of(int64 turn)
{
	return psprintf("_relay_log_%d", (int) (turn % TABLES) + 1);
}

/* The number of the turn that is on, as of now. */
static int64
current_turn(void)
{
	Relation	rel = table_open(queue_catalog_relation("_relay_log_turn"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple;
	int64		turn = 0;

	while ((tuple = systable_getnext(scan)) != NULL)
	{
		bool		isnull;

		turn = Max(turn, DatumGetInt64(heap_getattr(tuple, 1, RelationGetDescr(rel), &isnull)));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return turn;
}

/*
 * Open the table of the turn for writing. A turn may end while its table is
 * waited for: what is written under a lock got before the turn ended is in that
 * turn, since a table is emptied under a lock that waits for this one.
 */
static Relation
open_table(void)
{
	for (;;)
	{
		int64		turn = current_turn();
		Relation	rel = table_open(queue_catalog_relation(table_of(turn)), RowExclusiveLock);

		if (current_turn() == turn)
			return rel;
		table_close(rel, RowExclusiveLock);
	}
}

/* Columns of its tables. */
enum
{
	LOG_RELAY = 1,
	LOG_QUEUE,
	LOG_MESSAGE,
	LOG_EVENT,
	LOG_TARGET,
	LOG_ATTEMPT,
	LOG_CONFIRMED_AT,
	LOG_ANSWER,
	LOG_COLUMNS = LOG_ANSWER
};

static HeapTuple
form_row(Relation rel, const QueueRelay *relay, const QueueRelayLogEntry *entry, TimestampTz now)
{
	Datum		values[LOG_COLUMNS];
	bool		nulls[LOG_COLUMNS] = {false};

	values[LOG_RELAY - 1] = CStringGetTextDatum(relay->name);
	values[LOG_QUEUE - 1] = CStringGetTextDatum(relay->queue);
	values[LOG_MESSAGE - 1] = Int64GetDatum(entry->message);
	values[LOG_EVENT - 1] = CStringGetTextDatum(queue_text_of_sink(entry->event));
	values[LOG_TARGET - 1] = CStringGetTextDatum(queue_text_of_sink(entry->target));
	values[LOG_ATTEMPT - 1] = Int32GetDatum(entry->attempt);
	values[LOG_CONFIRMED_AT - 1] = TimestampTzGetDatum(now);
	values[LOG_ANSWER - 1] = CStringGetTextDatum(queue_text_of_sink(entry->answer));
	nulls[LOG_TARGET - 1] = entry->target[0] == '\0';
	nulls[LOG_ANSWER - 1] = entry->answer[0] == '\0';
	return heap_form_tuple(RelationGetDescr(rel), values, nulls);
}

void
queue_relaylog_write(const QueueRelay *relay, const QueueRelayLogEntry *entries, int n)
{
	TimestampTz now = queue_clock_wall();
	Relation	rel = open_table();

	for (int i = 0; i < n; i++)
		CatalogTupleInsert(rel, form_row(rel, relay, &entries[i], now));
	table_close(rel, NoLock);
}

/* Whether the table of a turn has rows; one that is locked against reading has none for now. */
static bool
has_rows(int64 turn)
{
	Oid			relid = queue_catalog_relation(table_of(turn));
	Relation	rel;
	bool		has;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	rel = table_open(relid, NoLock);
	has = RelationGetNumberOfBlocks(rel) > 0;
	table_close(rel, AccessShareLock);
	return has;
}

/* The turn that is on, when it began, and when the one before it did; false: none was written down yet. */
static bool
read_turns(int64 *turn, TimestampTz *began, TimestampTz *before)
{
	bool		isnull;

	if (SPI_execute("SELECT turn, began FROM queue._relay_log_turn ORDER BY turn DESC LIMIT 2", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the turns of the log of relays");
	if (SPI_processed == 0)
		return false;
	*turn = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	*began = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	*before = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[SPI_processed - 1], SPI_tuptable->tupdesc, 2, &isnull));
	return true;
}

static void
run(const char *sql, TimestampTz time)
{
	Oid			type = TIMESTAMPTZOID;
	Datum		value = TimestampTzGetDatum(time);

	if (SPI_execute_with_args(sql, 1, &type, &value, NULL, false, 0) < 0)
		elog(ERROR, "could not run \"%s\"", sql);
}

static void
begin_turn(int64 turn, TimestampTz now)
{
	run(psprintf("DELETE FROM queue._relay_log_turn WHERE turn < " INT64_FORMAT " AND $1 IS NOT NULL", turn - 1), now);
	run(psprintf("INSERT INTO queue._relay_log_turn VALUES (" INT64_FORMAT ", $1)", turn), now);
}

static void
begin_next_turn(int64 turn, TimestampTz now)
{
	char	   *name = table_of(turn + 1);

	if (!ConditionalLockRelationOid(queue_catalog_relation(name), AccessExclusiveLock))
		return;
	if (SPI_execute(psprintf("TRUNCATE queue.%s", name), false, 0) < 0)
		elog(ERROR, "could not empty \"%s\"", name);
	begin_turn(turn + 1, now);
}

/* End the turn when it is time, in the worker's transaction; waits for nobody, and is asked again. */
void
queue_relaylog_tend(void)
{
	TimestampTz now = queue_clock_wall();
	int64		retention = (int64) queue_relay_log_retention * USECS_PER_MINUTE;
	int64		turn;
	TimestampTz began;
	TimestampTz before;

	if (!has_rows(0) && !has_rows(1) && !has_rows(2))
		return;
	SPI_connect();
	if (!read_turns(&turn, &began, &before))
		begin_turn(0, now);		/* rows that a restore brought count from here */
	else if (began > now)
		run("UPDATE queue._relay_log_turn SET began = $1 WHERE began > $1", now);	/* the clock was set back */
	else if (began <= now - retention / 2 && before <= now - retention - SLACK)
		begin_next_turn(turn, now);
	SPI_finish();
}
