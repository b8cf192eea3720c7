/*
 * A future from the inside. future.c tells what its word says; wait.c how it is waited for, and run while waiting.
 */
#ifndef POOL_FUTURE_H
#define POOL_FUTURE_H

#include "base/cpu.h"
#include "base/fork.h"
#include "base/futex.h"
#include "pool/context.h"
#include "pool/job.h"
#include "pool/spare.h"

#include <errno.h>
#include <ringpool/future.h>

/* The word. */
#define FUTURE_RUNNING 1U    /* claimed: somebody runs it, or will not run it any more */
#define FUTURE_DONE 2U       /* has its result */
#define FUTURE_WAITERS 4U    /* somebody may sleep on the word */
#define FUTURE_WATCHED 8U    /* the list of watches may hold one */
#define FUTURE_ASKED 16U     /* cancelled while it ran */
#define FUTURE_READY 32U     /* on the list of a thread that will start it, see then.c */
#define FUTURE_QUEUED 64U    /* its entry was published in the run queue */
#define FUTURE_PLACE 128U    /* claimed beside the queue: its entry keeps a place, see wait.c */
#define FUTURE_OWN 256U      /* `own` is a context */
#define FUTURE_GONE 512U     /* its owner has given it up */
#define FUTURE_LEFT 1024U    /* so has what was to bring it to its end: see future_leave */
#define FUTURE_CODE_SHIFT 16 /* of the code, negated, where fn did not return: 0 means `rc` */

enum { PLACE_OPEN, PLACE_EMPTY, PLACE_FILLED };

/* What one is beside a function with an argument; the first three say which member of `call` is its function. */
enum {
    KIND_NEXT = 1,
    KIND_PART = 2,
    KIND_RETRY = 4,
    KIND_CTX = 8,
    KIND_CQ = 16,
    KIND_DROPPED = 32, /* task.dropped is set */
};

struct rp_group;
struct retry;

/*
 * Legend: c constant once submitted; r its runner, ordered for readers by the word's DONE; L under `lock`; G under the
 * group's lock.
 *
 * On its way to a result a future that is of no kind above travels between the CPUs as one cache line, the first. The
 * second is written where it was made only.
 */
struct rp_future {
    alignas(64) struct job job;
    _Atomic uint32_t word;
    _Atomic uint32_t
        refs; /* one for the owner and what brings it to its end, see future_leave; one for each other hold */
    union {
        int (*fn)(void *arg, void **result);
        int (*next)(void *arg, int rc, void *value, void **result); /* of a continuation */
        int (*part)(void *arg);                                     /* of a group's member */
    } call;                                                         /* c */
    void *arg;                                                      /* c */
    void *value;                                                    /* r */
    int rc;                                                         /* r */
    _Atomic int cpu;                                                /* where it was claimed */
    _Atomic(const void *) runner; /* the thread that claimed it, as thread_self() names it: compared only */
    uint16_t kind;                /* c: KIND_* */
    bool begun;                   /* r */
    bool full;                    /* c: has a label, a deadline or a timeout */
    bool reusable;                /* c: of alloc_libc, and its task says nothing beyond fn and arg: see spare.h */
    _Atomic uint32_t place;       /* PLACE_*: by the claimer; read by whoever takes the entry */

    alignas(64) struct rp_group *group; /* c: held; of a part */
    struct retry *retry;                /* c */
    unsigned generation;                /* c: of forks */
    struct rp_task task; /* c: dropped, label, priority, overload, deadline, timeout, ctx (held), cq, user_data */
    struct door door;    /* c */
    _Atomic(struct rp_pool *)
        pool; /* behind the door, where it was submitted last; before that of a multi pool's: NULL */
    struct rp_allocator allocator; /* c */

    struct rp_lock lock;
    struct cds_list_head watches; /* L */

    /* From here on with anything in it until it is used; what stands above is set by future_create, each by itself. */
    struct rp_future *source;     /* L: what a continuation continues; held */
    struct watch tie;             /* of the source's lock: tells that the source is done */
    struct watch ctx_watch;       /* of the tree's lock: while it is queued; set by future_create where it has one */
    struct cds_list_head member;  /* G */
    struct spare spare;           /* of the thread that keeps it */
    struct rp_future *ready_next; /* of the thread that will start it */
    struct rp_future *done_next;  /* of the thread that fires its watches */
    struct entry swapped;         /* published by `place` */
    struct rp_ctx own;            /* r: below task.ctx */
};

static inline bool future_is_done(const struct rp_future *future)
{
    return load_acquire(&future->word) & FUTURE_DONE; /* [done] pairs with the CAS in future_finish */
}

static inline void future_ref(struct rp_future *future)
{
    add_relaxed(&future->refs, 1); /* the caller holds one already, or a lock that keeps one */
}

void future_unref(struct rp_future *future);

