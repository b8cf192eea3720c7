/*
 * The wait for room of src/pool/room.c: the head of the blocked submitters against two tasks that end, and a newcomer
 * that claims what it finds.
 *
 * Nothing has room at first, and there is room for one of the two by the end. So the head has claimed it, or sleeps and
 * was called.
 *
 * Mistakes: CLEAR_LATE (pending is cleared behind the claim), NO_CLEAR, RESET_LATE (the own word goes back to looking
 * behind the claim), COUNT_LATE (counted behind the claim), CALL_STORE (a call is a store and a look, no exchange);
 * DONE_ACQ_REL, ATTENTION_ACQUIRE, COUNT_ACQ_REL, CLEAR_RELEASE, CLAIM_ACQUIRE (an access of the argument is not
 * sequentially consistent; DONE_ACQ_REL and COUNT_ACQ_REL show only where a read-modify-write can be passed).
 * SMALL: without the newcomer, for checkers that do not get through otherwise; CLEAR_LATE and CLEAR_RELEASE are no
 * mistakes there.
 */
#ifdef SMALL
#define C11_THREADS 3
#else
#define C11_THREADS 4
#endif
#include "c11.h"

enum { LOOKING, SLEEPING, CALLED };

#ifdef DONE_ACQ_REL
#define done_add add_acq_rel
#else
#define done_add add_seq
#endif
#ifdef ATTENTION_ACQUIRE
#define attention_load load_acquire
#else
#define attention_load load_seq
#endif
#ifdef COUNT_ACQ_REL
#define count_add add_acq_rel
#else
#define count_add add_seq
#endif
#ifdef CLEAR_RELEASE
#define clear store_release
#else
#define clear store_seq
#endif
#ifdef CLAIM_ACQUIRE
#define claim_load load_acquire
#else
#define claim_load load_seq
#endif

static word done, taken, attention, pending, state;
static unsigned claimed, asleep, woken[3];

static void task_ends(unsigned me)
{
    done_add(&done, 1);              /* E1 */
    if (!attention_load(&attention)) /* E2 */
        return;
    if (load_seq(&pending) || exchange_seq(&pending, 1)) /* E3 */
        return;
#ifdef CALL_STORE
    unsigned before = load_acquire(&state);
    store_release(&state, CALLED);
#else
    unsigned before = exchange_acq_rel(&state, CALLED); /* E4 */
#endif
    if (before == SLEEPING)
        woken[me] = 1;
}

static unsigned claim(void)
{
    unsigned seen = claim_load(&taken);

    do
        if (seen >= claim_load(&done))
            return 0;
    while (!cas_seq(&taken, &seen, seen + 1));
    return 1;
}

/* 1: called before it slept, it looks again. */
static int look_and_sleep(void)
{
    unsigned word = LOOKING;

#ifndef RESET_LATE
    store_relaxed(&state, LOOKING); /* H2 */
#endif
#if !defined(CLEAR_LATE) && !defined(NO_CLEAR)
    clear(&pending, 0); /* H3 */
#endif
    claimed = claim(); /* H4 */
    if (claimed)
        return 0;
#ifdef CLEAR_LATE
    clear(&pending, 0);
#endif
#ifdef RESET_LATE
    store_relaxed(&state, LOOKING);
#endif
    asleep = cas_acq_rel(&state, &word, SLEEPING); /* H5 */
    return !asleep;
}

static void round_begin(void)
{
    store_relaxed(&done, 0);
    store_relaxed(&taken, 0);
    store_relaxed(&attention, 0);
    store_relaxed(&pending, 0);
    store_relaxed(&state, LOOKING);
    claimed = asleep = woken[1] = woken[2] = 0;
#ifdef NO_CLEAR
    store_relaxed(&pending, 1); /* of a call for a head that has gone */
#endif
}

static void thread1(void)
{
    task_ends(1);
}

static void thread2(void)
{
    task_ends(2);
}

static void thread3(void)
{
#ifndef COUNT_LATE
    count_add(&attention, 1); /* H1 */
#endif
    while (look_and_sleep())
        ;
#ifdef COUNT_LATE
    count_add(&attention, 1);
#endif
}

#ifndef SMALL
static void thread4(void)
{
    claim();
}
#endif

static void round_end(void)
{
    MUST(claimed || (asleep && (woken[1] || woken[2])), "there is room, and the head was not called");
}
