/*
 * queue_http.c
 *	  A sink that sends each message as an HTTP request.
 *
 * Messages are begun in the order in which they came, as many at a time as
 * there may be connections (or streams of them, with HTTP/2). Until a connection
 * has come about only one is tried; if none can be had, those that wait share
 * its fate, so that a destination that is away costs one attempt.
 *
 * All messages have the same time, so the first in the list is the first whose
 * time is over. A message is in the list (waiting: the end of it, or under way:
 * with a transfer), then in the list of those that are done, and is reported
 * from there when signals are let through again and libcurl is not at work.
 */
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loop.h"
#include "transfer.h"

/* Streams of a connection, if it has any: what libcurl takes for granted, too. */
#define STREAMS 100

typedef struct Request
{
	struct Request *previous;
	struct Request *next;
	const		QueueSinkMessage *message;	/* NULL: the probe */
	int64_t		deadline;
	HttpTransfer *transfer;		/* NULL: waiting, or done */
	HttpVerdict verdict;		/* once it is done */
} Request;

typedef struct List
{
	Request    *first;
	Request    *last;
} List;

typedef struct HttpSink
{
	const		QueueSinkHost *host;
	HttpOptions options;
	HttpLoop	loop;
	int64_t		timeout;

	Request    *requests;		/* all there can be, the probe's too */
	List		free;
	List		flight;			/* in the order of deadlines */
	List		done;
	Request    *waiting;		/* the first of flight that has no transfer */
	int			flying;			/* messages in flight or done */
	int			most;

	HttpTransfer **transfers;	/* as many as were ever under way together */
	int			transfer_count;
	int			active;			/* under way */
	bool		reachable;		/* a connection has come about since the last
								 * that did not */
	bool		streams;		/* the destination speaks HTTP/2 */
} HttpSink;

/* ---- lists ---- */

static void
push(List *list, Request *request)
{
	request->next = NULL;
	request->previous = list->last;
	if (list->last)
		list->last->next = request;
	else
		list->first = request;
	list->last = request;
}

static void
unlink_request(List *list, Request *request)
{
	if (request->previous)
		request->previous->next = request->next;
	else
		list->first = request->next;
	if (request->next)
		request->next->previous = request->previous;
	else
		list->last = request->previous;
}

static Request *
take_free(HttpSink *sink)
{
	Request    *request = sink->free.first;

	unlink_request(&sink->free, request);
	request->transfer = NULL;
	request->deadline = http_loop_now() + sink->timeout;
	return request;
}

/* ---- a request's end ---- */

/* It has a verdict: it is the turn of report(). */
static void
finish(HttpSink *sink, Request *request)
{
	HttpTransfer *transfer = request->transfer;

	if (transfer)
	{
		curl_multi_remove_handle(sink->loop.multi, transfer->easy);
		http_transfer_end(transfer);
		request->transfer = NULL;
		sink->active--;
	}
	if (sink->waiting == request)
		sink->waiting = request->next;
	unlink_request(&sink->flight, request);
	push(&sink->done, request);
}

static void
report(HttpSink *sink)
{
	Request    *request;

	while ((request = sink->done.first) != NULL)
	{
		const		QueueSinkMessage *message = request->message;
		HttpVerdict *verdict = &request->verdict;

		unlink_request(&sink->done, request);
		push(&sink->free, request);
		if (message)
			sink->flying--;
		sink->host->complete(sink->host->context, message, verdict->outcome, verdict->pause, verdict->detail);
	}
}

/* Those that wait would fare as this one did. */
static void
share_fate(HttpSink *sink, const HttpVerdict *verdict)
{
	while (sink->waiting)
	{
		Request    *request = sink->waiting;

		request->verdict = *verdict;
		finish(sink, request);
	}
}

/* Notes what a transfer that has ended tells about the destination. */
static void
learn(HttpSink *sink, HttpTransfer *transfer)
{
	long		version = 0;

	if (!transfer->sent)
		sink->reachable = false;
	if (transfer->answered && curl_easy_getinfo(transfer->easy, CURLINFO_HTTP_VERSION, &version) == CURLE_OK)
		sink->streams = version == CURL_HTTP_VERSION_2_0 && http_transfer_has_streams(&sink->options);
}

