/*
 * producerfuncs.c
 *	  SQL functions that enqueue, and the trigger behind INSERT and COPY.
 *
 * All of them fill QueueMessage structs and call queue_once_enqueue().
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "acl.h"
#include "enqueue.h"
#include "error.h"
#include "guc.h"
#include "once.h"
#include "options.h"

static const QueueJsonKey enqueue_keys[] = {
	{"unique_key", true}, {"on_conflict", true}, {"cost", true}, {"max_attempts", true}, {NULL, false}
};

/* What the messages of one call have in common; NULL pointers: not given. */
typedef struct Common
{
	TimestampTz now;
	TimestampTz visible_at;		/* DT_NOBEGIN: at once */
	TimestampTz expires_at;		/* DT_NOEND: never */
	int			max_attempts;	/* -1: the queue's */
	int			cost;			/* -1: 1 */
	text	   *unique_key;
	QueueOnConflict on_conflict;
	bool		has_on_conflict;
} Common;

/* Bytes of a unique key, which is in the message's row as it is. */
#define MAX_UNIQUE_KEY 512

static TimestampTz
add_usecs(TimestampTz time, int64 usecs, const char *what)
{
	TimestampTz result = time + usecs;

	if (!IS_VALID_TIMESTAMP(result))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is too long", what)));
	return result;
}

static QueueOnConflict
parse_on_conflict(Jsonb *options)
{
	static const char *const names[] = {"skip", "replace", "debounce"};
	JsonbValue *value = queue_options_get(options, "on_conflict");

	if (value == NULL)
		return QUEUE_CONFLICT_SKIP;
	for (int i = 0; i < (int) lengthof(names); i++)
		if (value->type == jbvString && value->val.string.len == (int) strlen(names[i]) &&
			strncmp(value->val.string.val, names[i], value->val.string.len) == 0)
			return (QueueOnConflict) i;
	queue_options_bad_value("on_conflict", value, "one of skip, replace, debounce");
}

static void
set_unique_key(Common *common, const char *key)
{
	if (key == NULL)
		return;
	if (strlen(key) > MAX_UNIQUE_KEY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unique_key is too long"),
				 errdetail("It has %zu bytes, the limit is %d.", strlen(key), MAX_UNIQUE_KEY),
				 errhint("Use a hash of it.")));
	common->unique_key = cstring_to_text(key);
}

static void
fill_common(Common *common, QueueDef *def, const Interval *delay, const TimestampTz *deliver_at,
			const Interval *ttl, Jsonb *options)
{
	common->now = queue_clock_wall();
	common->visible_at = DT_NOBEGIN;
	common->expires_at = DT_NOEND;
	if (delay && deliver_at)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("delay and deliver_at exclude each other")));
	if (delay)
		common->visible_at = add_usecs(common->now, queue_interval_to_usecs(delay, "delay"), "delay");
	else if (deliver_at)
	{
		if (TIMESTAMP_IS_NOEND(*deliver_at))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("deliver_at must not be infinity")));
		common->visible_at = *deliver_at;
	}
	if (common->visible_at <= common->now)
		common->visible_at = DT_NOBEGIN;
	if (ttl)
		common->expires_at = add_usecs(common->now, queue_interval_to_usecs(ttl, "ttl"), "ttl");
	if (def->options.message_ttl > 0)
		common->expires_at = Min(common->expires_at,
								 add_usecs(common->now, def->options.message_ttl, "message_ttl"));
	queue_options_check_keys(options, enqueue_keys, "enqueue");
	common->max_attempts = (int) queue_options_get_int(options, "max_attempts", 0, 1000000, -1);
	common->cost = (int) queue_options_get_int(options, "cost", 0, 1000000, -1);
	common->on_conflict = parse_on_conflict(options);
	common->has_on_conflict = queue_options_get(options, "on_conflict") != NULL;
	common->unique_key = NULL;
	set_unique_key(common, queue_options_get_text(options, "unique_key", MAX_UNIQUE_KEY));
}

/* Users' headers must be an object without keys of the extension's. */
static void
check_headers(Jsonb *headers)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(headers))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("headers must be a JSON object")));
	it = JsonbIteratorInit(&headers->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
		if (token == WJB_KEY && value.val.string.len >= 6 &&
			strncmp(value.val.string.val, "queue.", 6) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("header \"%s\" is reserved",
							pnstrdup(value.val.string.val, value.val.string.len)),
					 errdetail("Headers that begin with \"queue.\" belong to the extension.")));
}

