/*
 * claim.c
 *	  What is done with the messages of a page whose busy bit is held.
 *
 * What a reader must believe:
 * - Under busy there is only a pin, a shared content lock and slot bookkeeping:
 *   no other lock, no write to the heap, no detoasting, nothing of the user's.
 *   Whatever fails, the abort callbacks give busy and unused slots back.
 * - A message is taken only if it is visible to the snapshot, so that what was
 *   committed with it is visible to the same statement.
 * - Nothing is written for somebody else's message: an expired lease only
 *   changes its slot, and the worker writes it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "claim.h"
#include "guc.h"
#include "lease.h"
#include "message.h"
#include "pending.h"
#include "priority.h"
#include "wakeup.h"

/*
 * The priority with which a message of the page at hand is claimed. After a
 * restart there may be others than anybody knows: they go with what is around them.
 */
static int
priority_of(QueueClaim *claim, HeapTuple tuple)
{
	QueueSegment *segment = claim->visit.segment;
	int			priority;

	if (!claim->mixed)
		return segment->priority;
	priority = queue_message_tuple_priority(tuple, RelationGetDescr(claim->visit.rel));
	return pg_atomic_read_u32(&segment->priorities) & (1 << priority) ? priority : segment->priority;
}

/* What a slot says of its message, whatever it is taken for. Slot is locked. */
static void
fill_slot(QueueClaim *claim, QueueSlot *slot, HeapTuple tuple, const QueueMessageHead *head)
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
	slot->priority = priority_of(claim, tuple);
	slot->moving = false;
	slot->reason = QUEUE_FAILURE_NONE;
	slot->taken = claim->visit.now;
	slot->deadline = QUEUE_TIME_NEVER;
	slot->next = claim->visit.now;
	slot->metered = false;
	slot->prior = QUEUE_SLOT_FREE;
	slot->xid = InvalidFullTransactionId;
	slot->owner = GetUserId();
	slot->pid = MyProcPid;
	slot->retry_delay = 0;
	slot->at_limit = false;
	slot->consumer[0] = '\0';
	slot->key = 0;
	slot->is_copy = claim->ordered && head->is_copy;
	slot->copied_to = QUEUE_POSITION_NONE;
	slot->blocks = slot->blocks_dead = false;
}

/* How often a message may fail; 0: for ever. */
static int
limit_of(QueueClaim *claim, const QueueMessageHead *head)
{
	return head->max_attempts >= 0 ? head->max_attempts : claim->request->def->options.max_attempts;
}

/* Whether the last failure allowed ends it: a dead letter does not die again. */
static bool
can_die(QueueClaim *claim, HeapTuple tuple, const QueueMessageHead *head)
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

static QueueTime
deadline_of(QueueClaim *claim)
{
	const QueueClaimRequest *request = claim->request;

	return claim->visit.now + (request->lease ? request->lease : request->def->options.lease_timeout);
}

static void
fill_lease(QueueClaim *claim, QueueSlot *slot, const QueueMessageHead *head, bool dies)
{
	const QueueClaimRequest *request = claim->request;
	QueueDef   *def = request->def;
	int64		lease = request->lease ? request->lease : def->options.lease_timeout;

	slot->taken = claim->visit.now;
	slot->deadline = deadline_of(claim);
	slot->cap = claim->visit.now + Max(def->options.lease_max, lease);
	slot->moving = false;
	slot->retry_delay = queue_options_retry_delay(&def->options, slot->failures + 1);
	slot->at_limit = dies && slot->failures + 1 >= limit_of(claim, head);
	slot->blocks_dead = def->options.on_dead != QUEUE_ON_DEAD_SKIP;
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
get_slot(QueueClaim *claim, HeapTuple tuple, const QueueMessageHead *head, uint64 *word)
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

/* A slot that was got for nothing is what it was before. */
static void
unget_slot(QueueClaim *claim, QueueSlot *slot, uint64 word)
{
	uint32		number = queue_slot_number(slot);

	queue_slot_unlock(slot, word);
	if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_FREE)
		queue_slot_give_back(claim->request->def->state, 1, &number);
}

/* The key as limits and turns know it; keys that are stored compressed share one. */
static uint64
metered_key(QueueClaim *claim, HeapTuple tuple)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, QUEUE_COLUMN_KEY, RelationGetDescr(claim->visit.rel), &isnull);
	struct varlena *key = isnull ? NULL : (struct varlena *) DatumGetPointer(value);

	if (key == NULL)
		return QUEUE_METER_NO_KEY;
	if (VARATT_IS_EXTERNAL(key) || VARATT_IS_COMPRESSED(key))
		return queue_limit_hash(QUEUE_LIMIT_KEY, "", 0);
	return queue_limit_hash(QUEUE_LIMIT_KEY, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
}

