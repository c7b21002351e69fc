/*
 * state.c
 *	  The roster: one entry in shared memory for each queue that was used
 *	  since the server started.
 *
 * An entry is found by database and queue id. It stays where it is until its
 * queue is dropped, so a pointer to it is good while the queue's view is
 * locked; queue_state_is() tells a remembered pointer that went stale.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"

#include "compat.h"
#include "guc.h"
#include "state.h"

#define RING_LOCKS 128
#define CONSUMER_LOCKS 128

typedef struct RosterKey
{
	Oid			database;
	int32		id;
} RosterKey;

typedef struct RosterEntry
{
	RosterKey	key;
	uint32		index;
} RosterEntry;

typedef struct Roster
{
	/* under the roster lock */
	uint32		used;			/* entries ever used: a bound for walks */
	/* atomic */
	pg_atomic_uint32 committing;	/* transactions between commit and callback */
	pg_atomic_uint32 prepared;	/* counts those that were prepared with slots */
} Roster;

/* All three are attached at start, the same in every process. */
QueueState *queue_states;
static Roster *roster;
static HTAB *roster_hash;

/* Lock 0 of the tranche guards the roster; then come those of the rings, and of who is active. */
static LWLockPadded *locks;

static Size
state_size(void)
{
	return MAXALIGN(sizeof(Roster)) + mul_size(queue_max_queues, sizeof(QueueState));
}

static void
state_init(void *area, bool found)
{
	HASHCTL		info = {.keysize = sizeof(RosterKey),.entrysize = sizeof(RosterEntry)};

	roster = area;
	queue_states = (QueueState *) ((char *) area + MAXALIGN(sizeof(Roster)));
	locks = GetNamedLWLockTranche("QueueState");
	roster_hash = queue_shmem_hash("queue roster", queue_max_queues, &info,
								   HASH_ELEM | HASH_BLOBS);
	if (found)
		return;
	memset(area, 0, state_size());
	for (int i = 0; i < queue_max_queues; i++)
	{
		pg_atomic_init_u32(&queue_states[i].sleepers, 0);
		pg_atomic_init_u32(&queue_states[i].standbys, 0);
		pg_atomic_init_u32(&queue_states[i].slots, 0);
		ConditionVariableInit(&queue_states[i].wakeup);
		ConditionVariableInit(&queue_states[i].turns);
		ConditionVariableInit(&queue_states[i].standby);
		SpinLockInit(&queue_states[i].ready_mutex);
	}
}

static Size
hash_size(void)
{
	return hash_estimate_size(queue_max_queues, sizeof(RosterEntry));
}

const QueueShmemPart queue_state_shmem = {
	"queue state", state_size, state_init, "QueueState", RING_LOCKS + CONSUMER_LOCKS + 1, hash_size
};

uint32
queue_state_index(const QueueState *state)
{
	return state - queue_states;
}

LWLock *
queue_state_ring_lock(const QueueState *state)
{
	return &locks[1 + queue_state_index(state) % RING_LOCKS].lock;
}

LWLock *
queue_state_consumer_lock(const QueueState *state)
{
	return &locks[1 + RING_LOCKS + queue_state_index(state) % CONSUMER_LOCKS].lock;
}

bool
queue_state_is(const QueueState *state, int32 id)
{
	return state->database == MyDatabaseId && state->id == id;
}

/*
 * All but sleepers, of both kinds, and slots: some of the last queue's may not
 * have left yet, or be on their way back; the counts go down by themselves.
 */
static void
reset(QueueState *state, Oid database, int32 id)
{
	state->loaded = false;
	state->first_segment = QUEUE_NONE;
	state->reserves = 0;
	state->timed = 0;
	state->copies = QUEUE_NONE;
	state->ordered = false;
	state->first_ready = state->last_ready = QUEUE_NONE;
	state->consumer_named = false;
	state->consumer_pid = 0;
	state->claiming = 0;
	state->swept_all = false;
	state->dequeued_saw = 0;
	/* Who consumes comes back after a restart: what is ready stays where it is for a while. */
	state->dequeued_at = queue_clock_now();
	state->ranks = 0;
	pg_atomic_init_u32(&state->active, QUEUE_NONE);
	pg_atomic_init_u32(&state->asks, QUEUE_ASK_RECOUNT | QUEUE_ASK_RECLAIM | QUEUE_ASK_RESERVE);
	pg_atomic_init_u32(&state->definition, 0);
	pg_atomic_init_u32(&state->inexact, 1);
	state->metered = false;
	state->front = (QueueFront) {0};
	state->first_ready_meter = state->last_ready_meter = QUEUE_NONE;
	state->meter_heap = (pairingheap) {0};
	pg_atomic_init_u32(&state->meters_ready, 0);
	pg_atomic_init_u32(&state->meters_version, 0);
	pg_atomic_init_u64(&state->meters_due, (uint64) QUEUE_TIME_NEVER);
	pg_atomic_init_u64(&state->meters_closed, 0);
	pg_atomic_init_u32(&state->round, 0);
	pg_atomic_init_u32(&state->sources, 0);
	for (int i = 0; i < QUEUE_SOURCES; i++)
		pg_atomic_init_u64(&state->heads[i], 0);
	pg_atomic_init_u32(&state->turn, 0);
	pg_atomic_init_u32(&state->ready_keys, 0);
	pg_atomic_init_u64(&state->look_at, QUEUE_TIME_NEVER);
	pg_atomic_init_u32(&state->copies_unknown, 1);
	pg_atomic_init_u32(&state->blocked_changes, 1);
	pg_atomic_init_u32(&state->blocked_known, 0);
	pg_atomic_init_u64(&state->keeper, QUEUE_TIME_NEVER);
	pg_atomic_init_u64(&state->recheck, 0);
	pg_atomic_init_u64(&state->recheck_at, 0);
	pg_atomic_init_u64(&state->notified, 0);
	pg_atomic_init_u64(&state->next_due, 0);
	for (int i = 0; i < QUEUE_COUNTERS; i++)
		pg_atomic_init_u64(&state->counters[i], 0);
	state->sampled = 0;
	state->swept = 0;
	state->sweep_at = 0;
	state->saw_ready = false;
	state->sweep_pause = 0;
	state->sweep_saw = 0;
	state->recount_at = 0;
	state->reserve_at = 0;
	state->reclaim_at = QUEUE_TIME_NEVER;
	memset(state->samples, 0, sizeof(state->samples));
	state->generation++;
	state->view = InvalidOid;
	state->id = id;
	state->database = database;
}

