/*
 * pending.c
 *	  Commit, abort, savepoints and PREPARE, for everything queues do.
 *
 * A transaction keeps here which leases it took and which slots it settles; how
 * it changes queues is in delta.c, which pages it touched in touched.c. Its commit callback
 * runs after its rows became visible and while its locks are still held; its
 * abort callback likewise after it is no longer in progress. Nothing in them
 * can fail: memory is reserved before the action.
 *
 * Savepoints: an aborted one takes its settlements back and hands the leases
 * it took to its parent; a message it had stored is simply found dead.
 * PREPARE: leases become ordinary leases that end at their deadline, slots
 * being settled remember the transaction's id, pages are looked at again until
 * the rows' fate is known.
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

#include "delta.h"
#include "lease.h"
#include "pending.h"
#include "single.h"
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

/* The lists live for the backend; counts go back to 0 at each end. */
static TakenSlot *taken;
static int	taken_count;
static int	taken_room;
static int	popped;				/* of those taken */
static int	returned;			/* those before were handed to the caller */
static SettledSlot *settled;
static int	settled_count;
static int	settled_room;
static int	holds;				/* of those settled, that only hold */

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

/* The last entry of a slot among the first "count", or -1. */
static int
find_settled(int count, uint32 slot, uint64 sequence)
{
	for (int i = count - 1; i >= 0; i--)
		if (settled[i].slot == slot && settled[i].sequence == sequence)
			return i;
	return -1;
}

/* Take the last entry off. If its slot was held before it was settled, it is that again. */
static SettledSlot *
undo_last_settled(void)
{
	SettledSlot *entry = &settled[--settled_count];

	if (entry->how == QUEUE_SETTLE_HOLD)
		holds--;
	else if (holds > 0 && find_settled(settled_count, entry->slot, entry->sequence) >= 0)
		return entry;
	queue_lease_unsettle(queue_slot(entry->slot), entry->sequence);
	return entry;
}

/* The settlement entered last did not happen after all. */
void
queue_pending_unsettle_last(void)
{
	undo_last_settled();
}

/* The settlement entered last has not begun: its slot is as before. */
void
queue_pending_forget_last(void)
{
	holds -= settled[--settled_count].how == QUEUE_SETTLE_HOLD;
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
	int			i = find_settled(settled_count, slot, sequence);

	return i >= 0 && settled[i].how == QUEUE_SETTLE_ACK;
}

/* Whether the open transaction has it in its hands, settled or not. */
bool
queue_pending_has(uint32 slot, uint64 sequence)
{
	return find_settled(settled_count, slot, sequence) >= 0;
}

/* Whether the open transaction holds it, and has not settled it. */
bool
queue_pending_holds(uint32 slot, uint64 sequence)
{
	int			i = holds > 0 ? find_settled(settled_count, slot, sequence) : -1;

	return i >= 0 && settled[i].how == QUEUE_SETTLE_HOLD;
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
	holds += how == QUEUE_SETTLE_HOLD;
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
	holds = 0;
	queue_delta_forget();
	queue_touched_forget();
	failed_with = 0;
	running = 0;
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
	return taken_count == 0 && settled_count == 0 && !queue_delta_any() && !queue_touched_any();
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
	{
		queue_slot_give_back(returned->state, returned->count, returned->numbers);
		queue_wakeup_standbys(returned->state);
	}
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

		if (settled[i].how == QUEUE_SETTLE_HOLD)
		{
			/* Nothing was deleted, unless it was settled after that. */
			if (find_settled(settled_count, settled[i].slot, settled[i].sequence) == i)
				queue_lease_unsettle(slot, settled[i].sequence);
			continue;
		}
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

static void
at_commit(void)
{
	queue_delta_announce();
	queue_delta_lower_touched(QUEUE_TIME_NEVER);
	finish_settled(queue_clock_now());
	queue_delta_apply();
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
	queue_single_abort();
	while (settled_count > 0)
		undo_last_settled();
	for (int i = 0; i < taken_count; i++)
		queue_lease_taker_aborted(queue_slot(taken[i].slot), taken[i].sequence, abort_counts(i));
	/* Rows it deleted are back; rows it stored are dead, which costs a look. */
	if (queue_touched_any())
		queue_delta_lower_touched(0);
	queue_delta_undo(0);
	reset();
}

/* Nobody would end the hold, and after a restart nobody would know of it. */
static void
refuse_to_prepare_holds(void)
{
	for (int i = 0; i < settled_count && holds > 0; i++)
		if (settled[i].how == QUEUE_SETTLE_HOLD &&
			find_settled(settled_count, settled[i].slot, settled[i].sequence) == i)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has set the state of a key and not settled its message")));
}

static void
at_prepare(void)
{
	FullTransactionId xid = GetTopFullTransactionIdIfAny();

	queue_state_prepare();
	for (int i = 0; i < settled_count; i++)
		queue_lease_prepare(queue_slot(settled[i].slot), settled[i].sequence, settled[i].how, xid);
	/* Whoever looks finds rows in progress, and looks again in a while. */
	queue_delta_lower_touched(0);
	queue_delta_prepare();
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
			queue_delta_refuse_prepare();
			refuse_to_prepare_holds();
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
	queue_single_abort();
	while (settled_count > 0 && settled[settled_count - 1].nest >= nest)
	{
		unpop(undo_last_settled());
	}
	give_back_unseen();
	/* Rows deleted without a slot are back. */
	queue_delta_lower_touched(0);
	queue_delta_undo(nest);
	failed_with = 0;
}

/* What it did is its parent's. */
static void
savepoint_released(int nest)
{
	for (int i = settled_count - 1; i >= 0 && settled[i].nest >= nest; i--)
		settled[i].nest = nest - 1;
	queue_delta_release(nest);
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
