/*
 * relay.c
 *	  Relays: what the catalog says of them.
 *
 * A row of queue._relay is read anew by whoever wants to know; that is once a
 * second for each runner. It is written by the functions of relayfuncs.c alone.
 * Whoever works for a relay does so with its owner's rights: they are asked for
 * each time, and may have been revoked.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_server.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "acl.h"
#include "catalog.h"
#include "clock.h"
#include "library.h"
#include "relay.h"

/* Options that are not the envelope's. */
static const QueueJsonKey own_keys[] = {
	{"runner", true}, {"max_in_flight", true}, {"max_bytes", true}, {"timeout", true}, {"lease", true},
	{"breaker_failures", true}, {"breaker_pause", true}, {"breaker_pause_max", true},
	{"wait_for_standby", true}, {"log", true}, {NULL, false}
};

#define MAX_KEYS 64

/* ---- options ---- */

static void
check_keys(Jsonb *options)
{
	QueueJsonKey keys[MAX_KEYS];
	int			n = 0;

	for (const QueueJsonKey *key = own_keys; key->name; key++)
		keys[n++] = *key;
	for (const QueueJsonKey *key = queue_envelope_keys; key->name; key++)
		keys[n++] = *key;
	keys[n].name = NULL;
	Assert(n < MAX_KEYS);
	queue_options_check_keys(options, keys, "queue.create_relay()");
}

static bool
get_bool(Jsonb *options, const char *name)
{
	JsonbValue *value = queue_options_get(options, name);

	if (value && value->type != jbvBool)
		queue_options_bad_value(name, value, "true or false");
	return value && value->val.boolean;
}

static int64
get_time(Jsonb *options, const char *name, int64 low, int64 high, int64 missing)
{
	int64		time = missing;

	if (queue_options_get(options, name))
		time = queue_options_get_interval(options, name);
	if (time < low || time > high)
		queue_options_bad_value(name, queue_options_get(options, name),
								psprintf("an interval from %g s to %g s", low / 1e6, high / 1e6));
	return time;
}

/* What is stored may be bad: then it is the server's, which says so where others see it. */
static bool
is_in_server(Jsonb *options)
{
	static const char program[] = "program";
	JsonbValue *runner = queue_options_get(options, "runner");

	return runner == NULL || runner->type != jbvString || runner->val.string.len != sizeof(program) - 1 ||
		memcmp(runner->val.string.val, program, sizeof(program) - 1) != 0;
}

static void
parse_options(QueueRelay *relay, Jsonb *options)
{
	char	   *runner = queue_options_get_text(options, "runner", 16);

	relay->in_server = is_in_server(options);
	if (relay->in_server && runner && strcmp(runner, "server") != 0)
		queue_options_bad_value("runner", queue_options_get(options, "runner"), "server or program");
	relay->pump.max_in_flight = queue_options_get_int(options, "max_in_flight", 1, 10000, 100);
	relay->pump.max_bytes = queue_options_get_int(options, "max_bytes", 1024, INT64CONST(1) << 30, 64 * 1024 * 1024);
	relay->pump.timeout = get_time(options, "timeout", 1000, USECS_PER_HOUR, 30 * USECS_PER_SEC) / 1000;
	relay->pump.ordered = relay->ordered;
	relay->pump.breaker_failures = queue_options_get_int(options, "breaker_failures", 1, 1000000, 5);
	relay->pump.breaker_pause = get_time(options, "breaker_pause", 1000, USECS_PER_HOUR, USECS_PER_SEC) / 1000;
	relay->pump.breaker_pause_max = get_time(options, "breaker_pause_max", 1000, USECS_PER_DAY, USECS_PER_MINUTE) / 1000;
	relay->lease = get_time(options, "lease", USECS_PER_SEC, USECS_PER_HOUR, 15 * USECS_PER_SEC);
	relay->wait_for_standby = get_bool(options, "wait_for_standby");
	relay->log = get_bool(options, "log");
	if (relay->pump.breaker_pause_max < relay->pump.breaker_pause)
		relay->pump.breaker_pause_max = relay->pump.breaker_pause;
}

/* Raises an error for what is wrong with options of a relay of this queue. */
void
queue_relay_check_options(Jsonb *options, const char *queue)
{
	QueueRelay	relay = {0};

	check_keys(options);
	parse_options(&relay, options);
	(void) queue_envelope_rules(options, queue);
}

/* ---- reading ---- */

