/*
 * lease.h
 *	  The transitions of a lease that write nothing to disk.
 */
#ifndef QUEUE_LEASE_H
#define QUEUE_LEASE_H

#include "slot.h"

extern void queue_lease_lower(QueueSlot *slot, QueueTime due);
extern void queue_lease_fail(QueueSlot *slot, uint64 word, QueueFailureReason reason);
extern bool queue_lease_expire(QueueSlot *slot, uint64 sequence, QueueTime now);
extern void queue_lease_void(QueueSlot *slot, uint64 sequence, QueueTime now);
extern void queue_lease_announce(QueueState *state, Oid database);
extern void queue_lease_void_behind(uint32 key, uint64 call, uint32 taken_as);
extern void queue_lease_key_cools(uint32 key, QueueState *state, bool dead_copy);
extern void queue_lease_settle_key(QueueSlot *slot, QueueSettlement how);
extern void queue_lease_release(QueueSlot *slot, uint64 word, QueueTime next);
extern void queue_lease_taker_aborted(QueueSlot *slot, uint64 sequence, bool counts);
extern void queue_lease_begin_settling(QueueSlot *slot, uint64 word);
extern bool queue_lease_has_key(const QueueSlot *slot);
extern bool queue_lease_begin_holding(QueueSlot *slot, uint64 word);
extern void queue_lease_settle_held(QueueSlot *slot, uint64 word);
extern void queue_lease_unsettle(QueueSlot *slot, uint64 sequence);
extern void queue_lease_count_settled(QueueSlot *slot, QueueSettlement how, QueueTime now);
extern void queue_lease_prepare(QueueSlot *slot, uint64 sequence, QueueSettlement how,
								FullTransactionId xid);
extern bool queue_lease_resolve_prepared(QueueSlot *slot);
extern bool queue_lease_resolve_all(QueueState *state);

#endif							/* QUEUE_LEASE_H */
