/*
 * Submit, park, wake chain and the making of workers, as pool/idle.h argues them: no task is stranded.
 *
 * TASKS submitters, each with one task; at most CAPACITY workers, none at first. With DEPENDENT, task 0 ends only after
 * task 1 has started, so that "somebody is awake" is no excuse. Each line between semicolons is one access of a shared
 * word; a CAS compares the word's tag. Checked: at the end of all (timeout) every task is done.
 *
 *     spin -a idle.pml && cc -O2 -DSAFETY -DVECTORSZ=2048 -o pan pan.c && ./pan -m200000
 *
 * Seeded mistakes, each of which must fail: -DNO_CHAIN, -DNO_RECHECK, -DGROW_LATE (a worker is made only when flight
 * exceeds alive by more than one).
 */
#ifndef TASKS
#define TASKS 2
#endif
#ifndef CAPACITY
#define CAPACITY 2
#endif
#ifdef GROW_LATE
#define SLACK 1
#else
#define SLACK 0
#endif

#define AWAKE 0
#define PARKED 1
#define NOTIFIED 2

byte tail, head, done, searching, tag, top, alive, made;
bit published[TASKS + 1];
bit started[TASKS + 1];
byte below[CAPACITY + 1];
byte park[CAPACITY + 1];

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
          :: w_alive >= CAPACITY -> break
          :: else
          fi;
          w_done = done;
          if
          :: tail - w_done <= w_alive + SLACK -> break
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
                 :: alive < CAPACITY -> alive++; w_won = 1
                 :: else -> w_won = 0
                 fi
             };
             if
             :: w_won -> atomic { made++; run worker(made) }; break
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

proctype worker(byte me)
{
    bit mine = 1, w_won, ready;
    byte task, h, w_tag, w_top, w_search, w_alive, w_done;

loop:
    atomic {
        if
        :: published[head] -> task = head; head++; goto got
        :: else
        fi
    }
    park[me] = AWAKE;
    atomic { below[me] = top; top = me; tag++; searching = searching - mine; mine = 0 };
#ifndef NO_RECHECK
    h = head;
    ready = published[h];
    if
    :: ready || head != h -> wake_one()
    :: else
    fi;
#endif
    atomic { h = 0; ready = 0 };
end_asleep:
    park[me] == NOTIFIED;
    park[me] = AWAKE;
    mine = 1;
    goto loop;
got:
    if
    :: mine ->
       mine = 0;
       atomic { searching--; w_won = (searching == 0) };
#ifndef NO_CHAIN
       if
       :: w_won ->
          h = head;
          ready = published[h];
          if
          :: ready || head != h -> wake_one()
          :: else
          fi
       :: else
       fi;
#endif
       atomic { h = 0; ready = 0; w_won = 0 }
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
    goto loop
}

proctype submitter()
{
    byte at, w_tag, w_top, w_search, w_alive, w_done;
    bit w_won;

    atomic { at = tail; tail++ };
    published[at] = 1;
    wake_one()
}

init
{
    byte i;

    atomic {
        do
        :: i < TASKS -> run submitter(); i++
        :: else -> break
        od
    };
    timeout;
    assert(done == TASKS)
}
