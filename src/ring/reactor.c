/*
 * The reactor: the thread, its timers and its work, and the count of those who use it.
 *
 * Everything that others hand to the thread (timers, work, the order to end) lies under one lock of its own, and fire
 * and run are called without it. Sections are some tens of instructions; a large expiry is collected in bounded steps.
 *
 * Why no wake is lost. `sleep_until` says what the thread's sleep already covers: while it is awake or has been rung
 * for, AWAKE, which is before every due time; while it sleeps, the due time of its first timer. It is only touched
 * under the lock. The thread, in one section, finds nothing to do and stores the due time of its first timer; then it
 * unlocks and sleeps until then. Whoever adds something, in one section, adds it and compares. One of these two
 * sections comes first:
 *
 *    the adder's first:     the thread sees the addition in its own section and does not sleep (or not so long);
 *    the thread's first:    the adder sees sleep_until. If its timer is due no earlier, the sleep ends in time by
 *                           itself. Else, and for work always, it stores AWAKE and rings after unlocking. The bell is
 *                           sticky: it ends the sleep also if that has not begun yet.
 *
 * Storing AWAKE also makes later adders silent, rightly: one ring is under way, and the thread looks at everything
 * after it. A thousand timers armed in one sleep cost one system call.
 *
 * Why a ring never meets a closed bell. The bell is rung after unlocking, and by then the thread may have taken the
 * work and, if that gave the last reference back, be on its way out. So rings under way are counted (`ringing`, raised
 * under the lock), and the thread closes the backend only when the count is zero; there it stays, since a thread that
 * has left its loop is AWAKE for good.
 */
#include "ring/reactor.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include <ringpool/base.h>
#include <ringpool/lock.h>

#include "base/cpu.h"
#include "base/fork.h"
#include "base/futex.h"
#include "base/rcu.h"
#include "base/signals.h"
#include "base/stack.h"
#include "ring/backend.h"
#include "ring/probe.h"
#include "ring/wheel.h"

enum kind { KIND_URING, KIND_EPOLL, KINDS };

enum {
    IDLE = 0, /* timer.state */
    ARMED = 1,
    COLLECT_STEPS = 128,     /* timers moved in one section, some 10 us */
    STACK_SIZE = 256 * 1024, /* as a worker's: users' functions may run here */
};

#define AWAKE INT64_MIN
#define CLOSING (UINT32_C(1) << 31)

/*
 * L: under `lock`. R: under registry_lock. T: the thread only. C: constant once reactor_get gave it out.
 * In a forked child the only thread there is writes all of them, in its fork hook.
 */
struct reactor {
    struct rp_lock lock;
    struct wheel wheel;             /* L */
    struct timer *expired;          /* L: collected from the wheel, not yet fired; still armed to their owners */
    struct timer *firing;           /* L: whose fire runs; compared only, it may be freed already */
    bool fire_awaited;              /* L: somebody in timer_cancel_wait waits for `firing` */
    struct work *work, **work_end;  /* L: oldest first */
    int64_t sleep_until;            /* L: see above */
    bool ending;                    /* L: the last reference is gone */
    bool unjoined;                  /* L: nobody waits for the thread: it frees the reactor itself */
    bool dead;                      /* L: inherited by a forked child: there is no thread */
    _Atomic uint32_t fires_awaited; /* futex: raised when a fire that was awaited has returned */
    _Atomic uint32_t ringing;       /* futex: rings under way, and CLOSING */
    struct backend *backend;        /* T opens and closes; C between */
    _Atomic uint32_t started;       /* futex: 1 once `rc` and `refusal` say how opening went */
    int rc;                         /* C: 0 */
    struct backend_refusal refusal; /* for reactor_get, when rc says so */
    const struct backend_ops *ops;  /* C */
    int maker_cpu;                  /* C: where start_thread ran, or -1 */
    pthread_t thread;               /* C */
    unsigned references;            /* R */
    struct reactor *next, **link;   /* R: all there are */
    char text[256];                 /* C */
};

/* Guards the list, the shared ones and every count; held while a backend opens or closes, so that a fork falls on
 * neither. A fork's prepare takes it. Order: this one before a reactor's own. */
static struct rp_lock registry_lock;
static struct reactor *registry;
static struct reactor *shared_reactor[KINDS];

