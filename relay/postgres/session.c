/*
 * session.c
 *	  The connection to the remote server: made, watched and left without waiting.
 *
 * connect_timeout is for all of it: the name, the connection, the login. A name
 * whose lookup hangs longer is not looked up again before that lookup ended; the
 * next start waits for it instead. Of several addresses a silent one costs an
 * attempt: the next attempt begins behind it.
 */
#include "session.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "conninfo.h"

#define FAILURE_PAUSE 1000

/* A clock that nobody sets, in ms. */
int64_t
postgres_session_now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t) time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static bool
fail(PostgresSession *session, PostgresVerdict *failure, const char *format, const char *what)
{
	failure->outcome = QUEUE_SINK_THROTTLED;
	failure->pause = FAILURE_PAUSE;
	failure->for_all = failure->reconnect = true;
	snprintf(failure->detail, sizeof(failure->detail), format, session->options->values[OPTION_HOST], what);
	postgres_session_drop(session);
	return false;
}

static bool
fail_connection(PostgresSession *session, PostgresVerdict *failure)
{
	const char *message = PQerrorMessage(session->conn);

	postgres_outcome_of_connection(failure, message, session->options->secrets);
	if (strstr(message, CONNINFO_REQUIRE_AUTH))
	{
		failure->outcome = QUEUE_SINK_DISABLE;
		failure->pause = 0;
	}
	postgres_session_drop(session);
	return false;
}

/* What the server says besides is for nobody, and never for standard error. */
static void
ignore_notice(void *context, const PGresult *result)
{
	(void) context;
	(void) result;
}

static bool
connect_to(PostgresSession *session, PostgresVerdict *failure)
{
	session->conn = postgres_conninfo_connect(session->options, session->config,
											  &session->addresses, session->first_address);
	if (session->conn == NULL)
		return fail(session, failure, "\"%s\": out of memory%s", "");
	session->state = SESSION_CONNECTING;
	session->poll = PGRES_POLLING_WRITING;
	PQsetNoticeReceiver(session->conn, ignore_notice, NULL);
	PQsetErrorVerbosity(session->conn, PQERRORS_VERBOSE);
	if (PQstatus(session->conn) == CONNECTION_BAD)
		return fail_connection(session, failure);
	return true;
}

/* Begins to connect, from CLOSED. False: it failed, see *failure. */
bool
postgres_session_start(PostgresSession *session, PostgresVerdict *failure)
{
	const char *host = session->options->values[OPTION_HOST];

	session->deadline = postgres_session_now() + session->options->connect_timeout;
	if (postgres_resolve_is_address(host))
		return connect_to(session, failure);
	if (session->lookup == NULL)
		session->lookup = postgres_resolve_start(host);
	if (session->lookup == NULL)
		return fail(session, failure, "\"%s\": out of memory or threads%s", "");
	session->state = SESSION_RESOLVING;
	return true;
}

static bool
resolve(PostgresSession *session, PostgresVerdict *failure)
{
	if (!postgres_resolve_finish(session->lookup, &session->addresses))
		return true;
	session->lookup = NULL;
	if (session->addresses.count == 0)
		return fail(session, failure, "name not resolved: \"%s\": %s", session->addresses.error);
	return connect_to(session, failure);
}

/* Logged in: what must be true before a message is sent. */
static bool
become_ready(PostgresSession *session, PostgresVerdict *failure)
{
	bool		trusted = (session->config->flags & QUEUE_SINK_TRUSTED) != 0;

	if (!trusted && !PQconnectionUsedPassword(session->conn))
	{
		fail(session, failure, "\"%s\": the server did not ask for a password, "
			 "without which only a superuser's relay may log in%s", "");
		failure->outcome = QUEUE_SINK_DISABLE;
		failure->pause = 0;
		return false;
	}
	if (PQsetnonblocking(session->conn, 1) != 0 || PQenterPipelineMode(session->conn) != 1)
		return fail_connection(session, failure);
	session->state = SESSION_READY;
	return true;
}

static bool
shake_hands(PostgresSession *session, PostgresVerdict *failure)
{
	/* PQconnectPoll() takes for granted that poll() announced it. */
	struct pollfd ready = {.fd = PQsocket(session->conn)};

	ready.events = session->poll == PGRES_POLLING_READING ? POLLIN : POLLOUT;
	if (poll(&ready, 1, 0) == 0)
		return true;
	session->poll = PQconnectPoll(session->conn);
	if (session->poll == PGRES_POLLING_FAILED)
		return fail_connection(session, failure);
	if (session->poll == PGRES_POLLING_OK)
		return become_ready(session, failure);
	return true;
}

/*
 * Goes on with connecting. False: it failed, see *failure. Nothing to do when
 * CLOSED or READY.
 */
bool
postgres_session_progress(PostgresSession *session, PostgresVerdict *failure)
{
	bool		good = true;

	if (session->state == SESSION_RESOLVING)
		good = resolve(session, failure);
	if (good && session->state == SESSION_CONNECTING)
		good = shake_hands(session, failure);
	if (!good || session->state == SESSION_READY || session->state == SESSION_CLOSED ||
		postgres_session_now() < session->deadline)
		return good;
	if (session->state == SESSION_RESOLVING)
		return fail(session, failure, "name not resolved: \"%s\": no answer%s", "");
	session->first_address++;
	return fail(session, failure, "\"%s\": no answer within connect_timeout%s", "");
}

/* What to poll for; -1: nothing. */
void
postgres_session_wait_for(const PostgresSession *session, int *descriptor, short *events)
{
	*descriptor = -1;
	*events = 0;
	if (session->state == SESSION_RESOLVING)
	{
		*descriptor = postgres_resolve_descriptor(session->lookup);
		*events = POLLIN;
	}
	else if (session->state != SESSION_CLOSED)
	{
		*descriptor = PQsocket(session->conn);
		*events = session->state == SESSION_CONNECTING && session->poll != PGRES_POLLING_READING ? POLLOUT : POLLIN;
	}
}

/* Leaves the connection, or gives up making it. */
void
postgres_session_drop(PostgresSession *session)
{
	PQfinish(session->conn);
	session->conn = NULL;
	session->state = SESSION_CLOSED;
}

/* The same, for good. */
void
postgres_session_close(PostgresSession *session)
{
	postgres_session_drop(session);
	if (session->lookup)
		postgres_resolve_abandon(session->lookup);
	session->lookup = NULL;
}
