/*
 * touched.c
 *	  Pages that the transaction stored or deleted messages on.
 *
 * A fixed list of ranges, so that nothing here can fail: pages that lie close
 * share one, and when the list is full those of a segment do, however far
 * apart (looking at a page too many is cheap). With more segments than ranges
 * some pages are not noted, and the caller is told.
 */
#include "postgres.h"

#include "touched.h"

#define RANGES 64
#define RANGE_GAP 8				/* pages between two that still are one range */

typedef struct PageRange
{
	QueueSegment *segment;
	uint32		generation;
	BlockNumber first;
	BlockNumber last;
	QueueTime	due;
} PageRange;

static PageRange ranges[RANGES];
static int	range_count;
static bool overflowed;

static bool
extend_range(PageRange *range, QueueSegment *segment, BlockNumber page, BlockNumber gap)
{
	/* What was rolled back to a savepoint may lie in an earlier life of the segment. */
	if (range->segment != segment ||
		range->generation != pg_atomic_read_u32(&segment->generation) ||
		page + gap < range->first || page > range->last + gap)
		return false;
	range->first = Min(range->first, page);
	range->last = Max(range->last, page);
	return true;
}

/* Note a page; what is on it is due at this time, 0: at once. */
void
queue_touched_page(QueueSegment *segment, BlockNumber page, QueueTime due)
{
	PageRange  *range;

	for (int i = range_count - 1; i >= 0; i--)
	{
		if (!extend_range(&ranges[i], segment, page, RANGE_GAP))
			continue;
		ranges[i].due = Min(ranges[i].due, due);
		return;
	}
	for (int i = 0; range_count == RANGES && i < range_count; i++)
	{
		if (!extend_range(&ranges[i], segment, page, MaxBlockNumber / 2))
			continue;
		ranges[i].due = Min(ranges[i].due, due);
		return;
	}
	if (range_count == RANGES)
	{
		overflowed = true;
		return;
	}
	range = &ranges[range_count++];
	range->segment = segment;
	range->generation = pg_atomic_read_u32(&segment->generation);
	range->first = range->last = page;
	range->due = due;
}

bool
queue_touched_any(void)
{
	return range_count > 0;
}

/*
 * Have the pages looked at; "at" is no later than what is due on them. False:
 * there are others.
 */
bool
queue_touched_lower(QueueTime at)
{
	for (int i = 0; i < range_count; i++)
	{
		PageRange  *range = &ranges[i];

		if (pg_atomic_read_u32(&range->segment->generation) == range->generation)
			queue_map_lower_range(range->segment, range->first, range->last, Min(range->due, at));
	}
	return !overflowed;
}

/* The transaction has ended. */
void
queue_touched_forget(void)
{
	range_count = 0;
	overflowed = false;
}
