/*
 * dequeue.c
 *	  Where a claim looks for messages: segments, due pages, busy bits.
 *
 * A call visits a page once, and what it does there is in claim.c.
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "dequeue.h"
#include "error.h"
#include "guc.h"
#include "limited.h"
#include "pending.h"
#include "priority.h"
#include "ring.h"
#include "single.h"
#include "turn.h"
#include "wakeup.h"

/* Groups that a dequeue about to return nothing looks at again. */
#define LOOK_AGAIN_GROUPS 4

/* One line of the log a minute is enough. */
static bool
is_to_log(void)
{
	static TimestampTz logged = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (now - logged <= USECS_PER_MINUTE)
		return false;
	logged = now;
	return true;
}

QUEUE_NORETURN static void
no_slots(void)
{
	const char *hint = "Raise \"queue.max_leases\", or settle more messages.";

	if (is_to_log())
		ereport(LOG, (errmsg("queue has no lease slots left"), errhint("%s", hint)));
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no lease slots left"),
			 errdetail("%u of %u slots are free; a queue may hold half of them and leaves an eighth to others.",
					   queue_slot_free_count(), queue_slot_count()),
			 errhint("%s", hint)));
}

QUEUE_NORETURN static void
no_map_memory(void)
{
	const char *hint = "Raise \"queue.map_memory\", or settle more messages.";
	QueueMapUsage usage;

	if (is_to_log())
		ereport(LOG, (errmsg("queue has no map memory left"), errhint("%s", hint)));
	queue_map_usage(&usage);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no map memory left"),
			 errdetail(INT64_FORMAT " of " INT64_FORMAT " bytes that segments in use need are taken, " INT64_FORMAT " of " INT64_FORMAT " bytes in all.",
					   usage.kept, usage.kept_total, usage.used, usage.total),
			 errhint("%s", hint)));
}

QUEUE_NORETURN static void
no_keys(void)
{
	const char *hint = "Raise \"queue.max_keys\", or settle or unblock what holds keys.";
	uint32		used;
	uint32		total;

	if (is_to_log())
		ereport(LOG, (errmsg("queue has no memory for keys left"), errhint("%s", hint)));
	queue_key_usage(&used, &total);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no memory for keys left"),
			 errdetail("%u of %u keys of ordered queues are in use.", used, total),
			 errhint("%s", hint)));
}

/* The first page somebody else was busy with, to wait for. */
typedef struct BusyPage
{
	QueueSegment *segment;		/* NULL: none */
	BlockNumber page;
} BusyPage;

/* Whether the claim goes on: there is room in the result, and it is not tired of this lane. */
static bool
wants_more(QueueClaim *claim)
{
	return !queue_claim_has_enough(claim) && claim->pages_left > 0 && !claim->over && !claim->closed;
}

/* The pages behind it have nothing of the priority that is looked for. */
static BlockNumber
end_of_priority(QueueClaim *claim)
{
	QueueSegment *segment = claim->visit.segment;

	if (!claim->by_priority || segment->priority == claim->priority)
		return InvalidBlockNumber;
	return queue_priority_is_absent(segment, claim->priority) ? 0 : pg_atomic_read_u32(&segment->mixed);
}

/* Claim from one segment, whose relation is locked. False: out of memory. */
static bool
claim_from_segment(QueueClaim *claim, BusyPage *busy)
{
	const QueueClaimRequest *request = claim->request;
	BlockNumber end = end_of_priority(claim);
	BlockNumber from = 0;
	BlockNumber page;
	BlockNumber saw_busy = InvalidBlockNumber;

	while (wants_more(claim) &&
		   queue_map_find(claim->visit.segment, from, claim->visit.now, &page, &saw_busy) && page < end)
	{
		QueueMapHold hold;
		int			had = claim->claimed_count;

		CHECK_FOR_INTERRUPTS();
		if (claim->by_priority && page < pg_atomic_read_u32(&claim->visit.segment->mixed) &&
			!queue_priority_may_be_on(claim->visit.segment, page, claim->priority))
		{
			from = page + 1;
			continue;
		}
		claim->pages_left--;
		claim->looked_at++;
		/* Without a slot, what cools in one can still be claimed. */
		queue_slot_reserve(request->def->state, request->wanted - claim->claimed_count);
		from = page + 1;
		switch (queue_map_take(claim->visit.segment, page, claim->visit.now, &hold))
		{
			case QUEUE_MAP_TAKEN:
				claim->saw_expired = false;
				queue_claim_visit(claim, &hold);
				if (claim->lacks_slots)
					return false;
				if (claim->claimed_count > had)
					claim->pages_left = claim->patience;
				if (claim->saw_expired)
					queue_claim_sweep_page(request->def, claim->visit.rel, claim->visit.segment, page);
				break;
			case QUEUE_MAP_BUSY:
				if (saw_busy == InvalidBlockNumber)
					saw_busy = page;
				break;
			case QUEUE_MAP_NOT_DUE:
				break;
			case QUEUE_MAP_NO_MEMORY:
				return false;
		}
	}
	if (claim->by_priority && end != InvalidBlockNumber && wants_more(claim))
		queue_priority_look_for(claim->visit.segment, claim->priority);
	claim->saw_busy |= saw_busy < end;
	if (saw_busy < end && busy->segment == NULL)
	{
		busy->segment = claim->visit.segment;
		busy->page = saw_busy;
	}
	return true;
}