/*
 * One reference is shared by two: the owner, and whatever has to bring the future to its end (the entry in the queue,
 * then its run; before that what it continues, or its timer). Each gives its share up by a bit of the word, and the
 * second to do so gives the reference back. Thus the last act of a run is the very CAS that makes it DONE: it does not
 * come back to a cache line that a waiter is about to take.
 */
void future_leave(struct rp_future *future, uint32_t as);

/* Whether it may be used here: 0, -EINVAL or -ECHILD. */
static inline int future_usable(const struct rp_future *future)
{
    return !future ? -EINVAL : future->generation == fork_generation() ? 0 : -ECHILD;
}

/*
 * Makes one, not submitted: both shares are the caller's. Of `task` all but fn is taken; a context is held, a cq
 * reserved. `kind`: which of the functions the caller will set.
 */
int future_create(struct door door, const struct rp_task *task, uint16_t kind, struct rp_future **out);
/* Refused: its completion is given back, and both shares. */
void future_discard(struct rp_future *future);
/* Its entry, as the queue shall carry it. Of its task nothing is read where that says no more: see future_create. */
static inline void future_entry(const struct rp_future *future, struct entry *entry)
{
    bool full = future->full;

    entry->fn = job_run;
    entry->arg = (void *)(uintptr_t)&future->job;
    entry->dropped = job_dropped;
    entry->label = full ? future->task.label : NULL;
    entry->deadline = full ? future->task.deadline : 0;
    entry->timeout = full ? future->task.timeout : 0;
    entry->cpu = cpu_current();
    entry->plain = full ? ENTRY_FULL : ENTRY_JOB;
}
/*
 * Submits it as its task says: what submit returns. On success the share of what brings it to its end is the entry's.
 */
int future_submit(struct rp_future *future);
/* It is to end with its context, as long as it has not started. */
void future_guard(struct rp_future *future);
/*
 * Submits one that had to wait; the caller's share becomes the entry's. offer: without blocking; what submit
 * returns. release: blocking; it ends with the error if it is refused.
 */
int future_offer(struct rp_future *future);
void future_release(struct rp_future *future);

/*
 * Gives it a code as its result, unless the word has a bit of `unless`. true: it was this call that ended it. The
 * caller holds a reference.
 */
bool future_finish(struct rp_future *future, uint32_t unless, int code);
/*
 * Claims it to be run, from a state with the bit `from` (0: any), and sets `with`, FUTURE_PLACE or 0. false: it is
 * claimed, done, or no more in that state.
 */
bool future_claim(struct rp_future *future, uint32_t from, uint32_t with);
/* The code of one that is done, 0: fn returned. */
static inline int future_code(const struct rp_future *future)
{
    return -(int)(load_acquire(&future->word) >> FUTURE_CODE_SHIFT); /* [done] */
}
/* Its result. It is done. */
int future_result(const struct rp_future *future, void **value);
/* How the calling thread is named in `runner`. */
const void *thread_self(void);

/* Sets a watch that fires when it is done; false: it is already. */
bool future_watch(struct rp_future *future, struct watch *watch);
bool future_unwatch(struct rp_future *future, struct watch *watch);

/* --- wait.c ------------------------------------------------------------------------------------------------------- */

/*
 * Runs it on the calling thread, if it can be claimed. true: it did. `worker`: only on a worker of its pool. `onward`:
 * as for job_finish.
 */
bool future_run_here(struct rp_future *future, bool worker, bool onward);
/* What its dequeue finds when it was claimed beside the queue: true: *entry is what the place was kept for. */
bool place_take(struct rp_future *future, struct entry *entry);
/* Waits until it is done: 0, -ETIMEDOUT or -EDEADLK. */
int future_wait(struct rp_future *future, int64_t deadline);
/* Runs what it depends on, or it, if that has not started and the caller is a worker of its pool. true: it did. */
bool future_help(struct rp_future *future);

/* The first of the chain of sources that it continues, or it itself; held. */
struct rp_future *future_root(struct rp_future *future);

struct want; /* see knot.h */
/*
 * Sleeps while each of the words is as expected, unless that would be for ever: 0, -ETIMEDOUT, -EDEADLK, -ENOMEM. Wakes
 * without cause are 0. Lets the pool run one more worker meanwhile.
 */
int wait_sleep(const struct want *want, struct futex_expected *words, unsigned n, int64_t deadline);

/* --- group.c, retry.c --------------------------------------------------------------------------------------------- */

/* A member was claimed or ended before it could be; it has ended. */
void group_member_started(struct rp_future *future);
void group_member_ended(struct rp_future *future);
void group_unref(struct rp_group *group);
struct rp_ctx *group_context(const struct rp_group *group);
/* Whether a member that has not ended satisfies `test`. */
bool group_any_member(struct rp_group *group, bool (*test)(struct rp_future *member, void *arg), void *arg);

/* fn has returned: whether it is tried again, and then it goes on with the caller's reference. */
bool retry_again(struct rp_future *future);
void retry_free(struct rp_future *future);
/* It was cancelled while it waited. */
void retry_cancelled(struct rp_future *future);

#endif
