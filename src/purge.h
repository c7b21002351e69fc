/*
 * purge.h
 *	  Deletes messages that nobody consumes: purge and cancel.
 */
#ifndef QUEUE_PURGE_H
#define QUEUE_PURGE_H

#include "catalog.h"

/* States of a message, as the view shows them. */
#define QUEUE_MESSAGE_READY		0x1
#define QUEUE_MESSAGE_DELAYED	0x2
#define QUEUE_MESSAGE_LEASED	0x4
#define QUEUE_MESSAGE_FAILED	0x8

/* What was seen of a message that was to be replaced, also by one that this transaction has stored. */
typedef struct QueuePurgeSeen
{
	bool		there;			/* at all */
	bool		leased;
	TransactionId open;			/* that deletes it or has moved it, or invalid */
	TimestampTz visible_at;		/* when it would have been delivered; DT_NOBEGIN: at once */
} QueuePurgeSeen;

typedef struct QueuePurgeFilter
{
	int			states;			/* QUEUE_MESSAGE_... */
	TimestampTz older_than;		/* enqueued before; DT_NOEND: all */
	int64		id;				/* 0: all */
	QueuePurgeSeen *seen;		/* another message is to take the place of the one with that id; or NULL */
} QueuePurgeFilter;

/* Where a message was seen last, to find it again. */
typedef struct QueuePlace
{
	uint32		segment;
	uint32		generation;
	BlockNumber page;
} QueuePlace;

extern int64 queue_purge(QueueDef *def, const QueuePurgeFilter *filter);
extern int64 queue_purge_at(QueueDef *def, const QueuePlace *place, const QueuePurgeFilter *filter);

#endif							/* QUEUE_PURGE_H */
