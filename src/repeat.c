/*
 * repeat.c
 *	  A dequeue that is repeated, because its answer was lost.
 *
 * Each slot has beside it the number of the attempt that leased it, a hash of
 * the attempt's name; numbers lie together, so that all of them are soon looked
 * through. What a repeated attempt still holds is read again from where the
 * slots say, with the receipts it was given; nothing is taken.
 */
#include "postgres.h"

#include "access/relation.h"
#include "common/hashfn.h"
#include "miscadmin.h"

#include "repeat.h"
#include "segment.h"

/* By the role too: nobody else's receipts are given out. Never 0, which is no attempt. */
uint64
queue_repeat_number(const char *attempt_id)
{
	uint64		number = hash_bytes_extended((const unsigned char *) attempt_id, strlen(attempt_id), GetUserId());

	return number ? number : 1;
}

/* What a slot says, if the attempt still holds it. */
static bool
read_slot(const QueueClaimRequest *request, uint32 number, QueueClaimed *claimed, QueueSlot *facts)
{
	QueueSlot  *slot = queue_slot(number);
	uint64		word = queue_slot_lock(slot);
	bool		held = queue_slot_attempt(number) == request->attempt &&
		(QUEUE_SLOT_STATE(word) == QUEUE_SLOT_LEASED ||
		 (QUEUE_SLOT_STATE(word) == QUEUE_SLOT_COOLING && (word & QUEUE_SLOT_LATE))) &&
		slot->database == MyDatabaseId && slot->view == request->def->view &&
		slot->owner == GetUserId();

	claimed->slot = number;
	claimed->sequence = QUEUE_SLOT_SEQUENCE(word);
	claimed->receipt = slot->receipt;
	claimed->failures = slot->failures;
	claimed->deadline = slot->deadline;
	claimed->reason = slot->unwritten ? slot->reason : QUEUE_FAILURE_NONE;
	facts->segment = slot->segment;
	facts->generation = slot->generation;
	facts->tid = slot->tid;
	facts->message_id = slot->message_id;
	queue_slot_unlock(slot, word);
	return held;
}

static int
compare_slot(const void *a, const void *b)
{
	const QueueClaimed *x = a;
	const QueueClaimed *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/*
 * What an attempt of this queue still holds, in order of ids; no more than the
 * caller asks for. The array has room for that.
 */
int
queue_repeat_claim(const QueueClaimRequest *request, QueueClaimed *claimed)
{
	int			n = 0;

	for (uint32 i = 0; i < queue_slot_count() && n < request->wanted; i++)
	{
		QueueSlot	facts;
		Relation	rel;

		if (queue_slot_attempt(i) != request->attempt || !read_slot(request, i, &claimed[n], &facts))
			continue;
		rel = queue_segment_open(queue_segment_at(facts.segment), facts.generation, AccessShareLock);
		if (rel == NULL)
			continue;
		claimed[n].id = facts.message_id;
		claimed[n].tuple = queue_segment_fetch(rel, queue_segment_at(facts.segment), &facts.tid, facts.message_id);
		relation_close(rel, AccessShareLock);
		if (claimed[n].tuple)
			n++;
	}
	qsort(claimed, n, sizeof(QueueClaimed), compare_slot);
	return n;
}
