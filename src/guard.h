/*
 * guard.h
 *	  Keeps hands off what belongs to the extension, and watches for what it
 *	  must know of: errors of statements, databases about to go.
 */
#ifndef QUEUE_GUARD_H
#define QUEUE_GUARD_H

extern void queue_guard_init(void);

#endif							/* QUEUE_GUARD_H */
