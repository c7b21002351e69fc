/*
 * enqueue.h
 *	  The one way into a queue.
 */
#ifndef QUEUE_ENQUEUE_H
#define QUEUE_ENQUEUE_H

#include "catalog.h"
#include "key.h"
#include "message.h"

extern int64 queue_enqueue_draw_bound(QueueDef *def);
extern void queue_enqueue_check(QueueDef *def, const QueueMessage *messages, int n);
extern void queue_enqueue_give_ids(QueueDef *def, QueueMessage *messages, int n);
extern void queue_enqueue_checked(QueueDef *def, QueueMessage *messages, int n);
extern void queue_enqueue(QueueDef *def, QueueMessage *messages, int n);
extern void queue_enqueue_store(QueueDef *def, QueueMessage *message);
extern QueuePosition queue_enqueue_again(QueueDef *def, QueueMessage *message);

#endif							/* QUEUE_ENQUEUE_H */
