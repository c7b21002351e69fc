/*
 * clock.h
 *	  The extension's two clocks.
 *
 * Leases live on a monotonic clock, so that a step of the wall clock neither
 * ends nor prolongs one. What a message carries on disk (visible_at,
 * expires_at) is wall time and is brought to the monotonic scale by an offset;
 * when the offset moves by more than a second the epoch changes, and every
 * time in the map that was computed under an older epoch reads as unknown.
 */
#ifndef QUEUE_CLOCK_H
#define QUEUE_CLOCK_H

#include "datatype/timestamp.h"
#include "shmem.h"

/* Microseconds on the monotonic scale. Never negative, never far from 2^40. */
typedef int64 QueueTime;

#define QUEUE_TIME_NEVER INT64CONST(0x7FFFFFFFFFFFFFFF)

extern const QueueShmemPart queue_clock_shmem;

extern QueueTime queue_clock_now(void);
extern TimestampTz queue_clock_wall(void);
extern QueueTime queue_clock_from_wall(TimestampTz wall);
extern TimestampTz queue_clock_to_wall(QueueTime time);
extern uint8 queue_clock_epoch(void);
extern bool queue_clock_check_step(void);
extern void queue_clock_advance(int64 usecs, bool wall_only);

#endif							/* QUEUE_CLOCK_H */
