/*
 * settle.c
 *	  A receipt comes back.
 *
 * A receipt is believed only if its slot still has it, in this database and
 * with this segment's generation: then nobody else can hold the message, and
 * the row is where the slot says. The slot goes to settling before the row is
 * deleted, so from then on neither deadline nor consumer can take it; commit
 * frees it, abort puts it back (pending.c).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"

#include "acl.h"
#include "dedup.h"
#include "error.h"
#include "lease.h"
#include "message.h"
#include "settle.h"
#include "single.h"
#include "wakeup.h"

/* What a receipt's slot said when it was looked at. */
typedef struct ReceiptFacts
{
	QueueSlot  *slot;
	uint64		word;
	Oid			view;
	uint32		segment;
	uint32		generation;
	ItemPointerData tid;
	int64		message_id;
	bool		same;			/* it is that receipt's slot */
	bool		held;			/* by the open transaction, which has not settled it */
} ReceiptFacts;

static bool
is_receipt(const pg_uuid_t *receipt)
{
	return (receipt->data[6] & 0xF0) == 0x80 && (receipt->data[8] & 0xC0) == 0x80;
}

static bool
still_holds(uint64 word)
{
	switch (QUEUE_SLOT_STATE(word))
	{
		case QUEUE_SLOT_LEASED:
			return true;
		case QUEUE_SLOT_COOLING:
			return (word & QUEUE_SLOT_LATE) != 0;
		default:
			return false;
	}
}

static QueueSettleStatus
look_up(const pg_uuid_t *receipt, ReceiptFacts *facts)
{
	QueueSlot  *slot = is_receipt(receipt) ? queue_slot_find(receipt) : NULL;
	uint64		word;
	bool		same;

	if (slot == NULL)
		return QUEUE_STATUS_INVALID;
	/* A prepared settlement may have ended since; nobody was told. */
	queue_lease_resolve_prepared(slot);
	word = queue_slot_lock(slot);
	same = memcmp(&slot->receipt, receipt, sizeof(pg_uuid_t)) == 0 &&
		slot->database == MyDatabaseId;
	facts->slot = slot;
	facts->word = word;
	facts->view = slot->view;
	facts->segment = slot->segment;
	facts->generation = slot->generation;
	facts->tid = slot->tid;
	facts->message_id = slot->message_id;
	facts->same = same;
	queue_slot_unlock(slot, word);
	facts->held = same && QUEUE_SLOT_STATE(word) == QUEUE_SLOT_SETTLING &&
		queue_pending_holds(queue_slot_number(slot), QUEUE_SLOT_SEQUENCE(word));
	if (!same)
		return QUEUE_STATUS_LOST;
	if (still_holds(word) || facts->held)
		return QUEUE_STATUS_OK;
	if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_FREE && (word & QUEUE_SLOT_ACKED))
		return QUEUE_STATUS_ALREADY_ACKED;
	if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_SETTLING &&
		queue_pending_acks(queue_slot_number(slot), QUEUE_SLOT_SEQUENCE(word)))
		return QUEUE_STATUS_ALREADY_ACKED;
	return QUEUE_STATUS_LOST;
}

/* The queue of a receipt, its view locked; NULL if it is being dropped. */
static QueueDef *
open_queue(Oid view)
{
	LockRelationOid(view, AccessShareLock);
	return queue_catalog_get(view);
}

/* For an error that names the queue: its view, or InvalidOid if the lease has ended. */
Oid
queue_settle_view(const pg_uuid_t *receipt)
{
	ReceiptFacts facts;

	return look_up(receipt, &facts) == QUEUE_STATUS_OK ? facts.view : InvalidOid;
}

/* A slot that the open transaction holds stays what it is until that ends. */
static bool
is_settling(uint64 word)
{
	return QUEUE_SLOT_STATE(word) == QUEUE_SLOT_SETTLING;
}

/* Lock the slot if it is still to be had for that. */
static bool
lock_acceptable(QueueSlot *slot, uint64 sequence, bool (*acceptable) (uint64 word), uint64 *word)
{
	if (!queue_slot_lock_sequence(slot, sequence, word))
		return false;
	if (acceptable(*word))
		return true;
	queue_slot_unlock(slot, *word);
	return false;
}

/*
 * Open the segment and move the slot into this transaction's hands. Where one
 * consumer at a time gets messages, nobody becomes the active one meanwhile.
 */
