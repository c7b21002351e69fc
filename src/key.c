/*
 * key.c
 *	  The table of keys, and each queue's list of keys to be looked at.
 *
 * An entry is there for a key of which messages are held, or were passed over
 * by somebody who looked at their page; what it means is in src/README.md,
 * "Order". It is found by queue and hash; two keys of one hash share it.
 *
 * What a reader must believe:
 * - Whoever has an entry got it locked, and gives the lock back by
 *   queue_key_unlock(), which forgets the entry if nothing hangs on it. The
 *   locks are leaves but for the list of free entries and the spinlock of a
 *   queue's list; nobody who has one waits for a slot.
 * - An entry is in its queue's list at most once, and stays known until it was
 *   taken out and looked at.
 * - Nothing here can fail or allocate, so callbacks may use all of it.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/spin.h"

#include "compat.h"
#include "guc.h"
#include "key.h"

#define PARTS 128

typedef struct KeyShared
{
	pg_atomic_uint64 calls;		/* that claimed in order, and visits of pages by them */
	/* under lock 0 */
	uint32		first_free;
	uint32		unused_from;	/* entries never used yet begin here */
	uint32		used;
} KeyShared;

/* The queue whose turn this backend has; NULL: of none. */
static QueueState *turn;

/*
 * The entries that were taken out of the list and are being looked at, and that
 * of them whose copies are being looked through, with their range: for an error.
 */
static uint32 looked_at[QUEUE_KEYS_AT_ONCE];
static int	looked_at_count = 0;
static uint32 rescanned_key;
static QueueSpan rescanned = {PG_UINT64_MAX, 0};

/* Attached at start, the same in every process. */
static KeyShared *shared;
static QueueKey *keys;
static uint32 *buckets;			/* first entry, or QUEUE_NONE */
static LWLockPadded *locks;

static uint32
bucket_count(void)
{
	return pg_nextpower2_32((uint32) queue_max_keys);
}

static Size
key_size(void)
{
	Size		size = MAXALIGN(sizeof(KeyShared));

	size = add_size(size, mul_size(queue_max_keys, sizeof(QueueKey)));
	return add_size(size, mul_size(bucket_count(), sizeof(uint32)));
}

static void
key_init(void *area, bool found)
{
	shared = area;
	keys = (QueueKey *) ((char *) area + MAXALIGN(sizeof(KeyShared)));
	buckets = (uint32 *) (keys + queue_max_keys);
	locks = GetNamedLWLockTranche("QueueKey");
	if (found)
		return;
	memset(area, 0, key_size());
	pg_atomic_init_u64(&shared->calls, 0);
	shared->first_free = QUEUE_NONE;
	for (uint32 i = 0; i < bucket_count(); i++)
		buckets[i] = QUEUE_NONE;
	for (int i = 0; i < queue_max_keys; i++)
		keys[i].queue = QUEUE_NONE;
}

const QueueShmemPart queue_key_shmem = {
	"queue keys", key_size, key_init, "QueueKey", PARTS + 1, NULL
};

static uint32
bucket_of(uint32 queue, uint64 hash)
{
	return (uint32) hash_combine64(hash, queue) & (bucket_count() - 1);
}

static LWLock *
lock_of(uint32 bucket)
{
	return &locks[1 + bucket % PARTS].lock;
}

uint32
queue_key_number(const QueueKey *key)
{
	return key - keys;
}

/* A fresh entry, or NULL if all are in use. */
static QueueKey *
allocate(void)
{
	QueueKey   *key = NULL;

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	if (shared->first_free != QUEUE_NONE)
	{
		key = &keys[shared->first_free];
		shared->first_free = key->next;
	}
	else if (shared->unused_from < (uint32) queue_max_keys)
		key = &keys[shared->unused_from++];
	if (key)
		shared->used++;
	LWLockRelease(&locks[0].lock);
	return key;
}

/* Take an entry out of its bucket and free it. Its part is locked. */
static void
forget(QueueKey *key)
{
	uint32	   *link = &buckets[bucket_of(key->queue, key->hash)];

	while (*link != queue_key_number(key))
		link = &keys[*link].next;
	*link = key->next;
	key->queue = QUEUE_NONE;
	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	key->next = shared->first_free;
	shared->first_free = queue_key_number(key);
	shared->used--;
	LWLockRelease(&locks[0].lock);
}

