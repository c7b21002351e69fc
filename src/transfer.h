/*
 * transfer.h
 *	  What a runner does with the queue: takes messages, and settles them.
 */
#ifndef QUEUE_TRANSFER_H
#define QUEUE_TRANSFER_H

#include "utils/uuid.h"

#include "pump.h"
#include "relay.h"
#include "runner.h"

/* A message that was taken, as it is to be sent. */
typedef struct QueueTransfer
{
	const QueueEnvelope *envelope;
	pg_uuid_t	receipt;
	const char *lane;			/* key in the queue, in the server's encoding; NULL: none */
	int64		message;
	int			attempt;
	XLogRecPtr	gate;			/* a standby must have flushed so much; 0: none need */
} QueueTransfer;

typedef void (*QueueTransferTo) (void *context, const QueueTransfer *transfer);

/* How one ends. Texts are UTF-8, as the sink has them. */
typedef struct QueueTransferEnd
{
	pg_uuid_t	receipt;
	QueuePumpVerdict verdict;
	int64		pause;			/* ms */
	const char *detail;			/* "": none */
	const char *event;			/* for the log: id as it was sent */
	const char *target;
	int64		message;
	int			attempt;
} QueueTransferEnd;

/* Why a runner has to stop, or go on. */
typedef enum QueueTransferState
{
	QUEUE_TRANSFER_RUN,
	QUEUE_TRANSFER_CHANGED,		/* begin anew */
	QUEUE_TRANSFER_PAUSED,		/* or dropped, or not allowed any more */
	QUEUE_TRANSFER_LOST,		/* somebody else is the runner */
} QueueTransferState;

/* Results of a take that are no numbers: the runner is to renew, since it has to begin anew or to end; the queue is paused. */
#define QUEUE_TRANSFER_RENEW (-1)
#define QUEUE_TRANSFER_QUEUE_PAUSED (-2)

extern int64 queue_transfer_begin(QueueRelay *relay, const char *runner, bool in_server);
extern int	queue_transfer_take(QueueRelay *relay, int64 epoch, int wanted, QueueTransferTo to, void *context);
extern int	queue_transfer_settle(QueueRelay *relay, const QueueTransferEnd *ends, int n);
extern QueueTransferState queue_transfer_renew(QueueRelay *relay, int64 epoch, int64 version,
											   const pg_uuid_t *const *receipts, int n,
											   const QueueRunnerStatus *status);
extern XLogRecPtr queue_transfer_standby(void);

#endif							/* QUEUE_TRANSFER_H */
