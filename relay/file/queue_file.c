/*
 * queue_file.c
 *	  A sink that appends messages to a file, a JSON document a line.
 *
 * The sample of a sink: README.md beside sink.h walks through it.
 *
 * A line is written with one write, and said to be delivered after fdatasync.
 * A write that fails is cut off again, so that the file has whole lines only;
 * what a crash has left of a line is cut off when the file is opened. While it
 * is open nobody else's relay writes to it: it is locked.
 *
 * A disk is waited for: it is the one thing that cannot be had without waiting
 * and without a thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../sink.h"

/* Bytes that are written at a time, about. */
#define WRITE_SIZE (1024 * 1024)

/* After a disk that was full, ms. */
#define PAUSE 1000

static const QueueSinkOption options[] = {
	{"path", QUEUE_SINK_OPTION_SERVER | QUEUE_SINK_OPTION_REQUIRED | QUEUE_SINK_OPTION_WRITES, NULL,
	"file to append to, an absolute path; made if it is not there"},
	{"rotate_size", QUEUE_SINK_OPTION_SERVER, "0",
	"bytes after which the file is renamed to <path>.<time> and begun anew; 0: never"},
	{"sync", QUEUE_SINK_OPTION_SERVER, "true",
	"whether a message is delivered only when it is on disk: true or false"},
	{NULL, 0, NULL, NULL}
};

typedef struct FileSink
{
	const QueueSinkHost *host;
	char	   *path;
	int64_t		rotate_size;
	bool		sync;

	int			file;			/* -1: closed, after an error */
	int64_t		length;			/* of whole lines */

	const QueueSinkMessage **messages;	/* accepted, not written */
	int			count;
	int			room;

	char	   *text;			/* lines of theirs */
	size_t		used;
	size_t		size;
	bool		no_memory;
} FileSink;

/* ---- options ---- */

static const char *
setting(const QueueSinkSetting *settings, int count, const char *name)
{
	for (int i = 0; i < count; i++)
		if (strcmp(settings[i].name, name) == 0)
			return settings[i].value;
	return NULL;
}

static bool
read_size(const char *value, int64_t *size)
{
	char	   *end;

	errno = 0;
	*size = strtoll(value, &end, 10);
	return errno == 0 && end != value && *end == '\0' && *size >= 0;
}

static bool
read_bool(const char *value, bool *result)
{
	*result = strcmp(value, "true") == 0 || strcmp(value, "on") == 0;
	return *result || strcmp(value, "false") == 0 || strcmp(value, "off") == 0;
}

static int
check(const QueueSinkSetting *settings, int count, char *error, size_t size)
{
	const char *path = setting(settings, count, "path");
	const char *rotate = setting(settings, count, "rotate_size");
	const char *sync = setting(settings, count, "sync");
	int64_t		bytes;
	bool		on;

	if (path && (path[0] != '/' || path[strlen(path) - 1] == '/' || strlen(path) >= PATH_MAX - 32))
		snprintf(error, size, "option \"path\" must be the absolute path of a file");
	else if (rotate && !read_size(rotate, &bytes))
		snprintf(error, size, "option \"rotate_size\" must be a number of bytes, or 0");
	else if (sync && !read_bool(sync, &on))
		snprintf(error, size, "option \"sync\" must be true or false");
	else
		return 0;
	return -1;
}

/* ---- the file ---- */

/* The length without what a crash has left of a last line; -1: it cannot be read. */
static int64_t
whole_length(int file, int64_t length)
{
	char		block[4096];

	while (length > 0)
	{
		int64_t		begin = length > (int64_t) sizeof(block) ? length - (int64_t) sizeof(block) : 0;
		ssize_t		n = pread(file, block, length - begin, begin);

		if (n != length - begin)
			return -1;
		while (n > 0 && block[n - 1] != '\n')
			n--;
		if (n > 0)
			return begin + n;
		length = begin;
	}
	return 0;
}

