/*
 * options.c
 *	  Reads options, of a queue and of a call, from jsonb.
 *
 * One table describes every option of a queue; the view queue.options shows
 * it. Keys are checked strictly: nothing is accepted and ignored.
 */
#include "postgres.h"

#include <math.h>

#include "common/pg_prng.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "error.h"
#include "options.h"

typedef enum OptionType
{
	OPTION_BOOLEAN,
	OPTION_INTEGER,
	OPTION_NUMBER,
	OPTION_INTERVAL,
	OPTION_SIZE,
	OPTION_ENUM,
	OPTION_TEXT,
	OPTION_LIST,
	OPTION_TEXT_LIST,
} OptionType;

static const char *const type_names[] = {
	"boolean", "integer", "number", "interval", "size", "enum", "text", "interval[]", "text[]"
};

typedef struct OptionRow
{
	const char *name;
	OptionType	type;
	size_t		offset;
	bool		built;
	double		low;
	double		high;
	const char *fallback;
	const char *choices;		/* of an enum, separated by | */
	const char *meaning;
} OptionRow;

#define AT(field) offsetof(QueueOptions, field)
#define LATER 0, false, 0, 0
#define YEAR 31557600e6

/* What was expected, in an error's detail. */
#define AN_INTERVAL "an interval such as \"30 s\""
#define A_SIZE "a size such as \"64MB\""

static const OptionRow rows[] = {
	{"aging_step", OPTION_INTERVAL, AT(aging_step), true, 1000, YEAR, "60 s", NULL, "waiting time that raises a message by one priority"},
	{"backoff", OPTION_ENUM, AT(backoff), true, 0, 0, "exponential", "none|fixed|linear|exponential|list", "how the delay grows from failure to failure"},
	{"backoff_base", OPTION_INTERVAL, AT(backoff_base), true, 0, YEAR, "1 s", NULL, "delay after the first failure"},
	{"backoff_jitter", OPTION_NUMBER, AT(backoff_jitter), true, 0, 1, "0.2", NULL, "share of the delay that is random"},
	{"backoff_list", OPTION_LIST, AT(backoff_list), true, 0, YEAR, NULL, NULL, "delays by failure for backoff = list; the last one repeats"},
	{"backoff_max", OPTION_INTERVAL, AT(backoff_max), true, 0, YEAR, "10 min", NULL, "longest delay"},
	{"block_timeout", OPTION_INTERVAL, LATER, NULL, NULL, "how long an enqueue waits for room"},
	{"dead_letter", OPTION_TEXT, AT(dead_letter), true, 0, 0, NULL, NULL, "queue that takes dead messages; \"\" drops them; default: the queue's own, <name>_dead"},
	{"dedup_scope", OPTION_ENUM, AT(dedup_scope), true, 0, 0, "queue", "queue|key", "where a dedup_key is unique"},
	{"dedup_window", OPTION_INTERVAL, AT(dedup_window), true, 0, YEAR * 1000, "5 min", NULL, "how long a dedup_key is remembered; 0: not at all, \"infinity\": for ever"},
	{"durable_attempts", OPTION_BOOLEAN, LATER, "false", NULL, "log each delivery before it happens, so that a crash counts"},
	{"fair_share", OPTION_BOOLEAN, AT(fair_share), true, 0, 0, "false", NULL, "keys take turns, by their weights"},
	{"high_watermark", OPTION_INTEGER, LATER, NULL, NULL, "messages at which the queue is reported as high"},
	{"if_not_exists", OPTION_BOOLEAN, AT(if_not_exists), true, 0, 0, "false", NULL, "queue.create() leaves an existing queue as it is"},
	{"lease_max", OPTION_INTERVAL, AT(lease_max), true, 1000, YEAR, "12 h", NULL, "longest time from dequeue that a lease can be extended to"},
	{"lease_scope", OPTION_ENUM, LATER, "time", "time|session", "what ends a lease besides its deadline"},
	{"lease_timeout", OPTION_INTERVAL, AT(lease_timeout), true, 1000, YEAR, "30 s", NULL, "length of a lease when dequeue names none"},
	{"low_watermark", OPTION_INTEGER, LATER, NULL, NULL, "messages at which the queue is reported as normal again"},
	{"max_attempts", OPTION_INTEGER, AT(max_attempts), true, 0, 1000000, "5", NULL, "failures after which a message is dead; 0 = unlimited"},
	{"max_bytes", OPTION_SIZE, LATER, NULL, NULL, "largest size of the queue"},
	{"max_messages", OPTION_INTEGER, LATER, NULL, NULL, "largest number of messages in the queue"},
	{"message_ttl", OPTION_INTERVAL, AT(message_ttl), true, 0, YEAR * 100, NULL, NULL, "a message that was not delivered for so long expires; default: never"},
	{"non_retryable", OPTION_TEXT_LIST, LATER, NULL, NULL, "error classes that make a message dead at once"},
	{"notify", OPTION_BOOLEAN, AT(notify), true, 0, 0, "true", NULL, "the worker notifies the channel queue_<name>"},
	{"on_dead", OPTION_ENUM, AT(on_dead), true, 0, 0, "skip", "skip|block|dead_rest", "what a dead message does to the rest of its key"},
	{"on_expiry", OPTION_ENUM, AT(on_expiry), true, 0, 0, "dead_letter", "dead_letter|drop", "what happens to an expired message"},
	{"ordered", OPTION_BOOLEAN, AT(ordered), true, 0, 0, "false", NULL, "messages of a key are delivered in order"},
	{"overflow", OPTION_ENUM, LATER, "reject", "reject|drop_oldest|block", "what a full queue does with a new message"},
	{"priority_mode", OPTION_ENUM, AT(priority_mode), true, 0, 0, "aging", "aging|strict", "whether waiting raises a priority"},
	{"retention", OPTION_INTERVAL, LATER, "0", NULL, "how long acked messages are kept"},
	{"segment_size", OPTION_SIZE, AT(segment_size), true, 65536, 4294967296.0, NULL, NULL, "size of a segment; default: the setting queue.segment_size"},
	{"single_active_consumer", OPTION_BOOLEAN, AT(single_active_consumer), true, 0, 0, "false", NULL, "one consumer at a time gets messages"},
};