/* Claim from a lane; so many pages in vain, in a row, end it. False: out of memory. */
static bool
claim_lane(QueueClaim *claim, QueueLane lane, int patience, BusyPage *busy)
{
	QueueState *state = claim->request->def->state;
	uint64		position = 0;
	uint32		generation;
	uint32		sources = claim->by_priority ? 1U << claim->source : PG_UINT32_MAX;
	bool		mixed = claim->by_priority && QUEUE_SOURCE_IS_MIXED(claim->source);
	bool		ok = true;

	claim->patience = patience;
	claim->pages_left = patience;
	claim->over = false;
	while (ok && wants_more(claim) &&
		   queue_ring_next_of(state, lane, sources, &position, claim->visit.now,
							  &claim->visit.segment, &generation))
	{
		claim->visit.rel = queue_segment_open(claim->visit.segment, generation, AccessShareLock);
		if (claim->visit.rel == NULL)
		{
			claim->unsure = true;
			continue;
		}
		ok = claim_from_segment(claim, busy);
		relation_close(claim->visit.rel, AccessShareLock);
		/* Where segments are in no order, what is over in one says nothing of the next. */
		if (mixed)
			claim->over = false;
	}
	claim->unsure |= !ok || claim->pages_left <= 0 || (mixed && !wants_more(claim));
	return ok;
}

/*
 * Claims take turns: one begins with the head of the backlog, the next with
 * what waited for its time, so that neither keeps the other waiting. Where one
 * lane has many pages of which nothing is known, the other comes before the end,
 * and a page that somebody is busy with is waited for before all are looked at.
 */
static bool
claim_lanes(QueueClaim *claim, BusyPage *busy)
{
	QueueLane	lanes[2] = {QUEUE_LANE_BACKLOG, QUEUE_LANE_TIMED};
	bool		ok = true;

	if (claim->request->def->state->timed == 0)
		return claim_lane(claim, QUEUE_LANE_ANY, PG_INT32_MAX, busy);
	if (claim->timed_first)
	{
		lanes[0] = QUEUE_LANE_TIMED;
		lanes[1] = QUEUE_LANE_BACKLOG;
	}
	for (int i = 0; ok && i < 2; i++)
	{
		claim->unsure |= queue_claim_has_enough(claim);
		ok = claim_lane(claim, lanes[i], claim->patience_of_round, busy);
		claim->tired |= claim->pages_left <= 0;
	}
	return ok;
}

/*
 * What a look at a source says of when its first message was enqueued; DT_NOEND:
 * nothing, for there may be an earlier one that somebody else is busy with, or
 * that has another key than was asked for.
 */
static TimestampTz
head_of_source(const QueueClaim *claim)
{
	if (claim->unsure || claim->saw_busy || claim->request->key)
		return DT_NOEND;
	if (claim->looked_at == 0)
		return claim->visit.wall;
	if (claim->closed || queue_claim_has_enough(claim))
		return claim->begun == DT_NOBEGIN ? DT_NOEND : Min(claim->begun, claim->next);
	return claim->next != DT_NOEND ? claim->next : claim->last;
}

/*
 * Claim from the source whose turn it is until that of another has come, or there
 * is nothing in it. What comes first of each is known only roughly, so one may
 * turn out to be later than another one's; each can do so only so often.
 */
static bool
claim_by_priority(QueueClaim *claim, BusyPage *busy)
{
	QueueDef   *def = claim->request->def;
	QueuePriorityTurns turns;
	bool		ok = true;

	queue_priority_begin(&turns, def->state, &def->options, claim->visit.wall);
	claim->by_priority = true;
	while (ok && queue_priority_next(&turns, &claim->source, &claim->until))
	{
		int			had = claim->claimed_count;

		claim->priority = QUEUE_PRIORITY_OF(claim->source);
		claim->last = claim->next = DT_NOEND;
		claim->unsure = false;
		claim->looked_at = 0;
		claim->saw_busy = false;
		ok = claim_lanes(claim, busy);
		queue_priority_looked(&turns, head_of_source(claim), claim->next, claim->claimed_count > had);
		if (claim->closed || queue_claim_has_enough(claim))
			break;
	}
	claim->by_priority = claim->over = false;
	return ok;
}

