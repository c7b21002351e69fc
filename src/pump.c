/*
 * pump.c
 *	  Passes messages to a sink: in order, not too many, not when it is down.
 *
 * Between a host, who takes messages from a queue and settles them, and a sink.
 * It does no I/O and no waiting, reads no clock, and holds what is on its way:
 *
 *	 waiting -> in flight -> done		the sink has said what became of it
 *	 waiting -> done					it is released unsent
 *	 in flight -> waiting				the sink was throttled
 *
 * Where order is to be kept, messages of a key form a lane. A sink without
 * QUEUE_SINK_ORDERED has one of a lane at a time. When a message of a lane
 * fails, those behind it are released unsent: for the queue the failure has
 * voided their leases anyway, and they come again behind the failed one.
 *
 * The breaker. A round (a call of queue_pump_run) with a failure and without a
 * delivery is a bad one. After so many bad rounds in a row the breaker opens:
 * everything that waits is released, and nothing is taken until the pause is
 * over. Then one message is let through; its delivery closes the breaker, its
 * failure opens it for twice as long. While it is not closed no failure is
 * counted against its message: a destination that is down kills no messages. Nor
 * does a host that has no more time.
 *
 * Memory is malloc's; a message is one block, and its host's to get. Without memory for the little that
 * the pump itself needs the process ends: what it held is delivered again.
 */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pump.h"

#define LANES 4096				/* buckets of the hash table; a power of two */

/* What a sink may take longer than the timeout before it is told to give up, ms. */
#define GRACE 5000

/* After an answer that asked for a pause without a length, ms; doubled while it goes on. */
#define SHORTEST_PAUSE 50
#define LONGEST_PAUSE 5000

typedef struct QueuePumpList
{
	QueuePumpMessage *first;
	QueuePumpMessage *last;
	int			count;
} QueuePumpList;

/* Messages of a key; there while it has any. */
typedef struct QueuePumpLane
{
	struct QueuePumpLane *next;		/* in its bucket */
	uint64_t	hash;
	QueuePumpList	waiting;
	int			in_flight;
	bool		failed;			/* a message has; until those in flight behind it are back */
	struct QueuePumpLane *previous_open;	/* in the list of lanes that may send */
	struct QueuePumpLane *next_open;
	bool		open;
	size_t		key_length;
	char		key[];
} QueuePumpLane;

struct QueuePump
{
	const QueueSink *sink;
	void	   *state;			/* the sink's */
	QueueSinkHost host;
	QueuePumpConfig	config;
	QueuePumpLog		log;
	void	   *log_context;

	QueuePumpList	loose;			/* waiting, of no lane */
	QueuePumpList	flying;
	QueuePumpList	done;
	QueuePumpLane   *lanes[LANES];
	QueuePumpLane   *first_open;
	QueuePumpLane   *last_open;
	int			waiting;
	int64_t		bytes;
	uint64_t	next_order;
	uint64_t	gate;
	uint64_t	highest_gate;	/* that a message has asked for */

	QueuePumpBreaker breaker;
	int64_t		now;			/* of the last round */
	int64_t		open_until;
	int64_t		open_for;
	int			bad_rounds;
	bool		good;			/* in this round */
	bool		bad;
	int64_t		not_before;		/* nothing is sent */
	int64_t		pause;			/* that was last made up */

	bool		stopping;
	bool		disabled;
	QueuePumpCounts	counts;
	char		last_error[512];
	uint64_t	errors;

	bool		probing;
	bool		probed;
	QueueSinkOutcome probe_outcome;
	char		probe_detail[512];
	const QueueSinkMessage **batch; /* of max_in_flight */
};

static void *
allocate(size_t size)
{
	void	   *memory = calloc(1, size);

	if (memory == NULL)
		abort();
	return memory;
}

/* ---- lists ---- */

static void
append(QueuePumpList *list, QueuePumpMessage *message)
{
	message->previous = list->last;
	message->next = NULL;
	if (list->last)
		list->last->next = message;
	else
		list->first = message;
	list->last = message;
	list->count++;
}

static void
take_off(QueuePumpList *list, QueuePumpMessage *message)
{
	if (message->previous)
		message->previous->next = message->next;
	else
		list->first = message->next;
	if (message->next)
		message->next->previous = message->previous;
	else
		list->last = message->previous;
	message->previous = message->next = NULL;
	list->count--;
}

