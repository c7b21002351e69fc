/*
 * guc.h
 *	  The settings. doc/settings.md has the same list with the same words.
 */
#ifndef QUEUE_GUC_H
#define QUEUE_GUC_H

/* restart: they size shared memory */
extern int	queue_max_keys;
extern int	queue_max_meters;
extern int	queue_max_leases;
/* Of the worker, who is to wait for nobody. */
#define QUEUE_LOCK_TIMEOUT "1s"

extern int	queue_inbox_retention;	/* min */
extern int	queue_map_memory;	/* kB */
extern int	queue_max_queues;
extern int	queue_max_relays;
extern int	queue_max_segments;
extern int	queue_max_databases;

/* reload */
extern int	queue_segment_size; /* kB */
extern int	queue_reclaim_delay;	/* ms */
extern int	queue_relay_drain_timeout;	/* ms */
extern int	queue_relay_log_retention;	/* min */
extern int	queue_recheck_interval; /* ms */
extern int	queue_notify_interval;	/* ms */
extern int	queue_worker_interval;	/* ms */
extern char *queue_sink_libraries;

/* superuser */
extern int	queue_max_batch;
extern int	queue_max_message_size; /* kB */

/* user */
extern int	queue_max_wait;		/* ms */
extern char *queue_traceparent;

extern bool queue_guc_is_traceparent(const char *text);

extern void queue_guc_define(bool preloading);

#endif							/* QUEUE_GUC_H */
