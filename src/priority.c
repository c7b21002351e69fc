/*
 * priority.c
 *	  Which priority's turn it is.
 *
 * With aging a message of priority p that was enqueued at t comes before all
 * whose t - p * aging_step is later: an order that no waiting changes, so nothing
 * has to be raised. Each priority's messages are in segments of their own, oldest
 * first, so only the first of each has to be compared. When that was enqueued is
 * known roughly, in QueueState.heads: no later than it was, but for messages that
 * came back, or fell due, after somebody had found nothing of their priority, and
 * for those behind what another transaction had not committed. Those that had to
 * be stored with others are a source of their own, and in no order.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "priority.h"

/* So often a call may turn to a priority that is not first after all; then it takes what is there. */
#define TURNS_IN_VAIN (2 * QUEUE_SOURCES)

/* Of what is in no order, so much is taken at a time if priority is strict, us. */
#define STRICT_STEP INT64CONST(1000000)

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
	uint32		mixed;
	uint32		known;

	/* What was counted by then is on these pages. */
	pg_read_barrier();
	mixed = pg_atomic_read_u32(&segment->mixed);
	for (BlockNumber page = 0; page < mixed; page++)
		if (queue_priority_may_be_on(segment, page, priority))
			return;
	known = (old & ~BITS) == moment ? old : moment;
	pg_atomic_compare_exchange_u32(&segment->absent, &old, known | (1 << priority));
}

/* ---- turns ---- */

/* Whether a queue has messages in more than one source. */
bool
queue_priority_several(QueueState *state)
{
	uint32		known = pg_atomic_read_u32(&state->sources);

	return (known & (known - 1)) != 0;
}

/* A call begins, at a time of the wall clock, which may have been set back. */
void
queue_priority_begin(QueuePriorityTurns *turns, QueueState *state, const QueueOptions *options, TimestampTz wall)
{
	turns->state = state;
	turns->step = options->priority_mode == QUEUE_PRIORITY_AGING ? options->aging_step : 0;
	turns->left = pg_atomic_read_u32(&state->sources);
	turns->in_vain = 0;
	for (int i = 0; i < QUEUE_SOURCES; i++)
	{
		turns->seen[i] = pg_atomic_read_u64(&state->heads[i]);
		turns->heads[i] = Min((TimestampTz) turns->seen[i], wall);
	}
}

/* By this the first messages of sources are compared: lower goes first. */
static TimestampTz
rank_of(const QueuePriorityTurns *turns, int source)
{
	return turns->heads[source] - QUEUE_PRIORITY_OF(source) * turns->step;
}

/* Those that are compared by rank: all, or strictly the two of the highest priority. */
static uint32
comparable(const QueuePriorityTurns *turns)
{
	int			highest = pg_leftmost_one_pos32((turns->left | turns->left >> QUEUE_PRIORITIES) & BITS);

	if (turns->step > 0)
		return turns->left;
	return turns->left & (1 << highest | 1 << (QUEUE_PRIORITIES + highest));
}

/* The source to go on with, and up to when its messages come before all others. */
bool
queue_priority_next(QueuePriorityTurns *turns, int *source, TimestampTz *until)
{
	TimestampTz first = DT_NOEND;
	TimestampTz second = DT_NOEND;
	uint32		among;

	if (turns->left == 0)
		return false;
	among = comparable(turns);
	for (int i = QUEUE_SOURCES - 1; i >= 0; i--)
	{
		TimestampTz rank;

		if (!(among & (1 << i)))
			continue;
		rank = rank_of(turns, i);
		if (rank < first || first == DT_NOEND)
		{
			second = first;
			first = rank;
			turns->source = i;
		}
		else
			second = Min(second, rank);
	}
	*source = turns->source;
	*until = DT_NOEND;
	if (turns->in_vain > TURNS_IN_VAIN)
		return true;
	if (second != DT_NOEND)
		*until = second + QUEUE_PRIORITY_OF(*source) * turns->step;
	if (QUEUE_SOURCE_IS_MIXED(*source))
		*until = Min(*until, turns->heads[*source] + Max(turns->step, STRICT_STEP));
	return true;
}

/*
 * A source was looked at, for what is not past its turn. "next" is when the first
 * one that is was enqueued, DT_NOEND: there was none. "head" is what all others
 * may know of its first message; DT_NOEND: nothing.
 */
void
queue_priority_looked(QueuePriorityTurns *turns, TimestampTz head, TimestampTz next, bool took)
{
	int			source = turns->source;

	/* If it was set since, somebody may have found an older one. */
	if (head != DT_NOEND &&
		pg_atomic_compare_exchange_u64(&turns->state->heads[source], &turns->seen[source], (uint64) head))
		turns->seen[source] = (uint64) head;
	turns->in_vain += !took;
	if (next != DT_NOEND)
		turns->heads[source] = next;
	else
		turns->left &= ~(1 << source);
}

/*
 * A message is where it was, as if nobody had had it; its page is due. Whoever has
 * looked in vain meanwhile says so before us, or not at all. Cannot fail.
 */
void
queue_priority_came_back(QueueState *state, int priority, TimestampTz enqueued_at)
{
	for (int source = priority; source < QUEUE_SOURCES; source += QUEUE_PRIORITIES)
	{
		uint64		head = pg_atomic_read_u64(&state->heads[source]);

		while (enqueued_at < (TimestampTz) head &&
			   !pg_atomic_compare_exchange_u64(&state->heads[source], &head, (uint64) enqueued_at))
			;
	}
}
