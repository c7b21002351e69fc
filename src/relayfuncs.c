/*
 * relayfuncs.c
 *	  SQL functions that make, change and watch relays, and those by which the
 *	  program queue-relay works as a runner.
 *
 * A relay is its creator's: who may deliver a queue's messages somewhere needs
 * the right to dequeue, and USAGE on the foreign server. The functions for
 * runners give out what has secrets, so they are for the owner's role alone.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "acl.h"
#include "catalog.h"
#include "error.h"
#include "guc.h"
#include "library.h"
#include "relayworker.h"
#include "text.h"
#include "transfer.h"

/* How long queue.relay_test() waits for the process that tries, us. */
#define TEST_TIME INT64CONST(15000000)

static char *
get_name(FunctionCallInfo fcinfo, int argument, const char *what)
{
	if (PG_ARGISNULL(argument))
		queue_error_null(what);
	return text_to_cstring(PG_GETARG_TEXT_PP(argument));
}

/* ---- making and changing ---- */

static void
check_name(const char *name)
{
	size_t		length = strlen(name);

	if (length == 0 || length > QUEUE_RELAY_MAX_NAME)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid name for a relay: \"%s\"", name),
				 errdetail("It has %zu bytes; a name has 1 to %d.", length, QUEUE_RELAY_MAX_NAME)));
}

static void
check_owner(const QueueRelay *relay)
{
	if (!has_privs_of_role(GetUserId(), relay->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of relay \"%s\"", relay->name)));
}

/* Locked against other changes of it. */
static QueueRelay *
open_owned(FunctionCallInfo fcinfo, const char *function)
{
	char	   *name;
	QueueRelay *relay;

	queue_error_need_preload();
	queue_error_need_write(function);
	name = get_name(fcinfo, 0, "relay");
	relay = queue_relay_open(name);
	check_owner(relay);
	queue_relay_lock(relay->id);
	relay = queue_relay_open(name);
	check_owner(relay);
	return relay;
}

/* Nobody drops or renames it before the relay is there. */
static Oid
lock_server(const char *name)
{
	Oid			server = get_foreign_server_oid(name, false);

	LockDatabaseObject(ForeignServerRelationId, server, 0, AccessShareLock);
	return get_foreign_server_oid(name, false);
}

/* What queue-relay is given must not be more than the owner may see. */
static void
check_secrets(const char *name, Oid server, Oid owner, bool in_server)
{
	if (!in_server && !queue_library_may_show(server, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("relay \"%s\" needs a user mapping of its owner", name),
				 errdetail("Its runner would be given that of PUBLIC, which its owner may not see."),
				 errhint("CREATE USER MAPPING FOR the owner on this server.")));
}

