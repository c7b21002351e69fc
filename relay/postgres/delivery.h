/*
 * delivery.h
 *	  The life of messages in the sink.
 */
#ifndef POSTGRES_DELIVERY_H
#define POSTGRES_DELIVERY_H

#include "session.h"
#include "statement.h"

typedef enum PostgresWork
{
	WORK_NONE,					/* -> BATCH, PROBE */
	WORK_BATCH,					/* -> NONE, UNDO */
	WORK_PROBE,					/* -> NONE */
	WORK_UNDO,					/* -> NONE: ROLLBACK of a batch that failed */
} PostgresWork;

typedef struct PostgresEntry
{
	const QueueSinkMessage *message;
	int64_t		deadline;
} PostgresEntry;

typedef struct PostgresDelivery
{
	QueueSinkHost host;
	QueueSinkConfig config;		/* without settings */
	PostgresOptions options;
	PostgresStatement statement;
	PostgresSession session;
	int64_t		pause_end;		/* no connection is begun before */

	/*
	 * accepted and not complete, in order: the batch, and what waits behind
	 * it
	 */
	PostgresEntry *entries;		/* of config.max_in_flight */
	int			count;
	int			batch;			/* how many of them are the batch */
	int			singles;		/* how many of the next go alone */

	bool		probing;		/* a probe was begun and is not complete */
	int64_t		probe_deadline;

	/* what the session does */
	PostgresWork work;
	int64_t		work_deadline;
	bool		unflushed;		/* libpq has more to send */
	bool		commit_sent;	/* the server may have read COMMIT */
	int			step;			/* results that came */
	bool		failed;			/* one of them was an error: */
	int			failed_step;
	PostgresVerdict verdict;
} PostgresDelivery;

extern int	postgres_delivery_take(PostgresDelivery *delivery, const QueueSinkMessage *const *messages, int count);
extern void postgres_delivery_probe(PostgresDelivery *delivery);
extern void postgres_delivery_progress(PostgresDelivery *delivery);
extern void postgres_delivery_cancel(PostgresDelivery *delivery);
extern int	postgres_delivery_timeout(const PostgresDelivery *delivery);

#endif							/* POSTGRES_DELIVERY_H */
