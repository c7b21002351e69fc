/*
 * purge.c
 *	  Purge and cancel: deletes by somebody who holds no lease.
 *
 * A deleter takes a page's busy bit like a claimer, so that nobody can lease
 * what it is about to delete, and keeps the bit while it deletes. This is the
 * one place where the heap is written under busy; every heavyweight lock that
 * a delete can need is taken before, so that nothing is awaited under it.
 * Afterwards the rows are being deleted by an open transaction, which claimers
 * pass over; if it aborts, its callback makes the pages due again.
 *
 * Messages that have a slot (leased ones, only when asked for; cooling ones)
 * go through the slot, like a settlement.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/toast_internals.h"
#include "access/table.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

#include "dedup.h"
#include "error.h"
#include "lease.h"
#include "message.h"
#include "delta.h"
#include "pending.h"
#include "purge.h"
#include "ring.h"
#include "segment.h"
#include "visit.h"

typedef struct Chosen
{
	ItemPointerData tid;
	int64		id;
	bool		held;
	bool		timed;
	uint32		slot;
	bool		deleted;
	text	   *unique_key;		/* NULL: none */
} Chosen;

typedef struct PurgeVisit
{
	QueueVisit	visit;
	const QueuePurgeFilter *filter;
	int			count;
	Chosen		chosen[MaxHeapTuplesPerPage];
} PurgeVisit;

/* It failed, or was released with a delay; a guess, if the slot goes on now. */
static int
cooling_state(QueueSlot *slot)
{
	return (pg_atomic_read_u64(&slot->word) & QUEUE_SLOT_RELEASED) && slot->failures == 0
		? QUEUE_MESSAGE_DELAYED : QUEUE_MESSAGE_FAILED;
}

static int
state_of(const QueueVisit *visit, HeapTuple tuple, const QueueMessageHead *head)
{
	switch (queue_visit_held(visit, tuple))
	{
		case QUEUE_HELD_LEASED:
			return QUEUE_MESSAGE_LEASED;
		case QUEUE_HELD_SETTLING:
			return 0;
		case QUEUE_HELD_COOLING:
			return cooling_state(queue_slot(visit->held_by[ItemPointerGetOffsetNumber(&tuple->t_self)]));
		case QUEUE_HELD_DEAD:
			return QUEUE_MESSAGE_FAILED;
		case QUEUE_HELD_CLAIMABLE:
			return QUEUE_MESSAGE_READY;
		case QUEUE_HELD_NOT:
			break;
	}
	if (head->visible_at <= visit->wall)
		return QUEUE_MESSAGE_READY;
	return head->failures > 0 ? QUEUE_MESSAGE_FAILED : QUEUE_MESSAGE_DELAYED;
}

/* When a message would have been delivered: by its slot, if it cools in one. */
static TimestampTz
delivered_at(const QueueVisit *visit, HeapTuple tuple, const QueueMessageHead *head)
{
	QueueHeldAs held = queue_visit_held(visit, tuple);

	if (held != QUEUE_HELD_COOLING && held != QUEUE_HELD_CLAIMABLE)
		return head->visible_at;
	return queue_clock_to_wall(queue_slot(visit->held_by[ItemPointerGetOffsetNumber(&tuple->t_self)])->next);
}

/* What becomes of the message that is to be replaced. Those that are gone are not it. */
static void
see(QueueVisit *visit, HeapTuple tuple, QueueTupleFate fate, QueuePurgeSeen *seen)
{
	QueueMessageHead head;

	queue_message_head(&head, tuple, RelationGetDescr(visit->rel));
	seen->there = true;
	seen->leased = queue_visit_held(visit, tuple) == QUEUE_HELD_LEASED;
	seen->open = fate == QUEUE_TUPLE_DELETING ? HeapTupleHeaderGetUpdateXid(tuple->t_data)
		: fate == QUEUE_TUPLE_INSERTING ? HeapTupleHeaderGetXmin(tuple->t_data) : InvalidTransactionId;
	seen->visible_at = delivered_at(visit, tuple, &head);
}

