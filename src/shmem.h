/*
 * shmem.h
 *	  Shared memory: each module describes its part, this one reserves it.
 */
#ifndef QUEUE_SHMEM_H
#define QUEUE_SHMEM_H

#include "storage/lwlock.h"

/*
 * A module's share. size() is asked before the settings can change no more;
 * init() is called once per process with found=false in the one that creates
 * it. A module that names a tranche gets that many LWLocks.
 */
typedef struct QueueShmemPart
{
	const char *name;
	Size		(*size) (void);
	void		(*init) (void *area, bool found);
	const char *tranche;
	int			locks;
	Size		(*beside) (void);	/* what init() allocates besides, or NULL */
} QueueShmemPart;

extern void queue_shmem_register(const QueueShmemPart *const *parts);
extern bool queue_shmem_ready(void);

#endif							/* QUEUE_SHMEM_H */
