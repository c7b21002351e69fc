/*
 * consumerfuncs.c
 *	  SQL functions that dequeue and settle.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "acl.h"
#include "dequeue.h"
#include "error.h"
#include "failure.h"
#include "guc.h"
#include "keystate.h"
#include "message.h"
#include "pending.h"
#include "repeat.h"
#include "ring.h"
#include "single.h"
#include "wakeup.h"

#define MESSAGE_COLUMNS 13
#define MAX_ATTEMPT_ID 255
#define MAX_CHOSEN_KEY 512
#define MAX_RESULT_BYTES (INT64CONST(64) * 1024 * 1024)

static const QueueJsonKey dequeue_keys[] = {
	{"consumer", true}, {"key", true}, {"attempt_id", true}, {"max_bytes", true}, {NULL, false}
};

static const QueueJsonKey nack_keys[] = {
	{"error_class", false}, {"progress", false}, {NULL, false}
};

/* ---- dequeue ---- */

/* Pauses of a dequeue that finds something due and nothing to claim, us. */
#define FIRST_PAUSE 1000
#define LONGEST_PAUSE 50000

/* Who asks for a key pauses for longer if a look takes long, so that it is busy a fifth of the time at most. */
#define PAUSES_A_LOOK 4
#define LONGEST_PAUSE_FOR_KEY 1000000

static const char *
unwritten_error(const QueueClaimed *claimed)
{
	switch ((QueueFailureReason) claimed->reason)
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

/* One claimed message as a row of type queue.message. */
static void
put_message(ReturnSetInfo *result, QueueDef *def, Datum name, const QueueClaimed *claimed, TupleDesc desc)
{
	static const QueueColumn columns[] = {
		0, 0, 0, 0, QUEUE_COLUMN_ENQUEUED_AT, 0, QUEUE_COLUMN_EXPIRES_AT, QUEUE_COLUMN_KEY,
		QUEUE_COLUMN_PRIORITY, QUEUE_COLUMN_HEADERS, QUEUE_COLUMN_PAYLOAD, QUEUE_COLUMN_BODY,
		QUEUE_COLUMN_ERROR
	};
	QueueMessage message;
	Datum		values[MESSAGE_COLUMNS];
	bool		nulls[MESSAGE_COLUMNS] = {false};
	const char *error = unwritten_error(claimed);

	queue_message_deform(&message, claimed->tuple, desc);
	queue_message_detoast(&message);
	for (int i = 0; i < MESSAGE_COLUMNS; i++)
		if (columns[i])
			values[i] = queue_message_get(&message, columns[i], &nulls[i]);
	values[0] = queue_message_get(&message, QUEUE_COLUMN_ID, &nulls[0]);
	values[1] = UUIDPGetDatum(&claimed->receipt);
	values[2] = name;
	values[3] = Int32GetDatum(claimed->failures + 1);
	values[5] = TimestampTzGetDatum(queue_clock_to_wall(claimed->deadline));
	if (error)
	{
		values[12] = CStringGetTextDatum(error);
		nulls[12] = false;
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
return_claimed(FunctionCallInfo fcinfo, QueueDef *def, QueueClaimed *claimed, int n, bool repeated)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		name = CStringGetTextDatum(def->name);
	TupleDesc	desc = n > 0 ? queue_dequeue_desc(def->state) : NULL;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "queue message",
												  ALLOCSET_DEFAULT_SIZES);
	int64		waited = 0;
	TimestampTz now = queue_clock_wall();

	for (int i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);
		QueueMessageHead head;

		queue_message_head(&head, claimed[i].tuple, desc);
		waited += Max(now - head.enqueued_at, 0);
		put_message(result, def, name, &claimed[i], desc);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
	}
	MemoryContextDelete(scratch);
	if (repeated)
		return;
	queue_count(def->state, QUEUE_COUNT_DEQUEUED, n);
	queue_count(def->state, QUEUE_COUNT_WAIT_USECS, waited);
}

