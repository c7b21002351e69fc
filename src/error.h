/*
 * error.h
 *	  The project's own SQLSTATEs and the errors that more than one file raises.
 *
 * The same fact has the same words everywhere. All are listed in
 * doc/errors.md; test/lint compares.
 */
#ifndef QUEUE_ERROR_H
#define QUEUE_ERROR_H

#include "compat.h"

#define ERRCODE_QUEUE_LEASE_LOST MAKE_SQLSTATE('Q', 'U', '0', '0', '1')
#define ERRCODE_QUEUE_PAUSED MAKE_SQLSTATE('Q', 'U', '0', '0', '2')
#define ERRCODE_QUEUE_FULL MAKE_SQLSTATE('Q', 'U', '0', '0', '3')

QUEUE_NORETURN extern void queue_error_null(const char *what);
QUEUE_NORETURN extern void queue_error_no_queue(const char *name);
QUEUE_NORETURN extern void queue_error_not_built(const char *option);
QUEUE_NORETURN extern void queue_error_no_update(void);
QUEUE_NORETURN extern void queue_error_lease_lost(const char *receipt);
extern void queue_error_need_preload(void);
extern void queue_error_need_write(const char *function);

#endif							/* QUEUE_ERROR_H */
