/*
 * guard.h
 *	  Which addresses a relay may connect to.
 */
#ifndef HTTP_GUARD_H
#define HTTP_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* Of IPv6; those of IPv4 are mapped. */
typedef struct HttpNetwork
{
	uint8_t		address[16];
	int			bits;
} HttpNetwork;

typedef struct HttpGuard
{
	bool		open;			/* lets everything pass */
	HttpNetwork *allowed;		/* though they are private */
	int			count;
} HttpGuard;

extern bool http_guard_are_networks(const char *list);
extern bool http_guard_allow(HttpGuard *guard, const char *list);
extern bool http_guard_passes(const HttpGuard *guard, const struct sockaddr *address,
							  char *text, size_t size);
extern void http_guard_free(HttpGuard *guard);

#endif							/* HTTP_GUARD_H */