/* Claim from the lanes, by priority if there are several. */
static bool
claim_once(QueueClaim *claim, BusyPage *busy)
{
	return queue_priority_several(claim->request->def->state)
		? claim_by_priority(claim, busy) : claim_lanes(claim, busy);
}

/* Places that a claim has looked at before it claims. */
#define OFFERS_AT_ONCE 16

/*
 * Where keys take turns, all that nobody has looked at yet is looked at first, so
 * that each key is known which has something; then one after the other has its turn.
 */
static bool
claim_in_turns(QueueClaim *claim, BusyPage *busy)
{
	bool		ok = claim_lanes(claim, busy);

	while (ok && !claim->closed && !queue_claim_has_enough(claim))
	{
		QueueKeyTurn turn = queue_limited_give_turn(claim);

		if (turn == QUEUE_KEY_TURN_NONE)
			break;
		ok = turn == QUEUE_KEY_TURN_LOOKED ? !claim->lacks_slots : claim_lanes(claim, busy);
		if (turn == QUEUE_KEY_TURN_BUSY && busy->segment)
			break;
		CHECK_FOR_INTERRUPTS();
	}
	return ok;
}

/*
 * What waited for room is offered beside the rest, and comes in its place. By
 * priority keys take turns in each one, so that all of a place is looked at.
 */
static bool
claim_limited(QueueClaim *claim, BusyPage *busy)
{
	int			wanted = claim->request->wanted;
	bool		ok;

	if (claim->metering.fair && !queue_priority_several(claim->request->def->state))
		return claim_in_turns(claim, busy);
	if (!claim->metering.fair)
		queue_limited_offer(claim, Min(wanted, OFFERS_AT_ONCE));
	do
		ok = claim_once(claim, busy);
	while (ok && !claim->closed && !queue_claim_has_enough(claim) &&
		   queue_limited_offer(claim, Min(wanted - claim->claimed_count, OFFERS_AT_ONCE)) > 0);
	return ok;
}

static bool
claim_round(QueueClaim *claim, BusyPage *busy)
{
	QueueState *state = claim->request->def->state;
	bool		ok;

	claim->patience_of_round = queue_claim_patience(claim);
	claim->rounds++;
	claim->tired = false;
	claim->visit.now = queue_clock_now();
	claim->visit.wall = queue_clock_wall();
	busy->segment = NULL;
	/* A call has one turn, however many rounds it needs. */
	if (claim->rounds == 1 && state->timed > 0)
		claim->timed_first = pg_atomic_fetch_add_u32(&state->round, 1) % 2 == 1;
	ok = claim->metered ? claim_limited(claim, busy) : claim_once(claim, busy);
	queue_slot_return_reserved();
	return ok;
}

/*
 * Once an interval, have a few groups looked at again that nobody expects
 * anything of: whatever changed without telling us is found, worker or not.
 */
