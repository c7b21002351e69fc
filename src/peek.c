/*
 * peek.c
 *	  SELECT from a queue's view: streams messages, changes nothing.
 *
 * One value a call, page by page, so that LIMIT 10 on a large queue reads a
 * page. Only what the snapshot sees is shown. On a standby there is no map and
 * no slot; segments are then read in the order of their numbers, and nothing
 * is shown as leased.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/predicate.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "acl.h"
#include "catalog.h"
#include "error.h"
#include "message.h"
#include "peek.h"
#include "ring.h"
#include "segment.h"
#include "slot.h"

#define PEEK_COLUMNS 14

typedef struct PeekSegment
{
	Oid			relid;
	uint32		segment;		/* QUEUE_NONE on a standby */
	uint32		generation;
} PeekSegment;

typedef struct PeekRow
{
	HeapTuple	tuple;
} PeekRow;

typedef struct Peek
{
	int32		queue;
	List	   *segments;		/* of PeekSegment */
	int			next_segment;
	PeekSegment *current;
	TupleDesc	desc;			/* of a segment */
	BlockNumber pages;
	BlockNumber page;			/* next to read */
	MemoryContext page_context; /* rows of one page */
	PeekRow		rows[MaxHeapTuplesPerPage];
	int			row_count;
	int			next_row;
} Peek;

/*
 * Where the row came from that peek returned last in this backend. DELETE from
 * the view asks for it row by row, and would otherwise search each time.
 */
static struct
{
	int32		queue;
	int64		id;
	QueuePlace	place;
}			last;

bool
queue_peek_last_place(int32 queue, int64 id, QueuePlace *place)
{
	if (last.queue != queue || last.id != id || last.place.segment == QUEUE_NONE)
		return false;
	*place = last.place;
	return true;
}

static List *
list_segments(QueueDef *def)
{
	List	   *result = NIL;
	PeekSegment *item;

	if (def->state)
	{
		uint64		position = 0;
		QueueSegment *segment;
		uint32		generation;

		queue_ring_load(def->state);
		while (queue_ring_next(def->state, &position, QUEUE_TIME_NEVER, &segment, &generation))
		{
			item = palloc(sizeof(PeekSegment));
			item->relid = segment->relid;
			item->segment = queue_segment_index(segment);
			item->generation = generation;
			result = lappend(result, item);
		}
	}
	else
	{
		ListCell   *cell;

		foreach(cell, queue_catalog_segments(def->id))
		{
			item = palloc(sizeof(PeekSegment));
			item->relid = ((QueueCatalogSegment *) lfirst(cell))->relid;
			item->segment = QUEUE_NONE;
			item->generation = 0;
			result = lappend(result, item);
		}
	}
	return result;
}

static bool
collect_row(HeapTuple tuple, QueueTupleFate fate, void *arg)
{
	Peek	   *peek = arg;

	peek->rows[peek->row_count++].tuple = heap_copytuple(tuple);
	return true;
}

/* Read pages until one has rows for the snapshot. False at the end. */
static bool
fill_rows(Peek *peek)
{
	peek->row_count = peek->next_row = 0;
	MemoryContextReset(peek->page_context);
	while (peek->row_count == 0)
	{
		Relation	rel;
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (peek->current == NULL || peek->page >= peek->pages)
		{
			if (peek->next_segment >= list_length(peek->segments))
				return false;
			peek->current = list_nth(peek->segments, peek->next_segment++);
			peek->page = 0;
			peek->pages = 0;
		}
		/* Kept open for one page at a time: a stopped peek leaves nothing open. */
		rel = queue_segment_open_by_oid(peek->current->relid);
		if (rel == NULL)
		{
			peek->pages = 0;
			continue;
		}
		if (peek->page == 0)
		{
			/* What is not there was read too, for who is SERIALIZABLE. */
			PredicateLockRelation(rel, GetActiveSnapshot());
			peek->pages = RelationGetNumberOfBlocks(rel);
		}
		if (peek->page < peek->pages && peek->page < RelationGetNumberOfBlocks(rel))
		{
			old = MemoryContextSwitchTo(peek->page_context);
			peek->desc = CreateTupleDescCopy(RelationGetDescr(rel));
			queue_segment_visit_seen(rel, peek->page, GetActiveSnapshot(), collect_row, peek);
			MemoryContextSwitchTo(old);
		}
		peek->page++;
		relation_close(rel, NoLock);
	}
	return true;
}

/* What the slot of a row says, if it has one. */
typedef struct SlotView
{
	bool		found;
	bool		leased;
	bool		failed;
	int			failures;
	TimestampTz next;
	TimestampTz deadline;
	Oid			owner;
} SlotView;

