/*
 * waiter.h
 *	  The connection that waits for messages.
 */
#ifndef WAITER_H
#define WAITER_H

#include <stdbool.h>
#include <stdint.h>

#include "database.h"

typedef struct Waiter Waiter;

extern Waiter *waiter_new(const Database *like, const char *queue);
extern void waiter_free(Waiter *waiter);
extern bool waiter_run(Waiter *waiter, bool listens);
extern void waiter_wait_for(const Waiter *waiter, bool listens, int *socket, short *events, int64_t * until);
extern int	waiter_pid(const Waiter *waiter);

#endif							/* WAITER_H */
