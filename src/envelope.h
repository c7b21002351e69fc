/*
 * envelope.h
 *	  The form in which a message leaves the database.
 */
#ifndef QUEUE_ENVELOPE_H
#define QUEUE_ENVELOPE_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

#include "message.h"

typedef enum QueueFormat
{
	QUEUE_FORMAT_CLOUDEVENTS,	/* binary mode: attributes are headers ce-... */
	QUEUE_FORMAT_CLOUDEVENTS_STRUCTURED,
	QUEUE_FORMAT_PLAIN,
} QueueFormat;

/* How a relay makes envelopes; read from its options once, in the current memory context. */
typedef struct QueueEnvelopeRules QueueEnvelopeRules;

/* A header as it is sent. */
typedef struct QueueEnvelopeHeader
{
	char	   *name;			/* lower case */
	char	   *value;
} QueueEnvelopeHeader;

/*
 * All text in UTF-8, whatever the database's encoding. Lives as long as the rules
 * and the message, into which it may point. Names of headers are given once.
 */
typedef struct QueueEnvelope
{
	char	   *id;				/* the same at every attempt: <id>-<enqueued_at in hex> */
	char	   *key;			/* NULL: none */
	char	   *target;			/* "": none */
	char	   *content_type;
	char	   *body;
	int			body_length;
	QueueEnvelopeHeader *headers;
	int			header_count;
} QueueEnvelope;

/*
 * What to do with a message. NO_MATCH: the filter leaves it out. BROKEN: it
 * cannot be sent as the rules say; *problem says why, in one line.
 */
typedef enum QueueEnvelopeResult
{
	QUEUE_ENVELOPE_OK,
	QUEUE_ENVELOPE_NO_MATCH,
	QUEUE_ENVELOPE_BROKEN,
} QueueEnvelopeResult;

/* Options of a relay that are the envelope's, for the check of unknown keys; the last has no name. */
extern const QueueJsonKey queue_envelope_keys[];

extern QueueEnvelopeRules *queue_envelope_rules(Jsonb *options, const char *queue);
extern QueueEnvelopeResult queue_envelope_make(const QueueEnvelopeRules *rules, QueueMessage *message,
											   QueueEnvelope *envelope, char **problem);

#endif							/* QUEUE_ENVELOPE_H */
