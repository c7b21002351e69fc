/*
 * delta.c
 *	  How the open transaction changes queues: counters, and what else its end tells.
 *
 * There is one entry for each queue, segment and savepoint level that had a
 * change. pending.c tells of commit, abort, savepoints and PREPARE; what is done
 * then cannot fail: memory is reserved before the change.
 *
 * A queue cannot be created or dropped, nor a key blocked or unblocked, by a
 * transaction that is prepared: no callback runs when that ends.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "delta.h"
#include "key.h"
#include "ring.h"
#include "single.h"
#include "slot.h"
#include "touched.h"
#include "wakeup.h"

/*
 * How counters of one queue and segment change, by savepoint level. The list
 * is a stack: deeper levels stand behind, and those that end are at its end.
 */
typedef struct Delta
{
	QueueState *state;
	QueueSegment *segment;		/* NULL: no segment's in particular */
	int32		id;
	int			nest;
	bool		created;
	bool		dropped;
	bool		altered;
	bool		single;			/* single_active_consumer of it is */
	bool		restored;
	bool		blocked;
	bool		unblocked;
	int64		enqueued;
	int64		added;			/* rows stored, whatever was deleted besides */
	int64		stored;			/* added minus removed */
	int64		timed;
	int64		cancelled;
	int64		dead;			/* without slots */
	int64		failed;
	QueueTime	due;			/* earliest of what was stored */
} Delta;

/* The list lives for the backend; the count goes back to 0 at each end. */
static Delta *deltas;
static int	delta_count;
static int	delta_room;

/* A database that this transaction drops. */
static Oid	dropped_database;

/* Among the first "count" entries, of which the last are of this level. */
static Delta *
find_delta(int count, int nest, QueueState *state, QueueSegment *segment, int32 id)
{
	for (int i = count - 1; i >= 0 && deltas[i].nest == nest; i--)
		if (deltas[i].state == state && deltas[i].segment == segment && deltas[i].id == id)
			return &deltas[i];
	return NULL;
}

/* Have room for one more. May raise an error. */
static void
reserve_delta(void)
{
	int			room = Max(16, delta_room * 2);

	if (delta_count < delta_room)
		return;
	deltas = deltas ? repalloc_huge(deltas, sizeof(Delta) * room)
		: MemoryContextAllocHuge(TopMemoryContext, sizeof(Delta) * room);
	delta_room = room;
}

/* May raise an error: call it before anything that must not be lost. */
static Delta *
get_delta(QueueState *state, QueueSegment *segment)
{
	int			nest = GetCurrentTransactionNestLevel();
	Delta	   *delta;

	delta = find_delta(delta_count, nest, state, segment, state->id);
	if (delta)
		return delta;
	reserve_delta();
	delta = &deltas[delta_count++];
	memset(delta, 0, sizeof(*delta));
	delta->state = state;
	delta->segment = segment;
	delta->id = state->id;
	delta->nest = nest;
	delta->due = QUEUE_TIME_NEVER;
	return delta;
}

/* Messages were stored on a page; they are due at this time, 0: at once. */
void
queue_delta_stored(QueueState *state, QueueSegment *segment,
					 BlockNumber page, QueueTime due, int messages)
{
	Delta	   *delta = get_delta(state, segment);

	delta->added += messages;
	delta->stored += messages;
	if (due > 0)
		delta->timed += messages;
	delta->due = Min(delta->due, due);
	queue_touched_page(segment, page, due);
}

/* Messages of a page were deleted without slots (purge). */
void
queue_delta_removed(QueueState *state, QueueSegment *segment, BlockNumber page,
					  int messages, int timed)
{
	Delta	   *delta = get_delta(state, segment);

	delta->stored -= messages;
	delta->timed -= timed;
	delta->cancelled += messages;
	queue_touched_page(segment, page, 0);
}

