/*
 * relayworker.h
 *	  The process of the server that runs one relay.
 */
#ifndef QUEUE_RELAYWORKER_H
#define QUEUE_RELAYWORKER_H

extern bool queue_relayworker_start(int32 relay, uint32 test);
extern void queue_relayworker_supervise(void);

extern PGDLLEXPORT void queue_relayworker_main(Datum main_arg);

#endif							/* QUEUE_RELAYWORKER_H */
