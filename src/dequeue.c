/*
 * dequeue.c
 *	  Claiming: due page, busy bit, tuples, slots.
 *
 * What a reader must believe:
 * - Under busy there is only a pin, a shared content lock and slot bookkeeping:
 *   no other lock, no write to the heap, no detoasting, nothing of the user's.
 *   Whatever fails, the abort callbacks give busy and unused slots back.
 * - A message is taken only if it is visible to the snapshot, so that what was
 *   committed with it is visible to the same statement.
 * - A call visits a page once. It never writes for somebody else's message: an
 *   expired lease only changes its slot, and the worker writes it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "dequeue.h"
#include "error.h"
#include "guc.h"
#include "lease.h"
#include "message.h"
#include "pending.h"
#include "ring.h"
#include "visit.h"
#include "wakeup.h"

/* Groups that a dequeue about to return nothing looks at again. */
#define LOOK_AGAIN_GROUPS 4

/*
 * Pages that a claim looks at in vain in one lane before it tries the other;
 * with each round that found nothing so twice as many, for so many rounds.
 */
#define PAGES_IN_VAIN 64
#define ROUNDS_THAT_DOUBLE 20

typedef struct Claim
{
	QueueVisit	visit;
	const QueueClaimRequest *request;
	Snapshot	snapshot;
	bool		sweep;			/* take nothing, look at everything */
	bool		move;			/* a sweep that has the worker store messages elsewhere */
	bool		ready_too;		/* those that could be claimed at once */
	int			handed_over;	/* for that */
	bool		saw_expired;
	bool		lacks_slots;
	int			patience;		/* pages in a row to look at in vain */
	int			pages_left;		/* of these */
	int			rounds;
	bool		timed_first;
	bool		tired;			/* the last round has left pages out */
	/* results */
	QueueClaimed *claimed;
	int			claimed_count;
	int64		bytes;
} Claim;

/* What a slot says of its message, whatever it is taken for. Slot is locked. */
static void
fill_slot(Claim *claim, QueueSlot *slot, HeapTuple tuple, const QueueMessageHead *head)
{
	QueueDef   *def = claim->request->def;

	slot->database = MyDatabaseId;
	slot->queue = queue_state_index(def->state);
	slot->view = def->view;
	slot->segment = queue_segment_index(claim->visit.segment);
	slot->generation = pg_atomic_read_u32(&claim->visit.segment->generation);
	slot->tid = tuple->t_self;
	slot->message_id = head->id;
	slot->enqueued_at = head->enqueued_at;
	slot->failures = head->failures;
	slot->unwritten = false;
	slot->timed = !TIMESTAMP_IS_NOBEGIN(head->visible_at);
	slot->moving = false;
	slot->reason = QUEUE_FAILURE_NONE;
	slot->taken = claim->visit.now;
	slot->deadline = QUEUE_TIME_NEVER;
	slot->next = claim->visit.now;
	slot->prior = QUEUE_SLOT_FREE;
	slot->xid = InvalidFullTransactionId;
	slot->owner = GetUserId();
	slot->pid = MyProcPid;
	slot->retry_delay = 0;
	slot->at_limit = false;
	slot->consumer[0] = '\0';
}

/* How often a message may fail; 0: for ever. */
static int
limit_of(Claim *claim, const QueueMessageHead *head)
{
	return head->max_attempts >= 0 ? head->max_attempts : claim->request->def->options.max_attempts;
}

/* Whether the last failure allowed ends it: a dead letter does not die again. */
static bool
can_die(Claim *claim, HeapTuple tuple, const QueueMessageHead *head)
{
	OffsetNumber offset = ItemPointerGetOffsetNumber(&tuple->t_self);
	int			limit = limit_of(claim, head);
	QueueMessage message;

	if (limit == 0 || claim->request->def->dead_letter_of != 0)
		return false;
	/* Far from the limit there is no need to look; a slot may know of more failures. */
	if (claim->visit.held_as[offset] == QUEUE_HELD_NOT && head->failures + 1 < limit)
		return true;
	queue_message_deform(&message, tuple, RelationGetDescr(claim->visit.rel));
	return !queue_message_has_died(&message);
}

