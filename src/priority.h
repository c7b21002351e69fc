/*
 * priority.h
 *	  Which priority's turn it is.
 */
#ifndef QUEUE_PRIORITY_H
#define QUEUE_PRIORITY_H

#include "map.h"

/* What a call goes by that claims from a queue with several. */
typedef struct QueuePriorityTurns
{
	QueueState *state;
	int64		step;			/* us of waiting that make up for one priority; 0: none do */
	uint32		left;			/* bits of those in which there may be more */
	int			source;			/* whose turn it is */
	TimestampTz heads[QUEUE_SOURCES];	/* when their first messages were enqueued, as far as the call knows */
	uint64		seen[QUEUE_SOURCES];	/* what QueueState.heads was when it began */
	int			in_vain;		/* turns, of all */
} QueuePriorityTurns;

/*
 * What is known of a page on which there may be several priorities: the bits of
 * those, and when that was so, by the count of what was stored on such pages.
 */
extern uint32 queue_priority_moment(QueueSegment *segment);
extern bool queue_priority_may_be_on(QueueSegment *segment, BlockNumber page, int priority);
extern bool queue_priority_is_absent(QueueSegment *segment, int priority);
extern void queue_priority_look_for(QueueSegment *segment, int priority);

extern bool queue_priority_several(QueueState *state);
extern void queue_priority_begin(QueuePriorityTurns *turns, QueueState *state, const QueueOptions *options,
								 TimestampTz wall);
extern bool queue_priority_next(QueuePriorityTurns *turns, int *source, TimestampTz *until);
extern void queue_priority_came_back(QueueState *state, int priority, TimestampTz enqueued_at);
extern void queue_priority_looked(QueuePriorityTurns *turns, TimestampTz head, TimestampTz next,
								  bool took);

#endif							/* QUEUE_PRIORITY_H */