static QueuePosition
position_of(QueueClaim *claim)
{
	return QUEUE_POSITION(claim->visit.segment->rank, claim->visit.hold->page);
}

/* What is left to wait for its key's room is not due, but for its end. */
static void
wait_for_room(QueueClaim *claim, const QueueMessageHead *head)
{
	claim->waits = true;
	if (head->expires_at != DT_NOEND)
		queue_visit_due(&claim->visit, queue_clock_from_wall(head->expires_at));
}

/*
 * Count the message, which has a locked slot, on what limits it; without a slot it
 * is only asked. False: there is no room. While other limits are in force than the
 * claim goes by, there is none.
 */
static bool
admit(QueueClaim *claim, HeapTuple tuple, const QueueMessageHead *head, QueueSlot *slot)
{
	bool		isnull;
	Datum		cost;

	/* Whoever brings other limits into force sees the slot from now on, or we see them. */
	if (slot && !queue_meter_is_in_force(claim->request->def->state, claim->request->def->version))
	{
		claim->closed = claim->stale = true;
		return false;
	}
	if (!claim->metered)
		return true;
	cost = heap_getattr(tuple, QUEUE_COLUMN_COST, RelationGetDescr(claim->visit.rel), &isnull);
	switch (queue_meter_take(&claim->metering, metered_key(claim, tuple), isnull ? 1 : Max(DatumGetInt32(cost), 0),
							 position_of(claim), deadline_of(claim), slot ? queue_slot_meters(slot) : NULL))
	{
		case QUEUE_METER_TAKE:
			if (slot)
				slot->metered = true;
			return true;
		case QUEUE_METER_WAIT:
			wait_for_room(claim, head);
			break;
		case QUEUE_METER_LATER:
			claim->waits = true;
			queue_visit_due(&claim->visit, claim->visit.now + queue_recheck_interval * INT64CONST(1000));
			break;
		case QUEUE_METER_CLOSED:
			claim->closed = true;
			break;
	}
	return false;
}

