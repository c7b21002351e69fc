/*
 * rest.c
 *	  Moves the rest of keys of which a message has died: on_dead = dead_rest.
 *
 * The death has stored a row in queue._blocked_key, by which nothing of the key is
 * delivered. The worker goes over all segments of the queue in steps, transactions
 * of some pages and messages each; that is a pass, and it serves all keys of the
 * queue that have a rest when it begins. What must hold is in src/README.md, "Order".
 *
 * What a reader must believe:
 * - Rows are deleted as purge does it: under busy, every heavyweight lock taken
 *   before, and only what no slot hangs on. Whatever cannot be had is "left", and
 *   so is then the row that blocks the key: another pass looks at it again.
 * - A step has the lock of the queue's rows, so that no unblock commits beside it.
 * - What this file remembers is the worker's own, and may be forgotten at any
 *   time: a pass that begins anew finds what is there. A crash leaves what the
 *   last step that has committed did.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/memutils.h"

#include "blocked.h"
#include "delta.h"
#include "failure.h"
#include "guc.h"
#include "order.h"
#include "rest.h"
#include "ring.h"

/* What a step does at most; the last page may bring some more. */
#define PAGES_AT_ONCE 512
#define MESSAGES_AT_ONCE 500
#define BYTES_AT_ONCE (4 * 1024 * 1024)

/* Between two passes that found something left, us: longer each time, and by how long one takes. */
#define SHORTEST_PAUSE 10000
#define PASS_SHARE 20

/* Somebody looks at the page at hand, us. */
#define BUSY_PAUSE 10000

/* The rest that one message left. */
typedef struct Rest
{
	uint64		hash;
	char	   *key;
	int			length;
	int64		message;		/* that died: the rest has higher ids */
	int64		to;				/* and lower ones */
	bool		left;			/* some of it may be there when the pass is over */
	bool		gone;			/* its key was unblocked */
	bool		skipped;		/* one of it could not be moved: not again in this pass */
} Rest;

/* A transaction that was seen to have stored some of a rest, and had not ended. */
typedef struct Storing
{
	TransactionId xid;
	Rest	   *rest;
} Storing;

typedef struct Pass
{
	MemoryContext context;
	Rest	   *rests;			/* by hash and message */
	int			count;
	int64		lowest;			/* messages with ids between belong to some rest, perhaps */
	int64		highest;
	uint32		changes;		/* of blocked keys, when it knew all that are */
	Storing    *storing;
	int			storing_count;
	int			storing_room;
	bool		known;			/* all that is above */
	QueueTime	begun;
	int64		moved;

	/* where it is: the segment done last, and the next page of the one behind it */
	int			part;
	uint64		done;
	uint64		current;
	BlockNumber page;

	/* the step at hand, or the last one */
	bool		ended;
	TransactionId xid;
	Rest	   *writing;		/* of the message that is being moved */
} Pass;

/* Of each queue, by the index of its state, for the life of the worker. */
typedef struct Watch
{
	int32		id;
	uint32		generation;		/* of the state */
	bool		known;
	uint32		saw;			/* changes of blocked keys, when its rows were read last */
	QueueTime	retry_at;		/* nothing before */
	bool		waits;			/* something was left */
	QueueTime	again_at;		/* then look at that again */
	int64		pause;			/* us */
	Pass	   *pass;			/* NULL: none is under way */
} Watch;

static Watch **watches;

/* Copies first, since most of them are before the backlog, and last, since rows go there. */
static const QueueLane parts[] = {
	QUEUE_LANE_COPIES, QUEUE_LANE_BACKLOG, QUEUE_LANE_TIMED, QUEUE_LANE_COPIES
};

/* One candidate on the page at hand. */
typedef struct Candidate
{
	HeapTuple	tuple;			/* a copy */
	int64		id;
	Rest	   *rest;
	bool		timed;
	bool		is_copy;
	bool		moved;
} Candidate;

typedef struct RestStep
{
	QueueDef   *def;
	Pass	   *pass;
	Relation	rel;
	QueueSegment *segment;
	int			pages;
	int			messages;
	int64		bytes;
	/* of the page at hand */
	bool		any;			/* it has rows */
	bool		within;			/* of which some have ids low enough */
	int			count;
	Candidate	candidates[MaxHeapTuplesPerPage];
} RestStep;

