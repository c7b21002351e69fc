/*
 * failure.c
 *	  The one code path that writes what became of a delivery.
 *
 * The row is deleted and a copy stored in the same transaction: with one more
 * failure and a later visible_at, or in the dead-letter queue with the header
 * queue.death. nack and reject do it in their caller's transaction, the worker
 * does it for cooling slots in short ones of its own. If the transaction
 * aborts, the slot is what it was and nothing was written. A crash between
 * any two steps is a crash of that transaction.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "blocked.h"
#include "compat.h"
#include "dedup.h"
#include "delta.h"
#include "enqueue.h"
#include "failure.h"
#include "lease.h"
#include "message.h"
#include "ring.h"

/* Errors longer than this are cut, at a character's boundary. */
#define MAX_ERROR_BYTES 8192

static Datum
error_text(const char *error)
{
	int			length = strlen(error);

	if (length > MAX_ERROR_BYTES)
		length = pg_mbcliplen(error, length, MAX_ERROR_BYTES);
	return PointerGetDatum(cstring_to_text_with_len(error, length));
}

static void
push_pair(QueueJsonState *state, const char *name, JsonbValue *value)
{
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	queue_compat_json_push(state, WJB_KEY, &key);
	queue_compat_json_push(state, WJB_VALUE, value);
}

static void
push_text(QueueJsonState *state, const char *name, const char *text)
{
	JsonbValue	value;

	value.type = text ? jbvString : jbvNull;
	if (text)
	{
		value.val.string.val = unconstify(char *, text);
		value.val.string.len = strlen(text);
	}
	push_pair(state, name, &value);
}

static void
push_int(QueueJsonState *state, const char *name, int64 number)
{
	JsonbValue	value;

	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(number);
	push_pair(state, name, &value);
}

static void
push_time(QueueJsonState *state, const char *name, const QueueMessage *message,
		  QueueColumn column)
{
	bool		isnull;
	Datum		time = queue_message_get(message, column, &isnull);

	/* The state keeps the pointer until the object is complete. */
	push_text(state, name, isnull ? NULL
			  : JsonEncodeDateTime(palloc(MAXDATELEN + 1), time, TIMESTAMPTZOID, NULL));
}

/* The header queue.death of a message that goes to the dead-letter queue. */
static Jsonb *
describe_death(const QueueMessage *message, QueueDef *def, int64 id, const char *consumer,
			   const char *reason, int attempts)
{
	QueueJsonState state = {0};
	bool		isnull;
	Datum		error = queue_message_get(message, QUEUE_COLUMN_ERROR, &isnull);

	queue_compat_json_push(&state, WJB_BEGIN_OBJECT, NULL);
	push_text(&state, "queue", def->name);
	push_int(&state, "id", id);
	push_text(&state, "reason", reason);
	push_text(&state, "error", isnull ? NULL : TextDatumGetCString(error));
	push_int(&state, "attempts", attempts);
	push_time(&state, "first_failure", message, QUEUE_COLUMN_FIRST_FAILED_AT);
	push_time(&state, "last_failure", message, QUEUE_COLUMN_LAST_FAILED_AT);
	push_text(&state, "consumer", consumer);
	queue_compat_json_push(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

static int
count_failures(QueueMessage *message, QueueSlot *slot, const QueueFailure *failure)
{
	int			failures = slot->failures + (failure->counts ? 1 : 0);
	TimestampTz now = queue_clock_wall();
	bool		isnull;

	if (failures > 0)
		queue_message_set(message, QUEUE_COLUMN_FAILURES, Int32GetDatum(failures));
	if (failure->error)
		queue_message_set(message, QUEUE_COLUMN_ERROR, error_text(failure->error));
	if (failure->counts || slot->unwritten)
	{
		queue_message_get(message, QUEUE_COLUMN_FIRST_FAILED_AT, &isnull);
		if (isnull)
			queue_message_set(message, QUEUE_COLUMN_FIRST_FAILED_AT, TimestampTzGetDatum(now));
		queue_message_set(message, QUEUE_COLUMN_LAST_FAILED_AT, TimestampTzGetDatum(now));
	}
	return failures;
}

static void
store_retry(QueueMessage *message, QueueSlot *slot, QueueDef *def, TimestampTz next)
{
	if (TIMESTAMP_IS_NOBEGIN(next) || next <= queue_clock_wall())
		queue_message_clear(message, QUEUE_COLUMN_VISIBLE_AT);
	else
		queue_message_set(message, QUEUE_COLUMN_VISIBLE_AT, TimestampTzGetDatum(next));
	slot->copied_to = queue_enqueue_again(def, message);
}

/*
 * To the dead-letter queue, past its pause and limits. What the message had of
 * its own life begins anew: failures, attempts, and time to live, which is that
 * queue's. Without a dead-letter queue it is dropped.
 */
static void
store_dead(QueueMessage *message, QueueDef *def, int64 id, const char *consumer, const char *reason, int failures)
{
	QueueDef   *target;

	if (!OidIsValid(def->dead_letter))
		return;
	LockRelationOid(def->dead_letter, AccessShareLock);
	target = queue_catalog_get(def->dead_letter);
	if (target == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the dead-letter queue of queue \"%s\" does not exist", def->name),
				 errhint("Set the option dead_letter with queue.alter().")));
	queue_message_add_header(message, QUEUE_HEADER_DEATH,
							 describe_death(message, def, id, consumer, reason, failures));
	queue_message_clear(message, QUEUE_COLUMN_VISIBLE_AT);
	if (target->options.message_ttl > 0)
		queue_message_set(message, QUEUE_COLUMN_EXPIRES_AT,
						  TimestampTzGetDatum(queue_clock_wall() + target->options.message_ttl));
	else
		queue_message_clear(message, QUEUE_COLUMN_EXPIRES_AT);
	queue_message_clear(message, QUEUE_COLUMN_FIRST_FAILED_AT);
	queue_message_clear(message, QUEUE_COLUMN_LAST_FAILED_AT);
	queue_message_clear(message, QUEUE_COLUMN_FAILURES);
	queue_message_clear(message, QUEUE_COLUMN_MAX_ATTEMPTS);
	queue_enqueue_store(target, message);
}

