/*
 * map.c
 *	  Hints about which pages have work, and when: the whole scheduler.
 *
 * Each page has a word with the time at which it is worth a look ("due"), a
 * busy bit, and the head of the chain of slots that hang on it. 64 pages make
 * a group, whose summary is the earliest due of its pages; a segment has one
 * word above its groups. A word that was never written, or was written under
 * an older epoch of the clock, reads as due now.
 *
 * What a reader must believe:
 * - A commit lowers page, group and segment, in this order, and never touches
 *   a busy bit. The search goes the other way. So a search that misses a
 *   lowering reads a summary that is about to be lowered too.
 * - Lowering a summary always bumps its version, raising it is a CAS on value
 *   and version read before the walk: a raise never covers a lowering. A busy
 *   page counts as due in that walk, since its holder knows more than its word.
 * - Only the holder of busy raises a page's due, adds slots to its chain, and
 *   puts back in one CAS what is left, merged with what commits lowered while
 *   it looked (taking the bit sets due to never, so anything else is news).
 * - A page block can be taken away when no page in it is busy and no slot
 *   hangs on it; the evictor holds all its pages meanwhile. A taker that found
 *   the block before checks afterwards that it is still its page's, and gives
 *   back what it took if not: it was the only holder of some word then. So that
 *   such a word is always a page's, blocks never change between pages and
 *   directories. Writing a due into a block that was just reused only makes
 *   somebody look once in vain.
 * - Blocks of a segment are freed only under an exclusive lock on its
 *   relation or after its drop committed, so whoever takes or raises holds a
 *   lock on the relation. Lowering needs none.
 *
 * A crash forgets everything; all is unknown, and looked at, afterwards.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"

#include "compat.h"
#include "guc.h"
#include "map.h"

#define NO_BLOCK 0				/* block 0 is never handed out */
#define WAIT_CONDITIONS 64

/* Bits of a word. Pages have flags where summaries have a version. */
#define DUE_MASK		UINT64CONST(0xFFFFFFFFFF)	/* ms; all ones = never */
#define DUE_NEVER		DUE_MASK
#define EPOCH_SHIFT		40
#define VERSION_ONE		(UINT64CONST(1) << 48)
#define BUSY			(UINT64CONST(1) << 63)
#define WAITED			(UINT64CONST(1) << 62)

typedef struct MapPage
{
	pg_atomic_uint64 word;
	pg_atomic_uint32 chain;		/* first slot + 1; under the chain lock */
	pg_atomic_uint32 mark;		/* a holder's, see queue_map_mark(); 0: none */
} MapPage;

typedef struct MapGroup
{
	pg_atomic_uint64 word;
	pg_atomic_uint32 block;		/* of its pages */
	uint32		unused;
} MapGroup;

/* In a root the first eight bytes stay free: late lowerings may write there. */
typedef struct MapRoot
{
	uint64		unused;
	pg_atomic_uint32 dirs[2];
} MapRoot;

typedef union MapBlock
{
	MapPage		pages[QUEUE_MAP_GROUP_PAGES];
	MapGroup	groups[QUEUE_MAP_DIR_GROUPS];
	MapRoot		roots[64];
} MapBlock;

/* Who owns a block: for the evictor. */
typedef struct BlockOwner
{
	uint32		next_free;
	uint32		group;			/* + 1; 0: not a page block */
	QueueSegment *segment;
} BlockOwner;

/* Blocks of one kind: a range of the array. */
typedef struct MapPool
{
	uint32		begin;
	uint32		end;
	uint32		unused_from;	/* blocks never used yet begin here */
	uint32		first_free;
	uint32		hand;			/* of the evictor's clock */
	uint32		in_use;
} MapPool;

typedef struct MapShared
{
	/* under the map lock */
	MapPool		pages;
	MapPool		dirs;
	/* their own locks inside */
	ConditionVariable waits[WAIT_CONDITIONS];
} MapShared;

/* Attached at start, the same in every process. */
static MapShared *shared;
static MapBlock *blocks;
static BlockOwner *owners;

