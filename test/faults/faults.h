/*
 * faults.h
 *	  Makes each call into the server a point at which it can fail or die.
 *
 * Included by the compiler before each file of src/ (-include), so that the
 * engine's code knows nothing of it. A call that is named below becomes a
 * point: a static record of file, line and name, which faults.c looks at
 * before the call, and after it where the call has an effect. What happens at
 * a point, and in which process, is in a file that the driver and all
 * processes of the server have mapped (see faults.c).
 *
 * Macros and not the linker's --wrap, which would give no lines, no points
 * behind a call, and nothing at CHECK_FOR_INTERRUPTS(). All headers that the
 * engine uses come first, so that a macro meets calls only and no declaration.
 * "run" compares the library's undefined symbols with the names below and with
 * the list "calm": a call that nobody thought of is a failure.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/heapam_xlog.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/toast_internals.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/heap.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/storage.h"
#include "commands/async.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "common/cryptohash.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/pg_list.h"
#include "nodes/plannodes.h"
#include "parser/parsetree.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/bufmgr.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/predicate.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"
#include "utils/varlena.h"
#include "utils/wait_event.h"

/* What can happen at a point; at every one of them the process can die. */
#define FAULTS_FAIL		0x01	/* the call can raise an error */
#define FAULTS_STOP		0x02	/* the call serves interrupts */
#define FAULTS_LOCK		0x04	/* the call can wait for a heavyweight lock */
#define FAULTS_AFTER	0x08	/* the call is done */

typedef struct FaultsSite
{
	const char *file;
	int			line;
	const char *name;
	int			kind;
	int			index;			/* filled in at load */
} FaultsSite;

extern void faults_point(FaultsSite *site);
extern void faults_register_xact(XactCallback callback, void *arg);
extern void faults_register_subxact(SubXactCallback callback, void *arg);
extern int	faults_spinlocks;

/* The linker collects the pointers into one array. */
#define FAULTS_POINT(what, kind_) \
	do { \
		static FaultsSite faults_site_ = {__FILE__, __LINE__, what, kind_, 0}; \
		static FaultsSite *const faults_entry_ __attribute__((section("faults_sites"), used)) = &faults_site_; \
		faults_point(&faults_site_); \
	} while (0)

