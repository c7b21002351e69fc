/*
 * guard.c
 *	  Hooks: DDL and DML on queues' relations, errors of statements.
 *
 * Segments are changed by C code only. A restore may INSERT and COPY into
 * them; any other command is refused with a hint. A queue's view is created,
 * renamed, altered and dropped through functions; DROP EXTENSION ... CASCADE
 * drops everything. PostgreSQL fires no INSTEAD OF trigger under
 * session_replication_role = replica and would drop the rows silently, so that
 * is refused too.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_namespace.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parsetree.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "acl.h"
#include "catalog.h"
#include "compat.h"
#include "error.h"
#include "guard.h"
#include "launcher.h"
#include "delta.h"
#include "pending.h"
#include "relay.h"
#include "runner.h"
#include "shmem.h"

static ExecutorStart_hook_type previous_start;
static ExecutorRun_hook_type previous_run;
static ExecutorFinish_hook_type previous_finish;
static ProcessUtility_hook_type previous_utility;
static object_access_hook_type previous_access;

/* Above 0 inside a command that may drop everything. */
static int	dropping_extension = 0;

/* Above 0 inside one that drops ours. */
static int	dropping_queue = 0;

/* Above 0 inside a command that does nothing but give relations to others. */
static int	changing_owner = 0;

/* ---- relations ---- */

/*
 * Whether a relation is a queue's view or segment. It is so only once it is in
 * the catalog: a restore makes relations first and fills the catalog later.
 */
static bool
is_ours(Oid relid, char *relkind)
{
	Oid			namespace = get_rel_namespace(relid);

	/* pg_upgrade makes the catalog's tables one by one, in any order. */
	if (IsBinaryUpgrade || !OidIsValid(namespace) || namespace != queue_catalog_namespace() ||
		!queue_catalog_exists())
		return false;
	*relkind = get_rel_relkind(relid);
	if (*relkind == RELKIND_VIEW)
		return queue_catalog_is_view(relid);
	return *relkind == RELKIND_RELATION && queue_catalog_queue_of_segment(relid) != 0;
}

QUEUE_NORETURN static void
refuse_segment(Oid relid, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot %s \"%s\": it is a segment of a queue", what, get_rel_name(relid)),
			 errhint("Segments belong to the extension; use its functions on the queue.")));
}

QUEUE_NORETURN static void
refuse_view(Oid relid, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot %s \"%s\": it is the view of a queue", what, get_rel_name(relid)),
			 errhint("Use queue.alter() or queue.drop(). Only privileges and comments are changed by hand.")));
}

/* ---- executor ---- */

static void
check_target(CmdType operation, Oid relid)
{
	char		relkind;

	if (!is_ours(relid, &relkind))
		return;
	if (relkind == RELKIND_VIEW)
	{
		if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot write to queue \"%s\" while session_replication_role is replica",
							get_rel_name(relid)),
					 errhint("Triggers do not fire in that role, and the messages would be lost silently.")));
	}
	else if (operation != CMD_INSERT)
		refuse_segment(relid, operation == CMD_DELETE ? "delete from" : "update");
	else if (queue_shmem_ready())
	{
		QueueDef   *def = queue_catalog_get_by_id(queue_catalog_queue_of_segment(relid));

		if (def && def->state)
			queue_delta_restored(def->state);
	}
}

/* The trigger refuses each row; without one the command would seem to work. */
static void
refuse_update(PlannedStmt *statement)
{
	int			index = -1;
	char		relkind;

	while ((index = queue_compat_next_result_relation(statement, index)) > 0)
		if (is_ours(rt_fetch(index, statement->rtable)->relid, &relkind) && relkind == RELKIND_VIEW)
			queue_error_no_update();
}

static void
executor_start(QueryDesc *queryDesc, int eflags)
{
	PlannedStmt *statement = queryDesc->plannedstmt;
	int			index = -1;

	/* What a WITH changes is not told apart; none of it is a restore's. */
	if (queryDesc->operation != CMD_SELECT || statement->hasModifyingCTE)
		while ((index = queue_compat_next_result_relation(statement, index)) > 0)
			check_target(statement->hasModifyingCTE ? CMD_UPDATE : queryDesc->operation,
						 rt_fetch(index, statement->rtable)->relid);
	if (previous_start)
		previous_start(queryDesc, eflags);
	else
		standard_ExecutorStart(queryDesc, eflags);
	/* After the check of privileges. */
	if (queryDesc->operation == CMD_UPDATE && !statement->hasModifyingCTE)
		refuse_update(statement);
}