static _Thread_local struct reactor *self; /* on a reactor's thread: that reactor */

static const struct backend_ops *const backends[KINDS] = {&uring_backend, &epoll_backend};

/* ---- handing things to the thread ---- */

/* Ends a section in which something was added that is due at `due`. */
static void unlock_and_notify(struct reactor *reactor, int64_t due)
{
    if (due >= reactor->sleep_until) {
        rp_lock_release(&reactor->lock);
        return;
    }
    reactor->sleep_until = AWAKE;
    add_relaxed(&reactor->ringing, 1); /* relaxed: the thread reads it after a later section of the lock */
    rp_lock_release(&reactor->lock);
    reactor->ops->ring(reactor->backend);
    /* Release: the ring is over before the thread closes (close_backend). The reactor may be gone after it. */
    if (sub_acq_rel(&reactor->ringing, 1) == (CLOSING | 1)) {
        futex_wake(&reactor->ringing, 1);
    }
}

void reactor_post(struct reactor *reactor, struct work *work)
{
    rp_lock_acquire(&reactor->lock);
    if (reactor->dead) {
        rp_lock_release(&reactor->lock);
        return;
    }
    work->next = NULL;
    *reactor->work_end = work;
    reactor->work_end = &work->next;
    unlock_and_notify(reactor, AWAKE + 1); /* before every sleep's end, but not before AWAKE */
}

void timer_init(struct timer *timer, struct reactor *reactor, void (*fire)(struct timer *timer))
{
    *timer = (struct timer){.reactor = reactor, .fire = fire, .state = IDLE};
}

static bool disarm_locked(struct timer *timer)
{
    if (timer->state != ARMED) {
        return false;
    }
    timer->state = IDLE;
    wheel_remove(&timer->reactor->wheel, timer);
    return true;
}

static void arm(struct timer *timer, int64_t due, int64_t interval)
{
    struct reactor *reactor = timer->reactor;
    rp_lock_acquire(&reactor->lock);
    if (reactor->dead) {
        rp_lock_release(&reactor->lock);
        return;
    }
    disarm_locked(timer);
    timer->due = due > AWAKE ? due : AWAKE + 1;
    timer->interval = interval;
    timer->skipped = 0;
    timer->state = ARMED;
    wheel_insert(&reactor->wheel, timer);
    unlock_and_notify(reactor, timer->due);
}

void timer_arm(struct timer *timer, int64_t due)
{
    arm(timer, due, 0);
}

void timer_arm_periodic(struct timer *timer, int64_t due, int64_t interval)
{
    arm(timer, due, interval);
}

unsigned timer_disarm(struct timer *timer)
{
    struct reactor *reactor = timer->reactor;
    rp_lock_acquire(&reactor->lock);
    unsigned was = 0;
    if (!reactor->dead) {
        was = (disarm_locked(timer) ? TIMER_ARMED : 0) | (reactor->firing == timer ? TIMER_FIRES : 0);
    }
    rp_lock_release(&reactor->lock);
    return was;
}

bool timer_cancel(struct timer *timer)
{
    return timer_disarm(timer) & TIMER_ARMED;
}

uint64_t timer_skipped(const struct timer *timer)
{
    struct reactor *reactor = timer->reactor;
    rp_lock_acquire(&reactor->lock);
    uint64_t skipped = timer->skipped;
    rp_lock_release(&reactor->lock);
    return skipped;
}

bool timer_cancel_wait(struct timer *timer)
{
    struct reactor *reactor = timer->reactor;
    rp_lock_acquire(&reactor->lock);
    bool was_armed = !reactor->dead && disarm_locked(timer);
    while (!reactor->dead && reactor->firing == timer && self != reactor) {
        reactor->fire_awaited = true;
        uint32_t seen = load_relaxed(&reactor->fires_awaited); /* relaxed: changes under the lock only */
        rp_lock_release(&reactor->lock);
        futex_wait(&reactor->fires_awaited, seen, 0);
        rp_lock_acquire(&reactor->lock);
    }
    rp_lock_release(&reactor->lock);
    return was_armed;
}

/* ---- the thread ---- */

