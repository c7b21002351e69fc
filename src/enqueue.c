/*
 * enqueue.c
 *	  Stores messages: new ones, and copies of old ones with another fate.
 *
 * A message is one row in the active segment; nothing else is written. The
 * page is remembered, and the commit callback makes it due. A rollback leaves
 * a dead row and no trace in memory.
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

/* Rows a heap_multi_insert() gets at once. */
#define INSERT_AT_ONCE 1000

int64
queue_enqueue_next_id(void)
{
	return nextval_internal(queue_catalog_message_sequence(), false);
}

static QueueTime
due_of(const QueueMessage *message)
{
	bool		isnull;
	Datum		visible_at = queue_message_get(message, QUEUE_COLUMN_VISIBLE_AT, &isnull);

	return isnull ? 0 : queue_clock_from_wall(DatumGetTimestampTz(visible_at));
}

/*
 * Store complete messages. Neither pause nor limits are looked at: that is
 * for new ones. Keeps a RowExclusiveLock on the segment.
 */
void
queue_enqueue_store(QueueDef *def, const QueueMessage *messages, int n)
{
	int64		size = def->options.segment_size ? def->options.segment_size
		: (int64) queue_segment_size * 1024;
	HeapTuple  *tuples = palloc(sizeof(HeapTuple) * Min(n, INSERT_AT_ONCE));

	queue_ring_load(def->state);
	for (int done = 0; done < n;)
	{
		int			chunk = Min(n - done, INSERT_AT_ONCE);
		QueueSegment *segment;
		Relation	rel = queue_ring_open_active(def->state, size, &segment);

		for (int i = 0; i < chunk; i++)
			tuples[i] = queue_message_form(&messages[done + i], RelationGetDescr(rel));
		queue_segment_insert(rel, segment, tuples, chunk);
		for (int i = 0; i < chunk; i++)
		{
			queue_pending_stored(def->state, segment, ItemPointerGetBlockNumber(&tuples[i]->t_self),
								 due_of(&messages[done + i]), 1);
			heap_freetuple(tuples[i]);
		}
		table_close(rel, NoLock);
		done += chunk;
	}
	pfree(tuples);
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
	queue_enqueue_store(def, messages, n);
}
