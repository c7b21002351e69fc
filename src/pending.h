/*
 * pending.h
 *	  What the open transaction has done that commit or abort must finish.
 */
#ifndef QUEUE_PENDING_H
#define QUEUE_PENDING_H

#include "slot.h"

extern void queue_pending_init(void);
extern void queue_pending_reserve(int slots);
extern void queue_pending_taken(uint32 slot, uint64 sequence, bool pop);
extern void queue_pending_returned(void);
extern void queue_pending_settled(uint32 slot, uint64 sequence, QueueSettlement how);
extern void queue_pending_unsettle_last(void);
extern void queue_pending_forget_last(void);
extern void queue_pending_resettle_last(QueueSettlement how);
extern bool queue_pending_acks(uint32 slot, uint64 sequence);
extern bool queue_pending_has(uint32 slot, uint64 sequence);
extern bool queue_pending_holds(uint32 slot, uint64 sequence);
extern void queue_pending_statement_runs(bool runs);
extern void queue_pending_statement_finishes(bool runs);
extern void queue_pending_statement_failed(int sqlstate);

#endif							/* QUEUE_PENDING_H */