/* Lock 0 of the tranche is the map lock, the others guard chains. */
static LWLockPadded *locks;

/* The page this backend holds, for the abort callbacks. One at a time. */
static QueueMapHold held;

static uint32
block_count(void)
{
	return (uint32) ((Size) queue_map_memory * 1024 / (sizeof(MapBlock) + sizeof(BlockOwner)));
}

static Size
map_size(void)
{
	Size		size = MAXALIGN(sizeof(MapShared)) + PG_CACHE_LINE_SIZE;

	size = add_size(size, mul_size(block_count(), sizeof(MapBlock)));
	return add_size(size, mul_size(block_count(), sizeof(BlockOwner)));
}

static void
init_pool(MapPool *pool, uint32 begin, uint32 end)
{
	pool->begin = pool->unused_from = pool->hand = begin;
	pool->end = end;
	pool->first_free = NO_BLOCK;
	pool->in_use = 0;
}

static void
map_init(void *area, bool found)
{
	shared = area;
	blocks = (MapBlock *) CACHELINEALIGN((char *) area + MAXALIGN(sizeof(MapShared)));
	owners = (BlockOwner *) (blocks + block_count());
	locks = GetNamedLWLockTranche("QueueMap");
	if (found)
		return;
	memset(shared, 0, sizeof(*shared));
	memset(blocks, 0, block_count() * sizeof(MapBlock));
	memset(owners, 0, block_count() * sizeof(BlockOwner));
	/* A quarter for directories: a segment in use needs one of each. */
	init_pool(&shared->dirs, 1, block_count() / 4);
	init_pool(&shared->pages, block_count() / 4, block_count());
	for (int i = 0; i < WAIT_CONDITIONS; i++)
		ConditionVariableInit(&shared->waits[i]);
}

const QueueShmemPart queue_map_shmem = {
	"queue map", map_size, map_init, "QueueMap", QUEUE_MAP_CHAIN_LOCKS + 1, NULL
};

/* ---- words ---- */

/* Rounded up, so that a page never falls due before what is on it. */
static uint64
pack_due(QueueTime due)
{
	if (due == QUEUE_TIME_NEVER)
		return DUE_NEVER;
	return Min((uint64) Max(due + 999, 0) / 1000, DUE_NEVER - 1);
}

static uint64
due_in(uint8 epoch, uint64 word)
{
	if (((word >> EPOCH_SHIFT) & 0xFF) != epoch)
		return 0;
	return word & DUE_MASK;
}

static uint64
due_of(uint64 word)
{
	return due_in(queue_clock_epoch(), word);
}

static QueueTime
unpack_due(uint64 due)
{
	return due == DUE_NEVER ? QUEUE_TIME_NEVER : (QueueTime) due * 1000;
}

static uint64
make_word_of(uint8 epoch, uint64 rest, uint64 due)
{
	return (rest & ~(DUE_MASK | (UINT64CONST(0xFF) << EPOCH_SHIFT))) |
		((uint64) epoch << EPOCH_SHIFT) | due;
}

static uint64
make_word(uint64 rest, uint64 due)
{
	return make_word_of(queue_clock_epoch(), rest, due);
}

/* The epoch is read once a try: what was known in the one is not said in the next. */
static void
lower_summary(pg_atomic_uint64 *word, uint64 due)
{
	uint64		old = pg_atomic_read_u64(word);
	uint8		epoch;

	do
		epoch = queue_clock_epoch();
	while (!pg_atomic_compare_exchange_u64(word, &old,
										   make_word_of(epoch, old + VERSION_ONE,
														Min(due_in(epoch, old), due))));
}

static void
lower_page(MapPage *entry, uint64 due)
{
	uint64		old = pg_atomic_read_u64(&entry->word);

	for (;;)
	{
		uint8		epoch = queue_clock_epoch();

		if (due_in(epoch, old) <= due ||
			pg_atomic_compare_exchange_u64(&entry->word, &old, make_word_of(epoch, old, due)))
			break;
	}
}

/* ---- blocks ---- */

/* Page blocks and directory blocks never change kind: see the header. */
static MapPool *
pool_of(bool pages)
{
	return pages ? &shared->pages : &shared->dirs;
}

