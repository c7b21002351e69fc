/*
 * queue_postgres.c
 *	  The sink of relays into another PostgreSQL server.
 *
 * A message becomes one of a queue there, with its id as dedup_key, or the
 * arguments of a call of a function there. With libpq only: nothing in here is
 * the server's in whose process it may run. See delivery.c for what is promised.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conninfo.h"
#include "delivery.h"

static void
close_sink(void *sink)
{
	PostgresDelivery *delivery = sink;

	postgres_session_close(&delivery->session);
	postgres_statement_free(&delivery->statement);
	postgres_options_free(&delivery->options);
	free((char *) delivery->config.relay);
	free(delivery->entries);
	free(delivery);
}

/* Copies what the host said and outlives open(). False: no memory. */
static bool
copy_config(PostgresDelivery *delivery, const QueueSinkConfig *config)
{
	delivery->config = *config;
	delivery->config.settings = NULL;
	delivery->config.setting_count = 0;
	if (delivery->config.max_in_flight < 1)
		delivery->config.max_in_flight = 1;
	delivery->config.relay = strdup(config->relay ? config->relay : "");
	delivery->entries = calloc((size_t) delivery->config.max_in_flight, sizeof(*delivery->entries));
	delivery->session.options = &delivery->options;
	delivery->session.config = &delivery->config;
	return delivery->config.relay != NULL && delivery->entries != NULL &&
		postgres_statement_init(&delivery->statement, &delivery->options, config->timeout);
}

static void *
open_sink(const QueueSinkConfig *config, const QueueSinkHost *host, char *error, size_t size)
{
	PostgresDelivery *delivery = calloc(1, sizeof(*delivery));

	if (delivery == NULL)
	{
		snprintf(error, size, "out of memory");
		return NULL;
	}
	delivery->host = *host;
	if (postgres_options_read(&delivery->options, config, error, size) != 0)
	{
		free(delivery);
		return NULL;
	}
	if (!copy_config(delivery, config))
		snprintf(error, size, "out of memory");
	else if (postgres_conninfo_check(&delivery->options, config->flags, error, size) == 0)
		return delivery;
	close_sink(delivery);
	return NULL;
}

static int
send_messages(void *sink, const QueueSinkMessage *const *messages, int count)
{
	return postgres_delivery_take(sink, messages, count);
}

static void
probe(void *sink)
{
	postgres_delivery_probe(sink);
}

static void
wait_for(void *sink, int *descriptor, short *events, int *timeout)
{
	const PostgresDelivery *delivery = sink;

	postgres_session_wait_for(&delivery->session, descriptor, events);
	if (delivery->work != WORK_NONE && delivery->unflushed)
		*events |= POLLOUT;
	*timeout = postgres_delivery_timeout(delivery);
}

static void
progress(void *sink)
{
	postgres_delivery_progress(sink);
}

static void
cancel(void *sink)
{
	postgres_delivery_cancel(sink);
}

static const QueueSink postgres_sink = {
	.magic = QUEUE_SINK_MAGIC,
	.version = QUEUE_SINK_VERSION,
	.name = "postgres",
	.abilities = QUEUE_SINK_ORDERED,
	.options = postgres_option_table,
	.check = postgres_options_check,
	.open = open_sink,
	.send = send_messages,
	.probe = probe,
	.wait_for = wait_for,
	.progress = progress,
	.cancel = cancel,
	.close = close_sink,
};

const QueueSink *
queue_sink(void)
{
	return &postgres_sink;
}
