/*
 * limit.h
 *	  What limits a queue has: in flight, rates, and weights of keys.
 */
#ifndef QUEUE_LIMIT_H
#define QUEUE_LIMIT_H

#include "utils/hsearch.h"

/* What a limit counts together. */
typedef enum QueueLimitScope
{
	QUEUE_LIMIT_QUEUE,			/* all of the queue's */
	QUEUE_LIMIT_CONSUMER,		/* those of one consumer */
	QUEUE_LIMIT_KEY,			/* those of one key */
	QUEUE_LIMIT_SCOPES,
} QueueLimitScope;

/* Bounds of a share: so that a turn is neither too long nor too rare. */
#define QUEUE_LEAST_WEIGHT 0.1
#define QUEUE_MOST_WEIGHT 1000

typedef struct QueueLimit
{
	int32		in_flight;		/* most leases at a time; -1: any number */
	double		rate;			/* cost a second; 0: any */
	double		burst;			/* cost at once */
	double		weight;			/* share of a key; 0: not given */
} QueueLimit;

/* Those of a queue: for each of a scope, and for some by name. */
typedef struct QueueLimits
{
	bool		any;			/* there is a limit; weights are none */
	QueueLimit	each[QUEUE_LIMIT_SCOPES];
	HTAB	   *named;			/* by scope and hash of the name; NULL: none */
} QueueLimits;

extern const char *const queue_limit_scopes[QUEUE_LIMIT_SCOPES];

extern uint64 queue_limit_hash(QueueLimitScope scope, const char *name, int length);
extern void queue_limit_read(Oid table, Oid index, int32 id, QueueLimits *limits);
extern void queue_limit_write(Oid table, Oid index, int32 id, QueueLimitScope scope, const char *name,
							  const QueueLimit *limit);
extern void queue_limit_delete_all(Oid table, Oid index, int32 id);
extern void queue_limit_forget(QueueLimits *limits);
extern const QueueLimit *queue_limit_of(const QueueLimits *limits, QueueLimitScope scope, uint64 hash);

static inline bool
queue_limit_is_none(const QueueLimit *limit)
{
	return limit->in_flight < 0 && limit->rate == 0;
}

#endif							/* QUEUE_LIMIT_H */
