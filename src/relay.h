/*
 * relay.h
 *	  Relays: what the catalog says of them.
 */
#ifndef QUEUE_RELAY_H
#define QUEUE_RELAY_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "envelope.h"
#include "pump.h"

/* Bytes of a name. */
#define QUEUE_RELAY_MAX_NAME 48

typedef struct QueueRelay
{
	int32		id;
	char	   *name;
	Oid			view;			/* of the queue; InvalidOid: it is gone */
	char	   *queue;
	char	   *server_name;
	Oid			server;			/* InvalidOid: it is gone */
	Oid			owner;
	Jsonb	   *options;
	bool		paused;
	char	   *pause_reason;	/* of a destination, for one; NULL: none */
	bool		here;			/* made or adopted in this database */
	bool		ordered;		/* the queue is */
	bool		in_server;

	/* from the options, by queue_relay_read_options(); times in us */
	QueuePumpConfig	pump;			/* its times in ms */
	int64		lease;
	bool		wait_for_standby;
	bool		log;
} QueueRelay;

extern QueueRelay *queue_relay_get(const char *name);
extern QueueRelay *queue_relay_get_by_id(int32 id);
extern QueueRelay *queue_relay_open(const char *name);
extern void queue_relay_read_options(QueueRelay *relay);
extern List *queue_relay_list(void);
extern List *queue_relay_names_of_queue(Oid view);
extern char *queue_relay_name_of_server(const char *server);
extern void queue_relay_check_options(Jsonb *options, const char *queue);
extern void queue_relay_check_neighbours(const char *name, Oid view, Jsonb *options);
extern void queue_relay_check_may_run(const QueueRelay *relay);
extern int64 queue_relay_version(const QueueRelay *relay);
extern void queue_relay_insert(const char *name, Oid view, const char *server, Jsonb *options);
extern void queue_relay_update(int32 id, Jsonb *options);
extern void queue_relay_set_pause(int32 id, bool paused, const char *reason);
extern void queue_relay_delete(int32 id);
extern void queue_relay_adopt(int32 id);
extern void queue_relay_lock(int32 id);
extern int64 queue_relay_next_epoch(void);
extern bool queue_relay_is_of_here(int64 system_identifier, Oid database);
extern void queue_relay_as_user(Oid user, Oid *save_user, int *save_context);

#endif							/* QUEUE_RELAY_H */
