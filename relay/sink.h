/*
 * sink.h
 *	  What a sink is: a library that delivers messages to one kind of
 *	  destination, for the relays of the extension "queue".
 *
 * The whole of what a sink and its host know of each other. A host is a relay
 * worker of the server, the program queue-relay, or the harness of the tests;
 * the same library runs in all three, so nothing here, and nothing in a sink,
 * is PostgreSQL's. README.md beside this file shows how one is written.
 *
 * A library exports one function, queue_sink(), that returns a table. What
 * every function of the table can rely on, and what it owes:
 *
 * - One thread calls, and never from inside another call of the same sink.
 * - No call waits: not for a connection, a name, an answer or a lock. What
 *   cannot be done at once is done later, in progress(). Threads of a client
 *   library must run with all signals blocked.
 * - Strings end with a zero, are UTF-8, and belong to the caller; a sink copies
 *   what it needs after the call, but for messages: see send().
 * - Nothing is written to the standard streams; a signal handler is never set,
 *   exit() never called, a process never forked.
 * - What a sink tells the host (errors, details, log lines) has no secret in
 *   it: no value of an option with QUEUE_SINK_OPTION_SECRET, and no part of one.
 */
#ifndef QUEUE_SINK_H
#define QUEUE_SINK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C"
{
#endif

#define QUEUE_SINK_MAGIC	0x51534e4bU	/* "QSNK" */
#define QUEUE_SINK_VERSION	1U

/* ---- options ---- */

/* Where an option belongs: on the foreign server, or in the user mapping. */
#define QUEUE_SINK_OPTION_SERVER	0x0000U
#define QUEUE_SINK_OPTION_USER		0x0001U
/* Never shown, logged or dumped for others; only in a user mapping. */
#define QUEUE_SINK_OPTION_SECRET	0x0003U
/* A server, or user mapping, without it is refused. */
#define QUEUE_SINK_OPTION_REQUIRED	0x0004U
/* Only a superuser may set it to anything but its default. */
#define QUEUE_SINK_OPTION_SUPERUSER 0x0008U
/* It names a file that the host's operating system user opens: the one who
 * sets it needs the role pg_write_server_files or pg_read_server_files. */
#define QUEUE_SINK_OPTION_WRITES	0x0010U
#define QUEUE_SINK_OPTION_READS		0x0020U

typedef struct QueueSinkOption
{
	const char *name;
	uint32_t	flags;
	const char *missing;		/* what counts when it is not given; NULL: nothing */
	const char *meaning;		/* with its unit */
} QueueSinkOption;

/* An option that was given. */
typedef struct QueueSinkSetting
{
	const char *name;
	const char *value;
} QueueSinkSetting;

/* ---- messages ---- */

typedef struct QueueSinkHeader
{
	const char *name;
	const char *value;
} QueueSinkHeader;

typedef struct QueueSinkMessage
{
	const char *id;				/* the same at every attempt; no blank, no dot */
	const char *key;			/* messages of a key are delivered in order; NULL: of none */
	const char *target;			/* topic, path, queue ..., as the sink defines; "": the destination's own */
	const char *content_type;
	const void *body;
	size_t		body_length;
	const QueueSinkHeader *headers; /* names are in lower case, and given once */
	int			header_count;
	int			attempt;		/* the first is 1 */
	int64_t		epoch;			/* of the relay: grows with each runner of it */
} QueueSinkMessage;

/* What became of a message. There are no others. */
typedef enum QueueSinkOutcome
{
	/* The destination has confirmed it. */
	QUEUE_SINK_DELIVERED,
	/* It certainly did not take it, and may later. Counts as a failure of the message. */
	QUEUE_SINK_RETRY,
	/* It may have taken it or not. The same, but repeating it may make a duplicate. */
	QUEUE_SINK_AMBIGUOUS,
	/* It takes nothing now: busy, away, or wants a pause. No fault of the
	 * message, which certainly was not taken. */
	QUEUE_SINK_THROTTLED,
	/* It will never take this message. */
	QUEUE_SINK_PERMANENT,
	/* It takes no messages any more, until somebody changes something. */
	QUEUE_SINK_DISABLE,
} QueueSinkOutcome;

typedef enum QueueSinkLevel
{
	QUEUE_SINK_DEBUG,
	QUEUE_SINK_INFO,
	QUEUE_SINK_WARNING,
} QueueSinkLevel;

/* ---- the host ---- */

typedef struct QueueSinkHost
{
	uint32_t	version;		/* the host's QUEUE_SINK_VERSION */
	void	   *context;

	/*
	 * Says what became of a message, once for each that was accepted; NULL is
	 * the probe. To be called in send(), probe(), progress() or cancel(); the
	 * message is the host's again. "pause" (ms) is how long to wait before the
	 * next attempt at least, as the destination wants it; 0: it did not say.
	 * "detail" is what it answered (as what it was confirmed, or why not), in
	 * one line; NULL: nothing.
	 */
	void		(*complete) (void *context, const QueueSinkMessage *message,
							 QueueSinkOutcome outcome, int64_t pause, const char *detail);
	void		(*log) (void *context, QueueSinkLevel level, const char *line);
} QueueSinkHost;

/* The relay's owner is a superuser: he may use what is the host's own. */
#define QUEUE_SINK_TRUSTED	0x0001U

typedef struct QueueSinkConfig
{
	const QueueSinkSetting *settings;
	int			setting_count;
	uint32_t	flags;			/* QUEUE_SINK_TRUSTED */
	const char *relay;			/* its name, for what a destination shows of its clients */
	int			max_in_flight;	/* the host never hands over more at a time */
	int64_t		timeout;		/* ms that a message may take from send() to complete() */
} QueueSinkConfig;

/* ---- the sink ---- */

/*
 * After a message that was not delivered, none of its key that was handed over
 * behind it is delivered either, and all are delivered in the order in which
 * they were handed over. Without it a host hands over one message of a key at
 * a time.
 */
#define QUEUE_SINK_ORDERED	0x0001U

typedef struct QueueSink
{
	uint32_t	magic;			/* QUEUE_SINK_MAGIC */
	uint32_t	version;		/* QUEUE_SINK_VERSION */
	const char *name;			/* one word, for logs: "http" */
	uint32_t	abilities;		/* QUEUE_SINK_ORDERED */
	const QueueSinkOption *options; /* the last one has no name */

	/*
	 * Judges values; names, places and privileges are the host's to judge.
	 * "settings" are those of a server, or of a user mapping, alone, or of both
	 * when a relay starts. 0: good; else an error was written: what is wrong with which
	 * option, without the value of a secret. Opens nothing.
	 */
	int			(*check) (const QueueSinkSetting *settings, int count,
						  char *error, size_t size);

	/* Begins work; may begin to connect. NULL: an error was written. */
	void	   *(*open) (const QueueSinkConfig *config, const QueueSinkHost *host,
						 char *error, size_t size);

	/*
	 * Hands over messages, in order; returns how many were accepted. The
	 * messages stay where they are until complete() was called for them.
	 * What is not accepted is offered again after the next progress().
	 */
	int			(*send) (void *sink, const QueueSinkMessage *const *messages, int count);

	/*
	 * Begins to try the destination as far as it can be without a message:
	 * connection, certificate, credentials. One at a time; ends with
	 * complete(NULL).
	 */
	void		(*probe) (void *sink);

	/*
	 * What to wait for before the next progress(): one descriptor (-1: none) with
	 * events as of poll(), and a time in ms (-1: none, 0: at once).
	 */
	void		(*wait_for) (void *sink, int *descriptor, short *events, int *timeout);

	/* Does what can be done without waiting. */
	void		(*progress) (void *sink);

	/*
	 * Gives up everything in flight, now: completes it as AMBIGUOUS, or THROTTLED what was
	 * certainly not sent. The sink can be used again afterwards.
	 */
	void		(*cancel) (void *sink);

	/* Ends; nothing is in flight. Waits for nobody. */
	void		(*close) (void *sink);
} QueueSink;

/* The one symbol that a sink's library exports. */
typedef const QueueSink *(*QueueSinkFunction) (void);

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
extern const QueueSink *queue_sink(void);

#ifdef __cplusplus
}
#endif

#endif							/* QUEUE_SINK_H */
