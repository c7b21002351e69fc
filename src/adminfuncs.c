/*
 * adminfuncs.c
 *	  SQL functions that create, change and drop queues.
 *
 * A queue is a view in schema "queues", owned by whoever created it, and its
 * segments, owned by the extension's owner. The view is made as the caller
 * (who needs CREATE on the schema), the rest as the extension's owner.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "acl.h"
#include "blocked.h"
#include "catalog.h"
#include "dedup.h"
#include "error.h"
#include "keystate.h"
#include "options.h"
#include "peek.h"
#include "delta.h"
#include "purge.h"
#include "relay.h"
#include "ring.h"
#include "segment.h"
#include "wakeup.h"

#define DEAD_SUFFIX "_dead"

/* ---- create ---- */

static void
check_name(const char *name)
{
	int			length = strlen(name);
	int			suffix = strlen(DEAD_SUFFIX);
	int			limit = QUEUE_MAX_NAME;

	if (length > suffix && strcmp(name + length - suffix, DEAD_SUFFIX) == 0)
		limit += suffix;
	if (length == 0 || length > limit)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid name for a queue: \"%s\"", name),
				 errdetail("It has %d bytes; a name has 1 to %d.", length, limit)));
}

static void
run_ddl(const char *sql)
{
	int			result;

	queue_acl_internal_ddl++;
	PG_TRY();
	{
		result = SPI_execute(sql, false, 0);
		if (result < 0)
			elog(ERROR, "could not execute \"%s\": %s", sql, SPI_result_code_string(result));
	}
	PG_FINALLY();
	{
		queue_acl_internal_ddl--;
	}
	PG_END_TRY();
}

/* The view, as the caller: its owner is the queue's owner. */
static Oid
create_view(const char *name, int32 id)
{
	const char *quoted = quote_identifier(name);

	SPI_connect();
	run_ddl(psprintf(
					 "CREATE VIEW queues.%s AS SELECT (p.row).id, (p.row).state, (p.row).enqueued_at, "
					 "(p.row).deliver_at, NULL::pg_catalog.interval AS delay, (p.row).expires_at, "
					 "NULL::pg_catalog.interval AS ttl, (p.row).key, (p.row).priority, (p.row).headers, "
					 "(p.row).payload, (p.row).body, NULL::pg_catalog.text AS dedup_key, "
					 "NULL::pg_catalog.text AS unique_key, NULL::pg_catalog.jsonb AS options, "
					 "(p.row).failures, (p.row).last_error, (p.row).lease_until, (p.row).lease_owner "
					 "FROM (SELECT queue._peek(%d) AS row) p", quoted, id));
	run_ddl(psprintf("CREATE TRIGGER queue_insert INSTEAD OF INSERT ON queues.%s "
					 "FOR EACH ROW EXECUTE FUNCTION queue._view_insert()", quoted));
	run_ddl(psprintf("CREATE TRIGGER queue_delete INSTEAD OF DELETE ON queues.%s "
					 "FOR EACH ROW EXECUTE FUNCTION queue._view_delete()", quoted));
	run_ddl(psprintf("CREATE TRIGGER queue_update INSTEAD OF UPDATE ON queues.%s "
					 "FOR EACH ROW EXECUTE FUNCTION queue._view_update()", quoted));
	SPI_finish();
	return queue_catalog_find(name);
}

/* One queue without its dead-letter queue; returns its view. */
static Oid
create_queue(const char *name, Jsonb *options, Oid dead_letter, int32 dead_letter_of, int32 *id)
{
	Oid			existing = queue_catalog_find(name);
	Oid			view;
	QueueState *state;
	QueueDef   *def;

	if (OidIsValid(existing) && queue_catalog_is_view(existing))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("queue \"%s\" already exists", name)));
	if (OidIsValid(existing))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("relation \"queues.%s\" already exists and is not a queue", name)));
	*id = queue_catalog_next_id();
	view = create_view(name, *id);
	queue_catalog_insert(view, *id, options, dead_letter, dead_letter_of);
	queue_catalog_create_segment(*id, 1);
	state = queue_delta_create(*id);
	def = queue_catalog_get(view);
	/* What comes back has a segment of its own from the beginning. */
	if (def->options.ordered)
		queue_catalog_create_segment(*id, 2);
	queue_ring_load(state);
	/* Nobody else can know it yet: there is nothing to count. */
	pg_atomic_write_u32(&state->inexact, 0);
	pg_atomic_write_u32(&state->asks, 0);
	return view;
}

