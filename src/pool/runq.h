/*
 * The run queue: accepted tasks that no worker has taken yet, and the count of those in flight.
 *
 * One bounded ring per priority class, each after D. Vyukov's bounded MPMC queue (1024cores.net, 2010): a slot's
 * sequence number says whose turn it is, so a submitter and a worker meet only in the slot they use. The rings of the
 * high and the low class are made at their first use.
 *
 * Capacity is a bound on flight. `tail` counts what was accepted, `done` what has ended; a claim succeeds only while
 * accepted - done < limit, where limit is capacity + queue depth. That gives hand-off semantics (with depth 0 every
 * accepted task has a worker, or one that may be made) at the price of one compare, and makes every gauge a
 * subtraction: queued = tail - head, busy = head - done.
 *
 * Both counts of a claim, and the closed bit that makes claims fail from the release on, stand in one word, so that
 * one compare-and-swap decides all three:
 *
 *     bit 63   closed
 *     62..40   side: claims of the high and low classes, modulo 2^23
 *     39..0    position: claims of the normal class = its ring's next position, modulo 2^40
 *
 * accepted = (position + side) mod 2^23, so flight is exact while it is below 2^22, which limits capacity + depth.
 *
 * At the other end the normal ring's head stands in one word with the count of ended tasks, of any class, modulo 2^24:
 *
 *     63..40   done
 *     39..0    head: next position to take
 *
 * so that a worker which has work waiting ends one task and takes the next by one compare-and-swap. What has ended
 * since the beginning is what was taken less what is taken and not in done; the halves of 2^40 that the heads have
 * passed are counted beside them.
 */
#ifndef POOL_RUNQ_H
#define POOL_RUNQ_H

#include "base/atomic.h"

#include <ringpool/lock.h>
#include <ringpool/pool.h>

#include <stdalign.h>

enum { CLASS_NORMAL, CLASS_HIGH, CLASS_LOW, CLASSES }; /* values of enum rp_priority */

#define FLIGHT_BITS 23
#define FLIGHT_MASK ((1U << FLIGHT_BITS) - 1)
#define FLIGHT_MAX (1U << (FLIGHT_BITS - 1))

#define POSITION_BITS 40
#define POSITION_MASK ((UINT64_C(1) << POSITION_BITS) - 1)
#define TAIL_CLOSED (UINT64_C(1) << 63)

/* A ring never has fewer slots (2 is what the sequence numbers need), nor more on account of the capacity alone. */
#ifndef RING_MIN /* the model has one of its own */
#define RING_MIN 64U
#endif
#define RING_MAX 65536U

/* Most workers that hold a share at a time. */
#define SHARES_MOST 16U

struct rp_cq;

/* A task as the queue carries it. */
struct entry {
    void (*fn)(void *arg);
    void *arg;
    void (*dropped)(void *arg, int reason);
    union {
        const char *label;
        struct rp_cq *cq; /* of ENTRY_CQ */
    };
    union {
        int64_t deadline;
        uint64_t user_data; /* of ENTRY_CQ */
    };
    int64_t timeout;
    uint64_t stamp; /* set if ENTRY_STAMPED: see measure.h */
    int cpu;        /* the submitter's, or -1; CPU_BATCH is added if it came in a long batch */
    uint32_t plain; /* ENTRY_* */
};

/*
 * FULL: all of it; PLAIN: fn, arg and cpu are set, the rest is zero; JOB: the same, and it is a job's, see job.h; CQ:
 * it owes a completion, which is all that it has beside fn and arg. The lowest bit says that it needs no extras.
 * ENTRY_STAMPED is added if it is measured.
 */
enum { ENTRY_FULL = 0, ENTRY_PLAIN = 1, ENTRY_CQ = 2, ENTRY_JOB = 3, ENTRY_STAMPED = 4 };

#define CPU_BATCH (1 << 30)

static inline bool entry_has_extras(uint32_t plain)
{
    return !(plain & 1);
}

/* Of an entry as it is taken: what it has no extras for is 0. */
static inline void entry_complete(struct entry *entry)
{
    if (entry_has_extras(entry->plain))
        return;
    entry->dropped = NULL;
    entry->label = NULL;
    entry->deadline = entry->timeout = 0;
}

/* Without ENTRY_STAMPED. */
static inline uint32_t entry_kind(const struct entry *entry)
{
    return entry->plain & ~(uint32_t)ENTRY_STAMPED;
}

static inline bool entry_stamped(const struct entry *entry)
{
    return entry->plain & ENTRY_STAMPED;
}

/* It is measured though it did not wait in the queue. */
static inline void entry_measure(struct entry *entry)
{
    entry->plain |= ENTRY_STAMPED;
    entry->stamp = 0;
}

