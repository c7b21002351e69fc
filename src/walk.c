/*
 * walk.c
 *	  Walks over pages of an ordered queue, by whoever has its turn.
 *
 * A page that somebody is busy with is waited for, a segment that somebody has
 * locked is not: the walk ends there. What a walk does with the messages of a
 * page say claim.c and order.c; what it looks for, turn.c.
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "storage/lmgr.h"

#include "walk.h"

bool
queue_walk_goes_on(QueueTurn *turn)
{
	QueueClaim *claim = turn->claim;

	return !OidIsValid(turn->locked) && !turn->no_memory && !claim->closed && claim->pages_left > 0 &&
		claim->claimed_count < claim->request->wanted && claim->bytes < claim->request->max_bytes;
}

/* Open a segment that a walk has come to; false if there is nothing in it, or it has to be waited for. */
bool
queue_walk_open(QueueTurn *turn, QueueSegment *segment, uint32 generation)
{
	QueueClaim *claim = turn->claim;
	Oid			relid = segment->relid;

	if (!OidIsValid(relid) || pg_atomic_read_u32(&segment->generation) != generation)
		return false;
	if (!ConditionalLockRelationOid(relid, AccessShareLock))
	{
		/* One that is being emptied has nothing, and is not waited for. */
		if (pg_atomic_read_u32(&segment->emptying) != generation)
			turn->locked = relid;
		return false;
	}
	claim->visit.segment = segment;
	claim->visit.rel = queue_segment_open(segment, generation, AccessShareLock);
	UnlockRelationOid(relid, AccessShareLock);
	return claim->visit.rel != NULL;
}

void
queue_walk_close(QueueTurn *turn)
{
	relation_close(turn->claim->visit.rel, AccessShareLock);
}

/* Look at a page, due or not (now: QUEUE_TIME_NEVER); waits for whoever is busy with it. */
void
queue_walk_look_at(QueueTurn *turn, BlockNumber page, QueueTime now)
{
	QueueClaim *claim = turn->claim;
	QueueMapHold hold;
	int			had = claim->claimed_count;

	CHECK_FOR_INTERRUPTS();
	claim->pages_left--;
	queue_slot_reserve(turn->state, claim->request->wanted - claim->claimed_count);
	for (;;)
	{
		switch (queue_map_take(claim->visit.segment, page, now, &hold))
		{
			case QUEUE_MAP_TAKEN:
				break;
			case QUEUE_MAP_BUSY:
				queue_map_wait(claim->visit.segment, page);
				CHECK_FOR_INTERRUPTS();
				continue;
			case QUEUE_MAP_NOT_DUE:
				return;
			case QUEUE_MAP_NO_MEMORY:
				turn->no_memory = true;
				return;
		}
		break;
	}
	claim->saw_expired = false;
	queue_claim_visit(claim, &hold);
	turn->no_memory = claim->lacks_slots || claim->order.lacks_keys;
	if (claim->claimed_count > had)
		claim->pages_left = claim->patience;
	if (claim->saw_expired && !turn->no_memory)
		queue_claim_sweep_page(claim->request->def, claim->visit.rel, claim->visit.segment, page);
}

/* ---- spans of keys ---- */

/* Messages after which a look of several ends if others have got nothing: with fewer, each call would go over the same pages. */
#define MESSAGES_IN_A_ROW 4

/* Looks that go through the same pages, by the first place of their spans. */
typedef struct Walk
{
	QueueLook  *looks;
	int			count;
	int			others;			/* keys that are looked at afterwards, and are to get something too */
	int			begun;			/* have come to their spans */
	QueuePosition last;			/* of all */
	QueuePosition at;			/* where it is */
	int			in_vain;		/* pages since something was taken */
	bool		in_backlog;		/* and in the order of places */
} Walk;

/* The entry that a look is about, locked; NULL: it is gone. */
QueueKey *
queue_walk_lock_key(QueueTurn *turn, const QueueKeyFacts *facts)
{
	QueueKey   *key = queue_key_lock(facts->number);

	if (key && (key->hash != facts->hash || key->queue != queue_state_index(turn->state)))
	{
		queue_key_unlock(key);
		key = NULL;
	}
	return key;
}

