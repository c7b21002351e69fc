/*
 * faults.c
 *	  What happens at a point: nothing, an error, a stop, or the end of the process.
 *
 * The file that the environment variable QUEUE_FAULTS names is mapped by the
 * postmaster when it loads the library, and so by all its children, and by the
 * driver. It survives every crash. The driver arms one fault at a time in it:
 * in which process, at which point, what; the process that meets the point
 * disarms it and does it. Each process marks the points that it passes.
 *
 * Some places must not contain a point that can fail: callbacks of the end of
 * a transaction, and what lies between locking and unlocking a slot or a
 * spinlock. And under the busy bit nobody may wait for a heavyweight lock.
 * Such a point is noted as a violation, armed or not. The slot's and the
 * map's functions are seen by the linker's --wrap.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/builtins.h"

#include "faults.h"

#include "map.h"
#include "ring.h"
#include "slot.h"
#include "state.h"

#undef palloc

#define MAX_SITES 4096
#define MAX_TRACE 65536
#define MAX_VIOLATIONS 64

#define TARGET_WORKER (-1)
#define TARGET_LAUNCHER (-2)

typedef enum FaultsAction
{
	FAULTS_TRACE,				/* only note which points are passed */
	FAULTS_MEMORY,
	FAULTS_CANCEL,
	FAULTS_TERMINATE,
	FAULTS_KILL,
	FAULTS_HOLD,				/* until SIGCONT, with whatever it has */
} FaultsAction;

/* The driver knows this layout: run, class Control. */
typedef struct FaultsControl
{
	int32		armed;			/* written last by the driver */
	int32		target;			/* pid, or TARGET_... */
	int32		action;
	int32		at;				/* the point that counts so many; 0: see site */
	int32		site;			/* index of the point, when "at" is 0 */
	int32		count;			/* points passed since armed */
	int32		fired;			/* index of the point + 1 */
	int32		fired_pid;
	int32		sites;
	int32		violations;
	struct
	{
		int32		site;
		int32		place;
	}			violation[MAX_VIOLATIONS];
	uint8		passed[MAX_SITES];
	uint16		trace[MAX_TRACE];
} FaultsControl;

extern FaultsSite *const __start_faults_sites[];
extern FaultsSite *const __stop_faults_sites[];

/* NULL: the environment names no file. */
static FaultsControl *control;

/* Where this process is. */
int			faults_spinlocks;
static int	slots_locked;
static bool busy;
static bool in_callback;

__attribute__((constructor)) static void
attach(void)
{
	const char *path = getenv("QUEUE_FAULTS");
	int			n = __stop_faults_sites - __start_faults_sites;
	char		names[MAXPGPATH];
	FILE	   *list;
	int			fd;

	if (path == NULL || control != NULL)
		return;
	fd = open(path, O_RDWR);
	if (fd < 0 || n > MAX_SITES)
		abort();
	control = mmap(NULL, sizeof(FaultsControl), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (control == MAP_FAILED)
		abort();
	snprintf(names, sizeof(names), "%s.sites", path);
	list = fopen(names, "w");
	if (list == NULL)
		abort();
	for (int i = 0; i < n; i++)
	{
		FaultsSite *site = __start_faults_sites[i];

		site->index = i;
		fprintf(list, "%d\t%s\t%d\t%s\t%d\n", i, site->file, site->line, site->name, site->kind);
	}
	fclose(list);
	control->sites = n;
}

static bool
am_target(void)
{
	switch (control->target)
	{
		case TARGET_WORKER:
			return MyBgworkerEntry && strcmp(MyBgworkerEntry->bgw_type, "queue worker") == 0;
		case TARGET_LAUNCHER:
			return MyBgworkerEntry && strcmp(MyBgworkerEntry->bgw_type, "queue launcher") == 0;
		default:
			return control->target == MyProcPid;
	}
}

/* Where a point must not be that can do such things; 0: anything goes. */
static int
forbidden_place(int kind)
{
	if (kind & (FAULTS_FAIL | FAULTS_STOP))
	{
		if (in_callback)
			return 1;
		if (slots_locked > 0)
			return 2;
		if (faults_spinlocks > 0)
			return 3;
	}
	if ((kind & FAULTS_LOCK) && busy)
		return 4;
	return 0;
}

static void
note_violation(int site, int place)
{
	int			n = control->violations;

	for (int i = 0; i < n && i < MAX_VIOLATIONS; i++)
		if (control->violation[i].site == site && control->violation[i].place == place)
			return;
	if (n < MAX_VIOLATIONS)
	{
		control->violation[n].site = site;
		control->violation[n].place = place;
		control->violations = n + 1;
	}
}

static bool
can_happen(int kind)
{
	switch ((FaultsAction) control->action)
	{
		case FAULTS_MEMORY:
			return (kind & FAULTS_FAIL) != 0;
		case FAULTS_CANCEL:
			return (kind & FAULTS_STOP) && InterruptHoldoffCount == 0 && QueryCancelHoldoffCount == 0 &&
				CritSectionCount == 0;
		case FAULTS_TERMINATE:
			return (kind & FAULTS_STOP) && InterruptHoldoffCount == 0 && CritSectionCount == 0;
		default:
			return true;
	}
}

static void
happen(void)
{
	switch ((FaultsAction) control->action)
	{
		case FAULTS_TRACE:
			break;
		case FAULTS_MEMORY:
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("injected fault")));
			break;
		case FAULTS_CANCEL:
			QueryCancelPending = true;
			InterruptPending = true;
			ProcessInterrupts();
			break;
		case FAULTS_TERMINATE:
			ProcDiePending = true;
			InterruptPending = true;
			ProcessInterrupts();
			break;
		case FAULTS_KILL:
			kill(MyProcPid, SIGKILL);
			for (;;)
				pause();
		case FAULTS_HOLD:
			kill(MyProcPid, SIGSTOP);
			break;
	}
}

