/*-------------------------------------------------------------------------
 *
 * pingpong.c
 *	  How long after a commit does another session have its answer?
 *
 *	pingpong COUNT PAUSE_MS_MIN PAUSE_MS_MAX [name=SQL]...
 *
 * One thread drives two connections, so that the client adds the same little
 * time to each kind of hand-over.  A round:
 *
 *	a_before	on A: prepares what the last step sets free
 *	b_wait		on B: sent, and expected to sleep (absent: B listens)
 *	(a pause, so that B is asleep and the server idle)
 *	a_fire		on A: the clock starts before it is sent
 *	b_take		on B, after a notification: the clock stops when it returns a
 *				row; without a row the next notification is awaited
 *	b_after		on B: not timed; $1 is the first column of the last row
 *
 * b_setup runs once.  Without b_take the clock stops when b_wait is answered,
 * or at the notification.  Each round prints microseconds, or "miss".
 * Everything is prepared.  PGHOST and so on say where the server is.
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define TIMEOUT_MS 10000

static const char *const names[] = {
	"b_setup", "a_before", "b_wait", "a_fire", "b_take", "b_after"
};

enum
{
	B_SETUP, A_BEFORE, B_WAIT, A_FIRE, B_TAKE, B_AFTER, STEPS
};

/* Each step's statements, separated by semicolons on the command line. */
#define MAX_STATEMENTS 8

typedef struct Step
{
	int			count;
	char	   *sql[MAX_STATEMENTS];
	char		prepared[MAX_STATEMENTS][32];
} Step;

static Step steps[STEPS];
static PGconn *a;
static PGconn *b;

static void
die(PGconn *conn, const char *what)
{
	fprintf(stderr, "pingpong: %s: %s", what, conn ? PQerrorMessage(conn) : "\n");
	exit(1);
}

static double
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void
add_step(char *argument)
{
	char	   *sql = strchr(argument, '=');

	if (sql == NULL)
		die(NULL, argument);
	*sql++ = '\0';
	for (int i = 0; i < STEPS; i++)
	{
		Step	   *step = &steps[i];

		if (strcmp(names[i], argument) != 0)
			continue;
		for (char *part = strtok(sql, ";"); part && step->count < MAX_STATEMENTS; part = strtok(NULL, ";"))
			step->sql[step->count++] = part;
		return;
	}
	die(NULL, argument);
}

static void
prepare_step(int which)
{
	PGconn	   *conn = names[which][0] == 'a' ? a : b;
	Step	   *step = &steps[which];

	for (int i = 0; i < step->count; i++)
	{
		PGresult   *res;

		snprintf(step->prepared[i], sizeof(step->prepared[i]), "%s_%d", names[which], i);
		res = PQprepare(conn, step->prepared[i], step->sql[i], 0, NULL);
		if (PQresultStatus(res) != PGRES_COMMAND_OK)
			die(conn, step->sql[i]);
		PQclear(res);
	}
}

static void
check_result(PGconn *conn, PGresult *res, const char *sql)
{
	if (PQresultStatus(res) != PGRES_COMMAND_OK && PQresultStatus(res) != PGRES_TUPLES_OK)
		die(conn, sql);
}

/*
 * Runs a step to its end.  Returns the first column of its last result's
 * first row (malloc'd), or NULL.
 */
static char *
run_step(PGconn *conn, const Step *step, const char *parameter)
{
	char	   *value = NULL;

	for (int i = 0; i < step->count; i++)
	{
		PGresult   *res = PQexecPrepared(conn, step->prepared[i], parameter ? 1 : 0, &parameter, NULL, NULL, 0);

		check_result(conn, res, step->sql[i]);
		free(value);
		value = PQntuples(res) > 0 ? strdup(PQgetvalue(res, 0, 0)) : NULL;
		PQclear(res);
	}
	return value;
}

