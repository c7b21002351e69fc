/*
 * meter.h
 *	  What is in use of a queue's limits, and which keys wait for room.
 */
#ifndef QUEUE_METER_H
#define QUEUE_METER_H

#include "key.h"
#include "limit.h"
#include "state.h"

/* In place of the hash of a key. */
#define QUEUE_METER_NO_KEY 1

/* The meters that a lease counts on. */
typedef struct QueueMeters
{
	bool		on[QUEUE_LIMIT_SCOPES];
	uint64		hashes[QUEUE_LIMIT_SCOPES];
} QueueMeters;

/* What a claim goes by. */
typedef struct QueueMetering
{
	QueueState *state;
	const QueueLimits *limits;
	bool		fair;			/* keys take turns */
	uint64		consumer;		/* hash of it */
	uint64		only;			/* hash of the key that is asked for; 0: any */
	QueueTime	now;
} QueueMetering;

typedef enum QueueMeterVerdict
{
	QUEUE_METER_TAKE,			/* it was counted */
	QUEUE_METER_WAIT,			/* its key has no room, or no turn, and knows where it is */
	QUEUE_METER_LATER,			/* the same, but there is no memory for the key */
	QUEUE_METER_CLOSED,			/* the queue, or the consumer, has no room */
} QueueMeterVerdict;

/* Places where a key's messages wait that can have some now. */
typedef struct QueueOffer
{
	uint64		key;
	QueuePosition first;
	bool		open;			/* and others behind it, up to where nobody knows */
	uint32		front;			/* which goes on over these, if any */
	QueuePosition until;		/* else they are looked at up to here */
} QueueOffer;

/* For somebody who looks. */
typedef struct QueueMeterReading
{
	uint32		held;
	double		tokens;			/* of the bucket */
	bool		waits;			/* something was not had for it */
} QueueMeterReading;

extern const QueueShmemPart queue_meter_shmem;

extern bool queue_meter_is_known(QueueState *state, uint32 version);
extern bool queue_meter_is_in_force(QueueState *state, uint32 version);
extern void queue_meter_begin(const QueueMetering *metering);
extern void queue_meter_set_known(QueueState *state, uint32 version);
extern QueueMeterVerdict queue_meter_take(const QueueMetering *metering, uint64 key, double cost,
										  QueuePosition position, QueueTime deadline, QueueMeters *meters);
extern bool queue_meter_knows(QueueState *state, uint64 key, QueuePosition position);
extern bool queue_meter_adopt(const QueueMetering *metering, uint64 consumer, bool counted, QueueTime deadline,
							  QueueMeters *meters);
extern bool queue_meter_again(const QueueMetering *metering, QueueTime deadline, QueueMeters *meters, bool *counted);
extern bool queue_meter_end(QueueState *state, QueueMeters *meters);
extern void queue_meter_look_by(QueueState *state, QueueMeters *meters, QueueTime when);
extern bool queue_meter_peek(const QueueMetering *metering, QueuePosition *first);
extern bool queue_meter_offer(const QueueMetering *metering, QueueOffer *offer);
extern bool queue_meter_offer_at(const QueueMetering *metering, QueuePosition place, uint64 *key);
extern uint32 queue_meter_is_at_front(QueueState *state, QueuePosition position);
extern bool queue_meter_read_front(QueueState *state, uint32 number, QueuePosition *at);
extern void queue_meter_move_front(QueueState *state, uint32 number, QueuePosition from, QueuePosition next);
extern bool queue_meter_advance(QueueState *state, const QueueOffer *offer, QueuePosition next);
extern QueueTime queue_meter_due(QueueState *state, QueueTime due);
extern bool queue_meter_is_overdue(const QueueMetering *metering);
extern void queue_meter_forget_expiry(const QueueMetering *metering);
extern void queue_meter_lower_expiry(const QueueMetering *metering, QueueTime of_queue, QueueTime of_consumer);
extern void queue_meter_reopen(QueueState *state);
extern void queue_meter_forget_queue(QueueState *state);
extern void queue_meter_read(QueueState *state, uint64 hash, const QueueLimit *limit, QueueMeterReading *reading);
extern int64 queue_meter_count_waiting(QueueState *state, QueueLimitScope scope);
extern void queue_meter_usage(uint32 *used, uint32 *total);

#endif							/* QUEUE_METER_H */
