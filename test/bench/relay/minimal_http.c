/*-------------------------------------------------------------------------
 *
 * minimal_http.c
 *	  What libcurl can do: the least program that posts messages.
 *
 *	minimal_http URL COUNT HANDLES BYTES	prints messages a second
 *	minimal_http URL COUNT every MS BYTES LOG	notes when each was begun
 *
 * So many handles in flight, each begun anew when its answer is there; waiting
 * is done with epoll and curl_multi_socket_action(), which is the quickest way
 * with many. The headers are about those of a relay, but the same for all.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>

#include <curl/curl.h>

#include "clock.h"

#define MOST_BYTES 65536

static const char *const headers[] = {
	"expect:", "content-type: application/json", "ce-specversion: 1.0", "ce-id: 100000-3046bca350af8",
	"ce-source: /queue/bench_relay", "ce-type: bench_relay", "ce-time: 2026-11-29T16:45:30.617592Z",
	"ce-partitionkey: key 417", "webhook-id: 100000-3046bca350af8", "webhook-timestamp: 1795970730",
	"idempotency-key: 100000-3046bca350af8", "queue-attempt: 1", "queue-epoch: 4294967297", "queue-key: key%20417"
};

static CURLM * multi;
static int	epoll;
static int64_t timer = -1;		/* ns; -1: none */
static struct curl_slist *list;
static char body[MOST_BYTES];
static const char *url;
static long begun;
static long ended;

static void
die(const char *what)
{
	fprintf(stderr, "minimal_http: %s\n", what);
	exit(1);
}

static int
watch(CURL * easy, curl_socket_t socket, int what, void *data, void *socket_data)
{
	struct epoll_event event = {.data.fd = socket};

	(void) easy;
	(void) data;
	(void) socket_data;
	if (what == CURL_POLL_REMOVE)
	{
		epoll_ctl(epoll, EPOLL_CTL_DEL, socket, &event);
		return 0;
	}
	event.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	if (epoll_ctl(epoll, EPOLL_CTL_MOD, socket, &event) != 0 && errno == ENOENT)
		epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event);
	return 0;
}

static int
set_timer(CURLM * it, long ms, void *data)
{
	(void) it;
	(void) data;
	timer = ms < 0 ? -1 : now_ns() + ms * INT64_C(1000000);
	return 0;
}

static CURL *
new_handle(void)
{
	CURL	   *easy = curl_easy_init();

	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	return easy;
}

static void
begin(CURL * easy)
{
	begun++;
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long) strlen(body));
	if (curl_multi_add_handle(multi, easy) != CURLM_OK)
		die("cannot add a handle");
}

/* Takes answers; begins the next with each handle, up to "most" altogether. */
static void
collect(long most)
{
	CURLMsg    *news;
	int			left;

	while ((news = curl_multi_info_read(multi, &left)) != NULL)
	{
		CURL	   *easy = news->easy_handle;
		long		status = 0;

		if (news->data.result != CURLE_OK)
			die(curl_easy_strerror(news->data.result));
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		if (status / 100 != 2)
			die("an answer was not 2xx");
		ended++;
		curl_multi_remove_handle(multi, easy);
		if (begun < most)
			begin(easy);
	}
}

static void
run(long most)
{
	while (ended < most)
	{
		struct epoll_event events[128];
		int			running;
		int64_t		left = timer < 0 ? 1000000000 : timer - now_ns();
		int			n = epoll_wait(epoll, events, 128, left <= 0 ? 0 : (int) ((left + 999999) / 1000000));

		for (int i = 0; i < n; i++)
			curl_multi_socket_action(multi, events[i].data.fd,
									 (events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
									 (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
									 (events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0), &running);
		if (timer >= 0 && timer <= now_ns())
		{
			timer = -1;
			curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
		}
		collect(most);
	}
}

static void
measure_rate(long count, int handles)
{
	int64_t		start = now_ns();

	for (int i = 0; i < handles && begun < count; i++)
		begin(new_handle());
	run(count);
	printf("%.1f\n", count / ((now_ns() - start) / 1e9));
}

static void
measure_latency(long count, int every, int bytes, const char *path)
{
	FILE	   *log = open_log(path);
	CURL	   *easy = new_handle();

	for (long i = 1; i <= count; i++)
	{
		pause_about(every);
		make_payload(body, sizeof(body), i, bytes);
		note(log, i, now_ns());
		begin(easy);
		run(i);
	}
	fclose(log);
}

int
main(int argc, char **argv)
{
	bool		latency = argc > 3 && strcmp(argv[3], "every") == 0;

	if (argc != (latency ? 7 : 5))
		die("usage: minimal_http URL COUNT HANDLES BYTES | URL COUNT every MS BYTES LOG");
	url = argv[1];
	curl_global_init(CURL_GLOBAL_DEFAULT);
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
		list = curl_slist_append(list, headers[i]);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	multi = curl_multi_init();
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
	/* libcurl keeps four connections a handle added by itself; no fewer than a relay. */
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, 1000L);
	if (latency)
		measure_latency(atol(argv[2]), atoi(argv[4]), atoi(argv[5]), argv[6]);
	else
	{
		make_payload(body, sizeof(body), 1, atoi(argv[4]));
		measure_rate(atol(argv[2]), atoi(argv[3]));
	}
	return 0;
}
