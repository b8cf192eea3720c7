/*
 * The pool's own structs: what stands on which cache line, who writes it, and what orders it.
 */
#ifndef POOL_POOL_H
#define POOL_POOL_H

#include "base/atomic.h"
#include "base/log.h"
#include "base/stack.h"
#include "pool/handle.h"
#include "pool/idle.h"
#include "pool/measure.h"
#include "pool/runq.h"
#include "pool/table.h"
#include "ring/reactor.h"

#include <ringpool/lock.h>
#include <ringpool/pool.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <urcu/list.h>

#define PANIC_FRAMES 32
#define PANIC_REASON 256
#define NAME_BYTES 10

struct job_ops;
struct rp_future;

/* See job.h. */
struct job {
    const struct job_ops *ops;
};

/* The job of a task that owes a completion: where its entry was taken, until it has ended. */
struct owed {
    struct job job;
    void (*fn)(void *arg);
    void *arg;
    struct rp_cq *cq;
    uint64_t user_data;
};

/* A task's timeout: what the reactor finds when it fires. */
struct limit {
    struct timer timer; /* armed while the task runs */
    struct pool *pool;
    struct worker *worker; /* that runs it; NULL: a thread of the user's */
    const char *label;     /* set before it is armed */
    struct job *job;       /* likewise; NULL: none */
};

/*
 * What runs a task on a thread: the landing place of its panic. Frames nest (a task that helps, a task that the
 * submitter runs itself, a part of a task whose panic is its own end only); the innermost one is current. HELP: inside
 * of a guest's call; PLACE: what runs a future in place and is no guest, see job_finish_unheld.
 */
enum { FRAME_WORKER, FRAME_HELP, FRAME_PLACE, FRAME_CALLER, FRAME_DROP, FRAME_PART };
/* A task on the frame: none; one that runs, so that a panic may land; one that has ended and is still in flight. */
enum { FRAME_IDLE, FRAME_OPEN, FRAME_CLOSING };

struct frame {
    jmp_buf landing;
    struct frame *outer;
    struct pool *pool;
    struct worker *worker; /* NULL on a thread that is not a worker of the pool */
    const char *label;
    struct job *job;     /* of the task on it, NULL: none; set by job_run */
    struct limit *limit; /* of a task that has a timeout and does not run on a worker's own frame */
    unsigned blocking;   /* rp_blocking_begin without its end */
    unsigned extra;      /* how many of these were granted */
    unsigned phase;      /* FRAME_IDLE, ... */
    bool counted;        /* its task is in flight even if phase is FRAME_IDLE */
    bool excused;        /* ... and an ender on this thread has said so */
    unsigned kind;       /* FRAME_*: what else is undone when its thread exits */
    int signal;
    int nframes;
    void *frames[PANIC_FRAMES];
    char reason[PANIC_REASON];
};

/* What a worker has seen while it looked for work: search.c. */
struct search {
    bool streaming;    /* tasks gathered when it last let them */
    unsigned looks;    /* since it last let them gather */
    unsigned patience; /* after so many looks it tries again */
    int bursts;        /* of a pool among several: how often lately it has found many tasks at a time */
    int refrain;       /* below 0 from here: it takes no turns, as the last one was long */
    uint64_t tasks;    /* its count of them when it last ran out of work */
    unsigned hasty;    /* sleeps in a row that were ended at once */
    uint64_t head;     /* of the queue when it last ran out of work */
    bool found;        /* a task, when it last looked around, */
    bool called;       /* it was called, and has not looked around since */
    bool soon;         /* and within a microsecond */
    int64_t called_at; /* when it was called last */
    int64_t dry_at;    /* when it found nothing to do; 0: it has not asked */
    unsigned vain;     /* finds that another had first, less those that it got */
    int64_t gather_ns; /* for how long it lets them gather */
};

/* What a worker knows of how long its tasks take: see pace.c. */
struct pace {
    int64_t since;  /* it has had tasks to do since then, as far as is known; 0: it has none, or that is not known */
    uint64_t tasks; /* its count of them then */
    uint64_t span;  /* ns that it has had some before, since it last told the pool or might have, */
    uint64_t ended; /* and how many ended */
    bool differed;  /* what it might have told differed from what the pool knew */
};

