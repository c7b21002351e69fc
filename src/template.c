/*
 * template.c
 *	  Text with placeholders, and where in a message their values are.
 *
 * A template is read once, into parts, and never changes afterwards. What does
 * not depend on the message is worked out then.
 *
 * A placeholder has a value if there is a scalar at its place that is not null.
 * What a message lacks is no error here: whoever expands a template decides what
 * it means. What a template is made of is in the database's encoding, what it is
 * expanded to in UTF-8.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "compat.h"
#include "template.h"

typedef enum PartKind
{
	PART_CONSTANT,
	PART_ID,
	PART_QUEUE,
	PART_KEY,
	PART_HEADER,
	PART_PAYLOAD,
} PartKind;

typedef struct QueueTemplatePart
{
	PartKind	kind;
	char	   *text;			/* a constant's, or a placeholder as written */
	QueuePath	path;
	char	   *fallback;		/* NULL: none */
} Part;

/* A template that is being read. */
typedef struct Reading
{
	const char *option;
	const char *given;
	QueueTemplate *template;
} Reading;

/* ---- values in a message ---- */

static void
add_name(QueuePath *path, const char *name, int length)
{
	path->names[path->count] = pnstrdup(name, length);
	path->lengths[path->count++] = length;
}

/* Split names at dots, or take them as one; false: a name is empty. */
bool
queue_template_read_path(QueuePath *path, const char *text, int length, bool split)
{
	const char *end = text + length;

	/* A name has a byte at least, and a dot. */
	path->names = palloc(sizeof(char *) * (length / 2 + 1));
	path->lengths = palloc(sizeof(int) * (length / 2 + 1));
	for (const char *dot; split && (dot = memchr(text, '.', end - text)); text = dot + 1)
	{
		if (dot == text)
			return false;
		add_name(path, text, dot - text);
	}
	if (text == end)
		return false;
	add_name(path, text, end - text);
	return true;
}

/* A value inside; NULL: there is none. */
JsonbValue *
queue_template_find(Jsonb *json, const QueuePath *path, JsonbValue *room)
{
	JsonbContainer *container;
	JsonbValue *found = NULL;

	if (json == NULL)
		return NULL;
	container = &json->root;
	for (int i = 0; i < path->count; i++)
	{
		if (i > 0)
		{
			if (found->type != jbvBinary)
				return NULL;
			container = found->val.binary.data;
		}
		if (JsonContainerIsObject(container))
			found = getKeyJsonValueFromContainer(container, path->names[i], path->lengths[i], room);
		else if (!JsonContainerIsScalar(container) && path->lengths[i] < 9 &&
				 strspn(path->names[i], "0123456789") == (size_t) path->lengths[i])
			found = getIthJsonbValueFromContainer(container, atoi(path->names[i]));
		else
			found = NULL;
		if (found == NULL)
			return NULL;
	}
	return found;
}

/* Append a document as JSON, a scalar as its text. False: it is null. */
bool
queue_template_append(StringInfo text, const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			appendBinaryStringInfo(text, value->val.string.val, value->val.string.len);
			return true;
		case jbvNumeric:
			appendStringInfoString(text, DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric))));
			return true;
		case jbvBool:
			appendStringInfoString(text, value->val.boolean ? "true" : "false");
			return true;
		case jbvBinary:
			JsonbToCString(text, value->val.binary.data, value->val.binary.len);
			return true;
		default:
			return false;
	}
}

/* ---- reading ---- */

QUEUE_NORETURN static void
bad_template(const Reading *reading, const char *at, const char *wrong)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"%s\": %s", reading->option, reading->given),
			 errdetail("At position %d %s.", pg_mbstrlen_with_len(reading->given, at - reading->given) + 1, wrong),
			 errhint("Placeholders are {id}, {queue}, {key}, {headers.NAME} and {payload.NAME.NAME}, with a value for when there is none: {key|none}. Braces are written twice.")));
}

static Part *
add_part(QueueTemplate *template, PartKind kind, char *text)
{
	Part	   *part = &template->parts[template->count++];

	memset(part, 0, sizeof(*part));
	part->kind = kind;
	part->text = text;
	return part;
}