static void
fill_lease(Claim *claim, QueueSlot *slot, const QueueMessageHead *head, bool dies)
{
	const QueueClaimRequest *request = claim->request;
	QueueDef   *def = request->def;
	int64		lease = request->lease ? request->lease : def->options.lease_timeout;

	slot->taken = claim->visit.now;
	slot->deadline = claim->visit.now + lease;
	slot->cap = claim->visit.now + Max(def->options.lease_max, lease);
	slot->moving = false;
	slot->retry_delay = queue_options_retry_delay(&def->options, slot->failures + 1);
	slot->at_limit = dies && slot->failures + 1 >= limit_of(claim, head);
	slot->owner = GetUserId();
	slot->pid = MyProcPid;
	/* The option fits; an application's name is ASCII: cut anywhere. */
	strlcpy(slot->consumer, request->consumer ? request->consumer : application_name,
			QUEUE_CONSUMER_LENGTH);
}

/*
 * Get a slot for a tuple: the one it cools in, or a fresh one. Returns it
 * locked, with the word that begins its new life; NULL if none can be had.
 */
static QueueSlot *
get_slot(Claim *claim, HeapTuple tuple, const QueueMessageHead *head, uint64 *word)
{
	OffsetNumber offset = ItemPointerGetOffsetNumber(&tuple->t_self);
	QueueState *state = claim->request->def->state;
	uint32		number;
	pg_uuid_t	receipt;
	QueueSlot  *slot;
	uint64		old;

	if (claim->visit.held_as[offset] == QUEUE_HELD_CLAIMABLE)
	{
		queue_slot_make_receipt(claim->visit.held_by[offset], &receipt);
		slot = queue_slot(claim->visit.held_by[offset]);
		old = queue_slot_lock(slot);
		if (QUEUE_SLOT_STATE(old) == QUEUE_SLOT_COOLING && !(old & QUEUE_SLOT_DEAD) &&
			slot->segment == queue_segment_index(claim->visit.segment) &&
			slot->generation == pg_atomic_read_u32(&claim->visit.segment->generation) &&
			ItemPointerEquals(&slot->tid, &tuple->t_self) && slot->message_id == head->id)
		{
			slot->receipt = receipt;
			*word = old;
			return slot;
		}
		/* Settled late, or the worker writes it right now. */
		queue_slot_unlock(slot, old);
		return NULL;
	}
	if (!queue_slot_use_reserved(state, &number, &receipt))
	{
		claim->lacks_slots = true;
		return NULL;
	}
	slot = queue_slot(number);
	*word = queue_slot_lock(slot);
	slot->receipt = receipt;
	slot->chain = NULL;
	fill_slot(claim, slot, tuple, head);
	return slot;
}

/* A failure that was only in the slot so far stays there for the next holder. */
static void
carry_failure(QueueSlot *slot, uint64 old)
{
	if (QUEUE_SLOT_STATE(old) != QUEUE_SLOT_COOLING || (old & QUEUE_SLOT_RELEASED))
		return;
	slot->failures++;
	slot->unwritten = true;
}

/* Lease the message to the caller. Returns false if it has to stay. */
static bool
claim_tuple(Claim *claim, HeapTuple tuple, const QueueMessageHead *head, HeapTuple copy)
{
	uint64		old;
	uint64		new;
	bool		dies = can_die(claim, tuple, head);
	QueueSlot  *slot = get_slot(claim, tuple, head, &old);
	QueueClaimed *claimed;

	if (slot == NULL)
		return false;
	carry_failure(slot, old);
	fill_lease(claim, slot, head, dies);
	new = queue_slot_next_word(old, QUEUE_SLOT_LEASED, 0);
	claimed = &claim->claimed[claim->claimed_count++];
	claimed->tuple = copy;
	claimed->slot = queue_slot_number(slot);
	claimed->sequence = QUEUE_SLOT_SEQUENCE(new);
	claimed->receipt = slot->receipt;
	claimed->failures = slot->failures;
	claimed->deadline = slot->deadline;
	claimed->reason = slot->unwritten ? slot->reason : QUEUE_FAILURE_NONE;
	if (slot->chain == NULL)
		queue_slot_link(slot, claim->visit.hold);
	queue_slot_unlock(slot, new);
	queue_pending_taken(claimed->slot, claimed->sequence, claim->request->pop);
	queue_visit_due(&claim->visit, claimed->deadline);
	return true;
}

/* A slot with which the worker gets a message to write; NULL if none can be had. */
static QueueSlot *
get_slot_for_worker(Claim *claim, HeapTuple tuple, const QueueMessageHead *head, uint64 *word)
{
	/* While no worker writes, what waits for it must not eat up the slots. */
	if (pg_atomic_read_u32(&claim->request->def->state->slots) >= queue_slot_count() / 16)
		return NULL;
	return get_slot(claim, tuple, head, word);
}

