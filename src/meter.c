/*
 * meter.c
 *	  What is in use of a queue's limits, and which keys wait for room.
 *
 * A meter is there for a queue, a consumer or a key of which leases are counted,
 * whose bucket is not full, or that has messages waiting. What must hold is in
 * src/README.md, "Limits and fair share".
 *
 * What a reader must believe:
 * - One lock guards all meters of a queue, so a message is counted on all of its
 *   meters or on none, and no limit is exceeded by one.
 * - A key that has messages waiting and could have one now is in its queue's list
 *   of ready ones; one that lacks tokens is in its heap, by when it has enough;
 *   one with too many leases is found by whoever ends one of them.
 * - Nothing here can fail or allocate, so callbacks may use it. The locks are
 *   leaves but for that of the free entries.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "port/pg_bitutils.h"

#include "guc.h"
#include "meter.h"
#include "places.h"

#define LOCKS 64
#define NO_METER PG_UINT32_MAX

typedef struct QueueMeter
{
	uint32		next;			/* in its bucket, or of those that are free */
	uint32		queue;			/* index of its state; QUEUE_NONE: the entry is free */
	uint64		hash;
	QueueLimitScope scope;
	QueueLimit	limit;			/* as of the last claim */
	uint32		held;			/* leases */
	double		tokens;
	QueueTime	refilled;
	QueueTime	expires;		/* no lease of it runs out before, of a queue's or consumer's */
	double		credit;			/* messages it may have before the next one's turn */
	bool		refused;		/* the last one that asked */

	QueuePlaces places;			/* where messages of a key wait */

	bool		ready;			/* in the queue's list */
	bool		timed;			/* in its heap, by "at" */
	uint32		next_ready;
	uint32		previous_ready;
	QueueTime	at;
	pairingheap_node node;
} QueueMeter;

typedef struct MeterShared
{
	/* under lock 0 */
	uint32		first_free;
	uint32		unused_from;
	uint32		used;
} MeterShared;

/* Attached at start, the same in every process. */
static MeterShared *shared;
static QueueMeter *all;
static uint32 *buckets;			/* so many for each lock */
static LWLockPadded *locks;

static uint32
buckets_of_lock(void)
{
	return Max(pg_nextpower2_32((uint32) queue_max_meters) / LOCKS, 1);
}

static Size
meter_size(void)
{
	Size		size = MAXALIGN(sizeof(MeterShared));

	size = add_size(size, mul_size(queue_max_meters, sizeof(QueueMeter)));
	return add_size(size, mul_size((Size) buckets_of_lock() * LOCKS, sizeof(uint32)));
}

static void
meter_init(void *area, bool found)
{
	shared = area;
	all = (QueueMeter *) ((char *) area + MAXALIGN(sizeof(MeterShared)));
	buckets = (uint32 *) (all + queue_max_meters);
	locks = GetNamedLWLockTranche("QueueMeter");
	if (found)
		return;
	memset(area, 0, meter_size());
	shared->first_free = NO_METER;
	for (uint32 i = 0; i < buckets_of_lock() * LOCKS; i++)
		buckets[i] = NO_METER;
	for (int i = 0; i < queue_max_meters; i++)
		all[i].queue = QUEUE_NONE;
}

const QueueShmemPart queue_meter_shmem = {
	"queue meters", meter_size, meter_init, "QueueMeter", LOCKS + 1, NULL
};

static void
lock(QueueState *state)
{
	LWLockAcquire(&locks[1 + queue_state_index(state) % LOCKS].lock, LW_EXCLUSIVE);
}

static void
unlock(QueueState *state)
{
	LWLockRelease(&locks[1 + queue_state_index(state) % LOCKS].lock);
}

/* ---- entries; the queue's lock is held from here on ---- */

static uint32 *
bucket_of(uint32 queue, uint64 hash)
{
	uint32		mixed = (uint32) hash_combine64(hash, queue);

	return &buckets[(queue % LOCKS) * buckets_of_lock() + mixed % buckets_of_lock()];
}

static uint32
number_of(const QueueMeter *meter)
{
	return meter - all;
}

static bool
has_waiting(const QueueMeter *meter)
{
	return !queue_places_are_none(&meter->places);
}

