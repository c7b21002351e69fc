/*
 * statement.h
 *	  What is said to the remote server.
 */
#ifndef POSTGRES_STATEMENT_H
#define POSTGRES_STATEMENT_H

#include <stdbool.h>
#include <libpq-fe.h>

#include "options.h"
#include "text.h"

typedef struct PostgresStatement
{
	const PostgresOptions *options;
	Text		deliver;		/* the statement for a message */
	Text		probe;			/* gives what is missing, or NULL */
	Text		headers;		/* of the message at hand */
	char		statement_timeout[24];
} PostgresStatement;

/* Results that come before those of messages. */
#define STATEMENT_PREAMBLE 3

extern bool postgres_statement_init(PostgresStatement *statement, const PostgresOptions *options, int64_t timeout);
extern void postgres_statement_free(PostgresStatement *statement);
extern bool postgres_statement_begin(PostgresStatement *statement, PGconn *conn);
extern bool postgres_statement_message(PostgresStatement *statement, PGconn *conn, const QueueSinkMessage *message);
extern bool postgres_statement_end(PGconn *conn, const char *command);
extern bool postgres_statement_probe(PostgresStatement *statement, PGconn *conn);

#endif							/* POSTGRES_STATEMENT_H */
