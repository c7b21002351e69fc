/*
 * transfer.c
 *	  What a runner does with the queue: takes messages, and settles them.
 *
 * The one way for both kinds of runner; each function is called in a short
 * transaction of its own, and works with the rights of the relay's owner.
 *
 * What is taken is leased under the consumer "relay <name>", by which the next
 * runner finds what the one before has left. A message that cannot be put into
 * an envelope is rejected at once, one that the filter leaves out is acked.
 * Before take returns, the commits that stored its messages are flushed.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "acl.h"
#include "catalog.h"
#include "dequeue.h"
#include "failure.h"
#include "pending.h"
#include "relaylog.h"
#include "ring.h"
#include "settle.h"
#include "slot.h"
#include "text.h"
#include "transfer.h"

/* Leases last so many times the runner's time: it is to notice before they run out. */
#define LEASES 4

static void
put_consumer(char *consumer, const QueueRelay *relay)
{
	snprintf(consumer, QUEUE_CONSUMER_LENGTH, "relay %s", relay->name);
}

/* ---- begin ---- */

static bool
is_left_over(QueueSlot *slot, const QueueRelay *relay, const char *consumer, pg_uuid_t *receipt)
{
	uint64		word = pg_atomic_read_u64(&slot->word);
	bool		is;

	if (QUEUE_SLOT_STATE(word) != QUEUE_SLOT_LEASED || slot->database != MyDatabaseId || slot->view != relay->view)
		return false;
	word = queue_slot_lock(slot);
	is = QUEUE_SLOT_STATE(word) == QUEUE_SLOT_LEASED && slot->database == MyDatabaseId &&
		slot->view == relay->view && strcmp(slot->consumer, consumer) == 0;
	*receipt = slot->receipt;
	queue_slot_unlock(slot, word);
	return is;
}

/* Give back what earlier runners have leased; it counts nothing. */
static void
release_left_over(const QueueRelay *relay)
{
	char		consumer[QUEUE_CONSUMER_LENGTH];
	uint32		slots = queue_slot_count();

	put_consumer(consumer, relay);
	for (uint32 i = 0; i < slots; i++)
	{
		pg_uuid_t	receipt;

		CHECK_FOR_INTERRUPTS();
		if (is_left_over(queue_slot(i), relay, consumer, &receipt))
			queue_settle_release(&receipt, 0);
	}
}

/* Become the runner; returns the epoch, or raises an error. */
int64
queue_transfer_begin(QueueRelay *relay, const char *runner, bool in_server)
{
	char		holder[QUEUE_RUNNER_NAME];
	int64		epoch;
	QueueDef   *def;
	Oid			save_user;
	int			save_context;

	queue_relay_check_may_run(relay);
	epoch = queue_relay_next_epoch();
	if (!queue_runner_begin(relay->id, epoch, runner, in_server, queue_relay_version(relay), relay->lease, holder))
	{
		if (holder[0])
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("relay \"%s\" is run by %s", relay->name, holder),
					 errhint("One that died gives it up when its time is over: %g s after its last sign of life.",
							 relay->lease / 1e6)));
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many relays"),
				 errhint("Raise \"queue.max_relays\".")));
	}
	queue_relay_as_user(relay->owner, &save_user, &save_context);
	def = queue_catalog_open(cstring_to_text(relay->queue), QUEUE_ACL_DEQUEUE);
	queue_ring_load(def->state);
	release_left_over(relay);
	SetUserIdAndSecContext(save_user, save_context);
	return epoch;
}

/* ---- take ---- */

/* The newest commit record, of those that stored these messages, that may not be on disk yet. */
static XLogRecPtr
newest_commit(const QueueClaimed *claimed, int n)
{
	XLogRecPtr	newest = InvalidXLogRecPtr;
	TransactionId last = InvalidTransactionId;

	for (int i = 0; i < n; i++)
	{
		TransactionId xmin = HeapTupleHeaderGetXmin(claimed[i].tuple->t_data);

		if (xmin == last || !TransactionIdIsNormal(xmin))
			continue;
		newest = Max(newest, TransactionIdGetCommitLSN(xmin));
		last = xmin;
	}
	return newest;
}

/* What leaves the server must not be undone by a crash of it. Returns up to where the WAL is on disk. */
static XLogRecPtr
make_durable(const QueueClaimed *claimed, int n)
{
	XLogRecPtr	newest = newest_commit(claimed, n);

	if (!XLogRecPtrIsInvalid(newest))
		XLogFlush(newest);
	return GetFlushRecPtr(NULL);
}