/*
 * As whom this backend has dequeued last from a queue with one consumer at a
 * time: queue.wait() goes by that.
 */
static struct
{
	Oid			view;
	bool		named;
	char		consumer[QUEUE_CONSUMER_LENGTH];
}			dequeued_as;

static void
note_consumer(const QueueClaimRequest *request)
{
	dequeued_as.view = request->def->view;
	dequeued_as.named = request->consumer != NULL;
	strlcpy(dequeued_as.consumer, request->consumer ? request->consumer : "", QUEUE_CONSUMER_LENGTH);
}

static int
claim(QueueClaimRequest *request, Snapshot snapshot, QueueClaimed *claimed, bool *stands_by)
{
	if (request->def->options.single_active_consumer)
		note_consumer(request);
	return queue_dequeue_as_consumer(request, snapshot, claimed, stands_by);
}

/*
 * Claim, and if there is nothing sleep and claim again, until the deadline.
 * Only after a real sleep, and only in READ COMMITTED, a newer snapshot than
 * the statement's is used.
 */
static int
claim_or_wait(QueueClaimRequest *request, int64 wait, QueueClaimed *claimed)
{
	QueueDef   *def = request->def;
	QueueTime	deadline = queue_clock_now() + wait;
	int64		pause = FIRST_PAUSE;
	bool		slept = false;
	int			n = 0;

	queue_wakeup_begin();
	for (;;)
	{
		QueueTime	began = queue_clock_now();
		QueueTime	not_before;
		bool		stands_by = false;

		if (!def->paused_dequeue)
		{
			if (slept && !IsolationUsesXactSnapshot())
				PushActiveSnapshot(GetLatestSnapshot());
			else
				PushActiveSnapshot(GetActiveSnapshot());
			n = claim(request, GetActiveSnapshot(), claimed, &stands_by);
			PopActiveSnapshot();
		}
		if (n > 0 || wait == 0)
			return n;
		not_before = queue_clock_now() + (def->paused_dequeue ? LONGEST_PAUSE : pause);
		if (request->key)
			not_before += Min((queue_clock_now() - began) * PAUSES_A_LOOK, LONGEST_PAUSE_FOR_KEY);
		pause = Min(pause * 2, LONGEST_PAUSE);
		switch (stands_by ? queue_single_sleep(def, request->consumer, deadline, &slept)
				: queue_wakeup_sleep(def->state, deadline, not_before, &slept))
		{
			case QUEUE_WAKEUP_TIMEOUT:
				/* Something may have come in the last moment. */
				wait = 0;
				break;
			case QUEUE_WAKEUP_DROPPED:
				queue_error_no_queue(def->name);
			case QUEUE_WAKEUP_READY:
				break;
		}
		AcceptInvalidationMessages();
		def = request->def = queue_catalog_get(def->view);
		if (def == NULL)
			return 0;
	}
}

static int
get_count(FunctionCallInfo fcinfo, int argument)
{
	int32		count;

	if (PG_ARGISNULL(argument))
		queue_error_null("max_messages");
	count = PG_GETARG_INT32(argument);
	if (count < 1 || count > queue_max_batch)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_messages must be between 1 and %d", queue_max_batch),
				 errdetail("It is %d.", count),
				 errhint("The upper bound is the setting \"queue.max_batch\".")));
	return count;
}

/* 0: the queue's lease_timeout when the message comes. */
static int64
get_lease(FunctionCallInfo fcinfo, int argument, QueueDef *def)
{
	int64		lease;

	if (PG_ARGISNULL(argument))
		return 0;
	lease = queue_interval_to_usecs(PG_GETARG_INTERVAL_P(argument), "lease");
	if (lease == 0 || lease > def->options.lease_max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease must be positive and at most the queue's lease_max"),
				 errdetail("It is %g s, lease_max of queue \"%s\" is %g s.",
						   lease / 1e6, def->name, def->options.lease_max / 1e6)));
	return lease;
}

