/*
 * compat.h
 *	  Differences between PostgreSQL 15 and 19.
 *
 * The only file that tests PG_VERSION_NUM. Each entry says what changed and
 * when; it goes when the older version goes. Wrappers have the newest form.
 */
#ifndef QUEUE_COMPAT_H
#define QUEUE_COMPAT_H

#include "access/heapam.h"
#include "storage/condition_variable.h"
#include "utils/rel.h"

/* 18: pg_noreturn replaced pg_attribute_noreturn(). */
#if PG_VERSION_NUM >= 180000
#define QUEUE_NORETURN pg_noreturn
#else
#define QUEUE_NORETURN pg_attribute_noreturn()
#endif

/*
 * 19: pushJsonbValue() keeps the result in its state, whose type changed. Ours
 * begins zeroed.
 */
#include "utils/jsonb.h"
#if PG_VERSION_NUM >= 190000
typedef JsonbInState QueueJsonState;
static inline void
queue_compat_json_push(QueueJsonState *state, JsonbIteratorToken token, JsonbValue *value)
{
	pushJsonbValue(state, token, value);
}
#else
typedef struct QueueJsonState
{
	JsonbParseState *parse;
	JsonbValue *result;
} QueueJsonState;
static inline void
queue_compat_json_push(QueueJsonState *state, JsonbIteratorToken token, JsonbValue *value)
{
	state->result = pushJsonbValue(&state->parse, token, value);
}
#endif

/* 19: a plan has a set of result relations instead of a list. */
#include "nodes/plannodes.h"
static inline int
queue_compat_next_result_relation(PlannedStmt *statement, int previous)
{
#if PG_VERSION_NUM >= 190000
	return bms_next_member(statement->resultRelationRelids, previous);
#else
	int			next = -1;
	ListCell   *cell;

	foreach(cell, statement->resultRelations)
		if (lfirst_int(cell) > previous && (next < 0 || lfirst_int(cell) < next))
			next = lfirst_int(cell);
	return next < 0 ? -2 : next;
#endif
}

/* 19: CLUSTER became a kind of REPACK, with another node. */
#include "nodes/parsenodes.h"
#if PG_VERSION_NUM >= 190000
#define QUEUE_REPACK_TAG T_RepackStmt
static inline RangeVar *
queue_compat_repacked(Node *statement)
{
	VacuumRelation *target = ((RepackStmt *) statement)->relation;

	return target ? target->relation : NULL;
}
#else
#define QUEUE_REPACK_TAG T_ClusterStmt
static inline RangeVar *
queue_compat_repacked(Node *statement)
{
	return ((ClusterStmt *) statement)->relation;
}
#endif

/* 16: RelFileNode became RelFileLocator. */
#if PG_VERSION_NUM >= 160000
#define queue_relfilenumber(rel) ((rel)->rd_locator.relNumber)
#else
#define queue_relfilenumber(rel) ((rel)->rd_node.relNode)
#endif

/* 19: heap_delete() takes options instead of changingPart, in another place. */
static inline TM_Result
queue_compat_heap_delete(Relation rel, ItemPointer tid, CommandId cid,
						 TM_FailureData *tmfd)
{
#if PG_VERSION_NUM >= 190000
	return heap_delete(rel, tid, cid, 0, InvalidSnapshot, false, tmfd);
#else
	return heap_delete(rel, tid, cid, InvalidSnapshot, false, tmfd, false);
#endif
}

/* 16: one object_ownercheck() replaced the many. */
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/acl.h"
static inline bool
queue_compat_owns_relation(Oid relid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relid, GetUserId());
#else
	return pg_class_ownercheck(relid, GetUserId());
#endif
}

#include "catalog/pg_database.h"
static inline bool
queue_compat_owns_database(Oid database)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, GetUserId());
#else
	return pg_database_ownercheck(database, GetUserId());
#endif
}

/* 16: likewise one object_aclcheck(). */
#include "catalog/pg_namespace.h"
static inline bool
queue_compat_may_create_in(Oid namespace)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, namespace, GetUserId(), ACL_CREATE) == ACLCHECK_OK;
#else
	return pg_namespace_aclcheck(namespace, GetUserId(), ACL_CREATE) == ACLCHECK_OK;
#endif
}

#include "catalog/pg_foreign_server.h"
#include "utils/acl.h"
static inline AclResult
queue_compat_server_aclcheck(Oid server, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ForeignServerRelationId, server, role, ACL_USAGE);
#else
	return pg_foreign_server_aclcheck(server, role, ACL_USAGE);
#endif
}

/* 18: ExecutorRun() lost execute_once. */
#if PG_VERSION_NUM >= 180000
#define QUEUE_EXECUTOR_RUN_ARGS QueryDesc *queryDesc, ScanDirection direction, uint64 count
#define QUEUE_EXECUTOR_RUN_PASS queryDesc, direction, count
#else
#define QUEUE_EXECUTOR_RUN_ARGS QueryDesc *queryDesc, ScanDirection direction, uint64 count, bool execute_once
#define QUEUE_EXECUTOR_RUN_PASS queryDesc, direction, count, execute_once
#endif

/*
 * 17: ConditionVariableCancelSleep() tells of a signal that came meanwhile,
 * instead of passing it on.
 */
static inline bool
queue_compat_cancel_sleep(void)
{
#if PG_VERSION_NUM >= 170000
	return ConditionVariableCancelSleep();
#else
	ConditionVariableCancelSleep();
	return false;
#endif
}

/* 17: wait events of extensions have names. */
#if PG_VERSION_NUM >= 170000
#include "utils/wait_event.h"
#define queue_wait_event_new(name) WaitEventExtensionNew(name)
#else
#include "utils/wait_event.h"
#define queue_wait_event_new(name) PG_WAIT_EXTENSION
#endif

/* 19: custom hash tables in shared memory lost the initial size. */
#if PG_VERSION_NUM >= 190000
#define queue_shmem_hash(name, size, info, flags) ShmemInitHash(name, size, info, flags)
#else
#define queue_shmem_hash(name, size, info, flags) ShmemInitHash(name, size, size, info, flags)
#endif

#endif							/* QUEUE_COMPAT_H */
