/*
 * runner.c
 *	  Who runs which relay, and how it goes: an entry in shared memory for each
 *	  relay that was run since the start of the server.
 *
 * All under one lock, which is a leaf: what is done under it can neither fail
 * nor wait. It is taken a few times a second for each relay, never per message.
 *
 * A runner has its epoch for a time, and renews it. It is over when it ends,
 * when the time has passed, or when it was a process of the server that is
 * gone. An entry is freed with its database, or taken for another relay when
 * there is no free one and nobody runs it: then what was counted is forgotten.
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include <signal.h>

#include "guc.h"
#include "runner.h"

/* Relays that one transaction can begin to run. */
#define MAX_BEGUN 16

/* Between two starts of a relay's worker, us; doubled while none has become the runner. */
#define SHORTEST_PAUSE INT64CONST(1000000)
#define LONGEST_PAUSE INT64CONST(60000000)

typedef struct RunnerShared
{
	LWLock	   *lock;
	QueueRunner runners[FLEXIBLE_ARRAY_MEMBER];
} RunnerShared;

/* Attached at start, the same in every process. */
static RunnerShared *shared;

static Size
runner_size(void)
{
	return offsetof(RunnerShared, runners) + mul_size(queue_max_relays, sizeof(QueueRunner));
}

static void
runner_init(void *area, bool found)
{
	shared = area;
	if (found)
		return;
	memset(area, 0, runner_size());
	shared->lock = &GetNamedLWLockTranche("queue runners")->lock;
}

const QueueShmemPart queue_runner_shmem = {
	"queue runners", runner_size, runner_init, "queue runners", 1, NULL
};

/* ---- entries; the lock must be held ---- */

static bool
is_alive(int pid)
{
	return pid != 0 && BackendPidGetProc(pid) != NULL;
}

/* Without the look at processes, which takes another lock. */
static bool
has_time(const QueueRunner *runner)
{
	return runner->until > queue_clock_now();
}

static QueueRunner *
find(int32 relay)
{
	for (int i = 0; i < queue_max_relays; i++)
		if (shared->runners[i].relay == relay && shared->runners[i].database == MyDatabaseId)
			return &shared->runners[i];
	return NULL;
}

/* NULL: all are in use. */
static QueueRunner *
find_or_make(int32 relay)
{
	QueueRunner *runner = find(relay);

	for (int i = 0; runner == NULL && i < queue_max_relays; i++)
	{
		QueueRunner *unused = &shared->runners[i];

		if (OidIsValid(unused->database))
			continue;
		memset(unused, 0, sizeof(QueueRunner));
		unused->database = MyDatabaseId;
		unused->relay = relay;
		runner = unused;
	}
	for (int i = 0; runner == NULL && i < queue_max_relays; i++)
	{
		QueueRunner *idle = &shared->runners[i];

		if (has_time(idle))
			continue;
		memset(idle, 0, sizeof(QueueRunner));
		idle->database = MyDatabaseId;
		idle->relay = relay;
		runner = idle;
	}
	return runner;
}

/* ---- the runner's time ---- */

/* Relays that this transaction has begun to run: if it is rolled back, nobody does. */
static struct
{
	int32		relay;
	int64		epoch;
}			begun[MAX_BEGUN];
static int	begun_count;

/* The extension is dropped in it. */
static bool forget_at_commit;

static void
transaction_ends(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	while (begun_count > 0)
	{
		begun_count--;
		if (event == XACT_EVENT_ABORT)
			queue_runner_end(begun[begun_count].relay, begun[begun_count].epoch);
	}
	if (forget_at_commit && event == XACT_EVENT_COMMIT)
		queue_runner_forget_database(MyDatabaseId);
	forget_at_commit = false;
}

void
queue_runner_init(void)
{
	RegisterXactCallback(transaction_ends, NULL);
}

/*
 * Give a relay to a runner for a time (us), unless the transaction is rolled
 * back. False: somebody has it, whose name goes to "holder" (of
 * QUEUE_RUNNER_NAME), or ("") there is no room in memory.
 */