/* Columns of queue._relay. */
enum
{
	RELAY_ID = 1,
	RELAY_NAME,
	RELAY_QUEUE,
	RELAY_SERVER,
	RELAY_OWNER,
	RELAY_OPTIONS,
	RELAY_PAUSED,
	RELAY_PAUSE_REASON,
	RELAY_SYSTEM_IDENTIFIER,
	RELAY_DATABASE,
	RELAY_CREATED_AT,
	RELAY_COLUMNS = RELAY_CREATED_AT
};

static char *
text_of(const Datum *values, const bool *nulls, int column)
{
	return nulls[column - 1] ? NULL : TextDatumGetCString(values[column - 1]);
}

static QueueRelay *
read_row(Relation rel, HeapTuple tuple)
{
	QueueRelay *relay = palloc0(sizeof(QueueRelay));
	Datum		values[RELAY_COLUMNS];
	bool		nulls[RELAY_COLUMNS];

	heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
	relay->id = DatumGetInt32(values[RELAY_ID - 1]);
	relay->name = text_of(values, nulls, RELAY_NAME);
	relay->view = DatumGetObjectId(values[RELAY_QUEUE - 1]);
	relay->server_name = text_of(values, nulls, RELAY_SERVER);
	relay->owner = DatumGetObjectId(values[RELAY_OWNER - 1]);
	relay->options = (Jsonb *) PG_DETOAST_DATUM_COPY(values[RELAY_OPTIONS - 1]);
	relay->paused = DatumGetBool(values[RELAY_PAUSED - 1]);
	relay->pause_reason = text_of(values, nulls, RELAY_PAUSE_REASON);
	relay->here = queue_relay_is_of_here(DatumGetInt64(values[RELAY_SYSTEM_IDENTIFIER - 1]),
										 DatumGetObjectId(values[RELAY_DATABASE - 1]));
	return relay;
}

/* The queue's definition; there may be no state of it in memory yet, or no queue. */
static QueueDef *
definition_of(Oid view)
{
	QueueDef   *def = queue_catalog_get_unlocked(view);

	if (def == NULL && ConditionalLockRelationOid(view, AccessShareLock))
	{
		def = queue_catalog_get(view);
		UnlockRelationOid(view, AccessShareLock);
	}
	return def;
}

/* What the row refers to; may be gone. */
static QueueRelay *
complete_row(QueueRelay *relay)
{
	QueueDef   *def = definition_of(relay->view);

	relay->queue = def ? pstrdup(def->name) : NULL;
	relay->ordered = def && def->options.ordered;
	if (def == NULL)
		relay->view = InvalidOid;
	relay->server = get_foreign_server_oid(relay->server_name, true);
	relay->in_server = is_in_server(relay->options);
	return relay;
}

/*
 * What is needed to run it. Raises an error for options that are bad: those of another version,
 * or written by hand. Whoever only looks at relays does not ask, so one cannot hide the others.
 */
void
queue_relay_read_options(QueueRelay *relay)
{
	parse_options(relay, relay->options);
}

typedef bool (*Wanted) (const QueueRelay *relay, const void *argument);

/* There are few: all are looked at. */
static List *
read_rows(Wanted wanted, const void *argument)
{
	Relation	rel = table_open(queue_catalog_relation("_relay"), AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, queue_catalog_relation("_relay_pkey"), true, NULL, 0, NULL);
	HeapTuple	tuple;
	List	   *relays = NIL;
	ListCell   *cell;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		QueueRelay *relay = read_row(rel, tuple);

		if (wanted == NULL || wanted(relay, argument))
			relays = lappend(relays, relay);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	foreach(cell, relays)
		complete_row(lfirst(cell));
	return relays;
}

static bool
has_name(const QueueRelay *relay, const void *name)
{
	return strcmp(relay->name, name) == 0;
}

static bool
has_id(const QueueRelay *relay, const void *id)
{
	return relay->id == *(const int32 *) id;
}

static bool
has_queue(const QueueRelay *relay, const void *view)
{
	return relay->view == *(const Oid *) view;
}

static bool
has_server(const QueueRelay *relay, const void *name)
{
	return strcmp(relay->server_name, name) == 0;
}

/* NULL: there is none of this name. */
QueueRelay *
queue_relay_get(const char *name)
{
	List	   *relays = read_rows(has_name, name);

	return relays ? linitial(relays) : NULL;
}

QueueRelay *
queue_relay_get_by_id(int32 id)
{
	List	   *relays = read_rows(has_id, &id);

	return relays ? linitial(relays) : NULL;
}

/* One that must be there. */
QueueRelay *
queue_relay_open(const char *name)
{
	QueueRelay *relay = queue_relay_get(name);

	if (relay == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("relay \"%s\" does not exist", name)));
	return relay;
}

