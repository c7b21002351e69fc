/*
 * turn.c
 *	  Where a claim from an ordered queue looks for messages.
 *
 * Whoever has the queue's turn walks what may have work: pages of copies that
 * are due; keys that are ready, from the first places where something of them
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
#include "walk.h"

typedef enum Part
{
	PART_COPIES,
	PART_READY,
	PART_BACKLOG,
	PART_TIMED,
	PARTS
} Part;

/* Look at all due pages of a lane, in order: one that somebody is busy with is waited for. */
static void
look_at_due(QueueTurn *turn, QueueLane lane)
{
	QueueClaim *claim = turn->claim;
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	while (queue_walk_goes_on(turn) &&
		   queue_ring_next_in(turn->state, lane, &position, claim->visit.now, &segment, &generation))
	{
		BlockNumber from = 0;

		if (!queue_walk_open(turn, segment, generation))
			continue;
		while (queue_walk_goes_on(turn))
		{
			BlockNumber busy = InvalidBlockNumber;
			BlockNumber page = InvalidBlockNumber;

			if (!queue_map_find(segment, from, claim->visit.now, &page, &busy) && busy == InvalidBlockNumber)
				break;
			page = Min(page, busy);
			queue_walk_look_at(turn, page, claim->visit.now);
			from = page + 1;
		}
		queue_walk_close(turn);
	}
}

/* ---- keys that are ready ---- */

/* Look at the key's entry again, ready or not; false: it is gone. */
static bool
read_again(QueueTurn *turn, QueueKeyFacts *facts)
{
	QueueKey   *key = queue_walk_lock_key(turn, facts);

	if (key == NULL)
		return false;
	queue_key_not_ready(key);
	queue_order_read(key, facts);
	queue_key_unlock(key);
	return true;
}

/* Put it back into the list, at one end of it. */
static void
make_ready(QueueTurn *turn, const QueueKeyFacts *facts, bool first)
{
	QueueKey   *key = queue_walk_lock_key(turn, facts);

	if (key == NULL)
		return;
	if (first)
		queue_key_make_ready_first(key);
	else
		queue_key_make_ready(key);
	queue_key_unlock(key);
}

/* Of several copies of a key the one with the lowest id is sought. */
static void
find_first_copy(QueueTurn *turn, QueueLook *look)
{
	QueueOrder *order = &turn->claim->order;
	QueueSpan	span = look->facts.copies;
	QueueKey   *key = queue_walk_lock_key(turn, &look->facts);

	if (key == NULL)
		return;
	queue_span_clear(&key->copies);
	key->first_copy = QUEUE_COPY_NONE;
	/* So that it is not forgotten. */
	queue_key_make_ready(key);
	queue_key_unlock(key);
	queue_key_rescan(look->facts.number, &span);
	order->has_turn = false;
	queue_walk_span(turn, look, span, QUEUE_LANE_COPIES);
	order->has_turn = true;
	queue_key_rescan(look->facts.number, NULL);
	if ((!queue_walk_goes_on(turn) || look->undecided) && (key = queue_walk_lock_key(turn, &look->facts)) != NULL)
	{
		/* It was broken off: what was not seen may be first. */
		queue_span_add(&key->copies, span.first);
		queue_span_add(&key->copies, span.last);
		key->first_copy = QUEUE_COPY_UNKNOWN;
		key->one_copy = false;
		/* It is looked at when all are; should something have come meanwhile, no later either. */
		if (queue_walk_goes_on(turn))
			queue_key_not_ready(key);
		queue_key_unlock(key);
	}
}

/* The lowest id of what came back, as far as that is known. */
static int64
came_back(const QueueKeyFacts *facts)
{
	return queue_span_is_empty(&facts->copies) ? facts->first_cooling
		: Min(facts->first_cooling, facts->first_copy);
}

/* Whether the next message is in the backlog. */
static bool
is_in_backlog(const QueueKeyFacts *facts)
{
	return !queue_span_is_empty(&facts->backlog) && facts->backlog_from <= came_back(facts);
}

