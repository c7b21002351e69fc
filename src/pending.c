/*
 * pending.c
 *	  Commit, abort, savepoints and PREPARE, for everything queues do.
 *
 * A transaction keeps here which leases it took, which slots it settles, and
 * how counters change; which pages it touched is in touched.c. Its commit callback
 * runs after its rows became visible and while its locks are still held; its
 * abort callback likewise after it is no longer in progress. Nothing in them
 * can fail: memory is reserved before the action.
 *
 * Savepoints: an aborted one takes its settlements back and hands the leases
 * it took to its parent; a message it had stored is simply found dead.
 * PREPARE: leases become ordinary leases that end at their deadline, slots
 * being settled remember the transaction's id, pages are looked at again until
 * the rows' fate is known. A queue cannot be created or dropped in one.
 *
 * Failures: an abort charges each lease that the transaction took, unless
 * nobody can have seen the message: the call that took it did not return, or
 * the client's own statement, which took it, was cancelled or cut off.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "tcop/pquery.h"
#include "utils/memutils.h"

#include "error.h"
#include "lease.h"
#include "pending.h"
#include "ring.h"
#include "segment.h"
#include "touched.h"
#include "wakeup.h"

#define KEEP_ENTRIES 4096		/* larger lists are given back at the end */

typedef struct TakenSlot
{
	uint32		slot;
	bool		pop;
	bool		outermost;		/* taken by the client's own statement */
	uint64		sequence;
	uint64		statement;		/* the number of that */
} TakenSlot;

typedef struct SettledSlot
{
	uint32		slot;
	int			nest;
	uint64		sequence;
	QueueSettlement how;
} SettledSlot;

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
	bool		restored;
	bool		blocked;
	bool		unblocked;
	int64		enqueued;
	int64		added;			/* rows stored, whatever was deleted besides */
	int64		stored;			/* added minus removed */
	int64		timed;
	int64		cancelled;
	int64		failed;
	QueueTime	due;			/* earliest of what was stored */
} Delta;

/* The lists live for the backend; counts go back to 0 at each end. */
static TakenSlot *taken;
static int	taken_count;
static int	taken_room;
static int	popped;				/* of those taken */
static int	returned;			/* those before were handed to the caller */
static SettledSlot *settled;
static int	settled_count;
static int	settled_room;
static Delta *deltas;
static int	delta_count;
static int	delta_room;

/* A database that this transaction drops. */
static Oid	dropped_database;

/* This transaction is counted as committing. */
static bool committing;

/* Executor runs that have begun and not ended; a FATAL error leaves them. */
static int	running;

/* Counts outermost executor runs. */
static uint64 statement;

/* The SQLSTATE with which the current statement fails; 0: it does not. */
static int	failed_with;

/* Have room for so many more slots, taken and settled. May raise an error. */
void
queue_pending_reserve(int slots)
{
	if (taken_count + slots > taken_room)
	{
		int			room = Max(64, (taken_count + slots) * 2);

		taken = taken ? repalloc_huge(taken, sizeof(TakenSlot) * room)
			: MemoryContextAllocHuge(TopMemoryContext, sizeof(TakenSlot) * room);
		taken_room = room;
	}
	if (settled_count + slots > settled_room)
	{
		int			room = Max(64, (settled_count + slots) * 2);

		settled = settled ? repalloc_huge(settled, sizeof(SettledSlot) * room)
			: MemoryContextAllocHuge(TopMemoryContext, sizeof(SettledSlot) * room);
		settled_room = room;
	}
}

/* The settlement entered last did not happen after all. */
void
queue_pending_unsettle_last(void)
{
	SettledSlot *entry = &settled[--settled_count];

	queue_lease_unsettle(queue_slot(entry->slot), entry->sequence);
}

/* The settlement entered last turns out to be another. */
void
queue_pending_resettle_last(QueueSettlement how)
{
	settled[settled_count - 1].how = how;
}

