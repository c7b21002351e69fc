/*
 * loop.c
 *	  libcurl without waiting: one descriptor and one time to wait for.
 *
 * libcurl says which sockets it waits for, and they are put into an epoll
 * descriptor: that is readable when one of them is ready, so it is the only one
 * that a host sees.
 *
 * libcurl looks names up in threads, which inherit the mask of signals; a
 * server's handler must not run in one. So all signals are blocked while it
 * works. A SIGPIPE that it causes meanwhile, as OpenSSL writes without asking
 * for none, is taken back before they are let through again.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"

/* Events that are taken at a time. */
#define BATCH 64
/* Batches after which others have their turn. */
#define ROUNDS 16

/* ms */
int64_t
http_loop_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * An epoll descriptor that takes no socket is not reported: what waits for the
 * socket ends with its time.
 */
static int
watch(CURL * easy, curl_socket_t socket, int what, void *data, void *socket_data)
{
	HttpLoop   *loop = data;
	struct epoll_event event = {.data.fd = socket};

	(void) easy;
	(void) socket_data;
	if (what == CURL_POLL_REMOVE)
	{
		epoll_ctl(loop->epoll, EPOLL_CTL_DEL, socket, &event);
		return 0;
	}
	if (what & CURL_POLL_IN)
		event.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		event.events |= EPOLLOUT;
	if (epoll_ctl(loop->epoll, EPOLL_CTL_MOD, socket, &event) != 0 && errno == ENOENT)
		epoll_ctl(loop->epoll, EPOLL_CTL_ADD, socket, &event);
	return 0;
}

static int
set_timer(CURLM * multi, long timeout, void *data)
{
	HttpLoop   *loop = data;

	(void) multi;
	loop->timer = timeout < 0 ? -1 : http_loop_now() + timeout;
	return 0;
}

/* False: no memory or no descriptor. Close it either way. */
bool
http_loop_open(HttpLoop *loop, long max_connections)
{
	CURLM	   *multi = curl_multi_init();

	loop->multi = multi;
	loop->timer = -1;
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	return multi && loop->epoll >= 0 &&
		curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch) == CURLM_OK &&
		curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, loop) == CURLM_OK &&
		curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer) == CURLM_OK &&
		curl_multi_setopt(multi, CURLMOPT_TIMERDATA, loop) == CURLM_OK &&
		curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, max_connections) == CURLM_OK &&
		curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, max_connections) == CURLM_OK &&
		curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, max_connections) == CURLM_OK;
}

static int
action(uint32_t events)
{
	return (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
		(events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
}

/* Lets libcurl do what it can do now. */
void
http_loop_run(HttpLoop *loop)
{
	struct epoll_event events[BATCH];
	int			running;
	int			count = BATCH;

	for (int round = 0; round < ROUNDS && count == BATCH; round++)
	{
		count = epoll_wait(loop->epoll, events, BATCH, 0);
		for (int i = 0; i < count; i++)
			curl_multi_socket_action(loop->multi, events[i].data.fd, action(events[i].events), &running);
	}
	if (loop->timer >= 0 && loop->timer <= http_loop_now())
	{
		loop->timer = -1;
		curl_multi_socket_action(loop->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
}

void
http_loop_close(HttpLoop *loop)
{
	if (loop->multi)
		curl_multi_cleanup(loop->multi);
	if (loop->epoll >= 0)
		close(loop->epoll);
}

void
http_loop_block_signals(HttpSignals *signals)
{
	sigset_t	all;
	sigset_t	pending;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &signals->before);
	sigpending(&pending);
	signals->pipe = sigismember(&pending, SIGPIPE);
}

void
http_loop_restore_signals(const HttpSignals *signals)
{
	const struct timespec at_once = {0};
	sigset_t	pending;
	sigset_t	pipe;

	sigpending(&pending);
	if (sigismember(&pending, SIGPIPE) && !signals->pipe)
	{
		sigemptyset(&pipe);
		sigaddset(&pipe, SIGPIPE);
		sigtimedwait(&pipe, NULL, &at_once);
	}
	pthread_sigmask(SIG_SETMASK, &signals->before, NULL);
}