/* Takes what libcurl is through with. */
static void
collect(HttpSink *sink)
{
	CURLMsg    *news;
	int			left;

	while ((news = curl_multi_info_read(sink->loop.multi, &left)) != NULL)
	{
		CURLcode	code = news->data.result;
		char	   *private = NULL;
		HttpTransfer *transfer;
		Request    *request;

		if (news->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(news->easy_handle, CURLINFO_PRIVATE, &private);
		transfer = (HttpTransfer *) private;
		request = transfer->owner;
		http_transfer_judge(transfer, code, &request->verdict);
		learn(sink, transfer);
		finish(sink, request);
		if (!sink->reachable && sink->active == 0)
			share_fate(sink, &request->verdict);
	}
}

/* Ends a request whose time is over, or that is given up. */
static void
give_up(HttpSink *sink, Request *request, const char *why)
{
	bool		sent = request->transfer && request->transfer->sent;

	if (request->transfer && !sent)
		sink->reachable = false;
	http_verdict_set(&request->verdict, sent ? QUEUE_SINK_AMBIGUOUS : QUEUE_SINK_THROTTLED, "%s%s",
					 why, sent ? "" : ", not sent");
	finish(sink, request);
}

static void
expire(HttpSink *sink)
{
	int64_t		now = http_loop_now();
	Request    *request;

	while ((request = sink->flight.first) != NULL && request->deadline <= now)
	{
		char		why[64];

		/* A status came, the end of the body did not. */
		if (request->transfer && request->transfer->answered)
		{
			http_transfer_judge(request->transfer, CURLE_OPERATION_TIMEDOUT, &request->verdict);
			finish(sink, request);
			continue;
		}
		snprintf(why, sizeof(why), "no answer within %lld ms", (long long) sink->timeout);
		give_up(sink, request, why);
	}
}

/* ---- a request's beginning ---- */

static HttpTransfer *
idle_transfer(HttpSink *sink)
{
	HttpTransfer **more;

	for (int i = 0; i < sink->transfer_count; i++)
		if (!sink->transfers[i]->owner)
			return sink->transfers[i];
	more = realloc(sink->transfers, (sink->transfer_count + 1) * sizeof(HttpTransfer *));
	if (!more)
		return NULL;
	sink->transfers = more;
	more[sink->transfer_count] = http_transfer_new(&sink->options, &sink->reachable);
	return more[sink->transfer_count] ? more[sink->transfer_count++] : NULL;
}

static void
start(HttpSink *sink, Request *request)
{
	HttpTransfer *transfer = idle_transfer(sink);

	if (!transfer)
		http_verdict_set(&request->verdict, QUEUE_SINK_THROTTLED, "out of memory");
	else if (http_transfer_begin(transfer, request->message, request, &request->verdict))
	{
		if (curl_multi_add_handle(sink->loop.multi, transfer->easy) == CURLM_OK)
		{
			request->transfer = transfer;
			sink->active++;
			sink->waiting = request->next;
			return;
		}
		http_transfer_end(transfer);
		http_verdict_set(&request->verdict, QUEUE_SINK_THROTTLED, "out of memory");
	}
	finish(sink, request);
}

static void
start_waiting(HttpSink *sink)
{
	long		most = sink->options.max_connections * (sink->streams ? STREAMS : 1);

	while (sink->waiting && sink->active < (sink->reachable ? most : 1))
		start(sink, sink->waiting);
}

static void
enqueue(HttpSink *sink, const QueueSinkMessage * message)
{
	Request    *request = take_free(sink);

	request->message = message;
	push(&sink->flight, request);
	if (!sink->waiting)
		sink->waiting = request;
}

/* ---- the table ---- */

static int
sink_send(void *data, const QueueSinkMessage * const *messages, int count)
{
	HttpSink   *sink = data;
	HttpSignals signals;
	int			accepted = 0;

	http_loop_block_signals(&signals);
	while (accepted < count && sink->flying < sink->most)
	{
		enqueue(sink, messages[accepted++]);
		sink->flying++;
	}
	start_waiting(sink);
	http_loop_restore_signals(&signals);
	report(sink);
	return accepted;
}

static void
sink_probe(void *data)
{
	HttpSink   *sink = data;
	HttpSignals signals;

	http_loop_block_signals(&signals);
	enqueue(sink, NULL);
	start_waiting(sink);
	http_loop_restore_signals(&signals);
	report(sink);
}

static void
sink_wait_for(void *data, int *descriptor, short *events, int *timeout)
{
	HttpSink   *sink = data;
	int64_t		next = sink->loop.timer;
	int64_t		left;

	if (sink->flight.first && (next < 0 || sink->flight.first->deadline < next))
		next = sink->flight.first->deadline;
	left = next - http_loop_now();
	*descriptor = sink->loop.epoll;
	*events = POLLIN;
	*timeout = next < 0 ? -1 : left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int) left;
}

