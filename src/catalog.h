/*
 * catalog.h
 *	  Definitions of queues: read, cached, changed.
 */
#ifndef QUEUE_CATALOG_H
#define QUEUE_CATALOG_H

#include "nodes/pg_list.h"
#include "storage/lockdefs.h"
#include "utils/acl.h"
#include "utils/rel.h"

#include "limit.h"
#include "options.h"
#include "state.h"

/* Bytes of a name; "<name>_dead" may be five longer. */
#define QUEUE_MAX_NAME 48

typedef struct QueueDef
{
	Oid			view;			/* key of the cache */
	bool		valid;
	int32		id;
	char		name[NAMEDATALEN];
	Oid			dead_letter;	/* view of the queue that takes dead messages, or InvalidOid */
	int32		dead_letter_of; /* id of the queue this one was made with, or 0 */
	bool		paused_dequeue;
	bool		paused_enqueue;
	QueueOptions options;		/* text fields: NULL */
	QueueLimits limits;
	QueueState *state;			/* NULL on a standby */
	uint32		version;		/* of the definition, as the state counts it */
} QueueDef;

typedef struct QueueCatalogSegment
{
	Oid			relid;
	int32		number;
} QueueCatalogSegment;

extern Oid	queue_catalog_namespace(void);
extern bool queue_catalog_exists(void);
extern Oid	queue_catalog_find(const char *name);
extern QueueDef *queue_catalog_get(Oid view);
extern QueueDef *queue_catalog_get_unlocked(Oid view);
extern QueueDef *queue_catalog_open(text *name, AclMode need);
extern QueueDef *queue_catalog_open_owned(text *name, LOCKMODE mode);
extern QueueDef *queue_catalog_get_by_id(int32 id);
extern List *queue_catalog_segments(int32 id);
extern int32 queue_catalog_queue_of_segment(Oid relid);
extern void queue_catalog_check_view(Relation view);
extern bool queue_catalog_is_view(Oid relid);
extern bool queue_catalog_is_whole(QueueDef *def);
extern List *queue_catalog_views(void);
extern void queue_catalog_init(void);
extern Oid	queue_catalog_relation(const char *name);
extern Oid	queue_catalog_message_sequence(void);

extern void queue_catalog_create_segment(int32 id, int32 number);
extern int32 queue_catalog_next_id(void);
extern void queue_catalog_insert(Oid view, int32 id, Jsonb *options, Oid dead_letter, int32 dead_letter_of);
extern Jsonb *queue_catalog_read_options(Oid view);
extern void queue_catalog_update(Oid view, Jsonb *options, Oid dead_letter);
extern void queue_catalog_set_pause(Oid view, bool dequeue, bool enqueue, bool paused, const char *reason);
extern void queue_catalog_delete(Oid view, int32 id);
extern Oid	queue_catalog_dead_letter_user(Oid view, Oid except);
extern void queue_catalog_as_owner(Oid *save_user, int *save_context);

#endif							/* QUEUE_CATALOG_H */