static void
send_statement(PGconn *conn, const Step *step)
{
	if (!PQsendQueryPrepared(conn, step->prepared[0], 0, NULL, NULL, NULL, 0) || PQflush(conn) != 0)
		die(conn, step->sql[0]);
}

/* Collects an asynchronous statement's end; the value as in run_step. */
static char *
finish_statement(PGconn *conn, const Step *step)
{
	char	   *value = NULL;
	PGresult   *res;

	while ((res = PQgetResult(conn)) != NULL)
	{
		check_result(conn, res, step->sql[0]);
		if (PQntuples(res) > 0)
			value = strdup(PQgetvalue(res, 0, 0));
		PQclear(res);
	}
	return value;
}

static int
drain_notifications(void)
{
	int			seen = 0;
	PGnotify   *notify;

	if (!PQconsumeInput(b))
		die(b, "lost connection");
	while ((notify = PQnotifies(b)) != NULL)
	{
		PQfreemem(notify);
		seen++;
	}
	return seen;
}

/* Sleeps until B's socket has something to read. */
static int
wait_for_b(void)
{
	struct pollfd fd = {.fd = PQsocket(b), .events = POLLIN};

	return poll(&fd, 1, TIMEOUT_MS) > 0;
}

/* B waits inside a statement.  Returns what it got. */
static char *
await_answer(void)
{
	do
	{
		if (!wait_for_b())
			return NULL;
		if (!PQconsumeInput(b))
			die(b, "lost connection");
	} while (PQisBusy(b));
	return finish_statement(b, &steps[B_WAIT]);
}

/* B listens, and takes when it is told to. */
static char *
await_notification(void)
{
	char	   *value;

	for (;;)
	{
		while (drain_notifications() == 0)
			if (!wait_for_b())
				return NULL;
		if (steps[B_TAKE].count == 0)
			return strdup("");
		value = run_step(b, &steps[B_TAKE], NULL);
		if (value != NULL)
			return value;
	}
}

static void
play_round(int pause_us)
{
	double		start;
	double		end;
	char	   *value;

	run_step(a, &steps[A_BEFORE], NULL);
	if (steps[B_WAIT].count > 0)
		send_statement(b, &steps[B_WAIT]);
	usleep(pause_us);
	if (steps[B_WAIT].count == 0)
		drain_notifications();

	start = now_us();
	send_statement(a, &steps[A_FIRE]);
	value = steps[B_WAIT].count > 0 ? await_answer() : await_notification();
	end = now_us();
	free(finish_statement(a, &steps[A_FIRE]));

	if (value == NULL)
		printf("miss\n");
	else
	{
		printf("%.1f\n", end - start);
		free(run_step(b, &steps[B_AFTER], strstr(steps[B_AFTER].count ? steps[B_AFTER].sql[0] : "", "$1") ? value : NULL));
	}
	free(value);
}

int
main(int argc, char **argv)
{
	int			count;
	int			low;
	int			high;

	if (argc < 4)
		die(NULL, "usage: pingpong COUNT PAUSE_MS_MIN PAUSE_MS_MAX [name=SQL]...");
	count = atoi(argv[1]);
	low = atoi(argv[2]) * 1000;
	high = atoi(argv[3]) * 1000;
	for (int i = 4; i < argc; i++)
		add_step(argv[i]);

	a = PQconnectdb("application_name=pingpong_a");
	b = PQconnectdb("application_name=pingpong_b");
	if (PQstatus(a) != CONNECTION_OK)
		die(a, "cannot connect");
	if (PQstatus(b) != CONNECTION_OK)
		die(b, "cannot connect");
	for (int i = 0; i < STEPS; i++)
		prepare_step(i);
	free(run_step(b, &steps[B_SETUP], NULL));

	srand(1);
	for (int i = 0; i < count; i++)
		play_round(low + rand() % (high - low + 1));
	PQfinish(a);
	PQfinish(b);
	return 0;
}
