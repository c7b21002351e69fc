/*
 * mapping.c
 *	  Where in a message a relay finds what it sends: attributes, body, headers.
 *
 * A relay's options are read once. For each attribute there is a template, or
 * none, and it is as without the option; what is given by itself goes before
 * what the mapping says of it. "debezium" is a mapping like any other, for the
 * columns of Debezium's outbox table, but for two headers that it adds.
 *
 * Errors are about options, and name them. That a message lacks something is a
 * result.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "compat.h"
#include "guc.h"
#include "mapping.h"
#include "options.h"

/* Bytes of a template. */
#define MAX_TEMPLATE 1000

typedef struct AttributeRow
{
	const char *name;
	bool		option;			/* by itself, besides in the mapping */
	bool		required;		/* a placeholder without value breaks the message */
	bool		may_be_empty;
	const char *missing;
	const char *debezium;
} AttributeRow;

static const AttributeRow attributes[QUEUE_ATTRIBUTES] = {
	{"id", false, true, false, NULL, "{payload.id}"},
	{"source", true, true, false, NULL, NULL},
	{"type", true, true, false, "{headers.type|queue.message}", "{payload.type}"},
	{"subject", true, false, true, NULL, NULL},
	{"time", false, false, false, NULL, NULL},
	{"key", false, false, true, NULL, "{payload.aggregateid}"},
	{"target", true, true, true, NULL, "outbox.event.{payload.aggregatetype}"},
};

static const QueueJsonKey mapping_keys[] = {
	{"id", true}, {"source", true}, {"type", true}, {"subject", true}, {"time", true}, {"key", true},
	{"target", true}, {"body", true}, {"headers", true}, {NULL, false}
};

/* ---- reading ---- */

QUEUE_NORETURN static void
bad_text(const char *option, const char *text, const char *expected)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = strlen(text);
	queue_options_bad_value(option, &value, expected);
}

/* The text of a template. */
static char *
text_of(const JsonbValue *value, const char *option)
{
	if (value->type != jbvString || value->val.string.len > MAX_TEMPLATE)
		queue_options_bad_value(option, value, psprintf("text of at most %d bytes", MAX_TEMPLATE));
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static void
set_template(QueueMapping *mapping, QueueAttribute attribute, const char *option, const char *text)
{
	QueueTemplate *template = palloc(sizeof(QueueTemplate));

	if (*text == '\0' && !attributes[attribute].may_be_empty)
		bad_text(option, text, "text that is not empty");
	queue_template_read(template, option, text);
	if (attribute == QUEUE_ATTRIBUTE_SOURCE && !queue_template_allows(template, queue_text_is_uri))
		bad_text(option, text, "a URI reference such as \"/shop/orders\"");
	queue_template_settle(template, mapping->queue);
	if (attribute == QUEUE_ATTRIBUTE_SOURCE && template->constant)
		template->constant = queue_text_encode(template->constant, queue_text_is_uri);
	mapping->templates[attribute] = template;
}

/* The part of the payload that is the body. */
static void
read_body(QueueMapping *mapping, const char *text)
{
	if (strcmp(text, "payload") == 0)
		return;
	mapping->body = palloc0(sizeof(QueuePath));
	if (!queue_text_begins(text, strlen(text), "payload.") ||
		!queue_template_read_path(mapping->body, text + 8, strlen(text) - 8, true))
		bad_text("mapping.body", text, "a path such as \"payload.data\"");
}

static void
read_header(QueueMapping *mapping, const JsonbValue *name, const JsonbValue *value)
{
	QueueMappedHeader *header = &mapping->headers[mapping->header_count++];
	char	   *given = pnstrdup(name->val.string.val, name->val.string.len);
	const char *option = psprintf("mapping.headers.%s", given);

	if (!queue_text_is_token(given, name->val.string.len))
		bad_text("mapping.headers", given, "names of HTTP headers");
	header->name = queue_text_fold(given, name->val.string.len);
	if (strcmp(header->name, "content-type") == 0 || queue_text_begins(header->name, strlen(header->name), "queue."))
		bad_text("mapping.headers", given, "headers other than content-type and the extension's own");
	queue_template_read(&header->value, option, text_of(value, option));
	queue_template_settle(&header->value, mapping->queue);
}

static void
read_headers(QueueMapping *mapping, const JsonbValue *value)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	item;
	JsonbValue	name = {0};

	if (value == NULL)
		return;
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data) ||
		JsonContainerSize(value->val.binary.data) > QUEUE_MAPPING_HEADERS)
		queue_options_bad_value("mapping.headers", value,
								psprintf("an object of at most %d templates by name", QUEUE_MAPPING_HEADERS));
	mapping->headers = palloc0(sizeof(QueueMappedHeader) * (JsonContainerSize(value->val.binary.data) + 1));
	it = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &item, true)) != WJB_DONE)
		if (token == WJB_KEY)
			name = item;
		else if (token == WJB_VALUE && item.type != jbvNull)
			read_header(mapping, &name, &item);
}

static void
read_debezium(QueueMapping *mapping)
{
	mapping->debezium = true;
	for (int i = 0; i < QUEUE_ATTRIBUTES; i++)
		if (attributes[i].debezium)
			set_template(mapping, i, "mapping", attributes[i].debezium);
	read_body(mapping, "payload.payload");
}