static const OptionRow *
find_row(const char *name)
{
	for (int i = 0; i < (int) lengthof(rows); i++)
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	return NULL;
}

QUEUE_NORETURN static void
bad_text(const char *name, const char *value, const char *expected)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"%s\": %s", name, value),
			 errdetail("Expected %s.", expected)));
}

QUEUE_NORETURN static void
unknown_key(const char *name, const char *where, const char *known)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown option \"%s\" for %s", name, where),
			 errhint("Known options: %s.", known)));
}

static char *
known_rows(void)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < (int) lengthof(rows); i++)
		appendStringInfo(&list, "%s%s", i ? ", " : "", rows[i].name);
	return list.data;
}

/* A scalar's text, for messages and for the types' own input functions. */
static char *
scalar_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		case jbvNull:
			return pstrdup("null");
		default:
			return pstrdup("an array or object");
	}
}

void
queue_options_bad_value(const char *name, const JsonbValue *value, const char *expected)
{
	bad_text(name, scalar_text(value), expected);
}

static double
parse_number(const char *name, const char *text, const char *expected)
{
	char	   *end;
	double		number = strtod(text, &end);

	if (end == text || *end != '\0')
		bad_text(name, text, expected);
	return number;
}

/*
 * Length of an interval in microseconds; months count 30 days, as they do
 * when intervals are compared. Error if it is negative or not finite.
 */
int64
queue_interval_to_usecs(const Interval *interval, const char *what)
{
	double		days = (double) interval->month * DAYS_PER_MONTH + interval->day;
	double		usecs = days * USECS_PER_DAY + interval->time;

	if (usecs < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", what),
				 errdetail("It is %s.",
						   DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval))))));
	if (usecs > YEAR * 1000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is too long", what),
				 errdetail("The longest possible is 1000 years.")));
	return (int64) usecs;
}

