/*
 * limited.c
 *	  Claims from queues that have limits, or whose keys take turns.
 *
 * A message whose key has no room is passed over, and its page is not due for it;
 * when the key has room, the places that it knows are made due again, one after the
 * other. src/README.md, "Limits and fair share", has what must hold.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/guc.h"

#include "delta.h"
#include "guc.h"
#include "lease.h"
#include "limited.h"
#include "ring.h"
#include "wakeup.h"

/* Pages that are looked at again together, where a key does not know which. */
#define PAGES_AT_ONCE QUEUE_MAP_GROUP_PAGES

static uint64
hash_consumer(const char *name)
{
	char		cut[QUEUE_CONSUMER_LENGTH];

	strlcpy(cut, name, sizeof(cut));
	return queue_limit_hash(QUEUE_LIMIT_CONSUMER, cut, strlen(cut));
}

/* Of the key that a call asks for; 0: of any. */
static uint64
hash_key(const char *key)
{
	if (key == NULL)
		return 0;
	return key[0] == '\0' ? QUEUE_METER_NO_KEY : queue_limit_hash(QUEUE_LIMIT_KEY, key, strlen(key));
}

/* ---- new limits ---- */

/* Count the leases that were given before there were limits. */
static void
adopt_leases(const QueueMetering *metering)
{
	uint32		queue = queue_state_index(metering->state);
	QueueTime	soon = queue_clock_now() + queue_recheck_interval * INT64CONST(1000);

	for (uint32 i = 0; i < queue_slot_count(); i++)
	{
		QueueSlot  *slot = queue_slot(i);
		uint64		word = pg_atomic_read_u64(&slot->word);
		QueueSlotState state;

		/* Whoever locks it from now on knows that leases are counted. */
		if (!(word & QUEUE_SLOT_LOCKED) &&
			(QUEUE_SLOT_STATE(word) == QUEUE_SLOT_FREE || slot->queue != queue))
			continue;
		word = queue_slot_lock(slot);
		state = QUEUE_SLOT_STATE(word);
		if (state == QUEUE_SLOT_SETTLING)
			state = QUEUE_SLOT_STATE(slot->prior);
		if (state == QUEUE_SLOT_LEASED && slot->queue == queue)
			slot->metered = queue_meter_adopt(metering, hash_consumer(slot->consumer), slot->metered,
											  word & QUEUE_SLOT_PREPARED ? soon : slot->deadline,
											  queue_slot_meters(slot));
		queue_slot_unlock(slot, word);
	}
}

/*
 * Have the limits in force that the claim's definition has. False: our own
 * transaction changes them, so nobody knows yet what may be had.
 */
bool
queue_limited_begin(QueueClaim *claim)
{
	QueueDef   *def = claim->request->def;
	QueueState *state = def->state;
	QueueMetering *metering = &claim->metering;

	claim->metered = def->limits.any || def->options.fair_share;
	claim->closed = claim->stale = false;
	if (!claim->metered && !state->metered && queue_meter_is_known(state, def->version))
		return true;
	if ((claim->metered || state->metered) && queue_delta_alters(state))
		return false;
	metering->state = state;
	metering->limits = &def->limits;
	metering->fair = def->options.fair_share;
	metering->consumer = hash_consumer(claim->request->consumer ? claim->request->consumer : application_name);
	metering->only = hash_key(claim->request->key);
	metering->now = queue_clock_now();
	if (queue_meter_is_known(state, def->version))
		return true;
	if (claim->metered || state->metered)
	{
		/* One at a time, and nobody claims under them before all is counted. */
		queue_key_take_turn(state);
		if (!queue_meter_is_known(state, def->version))
		{
			queue_meter_begin(metering);
			pg_memory_barrier();
			if (claim->metered)
				adopt_leases(metering);
			/* What was passed over for a limit that is no more, or another. */
			queue_ring_lower(state);
			queue_meter_set_known(state, def->version);
		}
		queue_key_give_turn();
	}
	else
		queue_meter_set_known(state, def->version);
	return true;
}