/* Arms a periodic timer that is due for its next time; from the due time, not from now, so that nothing drifts. */
static void rearm_locked(struct timer *timer)
{
    int64_t late = rp_now() - timer->due;
    int64_t missed = late > 0 ? late / timer->interval : 0;
    int64_t ahead;
    if (__builtin_mul_overflow(missed + 1, timer->interval, &ahead) ||
        __builtin_add_overflow(timer->due, ahead, &timer->due)) {
        timer->due = INT64_MAX;
    }
    timer->skipped += (uint64_t)missed;
    timer->state = ARMED;
    wheel_insert(&timer->reactor->wheel, timer);
}

/*
 * Fires the first of `expired`. The timer belongs to its owner again as soon as fire is called, which may free it: it
 * is not touched afterwards, unless somebody in timer_cancel_wait proves by his presence that it lives.
 */
static void fire_first_locked(struct reactor *reactor)
{
    struct timer *timer = reactor->expired;
    void (*fire)(struct timer *) = timer->fire;
    disarm_locked(timer);
    if (timer->interval > 0) {
        rearm_locked(timer);
    }
    reactor->firing = timer;
    rp_lock_release(&reactor->lock);

    fire(timer);

    rp_lock_acquire(&reactor->lock);
    reactor->firing = NULL;
    if (!reactor->fire_awaited || reactor->dead) {
        return;
    }
    reactor->fire_awaited = false;
    disarm_locked(timer);
    add_relaxed(&reactor->fires_awaited, 1);
    rp_lock_release(&reactor->lock);
    futex_wake(&reactor->fires_awaited, INT_MAX);
    rp_lock_acquire(&reactor->lock);
}

/* Collects and fires one batch. Whether there may be more to do now. */
static bool run_timers_locked(struct reactor *reactor)
{
    int64_t earliest = wheel_earliest(&reactor->wheel);
    if (earliest == INT64_MAX) {
        return false;
    }
    int64_t now = rp_now();
    if (earliest > now) {
        return false;
    }
    wheel_collect(&reactor->wheel, now, &reactor->expired, COLLECT_STEPS);
    if (!reactor->expired) {
        rp_lock_release(&reactor->lock); /* the batch was only spread over lower levels: let others in between */
        rp_lock_acquire(&reactor->lock);
    }
    while (reactor->expired && !reactor->dead) {
        fire_first_locked(reactor);
    }
    return true;
}

/* Runs what was posted so far. Whether there was any. */
static bool run_work_locked(struct reactor *reactor)
{
    struct work *work = reactor->work;
    if (!work) {
        return false;
    }
    reactor->work = NULL;
    reactor->work_end = &reactor->work;
    rp_lock_release(&reactor->lock);
    while (work && !reactor->dead) {    /* dead without the lock: only run itself, by a fork, could set it for us */
        struct work *next = work->next; /* run may free it */
        work->run(work);
        work = next;
    }
    rp_lock_acquire(&reactor->lock);
    return true;
}

static void loop(struct reactor *reactor)
{
    rp_lock_acquire(&reactor->lock);
    while (!reactor->dead) {
        bool busy = run_work_locked(reactor);
        if (reactor->dead) {
            break;
        }
        busy |= !reactor->ending && run_timers_locked(reactor);
        if (busy) {
            continue;
        }
        if (reactor->ending) {
            break;
        }
        int64_t until = wheel_earliest(&reactor->wheel);
        reactor->sleep_until = until;
        rp_lock_release(&reactor->lock);
        (void)rcu_attach(); /* if it was not to be had before */
        reactor->ops->sleep(reactor->backend, until);
        rp_lock_acquire(&reactor->lock);
        reactor->sleep_until = AWAKE;
    }
    rp_lock_release(&reactor->lock);
}

static void unlist_and_free_locked(struct reactor *reactor)
{
    *reactor->link = reactor->next;
    if (reactor->next) {
        reactor->next->link = reactor->link;
    }
    free(reactor);
}

static void close_backend(struct reactor *reactor)
{
    uint32_t rings = or_seq(&reactor->ringing, CLOSING) | CLOSING;
    while (rings != CLOSING) {
        futex_wait(&reactor->ringing, rings, 0);
        rings = load_acquire(&reactor->ringing); /* pairs with the release in unlock_and_notify */
    }
    reactor->ops->close(reactor->backend);
    reactor->backend = NULL;
}