/* What came of a page. */
typedef enum PageResult
{
	PAGE_DONE,
	PAGE_AGAIN,					/* the step is full: it may have more */
	PAGE_BUSY,					/* somebody else looks at it, or there is no memory for that */
	PAGE_BEYOND,				/* neither it nor those behind it have any of a rest */
} PageResult;

/* ---- what the worker remembers ---- */

static void
forget_pass(Watch *watch)
{
	if (watch->pass)
		MemoryContextDelete(watch->pass->context);
	watch->pass = NULL;
}

static Watch *
watch_of(QueueState *state)
{
	Watch	  **slot;
	Watch	   *watch;

	if (watches == NULL)
		watches = MemoryContextAllocZero(TopMemoryContext, sizeof(Watch *) * queue_max_queues);
	slot = &watches[queue_state_index(state)];
	if (*slot == NULL)
		*slot = MemoryContextAllocZero(TopMemoryContext, sizeof(Watch));
	watch = *slot;
	if (watch->id != state->id || watch->generation != state->generation)
	{
		forget_pass(watch);
		memset(watch, 0, sizeof(*watch));
		watch->id = state->id;
		watch->generation = state->generation;
	}
	return watch;
}

/* When to take the next step; never: nothing is known to be left. */
QueueTime
queue_rest_due(QueueState *state)
{
	Watch	   *watch;

	if (!state->ordered)
		return QUEUE_TIME_NEVER;
	watch = watch_of(state);
	if (watch->pass || !watch->known || watch->saw != pg_atomic_read_u32(&state->blocked_changes))
		return watch->retry_at;
	return watch->waits ? Max(watch->retry_at, watch->again_at) : QUEUE_TIME_NEVER;
}

/* Whether a pass is under way: then nothing is to be stored elsewhere that nobody holds. */
bool
queue_rest_is_moving(QueueState *state)
{
	return state->ordered && watch_of(state)->pass != NULL;
}

/* Whatever comes, not before this time (us) is over. */
void
queue_rest_put_off(QueueState *state, int64 delay)
{
	watch_of(state)->retry_at = queue_clock_now() + delay;
}

/* ---- passes ---- */

typedef struct RowsRead
{
	Pass	   *pass;
	int			room;
} RowsRead;

static void
add_rest(const QueueBlocked *blocked, void *arg)
{
	RowsRead   *read = arg;
	Pass	   *pass = read->pass;
	Rest	   *rest;

	if (blocked->rest_to == 0)
		return;
	if (pass->count == read->room)
	{
		read->room = Max(64, read->room * 2);
		pass->rests = pass->rests ? repalloc_huge(pass->rests, sizeof(Rest) * read->room)
			: MemoryContextAllocHuge(pass->context, sizeof(Rest) * read->room);
	}
	rest = &pass->rests[pass->count++];
	memset(rest, 0, sizeof(*rest));
	rest->length = VARSIZE_ANY_EXHDR(blocked->key);
	rest->key = MemoryContextAlloc(pass->context, rest->length + 1);
	memcpy(rest->key, VARDATA_ANY(blocked->key), rest->length);
	rest->hash = queue_message_hash_key(rest->key, rest->length);
	rest->message = blocked->message;
	rest->to = blocked->rest_to;
	pass->lowest = Min(pass->lowest, rest->message);
	pass->highest = Max(pass->highest, rest->to);
}

static int
compare_rests(const void *a, const void *b)
{
	const Rest *x = a;
	const Rest *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->message < y->message ? -1 : x->message > y->message;
}

/* Something of all rests may be left. */
static void
leave_all(Pass *pass)
{
	for (int i = 0; i < pass->count; i++)
		pass->rests[i].left = true;
}

/* Whether there is a slot of the queue that hangs on no key: the worker is to write it. */
static bool
has_loose_slot(QueueState *state)
{
	if (pg_atomic_read_u32(&state->slots) == 0)
		return false;
	for (uint32 i = 0; i < queue_slot_count(); i++)
	{
		QueueSlot  *slot = queue_slot(i);

		if (QUEUE_SLOT_STATE(pg_atomic_read_u64(&slot->word)) != QUEUE_SLOT_FREE &&
			slot->queue == queue_state_index(state) && slot->key == 0)
			return true;
	}
	return false;
}