/*
 * What is behind it waits until somebody has looked at what it is, or dies too:
 * whatever has an id by now, which is below one that is drawn now.
 */
static void
block_key(const QueueMessage *message, QueueDef *def, QueueSlot *slot)
{
	bool		isnull;
	Datum		key = queue_message_get(message, QUEUE_COLUMN_KEY, &isnull);
	int64		rest_to = 0;

	if (def->options.on_dead == QUEUE_ON_DEAD_DEAD_REST)
		rest_to = queue_enqueue_draw_bound(def);
	queue_delta_blocked(def->state);
	queue_blocked_insert(def, key, isnull, slot->message_id, rest_to);
	slot->blocks = true;
}

/*
 * Delete the row of a slot in our hands and store what comes after it. The
 * settlement must have been begun as what the failure says. A message dies
 * once: what has died stays, as one more failure, or is dropped if it expired.
 */
QueueFate
queue_failure_write(QueueSettling *settling, const QueueFailure *failure)
{
	HeapTuple	tuple = queue_segment_fetch(settling->rel, settling->segment, &settling->tid, settling->message_id);
	QueueMessage message;
	int			failures;

	if (tuple == NULL || !queue_settle_delete(settling))
	{
		if (tuple == NULL)
			queue_pending_unsettle_last();
		return QUEUE_FATE_LOST;
	}
	queue_message_deform(&message, tuple, RelationGetDescr(settling->rel));
	queue_message_detoast(&message);
	failures = count_failures(&message, settling->slot, failure);
	if (failure->death && (settling->def->dead_letter_of != 0 || queue_message_has_died(&message)))
	{
		if (failure->expired)
		{
			queue_settle_leave(settling);
			return QUEUE_FATE_DEAD;
		}
		queue_pending_resettle_last(QUEUE_SETTLE_RETRY);
	}
	else if (failure->death)
	{
		const char *consumer = settling->slot->consumer;

		if (settling->def->options.ordered && settling->def->options.on_dead != QUEUE_ON_DEAD_SKIP && !failure->expired)
			block_key(&message, settling->def, settling->slot);
		store_dead(&message, settling->def, settling->message_id, consumer[0] ? consumer : NULL,
				   failure->death, failures);
		queue_settle_leave(settling);
		return QUEUE_FATE_DEAD;
	}
	if (failure->moves)
		settling->slot->copied_to = queue_enqueue_again(settling->def, &message);
	else
		store_retry(&message, settling->slot, settling->def, failure->next);
	return QUEUE_FATE_RETRY;
}

/* delay: us until the next attempt; -1: what the queue's backoff says. */
QueueSettleStatus
queue_failure_nack(const pg_uuid_t *receipt, const char *error, int64 delay, QueueFate *fate)
{
	QueueSettling settling;
	QueueFailure failure = {.error = error,.counts = true};
	QueueSettleStatus status = queue_settle_begin(receipt, QUEUE_SETTLE_RETRY, &settling);

	if (status != QUEUE_STATUS_OK)
		return status;
	if (settling.slot->at_limit)
	{
		failure.death = "max_attempts";
		queue_pending_resettle_last(QUEUE_SETTLE_DEAD);
	}
	failure.next = queue_clock_wall() + (delay >= 0 ? delay : settling.slot->retry_delay);
	*fate = queue_failure_write(&settling, &failure);
	queue_settle_end(&settling);
	if (*fate == QUEUE_FATE_LOST)
		return QUEUE_STATUS_LOST;
	queue_delta_failed(settling.def->state);
	return QUEUE_STATUS_OK;
}

