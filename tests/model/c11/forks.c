/*
 * Holding forks off (src/base/fork.c): two threads that do, one of them twice, against a fork.
 *
 * While the fork is under way nobody holds, and each side sees what the other did before. Nobody sleeps for good.
 *
 * Mistakes: COUNT_BESIDE (who holds counts, whether a fork is under way or not), SILENT (the last one out wakes nobody),
 * WAKE_FIRST (the fork wakes before it takes its bit away), OUT_RELAXED (the fork does not see what was done under a
 * hold), BIT_RELAXED (a hold does not see what the fork did).
 */
#define C11_THREADS 3
#include "c11.h"

enum { FORK = 256, HOLDERS = 2, FORKER = HOLDERS };

static word holders, held[HOLDERS], forking, woken[HOLDERS + 1];
static unsigned asleep[HOLDERS + 1];

static void wake_all(void)
{
    for (int i = 0; i <= HOLDERS; i++)
        store_seq(&woken[i], 1);
}

/* The kernel's futex: sleeps only if the word still stands at what was read. 1: asleep for good. */
static int sleeps(int who, unsigned seen)
{
    store_seq(&woken[who], 0);
    if (load_seq(&holders) != seen)
        return 0;
    asleep[who] = 1;
    return 1;
}

/* 0: asleep for good. */
static int hold(int who)
{
    unsigned seen = load_relaxed(&holders);

    do {
#ifndef COUNT_BESIDE
        while (seen & FORK) {
            if (sleeps(who, seen))
                return 0;
            seen = load_relaxed(&holders);
        }
#endif
    } while (!cas_acq_rel(&holders, &seen, seen + 1)); /* H1 */
    MUST(!load_relaxed(&forking), "somebody holds beside a fork");
    store_relaxed(&held[who], 1);
    store_relaxed(&held[who], 0);
#ifdef OUT_RELAXED
    seen = load_relaxed(&holders);
    while (!cas_relaxed(&holders, &seen, seen - 1))
        ;
#else
    seen = add_acq_rel(&holders, -1U); /* H2 */
#endif
#ifndef SILENT
    if (seen == FORK + 1)
        wake_all();
#endif
    return 1;
}

static void round_begin(void)
{
    store_relaxed(&holders, 0);
    store_relaxed(&forking, 0);
    for (int i = 0; i < HOLDERS; i++)
        store_relaxed(&held[i], 0);
    for (int i = 0; i <= HOLDERS; i++) {
        store_relaxed(&woken[i], 0);
        asleep[i] = 0;
    }
}

static void thread1(void)
{
    if (hold(0))
        hold(0);
}

static void thread2(void)
{
    hold(1);
}

static void thread3(void)
{
    unsigned seen = load_relaxed(&holders);

    while (!cas_seq(&holders, &seen, seen | FORK)) /* F1 */
        ;
    for (seen |= FORK; seen != FORK; seen = load_acquire(&holders)) /* F2 */
        if (sleeps(FORKER, seen))
            return;
    MUST(!load_relaxed(&held[0]) && !load_relaxed(&held[1]), "a fork beside somebody who holds");
    store_relaxed(&forking, 1);
    store_relaxed(&forking, 0);
#ifdef WAKE_FIRST
    wake_all();
#endif
#ifdef BIT_RELAXED
    store_relaxed(&holders, 0);
#else
    store_release(&holders, 0); /* F3 */
#endif
#ifndef WAKE_FIRST
    wake_all();
#endif
}

static void round_end(void)
{
    int goes_on = asleep[FORKER] && load_relaxed(&woken[FORKER]); /* and would come to F3 */

    MUST(!asleep[FORKER] || goes_on, "a fork sleeps, and nobody will wake it");
    for (int i = 0; i < HOLDERS; i++)
        MUST(!asleep[i] || load_relaxed(&woken[i]) || goes_on, "somebody sleeps who nobody will wake");
}