/* What has a slot now may be stored again where the pass has been already. */
static void
leave_held(Pass *pass, QueueState *state)
{
	if (has_loose_slot(state))
		leave_all(pass);
	for (int i = 0; i < pass->count; i++)
	{
		QueueKey   *key = queue_key_find(state, pass->rests[i].hash);

		if (key == NULL)
			continue;
		pass->rests[i].left |= key->slots != 0;
		queue_key_unlock(key);
	}
}

/* Begin a pass, if there is a rest. */
static void
begin_pass(Watch *watch, QueueDef *def)
{
	uint32		changes = pg_atomic_read_u32(&def->state->blocked_changes);
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "queue rest", ALLOCSET_SMALL_SIZES);
	Pass	   *pass = MemoryContextAllocZero(context, sizeof(Pass));
	RowsRead	read = {.pass = pass};

	pass->context = context;
	pass->changes = changes;
	pass->lowest = PG_INT64_MAX;
	pass->begun = queue_clock_now();
	/* Should reading fail, it goes with the next one. */
	watch->pass = pass;
	queue_blocked_visit(def, add_rest, &read);
	watch->known = true;
	watch->saw = changes;
	watch->waits = false;
	if (pass->count == 0)
	{
		forget_pass(watch);
		return;
	}
	qsort(pass->rests, pass->count, sizeof(Rest), compare_rests);
	leave_held(pass, def->state);
	pass->known = true;
}

static void
note_kept(const QueueBlocked *blocked, void *arg)
{
	Pass	   *pass = arg;
	Rest		wanted = {
		.hash = queue_message_hash_key(VARDATA_ANY(blocked->key), VARSIZE_ANY_EXHDR(blocked->key)),
		.message = blocked->message
	};
	Rest	   *rest = bsearch(&wanted, pass->rests, pass->count, sizeof(Rest), compare_rests);

	if (rest)
		rest->gone = false;
}

/* Keys may have been unblocked since. */
static void
read_again(Pass *pass, QueueDef *def)
{
	uint32		changes = pg_atomic_read_u32(&def->state->blocked_changes);

	if (pass->changes == changes)
		return;
	for (int i = 0; i < pass->count; i++)
		pass->rests[i].gone = true;
	queue_blocked_visit(def, note_kept, pass);
	pass->changes = changes;
}

/* Go on with a pass, or do without if it has not begun well. */
static void
resume_pass(Watch *watch, QueueDef *def)
{
	Pass	   *pass = watch->pass;

	if (!pass->known)
	{
		forget_pass(watch);
		begin_pass(watch, def);
		return;
	}
	/* What the last step did is not so. */
	if (!pass->ended || (TransactionIdIsValid(pass->xid) && !TransactionIdDidCommit(pass->xid)))
		leave_all(pass);
	if (pass->writing)
		pass->writing->skipped = true;
	read_again(pass, def);
}

/* The rests of which nothing is left lose their rows; returns how many there are. */
static int
unblock_finished(Pass *pass, QueueDef *def)
{
	int64	   *messages = palloc(sizeof(int64) * pass->count);
	int			n = 0;

	for (int i = 0; i < pass->storing_count; i++)
		if (!TransactionIdIsInProgress(pass->storing[i].xid))
			pass->storing[i].rest->left = true;
	for (int i = 0; i < pass->count; i++)
		if (!pass->rests[i].left && !pass->rests[i].gone)
			messages[n++] = pass->rests[i].message;
	if (n > 0)
	{
		queue_delta_unblocked(def->state);
		queue_blocked_delete_messages(def, messages, n);
	}
	pfree(messages);
	return n;
}

static void
end_pass(Watch *watch, QueueDef *def)
{
	Pass	   *pass = watch->pass;
	QueueTime	now = queue_clock_now();
	int			finished = unblock_finished(pass, def);

	for (int i = 0; i < pass->count; i++)
		watch->waits |= pass->rests[i].left && !pass->rests[i].gone;
	if (finished > 0 || pass->moved > 0)
		watch->pause = SHORTEST_PAUSE;
	else
		watch->pause = Min(Max(watch->pause * 2, SHORTEST_PAUSE),
						   Max(queue_recheck_interval * INT64CONST(1000), (now - pass->begun) * PASS_SHARE));
	watch->again_at = now + watch->pause;
	/* Should this not commit, the rows are there. */
	watch->known = finished == 0;
	forget_pass(watch);
}

