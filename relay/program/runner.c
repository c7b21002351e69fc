/*
 * runner.c
 *	  The process that runs one relay.
 *
 *	 connect -> look -> begin -> run -> end, and again
 *
 * What makes an attempt vain is logged once, until it is something else. A
 * session that has lost its connection, or its relay, forgets what it holds:
 * its sink is made to complete everything before the next session takes, so
 * the order of keys stays.
 *
 * SIGTERM ends it when what is in flight is back, or the time for that is over;
 * a second one at once. It is let in while the process sleeps, and while it
 * connects, when nothing is held and it can simply exit.
 *
 * The epoch is kept where the process that supervises keeps it, so that the next
 * process can give it back for one that died: else it would have to wait until
 * that one's time is over.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "library.h"
#include "log.h"
#include "runner.h"
#include "session.h"

/* For each statement while there is nothing to lose, us. */
#define STATEMENT_TIME (10 * SECOND)

/* Between two attempts: to connect, to become the runner; and between two looks at what is in the way, us. */
#define SHORTEST_RECONNECT (SECOND / 10)
#define SHORTEST_PAUSE SECOND
#define LONGEST_PAUSE (10 * SECOND)
#define LOOK_PAUSE SECOND

/* A trial of a destination ends after this long, us. */
#define TEST_TIME (10 * SECOND)

typedef struct Runner
{
	const RunnerOptions *options;
	const char *relay;
	volatile	int64_t *epoch; /* 0: there is none to give back */
	Database	database;
	sigset_t	sleep_mask;
	char		label[128];		/* what it is called in the server */
	int64_t		pause;			/* after the last attempt */
	char		told[512];		/* what was logged of attempts */
} Runner;

/* Requests to end; and whether one may be followed in the handler. */
static volatile sig_atomic_t stop_requests;
static volatile sig_atomic_t may_exit;

/* ---- signals ---- */

static void
request_stop(int signal)
{
	(void) signal;
	if (may_exit)
		_exit(0);
	stop_requests++;
}

static void
set_signals(Runner *runner)
{
	struct sigaction action = {.sa_handler = request_stop};
	sigset_t	blocked;

	sigfillset(&action.sa_mask);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
	sigemptyset(&runner->sleep_mask);
}

/* A process that never sleeps long sees the signal here. */
static int
count_stops(void)
{
	sigset_t	pending;
	struct timespec none = {0};

	sigemptyset(&pending);
	sigaddset(&pending, SIGTERM);
	if (sigtimedwait(&pending, NULL, &none) == SIGTERM)
		stop_requests++;
	return stop_requests;
}

static void
sleep_for(const Runner *runner, int64_t time)
{
	int64_t		until = clock_now() + time;

	while (count_stops() == 0 && time > 0)
	{
		struct timespec left = {.tv_sec = time / SECOND,.tv_nsec = time % SECOND * 1000};

		(void) ppoll(NULL, 0, &left, &runner->sleep_mask);
		time = until - clock_now();
	}
}

/* ---- attempts ---- */

/* The same again is not worth a line. */
static void
tell(Runner *runner, LogLevel level, const char *what, const char *why)
{
	char		line[sizeof(runner->told)];

	snprintf(line, sizeof(line), "%s: %s", what, why);
	if (strcmp(line, runner->told) == 0)
		return;
	memcpy(runner->told, line, sizeof(line));
	log_write(level, "%s", line);
}

/* An attempt was in vain: returns how long to wait before the next one. */
static int64_t
next_pause(Runner *runner, int64_t shortest)
{
	runner->pause = runner->pause < shortest ? shortest : runner->pause * 2;
	if (runner->pause > LONGEST_PAUSE)
		runner->pause = LONGEST_PAUSE;
	return runner->pause;
}

static bool
connect_database(Runner *runner)
{
	char		application[64];
	sigset_t	blocked;
	bool		good;

	if (runner->database.connection)
		return true;
	snprintf(application, sizeof(application), "queue-relay %s", runner->relay);
	may_exit = 1;
	sigprocmask(SIG_SETMASK, &runner->sleep_mask, &blocked);
	good = database_connect(&runner->database, runner->options->conninfo, application);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
	may_exit = 0;
	if (!good)
		tell(runner, LOG_WARNING, "could not connect", runner->database.error);
	return good;
}

/* What the session before, or the process before this one, could not end; all it held is forgotten. */
static void
end_old_epoch(Runner *runner)
{
	int64_t		epoch = *runner->epoch;

	if (epoch && (calls_end(&runner->database, runner->relay, epoch, NULL, clock_now() + STATEMENT_TIME) ||
				  runner->database.connection))
		*runner->epoch = 0;
}