/*
 * Half a cache line, for a stream of tasks costs what its lines cost to move between CPUs. `sequence` is p when the
 * slot is free for position p, p + 1 when position p is published in it, and p + size when its consumer has released
 * it. The rest, and the extras of the same index, belong to the claimer of p until it stores p + 1 [publish], then to
 * the worker that claims p at the head until it stores p + size [vacate].
 */
struct slot {
    alignas(32) _Atomic uint64_t sequence;
    void (*fn)(void *arg);
    void *arg;
    int cpu;
    uint32_t plain;
};
_Static_assert(sizeof(struct slot) == 32, "two slots are one cache line");

/* What few tasks have: kept apart, so that the others never touch it. */
struct extras {
    void (*dropped)(void *arg, int reason);
    union {
        const char *label;
        struct rp_cq *cq;
    };
    union {
        int64_t deadline;
        uint64_t user_data;
    };
    int64_t timeout;
};

struct ring {
    uint64_t mask; /* size - 1; constant */
    struct slot *slots;
    struct extras *extras;                      /* one for each slot */
    uint64_t *stamps;                           /* likewise; NULL: nothing is measured */
    struct share *shares;                       /* of the normal ring, see share.h; NULL: there are none */
    unsigned nshares;                           /* constant */
    _Atomic uint32_t shares_used;               /* W: shares from here on were never held; only grows, a few times */
    _Atomic uint64_t stamp_limit;               /* W: an entry is stamped whose hash is no more; 0: none is */
    struct rp_lock claim_lock;                  /* side classes: from the look at the ring's room to the claim */
    alignas(CACHE_APART) _Atomic uint64_t head; /* W: by CAS; the word described above, done of the normal ring only */
    _Atomic uint64_t halves;                    /* W: how often bit 39 of the head has changed; late by one at most */
    alignas(CACHE_APART) _Atomic uint64_t tail; /* next position to claim; side classes only, under claim_lock */
};

/*
 * Legend: S written by submitters, W by workers, O by whoever makes or tunes the pool under its lock.
 */
struct runq {
    alignas(CACHE_APART) _Atomic uint64_t tail; /* S: the word described above */
    _Atomic uint32_t done_seen; /* S: a recent value of done: a stale one only makes a claim reload it */
    _Atomic uint64_t head_seen; /* S: a recent value of the normal ring's head: likewise */
    alignas(CACHE_APART) _Atomic uint32_t limit; /* O: most tasks in flight */
    _Atomic uint32_t sides;                      /* O: 1 once a side ring exists */
    _Atomic uint64_t gate;                       /* room.c: newcomers claim only below it; 0: open */
    _Atomic(struct ring *) rings[CLASSES];       /* O: set once, published with release */
    uint64_t size;                               /* constant: slots of each ring */
    const struct rp_allocator *allocator;
};

/* 0 or -ENOMEM. `shares`: workers may take several tasks at once, see share.h. */
int runq_init(struct runq *q, const struct rp_allocator *allocator, unsigned capacity, unsigned depth, bool shares);

/* From now on entries are measured. Before anybody else sees the queue. 0 or -ENOMEM. */
int runq_measure(struct runq *q);
void runq_destroy(struct runq *q);

/* Makes the ring of a side class if it is not there. 0 or -ENOMEM. The caller holds the pool's lock. */
int runq_add_class(struct runq *q, unsigned class);

/*
 * Claims up to n positions of a class. Returns how many (their first in *first), or
 * -ESHUTDOWN: closed; -EAGAIN: no room (or `newcomer`, and the gate is shut in favour of blocked submitters);
 * -EBUSY: room in flight but not in the ring: either a consumer is just leaving the slot, or the ring holds as many
 * tasks as it can while workers are still to be made.
 */
int runq_claim(struct runq *q, unsigned class, unsigned n, bool newcomer, uint64_t *first);

/*
 * From now on one entry in so many, a power of two, is stamped: a hint. The second: in how many at the moment; 0: none.
 */
void runq_stamp_every(struct runq *q, uint64_t every);
uint64_t runq_stamped_every(const struct runq *q);

/* Fills a claimed slot and publishes it, the last of a batch with sequential consistency: [publish]. */
void runq_publish(struct runq *q, unsigned class, uint64_t position, const struct entry *entry, bool last);

/* Taking the oldest task of all is runq_take of runq_path.h. */

/*
 * Takes the oldest task of the class, waiting for its submitter, who may be between claim and publish. false:
 * everything that was claimed there has been taken.
 */
bool runq_take_class(struct runq *q, unsigned class, struct entry *out);

