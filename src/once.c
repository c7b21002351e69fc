/*
 * once.c
 *	  What becomes of a message that may have been enqueued before.
 *
 * A dedup_key is asked for first: within its window a message with it is a
 * duplicate, whatever became of the first. Then a unique_key: while a message
 * with it is in the queue it stays the only one, and the new one is left out or
 * takes its place. What is asked for, and what is stored, is one transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "acl.h"
#include "dedup.h"
#include "enqueue.h"
#include "guc.h"
#include "once.h"
#include "purge.h"

/* A message by one of its keys. */
typedef struct Asking
{
	pg_uuid_t	hash;
	int			message;
} Asking;

/* A row that was put with an id that may not be the message's at the end. */
typedef struct Put
{
	QueueDedupRow row;
	int			message;
	int64		id;
} Put;

typedef struct Once
{
	QueueDef   *def;
	QueueMessage *messages;
	QueueOnce  *onces;
	int			count;
	int		   *same_as;		/* another message of this call that stands for it; -1 */
	int64	   *other;			/* id of an earlier message that does; 0 */
	bool	   *replaces;		/* an earlier one */
	Asking	   *asking;
	int			asked;
	Put		   *puts;
	int			put_count;
} Once;

static int64
id_of(const QueueMessage *message)
{
	bool		isnull;
	Datum		id = queue_message_get(message, QUEUE_COLUMN_ID, &isnull);

	return isnull ? 0 : DatumGetInt64(id);
}

/* NULL: it has none. */
static const text *
text_of(const QueueMessage *message, QueueColumn column)
{
	bool		isnull;
	Datum		value = queue_message_get(message, column, &isnull);

	return isnull ? NULL : DatumGetTextPP(value);
}

static bool
is_new(const Once *once, int i)
{
	return once->same_as[i] < 0 && once->other[i] == 0;
}

/* In the order of hashes, so that two calls do not wait for each other; equal ones in that of messages. */
static int
compare_asking(const void *a, const void *b)
{
	const Asking *x = a;
	const Asking *y = b;
	int			order = memcmp(&x->hash, &y->hash, sizeof(pg_uuid_t));

	return order != 0 ? order : x->message - y->message;
}

static Asking *
ask(Once *once, int message)
{
	once->asking[once->asked].message = message;
	return &once->asking[once->asked++];
}

static void
sort_asking(Once *once)
{
	qsort(once->asking, once->asked, sizeof(Asking), compare_asking);
}

static bool
same_key(const Once *once, int i, int j)
{
	return j >= 0 && j < once->asked &&
		memcmp(&once->asking[i].hash, &once->asking[j].hash, sizeof(pg_uuid_t)) == 0;
}

/* Accept the key of a message, if nobody has; else *first is the id of who had it. */
static bool
accept_key(Once *once, QueueDedup *dedup, const Asking *asking, int64 *first)
{
	Put		   *put = &once->puts[once->put_count];

	put->message = asking->message;
	put->id = *first = id_of(&once->messages[asking->message]);
	if (!queue_dedup_accept(dedup, &asking->hash, first, &put->row))
		return false;
	once->put_count++;
	return true;
}

/* ---- dedup_key ---- */

static void
hash_dedup_key(Once *once, int i)
{
	const text *key = once->onces[i].dedup_key;

	if (once->def->options.dedup_scope == QUEUE_DEDUP_SCOPE_KEY)
	{
		const text *parts[] = {text_of(&once->messages[i], QUEUE_COLUMN_KEY), key};

		queue_dedup_hash(&ask(once, i)->hash, once->def->id, QUEUE_DEDUP_MESSAGE_OF_KEY, parts, 2);
	}
	else
		queue_dedup_hash(&ask(once, i)->hash, once->def->id, QUEUE_DEDUP_MESSAGE, &key, 1);
}

static void
ask_for_dedup_keys(Once *once)
{
	QueueDedup *dedup;

	once->asked = 0;
	for (int i = 0; i < once->count && once->def->options.dedup_window > 0; i++)
		if (once->onces[i].dedup_key)
			hash_dedup_key(once, i);
	if (once->asked == 0)
		return;
	sort_asking(once);
	dedup = queue_dedup_open(once->def->options.dedup_window);
	for (int i = 0; i < once->asked; i++)
	{
		int			message = once->asking[i].message;
		int64		first;

		CHECK_FOR_INTERRUPTS();
		if (same_key(once, i, i - 1))
		{
			int			before = once->asking[i - 1].message;

			once->same_as[message] = once->same_as[before] >= 0 ? once->same_as[before] : before;
		}
		else if (!accept_key(once, dedup, &once->asking[i], &first))
			once->other[message] = first;
	}
	queue_dedup_close(dedup);
}

/* ---- unique_key ---- */

/* So often, a millisecond apart, a message is looked for that somebody who does not wait has in hands. */
#define REPLACE_TRIES 100

