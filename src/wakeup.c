/*
 * wakeup.c
 *	  Sleepers of a queue, and the latch of each database's worker.
 *
 * A sleeper registers, looks again, and only then sleeps; so whoever makes
 * work appear either is seen by that look or sees the sleeper. As many
 * sleepers are woken as there is work. Times that come by themselves (a delay,
 * a lease's end) are kept by one sleeper a queue, the keeper: the time it will
 * look at is in the queue's state, and whoever makes an earlier one wakes a
 * sleeper, who then keeps that. A sleeper that leaves for any other reason
 * than work passes on what it may have been told.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/spin.h"

#include "compat.h"
#include "guc.h"
#include "ring.h"
#include "segment.h"
#include "wakeup.h"

/* A worker that runs; the latch belongs to its process. */
typedef struct WorkerCall
{
	Oid			database;		/* InvalidOid: the entry is free */
	int			pid;
	Latch	   *latch;
	pg_atomic_uint32 called;	/* it was woken and did not look yet */
} WorkerCall;

typedef struct WakeupShared
{
	/* under the spinlock; a reader of "called" needs none */
	slock_t		mutex;
	WorkerCall	workers[FLEXIBLE_ARRAY_MEMBER];
} WakeupShared;

/* Attached at start, the same in every process. */
static WakeupShared *shared;

/* The worker's own entry; NULL elsewhere. */
static WorkerCall *mine;

/* What this backend sleeps on, so that an abort can take it off. */
static QueueState *sleeping_on;
static QueueTime keeping;

/*
 * It left for work and has not handed on yet; an abort does that for it. What
 * it was told and found nothing of it hands on, now and then.
 */
static QueueState *owes;
static bool was_told;
static QueueTime hand_on_at;

/* Between two signals that one hands on who finds nothing, us. */
#define HAND_ON_PAUSE 50000

static Size
wakeup_size(void)
{
	return offsetof(WakeupShared, workers) + mul_size(queue_max_databases, sizeof(WorkerCall));
}

static void
wakeup_init(void *area, bool found)
{
	shared = area;
	if (found)
		return;
	memset(area, 0, wakeup_size());
	SpinLockInit(&shared->mutex);
	for (int i = 0; i < queue_max_databases; i++)
		pg_atomic_init_u32(&shared->workers[i].called, 0);
}

const QueueShmemPart queue_wakeup_shmem = {
	"queue wakeups", wakeup_size, wakeup_init, NULL, 0, NULL
};

/* ---- sleepers ---- */

static void
stop_keeping(void)
{
	uint64		kept = (uint64) keeping;

	if (keeping != QUEUE_TIME_NEVER)
		pg_atomic_compare_exchange_u64(&sleeping_on->keeper, &kept, (uint64) QUEUE_TIME_NEVER);
	keeping = QUEUE_TIME_NEVER;
}

/* Somebody else gets the signal, if anybody sleeps. */
static void
signal_another(QueueState *state)
{
	if (pg_atomic_read_u32(&state->sleepers) > 0)
		ConditionVariableSignal(&state->wakeup);
}

static void
leave(bool pass_on)
{
	QueueState *state = sleeping_on;

	was_told |= queue_compat_cancel_sleep();
	stop_keeping();
	sleeping_on = NULL;
	pg_atomic_fetch_sub_u32(&state->sleepers, 1);
	if (pass_on)
		signal_another(state);
}

/* Try to be the one who looks again at "due". */
static bool
keep(QueueState *state, QueueTime due)
{
	uint64		kept = pg_atomic_read_u64(&state->keeper);

	if (keeping == due)
		return true;
	while (due < (QueueTime) kept)
	{
		if (pg_atomic_compare_exchange_u64(&state->keeper, &kept, (uint64) due))
		{
			keeping = due;
			return true;
		}
	}
	return false;
}

/* A call begins that may sleep, more than once. */
void
queue_wakeup_begin(void)
{
	was_told = false;
	hand_on_at = 0;
}

