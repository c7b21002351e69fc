/*
 * library.c
 *	  Libraries of sinks: found and loaded.
 *
 * Which one a relay needs is what the database says. It is looked for in one
 * folder, by a name that cannot leave it: who can make an extension in the
 * database has no other file loaded here.
 */
#include <dlfcn.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "library.h"

static bool
is_name(const char *name)
{
	return name[0] != '\0' && name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

/* It stays loaded as long as the process. NULL: the reason is in "error". */
const		QueueSink *
library_load(const char *folder, const char *name, char *error, size_t size)
{
	char		path[PATH_MAX];
	void	   *library;
	QueueSinkFunction function;
	const		QueueSink *sink;

	if (!is_name(name) || snprintf(path, sizeof(path), "%s/%s.so", folder, name) >= (int) sizeof(path))
	{
		snprintf(error, size, "\"%s\" is no name of a sink's library", name);
		return NULL;
	}
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL)
	{
		snprintf(error, size, "could not load the library of the sink: %s", dlerror());
		return NULL;
	}
	*(void **) &function = dlsym(library, "queue_sink");
	sink = function ? function() : NULL;
	if (sink && sink->magic == QUEUE_SINK_MAGIC && sink->version == QUEUE_SINK_VERSION)
		return sink;
	snprintf(error, size, "\"%s\" is no sink of this version", path);
	return NULL;
}
