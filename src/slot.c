/*
 * slot.c
 *	  The array of slots, its free list, and how a slot changes.
 *
 * A slot changes only between queue_slot_lock() and queue_slot_unlock(): the
 * first sets LOCKED in the word by CAS, the second publishes the new state.
 * Between the two there is no wait, no allocation and nothing that can fail,
 * so LOCKED is a spinlock that every reader outwaits. The sequence in the word
 * counts holders: whoever remembers a slot remembers the sequence, and a slot
 * that has gone on to another holder no longer matches (no ABA).
 *
 * Free slots wait in a ring, so that the one longest free is taken next: an
 * ack that is repeated meanwhile still finds its receipt.
 *
 * Limits: a queue that holds few slots may take from the last eighth, others
 * leave it alone, and no queue takes more than half of all.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/s_lock.h"

#include "guc.h"
#include "slot.h"

#define MINIMUM_SHARE 16
#define RESERVE_AT_ONCE 128

typedef union PaddedSlot
{
	QueueSlot	slot;
	char		pad[TYPEALIGN(PG_CACHE_LINE_SIZE, sizeof(QueueSlot))];
} PaddedSlot;

typedef struct SlotShared
{
	/* under the slot lock: the ring of free slots */
	uint32		head;			/* next to take */
	uint32		count;
} SlotShared;

/* Attached at start, the same in every process. */
static SlotShared *shared;
static uint32 *ring;
static PaddedSlot *slots_array;
static pg_atomic_uint64 *attempts;	/* by slot; written by whoever has it LOCKED */
static QueueMeters *meters;		/* likewise */
static LWLockPadded *locks;

/* Free slots this backend has taken and not used yet, for the abort callback. */
static QueueState *reserved_for;
static uint32 reserved[RESERVE_AT_ONCE];
static pg_uuid_t reserved_receipts[RESERVE_AT_ONCE];
static uint32 reserved_count;
static uint32 reserved_used;

static Size
slot_size(void)
{
	Size		size = PG_CACHE_LINE_SIZE * 2 + sizeof(SlotShared);

	size = add_size(size, mul_size(queue_max_leases, sizeof(uint32)));
	size = add_size(size, mul_size(queue_max_leases, sizeof(pg_atomic_uint64)));
	size = add_size(size, mul_size(queue_max_leases, sizeof(QueueMeters)));
	return add_size(size, mul_size(queue_max_leases, sizeof(PaddedSlot)));
}

static void
slot_init(void *area, bool found)
{
	shared = area;
	slots_array = (PaddedSlot *) CACHELINEALIGN((char *) area + sizeof(SlotShared));
	attempts = (pg_atomic_uint64 *) (slots_array + queue_max_leases);
	meters = (QueueMeters *) (attempts + queue_max_leases);
	ring = (uint32 *) (meters + queue_max_leases);
	locks = GetNamedLWLockTranche("QueueSlot");
	if (found)
		return;
	shared->head = 0;
	shared->count = queue_max_leases;
	memset(meters, 0, sizeof(QueueMeters) * queue_max_leases);
	for (uint32 i = 0; i < (uint32) queue_max_leases; i++)
	{
		ring[i] = i;
		memset(&slots_array[i], 0, sizeof(PaddedSlot));
		pg_atomic_init_u64(&slots_array[i].slot.word, 0);
		pg_atomic_init_u64(&attempts[i], 0);
	}
}

const QueueShmemPart queue_slot_shmem = {
	"queue slots", slot_size, slot_init, "QueueSlot", 1, NULL
};

QueueSlot *
queue_slot(uint32 number)
{
	return &slots_array[number].slot;
}

uint32
queue_slot_number(const QueueSlot *slot)
{
	return (const PaddedSlot *) slot - slots_array;
}

uint32
queue_slot_count(void)
{
	return queue_max_leases;
}

uint32
queue_slot_free_count(void)
{
	return shared->count;
}

