/*
 * order.c
 *	  The rules of ordered queues: what of a key may be taken, and when.
 *
 * src/README.md, "Order", has what must hold. A key's next message is that with
 * the lowest id of those that cool, the copies, and the first of the backlog,
 * which goes by place. Who holds the queue's turn decides, and nobody else takes
 * anything; only an extend makes a lease that had run out one that holds again, and
 * it does not where the key has gone on.
 */
#include "postgres.h"

#include "access/htup_details.h"

#include "order.h"
#include "segment.h"

/*
 * Keys are told apart by this; a message without one has that of the empty key.
 * Keys of ordered queues are short (queue_message_check_key()), so they are in
 * the row, as they are.
 */
uint64
queue_order_hash(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, QUEUE_COLUMN_KEY, desc, &isnull);
	struct varlena *key = isnull ? NULL : (struct varlena *) DatumGetPointer(value);

	/* By hand somebody may have stored another: all of these share one. */
	if (key == NULL || VARATT_IS_EXTERNAL(key) || VARATT_IS_COMPRESSED(key))
		return queue_message_hash_key("", 0);
	return queue_message_hash_key(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
}

/* The key among those that are sought on the page at hand; NULL: it is not, or all are. */
static QueueSought *
find_sought(QueueOrder *order, uint64 hash)
{
	int			low = 0;
	int			high = order->sought_count;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (order->sought[middle]->hash < hash)
			low = middle + 1;
		else
			high = middle;
	}
	return low < order->sought_count && order->sought[low]->hash == hash && order->sought[low]->here
		? order->sought[low] : NULL;
}

/* Whether something of the key may be taken from the page at hand, as far as others are concerned. */
bool
queue_order_seeks(QueueOrder *order, uint64 hash)
{
	return order->sought_count == 0 || find_sought(order, hash) != NULL;
}

/*
 * Who looks at a page that is due, and has come to it by another way than from
 * all due pages before it, must not let anything on it wait: something of the
 * same key may be on a page before it that nobody has looked at yet.
 */
void
queue_order_begin_page(QueueOrder *order, QueuePosition position, bool was_due)
{
	order->in_line = !was_due || (order->has_turn && order->sought_count == 0);
	order->visit = queue_key_new_call();
	order->position = position;
	order->lowest = PG_INT64_MAX;
	order->other_key = false;
	for (int i = 0; i < order->sought_count; i++)
	{
		order->sought[i]->took = 0;
		order->sought[i]->waits = order->sought[i]->undecided = order->sought[i]->no_room = false;
	}
}

/* Whether the page at hand was come to from all that may have something of this key before it. */
static bool
is_in_line(const QueueOrder *order, uint64 hash)
{
	return order->in_line || (order->chosen && order->hash == hash);
}

/* The first of a locked key's messages that cool and can still be delivered. */
static int64
first_cooling(const QueueKey *key, QueuePosition *at)
{
	int64		first = PG_INT64_MAX;

	for (uint32 link = key->slots; link != 0; link = queue_slot(link - 1)->next_of_key)
	{
		QueueSlot  *slot = queue_slot(link - 1);
		uint64		word = pg_atomic_read_u64(&slot->word);

		if (QUEUE_SLOT_STATE(word) != QUEUE_SLOT_COOLING || (word & QUEUE_SLOT_DEAD) ||
			slot->message_id >= first)
			continue;
		first = slot->message_id;
		*at = QUEUE_POSITION(queue_segment_at(slot->segment)->rank,
							 ItemPointerGetBlockNumber(&slot->tid));
	}
	return first;
}

void
queue_order_read(QueueKey *key, QueueKeyFacts *facts)
{
	facts->number = queue_key_number(key);
	facts->hash = key->hash;
	facts->held = queue_slot_holds_key(key);
	facts->first_cooling = first_cooling(key, &facts->cooling_at);
	facts->backlog = key->backlog;
	facts->backlog_from = key->backlog_from;
	facts->copies = key->copies;
	facts->first_copy = key->first_copy;
	facts->apart = key->apart;
}