/* From one brace to the other. */
static void
read_placeholder(Reading *reading, const char *open, const char *close)
{
	const char *name = open + 1;
	const char *bar = memchr(name, '|', close - name);
	int			length = (bar ? bar : close) - name;
	Part	   *part = add_part(reading->template, PART_CONSTANT, pnstrdup(open, close + 1 - open));

	if (bar)
		part->fallback = pnstrdup(bar + 1, close - bar - 1);
	if (queue_text_is_word(name, length, "id"))
		part->kind = PART_ID;
	else if (queue_text_is_word(name, length, "queue"))
		part->kind = PART_QUEUE;
	else if (queue_text_is_word(name, length, "key"))
		part->kind = PART_KEY;
	else if (queue_text_begins(name, length, "headers."))
	{
		part->kind = PART_HEADER;
		if (queue_text_begins(name, length, "headers.queue."))
			bad_template(reading, open, psprintf("\"%s\" is a header of the extension's own, which is not sent", part->text));
		if (!queue_template_read_path(&part->path, name + 8, length - 8, false))
			bad_template(reading, open, psprintf("\"%s\" names no header", part->text));
	}
	else if (queue_text_begins(name, length, "payload."))
	{
		part->kind = PART_PAYLOAD;
		if (!queue_template_read_path(&part->path, name + 8, length - 8, true))
			bad_template(reading, open, psprintf("\"%s\" has an empty name", part->text));
	}
	else
		bad_template(reading, open, psprintf("\"%s\" is no placeholder", part->text));
}

static void
flush_constant(QueueTemplate *template, StringInfo constant)
{
	if (constant->len == 0)
		return;
	add_part(template, PART_CONSTANT, pstrdup(constant->data));
	resetStringInfo(constant);
}

/* Read a template, the value of an option; an error if it is none. */
void
queue_template_read(QueueTemplate *template, const char *option, const char *given)
{
	Reading		reading = {.option = option,.given = given,.template = template};
	StringInfoData constant;

	memset(template, 0, sizeof(*template));
	/* A placeholder has two bytes at least, and a constant before it one. */
	template->parts = palloc(sizeof(Part) * (strlen(given) + 1));
	initStringInfo(&constant);
	for (const char *c = given; *c; c++)
	{
		const char *close;

		if ((*c == '{' || *c == '}') && c[1] == *c)
			appendStringInfoChar(&constant, *c++);
		else if (*c == '}')
			bad_template(&reading, c, "a brace closes nothing");
		else if (*c != '{')
			appendStringInfoChar(&constant, *c);
		else
		{
			close = strpbrk(c + 1, "{}");
			if (close == NULL || *close == '{')
				bad_template(&reading, c, "a brace is not closed");
			flush_constant(template, &constant);
			read_placeholder(&reading, c, close);
			c = close;
		}
	}
	flush_constant(template, &constant);
	pfree(constant.data);
}

/* ---- expanding ---- */

/* False: it has no value, as it is for one that is no scalar. */
static bool
append_part(StringInfo text, const QueueFetched *message, const Part *part)
{
	JsonbValue	room;
	JsonbValue *found;

	switch (part->kind)
	{
		case PART_CONSTANT:
			appendStringInfoString(text, part->text);
			return true;
		case PART_ID:
			appendStringInfo(text, INT64_FORMAT, message->id);
			return true;
		case PART_QUEUE:
			appendStringInfoString(text, message->queue);
			return true;
		case PART_KEY:
			if (message->key == NULL)
				return false;
			appendBinaryStringInfo(text, VARDATA_ANY(message->key), VARSIZE_ANY_EXHDR(message->key));
			return true;
		case PART_HEADER:
			found = queue_template_find(message->headers, &part->path, &room);
			return found && found->type != jbvBinary && queue_template_append(text, found);
		case PART_PAYLOAD:
			found = queue_template_find(message->payload, &part->path, &room);
			return found && found->type != jbvBinary && queue_template_append(text, found);
	}
	return false;
}

/* In UTF-8. NULL: a placeholder has no value and nothing instead; *lacking, if wanted, says which. */
char *
queue_template_expand(const QueueTemplate *template, const QueueFetched *message, const char **lacking)
{
	StringInfoData text;

	if (template->constant)
		return template->constant;
	initStringInfo(&text);
	for (int i = 0; i < template->count; i++)
	{
		const Part *part = &template->parts[i];

		if (append_part(&text, message, part))
			continue;
		if (part->fallback == NULL)
		{
			if (lacking)
				*lacking = part->text;
			return NULL;
		}
		appendStringInfoString(&text, part->fallback);
	}
	return queue_text_to_utf8(text.data, text.len);
}

/* Whether its constants are of such characters alone. */
bool
queue_template_allows(const QueueTemplate *template, QueueTextStays stays)
{
	for (int i = 0; i < template->count; i++)
		if (template->parts[i].kind == PART_CONSTANT)
			for (const char *c = template->parts[i].text; *c; c++)
				if (!stays(c))
					return false;
	return true;
}

/* Work out beforehand what does not depend on the message. */
void
queue_template_settle(QueueTemplate *template, const char *queue)
{
	QueueFetched none = {.queue = queue};

	for (int i = 0; i < template->count; i++)
		if (template->parts[i].kind != PART_CONSTANT && template->parts[i].kind != PART_QUEUE)
			return;
	template->constant = queue_template_expand(template, &none, NULL);
}
