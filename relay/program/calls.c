/*
 * calls.c
 *	  The functions of the server for runners, as functions of C: see
 *	  sql/extension/relaying.sql.
 *
 * Each is a statement, and a transaction, of its own. What fails has left its
 * reason in the database's "error".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "calls.h"

_Static_assert(sizeof(QueueSinkSetting) == 2 * sizeof(char *), "settings are name and value by turns");
_Static_assert(sizeof(QueueSinkHeader) == 2 * sizeof(char *), "headers are name and value by turns");

/* What the server returns is not what this program was written for. */
static void
refuse(Database *database, const char *what)
{
	snprintf(database->error, sizeof(database->error), "%s is of another version of the extension", what);
	snprintf(database->sqlstate, sizeof(database->sqlstate), "%s", "0A000");
}

static int64_t
int8_at(const PGresult * result, int column)
{
	return bytes_int8(PQgetvalue(result, 0, column));
}

static int32_t
int4_at(const PGresult * result, int column)
{
	return bytes_int4(PQgetvalue(result, 0, column));
}

/* ---- begin ---- */

/*
 * Whether nothing is known to be in the way of becoming the runner; else what
 * is goes to "obstacle".
 */
bool
calls_look(Database *database, const char *relay, int64_t deadline, char *obstacle, size_t size)
{
	DatabaseParameters parameters = {0};
	PGresult   *result;
	const char *state;

	database_add_text(&parameters, relay);
	result = database_run(database, DATABASE_LOOK, &parameters, deadline);
	obstacle[0] = '\0';
	if (result == NULL)
		return false;
	/* Who does not see it is told why by the attempt. */
	state = PQntuples(result) == 1 ? PQgetvalue(result, 0, 0) : "waiting";
	if (strcmp(state, "paused") == 0)
		snprintf(obstacle, size, "it is paused");
	else if (strcmp(state, "foreign") == 0)
		snprintf(obstacle, size, "it was made in another database, and not adopted in this one");
	else if (strcmp(state, "waiting") != 0)
		snprintf(obstacle, size, "it is run by %s", PQgetvalue(result, 0, 1));
	PQclear(result);
	return obstacle[0] == '\0';
}

static bool
read_settings(CallsRelay *relay, PGresult * result)
{
	int			n;

	relay->settings = (QueueSinkSetting *) bytes_texts(PQgetvalue(result, 0, 3), PQgetlength(result, 0, 3), &n);
	relay->setting_count = relay->settings ? n / 2 : 0;
	return relay->settings && n % 2 == 0;
}

/* The result stays with the relay until that is freed. */
static bool
read_relay(CallsRelay *relay, PGresult * result)
{
	relay->result = result;
	if (PQntuples(result) != 1 || PQnfields(result) != 14 || !read_settings(relay, result))
		return false;
	relay->epoch = int8_at(result, 0);
	relay->library = PQgetvalue(result, 0, 1);
	relay->queue = PQgetvalue(result, 0, 2);
	relay->trusted = PQgetvalue(result, 0, 4)[0] != 0;
	relay->version = int8_at(result, 5);
	relay->pump.max_in_flight = int4_at(result, 6);
	relay->pump.max_bytes = int8_at(result, 13);
	relay->pump.timeout = int8_at(result, 7);
	relay->pump.ordered = PQgetvalue(result, 0, 8)[0] != 0;
	relay->pump.breaker_failures = int4_at(result, 9);
	relay->pump.breaker_pause = int8_at(result, 10);
	relay->pump.breaker_pause_max = int8_at(result, 11);
	relay->lease = int8_at(result, 12) * 1000;
	return true;
}

/* Become the runner. */
bool
calls_begin(Database *database, const char *name, const char *runner, int64_t deadline, CallsRelay *relay)
{
	DatabaseParameters parameters = {0};
	PGresult   *result;

	memset(relay, 0, sizeof(*relay));
	database_add_text(&parameters, name);
	database_add_text(&parameters, runner);
	result = database_run(database, DATABASE_BEGIN, &parameters, deadline);
	if (result == NULL)
		return false;
	if (read_relay(relay, result))
		return true;
	calls_free_relay(relay);
	refuse(database, "queue._relay_begin()");
	return false;
}