static void
fill_message(QueueMessage *message, const Common *common)
{
	queue_message_init(message);
	queue_message_set(message, QUEUE_COLUMN_ENQUEUED_AT, TimestampTzGetDatum(common->now));
	if (!TIMESTAMP_IS_NOBEGIN(common->visible_at))
		queue_message_set(message, QUEUE_COLUMN_VISIBLE_AT, TimestampTzGetDatum(common->visible_at));
	if (!TIMESTAMP_IS_NOEND(common->expires_at))
		queue_message_set(message, QUEUE_COLUMN_EXPIRES_AT, TimestampTzGetDatum(common->expires_at));
	if (common->max_attempts >= 0)
		queue_message_set(message, QUEUE_COLUMN_MAX_ATTEMPTS, Int32GetDatum(common->max_attempts));
	if (common->cost >= 0)
		queue_message_set(message, QUEUE_COLUMN_COST, Int32GetDatum(common->cost));
	if (common->unique_key)
		queue_message_set(message, QUEUE_COLUMN_UNIQUE_KEY, PointerGetDatum(common->unique_key));
}

static void
fill_once(QueueOnce *once, const Common *common, bool no_dedup_key, Datum dedup_key)
{
	if (common->has_on_conflict && common->unique_key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("on_conflict needs a unique_key")));
	once->dedup_key = no_dedup_key ? NULL : DatumGetTextPP(dedup_key);
	once->on_conflict = common->on_conflict;
	once->duplicate = false;
}

static void
set_headers(QueueMessage *message, Datum headers)
{
	check_headers(DatumGetJsonbP(headers));
	queue_message_set(message, QUEUE_COLUMN_HEADERS, headers);
}

static void
set_priority(QueueMessage *message, const QueueDef *def, int priority)
{
	if (priority < 0 || priority >= QUEUE_PRIORITIES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("priority must be between 0 and %d", QUEUE_PRIORITIES - 1),
				 errdetail("It is %d.", priority)));
	if (def->options.ordered)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("messages of an ordered queue have no priority"),
				 errdetail("\"%s\" delivers the messages of a key in the order in which they came.", def->name),
				 errhint("Use a queue for each priority, or one that is not ordered.")));
	queue_message_set(message, QUEUE_COLUMN_PRIORITY, Int16GetDatum(priority));
}

/* It has one since it was stored. */
static Datum
id_of(const QueueMessage *message)
{
	bool		isnull;

	return queue_message_get(message, QUEUE_COLUMN_ID, &isnull);
}

/* ---- one message ---- */

/* Arguments of queue.enqueue() and its kin, by position. */
enum
{
	ARG_QUEUE, ARG_CONTENT, ARG_KEY, ARG_HEADERS, ARG_PRIORITY, ARG_DELAY,
	ARG_DELIVER_AT, ARG_TTL, ARG_DEDUP_KEY, ARG_OPTIONS
};

static int64
enqueue_one(FunctionCallInfo fcinfo, const char *function, QueueColumn content, const char *content_name,
			bool *duplicate)
{
	QueueDef   *def;
	Common		common;
	QueueMessage message;
	QueueOnce	once;
	TimestampTz deliver_at = 0;

	queue_error_need_write(function);
	if (PG_ARGISNULL(ARG_QUEUE))
		queue_error_null("queue");
	if (PG_ARGISNULL(ARG_CONTENT))
		queue_error_null(content_name);
	def = queue_catalog_open(PG_GETARG_TEXT_PP(ARG_QUEUE), QUEUE_ACL_ENQUEUE);
	if (!PG_ARGISNULL(ARG_DELIVER_AT))
		deliver_at = PG_GETARG_TIMESTAMPTZ(ARG_DELIVER_AT);
	fill_common(&common, def, PG_ARGISNULL(ARG_DELAY) ? NULL : PG_GETARG_INTERVAL_P(ARG_DELAY),
				PG_ARGISNULL(ARG_DELIVER_AT) ? NULL : &deliver_at,
				PG_ARGISNULL(ARG_TTL) ? NULL : PG_GETARG_INTERVAL_P(ARG_TTL),
				PG_ARGISNULL(ARG_OPTIONS) ? NULL : PG_GETARG_JSONB_P(ARG_OPTIONS));
	fill_message(&message, &common);
	queue_message_set(&message, content, PG_GETARG_DATUM(ARG_CONTENT));
	if (!PG_ARGISNULL(ARG_KEY))
		queue_message_set(&message, QUEUE_COLUMN_KEY, PG_GETARG_DATUM(ARG_KEY));
	if (!PG_ARGISNULL(ARG_HEADERS))
		set_headers(&message, PG_GETARG_DATUM(ARG_HEADERS));
	if (!PG_ARGISNULL(ARG_PRIORITY))
		set_priority(&message, def, PG_GETARG_INT32(ARG_PRIORITY));
	queue_message_detoast(&message);
	fill_once(&once, &common, PG_ARGISNULL(ARG_DEDUP_KEY), PG_GETARG_DATUM(ARG_DEDUP_KEY));
	queue_once_enqueue(def, &message, &once, 1);
	*duplicate = once.duplicate;
	return DatumGetInt64(id_of(&message));
}