PG_FUNCTION_INFO_V1(queue_create_relay);
Datum
queue_create_relay(PG_FUNCTION_ARGS)
{
	char	   *name;
	char	   *server_name;
	QueueDef   *def;
	Oid			server;

	queue_error_need_preload();
	queue_error_need_write("queue.create_relay()");
	name = get_name(fcinfo, 0, "relay");
	server_name = get_name(fcinfo, 2, "server");
	if (PG_ARGISNULL(1))
		queue_error_null("queue");
	if (PG_ARGISNULL(3))
		queue_error_null("options");
	check_name(name);
	def = queue_catalog_open(PG_GETARG_TEXT_PP(1), QUEUE_ACL_DEQUEUE);
	server = lock_server(server_name);
	if (queue_compat_server_aclcheck(server, GetUserId()) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_SERVER, server_name);
	queue_library_check(server, GetUserId());
	queue_relay_check_options(PG_GETARG_JSONB_P(3), def->name);
	queue_relay_check_neighbours(name, def->view, PG_GETARG_JSONB_P(3));
	if (queue_relay_get(name))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("relay \"%s\" already exists", name)));
	queue_relay_insert(name, def->view, server_name,
					   queue_options_merge(DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"))),
										   PG_GETARG_JSONB_P(3)));
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(queue_alter_relay);
Datum
queue_alter_relay(PG_FUNCTION_ARGS)
{
	QueueRelay *relay = open_owned(fcinfo, "queue.alter_relay()");
	Jsonb	   *merged;

	if (PG_ARGISNULL(1))
		queue_error_null("options");
	/* The change alone first, so that errors name what the caller wrote. */
	queue_relay_check_options(PG_GETARG_JSONB_P(1), relay->queue ? relay->queue : "");
	merged = queue_options_merge(relay->options, PG_GETARG_JSONB_P(1));
	queue_relay_check_options(merged, relay->queue ? relay->queue : "");
	queue_relay_check_neighbours(relay->name, relay->view, merged);
	queue_relay_update(relay->id, merged);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(queue_pause_relay);
Datum
queue_pause_relay(PG_FUNCTION_ARGS)
{
	QueueRelay *relay = open_owned(fcinfo, "queue.pause_relay()");

	if (!relay->paused)
		queue_relay_set_pause(relay->id, true, NULL);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(queue_resume_relay);
Datum
queue_resume_relay(PG_FUNCTION_ARGS)
{
	QueueRelay *relay = open_owned(fcinfo, "queue.resume_relay()");

	if (relay->paused)
		queue_relay_set_pause(relay->id, false, NULL);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(queue_drop_relay);
Datum
queue_drop_relay(PG_FUNCTION_ARGS)
{
	QueueRelay *relay = open_owned(fcinfo, "queue.drop_relay()");

	queue_relay_delete(relay->id);
	PG_RETURN_VOID();
}

/* Who could write the row of somebody else's relay must not have it run with his rights. */
static void
adopt(const QueueRelay *relay)
{
	if (relay->here)
		return;
	if (has_privs_of_role(GetUserId(), relay->owner))
	{
		queue_relay_lock(relay->id);
		queue_relay_adopt(relay->id);
	}
	else
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("relay \"%s\" was not adopted", relay->name),
				 errdetail("It works with the rights of its owner, whose role you are not a member of."),
				 errhint("A superuser can adopt all.")));
}

PG_FUNCTION_INFO_V1(queue_adopt);
Datum
queue_adopt(PG_FUNCTION_ARGS)
{
	List	   *relays;
	ListCell   *cell;

	queue_error_need_preload();
	queue_error_need_write("queue.adopt()");
	if (!queue_compat_owns_database(MyDatabaseId))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of the database to adopt its relays")));
	relays = queue_relay_list();
	foreach(cell, relays)
		adopt(lfirst(cell));
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(queue_relay_is_here);
Datum
queue_relay_is_here(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(queue_relay_is_of_here(PG_GETARG_INT64(0), PG_GETARG_OID(1)));
}

/* ---- a trial ---- */

static Datum
make_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/*
 * Have a process of its own try the destination, and wait for what it says. Whoever waits
 * has a snapshot, so not for long.
 */
PG_FUNCTION_INFO_V1(queue_relay_test);
Datum
queue_relay_test(PG_FUNCTION_ARGS)
{
	QueueRelay *relay = open_owned(fcinfo, "queue.relay_test()");
	QueueTime	until = queue_clock_now() + TEST_TIME;
	QueueRunner runner;
	uint32		test;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (!relay->in_server)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relay \"%s\" is not run by the server", relay->name),
				 errhint("Use queue-relay --test, where it is run.")));
	test = queue_runner_ask_test(relay->id);
	if (test == 0 || !queue_relayworker_start(relay->id, test))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("there is no process for a trial of relay \"%s\"", relay->name),
				 errhint("Raise \"max_worker_processes\", or \"queue.max_relays\".")));
	while (queue_runner_get(relay->id, &runner) && runner.tested < test && queue_clock_now() < until)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	values[0] = BoolGetDatum(runner.tested == test && runner.test_ok);
	values[1] = CStringGetTextDatum(runner.tested == test ? runner.test_detail : "the process that tries did not answer");
	PG_RETURN_DATUM(make_row(fcinfo, values, nulls));
}

