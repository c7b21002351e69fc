/*
 * filter.h
 *	  Which messages a relay leaves out.
 */
#ifndef QUEUE_FILTER_H
#define QUEUE_FILTER_H

#include "utils/jsonb.h"

#include "template.h"

typedef struct QueueFilter QueueFilter;

extern QueueFilter *queue_filter_read(Jsonb *options);
extern bool queue_filter_uses_payload(const QueueFilter *filter);
extern bool queue_filter_match(const QueueFilter *filter, const QueueFetched *message);

#endif							/* QUEUE_FILTER_H */