/* ---- a page ---- */

/* Whether a row has the key of a rest. */
static bool
has_key(HeapTuple tuple, TupleDesc desc, const Rest *rest)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, QUEUE_COLUMN_KEY, desc, &isnull);
	struct varlena *key = isnull ? NULL : (struct varlena *) DatumGetPointer(value);

	/* As queue_order_hash() has it. */
	if (key == NULL || VARATT_IS_EXTERNAL(key) || VARATT_IS_COMPRESSED(key))
		return rest->length == 0;
	return (int) VARSIZE_ANY_EXHDR(key) == rest->length && memcmp(VARDATA_ANY(key), rest->key, rest->length) == 0;
}

/* The rest that a row belongs to, or NULL. */
static Rest *
find_rest(Pass *pass, HeapTuple tuple, TupleDesc desc, int64 id)
{
	uint64		hash;
	int			low = 0;
	int			high = pass->count;

	if (id <= pass->lowest || id >= pass->highest)
		return NULL;
	hash = queue_order_hash(tuple, desc);
	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (pass->rests[middle].hash < hash)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < pass->count && pass->rests[low].hash == hash; low++)
	{
		Rest	   *rest = &pass->rests[low];

		if (!rest->gone && id > rest->message && id < rest->to && has_key(tuple, desc, rest))
			return rest;
	}
	return NULL;
}

static void
note_storing(Pass *pass, TransactionId xid, Rest *rest)
{
	for (int i = pass->storing_count - 1; i >= 0; i--)
		if (pass->storing[i].rest == rest && TransactionIdEquals(pass->storing[i].xid, xid))
			return;
	if (pass->storing_count == pass->storing_room)
	{
		int			room = Max(64, pass->storing_room * 2);

		pass->storing = pass->storing ? repalloc_huge(pass->storing, sizeof(Storing) * room)
			: MemoryContextAllocHuge(pass->context, sizeof(Storing) * room);
		pass->storing_room = room;
	}
	pass->storing[pass->storing_count++] = (Storing) {xid, rest};
}

static bool
see_row(HeapTuple tuple, QueueTupleFate fate, void *arg)
{
	RestStep   *step = arg;
	TupleDesc	desc = RelationGetDescr(step->rel);
	int64		id = queue_message_id(tuple, desc);
	QueueMessageHead head;
	Candidate  *candidate;
	Rest	   *rest;

	step->any = true;
	step->within |= id < step->pass->highest;
	if (fate == QUEUE_TUPLE_GONE || (rest = find_rest(step->pass, tuple, desc, id)) == NULL)
		return true;
	switch (fate)
	{
		case QUEUE_TUPLE_GONE:
		case QUEUE_TUPLE_OWN:
			return true;
		case QUEUE_TUPLE_INSERTING:
			note_storing(step->pass, HeapTupleHeaderGetXmin(tuple->t_data), rest);
			return true;
		case QUEUE_TUPLE_DELETING:
			rest->left = true;
			return true;
		case QUEUE_TUPLE_UNSEEN:
		case QUEUE_TUPLE_LIVE:
			break;
	}
	if (rest->skipped)
	{
		rest->left = true;
		return true;
	}
	queue_message_head(&head, tuple, desc);
	candidate = &step->candidates[step->count++];
	candidate->tuple = heap_copytuple(tuple);
	candidate->id = id;
	candidate->rest = rest;
	candidate->timed = !TIMESTAMP_IS_NOBEGIN(head.visible_at);
	candidate->is_copy = head.is_copy;
	candidate->moved = false;
	return true;
}

/*
 * A dead letter of another queue does not die again. Only what was stored again
 * can be one; what its headers have out of line is fetched here, where nothing is
 * held: our snapshot keeps it there.
 */
