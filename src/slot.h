/*
 * slot.h
 *	  A slot for each message that somebody holds, or whose failure is not
 *	  written yet.
 */
#ifndef QUEUE_SLOT_H
#define QUEUE_SLOT_H

#include "access/transam.h"
#include "port/atomics.h"
#include "storage/itemptr.h"
#include "utils/uuid.h"

#include "key.h"
#include "map.h"
#include "meter.h"

/* States; the next states behind each. */
typedef enum QueueSlotState
{
	QUEUE_SLOT_FREE,			/* -> leased, settling (held by a deleter) */
	QUEUE_SLOT_LEASED,			/* -> settling, cooling, free (released) */
	QUEUE_SLOT_SETTLING,		/* in an open transaction -> free, leased, cooling */
	QUEUE_SLOT_COOLING,			/* failure or release not written -> leased, settling */
} QueueSlotState;

/* Flags beside the state. */
#define QUEUE_SLOT_LATE		0x0010	/* deadline passed; the receipt is still good */
#define QUEUE_SLOT_GONE		0x0020	/* the receipt is void */
#define QUEUE_SLOT_DEAD		0x0040	/* at the limit, or expired: not claimable */
#define QUEUE_SLOT_RELEASED	0x0080	/* cooling counts no failure */
#define QUEUE_SLOT_PREPARED	0x0100	/* settling in a prepared transaction: see xid */
#define QUEUE_SLOT_ACKED	0x0200	/* free, and the last holder acked */
#define QUEUE_SLOT_EXPIRED	0x0400	/* dead because its time to live is over */
#define QUEUE_SLOT_LOCKED	0x0800	/* somebody is changing the slot right now */
#define QUEUE_SLOT_FLAGS	0x0FF0

#define QUEUE_SLOT_STATE(word) ((QueueSlotState) ((word) & 0xF))
#define QUEUE_SLOT_SEQUENCE(word) ((word) >> 16)

/* Why a cooling slot cools; becomes the message's error. */
typedef enum QueueFailureReason
{
	QUEUE_FAILURE_NONE,
	QUEUE_FAILURE_DEADLINE,
	QUEUE_FAILURE_ABORT,
} QueueFailureReason;

/* How a lease ends that a transaction settles. */
typedef enum QueueSettlement
{
	QUEUE_SETTLE_ACK,
	QUEUE_SETTLE_RETRY,			/* a copy with one more failure was stored */
	QUEUE_SETTLE_DEAD,
	QUEUE_SETTLE_EXPIRED,
	QUEUE_SETTLE_MOVE,			/* a copy without a failure was stored */
	QUEUE_SETTLE_CANCEL,
	QUEUE_SETTLE_HOLD,			/* not: it is held until the transaction ends, and then as before */
} QueueSettlement;

/* Whether what was leased behind it, of its key, goes back. */
static inline bool
queue_settlement_fails(QueueSettlement how)
{
	return how == QUEUE_SETTLE_RETRY || how == QUEUE_SETTLE_DEAD;
}

