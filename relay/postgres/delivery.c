/*
 * delivery.c
 *	  The life of messages in the sink.
 *
 * One batch is on its way at a time, and is one transaction; what is handed over
 * meanwhile is the next. So a message that fails takes back all that were with
 * it, and those behind it were not sent yet: all of them are handed back, in
 * order, and nothing of its key overtakes it. It is complete itself, so that the
 * others go on without it.
 *
 * COMMIT is given to libpq only when all before it has left, so that we know
 * whether the server can have read it. A message is DELIVERED when the answer to
 * COMMIT came. AMBIGUOUS is one whose COMMIT may have been read and not answered.
 * All others were certainly not taken.
 */
#include "delivery.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a batch may have, so that no call takes long. */
#define BATCH_BYTES (4 * 1024 * 1024)
/* Between connections that failed, whatever the host thinks of pauses. */
#define RECONNECT_PAUSE 250


/* More than the server can read as one value. */
#define MAX_BODY ((size_t) 1 << 30)

static const char taken_back[] = "taken back: another message of its transaction failed";

/* Completes "n" entries from "from" on, in order. */
static void
complete_range(PostgresDelivery *delivery, int from, int n, QueueSinkOutcome outcome, int64_t pause, const char *detail)
{
	PostgresEntry *entry = delivery->entries + from;

	for (int i = 0; i < n; i++)
		delivery->host.complete(delivery->host.context, entry[i].message, outcome, pause, detail);
	memmove(entry, entry + n, sizeof(*entry) * (size_t) (delivery->count - from - n));
	delivery->count -= n;
	if (from < delivery->batch)
		delivery->batch -= n < delivery->batch - from ? n : delivery->batch - from;
}

static void
complete_all(PostgresDelivery *delivery, const PostgresVerdict *verdict)
{
	complete_range(delivery, 0, delivery->count, verdict->outcome, verdict->pause, verdict->detail);
}

static void
complete_probe(PostgresDelivery *delivery, QueueSinkOutcome outcome, int64_t pause, const char *detail)
{
	if (!delivery->probing)
		return;
	delivery->probing = false;
	delivery->host.complete(delivery->host.context, NULL, outcome, pause, detail);
}

/* Nothing can be sent at all. */
static void
fail_all(PostgresDelivery *delivery, const PostgresVerdict *verdict)
{
	delivery->pause_end = postgres_session_now() + RECONNECT_PAUSE;
	complete_all(delivery, verdict);
	complete_probe(delivery, verdict->outcome, verdict->pause, verdict->detail);
}

/* Message "k" failed, and what was handed over with it and behind it goes back. */
static void
fail_one(PostgresDelivery *delivery, int k, const PostgresVerdict *verdict)
{
	complete_range(delivery, 0, k, QUEUE_SINK_THROTTLED, 0, taken_back);
	complete_range(delivery, 0, 1, verdict->outcome, verdict->pause, verdict->detail);
	complete_range(delivery, 0, delivery->count, QUEUE_SINK_THROTTLED, 0, taken_back);
}

/*
 * COMMIT itself failed, for a constraint that was deferred until then: the
 * messages of the batch go one at a time, to find out whose it was.
 */
static void
fail_commit(PostgresDelivery *delivery, const PostgresVerdict *verdict)
{
	if (delivery->batch == 1)
		fail_one(delivery, 0, verdict);
	else
	{
		delivery->singles = delivery->batch;
		complete_range(delivery, 0, delivery->count, QUEUE_SINK_THROTTLED, 0, verdict->detail);
	}
}

/* The batch failed at a step, and was certainly not taken. */
static void
fail_batch(PostgresDelivery *delivery)
{
	PostgresVerdict *verdict = &delivery->verdict;
	int			k = delivery->failed_step - STATEMENT_PREAMBLE;

	delivery->work = WORK_NONE;
	if (k < 0)
		postgres_outcome_for_nobody(verdict);
	if (verdict->for_all)
		complete_all(delivery, verdict);
	else if (k >= delivery->batch)
		fail_commit(delivery, verdict);
	else
		fail_one(delivery, k, verdict);
}

/*
 * The session ended, or is given up, in the middle of its work. What waits
 * behind the batch goes back too: it must not overtake it.
 */