/*
 * Slots that seem to hold a key and perhaps do not: leases that have run out, and
 * settlements that were prepared. How many were written.
 */
uint32
queue_order_doubtful(QueueState *state, uint64 hash, QueueTime now, uint32 *slots, uint64 *sequences, uint32 room)
{
	QueueKey   *key = queue_key_find(state, hash);
	uint32		n = 0;

	if (key == NULL)
		return 0;
	for (uint32 link = key->slots; link != 0 && n < room; link = queue_slot(link - 1)->next_of_key)
	{
		QueueSlot  *slot = queue_slot(link - 1);
		uint64		word = pg_atomic_read_u64(&slot->word);

		if (!(word & QUEUE_SLOT_PREPARED) &&
			(QUEUE_SLOT_STATE(word) != QUEUE_SLOT_LEASED || slot->deadline > now))
			continue;
		slots[n] = link - 1;
		sequences[n++] = QUEUE_SLOT_SEQUENCE(word);
	}
	queue_key_unlock(key);
	return n;
}

/* A locked key's message stays where it is, on the page at hand. */
static void
let_wait(QueueOrder *order, QueueKey *key, const QueueMessageHead *head)
{
	if (!head->is_copy)
		queue_key_let_wait(key, order->position, head->id);
	key->passed_in = order->visit;
}

/* Whether all that holds the key was taken by this very call, which may go on. */
static bool
is_ours(QueueOrder *order, const QueueKey *key)
{
	return key->call == order->call && !key->blocked && !key->alone && key->passed_in <= order->call &&
		key->failed_as == PG_UINT32_MAX;
}

/* The lowest id of a locked key's copies; QUEUE_COPY_UNKNOWN is lower than any. */
static int64
first_copy(const QueueKey *key)
{
	return queue_span_is_empty(&key->copies) ? QUEUE_COPY_NONE : key->first_copy;
}

static bool
is_before_backlog(const QueueKey *key, int64 id)
{
	return queue_span_is_empty(&key->backlog) || id < key->backlog_from;
}

static bool
may_take_copy(QueueKey *key, int64 id)
{
	QueuePosition at;

	return !queue_slot_holds_key(key) && first_copy(key) == id && first_cooling(key, &at) > id &&
		is_before_backlog(key, id);
}

static bool
may_take_cooling(QueueKey *key, int64 id)
{
	QueuePosition at;

	return !queue_slot_holds_key(key) && first_cooling(key, &at) == id && first_copy(key) >= id &&
		is_before_backlog(key, id);
}

static bool
may_take_backlog(QueueOrder *order, QueueKey *key, int64 id)
{
	bool		ours = is_ours(order, key);
	QueuePosition at;

	if (key->passed_in == order->visit ||
		(!queue_span_is_empty(&key->backlog) && order->position > key->backlog.first))
		return false;
	/* It is the first of the backlog. While the key is ours nothing of it begins to cool. */
	if (first_copy(key) < id || (ours ? key->cooling : first_cooling(key, &at)) < id)
	{
		queue_key_let_wait(key, order->position, id);
		key->backlog_from = id;
		return false;
	}
	return ours || !queue_slot_holds_key(key);
}

/*
 * Whether a message of the backlog may have been passed over by nobody, on a page
 * that we have not come to in line: then others of the key may be before it that
 * nobody has looked at.
 */
static bool
is_out_of_line(QueueOrder *order, const QueueKey *key, const QueueMessageHead *head)
{
	return !is_in_line(order, key->hash) && !head->is_copy &&
		(queue_span_is_empty(&key->backlog) || head->id > key->backlog_to);
}

/*
 * Whether the message, due and held by nobody, may be taken; otherwise the
 * key's entry knows of it after this.
 */