/*
 * A worker's descriptor: made with its stack and kept in the cache after its thread has ended.
 * Legend: o its own thread, w whoever wakes it, r read by scans under RCU, l under the pool's lock, t the reactor.
 */
struct worker {
    alignas(CACHE_APART) _Atomic uint32_t park; /* o, w: see idle.h */
    _Atomic uint32_t next;                      /* o: the worker below on the stack, number + 1; validated by the tag */
    _Atomic int64_t parked_at;                  /* o: ns; r */
    uint32_t number;                            /* constant while it is in the table */
    bool crowded;                               /* set before its thread starts: park is a shared futex, see futex.h */
    struct pool *pool;                          /* constant */
    char name[16];                              /* constant: of its thread */

    alignas(CACHE_APART) _Atomic uint32_t state; /* o, l: enum rp_worker_state; r */
    _Atomic uint32_t hung;                       /* t, o: r */
    _Atomic uint32_t tid;                        /* o: r */
    _Atomic(const char *) label;                 /* o: r */
    _Atomic int64_t since;                       /* o: r: see struct rp_worker_info */
    _Atomic uint64_t tasks;                      /* o: tasks that returned; r */
    _Atomic uint32_t unstamped;                  /* o, r: so many tasks have this `since` from here on; or 0 */
    struct taker taker;                          /* o */
    int submitter_cpu;                           /* o: of its last task */
    struct search search;                        /* o */
    bool born_searching;                         /* set before its thread starts */
    bool enlisted;                               /* o: counted in alive */
    bool begun;                                  /* o: it got as far as its loop */
    bool started;                                /* o: worker_start succeeded */
    bool panicked;                               /* o: its task did, and is not accounted for yet */
    bool limited;                                /* o: run_limit was armed for the task */
    bool holds;                                  /* o: its task ended but for the accounts: see job_finish_worker */

    struct frame frame;         /* o */
    struct owed owed;           /* o */
    struct measures *measures;  /* constant; NULL: its pool has no metrics */
    void *local;                /* o: worker_start's */
    struct limit run_limit;     /* o arms, t fires */
    void *alternate_stack;      /* o: for contained signals */
    pthread_t thread;           /* l: set at its end */
    bool joinable;              /* l: a thread has ended or is about to */
    struct stack stack;         /* constant */
    struct cds_list_head cache; /* l: in the pool's fresh or victim list */
    struct pace pace;           /* o; behind what each task touches */
};

/* Submitters that block: see room.c. Workers read the first line after each task: what is not for them is apart. */
struct room {
    alignas(CACHE_APART) _Atomic uint64_t attention; /* low half: blocked submitters, high half: waiters for the end */
    _Atomic uint32_t pending;                        /* a blocked submitter has been told of room and has not looked */
    alignas(CACHE_APART) struct rp_lock lock;
    struct cds_list_head waiters; /* under lock: first come first */
    unsigned inside;          /* under lock: workers of this pool that stand here, or sleep in a wait for a future */
    unsigned held;            /* under lock: tasks in flight on the stacks of those */
    _Atomic uint32_t refrain; /* a hint: naps that are not due */
    _Atomic uint32_t refrain_next; /* a hint: how many are not after the next vain one */
    _Atomic uint32_t yielding;     /* a hint: submitters that have given up their CPU, with the queue full */
    _Atomic uint32_t slow;         /* a hint: half a short queue takes longer than two changes of threads, */
    _Atomic uint32_t paced_done;   /* by what had ended */
    _Atomic int64_t paced_at;      /* then */
    _Atomic int64_t alone_at;      /* hints: since when nobody wants it, 0: somebody did, */
    _Atomic uint32_t alone_again;  /* and whether it helped to call one more */
};

#define ATTENTION_ENDER (UINT64_C(1) << 32)
#define ATTENTION_WATCH (UINT64_C(1) << 63) /* the owner wants to hear of room: see lobby.c */
#define GUESTS_AWAITED (UINT32_C(1) << 31)  /* destroy sleeps until the others have gone: the last one wakes it */

/* Why tasks were dropped; and how many ran for longer than their timeout. */
struct fates {
    _Atomic uint64_t cancelled, late, discarded, released, overran;
};

