/*
 * message.c
 *	  Forms and deforms messages.
 *
 * A stored message is never updated: a change makes a copy (same id) and
 * deletes the original in one transaction.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "common/hashfn.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "message.h"

static bool
is_varlena(int column)
{
	return column >= QUEUE_COLUMN_KEY;
}

void
queue_message_init(QueueMessage *message)
{
	memset(message->values, 0, sizeof(message->values));
	memset(message->nulls, true, sizeof(message->nulls));
}

void
queue_message_set(QueueMessage *message, QueueColumn column, Datum value)
{
	message->values[column - 1] = value;
	message->nulls[column - 1] = false;
}

void
queue_message_clear(QueueMessage *message, QueueColumn column)
{
	message->values[column - 1] = (Datum) 0;
	message->nulls[column - 1] = true;
}

Datum
queue_message_get(const QueueMessage *message, QueueColumn column, bool *isnull)
{
	*isnull = message->nulls[column - 1];
	return message->values[column - 1];
}

HeapTuple
queue_message_form(const QueueMessage *message, TupleDesc desc)
{
	return heap_form_tuple(desc, (Datum *) message->values,
						   (bool *) message->nulls);
}

/* Give a tuple that was formed another id: it is the first column, and never null. */
void
queue_message_set_tuple_id(HeapTuple tuple, int64 id)
{
	memcpy((char *) tuple->t_data + tuple->t_data->t_hoff, &id, sizeof(id));
}

/* The values point into the tuple. */
void
queue_message_deform(QueueMessage *message, HeapTuple tuple, TupleDesc desc)
{
	heap_deform_tuple(tuple, desc, message->values, message->nulls);
}

/* Bring in what is stored out of line. Needs a snapshot and no busy page. */
void
queue_message_detoast(QueueMessage *message)
{
	for (int i = 1; i <= QUEUE_COLUMNS; i++)
		if (is_varlena(i) && !message->nulls[i - 1])
			message->values[i - 1] =
				PointerGetDatum(PG_DETOAST_DATUM_PACKED(message->values[i - 1]));
}

int64
queue_message_id(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	return DatumGetInt64(heap_getattr(tuple, QUEUE_COLUMN_ID, desc, &isnull));
}

/* Whatever is stored there, it is one of those that there are. */
static int
known_priority(Datum value, bool isnull)
{
	int			priority = isnull ? QUEUE_PRIORITY_DEFAULT : DatumGetInt16(value);

	return Min(Max(priority, 0), QUEUE_PRIORITIES - 1);
}

int
queue_message_priority(const QueueMessage *message)
{
	bool		isnull;
	Datum		value = queue_message_get(message, QUEUE_COLUMN_PRIORITY, &isnull);

	return known_priority(value, isnull);
}

/* The same of one that is stored. */
int
queue_message_tuple_priority(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, QUEUE_COLUMN_PRIORITY, desc, &isnull);

	return known_priority(value, isnull);
}

void
queue_message_head(QueueMessageHead *head, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		value;

	head->id = DatumGetInt64(heap_getattr(tuple, QUEUE_COLUMN_ID, desc, &isnull));
	head->enqueued_at = DatumGetTimestampTz(heap_getattr(tuple, QUEUE_COLUMN_ENQUEUED_AT, desc, &isnull));
	value = heap_getattr(tuple, QUEUE_COLUMN_VISIBLE_AT, desc, &isnull);
	head->visible_at = isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
	value = heap_getattr(tuple, QUEUE_COLUMN_EXPIRES_AT, desc, &isnull);
	head->expires_at = isnull ? DT_NOEND : DatumGetTimestampTz(value);
	value = heap_getattr(tuple, QUEUE_COLUMN_FAILURES, desc, &isnull);
	head->failures = isnull ? 0 : DatumGetInt32(value);
	head->is_copy = !isnull;
	value = heap_getattr(tuple, QUEUE_COLUMN_MAX_ATTEMPTS, desc, &isnull);
	head->max_attempts = isnull ? -1 : DatumGetInt32(value);
}

/* By this keys are told apart; a message without a key has that of the empty one. */
uint64
queue_message_hash_key(const char *key, int length)
{
	return hash_bytes_extended((const unsigned char *) key, length, 0);
}

/* Bytes of a message as its sender counts them, uncompressed. */
Size
queue_message_size(const QueueMessage *message)
{
	Size		size = 0;

	for (int i = 1; i <= QUEUE_COLUMNS; i++)
		if (is_varlena(i) && !message->nulls[i - 1])
			size += toast_raw_datum_size(message->values[i - 1]) - VARHDRSZ;
	return size;
}

