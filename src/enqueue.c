/*
 * enqueue.c
 *	  Stores messages: new ones, and copies of old ones with another fate.
 *
 * A message is one row in the active segment, or in one of its own kind if it
 * waits for its time or was stored before; nothing else is written. The page is
 * remembered, and the commit callback makes it due. A rollback leaves a dead row
 * and no trace in memory.
 */
#include "postgres.h"

#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/timestamp.h"

#include "enqueue.h"
#include "error.h"
#include "guc.h"
#include "delta.h"
#include "place.h"
#include "segment.h"
#include "wakeup.h"

/* Rows a heap_multi_insert() gets at once. */
#define INSERT_AT_ONCE 1000

static void
give_id(QueueMessage *message, Oid sequence)
{
	queue_message_set(message, QUEUE_COLUMN_ID, Int64GetDatum(nextval_internal(sequence, false)));
}

/* Where messages go that are stored together. */
typedef struct Place
{
	bool		active;			/* to the end of the queue */
	bool		copies;			/* an ordered queue's, that come back */
	QueueBucket bucket;			/* else: with those due about then, or of the same priority */
} Place;

/* What of some messages is still to be stored. */
typedef struct Store
{
	QueueDef   *def;
	bool		again;			/* the messages were in the queue before */
	int64		size;			/* of a segment, bytes */
	TimestampTz wall;
	const QueueMessage *messages;
	QueueMessage *fresh;		/* the same, if they get their ids when they are stored */
	int			count;			/* of messages, and room in these: */
	QueuePosition *copied_to;	/* for a single message; NULL: nobody asks */
	bool	   *stored;
	HeapTuple  *tuples;
	int		   *chosen;			/* the messages of the tuples */
	bool		lacking;		/* the queue should have one segment more */
} Store;

/* DT_NOBEGIN: at once. */
static TimestampTz
visible_at_of(const QueueMessage *message)
{
	bool		isnull;
	Datum		visible_at = queue_message_get(message, QUEUE_COLUMN_VISIBLE_AT, &isnull);

	return isnull ? DT_NOBEGIN : DatumGetTimestampTz(visible_at);
}

/* 0: it has no time of delivery. One long past, of a message that is moved, is not 0. */
static QueueTime
due_of(const QueueMessage *message)
{
	TimestampTz visible_at = visible_at_of(message);

	return TIMESTAMP_IS_NOBEGIN(visible_at) ? 0 : Max(queue_clock_from_wall(visible_at), 1);
}

/* What was in the queue before does not begin again at its end. */
static Place
place_of(const Store *store, const QueueMessage *message)
{
	TimestampTz visible_at = visible_at_of(message);
	bool		at_once = TIMESTAMP_IS_NOBEGIN(visible_at) && !store->again;
	int			priority = store->def->options.ordered ? QUEUE_PRIORITY_DEFAULT : queue_message_priority(message);
	Place		place = {
		.active = at_once && priority == QUEUE_PRIORITY_DEFAULT,
		.copies = store->again && store->def->options.ordered,
	};

	if (!place.active && !place.copies)
		place.bucket = at_once ? queue_bucket_at_once(priority)
			: queue_ring_bucket(visible_at, store->wall, priority);
	return place;
}

static bool
same_place(const Place *a, const Place *b)
{
	return a->active == b->active && a->copies == b->copies &&
		(a->active || a->copies || queue_bucket_same(&a->bucket, &b->bucket));
}

static Relation
open_place(Store *store, const Place *place, QueueSegment **segment)
{
	QueueState *state = store->def->state;
	Relation	rel = NULL;
	bool		lacking = false;

	if (place->copies)
		rel = queue_place_open_copies(state, store->size, segment, &lacking);
	else if (!place->active)
		rel = queue_place_open_bucket(state, store->size, &place->bucket, segment, &lacking);
	if (rel == NULL && !place->active && !place->copies && place->bucket.priority != QUEUE_PRIORITY_DEFAULT)
	{
		QueueBucket bucket = queue_bucket_at_once(place->bucket.priority);
		bool		lacks_timed = lacking;

		rel = queue_place_open_bucket(state, store->size, &bucket, segment, &lacking);
		lacking |= lacks_timed;
	}
	if (rel == NULL)
		rel = queue_place_open_active(state, store->size, segment, &lacking);
	store->lacking |= lacking;
	return rel;
}