/* By this the queue keeps order, whatever key is sent. */
static char *
lane_of(const QueueMessage *message)
{
	bool		isnull;
	Datum		key = queue_message_get(message, QUEUE_COLUMN_KEY, &isnull);

	return isnull ? NULL : TextDatumGetCString(key);
}

/* One message on its way, or what else becomes of it. */
static QueueEnvelopeResult
pass_on(const QueueEnvelopeRules *rules, QueueClaimed *claimed, TupleDesc desc,
		XLogRecPtr gate, QueueTransferTo to, void *context)
{
	QueueMessage message;
	QueueEnvelope envelope;
	QueueTransfer transfer = {.envelope = &envelope,.receipt = claimed->receipt,.message = claimed->id,
	.attempt = claimed->failures + 1,.gate = gate};
	char	   *problem = NULL;
	QueueEnvelopeResult result;

	queue_message_deform(&message, claimed->tuple, desc);
	transfer.lane = lane_of(&message);
	result = queue_envelope_make(rules, &message, &envelope, &problem);
	switch (result)
	{
		case QUEUE_ENVELOPE_OK:
			to(context, &transfer);
			break;
		case QUEUE_ENVELOPE_NO_MATCH:
			(void) queue_settle_ack(&claimed->receipt);
			break;
		case QUEUE_ENVELOPE_BROKEN:
			(void) queue_failure_reject(&claimed->receipt, problem);
			break;
	}
	return result;
}

