/*
 * turn.c
 *	  Where a claim from an ordered queue looks for messages.
 *
 * Whoever has the queue's turn walks what may have work: pages of copies that
 * are due; keys that are ready, each from the first place where something of it
 * waits; and pages of the backlog that are due, in order, with none left out.
 * Each of these begins in its turn, so that none starves. What may be taken of a
 * page says order.c.
 *
 * Under the turn no heavyweight lock is waited for: the deadlock detector knows
 * nothing of turns. Where a segment is locked, the turn is given back first.
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"

#include "blocked.h"
#include "delta.h"
#include "lease.h"
#include "ring.h"
#include "turn.h"

typedef enum Part
{
	PART_COPIES,
	PART_READY,
	PART_BACKLOG,
	PART_TIMED,
	PARTS
} Part;

typedef struct Turn
{
	QueueClaim *claim;
	QueueState *state;
	Oid			locked;			/* a segment that somebody has locked */
	bool		no_memory;
} Turn;

static bool
goes_on(Turn *turn)
{
	QueueClaim *claim = turn->claim;

	return !OidIsValid(turn->locked) && !turn->no_memory && !claim->closed && claim->pages_left > 0 &&
		claim->claimed_count < claim->request->wanted && claim->bytes < claim->request->max_bytes;
}

/* Open a segment that a walk has come to; false if there is nothing in it, or it has to be waited for. */
static bool
open_segment(Turn *turn, QueueSegment *segment, uint32 generation)
{
	QueueClaim *claim = turn->claim;
	Oid			relid = segment->relid;

	if (!OidIsValid(relid) || pg_atomic_read_u32(&segment->generation) != generation)
		return false;
	if (!ConditionalLockRelationOid(relid, AccessShareLock))
	{
		/* One that is being emptied has nothing, and is not waited for. */
		if (pg_atomic_read_u32(&segment->emptying) != generation)
			turn->locked = relid;
		return false;
	}
	claim->visit.segment = segment;
	claim->visit.rel = queue_segment_open(segment, generation, AccessShareLock);
	UnlockRelationOid(relid, AccessShareLock);
	return claim->visit.rel != NULL;
}

static void
close_segment(Turn *turn)
{
	relation_close(turn->claim->visit.rel, AccessShareLock);
}

/* Look at a page, due or not (now: QUEUE_TIME_NEVER); waits for whoever is busy with it. */
static void
look_at_page(Turn *turn, BlockNumber page, QueueTime now)
{
	QueueClaim *claim = turn->claim;
	QueueMapHold hold;
	int			had = claim->claimed_count;

	CHECK_FOR_INTERRUPTS();
	claim->pages_left--;
	queue_slot_reserve(turn->state, claim->request->wanted - claim->claimed_count);
	for (;;)
	{
		switch (queue_map_take(claim->visit.segment, page, now, &hold))
		{
			case QUEUE_MAP_TAKEN:
				break;
			case QUEUE_MAP_BUSY:
				queue_map_wait(claim->visit.segment, page);
				CHECK_FOR_INTERRUPTS();
				continue;
			case QUEUE_MAP_NOT_DUE:
				return;
			case QUEUE_MAP_NO_MEMORY:
				turn->no_memory = true;
				return;
		}
		break;
	}
	claim->saw_expired = false;
	queue_claim_visit(claim, &hold);
	turn->no_memory = claim->lacks_slots || claim->order.lacks_keys;
	if (claim->claimed_count > had)
		claim->pages_left = claim->patience;
	if (claim->saw_expired && !turn->no_memory)
		queue_claim_sweep_page(claim->request->def, claim->visit.rel, claim->visit.segment, page);
}

/* Look at all due pages of a lane, in order: one that somebody is busy with is waited for. */
static void
look_at_due(Turn *turn, QueueLane lane)
{
	QueueClaim *claim = turn->claim;
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	while (goes_on(turn) &&
		   queue_ring_next_in(turn->state, lane, &position, claim->visit.now, &segment, &generation))
	{
		BlockNumber from = 0;

		if (!open_segment(turn, segment, generation))
			continue;
		while (goes_on(turn))
		{
			BlockNumber busy = InvalidBlockNumber;
			BlockNumber page = InvalidBlockNumber;

			if (!queue_map_find(segment, from, claim->visit.now, &page, &busy) && busy == InvalidBlockNumber)
				break;
			page = Min(page, busy);
			look_at_page(turn, page, claim->visit.now);
			from = page + 1;
		}
		close_segment(turn);
	}
}

