/*
 * priority.h
 *	  Which priority's turn it is.
 */
#ifndef QUEUE_PRIORITY_H
#define QUEUE_PRIORITY_H

#include "state.h"

/* What a call goes by that claims from a queue with several. */
typedef struct QueuePriorityTurns
{
	QueueState *state;
	int64		step;			/* us of waiting that make up for one priority; 0: none do */
	uint32		left;			/* bits of those in which there may be more */
	int			priority;		/* whose turn it is */
	int			in_vain;		/* turns, of all */
} QueuePriorityTurns;

extern bool queue_priority_several(QueueState *state);
extern void queue_priority_begin(QueuePriorityTurns *turns, QueueState *state, const QueueOptions *options);
extern bool queue_priority_next(QueuePriorityTurns *turns, int *priority, TimestampTz *until);
extern void queue_priority_looked(QueuePriorityTurns *turns, TimestampTz head, bool past, bool took);

#endif							/* QUEUE_PRIORITY_H */
