/*
 * relayworker.c
 *	  The process of the server that runs one relay: the runner in the server.
 *
 * Started by the worker of its database, ended by its relay's pause, drop or
 * change, by a command that needs the database to itself, and by SIGTERM: then it
 * takes nothing more, waits shortly for what is in flight, and settles. One whose
 * relay has changed begins anew in the same process.
 *
 * Never is a transaction open, a lock held or a snapshot there while the sink works or
 * the process sleeps. The sink's library is not PostgreSQL's: it is called outside
 * of transactions, its callbacks (the pump's) only note, and no error is raised
 * through its frames. Should it crash, the server restarts, as after any crash
 * of a backend; nothing is lost then, and sites that do not want that run the
 * program queue-relay.
 *
 * Its sockets are not the server's to count: some are announced at the start.
 */
#include "postgres.h"

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include <poll.h>

#include "catalog.h"
#include "compat.h"
#include "guc.h"
#include "launcher.h"
#include "library.h"
#include "relayworker.h"
#include "ring.h"
#include "text.h"
#include "transfer.h"
#include "wakeup.h"

/* Between two signs of life, us; less if the runner's time is short. */
#define RENEW_PAUSE INT64CONST(1000000)

/* How long a message that is done waits for others to be settled with it, ms. */
#define SETTLE_PAUSE 5

/* Messages settled in one transaction. */
#define SETTLE_BATCH 2000

/* After a step that failed, or a look at a queue that is paused; and between two looks at what a standby has, us. */
#define ERROR_PAUSE INT64CONST(1000000)
#define STANDBY_PAUSE INT64CONST(5000)

/* Pauses of one that finds something due and nothing to take, us. */
#define FIRST_PAUSE 1000
#define LONGEST_PAUSE 50000

/* When the database is to be left at once, a drain lasts no longer than this, us. */
#define SHORT_DRAIN INT64CONST(500000)

/* A trial of a destination ends after this long, us. */
#define TEST_TIME INT64CONST(10000000)

/* Descriptors that a sink may need at the same time. */
#define DESCRIPTORS 16

typedef struct Session
{
	QueueRelay *relay;			/* as it was at the beginning */
	QueueState *state;
	int64		epoch;			/* 0: it has none */
	int64		version;
	QueuePump	   *pump;
	QueueTransferState result;	/* of the last renewal */
	bool		disabled;

	QueueTime	renew_at;
	QueueTime	extend_at;		/* leases */
	QueueTime	valid_until;	/* as the runner */
	QueueTime	take_at;		/* not before */
	int64		pause;			/* after takes in vain */
	QueueTime	drain_until;	/* 0: it goes on */
	QueueTime	look_at;		/* for what standbys have */

	QueuePumpCounts	told;			/* of what is counted in shared memory */
	uint64		errors_told;
} Session;

/* What is done in the transaction at hand, and on whose behalf. */
static Session *session;

/* Of the relay, from the start of the process; 0: no trial. */
static int32 relay_id;
static uint32 test_number;

/* Reset with each session; and with each step. */
static MemoryContext session_context;
static MemoryContext scratch;

/* ---- steps ---- */

typedef void (*Step) (void);

/* The error that is being handled, for queue.relays. */
static void
tell_error(void)
{
	MemoryContext old = MemoryContextSwitchTo(scratch);
	ErrorData  *error = CopyErrorData();

	queue_runner_tell_error(relay_id, error->message ? error->message : "unknown error");
	FreeErrorData(error);
	MemoryContextSwitchTo(old);
}

/* Run one step in a transaction of its own. False: it failed, and was rolled back. */
static bool
run_step(const char *what, Step step)
{
	volatile bool good = true;

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		pgstat_report_activity(STATE_RUNNING, what);
		MemoryContextSwitchTo(scratch);
		step();
		if (ActiveSnapshotSet())
			PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(scratch);
		tell_error();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		good = false;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	pgstat_report_activity(STATE_IDLE, NULL);
	pgstat_report_stat(false);
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(scratch);
	return good;
}

static QueueSinkConfig sink_config;
static const QueueSink *sink;

/* What the sink is opened with, in the session's memory. */
static void
read_sink(QueueRelay *relay)
{
	sink = queue_library_load(queue_library_of_server(relay->server));
	sink_config.settings = queue_library_settings(relay->server, relay->owner, &sink_config.setting_count);
	sink_config.flags = queue_library_is_trusted(relay->server, relay->owner) ? QUEUE_SINK_TRUSTED : 0;
	sink_config.relay = relay->name;
	sink_config.max_in_flight = relay->pump.max_in_flight;
	sink_config.timeout = relay->pump.timeout;
}

