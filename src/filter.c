/*
 * filter.c
 *	  Which messages a relay leaves out: a jsonpath over what a message holds.
 *
 * The server reads the path and evaluates it, over a document that is made for
 * each message. The document has only the members that the path looks at: so
 * what a filter does not name is neither fetched nor copied. A path that does
 * not name what it looks at, such as "$.*", gets all.
 *
 * A filter depends on nothing but the message, but for settings of the session
 * that the server's time functions look at.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "compat.h"
#include "filter.h"
#include "options.h"

/* Bytes of a filter. */
#define MAX_FILTER 10000

/* Members of the document that a filter sees. */
typedef enum Member
{
	MEMBER_ID,
	MEMBER_QUEUE,
	MEMBER_KEY,
	MEMBER_PRIORITY,
	MEMBER_HEADERS,
	MEMBER_PAYLOAD,
	MEMBER_ENQUEUED_AT,
} Member;

static const char *const members[] = {
	"id", "queue", "key", "priority", "headers", "payload", "enqueued_at"
};

struct QueueFilter
{
	Datum		path;			/* as the server reads it */
	int			uses;			/* bits of members */
	Datum		no_variables;
};

#define USES(filter, member) (((filter)->uses & (1 << (member))) != 0)

/* ---- reading ---- */

static void
read_jsonpath(QueueFilter *filter, const JsonbValue *given, char *text)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		filter->path = DirectFunctionCall1(jsonpath_in, CStringGetDatum(text));
	}
	PG_CATCH();
	{
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION &&
			geterrcode() != ERRCODE_SYNTAX_ERROR && geterrcode() != ERRCODE_FEATURE_NOT_SUPPORTED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	if (error)
		queue_options_bad_value("filter", given, psprintf("a jsonpath; the server says: %s", error->message));
}

/*
 * Which members a filter looks at, so that no others need be there. As the server
 * writes a path, names are in quotes, and $"name" is a variable.
 */
static void
read_uses(QueueFilter *filter, const JsonbValue *given)
{
	const char *c = DatumGetCString(DirectFunctionCall1(jsonpath_out, filter->path));

	for (; *c; c++)
	{
		if (*c == '"')
		{
			for (c++; *c != '"'; c++)
				if (*c == '\\')
					c++;
		}
		else if (*c == '$' && c[1] == '"')
			queue_options_bad_value("filter", given, "a jsonpath without variables");
		else if (*c == '$' && strncmp(c + 1, ".\"", 2) != 0)
			filter->uses = -1;
		else if (*c == '$')
			for (int i = 0; i < (int) lengthof(members); i++)
				if (strncmp(c + 3, members[i], strlen(members[i])) == 0 && c[3 + strlen(members[i])] == '"')
					filter->uses |= 1 << i;
	}
}

/* Read the filter among a relay's options; NULL: there is none. */
QueueFilter *
queue_filter_read(Jsonb *options)
{
	JsonbValue *given = queue_options_get(options, "filter");
	char	   *text = queue_options_get_text(options, "filter", MAX_FILTER);
	QueueFilter *filter;
	QueueJsonState state = {0};

	if (text == NULL)
		return NULL;
	filter = palloc0(sizeof(QueueFilter));
	read_jsonpath(filter, given, text);
	read_uses(filter, given);
	queue_compat_json_push(&state, WJB_BEGIN_OBJECT, NULL);
	queue_compat_json_push(&state, WJB_END_OBJECT, NULL);
	filter->no_variables = JsonbPGetDatum(JsonbValueToJsonb(state.result));
	return filter;
}

/* Whether a payload has to be there, of a message that has one. */
bool
queue_filter_uses_payload(const QueueFilter *filter)
{
	return USES(filter, MEMBER_PAYLOAD);
}

/* ---- matching ---- */

static void
push_member(QueueJsonState *state, Member member, JsonbValue *value)
{
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = unconstify(char *, members[member]);
	key.val.string.len = strlen(members[member]);
	queue_compat_json_push(state, WJB_KEY, &key);
	queue_compat_json_push(state, WJB_VALUE, value);
}

/* NULL, in these: null. */
static void
push_text(QueueJsonState *state, Member member, const char *text, int length)
{
	JsonbValue	value;

	value.type = text ? jbvString : jbvNull;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = length;
	push_member(state, member, &value);
}

static void
push_number(QueueJsonState *state, Member member, int64 number)
{
	JsonbValue	value;

	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(number);
	push_member(state, member, &value);
}

static void
push_json(QueueJsonState *state, Member member, Jsonb *json)
{
	JsonbValue	value;

	value.type = jbvNull;
	if (json)
	{
		value.type = jbvBinary;
		value.val.binary.data = &json->root;
		value.val.binary.len = VARSIZE(json) - VARHDRSZ;
	}
	push_member(state, member, &value);
}

/* The message, as far as the filter looks at it. */
static Datum
document(const QueueFilter *filter, const QueueFetched *message)
{
	QueueJsonState state = {0};
	char		time[QUEUE_TEXT_TIME];
	bool		has_time;

	queue_compat_json_push(&state, WJB_BEGIN_OBJECT, NULL);
	if (USES(filter, MEMBER_ID))
		push_number(&state, MEMBER_ID, message->id);
	if (USES(filter, MEMBER_QUEUE))
		push_text(&state, MEMBER_QUEUE, message->queue, strlen(message->queue));
	if (USES(filter, MEMBER_KEY))
		push_text(&state, MEMBER_KEY, message->key ? VARDATA_ANY(message->key) : NULL,
				  message->key ? VARSIZE_ANY_EXHDR(message->key) : 0);
	if (USES(filter, MEMBER_PRIORITY))
		push_number(&state, MEMBER_PRIORITY, message->priority);
	if (USES(filter, MEMBER_HEADERS))
		push_json(&state, MEMBER_HEADERS, message->headers);
	if (USES(filter, MEMBER_PAYLOAD))
		push_json(&state, MEMBER_PAYLOAD, message->payload);
	if (USES(filter, MEMBER_ENQUEUED_AT))
	{
		/* With the zone that a jsonpath's datetime() can read. */
		has_time = queue_text_write_time(time, message->enqueued_at, "+00:00");
		push_text(&state, MEMBER_ENQUEUED_AT, has_time ? time : NULL, has_time ? strlen(time) : 0);
	}
	queue_compat_json_push(&state, WJB_END_OBJECT, NULL);
	return JsonbPGetDatum(JsonbValueToJsonb(state.result));
}

/*
 * Whether a message passes. A boolean decides; null is an unknown one, no match.
 * Anything else is a match. The function with time zones has errors that cannot
 * be silenced in fewer cases; they are the caller's to catch.
 */
bool
queue_filter_match(const QueueFilter *filter, const QueueFetched *message)
{
	LOCAL_FCINFO(fcinfo, 4);
	Datum		found;
	JsonbValue	value;

	InitFunctionCallInfoData(*fcinfo, NULL, 4, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = document(filter, message);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = filter->path;
	fcinfo->args[1].isnull = false;
	fcinfo->args[2].value = filter->no_variables;
	fcinfo->args[2].isnull = false;
	fcinfo->args[3].value = BoolGetDatum(true);
	fcinfo->args[3].isnull = false;
	found = jsonb_path_query_first_tz(fcinfo);
	if (fcinfo->isnull)
		return false;
	return !(JB_ROOT_IS_SCALAR(DatumGetJsonbP(found)) &&
			 JsonbExtractScalar(&DatumGetJsonbP(found)->root, &value) &&
			 (value.type == jbvNull || (value.type == jbvBool && !value.val.boolean)));
}
