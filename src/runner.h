/*
 * runner.h
 *	  Who runs which relay, and how it goes.
 */
#ifndef QUEUE_RUNNER_H
#define QUEUE_RUNNER_H

#include "datatype/timestamp.h"

#include "clock.h"
#include "pump.h"
#include "shmem.h"

#define QUEUE_RUNNER_NAME 64
#define QUEUE_RUNNER_TEXT 512

/* What is counted; the first ones are the pump's, told by each renewal. */
typedef enum QueueRunnerCount
{
	QUEUE_RUNNER_DELIVERED,
	QUEUE_RUNNER_FAILED,
	QUEUE_RUNNER_AMBIGUOUS,
	QUEUE_RUNNER_THROTTLED,
	QUEUE_RUNNER_REJECTED,
	QUEUE_RUNNER_PUMP_COUNTS,
	QUEUE_RUNNER_FILTERED = QUEUE_RUNNER_PUMP_COUNTS,
	QUEUE_RUNNER_LOST,
	QUEUE_RUNNER_COUNTS
} QueueRunnerCount;

/* What a runner says of itself. Counts are what came since it last said so. */
typedef struct QueueRunnerStatus
{
	int64		counts[QUEUE_RUNNER_PUMP_COUNTS];
	int			in_flight;
	int			held;
	int			breaker;		/* QueuePumpBreaker */
	int64		breaker_for;	/* us that it stays open */
	const char *error;			/* a new one, in the server's encoding; NULL: none */
} QueueRunnerStatus;

/* A copy of an entry. */
typedef struct QueueRunner
{
	Oid			database;		/* InvalidOid: the entry is free */
	int32		relay;
	int64		epoch;			/* of the last runner; 0: there was none */
	QueueTime	until;			/* its time; 0: it has ended */
	int			pid;			/* in the server; 0: it is outside */
	int64		version;		/* of the definition that it works by */
	char		name[QUEUE_RUNNER_NAME];
	TimestampTz since;
	int64		counts[QUEUE_RUNNER_COUNTS];
	int			in_flight;
	int			held;
	int			breaker;
	TimestampTz breaker_until;
	TimestampTz delivered_at;
	TimestampTz error_at;
	char		error[QUEUE_RUNNER_TEXT];

	/* deliveries of this minute and of the one before it, for the rate */
	TimestampTz minute;
	int64		this_minute;
	int64		last_minute;

	/* starts of a relay worker */
	QueueTime	not_before;
	QueueTime	pause;

	/* the last trial */
	uint32		test;			/* number of the one that was asked for */
	uint32		tested;			/* and of the one that has ended */
	bool		test_ok;
	char		test_detail[QUEUE_RUNNER_TEXT];
} QueueRunner;

extern const QueueShmemPart queue_runner_shmem;

extern void queue_runner_init(void);
extern bool queue_runner_begin(int32 relay, int64 epoch, const char *name, bool in_server, int64 version,
							   int64 time, char *holder);
extern bool queue_runner_is(int32 relay, int64 epoch);
extern bool queue_runner_is_current(int32 relay, int64 epoch, int64 version);
extern bool queue_runner_renew(int32 relay, int64 epoch, int64 time, const QueueRunnerStatus *status);
extern void queue_runner_count(int32 relay, QueueRunnerCount what, int64 n);
extern void queue_runner_end(int32 relay, int64 epoch);
extern void queue_runner_tell_error(int32 relay, const char *error);
extern void queue_runner_forget_database(Oid database);
extern void queue_runner_forget_at_commit(void);
extern bool queue_runner_get(int32 relay, QueueRunner *runner);
extern bool queue_runner_runs(const QueueRunner *runner);
extern double queue_runner_rate(const QueueRunner *runner);
extern bool queue_runner_may_start(int32 relay);
extern bool queue_runner_leave(Oid database, bool again);

extern uint32 queue_runner_ask_test(int32 relay);
extern void queue_runner_tell_test(int32 relay, uint32 test, bool ok, const char *detail);

#endif							/* QUEUE_RUNNER_H */
