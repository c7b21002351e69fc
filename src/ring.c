/*
 * ring.c
 *	  The ring of segments of a queue: which is oldest, which takes inserts.
 *
 * The list, and the roles in it, change under the queue's ring lock. Its order
 * is the order of age: of two segments with messages the one whose first
 * message has the lower id is older. That is how it is found again after a
 * restart; nothing about it is stored.
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"

#include "catalog.h"
#include "error.h"
#include "guc.h"
#include "meter.h"
#include "ring.h"

/* The ring lock must be held. */
static void
append(QueueState *state, QueueSegment *segment)
{
	uint32	   *link = &state->first_segment;

	while (*link != QUEUE_NONE)
		link = &queue_segment_at(*link)->next;
	*link = queue_segment_index(segment);
	segment->next = QUEUE_NONE;
	segment->rank = ++state->ranks;
}

/* The ring lock must be held. */
static void
unlink_segment(QueueState *state, QueueSegment *segment)
{
	uint32	   *link = &state->first_segment;

	while (*link != QUEUE_NONE && *link != queue_segment_index(segment))
		link = &queue_segment_at(*link)->next;
	if (*link != QUEUE_NONE)
		*link = segment->next;
}

/* The ring lock must be held. */
static void
free_ring(QueueState *state)
{
	while (state->first_segment != QUEUE_NONE)
	{
		QueueSegment *segment = queue_segment_at(state->first_segment);

		state->first_segment = segment->next;
		queue_segment_free(segment);
	}
	pg_atomic_write_u32(&state->active, QUEUE_NONE);
	state->reserves = 0;
	state->timed = 0;
	state->copies = QUEUE_NONE;
	pg_atomic_write_u32(&state->sources, 0);
	pg_atomic_write_u32(&state->copies_unknown, 1);
	pg_atomic_fetch_add_u32(&state->blocked_changes, 1);
}

/* Those of which a segment may have messages. */
static uint32
sources_of(QueueSegment *segment)
{
	uint32		own = 1 << segment->priority;

	return own | (pg_atomic_read_u32(&segment->priorities) & ~own) << QUEUE_PRIORITIES;
}

/*
 * Have claims look at a source, whose first message was enqueued no earlier than
 * "head", among those of a queue. The ring lock must be held.
 */
void
queue_ring_know_source(QueueState *state, int source, TimestampTz head)
{
	uint32		known = pg_atomic_read_u32(&state->sources);

	if (!(known & (1 << source)) || head < (TimestampTz) pg_atomic_read_u64(&state->heads[source]))
		pg_atomic_write_u64(&state->heads[source], (uint64) head);
	pg_atomic_write_u32(&state->sources, known | (1 << source));
}

/* An empty segment is for messages of a priority. The ring lock must be held. */
void
queue_ring_set_priority(QueueState *state, QueueSegment *segment, int priority)
{
	segment->priority = priority;
	pg_atomic_write_u32(&segment->priorities, 1 << priority);
	pg_atomic_write_u32(&segment->mixed, 0);
	pg_atomic_write_u32(&segment->surveyed, pg_atomic_read_u32(&segment->generation));
}

/*
 * A message is in a segment that may not be for its priority: have it found there all
 * the same. Called before the message can be seen, or by who looks at all.
 */
void
queue_ring_note_priority(QueueState *state, QueueSegment *segment, BlockNumber page, int priority)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	bool		known = (pg_atomic_read_u32(&segment->priorities) & (1 << priority)) != 0;
	bool		own = segment->priority == priority;

	if (known && own && page >= pg_atomic_read_u32(&segment->mixed))
		return;
	if (!known || (!own && page >= pg_atomic_read_u32(&segment->mixed)))
	{
		LWLockAcquire(lock, LW_EXCLUSIVE);
		pg_atomic_fetch_or_u32(&segment->priorities, 1 << priority);
		if (page >= pg_atomic_read_u32(&segment->mixed))
			pg_atomic_write_u32(&segment->mixed, page + 1);
		queue_ring_know_source(state, QUEUE_PRIORITIES + priority, queue_clock_wall());
		LWLockRelease(lock);
	}
	/*
	 * Whoever has read the page before knows that it was before, and whoever
	 * has read the count since knows of the page.
	 */
	pg_atomic_fetch_add_u32(&segment->foreign, 1);
}