/* The rest of a blocked key, on a page, was made dead letters without slots. */
void
queue_delta_dead(QueueState *state, QueueSegment *segment, BlockNumber page, int messages, int timed)
{
	Delta	   *delta = get_delta(state, segment);

	delta->stored -= messages;
	delta->timed -= timed;
	delta->dead += messages;
	/* Only if they come back there is something to look at. */
	queue_touched_page(segment, page, QUEUE_TIME_NEVER);
}

/* A failure was written, to be counted at commit. */
void
queue_delta_failed(QueueState *state)
{
	get_delta(state, NULL)->failed++;
}

/* Some of the stored messages are new ones. */
void
queue_delta_enqueued(QueueState *state, int messages)
{
	get_delta(state, NULL)->enqueued += messages;
}

/* Makes the state of a new queue; nothing can fail before an abort knows of it. */
QueueState *
queue_delta_create(int32 id)
{
	QueueState *state;

	reserve_delta();
	state = queue_state_get(id, true);
	get_delta(state, NULL)->created = true;
	return state;
}

void
queue_delta_dropped(QueueState *state)
{
	get_delta(state, NULL)->dropped = true;
}

void
queue_delta_database_dropped(Oid database)
{
	dropped_database = database;
}

/* Its definition changes: whoever has it, or sleeps on it, looks at commit. */
void
queue_delta_altered(QueueState *state)
{
	get_delta(state, NULL)->altered = true;
}

/* Whether it has one consumer at a time changes: nobody is the active one. */
void
queue_delta_altered_single(QueueState *state)
{
	get_delta(state, NULL)->single = true;
}

/* Whether this transaction has another definition of it than others have. */
bool
queue_delta_alters(QueueState *state)
{
	for (int i = 0; i < delta_count; i++)
		if (deltas[i].state == state && deltas[i].altered)
			return true;
	return false;
}

/* Rows were put into its segments by hand, as a restore does: nobody has counted them. */
void
queue_delta_restored(QueueState *state)
{
	get_delta(state, NULL)->restored = true;
}

/* A key of it is blocked; its slot tells at commit. */
void
queue_delta_blocked(QueueState *state)
{
	get_delta(state, NULL)->blocked = true;
}

/* Whether this transaction sees other rows of blocked keys than others do. */
bool
queue_delta_changes_blocked(QueueState *state)
{
	for (int i = 0; i < delta_count; i++)
		if (deltas[i].state == state && (deltas[i].blocked || deltas[i].unblocked))
			return true;
	return false;
}

/* A key of it is not blocked any more. */
void
queue_delta_unblocked(QueueState *state)
{
	get_delta(state, NULL)->unblocked = true;
}

/* ---- the ends ---- */

bool
queue_delta_any(void)
{
	return delta_count > 0 || OidIsValid(dropped_database);
}

void
queue_delta_forget(void)
{
	delta_count = 0;
	dropped_database = InvalidOid;
}

/* A large transaction has an entry for each segment. */
static bool
is_first_of_queue(int delta)
{
	for (int i = 0; i < delta; i++)
		if (deltas[i].state == deltas[delta].state)
			return false;
	return true;
}

/* Have the touched pages looked at; "at" is no later than the messages' due. */
void
queue_delta_lower_touched(QueueTime at)
{
	bool		all_known = queue_touched_lower(at);

	for (int i = 0; i < delta_count; i++)
	{
		/* Of what a restore wrote no page was noted. */
		if (deltas[i].restored || (!all_known && is_first_of_queue(i)))
			queue_ring_lower(deltas[i].state);
	}
}

/* What was deleted without slots, at this savepoint level or deeper, is back. */
static void
wake_for_undeleted(int nest)
{
	for (int i = delta_count - 1; i >= 0 && deltas[i].nest >= nest; i--)
		if (deltas[i].cancelled > 0 && queue_state_is(deltas[i].state, deltas[i].id))
		{
			if (deltas[i].state->ordered)
				queue_key_make_all_ready(deltas[i].state);
			queue_wakeup_work(deltas[i].state, deltas[i].cancelled);
		}
}

