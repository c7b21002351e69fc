/*
 * limitfuncs.c
 *	  SQL functions that set limits, and show what is in use of them.
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "funcapi.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"

#include "acl.h"
#include "catalog.h"
#include "delta.h"
#include "error.h"
#include "limit.h"
#include "meter.h"
#include "slot.h"

/* Arguments of queue.limit(), by position. */
enum
{
	ARG_QUEUE, ARG_SCOPE, ARG_NAME, ARG_IN_FLIGHT, ARG_RATE, ARG_BURST, ARG_WEIGHT
};

static QueueLimitScope
parse_scope(text *given)
{
	char	   *name = text_to_cstring(given);

	for (int i = 0; i < QUEUE_LIMIT_SCOPES; i++)
		if (strcmp(name, queue_limit_scopes[i]) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid scope: \"%s\"", name),
			 errhint("Scopes are queue, consumer, key.")));
}

QUEUE_NORETURN static void
bad_number(const char *what, double value, const char *expected)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid %s: %g", what, value),
			 errdetail("Expected %s.", expected)));
}

static double
positive(FunctionCallInfo fcinfo, int argument, const char *what)
{
	double		value = PG_ARGISNULL(argument) ? 0 : PG_GETARG_FLOAT8(argument);

	if (!PG_ARGISNULL(argument) && !(value > 0 && value <= 1e9))
		bad_number(what, value, "more than 0, at most 1e9");
	return value;
}

static QueueLimit
parse_limit(FunctionCallInfo fcinfo)
{
	QueueLimit	limit = {
		.in_flight = PG_ARGISNULL(ARG_IN_FLIGHT) ? -1 : PG_GETARG_INT32(ARG_IN_FLIGHT),
		.rate = positive(fcinfo, ARG_RATE, "rate"),
		.burst = positive(fcinfo, ARG_BURST, "burst"),
		.weight = positive(fcinfo, ARG_WEIGHT, "weight"),
	};

	if (!PG_ARGISNULL(ARG_IN_FLIGHT) && limit.in_flight < 1)
		bad_number("in_flight", limit.in_flight, "1 or more; queue.pause() stops all");
	if (limit.burst > 0 && limit.rate == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("burst needs a rate")));
	if (!PG_ARGISNULL(ARG_WEIGHT) && (limit.weight < QUEUE_LEAST_WEIGHT || limit.weight > QUEUE_MOST_WEIGHT))
		bad_number("weight", limit.weight, "0.1 to 1000");
	/* A second's worth, and at least one message. */
	if (limit.rate > 0 && limit.burst == 0)
		limit.burst = Max(limit.rate, 1);
	return limit;
}

/* Whether the limit could do what it says. */
static void
check_limit(QueueDef *def, QueueLimitScope scope, const char *name, const QueueLimit *limit)
{
	if (scope == QUEUE_LIMIT_QUEUE && name)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a limit of the queue has no name"),
				 errhint("Names are those of consumers and keys.")));
	if (scope != QUEUE_LIMIT_KEY && limit->weight > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("only keys have weights")));
	if (scope == QUEUE_LIMIT_KEY && def->options.ordered)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an ordered queue has no limits by key"),
				 errdetail("Its keys have one consumer at a time as it is."),
				 errhint("Limit the queue or its consumers, or use a queue that is not ordered.")));
}

/*
 * Limit what is leased at a time, or how fast: of the queue, of each consumer or
 * key, or of one by name. Nothing given: that limit is removed.
 */
PG_FUNCTION_INFO_V1(queue_limit_set);
Datum
queue_limit_set(PG_FUNCTION_ARGS)
{
	QueueDef   *def;
	QueueLimitScope scope;
	QueueLimit	limit;
	char	   *name;
	bool		removes = true;

	queue_error_need_write("queue.limit()");
	if (PG_ARGISNULL(ARG_QUEUE))
		queue_error_null("queue");
	if (PG_ARGISNULL(ARG_SCOPE))
		queue_error_null("scope");
	scope = parse_scope(PG_GETARG_TEXT_PP(ARG_SCOPE));
	name = PG_ARGISNULL(ARG_NAME) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME));
	limit = parse_limit(fcinfo);
	for (int i = ARG_IN_FLIGHT; i <= ARG_WEIGHT; i++)
		removes &= PG_ARGISNULL(i);
	def = queue_catalog_open_owned(PG_GETARG_TEXT_PP(ARG_QUEUE), ShareUpdateExclusiveLock);
	check_limit(def, scope, name, &limit);
	if (scope == QUEUE_LIMIT_CONSUMER && name && strlen(name) >= QUEUE_CONSUMER_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a consumer is too long"),
				 errdetail("The longest has %d bytes.", QUEUE_CONSUMER_LENGTH - 1)));
	queue_limit_write(queue_catalog_relation("_limit"), queue_catalog_relation("_limit_pkey"),
					  def->id, scope, name, removes ? NULL : &limit);
	CacheInvalidateRelcacheByRelid(def->view);
	queue_delta_altered(def->state);
	PG_RETURN_VOID();
}

/* What is in use of a limit: leases and tokens of one name, and how many names wait. */
PG_FUNCTION_INFO_V1(queue_meter_show);
Datum
queue_meter_show(PG_FUNCTION_ARGS)
{
	Oid			view = PG_GETARG_OID(0);
	QueueLimitScope scope = parse_scope(PG_GETARG_TEXT_PP(1));
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(2));
	TupleDesc	desc;
	Datum		values[3] = {0};
	bool		nulls[3] = {true, true, true};
	QueueDef   *def;
	bool		one = scope == QUEUE_LIMIT_QUEUE || name[0] != '\0';
	uint64		hash = scope == QUEUE_LIMIT_QUEUE ? 0 : one ? queue_limit_hash(scope, name + 1, strlen(name + 1)) : 0;

	queue_error_need_preload();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	LockRelationOid(view, AccessShareLock);
	def = queue_catalog_get(view);
	if (def && def->state && queue_acl_may_watch(view))
	{
		const QueueLimit *limit = queue_limit_of(&def->limits, scope, hash);
		QueueMeterReading reading;

		if (one)
		{
			queue_meter_read(def->state, hash, limit, &reading);
			values[0] = Int64GetDatum(reading.held);
			nulls[0] = false;
			values[1] = Float8GetDatum(floor(reading.tokens * 1000 + 0.5) / 1000);
			nulls[1] = limit->rate == 0;
		}
		values[2] = Int64GetDatum(one ? reading.waits : queue_meter_count_waiting(def->state, scope));
		nulls[2] = false;
	}
	UnlockRelationOid(view, AccessShareLock);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