static bool
has_unknown_copies(const QueueKeyFacts *facts)
{
	return !queue_span_is_empty(&facts->copies) && facts->first_copy == QUEUE_COPY_UNKNOWN;
}

/*
 * Look where the key's next message should be. What comes back is before the
 * backlog, but for what came back out of turn. Returns whether it is known better
 * now where that is.
 */
static bool
look_for_next(QueueTurn *turn, QueueLook *look)
{
	const QueueKeyFacts *facts = &look->facts;

	look->taken = 0;
	look->undecided = false;
	if (has_unknown_copies(facts))
	{
		find_first_copy(turn, look);
		return true;
	}
	if (is_in_backlog(facts))
	{
		queue_walk_span(turn, look, facts->backlog, QUEUE_LANE_BACKLOG);
		return true;
	}
	if (facts->first_cooling == came_back(facts) && facts->first_cooling != PG_INT64_MAX)
		queue_walk_span(turn, look, (QueueSpan) {facts->cooling_at, facts->cooling_at}, QUEUE_LANE_ANY);
	else if (!queue_span_is_empty(&facts->copies))
		queue_walk_span(turn, look, facts->copies, QUEUE_LANE_COPIES);
	return false;
}

/* So often it may turn out to be elsewhere: among copies, in the backlog, among copies after all. */
#define PLACES_OF_NEXT 4

/* Take what can be had of the key. */
static void
look_at_key(QueueTurn *turn, QueueLook *look)
{
	int			tries = 0;

	look->taken = 0;
	while (!look->facts.held && tries++ < PLACES_OF_NEXT && look_for_next(turn, look))
	{
		if (look->taken > 0 || !queue_walk_goes_on(turn) || look->undecided || !read_again(turn, &look->facts))
			break;
	}
	if (look->taken == 0 && !look->facts.held && !queue_walk_goes_on(turn))
		make_ready(turn, &look->facts, false);
}

/* Take keys out of the list; how many. */
static int
take_out(QueueTurn *turn, QueueLook *looks, int most)
{
	int			n = 0;

	for (; n < most; n++)
	{
		QueueKey   *key = queue_key_next_ready(turn->state);

		if (key == NULL)
			break;
		looks[n] = (QueueLook) {.number = n};
		queue_order_read(key, &looks[n].facts);
		queue_key_unlock(key);
	}
	return n;
}

static int
compare_first(const void *a, const void *b)
{
	QueuePosition x = ((const QueueLook *) a)->facts.backlog.first;
	QueuePosition y = ((const QueueLook *) b)->facts.backlog.first;

	return x < y ? -1 : x > y;
}

static int
compare_number(const void *a, const void *b)
{
	return ((const QueueLook *) a)->number - ((const QueueLook *) b)->number;
}

/* Those whose next message is in the backlog come to the front, by place; how many. */
static int
sort_looks(QueueLook *looks, int n, int *others)
{
	int			count = 0;

	*others = 0;
	for (int i = 0; i < n; i++)
	{
		QueueLook	look = looks[i];

		if (look.facts.held)
			continue;
		if (look.facts.apart || has_unknown_copies(&look.facts) || !is_in_backlog(&look.facts))
		{
			(*others)++;
			continue;
		}
		look.span = look.facts.backlog;
		looks[i] = looks[count];
		looks[count++] = look;
	}
	qsort(looks, count, sizeof(QueueLook), compare_first);
	return count;
}

