/*
 * wakeup.pml
 *	  Sleepers, the keeper of the next due, and who hands on what.
 *
 * Messages are stored while consumers look and sleep; each falls due at once or
 * at a later tick. A consumer takes one message and is gone: it works for ever.
 * Nobody has a deadline and there is no worker, so a wakeup that is lost is never
 * made up for.
 */

#ifndef SLEEPERS
#define SLEEPERS 2
#endif
#ifndef WAITS			/* so many of them CALL queue.wait() and then dequeue */
#define WAITS 0
#endif
#ifndef MESSAGES
#define MESSAGES 2
#endif
#ifndef TICKS
#define TICKS 2
#endif

#define NEVER 7

byte now;
byte when[MESSAGES];
bit stored[MESSAGES];
bit claimed[MESSAGES];
byte sleepers;
byte keeper = NEVER;
bit listed[SLEEPERS];		/* on the condition variable's list */
bit signalled[SLEEPERS];
bit gone[SLEEPERS];

#define DUE_OF(m) (stored[m] && !claimed[m] -> when[m] : NEVER)
#if MESSAGES > 2
#define LATER (DUE_OF(1) < DUE_OF(2) -> DUE_OF(1) : DUE_OF(2))
#else
#define LATER DUE_OF(1)
#endif
#define DUE (DUE_OF(0) < LATER -> DUE_OF(0) : LATER)

/* Take somebody off the list, whoever it is, and set the latch. */
inline signal_one()
{
	atomic {
		if
		:: listed[0] -> listed[0] = 0; signalled[0] = 1
		:: listed[1] -> listed[1] = 0; signalled[1] = 1
#if SLEEPERS > 2
		:: listed[2] -> listed[2] = 0; signalled[2] = 1
#endif
		:: else
		fi
	}
}

inline tell_due(due)
{
	if
	:: sleepers > 0 && due < keeper -> signal_one()
	:: else
	fi
}

inline pass_on(found_work)
{
#ifdef MUT_KEEP_BATON
	skip
#else
	if
	:: sleepers == 0
	:: else ->
		atomic { d = DUE; t = now };
		if
		:: d > t -> tell_due(d)
		:: d <= t && found_work -> signal_one()
		:: else
		fi
	fi
#endif
}

inline stop_keeping()
{
	atomic {
		if
		:: keeping != NEVER && keeper == keeping -> keeper = NEVER
		:: else
		fi;
		keeping = NEVER
	}
}

proctype Sleeper(byte me; bit waits)
{
	byte d; byte t; byte keeping = NEVER; bit got;

	do
	:: !waits ->
		atomic {
			got = 1;
			if
			:: DUE_OF(0) <= now -> claimed[0] = 1
			:: else ->
				if
				:: DUE_OF(1) <= now -> claimed[1] = 1
				:: else ->
#if MESSAGES > 2
					if
					:: DUE_OF(2) <= now -> claimed[2] = 1
					:: else -> got = 0
					fi
#else
					got = 0
#endif
				fi
			fi
		};
		pass_on(got);
		if
		:: got -> break
		:: else
		fi;
		goto sleep
	:: waits ->
sleep:
#ifdef MUT_LOOK_FIRST
		atomic { d = DUE; t = now };
#endif
		sleepers++;
		listed[me] = 1;
		do
		:: true ->
#ifndef MUT_LOOK_FIRST
			atomic { d = DUE; t = now };
#endif
			if
			:: d <= t -> break
			:: else
			fi;
			atomic {
				if
				:: d < keeper -> keeper = d; keeping = d
				:: else
				fi
			};
			if
			:: signalled[me]
			:: keeping != NEVER && now >= keeping
			fi;
			atomic {
				if
				:: signalled[me] -> signalled[me] = 0; listed[me] = 1
				:: else
				fi
			};
#ifdef MUT_LOOK_FIRST
			atomic { d = DUE; t = now };
#endif
			stop_keeping()
		od;
		skip;
		d_step { listed[me] = 0; signalled[me] = 0 };
		sleepers--;
		if
		:: waits -> pass_on(0); waits = 0
		:: else
		fi;
		got = 0
	od;
	gone[me] = 1
}

proctype Producer()
{
	byte m; byte t;

	do
	:: m == MESSAGES -> break
	:: else ->
		if
		:: atomic { when[m] = now; stored[m] = 1 }
		:: atomic { now < TICKS -> when[m] = now + 1; stored[m] = 1 }
		:: atomic { now + 2 <= TICKS -> when[m] = now + 2; stored[m] = 1 }
		fi;
		t = now;
		if
		:: when[m] <= t ->
			if
			:: sleepers > 0 -> signal_one()
			:: else
			fi
		:: else -> tell_due(when[m])
		fi;
		t = 0;
		m++
	od
}

proctype Clock()
{
	do
	:: now == TICKS -> break
	:: else -> now++
	od
}

init
{
	atomic {
		run Producer();
		run Sleeper(0, WAITS > 0);
		run Sleeper(1, WAITS > 1);
#if SLEEPERS > 2
		run Sleeper(2, WAITS > 2);
#endif
		run Clock()
	};
	timeout ->
	/* All times have come: what is left is left only if nobody sleeps. */
	d_step {
		if
		:: DUE == NEVER
		:: else ->
			assert(gone[0] && gone[1]);
#if SLEEPERS > 2
			assert(gone[2])
#endif
		fi
	}
}
