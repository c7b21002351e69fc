/*
 * header.c
 *	  The headers of a request.
 *
 * A message's own headers go as they are, and stand in place of those that the
 * sink adds, but for two: what the sink signs with it also says itself
 * (webhook-*), and the credentials of the destination are the destination's.
 *
 * Nothing in a message can end a header or begin another: names are tokens,
 * values have no control characters, and headers that frame the request are
 * refused. Bytes that are not ASCII stay, as UTF-8, but for ce-* and queue-key,
 * which are percent-encoded as the HTTP binding of CloudEvents wants it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "header.h"

/* What belongs to the connection, not to a message. */
static const char *const framing[] = {
	"connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "proxy-authenticate",
	"proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
};

/* In lower case, as names are: so each is known by one spelling. */
static bool
is_token(const char *name)
{
	if (!*name)
		return false;
	for (; *name; name++)
		if (!((*name >= 'a' && *name <= 'z') || (*name >= '0' && *name <= '9') ||
			  strchr("!#$%&'*+-.^_`|~", *name)))
			return false;
	return true;
}

static bool
is_framing(const char *name)
{
	for (size_t i = 0; i < sizeof(framing) / sizeof(framing[0]); i++)
		if (strcmp(name, framing[i]) == 0)
			return true;
	return false;
}

static bool
is_value(const char *value)
{
	for (; *value; value++)
		if (((unsigned char) *value < ' ' && *value != '\t') || *value == 0x7f)
			return false;
	return true;
}

static bool
is_id(const char *id)
{
	if (!*id)
		return false;
	for (; *id; id++)
		if (*id <= ' ' || *id > '~' || *id == '.')
			return false;
	return true;
}

/* What of a message no header can be made of; NULL: nothing. */
const char *
http_header_fault(const QueueSinkMessage * message)
{
	if (!is_id(message->id))
		return "id is not visible ASCII without dot";
	if (message->content_type && !is_value(message->content_type))
		return "content type has a control character";
	for (int i = 0; i < message->header_count; i++)
	{
		const		QueueSinkHeader *header = &message->headers[i];

		if (!is_token(header->name))
			return "name of a header is not a token";
		if (is_framing(header->name))
			return "a header that a message cannot set (host, content-length, connection, ...)";
		if (!is_value(header->value))
			return "value of a header has a control character";
	}
	return NULL;
}

/* Visible, and not of what CloudEvents encodes. */
static bool
is_plain(unsigned char byte)
{
	return byte > ' ' && byte < 0x7f && byte != '"' && byte != '%';
}

static const char *
own(const QueueSinkMessage * message, const char *name)
{
	for (int i = 0; i < message->header_count; i++)
		if (strcmp(message->headers[i].name, name) == 0)
			return message->headers[i].value;
	return NULL;
}

typedef struct List
{
	struct curl_slist *first;
	HttpText	line;			/* scratch */
	bool		failed;
} List;

static void
append(List *list, const char *line)
{
	struct curl_slist *longer = list->failed ? NULL : curl_slist_append(list->first, line);

	if (longer)
		list->first = longer;
	else
		list->failed = true;
}

/* libcurl takes "name:" with nothing behind as "not this one", "name;" as empty. */
static void
add(List *list, const char *name, const char *value, bool encode)
{
	bool		empty = value[strspn(value, " \t")] == 0;

	http_text_clear(&list->line);
	http_text_put(&list->line, name);
	http_text_put(&list->line, empty ? ";" : ": ");
	if (encode && !empty)
		http_text_encode(&list->line, value, strlen(value), is_plain);
	else if (!empty)
		http_text_put(&list->line, value);
	if (list->line.failed)
		list->failed = true;
	else
		append(list, list->line.data);
}

/* A header of the sink's that a message's own stands in place of. */
static void
offer(List *list, const QueueSinkMessage * message, const char *name, const char *value, bool encode)
{
	if (!own(message, name))
		add(list, name, value, encode);
}

static bool
is_sinks(const HttpOptions *options, const char *name)
{
	if (options->signer.count > 0 && strncmp(name, "webhook-", 8) == 0)
		return true;
	return options->authorization && strcmp(name, "authorization") == 0;
}

static void
add_own(List *list, const HttpOptions *options, const QueueSinkMessage * message)
{
	for (int i = 0; i < message->header_count; i++)
	{
		const		QueueSinkHeader *header = &message->headers[i];

		if (!is_sinks(options, header->name))
			add(list, header->name, header->value, strncmp(header->name, "ce-", 3) == 0);
	}
}

static void
add_signature(List *list, const HttpOptions *options, const QueueSinkMessage * message, const char *now)
{
	HttpText	signature = {0};

	if (http_sign(&options->signer, message->id, now, message->body, message->body_length, &signature) &&
		!signature.failed)
		add(list, "webhook-signature", signature.data, false);
	else
		list->failed = true;
	http_text_free(&signature);
}

static void
add_webhook(List *list, const HttpOptions *options, const QueueSinkMessage * message)
{
	bool		signs = options->signer.count > 0;
	char		now[24];

	snprintf(now, sizeof(now), "%" PRId64, (int64_t) time(NULL));
	if (signs || !own(message, "webhook-id"))
		add(list, "webhook-id", message->id, false);
	if (signs || !own(message, "webhook-timestamp"))
		add(list, "webhook-timestamp", now, false);
	if (signs)
		add_signature(list, options, message, now);
}

static void
add_queue(List *list, const QueueSinkMessage * message)
{
	char		number[24];

	offer(list, message, "idempotency-key", message->id, false);
	snprintf(number, sizeof(number), "%d", message->attempt);
	offer(list, message, "queue-attempt", number, false);
	snprintf(number, sizeof(number), "%" PRId64, message->epoch);
	offer(list, message, "queue-epoch", number, false);
	if (message->key)
		offer(list, message, "queue-key", message->key, true);
}

/* All headers of a message that is not at fault, or of the probe. NULL: no memory. */
struct curl_slist *
http_header_list(const HttpOptions *options, const QueueSinkMessage * message)
{
	List		list = {0};

	/*
	 * libcurl would ask whether a long body is welcome, and wait for the
	 * answer.
	 */
	append(&list, "expect:");
	if (options->authorization)
		add(&list, "authorization", options->authorization, false);
	if (message)
	{
		if (message->content_type && message->content_type[0])
			offer(&list, message, "content-type", message->content_type, false);
		else if (!own(message, "content-type"))
			append(&list, "content-type:");
		add_own(&list, options, message);
		add_webhook(&list, options, message);
		add_queue(&list, message);
	}
	http_text_free(&list.line);
	if (list.failed)
	{
		curl_slist_free_all(list.first);
		return NULL;
	}
	return list.first;
}