/* As it is now; NULL: there is none any more. */
static QueueRelay *
read_relay(void)
{
	QueueRelay *relay = queue_catalog_exists() ? queue_relay_get_by_id(relay_id) : NULL;

	if (relay)
		queue_relay_read_options(relay);
	return relay;
}

/* The session's relay stays NULL if there is nothing to run. */
static void
step_begin(void)
{
	MemoryContext old = MemoryContextSwitchTo(session_context);
	QueueRelay *relay = read_relay();
	char		name[QUEUE_RUNNER_NAME];
	QueueTime	began = queue_clock_now();

	if (relay && relay->here && !relay->paused && relay->in_server)
	{
		snprintf(name, sizeof(name), "server, pid %d", MyProcPid);
		session->epoch = queue_transfer_begin(relay, name, true);
		session->relay = relay;
		session->state = queue_catalog_get_unlocked(relay->view)->state;
		session->version = queue_relay_version(relay);
		session->valid_until = began + relay->lease;
		read_sink(relay);
	}
	MemoryContextSwitchTo(old);
}

/* Taken in the transaction at hand, in order; and how many were leased for it. */
static QueuePumpMessage *taken;
static QueuePumpMessage *last_taken;
static int	taken_count;

static void
receive(void *context, const QueueTransfer *transfer)
{
	const QueueEnvelope *envelope = transfer->envelope;
	QueueSinkMessage message = {
		.id = envelope->id,
		.key = envelope->key,
		.target = envelope->target,
		.content_type = envelope->content_type,
		.body = envelope->body,
		.body_length = envelope->body_length,
		.headers = (const QueueSinkHeader *) envelope->headers,
		.header_count = envelope->header_count,
		.attempt = transfer->attempt,
		.epoch = session->epoch
	};
	QueuePumpMessage *copy = queue_pump_message_new(&message, (const unsigned char *) &transfer->receipt, transfer->lane);

	if (copy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("A relay could not copy a message of %d bytes.", envelope->body_length)));
	StaticAssertStmt(sizeof(QueueEnvelopeHeader) == sizeof(QueueSinkHeader), "headers are handed over as they are");
	copy->number = transfer->message;
	copy->gate = transfer->gate;
	if (last_taken)
		last_taken->next = copy;
	else
		taken = copy;
	last_taken = copy;
}

static void
step_take(void)
{
	QueueRelay *relay = read_relay();

	taken_count = QUEUE_TRANSFER_RENEW;
	if (relay && relay->in_server)
		taken_count = queue_transfer_take(relay, session->epoch, queue_pump_room(session->pump), receive, NULL);
}

/* Done, and to be settled in the transaction at hand. */
static QueuePumpMessage *settling[SETTLE_BATCH];
static int	settling_count;

static void
step_settle(void)
{
	QueueTransferEnd *ends = palloc(sizeof(QueueTransferEnd) * settling_count);

	for (int i = 0; i < settling_count; i++)
	{
		QueuePumpMessage *message = settling[i];

		memcpy(&ends[i].receipt, message->receipt, sizeof(pg_uuid_t));
		ends[i].verdict = message->verdict;
		ends[i].pause = message->pause;
		ends[i].detail = message->detail;
		ends[i].event = message->sink.id;
		ends[i].target = message->sink.target;
		ends[i].message = message->number;
		ends[i].attempt = message->sink.attempt;
	}
	queue_transfer_settle(session->relay, ends, settling_count);
}

/* ---- renewing ---- */

static void
fill_status(QueueRunnerStatus *status)
{
	QueuePumpCounts	counts = queue_pump_counts(session->pump);

	memset(status, 0, sizeof(*status));
	status->counts[QUEUE_RUNNER_DELIVERED] = counts.delivered - session->told.delivered;
	status->counts[QUEUE_RUNNER_FAILED] = counts.failed - session->told.failed;
	status->counts[QUEUE_RUNNER_AMBIGUOUS] = counts.ambiguous - session->told.ambiguous;
	status->counts[QUEUE_RUNNER_THROTTLED] = counts.throttled - session->told.throttled;
	status->counts[QUEUE_RUNNER_REJECTED] = counts.rejected - session->told.rejected;
	status->in_flight = queue_pump_in_flight(session->pump);
	status->held = queue_pump_held_count(session->pump);
	status->breaker = queue_pump_breaker(session->pump);
	if (status->breaker == QUEUE_PUMP_OPEN)
		status->breaker_for = Max(queue_pump_breaker_until(session->pump) * 1000 - queue_clock_now(), 0);
	if (queue_pump_errors(session->pump) != session->errors_told)
		status->error = queue_text_of_sink(queue_pump_last_error(session->pump));
}

