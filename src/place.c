/*
 * place.c
 *	  Which segment of a queue's ring takes what is being stored.
 *
 * New messages go to the active segment, those that wait for their time to one
 * of their bucket, those of another priority than the usual to one of theirs, what an ordered queue stores again to one for copies. Whoever
 * opens one gets a lock on it that is kept until the transaction ends; the
 * choice is made under the ring lock and looked at once more with that lock held.
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"

#include "error.h"
#include "place.h"

/* Pages that one insert of many rows can add: each row may take a page. */
#define PAGES_AT_ONCE 1000

/*
 * Where a segment must end, so that the map has room for all that is being
 * inserted when it is looked at.
 */
static uint32
most_pages(void)
{
	return QUEUE_MAP_MAX_PAGES - Min(MaxBackends * PAGES_AT_ONCE, QUEUE_MAP_MAX_PAGES / 2);
}

QUEUE_NORETURN static void
is_full(QueueSegment *segment, uint32 most)
{
	ereport(ERROR,
			(errcode(ERRCODE_QUEUE_FULL),
			 errmsg("queue is full"),
			 errdetail("Its active segment has %u pages, the limit is %u.",
					   pg_atomic_read_u32(&segment->pages), most),
			 errhint("The worker makes new segments; queue.health() tells why it does not.")));
}

/*
 * Open the segment that takes inserts, with a lock that the caller keeps until
 * its transaction ends. Rolls over when it has reached "size" bytes. *lacking
 * becomes true if the worker is to make one.
 */
Relation
queue_place_open_active(QueueState *state, int64 size, QueueSegment **segment, bool *lacking)
{
	uint32		most = most_pages();

	size = Min(size, (most - QUEUE_SEGMENT_AHEAD) * BLCKSZ);
	for (int tries = 0;; tries++)
	{
		uint32		index = pg_atomic_read_u32(&state->active);
		QueueSegment *active;
		Relation	rel;
		int64		bytes;

		CHECK_FOR_INTERRUPTS();
		if (index == QUEUE_NONE || tries > 1000)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("queue has no segment"),
					 errhint("Its tables were dropped by hand; see queue.check().")));
		active = queue_segment_at(index);
		bytes = queue_segment_bytes(active);
		*lacking |= bytes >= size / 2 && state->reserves == 0;
		if (bytes >= size && state->reserves > 0)
		{
			queue_ring_advance(state, active);
			queue_state_ask(state, QUEUE_ASK_RECLAIM);
			*lacking = true;
			continue;
		}
		if (pg_atomic_read_u32(&active->pages) > most)
			is_full(active, most);
		rel = try_relation_open(active->relid, RowExclusiveLock);
		if (rel == NULL)
			continue;
		queue_segment_check_rewritten(active, rel);
		if (active->role == QUEUE_SEGMENT_ACTIVE && active->relid == RelationGetRelid(rel))
		{
			queue_segment_check_plain(rel);
			*segment = active;
			return rel;
		}
		relation_close(rel, RowExclusiveLock);
	}
}

/* The segment that takes copies, or a fresh one if it is full. The ring lock must be held. */
static QueueSegment *
choose_copies(QueueState *state, int64 size)
{
	QueueSegment *full = state->copies == QUEUE_NONE ? NULL : queue_segment_at(state->copies);

	/* While there is no other it goes on. */
	if (full && (queue_segment_bytes(full) < size || state->reserves == 0))
		return full;
	state->copies = QUEUE_NONE;
	queue_ring_provide_copies(state);
	if (state->copies == QUEUE_NONE)
		return NULL;
	if (full)
		full->role = QUEUE_SEGMENT_SEALED;
	return queue_segment_at(state->copies);
}

/*
 * Open the segment for what an ordered queue stores again, with a lock that the
 * caller keeps until its transaction ends. *lacking: the worker is to make one.
 */
