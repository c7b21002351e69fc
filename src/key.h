/*
 * key.h
 *	  What is known of the keys of ordered queues: held, or waited for.
 */
#ifndef QUEUE_KEY_H
#define QUEUE_KEY_H

#include "storage/block.h"

#include "state.h"

/* Where a page is along a queue's ring: the rank of its segment, its number. */
typedef uint64 QueuePosition;

#define QUEUE_POSITION(rank, page) (((uint64) (rank) << 32) | (page))
#define QUEUE_POSITION_NONE PG_UINT64_MAX
#define QUEUE_POSITION_RANK(position) ((position) >> 32)
#define QUEUE_POSITION_PAGE(position) ((BlockNumber) (position))

/* Places where messages of a key were passed over; empty if first > last. */
typedef struct QueueSpan
{
	QueuePosition first;
	QueuePosition last;
} QueueSpan;

/* So many keys may be taken out of a queue's list before they are looked at. */
#define QUEUE_KEYS_AT_ONCE 256

/* The lowest id of the copies is not known: they have to be looked through. */
#define QUEUE_COPY_UNKNOWN INT64CONST(0)
#define QUEUE_COPY_NONE PG_INT64_MAX

typedef struct QueueKey
{
	/* under the lock of its part of the table */
	uint32		next;			/* in its bucket, or of those that are free */
	uint32		queue;			/* index of its state; QUEUE_NONE: the entry is free */
	uint64		hash;
	uint32		slots;			/* first of the slots of its messages, + 1; 0: none */
	bool		ready;			/* in the queue's list, or just taken out to be looked at */
	QueueSpan	backlog;
	int64		backlog_from;	/* the id of its first message is no lower */
	int64		backlog_to;		/* that of the last that was passed over in line, or came back */
	QueueSpan	copies;
	int64		first_copy;		/* lowest id of them */
	bool		one_copy;		/* there is no other */
	uint64		call;			/* that took last */
	uint32		taken;			/* by that, so far */
	int64		cooling;		/* lowest id of those that cooled when it began */
	uint32		failed_as;		/* the first of those that failed */
	bool		blocked;		/* by a dead message, until somebody unblocks it */
	bool		alone;			/* what it took had come back: nothing is taken behind it */
	bool		apart;			/* a look for its next message has held up those for others */
	uint64		passed_in;		/* the visit of a page that passed one over last */

	/* under the spinlock of the queue's list */
	uint32		next_ready;
	uint32		previous_ready;
} QueueKey;

extern const QueueShmemPart queue_key_shmem;

extern uint32 queue_key_number(const QueueKey *key);
extern QueueKey *queue_key_find(QueueState *state, uint64 hash);
extern QueueKey *queue_key_get(QueueState *state, uint64 hash);
extern QueueKey *queue_key_lock(uint32 number);
extern void queue_key_unlock(QueueKey *key);

extern void queue_key_let_wait(QueueKey *key, QueuePosition position, int64 id);
extern void queue_key_add_copy(QueueKey *key, QueuePosition position, int64 id);
extern bool queue_key_make_ready(QueueKey *key);
extern void queue_key_make_ready_first(QueueKey *key);
extern bool queue_key_set_blocked(QueueState *state, uint64 *hashes, int n);
extern void queue_key_make_all_ready(QueueState *state);
extern void queue_key_not_ready(QueueKey *key);
extern QueueKey *queue_key_next_ready(QueueState *state);
extern QueueKey *queue_key_take_out(QueueState *state, uint64 hash);
extern void queue_key_forget_queue(QueueState *state);
extern void queue_key_look_later(QueueState *state, QueueTime when);
extern void queue_key_look_if_late(QueueState *state, QueueTime now);
extern void queue_key_usage(uint32 *used, uint32 *total);

extern void queue_key_looked(void);
extern void queue_key_rescan(uint32 number, const QueueSpan *copies);
extern uint64 queue_key_new_call(void);
extern void queue_key_take_turn(QueueState *state);
extern void queue_key_give_turn(void);

static inline bool
queue_span_is_empty(const QueueSpan *span)
{
	return span->first > span->last;
}

static inline void
queue_span_clear(QueueSpan *span)
{
	span->first = PG_UINT64_MAX;
	span->last = 0;
}

static inline void
queue_span_add(QueueSpan *span, QueuePosition position)
{
	span->first = Min(span->first, position);
	span->last = Max(span->last, position);
}

/* Whether anything of the key is known. Its entry is locked. */
static inline bool
queue_key_has_more(const QueueKey *key)
{
	return key->slots != 0 || key->blocked || !queue_span_is_empty(&key->backlog) ||
		!queue_span_is_empty(&key->copies);
}

#endif							/* QUEUE_KEY_H */
