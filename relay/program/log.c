/*
 * log.c
 *	  Lines of the log: time, level, relay, text, to the standard error.
 *
 * A line is written with one write, since several processes write. No secret
 * is in a line: settings of a relay never get here, sinks owe the same, and
 * what libpq says of a connection has no password in it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

static const char *const names[] = {"debug", "info", "warning"};

/* As the process was started with. */
static LogLevel lowest = LOG_INFO;

/* NULL: the process that supervises. */
static const char *of_relay;

/* False: there is no such level. */
bool
log_set_level(const char *name)
{
	for (int i = LOG_DEBUG; i <= LOG_WARNING; i++)
		if (strcmp(names[i], name) == 0)
		{
			lowest = i;
			return true;
		}
	return false;
}

void
log_set_relay(const char *relay)
{
	of_relay = relay;
}

static int
put_prefix(char *line, size_t size, LogLevel level)
{
	struct timespec now;
	struct tm	utc;
	char		stamp[32];

	clock_gettime(CLOCK_REALTIME, &now);
	strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S", gmtime_r(&now.tv_sec, &utc));
	if (of_relay == NULL)
		return snprintf(line, size, "%s.%03ldZ [%d] %s: ", stamp, now.tv_nsec / 1000000, (int) getpid(), names[level]);
	return snprintf(line, size, "%s.%03ldZ [%d] relay \"%s\": %s: ", stamp, now.tv_nsec / 1000000, (int) getpid(),
					of_relay, names[level]);
}

void
log_write(LogLevel level, const char *format,...)
{
	char		line[2048];
	int			used;
	int			length;
	va_list		arguments;

	if (level < lowest)
		return;
	used = put_prefix(line, sizeof(line) / 2, level);
	if (used >= (int) sizeof(line) / 2)
		used = sizeof(line) / 2 - 1;
	va_start(arguments, format);
	length = vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);
	va_end(arguments);
	length = used + length < (int) sizeof(line) - 2 ? used + length : (int) sizeof(line) - 2;
	while (length > used && line[length - 1] == '\n')
		length--;
	/* What others say may have lines, or worse. */
	for (int i = 0; i < length; i++)
		if ((unsigned char) line[i] < ' ' || line[i] == 0x7f)
			line[i] = ' ';
	line[length++] = '\n';
	if (write(STDERR_FILENO, line, length) < 0)
		return;
}
