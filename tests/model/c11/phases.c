/*
 * The grace periods of src/base/phases.c: two readers against an updater that replaces an object twice, and frees each
 * after a grace period.
 *
 * No reader may look at what is freed. An updater that sleeps at the end for a count that is 0 must have been woken.
 *
 * Mistakes: ONE_COUNT (a grace period waits for one count only), COUNT_BY_NOW (a section ends in the count of the phase
 * of that moment), WAITS_LATE (`waits` is stored behind the kernel's look at the count), WAITS_FIRST (`waits` is read
 * before the count is brought to 0), ENTER_RELAXED (a section's loads may be earlier than its count).
 */
#define C11_THREADS 3
#include "c11.h"

static word phase, waits, readers[2], published, freed[3], woken[2];
static unsigned asleep; /* for that count + 1 */

static void section(void)
{
    unsigned mine = load_seq(&phase); /* R1 */

#ifdef ENTER_RELAXED
    unsigned before = load_relaxed(&readers[mine]);
    while (!cas_relaxed(&readers[mine], &before, before + 1))
        ;
#else
    add_seq(&readers[mine], 1);                                /* R2 */
    full_fence();                                              /* R3 */
#endif
    MUST(!load_relaxed(&freed[load_acquire(&published)]), "a section sees what is freed"); /* R4 */
#ifdef COUNT_BY_NOW
    mine = load_seq(&phase);
#endif
#ifdef WAITS_FIRST
    unsigned somebody = load_seq(&waits);
    if (add_seq(&readers[mine], -1U) == 1 && somebody)
        store_seq(&woken[mine], 1);
#else
    if (add_seq(&readers[mine], -1U) == 1 && load_seq(&waits)) /* R5 */
        store_seq(&woken[mine], 1);
#endif
}

/* The kernel's futex: sleeps only if the word still stands at what was read. 0: asleep for good. */
static int wait_for(unsigned count)
{
    for (unsigned found; (found = load_seq(&readers[count]));) {
        store_seq(&woken[count], 0);
        if (load_seq(&readers[count]) == found) {
#ifdef WAITS_LATE
            store_seq(&waits, 1);
#endif
            asleep = count + 1;
            return 0;
        }
    }
    return 1;
}

static int grace_period(void)
{
    full_fence(); /* G1 */
#ifndef WAITS_LATE
    store_seq(&waits, 1);
#endif
#ifdef ONE_COUNT
    for (int i = 0; i < 1; i++) {
#else
    for (int i = 0; i < 2; i++) {
#endif
        unsigned old = load_seq(&phase);
        store_seq(&phase, !old); /* G2 */
        if (!wait_for(old))      /* G3 */
            return 0;
    }
    store_seq(&waits, 0);
    return 1;
}

static void round_begin(void)
{
    store_relaxed(&phase, 0);
    store_relaxed(&waits, 0);
    store_relaxed(&published, 0);
    for (int i = 0; i < 2; i++) {
        store_relaxed(&readers[i], 0);
        store_relaxed(&woken[i], 0);
    }
    for (int i = 0; i < 3; i++)
        store_relaxed(&freed[i], 0);
    asleep = 0;
}

static void thread1(void)
{
    section();
}

static void thread2(void)
{
    section();
}

static void thread3(void)
{
    for (unsigned object = 0; object < 2; object++) {
        store_release(&published, object + 1);
        if (!grace_period())
            return;
        store_relaxed(&freed[object], 1);
    }
}

static void round_end(void)
{
    MUST(!asleep || load_relaxed(&woken[asleep - 1]) || load_relaxed(&readers[asleep - 1]),
         "nobody is left in the count that is slept for, and nobody woke who sleeps");
}
