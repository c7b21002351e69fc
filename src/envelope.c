/*
 * envelope.c
 *	  Makes of a message what a relay sends.
 *
 * What is made of a message depends on nothing but the rules, which are a relay's
 * options as they were read, and the message: so every attempt sends the same
 * bytes.
 *
 * A message that does not fit the rules is broken; that is a result, not an
 * error, also where a function of the server raises one for what the message
 * holds (a character that UTF-8 lacks, a document of more than 1 GB). Such
 * functions hold nothing that a savepoint would have to give back. Values out of
 * line are fetched first: what fails there is no fault of the message.
 *
 * Takes no lock but those of fetching, and changes nothing. Memory is left to the
 * caller's context.
 */
#include "postgres.h"

#include "common/base64.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "envelope.h"
#include "filter.h"
#include "mapping.h"

/* Bytes of what is said of a broken message. */
#define MAX_PROBLEM 500

/* False, for a chain of steps that ends with the first problem. */
#define BROKEN(making, ...) ((making)->problem = psprintf(__VA_ARGS__), false)

struct QueueEnvelopeRules
{
	QueueFormat format;
	QueueFilter *filter;		/* NULL: none */
	QueueMapping *mapping;
};

typedef enum BodyKind
{
	BODY_JSON,
	BODY_TEXT,
	BODY_BYTES,
} BodyKind;

/* An envelope in the making. */
typedef struct Making
{
	const QueueEnvelopeRules *rules;
	QueueEnvelope *envelope;
	QueueFetched fetched;
	bytea	   *body;			/* NULL: the message has none */
	BodyKind	body_kind;
	char	   *content_type;	/* its header, in UTF-8 */
	char	   *values[QUEUE_ATTRIBUTES];	/* in UTF-8 */
	char	   *problem;
	QueueEnvelopeResult result;
} Making;

const QueueJsonKey queue_envelope_keys[] = {
	{"format", true}, {"source", true}, {"type", true}, {"subject", true}, {"target", true},
	{"filter", true}, {"mapping", true}, {NULL, false}
};

static QueueFormat
read_format(Jsonb *options)
{
	static const char *const names[] = {"cloudevents", "cloudevents_structured", "plain"};
	JsonbValue *value = queue_options_get(options, "format");

	if (value == NULL)
		return QUEUE_FORMAT_CLOUDEVENTS;
	for (int i = 0; i < (int) lengthof(names); i++)
		if (value->type == jbvString && queue_text_is_word(value->val.string.val, value->val.string.len, names[i]))
			return (QueueFormat) i;
	queue_options_bad_value("format", value, "one of cloudevents, cloudevents_structured, plain");
}

/* Read a relay's options, those of them that are the envelope's; NULL: it has none. */
QueueEnvelopeRules *
queue_envelope_rules(Jsonb *options, const char *queue)
{
	QueueEnvelopeRules *rules = palloc(sizeof(QueueEnvelopeRules));

	rules->format = read_format(options);
	rules->filter = queue_filter_read(options);
	rules->mapping = queue_mapping_read(options, queue);
	return rules;
}

/* ---- headers ---- */

static bool
has_line_break(const char *value)
{
	return strpbrk(value, "\r\n") != NULL;
}

/* Set a header; both are in UTF-8, and there is room. */
static bool
set_header(Making *making, const char *name, const char *value)
{
	QueueEnvelope *envelope = making->envelope;
	int			i = 0;

	if (has_line_break(value))
		return BROKEN(making, "header \"%s\" has a line break", name);
	while (i < envelope->header_count && strcmp(envelope->headers[i].name, name) != 0)
		i++;
	if (i == envelope->header_count)
		envelope->header_count++;
	envelope->headers[i].name = unconstify(char *, name);
	envelope->headers[i].value = unconstify(char *, value);
	return true;
}

/* Of a value that is not null. */
static char *
header_text(const JsonbValue *value)
{
	StringInfoData text;

	initStringInfo(&text);
	(void) queue_template_append(&text, value);
	return queue_text_to_utf8(text.data, text.len);
}