/* An abort wants to know with what its statement failed. */
static void
executor_run(QUEUE_EXECUTOR_RUN_ARGS)
{
	queue_pending_statement_runs(true);
	PG_TRY();
	{
		if (previous_run)
			previous_run(QUEUE_EXECUTOR_RUN_PASS);
		else
			standard_ExecutorRun(QUEUE_EXECUTOR_RUN_PASS);
	}
	PG_CATCH();
	{
		queue_pending_statement_runs(false);
		queue_pending_statement_failed(geterrcode());
		PG_RE_THROW();
	}
	PG_END_TRY();
	queue_pending_statement_runs(false);
}

/* AFTER triggers and checks of foreign keys run here: still the same statement. */
static void
executor_finish(QueryDesc *queryDesc)
{
	queue_pending_statement_finishes(true);
	PG_TRY();
	{
		if (previous_finish)
			previous_finish(queryDesc);
		else
			standard_ExecutorFinish(queryDesc);
	}
	PG_CATCH();
	{
		queue_pending_statement_finishes(false);
		queue_pending_statement_failed(geterrcode());
		PG_RE_THROW();
	}
	PG_END_TRY();
	queue_pending_statement_finishes(false);
}

/* ---- object access ---- */

QUEUE_NORETURN static void
refuse_server(const char *server, const char *relay, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("cannot %s server \"%s\": relay \"%s\" delivers to it", what, server, relay),
			 errhint("Drop the relay before: SELECT queue.drop_relay(%s).", quote_literal_cstr(relay))));
}

static void
check_dropped_server(Oid server)
{
	char	   *name;
	char	   *relay;

	if (IsBinaryUpgrade || !queue_catalog_exists())
		return;
	name = GetForeignServer(server)->servername;
	relay = queue_relay_name_of_server(name);
	if (relay)
		refuse_server(name, relay, "drop");
}

static void
object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	char		relkind;

	if (previous_access)
		previous_access(access, classId, objectId, subId, arg);
	if (classId == DatabaseRelationId && access == OAT_DROP && queue_shmem_ready())
	{
		queue_delta_database_dropped(objectId);
		queue_runner_forget_database(objectId);
	}
	if (classId == ForeignServerRelationId && access == OAT_DROP && dropping_queue == 0)
		check_dropped_server(objectId);
	if (classId != RelationRelationId || (access != OAT_DROP && access != OAT_POST_ALTER) ||
		queue_acl_internal_ddl > 0 || dropping_extension > 0 || changing_owner > 0)
		return;
	if (access == OAT_POST_ALTER && subId == 0 && ((ObjectAccessPostAlter *) arg)->is_internal)
		return;
	if (access == OAT_DROP && (((ObjectAccessDrop *) arg)->dropflags & PERFORM_DELETION_INTERNAL))
		return;
	if (!is_ours(objectId, &relkind))
		return;
	if (relkind == RELKIND_VIEW)
		refuse_view(objectId, access == OAT_DROP ? "drop" : "alter");
	if (relkind == RELKIND_RELATION)
		refuse_segment(objectId, access == OAT_DROP ? "drop" : "alter");
}

/* ---- utility ---- */

static void
check_range_var(RangeVar *relation, const char *what)
{
	Oid			relid = relation ? RangeVarGetRelid(relation, NoLock, true) : InvalidOid;
	char		relkind;

	if (OidIsValid(relid) && is_ours(relid, &relkind) && relkind == RELKIND_RELATION)
		refuse_segment(relid, what);
}

/* A parallel restore truncates what it has just made: that is let through. */
static void
check_truncate(RangeVar *relation)
{
	Oid			relid = RangeVarGetRelid(relation, NoLock, true);
	char		relkind;
	Relation	rel;
	bool		empty;

	if (!OidIsValid(relid) || !is_ours(relid, &relkind) || relkind != RELKIND_RELATION)
		return;
	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		refuse_segment(relid, "truncate");
	rel = relation_open(relid, NoLock);
	empty = RelationGetNumberOfBlocks(rel) == 0;
	relation_close(rel, AccessShareLock);
	if (!empty)
		refuse_segment(relid, "truncate");
}

/* COPY does not pass the executor's start; a restore may fill segments by it. */
static void
check_copy_target(RangeVar *relation)
{
	Oid			relid = relation ? RangeVarGetRelid(relation, NoLock, true) : InvalidOid;

	if (OidIsValid(relid))
		check_target(CMD_INSERT, relid);
}

static bool
rewrites(VacuumStmt *statement)
{
	ListCell   *cell;

	foreach(cell, statement->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "full") == 0)
			return defGetBoolean(option);
	}
	return false;
}

