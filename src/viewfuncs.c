/*
 * viewfuncs.c
 *	  What queue.queues, queue.stats, queue.leases, queue.segments and
 *	  queue.health() show.
 *
 * All come from shared counters and the catalog: no table of messages is
 * scanned. Rows are shown to whoever has any right on the queue and to members
 * of pg_monitor; never a payload, never a receipt.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "acl.h"
#include "catalog.h"
#include "error.h"
#include "guc.h"
#include "launcher.h"
#include "message.h"
#include "relay.h"
#include "ring.h"
#include "runner.h"
#include "segment.h"
#include "single.h"
#include "slot.h"
#include "wakeup.h"

typedef void (*ForQueue) (QueueDef *def, ReturnSetInfo *result);

/* Call "show" for each queue the caller may watch. */
static void
for_each_queue(FunctionCallInfo fcinfo, ForQueue show)
{
	ListCell   *cell;

	queue_error_need_preload();
	InitMaterializedSRF(fcinfo, 0);
	foreach(cell, queue_catalog_views())
	{
		Oid			view = lfirst_oid(cell);
		QueueDef   *def;

		if (!ConditionalLockRelationOid(view, AccessShareLock))
			continue;
		def = queue_catalog_get(view);
		if (def && queue_acl_may_watch(view))
		{
			if (def->state)
				queue_ring_load(def->state);
			show(def, (ReturnSetInfo *) fcinfo->resultinfo);
		}
		UnlockRelationOid(view, AccessShareLock);
	}
}

/* ---- stats ---- */

/* Slots of a queue by what they say; one walk over all slots a call. */
typedef struct SlotCounts
{
	int64		leased;
	int64		cooling;
} SlotCounts;

static SlotCounts
count_slots(QueueState *state)
{
	SlotCounts	counts = {0, 0};

	if (pg_atomic_read_u32(&state->slots) == 0)
		return counts;
	for (uint32 i = 0; i < queue_slot_count(); i++)
	{
		QueueSlot  *slot = queue_slot(i);
		uint64		word = pg_atomic_read_u64(&slot->word);

		/* What is only being moved is what its row says. */
		if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_FREE || slot->queue != queue_state_index(state) ||
			slot->moving)
			continue;
		if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_COOLING)
			counts.cooling++;
		else
			counts.leased++;
	}
	return counts;
}

/* Rate over the last minute, as far as samples go back. */
static double
rate_of(QueueState *state, int counter, int64 now_total)
{
	QueueTime	now = queue_clock_now();
	double		seconds = (now - state->sampled) / 1e6;
	uint64		oldest = state->samples[0][counter];

	if (state->sampled == 0)
		return 0;
	for (int i = 1; i < QUEUE_RATE_SAMPLES && state->samples[i][counter] != 0; i++)
	{
		oldest = state->samples[i][counter];
		seconds += 10;
	}
	return seconds > 0 ? (now_total - (int64) oldest) / seconds : 0;
}

/* The oldest message of the first page of each priority that is due, as an age. */
typedef struct Oldest
{
	TupleDesc	desc;
	TimestampTz at;
} Oldest;

static bool
see_oldest(HeapTuple tuple, QueueTupleFate fate, void *arg)
{
	Oldest	   *oldest = arg;
	QueueMessageHead head;

	if (fate != QUEUE_TUPLE_LIVE)
		return true;
	queue_message_head(&head, tuple, oldest->desc);
	if (head.visible_at <= queue_clock_wall())
		oldest->at = Min(oldest->at, head.enqueued_at);
	return true;
}