/*
 * Delete the message with a unique key, so that another one takes its place; if
 * nobody has leased it. True: it is deleted. False: it stays, or has gone, in which
 * case the key is free by now. Waits for who deletes or moves it.
 */
static bool
delete_old(Once *once, int64 id, QueuePurgeSeen *seen, bool *stays)
{
	QueuePurgeFilter filter = {
		.states = QUEUE_MESSAGE_READY | QUEUE_MESSAGE_DELAYED | QUEUE_MESSAGE_FAILED,
		.older_than = DT_NOEND,
		.id = id,
		.seen = seen,
	};
	int64		deleted;

	memset(seen, 0, sizeof(*seen));
	/* What this command has stored can be deleted by it, and what has been committed since it began. */
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	deleted = queue_purge(once->def, &filter);
	PopActiveSnapshot();
	*stays = seen->leased && !TransactionIdIsValid(seen->open);
	if (deleted == 0 && TransactionIdIsValid(seen->open))
		XactLockTableWait(seen->open, NULL, NULL, XLTW_None);
	else if (deleted == 0 && !*stays)
		pg_usleep(1000);
	return deleted > 0;
}

static void
take_over_time(QueueMessage *message, TimestampTz visible_at)
{
	if (visible_at <= queue_clock_wall())
		queue_message_clear(message, QUEUE_COLUMN_VISIBLE_AT);
	else
		queue_message_set(message, QUEUE_COLUMN_VISIBLE_AT, TimestampTzGetDatum(visible_at));
}

/*
 * Let a message take the place of the one that has its unique key, if nobody has
 * that: the old one is deleted, and the new one stored as any other. Who deletes a
 * message has its unique key's row too, which gets the new id at the end.
 */
static void
replace(Once *once, QueueDedup **dedup, const Asking *asking, int64 old)
{
	int			message = asking->message;
	QueuePurgeSeen seen;
	bool		stays = false;

	for (int i = 0; i < REPLACE_TRIES && !stays; i++)
	{
		Put		   *put = &once->puts[once->put_count];
		QueueDedupRow row = put->row;

		CHECK_FOR_INTERRUPTS();
		queue_dedup_close(*dedup);
		if (delete_old(once, old, &seen, &stays))
		{
			*dedup = queue_dedup_open_unique();
			put->row = row;
			put->message = message;
			put->id = old;
			once->put_count++;
			once->replaces[message] = true;
			if (once->onces[message].on_conflict == QUEUE_CONFLICT_REPLACE)
				take_over_time(&once->messages[message], seen.visible_at);
			return;
		}
		*dedup = queue_dedup_open_unique();
		/* It may have gone meanwhile, or another one have come. */
		if (!stays && accept_key(once, *dedup, asking, &old))
			return;
	}
	once->other[message] = old;
}

/* Messages of one call with the same unique key: the first stands for all, or the last. */
static void
ask_for_unique_key(Once *once, QueueDedup **dedup, int from, int to)
{
	QueueOnConflict on_conflict = once->onces[once->asking[to].message].on_conflict;
	int			chosen = on_conflict == QUEUE_CONFLICT_SKIP ? from : to;
	int			message = once->asking[chosen].message;
	int64		first;

	for (int i = from; i <= to; i++)
		if (i != chosen)
			once->same_as[once->asking[i].message] = message;
	if (accept_key(once, *dedup, &once->asking[chosen], &first))
		return;
	if (on_conflict == QUEUE_CONFLICT_SKIP)
		once->other[message] = first;
	else
		replace(once, dedup, &once->asking[chosen], first);
}

static void
ask_for_unique_keys(Once *once)
{
	QueueDedup *dedup;

	once->asked = 0;
	for (int i = 0; i < once->count; i++)
	{
		const text *key = text_of(&once->messages[i], QUEUE_COLUMN_UNIQUE_KEY);

		if (key && is_new(once, i))
			queue_dedup_hash(&ask(once, i)->hash, once->def->id, QUEUE_DEDUP_UNIQUE, &key, 1);
	}
	if (once->asked == 0)
		return;
	sort_asking(once);
	dedup = queue_dedup_open_unique();
	for (int from = 0, to = 0; from < once->asked; from = ++to)
	{
		while (same_key(once, from, to + 1))
			to++;
		ask_for_unique_key(once, &dedup, from, to);
	}
	queue_dedup_close(dedup);
}

/* ---- storing ---- */

/* Store those that are new. */
static void
store_new(Once *once)
{
	QueueMessage *fresh = palloc(sizeof(QueueMessage) * once->count);
	int			n = 0;

	for (int i = 0; i < once->count; i++)
		if (is_new(once, i))
			fresh[n++] = once->messages[i];
	if (n > 0)
		queue_enqueue_checked(once->def, fresh, n);
	n = 0;
	for (int i = 0; i < once->count; i++)
		if (is_new(once, i))
			once->messages[i] = fresh[n++];
	pfree(fresh);
}

