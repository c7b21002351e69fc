/*-------------------------------------------------------------------------
 *
 * minimal_pq.c
 *	  What libpq can do: the least program that enqueues on another server.
 *
 *	minimal_pq CONNINFO QUEUE COUNT BATCH BYTES	prints messages a second
 *
 * A batch is a transaction in a pipeline, each message a statement with a
 * dedup_key; the next batch is sent when the one before was answered.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include <libpq-fe.h>

#include "clock.h"

static PGconn *conn;

static void
die(const char *what)
{
	fprintf(stderr, "minimal_pq: %s: %s", what, conn ? PQerrorMessage(conn) : "\n");
	exit(1);
}

static void
ask(const char *sql)
{
	PGresult   *result = PQexec(conn, sql);

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die(sql);
	PQclear(result);
}

static void
send_batch(const char *queue, long done, int batch, const char *payload)
{
	static long run;

	if (run == 0)
		run = (long) (now_ns() / 1000);
	if (!PQsendQueryPrepared(conn, "begin", 0, NULL, NULL, NULL, 0))
		die("begin");
	for (int i = 0; i < batch; i++)
	{
		char		key[32];
		char		id[64];
		char		headers[512];
		const char *values[] = {queue, payload, key, headers, id};

		snprintf(key, sizeof(key), "key %ld", (done + i) % 1000);
		snprintf(id, sizeof(id), "%ld-%lx", done + i, run);
		snprintf(headers, sizeof(headers),
				 "{\"content-type\": \"application/json\", \"ce-specversion\": \"1.0\", \"ce-id\": \"%s\","
				 " \"ce-source\": \"/queue/bench_relay\", \"ce-type\": \"bench_relay\","
				 " \"ce-time\": \"2026-11-29T16:45:30.617592Z\", \"ce-partitionkey\": \"%s\"}", id, key);
		if (!PQsendQueryPrepared(conn, "enqueue", 5, values, NULL, NULL, 0))
			die("enqueue");
	}
	if (!PQsendQueryPrepared(conn, "commit", 0, NULL, NULL, NULL, 0) || !PQpipelineSync(conn))
		die("commit");
}

static void
take_answers(void)
{
	for (;;)
	{
		PGresult   *result = PQgetResult(conn);
		ExecStatusType status = PQresultStatus(result);

		if (result == NULL)
			continue;
		if (status == PGRES_PIPELINE_SYNC)
		{
			PQclear(result);
			return;
		}
		if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
			die("an answer");
		PQclear(result);
	}
}

static void
prepare(const char *name, const char *sql)
{
	PGresult   *result = PQprepare(conn, name, sql, 0, NULL);

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die(sql);
	PQclear(result);
}

int
main(int argc, char **argv)
{
	char		payload[65536];
	long		count;
	int			batch;
	int64_t		start;

	if (argc != 6)
		die("usage: minimal_pq CONNINFO QUEUE COUNT BATCH BYTES");
	count = atol(argv[3]);
	batch = atoi(argv[4]);
	make_payload(payload, sizeof(payload), 1, atoi(argv[5]));
	conn = PQconnectdb(argv[1]);
	if (PQstatus(conn) != CONNECTION_OK)
		die("cannot connect");
	ask("SET search_path = pg_catalog");
	prepare("begin", "BEGIN ISOLATION LEVEL READ COMMITTED");
	prepare("commit", "COMMIT");
	prepare("enqueue", "SELECT queue.enqueue($1, $2::jsonb, key => $3, headers => $4, dedup_key => $5)");
	if (PQenterPipelineMode(conn) != 1)
		die("pipeline");
	start = now_ns();
	for (long done = 0; done < count; done += batch)
	{
		send_batch(argv[2], done, batch, payload);
		take_answers();
	}
	printf("%.1f\n", count / ((now_ns() - start) / 1e9));
	PQfinish(conn);
	return 0;
}