static QueueKey *
find(uint32 queue, uint64 hash, bool create)
{
	uint32		bucket = bucket_of(queue, hash);
	QueueKey   *key = NULL;

	LWLockAcquire(lock_of(bucket), LW_EXCLUSIVE);
	for (uint32 i = buckets[bucket]; i != QUEUE_NONE && key == NULL; i = keys[i].next)
		if (keys[i].queue == queue && keys[i].hash == hash)
			key = &keys[i];
	if (key == NULL && create && (key = allocate()) != NULL)
	{
		memset(key, 0, sizeof(*key));
		key->queue = queue;
		key->hash = hash;
		queue_span_clear(&key->backlog);
		queue_span_clear(&key->copies);
		key->first_copy = QUEUE_COPY_NONE;
		key->next = buckets[bucket];
		buckets[bucket] = queue_key_number(key);
	}
	if (key == NULL)
		LWLockRelease(lock_of(bucket));
	return key;
}

/* The entry of a key, locked; NULL if it has none. */
QueueKey *
queue_key_find(QueueState *state, uint64 hash)
{
	return find(queue_state_index(state), hash, false);
}

/* The same, made if there was none; NULL if there is no room for it. */
QueueKey *
queue_key_get(QueueState *state, uint64 hash)
{
	return find(queue_state_index(state), hash, true);
}

/*
 * Lock an entry by number. It may have become another key's since the caller
 * learned of it, who therefore does only what is right for any; NULL: it is free.
 */
QueueKey *
queue_key_lock(uint32 number)
{
	QueueKey   *key = &keys[number];

	for (;;)
	{
		uint32		queue = key->queue;
		uint64		hash = key->hash;
		LWLock	   *lock;

		if (queue == QUEUE_NONE)
			return NULL;
		lock = lock_of(bucket_of(queue, hash));
		LWLockAcquire(lock, LW_EXCLUSIVE);
		if (key->queue == queue && key->hash == hash)
			return key;
		LWLockRelease(lock);
	}
}

void
queue_key_unlock(QueueKey *key)
{
	LWLock	   *lock = lock_of(bucket_of(key->queue, key->hash));

	if (!key->ready && !queue_key_has_more(key))
		forget(key);
	LWLockRelease(lock);
}

/* A message of a locked key's backlog stays where it is. */
void
queue_key_let_wait(QueueKey *key, QueuePosition position, int64 id)
{
	bool		first = queue_span_is_empty(&key->backlog);

	key->backlog_from = first ? id : Min(key->backlog_from, id);
	key->backlog_to = first ? id : Max(key->backlog_to, id);
	queue_span_add(&key->backlog, position);
}

/* A copy of a locked key is known to be there; perhaps it was before. */
void
queue_key_add_copy(QueueKey *key, QueuePosition position, int64 id)
{
	if (queue_span_is_empty(&key->copies))
	{
		key->first_copy = id;
		key->one_copy = true;
	}
	else if (key->first_copy != id)
	{
		key->one_copy = false;
		if (key->first_copy != QUEUE_COPY_UNKNOWN)
			key->first_copy = Min(key->first_copy, id);
	}
	queue_span_add(&key->copies, position);
}

/* ---- keys to be looked at ---- */

/* Which of a locked key's copies is the first is not known any more. */
static void
forget_first_copy(QueueKey *key)
{
	if (queue_span_is_empty(&key->copies))
		return;
	key->first_copy = QUEUE_COPY_UNKNOWN;
	key->one_copy = false;
}

/* Put a locked entry into its queue's list, at one end of it. Returns whether that is news. */
static bool
put_into_list(QueueKey *key, bool first)
{
	QueueState *state = &queue_states[key->queue];
	uint32		number = queue_key_number(key);

	if (key->ready)
		return false;
	key->ready = true;
	SpinLockAcquire(&state->ready_mutex);
	key->previous_ready = first ? QUEUE_NONE : state->last_ready;
	key->next_ready = first ? state->first_ready : QUEUE_NONE;
	*(key->previous_ready == QUEUE_NONE ? &state->first_ready : &keys[key->previous_ready].next_ready) = number;
	*(key->next_ready == QUEUE_NONE ? &state->last_ready : &keys[key->next_ready].previous_ready) = number;
	SpinLockRelease(&state->ready_mutex);
	pg_atomic_fetch_add_u32(&state->ready_keys, 1);
	return true;
}