PG_FUNCTION_INFO_V1(queue_enqueue_json);
Datum
queue_enqueue_json(PG_FUNCTION_ARGS)
{
	bool		duplicate;

	PG_RETURN_INT64(enqueue_one(fcinfo, "queue.enqueue()", QUEUE_COLUMN_PAYLOAD, "payload", &duplicate));
}

PG_FUNCTION_INFO_V1(queue_enqueue_bytes);
Datum
queue_enqueue_bytes(PG_FUNCTION_ARGS)
{
	bool		duplicate;

	PG_RETURN_INT64(enqueue_one(fcinfo, "queue.enqueue_bytes()", QUEUE_COLUMN_BODY, "body", &duplicate));
}

PG_FUNCTION_INFO_V1(queue_enqueue_unique);
Datum
queue_enqueue_unique(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};
	bool		duplicate;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int64GetDatum(enqueue_one(fcinfo, "queue.enqueue_unique()", QUEUE_COLUMN_PAYLOAD, "payload", &duplicate));
	values[1] = BoolGetDatum(duplicate);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* ---- batches ---- */

enum
{
	BATCH_QUEUE, BATCH_CONTENTS, BATCH_KEYS, BATCH_HEADERS, BATCH_DEDUP_KEYS, BATCH_PRIORITY,
	BATCH_DELAY, BATCH_DELIVER_AT, BATCH_TTL, BATCH_OPTIONS
};

typedef struct Elements
{
	Datum	   *values;
	bool	   *nulls;
	int			count;
} Elements;

static void
deconstruct(ArrayType *array, Elements *elements)
{
	int16		length;
	bool		by_value;
	char		align;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("arrays must have one dimension")));
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &length, &by_value, &align);
	deconstruct_array(array, ARR_ELEMTYPE(array), length, by_value, align,
					  &elements->values, &elements->nulls, &elements->count);
}

/* An optional array beside the contents; absent: as many nulls. */
static bool
get_beside(FunctionCallInfo fcinfo, int argument, int count, const char *name, Elements *elements)
{
	if (PG_ARGISNULL(argument))
		return false;
	deconstruct(PG_GETARG_ARRAYTYPE_P(argument), elements);
	if (elements->count != count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must have as many elements as there are messages", name),
				 errdetail("There are %d messages and %d elements.", count, elements->count)));
	return true;
}

static void
check_batch(int count)
{
	if (count > queue_max_batch)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("too many messages in one call"),
				 errdetail("There are %d, the limit is %d.", count, queue_max_batch),
				 errhint("Use several calls, or raise \"queue.max_batch\".")));
}

