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

/*
 * Count a failure of a locked slot, and unlock it. The next delivery is after
 * the delay that was drawn when the lease began; at the limit there is none.
 */
void
queue_lease_fail(QueueSlot *slot, uint64 word, QueueFailureReason reason)
{
	QueueState *state = &queue_states[slot->queue];
	Oid			database = slot->database;
	QueueTime	when = reason == QUEUE_FAILURE_DEADLINE ? slot->deadline : queue_clock_now();
	uint32		flags = reason == QUEUE_FAILURE_DEADLINE ? QUEUE_SLOT_LATE : QUEUE_SLOT_GONE;

	slot->reason = reason;
	slot->next = when + slot->retry_delay;
	slot->xid = InvalidFullTransactionId;
	if (slot->at_limit)
		flags |= QUEUE_SLOT_DEAD;
	else
		queue_lease_lower(slot, slot->next);
	queue_slot_unlock(slot, queue_slot_word(word, QUEUE_SLOT_COOLING, flags));
	queue_count(state, QUEUE_COUNT_FAILED, 1);
	if (queue_state_ask(state, QUEUE_ASK_FAILURES))
		queue_wakeup_worker(database);
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
 * Give a locked slot's message back without counting; it can be dequeued at
 * "next". Failures that are only in the slot, and delays, need a slot still.
 */
void
queue_lease_release(QueueSlot *slot, uint64 word, QueueTime next)
{
	QueueTime	now = queue_clock_now();

	if (next <= now && !slot->unwritten)
	{
		QueueSegment *segment = queue_segment_at(slot->segment);
		uint32		generation = slot->generation;
		BlockNumber page = ItemPointerGetBlockNumber(&slot->tid);
		QueueState *state = &queue_states[slot->queue];
		Oid			database = slot->database;

		queue_slot_free(slot, word, 0);
		if (pg_atomic_read_u32(&segment->generation) == generation)
			queue_map_lower(segment, page, 0);
		queue_wakeup_work(state, 1);
		if (queue_state_ask(state, QUEUE_ASK_NOTIFY))
			queue_wakeup_worker(database);
		return;
	}
	slot->reason = QUEUE_FAILURE_NONE;
	slot->next = Max(next, now);
	queue_lease_lower(slot, slot->next);
	queue_slot_unlock(slot, queue_slot_word(word, QUEUE_SLOT_COOLING,
											QUEUE_SLOT_GONE | QUEUE_SLOT_RELEASED));
	if (queue_state_ask(&queue_states[slot->queue], QUEUE_ASK_FAILURES))
		queue_wakeup_worker(slot->database);
}

/* The transaction that took the lease was rolled back. */
void
queue_lease_taker_aborted(QueueSlot *slot, uint64 sequence, bool counts)
{
	uint64		word;

	if (!queue_slot_lock_sequence(slot, sequence, &word))
		return;
	switch (QUEUE_SLOT_STATE(word))
	{
		case QUEUE_SLOT_LEASED:
			if (counts)
				queue_lease_fail(slot, word, QUEUE_FAILURE_ABORT);
			else
				queue_lease_release(slot, word, 0);
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
	queue_slot_unlock(slot, queue_slot_word(word, QUEUE_SLOT_SETTLING,
											word & (QUEUE_SLOT_FLAGS & ~QUEUE_SLOT_ACKED)));
}

/* A settlement was rolled back: the locked slot is what it was before, and unlocked. */
static void
unsettle_locked(QueueSlot *slot, uint64 word)
{
	uint32		gone = word & QUEUE_SLOT_GONE;

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
			queue_lease_lower(slot, slot->deadline);
			break;
		default:
			if (gone)
				word = (word & ~(uint64) QUEUE_SLOT_LATE) | QUEUE_SLOT_GONE;
			if (!(word & QUEUE_SLOT_DEAD))
				queue_lease_lower(slot, slot->next);
			queue_state_ask(&queue_states[slot->queue], QUEUE_ASK_FAILURES);
			break;
	}
	queue_slot_unlock(slot, word);
}

/* The settlement of this transaction was rolled back. */
void
queue_lease_unsettle(QueueSlot *slot, uint64 sequence)
{
	uint64		word;

	if (!queue_slot_lock_sequence(slot, sequence, &word))
		return;
	if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_SETTLING)
		unsettle_locked(slot, word);
	else
		queue_slot_unlock(slot, word);
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
	bool		committed;

	if (!(word & QUEUE_SLOT_PREPARED) || !FullTransactionIdIsValid(xid) ||
		TransactionIdIsInProgress(short_xid))
		return false;
	committed = TransactionIdDidCommit(short_xid);
	if (!queue_slot_lock_sequence(slot, sequence, &word))
		return true;
	if (!(word & QUEUE_SLOT_PREPARED) || QUEUE_SLOT_STATE(word) != QUEUE_SLOT_SETTLING ||
		!FullTransactionIdEquals(slot->xid, xid))
		queue_slot_unlock(slot, word);
	else if (!committed)
		unsettle_locked(slot, word);
	else
	{
		queue_lease_count_settled(slot, slot->how, queue_clock_now());
		slot->xid = InvalidFullTransactionId;
		queue_slot_free(slot, word, slot->how == QUEUE_SETTLE_ACK ? QUEUE_SLOT_ACKED : 0);
	}
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