/* ---- for runners outside ---- */

/* How long one take goes on while it finds only what is not sent, us. */
#define TAKE_TIME INT64CONST(200000)

/*
 * The relay, for whoever may work for its owner. One that has been given to the server
 * meanwhile can still be settled and ended.
 */
static QueueRelay *
open_for_end(FunctionCallInfo fcinfo, const char *function)
{
	QueueRelay *relay;

	queue_error_need_preload();
	queue_error_need_write(function);
	relay = queue_relay_get(get_name(fcinfo, 0, "relay"));
	if (relay)
	{
		check_owner(relay);
		queue_relay_read_options(relay);
	}
	return relay;
}

static QueueRelay *
open_for_runner(FunctionCallInfo fcinfo, const char *function)
{
	QueueRelay *relay = open_for_end(fcinfo, function);

	if (relay == NULL)
		relay = queue_relay_open(get_name(fcinfo, 0, "relay"));
	if (relay->in_server)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relay \"%s\" is run by the server", relay->name),
				 errhint("Set its option: SELECT queue.alter_relay(%s, '{\"runner\": \"program\"}').",
						 quote_literal_cstr(relay->name))));
	return relay;
}

static Datum
to_text(const char *utf8)
{
	return CStringGetTextDatum(pg_any_to_server(utf8, strlen(utf8), PG_UTF8));
}

/* Names and values by turns. */
static Datum
settings_array(const QueueSinkSetting *settings, int count)
{
	Datum	   *texts = palloc(sizeof(Datum) * (2 * count + 1));

	for (int i = 0; i < count; i++)
	{
		texts[2 * i] = to_text(settings[i].name);
		texts[2 * i + 1] = to_text(settings[i].value);
	}
	return PointerGetDatum(construct_array(texts, 2 * count, TEXTOID, -1, false, TYPALIGN_INT));
}

PG_FUNCTION_INFO_V1(queue_relay_begin);
Datum
queue_relay_begin(PG_FUNCTION_ARGS)
{
	QueueRelay *relay = open_for_runner(fcinfo, "queue._relay_begin()");
	char	   *runner = get_name(fcinfo, 1, "runner");
	QueueSinkSetting *settings;
	int			count;
	Datum		values[14];
	bool		nulls[14] = {false};
	int64		epoch;

	if (strlen(runner) >= QUEUE_RUNNER_NAME)
		runner[pg_mbcliplen(runner, strlen(runner), QUEUE_RUNNER_NAME - 1)] = '\0';
	queue_relay_check_may_run(relay);
	check_secrets(relay->name, relay->server, relay->owner, false);
	epoch = queue_transfer_begin(relay, runner, false);
	settings = queue_library_settings(relay->server, relay->owner, &count);
	values[0] = Int64GetDatum(epoch);
	values[1] = CStringGetTextDatum(queue_library_of_server(relay->server));
	values[2] = CStringGetTextDatum(relay->queue);
	values[3] = settings_array(settings, count);
	values[4] = BoolGetDatum(queue_library_is_trusted(relay->server, relay->owner));
	values[5] = Int64GetDatum(queue_relay_version(relay));
	values[6] = Int32GetDatum(relay->pump.max_in_flight);
	values[7] = Int64GetDatum(relay->pump.timeout);
	values[8] = BoolGetDatum(relay->ordered);
	values[9] = Int32GetDatum(relay->pump.breaker_failures);
	values[10] = Int64GetDatum(relay->pump.breaker_pause);
	values[11] = Int64GetDatum(relay->pump.breaker_pause_max);
	values[12] = Int64GetDatum(relay->lease / 1000);
	values[13] = Int64GetDatum(relay->pump.max_bytes);
	PG_RETURN_DATUM(make_row(fcinfo, values, nulls));
}

