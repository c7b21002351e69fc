/*
 * harness.c
 *	  Runs a sink without a server: for tests, sanitizers and valgrind.
 *
 *	harness LIBRARY [--messages N] [--keys N] [--size BYTES] [--in-flight N]
 *		[--seconds N] [--ordered] [--trusted] [--probe] [--target TARGET]
 *		[--slowest MS] [NAME=VALUE]...
 *
 * Sends messages through the pump to the sink that LIBRARY has, with options
 * NAME=VALUE; what fails is sent again. At the end, or after so many seconds, it prints
 * what became of them, and the longest call of the sink (us). Status 0: all
 * were delivered, and with --slowest no call took longer.
 */
#include <dlfcn.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../src/pump.h"

#define MAX_SETTINGS 64

static struct
{
	long		messages;
	long		keys;
	long		size;
	int			in_flight;
	int			seconds;
	long		slowest;
	bool		ordered;
	bool		trusted;
	bool		probe;
	const char *target;
	QueueSinkSetting settings[MAX_SETTINGS];
	int			setting_count;
}			given = {1000, 10, 100, 100, 60, 0, false, false, false, "", {{NULL, NULL}}, 0};

static int64_t slowest_us;

static int64_t
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
}

static void
log_line(void *context, QueueSinkLevel level, const char *line)
{
	(void) context;
	fprintf(stderr, "log %d: %s\n", (int) level, line);
}

/* Arguments of the form --name value, --flag and NAME=VALUE. */
static void
read_arguments(int argc, char **argv)
{
	for (int i = 2; i < argc; i++)
	{
		char	   *equals = strchr(argv[i], '=');
		const char *value = i + 1 < argc ? argv[i + 1] : "0";

		if (strcmp(argv[i], "--ordered") == 0)
			given.ordered = true;
		else if (strcmp(argv[i], "--trusted") == 0)
			given.trusted = true;
		else if (strcmp(argv[i], "--probe") == 0)
			given.probe = true;
		else if (strncmp(argv[i], "--", 2) != 0 && equals && given.setting_count < MAX_SETTINGS)
		{
			*equals = '\0';
			given.settings[given.setting_count].name = argv[i];
			given.settings[given.setting_count++].value = equals + 1;
		}
		else
		{
			if (strcmp(argv[i], "--messages") == 0)
				given.messages = atol(value);
			else if (strcmp(argv[i], "--keys") == 0)
				given.keys = atol(value);
			else if (strcmp(argv[i], "--size") == 0)
				given.size = atol(value);
			else if (strcmp(argv[i], "--in-flight") == 0)
				given.in_flight = atoi(value);
			else if (strcmp(argv[i], "--seconds") == 0)
				given.seconds = atoi(value);
			else if (strcmp(argv[i], "--slowest") == 0)
				given.slowest = atol(value);
			else if (strcmp(argv[i], "--target") == 0)
				given.target = value;
			else
			{
				fprintf(stderr, "harness: unknown argument \"%s\"\n", argv[i]);
				exit(2);
			}
			i++;
		}
	}
}

static const QueueSink *
load(const char *path)
{
	void	   *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	QueueSinkFunction function = NULL;
	const QueueSink *sink;

	if (library)
		*(void **) &function = dlsym(library, "queue_sink");
	if (function == NULL)
	{
		fprintf(stderr, "harness: %s\n", dlerror());
		exit(2);
	}
	sink = function();
	if (sink->magic != QUEUE_SINK_MAGIC || sink->version != QUEUE_SINK_VERSION)
	{
		fprintf(stderr, "harness: the sink is of another version\n");
		exit(2);
	}
	return sink;
}