static bool
choose(HeapTuple tuple, QueueTupleFate fate, void *arg)
{
	PurgeVisit *purge = arg;
	QueuePurgeSeen *seen = purge->filter->seen;
	QueueMessageHead head;
	Chosen	   *chosen;

	if (seen && fate != QUEUE_TUPLE_GONE && queue_message_id(tuple, RelationGetDescr(purge->visit.rel)) == purge->filter->id)
		see(&purge->visit, tuple, fate, seen);
	if (!(fate == QUEUE_TUPLE_OWN && seen) && !queue_visit_passes(&purge->visit, tuple, fate))
		return true;
	queue_message_head(&head, tuple, RelationGetDescr(purge->visit.rel));
	/* Whatever stays is looked at by the next claimer. */
	queue_visit_due(&purge->visit, 0);
	/* What has died goes to the dead-letter queue, whatever comes after it. */
	if (seen && queue_visit_held(&purge->visit, tuple) == QUEUE_HELD_DEAD)
		return true;
	if (!(state_of(&purge->visit, tuple, &head) & purge->filter->states) ||
		head.enqueued_at >= purge->filter->older_than ||
		(purge->filter->id != 0 && head.id != purge->filter->id))
		return true;
	chosen = &purge->chosen[purge->count++];
	chosen->tid = tuple->t_self;
	chosen->id = head.id;
	chosen->timed = !TIMESTAMP_IS_NOBEGIN(head.visible_at);
	chosen->deleted = false;
	chosen->held = queue_visit_held(&purge->visit, tuple) != QUEUE_HELD_NOT;
	chosen->slot = purge->visit.held_by[ItemPointerGetOffsetNumber(&tuple->t_self)];
	return true;
}

/* A message with a slot: the slot goes into our hands first. */
static bool
delete_held(PurgeVisit *purge, Chosen *chosen)
{
	QueueSlot  *slot = queue_slot(chosen->slot);
	uint64		word = queue_slot_lock(slot);

	if ((QUEUE_SLOT_STATE(word) != QUEUE_SLOT_LEASED && QUEUE_SLOT_STATE(word) != QUEUE_SLOT_COOLING) ||
		slot->segment != queue_segment_index(purge->visit.segment) ||
		slot->generation != pg_atomic_read_u32(&purge->visit.segment->generation) ||
		slot->message_id != chosen->id)
	{
		queue_slot_unlock(slot, word);
		return false;
	}
	queue_pending_settled(chosen->slot, QUEUE_SLOT_SEQUENCE(word), QUEUE_SETTLE_CANCEL);
	queue_lease_begin_settling(slot, word);
	if (queue_segment_delete(purge->visit.rel, purge->visit.segment, &chosen->tid,
							 chosen->id, &chosen->unique_key) == QUEUE_DELETE_DONE)
		return true;
	queue_pending_unsettle_last();
	return false;
}

static int
delete_chosen(PurgeVisit *purge, QueueDef *def)
{
	int			deleted = 0;
	int			without_slot = 0;
	int			timed = 0;

	for (int i = 0; i < purge->count; i++)
	{
		Chosen	   *chosen = &purge->chosen[i];

		if (chosen->held)
			chosen->deleted = delete_held(purge, chosen);
		else if (queue_segment_delete(purge->visit.rel, purge->visit.segment, &chosen->tid,
									  chosen->id, &chosen->unique_key) == QUEUE_DELETE_DONE)
		{
			chosen->deleted = true;
			without_slot++;
			timed += chosen->timed;
		}
		deleted += chosen->deleted;
	}
	if (without_slot > 0)
		queue_delta_removed(def->state, purge->visit.segment, purge->visit.hold->page,
							  without_slot, timed);
	return deleted;
}

/* After the page is put back: what was deleted frees its unique key, but for who takes its place. */
static void
leave_queue(PurgeVisit *purge, QueueDef *def)
{
	for (int i = 0; i < purge->count; i++)
	{
		Chosen	   *chosen = &purge->chosen[i];

		if (!chosen->deleted || chosen->unique_key == NULL)
			continue;
		if (purge->filter->seen == NULL)
			queue_dedup_forget_unique(def->id, chosen->unique_key, chosen->id);
		pfree(chosen->unique_key);
	}
}

