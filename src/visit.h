/*
 * visit.h
 *	  Looking at a page whose busy bit is held: slots first, then tuples.
 */
#ifndef QUEUE_VISIT_H
#define QUEUE_VISIT_H

#include "access/htup_details.h"

#include "segment.h"
#include "slot.h"

/* How a tuple is held by the slot that hangs on it. */
typedef enum QueueHeldAs
{
	QUEUE_HELD_NOT = 0,
	QUEUE_HELD_LEASED,
	QUEUE_HELD_SETTLING,
	QUEUE_HELD_COOLING,			/* not claimable yet */
	QUEUE_HELD_DEAD,			/* never claimable again */
	QUEUE_HELD_CLAIMABLE,		/* cooling, and its time has come */
} QueueHeldAs;

typedef struct QueueVisit
{
	QueueSegment *segment;
	Relation	rel;
	QueueMapHold *hold;
	QueueTime	now;
	TimestampTz wall;
	QueueTime	due;			/* of what is left on the page, so far */
	TransactionId asked;		/* the last one in progress that was asked for */
	bool		tells;			/* a callback will tell how it ends */
	/* by offset on the page */
	uint8		held_as[MaxHeapTuplesPerPage + 1];
	uint32		held_by[MaxHeapTuplesPerPage + 1];
	int64		held_id[MaxHeapTuplesPerPage + 1];
} QueueVisit;

extern void queue_visit_begin(QueueVisit *visit, QueueSegment *segment, Relation rel);
extern void queue_visit_slots(QueueVisit *visit, QueueMapHold *hold);
extern bool queue_visit_passes(QueueVisit *visit, HeapTuple tuple, QueueTupleFate fate);

static inline QueueHeldAs
queue_visit_held(const QueueVisit *visit, HeapTuple tuple)
{
	return visit->held_as[ItemPointerGetOffsetNumber(&tuple->t_self)];
}

static inline void
queue_visit_due(QueueVisit *visit, QueueTime due)
{
	visit->due = Min(visit->due, due);
}

#endif							/* QUEUE_VISIT_H */
