/*
 * maintain.c
 *	  What the worker does for a queue, a step at a time.
 *
 * Each function runs in a transaction of the worker's with a snapshot, does a
 * bounded piece and returns; nothing here waits for anybody. If the server
 * dies in the middle of a step, the step was a transaction that did not commit.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/transam.h"
#include "access/xact.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/snapmgr.h"

#include "age.h"
#include "claim.h"
#include "failure.h"
#include "guc.h"
#include "lease.h"
#include "maintain.h"
#include "message.h"
#include "pending.h"
#include "place.h"
#include "ring.h"
#include "segment.h"

/* Failures written in one transaction. */
#define FAILURES_AT_ONCE 200

/* Pages of a look; a page that has something ready ends it. */
#define LOOK_PAGES 256

/* A lock that could not be had is tried again after this long, us. */
#define RETRY_LOCKED 1000000

/* So is one with messages, in case the count of them is wrong. */
#define RETRY_LIVE 30000000

/* Between two counts of a queue it rests so many times as long as the count took. */
#define RECOUNT_SHARE 20

/* Write failures and the like; true: there is more. */
bool
queue_maintain_failures(void)
{
	bool		more;

	queue_failure_write_cooling(FAILURES_AT_ONCE, &more);
	return more;
}

/* A queue that nobody uses has one segment; one that has just begun its next is in use. */
bool
queue_maintain_is_unused(QueueState *state)
{
	return pg_atomic_read_u32(&state->active) != QUEUE_NONE && !queue_ring_is_used(state);
}

/*
 * Keep one empty segment ahead of the producers. A table can join the ring
 * only when it is committed, so it is made in one call and joins in the next;
 * that also finds a table whose maker died in between. True: call again.
 */
bool
queue_maintain_reserve(QueueDef *def)
{
	QueueState *state = def->state;

	queue_ring_complete(state);
	if (state->reserves > 0 || queue_maintain_is_unused(state))
		return false;
	queue_catalog_create_segment(def->id, queue_ring_next_number(state));
	return true;
}

static void
keep(QueueSegment *segment, QueueSegmentKept why, QueueTime retry)
{
	pg_atomic_write_u32(&segment->kept, why);
	pg_atomic_write_u64(&segment->retry_at, (uint64) retry);
}

/*
 * Whether a segment was emptied by a transaction of ours that has committed: so
 * no producer waits for its lock, and all backends know that it is empty, and
 * its toast index new. One that was rolled back has told nobody.
 */
static bool
was_emptied(const QueueSegment *segment)
{
	return FullTransactionIdIsValid(segment->emptied_by) &&
		TransactionIdDidCommit(XidFromFullTransactionId(segment->emptied_by));
}

/* An exclusive lock is held. */
static bool
empty_segment(QueueSegment *segment, Relation rel, const QueueDeadProof *proof)
{
	segment->emptied_by = GetTopFullTransactionId();
	return queue_segment_truncate(segment, rel, proof);
}

/*
 * Empty a sealed segment if all in it is dead and no snapshot needs it, or
 * reclaim_delay has passed. The lock is kept until the transaction ends; in the
 * next one the segment goes into the reserve. True: call again.
 */
