/*
 * delta.h
 *	  How the open transaction changes queues, for those who do and for its end.
 */
#ifndef QUEUE_DELTA_H
#define QUEUE_DELTA_H

#include "segment.h"

/* May raise an error: before anything that must not be lost. */
extern void queue_delta_stored(QueueState *state, QueueSegment *segment,
							   BlockNumber page, QueueTime due, int messages);
extern void queue_delta_removed(QueueState *state, QueueSegment *segment,
								BlockNumber page, int messages, int timed);
extern void queue_delta_dead(QueueState *state, QueueSegment *segment,
							 BlockNumber page, int messages, int timed);
extern void queue_delta_failed(QueueState *state);
extern void queue_delta_enqueued(QueueState *state, int messages);
extern QueueState *queue_delta_create(int32 id);
extern void queue_delta_dropped(QueueState *state);
extern void queue_delta_database_dropped(Oid database);
extern void queue_delta_altered(QueueState *state);
extern bool queue_delta_alters(QueueState *state);
extern void queue_delta_altered_single(QueueState *state);
extern void queue_delta_restored(QueueState *state);
extern void queue_delta_blocked(QueueState *state);
extern void queue_delta_unblocked(QueueState *state);
extern bool queue_delta_changes_blocked(QueueState *state);

/* For the transaction's callbacks; but for the first one they cannot fail. */
extern void queue_delta_refuse_prepare(void);
extern bool queue_delta_any(void);
extern void queue_delta_announce(void);
extern void queue_delta_lower_touched(QueueTime at);
extern void queue_delta_apply(void);
extern void queue_delta_undo(int nest);
extern void queue_delta_release(int nest);
extern void queue_delta_prepare(void);
extern void queue_delta_forget(void);

#endif							/* QUEUE_DELTA_H */