Relation
queue_place_open_copies(QueueState *state, int64 size, QueueSegment **segment, bool *lacking)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	uint32		most = most_pages();

	size = Min(size, (most - QUEUE_SEGMENT_AHEAD) * BLCKSZ);
	for (int tries = 0; tries < 1000; tries++)
	{
		QueueSegment *chosen;
		Relation	rel;

		CHECK_FOR_INTERRUPTS();
		LWLockAcquire(lock, LW_EXCLUSIVE);
		chosen = choose_copies(state, size);
		LWLockRelease(lock);
		*lacking |= state->reserves == 0;
		if (chosen == NULL)
			break;
		if (pg_atomic_read_u32(&chosen->pages) > most)
			is_full(chosen, most);
		rel = try_relation_open(chosen->relid, RowExclusiveLock);
		if (rel == NULL)
			continue;
		queue_segment_check_rewritten(chosen, rel);
		if (chosen->relid == RelationGetRelid(rel) && chosen->role == QUEUE_SEGMENT_COPIES)
		{
			queue_segment_check_plain(rel);
			*segment = chosen;
			return rel;
		}
		relation_close(rel, RowExclusiveLock);
	}
	queue_state_ask(state, QUEUE_ASK_RESERVE);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("ordered queue has no segment for messages that come back"),
			 errhint("The worker makes one; queue.health() tells why it does not.")));
}

/* ---- messages that wait for their time, or have a priority ---- */

/* Whether the rest of the segment's messages is about to fall due. */
bool
queue_place_waits(const QueueSegment *segment, TimestampTz wall)
{
	return segment->bucket.end > wall && segment->bucket.end < wall + 2 * QUEUE_BUCKET_NEAR;
}

/*
 * Of the buckets that end later, the first: its segment is kept no longer by
 * a message that should be elsewhere. The ring lock must be held.
 */
static QueueSegment *
find_later_bucket(QueueState *state, const QueueBucket *bucket)
{
	QueueSegment *best = NULL;

	for (uint32 i = state->first_segment; i != QUEUE_NONE; i = queue_segment_at(i)->next)
	{
		QueueSegment *segment = queue_segment_at(i);

		if (segment->role == QUEUE_SEGMENT_TIMED && !queue_bucket_is_near(&segment->bucket) &&
			segment->bucket.priority == bucket->priority && segment->bucket.end >= bucket->end &&
			(best == NULL || segment->bucket.end < best->bucket.end))
			best = segment;
	}
	return best;
}

/* Whether all that the queue has is a small active segment. The ring lock must be held. */
static bool
is_small(QueueState *state, int64 size)
{
	for (uint32 i = state->first_segment; i != QUEUE_NONE; i = queue_segment_at(i)->next)
	{
		QueueSegment *segment = queue_segment_at(i);

		if (segment->role == QUEUE_SEGMENT_SEALED || segment->role == QUEUE_SEGMENT_TIMED ||
			(segment->role == QUEUE_SEGMENT_ACTIVE && queue_segment_bytes(segment) >= size / 16))
			return false;
	}
	return true;
}

/* Whether a segment that was chosen without keeping a lock still is for them. */
static bool
bucket_fits(QueueState *state, QueueSegment *segment, const QueueBucket *bucket)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	bool		fits;

	LWLockAcquire(lock, LW_SHARED);
	fits = queue_segment_takes_bucket(segment) && segment->bucket.priority == bucket->priority &&
		(segment->role == QUEUE_SEGMENT_PRIORITY) == queue_bucket_is_at_once(bucket) &&
		segment->bucket.end >= bucket->end;
	LWLockRelease(lock);
	return fits;
}

/*
 * Choose where messages of a bucket go, of what there is. NULL: elsewhere, for
 * instance with those of a small queue that do not wait for their time. *lacking: the bucket should have a segment more. The ring lock must
 * be held.
 */