/* ---- keys that are ready ---- */

/* Look at the key's entry again, ready or not; false: it is gone. */
static bool
read_again(Turn *turn, uint32 number, QueueKeyFacts *facts)
{
	QueueKey   *key = queue_key_lock(number);

	if (key == NULL)
		return false;
	queue_key_not_ready(key);
	queue_order_read(key, facts);
	queue_key_unlock(key);
	return facts->hash == turn->claim->order.hash;
}

static void
make_ready(uint32 number)
{
	QueueKey   *key = queue_key_lock(number);

	if (key == NULL)
		return;
	queue_key_make_ready(key);
	queue_key_unlock(key);
}

/* Told before a page of a key's span is looked at; false: the walk is to end. */
typedef bool (*SpanStep) (Turn *turn, uint32 number, QueuePosition last, QueuePosition next);

/*
 * The walk has come to a place of the key's backlog: what was before is done.
 * Should something have been put back before that meanwhile, it ends.
 */
static bool
backlog_step(Turn *turn, uint32 number, QueuePosition last, QueuePosition next)
{
	QueueKey   *key = queue_key_lock(number);
	bool		same;

	if (key == NULL)
		return false;
	same = key->backlog.first == last;
	if (same && next > key->backlog.last)
		queue_span_clear(&key->backlog);
	else if (same)
		key->backlog.first = next;
	same = same && !queue_span_is_empty(&key->backlog);
	queue_key_unlock(key);
	return same;
}

/*
 * Look at the pages of a span, from its first place on, for messages of one
 * key, until one is taken or there is nothing more to do. With a step, that is
 * told of each place before it is looked at.
 */
static void
walk_span(Turn *turn, const QueueKeyFacts *facts, const QueueSpan *span, QueueLane lane, SpanStep step)
{
	QueueClaim *claim = turn->claim;
	QueueOrder *order = &claim->order;
	uint64		rank = QUEUE_POSITION_RANK(span->first) - 1;
	QueuePosition reached = span->first;
	int			taken = 0;
	bool		end = false;
	QueueSegment *segment;
	uint32		generation;

	order->undecided = false;
	while (!end && goes_on(turn) &&
		   queue_ring_next_in(turn->state, lane, &rank, QUEUE_TIME_NEVER, &segment, &generation))
	{
		BlockNumber page = rank == QUEUE_POSITION_RANK(span->first) ? QUEUE_POSITION_PAGE(span->first) : 0;

		if (QUEUE_POSITION(rank, page) > span->last)
			break;
		if (!open_segment(turn, segment, generation))
			continue;
		for (; !end && goes_on(turn) && page < pg_atomic_read_u32(&segment->pages); page++)
		{
			QueuePosition next = QUEUE_POSITION(rank, page);

			if (next > span->last)
				break;
			if (step && !step(turn, facts->number, reached, next))
			{
				end = true;
				break;
			}
			reached = next;
			look_at_page(turn, page, QUEUE_TIME_NEVER);
			taken += order->took;
			/* Copies are not in order: one that waits may be before the first. */
			end = order->undecided || (step && order->waits) ||
				(taken > 0 && (step == NULL || order->took == 0));
		}
		close_segment(turn);
	}
	if (!end && step && goes_on(turn))
		step(turn, facts->number, reached, span->last + 1);
}

/* Of several copies of a key the one with the lowest id is sought. */
static void
find_first_copy(Turn *turn, const QueueKeyFacts *facts)
{
	QueueOrder *order = &turn->claim->order;
	QueueSpan	span = facts->copies;
	QueueKey   *key = queue_key_lock(facts->number);

	if (key == NULL)
		return;
	queue_span_clear(&key->copies);
	key->first_copy = QUEUE_COPY_NONE;
	/* So that it is not forgotten. */
	queue_key_make_ready(key);
	queue_key_unlock(key);
	queue_key_rescan(&span);
	order->has_turn = false;
	walk_span(turn, facts, &span, QUEUE_LANE_COPIES, NULL);
	order->has_turn = true;
	queue_key_rescan(NULL);
	if ((!goes_on(turn) || order->undecided) && (key = queue_key_lock(facts->number)) != NULL)
	{
		/* It was broken off: what was not seen may be first. */
		queue_span_add(&key->copies, span.first);
		queue_span_add(&key->copies, span.last);
		key->first_copy = QUEUE_COPY_UNKNOWN;
		key->one_copy = false;
		/* It is looked at when all are; should something have come meanwhile, no later either. */
		if (goes_on(turn))
			queue_key_not_ready(key);
		queue_key_unlock(key);
	}
}