void
faults_point(FaultsSite *site)
{
	int			place;
	int			n;

	if (control == NULL)
		return;
	control->passed[site->index] = 1;
	place = forbidden_place(site->kind);
	if (place)
		note_violation(site->index, place);
	if (!control->armed || place || !am_target() || !can_happen(site->kind))
		return;
	n = ++control->count;
	if (n <= MAX_TRACE)
		control->trace[n - 1] = site->index;
	if (control->action == FAULTS_TRACE ||
		(control->at != 0 ? n != control->at : site->index != control->site))
		return;
	control->armed = 0;
	control->fired_pid = MyProcPid;
	control->fired = site->index + 1;
	happen();
}

/* ---- ends of transactions ---- */

#define MAX_CALLBACKS 4

static struct
{
	XactCallback callback;
	void	   *arg;
}			callbacks[MAX_CALLBACKS];
static int	callback_count;

static SubXactCallback subxact_callback;

static void
at_end(XactEvent event, void *arg)
{
	int			i = (int) (intptr_t) arg;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			callbacks[i].callback(event, callbacks[i].arg);
			/* What follows in the server can still fail. */
			FAULTS_POINT("before commit or prepare", FAULTS_FAIL);
			return;
		case XACT_EVENT_COMMIT:
			FAULTS_POINT("before the callback of commit", 0);
			break;
		case XACT_EVENT_PREPARE:
			FAULTS_POINT("before the callback of prepare", 0);
			break;
		case XACT_EVENT_ABORT:
			FAULTS_POINT("before the callback of abort", 0);
			break;
		default:
			callbacks[i].callback(event, callbacks[i].arg);
			return;
	}
	in_callback = true;
	callbacks[i].callback(event, callbacks[i].arg);
	in_callback = false;
	FAULTS_POINT("after the callback of an end", 0);
}

void
faults_register_xact(XactCallback callback, void *arg)
{
	if (callback_count == MAX_CALLBACKS)
		elog(FATAL, "too many callbacks");
	callbacks[callback_count].callback = callback;
	callbacks[callback_count].arg = arg;
#undef RegisterXactCallback
	RegisterXactCallback(at_end, (void *) (intptr_t) callback_count++);
}

static void
at_savepoint(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	bool		ends = event == SUBXACT_EVENT_ABORT_SUB || event == SUBXACT_EVENT_COMMIT_SUB;
	bool		was = in_callback;

	if (ends)
		FAULTS_POINT("before the callback of a savepoint", 0);
	in_callback = ends;
	subxact_callback(event, id, parent, arg);
	in_callback = was;
}

void
faults_register_subxact(SubXactCallback callback, void *arg)
{
	if (subxact_callback != NULL)
		elog(FATAL, "too many callbacks");
	subxact_callback = callback;
#undef RegisterSubXactCallback
	RegisterSubXactCallback(at_savepoint, arg);
}

/* ---- slots and busy pages ---- */