/* A queue is gone, or never was: nothing of it stays in shared memory. */
static void
forget_queue(QueueState *state, Oid database, int32 id)
{
	if (state->database != database || state->id != id)
		return;
	for (uint32 i = 0; i < queue_slot_count(); i++)
	{
		QueueSlot  *slot = queue_slot(i);
		uint64		word;

		if (QUEUE_SLOT_STATE(pg_atomic_read_u64(&slot->word)) == QUEUE_SLOT_FREE)
			continue;
		word = queue_slot_lock(slot);
		if (QUEUE_SLOT_STATE(word) != QUEUE_SLOT_FREE &&
			slot->queue == queue_state_index(state) && slot->database == database)
			queue_slot_free(slot, word, 0);
		else
			queue_slot_unlock(slot, word);
	}
	queue_key_forget_queue(state);
	queue_meter_forget_queue(state);
	queue_ring_remove_all(state);
	queue_state_forget(database, id);
}

/* All queues of a database that was dropped. */
static void
forget_database(Oid database)
{
	uint32		position = 0;
	QueueState *state;

	while ((state = queue_state_next(database, &position)) != NULL)
		forget_queue(state, database, state->id);
}

/* Whether this transaction has dropped the queue, before or after the change. */
static bool
is_dropped(const Delta *delta)
{
	for (int i = 0; i < delta_count; i++)
		if (deltas[i].dropped && deltas[i].state == delta->state && deltas[i].id == delta->id)
			return true;
	return false;
}

/* Count what happened to one queue and segment. Returns whether the worker is to look. */
static bool
apply_delta(const Delta *delta, QueueTime now)
{
	QueueState *state = delta->state;
	/* What blocks a key may have a rest for it to move. */
	bool		call_worker = delta->created || delta->blocked;

	Assert(queue_state_is(state, delta->id));
	if (delta->single)
		queue_single_forget(state);
	if (delta->altered)
		queue_wakeup_all(state);
	if (delta->restored)
	{
		call_worker |= queue_state_ask(state, QUEUE_ASK_RECOUNT | QUEUE_ASK_NOTIFY);
		queue_wakeup_work(state, 1);
	}
	if (delta->restored)
	{
		pg_atomic_fetch_add_u32(&state->copies_unknown, 1);
		queue_ring_forget_survey(state);
	}
	if (delta->restored || delta->unblocked)
		pg_atomic_fetch_add_u32(&state->blocked_changes, 1);
	if (delta->restored || delta->unblocked || (delta->cancelled > 0 && state->ordered))
	{
		queue_wakeup_work(state, 1);
		call_worker |= queue_state_ask(state, QUEUE_ASK_NOTIFY);
	}
	/* What kept a key back may be gone. */
	if (delta->cancelled > 0 && state->ordered)
		queue_key_make_all_ready(state);
	/* Before, the worker could not see the queue. */
	if (delta->created)
		queue_state_ask(state, QUEUE_ASK_RESERVE);
	queue_count(state, QUEUE_COUNT_ENQUEUED, delta->enqueued);
	queue_count(state, QUEUE_COUNT_STORED, delta->stored);
	queue_count(state, QUEUE_COUNT_TIMED, delta->timed);
	if (delta->segment)
		pg_atomic_fetch_add_u64(&delta->segment->live, delta->stored);
	/* Deletes without slots count for queue.reclaim_delay too. */
	if (delta->segment && delta->cancelled + delta->dead > 0)
		pg_atomic_write_u64(&delta->segment->deleted_at, (uint64) now);
	queue_count(state, QUEUE_COUNT_CANCELLED, delta->cancelled);
	queue_count(state, QUEUE_COUNT_DEAD, delta->dead);
	queue_count(state, QUEUE_COUNT_FAILED, delta->failed);
	/* What is first now may cost less than what could not be had. */
	if (state->metered && (delta->added > 0 || delta->cancelled > 0))
		queue_meter_reopen(state);
	if (delta->due <= now)
	{
		queue_wakeup_work(state, delta->added);
		call_worker |= queue_state_ask(state, QUEUE_ASK_NOTIFY);
	}
	else if (delta->due != QUEUE_TIME_NEVER)
	{
		queue_wakeup_due(state, delta->due);
		call_worker = true;		/* it keeps the time for listeners */
	}
	return call_worker;
}

