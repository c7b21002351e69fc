/*
 * statement.c
 *	  What is said to the remote server.
 *
 * A batch is
 *
 *		BEGIN; settings for it; a statement without a name is prepared;
 *		that statement for each message; COMMIT
 *
 * and leaves nothing in the session, so that a pooler may give every transaction
 * another one. Values are parameters; the one name in a statement is quoted.
 * search_path is pg_catalog while messages are enqueued; a function finds the
 * search path of its role, as everywhere.
 *
 * Everything here only fills libpq's buffers. False: libpq or memory refused.
 */
#include "statement.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* OIDs of types that never change. */
#define TYPE_BOOL	16
#define TYPE_BYTEA	17
#define TYPE_TEXT	25
#define TYPE_JSONB	3802

static const char settings_to_enqueue[] =
"SELECT pg_catalog.set_config('statement_timeout', $1, true), "
"pg_catalog.set_config('search_path', 'pg_catalog', true)";

static const char settings_to_call[] =
"SELECT pg_catalog.set_config('statement_timeout', $1, true)";

static const char enqueue[] =
"SELECT CASE WHEN $6 THEN queue.enqueue($1, pg_catalog.convert_from($2, 'UTF8')::pg_catalog.jsonb, "
"key => $3, headers => $4, dedup_key => $5) "
"ELSE queue.enqueue_bytes($1, $2, key => $3, headers => $4, dedup_key => $5) END";

static const char probe_queue[] =
"SELECT CASE WHEN pg_catalog.to_regproc('queue.enqueue_bytes') IS NULL "
"THEN 'the extension \"queue\" is not there' "
"WHEN pg_catalog.to_regclass(pg_catalog.format('queues.%I', $1)) IS NULL "
"THEN pg_catalog.format('queue \"%s\" does not exist', $1) "
"WHEN pg_catalog.has_table_privilege(pg_catalog.format('queues.%I', $1), 'INSERT') THEN NULL "
"ELSE pg_catalog.format('no privilege to enqueue to \"%s\"', $1) END";

static const char probe_function[] =
"SELECT CASE WHEN pg_catalog.to_regprocedure($1) IS NULL "
"THEN pg_catalog.format('function %s does not exist', $1) "
"WHEN pg_catalog.has_function_privilege($1, 'EXECUTE') THEN NULL "
"ELSE pg_catalog.format('no privilege to call %s', $1) END";

static const Oid enqueue_types[] = {TYPE_TEXT, TYPE_BYTEA, TYPE_TEXT, TYPE_JSONB, TYPE_TEXT, TYPE_BOOL};
static const Oid call_types[] = {TYPE_TEXT, TYPE_TEXT, TYPE_JSONB, TYPE_TEXT, TYPE_BYTEA};

static bool
is_call(const PostgresStatement *statement)
{
	return statement->options->values[OPTION_FUNCTION] != NULL;
}

static void
init_call(PostgresStatement *statement)
{
	char	   *name = postgres_options_function(statement->options->values[OPTION_FUNCTION]);

	text_add_string(&statement->deliver, "SELECT ");
	text_add_string(&statement->deliver, name ? name : "");
	text_add_string(&statement->deliver, "($1, $2, $3, $4, $5)");
	/* The probe's parameter, and not the statement. */
	text_add_string(&statement->probe, name ? name : "");
	text_add_string(&statement->probe, "(pg_catalog.text,pg_catalog.text,pg_catalog.jsonb,pg_catalog.text,pg_catalog.bytea)");
	statement->deliver.broken |= name == NULL;
	free(name);
}

bool
postgres_statement_init(PostgresStatement *statement, const PostgresOptions *options, int64_t timeout)
{
	/* The server's answer is worth more than our giving up: it comes first. */
	int64_t		limit = timeout - timeout / 4;

	memset(statement, 0, sizeof(*statement));
	statement->options = options;
	snprintf(statement->statement_timeout, sizeof(statement->statement_timeout), "%d",
			 limit < 1 ? 1 : limit > 2000000000 ? 2000000000 : (int) limit);
	if (is_call(statement))
		init_call(statement);
	else
	{
		text_add_string(&statement->deliver, enqueue);
		text_add_string(&statement->probe, options->values[OPTION_QUEUE]);
	}
	return !statement->deliver.broken && !statement->probe.broken;
}

