/*
 * session.h
 *	  The time from becoming the runner of a relay to giving that up.
 */
#ifndef SESSION_H
#define SESSION_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "../../src/pump.h"
#include "calls.h"
#include "database.h"
#include "waiter.h"

typedef struct Session
{
	const char *name;			/* the relay's */
	Database   *database;
	Waiter	   *waiter;
	CallsRelay	relay;			/* as it was at the beginning */
	QueuePump  *pump;			/* NULL: the sink could not be opened */
	const sigset_t *sleep_mask; /* signals are let in while it sleeps only */
	CallsState	result;			/* of the last renewal */
	bool		disabled;

	/* us */
	int64_t		renew_at;
	int64_t		renewed_at;
	int64_t		extend_at;		/* leases */
	int64_t		valid_until;	/* as the runner */
	int64_t		take_at;		/* not before */
	int64_t		pause;			/* after takes in vain */
	int64_t		drain_until;	/* 0: it goes on */
	bool		due;			/* the queue, as far as is known */

	QueuePumpCounts told;		/* of what is counted in the server */
	uint64_t	errors_told;
} Session;

extern void session_renew(Session *session, const char *error);
extern bool session_wants_renewal(const Session *session);
extern void session_take(Session *session);
extern bool session_wants_messages(const Session *session);
extern bool session_listens(const Session *session);
extern void session_settle(Session *session);
extern int64_t session_settle_in(const Session *session);
extern void session_drain(Session *session, int64_t time);
extern void session_run_pump(Session *session);
extern void session_sleep(Session *session);
extern void session_wait(void *context, int socket, short events, int64_t until);

#endif							/* SESSION_H */
