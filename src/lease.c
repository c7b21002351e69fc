/*
 * lease.c
 *	  How a lease ends without a settlement: deadline, abort, release; and how
 *	  a settlement that did not commit is undone.
 *
 * All of these run in callbacks or under a page's busy bit, so none can fail,
 * wait or allocate. A failure is counted here at once, in the slot; the worker
 * writes it to disk later. Whatever makes the message claimable again lowers
 * its page and wakes who sleeps.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/procarray.h"

#include "guc.h"
#include "lease.h"
#include "priority.h"
#include "segment.h"
#include "wakeup.h"

/* Have the slot's page looked at by this time. */
void
queue_lease_lower(QueueSlot *slot, QueueTime due)
{
	QueueSegment *segment = queue_segment_at(slot->segment);
	QueueState *state = &queue_states[slot->queue];
	bool		at_once = due <= queue_clock_now();

	if (pg_atomic_read_u32(&segment->generation) != slot->generation)
		return;
	/* The map rounds times up, to the next millisecond; now is not later. */
	queue_map_lower(segment, ItemPointerGetBlockNumber(&slot->tid), at_once ? 0 : due);
	if (at_once)
	{
		queue_wakeup_work(state, 1);
		if (queue_state_ask(state, QUEUE_ASK_NOTIFY))
			queue_wakeup_worker(slot->database);
	}
	else
		queue_wakeup_due(state, due);
}

/* ---- the order of keys ---- */

/* There is work of this queue that can be had now. */
void
queue_lease_announce(QueueState *state, Oid database)
{
	queue_wakeup_work(state, 1);
	if (queue_state_ask(state, QUEUE_ASK_NOTIFY))
		queue_wakeup_worker(database);
}

/* Free a locked slot; tell of its key, if others can have that now. */
static void
free_slot(QueueSlot *slot, uint64 word, uint32 flags)
{
	QueueState *state = &queue_states[slot->queue];
	Oid			database = slot->database;

	if (queue_slot_free(slot, word, flags))
		queue_lease_announce(state, database);
}

/*
 * The key's entry knows that the row of this locked slot waits where it is. What
 * waited for its time has no place in line, and what is a copy is among the copies
 * until it is settled.
 */
static void
let_wait(QueueSlot *slot)
{
	QueueSegment *segment = queue_segment_at(slot->segment);
	QueueKey   *key;

	if (slot->timed || slot->is_copy ||
		pg_atomic_read_u32(&segment->generation) != slot->generation)
		return;
	key = queue_key_lock(slot->key - 1);
	queue_key_let_wait(key, QUEUE_POSITION(segment->rank, ItemPointerGetBlockNumber(&slot->tid)),
					   slot->message_id);
	queue_key_unlock(key);
}

/* End a locked slot's lease, uncounted: its message waits in its place, in order. */
static void
put_back(QueueSlot *slot, uint64 word)
{
	QueueSegment *segment = queue_segment_at(slot->segment);
	uint32		generation = slot->generation;
	BlockNumber page = ItemPointerGetBlockNumber(&slot->tid);
	bool		late = slot->timed && !slot->is_copy;
	QueueState *state = &queue_states[slot->queue];
	Oid			database = slot->database;

	memset(&slot->receipt, 0, sizeof(pg_uuid_t));
	let_wait(slot);
	free_slot(slot, word, 0);
	/* Nobody but its page knows of it. */
	if (late && pg_atomic_read_u32(&segment->generation) == generation)
	{
		queue_map_lower(segment, page, 0);
		queue_lease_announce(state, database);
	}
}

/*
 * A message failed or came back: whatever the same call took behind it goes
 * back too. What is being settled by then is left to that, see unsettle_locked().
 */
void
queue_lease_void_behind(uint32 number, uint64 call, uint32 taken_as)
{
	uint32		slots[64];
	uint64		sequences[64];
	uint32		n;
	QueueKey   *key = queue_key_lock(number);

	if (key == NULL)
		return;
	if (key->call == call)
		key->failed_as = Min(key->failed_as, taken_as);
	queue_key_unlock(key);
	do
	{
		n = queue_slot_taken_behind(number, call, taken_as, slots, sequences, lengthof(slots));
		for (uint32 i = 0; i < n; i++)
		{
			QueueSlot  *slot = queue_slot(slots[i]);
			uint64		word;

			if (!queue_slot_lock_sequence(slot, sequences[i], &word))
				continue;
			if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_LEASED)
				put_back(slot, word);
			else
				queue_slot_unlock(slot, word);
		}
	} while (n == lengthof(slots));
}

