/*
 * resolve.h
 *	  Addresses of a name, found without waiting.
 */
#ifndef POSTGRES_RESOLVE_H
#define POSTGRES_RESOLVE_H

#include <stdbool.h>

#define RESOLVE_MAX 8

typedef struct PostgresAddresses
{
	char		numeric[RESOLVE_MAX][64];
	int			count;			/* 0: the name has none */
	char		error[128];		/* why */
} PostgresAddresses;

typedef struct PostgresLookup PostgresLookup;

extern bool postgres_resolve_is_address(const char *host);
extern PostgresLookup *postgres_resolve_start(const char *host);
extern int	postgres_resolve_descriptor(const PostgresLookup *lookup);
extern bool postgres_resolve_finish(PostgresLookup *lookup, PostgresAddresses *addresses);
extern void postgres_resolve_abandon(PostgresLookup *lookup);

#endif							/* POSTGRES_RESOLVE_H */
