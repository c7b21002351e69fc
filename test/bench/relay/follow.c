/*-------------------------------------------------------------------------
 *
 * follow.c
 *	  When do lines arrive in a file?
 *
 *	follow PATH COUNT LOG
 *
 * Sleeps until the file is written to (inotify), and notes the time for each
 * line, under the first number behind "data". Prints a line when it is
 * listening, and ends after so many lines.
 *
 *-------------------------------------------------------------------------
 */
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "clock.h"

static char data[1024 * 1024 + 1];
static size_t used;
static long lines;

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

static void
take_lines(FILE *log, int64_t time)
{
	char	   *begin = data;
	char	   *end;

	data[used] = '\0';
	while ((end = memchr(begin, '\n', data + used - begin)) != NULL)
	{
		char	   *body;

		*end = '\0';
		body = strstr(begin, "\"data\":");
		note(log, body ? first_number(body, end - body) : -1, time);
		lines++;
		begin = end + 1;
	}
	used -= begin - data;
	memmove(data, begin, used);
}

int
main(int argc, char **argv)
{
	char		events[4096];
	int			file;
	int			watch;
	long		count;
	FILE	   *log;

	if (argc != 4)
	{
		fprintf(stderr, "usage: follow PATH COUNT LOG\n");
		return 2;
	}
	count = atol(argv[2]);
	log = open_log(argv[3]);
	file = open(argv[1], O_RDONLY | O_CLOEXEC);
	watch = inotify_init1(IN_CLOEXEC);
	if (file < 0 || inotify_add_watch(watch, argv[1], IN_MODIFY) < 0)
		die(argv[1]);
	lseek(file, 0, SEEK_END);
	printf("listening\n");
	fflush(stdout);
	while (lines < count)
	{
		int64_t		time;
		ssize_t		n;

		if (read(watch, events, sizeof(events)) < 0)
			die("inotify");
		time = now_ns();
		while ((n = read(file, data + used, sizeof(data) - 1 - used)) > 0)
		{
			used += n;
			take_lines(log, time);
		}
	}
	fclose(log);
	return 0;
}
