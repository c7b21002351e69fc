/*
 * shmem.c
 *	  Reserves and attaches the parts of shared memory that queue.c lists.
 *
 * After a crash the postmaster makes shared memory anew and init() runs again
 * with found=false: everything the map and the slots knew is forgotten, which
 * is what leases are meant to do.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "shmem.h"

/* The list that queue.c handed in, ended by NULL. */
static const QueueShmemPart *const *registered;

/* Whether this process has attached to all parts. */
static bool attached;

static shmem_request_hook_type previous_request;
static shmem_startup_hook_type previous_startup;

static void
request(void)
{
	if (previous_request)
		previous_request();
	for (int i = 0; registered[i]; i++)
	{
		RequestAddinShmemSpace(MAXALIGN(registered[i]->size()) + PG_CACHE_LINE_SIZE);
		if (registered[i]->beside)
			RequestAddinShmemSpace(registered[i]->beside());
		if (registered[i]->tranche)
			RequestNamedLWLockTranche(registered[i]->tranche, registered[i]->locks);
	}
}

static void
startup(void)
{
	if (previous_startup)
		previous_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; registered[i]; i++)
	{
		bool		found;
		void	   *area;

		area = ShmemInitStruct(registered[i]->name, registered[i]->size(), &found);
		registered[i]->init(area, found);
	}
	LWLockRelease(AddinShmemInitLock);
	attached = true;
}

void
queue_shmem_register(const QueueShmemPart *const *parts)
{
	registered = parts;
	previous_request = shmem_request_hook;
	shmem_request_hook = request;
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = startup;
}

bool
queue_shmem_ready(void)
{
	return attached;
}