static void
step_renew(void)
{
	QueueRelay *relay = read_relay();
	QueueRunnerStatus status;
	const unsigned char **receipts = NULL;
	int			n = 0;
	QueueTime	began = queue_clock_now();

	if (relay == NULL)
	{
		session->result = QUEUE_TRANSFER_PAUSED;
		return;
	}
	if (began >= session->extend_at)
	{
		receipts = palloc(sizeof(*receipts) * (queue_pump_held_count(session->pump) + 1));
		n = queue_pump_held(session->pump, receipts, queue_pump_held_count(session->pump));
		session->extend_at = began + relay->lease / 3;
	}
	fill_status(&status);
	session->result = queue_transfer_renew(relay, session->epoch, session->version,
										   (const pg_uuid_t *const *) receipts, n, &status);
	session->told = queue_pump_counts(session->pump);
	session->errors_told = queue_pump_errors(session->pump);
	if (session->result != QUEUE_TRANSFER_LOST)
		session->valid_until = began + relay->lease;
	if (session->result == QUEUE_TRANSFER_RUN && !relay->in_server)
		session->result = QUEUE_TRANSFER_PAUSED;
}

static void
renew(void)
{
	session->renew_at = queue_clock_now() + Min(RENEW_PAUSE, session->relay->lease / 3);
	if (!run_step("renewing", step_renew) && queue_clock_now() >= session->valid_until)
		session->result = QUEUE_TRANSFER_LOST;
}

/* ---- taking and settling ---- */

static bool
is_full_enough(void)
{
	int			most = session->relay->pump.max_in_flight;
	int			room = queue_pump_room(session->pump);

	return room == 0 || (room < Max(most / 2, 1) && queue_pump_held_count(session->pump) > queue_pump_in_flight(session->pump));
}

static bool
wants_messages(void)
{
	return session->drain_until == 0 && !is_full_enough();
}

/* The pump gets what a transaction has leased, if it has committed. */
static void
add_taken(bool committed)
{
	while (taken)
	{
		QueuePumpMessage *message = taken;

		taken = message->next;
		message->next = NULL;
		if (committed)
			queue_pump_add(session->pump, message);
		else
			queue_pump_message_free(message);
	}
	last_taken = NULL;
}

static void
take_messages(void)
{
	bool		good;

	taken_count = 0;
	good = run_step("taking messages", step_take);
	add_taken(good);
	if (good && taken_count > 0)
	{
		session->pause = 0;
		return;
	}
	if (good)
		session->pause = session->pause ? Min(session->pause * 2, LONGEST_PAUSE) : FIRST_PAUSE;
	session->take_at = queue_clock_now() +
		(good && taken_count != QUEUE_TRANSFER_QUEUE_PAUSED ? session->pause : ERROR_PAUSE);
	if (taken_count == QUEUE_TRANSFER_RENEW)
		session->renew_at = 0;
	/* What we were told of, and have not taken, is for others. */
	queue_wakeup_pass_on(session->state, false);
}

/* One by one: an error is the trouble of its message alone, whose lease runs out. */
static void
settle_each(int n)
{
	QueuePumpMessage *messages[SETTLE_BATCH];

	memcpy(messages, settling, sizeof(QueuePumpMessage *) * n);
	settling_count = 1;
	for (int i = 0; i < n; i++)
	{
		settling[0] = messages[i];
		(void) run_step("settling", step_settle);
	}
	memcpy(settling, messages, sizeof(QueuePumpMessage *) * n);
}

