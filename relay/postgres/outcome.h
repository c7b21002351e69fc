/*
 * outcome.h
 *	  What an error of the remote server means for messages.
 */
#ifndef POSTGRES_OUTCOME_H
#define POSTGRES_OUTCOME_H

#include <stdbool.h>
#include <libpq-fe.h>

#include "../sink.h"

typedef struct PostgresVerdict
{
	QueueSinkOutcome outcome;
	int64_t		pause;
	bool		for_all;		/* not a matter of the message it was met at */
	bool		reconnect;		/* this session is of no more use */
	char		detail[512];
} PostgresVerdict;

extern void postgres_outcome_of_state(PostgresVerdict *verdict, const char *sqlstate);
extern void postgres_outcome_of_result(PostgresVerdict *verdict, const PGresult *result,
									   const char *const *secrets);
extern void postgres_outcome_of_connection(PostgresVerdict *verdict, const char *message,
										   const char *const *secrets);
extern void postgres_outcome_for_target(PostgresVerdict *verdict, const char *sqlstate);
extern void postgres_outcome_for_nobody(PostgresVerdict *verdict);
extern bool postgres_outcome_is_fatal(const PGresult *result);

#endif							/* POSTGRES_OUTCOME_H */
