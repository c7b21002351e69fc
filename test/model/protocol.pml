/*
 * protocol.pml
 *	  Page entry, group summary, segment word and slots: every interleaving.
 *
 * One segment with one group with one page, on which up to three copies of one
 * message lie. Each access to a word of shared memory is a step of its own;
 * what the code does between queue_slot_lock() and queue_slot_unlock() may be
 * interrupted by anybody who does not want that slot. README.md says what is
 * left out.
 *
 * A scenario is a set of -D options of "run"; a mutation is one more (MUT_...),
 * which breaks one rule of the code and must be found.
 */

#ifndef CLAIMERS
#define CLAIMERS 2
#endif
#ifndef CALLS			/* a claimer's */
#define CALLS 2
#endif
#ifndef WORKER			/* its rounds; 0: it is away */
#define WORKER 0
#endif
#ifndef EVICTIONS
#define EVICTIONS 0
#endif
#ifndef TICKS			/* of the clock */
#define TICKS 1
#endif
#ifndef PRODUCER		/* 0: the message is there from the start */
#define PRODUCER 0
#endif

#define NEVER 7
#define BUSY_VALUE 8		/* for the mutation that has no busy bit */
#define ROWS 3
#define SLOTS 2
#define NONE 9

/* rows */
#define ABSENT 0
#define INSERTING 1
#define LIVE 2
#define DELETING 3
#define DEAD 4

/* slots */
#define FREE 0
#define LEASED 1
#define SETTLING 2
#define COOLING 3

byte now;

/* the words of the map: all is unknown at first, which reads as due */
byte page_due;
bit page_busy;
bit hooked = 1;				/* the page's block in its group */
bit map_lock;
byte group_due;
byte group_version;
byte segment_due;
byte segment_version;

byte row[ROWS];

typedef Slot {
	byte state;
	bit late;				/* the receipt of a cooling slot is still good */
	bit gone;				/* the receipt of a settling slot is void */
	bit locked;
	bit chained;			/* found from the page */
	byte sequence;
	byte at;				/* row */
	byte deadline;
	byte next;
	byte prior;
	bit prior_late;
	byte holder				/* ghost: who may act with the receipt */
};
Slot slot[SLOTS];

/* ghosts */
bit acked;
byte holders;				/* of the page's busy bit */
byte running;				/* processes that have not ended */

#define MIN(a, b) ((a) < (b) -> (a) : (b))

/* ---- words ---- */

#ifdef MUT_NO_VERSION
#define BUMP(v) skip
#else
#define BUMP(v) v++
#endif

inline lower_page(due)
{
	d_step { is_hooked = hooked };
	if
	:: is_hooked ->
		d_step {
			if
			:: page_due > due -> page_due = due
			:: else
			fi;
			is_hooked = 0
		}
	:: else
	fi
}

inline lower_summaries(due)
{
	d_step { group_due = MIN(group_due, due); BUMP(group_version) };
	d_step { segment_due = MIN(segment_due, due); BUMP(segment_version) }
}

/* Page, group, segment: in this order. */
inline lower(due)
{
#ifdef MUT_SUMMARY_FIRST
	lower_summaries(due);
	lower_page(due)
#else
	lower_page(due);
#ifdef MUT_NO_SUMMARY
	skip
#else
	lower_summaries(due)
#endif
#endif
}

inline lock_slot(s)
{
	atomic { !slot[s].locked -> slot[s].locked = 1 }
}

inline unlock_slot(s)
{
	slot[s].locked = 0
}

/* ---- ends of a lease; the slot is locked by the caller ---- */

/* Counted at once; next delivery after a retry delay of nothing or a tick. */
inline fail(s, is_late)
{
	if
	:: when = MIN(now, NEVER)
	:: when = MIN(now + 1, NEVER)
	fi;
	slot[s].next = when;
#ifndef MUT_FAIL_NO_LOWER
	lower(when);
#endif
	d_step {
		when = 0;
		slot[s].state = COOLING;
		slot[s].late = is_late;
		slot[s].gone = 0;
		slot[s].locked = 0
	}
}

inline free_slot(s)
{
	d_step {
		slot[s].state = FREE;
		slot[s].chained = 0;
		slot[s].late = 0;
		slot[s].gone = 0;
		slot[s].prior = FREE;
		slot[s].prior_late = 0;
		slot[s].deadline = 0;
		slot[s].next = 0;
		slot[s].holder = NONE;
		slot[s].locked = 0
	}
}

