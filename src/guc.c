/*
 * guc.c
 *	  Defines the settings, alphabetically.
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"

#include "guc.h"

int			queue_inbox_retention = 10080;
int			queue_map_memory = 65536;
int			queue_max_batch = 10000;
int			queue_max_databases = 64;
int			queue_max_keys = 65536;
int			queue_max_leases = 65536;
int			queue_max_meters = 16384;
int			queue_max_message_size = 16384;
int			queue_max_queues = 8192;
int			queue_max_relays = 256;
int			queue_max_segments = 16384;
int			queue_max_wait = 5000;
int			queue_notify_interval = 10;
int			queue_recheck_interval = 1000;
int			queue_reclaim_delay = 60000;
int			queue_relay_drain_timeout = 3000;
int			queue_relay_log_retention = 10080;
int			queue_segment_size = 65536;
char	   *queue_sink_libraries = NULL;
char	   *queue_traceparent = NULL;
int			queue_worker_interval = 1000;

/* Whether text is a W3C trace context's traceparent, with an id of a trace and one of a span. */
bool
queue_guc_is_traceparent(const char *text)
{
	static const char form[] = "xx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";

	if (strlen(text) != strlen(form) || strncmp(text, "ff", 2) == 0)
		return false;
	for (int i = 0; form[i]; i++)
		if (form[i] == 'x' ? !strchr("0123456789abcdef", text[i]) : text[i] != form[i])
			return false;
	return strspn(text + 3, "0") < 32 && strspn(text + 36, "0") < 16;
}

static bool
check_traceparent(char **value, void **extra, GucSource source)
{
	if (**value == '\0' || queue_guc_is_traceparent(*value))
		return true;
	GUC_check_errdetail("It is to be a traceparent of W3C Trace Context: version, trace id, parent id and flags.");
	GUC_check_errhint("For instance \"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\", in lower case; \"\" for none.");
	return false;
}

/* They size shared memory, which is not there without preload. */
static void
define_sizes(void)
{
	DefineCustomIntVariable("queue.inbox_retention",
							"How long queue.once() remembers a key.",
							NULL, &queue_inbox_retention, 10080, 1, 366 * 24 * 60,
							PGC_POSTMASTER, GUC_UNIT_MIN, NULL, NULL, NULL);
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
	DefineCustomIntVariable("queue.max_relays",
							"Most relays that can run at a time, in all databases.",
							NULL, &queue_max_relays, 256, 1, 100000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("queue.max_segments",
							"Most segments that can be in use at a time, in all databases.",
							NULL, &queue_max_segments, 16384, 16, 4000000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
}

void
queue_guc_define(bool preloading)
{
	if (preloading)
		define_sizes();
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
	DefineCustomIntVariable("queue.relay_drain_timeout",
							"How long a relay worker that is to end waits for what is in flight.",
							NULL, &queue_relay_drain_timeout, 3000, 0, 3600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("queue.relay_log_retention",
							"How long what was confirmed stays in queue.relay_log, at least.",
							NULL, &queue_relay_log_retention, 10080, 2, 366 * 24 * 60,
							PGC_SIGHUP, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable("queue.segment_size",
							"Size at which a queue goes on in its next segment.",
							NULL, &queue_segment_size, 65536, 64, 4 * 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomStringVariable("queue.sink_libraries",
							   "Libraries that may be loaded to relay events, separated by commas.",
							   NULL, &queue_sink_libraries, "",
							   PGC_SUSET, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("queue.traceparent",
							   "The caller's trace, which messages get as a header.",
							   NULL, &queue_traceparent, "",
							   PGC_USERSET, 0, check_traceparent, NULL, NULL);
	DefineCustomIntVariable("queue.worker_interval",
							"How often the worker looks for work that nobody announced.",
							NULL, &queue_worker_interval, 1000, 10, 600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	MarkGUCPrefixReserved("queue");
}