PG_FUNCTION_INFO_V1(queue_dequeue);
Datum
queue_dequeue(PG_FUNCTION_ARGS)
{
	QueueClaimRequest request = {.max_bytes = MAX_RESULT_BYTES};
	Jsonb	   *options = PG_ARGISNULL(4) ? NULL : PG_GETARG_JSONB_P(4);
	int64		wait = 0;
	char	   *attempt_id;
	QueueClaimed *claimed;
	bool		repeated;
	int			n;

	queue_error_need_write("queue.dequeue()");
	if (PG_ARGISNULL(0))
		queue_error_null("queue");
	request.wanted = get_count(fcinfo, 1);
	queue_options_check_keys(options, dequeue_keys, "queue.dequeue()");
	request.def = queue_catalog_open(PG_GETARG_TEXT_PP(0), QUEUE_ACL_DEQUEUE);
	request.lease = get_lease(fcinfo, 2, request.def);
	if (!PG_ARGISNULL(3))
		wait = Min(queue_interval_to_usecs(PG_GETARG_INTERVAL_P(3), "wait"),
				   queue_max_wait * INT64CONST(1000));
	request.consumer = queue_options_get_text(options, "consumer", QUEUE_CONSUMER_LENGTH - 1);
	request.max_bytes = queue_options_get_int(options, "max_bytes", 1, MAX_RESULT_BYTES, MAX_RESULT_BYTES);
	request.key = queue_options_get_text(options, "key", MAX_CHOSEN_KEY);
	attempt_id = queue_options_get_text(options, "attempt_id", MAX_ATTEMPT_ID);
	request.attempt = attempt_id ? queue_repeat_number(attempt_id) : 0;
	InitMaterializedSRF(fcinfo, 0);
	claimed = palloc(sizeof(QueueClaimed) * request.wanted);
	n = attempt_id ? queue_repeat_claim(&request, claimed) : 0;
	repeated = n > 0;
	if (!repeated)
		n = claim_or_wait(&request, wait, claimed);
	if (request.def)
	{
		return_claimed(fcinfo, request.def, claimed, n, repeated);
		queue_pending_returned();
		/* Leases outlast the call, the lock on the queue does not. */
		UnlockRelationOid(request.def->view, AccessShareLock);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(queue_pop);
Datum
queue_pop(PG_FUNCTION_ARGS)
{
	QueueClaimRequest request = {.max_bytes = MAX_RESULT_BYTES,.pop = true};
	QueueClaimed *claimed;
	bool		stands_by;
	int			n;

	queue_error_need_write("queue.pop()");
	if (PG_ARGISNULL(0))
		queue_error_null("queue");
	request.wanted = get_count(fcinfo, 1);
	request.def = queue_catalog_open(PG_GETARG_TEXT_PP(0), QUEUE_ACL_DEQUEUE);
	InitMaterializedSRF(fcinfo, 0);
	claimed = palloc(sizeof(QueueClaimed) * request.wanted);
	n = request.def->paused_dequeue ? 0 : claim(&request, GetActiveSnapshot(), claimed, &stands_by);
	return_claimed(fcinfo, request.def, claimed, n, false);
	for (int i = 0; i < n; i++)
		if (queue_settle_ack(&claimed[i].receipt) != QUEUE_STATUS_OK)
			ereport(ERROR,
					(errcode(ERRCODE_QUEUE_LEASE_LOST),
					 errmsg("message " INT64_FORMAT " of queue \"%s\" was lost while it was popped",
							queue_message_id(claimed[i].tuple, queue_dequeue_desc(request.def->state)),
							request.def->name)));
	queue_pending_returned();
	return (Datum) 0;
}

/* How often somebody who waits for a paused queue looks at the pause, us. */
#define PAUSE_LOOK 1000000

/* Whether another consumer is active than the one as which this backend dequeues. */
static bool
is_standby(QueueState *state, Oid view)
{
	return queue_single_stands_by(state, dequeued_as.view == view && dequeued_as.named ? dequeued_as.consumer : NULL);
}

/*
 * Where one consumer at a time gets messages, sleep until that can be us, then as
 * others do. READY: both are so.
 */
static QueueWakeup
sleep_as_consumer(const QueueDef *def, QueueTime deadline)
{
	QueueState *state = def->state;
	Oid			view = def->view;
	bool		slept;
	QueueWakeup result;

	if (is_standby(state, view))
	{
		result = queue_single_sleep(def, dequeued_as.view == view && dequeued_as.named ? dequeued_as.consumer : NULL,
									deadline, &slept);
		return result == QUEUE_WAKEUP_READY ? QUEUE_WAKEUP_TIMEOUT : result;
	}
	result = queue_wakeup_sleep(state, deadline, queue_clock_now(), &slept);
	if (result != QUEUE_WAKEUP_READY || !is_standby(state, view))
		return result;
	/* Another one has become active meanwhile: what we were told is for him. */
	queue_wakeup_pass_on(state, false);
	return QUEUE_WAKEUP_TIMEOUT;
}

/*
 * Sleep until the queue has something due and is not paused. The definition is
 * read under the catalog's snapshot, which is given back before each sleep.
 */
static QueueWakeup
sleep_without_snapshot(Oid view, QueueTime deadline)
{
	for (;;)
	{
		QueueTime	now = queue_clock_now();
		QueueDef   *def;
		QueueState *state;
		QueueWakeup result;
		bool		slept;
		bool		again;

		AcceptInvalidationMessages();
		def = queue_catalog_get_unlocked(view);
		if (def == NULL)
			return QUEUE_WAKEUP_DROPPED;
		state = def->state;
		again = def->paused_dequeue || def->options.single_active_consumer;
		InvalidateCatalogSnapshot();
		Assert(!TransactionIdIsValid(MyProc->xmin));
		if (def->paused_dequeue)
			result = queue_wakeup_sleep(state, Min(deadline, now + PAUSE_LOOK), QUEUE_TIME_NEVER, &slept);
		else if (def->options.single_active_consumer)
			result = sleep_as_consumer(def, deadline);
		else
			result = queue_wakeup_sleep(state, deadline, now, &slept);
		/* The dequeue that follows passes on work, but not the time to come. */
		if (result == QUEUE_WAKEUP_READY)
			queue_wakeup_pass_on_time(state);
		if (!again || result != QUEUE_WAKEUP_TIMEOUT || queue_clock_now() >= deadline)
			return result;
	}
}

/*
 * CALL queue.wait(): sleeps with neither transaction state nor snapshot, which
 * a procedure can have after committing. Only outside a transaction block.
 */
PG_FUNCTION_INFO_V1(queue_wait);
Datum
queue_wait(PG_FUNCTION_ARGS)
{
	CallContext *context = (CallContext *) fcinfo->context;
	QueueDef   *def;
	Oid			view;
	QueueTime	deadline;
	TupleDesc	desc;
	QueueWakeup result;
	Datum		value;
	bool		isnull = false;
	char		name[NAMEDATALEN];

	queue_error_need_write("queue.wait()");
	if (PG_ARGISNULL(0))
		queue_error_null("queue");
	if (PG_ARGISNULL(1))
		queue_error_null("timeout");
	if (context == NULL || !IsA(context, CallContext) || context->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("queue.wait() cannot run inside a transaction block"),
				 errhint("Call it on its own, outside of BEGIN and COMMIT, functions and atomic procedures.")));
	deadline = queue_interval_to_usecs(PG_GETARG_INTERVAL_P(1), "timeout");
	def = queue_catalog_open(PG_GETARG_TEXT_PP(0), QUEUE_ACL_DEQUEUE);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	queue_ring_load(def->state);
	view = def->view;
	strlcpy(name, def->name, sizeof(name));
	deadline += queue_clock_now();

	queue_wakeup_begin();
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	SPI_commit();
	result = sleep_without_snapshot(view, deadline);
	SPI_finish();
	if (result == QUEUE_WAKEUP_DROPPED)
		queue_error_no_queue(name);
	value = BoolGetDatum(result == QUEUE_WAKEUP_READY);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, &value, &isnull)));
}

