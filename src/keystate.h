/*
 * keystate.h
 *	  What consumers keep of a key of an ordered queue: queue._key_state.
 */
#ifndef QUEUE_KEYSTATE_H
#define QUEUE_KEYSTATE_H

#include "catalog.h"

extern Jsonb *queue_keystate_read(QueueDef *def, text *key);
extern void queue_keystate_write(QueueDef *def, text *key, Jsonb *state);
extern void queue_keystate_delete_all(int32 id);

#endif							/* QUEUE_KEYSTATE_H */