QueueOrderVerdict
queue_order_judge(QueueOrder *order, uint64 hash, const QueueMessageHead *head, QueueHeldAs held)
{
	QueueSought *sought = find_sought(order, hash);
	bool		ours = sought || order->sought_count == 0;
	bool		in_line = is_in_line(order, hash);
	QueueKey   *key = ours || in_line ? queue_key_find(order->state, hash) : NULL;
	bool		may;

	if (key == NULL)
		return in_line ? QUEUE_ORDER_TAKE : QUEUE_ORDER_DUE;
	if (held == QUEUE_HELD_NOT && is_out_of_line(order, key, head))
	{
		queue_key_unlock(key);
		return QUEUE_ORDER_DUE;
	}
	if (held == QUEUE_HELD_CLAIMABLE)
		may = ours && may_take_cooling(key, head->id);
	else if (head->is_copy)
		may = ours && may_take_copy(key, head->id);
	else
		may = ours && may_take_backlog(order, key, head->id);
	if (!may && held != QUEUE_HELD_CLAIMABLE)
		let_wait(order, key, head);
	if (!may && sought && held == QUEUE_HELD_NOT)
		sought->waits = true;
	/* Its time has come, and will not come again: somebody has to see what is before it. */
	if (!may && (head->is_copy || held == QUEUE_HELD_CLAIMABLE) && !sought && !queue_slot_holds_key(key))
		queue_key_make_ready(key);
	queue_key_unlock(key);
	return may ? QUEUE_ORDER_TAKE : QUEUE_ORDER_WAIT;
}

/* Whether nothing is known of a key. */
bool
queue_order_is_free(QueueOrder *order, uint64 hash)
{
	QueueKey   *key = queue_key_find(order->state, hash);

	if (key)
		queue_key_unlock(key);
	return key == NULL;
}

/* The message is not taken, whether it could be or not. */
QueueOrderVerdict
queue_order_pass(QueueOrder *order, uint64 hash, const QueueMessageHead *head)
{
	QueueKey   *key = order->in_line ? queue_key_find(order->state, hash) : NULL;

	if (key == NULL)
		return QUEUE_ORDER_DUE;
	let_wait(order, key, head);
	/* A copy that is due has no time that would tell. */
	if (head->is_copy && !queue_slot_holds_key(key))
		queue_key_make_ready(key);
	queue_key_unlock(key);
	return QUEUE_ORDER_WAIT;
}

/*
 * A message that could be had is not asked for, since only its key's hash is that
 * of the key that is: nothing behind it can be had, for the two share an entry.
 */
void
queue_order_leave(QueueOrder *order, uint64 hash)
{
	QueueSought *sought = find_sought(order, hash);

	order->other_key = true;
	if (sought)
		sought->undecided = true;
}

/* A message that could be had is too long for what the result has room for. */
void
queue_order_no_room(QueueOrder *order, uint64 hash)
{
	QueueSought *sought = find_sought(order, hash);

	if (sought)
		sought->no_room = true;
}

/* What is in line of a key that has copies is known, though its page may be due. */
void
queue_order_learn(QueueOrder *order, uint64 hash, const QueueMessageHead *head)
{
	QueueKey   *key = queue_key_find(order->state, hash);

	order->lowest = Min(order->lowest, head->id);
	if (key == NULL)
		return;
	queue_key_let_wait(key, order->position, head->id);
	queue_key_unlock(key);
}

/* A copy makes its key known, whether it is due or not. False: no room. */
bool
queue_order_know_copy(QueueOrder *order, uint64 hash, const QueueMessageHead *head)
{
	QueueKey   *key = queue_key_get(order->state, hash);

	if (key == NULL)
	{
		order->lacks_keys = true;
		return false;
	}
	queue_key_add_copy(key, order->position, head->id);
	queue_key_unlock(key);
	order->highest_copy = Max(order->highest_copy, head->id);
	return true;
}

/* Whether the entry of a locked key has the place at hand among those where something waits. */
static bool
is_in_backlog(QueueOrder *order, const QueueKey *key)
{
	return order->position >= key->backlog.first && order->position <= key->backlog.last;
}