static QueueSegment *
choose_open(QueueState *state, int64 size, const QueueBucket *bucket, bool *lacking)
{
	QueueSegment *full = queue_ring_find_bucket(state, bucket);

	*lacking = false;
	if ((!queue_bucket_is_at_once(bucket) && is_small(state, size)) ||
		(full && queue_segment_bytes(full) < size))
		return full;
	*lacking = true;
	return full || queue_bucket_is_at_once(bucket) ? full : find_later_bucket(state, bucket);
}

/* The same, and take a segment from the reserve if it needs one. */
static QueueSegment *
choose_bucket(QueueState *state, int64 size, const QueueBucket *bucket, bool *lacking)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	QueueSegment *chosen;
	QueueSegment *fresh;
	QueueSegmentRole role;

	LWLockAcquire(lock, LW_SHARED);
	chosen = choose_open(state, size, bucket, lacking);
	LWLockRelease(lock);
	if (!*lacking || state->reserves == 0)
		return chosen;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	chosen = choose_open(state, size, bucket, lacking);
	role = queue_bucket_is_at_once(bucket) ? QUEUE_SEGMENT_PRIORITY : QUEUE_SEGMENT_TIMED;
	if (*lacking && (fresh = queue_ring_use_reserve(state, role)) != NULL)
	{
		if (chosen && queue_bucket_same(&chosen->bucket, bucket))
			chosen->role = QUEUE_SEGMENT_SEALED;
		fresh->timed = role == QUEUE_SEGMENT_TIMED;
		fresh->bucket = *bucket;
		queue_ring_set_priority(state, fresh, bucket->priority);
		queue_ring_know_source(state, bucket->priority, queue_clock_wall());
		state->timed += fresh->timed;
		chosen = fresh;
	}
	LWLockRelease(lock);
	return chosen;
}

/*
 * Open the segment for messages of a bucket, with a lock that the caller keeps
 * until its transaction ends. NULL: there is none, another is to take them.
 * *lacking: the worker is to make one.
 */
Relation
queue_place_open_bucket(QueueState *state, int64 size, const QueueBucket *bucket,
						QueueSegment **segment, bool *lacking)
{
	uint32		most = most_pages();

	size = Min(size, (most - QUEUE_SEGMENT_AHEAD) * BLCKSZ);
	*lacking = false;
	for (int tries = 0; tries < 1000; tries++)
	{
		QueueSegment *chosen = choose_bucket(state, size, bucket, lacking);
		Relation	rel;

		CHECK_FOR_INTERRUPTS();
		if (chosen == NULL || pg_atomic_read_u32(&chosen->pages) > most)
			break;
		/* The worker waits for nobody: it has the lock on the active one. */
		if (MyBackendType == B_BG_WORKER &&
			!ConditionalLockRelationOid(chosen->relid, RowExclusiveLock))
			break;
		rel = try_relation_open(chosen->relid, RowExclusiveLock);
		if (rel == NULL)
			continue;
		queue_segment_check_rewritten(chosen, rel);
		if (chosen->relid == RelationGetRelid(rel) && bucket_fits(state, chosen, bucket))
		{
			queue_segment_check_plain(rel);
			*segment = chosen;
			return rel;
		}
		relation_close(rel, RowExclusiveLock);
	}
	return NULL;
}

/* Buckets that nothing can come into any more take no more. */
void
queue_place_close_buckets(QueueState *state, TimestampTz wall)
{
	LWLock	   *lock = queue_state_ring_lock(state);

	if (state->timed == 0)
		return;
	LWLockAcquire(lock, LW_EXCLUSIVE);
	for (uint32 i = state->first_segment; i != QUEUE_NONE; i = queue_segment_at(i)->next)
	{
		QueueSegment *segment = queue_segment_at(i);

		if (segment->role == QUEUE_SEGMENT_TIMED && segment->bucket.end < wall + QUEUE_BUCKET_NEAR)
			segment->role = QUEUE_SEGMENT_SEALED;
	}
	LWLockRelease(lock);
}
