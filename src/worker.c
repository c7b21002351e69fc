/*
 * worker.c
 *	  The worker of one database: rounds of small steps.
 *
 * Started by the launcher; exits when its database lost the extension or a
 * command needs the database to itself, and is started again otherwise. While
 * it is away delivery goes on; failures stay in their slots, dead letters and
 * notifications wait, segments grow past their size.
 *
 * A round looks at every queue of the database that asked for something or
 * whose time has come, each step in a transaction of its own. Between rounds
 * it sleeps without a transaction. An error ends the step and is logged; the
 * queue's step is tried again after the worker's interval.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/pmsignal.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "age.h"
#include "compat.h"
#include "dedup.h"
#include "failure.h"
#include "guc.h"
#include "launcher.h"
#include "maintain.h"
#include "place.h"
#include "relaylog.h"
#include "relayworker.h"
#include "rest.h"
#include "ring.h"
#include "segment.h"
#include "wakeup.h"
#include "worker.h"

/* Pages a sweep visits in one step, and how long a round of all may take. */
#define SWEEP_PAGES 256

/* After a start, what a queue's sweep may take of a tick until it was round once, us. */
#define LEARNING_TIME INT64CONST(200000)

/* What looking for messages to move may take of a tick, us. */
#define MOVING_TIME INT64CONST(200000)

/* What moving the rest of keys may take of a round, for each queue, us. */
#define REST_TIME 100000

/* A step of that which could not be taken is tried again after this long, us. */
#define REST_RETRY 1000000

/* Transactions that write failures, in one round: nothing else is to starve. */
#define FAILURE_STEPS 200

/* How long tables are vacuumed in one round, us: likewise. */
#define VACUUM_TIME 200000

/* Between two looks for segments that can be emptied, us. */
#define RECLAIM_PAUSE INT64CONST(50000)

/* Between two looks at the tables of keys that were accepted once, us. */
#define DEDUP_PAUSE INT64CONST(5000000)

/* Longest pause between two steps of a sweep where nothing happens, us. */
#define LONGEST_SWEEP_PAUSE INT64CONST(60000000)

/* Between looks at the catalog for queues that nobody has used, us. */
#define LOAD_INTERVAL 30000000

typedef bool (*Step) (QueueDef *def);

/* Reset after every step; what lives longer is in shared memory. */
static MemoryContext scratch;

/*
 * Run one step in a transaction of its own, under the queue's lock. Returns
 * what the step said; after an error, whether others can be served at once.
 */
