/*
 * drive.c
 *	  A small host for the sink: hands over messages and prints what became of them.
 *
 *	drive LIBRARY [name=value]... [--trusted] [--timeout MS] [--window N]
 *		[--count N | --file F] [--keys N] [--size BYTES] [--resend] [--quiet] [--probe]
 *		[--check] [--hole | --full] [--seconds S] [--cancel MS] [--idle MS] [--linger]
 *
 * A line for each completion, "id OUTCOME pause detail", and one in the end:
 * counts, the longest call in ms, and "order" with what broke the promises of
 * sink.h. A line of a file is id, key, target, content type, body and headers,
 * with tabs between; headers are name=value with commas between.
 *
 * --hole sets the port to one that is silent, --full to one that does not even
 * accept. Of the names ending in ".test", "hang" takes 3 s to find no address, and
 * "two" has one that refuses and 127.0.0.1. The threads that ask for names are
 * counted, and their signal masks judged; --linger waits in the end for those
 * that hang.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../../sink.h"

#define MAX_KEYS 1000

typedef struct Item
{
	QueueSinkMessage message;
	int			seq;
	int			key;
	enum
	{
		ITEM_WAITING,
		ITEM_OFFERED,
		ITEM_DONE
	}			state;
	long		handover;		/* when it was handed over, counted */
	int			delivered;
} Item;

static Item *items;
static int	item_count;
static int	first_open;			/* all before are done */
static int	in_flight;
static long handovers;
static long failed_from[MAX_KEYS],
			failed_to[MAX_KEYS];	/* handovers of this range must not be
									 * delivered */
static int	outcomes[6];
static int	broken_order;
static bool resend,
			quiet,
			probed;
static double paused_until;
static int	lookups,
			most_lookups,
			open_masks;

static const char *const names[] = {"DELIVERED", "RETRY", "AMBIGUOUS", "THROTTLED", "PERMANENT", "DISABLE"};

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	int			(*real) (const char *, const char *, const struct addrinfo *, struct addrinfo **) =
	(int (*) (const char *, const char *, const struct addrinfo *, struct addrinfo **)) dlsym(RTLD_NEXT, "getaddrinfo");
	sigset_t	mask;
	int			running;

	if (hints && hints->ai_flags & AI_NUMERICHOST)
		return real(node, service, hints, result);
	running = __atomic_add_fetch(&lookups, 1, __ATOMIC_SEQ_CST);
	if (running > most_lookups)
		most_lookups = running;
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	if (!sigismember(&mask, SIGTERM) || !sigismember(&mask, SIGUSR1))
		open_masks++;
	running = EAI_AGAIN;
	if (node && strcmp(node, "hang.test") == 0)
		sleep(3);
	else if (node && strcmp(node, "two.test") == 0)
	{
		struct addrinfo *second;

		running = real("127.7.7.7", service, hints, result);
		if (running == 0 && real("127.0.0.1", service, hints, &second) == 0)
			(*result)->ai_next = second;
	}
	else
		running = real(node, service, hints, result);
	__atomic_sub_fetch(&lookups, 1, __ATOMIC_SEQ_CST);
	return running;
}

static void
complete(void *context, const QueueSinkMessage *message, QueueSinkOutcome outcome, int64_t pause, const char *detail)
{
	Item	   *item = (Item *) message;

	(void) context;
	if (!quiet || message == NULL)
		printf("%s %s %lld %s\n", message ? message->id : "probe", names[outcome], (long long) pause, detail ? detail : "-");
	if (message == NULL)
	{
		probed = true;
		return;
	}
	outcomes[outcome]++;
	in_flight--;
	if (item->state != ITEM_OFFERED)
		broken_order++;
	item->state = ITEM_DONE;
	if (outcome == QUEUE_SINK_DELIVERED)
	{
		item->delivered++;
		if (item->handover > failed_from[item->key] && item->handover <= failed_to[item->key])
			broken_order++;
		return;
	}
	if (failed_to[item->key] < item->handover || failed_from[item->key] > item->handover)
		failed_from[item->key] = item->handover;
	failed_to[item->key] = handovers;
	if (pause > 2000)
		pause = 2000;
	if (now() + pause > paused_until)
		paused_until = now() + (pause > 0 ? pause : outcome == QUEUE_SINK_THROTTLED ? 0 : 50);
	if (resend && outcome != QUEUE_SINK_PERMANENT)
	{
		item->state = ITEM_WAITING;
		if (item->seq < first_open)
			first_open = item->seq;
	}
}

static void
write_log(void *context, QueueSinkLevel level, const char *line)
{
	(void) context;
	printf("log %d %s\n", (int) level, line);
}

