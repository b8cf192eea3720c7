/*
 * Blocked submitters, as pool/room.c argues them: none sleeps while there is room for it.
 *
 * SUBMITTERS threads submit one task each into a pool with LIMIT places, all taken (GROW: one fewer at first); WORKERS
 * threads end tasks. With DEADLINE the first submitter may give up in any sleep; with CLOSE the pool is released at any moment.
 * One more thread tries NEWCOMERS times and never blocks; the gate admits OVERTAKES newcomers for each head, and none
 * from any moment on at which that has claimed in vain (time is not modelled). Each line
 * between semicolons is one access of a shared word, what the room's lock protects apart; a futex sleeper is woken by a
 * wake alone. Checked: nobody is left asleep at the end (an invalid end state else); every submit has one outcome; a
 * head is overtaken by no more newcomers than the gate says, plus one for each that was past it.
 *
 *     spin -a room.pml && cc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m1000000
 *
 * Seeded mistakes, each of which must fail: -DCLEAR_LATE (pending is cleared after the last claim), -DRESET_LATE (the own
 * word is reset after pending), -DNO_CLEAR (who leaves does not clear pending), -DNO_HANDOVER (... does not look for
 * room), -DCOUNT_LATE (counted in attention after the first look), -DSLEEP_BLIND (sleeps without comparing its word),
 * -DCLOSE_SILENT with -DCLOSE -DWORKERS=0 (a release that calls nobody while no task ends), -DNO_GATE and -DINSIST_BLIND
 * (a head that insists leaves the gate as it is) with -DSUBMITTERS=1 -DNEWCOMERS=4 -DOVERTAKES=2.
 */
#ifndef SUBMITTERS
#define SUBMITTERS 2
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef LIMIT
#define LIMIT 1
#endif
#ifndef NEWCOMERS
#define NEWCOMERS 0
#endif
#ifndef OVERTAKES
#define OVERTAKES 1
#endif

#define LOOKING 0
#define SLEEPING 1
#define CALLED 2

byte tail, done, taken, attention, gate, lock, n, ended, ran, refused, timed_out, overtaken, passed;
byte limit = LIMIT;
bit pending, closed, gated, insists;
byte list[SUBMITTERS + 1];
byte word[SUBMITTERS];
bit head[SUBMITTERS], asleep[SUBMITTERS];

inline acquire()
{
    atomic { lock == 0 -> lock = 1 }
}

inline release()
{
    lock = 0
}

/* runq_claim: c_rc 1 claimed, 0 no room, 2 closed */
inline claim(newcomer)
{
    do
    :: c_tail = tail; c_closed = closed;
       c_done = done;
       c_room = limit > c_tail - c_done;
       if
       :: c_closed -> c_rc = 2; break
       :: else
       fi;
       if
       :: newcomer ->
          atomic {
              c_shut = gated && c_tail >= gate;
#ifdef NO_GATE
              c_shut = 0;
#endif
          }
       :: else -> c_shut = 0
       fi;
       if
       :: c_room && !c_shut ->
          atomic {
              if
              :: tail == c_tail && !closed ->
                 tail++;
                 c_rc = 1;
                 if
                 :: newcomer && gated -> overtaken++; passed++
                 :: else
                 fi;
                 assert(!insists || passed <= SUBMITTERS); /* one for each other thread */
                 assert(overtaken <= OVERTAKES + SUBMITTERS) /* the gate's, and one for each other thread */
              :: else -> c_rc = 3
              fi
          };
          if
          :: c_rc == 1 -> break
          :: else
          fi
       :: else ->
          if
          :: tail == c_tail && closed == c_closed -> c_rc = 0; break
          :: else
          fi
       fi
    od
}

/* room_signal */
inline signal_head()
{
    s_pending = pending;
    if
    :: s_pending
    :: else ->
       atomic { s_pending = pending; pending = 1 };                  /* E3 */
       if
       :: s_pending
       :: else ->
          acquire();
          if
          :: n > 0 ->
             s_head = list[0];
             atomic { s_word = word[s_head]; word[s_head] = CALLED } /* E4 */
          :: else -> s_word = LOOKING
          fi;
          release();
          if
          :: s_word == SLEEPING -> asleep[s_head] = 0
          :: else
          fi
       fi
    fi
}

/* under the lock */
inline head_changed()
{
    if
    :: n > 0 -> head[list[0]] = 1; gate = tail + OVERTAKES; gated = 1
    :: else -> gated = 0
    fi;
    overtaken = 0; insists = 0; passed = 0
}

