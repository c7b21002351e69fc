/*
 * once.h
 *	  Enqueueing what may have been enqueued before.
 */
#ifndef QUEUE_ONCE_H
#define QUEUE_ONCE_H

#include "catalog.h"
#include "message.h"

/* What is done with a message whose unique key another one has that is there. */
typedef enum QueueOnConflict
{
	QUEUE_CONFLICT_SKIP,
	QUEUE_CONFLICT_REPLACE,		/* it gets the place, and the time of delivery */
	QUEUE_CONFLICT_DEBOUNCE,	/* the place, and its own time */
} QueueOnConflict;

/* A message to enqueue. Its unique key is one of its columns. */
typedef struct QueueOnce
{
	const text *dedup_key;		/* NULL: none */
	QueueOnConflict on_conflict;
	bool		duplicate;		/* result: it has the id of another one */
} QueueOnce;

extern void queue_once_enqueue(QueueDef *def, QueueMessage *messages, QueueOnce *onces, int n);
extern bool queue_once_inbox(const text *consumer, const text *key);

#endif							/* QUEUE_ONCE_H */