/* Whether what the same call took before a locked slot has failed, or is about to. */
static bool
is_behind_failure(QueueSlot *slot, QueueTime now)
{
	QueueKey   *key = queue_key_lock(slot->key - 1);
	bool		behind = key->call == slot->call && key->failed_as < slot->taken_as;

	for (uint32 link = key->slots; link != 0 && !behind; link = queue_slot(link - 1)->next_of_key)
	{
		QueueSlot  *other = queue_slot(link - 1);

		behind = other->call == slot->call && other->taken_as < slot->taken_as &&
			QUEUE_SLOT_STATE(pg_atomic_read_u64(&other->word)) == QUEUE_SLOT_LEASED &&
			other->deadline <= now;
	}
	queue_key_unlock(key);
	return behind;
}

/*
 * The row of a locked slot of an ordered queue is deleted for good, and its copy,
 * if there is one, is there: change what is known of the key's copies.
 */
void
queue_lease_settle_key(QueueSlot *slot, QueueSettlement how)
{
	QueueKey   *key = queue_key_lock(slot->key - 1);

	if (slot->is_copy)
	{
		/* The entry may know of another one only, since this one was held. */
		if (key->one_copy && key->first_copy == slot->message_id)
		{
			queue_span_clear(&key->copies);
			key->first_copy = QUEUE_COPY_NONE;
		}
		else
			key->first_copy = QUEUE_COPY_UNKNOWN;
		key->one_copy = false;
	}
	if (slot->copied_to != QUEUE_POSITION_NONE &&
		(how == QUEUE_SETTLE_RETRY || how == QUEUE_SETTLE_MOVE))
		queue_key_add_copy(key, slot->copied_to, slot->message_id);
	if (how == QUEUE_SETTLE_DEAD && slot->blocks)
	{
		pg_atomic_fetch_add_u32(&queue_states[slot->queue].blocked_changes, 1);
		key->blocked = true;
	}
	queue_key_unlock(key);
}

/*
 * A slot cools: is anybody to look at its key? What is dead keeps nobody back, so
 * if it was a copy, the first of them is another one.
 */
void
queue_lease_key_cools(uint32 number, QueueState *state, bool dead_copy)
{
	QueueKey   *key = queue_key_lock(number);
	bool		ready;

	if (key == NULL)
		return;
	if (dead_copy && !queue_span_is_empty(&key->copies))
	{
		key->first_copy = QUEUE_COPY_UNKNOWN;
		key->one_copy = false;
	}
	ready = queue_key_has_more(key) && !queue_slot_holds_key(key) && queue_key_make_ready(key);
	queue_key_unlock(key);
	if (ready)
		queue_lease_announce(state, state->database);
}

/* ---- ends of leases ---- */

/*
 * Count a failure of a locked slot, and unlock it. The next delivery is after
 * the delay that was drawn when the lease began; at the limit there is none.
 * Of an ordered queue only the first of those that fail together is charged.
 */
void
queue_lease_fail(QueueSlot *slot, uint64 word, QueueFailureReason reason)
{
	QueueState *state = &queue_states[slot->queue];
	Oid			database = slot->database;
	QueueTime	when = reason == QUEUE_FAILURE_DEADLINE ? slot->deadline : queue_clock_now();
	uint32		flags = reason == QUEUE_FAILURE_DEADLINE ? QUEUE_SLOT_LATE : QUEUE_SLOT_GONE;
	uint32		key = slot->key;
	uint64		call = slot->call;
	uint32		taken_as = slot->taken_as;
	bool		dead_copy = slot->is_copy && slot->at_limit;
	bool		room;

	if (key != 0 && is_behind_failure(slot, when))
	{
		put_back(slot, word);
		return;
	}
	slot->reason = reason;
	slot->next = when + slot->retry_delay;
	slot->xid = InvalidFullTransactionId;
	if (slot->at_limit)
		flags |= QUEUE_SLOT_DEAD;
	else
		queue_lease_lower(slot, slot->next);
	room = queue_slot_end_metering(slot);
	queue_slot_unlock(slot, queue_slot_word(word, QUEUE_SLOT_COOLING, flags));
	if (room)
		queue_lease_announce(state, database);
	queue_count(state, QUEUE_COUNT_FAILED, 1);
	if (queue_state_ask(state, QUEUE_ASK_FAILURES))
		queue_wakeup_worker(database);
	if (key != 0)
	{
		queue_lease_void_behind(key - 1, call, taken_as);
		queue_lease_key_cools(key - 1, state, dead_copy);
	}
}