/* It has secrets. */
void
calls_free_relay(CallsRelay *relay)
{
	for (int i = 0; i < relay->setting_count; i++)
		explicit_bzero((char *) relay->settings[i].value, strlen(relay->settings[i].value));
	free(relay->settings);
	PQclear(relay->result);
	memset(relay, 0, sizeof(*relay));
}

/* ---- take ---- */

/* NULL: it is not as it should be. */
static QueuePumpMessage *
read_message(PGresult * result, int row, int64_t epoch)
{
	int			n;
	const char **texts = bytes_texts(PQgetvalue(result, row, 8), PQgetlength(result, row, 8), &n);
	QueueSinkMessage message = {
		.id = PQgetvalue(result, row, 4),
		.key = PQgetisnull(result, row, 5) ? NULL : PQgetvalue(result, row, 5),
		.target = PQgetvalue(result, row, 6),
		.content_type = PQgetvalue(result, row, 7),
		.headers = (const QueueSinkHeader *) texts,
		.header_count = n / 2,
		.attempt = bytes_int4(PQgetvalue(result, row, 2)),
		.body = PQgetvalue(result, row, 9),
		.body_length = PQgetlength(result, row, 9),
		.epoch = epoch
	};
	const char *lane = PQgetisnull(result, row, 10) ? NULL : PQgetvalue(result, row, 10);
	QueuePumpMessage *copy;

	if (texts == NULL || n % 2 != 0 || PQgetlength(result, row, 0) != QUEUE_PUMP_RECEIPT_LENGTH)
	{
		free(texts);
		return NULL;
	}
	copy = queue_pump_message_new(&message, (unsigned char *) PQgetvalue(result, row, 0), lane);
	if (copy)
	{
		copy->number = bytes_int8(PQgetvalue(result, row, 1));
		copy->gate = (uint64_t) bytes_int8(PQgetvalue(result, row, 3));
	}
	free(texts);
	return copy;
}

/* Lease messages; returns how many, -1: it failed. */
int
calls_take(Database *database, const char *relay, int64_t epoch, int wanted, int64_t deadline,
		   CallsReceive receive, void *context)
{
	DatabaseParameters parameters = {0};
	PGresult   *result;
	int			n;

	database_add_text(&parameters, relay);
	database_add_int8(&parameters, epoch);
	database_add_int4(&parameters, wanted);
	result = database_run(database, DATABASE_TAKE, &parameters, deadline);
	if (result == NULL)
		return -1;
	n = PQntuples(result);
	for (int i = 0; i < n; i++)
	{
		QueuePumpMessage *message = read_message(result, i, epoch);

		if (message)
			receive(context, message);
	}
	PQclear(result);
	return n;
}

/* ---- settle ---- */

enum
{
	RECEIPTS, VERDICTS, PAUSES, DETAILS, NUMBERS, ATTEMPTS, EVENTS, TARGETS, ARRAYS
};

static void
add_end(Array *arrays, const QueuePumpMessage * message, bool ascii)
{
	char	   *detail = bytes_clean_text(message->detail, ascii);

	array_add(&arrays[RECEIPTS], message->receipt, QUEUE_PUMP_RECEIPT_LENGTH);
	array_add_int4(&arrays[VERDICTS], (int32_t) message->verdict);
	array_add_int8(&arrays[PAUSES], message->pause);
	array_add_text(&arrays[DETAILS], detail);
	array_add_int8(&arrays[NUMBERS], message->number);
	array_add_int4(&arrays[ATTEMPTS], message->sink.attempt);
	array_add_text(&arrays[EVENTS], message->sink.id);
	array_add_text(&arrays[TARGETS], message->sink.target);
	free(detail);
}

static void
add_array(DatabaseParameters *parameters, Array *array)
{
	array_finish(array);
	database_add(parameters, array->data, array->used);
}

/* Whether the server may lack characters that others have. */
static bool
needs_ascii(const Database *database)
{
	const char *encoding = database->connection ? PQparameterStatus(database->connection, "server_encoding") : NULL;

	return encoding == NULL || strcmp(encoding, "UTF8") != 0;
}

