/*
 * outcome.c
 *	  What an error of the remote server means for messages.
 *
 * All errors here leave the transaction undone. What is the matter with the
 * server, or with how the relay was set up, is no fault of a message: it waits
 * (THROTTLED), and mending the remote side is enough to go on. Only data that
 * will be refused again is given up (PERMANENT). What nobody foresaw counts as a
 * failure of the message (RETRY), so that it cannot stop the others for ever.
 */
#include "outcome.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

#define MISTAKEN_PAUSE	30000	/* until somebody mends it */
#define SHORT_PAUSE		1000
#define LONG_PAUSE		5000

/* The first whose code begins an SQLSTATE counts. */
static const struct Rule
{
	const char *code;
	QueueSinkOutcome outcome;
	int			pause;
	bool		for_all;
	bool		reconnect;
}			rules[] =

{
	/* its statement took too long */
	{"57014", QUEUE_SINK_RETRY, 0, false, false},
	/* shutdown, crash, starting up, database dropped */
	{"57P", QUEUE_SINK_THROTTLED, SHORT_PAUSE, true, true},
	{"08", QUEUE_SINK_THROTTLED, SHORT_PAUSE, true, true},
	/* a standby: where the primary is may be found anew */
	{"25006", QUEUE_SINK_THROTTLED, LONG_PAUSE, true, true},
	/* connections, memory, disk */
	{"53", QUEUE_SINK_THROTTLED, LONG_PAUSE, true, false},
	{"58", QUEUE_SINK_THROTTLED, LONG_PAUSE, true, false},
	/* serialization, deadlock, lock not available */
	{"40001", QUEUE_SINK_THROTTLED, SHORT_PAUSE, true, false},
	{"40P01", QUEUE_SINK_THROTTLED, SHORT_PAUSE, true, false},
	{"55P03", QUEUE_SINK_THROTTLED, SHORT_PAUSE, true, false},
	/* queue is paused, queue is full */
	{"QU002", QUEUE_SINK_THROTTLED, LONG_PAUSE, true, false},
	{"QU003", QUEUE_SINK_THROTTLED, SHORT_PAUSE, true, false},
	/* login, database, schema, extension not preloaded, names and privileges */
	{"28", QUEUE_SINK_THROTTLED, MISTAKEN_PAUSE, true, true},
	{"3D", QUEUE_SINK_THROTTLED, MISTAKEN_PAUSE, true, true},
	{"3F", QUEUE_SINK_THROTTLED, MISTAKEN_PAUSE, true, false},
	{"55000", QUEUE_SINK_THROTTLED, MISTAKEN_PAUSE, true, false},
	{"42", QUEUE_SINK_THROTTLED, MISTAKEN_PAUSE, true, false},
	/* data, constraints, limits */
	{"22", QUEUE_SINK_PERMANENT, 0, false, false},
	{"23", QUEUE_SINK_PERMANENT, 0, false, false},
	{"54", QUEUE_SINK_PERMANENT, 0, false, false},
	{"", QUEUE_SINK_RETRY, 0, false, false},
};

/* Judges an SQLSTATE; the detail is left alone. */
void
postgres_outcome_of_state(PostgresVerdict *verdict, const char *sqlstate)
{
	const struct Rule *rule = rules;

	while (strncmp(sqlstate, rule->code, strlen(rule->code)) != 0)
		rule++;
	verdict->outcome = rule->outcome;
	verdict->pause = rule->pause;
	verdict->for_all = rule->for_all;
	verdict->reconnect = rule->reconnect;
}

/* Judges the error of a statement. */
void
postgres_outcome_of_result(PostgresVerdict *verdict, const PGresult *result, const char *const *secrets)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	Text		line = {0};

	/* An error that libpq made itself has no code: the connection is gone. */
	postgres_outcome_of_state(verdict, sqlstate ? sqlstate : "08000");
	if (sqlstate)
	{
		text_add_string(&line, sqlstate);
		text_add_string(&line, " ");
	}
	text_add_string(&line, primary ? primary : PQresultErrorMessage(result));
	text_one_line(verdict->detail, sizeof(verdict->detail), line.broken ? "out of memory" : line.data, secrets);
	text_free(&line);
}

/*
 * The last SQLSTATE in a message that PQERRORS_VERBOSE made, in front of what
 * it says: libpq gives it no other way while it connects.
 */
static const char *
find_state(const char *message)
{
	const char *found = NULL;

	for (const char *p = strstr(message, ":  "); p; p = strstr(p, ":  "))
	{
		int			length = 0;

		p += 3;
		while (length < 5 && (isdigit((unsigned char) p[length]) || isupper((unsigned char) p[length])))
			length++;
		if (length == 5 && p[5] == ':' && p[6] == ' ')
			found = p;
	}
	return found;
}

/* Judges why a connection was not made: nothing was taken. */
void
postgres_outcome_of_connection(PostgresVerdict *verdict, const char *message, const char *const *secrets)
{
	const char *found = find_state(message);
	Text		line = {0};

	postgres_outcome_of_state(verdict, found ? found : "08000");
	postgres_outcome_for_nobody(verdict);
	if (found)
	{
		text_add(&line, found, 5);
		text_add(&line, found + 6, strcspn(found + 6, "\n"));
		message = line.broken ? "out of memory" : line.data;
	}
	text_one_line(verdict->detail, sizeof(verdict->detail), message, secrets);
	text_free(&line);
}

/*
 * The same for a message that names its queue itself: a queue that is not
 * there, forbidden, paused or full is no matter of messages to other queues.
 */
void
postgres_outcome_for_target(PostgresVerdict *verdict, const char *sqlstate)
{
	if (strcmp(sqlstate, "42704") == 0 || strcmp(sqlstate, "42501") == 0)
	{
		verdict->outcome = QUEUE_SINK_RETRY;
		verdict->pause = 0;
		verdict->for_all = false;
	}
	else if (strncmp(sqlstate, "QU", 2) == 0)
		verdict->for_all = false;
}

/* The same where no message was the cause. */
void
postgres_outcome_for_nobody(PostgresVerdict *verdict)
{
	if (verdict->outcome != QUEUE_SINK_THROTTLED && verdict->outcome != QUEUE_SINK_DISABLE)
	{
		verdict->outcome = QUEUE_SINK_THROTTLED;
		verdict->pause = LONG_PAUSE;
	}
	verdict->for_all = true;
}

/* Did it end the session? */
bool
postgres_outcome_is_fatal(const PGresult *result)
{
	const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);

	return severity == NULL || strcmp(severity, "ERROR") != 0;
}