static QueueState *
allocate(void)
{
	if (roster->used < (uint32) queue_max_queues)
		return &queue_states[roster->used++];
	for (int i = 0; i < queue_max_queues; i++)
		if (!OidIsValid(queue_states[i].database))
			return &queue_states[i];
	return NULL;
}

/* The entry of a queue of this database; NULL if there is none and !create. */
QueueState *
queue_state_get(int32 id, bool create)
{
	RosterKey	key = {MyDatabaseId, id};
	RosterEntry *entry;
	QueueState *state = NULL;

	LWLockAcquire(&locks[0].lock, LW_SHARED);
	entry = hash_search(roster_hash, &key, HASH_FIND, NULL);
	if (entry)
		state = &queue_states[entry->index];
	LWLockRelease(&locks[0].lock);
	if (state || !create)
		return state;

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	entry = hash_search(roster_hash, &key, HASH_FIND, NULL);
	if (entry)
		state = &queue_states[entry->index];
	else if ((state = allocate()) != NULL)
	{
		entry = hash_search(roster_hash, &key, HASH_ENTER_NULL, NULL);
		if (entry)
		{
			entry->index = queue_state_index(state);
			reset(state, MyDatabaseId, id);
		}
		else
			state = NULL;
	}
	LWLockRelease(&locks[0].lock);
	if (state == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many queues are in use"),
				 errdetail("The limit is %d.", queue_max_queues),
				 errhint("Raise \"queue.max_queues\" and restart the server.")));
	return state;
}

/*
 * Free the entry of a queue whose drop has committed or whose creation was
 * rolled back. Its ring must be empty. Called from callbacks: cannot fail.
 */
void
queue_state_forget(Oid database, int32 id)
{
	RosterKey	key = {database, id};
	RosterEntry *entry;

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	entry = hash_search(roster_hash, &key, HASH_REMOVE, NULL);
	if (entry)
	{
		QueueState *state = &queue_states[entry->index];

		state->database = InvalidOid;
		state->id = 0;
		state->generation++;
		ConditionVariableBroadcast(&state->wakeup);
		ConditionVariableBroadcast(&state->standby);
	}
	LWLockRelease(&locks[0].lock);
}

/*
 * Walk the entries of a database (InvalidOid: of all). The entry can be freed
 * at any time; a caller that cares locks the queue.
 */
QueueState *
queue_state_next(Oid database, uint32 *position)
{
	uint32		used = roster->used;

	while (*position < used)
	{
		QueueState *state = &queue_states[(*position)++];
		Oid			owner = state->database;

		if (OidIsValid(owner) && (!OidIsValid(database) || owner == database))
			return state;
	}
	return NULL;
}

/* Ask the worker for something. Returns whether this is news. */
bool
queue_state_ask(QueueState *state, uint32 what)
{
	if ((pg_atomic_read_u32(&state->asks) & what) == what)
		return false;
	return (pg_atomic_fetch_or_u32(&state->asks, what) & what) != what;
}

/*
 * Transactions that change counters tell when they are about to commit and
 * when they have counted, so that a recount knows a moment without any.
 */
void
queue_state_commit_begins(void)
{
	pg_atomic_fetch_add_u32(&roster->committing, 1);
}

void
queue_state_commit_ended(void)
{
	pg_atomic_fetch_sub_u32(&roster->committing, 1);
}

uint32
queue_state_committing(void)
{
	return pg_atomic_read_u32(&roster->committing);
}

/* A transaction is prepared; its slots will say so after this. */
void
queue_state_prepare(void)
{
	pg_atomic_fetch_add_u32(&roster->prepared, 1);
}

uint32
queue_state_prepared(void)
{
	return pg_atomic_read_u32(&roster->prepared);
}
