/*
 * The health check: looks for pools that do no work any more, takes them out of the rotation, reboots them, and puts
 * them back when they work again.
 *
 * A thread of its own, made only where the option asks for it: what it does may block (a user's callback, the dropped
 * functions of a release, the making of workers), which the reactor's thread must not, and no pool may be asked to look
 * after itself. It sleeps for good while nothing is in flight and nobody is out; the next submit arms it (`armed`).
 *
 * A pool is sick when every live worker hangs (or none lives) and no more can be made: because the target is reached,
 * or because the system refuses. The steps, each to the log and to the callback:
 *     OUT       the rotation is published without it (where all are sick, all are in: a sick pool is better than none)
 *     REBOOTED  it is closed, which sends on who blocks at it and lets its queue meet the release policy, and opened
 *               again. Nothing can end a hung task; so for each hung worker one more than the capacity may live,
 *               within max_extra, and those run what waits. They are given back as the hung ones return
 *     BACK      a later look finds it well
 * A pool that cannot be cured so (max_extra is used up, no thread is to be had) stays out and is looked at again.
 */
#include "base/futex.h"
#include "base/rcu.h"
#include "base/signals.h"
#include "base/stack.h"
#include "pool/multi.h"

#include <errno.h>
#include <limits.h>
#include <sys/prctl.h>

#define HEALTH_STACK (256 * 1024)

static _Thread_local const struct multi *self;

bool health_is_self(const struct multi *multi)
{
    return self == multi;
}

/* --- one pool ----------------------------------------------------------------------------------------------------- */

struct finding {
    unsigned running, hung, target;
    bool failing; /* workers could not be made lately */
    bool flight;
};

static struct finding examine(struct multi *multi, struct pool *pool)
{
    struct finding f = {.running = load_seq(&pool->alive), .target = load_seq(&pool->target)};
    int64_t before = rp_now() - multi->options.hang_ns;

    f.flight = runq_flight(&pool->runq) > 0;
    f.failing = load_relaxed(&pool->retry_ns) != 0; /* a report's figure */
    rcu_enter();
    unsigned used = load_acquire(&pool->table.used);
    for (unsigned i = 0; i < used; i++) {
        struct worker *worker = worker_at(pool, i);
        bool own;
        if (worker && load_acquire(&worker->state) == RP_WORKER_RUNNING && worker_since(worker, &own) < before && own)
            f.hung++; /* since: of this task, or of one that has just ended and hung */
    }
    rcu_exit();
    return f;
}

static bool is_sick(const struct finding *f)
{
    return f->hung >= f->running && (f->running >= f->target || f->failing);
}

static void tell(struct multi *multi, const struct member *member, int step, const struct finding *f)
{
    static const char *const steps[] = {
        [RP_MULTI_OUT] = "is taken out", [RP_MULTI_REBOOTED] = "is rebooted", [RP_MULTI_BACK] = "is back"};
    static const char *const causes[] = {
        [RP_MULTI_HUNG] = "all its workers hung", [RP_MULTI_NO_WORKERS] = "it could not make workers"};
    struct rp_multi_health event = {
        .index = member->index,
        .step = step,
        .cause = member->cause,
        .running = f->running,
        .hung = f->hung,
        .spare = load_relaxed(&member->spare), /* our own word */
    };

    log_emit(&multi->log, RP_LOG_WARNING, "multi pool %s: pool %u %s: %s; running %u, hung %u, spare %u", multi->name,
             member->index, steps[step], causes[member->cause], f->running, f->hung, event.spare);
    if (multi->options.on_health)
        multi->options.on_health(multi->options.health_user, &event);
}

/* As many workers beyond the capacity as hang, as far as max_extra goes. */
static void spare_adjust(struct member *member, const struct finding *f)
{
    unsigned spare = load_relaxed(&member->spare); /* our own word */

    for (; spare > f->hung; spare--)
        extra_return(member->pool);
    while (load_relaxed(&member->out) && spare < f->hung && extra_grant(member->pool)) /* our own word */
        spare++;
    store_relaxed(&member->spare, spare); /* a report's figure */
}

static void take_out(struct multi *multi, struct member *member, const struct finding *f)
{
    if (roster_set_out(multi, member, true))
        return; /* no memory, or removed: the next look tries again */
    member->cause = f->hung ? RP_MULTI_HUNG : RP_MULTI_NO_WORKERS;
    tell(multi, member, RP_MULTI_OUT, f);
    add_seq(&multi->rebooting, 1);
    pool_close(member->pool, false);
    multi_settle_pool(multi, member->pool);
    sub_seq(&multi->rebooting, 1);
    lobby_progress(&multi->lobby);
    spare_adjust(member, f);
    tell(multi, member, RP_MULTI_REBOOTED, f);
}

