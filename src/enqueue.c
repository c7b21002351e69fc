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

#include "access/htup_details.h"
#include "access/table.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "enqueue.h"
#include "error.h"
#include "guc.h"
#include "pending.h"
#include "ring.h"
#include "segment.h"
#include "wakeup.h"

/* Rows a heap_multi_insert() gets at once. */
#define INSERT_AT_ONCE 1000

int64
queue_enqueue_next_id(void)
{
	return nextval_internal(queue_catalog_message_sequence(), false);
}

/* Where messages go that are stored together. */
typedef struct Place
{
	bool		active;			/* to the end of the queue */
	QueueBucket bucket;			/* else: with those due about then */
} Place;

/* What of some messages is still to be stored. */
typedef struct Store
{
	QueueDef   *def;
	bool		again;			/* the messages were in the queue before */
	int64		size;			/* of a segment, bytes */
	TimestampTz wall;
	const QueueMessage *messages;
	int			count;			/* of messages, and room in these: */
	bool	   *stored;
	HeapTuple  *tuples;
	int		   *chosen;			/* the messages of the tuples */
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
	Place		place = {.active = TIMESTAMP_IS_NOBEGIN(visible_at) && !store->again};

	if (!place.active)
		place.bucket = queue_ring_bucket(visible_at, store->wall);
	return place;
}

static bool
same_place(const Place *a, const Place *b)
{
	return a->active == b->active &&
		(a->active || (a->bucket.begin == b->bucket.begin && a->bucket.end == b->bucket.end));
}

static Relation
open_place(Store *store, const Place *place, QueueSegment **segment)
{
	QueueState *state = store->def->state;
	Relation	rel = NULL;
	bool		lacking = false;

	if (!place->active)
		rel = queue_ring_open_timed(state, store->size, &place->bucket, segment, &lacking);
	if (rel == NULL)
		rel = queue_ring_open_active(state, store->size, segment, &lacking);
	/* Now, not at commit: a large transaction is to go on in the next segment. */
	if (lacking && queue_state_ask(state, QUEUE_ASK_RESERVE))
		queue_wakeup_worker(MyDatabaseId);
	return rel;
}

/* Store what goes to the same place as the first one. */
static void
store_place(Store *store, int first)
{
	Place		place = place_of(store, &store->messages[first]);
	QueueState *state = store->def->state;
	QueueSegment *segment;
	Relation	rel = open_place(store, &place, &segment);
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
		store->chosen[n++] = i;
		store->stored[i] = true;
	}
	queue_segment_insert(rel, segment, store->tuples, n);
	for (int i = 0; i < n; i++)
	{
		queue_pending_stored(state, segment, ItemPointerGetBlockNumber(&store->tuples[i]->t_self),
							 due_of(&store->messages[store->chosen[i]]), 1);
		heap_freetuple(store->tuples[i]);
	}
	table_close(rel, NoLock);
}

/*
 * Store complete messages, which were in this queue before (again) or not.
 * Neither pause nor limits are looked at: that is for new ones. Keeps a
 * RowExclusiveLock on the segments.
 */
void
queue_enqueue_store(QueueDef *def, const QueueMessage *messages, int n, bool again)
{
	int			room = Min(n, INSERT_AT_ONCE);
	Store		store = {
		.def = def,
		.again = again,
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

/* Store new messages, to which ids were given. */
void
queue_enqueue(QueueDef *def, QueueMessage *messages, int n)
{
	if (def->paused_enqueue)
		ereport(ERROR,
				(errcode(ERRCODE_QUEUE_PAUSED),
				 errmsg("queue \"%s\" is paused for enqueue", def->name),
				 errhint("queue.resume() ends the pause.")));
	for (int i = 0; i < n; i++)
		queue_message_check(&messages[i]);
	queue_pending_enqueued(def->state, n);
	queue_enqueue_store(def, messages, n, false);
}
