/*
 * session.c
 *	  What a runner does while it is one: takes, settles, renews, sleeps.
 *
 * As the relay worker of the server does it. Each statement has an answer
 * before the runner's time is over, or the connection is dropped; while an
 * answer is awaited the sink goes on. Past that time, by a clock that was read
 * before the last renewal was sent, nothing is sent any more and what is in
 * flight is given up: another runner may be at work.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "session.h"

/* Between two signs of life, us; less if the runner's time is short, or messages wait for a standby. */
#define RENEW_PAUSE SECOND
#define STANDBY_PAUSE 20000

/* How long a message that is done waits for others to be settled with it, us. */
#define SETTLE_PAUSE 5000

/* Messages settled in one transaction. */
#define SETTLE_BATCH 2000

/* After a step that failed, us. */
#define ERROR_PAUSE SECOND

/* Pauses of one that finds something due and nothing to take, us. */
#define FIRST_PAUSE 1000
#define LONGEST_PAUSE 50000

/* For what a runner that has lost its relay still has to say, us. */
#define LAST_WORDS (2 * SECOND)

/* The longest sleep, us. */
#define LONGEST_SLEEP (60 * SECOND)

static int64_t
least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t
most(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* By when a statement has an answer. */
static int64_t
deadline(const Session *session)
{
	return session->result == CALLS_LOST ? clock_now() + LAST_WORDS : session->valid_until;
}

/* Whether the relay was dropped, or is not for programs any more. */
static bool
is_taken_away(const Session *session)
{
	const char *sqlstate = session->database->sqlstate;

	return strcmp(sqlstate, "42704") == 0 || strcmp(sqlstate, "55000") == 0;
}

/* A statement failed: if its connection is gone, so is all that was taken by it. */
static void
note_failure(Session *session, const char *what)
{
	if (session->database->connection == NULL)
		session->result = CALLS_LOST;
	else if (session->result == CALLS_RUN && is_taken_away(session))
		session->result = CALLS_PAUSED;
	log_write(LOG_WARNING, "%s: %s", what, session->database->error);
}

/* ---- renewing ---- */

static void
fill_status(Session *session, CallsStatus *status, const char *error)
{
	QueuePump  *pump = session->pump;
	QueuePumpCounts counts;

	memset(status, 0, sizeof(*status));
	status->error = error;
	if (pump == NULL)
		return;
	counts = queue_pump_counts(pump);
	status->numbers[0] = counts.delivered - session->told.delivered;
	status->numbers[1] = counts.failed - session->told.failed;
	status->numbers[2] = counts.ambiguous - session->told.ambiguous;
	status->numbers[3] = counts.throttled - session->told.throttled;
	status->numbers[4] = counts.rejected - session->told.rejected;
	status->numbers[5] = queue_pump_in_flight(pump);
	status->numbers[6] = queue_pump_held_count(pump);
	status->numbers[7] = queue_pump_breaker(pump);
	if (queue_pump_breaker(pump) == QUEUE_PUMP_OPEN)
		status->numbers[8] = most(queue_pump_breaker_until(pump) * 1000 - clock_now(), 0);
	if (queue_pump_errors(pump) != session->errors_told)
		status->error = queue_pump_last_error(pump);
}

static bool
call_renew(Session *session, const CallsStatus *status, int64_t began)
{
	const unsigned char **receipts = NULL;
	int			n = 0;
	uint64_t	gate;
	bool		good;

	if (session->pump && began >= session->extend_at)
	{
		n = queue_pump_held_count(session->pump);
		receipts = malloc(sizeof(*receipts) * (n + 1));
		if (receipts == NULL)
			abort();
		n = queue_pump_held(session->pump, receipts, n);
		session->extend_at = began + session->relay.lease / 3;
	}
	good = calls_renew(session->database, session->name, session->relay.epoch, session->relay.version,
					   receipts, n, status, deadline(session), &session->result, &gate);
	free(receipts);
	if (good && session->pump)
		queue_pump_open_gate(session->pump, gate);
	return good;
}

/* The runner is alive; "error" is what else it has to say, or NULL. */
void
session_renew(Session *session, const char *error)
{
	CallsStatus status;
	QueuePumpCounts counts = {0};
	uint64_t	errors = 0;
	int64_t		began = clock_now();

	session->renewed_at = began;
	session->renew_at = began + least(RENEW_PAUSE, session->relay.lease / 3);
	fill_status(session, &status, error);
	if (session->pump)
	{
		/* The sink goes on meanwhile. */
		counts = queue_pump_counts(session->pump);
		errors = queue_pump_errors(session->pump);
	}
	if (call_renew(session, &status, began))
	{
		session->told = counts;
		session->errors_told = errors;
		if (session->result != CALLS_LOST)
			session->valid_until = began + session->relay.lease;
		return;
	}
	note_failure(session, "could not renew");
}

bool
session_wants_renewal(const Session *session)
{
	int64_t		now = clock_now();

	return now >= session->renew_at ||
		(queue_pump_waits_for_gate(session->pump) && now >= session->renewed_at + STANDBY_PAUSE);
}

/* ---- taking and settling ---- */

static bool
is_full_enough(const Session *session)
{
	int			half = (int) most(session->relay.pump.max_in_flight / 2, 1);
	int			room = queue_pump_room(session->pump);

	return room == 0 ||
		(room < half && queue_pump_held_count(session->pump) > queue_pump_in_flight(session->pump));
}

bool
session_wants_messages(const Session *session)
{
	return session->drain_until == 0 && !is_full_enough(session);
}

/* Whether to be told when the queue is due. */
bool
session_listens(const Session *session)
{
	return session_wants_messages(session) && !session->due;
}

static void
receive(void *context, QueuePumpMessage * message)
{
	Session    *session = context;

	queue_pump_add(session->pump, message);
}

/*
 * What comes is due at once, but that there is more is for the waiter to say if
 * less has come than there was room for.
 */
void
session_take(Session *session)
{
	/* The sink works meanwhile: there can only be more room. */
	int			room = queue_pump_room(session->pump);
	int			n = calls_take(session->database, session->name, session->relay.epoch, room, deadline(session),
							   receive, session);

	if (n < 0)
		note_failure(session, "could not take messages");
	session->due = n < 0 || n >= room;
	if (n > 0)
	{
		session->pause = 0;
		return;
	}
	if (n == 0)
		session->pause = session->pause ? least(session->pause * 2, LONGEST_PAUSE) : FIRST_PAUSE;
	session->take_at = clock_now() + (n == 0 ? session->pause : ERROR_PAUSE);
}

static bool
settle(Session *session, QueuePumpMessage * const *messages, int n)
{
	if (calls_settle(session->database, session->name, session->relay.epoch, messages, n, deadline(session)))
		return true;
	note_failure(session, "could not settle");
	return false;
}

/* In an ordered queue what comes next may have waited for this. */
void
session_settle(Session *session)
{
	QueuePumpMessage *messages[SETTLE_BATCH];
	QueuePumpMessage *message;
	int			n;

	do
	{
		n = 0;
		while (n < SETTLE_BATCH && (message = queue_pump_take_done(session->pump)) != NULL)
			messages[n++] = message;

		/*
		 * One by one: an error is the trouble of its message alone, whose
		 * lease runs out.
		 */
		if (n > 0 && !settle(session, messages, n) && n > 1)
			for (int i = 0; i < n && session->database->connection; i++)
				settle(session, &messages[i], 1);
		for (int i = 0; i < n; i++)
			queue_pump_message_free(messages[i]);
	} while (n == SETTLE_BATCH);
	if (session->take_at < clock_now() + LONGEST_PAUSE)
		session->take_at = session->pause = 0;
}

/*
 * us until what is done is to be settled; -1: nothing is. A settlement costs a
 * flush: it waits a moment for others as long as there is more to do. In an
 * ordered queue it waits for less, since what is done holds its keys.
 */
int64_t
session_settle_in(const Session *session)
{
	QueuePump  *pump = session->pump;

	if (queue_pump_done_count(pump) == 0)
		return -1;
	if (session->relay.pump.ordered
		? queue_pump_in_flight(pump) == 0 ||
		queue_pump_done_count(pump) >= most(session->relay.pump.max_in_flight / 2, 1)
		: queue_pump_held_count(pump) == 0 || queue_pump_done_count(pump) >= SETTLE_BATCH)
		return 0;
	return most(queue_pump_done_since(pump) * 1000 + SETTLE_PAUSE - clock_now(), 0);
}

/* ---- the pump ---- */

/* Take nothing more, and end when what is in flight is back, or this long (us) has passed. */
void
session_drain(Session *session, int64_t time)
{
	int64_t		until = clock_now() + time;

	if (session->drain_until == 0)
		queue_pump_stop(session->pump);
	if (session->drain_until == 0 || until < session->drain_until)
		session->drain_until = until;
}

/* A round, if this is the runner. */
void
session_run_pump(Session *session)
{
	if (session->result != CALLS_LOST && clock_now() >= session->valid_until)
	{
		log_write(LOG_WARNING, "has lost its relay: the server has not answered in time");
		session->result = CALLS_LOST;
	}
	if (session->result == CALLS_LOST)
	{
		session_drain(session, 0);
		queue_pump_cancel(session->pump);
		return;
	}
	queue_pump_run(session->pump, clock_now() / 1000);
}

/* ---- sleeping ---- */

/* Until one of these has events, a signal comes, or it is time. */
static void
sleep_on(const Session *session, struct pollfd *wakers, int count, int64_t until)
{
	int64_t		left = most(least(until - clock_now(), LONGEST_SLEEP), 0);
	struct timespec time = {.tv_sec = left / SECOND,.tv_nsec = left % SECOND * 1000};

	(void) ppoll(wakers, count, &time, session->sleep_mask);
}

/* What the sink waits for; "until" is lowered. */
static void
add_sink(const Session *session, struct pollfd *waker, int64_t * until)
{
	int64_t		now = clock_now();
	int			timeout;

	queue_pump_wait_for(session->pump, now / 1000, &waker->fd, &waker->events, &timeout);
	if (timeout >= 0)
		*until = least(*until, now + timeout * INT64_C(1000));
	*until = least(*until, session->valid_until);
}

/* DatabaseWait: for an answer of the server, while the sink goes on. */
void
session_wait(void *context, int socket, short events, int64_t until)
{
	Session    *session = context;
	struct pollfd wakers[] = {{.fd = socket,.events = events}, {.fd = -1}};

	if (session->pump && session->result != CALLS_LOST)
		add_sink(session, &wakers[1], &until);
	sleep_on(session, wakers, 2, until);
	if (session->pump && session->result != CALLS_LOST)
		session_run_pump(session);
}

/* Until the sink, the queue or the time wants something. */
void
session_sleep(Session *session)
{
	struct pollfd wakers[] = {{.fd = -1}, {.fd = -1}};
	int64_t		until = session->renew_at;

	if (session_settle_in(session) >= 0)
		until = least(until, clock_now() + session_settle_in(session));
	if (session->drain_until)
		until = least(until, session->drain_until);
	if (queue_pump_waits_for_gate(session->pump))
		until = least(until, session->renewed_at + STANDBY_PAUSE);
	if (session_wants_messages(session) && session->due)
		until = least(until, session->take_at);
	add_sink(session, &wakers[0], &until);
	waiter_wait_for(session->waiter, session_listens(session), &wakers[1].fd, &wakers[1].events, &until);
	sleep_on(session, wakers, 2, until);
}