static TimestampTz
oldest_ready(QueueState *state)
{
	TimestampTz at = DT_NOEND;
	QueueTime	now = queue_clock_now();
	uint32		left = pg_atomic_read_u32(&state->sources) & ((1 << QUEUE_PRIORITIES) - 1);
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	while (left != 0 && queue_ring_next(state, &position, now, &segment, &generation))
	{
		Oldest		oldest = {.at = DT_NOEND};
		uint32		priority = 1 << segment->priority;
		Relation	rel = left & priority ? queue_segment_open(segment, generation, AccessShareLock) : NULL;
		BlockNumber page;
		BlockNumber from = 0;
		BlockNumber busy = InvalidBlockNumber;

		if (rel == NULL)
			continue;
		oldest.desc = RelationGetDescr(rel);
		/* A few pages: this is a number to look at, not to act on. */
		for (int i = 0; i < 4 && oldest.at == DT_NOEND &&
			 queue_map_find(segment, from, now, &page, &busy); i++)
		{
			if (page < RelationGetNumberOfBlocks(rel))
				queue_segment_visit(rel, page, NULL, false, see_oldest, &oldest);
			from = page + 1;
		}
		/* One that somebody is at: it may be the only one. */
		if (oldest.at == DT_NOEND && busy < RelationGetNumberOfBlocks(rel))
			queue_segment_visit(rel, busy, NULL, false, see_oldest, &oldest);
		relation_close(rel, AccessShareLock);
		if (oldest.at != DT_NOEND)
			left &= ~priority;
		at = Min(at, oldest.at);
	}
	return at;
}

/*
 * Which of the messages with a time of delivery still wait for it. They are on
 * pages of their own making, so this reads pages; after so many it says so.
 */
#define WAITING_PAGES 4096

typedef struct Waiting
{
	TupleDesc	desc;
	TimestampTz now;
	int64		delayed;
	int64		failed;
	bool		all;
} Waiting;

static bool
see_waiting(HeapTuple tuple, QueueTupleFate fate, void *arg)
{
	Waiting    *waiting = arg;
	QueueMessageHead head;

	queue_message_head(&head, tuple, waiting->desc);
	if (head.visible_at <= waiting->now)
		return true;
	if (head.failures > 0)
		waiting->failed++;
	else
		waiting->delayed++;
	return true;
}

static Waiting
count_waiting(QueueState *state)
{
	Waiting		waiting = {.now = queue_clock_wall(),.all = true};
	int			left = WAITING_PAGES;
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	while (queue_counted(state, QUEUE_COUNT_TIMED) > 0 &&
		   queue_ring_next(state, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		Relation	rel = queue_segment_open(segment, generation, AccessShareLock);
		BlockNumber pages;

		if (rel == NULL)
			continue;
		waiting.desc = RelationGetDescr(rel);
		pages = RelationGetNumberOfBlocks(rel);
		for (BlockNumber page = 0; page < pages && left > 0; page++, left--)
		{
			CHECK_FOR_INTERRUPTS();
			queue_segment_visit_seen(rel, page, GetActiveSnapshot(), see_waiting, &waiting);
		}
		relation_close(rel, AccessShareLock);
		waiting.all = left > 0;
	}
	return waiting;
}

static Interval *
make_interval_usecs(int64 usecs)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = usecs;
	return interval;
}

static Datum
average_ms(int64 usecs, int64 n, bool *isnull)
{
	*isnull = n == 0;
	return Float8GetDatum(n ? usecs / 1000.0 / n : 0);
}