/* In the order in which messages were added; what comes back is near the front. */
static void
put_in_order(QueuePumpList *list, QueuePumpMessage *message)
{
	QueuePumpMessage *before = list->first;

	while (before && before->order < message->order)
		before = before->next;
	if (before == NULL)
	{
		append(list, message);
		return;
	}
	message->next = before;
	message->previous = before->previous;
	if (before->previous)
		before->previous->next = message;
	else
		list->first = message;
	before->previous = message;
	list->count++;
}

/* ---- lanes ---- */

static uint64_t
hash_key(const char *key, size_t length)
{
	uint64_t	hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ (unsigned char) key[i]) * UINT64_C(0x100000001b3);
	return hash ^ (hash >> 29);
}

static QueuePumpLane *
find_lane(QueuePump *pump, const char *key)
{
	size_t		length = strlen(key);
	uint64_t	hash = hash_key(key, length);
	QueuePumpLane  **bucket = &pump->lanes[hash & (LANES - 1)];
	QueuePumpLane   *lane;

	for (lane = *bucket; lane; lane = lane->next)
		if (lane->hash == hash && lane->key_length == length && memcmp(lane->key, key, length) == 0)
			return lane;
	lane = allocate(sizeof(QueuePumpLane) + length);
	lane->hash = hash;
	lane->key_length = length;
	memcpy(lane->key, key, length);
	lane->next = *bucket;
	*bucket = lane;
	return lane;
}

static void
close_lane(QueuePump *pump, QueuePumpLane *lane)
{
	if (!lane->open)
		return;
	lane->open = false;
	if (lane->previous_open)
		lane->previous_open->next_open = lane->next_open;
	else
		pump->first_open = lane->next_open;
	if (lane->next_open)
		lane->next_open->previous_open = lane->previous_open;
	else
		pump->last_open = lane->previous_open;
	lane->previous_open = lane->next_open = NULL;
}

/* Enter a lane among those that may send, or take it out, as it is now; free it when it is empty. */
static void
judge_lane(QueuePump *pump, QueuePumpLane *lane)
{
	bool		may = lane->waiting.count > 0 && !lane->failed &&
		(lane->in_flight == 0 || (pump->sink->abilities & QUEUE_SINK_ORDERED));

	if (!may)
		close_lane(pump, lane);
	else if (!lane->open)
	{
		lane->open = true;
		lane->previous_open = pump->last_open;
		lane->next_open = NULL;
		if (pump->last_open)
			pump->last_open->next_open = lane;
		else
			pump->first_open = lane;
		pump->last_open = lane;
	}
	if (lane->waiting.count == 0 && lane->in_flight == 0)
	{
		QueuePumpLane  **link = &pump->lanes[lane->hash & (LANES - 1)];

		while (*link != lane)
			link = &(*link)->next;
		*link = lane->next;
		free(lane);
	}
}

/* ---- ends of messages ---- */

static void
note_error(QueuePump *pump, const char *detail)
{
	snprintf(pump->last_error, sizeof(pump->last_error), "%s", detail ? detail : "no reason was given");
	pump->errors++;
}

/* A message that is on no list is done. */
static void
finish(QueuePump *pump, QueuePumpMessage *message, QueuePumpVerdict verdict, int64_t pause, const char *detail)
{
	message->verdict = verdict;
	message->pause = pause;
	snprintf(message->detail_room, sizeof(message->detail_room), "%s", detail ? detail : "");
	message->detail = message->detail_room;
	message->done_at = pump->now;
	append(&pump->done, message);
	switch (verdict)
	{
		case QUEUE_PUMP_DELIVERED:
			pump->counts.delivered++;
			break;
		case QUEUE_PUMP_FAILED:
			pump->counts.failed++;
			pump->counts.ambiguous += message->ambiguous;
			break;
		case QUEUE_PUMP_RELEASED:
			pump->counts.released++;
			break;
		case QUEUE_PUMP_REJECTED:
			pump->counts.rejected++;
			break;
	}
}

/*
 * Release what waits in a list: the first one is enough where the queue keeps
 * the order of a lane, since that takes the others back too; they are told all
 * the same, and found lost then.
 */
static void
release_list(QueuePump *pump, QueuePumpList *list)
{
	QueuePumpMessage *message;

	while ((message = list->first) != NULL)
	{
		take_off(list, message);
		pump->waiting--;
		finish(pump, message, QUEUE_PUMP_RELEASED, 0, NULL);
	}
}