/* An expired message goes to the worker, by a slot that nobody can claim. */
static void
hand_over_expired(Claim *claim, HeapTuple tuple, const QueueMessageHead *head)
{
	QueueState *state = claim->request->def->state;
	uint64		old;
	QueueSlot  *slot = get_slot_for_worker(claim, tuple, head, &old);

	if (slot == NULL)
	{
		queue_visit_due(&claim->visit, claim->visit.now + queue_recheck_interval * INT64CONST(1000));
		return;
	}
	carry_failure(slot, old);
	if (slot->chain == NULL)
		queue_slot_link(slot, claim->visit.hold);
	queue_slot_unlock(slot, queue_slot_next_word(old, QUEUE_SLOT_COOLING, QUEUE_SLOT_GONE |
												 QUEUE_SLOT_DEAD | QUEUE_SLOT_EXPIRED));
	if (queue_state_ask(state, QUEUE_ASK_FAILURES))
		queue_wakeup_worker(MyDatabaseId);
}

/*
 * One that the worker is to store elsewhere, as it is. Until then it can be
 * claimed when it could be claimed before.
 */
static void
hand_over_survivor(Claim *claim, HeapTuple tuple, const QueueMessageHead *head)
{
	QueueState *state = claim->request->def->state;
	QueueTime	next = head->visible_at <= claim->visit.wall ? 0 : queue_clock_from_wall(head->visible_at);
	uint64		old;
	QueueSlot  *slot;

	queue_visit_due(&claim->visit, head->expires_at < head->visible_at
					? queue_clock_from_wall(head->expires_at) : next);
	slot = get_slot_for_worker(claim, tuple, head, &old);
	if (slot == NULL)
		return;
	slot->moving = true;
	slot->next = next;
	queue_slot_link(slot, claim->visit.hold);
	queue_slot_unlock(slot, queue_slot_next_word(old, QUEUE_SLOT_COOLING,
												 QUEUE_SLOT_GONE | QUEUE_SLOT_RELEASED));
	claim->handed_over++;
	if (queue_state_ask(state, QUEUE_ASK_FAILURES))
		queue_wakeup_worker(MyDatabaseId);
}

/* Bytes that a tuple adds to the result, as the receiver counts them. */
static int64
result_bytes(Claim *claim, HeapTuple tuple)
{
	QueueMessage message;

	queue_message_deform(&message, tuple, RelationGetDescr(claim->visit.rel));
	return (int64) queue_message_size(&message);
}

/* Whether one more message would be too much for the result; otherwise its bytes. */
static bool
is_full(Claim *claim, HeapTuple tuple, int64 *bytes)
{
	if (claim->claimed_count >= claim->request->wanted)
		return true;
	*bytes = result_bytes(claim, tuple);
	return claim->claimed_count > 0 && claim->bytes + *bytes > claim->request->max_bytes;
}

/* A live message that nobody holds, or that cools to be claimed. */
static bool
consider(Claim *claim, HeapTuple tuple)
{
	QueueMessageHead head;
	int64		bytes;

	queue_message_head(&head, tuple, RelationGetDescr(claim->visit.rel));
	if (head.expires_at <= claim->visit.wall)
	{
		/* A claimer's slots are for claiming: it sweeps the page afterwards. */
		claim->saw_expired = true;
		if (claim->sweep)
			hand_over_expired(claim, tuple, &head);
		else
			queue_visit_due(&claim->visit, claim->visit.now + queue_recheck_interval * INT64CONST(1000));
		return true;
	}
	if (claim->move && queue_visit_held(&claim->visit, tuple) == QUEUE_HELD_NOT &&
		(claim->ready_too || head.visible_at > claim->visit.wall))
	{
		hand_over_survivor(claim, tuple, &head);
		return true;
	}
	/* A cooling message is due by its slot, not by its row. */
	if (head.visible_at > claim->visit.wall &&
		claim->visit.held_as[ItemPointerGetOffsetNumber(&tuple->t_self)] != QUEUE_HELD_CLAIMABLE)
	{
		queue_visit_due(&claim->visit, queue_clock_from_wall(Min(head.visible_at, head.expires_at)));
		return true;
	}
	if (claim->sweep)
	{
		queue_visit_due(&claim->visit, 0);
		return true;
	}
	if (is_full(claim, tuple, &bytes))
	{
		queue_visit_due(&claim->visit, 0);
		claim->bytes = Max(claim->bytes, claim->request->max_bytes);
		return false;
	}
	/* What could not be had takes no room in the result. */
	if (claim_tuple(claim, tuple, &head, heap_copytuple(tuple)))
		claim->bytes += bytes;
	else
		queue_visit_due(&claim->visit, claim->visit.now);
	return !claim->lacks_slots;
}