static void
refill(QueueMeter *meter, QueueTime now)
{
	if (meter->limit.rate > 0 && now > meter->refilled)
		meter->tokens = Min(meter->limit.burst, meter->tokens + (now - meter->refilled) / 1e6 * meter->limit.rate);
	meter->refilled = Max(meter->refilled, now);
}

/* Whether forgetting it would change anything. */
static bool
is_idle(QueueMeter *meter, QueueTime now)
{
	refill(meter, now);
	return meter->held == 0 && !has_waiting(meter) && !meter->ready && !meter->timed &&
		(meter->limit.rate == 0 || meter->tokens >= meter->limit.burst);
}

static void
forget(QueueMeter *meter)
{
	uint32	   *link = bucket_of(meter->queue, meter->hash);

	while (*link != number_of(meter))
		link = &all[*link].next;
	*link = meter->next;
	meter->queue = QUEUE_NONE;
	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	meter->next = shared->first_free;
	shared->first_free = number_of(meter);
	shared->used--;
	LWLockRelease(&locks[0].lock);
}

static QueueMeter *
allocate(void)
{
	QueueMeter *meter = NULL;

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	if (shared->first_free != NO_METER)
	{
		meter = &all[shared->first_free];
		shared->first_free = meter->next;
	}
	else if (shared->unused_from < (uint32) queue_max_meters)
		meter = &all[shared->unused_from++];
	if (meter)
		shared->used++;
	LWLockRelease(&locks[0].lock);
	return meter;
}

/* Forget what is idle in a bucket, of whatever queue has this lock. */
static void
tidy(uint32 *bucket, QueueTime now)
{
	uint32		next;

	for (uint32 i = *bucket; i != NO_METER; i = next)
	{
		next = all[i].next;
		if (is_idle(&all[i], now))
			forget(&all[i]);
	}
}

static QueueMeter *
find(uint32 queue, uint64 hash)
{
	uint32		i = *bucket_of(queue, hash);

	while (i != NO_METER && (all[i].queue != queue || all[i].hash != hash))
		i = all[i].next;
	return i == NO_METER ? NULL : &all[i];
}

/* Find or make one, and bring it up to date; NULL: there is no room. */
static QueueMeter *
get(const QueueMetering *metering, QueueLimitScope scope, uint64 hash, const QueueLimit *limit)
{
	uint32		queue = queue_state_index(metering->state);
	uint32	   *bucket = bucket_of(queue, hash);
	QueueMeter *meter = find(queue, hash);

	if (meter == NULL)
	{
		/* So that buckets which are full by now do not stay for ever. */
		tidy(bucket, metering->now);
		meter = allocate();
		for (uint32 i = 0; meter == NULL && i < buckets_of_lock(); i++)
		{
			tidy(&buckets[(queue % LOCKS) * buckets_of_lock() + i], metering->now);
			if (shared->first_free != NO_METER)
				meter = allocate();
		}
		if (meter == NULL)
			return NULL;
		memset(meter, 0, sizeof(*meter));
		meter->queue = queue;
		meter->hash = hash;
		meter->scope = scope;
		meter->tokens = limit->burst;
		meter->refilled = metering->now;
		meter->expires = QUEUE_TIME_NEVER;
		queue_places_clear(&meter->places);
		meter->next = *bucket;
		*bucket = number_of(meter);
	}
	/* A rate that was not there before begins with a full bucket. */
	if (meter->limit.rate == 0 && limit->rate > 0)
		meter->tokens = limit->burst;
	meter->limit = *limit;
	refill(meter, metering->now);
	return meter;
}

/* ---- those that wait for tokens ---- */

static QueueMeter *
meter_of(pairingheap_node *node)
{
	return pairingheap_container(QueueMeter, node, node);
}

static int
compare_at(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	QueueTime	x = pairingheap_const_container(QueueMeter, node, a)->at;
	QueueTime	y = pairingheap_const_container(QueueMeter, node, b)->at;

	/* The earliest is first. */
	return x < y ? 1 : x > y ? -1 : 0;
}

/* NULL: none waits. */
static QueueMeter *
first_timed(QueueState *state)
{
	return pairingheap_is_empty(&state->meter_heap) ? NULL : meter_of(pairingheap_first(&state->meter_heap));
}

static void
note_first_timed(QueueState *state)
{
	QueueMeter *first = first_timed(state);

	pg_atomic_write_u64(&state->meters_due, (uint64) (first ? first->at : QUEUE_TIME_NEVER));
}