/*
 * Messages were found that may not be where their priority's are: the last is on
 * a page, the first was enqueued at "head".
 */
void
queue_ring_found_priority(QueueState *state, QueueSegment *segment, BlockNumber page, int priority,
						  TimestampTz head)
{
	LWLock	   *lock = queue_state_ring_lock(state);

	queue_ring_note_priority(state, segment, page, priority);
	/* Where the segment is for them, claims know better. */
	if (segment->priority == priority)
		return;
	LWLockAcquire(lock, LW_EXCLUSIVE);
	/* Always another one than before: who looks meanwhile may not have seen them. */
	queue_ring_know_source(state, QUEUE_PRIORITIES + priority,
						   Min(head, (TimestampTz) pg_atomic_read_u64(&state->heads[QUEUE_PRIORITIES + priority]) - 1));
	LWLockRelease(lock);
}

/*
 * Give an empty segment from the reserve its place at the end of the ring; NULL
 * if there is none. The ring lock must be held.
 */
QueueSegment *
queue_ring_use_reserve(QueueState *state, QueueSegmentRole role)
{
	uint32		i = state->first_segment;
	QueueSegment *segment;

	while (i != QUEUE_NONE && queue_segment_at(i)->role != QUEUE_SEGMENT_RESERVE)
		i = queue_segment_at(i)->next;
	if (i == QUEUE_NONE)
		return NULL;
	segment = queue_segment_at(i);
	unlink_segment(state, segment);
	append(state, segment);
	segment->role = role;
	queue_ring_set_priority(state, segment, QUEUE_PRIORITY_DEFAULT);
	state->reserves--;
	return segment;
}

/* ---- buckets ---- */

/*
 * The bucket of a time of delivery. Buckets grow with the distance, by powers
 * of four from a minute on, so that there are few of them, whatever people
 * wait for, and each can be emptied soon after its end.
 */
QueueBucket
queue_ring_bucket(TimestampTz visible_at, TimestampTz wall, int priority)
{
	int64		width = USECS_PER_MINUTE;
	QueueBucket bucket = {DT_NOBEGIN, DT_NOEND, priority};

	if (TIMESTAMP_NOT_FINITE(visible_at) || visible_at < wall + QUEUE_BUCKET_NEAR)
		return bucket;
	while (width < (visible_at - wall) / 8)
		width *= 4;
	bucket.begin = visible_at - visible_at % width;
	if (bucket.begin > visible_at)
		bucket.begin -= width;
	/* The last one ends with time itself. */
	bucket.end = bucket.begin < END_TIMESTAMP - width ? bucket.begin + width : END_TIMESTAMP;
	return bucket;
}

/* The segment that takes a bucket's messages, or NULL. The ring lock must be held. */
QueueSegment *
queue_ring_find_bucket(QueueState *state, const QueueBucket *bucket)
{
	for (uint32 i = state->first_segment; i != QUEUE_NONE; i = queue_segment_at(i)->next)
		if (queue_segment_takes_bucket(queue_segment_at(i)) &&
			queue_bucket_same(&queue_segment_at(i)->bucket, bucket))
			return queue_segment_at(i);
	return NULL;
}

/* ---- loading ---- */

/*
 * Have a segment that was found with messages of times to come, or of a priority
 * of its own, go on to take those, the youngest of a bucket if there are several:
 * else each restart would leave another. The ring lock must be held.
 */
static void
adopt(QueueState *state, QueueSegment *segment, TimestampTz wall)
{
	QueueBucket bucket = segment->timed
		? queue_ring_bucket(segment->bucket.begin, wall, segment->priority)
		: queue_bucket_at_once(segment->priority);
	QueueSegment *older = queue_ring_find_bucket(state, &bucket);

	if (queue_bucket_is_near(&bucket))
		return;
	if (older)
		older->role = QUEUE_SEGMENT_SEALED;
	segment->role = segment->timed ? QUEUE_SEGMENT_TIMED : QUEUE_SEGMENT_PRIORITY;
	segment->bucket = bucket;
}

