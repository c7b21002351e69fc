/*
 * launcher.c
 *	  One background process for the cluster.
 *
 * Whether a database has the extension can only be seen from inside, so the
 * launcher starts a worker in each database once, one after the other; a
 * worker that finds no extension says so and exits, and its database is left
 * alone until somebody runs CREATE EXTENSION there (the utility hook tells)
 * or a queue's function is called. A worker that dies is started again, not
 * sooner than a second after the start before; when it dies before its first
 * round is done, the pause doubles, up to a minute.
 *
 * The entry of a database:
 *	 unknown -> asked (a worker was started) -> has (it stays) | without
 *	 without -> unknown, by CREATE EXTENSION
 *	 any -> left, while a command needs the database to itself -> unknown
 *
 * Everything here is in shared memory and forgotten by a crash; then all
 * databases are unknown again.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "storage/spin.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include <signal.h>

#include "clock.h"
#include "compat.h"
#include "guc.h"
#include "launcher.h"
#include "wakeup.h"

#define LOOK_INTERVAL 60000L	/* ms between looks at pg_database */
#define SHORTEST_PAUSE INT64CONST(1000000)	/* us between starts in a database */
#define LONGEST_PAUSE INT64CONST(60000000)

/* What DROP DATABASE leaves when interrupted; nobody can connect to it. */
#define CONNLIMIT_INVALID_DATABASE (-2)

#define MAX_DATABASES 1024

typedef enum DatabaseState
{
	DATABASE_UNKNOWN,
	DATABASE_ASKED,
	DATABASE_WITHOUT,
} DatabaseState;

typedef struct DatabaseEntry
{
	Oid			database;		/* InvalidOid: free */
	DatabaseState state;
	int			left;			/* commands that need it to themselves */
	QueueTime	pause;			/* after the last start; 0 once that worker did a round */
	QueueTime	not_before;		/* the next start */
} DatabaseEntry;

typedef struct LauncherShared
{
	/* under the spinlock */
	slock_t		mutex;
	int			pid;
	Latch	   *latch;
	bool		called;			/* since the last look began */
	DatabaseEntry databases[MAX_DATABASES];
} LauncherShared;

/* Attached at start, the same in every process. */
static LauncherShared *shared;

/* The launcher is to look when this transaction has committed. */
static bool look_at_commit;

/* CREATE EXTENSION ran in it. */
static bool extension_created;

static Size
launcher_size(void)
{
	return sizeof(LauncherShared);
}

static void
launcher_init(void *area, bool found)
{
	shared = area;
	if (found)
		return;
	memset(area, 0, sizeof(LauncherShared));
	SpinLockInit(&shared->mutex);
}

const QueueShmemPart queue_launcher_shmem = {
	"queue launcher", launcher_size, launcher_init, NULL, 0, NULL
};

/* The spinlock must be held. NULL: the table is full. */
static DatabaseEntry *
entry_of(Oid database)
{
	DatabaseEntry *unused = NULL;

	for (int i = 0; i < MAX_DATABASES; i++)
	{
		if (shared->databases[i].database == database)
			return &shared->databases[i];
		if (unused == NULL && !OidIsValid(shared->databases[i].database))
			unused = &shared->databases[i];
	}
	if (unused)
	{
		unused->database = database;
		unused->state = DATABASE_UNKNOWN;
		unused->left = 0;
		unused->pause = 0;
		unused->not_before = 0;
	}
	return unused;
}

static void
wake_launcher(void)
{
	Latch	   *latch;

	SpinLockAcquire(&shared->mutex);
	shared->called = true;
	latch = shared->latch;
	SpinLockRelease(&shared->mutex);
	if (latch)
		SetLatch(latch);
}

/* Whether somebody called since the last time; the latch may be spent by then. */
static bool
take_call(void)
{
	bool		called;

	SpinLockAcquire(&shared->mutex);
	called = shared->called;
	shared->called = false;
	SpinLockRelease(&shared->mutex);
	return called;
}

static void
set_state(Oid database, DatabaseState state)
{
	DatabaseEntry *entry;

	SpinLockAcquire(&shared->mutex);
	entry = entry_of(database);
	if (entry)
		entry->state = state;
	SpinLockRelease(&shared->mutex);
}

/* Whatever was known of it no longer holds: a worker may be started at once. */
static void
forget_state(DatabaseEntry *entry)
{
	entry->state = DATABASE_UNKNOWN;
	entry->pause = 0;
	entry->not_before = 0;
}

