/*
 * age.c
 *	  Ages of segments: vacuumed before autovacuum is forced on them.
 *
 * Nothing here waits for a lock, and nobody waits for what it holds but other
 * VACUUMs. What cannot be done is left to autovacuum.
 */
#include "postgres.h"

#include "access/multixact.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "commands/vacuum.h"
#include "postmaster/autovacuum.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"

#include "age.h"
#include "segment.h"

/* So often the ages of all tables are looked at while one gets as old as it may. */
#define LOOKS_AT_AGES 32

/*
 * Whether transaction ids or multixacts have gone on so far since this last
 * said so, or since this process began, that some table may have become old.
 */
bool
queue_age_ids_moved(void)
{
	/* Where they were then: of the one process that asks. */
	static TransactionId xid = FirstNormalTransactionId;
	static MultiXactId multi = FirstMultiXactId;
	TransactionId next_xid = ReadNextTransactionId();
	MultiXactId next_multi = ReadNextMultiXactId();

	if (next_xid - xid < (uint32) autovacuum_freeze_max_age / LOOKS_AT_AGES &&
		next_multi - multi < (uint32) autovacuum_multixact_freeze_max_age / LOOKS_AT_AGES)
		return false;
	xid = next_xid;
	multi = next_multi;
	return true;
}

/*
 * Emptying in place leaves relfrozenxid and relminmxid as they were. When one
 * has the age that autovacuum_freeze_max_age, or its sister, allows, autovacuum
 * is forced on the table; so it is vacuumed before, in percent of that. Empty,
 * that costs nothing. With rows it may still be emptied; if not it is read and
 * written once, unless it is large: who vacuums does nothing else meanwhile.
 */
#define OLD_EMPTY 50
#define OLD 75
#define MOST_PAGES_TO_VACUUM (256 * 1024 * 1024 / BLCKSZ)

/* From 95 on VACUUM waits for pages that somebody reads: autovacuum may. */
#define TOO_OLD 90

/* Ids wrap around, their difference does not. */
static int
percent(uint32 next, uint32 old, int most)
{
	return (int) ((int64) (int32) (next - old) * 100 / most);
}

/*
 * Whether a table is old, and gets much younger if all is frozen that is older
 * than what somebody still sees.
 */
static bool
is_old(Relation rel)
{
	TransactionId next_xid = ReadNextTransactionId();
	MultiXactId next_multi = ReadNextMultiXactId();
	int			xid = percent(next_xid, rel->rd_rel->relfrozenxid, autovacuum_freeze_max_age);
	int			multi = percent(next_multi, rel->rd_rel->relminmxid, autovacuum_multixact_freeze_max_age);
	BlockNumber pages;
	int			old;

	if (Max(xid, multi) < OLD_EMPTY)
		return false;
	pages = RelationGetNumberOfBlocks(rel);
	if (pages > MOST_PAGES_TO_VACUUM || (pages > 0 && Max(xid, multi) >= TOO_OLD))
		return false;
	old = pages > 0 ? OLD : OLD_EMPTY;
	return (xid >= old &&
			percent(next_xid, GetOldestNonRemovableTransactionId(rel), autovacuum_freeze_max_age) < old / 2) ||
		(multi >= old &&
		 percent(next_multi, GetOldestMultiXactId(), autovacuum_multixact_freeze_max_age) < old / 2);
}

/* Vacuum a table that is open if it is old, and nobody else does. */
static bool
vacuum_if_old(Relation rel)
{
	VacuumParams params = {
		.freeze_table_age = INT_MAX,
		.multixact_freeze_table_age = INT_MAX,
		.index_cleanup = VACOPTVALUE_AUTO,
		.truncate = VACOPTVALUE_DISABLED,
		.nworkers = -1,			/* none */
	};

	if (!is_old(rel) || !ConditionalLockRelation(rel, ShareUpdateExclusiveLock))
		return false;
	table_relation_vacuum(rel, &params, GetAccessStrategy(BAS_VACUUM));
	return true;
}

/*
 * Vacuum a segment and its toast table, each if it is old. The locks are kept
 * until the transaction ends. Rows of pg_class are changed in place.
 */
bool
queue_age_vacuum(Relation rel)
{
	bool		vacuumed;
	Relation	toast;

	/* One made by hand may call functions, which are not to run as this user. */
	if (rel->rd_rel->relhasindex)
		return false;
	vacuumed = vacuum_if_old(rel);
	/* An index without its first page cannot be read. */
	if (!OidIsValid(rel->rd_rel->reltoastrelid) || queue_segment_is_half_emptied(rel))
		return vacuumed;
	toast = table_open(rel->rd_rel->reltoastrelid, AccessShareLock);
	vacuumed |= vacuum_if_old(toast);
	table_close(toast, AccessShareLock);
	return vacuumed;
}