static void
lose(PostgresDelivery *delivery, const char *why)
{
	PostgresVerdict verdict = {QUEUE_SINK_THROTTLED, RECONNECT_PAUSE, true, true, ""};
	bool		in_batch = delivery->work == WORK_BATCH;

	/* It may be libpq's own text, which goes with the connection. */
	text_one_line(verdict.detail, sizeof(verdict.detail), why, delivery->options.secrets);
	postgres_session_drop(&delivery->session);
	delivery->work = WORK_NONE;
	if (in_batch && delivery->failed)
		fail_batch(delivery);
	else if (in_batch && delivery->commit_sent)
		complete_range(delivery, 0, delivery->batch, QUEUE_SINK_AMBIGUOUS, 0, verdict.detail);
	fail_all(delivery, &verdict);
}

/* ---- beginning ---- */

static void
set_to_work(PostgresDelivery *delivery, PostgresWork work, int64_t deadline)
{
	delivery->work = work;
	delivery->work_deadline = deadline;
	delivery->unflushed = true;
	delivery->commit_sent = false;
	delivery->step = 0;
	delivery->failed = false;
}

/* Sends what libpq has, and COMMIT when all else has left. */
static void
flush(PostgresDelivery *delivery)
{
	PGconn	   *conn = delivery->session.conn;
	int			left = PQflush(conn);

	if (left == 0 && delivery->work == WORK_BATCH && !delivery->commit_sent)
	{
		delivery->commit_sent = true;
		left = postgres_statement_end(conn, "COMMIT") ? PQflush(conn) : -1;
	}
	if (left < 0)
		lose(delivery, PQerrorMessage(conn));
	else
		delivery->unflushed = left > 0;
}

/* Why a message cannot be sent, or NULL. */
static const char *
objection(const PostgresDelivery *delivery, const QueueSinkMessage *message)
{
	if (message->body_length >= MAX_BODY)
		return "the body is over 1 GB";
	if (*message->target && delivery->options.values[OPTION_FUNCTION])
		return "it has a target, but a function is called for messages";
	return NULL;
}

/* How many of the entries make the next batch. */
static int
measure(const PostgresDelivery *delivery)
{
	size_t		bytes = 0;
	int			n = 0;

	while (n < delivery->count && bytes < BATCH_BYTES && (n == 0 || delivery->singles == 0) &&
		   objection(delivery, delivery->entries[n].message) == NULL)
		bytes += delivery->entries[n++].message->body_length;
	return n;
}

static void
begin_batch(PostgresDelivery *delivery)
{
	PGconn	   *conn = delivery->session.conn;
	int			n = measure(delivery);
	bool		good;

	if (n == 0)
	{
		PostgresVerdict verdict = {QUEUE_SINK_PERMANENT, 0, false, false, ""};

		snprintf(verdict.detail, sizeof(verdict.detail), "%s", objection(delivery, delivery->entries[0].message));
		fail_one(delivery, 0, &verdict);
		return;
	}
	if (delivery->singles > 0)
		delivery->singles--;
	delivery->batch = n;
	set_to_work(delivery, WORK_BATCH, delivery->entries[0].deadline);
	good = postgres_statement_begin(&delivery->statement, conn);
	for (int i = 0; good && i < n; i++)
		good = postgres_statement_message(&delivery->statement, conn, delivery->entries[i].message);
	if (good)
		flush(delivery);
	else
		lose(delivery, PQerrorMessage(conn));
}

static void
begin_probe(PostgresDelivery *delivery)
{
	set_to_work(delivery, WORK_PROBE, delivery->probe_deadline);
	if (postgres_statement_probe(&delivery->statement, delivery->session.conn))
		flush(delivery);
	else
		lose(delivery, PQerrorMessage(delivery->session.conn));
}

/* What failed leaves a transaction that does nothing but wait for its end. */
static void
begin_undo(PostgresDelivery *delivery)
{
	set_to_work(delivery, WORK_UNDO, postgres_session_now() + delivery->config.timeout);
	if (postgres_statement_end(delivery->session.conn, "ROLLBACK"))
		flush(delivery);
	else
		lose(delivery, PQerrorMessage(delivery->session.conn));
}

/* Begins what is next, if anything is and can be. */
static void
begin(PostgresDelivery *delivery)
{
	PostgresVerdict failure;

	if (delivery->work != WORK_NONE || (delivery->count == 0 && !delivery->probing))
		return;
	if (delivery->session.state == SESSION_CLOSED && postgres_session_now() >= delivery->pause_end &&
		!postgres_session_start(&delivery->session, &failure))
		fail_all(delivery, &failure);
	if (delivery->session.state != SESSION_READY)
		return;
	if (delivery->probing)
		begin_probe(delivery);
	else
		begin_batch(delivery);
}