static int64
get_epoch(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1))
		queue_error_null("epoch");
	return PG_GETARG_INT64(1);
}

static Datum
headers_array(const QueueEnvelope *envelope)
{
	return settings_array((const QueueSinkSetting *) envelope->headers, envelope->header_count);
}

typedef struct TakeResult
{
	ReturnSetInfo *result;
	int			rows;
} TakeResult;

static void
put_transfer(void *context, const QueueTransfer *transfer)
{
	TakeResult *take = context;
	ReturnSetInfo *result = take->result;
	const QueueEnvelope *envelope = transfer->envelope;
	Datum		values[11] = {(Datum) 0};
	bool		nulls[11] = {false};
	bytea	   *body = palloc(VARHDRSZ + envelope->body_length);

	StaticAssertStmt(sizeof(QueueEnvelopeHeader) == sizeof(QueueSinkSetting), "headers are name and value, as settings");
	memcpy(VARDATA(body), envelope->body, envelope->body_length);
	SET_VARSIZE(body, VARHDRSZ + envelope->body_length);
	values[0] = UUIDPGetDatum(&transfer->receipt);
	values[1] = Int64GetDatum(transfer->message);
	values[2] = Int32GetDatum(transfer->attempt);
	values[3] = Int64GetDatum((int64) transfer->gate);
	values[4] = to_text(envelope->id);
	nulls[5] = envelope->key == NULL;
	if (envelope->key)
		values[5] = to_text(envelope->key);
	values[6] = to_text(envelope->target);
	values[7] = to_text(envelope->content_type);
	values[8] = headers_array(envelope);
	values[9] = PointerGetDatum(body);
	nulls[10] = transfer->lane == NULL;
	if (transfer->lane)
		values[10] = CStringGetTextDatum(transfer->lane);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	take->rows++;
}

/* No rows: there is nothing to take; so of messages that are left out others are taken in their place, for a while. */
PG_FUNCTION_INFO_V1(queue_relay_take);
Datum
queue_relay_take(PG_FUNCTION_ARGS)
{
	QueueRelay *relay = open_for_runner(fcinfo, "queue._relay_take()");
	int64		epoch = get_epoch(fcinfo);
	int			wanted = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);
	QueueTime	until = queue_clock_now() + TAKE_TIME;
	TakeResult	take = {.result = (ReturnSetInfo *) fcinfo->resultinfo};
	int			leased;

	if (wanted < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_messages must be between 1 and %d", queue_max_batch),
				 errdetail("It is %d.", wanted)));
	wanted = Min(wanted, queue_max_batch);
	InitMaterializedSRF(fcinfo, 0);
	do
		leased = queue_transfer_take(relay, epoch, wanted, put_transfer, &take);
	while (leased > 0 && take.rows == 0 && queue_clock_now() < until);
	return (Datum) 0;
}

/* An array argument without nulls, of so many elements; -1: of any number. */
static Datum *
get_array(FunctionCallInfo fcinfo, int argument, const char *what, Oid type, int16 length, bool byval, char align, int *n)
{
	Datum	   *values;
	bool	   *nulls;
	int			count;

	if (PG_ARGISNULL(argument))
		queue_error_null(what);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argument), type, length, byval, align, &values, &nulls, &count);
	if (*n >= 0 && count != *n)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must have %d elements", what, *n),
				 errdetail("It has %d.", count)));
	for (int i = 0; i < count; i++)
		if (nulls[i])
			queue_error_null(psprintf("element of %s", what));
	*n = count;
	return values;
}

static Datum *
get_texts(FunctionCallInfo fcinfo, int argument, const char *what, int *n)
{
	return get_array(fcinfo, argument, what, TEXTOID, -1, false, TYPALIGN_INT, n);
}

static Datum *
get_numbers(FunctionCallInfo fcinfo, int argument, const char *what, Oid type, int *n)
{
	return get_array(fcinfo, argument, what, type, type == INT4OID ? 4 : 8, true,
					 type == INT4OID ? TYPALIGN_INT : TYPALIGN_DOUBLE, n);
}