void
queue_message_check(const QueueMessage *message)
{
	Size		size = queue_message_size(message);

	if (size > (Size) queue_max_message_size * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("message is too large"),
				 errdetail("It has %zu bytes, the limit is %zu.", size,
						   (Size) queue_max_message_size * 1024),
				 errhint("Store the data elsewhere and enqueue a reference, or raise \"queue.max_message_size\".")));
}

/* Longer keys might be stored out of line, where they cannot be compared. */
#define MAX_ORDERED_KEY 512

/* Whether it can be in an ordered queue. */
void
queue_message_check_key(const QueueMessage *message)
{
	bool		isnull;
	Datum		key = queue_message_get(message, QUEUE_COLUMN_KEY, &isnull);
	Size		size = isnull ? 0 : toast_raw_datum_size(key) - VARHDRSZ;

	if (size > MAX_ORDERED_KEY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key is too long for an ordered queue"),
				 errdetail("It has %zu bytes, the limit is %d.", size, MAX_ORDERED_KEY),
				 errhint("Use a hash of it.")));
}

/*
 * Whether it is a dead letter, by the header that store_dead() gives. Headers
 * that are stored compressed or out of line say nothing: the caller may be
 * where values cannot be fetched.
 */
bool
queue_message_has_died(const QueueMessage *message)
{
	bool		isnull;
	Pointer		headers = DatumGetPointer(queue_message_get(message, QUEUE_COLUMN_HEADERS, &isnull));
	JsonbContainer *copy;
	JsonbValue	found;
	bool		has_died;

	if (isnull || VARATT_IS_EXTERNAL(headers) || VARATT_IS_COMPRESSED(headers))
		return false;
	/* On its page it may lie as no jsonb can be read. */
	copy = palloc(VARSIZE_ANY_EXHDR(headers));
	memcpy(copy, VARDATA_ANY(headers), VARSIZE_ANY_EXHDR(headers));
	has_died = JsonContainerIsObject(copy) &&
		getKeyJsonValueFromContainer(copy, QUEUE_HEADER_DEATH,
									 strlen(QUEUE_HEADER_DEATH), &found) != NULL;
	pfree(copy);
	return has_died;
}

/* Set one of the extension's own headers. */
void
queue_message_add_header(QueueMessage *message, const char *name, Jsonb *value)
{
	QueueJsonState state = {0};
	JsonbValue	key;
	JsonbValue	object;
	Datum		added;
	bool		isnull;
	Datum		headers = queue_message_get(message, QUEUE_COLUMN_HEADERS, &isnull);

	key.type = jbvString;
	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	object.type = jbvBinary;
	object.val.binary.data = &value->root;
	object.val.binary.len = VARSIZE(value) - VARHDRSZ;
	queue_compat_json_push(&state, WJB_BEGIN_OBJECT, NULL);
	queue_compat_json_push(&state, WJB_KEY, &key);
	queue_compat_json_push(&state, WJB_VALUE, &object);
	queue_compat_json_push(&state, WJB_END_OBJECT, NULL);
	added = JsonbPGetDatum(JsonbValueToJsonb(state.result));
	if (!isnull)
		added = DirectFunctionCall2(jsonb_concat, headers, added);
	queue_message_set(message, QUEUE_COLUMN_HEADERS, added);
}

/* The columns of a segment, for CREATE TABLE. In the order of QueueColumn. */
const char *
queue_message_columns_sql(void)
{
	return "id pg_catalog.int8 NOT NULL, enqueued_at pg_catalog.timestamptz NOT NULL, "
		"visible_at pg_catalog.timestamptz, expires_at pg_catalog.timestamptz, "
		"first_failed_at pg_catalog.timestamptz, last_failed_at pg_catalog.timestamptz, "
		"priority pg_catalog.int2, failures pg_catalog.int4, max_attempts pg_catalog.int4, "
		"cost pg_catalog.int4, key pg_catalog.text, unique_key pg_catalog.text, "
		"headers pg_catalog.jsonb, payload pg_catalog.jsonb, body pg_catalog.bytea, "
		"error pg_catalog.text";
}

/*
 * Whether rows of such a relation can be read as messages. Whoever may write
 * to the extension's catalog could name any relation there, so this is asked
 * each time before a page is looked at.
 */
bool
queue_message_fits(TupleDesc desc)
{
	static const Oid types[QUEUE_COLUMNS] = {
		INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		INT2OID, INT4OID, INT4OID, INT4OID, TEXTOID, TEXTOID, JSONBOID, JSONBOID, BYTEAOID, TEXTOID
	};

	if (desc->natts != QUEUE_COLUMNS)
		return false;
	for (int i = 0; i < QUEUE_COLUMNS; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped || column->atttypid != types[i] ||
			(i < QUEUE_COLUMN_VISIBLE_AT - 1 && !column->attnotnull))
			return false;
	}
	return true;
}
