/*
 * orderfuncs.c
 *	  SQL functions of ordered queues.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "acl.h"
#include "blocked.h"
#include "error.h"
#include "delta.h"

/* A queue that the caller may consume from, or clean up. */
static QueueDef *
open_ordered(FunctionCallInfo fcinfo, AclMode need)
{
	QueueDef   *def;

	if (PG_ARGISNULL(0))
		queue_error_null("queue");
	def = queue_catalog_open(PG_GETARG_TEXT_PP(0), need);
	if (!def->options.ordered)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue \"%s\" is not ordered", def->name),
				 errhint("Only the keys of ordered queues are held or blocked.")));
	return def;
}

static void
put_blocked(const QueueBlocked *blocked, void *arg)
{
	ReturnSetInfo *result = arg;
	Datum		values[4];
	bool		nulls[4] = {false};

	values[0] = PointerGetDatum(blocked->key);
	values[1] = Int64GetDatum(blocked->message);
	values[2] = TimestampTzGetDatum(blocked->since);
	values[3] = CStringGetTextDatum(blocked->rest_to == 0 ? "block" : "dead_rest");
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* Keys that a dead message blocks, with its id, since when, and what becomes of the rest. */
PG_FUNCTION_INFO_V1(queue_blocked_keys);
Datum
queue_blocked_keys(PG_FUNCTION_ARGS)
{
	QueueDef   *def = open_ordered(fcinfo, ACL_SELECT);

	InitMaterializedSRF(fcinfo, 0);
	queue_blocked_visit(def, put_blocked, fcinfo->resultinfo);
	return (Datum) 0;
}

/* Let a blocked key go on, when this commits. Returns whether it was blocked. */
PG_FUNCTION_INFO_V1(queue_unblock);
Datum
queue_unblock(PG_FUNCTION_ARGS)
{
	QueueDef   *def;
	text	   *key;

	queue_error_need_write("queue.unblock()");
	def = open_ordered(fcinfo, QUEUE_ACL_DEQUEUE);
	key = PG_ARGISNULL(1) ? cstring_to_text("") : PG_GETARG_TEXT_PP(1);
	if (queue_blocked_delete(def, key) == 0)
		PG_RETURN_BOOL(false);
	queue_delta_unblocked(def->state);
	PG_RETURN_BOOL(true);
}