bool
queue_runner_begin(int32 relay, int64 epoch, const char *name, bool in_server, int64 version,
				   int64 time, char *holder)
{
	QueueRunner *runner;
	QueueRunner before;
	bool		gone;
	bool		given = false;

	/* Looking for a process takes a lock, so that is done in between. */
	gone = queue_runner_get(relay, &before) && before.pid != 0 && !is_alive(before.pid);
	holder[0] = '\0';
	if (begun_count == MAX_BEGUN)
		return false;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	runner = find_or_make(relay);
	if (runner && has_time(runner) && !(gone && runner->epoch == before.epoch))
		strlcpy(holder, runner->name, QUEUE_RUNNER_NAME);
	else if (runner && epoch > runner->epoch)
	{
		runner->epoch = epoch;
		runner->until = queue_clock_now() + time;
		runner->pid = in_server ? MyProcPid : 0;
		runner->version = version;
		strlcpy(runner->name, name, QUEUE_RUNNER_NAME);
		runner->since = queue_clock_wall();
		runner->in_flight = runner->held = 0;
		runner->breaker = QUEUE_PUMP_CLOSED;
		given = true;
	}
	LWLockRelease(shared->lock);
	if (given)
	{
		begun[begun_count].relay = relay;
		begun[begun_count++].epoch = epoch;
	}
	return given;
}

bool
queue_runner_is(int32 relay, int64 epoch)
{
	QueueRunner *runner;
	bool		is;

	LWLockAcquire(shared->lock, LW_SHARED);
	runner = find(relay);
	is = runner && runner->epoch == epoch && has_time(runner);
	LWLockRelease(shared->lock);
	return is;
}

/* The same, and it works by this definition. */
bool
queue_runner_is_current(int32 relay, int64 epoch, int64 version)
{
	QueueRunner runner;

	return queue_runner_is(relay, epoch) && queue_runner_get(relay, &runner) &&
		runner.epoch == epoch && runner.version == version;
}

/* Deliveries by the minute of the wall clock. */
static void
count_delivered(QueueRunner *runner, int64 n)
{
	TimestampTz now = queue_clock_wall();
	TimestampTz minute = now - now % USECS_PER_MINUTE;

	if (n > 0)
		runner->delivered_at = now;
	if (minute != runner->minute)
	{
		runner->last_minute = minute == runner->minute + USECS_PER_MINUTE ? runner->this_minute : 0;
		runner->this_minute = 0;
		runner->minute = minute;
	}
	runner->this_minute += n;
}

/* A second over the last minute, at the least. */
double
queue_runner_rate(const QueueRunner *runner)
{
	TimestampTz now = queue_clock_wall();
	TimestampTz minute = now - now % USECS_PER_MINUTE;
	double		part = (now - minute) / (double) USECS_PER_MINUTE;

	if (minute == runner->minute)
		return (runner->last_minute * (1 - part) + runner->this_minute) / 60;
	return minute == runner->minute + USECS_PER_MINUTE ? runner->this_minute * (1 - part) / 60 : 0;
}

/* As much as there is room for, in whole characters. */
static void
put_text(char *room, const char *text)
{
	int			length = pg_mbcliplen(text, strlen(text), QUEUE_RUNNER_TEXT - 1);

	memcpy(room, text, length);
	room[length] = '\0';
}

static void
put_error(QueueRunner *runner, const char *error)
{
	put_text(runner->error, error);
	runner->error_at = queue_clock_wall();
}

/* The runner goes on for a time (us) from now. False: it is not the runner any more. */
bool
queue_runner_renew(int32 relay, int64 epoch, int64 time, const QueueRunnerStatus *status)
{
	QueueRunner *runner;
	bool		is;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	runner = find(relay);
	is = runner && runner->epoch == epoch && has_time(runner);
	if (is)
	{
		runner->until = queue_clock_now() + time;
		/* It works: should it end now, that is no reason to wait long. */
		runner->pause = 0;
		for (int i = 0; i < QUEUE_RUNNER_PUMP_COUNTS; i++)
			runner->counts[i] += status->counts[i];
		count_delivered(runner, status->counts[QUEUE_RUNNER_DELIVERED]);
		runner->in_flight = status->in_flight;
		runner->held = status->held;
		runner->breaker = status->breaker;
		runner->breaker_until = queue_clock_wall() + status->breaker_for;
		if (status->error)
			put_error(runner, status->error);
	}
	LWLockRelease(shared->lock);
	return is;
}