static char *
to_utf8(Datum value)
{
	char	   *string = TextDatumGetCString(value);

	return pg_server_to_any(string, strlen(string), PG_UTF8);
}

PG_FUNCTION_INFO_V1(queue_relay_settle);
Datum
queue_relay_settle(PG_FUNCTION_ARGS)
{
	QueueRelay *relay = open_for_end(fcinfo, "queue._relay_settle()");
	int			n = -1;
	Datum	   *receipts = get_array(fcinfo, 2, "receipts", UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &n);
	Datum	   *verdicts = get_numbers(fcinfo, 3, "verdicts", INT4OID, &n);
	Datum	   *pauses = get_numbers(fcinfo, 4, "pauses", INT8OID, &n);
	Datum	   *details = get_texts(fcinfo, 5, "details", &n);
	Datum	   *messages = get_numbers(fcinfo, 6, "messages", INT8OID, &n);
	Datum	   *attempts = get_numbers(fcinfo, 7, "attempts", INT4OID, &n);
	Datum	   *events = get_texts(fcinfo, 8, "events", &n);
	Datum	   *targets = get_texts(fcinfo, 9, "targets", &n);
	QueueTransferEnd *ends = palloc(sizeof(QueueTransferEnd) * (n + 1));

	for (int i = 0; i < n; i++)
	{
		ends[i].receipt = *DatumGetUUIDP(receipts[i]);
		ends[i].verdict = DatumGetInt32(verdicts[i]);
		ends[i].pause = Max(DatumGetInt64(pauses[i]), 0);
		ends[i].detail = to_utf8(details[i]);
		ends[i].message = DatumGetInt64(messages[i]);
		ends[i].attempt = DatumGetInt32(attempts[i]);
		ends[i].event = to_utf8(events[i]);
		ends[i].target = to_utf8(targets[i]);
		if (ends[i].verdict < QUEUE_PUMP_DELIVERED || ends[i].verdict > QUEUE_PUMP_REJECTED || ends[i].pause > USECS_PER_DAY)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid verdict or pause of a message")));
	}
	PG_RETURN_INT32(queue_transfer_settle(relay, ends, n));
}

/* Delivered, failed, ambiguous, throttled, rejected since the last time; in flight, held, breaker, us that it is open. */
static void
read_status(FunctionCallInfo fcinfo, QueueRunnerStatus *status)
{
	int			n = QUEUE_RUNNER_PUMP_COUNTS + 4;
	Datum	   *numbers = get_numbers(fcinfo, 4, "status", INT8OID, &n);

	memset(status, 0, sizeof(*status));
	for (int i = 0; i < QUEUE_RUNNER_PUMP_COUNTS; i++)
		status->counts[i] = Max(DatumGetInt64(numbers[i]), 0);
	status->in_flight = (int) DatumGetInt64(numbers[QUEUE_RUNNER_PUMP_COUNTS]);
	status->held = (int) DatumGetInt64(numbers[QUEUE_RUNNER_PUMP_COUNTS + 1]);
	status->breaker = Min(Max((int) DatumGetInt64(numbers[QUEUE_RUNNER_PUMP_COUNTS + 2]), QUEUE_PUMP_CLOSED), QUEUE_PUMP_HALF_OPEN);
	status->breaker_for = Min(Max(DatumGetInt64(numbers[QUEUE_RUNNER_PUMP_COUNTS + 3]), 0), USECS_PER_DAY);
	if (!PG_ARGISNULL(5))
		status->error = queue_text_of_sink(to_utf8(PG_GETARG_DATUM(5)));
}