/* The ids of rows follow their places, so they are given under the tail lock. */
static void
give_ids(Store *store, int n, Oid sequence)
{
	for (int i = 0; i < n; i++)
	{
		QueueMessage *message = &store->fresh[store->chosen[i]];
		bool		isnull;

		give_id(message, sequence);
		queue_message_set_tuple_id(store->tuples[i],
								   DatumGetInt64(queue_message_get(message, QUEUE_COLUMN_ID, &isnull)));
	}
}

/*
 * Put new rows of an ordered queue at the end of a segment: what is stored later is
 * behind what was stored before, in this segment or a later one, and has a higher
 * id. False: the segment takes no more.
 */
static bool
append(Store *store, Relation rel, QueueSegment *segment, int n)
{
	LWLock	   *lock = queue_segment_tail_lock(queue_state_index(store->def->state));
	Oid			sequence = queue_catalog_message_sequence();
	bool		taken;

	/* Nothing else is to be waited for under the lock. */
	for (int i = 0; i < n; i++)
	{
		if (store->tuples[i]->t_len <= TOAST_TUPLE_THRESHOLD)
			continue;
		queue_segment_lock_toast(rel);
		break;
	}
	LockRelationOid(sequence, RowExclusiveLock);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	taken = segment->role == QUEUE_SEGMENT_ACTIVE || segment->role == QUEUE_SEGMENT_TIMED;
	if (taken)
	{
		give_ids(store, n, sequence);
		queue_segment_insert(rel, segment, store->tuples, n, true);
	}
	LWLockRelease(lock);
	return taken;
}

/*
 * An id of an ordered queue that is above those of all rows in place, committed or
 * not, and below those of all that are to come: nobody is between id and row.
 */
int64
queue_enqueue_draw_bound(QueueDef *def)
{
	LWLock	   *lock = queue_segment_tail_lock(queue_state_index(def->state));
	Oid			sequence = queue_catalog_message_sequence();
	int64		bound;

	LockRelationOid(sequence, RowExclusiveLock);
	LWLockAcquire(lock, LW_SHARED);
	bound = nextval_internal(sequence, false);
	LWLockRelease(lock);
	return bound;
}

/* Under the lock of the end no more than about so many bytes are stored at once. */
#define APPEND_AT_ONCE (64 * 1024)

/* Store what goes to the same place as the first one. */
static void
store_place(Store *store, int first)
{
	Place		place = place_of(store, &store->messages[first]);
	QueueState *state = store->def->state;
	bool		in_order = store->def->options.ordered && !place.copies;
	QueueSegment *segment;
	Relation	rel = open_place(store, &place, &segment);
	Size		bytes = 0;
	int			n = 0;

	for (int i = first; i < store->count; i++)
	{
		Place		other;

		if (store->stored[i])
			continue;
		other = place_of(store, &store->messages[i]);
		if (!same_place(&place, &other))
			continue;
		store->tuples[n] = queue_message_form(&store->messages[i], RelationGetDescr(rel));
		bytes += store->tuples[n]->t_len;
		store->chosen[n++] = i;
		store->stored[i] = true;
		if (in_order && bytes >= APPEND_AT_ONCE)
			break;
	}
	if (!in_order)
		queue_segment_insert(rel, segment, store->tuples, n, false);
	else
		while (!append(store, rel, segment, n))
		{
			table_close(rel, NoLock);
			rel = open_place(store, &place, &segment);
		}
	for (int i = 0; i < n; i++)
	{
		if (store->copied_to)
			*store->copied_to = QUEUE_POSITION(segment->rank, ItemPointerGetBlockNumber(&store->tuples[i]->t_self));
		if (!store->def->options.ordered)
			queue_ring_note_priority(state, segment, ItemPointerGetBlockNumber(&store->tuples[i]->t_self),
									 queue_message_priority(&store->messages[store->chosen[i]]));
		queue_delta_stored(state, segment, ItemPointerGetBlockNumber(&store->tuples[i]->t_self),
							 due_of(&store->messages[store->chosen[i]]), 1);
		heap_freetuple(store->tuples[i]);
	}
	table_close(rel, NoLock);
	/*
	 * Now, not at commit: a large transaction is to go on in the next segment. Not
	 * before: the worker makes none for a queue that looks unused.
	 */
	if (store->lacking && queue_state_ask(state, QUEUE_ASK_RESERVE))
		queue_wakeup_worker(MyDatabaseId);
	store->lacking = false;
}

