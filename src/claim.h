/*
 * claim.h
 *	  Takes messages of a page, or looks at all of them.
 */
#ifndef QUEUE_CLAIM_H
#define QUEUE_CLAIM_H

#include "access/htup.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

#include "catalog.h"
#include "order.h"
#include "visit.h"

typedef struct QueueClaimed
{
	HeapTuple	tuple;
	int64		id;
	uint32		slot;
	uint64		sequence;
	pg_uuid_t	receipt;
	int32		failures;
	QueueTime	deadline;
	uint8		reason;			/* of an unwritten failure before this lease */
} QueueClaimed;

typedef struct QueueClaimRequest
{
	QueueDef   *def;
	int			wanted;
	int64		max_bytes;
	int64		lease;			/* us; 0: the queue's lease_timeout */
	const char *consumer;		/* NULL: the application's name */
	uint64		attempt;		/* number of it (repeat.c); 0: none */
	const char *key;			/* only messages of it, "": of those without one; NULL: of any */
	bool		pop;
} QueueClaimRequest;

/* Keys that may have their turns on a page together. */
#define QUEUE_TURNS_AT_ONCE 16

typedef struct QueueClaim
{
	QueueVisit	visit;
	const QueueClaimRequest *request;
	Snapshot	snapshot;
	bool		sweep;			/* take nothing, look at everything */
	bool		move;			/* a sweep that has the worker store messages elsewhere */
	bool		ready_too;		/* those that could be claimed at once */
	int			handed_over;	/* for that */
	bool		by_priority;	/* of one source only: */
	int			source;
	int			priority;		/* that of it */
	TimestampTz until;			/* and of those only what was enqueued by then */
	TimestampTz begun;			/* nothing on or behind the page at hand was enqueued before; DT_NOBEGIN: unknown */
	bool		past;			/* the page at hand has one that was enqueued later than "until" */
	bool		over;			/* so has been all that is behind it */
	TimestampTz last;			/* when the last one was enqueued that was not */
	TimestampTz next;			/* no later than the first of those past; DT_NOEND: there was none */
	bool		unsure;			/* there may be an earlier one */
	bool		mixed;			/* the page at hand may have several */
	uint32		seen;			/* bits of those on the page at hand */
	bool		saw_all;		/* of it */
	bool		ordered;		/* the queue is; "order" goes with it */
	QueueOrder	order;
	bool		saw_expired;	/* or something else that a sweep hands to the worker */
	bool		lacks_slots;
	bool		metered;		/* the queue has limits, or fair share */
	QueueMetering metering;
	bool		closed;			/* there is no room for more in this call */
	bool		stale;			/* because the definition has changed */
	bool		waits;			/* the message at hand waits for its key's room */
	uint64		turn_of[QUEUE_TURNS_AT_ONCE];	/* keys whose messages alone are looked at, of a page that is not due */
	int			turns;			/* so many; 0: all are */
	int			patience;		/* pages in a row to look at in vain */
	int			pages_left;		/* of these */
	int64		looked_at;		/* pages */
	bool		saw_busy;		/* one that somebody else was busy with */
	int			patience_of_round;
	int			rounds;
	bool		timed_first;
	bool		tired;			/* the last round has left pages out */
	/* results */
	QueueClaimed *claimed;
	int			claimed_count;
	int64		bytes;
} QueueClaim;

/*
 * Pages that a claim looks at in vain in one lane before it tries another; with
 * each round that found nothing twice as many, for so many rounds.
 */
#define QUEUE_PAGES_IN_VAIN 64
#define QUEUE_ROUNDS_THAT_DOUBLE 20

static inline int
queue_claim_patience(const QueueClaim *claim)
{
	return QUEUE_PAGES_IN_VAIN << Min(claim->rounds, QUEUE_ROUNDS_THAT_DOUBLE);
}

static inline bool
queue_claim_has_enough(const QueueClaim *claim)
{
	return claim->claimed_count >= claim->request->wanted || claim->bytes >= claim->request->max_bytes;
}

extern void queue_claim_visit(QueueClaim *claim, QueueMapHold *hold);
extern void queue_claim_sweep_page(QueueDef *def, Relation rel, QueueSegment *segment,
								   BlockNumber page);
extern int	queue_claim_move_page(QueueDef *def, Relation rel, QueueSegment *segment,
								  BlockNumber page, bool ready_too);

#endif							/* QUEUE_CLAIM_H */
