/*
 * resolve.c
 *	  Addresses of a name, found without waiting.
 *
 * getaddrinfo() has no form that does not wait and cannot be cancelled, so a
 * thread calls it. The thread touches nothing but its PostgresLookup, which
 * belongs to both sides: who lets go last frees it. A lookup can be abandoned
 * while it hangs; the library is linked so that it stays loaded meanwhile.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct PostgresLookup
{
	int			owners;			/* atomic */
	int			finished;		/* atomic: the thread wrote "addresses" */
	int			pipe[2];		/* becomes readable when it has */
	char	   *host;
	PostgresAddresses addresses;
};

/* Is it an address, or a socket's folder, that needs no lookup? */
bool
postgres_resolve_is_address(const char *host)
{
	struct in6_addr address;

	return *host == '/' || *host == '@' ||
		inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
}

static void
release(PostgresLookup *lookup)
{
	if (__atomic_sub_fetch(&lookup->owners, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	close(lookup->pipe[0]);
	close(lookup->pipe[1]);
	free(lookup->host);
	free(lookup);
}

static void
find_addresses(const char *host, PostgresAddresses *addresses)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC,.ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	int			error = getaddrinfo(host, NULL, &hints, &list);

	if (error != 0)
	{
		snprintf(addresses->error, sizeof(addresses->error), "%s", gai_strerror(error));
		return;
	}
	for (struct addrinfo *one = list; one && addresses->count < RESOLVE_MAX; one = one->ai_next)
	{
		char	   *numeric = addresses->numeric[addresses->count];

		if (getnameinfo(one->ai_addr, one->ai_addrlen, numeric, sizeof(addresses->numeric[0]),
						NULL, 0, NI_NUMERICHOST) == 0)
			addresses->count++;
	}
	freeaddrinfo(list);
	if (addresses->count == 0)
		snprintf(addresses->error, sizeof(addresses->error), "no address");
}

static void *
run(void *argument)
{
	PostgresLookup *lookup = argument;

	find_addresses(lookup->host, &lookup->addresses);
	__atomic_store_n(&lookup->finished, 1, __ATOMIC_RELEASE);
	while (write(lookup->pipe[1], "", 1) < 0 && errno == EINTR)
		;
	release(lookup);
	return NULL;
}

/* Starts the thread, with all signals blocked in it, and its end unawaited. */
static bool
start_thread(PostgresLookup *lookup)
{
	pthread_t	thread;
	sigset_t	all,
				old;
	int			error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&thread, NULL, run, lookup);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error == 0)
		pthread_detach(thread);
	return error == 0;
}

/* Begins a lookup. NULL: no memory, descriptors or threads. */
PostgresLookup *
postgres_resolve_start(const char *host)
{
	PostgresLookup *lookup = calloc(1, sizeof(*lookup));

	if (lookup == NULL)
		return NULL;
	lookup->host = strdup(host);
	if (lookup->host == NULL || pipe2(lookup->pipe, O_CLOEXEC | O_NONBLOCK) != 0)
	{
		free(lookup->host);
		free(lookup);
		return NULL;
	}
	lookup->owners = 2;
	if (!start_thread(lookup))
	{
		release(lookup);
		release(lookup);
		return NULL;
	}
	return lookup;
}

/* What to poll for reading. */
int
postgres_resolve_descriptor(const PostgresLookup *lookup)
{
	return lookup->pipe[0];
}

/* False: not yet. True: the result was given, and the lookup is gone. */
bool
postgres_resolve_finish(PostgresLookup *lookup, PostgresAddresses *addresses)
{
	if (!__atomic_load_n(&lookup->finished, __ATOMIC_ACQUIRE))
		return false;
	*addresses = lookup->addresses;
	release(lookup);
	return true;
}

/* Nobody wants the result any more. */
void
postgres_resolve_abandon(PostgresLookup *lookup)
{
	release(lookup);
}