inline begin_settling(s)
{
	d_step {
		slot[s].prior = slot[s].state;
		slot[s].prior_late = slot[s].late;
		slot[s].state = SETTLING;
		slot[s].gone = 0;
		slot[s].locked = 0
	}
}

/* The settlement did not commit: back to what it was. */
inline unsettle(s)
{
	lock_slot(s);
	if
	:: slot[s].state == SETTLING && slot[s].prior == LEASED && slot[s].gone ->
		fail(s, 0)
	:: slot[s].state == SETTLING && slot[s].prior == LEASED && !slot[s].gone ->
#ifndef MUT_UNSETTLE_NO_LOWER
		when = slot[s].deadline;
		lower(when);
#endif
		d_step { when = 0; slot[s].state = LEASED; slot[s].locked = 0 }
	:: slot[s].state == SETTLING && slot[s].prior == COOLING ->
		when = slot[s].next;
		lower(when);
		d_step {
			when = 0;
			slot[s].state = COOLING;
			slot[s].late = slot[s].prior_late && !slot[s].gone;
			slot[s].gone = 0;
			slot[s].locked = 0
		}
	:: else ->
		unlock_slot(s)
	fi
}

/* ---- the busy bit ---- */

/* The page's block, hooked in if it is not. */
inline get_page_create()
{
	if
	:: hooked
	:: else -> atomic { !map_lock -> hooked = 1 }
	fi
}

#ifdef MUT_BUSY_AS_DUE
#define IS_BUSY (page_due == BUSY_VALUE)
#define SET_BUSY page_due = BUSY_VALUE
#else
#define IS_BUSY (page_busy)
#define SET_BUSY page_busy = 1; page_due = NEVER
#endif

/* What is left, merged with what was lowered meanwhile, in one step. */
inline put(due)
{
	d_step {
#ifdef MUT_BUSY_AS_DUE
		page_due = (page_due == BUSY_VALUE -> due : MIN(page_due, due));
#else
		assert(page_busy);
#ifdef MUT_PUT_STORES
		page_due = due;
#else
		page_due = MIN(page_due, due);
#endif
#endif
		page_busy = 0
	};
	if
	:: due < was_due -> lower_summaries(due)
	:: else
	fi
}

/* ---- a claimer ---- */