static void
drop_dead_letters(RestStep *step)
{
	int			kept = 0;

	for (int i = 0; i < step->count; i++)
	{
		QueueMessage message;
		bool		isnull;
		Datum		headers;
		bool		has_died;

		step->pass->writing = step->candidates[i].rest;
		queue_message_deform(&message, step->candidates[i].tuple, RelationGetDescr(step->rel));
		headers = queue_message_get(&message, QUEUE_COLUMN_HEADERS, &isnull);
		if (step->candidates[i].is_copy && !isnull)
			queue_message_set(&message, QUEUE_COLUMN_HEADERS, PointerGetDatum(PG_DETOAST_DATUM_PACKED(headers)));
		has_died = step->candidates[i].is_copy && queue_message_has_died(&message);
		if (!has_died)
			step->candidates[kept++] = step->candidates[i];
	}
	step->count = kept;
	step->pass->writing = NULL;
}

/* Bytes that moving it brings into memory, and onto disk. */
static int64
bytes_of(RestStep *step, const Candidate *candidate)
{
	QueueMessage message;

	queue_message_deform(&message, candidate->tuple, RelationGetDescr(step->rel));
	return (int64) queue_message_size(&message);
}

/* Delete the candidates that nobody holds, on a busy page. False: the step was full before the last. */
static bool
delete_candidates(RestStep *step, QueueVisit *visit)
{
	int			moved = 0;
	int			timed = 0;
	bool		full = false;

	for (int i = 0; i < step->count && !full; i++)
	{
		Candidate  *candidate = &step->candidates[i];
		OffsetNumber offset = ItemPointerGetOffsetNumber(&candidate->tuple->t_self);
		text	   *unique_key; /* the copy has it */

		if (visit->held_as[offset] != QUEUE_HELD_NOT)
		{
			candidate->rest->left = true;
			continue;
		}
		step->pass->writing = candidate->rest;
		switch (queue_segment_delete(step->rel, step->segment, &candidate->tuple->t_self, candidate->id, &unique_key))
		{
			case QUEUE_DELETE_DONE:
				break;
			case QUEUE_DELETE_BUSY:
				candidate->rest->left = true;
				continue;
			case QUEUE_DELETE_GONE:
				continue;
		}
		candidate->moved = true;
		timed += candidate->timed;
		moved++;
		step->bytes += bytes_of(step, candidate);
		full = step->bytes >= BYTES_AT_ONCE && i + 1 < step->count;
	}
	step->pass->writing = NULL;
	queue_delta_dead(step->def->state, step->segment, visit->hold->page, moved, timed);
	step->messages += moved;
	return !full;
}

/* Make dead letters of what was deleted. */
static void
bury(RestStep *step)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "queue dead letter", ALLOCSET_DEFAULT_SIZES);

	for (int i = 0; i < step->count; i++)
	{
		Candidate  *candidate = &step->candidates[i];
		MemoryContext old;
		QueueMessage message;

		if (!candidate->moved)
			continue;
		old = MemoryContextSwitchTo(scratch);
		step->pass->writing = candidate->rest;
		queue_message_deform(&message, candidate->tuple, RelationGetDescr(step->rel));
		queue_message_detoast(&message);
		queue_failure_bury_rest(step->def, &message, candidate->id, candidate->rest->message);
		step->pass->writing = NULL;
		step->pass->moved++;
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
	}
	MemoryContextDelete(scratch);
}

static PageResult
move_candidates(RestStep *step, BlockNumber page)
{
	QueueVisit *visit = palloc(sizeof(QueueVisit));
	QueueMapHold hold;
	bool		whole;

	queue_segment_lock_toast(step->rel);
	/* Makes room in the transaction's lists before anything is deleted. */
	queue_delta_dead(step->def->state, step->segment, page, 0, 0);
	if (queue_map_take(step->segment, page, QUEUE_TIME_NEVER, &hold) != QUEUE_MAP_TAKEN)
		return PAGE_BUSY;
	queue_visit_begin(visit, step->segment, step->rel);
	queue_visit_slots(visit, &hold);
	whole = delete_candidates(step, visit);
	/* What is left on it is due when it was before. */
	queue_map_put(&hold, hold.was_due);
	bury(step);
	pfree(visit);
	return whole ? PAGE_DONE : PAGE_AGAIN;
}

