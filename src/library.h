/*
 * library.h
 *	  Libraries of sinks: found, loaded, asked about options.
 */
#ifndef QUEUE_LIBRARY_H
#define QUEUE_LIBRARY_H

#include "../relay/sink.h"

extern const QueueSink *queue_library_load(const char *name);
extern char *queue_library_of_server(Oid server);
extern void queue_library_check(Oid server, Oid owner);
extern QueueSinkSetting *queue_library_settings(Oid server, Oid owner, int *count);
extern bool queue_library_may_show(Oid server, Oid owner);
extern bool queue_library_is_trusted(Oid server, Oid owner);

#endif							/* QUEUE_LIBRARY_H */