/* Before, and after where the call has an effect. */
#define FAULTS_CALL(kind_, name, ...) \
	({ FAULTS_POINT(#name, kind_); name(__VA_ARGS__); })
#define FAULTS_DO(kind_, name, ...) \
	({ FAULTS_POINT(#name, kind_); name(__VA_ARGS__); FAULTS_POINT(#name, (kind_) | FAULTS_AFTER); })
#define FAULTS_GET(kind_, name, ...) \
	({ FAULTS_POINT(#name, kind_); \
	   __auto_type faults_result_ = name(__VA_ARGS__); \
	   FAULTS_POINT(#name, (kind_) | FAULTS_AFTER); \
	   faults_result_; })

#define FAULTS_BOTH (FAULTS_FAIL | FAULTS_STOP)
#define FAULTS_WAIT (FAULTS_FAIL | FAULTS_STOP | FAULTS_LOCK)

/* ---- the server's macros ---- */

static inline void
faults_check_for_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
}
#undef CHECK_FOR_INTERRUPTS
#define CHECK_FOR_INTERRUPTS() \
	do { FAULTS_POINT("CHECK_FOR_INTERRUPTS", FAULTS_STOP); faults_check_for_interrupts(); } while (0)

static inline void
faults_spin_acquire(volatile slock_t *lock)
{
	SpinLockAcquire(lock);
	faults_spinlocks++;
}
static inline void
faults_spin_release(volatile slock_t *lock)
{
	faults_spinlocks--;
	SpinLockRelease(lock);
}
#undef SpinLockAcquire
#undef SpinLockRelease
#define SpinLockAcquire(lock) faults_spin_acquire(lock)
#define SpinLockRelease(lock) faults_spin_release(lock)

/* ---- memory ---- */

#define palloc(...) FAULTS_CALL(FAULTS_FAIL, palloc, __VA_ARGS__)
#define palloc0(...) FAULTS_CALL(FAULTS_FAIL, palloc0, __VA_ARGS__)
#define repalloc(...) FAULTS_CALL(FAULTS_FAIL, repalloc, __VA_ARGS__)
#define repalloc_huge(...) FAULTS_CALL(FAULTS_FAIL, repalloc_huge, __VA_ARGS__)
#define MemoryContextAlloc(...) FAULTS_CALL(FAULTS_FAIL, MemoryContextAlloc, __VA_ARGS__)
#define MemoryContextAllocZero(...) FAULTS_CALL(FAULTS_FAIL, MemoryContextAllocZero, __VA_ARGS__)
#define MemoryContextAllocHuge(...) FAULTS_CALL(FAULTS_FAIL, MemoryContextAllocHuge, __VA_ARGS__)
#define AllocSetContextCreateInternal(...) FAULTS_CALL(FAULTS_FAIL, AllocSetContextCreateInternal, __VA_ARGS__)
#define psprintf(...) FAULTS_CALL(FAULTS_FAIL, psprintf, __VA_ARGS__)
#define pstrdup(...) FAULTS_CALL(FAULTS_FAIL, pstrdup, __VA_ARGS__)
#define pnstrdup(...) FAULTS_CALL(FAULTS_FAIL, pnstrdup, __VA_ARGS__)
#define initStringInfo(...) FAULTS_CALL(FAULTS_FAIL, initStringInfo, __VA_ARGS__)
#define appendStringInfo(...) FAULTS_CALL(FAULTS_FAIL, appendStringInfo, __VA_ARGS__)
#define cstring_to_text(...) FAULTS_CALL(FAULTS_FAIL, cstring_to_text, __VA_ARGS__)
#define cstring_to_text_with_len(...) FAULTS_CALL(FAULTS_FAIL, cstring_to_text_with_len, __VA_ARGS__)
#define text_to_cstring(...) FAULTS_CALL(FAULTS_FAIL, text_to_cstring, __VA_ARGS__)
#define quote_identifier(...) FAULTS_CALL(FAULTS_FAIL, quote_identifier, __VA_ARGS__)
#define lappend(...) FAULTS_CALL(FAULTS_FAIL, lappend, __VA_ARGS__)
#define lappend_oid(...) FAULTS_CALL(FAULTS_FAIL, lappend_oid, __VA_ARGS__)
#define list_copy_head(...) FAULTS_CALL(FAULTS_FAIL, list_copy_head, __VA_ARGS__)
#define makeRangeVarFromNameList(...) FAULTS_CALL(FAULTS_FAIL, makeRangeVarFromNameList, __VA_ARGS__)
#define construct_array(...) FAULTS_CALL(FAULTS_FAIL, construct_array, __VA_ARGS__)
#define deconstruct_array(...) FAULTS_CALL(FAULTS_FAIL, deconstruct_array, __VA_ARGS__)
#define int64_to_numeric(...) FAULTS_CALL(FAULTS_FAIL, int64_to_numeric, __VA_ARGS__)
#define JsonEncodeDateTime(...) FAULTS_CALL(FAULTS_FAIL, JsonEncodeDateTime, __VA_ARGS__)
#define JsonbIteratorInit(...) FAULTS_CALL(FAULTS_FAIL, JsonbIteratorInit, __VA_ARGS__)
#define JsonbIteratorNext(...) FAULTS_CALL(FAULTS_FAIL, JsonbIteratorNext, __VA_ARGS__)
#define JsonbValueToJsonb(...) FAULTS_CALL(FAULTS_FAIL, JsonbValueToJsonb, __VA_ARGS__)
#define pushJsonbValue(...) FAULTS_CALL(FAULTS_FAIL, pushJsonbValue, __VA_ARGS__)
#define getKeyJsonValueFromContainer(...) FAULTS_CALL(FAULTS_FAIL, getKeyJsonValueFromContainer, __VA_ARGS__)
#define DirectFunctionCall1Coll(...) FAULTS_CALL(FAULTS_FAIL, DirectFunctionCall1Coll, __VA_ARGS__)
#define DirectFunctionCall2Coll(...) FAULTS_CALL(FAULTS_FAIL, DirectFunctionCall2Coll, __VA_ARGS__)
#define DirectFunctionCall3Coll(...) FAULTS_CALL(FAULTS_FAIL, DirectFunctionCall3Coll, __VA_ARGS__)
#define heap_copytuple(...) FAULTS_CALL(FAULTS_FAIL, heap_copytuple, __VA_ARGS__)
#define heap_form_tuple(...) FAULTS_CALL(FAULTS_FAIL, heap_form_tuple, __VA_ARGS__)
#define heap_modify_tuple(...) FAULTS_CALL(FAULTS_FAIL, heap_modify_tuple, __VA_ARGS__)
#define heap_modify_tuple_by_cols(...) FAULTS_CALL(FAULTS_FAIL, heap_modify_tuple_by_cols, __VA_ARGS__)
#define HeapTupleHeaderGetDatum(...) FAULTS_CALL(FAULTS_FAIL, HeapTupleHeaderGetDatum, __VA_ARGS__)
#define BlessTupleDesc(...) FAULTS_CALL(FAULTS_FAIL, BlessTupleDesc, __VA_ARGS__)
#define CreateTupleDescCopy(...) FAULTS_CALL(FAULTS_FAIL, CreateTupleDescCopy, __VA_ARGS__)
#define MakeSingleTupleTableSlot(...) FAULTS_CALL(FAULTS_FAIL, MakeSingleTupleTableSlot, __VA_ARGS__)
#define get_call_result_type(...) FAULTS_CALL(FAULTS_FAIL, get_call_result_type, __VA_ARGS__)
#define InitMaterializedSRF(...) FAULTS_CALL(FAULTS_FAIL, InitMaterializedSRF, __VA_ARGS__)
#define init_MultiFuncCall(...) FAULTS_CALL(FAULTS_FAIL, init_MultiFuncCall, __VA_ARGS__)
#define tuplestore_putvalues(...) FAULTS_CALL(FAULTS_FAIL, tuplestore_putvalues, __VA_ARGS__)
#define pg_strong_random(...) FAULTS_CALL(FAULTS_FAIL, pg_strong_random, __VA_ARGS__)
#define SPI_palloc(...) FAULTS_CALL(FAULTS_FAIL, SPI_palloc, __VA_ARGS__)
#define SPI_getvalue(...) FAULTS_CALL(FAULTS_FAIL, SPI_getvalue, __VA_ARGS__)
#define SetConfigOption(...) FAULTS_CALL(FAULTS_FAIL, SetConfigOption, __VA_ARGS__)
#define ProcessConfigFile(...) FAULTS_CALL(FAULTS_FAIL, ProcessConfigFile, __VA_ARGS__)
#define CopyErrorData(...) FAULTS_CALL(FAULTS_FAIL, CopyErrorData, __VA_ARGS__)
#define SplitIdentifierString(...) FAULTS_CALL(FAULTS_FAIL, SplitIdentifierString, __VA_ARGS__)
#define appendBinaryStringInfo(...) FAULTS_CALL(FAULTS_FAIL, appendBinaryStringInfo, __VA_ARGS__)
#define appendStringInfoChar(...) FAULTS_CALL(FAULTS_FAIL, appendStringInfoChar, __VA_ARGS__)
#define appendStringInfoString(...) FAULTS_CALL(FAULTS_FAIL, appendStringInfoString, __VA_ARGS__)
#define enlargeStringInfo(...) FAULTS_CALL(FAULTS_FAIL, enlargeStringInfo, __VA_ARGS__)
#define escape_json(...) FAULTS_CALL(FAULTS_FAIL, escape_json, __VA_ARGS__)
#define JsonbToCString(...) FAULTS_CALL(FAULTS_FAIL, JsonbToCString, __VA_ARGS__)
#define JsonbExtractScalar(...) FAULTS_CALL(FAULTS_FAIL, JsonbExtractScalar, __VA_ARGS__)
#define getIthJsonbValueFromContainer(...) FAULTS_CALL(FAULTS_FAIL, getIthJsonbValueFromContainer, __VA_ARGS__)
#define pg_any_to_server(...) FAULTS_CALL(FAULTS_FAIL, pg_any_to_server, __VA_ARGS__)
#define pg_server_to_any(...) FAULTS_CALL(FAULTS_FAIL, pg_server_to_any, __VA_ARGS__)
#define quote_literal_cstr(...) FAULTS_CALL(FAULTS_FAIL, quote_literal_cstr, __VA_ARGS__)
#define untransformRelOptions(...) FAULTS_CALL(FAULTS_FAIL, untransformRelOptions, __VA_ARGS__)
/* Only to enter something needs memory. */
#define hash_search(table, key, action, found) \
	FAULTS_CALL((action) == HASH_ENTER ? FAULTS_FAIL : 0, hash_search, table, key, action, found)

/* ---- snapshots, the fate of transactions ---- */

#define GetLatestSnapshot(...) FAULTS_CALL(FAULTS_FAIL, GetLatestSnapshot, __VA_ARGS__)
#define GetCurrentTransactionId(...) FAULTS_CALL(FAULTS_FAIL, GetCurrentTransactionId, __VA_ARGS__)
#define GetTopFullTransactionId(...) FAULTS_CALL(FAULTS_FAIL, GetTopFullTransactionId, __VA_ARGS__)
#define GetTransactionSnapshot(...) FAULTS_CALL(FAULTS_FAIL, GetTransactionSnapshot, __VA_ARGS__)
#define PushActiveSnapshot(...) FAULTS_CALL(FAULTS_FAIL, PushActiveSnapshot, __VA_ARGS__)
#define RegisterSnapshot(...) FAULTS_CALL(FAULTS_FAIL, RegisterSnapshot, __VA_ARGS__)
/* They read the commit log. */
#define HeapTupleSatisfiesVisibility(...) FAULTS_CALL(FAULTS_FAIL, HeapTupleSatisfiesVisibility, __VA_ARGS__)
#define HeapTupleSatisfiesVacuum(...) FAULTS_CALL(FAULTS_FAIL, HeapTupleSatisfiesVacuum, __VA_ARGS__)
#define HeapCheckForSerializableConflictOut(...) FAULTS_DO(FAULTS_FAIL, HeapCheckForSerializableConflictOut, __VA_ARGS__)
#define PredicateLockRelation(...) FAULTS_DO(FAULTS_FAIL, PredicateLockRelation, __VA_ARGS__)
#define TransactionIdGetCommitLSN(...) FAULTS_CALL(FAULTS_FAIL, TransactionIdGetCommitLSN, __VA_ARGS__)
#define TransactionIdDidCommit(...) FAULTS_CALL(FAULTS_FAIL, TransactionIdDidCommit, __VA_ARGS__)
#define TransactionIdIsInProgress(...) FAULTS_CALL(FAULTS_FAIL, TransactionIdIsInProgress, __VA_ARGS__)

/* ---- pages ---- */

#define ReadBuffer(...) FAULTS_CALL(FAULTS_BOTH, ReadBuffer, __VA_ARGS__)
#define LockBuffer(...) FAULTS_CALL(0, LockBuffer, __VA_ARGS__)
#define RelationGetNumberOfBlocksInFork(...) FAULTS_CALL(FAULTS_FAIL, RelationGetNumberOfBlocksInFork, __VA_ARGS__)
#define heap_insert(...) FAULTS_DO(FAULTS_BOTH, heap_insert, __VA_ARGS__)
#define heap_multi_insert(...) FAULTS_DO(FAULTS_BOTH, heap_multi_insert, __VA_ARGS__)
#define heap_delete(...) FAULTS_GET(FAULTS_BOTH, heap_delete, __VA_ARGS__)
#define RelationTruncate(...) FAULTS_DO(FAULTS_BOTH, RelationTruncate, __VA_ARGS__)
#define heap_truncate_one_rel(...) FAULTS_DO(FAULTS_WAIT, heap_truncate_one_rel, __VA_ARGS__)
#define GetAccessStrategy(...) FAULTS_CALL(FAULTS_FAIL, GetAccessStrategy, __VA_ARGS__)
#define table_relation_vacuum(...) FAULTS_DO(FAULTS_WAIT, table_relation_vacuum, __VA_ARGS__)
#define XLogFlush(...) FAULTS_DO(FAULTS_FAIL, XLogFlush, __VA_ARGS__)
#define heap_getnext(...) FAULTS_CALL(FAULTS_BOTH, heap_getnext, __VA_ARGS__)
#define table_beginscan_catalog(...) FAULTS_CALL(FAULTS_BOTH, table_beginscan_catalog, __VA_ARGS__)
#define pg_detoast_datum(...) FAULTS_CALL(FAULTS_WAIT, pg_detoast_datum, __VA_ARGS__)
#define pg_detoast_datum_copy(...) FAULTS_CALL(FAULTS_WAIT, pg_detoast_datum_copy, __VA_ARGS__)
#define pg_detoast_datum_packed(...) FAULTS_CALL(FAULTS_WAIT, pg_detoast_datum_packed, __VA_ARGS__)
#define toast_raw_datum_size(...) FAULTS_CALL(FAULTS_FAIL, toast_raw_datum_size, __VA_ARGS__)

/* ---- locks and waits ---- */

#define XactLockTableWait(...) FAULTS_DO(FAULTS_WAIT, XactLockTableWait, __VA_ARGS__)
#define index_open(...) FAULTS_GET(FAULTS_WAIT, index_open, __VA_ARGS__)
#define relation_open(...) FAULTS_GET(FAULTS_WAIT, relation_open, __VA_ARGS__)
#define try_relation_open(...) FAULTS_GET(FAULTS_WAIT, try_relation_open, __VA_ARGS__)
#define table_open(...) FAULTS_GET(FAULTS_WAIT, table_open, __VA_ARGS__)
#define LockRelationOid(...) FAULTS_DO(FAULTS_WAIT, LockRelationOid, __VA_ARGS__)
#define LockDatabaseObject(...) FAULTS_DO(FAULTS_WAIT, LockDatabaseObject, __VA_ARGS__)
#define ConditionalLockRelation(...) FAULTS_GET(FAULTS_FAIL, ConditionalLockRelation, __VA_ARGS__)
#define ConditionalLockRelationOid(...) FAULTS_GET(FAULTS_FAIL, ConditionalLockRelationOid, __VA_ARGS__)
#define ConditionalLockDatabaseObject(...) FAULTS_GET(FAULTS_FAIL, ConditionalLockDatabaseObject, __VA_ARGS__)
#define ConditionVariablePrepareToSleep(...) FAULTS_CALL(0, ConditionVariablePrepareToSleep, __VA_ARGS__)
#define ConditionVariableTimedSleep(...) FAULTS_GET(FAULTS_BOTH, ConditionVariableTimedSleep, __VA_ARGS__)
#define WaitLatchOrSocket(...) FAULTS_CALL(FAULTS_FAIL, WaitLatchOrSocket, __VA_ARGS__)
#define WaitLatch(...) FAULTS_CALL(FAULTS_FAIL, WaitLatch, __VA_ARGS__)
#define LWLockAcquire(...) FAULTS_CALL(0, LWLockAcquire, __VA_ARGS__)
#define WaitEventExtensionNew(...) FAULTS_CALL(FAULTS_FAIL, WaitEventExtensionNew, __VA_ARGS__)
#define pg_usleep(...) FAULTS_CALL(0, pg_usleep, __VA_ARGS__)
#define WaitForBackgroundWorkerStartup(...) FAULTS_GET(FAULTS_BOTH, WaitForBackgroundWorkerStartup, __VA_ARGS__)
#define RegisterDynamicBackgroundWorker(...) FAULTS_GET(FAULTS_FAIL, RegisterDynamicBackgroundWorker, __VA_ARGS__)
#define BackgroundWorkerInitializeConnection(...) FAULTS_DO(FAULTS_BOTH, BackgroundWorkerInitializeConnection, __VA_ARGS__)
#define BackgroundWorkerInitializeConnectionByOid(...) FAULTS_DO(FAULTS_BOTH, BackgroundWorkerInitializeConnectionByOid, __VA_ARGS__)

/* ---- catalogs ---- */

#define get_database_oid(...) FAULTS_CALL(FAULTS_WAIT, get_database_oid, __VA_ARGS__)
#define get_extension_oid(...) FAULTS_CALL(FAULTS_WAIT, get_extension_oid, __VA_ARGS__)
#define get_namespace_oid(...) FAULTS_CALL(FAULTS_WAIT, get_namespace_oid, __VA_ARGS__)
#define get_rel_name(...) FAULTS_CALL(FAULTS_WAIT, get_rel_name, __VA_ARGS__)
#define get_rel_namespace(...) FAULTS_CALL(FAULTS_WAIT, get_rel_namespace, __VA_ARGS__)
#define get_rel_relkind(...) FAULTS_CALL(FAULTS_WAIT, get_rel_relkind, __VA_ARGS__)
#define get_relname_relid(...) FAULTS_CALL(FAULTS_WAIT, get_relname_relid, __VA_ARGS__)
#define get_typlenbyvalalign(...) FAULTS_CALL(FAULTS_WAIT, get_typlenbyvalalign, __VA_ARGS__)
#define SearchSysCache1(...) FAULTS_CALL(FAULTS_WAIT, SearchSysCache1, __VA_ARGS__)
#define RangeVarGetRelidExtended(...) FAULTS_CALL(FAULTS_WAIT, RangeVarGetRelidExtended, __VA_ARGS__)
#define RelationGetIndexList(...) FAULTS_CALL(FAULTS_WAIT, RelationGetIndexList, __VA_ARGS__)
#define has_privs_of_role(...) FAULTS_CALL(FAULTS_WAIT, has_privs_of_role, __VA_ARGS__)
#define pg_class_aclcheck(...) FAULTS_CALL(FAULTS_WAIT, pg_class_aclcheck, __VA_ARGS__)
#define GetUserNameFromId(...) FAULTS_CALL(FAULTS_FAIL, GetUserNameFromId, __VA_ARGS__)
#define pg_cryptohash_create(...) FAULTS_CALL(FAULTS_FAIL, pg_cryptohash_create, __VA_ARGS__)
#define pg_class_aclmask(...) FAULTS_CALL(FAULTS_WAIT, pg_class_aclmask, __VA_ARGS__)
#define pg_class_ownercheck(...) FAULTS_CALL(FAULTS_WAIT, pg_class_ownercheck, __VA_ARGS__)
#define pg_database_ownercheck(...) FAULTS_CALL(FAULTS_WAIT, pg_database_ownercheck, __VA_ARGS__)
#define pg_namespace_aclcheck(...) FAULTS_CALL(FAULTS_WAIT, pg_namespace_aclcheck, __VA_ARGS__)
#define object_aclcheck(...) FAULTS_CALL(FAULTS_WAIT, object_aclcheck, __VA_ARGS__)
#define object_ownercheck(...) FAULTS_CALL(FAULTS_WAIT, object_ownercheck, __VA_ARGS__)
#define systable_beginscan(...) FAULTS_CALL(FAULTS_WAIT, systable_beginscan, __VA_ARGS__)
#define systable_beginscan_ordered(...) FAULTS_CALL(FAULTS_FAIL, systable_beginscan_ordered, __VA_ARGS__)
#define systable_getnext_ordered(...) FAULTS_CALL(FAULTS_BOTH, systable_getnext_ordered, __VA_ARGS__)
#define systable_getnext(...) FAULTS_CALL(FAULTS_BOTH, systable_getnext, __VA_ARGS__)
#define AcceptInvalidationMessages(...) FAULTS_CALL(FAULTS_FAIL, AcceptInvalidationMessages, __VA_ARGS__)
#define CacheInvalidateRelcacheByRelid(...) FAULTS_CALL(FAULTS_WAIT, CacheInvalidateRelcacheByRelid, __VA_ARGS__)
#define CatalogTupleInsert(...) FAULTS_DO(FAULTS_BOTH, CatalogTupleInsert, __VA_ARGS__)
#define CatalogOpenIndexes(...) FAULTS_CALL(FAULTS_WAIT, CatalogOpenIndexes, __VA_ARGS__)
#define CatalogTupleInsertWithInfo(...) FAULTS_DO(FAULTS_BOTH, CatalogTupleInsertWithInfo, __VA_ARGS__)
#define CatalogTupleUpdateWithInfo(...) FAULTS_DO(FAULTS_BOTH, CatalogTupleUpdateWithInfo, __VA_ARGS__)
#define CatalogTupleUpdate(...) FAULTS_DO(FAULTS_BOTH, CatalogTupleUpdate, __VA_ARGS__)
#define CatalogTupleDelete(...) FAULTS_DO(FAULTS_BOTH, CatalogTupleDelete, __VA_ARGS__)
#define performDeletion(...) FAULTS_DO(FAULTS_WAIT, performDeletion, __VA_ARGS__)
#define nextval_internal(...) FAULTS_GET(FAULTS_WAIT, nextval_internal, __VA_ARGS__)

#define GetForeignDataWrapper(...) FAULTS_CALL(FAULTS_WAIT, GetForeignDataWrapper, __VA_ARGS__)
#define GetForeignServer(...) FAULTS_CALL(FAULTS_WAIT, GetForeignServer, __VA_ARGS__)
#define SearchSysCacheExists(...) FAULTS_CALL(FAULTS_WAIT, SearchSysCacheExists, __VA_ARGS__)
#define SearchSysCache2(...) FAULTS_CALL(FAULTS_WAIT, SearchSysCache2, __VA_ARGS__)
#define get_foreign_server_oid(...) FAULTS_CALL(FAULTS_WAIT, get_foreign_server_oid, __VA_ARGS__)
#define pg_foreign_server_aclcheck(...) FAULTS_CALL(FAULTS_WAIT, pg_foreign_server_aclcheck, __VA_ARGS__)
#define superuser_arg(...) FAULTS_CALL(FAULTS_WAIT, superuser_arg, __VA_ARGS__)

/* ---- statements and transactions ---- */

#define CommandCounterIncrement(...) FAULTS_DO(FAULTS_FAIL, CommandCounterIncrement, __VA_ARGS__)
#define StartTransactionCommand(...) FAULTS_DO(FAULTS_FAIL, StartTransactionCommand, __VA_ARGS__)
#define CommitTransactionCommand(...) FAULTS_DO(FAULTS_FAIL, CommitTransactionCommand, __VA_ARGS__)
#define AbortCurrentTransaction(...) FAULTS_CALL(0, AbortCurrentTransaction, __VA_ARGS__)
#define Async_Notify(...) FAULTS_DO(FAULTS_FAIL, Async_Notify, __VA_ARGS__)
#define SPI_connect(...) FAULTS_GET(FAULTS_FAIL, SPI_connect, __VA_ARGS__)
#define SPI_connect_ext(...) FAULTS_GET(FAULTS_FAIL, SPI_connect_ext, __VA_ARGS__)
#define SPI_execute_with_args(...) FAULTS_GET(FAULTS_WAIT, SPI_execute_with_args, __VA_ARGS__)
#define SPI_execute(...) FAULTS_GET(FAULTS_WAIT, SPI_execute, __VA_ARGS__)
#define SPI_commit(...) FAULTS_DO(FAULTS_FAIL, SPI_commit, __VA_ARGS__)
#define standard_ExecutorStart(...) FAULTS_DO(FAULTS_WAIT, standard_ExecutorStart, __VA_ARGS__)
#define standard_ExecutorRun(...) FAULTS_DO(FAULTS_WAIT, standard_ExecutorRun, __VA_ARGS__)
#define standard_ExecutorFinish(...) FAULTS_DO(FAULTS_WAIT, standard_ExecutorFinish, __VA_ARGS__)
#define standard_ProcessUtility(...) FAULTS_DO(FAULTS_WAIT, standard_ProcessUtility, __VA_ARGS__)
#define RegisterXactCallback(callback, arg) faults_register_xact(callback, arg)
#define RegisterSubXactCallback(callback, arg) faults_register_subxact(callback, arg)

#endif							/* FAULTS_H */