static bool
prepare_file(FileSink *sink)
{
	struct stat status;
	int64_t		whole;

	if (fstat(sink->file, &status) != 0)
		return false;
	if (!S_ISREG(status.st_mode))
	{
		errno = EINVAL;
		return false;
	}
	if (flock(sink->file, LOCK_EX | LOCK_NB) != 0)
		return false;
	whole = whole_length(sink->file, status.st_size);
	if (whole < 0 || (whole < status.st_size && ftruncate(sink->file, whole) != 0))
		return false;
	sink->length = whole;
	return lseek(sink->file, whole, SEEK_SET) == whole;
}

/* Also the folder: a file that was made is to be there after a crash of the machine. */
static void
sync_folder(const char *path)
{
	char	   *folder = strdup(path);
	char	   *slash = folder ? strrchr(folder, '/') : NULL;
	int			directory;

	if (slash == NULL)
	{
		free(folder);
		return;
	}
	slash[slash == folder ? 1 : 0] = '\0';
	directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory >= 0)
	{
		fsync(directory);
		close(directory);
	}
	free(folder);
}

/* False, with errno, and closed, if the file is not to be had. */
static bool
open_file(FileSink *sink)
{
	int			save_errno;

	if (sink->file >= 0)
		return true;
	sink->file = open(sink->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0640);
	if (sink->file < 0)
		return false;
	if (prepare_file(sink))
	{
		if (sink->length == 0 && sink->sync)
			sync_folder(sink->path);
		return true;
	}
	save_errno = errno;
	close(sink->file);
	sink->file = -1;
	errno = save_errno;
	return false;
}

/* A full file gets a name of its time, and the next line begins another one. */
static void
rotate(FileSink *sink)
{
	char		name[PATH_MAX];
	char		stamp[32];
	struct timespec now;
	struct tm	utc;

	if (sink->rotate_size == 0 || sink->length < sink->rotate_size)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%S", gmtime_r(&now.tv_sec, &utc));
	snprintf(name, sizeof(name), "%s.%s.%09ld", sink->path, stamp, now.tv_nsec);
	if (rename(sink->path, name) != 0)
		return;
	close(sink->file);
	sink->file = -1;
}

/* All of it, or nothing is left of it. False, with errno. */
static bool
write_lines(FileSink *sink)
{
	size_t		done = 0;
	int			save_errno;

	while (done < sink->used)
	{
		ssize_t		n = write(sink->file, sink->text + done, sink->used - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += n;
	}
	if (done == sink->used && (!sink->sync || fdatasync(sink->file) == 0))
	{
		sink->length += sink->used;
		return true;
	}
	/* Opened again it is cut where its last whole line ends; we know where ours began. */
	save_errno = errno;
	if (ftruncate(sink->file, sink->length) != 0)
		sink->host->log(sink->host->context, QUEUE_SINK_WARNING, "could not cut off what was written in part");
	close(sink->file);
	sink->file = -1;
	errno = save_errno;
	return false;
}

/* ---- lines ---- */

static void
put(FileSink *sink, const char *data, size_t length)
{
	if (sink->used + length > sink->size)
	{
		size_t		size = (sink->used + length) * 2;
		char	   *larger = realloc(sink->text, size);

		if (larger == NULL)
		{
			sink->no_memory = true;
			return;
		}
		sink->text = larger;
		sink->size = size;
	}
	memcpy(sink->text + sink->used, data, length);
	sink->used += length;
}

static void
put_text(FileSink *sink, const char *text)
{
	put(sink, text, strlen(text));
}

static void
put_string(FileSink *sink, const char *text)
{
	const char *begin = text;
	char		code[8];

	put(sink, "\"", 1);
	for (; *text; text++)
	{
		if ((unsigned char) *text >= 0x20 && *text != '"' && *text != '\\')
			continue;
		put(sink, begin, text - begin);
		begin = text + 1;
		if (*text == '"' || *text == '\\')
			snprintf(code, sizeof(code), "\\%c", *text);
		else
			snprintf(code, sizeof(code), "\\u%04x", (unsigned char) *text);
		put_text(sink, code);
	}
	put(sink, begin, text - begin);
	put(sink, "\"", 1);
}

static void
put_base64(FileSink *sink, const unsigned char *data, size_t length)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char		four[4];

	put(sink, "\"", 1);
	for (size_t i = 0; i < length; i += 3)
	{
		unsigned	bits = data[i] << 16;

		bits |= i + 1 < length ? data[i + 1] << 8 : 0;
		bits |= i + 2 < length ? data[i + 2] : 0;
		four[0] = digits[bits >> 18];
		four[1] = digits[(bits >> 12) & 63];
		four[2] = i + 1 < length ? digits[(bits >> 6) & 63] : '=';
		four[3] = i + 2 < length ? digits[bits & 63] : '=';
		put(sink, four, 4);
	}
	put(sink, "\"", 1);
}

