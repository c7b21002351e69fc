/*
 * failure.h
 *	  Writes failures: a copy for the next attempt, or a dead letter.
 */
#ifndef QUEUE_FAILURE_H
#define QUEUE_FAILURE_H

#include "message.h"
#include "settle.h"

typedef enum QueueFate
{
	QUEUE_FATE_LOST,			/* the row is not to be had */
	QUEUE_FATE_RETRY,
	QUEUE_FATE_DEAD,
} QueueFate;

/* What befell a message. */
typedef struct QueueFailure
{
	const char *death;			/* reason in queue.death; NULL: not dead */
	const char *error;			/* NULL: keep the last one */
	bool		counts;			/* one failure more */
	bool		expired;		/* the death is that its time to live is over */
	bool		moves;			/* nothing at all: it is stored elsewhere, as it is */
	TimestampTz next;			/* of the retry; DT_NOBEGIN: at once */
} QueueFailure;

extern QueueFate queue_failure_write(QueueSettling *settling, const QueueFailure *failure);
extern QueueSettleStatus queue_failure_nack(const pg_uuid_t *receipt, const char *error,
											int64 delay, QueueFate *fate);
extern QueueSettleStatus queue_failure_reject(const pg_uuid_t *receipt, const char *reason);
extern bool queue_failure_can_bury(QueueDef *def);
extern void queue_failure_bury_rest(QueueDef *def, QueueMessage *message, int64 id, int64 dead_id);
extern bool queue_failure_blame(void);
extern int	queue_failure_write_cooling(int limit, bool *more);

#endif							/* QUEUE_FAILURE_H */