static void
wake_waiters(uint64 word, BlockNumber page)
{
	if (word & WAITED)
		ConditionVariableBroadcast(&shared->waits[page % WAIT_CONDITIONS]);
}

/* Give back, as unknown, the first n pages of a block that the evictor held. */
static void
give_back_pages(uint32 block, int n)
{
	for (int i = 0; i < n; i++)
	{
		MapPage    *page = &blocks[block].pages[i];
		uint64		old = pg_atomic_read_u64(&page->word);

		pg_atomic_write_u32(&page->mark, 0);
		while (!pg_atomic_compare_exchange_u64(&page->word, &old, 0))
			;
		wake_waiters(old, i);
	}
}

/* A look that changes nothing: most blocks in use are passed over by it. */
static bool
is_in_use(uint32 block)
{
	for (int i = 0; i < QUEUE_MAP_GROUP_PAGES; i++)
	{
		MapPage    *page = &blocks[block].pages[i];

		if ((pg_atomic_read_u64(&page->word) & BUSY) || pg_atomic_read_u32(&page->chain) != 0)
			return true;
	}
	return false;
}

/* Become the holder of every page of a block on which no slot hangs. */
static bool
hold_pages(uint32 block)
{
	for (int i = 0; i < QUEUE_MAP_GROUP_PAGES; i++)
	{
		MapPage    *page = &blocks[block].pages[i];
		uint64		old = pg_atomic_read_u64(&page->word);
		bool		held_now = false;

		while (!(old & BUSY) && !held_now)
			held_now = pg_atomic_compare_exchange_u64(&page->word, &old,
													  make_word(old | BUSY, DUE_NEVER));
		if (!held_now || pg_atomic_read_u32(&page->chain) != 0)
		{
			give_back_pages(block, held_now ? i + 1 : i);
			return false;
		}
	}
	return true;
}

static MapGroup *
group_of_block(const BlockOwner *owner)
{
	uint32		number = owner->group - 1;
	uint32		dir_number = number / QUEUE_MAP_DIR_GROUPS;
	uint32		dir;

	if (dir_number < QUEUE_MAP_DIRS)
		dir = pg_atomic_read_u32(&owner->segment->dirs[dir_number]);
	else
	{
		uint32		root = pg_atomic_read_u32(&owner->segment->root);
		uint32		i = dir_number - QUEUE_MAP_DIRS;

		dir = pg_atomic_read_u32(&blocks[root].roots[i / 2].dirs[i % 2]);
	}
	return &blocks[dir].groups[number % QUEUE_MAP_DIR_GROUPS];
}

/*
 * Take a page block away from its group, if nobody is busy on it and no slot
 * hangs on it. The evictor is a holder like others: whoever comes late finds
 * busy, or finds a word of some other page and is its only holder. All that
 * the pages knew is forgotten, so the group is due at once.
 */
static bool
evict(uint32 block)
{
	BlockOwner *owner = &owners[block];
	MapGroup   *group;

	if (owner->group == 0 || is_in_use(block) || !hold_pages(block))
		return false;
	group = group_of_block(owner);
	pg_atomic_write_u32(&group->block, NO_BLOCK);
	lower_summary(&group->word, 0);
	lower_summary(&owner->segment->word, 0);
	owner->group = 0;
	give_back_pages(block, QUEUE_MAP_GROUP_PAGES);
	return true;
}

/* A zeroed block, or NO_BLOCK if nothing can be had. Takes the map lock. */
static uint32
allocate_block(QueueSegment *segment, bool pages)
{
	MapPool    *pool = pool_of(pages);
	uint32		block = NO_BLOCK;

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	if (pool->first_free != NO_BLOCK)
	{
		block = pool->first_free;
		pool->first_free = owners[block].next_free;
		pool->in_use++;
	}
	else if (pool->unused_from < pool->end)
	{
		block = pool->unused_from++;
		pool->in_use++;
	}
	for (uint32 i = pool->begin; pages && block == NO_BLOCK && i < pool->end; i++)
	{
		if (evict(pool->hand))
			block = pool->hand;
		if (++pool->hand >= pool->end)
			pool->hand = pool->begin;
	}
	if (block != NO_BLOCK)
	{
		owners[block].segment = segment;
		owners[block].group = 0;
	}
	LWLockRelease(&locks[0].lock);
	return block;
}