static void
see_slot(const Peek *peek, ItemPointer tid, SlotView *view)
{
	uint32		numbers[MaxHeapTuplesPerPage];
	uint32		n;

	memset(view, 0, sizeof(*view));
	if (peek->current->segment == QUEUE_NONE)
		return;
	n = queue_slot_on_page(queue_segment_at(peek->current->segment),
						   ItemPointerGetBlockNumber(tid), numbers, lengthof(numbers));
	for (uint32 i = 0; i < n && !view->found; i++)
	{
		QueueSlot  *slot = queue_slot(numbers[i]);
		uint64		word = queue_slot_lock(slot);
		QueueSlotState state = QUEUE_SLOT_STATE(word);

		/* What is only being moved is what its row says. */
		if (state != QUEUE_SLOT_FREE && !slot->moving && slot->segment == peek->current->segment &&
			slot->generation == peek->current->generation && ItemPointerEquals(&slot->tid, tid))
		{
			view->found = true;
			view->leased = state == QUEUE_SLOT_LEASED || state == QUEUE_SLOT_SETTLING;
			view->failed = state == QUEUE_SLOT_COOLING && !(word & QUEUE_SLOT_RELEASED);
			view->failures = slot->failures + (view->failed && !(word & QUEUE_SLOT_EXPIRED) ? 1 : 0);
			view->next = queue_clock_to_wall(slot->next);
			view->deadline = queue_clock_to_wall(slot->deadline);
			view->owner = slot->owner;
		}
		queue_slot_unlock(slot, word);
	}
}

static const char *
state_name(const SlotView *slot, TimestampTz visible_at, int failures, TimestampTz now)
{
	if (slot->leased)
		return "leased";
	if (visible_at > now)
		return failures > 0 ? "failed" : "delayed";
	return slot->failed ? "failed" : "ready";
}

static Datum
make_row(Peek *peek, HeapTuple tuple, TupleDesc result)
{
	Datum		values[PEEK_COLUMNS];
	bool		nulls[PEEK_COLUMNS] = {false};
	QueueMessage message;
	QueueMessageHead head;
	SlotView	slot;
	TimestampTz visible_at;
	int			failures;

	queue_message_deform(&message, tuple, peek->desc);
	queue_message_head(&head, tuple, peek->desc);
	see_slot(peek, &tuple->t_self, &slot);
	failures = slot.found ? slot.failures : head.failures;
	visible_at = slot.found && !slot.leased ? slot.next : head.visible_at;
	values[0] = Int64GetDatum(head.id);
	values[1] = CStringGetTextDatum(state_name(&slot, visible_at, failures, queue_clock_wall()));
	values[2] = TimestampTzGetDatum(head.enqueued_at);
	values[3] = TimestampTzGetDatum(TIMESTAMP_IS_NOBEGIN(visible_at) ? head.enqueued_at : visible_at);
	values[4] = queue_message_get(&message, QUEUE_COLUMN_EXPIRES_AT, &nulls[4]);
	values[5] = queue_message_get(&message, QUEUE_COLUMN_KEY, &nulls[5]);
	values[6] = queue_message_get(&message, QUEUE_COLUMN_PRIORITY, &nulls[6]);
	values[7] = queue_message_get(&message, QUEUE_COLUMN_HEADERS, &nulls[7]);
	values[8] = queue_message_get(&message, QUEUE_COLUMN_PAYLOAD, &nulls[8]);
	values[9] = queue_message_get(&message, QUEUE_COLUMN_BODY, &nulls[9]);
	values[10] = Int32GetDatum(failures);
	values[11] = queue_message_get(&message, QUEUE_COLUMN_ERROR, &nulls[11]);
	nulls[12] = !slot.leased;
	values[12] = TimestampTzGetDatum(slot.deadline);
	nulls[13] = !slot.leased || !OidIsValid(slot.owner);
	values[13] = ObjectIdGetDatum(slot.owner);
	last.queue = peek->queue;
	last.id = head.id;
	last.place.segment = peek->current->segment;
	last.place.generation = peek->current->generation;
	last.place.page = ItemPointerGetBlockNumber(&tuple->t_self);
	/* A row type cannot hold values that are stored out of line elsewhere. */
	return HeapTupleGetDatum(heap_form_tuple(result, values, nulls));
}

static Peek *
begin(int32 id, MemoryContext context)
{
	Peek	   *peek = MemoryContextAllocZero(context, sizeof(Peek));
	QueueDef   *def = queue_catalog_get_by_id(id);

	if (def == NULL)
		queue_error_no_queue(psprintf("%d", id));
	queue_acl_check(def->view, def->name, QUEUE_ACL_PEEK);
	peek->queue = id;
	peek->page_context = AllocSetContextCreate(context, "queue peek", ALLOCSET_DEFAULT_SIZES);
	peek->segments = list_segments(def);
	return peek;
}

/* queue._peek(queue id): the rows behind the view of a queue. */
PG_FUNCTION_INFO_V1(queue_peek);
Datum
queue_peek(PG_FUNCTION_ARGS)
{
	FuncCallContext *call;
	Peek	   *peek;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;

		call = SRF_FIRSTCALL_INIT();
		old = MemoryContextSwitchTo(call->multi_call_memory_ctx);
		if (PG_ARGISNULL(0))
			queue_error_null("queue");
		queue_error_need_preload();
		if (get_call_result_type(fcinfo, NULL, &call->tuple_desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		BlessTupleDesc(call->tuple_desc);
		call->user_fctx = begin(PG_GETARG_INT32(0), call->multi_call_memory_ctx);
		MemoryContextSwitchTo(old);
	}
	call = SRF_PERCALL_SETUP();
	peek = call->user_fctx;
	if (peek->next_row >= peek->row_count && !fill_rows(peek))
		SRF_RETURN_DONE(call);
	SRF_RETURN_NEXT(call, make_row(peek, peek->rows[peek->next_row++].tuple, call->tuple_desc));
}