/* If the lease has run out, make it a failure. Returns whether it did. */
bool
queue_lease_expire(QueueSlot *slot, uint64 sequence, QueueTime now)
{
	uint64		word;

	if (!queue_slot_lock_sequence(slot, sequence, &word))
		return false;
	if (QUEUE_SLOT_STATE(word) != QUEUE_SLOT_LEASED || slot->deadline > now)
	{
		queue_slot_unlock(slot, word);
		return false;
	}
	queue_lease_fail(slot, word, QUEUE_FAILURE_DEADLINE);
	return true;
}

/*
 * If a lease has run out, its receipt is not good any more, whatever becomes of
 * a transaction that settles its message.
 */
void
queue_lease_void(QueueSlot *slot, uint64 sequence, QueueTime now)
{
	uint64		word;

	queue_lease_expire(slot, sequence, now);
	if (!queue_slot_lock_sequence(slot, sequence, &word))
		return;
	if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_COOLING)
		word = (word & ~(uint64) QUEUE_SLOT_LATE) | QUEUE_SLOT_GONE;
	else if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_SETTLING)
		word |= QUEUE_SLOT_GONE;
	queue_slot_unlock(slot, word);
}

/*
 * Give a locked slot's message back without counting; it can be dequeued at
 * "next". Failures that are only in the slot, and delays, need a slot still.
 */
void
queue_lease_release(QueueSlot *slot, uint64 word, QueueTime next)
{
	QueueTime	now = queue_clock_now();
	uint32		key = slot->key;
	uint64		call = slot->call;
	uint32		taken_as = slot->taken_as;
	QueueState *state = &queue_states[slot->queue];
	Oid			database = slot->database;
	bool		room;

	if (next <= now && !slot->unwritten && key != 0)
	{
		put_back(slot, word);
		queue_lease_void_behind(key - 1, call, taken_as);
		return;
	}
	if (next <= now && !slot->unwritten)
	{
		QueueSegment *segment = queue_segment_at(slot->segment);
		uint32		generation = slot->generation;
		BlockNumber page = ItemPointerGetBlockNumber(&slot->tid);
		int			priority = slot->priority;
		TimestampTz enqueued_at = slot->enqueued_at;

		queue_slot_free(slot, word, 0);
		if (pg_atomic_read_u32(&segment->generation) == generation)
			queue_map_lower(segment, page, 0);
		queue_priority_came_back(state, priority, enqueued_at);
		queue_lease_announce(state, database);
		return;
	}
	slot->reason = QUEUE_FAILURE_NONE;
	slot->next = Max(next, now);
	queue_lease_lower(slot, slot->next);
	room = queue_slot_end_metering(slot);
	queue_slot_unlock(slot, queue_slot_word(word, QUEUE_SLOT_COOLING,
											QUEUE_SLOT_GONE | QUEUE_SLOT_RELEASED));
	if (room)
		queue_lease_announce(state, database);
	if (queue_state_ask(state, QUEUE_ASK_FAILURES))
		queue_wakeup_worker(database);
	if (key != 0)
	{
		queue_lease_void_behind(key - 1, call, taken_as);
		queue_lease_key_cools(key - 1, state, false);
	}
}

/* The transaction that took the lease was rolled back. */
void
queue_lease_taker_aborted(QueueSlot *slot, uint64 sequence, bool counts)
{
	QueueState *state;
	uint64		word;

	if (!queue_slot_lock_sequence(slot, sequence, &word))
		return;
	state = &queue_states[slot->queue];
	switch (QUEUE_SLOT_STATE(word))
	{
		case QUEUE_SLOT_LEASED:
			if (counts)
				queue_lease_fail(slot, word, QUEUE_FAILURE_ABORT);
			else
				queue_lease_release(slot, word, 0);
			queue_wakeup_standbys(state);
			return;
		case QUEUE_SLOT_SETTLING:
			/* By somebody else; if that does not commit, see unsettle. */
			word |= QUEUE_SLOT_GONE;
			break;
		case QUEUE_SLOT_COOLING:
			word = (word & ~(uint64) QUEUE_SLOT_LATE) | QUEUE_SLOT_GONE;
			break;
		case QUEUE_SLOT_FREE:
			break;
	}
	queue_slot_unlock(slot, word);
}

/*
 * A locked slot goes into the hands of an open transaction. The state to come
 * back to is kept in it.
 */