/*
 * Zero a block and free it. The map lock must be held. A late taker may have
 * made a page of it busy; the bit is his to clear.
 */
static void
release_block(uint32 block, bool pages)
{
	MapPool    *pool = pool_of(pages);

	if (block == NO_BLOCK)
		return;
	for (int i = 0; i < QUEUE_MAP_GROUP_PAGES; i++)
	{
		uint64		old = pg_atomic_read_u64(&blocks[block].pages[i].word);

		while (!pg_atomic_compare_exchange_u64(&blocks[block].pages[i].word, &old,
											   pages ? old & BUSY : 0))
			;
		pg_atomic_write_u32(&blocks[block].pages[i].chain, 0);
		pg_atomic_write_u32(&blocks[block].pages[i].mark, 0);
	}
	owners[block].group = 0;
	owners[block].segment = NULL;
	owners[block].next_free = pool->first_free;
	pool->first_free = block;
	pool->in_use--;
}

/* Hook a fresh block in at *place; somebody else may have been faster. */
static uint32
hook_block(pg_atomic_uint32 *place, QueueSegment *segment, uint32 group)
{
	uint32		found = pg_atomic_read_u32(place);
	uint32		block;

	if (found != NO_BLOCK)
		return found;
	block = allocate_block(segment, group != 0);
	if (block == NO_BLOCK)
		return NO_BLOCK;
	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	if (pg_atomic_compare_exchange_u32(place, &found, block))
	{
		owners[block].group = group;
		found = block;
	}
	else
		release_block(block, group != 0);
	LWLockRelease(&locks[0].lock);
	return found;
}

/*
 * A block's number, for somebody who may come late: where a block was reused
 * for something else the number is anything, but never one outside the map.
 */
static uint32
read_block(pg_atomic_uint32 *place)
{
	uint32		block = pg_atomic_read_u32(place);

	return block < block_count() ? block : NO_BLOCK;
}

static MapGroup *
get_group(QueueSegment *segment, uint32 number, bool create)
{
	uint32		dir_number = number / QUEUE_MAP_DIR_GROUPS;
	pg_atomic_uint32 *place;
	uint32		dir;

	if (dir_number < QUEUE_MAP_DIRS)
		place = &segment->dirs[dir_number];
	else
	{
		uint32		i = dir_number - QUEUE_MAP_DIRS;
		uint32		root;

		if (i >= QUEUE_MAP_ROOT_DIRS)
			return NULL;
		root = create ? hook_block(&segment->root, segment, 0)
			: read_block(&segment->root);
		if (root == NO_BLOCK)
			return NULL;
		place = &blocks[root].roots[i / 2].dirs[i % 2];
	}
	dir = create ? hook_block(place, segment, 0) : read_block(place);
	return dir == NO_BLOCK ? NULL : &blocks[dir].groups[number % QUEUE_MAP_DIR_GROUPS];
}

static MapPage *
get_page(QueueSegment *segment, BlockNumber page, bool create)
{
	uint32		number = page / QUEUE_MAP_GROUP_PAGES;
	MapGroup   *group = get_group(segment, number, create);
	uint32		block;

	if (group == NULL)
		return NULL;
	block = create ? hook_block(&group->block, segment, number + 1)
		: read_block(&group->block);
	return block == NO_BLOCK ? NULL : &blocks[block].pages[page % QUEUE_MAP_GROUP_PAGES];
}

/* Begin with nothing known of the segment. Nobody else may use it yet. */
void
queue_map_attach(QueueSegment *segment)
{
	pg_atomic_init_u64(&segment->word, 0);
	for (int i = 0; i < QUEUE_MAP_DIRS; i++)
		pg_atomic_init_u32(&segment->dirs[i], NO_BLOCK);
	pg_atomic_init_u32(&segment->root, NO_BLOCK);
}