/* Have a locked entry looked at, after all others. Returns whether that is news. */
bool
queue_key_make_ready(QueueKey *key)
{
	return put_into_list(key, false);
}

/* The same before all others: it was taken out, and its turn has not been. */
void
queue_key_make_ready_first(QueueKey *key)
{
	(void) put_into_list(key, true);
}

static int
compare_hash(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

/*
 * These keys of a queue are blocked, and no others; they get sorted. The caller has
 * the turn. False: there is no room for one.
 */
bool
queue_key_set_blocked(QueueState *state, uint64 *hashes, int n)
{
	uint32		queue = queue_state_index(state);

	if (n > 0)
		qsort(hashes, n, sizeof(uint64), compare_hash);
	for (uint32 i = 0; i < shared->unused_from; i++)
	{
		QueueKey   *key = keys[i].queue == queue && keys[i].blocked ? queue_key_lock(i) : NULL;

		if (key == NULL)
			continue;
		if (key->queue == queue && key->blocked &&
			(n == 0 || bsearch(&key->hash, hashes, n, sizeof(uint64), compare_hash) == NULL))
		{
			key->blocked = false;
			/* Its rest may have been moved (rest.c). */
			forget_first_copy(key);
			queue_key_make_ready(key);
		}
		queue_key_unlock(key);
	}
	for (int i = 0; i < n; i++)
	{
		QueueKey   *key = queue_key_get(state, hashes[i]);

		if (key == NULL)
			return false;
		key->blocked = true;
		queue_key_unlock(key);
	}
	return true;
}

/* Something was deleted of which we do not know the keys: have all of a queue looked at. */
void
queue_key_make_all_ready(QueueState *state)
{
	uint32		queue = queue_state_index(state);

	for (uint32 i = 0; i < shared->unused_from; i++)
	{
		QueueKey   *key = keys[i].queue == queue ? queue_key_lock(i) : NULL;

		if (key == NULL)
			continue;
		if (key->queue == queue)
		{
			forget_first_copy(key);
			queue_key_make_ready(key);
		}
		queue_key_unlock(key);
	}
}

/*
 * Something of some key will be known then that nobody will tell: have all looked
 * at, once for all that is asked for until then.
 */
void
queue_key_look_later(QueueState *state, QueueTime when)
{
	uint64		never = QUEUE_TIME_NEVER;

	pg_atomic_compare_exchange_u64(&state->look_at, &never, (uint64) when);
}

void
queue_key_look_if_late(QueueState *state, QueueTime now)
{
	uint64		when = pg_atomic_read_u64(&state->look_at);

	if ((QueueTime) when <= now &&
		pg_atomic_compare_exchange_u64(&state->look_at, &when, (uint64) QUEUE_TIME_NEVER))
		queue_key_make_all_ready(state);
}

/* Take a locked entry out of that list: whoever does has the queue's turn. */
void
queue_key_not_ready(QueueKey *key)
{
	QueueState *state = &queue_states[key->queue];

	if (!key->ready)
		return;
	key->ready = false;
	SpinLockAcquire(&state->ready_mutex);
	if (key->previous_ready == QUEUE_NONE)
		state->first_ready = key->next_ready;
	else
		keys[key->previous_ready].next_ready = key->next_ready;
	if (key->next_ready == QUEUE_NONE)
		state->last_ready = key->previous_ready;
	else
		keys[key->next_ready].previous_ready = key->previous_ready;
	SpinLockRelease(&state->ready_mutex);
	pg_atomic_fetch_sub_u32(&state->ready_keys, 1);
}

static void
note_looked_at(uint32 number)
{
	Assert(looked_at_count < QUEUE_KEYS_AT_ONCE);
	looked_at[looked_at_count++] = number;
}

/*
 * Take out the key that is in the list longest, locked; NULL if it is empty.
 * Only who has the turn takes out, so the entry stays what it is until it is
 * locked; from then on whatever changes makes it ready again.
 */
QueueKey *
queue_key_next_ready(QueueState *state)
{
	uint32		number;
	QueueKey   *key;

	SpinLockAcquire(&state->ready_mutex);
	number = state->first_ready;
	SpinLockRelease(&state->ready_mutex);
	if (number == QUEUE_NONE)
		return NULL;
	key = queue_key_lock(number);
	queue_key_not_ready(key);
	note_looked_at(number);
	return key;
}

/* The same of a key that is asked for, in the list or not; NULL: nothing of it is known. */
QueueKey *
queue_key_take_out(QueueState *state, uint64 hash)
{
	QueueKey   *key = queue_key_find(state, hash);

	if (key == NULL)
		return NULL;
	queue_key_not_ready(key);
	note_looked_at(queue_key_number(key));
	return key;
}

/* The keys that were taken out were looked at to the end. */
void
queue_key_looked(void)
{
	looked_at_count = 0;
}

/* Copies of a key that was taken out, which its entry has forgotten, are being looked through; NULL: they were. */
void
queue_key_rescan(uint32 number, const QueueSpan *copies)
{
	rescanned_key = number;
	if (copies)
		rescanned = *copies;
	else
		queue_span_clear(&rescanned);
}

static void
put_back(uint32 number)
{
	QueueKey   *key = queue_key_lock(number);

	if (key == NULL)
		return;
	if (number == rescanned_key && !queue_span_is_empty(&rescanned))
	{
		queue_span_add(&key->copies, rescanned.first);
		queue_span_add(&key->copies, rescanned.last);
		key->first_copy = QUEUE_COPY_UNKNOWN;
		key->one_copy = false;
	}
	queue_key_make_ready(key);
	queue_key_unlock(key);
}

/* An error has ended the look at keys: it is as if nobody had begun. */
static void
put_back_looked_at(void)
{
	for (int i = 0; i < looked_at_count; i++)
		put_back(looked_at[i]);
	looked_at_count = 0;
	queue_span_clear(&rescanned);
}

/* The queue is gone, and its slots with it. */
void
queue_key_forget_queue(QueueState *state)
{
	uint32		queue = queue_state_index(state);

	for (uint32 i = 0; i < shared->unused_from; i++)
	{
		QueueKey   *key = keys[i].queue == queue ? queue_key_lock(i) : NULL;
		LWLock	   *lock;

		if (key == NULL)
			continue;
		lock = lock_of(bucket_of(key->queue, key->hash));
		if (key->queue == queue)
			forget(key);
		LWLockRelease(lock);
	}
	SpinLockAcquire(&state->ready_mutex);
	state->first_ready = state->last_ready = QUEUE_NONE;
	SpinLockRelease(&state->ready_mutex);
	pg_atomic_write_u32(&state->ready_keys, 0);
}

/* ---- turns ---- */

/* A number that no call, and no visit of a page, had before. */
uint64
queue_key_new_call(void)
{
	return pg_atomic_add_fetch_u64(&shared->calls, 1);
}

/*
 * Become the one who may claim from an ordered queue. Waits interruptibly; the
 * abort callbacks give the turn back. Nothing that the deadlock detector should
 * see is waited for by whoever has it.
 */
void
queue_key_take_turn(QueueState *state)
{
	static uint32 wait_event = 0;	/* named at first use */
	uint32		nobody = 0;

	Assert(turn == NULL);
	if (!pg_atomic_compare_exchange_u32(&state->turn, &nobody, MyProcPid))
	{
		if (wait_event == 0)
			wait_event = queue_wait_event_new("QueueTurn");
		ConditionVariablePrepareToSleep(&state->turns);
		for (;;)
		{
			nobody = 0;
			if (pg_atomic_compare_exchange_u32(&state->turn, &nobody, MyProcPid))
				break;
			/* The timeout is for signals that somebody got who was cancelled. */
			ConditionVariableTimedSleep(&state->turns, 10, wait_event);
		}
		turn = state;
		ConditionVariableCancelSleep();
	}
	turn = state;
}

/* Cannot fail. */
void
queue_key_give_turn(void)
{
	QueueState *state = turn;

	if (state == NULL)
		return;
	put_back_looked_at();
	turn = NULL;
	pg_atomic_exchange_u32(&state->turn, 0);
	ConditionVariableSignal(&state->turns);
}

void
queue_key_usage(uint32 *used, uint32 *total)
{
	*used = shared->used;
	*total = queue_max_keys;
}