List *
queue_relay_list(void)
{
	return read_rows(NULL, NULL);
}

/* Names, as C strings. */
List *
queue_relay_names_of_queue(Oid view)
{
	List	   *relays = read_rows(has_queue, &view);
	List	   *names = NIL;
	ListCell   *cell;

	foreach(cell, relays)
		names = lappend(names, ((QueueRelay *) lfirst(cell))->name);
	return names;
}

/* One that delivers to a foreign server; NULL: none does. */
char *
queue_relay_name_of_server(const char *server)
{
	List	   *relays = read_rows(has_server, server);

	return relays ? ((QueueRelay *) linitial(relays))->name : NULL;
}

/*
 * Relays of one queue share its messages, and one acks what its filter leaves
 * out: none but this one would have them.
 */
void
queue_relay_check_neighbours(const char *name, Oid view, Jsonb *options)
{
	List	   *relays;
	ListCell   *cell;

	/* Two at a time would not see each other. */
	LockDatabaseObject(queue_catalog_relation("_relay"), view, 1, ExclusiveLock);
	relays = read_rows(has_queue, &view);
	foreach(cell, relays)
	{
		QueueRelay *other = lfirst(cell);

		if (strcmp(other->name, name) != 0 &&
			(queue_options_get(options, "filter") || queue_options_get(other->options, "filter")))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("relay \"%s\" and relay \"%s\" cannot share queue \"%s\"", name, other->name, other->queue),
					 errdetail("What the filter of one leaves out is gone for the other."),
					 errhint("Give each a queue of its own.")));
	}
}

bool
queue_relay_is_of_here(int64 system_identifier, Oid database)
{
	return system_identifier == (int64) GetSystemIdentifier() && database == MyDatabaseId;
}

/* Changes whenever anything does that a runner has to begin anew for. Never 0. */
int64
queue_relay_version(const QueueRelay *relay)
{
	int			count = 0;
	QueueSinkSetting *settings = queue_library_settings(relay->server, relay->owner, &count);
	uint64		hash = hash_bytes_extended((unsigned char *) relay->options, VARSIZE(relay->options), 0);

	hash = hash_combine64(hash, ((uint64) relay->view << 32) | relay->server);
	hash = hash_combine64(hash, ((uint64) relay->owner << 32) | (queue_library_is_trusted(relay->server, relay->owner) ? 1 : 0));
	for (int i = 0; i < count; i++)
	{
		hash = hash_bytes_extended((const unsigned char *) settings[i].name, strlen(settings[i].name), hash);
		hash = hash_bytes_extended((const unsigned char *) settings[i].value, strlen(settings[i].value), hash);
	}
	return (int64) (hash | 1);
}

/* ---- rights ---- */

void
queue_relay_as_user(Oid user, Oid *save_user, int *save_context)
{
	GetUserIdAndSecContext(save_user, save_context);
	SetUserIdAndSecContext(user, *save_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
}

/* Whether its owner may still do what it does; and whether there is anything to do it with. */
void
queue_relay_check_may_run(const QueueRelay *relay)
{
	if (!relay->here)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relay \"%s\" was made in another database", relay->name),
				 errdetail("This one was restored or copied, and the other one may relay the same messages."),
				 errhint("If it does not: SELECT queue.adopt().")));
	if (relay->paused)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relay \"%s\" is paused", relay->name)));
	if (!OidIsValid(relay->view))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the queue of relay \"%s\" does not exist", relay->name)));
	if (!OidIsValid(relay->server))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" of relay \"%s\" does not exist", relay->server_name, relay->name)));
	if (queue_compat_server_aclcheck(relay->server, relay->owner) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server \"%s\"", relay->server_name),
				 errdetail("The owner of relay \"%s\" needs USAGE on it.", relay->name)));
}

/* ---- writing ---- */

static Oid
owner_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Grows over restarts, promotions and upgrades: the upper part is the timeline,
 * or more, since a standby may have missed the last numbers.
 */
int64
queue_relay_next_epoch(void)
{
	Oid			sequence = queue_catalog_relation("relay_epoch");
	int64		least = (int64) GetWALInsertionTimeLine() << 40;
	int64		epoch = nextval_internal(sequence, false);
	Oid			save_user;
	int			save_context;

	if (epoch >= least)
		return epoch;
	LockDatabaseObject(sequence, 0, 1, ExclusiveLock);
	epoch = nextval_internal(sequence, false);
	if (epoch < least)
	{
		queue_relay_as_user(owner_of(sequence), &save_user, &save_context);
		DirectFunctionCall2(setval_oid, ObjectIdGetDatum(sequence), Int64GetDatum(least));
		SetUserIdAndSecContext(save_user, save_context);
		epoch = nextval_internal(sequence, false);
	}
	return epoch;
}

