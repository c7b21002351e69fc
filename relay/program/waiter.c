/*
 * waiter.c
 *	  The connection that waits for messages, so that they are seen at once.
 *
 * It calls queue.wait() again and again while the runner listens; no
 * transaction is open and no snapshot held meanwhile. Nothing here waits: the
 * host waits for the socket. While there is no such connection the queue counts
 * as due once a second, and it is tried to get one.
 *
 *	 OFF -> CONNECTING -> IDLE <-> BUSY, and from each of these to OFF
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "waiter.h"

#define WAIT_TIME "5 s"

/* For the answer after that time, and for a connection, us. */
#define ANSWER_TIME (20 * SECOND)
#define CONNECT_TIME (10 * SECOND)

#define MAX_OPTIONS 100

typedef enum WaiterState
{
	OFF,
	CONNECTING,
	IDLE,
	BUSY,						/* a call is running */
} WaiterState;

struct Waiter
{
	WaiterState state;
	const Database *like;		/* the runner's */
	PGconn	   *connection;
	PostgresPollingStatusType polling;
	char	   *queue;
	bool		is_set_up;
	int64_t		deadline;		/* of what is going on */
	int64_t		next_look;		/* while there is no call: when it is tried
								 * again, and the queue counts as due */
	char		told[256];		/* what was logged */
};

/* It connects to where "like" is connected. */
Waiter *
waiter_new(const Database *like, const char *queue)
{
	Waiter	   *waiter = calloc(1, sizeof(Waiter));

	if (waiter == NULL || (waiter->queue = strdup(queue)) == NULL)
		abort();
	waiter->like = like;
	return waiter;
}

void
waiter_free(Waiter *waiter)
{
	if (waiter == NULL)
		return;
	if (waiter->connection)
		PQfinish(waiter->connection);
	free(waiter->queue);
	free(waiter);
}

/* ---- connecting ---- */

/* Without it the runner polls. */
static void
fail(Waiter *waiter, const char *reason)
{
	if (strncmp(waiter->told, reason, sizeof(waiter->told) - 1) != 0)
		log_write(LOG_WARNING, "looks for messages once a second, since it cannot wait for them: %s", reason);
	snprintf(waiter->told, sizeof(waiter->told), "%s", reason);
	waiter->next_look = clock_now() + SECOND;
}

static void
turn_off(Waiter *waiter, const char *reason)
{
	fail(waiter, reason);
	if (waiter->connection)
		PQfinish(waiter->connection);
	waiter->connection = NULL;
	waiter->state = OFF;
}

/*
 * As the runner's, and to the same server: its name is not looked up again,
 * which would wait.
 */
static void
connect_to(Waiter *waiter)
{
	PGconn	   *like = waiter->like->connection;
	PQconninfoOption *options = PQconninfo(like);
	const char *names[MAX_OPTIONS + 1] = {NULL};
	const char *values[MAX_OPTIONS + 1] = {NULL};
	int			n = 0;

	for (PQconninfoOption * option = options; option && option->keyword && n < MAX_OPTIONS; option++)
	{
		const char *value = option->val;

		if (strcmp(option->keyword, "host") == 0)
			value = PQhost(like);
		else if (strcmp(option->keyword, "hostaddr") == 0)
			value = PQhost(like)[0] == '/' ? NULL : PQhostaddr(like);
		else if (strcmp(option->keyword, "port") == 0)
			value = PQport(like);
		else if (strcmp(option->keyword, "service") == 0)
			value = NULL;
		if (value == NULL || value[0] == '\0')
			continue;
		names[n] = option->keyword;
		values[n++] = value;
	}
	waiter->connection = PQconnectStartParams(names, values, 0);
	PQconninfoFree(options);
	waiter->is_set_up = false;
	waiter->state = CONNECTING;
	waiter->polling = PGRES_POLLING_WRITING;
	waiter->deadline = clock_now() + CONNECT_TIME;
	if (waiter->connection == NULL || PQstatus(waiter->connection) == CONNECTION_BAD)
		turn_off(waiter, waiter->connection ? PQerrorMessage(waiter->connection) : "out of memory");
}

/* ---- calling ---- */

