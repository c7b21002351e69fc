/*
 * places.c
 *	  Where messages of a key wait: a few places one by one, and a span behind them.
 *
 * Each place that was added and not taken is one of the few, or in the span, whose
 * first is behind all of these. Whoever has them locks them.
 */
#include "postgres.h"

#include "places.h"

/* Something waits there; perhaps it is known. */
void
queue_places_add(QueuePlaces *places, QueuePosition position)
{
	uint32		i = 0;

	if (queue_places_know(places, position))
		return;
	while (i < places->count && places->each[i] < position)
		i++;
	if (i == QUEUE_PLACES || (!queue_span_is_empty(&places->more) && position > places->more.last))
	{
		queue_span_add(&places->more, position);
		return;
	}
	if (places->count == QUEUE_PLACES)
		queue_span_add(&places->more, places->each[--places->count]);
	memmove(&places->each[i + 1], &places->each[i], sizeof(QueuePosition) * (places->count - i));
	places->each[i] = position;
	places->count++;
}

/* Whether something may wait there. */
bool
queue_places_know(const QueuePlaces *places, QueuePosition position)
{
	for (uint32 i = 0; i < places->count; i++)
		if (places->each[i] == position)
			return true;
	return position >= places->more.first && position <= places->more.last;
}

/*
 * Take the first off. Of a span (*open) only its beginning is told, which is taken
 * off with queue_places_advance() when it is known up to where.
 */
QueuePosition
queue_places_take(QueuePlaces *places, bool *open)
{
	QueuePosition first;

	*open = places->count == 0;
	if (*open)
		return places->more.first;
	first = places->each[0];
	memmove(&places->each[0], &places->each[1], sizeof(QueuePosition) * --places->count);
	return first;
}

/* Take off the span what is before "next", if it still is first and begins there. */
bool
queue_places_advance(QueuePlaces *places, QueuePosition from, QueuePosition next)
{
	if (places->count > 0 || places->more.first != from)
		return false;
	if (next > places->more.last)
		queue_span_clear(&places->more);
	else
		places->more.first = next;
	return true;
}