static bool
take_hold(ReceiptFacts *facts, QueueSettlement how, bool (*acceptable) (uint64 word),
		  QueueSettling *settling)
{
	uint64		word;
	bool		held;

	settling->slot = facts->slot;
	settling->number = queue_slot_number(facts->slot);
	settling->sequence = QUEUE_SLOT_SEQUENCE(facts->word);
	settling->segment = queue_segment_at(facts->segment);
	settling->tid = facts->tid;
	settling->message_id = facts->message_id;
	settling->rel = queue_segment_open(settling->segment, facts->generation, RowExclusiveLock);
	if (settling->rel == NULL)
		return false;
	queue_pending_reserve(1);
	queue_single_hold(settling->def, LW_SHARED);
	held = lock_acceptable(facts->slot, settling->sequence, facts->held ? is_settling : acceptable, &word);
	if (held && facts->held)
	{
		settling->prior = facts->slot->prior;
		queue_pending_settled(settling->number, settling->sequence, how);
		queue_lease_settle_held(facts->slot, word);
	}
	else if (held)
	{
		/* What the worker writes is lost to its last holder, even if that is rolled back. */
		if (settling->def->options.single_active_consumer && acceptable != still_holds)
			word = (word & ~(uint64) QUEUE_SLOT_LATE) | QUEUE_SLOT_GONE;
		settling->prior = (uint32) (word & 0xFFFF);
		queue_pending_settled(settling->number, settling->sequence, how);
		queue_lease_begin_settling(facts->slot, word);
	}
	queue_single_let_go(settling->def);
	if (!held)
		relation_close(settling->rel, NoLock);
	return held;
}

/*
 * Begin to settle what a receipt holds. On OK the caller deletes the row and
 * ends with queue_settle_end(), or raises an error.
 */
QueueSettleStatus
queue_settle_begin(const pg_uuid_t *receipt, QueueSettlement how, QueueSettling *settling)
{
	ReceiptFacts facts;
	QueueSettleStatus status = look_up(receipt, &facts);

	if (status != QUEUE_STATUS_OK)
		return status;
	settling->def = open_queue(facts.view);
	if (settling->def == NULL)
		return QUEUE_STATUS_LOST;
	if (!queue_acl_has(facts.view, QUEUE_ACL_DEQUEUE))
		return QUEUE_STATUS_DENIED;
	return take_hold(&facts, how, still_holds, settling) ? QUEUE_STATUS_OK : QUEUE_STATUS_LOST;
}

/* The key of a message in our hands; the empty one if it has none. */
static text *
read_key(ReceiptFacts *facts, Relation rel)
{
	HeapTuple	tuple = queue_segment_fetch_held(rel, queue_segment_at(facts->segment), &facts->tid, facts->message_id);
	bool		isnull;
	Datum		key;

	if (tuple == NULL)
		return NULL;
	key = heap_getattr(tuple, QUEUE_COLUMN_KEY, RelationGetDescr(rel), &isnull);
	return isnull ? cstring_to_text("") : DatumGetTextPCopy(key);
}

/* Whether the slot is the receipt's still, and nobody else has had a message of its key since. */
static bool
is_last_holder(const ReceiptFacts *facts)
{
	uint64		word;
	bool		last;

	if (!queue_slot_lock_sequence(facts->slot, QUEUE_SLOT_SEQUENCE(facts->word), &word))
		return false;
	last = queue_lease_has_key(facts->slot);
	queue_slot_unlock(facts->slot, word);
	return last;
}

/* Nobody else gets a message of the key until the transaction ends. */
static bool
hold_key(const ReceiptFacts *facts, QueueDef *def)
{
	uint64		sequence = QUEUE_SLOT_SEQUENCE(facts->word);
	uint64		word;
	bool		held;

	queue_pending_reserve(1);
	queue_single_hold(def, LW_SHARED);
	held = lock_acceptable(facts->slot, sequence, still_holds, &word);
	if (held)
	{
		queue_pending_settled(queue_slot_number(facts->slot), sequence, QUEUE_SETTLE_HOLD);
		held = queue_lease_begin_holding(facts->slot, word);
		if (!held)
			queue_pending_forget_last();
	}
	queue_single_let_go(def);
	return held;
}

/*
 * The queue and key of a message that is held by its receipt, or that the open
 * transaction has settled. With "until_end" it stays so until that ends: whoever gets a
 * message of the key after us sees what we have committed.
 */
