/*
 * dequeue.h
 *	  Claims messages: finds due pages, takes slots.
 */
#ifndef QUEUE_DEQUEUE_H
#define QUEUE_DEQUEUE_H

#include "access/htup.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

#include "catalog.h"
#include "segment.h"

typedef struct QueueClaimed
{
	HeapTuple	tuple;
	uint32		slot;
	uint64		sequence;
	pg_uuid_t	receipt;
	int32		failures;
	QueueTime	deadline;
	uint8		reason;			/* of an unwritten failure before this lease */
} QueueClaimed;

typedef struct QueueClaimRequest
{
	QueueDef   *def;
	int			wanted;
	int64		max_bytes;
	int64		lease;			/* us; 0: the queue's lease_timeout */
	const char *consumer;		/* NULL: the application's name */
	bool		pop;
} QueueClaimRequest;

extern int	queue_dequeue_claim(const QueueClaimRequest *request, Snapshot snapshot,
								QueueClaimed *claimed);
extern void queue_dequeue_sweep_page(QueueDef *def, Relation rel, QueueSegment *segment,
									 BlockNumber page);
extern int	queue_dequeue_move_page(QueueDef *def, Relation rel, QueueSegment *segment,
									BlockNumber page, bool ready_too);

#endif							/* QUEUE_DEQUEUE_H */
