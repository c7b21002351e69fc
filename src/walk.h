/*
 * walk.h
 *	  Walks over pages of an ordered queue, by whoever has its turn.
 */
#ifndef QUEUE_WALK_H
#define QUEUE_WALK_H

#include "claim.h"
#include "ring.h"

/* A claim that has the queue's turn. */
typedef struct QueueTurn
{
	QueueClaim *claim;
	QueueState *state;
	Oid			locked;			/* a segment that somebody has locked */
	bool		no_memory;
} QueueTurn;

/* A look for the next message of a key. */
typedef struct QueueLook
{
	int			number;			/* among those that were taken out with it */
	QueueKeyFacts facts;		/* when it was taken out, or read again */
	QueueSpan	span;			/* is gone through */

	/* of the walk */
	QueueSought sought;			/* on the page at hand */
	QueuePosition reached;
	int			taken;
	bool		undecided;		/* it ended at a message that somebody unknown deletes */
	bool		apart;			/* it held up the others */
	bool		ended;
} QueueLook;

extern bool queue_walk_goes_on(QueueTurn *turn);
extern bool queue_walk_open(QueueTurn *turn, QueueSegment *segment, uint32 generation);
extern void queue_walk_close(QueueTurn *turn);
extern void queue_walk_look_at(QueueTurn *turn, BlockNumber page, QueueTime now);
extern QueueKey *queue_walk_lock_key(QueueTurn *turn, const QueueKeyFacts *facts);
extern void queue_walk_spans(QueueTurn *turn, QueueLook *looks, int n, int others, QueueSought **sought,
							 QueueLane lane);
extern void queue_walk_span(QueueTurn *turn, QueueLook *look, QueueSpan span, QueueLane lane);

#endif							/* QUEUE_WALK_H */
