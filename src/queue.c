/*
 * queue.c
 *	  The module: settings, shared memory, hooks, the launcher.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "catalog.h"
#include "dedup.h"
#include "guard.h"
#include "guc.h"
#include "launcher.h"
#include "pending.h"
#include "runner.h"
#include "segment.h"
#include "shmem.h"
#include "slot.h"
#include "wakeup.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

/* Parts of shared memory, in the order in which they are attached. */
static const QueueShmemPart *const parts[] = {
	&queue_clock_shmem,
	&queue_state_shmem,
	&queue_map_shmem,
	&queue_key_shmem,
	&queue_meter_shmem,
	&queue_slot_shmem,
	&queue_segment_shmem,
	&queue_wakeup_shmem,
	&queue_launcher_shmem,
	&queue_dedup_shmem,
	&queue_runner_shmem,
	NULL
};

void
_PG_init(void)
{
	bool		preloading = process_shared_preload_libraries_in_progress;

	queue_guc_define(preloading);
	queue_catalog_init();
	/*
	 * Loaded later, functions say what to set. Callbacks and hooks work on
	 * shared memory, so without it there are none.
	 */
	if (!preloading)
		return;
	queue_shmem_register(parts);
	queue_pending_init();
	queue_guard_init();
	queue_launcher_init();
	queue_runner_init();
	/* pg_upgrade wants nobody else to write. */
	if (!IsBinaryUpgrade)
		queue_launcher_register();
}
