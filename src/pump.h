/*
 * pump.h
 *	  Passes messages to a sink: in order, not too many, not when it is down.
 *
 * Plain C without anything of PostgreSQL, as relay/sink.h: it is also a part of
 * the program queue-relay and of the harness. See pump.c.
 */
#ifndef QUEUE_PUMP_H
#define QUEUE_PUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../relay/sink.h"

#define QUEUE_PUMP_RECEIPT_LENGTH 16

typedef struct QueuePump QueuePump;

/* How a message ends for the queue. */
typedef enum QueuePumpVerdict
{
	QUEUE_PUMP_DELIVERED,				/* ack */
	QUEUE_PUMP_FAILED,				/* nack: counts, and the queue knows when to try again */
	QUEUE_PUMP_RELEASED,				/* release: counts nothing */
	QUEUE_PUMP_REJECTED,				/* to the dead-letter queue */
} QueuePumpVerdict;

typedef enum QueuePumpBreaker
{
	QUEUE_PUMP_CLOSED,
	QUEUE_PUMP_OPEN,
	QUEUE_PUMP_HALF_OPEN,
} QueuePumpBreaker;

/* A message on its way. "sink" comes first: the sink gives its address back. */
typedef struct QueuePumpMessage
{
	QueueSinkMessage sink;
	unsigned char receipt[QUEUE_PUMP_RECEIPT_LENGTH];
	int64_t		number;			/* of the message in its database */
	char	   *lane_key;		/* of the queue, which may not be the one that is sent; NULL: none */
	uint64_t	gate;			/* not sent before queue_pump_open_gate() with as much */

	/* when it is done */
	QueuePumpVerdict verdict;
	bool		ambiguous;		/* the failure may have been none */
	int64_t		pause;			/* ms until the next attempt at least; 0: as the queue has it */
	const char *detail;			/* "" if there is none */

	/* the pump's own */
	struct QueuePumpLane *lane;
	struct QueuePumpMessage *previous;
	struct QueuePumpMessage *next;
	uint64_t	order;
	int64_t		sent_at;
	int64_t		done_at;
	size_t		bytes;
	char		detail_room[512];
} QueuePumpMessage;

typedef struct QueuePumpConfig
{
	int			max_in_flight;
	int64_t		max_bytes;		/* of messages held, in flight or not */
	int64_t		timeout;		/* ms that a sink has for a message */
	bool		ordered;		/* keep the order of keys; those without one have one together */
	int			breaker_failures;	/* rounds of failures in a row that open the breaker */
	int64_t		breaker_pause;	/* ms that it is open the first time */
	int64_t		breaker_pause_max;
} QueuePumpConfig;

typedef struct QueuePumpCounts
{
	int64_t		delivered;
	int64_t		failed;
	int64_t		ambiguous;		/* of the failed */
	int64_t		throttled;		/* answers; a message may have several */
	int64_t		rejected;
	int64_t		released;
} QueuePumpCounts;

typedef void (*QueuePumpLog) (void *context, QueueSinkLevel level, const char *line);

extern QueuePump *queue_pump_new(const QueueSink *sink, const QueuePumpConfig *config,
					  const QueueSinkConfig *sink_config, QueuePumpLog log, void *log_context,
					  char *error, size_t size);
extern void queue_pump_free(QueuePump *pump);

/* Messages in. */
extern QueuePumpMessage *queue_pump_message_new(const QueueSinkMessage *message, const unsigned char *receipt,
									 const char *lane_key);
extern void queue_pump_add(QueuePump *pump, QueuePumpMessage *message);
extern int	queue_pump_room(const QueuePump *pump);
extern void queue_pump_open_gate(QueuePump *pump, uint64_t gate);
extern bool queue_pump_waits_for_gate(const QueuePump *pump);

/* Work. "now" is monotonic, in ms. */
extern void queue_pump_run(QueuePump *pump, int64_t now);
extern void queue_pump_wait_for(QueuePump *pump, int64_t now, int *descriptor, short *events, int *timeout);
extern void queue_pump_stop(QueuePump *pump);
extern void queue_pump_cancel(QueuePump *pump);

/* Messages out: in the order in which they are to be settled. */
extern QueuePumpMessage *queue_pump_take_done(QueuePump *pump);
extern void queue_pump_message_free(QueuePumpMessage *message);
extern int	queue_pump_done_count(const QueuePump *pump);
extern int64_t queue_pump_done_since(const QueuePump *pump);

/* Those that are held, for extending their leases. */
extern int	queue_pump_held(const QueuePump *pump, const unsigned char **receipts, int room);

extern int	queue_pump_held_count(const QueuePump *pump);
extern int	queue_pump_in_flight(const QueuePump *pump);
extern QueuePumpBreaker queue_pump_breaker(const QueuePump *pump);
extern int64_t queue_pump_breaker_until(const QueuePump *pump);
extern bool queue_pump_is_disabled(const QueuePump *pump);
extern const char *queue_pump_last_error(const QueuePump *pump);
extern uint64_t queue_pump_errors(const QueuePump *pump);
extern QueuePumpCounts queue_pump_counts(const QueuePump *pump);

/* A trial of the destination. */
extern void queue_pump_probe(QueuePump *pump);
extern bool queue_pump_probed(const QueuePump *pump, QueueSinkOutcome *outcome, const char **detail);

#endif							/* QUEUE_PUMP_H */