static void
release_dir(uint32 dir)
{
	if (dir == NO_BLOCK)
		return;
	for (int i = 0; i < QUEUE_MAP_DIR_GROUPS; i++)
		release_block(pg_atomic_exchange_u32(&blocks[dir].groups[i].block, NO_BLOCK), true);
	release_block(dir, false);
}

/*
 * Give back all that is known of a segment that was emptied or dropped. No
 * slot hangs on it and nobody else has its relation open. Cannot fail.
 */
void
queue_map_detach(QueueSegment *segment)
{
	uint32		root;

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	for (int i = 0; i < QUEUE_MAP_DIRS; i++)
		release_dir(pg_atomic_exchange_u32(&segment->dirs[i], NO_BLOCK));
	root = pg_atomic_exchange_u32(&segment->root, NO_BLOCK);
	if (root != NO_BLOCK)
	{
		for (int i = 0; i < QUEUE_MAP_ROOT_DIRS; i++)
			release_dir(pg_atomic_read_u32(&blocks[root].roots[i / 2].dirs[i % 2]));
		release_block(root, false);
	}
	LWLockRelease(&locks[0].lock);
}

void
queue_map_usage(QueueMapUsage *usage)
{
	usage->used = ((int64) shared->pages.in_use + shared->dirs.in_use) * sizeof(MapBlock);
	usage->total = (int64) block_count() * sizeof(MapBlock);
	usage->kept = (int64) shared->dirs.in_use * sizeof(MapBlock);
	usage->kept_total = (int64) (shared->dirs.end - shared->dirs.begin) * sizeof(MapBlock);
}

/* ---- due ---- */

/* The earliest time of anything on the segment; an empty file has nothing. */
QueueTime
queue_map_due(QueueSegment *segment)
{
	if (pg_atomic_read_u32(&segment->pages) == 0)
		return QUEUE_TIME_NEVER;
	return unpack_due(due_of(pg_atomic_read_u64(&segment->word)));
}

/*
 * Make pages due no later than due. Runs in commit and abort callbacks: cannot
 * fail, allocates nothing. What is not mapped is unknown anyway when it will be.
 */
void
queue_map_lower_range(QueueSegment *segment, BlockNumber first, BlockNumber last,
					  QueueTime due)
{
	uint64		packed = pack_due(due);

	for (uint32 number = first / QUEUE_MAP_GROUP_PAGES;
		 number <= last / QUEUE_MAP_GROUP_PAGES; number++)
	{
		MapGroup   *group = get_group(segment, number, false);
		BlockNumber from = Max(first, number * QUEUE_MAP_GROUP_PAGES);
		BlockNumber to = Min(last, number * QUEUE_MAP_GROUP_PAGES + QUEUE_MAP_GROUP_PAGES - 1);
		uint32		block;

		if (group == NULL)
			continue;
		block = read_block(&group->block);
		for (BlockNumber page = from; block != NO_BLOCK && page <= to; page++)
			lower_page(&blocks[block].pages[page % QUEUE_MAP_GROUP_PAGES], packed);
		lower_summary(&group->word, packed);
	}
	lower_summary(&segment->word, packed);
}

void
queue_map_lower(QueueSegment *segment, BlockNumber page, QueueTime due)
{
	queue_map_lower_range(segment, page, page, due);
}

/*
 * First due page of a group at or behind "from"; raises the group's summary if
 * the whole group was walked in vain, under the epoch in which the walk began.
 * *busy becomes the first page passed over because somebody was busy with it.
 */
