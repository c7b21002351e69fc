/*
 * loop.h
 *	  libcurl without waiting: one descriptor and one time to wait for.
 */
#ifndef HTTP_LOOP_H
#define HTTP_LOOP_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include <curl/curl.h>

typedef struct HttpLoop
{
	CURLM	   *multi;
	int			epoll;			/* has all sockets of libcurl's */
	int64_t		timer;			/* when it wants to be called, ms; -1: never */
} HttpLoop;

/* Signals as they were. */
typedef struct HttpSignals
{
	sigset_t	before;
	bool		pipe;			/* SIGPIPE was pending */
} HttpSignals;

extern int64_t http_loop_now(void);
extern bool http_loop_open(HttpLoop *loop, long max_connections);
extern void http_loop_run(HttpLoop *loop);
extern void http_loop_close(HttpLoop *loop);

extern void http_loop_block_signals(HttpSignals *signals);
extern void http_loop_restore_signals(const HttpSignals *signals);

#endif							/* HTTP_LOOP_H */
