/*
 * conninfo.h
 *	  What libpq is told, for every parameter it has.
 */
#ifndef POSTGRES_CONNINFO_H
#define POSTGRES_CONNINFO_H

#include <libpq-fe.h>

#include "options.h"
#include "resolve.h"
#include "text.h"

#define CONNINFO_MAX 64

/* The kinds of login that ask for a password; how a trusted relay logs in is free. */
#define CONNINFO_REQUIRE_AUTH "password,md5,scram-sha-256"

typedef struct PostgresConninfo
{
	const char *keywords[CONNINFO_MAX + 1];
	const char *values[CONNINFO_MAX + 1];
	int			count;
	PQconninfoOption *known;	/* by libpq; owns what we took from its
								 * defaults */
	Text		host;
	Text		hostaddr;
	char		tcp_user_timeout[24];
	char		application_name[64];
} PostgresConninfo;

extern int	postgres_conninfo_check(const PostgresOptions *options, uint32_t flags, char *error, size_t size);
extern PGconn *postgres_conninfo_connect(const PostgresOptions *options, const QueueSinkConfig *config,
										 const PostgresAddresses *addresses, int first);

#endif							/* POSTGRES_CONNINFO_H */
