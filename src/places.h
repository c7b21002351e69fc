/*
 * places.h
 *	  Where messages of a key wait: a few places one by one, and a span behind them.
 */
#ifndef QUEUE_PLACES_H
#define QUEUE_PLACES_H

#include "key.h"

/* Places that are remembered one by one. */
#define QUEUE_PLACES 6

typedef struct QueuePlaces
{
	uint32		count;
	QueuePosition each[QUEUE_PLACES];	/* in order */
	QueueSpan	more;			/* behind them: there may be others in it */
} QueuePlaces;

extern void queue_places_add(QueuePlaces *places, QueuePosition position);
extern bool queue_places_know(const QueuePlaces *places, QueuePosition position);
extern QueuePosition queue_places_take(QueuePlaces *places, bool *open);
extern bool queue_places_advance(QueuePlaces *places, QueuePosition from, QueuePosition next);

static inline bool
queue_places_are_none(const QueuePlaces *places)
{
	return places->count == 0 && queue_span_is_empty(&places->more);
}

static inline void
queue_places_clear(QueuePlaces *places)
{
	places->count = 0;
	queue_span_clear(&places->more);
}

#endif							/* QUEUE_PLACES_H */