static PageResult
look_at_page(RestStep *step, BlockNumber page)
{
	PageResult	result = PAGE_DONE;

	step->any = step->within = false;
	step->count = 0;
	queue_segment_visit(step->rel, page, NULL, true, see_row, step);
	/* Ids follow places, but for copies. */
	if (step->any && !step->within && !step->segment->copies)
		return PAGE_BEYOND;
	drop_dead_letters(step);
	if (step->count > 0)
		result = move_candidates(step, page);
	for (int i = 0; i < step->count; i++)
		heap_freetuple(step->candidates[i].tuple);
	return result;
}

/* ---- the walk ---- */

static bool
is_full(const RestStep *step)
{
	return step->pages >= PAGES_AT_ONCE || step->messages >= MESSAGES_AT_ONCE || step->bytes >= BYTES_AT_ONCE;
}

/*
 * Open a segment for deleting, without waiting for anybody. Its locks last to the
 * end of the transaction. NULL: nothing is in it, or it cannot be had.
 */
static Relation
open_segment(RestStep *step, QueueSegment *segment, uint32 generation)
{
	Oid			relid = segment->relid;
	Relation	rel;

	if (!OidIsValid(relid) || pg_atomic_read_u32(&segment->generation) != generation)
		return NULL;
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
	{
		if (pg_atomic_read_u32(&segment->emptying) != generation)
			leave_all(step->pass);
		return NULL;
	}
	rel = queue_segment_open(segment, generation, RowExclusiveLock);
	if (rel)
		queue_ring_refresh(step->def->state, segment, rel);
	return rel;
}

/* Look at a segment from the given page on. False: the pass goes on there, later. */
static bool
walk_segment(RestStep *step, QueueSegment *segment, uint32 generation, BlockNumber *page)
{
	PageResult	result = PAGE_DONE;

	step->segment = segment;
	step->rel = open_segment(step, segment, generation);
	if (step->rel == NULL)
		return true;
	while (!is_full(step) && *page < pg_atomic_read_u32(&segment->pages))
	{
		CHECK_FOR_INTERRUPTS();
		step->pages++;
		result = look_at_page(step, *page);
		if (result != PAGE_DONE)
			break;
		(*page)++;
	}
	if (result == PAGE_BUSY)
		queue_rest_put_off(step->def->state, BUSY_PAUSE);
	relation_close(step->rel, NoLock);
	return result == PAGE_BEYOND || (result == PAGE_DONE && *page >= pg_atomic_read_u32(&segment->pages));
}

/* Go on where the pass is. Returns whether it is at its end. */
static bool
walk(RestStep *step)
{
	Pass	   *pass = step->pass;
	QueueSegment *segment;
	uint32		generation;

	for (; pass->part < (int) lengthof(parts); pass->part++)
	{
		uint64		position = pass->done;

		while (queue_ring_next_in(step->def->state, parts[pass->part], &position, QUEUE_TIME_NEVER,
								  &segment, &generation))
		{
			if (pass->current != position)
				pass->page = 0;
			pass->current = position;
			if (!walk_segment(step, segment, generation, &pass->page))
				return false;
			pass->done = position;
		}
		pass->done = pass->current = 0;
	}
	return true;
}

/*
 * Take a step, in the worker's transaction. Whoever calls has put the next one off
 * before, in case of an error; if all goes well there is nothing to wait for.
 */
void
queue_rest_step(QueueDef *def)
{
	Watch	   *watch = watch_of(def->state);
	RestStep   *step;
	Pass	   *pass;

	if (!queue_catalog_is_whole(def) || !queue_blocked_try_lock(def) || !queue_failure_can_bury(def))
		return;
	queue_ring_load(def->state);
	queue_rest_put_off(def->state, 0);
	if (watch->pass)
		resume_pass(watch, def);
	else
		begin_pass(watch, def);
	if ((pass = watch->pass) == NULL)
		return;
	pass->ended = false;
	pass->writing = NULL;
	pass->xid = InvalidTransactionId;
	step = palloc0(sizeof(RestStep));
	step->def = def;
	step->pass = pass;
	if (walk(step))
		end_pass(watch, def);
	else
	{
		pass->ended = true;
		pass->xid = GetTopTransactionIdIfAny();
	}
	pfree(step);
}