/* The ring lock must be held. */
static void
make_active(QueueState *state, QueueSegment *segment)
{
	segment->role = QUEUE_SEGMENT_ACTIVE;
	segment->timed = false;
	pg_atomic_write_u32(&state->active, queue_segment_index(segment));
}

/*
 * Have an empty segment take what an ordered queue stores again, before anybody
 * needs one: the order of a key depends on that. The ring lock must be held.
 */
void
queue_ring_provide_copies(QueueState *state)
{
	QueueSegment *segment;

	if (!state->ordered || state->copies != QUEUE_NONE)
		return;
	segment = queue_ring_use_reserve(state, QUEUE_SEGMENT_COPIES);
	if (segment == NULL)
		return;
	segment->copies = true;
	state->copies = queue_segment_index(segment);
}

/*
 * Which of the segments found goes on to take inserts; -1: none. It is the
 * youngest with messages that have neither a time nor a priority, or else an empty one,
 * or else any. What was being emptied when the server died is for the worker
 * first.
 */
static int
choose_active(const QueueSegmentFacts *facts, int n)
{
	int			active = -1;
	int			other = -1;

	for (int i = 0; i < n; i++)
	{
		if (facts[i].half_emptied)
			continue;
		if (facts[i].pages > 0 &&
			(!TIMESTAMP_IS_NOBEGIN(facts[i].visible_at) || facts[i].priority != QUEUE_PRIORITY_DEFAULT))
			other = i;
		else if (facts[i].pages > 0 || active < 0)
			active = i;
	}
	return active >= 0 ? active : other;
}

/*
 * The same of an ordered queue: whichever is last in the order of age, so that
 * what comes is behind all that is there. An empty one is, unless it is needed
 * for copies.
 */
static int
choose_end(const QueueSegmentFacts *facts, int n)
{
	int			empty = 0;
	bool		has_copies = false;
	int			end = -1;

	for (int i = 0; i < n; i++)
	{
		empty += facts[i].pages == 0 && !facts[i].half_emptied;
		has_copies |= facts[i].copies;
	}
	for (int i = 0; i < n; i++)
		if (!facts[i].half_emptied && !facts[i].copies &&
			(facts[i].pages > 0 || has_copies || empty > 1 || end < 0))
			end = i;
	return end;
}

static bool
link_ring(QueueState *state, const QueueSegmentFacts *facts, int n)
{
	int			active = state->ordered ? choose_end(facts, n) : choose_active(facts, n);
	TimestampTz wall = queue_clock_wall();

	for (int i = 0; i < n; i++)
	{
		QueueSegmentRole role = facts[i].pages > 0 || facts[i].half_emptied
			? QUEUE_SEGMENT_SEALED : QUEUE_SEGMENT_RESERVE;
		QueueSegment *segment = queue_segment_allocate(state, &facts[i],
												 i == active ? QUEUE_SEGMENT_ACTIVE : role);

		if (segment == NULL)
			return false;
		append(state, segment);
		queue_ring_know_source(state, segment->priority, Min(facts[i].enqueued_at, wall));
		if (i == active)
			make_active(state, segment);
		else if (role == QUEUE_SEGMENT_RESERVE)
			state->reserves++;
		else if ((segment->timed || segment->priority != QUEUE_PRIORITY_DEFAULT) && !facts[i].half_emptied)
			adopt(state, segment, wall);
		state->timed += segment->timed;
		/* The youngest goes on. */
		if (segment->copies && !facts[i].half_emptied)
		{
			if (state->copies != QUEUE_NONE)
				queue_segment_at(state->copies)->role = QUEUE_SEGMENT_SEALED;
			segment->role = QUEUE_SEGMENT_COPIES;
			state->copies = queue_segment_index(segment);
		}
	}
	queue_ring_provide_copies(state);
	return true;
}

static int
compare_age(const void *a, const void *b)
{
	const QueueSegmentFacts *x = a;
	const QueueSegmentFacts *y = b;

	if ((x->pages == 0) != (y->pages == 0))
		return x->pages == 0 ? 1 : -1;
	if (x->first_id != y->first_id)
		return x->first_id < y->first_id ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

QUEUE_NORETURN static void
out_of_segments(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many queue segments are in use"),
			 errdetail("The limit is %d.", queue_max_segments),
			 errhint("Raise \"queue.max_segments\" and restart the server.")));
}