/* End leases, in order. */
bool
calls_settle(Database *database, const char *relay, int64_t epoch, QueuePumpMessage * const *messages,
			 int count, int64_t deadline)
{
	static const uint32_t types[ARRAYS] = {ARRAY_UUID, ARRAY_INT4, ARRAY_INT8, ARRAY_TEXT, ARRAY_INT8, ARRAY_INT4,
	ARRAY_TEXT, ARRAY_TEXT};
	DatabaseParameters parameters = {0};
	Array		arrays[ARRAYS];
	PGresult   *result;
	bool		ascii = needs_ascii(database);

	for (int i = 0; i < ARRAYS; i++)
		array_begin(&arrays[i], types[i]);
	for (int i = 0; i < count; i++)
		add_end(arrays, messages[i], ascii);
	database_add_text(&parameters, relay);
	database_add_int8(&parameters, epoch);
	for (int i = 0; i < ARRAYS; i++)
		add_array(&parameters, &arrays[i]);
	result = database_run(database, DATABASE_SETTLE, &parameters, deadline);
	for (int i = 0; i < ARRAYS; i++)
		array_free(&arrays[i]);
	PQclear(result);
	return result != NULL;
}

/* ---- renew ---- */

static bool
read_state(PGresult * result, CallsState *state, uint64_t * gate)
{
	static const char *const states[] = {"run", "changed", "paused", "lost"};

	if (PQntuples(result) != 1 || PQgetlength(result, 0, 1) != 8)
		return false;
	*gate = (uint64_t) int8_at(result, 1);
	for (int i = CALLS_RUN; i <= CALLS_LOST; i++)
		if (strcmp(PQgetvalue(result, 0, 0), states[i]) == 0)
		{
			*state = i;
			return true;
		}
	return false;
}

/* The runner is alive. */
bool
calls_renew(Database *database, const char *relay, int64_t epoch, int64_t version,
			const unsigned char *const *receipts, int count, const CallsStatus *status,
			int64_t deadline, CallsState *state, uint64_t * gate)
{
	DatabaseParameters parameters = {0};
	Array		held;
	Array		numbers;
	char	   *error = status->error ? bytes_clean_text(status->error, needs_ascii(database)) : NULL;
	PGresult   *result;
	bool		good;

	array_begin(&held, ARRAY_UUID);
	array_begin(&numbers, ARRAY_INT8);
	for (int i = 0; i < count; i++)
		array_add(&held, receipts[i], QUEUE_PUMP_RECEIPT_LENGTH);
	for (int i = 0; i < CALLS_COUNTS; i++)
		array_add_int8(&numbers, status->numbers[i]);
	database_add_text(&parameters, relay);
	database_add_int8(&parameters, epoch);
	add_array(&parameters, &held);
	database_add_int8(&parameters, version);
	add_array(&parameters, &numbers);
	database_add_text(&parameters, error);
	result = database_run(database, DATABASE_RENEW, &parameters, deadline);
	array_free(&held);
	array_free(&numbers);
	free(error);
	good = result && read_state(result, state, gate);
	if (result && !good)
		refuse(database, "queue._relay_renew()");
	PQclear(result);
	return good;
}

/* ---- end ---- */

/* With a reason the relay is paused. */
bool
calls_end(Database *database, const char *relay, int64_t epoch, const char *reason, int64_t deadline)
{
	DatabaseParameters parameters = {0};
	char	   *text = reason ? bytes_clean_text(reason, needs_ascii(database)) : NULL;
	PGresult   *result;

	database_add_text(&parameters, relay);
	database_add_int8(&parameters, epoch);
	database_add_text(&parameters, text);
	result = database_run(database, DATABASE_END, &parameters, deadline);
	free(text);
	PQclear(result);
	return result != NULL;
}

/* The statement that another connection runs. */
void
calls_cancel(Database *database, int pid, int64_t deadline)
{
	DatabaseParameters parameters = {0};

	database_add_int4(&parameters, pid);
	PQclear(database_run(database, DATABASE_CANCEL, &parameters, deadline));
}