/*
 * The thread does not stay where its maker runs, who as a rule submits tasks next. For some tens of milliseconds the
 * kernel takes a new thread for a busy one, though it sleeps (its kernel/sched/fair.c: init_entity_runnable_average,
 * post_init_entity_util_avg), and would meanwhile not wake a worker on that CPU, although it is about to be free, but
 * on another, which has to be roused for that.
 */
static void *reactor_main(void *argument)
{
    struct reactor *reactor = argument;
    prctl(PR_SET_NAME, "rp-reactor");
    prctl(PR_SET_TIMERSLACK, 1UL); /* the default of 50 us would be added to every timed sleep */
    reactor->rc = rcu_attach();
    if (reactor->rc == 0) {
        reactor->rc = reactor->ops->open(&reactor->backend, &reactor->refusal);
    }
    bool opened = reactor->rc == 0;
    if (opened) {
        cpu_leave(reactor->maker_cpu);
    }
    store_release(&reactor->started, 1); /* pairs with start_thread */
    futex_wake(&reactor->started, 1);
    if (!opened) {
        rcu_thread_ends();
        return NULL;
    }

    self = reactor;
    loop(reactor);
    self = NULL;

    rp_lock_acquire(&registry_lock);
    if (reactor->backend) { /* not in a child that was forked inside fire or run: its hook has done that */
        close_backend(reactor);
    }
    if (reactor->unjoined) {
        unlist_and_free_locked(reactor);
    }
    rp_lock_release(&registry_lock);
    rcu_thread_ends();
    return NULL;
}

/* ---- getting and putting ---- */

/* Starts the thread and waits until its backend is open. 0; -EAGAIN; or what the thread met. */
static int start_thread(struct reactor *reactor)
{
    pthread_attr_t attributes;
    sigset_t before;
    if (pthread_attr_init(&attributes) != 0) {
        return -ENOMEM;
    }
    pthread_attr_setstacksize(&attributes, STACK_SIZE + stack_tls_size());
    reactor->maker_cpu = cpu_current();
    signals_block(&before);
    int rc = pthread_create(&reactor->thread, &attributes, reactor_main, reactor);
    signals_restore(&before);
    pthread_attr_destroy(&attributes);
    if (rc != 0) {
        return -EAGAIN;
    }
    while (load_acquire(&reactor->started) == 0) {
        futex_wait(&reactor->started, 0, 0);
    }
    if (reactor->rc < 0) {
        pthread_join(reactor->thread, NULL);
    }
    return reactor->rc;
}

/* "epoll (reason; note)" of whichever there are. */
static void describe(struct reactor *reactor, const char *reason)
{
    const char *note = reactor->backend->note;
    snprintf(reactor->text, sizeof reactor->text, "%s (%s%s%s)", reactor->ops->name, reason,
             reason[0] && note[0] ? "; " : "", note);
}

/* A reference to a reactor of this kind; `reason` is for the text. -errno with refusal->rc set: the backend refused. */
static int get_locked(struct reactor **out, enum kind kind, bool own, const char *reason,
                      struct backend_refusal *refusal)
{
    if (!own && shared_reactor[kind]) {
        *out = shared_reactor[kind];
        (*out)->references++;
        return 0;
    }
    struct reactor *reactor = calloc(1, sizeof *reactor);
    if (!reactor) {
        return -ENOMEM;
    }
    wheel_init(&reactor->wheel, rp_now());
    reactor->work_end = &reactor->work;
    reactor->sleep_until = AWAKE;
    reactor->ops = backends[kind];
    reactor->references = 1;
    int rc = start_thread(reactor);
    if (rc < 0) {
        *refusal = reactor->refusal;
        free(reactor);
        return rc;
    }
    describe(reactor, reason);
    reactor->next = registry;
    reactor->link = &registry;
    if (registry) {
        registry->link = &reactor->next;
    }
    registry = reactor;
    if (!own) {
        shared_reactor[kind] = reactor;
    }
    *out = reactor;
    return 0;
}

static void fork_prepare(void)
{
    rp_lock_acquire(&registry_lock);
}

static void fork_parent(void)
{
    rp_lock_release(&registry_lock);
}