static void
show_stats(QueueDef *def, ReturnSetInfo *result)
{
	QueueState *state = def->state;
	SlotCounts	slots;
	Datum		values[22];
	bool		nulls[22] = {false};
	int64		counts[QUEUE_COUNTERS];
	Waiting		waiting;
	TimestampTz oldest;
	QueueTime	until;
	char	   *consumer = NULL;
	int			n = 0;

	if (state == NULL)
		return;
	slots = count_slots(state);
	for (int i = 0; i < QUEUE_COUNTERS; i++)
		counts[i] = queue_counted(state, i);
	waiting = count_waiting(state);
	oldest = oldest_ready(state);
	values[n++] = CStringGetTextDatum(def->name);
	values[n++] = Int64GetDatum(Max(counts[QUEUE_COUNT_STORED] - slots.leased - slots.cooling -
								 waiting.delayed - waiting.failed, 0));
	values[n++] = Int64GetDatum(slots.leased);
	values[n++] = Int64GetDatum(waiting.delayed);
	values[n++] = Int64GetDatum(slots.cooling + waiting.failed);
	values[n++] = Int64GetDatum(counts[QUEUE_COUNT_STORED]);
	nulls[n] = oldest == DT_NOEND;
	values[n] = IntervalPGetDatum(make_interval_usecs(nulls[n] ? 0 : queue_clock_wall() - oldest));
	n++;
	values[n++] = Int64GetDatum(counts[QUEUE_COUNT_ENQUEUED]);
	values[n++] = Int64GetDatum(counts[QUEUE_COUNT_DEQUEUED]);
	values[n++] = Int64GetDatum(counts[QUEUE_COUNT_ACKED]);
	values[n++] = Int64GetDatum(counts[QUEUE_COUNT_FAILED]);
	values[n++] = Int64GetDatum(counts[QUEUE_COUNT_DEAD]);
	values[n++] = Int64GetDatum(counts[QUEUE_COUNT_EXPIRED]);
	values[n++] = Int64GetDatum(counts[QUEUE_COUNT_CANCELLED]);
	values[n++] = Float8GetDatum(rate_of(state, 0, counts[QUEUE_COUNT_ENQUEUED]));
	values[n++] = Float8GetDatum(rate_of(state, 1, counts[QUEUE_COUNT_DEQUEUED]));
	values[n++] = Float8GetDatum(rate_of(state, 2, counts[QUEUE_COUNT_ACKED]));
	values[n] = average_ms(counts[QUEUE_COUNT_WAIT_USECS], counts[QUEUE_COUNT_DEQUEUED], &nulls[n]);
	n++;
	values[n] = average_ms(counts[QUEUE_COUNT_WORK_USECS], counts[QUEUE_COUNT_ACKED], &nulls[n]);
	n++;
	values[n++] = BoolGetDatum(pg_atomic_read_u32(&state->inexact) == 0 &&
							   !(pg_atomic_read_u32(&state->asks) & QUEUE_ASK_RECOUNT) && waiting.all);
	if (def->options.single_active_consumer)
		consumer = queue_single_describe(state, &until);
	nulls[n] = nulls[n + 1] = consumer == NULL;
	values[n++] = consumer ? CStringGetTextDatum(consumer) : (Datum) 0;
	values[n++] = consumer ? TimestampTzGetDatum(queue_clock_to_wall(until)) : (Datum) 0;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(queue_stats);
Datum
queue_stats(PG_FUNCTION_ARGS)
{
	for_each_queue(fcinfo, show_stats);
	return (Datum) 0;
}

/* ---- segments ---- */

/* Of which a segment may have messages. */
static Datum
priorities_of(QueueSegment *segment)
{
	uint32		bits = segment->role == QUEUE_SEGMENT_RESERVE ? 0 : pg_atomic_read_u32(&segment->priorities);
	Datum		items[QUEUE_PRIORITIES];
	int			n = 0;

	for (int i = 0; i < QUEUE_PRIORITIES; i++)
		if (bits & (1 << i))
			items[n++] = Int32GetDatum(i);
	return PointerGetDatum(construct_array(items, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

static void
show_segments(QueueDef *def, ReturnSetInfo *result)
{
	static const char *const roles[] = {"free", "reserve", "active", "timed", "priority", "copies", "sealed"};
	static const char *const kept[] = {
		NULL, "messages", "delay", "locked", "in progress"
	};
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	while (def->state && queue_ring_next(def->state, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		Datum		values[9];
		bool		nulls[9] = {false};
		Relation	rel = queue_segment_open(segment, generation, AccessShareLock);
		QueueTime	due = queue_map_due(segment);
		const char *why = segment->role == QUEUE_SEGMENT_SEALED
			? kept[pg_atomic_read_u32(&segment->kept)] : NULL;

		if (rel == NULL)
			continue;
		values[0] = CStringGetTextDatum(def->name);
		values[1] = ObjectIdGetDatum(segment->relid);
		values[2] = Int32GetDatum(segment->number);
		values[3] = CStringGetTextDatum(roles[segment->role]);
		values[4] = Int64GetDatum((int64) RelationGetNumberOfBlocks(rel) * BLCKSZ);
		values[5] = Int64GetDatum((int64) pg_atomic_read_u64(&segment->live));
		nulls[6] = def->state->ordered || pg_atomic_read_u32(&segment->surveyed) != generation;
		values[6] = priorities_of(segment);
		nulls[7] = due == QUEUE_TIME_NEVER;
		values[7] = TimestampTzGetDatum(queue_clock_to_wall(due));
		nulls[8] = why == NULL;
		values[8] = why ? CStringGetTextDatum(why) : (Datum) 0;
		relation_close(rel, AccessShareLock);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

PG_FUNCTION_INFO_V1(queue_segments);
Datum
queue_segments(PG_FUNCTION_ARGS)
{
	for_each_queue(fcinfo, show_segments);
	return (Datum) 0;
}

/* ---- queues ---- */

PG_FUNCTION_INFO_V1(queue_may_watch);
Datum
queue_may_watch(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || get_rel_name(PG_GETARG_OID(0)) == NULL)
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(queue_acl_may_watch(PG_GETARG_OID(0)));
}

/* ---- leases ---- */

static const char *
slot_state_name(uint64 word)
{
	switch (QUEUE_SLOT_STATE(word))
	{
		case QUEUE_SLOT_LEASED:
			return "leased";
		case QUEUE_SLOT_SETTLING:
			return "settling";
		case QUEUE_SLOT_COOLING:
			return (word & QUEUE_SLOT_DEAD) ? "dead" : "cooling";
		case QUEUE_SLOT_FREE:
			break;
	}
	return NULL;
}

PG_FUNCTION_INFO_V1(queue_leases);
Datum
queue_leases(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	queue_error_need_preload();
	InitMaterializedSRF(fcinfo, 0);
	for (uint32 i = 0; i < queue_slot_count(); i++)
	{
		QueueSlot  *shared = queue_slot(i);
		QueueSlot	slot;
		uint64		word = pg_atomic_read_u64(&shared->word);
		Datum		values[10];
		bool		nulls[10] = {false};
		QueueSegment *segment;
		char	   *name;

		if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_FREE || shared->database != MyDatabaseId)
			continue;
		word = queue_slot_lock(shared);
		memcpy(&slot, shared, sizeof(slot));
		queue_slot_unlock(shared, word);
		if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_FREE || slot.database != MyDatabaseId || slot.moving)
			continue;
		name = get_rel_name(slot.view);
		if (name == NULL || !queue_acl_may_watch(slot.view))
			continue;
		values[0] = CStringGetTextDatum(name);
		values[1] = Int64GetDatum(slot.message_id);
		values[2] = CStringGetTextDatum(slot_state_name(word));
		values[3] = Int32GetDatum(slot.failures + 1);
		values[4] = ObjectIdGetDatum(slot.owner);
		values[5] = Int32GetDatum(slot.pid);
		nulls[6] = slot.consumer[0] == '\0';
		values[6] = CStringGetTextDatum(slot.consumer);
		values[7] = TimestampTzGetDatum(queue_clock_to_wall(slot.taken));
		nulls[8] = slot.deadline == QUEUE_TIME_NEVER;
		values[8] = TimestampTzGetDatum(QUEUE_SLOT_STATE(word) == QUEUE_SLOT_COOLING
										? queue_clock_to_wall(slot.next)
										: queue_clock_to_wall(slot.deadline));
		segment = queue_segment_at(slot.segment);
		values[9] = ObjectIdGetDatum(segment->relid);
		nulls[9] = pg_atomic_read_u32(&segment->generation) != slot.generation;
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ---- health ---- */

PG_FUNCTION_INFO_V1(queue_worker_pid);
Datum
queue_worker_pid(PG_FUNCTION_ARGS)
{
	int			pid;

	queue_error_need_preload();
	pid = queue_wakeup_worker_pid(MyDatabaseId);
	if (pid == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT32(pid);
}

static void
put_health(ReturnSetInfo *result, const char *check, const char *status, const char *value,
		   const char *detail, const char *hint)
{
	const char *texts[] = {check, status, value, detail, hint};
	Datum		values[5];
	bool		nulls[5];

	for (int i = 0; i < 5; i++)
	{
		nulls[i] = texts[i] == NULL;
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(texts[i]);
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
check_worker(ReturnSetInfo *result)
{
	int			pid = queue_wakeup_worker_pid(MyDatabaseId);

	if (RecoveryInProgress())
		put_health(result, "worker", "ok", NULL, "A standby has no worker.", NULL);
	else if (pid != 0)
		put_health(result, "worker", "ok", psprintf("%d", pid), "The worker of this database runs.", NULL);
	else
		put_health(result, "worker", "fail", NULL,
				   queue_launcher_running() ? "This database has no worker; the launcher runs."
				   : "Neither launcher nor worker run.",
				   "Failures are not written and nobody is notified. See the server's log; \"max_worker_processes\" may be too low.");
}

/* Old is a transaction that has been open for longer, us, or with more after it. */
#define HORIZON_OLD_USECS INT64CONST(3600000000)
#define HORIZON_OLD_XIDS 1000000

/* Text of a column of SPI's first row, in the context of the caller of SPI. */
static char *
spi_text(int column)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);

	return value ? strcpy(SPI_palloc(strlen(value) + 1), value) : NULL;
}

/*
 * Whoever holds back vacuum the most. Runs with the caller's search_path, as
 * all queries here: a name that is not qualified, an operator too, would let
 * others have the caller run what is theirs.
 */
static void
check_horizon(ReturnSetInfo *result)
{
	char	   *holder = NULL;
	char	   *remedy = NULL;
	int32		age = 0;
	bool		catalogs = false;
	bool		old = false;

	SPI_connect();
	if (SPI_execute("SELECT holder, remedy, age, catalogs, since FROM queue._horizon "
					"ORDER BY age DESC, rank, since LIMIT 1", true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for the holder of the horizon");
	if (SPI_processed == 1)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		Datum		since = SPI_getbinval(row, desc, 5, &isnull);

		old = !isnull && queue_clock_wall() - DatumGetTimestampTz(since) > HORIZON_OLD_USECS;
		age = DatumGetInt32(SPI_getbinval(row, desc, 3, &isnull));
		old |= age > HORIZON_OLD_XIDS;
		catalogs = DatumGetBool(SPI_getbinval(row, desc, 4, &isnull));
		holder = spi_text(1);
		remedy = spi_text(2);
	}
	SPI_finish();
	put_health(result, "horizon", old ? "warn" : "ok", psprintf("%d transactions", age),
			   holder ? psprintf("Held by %s.", holder) : "Nobody holds an old snapshot.",
			   old ? psprintf("%s Queues keep their speed, and give disk back after queue.reclaim_delay; %s cannot be vacuumed.",
							  remedy, catalogs ? "the system catalogs" : "other tables") : NULL);
}

/* Of what is in shared memory and does not give way. */
static const char *
how_full(uint32 used, uint32 all)
{
	return used > all / 8 * 7 ? "fail" : used > all / 2 ? "warn" : "ok";
}

static void
put_usage(ReturnSetInfo *result, const char *check, uint32 used, uint32 all, const char *what, const char *hint)
{
	const char *status = how_full(used, all);

	put_health(result, check, status, psprintf("%u of %u", used, all), what,
			   strcmp(status, "ok") == 0 ? NULL : hint);
}

/* Slots, keys and meters. */
static void
check_usage(ReturnSetInfo *result)
{
	uint32		used;
	uint32		all = queue_slot_count();

	put_usage(result, "lease_slots", all - queue_slot_free_count(), all,
			  "Messages that are leased, being settled, or wait for their failure to be written.",
			  "Raise \"queue.max_leases\" or use shorter leases; queue.leases shows who holds them.");
	queue_key_usage(&used, &all);
	put_usage(result, "keys", used, all,
			  "Keys of ordered queues of which messages are held, failed, or wait for that.",
			  "Raise \"queue.max_keys\", or settle or unblock what holds keys.");
	queue_meter_usage(&used, &all);
	put_usage(result, "meters", used, all,
			  "Keys, consumers and queues that a limit counts, or that wait for room or their turn.",
			  "Raise \"queue.max_meters\", or limit fewer keys; queue.limits shows who waits.");
}

static void
check_map(ReturnSetInfo *result)
{
	QueueMapUsage usage;
	const char *status = "ok";
	const char *hint = NULL;

	queue_map_usage(&usage);
	if (usage.kept > usage.kept_total / 2)
	{
		status = usage.kept > usage.kept_total / 8 * 7 ? "fail" : "warn";
		hint = "Raise \"queue.map_memory\", or \"queue.segment_size\"; see why segments are kept in queue.segments.";
	}
	else if (usage.used > usage.total / 10 * 9)
	{
		status = "warn";
		hint = "Raise \"queue.map_memory\" if dequeues get slow.";
	}
	put_health(result, "map_memory", status,
			   psprintf(INT64_FORMAT " of " INT64_FORMAT " bytes", usage.used, usage.total),
			   psprintf("Memory that tells where work may be. Page entries give way when it is full; "
						"what does not, for segments in use, has " INT64_FORMAT " of " INT64_FORMAT " bytes.",
						usage.kept, usage.kept_total),
			   hint);
}

/* Who has locks on full segments, among the queues that the caller may watch. */
static const char *
in_the_way(void)
{
	char	   *holders = NULL;

	SPI_connect();
	if (SPI_execute("SELECT pg_catalog.string_agg(DISTINCT kept_by, ', ') FROM queue.segments "
					"WHERE kept_because OPERATOR(pg_catalog.=) ANY "
					"('{somebody holds a lock on it,transactions on it are open}'::pg_catalog.text[])",
					true, 1) == SPI_OK_SELECT && SPI_processed == 1)
		holders = spi_text(1);
	SPI_finish();
	return holders ? psprintf(" In the way: %s.", holders) : "";
}

static void
check_segments(ReturnSetInfo *result)
{
	int			stuck = 0;
	uint32		position = 0;
	QueueState *state;

	while ((state = queue_state_next(MyDatabaseId, &position)) != NULL)
	{
		uint64		at = 0;
		QueueSegment *segment;
		uint32		generation;

		while (queue_ring_next(state, &at, QUEUE_TIME_NEVER, &segment, &generation))
			if (segment->role == QUEUE_SEGMENT_SEALED &&
				(pg_atomic_read_u32(&segment->kept) == QUEUE_KEPT_LOCKED ||
				 pg_atomic_read_u32(&segment->kept) == QUEUE_KEPT_IN_PROGRESS))
				stuck++;
	}
	put_health(result, "stuck_segments", stuck > 0 ? "warn" : "ok", psprintf("%d", stuck),
			   psprintf("Segments without messages that could not be emptied when last tried.%s",
						stuck > 0 ? in_the_way() : ""),
			   stuck > 0 ? "End those transactions; queue.segments tells which segments they keep." : NULL);
}

static void
check_clock(ReturnSetInfo *result)
{
	put_health(result, "clock", "ok", psprintf("%u", queue_clock_epoch()),
			   "Epoch of the offset between the wall clock and the clock of leases.", NULL);
}

/*
 * Publications that carry segments or the catalog. Names are qualified for the
 * same reason as in check_horizon().
 */
static char *
publications(int *count)
{
	StringInfoData names;

	SPI_connect();
	if (SPI_execute("SELECT pubname FROM pg_catalog.pg_publication p WHERE p.puballtables "
					"OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s "
					"JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) s.pnnspid "
					"WHERE s.pnpubid OPERATOR(pg_catalog.=) p.oid "
					"AND n.nspname OPERATOR(pg_catalog.=) ANY ('{queue,queues}'::pg_catalog.name[])) "
					"OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r "
					"JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.prrelid "
					"JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
					"WHERE r.prpubid OPERATOR(pg_catalog.=) p.oid "
					"AND n.nspname OPERATOR(pg_catalog.=) ANY ('{queue,queues}'::pg_catalog.name[])) "
					"ORDER BY pubname", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for publications");
	*count = (int) SPI_processed;
	initStringInfo(&names);
	for (int i = 0; i < *count; i++)
		appendStringInfo(&names, "%s\"%s\"", i > 0 ? ", " : "",
						 SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	names.data = strcpy(SPI_palloc(names.len + 1), names.data);
	SPI_finish();
	return names.data;
}

static void
check_publications(ReturnSetInfo *result)
{
	int			count;
	char	   *names = publications(&count);

	put_health(result, "publications", count > 0 ? "warn" : "ok", psprintf("%d", count),
			   count > 0 ? psprintf("Tables of the extension are published by %s.", names)
			   : "No publication carries tables of the extension.",
			   count > 0 ? "A subscriber gets messages that are acked already, and stops at a new queue. Publish the application's schemas or list its tables instead." : NULL);
}

/* What is wrong with a relay; NULL: nothing, or somebody has paused it. */
static const char *
trouble_of_relay(const QueueRelay *relay)
{
	QueueRunner runner;

	if (!relay->here)
		return "was made in another database";
	if (relay->paused)
		return relay->pause_reason ? "was paused by its destination" : NULL;
	if (!queue_runner_get(relay->id, &runner) || !queue_runner_runs(&runner))
		return "is run by nobody";
	return runner.breaker == QUEUE_PUMP_CLOSED ? NULL : "waits for its destination";
}

static void
check_relays(ReturnSetInfo *result)
{
	List	   *relays = queue_relay_list();
	StringInfoData troubles;
	int			count = 0;
	ListCell   *cell;

	initStringInfo(&troubles);
	foreach(cell, relays)
	{
		QueueRelay *relay = lfirst(cell);
		const char *trouble;

		if (!OidIsValid(relay->view) || !queue_acl_may_watch(relay->view))
			continue;
		count++;
		trouble = trouble_of_relay(relay);
		if (trouble)
			appendStringInfo(&troubles, "%s\"%s\" %s", troubles.len ? ", " : "", relay->name, trouble);
	}
	put_health(result, "relays", troubles.len ? "warn" : "ok", psprintf("%d", count),
			   troubles.len ? psprintf("Relay %s.", troubles.data) : "Every relay that is not paused is at work.",
			   troubles.len ? "queue.relays has the last error of each. One of another database waits for queue.adopt()." : NULL);
}

PG_FUNCTION_INFO_V1(queue_health);
Datum
queue_health(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	queue_error_need_preload();
	InitMaterializedSRF(fcinfo, 0);
	check_worker(result);
	check_horizon(result);
	check_usage(result);
	check_map(result);
	check_segments(result);
	check_clock(result);
	check_publications(result);
	check_relays(result);
	return (Datum) 0;
}