void
queue_lease_begin_settling(QueueSlot *slot, uint64 word)
{
	slot->prior = (uint32) (word & 0xFFFF);
	slot->copied_to = QUEUE_POSITION_NONE;
	slot->blocks = false;
	queue_slot_unlock(slot, queue_slot_word(word, QUEUE_SLOT_SETTLING,
											word & (QUEUE_SLOT_FLAGS & ~QUEUE_SLOT_ACKED)));
}

/* Whether nobody has taken anything of a locked slot's key since; returns its entry, locked. */
static bool
is_of_last_call(const QueueSlot *slot, QueueKey **key)
{
	*key = slot->key == 0 ? NULL : queue_key_lock(slot->key - 1);
	return *key && (*key)->call == slot->call;
}

/* The same for others. While the slot is leased or settled nobody can take anything. */
bool
queue_lease_has_key(const QueueSlot *slot)
{
	QueueKey   *key;
	bool		last = is_of_last_call(slot, &key);

	if (key)
		queue_key_unlock(key);
	return last;
}

/*
 * As a settlement, but none, for who has a message of a key: nobody else gets any
 * of that key until the transaction ends. False, and the slot as before, if
 * somebody else has had one since.
 */
bool
queue_lease_begin_holding(QueueSlot *slot, uint64 word)
{
	QueueKey   *key;
	bool		last = is_of_last_call(slot, &key);

	if (last)
		queue_lease_begin_settling(slot, word);
	else
		queue_slot_unlock(slot, word);
	if (key)
		queue_key_unlock(key);
	return last;
}

/* A locked slot that was held so is settled now; what it comes back to stays. */
void
queue_lease_settle_held(QueueSlot *slot, uint64 word)
{
	slot->copied_to = QUEUE_POSITION_NONE;
	slot->blocks = false;
	queue_slot_unlock(slot, word);
}

/* A settlement was rolled back: the locked slot is what it was before, and unlocked. */
static void
unsettle_locked(QueueSlot *slot, uint64 word)
{
	uint32		gone = word & QUEUE_SLOT_GONE;
	uint32		key = slot->key;
	QueueState *state = &queue_states[slot->queue];
	bool		cools;

	word = (QUEUE_SLOT_SEQUENCE(word) << 16) | slot->prior;
	slot->xid = InvalidFullTransactionId;
	switch (QUEUE_SLOT_STATE(word))
	{
		case QUEUE_SLOT_FREE:
			/* A deleter's hold: there is no lease to come back to. */
			slot->unwritten = false;
			queue_lease_release(slot, word, 0);
			return;
		case QUEUE_SLOT_LEASED:
			if (gone)
			{
				queue_lease_fail(slot, word, QUEUE_FAILURE_ABORT);
				return;
			}
			if (slot->key != 0 && is_behind_failure(slot, 0))
			{
				put_back(slot, word);
				return;
			}
			queue_lease_lower(slot, slot->deadline);
			if (slot->metered)
				queue_meter_look_by(state, queue_slot_meters(slot), slot->deadline);
			break;
		default:
			if (gone)
				word = (word & ~(uint64) QUEUE_SLOT_LATE) | QUEUE_SLOT_GONE;
			if (!(word & QUEUE_SLOT_DEAD))
				queue_lease_lower(slot, slot->next);
			queue_state_ask(state, QUEUE_ASK_FAILURES);
			break;
	}
	cools = QUEUE_SLOT_STATE(word) == QUEUE_SLOT_COOLING;
	queue_slot_unlock(slot, word);
	if (cools && key != 0)
		queue_lease_key_cools(key - 1, state, false);
}

/* The settlement of this transaction was rolled back, or it was held and the transaction has ended. */
void
queue_lease_unsettle(QueueSlot *slot, uint64 sequence)
{
	QueueState *state;
	uint64		word;

	if (!queue_slot_lock_sequence(slot, sequence, &word))
		return;
	state = &queue_states[slot->queue];
	if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_SETTLING)
		unsettle_locked(slot, word);
	else
		queue_slot_unlock(slot, word);
	queue_wakeup_standbys(state);
}