proctype Claimer(byte me)
{
	byte call;
	byte t;					/* now, as this call sees it */
	byte seen_segment; byte seen_segment_version;
	byte seen_group; byte seen_group_version;
	byte earliest;
	byte seen; bit seen_busy;
	byte was_due;
	byte due;				/* of what is left on the page */
	bit found; bit is_hooked; bit ok;
	byte when;
	byte i; byte s; byte r;
	byte held[ROWS];		/* state that the row's slot shows, FREE: none */
	byte held_by[ROWS];
	byte mine = NONE;		/* the receipt: slot and sequence */
	byte mine_sequence;
	byte taken = NONE; byte taken_sequence;

	do
	:: call == CALLS -> break
	:: call < CALLS && mine == NONE ->
		/* dequeue */
		call++;
		d_step {
			t = now; seen_segment = segment_due; seen_segment_version = segment_version;
			found = 0; earliest = NEVER; is_hooked = 0
		};
		if
		:: seen_segment > t -> goto done
		:: else
		fi;
		d_step { seen_group = group_due; seen_group_version = group_version };
		if
		:: seen_group > t
		:: else ->
			is_hooked = hooked;
			if
			:: !is_hooked -> found = 1
			:: else ->
				d_step { seen = page_due; seen_busy = IS_BUSY };
				if
				:: seen_busy
				:: !seen_busy && seen <= t -> found = 1
				:: else ->
					if
					:: hooked ->
						atomic {
							if
#ifdef MUT_RAISE_STORES
							:: true -> group_due = seen
#else
							:: group_due == seen_group && group_version == seen_group_version ->
								group_due = seen
							:: else
#endif
							fi
						}
					:: else
					fi
				fi
			fi
		fi;
		if
		:: found
		:: else ->
			earliest = group_due;
			atomic {
				if
				:: earliest > t && segment_due == seen_segment &&
						segment_version == seen_segment_version ->
					segment_due = earliest
				:: else
				fi
			};
			goto done
		fi;

again:	get_page_create();
		d_step { seen = page_due; seen_busy = IS_BUSY };
		if
		:: seen_busy || seen > t -> goto done
		:: else
		fi;
		atomic {
			if
			:: page_due == seen && page_busy == seen_busy ->
				SET_BUSY; was_due = seen; ok = 1
			:: else -> ok = 0
			fi
		};
		if
		:: ok
		:: else -> goto again
		fi;
		if
		:: hooked
		:: else ->
			was_due = NEVER;
			put(0);
			goto again
		fi;
		d_step { holders++; assert(holders == 1) };

		/* slots first */
		d_step {
			due = NEVER; i = 0; seen = 0; seen_group = 0; seen_group_version = 0;
			seen_segment = 0; seen_segment_version = 0; earliest = 0; seen_busy = 0; ok = 0; found = 0;
			held[0] = FREE; held[1] = FREE; held[2] = FREE
		};
		do
		:: i == SLOTS -> break
		:: i < SLOTS && !slot[i].chained -> i++
		:: i < SLOTS && slot[i].chained ->
			lock_slot(i);
			if
			:: slot[i].state == LEASED && slot[i].deadline <= t ->
				fail(i, 1);
				lock_slot(i)
			:: else
			fi;
			d_step {
				if
				:: slot[i].state != FREE && slot[i].chained ->
					held[slot[i].at] = slot[i].state;
					held_by[slot[i].at] = i;
					if
					:: slot[i].state == LEASED -> due = MIN(due, slot[i].deadline)
					:: slot[i].state == COOLING && slot[i].next > t ->
						due = MIN(due, slot[i].next);
						held[slot[i].at] = SETTLING		/* not to be had either */
					:: else
					fi
				:: else
				fi;
				slot[i].locked = 0;
				i++
			}
		od;

		/* then rows */
		i = 0;
		do
		:: i == ROWS -> break
		:: i < ROWS && (row[i] != LIVE || held[i] == LEASED || held[i] == SETTLING) -> i++
		:: i < ROWS && row[i] == LIVE && (held[i] == FREE || held[i] == COOLING) ->
			if
			:: held[i] == COOLING ->
				s = held_by[i];
				lock_slot(s);
				if
				:: slot[s].state == COOLING && slot[s].at == i -> ok = 1
				:: else -> unlock_slot(s); ok = 0
				fi
			:: else ->
				atomic {
					if
					:: slot[0].state == FREE && !slot[0].locked -> s = 0; ok = 1
					:: !(slot[0].state == FREE && !slot[0].locked) &&
							slot[1].state == FREE && !slot[1].locked -> s = 1; ok = 1
					:: else -> ok = 0
					fi;
					if
					:: ok -> slot[s].locked = 1
					:: else
					fi
				}
			fi;
			if
			:: ok ->
				d_step {
					/* Nobody else may hold it, and it is not done. */
					assert(!acked);
					assert(slot[0].holder == NONE || slot[0].state == FREE || slot[0].state == COOLING ||
						(slot[0].state == SETTLING && slot[0].prior == COOLING));
					assert(slot[1].holder == NONE || slot[1].state == FREE || slot[1].state == COOLING ||
						(slot[1].state == SETTLING && slot[1].prior == COOLING));
					slot[s].sequence++;
					slot[s].state = LEASED;
					slot[s].late = 0;
					slot[s].gone = 0;
					slot[s].at = i;
					slot[s].deadline = MIN(t + 1, NEVER - 1);
					slot[s].next = 0;
					slot[s].holder = me;
					slot[s].chained = 1;
					slot[s].locked = 0;
					due = MIN(due, slot[s].deadline);
					mine = s; mine_sequence = slot[s].sequence
				}
			:: else -> due = MIN(due, t)
			fi;
			i++
		od;
		holders--;
		put(due);
done:	skip;
		d_step {
			seen = 0; seen_group = 0; seen_group_version = 0; seen_segment = 0; was_due = 0; due = 0;
			seen_segment_version = 0; earliest = 0; seen_busy = 0; ok = 0; found = 0; is_hooked = 0;
			i = 0; s = 0; t = 0; held[0] = 0; held[1] = 0; held[2] = 0;
			held_by[0] = 0; held_by[1] = 0; held_by[2] = 0
		}

	:: call < CALLS && mine != NONE ->
		/* it does something with its receipt, or sleeps over it */
		call++;
		if
		:: true				/* sleeps */
		:: true ->			/* ack */
			s = mine;
			lock_slot(s);
			if
#ifdef MUT_NO_SEQUENCE
			:: (slot[s].state == LEASED || (slot[s].state == COOLING && slot[s].late)) ->
#else
			:: slot[s].sequence == mine_sequence &&
					(slot[s].state == LEASED || (slot[s].state == COOLING && slot[s].late)) ->
#endif
				assert(slot[s].holder == me);
				begin_settling(s);
				atomic {
					assert(row[slot[s].at] == LIVE);
					r = slot[s].at;
					row[r] = DELETING
				};
				if
				:: true ->	/* commit: seen by all, then the callback */
					d_step { row[r] = DEAD; assert(!acked); acked = 1; mine = NONE };
					lock_slot(s);
					assert(slot[s].state == SETTLING);
					free_slot(s)
				:: true ->	/* rollback */
					row[r] = LIVE;
					unsettle(s)
				fi
			:: else ->
				unlock_slot(s);
				mine = NONE
			fi
		:: true ->			/* the transaction that took it is rolled back */
			s = mine;
			lock_slot(s);
			if
			:: slot[s].sequence == mine_sequence && slot[s].state == LEASED ->
				slot[s].holder = NONE;
				fail(s, 0)
			:: slot[s].sequence == mine_sequence && slot[s].state == SETTLING ->
				d_step { slot[s].gone = 1; slot[s].locked = 0 }
			:: slot[s].sequence == mine_sequence && slot[s].state == COOLING ->
				d_step { slot[s].late = 0; slot[s].locked = 0 }
			:: else -> unlock_slot(s)
			fi;
			mine = NONE
		:: true ->			/* release: free, then lower */
			s = mine;
			lock_slot(s);
			if
			:: slot[s].sequence == mine_sequence && slot[s].state == LEASED ->
				t = now;
				free_slot(s);
#ifndef MUT_RELEASE_NO_LOWER
				lower(t);
#endif
				t = 0
			:: else -> unlock_slot(s)
			fi;
			mine = NONE
		fi;
		d_step { s = 0; r = 0; when = 0; is_hooked = 0 }
	od;
	running--
}

