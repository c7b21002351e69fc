/*
 * database.c
 *	  The connection for statements, which are short.
 *
 * One statement at a time. While its answer is awaited the caller's function
 * waits, and may do other work; a statement that has no answer by its deadline
 * ends the connection: what became of it is unknown then.
 *
 * Connecting waits, so it is done when there is nothing else to do.
 */
#include <poll.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "clock.h"
#include "database.h"

/*
 * What is set up does not depend on settings of the role or of the database: in
 * the schemas of these there may be anything. The view says in a plain row what
 * else would be an error in the server's log, once a second.
 */
static const char *const statements[DATABASE_STATEMENTS] = {
	[DATABASE_SETUP] = "SELECT pg_catalog.set_config(name, setting, false) FROM (VALUES "
	"('search_path', 'pg_catalog, pg_temp'), ('statement_timeout', '0'), ('lock_timeout', '1s'), "
	"('default_transaction_isolation', 'read committed'), ('default_transaction_read_only', 'off')) s (name, setting)",
	[DATABASE_LOOK] = "SELECT state, runner FROM queue.relays WHERE relay = $1",
	[DATABASE_LIST] = "SELECT relay FROM queue.relays WHERE options ->> 'runner' = 'program' AND "
	"pg_catalog.pg_has_role(owner, 'USAGE') ORDER BY relay",
	[DATABASE_BEGIN] = "SELECT epoch, library, queue, settings, trusted, version, max_in_flight, timeout, ordered, "
	"breaker_failures, breaker_pause, breaker_pause_max, lease, max_bytes FROM queue._relay_begin($1, $2)",
	[DATABASE_TAKE] = "SELECT receipt, message, attempt, gate, event, key, target, content_type, headers, body, lane "
	"FROM queue._relay_take($1, $2, $3)",
	[DATABASE_SETTLE] = "SELECT queue._relay_settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
	[DATABASE_RENEW] = "SELECT state, gate FROM queue._relay_renew($1, $2, $3, $4, $5, $6)",
	[DATABASE_END] = "SELECT queue._relay_end($1, $2, $3)",
	[DATABASE_CANCEL] = "SELECT pg_catalog.pg_cancel_backend($1)",
};

/* ---- parameters ---- */

/* NULL: null. The value stays where it is. */
void
database_add(DatabaseParameters *parameters, const void *value, size_t length)
{
	parameters->values[parameters->count] = value;
	parameters->lengths[parameters->count++] = (int) length;
}

void
database_add_text(DatabaseParameters *parameters, const char *text)
{
	database_add(parameters, text, text ? strlen(text) : 0);
}

void
database_add_int4(DatabaseParameters *parameters, int32_t value)
{
	char	   *number = parameters->numbers[parameters->count];

	bytes_put_int4(number, value);
	database_add(parameters, number, 4);
}

void
database_add_int8(DatabaseParameters *parameters, int64_t value)
{
	char	   *number = parameters->numbers[parameters->count];

	bytes_put_int8(number, value);
	database_add(parameters, number, 8);
}

/* ---- the connection ---- */

static void
note_error(Database *database, const char *message, const char *sqlstate)
{
	size_t		length;

	snprintf(database->error, sizeof(database->error), "%s", message && message[0] ? message : "no reason was given");
	snprintf(database->sqlstate, sizeof(database->sqlstate), "%s", sqlstate ? sqlstate : "");
	length = strlen(database->error);
	while (length > 0 && database->error[length - 1] == '\n')
		database->error[--length] = '\0';
}

void
database_close(Database *database)
{
	if (database->connection)
		PQfinish(database->connection);
	database->connection = NULL;
}

static void
give_up(Database *database, const char *reason)
{
	note_error(database, reason, "");
	database_close(database);
}

/*
 * Waits for a server that can be written to. What stands before "dbname" is a
 * default, which the connection string has the better of. False: why not is in
 * "error".
 */