/*
 * In the child no reactor has its thread, and another thread of the parent may have been inside any section of
 * reactor->lock: the lock is made anew and what it guarded is never used again. Only the memory stays, until the put.
 */
static void fork_child(void)
{
    struct reactor *next;
    for (struct reactor *reactor = registry; reactor; reactor = next) {
        next = reactor->next;
        reactor->lock = (struct rp_lock){0};
        reactor->dead = true;
        if (reactor->backend) {
            reactor->ops->forget(reactor->backend);
            reactor->backend = NULL;
        }
        /* The parent's thread that gave the last reference back was to free it and is not here. If this thread was
         * that reactor's own, it still stands in its loop, and frees it there. */
        if (reactor->references == 0 && self != reactor) {
            unlist_and_free_locked(reactor);
        }
    }
    for (int kind = 0; kind < KINDS; kind++) {
        shared_reactor[kind] = NULL;
    }
    rp_lock_release(&registry_lock);
}

static const struct fork_hooks hooks = {.prepare = fork_prepare, .parent = fork_parent, .child = fork_child};

/* By name, a refusal becomes one of the two codes that say so, unless it is about memory or descriptors. */
static int refused_by_name(int rc)
{
    switch (rc) {
    case -EPERM:
    case -EACCES:
        return -EPERM;
    case -ENOMEM:
    case -EMFILE:
    case -ENFILE:
        return rc;
    default:
        return -ENOSYS;
    }
}

int reactor_get(struct reactor **out, int backend, bool own)
{
    *out = NULL;
    int rc = fork_register(&hooks);
    if (rc < 0) {
        return rc;
    }
    /* By name, epoll is taken without a trial of io_uring: some filters kill whoever tries. */
    const char *why_epoll = "asked for by name";
    struct backend_refusal refusal = {0};
    char reason[192];
    bool uring = backend == RP_BACKEND_IO_URING || (backend == RP_BACKEND_AUTO && probe_uring(&why_epoll));

    rp_lock_acquire(&registry_lock);
    if (uring) {
        rc = get_locked(out, KIND_URING, own, "", &refusal);
    }
    if (refusal.rc < 0 && backend == RP_BACKEND_IO_URING) {
        rc = refused_by_name(rc);
    } else if (refusal.rc < 0) {
        probe_explain(reason, sizeof reason, &refusal);
        why_epoll = reason;
        uring = false;
    }
    if (!uring) {
        rc = get_locked(out, KIND_EPOLL, own, why_epoll, &refusal);
    }
    rp_lock_release(&registry_lock);
    return rc;
}

void reactor_put(struct reactor *reactor)
{
    if (!reactor) {
        return;
    }
    rp_lock_acquire(&registry_lock);
    if (--reactor->references > 0) {
        rp_lock_release(&registry_lock);
        return;
    }
    for (int kind = 0; kind < KINDS; kind++) {
        if (shared_reactor[kind] == reactor) {
            shared_reactor[kind] = NULL;
        }
    }
    bool own_thread = self == reactor;
    if (reactor->dead && !own_thread) {
        unlist_and_free_locked(reactor);
        rp_lock_release(&registry_lock);
        return;
    }
    rp_lock_release(&registry_lock);

    pthread_t thread = reactor->thread;
    rp_lock_acquire(&reactor->lock);
    reactor->ending = true;
    reactor->unjoined = own_thread;
    if (own_thread) {
        if (!reactor->dead) {
            pthread_detach(thread);
        }
        rp_lock_release(&reactor->lock);
        return;
    }
    unlock_and_notify(reactor, AWAKE + 1);
    pthread_join(thread, NULL);
    rp_lock_acquire(&registry_lock);
    unlist_and_free_locked(reactor);
    rp_lock_release(&registry_lock);
}

const char *reactor_backend(const struct reactor *reactor)
{
    return reactor->text;
}

bool reactor_sends(const struct reactor *reactor)
{
    return !reactor->dead && reactor->backend && reactor->backend->sends;
}

int reactor_send(struct reactor *reactor, int ring_fd, const struct ring_message *messages, unsigned n)
{
    if (!reactor_sends(reactor)) {
        return -EOPNOTSUPP;
    }
    return reactor->ops->send(reactor->backend, ring_fd, messages, n);
}

bool reactor_is_self(const struct reactor *reactor)
{
    return self == reactor;
}