inline leave()
{
    acquire();
    atomic {
        l_head = list[0] == me;
        l_i = 0;
        do
        :: list[l_i] == me -> break
        :: else -> l_i++
        od;
        do
        :: l_i + 1 < n -> list[l_i] = list[l_i + 1]; l_i++
        :: else -> break
        od;
        n--; l_i = 0
    };
    attention--;
    if
    :: l_head -> head_changed()
    :: else
    fi;
    release();
    if
    :: l_head ->
#ifndef NO_CLEAR
       pending = 0;
#endif
#ifndef NO_HANDOVER
       l_left = attention;
       c_tail = tail;
       c_done = done;
       if
       :: l_left > 0 && (limit > c_tail - c_done || closed) -> signal_head()
       :: else
       fi
#else
       skip
#endif
    :: else
    fi
}

proctype Submitter(byte me; bit may_give_up)
{
    byte c_tail, c_done, c_rc, s_head, s_word, l_i, l_left;
    bit c_closed, c_room, c_shut, s_pending, l_head, called, first;

    claim(1);
    if
    :: c_rc != 0 -> goto out
    :: else
    fi;
    acquire();
    list[n] = me; n++;
    first = list[0] == me;
    if
    :: first -> head_changed()
    :: else
    fi;
#ifndef COUNT_LATE
    attention++;                                                     /* H1 */
#endif
    release();
again:
    called = word[me] == CALLED;
#ifndef RESET_LATE
    word[me] = LOOKING;                                              /* H2 */
#endif
    if
    :: !head[me] ->
       if
       :: closed -> c_rc = 2; goto gone
       :: else -> goto sleep
       fi
    :: else
    fi;
    if
    :: called -> claim(0)                                            /* the look-around, pending still set */
    :: true -> c_rc = 0
    fi;
    if
    :: c_rc != 0 -> goto gone
    :: else
    fi;
#ifdef CLEAR_LATE
    claim(0);
    if
    :: c_rc != 0 -> goto gone
    :: else
    fi;
    pending = 0;
#else
    pending = 0;                                                     /* H3 */
#ifdef RESET_LATE
    word[me] = LOOKING;
#endif
    claim(0);                                                        /* H4 */
    if
    :: c_rc != 0 -> goto gone
    :: else
    fi;
    if
    :: !insists -> c_tail = tail;
#ifdef INSIST_BLIND
       atomic { insists = 1; passed = 0 }
#else
       atomic { gate = c_tail; insists = 1; passed = 0 }
#endif
    :: true
    fi;
#endif
#ifdef COUNT_LATE
    if
    :: first -> attention++; first = 0
    :: else
    fi;
#endif
sleep:
    atomic {                                                         /* H5 */
        if
#ifdef SLEEP_BLIND
        :: true -> word[me] = SLEEPING
#else
        :: word[me] == LOOKING -> word[me] = SLEEPING
        :: else -> goto again
#endif
        fi
    };
    atomic {
        if
        :: word[me] == SLEEPING -> asleep[me] = 1
        :: else -> goto again
        fi
    };
    if
    :: asleep[me] == 0 -> goto again
    :: may_give_up && timed_out == 0 -> timed_out = 1; asleep[me] = 0; c_rc = 3
    fi;
gone:
    leave();
out:
    atomic {
        ended++;
        if
        :: c_rc == 1 -> ran++
        :: c_rc == 2 -> refused++
        :: else
        fi
    }
}

proctype Newcomer()
{
    byte c_tail, c_done, c_rc, tries;
    bit c_closed, c_room, c_shut;

    do
    :: tries < NEWCOMERS -> claim(1); tries++
    :: else -> break
    od
}

proctype Worker()
{
    byte s_head, s_word, seen;
    bit s_pending;

end:
    do
    :: atomic { taken < tail -> taken++ };
       done++;                                                       /* E1 */
       seen = attention;                                             /* E2 */
       if
       :: seen > 0 -> signal_head()
       :: else
       fi
    od
}

#ifdef GROW
proctype Grow()
{
    byte s_head, s_word;
    bit s_pending;

    limit++;
    signal_head()
}
#endif

#ifdef CLOSE
proctype Close()
{
    byte i;
    bit owed;
    byte s_head, s_word;
    bit s_pending;

    closed = 1;
#ifdef CLOSE_SILENT
    skip
#else
    acquire();
    do
    :: i < n ->
       atomic { owed = word[list[i]] == SLEEPING; word[list[i]] = CALLED };
       if
       :: owed -> asleep[list[i]] = 0
       :: else
       fi;
       i++
    :: else -> break
    od;
    release()
#endif
}
#endif

init
{
    byte i;

    atomic {
#ifdef GROW
        limit = LIMIT - 1;
        run Grow();
#endif
        tail = limit; /* full */
        do
        :: i < SUBMITTERS ->
#ifdef DEADLINE
           run Submitter(i, i == 0);
#else
           run Submitter(i, 0);
#endif
           i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < WORKERS -> run Worker(); i++
        :: else -> break
        od;
        if
        :: NEWCOMERS > 0 -> run Newcomer()
        :: else
        fi;
#ifdef CLOSE
        run Close();
#endif
        i = 0
    };
    ended == SUBMITTERS;
    assert(ran + refused + timed_out == SUBMITTERS)
}