/* What counts a slot's lease, or did last; of a slot that is locked. */
QueueMeters *
queue_slot_meters(const QueueSlot *slot)
{
	return &meters[queue_slot_number(slot)];
}

/* A locked slot's lease ends, and counts no more. True: that has made room for somebody. */
bool
queue_slot_end_metering(QueueSlot *slot)
{
	if (!slot->metered)
		return false;
	slot->metered = false;
	return queue_meter_end(&queue_states[slot->queue], queue_slot_meters(slot));
}

/* The number of the attempt that leased a slot last; 0: it gave none. */
uint64
queue_slot_attempt(uint32 number)
{
	return pg_atomic_read_u64(&attempts[number]);
}

/* The slot is locked. Most have none, and need no write. */
void
queue_slot_set_attempt(uint32 number, uint64 attempt)
{
	if (pg_atomic_read_u64(&attempts[number]) != attempt)
		pg_atomic_write_u64(&attempts[number], attempt);
}

/* How many of the wanted slots the queue may have. */
static uint32
allowance(uint32 held, uint32 free, uint32 wanted)
{
	uint32		cap = queue_max_leases / 2;
	uint32		reserve = queue_max_leases / 8;
	uint32		allowed = 0;

	if (held < MINIMUM_SHARE)
		allowed = MINIMUM_SHARE - held;
	if (free > reserve && held < cap)
		allowed = Max(allowed, Min(free - reserve, cap - held));
	return Min(Min(wanted, allowed), free);
}

/*
 * Take up to "wanted" free slots. They keep state and sequence of their last
 * life until queue_slot_next_word() begins another.
 */
static uint32
take_slots(QueueState *state, uint32 wanted, uint32 *slots)
{
	uint32		n;

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	n = allowance(pg_atomic_read_u32(&state->slots), shared->count, wanted);
	for (uint32 i = 0; i < n; i++)
	{
		slots[i] = ring[shared->head];
		if (++shared->head == (uint32) queue_max_leases)
			shared->head = 0;
	}
	shared->count -= n;
	pg_atomic_fetch_add_u32(&state->slots, n);
	LWLockRelease(&locks[0].lock);
	return n;
}

/* Put free slots at the end of the ring. Cannot fail. */
void
queue_slot_give_back(QueueState *state, uint32 n, const uint32 *slots)
{
	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < n; i++)
	{
		ring[(shared->head + shared->count) % (uint32) queue_max_leases] = slots[i];
		shared->count++;
	}
	pg_atomic_fetch_sub_u32(&state->slots, n);
	LWLockRelease(&locks[0].lock);
}

/* Lock the slot whoever has it; returns the word to change from. */
uint64
queue_slot_lock(QueueSlot *slot)
{
	SpinDelayStatus delay;
	uint64		word = pg_atomic_read_u64(&slot->word);

	init_local_spin_delay(&delay);
	for (;;)
	{
		if (word & QUEUE_SLOT_LOCKED)
		{
			perform_spin_delay(&delay);
			word = pg_atomic_read_u64(&slot->word);
		}
		else if (pg_atomic_compare_exchange_u64(&slot->word, &word, word | QUEUE_SLOT_LOCKED))
			break;
	}
	finish_spin_delay(&delay);
	return word;
}

/* Lock it only if it still has the holder that we remember. */
bool
queue_slot_lock_sequence(QueueSlot *slot, uint64 sequence, uint64 *word)
{
	*word = queue_slot_lock(slot);
	if (QUEUE_SLOT_SEQUENCE(*word) == sequence)
		return true;
	queue_slot_unlock(slot, *word);
	return false;
}

void
queue_slot_unlock(QueueSlot *slot, uint64 word)
{
	Assert(!(word & QUEUE_SLOT_LOCKED));
	Assert(pg_atomic_read_u64(&slot->word) & QUEUE_SLOT_LOCKED);
	pg_write_barrier();
	pg_atomic_write_u64(&slot->word, word);
}

