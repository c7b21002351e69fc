/*
 * target.h
 *	  Where a message goes: the address of a request.
 */
#ifndef HTTP_TARGET_H
#define HTTP_TARGET_H

#include "options.h"

extern const char *http_target_fault(const char *target);
extern void http_target_url(const HttpOptions *options, const char *target, HttpText *url);

#endif							/* HTTP_TARGET_H */
