/*-------------------------------------------------------------------------
 *
 * sleepers.c
 *	  Many sessions that sleep most of the time, in one thread.
 *
 *	sleepers COUNT [SQL]...
 *
 * Each session runs the statements in turn, for ever, prepared; after a
 * statement that begins with LISTEN it only reads what it is told. pgbench
 * looks at all of its sessions whenever one of them has something, which with
 * a thousand of them costs more than what is measured; this program looks at
 * the one. PGHOST and so on say where the server is.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <libpq-fe.h>

typedef struct Session
{
	PGconn	   *conn;
	int			next;
} Session;

static int	statements;
static char **sql;

static void
die(PGconn *conn, const char *what)
{
	fprintf(stderr, "sleepers: %s: %s", what, conn ? PQerrorMessage(conn) : "\n");
	exit(1);
}

static void
send_next(Session *session)
{
	char		name[16];

	snprintf(name, sizeof(name), "s%d", session->next);
	if (!PQsendQueryPrepared(session->conn, name, 0, NULL, NULL, NULL, 0) || PQflush(session->conn) != 0)
		die(session->conn, sql[session->next]);
	session->next = (session->next + 1) % statements;
}

static void
open_session(Session *session)
{
	session->conn = PQconnectdb("");
	if (PQstatus(session->conn) != CONNECTION_OK)
		die(session->conn, "cannot connect");
	for (int i = 0; i < statements; i++)
	{
		char		name[16];
		PGresult   *res;

		snprintf(name, sizeof(name), "s%d", i);
		res = PQprepare(session->conn, name, sql[i], 0, NULL);
		if (PQresultStatus(res) != PGRES_COMMAND_OK)
			die(session->conn, sql[i]);
		PQclear(res);
	}
}

/* Something came: the end of a statement, or what a listener is told. */
static void
serve(Session *session)
{
	PGnotify   *notify;
	PGresult   *res;
	int			done = (session->next + statements - 1) % statements;
	int			ended = 0;

	if (!PQconsumeInput(session->conn))
		die(session->conn, "lost connection");
	while ((notify = PQnotifies(session->conn)) != NULL)
		PQfreemem(notify);
	while (!PQisBusy(session->conn) && (res = PQgetResult(session->conn)) != NULL)
	{
		if (PQresultStatus(res) != PGRES_COMMAND_OK && PQresultStatus(res) != PGRES_TUPLES_OK)
			die(session->conn, sql[done]);
		PQclear(res);
		ended = 1;
	}
	if (ended && strncasecmp(sql[done], "LISTEN", 6) != 0)
		send_next(session);
}

int
main(int argc, char **argv)
{
	int			count = argc > 2 ? atoi(argv[1]) : 0;
	int			epoll = epoll_create1(0);
	Session    *sessions = calloc(count + 1, sizeof(Session));
	struct epoll_event event = {.events = EPOLLIN};
	struct rlimit files;

	if (count < 1)
		die(NULL, "usage: sleepers COUNT SQL...");
	statements = argc - 2;
	sql = argv + 2;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	for (int i = 0; i < count; i++)
	{
		open_session(&sessions[i]);
		event.data.ptr = &sessions[i];
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, PQsocket(sessions[i].conn), &event) != 0)
			die(NULL, "cannot watch a socket");
		send_next(&sessions[i]);
	}
	for (;;)
	{
		struct epoll_event events[64];
		int			ready = epoll_wait(epoll, events, 64, -1);

		for (int i = 0; i < ready; i++)
			serve(events[i].data.ptr);
	}
}
