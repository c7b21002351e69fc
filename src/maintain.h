/*
 * maintain.h
 *	  The worker's steps, each for a short transaction.
 */
#ifndef QUEUE_MAINTAIN_H
#define QUEUE_MAINTAIN_H

#include "catalog.h"

extern bool queue_maintain_failures(void);
extern bool queue_maintain_is_unused(QueueState *state);
extern bool queue_maintain_reserve(QueueDef *def);
extern bool queue_maintain_reclaim(QueueDef *def);
extern void queue_maintain_look(QueueDef *def);
extern bool queue_maintain_move(QueueDef *def);
extern void queue_maintain_sweep(QueueDef *def, int pages);
extern bool queue_maintain_vacuum(QueueDef *def, uint64 *rank);
extern bool queue_maintain_survey(QueueDef *def);
extern bool queue_maintain_recount(QueueDef *def);
extern void queue_maintain_notify(QueueDef *def);
extern void queue_maintain_sample(QueueState *state);

#endif							/* QUEUE_MAINTAIN_H */
