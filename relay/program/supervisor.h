/*
 * supervisor.h
 *	  The process that has a child for each relay.
 */
#ifndef SUPERVISOR_H
#define SUPERVISOR_H

#include "runner.h"

extern int	supervisor_main(const RunnerOptions *options, char **relays, int count);

#endif							/* SUPERVISOR_H */
