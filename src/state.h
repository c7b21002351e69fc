/*
 * state.h
 *	  What shared memory knows of a queue: counters, sleepers, its ring.
 */
#ifndef QUEUE_STATE_H
#define QUEUE_STATE_H

#include "lib/pairingheap.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "clock.h"
#include "options.h"

/* Index of a state or a segment that is none. */
#define QUEUE_NONE PG_UINT32_MAX

/* Bytes of a consumer's name, and one. */
#define QUEUE_CONSUMER_LENGTH 64

/* Flags that ask the worker for something. */
#define QUEUE_ASK_NOTIFY	0x01	/* tell listeners */
#define QUEUE_ASK_RESERVE	0x02	/* make an empty segment */
#define QUEUE_ASK_FAILURES	0x04	/* cooling slots are to be written */
#define QUEUE_ASK_RECLAIM	0x08	/* a segment may be all dead */
#define QUEUE_ASK_RECOUNT	0x10	/* counters are not exact */

typedef enum QueueCounter
{
	QUEUE_COUNT_ENQUEUED,
	QUEUE_COUNT_DEQUEUED,
	QUEUE_COUNT_ACKED,
	QUEUE_COUNT_FAILED,			/* failures counted */
	QUEUE_COUNT_DEAD,
	QUEUE_COUNT_EXPIRED,
	QUEUE_COUNT_CANCELLED,		/* by cancel, DELETE or purge */
	QUEUE_COUNT_STORED,			/* a gauge: rows that live */
	QUEUE_COUNT_TIMED,			/* a gauge: those of them with a time of delivery */
	QUEUE_COUNT_WAIT_USECS,		/* enqueue to dequeue, summed */
	QUEUE_COUNT_WORK_USECS,		/* dequeue to ack, summed */
	QUEUE_COUNTERS,
} QueueCounter;

/* Totals of the past, for rates: one sample each ten seconds. */
#define QUEUE_RATE_SAMPLES 7

/*
 * Up to where pages were gone through for all keys together that wait (places.c); positions as
 * in key.h.
 */
typedef struct QueueFront
{
	uint32		number;			/* 0: there is none */
	uint64		from;			/* where it began */
	uint64		at;				/* the next page */
	uint32		apart;			/* spans in a row that it did not go on to */
} QueueFront;

