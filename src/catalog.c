/*
 * catalog.c
 *	  Definitions of queues, in queue._queue and queue._segment.
 *
 * Rows change only when somebody creates, alters, pauses or drops a queue, or
 * when the worker makes a segment; never per message. Whoever changes a row
 * sends a relcache invalidation for the queue's view, which is what empties
 * the caches of all backends.
 *
 * A name is looked up in schema "queues" like any relation; the view found is
 * locked, so a queue cannot be dropped under a call.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "acl.h"
#include "catalog.h"
#include "error.h"
#include "message.h"

/* Columns of queue._queue. */
enum
{
	QUEUE_ID = 1,
	QUEUE_VIEW,
	QUEUE_OPTIONS,
	QUEUE_DEAD_LETTER,
	QUEUE_DEAD_LETTER_OF,
	QUEUE_PAUSED_DEQUEUE,
	QUEUE_PAUSED_ENQUEUE,
	QUEUE_PAUSE_REASON,
	QUEUE_CREATED_AT,
	QUEUE_COLUMN_COUNT = QUEUE_CREATED_AT
};

/* Columns of queue._segment. */
enum
{
	SEGMENT_RELATION = 1,
	SEGMENT_QUEUE,
	SEGMENT_NUMBER,
	SEGMENT_COLUMN_COUNT = SEGMENT_NUMBER
};

/* Definitions by view, for the life of the backend. */
static HTAB *cache;

static void
invalidate(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS scan;
	QueueDef   *def;

	if (OidIsValid(relid))
	{
		def = hash_search(cache, &relid, HASH_FIND, NULL);
		if (def)
			def->valid = false;
		return;
	}
	hash_seq_init(&scan, cache);
	while ((def = hash_seq_search(&scan)) != NULL)
		def->valid = false;
}

void
queue_catalog_init(void)
{
	HASHCTL		info = {
		.keysize = sizeof(Oid),
		.entrysize = sizeof(QueueDef),
		.hcxt = TopMemoryContext
	};

	cache = hash_create("queue definitions", 64, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(invalidate, (Datum) 0);
}

Oid
queue_catalog_namespace(void)
{
	return get_namespace_oid("queues", true);
}

bool
queue_catalog_exists(void)
{
	return OidIsValid(get_extension_oid("queue", true));
}

/* One of the extension's own tables, indexes and sequences. */
Oid
queue_catalog_relation(const char *name)
{
	Oid			namespace = get_namespace_oid("queue", true);
	Oid			relid = OidIsValid(namespace) ? get_relname_relid(name, namespace) : InvalidOid;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"queue\" is not installed in this database"),
				 errhint("Run CREATE EXTENSION queue.")));
	return relid;
}

Oid
queue_catalog_message_sequence(void)
{
	return queue_catalog_relation("message_id");
}

/* The view of a queue, or InvalidOid. */
Oid
queue_catalog_find(const char *name)
{
	Oid			namespace = queue_catalog_namespace();

	return OidIsValid(namespace) ? get_relname_relid(name, namespace) : InvalidOid;
}

/* ---- reading ---- */