static void
pass_all_on(QueueRelay *relay, QueueDef *def, QueueClaimed *claimed, int n, XLogRecPtr gate,
			QueueTransferTo to, void *context)
{
	QueueEnvelopeRules *rules = queue_envelope_rules(relay->options, relay->queue);
	TupleDesc	desc = queue_dequeue_desc(def->state);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "queue transfer", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	int			became[QUEUE_ENVELOPE_BROKEN + 1] = {0};

	for (int i = 0; i < n; i++)
	{
		became[pass_on(rules, &claimed[i], desc, gate, to, context)]++;
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	if (became[QUEUE_ENVELOPE_NO_MATCH] > 0)
		queue_runner_count(relay->id, QUEUE_RUNNER_FILTERED, became[QUEUE_ENVELOPE_NO_MATCH]);
	if (became[QUEUE_ENVELOPE_BROKEN] > 0)
		queue_runner_count(relay->id, QUEUE_RUNNER_REJECTED, became[QUEUE_ENVELOPE_BROKEN]);
}

/*
 * Lease messages and hand them to "to", in order. "relay" was read in this
 * transaction: what was stored after a change of it does not leave by what was
 * before. Returns how many were leased, which may be more, or one of the codes
 * beside its declaration.
 */
int
queue_transfer_take(QueueRelay *relay, int64 epoch, int wanted, QueueTransferTo to, void *context)
{
	char		consumer[QUEUE_CONSUMER_LENGTH];
	QueueClaimRequest request = {.wanted = wanted,.max_bytes = relay->pump.max_bytes,.consumer = consumer};
	QueueClaimed *claimed = palloc(sizeof(QueueClaimed) * wanted);
	Oid			save_user;
	int			save_context;
	XLogRecPtr	flushed;
	bool		stands_by;
	int			n = 0;

	if (relay->paused || !relay->here || !OidIsValid(relay->view) || !OidIsValid(relay->server) ||
		!queue_runner_is_current(relay->id, epoch, queue_relay_version(relay)))
		return QUEUE_TRANSFER_RENEW;
	put_consumer(consumer, relay);
	queue_relay_as_user(relay->owner, &save_user, &save_context);
	request.def = queue_catalog_open(cstring_to_text(relay->queue), QUEUE_ACL_DEQUEUE);
	request.lease = Min(LEASES * relay->lease + relay->pump.timeout * 1000, request.def->options.lease_max);
	if (request.def->paused_dequeue)
		n = QUEUE_TRANSFER_QUEUE_PAUSED;
	else
		n = queue_dequeue_as_consumer(&request, GetActiveSnapshot(), claimed, &stands_by);
	if (n > 0 && !queue_runner_is(relay->id, epoch))
	{
		for (int i = 0; i < n; i++)
			queue_settle_release(&claimed[i].receipt, 0);
		n = 0;
	}
	if (n > 0)
	{
		flushed = make_durable(claimed, n);
		pass_all_on(relay, request.def, claimed, n, relay->wait_for_standby ? flushed : 0, to, context);
		queue_count(request.def->state, QUEUE_COUNT_DEQUEUED, n);
	}
	queue_pending_returned();
	SetUserIdAndSecContext(save_user, save_context);
	return n;
}

/* ---- settle ---- */

static QueueSettleStatus
settle_one(const QueueTransferEnd *end)
{
	QueueFate	fate;
	char	   *detail = end->detail[0] ? queue_text_of_sink(end->detail) : NULL;

	switch (end->verdict)
	{
		case QUEUE_PUMP_DELIVERED:
			return queue_settle_ack(&end->receipt);
		case QUEUE_PUMP_FAILED:
			return queue_failure_nack(&end->receipt, detail, end->pause > 0 ? end->pause * 1000 : -1, &fate);
		case QUEUE_PUMP_REJECTED:
			return queue_failure_reject(&end->receipt, detail);
		case QUEUE_PUMP_RELEASED:
			break;
	}
	return queue_settle_release(&end->receipt, end->pause * 1000);
}

/*
 * End leases, in this order; returns how many were lost meanwhile. The receipts
 * are all that is needed: a runner that lost its epoch can still say what was
 * confirmed, as long as nobody has leased it since. Of a relay that is dropped
 * (NULL) with the rights of the caller.
 */
int
queue_transfer_settle(QueueRelay *relay, const QueueTransferEnd *ends, int n)
{
	QueueRelayLogEntry *delivered = palloc(sizeof(QueueRelayLogEntry) * (n + 1));
	Oid			save_user;
	int			save_context;
	int			logged = 0;
	int			lost = 0;

	GetUserIdAndSecContext(&save_user, &save_context);
	if (relay)
		queue_relay_as_user(relay->owner, &save_user, &save_context);
	for (int i = 0; i < n; i++)
	{
		QueueSettleStatus status = settle_one(&ends[i]);

		if (status == QUEUE_STATUS_DENIED && relay && OidIsValid(relay->view))
			queue_acl_check(relay->view, relay->queue, QUEUE_ACL_DEQUEUE);
		if (status == QUEUE_STATUS_OK && ends[i].verdict == QUEUE_PUMP_DELIVERED)
			delivered[logged++] = (QueueRelayLogEntry)
			{
				ends[i].message, ends[i].attempt, ends[i].event, ends[i].target, ends[i].detail
			};
		/* What was behind a message that failed is lost as it should be. */
		if (status != QUEUE_STATUS_OK && ends[i].verdict != QUEUE_PUMP_RELEASED)
			lost++;
	}
	SetUserIdAndSecContext(save_user, save_context);
	if (relay && relay->log && relay->queue && logged > 0)
		queue_relaylog_write(relay, delivered, logged);
	if (relay && lost > 0)
		queue_runner_count(relay->id, QUEUE_RUNNER_LOST, lost);
	return lost;
}

/* ---- renew ---- */

static void
extend(QueueRelay *relay, const pg_uuid_t *const *receipts, int n)
{
	Oid			save_user;
	int			save_context;
	TimestampTz deadline;

	queue_relay_as_user(relay->owner, &save_user, &save_context);
	for (int i = 0; i < n; i++)
		(void) queue_settle_extend(receipts[i], LEASES * relay->lease + relay->pump.timeout * 1000, &deadline);
	SetUserIdAndSecContext(save_user, save_context);
}

/*
 * The runner is alive. "relay" was read anew just now; "version" is of when it
 * began.
 */
QueueTransferState
queue_transfer_renew(QueueRelay *relay, int64 epoch, int64 version, const pg_uuid_t *const *receipts, int n,
					 const QueueRunnerStatus *status)
{
	if (!queue_runner_renew(relay->id, epoch, relay->lease, status))
		return QUEUE_TRANSFER_LOST;
	extend(relay, receipts, n);
	if (relay->paused || !relay->here || !OidIsValid(relay->view) || !OidIsValid(relay->server))
		return QUEUE_TRANSFER_PAUSED;
	return queue_relay_version(relay) == version ? QUEUE_TRANSFER_RUN : QUEUE_TRANSFER_CHANGED;
}

/* ---- standbys ---- */

/* Up to where some standby has the WAL on disk; 0: there is none. Logical ones do not count. */
XLogRecPtr
queue_transfer_standby(void)
{
	XLogRecPtr	newest = InvalidXLogRecPtr;

	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd	   *sender = &WalSndCtl->walsnds[i];
		XLogRecPtr	flushed;
		PGPROC	   *process;
		pid_t		pid;

		SpinLockAcquire(&sender->mutex);
		pid = sender->pid;
		flushed = sender->flush;
		SpinLockRelease(&sender->mutex);
		process = pid != 0 && flushed > newest ? BackendPidGetProc(pid) : NULL;
		if (process && !OidIsValid(process->databaseId))
			newest = flushed;
	}
	return newest;
}