/* The word for another state of the same holder. */
uint64
queue_slot_word(uint64 old, QueueSlotState state, uint32 flags)
{
	return (QUEUE_SLOT_SEQUENCE(old) << 16) | flags | state;
}

/* The word for another holder: receipts of older ones no longer match. */
uint64
queue_slot_next_word(uint64 old, QueueSlotState state, uint32 flags)
{
	return ((QUEUE_SLOT_SEQUENCE(old) + 1) << 16) | flags | state;
}

/* Hang the slot on the page that the caller holds busy. */
void
queue_slot_link(QueueSlot *slot, QueueMapHold *hold)
{
	pg_atomic_uint32 *chain = queue_map_chain(hold);
	LWLock	   *lock = queue_map_chain_lock(chain);
	uint32		number = queue_slot_number(slot) + 1;
	uint32		first;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	first = pg_atomic_read_u32(chain);
	slot->chain = chain;
	slot->previous_slot = 0;
	slot->next_slot = first;
	if (first)
		queue_slot(first - 1)->previous_slot = number;
	pg_atomic_write_u32(chain, number);
	LWLockRelease(lock);
}

/*
 * Take a locked slot off its page. Its chain is set once, before anybody else
 * can know the slot.
 */
void
queue_slot_unlink(QueueSlot *slot)
{
	LWLock	   *lock;

	if (slot->chain == NULL)
		return;
	lock = queue_map_chain_lock(slot->chain);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (slot->previous_slot)
		queue_slot(slot->previous_slot - 1)->next_slot = slot->next_slot;
	else
		pg_atomic_write_u32(slot->chain, slot->next_slot);
	if (slot->next_slot)
		queue_slot(slot->next_slot - 1)->previous_slot = slot->previous_slot;
	slot->chain = NULL;
	LWLockRelease(lock);
}

/* Hang a locked slot on the entry of its message's key, which is locked too. */
void
queue_slot_link_key(QueueSlot *slot, QueueKey *key)
{
	uint32		number = queue_slot_number(slot) + 1;

	slot->key = queue_key_number(key) + 1;
	slot->previous_of_key = 0;
	slot->next_of_key = key->slots;
	if (key->slots)
		queue_slot(key->slots - 1)->previous_of_key = number;
	key->slots = number;
}

/* Whether nobody may have another message of the slot's key. */
static bool
holds_key(const QueueSlot *slot)
{
	uint64		word = pg_atomic_read_u64((pg_atomic_uint64 *) &slot->word);

	switch (QUEUE_SLOT_STATE(word))
	{
		case QUEUE_SLOT_LEASED:
		case QUEUE_SLOT_SETTLING:
			return true;
		case QUEUE_SLOT_COOLING:
			/* Until the worker has written that it blocks the key. */
			return slot->blocks_dead && (word & QUEUE_SLOT_DEAD) && !(word & QUEUE_SLOT_EXPIRED);
		case QUEUE_SLOT_FREE:
			/* It hangs on the key, so it is just being taken. */
			return true;
	}
	return false;
}

/* Whether a locked key is blocked, or a message of it is leased, or its settlement not decided. */
bool
queue_slot_holds_key(const QueueKey *key)
{
	if (key->blocked)
		return true;
	for (uint32 link = key->slots; link != 0; link = queue_slot(link - 1)->next_of_key)
		if (holds_key(queue_slot(link - 1)))
			return true;
	return false;
}

/*
 * A message whose lease has run out is leased again: publish that for its locked
 * slot, unless the key has gone on to others. Returns whether it did.
 */
bool
queue_slot_hold_again(QueueSlot *slot, uint64 word)
{
	QueueKey   *key = queue_key_lock(slot->key - 1);
	bool		free = !queue_slot_holds_key(key);

	if (free)
		queue_slot_unlock(slot, word);
	queue_key_unlock(key);
	return free;
}

/*
 * Take a locked slot off its key. Returns whether what is left of the key is to
 * be looked at now: nobody holds it any more. The slot's own state does not
 * count, so it does not matter that it is published later.
 */