typedef struct QueueState
{
	/* under the roster lock, exclusive to change */
	Oid			database;		/* InvalidOid: the entry is free */
	int32		id;
	uint32		generation;		/* of this entry: changes when it is freed */
	Oid			view;			/* set by whoever has it locked */

	/* under the queue's ring lock */
	bool		loaded;			/* the ring is known */
	uint32		first_segment;	/* in ring order, oldest first */
	uint32		reserves;		/* empty segments */
	uint32		timed;			/* segments with messages that wait for their time */
	uint32		copies;			/* segment that takes copies of an ordered queue's messages */
	uint64		ranks;			/* the last rank given to a segment */

	/* atomic */
	pg_atomic_uint32 active;	/* segment that takes inserts */
	pg_atomic_uint32 definition;	/* counts changes of it */
	pg_atomic_uint32 asks;		/* QUEUE_ASK_... */
	pg_atomic_uint32 slots;		/* leases and the like that it holds */
	pg_atomic_uint32 sleepers;
	pg_atomic_uint32 standbys;	/* sleepers that wait to become the active consumer */
	pg_atomic_uint32 inexact;	/* counters are being rebuilt */
	pg_atomic_uint32 sources;	/* bits of those that may have something (priority.c) */
	pg_atomic_uint64 heads[QUEUE_SOURCES];	/* of each, when its first message was enqueued, by the wall clock */
	pg_atomic_uint32 round;		/* counts claims: which lane is first */
	pg_atomic_uint32 turn;		/* pid of who claims from an ordered queue; 0: nobody */
	pg_atomic_uint32 ready_keys;	/* in the list below */
	pg_atomic_uint32 blocked_changes;	/* counts changes of which keys are blocked (blocked.c) */
	pg_atomic_uint32 blocked_known;	/* the count at which they were read last */
	pg_atomic_uint64 look_at;	/* QueueTime at which all keys are looked at */
	pg_atomic_uint32 copies_unknown;	/* not 0: copies were not looked at yet (turn.c) */
	pg_atomic_uint64 keeper;	/* QueueTime at which some sleeper looks again */
	pg_atomic_uint64 recheck;	/* QueueTime of the next look at forgotten groups */
	pg_atomic_uint64 recheck_at;	/* how far that look has come */
	pg_atomic_uint64 notified;	/* QueueTime of the last notification */
	pg_atomic_uint64 next_due;	/* QueueTime for which the worker notifies next */
	pg_atomic_uint64 counters[QUEUE_COUNTERS];

	/* what waits for room (meter.c): its own lock to change */
	QueueFront	front;
	bool		metered;		/* leases are counted */
	uint32		first_ready_meter;
	uint32		last_ready_meter;
	pairingheap meter_heap;		/* of those that wait for tokens; its nodes are shared memory too */
	pg_atomic_uint32 meters_ready;
	pg_atomic_uint32 meters_version;	/* of the definition, + 1 */
	pg_atomic_uint64 meters_due;	/* QueueTime at which a key has tokens again */
	pg_atomic_uint64 meters_closed; /* QueueTime before which nothing is to be had */

	/* set before the ring is known */
	bool		ordered;

	/* under ready_mutex: keys to be looked at (key.c) */
	slock_t		ready_mutex;
	uint32		first_ready;
	uint32		last_ready;

	/* under the queue's consumer lock: who is the active one (single.c) */
	bool		consumer_named;
	char		consumer[QUEUE_CONSUMER_LENGTH];
	int			consumer_pid;	/* if it has no name: its backend; 0: nobody is active */
	TimestampTz consumer_began; /* that, since when */
	bool		consumer_gone;	/* that, it has ended */
	QueueTime	consumer_until;
	uint32		claiming;		/* its calls that are at it */

	/* the worker alone */
	QueueTime	sampled;
	uint64		swept;			/* pages, since the last time round */
	bool		swept_all;		/* all of it was seen since the server's start */
	QueueTime	sweep_at;		/* of the next step of a sweep */
	int64		sweep_pause;	/* us; grows while nothing happens */
	uint64		sweep_saw;		/* sum of the counters then */
	QueueTime	recount_at;		/* not before */
	QueueTime	reserve_at;		/* a segment that could not be made is tried again */
	QueueTime	reclaim_at;		/* a segment can perhaps be emptied then */
	int64		dequeued_saw;	/* messages dequeued when last looked at */
	QueueTime	dequeued_at;	/* that was seen to move */
	uint64		samples[QUEUE_RATE_SAMPLES][3];
	bool		saw_ready;		/* by the last look at due pages */

	/* their own locks inside */
	ConditionVariable wakeup;
	ConditionVariable turns;
	ConditionVariable standby;
} QueueState;

extern const QueueShmemPart queue_state_shmem;

extern QueueState *queue_states;

extern QueueState *queue_state_get(int32 id, bool create);
extern bool queue_state_is(const QueueState *state, int32 id);
extern LWLock *queue_state_ring_lock(const QueueState *state);
extern LWLock *queue_state_consumer_lock(const QueueState *state);
extern void queue_state_forget(Oid database, int32 id);
extern uint32 queue_state_index(const QueueState *state);
extern QueueState *queue_state_next(Oid database, uint32 *position);
extern bool queue_state_ask(QueueState *state, uint32 what);

extern void queue_state_commit_begins(void);
extern void queue_state_commit_ended(void);
extern uint32 queue_state_committing(void);
extern void queue_state_prepare(void);
extern uint32 queue_state_prepared(void);

static inline void
queue_count(QueueState *state, QueueCounter counter, int64 n)
{
	pg_atomic_fetch_add_u64(&state->counters[counter], n);
}

static inline int64
queue_counted(QueueState *state, QueueCounter counter)
{
	return (int64) pg_atomic_read_u64(&state->counters[counter]);
}

#endif							/* QUEUE_STATE_H */
