/*
 * rest.h
 *	  Moves the rest of keys of which a message has died: on_dead = dead_rest.
 */
#ifndef QUEUE_REST_H
#define QUEUE_REST_H

#include "catalog.h"

extern QueueTime queue_rest_due(QueueState *state);
extern bool queue_rest_is_moving(QueueState *state);
extern void queue_rest_put_off(QueueState *state, int64 delay);
extern void queue_rest_step(QueueDef *def);

#endif							/* QUEUE_REST_H */
