/*
 * drive.c
 *	  Runs a sink by commands on standard input, for the tests.
 *
 *	drive LIBRARY
 *
 * A line is a command, its words are percent-encoded. What happens is printed, a
 * line each, at once. While it waits for commands the sink goes on.
 *
 *	option NAME VALUE			for the next check or open
 *	check						"check ok", or what is wrong
 *	open IN_FLIGHT TIMEOUT
 *	header NAME VALUE			for the next message
 *	message ID [key=] [target=] [type=] [body=] [attempt=] [epoch=]
 *	bulk COUNT SIZE				messages 1, 2, ...; printed is only how many had which outcome
 *	probe
 *	wait						no command is read until all are complete: "idle"
 *	cancel, close
 *	state						descriptors, other threads that take signals, longest call (us), other threads
 */
#include <dirent.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../../sink.h"

#define MOST 64

typedef struct Item
{
	QueueSinkMessage message;
	QueueSinkHeader headers[MOST];
	int			state;			/* 0 made, 1 accepted or offered, 2 complete */
	bool		quiet;
	struct Item *next;
} Item;

static const char *const outcomes[] = {"DELIVERED", "RETRY", "AMBIGUOUS", "THROTTLED", "PERMANENT", "DISABLE"};

static const QueueSink *sink;
static void *opened;
static QueueSinkSetting settings[MOST];
static int	setting_count;
static QueueSinkHeader headers[MOST];
static int	header_count;
static Item *first;				/* to be offered */
static Item **last = &first;
static int	outstanding;
static int	in_flight;
static bool probing;
static bool waiting;
static int64_t counts[6];
static int64_t longest;

static void
die(const char *what)
{
	printf("error %s\n", what);
	exit(2);
}

static int64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void
called(int64_t begin)
{
	int64_t		took = now() - begin;

	if (took > longest)
		longest = took;
}

static void
complete(void *context, const QueueSinkMessage * message, QueueSinkOutcome outcome, int64_t pause, const char *detail)
{
	Item	   *item = (Item *) message;

	(void) context;
	if (!message)
	{
		if (!probing)
			die("probe completed twice");
		probing = false;
		printf("probe %s %" PRId64 " %s\n", outcomes[outcome], pause, detail ? detail : "");
		return;
	}
	if (item->state != 1)
		die("completed twice");
	item->state = 2;
	outstanding--;
	in_flight--;
	counts[outcome]++;
	if (!item->quiet)
		printf("complete %s %s %" PRId64 " %s\n", message->id, outcomes[outcome], pause, detail ? detail : "");
	free((char *) message->id);
	free((char *) message->key);
	free((char *) message->target);
	free((char *) message->content_type);
	free((void *) message->body);
	for (int i = 0; i < message->header_count; i++)
	{
		free((char *) item->headers[i].name);
		free((char *) item->headers[i].value);
	}
	free(item);
}

static void
note(void *context, QueueSinkLevel level, const char *line)
{
	(void) context;
	printf("log %d %s\n", level, line);
}

static const QueueSinkHost host = {QUEUE_SINK_VERSION, NULL, complete, note};