void
postgres_statement_free(PostgresStatement *statement)
{
	text_free(&statement->deliver);
	text_free(&statement->probe);
	text_free(&statement->headers);
}

/* Begins a batch: STATEMENT_PREAMBLE statements. */
bool
postgres_statement_begin(PostgresStatement *statement, PGconn *conn)
{
	const char *timeout = statement->statement_timeout;
	bool		call = is_call(statement);

	return PQsendQueryParams(conn, "BEGIN ISOLATION LEVEL READ COMMITTED", 0, NULL, NULL, NULL, NULL, 0) == 1 &&
		PQsendQueryParams(conn, call ? settings_to_call : settings_to_enqueue, 1, NULL, &timeout, NULL, NULL, 0) == 1 &&
		PQsendPrepare(conn, "", statement->deliver.data, call ? 5 : 6, call ? call_types : enqueue_types) == 1;
}

/* Is it application/json or anything that ends with +json? */
static bool
is_json(const char *content_type)
{
	size_t		length = strcspn(content_type, "; ");

	return (length == 16 && strncasecmp(content_type, "application/json", 16) == 0) ||
		(length > 5 && strncasecmp(content_type + length - 5, "+json", 5) == 0);
}

/*
 * The headers as a JSON object, with the type of the content. Those of the
 * extension at our end are not taken by the one at the other.
 */
static void
make_headers(Text *made, const QueueSinkMessage *message, bool call)
{
	text_clear(made);
	text_add_string(made, "{\"content-type\": ");
	text_add_json(made, message->content_type);
	for (int i = 0; i < message->header_count; i++)
	{
		const QueueSinkHeader *header = &message->headers[i];

		if (strcmp(header->name, "content-type") == 0 ||
			(!call && strncmp(header->name, "queue.", 6) == 0))
			continue;
		text_add_string(made, ", ");
		text_add_json(made, header->name);
		text_add_string(made, ": ");
		text_add_json(made, header->value);
	}
	text_add_string(made, "}");
}

/* Adds one message. */
bool
postgres_statement_message(PostgresStatement *statement, PGconn *conn, const QueueSinkMessage *message)
{
	const char *body = message->body_length ? message->body : "";
	const char *queue = *message->target ? message->target : statement->options->values[OPTION_QUEUE];
	int			length = (int) message->body_length;

	make_headers(&statement->headers, message, is_call(statement));
	if (statement->headers.broken)
		return false;
	if (is_call(statement))
	{
		const char *values[] = {message->id, message->key, statement->headers.data, message->content_type, body};
		const int	lengths[] = {0, 0, 0, 0, length};
		const int	formats[] = {0, 0, 0, 0, 1};

		return PQsendQueryPrepared(conn, "", 5, values, lengths, formats, 0) == 1;
	}
	else
	{
		const char *values[] = {queue, body, message->key, statement->headers.data, message->id,
		is_json(message->content_type) ? "t" : "f"};
		const int	lengths[] = {0, length, 0, 0, 0, 0};
		const int	formats[] = {0, 1, 0, 0, 0, 0};

		return PQsendQueryPrepared(conn, "", 6, values, lengths, formats, 0) == 1;
	}
}

/* Ends a batch with COMMIT, or a transaction that failed with ROLLBACK. */
bool
postgres_statement_end(PGconn *conn, const char *command)
{
	return PQsendQueryParams(conn, command, 0, NULL, NULL, NULL, NULL, 0) == 1 && PQpipelineSync(conn) == 1;
}

/* Asks what is missing for a delivery. */
bool
postgres_statement_probe(PostgresStatement *statement, PGconn *conn)
{
	const Oid	type = TYPE_TEXT;
	const char *value = statement->probe.data;

	return PQsendQueryParams(conn, is_call(statement) ? probe_function : probe_queue, 1, &type, &value, NULL, NULL, 0) == 1 &&
		PQpipelineSync(conn) == 1;
}