static void
release_waiting(QueuePump *pump)
{
	release_list(pump, &pump->loose);
	while (pump->first_open)
	{
		QueuePumpLane   *lane = pump->first_open;

		release_list(pump, &lane->waiting);
		judge_lane(pump, lane);
	}
	/* Those with something in flight are not open. */
	for (int i = 0; pump->waiting > 0 && i < LANES; i++)
		for (QueuePumpLane *lane = pump->lanes[i], *next; lane; lane = next)
		{
			next = lane->next;
			release_list(pump, &lane->waiting);
			judge_lane(pump, lane);
		}
}

static void
put_back(QueuePump *pump, QueuePumpMessage *message)
{
	pump->waiting++;
	if (message->lane)
		put_in_order(&message->lane->waiting, message);
	else
		put_in_order(&pump->loose, message);
}

/* The sink wants a pause: before the next message at least so long. */
static void
hold_back(QueuePump *pump, int64_t pause)
{
	if (pause <= 0 && pump->now >= pump->not_before)
	{
		pump->pause = pump->pause ? pump->pause * 2 : SHORTEST_PAUSE;
		if (pump->pause > LONGEST_PAUSE)
			pump->pause = LONGEST_PAUSE;
		pause = pump->pause;
	}
	if (pump->now + pause > pump->not_before)
		pump->not_before = pump->now + pause;
}

/* What a message's failure is for it, and for those behind it. */
static void
fail(QueuePump *pump, QueuePumpMessage *message, int64_t pause, const char *detail)
{
	bool		counts = pump->breaker == QUEUE_PUMP_CLOSED && !pump->stopping;

	if (message->lane)
		message->lane->failed = true;
	if (!counts && pause == 0)
		pause = SHORTEST_PAUSE;
	finish(pump, message, counts ? QUEUE_PUMP_FAILED : QUEUE_PUMP_RELEASED, pause, detail);
}

/* Something of a lane has come back. */
static void
settle_lane(QueuePump *pump, QueuePumpLane *lane)
{
	if (lane->failed)
		release_list(pump, &lane->waiting);
	/* What was behind it in flight is back too. */
	if (lane->in_flight == 0)
		lane->failed = false;
	judge_lane(pump, lane);
}

/*
 * QueueSinkHost.complete. Whatever a sink says in a call is put down here, and
 * acted on when the call has returned.
 */
static void
complete(void *context, const QueueSinkMessage *given, QueueSinkOutcome outcome, int64_t pause,
		 const char *detail)
{
	QueuePump	   *pump = context;
	QueuePumpMessage *message = (QueuePumpMessage *) given;
	QueuePumpLane   *lane;

	if (given == NULL)
	{
		pump->probing = false;
		pump->probed = true;
		pump->probe_outcome = outcome;
		snprintf(pump->probe_detail, sizeof(pump->probe_detail), "%s", detail ? detail : "");
		return;
	}
	lane = message->lane;
	take_off(&pump->flying, message);
	if (lane)
		lane->in_flight--;
	message->ambiguous = outcome == QUEUE_SINK_AMBIGUOUS;
	if (outcome != QUEUE_SINK_DELIVERED)
		note_error(pump, detail);
	switch (outcome)
	{
		case QUEUE_SINK_DELIVERED:
			pump->good = true;
			finish(pump, message, QUEUE_PUMP_DELIVERED, 0, detail);
			break;
		case QUEUE_SINK_THROTTLED:
			pump->counts.throttled++;
			pump->bad = true;
			hold_back(pump, pause);
			if (pump->stopping || pump->disabled)
				finish(pump, message, QUEUE_PUMP_RELEASED, 0, NULL);
			else
				put_back(pump, message);
			break;
		case QUEUE_SINK_PERMANENT:
			/* The destination works: it has judged. */
			pump->good = true;
			if (lane)
				lane->failed = true;
			finish(pump, message, QUEUE_PUMP_REJECTED, 0, detail);
			break;
		case QUEUE_SINK_DISABLE:
			pump->disabled = true;
			if (lane)
				lane->failed = true;
			finish(pump, message, QUEUE_PUMP_RELEASED, 0, detail);
			break;
		case QUEUE_SINK_RETRY:
		case QUEUE_SINK_AMBIGUOUS:
		default:
			pump->bad = true;
			fail(pump, message, pause, detail);
			break;
	}
	if (lane)
		settle_lane(pump, lane);
}