/* Role tools work on queues as on everything else. */
static bool
changes_owner(Node *command)
{
	ListCell   *cell;

	if (IsA(command, ReassignOwnedStmt))
		return true;
	if (!IsA(command, AlterTableStmt))
		return false;
	foreach(cell, ((AlterTableStmt *) command)->cmds)
		if (((AlterTableCmd *) lfirst(cell))->subtype != AT_ChangeOwner)
			return false;
	return true;
}

static void
check_altered(RangeVar *relation)
{
	Oid			relid = relation ? RangeVarGetRelid(relation, NoLock, true) : InvalidOid;
	char		relkind;

	if (!OidIsValid(relid) || !is_ours(relid, &relkind))
		return;
	if (relkind == RELKIND_VIEW)
		refuse_view(relid, "alter");
	refuse_segment(relid, "alter");
}

static bool
is_own_trigger(const char *name)
{
	return strcmp(name, "queue_insert") == 0 || strcmp(name, "queue_delete") == 0 ||
		strcmp(name, "queue_update") == 0;
}

/* A trigger or rule, named by its relation's name and its own. */
static void
check_dropped_of(List *name)
{
	List	   *relation = list_copy_head(name, list_length(name) - 1);

	if (relation != NIL)
		check_altered(makeRangeVarFromNameList(relation));
}

/* A relay knows its server by the name. */
static void
check_renamed_server(const char *name)
{
	char	   *relay = IsBinaryUpgrade || !queue_catalog_exists() ? NULL : queue_relay_name_of_server(name);

	if (relay)
		refuse_server(name, relay, "rename");
}

/* Commands that reach a segment by another way than the executor. */
static void
check_command(Node *command)
{
	ListCell   *cell;

	switch (nodeTag(command))
	{
		case T_TruncateStmt:
			foreach(cell, ((TruncateStmt *) command)->relations)
				check_truncate(lfirst(cell));
			break;
		case T_VacuumStmt:
			if (rewrites((VacuumStmt *) command))
				foreach(cell, ((VacuumStmt *) command)->rels)
					check_range_var(((VacuumRelation *) lfirst(cell))->relation, "rewrite");
			break;
		case QUEUE_REPACK_TAG:
			check_range_var(queue_compat_repacked(command), "rewrite");
			break;
		case T_AlterTableStmt:
			if (!changes_owner(command))
				check_altered(((AlterTableStmt *) command)->relation);
			break;
		case T_IndexStmt:
			check_range_var(((IndexStmt *) command)->relation, "index");
			break;
		case T_CopyStmt:
			if (((CopyStmt *) command)->is_from)
				check_copy_target(((CopyStmt *) command)->relation);
			break;
		case T_CreateTrigStmt:
			/* A restore makes the view's own again. */
			if (!is_own_trigger(((CreateTrigStmt *) command)->trigname))
				check_altered(((CreateTrigStmt *) command)->relation);
			break;
		case T_RuleStmt:
			check_altered(((RuleStmt *) command)->relation);
			break;
		case T_CreatePolicyStmt:
			check_altered(((CreatePolicyStmt *) command)->table);
			break;
		case T_CreateStmt:
			foreach(cell, ((CreateStmt *) command)->inhRelations)
				check_range_var(lfirst(cell), "inherit from");
			break;
		case T_RenameStmt:
			if (((RenameStmt *) command)->renameType == OBJECT_TRIGGER)
				check_altered(((RenameStmt *) command)->relation);
			if (((RenameStmt *) command)->renameType == OBJECT_FOREIGN_SERVER)
				check_renamed_server(strVal(((RenameStmt *) command)->object));
			break;
		case T_DropStmt:
			if (((DropStmt *) command)->removeType == OBJECT_TRIGGER ||
				((DropStmt *) command)->removeType == OBJECT_RULE)
				foreach(cell, ((DropStmt *) command)->objects)
					check_dropped_of(lfirst(cell));
			break;
		default:
			break;
	}
}

static bool
drops_extension(Node *command)
{
	return IsA(command, DropStmt) && ((DropStmt *) command)->removeType == OBJECT_EXTENSION;
}

static bool
drops_queue(Node *command)
{
	ListCell   *cell;

	if (drops_extension(command))
		foreach(cell, ((DropStmt *) command)->objects)
			if (strcmp(strVal(lfirst(cell)), "queue") == 0)
				return true;
	return false;
}

/* The extension is gone from this database: nothing of it stays in memory. */
static void
forget_if_dropped(void)
{
	uint32		position = 0;
	QueueState *state;

	if (queue_catalog_exists())
		return;
	while ((state = queue_state_next(MyDatabaseId, &position)) != NULL)
		queue_delta_dropped(state);
	queue_runner_forget_at_commit();
}

/* The option of a command on databases, as text; NULL if it has none. */
static char *
option_of(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, name) == 0 && option->arg)
			return defGetString(option);
	}
	return NULL;
}