/* The transaction has committed. */
void
queue_delta_apply(void)
{
	bool		call_worker = false;
	bool		drops = false;
	QueueTime	now = queue_clock_now();

	for (int i = 0; i < delta_count; i++)
		drops |= deltas[i].dropped;
	for (int i = 0; i < delta_count; i++)
		if (!drops || !is_dropped(&deltas[i]))
			call_worker |= apply_delta(&deltas[i], now);
	/* Last: an entry that was given back is somebody else's at once. */
	for (int i = 0; drops && i < delta_count; i++)
		if (deltas[i].dropped)
			forget_queue(deltas[i].state, MyDatabaseId, deltas[i].id);
	if (call_worker || drops)
		queue_wakeup_worker(MyDatabaseId);
	if (OidIsValid(dropped_database))
		forget_database(dropped_database);
}

/*
 * Invalidation messages are sent later in the commit than this callback runs:
 * who is woken by it must not go by the old definition.
 */
void
queue_delta_announce(void)
{
	for (int i = 0; i < delta_count; i++)
		if (deltas[i].altered)
			pg_atomic_fetch_add_u32(&deltas[i].state->definition, 1);
}

/* A savepoint level, and those in it, are rolled back; 0: all. */
void
queue_delta_undo(int nest)
{
	wake_for_undeleted(nest);
	while (delta_count > 0 && deltas[delta_count - 1].nest >= nest)
	{
		Delta	   *delta = &deltas[--delta_count];

		if (delta->created)
			forget_queue(delta->state, MyDatabaseId, delta->id);
	}
}

/* What cannot be prepared raises an error. */
void
queue_delta_refuse_prepare(void)
{
	for (int i = 0; i < delta_count; i++)
	{
		if (deltas[i].created || deltas[i].dropped)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has created or dropped a queue")));
		/* Nobody would be told of the change, of any of these. */
		if (deltas[i].altered)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has altered or paused a queue")));
		if (deltas[i].blocked || deltas[i].unblocked)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has blocked or unblocked a key")));
	}
}

/* It is prepared: nobody will count it, and what it stored and deleted is looked for. */
void
queue_delta_prepare(void)
{
	for (int i = 0; i < delta_count; i++)
	{
		queue_state_ask(deltas[i].state, QUEUE_ASK_RECOUNT);
		if (deltas[i].cancelled > 0 && deltas[i].state->ordered)
			queue_key_make_all_ready(deltas[i].state);
		/* Who sleeps takes it upon himself to look again. */
		queue_wakeup_work(deltas[i].state, 1);
	}
}

static void
add_delta(Delta *to, const Delta *from)
{
	to->created |= from->created;
	to->dropped |= from->dropped;
	to->altered |= from->altered;
	to->single |= from->single;
	to->restored |= from->restored;
	to->blocked |= from->blocked;
	to->unblocked |= from->unblocked;
	to->enqueued += from->enqueued;
	to->added += from->added;
	to->stored += from->stored;
	to->timed += from->timed;
	to->cancelled += from->cancelled;
	to->dead += from->dead;
	to->failed += from->failed;
	to->due = Min(to->due, from->due);
}

/* A savepoint's changes are its parent's; a thousand savepoints leave one entry. */
void
queue_delta_release(int nest)
{
	int			first = delta_count;
	int			end = delta_count;

	while (first > 0 && deltas[first - 1].nest >= nest)
		first--;
	delta_count = first;
	for (int i = first; i < end; i++)
	{
		Delta		own = deltas[i];
		Delta	   *parent = find_delta(delta_count, nest - 1, own.state, own.segment, own.id);

		if (parent)
		{
			add_delta(parent, &own);
			continue;
		}
		own.nest = nest - 1;
		deltas[delta_count++] = own;
	}
}
