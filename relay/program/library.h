/*
 * library.h
 *	  Libraries of sinks.
 */
#ifndef LIBRARY_H
#define LIBRARY_H

#include <stddef.h>

#include "../sink.h"

extern const QueueSink *library_load(const char *folder, const char *name, char *error, size_t size);

#endif							/* LIBRARY_H */
