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
	uint32		out_of;			/* number of the front that it is not in step with */
	QueuePosition each[QUEUE_PLACES];	/* in order */
	QueueSpan	more;			/* behind them: there may be others in it */
	bool		first_is_known;	/* there is one at the first of it */
} QueuePlaces;

extern void queue_places_add(QueuePlaces *places, QueuePosition position, const QueueFront *front);
extern bool queue_places_know(QueuePlaces *places, QueuePosition position, const QueueFront *front);
extern QueuePosition queue_places_first(QueuePlaces *places, const QueueFront *front);
extern bool queue_places_are_behind(const QueuePlaces *places, const QueueFront *front);
extern bool queue_places_take(QueuePlaces *places, const QueueFront *front, QueuePosition *first, bool *open);
extern bool queue_places_advance(QueuePlaces *places, QueuePosition from, QueuePosition next,
								 const QueueFront *front);

static inline bool
queue_places_are_none(const QueuePlaces *places)
{
	return places->count == 0 && queue_span_is_empty(&places->more);
}

static inline void
queue_places_clear(QueuePlaces *places)
{
	places->count = 0;
	places->out_of = 0;
	places->first_is_known = false;
	queue_span_clear(&places->more);
}

#endif							/* QUEUE_PLACES_H */
