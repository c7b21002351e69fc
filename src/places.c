/*
 * places.c
 *	  Where messages of a key wait: a few places one by one, and a span behind them.
 *
 * Each place that was added and not taken is one of the few, or in the span, whose
 * first is behind all of these. Whoever has them locks them, and the front with them.
 * What a front promises is in src/README.md, "Limits and fair share".
 */
#include "postgres.h"

#include "places.h"

/* Whether all of it that is before the front is known place by place. */
static bool
is_in_step(const QueuePlaces *places, const QueueFront *front)
{
	return front->number != 0 && places->out_of != front->number && places->more.first >= front->from;
}

/* The span begins where something may be, as far as the front tells. */
static void
settle(QueuePlaces *places, const QueueFront *front)
{
	/* Somebody may just have asked on the front's page, so whoever was out of step looks there himself. */
	if (queue_span_is_empty(&places->more) || places->more.first > front->at)
		places->out_of = 0;
	else if (places->more.first < front->at && is_in_step(places, front))
	{
		places->more.first = front->at;
		places->first_is_known = false;
		if (places->more.first > places->more.last)
			queue_span_clear(&places->more);
	}
}

/* There is something at a place that goes into the span. */
static void
add_to_span(QueuePlaces *places, QueuePosition position, const QueueFront *front)
{
	queue_span_add(&places->more, position);
	if (places->more.first == position)
		places->first_is_known = true;
	/* What is from it to the front is not known any more. */
	if (places->more.first <= front->at)
		places->out_of = front->number;
}

/* The span begins later; where the front began behind its beginning, it has not gone over it. */
static void
move_span(QueuePlaces *places, QueuePosition next, const QueueFront *front)
{
	places->first_is_known = false;
	if (places->more.first < front->from)
		places->out_of = front->number;
	if (next > places->more.last)
		queue_span_clear(&places->more);
	else
		places->more.first = next;
}

/* The front is at a place of the span, and so is something of the key. */
static void
add_at_front(QueuePlaces *places, QueuePosition position, const QueueFront *front)
{
	places->more.first = position;
	places->first_is_known = true;
	if (places->count < QUEUE_PLACES)
	{
		places->each[places->count++] = position;
		move_span(places, position + 1, front);
	}
	else
		places->out_of = front->number;
}

/* Something waits there; perhaps it is known. */
void
queue_places_add(QueuePlaces *places, QueuePosition position, const QueueFront *front)
{
	uint32		i = 0;

	settle(places, front);
	if (front->number != 0 && position == front->at && position == places->more.first)
	{
		add_at_front(places, position, front);
		return;
	}
	if (queue_places_know(places, position, front))
		return;
	while (i < places->count && places->each[i] < position)
		i++;
	if (i == QUEUE_PLACES || (!queue_span_is_empty(&places->more) && position > places->more.last))
	{
		add_to_span(places, position, front);
		return;
	}
	if (places->count == QUEUE_PLACES)
		add_to_span(places, places->each[--places->count], front);
	memmove(&places->each[i + 1], &places->each[i], sizeof(QueuePosition) * (places->count - i));
	places->each[i] = position;
	places->count++;
}

/* Whether something may wait there. */
bool
queue_places_know(QueuePlaces *places, QueuePosition position, const QueueFront *front)
{
	settle(places, front);
	for (uint32 i = 0; i < places->count; i++)
		if (places->each[i] == position)
			return true;
	return position >= places->more.first && position <= places->more.last;
}

/* QUEUE_POSITION_NONE: there is none. */
QueuePosition
queue_places_first(QueuePlaces *places, const QueueFront *front)
{
	settle(places, front);
	return places->count > 0 ? places->each[0] : places->more.first;
}

/* Whether the key has yet to come to the front, and to look at its page. The span has just been settled. */
bool
queue_places_are_behind(const QueuePlaces *places, const QueueFront *front)
{
	return front->number != 0 && places->out_of == front->number && places->more.first <= front->at;
}

/*
 * Take the first off. Of a span (*open) only its beginning is told, which is taken
 * off with queue_places_advance() when it is known up to where. False: it has turned
 * out that there is none.
 */
bool
queue_places_take(QueuePlaces *places, const QueueFront *front, QueuePosition *first, bool *open)
{
	settle(places, front);
	*open = false;
	if (places->count > 0)
	{
		*first = places->each[0];
		memmove(&places->each[0], &places->each[1], sizeof(QueuePosition) * --places->count);
		return true;
	}
	*first = places->more.first;
	if (queue_span_is_empty(&places->more))
		return false;
	if (places->first_is_known)
		move_span(places, *first + 1, front);
	else
		*open = true;
	return true;
}

/* Take off the span what is before "next", if it still is first and begins there. */
bool
queue_places_advance(QueuePlaces *places, QueuePosition from, QueuePosition next, const QueueFront *front)
{
	if (places->count > 0 || places->more.first != from || places->first_is_known)
		return false;
	move_span(places, next, front);
	return true;
}