/* ---- who stores it ---- */

proctype Producer()
{
	bit is_hooked;

	row[0] = INSERTING;
	if
	:: true ->
#ifdef MUT_CALLBACK_FIRST
		lower(0);
		row[0] = LIVE
#else
		row[0] = LIVE;
		lower(0)
#endif
	:: true -> row[0] = DEAD
	fi;
	running--
}

/* ---- the worker writes what cools, and ends leases that ran out ---- */

proctype Worker()
{
	byte round; byte s; byte r; byte copy; byte when; bit is_hooked; bit ok;

	do
	:: round == WORKER * SLOTS -> break
	:: else ->
		s = round % SLOTS;
		round++;
		if
		:: slot[s].state == LEASED && slot[s].deadline <= now ->
			lock_slot(s);
			if
			:: slot[s].state == LEASED && slot[s].deadline <= now -> fail(s, 1)
			:: else -> unlock_slot(s)
			fi
		:: else
		fi;
		if
		:: slot[s].state == COOLING ->
			lock_slot(s);
			if
			:: slot[s].state == COOLING ->
				begin_settling(s);
				d_step {
					r = slot[s].at;
					assert(row[r] == LIVE);
					row[r] = DELETING;
					copy = (row[1] == ABSENT -> 1 : 2);
					ok = row[copy] == ABSENT;
					if
					:: ok -> row[copy] = INSERTING
					:: else
					fi
				};
				if
				:: ok ->
					d_step { row[r] = DEAD; row[copy] = LIVE };
#ifndef MUT_COPY_NO_LOWER
					lower(0);
#endif
					lock_slot(s);
					assert(slot[s].state == SETTLING);
					free_slot(s)
				:: true ->
					d_step {
						row[r] = LIVE;
						if
						:: ok -> row[copy] = DEAD
						:: else
						fi
					};
					unsettle(s)
				fi
			:: else -> unlock_slot(s)
			fi
		:: else
		fi;
		d_step { s = 0; r = 0; copy = 0; when = 0; ok = 0 }
	od;
	running--
}