/* The view that an option dead_letter names, locked against a drop. */
static Oid
find_dead_letter(const char *name, const char *of)
{
	if (strcmp(name, of) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("queue \"%s\" cannot be its own dead-letter queue", name)));
	/* Who redirects dead messages writes to that queue. */
	return queue_catalog_open(cstring_to_text(name), QUEUE_ACL_ENQUEUE)->view;
}

static Jsonb *
empty_options(void)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
}

/* if_not_exists belongs to the call, not to the queue. */
static Jsonb *
without_call_options(Jsonb *options)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_strip_nulls,
											  DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(options),
																  CStringGetTextDatum("if_not_exists"))));
}

/*
 * Who creates a name first keeps others waiting until its fate is known. It is
 * a lock on the schema's sub-object of that hash, which nobody else takes.
 */
static void
lock_name(const char *name)
{
	uint16		hash = (uint16) (hash_bytes((const unsigned char *) name, strlen(name)) | 1);

	LockDatabaseObject(NamespaceRelationId, queue_catalog_namespace(), hash, ExclusiveLock);
}

/* A queue's own dead-letter queue; none for one that is named like one. */
static Oid
create_dead_letter(const char *name, int32 id)
{
	int32		dead_id;

	if (strlen(name) > QUEUE_MAX_NAME)
		return InvalidOid;
	return create_queue(psprintf("%s" DEAD_SUFFIX, name), empty_options(), InvalidOid, id, &dead_id);
}

PG_FUNCTION_INFO_V1(queue_create);
Datum
queue_create(PG_FUNCTION_ARGS)
{
	Jsonb	   *given;
	QueueOptions options;
	char	   *name;
	Oid			existing;
	Oid			view;
	Oid			dead_letter = InvalidOid;
	int32		id;

	queue_error_need_write("queue.create()");
	if (PG_ARGISNULL(0))
		queue_error_null("queue");
	if (PG_ARGISNULL(1))
		queue_error_null("options");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	given = PG_GETARG_JSONB_P(1);
	check_name(name);
	queue_options_parse(given, &options);
	queue_options_check_together(&options);
	queue_acl_check_create(queue_catalog_namespace());
	lock_name(name);
	existing = queue_catalog_find(name);
	if (options.if_not_exists && OidIsValid(existing) && queue_catalog_get(existing))
		PG_RETURN_OID(existing);
	if (options.dead_letter && options.dead_letter[0])
		dead_letter = find_dead_letter(options.dead_letter, name);
	view = create_queue(name, without_call_options(given), dead_letter, 0, &id);
	if (options.dead_letter == NULL)
		queue_catalog_update(view, without_call_options(given), create_dead_letter(name, id));
	PG_RETURN_OID(view);
}

/* ---- alter, pause ---- */

static QueueDef *
open_owned(FunctionCallInfo fcinfo, LOCKMODE mode)
{
	if (PG_ARGISNULL(0))
		queue_error_null("queue");
	return queue_catalog_open_owned(PG_GETARG_TEXT_PP(0), mode);
}

/* The dead-letter queue that was made with a queue, locked; InvalidOid if there is none. */
static Oid
own_dead_letter(int32 id, const char *name, LOCKMODE mode)
{
	Oid			view = queue_catalog_find(psprintf("%s" DEAD_SUFFIX, name));
	QueueDef   *dead;

	if (!OidIsValid(view))
		return InvalidOid;
	LockRelationOid(view, mode);
	dead = queue_catalog_get(view);
	if (dead && dead->dead_letter_of == id)
		return view;
	UnlockRelationOid(view, mode);
	return InvalidOid;
}

/* Whether an option would be accepted and ignored. */
static void
check_change(QueueDef *def, Jsonb *change)
{
	static const char *const of_death[] = {"dead_letter", "max_attempts", "on_expiry"};

	if (queue_options_get(change, "ordered"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"ordered\" cannot be changed"),
				 errdetail("It says how the messages of queue \"%s\" are stored.", def->name),
				 errhint("Create another queue.")));
	if (queue_options_get(change, "if_not_exists"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"if_not_exists\" belongs to queue.create()")));
	for (int i = 0; def->dead_letter_of != 0 && i < (int) lengthof(of_death); i++)
		if (queue_options_get(change, of_death[i]))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" has no effect on dead-letter queue \"%s\"",
							of_death[i], def->name),
					 errdetail("What fails in a dead-letter queue stays in it, what expires is dropped."),
					 errhint("Set message_ttl to limit how long messages stay.")));
}