static void
add_item(char *id, char *key, char *target, char *type, char *body, size_t length)
{
	Item	   *item;

	items = realloc(items, sizeof(*items) * (size_t) (item_count + 1));
	item = &items[item_count];
	memset(item, 0, sizeof(*item));
	item->message = (QueueSinkMessage)
	{
		id, key, target, type, body, length, NULL, 0, 1, 1
	};
	item->seq = item_count++;
	item->key = key ? atoi(key + strcspn(key, "0123456789")) % MAX_KEYS : 0;
}

static void
make_items(int n, int of_keys, int bytes)
{
	for (int i = 0; i < n; i++)
	{
		char	   *id = malloc(32),
				   *key = of_keys ? malloc(32) : NULL,
				   *body = malloc((size_t) bytes + 64);
		int			length;

		snprintf(id, 32, "m%06d", i);
		if (key)
			snprintf(key, 32, "k%d", i % of_keys);
		length = sprintf(body, "{\"n\": %d, \"x\": \"%*s\"}", i, bytes, "");
		add_item(id, key, "", i % 2 ? "application/json" : "application/octet-stream", body, (size_t) length);
	}
}

static void
read_items(const char *path)
{
	char		line[65536];
	FILE	   *file = fopen(path, "r");

	while (file && fgets(line, sizeof(line), file))
	{
		char	   *fields[6],
				   *rest = strdup(line),
				   *pair;
		QueueSinkHeader *headers = calloc(16, sizeof(*headers));
		Item	   *item;

		rest[strcspn(rest, "\n")] = '\0';
		for (int i = 0; i < 6; i++)
			fields[i] = rest ? strsep(&rest, "\t") : "";
		add_item(fields[0], *fields[1] ? fields[1] : NULL, fields[2], fields[3], fields[4], strlen(fields[4]));
		item = &items[item_count - 1];
		item->message.headers = headers;
		for (rest = fields[5]; *fields[5] && (pair = strsep(&rest, ",")) != NULL; item->message.header_count++)
		{
			headers[item->message.header_count].name = strsep(&pair, "=");
			headers[item->message.header_count].value = pair ? pair : "";
		}
	}
	if (file)
		fclose(file);
}

/* A port that accepts and says nothing, or, "full", does not accept. */
static int
dig_hole(bool backlog_full)
{
	struct sockaddr_in address = {.sin_family = AF_INET,.sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t	length = sizeof(address);
	int			hole_fd = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(hole_fd, (struct sockaddr *) &address, length) != 0 || listen(hole_fd, backlog_full ? 0 : 16) != 0 ||
		getsockname(hole_fd, (struct sockaddr *) &address, &length) != 0)
		exit(2);
	for (int i = 0; backlog_full && i < 4; i++)
	{
		int			filler = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

		if (connect(filler, (struct sockaddr *) &address, length) != 0 && errno != EINPROGRESS)
			exit(2);
	}
	return ntohs(address.sin_port);
}

static double longest;
static const char *longest_call = "none";

#define TIMED(name, call) \
	do { \
		double begun_ = now(); \
		call; \
		if (now() - begun_ > longest) \
			longest = now() - begun_, longest_call = name; \
	} while (0)

static bool
all_done(void)
{
	while (first_open < item_count && items[first_open].state == ITEM_DONE)
		first_open++;
	return first_open == item_count;
}

static void
hand_over(const QueueSink *sink, void *handle, int window)
{
	static const QueueSinkMessage *offered[10000];
	int			n = 0,
				taken = 0;

	for (int i = first_open; i < item_count && n < window - in_flight; i++)
		if (items[i].state == ITEM_WAITING)
			offered[n++] = &items[i].message;
	if (n == 0 || now() < paused_until)
		return;
	/* It may be said in send() already what became of them. */
	for (int i = 0; i < n; i++)
	{
		Item	   *item = (Item *) offered[i];

		item->state = ITEM_OFFERED;
		item->handover = ++handovers;
		item->message.attempt++;
		in_flight++;
	}
	TIMED("send", taken = sink->send(handle, offered, n));
	for (int i = taken; i < n; i++)
	{
		Item	   *item = (Item *) offered[i];

		item->state = ITEM_WAITING;
		item->message.attempt--;
		in_flight--;
	}
}

static void
turn(const QueueSink *sink, void *handle)
{
	struct pollfd fd;
	int			timeout = -1;

	TIMED("wait_for", sink->wait_for(handle, &fd.fd, &fd.events, &timeout));
	if (timeout < 0 || timeout > 50)
		timeout = 50;
	poll(&fd, fd.fd >= 0 ? 1 : 0, timeout);
	TIMED("progress", sink->progress(handle));
}

static QueueSinkSetting settings[64];
static QueueSinkConfig config = {settings, 0, 0, "driven", 1000, 10000};
static const char *file;
static int	count,
			keys,
			size,
			idle,
			cancel_after = -1;
static double seconds = 60;
static bool probe,
			check,
			linger,
			hole,
			full;

