/*
 * options.h
 *	  A queue's options: names, types, defaults, meanings, in one table.
 */
#ifndef QUEUE_OPTIONS_H
#define QUEUE_OPTIONS_H

#include "utils/jsonb.h"

#include "compat.h"

#define QUEUE_MAX_BACKOFF_LIST 32

/* Priorities are 0 to 9, higher ones go first; a message without one has this. */
#define QUEUE_PRIORITIES 10

/* Where messages of a priority are: in segments for it, or, + QUEUE_PRIORITIES, with those of others. */
#define QUEUE_SOURCES (2 * QUEUE_PRIORITIES)
#define QUEUE_PRIORITY_OF(source) ((source) % QUEUE_PRIORITIES)
#define QUEUE_SOURCE_IS_MIXED(source) ((source) >= QUEUE_PRIORITIES)
#define QUEUE_PRIORITY_DEFAULT 4

typedef enum QueueBackoff
{
	QUEUE_BACKOFF_NONE,
	QUEUE_BACKOFF_FIXED,
	QUEUE_BACKOFF_LINEAR,
	QUEUE_BACKOFF_EXPONENTIAL,
	QUEUE_BACKOFF_LIST,
} QueueBackoff;

typedef enum QueueOnExpiry
{
	QUEUE_EXPIRY_DEAD_LETTER,
	QUEUE_EXPIRY_DROP,
} QueueOnExpiry;

typedef enum QueueDedupScope
{
	QUEUE_DEDUP_SCOPE_QUEUE,
	QUEUE_DEDUP_SCOPE_KEY,
} QueueDedupScope;

typedef enum QueuePriorityMode
{
	QUEUE_PRIORITY_AGING,
	QUEUE_PRIORITY_STRICT,
} QueuePriorityMode;

typedef enum QueueOnDead
{
	QUEUE_ON_DEAD_SKIP,
	QUEUE_ON_DEAD_BLOCK,
	QUEUE_ON_DEAD_DEAD_REST,
} QueueOnDead;

/* All times in microseconds. */
typedef struct QueueOptions
{
	bool		if_not_exists;
	int64		lease_timeout;
	int64		lease_max;
	int			max_attempts;	/* 0 = unlimited */
	int			backoff;		/* QueueBackoff */
	int64		backoff_base;
	int64		backoff_max;
	double		backoff_jitter;
	int			backoff_list_length;
	int64		backoff_list[QUEUE_MAX_BACKOFF_LIST];
	char	   *dead_letter;	/* NULL = the queue's own */
	int64		message_ttl;	/* 0 = none */
	int			on_expiry;		/* QueueOnExpiry */
	int64		dedup_window;	/* 0 = none */
	int			dedup_scope;	/* QueueDedupScope */
	bool		notify;
	bool		ordered;
	int			on_dead;		/* QueueOnDead */
	bool		fair_share;
	int			priority_mode;	/* QueuePriorityMode */
	int64		aging_step;
	int64		segment_size;	/* bytes, 0 = the setting */
	bool		single_active_consumer;
} QueueOptions;

extern void queue_options_parse(Jsonb *given, QueueOptions *options);
extern void queue_options_check_together(const QueueOptions *options);
extern Jsonb *queue_options_merge(Jsonb *old, Jsonb *change);
extern int64 queue_options_retry_delay(const QueueOptions *options, int failures);

/* Strict reading of an options argument: unknown keys are errors. */
typedef struct QueueJsonKey
{
	const char *name;
	bool		built;
} QueueJsonKey;

extern void queue_options_check_keys(Jsonb *given, const QueueJsonKey *keys,
									 const char *function);
QUEUE_NORETURN extern void queue_options_bad_value(const char *name, const JsonbValue *value,
												   const char *expected);
extern JsonbValue *queue_options_get(Jsonb *given, const char *name);
extern char *queue_options_get_text(Jsonb *given, const char *name, int limit);
extern int64 queue_options_get_interval(Jsonb *given, const char *name);
extern int64 queue_options_get_int(Jsonb *given, const char *name,
								   int64 low, int64 high, int64 missing);
extern int64 queue_interval_to_usecs(const Interval *interval, const char *what);

#endif							/* QUEUE_OPTIONS_H */