PG_FUNCTION_INFO_V1(queue_alter);
Datum
queue_alter(PG_FUNCTION_ARGS)
{
	QueueDef   *def;
	Oid			view;
	Oid			dead_letter;
	Jsonb	   *merged;
	QueueOptions options;

	queue_error_need_write("queue.alter()");
	if (PG_ARGISNULL(1))
		queue_error_null("options");
	def = open_owned(fcinfo, ShareUpdateExclusiveLock);
	view = def->view;
	/* The change alone first, so that errors name what the caller wrote. */
	queue_options_parse(PG_GETARG_JSONB_P(1), &options);
	check_change(def, PG_GETARG_JSONB_P(1));
	merged = queue_options_merge(queue_catalog_read_options(view), PG_GETARG_JSONB_P(1));
	merged = without_call_options(merged);
	queue_options_parse(merged, &options);
	queue_options_check_together(&options);
	if (options.dead_letter == NULL)
	{
		dead_letter = own_dead_letter(def->id, def->name, AccessShareLock);
		if (!OidIsValid(dead_letter) && def->dead_letter_of == 0)
			dead_letter = create_dead_letter(def->name, def->id);
	}
	else if (options.dead_letter[0] == '\0')
		dead_letter = InvalidOid;
	else
		dead_letter = find_dead_letter(options.dead_letter, def->name);
	if (options.single_active_consumer != def->options.single_active_consumer)
		queue_delta_altered_single(def->state);
	queue_catalog_update(view, merged, dead_letter);
	queue_delta_altered(def->state);
	PG_RETURN_VOID();
}

static void
set_pause(FunctionCallInfo fcinfo, bool paused)
{
	QueueDef   *def;
	char	   *side;
	char	   *reason = NULL;
	bool		dequeue;
	bool		enqueue;

	queue_error_need_write(paused ? "queue.pause()" : "queue.resume()");
	if (PG_ARGISNULL(1))
		queue_error_null("side");
	side = text_to_cstring(PG_GETARG_TEXT_PP(1));
	dequeue = strcmp(side, "dequeue") == 0 || strcmp(side, "both") == 0;
	enqueue = strcmp(side, "enqueue") == 0 || strcmp(side, "both") == 0;
	if (!dequeue && !enqueue)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid side: \"%s\"", side),
				 errhint("Sides are dequeue, enqueue, both.")));
	if (paused && !PG_ARGISNULL(2))
		reason = text_to_cstring(PG_GETARG_TEXT_PP(2));
	def = open_owned(fcinfo, ShareUpdateExclusiveLock);
	queue_catalog_set_pause(def->view, dequeue, enqueue, paused, reason);
	queue_delta_altered(def->state);
}

PG_FUNCTION_INFO_V1(queue_pause);
Datum
queue_pause(PG_FUNCTION_ARGS)
{
	set_pause(fcinfo, true);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(queue_resume);
Datum
queue_resume(PG_FUNCTION_ARGS)
{
	set_pause(fcinfo, false);
	PG_RETURN_VOID();
}

/* ---- drop ---- */

/*
 * Whether any row is there, leased ones too. The lock keeps others out, so what
 * a snapshot taken now does not see is not there; the transaction's may be older.
 */
static bool
has_messages(QueueDef *def)
{
	char	   *sql = psprintf("SELECT 1 FROM (SELECT queue._peek(%d)) p LIMIT 1", def->id);
	bool		found;

	PushActiveSnapshot(GetLatestSnapshot());
	SPI_connect();
	if (SPI_execute(sql, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look into queue \"%s\"", def->name);
	found = SPI_processed > 0;
	SPI_finish();
	PopActiveSnapshot();
	return found;
}

static void
drop_relation(Oid relid)
{
	ObjectAddress object;

	ObjectAddressSet(object, RelationRelationId, relid);
	queue_acl_internal_ddl++;
	PG_TRY();
	{
		performDeletion(&object, DROP_RESTRICT, 0);
	}
	PG_FINALLY();
	{
		queue_acl_internal_ddl--;
	}
	PG_END_TRY();
}

static void
refuse_if_full(QueueDef *def)
{
	if (has_messages(def))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("queue \"%s\" still has messages", def->name),
				 errhint("Consume or purge them, or drop with force => true.")));
}