QueueSettleStatus
queue_failure_reject(const pg_uuid_t *receipt, const char *reason)
{
	QueueSettling settling;
	QueueFailure failure = {.error = reason,.counts = true,.death = "rejected"};
	QueueSettleStatus status = queue_settle_begin(receipt, QUEUE_SETTLE_DEAD, &settling);
	QueueFate	fate;

	if (status != QUEUE_STATUS_OK)
		return status;
	failure.next = queue_clock_wall() + settling.slot->retry_delay;
	fate = queue_failure_write(&settling, &failure);
	queue_settle_end(&settling);
	if (fate == QUEUE_FATE_LOST)
		return QUEUE_STATUS_LOST;
	queue_delta_failed(settling.def->state);
	return QUEUE_STATUS_OK;
}

/* ---- the worker's part ---- */

static const char *
reason_text(uint8 reason)
{
	switch ((QueueFailureReason) reason)
	{
		case QUEUE_FAILURE_DEADLINE:
			return "lease timed out";
		case QUEUE_FAILURE_ABORT:
			return "transaction was rolled back";
		case QUEUE_FAILURE_NONE:
			break;
	}
	return NULL;
}

/* The slot's message is no longer there: nothing to write, the slot is free. */
static void
drop_orphan(QueueSlot *slot)
{
	uint64		word = queue_slot_lock(slot);

	if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_COOLING)
		queue_slot_free(slot, word, 0);
	else
		queue_slot_unlock(slot, word);
}

/*
 * Slots whose writing raised an error, with the time to try them again: one
 * bad message must not stop the others of its queue, which share its
 * transaction; and its queue rests too, for less long, since whatever is wrong
 * with it must not stop other queues.
 */
#define MAX_BLAMED 256
#define BLAME_SLOT_USECS 10000000
#define BLAME_QUEUE_USECS 1000000

static struct
{
	uint32		slot;
	uint32		queue;
	uint64		sequence;
	QueueTime	at;
}			blamed[MAX_BLAMED];
static uint32 blamed_count;		/* entries, the last MAX_BLAMED of them kept */
static uint32 writing = PG_UINT32_MAX;	/* the slot that is being written */

static bool
is_blamed(uint32 number, uint64 sequence, QueueTime now)
{
	for (uint32 i = 0; i < Min(blamed_count, MAX_BLAMED); i++)
	{
		QueueTime	age = now - blamed[i].at;

		if ((blamed[i].slot == number && blamed[i].sequence == sequence && age < BLAME_SLOT_USECS) ||
			(blamed[i].queue == queue_slot(number)->queue && age < BLAME_QUEUE_USECS))
			return true;
	}
	return false;
}

/*
 * The worker's transaction failed: pass over the slot it was at for a while.
 * Returns whether there was one, so that others are to be tried at once.
 */
bool
queue_failure_blame(void)
{
	uint32		i;

	if (writing == PG_UINT32_MAX)
		return false;
	i = blamed_count++ % MAX_BLAMED;
	blamed[i].slot = writing;
	blamed[i].queue = queue_slot(writing)->queue;
	blamed[i].sequence = QUEUE_SLOT_SEQUENCE(pg_atomic_read_u64(&queue_slot(writing)->word));
	blamed[i].at = queue_clock_now();
	writing = PG_UINT32_MAX;
	return true;
}

static bool
can_store_in(QueueDef *def)
{
	uint32		active;

	queue_ring_load(def->state);
	active = pg_atomic_read_u32(&def->state->active);
	return active == QUEUE_NONE ||
		ConditionalLockRelationOid(queue_segment_at(active)->relid, RowExclusiveLock);
}

/*
 * Whether a queue's dead messages can be stored without waiting for anybody: who
 * has locked the dead-letter queue must not stop the worker for all others.
 */
bool
queue_failure_can_bury(QueueDef *def)
{
	QueueDef   *target;

	if (!queue_dedup_can_forget())
		return false;
	if (!OidIsValid(def->dead_letter))
		return true;
	if (!ConditionalLockRelationOid(def->dead_letter, AccessShareLock))
		return false;
	/* None: store_dead() will say so. */
	target = queue_catalog_get(def->dead_letter);
	return target == NULL || can_store_in(target);
}