/* In an ordered queue what comes next may have waited for this. */
static void
settle_messages(void)
{
	QueuePumpMessage *message;
	int			n;

	do
	{
		settling_count = 0;
		while (settling_count < SETTLE_BATCH && (message = queue_pump_take_done(session->pump)) != NULL)
			settling[settling_count++] = message;
		n = settling_count;
		if (n > 0 && !run_step("settling", step_settle) && n > 1)
			settle_each(n);
		for (int i = 0; i < n; i++)
			queue_pump_message_free(settling[i]);
	} while (n == SETTLE_BATCH);
	if (session->take_at < queue_clock_now() + LONGEST_PAUSE)
		session->take_at = session->pause = 0;
}

/*
 * ms until what is done is to be settled; -1: nothing is. A settlement costs a
 * flush: it waits a moment for others as long as there is more to do. In an
 * ordered queue it waits for less, since what is done holds its keys.
 */
static int64
settle_in(void)
{
	QueuePump  *pump = session->pump;

	if (queue_pump_done_count(pump) == 0)
		return -1;
	if (session->relay->ordered
		? queue_pump_in_flight(pump) == 0 || queue_pump_done_count(pump) >= Max(session->relay->pump.max_in_flight / 2, 1)
		: queue_pump_held_count(pump) == 0 || queue_pump_done_count(pump) >= SETTLE_BATCH)
		return 0;
	return Max(queue_pump_done_since(pump) + SETTLE_PAUSE - queue_clock_now() / 1000, 0);
}

/* ---- sleeping ---- */

static void
sooner(long *ms, QueueTime time)
{
	QueueTime	now = queue_clock_now();

	*ms = Min(*ms, time <= now ? 0 : (time - now) / 1000 + 1);
}

static long
longest_sleep(int timeout)
{
	long		ms = timeout < 0 ? 60000 : timeout;

	sooner(&ms, session->renew_at);
	if (settle_in() >= 0)
		ms = Min(ms, settle_in());
	if (session->drain_until)
		sooner(&ms, session->drain_until);
	if (queue_pump_waits_for_gate(session->pump))
		sooner(&ms, session->look_at);
	return ms;
}

static uint32
wait_on(int descriptor, short events, long ms)
{
	static uint32 wait_event = 0;	/* named at first use */
	int			wakers = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;
	uint32		woken;

	if (wait_event == 0)
		wait_event = queue_wait_event_new("QueueRelayMain");
	if (descriptor >= 0 && (events & POLLIN))
		wakers |= WL_SOCKET_READABLE;
	if (descriptor >= 0 && (events & POLLOUT))
		wakers |= WL_SOCKET_WRITEABLE;
	if (descriptor >= 0 && (wakers & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE)))
		woken = WaitLatchOrSocket(MyLatch, wakers, descriptor, ms, wait_event);
	else
		woken = WaitLatch(MyLatch, wakers, ms, wait_event);
	ResetLatch(MyLatch);
	return woken;
}

/* Until the sink, the queue or the time wants something. */
static void
sleep_a_while(void)
{
	int			descriptor;
	short		events;
	int			timeout;
	long		ms;
	bool		listens = wants_messages();

	queue_pump_wait_for(session->pump, queue_clock_now() / 1000, &descriptor, &events, &timeout);
	ms = longest_sleep(timeout);
	if (ms <= 0 && descriptor < 0)
		return;
	if (listens && !queue_wakeup_fall_asleep(session->state, session->take_at, &ms))
		return;
	wait_on(descriptor, events, ms);
	if (listens)
	{
		queue_wakeup_woken();
		if (queue_ring_due(session->state) > queue_clock_now())
			queue_wakeup_pass_on(session->state, false);
	}
}

/* ---- the loop ---- */

static void
look_at_standbys(void)
{
	if (!queue_pump_waits_for_gate(session->pump) || queue_clock_now() < session->look_at)
		return;
	session->look_at = queue_clock_now() + STANDBY_PAUSE;
	queue_pump_open_gate(session->pump, queue_transfer_standby());
}

/* Take nothing more, and end when what is in flight is back, or this long (us) has passed. */
static void
begin_to_end(int64 time)
{
	QueueTime	until = queue_clock_now() + time;

	if (session->drain_until == 0)
	{
		queue_pump_stop(session->pump);
		/* What we were told of, and will not take. */
		queue_wakeup_pass_on(session->state, true);
	}
	if (session->drain_until == 0 || until < session->drain_until)
		session->drain_until = until;
}

static void
step_disable(void)
{
	QueueRelay *relay = queue_relay_get_by_id(relay_id);

	/* What has changed meanwhile may be what it wanted. */
	if (relay && queue_relay_version(relay) == session->version)
		queue_relay_set_pause(relay_id, true, queue_text_of_sink(queue_pump_last_error(session->pump)));
}

