/*
 * guc.c
 *	  Defines the settings, alphabetically.
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"

#include "guc.h"

int			queue_map_memory = 65536;
int			queue_max_batch = 10000;
int			queue_max_databases = 64;
int			queue_max_keys = 65536;
int			queue_max_leases = 65536;
int			queue_max_meters = 16384;
int			queue_max_message_size = 16384;
int			queue_max_queues = 8192;
int			queue_max_segments = 16384;
int			queue_max_wait = 5000;
int			queue_notify_interval = 10;
int			queue_recheck_interval = 1000;
int			queue_reclaim_delay = 60000;
int			queue_segment_size = 65536;
char	   *queue_sink_libraries = NULL;
int			queue_worker_interval = 1000;

void
queue_guc_define(bool preloading)
{
	/* Without preload there is no shared memory to size. */
	if (preloading)
	{
		DefineCustomIntVariable("queue.map_memory",
								"Memory for the map of pages with work, shared by all databases.",
								NULL, &queue_map_memory, 65536, 256, MAX_KILOBYTES,
								PGC_POSTMASTER, GUC_UNIT_KB, NULL, NULL, NULL);
		DefineCustomIntVariable("queue.max_databases",
								"Most databases that can have the extension at a time.",
								NULL, &queue_max_databases, 64, 1, 10000,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
		DefineCustomIntVariable("queue.max_keys",
								"Most keys of ordered queues of which messages are held or waited for, in all databases.",
								NULL, &queue_max_keys, 65536, 64, 64 * 1024 * 1024,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
		DefineCustomIntVariable("queue.max_leases",
								"Most messages that can be leased at a time, in all databases.",
								NULL, &queue_max_leases, 65536, 64, 64 * 1024 * 1024,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
		DefineCustomIntVariable("queue.max_meters",
								"Most keys, consumers and queues that a limit counts, or that take turns, in all databases.",
								NULL, &queue_max_meters, 16384, 64, 64 * 1024 * 1024,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
		DefineCustomIntVariable("queue.max_queues",
								"Most queues that can be in use at a time, in all databases.",
								NULL, &queue_max_queues, 8192, 16, 1000000,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
		DefineCustomIntVariable("queue.max_segments",
								"Most segments that can be in use at a time, in all databases.",
								NULL, &queue_max_segments, 16384, 16, 4000000,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
	}
	DefineCustomIntVariable("queue.max_batch",
							"Most messages in one call.",
							NULL, &queue_max_batch, 10000, 1, 1000000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("queue.max_message_size",
							"Largest message: payload or body, headers and keys together.",
							NULL, &queue_max_message_size, 16384, 1, 1048576 / 2,
							PGC_SUSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("queue.max_wait",
							"Longest sleep of a dequeue, which holds a snapshot while it waits.",
							NULL, &queue_max_wait, 5000, 0, 3600000,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("queue.notify_interval",
							"Shortest time between two notifications for one queue.",
							NULL, &queue_notify_interval, 10, 1, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("queue.recheck_interval",
							"How soon a message is looked for whose transaction ended without telling.",
							NULL, &queue_recheck_interval, 1000, 10, 600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("queue.reclaim_delay",
							"How long an emptied segment is kept for snapshots that can still see it.",
							NULL, &queue_reclaim_delay, 60000, 0, 86400000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("queue.segment_size",
							"Size at which a queue goes on in its next segment.",
							NULL, &queue_segment_size, 65536, 64, 4 * 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomStringVariable("queue.sink_libraries",
							   "Libraries that may be loaded to relay events, separated by commas.",
							   NULL, &queue_sink_libraries, "",
							   PGC_SUSET, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomIntVariable("queue.worker_interval",
							"How often the worker looks for work that nobody announced.",
							NULL, &queue_worker_interval, 1000, 10, 600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	MarkGUCPrefixReserved("queue");
}
