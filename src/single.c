/*
 * single.c
 *	  One consumer at a time: who is the active one, and who takes over.
 *
 * src/README.md, "One consumer at a time", has what must hold. Who is active is
 * in the queue's state, under its consumer lock; whether another may take over
 * is found by a look at all slots, which is only taken when nothing else speaks
 * against it.
 *
 * Who has begun to claim is remembered here, so that the abort callbacks end it.
 * A backend that was active without a name says when it ends, after its open
 * transaction is rolled back.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"

#include "compat.h"
#include "guc.h"
#include "lease.h"
#include "single.h"

/* The queue from which this backend is claiming as the active consumer, or is waiting to; NULL. */
static QueueState *claims_from;
static QueueState *stands_by;

/* Whether this backend has been an active consumer by itself, and tells of its end. */
static bool tells_end;

/* ---- under the consumer lock ---- */

static bool
is_active(const QueueState *state, const char *consumer)
{
	if (consumer)
		return state->consumer_named && strcmp(state->consumer, consumer) == 0;
	return state->consumer_pid == MyProcPid && state->consumer_began == MyStartTimestamp;
}

static bool
is_anybody_active(const QueueState *state)
{
	return state->consumer_named || state->consumer_pid != 0;
}

static void
set_active(QueueState *state, const char *consumer)
{
	state->consumer_named = consumer != NULL;
	strlcpy(state->consumer, consumer ? consumer : "", QUEUE_CONSUMER_LENGTH);
	state->consumer_pid = consumer ? 0 : MyProcPid;
	state->consumer_began = MyStartTimestamp;
	state->consumer_gone = false;
	state->consumer_until = 0;
}

/* What speaks against taking over. */
typedef struct Look
{
	QueueTime	now;
	QueueTime	again;			/* when it is worth another look; an earlier
								 * one will be told of */
	bool		prepared;		/* by a prepared transaction, of which nobody
								 * tells how it ends */
} Look;

/* A slot of the queue. */
typedef void (*SlotVisitor) (QueueSlot *slot, Look *look);

/* A lease, or the settlement of one, but not what is cancelled, nor what the worker writes. */
static void
look_in_the_way(QueueSlot *slot, Look *look)
{
	uint64		word = queue_slot_lock(slot);
	bool		settles = QUEUE_SLOT_STATE(word) == QUEUE_SLOT_SETTLING &&
	(QUEUE_SLOT_STATE(slot->prior) == QUEUE_SLOT_LEASED || (slot->prior & QUEUE_SLOT_LATE));

	if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_LEASED && slot->deadline > look->now)
		look->again = Max(look->again, slot->deadline);
	if (settles)
		look->again = QUEUE_TIME_NEVER;
	look->prepared |= settles && (word & QUEUE_SLOT_PREPARED);
	queue_slot_unlock(slot, word);
}

static void
make_void(QueueSlot *slot, Look *look)
{
	queue_lease_void(slot, QUEUE_SLOT_SEQUENCE(pg_atomic_read_u64(&slot->word)), look->now);
}

/* A slot that becomes the queue's meanwhile is no lease. */
static void
visit_slots(QueueState *state, SlotVisitor visitor, Look *look)
{
	if (pg_atomic_read_u32(&state->slots) == 0)
		return;
	for (uint32 i = 0; i < queue_slot_count(); i++)
	{
		QueueSlot  *slot = queue_slot(i);

		if (QUEUE_SLOT_STATE(pg_atomic_read_u64(&slot->word)) != QUEUE_SLOT_FREE &&
			slot->queue == queue_state_index(state))
			visitor(slot, look);
	}
}

/* Whether the consumer is active, or could be. */
static bool
may_begin(QueueState *state, const char *consumer, Look *look)
{
	look->now = queue_clock_now();
	look->again = 0;
	look->prepared = false;
	if (is_active(state, consumer))
		return true;
	if (is_anybody_active(state) && !state->consumer_gone && look->now < state->consumer_until)
		look->again = state->consumer_until;
	else if (state->claiming > 0)
		look->again = QUEUE_TIME_NEVER;
	else
		visit_slots(state, look_in_the_way, look);
	return look->again == 0;
}

/* The same for who does not want to begin yet, with the end of prepared transactions seen to. */
static bool
could_begin(QueueState *state, const char *consumer, Look *look)
{
	bool		may;

	for (int tries = 0;; tries++)
	{
		LWLockAcquire(queue_state_consumer_lock(state), LW_SHARED);
		may = may_begin(state, consumer, look);
		LWLockRelease(queue_state_consumer_lock(state));
		if (may || !look->prepared || tries > 0)
			break;
		queue_lease_resolve_all(state);
	}
	if (look->prepared)
		look->again = look->now + queue_recheck_interval * INT64CONST(1000);
	return may;
}

/* ---- the end of a backend ---- */

/* Transactions are over by then. Cannot fail. */
static void
backend_ends(int code, Datum arg)
{
	uint32		position = 0;
	QueueState *state;

	while ((state = queue_state_next(InvalidOid, &position)) != NULL)
	{
		bool		was_active;

		LWLockAcquire(queue_state_consumer_lock(state), LW_EXCLUSIVE);
		was_active = is_active(state, NULL);
		if (was_active)
			state->consumer_gone = true;
		LWLockRelease(queue_state_consumer_lock(state));
		if (was_active)
			queue_wakeup_standbys(state);
	}
}