static void
log_line(void *context, QueueSinkLevel level, const char *line)
{
	QueuePump	   *pump = context;

	pump->log(pump->log_context, level, line);
}

/* ---- the breaker ---- */

static void
open_breaker(QueuePump *pump)
{
	if (pump->breaker == QUEUE_PUMP_CLOSED || pump->open_for == 0)
		pump->open_for = pump->config.breaker_pause;
	else
		pump->open_for *= 2;
	if (pump->open_for > pump->config.breaker_pause_max)
		pump->open_for = pump->config.breaker_pause_max;
	pump->breaker = QUEUE_PUMP_OPEN;
	pump->open_until = pump->now + pump->open_for;
	/* The destination may have asked for more. */
	if (pump->open_until < pump->not_before)
		pump->open_until = pump->not_before;
}

/* After a round. */
static void
judge_breaker(QueuePump *pump)
{
	if (pump->good)
	{
		pump->breaker = QUEUE_PUMP_CLOSED;
		pump->bad_rounds = 0;
		pump->pause = 0;
	}
	else if (pump->bad)
	{
		pump->bad_rounds++;
		if (pump->breaker == QUEUE_PUMP_HALF_OPEN ||
			(pump->breaker == QUEUE_PUMP_CLOSED && pump->bad_rounds >= pump->config.breaker_failures))
			open_breaker(pump);
	}
	pump->good = pump->bad = false;
	if (pump->breaker == QUEUE_PUMP_OPEN && pump->now >= pump->open_until)
		pump->breaker = QUEUE_PUMP_HALF_OPEN;
	if (pump->breaker == QUEUE_PUMP_OPEN || pump->stopping || pump->disabled)
		release_waiting(pump);
}

/* ---- sending ---- */

static int
may_fly(const QueuePump *pump)
{
	int			most = pump->breaker == QUEUE_PUMP_CLOSED ? pump->config.max_in_flight : 1;

	if (pump->breaker == QUEUE_PUMP_OPEN || pump->stopping || pump->disabled || pump->now < pump->not_before)
		return 0;
	return most - pump->flying.count;
}

/* The next message to send, taken off its list; NULL: there is none. Lanes take turns. */
static QueuePumpMessage *
next_to_send(QueuePump *pump)
{
	QueuePumpMessage *message = pump->loose.first;
	QueuePumpLane   *lane;

	if (message && message->gate <= pump->gate)
	{
		take_off(&pump->loose, message);
		pump->waiting--;
		return message;
	}
	for (lane = pump->first_open; lane; lane = lane->next_open)
	{
		message = lane->waiting.first;
		if (message->gate > pump->gate)
			continue;
		take_off(&lane->waiting, message);
		pump->waiting--;
		lane->in_flight++;
		close_lane(pump, lane);
		judge_lane(pump, lane);
		return message;
	}
	return NULL;
}

/* What the sink has not accepted, as if it had not been offered. */
static void
take_back(QueuePump *pump, QueuePumpMessage *message)
{
	QueuePumpLane *lane = message->lane;

	take_off(&pump->flying, message);
	put_back(pump, message);
	if (lane == NULL)
		return;
	lane->in_flight--;
	settle_lane(pump, lane);
}

static void
send_waiting(QueuePump *pump)
{
	int			room = may_fly(pump);
	int			n = 0;
	int			accepted;
	QueuePumpMessage *message;

	while (n < room && (message = next_to_send(pump)) != NULL)
	{
		message->sent_at = pump->now;
		append(&pump->flying, message);
		pump->batch[n++] = &message->sink;
	}
	if (n == 0)
		return;
	accepted = pump->sink->send(pump->state, pump->batch, n);
	for (int i = n - 1; i >= accepted; i--)
		take_back(pump, (QueuePumpMessage *) pump->batch[i]);
}

/* A sink that has said nothing for too long is told to give up. */
static void
check_timeout(QueuePump *pump)
{
	QueuePumpMessage *oldest = pump->flying.first;

	if (oldest && pump->now - oldest->sent_at > pump->config.timeout + GRACE)
		queue_pump_cancel(pump);
}

/* ---- for the host ---- */