static ArrayType *
enqueue_many(FunctionCallInfo fcinfo, const char *function, QueueColumn content, const char *content_name)
{
	QueueDef   *def;
	Common		common;
	Elements	contents;
	Elements	keys;
	Elements	headers;
	Elements	dedup_keys;
	bool		has_keys;
	bool		has_headers;
	bool		has_dedup_keys;
	TimestampTz deliver_at = 0;
	QueueMessage *messages;
	QueueOnce  *onces;
	Datum	   *ids;

	queue_error_need_write(function);
	if (PG_ARGISNULL(BATCH_QUEUE))
		queue_error_null("queue");
	if (PG_ARGISNULL(BATCH_CONTENTS))
		queue_error_null(content_name);
	def = queue_catalog_open(PG_GETARG_TEXT_PP(BATCH_QUEUE), QUEUE_ACL_ENQUEUE);
	deconstruct(PG_GETARG_ARRAYTYPE_P(BATCH_CONTENTS), &contents);
	check_batch(contents.count);
	has_keys = get_beside(fcinfo, BATCH_KEYS, contents.count, "keys", &keys);
	has_headers = get_beside(fcinfo, BATCH_HEADERS, contents.count, "headers", &headers);
	has_dedup_keys = get_beside(fcinfo, BATCH_DEDUP_KEYS, contents.count, "dedup_keys", &dedup_keys);
	if (!PG_ARGISNULL(BATCH_DELIVER_AT))
		deliver_at = PG_GETARG_TIMESTAMPTZ(BATCH_DELIVER_AT);
	fill_common(&common, def, PG_ARGISNULL(BATCH_DELAY) ? NULL : PG_GETARG_INTERVAL_P(BATCH_DELAY),
				PG_ARGISNULL(BATCH_DELIVER_AT) ? NULL : &deliver_at,
				PG_ARGISNULL(BATCH_TTL) ? NULL : PG_GETARG_INTERVAL_P(BATCH_TTL),
				PG_ARGISNULL(BATCH_OPTIONS) ? NULL : PG_GETARG_JSONB_P(BATCH_OPTIONS));

	messages = MemoryContextAllocHuge(CurrentMemoryContext,
									  sizeof(QueueMessage) * (contents.count + 1));
	onces = palloc(sizeof(QueueOnce) * (contents.count + 1));
	ids = palloc(sizeof(Datum) * (contents.count + 1));
	for (int i = 0; i < contents.count; i++)
	{
		if (contents.nulls[i])
			queue_error_null(psprintf("element %d of %s", i + 1, content_name));
		fill_message(&messages[i], &common);
		queue_message_set(&messages[i], content, contents.values[i]);
		if (has_keys && !keys.nulls[i])
			queue_message_set(&messages[i], QUEUE_COLUMN_KEY, keys.values[i]);
		if (has_headers && !headers.nulls[i])
			set_headers(&messages[i], headers.values[i]);
		if (!PG_ARGISNULL(BATCH_PRIORITY))
			set_priority(&messages[i], def, PG_GETARG_INT32(BATCH_PRIORITY));
		fill_once(&onces[i], &common, !has_dedup_keys || dedup_keys.nulls[i], has_dedup_keys ? dedup_keys.values[i] : 0);
	}
	if (contents.count > 0)
		queue_once_enqueue(def, messages, onces, contents.count);
	for (int i = 0; i < contents.count; i++)
		ids[i] = id_of(&messages[i]);
	return construct_array(ids, contents.count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
}

PG_FUNCTION_INFO_V1(queue_enqueue_batch);
Datum
queue_enqueue_batch(PG_FUNCTION_ARGS)
{
	PG_RETURN_ARRAYTYPE_P(enqueue_many(fcinfo, "queue.enqueue_batch()", QUEUE_COLUMN_PAYLOAD, "payloads"));
}

PG_FUNCTION_INFO_V1(queue_enqueue_bytes_batch);
Datum
queue_enqueue_bytes_batch(PG_FUNCTION_ARGS)
{
	PG_RETURN_ARRAYTYPE_P(enqueue_many(fcinfo, "queue.enqueue_bytes_batch()", QUEUE_COLUMN_BODY, "bodies"));
}

/* ---- INSERT and COPY into the view ---- */

/* A column of the row that the user gave. */
static Datum
given(TriggerData *trigger, const char *column, bool *isnull)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);

	return SPI_getbinval(trigger->tg_trigtuple, desc, SPI_fnumber(desc, column), isnull);
}

/* Columns that only show something must not be given. */
static void
check_read_only(TriggerData *trigger)
{
	static const char *const columns[] = {
		"id", "state", "enqueued_at", "expires_at", "failures", "last_error", "lease_until", "lease_owner"
	};

	for (int i = 0; i < (int) lengthof(columns); i++)
	{
		bool		isnull;

		given(trigger, columns[i], &isnull);
		if (!isnull)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("column \"%s\" of a queue cannot be given", columns[i]),
					 errhint("To insert: payload or body, key, priority, headers, delay or deliver_at, ttl, dedup_key, unique_key, options.")));
	}
}

