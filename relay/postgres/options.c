/*
 * options.c
 *	  The options of the sink: which there are, what they may be, what was given.
 *
 * A host that is a folder or an abstract socket is the host's own machine, which
 * only trusted relays may reach that way: "peer" would make them its operating
 * system user. For the same reason all others need a password, as with dblink.
 */
#include "options.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

#define MAX_QUEUE_NAME 53
#define MAX_IDENTIFIER 63
/* libpq cuts a longer one off, and says so on standard error. */
#define MAX_SSLPASSWORD 1000

const QueueSinkOption postgres_option_table[] = {
	[OPTION_HOST] = {"host", QUEUE_SINK_OPTION_REQUIRED, NULL, "name or address of the server; superusers: also the folder of its socket"},
	[OPTION_PORT] = {"port", 0, "5432", "its port"},
	[OPTION_DBNAME] = {"dbname", QUEUE_SINK_OPTION_REQUIRED, NULL, "the database"},
	[OPTION_QUEUE] = {"queue", 0, NULL, "the queue there that messages without a target are enqueued to; either this or function"},
	[OPTION_FUNCTION] = {"function", 0, NULL, "the function there that is called for each message, name or schema.name: (id text, key text, headers jsonb, content_type text, body bytea)"},
	[OPTION_SSLMODE] = {"sslmode", 0, "prefer", "disable, allow, prefer, require, verify-ca or verify-full"},
	[OPTION_SSLROOTCERT] = {"sslrootcert", QUEUE_SINK_OPTION_READS, NULL, "file of the certificate authorities that sslmode verify-ca and verify-full trust"},
	[OPTION_SSLCERT] = {"sslcert", QUEUE_SINK_OPTION_READS, NULL, "file of the client's certificate"},
	[OPTION_CONNECT_TIMEOUT] = {"connect_timeout", 0, "3000", "ms that finding the address and logging in may take"},
	[OPTION_USER] = {"user", QUEUE_SINK_OPTION_USER | QUEUE_SINK_OPTION_REQUIRED, NULL, "the role to log in as"},
	[OPTION_PASSWORD] = {"password", QUEUE_SINK_OPTION_SECRET, NULL, "its password; only superusers' relays can do without"},
	[OPTION_SSLKEY] = {"sslkey", QUEUE_SINK_OPTION_USER | QUEUE_SINK_OPTION_READS, NULL, "file of the key to sslcert"},
	[OPTION_SSLPASSWORD] = {"sslpassword", QUEUE_SINK_OPTION_SECRET, NULL, "what sslkey is encrypted with"},
	[OPTION_COUNT] = {NULL, 0, NULL, NULL}
};

static const char *
setting(const QueueSinkSetting *settings, int count, PostgresOption option)
{
	for (int i = 0; i < count; i++)
		if (strcmp(settings[i].name, postgres_option_table[option].name) == 0)
			return settings[i].value;
	return NULL;
}

/* A decimal number from 1 to "most" and nothing else. */
static bool
is_number(const char *value, int most)
{
	long		number = 0;

	if (*value == '\0')
		return false;
	for (; *value; value++)
	{
		if (!isdigit((unsigned char) *value))
			return false;
		number = number * 10 + (*value - '0');
		if (number > most)
			return false;
	}
	return number > 0;
}

static bool
is_sslmode(const char *value)
{
	static const char *const modes[] = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"};

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (strcmp(value, modes[i]) == 0)
			return true;
	return false;
}

/* Adds one name as SQL reads it, and moves behind it. */
static bool
add_name(Text *sql, const char **position)
{
	const char *p = *position;
	Text		name = {0};
	bool		good;

	if (*p == '"')
	{
		for (p++; *p && (*p != '"' || p[1] == '"'); p++)
		{
			text_add(&name, p, 1);
			p += *p == '"';
		}
		good = *p == '"';
		p += good;
	}
	else
	{
		good = !isdigit((unsigned char) *p) && *p != '$';
		for (; isalnum((unsigned char) *p) || *p == '_' || *p == '$' || (unsigned char) *p >= 0x80; p++)
		{
			char		lower = *p >= 'A' && *p <= 'Z' ? (char) (*p - 'A' + 'a') : *p;

			text_add(&name, &lower, 1);
		}
	}
	good = good && name.length > 0 && name.length <= MAX_IDENTIFIER && !name.broken;
	if (good)
		text_add_identifier(sql, name.data, name.length);
	text_free(&name);
	*position = p;
	return good;
}

/*
 * The name of a function, as a statement has it; to be freed. NULL if it is
 * none. One without a schema is one of "public".
 */
char *
postgres_options_function(const char *name)
{
	Text		first = {0},
				second = {0},
				sql = {0};
	bool		good = add_name(&first, &name);

	if (good && *name == '.')
	{
		name++;
		good = add_name(&second, &name);
	}
	if (good && *name == '\0')
	{
		text_add_string(&sql, second.length ? first.data : "\"public\"");
		text_add(&sql, ".", 1);
		text_add_string(&sql, second.length ? second.data : first.data);
	}
	text_free(&first);
	text_free(&second);
	if (sql.broken)
		text_free(&sql);
	return sql.data;
}

static bool
is_function(const char *value)
{
	char	   *sql = postgres_options_function(value);

	free(sql);
	return sql != NULL;
}

