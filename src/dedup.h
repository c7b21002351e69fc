/*
 * dedup.h
 *	  Keys that are accepted once: for a time, or while their message is there.
 */
#ifndef QUEUE_DEDUP_H
#define QUEUE_DEDUP_H

#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

#include "catalog.h"
#include "clock.h"
#include "shmem.h"

/* What a key is for; keys of different kinds are different. */
typedef enum QueueDedupKind
{
	QUEUE_DEDUP_MESSAGE = 'd',	/* a dedup_key */
	QUEUE_DEDUP_MESSAGE_OF_KEY = 'k',	/* the same within a key */
	QUEUE_DEDUP_UNIQUE = 'u',	/* a unique_key */
	QUEUE_DEDUP_INBOX = 'o',	/* of queue.once() */
} QueueDedupKind;

/* A key that was accepted, and its row. */
typedef struct QueueDedupRow
{
	Oid			relid;
	ItemPointerData tid;
	pg_uuid_t	hash;
	TimestampTz accepted_at;
} QueueDedupRow;

/* Tables in which keys are looked for, open and locked. */
typedef struct QueueDedup QueueDedup;

extern const QueueShmemPart queue_dedup_shmem;

extern void queue_dedup_hash(pg_uuid_t *hash, int32 owner, QueueDedupKind kind, const text *const *parts, int n);
extern QueueDedup *queue_dedup_open(int64 window);
extern QueueDedup *queue_dedup_open_unique(void);
extern void queue_dedup_close(QueueDedup *dedup);
extern bool queue_dedup_accept(QueueDedup *dedup, const pg_uuid_t *hash, int64 *id, QueueDedupRow *row);
extern void queue_dedup_set_id(const QueueDedupRow *row, int64 id);
extern bool queue_dedup_can_forget(void);
extern void queue_dedup_forget_unique(int32 queue, const text *key, int64 id);
extern void queue_dedup_forget_queue(int32 queue);
extern int	queue_dedup_holders(int32 queue, Snapshot snapshot, int64 **ids);
extern void queue_dedup_tend(void);

#endif							/* QUEUE_DEDUP_H */