/* Workers that are to be made: see worker_fill. */
struct fill {
    _Atomic uint32_t left;
    _Atomic int error;        /* why they were given up, 0 */
    struct rp_lock lock;      /* of the pool's own, as the rest: who has it may be helped */
    _Atomic uint32_t seats;   /* so many more may help */
    _Atomic uint32_t helpers; /* futex: those that do */
};

struct pool {
    struct runq runq;
    struct idle idle;
    struct room room;

    /* Read by every submit, written by making, ending and tuning only. */
    alignas(CACHE_APART) _Atomic uint32_t alive; /* by CAS; workers that live or are being made */
    _Atomic uint32_t target;                     /* l: capacity + extra: alive grows up to it */
    _Atomic uint32_t settled;                    /* by CAS; those of alive that have begun */
    _Atomic uint32_t capacity;                   /* l: as tuned */
    _Atomic uint32_t forked;                     /* set in a forked child */
    int overload;                                /* constant from here */
    int release_policy;
    bool nonblocking;
    bool traces; /* changes of state go to the log */
    bool no_purge;
    bool contain_signals;
    unsigned min_workers, max_blocking, queue_depth, max_extra;
    unsigned standing; /* workers made at creation and reboot */
    int64_t expiry_ns;
    unsigned cpus;            /* that its creator might run on */
    _Atomic uint32_t task_ns; /* a hint, by workers: how long a task takes, as far as is known; seldom written */
    int64_t spin_ns;          /* how long a submitter looks for room before it blocks; 0: it may not, on a single CPU */
    struct rp_pool_options hooks; /* the user's functions */
    struct rp_allocator allocator;
    struct log log;
    char name[NAME_BYTES];
    pthread_attr_t attr;      /* constant: affinity and scheduling */
    struct stack_shape shape; /* stack_room and thread-local data, and above them the descriptor */
    size_t stack_room;        /* for tasks */
    struct reactor *reactor;
    struct handle *handle;

    struct rp_lock lock; /* l above: making and ending workers, tuning */
    struct table table;
    struct cds_list_head fresh, victim; /* l: descriptors of ended workers, by generation */
    unsigned cached;                    /* l */
    struct stack_slab slab;             /* l: of workers that are about to be made */
    unsigned stacks_expected;           /* l: a hint: how many those are */
    struct fill fill;                   /* of one who makes many */
    _Atomic uint32_t threads;           /* threads made and not yet handed to the cache */
    bool dying;                         /* l: destroyed: no reboot */
    unsigned extra;                     /* l: workers granted beyond capacity for blocked ones */
    struct rp_lock dismiss_lock;        /* taking the idle stack to end some of it */
    struct rp_lock place_lock;          /* one helper at a time swaps places, see wait.c */

    struct timer tick;  /* expiry */
    struct timer retry; /* making a worker again after a failure */
    struct rp_lock orphan_lock;
    struct rp_future *orphans; /* under orphan_lock: continuations that the timer offers, see then.c */
    struct timer orphan_timer;
    _Atomic uint32_t tick_armed;
    _Atomic uint32_t spawn_failing; /* 1: the retry timer looks after tasks without a worker */
    _Atomic uint32_t failures;      /* workers that could not be made, or not begin */
    _Atomic uint32_t dropping;      /* released with RP_RELEASE_DROP: a queued task is dropped at its dequeue */
    _Atomic int64_t retry_ns;       /* l: how long the last of a row of failures waits for the next try, 0: none */

    _Atomic uint32_t guests;     /* calls in the pool outside of an RCU section, see guest_enter; GUESTS_AWAITED */
    _Atomic uint32_t ended;      /* futex: bumped when something that an ender waits for may be true */
    _Atomic uint32_t excused;    /* tasks in flight that wait for the end themselves */
    _Atomic uint32_t generation; /* reboots so far */
    _Atomic uint32_t begun;      /* futex: workers that have begun, or failed to */
    _Atomic uint32_t populating; /* create waits for so many of these, 0: it does not */
    _Atomic int begin_error;     /* the first failure to begin */
    _Atomic uint32_t deferred;   /* destroyed from inside: the last one out posts reap */
    _Atomic uint32_t reaped;
    struct work reap;