/* Whether to end, and how soon. */
static void
look_for_end(void)
{
	int64		drain = queue_relay_drain_timeout * INT64CONST(1000);

	if (queue_clock_now() >= session->valid_until)
		session->result = QUEUE_TRANSFER_LOST;
	if (session->result == QUEUE_TRANSFER_LOST)
		begin_to_end(0);
	else if (session->result != QUEUE_TRANSFER_RUN || ShutdownRequestPending)
		begin_to_end(drain);
	else if (queue_pump_is_disabled(session->pump) && !session->disabled)
	{
		session->disabled = true;
		begin_to_end(drain);
	}
	if (queue_launcher_is_left(MyDatabaseId))
		begin_to_end(Min(drain, SHORT_DRAIN));
}

static bool
is_at_end(void)
{
	if (session->drain_until == 0)
		return false;
	if (queue_pump_in_flight(session->pump) > 0 && queue_clock_now() < session->drain_until)
		return false;
	queue_pump_cancel(session->pump);
	return true;
}

static void
run(void)
{
	while (!is_at_end())
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (queue_clock_now() >= session->renew_at)
			renew();
		look_for_end();
		if (session->relay->ordered && settle_in() == 0)
			settle_messages();
		/* Before the settlement of others, which then can wait for what this brings. */
		if (wants_messages() && queue_clock_now() >= session->take_at &&
			queue_ring_due(session->state) <= queue_clock_now())
			take_messages();
		if (settle_in() == 0)
			settle_messages();
		look_at_standbys();
		/* A step may have taken longer than the time we have. */
		if (queue_clock_now() >= session->valid_until)
			continue;
		queue_pump_run(session->pump, queue_clock_now() / 1000);
		if (settle_in() != 0 || session->drain_until)
			sleep_a_while();
	}
	settle_messages();
}

static void
log_line(void *context, QueueSinkLevel level, const char *line)
{
	char	   *text;

	/* The sink calls: nothing may be raised through its frames. */
	if (level == QUEUE_SINK_DEBUG && !message_level_is_interesting(DEBUG1))
		return;
	HOLD_INTERRUPTS();
	text = queue_text_of_sink(line);
	ereport(level == QUEUE_SINK_DEBUG ? DEBUG1 : LOG,
			(errmsg("relay \"%s\": %s", session->relay->name, text)));
	pfree(text);
	RESUME_INTERRUPTS();
}

static bool
open_pump(void)
{
	char		error[QUEUE_RUNNER_TEXT] = "";

	session->pump = queue_pump_new(sink, &session->relay->pump, &sink_config, log_line, NULL, error, sizeof(error));
	if (session->pump)
		return true;
	ereport(LOG,
			(errmsg("relay \"%s\" could not begin: %s", session->relay->name, queue_text_of_sink(error))));
	queue_runner_tell_error(relay_id, queue_text_of_sink(error));
	return false;
}

/* From becoming the runner to giving that up. Returns whether to begin anew at once. */
static bool
run_session(void)
{
	Session		here = {.result = QUEUE_TRANSFER_RUN};
	bool		again = false;

	session = &here;
	MemoryContextReset(session_context);
	if (run_step("beginning", step_begin) && here.relay && open_pump())
	{
		run();
		if (here.result != QUEUE_TRANSFER_LOST)
			renew();
		if (here.disabled)
			(void) run_step("pausing", step_disable);
		queue_pump_free(here.pump);
		again = here.result == QUEUE_TRANSFER_CHANGED && !ShutdownRequestPending;
	}
	if (here.epoch)
		queue_runner_end(relay_id, here.epoch);
	session = NULL;
	return again;
}

/* Also a process that is ended otherwise gives its relay back. */
static void
leave(int code, Datum arg)
{
	queue_wakeup_abort();
	if (session && session->epoch)
		queue_runner_end(relay_id, session->epoch);
}

/* ---- trials ---- */

static void
step_begin_test(void)
{
	MemoryContext old = MemoryContextSwitchTo(session_context);
	QueueRelay *relay = read_relay();

	if (relay == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the relay does not exist, or its creation has not committed")));
	if (!OidIsValid(relay->server))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" of relay \"%s\" does not exist", relay->server_name, relay->name)));
	session->relay = relay;
	read_sink(relay);
	MemoryContextSwitchTo(old);
}