/* A database that nobody may be connected to while the command runs. */
static const char *
database_to_leave(Node *command)
{
	switch (nodeTag(command))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) command)->dbname;
		case T_AlterDatabaseStmt:
			return option_of(((AlterDatabaseStmt *) command)->options, "tablespace")
				? ((AlterDatabaseStmt *) command)->dbname : NULL;
		case T_RenameStmt:
			return ((RenameStmt *) command)->renameType == OBJECT_DATABASE
				? ((RenameStmt *) command)->subname : NULL;
		case T_CreatedbStmt:
			{
				const char *template = option_of(((CreatedbStmt *) command)->options, "template");

				return template ? template : "template1";
			}
		default:
			return NULL;
	}
}

static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	may = HeapTupleIsValid(tuple) && ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return may;
}

static bool
is_template(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		is = HeapTupleIsValid(tuple) && ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return is;
}

/*
 * Whether the command will pass PostgreSQL's own check: whoever may not run it
 * must not send the worker away with it.
 */
static bool
may_run_on_database(Node *command, Oid database)
{
	if ((IsA(command, CreatedbStmt) || IsA(command, RenameStmt)) && !may_create_databases())
		return false;
	if (IsA(command, CreatedbStmt) && is_template(database))
		return true;
	return queue_compat_owns_database(database);
}

static bool
is_top_level(ProcessUtilityContext context)
{
	return context == PROCESS_UTILITY_TOPLEVEL;
}

static void
run_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
			ProcessUtilityContext context, ParamListInfo params,
			QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	if (previous_utility)
		previous_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
}

/* The relay workers of a database end too; waited for as shortly as the worker. */
static void
leave_relays(Oid database)
{
	for (int i = 0; i < 200 && queue_runner_leave(database, i % 20 == 0); i++)
	{
		WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
return_database(int code, Datum database)
{
	queue_launcher_return(DatumGetObjectId(database));
}

/* Also a session that is terminated, whose FATAL passes no PG_FINALLY, gives the database back. */
static void
run_without_worker(Oid database, PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				   ProcessUtilityContext context, ParamListInfo params,
				   QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	queue_launcher_claim(database);
	PG_ENSURE_ERROR_CLEANUP(return_database, ObjectIdGetDatum(database));
	{
		queue_launcher_leave(database);
		leave_relays(database);
		run_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	}
	PG_END_ENSURE_ERROR_CLEANUP(return_database, ObjectIdGetDatum(database));
	queue_launcher_return(database);
}

/* What the launcher is to look at when the command has committed. */
static void
tell_launcher(Node *command)
{
	if (IsA(command, CreatedbStmt) || IsA(command, DropdbStmt) || IsA(command, AlterDatabaseStmt) ||
		(IsA(command, RenameStmt) && ((RenameStmt *) command)->renameType == OBJECT_DATABASE))
		queue_launcher_look_at_commit(false);
	if (IsA(command, CreateExtensionStmt) &&
		strcmp(((CreateExtensionStmt *) command)->extname, "queue") == 0)
		queue_launcher_look_at_commit(true);
}

/* The database that the worker has to leave for this command, or none. */
static Oid
find_database_to_leave(Node *command, ProcessUtilityContext context)
{
	const char *name = queue_shmem_ready() && is_top_level(context) ? database_to_leave(command) : NULL;
	Oid			database = name && IsTransactionState() ? get_database_oid(name, true) : InvalidOid;

	return OidIsValid(database) && may_run_on_database(command, database) ? database : InvalidOid;
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *command = pstmt->utilityStmt;
	Oid			database = find_database_to_leave(command, context);
	int			save_dropping = dropping_extension;
	int			save_queue = dropping_queue;
	int			save_changing = changing_owner;

	if (IsTransactionState() && queue_acl_internal_ddl == 0)
		check_command(command);
	if (drops_extension(command))
		dropping_extension++;
	if (drops_queue(command))
		dropping_queue++;
	if (changes_owner(command))
		changing_owner++;
	PG_TRY();
	{
		if (OidIsValid(database))
			run_without_worker(database, pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
		else
			run_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	}
	PG_FINALLY();
	{
		dropping_extension = save_dropping;
		dropping_queue = save_queue;
		changing_owner = save_changing;
	}
	PG_END_TRY();
	if (drops_extension(command) && queue_shmem_ready())
		forget_if_dropped();
	if (queue_shmem_ready())
		tell_launcher(command);
}

void
queue_guard_init(void)
{
	previous_start = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = executor_run;
	previous_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = executor_finish;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	previous_access = object_access_hook;
	object_access_hook = object_access;
}