/*
 * Learn a queue's ring from the catalog and its files, once per life of the
 * server. The caller has the queue's view locked.
 */
void
queue_ring_load(QueueState *state)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	List	   *known;
	ListCell   *cell;
	QueueSegmentFacts *facts;
	int			n = 0;
	bool		complete = true;

	if (state->loaded)
	{
		pg_read_barrier();
		return;
	}
	known = queue_catalog_segments(state->id);
	facts = palloc(sizeof(QueueSegmentFacts) * (list_length(known) + 1));
	foreach(cell, known)
	{
		QueueCatalogSegment *row = lfirst(cell);

		facts[n].relid = row->relid;
		facts[n].number = row->number;
		if (queue_segment_read_facts(&facts[n]))
			n++;
	}
	qsort(facts, n, sizeof(QueueSegmentFacts), compare_age);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	/* A restore has not come to the table of segments yet: look again. */
	if (!state->loaded && n > 0)
	{
		complete = link_ring(state, facts, n);
		if (!complete)
			free_ring(state);
		pg_write_barrier();
		state->loaded = complete;
	}
	LWLockRelease(lock);
	if (!complete)
		out_of_segments();
	pfree(facts);
	list_free_deep(known);
}

/*
 * A segment that the ring lacks joins it: one just made as reserve, or as the
 * first; one that has rows already is nobody's to write to.
 */
static void
add(QueueState *state, Oid relid, int32 number)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	QueueSegmentFacts facts = {.relid = relid,.number = number};
	QueueSegment *segment;

	if (!queue_segment_read_facts(&facts))
		return;
	LWLockAcquire(lock, LW_EXCLUSIVE);
	segment = queue_segment_allocate(state, &facts, QUEUE_SEGMENT_RESERVE);
	if (segment)
	{
		append(state, segment);
		queue_ring_know_source(state, segment->priority, Min(facts.enqueued_at, queue_clock_wall()));
		if (pg_atomic_read_u32(&state->active) == QUEUE_NONE)
			make_active(state, segment);
		else if (facts.pages > 0 || facts.half_emptied)
			segment->role = QUEUE_SEGMENT_SEALED;
		else
			state->reserves++;
		state->timed += segment->timed;
		queue_ring_provide_copies(state);
	}
	LWLockRelease(lock);
	if (segment == NULL)
		out_of_segments();
	if (facts.pages > 0)
		queue_state_ask(state, QUEUE_ASK_RECOUNT);
}

bool
queue_ring_has(QueueState *state, Oid relid)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	bool		found = false;

	LWLockAcquire(lock, LW_SHARED);
	for (uint32 i = state->first_segment; i != QUEUE_NONE && !found; i = queue_segment_at(i)->next)
		found = queue_segment_at(i)->relid == relid;
	LWLockRelease(lock);
	return found;
}

/* Take in what the catalog has and the ring lacks. */
void
queue_ring_complete(QueueState *state)
{
	ListCell   *cell;

	queue_ring_load(state);
	foreach(cell, queue_catalog_segments(state->id))
	{
		QueueCatalogSegment *row = lfirst(cell);

		if (!queue_ring_has(state, row->relid))
			add(state, row->relid, row->number);
	}
}

/* Look at a segment's file. A reserve that got rows by a restore is none any more. */
void
queue_ring_refresh(QueueState *state, QueueSegment *segment, Relation rel)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	bool		restored;

	if (!queue_segment_refresh(segment, rel))
		return;
	LWLockAcquire(lock, LW_EXCLUSIVE);
	restored = segment->role == QUEUE_SEGMENT_RESERVE && pg_atomic_read_u32(&segment->pages) > 0;
	if (restored)
	{
		segment->role = QUEUE_SEGMENT_SEALED;
		state->reserves--;
		pg_atomic_write_u32(&segment->surveyed, 0);
	}
	LWLockRelease(lock);
	if (restored)
		queue_state_ask(state, QUEUE_ASK_RECOUNT);
}

/* The queue is gone. For callbacks: cannot fail. */
void
queue_ring_remove_all(QueueState *state)
{
	LWLock	   *lock = queue_state_ring_lock(state);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	free_ring(state);
	state->loaded = false;
	LWLockRelease(lock);
}