static void
remove_timed(QueueState *state, QueueMeter *meter)
{
	if (!meter->timed)
		return;
	meter->timed = false;
	pairingheap_remove(&state->meter_heap, &meter->node);
	note_first_timed(state);
}

static void
add_timed(QueueState *state, QueueMeter *meter, QueueTime at)
{
	remove_timed(state, meter);
	meter->timed = true;
	meter->at = at;
	state->meter_heap.ph_compare = compare_at;
	pairingheap_add(&state->meter_heap, &meter->node);
	note_first_timed(state);
}

/* ---- keys that can have something ---- */

static void
remove_ready(QueueState *state, QueueMeter *meter)
{
	if (!meter->ready)
		return;
	meter->ready = false;
	if (meter->previous_ready == NO_METER)
		state->first_ready_meter = meter->next_ready;
	else
		all[meter->previous_ready].next_ready = meter->next_ready;
	if (meter->next_ready == NO_METER)
		state->last_ready_meter = meter->previous_ready;
	else
		all[meter->next_ready].previous_ready = meter->previous_ready;
	pg_atomic_fetch_sub_u32(&state->meters_ready, 1);
}

/* At the end of the list. */
static void
add_ready(QueueState *state, QueueMeter *meter)
{
	if (meter->ready)
		return;
	meter->ready = true;
	meter->next_ready = NO_METER;
	meter->previous_ready = state->last_ready_meter;
	if (state->last_ready_meter == NO_METER)
		state->first_ready_meter = number_of(meter);
	else
		all[state->last_ready_meter].next_ready = number_of(meter);
	state->last_ready_meter = number_of(meter);
	pg_atomic_fetch_add_u32(&state->meters_ready, 1);
}

static bool
has_lease(const QueueMeter *meter)
{
	return meter->limit.in_flight < 0 || (int64) meter->held < meter->limit.in_flight;
}

/* What a message must find in the bucket; one that costs more than all of it leaves a debt. */
static double
needed(const QueueMeter *meter, double cost)
{
	return Min(cost, meter->limit.burst);
}

static bool
has_tokens(const QueueMeter *meter, double cost)
{
	/* A thousandth of a message: what is lost by rounding. */
	return meter->limit.rate == 0 || meter->tokens + 0.001 >= needed(meter, cost);
}

static QueueTime
tokens_at(const QueueMeter *meter, double cost)
{
	double		usecs = (needed(meter, cost) - meter->tokens) / meter->limit.rate * 1e6;

	return meter->refilled + (QueueTime) Min(Max(usecs, 0) + 1, 1e15);
}

/* Put a key that has messages waiting where it is found when it can have one. True: now. */
static bool
arrange(QueueState *state, QueueMeter *meter, double cost)
{
	if (!has_waiting(meter) || !has_lease(meter))
	{
		remove_ready(state, meter);
		remove_timed(state, meter);
		return false;
	}
	if (!has_tokens(meter, cost))
	{
		remove_ready(state, meter);
		add_timed(state, meter, tokens_at(meter, cost));
		return false;
	}
	remove_timed(state, meter);
	add_ready(state, meter);
	return true;
}

/* ---- claims ---- */

static void
drop_waiting(QueueState *state, QueueMeter *meter)
{
	queue_places_clear(&meter->places);
	remove_ready(state, meter);
	remove_timed(state, meter);
}

/*
 * Whether the limits of a version of the definition, or of a later one, are in
 * force. So that 0 is none, it is kept as one more.
 */
bool
queue_meter_is_known(QueueState *state, uint32 version)
{
	return (int32) (version + 1 - pg_atomic_read_u32(&state->meters_version)) <= 0;
}

/* Whether just these are, and no later ones. */
bool
queue_meter_is_in_force(QueueState *state, uint32 version)
{
	return pg_atomic_read_u32(&state->meters_version) == version + 1;
}

/*
 * Other limits are to be in force: what waits is forgotten, and from now on no lease
 * goes uncounted. The caller has the queue's turn. He has all pages looked at,
 * counts what is leased already, and then says so.
 */