    /*
     * Counters of what is not the rule. What completed is what ended (runq_count) less what was dropped and panicked;
     * outside_ are the tasks that were accepted and ended without the queue: run or dropped by their submitter.
     */
    _Atomic uint64_t dropped, panicked;
    _Atomic uint64_t failing, failed; /* sums of the two, before and after their tasks are in done */
    _Atomic uint64_t outside_completed, outside_dropped, outside_panicked;
    _Atomic uint64_t spawned, expired, rejected;
    struct fates fates;
    struct rate rate;          /* l */
    struct measures *measured; /* by threads that are no workers, and by workers that are gone; NULL: no metrics */

    _Atomic(struct pool_owner *) owner; /* set right after creation by whoever made the pool for itself, else NULL */
};

static inline void fates_count(struct fates *fates, int reason)
{
    _Atomic uint64_t *fate = reason == -ECANCELED   ? &fates->cancelled
                             : reason == -ETIMEDOUT ? &fates->late
                             : reason == -EAGAIN    ? &fates->discarded
                                                    : &fates->released;

    add_relaxed(fate, 1); /* a counter */
}

/* Each of them is a counter that stands alone. */
static inline void fates_add(struct fates *sum, const struct fates *one)
{
    add_relaxed(&sum->cancelled, load_relaxed(&one->cancelled));
    add_relaxed(&sum->late, load_relaxed(&one->late));
    add_relaxed(&sum->discarded, load_relaxed(&one->discarded));
    add_relaxed(&sum->released, load_relaxed(&one->released));
    add_relaxed(&sum->overran, load_relaxed(&one->overran));
}

/*
 * Whom the pool belongs to, if not to the user. Two run at its end, on whatever thread ends it, without a lock:
 * `ended` while the pool, in which nothing happens any more, can still be read; `gone` when its memory was freed and
 * its handle may be given out again. `progress`, any thread, also under the pool's lock: there may be room, or the pool
 * was opened or closed; for the end of a task only while the owner has set ATTENTION_WATCH.
 */
struct pool_owner {
    void (*progress)(struct pool_owner *owner);
    void (*ended)(struct pool_owner *owner, const struct pool *pool);
    void (*gone)(struct pool_owner *owner);
};

static inline void pool_progress(struct pool *pool)
{
    struct pool_owner *owner = load_seq(&pool->owner);

    if (__builtin_expect(owner != NULL, 0))
        owner->progress(owner);
}

/* P3 of idle.h with nobody parked and nobody searching: whether one more worker is wanted and may live. */
static inline bool idle_may_grow(const struct pool *pool)
{
    uint32_t alive = load_seq(&pool->alive);

    return alive < load_seq(&pool->target) && runq_flight(&pool->runq) > alive;
}

/* P2 of idle.h: whether idle_wake_one would have anything to do. The submitter's fast path. */
static inline bool idle_must_wake(const struct pool *pool)
{
    uint64_t word = load_seq(&pool->idle.word);

    return !idle_searching(word) && (idle_top(word) || idle_may_grow(pool));
}

/* --- handle.c: a pool's public face, whose memory outlives it --------------------------------------------------- */

struct rp_pool {
    struct handle handle;
};

static inline struct rp_pool *pool_handle(const struct pool *pool)
{
    return caa_container_of(pool->handle, struct rp_pool, handle);
}

/*
 * Enters the pool: 0 and *pool readable until pool_exit, inside an RCU read-side section; or -EINVAL, -ECHILD,
 * -ESHUTDOWN (destroyed), and no section.
 */
static inline int pool_enter(const struct rp_pool *handle, struct pool **pool)
{
    void *core;
    int rc = handle_enter((const struct handle *)handle, &core); /* its first member; may be NULL */

    if (__builtin_expect(!rc, 1))
        *pool = core;
    return rc;
}

static inline void pool_exit(void)
{
    handle_exit();
}

/*
 * The same for a call that may sleep or run the user's functions: outside a section, counted as a guest. Only what runs
 * a queued future in place needs not be one (wait.c).
 */
int guest_enter(const struct rp_pool *handle, struct pool **core);
void guest_leave(struct pool *pool);

/* --- spawn.c: making and ending workers --------------------------------------------------------------------------- */