/*
 * Look where the key's next message should be. What comes back is before the
 * backlog, but for what came back out of turn. Returns whether it is known better
 * now where that is.
 */
static bool
look_for_next(Turn *turn, const QueueKeyFacts *facts)
{
	bool		has_copies = !queue_span_is_empty(&facts->copies);
	int64		came_back = has_copies ? Min(facts->first_cooling, facts->first_copy) : facts->first_cooling;

	if (has_copies && facts->first_copy == QUEUE_COPY_UNKNOWN)
	{
		find_first_copy(turn, facts);
		return true;
	}
	if (!queue_span_is_empty(&facts->backlog) && facts->backlog_from <= came_back)
	{
		walk_span(turn, facts, &facts->backlog, QUEUE_LANE_BACKLOG, backlog_step);
		return true;
	}
	if (facts->first_cooling == came_back && came_back != PG_INT64_MAX)
	{
		QueueSpan	span = {facts->cooling_at, facts->cooling_at};

		walk_span(turn, facts, &span, QUEUE_LANE_ANY, NULL);
	}
	else if (has_copies)
		walk_span(turn, facts, &facts->copies, QUEUE_LANE_COPIES, NULL);
	return false;
}

/* So often it may turn out to be elsewhere: among copies, in the backlog, among copies after all. */
#define PLACES_OF_NEXT 4

/* Take what can be had of a key that was ready. */
static void
look_at_key(Turn *turn, QueueKeyFacts *facts)
{
	QueueOrder *order = &turn->claim->order;
	int			had = turn->claim->claimed_count;
	int			tries = 0;

	order->only = true;
	order->hash = facts->hash;
	while (!facts->held && tries++ < PLACES_OF_NEXT && look_for_next(turn, facts))
	{
		if (turn->claim->claimed_count > had || !goes_on(turn) || order->undecided ||
			!read_again(turn, facts->number, facts))
			break;
	}
	if (turn->claim->claimed_count == had && !facts->held && !goes_on(turn))
		make_ready(facts->number);
	order->only = false;
}

static void
look_at_ready(Turn *turn)
{
	uint32		most = pg_atomic_read_u32(&turn->state->ready_keys);

	for (uint32 i = 0; i < most && goes_on(turn); i++)
	{
		QueueKey   *key = queue_key_next_ready(turn->state);
		QueueKeyFacts facts;

		if (key == NULL)
			break;
		queue_order_read(key, &facts);
		queue_key_unlock(key);
		look_at_key(turn, &facts);
		queue_key_looked();
	}
}

/* ---- a key that is asked for ---- */

/* Due pages that are looked at in one turn. */
#define PAGES_IN_LINE 256

/*
 * Look at due pages of a lane for messages of one key, from where the last round
 * of the call has stopped: if something of the key is there by now, before that,
 * its entry knows. Ends at one that cannot be taken. Returns whether all was seen.
 */
static bool
look_along_line(Turn *turn, QueueLane lane, QueuePosition *from)
{
	QueueClaim *claim = turn->claim;
	QueueOrder *order = &claim->order;
	uint64		rank = QUEUE_POSITION_RANK(*from) - (*from > 0);
	bool		end = false;
	QueueSegment *segment;
	uint32		generation;

	claim->pages_left = PAGES_IN_LINE;
	while (!end && goes_on(turn) &&
		   queue_ring_next_in(turn->state, lane, &rank, claim->visit.now, &segment, &generation))
	{
		BlockNumber at = rank == QUEUE_POSITION_RANK(*from) ? QUEUE_POSITION_PAGE(*from) : 0;

		if (!open_segment(turn, segment, generation))
			continue;
		while (!end && goes_on(turn))
		{
			BlockNumber busy = InvalidBlockNumber;
			BlockNumber page = InvalidBlockNumber;

			if (!queue_map_find(segment, at, claim->visit.now, &page, &busy) && busy == InvalidBlockNumber)
				break;
			page = Min(page, busy);
			look_at_page(turn, page, claim->visit.now);
			at = page + 1;
			*from = QUEUE_POSITION(rank, at);
			end = order->undecided || order->waits;
		}
		close_segment(turn);
	}
	claim->tired |= claim->pages_left <= 0;
	if (!end && !goes_on(turn))
		return false;
	*from = 0;
	return true;
}