static void
sink_progress(void *data)
{
	HttpSink   *sink = data;
	HttpSignals signals;

	http_loop_block_signals(&signals);
	http_loop_run(&sink->loop);
	collect(sink);
	expire(sink);
	start_waiting(sink);
	http_loop_restore_signals(&signals);
	report(sink);
}

static void
sink_cancel(void *data)
{
	HttpSink   *sink = data;
	HttpSignals signals;

	http_loop_block_signals(&signals);
	while (sink->flight.first)
		give_up(sink, sink->flight.first, "given up");
	http_loop_restore_signals(&signals);
	report(sink);
}

static void
destroy(HttpSink *sink)
{
	for (int i = 0; i < sink->transfer_count; i++)
		http_transfer_free(sink->transfers[i]);
	http_loop_close(&sink->loop);
	http_options_free(&sink->options);
	free(sink->transfers);
	free(sink->requests);
	free(sink);
}

static void
sink_close(void *data)
{
	HttpSink   *sink = data;
	HttpSignals signals;

	http_loop_block_signals(&signals);
	while (sink->flight.first)
		give_up(sink, sink->flight.first, "given up");
	destroy(sink);
	http_loop_restore_signals(&signals);
}

/* Once for the process, and never undone: others may use libcurl too. */
static bool
begin_libcurl(char *error, size_t size)
{
	static bool begun = false;
	const		curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

	if (info->version_num < 0x075700 || !(info->features & CURL_VERSION_ASYNCHDNS) ||
		!(info->features & CURL_VERSION_SSL))
	{
		snprintf(error, size, "libcurl %s does not do: 7.87 with TLS and asynchronous name resolution is needed",
				 info->version);
		return false;
	}
	if (!begun && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
	{
		snprintf(error, size, "libcurl could not be initialized");
		return false;
	}
	begun = true;
	return true;
}

static bool
begin_sink(HttpSink *sink, const QueueSinkConfig * config, char *error, size_t size)
{
	if (!begin_libcurl(error, size) ||
		!http_options_read(&sink->options, config->settings, config->setting_count, error, size))
		return false;
	sink->timeout = config->timeout;
	if (sink->options.timeout > 0 && (sink->timeout <= 0 || sink->options.timeout < sink->timeout))
		sink->timeout = sink->options.timeout;
	sink->most = config->max_in_flight > 0 ? config->max_in_flight : 1;
	sink->requests = calloc((size_t) sink->most + 1, sizeof(Request));
	if (!sink->requests || !http_loop_open(&sink->loop, sink->options.max_connections))
	{
		snprintf(error, size, "out of memory or file descriptors");
		return false;
	}
	for (int i = 0; i <= sink->most; i++)
		push(&sink->free, &sink->requests[i]);
	return true;
}

static void *
sink_open(const QueueSinkConfig * config, const QueueSinkHost * host, char *error, size_t size)
{
	HttpSink   *sink = calloc(1, sizeof(HttpSink));
	HttpSignals signals;

	if (!sink)
	{
		snprintf(error, size, "out of memory");
		return NULL;
	}
	sink->host = host;
	sink->loop.epoll = -1;
	http_loop_block_signals(&signals);
	if (!begin_sink(sink, config, error, size))
	{
		destroy(sink);
		sink = NULL;
	}
	http_loop_restore_signals(&signals);
	if (sink && sink->options.authorization && !sink->options.encrypted)
		host->log(host->context, QUEUE_SINK_WARNING, "credentials are sent without encryption: the url is not https");
	return sink;
}

const		QueueSink *
queue_sink(void)
{
	static const QueueSink table = {
		.magic = QUEUE_SINK_MAGIC,
		.version = QUEUE_SINK_VERSION,
		.name = "http",
		.options = http_options,
		.check = http_options_check,
		.open = sink_open,
		.send = sink_send,
		.probe = sink_probe,
		.wait_for = sink_wait_for,
		.progress = sink_progress,
		.cancel = sink_cancel,
		.close = sink_close,
	};

	return &table;
}
