/*
 * The hand-off of src/pool/idle.h: a task is published and then a parked worker looked for; a worker parks and then
 * looks for a task once more.
 *
 * Two submitters with a task each; two workers, one that searches at first and one that comes from a task. Each task
 * waits for ever, so a worker that has one never looks again: whatever it owes the other one it must have done before.
 * At the end no published task may lie there unless a worker was called that will look.
 *
 * Mistakes: NO_RECHECK, RECHECK_FIRST (the look stands before the push), NO_CHAIN (who found a task does not look for a
 * second one), SKIP_IF_AWAKE (nobody is called while some worker is not parked), READY_WITHOUT_HEAD (the look does not
 * notice that the head moved under it), NOTIFY_STORE (a call is a store and a look, no exchange), SLEEP_STORE (the
 * worker does not notice a call between push and sleep); PUBLISH_RELEASE, IDLE_ACQUIRE, PUSH_ACQ_REL, RECHECK_ACQUIRE
 * (one of the four accesses of the argument is not sequentially consistent).
 * SMALL: one submitter and one worker, for checkers that do not get through otherwise; NO_CHAIN, SKIP_IF_AWAKE and
 * READY_WITHOUT_HEAD are no mistakes there.
 */
#ifdef SMALL
#define C11_THREADS 2
#define TASKS 1
#define WORKERS 1
#else
#define C11_THREADS 4
#define TASKS 2
#define WORKERS 2
#endif
#include "c11.h"

enum { TOP_MASK = 3, SEARCHER = 4, SEARCHING_MASK = 12, TAG = 16 };
enum { AWAKE, PARKING, SLEEPING, NOTIFIED };

#ifdef PUBLISH_RELEASE
#define publish store_release
#else
#define publish store_seq
#endif
#ifdef IDLE_ACQUIRE
#define idle_load load_acquire
#else
#define idle_load load_seq
#endif
#ifdef PUSH_ACQ_REL
#define push_cas cas_acq_rel
#else
#define push_cas cas_seq
#endif
#ifdef RECHECK_ACQUIRE
#define recheck_load load_acquire
#else
#define recheck_load load_seq
#endif

static word idle; /* 0..1: the top worker, 2..3: how many search, from 4: the tag */
static word head, tail, published[TASKS], park[WORKERS + 1], next[WORKERS + 1];
static unsigned argument[TASKS], ran[TASKS], asleep[WORKERS + 1], woken[WORKERS + 1];

static unsigned packed(unsigned seen, unsigned top, unsigned searching)
{
    return ((seen & ~(TAG - 1U)) + TAG) | searching | top;
}

/* Whether a task is there, or was while we looked. */
static int ready(void)
{
    unsigned at = recheck_load(&head);

    if (at < TASKS && recheck_load(&published[at]))
        return 1;
#ifdef READY_WITHOUT_HEAD
    return 0;
#else
    return recheck_load(&head) != at;
#endif
}

/* P2, P3: calls a parked worker unless somebody searches. */
static void call_one(void)
{
    unsigned seen = idle_load(&idle), top;

    do {
        top = seen & TOP_MASK;
        if (seen & SEARCHING_MASK || !top)
            return;
#ifdef SKIP_IF_AWAKE
        if (!load_relaxed(&next[top])) /* the other worker is not parked */
            return;
#endif
    } while (!cas_seq(&idle, &seen, packed(seen, load_relaxed(&next[top]), SEARCHER)));
#ifdef NOTIFY_STORE
    unsigned before = load_acquire(&park[top]);
    store_release(&park[top], NOTIFIED);
#else
    unsigned before = exchange_acq_rel(&park[top], NOTIFIED);
#endif
    if (before == SLEEPING)
        woken[top] = 1; /* it will look */
}

static void submit(unsigned value)
{
    unsigned at = add_acq_rel(&tail, 1);

    argument[at] = value;
    publish(&published[at], 1); /* P1 */
    call_one();
}

/* A searcher that found a task leaves the state and looks for one more: the wake chain. */
static void search_end(void)
{
    unsigned seen = add_seq(&idle, -(unsigned)SEARCHER);

#ifndef NO_CHAIN
    if ((seen & SEARCHING_MASK) == SEARCHER && ready())
        call_one();
#endif
    (void)seen;
}

static int take(void)
{
    unsigned at = load_acquire(&head);

    while (at < TASKS && load_acquire(&published[at]))
        if (cas_acq_rel(&head, &at, at + 1)) {
            MUST(argument[at] == 7 || argument[at] == 8, "a task without its argument");
            ran[at]++;
            store_release(&published[at], 0); /* the slot is empty: only the head tells what stood there */
            return 1;
        }
    return 0;
}

/* One turn of a worker, which is counted as searching or not: 1, it was called and searches now. */
static int look_and_park(unsigned me, int searching)
{
    unsigned seen = load_relaxed(&idle), state = PARKING;

    if (take()) {
        if (searching)
            search_end();
        return 0;
    }
    store_relaxed(&park[me], PARKING);
#ifdef RECHECK_FIRST
    int found = ready();
#endif
    do
        store_relaxed(&next[me], seen & TOP_MASK);
    while (!push_cas(&idle, &seen, packed(seen, me, (seen & SEARCHING_MASK) - (searching ? SEARCHER : 0U)))); /* W1 */
#if defined(RECHECK_FIRST)
    if (found)
        call_one();
#elif !defined(NO_RECHECK)
    if (ready()) /* W2 */
        call_one();
#endif
#ifdef SLEEP_STORE
    if (load_acquire(&park[me]) == PARKING) {
        store_release(&park[me], SLEEPING);
#else
    if (cas_acq_rel(&park[me], &state, SLEEPING)) { /* W4 */
#endif
        asleep[me] = 1;
        return 0;
    }
    (void)state;
    return 1;
}

static void worker(unsigned me, int searching)
{
    while (look_and_park(me, searching))
        searching = 1;
}

static void round_begin(void)
{
    store_relaxed(&idle, SEARCHER);
    store_relaxed(&head, 0);
    store_relaxed(&tail, 0);
    for (int i = 0; i < TASKS; i++) {
        store_relaxed(&published[i], 0);
        argument[i] = ran[i] = 0;
    }
    for (int i = 0; i <= WORKERS; i++) {
        store_relaxed(&park[i], AWAKE);
        store_relaxed(&next[i], 0);
        asleep[i] = woken[i] = 0;
    }
}

#ifdef SMALL
static void thread1(void)
{
    submit(7);
}

static void thread2(void)
{
    worker(1, 1);
}
#else
static void thread1(void)
{
    submit(7);
}

static void thread2(void)
{
    submit(8);
}

static void thread3(void)
{
    worker(1, 1);
}

static void thread4(void)
{
    worker(2, 0);
}
#endif

static void round_end(void)
{
    unsigned left = 0, coming = 0;

    for (int i = 0; i < TASKS; i++) {
        MUST(ran[i] <= 1, "a task ran twice");
        left += !ran[i];
    }
    for (int i = 1; i <= WORKERS; i++)
        coming += asleep[i] && woken[i];
    MUST(!left || coming, "a task lies there and nobody will look");
}