static QueuePumpMessage *
make_message(long number)
{
	static const QueueSinkHeader headers[] = {{"ce-type", "test"}, {"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}};
	static char *body = NULL;
	unsigned char receipt[QUEUE_PUMP_RECEIPT_LENGTH] = {0};
	QueueSinkMessage message = {.content_type = "application/json",.attempt = 1,.epoch = 1};
	QueuePumpMessage *made;
	char		id[32];
	char		key[32];

	if (body == NULL)
	{
		body = malloc(given.size + 64);
		memset(body, 'x', given.size + 64);
	}
	snprintf(id, sizeof(id), "%ld-5f", number);
	snprintf(key, sizeof(key), "key %ld", given.keys ? number % given.keys : 0);
	message.id = id;
	message.key = given.keys ? key : NULL;
	message.target = given.target;
	message.headers = headers;
	message.header_count = 2;
	message.body = body;
	message.body_length = snprintf(body, 64, "{\"number\":%ld,\"x\":\"", number);
	body[message.body_length] = 'x';
	message.body_length += given.size;
	memcpy(body + message.body_length, "\"}", 2);
	message.body_length += 2;
	memcpy(receipt, &number, sizeof(number));
	made = queue_pump_message_new(&message, receipt, message.key);
	if (made == NULL)
		abort();
	made->number = number;
	/* The next body is made of the same bytes. */
	memset(body, 'x', given.size + 64);
	return made;
}

static void
run_round(QueuePump *pump)
{
	int64_t		began = now_us();
	int64_t		took;

	queue_pump_run(pump, began / 1000);
	took = now_us() - began;
	if (took > slowest_us)
		slowest_us = took;
}

static void
wait_a_while(QueuePump *pump)
{
	struct pollfd wait = {.fd = -1};
	int			timeout;

	queue_pump_wait_for(pump, now_us() / 1000, &wait.fd, &wait.events, &timeout);
	if (timeout < 0 || timeout > 1000)
		timeout = 1000;
	poll(&wait, wait.fd >= 0 ? 1 : 0, timeout);
}

/* What failed goes in again: returns how many were settled for good. */
static long
settle(QueuePump *pump)
{
	QueuePumpMessage *message;
	long		settled = 0;

	while ((message = queue_pump_take_done(pump)) != NULL)
	{
		if (message->verdict == QUEUE_PUMP_FAILED || message->verdict == QUEUE_PUMP_RELEASED)
			queue_pump_add(pump, make_message(message->number));
		else
			settled++;
		queue_pump_message_free(message);
	}
	return settled;
}

static int
probe(QueuePump *pump, int64_t until)
{
	QueueSinkOutcome outcome;
	const char *detail;

	queue_pump_probe(pump);
	while (!queue_pump_probed(pump, &outcome, &detail) && now_us() < until)
	{
		wait_a_while(pump);
		run_round(pump);
	}
	if (!queue_pump_probed(pump, &outcome, &detail))
		detail = "no answer";
	printf("probe: outcome %d, %s; slowest call %lld us\n", (int) outcome, detail, (long long) slowest_us);
	queue_pump_free(pump);
	return outcome == QUEUE_SINK_DELIVERED ? 0 : 1;
}

static int
deliver(QueuePump *pump, int64_t until)
{
	long		made = 0;
	long		settled = 0;
	int64_t		began = now_us();
	QueuePumpCounts	counts;
	bool		slow;

	while (settled < given.messages && now_us() < until)
	{
		while (made < given.messages && queue_pump_room(pump) > 0)
			queue_pump_add(pump, make_message(++made));
		run_round(pump);
		settled += settle(pump);
		if (settled < given.messages && queue_pump_is_disabled(pump))
			break;
		if (settled < given.messages)
			wait_a_while(pump);
	}
	counts = queue_pump_counts(pump);
	printf("delivered %lld, failed %lld, ambiguous %lld, throttled %lld, rejected %lld, released %lld; "
		   "%.0f a second; slowest round %lld us; last error: %s\n",
		   (long long) counts.delivered, (long long) counts.failed, (long long) counts.ambiguous,
		   (long long) counts.throttled, (long long) counts.rejected, (long long) counts.released,
		   settled / ((now_us() - began) / 1e6), (long long) slowest_us, queue_pump_last_error(pump));
	slow = given.slowest > 0 && slowest_us > given.slowest * 1000;
	queue_pump_free(pump);
	return counts.delivered == given.messages && !slow ? 0 : 1;
}

int
main(int argc, char **argv)
{
	QueuePumpConfig	config = {.max_bytes = 64 * 1024 * 1024,.timeout = 10000,.breaker_failures = 5,
	.breaker_pause = 100,.breaker_pause_max = 1000};
	QueueSinkConfig sink_config = {.relay = "harness",.timeout = 10000};
	const QueueSink *sink;
	QueuePump	   *pump;
	char		error[512] = "";
	int64_t		until;

	if (argc < 2)
	{
		fprintf(stderr, "usage: harness LIBRARY [--option value]... [NAME=VALUE]...\n");
		return 2;
	}
	read_arguments(argc, argv);
	sink = load(argv[1]);
	if (sink->check(given.settings, given.setting_count, error, sizeof(error)) != 0)
	{
		printf("check: %s\n", error);
		return 1;
	}
	config.max_in_flight = sink_config.max_in_flight = given.in_flight;
	config.ordered = given.ordered;
	sink_config.settings = given.settings;
	sink_config.setting_count = given.setting_count;
	sink_config.flags = given.trusted ? QUEUE_SINK_TRUSTED : 0;
	pump = queue_pump_new(sink, &config, &sink_config, log_line, NULL, error, sizeof(error));
	if (pump == NULL)
	{
		printf("open: %s\n", error);
		return 1;
	}
	until = now_us() + given.seconds * INT64_C(1000000);
	return given.probe ? probe(pump, until) : deliver(pump, until);
}
