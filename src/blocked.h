/*
 * blocked.h
 *	  Keys of ordered queues that a dead message blocks: queue._blocked_key.
 */
#ifndef QUEUE_BLOCKED_H
#define QUEUE_BLOCKED_H

#include "catalog.h"

extern void queue_blocked_insert(QueueDef *def, Datum key, bool isnull, int64 message_id);
extern int	queue_blocked_delete(QueueDef *def, text *key);
extern void queue_blocked_delete_all(int32 id);
extern int	queue_blocked_read(QueueDef *def, uint64 **hashes);

/* Sees one row; values are in the order of the columns. */
typedef void (*QueueBlockedVisitor) (Datum *values, void *arg);
extern void queue_blocked_visit(QueueDef *def, QueueBlockedVisitor visitor, void *arg);

#endif							/* QUEUE_BLOCKED_H */