/* Attributes that are the relay's to give, or that have another place. */
static bool
is_given_attribute(const char *name)
{
	static const char *const names[] = {
		"ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time", "ce-datacontenttype"
	};

	for (int i = 0; i < (int) lengthof(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

/* One of the message's, or of the mapping's. */
static bool
add_header(Making *making, const char *name, const char *value)
{
	if (making->rules->format != QUEUE_FORMAT_PLAIN && is_given_attribute(name))
		return true;
	return set_header(making, name, value);
}

static bool
add_message_header(Making *making, const JsonbValue *name, const JsonbValue *value)
{
	char	   *folded;
	char	   *text;

	if (value->type == jbvNull)
		return true;
	if (!queue_text_is_token(name->val.string.val, name->val.string.len))
		return BROKEN(making, "header \"%.*s\" cannot be sent: its name is not one of HTTP", name->val.string.len, name->val.string.val);
	folded = queue_text_fold(name->val.string.val, name->val.string.len);
	if (strncmp(folded, "queue.", 6) == 0)
		return true;
	text = header_text(value);
	if (strcmp(folded, "content-type") != 0)
		return add_header(making, folded, text);
	if (has_line_break(text))
		return BROKEN(making, "header \"%s\" has a line break", folded);
	making->content_type = *text ? text : NULL;
	return true;
}

/* Those of names that differ in case only: the last one, in jsonb's order, wins. */
static bool
add_message_headers(Making *making)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	item;
	JsonbValue	name = {0};

	if (making->fetched.headers == NULL)
		return true;
	it = JsonbIteratorInit(&making->fetched.headers->root);
	while ((token = JsonbIteratorNext(&it, &item, true)) != WJB_DONE)
		if (token == WJB_KEY)
			name = item;
		else if (token == WJB_VALUE && !add_message_header(making, &name, &item))
			return false;
	return true;
}

static bool
add_mapped_headers(Making *making)
{
	const QueueMapping *mapping = making->rules->mapping;
	char	   *traceparent;

	for (int i = 0; i < mapping->header_count; i++)
	{
		char	   *value = queue_template_expand(&mapping->headers[i].value, &making->fetched, NULL);

		if (value && !add_header(making, mapping->headers[i].name, value))
			return false;
	}
	if (mapping->debezium && !set_header(making, "id", making->values[QUEUE_ATTRIBUTE_ID]))
		return false;
	traceparent = queue_mapping_traceparent(mapping, &making->fetched);
	return traceparent == NULL || set_header(making, "traceparent", traceparent);
}

static bool
add_headers(Making *making)
{
	int			count = making->fetched.headers ? JsonContainerSize(&making->fetched.headers->root) : 0;

	if (count > QUEUE_MAPPING_HEADERS)
		return BROKEN(making, "message has %d headers, the limit is %d", count, QUEUE_MAPPING_HEADERS);
	/* Besides: id, traceparent, 7 attributes, queue-id, queue-name. */
	making->envelope->headers = palloc(sizeof(QueueEnvelopeHeader) * (count + making->rules->mapping->header_count + 11));
	return add_message_headers(making) && add_mapped_headers(making);
}

/* ---- the body ---- */

/* Text that holds an object or an array is a document; whatever else it holds is text. */
static void
check_document(Making *making)
{
	const char *text = making->envelope->body;

	text += strspn(text, " \t\r\n");
	making->body_kind = BODY_TEXT;
	if (*text != '{' && *text != '[')
		return;
	DirectFunctionCall1(json_in, CStringGetDatum(text));
	making->body_kind = BODY_JSON;
}

/*
 * Do a step that functions of the server may end with an error. True: it was done, else
 * the message is to blame, and *error says for what.
 */
static bool
attempt_step(Making *making, void (*step) (Making *), ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool done = true;

	PG_TRY();
	{
		step(making);
	}
	PG_CATCH();
	{
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION &&
			ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
		done = false;
	}
	PG_END_TRY();
	return done;
}

/*
 * The part of a payload that is the body. JSON stays as it is, but a string is sent
 * as its text: tables of events often keep documents as text, and who reads them
 * does not expect them in quotes.
 */
static bool
take_body_part(Making *making, StringInfo text)
{
	JsonbValue	room;
	JsonbValue *found = queue_template_find(making->fetched.payload, making->rules->mapping->body, &room);
	ErrorData  *no_document;

	if (found == NULL)
		return BROKEN(making, "there is no part of the payload that is to be the body");
	if (!queue_template_append(text, found))
		appendStringInfoString(text, "null");
	if (found->type == jbvString)
	{
		making->envelope->body = text->data;
		attempt_step(making, check_document, &no_document);
	}
	return true;
}

static bool
take_payload(Making *making)
{
	QueueEnvelope *envelope = making->envelope;
	Jsonb	   *payload = making->fetched.payload;
	StringInfoData text;

	making->body_kind = BODY_JSON;
	initStringInfo(&text);
	if (making->rules->mapping->body == NULL)
		JsonbToCString(&text, &payload->root, VARSIZE(payload));
	else if (!take_body_part(making, &text))
		return false;
	envelope->body = queue_text_to_utf8(text.data, text.len);
	envelope->body_length = envelope->body == text.data ? text.len : (int) strlen(envelope->body);
	return true;
}

static bool
take_bytes(Making *making)
{
	QueueEnvelope *envelope = making->envelope;

	if (making->rules->mapping->body)
		return BROKEN(making, "there is no payload of which a part is to be the body");
	making->body_kind = BODY_BYTES;
	envelope->body = making->body ? VARDATA_ANY(making->body) : pstrdup("");
	envelope->body_length = making->body ? VARSIZE_ANY_EXHDR(making->body) : 0;
	return true;
}

static bool
take_body(Making *making)
{
	QueueEnvelope *envelope = making->envelope;

	if (!(making->fetched.payload ? take_payload(making) : take_bytes(making)))
		return false;
	if (making->body_kind == BODY_JSON)
		envelope->content_type = pstrdup("application/json");
	else if (making->content_type)
		envelope->content_type = making->content_type;
	else
		envelope->content_type = pstrdup(making->body_kind == BODY_TEXT ? "text/plain; charset=utf-8"
										 : "application/octet-stream");
	return true;
}

/* ---- attributes ---- */

static bool
take_attribute(Making *making, QueueAttribute attribute)
{
	return queue_mapping_take(making->rules->mapping, attribute, &making->fetched,
							  &making->values[attribute], &making->problem);
}

/* What sinks are told besides headers and body. */
static bool
take_address(Making *making)
{
	QueueEnvelope *envelope = making->envelope;
	char	   *target;

	if (!take_attribute(making, QUEUE_ATTRIBUTE_ID) || !take_attribute(making, QUEUE_ATTRIBUTE_KEY) ||
		!take_attribute(making, QUEUE_ATTRIBUTE_TARGET))
		return false;
	target = making->values[QUEUE_ATTRIBUTE_TARGET];
	if (target && has_line_break(target))
		return BROKEN(making, "target has a line break");
	envelope->id = queue_text_encode(making->values[QUEUE_ATTRIBUTE_ID], queue_text_is_id);
	envelope->key = making->values[QUEUE_ATTRIBUTE_KEY];
	envelope->target = target ? target : pstrdup("");
	return true;
}

/* What CloudEvents wants besides. */
static bool
take_event(Making *making)
{
	return take_attribute(making, QUEUE_ATTRIBUTE_SOURCE) && take_attribute(making, QUEUE_ATTRIBUTE_TYPE) &&
		take_attribute(making, QUEUE_ATTRIBUTE_SUBJECT) && take_attribute(making, QUEUE_ATTRIBUTE_TIME);
}

/* ---- formats ---- */

static bool
set_attribute(Making *making, const char *name, QueueAttribute attribute)
{
	return making->values[attribute] == NULL || set_header(making, name, making->values[attribute]);
}

static bool
finish_binary(Making *making)
{
	return take_event(making) &&
		set_header(making, "ce-specversion", "1.0") &&
		set_attribute(making, "ce-id", QUEUE_ATTRIBUTE_ID) &&
		set_attribute(making, "ce-source", QUEUE_ATTRIBUTE_SOURCE) &&
		set_attribute(making, "ce-type", QUEUE_ATTRIBUTE_TYPE) &&
		set_attribute(making, "ce-time", QUEUE_ATTRIBUTE_TIME) &&
		set_attribute(making, "ce-subject", QUEUE_ATTRIBUTE_SUBJECT) &&
		set_attribute(making, "ce-partitionkey", QUEUE_ATTRIBUTE_KEY);
}

/* What the database itself calls it. */
static bool
add_own_headers(Making *making)
{
	char	   *id = palloc(MAXINT8LEN + 1);

	pg_lltoa(making->fetched.id, id);
	return set_header(making, "queue-id", id) && set_header(making, "queue-name", making->rules->mapping->queue_utf8);
}

static void
append_member(StringInfo document, const char *name, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(document, "%s\"%s\":", document->len > 1 ? "," : "", name);
	escape_json(document, value);
}

/* Whether a header, which is none of those that are given, is an attribute of an event. */
static bool
is_attribute(const char *header)
{
	const char *name = header + 3;

	return strncmp(header, "ce-", 3) == 0 && *name && strcmp(name, "data") != 0 &&
		strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789") == strlen(name);
}

/* Headers that are attributes become members of the document. */
static void
move_attributes(Making *making, StringInfo document)
{
	QueueEnvelope *envelope = making->envelope;
	int			kept = 0;

	for (int i = 0; i < envelope->header_count; i++)
	{
		QueueEnvelopeHeader *header = &envelope->headers[i];

		if (!is_attribute(header->name))
			envelope->headers[kept++] = *header;
		else if (!(strcmp(header->name, "ce-subject") == 0 && making->values[QUEUE_ATTRIBUTE_SUBJECT]) &&
				 !(strcmp(header->name, "ce-partitionkey") == 0 && making->values[QUEUE_ATTRIBUTE_KEY]))
			append_member(document, header->name + 3, header->value);
	}
	envelope->header_count = kept;
}

static void
append_data(Making *making, StringInfo document)
{
	QueueEnvelope *envelope = making->envelope;
	int			room;
	int			length;

	if (making->body_kind == BODY_TEXT)
		append_member(document, "data", envelope->body);
	else if (making->body_kind == BODY_JSON)
	{
		appendStringInfoString(document, ",\"data\":");
		appendBinaryStringInfo(document, envelope->body, envelope->body_length);
	}
	else
	{
		appendStringInfoString(document, ",\"data_base64\":\"");
		room = pg_b64_enc_len(envelope->body_length);
		enlargeStringInfo(document, room + 1);
		/* Its type of a byte differs between versions. */
		length = pg_b64_encode((const void *) envelope->body, envelope->body_length, document->data + document->len, room);
		document->len += Max(length, 0);
		appendStringInfoChar(document, '"');
	}
}

static bool
finish_structured(Making *making)
{
	QueueEnvelope *envelope = making->envelope;
	StringInfoData document;

	if (!take_event(making))
		return false;
	initStringInfo(&document);
	appendStringInfoChar(&document, '{');
	append_member(&document, "specversion", "1.0");
	append_member(&document, "id", making->values[QUEUE_ATTRIBUTE_ID]);
	append_member(&document, "source", making->values[QUEUE_ATTRIBUTE_SOURCE]);
	append_member(&document, "type", making->values[QUEUE_ATTRIBUTE_TYPE]);
	append_member(&document, "time", making->values[QUEUE_ATTRIBUTE_TIME]);
	append_member(&document, "subject", making->values[QUEUE_ATTRIBUTE_SUBJECT]);
	append_member(&document, "partitionkey", making->values[QUEUE_ATTRIBUTE_KEY]);
	append_member(&document, "datacontenttype", envelope->content_type);
	move_attributes(making, &document);
	append_data(making, &document);
	appendStringInfoChar(&document, '}');
	envelope->body = document.data;
	envelope->body_length = document.len;
	envelope->content_type = pstrdup("application/cloudevents+json");
	return true;
}

static void
make_envelope(Making *making)
{
	bool		made = take_address(making) && add_headers(making) && take_body(making);

	switch (making->rules->format)
	{
		case QUEUE_FORMAT_CLOUDEVENTS:
			made = made && finish_binary(making) && add_own_headers(making);
			break;
		case QUEUE_FORMAT_CLOUDEVENTS_STRUCTURED:
			made = made && finish_structured(making);
			break;
		case QUEUE_FORMAT_PLAIN:
			made = made && add_own_headers(making);
			break;
	}
	making->result = made ? QUEUE_ENVELOPE_OK : QUEUE_ENVELOPE_BROKEN;
}

/* ---- messages ---- */

/* A value, fetched; NULL: there is none. A jsonb is to be aligned. */
static void *
fetch(const QueueMessage *message, QueueColumn column)
{
	bool		isnull;
	Datum		value = queue_message_get(message, column, &isnull);

	if (isnull)
		return NULL;
	return column == QUEUE_COLUMN_HEADERS || column == QUEUE_COLUMN_PAYLOAD
		? PG_DETOAST_DATUM(value) : PG_DETOAST_DATUM_PACKED(value);
}

static void
take_head(Making *making, const QueueMessage *message)
{
	QueueFetched *fetched = &making->fetched;
	bool		isnull;

	fetched->queue = making->rules->mapping->queue;
	fetched->priority = queue_message_priority(message);
	fetched->id = DatumGetInt64(queue_message_get(message, QUEUE_COLUMN_ID, &isnull));
	fetched->enqueued_at = DatumGetTimestampTz(queue_message_get(message, QUEUE_COLUMN_ENQUEUED_AT, &isnull));
	fetched->key = fetch(message, QUEUE_COLUMN_KEY);
	fetched->headers = fetch(message, QUEUE_COLUMN_HEADERS);
	if (fetched->headers && !JB_ROOT_IS_OBJECT(fetched->headers))
		fetched->headers = NULL;
}

static void
apply_filter(Making *making)
{
	making->result = queue_filter_match(making->rules->filter, &making->fetched) ? QUEUE_ENVELOPE_OK
		: QUEUE_ENVELOPE_NO_MATCH;
}

/* What it has an error with does not match. */
static bool
passes_filter(Making *making, const QueueMessage *message)
{
	const QueueFilter *filter = making->rules->filter;
	ErrorData  *error;

	if (filter == NULL)
		return true;
	/* What a filter does not look at is not fetched for those that it leaves out. */
	if (queue_filter_uses_payload(filter))
		making->fetched.payload = fetch(message, QUEUE_COLUMN_PAYLOAD);
	return attempt_step(making, apply_filter, &error) && making->result == QUEUE_ENVELOPE_OK;
}

/* Make an envelope. It is the same at every attempt, whose number is the sink's to tell. */
QueueEnvelopeResult
queue_envelope_make(const QueueEnvelopeRules *rules, QueueMessage *message, QueueEnvelope *envelope, char **problem)
{
	Making		making = {.rules = rules,.envelope = envelope};
	ErrorData  *error;

	memset(envelope, 0, sizeof(*envelope));
	*problem = NULL;
	take_head(&making, message);
	if (!passes_filter(&making, message))
		return QUEUE_ENVELOPE_NO_MATCH;
	if (making.fetched.payload == NULL)
		making.fetched.payload = fetch(message, QUEUE_COLUMN_PAYLOAD);
	making.body = fetch(message, QUEUE_COLUMN_BODY);
	if (!attempt_step(&making, make_envelope, &error))
	{
		making.result = QUEUE_ENVELOPE_BROKEN;
		making.problem = error->message;
	}
	if (making.result == QUEUE_ENVELOPE_BROKEN)
		*problem = queue_text_shorten(making.problem, MAX_PROBLEM);
	return making.result;
}