/* The id that the caller is told of, which is in the queue, or was. */
static int64
final_id(const Once *once, int i)
{
	while (once->same_as[i] >= 0)
		i = once->same_as[i];
	return once->other[i] != 0 ? once->other[i] : id_of(&once->messages[i]);
}

/* Rows that were put before the id was known, or for a message that another one stands for. */
static void
correct_ids(Once *once)
{
	bool		first = true;

	for (int i = 0; i < once->put_count; i++)
	{
		Put		   *put = &once->puts[i];
		int64		id = final_id(once, put->message);

		CHECK_FOR_INTERRUPTS();
		if (id == put->id)
			continue;
		if (first)
			CommandCounterIncrement();
		first = false;
		queue_dedup_set_id(&put->row, id);
	}
}

static bool
has_condition(const QueueMessage *messages, const QueueOnce *onces, int n)
{
	for (int i = 0; i < n; i++)
		if (onces[i].dedup_key || text_of(&messages[i], QUEUE_COLUMN_UNIQUE_KEY))
			return true;
	return false;
}

/* Whether a message has a header of that name, however it is written. */
static bool
has_header(const QueueMessage *message, const char *name)
{
	bool		isnull;
	Datum		headers = queue_message_get(message, QUEUE_COLUMN_HEADERS, &isnull);
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	item;

	if (isnull)
		return false;
	it = JsonbIteratorInit(&DatumGetJsonbP(headers)->root);
	while ((token = JsonbIteratorNext(&it, &item, true)) != WJB_DONE)
		if (token == WJB_KEY && item.val.string.len == (int) strlen(name) &&
			pg_strncasecmp(item.val.string.val, name, item.val.string.len) == 0)
			return true;
	return false;
}

/* Give messages the caller's trace, but those that bring one. */
static void
add_traceparent(QueueMessage *messages, int n)
{
	JsonbValue	text;
	Jsonb	   *value;

	text.type = jbvString;
	text.val.string.val = queue_traceparent;
	text.val.string.len = strlen(queue_traceparent);
	value = JsonbValueToJsonb(&text);
	for (int i = 0; i < n; i++)
		if (!has_header(&messages[i], "traceparent"))
			queue_message_add_header(&messages[i], "traceparent", value);
}

/*
 * Enqueue messages; those that were before get the id of the first, or take its
 * place. Waits for transactions that enqueue the same.
 */
void
queue_once_enqueue(QueueDef *def, QueueMessage *messages, QueueOnce *onces, int n)
{
	Once		once = {.def = def,.messages = messages,.onces = onces,.count = n};

	if (queue_traceparent[0] != '\0')
		add_traceparent(messages, n);
	if (!has_condition(messages, onces, n))
	{
		queue_enqueue(def, messages, n);
		return;
	}
	/* Who replaces a message cancels another one's, for all we know. */
	for (int i = 0; i < n; i++)
		if (onces[i].on_conflict != QUEUE_CONFLICT_SKIP)
		{
			queue_acl_check(def->view, def->name, QUEUE_ACL_CANCEL);
			break;
		}
	queue_enqueue_check(def, messages, n);
	queue_enqueue_give_ids(def, messages, n);
	once.same_as = palloc(sizeof(int) * n);
	once.other = palloc0(sizeof(int64) * n);
	once.replaces = palloc0(sizeof(bool) * n);
	once.asking = palloc(sizeof(Asking) * n);
	once.puts = palloc(sizeof(Put) * 2 * n);
	for (int i = 0; i < n; i++)
		once.same_as[i] = -1;
	ask_for_dedup_keys(&once);
	ask_for_unique_keys(&once);
	store_new(&once);
	correct_ids(&once);
	for (int i = 0; i < n; i++)
	{
		onces[i].duplicate = !is_new(&once, i) || once.replaces[i];
		queue_message_set(&messages[i], QUEUE_COLUMN_ID, Int64GetDatum(final_id(&once, i)));
	}
	pfree(once.same_as);
	pfree(once.other);
	pfree(once.replaces);
	pfree(once.asking);
	pfree(once.puts);
}

/* ---- the inbox ---- */

/* Whether it is the first time that a consumer of the current role meets a key, if the transaction commits. */
bool
queue_once_inbox(const text *consumer, const text *key)
{
	const text *parts[] = {cstring_to_text(GetUserNameFromId(GetUserId(), false)), consumer, key};
	QueueDedup *dedup = queue_dedup_open((int64) queue_inbox_retention * USECS_PER_MINUTE);
	pg_uuid_t	hash;
	QueueDedupRow row;
	int64		id = 0;
	bool		first;

	queue_dedup_hash(&hash, 0, QUEUE_DEDUP_INBOX, parts, 3);
	first = queue_dedup_accept(dedup, &hash, &id, &row);
	queue_dedup_close(dedup);
	return first;
}
