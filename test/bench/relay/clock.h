/*
 * clock.h
 *	  What the programs of this folder share: the time, and who was when.
 *
 * A log has a line "number nanoseconds" for each message, by the machine's
 * monotonic clock, so that logs of two programs can be laid side by side.
 */
#ifndef RELAY_CLOCK_H
#define RELAY_CLOCK_H

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline int64_t
now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t) time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Between half and one and a half of so many ms: in step with nothing. */
static inline void
pause_about(int ms)
{
	int64_t		ns = ms * INT64_C(500000) + (int64_t) (drand48() * ms * 1e6);
	struct timespec time = {ns / 1000000000, ns % 1000000000};

	nanosleep(&time, NULL);
}

static inline FILE *
open_log(const char *path)
{
	FILE	   *file = fopen(path, "w");

	if (file == NULL)
	{
		perror(path);
		exit(1);
	}
	return file;
}

/* The first number in a text, or -1. */
static inline long
first_number(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (isdigit((unsigned char) text[i]))
			return strtol(text + i, NULL, 10);
	return -1;
}

/* The payload of latencies: a JSON document of about so many bytes, with its number first. */
static inline int
make_payload(char *room, size_t size, long number, int bytes)
{
	int			n = snprintf(room, size, "{\"n\": %ld, \"note\": \"", number);

	while (n < bytes - 2 && n < (int) size - 3)
		room[n++] = 'x';
	return n + snprintf(room + n, size - n, "\"}");
}

static inline void
note(FILE *log, long number, int64_t time)
{
	fprintf(log, "%ld %lld\n", number, (long long) time);
}

#endif							/* RELAY_CLOCK_H */