static bool
run_step(const char *what, Oid view, Step step)
{
	volatile bool result = false;

	PG_TRY();
	{
		QueueDef   *def;

		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		pgstat_report_activity(STATE_RUNNING, what);
		MemoryContextSwitchTo(scratch);
		if (!OidIsValid(view))
			result = step(NULL);
		else if (ConditionalLockRelationOid(view, AccessShareLock) &&
				 (def = queue_catalog_get(view)) != NULL)
			result = step(def);
		if (ActiveSnapshotSet())
			PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(scratch);
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		result = queue_failure_blame();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(scratch);
	return result;
}

/* ---- steps ---- */

static bool
step_failures(QueueDef *def)
{
	/* Aborts that the crash itself causes are no failures. */
	if (!PostmasterIsAlive())
		proc_exit(1);
	return queue_maintain_failures();
}

static bool
step_reserve(QueueDef *def)
{
	return queue_maintain_reserve(def);
}

static bool
step_reclaim(QueueDef *def)
{
	return queue_maintain_reclaim(def);
}

static bool
step_rest(QueueDef *def)
{
	queue_rest_step(def);
	return true;
}

static bool
step_move(QueueDef *def)
{
	return queue_maintain_move(def);
}

/* True: a good deal is not known yet, since the server has started. */
static bool
step_sweep(QueueDef *def)
{
	queue_maintain_sweep(def, SWEEP_PAGES);
	return !def->state->swept_all;
}

static bool
step_dedup(QueueDef *def)
{
	queue_dedup_tend();
	return false;
}

static bool
step_relays(QueueDef *def)
{
	queue_relayworker_supervise();
	return false;
}

static bool
step_relay_log(QueueDef *def)
{
	queue_relaylog_tend();
	return false;
}

static bool
step_survey(QueueDef *def)
{
	return queue_maintain_survey(def);
}

static bool
step_look(QueueDef *def)
{
	queue_maintain_look(def);
	return true;
}

static bool
step_recount(QueueDef *def)
{
	return queue_maintain_recount(def);
}

/* The segment of its queue that was looked at last. */
static uint64 vacuum_rank;

static bool
step_vacuum(QueueDef *def)
{
	return queue_maintain_vacuum(def, &vacuum_rank);
}

static bool
step_notify(QueueDef *def)
{
	queue_maintain_notify(def);
	return true;
}

/* ---- rounds ---- */

/* What was taken last: asked again if this process ends, which may be in the middle of it. */
static QueueState *asked_by;
static uint32 asked;

static bool
take_ask(QueueState *state, uint32 what)
{
	if (!(pg_atomic_read_u32(&state->asks) & what))
		return false;
	asked_by = state;
	asked = what;
	pg_atomic_fetch_and_u32(&state->asks, ~what);
	return true;
}

/* Note when something falls due by itself, and ask for a notification then. */
static QueueTime
watch_due(QueueState *state, QueueTime now)
{
	QueueTime	noted = (QueueTime) pg_atomic_read_u64(&state->next_due);
	QueueTime	due = queue_ring_due(state);

	if (noted != 0 && noted <= now)
		queue_state_ask(state, QUEUE_ASK_NOTIFY);
	pg_atomic_write_u64(&state->next_due, due > now && due != QUEUE_TIME_NEVER ? (uint64) due : 0);
	return due > now ? due : QUEUE_TIME_NEVER;
}

/* Whether listeners can be told now; otherwise *wake becomes the time for it. */
static bool
may_notify(QueueState *state, QueueTime now, QueueTime *wake)
{
	QueueTime	next = (QueueTime) pg_atomic_read_u64(&state->notified) +
		queue_notify_interval * INT64CONST(1000);

	if (!(pg_atomic_read_u32(&state->asks) & QUEUE_ASK_NOTIFY))
		return false;
	if (now >= next)
		return true;
	*wake = Min(*wake, next);
	return false;
}

/* When to sweep next: soon while something happens, ever later otherwise. */
static void
plan_sweep(QueueState *state, QueueTime now)
{
	uint64		saw = 0;
	int64		shortest = queue_recheck_interval * INT64CONST(1000);

	for (int i = 0; i < QUEUE_COUNTERS; i++)
		saw += pg_atomic_read_u64(&state->counters[i]);
	/* What the sweep found expired is counted only when it is written. */
	if (saw != state->sweep_saw || state->sweep_pause < shortest ||
		(pg_atomic_read_u32(&state->asks) & QUEUE_ASK_FAILURES))
		state->sweep_pause = shortest;
	else
		state->sweep_pause = Min(state->sweep_pause * 2, Max(shortest, LONGEST_SWEEP_PAUSE));
	state->sweep_saw = saw;
	state->sweep_at = now + state->sweep_pause;
}

/* Have an empty segment; if that fails, whoever asks again waits for the next tick. */
static void
make_reserve(QueueState *state, QueueTime now)
{
	while (run_step("making a segment", state->view, step_reserve))
		CHECK_FOR_INTERRUPTS();
	if (state->reserves == 0 && !queue_maintain_is_unused(state))
		state->reserve_at = now + queue_worker_interval * INT64CONST(1000);
}

/* Empty what can be emptied, and note when to try the next one. */
static void
empty_segments(QueueState *state)
{
	while (run_step("emptying a segment", state->view, step_reclaim))
		CHECK_FOR_INTERRUPTS();
	state->reclaim_at = Max(queue_ring_reclaim_at(state, queue_clock_now()),
							queue_clock_now() + RECLAIM_PAUSE);
}

/* Move the rest of keys of which a message has died; *wake: when to go on. */
static void
move_rests(QueueState *state, QueueTime *wake)
{
	QueueTime	until = queue_clock_now() + REST_TIME;

	while (queue_rest_due(state) <= queue_clock_now() && queue_clock_now() < until)
	{
		queue_rest_put_off(state, REST_RETRY);
		run_step("moving the rest of a key", state->view, step_rest);
		CHECK_FOR_INTERRUPTS();
	}
	*wake = Min(*wake, queue_rest_due(state));
}

/* The slow part of a round: nobody waits for it. */
static void
tend_queue(QueueState *state, QueueTime now)
{
	bool		sealed;

	while (!queue_ring_is_surveyed(state) && queue_clock_now() < now + LEARNING_TIME &&
		   run_step("looking for priorities", state->view, step_survey))
		CHECK_FOR_INTERRUPTS();
	queue_place_close_buckets(state, queue_clock_wall());
	sealed = queue_ring_has_sealed(state);
	queue_maintain_sample(state);
	/* Should a wakeup ever be lost, it is made up for here. */
	queue_wakeup_pass_on(state, true);
	if (queue_ring_due(state) > now)
		state->saw_ready = false;
	else
		run_step("looking at due pages", state->view, step_look);
	while (!state->swept_all && queue_clock_now() < now + LEARNING_TIME &&
		   run_step("learning what is due", state->view, step_sweep))
		CHECK_FOR_INTERRUPTS();
	if (now >= state->recount_at && take_ask(state, QUEUE_ASK_RECOUNT) &&
		!run_step("counting messages", state->view, step_recount))
		queue_state_ask(state, QUEUE_ASK_RECOUNT);
	if (sealed)
		empty_segments(state);
	while (sealed && !queue_rest_is_moving(state) && queue_clock_now() < now + MOVING_TIME &&
		   run_step("moving messages", state->view, step_move))
		CHECK_FOR_INTERRUPTS();
	if (now >= state->sweep_at)
	{
		run_step("sweeping", state->view, step_sweep);
		plan_sweep(state, now);
	}
}

/* Everything one queue wants now. *wake: when it wants more. */
static void
serve_queue(QueueState *state, bool tick, QueueTime *wake)
{
	QueueTime	now = queue_clock_now();

	*wake = Min(*wake, watch_due(state, now));
	if (!OidIsValid(state->view))
		return;
	if (may_notify(state, now, wake) && take_ask(state, QUEUE_ASK_NOTIFY))
	{
		if (run_step("notifying", state->view, step_notify))
			state->saw_ready = true;
		else
			queue_state_ask(state, QUEUE_ASK_NOTIFY);
	}
	if (now >= state->reserve_at && take_ask(state, QUEUE_ASK_RESERVE))
		make_reserve(state, now);
	/* Disk is waited for by nobody, but a second is long where segments are small. */
	if (take_ask(state, QUEUE_ASK_RECLAIM) || now >= state->reclaim_at)
		empty_segments(state);
	move_rests(state, wake);
	if (tick)
		tend_queue(state, now);
	*wake = Min(*wake, state->reclaim_at);
}

/*
 * Vacuum what has become old: a walk over all queues whenever ids have gone
 * on, a piece of it in a round. What cannot be locked is left for the next walk.
 */
static void
vacuum_old(void)
{
	/* Where this process is in its walk. */
	static bool walks;
	static uint32 position;
	QueueTime	until = queue_clock_now() + VACUUM_TIME;
	uint32		next;
	QueueState *state;

	if (!walks)
	{
		if (!queue_age_ids_moved())
			return;
		walks = true;
		position = 0;
		vacuum_rank = 0;
	}
	next = position;
	while ((state = queue_state_next(MyDatabaseId, &next)) != NULL)
	{
		while (state->loaded && OidIsValid(state->view) &&
			   run_step("vacuuming a segment", state->view, step_vacuum))
		{
			CHECK_FOR_INTERRUPTS();
			if (queue_clock_now() >= until)
				return;
		}
		position = next;
		vacuum_rank = 0;
		CHECK_FOR_INTERRUPTS();
		if (queue_clock_now() >= until)
			return;
	}
	walks = false;
}

/* Queues nobody used since the start are found in the catalog. */
static bool
step_load_all(QueueDef *def)
{
	List	   *views = queue_catalog_views();
	ListCell   *cell;

	foreach(cell, views)
	{
		QueueDef   *found;

		CHECK_FOR_INTERRUPTS();
		if (!ConditionalLockRelationOid(lfirst_oid(cell), AccessShareLock))
			continue;
		found = queue_catalog_get(lfirst_oid(cell));
		if (found)
			queue_ring_load(found->state);
		UnlockRelationOid(lfirst_oid(cell), AccessShareLock);
	}
	return true;
}

/* Asked so that an error, which says nothing about it, does not end the worker. */
static bool
step_lacks_extension(QueueDef *def)
{
	return !queue_catalog_exists();
}

static void
leave(int code, Datum arg)
{
	if (asked_by)
		queue_state_ask(asked_by, asked);
	queue_wakeup_unregister_worker();
}

/* One round; returns when to begin the next one. */
static QueueTime
run_round(QueueTime *next_tick)
{
	static QueueTime dedup_at = 0;
	QueueTime	now = queue_clock_now();
	QueueTime	wake;
	bool		tick = now >= *next_tick;
	bool		failures = tick;	/* also ends leases that nobody looks at */
	uint32		position = 0;
	QueueState *state;

	if (tick && now >= dedup_at)
	{
		dedup_at = now + DEDUP_PAUSE;
		run_step("emptying tables of keys", InvalidOid, step_dedup);
		run_step("emptying the log of relays", InvalidOid, step_relay_log);
	}
	if (tick)
	{
		queue_clock_check_step();
		*next_tick = now + queue_worker_interval * INT64CONST(1000);
	}
	wake = *next_tick;
	while ((state = queue_state_next(MyDatabaseId, &position)) != NULL)
		failures |= take_ask(state, QUEUE_ASK_FAILURES);
	if (failures)
		for (int i = 0; i < FAILURE_STEPS && run_step("writing failures", InvalidOid, step_failures); i++)
			CHECK_FOR_INTERRUPTS();
	position = 0;
	while ((state = queue_state_next(MyDatabaseId, &position)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (state->loaded)
			serve_queue(state, tick, &wake);
	}
	if (tick)
	{
		run_step("looking after relays", InvalidOid, step_relays);
		vacuum_old();
	}
	return wake;
}

static void
sleep_until(QueueTime wake)
{
	static uint32 wait_event = 0;	/* named at first use */
	QueueTime	now = queue_clock_now();
	long		ms = wake <= now ? 0 : Min((wake - now) / 1000 + 1, 60000);

	if (wait_event == 0)
		wait_event = queue_wait_event_new("QueueWorkerMain");
	pgstat_report_activity(STATE_IDLE, NULL);
	pgstat_report_stat(false);
	if (ms > 0)
		WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, wait_event);
	ResetLatch(MyLatch);
}

void
queue_worker_main(Datum main_arg)
{
	Oid			database = DatumGetObjectId(main_arg);
	QueueTime	next_tick = 0;
	QueueTime	next_load = 0;
	bool		works = false;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	/* What came since the fork was ignored. */
	ConfigReloadPending = true;
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (queue_launcher_is_left(database))
		proc_exit(0);
	queue_launcher_pin_settings();
	/* What one queue waits for, all others wait for. */
	SetConfigOption("lock_timeout", QUEUE_LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	scratch = AllocSetContextCreate(TopMemoryContext, "queue worker", ALLOCSET_DEFAULT_SIZES);
	if (run_step("looking for the extension", InvalidOid, step_lacks_extension))
	{
		queue_launcher_worker_has_no_extension();
		proc_exit(0);
	}
	if (!queue_wakeup_register_worker())
		proc_exit(0);
	before_shmem_exit(leave, (Datum) 0);

	for (;;)
	{
		QueueTime	wake;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			/* A shorter interval begins at once. */
			next_tick = Min(next_tick, queue_clock_now() + queue_worker_interval * INT64CONST(1000));
		}
		if (queue_launcher_is_left(MyDatabaseId))
			proc_exit(0);
		queue_wakeup_take_call();
		if (queue_clock_now() >= next_tick &&
			run_step("looking for the extension", InvalidOid, step_lacks_extension))
		{
			queue_launcher_worker_has_no_extension();
			proc_exit(0);
		}
		/* Also those that a restore brought, which nobody has used yet. */
		if (queue_clock_now() >= next_load)
		{
			run_step("loading queues", InvalidOid, step_load_all);
			next_load = queue_clock_now() + LOAD_INTERVAL;
		}
		wake = run_round(&next_tick);
		if (!works)
			queue_launcher_worker_works();
		works = true;
		sleep_until(wake);
	}
}