static bool
ends_with(const char *text, const char *end)
{
	size_t		length = strlen(text);

	return length >= strlen(end) && strcmp(text + length - strlen(end), end) == 0;
}

/* What says that it is JSON, and has no line end in it, is a part of the line. */
static bool
is_json_line(const QueueSinkMessage *message)
{
	const unsigned char *body = message->body;

	if (strcmp(message->content_type, "application/json") != 0 && !ends_with(message->content_type, "+json"))
		return false;
	for (size_t i = 0; i < message->body_length; i++)
		if (body[i] < 0x20)
			return false;
	return message->body_length > 0;
}

static void
put_member(FileSink *sink, const char *name, const char *value)
{
	put_text(sink, ",\"");
	put_text(sink, name);
	put_text(sink, "\":");
	put_string(sink, value);
}

static void
put_line(FileSink *sink, const QueueSinkMessage *message)
{
	char		number[48];

	put_text(sink, "{\"id\":");
	put_string(sink, message->id);
	if (message->key)
		put_member(sink, "key", message->key);
	if (message->target[0])
		put_member(sink, "target", message->target);
	snprintf(number, sizeof(number), ",\"attempt\":%d,\"epoch\":%lld", message->attempt, (long long) message->epoch);
	put_text(sink, number);
	put_text(sink, ",\"headers\":{");
	for (int i = 0; i < message->header_count; i++)
	{
		put_text(sink, i > 0 ? "," : "");
		put_string(sink, message->headers[i].name);
		put_text(sink, ":");
		put_string(sink, message->headers[i].value);
	}
	put_text(sink, "}");
	put_member(sink, "content_type", message->content_type);
	if (is_json_line(message))
	{
		put_text(sink, ",\"data\":");
		put(sink, message->body, message->body_length);
	}
	else
	{
		put_text(sink, ",\"data_base64\":");
		put_base64(sink, message->body, message->body_length);
	}
	put_text(sink, "}\n");
}

/* ---- the sink ---- */

static void
close_sink(void *state)
{
	FileSink   *sink = state;

	if (sink->file >= 0)
		close(sink->file);
	free(sink->messages);
	free(sink->text);
	free(sink->path);
	free(sink);
}

/* The file is opened with the first message: it may come to be writable. */
static void *
open_sink(const QueueSinkConfig *config, const QueueSinkHost *host, char *error, size_t size)
{
	const char *path = setting(config->settings, config->setting_count, "path");
	const char *rotate_size = setting(config->settings, config->setting_count, "rotate_size");
	const char *sync = setting(config->settings, config->setting_count, "sync");
	FileSink   *sink;

	if (path == NULL || check(config->settings, config->setting_count, error, size) != 0)
	{
		if (path == NULL)
			snprintf(error, size, "option \"path\" is missing");
		return NULL;
	}
	sink = calloc(1, sizeof(FileSink));
	if (sink == NULL)
	{
		snprintf(error, size, "out of memory");
		return NULL;
	}
	sink->host = host;
	sink->file = -1;
	sink->sync = true;
	if (rotate_size)
		read_size(rotate_size, &sink->rotate_size);
	if (sync)
		read_bool(sync, &sink->sync);
	sink->room = config->max_in_flight;
	sink->path = strdup(path);
	sink->messages = calloc(sink->room, sizeof(QueueSinkMessage *));
	if (sink->path && sink->messages)
		return sink;
	close_sink(sink);
	snprintf(error, size, "out of memory");
	return NULL;
}