static bool
see_tuple(HeapTuple tuple, QueueTupleFate fate, void *arg)
{
	Claim	   *claim = arg;
	QueueHeldAs held = queue_visit_held(&claim->visit, tuple);

	if (!queue_visit_passes(&claim->visit, tuple, fate))
		return true;
	return held == QUEUE_HELD_NOT || held == QUEUE_HELD_CLAIMABLE ? consider(claim, tuple) : true;
}

/* Visit a page whose busy bit is held, and give it back. */
static void
visit_page(Claim *claim, QueueMapHold *hold)
{
	queue_visit_slots(&claim->visit, hold);
	queue_segment_visit(claim->visit.rel, hold->page, claim->snapshot, see_tuple, claim);
	queue_map_put(hold, claim->visit.due);
}

static void
no_memory(void)
{
	static TimestampTz logged = 0;	/* one line a minute is enough */
	TimestampTz now = GetCurrentTimestamp();

	if (now - logged > USECS_PER_MINUTE)
		ereport(LOG,
				(errmsg("queue has no lease slots or map memory left"),
				 errhint("Raise \"queue.max_leases\" or \"queue.map_memory\", or settle more messages.")));
	logged = now;
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no lease slots or map memory left"),
			 errdetail("%u of %u slots are free; a queue may hold half of them and leaves an eighth to others.",
					   queue_slot_free_count(), queue_slot_count()),
			 errhint("Raise \"queue.max_leases\" or \"queue.map_memory\", or settle more messages.")));
}

/* The first page somebody else was busy with, to wait for. */
typedef struct BusyPage
{
	QueueSegment *segment;		/* NULL: none */
	BlockNumber page;
} BusyPage;

/* Whether the claim goes on: there is room in the result, and it is not tired of this lane. */
static bool
wants_more(Claim *claim)
{
	return claim->claimed_count < claim->request->wanted &&
		claim->bytes < claim->request->max_bytes &&
		claim->pages_left > 0;
}