/* What is wrong with a value, or NULL. */
static const char *
complaint(PostgresOption option, const char *value)
{
	switch (option)
	{
		case OPTION_HOST:
			return *value && !strpbrk(value, ", \t\n") ? NULL : "must be one name, address or folder";
		case OPTION_PORT:
			return is_number(value, 65535) ? NULL : "must be a number from 1 to 65535";
		case OPTION_CONNECT_TIMEOUT:
			return is_number(value, 3600000) ? NULL : "must be a number of ms from 1 to 3600000";
		case OPTION_SSLMODE:
			return is_sslmode(value) ? NULL : "must be disable, allow, prefer, require, verify-ca or verify-full";
		case OPTION_FUNCTION:
			return is_function(value) ? NULL : "must be a name or schema.name, quoted like in SQL";
		case OPTION_QUEUE:
			return *value && strlen(value) <= MAX_QUEUE_NAME ? NULL : "must have 1 to 53 bytes";
		case OPTION_SSLROOTCERT:
		case OPTION_SSLCERT:
			return *value == '/' ? NULL : "must be an absolute path";
		case OPTION_SSLKEY:
			/* With a colon libpq takes it for the name of an engine to load. */
			return *value == '/' && !strchr(value, ':') ? NULL : "must be an absolute path without a colon";
		case OPTION_SSLPASSWORD:
			return *value && strlen(value) <= MAX_SSLPASSWORD ? NULL : "must have 1 to 1000 bytes";
		default:
			return *value ? NULL : "must not be empty";
	}
}

static int
fail(char *error, size_t size, const char *format, const char *what, const char *why)
{
	snprintf(error, size, format, what, why);
	return -1;
}

/* What must go together, as far as a server alone shows it. */
static int
check_together(const QueueSinkSetting *settings, int count, char *error, size_t size)
{
	const char *queue = setting(settings, count, OPTION_QUEUE);
	const char *function = setting(settings, count, OPTION_FUNCTION);
	const char *sslmode = setting(settings, count, OPTION_SSLMODE);

	if (queue && function)
		return fail(error, size, "options \"%s\" and \"%s\" exclude each other", "queue", "function");
	if (!queue && !function && setting(settings, count, OPTION_HOST))
		return fail(error, size, "one of the options \"%s\" and \"%s\" is needed", "queue", "function");
	if (sslmode && strncmp(sslmode, "verify", 6) == 0 && !setting(settings, count, OPTION_SSLROOTCERT))
		return fail(error, size, "option \"sslmode\" \"%s\" needs option \"%s\"", sslmode, "sslrootcert");
	return 0;
}

/* The check() of the table. */
int
postgres_options_check(const QueueSinkSetting *settings, int count, char *error, size_t size)
{
	for (int option = 0; option < OPTION_COUNT; option++)
	{
		const char *value = setting(settings, count, option);
		const char *why = value ? complaint(option, value) : NULL;

		if (why)
			return fail(error, size, "option \"%s\" %s", postgres_option_table[option].name, why);
	}
	return check_together(settings, count, error, size);
}

static int
check_trust(const PostgresOptions *options, char *error, size_t size)
{
	const char *host = options->values[OPTION_HOST];

	if (options->values[OPTION_PASSWORD] == NULL)
		return fail(error, size, "option \"%s\" is needed in the user mapping%s", "password",
					": only a superuser's relay can do without");
	if (*host == '/' || *host == '@')
		return fail(error, size, "option \"%s\" is a local socket%s", "host",
					": only a superuser's relay can use one");
	return 0;
}

static int
check_complete(const PostgresOptions *options, uint32_t flags, char *error, size_t size)
{
	for (int i = 0; i < OPTION_COUNT; i++)
		if (postgres_option_table[i].flags & QUEUE_SINK_OPTION_REQUIRED && options->values[i] == NULL)
			return fail(error, size, "option \"%s\" is needed%s", postgres_option_table[i].name, "");
	if (!options->values[OPTION_SSLCERT] != !options->values[OPTION_SSLKEY])
		return fail(error, size, "options \"%s\" and \"%s\" need each other", "sslcert", "sslkey");
	if (!(flags & QUEUE_SINK_TRUSTED))
		return check_trust(options, error, size);
	return 0;
}

/* 0: good, to be freed; else nothing is to be freed, and an error was written. */
int
postgres_options_read(PostgresOptions *options, const QueueSinkConfig *config, char *error, size_t size)
{
	int			secrets = 0;
	int			result;

	memset(options, 0, sizeof(*options));
	if (postgres_options_check(config->settings, config->setting_count, error, size) != 0)
		return -1;
	for (int i = 0; i < OPTION_COUNT; i++)
	{
		const char *value = setting(config->settings, config->setting_count, i);

		if (value == NULL)
			value = postgres_option_table[i].missing;
		if (value != NULL)
			options->values[i] = strdup(value);
		if (value != NULL && options->values[i] == NULL)
		{
			postgres_options_free(options);
			return fail(error, size, "%s%s", "out of memory", "");
		}
		if (options->values[i] && (postgres_option_table[i].flags & QUEUE_SINK_OPTION_SECRET) == QUEUE_SINK_OPTION_SECRET)
			options->secrets[secrets++] = options->values[i];
	}
	options->connect_timeout = atoi(options->values[OPTION_CONNECT_TIMEOUT]);
	result = check_complete(options, config->flags, error, size);
	if (result != 0)
		postgres_options_free(options);
	return result;
}

void
postgres_options_free(PostgresOptions *options)
{
	for (int i = 0; i < OPTION_COUNT; i++)
	{
		/* Secrets do not stay in memory that is used again. */
		if (options->values[i])
			explicit_bzero(options->values[i], strlen(options->values[i]));
		free(options->values[i]);
	}
	memset(options, 0, sizeof(*options));
}