bool
database_connect(Database *database, const char *conninfo, const char *application)
{
	const char *names[] = {"target_session_attrs", "connect_timeout", "keepalives_idle", "keepalives_interval",
	"keepalives_count", "tcp_user_timeout", "fallback_application_name", "dbname", "client_encoding", NULL};
	const char *values[] = {"read-write", "10", "5", "3", "3", "15000", application, conninfo, "UTF8", NULL};
	DatabaseParameters none = {0};
	PGresult   *result;

	/*
	 * The environment counts less than an argument, even one that is a
	 * default.
	 */
	if (getenv("PGTARGETSESSIONATTRS"))
		values[0] = getenv("PGTARGETSESSIONATTRS");
	if (getenv("PGCONNECT_TIMEOUT"))
		values[1] = getenv("PGCONNECT_TIMEOUT");
	database_close(database);
	memset(database->prepared, 0, sizeof(database->prepared));
	database->connection = PQconnectdbParams(names, values, 1);
	if (PQstatus(database->connection) != CONNECTION_OK || PQsetnonblocking(database->connection, 1) != 0)
	{
		give_up(database, PQerrorMessage(database->connection));
		return false;
	}
	result = database_run(database, DATABASE_SETUP, &none, clock_now() + 10 * SECOND);
	PQclear(result);
	return result != NULL;
}

/* ---- statements ---- */

/* Sends and receives until there is a result, or the end of them. False: the connection is gone. */
static bool
wait_for_result(Database *database, int64_t deadline)
{
	PGconn	   *connection = database->connection;

	for (;;)
	{
		int			left = PQflush(connection);

		if (left < 0 || !PQconsumeInput(connection))
		{
			give_up(database, PQerrorMessage(connection));
			return false;
		}
		if (!PQisBusy(connection))
			return true;
		if (clock_now() >= deadline)
		{
			give_up(database, "the server did not answer in time");
			return false;
		}
		database->wait(database->context, PQsocket(connection), left > 0 ? POLLIN | POLLOUT : POLLIN, deadline);
	}
}

/* The one result of what was sent; NULL: it failed. */
static PGresult *
receive(Database *database, int64_t deadline)
{
	PGresult   *last = NULL;

	for (;;)
	{
		PGresult   *result;

		if (!wait_for_result(database, deadline))
		{
			PQclear(last);
			return NULL;
		}
		result = PQgetResult(database->connection);
		if (result == NULL)
			break;
		PQclear(last);
		last = result;
	}
	if (PQstatus(database->connection) != CONNECTION_OK)
		give_up(database, PQerrorMessage(database->connection));
	else if (PQresultStatus(last) == PGRES_TUPLES_OK || PQresultStatus(last) == PGRES_COMMAND_OK)
		return last;
	else
	{
		const char *message = PQresultErrorField(last, PG_DIAG_MESSAGE_PRIMARY);
		const char *sqlstate = PQresultErrorField(last, PG_DIAG_SQLSTATE);

		note_error(database, message ? message : PQresultErrorMessage(last), sqlstate ? sqlstate : "XX000");
	}
	PQclear(last);
	return NULL;
}

static bool
prepare(Database *database, DatabaseStatement statement, const char *name, int64_t deadline)
{
	PGresult   *result;

	if (database->prepared[statement])
		return true;
	if (!PQsendPrepare(database->connection, name, statements[statement], 0, NULL))
	{
		give_up(database, PQerrorMessage(database->connection));
		return false;
	}
	result = receive(database, deadline);
	database->prepared[statement] = result != NULL;
	PQclear(result);
	return database->prepared[statement];
}

/*
 * Run one statement; its result has values in binary format. NULL: it failed,
 * and the reason is in "error"; the connection may be gone.
 */
PGresult *
database_run(Database *database, DatabaseStatement statement, const DatabaseParameters *parameters, int64_t deadline)
{
	static const int binary[DATABASE_PARAMETERS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
	char		name[8];

	if (database->connection == NULL)
	{
		note_error(database, "there is no connection", "");
		return NULL;
	}
	snprintf(name, sizeof(name), "s%d", (int) statement);
	if (!prepare(database, statement, name, deadline))
		return NULL;
	if (!PQsendQueryPrepared(database->connection, name, parameters->count, parameters->values,
							 parameters->lengths, binary, 1))
	{
		give_up(database, PQerrorMessage(database->connection));
		return NULL;
	}
	return receive(database, deadline);
}