typedef struct QueueSlot
{
	/* state, flags, and a sequence that counts holders; changed by CAS only */
	pg_atomic_uint64 word;

	/* written by whoever has LOCKED; in an order that leaves no gaps */
	pg_uuid_t	receipt;
	Oid			database;
	uint32		queue;			/* index of its state */
	Oid			view;			/* of the queue, for privileges */
	uint32		segment;		/* index */
	uint32		generation;		/* of the segment */
	ItemPointerData tid;
	uint8		reason;			/* QueueFailureReason */
	uint8		how;			/* settling in a prepared transaction: QueueSettlement */
	int32		failures;		/* before this lease, unwritten ones included */
	int64		message_id;
	uint16		prior;			/* settling: state and flags to come back to */
	uint8		priority;		/* with which it was claimed */
	bool		unwritten;		/* failures is more than the row says */
	bool		timed;			/* the row has a time of delivery */
	bool		moving;			/* cooling: only to be stored elsewhere, as it is */
	bool		at_limit;		/* the next failure is the last */
	Oid			owner;
	int			pid;
	int64		retry_delay;	/* after a failure of this lease, us */
	QueueTime	taken;
	QueueTime	deadline;
	QueueTime	cap;			/* no extension beyond */
	QueueTime	next;			/* cooling: next delivery */
	TimestampTz enqueued_at;
	FullTransactionId xid;		/* settling in a prepared transaction */

	/* the same, of an ordered queue */
	uint64		call;			/* that took it */
	QueuePosition copied_to;	/* settling: where the copy is; QUEUE_POSITION_NONE */
	uint32		taken_as;		/* the how many-th of its key in that call */
	uint32		key;			/* that it hangs on, + 1; 0: none */

	/* under the lock of the key; links are index + 1, 0 ends */
	uint32		next_of_key;
	uint32		previous_of_key;

	/* under the page's chain lock; links likewise */
	pg_atomic_uint32 *chain;	/* head; NULL: hangs nowhere */
	uint32		next_slot;
	uint32		previous_slot;

	char		consumer[QUEUE_CONSUMER_LENGTH];
	bool		is_copy;		/* the row is one, of an ordered queue */
	bool		blocks;			/* settling: it dies, and its key is blocked */
	bool		blocks_dead;	/* cooling and DEAD, it is going to */
	bool		metered;		/* meters count its lease */
} QueueSlot;

extern const QueueShmemPart queue_slot_shmem;

extern uint32 queue_slot_reserve(QueueState *state, uint32 wanted);
extern void queue_slot_reserve_more(QueueState *state, uint32 wanted);
extern bool queue_slot_use_reserved(QueueState *state, uint32 *slot, pg_uuid_t *receipt);
extern void queue_slot_make_receipt(uint32 slot, pg_uuid_t *receipt);
extern void queue_slot_return_reserved(void);
extern void queue_slot_give_back(QueueState *state, uint32 n, const uint32 *slots);
extern QueueSlot *queue_slot(uint32 number);
extern uint32 queue_slot_number(const QueueSlot *slot);
extern uint32 queue_slot_count(void);
extern uint32 queue_slot_free_count(void);

extern QueueMeters *queue_slot_meters(const QueueSlot *slot);
extern bool queue_slot_end_metering(QueueSlot *slot);
extern uint64 queue_slot_attempt(uint32 number);
extern void queue_slot_set_attempt(uint32 number, uint64 attempt);

extern uint64 queue_slot_lock(QueueSlot *slot);
extern bool queue_slot_lock_sequence(QueueSlot *slot, uint64 sequence, uint64 *word);
extern void queue_slot_unlock(QueueSlot *slot, uint64 word);
extern uint64 queue_slot_word(uint64 old, QueueSlotState state, uint32 flags);
extern uint64 queue_slot_next_word(uint64 old, QueueSlotState state, uint32 flags);
extern bool queue_slot_free(QueueSlot *slot, uint64 word, uint32 flags);

extern void queue_slot_forget_segment(uint32 segment, uint32 generation);
extern void queue_slot_unlink(QueueSlot *slot);
extern void queue_slot_link_key(QueueSlot *slot, QueueKey *key);
extern bool queue_slot_holds_key(const QueueKey *key);
extern bool queue_slot_hold_again(QueueSlot *slot, uint64 word);
extern uint32 queue_slot_taken_behind(uint32 key, uint64 call, uint32 taken_as,
									  uint32 *slots, uint64 *sequences, uint32 room);
extern bool queue_slot_retire(QueueSlot *slot, uint64 word, uint32 flags);
extern uint32 queue_slot_chained(QueueMapHold *hold, uint32 *slots, uint32 room);
extern uint32 queue_slot_on_page(QueueSegment *segment, BlockNumber page, uint32 *slots, uint32 room);
extern void queue_slot_link(QueueSlot *slot, QueueMapHold *hold);
extern QueueSlot *queue_slot_find(const pg_uuid_t *receipt);

#endif							/* QUEUE_SLOT_H */