/* The relation is locked for writing. */
static int
purge_page(QueueDef *def, Relation rel, QueueSegment *segment, BlockNumber page,
		   const QueuePurgeFilter *filter, PurgeVisit *purge)
{
	QueueMapHold hold;
	QueueMapTake take;
	int			deleted;

	queue_pending_reserve(MaxHeapTuplesPerPage);
	/* Makes room in the transaction's lists before anything is deleted. */
	queue_delta_removed(def->state, segment, page, 0, 0);
	while ((take = queue_map_take(segment, page, QUEUE_TIME_NEVER, &hold)) == QUEUE_MAP_BUSY)
	{
		queue_map_wait(segment, page);
		CHECK_FOR_INTERRUPTS();
	}
	if (take != QUEUE_MAP_TAKEN)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no map memory left"),
				 errhint("Raise \"queue.map_memory\".")));
	queue_visit_begin(&purge->visit, segment, rel);
	purge->filter = filter;
	purge->count = 0;
	queue_visit_slots(&purge->visit, &hold);
	queue_segment_visit(rel, page, GetActiveSnapshot(), false, choose, purge);
	deleted = delete_chosen(purge, def);
	queue_map_put(&hold, purge->visit.due);
	leave_queue(purge, def);
	return deleted;
}

/* Delete what the filter chooses on one page, where a message was seen. */
int64
queue_purge_at(QueueDef *def, const QueuePlace *place, const QueuePurgeFilter *filter)
{
	PurgeVisit *purge;
	QueueSegment *segment = queue_segment_at(place->segment);
	Relation	rel = queue_segment_open(segment, place->generation, RowExclusiveLock);
	int64		deleted;

	if (rel == NULL)
		return 0;
	queue_segment_lock_toast(rel);
	purge = palloc(sizeof(PurgeVisit));
	deleted = purge_page(def, rel, segment, place->page, filter, purge);
	pfree(purge);
	relation_close(rel, NoLock);
	return deleted;
}

/* Whether the message to be replaced was found, had or not: it is nowhere else. */
static bool
is_seen(const QueuePurgeFilter *filter)
{
	return filter->seen && filter->seen->there;
}

/* So many pages before and behind the one on which a message should be. */
#define PAGES_AROUND 4

/*
 * Delete the message that the filter names if it is where it should be, going
 * by the order of ids. Segments without it are not locked for writing.
 */
static int64
purge_guessed(QueueDef *def, const QueuePurgeFilter *filter)
{
	uint64		position = 0;
	QueuePlace	place;
	QueueSegment *segment;
	int64		deleted = 0;

	while (deleted == 0 && !is_seen(filter) &&
		   queue_ring_next(def->state, &position, QUEUE_TIME_NEVER, &segment, &place.generation))
	{
		Relation	rel = queue_segment_open(segment, place.generation, AccessShareLock);
		BlockNumber guess;

		if (rel == NULL)
			continue;
		CHECK_FOR_INTERRUPTS();
		place.segment = queue_segment_index(segment);
		guess = queue_segment_guess(rel, filter->id);
		place.page = guess > PAGES_AROUND ? guess - PAGES_AROUND : 0;
		for (; deleted == 0 && !is_seen(filter) && place.page <= guess + PAGES_AROUND; place.page++)
			if (queue_segment_has(rel, place.page, filter->id))
				deleted = queue_purge_at(def, &place, filter);
		relation_close(rel, AccessShareLock);
	}
	return deleted;
}

/*
 * Delete what the filter chooses, in the caller's transaction; returns how
 * many. Messages stored by this transaction, or by open ones, are not seen.
 */
int64
queue_purge(QueueDef *def, const QueuePurgeFilter *filter)
{
	PurgeVisit *purge;
	int64		deleted = 0;
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	queue_ring_load(def->state);
	if (filter->id != 0 && ((deleted = purge_guessed(def, filter)) > 0 || is_seen(filter)))
		return deleted;
	purge = palloc(sizeof(PurgeVisit));
	while (queue_ring_next(def->state, &position, QUEUE_TIME_NEVER, &segment, &generation) &&
		   (filter->id == 0 || deleted == 0) && !is_seen(filter))
	{
		Relation	rel = queue_segment_open(segment, generation, RowExclusiveLock);
		BlockNumber pages;

		if (rel == NULL)
			continue;
		queue_segment_lock_toast(rel);
		queue_ring_refresh(def->state, segment, rel);
		pages = pg_atomic_read_u32(&segment->pages);
		for (BlockNumber page = 0; page < pages && (filter->id == 0 || deleted == 0); page++)
		{
			CHECK_FOR_INTERRUPTS();
			if (filter->id != 0 && !queue_segment_has(rel, page, filter->id))
				continue;
			deleted += purge_page(def, rel, segment, page, filter, purge);
		}
		relation_close(rel, NoLock);
	}
	pfree(purge);
	return deleted;
}