static bool
find_in_group(QueueSegment *segment, MapGroup *group, uint32 number, BlockNumber from,
			  uint64 now, BlockNumber *page, BlockNumber *busy)
{
	uint8		epoch = queue_clock_epoch();
	uint64		seen = pg_atomic_read_u64(&group->word);
	BlockNumber first = number * QUEUE_MAP_GROUP_PAGES;
	BlockNumber end;
	uint64		earliest = DUE_NEVER;
	uint32		block;

	if (due_of(seen) > now)
		return false;
	pg_memory_barrier();
	end = Min(first + QUEUE_MAP_GROUP_PAGES, pg_atomic_read_u32(&segment->pages));
	block = pg_atomic_read_u32(&group->block);
	for (BlockNumber i = Max(first, from); i < end; i++)
	{
		uint64		word;

		if (block == NO_BLOCK)
		{
			*page = i;
			return true;
		}
		word = pg_atomic_read_u64(&blocks[block].pages[i - first].word);
		if (word & BUSY)
		{
			if (*busy == InvalidBlockNumber)
				*busy = i;
			earliest = 0;
		}
		else if (due_of(word) <= now)
		{
			*page = i;
			return true;
		}
		else
			earliest = Min(earliest, due_of(word));
	}
	if (from <= first && earliest > now && pg_atomic_read_u32(&group->block) == block)
		pg_atomic_compare_exchange_u64(&group->word, &seen, make_word_of(epoch, seen, earliest));
	return false;
}

/*
 * The first page at or behind "from" that is due. The caller holds a lock on
 * the segment's relation. Raises summaries that turn out too low.
 */
bool
queue_map_find(QueueSegment *segment, BlockNumber from, QueueTime now,
			   BlockNumber *page, BlockNumber *busy)
{
	uint8		epoch = queue_clock_epoch();
	uint64		seen = pg_atomic_read_u64(&segment->word);
	uint64		packed = (uint64) now / 1000;
	uint64		earliest = DUE_NEVER;
	uint32		groups;

	if (due_of(seen) > packed)
		return false;
	pg_memory_barrier();
	groups = (pg_atomic_read_u32(&segment->pages) + QUEUE_MAP_GROUP_PAGES - 1) / QUEUE_MAP_GROUP_PAGES;
	for (uint32 number = from / QUEUE_MAP_GROUP_PAGES; number < groups; number++)
	{
		MapGroup   *group = get_group(segment, number, true);

		if (group == NULL)
		{
			*page = Max(from, number * QUEUE_MAP_GROUP_PAGES);
			return true;		/* taking it will say that memory is out */
		}
		if (find_in_group(segment, group, number, from, packed, page, busy))
			return true;
		earliest = Min(earliest, due_of(pg_atomic_read_u64(&group->word)));
	}
	if (from == 0 && earliest > packed)
		pg_atomic_compare_exchange_u64(&segment->word, &seen, make_word_of(epoch, seen, earliest));
	return false;
}

/* ---- busy ---- */

/* Give back whatever is held, as unknown. Cannot fail. */
static void
forget_held(void)
{
	QueueMapHold hold = held;

	if (hold.segment == NULL)
		return;
	hold.was_due = QUEUE_TIME_NEVER;
	queue_map_put(&hold, 0);
}

/*
 * Take a page's busy bit if the page is due by "now" (QUEUE_TIME_NEVER: in any
 * case). What is held is remembered for the abort callbacks.
 */
QueueMapTake
queue_map_take(QueueSegment *segment, BlockNumber page, QueueTime now, QueueMapHold *hold)
{
	MapPage    *entry;
	uint64		word;
	uint64		packed = now == QUEUE_TIME_NEVER ? DUE_NEVER : (uint64) now / 1000;

	Assert(held.segment == NULL);
	for (;;)
	{
		/* Should it change, what is put back is not of the new one. */
		uint8		epoch = queue_clock_epoch();

		entry = get_page(segment, page, true);
		if (entry == NULL)
			return QUEUE_MAP_NO_MEMORY;
		word = pg_atomic_read_u64(&entry->word);
		if (word & BUSY)
			return QUEUE_MAP_BUSY;
		if (due_in(epoch, word) > packed)
			return QUEUE_MAP_NOT_DUE;
		if (!pg_atomic_compare_exchange_u64(&entry->word, &word,
											make_word(word | BUSY, DUE_NEVER)))
			continue;
		pg_memory_barrier();
		held.segment = segment;
		held.page = page;
		held.entry = entry;
		held.was_due = unpack_due(due_in(epoch, word));
		held.epoch = epoch;
		if (get_page(segment, page, false) == entry)
			break;
		/* The block went to somebody else: what we made busy is not our page. */
		forget_held();
	}
	*hold = held;
	return QUEUE_MAP_TAKEN;
}