/* The row of a locked slot is deleted for good: count that, by how it ended. */
void
queue_lease_count_settled(QueueSlot *slot, QueueSettlement how, QueueTime now)
{
	QueueState *state = &queue_states[slot->queue];
	QueueSegment *segment = queue_segment_at(slot->segment);

	queue_count(state, QUEUE_COUNT_STORED, -1);
	if (slot->timed)
		queue_count(state, QUEUE_COUNT_TIMED, -1);
	switch (how)
	{
		case QUEUE_SETTLE_ACK:
			queue_count(state, QUEUE_COUNT_ACKED, 1);
			queue_count(state, QUEUE_COUNT_WORK_USECS, now - slot->taken);
			break;
		case QUEUE_SETTLE_DEAD:
			queue_count(state, QUEUE_COUNT_DEAD, 1);
			break;
		case QUEUE_SETTLE_EXPIRED:
			queue_count(state, QUEUE_COUNT_EXPIRED, 1);
			break;
		case QUEUE_SETTLE_CANCEL:
			queue_count(state, QUEUE_COUNT_CANCELLED, 1);
			break;
		case QUEUE_SETTLE_RETRY:
		case QUEUE_SETTLE_MOVE:
		case QUEUE_SETTLE_HOLD:
			break;
	}
	if (pg_atomic_read_u32(&segment->generation) != slot->generation)
		return;
	pg_atomic_write_u64(&segment->deleted_at, (uint64) now);
	/* Should it be sealed just now, whoever does that asks. */
	if (pg_atomic_fetch_sub_u64(&segment->live, 1) == 1 &&
		segment->role == QUEUE_SEGMENT_SEALED && queue_state_ask(state, QUEUE_ASK_RECLAIM))
		queue_wakeup_worker(slot->database);
}

/*
 * The settling transaction was prepared: no callback will tell how it ends, so
 * the slot remembers its id and whoever comes along asks for its fate.
 */
void
queue_lease_prepare(QueueSlot *slot, uint64 sequence, QueueSettlement how, FullTransactionId xid)
{
	uint64		word;

	if (!queue_slot_lock_sequence(slot, sequence, &word))
		return;
	slot->xid = xid;
	slot->how = how;
	queue_lease_lower(slot, queue_clock_now() + queue_recheck_interval * INT64CONST(1000));
	if (slot->metered)
		queue_meter_look_by(&queue_states[slot->queue], queue_slot_meters(slot),
							queue_clock_now() + queue_recheck_interval * INT64CONST(1000));
	queue_slot_unlock(slot, word | QUEUE_SLOT_PREPARED);
}

/*
 * If the prepared transaction that settles this slot has ended, bring the slot
 * where it belongs, and count what commit would have counted. Its fate is
 * asked for without the slot's lock, so under it the slot must still be that
 * transaction's. Returns whether it had ended.
 */
bool
queue_lease_resolve_prepared(QueueSlot *slot)
{
	uint64		word = pg_atomic_read_u64(&slot->word);
	FullTransactionId xid = slot->xid;
	uint64		sequence = QUEUE_SLOT_SEQUENCE(word);
	TransactionId short_xid = XidFromFullTransactionId(xid);
	QueueState *state;
	bool		committed;

	if (!(word & QUEUE_SLOT_PREPARED) || !FullTransactionIdIsValid(xid) ||
		TransactionIdIsInProgress(short_xid))
		return false;
	committed = TransactionIdDidCommit(short_xid);
	if (!queue_slot_lock_sequence(slot, sequence, &word))
		return true;
	state = &queue_states[slot->queue];
	if (!(word & QUEUE_SLOT_PREPARED) || QUEUE_SLOT_STATE(word) != QUEUE_SLOT_SETTLING ||
		!FullTransactionIdEquals(slot->xid, xid))
		queue_slot_unlock(slot, word);
	else if (!committed)
		unsettle_locked(slot, word);
	else
	{
		uint32		key = slot->key;
		uint64		call = slot->call;
		uint32		taken_as = slot->taken_as;
		QueueSettlement how = slot->how;

		queue_lease_count_settled(slot, how, queue_clock_now());
		slot->xid = InvalidFullTransactionId;
		if (key != 0)
			queue_lease_settle_key(slot, how);
		free_slot(slot, word, how == QUEUE_SETTLE_ACK ? QUEUE_SLOT_ACKED : 0);
		if (key != 0 && queue_settlement_fails(how))
			queue_lease_void_behind(key - 1, call, taken_as);
	}
	queue_wakeup_standbys(state);
	return true;
}

/* Do that for all of a queue. Returns whether none is prepared any more. */
bool
queue_lease_resolve_all(QueueState *state)
{
	bool		none = true;

	for (uint32 i = 0; i < queue_slot_count(); i++)
	{
		QueueSlot  *slot = queue_slot(i);

		if ((pg_atomic_read_u64(&slot->word) & QUEUE_SLOT_PREPARED) &&
			slot->queue == queue_state_index(state) && !queue_lease_resolve_prepared(slot))
			none = false;
	}
	return none;
}