/* ---- claims ---- */

/*
 * Become the active consumer if that can be, whose receipts that have run out
 * are void from then on.
 */
static bool
become_active(QueueState *state, const char *consumer, Look *look)
{
	if (!may_begin(state, consumer, look))
		return false;
	if (is_active(state, consumer))
		return true;
	visit_slots(state, make_void, look);
	set_active(state, consumer);
	return true;
}

/*
 * Begin to claim, as the active consumer. False: another one is that. Otherwise
 * queue_single_end() is called at the end, or queue_single_abort().
 */
bool
queue_single_begin(QueueState *state, const char *consumer, int64 lease)
{
	Look		look = {.prepared = false};
	bool		may;

	if (consumer == NULL && !tells_end)
	{
		on_shmem_exit(backend_ends, 0);
		tells_end = true;
	}
	for (int tries = 0;; tries++)
	{
		LWLockAcquire(queue_state_consumer_lock(state), LW_EXCLUSIVE);
		may = become_active(state, consumer, &look);
		if (may)
		{
			state->consumer_until = Max(state->consumer_until, look.now + lease);
			state->claiming++;
			claims_from = state;
		}
		LWLockRelease(queue_state_consumer_lock(state));
		if (may || !look.prepared || tries > 0)
			return may;
		queue_lease_resolve_all(state);
	}
}

/* The call has ended; deadline: the latest of its leases. Cannot fail. */
void
queue_single_end(QueueState *state, QueueTime deadline)
{
	LWLock	   *lock = queue_state_consumer_lock(state);
	bool		may_end;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	claims_from = NULL;
	state->claiming--;
	state->consumer_until = Max(state->consumer_until, deadline);
	may_end = state->claiming == 0 && (state->consumer_gone || state->consumer_until <= queue_clock_now());
	LWLockRelease(lock);
	if (may_end)
		queue_wakeup_standbys(state);
}

/* An error or a termination struck while claiming, or standing by. Cannot fail. */
void
queue_single_abort(void)
{
	if (claims_from)
		queue_single_end(claims_from, 0);
	if (stands_by)
	{
		ConditionVariableCancelSleep();
		pg_atomic_fetch_sub_u32(&stands_by->standbys, 1);
	}
	stands_by = NULL;
}

/* Whether it has an active consumer was changed. Cannot fail. */
void
queue_single_forget(QueueState *state)
{
	LWLockAcquire(queue_state_consumer_lock(state), LW_EXCLUSIVE);
	state->consumer_named = false;
	state->consumer_pid = 0;
	LWLockRelease(queue_state_consumer_lock(state));
}

/* A lease was extended; the caller has the lock. */
void
queue_single_extended(QueueState *state, QueueTime deadline)
{
	state->consumer_until = Max(state->consumer_until, deadline);
}

/* ---- standing by ---- */

/* Whether another consumer is active, and stays that for now. */
bool
queue_single_stands_by(QueueState *state, const char *consumer)
{
	Look		look;

	return !could_begin(state, consumer, &look);
}

/*
 * Sleep until the consumer may take over, or the definition has changed, or
 * until the deadline. Of several that are woken the first takes over.
 */
QueueWakeup
queue_single_sleep(const QueueDef *def, const char *consumer, QueueTime deadline, bool *slept)
{
	static uint32 wait_event = 0;	/* named at first use */
	QueueState *state = def->state;
	uint32		generation = state->generation;
	uint32		version = def->version;
	QueueWakeup result;

	if (wait_event == 0)
		wait_event = queue_wait_event_new("QueueStandby");
	Assert(stands_by == NULL);
	stands_by = state;
	pg_atomic_fetch_add_u32(&state->standbys, 1);
	ConditionVariablePrepareToSleep(&state->standby);
	for (;;)
	{
		Look		look;

		if (state->generation != generation)
		{
			result = QUEUE_WAKEUP_DROPPED;
			break;
		}
		if (could_begin(state, consumer, &look) || pg_atomic_read_u32(&state->definition) != version)
		{
			result = QUEUE_WAKEUP_READY;
			break;
		}
		if (look.now >= deadline)
		{
			result = QUEUE_WAKEUP_TIMEOUT;
			break;
		}
		*slept = true;
		ConditionVariableTimedSleep(&state->standby, Min((Min(deadline, look.again) - look.now) / 1000 + 1, 60000),
									wait_event);
	}
	ConditionVariableCancelSleep();
	stands_by = NULL;
	pg_atomic_fetch_sub_u32(&state->standbys, 1);
	return result;
}

/* ---- to look at ---- */

/* Who is active, and until when at least; NULL: nobody. */
char *
queue_single_describe(QueueState *state, QueueTime *until)
{
	char		consumer[QUEUE_CONSUMER_LENGTH + 32] = "";
	bool		any;

	LWLockAcquire(queue_state_consumer_lock(state), LW_SHARED);
	any = is_anybody_active(state);
	if (state->consumer_named)
		strlcpy(consumer, state->consumer, sizeof(consumer));
	else if (any)
		snprintf(consumer, sizeof(consumer), state->consumer_gone ? "pid %d (ended)" : "pid %d", state->consumer_pid);
	*until = state->consumer_until;
	LWLockRelease(queue_state_consumer_lock(state));
	return any ? pstrdup(consumer) : NULL;
}