static void
fill_from_row(TriggerData *trigger, QueueDef *def, QueueMessage *message, QueueOnce *once)
{
	Common		common;
	bool		no_delay;
	bool		no_deliver_at;
	bool		no_ttl;
	bool		no_options;
	bool		no_payload;
	bool		no_body;
	bool		isnull;
	Datum		delay = given(trigger, "delay", &no_delay);
	Datum		at = given(trigger, "deliver_at", &no_deliver_at);
	Datum		ttl = given(trigger, "ttl", &no_ttl);
	Datum		options = given(trigger, "options", &no_options);
	Datum		payload = given(trigger, "payload", &no_payload);
	Datum		body = given(trigger, "body", &no_body);
	TimestampTz deliver_at = no_deliver_at ? 0 : DatumGetTimestampTz(at);
	Datum		value;

	if (no_payload && no_body)
		queue_error_null("payload");
	if (!no_payload && !no_body)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("payload and body exclude each other")));
	fill_common(&common, def, no_delay ? NULL : DatumGetIntervalP(delay),
				no_deliver_at ? NULL : &deliver_at, no_ttl ? NULL : DatumGetIntervalP(ttl),
				no_options ? NULL : DatumGetJsonbP(options));
	value = given(trigger, "unique_key", &isnull);
	if (!isnull && common.unique_key)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unique_key is given twice"),
				 errhint("Give it as a column, or in the options.")));
	set_unique_key(&common, isnull ? NULL : TextDatumGetCString(value));
	fill_message(message, &common);
	value = given(trigger, "dedup_key", &isnull);
	fill_once(once, &common, isnull, value);
	if (no_payload)
		queue_message_set(message, QUEUE_COLUMN_BODY, body);
	else
		queue_message_set(message, QUEUE_COLUMN_PAYLOAD, payload);
	value = given(trigger, "key", &isnull);
	if (!isnull)
		queue_message_set(message, QUEUE_COLUMN_KEY, value);
	value = given(trigger, "headers", &isnull);
	if (!isnull)
		set_headers(message, value);
	value = given(trigger, "priority", &isnull);
	if (!isnull)
		set_priority(message, def, DatumGetInt16(value));
}

/* The row as stored, for RETURNING. */
static HeapTuple
returned_row(TriggerData *trigger, const QueueMessage *message)
{
	static const char *const names[] = {"id", "state", "enqueued_at", "deliver_at", "expires_at", "failures", "headers"};
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	int			columns[lengthof(names)];
	Datum		values[lengthof(names)];
	bool		nulls[lengthof(names)] = {false};

	for (int i = 0; i < (int) lengthof(names); i++)
		columns[i] = SPI_fnumber(desc, names[i]);
	values[0] = queue_message_get(message, QUEUE_COLUMN_ID, &nulls[0]);
	values[3] = queue_message_get(message, QUEUE_COLUMN_VISIBLE_AT, &nulls[3]);
	values[1] = CStringGetTextDatum(nulls[3] ? "ready" : "delayed");
	values[2] = queue_message_get(message, QUEUE_COLUMN_ENQUEUED_AT, &nulls[2]);
	if (nulls[3])
		values[3] = values[2];
	nulls[3] = false;
	values[4] = queue_message_get(message, QUEUE_COLUMN_EXPIRES_AT, &nulls[4]);
	values[5] = Int32GetDatum(0);
	values[6] = queue_message_get(message, QUEUE_COLUMN_HEADERS, &nulls[6]);
	return heap_modify_tuple_by_cols(trigger->tg_trigtuple, desc, lengthof(names), columns, values, nulls);
}

/*
 * INSTEAD OF INSERT. The executor has checked the privilege of whoever is
 * responsible, which behind a wrapping view is the wrapper's owner.
 */
PG_FUNCTION_INFO_V1(queue_view_insert);
Datum
queue_view_insert(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	QueueMessage message;
	QueueOnce	once;
	QueueDef   *def;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_INSTEAD(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("queue._view_insert() is the trigger of a queue's view")));
	queue_error_need_write("INSERT into a queue");
	queue_catalog_check_view(trigger->tg_relation);
	def = queue_catalog_get(RelationGetRelid(trigger->tg_relation));
	if (def == NULL)
		queue_error_no_queue(RelationGetRelationName(trigger->tg_relation));
	check_read_only(trigger);
	fill_from_row(trigger, def, &message, &once);
	queue_once_enqueue(def, &message, &once, 1);
	return PointerGetDatum(returned_row(trigger, &message));
}

/* ---- the inbox ---- */

PG_FUNCTION_INFO_V1(queue_once);
Datum
queue_once(PG_FUNCTION_ARGS)
{
	queue_error_need_write("queue.once()");
	if (PG_ARGISNULL(0))
		queue_error_null("consumer");
	if (PG_ARGISNULL(1))
		queue_error_null("message_key");
	PG_RETURN_BOOL(queue_once_inbox(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1)));
}
