/*
 * A completion queue from inside: what a task that owes a completion calls, and the structs that its two files share.
 *
 * completion.c is the queue (cells, posting, waiting, the end), delivery.c what rings at the user's: the descriptor and
 * the user's ring.
 */
#ifndef POOL_COMPLETION_H
#define POOL_COMPLETION_H

#include "base/atomic.h"
#include "ring/reactor.h"

#include <ringpool/completion.h>
#include <ringpool/lock.h>

#include <stdalign.h>

/* --- what a task calls ------------------------------------------------------------------------------------------ */

/*
 * At submit: holds the queue and a place in it, so that the post can fail for nothing. 0; -ENOMEM; -EAGAIN: the queue's
 * limit; -ECHILD; -ESHUTDOWN: the caller destroyed it. Any thread; takes a lock only to grow.
 */
int cq_reserve(struct rp_cq *cq);

/*
 * Exactly one of these for each reserve. The caller is outside of an RCU section, and touches the queue no more: the
 * last one of a destroyed queue frees it, waiting for a grace period. In a forked child they do nothing.
 */
void cq_post(struct rp_cq *cq, uint64_t user_data, int result);
void cq_unreserve(struct rp_cq *cq);

/* --- the structs ------------------------------------------------------------------------------------------------ */

/* 16 bytes, four to a cache line: the sequence and the result share a word, so that one store publishes both. */
struct cell {
    uint64_t user_data;    /* ordered by word */
    _Atomic uint64_t word; /* low half of ticket + 1 above, the result below; from [publish] on the consumer's */
};

/* One generation of cells; a larger one is linked behind it when more completions are owed than it has cells. */
struct cells {
    struct cells *next;                         /* who grows: set before the generation is closed */
    uint64_t bound;                             /* constant: completions that may be owed while it is the newest */
    uint64_t mask;                              /* constant: cells - 1 */
    _Atomic uint64_t final;                     /* tickets that were given out; UINT64_MAX: still open */
    alignas(CACHE_APART) _Atomic uint64_t tail; /* next ticket; TAIL_CLOSED: none any more */
    alignas(CACHE_APART) struct cell cell[];
};

/* A completion's: the generation, and its ticket there. */
struct place {
    struct cells *at;
    uint64_t head;
};

#define CELLS_CLOSED (UINT64_C(1) << 63)
#define OWED_CLOSED (UINT64_C(1) << 63)
#define RINGING_AWAITED (UINT32_C(1) << 31)

/*
 * rp_cq.wake: what the consumer wants to be told by, 0 while it is awake. The threshold above the bits is for the futex
 * alone: the ticket, plus 1, of the completion it waits for; 0: any.
 */
enum { WAKE_FUTEX = 1, WAKE_FD = 2, WAKE_RING = 4, WAKE_PUMP = 8, WAKE_SHIFT = 4 };
#define WAKE_DEAD UINT64_MAX

enum { CONSUMER_INSIDE = 1, CONSUMER_AWAITED = 2, CONSUMER_GONE = 4 };

/*
 * Legend: C the consumer, or who pumps for it (the two never at once: see delivery.c); P whoever posts; k constant.
 */
struct rp_cq {
    alignas(CACHE_APART) _Atomic(struct cells *) cells; /* newest; by who grows, under lock */
    _Atomic uint64_t wake;                              /* C sets, P clears, by CAS: see completion.c */
    unsigned generation;                                /* k: fork_generation() at its making */
    bool per_completion;                                /* k */

    alignas(CACHE_APART) _Atomic uint64_t owed; /* reserved and not taken; OWED_CLOSED: destroyed */

