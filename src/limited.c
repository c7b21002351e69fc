/*
 * limited.c
 *	  Claims from queues that have limits, or whose keys take turns.
 *
 * A message whose key has no room is passed over, and its page is not due for it;
 * when the key has room, the places that it knows are made due again, one after the
 * other. src/README.md, "Limits and fair share", has what must hold.
 */
#include "postgres.h"

#include "access/relation.h"
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
segment_of(QueueState *state, QueuePosition position, uint64 *rank, uint32 *generation)
{
	QueueSegment *segment;

	*rank = QUEUE_POSITION_RANK(position) - 1;
	return queue_ring_next(state, rank, QUEUE_TIME_NEVER, &segment, generation) ? segment : NULL;
}

/* Have a place looked at, and others behind it if nobody knows which. */
static void
look_at(QueueState *state, const QueueOffer *offer)
{
	uint64		rank;
	uint32		generation;
	QueueSegment *segment = segment_of(state, offer->first, &rank, &generation);
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
	/* What has come behind the last page is passed over with it. */
	if (is_there && QUEUE_POSITION_RANK(next) != rank)
	{
		pages = pg_atomic_read_u32(&segment->pages);
		last = Max(last, pages);
	}
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

/* ---- turns ---- */

/* Look for messages of these keys on a page that is held; none: of all. */
static void
look_for_keys(QueueClaim *claim, int keys, QueueMapHold *hold)
{
	BlockNumber page = hold->page;

	claim->turns = hold->was_due > claim->visit.now ? keys : 0;
	claim->saw_expired = false;
	queue_claim_visit(claim, hold);
	claim->turns = 0;
	if (claim->saw_expired && !claim->lacks_slots)
		queue_claim_sweep_page(claim->request->def, claim->visit.rel, claim->visit.segment, page);
}

static bool
is_over(const QueueClaim *claim)
{
	return claim->lacks_slots || claim->closed || queue_claim_has_enough(claim);
}

/* Look at one place, which is off that of its keys, for so many keys in turn_of; 0: for all. */
static QueueKeyTurn
look_at_place(QueueClaim *claim, int keys, QueuePosition place)
{
	QueueSegment *segment = claim->visit.segment;
	BlockNumber page = QUEUE_POSITION_PAGE(place);
	QueueMapHold hold;

	if (queue_map_take(segment, page, QUEUE_TIME_NEVER, &hold) != QUEUE_MAP_TAKEN)
	{
		queue_map_lower_range(segment, page, page, 0);
		return QUEUE_KEY_TURN_LEFT;
	}
	look_for_keys(claim, keys, &hold);
	return QUEUE_KEY_TURN_LOOKED;
}

/* The next keys in the list often have theirs on the same page: how many are looked for there. */
static int
gather_turns(QueueClaim *claim, const QueueOffer *offer)
{
	int			most = Min(claim->request->wanted - claim->claimed_count, QUEUE_TURNS_AT_ONCE);
	int			n = 1;

	claim->turn_of[0] = offer->key;
	while (n < most && queue_meter_offer_at(&claim->metering, offer->first, &claim->turn_of[n]))
		n++;
	return n;
}

/* Have pages looked at that have come behind the last one of a segment while it was left. */
static void
look_behind(QueueSegment *segment, BlockNumber end)
{
	BlockNumber pages = pg_atomic_read_u32(&segment->pages);

	if (end < pages)
		queue_map_lower_range(segment, end, pages - 1, 0);
}

/* Where the front goes on behind the last page of a segment; false: that may grow, or is the last. */
static bool
leave_segment(QueueState *state, uint32 front, QueuePosition at, QueueSegment *left)
{
	uint64		rank = QUEUE_POSITION_RANK(at);
	QueueSegment *segment;
	uint32		generation;

	if (pg_atomic_read_u32(&state->active) == queue_segment_index(left) ||
		!queue_ring_next(state, &rank, QUEUE_TIME_NEVER, &segment, &generation))
		return false;
	queue_meter_move_front(state, front, at, QUEUE_POSITION(rank, 0));
	look_behind(left, QUEUE_POSITION_PAGE(at));
	return true;
}

/* Move the front on, until the claim has enough. */
static QueueKeyTurn
move_front(QueueClaim *claim, const QueueOffer *offer)
{
	QueueState *state = claim->metering.state;
	QueuePosition at;

	for (int i = 0; i < PAGES_AT_ONCE && !is_over(claim) && queue_meter_read_front(state, offer->front, &at); i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (QUEUE_POSITION_RANK(at) != claim->visit.segment->rank)
			break;
		if (QUEUE_POSITION_PAGE(at) >= pg_atomic_read_u32(&claim->visit.segment->pages))
		{
			if (leave_segment(state, offer->front, at, claim->visit.segment))
				break;
			look_at(state, offer);
			return QUEUE_KEY_TURN_LEFT;
		}
		queue_slot_reserve_more(state, claim->request->wanted - claim->claimed_count);
		if (look_at_place(claim, 0, at) == QUEUE_KEY_TURN_LEFT)
			return QUEUE_KEY_TURN_BUSY;
	}
	return QUEUE_KEY_TURN_LOOKED;
}

/* Look for a key that is not in step with the front, until it knows a place. */
static QueueKeyTurn
look_along_span(QueueClaim *claim, QueueOffer *offer)
{
	QueueState *state = claim->metering.state;

	claim->turn_of[0] = offer->key;
	for (int i = 0; i < PAGES_AT_ONCE && offer->first < offer->until && !is_over(claim); i++)
	{
		QueuePosition place = offer->first;
		bool		is_there = QUEUE_POSITION_PAGE(place) < pg_atomic_read_u32(&claim->visit.segment->pages);
		QueuePosition next = is_there ? place + 1 : QUEUE_POSITION(QUEUE_POSITION_RANK(place) + 1, 0);

		CHECK_FOR_INTERRUPTS();
		queue_slot_reserve_more(state, claim->request->wanted - claim->claimed_count);
		/* Once it is off the span nothing may fail until it is looked at. */
		if (!queue_meter_advance(state, offer, next))
			break;
		if (!is_there)
		{
			look_behind(claim->visit.segment, QUEUE_POSITION_PAGE(place));
			break;
		}
		if (look_at_place(claim, 1, place) == QUEUE_KEY_TURN_LEFT)
			return QUEUE_KEY_TURN_LEFT;
		offer->first = next;
	}
	return QUEUE_KEY_TURN_LOOKED;
}

/*
 * Give the key that has waited longest its turn: what it has is looked for where it
 * is known to be, or where the key or the front goes on.
 */
QueueKeyTurn
queue_limited_give_turn(QueueClaim *claim)
{
	QueueMetering *metering = &claim->metering;
	QueueVisit *visit = &claim->visit;
	QueueKeyTurn turn = QUEUE_KEY_TURN_NONE;
	QueuePosition expected;
	QueueOffer	offer;
	uint64		rank;
	uint32		generation;

	metering->now = queue_clock_now();
	if (!queue_meter_peek(metering, &expected))
		return QUEUE_KEY_TURN_NONE;
	queue_slot_reserve_more(metering->state, claim->request->wanted - claim->claimed_count);
	visit->rel = NULL;
	visit->segment = segment_of(metering->state, expected, &rank, &generation);
	if (visit->segment && rank == QUEUE_POSITION_RANK(expected))
		visit->rel = queue_segment_open(visit->segment, generation, AccessShareLock);
	if (queue_meter_offer(metering, &offer))
	{
		if (visit->rel == NULL || rank != QUEUE_POSITION_RANK(offer.first))
		{
			look_at(metering->state, &offer);
			turn = QUEUE_KEY_TURN_LEFT;
		}
		else if (!offer.open)
			turn = look_at_place(claim, gather_turns(claim, &offer), offer.first);
		else
			turn = offer.front ? move_front(claim, &offer) : look_along_span(claim, &offer);
	}
	if (visit->rel)
		relation_close(visit->rel, AccessShareLock);
	return turn;
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
