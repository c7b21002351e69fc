/*
 * blocked.h
 *	  Keys of ordered queues that a dead message blocks: queue._blocked_key.
 */
#ifndef QUEUE_BLOCKED_H
#define QUEUE_BLOCKED_H

#include "catalog.h"

/* A row: a key is blocked by a message. */
typedef struct QueueBlocked
{
	text	   *key;
	int64		message;
	TimestampTz since;
	int64		rest_to;		/* messages behind it with a lower id die too; 0: none does */
} QueueBlocked;

extern void queue_blocked_insert(QueueDef *def, Datum key, bool isnull, int64 message_id, int64 rest_to);
extern int	queue_blocked_delete(QueueDef *def, text *key);
extern void queue_blocked_delete_all(int32 id);
extern bool queue_blocked_try_lock(QueueDef *def);
extern void queue_blocked_delete_messages(QueueDef *def, int64 *ids, int n);
extern int	queue_blocked_read(QueueDef *def, uint64 **hashes);

/* Sees one row, which goes away afterwards. */
typedef void (*QueueBlockedVisitor) (const QueueBlocked *blocked, void *arg);
extern void queue_blocked_visit(QueueDef *def, QueueBlockedVisitor visitor, void *arg);

#endif							/* QUEUE_BLOCKED_H */