/* NULL, and an error, if the sink cannot be opened. */
QueuePump *
queue_pump_new(const QueueSink *sink, const QueuePumpConfig *config, const QueueSinkConfig *sink_config,
		 QueuePumpLog log, void *log_context, char *error, size_t size)
{
	QueuePump	   *pump = allocate(sizeof(QueuePump));

	pump->sink = sink;
	pump->config = *config;
	pump->log = log;
	pump->log_context = log_context;
	pump->host.version = QUEUE_SINK_VERSION;
	pump->host.context = pump;
	pump->host.complete = complete;
	pump->host.log = log_line;
	pump->batch = allocate(sizeof(QueueSinkMessage *) * config->max_in_flight);
	pump->state = sink->open(sink_config, &pump->host, error, size);
	if (pump->state == NULL)
	{
		free(pump->batch);
		free(pump);
		return NULL;
	}
	return pump;
}

/* What is still held is forgotten: its leases run out, or die with who took it. */
void
queue_pump_free(QueuePump *pump)
{
	QueuePumpMessage *message;

	if (pump->flying.count > 0)
		queue_pump_cancel(pump);
	pump->sink->close(pump->state);
	pump->stopping = true;
	release_waiting(pump);
	while ((message = queue_pump_take_done(pump)) != NULL)
		queue_pump_message_free(message);
	free(pump->batch);
	free(pump);
}

static char *
copy_string(char **room, const char *string)
{
	size_t		length = strlen(string) + 1;
	char	   *copy = *room;

	memcpy(copy, string, length);
	*room += length;
	return copy;
}

/* A copy in one block; NULL: there is no memory. */
QueuePumpMessage *
queue_pump_message_new(const QueueSinkMessage *given, const unsigned char *receipt, const char *lane_key)
{
	size_t		size = sizeof(QueuePumpMessage) + sizeof(QueueSinkHeader) * given->header_count;
	QueuePumpMessage *message;
	QueueSinkHeader *headers;
	char	   *room;

	size += strlen(given->id) + strlen(given->target) + strlen(given->content_type) + 3;
	size += given->key ? strlen(given->key) + 1 : 0;
	size += lane_key ? strlen(lane_key) + 1 : 0;
	size += given->body_length + 1;
	for (int i = 0; i < given->header_count; i++)
		size += strlen(given->headers[i].name) + strlen(given->headers[i].value) + 2;
	message = malloc(size);
	if (message == NULL)
		return NULL;
	memset(message, 0, sizeof(QueuePumpMessage));
	memcpy(message->receipt, receipt, QUEUE_PUMP_RECEIPT_LENGTH);
	message->bytes = size;
	headers = (QueueSinkHeader *) (message + 1);
	room = (char *) (headers + given->header_count);
	message->sink = *given;
	message->sink.id = copy_string(&room, given->id);
	message->sink.target = copy_string(&room, given->target);
	message->sink.content_type = copy_string(&room, given->content_type);
	if (given->key)
		message->sink.key = copy_string(&room, given->key);
	if (lane_key)
		message->lane_key = copy_string(&room, lane_key);
	for (int i = 0; i < given->header_count; i++)
	{
		headers[i].name = copy_string(&room, given->headers[i].name);
		headers[i].value = copy_string(&room, given->headers[i].value);
	}
	message->sink.headers = headers;
	memcpy(room, given->body, given->body_length);
	room[given->body_length] = '\0';
	message->sink.body = room;
	return message;
}

void
queue_pump_message_free(QueuePumpMessage *message)
{
	free(message);
}

/* The message is the pump's from now on. */
void
queue_pump_add(QueuePump *pump, QueuePumpMessage *message)
{
	message->order = ++pump->next_order;
	pump->bytes += message->bytes;
	if (message->gate > pump->highest_gate)
		pump->highest_gate = message->gate;
	pump->waiting++;
	if (!pump->config.ordered)
	{
		append(&pump->loose, message);
		return;
	}
	message->lane = find_lane(pump, message->lane_key ? message->lane_key : "");
	append(&message->lane->waiting, message);
	judge_lane(pump, message->lane);
}

/* How many messages it would like to have: as many waiting as may be in flight. */
int
queue_pump_room(const QueuePump *pump)
{
	int			most = 2 * pump->config.max_in_flight;

	if (pump->stopping || pump->disabled || pump->breaker == QUEUE_PUMP_OPEN ||
		pump->now < pump->not_before || pump->bytes >= pump->config.max_bytes)
		return 0;
	if (pump->breaker == QUEUE_PUMP_HALF_OPEN)
		most = 1;
	most -= pump->flying.count + pump->waiting;
	return most > 0 ? most : 0;
}

/* Messages whose gate is no higher may be sent. */
void
queue_pump_open_gate(QueuePump *pump, uint64_t gate)
{
	if (gate > pump->gate)
		pump->gate = gate;
}

