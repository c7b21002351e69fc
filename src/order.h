/*
 * order.h
 *	  Whether a message of an ordered queue may be taken now.
 */
#ifndef QUEUE_ORDER_H
#define QUEUE_ORDER_H

#include "message.h"
#include "visit.h"

/* A key of which something is sought. */
typedef struct QueueSought
{
	uint64		hash;
	bool		here;			/* on the page at hand, if there is something to be had */
	/* results, of a page */
	int			took;
	bool		undecided;		/* a message of it is being deleted by somebody unknown */
	bool		waits;			/* there is one that cannot be taken now */
	bool		no_room;		/* there is one that is too long for the result */
} QueueSought;

/* What a call that claims from an ordered queue, or looks at one, goes by. */
typedef struct QueueOrder
{
	QueueState *state;
	bool		has_turn;		/* and may take something */
	bool		learns;			/* or only what waits of the keys that have copies */
	QueueSought **sought;		/* only of these keys, in the order of hashes */
	int			sought_count;	/* 0: of all */
	bool		chosen;			/* of one, and in line for it: from all due pages before */
	uint64		hash;			/* that one */
	QueuePosition from[2];		/* where a look along the line for it goes on: backlog, timed */
	uint64		call;			/* its number */
	uint64		visit;			/* of the page it looks at */
	QueuePosition position;		/* where that is */
	bool		in_line;		/* no page before it is due, or it is not due itself */
	/* results, of a page */
	bool		other_key;		/* the first of its hash is of another key than that asked for */
	int64		lowest;			/* id of what is in line there; PG_INT64_MAX: nothing */
	/* of all */
	int64		highest_copy;
	bool		lacks_keys;
} QueueOrder;

typedef enum QueueOrderVerdict
{
	QUEUE_ORDER_TAKE,
	QUEUE_ORDER_WAIT,			/* the key's entry knows of it */
	QUEUE_ORDER_DUE,			/* nobody does: the page must be looked at again */
} QueueOrderVerdict;

/* What is known of a key, as of some moment. */
typedef struct QueueKeyFacts
{
	uint32		number;
	uint64		hash;
	bool		held;
	int64		first_cooling;	/* lowest id of messages that cool; PG_INT64_MAX: none */
	QueuePosition cooling_at;	/* where that is */
	QueueSpan	backlog;
	int64		backlog_from;
	QueueSpan	copies;
	int64		first_copy;
	bool		apart;
} QueueKeyFacts;

extern uint64 queue_order_hash(HeapTuple tuple, TupleDesc desc);
extern void queue_order_begin_page(QueueOrder *order, QueuePosition position, bool was_due);
extern uint32 queue_order_doubtful(QueueState *state, uint64 hash, QueueTime now,
								   uint32 *slots, uint64 *sequences, uint32 room);
extern void queue_order_read(QueueKey *key, QueueKeyFacts *facts);
extern QueueOrderVerdict queue_order_judge(QueueOrder *order, uint64 hash, const QueueMessageHead *head,
										   QueueHeldAs held);
extern QueueOrderVerdict queue_order_pass(QueueOrder *order, uint64 hash, const QueueMessageHead *head);
extern void queue_order_learn(QueueOrder *order, uint64 hash, const QueueMessageHead *head);
extern bool queue_order_know_copy(QueueOrder *order, uint64 hash, const QueueMessageHead *head);
extern bool queue_order_undecided(QueueOrder *order, uint64 hash, const QueueMessageHead *head,
								  QueueTime again);
extern void queue_order_leave(QueueOrder *order, uint64 hash);
extern void queue_order_no_room(QueueOrder *order, uint64 hash);
extern bool queue_order_seeks(QueueOrder *order, uint64 hash);
extern bool queue_order_is_free(QueueOrder *order, uint64 hash);
extern void queue_order_see_held(QueueOrder *order, uint64 hash, QueueHeldAs held);
extern bool queue_order_take(QueueOrder *order, uint64 hash, QueueSlot *slot);
extern void queue_order_hang(QueueOrder *order, uint64 hash, QueueSlot *slot);

#endif							/* QUEUE_ORDER_H */