/* All of these outside of an RCU section. */

/* Makes one worker that alive (and, if `searching`, the idle word) counts already. A failure uncounts it. */
int worker_spawn(struct pool *pool, bool searching);
/* Counts and makes one, -EAGAIN at the target. */
int worker_add(struct pool *pool, bool searching);
/* Makes sure that at least one worker lives. */
int worker_ensure(struct pool *pool);
/* Makes workers until n live or the target is reached; the error if one could not be made. Stops at a close. */
int worker_fill(struct pool *pool, unsigned n);
/* By a worker that has just begun: makes some of those that one who fills has to make. */
void worker_helps_fill(struct pool *pool);
/* A worker could not be made, or could not start: uncounts it and sees to another try. */
void worker_failed(struct pool *pool, bool searching, int rc);
void worker_retry_later(struct pool *pool, int rc);
void worker_retry_settled(struct pool *pool);
void worker_retry_fire(struct timer *timer);
/* The last act of a worker's thread: hands the descriptor to the cache. */
void worker_retire(struct worker *worker);
/* The purge's turn of the generations, and the end of both. */
void worker_cache_age(struct pool *pool);
void worker_cache_clear(struct pool *pool);
unsigned worker_cached(struct pool *pool);
/* Under RCU, or for a worker that cannot leave meanwhile; may be NULL. */
struct worker *worker_at(const struct pool *pool, unsigned number);
/* Its descriptor and stack, on which nobody stands. */
void worker_free(struct worker *worker);

/* --- worker.c: what a worker does --------------------------------------------------------------------------------- */

void *worker_main(void *arg);
/* Changes its state, and tells that to the log, if it wants to know. The log is the user's function: in no section. */
void worker_turn(struct worker *worker, enum rp_worker_state state);
/* What its task, or the part of it that runs from now on, is called; NULL: nothing. On its own thread. */
void worker_labels(struct worker *worker, const char *label);
/*
 * When its task began, or it last said that it lives. *own is false if that may be of one of the short tasks before
 * it, whose group ends with the question: who asks again finds the next task's own, or still this one's, and *own true.
 * Under RCU.
 */
int64_t worker_since(struct worker *worker, bool *own);
void run_limit_fire(struct timer *timer);
void run_limit_init(struct limit *limit, struct pool *pool, struct worker *worker);
void run_limit_arm(struct limit *limit, const struct entry *entry);
void run_limit_end(struct limit *limit);
/* The caller, if it is a worker of the pool, else NULL. */
struct worker *worker_self(const struct pool *pool);
/* The accounts of a task that has ended, however: [end], and who waits for that. */
void task_ended(struct pool *pool);
/* The second half of that: whether somebody does; and to tell who does. */
bool task_end_awaited(struct pool *pool);
void task_end_tell(struct pool *pool);
/* The same for one that did not return: counted in `how`, dropped or panicked. */
void task_failed(struct pool *pool, _Atomic uint64_t *how);
/* Drops a task that was taken off the queue, and ends it. */
void task_drop(struct pool *pool, const struct entry *entry, int reason);
/*
 * What is to be done with an entry that was taken off the queue: 0: run *entry, which may be another one than it was;
 * negative: drop *entry for that reason; positive: nothing. *owed lasts until then.
 */
int task_check(struct pool *pool, struct entry *entry, struct owed *owed);
/*
 * Ends one queued task on the calling thread: runs it, or drops it for `drop` if that is not 0. false: none was ready.
 */
bool pool_help(struct pool *pool, int drop);

/* --- search.c: a worker without work looks around ----------------------------------------------------------------- */

void search_init(struct search *search);
/*
 * Whether a worker of brief tasks is too close behind who submits them; lets some gather if so, with no task in hand.
 */
bool search_is_close(const struct worker *worker);
void search_fall_back(struct worker *worker);
/*
 * Waits a little, by the rules there: true: there may be a task. *searching is whether the worker is counted as
 * searching, before and after.
 */
bool search_for_work(struct worker *worker, bool *searching);
/* Its sleep has ended, just now. */
void search_parked(struct worker *worker, int64_t now);

/* --- pace.c: how long tasks take ---------------------------------------------------------------------------------- */