/* The same of whatever comes of a message; even one at its limit may stay. */
static bool
can_store(QueueDef *def, bool dead)
{
	return can_store_in(def) && (!dead || queue_failure_can_bury(def));
}

/*
 * Make a message a dead letter, whose row the transaction has deleted, since
 * another one of its key has died. That is no failure of its own.
 */
void
queue_failure_bury_rest(QueueDef *def, QueueMessage *message, int64 id, int64 dead_id)
{
	bool		isnull;
	int			failures = DatumGetInt32(queue_message_get(message, QUEUE_COLUMN_FAILURES, &isnull));
	Datum		unique_key;

	queue_message_set(message, QUEUE_COLUMN_ERROR,
					  error_text(psprintf("message " INT64_FORMAT " of the same key died", dead_id)));
	store_dead(message, def, id, NULL, "predecessor_dead", isnull ? 0 : failures);
	unique_key = queue_message_get(message, QUEUE_COLUMN_UNIQUE_KEY, &isnull);
	if (!isnull)
		queue_dedup_forget_unique(def->id, DatumGetTextPP(unique_key), id);
}

static bool
write_slot(uint32 number)
{
	QueueSettling settling;
	QueueFailure failure = {0};
	QueueSlot  *slot;

	slot = queue_slot(number);
	if (slot->generation != pg_atomic_read_u32(&queue_segment_at(slot->segment)->generation))
	{
		drop_orphan(slot);
		return false;
	}
	if (!queue_settle_begin_cooling(number, QUEUE_SETTLE_RETRY, &settling))
		return false;
	slot = settling.slot;
	failure.error = reason_text(slot->reason);
	failure.counts = !(settling.prior & (QUEUE_SLOT_RELEASED | QUEUE_SLOT_EXPIRED));
	failure.moves = slot->moving;
	failure.next = queue_clock_to_wall(slot->next);
	if (settling.prior & QUEUE_SLOT_EXPIRED)
	{
		failure.death = "expired";
		failure.expired = true;
		failure.error = NULL;
		queue_pending_resettle_last(QUEUE_SETTLE_EXPIRED);
		if (settling.def->options.on_expiry == QUEUE_EXPIRY_DROP)
		{
			bool		deleted = queue_dedup_can_forget();

			if (deleted)
				deleted = queue_settle_delete(&settling);
			else
				queue_pending_unsettle_last();
			if (deleted)
				queue_settle_leave(&settling);
			queue_settle_end(&settling);
			return deleted;
		}
	}
	else if (settling.prior & QUEUE_SLOT_DEAD)
	{
		failure.death = "max_attempts";
		queue_pending_resettle_last(QUEUE_SETTLE_DEAD);
	}
	else if (!failure.counts)
		queue_pending_resettle_last(QUEUE_SETTLE_MOVE);
	if (!can_store(settling.def, failure.death != NULL))
	{
		queue_pending_unsettle_last();
		queue_settle_end(&settling);
		return false;
	}
	if (queue_failure_write(&settling, &failure) == QUEUE_FATE_LOST)
	{
		/* Only if it is gone for good; else it is tried again. */
		bool		gone = queue_segment_fetch(settling.rel, settling.segment, &settling.tid,
											   settling.message_id) == NULL;

		queue_settle_end(&settling);
		if (gone)
			drop_orphan(slot);
		return false;
	}
	queue_settle_end(&settling);
	return true;
}

/*
 * Write what up to "limit" cooling slots of this database have to say, in the
 * caller's transaction. Also ends leases that have run out unseen, and settles
 * what prepared transactions left. *more: call again after commit.
 */
int
queue_failure_write_cooling(int limit, bool *more)
{
	QueueTime	now = queue_clock_now();
	int			written = 0;

	*more = false;
	for (uint32 i = 0; i < queue_slot_count(); i++)
	{
		QueueSlot  *slot = queue_slot(i);
		uint64		word = pg_atomic_read_u64(&slot->word);

		if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_FREE || slot->database != MyDatabaseId)
			continue;
		if (word & QUEUE_SLOT_PREPARED)
			queue_lease_resolve_prepared(slot);
		else if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_LEASED && slot->deadline <= now)
			queue_lease_expire(slot, QUEUE_SLOT_SEQUENCE(word), now);
		word = pg_atomic_read_u64(&slot->word);
		if (QUEUE_SLOT_STATE(word) != QUEUE_SLOT_COOLING ||
			is_blamed(i, QUEUE_SLOT_SEQUENCE(word), now))
			continue;
		if (written == limit)
		{
			*more = true;
			break;
		}
		CHECK_FOR_INTERRUPTS();
		writing = i;
		if (write_slot(i))
			written++;
		writing = PG_UINT32_MAX;
	}
	return written;
}
