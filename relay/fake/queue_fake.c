/*
 * queue_fake.c
 *	  A sink for tests: it does with a message what its body says.
 *
 * The first of these words that is found in the body: crash, hang, retry,
 * ambiguous, throttle, permanent, disable. A body without any is delivered.
 * "hang" stays in flight until it is cancelled; "crash" ends the process as a
 * wild pointer does. The answer says what the secret option has to do with it:
 * nothing.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../sink.h"

#define ROOM 10000

static const QueueSinkOption options[] = {
	{"open", QUEUE_SINK_OPTION_SERVER, "well", "well, or badly: the sink cannot be opened"},
	{"secret", QUEUE_SINK_OPTION_SECRET, NULL, "never to be seen"},
	{"name", QUEUE_SINK_OPTION_USER, NULL, "may be seen"},
	{"power", QUEUE_SINK_OPTION_SUPERUSER, "none", "a superuser's"},
	{NULL, 0, NULL, NULL}
};

typedef struct FakeSink
{
	const QueueSinkHost *host;
	const QueueSinkMessage *held[ROOM];
	int			count;
} FakeSink;

static int
check(const QueueSinkSetting *settings, int count, char *error, size_t size)
{
	for (int i = 0; i < count; i++)
		if (strcmp(settings[i].name, "open") == 0 && strcmp(settings[i].value, "well") != 0 &&
			strcmp(settings[i].value, "badly") != 0)
		{
			snprintf(error, size, "option \"open\" must be well or badly");
			return -1;
		}
	return 0;
}

static void *
open_sink(const QueueSinkConfig *config, const QueueSinkHost *host, char *error, size_t size)
{
	FakeSink   *sink;

	for (int i = 0; i < config->setting_count; i++)
		if (strcmp(config->settings[i].name, "open") == 0 && strcmp(config->settings[i].value, "badly") == 0)
		{
			snprintf(error, size, "it was told to open badly");
			return NULL;
		}
	sink = calloc(1, sizeof(FakeSink));
	sink->host = host;
	return sink;
}

static int
send_messages(void *state, const QueueSinkMessage *const *messages, int count)
{
	FakeSink   *sink = state;
	int			n = 0;

	while (n < count && sink->count < ROOM)
		sink->held[sink->count++] = messages[n++];
	return n;
}

static int
says(const QueueSinkMessage *message, const char *word)
{
	return memmem(message->body, message->body_length, word, strlen(word)) != NULL;
}

static void
treat(FakeSink *sink, const QueueSinkMessage *message)
{
	static const struct
	{
		const char *word;
		QueueSinkOutcome outcome;
	}			outcomes[] = {
		{"retry", QUEUE_SINK_RETRY}, {"ambiguous", QUEUE_SINK_AMBIGUOUS}, {"throttle", QUEUE_SINK_THROTTLED},
		{"permanent", QUEUE_SINK_PERMANENT}, {"disable", QUEUE_SINK_DISABLE}
	};

	if (says(message, "crash"))
		*(volatile int *) NULL = 0;
	for (size_t i = 0; i < sizeof(outcomes) / sizeof(outcomes[0]); i++)
		if (says(message, outcomes[i].word))
		{
			sink->host->complete(sink->host->context, message, outcomes[i].outcome, 0, outcomes[i].word);
			return;
		}
	sink->host->complete(sink->host->context, message, QUEUE_SINK_DELIVERED, 0, "delivered");
}

static void
progress(void *state)
{
	FakeSink   *sink = state;
	int			kept = 0;
	int			count = sink->count;

	for (int i = 0; i < count; i++)
		if (says(sink->held[i], "hang"))
			sink->held[kept++] = sink->held[i];
		else
			treat(sink, sink->held[i]);
	sink->count = kept;
}

static void
probe(void *state)
{
	FakeSink   *sink = state;

	sink->host->complete(sink->host->context, NULL, QUEUE_SINK_DELIVERED, 0, "there is nothing to try");
}

static void
wait_for(void *state, int *descriptor, short *events, int *timeout)
{
	FakeSink   *sink = state;

	*descriptor = -1;
	*events = 0;
	*timeout = -1;
	for (int i = 0; i < sink->count; i++)
		if (!says(sink->held[i], "hang"))
			*timeout = 0;
}

static void
cancel(void *state)
{
	FakeSink   *sink = state;
	int			count = sink->count;

	sink->count = 0;
	for (int i = 0; i < count; i++)
		sink->host->complete(sink->host->context, sink->held[i], QUEUE_SINK_AMBIGUOUS, 0, "cancelled");
}

static const QueueSink fake_sink = {
	.magic = QUEUE_SINK_MAGIC,
	.version = QUEUE_SINK_VERSION,
	.name = "fake",
	.options = options,
	.check = check,
	.open = open_sink,
	.send = send_messages,
	.probe = probe,
	.wait_for = wait_for,
	.progress = progress,
	.cancel = cancel,
	.close = free
};

const QueueSink *
queue_sink(void)
{
	return &fake_sink;
}
