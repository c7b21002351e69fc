/*
 * verdict.h
 *	  What an answer, or the lack of one, means for a message.
 */
#ifndef HTTP_VERDICT_H
#define HTTP_VERDICT_H

#include <stdbool.h>

#include <curl/curl.h>

#include "../sink.h"

/* Bytes of an answer's body that are shown. */
#define HTTP_SHOWN 500

typedef struct HttpVerdict
{
	QueueSinkOutcome outcome;
	int64_t		pause;			/* ms */
	char		detail[HTTP_SHOWN + 140];
} HttpVerdict;

extern void http_verdict_status(HttpVerdict *verdict, int status, curl_off_t retry_after, const char *body);
extern void http_verdict_probe(HttpVerdict *verdict, int status);
extern void http_verdict_failure(HttpVerdict *verdict, bool sent, CURLcode code, const char *error);
extern void http_verdict_refused(HttpVerdict *verdict, const char *address);
extern void http_verdict_set(HttpVerdict *verdict, QueueSinkOutcome outcome, const char *format,...)
			__attribute__((format(printf, 3, 4)));

#endif							/* HTTP_VERDICT_H */
