/*-------------------------------------------------------------------------
 *
 * minimal_file.c
 *	  What a disk can do: the least program that appends lines.
 *
 *	minimal_file PATH COUNT BATCH BYTES [nosync]	prints messages a second
 *	minimal_file PATH COUNT every MS BYTES LOG	notes when each was begun
 *
 * A write of a batch of lines, and an fdatasync, one after the other.
 *
 *-------------------------------------------------------------------------
 */
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

static int	file;
static bool sync_it = true;

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

static void
append(const char *data, size_t length)
{
	if (write(file, data, length) != (ssize_t) length)
		die("write");
	if (sync_it && fdatasync(file) != 0)
		die("fdatasync");
}

/* As a relay writes it: the payload is behind "data". */
static int
make_line(char *line, size_t size, long number, int bytes)
{
	int			n = snprintf(line, size, "{\"data\":");

	n += make_payload(line + n, size - n, number, bytes - n - 2);
	return n + snprintf(line + n, size - n, "}\n");
}

static void
measure_rate(long count, int batch, int bytes)
{
	size_t		size = bytes + 64;
	char	   *data = malloc(size * batch);
	int64_t		start = now_ns();

	for (long done = 0; done < count; done += batch)
	{
		size_t		used = 0;

		for (int i = 0; i < batch; i++)
			used += make_line(data + used, size, done + i, bytes);
		append(data, used);
	}
	printf("%.1f\n", count / ((now_ns() - start) / 1e9));
	free(data);
}

static void
measure_latency(long count, int every, int bytes, const char *path)
{
	FILE	   *log = open_log(path);
	char	   *line = malloc(bytes + 64);

	for (long i = 1; i <= count; i++)
	{
		pause_about(every);
		note(log, i, now_ns());
		append(line, make_line(line, bytes + 64, i, bytes));
	}
	fclose(log);
	free(line);
}

int
main(int argc, char **argv)
{
	bool		latency = argc > 3 && strcmp(argv[3], "every") == 0;

	if (latency ? argc != 7 : argc < 5)
	{
		fprintf(stderr, "usage: minimal_file PATH COUNT BATCH BYTES [nosync] | PATH COUNT every MS BYTES LOG\n");
		return 2;
	}
	file = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (file < 0)
		die(argv[1]);
	if (latency)
	{
		measure_latency(atol(argv[2]), atoi(argv[4]), atoi(argv[5]), argv[6]);
		return 0;
	}
	sync_it = argc == 5;
	measure_rate(atol(argv[2]), atoi(argv[3]), atoi(argv[4]));
	return 0;
}