void
queue_meter_begin(const QueueMetering *metering)
{
	QueueState *state = metering->state;
	uint32		queue = queue_state_index(state);

	lock(state);
	for (uint32 i = 0; i < shared->unused_from; i++)
		if (all[i].queue == queue)
			drop_waiting(state, &all[i]);
	state->front.number = 0;
	state->front.at = 0;
	state->metered = metering->limits->any || metering->fair;
	/* None are in force until all is counted, so nobody takes anything. */
	pg_atomic_write_u32(&state->meters_version, 0);
	unlock(state);
}

void
queue_meter_set_known(QueueState *state, uint32 version)
{
	lock(state);
	pg_atomic_write_u64(&state->meters_closed, 0);
	if (!queue_meter_is_known(state, version))
		pg_atomic_write_u32(&state->meters_version, version + 1);
	unlock(state);
}

/*
 * The queue or the consumer has no room: of a queue it is known when it is to be
 * asked again.
 */
static QueueMeterVerdict
close_for(QueueState *state, QueueLimitScope scope, QueueTime until)
{
	if (scope == QUEUE_LIMIT_QUEUE)
		pg_atomic_write_u64(&state->meters_closed, (uint64) until);
	return QUEUE_METER_CLOSED;
}

static const QueueLimit no_limit = {.in_flight = -1};

/* How long a queue stays closed for which there is no meter, us. */
#define NO_METER_PAUSE 1000000

/* What limits one of a scope; keys of ordered queues have none, whatever was restored. */
static const QueueLimit *
limit_in(const QueueMetering *metering, QueueLimitScope scope, uint64 hash)
{
	if (scope == QUEUE_LIMIT_KEY && (hash == QUEUE_METER_NO_KEY || metering->state->ordered))
		return &no_limit;
	return queue_limit_of(metering->limits, scope, hash);
}

/* Find the meters that a message has to be counted on. */
static QueueMeterVerdict
find_meters(const QueueMetering *metering, uint64 key, double cost, QueuePosition position,
			QueueMeter **found, uint64 *hashes)
{
	QueueState *state = metering->state;

	hashes[QUEUE_LIMIT_QUEUE] = 0;
	hashes[QUEUE_LIMIT_CONSUMER] = metering->consumer;
	hashes[QUEUE_LIMIT_KEY] = key;
	for (int scope = 0; scope < QUEUE_LIMIT_SCOPES; scope++)
	{
		const QueueLimit *limit = limit_in(metering, scope, hashes[scope]);
		bool		fair = scope == QUEUE_LIMIT_KEY && metering->fair;
		QueueMeter *meter;

		if (queue_limit_is_none(limit) && !fair)
			continue;
		meter = get(metering, scope, hashes[scope], limit);
		if (meter == NULL && scope != QUEUE_LIMIT_KEY)
			return close_for(state, scope, metering->now + NO_METER_PAUSE);
		/* Without a meter a key has no limit that could be kept; its turn can be given up. */
		if (meter == NULL && !queue_limit_is_none(limit))
			return QUEUE_METER_LATER;
		if (meter == NULL)
			continue;
		meter->refused = !has_lease(meter) || !has_tokens(meter, cost);
		if (scope != QUEUE_LIMIT_KEY && meter->refused)
			return close_for(state, scope, has_lease(meter) ? tokens_at(meter, cost) : meter->expires);
		if (meter->refused || (fair && meter->credit < 1))
		{
			queue_places_add(&meter->places, position, &state->front);
			arrange(state, meter, cost);
			return QUEUE_METER_WAIT;
		}
		/* Counted at once, so that it is not forgotten while others are found. */
		meter->held++;
		found[scope] = meter;
	}
	return QUEUE_METER_TAKE;
}

/* A message of a key is taken: with fair share others come when its turn is used up. */
static void
use_turn(QueueState *state, QueueMeter *meter)
{
	bool		was_last = meter->credit >= 1 && meter->credit < 2;

	meter->credit = Max(meter->credit - 1, 0);
	if (was_last && state->first_ready_meter == number_of(meter))
		remove_ready(state, meter);
	arrange(state, meter, 1);
}

/*
 * Count a message that is about to be leased, or say why it cannot be. "key" is
 * the hash of its key. Without "meters" it is only asked. Its page is held by the
 * caller.
 */