/* Claim from one segment, whose relation is locked. False: out of memory. */
static bool
claim_from_segment(Claim *claim, BusyPage *busy)
{
	const QueueClaimRequest *request = claim->request;
	BlockNumber from = 0;
	BlockNumber page;
	BlockNumber saw_busy = InvalidBlockNumber;

	while (wants_more(claim) &&
		   queue_map_find(claim->visit.segment, from, claim->visit.now, &page, &saw_busy))
	{
		QueueMapHold hold;
		int			had = claim->claimed_count;

		CHECK_FOR_INTERRUPTS();
		claim->pages_left--;
		/* Without a slot, what cools in one can still be claimed. */
		queue_slot_reserve(request->def->state, request->wanted - claim->claimed_count);
		from = page + 1;
		switch (queue_map_take(claim->visit.segment, page, claim->visit.now, &hold))
		{
			case QUEUE_MAP_TAKEN:
				claim->saw_expired = false;
				visit_page(claim, &hold);
				if (claim->lacks_slots)
					return false;
				if (claim->claimed_count > had)
					claim->pages_left = claim->patience;
				if (claim->saw_expired)
					queue_dequeue_sweep_page(request->def, claim->visit.rel, claim->visit.segment, page);
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
	if (saw_busy != InvalidBlockNumber && busy->segment == NULL)
	{
		busy->segment = claim->visit.segment;
		busy->page = saw_busy;
	}
	return true;
}

/* Claim from a lane; so many pages in vain, in a row, end it. False: out of memory. */
static bool
claim_lane(Claim *claim, QueueLane lane, int patience, BusyPage *busy)
{
	QueueState *state = claim->request->def->state;
	uint64		position = 0;
	uint32		generation;
	bool		ok = true;

	claim->patience = patience;
	claim->pages_left = patience;
	while (ok && wants_more(claim) &&
		   queue_ring_next_in(state, lane, &position, claim->visit.now, &claim->visit.segment, &generation))
	{
		claim->visit.rel = queue_segment_open(claim->visit.segment, generation, AccessShareLock);
		if (claim->visit.rel == NULL)
			continue;
		ok = claim_from_segment(claim, busy);
		relation_close(claim->visit.rel, AccessShareLock);
	}
	return ok;
}

/*
 * Claims take turns: one begins with the head of the backlog, the next with
 * what waited for its time, so that neither keeps the other waiting. Where one
 * lane has many pages of which nothing is known, the other comes before the end,
 * and a page that somebody is busy with is waited for before all are looked at.
 */
static bool
claim_round(Claim *claim, BusyPage *busy)
{
	QueueState *state = claim->request->def->state;
	QueueLane	lanes[2] = {QUEUE_LANE_BACKLOG, QUEUE_LANE_TIMED};
	int			patience = PAGES_IN_VAIN << Min(claim->rounds, ROUNDS_THAT_DOUBLE);
	bool		ok = true;

	claim->rounds++;
	claim->tired = false;
	claim->visit.now = queue_clock_now();
	claim->visit.wall = queue_clock_wall();
	busy->segment = NULL;
	if (state->timed == 0)
		ok = claim_lane(claim, QUEUE_LANE_ANY, PG_INT32_MAX, busy);
	else
	{
		/* A call has one turn, however many rounds it needs. */
		if (claim->rounds == 1)
			claim->timed_first = pg_atomic_fetch_add_u32(&state->turn, 1) % 2 == 1;
		if (claim->timed_first)
		{
			lanes[0] = QUEUE_LANE_TIMED;
			lanes[1] = QUEUE_LANE_BACKLOG;
		}
		for (int i = 0; ok && i < 2; i++)
		{
			ok = claim_lane(claim, lanes[i], patience, busy);
			claim->tired |= claim->pages_left <= 0;
		}
	}
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
 * Claim up to the wanted number of messages. The array has room for them; the
 * tuples are copies that may still point to values stored out of line.
 */
int
queue_dequeue_claim(const QueueClaimRequest *request, Snapshot snapshot, QueueClaimed *claimed)
{
	Claim	   *claim = palloc(sizeof(Claim));
	BusyPage	busy;
	bool		looked_again = false;
	bool		ok;
	int			n;

	queue_ring_load(request->def->state);
	queue_pending_reserve(request->wanted);
	claim->request = request;
	claim->snapshot = snapshot;
	claim->claimed = claimed;
	claim->claimed_count = 0;
	claim->bytes = 0;
	claim->lacks_slots = false;
	claim->sweep = claim->move = false;
	claim->rounds = 0;
	claim->timed_first = false;
	for (;;)
	{
		ok = claim_round(claim, &busy);
		if (claim->claimed_count > 0 || !ok)
			break;
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
	pfree(claim);
	queue_wakeup_pass_on(request->def->state, n > 0);
	if (n == 0 && !ok)
		no_memory();
	return n;
}

static int
sweep_page(QueueDef *def, Relation rel, QueueSegment *segment, BlockNumber page,
		   bool move, bool ready_too)
{
	QueueClaimRequest request = {.def = def};
	Claim	   *claim;
	QueueMapHold hold;
	int			handed_over;

	if (queue_map_take(segment, page, QUEUE_TIME_NEVER, &hold) != QUEUE_MAP_TAKEN)
		return 0;
	claim = palloc0(sizeof(Claim));
	claim->request = &request;
	claim->snapshot = NULL;
	queue_visit_begin(&claim->visit, segment, rel);
	claim->sweep = true;
	claim->move = move;
	claim->ready_too = ready_too;
	visit_page(claim, &hold);
	queue_slot_return_reserved();
	handed_over = claim->handed_over;
	pfree(claim);
	return handed_over;
}

/*
 * Look at everything on a page and take nothing: leases run out, expired
 * messages go to the worker, the page's due becomes what it should be.
 */
void
queue_dequeue_sweep_page(QueueDef *def, Relation rel, QueueSegment *segment, BlockNumber page)
{
	sweep_page(def, rel, segment, page, false, false);
}

/*
 * The same, and messages that nobody holds go to the worker, to be stored in
 * another segment. Returns how many. While a ready one is being written, a
 * dequeue does not find it, so those go only if nobody asks for any.
 */
int
queue_dequeue_move_page(QueueDef *def, Relation rel, QueueSegment *segment, BlockNumber page,
						bool ready_too)
{
	return sweep_page(def, rel, segment, page, true, ready_too);
}