static bool
unlink_key(QueueSlot *slot)
{
	QueueKey   *key;
	bool		ready = false;

	if (slot->key == 0)
		return false;
	key = queue_key_lock(slot->key - 1);
	if (slot->previous_of_key)
		queue_slot(slot->previous_of_key - 1)->next_of_key = slot->next_of_key;
	else
		key->slots = slot->next_of_key;
	if (slot->next_of_key)
		queue_slot(slot->next_of_key - 1)->previous_of_key = slot->previous_of_key;
	slot->key = 0;
	if (queue_key_has_more(key) && !queue_slot_holds_key(key))
		ready = queue_key_make_ready(key);
	queue_key_unlock(key);
	return ready;
}

/* Leased slots of a key that a call took behind another; how many were written. */
uint32
queue_slot_taken_behind(uint32 number, uint64 call, uint32 taken_as,
						uint32 *slots, uint64 *sequences, uint32 room)
{
	QueueKey   *key = queue_key_lock(number);
	uint32		n = 0;

	if (key == NULL)
		return 0;
	for (uint32 link = key->slots; link != 0 && n < room; link = queue_slot(link - 1)->next_of_key)
	{
		QueueSlot  *slot = queue_slot(link - 1);
		uint64		word = pg_atomic_read_u64(&slot->word);

		if (QUEUE_SLOT_STATE(word) != QUEUE_SLOT_LEASED || slot->call != call ||
			slot->taken_as <= taken_as)
			continue;
		slots[n] = link - 1;
		sequences[n++] = QUEUE_SLOT_SEQUENCE(word);
	}
	queue_key_unlock(key);
	return n;
}

/*
 * End a slot's life: off the page, off its key, and free. The caller has it
 * locked, gives the word it locked from, and puts the slot back into the ring
 * afterwards with queue_slot_give_back(). Cannot fail. LOCKED is held over
 * LWLocks here; nobody who holds one of them waits for LOCKED. Returns whether
 * somebody is to look: a key may go on, or a limit has room.
 */
bool
queue_slot_retire(QueueSlot *slot, uint64 word, uint32 flags)
{
	bool		ready;

	queue_slot_unlink(slot);
	ready = unlink_key(slot);
	ready |= queue_slot_end_metering(slot);
	queue_slot_unlock(slot, queue_slot_word(word, QUEUE_SLOT_FREE, flags));
	return ready;
}

/* The same, and back into the ring at once. */
bool
queue_slot_free(QueueSlot *slot, uint64 word, uint32 flags)
{
	uint32		number = queue_slot_number(slot);
	QueueState *state = &queue_states[slot->queue];
	bool		ready = queue_slot_retire(slot, word, flags);

	queue_slot_give_back(state, 1, &number);
	return ready;
}

static uint32
walk_chain(pg_atomic_uint32 *chain, uint32 *slots, uint32 room)
{
	LWLock	   *lock;
	uint32		n = 0;
	uint32		link;

	if (pg_atomic_read_u32(chain) == 0)
		return 0;
	lock = queue_map_chain_lock(chain);
	LWLockAcquire(lock, LW_SHARED);
	link = pg_atomic_read_u32(chain);
	/* The bounds are for a hint whose block was reused for something else. */
	while (link != 0 && link <= (uint32) queue_max_leases && n < room)
	{
		slots[n++] = link - 1;
		link = queue_slot(link - 1)->next_slot;
	}
	LWLockRelease(lock);
	return n;
}

/*
 * Free all slots of a segment that are not of this generation (0: all): what
 * they remember of places is void. Their messages live on or are deleted for
 * good; in both cases nobody holds them. Cannot fail.
 */
