/*
 * verdict.c
 *	  What an answer, or the lack of one, means for a message.
 *
 * A status is believed: whoever answers has decided. What is wrong with the
 * destination as a whole (it is busy or away, it does not know us) is not held
 * against the message; what may be cured by time is tried again; what is wrong
 * with the message is final.
 *
 * Without an answer it matters only whether any of the request may have left:
 * if so, the message may have been taken.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "verdict.h"

/* After credentials that were refused, ms. */
#define CREDENTIALS_PAUSE 30000
/* The longest pause that a destination can ask for, s. */
#define LONGEST_PAUSE 86400

/* Without a pause. */
void
http_verdict_set(HttpVerdict *verdict, QueueSinkOutcome outcome, const char *format,...)
{
	va_list		values;

	verdict->outcome = outcome;
	verdict->pause = 0;
	va_start(values, format);
	vsnprintf(verdict->detail, sizeof(verdict->detail), format, values);
	va_end(values);
}

static bool
is_about_credentials(int status)
{
	return status == 401 || status == 403 || status == 407;
}

static QueueSinkOutcome
judge(int status)
{
	if (status >= 200 && status < 300)
		return QUEUE_SINK_DELIVERED;
	switch (status)
	{
		case 401:
		case 403:
		case 407:
		case 429:
		case 503:
			return QUEUE_SINK_THROTTLED;
		case 410:
			return QUEUE_SINK_DISABLE;
		case 408:
		case 409:				/* the one with the same idempotency key is
								 * not done */
		case 421:				/* wrong connection */
		case 425:
			return QUEUE_SINK_RETRY;
		case 502:				/* of a gateway, which may have passed it on */
		case 504:
			return QUEUE_SINK_AMBIGUOUS;
	}

	/*
	 * A redirect is the destination's error: to follow it is to let it choose
	 * whom we call.
	 */
	return status >= 400 && status < 500 ? QUEUE_SINK_PERMANENT : QUEUE_SINK_RETRY;
}

/* "body" is what to show of it; retry_after (s) is 0 if it was not said. */
void
http_verdict_status(HttpVerdict *verdict, int status, curl_off_t retry_after, const char *body)
{
	QueueSinkOutcome outcome = judge(status);

	if (outcome == QUEUE_SINK_DELIVERED)
		http_verdict_set(verdict, outcome, "HTTP %d", status);
	else if (status >= 300 && status < 400)
		http_verdict_set(verdict, outcome, "HTTP %d: redirects are not followed", status);
	else if (body[0])
		http_verdict_set(verdict, outcome, "HTTP %d: %s", status, body);
	else
		http_verdict_set(verdict, outcome, "HTTP %d", status);
	if (outcome != QUEUE_SINK_RETRY && outcome != QUEUE_SINK_AMBIGUOUS && outcome != QUEUE_SINK_THROTTLED)
		return;
	if (retry_after > 0)
		verdict->pause = 1000 * (retry_after < LONGEST_PAUSE ? (int64_t) retry_after : LONGEST_PAUSE);
	if (is_about_credentials(status) && verdict->pause < CREDENTIALS_PAUSE)
		verdict->pause = CREDENTIALS_PAUSE;
}

/* Any answer shows that the destination is there; only credentials can be wrong. */
void
http_verdict_probe(HttpVerdict *verdict, int status)
{
	http_verdict_set(verdict, is_about_credentials(status) ? QUEUE_SINK_THROTTLED : QUEUE_SINK_DELIVERED,
					 "HTTP %d", status);
	if (is_about_credentials(status))
		verdict->pause = CREDENTIALS_PAUSE;
}

/*
 * With TLS 1.3 a server judges the client's certificate after the client has
 * begun to send. Its alert says that it has read none of that.
 */
static bool
is_refusal_of_certificate(const char *error)
{
	return strstr(error, " alert ") &&
		(strstr(error, "certificate") || strstr(error, "unknown ca") || strstr(error, "access denied"));
}

/* No answer. "sent": some of the request may have left. */
void
http_verdict_failure(HttpVerdict *verdict, bool sent, CURLcode code, const char *error)
{
	QueueSinkOutcome outcome = QUEUE_SINK_THROTTLED;

	if (sent && !is_refusal_of_certificate(error))
		outcome = QUEUE_SINK_AMBIGUOUS;
	else if (code == CURLE_URL_MALFORMAT)
		outcome = QUEUE_SINK_PERMANENT;
	http_verdict_set(verdict, outcome, "%s", error[0] ? error : curl_easy_strerror(code));
}

/* It is a matter of configuration, so it is for somebody to decide. */
void
http_verdict_refused(HttpVerdict *verdict, const char *address)
{
	http_verdict_set(verdict, QUEUE_SINK_DISABLE,
					 "address %s is not of the internet, and not in option \"allow_networks\"",
					 address[0] ? address : "(not IP)");
}