/* Whether the open transaction has acked what this slot holds. */
bool
queue_pending_acks(uint32 slot, uint64 sequence)
{
	for (int i = settled_count - 1; i >= 0; i--)
		if (settled[i].slot == slot && settled[i].sequence == sequence)
			return settled[i].how == QUEUE_SETTLE_ACK;
	return false;
}

/*
 * Whether what is taken now goes to the client, so that nobody works on it
 * before the statement has ended: not to a function, a procedure or a DO block.
 */
static bool
is_outermost(void)
{
	return running == 1 && ActivePortal && ActivePortal->stmts != NIL &&
		linitial_node(PlannedStmt, ActivePortal->stmts)->utilityStmt == NULL;
}

/* Room was reserved. */
void
queue_pending_taken(uint32 slot, uint64 sequence, bool pop)
{
	TakenSlot  *entry = &taken[taken_count++];

	entry->slot = slot;
	entry->pop = pop;
	entry->outermost = is_outermost();
	entry->sequence = sequence;
	entry->statement = statement;
	popped += pop;
}

/* The call that took messages is about to return them. */
void
queue_pending_returned(void)
{
	returned = taken_count;
}

/* Room was reserved; the entry comes before the state changes, so an error between is undone. */
void
queue_pending_settled(uint32 slot, uint64 sequence, QueueSettlement how)
{
	SettledSlot *entry = &settled[settled_count++];

	entry->slot = slot;
	entry->nest = GetCurrentTransactionNestLevel();
	entry->sequence = sequence;
	entry->how = how;
}

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
queue_pending_stored(QueueState *state, QueueSegment *segment,
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
queue_pending_removed(QueueState *state, QueueSegment *segment, BlockNumber page,
					  int messages, int timed)
{
	Delta	   *delta = get_delta(state, segment);

	delta->stored -= messages;
	delta->timed -= timed;
	delta->cancelled += messages;
	queue_touched_page(segment, page, 0);
}

/* A failure was written, to be counted at commit. */
void
queue_pending_failed(QueueState *state)
{
	get_delta(state, NULL)->failed++;
}

/* Some of the stored messages are new ones. */
void
queue_pending_enqueued(QueueState *state, int messages)
{
	get_delta(state, NULL)->enqueued += messages;
}

/* Makes the state of a new queue; nothing can fail before an abort knows of it. */
QueueState *
queue_pending_create(int32 id)
{
	QueueState *state;

	reserve_delta();
	state = queue_state_get(id, true);
	get_delta(state, NULL)->created = true;
	return state;
}

void
queue_pending_dropped(QueueState *state)
{
	get_delta(state, NULL)->dropped = true;
}

void
queue_pending_database_dropped(Oid database)
{
	dropped_database = database;
}

/* Its definition changes: whoever has it, or sleeps on it, looks at commit. */
void
queue_pending_altered(QueueState *state)
{
	get_delta(state, NULL)->altered = true;
}

/* Rows were put into its segments by hand, as a restore does: nobody has counted them. */
void
queue_pending_restored(QueueState *state)
{
	get_delta(state, NULL)->restored = true;
}

/* A key of it is blocked; its slot tells at commit. */
void
queue_pending_blocked(QueueState *state)
{
	get_delta(state, NULL)->blocked = true;
}

/* Whether this transaction sees other rows of blocked keys than others do. */
bool
queue_pending_changes_blocked(QueueState *state)
{
	for (int i = 0; i < delta_count; i++)
		if (deltas[i].state == state && (deltas[i].blocked || deltas[i].unblocked))
			return true;
	return false;
}

/* A key of it is not blocked any more. */
void
queue_pending_unblocked(QueueState *state)
{
	get_delta(state, NULL)->unblocked = true;
}

/* Told by the executor's hook, which may be nested: a statement begins or ends. */
void
queue_pending_statement_runs(bool runs)
{
	if (runs && running++ == 0)
	{
		failed_with = 0;
		statement++;
	}
	else if (!runs)
		running--;
}

/* The same of its end, where triggers run: nested statements are not outermost. */
void
queue_pending_statement_finishes(bool runs)
{
	running += runs ? 1 : -1;
}

/* Told by the executor's hook, which sees the error pass. */
void
queue_pending_statement_failed(int sqlstate)
{
	failed_with = sqlstate;
}

/* ---- the ends ---- */

static void
reset(void)
{
	taken_count = 0;
	popped = 0;
	returned = 0;
	settled_count = 0;
	delta_count = 0;
	queue_touched_forget();
	failed_with = 0;
	running = 0;
	dropped_database = InvalidOid;
	if (taken_room > KEEP_ENTRIES)
	{
		pfree(taken);
		taken = NULL;
		taken_room = 0;
	}
	if (settled_room > KEEP_ENTRIES)
	{
		pfree(settled);
		settled = NULL;
		settled_room = 0;
	}
}

static bool
is_idle(void)
{
	return taken_count == 0 && settled_count == 0 && delta_count == 0 && !queue_touched_any() &&
		!OidIsValid(dropped_database);
}

/* Have all pages of a queue looked at. */
static void
lower_queue(QueueState *state)
{
	uint64		position = 0;
	QueueSegment *segment;
	uint32		generation;

	while (queue_ring_next(state, &position, QUEUE_TIME_NEVER, &segment, &generation))
		if (pg_atomic_read_u32(&segment->pages) > 0)
			queue_map_lower_range(segment, 0, pg_atomic_read_u32(&segment->pages) - 1, 0);
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
static void
lower_touched(QueueTime at)
{
	bool		all_known = queue_touched_lower(at);

	for (int i = 0; i < delta_count; i++)
	{
		/* Of what a restore wrote no page was noted. */
		if (deltas[i].restored || (!all_known && is_first_of_queue(i)))
			lower_queue(deltas[i].state);
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

/* Numbers of retired slots on their way back into the ring, a batch at a time. */
typedef struct ReturnedSlots
{
	QueueState *state;
	uint32		count;
	uint32		numbers[128];
} ReturnedSlots;

static void
flush_returned(ReturnedSlots *returned)
{
	if (returned->count > 0)
		queue_slot_give_back(returned->state, returned->count, returned->numbers);
	returned->count = 0;
}

/* The rows are deleted for good: the slots' lives end. */
static void
finish_settled(QueueTime now)
{
	ReturnedSlots returned = {.count = 0};

	for (int i = 0; i < settled_count; i++)
	{
		QueueSlot  *slot = queue_slot(settled[i].slot);
		QueueState *state;
		Oid			database;
		uint32		key;
		uint64		call;
		uint32		taken_as;
		uint64		word;

		if (!queue_slot_lock_sequence(slot, settled[i].sequence, &word))
			continue;
		if (QUEUE_SLOT_STATE(word) != QUEUE_SLOT_SETTLING)
		{
			queue_slot_unlock(slot, word);
			continue;
		}
		state = &queue_states[slot->queue];
		database = slot->database;
		key = slot->key;
		call = slot->call;
		taken_as = slot->taken_as;
		queue_lease_count_settled(slot, settled[i].how, now);
		if (key != 0)
			queue_lease_settle_key(slot, settled[i].how);
		if (returned.count == lengthof(returned.numbers) || returned.state != state)
			flush_returned(&returned);
		if (queue_slot_retire(slot, word, settled[i].how == QUEUE_SETTLE_ACK ? QUEUE_SLOT_ACKED : 0))
			queue_lease_announce(state, database);
		returned.state = state;
		returned.numbers[returned.count++] = settled[i].slot;
		if (key != 0 && queue_settlement_fails(settled[i].how))
			queue_lease_void_behind(key - 1, call, taken_as);
	}
	flush_returned(&returned);
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
	bool		call_worker = delta->created;

	Assert(queue_state_is(state, delta->id));
	if (delta->altered)
		queue_wakeup_all(state);
	if (delta->restored)
	{
		call_worker |= queue_state_ask(state, QUEUE_ASK_RECOUNT | QUEUE_ASK_NOTIFY);
		queue_wakeup_work(state, 1);
	}
	if (delta->restored)
		pg_atomic_fetch_add_u32(&state->copies_unknown, 1);
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
	if (delta->segment && delta->cancelled > 0)
		pg_atomic_write_u64(&delta->segment->deleted_at, (uint64) now);
	queue_count(state, QUEUE_COUNT_CANCELLED, delta->cancelled);
	queue_count(state, QUEUE_COUNT_FAILED, delta->failed);
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

static void
apply_deltas(void)
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
}

/*
 * Invalidation messages are sent later in the commit than this callback runs:
 * who is woken by it must not go by the old definition.
 */
static void
announce_altered(void)
{
	for (int i = 0; i < delta_count; i++)
		if (deltas[i].altered)
			pg_atomic_fetch_add_u32(&deltas[i].state->definition, 1);
}

static void
at_commit(void)
{
	announce_altered();
	lower_touched(QUEUE_TIME_NEVER);
	finish_settled(queue_clock_now());
	apply_deltas();
	if (OidIsValid(dropped_database))
		forget_database(dropped_database);
	reset();
}

/* Whether the statement at hand is cancelled, or its connection is lost. */
static bool
is_cut_off(void)
{
	if (proc_exit_inprogress)
		return running > 0;
	switch (failed_with)
	{
		case ERRCODE_QUERY_CANCELED:
		case ERRCODE_ADMIN_SHUTDOWN:
		case ERRCODE_CRASH_SHUTDOWN:
		case ERRCODE_CONNECTION_FAILURE:
		case ERRCODE_PROTOCOL_VIOLATION:
			return true;
		default:
			return false;
	}
}

/*
 * Whether an abort now charges a lease: not if nobody can have seen the
 * message. What a call took and did not return, nobody has seen, unless the
 * message itself is what cannot be read: that would go on for ever.
 */
static bool
abort_counts(int i)
{
	const TakenSlot *entry = &taken[i];

	/* A crash of the server counts nothing. */
	if (proc_exit_inprogress && !PostmasterIsAlive())
		return false;
	if (i >= returned)
		return ERRCODE_TO_CATEGORY(failed_with) == ERRCODE_INTERNAL_ERROR;
	return !(entry->outermost && entry->statement == statement && is_cut_off());
}

static void
at_abort(void)
{
	queue_key_give_turn();
	queue_map_abort();
	queue_slot_return_reserved();
	queue_wakeup_abort();
	for (int i = settled_count - 1; i >= 0; i--)
		queue_lease_unsettle(queue_slot(settled[i].slot), settled[i].sequence);
	for (int i = 0; i < taken_count; i++)
		queue_lease_taker_aborted(queue_slot(taken[i].slot), taken[i].sequence, abort_counts(i));
	/* Rows it deleted are back; rows it stored are dead, which costs a look. */
	if (queue_touched_any())
		lower_touched(0);
	wake_for_undeleted(0);
	for (int i = 0; i < delta_count; i++)
		if (deltas[i].created)
			forget_queue(deltas[i].state, MyDatabaseId, deltas[i].id);
	reset();
}

static void
before_prepare(void)
{
	for (int i = 0; i < delta_count; i++)
	{
		if (deltas[i].created || deltas[i].dropped)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has created or dropped a queue")));
		/* Nobody would be told of the change. */
		if (deltas[i].blocked || deltas[i].unblocked)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has blocked or unblocked a key")));
	}
}

static void
at_prepare(void)
{
	FullTransactionId xid = GetTopFullTransactionIdIfAny();

	queue_state_prepare();
	for (int i = 0; i < settled_count; i++)
		queue_lease_prepare(queue_slot(settled[i].slot), settled[i].sequence, settled[i].how, xid);
	/* Whoever looks finds rows in progress, and looks again in a while. */
	lower_touched(0);
	for (int i = 0; i < delta_count; i++)
	{
		queue_state_ask(deltas[i].state, QUEUE_ASK_RECOUNT);
		if (deltas[i].cancelled > 0 && deltas[i].state->ordered)
			queue_key_make_all_ready(deltas[i].state);
		/* Who sleeps takes it upon himself to look again. */
		queue_wakeup_work(deltas[i].state, 1);
	}
	reset();
}

static void
commit_ended(void)
{
	if (committing)
		queue_state_commit_ended();
	committing = false;
}

static void
transaction_ends(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (!is_idle() && !committing)
			{
				queue_state_commit_begins();
				committing = true;
			}
			break;
		case XACT_EVENT_COMMIT:
			if (!is_idle())
				at_commit();
			commit_ended();
			break;
		case XACT_EVENT_ABORT:
			at_abort();
			commit_ended();
			break;
		case XACT_EVENT_PRE_PREPARE:
			before_prepare();
			break;
		case XACT_EVENT_PREPARE:
			if (!is_idle())
				at_prepare();
			break;
		default:
			break;
	}
}

/* ---- savepoints ---- */

/*
 * Nobody has the receipt of a popped message: it failed. Those popped last
 * stand last in both lists, so the search is short.
 */
static void
unpop(const SettledSlot *entry)
{
	for (int i = taken_count - 1; i >= 0 && popped > 0; i--)
	{
		if (!taken[i].pop || taken[i].slot != entry->slot || taken[i].sequence != entry->sequence)
			continue;
		queue_lease_taker_aborted(queue_slot(entry->slot), entry->sequence, abort_counts(i));
		taken_count--;
		memmove(&taken[i], &taken[i + 1], sizeof(TakenSlot) * (taken_count - i));
		returned -= i < returned;
		popped--;
		break;
	}
}

/*
 * Nobody has the receipts of what a call took and did not return, or of what
 * the client's statement took that was cancelled below a savepoint. As long as
 * that statement runs on, the error was caught inside of it.
 */
static void
give_back_unseen(void)
{
	while (taken_count > 0)
	{
		bool		counts = abort_counts(taken_count - 1);
		TakenSlot  *entry = &taken[taken_count - 1];

		if (taken_count <= returned && (counts || (running > 0 && !proc_exit_inprogress)))
			break;
		taken_count--;
		popped -= entry->pop;
		queue_lease_taker_aborted(queue_slot(entry->slot), entry->sequence, counts);
	}
	returned = Min(returned, taken_count);
}

static void
savepoint_aborted(int nest)
{
	queue_key_give_turn();
	queue_map_abort();
	queue_slot_return_reserved();
	queue_wakeup_abort();
	while (settled_count > 0 && settled[settled_count - 1].nest >= nest)
	{
		SettledSlot *entry = &settled[--settled_count];

		queue_lease_unsettle(queue_slot(entry->slot), entry->sequence);
		unpop(entry);
	}
	give_back_unseen();
	/* Rows deleted without a slot are back. */
	lower_touched(0);
	wake_for_undeleted(nest);
	while (delta_count > 0 && deltas[delta_count - 1].nest >= nest)
	{
		Delta	   *delta = &deltas[--delta_count];

		if (delta->created)
			forget_queue(delta->state, MyDatabaseId, delta->id);
	}
	failed_with = 0;
}

static void
add_delta(Delta *to, const Delta *from)
{
	to->created |= from->created;
	to->dropped |= from->dropped;
	to->altered |= from->altered;
	to->restored |= from->restored;
	to->blocked |= from->blocked;
	to->unblocked |= from->unblocked;
	to->enqueued += from->enqueued;
	to->added += from->added;
	to->stored += from->stored;
	to->timed += from->timed;
	to->cancelled += from->cancelled;
	to->failed += from->failed;
	to->due = Min(to->due, from->due);
}

/* What it did is its parent's; a thousand savepoints leave one entry. */
static void
savepoint_released(int nest)
{
	int			first = delta_count;
	int			end = delta_count;

	for (int i = settled_count - 1; i >= 0 && settled[i].nest >= nest; i--)
		settled[i].nest = nest - 1;
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

static void
savepoint_ends(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	int			nest = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
		savepoint_aborted(nest);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		savepoint_released(nest);
}

void
queue_pending_init(void)
{
	RegisterXactCallback(transaction_ends, NULL);
	RegisterSubXactCallback(savepoint_ends, NULL);
}