/* On the worker's own thread: from now on it may have tasks to do; or it has none any more, or goes on to the next. */
void pace_begins(struct worker *worker, int64_t now);
void pace_ends(struct worker *worker, int64_t now);
/* It did something else in between. */
void pace_forgets(struct worker *worker);

#ifndef TASK_NS /* in the model it is anything */
#define TASK_NS(pool) load_relaxed(&(pool)->task_ns)
#endif

/* Nanoseconds; 0: not known. A hint. */
static inline uint64_t pool_task_ns(const struct pool *pool)
{
    return TASK_NS(pool);
}

/* --- panic.c: tasks that do not return ---------------------------------------------------------------------------- */

struct frame *frame_current(void);
/* Whether the calling thread has stack for one more task on top of those that it runs. */
bool frame_may_nest(void);
void frame_push(struct frame *frame, struct pool *pool, struct worker *worker);
void frame_pop(struct frame *frame);
/* Whether the calling thread runs a task (or a hook) of the pool, on whatever frame. */
bool frame_inside(const struct pool *pool);
/* Runs the entry in a frame of its own: for a task that helps, or whose submitter runs it. true: it returned. */
bool frame_run(struct pool *pool, struct worker *worker, const struct entry *entry, unsigned kind);
/* Calls the entry's dropped in a frame that no panic lands in; `flight`: the task is in flight. */
void frame_drop(struct pool *pool, const struct entry *entry, int reason, bool flight);
/* The tasks of the pool in flight on this thread's stack, at least 1 on a worker of the pool, else 0. */
unsigned frame_held(const struct pool *pool);
/* The same for the frames of another thread, which sleeps; `frames` is the innermost. */
unsigned frames_held(const struct frame *frames, const struct pool *pool);
/* Marks the tasks in flight on this thread that no outer ender has marked, and returns how many; takes n marks back. */
unsigned frame_excuse(struct pool *pool);
void frame_unexcuse(struct pool *pool, unsigned n);
/* A task has landed in the frame, or its thread exits: tells the handler. */
void panic_report(struct frame *frame);
int panic_contain_signals(void);
/* The calling worker's alternate signal stack, where the pool contains signals. */
int panic_stack_set(struct worker *worker);
void panic_stack_clear(struct worker *worker);

/* --- submit.c: what the multi pool submits with ------------------------------------------------------------------- */

/* How a submit is to behave without room. */
struct how {
    unsigned class;
    int overload; /* enum rp_overload */
    int64_t deadline;
    struct rp_ctx *ctx; /* whose end ends the submitter's blocking; NULL: none */
    bool nap;           /* room_soon has said so */
};

/* The manner that a task asks for. */
struct how submit_how(const struct rp_task *task);
/* The entry and the manner of a submit: 0, or -EINVAL, -ETIMEDOUT. */
int submit_read(const struct rp_task *task, struct entry *entry, struct how *how);
/* A deadline given by the user: 0, or what is wrong with it. */
int submit_deadline(int64_t deadline);

/*
 * The fast path of submit_path.h for the first of n tasks, as many as have room and are right and of one class, in a
 * section that the caller opened. How many: the section has ended; 0: nothing happened, also where room may be had in a
 * longer way.
 */
unsigned submit_fast_batch(struct pool *pool, const struct rp_task *tasks, unsigned n);
/* Whether a submit in that manner blocks where there is no room. */
bool submit_blocks(const struct pool *pool, struct how how);
/*
 * The long way, for a guest outside of a section. TRIES: if it fails the caller tries again; LAST: it does not, so that
 * a failure counts as rejected; REFUSED: likewise, and what room there is is for others: the policy acts at once.
 */
enum submit_as { SUBMIT_TRIES, SUBMIT_LAST, SUBMIT_REFUSED };
int submit_as_guest(struct pool *pool, const struct entry *entry, struct how how, enum submit_as as);

/* --- gauge.c: of a pool that cannot go away meanwhile ------------------------------------------------------------- */

unsigned pool_running(const struct pool *pool);
unsigned pool_busy(const struct pool *pool);
unsigned pool_free_workers(const struct pool *pool);
unsigned pool_waiting(const struct pool *pool);
unsigned pool_cap(const struct pool *pool);
/* May sleep for a moment. */
void pool_snapshot(const struct pool *pool, struct rp_pool_snapshot *out);