/*
 * Sleep until the queue has something due, or until the deadline. A caller
 * that just looked in vain although something was due gives not_before, so
 * that it does not spin; a signal ends that pause too.
 */
QueueWakeup
queue_wakeup_sleep(QueueState *state, QueueTime deadline, QueueTime not_before, bool *slept)
{
	static uint32 wait_event = 0;	/* named at first use */
	uint32		generation = state->generation;
	QueueWakeup result;
	bool		signalled = false;

	if (wait_event == 0)
		wait_event = queue_wait_event_new("QueueDequeue");
	Assert(sleeping_on == NULL);
	sleeping_on = state;
	keeping = QUEUE_TIME_NEVER;
	pg_atomic_fetch_add_u32(&state->sleepers, 1);
	ConditionVariablePrepareToSleep(&state->wakeup);
	for (;;)
	{
		QueueTime	now = queue_clock_now();
		QueueTime	due;
		QueueTime	wake = deadline;

		if (state->generation != generation)
		{
			result = QUEUE_WAKEUP_DROPPED;
			break;
		}
		due = queue_ring_due(state);
		if (due <= now && (signalled || now >= not_before))
		{
			result = QUEUE_WAKEUP_READY;
			break;
		}
		if (now >= deadline)
		{
			result = QUEUE_WAKEUP_TIMEOUT;
			break;
		}
		due = Max(due, not_before);
		if (keep(state, due))
			wake = Min(wake, due);
		*slept = true;
		signalled = !ConditionVariableTimedSleep(&state->wakeup,
												 Min((wake - now) / 1000 + 1, 60000), wait_event);
		stop_keeping();
	}
	/* One who goes on to claim passes on what he leaves, after the claim. */
	if (result == QUEUE_WAKEUP_READY)
	{
		owes = state;
		was_told |= signalled;
	}
	leave(result != QUEUE_WAKEUP_READY);
	return result;
}

/*
 * Like queue_wakeup_sleep, for one who sleeps by himself because he waits for
 * other things too. False: something is due, he is not to sleep. Otherwise he
 * sleeps on his latch, for so many ms at most, and calls queue_wakeup_woken()
 * before anything else. With not_before he does not look for work before then.
 */
bool
queue_wakeup_fall_asleep(QueueState *state, QueueTime not_before, long *ms)
{
	QueueTime	now;
	QueueTime	due;

	Assert(sleeping_on == NULL);
	sleeping_on = state;
	keeping = QUEUE_TIME_NEVER;
	pg_atomic_fetch_add_u32(&state->sleepers, 1);
	ConditionVariablePrepareToSleep(&state->wakeup);
	now = queue_clock_now();
	due = queue_ring_due(state);
	if (due <= now && now >= not_before)
	{
		owes = state;
		leave(false);
		return false;
	}
	due = Max(due, not_before);
	if (keep(state, due))
		*ms = Min(*ms, (due - now) / 1000 + 1);
	return true;
}

/* What he was told he owes to others until he has claimed, and calls queue_wakeup_pass_on(). */
void
queue_wakeup_woken(void)
{
	owes = sleeping_on;
	leave(false);
}

/* An error or a termination struck while asleep, or on the way to work. Cannot fail. */
void
queue_wakeup_abort(void)
{
	if (sleeping_on)
		leave(true);
	if (owes)
		signal_another(owes);
	owes = NULL;
}

/* So many messages can be dequeued now. For callbacks: cannot fail. */
void
queue_wakeup_work(QueueState *state, int64 messages)
{
	uint32		sleepers = pg_atomic_read_u32(&state->sleepers);

	for (uint32 i = 0; i < sleepers && (int64) i < messages; i++)
		ConditionVariableSignal(&state->wakeup);
}

/* Something will be due at this time. For callbacks: cannot fail. */
void
queue_wakeup_due(QueueState *state, QueueTime due)
{
	if (pg_atomic_read_u32(&state->sleepers) > 0 &&
		due < (QueueTime) pg_atomic_read_u64(&state->keeper))
		ConditionVariableSignal(&state->wakeup);
}