static void
call(Waiter *waiter)
{
	const char *values[] = {waiter->queue, WAIT_TIME};
	int			sent;

	if (waiter->is_set_up)
		sent = PQsendQueryParams(waiter->connection, "CALL queue.wait($1, $2)", 2, NULL, values, NULL, NULL, 0);
	else
		sent = PQsendQuery(waiter->connection, "SET statement_timeout = 0");
	waiter->state = BUSY;
	waiter->deadline = clock_now() + ANSWER_TIME;
	if (!sent)
		turn_off(waiter, PQerrorMessage(waiter->connection));
}

static void
go_on_connecting(Waiter *waiter)
{
	struct pollfd ready = {.fd = PQsocket(waiter->connection)};

	ready.events = waiter->polling == PGRES_POLLING_READING ? POLLIN : POLLOUT;
	if (poll(&ready, 1, 0) == 0)
		return;
	waiter->polling = PQconnectPoll(waiter->connection);
	if (waiter->polling == PGRES_POLLING_FAILED)
		turn_off(waiter, PQerrorMessage(waiter->connection));
	else if (waiter->polling == PGRES_POLLING_OK)
	{
		PQsetnonblocking(waiter->connection, 1);
		call(waiter);
	}
}

/* What a call has returned: whether there are messages. */
static bool
read_answer(Waiter *waiter)
{
	PGresult   *result;
	bool		due = false;
	bool		good = true;

	while (!PQisBusy(waiter->connection))
	{
		result = PQgetResult(waiter->connection);
		if (result == NULL)
		{
			waiter->state = IDLE;
			break;
		}
		if (PQresultStatus(result) == PGRES_TUPLES_OK)
			due = PQntuples(result) == 1 && PQgetvalue(result, 0, 0)[0] == 't';
		else if (PQresultStatus(result) != PGRES_COMMAND_OK)
		{
			good = false;
			fail(waiter, PQresultErrorMessage(result));
		}
		PQclear(result);
	}
	if (PQstatus(waiter->connection) != CONNECTION_OK)
		turn_off(waiter, PQerrorMessage(waiter->connection));
	else if (good)
	{
		waiter->told[0] = '\0';
		waiter->is_set_up = true;
		waiter->next_look = 0;
	}
	return due;
}

static bool
go_on_calling(Waiter *waiter)
{
	if (PQflush(waiter->connection) < 0 || !PQconsumeInput(waiter->connection))
	{
		turn_off(waiter, PQerrorMessage(waiter->connection));
		return false;
	}
	return read_answer(waiter);
}

/*
 * Does what can be done at once. "listens": a call is to run, if there is none.
 * True: the queue is due.
 */
bool
waiter_run(Waiter *waiter, bool listens)
{
	bool		due = false;

	if (waiter->state == CONNECTING)
		go_on_connecting(waiter);
	if (waiter->state == BUSY)
		due = go_on_calling(waiter);
	if ((waiter->state == CONNECTING || waiter->state == BUSY) && clock_now() >= waiter->deadline)
		turn_off(waiter, "the server did not answer in time");
	if (!due && waiter->state != BUSY && listens && waiter->like->connection && clock_now() >= waiter->next_look)
	{
		/* Not in vain if it fails. */
		due = waiter->next_look != 0;
		waiter->next_look = clock_now() + SECOND;
		if (waiter->state == OFF)
			connect_to(waiter);
		else if (waiter->state == IDLE)
			call(waiter);
	}
	return due;
}

/* What it waits for; "until" is lowered. */
void
waiter_wait_for(const Waiter *waiter, bool listens, int *socket, short *events, int64_t * until)
{
	*socket = -1;
	*events = 0;
	if (waiter->state == CONNECTING || waiter->state == BUSY)
	{
		*socket = PQsocket(waiter->connection);
		*events = waiter->state == CONNECTING && waiter->polling != PGRES_POLLING_READING ? POLLOUT : POLLIN;
		if (waiter->deadline < *until)
			*until = waiter->deadline;
	}
	if (waiter->state != BUSY && listens && waiter->next_look < *until)
		*until = waiter->next_look;
}

/* The process of the server that runs a call; 0: there is none. */
int
waiter_pid(const Waiter *waiter)
{
	return waiter && waiter->state == BUSY ? PQbackendPID(waiter->connection) : 0;
}
