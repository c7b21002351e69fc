/*
 * template.h
 *	  Text with placeholders, and where in a message their values are.
 */
#ifndef QUEUE_TEMPLATE_H
#define QUEUE_TEMPLATE_H

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "utils/jsonb.h"

#include "text.h"

/* A message's values as they are looked at: fetched, and text in the database's encoding. */
typedef struct QueueFetched
{
	const char *queue;
	int64		id;
	int			priority;
	TimestampTz enqueued_at;
	text	   *key;			/* NULL, as the following: it has none */
	Jsonb	   *headers;		/* an object */
	Jsonb	   *payload;
} QueueFetched;

/* Names from the outside in; digits may be a place in an array. */
typedef struct QueuePath
{
	int			count;
	char	  **names;
	int		   *lengths;
} QueuePath;

typedef struct QueueTemplate
{
	int			count;
	struct QueueTemplatePart *parts;
	char	   *constant;		/* the text in UTF-8; NULL: it varies */
} QueueTemplate;

extern bool queue_template_read_path(QueuePath *path, const char *text, int length, bool split);
extern JsonbValue *queue_template_find(Jsonb *json, const QueuePath *path, JsonbValue *room);
extern bool queue_template_append(StringInfo text, const JsonbValue *value);
extern void queue_template_read(QueueTemplate *template, const char *option, const char *given);
extern bool queue_template_allows(const QueueTemplate *template, QueueTextStays stays);
extern void queue_template_settle(QueueTemplate *template, const char *queue);
extern char *queue_template_expand(const QueueTemplate *template, const QueueFetched *message, const char **lacking);

#endif							/* QUEUE_TEMPLATE_H */