/*
 * Give busy back: due becomes the earlier of what the holder found left and
 * what was lowered meanwhile.
 */
void
queue_map_put(QueueMapHold *hold, QueueTime due)
{
	MapPage    *entry = hold->entry;
	uint64		packed;
	uint64		old = pg_atomic_read_u64(&entry->word);
	uint8		epoch;

	Assert(old & BUSY);
	do
	{
		epoch = queue_clock_epoch();
		packed = hold->epoch == epoch ? pack_due(due) : 0;
	}
	while (!pg_atomic_compare_exchange_u64(&entry->word, &old,
										   make_word_of(epoch, old & ~(BUSY | WAITED),
														Min(due_in(epoch, old), packed))));
	/* Found due, it cannot have let a summary rise; taken early, it may have. */
	if (packed < pack_due(hold->was_due))
	{
		MapGroup   *group = get_group(hold->segment, hold->page / QUEUE_MAP_GROUP_PAGES, false);

		if (group)
			lower_summary(&group->word, packed);
		lower_summary(&hold->segment->word, packed);
	}
	/* Whoever waits knows the page by its place in its group. */
	wake_waiters(old, hold->page % QUEUE_MAP_GROUP_PAGES);
	hold->segment = NULL;
	held.segment = NULL;
}

/* Give back what an aborted call held, as unknown. Cannot fail. */
void
queue_map_abort(void)
{
	forget_held();
}

/* Sleep, interruptibly, until a busy page is given back. */
void
queue_map_wait(QueueSegment *segment, BlockNumber page)
{
	static uint32 wait_event = 0;	/* named at first use */
	MapPage    *entry = get_page(segment, page, false);
	ConditionVariable *condition = &shared->waits[page % QUEUE_MAP_GROUP_PAGES % WAIT_CONDITIONS];

	if (entry == NULL)
		return;
	if (wait_event == 0)
		wait_event = queue_wait_event_new("QueuePageBusy");
	ConditionVariablePrepareToSleep(condition);
	for (;;)
	{
		uint64		word = pg_atomic_read_u64(&entry->word);

		if (!(word & BUSY))
			break;
		if (!(word & WAITED) &&
			!pg_atomic_compare_exchange_u64(&entry->word, &word, word | WAITED))
			continue;
		/* The timeout is for blocks that were taken away meanwhile. */
		if (ConditionVariableTimedSleep(condition, 10, wait_event))
			break;
	}
	ConditionVariableCancelSleep();
}

/* ---- marks ---- */

/* Remember something about the held page, as long as it is mapped. */
void
queue_map_mark(QueueMapHold *hold, uint32 mark)
{
	pg_atomic_write_u32(&hold->entry->mark, mark);
}

/* What is remembered about a page: a hint, 0 if there is nothing. */
uint32
queue_map_marked(QueueSegment *segment, BlockNumber page)
{
	MapPage    *entry = get_page(segment, page, false);

	return entry ? pg_atomic_read_u32(&entry->mark) : 0;
}

/* ---- chains ---- */

/*
 * Head of the chain of slots of the held page. It stays where it is as long as
 * a slot hangs on it.
 */
pg_atomic_uint32 *
queue_map_chain(QueueMapHold *hold)
{
	return &hold->entry->chain;
}

/*
 * The same for somebody who does not hold the page: a hint, the block may be
 * reused any time. NULL if the page is not mapped.
 */
pg_atomic_uint32 *
queue_map_chain_hint(QueueSegment *segment, BlockNumber page)
{
	MapPage    *entry = get_page(segment, page, false);

	return entry ? &entry->chain : NULL;
}

LWLock *
queue_map_chain_lock(pg_atomic_uint32 *chain)
{
	uint32		hash = (uint32) (((char *) chain - (char *) blocks) / sizeof(MapPage));

	return &locks[1 + hash % QUEUE_MAP_CHAIN_LOCKS].lock;
}