/* What holds the key and has ended does not any more, as if its page had been looked at. */
static void
end_what_has_ended(Turn *turn, uint64 hash)
{
	QueueTime	now = turn->claim->visit.now;
	uint32		slots[64];
	uint64		sequences[64];
	uint32		n = queue_order_doubtful(turn->state, hash, now, slots, sequences, lengthof(slots));

	for (uint32 i = 0; i < n; i++)
	{
		queue_lease_resolve_prepared(queue_slot(slots[i]));
		queue_lease_expire(queue_slot(slots[i]), sequences[i], now);
	}
}

/* Whether something of the key may be taken: nobody else holds it. */
static bool
is_to_be_had(QueueClaim *claim)
{
	QueueKey   *key = queue_key_find(claim->order.state, claim->order.hash);
	bool		may = key == NULL || !queue_slot_holds_key(key) ||
		(key->call == claim->order.call && claim->claimed_count > 0);

	if (key)
		queue_key_unlock(key);
	return may;
}

/*
 * Take what can be had of the key that is asked for. What is known of it comes
 * first, as if it were ready; then messages that nobody has passed over yet, from
 * the first due page on. Other keys are left as they are, and pages that have
 * something of them stay due.
 */
static void
look_for_key(Turn *turn, bool timed_first)
{
	QueueClaim *claim = turn->claim;
	QueueOrder *order = &claim->order;
	QueueLane	lanes[2] = {QUEUE_LANE_BACKLOG, QUEUE_LANE_TIMED};
	uint64		hash = queue_message_hash_key(claim->request->key, strlen(claim->request->key));
	QueueKey   *key;

	end_what_has_ended(turn, hash);
	key = queue_key_take_out(turn->state, hash);
	order->other_key = false;
	claim->pages_left = claim->patience;
	order->hash = hash;
	if (key)
	{
		QueueKeyFacts facts;

		queue_order_read(key, &facts);
		queue_key_unlock(key);
		look_at_key(turn, &facts);
		if (order->other_key)
			make_ready(facts.number);
		queue_key_looked();
		claim->tired |= claim->pages_left <= 0;
	}
	order->only = order->chosen = true;
	for (int i = 0; i < 2 && goes_on(turn) && is_to_be_had(claim); i++)
	{
		QueueLane	lane = lanes[(i + timed_first) % 2];

		if (lane == QUEUE_LANE_TIMED && (turn->state->timed == 0 || claim->claimed_count > 0))
			continue;
		if (!look_along_line(turn, lane, &order->from[lane == QUEUE_LANE_TIMED]))
			break;
	}
	order->only = order->chosen = false;
}

/* ---- rounds ---- */

/*
 * A copy may have been behind others of its key when the server stopped, if they
 * were leased by one call. So all that was stored before the last of the copies is
 * looked at too, which claims have to pass anyway.
 */