/* The exclusive locks make sure that nobody is in a call or has unsettled rows. */
static void
drop_queue(Oid view)
{
	QueueDef   *def;
	List	   *segments;
	ListCell   *cell;
	int32		id;
	Oid			user;

	LockRelationOid(view, AccessExclusiveLock);
	def = queue_catalog_get(view);
	if (def == NULL)
		return;
	id = def->id;
	user = queue_catalog_dead_letter_user(view, InvalidOid);
	if (OidIsValid(user))
	{
		char	   *source = get_rel_name(user);

		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("queue \"%s\" is the dead-letter queue of queue \"%s\"",
						def->name, source ? source : "?"),
				 errhint("Drop that queue, or alter its option dead_letter first.")));
	}
	queue_delta_dropped(def->state);
	segments = queue_catalog_segments(id);
	queue_blocked_delete_all(id);
	queue_limit_delete_all(queue_catalog_relation("_limit"), queue_catalog_relation("_limit_pkey"), id);
	queue_keystate_delete_all(id);
	queue_dedup_forget_queue(id);
	queue_catalog_delete(view, id);
	foreach(cell, segments)
		drop_relation(((QueueCatalogSegment *) lfirst(cell))->relid);
	drop_relation(view);
}

static void
refuse_if_relayed(const QueueDef *def)
{
	List	   *relays = queue_relay_names_of_queue(def->view);

	if (relays != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("queue \"%s\" is delivered by relay \"%s\"", def->name, (char *) linitial(relays)),
				 errhint("Drop the relay before: SELECT queue.drop_relay(%s).", quote_literal_cstr(linitial(relays)))));
}

PG_FUNCTION_INFO_V1(queue_drop);
Datum
queue_drop(PG_FUNCTION_ARGS)
{
	QueueDef   *def;
	Oid			view;
	Oid			dead;

	queue_error_need_write("queue.drop()");
	if (PG_ARGISNULL(1))
		queue_error_null("force");
	def = open_owned(fcinfo, AccessExclusiveLock);
	view = def->view;
	dead = own_dead_letter(def->id, def->name, AccessExclusiveLock);
	/* Another queue may use it too: then it stays. */
	if (OidIsValid(dead) && OidIsValid(queue_catalog_dead_letter_user(dead, view)))
		dead = InvalidOid;
	refuse_if_relayed(def);
	if (OidIsValid(dead))
		refuse_if_relayed(queue_catalog_get(dead));
	if (!PG_GETARG_BOOL(1))
	{
		refuse_if_full(def);
		if (OidIsValid(dead))
			refuse_if_full(queue_catalog_get(dead));
	}
	drop_queue(view);
	if (OidIsValid(dead))
		drop_queue(dead);
	PG_RETURN_VOID();
}

/* ---- purge, cancel ---- */

static const QueueJsonKey purge_keys[] = {{"states", true}, {"older_than", true}, {NULL, false}};

static int
parse_states(Jsonb *options)
{
	static const char *const names[] = {"ready", "delayed", "leased", "failed"};
	JsonbValue *value = queue_options_get(options, "states");
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	element;
	int			states = 0;

	if (value == NULL)
		return QUEUE_MESSAGE_READY | QUEUE_MESSAGE_DELAYED;
	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		queue_options_bad_value("states", value, "an array of states");
	it = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		int			i;

		if (token != WJB_ELEM)
			continue;
		for (i = 0; i < (int) lengthof(names); i++)
			if (element.type == jbvString && element.val.string.len == (int) strlen(names[i]) &&
				strncmp(element.val.string.val, names[i], element.val.string.len) == 0)
				break;
		if (i == lengthof(names))
			queue_options_bad_value("states", &element, "ready, delayed, leased or failed");
		states |= 1 << i;
	}
	return states;
}

