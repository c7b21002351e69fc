/*
 * wakeup.h
 *	  Sleeping until a queue has work, and waking who sleeps.
 */
#ifndef QUEUE_WAKEUP_H
#define QUEUE_WAKEUP_H

#include "state.h"

typedef enum QueueWakeup
{
	QUEUE_WAKEUP_READY,
	QUEUE_WAKEUP_TIMEOUT,
	QUEUE_WAKEUP_DROPPED,
} QueueWakeup;

extern const QueueShmemPart queue_wakeup_shmem;

extern void queue_wakeup_begin(void);
extern QueueWakeup queue_wakeup_sleep(QueueState *state, QueueTime deadline,
									  QueueTime not_before, bool *slept);
extern bool queue_wakeup_fall_asleep(QueueState *state, QueueTime not_before, long *ms);
extern void queue_wakeup_woken(void);
extern void queue_wakeup_work(QueueState *state, int64 messages);
extern void queue_wakeup_due(QueueState *state, QueueTime due);
extern void queue_wakeup_pass_on(QueueState *state, bool found_work);
extern void queue_wakeup_pass_on_time(QueueState *state);
extern void queue_wakeup_all(QueueState *state);
extern void queue_wakeup_standbys(QueueState *state);
extern void queue_wakeup_abort(void);

/* the worker of a database */
extern bool queue_wakeup_register_worker(void);
extern void queue_wakeup_unregister_worker(void);
extern void queue_wakeup_worker(Oid database);
extern bool queue_wakeup_take_call(void);
extern int	queue_wakeup_worker_pid(Oid database);

#endif							/* QUEUE_WAKEUP_H */