static bool
look_again(QueueState *state)
{
	QueueTime	now = queue_clock_now();
	uint64		next = pg_atomic_read_u64(&state->recheck);
	uint64		group;
	uint64		left = LOOK_AGAIN_GROUPS;
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	if (now < (QueueTime) next ||
		!pg_atomic_compare_exchange_u64(&state->recheck, &next,
										(uint64) (now + queue_recheck_interval * INT64CONST(1000))))
		return false;
	queue_clock_check_step();
	group = pg_atomic_fetch_add_u64(&state->recheck_at, LOOK_AGAIN_GROUPS);
	while (left > 0 && queue_ring_next(state, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		Relation	rel = queue_segment_open(segment, generation, AccessShareLock);
		uint64		groups;

		if (rel == NULL)
			continue;
		queue_ring_refresh(state, segment, rel);
		groups = (pg_atomic_read_u32(&segment->pages) + QUEUE_MAP_GROUP_PAGES - 1) / QUEUE_MAP_GROUP_PAGES;
		relation_close(rel, AccessShareLock);
		if (group < groups)
		{
			uint64		n = Min(left, groups - group);

			queue_map_lower_range(segment, group * QUEUE_MAP_GROUP_PAGES,
								  (group + n) * QUEUE_MAP_GROUP_PAGES - 1, 0);
			left -= n;
			group += n;
		}
		group -= Min(group, groups);
	}
	if (left > 0)
		pg_atomic_write_u64(&state->recheck_at, 0);
	return true;
}

/*
 * A batch that has room left waits once for a page that somebody was busy with:
 * that is often the worker, who takes nothing, and nobody is busy for long.
 */
static bool
asks_again(const QueueClaim *claim, const BusyPage *busy, bool ok, bool *asked)
{
	if (!ok || *asked || claim->claimed_count == 0 || busy->segment == NULL || claim->closed || queue_claim_has_enough(claim))
		return false;
	*asked = true;
	return true;
}

/* Not all of it is set to zero: most is tables of a page, made anew with each. */
static QueueClaim *
begin_claim(const QueueClaimRequest *request, Snapshot snapshot, QueueClaimed *claimed)
{
	QueueClaim *claim = palloc(sizeof(QueueClaim));

	claim->request = request;
	claim->snapshot = snapshot;
	claim->claimed = claimed;
	claim->claimed_count = 0;
	claim->bytes = 0;
	claim->lacks_slots = false;
	claim->sweep = claim->move = false;
	claim->by_priority = claim->over = false;
	claim->looked_at = 0;
	claim->unsure = claim->saw_busy = false;
	claim->ordered = request->def->options.ordered;
	claim->order.lacks_keys = claim->order.chosen = false;
	claim->turns = 0;
	claim->rounds = 0;
	claim->timed_first = false;
	return claim;
}

/*
 * Claim up to the wanted number of messages. The array has room for them; the
 * tuples are copies that may still point to values stored out of line.
 */
int
queue_dequeue_claim(const QueueClaimRequest *request, Snapshot snapshot, QueueClaimed *claimed)
{
	QueueClaim *claim = begin_claim(request, snapshot, claimed);
	BusyPage	busy = {NULL};
	bool		looked_again = false;
	bool		asked_again = false;
	bool		made_room = false;
	bool		ok;
	bool		lacks_keys;
	bool		lacks_slots;
	int			n;

	queue_ring_load(request->def->state);
	queue_pending_reserve(request->wanted);
	if (!queue_limited_begin(claim))
	{
		pfree(claim);
		return 0;
	}
	for (;;)
	{
		ok = claim->ordered ? queue_turn_claim(claim) : claim_round(claim, &busy);
		if (asks_again(claim, &busy, ok, &asked_again))
		{
			queue_map_wait(busy.segment, busy.page);
			CHECK_FOR_INTERRUPTS();
			continue;
		}
		if (claim->claimed_count > 0 || !ok)
			break;
		if (claim->stale)
		{
			CHECK_FOR_INTERRUPTS();
			/* The definition that is in force is read in its place. */
			AcceptInvalidationMessages();
			if (queue_catalog_get(request->def->view) == NULL || !queue_limited_begin(claim))
				break;
			continue;
		}
		if (claim->closed)
		{
			claim->closed = false;
			if (made_room || !(made_room = queue_limited_make_room(claim)))
				break;
			continue;
		}
		if (busy.segment)
			queue_map_wait(busy.segment, busy.page);
		else if (!claim->tired)
		{
			if (looked_again || !look_again(request->def->state))
				break;
			looked_again = true;
		}
		CHECK_FOR_INTERRUPTS();
	}
	n = claim->claimed_count;
	lacks_keys = claim->order.lacks_keys;
	lacks_slots = claim->lacks_slots;
	pfree(claim);
	queue_wakeup_pass_on(request->def->state, n > 0);
	if (n == 0 && !ok)
	{
		if (lacks_keys)
			no_keys();
		if (lacks_slots)
			no_slots();
		no_map_memory();
	}
	return n;
}

/* Claim, where one consumer at a time does. */
static int
claim_as_active(const QueueClaimRequest *request, Snapshot snapshot, QueueClaimed *claimed, bool *stands_by)
{
	QueueDef   *def = request->def;
	QueueTime	deadline = 0;
	int			n;

	*stands_by = !queue_single_begin(def->state, request->consumer,
									 request->lease ? request->lease : def->options.lease_timeout);
	if (*stands_by)
	{
		queue_wakeup_pass_on(def->state, false);
		return 0;
	}
	n = queue_dequeue_claim(request, snapshot, claimed);
	for (int i = 0; i < n; i++)
		deadline = Max(deadline, claimed[i].deadline);
	queue_single_end(def->state, deadline);
	return n;
}

/* Claim as a consumer. *stands_by: another one is the active one of the queue, so there is nothing. */
int
queue_dequeue_as_consumer(const QueueClaimRequest *request, Snapshot snapshot, QueueClaimed *claimed, bool *stands_by)
{
	if (request->def->options.single_active_consumer)
		return claim_as_active(request, snapshot, claimed, stands_by);
	*stands_by = false;
	return queue_dequeue_claim(request, snapshot, claimed);
}

/* What claimed tuples are formed by: the layout is that of all segments. */
TupleDesc
queue_dequeue_desc(QueueState *state)
{
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;
	TupleDesc	desc = NULL;

	while (desc == NULL && queue_ring_next(state, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		Relation	rel = queue_segment_open(segment, generation, AccessShareLock);

		if (rel == NULL)
			continue;
		desc = CreateTupleDescCopy(RelationGetDescr(rel));
		relation_close(rel, AccessShareLock);
	}
	return desc;
}