/* Take what can be had of keys that mostly go on in the same pages: these are gone through once for all. */
static void
look_at_keys(QueueTurn *turn, QueueLook *looks, int n)
{
	QueueSought **sought = palloc(sizeof(QueueSought *) * n);
	int			others;
	int			together = sort_looks(looks, n, &others);
	int			left = 0;

	if (together > 1)
		queue_walk_spans(turn, looks, together, others, sought, QUEUE_LANE_BACKLOG);
	qsort(looks, n, sizeof(QueueLook), compare_number);
	/* What was not found so is elsewhere, or further on. */
	for (; left < n && queue_walk_goes_on(turn); left++)
	{
		QueueLook  *look = &looks[left];

		if (look->taken == 0 && !look->undecided && read_again(turn, &look->facts))
			look_at_key(turn, look);
	}
	/* These keep their places in the list, but for those that have held up the others. */
	for (int i = n - 1; i >= left; i--)
		if (looks[i].taken == 0 && !looks[i].facts.held && !looks[i].apart)
			make_ready(turn, &looks[i].facts, true);
	for (int i = left; i < n; i++)
		if (looks[i].taken == 0 && looks[i].apart)
			make_ready(turn, &looks[i].facts, false);
	pfree(sought);
}

/* The key that has been in the list longest is looked at before others, so that each is in its turn. */
static void
look_at_ready(QueueTurn *turn)
{
	QueueClaim *claim = turn->claim;
	int			most = Min(pg_atomic_read_u32(&turn->state->ready_keys), PG_INT32_MAX);
	QueueLook  *looks = NULL;

	while (most > 0 && queue_walk_goes_on(turn))
	{
		QueueLook	first;
		int			n;

		if (take_out(turn, &first, 1) == 0)
			break;
		look_at_key(turn, &first);
		queue_key_looked();
		n = Min(Min(most - 1, claim->request->wanted - claim->claimed_count), QUEUE_KEYS_AT_ONCE);
		if (n <= 0 || !queue_walk_goes_on(turn))
			break;
		if (looks == NULL)
			looks = palloc(sizeof(QueueLook) * n);
		n = take_out(turn, looks, n);
		look_at_keys(turn, looks, n);
		queue_key_looked();
		most -= n + 1;
	}
	if (looks)
		pfree(looks);
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
look_along_line(QueueTurn *turn, QueueLane lane, QueuePosition *from)
{
	QueueClaim *claim = turn->claim;
	QueueOrder *order = &claim->order;
	uint64		rank = QUEUE_POSITION_RANK(*from) - (*from > 0);
	bool		end = false;
	QueueSegment *segment;
	uint32		generation;

	claim->pages_left = PAGES_IN_LINE;
	while (!end && queue_walk_goes_on(turn) &&
		   queue_ring_next_in(turn->state, lane, &rank, claim->visit.now, &segment, &generation))
	{
		BlockNumber at = rank == QUEUE_POSITION_RANK(*from) ? QUEUE_POSITION_PAGE(*from) : 0;

		if (!queue_walk_open(turn, segment, generation))
			continue;
		while (!end && queue_walk_goes_on(turn))
		{
			BlockNumber busy = InvalidBlockNumber;
			BlockNumber page = InvalidBlockNumber;

			if (!queue_map_find(segment, at, claim->visit.now, &page, &busy) && busy == InvalidBlockNumber)
				break;
			page = Min(page, busy);
			queue_walk_look_at(turn, page, claim->visit.now);
			at = page + 1;
			*from = QUEUE_POSITION(rank, at);
			end = order->sought[0]->undecided || order->sought[0]->waits;
		}
		queue_walk_close(turn);
	}
	claim->tired |= claim->pages_left <= 0;
	if (!end && !queue_walk_goes_on(turn))
		return false;
	*from = 0;
	return true;
}

/* What holds the key and has ended does not any more, as if its page had been looked at. */
static void
end_what_has_ended(QueueTurn *turn, uint64 hash)
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
look_for_key(QueueTurn *turn, bool timed_first)
{
	QueueClaim *claim = turn->claim;
	QueueOrder *order = &claim->order;
	QueueLane	lanes[2] = {QUEUE_LANE_BACKLOG, QUEUE_LANE_TIMED};
	uint64		hash = queue_message_hash_key(claim->request->key, strlen(claim->request->key));
	QueueSought one = {.hash = hash,.here = true};
	QueueSought *sought = &one;
	QueueKey   *key;

	end_what_has_ended(turn, hash);
	key = queue_key_take_out(turn->state, hash);
	order->other_key = false;
	claim->pages_left = claim->patience;
	order->hash = hash;
	if (key)
	{
		QueueLook	look = {0};

		queue_order_read(key, &look.facts);
		queue_key_unlock(key);
		look_at_key(turn, &look);
		if (order->other_key)
			make_ready(turn, &look.facts, false);
		queue_key_looked();
		claim->tired |= claim->pages_left <= 0;
	}
	order->sought = &sought;
	order->sought_count = 1;
	order->chosen = true;
	for (int i = 0; i < 2 && queue_walk_goes_on(turn) && is_to_be_had(claim); i++)
	{
		QueueLane	lane = lanes[(i + timed_first) % 2];

		if (lane == QUEUE_LANE_TIMED && (turn->state->timed == 0 || claim->claimed_count > 0))
			continue;
		if (!look_along_line(turn, lane, &order->from[lane == QUEUE_LANE_TIMED]))
			break;
	}
	order->sought_count = 0;
	order->chosen = false;
}

/* ---- rounds ---- */

/*
 * A copy may have been behind others of its key when the server stopped, if they
 * were leased by one call. So all that was stored before the last of the copies is
 * looked at too, which claims have to pass anyway.
 */
static void
learn_line(QueueTurn *turn)
{
	QueueOrder *order = &turn->claim->order;
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;
	bool		end = order->highest_copy == 0;

	order->learns = true;
	while (!end && queue_walk_goes_on(turn) &&
		   queue_ring_next_in(turn->state, QUEUE_LANE_BACKLOG, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		if (!queue_walk_open(turn, segment, generation))
			continue;
		for (BlockNumber page = 0; !end && queue_walk_goes_on(turn) && page < pg_atomic_read_u32(&segment->pages); page++)
		{
			queue_walk_look_at(turn, page, QUEUE_TIME_NEVER);
			end = order->lowest != PG_INT64_MAX && order->lowest > order->highest_copy;
		}
		queue_walk_close(turn);
	}
	order->learns = false;
}

/*
 * After a restart nothing is known of copies, which are first of their keys: all
 * pages that have some are looked at, before anything is taken.
 */
static bool
know_copies(QueueTurn *turn)
{
	QueueClaim *claim = turn->claim;
	uint32		unknown = pg_atomic_read_u32(&turn->state->copies_unknown);
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	claim->pages_left = PG_INT32_MAX;
	claim->order.has_turn = false;
	claim->order.highest_copy = 0;
	while (queue_walk_goes_on(turn) &&
		   queue_ring_next_in(turn->state, QUEUE_LANE_COPIES, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		if (!queue_walk_open(turn, segment, generation))
			continue;
		for (BlockNumber page = 0; queue_walk_goes_on(turn) && page < pg_atomic_read_u32(&segment->pages); page++)
			queue_walk_look_at(turn, page, QUEUE_TIME_NEVER);
		queue_walk_close(turn);
	}
	learn_line(turn);
	claim->order.has_turn = true;
	/* Should a restore have come meanwhile, there is more. */
	return queue_walk_goes_on(turn) &&
		pg_atomic_compare_exchange_u32(&turn->state->copies_unknown, &unknown, 0);
}

static void
look_at_part(QueueTurn *turn, Part part)
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
look_everywhere(QueueTurn *turn)
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
		if (queue_walk_goes_on(turn))
			look_at_part(turn, (first + i) % PARTS);
	}
}

/*
 * What was read of blocked keys holds, unless something was changed since it was
 * asked for: then it is read again before anything is taken.
 */
static bool
know_blocked(QueueTurn *turn, uint32 changes, uint64 *hashes, int n)
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
	QueueTurn		turn = {.claim = claim,.state = claim->request->def->state};

	claim->order.state = turn.state;
	claim->order.sought_count = 0;
	claim->order.chosen = claim->order.learns = false;
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
