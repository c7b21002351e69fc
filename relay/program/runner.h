/*
 * runner.h
 *	  The process that runs one relay.
 */
#ifndef RUNNER_H
#define RUNNER_H

#include <stdint.h>

typedef struct RunnerOptions
{
	const char *conninfo;		/* NULL: as the environment has it */
	const char *sink_path;
	int64_t		drain_time;		/* us */
} RunnerOptions;

extern int	runner_main(const RunnerOptions *options, const char *relay, volatile int64_t * epoch);
extern int	runner_test(const RunnerOptions *options, const char *relay);

#endif							/* RUNNER_H */
