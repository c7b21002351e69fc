/*
 * library.c
 *	  Libraries of sinks: found, loaded, asked about options.
 *
 * Whoever has the extension of a sink made has its foreign data wrapper, whose
 * validator is our function queue_sink_validator() under a name of the sink's:
 * <library>_validator. By that name the library is found again. It is loaded
 * only when the setting queue.sink_libraries names it, and is a file of
 * dynamic_library_path: in a backend to check options, in a relay worker to
 * work.
 *
 * A sink's table says where an option belongs and who may set it; that is
 * judged here, each time options are set. What values mean is the sink's check.
 */
#include "postgres.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "guc.h"
#include "library.h"

#define SUFFIX "_validator"
#define FUNCTION "queue_sink_validator"

/* ---- loading ---- */

static bool
is_listed(const char *name)
{
	List	   *names;
	ListCell   *cell;
	bool		listed = false;

	if (!SplitIdentifierString(pstrdup(queue_sink_libraries), ',', &names))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid list in \"queue.sink_libraries\""),
				 errhint("Names of libraries, separated by commas.")));
	foreach(cell, names)
		listed |= strcmp(lfirst(cell), name) == 0;
	return listed;
}

/* The file in the first folder of dynamic_library_path that has it; the name alone has no slash. */
static char *
find_file(const char *name)
{
	char	   *folders = pstrdup(GetConfigOption("dynamic_library_path", false, false));
	char	   *folder;
	char	   *rest = folders;

	while ((folder = strsep(&rest, ":")) != NULL)
	{
		char	   *path;
		struct stat status;

		if (strncmp(folder, "$libdir", 7) == 0 && (folder[7] == '\0' || folder[7] == '/'))
			path = psprintf("%s%s/%s%s", pkglib_path, folder + 7, name, DLSUFFIX);
		else
			path = psprintf("%s/%s%s", folder, name, DLSUFFIX);
		if (path[0] == '/' && stat(path, &status) == 0 && S_ISREG(status.st_mode))
			return path;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FILE),
			 errmsg("library \"%s\" of a sink was not found", name),
			 errdetail("No folder of \"dynamic_library_path\" has a file \"%s%s\".", name, DLSUFFIX)));
}

/* The sink of a library. It stays loaded as long as the process. */
const QueueSink *
queue_library_load(const char *name)
{
	char	   *path;
	void	   *library;
	QueueSinkFunction function;
	const QueueSink *sink;

	if (!is_listed(name))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("library \"%s\" may not be loaded", name),
				 errdetail("The setting \"queue.sink_libraries\" does not name it."),
				 errhint("A superuser can add it to those that are listed, with ALTER SYSTEM and pg_reload_conf().")));
	path = find_file(name);
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FILE),
				 errmsg("could not load library \"%s\" of a sink: %s", name, dlerror())));
	*(void **) &function = dlsym(library, "queue_sink");
	sink = function ? function() : NULL;
	if (sink == NULL || sink->magic != QUEUE_SINK_MAGIC || sink->version != QUEUE_SINK_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("library \"%s\" is no sink of this version", name),
				 errhint("Build it again with the sink.h of this version.")));
	return sink;
}

/* ---- names ---- */

/* The library that a validator asks; NULL: it is not one of ours. */
static char *
library_of(Oid validator)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(validator));
	char	   *name;
	size_t		length;
	bool		isnull;
	Datum		source;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	name = pstrdup(NameStr(((Form_pg_proc) GETSTRUCT(tuple))->proname));
	source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
	if (isnull || strcmp(TextDatumGetCString(source), FUNCTION) != 0)
		name[0] = '\0';
	ReleaseSysCache(tuple);
	length = strlen(name);
	if (length <= strlen(SUFFIX) || strcmp(name + length - strlen(SUFFIX), SUFFIX) != 0)
		return NULL;
	name[length - strlen(SUFFIX)] = '\0';
	return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name) ? name : NULL;
}

/* The library that serves a foreign server. */
char *
queue_library_of_server(Oid server)
{
	ForeignServer *destination = GetForeignServer(server);
	ForeignDataWrapper *wrapper = GetForeignDataWrapper(destination->fdwid);
	char	   *name = OidIsValid(wrapper->fdwvalidator) ? library_of(wrapper->fdwvalidator) : NULL;

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is no destination of relays", destination->servername),
				 errdetail("Its foreign data wrapper \"%s\" belongs to no sink.", wrapper->fdwname),
				 errhint("Create it with the wrapper of a sink, for instance queue_http.")));
	return name;
}

/* ---- options ---- */

static const QueueSinkOption *
find_option(const QueueSink *sink, const char *name)
{
	const QueueSinkOption *option = sink->options;

	while (option->name && strcmp(option->name, name) != 0)
		option++;
	return option->name ? option : NULL;
}

static bool
belongs(const QueueSinkOption *option, Oid catalog)
{
	bool		to_user = (option->flags & QUEUE_SINK_OPTION_USER) != 0;

	return to_user ? catalog == UserMappingRelationId : catalog == ForeignServerRelationId;
}

QUEUE_NORETURN static void
refuse_option(const QueueSink *sink, const char *name, Oid catalog)
{
	const QueueSinkOption *known = find_option(sink, name);
	StringInfoData names;

	initStringInfo(&names);
	for (const QueueSinkOption *option = sink->options; option->name; option++)
		if (belongs(option, catalog))
			appendStringInfo(&names, "%s%s", names.len ? ", " : "", option->name);
	if (known)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" belongs in %s", name,
						catalog == ForeignServerRelationId ? "the user mapping" : "the server"),
				 errhint("What is set here: %s.", names.len ? names.data : "nothing")));
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\" of sink \"%s\"", name, sink->name),
			 errhint("What is set here: %s.", names.len ? names.data : "nothing")));
}