/* ---- settle ---- */

static const char *
receipt_text(const pg_uuid_t *receipt)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(receipt)));
}

/* Strict: anything but success is an error. */
static void
insist(QueueSettleStatus status, const pg_uuid_t *receipt)
{
	if (status == QUEUE_STATUS_DENIED)
	{
		Oid			view = queue_settle_view(receipt);

		/* If the lease has ended meanwhile, there is nothing to be denied. */
		if (OidIsValid(view))
			queue_acl_check(view, get_rel_name(view), QUEUE_ACL_DEQUEUE);
	}
	if (status != QUEUE_STATUS_OK)
		queue_error_lease_lost(receipt_text(receipt));
}

static const pg_uuid_t *
get_receipt(FunctionCallInfo fcinfo, const char *function)
{
	queue_error_need_write(function);
	if (PG_ARGISNULL(0))
		queue_error_null("receipt");
	return PG_GETARG_UUID_P(0);
}

/* The receipts of a batch, checked for nulls and number. */
static int
get_receipts(FunctionCallInfo fcinfo, const char *function, pg_uuid_t ***receipts)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;

	queue_error_need_write(function);
	if (PG_ARGISNULL(0))
		queue_error_null("receipts");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), UUIDOID, UUID_LEN, false, TYPALIGN_CHAR,
					  &values, &nulls, &n);
	if (n > queue_max_batch)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("too many receipts in one call"),
				 errdetail("There are %d, the limit is %d.", n, queue_max_batch),
				 errhint("Use several calls, or raise \"queue.max_batch\".")));
	*receipts = palloc(sizeof(pg_uuid_t *) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			queue_error_null("element of receipts");
		(*receipts)[i] = DatumGetUUIDP(values[i]);
	}
	return n;
}

