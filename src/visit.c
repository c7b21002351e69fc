/*
 * visit.c
 *	  What claimers, sweepers and deleters have in common on a busy page.
 *
 * The slots that hang on the page are read before its tuples. Only the holder
 * of busy can add one; one that goes away meanwhile settles its message first,
 * which the tuple's visibility then tells.
 *
 * The page's next due is the earliest of everything that is left on it: each
 * tuple passed over says when it is worth a look again. "Settling" says never,
 * since its end lowers the page.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "storage/procarray.h"

#include "guc.h"
#include "lease.h"
#include "message.h"
#include "visit.h"

/* Between two looks at rows of a transaction that is known to tell of its end, us. */
#define RARE_RECHECK INT64CONST(30000000)

void
queue_visit_begin(QueueVisit *visit, QueueSegment *segment, Relation rel)
{
	visit->segment = segment;
	visit->rel = rel;
	visit->hold = NULL;
	visit->now = queue_clock_now();
	visit->wall = queue_clock_wall();
}

static QueueTime
recheck_time(const QueueVisit *visit)
{
	return visit->now + queue_recheck_interval * INT64CONST(1000);
}

/*
 * Whether a callback will lower the page when a transaction in progress ends.
 * It will in a process that runs it; PREPARE lowers the page too, and from
 * then on nobody does. A subtransaction's id is no process's: not known.
 */
static bool
will_tell(QueueVisit *visit, TransactionId xid)
{
	if (max_prepared_xacts == 0)
		return true;
	if (!TransactionIdEquals(visit->asked, xid))
	{
		visit->asked = xid;
		visit->tells = BackendXidGetPid(xid) != 0;
	}
	return visit->tells;
}

/*
 * When to look again at a row in progress. Should it have come by a way that
 * we know nothing of, no callback lowers its page; so a look is taken in any
 * case, rarely, and at each page at another time.
 */
static QueueTime
in_progress_time(QueueVisit *visit, TransactionId xid)
{
	if (!will_tell(visit, xid))
		return recheck_time(visit);
	return visit->now + RARE_RECHECK * (100 + visit->hold->page % 100) / 100;
}

static QueueHeldAs
judge_slot(QueueVisit *visit, QueueSlot *slot, uint64 word)
{
	switch (QUEUE_SLOT_STATE(word))
	{
		case QUEUE_SLOT_LEASED:
			queue_visit_due(visit, slot->deadline);
			return QUEUE_HELD_LEASED;
		case QUEUE_SLOT_SETTLING:
			if (word & QUEUE_SLOT_PREPARED)
				queue_visit_due(visit, recheck_time(visit));
			return QUEUE_HELD_SETTLING;
		case QUEUE_SLOT_COOLING:
			if (word & QUEUE_SLOT_DEAD)
				return QUEUE_HELD_DEAD;
			if (slot->next <= visit->now)
				return QUEUE_HELD_CLAIMABLE;
			queue_visit_due(visit, slot->next);
			return QUEUE_HELD_COOLING;
		case QUEUE_SLOT_FREE:
			break;
	}
	return QUEUE_HELD_NOT;
}

/* Sort out one slot; by the time we look it may be free, or hang elsewhere. */
static void
look_at_slot(QueueVisit *visit, uint32 number)
{
	QueueSlot  *slot = queue_slot(number);
	OffsetNumber offset;
	uint64		word;

	if (pg_atomic_read_u64(&slot->word) & QUEUE_SLOT_PREPARED)
		queue_lease_resolve_prepared(slot);
	word = queue_slot_lock(slot);
	if (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_LEASED && slot->deadline <= visit->now)
	{
		queue_lease_fail(slot, word, QUEUE_FAILURE_DEADLINE);
		word = queue_slot_lock(slot);
	}
	offset = ItemPointerGetOffsetNumber(&slot->tid);
	if (QUEUE_SLOT_STATE(word) != QUEUE_SLOT_FREE &&
		slot->segment == queue_segment_index(visit->segment) &&
		slot->generation == pg_atomic_read_u32(&visit->segment->generation) &&
		ItemPointerGetBlockNumber(&slot->tid) == visit->hold->page &&
		offset <= MaxHeapTuplesPerPage)
	{
		visit->held_by[offset] = number;
		visit->held_id[offset] = slot->message_id;
		visit->held_as[offset] = judge_slot(visit, slot, word);
	}
	queue_slot_unlock(slot, word);
}

/* Begin with a page that is held: read its slots. */
void
queue_visit_slots(QueueVisit *visit, QueueMapHold *hold)
{
	uint32		numbers[MaxHeapTuplesPerPage];
	uint32		n = queue_slot_chained(hold, numbers, lengthof(numbers));

	visit->hold = hold;
	visit->due = QUEUE_TIME_NEVER;
	visit->asked = InvalidTransactionId;
	memset(visit->held_as, QUEUE_HELD_NOT, sizeof(visit->held_as));
	/* No more than a page has tuples; others are of an older generation. */
	n = Min(n, lengthof(numbers));
	for (uint32 i = 0; i < n; i++)
		look_at_slot(visit, numbers[i]);
}

/*
 * Whether the tuple is a message that can be had now or later without asking
 * anybody; otherwise it has said when to look again.
 */
bool
queue_visit_passes(QueueVisit *visit, HeapTuple tuple, QueueTupleFate fate)
{
	QueueHeldAs held = queue_visit_held(visit, tuple);

	switch (fate)
	{
		case QUEUE_TUPLE_GONE:
			return false;
		case QUEUE_TUPLE_OWN:
			/* Our commit will lower the page. */
			return false;
		case QUEUE_TUPLE_DELETING:
			if (held == QUEUE_HELD_NOT)
				queue_visit_due(visit, recheck_time(visit));
			return false;
		case QUEUE_TUPLE_INSERTING:
			queue_visit_due(visit, in_progress_time(visit, HeapTupleHeaderGetXmin(tuple->t_data)));
			return false;
		case QUEUE_TUPLE_UNSEEN:
			if (held == QUEUE_HELD_NOT || held == QUEUE_HELD_CLAIMABLE)
				queue_visit_due(visit, 0);
			return false;
		case QUEUE_TUPLE_LIVE:
			break;
	}
	/*
	 * The message before in this place is deleted, a VACUUM was quick, and the
	 * slot is about to be freed, which lowers nothing.
	 */
	if (held != QUEUE_HELD_NOT &&
		visit->held_id[ItemPointerGetOffsetNumber(&tuple->t_self)] !=
		queue_message_id(tuple, RelationGetDescr(visit->rel)))
	{
		queue_visit_due(visit, 0);
		return false;
	}
	return true;
}