QueueMeterVerdict
queue_meter_take(const QueueMetering *metering, uint64 key, double cost, QueuePosition position,
				 QueueTime deadline, QueueMeters *meters)
{
	QueueState *state = metering->state;
	QueueMeter *found[QUEUE_LIMIT_SCOPES] = {NULL};
	uint64		hashes[QUEUE_LIMIT_SCOPES];
	QueueMeterVerdict verdict;

	lock(state);
	verdict = find_meters(metering, key, cost, position, found, hashes);
	if (meters)
		memcpy(meters->hashes, hashes, sizeof(hashes));
	for (int scope = 0; scope < QUEUE_LIMIT_SCOPES; scope++)
	{
		QueueMeter *meter = found[scope];

		if (meters)
			meters->on[scope] = meter != NULL;
		if (meter == NULL)
			continue;
		if (verdict != QUEUE_METER_TAKE || meters == NULL)
		{
			meter->held--;
			continue;
		}
		meter->expires = Min(meter->expires, deadline);
		if (meter->limit.rate > 0)
			meter->tokens -= cost;
		if (scope == QUEUE_LIMIT_KEY)
			use_turn(state, meter);
	}
	unlock(state);
	return verdict;
}

/* Whether a key has it in mind that something of it waits at a place. */
bool
queue_meter_knows(QueueState *state, uint64 key, QueuePosition position)
{
	QueueMeter *meter;
	bool		known;

	lock(state);
	meter = find(queue_state_index(state), key);
	known = meter && queue_places_know(&meter->places, position, &state->front);
	unlock(state);
	return known;
}

/*
 * Count a lease on limits of the queue and its consumer that there were not when it
 * was given; if nothing counted it, its key is not known. Returns whether anything
 * counts it now.
 */
bool
queue_meter_adopt(const QueueMetering *metering, uint64 consumer, bool counted, QueueTime deadline,
				  QueueMeters *meters)
{
	QueueState *state = metering->state;

	if (!counted)
	{
		memset(meters->on, 0, sizeof(meters->on));
		meters->hashes[QUEUE_LIMIT_KEY] = QUEUE_METER_NO_KEY;
	}
	meters->hashes[QUEUE_LIMIT_QUEUE] = 0;
	meters->hashes[QUEUE_LIMIT_CONSUMER] = consumer;
	lock(state);
	for (int scope = 0; scope < QUEUE_LIMIT_KEY; scope++)
	{
		const QueueLimit *limit = queue_limit_of(metering->limits, scope, meters->hashes[scope]);
		QueueMeter *meter = queue_limit_is_none(limit) ? NULL : get(metering, scope, meters->hashes[scope], limit);

		if (meter == NULL)
			continue;
		meter->held += !meters->on[scope];
		meter->expires = Min(meter->expires, deadline);
		meters->on[scope] = true;
	}
	unlock(state);
	return meters->on[QUEUE_LIMIT_QUEUE] || meters->on[QUEUE_LIMIT_CONSUMER] || meters->on[QUEUE_LIMIT_KEY];
}

/*
 * A lease that had run out is to hold again. False: there is no room for it any
 * more.
 */
bool
queue_meter_again(const QueueMetering *metering, QueueTime deadline, QueueMeters *meters, bool *counted)
{
	QueueState *state = metering->state;
	QueueMeter *found[QUEUE_LIMIT_SCOPES] = {NULL};
	bool		room = true;

	lock(state);
	for (int scope = 0; scope < QUEUE_LIMIT_SCOPES && room; scope++)
	{
		const QueueLimit *limit = limit_in(metering, scope, meters->hashes[scope]);
		QueueMeter *meter = queue_limit_is_none(limit) ? NULL : get(metering, scope, meters->hashes[scope], limit);

		room = meter == NULL || has_lease(meter);
		if (meter == NULL || !room)
			continue;
		meter->held++;
		found[scope] = meter;
	}
	*counted = false;
	for (int scope = 0; scope < QUEUE_LIMIT_SCOPES; scope++)
	{
		meters->on[scope] = room && found[scope];
		*counted |= meters->on[scope];
		if (found[scope] && !room)
			found[scope]->held--;
		else if (found[scope])
			found[scope]->expires = Min(found[scope]->expires, deadline);
	}
	unlock(state);
	return room;
}

/*
 * A lease that was counted has ended. True: somebody may have been waiting for
 * that.
 */