bool
queue_pump_waits_for_gate(const QueuePump *pump)
{
	return pump->waiting > 0 && pump->highest_gate > pump->gate;
}

/* A round: sends, has the sink work, and sends what there is room for then. */
void
queue_pump_run(QueuePump *pump, int64_t now)
{
	pump->now = now;
	judge_breaker(pump);
	send_waiting(pump);
	pump->sink->progress(pump->state);
	check_timeout(pump);
	judge_breaker(pump);
	send_waiting(pump);
}

static void
sooner(int *timeout, int64_t ms)
{
	if (ms < 0)
		ms = 0;
	if (*timeout < 0 || ms < *timeout)
		*timeout = (int) (ms > 60000 ? 60000 : ms);
}

/* What to wait for before the next round, besides what the host knows of. */
void
queue_pump_wait_for(QueuePump *pump, int64_t now, int *descriptor, short *events, int *timeout)
{
	*descriptor = -1;
	*events = 0;
	*timeout = -1;
	pump->sink->wait_for(pump->state, descriptor, events, timeout);
	if (pump->breaker == QUEUE_PUMP_OPEN)
		sooner(timeout, pump->open_until - now);
	else if (pump->not_before > now)
		sooner(timeout, pump->not_before - now);
	if (pump->flying.first)
		sooner(timeout, pump->flying.first->sent_at + pump->config.timeout + GRACE - now + 1);
}

/* Sends nothing more; what is in flight is waited for by going on with rounds. */
void
queue_pump_stop(QueuePump *pump)
{
	pump->stopping = true;
	release_waiting(pump);
}

/* Gives up what is in flight. */
void
queue_pump_cancel(QueuePump *pump)
{
	pump->sink->cancel(pump->state);
}

QueuePumpMessage *
queue_pump_take_done(QueuePump *pump)
{
	QueuePumpMessage *message = pump->done.first;

	if (message)
	{
		take_off(&pump->done, message);
		pump->bytes -= message->bytes;
	}
	return message;
}

int
queue_pump_done_count(const QueuePump *pump)
{
	return pump->done.count;
}

/* When the first one that is done was; only if there is one. */
int64_t
queue_pump_done_since(const QueuePump *pump)
{
	return pump->done.first->done_at;
}

static int
list_receipts(const QueuePumpList *list, const unsigned char **receipts, int n, int room)
{
	for (QueuePumpMessage *message = list->first; message && n < room; message = message->next)
		receipts[n++] = message->receipt;
	return n;
}

int
queue_pump_held(const QueuePump *pump, const unsigned char **receipts, int room)
{
	int			n = list_receipts(&pump->flying, receipts, 0, room);

	n = list_receipts(&pump->loose, receipts, n, room);
	for (int i = 0; pump->config.ordered && i < LANES; i++)
		for (QueuePumpLane *lane = pump->lanes[i]; lane; lane = lane->next)
			n = list_receipts(&lane->waiting, receipts, n, room);
	return n;
}

int
queue_pump_held_count(const QueuePump *pump)
{
	return pump->flying.count + pump->waiting;
}

int
queue_pump_in_flight(const QueuePump *pump)
{
	return pump->flying.count;
}

QueuePumpBreaker
queue_pump_breaker(const QueuePump *pump)
{
	return pump->breaker;
}

/* Of one that is open; ms. */
int64_t
queue_pump_breaker_until(const QueuePump *pump)
{
	return pump->open_until;
}

/* The destination takes nothing until somebody changes something. */
bool
queue_pump_is_disabled(const QueuePump *pump)
{
	return pump->disabled;
}

const char *
queue_pump_last_error(const QueuePump *pump)
{
	return pump->last_error;
}

/* How many there were: tells a new one from the last. */
uint64_t
queue_pump_errors(const QueuePump *pump)
{
	return pump->errors;
}

QueuePumpCounts
queue_pump_counts(const QueuePump *pump)
{
	return pump->counts;
}

void
queue_pump_probe(QueuePump *pump)
{
	pump->probing = true;
	pump->probed = false;
	pump->sink->probe(pump->state);
}

/* Whether a trial has ended, and how. */
bool
queue_pump_probed(const QueuePump *pump, QueueSinkOutcome *outcome, const char **detail)
{
	*outcome = pump->probe_outcome;
	*detail = pump->probe_detail;
	return pump->probed;
}