static void
learn_line(Turn *turn)
{
	QueueOrder *order = &turn->claim->order;
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;
	bool		end = order->highest_copy == 0;

	order->learns = true;
	while (!end && goes_on(turn) &&
		   queue_ring_next_in(turn->state, QUEUE_LANE_BACKLOG, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		if (!open_segment(turn, segment, generation))
			continue;
		for (BlockNumber page = 0; !end && goes_on(turn) && page < pg_atomic_read_u32(&segment->pages); page++)
		{
			look_at_page(turn, page, QUEUE_TIME_NEVER);
			end = order->lowest != PG_INT64_MAX && order->lowest > order->highest_copy;
		}
		close_segment(turn);
	}
	order->learns = false;
}

/*
 * After a restart nothing is known of copies, which are first of their keys: all
 * pages that have some are looked at, before anything is taken.
 */
static bool
know_copies(Turn *turn)
{
	QueueClaim *claim = turn->claim;
	uint32		unknown = pg_atomic_read_u32(&turn->state->copies_unknown);
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	claim->pages_left = PG_INT32_MAX;
	claim->order.has_turn = false;
	claim->order.highest_copy = 0;
	while (goes_on(turn) &&
		   queue_ring_next_in(turn->state, QUEUE_LANE_COPIES, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		if (!open_segment(turn, segment, generation))
			continue;
		for (BlockNumber page = 0; goes_on(turn) && page < pg_atomic_read_u32(&segment->pages); page++)
			look_at_page(turn, page, QUEUE_TIME_NEVER);
		close_segment(turn);
	}
	learn_line(turn);
	claim->order.has_turn = true;
	/* Should a restore have come meanwhile, there is more. */
	return goes_on(turn) &&
		pg_atomic_compare_exchange_u32(&turn->state->copies_unknown, &unknown, 0);
}

static void
look_at_part(Turn *turn, Part part)
{
	switch (part)
	{
		case PART_COPIES:
			look_at_due(turn, QUEUE_LANE_COPIES);
			break;
		case PART_READY:
			look_at_ready(turn);
			break;
		case PART_BACKLOG:
			look_at_due(turn, QUEUE_LANE_BACKLOG);
			break;
		case PART_TIMED:
			if (turn->state->timed > 0)
				look_at_due(turn, QUEUE_LANE_TIMED);
			break;
		case PARTS:
			break;
	}
	turn->claim->tired |= turn->claim->pages_left <= 0;
}

static void
look_everywhere(Turn *turn)
{
	QueueClaim *claim = turn->claim;
	uint32		first = pg_atomic_fetch_add_u32(&turn->state->round, 1);

	claim->patience = queue_claim_patience(claim);
	claim->rounds++;
	claim->tired = false;
	claim->visit.now = queue_clock_now();
	claim->visit.wall = queue_clock_wall();
	if (pg_atomic_read_u32(&turn->state->copies_unknown) != 0 && !know_copies(turn))
		return;
	queue_key_look_if_late(turn->state, claim->visit.now);
	if (claim->request->key)
	{
		look_for_key(turn, first % 2 == 1);
		return;
	}
	for (uint32 i = 0; i < PARTS; i++)
	{
		turn->claim->pages_left = claim->patience;
		if (goes_on(turn))
			look_at_part(turn, (first + i) % PARTS);
	}
}

/*
 * What was read of blocked keys holds, unless something was changed since it was
 * asked for: then it is read again before anything is taken.
 */
static bool
know_blocked(Turn *turn, uint32 changes, uint64 *hashes, int n)
{
	if (pg_atomic_read_u32(&turn->state->blocked_changes) != changes)
		return false;
	if (!queue_key_set_blocked(turn->state, hashes, n))
		turn->no_memory = turn->claim->order.lacks_keys = true;
	else
		pg_atomic_write_u32(&turn->state->blocked_known, changes);
	/* A death that comes meanwhile sets its key's flag after it has told of the change. */
	return !turn->no_memory && pg_atomic_read_u32(&turn->state->blocked_changes) == changes;
}

/* One round of a claim. False: out of memory of some kind. */
bool
queue_turn_claim(QueueClaim *claim)
{
	Turn		turn = {.claim = claim,.state = claim->request->def->state};

	claim->order.state = turn.state;
	claim->order.only = claim->order.chosen = claim->order.learns = false;
	claim->order.has_turn = true;
	if (claim->rounds == 0)
	{
		claim->order.call = queue_key_new_call();
		claim->order.from[0] = claim->order.from[1] = 0;
	}
	for (;;)
	{
		uint32		changes = pg_atomic_read_u32(&turn.state->blocked_changes);
		bool		unknown = changes != pg_atomic_read_u32(&turn.state->blocked_known);
		uint64	   *blocked = NULL;
		int			n;
		bool		known = true;

		/* What we change is not so yet, and nothing is taken by what may not be. */
		if (unknown && queue_delta_changes_blocked(turn.state))
			break;
		n = unknown ? queue_blocked_read(claim->request->def, &blocked) : 0;
		turn.locked = InvalidOid;
		queue_key_take_turn(turn.state);
		if (unknown)
			known = know_blocked(&turn, changes, blocked, n);
		if (known)
			look_everywhere(&turn);
		queue_slot_return_reserved();
		queue_key_give_turn();
		if (blocked)
			pfree(blocked);
		if (OidIsValid(turn.locked) && claim->claimed_count == 0)
		{
			LockRelationOid(turn.locked, AccessShareLock);
			UnlockRelationOid(turn.locked, AccessShareLock);
		}
		else if (known || turn.no_memory)
			break;
		CHECK_FOR_INTERRUPTS();
	}
	return !turn.no_memory;
}
