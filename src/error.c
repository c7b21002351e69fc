/*
 * error.c
 *	  Errors that more than one file raises.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "error.h"
#include "shmem.h"

void
queue_error_null(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be null", what)));
}

void
queue_error_no_queue(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("queue \"%s\" does not exist", name),
			 errhint("Queues are created with queue.create().")));
}

void
queue_error_not_built(const char *option)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("option \"%s\" is not implemented yet", option)));
}

void
queue_error_no_update(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("messages of a queue cannot be updated"),
			 errhint("Cancel the message with DELETE or queue.cancel() and enqueue another.")));
}

void
queue_error_lease_lost(const char *receipt)
{
	ereport(ERROR,
			(errcode(ERRCODE_QUEUE_LEASE_LOST),
			 errmsg("lease is lost"),
			 errdetail("Receipt %s does not hold a message: it was settled, its lease ran out and the message went on, or the server restarted.", receipt),
			 errhint("The message is delivered again unless it was settled; give up this attempt.")));
}

/*
 * Everything but the catalog lives in shared memory, which exists only when
 * the library was loaded by the postmaster.
 */
void
queue_error_need_preload(void)
{
	if (!queue_shmem_ready())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue must be loaded via \"shared_preload_libraries\""),
				 errhint("Add \"queue\" to shared_preload_libraries in postgresql.conf and restart the server.")));
}

/*
 * Leases need no transaction id, so nothing in the server would stop them in a
 * read-only transaction or on a standby.
 */
void
queue_error_need_write(const char *function)
{
	queue_error_need_preload();
	PreventCommandIfReadOnly(function);
	PreventCommandDuringRecovery(function);
	PreventCommandIfParallelMode(function);
}