static void
put_status(FunctionCallInfo fcinfo, const pg_uuid_t *receipt, QueueSettleStatus status, const char *done)
{
	static const char *const names[] = {NULL, "already_acked", "lost", "invalid", "denied"};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	values[0] = UUIDPGetDatum(receipt);
	values[1] = CStringGetTextDatum(status == QUEUE_STATUS_OK ? done : names[status]);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(queue_ack);
Datum
queue_ack(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *receipt = get_receipt(fcinfo, "queue.ack()");

	insist(queue_settle_ack(receipt), receipt);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(queue_ack_batch);
Datum
queue_ack_batch(PG_FUNCTION_ARGS)
{
	pg_uuid_t **receipts;
	int			n = get_receipts(fcinfo, "queue.ack_batch()", &receipts);

	for (int i = 0; i < n; i++)
		insist(queue_settle_ack(receipts[i]), receipts[i]);
	PG_RETURN_INT32(n);
}

PG_FUNCTION_INFO_V1(queue_try_ack);
Datum
queue_try_ack(PG_FUNCTION_ARGS)
{
	pg_uuid_t **receipts;
	int			n = get_receipts(fcinfo, "queue.try_ack()", &receipts);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
		put_status(fcinfo, receipts[i], queue_settle_ack(receipts[i]), "acked");
	return (Datum) 0;
}

/* -1 when no delay is given. */
static int64
get_delay(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? -1
		: queue_interval_to_usecs(PG_GETARG_INTERVAL_P(argument), "delay");
}

static char *
get_text(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(argument));
}

static void
check_nack_options(FunctionCallInfo fcinfo)
{
	if (!PG_ARGISNULL(3))
		queue_options_check_keys(PG_GETARG_JSONB_P(3), nack_keys, "queue.nack()");
}

PG_FUNCTION_INFO_V1(queue_nack);
Datum
queue_nack(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *receipt = get_receipt(fcinfo, "queue.nack()");
	QueueFate	fate = QUEUE_FATE_LOST;

	check_nack_options(fcinfo);
	insist(queue_failure_nack(receipt, get_text(fcinfo, 1), get_delay(fcinfo, 2), &fate), receipt);
	PG_RETURN_TEXT_P(cstring_to_text(fate == QUEUE_FATE_DEAD ? "dead" : "retry"));
}

PG_FUNCTION_INFO_V1(queue_nack_batch);
Datum
queue_nack_batch(PG_FUNCTION_ARGS)
{
	pg_uuid_t **receipts;
	int			n = get_receipts(fcinfo, "queue.nack_batch()", &receipts);
	char	   *error = get_text(fcinfo, 1);
	int64		delay = get_delay(fcinfo, 2);

	check_nack_options(fcinfo);
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		QueueFate	fate = QUEUE_FATE_LOST;
		QueueSettleStatus status = queue_failure_nack(receipts[i], error, delay, &fate);

		put_status(fcinfo, receipts[i], status, fate == QUEUE_FATE_DEAD ? "dead" : "retry");
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(queue_reject);
Datum
queue_reject(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *receipt = get_receipt(fcinfo, "queue.reject()");

	insist(queue_failure_reject(receipt, get_text(fcinfo, 1)), receipt);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(queue_release);
Datum
queue_release(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *receipt = get_receipt(fcinfo, "queue.release()");

	insist(queue_settle_release(receipt, Max(get_delay(fcinfo, 1), 0)), receipt);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(queue_release_batch);
Datum
queue_release_batch(PG_FUNCTION_ARGS)
{
	pg_uuid_t **receipts;
	int			n = get_receipts(fcinfo, "queue.release_batch()", &receipts);
	int64		delay = Max(get_delay(fcinfo, 1), 0);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
		put_status(fcinfo, receipts[i], queue_settle_release(receipts[i], delay), "released");
	return (Datum) 0;
}

/* 0: the queue's lease_timeout. */
static int64
get_extension(FunctionCallInfo fcinfo)
{
	int64		lease;

	if (PG_ARGISNULL(1))
		return 0;
	lease = queue_interval_to_usecs(PG_GETARG_INTERVAL_P(1), "lease");
	if (lease == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease must be positive")));
	return lease;
}

PG_FUNCTION_INFO_V1(queue_extend);
Datum
queue_extend(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *receipt = get_receipt(fcinfo, "queue.extend()");
	TimestampTz deadline = 0;

	insist(queue_settle_extend(receipt, get_extension(fcinfo), &deadline), receipt);
	PG_RETURN_TIMESTAMPTZ(deadline);
}

PG_FUNCTION_INFO_V1(queue_extend_batch);
Datum
queue_extend_batch(PG_FUNCTION_ARGS)
{
	pg_uuid_t **receipts;
	int			n = get_receipts(fcinfo, "queue.extend_batch()", &receipts);
	int64		lease = get_extension(fcinfo);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		TimestampTz deadline;

		put_status(fcinfo, receipts[i], queue_settle_extend(receipts[i], lease, &deadline), "extended");
	}
	return (Datum) 0;
}

/* ---- the state of a key ---- */

/* The queue and key of a message that the caller holds. */
static QueueDef *
open_key(const pg_uuid_t *receipt, bool until_end, text **key)
{
	QueueDef   *def;

	insist(queue_settle_key(receipt, until_end, &def, key), receipt);
	return def;
}

/* NULL if it has none. */
PG_FUNCTION_INFO_V1(queue_get_key_state);
Datum
queue_get_key_state(PG_FUNCTION_ARGS)
{
	text	   *key;
	QueueDef   *def = open_key(get_receipt(fcinfo, "queue.get_key_state()"), false, &key);
	Jsonb	   *state = queue_keystate_read(def, key);

	if (state == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(state);
}

/* NULL: it has none any more. In any case the message is held until the transaction ends. */
PG_FUNCTION_INFO_V1(queue_set_key_state);
Datum
queue_set_key_state(PG_FUNCTION_ARGS)
{
	text	   *key;
	QueueDef   *def = open_key(get_receipt(fcinfo, "queue.set_key_state()"), true, &key);

	queue_keystate_write(def, key, PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1));
	PG_RETURN_VOID();
}