static void
add_setting(const char *name, const char *value)
{
	settings[config.setting_count++] = (QueueSinkSetting)
	{
		name, value
	};
}

static bool
read_switch(const char *argument)
{
	static const struct
	{
		const char *name;
		bool	   *value;
	}			switches[] = {
		{"--resend", &resend}, {"--quiet", &quiet}, {"--probe", &probe}, {"--check", &check},
		{"--linger", &linger}, {"--hole", &hole}, {"--full", &full}
	};

	if (strcmp(argument, "--trusted") == 0)
	{
		config.flags |= QUEUE_SINK_TRUSTED;
		return true;
	}
	for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++)
		if (strcmp(argument, switches[i].name) == 0)
			return *switches[i].value = true;
	return false;
}

static bool
read_number(const char *argument, const char *value)
{
	static const struct
	{
		const char *name;
		int		   *value;
	}			numbers[] = {
		{"--window", &config.max_in_flight}, {"--count", &count}, {"--keys", &keys}, {"--size", &size},
		{"--cancel", &cancel_after}, {"--idle", &idle}
	};

	if (strcmp(argument, "--file") == 0)
		file = value;
	else if (strcmp(argument, "--timeout") == 0)
		config.timeout = atoi(value);
	else if (strcmp(argument, "--seconds") == 0)
		seconds = atof(value);
	else
	{
		for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
			if (strcmp(argument, numbers[i].name) == 0)
			{
				*numbers[i].value = atoi(value);
				return true;
			}
		return false;
	}
	return true;
}

static void
read_arguments(int argc, char **argv)
{
	static char port[8];

	for (int i = 2; i < argc; i++)
	{
		char	   *value = strchr(argv[i], '=');

		if (read_switch(argv[i]))
			continue;
		if (i + 1 < argc && read_number(argv[i], argv[i + 1]))
		{
			i++;
			continue;
		}
		if (value == NULL)
		{
			printf("what is %s?\n", argv[i]);
			exit(2);
		}
		*value = '\0';
		add_setting(argv[i], value + 1);
	}
	if (hole || full)
	{
		snprintf(port, sizeof(port), "%d", dig_hole(full));
		add_setting("port", port);
	}
}

/* Until all messages are done, or time is over. */
static void
drive(const QueueSink *sink, void *handle)
{
	double		begun = now();

	if (probe)
		TIMED("probe", sink->probe(handle));
	while ((!all_done() || probe != probed) && now() < begun + seconds * 1000)
	{
		hand_over(sink, handle, config.max_in_flight);
		turn(sink, handle);
		if (cancel_after >= 0 && now() - begun >= cancel_after)
		{
			cancel_after = -1;
			TIMED("cancel", sink->cancel(handle));
		}
		if (idle > 0 && first_open * 2 > item_count)
		{
			double		until = now() + idle;

			for (idle = 0; now() < until;)
				turn(sink, handle);
		}
	}
	seconds = (now() - begun) / 1000;
	if (in_flight > 0 || (probe && !probed))
		TIMED("cancel", sink->cancel(handle));
	TIMED("close", sink->close(handle));
}

static void
report(void)
{
	int			left = 0,
				twice = 0;

	for (int i = 0; i < item_count; i++)
	{
		left += items[i].delivered == 0;
		twice += items[i].delivered > 1;
	}
	printf("delivered=%d retry=%d ambiguous=%d throttled=%d permanent=%d disable=%d left=%d twice=%d order=%d "
		   "in_flight=%d lookups=%d masks=%d seconds=%.3f longest=%.0f in %s\n",
		   outcomes[0], outcomes[1], outcomes[2], outcomes[3], outcomes[4], outcomes[5], left, twice, broken_order,
		   in_flight, most_lookups, open_masks, seconds, longest, longest_call);
}

int
main(int argc, char **argv)
{
	QueueSinkHost host = {QUEUE_SINK_VERSION, NULL, complete, write_log};
	void	   *library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
	const QueueSink *sink;
	void	   *handle;
	char		error[256] = "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (library == NULL)
	{
		printf("%s\n", argc > 1 ? dlerror() : "which library?");
		return 2;
	}
	sink = ((QueueSinkFunction) dlsym(library, "queue_sink")) ();
	read_arguments(argc, argv);
	if (check)
	{
		int			result = sink->check(settings, config.setting_count, error, sizeof(error));

		printf("check %d %s\n", result, error);
		return result != 0;
	}
	if (file)
		read_items(file);
	else
		make_items(count, keys, size);
	handle = sink->open(&config, &host, error, sizeof(error));
	if (handle == NULL)
	{
		printf("open failed: %s\n", error);
		return 1;
	}
	drive(sink, handle);
	while (linger && __atomic_load_n(&lookups, __ATOMIC_SEQ_CST) > 0)
		usleep(10000);
	if (linger)
		usleep(300000);
	report();
	return 0;
}
