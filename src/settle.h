/*
 * settle.h
 *	  Ends of a lease by its holder: ack, nack, reject, release, extend.
 */
#ifndef QUEUE_SETTLE_H
#define QUEUE_SETTLE_H

#include "catalog.h"
#include "pending.h"
#include "segment.h"

typedef enum QueueSettleStatus
{
	QUEUE_STATUS_OK,
	QUEUE_STATUS_ALREADY_ACKED,
	QUEUE_STATUS_LOST,
	QUEUE_STATUS_INVALID,
	QUEUE_STATUS_DENIED,
} QueueSettleStatus;

/* A slot in the hands of this transaction, its row not deleted yet. */
typedef struct QueueSettling
{
	QueueDef   *def;
	QueueSlot  *slot;
	uint32		number;
	uint64		sequence;
	Relation	rel;			/* locked until the transaction ends */
	QueueSegment *segment;
	ItemPointerData tid;
	int64		message_id;
	uint32		prior;			/* word's state and flags before */
	text	   *unique_key;		/* of the message, when its row is deleted; or NULL */
} QueueSettling;

extern QueueSettleStatus queue_settle_begin(const pg_uuid_t *receipt, QueueSettlement how,
											QueueSettling *settling);
extern bool queue_settle_begin_cooling(uint32 number, QueueSettlement how,
									   QueueSettling *settling);
extern bool queue_settle_delete(QueueSettling *settling);
extern void queue_settle_leave(QueueSettling *settling);
extern void queue_settle_end(QueueSettling *settling);
extern QueueSettleStatus queue_settle_key(const pg_uuid_t *receipt, bool until_end,
										  QueueDef **def, text **key);
extern Oid queue_settle_view(const pg_uuid_t *receipt);
extern QueueSettleStatus queue_settle_ack(const pg_uuid_t *receipt);
extern QueueSettleStatus queue_settle_release(const pg_uuid_t *receipt, int64 delay);
extern QueueSettleStatus queue_settle_extend(const pg_uuid_t *receipt, int64 lease,
											 TimestampTz *deadline);

#endif							/* QUEUE_SETTLE_H */
