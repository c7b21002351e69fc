/*
 * transfer.c
 *	  One request and its answer.
 *
 * A handle of libcurl's serves one request after the other, and its connections
 * go on living without it. Two things are asked of libcurl that it would not do
 * by itself: to say when it begins to send, since before that a message was
 * certainly not taken; and not to send again when a connection that was kept
 * breaks, since the host must know that a message may have arrived twice.
 *
 * Callbacks write into the transfer, and do nothing else.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transfer.h"

#if LIBCURL_VERSION_NUM < 0x075700
#error "libcurl 7.87 or later is needed: before, it waits for name lookups that are given up"
#endif

/* What is read of an answer; its end is of no interest. */
#define MOST_HEADERS (64 * 1024)
#define MOST_BODY (64 * 1024)
/* Of libcurl's buffers, each transfer has one. */
#define BUFFER_SIZE 16384L
/* A connection is not used for longer, s: names get new addresses. */
#define CONNECTION_LIFE 300L

/* ---- callbacks ---- */

static int
before_request(void *data, char *address, char *local_address, int port, int local_port)
{
	HttpTransfer *transfer = data;

	(void) address;
	(void) local_address;
	(void) port;
	(void) local_port;
	*transfer->reachable = true;
	if (transfer->sent)
	{
		transfer->repeated = true;
		return CURL_PREREQFUNC_ABORT;
	}
	transfer->sent = true;
	return CURL_PREREQFUNC_OK;
}

static curl_socket_t
open_socket(void *data, curlsocktype purpose, struct curl_sockaddr *address)
{
	HttpTransfer *transfer = data;
	char text[	sizeof(transfer->address)];

	(void) purpose;
	if ((address->family != AF_INET && address->family != AF_INET6) ||
		!http_guard_passes(&transfer->options->guard, &address->addr, text, sizeof(text)))
	{
		transfer->refused++;
		memcpy(transfer->address, text, sizeof(text));
		return CURL_SOCKET_BAD;
	}
	transfer->opened++;
	return socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->protocol);
}

static size_t
receive_header(char *bytes, size_t size, size_t count, void *data)
{
	HttpTransfer *transfer = data;
	size_t		length = size * count;

	transfer->header_bytes += length;
	if (transfer->header_bytes > MOST_HEADERS)
		return 0;
	if (length > 5 && memcmp(bytes, "HTTP/", 5) == 0)
	{
		long		status = 0;

		curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
		transfer->status = status;
	}
	/* The empty line; behind 1xx comes another status. */
	if (transfer->status >= 200 && length <= 2 && (bytes[0] == '\r' || bytes[0] == '\n'))
		transfer->answered = true;
	return length;
}

static size_t
receive_body(char *bytes, size_t size, size_t count, void *data)
{
	HttpTransfer *transfer = data;
	size_t		length = size * count;
	size_t		room = HTTP_SHOWN + transfer->options->hidden.longest;

	if (transfer->body_bytes < room)
	{
		room -= transfer->body_bytes;
		memcpy(transfer->excerpt + transfer->body_bytes, bytes, length < room ? length : room);
	}
	transfer->body_bytes += length;
	return transfer->body_bytes > MOST_BODY ? 0 : length;
}

/* ---- a handle ---- */

#define SET(option, value) (curl_easy_setopt(easy, option, value) == CURLE_OK)

static bool
set_callbacks(CURL * easy, HttpTransfer *transfer)
{
	return SET(CURLOPT_PRIVATE, transfer) && SET(CURLOPT_ERRORBUFFER, transfer->error) &&
		SET(CURLOPT_PREREQFUNCTION, before_request) && SET(CURLOPT_PREREQDATA, transfer) &&
		SET(CURLOPT_OPENSOCKETFUNCTION, open_socket) && SET(CURLOPT_OPENSOCKETDATA, transfer) &&
		SET(CURLOPT_HEADERFUNCTION, receive_header) && SET(CURLOPT_HEADERDATA, transfer) &&
		SET(CURLOPT_WRITEFUNCTION, receive_body) && SET(CURLOPT_WRITEDATA, transfer);
}

/* No redirects, cookies, files with passwords, variables of the environment. */
static bool
set_limits(CURL * easy, const HttpOptions *options)
{
	return SET(CURLOPT_NOSIGNAL, 1L) && SET(CURLOPT_QUICK_EXIT, 1L) &&
		SET(CURLOPT_PROTOCOLS_STR, "http,https") && SET(CURLOPT_FOLLOWLOCATION, 0L) &&
		SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED) && SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L) &&
		SET(CURLOPT_PROXY, options->proxy ? options->proxy : "") && SET(CURLOPT_NOPROXY, "") &&
		SET(CURLOPT_BUFFERSIZE, BUFFER_SIZE) && SET(CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_SIZE) &&
		SET(CURLOPT_CONNECTTIMEOUT_MS, options->connect_timeout) && SET(CURLOPT_TCP_KEEPALIVE, 1L) &&
		SET(CURLOPT_MAXLIFETIME_CONN, CONNECTION_LIFE) && SET(CURLOPT_USERAGENT, "queue-relay");
}

static bool
has_prior_knowledge(const HttpOptions *options)
{
	return options->version == HTTP_VERSION_2 && !options->encrypted;
}

/*
 * Whether HTTP/2 can have several requests in a connection. Without TLS, before
 * libcurl 8.0, it cannot even have one after the other (curl #10643).
 */
bool
http_transfer_has_streams(const HttpOptions *options)
{
	return !has_prior_knowledge(options) || curl_version_info(CURLVERSION_NOW)->version_num >= 0x080000;
}

/*
 * Others wait for a connection that may turn out to have streams. Without TLS,
 * libcurl knows that only from the first answer: nobody waits for that.
 */