static Datum
input_interval(char *text)
{
	return DirectFunctionCall3(interval_in, CStringGetDatum(text),
							   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

static Datum
input_size(char *text)
{
	return DirectFunctionCall1(pg_size_bytes, CStringGetTextDatum(text));
}

/*
 * Call a type's input function, whose error does not name the option. Such a
 * function holds nothing that a savepoint would have to give back.
 */
static Datum
call_input(const char *name, char *text, Datum (*input) (char *), const char *expected)
{
	MemoryContext context = CurrentMemoryContext;
	volatile Datum result = 0;
	volatile bool failed = false;

	PG_TRY();
	{
		result = input(text);
	}
	PG_CATCH();
	{
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		failed = true;
	}
	PG_END_TRY();
	if (failed)
		bad_text(name, text, expected);
	return result;
}

/* An interval as text, or a number of seconds. */
static int64
parse_interval(const char *name, const JsonbValue *value)
{
	char	   *text = scalar_text(value);
	Interval   *interval;

	if (value->type != jbvString && value->type != jbvNumeric)
		bad_text(name, text, AN_INTERVAL);
	if (value->type == jbvNumeric)
		text = psprintf("%s s", text);
	/* Older servers' intervals are finite. */
	if (strcmp(text, "infinity") == 0)
		return (int64) (YEAR * 1000);
	interval = DatumGetIntervalP(call_input(name, text, input_interval, AN_INTERVAL));
	return queue_interval_to_usecs(interval, name);
}

static void
check_range(const OptionRow *row, double number, const char *text)
{
	if (number < row->low || number > row->high || isnan(number))
		bad_text(row->name, text,
				 row->type == OPTION_INTERVAL || row->type == OPTION_LIST
				 ? psprintf("%g to %g seconds", row->low / 1e6, row->high / 1e6)
				 : psprintf("%.15g to %.15g", row->low, row->high));
}

static int
parse_enum(const OptionRow *row, const char *text)
{
	const char *choice = row->choices;

	for (int i = 0; choice; i++)
	{
		const char *end = strchr(choice, '|');
		size_t		length = end ? (size_t) (end - choice) : strlen(choice);

		if (strlen(text) == length && strncmp(text, choice, length) == 0)
			return i;
		choice = end ? end + 1 : NULL;
	}
	bad_text(row->name, text, row->choices);
}

static void
parse_list(const OptionRow *row, JsonbValue *value, QueueOptions *options)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	element;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		bad_text(row->name, scalar_text(value), "an array of intervals");
	it = JsonbIteratorInit(value->val.binary.data);
	options->backoff_list_length = 0;
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		int64		usecs;

		if (token != WJB_ELEM)
			continue;
		if (options->backoff_list_length >= QUEUE_MAX_BACKOFF_LIST)
			bad_text(row->name, "too long a list",
					 psprintf("1 to %d intervals", QUEUE_MAX_BACKOFF_LIST));
		usecs = parse_interval(row->name, &element);
		check_range(row, (double) usecs, scalar_text(&element));
		options->backoff_list[options->backoff_list_length++] = usecs;
	}
	if (options->backoff_list_length == 0)
		bad_text(row->name, "[]", psprintf("1 to %d intervals", QUEUE_MAX_BACKOFF_LIST));
}

