/*
 * options.h
 *	  The options of the sink: which there are, what they may be, what was given.
 */
#ifndef POSTGRES_OPTIONS_H
#define POSTGRES_OPTIONS_H

#include "../sink.h"

typedef enum PostgresOption
{
	OPTION_HOST,
	OPTION_PORT,
	OPTION_DBNAME,
	OPTION_QUEUE,
	OPTION_FUNCTION,
	OPTION_SSLMODE,
	OPTION_SSLROOTCERT,
	OPTION_SSLCERT,
	OPTION_CONNECT_TIMEOUT,
	OPTION_USER,
	OPTION_PASSWORD,
	OPTION_SSLKEY,
	OPTION_SSLPASSWORD,
	OPTION_COUNT
} PostgresOption;

/* Own copies of the values, or of what counts without one; NULL: nothing. */
typedef struct PostgresOptions
{
	char	   *values[OPTION_COUNT];
	const char *secrets[3];		/* of the values, ends with NULL */
	int			connect_timeout;	/* ms */
} PostgresOptions;

extern const QueueSinkOption postgres_option_table[];

extern int	postgres_options_check(const QueueSinkSetting *settings, int count, char *error, size_t size);
extern int	postgres_options_read(PostgresOptions *options, const QueueSinkConfig *config,
								  char *error, size_t size);
extern void postgres_options_free(PostgresOptions *options);
extern char *postgres_options_function(const char *name);

#endif							/* POSTGRES_OPTIONS_H */
