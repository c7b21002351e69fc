/*
 * log.h
 *	  Lines of the log.
 */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>

typedef enum LogLevel
{
	LOG_DEBUG,
	LOG_INFO,
	LOG_WARNING,
} LogLevel;

extern bool log_set_level(const char *name);
extern void log_set_relay(const char *relay);
extern void log_write(LogLevel level, const char *format,...) __attribute__((format(printf, 2, 3)));

#endif							/* LOG_H */
