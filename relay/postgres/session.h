/*
 * session.h
 *	  The connection to the remote server: made, watched and left without waiting.
 */
#ifndef POSTGRES_SESSION_H
#define POSTGRES_SESSION_H

#include <libpq-fe.h>

#include "options.h"
#include "outcome.h"
#include "resolve.h"

typedef enum PostgresSessionState
{
	SESSION_CLOSED,				/* -> RESOLVING, CONNECTING */
	SESSION_RESOLVING,			/* -> CONNECTING, CLOSED */
	SESSION_CONNECTING,			/* -> READY, CLOSED */
	SESSION_READY,				/* -> CLOSED */
} PostgresSessionState;

typedef struct PostgresSession
{
	const PostgresOptions *options;
	const QueueSinkConfig *config;
	PostgresSessionState state;
	PGconn	   *conn;			/* while CONNECTING and READY; in pipeline
								 * mode when READY */
	PostgresPollingStatusType poll;
	int64_t		deadline;		/* of RESOLVING and CONNECTING */
	PostgresLookup *lookup;		/* may outlive RESOLVING: one that hangs */
	PostgresAddresses addresses;	/* none: the host is one itself */
	int			first_address;	/* to try */
} PostgresSession;

extern int64_t postgres_session_now(void);
extern bool postgres_session_start(PostgresSession *session, PostgresVerdict *failure);
extern bool postgres_session_progress(PostgresSession *session, PostgresVerdict *failure);
extern void postgres_session_wait_for(const PostgresSession *session, int *descriptor, short *events);
extern void postgres_session_drop(PostgresSession *session);
extern void postgres_session_close(PostgresSession *session);

#endif							/* POSTGRES_SESSION_H */