QueueSettleStatus
queue_settle_key(const pg_uuid_t *receipt, bool until_end, QueueDef **def, text **key)
{
	ReceiptFacts facts;
	QueueSettleStatus status = look_up(receipt, &facts);
	bool		ours = status != QUEUE_STATUS_INVALID && facts.same && is_settling(facts.word) &&
		queue_pending_has(queue_slot_number(facts.slot), QUEUE_SLOT_SEQUENCE(facts.word));
	Relation	rel;

	if (status != QUEUE_STATUS_OK && !ours)
		return status;
	*def = open_queue(facts.view);
	if (*def == NULL)
		return QUEUE_STATUS_LOST;
	if (!queue_acl_has(facts.view, QUEUE_ACL_DEQUEUE))
		return QUEUE_STATUS_DENIED;
	if (!(*def)->options.ordered)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue \"%s\" is not ordered", (*def)->name),
				 errhint("Only in ordered queues a key has one holder at a time, and a state.")));
	rel = queue_segment_open(queue_segment_at(facts.segment), facts.generation, RowExclusiveLock);
	if (rel == NULL)
		return QUEUE_STATUS_LOST;
	if (until_end && !ours ? !hold_key(&facts, *def) : !is_last_holder(&facts))
		status = QUEUE_STATUS_LOST;
	else
		status = (*key = read_key(&facts, rel)) != NULL ? QUEUE_STATUS_OK : QUEUE_STATUS_LOST;
	relation_close(rel, NoLock);
	return status;
}

static bool
is_cooling(uint64 word)
{
	return QUEUE_SLOT_STATE(word) == QUEUE_SLOT_COOLING;
}

/* The worker begins to write what a cooling slot has to say. */
bool
queue_settle_begin_cooling(uint32 number, QueueSettlement how, QueueSettling *settling)
{
	QueueSlot  *slot = queue_slot(number);
	ReceiptFacts facts = {.slot = slot};

	facts.word = queue_slot_lock(slot);
	facts.view = slot->view;
	facts.segment = slot->segment;
	facts.generation = slot->generation;
	facts.tid = slot->tid;
	facts.message_id = slot->message_id;
	queue_slot_unlock(slot, facts.word);
	if (!is_cooling(facts.word) || slot->database != MyDatabaseId)
		return false;
	/* Whoever drops the queue must not stop the worker for all others. */
	if (!ConditionalLockRelationOid(facts.view, AccessShareLock))
		return false;
	settling->def = queue_catalog_get(facts.view);
	if (!ConditionalLockRelationOid(queue_segment_at(facts.segment)->relid, RowExclusiveLock))
		return false;
	return settling->def && take_hold(&facts, how, is_cooling, settling);
}

/* Delete the row. False, and the slot as before, if it is not to be had. */
bool
queue_settle_delete(QueueSettling *settling)
{
	if (queue_segment_delete(settling->rel, settling->segment, &settling->tid, settling->message_id,
							 &settling->unique_key) == QUEUE_DELETE_DONE)
		return true;
	queue_pending_unsettle_last();
	return false;
}

/* The message whose row is deleted leaves its queue for good: its unique key is free. */
void
queue_settle_leave(QueueSettling *settling)
{
	if (settling->unique_key)
		queue_dedup_forget_unique(settling->def->id, settling->unique_key, settling->message_id);
}

void
queue_settle_end(QueueSettling *settling)
{
	relation_close(settling->rel, NoLock);
}

QueueSettleStatus
queue_settle_ack(const pg_uuid_t *receipt)
{
	QueueSettling settling;
	QueueSettleStatus status = queue_settle_begin(receipt, QUEUE_SETTLE_ACK, &settling);

	if (status != QUEUE_STATUS_OK)
		return status;
	if (queue_settle_delete(&settling))
		queue_settle_leave(&settling);
	else
		status = QUEUE_STATUS_LOST;
	queue_settle_end(&settling);
	return status;
}

/*
 * Lock the slot of a receipt that still holds; then the caller lets go of the
 * active consumer too. Neither release nor extend touches the row, so the
 * segment is not opened.
 */
