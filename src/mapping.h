/*
 * mapping.h
 *	  Where in a message a relay finds what it sends.
 */
#ifndef QUEUE_MAPPING_H
#define QUEUE_MAPPING_H

#include "utils/jsonb.h"

#include "template.h"

/* Headers of a message, and of a mapping. They are searched one by one. */
#define QUEUE_MAPPING_HEADERS 1000

/* What can be said of a message. */
typedef enum QueueAttribute
{
	QUEUE_ATTRIBUTE_ID,
	QUEUE_ATTRIBUTE_SOURCE,
	QUEUE_ATTRIBUTE_TYPE,
	QUEUE_ATTRIBUTE_SUBJECT,
	QUEUE_ATTRIBUTE_TIME,
	QUEUE_ATTRIBUTE_KEY,
	QUEUE_ATTRIBUTE_TARGET,
} QueueAttribute;

#define QUEUE_ATTRIBUTES (QUEUE_ATTRIBUTE_TARGET + 1)

typedef struct QueueMappedHeader
{
	char	   *name;			/* in lower case */
	QueueTemplate value;
} QueueMappedHeader;

typedef struct QueueMapping
{
	char	   *queue;
	char	   *queue_utf8;
	QueueTemplate *templates[QUEUE_ATTRIBUTES]; /* NULL: as without the option */
	QueuePath  *body;			/* in the payload; NULL: all of it */
	bool		debezium;
	QueueMappedHeader *headers;
	int			header_count;
} QueueMapping;

extern QueueMapping *queue_mapping_read(Jsonb *options, const char *queue);
extern bool queue_mapping_take(const QueueMapping *mapping, QueueAttribute attribute, const QueueFetched *message,
							   char **value, char **problem);
extern char *queue_mapping_traceparent(const QueueMapping *mapping, const QueueFetched *message);

#endif							/* QUEUE_MAPPING_H */