static bool
reclaim_segment(QueueDef *def, QueueSegment *segment, uint32 generation)
{
	QueueTime	now = queue_clock_now();
	QueueTime	free_at = (QueueTime) pg_atomic_read_u64(&segment->deleted_at) +
		queue_reclaim_delay * INT64CONST(1000);
	Relation	rel = queue_segment_open(segment, generation, AccessShareLock);
	QueueDeadProof proof;
	bool		emptied = false;

	if (rel == NULL)
		return false;
	if (RelationGetNumberOfBlocks(rel) == 0 && was_emptied(segment))
	{
		segment->emptied_by = InvalidFullTransactionId;
		queue_ring_reuse(def->state, segment);
		relation_close(rel, AccessShareLock);
		return true;
	}
	/* It is dead, and while the horizon stands still, some snapshot may see it. */
	if (now < free_at && TransactionIdIsValid(segment->proven_under) &&
		segment->proven_under == GetOldestNonRemovableTransactionId(rel))
	{
		keep(segment, QUEUE_KEPT_DELAY, Min(free_at, now + RETRY_LOCKED));
		relation_close(rel, AccessShareLock);
		return false;
	}
	segment->proven_under = InvalidTransactionId;
	pg_atomic_write_u32(&segment->emptying, 0);
	if (!queue_segment_prove_dead(rel, &proof))
		keep(segment, QUEUE_KEPT_LIVE, now + RETRY_LIVE);
	else if (!proof.all_old && now < free_at)
	{
		keep(segment, QUEUE_KEPT_DELAY, Min(free_at, now + RETRY_LOCKED));
		segment->proven_under = proof.oldest;
	}
	else
	{
		/* What a prepared transaction has acked is counted by its slot, which is about to go. */
		queue_lease_resolve_all(def->state);
		pg_atomic_write_u32(&segment->emptying, generation);
		if (!ConditionalLockRelation(rel, AccessExclusiveLock))
			keep(segment, QUEUE_KEPT_LOCKED, now + RETRY_LOCKED);
		else if (segment->role != QUEUE_SEGMENT_SEALED ||
				 !empty_segment(segment, rel, &proof))
			keep(segment, QUEUE_KEPT_IN_PROGRESS, now + RETRY_LOCKED);
		else
			emptied = true;
		if (!emptied)
		{
			segment->emptied_by = InvalidFullTransactionId;
			pg_atomic_write_u32(&segment->emptying, 0);
		}
	}
	pfree(proof.lsns);
	relation_close(rel, AccessShareLock);
	return emptied;
}

