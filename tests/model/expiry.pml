/*
 * The expiry ticker against submitters, parking workers and, with RELEASE, a release: no task is stranded, and after a
 * release no worker stays. The protocol of pool/idle.h, where it takes the whole stack.
 *
 * WORKERS parked workers at first, TASKS submitters with a task each, ROUNDS turns of the ticker, which keeps any part of
 * the stack as fresh and cuts the rest. With DEPENDENT, task 0 ends only after task 1 has started. Each line between
 * semicolons is one access of a shared word; a CAS compares the word's tag. Checked: at the end of all (timeout) every
 * accepted task is done, at least MINIMUM workers live, and with RELEASE none does.
 *
 *     spin -a expiry.pml && cc -O2 -DSAFETY -DVECTORSZ=2048 -o pan pan.c && ./pan -m200000
 *
 * Seeded mistakes, each of which must fail: -DNO_LOOK_BACK (no look at the queue after the put-back), -DNO_LEAVE_LOOK (a
 * worker that leaves does not look at it), -DLEAVE_ON_STACK (the cut ones are told before they are off the stack); and
 * with -DRELEASE: -DCLOSED_BEFORE_PUSH (a parking worker looks at the closed bit before its push only),
 * -DTICKER_MISSES_CLOSE (the ticker does not look at it after the put-back), -DTELL_NOBODY (a worker that leaves a closed
 * pool sends no other after it), -DLEAVE_ON_FLAG (a worker leaves on the closed bit alone, without a look).
 */
#ifndef TASKS
#define TASKS 2
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef MINIMUM
#define MINIMUM 0
#endif
#define MOST (WORKERS + TASKS + 4)

#define AWAKE 0
#define PARKED 1
#define NOTIFIED 2
#define LEAVE 3

byte tail, head, done, searching, tag, top, alive, made;
bit closed;
bit published[TASKS + 1];
bit started[TASKS + 1];
byte below[MOST + 1];
byte park[MOST + 1];

/* idle_wake_one, with the spawn that it owes */
inline wake_one()
{
    do
    :: atomic { w_tag = tag; w_top = top; w_search = searching };
       if
       :: w_search > 0 -> break
       :: else
       fi;
       if
       :: w_top > 0 ->
          atomic {
              if
              :: tag == w_tag && searching == w_search ->
                 top = below[w_top]; tag++; searching++; w_won = 1
              :: else -> w_won = 0
              fi
          };
          if
          :: w_won -> park[w_top] = NOTIFIED; break
          :: else
          fi
       :: else ->
          w_alive = alive;
          if
          :: w_alive >= WORKERS -> break
          :: else
          fi;
          w_done = done;
          if
          :: tail - w_done <= w_alive -> break
          :: else
          fi;
          atomic {
              if
              :: tag == w_tag && searching == w_search -> searching++; w_won = 1
              :: else -> w_won = 0
              fi
          };
          if
          :: w_won ->
             atomic {
                 if
                 :: alive < WORKERS -> alive++; made++; assert(made <= MOST); w_won = 1
                 :: else -> w_won = 0
                 fi
             };
             if
             :: w_won -> run worker(made, 1); break
             :: else -> searching--
             fi;
             if
             :: searching == 0 && head < tail && published[head] -> skip
             :: else -> break
             fi
          :: else
          fi
       fi
    od;
    atomic { w_tag = 0; w_top = 0; w_search = 0; w_alive = 0; w_done = 0; w_won = 0 }
}

/* Tells a private list to leave. */
inline dismiss(list)
{
    do
    :: list > 0 -> atomic { w_top = below[list]; park[list] = LEAVE; list = w_top; w_top = 0 }
    :: else -> break
    od
}

inline dismiss_if_drained()
{
    if
    :: closed && head == tail ->
       atomic { rest = top; top = 0; tag++ };
       dismiss(rest)
    :: else
    fi
}

inline look()
{
    atomic { h = head; ready = 0 };
    ready = published[h];
    if
    :: ready || head != h -> wake_one()
    :: else
    fi;
    atomic { h = 0; ready = 0 }
}