/* ---- results ---- */

/* Everything up to the sync was answered. */
static void
end_work(PostgresDelivery *delivery)
{
	PostgresWork work = delivery->work;
	int			commit_step = STATEMENT_PREAMBLE + delivery->batch;
	bool		open = delivery->failed && delivery->failed_step > 0 && delivery->failed_step < commit_step;

	delivery->work = WORK_NONE;
	if (delivery->failed && delivery->verdict.reconnect)
	{
		postgres_session_drop(&delivery->session);
		delivery->pause_end = postgres_session_now() + RECONNECT_PAUSE;
	}
	if (work == WORK_PROBE && delivery->failed)
		complete_probe(delivery, delivery->verdict.outcome, delivery->verdict.pause, delivery->verdict.detail);
	else if (work == WORK_PROBE)
		complete_probe(delivery, QUEUE_SINK_DELIVERED, 0, NULL);
	else if (work == WORK_BATCH && delivery->failed)
		fail_batch(delivery);
	else if (work == WORK_BATCH)
		complete_range(delivery, 0, delivery->batch, QUEUE_SINK_DELIVERED, 0, NULL);
	if (work == WORK_BATCH && open && delivery->session.state == SESSION_READY)
		begin_undo(delivery);
}

/*
 * The first error counts; one that ends the session may follow. Without a code
 * it is libpq's own, and nothing was answered. At COMMIT, the end of the session
 * does not say whether it was done.
 */
static void
take_error(PostgresDelivery *delivery, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	int			k = delivery->work == WORK_BATCH ? delivery->step - STATEMENT_PREAMBLE : -1;
	PostgresVerdict verdict;

	if (delivery->failed && sqlstate)
		return;
	postgres_outcome_of_result(&verdict, result, delivery->options.secrets);
	if (sqlstate == NULL || (k >= delivery->batch && k >= 0 &&
							 (postgres_outcome_is_fatal(result) || strncmp(sqlstate, "08", 2) == 0)))
	{
		lose(delivery, verdict.detail);
		return;
	}
	if (k >= 0 && k < delivery->batch && *delivery->entries[k].message->target)
		postgres_outcome_for_target(&verdict, sqlstate);
	if (delivery->work == WORK_PROBE)
		postgres_outcome_for_nobody(&verdict);
	delivery->verdict = verdict;
	delivery->failed = true;
	delivery->failed_step = delivery->step;
}

/* The one row of the probe: what is missing. */
static void
take_probe(PostgresDelivery *delivery, const PGresult *result)
{
	if (PQntuples(result) == 1 && PQgetisnull(result, 0, 0))
		return;
	/* As if the server had refused the name. */
	postgres_outcome_of_state(&delivery->verdict, "42704");
	text_one_line(delivery->verdict.detail, sizeof(delivery->verdict.detail),
				  PQntuples(result) == 1 ? PQgetvalue(result, 0, 0) : "no answer", delivery->options.secrets);
	delivery->failed = true;
	delivery->failed_step = 0;
}

static void
take_result(PostgresDelivery *delivery, const PGresult *result)
{
	switch (PQresultStatus(result))
	{
		case PGRES_PIPELINE_SYNC:
			end_work(delivery);
			return;
		case PGRES_COMMAND_OK:
			break;
		case PGRES_TUPLES_OK:
			if (delivery->work == WORK_PROBE)
				take_probe(delivery, result);
			break;
		case PGRES_PIPELINE_ABORTED:
			break;
		case PGRES_FATAL_ERROR:
			take_error(delivery, result);
			break;
		default:
			lose(delivery, "the server answered with something that was not asked for");
			return;
	}
	delivery->step++;
}