static void
parse_value(const OptionRow *row, JsonbValue *value, QueueOptions *options)
{
	void	   *field = (char *) options + row->offset;
	char	   *text = scalar_text(value);

	switch (row->type)
	{
		case OPTION_BOOLEAN:
			if (value->type == jbvBool)
				*(bool *) field = value->val.boolean;
			else if (value->type != jbvString || !parse_bool(text, (bool *) field))
				bad_text(row->name, text, "true or false");
			break;
		case OPTION_INTEGER:
		case OPTION_NUMBER:
			{
				double		number;

				if (value->type != jbvNumeric && value->type != jbvString)
					bad_text(row->name, text, "a number");
				number = parse_number(row->name, text, "a number");
				check_range(row, number, text);
				if (row->type == OPTION_NUMBER)
					*(double *) field = number;
				else if (number != floor(number))
					bad_text(row->name, text, "a whole number");
				else
					*(int *) field = (int) number;
				break;
			}
		case OPTION_INTERVAL:
			*(int64 *) field = parse_interval(row->name, value);
			check_range(row, (double) *(int64 *) field, text);
			break;
		case OPTION_SIZE:
			if (value->type != jbvNumeric && value->type != jbvString)
				bad_text(row->name, text, A_SIZE);
			*(int64 *) field = DatumGetInt64(call_input(row->name, text, input_size, A_SIZE));
			check_range(row, (double) *(int64 *) field, text);
			break;
		case OPTION_ENUM:
			if (value->type != jbvString)
				bad_text(row->name, text, row->choices);
			*(int *) field = parse_enum(row, text);
			break;
		case OPTION_TEXT:
			if (value->type != jbvString)
				bad_text(row->name, text, "text");
			*(char **) field = text;
			break;
		case OPTION_LIST:
			parse_list(row, value, options);
			break;
		case OPTION_TEXT_LIST:
			/* No option of this type is built yet. */
			break;
	}
}

static void
set_defaults(QueueOptions *options)
{
	memset(options, 0, sizeof(*options));
	for (int i = 0; i < (int) lengthof(rows); i++)
	{
		JsonbValue	value;

		if (!rows[i].built || rows[i].fallback == NULL)
			continue;
		value.type = jbvString;
		value.val.string.val = unconstify(char *, rows[i].fallback);
		value.val.string.len = strlen(rows[i].fallback);
		parse_value(&rows[i], &value, options);
	}
}

/*
 * Fill *options from what the user gave. Text and lists are allocated in the
 * current context. A null value means the default.
 */
void
queue_options_parse(Jsonb *given, QueueOptions *options)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	const OptionRow *row = NULL;

	set_defaults(options);
	if (!JB_ROOT_IS_OBJECT(given))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options must be a JSON object")));
	it = JsonbIteratorInit(&given->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			char	   *name = pnstrdup(value.val.string.val, value.val.string.len);

			row = find_row(name);
			if (row == NULL)
				unknown_key(name, "a queue", known_rows());
			if (!row->built)
				queue_error_not_built(name);
		}
		else if (token == WJB_VALUE && value.type != jbvNull)
			parse_value(row, &value, options);
	}
	if (options->backoff == QUEUE_BACKOFF_LIST && options->backoff_list_length == 0)
		bad_text("backoff", "list", "backoff_list with at least one interval besides");
	if (options->lease_timeout > options->lease_max)
		bad_text("lease_timeout", "longer than lease_max", "at most lease_max");
}

/* Whether the options of a queue, all of them, go together. */
void
queue_options_check_together(const QueueOptions *options)
{
	if (options->fair_share && options->ordered)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"fair_share\" excludes an ordered queue"),
				 errdetail("The keys of an ordered queue take turns as it is.")));
	if (options->on_dead != QUEUE_ON_DEAD_SKIP && !options->ordered)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"on_dead\" needs an ordered queue"),
				 errhint("Create the queue with \"ordered\": true.")));
}

/* What queue.alter() stores: keys of change win, nulls go back to the default. */
Jsonb *
queue_options_merge(Jsonb *old, Jsonb *change)
{
	Datum		merged;

	if (!JB_ROOT_IS_OBJECT(change))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options must be a JSON object")));
	merged = DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(old), JsonbPGetDatum(change));
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_strip_nulls, merged));
}