PG_FUNCTION_INFO_V1(queue_purge_messages);
Datum
queue_purge_messages(PG_FUNCTION_ARGS)
{
	QueueDef   *def;
	Jsonb	   *options;
	QueuePurgeFilter filter = {.older_than = DT_NOEND};

	queue_error_need_write("queue.purge()");
	if (PG_ARGISNULL(0))
		queue_error_null("queue");
	if (PG_ARGISNULL(1))
		queue_error_null("options");
	options = PG_GETARG_JSONB_P(1);
	queue_options_check_keys(options, purge_keys, "queue.purge()");
	filter.states = parse_states(options);
	if (queue_options_get(options, "older_than"))
		filter.older_than = queue_clock_wall() - queue_options_get_interval(options, "older_than");
	def = queue_catalog_open(PG_GETARG_TEXT_PP(0), QUEUE_ACL_CANCEL);
	PG_RETURN_INT64(queue_purge(def, &filter));
}

#define CANCEL_STATES (QUEUE_MESSAGE_READY | QUEUE_MESSAGE_DELAYED | QUEUE_MESSAGE_FAILED)

static bool
cancel(QueueDef *def, int64 id)
{
	QueuePurgeFilter filter = {.states = CANCEL_STATES,.older_than = DT_NOEND,.id = id};
	QueuePlace	place;

	if (id <= 0)
		return false;
	if (queue_peek_last_place(def->id, id, &place) && queue_purge_at(def, &place, &filter) > 0)
		return true;
	return queue_purge(def, &filter) > 0;
}

PG_FUNCTION_INFO_V1(queue_cancel);
Datum
queue_cancel(PG_FUNCTION_ARGS)
{
	queue_error_need_write("queue.cancel()");
	if (PG_ARGISNULL(0))
		queue_error_null("queue");
	if (PG_ARGISNULL(1))
		queue_error_null("id");
	PG_RETURN_BOOL(cancel(queue_catalog_open(PG_GETARG_TEXT_PP(0), QUEUE_ACL_CANCEL), PG_GETARG_INT64(1)));
}

static TriggerData *
get_trigger(FunctionCallInfo fcinfo, const char *function)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_INSTEAD(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s is a trigger of a queue's view", function)));
	return trigger;
}

/* INSTEAD OF DELETE: cancel; a row that somebody holds is passed over. */
PG_FUNCTION_INFO_V1(queue_view_delete);
Datum
queue_view_delete(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = get_trigger(fcinfo, "queue._view_delete()");
	QueueDef   *def;
	Datum		id;
	bool		isnull;

	queue_error_need_write("DELETE from a queue");
	queue_catalog_check_view(trigger->tg_relation);
	def = queue_catalog_get(RelationGetRelid(trigger->tg_relation));
	if (def == NULL)
		queue_error_no_queue(RelationGetRelationName(trigger->tg_relation));
	id = SPI_getbinval(trigger->tg_trigtuple, RelationGetDescr(trigger->tg_relation), 1, &isnull);
	if (isnull || !cancel(def, DatumGetInt64(id)))
		return PointerGetDatum(NULL);
	return PointerGetDatum(trigger->tg_trigtuple);
}

PG_FUNCTION_INFO_V1(queue_view_update);
Datum
queue_view_update(PG_FUNCTION_ARGS)
{
	queue_error_no_update();
}

/* ---- the clock, for tests ---- */

PG_FUNCTION_INFO_V1(queue_clock_advance_sql);
Datum
queue_clock_advance_sql(PG_FUNCTION_ARGS)
{
	Interval   *by;
	double		usecs;
	uint32		position = 0;
	QueueState *state;

	queue_error_need_preload();
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to move the clock of queue")));
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		queue_error_null("argument");
	by = PG_GETARG_INTERVAL_P(0);
	usecs = ((double) by->month * DAYS_PER_MONTH + by->day) * USECS_PER_DAY + by->time;
	if (usecs > 4e15 || usecs < -4e15)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the clock cannot be moved so far")));
	if (usecs < 0 && !PG_GETARG_BOOL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("only the wall clock can go back")));
	queue_clock_advance((int64) usecs, PG_GETARG_BOOL(1));
	while ((state = queue_state_next(InvalidOid, &position)) != NULL)
	{
		queue_state_ask(state, QUEUE_ASK_FAILURES | QUEUE_ASK_RECLAIM);
		queue_wakeup_all(state);
	}
	queue_wakeup_worker(MyDatabaseId);
	PG_RETURN_VOID();
}