static void
check_right(const QueueSinkOption *option, const char *value)
{
	bool		reads = (option->flags & QUEUE_SINK_OPTION_READS) != 0;

	if ((option->flags & QUEUE_SINK_OPTION_SUPERUSER) && !superuser() &&
		!(option->missing && strcmp(option->missing, value) == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a superuser may set option \"%s\"", option->name)));
	if ((option->flags & (QUEUE_SINK_OPTION_READS | QUEUE_SINK_OPTION_WRITES)) &&
		!has_privs_of_role(GetUserId(), reads ? ROLE_PG_READ_SERVER_FILES : ROLE_PG_WRITE_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", option->name),
				 errdetail("It names a file of the server, so it needs the role %s.",
						   reads ? "pg_read_server_files" : "pg_write_server_files")));
}

static void
check_required(const QueueSink *sink, Oid catalog, const QueueSinkSetting *settings, int count)
{
	for (const QueueSinkOption *option = sink->options; option->name; option++)
	{
		bool		there = !(option->flags & QUEUE_SINK_OPTION_REQUIRED) || !belongs(option, catalog);

		for (int i = 0; i < count && !there; i++)
			there = strcmp(settings[i].name, option->name) == 0;
		if (!there)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
					 errmsg("option \"%s\" of sink \"%s\" is missing", option->name, sink->name),
					 errdetail("It is: %s.", option->meaning)));
	}
}

static void
ask_sink(const QueueSink *sink, const QueueSinkSetting *settings, int count)
{
	char		error[512] = "";

	if (sink->check(settings, count, error, sizeof(error)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid option of sink \"%s\": %s", sink->name,
						pg_any_to_server(error, strlen(error), PG_UTF8))));
}

static char *
as_utf8(const char *text)
{
	return pstrdup(pg_server_to_any(text, strlen(text), PG_UTF8));
}

static int
add_settings(List *options, QueueSinkSetting *settings, int n)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		settings[n].name = as_utf8(option->defname);
		settings[n++].value = as_utf8(defGetString(option));
	}
	return n;
}

/*
 * The validator of all sinks' foreign data wrappers, each under a name of its
 * own. Wrappers and foreign tables have no options.
 */
PG_FUNCTION_INFO_V1(queue_sink_validator);
Datum
queue_sink_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	char	   *library = library_of(fcinfo->flinfo->fn_oid);
	QueueSinkSetting *settings = palloc(sizeof(QueueSinkSetting) * (list_length(options) + 1));
	const QueueSink *sink;
	int			count;

	if (library == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("the name of a sink's validator must be that of its library, and \"%s\"", SUFFIX)));
	if (catalog != ForeignServerRelationId && catalog != UserMappingRelationId)
	{
		if (catalog == ForeignTableRelationId)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("destinations of relays have no foreign tables")));
		if (options != NIL)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("the foreign data wrapper of a sink has no options")));
		PG_RETURN_VOID();
	}
	sink = queue_library_load(library);
	count = add_settings(options, settings, 0);
	for (int i = 0; i < count; i++)
	{
		const QueueSinkOption *option = find_option(sink, settings[i].name);

		if (option == NULL || !belongs(option, catalog))
			refuse_option(sink, settings[i].name, catalog);
		check_right(option, settings[i].value);
	}
	check_required(sink, catalog, settings, count);
	ask_sink(sink, settings, count);
	PG_RETURN_VOID();
}

/* The options of a user mapping; NIL if the owner of a relay has none, and PUBLIC neither. */
static List *
mapping_options(Oid server, Oid owner)
{
	HeapTuple	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(owner), ObjectIdGetDatum(server));
	List	   *options = NIL;
	Datum		value;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid), ObjectIdGetDatum(server));
	if (!HeapTupleIsValid(tuple))
		return NIL;
	value = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple, Anum_pg_user_mapping_umoptions, &isnull);
	if (!isnull)
		options = untransformRelOptions(value);
	ReleaseSysCache(tuple);
	return options;
}

/* All that a sink is opened with: of the server, and of the owner's user mapping. Has secrets. */
QueueSinkSetting *
queue_library_settings(Oid server, Oid owner, int *count)
{
	List	   *of_server = GetForeignServer(server)->options;
	List	   *of_user = mapping_options(server, owner);
	QueueSinkSetting *settings = palloc(sizeof(QueueSinkSetting) * (list_length(of_server) + list_length(of_user) + 1));

	*count = add_settings(of_user, settings, add_settings(of_server, settings, 0));
	return settings;
}

/* Whether a relay can begin with what is set on a server and in the owner's user mapping, taken together. */
void
queue_library_check(Oid server, Oid owner)
{
	int			count;
	QueueSinkSetting *settings = queue_library_settings(server, owner, &count);
	const QueueSink *sink = queue_library_load(queue_library_of_server(server));

	check_required(sink, ForeignServerRelationId, settings, count);
	check_required(sink, UserMappingRelationId, settings, count);
	ask_sink(sink, settings, count);
}

/*
 * Whether the owner of a relay may see what it is opened with, as the server
 * itself would show him: his own user mapping, or those of his server.
 */
bool
queue_library_may_show(Oid server, Oid owner)
{
	return superuser_arg(owner) || has_privs_of_role(owner, GetForeignServer(server)->owner) ||
		SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(owner), ObjectIdGetDatum(server)) ||
		!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid), ObjectIdGetDatum(server));
}

/* Whether a sink may use what is the host's own: a superuser's relay, to a superuser's server. */
bool
queue_library_is_trusted(Oid server, Oid owner)
{
	return superuser_arg(owner) && superuser_arg(GetForeignServer(server)->owner);
}