static int
send_messages(void *state, const QueueSinkMessage *const *messages, int count)
{
	FileSink   *sink = state;
	int			n = sink->room - sink->count;

	if (n > count)
		n = count;
	memcpy(sink->messages + sink->count, messages, n * sizeof(QueueSinkMessage *));
	sink->count += n;
	return n;
}

static void
wait_for(void *state, int *descriptor, short *events, int *timeout)
{
	FileSink   *sink = state;

	*descriptor = -1;
	*events = 0;
	*timeout = sink->count > 0 ? 0 : -1;
}

static void
complete_first(FileSink *sink, int n, QueueSinkOutcome outcome, int64_t pause, const char *detail)
{
	int			left = sink->count - n;

	/* A message is the host's again with the call. */
	for (int i = 0; i < n; i++)
		sink->host->complete(sink->host->context, sink->messages[i], outcome, pause, detail);
	memmove(sink->messages, sink->messages + n, left * sizeof(QueueSinkMessage *));
	sink->count = left;
}

static void
complain(char *detail, size_t size, const char *what)
{
	snprintf(detail, size, "could not %s the file: %s", what,
			 errno == EWOULDBLOCK ? "another relay writes to it" : strerror(errno));
}

/* Writes what was accepted. Nothing of a write that failed is left, so all of it is as if not sent. */
static void
progress(void *state)
{
	FileSink   *sink = state;
	char		detail[300];
	int			n = 0;

	if (sink->count == 0)
		return;
	if (!open_file(sink))
	{
		complain(detail, sizeof(detail), "open");
		complete_first(sink, sink->count, QUEUE_SINK_THROTTLED, PAUSE, detail);
		return;
	}
	sink->used = 0;
	sink->no_memory = false;
	while (n < sink->count && sink->used < WRITE_SIZE)
		put_line(sink, sink->messages[n++]);
	errno = ENOMEM;
	if (sink->no_memory || !write_lines(sink))
	{
		complain(detail, sizeof(detail), "write");
		complete_first(sink, sink->count, QUEUE_SINK_THROTTLED, PAUSE, detail);
		return;
	}
	complete_first(sink, n, QUEUE_SINK_DELIVERED, 0, "written");
	rotate(sink);
}

/* Whether it can be opened: not whether it can be locked, which the relay that is tried may have done. */
static void
probe(void *state)
{
	FileSink   *sink = state;
	int			file = open(sink->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0640);
	struct stat status;
	char		detail[300];
	bool		good = file >= 0 && fstat(file, &status) == 0 && S_ISREG(status.st_mode);

	if (good)
		snprintf(detail, sizeof(detail), "the file can be opened, it has %lld bytes", (long long) status.st_size);
	else if (file >= 0)
		snprintf(detail, sizeof(detail), "it is no regular file");
	else
		complain(detail, sizeof(detail), "open");
	if (file >= 0)
		close(file);
	sink->host->complete(sink->host->context, NULL, good ? QUEUE_SINK_DELIVERED : QUEUE_SINK_THROTTLED, 0, detail);
}

/* Nothing is in flight between two calls. */
static void
cancel(void *state)
{
	FileSink   *sink = state;

	complete_first(sink, sink->count, QUEUE_SINK_THROTTLED, 0, "cancelled");
}

static const QueueSink file_sink = {
	.magic = QUEUE_SINK_MAGIC,
	.version = QUEUE_SINK_VERSION,
	.name = "file",
	.abilities = QUEUE_SINK_ORDERED,
	.options = options,
	.check = check,
	.open = open_sink,
	.send = send_messages,
	.probe = probe,
	.wait_for = wait_for,
	.progress = progress,
	.cancel = cancel,
	.close = close_sink
};

const QueueSink *
queue_sink(void)
{
	return &file_sink;
}