static void
run_probe(QueuePump *pump)
{
	QueueTime	until = queue_clock_now() + TEST_TIME;
	QueueSinkOutcome outcome;
	const char *detail;

	queue_pump_probe(pump);
	while (!queue_pump_probed(pump, &outcome, &detail))
	{
		int			descriptor;
		short		events;
		int			timeout;

		CHECK_FOR_INTERRUPTS();
		if (ShutdownRequestPending || queue_launcher_is_left(MyDatabaseId) || queue_clock_now() >= until)
		{
			queue_runner_tell_test(relay_id, test_number, false, "there was no answer");
			return;
		}
		queue_pump_run(pump, queue_clock_now() / 1000);
		if (queue_pump_probed(pump, &outcome, &detail))
			break;
		queue_pump_wait_for(pump, queue_clock_now() / 1000, &descriptor, &events, &timeout);
		wait_on(descriptor, events, timeout < 0 ? 100 : Min(timeout, 100));
	}
	queue_runner_tell_test(relay_id, test_number, outcome == QUEUE_SINK_DELIVERED, queue_text_of_sink(detail));
}

static void
run_test(void)
{
	Session		here = {.result = QUEUE_TRANSFER_RUN};
	QueueRunner runner;

	session = &here;
	if (!run_step("beginning a trial", step_begin_test) || !open_pump())
	{
		(void) queue_runner_get(relay_id, &runner);
		queue_runner_tell_test(relay_id, test_number, false, runner.error);
	}
	else
	{
		run_probe(here.pump);
		queue_pump_free(here.pump);
	}
	session = NULL;
}

/* ---- the process ---- */

void
queue_relayworker_main(Datum main_arg)
{
	Oid			database = DatumGetObjectId(main_arg);

	memcpy(&relay_id, MyBgworkerEntry->bgw_extra, sizeof(relay_id));
	memcpy(&test_number, MyBgworkerEntry->bgw_extra + sizeof(relay_id), sizeof(test_number));
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	/* What came since the fork was ignored. */
	ConfigReloadPending = true;
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	if (queue_launcher_is_left(database))
		proc_exit(0);
	queue_launcher_pin_settings();
	SetConfigOption("lock_timeout", QUEUE_LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	/* To wait for a standby is not to be interrupted, and an ack that is lost is a message delivered twice. */
	SetConfigOption("synchronous_commit", "local", PGC_SUSET, PGC_S_OVERRIDE);
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	session_context = AllocSetContextCreate(TopMemoryContext, "queue relay", ALLOCSET_DEFAULT_SIZES);
	scratch = AllocSetContextCreate(TopMemoryContext, "queue relay step", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < DESCRIPTORS; i++)
		if (!AcquireExternalFD())
			ereport(FATAL,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("too few file descriptors for a relay"),
					 errhint("Raise \"max_files_per_process\", or the limit of the operating system.")));
	before_shmem_exit(leave, (Datum) 0);
	if (test_number)
		run_test();
	else
		while (run_session())
			CHECK_FOR_INTERRUPTS();
	proc_exit(0);
}

/* Start a process for a relay of this database; with a number for a trial only. False: there is none to be had. */
bool
queue_relayworker_start(int32 relay, uint32 test)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId)
	};

	memcpy(worker.bgw_extra, &relay, sizeof(relay));
	memcpy(worker.bgw_extra + sizeof(relay), &test, sizeof(test));
	strcpy(worker.bgw_name, "queue relay");
	strcpy(worker.bgw_type, "queue relay");
	strcpy(worker.bgw_library_name, "queue");
	strcpy(worker.bgw_function_name, "queue_relayworker_main");
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

/* Have a worker for each relay of this database that is to run in the server. */
void
queue_relayworker_supervise(void)
{
	static bool told = false;	/* that there are too few processes */
	List	   *relays = queue_relay_list();
	bool		lacking = false;
	ListCell   *cell;

	foreach(cell, relays)
	{
		QueueRelay *relay = lfirst(cell);

		if (relay->here && !relay->paused && relay->in_server && queue_runner_may_start(relay->id))
			lacking |= !queue_relayworker_start(relay->id, 0);
	}
	if (lacking && !told)
		ereport(LOG,
				(errmsg("queue could not start a worker for every relay"),
				 errhint("Raise \"max_worker_processes\".")));
	told = lacking;
}
