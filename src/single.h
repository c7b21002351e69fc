/*
 * single.h
 *	  Who of several consumers is the active one.
 */
#ifndef QUEUE_SINGLE_H
#define QUEUE_SINGLE_H

#include "catalog.h"
#include "wakeup.h"

/* A consumer is a name, or if that is NULL this backend. */
extern bool queue_single_begin(QueueState *state, const char *consumer, int64 lease);
extern void queue_single_end(QueueState *state, QueueTime deadline);
extern void queue_single_abort(void);
extern void queue_single_forget(QueueState *state);
extern void queue_single_extended(QueueState *state, QueueTime deadline);
extern bool queue_single_stands_by(QueueState *state, const char *consumer);
extern QueueWakeup queue_single_sleep(const QueueDef *def, const char *consumer,
									  QueueTime deadline, bool *slept);
extern char *queue_single_describe(QueueState *state, QueueTime *until);

/* Nobody becomes the active one until it is let go. Nothing if the queue has none. */
static inline void
queue_single_hold(const QueueDef *def, LWLockMode mode)
{
	if (def->options.single_active_consumer)
		LWLockAcquire(queue_state_consumer_lock(def->state), mode);
}

static inline void
queue_single_let_go(const QueueDef *def)
{
	if (def->options.single_active_consumer)
		LWLockRelease(queue_state_consumer_lock(def->state));
}

#endif							/* QUEUE_SINGLE_H */