/* A copy is being deleted by somebody unknown: the lowest id is not known until that has ended. */
static bool
undecided_copy(QueueOrder *order, uint64 hash, const QueueMessageHead *head)
{
	QueueKey   *key = queue_key_get(order->state, hash);

	if (key == NULL)
	{
		order->lacks_keys = true;
		return false;
	}
	queue_key_add_copy(key, order->position, head->id);
	key->first_copy = QUEUE_COPY_UNKNOWN;
	key->one_copy = false;
	key->passed_in = order->visit;
	queue_key_unlock(key);
	order->highest_copy = Max(order->highest_copy, head->id);
	return true;
}

/*
 * A message that somebody unknown deletes is neither there nor gone: those
 * behind it wait, and the key is looked at again at the given time. False: nobody
 * knows of it, and the page must be looked at again.
 */
bool
queue_order_undecided(QueueOrder *order, uint64 hash, const QueueMessageHead *head, QueueTime again)
{
	bool		may_add = is_in_line(order, hash) && order->has_turn;
	QueueSought *sought = find_sought(order, hash);
	QueueKey   *key;
	bool		known;

	if (sought)
		sought->undecided = true;
	queue_key_look_later(order->state, again);
	if (head->is_copy)
		return undecided_copy(order, hash, head);
	if (order->learns)
	{
		queue_order_learn(order, hash, head);
		return false;
	}
	key = may_add ? queue_key_get(order->state, hash) : queue_key_find(order->state, hash);
	order->lacks_keys |= may_add && key == NULL;
	if (key == NULL)
		return false;
	if (may_add)
		queue_key_let_wait(key, order->position, head->id);
	/* Those behind it on this page are not taken in any case. */
	key->passed_in = order->visit;
	known = is_in_backlog(order, key);
	queue_key_unlock(key);
	return known;
}

/*
 * A message is held, or was when the page's slots were read; should it have come
 * back since, those behind it are not taken in this visit.
 */
void
queue_order_see_held(QueueOrder *order, uint64 hash, QueueHeldAs held)
{
	QueueKey   *key = queue_key_find(order->state, hash);
	QueueSought *sought = find_sought(order, hash);

	if (key == NULL)
		return;
	key->passed_in = order->visit;
	/* What cools is looked for elsewhere. */
	if (sought && held != QUEUE_HELD_COOLING)
		sought->waits = true;
	queue_key_unlock(key);
}

/*
 * Hang a locked slot on its key, as the next that this call takes of it. False:
 * there is no room for the key.
 */
bool
queue_order_take(QueueOrder *order, uint64 hash, QueueSlot *slot)
{
	QueueKey   *key = queue_key_get(order->state, hash);
	QueueSought *sought = find_sought(order, hash);
	QueuePosition at;

	if (key == NULL)
	{
		order->lacks_keys = true;
		return false;
	}
	if (key->call != order->call)
	{
		key->cooling = first_cooling(key, &at);
		key->call = order->call;
		key->taken = 0;
		key->failed_as = PG_UINT32_MAX;
		key->passed_in = 0;
	}
	queue_key_not_ready(key);
	key->apart = false;
	key->alone = slot->is_copy || slot->key != 0;
	slot->call = order->call;
	slot->taken_as = key->taken++;
	if (!key->alone && !queue_span_is_empty(&key->backlog))
		key->backlog_from = Max(key->backlog_from, slot->message_id + 1);
	if (slot->key == 0)
		queue_slot_link_key(slot, key);
	queue_key_unlock(key);
	if (sought)
		sought->took++;
	return true;
}

/* Hang a locked slot that the worker gets on its key, if that has an entry. */
void
queue_order_hang(QueueOrder *order, uint64 hash, QueueSlot *slot)
{
	QueueKey   *key = slot->key == 0 ? queue_key_find(order->state, hash) : NULL;

	if (key == NULL)
		return;
	slot->call = 0;
	slot->taken_as = 0;
	queue_slot_link_key(slot, key);
	queue_key_unlock(key);
}
