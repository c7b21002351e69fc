/*
 * transfer.h
 *	  One request and its answer.
 */
#ifndef HTTP_TRANSFER_H
#define HTTP_TRANSFER_H

#include "header.h"
#include "target.h"
#include "verdict.h"

typedef struct HttpTransfer
{
	/* For all requests, one after the other. */
	CURL	   *easy;
	const HttpOptions *options;
	bool	   *reachable;		/* the sink's: set when a connection has come
								 * about */
	HttpText	url;
	char	   *excerpt;		/* of the body: HTTP_SHOWN and the longest
								 * hidden value */

	/* For one. */
	void	   *owner;			/* NULL: idle */
	bool		probe;
	struct curl_slist *headers;
	bool		sent;			/* some of it may have left */
	bool		repeated;		/* libcurl wanted to send it again */
	bool		answered;		/* status and headers are there */
	int			status;
	size_t		header_bytes;
	size_t		body_bytes;
	int			opened;			/* sockets */
	int			refused;		/* and those that were not, for their
								 * addresses */
	char		address[64];	/* the last that was refused */
	char		error[CURL_ERROR_SIZE];
} HttpTransfer;

extern bool http_transfer_has_streams(const HttpOptions *options);
extern HttpTransfer *http_transfer_new(const HttpOptions *options, bool *reachable);
extern bool http_transfer_begin(HttpTransfer *transfer, const QueueSinkMessage * message, void *owner,
								HttpVerdict *verdict);
extern void http_transfer_judge(HttpTransfer *transfer, CURLcode code, HttpVerdict *verdict);
extern void http_transfer_end(HttpTransfer *transfer);
extern void http_transfer_free(HttpTransfer *transfer);

#endif							/* HTTP_TRANSFER_H */