static bool
is_in_lane(const QueueSegment *segment, QueueLane lane)
{
	switch (lane)
	{
		case QUEUE_LANE_BACKLOG:
			return !segment->timed && !segment->copies;
		case QUEUE_LANE_TIMED:
			return segment->timed;
		case QUEUE_LANE_COPIES:
			return segment->copies;
		case QUEUE_LANE_ANY:
			break;
	}
	return true;
}

/*
 * Walk a lane of the ring from the oldest segment on, past those that have
 * nothing due by "now", or nothing of some sources (bits). *position begins as 0
 * and is the rank of the segment seen last: whoever moves to the end meanwhile
 * gets a new rank, so none is
 * missed.
 */
bool
queue_ring_next_of(QueueState *state, QueueLane lane, uint32 sources, uint64 *position, QueueTime now,
				   QueueSegment **segment, uint32 *generation)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	bool		found = false;

	LWLockAcquire(lock, LW_SHARED);
	for (uint32 i = state->first_segment; i != QUEUE_NONE && !found; i = queue_segment_at(i)->next)
	{
		QueueSegment *candidate = queue_segment_at(i);

		if (candidate->rank <= *position)
			continue;
		*position = candidate->rank;
		if (!is_in_lane(candidate, lane) || queue_map_due(candidate) > now ||
			!(sources_of(candidate) & sources))
			continue;
		*segment = candidate;
		*generation = pg_atomic_read_u32(&candidate->generation);
		found = true;
	}
	LWLockRelease(lock);
	return found;
}

/* The same of any source. */
bool
queue_ring_next_in(QueueState *state, QueueLane lane, uint64 *position, QueueTime now,
				   QueueSegment **segment, uint32 *generation)
{
	return queue_ring_next_of(state, lane, PG_UINT32_MAX, position, now, segment, generation);
}

/* The same for all of the ring. */
bool
queue_ring_next(QueueState *state, uint64 *position, QueueTime now,
				QueueSegment **segment, uint32 *generation)
{
	return queue_ring_next_in(state, QUEUE_LANE_ANY, position, now, segment, generation);
}

/* Have all pages of the queue looked at. For callbacks: cannot fail. */
void
queue_ring_lower(QueueState *state)
{
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	while (queue_ring_next(state, &position, QUEUE_TIME_NEVER, &segment, &generation))
		if (pg_atomic_read_u32(&segment->pages) > 0)
			queue_map_lower_range(segment, 0, pg_atomic_read_u32(&segment->pages) - 1, 0);
}

/* The earliest time at which anything in the queue is worth a look. */
QueueTime
queue_ring_due(QueueState *state)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	QueueTime	due;

	if (state->ordered && (pg_atomic_read_u32(&state->ready_keys) > 0 ||
						   pg_atomic_read_u32(&state->blocked_changes) != pg_atomic_read_u32(&state->blocked_known)))
		return queue_meter_due(state, 0);
	due = (QueueTime) pg_atomic_read_u64(&state->look_at);
	LWLockAcquire(lock, LW_SHARED);
	for (uint32 i = state->first_segment; i != QUEUE_NONE; i = queue_segment_at(i)->next)
	{
		if (queue_segment_at(i)->role == QUEUE_SEGMENT_RESERVE)
			continue;
		due = Min(due, queue_map_due(queue_segment_at(i)));
	}
	LWLockRelease(lock);
	return queue_meter_due(state, due);
}

/*
 * The active segment is full: go on in a reserve, if there is one. Otherwise
 * producers go on past the size until the worker has made one.
 */
void
queue_ring_advance(QueueState *state, QueueSegment *full)
{
	LWLock	   *lock = queue_state_ring_lock(state);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&state->active) == queue_segment_index(full))
	{
		QueueSegment *next = queue_ring_use_reserve(state, QUEUE_SEGMENT_ACTIVE);

		if (next)
		{
			full->role = QUEUE_SEGMENT_SEALED;
			pg_atomic_write_u32(&state->active, queue_segment_index(next));
		}
	}
	LWLockRelease(lock);
}

