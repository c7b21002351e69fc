/*
 * limited.h
 *	  Claims from queues that have limits, or whose keys take turns.
 */
#ifndef QUEUE_LIMITED_H
#define QUEUE_LIMITED_H

#include "claim.h"

/* What became of a key's turn. */
typedef enum QueueKeyTurn
{
	QUEUE_KEY_TURN_NONE,		/* there is no key that can have anything */
	QUEUE_KEY_TURN_LOOKED,		/* its place was looked at, whether there was something or not */
	QUEUE_KEY_TURN_LEFT,		/* its place is due now, for whoever comes */
	QUEUE_KEY_TURN_BUSY,		/* the same, and others have to wait for it too */
} QueueKeyTurn;

extern bool queue_limited_begin(QueueClaim *claim);
extern int	queue_limited_offer(QueueClaim *claim, int most);
extern QueueKeyTurn queue_limited_give_turn(QueueClaim *claim);
extern bool queue_limited_make_room(QueueClaim *claim);

#endif							/* QUEUE_LIMITED_H */