static void
read_mapping(QueueMapping *mapping, JsonbValue *given)
{
	Jsonb	   *members;
	JsonbValue *value;

	if (given == NULL)
		return;
	if (given->type == jbvString && queue_text_is_word(given->val.string.val, given->val.string.len, "debezium"))
	{
		read_debezium(mapping);
		return;
	}
	if (given->type != jbvBinary || !JsonContainerIsObject(given->val.binary.data))
		queue_options_bad_value("mapping", given, "\"debezium\" or an object");
	members = JsonbValueToJsonb(given);
	queue_options_check_keys(members, mapping_keys, "the mapping of a relay");
	for (int i = 0; i < QUEUE_ATTRIBUTES; i++)
	{
		const char *option = psprintf("mapping.%s", attributes[i].name);

		value = queue_options_get(members, attributes[i].name);
		if (value)
			set_template(mapping, i, option, text_of(value, option));
	}
	value = queue_options_get(members, "body");
	if (value)
		read_body(mapping, text_of(value, "mapping.body"));
	read_headers(mapping, queue_options_get(members, "headers"));
}

/* Options of an attribute by itself, which go before the mapping's, and what it is without either. */
static void
read_attributes(QueueMapping *mapping, Jsonb *options)
{
	for (int i = 0; i < QUEUE_ATTRIBUTES; i++)
	{
		const char *name = attributes[i].name;
		char	   *text = attributes[i].option ? queue_options_get_text(options, name, MAX_TEMPLATE) : NULL;

		if (text)
			set_template(mapping, i, name, text);
		else if (mapping->templates[i] == NULL && attributes[i].missing)
			set_template(mapping, i, name, attributes[i].missing);
	}
	if (mapping->templates[QUEUE_ATTRIBUTE_SOURCE] == NULL)
	{
		QueueTemplate *template = palloc0(sizeof(QueueTemplate));

		template->constant = psprintf("/queue/%s", queue_text_encode(mapping->queue_utf8, queue_text_is_unreserved));
		mapping->templates[QUEUE_ATTRIBUTE_SOURCE] = template;
	}
}

/* Read a relay's options, those of them that say where something is; NULL: it has none. */
QueueMapping *
queue_mapping_read(Jsonb *options, const char *queue)
{
	QueueMapping *mapping = palloc0(sizeof(QueueMapping));

	mapping->queue = pstrdup(queue);
	mapping->queue_utf8 = queue_text_to_utf8(mapping->queue, strlen(queue));
	read_mapping(mapping, queue_options_get(options, "mapping"));
	read_attributes(mapping, options);
	return mapping;
}

/* ---- a message ---- */

/* What a message has for an attribute by itself; NULL: nothing. */
static char *
own_value(QueueAttribute attribute, const QueueFetched *message, char **problem)
{
	char	   *value;

	switch (attribute)
	{
		case QUEUE_ATTRIBUTE_ID:
			return psprintf(INT64_FORMAT "-%llx", message->id, (unsigned long long) message->enqueued_at);
		case QUEUE_ATTRIBUTE_KEY:
			if (message->key == NULL)
				return NULL;
			value = text_to_cstring(message->key);
			return queue_text_to_utf8(value, strlen(value));
		case QUEUE_ATTRIBUTE_TIME:
			value = palloc(QUEUE_TEXT_TIME);
			if (queue_text_write_time(value, message->enqueued_at, "Z"))
				return value;
			*problem = pstrdup("time is out of range");
			return NULL;
		default:
			return NULL;
	}
}

/*
 * What a message has for an attribute, in UTF-8: as its template says, and by itself
 * where that finds nothing. *value is NULL when it has nothing. False: without it the
 * message cannot be sent; *problem says why.
 */
bool
queue_mapping_take(const QueueMapping *mapping, QueueAttribute attribute, const QueueFetched *message,
				   char **value, char **problem)
{
	const QueueTemplate *template = mapping->templates[attribute];
	const AttributeRow *row = &attributes[attribute];
	const char *lacking = NULL;

	*problem = NULL;
	*value = template ? queue_template_expand(template, message, &lacking) : NULL;
	if (*value == NULL && template && row->required)
		*problem = psprintf("%s cannot be told: \"%s\" has no scalar value", row->name, lacking);
	else if (*value == NULL)
		*value = own_value(attribute, message, problem);
	else if (**value == '\0' && !row->may_be_empty)
		*problem = psprintf("%s is empty", row->name);
	else if (attribute == QUEUE_ATTRIBUTE_TIME && !queue_text_is_time(*value))
		*problem = pstrdup("time is not in the form of RFC 3339");
	else if (attribute == QUEUE_ATTRIBUTE_SOURCE && template->constant == NULL)
		*value = queue_text_encode(*value, queue_text_is_uri);
	if (*value && **value == '\0')
		*value = NULL;
	return *problem == NULL;
}

/* What Debezium's column holds, the value itself or a list of properties; NULL: none. */
char *
queue_mapping_traceparent(const QueueMapping *mapping, const QueueFetched *message)
{
	static const char *const column[] = {"tracingspancontext"};
	int			length = strlen(column[0]);
	QueuePath	path = {.count = 1,.names = (char **) column,.lengths = &length};
	JsonbValue	room;
	JsonbValue *found = mapping->debezium ? queue_template_find(message->payload, &path, &room) : NULL;
	char	   *text;
	char	   *line;

	if (found == NULL || found->type != jbvString)
		return NULL;
	text = pnstrdup(found->val.string.val, found->val.string.len);
	if (queue_guc_is_traceparent(text))
		return text;
	line = strstr(text, "traceparent=");
	if (line == NULL || (line > text && line[-1] != '\n'))
		return NULL;
	line += strlen("traceparent=");
	line[strcspn(line, " \t\r\n")] = '\0';
	return queue_guc_is_traceparent(line) ? line : NULL;
}