/* Lease the message to the caller. Returns false if it has to stay. */
static bool
claim_tuple(QueueClaim *claim, HeapTuple tuple, const QueueMessageHead *head, uint64 hash, HeapTuple copy)
{
	uint64		old;
	uint64		new;
	bool		dies = can_die(claim, tuple, head);
	QueueSlot  *slot = get_slot(claim, tuple, head, &old);
	QueueClaimed *claimed;

	if (slot == NULL)
		return false;
	if (!admit(claim, tuple, head, slot))
	{
		unget_slot(claim, slot, old);
		return false;
	}
	if (claim->ordered && !queue_order_take(&claim->order, hash, slot))
	{
		queue_slot_end_metering(slot);
		unget_slot(claim, slot, old);
		return false;
	}
	carry_failure(slot, old);
	fill_lease(claim, slot, head, dies);
	queue_slot_set_attempt(queue_slot_number(slot), claim->request->attempt);
	new = queue_slot_next_word(old, QUEUE_SLOT_LEASED, 0);
	claimed = &claim->claimed[claim->claimed_count++];
	claimed->tuple = copy;
	claimed->id = head->id;
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
get_slot_for_worker(QueueClaim *claim, HeapTuple tuple, const QueueMessageHead *head, uint64 *word)
{
	/* While no worker writes, what waits for it must not eat up the slots. */
	if (pg_atomic_read_u32(&claim->request->def->state->slots) >= queue_slot_count() / 16)
		return NULL;
	return get_slot(claim, tuple, head, word);
}

/* An expired message goes to the worker, by a slot that nobody can claim. */
static void
hand_over_expired(QueueClaim *claim, HeapTuple tuple, const QueueMessageHead *head)
{
	QueueState *state = claim->request->def->state;
	uint64		old;
	QueueSlot  *slot = get_slot_for_worker(claim, tuple, head, &old);
	uint32		key;
	bool		is_copy;

	if (slot == NULL)
	{
		queue_visit_due(&claim->visit, claim->visit.now + queue_recheck_interval * INT64CONST(1000));
		return;
	}
	carry_failure(slot, old);
	if (slot->chain == NULL)
		queue_slot_link(slot, claim->visit.hold);
	if (claim->ordered)
		queue_order_hang(&claim->order, queue_order_hash(tuple, RelationGetDescr(claim->visit.rel)), slot);
	key = slot->key;
	is_copy = slot->is_copy;
	queue_slot_unlock(slot, queue_slot_next_word(old, QUEUE_SLOT_COOLING, QUEUE_SLOT_GONE |
												 QUEUE_SLOT_DEAD | QUEUE_SLOT_EXPIRED));
	if (key != 0)
		queue_lease_key_cools(key - 1, state, is_copy);
	if (queue_state_ask(state, QUEUE_ASK_FAILURES))
		queue_wakeup_worker(MyDatabaseId);
}

/*
 * One that the worker is to store elsewhere, as it is. It can be claimed at "next"
 * all the same, so it may have a slot as if it were claimed if it has no other way
 * to be.
 */
static void
hand_over(QueueClaim *claim, HeapTuple tuple, const QueueMessageHead *head, QueueTime next, bool no_other_way)
{
	QueueState *state = claim->request->def->state;
	uint64		old;
	QueueSlot  *slot = no_other_way ? get_slot(claim, tuple, head, &old)
		: get_slot_for_worker(claim, tuple, head, &old);

	if (slot == NULL)
		return;
	slot->moving = true;
	slot->next = next;
	queue_slot_link(slot, claim->visit.hold);
	if (claim->ordered)
		queue_order_hang(&claim->order, queue_order_hash(tuple, RelationGetDescr(claim->visit.rel)), slot);
	queue_slot_unlock(slot, queue_slot_next_word(old, QUEUE_SLOT_COOLING,
												 QUEUE_SLOT_GONE | QUEUE_SLOT_RELEASED));
	claim->handed_over++;
	if (queue_state_ask(state, QUEUE_ASK_FAILURES))
		queue_wakeup_worker(MyDatabaseId);
}

/* What is left of an old segment: it is claimed when it could be claimed before. */
static void
hand_over_survivor(QueueClaim *claim, HeapTuple tuple, const QueueMessageHead *head)
{
	QueueTime	next = head->visible_at <= claim->visit.wall ? 0 : queue_clock_from_wall(head->visible_at);

	queue_visit_due(&claim->visit, head->expires_at < head->visible_at
					? queue_clock_from_wall(head->expires_at) : next);
	hand_over(claim, tuple, head, next, false);
}

/*
 * Whether the worker may store elsewhere what nobody holds. Of an ordered queue
 * only copies: what is in line stays there, and what waits for its time would be
 * in line with an id that is too low for its place.
 */
static bool
may_move(QueueClaim *claim, const QueueMessageHead *head)
{
	if (claim->ordered && !head->is_copy)
		return false;
	return claim->ready_too || head->visible_at > claim->visit.wall;
}

/* Bytes that a tuple adds to the result, as the receiver counts them. */
static int64
result_bytes(QueueClaim *claim, HeapTuple tuple)
{
	QueueMessage message;

	queue_message_deform(&message, tuple, RelationGetDescr(claim->visit.rel));
	return (int64) queue_message_size(&message);
}

/* Whether a message of so many bytes would be too much for the result. */
static bool
is_full(QueueClaim *claim, int64 bytes)
{
	return claim->claimed_count >= claim->request->wanted ||
		(claim->claimed_count > 0 && claim->bytes + bytes > claim->request->max_bytes);
}

/* Whether a message is one of those that the claim is after at the moment. */
static bool
is_wanted(QueueClaim *claim, HeapTuple tuple, const QueueMessageHead *head)
{
	if (priority_of(claim, tuple) != claim->priority)
		return false;
	if (head->enqueued_at <= claim->until)
	{
		claim->last = head->enqueued_at;
		return true;
	}
	claim->past = true;
	claim->next = Min(claim->next, head->enqueued_at);
	return false;
}

/* Whether it has the key that is asked for, not only one of the same hash. */
static bool
has_key(QueueClaim *claim, HeapTuple tuple)
{
	const char *wanted = claim->request->key;
	size_t		length = strlen(wanted);
	bool		isnull;
	Datum		value = heap_getattr(tuple, QUEUE_COLUMN_KEY, RelationGetDescr(claim->visit.rel), &isnull);
	struct varlena *key = isnull ? NULL : (struct varlena *) DatumGetPointer(value);

	if (key == NULL)
		return length == 0;
	/* None of a length that can be asked for is stored so. */
	if (VARATT_IS_EXTERNAL(key) || VARATT_IS_COMPRESSED(key))
		return false;
	return VARSIZE_ANY_EXHDR(key) == length && memcmp(VARDATA_ANY(key), wanted, length) == 0;
}

/* A message that could be had is not asked for. */
static bool
leave_to_others(QueueClaim *claim, uint64 hash)
{
	queue_visit_due(&claim->visit, 0);
	if (claim->ordered)
		queue_order_leave(&claim->order, hash);
	return true;
}

/* The result has no room for the message, so others may have it. */
static bool
leave_for_want_of_room(QueueClaim *claim)
{
	queue_visit_due(&claim->visit, 0);
	claim->bytes = Max(claim->bytes, claim->request->max_bytes);
	return false;
}

/* Whether the call goes on to look at messages of the page. */
static bool
take(QueueClaim *claim, HeapTuple tuple, const QueueMessageHead *head, uint64 hash)
{
	int64		bytes = 0;
	bool		may;

	if (claim->request->key && !has_key(claim, tuple))
		return leave_to_others(claim, hash);
	claim->waits = false;
	if (is_full(claim, 0))
	{
		/* What a turn leaves waits for the next one of its key. */
		if (claim->turns > 0 && !admit(claim, tuple, head, NULL) && claim->waits)
			return true;
		return leave_for_want_of_room(claim);
	}
	/* What cannot be had is not measured or copied, and takes no room in the result. */
	may = !claim->metered || admit(claim, tuple, head, NULL);
	if (may)
		bytes = result_bytes(claim, tuple);
	if (may && is_full(claim, bytes))
	{
		if (claim->ordered)
			queue_order_no_room(&claim->order, hash);
		return leave_for_want_of_room(claim);
	}
	if (may && claim_tuple(claim, tuple, head, hash, heap_copytuple(tuple)))
		claim->bytes += bytes;
	else if (!claim->waits)
		queue_visit_due(&claim->visit, claim->closed ? 0 : claim->visit.now);
	return !claim->lacks_slots && !claim->order.lacks_keys && !claim->closed;
}

/*
 * A message of an ordered queue that waited for its time has no place in line,
 * wherever it lies: after a restart its segment is in line, but goes by the first
 * id in it. It is taken if nothing of its key is known, else it becomes a copy,
 * which comes when its key is free, before what has a higher id.
 */
static bool
consider_late(QueueClaim *claim, HeapTuple tuple, const QueueMessageHead *head, uint64 hash)
{
	QueueOrder *order = &claim->order;

	if (!claim->sweep && (!order->has_turn || !queue_order_seeks(order, hash)))
	{
		queue_visit_due(&claim->visit, 0);
		return true;
	}
	if (queue_order_is_free(order, hash))
	{
		if (!claim->sweep)
			return take(claim, tuple, head, hash);
		queue_visit_due(&claim->visit, 0);
		return true;
	}
	queue_visit_due(&claim->visit, claim->visit.now + queue_recheck_interval * INT64CONST(1000));
	if (claim->sweep)
		hand_over(claim, tuple, head, claim->visit.now, true);
	else
		claim->saw_expired = true;
	return true;
}

/* A message of an ordered queue that is due and can be had, but for its key. */
static bool
consider_in_order(QueueClaim *claim, HeapTuple tuple, const QueueMessageHead *head, uint64 hash)
{
	QueueOrder *order = &claim->order;
	QueueHeldAs held = queue_visit_held(&claim->visit, tuple);
	QueueOrderVerdict verdict;

	if (held == QUEUE_HELD_NOT && !TIMESTAMP_IS_NOBEGIN(head->visible_at) && !head->is_copy)
		return consider_late(claim, tuple, head, hash);
	if (order->learns)
	{
		queue_order_learn(order, hash, head);
		verdict = QUEUE_ORDER_DUE;
	}
	else if (order->has_turn)
		verdict = queue_order_judge(order, hash, head, held);
	else if (held == QUEUE_HELD_CLAIMABLE)
		verdict = QUEUE_ORDER_DUE;
	else
		verdict = queue_order_pass(order, hash, head);
	switch (verdict)
	{
		case QUEUE_ORDER_TAKE:
			return take(claim, tuple, head, hash);
		case QUEUE_ORDER_WAIT:
			break;
		case QUEUE_ORDER_DUE:
			queue_visit_due(&claim->visit, 0);
			break;
	}
	return true;
}

/* A live message that nobody holds, or that cools to be claimed. */
static bool
consider(QueueClaim *claim, HeapTuple tuple)
{
	QueueMessageHead head;
	uint64		hash = 0;

	queue_message_head(&head, tuple, RelationGetDescr(claim->visit.rel));
	if (claim->ordered)
		hash = queue_order_hash(tuple, RelationGetDescr(claim->visit.rel));
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
	if (claim->move && queue_visit_held(&claim->visit, tuple) == QUEUE_HELD_NOT && may_move(claim, &head))
	{
		hand_over_survivor(claim, tuple, &head);
		return true;
	}
	if (claim->ordered && head.is_copy && !queue_order_know_copy(&claim->order, hash, &head))
	{
		queue_visit_due(&claim->visit, 0);
		return false;
	}
	/* A cooling message is due by its slot, not by its row. */
	if (head.visible_at > claim->visit.wall &&
		claim->visit.held_as[ItemPointerGetOffsetNumber(&tuple->t_self)] != QUEUE_HELD_CLAIMABLE)
	{
		queue_visit_due(&claim->visit, queue_clock_from_wall(Min(head.visible_at, head.expires_at)));
		return true;
	}
	if (claim->ordered && claim->order.chosen && hash != claim->order.hash)
	{
		queue_visit_due(&claim->visit, 0);
		return true;
	}
	if (claim->ordered)
		return consider_in_order(claim, tuple, &head, hash);
	if (claim->sweep)
	{
		if (claim->request->def->state->metered && queue_meter_knows(claim->request->def->state, metered_key(claim, tuple), position_of(claim)))
			wait_for_room(claim, &head);
		else
			queue_visit_due(&claim->visit, 0);
		return true;
	}
	if (claim->by_priority && !is_wanted(claim, tuple, &head))
	{
		queue_visit_due(&claim->visit, 0);
		return true;
	}
	return take(claim, tuple, &head, hash);
}

/* A copy that is there, though our snapshot is too old to see it, is before what it sees. */
static void
consider_unseen(QueueClaim *claim, HeapTuple tuple)
{
	QueueMessageHead head;

	queue_message_head(&head, tuple, RelationGetDescr(claim->visit.rel));
	if (head.is_copy)
		queue_order_know_copy(&claim->order, queue_order_hash(tuple, RelationGetDescr(claim->visit.rel)), &head);
}

/* Somebody who has no slot deletes it. */
static void
consider_deleted(QueueClaim *claim, HeapTuple tuple)
{
	uint64		hash = queue_order_hash(tuple, RelationGetDescr(claim->visit.rel));
	QueueMessageHead head;

	queue_message_head(&head, tuple, RelationGetDescr(claim->visit.rel));
	if (!queue_order_undecided(&claim->order, hash, &head,
							   claim->visit.now + queue_recheck_interval * INT64CONST(1000)) ||
		(claim->order.chosen && hash != claim->order.hash))
		queue_visit_due(&claim->visit, 0);
}

/* In which way a tuple of an ordered queue keeps others back that we see. */
static void
see_in_order(QueueClaim *claim, HeapTuple tuple, QueueTupleFate fate, QueueHeldAs held)
{
	if (fate == QUEUE_TUPLE_DELETING && held == QUEUE_HELD_NOT)
		consider_deleted(claim, tuple);
	else if (fate == QUEUE_TUPLE_UNSEEN)
		consider_unseen(claim, tuple);
	if (fate != QUEUE_TUPLE_GONE && claim->order.has_turn &&
		(held == QUEUE_HELD_LEASED || held == QUEUE_HELD_SETTLING || held == QUEUE_HELD_COOLING))
		queue_order_see_held(&claim->order, queue_order_hash(tuple, RelationGetDescr(claim->visit.rel)), held);
}

/*
 * Pages are begun one after the other, and filled by several producers at a
 * time: what tells of those behind a page is its first tuple, dead or alive. One
 * whose time is to come tells nothing: the clock was set back.
 */
static void
see_first(QueueClaim *claim, HeapTuple tuple)
{
	QueueMessageHead head;

	queue_message_head(&head, tuple, RelationGetDescr(claim->visit.rel));
	claim->begun = head.enqueued_at <= claim->visit.wall ? head.enqueued_at : DT_NOBEGIN;
}

/* Whether it is one of the keys that the page is looked at for. */
static bool
has_turn(const QueueClaim *claim, uint64 key)
{
	for (int i = 0; i < claim->turns; i++)
		if (claim->turn_of[i] == key)
			return true;
	return false;
}

static bool
see_tuple(HeapTuple tuple, QueueTupleFate fate, void *arg)
{
	QueueClaim *claim = arg;
	QueueHeldAs held = queue_visit_held(&claim->visit, tuple);

	if (claim->ordered)
		see_in_order(claim, tuple, fate, held);
	if (claim->by_priority && ItemPointerGetOffsetNumber(&tuple->t_self) == FirstOffsetNumber)
		see_first(claim, tuple);
	if (claim->mixed && fate != QUEUE_TUPLE_GONE)
		claim->seen |= 1 << priority_of(claim, tuple);
	if (!queue_visit_passes(&claim->visit, tuple, fate))
		return true;
	if (held != QUEUE_HELD_NOT && held != QUEUE_HELD_CLAIMABLE)
		return true;
	/* The page was not due for the others, so their keys know of them, or its due does. */
	if (claim->turns > 0 && !has_turn(claim, metered_key(claim, tuple)))
		return true;
	claim->saw_all = consider(claim, tuple);
	return claim->saw_all;
}

/* Whether each message of the page that can be had is asked for, where keys take turns. */
static bool
asks_all(const QueueClaim *claim)
{
	return claim->metered && claim->metering.fair && !claim->sweep && claim->turns == 0 && !claim->by_priority &&
		claim->request->key == NULL;
}

/* Visit a page whose busy bit is held, and give it back. */
void
queue_claim_visit(QueueClaim *claim, QueueMapHold *hold)
{
	uint32		moment;
	uint32		front;

	queue_visit_slots(&claim->visit, hold);
	front = asks_all(claim) ? queue_meter_is_at_front(claim->metering.state, position_of(claim)) : 0;
	if (claim->ordered)
	{
		queue_order_begin_page(&claim->order, QUEUE_POSITION(claim->visit.segment->rank, hold->page),
							   hold->was_due <= claim->visit.now);
		/* Of one key's line, each message that others may have says so itself. */
		if (!claim->order.in_line && !claim->order.chosen)
			queue_visit_due(&claim->visit, 0);
	}
	if (claim->turns > 0)
		queue_visit_due(&claim->visit, hold->was_due);
	claim->mixed = hold->page < pg_atomic_read_u32(&claim->visit.segment->mixed);
	claim->seen = 0;
	claim->saw_all = true;
	claim->past = false;
	claim->begun = DT_NOBEGIN;
	moment = claim->mixed ? queue_priority_moment(claim->visit.segment) : 0;
	queue_segment_visit(claim->visit.rel, hold->page, claim->snapshot, claim->ordered, see_tuple, claim);
	if (claim->mixed && claim->saw_all)
		queue_map_mark(hold, moment | claim->seen);
	/* Those of what waited for its time are begun in no order. */
	if (claim->past && claim->begun > claim->until && !claim->visit.segment->timed)
	{
		claim->over = true;
		claim->next = Min(claim->next, claim->begun);
	}
	if (front)
		queue_meter_move_front(claim->metering.state, front, position_of(claim), position_of(claim) + 1);
	queue_map_put(hold, claim->visit.due);
}

static int
sweep_page(QueueDef *def, Relation rel, QueueSegment *segment, BlockNumber page,
		   bool move, bool ready_too)
{
	QueueClaimRequest request = {.def = def};
	QueueClaim *claim;
	QueueMapHold hold;
	int			handed_over;

	if (queue_map_take(segment, page, QUEUE_TIME_NEVER, &hold) != QUEUE_MAP_TAKEN)
		return 0;
	claim = palloc0(sizeof(QueueClaim));
	claim->request = &request;
	claim->snapshot = NULL;
	claim->ordered = def->options.ordered;
	claim->order.state = def->state;
	queue_visit_begin(&claim->visit, segment, rel);
	claim->sweep = true;
	claim->move = move;
	claim->ready_too = ready_too;
	queue_claim_visit(claim, &hold);
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
queue_claim_sweep_page(QueueDef *def, Relation rel, QueueSegment *segment, BlockNumber page)
{
	sweep_page(def, rel, segment, page, false, false);
}

/*
 * The same, and messages that nobody holds go to the worker, to be stored in
 * another segment. Returns how many. While a ready one is being written, a
 * dequeue does not find it, so those go only if nobody asks for any.
 */
int
queue_claim_move_page(QueueDef *def, Relation rel, QueueSegment *segment, BlockNumber page,
						bool ready_too)
{
	return sweep_page(def, rel, segment, page, true, ready_too);
}