/* ---- who takes a page's block away ---- */

#define CHAIN_IN_USE (slot[0].chained || slot[1].chained)

/*
 * The evictor is a holder like others: it takes busy, looks at the chain, unhooks
 * the block and gives its words back as unknown. Then the block may come to the
 * free list (a faster one has hooked in another) while a late taker has a word.
 */
proctype Evictor()
{
	byte round; bit taken;

	do
	:: round == EVICTIONS -> break
	:: else ->
		round++;
		atomic { !map_lock -> map_lock = 1 };
		if
		:: hooked ->
#ifdef MUT_EVICT_NO_HOLD
			taken = !IS_BUSY && !CHAIN_IN_USE;
#else
#ifdef MUT_CHAIN_FIRST
			taken = !CHAIN_IN_USE;
#else
			taken = 1;
#endif
			atomic {
				if
				:: taken && !page_busy -> page_busy = 1; page_due = NEVER; holders++; assert(holders == 1)
				:: else -> taken = 0
				fi
			};
#ifndef MUT_CHAIN_FIRST
			if
			:: taken && CHAIN_IN_USE ->
				taken = 0;
				d_step { holders--; page_busy = 0; page_due = 0 }
			:: else
			fi;
#endif
#endif
			if
			:: taken ->
				hooked = 0;
				lower_summaries(0);
				d_step {
#ifndef MUT_EVICT_NO_HOLD
					holders--;
#endif
					page_busy = 0; page_due = 0;
					slot[0].chained = 0; slot[1].chained = 0
				}
			:: else
			fi
		:: else
		fi;
		d_step { map_lock = 0; taken = 0 };
		if
		:: true
		:: true ->			/* released, zeroed */
			atomic { !map_lock -> map_lock = 1 };
			d_step {
				if
				:: !hooked ->
					page_due = 0;
#ifdef MUT_RELEASE_ERASES
					page_busy = 0
#endif
				:: else
				fi;
				map_lock = 0
			}
		fi
	od;
	running--
}

proctype Clock()
{
	do
	:: now == TICKS -> break
	:: else -> now++
	od;
	running--
}

/* ---- what must be true when everybody has come to rest ---- */

/* A message that can be had at this time is found by then. */
#define FOUND_BY(time) (segment_due <= (time) && group_due <= (time) && (!hooked || page_due <= (time)))

#define HOLDS(s, r) (slot[s].state != FREE && slot[s].at == (r))

inline check_row(r)
{
	if
	:: row[r] == LIVE ->
		live++;
		if
		:: HOLDS(0, r) -> s = 0
		:: !HOLDS(0, r) && HOLDS(1, r) -> s = 1
		:: else -> s = NONE
		fi;
		if
		:: s == NONE -> assert(FOUND_BY(now))
		:: s != NONE && slot[s].state == LEASED -> assert(FOUND_BY(slot[s].deadline))
		:: s != NONE && slot[s].state == COOLING -> assert(FOUND_BY(slot[s].next > now -> slot[s].next : now))
		:: else
		fi;
		assert(!(HOLDS(0, r) && HOLDS(1, r)))
	:: else -> assert(row[r] != INSERTING && row[r] != DELETING)
	fi
}

init
{
	byte live; byte s; bit produced;

	atomic {
		slot[0].holder = NONE;
		slot[1].holder = NONE;
		running = 1 + CLAIMERS;
#if PRODUCER
		running++;
		run Producer();
#else
		row[0] = LIVE;
#endif
#if WORKER
		running++;
		run Worker();
#endif
#if EVICTIONS
		running++;
		run Evictor();
#endif
		run Claimer(0);
#if CLAIMERS > 1
		run Claimer(1);
#endif
#if CLAIMERS > 2
		run Claimer(2);
#endif
		run Clock()
	};
	timeout ->
	d_step {
		assert(running == 0);
		assert(!page_busy && holders == 0 && !map_lock);
		assert(!slot[0].locked && !slot[1].locked);
		assert(slot[0].state != SETTLING && slot[1].state != SETTLING);
		assert(slot[0].state == FREE || slot[0].chained);
		assert(slot[1].state == FREE || slot[1].chained);
		check_row(0);
		check_row(1);
		check_row(2);
		produced = row[0] != DEAD || row[1] != ABSENT || acked;
		assert(live == (acked || !produced -> 0 : 1))
	}
}