/* Call "see" with the row of queue._queue that has this value in a column. */
static bool
with_row(Oid index, AttrNumber column, RegProcedure equal, Datum value,
		 void (*see) (Relation rel, HeapTuple tuple, void *arg), void *arg)
{
	Relation	rel = table_open(queue_catalog_relation("_queue"), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, column, BTEqualStrategyNumber, equal, value);
	scan = systable_beginscan(rel, index, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		see(rel, tuple, arg);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

static bool
with_view(Oid view, void (*see) (Relation rel, HeapTuple tuple, void *arg), void *arg)
{
	return with_row(queue_catalog_relation("_queue_view_key"), QUEUE_VIEW, F_OIDEQ,
					ObjectIdGetDatum(view), see, arg);
}

static Datum
column_of(Relation rel, HeapTuple tuple, AttrNumber column, bool *isnull)
{
	return heap_getattr(tuple, column, RelationGetDescr(rel), isnull);
}

static void
see_definition(Relation rel, HeapTuple tuple, void *arg)
{
	QueueDef   *def = arg;
	bool		isnull;
	Datum		value;

	def->id = DatumGetInt32(column_of(rel, tuple, QUEUE_ID, &isnull));
	queue_options_parse(DatumGetJsonbP(column_of(rel, tuple, QUEUE_OPTIONS, &isnull)), &def->options);
	def->options.dead_letter = NULL;
	value = column_of(rel, tuple, QUEUE_DEAD_LETTER, &isnull);
	def->dead_letter = isnull ? InvalidOid : DatumGetObjectId(value);
	value = column_of(rel, tuple, QUEUE_DEAD_LETTER_OF, &isnull);
	def->dead_letter_of = isnull ? 0 : DatumGetInt32(value);
	def->paused_dequeue = DatumGetBool(column_of(rel, tuple, QUEUE_PAUSED_DEQUEUE, &isnull));
	def->paused_enqueue = DatumGetBool(column_of(rel, tuple, QUEUE_PAUSED_ENQUEUE, &isnull));
}

/* As with segments: a row may say anything, but only a view in our schema can be a queue. */
static bool
is_view_of_ours(Oid view)
{
	return get_rel_relkind(view) == RELKIND_VIEW && get_rel_namespace(view) == queue_catalog_namespace();
}

static QueueDef *
get_definition(Oid view)
{
	bool		found;
	QueueDef   *def = hash_search(cache, &view, HASH_ENTER, &found);

	if (!found)
	{
		def->valid = false;
		def->state = NULL;
		def->limits.named = NULL;
	}
	/* A change that has committed may be ahead of its invalidation message. */
	else if (def->state && queue_state_is(def->state, def->id) &&
			 def->version != pg_atomic_read_u32(&def->state->definition))
		def->valid = false;
	if (!def->valid)
	{
		QueueDef	fresh = {.view = view};
		QueueState *state = found && def->state && queue_state_is(def->state, def->id) ? def->state : NULL;
		uint32		version = state ? pg_atomic_read_u32(&state->definition) : 0;
		MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "queue definition",
													  ALLOCSET_SMALL_SIZES);
		MemoryContext old = MemoryContextSwitchTo(scratch);
		char	   *name = get_rel_name(view);
		bool		exists = name && is_view_of_ours(view) && with_view(view, see_definition, &fresh);

		if (exists)
		{
			strlcpy(fresh.name, name, NAMEDATALEN);
			queue_limit_read(queue_catalog_relation("_limit"), queue_catalog_relation("_limit_pkey"),
							 fresh.id, &fresh.limits);
		}
		MemoryContextSwitchTo(old);
		MemoryContextDelete(scratch);
		queue_limit_forget(&def->limits);
		if (!exists)
		{
			hash_search(cache, &view, HASH_REMOVE, NULL);
			return NULL;
		}
		*def = fresh;
		def->state = state;
		def->version = version;
		def->valid = true;
	}
	return def;
}

/* Attach the definition to its state; may read it again, so as to know its version. */
static void
find_state(QueueDef *def, bool create)
{
	if (!queue_shmem_ready() || RecoveryInProgress() ||
		(def->state && queue_state_is(def->state, def->id)))
		return;
	def->state = queue_state_get(def->id, create);
	if (def->state == NULL)
		return;
	def->state->view = def->view;
	def->state->ordered = def->options.ordered;
	def->valid = false;
	get_definition(def->view);
}

/*
 * The definition of a queue by its view, which the caller has locked; NULL if
 * that is no queue. It has a state where the server may write.
 */
QueueDef *
queue_catalog_get(Oid view)
{
	QueueDef   *def = get_definition(view);

	if (def)
		find_state(def, true);
	return def;
}

/*
 * The same for a caller without a lock: the queue may be dropped already, so
 * no state is made for it. NULL if there is none.
 */
QueueDef *
queue_catalog_get_unlocked(Oid view)
{
	QueueDef   *def = get_definition(view);

	if (def == NULL)
		return NULL;
	find_state(def, false);
	return def->state ? def : NULL;
}

/*
 * Lock the view of a queue of that name in the mode that the caller needs to
 * the end: to ask for more later would be to deadlock with the next one who
 * does. Who must be the owner is asked before, so that nobody else can make
 * others wait.
 */
static Oid
lock_by_name(const char *name, LOCKMODE mode, bool owner)
{
	for (;;)
	{
		Oid			view = queue_catalog_find(name);

		if (!OidIsValid(view))
		{
			queue_catalog_relation("_queue");
			queue_error_no_queue(name);
		}
		if (owner)
			queue_acl_check_owner(view, name);
		LockRelationOid(view, mode);
		if (queue_catalog_find(name) == view)
			return view;
		UnlockRelationOid(view, mode);
	}
}

static QueueDef *
get_or_fail(Oid view, const char *name)
{
	QueueDef   *def = queue_catalog_get(view);

	if (def == NULL)
		queue_error_no_queue(name);
	return def;
}

/*
 * Open a queue by name: lock its view against a drop, check the caller's
 * privilege on it (ACL_NO_RIGHTS: none needed). Raises the error otherwise.
 */
QueueDef *
queue_catalog_open(text *name_text, AclMode need)
{
	char	   *name = text_to_cstring(name_text);
	Oid			view = lock_by_name(name, AccessShareLock, false);
	QueueDef   *def = get_or_fail(view, name);

	queue_acl_check(view, name, need);
	pfree(name);
	return def;
}

/* The same for its owner, who is about to change it. */
QueueDef *
queue_catalog_open_owned(text *name_text, LOCKMODE mode)
{
	char	   *name = text_to_cstring(name_text);
	Oid			view = lock_by_name(name, mode, true);

	queue_acl_check_owner(view, name);
	return get_or_fail(view, name);
}

static void
see_view(Relation rel, HeapTuple tuple, void *arg)
{
	bool		isnull;

	*(Oid *) arg = DatumGetObjectId(column_of(rel, tuple, QUEUE_VIEW, &isnull));
}

/* The definition by id, with the view locked; NULL if it is dropped. */
QueueDef *
queue_catalog_get_by_id(int32 id)
{
	Oid			view = InvalidOid;
	HASH_SEQ_STATUS scan;
	QueueDef   *def;

	hash_seq_init(&scan, cache);
	while ((def = hash_seq_search(&scan)) != NULL)
	{
		if (!def->valid || def->id != id)
			continue;
		view = def->view;
		hash_seq_term(&scan);
		break;
	}
	if (!OidIsValid(view))
		with_row(queue_catalog_relation("_queue_pkey"), QUEUE_ID, F_INT4EQ, Int32GetDatum(id), see_view, &view);
	if (!OidIsValid(view))
		return NULL;
	LockRelationOid(view, AccessShareLock);
	def = queue_catalog_get(view);
	return def && def->id == id ? def : NULL;
}

/* As long as a name can be, longer than a queue's: no view can be in its way. */
static void
segment_name(char *name, int32 id, int32 number)
{
	snprintf(name, NAMEDATALEN, "segment_of_queue_%010d_number_%010d__________________", id, number);
}

/*
 * A restore writes to the table of segments with the rights of the database's
 * owner, so its rows are believed only if they name what a segment is named:
 * nobody's table is read, emptied or dropped because it was entered there.
 */
static bool
is_segment_of(Oid relid, int32 id, int32 number)
{
	char		expected[NAMEDATALEN];
	char	   *name = get_rel_name(relid);

	segment_name(expected, id, number);
	return name && strcmp(name, expected) == 0 && get_rel_relkind(relid) == RELKIND_RELATION &&
		get_rel_namespace(relid) == queue_catalog_namespace();
}

/* The segments of a queue: a list of QueueCatalogSegment. */
List *
queue_catalog_segments(int32 id)
{
	Relation	rel = table_open(queue_catalog_relation("_segment"), AccessShareLock);
	List	   *found = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, SEGMENT_QUEUE, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	scan = systable_beginscan(rel, queue_catalog_relation("_segment_queue_key"), true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		QueueCatalogSegment *row = palloc(sizeof(QueueCatalogSegment));
		bool		isnull;

		row->relid = DatumGetObjectId(column_of(rel, tuple, SEGMENT_RELATION, &isnull));
		row->number = DatumGetInt32(column_of(rel, tuple, SEGMENT_NUMBER, &isnull));
		if (is_segment_of(row->relid, id, row->number))
			found = lappend(found, row);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* Whether a view is that of a queue. */
bool
queue_catalog_is_view(Oid relid)
{
	return get_definition(relid) != NULL;
}

/* For its triggers, which read its rows by type: a view made by hand is none. */
void
queue_catalog_check_view(Relation view)
{
	static const Oid types[] = {
		INT8OID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INTERVALOID, TIMESTAMPTZOID, INTERVALOID,
		TEXTOID, INT2OID, JSONBOID, JSONBOID, BYTEAOID, TEXTOID, TEXTOID, JSONBOID, INT4OID, TEXTOID,
		TIMESTAMPTZOID, REGROLEOID
	};
	TupleDesc	desc = RelationGetDescr(view);
	bool		ok = desc->natts == lengthof(types);

	for (int i = 0; ok && i < (int) lengthof(types); i++)
		ok = TupleDescAttr(desc, i)->atttypid == types[i] && !TupleDescAttr(desc, i)->attisdropped;
	if (!ok)
		queue_error_no_queue(RelationGetRelationName(view));
}

/* The id of the queue of which a relation is a segment; 0 if it is none. */
int32
queue_catalog_queue_of_segment(Oid relid)
{
	Relation	rel = table_open(queue_catalog_relation("_segment"), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	int32		id = 0;

	ScanKeyInit(&key, SEGMENT_RELATION, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, queue_catalog_relation("_segment_pkey"), true, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		id = DatumGetInt32(column_of(rel, tuple, SEGMENT_QUEUE, &isnull));
		if (!is_segment_of(relid, id, DatumGetInt32(column_of(rel, tuple, SEGMENT_NUMBER, &isnull))))
			id = 0;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return id;
}

/* Whether a queue is whole: a restore makes the triggers of its view last. The view is locked. */
bool
queue_catalog_is_whole(QueueDef *def)
{
	Relation	view = relation_open(def->view, NoLock);
	bool		whole = view->rd_rel->relhastriggers;

	relation_close(view, NoLock);
	return whole;
}

/* The views of all queues of the database, as a list of OIDs. */
List *
queue_catalog_views(void)
{
	Relation	rel = table_open(queue_catalog_relation("_queue"), AccessShareLock);
	List	   *found = NIL;
	SysScanDesc scan = systable_beginscan(rel, queue_catalog_relation("_queue_pkey"), true, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		found = lappend_oid(found, DatumGetObjectId(column_of(rel, tuple, QUEUE_VIEW, &isnull)));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

static void
see_options(Relation rel, HeapTuple tuple, void *arg)
{
	bool		isnull;

	*(Jsonb **) arg = DatumGetJsonbPCopy(column_of(rel, tuple, QUEUE_OPTIONS, &isnull));
}

Jsonb *
queue_catalog_read_options(Oid view)
{
	Jsonb	   *options = NULL;

	with_view(view, see_options, &options);
	return options;
}

/* The view of a queue other than "except" whose dead messages go to this view. */
Oid
queue_catalog_dead_letter_user(Oid view, Oid except)
{
	Relation	rel = table_open(queue_catalog_relation("_queue"), AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, queue_catalog_relation("_queue_pkey"), true, NULL, 0, NULL);
	HeapTuple	tuple;
	Oid			user = InvalidOid;

	while (!OidIsValid(user) && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		target = column_of(rel, tuple, QUEUE_DEAD_LETTER, &isnull);

		if (isnull || DatumGetObjectId(target) != view)
			continue;
		user = DatumGetObjectId(column_of(rel, tuple, QUEUE_VIEW, &isnull));
		if (user == except)
			user = InvalidOid;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return user;
}

/* ---- changing ---- */

/* Run as the extension's owner, with nothing of the user's in the way. */
void
queue_catalog_as_owner(Oid *save_user, int *save_context)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("queue"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!OidIsValid(owner))
		elog(ERROR, "extension \"queue\" has no owner");
	GetUserIdAndSecContext(save_user, save_context);
	SetUserIdAndSecContext(owner, *save_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
}

static void
insert_segment_row(Oid relid, int32 id, int32 number)
{
	Relation	rel = table_open(queue_catalog_relation("_segment"), RowExclusiveLock);
	Datum		values[SEGMENT_COLUMN_COUNT];
	bool		nulls[SEGMENT_COLUMN_COUNT] = {false};

	values[SEGMENT_RELATION - 1] = ObjectIdGetDatum(relid);
	values[SEGMENT_QUEUE - 1] = Int32GetDatum(id);
	values[SEGMENT_NUMBER - 1] = Int32GetDatum(number);
	CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls));
	table_close(rel, RowExclusiveLock);
}

/*
 * A name for a new segment, from this number on, that neither a row of ours
 * nor anybody's relation has.
 */
static int32
choose_name(char *name, int32 id, int32 number)
{
	Relation	rel = table_open(queue_catalog_relation("_segment"), AccessShareLock);
	ScanKeyData key[2];

	ScanKeyInit(&key[0], SEGMENT_QUEUE, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	for (;; number = number == PG_INT32_MAX ? 1 : number + 1)
	{
		SysScanDesc scan;
		bool		taken;

		CHECK_FOR_INTERRUPTS();
		segment_name(name, id, number);
		if (OidIsValid(queue_catalog_find(name)))
			continue;
		ScanKeyInit(&key[1], SEGMENT_NUMBER, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(number));
		scan = systable_beginscan(rel, queue_catalog_relation("_segment_queue_key"), true, NULL, 2, key);
		taken = HeapTupleIsValid(systable_getnext(scan));
		systable_endscan(scan);
		if (!taken)
			break;
	}
	table_close(rel, AccessShareLock);
	return number;
}

static void
make_table(const char *name)
{
	SPI_connect();
	queue_acl_internal_ddl++;
	PG_TRY();
	{
		/* Autovacuum would freeze and reuse what is about to be emptied whole. */
		SPI_execute(psprintf("CREATE TABLE queues.\"%s\" (%s) USING heap WITH (autovacuum_enabled = false, "
							 "vacuum_truncate = false, toast_tuple_target = 8160, "
							 "toast.autovacuum_enabled = false)", name, queue_message_columns_sql()),
					false, 0);
		/* Keys are compared as they are in the row, so they stay as they are when it is too long. */
		SPI_execute(psprintf("ALTER TABLE queues.\"%s\" ALTER key SET STORAGE MAIN, "
							 "ALTER unique_key SET STORAGE PLAIN", name), false, 0);
		/* Nobody replicates segments row by row. */
		SPI_execute(psprintf("ALTER TABLE queues.\"%s\" REPLICA IDENTITY NOTHING", name), false, 0);
	}
	PG_FINALLY();
	{
		queue_acl_internal_ddl--;
	}
	PG_END_TRY();
	SPI_finish();
}

/* Make a new segment; it gets this number or a later one. */
void
queue_catalog_create_segment(int32 id, int32 number)
{
	char		name[NAMEDATALEN];
	Oid			save_user;
	int			save_context;

	number = choose_name(name, id, number);
	queue_catalog_as_owner(&save_user, &save_context);
	make_table(name);
	SetUserIdAndSecContext(save_user, save_context);
	insert_segment_row(queue_catalog_find(name), id, number);
	CommandCounterIncrement();
}

/*
 * An id that shared memory still knows is of a queue whose drop has not
 * committed, with an extension that was dropped and is made anew.
 */
int32
queue_catalog_next_id(void)
{
	int32		id;

	do
		id = (int32) nextval_internal(queue_catalog_relation("queue_id"), false);
	while (queue_state_get(id, false) != NULL);
	return id;
}

/* Store a new queue under an id that queue_catalog_next_id() gave. */
void
queue_catalog_insert(Oid view, int32 id, Jsonb *options, Oid dead_letter, int32 dead_letter_of)
{
	Relation	rel = table_open(queue_catalog_relation("_queue"), RowExclusiveLock);
	Datum		values[QUEUE_COLUMN_COUNT] = {0};
	bool		nulls[QUEUE_COLUMN_COUNT] = {false};

	values[QUEUE_ID - 1] = Int32GetDatum(id);
	values[QUEUE_VIEW - 1] = ObjectIdGetDatum(view);
	values[QUEUE_OPTIONS - 1] = JsonbPGetDatum(options);
	values[QUEUE_DEAD_LETTER - 1] = ObjectIdGetDatum(dead_letter);
	nulls[QUEUE_DEAD_LETTER - 1] = !OidIsValid(dead_letter);
	values[QUEUE_DEAD_LETTER_OF - 1] = Int32GetDatum(dead_letter_of);
	nulls[QUEUE_DEAD_LETTER_OF - 1] = dead_letter_of == 0;
	nulls[QUEUE_PAUSE_REASON - 1] = true;
	values[QUEUE_CREATED_AT - 1] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls));
	table_close(rel, RowExclusiveLock);
	CommandCounterIncrement();
}

static void
change_row(Oid view, const Datum *values, const bool *nulls, const bool *replace)
{
	Relation	rel = table_open(queue_catalog_relation("_queue"), RowExclusiveLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, QUEUE_VIEW, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(view));
	scan = systable_beginscan(rel, queue_catalog_relation("_queue_view_key"), true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple) && replace)
	{
		HeapTuple	changed = heap_modify_tuple(tuple, RelationGetDescr(rel),
												unconstify(Datum *, values),
												unconstify(bool *, nulls),
												unconstify(bool *, replace));

		CatalogTupleUpdate(rel, &tuple->t_self, changed);
	}
	else if (HeapTupleIsValid(tuple))
		CatalogTupleDelete(rel, &tuple->t_self);
	systable_endscan(scan);
	table_close(rel, RowExclusiveLock);
	CacheInvalidateRelcacheByRelid(view);
	CommandCounterIncrement();
}

void
queue_catalog_update(Oid view, Jsonb *options, Oid dead_letter)
{
	Datum		values[QUEUE_COLUMN_COUNT] = {0};
	bool		nulls[QUEUE_COLUMN_COUNT] = {false};
	bool		replace[QUEUE_COLUMN_COUNT] = {false};

	values[QUEUE_OPTIONS - 1] = JsonbPGetDatum(options);
	replace[QUEUE_OPTIONS - 1] = true;
	values[QUEUE_DEAD_LETTER - 1] = ObjectIdGetDatum(dead_letter);
	nulls[QUEUE_DEAD_LETTER - 1] = !OidIsValid(dead_letter);
	replace[QUEUE_DEAD_LETTER - 1] = true;
	change_row(view, values, nulls, replace);
}

void
queue_catalog_set_pause(Oid view, bool dequeue, bool enqueue, bool paused, const char *reason)
{
	Datum		values[QUEUE_COLUMN_COUNT] = {0};
	bool		nulls[QUEUE_COLUMN_COUNT] = {false};
	bool		replace[QUEUE_COLUMN_COUNT] = {false};

	values[QUEUE_PAUSED_DEQUEUE - 1] = BoolGetDatum(paused);
	replace[QUEUE_PAUSED_DEQUEUE - 1] = dequeue;
	values[QUEUE_PAUSED_ENQUEUE - 1] = BoolGetDatum(paused);
	replace[QUEUE_PAUSED_ENQUEUE - 1] = enqueue;
	nulls[QUEUE_PAUSE_REASON - 1] = reason == NULL;
	if (reason)
		values[QUEUE_PAUSE_REASON - 1] = CStringGetTextDatum(reason);
	replace[QUEUE_PAUSE_REASON - 1] = true;
	change_row(view, values, nulls, replace);
}

/* Forget a queue and its segments; their tables are dropped by the caller. */
void
queue_catalog_delete(Oid view, int32 id)
{
	Relation	rel = table_open(queue_catalog_relation("_segment"), RowExclusiveLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, SEGMENT_QUEUE, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	scan = systable_beginscan(rel, queue_catalog_relation("_segment_queue_key"), true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		CatalogTupleDelete(rel, &tuple->t_self);
	systable_endscan(scan);
	table_close(rel, RowExclusiveLock);
	change_row(view, NULL, NULL, NULL);
}