/* By the caller, for himself. */
void
queue_relay_insert(const char *name, Oid view, const char *server, Jsonb *options)
{
	Relation	rel = table_open(queue_catalog_relation("_relay"), RowExclusiveLock);
	Datum		values[RELAY_COLUMNS] = {(Datum) 0};
	bool		nulls[RELAY_COLUMNS] = {false};

	values[RELAY_ID - 1] = Int32GetDatum((int32) nextval_internal(queue_catalog_relation("relay_id"), false));
	values[RELAY_NAME - 1] = CStringGetTextDatum(name);
	values[RELAY_QUEUE - 1] = ObjectIdGetDatum(view);
	values[RELAY_SERVER - 1] = CStringGetTextDatum(server);
	values[RELAY_OWNER - 1] = ObjectIdGetDatum(GetUserId());
	values[RELAY_OPTIONS - 1] = JsonbPGetDatum(options);
	values[RELAY_PAUSED - 1] = BoolGetDatum(false);
	nulls[RELAY_PAUSE_REASON - 1] = true;
	values[RELAY_SYSTEM_IDENTIFIER - 1] = Int64GetDatum((int64) GetSystemIdentifier());
	values[RELAY_DATABASE - 1] = ObjectIdGetDatum(MyDatabaseId);
	values[RELAY_CREATED_AT - 1] = TimestampTzGetDatum(queue_clock_wall());
	CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls));
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/* Change columns of a row. Its relay is locked. */
static void
update_row(int32 id, int n, const int *columns, const Datum *values, const bool *nulls)
{
	Relation	rel = table_open(queue_catalog_relation("_relay"), RowExclusiveLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, RELAY_ID, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	scan = systable_beginscan(rel, queue_catalog_relation("_relay_pkey"), true, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (n == 0)
			CatalogTupleDelete(rel, &tuple->t_self);
		else
			CatalogTupleUpdate(rel, &tuple->t_self,
							   heap_modify_tuple_by_cols(tuple, RelationGetDescr(rel), n, (int *) columns,
														 (Datum *) values, (bool *) nulls));
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

void
queue_relay_update(int32 id, Jsonb *options)
{
	int			column = RELAY_OPTIONS;
	Datum		value = JsonbPGetDatum(options);
	bool		isnull = false;

	update_row(id, 1, &column, &value, &isnull);
}

/* Without a reason it is somebody's who has called a function. */
void
queue_relay_set_pause(int32 id, bool paused, const char *reason)
{
	int			columns[] = {RELAY_PAUSED, RELAY_PAUSE_REASON};
	Datum		values[] = {BoolGetDatum(paused), reason ? CStringGetTextDatum(reason) : (Datum) 0};
	bool		nulls[] = {false, reason == NULL};

	queue_relay_lock(id);
	update_row(id, lengthof(columns), columns, values, nulls);
}

void
queue_relay_delete(int32 id)
{
	update_row(id, 0, NULL, NULL, NULL);
}

/* A relay belongs to this database from now on. */
void
queue_relay_adopt(int32 id)
{
	int			columns[] = {RELAY_SYSTEM_IDENTIFIER, RELAY_DATABASE};
	Datum		values[] = {Int64GetDatum((int64) GetSystemIdentifier()), ObjectIdGetDatum(MyDatabaseId)};
	bool		nulls[] = {false, false};

	update_row(id, lengthof(columns), columns, values, nulls);
}

/* Two changes of a relay at a time: one after the other. */
void
queue_relay_lock(int32 id)
{
	LockDatabaseObject(queue_catalog_relation("_relay"), id, 0, ExclusiveLock);
}

/*
 * The trigger of queue._relay, where rows come by a restore, or by whoever may
 * write there: such a relay is of another database, whatever it says, until
 * somebody adopts it who may act for its owner.
 */
PG_FUNCTION_INFO_V1(queue_relay_inserted);
Datum
queue_relay_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	int			column = RELAY_SYSTEM_IDENTIFIER;
	Datum		value = Int64GetDatum(0);
	bool		isnull = false;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) || !TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		elog(ERROR, "queue._relay_inserted() is the trigger of queue._relay");
	return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_trigtuple, RelationGetDescr(trigger->tg_relation),
													 1, &column, &value, &isnull));
}
