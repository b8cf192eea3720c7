/*
 * Shares: what a worker puts aside for itself.
 *
 * Each take at the head moves that word's cache line to the CPU of the worker, and where several workers take, tasks of
 * some hundred nanoseconds wait for lines as long as they run. So a worker with such tasks takes several positions at
 * the head by one CAS: its share. It begins and ends them by a CAS on a word that is its own but for thieves: they stay
 * published in their slots until they begin, and whoever finds no other task takes the last one of a share. Tasks so
 * begin in another order than they came: a pool has shares only if its user says that they may (unordered).
 *
 * The word of a share:
 *
 *     63..40  done       tasks that its holders have ended, ever, modulo 2^24
 *     39..8   next       position of the next task, modulo 2^32
 *     7..1    left       tasks from there on
 *     0       tentative  the holder is about to take these positions at the head, or has just done so
 *
 * Holder                                               Thief
 *   takes:  left > 0: CAS to done + 1 (its last task     left > 0, not tentative: CAS to left - 1:
 *           has ended), next + 1, left - 1                 position next + left is its own
 *   refills, with left = 0:
 *     R1 word = first position | n | tentative
 *     R2 CAS of the head over those n, all published
 *     R3 word = the same, not tentative; or left = 0
 *        if R2 was in vain
 *
 * Each task begins once. A position is at the head until R2, and after that in one share, whose word is changed by CAS
 * while left > 0 and it is not tentative; each such CAS takes one position out of it. Else the word is the holder's
 * alone. next only grows (2^32 positions are not passed between two looks of a thread), so no value of the word comes
 * back while left > 0.
 *
 * No look misses a task (idle.h rests on that). Whoever looks for work looks at the head, then at the shares, both
 * sequentially consistent. A task that is at the head no more was in a share before that (R1, R2), and is seen there
 * until it is begun. What is seen and then not to be had, in the time from R1 to R3, costs another look; that time is
 * some instructions, which a holder may be preempted in, as a submitter between claim and publish.
 *
 * No end is missed: it is a sequentially consistent operation on the word (R1, or the CAS) before the look at who waits
 * for it, as that on the head is: E1, E2 in room.c.
 *
 * No task waits for one that blocks while a worker is free. Who finds no other task looks at a share twice, REST_TURNS
 * apart, and steals from one that rests; it does not park while there is one that moves. A worker that always finds
 * tasks looks once in SHARE_LOOK_NS, and steals from a share that has rested for as long. A holder that parks, leaves
 * or ends its thread lets its share go; what is left in it is stolen like the rest.
 *
 * No slot is held for long. What waits in a share keeps its slot, while the head goes on. The ring has RING_SLACK slots
 * more than tasks may be in flight, and nobody takes a share, or the head past a multiple of SHARE_MOST, when the head
 * could then come further ahead of the first task in a share, before the next such look, than there are slots to spare
 * (share_lags): it steals that task instead. So a submitter that may claim finds its slot free, as without shares, or
 * about to be; only where the limit has grown meanwhile it may have to wait until a worker is free.
 */
#ifndef POOL_SHARE_H
#define POOL_SHARE_H

#include "pool/runq.h"

#ifndef SHARE_MOST      /* the model has figures of its own */
#define SHARE_MOST 16U  /* positions that are taken at once */
#define SHARE_FIRST 1   /* what a worker takes at once before it knows its tasks */
#define SHARE_OTHERS 8U /* so many others are left a share each, published, by who takes one */
#define SHARE_DEPTH(others) (((others) < SHARE_OTHERS ? (others) : SHARE_OTHERS) * SHARE_MOST)
#define SHARE_LOOK_NS INT64_C(4000000) /* a tick of coarse clocks */
#define SHARE_NAP_NS 1000              /* and the timer's slack, 50 us */
#define SHARE_CPUS cpu_allowed()
#define RING_SLACK 256U /* slots beyond what may be in flight: where there are fewer there are no shares */
#endif

struct share {
    alignas(CACHE_APART) _Atomic uint64_t word;  /* see above */
    _Atomic uint32_t held;                       /* some worker has it */
    alignas(CACHE_APART) _Atomic uint64_t rests; /* a hint: the word when somebody last looked whether it moves, */
    _Atomic int64_t rests_at;                    /* and since when it is so; 0: not known */
};

#define SHARE_TENTATIVE UINT64_C(1)
#define SHARE_LEFT_ONE (UINT64_C(1) << 1)
#define SHARE_NEXT_ONE (UINT64_C(1) << 8)
#define SHARE_NEXT_MASK (UINT64_C(0xffffffff) << 8)

static inline unsigned share_left(uint64_t word)
{
    return (unsigned)(word >> 1) & 0x7f;
}

static inline uint32_t share_next(uint64_t word)
{
    return (uint32_t)(word >> 8);
}

/* The word of a holder who goes on to the next task, and whose last one, if it `ends`, has ended. */
static inline uint64_t share_after(uint64_t word, bool ends)
{
    uint64_t done = (word & ~POSITION_MASK) + (ends ? DONE_ONE : 0);

    return done | ((word + SHARE_NEXT_ONE) & SHARE_NEXT_MASK) | ((word & 0xff) - SHARE_LEFT_ONE);
}

/* Makes the shares of a new ring, one for each CPU, none on a single one. 0 or -ENOMEM. */
int shares_create(struct ring *ring, const struct rp_allocator *allocator);

/* Whether something is left of the caller's share, for all that it knows. */
static inline bool share_is_open(const struct taker *taker)
{
    return share_left(taker->word) != 0;
}

/*
 * Takes more into the caller's share, of which nothing is left, and gets it one first if need be. true: something is in
 * it. If *ends, the task that the caller has ended is counted, and *ends reset, at the latest by a success.
 */
bool share_refill(const struct runq *q, struct taker *taker, bool *ends);

/* Whether the head may not pass this position before the first task that is left in a share has begun. */
bool share_lags(const struct runq *q, uint64_t position);

/* The caller gives up its share. */
void share_leave(struct taker *taker);

/* Learns how long the last tasks took: whether they are brief, how many to take at once, and the stride. */
void taker_learn(const struct runq *q, struct taker *taker);

/*
 * Steals a task from a share that rests: `now`: for long, as seen by those who call so; 0: between two looks. 1; 0:
 * nothing is in any share; -EAGAIN: there is, and it moves.
 */
int share_rob(struct ring *ring, int64_t now, struct entry *out);

/* Steals a task from the share in which the first one is left, or from another. */
bool share_steal(struct ring *ring, struct entry *out);

/* What is left in the shares. */
unsigned shares_left(const struct ring *ring);

#endif