    alignas(CACHE_APART) struct place place; /* C: of the next completion to take */
    struct cells *oldest;                    /* C: those from here to place.at are used up */
    uint64_t armed;        /* C: what C has put into `wake` for the time that it is away; 0: nothing */
    uint64_t signals;      /* C: WAKE_FD, WAKE_RING: what is wanted while C is away */
    int64_t spin_ns;       /* C: how long to look around before a sleep */
    int64_t spin_most_ns;  /* k */
    int64_t vain_at;       /* C: when it last polled in vain */
    uint32_t begun;        /* C: rings of the descriptor that others have begun */
    bool sounding;         /* C: the descriptor is readable, or about to be */
    bool late;             /* C: one of those rings may be of no use, see quieten in delivery.c */
    int fd;                /* C makes it; -1: none */
    bool fd_wanted;        /* C: by rp_cq_fd */
    bool polled;           /* C: the user's ring polls the descriptor, or did */
    uint64_t tag;          /* k */
    unsigned credits_most; /* k */
    int delivery;          /* k: RP_CQ_SEND, ... */
    int ring_fd;           /* a copy of the ring's; -1: none */
    struct io_uring *ring; /* until detach */

    alignas(CACHE_APART) _Atomic uint32_t rung; /* futex: rings of C's sleep */
    _Atomic uint32_t rang;                      /* rings of the descriptor that are over */
    _Atomic uint32_t ringing;                   /* futex: threads (and a deferred ring) that may yet ring; an awaiter */
    _Atomic uint32_t consuming;                 /* futex: CONSUMER_* */
    _Atomic uint32_t dying;                     /* destroy waits for the consumer to leave */
    _Atomic uint32_t attached;                  /* to a ring */
    _Atomic uint32_t credits;
    _Atomic uint32_t starved;  /* who pumped has left for want of credits */
    _Atomic uint32_t leaving;  /* who pumped, and look once more: no generation is freed meanwhile */
    _Atomic uint32_t deferred; /* the work or the timer below is under way */
    _Atomic uint32_t refused;  /* by the ring, for good: the errno */
    _Atomic int64_t pause_ns;  /* before the next attempt */
    struct work work;
    struct timer retry;
    struct reactor *reactor; /* k until destroy; NULL: none is needed */

    struct rp_lock lock; /* growing; taking for a consumer that is gone */
    unsigned limit;      /* k */
    struct rp_allocator allocator;
};

/* --- completion.c for delivery.c -------------------------------------------------------------------------------- */

/* Whether the next completion is there; sequentially consistent. C. */
bool cq_ready(struct rp_cq *cq);
/* Gives the pump up by WAKE_PUMP, then looks again, without it: false if a completion is there. C until the call. */
bool cq_pump_left(struct rp_cq *cq);
/* The i-th completion from the head on, if it is there and in the same generation. C. */
bool cq_peek(struct rp_cq *cq, unsigned i, struct rp_completion *out);
/* Takes n completions that were peeked at. C. */
void cq_drop_head(struct rp_cq *cq, unsigned n);
/* Becomes the consumer: 0, -EBUSY, -ECHILD, -ESHUTDOWN; and leaves. */
int cq_enter(struct rp_cq *cq);
void cq_leave(struct rp_cq *cq);
/* The last ring of who was counted in `ringing` is over. */
void cq_ringing_end(struct rp_cq *cq);
void cq_ringing_wait(struct rp_cq *cq);
unsigned cq_take(struct rp_cq *cq, struct rp_completion *out, unsigned max);

/* --- delivery.c for completion.c -------------------------------------------------------------------------------- */

/* For a new queue: what options.ring asks for. */
int delivery_open(struct rp_cq *cq, const struct rp_cq_options *options);
/* Tells by what `bits` say. The caller is counted in ringing. */
void delivery_ring(struct rp_cq *cq, uint64_t bits);
/* C goes to sleep or looks around: takes back what it had armed. */
void delivery_disarm(struct rp_cq *cq);
/* C goes away: arms what tells of the next completion, taking into out[n..max) what comes meanwhile. Returns n. */
unsigned delivery_arm(struct rp_cq *cq, struct rp_completion *out, unsigned n, unsigned max);
/* The body of rp_cq_detach. C. */
int delivery_detach(struct rp_cq *cq);
/* Gives descriptors and the reactor back; nobody rings any more. */
void delivery_close(struct rp_cq *cq);

#endif
