/*
 * The idle stack (src/pool/idle.c): linked by worker numbers, with a tag beside the top against the ABA.
 *
 * Worker 1 lies on 2 on 3. One thread takes one worker; another takes two and puts the first one back. Whatever happens
 * in between, each worker is on the stack or with whoever took it, once.
 *
 * Mistakes: NO_TAG (a CAS that slept between its look and itself takes what it must not: the ABA), PUSH_RELAXED (the
 * link of a pushed worker is seen later than its push), POP_RELAXED (whoever takes it does not ask for the link that
 * was written before the push; no machine with ordered loads shows it).
 */
#include "c11.h"

enum { WORKERS = 3, TOP_MASK = 3, TAG = 4 };

#ifdef NO_TAG
#define RETAG(top, now) (now)
#else
#define RETAG(top, now) ((((top) & ~(unsigned)TOP_MASK) + TAG) | (now))
#endif
#ifdef PUSH_RELAXED
#define push_cas cas_relaxed
#else
#define push_cas cas_seq
#endif
#ifdef POP_RELAXED
#define top_load load_relaxed
#define pop_cas cas_relaxed
#else
#define top_load load_seq
#define pop_cas cas_seq
#endif

static word top, next[WORKERS + 1];
static unsigned taken[WORKERS]; /* by thread 1, and by thread 2 twice */

/* One try. 0: somebody else was faster, or nobody is there. */
static unsigned pop(void)
{
    unsigned seen = top_load(&top);

    if (!(seen & TOP_MASK))
        return 0;
    unsigned below = load_relaxed(&next[seen & TOP_MASK]);
    return pop_cas(&top, &seen, RETAG(seen, below)) ? seen & TOP_MASK : 0;
}

static void push(unsigned worker)
{
    unsigned seen = load_relaxed(&top);

    do
        store_relaxed(&next[worker], seen & TOP_MASK);
    while (!push_cas(&top, &seen, RETAG(seen, worker)));
}

static void round_begin(void)
{
    store_relaxed(&top, 1);
    store_relaxed(&next[1], 2);
    store_relaxed(&next[2], 3);
    store_relaxed(&next[3], 0);
    taken[0] = taken[1] = taken[2] = 0;
}

static void thread1(void)
{
    taken[0] = pop();
}

static void thread2(void)
{
    taken[1] = pop();
    taken[2] = pop();
    if (taken[1]) {
        push(taken[1]);
        taken[1] = 0;
    }
}

static void round_end(void)
{
    unsigned places[WORKERS + 1] = {0}, at = load_relaxed(&top) & TOP_MASK;

    for (int i = 0; i < WORKERS; i++)
        places[taken[i]]++;
    for (int i = 0; i < WORKERS && at; i++, at = load_relaxed(&next[at]))
        places[at]++;
    MUST(at == 0, "the stack is a circle");
    MUST(places[1] == 1 && places[2] == 1 && places[3] == 1, "a worker is in two places, or in none");
}
