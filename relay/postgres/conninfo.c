/*
 * conninfo.c
 *	  What libpq is told, for every parameter it has.
 *
 * libpq fills what it is not told from the environment, from service files and
 * from files below the home folder: all of them the host's, not the relay's
 * owner's. So every parameter that has a variable in the environment is given,
 * whatever libpq it is. An empty value means "not given" to libpq; where none
 * but that would be right, a value is given that means nothing, and where there
 * is no such value a relay does not open while the variable is set. A path below
 * /dev/null is the file that never exists.
 *
 * A trusted relay may use the host's own password file and PGPASSWORD.
 */
#include "conninfo.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_FILE "/dev/null/none"

/* Options that are handed to libpq under their own name, when given. */
static const PostgresOption handed_on[] = {
	OPTION_PORT, OPTION_DBNAME, OPTION_SSLMODE, OPTION_SSLROOTCERT, OPTION_SSLCERT,
	OPTION_USER, OPTION_PASSWORD, OPTION_SSLKEY, OPTION_SSLPASSWORD
};

/* What counts besides; the first of a keyword wins. */
static const char *const fixed[][2] = {
	{"sslrootcert", NO_FILE},
	{"sslcert", NO_FILE},
	{"sslkey", NO_FILE},
	{"sslcrl", NO_FILE},
	{"options", " "},			/* PGOPTIONS may be set where tests run */
	{"client_encoding", "UTF8"},
	{"gssencmode", "disable"},
	{"keepalives", "1"},
	{"keepalives_idle", "30"},
	{"keepalives_interval", "10"},
	{"keepalives_count", "3"},
	{"connect_timeout", "0"},	/* it is watched here */
};

static bool
is_given(const PostgresConninfo *info, const char *keyword)
{
	for (int i = 0; i < info->count; i++)
		if (strcmp(info->keywords[i], keyword) == 0)
			return true;
	return false;
}

static void
give(PostgresConninfo *info, const char *keyword, const char *value)
{
	if (is_given(info, keyword) || info->count == CONNINFO_MAX)
		return;
	info->keywords[info->count] = keyword;
	info->values[info->count] = value;
	info->count++;
}

static const PQconninfoOption *
find_known(const PostgresConninfo *info, const char *keyword)
{
	for (const PQconninfoOption *known = info->known; known->keyword; known++)
		if (strcmp(known->keyword, keyword) == 0)
			return known;
	return NULL;
}

static void
give_own(PostgresConninfo *info, const PostgresOptions *options, uint32_t flags)
{
	for (size_t i = 0; i < sizeof(handed_on) / sizeof(handed_on[0]); i++)
		if (options->values[handed_on[i]])
			give(info, postgres_option_table[handed_on[i]].name, options->values[handed_on[i]]);
	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
		if (strcmp(fixed[i][0], "options") != 0 || getenv("PGOPTIONS"))
			give(info, fixed[i][0], fixed[i][1]);
	if (flags & QUEUE_SINK_TRUSTED)
		return;
	give(info, "passfile", NO_FILE);
	/* From libpq 16 on: says it before anything of the host's is used. */
	if (find_known(info, "require_auth"))
		give(info, "require_auth", CONNINFO_REQUIRE_AUTH);
}

/* The variable that would count and cannot be kept from it, or NULL. */
static const char *
give_defaults(PostgresConninfo *info, uint32_t flags)
{
	const char *offender = NULL;

	for (const PQconninfoOption *known = info->known; known->keyword; known++)
	{
		const char *set = known->envvar ? getenv(known->envvar) : NULL;

		if (known->envvar == NULL || is_given(info, known->keyword))
			continue;
		if ((flags & QUEUE_SINK_TRUSTED) &&
			(strcmp(known->keyword, "password") == 0 || strcmp(known->keyword, "passfile") == 0))
			continue;
		if (known->compiled && *known->compiled)
			give(info, known->keyword, known->compiled);
		else if (set && *set)
			offender = known->envvar;
	}
	return offender;
}

/* Every address goes with the name, which certificates are checked against. */
static void
give_addresses(PostgresConninfo *info, const char *host, const PostgresAddresses *addresses, int first)
{
	if (addresses->count == 0)
	{
		give(info, "host", host);
		if (*host != '/' && *host != '@')
			give(info, "hostaddr", host);
		return;
	}
	for (int i = 0; i < addresses->count; i++)
	{
		text_add_string(&info->host, i ? "," : "");
		text_add_string(&info->host, host);
		text_add_string(&info->hostaddr, i ? "," : "");
		text_add_string(&info->hostaddr, addresses->numeric[(first + i) % addresses->count]);
	}
	give(info, "host", info->host.data);
	give(info, "hostaddr", info->hostaddr.data);
}

static void
free_conninfo(PostgresConninfo *info)
{
	PQconninfoFree(info->known);
	text_free(&info->host);
	text_free(&info->hostaddr);
}

/* Can a connection be told everything? 0, or an error was written. */
int
postgres_conninfo_check(const PostgresOptions *options, uint32_t flags, char *error, size_t size)
{
	PostgresConninfo info = {.known = PQconndefaults()};
	PostgresAddresses none = {0};
	const char *offender = NULL;

	if (info.known == NULL)
	{
		snprintf(error, size, "out of memory");
		return -1;
	}
	give_addresses(&info, options->values[OPTION_HOST], &none, 0);
	give_own(&info, options, flags);
	offender = give_defaults(&info, flags);
	if (offender)
		snprintf(error, size, "the environment of this process sets %s, which a relay must not depend on", offender);
	free_conninfo(&info);
	return offender ? -1 : 0;
}

/*
 * Begins to connect, to the addresses in turn from "first" on. NULL: no memory.
 * Once begun, libpq has copies of all it was told.
 */
PGconn *
postgres_conninfo_connect(const PostgresOptions *options, const QueueSinkConfig *config,
						  const PostgresAddresses *addresses, int first)
{
	PostgresConninfo info = {.known = PQconndefaults()};
	PGconn	   *conn = NULL;

	if (info.known == NULL)
		return NULL;
	snprintf(info.tcp_user_timeout, sizeof(info.tcp_user_timeout), "%d",
			 config->timeout < 1000 ? 1000 : config->timeout > 600000 ? 600000 : (int) config->timeout);
	snprintf(info.application_name, sizeof(info.application_name), "queue relay %s", config->relay ? config->relay : "");
	give_addresses(&info, options->values[OPTION_HOST], addresses, first);
	give_own(&info, options, config->flags);
	give(&info, "tcp_user_timeout", info.tcp_user_timeout);
	give(&info, "application_name", info.application_name);
	give_defaults(&info, config->flags);
	if (!info.host.broken && !info.hostaddr.broken)
		conn = PQconnectStartParams(info.keywords, info.values, 0);
	free_conninfo(&info);
	return conn;
}
