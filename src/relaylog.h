/*
 * relaylog.h
 *	  What was confirmed, by relays with the option log.
 */
#ifndef QUEUE_RELAYLOG_H
#define QUEUE_RELAYLOG_H

#include "relay.h"

/* A delivery. Texts are the sink's. */
typedef struct QueueRelayLogEntry
{
	int64		message;
	int			attempt;
	const char *event;			/* its id as it was sent */
	const char *target;			/* "": none */
	const char *answer;			/* "": none */
} QueueRelayLogEntry;

extern void queue_relaylog_write(const QueueRelay *relay, const QueueRelayLogEntry *entries, int n);
extern void queue_relaylog_tend(void);

#endif							/* QUEUE_RELAYLOG_H */
