/*
 * clock.c
 *	  The only file that reads the time.
 *
 * Shared: the offset between the two clocks, its epoch, and what tests added
 * to each clock. All are single atomics; a reader that mixes an old offset
 * with a new epoch computes a time that the next look corrects, because every
 * change of the epoch makes times of the older one unknown.
 */
#include "postgres.h"

#include <time.h>

#include "port/atomics.h"
#include "utils/timestamp.h"

#include "clock.h"

typedef struct ClockShared
{
	/* immutable after start */
	int64		origin;			/* CLOCK_MONOTONIC at start, us, less an hour */
	/* atomic */
	pg_atomic_uint64 offset;	/* wall minus monotonic, us, as int64 */
	pg_atomic_uint64 epoch_offset;	/* the same when the epoch began */
	pg_atomic_uint64 skew;		/* added to both clocks by tests */
	pg_atomic_uint64 wall_skew; /* added to the wall clock alone by tests */
	pg_atomic_uint32 epoch;
} ClockShared;

/* Attached at start, the same in every process. */
static ClockShared *shared;

static int64
read_monotonic(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static Size
clock_size(void)
{
	return sizeof(ClockShared);
}

static void
clock_init(void *area, bool found)
{
	shared = area;
	if (found)
		return;
	/* The hour keeps times that lie a little in the past positive. */
	shared->origin = read_monotonic() - INT64CONST(3600000000);
	pg_atomic_init_u64(&shared->skew, 0);
	pg_atomic_init_u64(&shared->wall_skew, 0);
	pg_atomic_init_u32(&shared->epoch, 1);
	pg_atomic_init_u64(&shared->offset,
					   (uint64) (GetCurrentTimestamp() - queue_clock_now()));
	pg_atomic_init_u64(&shared->epoch_offset, pg_atomic_read_u64(&shared->offset));
}

const QueueShmemPart queue_clock_shmem = {"queue clock", clock_size, clock_init, NULL, 0, NULL};

QueueTime
queue_clock_now(void)
{
	return read_monotonic() - shared->origin + (int64) pg_atomic_read_u64(&shared->skew);
}

/* The wall clock as messages see it. */
TimestampTz
queue_clock_wall(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (shared)
		now += (int64) pg_atomic_read_u64(&shared->skew) +
			(int64) pg_atomic_read_u64(&shared->wall_skew);
	return now;
}

QueueTime
queue_clock_from_wall(TimestampTz wall)
{
	int64		time;

	if (TIMESTAMP_IS_NOEND(wall))
		return QUEUE_TIME_NEVER;
	if (TIMESTAMP_IS_NOBEGIN(wall))
		return 0;
	time = wall - (int64) pg_atomic_read_u64(&shared->offset);
	return Max(time, 0);
}

TimestampTz
queue_clock_to_wall(QueueTime time)
{
	if (time == QUEUE_TIME_NEVER)
		return DT_NOEND;
	return time + (int64) pg_atomic_read_u64(&shared->offset);
}

/* Never 0, so that a zeroed word of the map reads as unknown. */
uint8
queue_clock_epoch(void)
{
	return (uint8) (pg_atomic_read_u32(&shared->epoch) % 255 + 1);
}

/*
 * Compare the clocks; if the wall clock stepped, adopt the new offset under a
 * new epoch. Small drift is adopted too, without one: it is far below the
 * precision of a delay, until it adds up. Returns whether a step was seen.
 */
bool
queue_clock_check_step(void)
{
	uint64		old = pg_atomic_read_u64(&shared->offset);
	QueueTime	before = queue_clock_now();
	int64		offset = queue_clock_wall() - before;
	int64		moved = offset - (int64) old;

	/* Who was held up between the two reads knows nothing. */
	if (queue_clock_now() - before > 1000)
		return false;
	if (moved > -10000 && moved < 10000)
		return false;
	if (!pg_atomic_compare_exchange_u64(&shared->offset, &old, (uint64) offset))
		return false;
	moved = offset - (int64) pg_atomic_read_u64(&shared->epoch_offset);
	if (moved > -1000000 && moved < 1000000)
		return false;
	pg_atomic_write_u64(&shared->epoch_offset, (uint64) offset);
	pg_atomic_fetch_add_u32(&shared->epoch, 1);
	ereport(LOG,
			(errmsg("queue saw the wall clock step by %lld ms", (long long) (moved / 1000)),
			 errdetail("Leases are not affected. Delays and expiries follow the new time.")));
	return true;
}

/* For tests: move both clocks, or the wall clock alone. */
void
queue_clock_advance(int64 usecs, bool wall_only)
{
	pg_atomic_fetch_add_u64(wall_only ? &shared->wall_skew : &shared->skew, usecs);
	ereport(WARNING,
			(errmsg("the clock of queue was moved by %lld ms", (long long) (usecs / 1000)),
			 errhint("This is for tests: every database of the server sees it until a restart.")));
	queue_clock_check_step();
}