/* Takes the oldest published task of the lowest class that has one. */
bool runq_take_lowest(struct runq *q, struct entry *out);

/*
 * Whether a task is ready, or was while we looked. Sequentially consistent: the re-check after a push onto the idle
 * stack, see idle.h. A head that moves under the look counts as ready: what stands behind it was not seen.
 */
bool runq_ready(struct runq *q);

/* The same without what workers have put aside for themselves. */
bool runq_incoming(struct runq *q);

/* Whether everything that was ever claimed has been taken. */
bool runq_drained(struct runq *q);

/* What who takes tasks remembers of that; its own. */
struct taker {
    unsigned turn;        /* of the classes */
    uint32_t taken;       /* tasks, */
    uint64_t last;        /* the last of them at this position, */
    uint32_t lost_taken;  /* `taken` when it last lost a take to another, */
    int64_t lost_at;      /* and when that was */
    bool meets;           /* it has lost one among brief tasks, and not made way since */
    struct share *share;  /* that it holds, or NULL */
    uint64_t word;        /* of the share, as it last left it */
    uint64_t position;    /* of the next task in it */
    unsigned share_most;  /* how many tasks it takes at once: by how long they were */
    bool brief;           /* they took less than BRIEF_NS */
    unsigned stride;      /* the head goes on by so many from each to the next, as far as is known, and they are not
                             short; 0: not so */
    uint32_t alike;       /* so many of them, 64 at most, took no more than 16 us */
    uint32_t timed_taken; /* `taken` when it last looked how long, */
    uint64_t timed_last;  /* and `last`, */
    uint64_t step;        /* of the head from each of its tasks to the next, then, */
    int64_t timed_at;     /* and when that was; 0: it has had nothing to do since then */
    int64_t looked_at;    /* at the shares of others */
};

/*
 * A task shorter than this takes less time than its line does from one CPU to another. Measured; see bench/RESULTS.md.
 */
#define BRIEF_NS 150

#define DONE_ONE (UINT64_C(1) << POSITION_BITS)

static inline struct ring *runq_normal(const struct runq *q)
{
    return load_relaxed(&q->rings[CLASS_NORMAL]); /* constant since creation */
}

static inline uint32_t tail_accepted(uint64_t tail)
{
    return (uint32_t)((tail & POSITION_MASK) + ((tail & ~TAIL_CLOSED) >> POSITION_BITS)) & FLIGHT_MASK;
}

static inline uint32_t head_done(uint64_t head)
{
    return (uint32_t)(head >> POSITION_BITS) & FLIGHT_MASK;
}

/* What has ended in shares, modulo 2^24: see share.h. */
uint32_t shares_done(const struct ring *ring);

/* Tasks of any class that have ended, however, modulo 2^23. The head first: the sum is never more than has. */
static inline uint32_t ring_done(const struct ring *ring)
{
    uint32_t done = head_done(load_seq(&ring->head));

    if (__builtin_expect(load_seq(&ring->shares_used) != 0, 0))
        done += shares_done(ring);
    return done & FLIGHT_MASK;
}

static inline uint32_t runq_done(const struct runq *q)
{
    return ring_done(runq_normal(q));
}

/* One more has. */
static inline void runq_end(struct runq *q)
{
    add_seq(&runq_normal(q)->head, DONE_ONE); /* [end], E1 in room.c */
}

/* Tasks accepted and not ended; tasks accepted and not begun. */
unsigned runq_flight(const struct runq *q);
unsigned runq_queued(const struct runq *q);

/*
 * One reading of the counts: done since the beginning, and at one moment not before that what is queued, and what is
 * taken and not in done.
 */
struct runq_counts {
    uint64_t done;
    unsigned queued, taken;
};
struct runq_counts runq_count(const struct runq *q);

bool runq_closed(const struct runq *q);

/* Whether one more task would be within the limit. Sequentially consistent: a blocked submitter's re-check. */
static inline bool runq_has_room(const struct runq *q)
{
    uint32_t done = runq_done(q);

    return ((tail_accepted(load_seq(&q->tail)) - done) & FLIGHT_MASK) < load_seq(&q->limit);
}

static inline bool gate_shut_at(const struct runq *q, uint64_t tail)
{
    uint64_t gate = load_acquire(&q->gate);

    return gate && ((tail_accepted(tail) - (uint32_t)gate) & FLIGHT_MASK) < FLIGHT_MAX;
}

/* Whether newcomers would be refused in favour of blocked submitters. A hint. */
static inline bool runq_gate_shut(const struct runq *q)
{
    return gate_shut_at(q, load_acquire(&q->tail));
}

#endif
