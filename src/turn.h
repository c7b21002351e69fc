/*
 * turn.h
 *	  Claims from an ordered queue, one claimer at a time.
 */
#ifndef QUEUE_TURN_H
#define QUEUE_TURN_H

#include "claim.h"

extern bool queue_turn_claim(QueueClaim *claim);

#endif							/* QUEUE_TURN_H */