/* Delay before the next delivery of a message that has failed so often. */
int64
queue_options_retry_delay(const QueueOptions *options, int failures)
{
	double		delay = options->backoff_base;

	switch (options->backoff)
	{
		case QUEUE_BACKOFF_NONE:
			return 0;
		case QUEUE_BACKOFF_FIXED:
			break;
		case QUEUE_BACKOFF_LINEAR:
			delay *= failures;
			break;
		case QUEUE_BACKOFF_EXPONENTIAL:
			delay *= pow(2, Min(failures - 1, 60));
			break;
		case QUEUE_BACKOFF_LIST:
			delay = options->backoff_list[Min(failures, options->backoff_list_length) - 1];
			break;
	}
	delay = Min(delay, options->backoff_max);
	delay *= 1 - options->backoff_jitter * pg_prng_double(&pg_global_prng_state);
	return (int64) delay;
}

/* Check the keys of a call's options; the list ends with a NULL name. */
void
queue_options_check_keys(Jsonb *given, const QueueJsonKey *keys, const char *function)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (given == NULL)
		return;
	if (!JB_ROOT_IS_OBJECT(given))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options must be a JSON object")));
	it = JsonbIteratorInit(&given->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char	   *name;
		const QueueJsonKey *key;
		StringInfoData known;

		if (token != WJB_KEY)
			continue;
		name = pnstrdup(value.val.string.val, value.val.string.len);
		initStringInfo(&known);
		for (key = keys; key->name && strcmp(key->name, name) != 0; key++)
			appendStringInfo(&known, "%s%s", known.len ? ", " : "", key->name);
		if (key->name == NULL)
			unknown_key(name, function, known.data);
		if (!key->built)
			queue_error_not_built(name);
	}
}

/* NULL when the key is absent or null. */
JsonbValue *
queue_options_get(Jsonb *given, const char *name)
{
	JsonbValue *value;

	if (given == NULL)
		return NULL;
	value = getKeyJsonValueFromContainer(&given->root, name, strlen(name), NULL);
	return value && value->type == jbvNull ? NULL : value;
}

/* Text of at most "limit" bytes; NULL when the key is absent or null. */
char *
queue_options_get_text(Jsonb *given, const char *name, int limit)
{
	JsonbValue *value = queue_options_get(given, name);

	if (value == NULL)
		return NULL;
	if (value->type != jbvString || value->val.string.len > limit)
		bad_text(name, scalar_text(value), psprintf("text of at most %d bytes", limit));
	return scalar_text(value);
}

/* In us; only for a key that is there. */
int64
queue_options_get_interval(Jsonb *given, const char *name)
{
	return parse_interval(name, queue_options_get(given, name));
}

int64
queue_options_get_int(Jsonb *given, const char *name, int64 low, int64 high, int64 missing)
{
	JsonbValue *value = queue_options_get(given, name);
	char	   *expected;
	char	   *text;
	double		number;

	if (value == NULL)
		return missing;
	expected = psprintf("a whole number from " INT64_FORMAT " to " INT64_FORMAT, low, high);
	text = scalar_text(value);
	if (value->type != jbvNumeric && value->type != jbvString)
		bad_text(name, text, expected);
	number = parse_number(name, text, expected);
	if (number < low || number > high || number != floor(number))
		bad_text(name, text, expected);
	return (int64) number;
}

/* queue.options: one row an option. */
PG_FUNCTION_INFO_V1(queue_options_list);
Datum
queue_options_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < (int) lengthof(rows); i++)
	{
		Datum		values[6];
		bool		nulls[6] = {false};

		values[0] = CStringGetTextDatum(rows[i].name);
		values[1] = CStringGetTextDatum(type_names[rows[i].type]);
		nulls[2] = rows[i].choices == NULL;
		values[2] = nulls[2] ? (Datum) 0 : CStringGetTextDatum(rows[i].choices);
		nulls[3] = rows[i].fallback == NULL;
		values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(rows[i].fallback);
		values[4] = CStringGetTextDatum(rows[i].meaning);
		values[5] = BoolGetDatum(rows[i].built);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
