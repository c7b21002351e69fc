/*
 * priority.c
 *	  Which priority's turn it is.
 *
 * With aging a message of priority p that was enqueued at t comes before all
 * whose t - p * aging_step is later: an order that no waiting changes, so nothing
 * has to be raised. Each priority's messages are in segments of their own, oldest
 * first, so only the first of each has to be compared. When that was enqueued is
 * known roughly, in QueueState.heads: no later than it was, but for messages that
 * came back after somebody had found nothing of their priority.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "priority.h"

/* So often a call may turn to a priority that is not first after all; then it takes what is there. */
#define TURNS_IN_VAIN (2 * QUEUE_PRIORITIES)

/* ---- pages on which there are several ---- */

#define BITS ((1 << QUEUE_PRIORITIES) - 1)

/* A mark's upper part; never 0, so that a mark is not. */
uint32
queue_priority_moment(QueueSegment *segment)
{
	uint32		moment = pg_atomic_read_u32(&segment->foreign) << QUEUE_PRIORITIES;

	return moment ? moment : 1 << QUEUE_PRIORITIES;
}

/* Whether a page below "mixed" has to be looked at for a priority. */
bool
queue_priority_may_be_on(QueueSegment *segment, BlockNumber page, int priority)
{
	uint32		mark = queue_map_marked(segment, page);

	return (mark & ~BITS) != queue_priority_moment(segment) || (mark & (1 << priority)) != 0;
}

/* Whether none of these pages has to be. */
bool
queue_priority_is_absent(QueueSegment *segment, int priority)
{
	uint32		absent = pg_atomic_read_u32(&segment->absent);

	return (absent & ~BITS) == queue_priority_moment(segment) && (absent & (1 << priority)) != 0;
}

/* Somebody has found nothing of a priority on them: remember it if there is none. */
void
queue_priority_look_for(QueueSegment *segment, int priority)
{
	uint32		moment = queue_priority_moment(segment);
	uint32		old = pg_atomic_read_u32(&segment->absent);
	uint32		mixed = pg_atomic_read_u32(&segment->mixed);
	uint32		known;

	for (BlockNumber page = 0; page < mixed; page++)
		if (queue_priority_may_be_on(segment, page, priority))
			return;
	known = (old & ~BITS) == moment ? old : moment;
	pg_atomic_compare_exchange_u32(&segment->absent, &old, known | (1 << priority));
}

/* ---- turns ---- */

/* Whether a queue has messages of more than one. */
bool
queue_priority_several(QueueState *state)
{
	uint32		known = pg_atomic_read_u32(&state->priorities);

	return (known & (known - 1)) != 0;
}

/* A call begins, at a time of the wall clock, which may have been set back. */
void
queue_priority_begin(QueuePriorityTurns *turns, QueueState *state, const QueueOptions *options, TimestampTz wall)
{
	turns->state = state;
	turns->step = options->priority_mode == QUEUE_PRIORITY_AGING ? options->aging_step : 0;
	turns->left = pg_atomic_read_u32(&state->priorities);
	turns->in_vain = 0;
	for (int i = 0; i < QUEUE_PRIORITIES; i++)
		if ((TimestampTz) pg_atomic_read_u64(&state->heads[i]) > wall)
			pg_atomic_write_u64(&state->heads[i], (uint64) wall);
}

/* By this the first messages of priorities are compared: lower goes first. */
static TimestampTz
rank_of(const QueuePriorityTurns *turns, int priority)
{
	return (TimestampTz) turns->heads[priority] - priority * turns->step;
}

/* The priority to go on with, and up to when its messages come before all others. */
bool
queue_priority_next(QueuePriorityTurns *turns, int *priority, TimestampTz *until)
{
	TimestampTz first = DT_NOEND;
	TimestampTz second = DT_NOEND;

	if (turns->left == 0)
		return false;
	for (int i = 0; i < QUEUE_PRIORITIES; i++)
		turns->heads[i] = pg_atomic_read_u64(&turns->state->heads[i]);
	if (turns->step == 0)
		turns->priority = pg_leftmost_one_pos32(turns->left);
	for (int i = QUEUE_PRIORITIES - 1; i >= 0 && turns->step > 0; i--)
	{
		TimestampTz rank;

		if (!(turns->left & (1 << i)))
			continue;
		rank = rank_of(turns, i);
		if (rank < first || first == DT_NOEND)
		{
			second = first;
			first = rank;
			turns->priority = i;
		}
		else
			second = Min(second, rank);
	}
	*priority = turns->priority;
	*until = second == DT_NOEND || turns->in_vain > TURNS_IN_VAIN ? DT_NOEND : second + turns->priority * turns->step;
	return true;
}

/*
 * All of the priority was looked at, or it has come to a message that is past its
 * turn. "head" is when that was enqueued, or else the last one taken, or now if
 * there was none at all; DT_NOEND: something else was there, of which we know
 * nothing.
 */
void
queue_priority_looked(QueuePriorityTurns *turns, TimestampTz head, bool past, bool took)
{
	/* If it was set since, somebody may have found an older one. */
	if (head != DT_NOEND)
		pg_atomic_compare_exchange_u64(&turns->state->heads[turns->priority],
									   &turns->heads[turns->priority], (uint64) head);
	turns->in_vain += !took;
	if (!past)
		turns->left &= ~(1 << turns->priority);
}