/*
 * Hand on what one who leaves, or has claimed, may have kept from others: the
 * time that somebody must keep, and work that is left. Who found no work was
 * perhaps told of it in place of somebody who can see it, so he hands his
 * signal on; after a pause, else two whose snapshots are too old would keep
 * each other awake.
 */
void
queue_wakeup_pass_on(QueueState *state, bool found_work)
{
	QueueTime	now = queue_clock_now();
	QueueTime	due;

	owes = NULL;
	if (pg_atomic_read_u32(&state->sleepers) == 0)
		return;
	due = queue_ring_due(state);
	if (due > now)
		queue_wakeup_due(state, due);
	else if (found_work)
		signal_another(state);
	else if (was_told && now >= hand_on_at)
	{
		was_told = false;
		hand_on_at = now + HAND_ON_PAUSE;
		signal_another(state);
	}
}

/* The time alone, by one whose caller is going to look for work. */
void
queue_wakeup_pass_on_time(QueueState *state)
{
	QueueTime	due = queue_ring_due(state);

	owes = NULL;
	if (due > queue_clock_now())
		queue_wakeup_due(state, due);
}

/* The clock was moved, or the queue resumed: everybody looks. */
void
queue_wakeup_all(QueueState *state)
{
	ConditionVariableBroadcast(&state->wakeup);
	ConditionVariableBroadcast(&state->standby);
}

/*
 * Something has gone that may have been the last in the way of who waits to
 * become the active consumer: all of them look. Cannot fail.
 */
void
queue_wakeup_standbys(QueueState *state)
{
	/* They register, then look at what was changed before this. */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&state->standbys) > 0)
		ConditionVariableBroadcast(&state->standby);
}

/* ---- workers ---- */

static WorkerCall *
find_worker(Oid database)
{
	for (int i = 0; i < queue_max_databases; i++)
		if (shared->workers[i].database == database)
			return &shared->workers[i];
	return NULL;
}

/* Enter this process as the worker of its database; false if there is one. */
bool
queue_wakeup_register_worker(void)
{
	bool		taken;

	SpinLockAcquire(&shared->mutex);
	taken = find_worker(MyDatabaseId) != NULL;
	if (!taken && (mine = find_worker(InvalidOid)) != NULL)
	{
		mine->pid = MyProcPid;
		mine->latch = MyLatch;
		mine->database = MyDatabaseId;
		pg_atomic_write_u32(&mine->called, 1);
	}
	SpinLockRelease(&shared->mutex);
	return !taken && mine != NULL;
}

void
queue_wakeup_unregister_worker(void)
{
	if (mine == NULL)
		return;
	SpinLockAcquire(&shared->mutex);
	mine->database = InvalidOid;
	mine->pid = 0;
	mine->latch = NULL;
	SpinLockRelease(&shared->mutex);
	mine = NULL;
}

/* Wake the worker, unless it is about to look anyway. Cannot fail. */
void
queue_wakeup_worker(Oid database)
{
	WorkerCall *worker = find_worker(database);
	Latch	   *latch = NULL;

	if (worker == NULL || pg_atomic_exchange_u32(&worker->called, 1) != 0)
		return;
	SpinLockAcquire(&shared->mutex);
	if (worker->database == database)
		latch = worker->latch;
	SpinLockRelease(&shared->mutex);
	/* Shared latches stay valid memory, whoever owns them by now. */
	if (latch)
		SetLatch(latch);
}

/* The worker begins a round: whoever calls from now on wakes it again. */
bool
queue_wakeup_take_call(void)
{
	return mine && pg_atomic_exchange_u32(&mine->called, 0) != 0;
}

int
queue_wakeup_worker_pid(Oid database)
{
	WorkerCall *worker = OidIsValid(database) ? find_worker(database) : NULL;

	return worker ? worker->pid : 0;
}