static bool
is_free(Runner *runner)
{
	char		obstacle[256];

	if (calls_look(&runner->database, runner->relay, clock_now() + STATEMENT_TIME, obstacle, sizeof(obstacle)))
		return true;
	if (obstacle[0])
		tell(runner, LOG_INFO, "waits", obstacle);
	else
		tell(runner, LOG_WARNING, "could not look at the relay", runner->database.error);
	return false;
}

static bool
begin(Runner *runner, Session *session)
{
	int64_t		began = clock_now();

	if (!calls_begin(&runner->database, runner->relay, runner->label, began + STATEMENT_TIME, &session->relay))
	{
		tell(runner, LOG_WARNING, "could not become the runner", runner->database.error);
		/* A standby now, or of another version: there may be a better one. */
		if (strcmp(runner->database.sqlstate, "25006") == 0 || strcmp(runner->database.sqlstate, "0A000") == 0)
			database_close(&runner->database);
		return false;
	}
	*runner->epoch = session->relay.epoch;
	session->valid_until = began + session->relay.lease;
	return true;
}

/* ---- a session ---- */

static void
log_line(void *context, QueueSinkLevel level, const char *line)
{
	(void) context;
	log_write(level == QUEUE_SINK_DEBUG ? LOG_DEBUG : level == QUEUE_SINK_INFO ? LOG_INFO : LOG_WARNING, "%s", line);
}

static bool
open_pump(Runner *runner, Session *session, char *error, size_t size)
{
	const CallsRelay *relay = &session->relay;
	const		QueueSink *sink = library_load(runner->options->sink_path, relay->library, error, size);
	QueueSinkConfig config = {
		.settings = relay->settings,
		.setting_count = relay->setting_count,
		.flags = relay->trusted ? QUEUE_SINK_TRUSTED : 0,
		.relay = runner->relay,
		.max_in_flight = relay->pump.max_in_flight,
		.timeout = relay->pump.timeout
	};

	if (sink)
		session->pump = queue_pump_new(sink, &relay->pump, &config, log_line, NULL, error, size);
	return session->pump != NULL;
}

/* Whether to end, and how soon. */
static void
look_for_end(Runner *runner, Session *session)
{
	int64_t		drain = runner->options->drain_time;
	int			stops = count_stops();

	if (session->result == CALLS_LOST || stops > 1)
		session_drain(session, 0);
	else if (session->result != CALLS_RUN || stops > 0)
		session_drain(session, drain);
	else if (queue_pump_is_disabled(session->pump) && !session->disabled)
	{
		session->disabled = true;
		session_drain(session, drain);
	}
}

static bool
is_at_end(Session *session)
{
	if (session->drain_until == 0)
		return false;
	if (queue_pump_in_flight(session->pump) > 0 && clock_now() < session->drain_until)
		return false;
	queue_pump_cancel(session->pump);
	return true;
}

static void
run(Runner *runner, Session *session)
{
	while (!is_at_end(session))
	{
		if (session_wants_renewal(session))
			session_renew(session, NULL);
		look_for_end(runner, session);
		if (session->relay.pump.ordered && session_settle_in(session) == 0)
			session_settle(session);
		/* Before the settlement of others, which then can wait for what this brings. */
		if (session_wants_messages(session) && session->due && clock_now() >= session->take_at)
			session_take(session);
		if (session_settle_in(session) == 0)
			session_settle(session);
		session_run_pump(session);
		if (waiter_run(session->waiter, session_listens(session)))
			session->due = true;
		if (session_settle_in(session) != 0 || session->drain_until)
			session_sleep(session);
	}
	if (runner->database.connection)
		session_settle(session);
}

/* While there is a connection; else the next one does it. */
static void
end(Runner *runner, Session *session, const char *reason)
{
	int			pid = waiter_pid(session->waiter);

	if (pid && runner->database.connection)
		calls_cancel(&runner->database, pid, clock_now() + STATEMENT_TIME);
	waiter_free(session->waiter);
	if (runner->database.connection &&
		calls_end(&runner->database, runner->relay, session->relay.epoch, reason, clock_now() + STATEMENT_TIME))
		*runner->epoch = 0;
	if (session->pump)
		queue_pump_free(session->pump);
	session->pump = NULL;
	calls_free_relay(&session->relay);
}

