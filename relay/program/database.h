/*
 * database.h
 *	  The connection for statements, which are short.
 */
#ifndef DATABASE_H
#define DATABASE_H

#include <stdbool.h>
#include <stdint.h>

#include <libpq-fe.h>

#define DATABASE_PARAMETERS 10

/* What is run; each is prepared when it is run first. */
typedef enum DatabaseStatement
{
	DATABASE_SETUP,
	DATABASE_LOOK,
	DATABASE_LIST,
	DATABASE_BEGIN,
	DATABASE_TAKE,
	DATABASE_SETTLE,
	DATABASE_RENEW,
	DATABASE_END,
	DATABASE_CANCEL,
	DATABASE_STATEMENTS
} DatabaseStatement;

/* In binary format. */
typedef struct DatabaseParameters
{
	int			count;
	const char *values[DATABASE_PARAMETERS];
	int			lengths[DATABASE_PARAMETERS];
	char		numbers[DATABASE_PARAMETERS][8];
} DatabaseParameters;

/* Waits for events of the socket, or for anything else, until a time at the most. */
typedef void (*DatabaseWait) (void *context, int socket, short events, int64_t until);

typedef struct Database
{
	PGconn	   *connection;		/* NULL: there is none */
	bool		prepared[DATABASE_STATEMENTS];
	DatabaseWait wait;
	void	   *context;

	/* why the last call failed */
	char		error[1024];
	char		sqlstate[6];	/* "": the connection is gone */
} Database;

extern bool database_connect(Database *database, const char *conninfo, const char *application);
extern void database_close(Database *database);
extern PGresult * database_run(Database *database, DatabaseStatement statement,
							   const DatabaseParameters *parameters, int64_t deadline);

extern void database_add(DatabaseParameters *parameters, const void *value, size_t length);
extern void database_add_text(DatabaseParameters *parameters, const char *text);
extern void database_add_int4(DatabaseParameters *parameters, int32_t value);
extern void database_add_int8(DatabaseParameters *parameters, int64_t value);

#endif							/* DATABASE_H */