/* ---- told by others ---- */

static void
forget_database(Oid database)
{
	DatabaseEntry *entry;

	SpinLockAcquire(&shared->mutex);
	entry = entry_of(database);
	if (entry)
		forget_state(entry);
	SpinLockRelease(&shared->mutex);
}

static void
transaction_ends(XactEvent event, void *arg)
{
	if (!look_at_commit || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;
	look_at_commit = false;
	if (event == XACT_EVENT_COMMIT)
	{
		if (extension_created)
			forget_database(MyDatabaseId);
		wake_launcher();
	}
	extension_created = false;
}

void
queue_launcher_init(void)
{
	RegisterXactCallback(transaction_ends, NULL);
}

/* A database, or (with_extension) the extension in this one, is new at commit. */
void
queue_launcher_look_at_commit(bool with_extension)
{
	look_at_commit = true;
	extension_created |= with_extension;
}

/* A worker found no extension in its database. */
void
queue_launcher_worker_has_no_extension(void)
{
	set_state(MyDatabaseId, DATABASE_WITHOUT);
}

/* A worker did a round: should it end now, that is no reason to wait long. */
void
queue_launcher_worker_works(void)
{
	DatabaseEntry *entry;

	SpinLockAcquire(&shared->mutex);
	entry = entry_of(MyDatabaseId);
	if (entry)
		entry->pause = 0;
	SpinLockRelease(&shared->mutex);
}

bool
queue_launcher_is_left(Oid database)
{
	DatabaseEntry *entry;
	bool		left;

	SpinLockAcquire(&shared->mutex);
	entry = entry_of(database);
	left = entry && entry->left > 0;
	SpinLockRelease(&shared->mutex);
	return left;
}

/* Keep the worker away from a database until queue_launcher_return(). */
void
queue_launcher_claim(Oid database)
{
	DatabaseEntry *entry;

	SpinLockAcquire(&shared->mutex);
	entry = entry_of(database);
	if (entry)
		entry->left++;
	SpinLockRelease(&shared->mutex);
}

/*
 * Have the worker leave a database that a command needs to itself. Waits shortly for it to go; the command itself waits five seconds.
 */
void
queue_launcher_leave(Oid database)
{
	int			pid;

	for (int i = 0; i < 200 && (pid = queue_wakeup_worker_pid(database)) != 0; i++)
	{
		if (i % 20 == 0)
			kill(pid, SIGTERM);
		WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* The command is over, well or not. */
void
queue_launcher_return(Oid database)
{
	DatabaseEntry *entry;

	SpinLockAcquire(&shared->mutex);
	entry = entry_of(database);
	if (entry && entry->left > 0)
	{
		entry->left--;
		forget_state(entry);
	}
	SpinLockRelease(&shared->mutex);
	wake_launcher();
}

bool
queue_launcher_running(void)
{
	return shared->pid != 0;
}

/* ---- the process ---- */

/*
 * For launcher and workers: settings that a database, a role or the file may
 * have for its clients, and that would keep us from writing or from waiting.
 * Those that the server's major does not know are left out. To be called
 * before the connection, so that the database's own never come into force.
 */
void
queue_launcher_pin_settings(void)
{
	static const char *const pinned[][2] = {
		{"role", "none"},
		{"search_path", "pg_catalog, pg_temp"},
		{"session_replication_role", "origin"},
		{"row_security", "on"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"transaction_timeout", "0"},
	};

	for (int i = 0; i < (int) lengthof(pinned); i++)
		if (GetConfigOption(pinned[i][0], true, false) != NULL)
			SetConfigOption(pinned[i][0], pinned[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

static List *
list_databases(MemoryContext context)
{
	List	   *result = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database row = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		if (!row->datallowconn || row->datistemplate ||
			row->datconnlimit == CONNLIMIT_INVALID_DATABASE)
			continue;
		old = MemoryContextSwitchTo(context);
		result = lappend_oid(result, row->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return result;
}

/* Entries of databases that are gone make room. */
static void
forget_dropped(List *databases)
{
	SpinLockAcquire(&shared->mutex);
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		DatabaseEntry *entry = &shared->databases[i];

		if (OidIsValid(entry->database) && entry->left == 0 &&
			!list_member_oid(databases, entry->database))
			entry->database = InvalidOid;
	}
	SpinLockRelease(&shared->mutex);
}

/* Whether it lacks a worker; *not_before is when one may be started. */
static bool
needs_worker(Oid database, QueueTime *not_before)
{
	DatabaseEntry *entry;
	bool		needs;

	SpinLockAcquire(&shared->mutex);
	entry = entry_of(database);
	needs = entry && entry->left == 0 && entry->state != DATABASE_WITHOUT;
	*not_before = needs ? entry->not_before : 0;
	SpinLockRelease(&shared->mutex);
	return needs && queue_wakeup_worker_pid(database) == 0;
}

/* A worker is about to be started, the first one or one more. */
static void
note_start(Oid database)
{
	DatabaseEntry *entry;

	SpinLockAcquire(&shared->mutex);
	entry = entry_of(database);
	if (entry)
	{
		entry->state = DATABASE_ASKED;
		entry->pause = Max(SHORTEST_PAUSE, Min(entry->pause * 2, LONGEST_PAUSE));
		entry->not_before = queue_clock_now() + entry->pause;
	}
	SpinLockRelease(&shared->mutex);
}

/*
 * Start a worker and wait until it is entered or has exited. False: no process
 * was to be had.
 */
static bool
start_worker(Oid database)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_main_arg = ObjectIdGetDatum(database),
		.bgw_notify_pid = MyProcPid
	};
	BackgroundWorkerHandle *handle;
	pid_t		pid;

	strcpy(worker.bgw_name, "queue worker");
	strcpy(worker.bgw_type, "queue worker");
	strcpy(worker.bgw_library_name, "queue");
	strcpy(worker.bgw_function_name, "queue_worker_main");
	note_start(database);
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		forget_database(database);
		return false;
	}
	if (WaitForBackgroundWorkerStartup(handle, &pid) != BGWH_STARTED)
		return true;
	while (GetBackgroundWorkerPid(handle, &pid) == BGWH_STARTED &&
		   queue_wakeup_worker_pid(database) == 0)
	{
		WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	pfree(handle);
	return true;
}

static void
forget_me(int code, Datum arg)
{
	SpinLockAcquire(&shared->mutex);
	shared->pid = 0;
	shared->latch = NULL;
	SpinLockRelease(&shared->mutex);
}

/* Said once, until there is room for all again. */
static void
tell_lacking(bool lacking)
{
	static bool told = false;

	if (lacking && !told)
		ereport(LOG,
				(errmsg("queue could not start a worker for every database"),
				 errhint("Raise \"max_worker_processes\".")));
	told = lacking;
}

/* One look at all databases; returns how long to sleep, in ms. */
static long
look(MemoryContext scratch)
{
	List	   *databases = list_databases(scratch);
	ListCell   *cell;
	QueueTime	wake = queue_clock_now() + LOOK_INTERVAL * 1000;
	QueueTime	not_before;
	bool		lacking = false;

	forget_dropped(databases);
	foreach(cell, databases)
	{
		CHECK_FOR_INTERRUPTS();
		if (!needs_worker(lfirst_oid(cell), &not_before))
			continue;
		if (not_before <= queue_clock_now() && !start_worker(lfirst_oid(cell)))
			lacking = true;
		else if (needs_worker(lfirst_oid(cell), &not_before))
			wake = Min(wake, not_before);	/* it died, now or before */
	}
	tell_lacking(lacking);
	if (lacking)
		wake = Min(wake, queue_clock_now() + LOOK_INTERVAL / 6 * 1000);
	return Max((wake - queue_clock_now()) / 1000 + 1, 1);
}

void
queue_launcher_main(Datum main_arg)
{
	MemoryContext scratch;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	/* What came since the fork was ignored. */
	ConfigReloadPending = true;
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	queue_launcher_pin_settings();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	on_shmem_exit(forget_me, (Datum) 0);
	SpinLockAcquire(&shared->mutex);
	shared->pid = MyProcPid;
	shared->latch = MyLatch;
	SpinLockRelease(&shared->mutex);
	scratch = AllocSetContextCreate(TopMemoryContext, "queue launcher", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		long		sleep;

		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		MemoryContextSwitchTo(scratch);
		take_call();
		sleep = look(scratch);
		MemoryContextReset(scratch);
		if (take_call())
			continue;
		WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, sleep, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

void
queue_launcher_register(void)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = 1
	};

	strcpy(worker.bgw_name, "queue launcher");
	strcpy(worker.bgw_type, "queue launcher");
	strcpy(worker.bgw_library_name, "queue");
	strcpy(worker.bgw_function_name, "queue_launcher_main");
	RegisterBackgroundWorker(&worker);
}