static void
store(QueueDef *def, const QueueMessage *messages, QueueMessage *fresh, int n, bool again, QueuePosition *copied_to)
{
	int			room = Min(n, INSERT_AT_ONCE);
	Store		store = {
		.def = def,
		.again = again,
		.copied_to = copied_to,
		.size = def->options.segment_size ? def->options.segment_size
		: (int64) queue_segment_size * 1024,
		.wall = queue_clock_wall(),
		.stored = palloc(sizeof(bool) * room),
		.tuples = palloc(sizeof(HeapTuple) * room),
		.chosen = palloc(sizeof(int) * room),
	};

	queue_ring_load(def->state);
	for (int done = 0; done < n; done += store.count)
	{
		store.messages = messages + done;
		store.fresh = fresh ? fresh + done : NULL;
		store.count = Min(n - done, room);
		memset(store.stored, false, store.count);
		for (int i = 0; i < store.count; i++)
			if (!store.stored[i])
				store_place(&store, i);
	}
	pfree(store.stored);
	pfree(store.tuples);
	pfree(store.chosen);
}

/*
 * Store a message of another queue, which has its id. Neither pause nor limits are
 * looked at. Keeps a RowExclusiveLock on the segment.
 */
void
queue_enqueue_store(QueueDef *def, QueueMessage *message)
{
	/* At the end of an ordered queue its id would be too low. */
	if (def->options.ordered)
		queue_enqueue_again(def, message);
	else
		store(def, message, NULL, 1, false, NULL);
}

/*
 * The same for one that was in this queue before, whose row the transaction has
 * deleted. Returns where it is now.
 */
QueuePosition
queue_enqueue_again(QueueDef *def, QueueMessage *message)
{
	QueuePosition copied_to;
	bool		isnull;

	/* In an ordered queue this tells a copy. */
	queue_message_get(message, QUEUE_COLUMN_FAILURES, &isnull);
	if (isnull && def->options.ordered)
		queue_message_set(message, QUEUE_COLUMN_FAILURES, Int32GetDatum(0));
	store(def, message, NULL, 1, true, &copied_to);
	return copied_to;
}

/* Whether a queue takes these messages. */
void
queue_enqueue_check(QueueDef *def, const QueueMessage *messages, int n)
{
	if (def->paused_enqueue)
		ereport(ERROR,
				(errcode(ERRCODE_QUEUE_PAUSED),
				 errmsg("queue \"%s\" is paused for enqueue", def->name),
				 errhint("queue.resume() ends the pause.")));
	for (int i = 0; i < n; i++)
	{
		queue_message_check(&messages[i]);
		if (def->options.ordered)
			queue_message_check_key(&messages[i]);
	}
}

/* Ids of an ordered queue are given when the messages are stored, others before. */
void
queue_enqueue_give_ids(QueueDef *def, QueueMessage *messages, int n)
{
	Oid			sequence;

	if (def->options.ordered)
		return;
	sequence = queue_catalog_message_sequence();
	for (int i = 0; i < n; i++)
		give_id(&messages[i], sequence);
}

/* Store new messages that were checked, and have their ids. */
void
queue_enqueue_checked(QueueDef *def, QueueMessage *messages, int n)
{
	queue_delta_enqueued(def->state, n);
	if (def->options.ordered)
	{
		for (int i = 0; i < n; i++)
		{
			/* Keys are compared as they are stored, and nothing is fetched under the tail lock. */
			queue_message_detoast(&messages[i]);
			queue_message_set(&messages[i], QUEUE_COLUMN_ID, Int64GetDatum(0));
		}
		store(def, messages, messages, n, false, NULL);
	}
	else
		store(def, messages, NULL, n, false, NULL);
}

/* Store new messages, which get their ids. */
void
queue_enqueue(QueueDef *def, QueueMessage *messages, int n)
{
	queue_enqueue_check(def, messages, n);
	queue_enqueue_give_ids(def, messages, n);
	queue_enqueue_checked(def, messages, n);
}