extern uint64 __real_queue_slot_lock(QueueSlot *slot);
extern bool __real_queue_slot_lock_sequence(QueueSlot *slot, uint64 sequence, uint64 *word);
extern void __real_queue_slot_unlock(QueueSlot *slot, uint64 word);
extern void __real_queue_slot_retire(QueueSlot *slot, uint64 word, uint32 flags);
extern void __real_queue_slot_free(QueueSlot *slot, uint64 word, uint32 flags);
extern QueueMapTake __real_queue_map_take(QueueSegment *segment, BlockNumber page, QueueTime now, QueueMapHold *hold);
extern void __real_queue_map_put(QueueMapHold *hold, QueueTime due);
extern void __real_queue_map_abort(void);

extern uint64 __wrap_queue_slot_lock(QueueSlot *slot);
extern bool __wrap_queue_slot_lock_sequence(QueueSlot *slot, uint64 sequence, uint64 *word);
extern void __wrap_queue_slot_unlock(QueueSlot *slot, uint64 word);
extern void __wrap_queue_slot_retire(QueueSlot *slot, uint64 word, uint32 flags);
extern void __wrap_queue_slot_free(QueueSlot *slot, uint64 word, uint32 flags);
extern QueueMapTake __wrap_queue_map_take(QueueSegment *segment, BlockNumber page, QueueTime now, QueueMapHold *hold);
extern void __wrap_queue_map_put(QueueMapHold *hold, QueueTime due);
extern void __wrap_queue_map_abort(void);

uint64
__wrap_queue_slot_lock(QueueSlot *slot)
{
	uint64		word = __real_queue_slot_lock(slot);

	slots_locked++;
	return word;
}

bool
__wrap_queue_slot_lock_sequence(QueueSlot *slot, uint64 sequence, uint64 *word)
{
	bool		locked = __real_queue_slot_lock_sequence(slot, sequence, word);

	slots_locked += locked;
	return locked;
}

void
__wrap_queue_slot_unlock(QueueSlot *slot, uint64 word)
{
	slots_locked--;
	__real_queue_slot_unlock(slot, word);
}

void
__wrap_queue_slot_retire(QueueSlot *slot, uint64 word, uint32 flags)
{
	slots_locked--;
	__real_queue_slot_retire(slot, word, flags);
}

void
__wrap_queue_slot_free(QueueSlot *slot, uint64 word, uint32 flags)
{
	slots_locked--;
	__real_queue_slot_free(slot, word, flags);
}

QueueMapTake
__wrap_queue_map_take(QueueSegment *segment, BlockNumber page, QueueTime now, QueueMapHold *hold)
{
	QueueMapTake take = __real_queue_map_take(segment, page, now, hold);

	busy = take == QUEUE_MAP_TAKEN;
	return take;
}

void
__wrap_queue_map_put(QueueMapHold *hold, QueueTime due)
{
	__real_queue_map_put(hold, due);
	busy = false;
}

void
__wrap_queue_map_abort(void)
{
	__real_queue_map_abort();
	busy = false;
}

/* ---- what no view shows ---- */

/*
 * faults.left(): what an operation may have left behind in shared memory, as
 * text. Entries of the roster are compared with the catalog by the driver.
 */
PG_FUNCTION_INFO_V1(queue_faults_left);
Datum
queue_faults_left(PG_FUNCTION_ARGS)
{
	StringInfoData text;
	uint32		position = 0;
	QueueState *state;

	initStringInfo(&text);
	appendStringInfo(&text, "committing %u", queue_state_committing());
	while ((state = queue_state_next(MyDatabaseId, &position)) != NULL)
		appendStringInfo(&text, ";queue %d sleepers %u slots %u keeper %s", state->id,
						 pg_atomic_read_u32(&state->sleepers), pg_atomic_read_u32(&state->slots),
						 (QueueTime) pg_atomic_read_u64(&state->keeper) == QUEUE_TIME_NEVER ? "none" : "some");
	PG_RETURN_TEXT_P(cstring_to_text(text.data));
}

/* faults.forget(id): the ring of a queue is unknown, as after a restart. */
PG_FUNCTION_INFO_V1(queue_faults_forget);
Datum
queue_faults_forget(PG_FUNCTION_ARGS)
{
	QueueState *state = queue_state_get(PG_GETARG_INT32(0), false);

	if (state)
		queue_ring_remove_all(state);
	PG_RETURN_VOID();
}