bool
queue_meter_end(QueueState *state, QueueMeters *meters)
{
	uint32		queue = queue_state_index(state);
	bool		wake = false;

	lock(state);
	for (int scope = 0; scope < QUEUE_LIMIT_SCOPES; scope++)
	{
		QueueMeter *meter = meters->on[scope] ? find(queue, meters->hashes[scope]) : NULL;

		if (meter == NULL || meter->held == 0)
			continue;
		meter->held--;
		if (meter->held == 0)
			meter->expires = QUEUE_TIME_NEVER;
		if (scope == QUEUE_LIMIT_QUEUE && meter->limit.in_flight >= 0)
			pg_atomic_write_u64(&state->meters_closed, 0);
		wake |= meter->refused;
		/* Who sleeps does not know of the time either when it has tokens again. */
		if (scope == QUEUE_LIMIT_KEY)
			wake |= arrange(state, meter, 1) || meter->timed;
		if (meter->held == 0 && meter->limit.rate == 0 && is_idle(meter, meter->refilled))
			forget(meter);
	}
	unlock(state);
	return wake;
}

/* The first key of the list, or the one that is asked for, if it is in it. */
static QueueMeter *
next_ready(const QueueMetering *metering)
{
	QueueState *state = metering->state;
	QueueMeter *meter;

	if (metering->only == 0)
		return state->first_ready_meter == NO_METER ? NULL : &all[state->first_ready_meter];
	meter = find(queue_state_index(state), metering->only);
	return meter && meter->ready ? meter : NULL;
}

/* Those that have tokens by now are in the list. */
static void
wake_timed(const QueueMetering *metering)
{
	QueueState *state = metering->state;
	QueueMeter *meter;

	while ((meter = first_timed(state)) != NULL && meter->at <= metering->now)
	{
		remove_timed(state, meter);
		refill(meter, metering->now);
		add_ready(state, meter);
	}
}

/* Whether there may be a key that can have a message now. */
static bool
may_be_ready(const QueueMetering *metering)
{
	return pg_atomic_read_u32(&metering->state->meters_ready) > 0 ||
		(QueueTime) pg_atomic_read_u64(&metering->state->meters_due) <= metering->now;
}

/* Pages by which a span may be beyond the front for it to go on there, and spans elsewhere that make for a new one. */
#define NEAR_FRONT 64
#define APART_FROM_FRONT 256

/* The front that goes on to a span, which may be a new one; 0: none. */
static uint32
find_front(QueueState *state, QueuePosition first, bool behind)
{
	QueueFront *front = &state->front;

	if (front->number != 0 && (behind || first < front->at || first - front->at >= NEAR_FRONT) &&
		++front->apart <= APART_FROM_FRONT)
		return 0;
	if (front->number == 0 || front->apart > APART_FROM_FRONT)
	{
		front->number = Max(front->number + 1, 1);
		front->from = front->at = first;
	}
	front->apart = 0;
	return front->number;
}

/* The place that will probably be offered next. False: none. */
bool
queue_meter_peek(const QueueMetering *metering, QueuePosition *first)
{
	QueueMeter *meter;

	if (!may_be_ready(metering))
		return false;
	lock(metering->state);
	wake_timed(metering);
	meter = next_ready(metering);
	*first = meter ? queue_places_first(&meter->places, &metering->state->front) : QUEUE_POSITION_NONE;
	unlock(metering->state);
	return meter != NULL;
}

static double
weight_of(const QueueMeter *meter)
{
	return meter->limit.weight > 0 ? meter->limit.weight : 1;
}

/* A key's place was taken: it is last in the list, or stays where it is, if it has another. */
static void
end_offer(QueueState *state, QueueMeter *meter, bool is_last)
{
	if (is_last || !has_waiting(meter))
		remove_ready(state, meter);
	if (is_last && has_waiting(meter))
		add_ready(state, meter);
}

/* The first key that has something and can have it. */
static QueueMeter *
next_to_offer(const QueueMetering *metering)
{
	QueueMeter *meter;

	while ((meter = next_ready(metering)) != NULL && (!has_waiting(meter) || !has_lease(meter)))
		remove_ready(metering->state, meter);
	return meter;
}

/*
 * Who looks along a span: the front, or the key alone, up to where the front is, or
 * with its page if the key has to come into step. Who asks for one key asks no others,
 * so the front would not move.
 */