/* Returns the time to the next attempt. */
static int64_t
fail_to_open(Runner *runner, Session *session, const char *error)
{
	tell(runner, LOG_WARNING, "could not begin", error);
	session_renew(session, error);
	end(runner, session, NULL);
	return next_pause(runner, SHORTEST_PAUSE);
}

static int64_t
run_session(Runner *runner, Session *session)
{
	char		error[512] = "";

	if (!open_pump(runner, session, error, sizeof(error)))
		return fail_to_open(runner, session, error);
	log_write(LOG_INFO, "runs, with the library \"%s\", as epoch %lld", session->relay.library,
			  (long long) session->relay.epoch);
	runner->told[0] = '\0';
	runner->pause = 0;
	session->waiter = waiter_new(&runner->database, session->relay.queue);
	session->due = true;
	run(runner, session);
	if (session->result != CALLS_LOST)
		session_renew(session, NULL);
	log_write(LOG_INFO, "%s, after %lld deliveries",
			  session->result == CALLS_LOST ? "has lost the relay" : session->disabled ? "pauses the relay" :
			  session->result == CALLS_CHANGED ? "begins anew" : "ends",
			  (long long) queue_pump_counts(session->pump).delivered);
	end(runner, session, session->disabled ? queue_pump_last_error(session->pump) : NULL);
	return 0;
}

/* One attempt, and what follows from it. Returns the time to the next one. */
static int64_t
attempt(Runner *runner)
{
	Session		session = {.name = runner->relay,.database = &runner->database,.sleep_mask = &runner->sleep_mask};

	runner->database.wait = session_wait;
	runner->database.context = &session;
	if (!connect_database(runner))
		return next_pause(runner, SHORTEST_RECONNECT);
	end_old_epoch(runner);
	if (!is_free(runner))
		return LOOK_PAUSE;
	if (!begin(runner, &session))
		return next_pause(runner, SHORTEST_PAUSE);
	return run_session(runner, &session);
}

static void
set_up(Runner *runner, const RunnerOptions *options, const char *relay, volatile int64_t * epoch)
{
	char		host[64] = "";

	memset(runner, 0, sizeof(*runner));
	runner->options = options;
	runner->relay = relay;
	runner->epoch = epoch;
	gethostname(host, sizeof(host) - 1);
	snprintf(runner->label, sizeof(runner->label), "queue-relay, pid %d, %s", (int) getpid(), host);
	log_set_relay(relay);
	set_signals(runner);
}

/* Returns the status to exit with. */
int
runner_main(const RunnerOptions *options, const char *relay, volatile int64_t * epoch)
{
	Runner		runner;

	set_up(&runner, options, relay, epoch);
	while (count_stops() == 0)
		sleep_for(&runner, attempt(&runner));
	database_close(&runner.database);
	return 0;
}

/* ---- trials ---- */

static bool
probe(Runner *runner, Session *session, char *answer, size_t size)
{
	int64_t		until = clock_now() + TEST_TIME;
	QueueSinkOutcome outcome = QUEUE_SINK_RETRY;
	const char *detail = "there was no answer";

	queue_pump_probe(session->pump);
	while (!queue_pump_probed(session->pump, &outcome, &detail))
	{
		int64_t		next = clock_now() + SECOND / 10;

		if (clock_now() >= until || count_stops() > 0)
		{
			snprintf(answer, size, "there was no answer");
			return false;
		}
		queue_pump_run(session->pump, clock_now() / 1000);
		if (!queue_pump_probed(session->pump, &outcome, &detail))
			session_wait(session, -1, 0, next);
	}
	(void) runner;
	snprintf(answer, size, "%s", detail);
	return outcome == QUEUE_SINK_DELIVERED;
}

/* Becomes the runner for a moment, and tries the destination. Returns the status to exit with. */
int
runner_test(const RunnerOptions *options, const char *relay)
{
	volatile	int64_t epoch = 0;
	Runner		runner;
	Session		session = {.name = relay};
	char		answer[1024] = "";
	bool		good = false;

	set_up(&runner, options, relay, &epoch);
	session.database = &runner.database;
	session.sleep_mask = &runner.sleep_mask;
	runner.database.wait = session_wait;
	runner.database.context = &session;
	if (!connect_database(&runner) || !begin(&runner, &session))
		snprintf(answer, sizeof(answer), "%s", runner.database.error);
	else
	{
		good = open_pump(&runner, &session, answer, sizeof(answer)) &&
			probe(&runner, &session, answer, sizeof(answer));
		end(&runner, &session, NULL);
	}
	database_close(&runner.database);
	printf("%s: %s: %s\n", relay, good ? "ok" : "failed", answer);
	return good ? 0 : 1;
}