/* Takes what has come. */
static void
receive(PostgresDelivery *delivery)
{
	PGconn	   *conn = delivery->session.conn;
	bool		alive = PQconsumeInput(conn) == 1;
	int			nothing = 0;

	/* It may be said why before it ended: results first. */
	while (delivery->session.conn == conn && delivery->work != WORK_NONE && nothing < 2 && !PQisBusy(conn))
	{
		PGresult   *result = PQgetResult(conn);

		nothing = result ? 0 : nothing + 1;
		if (result)
			take_result(delivery, result);
		PQclear(result);
	}
	if (delivery->session.conn != conn)
		return;
	for (PGnotify *notify; (notify = PQnotifies(conn)) != NULL;)
		PQfreemem(notify);
	if (alive && PQstatus(conn) != CONNECTION_BAD)
		return;
	if (delivery->work == WORK_NONE)
		postgres_session_drop(&delivery->session);
	else
		lose(delivery, PQerrorMessage(conn));
}

/* ---- time ---- */

static void
expire(PostgresDelivery *delivery)
{
	int64_t		now = postgres_session_now();

	if (delivery->work != WORK_NONE && now >= delivery->work_deadline)
		lose(delivery, "no answer in time");
	if (delivery->count > delivery->batch && now >= delivery->entries[delivery->batch].deadline)
		complete_range(delivery, delivery->batch, delivery->count - delivery->batch,
					   QUEUE_SINK_THROTTLED, 0, "not sent in time");
	if (delivery->probing && now >= delivery->probe_deadline)
		complete_probe(delivery, QUEUE_SINK_THROTTLED, 0, "no answer in time");
}

static int64_t
earlier(int64_t one, int64_t other)
{
	return one < other ? one : other;
}

/* ms until there is something to do even if nothing comes; -1: never. */
int
postgres_delivery_timeout(const PostgresDelivery *delivery)
{
	bool		wanted = delivery->count > 0 || delivery->probing;
	int64_t		now = postgres_session_now();
	int64_t		until = INT64_MAX;

	if (delivery->session.state == SESSION_CLOSED && (wanted || delivery->pause_end > now))
		until = delivery->pause_end;
	if (delivery->session.state == SESSION_RESOLVING || delivery->session.state == SESSION_CONNECTING)
		until = delivery->session.deadline;
	if (delivery->session.state == SESSION_READY && delivery->work == WORK_NONE && wanted)
		until = now;
	if (delivery->work != WORK_NONE)
		until = earlier(until, delivery->work_deadline);
	if (delivery->count > delivery->batch)
		until = earlier(until, delivery->entries[delivery->batch].deadline);
	if (delivery->probing)
		until = earlier(until, delivery->probe_deadline);
	if (until == INT64_MAX)
		return -1;
	return until <= now ? 0 : until - now > 60000 ? 60000 : (int) (until - now);
}

/* ---- what the host asks for ---- */

/* Accepts messages, of which nothing is done before the next progress(). */
int
postgres_delivery_take(PostgresDelivery *delivery, const QueueSinkMessage *const *messages, int count)
{
	int64_t		now = postgres_session_now();
	int			room = delivery->config.max_in_flight - delivery->count;

	if (delivery->session.state == SESSION_CLOSED && now < delivery->pause_end)
		return 0;
	if (count > room)
		count = room;
	for (int i = 0; i < count; i++)
	{
		PostgresEntry *entry = &delivery->entries[delivery->count++];

		entry->message = messages[i];
		entry->deadline = now + delivery->config.timeout;
	}
	/* The server works on it while the host does something else. */
	if (delivery->session.state == SESSION_READY)
		begin(delivery);
	return count;
}

void
postgres_delivery_probe(PostgresDelivery *delivery)
{
	delivery->probing = true;
	delivery->probe_deadline = postgres_session_now() + delivery->options.connect_timeout + delivery->config.timeout;
}

void
postgres_delivery_progress(PostgresDelivery *delivery)
{
	PostgresVerdict failure;

	if (!postgres_session_progress(&delivery->session, &failure))
		fail_all(delivery, &failure);
	if (delivery->session.state == SESSION_READY && delivery->work != WORK_NONE)
		flush(delivery);
	if (delivery->session.state == SESSION_READY)
		receive(delivery);
	expire(delivery);
	begin(delivery);
}

/* Gives up all that is in flight. */
void
postgres_delivery_cancel(PostgresDelivery *delivery)
{
	if (delivery->work != WORK_NONE)
		lose(delivery, "given up");
	else
	{
		PostgresVerdict verdict = {QUEUE_SINK_THROTTLED, 0, true, false, "given up"};

		if (delivery->session.state != SESSION_READY)
			postgres_session_drop(&delivery->session);
		complete_all(delivery, &verdict);
		complete_probe(delivery, verdict.outcome, 0, verdict.detail);
	}
}