proctype worker(byte me; bit mine)
{
    bit w_won, ready, gone;
    byte task, h, rest, w_tag, w_top, w_search, w_alive, w_done;

    if
    :: !mine -> goto asleep /* as the model begins */
    :: else
    fi;
loop:
    atomic {
        if
        :: published[head] -> task = head; head++; goto got
        :: else
        fi
    }
    if
    :: closed && head == tail ->
       if
       :: mine -> mine = 0; searching--; look()
       :: else
       fi;
       goto leave
#ifdef LEAVE_ON_FLAG
    :: closed && head != tail ->
       if
       :: mine -> mine = 0; searching--
       :: else
       fi;
       alive--;
       goto out
#endif
    :: else
    fi;
    park[me] = PARKED;
    atomic { below[me] = top; top = me; tag++; searching = searching - mine; mine = 0 };
    look();
#ifndef CLOSED_BEFORE_PUSH
    dismiss_if_drained();
#endif
asleep:
end_asleep:
    park[me] != PARKED;
    atomic {
        if
        :: park[me] == NOTIFIED -> park[me] = AWAKE; mine = 1; goto loop
        :: else -> park[me] = AWAKE
        fi
    };
leave:
    atomic {
        if
        :: (closed && head == tail) || (!closed && alive > MINIMUM) -> alive--; gone = 1
        :: else -> gone = 0
        fi
    };
    if
    :: !gone -> goto loop
    :: else
    fi;
#ifndef NO_LEAVE_LOOK
    look();
#endif
    goto out;
got:
    if
    :: mine ->
       mine = 0;
       atomic { searching--; w_won = (searching == 0) };
       if
       :: w_won -> look()
       :: else
       fi;
       w_won = 0
    :: else
    fi;
    started[task] = 1;
#ifdef DEPENDENT
    if
    :: task == 0 -> started[1]
    :: else
    fi;
#endif
    done++;
    task = 0;
    goto loop;
out:
#ifndef TELL_NOBODY
    dismiss_if_drained();
#endif
    skip
}

proctype submitter()
{
    byte at, w_tag, w_top, w_search, w_alive, w_done;
    bit w_won;

    atomic {
        if
        :: closed -> goto refused
        :: else -> at = tail; tail++
        fi
    };
    published[at] = 1;
    wake_one();
refused:
    skip
}

proctype ticker()
{
    bit w_won, ready;
    byte round, kept, last, rest, h, w_tag, w_top, w_search, w_alive, w_done;

    do
    :: round < ROUNDS ->
       round++;
       atomic { kept = top; top = 0; tag++; searching++ };
       /* the list is private: any part of it from the top on is fresh */
       atomic {
           last = kept;
           if
           :: kept == 0 -> skip
           :: kept > 0 -> rest = kept; kept = 0 /* none is */
           :: kept > 0 ->
              do
              :: below[last] > 0 -> last = below[last]
              :: true -> break
              od;
              rest = below[last]; below[last] = 0
           fi;
           last = 0
       };
#ifdef LEAVE_ON_STACK
       if
       :: rest > 0 -> park[rest] = LEAVE; rest = 0
       :: else
       fi;
#endif
       do
       :: kept > 0 ->
          atomic {
              if
              :: top == 0 -> top = kept; kept = 0; tag++
              :: else -> last = top; top = 0; tag++
              fi
          };
          if
          :: last > 0 ->
             atomic {
                 h = last;
                 do
                 :: below[h] > 0 -> h = below[h]
                 :: else -> break
                 od;
                 below[h] = kept; kept = last; last = 0; h = 0
             }
          :: else
          fi
       :: else -> break
       od;
#ifdef LEAVE_ON_STACK
       /* what was told stays where it was: on top of what was put back */
       atomic {
           if
           :: top == 0 && park[WORKERS] == LEAVE -> top = WORKERS; below[WORKERS] = 0; tag++
           :: else
           fi
       };
#endif
       atomic { searching--; w_won = (searching == 0) };
#ifndef NO_LOOK_BACK
       if
       :: w_won -> look()
       :: else
       fi;
#endif
       w_won = 0;
       dismiss(rest);
#ifndef TICKER_MISSES_CLOSE
       dismiss_if_drained()
#endif
    :: else -> break
    od
}

proctype release()
{
    bit w_won, ready;
    byte rest, h, w_tag, w_top, w_search, w_alive, w_done;

    closed = 1;
    look();
    dismiss_if_drained()
}

init
{
    byte i;

    atomic {
        do
        :: made < WORKERS ->
           made++; alive++; park[made] = PARKED; below[made] = top; top = made; run worker(made, 0)
        :: else -> break
        od;
        do
        :: i < TASKS -> run submitter(); i++
        :: else -> break
        od;
        run ticker();
#ifdef RELEASE
        run release()
#endif
    };
    timeout;
    assert(done == tail);
#ifdef RELEASE
    assert(alive == 0)
#else
    assert(alive >= MINIMUM)
#endif
}
