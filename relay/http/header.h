/*
 * header.h
 *	  The headers of a request.
 */
#ifndef HTTP_HEADER_H
#define HTTP_HEADER_H

#include <curl/curl.h>

#include "options.h"

extern const char *http_header_fault(const QueueSinkMessage * message);
extern struct curl_slist *http_header_list(const HttpOptions *options, const QueueSinkMessage * message);

#endif							/* HTTP_HEADER_H */