static bool
set_version(CURL * easy, const HttpOptions *options)
{
	long		version = CURL_HTTP_VERSION_2TLS;
	long		alone = !http_transfer_has_streams(options);
	long		waits = !alone && (has_prior_knowledge(options) ||
								   (options->encrypted && options->version != HTTP_VERSION_1));

	if (options->version == HTTP_VERSION_1)
		version = CURL_HTTP_VERSION_1_1;
	else if (has_prior_knowledge(options))
		version = CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
	return SET(CURLOPT_HTTP_VERSION, version) && SET(CURLOPT_PIPEWAIT, waits) &&
		SET(CURLOPT_FRESH_CONNECT, alone) && SET(CURLOPT_FORBID_REUSE, alone);
}

static bool
set_tls(CURL * easy, const HttpOptions *options)
{
	return SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2) &&
		(!options->ca_file || (SET(CURLOPT_CAINFO, options->ca_file) && SET(CURLOPT_CAPATH, NULL) &&
							   SET(CURLOPT_PROXY_CAINFO, options->ca_file))) &&
		(!options->cert_file || SET(CURLOPT_SSLCERT, options->cert_file)) &&
		(!options->key_file || SET(CURLOPT_SSLKEY, options->key_file)) &&
		(!options->key_password || SET(CURLOPT_KEYPASSWD, options->key_password));
}

/* NULL: no memory. */
HttpTransfer *
http_transfer_new(const HttpOptions *options, bool *reachable)
{
	HttpTransfer *transfer = calloc(1, sizeof(HttpTransfer));

	if (!transfer)
		return NULL;
	transfer->options = options;
	transfer->reachable = reachable;
	transfer->excerpt = malloc(HTTP_SHOWN + options->hidden.longest);
	transfer->easy = curl_easy_init();
	if (transfer->excerpt && transfer->easy && set_callbacks(transfer->easy, transfer) &&
		set_limits(transfer->easy, options) && set_version(transfer->easy, options) &&
		set_tls(transfer->easy, options))
		return transfer;
	http_transfer_free(transfer);
	return NULL;
}

static bool
set_request(HttpTransfer *transfer, const QueueSinkMessage * message)
{
	CURL	   *easy = transfer->easy;
	const char *method = message ? (transfer->options->put ? "PUT" : NULL) : "OPTIONS";

	return SET(CURLOPT_URL, transfer->url.data) && SET(CURLOPT_HTTPHEADER, transfer->headers) &&
		(message ? SET(CURLOPT_POST, 1L) : SET(CURLOPT_HTTPGET, 1L)) &&
		SET(CURLOPT_CUSTOMREQUEST, method) &&
		(!message || (SET(CURLOPT_POSTFIELDS, message->body_length > 0 ? message->body : "") &&
					  SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) message->body_length)));
}

/*
 * Makes a request of a message, or of NULL, the probe. False: it cannot be
 * made, the verdict says why.
 */
bool
http_transfer_begin(HttpTransfer *transfer, const QueueSinkMessage * message, void *owner, HttpVerdict *verdict)
{
	const char *fault = message ? http_header_fault(message) : NULL;

	if (message && !fault)
		fault = http_target_fault(message->target);
	if (fault)
	{
		http_verdict_set(verdict, QUEUE_SINK_PERMANENT, "not sent: %s", fault);
		return false;
	}
	transfer->probe = !message;
	transfer->headers = http_header_list(transfer->options, message);
	http_target_url(transfer->options, message ? message->target : "", &transfer->url);
	if (!transfer->headers || transfer->url.failed || !set_request(transfer, message))
	{
		http_transfer_end(transfer);
		http_verdict_set(verdict, QUEUE_SINK_THROTTLED, "out of memory");
		return false;
	}
	transfer->owner = owner;
	return true;
}

/* What became of a request that has ended with "code", or is given up. */
void
http_transfer_judge(HttpTransfer *transfer, CURLcode code, HttpVerdict *verdict)
{
	char		body[HTTP_SHOWN + 8];
	curl_off_t	retry_after = 0;
	size_t		room = HTTP_SHOWN + transfer->options->hidden.longest;

	if (transfer->answered && transfer->probe)
		http_verdict_probe(verdict, transfer->status);
	else if (transfer->answered)
	{
		http_text_show(body, sizeof(body), transfer->excerpt,
					   transfer->body_bytes < room ? transfer->body_bytes : room, HTTP_SHOWN,
					   &transfer->options->hidden);
		curl_easy_getinfo(transfer->easy, CURLINFO_RETRY_AFTER, &retry_after);
		http_verdict_status(verdict, transfer->status, retry_after, body);
	}
	else if (transfer->repeated)
		http_verdict_failure(verdict, true, code, "connection closed before an answer came");
	else if (!transfer->sent && transfer->refused > 0 && transfer->opened == 0)
		http_verdict_refused(verdict, transfer->address);
	else
		http_verdict_failure(verdict, transfer->sent, code, transfer->error);
}

/* It is idle again. The handle is not in use. */
void
http_transfer_end(HttpTransfer *transfer)
{
	curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, NULL);
	curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDS, NULL);
	curl_slist_free_all(transfer->headers);
	transfer->owner = NULL;
	transfer->headers = NULL;
	transfer->sent = transfer->repeated = transfer->answered = false;
	transfer->status = 0;
	transfer->header_bytes = transfer->body_bytes = 0;
	transfer->opened = transfer->refused = 0;
	transfer->address[0] = 0;
	transfer->error[0] = 0;
}

void
http_transfer_free(HttpTransfer *transfer)
{
	curl_slist_free_all(transfer->headers);
	if (transfer->easy)
		curl_easy_cleanup(transfer->easy);
	http_text_free(&transfer->url);
	free(transfer->excerpt);
	free(transfer);
}