static void
describe_offer(const QueueMetering *metering, const QueueMeter *meter, QueueOffer *offer)
{
	QueueState *state = metering->state;
	bool		behind = queue_places_are_behind(&meter->places, &state->front);

	offer->front = offer->open && metering->fair && metering->only == 0 ? find_front(state, offer->first, behind) : 0;
	if (behind)
		offer->until = state->front.at + 1;
	else
		offer->until = offer->first < state->front.at ? state->front.at : QUEUE_POSITION_NONE;
}

/*
 * Take the next place where a key waits that can have a message now; the caller
 * has it looked at. With fair share a key goes to the end of the list when it has
 * used up its turn. False: there is none.
 */
bool
queue_meter_offer(const QueueMetering *metering, QueueOffer *offer)
{
	QueueState *state = metering->state;
	QueueMeter *meter;
	bool		found = false;

	if (!may_be_ready(metering))
		return false;
	lock(state);
	wake_timed(metering);
	while (!found && (meter = next_to_offer(metering)) != NULL)
	{
		/* Whose turn has come, or who has not used it up. */
		if (metering->fair && meter->credit < 1)
			meter->credit += weight_of(meter);
		found = (!metering->fair || meter->credit >= 1) &&
			queue_places_take(&meter->places, &state->front, &offer->first, &offer->open);
		if (found)
		{
			offer->key = meter->hash;
			describe_offer(metering, meter, offer);
		}
		/* Others before its next one, unless it has more than that left. */
		end_offer(state, meter, !metering->fair || meter->credit < 2);
	}
	unlock(state);
	return found;
}

/* Take the next key's place too, where keys take turns, if it is this one. */
bool
queue_meter_offer_at(const QueueMetering *metering, QueuePosition place, uint64 *key)
{
	QueueState *state = metering->state;
	QueueMeter *meter;
	QueuePosition first;
	bool		open;
	bool		is_there;

	lock(state);
	meter = next_to_offer(metering);
	is_there = meter && meter->credit < 1 && meter->places.count > 0 &&
		queue_places_first(&meter->places, &state->front) == place &&
		queue_places_take(&meter->places, &state->front, &first, &open);
	if (is_there)
	{
		*key = meter->hash;
		meter->credit += weight_of(meter);
		end_offer(state, meter, meter->credit < 2);
	}
	unlock(state);
	return is_there;
}

/* The front's number if it stands at a place; 0: it does not. */
uint32
queue_meter_is_at_front(QueueState *state, QueuePosition position)
{
	uint32		number;

	lock(state);
	number = state->front.at == position ? state->front.number : 0;
	unlock(state);
	return number;
}

/* Where the front is. False: it is another one by now. */
bool
queue_meter_read_front(QueueState *state, uint32 number, QueuePosition *at)
{
	bool		same;

	lock(state);
	same = state->front.number == number;
	*at = state->front.at;
	unlock(state);
	return same;
}

/* All that waits at a place was asked for while the front was there. */
void
queue_meter_move_front(QueueState *state, uint32 number, QueuePosition from, QueuePosition next)
{
	lock(state);
	if (state->front.number == number && state->front.at == from)
		state->front.at = next;
	unlock(state);
}

/*
 * What was offered as the beginning of a span is looked at up to before "next",
 * where it begins from now on. False: somebody else has it looked at.
 */
bool
queue_meter_advance(QueueState *state, const QueueOffer *offer, QueuePosition next)
{
	QueueMeter *meter;
	bool		mine;

	lock(state);
	meter = find(queue_state_index(state), offer->key);
	mine = meter && queue_places_advance(&meter->places, offer->first, next, &state->front);
	unlock(state);
	return mine;
}

/* A lease that is counted is to be looked at by then: nobody tells of its end. */
void
queue_meter_look_by(QueueState *state, QueueMeters *meters, QueueTime when)
{
	uint32		queue = queue_state_index(state);

	lock(state);
	for (int scope = 0; scope < QUEUE_LIMIT_SCOPES; scope++)
	{
		QueueMeter *meter = meters->on[scope] ? find(queue, meters->hashes[scope]) : NULL;

		if (meter)
			meter->expires = Min(meter->expires, when);
	}
	/* It may be closed until a later time. */
	pg_atomic_write_u64(&state->meters_closed, 0);
	unlock(state);
}