/* ---- keys that have room ---- */

/* The segment of a place, or the next one that there is; NULL: none. */
static QueueSegment *
segment_of(QueueState *state, QueuePosition position, uint64 *rank)
{
	QueueSegment *segment;
	uint32		generation;

	*rank = QUEUE_POSITION_RANK(position) - 1;
	return queue_ring_next(state, rank, QUEUE_TIME_NEVER, &segment, &generation) ? segment : NULL;
}

/* Have a place looked at, and others behind it if nobody knows which. */
static void
look_at(QueueState *state, const QueueOffer *offer)
{
	uint64		rank;
	QueueSegment *segment = segment_of(state, offer->first, &rank);
	BlockNumber page = QUEUE_POSITION_PAGE(offer->first);
	BlockNumber last = offer->open ? page + PAGES_AT_ONCE - 1 : page;
	QueuePosition next;
	bool		is_there = segment && rank == QUEUE_POSITION_RANK(offer->first);
	uint32		pages = is_there ? pg_atomic_read_u32(&segment->pages) : 0;

	/* The segment may have been emptied, and be somewhere else in the ring. */
	if (segment == NULL)
		next = QUEUE_POSITION_NONE;
	else if (!is_there)
		next = QUEUE_POSITION(rank, 0);
	else
		next = last + 1 < pages ? QUEUE_POSITION(rank, last + 1) : QUEUE_POSITION(rank + 1, 0);
	if (offer->open && !queue_meter_advance(state, offer, next))
		return;
	if (page < pages)
		queue_map_lower_range(segment, page, Min(last, pages - 1), 0);
}

/* Have places looked at where keys wait that have room, so many at most. Returns how many. */
int
queue_limited_offer(QueueClaim *claim, int most)
{
	QueueOffer	offer;
	int			n = 0;

	claim->metering.now = queue_clock_now();
	while (n < most && queue_meter_offer(&claim->metering, &offer))
	{
		look_at(claim->metering.state, &offer);
		n++;
	}
	return n;
}

/* ---- leases that keep others out, and have run out ---- */

/*
 * End leases that have run out, if that can make room for the claim: nobody comes
 * to their pages as long as there is none. Returns whether it may have.
 */
bool
queue_limited_make_room(QueueClaim *claim)
{
	QueueMetering *metering = &claim->metering;
	uint32		queue;
	QueueTime	now = queue_clock_now();
	QueueTime	of_queue = QUEUE_TIME_NEVER;
	QueueTime	of_consumer = QUEUE_TIME_NEVER;
	bool		ended = false;

	if (!claim->metered)
		return false;
	metering->now = now;
	queue = queue_state_index(metering->state);
	if (!queue_meter_is_overdue(metering))
		return false;
	queue_meter_forget_expiry(metering);
	for (uint32 i = 0; i < queue_slot_count(); i++)
	{
		QueueSlot  *slot = queue_slot(i);
		uint64		word = pg_atomic_read_u64(&slot->word);
		QueueTime	due;

		if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_FREE || slot->queue != queue || !slot->metered)
			continue;
		if (word & QUEUE_SLOT_PREPARED)
		{
			ended |= queue_lease_resolve_prepared(slot);
			due = now + queue_recheck_interval * INT64CONST(1000);
		}
		/* Its end tells: a commit by itself, a rollback by what it brings back. */
		else if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_SETTLING)
			continue;
		else if (queue_lease_expire(slot, QUEUE_SLOT_SEQUENCE(word), now))
		{
			ended = true;
			continue;
		}
		else
			due = slot->deadline;
		of_queue = Min(of_queue, due);
		if (queue_slot_meters(slot)->hashes[QUEUE_LIMIT_CONSUMER] == metering->consumer)
			of_consumer = Min(of_consumer, due);
	}
	queue_meter_lower_expiry(metering, of_queue, of_consumer);
	queue_wakeup_work(metering->state, 1);
	return ended;
}
