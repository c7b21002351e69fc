/*
 * places.c
 *	  Keys' places and the front (src/places.c) in a random walk, against what waits.
 *
 * Compiled with PLACES naming the file under test. A queue of a few pages and keys: messages come, visits
 * of pages that are due tell keys of them, take some or break off, turns look for one key,
 * at a place of it, along its span or by moving the front, and now and then a new front
 * begins anywhere. After each step: what waits on a page that is not due is known to its key.
 * Prints how often each kind of step was taken; status 1 if a message was forgotten, 2 if
 * some kind was never tried.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include PLACES

/* PostgreSQL's own is in its libraries. */
#undef printf

#define PAGES 48
#define KEYS 4

typedef enum Step
{
	STEP_COME, STEP_VISIT, STEP_BREAK_OFF, STEP_SWEEP, STEP_PLACE, STEP_WALK, STEP_FRONT, STEP_NEW_FRONT, STEP_IN_STEP, STEPS
} Step;

static const char *const step_names[] = {
	"come", "visit", "break off", "sweep", "place", "walk", "front", "new front", "found where the front was"
};

static QueuePlaces keys[KEYS];
static int	waiting[KEYS][PAGES];
static bool due[PAGES];
static QueueFront front;
static int	busy = -1;			/* the page that is being visited */
static bool lowered;			/* meanwhile */
static long counts[STEPS];

static void meanwhile(void);

static int
below(int n)
{
	return rand() % n;
}

/* A message that comes, comes back, or whose time has come. */
static void
come(int key, int page)
{
	waiting[key][page]++;
	due[page] = true;
	counts[STEP_COME]++;
}

/* Ask for all messages of a page; taker: a key of which one is taken, -1: none. */
static void
visit(int page, int taker)
{
	bool		breaks_off = below(16) == 0;
	unsigned	number = front.at == (QueuePosition) page ? front.number : 0;
	int			first = below(KEYS);

	due[page] = false;
	counts[STEP_VISIT]++;
	busy = page;
	lowered = false;
	for (int i = 0; i < KEYS; i++)
	{
		int			key = (first + i) % KEYS;

		if (breaks_off && i >= KEYS / 2)
		{
			due[page] = true;
			counts[STEP_BREAK_OFF]++;
			break;
		}
		if (key == taker && waiting[key][page] > 0)
			waiting[key][page]--;
		if (waiting[key][page] > 0)
		{
			counts[STEP_IN_STEP] += number != 0 && keys[key].more.first == front.at;
			queue_places_add(&keys[key], page, &front);
		}
		queue_places_first(&keys[below(KEYS)], &front);
		if (below(8) == 0)
			meanwhile();
	}
#ifndef BROKEN_NOT_THERE
	if (number != 0 && front.number == number && front.at == (QueuePosition) page)
#else
	if (front.number != 0 && front.at <= (QueuePosition) page)
#endif
		front.at = page + 1;
	due[page] |= lowered;
	busy = -1;
}

/* Look for one key on a page, due or not. A page that is held is made due, and so is one that other keys have to be asked on. */
static void
look(int key, int page)
{
	if (page >= PAGES)
		return;
	if (page == busy)
	{
		lowered = true;
		return;
	}
	if (due[page] && busy >= 0)
		return;
	if (due[page])
	{
		visit(page, key);
		return;
	}
	if (waiting[key][page] > 0)
		waiting[key][page]--;
	if (waiting[key][page] > 0)
		queue_places_add(&keys[key], page, &front);
}

/* Look for a key along its span. */
static void
walk(int key, QueuePosition first, bool behind)
{
	QueuePosition until = first < front.at ? front.at : QUEUE_POSITION_NONE;

	if (behind)
		until = front.at + 1;
	for (int i = below(8); i >= 0 && first < until; i--)
	{
		if (!queue_places_advance(&keys[key], first, first + 1, &front))
			break;
		look(key, first++);
	}
	counts[STEP_WALK]++;
}

static void
give_turn(int key)
{
	QueuePosition first;
	bool		open;
	bool		behind;

	if (!queue_places_take(&keys[key], &front, &first, &open))
		return;
	if (!open)
	{
		counts[STEP_PLACE]++;
		look(key, first);
		return;
	}
	behind = queue_places_are_behind(&keys[key], &front);
	if (front.number == 0 || below(40) == 0)
	{
		behind = false;
		front.number++;
		front.from = front.at = first;
		counts[STEP_NEW_FRONT]++;
	}
	/* While a page is held, nobody else moves the front. */
	if (busy >= 0 || behind || first < front.at || first - front.at >= 16)
	{
		walk(key, first, behind);
		return;
	}
	counts[STEP_FRONT]++;
	for (int i = below(6); i >= 0 && front.at < PAGES; i--)
		visit(front.at, i == 0 ? key : -1);
	/* What is passed over at the end is looked at again. */
	if (front.at >= PAGES && queue_places_advance(&keys[key], first, PAGES, &front))
		for (; first < PAGES; first++)
			due[first] = true;
}

/* While a page is held, others have their turns. */
static void
meanwhile(void)
{
	give_turn(below(KEYS));
}

/* Somebody who takes nothing has the page not due for what its keys know. */
static void
sweep(int page)
{
	bool		known = true;

	for (int key = 0; key < KEYS; key++)
		if (waiting[key][page] > 0 && !queue_places_know(&keys[key], page, &front))
			known = false;
	due[page] = !known;
	counts[STEP_SWEEP]++;
}

static bool
is_right(long step)
{
	for (int key = 0; key < KEYS; key++)
		for (int page = 0; page < PAGES; page++)
		{
			QueuePlaces copy = keys[key];

			if (waiting[key][page] == 0 || due[page] || queue_places_know(&copy, page, &front))
				continue;
			printf("step %ld: key %d does not know of page %d; the front %u is at %llu\n",
				   step, key, page, front.number, (unsigned long long) front.at);
			return false;
		}
	return true;
}

int
main(int argc, char **argv)
{
	long		steps = argc > 1 ? atol(argv[1]) : 4000000;

	for (unsigned seed = 1; seed <= 20; seed++)
	{
		srand(seed);
		memset(&front, 0, sizeof(front));
		memset(waiting, 0, sizeof(waiting));
		for (int key = 0; key < KEYS; key++)
			queue_places_clear(&keys[key]);
		for (long step = 0; step < steps / 20; step++)
		{
			int			page = below(PAGES);

			/* As many as fill the pages, or about as many as a key has places. */
			if (step % 500 == 0)
				for (int i = 0, rare = 1 + below(8); i < KEYS * PAGES; i++)
					if (below(rare) == 0 && waiting[i % KEYS][i / KEYS] == 0)
						come(i % KEYS, i / KEYS);
			switch (below(64))
			{
				case 0:
					come(below(below(KEYS) + 1), page);
					break;
				case 1:
					sweep(page);
					break;
				case 2:
				case 3:
				case 4:
					if (due[page])
						visit(page, below(KEYS + 1) - 1);
					break;
				case 5:
				case 6:
					/* As claims do, in order. */
					for (page = 0; page < PAGES; page++)
						if (due[page])
							visit(page, -1);
					break;
				default:
					give_turn(below(KEYS));
			}
			if (!is_right(step))
				return 1;
		}
	}
	for (int i = 0; i < STEPS; i++)
	{
		printf("%s %ld%s", step_names[i], counts[i], i < STEPS - 1 ? ", " : "\n");
		if (counts[i] < 100)
			return 2;
	}
	return 0;
}