/* Forget sources in which there can be nothing. The ring lock must be held. */
static void
forget_sources(QueueState *state)
{
	uint32		left = 0;

	for (uint32 i = state->first_segment; i != QUEUE_NONE; i = queue_segment_at(i)->next)
		left |= sources_of(queue_segment_at(i));
	pg_atomic_write_u32(&state->sources, left);
}

/* An emptied segment goes to the end of the ring. */
void
queue_ring_reuse(QueueState *state, QueueSegment *emptied)
{
	LWLock	   *lock = queue_state_ring_lock(state);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	Assert(emptied->role == QUEUE_SEGMENT_SEALED);
	unlink_segment(state, emptied);
	append(state, emptied);
	emptied->role = QUEUE_SEGMENT_RESERVE;
	state->reserves++;
	state->timed -= emptied->timed;
	emptied->timed = false;
	emptied->copies = false;
	queue_ring_set_priority(state, emptied, QUEUE_PRIORITY_DEFAULT);
	forget_sources(state);
	queue_ring_provide_copies(state);
	emptied->bucket = (QueueBucket) {0};
	LWLockRelease(lock);
}

/* Whether anything was stored that may be there still. */
bool
queue_ring_is_used(QueueState *state)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	bool		found = false;

	LWLockAcquire(lock, LW_SHARED);
	for (uint32 i = state->first_segment; i != QUEUE_NONE && !found; i = queue_segment_at(i)->next)
		found = queue_segment_at(i)->role == QUEUE_SEGMENT_SEALED ||
			pg_atomic_read_u32(&queue_segment_at(i)->pages) > 0;
	LWLockRelease(lock);
	return found;
}

/* Whether one may be waiting to be emptied. */
bool
queue_ring_has_sealed(QueueState *state)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	bool		found = false;

	LWLockAcquire(lock, LW_SHARED);
	for (uint32 i = state->first_segment; i != QUEUE_NONE && !found; i = queue_segment_at(i)->next)
		found = queue_segment_at(i)->role == QUEUE_SEGMENT_SEALED;
	LWLockRelease(lock);
	return found;
}

/* Whether the worker has looked at all that was found with rows, for their priorities. */
bool
queue_ring_is_surveyed(QueueState *state)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	bool		all = true;

	if (state->ordered)
		return true;
	LWLockAcquire(lock, LW_SHARED);
	for (uint32 i = state->first_segment; i != QUEUE_NONE && all; i = queue_segment_at(i)->next)
		all = pg_atomic_read_u32(&queue_segment_at(i)->surveyed) ==
			pg_atomic_read_u32(&queue_segment_at(i)->generation);
	LWLockRelease(lock);
	return all;
}

/* Rows may have come by a way that tells nobody of their priorities. For callbacks: cannot fail. */
void
queue_ring_forget_survey(QueueState *state)
{
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	while (queue_ring_next(state, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		pg_atomic_write_u32(&segment->surveyed, 0);
		pg_atomic_fetch_add_u32(&segment->foreign, 1);
	}
}

/*
 * When the next sealed segment should be looked at again that has no message
 * that we know of, after "now"; one that is late already is left to others.
 */
QueueTime
queue_ring_reclaim_at(QueueState *state, QueueTime now)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	QueueTime	at = QUEUE_TIME_NEVER;

	LWLockAcquire(lock, LW_SHARED);
	for (uint32 i = state->first_segment; i != QUEUE_NONE; i = queue_segment_at(i)->next)
	{
		QueueSegment *segment = queue_segment_at(i);
		QueueTime	retry_at = (QueueTime) pg_atomic_read_u64(&segment->retry_at);

		if (segment->role == QUEUE_SEGMENT_SEALED && retry_at > now &&
			pg_atomic_read_u32(&segment->kept) != QUEUE_KEPT_LIVE)
			at = Min(at, retry_at);
	}
	LWLockRelease(lock);
	return at;
}

int32
queue_ring_next_number(QueueState *state)
{
	LWLock	   *lock = queue_state_ring_lock(state);
	int32		number = 1;

	LWLockAcquire(lock, LW_SHARED);
	for (uint32 i = state->first_segment; i != QUEUE_NONE; i = queue_segment_at(i)->next)
		number = Max(number, queue_segment_at(i)->number + 1);
	LWLockRelease(lock);
	return number;
}