void
queue_slot_forget_segment(uint32 segment, uint32 generation)
{
	for (uint32 i = 0; i < (uint32) queue_max_leases; i++)
	{
		QueueSlot  *slot = queue_slot(i);
		uint64		word;

		if (QUEUE_SLOT_STATE(pg_atomic_read_u64(&slot->word)) == QUEUE_SLOT_FREE ||
			slot->segment != segment)
			continue;
		word = queue_slot_lock(slot);
		if (QUEUE_SLOT_STATE(word) != QUEUE_SLOT_FREE && slot->segment == segment &&
			(generation == 0 || slot->generation != generation))
			queue_slot_free(slot, word, 0);
		else
			queue_slot_unlock(slot, word);
	}
}

/*
 * The slots that hang on a held page, at most "room" of them; returns how many
 * there are. By the time the caller looks at one it may be free, or hang
 * elsewhere: it checks under the slot's lock. None can be added meanwhile.
 */
uint32
queue_slot_chained(QueueMapHold *hold, uint32 *slots, uint32 room)
{
	return walk_chain(queue_map_chain(hold), slots, room);
}

/* The same for somebody who does not hold the page: a hint. */
uint32
queue_slot_on_page(QueueSegment *segment, BlockNumber page, uint32 *slots, uint32 room)
{
	pg_atomic_uint32 *chain = queue_map_chain_hint(segment, page);

	return chain ? walk_chain(chain, slots, room) : 0;
}

/*
 * Version 8 (RFC 9562): four bytes of slot number, the rest random but for the
 * six bits of version and variant.
 */
static void
make_receipts(pg_uuid_t *receipts, const uint32 *slots, uint32 n)
{
	if (!pg_strong_random(receipts, sizeof(pg_uuid_t) * n))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values for receipts")));
	for (uint32 i = 0; i < n; i++)
	{
		memcpy(receipts[i].data, &slots[i], sizeof(uint32));
		receipts[i].data[6] = (receipts[i].data[6] & 0x0F) | 0x80;
		receipts[i].data[8] = (receipts[i].data[8] & 0x3F) | 0x80;
	}
}

/*
 * Have free slots, with receipts, at hand for a page about to be visited.
 * Returns how many there are; what is not used is given back with
 * queue_slot_return_reserved(), or by an abort.
 */
uint32
queue_slot_reserve(QueueState *state, uint32 wanted)
{
	wanted = Min(wanted, RESERVE_AT_ONCE);
	if (reserved_for == state && reserved_count - reserved_used >= wanted)
		return reserved_count - reserved_used;
	queue_slot_return_reserved();
	reserved_for = state;
	reserved_used = 0;
	reserved_count = take_slots(state, wanted, reserved);
	make_receipts(reserved_receipts, reserved, reserved_count);
	return reserved_count;
}

/* The same, but only if none is at hand. */
void
queue_slot_reserve_more(QueueState *state, uint32 wanted)
{
	if (reserved_for != state || reserved_used == reserved_count)
		queue_slot_reserve(state, wanted);
}

/* Take one that is at hand, or get one; false if there is none. */
bool
queue_slot_use_reserved(QueueState *state, uint32 *slot, pg_uuid_t *receipt)
{
	if ((reserved_for != state || reserved_used == reserved_count) &&
		queue_slot_reserve(state, 1) == 0)
		return false;
	*slot = reserved[reserved_used];
	*receipt = reserved_receipts[reserved_used];
	reserved_used++;
	return true;
}

/* A receipt for a slot that goes on to its next holder. */
void
queue_slot_make_receipt(uint32 slot, pg_uuid_t *receipt)
{
	make_receipts(receipt, &slot, 1);
}

/* Cannot fail: abort callbacks call it too. */
void
queue_slot_return_reserved(void)
{
	if (reserved_count > reserved_used)
		queue_slot_give_back(reserved_for, reserved_count - reserved_used, reserved + reserved_used);
	reserved_count = reserved_used = 0;
}

/* The slot that a receipt names, whoever has it now; NULL if there is none. */
QueueSlot *
queue_slot_find(const pg_uuid_t *receipt)
{
	uint32		number;

	memcpy(&number, receipt->data, sizeof(uint32));
	return number < (uint32) queue_max_leases ? queue_slot(number) : NULL;
}
