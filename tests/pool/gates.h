/*
 * What the tests of the pool's submit side share: a gate that holds tasks where the test wants them, a patient look at
 * gauges, and threads that submit and remember what they got.
 *
 * Nothing here asserts in another thread than the test's own: Criterion could not report it.
 */
#ifndef TESTS_SUPPORT_POOL_HTESTA_H
#define TESTS_SUPPORT_POOL_HTESTA_H

#include <criterion/criterion.h>

#include <ringpool/pool.h>

#include "patience.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#define PATIENCE_NS PATIENCE
#define EVENTUALLY(expression) COMES_TRUE(expression)
#define ASSERT_EVENTUALLY(expression) AWAIT(expression)

static inline void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static inline void pass_time_until(int64_t deadline)
{
    while (rp_now() < deadline)
        nap();
}

/* --- the gate --------------------------------------------------------------------------------------------------- */

/* Holds whoever comes until a permit is there for it. `inside` counts those held, `passed` those let through. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned permits;
    _Atomic unsigned inside;
    _Atomic unsigned passed;
};

#define GATE_SHUT                                                                                                      \
    {                                                                                                                  \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER                                         \
    }

/* The task that is held. */
static inline void gate_hold(void *arg)
{
    struct gate *gate = arg;

    pthread_mutex_lock(&gate->lock);
    gate->inside++;
    while (!gate->permits)
        pthread_cond_wait(&gate->changed, &gate->lock);
    gate->permits--;
    gate->inside--;
    gate->passed++;
    pthread_mutex_unlock(&gate->lock);
}

static inline void gate_let(struct gate *gate, unsigned permits)
{
    pthread_mutex_lock(&gate->lock);
    gate->permits += permits;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

static inline void gate_open(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->permits = INT_MAX;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

/* --- pools ------------------------------------------------------------------------------------------------------ */

static inline struct rp_pool *pool_of(unsigned capacity, const struct rp_pool_options *options)
{
    struct rp_pool *pool;

    cr_assert_eq(rp_pool_create(&pool, capacity, options), 0);
    return pool;
}

static inline struct rp_pool_snapshot snapshot_of(const struct rp_pool *pool)
{
    struct rp_pool_snapshot snapshot;

    cr_assert_eq(rp_pool_snapshot(pool, &snapshot), 0);
    return snapshot;
}

/* Fills every worker of the pool with a task that the gate holds. */
static inline void occupy(struct rp_pool *pool, struct gate *gate, unsigned workers)
{
    for (unsigned i = 0; i < workers; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_hold, gate), 0);
    ASSERT_EVENTUALLY(gate->inside == workers);
}

/* In this order: a task that is taken in between is seen as busy. */
static inline bool nothing_in_flight(const struct rp_pool *pool)
{
    return rp_pool_waiting(pool) == 0 && rp_pool_busy(pool) == 0;
}

static inline void finish(struct rp_pool *pool)
{
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE_NS), NULL), 0);
    cr_assert_eq(rp_pool_destroy(pool), 0);
}

/* Whether all workers sleep. Idle and asleep means on the stack: nothing between becoming idle and the push sleeps. */
static inline bool all_parked(const struct rp_pool *pool)
{
    struct rp_worker_info info[64];
    int n = rp_pool_workers(pool, info, 64);

    for (int i = 0; i < n; i++) {
        char path[64], state = 0;

        if (info[i].state == RP_WORKER_STOPPED)
            continue;
        if (info[i].state != RP_WORKER_IDLE || !info[i].tid)
            return false;
        snprintf(path, sizeof(path), "/proc/self/task/%d/stat", info[i].tid);
        FILE *stat = fopen(path, "re");
        if (!stat)
            return false;
        int read = fscanf(stat, "%*d (%*[^)]) %c", &state);
        fclose(stat);
        if (read != 1 || state != 'S')
            return false;
    }
    return n > 0;
}

/* --- tasks ------------------------------------------------------------------------------------------------------ */

static inline void count_up(void *arg)
{
    atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

static inline void do_nothing(void *arg)
{
    (void)arg;
}

/* A task that knows its fate. */
struct fate {
    _Atomic unsigned ran, dropped;
    _Atomic int reason;
    pthread_t thread; /* that it ran on */
};

static inline void fate_run(void *arg)
{
    struct fate *fate = arg;

    fate->thread = pthread_self();
    fate->ran++;
}

static inline void fate_drop(void *arg, int reason)
{
    struct fate *fate = arg;

    fate->reason = reason;
    fate->dropped++;
}

static inline struct rp_task fated(struct fate *fate)
{
    return (struct rp_task){.fn = fate_run, .dropped = fate_drop, .arg = fate};
}

/* The order in which tasks ran: each appends its number. */
struct order {
    _Atomic unsigned n;
    int of[4096];
};

struct mark {
    struct order *order;
    int number;
};

static inline void mark_run(void *arg)
{
    const struct mark *mark = arg;

    mark->order->of[mark->order->n++ % 4096] = mark->number;
}

/* --- submitting threads ----------------------------------------------------------------------------------------- */

struct submitter {
    struct rp_pool *pool;
    struct rp_task task;
    pthread_barrier_t *start; /* or NULL */
    pthread_t thread;
    _Atomic int rc;
    _Atomic bool returned;
};

static inline void *submitter_main(void *arg)
{
    struct submitter *me = arg;

    if (me->start)
        pthread_barrier_wait(me->start);
    me->rc = rp_pool_submit_task(me->pool, &me->task);
    me->returned = true;
    return NULL;
}

static inline void submitter_start(struct submitter *me)
{
    pthread_attr_t attr;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 * 1024);
    cr_assert_eq(pthread_create(&me->thread, &attr, submitter_main, me), 0);
    pthread_attr_destroy(&attr);
}

static inline int submitter_join(struct submitter *me)
{
    cr_assert_eq(pthread_join(me->thread, NULL), 0);
    return me->rc;
}

/* Starts it and waits until it blocks, behind `before` others. */
static inline void submitter_block(struct submitter *me, unsigned before)
{
    submitter_start(me);
    ASSERT_EVENTUALLY(snapshot_of(me->pool).blocked == before + 1);
}

#endif