/* When there is something to do in a queue whose pages say "due". */
QueueTime
queue_meter_due(QueueState *state, QueueTime due)
{
	if (!state->metered)
		return due;
	if (pg_atomic_read_u32(&state->meters_ready) > 0)
		due = 0;
	due = Min(due, (QueueTime) pg_atomic_read_u64(&state->meters_due));
	return Max(due, (QueueTime) pg_atomic_read_u64(&state->meters_closed));
}

/* ---- leases that run out ---- */

static bool
is_overdue(const QueueMetering *metering, uint64 hash)
{
	QueueMeter *meter = find(queue_state_index(metering->state), hash);

	return meter != NULL && !has_lease(meter) && meter->expires <= metering->now;
}

/*
 * Whether the queue or the consumer has no room because of leases that may have
 * run out, on pages that nobody comes to as long as there is no room.
 */
bool
queue_meter_is_overdue(const QueueMetering *metering)
{
	bool		overdue;

	lock(metering->state);
	overdue = is_overdue(metering, 0) || is_overdue(metering, metering->consumer);
	unlock(metering->state);
	return overdue;
}

/* When leases run out that count on the meter of the queue and of the consumer: no later than these. */
static void
set_expiry(const QueueMetering *metering, bool forget, QueueTime of_queue, QueueTime of_consumer)
{
	QueueState *state = metering->state;
	uint64		hashes[] = {0, metering->consumer};
	QueueTime	times[] = {of_queue, of_consumer};

	lock(state);
	for (int i = 0; i < 2; i++)
	{
		QueueMeter *meter = find(queue_state_index(state), hashes[i]);

		if (meter)
			meter->expires = forget ? QUEUE_TIME_NEVER : Min(meter->expires, times[i]);
	}
	pg_atomic_write_u64(&state->meters_closed, 0);
	unlock(state);
}

/*
 * Somebody begins to look at all leases: what runs out next is not known until he
 * says so, but for leases that are given meanwhile.
 */
void
queue_meter_forget_expiry(const QueueMetering *metering)
{
	set_expiry(metering, true, QUEUE_TIME_NEVER, QUEUE_TIME_NEVER);
}

void
queue_meter_lower_expiry(const QueueMetering *metering, QueueTime of_queue, QueueTime of_consumer)
{
	set_expiry(metering, false, of_queue, of_consumer);
}

/* Something has changed because of which a claim may find what it could not have. */
void
queue_meter_reopen(QueueState *state)
{
	lock(state);
	pg_atomic_write_u64(&state->meters_closed, 0);
	unlock(state);
}

/* ---- the rest ---- */

/* The queue is gone. */
void
queue_meter_forget_queue(QueueState *state)
{
	uint32		queue = queue_state_index(state);

	lock(state);
	for (uint32 i = 0; i < shared->unused_from; i++)
		if (all[i].queue == queue)
		{
			drop_waiting(state, &all[i]);
			forget(&all[i]);
		}
	state->metered = false;
	pg_atomic_write_u32(&state->meters_version, 0);
	pg_atomic_write_u64(&state->meters_closed, 0);
	unlock(state);
}

/* What is in use of a limit. */
void
queue_meter_read(QueueState *state, uint64 hash, const QueueLimit *limit, QueueMeterReading *reading)
{
	QueueMeter *meter;

	reading->held = 0;
	reading->tokens = limit->burst;
	reading->waits = false;
	lock(state);
	meter = find(queue_state_index(state), hash);
	if (meter)
	{
		refill(meter, queue_clock_now());
		reading->held = meter->held;
		reading->tokens = meter->tokens;
		reading->waits = has_waiting(meter) || (hash == 0 && meter->refused && !(has_lease(meter) && has_tokens(meter, 1)));
	}
	unlock(state);
}

/* How many of a scope's meters have refused somebody who still waits. */
int64
queue_meter_count_waiting(QueueState *state, QueueLimitScope scope)
{
	uint32		queue = queue_state_index(state);
	int64		waiting = 0;

	lock(state);
	for (uint32 i = 0; i < shared->unused_from; i++)
		waiting += all[i].queue == queue && all[i].scope == scope &&
			(scope == QUEUE_LIMIT_KEY ? has_waiting(&all[i]) : all[i].refused && !(has_lease(&all[i]) && has_tokens(&all[i], 1)));
	unlock(state);
	return waiting;
}

void
queue_meter_usage(uint32 *used, uint32 *total)
{
	*used = shared->used;
	*total = queue_max_meters;
}