/*
 * The look has come to a place of the key's backlog: what was before is done.
 * Should something have been put back before that meanwhile, it ends: false.
 */
static bool
move_backlog(QueueTurn *turn, QueueLook *look, QueuePosition next)
{
	QueueKey   *key = queue_walk_lock_key(turn, &look->facts);
	bool		same;

	if (key == NULL)
		return false;
	same = key->backlog.first == look->reached &&
		(key->call != turn->claim->order.call || key->failed_as == PG_UINT32_MAX);
	if (same && next > key->backlog.last)
		queue_span_clear(&key->backlog);
	else if (same)
		key->backlog.first = next;
	same = same && !queue_span_is_empty(&key->backlog);
	queue_key_unlock(key);
	return same;
}

/* A look comes to a page of its span, or to the end of that. */
static void
come_to(QueueTurn *turn, Walk *walk, QueueLook *look, QueuePosition place)
{
	bool		past = place > look->span.last;

	if (walk->in_backlog && !move_backlog(turn, look, past ? look->span.last + 1 : place))
		look->ended = true;
	look->ended |= past;
	look->reached = place;
	look->sought.here = !look->ended;
}

/* All of them come to a page; whether any seeks something there. */
static bool
come_all_to(QueueTurn *turn, Walk *walk, QueuePosition place)
{
	bool		any = false;

	while (walk->begun < walk->count && walk->looks[walk->begun].span.first <= place)
		walk->begun++;
	for (int i = 0; i < walk->begun; i++)
	{
		QueueLook  *look = &walk->looks[i];

		if (!look->ended)
			come_to(turn, walk, look, place);
		any |= look->sought.here;
	}
	return any;
}

/* Keys that have got nothing yet. */
static int
waiting(const Walk *walk)
{
	int			n = walk->others;

	for (int i = 0; i < walk->count; i++)
		n += !walk->looks[i].ended && walk->looks[i].taken == 0;
	return n;
}

/*
 * The page was looked at. A look ends when something of its key was taken and
 * there is no more in a row, or cannot be had. Copies are not in order: one that
 * waits may be before the first, which is taken alone.
 */
static void
note_look(Walk *walk, QueueLook *look)
{
	const QueueSought *sought = &look->sought;

	look->taken += sought->took;
	look->undecided = sought->undecided;
	look->ended = sought->undecided || (walk->in_backlog && sought->waits) ||
		(look->taken > 0 && (!walk->in_backlog || sought->took == 0));
	look->apart = sought->no_room;
	if (sought->took > 0)
		walk->in_vain = -1;
}

/*
 * With others, a look that has taken some also ends while there is something left for each of them;
 * and those that have come to many pages in vain let others begin that are further on.
 */
static void
note_page(QueueTurn *turn, Walk *walk)
{
	bool		enough;
	bool		in_vain;

	for (int i = 0; i < walk->begun; i++)
		if (walk->looks[i].sought.here)
			note_look(walk, &walk->looks[i]);
	enough = turn->claim->request->wanted - turn->claim->claimed_count <= waiting(walk);
	in_vain = ++walk->in_vain >= turn->claim->patience / 4 * 3;
	for (int i = 0; i < walk->begun; i++)
	{
		QueueLook  *look = &walk->looks[i];

		look->sought.here = false;
		if (walk->count == 1 || look->ended)
			continue;
		look->apart |= in_vain && look->taken == 0;
		look->ended = look->taken > 0 ? enough && look->taken >= MESSAGES_IN_A_ROW : in_vain;
	}
	if (in_vain)
		walk->in_vain = 0;
}

static bool
has_open(const Walk *walk)
{
	for (int i = 0; i < walk->begun; i++)
		if (!walk->looks[i].ended)
			return true;
	return false;
}

/* Pages where nobody seeks anything are passed over, and so is the rest of the segment. */
static void
walk_segment(QueueTurn *turn, Walk *walk, QueueSegment *segment, uint64 rank, BlockNumber page)
{
	while (queue_walk_goes_on(turn) && page < pg_atomic_read_u32(&segment->pages) &&
		   QUEUE_POSITION(rank, page) <= walk->last)
	{
		walk->at = QUEUE_POSITION(rank, page);
		if (come_all_to(turn, walk, walk->at))
		{
			queue_walk_look_at(turn, page, QUEUE_TIME_NEVER);
			note_page(turn, walk);
			page++;
		}
		else if (walk->begun < walk->count && QUEUE_POSITION_RANK(walk->looks[walk->begun].span.first) == rank)
			page = QUEUE_POSITION_PAGE(walk->looks[walk->begun].span.first);
		else
			break;
	}
}