static void nurse(struct multi *multi, struct member *member, const struct finding *f)
{
    spare_adjust(member, f);
    if (!load_seq(&member->pool->alive))
        worker_ensure(member->pool); /* a failure shows at the next look */
    if (!is_sick(f) && f->running && roster_set_out(multi, member, false) == 0)
        tell(multi, member, RP_MULTI_BACK, f);
}

/* A guest of the pool. Returns whether there will be something to look at. */
static bool look_at(struct multi *multi, struct member *member)
{
    struct finding f = examine(multi, member->pool);

    if (load_seq(&multi->state) & MULTI_CLOSED || runq_closed(&member->pool->runq))
        return f.flight;
    if (load_relaxed(&member->out)) { /* our own word */
        nurse(multi, member, &f);
    } else {
        spare_adjust(member, &f);
        if (is_sick(&f))
            take_out(multi, member, &f);
    }
    return f.flight || load_relaxed(&member->out) || load_relaxed(&member->spare); /* our own words */
}

/* --- the thread --------------------------------------------------------------------------------------------------- */

static bool look_at_all(struct multi *multi)
{
    struct member *member;
    bool more = false;

    (void)rcu_attach(); /* if it was not to be had before */
    for (unsigned i = 0; !load_seq(&multi->health.stop) && (member = roster_next(multi, &i));) {
        more |= look_at(multi, member);
        guest_leave(member->pool);
    }
    return more;
}

static bool any_flight(struct multi *multi)
{
    struct member *member;
    bool any = false;

    for (unsigned i = 0; !any && (member = roster_next(multi, &i));) {
        any = runq_flight(&member->pool->runq) > 0;
        guest_leave(member->pool);
    }
    return any;
}

/* Sleeps for an interval, or, with nothing to look at, until armed. */
static void health_sleep(struct multi *multi, bool more)
{
    struct health *health = &multi->health;
    uint32_t seen = load_seq(&health->word);
    int64_t until = rp_after(multi->options.health_ns);

    if (!more) {
        store_seq(&health->armed, 0);
        rcu_wait();            /* a submit that found it set, and takes the fast path, is through after this */
        if (any_flight(multi)) /* came before, and left the arming to us */
            store_seq(&health->armed, 1);
    }
    while (!load_seq(&health->stop)) {
        bool armed = load_seq(&health->armed);
        if (armed && rp_now() >= until)
            return;
        futex_wait(&health->word, seen, armed ? until : 0);
        seen = load_seq(&health->word);
    }
}

static void *health_main(void *arg)
{
    struct multi *multi = arg;
    struct health *health = &multi->health;
    int rc = rcu_attach();

    prctl(PR_SET_NAME, "rp-health");
    health->rc = rc;
    store_seq(&health->begun, 1);
    futex_wake(&health->begun, 1);
    if (rc)
        return NULL;
    self = multi;
    for (bool more = false; !load_seq(&health->stop); more = look_at_all(multi))
        health_sleep(multi, more);
    self = NULL;
    multi_guest_leave(multi);
    return NULL;
}

static int thread_make(struct multi *multi)
{
    sigset_t before;
    pthread_attr_t attr;

    pthread_attr_init(&attr);
    int rc = pthread_attr_setstacksize(&attr, HEALTH_STACK + stack_tls_size());
    signals_block(&before); /* the thread inherits it */
    if (!rc)
        rc = pthread_create(&multi->health.thread, &attr, health_main, multi);
    signals_restore(&before);
    pthread_attr_destroy(&attr);
    return rc ? -EAGAIN : 0; /* whatever the system said: a filter's EPERM as well */
}

int health_begin(struct multi *multi)
{
    struct health *health = &multi->health;

    store_relaxed(&health->armed, 1); /* no thread: nobody arms it */
    if (!multi->options.health_ns)
        return 0;
    add_seq(&multi->guests, 1); /* the thread's, for its life */
    int rc = thread_make(multi);
    if (!rc) {
        health->made = true;
        while (!load_seq(&health->begun))
            futex_wait(&health->begun, 0, 0);
        rc = health->rc;
    }
    if (rc)
        multi_guest_leave(multi);
    return rc;
}

/* The word changes after what it tells of: whoever goes to sleep on its old value has seen that. */
static void health_wake(struct health *health)
{
    add_seq(&health->word, 1);
    futex_wake(&health->word, 1);
}

void health_arm_slow(struct multi *multi)
{
    if (!exchange_seq(&multi->health.armed, 1))
        health_wake(&multi->health);
}

void health_stop(struct multi *multi)
{
    store_seq(&multi->health.stop, 1);
    health_wake(&multi->health);
}

/* It has left its guest's place, or never had one: its end is near. */
void health_join(struct multi *multi)
{
    int cancel;

    if (!multi->health.made)
        return;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* pthread_join is a cancellation point */
    pthread_join(multi->health.thread, NULL);
    pthread_setcancelstate(cancel, &cancel);
}
