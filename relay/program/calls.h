/*
 * calls.h
 *	  The functions of the server for runners.
 */
#ifndef CALLS_H
#define CALLS_H

#include <stdbool.h>
#include <stdint.h>

#include "../../src/pump.h"
#include "database.h"

/* What a relay is begun with. Points into the result. */
typedef struct CallsRelay
{
	PGresult   *result;			/* NULL: there is no relay */
	int64_t		epoch;
	const char *library;
	const char *queue;
	QueueSinkSetting *settings;
	int			setting_count;
	bool		trusted;
	int64_t		version;
	QueuePumpConfig pump;
	int64_t		lease;			/* us */
} CallsRelay;

typedef enum CallsState
{
	CALLS_RUN,
	CALLS_CHANGED,
	CALLS_PAUSED,
	CALLS_LOST,
} CallsState;

#define CALLS_COUNTS 9

/* What a runner says of itself. */
typedef struct CallsStatus
{
	int64_t		numbers[CALLS_COUNTS];	/* as the server's read_status() has
										 * them */
	const char *error;			/* NULL: there is no new one */
} CallsStatus;

/* Messages that were taken are handed over in order. */
typedef void (*CallsReceive) (void *context, QueuePumpMessage * message);

extern bool calls_look(Database *database, const char *relay, int64_t deadline, char *obstacle, size_t size);
extern bool calls_begin(Database *database, const char *name, const char *runner, int64_t deadline, CallsRelay *relay);
extern void calls_free_relay(CallsRelay *relay);
extern int	calls_take(Database *database, const char *relay, int64_t epoch, int wanted, int64_t deadline,
					   CallsReceive receive, void *context);
extern bool calls_settle(Database *database, const char *relay, int64_t epoch, QueuePumpMessage * const *messages,
						 int count, int64_t deadline);
extern bool calls_renew(Database *database, const char *relay, int64_t epoch, int64_t version,
						const unsigned char *const *receipts, int count, const CallsStatus *status,
						int64_t deadline, CallsState *state, uint64_t * gate);
extern bool calls_end(Database *database, const char *relay, int64_t epoch, const char *reason, int64_t deadline);
extern void calls_cancel(Database *database, int pid, int64_t deadline);

#endif							/* CALLS_H */