PG_FUNCTION_INFO_V1(queue_relay_renew);
Datum
queue_relay_renew(PG_FUNCTION_ARGS)
{
	static const char *const states[] = {"run", "changed", "paused", "lost"};
	QueueRelay *relay = open_for_end(fcinfo, "queue._relay_renew()");
	int64		epoch = get_epoch(fcinfo);
	int			n = -1;
	Datum	   *receipts = get_array(fcinfo, 2, "receipts", UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &n);
	const pg_uuid_t **held = palloc(sizeof(pg_uuid_t *) * (n + 1));
	QueueRunnerStatus status;
	QueueTransferState state;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (PG_ARGISNULL(3))
		queue_error_null("version");
	for (int i = 0; i < n; i++)
		held[i] = DatumGetUUIDP(receipts[i]);
	read_status(fcinfo, &status);
	state = relay ? queue_transfer_renew(relay, epoch, PG_GETARG_INT64(3), held, n, &status) : QUEUE_TRANSFER_PAUSED;
	if (state == QUEUE_TRANSFER_RUN && relay->in_server)
		state = QUEUE_TRANSFER_PAUSED;
	values[0] = CStringGetTextDatum(states[state]);
	values[1] = Int64GetDatum((int64) queue_transfer_standby());
	PG_RETURN_DATUM(make_row(fcinfo, values, nulls));
}

PG_FUNCTION_INFO_V1(queue_relay_end);
Datum
queue_relay_end(PG_FUNCTION_ARGS)
{
	QueueRelay *relay = open_for_end(fcinfo, "queue._relay_end()");
	int64		epoch = get_epoch(fcinfo);

	if (relay == NULL)
		PG_RETURN_VOID();
	if (!PG_ARGISNULL(2) && queue_runner_is(relay->id, epoch))
		queue_relay_set_pause(relay->id, true, text_to_cstring(PG_GETARG_TEXT_PP(2)));
	queue_runner_end(relay->id, epoch);
	PG_RETURN_VOID();
}

/* ---- watching ---- */

static void
put_time(Datum *value, bool *null, TimestampTz time)
{
	*null = time == 0;
	*value = TimestampTzGetDatum(time);
}

PG_FUNCTION_INFO_V1(queue_relay_status);
Datum
queue_relay_status(PG_FUNCTION_ARGS)
{
	static const char *const breakers[] = {"closed", "open", "half_open"};
	QueueRunner runner = {0};
	QueueRelay *relay = queue_relay_get_by_id(PG_GETARG_INT32(0));
	bool		may_watch = relay && OidIsValid(relay->view) && queue_acl_may_watch(relay->view);
	bool		runs = may_watch && queue_shmem_ready() && !RecoveryInProgress() &&
		queue_runner_get(PG_GETARG_INT32(0), &runner) && queue_runner_runs(&runner);
	Datum		values[18];
	bool		nulls[18] = {false};

	values[0] = Int64GetDatum(runner.epoch);
	nulls[0] = runner.epoch == 0;
	nulls[1] = nulls[2] = nulls[3] = nulls[4] = nulls[5] = !runs;
	values[1] = CStringGetTextDatum(runner.name);
	values[2] = TimestampTzGetDatum(runner.since);
	values[3] = Int32GetDatum(runner.in_flight);
	values[4] = Int32GetDatum(runner.held);
	values[5] = CStringGetTextDatum(breakers[runner.breaker]);
	nulls[6] = !runs || runner.breaker != QUEUE_PUMP_OPEN;
	values[6] = TimestampTzGetDatum(runner.breaker_until);
	for (int i = 0; i < QUEUE_RUNNER_COUNTS; i++)
		values[7 + i] = Int64GetDatum(runner.counts[i]);
	values[14] = Float8GetDatum(queue_runner_rate(&runner));
	put_time(&values[15], &nulls[15], runner.delivered_at);
	nulls[16] = runner.error[0] == '\0';
	values[16] = CStringGetTextDatum(runner.error);
	put_time(&values[17], &nulls[17], runner.error_at);
	PG_RETURN_DATUM(make_row(fcinfo, values, nulls));
}