static int
compare_sought(const void *a, const void *b)
{
	uint64		x = (*(QueueSought *const *) a)->hash;
	uint64		y = (*(QueueSought *const *) b)->hash;

	return x < y ? -1 : x > y;
}

/* Note what is sought; there is room for so many pointers as there are looks. */
static void
begin_walk(QueueTurn *turn, Walk *walk, QueueSought **sought)
{
	QueueOrder *order = &turn->claim->order;

	for (int i = 0; i < walk->count; i++)
	{
		QueueLook  *look = &walk->looks[i];

		look->sought = (QueueSought) {.hash = look->facts.hash};
		look->reached = look->span.first;
		look->taken = 0;
		look->undecided = look->apart = look->ended = false;
		walk->last = Max(walk->last, look->span.last);
		sought[i] = &look->sought;
	}
	if (walk->count > 1)
		qsort(sought, walk->count, sizeof(QueueSought *), compare_sought);
	order->sought = sought;
	order->sought_count = walk->count;
}

static void
set_apart(QueueTurn *turn, const QueueKeyFacts *facts)
{
	QueueKey   *key = queue_walk_lock_key(turn, facts);

	if (key == NULL)
		return;
	key->apart = true;
	queue_key_unlock(key);
}

/*
 * All pages were gone through, or the walk was broken off. Where it has come to a
 * segment that is locked, or has seen too many pages in vain, those that it has
 * come to hold up the others: they are looked for by themselves until something is found.
 */
static void
end_walk(QueueTurn *turn, Walk *walk)
{
	bool		held_up = OidIsValid(turn->locked) || turn->claim->pages_left <= 0;

	for (int i = 0; i < walk->count; i++)
	{
		QueueLook  *look = &walk->looks[i];

		if (!look->ended && queue_walk_goes_on(turn))
			come_to(turn, walk, look, walk->last + 1);
		look->apart |= held_up && !look->ended && look->span.first <= walk->at;
		look->apart &= look->taken == 0 && walk->count > 1;
		if (look->apart)
			set_apart(turn, &look->facts);
	}
	turn->claim->order.sought_count = 0;
}

/*
 * Go through the pages of spans, from their first places on, and take of each
 * key what can be had in a row there. Of the backlog each entry's first place
 * moves along, to a page before that is looked at. So many other keys are to get
 * something afterwards.
 */
void
queue_walk_spans(QueueTurn *turn, QueueLook *looks, int n, int others, QueueSought **sought, QueueLane lane)
{
	Walk		walk = {.looks = looks,.count = n,.others = others,.in_backlog = lane == QUEUE_LANE_BACKLOG};
	QueuePosition from = 0;
	uint64		rank = 0;
	QueueSegment *segment;
	uint32		generation;

	begin_walk(turn, &walk, sought);
	while (queue_walk_goes_on(turn))
	{
		BlockNumber page;

		if (!has_open(&walk))
		{
			if (walk.begun == n)
				break;
			from = looks[walk.begun].span.first;
			rank = Max(rank, QUEUE_POSITION_RANK(from) - 1);
		}
		if (!queue_ring_next_in(turn->state, lane, &rank, QUEUE_TIME_NEVER, &segment, &generation))
			break;
		page = rank == QUEUE_POSITION_RANK(from) ? QUEUE_POSITION_PAGE(from) : 0;
		if (QUEUE_POSITION(rank, page) > walk.last)
			break;
		walk.at = QUEUE_POSITION(rank, InvalidBlockNumber);
		if (!queue_walk_open(turn, segment, generation))
			continue;
		walk_segment(turn, &walk, segment, rank, page);
		queue_walk_close(turn);
	}
	end_walk(turn, &walk);
}

void
queue_walk_span(QueueTurn *turn, QueueLook *look, QueueSpan span, QueueLane lane)
{
	QueueSought *sought;

	look->span = span;
	queue_walk_spans(turn, look, 1, 0, &sought, lane);
}