static int
digit(char c)
{
	return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

/* Its length is that of the text; a zero byte ends it for strings. */
static char *
decode(const char *word, size_t * length)
{
	char	   *text = malloc(strlen(word) + 1);
	size_t		used = 0;

	for (; *word; word++)
	{
		if (*word == '%')
		{
			text[		used++] = digit(word[1]) * 16 + digit(word[2]);

			word += 2;
		}
		else
			text[		used++] = *word;
	}
	text[		used] = 0;

	if (length)
		*length = used;
	return text;
}

static Item *
make(char *id)
{
	Item	   *item = calloc(1, sizeof(Item));

	item->message.id = id;
	item->message.target = strdup("");
	item->message.content_type = strdup("application/json");
	item->message.headers = item->headers;
	item->message.attempt = 1;
	item->message.epoch = 1;
	return item;
}

static void
offer(Item *item)
{
	*last = item;
	last = &item->next;
	outstanding++;
}

static void
message(char **words, int count)
{
	Item	   *item = make(decode(words[1], NULL));
	QueueSinkMessage *m = &item->message;

	for (int i = 2; i < count; i++)
	{
		char	   *value = strchr(words[i], '=') + 1;

		if (strncmp(words[i], "key=", 4) == 0)
			m->key = decode(value, NULL);
		else if (strncmp(words[i], "target=", 7) == 0)
		{
			free((char *) m->target);
			m->target = decode(value, NULL);
		}
		else if (strncmp(words[i], "type=", 5) == 0)
		{
			free((char *) m->content_type);
			m->content_type = decode(value, NULL);
		}
		else if (strncmp(words[i], "body=", 5) == 0)
			m->body = decode(value, &m->body_length);
		else if (strncmp(words[i], "attempt=", 8) == 0)
			m->attempt = atoi(value);
		else if (strncmp(words[i], "epoch=", 6) == 0)
			m->epoch = atoll(value);
	}
	memcpy(item->headers, headers, sizeof(headers));
	m->header_count = header_count;
	header_count = 0;
	offer(item);
}

static void
bulk(int count, size_t size)
{
	for (int i = 1; i <= count; i++)
	{
		char		id[16];
		Item	   *item;

		snprintf(id, sizeof(id), "%d", i);
		item = make(strdup(id));
		item->message.body = memset(malloc(size + 1), 'x', size + 1);
		item->message.body_length = size;
		item->quiet = true;
		offer(item);
	}
}

static void
hand_over(void)
{
	while (first && opened)
	{
		const		QueueSinkMessage *batch[16];
		Item	   *item = first;
		int			count = 0;
		int			accepted;
		int64_t		begin = now();

		for (; item && count < 16; item = item->next)
		{
			item->state = 1;
			batch[count++] = &item->message;
		}
		/* Items may be gone after the call. */
		for (int i = 0; i < count; i++)
			first = first->next;
		in_flight += count;
		accepted = sink->send(opened, batch, count);
		called(begin);
		in_flight -= count - accepted;
		for (int i = count; i-- > accepted;)
		{
			Item	   *back = (Item *) batch[i];

			back->state = 0;
			back->next = first;
			first = back;
		}
		if (!first)
			last = &first;
		if (accepted < count)
			break;
	}
}

static int
count_entries(const char *path)
{
	DIR		   *directory = opendir(path);
	int			count = -3;		/* ".", "..", and the one that reads, or is
								 * this thread */

	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

/* Threads other than this one in which a signal that can be blocked is not. */
static int
open_threads(void)
{
	DIR		   *directory = opendir("/proc/self/task");
	struct dirent *entry;
	int			count = 0;

	while ((entry = readdir(directory)))
	{
		char		path[300];
		char		line[200];
		unsigned long long mask = 0;
		FILE	   *file;

		snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
		if (entry->d_name[0] == '.' || atoi(entry->d_name) == getpid() || !(file = fopen(path, "r")))
			continue;
		while (fgets(line, sizeof(line), file))
			sscanf(line, "SigBlk: %llx", &mask);
		fclose(file);
		/* Of the first 31, all but SIGKILL and SIGSTOP. */
		count += (mask & 0x7ffbfeffULL) != 0x7ffbfeffULL;
	}
	closedir(directory);
	return count;
}

static void
open_sink(char **words)
{
	QueueSinkConfig config = {settings, setting_count, 0, "test", atoi(words[1]), atoll(words[2])};
	char		error[500] = "";
	int64_t		begin = now();

	opened = sink->open(&config, &host, error, sizeof(error));
	called(begin);
	longest = 0;
	printf(opened ? "open ok\n" : "open %s\n", error);
}

static void
obey(char *line)
{
	char	   *words[MOST];
	int			count = 0;
	char		error[500] = "";
	int64_t		begin;

	for (char *word = strtok(line, " \n"); word && count < MOST; word = strtok(NULL, " \n"))
		words[count++] = word;
	if (count == 0)
		return;
	begin = now();
	if (strcmp(words[0], "option") == 0)
	{
		settings[setting_count].name = decode(words[1], NULL);
		settings[setting_count++].value = decode(count > 2 ? words[2] : "", NULL);
	}
	else if (strcmp(words[0], "check") == 0)
		printf("check %s\n", sink->check(settings, setting_count, error, sizeof(error)) == 0 ? "ok" : error);
	else if (strcmp(words[0], "open") == 0)
		open_sink(words);
	else if (strcmp(words[0], "header") == 0)
	{
		headers[header_count].name = decode(words[1], NULL);
		headers[header_count++].value = decode(count > 2 ? words[2] : "", NULL);
	}
	else if (strcmp(words[0], "message") == 0)
		message(words, count);
	else if (strcmp(words[0], "bulk") == 0)
		bulk(atoi(words[1]), atol(words[2]));
	else if (strcmp(words[0], "probe") == 0)
	{
		probing = true;
		sink->probe(opened);
		called(begin);
	}
	else if (strcmp(words[0], "wait") == 0)
		waiting = true;
	else if (strcmp(words[0], "cancel") == 0)
	{
		sink->cancel(opened);
		called(begin);
		if (in_flight > 0 || probing)
			die("in flight after cancel");
	}
	else if (strcmp(words[0], "close") == 0)
	{
		sink->close(opened);
		called(begin);
		opened = NULL;
		printf("closed\n");
	}
	else if (strcmp(words[0], "state") == 0)
		printf("state %d %d %" PRId64 " %d\n", count_entries("/proc/self/fd"), open_threads(), longest,
			   count_entries("/proc/self/task"));
	else
		die(words[0]);
}

/* What was read and not yet obeyed. */
static char *text;
static size_t used;
static size_t size;

/* False at the end. */
static bool
read_text(void)
{
	ssize_t		got;

	if (size - used < 65536)
		text = realloc(text, size += 1 << 20);

	got = read(0, text +used, size - used);
	if (got > 0)
		used += got;
	return got > 0;
}

static void
obey_text(void)
{
	char	   *end;

	while (!waiting && used > 0 && (end = memchr(text, '\n', used)) != NULL)
	{
		char	   *line = strndup(text, end - text);

		used -= end + 1 - text;

		memmove(text, end + 1, used);
		obey(line);
		free(line);
	}
}

static void
turn(void)
{
	struct pollfd polled[2] = {{.fd = -1}, {.fd = waiting ? -1 : 0,.events = POLLIN}};
	int			timeout = -1;
	int64_t		begin;

	if (opened)
		sink->wait_for(opened, &polled[0].fd, &polled[0].events, &timeout);
	poll(polled, 2, waiting && outstanding == 0 && !probing ? 0 : timeout);
	if (opened)
	{
		begin = now();
		sink->progress(opened);
		called(begin);
		hand_over();
	}
	if (waiting && outstanding == 0 && !probing)
	{
		waiting = false;
		printf("idle %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "\n",
			   counts[0], counts[1], counts[2], counts[3], counts[4], counts[5]);
		memset(counts, 0, sizeof(counts));
	}
}

int
main(int argc, char **argv)
{
	void	   *library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
	QueueSinkFunction function;
	bool		more = true;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!library)
		die(argc > 1 ? dlerror() : "no library");
	function = (QueueSinkFunction) dlsym(library, "queue_sink");
	sink = function ? function() : NULL;
	if (!sink || sink->magic != QUEUE_SINK_MAGIC || sink->version != QUEUE_SINK_VERSION)
		die("no sink");
	while (more || waiting)
	{
		struct pollfd input = {.fd = 0,.events = POLLIN};

		turn();
		if (!waiting && poll(&input, 1, 0) > 0)
			more = read_text();
		obey_text();
		if (opened)
			hand_over();
	}
	if (opened)
	{
		sink->cancel(opened);
		sink->close(opened);
	}
	free(text);
	for (int i = 0; i < setting_count; i++)
	{
		free((char *) settings[i].name);
		free((char *) settings[i].value);
	}
	return 0;
}
