/*
 * limited.h
 *	  Claims from queues that have limits, or whose keys take turns.
 */
#ifndef QUEUE_LIMITED_H
#define QUEUE_LIMITED_H

#include "claim.h"

extern bool queue_limited_begin(QueueClaim *claim);
extern int	queue_limited_offer(QueueClaim *claim, int most);
extern bool queue_limited_make_room(QueueClaim *claim);

#endif							/* QUEUE_LIMITED_H */