/* Try to empty one segment of a queue; true: one was emptied. */
bool
queue_maintain_reclaim(QueueDef *def)
{
	QueueTime	now = queue_clock_now();
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	queue_ring_load(def->state);
	while (queue_ring_next(def->state, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		/* Once its messages are counted out, one with messages is looked at again. */
		if (segment->role != QUEUE_SEGMENT_SEALED ||
			((QueueTime) pg_atomic_read_u64(&segment->retry_at) > now &&
			 !(pg_atomic_read_u32(&segment->kept) == QUEUE_KEPT_LIVE &&
			   (int64) pg_atomic_read_u64(&segment->live) <= 0)))
			continue;
		if (reclaim_segment(def, segment, generation))
			return true;
	}
	return false;
}

/* ---- moving what is left ---- */

/* What is left of a segment is moved if it is no more than this part of it. */
#define FEW_LEFT 8

/* Nobody asks a queue for messages that has not seen a dequeue for so long, and reclaim_delay, us. */
#define NOBODY_ASKS INT64CONST(10000000)

typedef struct Left
{
	TupleDesc	desc;
	int64		bytes;			/* what is out of line included */
	bool	   *on_page;
} Left;

static bool
note_left(HeapTuple tuple, QueueTupleFate fate, void *arg)
{
	Left	   *left = arg;
	QueueMessage message;

	if (fate == QUEUE_TUPLE_GONE)
		return true;
	queue_message_deform(&message, tuple, left->desc);
	left->bytes += Max(tuple->t_len + sizeof(ItemIdData), queue_message_size(&message));
	left->on_page[ItemPointerGetBlockNumber(&tuple->t_self)] = true;
	return true;
}

/* Whether nobody has dequeued for a while, in vain or not. */
static bool
nobody_asks(QueueState *state)
{
	QueueTime	now = queue_clock_now();
	int64		dequeued = queue_counted(state, QUEUE_COUNT_DEQUEUED);

	if (dequeued != state->dequeued_saw)
	{
		state->dequeued_saw = dequeued;
		state->dequeued_at = now;
	}
	return now - NOBODY_ASKS - queue_reclaim_delay * INT64CONST(1000) >
		Max(state->dequeued_at, (QueueTime) pg_atomic_read_u64(&state->recheck));
}

/* Have what is left of a segment moved, if it is little. */
static void
move_left(QueueDef *def, QueueSegment *segment, Relation rel)
{
	BlockNumber pages = RelationGetNumberOfBlocks(rel);
	int64		most = queue_segment_bytes(segment) / FEW_LEFT;
	bool		ready_too = nobody_asks(def->state);
	int64		live = (int64) pg_atomic_read_u64(&segment->live);
	Left		left = {.desc = RelationGetDescr(rel),.on_page = palloc0(pages + 1)};
	int			moving = 0;

	/* An error must not bring us here again at once. */
	segment->move_at = queue_clock_now() + Max(RETRY_LIVE, queue_reclaim_delay * INT64CONST(1000));
	segment->move_asked = false;
	for (BlockNumber page = 0; page < pages && left.bytes <= most; page++)
	{
		CHECK_FOR_INTERRUPTS();
		queue_segment_visit(rel, page, NULL, false, note_left, &left);
	}
	for (BlockNumber page = 0; page < pages && left.bytes <= most; page++)
	{
		CHECK_FOR_INTERRUPTS();
		if (left.on_page[page])
			moving += queue_claim_move_page(def, rel, segment, page, ready_too);
	}
	/* A backlog is read once, and not again before half of it is gone. */
	if (left.bytes > most && pg_atomic_read_u32(&def->state->inexact) == 0)
		segment->move_below = live / 2;
	/* There may be more of them than slots for them. */
	segment->moving = moving > 0;
	if (moving > 0)
		segment->move_at = queue_clock_now() + RETRY_LOCKED;
	pfree(left.on_page);
}

/*
 * Move what is left of one old segment, so that it can be emptied; true: call
 * again. It is old when nobody has deleted anything for reclaim_delay:
 * a backlog that is being consumed empties its segments by itself, and so does
 * a bucket when its time has come. What somebody holds stays.
 */
bool
queue_maintain_move(QueueDef *def)
{
	QueueTime	now = queue_clock_now();
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	nobody_asks(def->state);
	while (queue_ring_next(def->state, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		QueueTime	quiet_at = (QueueTime) pg_atomic_read_u64(&segment->deleted_at) +
			queue_reclaim_delay * INT64CONST(1000);
		Relation	rel;

		if (segment->role != QUEUE_SEGMENT_SEALED ||
			pg_atomic_read_u32(&segment->kept) != QUEUE_KEPT_LIVE ||
			now < segment->move_at || queue_place_waits(segment, queue_clock_wall()) ||
			(now < quiet_at && !segment->moving) ||
			(int64) pg_atomic_read_u64(&segment->live) > segment->move_below)
			continue;
		/* Not into the active segment, if it can be helped. */
		if (def->state->reserves == 0 && !segment->move_asked)
		{
			queue_state_ask(def->state, QUEUE_ASK_RESERVE);
			segment->move_asked = true;
			segment->move_at = now + RETRY_LOCKED;
			continue;
		}
		rel = queue_segment_open(segment, generation, AccessShareLock);
		if (rel == NULL)
			continue;
		move_left(def, segment, rel);
		relation_close(rel, AccessShareLock);
		return true;
	}
	return false;
}

/*
 * Visit some pages of a queue, going round: what changed without a callback is
 * found, what expired is handed over, leases that ran out are counted.
 */
void
queue_maintain_sweep(QueueDef *def, int pages)
{
	QueueState *state = def->state;
	uint64		at = state->swept;
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;
	bool		wrapped = true;

	queue_ring_load(state);
	while (pages > 0 && queue_ring_next(state, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		Relation	rel = queue_segment_open(segment, generation, AccessShareLock);
		uint32		count;

		if (rel == NULL)
			continue;
		queue_ring_refresh(state, segment, rel);
		count = pg_atomic_read_u32(&segment->pages);
		for (; at < count && pages > 0; at++, pages--, state->swept++)
		{
			CHECK_FOR_INTERRUPTS();
			queue_claim_sweep_page(def, rel, segment, (BlockNumber) at);
		}
		wrapped = at >= count;
		at = at >= count ? at - count : 0;
		relation_close(rel, AccessShareLock);
	}
	if (pages > 0 && wrapped)
	{
		state->swept = 0;
		state->swept_all = true;
	}
}

/*
 * Look at pages that are due, until one has a message that is ready: so that
 * times to come are known though nobody consumes, and listeners are told of
 * what became ready unseen.
 */
void
queue_maintain_look(QueueDef *def)
{
	QueueState *state = def->state;
	QueueTime	now = queue_clock_now();
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;
	int			left = LOOK_PAGES;
	bool		ready = false;

	while (!ready && left > 0 && queue_ring_next(state, &position, now, &segment, &generation))
	{
		Relation	rel = queue_segment_open(segment, generation, AccessShareLock);
		BlockNumber page;
		BlockNumber from = 0;
		BlockNumber busy = InvalidBlockNumber;

		if (rel == NULL)
			continue;
		while (!ready && left-- > 0 && queue_map_find(segment, from, now, &page, &busy))
		{
			CHECK_FOR_INTERRUPTS();
			queue_claim_sweep_page(def, rel, segment, page);
			/* Still due after the look: there is something to have. */
			ready = queue_map_find(segment, page, now, &from, &busy) && from == page;
			from = page + 1;
		}
		/* Only a walk from the first page on raises the summaries. */
		if (!ready)
			queue_map_find(segment, 0, now, &page, &busy);
		relation_close(rel, AccessShareLock);
	}
	if (ready && !state->saw_ready)
		queue_state_ask(state, QUEUE_ASK_NOTIFY);
	state->saw_ready = ready;
}

/* ---- transaction ids ---- */

/*
 * Vacuum the first segment behind *rank that is old. *rank becomes that of the
 * last one looked at. True: there may be more behind it.
 */
bool
queue_maintain_vacuum(QueueDef *def, uint64 *rank)
{
	QueueSegment *segment;
	uint32		generation;
	bool		vacuumed = false;

	queue_ring_load(def->state);
	while (!vacuumed && queue_ring_next(def->state, rank, QUEUE_TIME_NEVER, &segment, &generation))
	{
		Relation	rel = queue_segment_open(segment, generation, AccessShareLock);

		if (rel == NULL)
			continue;
		CHECK_FOR_INTERRUPTS();
		vacuumed = queue_age_vacuum(rel);
		relation_close(rel, AccessShareLock);
	}
	return vacuumed;
}

/* ---- priorities ---- */

/* What there is of each in a segment. */
typedef struct Survey
{
	QueueSegment *segment;
	TupleDesc	desc;
	BlockNumber last[QUEUE_PRIORITIES]; /* page with a message of it; InvalidBlockNumber: none */
	TimestampTz first[QUEUE_PRIORITIES];	/* when the oldest was enqueued */
} Survey;

static void
begin_survey(Survey *survey, QueueSegment *segment, Relation rel)
{
	survey->segment = segment;
	survey->desc = RelationGetDescr(rel);
	for (int i = 0; i < QUEUE_PRIORITIES; i++)
	{
		survey->last[i] = InvalidBlockNumber;
		survey->first[i] = DT_NOEND;
	}
}

static void
survey_row(Survey *survey, HeapTuple tuple, const QueueMessageHead *head)
{
	int			priority = queue_message_tuple_priority(tuple, survey->desc);

	survey->last[priority] = ItemPointerGetBlockNumber(&tuple->t_self);
	survey->first[priority] = Min(survey->first[priority], head->enqueued_at);
}

/* Have claims find messages of priorities that the segment was not known to have. */
static void
end_survey(QueueState *state, const Survey *survey)
{
	for (int i = 0; i < QUEUE_PRIORITIES; i++)
		if (survey->last[i] != InvalidBlockNumber && !state->ordered)
			queue_ring_found_priority(state, survey->segment, survey->last[i], i, survey->first[i]);
}

static bool
see_row(HeapTuple tuple, QueueTupleFate fate, void *arg)
{
	Survey	   *survey = arg;
	QueueMessageHead head;

	if (fate == QUEUE_TUPLE_GONE)
		return true;
	queue_message_head(&head, tuple, survey->desc);
	survey_row(survey, tuple, &head);
	return true;
}

/*
 * Learn of a segment that was found with rows, or rewritten, which priorities
 * they have. True: call again.
 */
bool
queue_maintain_survey(QueueDef *def)
{
	QueueState *state = def->state;
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	while (!state->ordered && queue_ring_next(state, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		Relation	rel;
		BlockNumber pages;
		Survey		survey;

		if (pg_atomic_read_u32(&segment->surveyed) == generation)
			continue;
		rel = queue_segment_open(segment, generation, AccessShareLock);
		if (rel == NULL)
			continue;
		begin_survey(&survey, segment, rel);
		pages = RelationGetNumberOfBlocks(rel);
		for (BlockNumber page = 0; page < pages; page++)
		{
			CHECK_FOR_INTERRUPTS();
			queue_segment_visit(rel, page, NULL, false, see_row, &survey);
		}
		end_survey(state, &survey);
		/* The lock keeps it from being emptied or rewritten meanwhile. */
		pg_atomic_write_u32(&segment->surveyed, generation);
		relation_close(rel, AccessShareLock);
		return true;
	}
	return false;
}

/* ---- counting ---- */

typedef struct Rows
{
	Survey		survey;
	int64		all;
	int64		timed;
} Rows;

static bool
count_row(HeapTuple tuple, QueueTupleFate fate, void *arg)
{
	Rows	   *rows = arg;
	QueueMessageHead head;

	queue_message_head(&head, tuple, rows->survey.desc);
	rows->all++;
	rows->timed += !TIMESTAMP_IS_NOBEGIN(head.visible_at);
	survey_row(&rows->survey, tuple, &head);
	return true;
}

/*
 * Whether a prepared transaction has its hands on a segment of the queue. Its
 * end tells nobody, so nothing can be counted before.
 */
static bool
is_prepared_on(int32 id)
{
	bool		found;

	SPI_connect();
	SPI_execute(psprintf("SELECT 1 FROM pg_catalog.pg_locks l JOIN queue._segment s "
						 "ON s.relation OPERATOR(pg_catalog.=) l.relation "
						 "WHERE s.queue OPERATOR(pg_catalog.=) %d "
						 "AND l.database OPERATOR(pg_catalog.=) %u "
						 "AND l.pid IS NULL", id, MyDatabaseId), true, 1);
	found = SPI_processed > 0;
	SPI_finish();
	return found;
}

/* Moves with each thing that is counted, and never back to where it was. */
static int64
changes(QueueState *state)
{
	return queue_counted(state, QUEUE_COUNT_ENQUEUED) + queue_counted(state, QUEUE_COUNT_ACKED) +
		queue_counted(state, QUEUE_COUNT_DEAD) + queue_counted(state, QUEUE_COUNT_EXPIRED) +
		queue_counted(state, QUEUE_COUNT_CANCELLED);
}

/*
 * A snapshot, and what the counters say of the rows that it sees. A commit
 * between the two moments would be counted twice or not at all, so the
 * counters must stand still around the snapshot: nobody is between commit and
 * callback, and no slot waits to be counted for a prepared transaction. NULL
 * if no such moment was found.
 */
static Snapshot
snapshot_when_quiet(QueueState *state, int64 *stored, int64 *timed)
{
	for (int i = 0; i < 100; i++)
	{
		uint32		prepared = queue_state_prepared();
		int64		before;
		Snapshot	snapshot;

		if (!queue_lease_resolve_all(state))
			return NULL;
		before = changes(state);
		*stored = queue_counted(state, QUEUE_COUNT_STORED);
		*timed = queue_counted(state, QUEUE_COUNT_TIMED);
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		if (queue_state_committing() == 0 && queue_state_prepared() == prepared &&
			changes(state) == before && queue_counted(state, QUEUE_COUNT_STORED) == *stored)
			return snapshot;
		UnregisterSnapshot(snapshot);
	}
	return NULL;
}

/*
 * Count a queue's messages anew. Commits that happen meanwhile are not seen by
 * the snapshot but move the counter; so the counter's movement since the
 * snapshot is added.
 */
bool
queue_maintain_recount(QueueDef *def)
{
	QueueState *state = def->state;
	QueueTime	begun = queue_clock_now();
	int64		before;
	int64		timed_before;
	Rows		rows = {0};
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;
	Snapshot	snapshot;

	queue_ring_complete(state);
	if (is_prepared_on(def->id) ||
		(snapshot = snapshot_when_quiet(state, &before, &timed_before)) == NULL)
		return false;
	while (queue_ring_next(state, &position, QUEUE_TIME_NEVER, &segment, &generation))
	{
		Relation	rel = queue_segment_open(segment, generation, AccessShareLock);
		BlockNumber pages;
		int64		rows_before = rows.all;
		int64		live_before = (int64) pg_atomic_read_u64(&segment->live);

		if (rel == NULL)
			continue;
		queue_ring_refresh(state, segment, rel);
		begin_survey(&rows.survey, segment, rel);
		pages = RelationGetNumberOfBlocks(rel);
		for (BlockNumber page = 0; page < pages; page++)
		{
			CHECK_FOR_INTERRUPTS();
			queue_segment_visit_seen(rel, page, snapshot, count_row, &rows);
		}
		end_survey(state, &rows.survey);
		relation_close(rel, AccessShareLock);
		/* Fewer than known: a prepared transaction has deleted some, just now for all we know. */
		if (rows.all - rows_before < live_before)
			pg_atomic_write_u64(&segment->deleted_at, (uint64) queue_clock_now());
		pg_atomic_fetch_add_u64(&segment->live, rows.all - rows_before - live_before);
		segment->move_below = PG_INT64_MAX;
	}
	UnregisterSnapshot(snapshot);
	queue_count(state, QUEUE_COUNT_STORED, rows.all - before);
	queue_count(state, QUEUE_COUNT_TIMED, rows.timed - timed_before);
	pg_atomic_write_u32(&state->inexact, 0);
	state->recount_at = queue_clock_now() + (queue_clock_now() - begun) * RECOUNT_SHARE;
	return true;
}

/* ---- listeners ---- */

void
queue_maintain_notify(QueueDef *def)
{
	char		channel[NAMEDATALEN];

	if (!def->options.notify)
		return;
	snprintf(channel, sizeof(channel), "queue_%s", def->name);
	channel[pg_mbcliplen(channel, strlen(channel), NAMEDATALEN - 1)] = '\0';
	Async_Notify(channel, def->name);
	pg_atomic_write_u64(&def->state->notified, (uint64) queue_clock_now());
}

/* Keep a minute of totals, a sample each ten seconds. */
void
queue_maintain_sample(QueueState *state)
{
	QueueTime	now = queue_clock_now();

	if (now - state->sampled < INT64CONST(10000000))
		return;
	state->sampled = now;
	memmove(&state->samples[1], &state->samples[0],
			sizeof(state->samples[0]) * (QUEUE_RATE_SAMPLES - 1));
	state->samples[0][0] = queue_counted(state, QUEUE_COUNT_ENQUEUED);
	state->samples[0][1] = queue_counted(state, QUEUE_COUNT_DEQUEUED);
	state->samples[0][2] = queue_counted(state, QUEUE_COUNT_ACKED);
}
