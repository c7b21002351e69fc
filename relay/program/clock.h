/*
 * clock.h
 *	  The time by which the program works: monotonic, in us.
 */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>
#include <time.h>

/* A second, in us. */
#define SECOND INT64_C(1000000)

static inline int64_t
clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * SECOND + now.tv_nsec / 1000;
}

#endif							/* CLOCK_H */