/* --- room.c ----------------------------------------------------------------------------------------------------- */

void room_init(struct room *room);
/* Blocks until the claim succeeds: as runq_claim, and -ETIMEDOUT, -EDEADLK, -EAGAIN (max_blocking). A guest. */
int room_claim(struct pool *pool, struct how how, uint64_t *position);
/*
 * Looks for room for some microseconds: as runq_claim for one newcomer, or 0: who may block is to take a nap (how.nap).
 * Any thread, also inside an RCU section.
 */
int room_soon(struct pool *pool, unsigned class, uint64_t *position);
/*
 * Lets the workers make room for many, where they do: for one who would take a few places at a time as they come, and
 * with each look at their words slow them down. Likewise.
 */
void room_rest(struct pool *pool);
/* There is room, or may be: tells the first blocked submitter. */
void room_signal(struct pool *pool);
void room_wake_all(struct pool *pool);
/* The target may have shrunk to the number of workers that block here. */
void room_target_changed(struct pool *pool);
/*
 * A worker of the pool sleeps in a wait, where it makes no room, and has had its chance of a stand-in; what the first
 * returned is for the second.
 */
unsigned room_sleep(struct pool *pool);
void room_wake(struct pool *pool, unsigned held);
static inline unsigned room_blocked(const struct pool *pool)
{
    return (uint32_t)load_seq(&pool->room.attention);
}

/* --- extra.c: workers that stand in for blocked ones -------------------------------------------------------------- */

/* One more worker than capacity, within max_extra. */
bool extra_grant(struct pool *pool);
void extra_return(struct pool *pool);
/* A task has ended: so have the blocking brackets that it left open. */
void extra_settle(struct frame *frame);

/* --- expiry.c ----------------------------------------------------------------------------------------------------- */

/* Arms the tick if a worker above the minimum is parked, or a descriptor cached. */
void tick_arm(struct pool *pool);
void tick_arm_for_cache(struct pool *pool);
void tick_fire(struct timer *timer);

/* --- pool.c ------------------------------------------------------------------------------------------------------- */

/* rp_pool_tune for a guest; `closed_too`: also while the pool is closed. */
int pool_tune(struct pool *pool, unsigned capacity, bool closed_too);
/* Recomputes target and limit from capacity and extra. The caller holds the lock. */
void pool_retarget_locked(struct pool *pool);
/*
 * What a change of the limits owes to others: room for blocked submitters, workers for tasks, an end for surplus ones.
 */
void pool_settle(struct pool *pool);
/* Wakes those that wait for the end, to look again. */
void pool_notify_enders(struct pool *pool);
/* Closed and drained: the parked workers may go. */
void pool_dismiss_if_drained(struct pool *pool);
/* Destroyed from inside, and the last one is out: the reactor does the rest. */
void pool_maybe_reap(struct pool *pool);

/*
 * Who waits for the end. `inside`: it runs in a task or hook of the pool, or of one that belongs to the same owner, so
 * that it cannot wait for all threads to leave; `excused`: how many tasks in flight cannot end before it does, being
 * those on its own thread.
 */
struct ender {
    struct pool *pool;
    bool inside;
    unsigned excused;
    uint32_t generation;
};

/* Closes; what is queued meets the policy. Also for a pool that is closed. Returns which of its lives ends so. */
uint32_t pool_close(struct pool *pool, bool dying);
/*
 * With pool, inside and generation set, the latter by pool_close: counts the caller as an ender; ender_leave ends that.
 */
void ender_join(struct ender *me);
void ender_leave(void *arg);
/* 0: all has ended; -ETIMEDOUT; -ESHUTDOWN: rebooted. One inside helps with what is queued. */
int ender_wait(struct ender *me, int64_t deadline, bool destroying);
/* Adds to the report what is left. */
void ender_report(struct pool *pool, struct rp_release_report *report);

/*
 * Destroys the pool: waits for that only if `wait`, and never inside of one of its tasks. The caller has taken the
 * handle out of the state in which others may do the same.
 */
void pool_end(struct pool *pool, bool wait);

#endif