static QueueSettleStatus
lock_holder(const pg_uuid_t *receipt, ReceiptFacts *facts, QueueDef **def)
{
	QueueSettleStatus status = look_up(receipt, facts);

	if (status != QUEUE_STATUS_OK)
		return status;
	*def = open_queue(facts->view);
	if (*def == NULL)
		return QUEUE_STATUS_LOST;
	if (!queue_acl_has(facts->view, QUEUE_ACL_DEQUEUE))
		return QUEUE_STATUS_DENIED;
	queue_single_hold(*def, LW_EXCLUSIVE);
	if (lock_acceptable(facts->slot, QUEUE_SLOT_SEQUENCE(facts->word), facts->held ? is_settling : still_holds,
						&facts->word))
		return QUEUE_STATUS_OK;
	queue_single_let_go(*def);
	return QUEUE_STATUS_LOST;
}

/* Back at once or after a delay (us); takes effect now, whatever the transaction does. */
QueueSettleStatus
queue_settle_release(const pg_uuid_t *receipt, int64 delay)
{
	ReceiptFacts facts;
	QueueDef   *def;
	QueueSettleStatus status = lock_holder(receipt, &facts, &def);

	if (status != QUEUE_STATUS_OK)
		return status;
	if (facts.held)
	{
		queue_slot_unlock(facts.slot, facts.word);
		queue_single_let_go(def);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message " INT64_FORMAT " cannot be released before this transaction has ended", facts.message_id),
				 errdetail("The transaction has set the state of its key."),
				 errhint("Release it in the next transaction, or use queue.nack().")));
	}
	/* A deadline that passed has counted; the release does not undo it. */
	if (QUEUE_SLOT_STATE(facts.word) == QUEUE_SLOT_COOLING)
		queue_slot_unlock(facts.slot, (facts.word & ~(uint64) QUEUE_SLOT_LATE) | QUEUE_SLOT_GONE);
	else
	{
		memset(&facts.slot->receipt, 0, sizeof(pg_uuid_t));
		queue_lease_release(facts.slot, facts.word, queue_clock_now() + delay);
	}
	queue_single_let_go(def);
	queue_wakeup_standbys(def->state);
	return status;
}

/* Whether the limits have room for a locked slot whose lease had run out; if so it counts again. */
static bool
has_room_again(QueueDef *def, QueueSlot *slot)
{
	QueueMetering metering = {.state = def->state,.limits = &def->limits,.now = queue_clock_now()};

	return queue_meter_again(&metering, slot->deadline, queue_slot_meters(slot), &slot->metered);
}

/*
 * New deadline: now + lease, not beyond what the queue allows from the dequeue
 * on. A late one takes its failure back, which nobody has written yet; of an
 * ordered queue it is lost if somebody has another message of its key by now.
 */
QueueSettleStatus
queue_settle_extend(const pg_uuid_t *receipt, int64 lease, TimestampTz *deadline)
{
	ReceiptFacts facts;
	QueueDef   *def;
	QueueSettleStatus status = lock_holder(receipt, &facts, &def);
	QueueSlot  *slot = facts.slot;
	QueueTime	end;
	uint64		leased;
	bool		late;

	if (status != QUEUE_STATUS_OK)
		return status;
	late = QUEUE_SLOT_STATE(facts.held ? slot->prior : facts.word) == QUEUE_SLOT_COOLING;
	slot->deadline = Min(queue_clock_now() + (lease ? lease : def->options.lease_timeout), slot->cap);
	*deadline = queue_clock_to_wall(slot->deadline);
	/* Raising its due is the next visitor's business; lowering is ours. */
	queue_lease_lower(slot, slot->deadline);
	leased = queue_slot_word(facts.word, QUEUE_SLOT_LEASED, 0);
	if (slot->metered)
		queue_meter_look_by(def->state, queue_slot_meters(slot), slot->deadline);
	if (late && def->state->metered && !has_room_again(def, slot))
	{
		queue_slot_unlock(slot, facts.word);
		queue_single_let_go(def);
		return QUEUE_STATUS_LOST;
	}
	end = slot->deadline;
	if (facts.held)
	{
		slot->prior = QUEUE_SLOT_LEASED;
		queue_slot_unlock(slot, facts.word);
	}
	else if (!late || slot->key == 0)
		queue_slot_unlock(slot, leased);
	else if (!queue_slot_hold_again(slot, leased))
	{
		queue_slot_end_metering(slot);
		queue_slot_unlock(slot, facts.word);
		queue_single_let_go(def);
		return QUEUE_STATUS_LOST;
	}
	if (def->options.single_active_consumer)
		queue_single_extended(def->state, end);
	queue_single_let_go(def);
	if (late)
		queue_count(def->state, QUEUE_COUNT_FAILED, -1);
	return status;
}