void
queue_runner_count(int32 relay, QueueRunnerCount what, int64 n)
{
	QueueRunner *runner;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	runner = find(relay);
	if (runner)
		runner->counts[what] += n;
	LWLockRelease(shared->lock);
}

/* The runner's time is over, if it still is the runner. Cannot fail. */
void
queue_runner_end(int32 relay, int64 epoch)
{
	QueueRunner *runner;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	runner = find(relay);
	if (runner && runner->epoch == epoch)
	{
		runner->until = 0;
		runner->pid = 0;
		runner->in_flight = runner->held = 0;
	}
	LWLockRelease(shared->lock);
}

/* Why nobody runs it, for one: of a relay that could not begin. */
void
queue_runner_tell_error(int32 relay, const char *error)
{
	QueueRunner *runner;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	runner = find_or_make(relay);
	if (runner)
		put_error(runner, error);
	LWLockRelease(shared->lock);
}

/* ---- for others ---- */

/* The database is gone, or has no extension any more. Cannot fail. */
void
queue_runner_forget_database(Oid database)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < queue_max_relays; i++)
		if (shared->runners[i].database == database)
			memset(&shared->runners[i], 0, sizeof(QueueRunner));
	LWLockRelease(shared->lock);
}

/* The extension is dropped from this database, if the transaction commits. */
void
queue_runner_forget_at_commit(void)
{
	forget_at_commit = true;
}

/* A copy; false: it has not run since the start. */
bool
queue_runner_get(int32 relay, QueueRunner *copy)
{
	QueueRunner *runner;

	memset(copy, 0, sizeof(QueueRunner));
	LWLockAcquire(shared->lock, LW_SHARED);
	runner = find(relay);
	if (runner)
		*copy = *runner;
	LWLockRelease(shared->lock);
	return copy->relay != 0;
}

/* Whether somebody runs the relay of a copy, as far as can be known. */
bool
queue_runner_runs(const QueueRunner *runner)
{
	return has_time(runner) && (runner->pid == 0 || is_alive(runner->pid));
}

/*
 * Whether a worker is to be started for it now; if so the next one waits, for
 * longer each time until one has begun.
 */
bool
queue_runner_may_start(int32 relay)
{
	QueueRunner before;
	QueueRunner *runner;
	QueueTime	now = queue_clock_now();
	bool		may = false;

	/* One that is stuck is not helped by another. */
	if (queue_runner_get(relay, &before) && (queue_runner_runs(&before) || is_alive(before.pid)))
		return false;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	runner = find_or_make(relay);
	if (runner && runner->epoch == before.epoch && now >= runner->not_before)
	{
		runner->pause = Max(SHORTEST_PAUSE, Min(runner->pause * 2, LONGEST_PAUSE));
		runner->not_before = now + runner->pause;
		may = true;
	}
	LWLockRelease(shared->lock);
	return may;
}

/*
 * Have the relay workers of a database end ("again": tell them once more). False:
 * there are none.
 */
bool
queue_runner_leave(Oid database, bool again)
{
	bool		found = false;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < queue_max_relays; i++)
	{
		QueueRunner *runner = &shared->runners[i];

		if (runner->database != database || runner->pid == 0)
			continue;
		found = true;
		if (again)
			kill(runner->pid, SIGTERM);
	}
	LWLockRelease(shared->lock);
	return found;
}

/* ---- trials ---- */

/* A number for a trial that is to be made; 0: there is no room in memory. */
uint32
queue_runner_ask_test(int32 relay)
{
	QueueRunner *runner;
	uint32		test = 0;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	runner = find_or_make(relay);
	if (runner)
		test = ++runner->test;
	LWLockRelease(shared->lock);
	return test;
}

void
queue_runner_tell_test(int32 relay, uint32 test, bool ok, const char *detail)
{
	QueueRunner *runner;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	runner = find(relay);
	if (runner && test > runner->tested)
	{
		runner->tested = test;
		runner->test_ok = ok;
		put_text(runner->test_detail, detail);
	}
	LWLockRelease(shared->lock);
}
