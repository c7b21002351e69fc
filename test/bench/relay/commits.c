/*-------------------------------------------------------------------------
 *
 * commits.c
 *	  A client that commits a message now and then.
 *
 *	commits QUEUE COUNT MS BYTES LOG
 *
 * Notes when each COMMIT was answered. PGHOST and so on say where the server is.
 *
 *-------------------------------------------------------------------------
 */
#include <libpq-fe.h>

#include "clock.h"

static PGconn *conn;

static void
check(PGresult *result, const char *what)
{
	if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		fprintf(stderr, "commits: %s: %s", what, PQerrorMessage(conn));
		exit(1);
	}
	PQclear(result);
}

int
main(int argc, char **argv)
{
	char		payload[65536];
	char		key[32];
	FILE	   *log;

	if (argc != 6)
	{
		fprintf(stderr, "usage: commits QUEUE COUNT MS BYTES LOG\n");
		return 2;
	}
	log = open_log(argv[5]);
	conn = PQconnectdb("application_name=commits");
	check(PQprepare(conn, "enqueue", "SELECT queue.enqueue($1, $2::jsonb, key => $3)", 0, NULL), "enqueue");
	for (long i = 1; i <= atol(argv[2]); i++)
	{
		const char *values[] = {argv[1], payload, key};

		make_payload(payload, sizeof(payload), i, atoi(argv[4]));
		snprintf(key, sizeof(key), "key %ld", i % 1000);
		pause_about(atoi(argv[3]));
		check(PQexec(conn, "BEGIN"), "BEGIN");
		check(PQexecPrepared(conn, "enqueue", 3, values, NULL, NULL, 0), "enqueue");
		check(PQexec(conn, "COMMIT"), "COMMIT");
		note(log, i, now_ns());
	}
	fclose(log);
	PQfinish(conn);
	return 0;
}
