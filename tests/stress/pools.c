/*
 * The load `pools`: pools with random options under random load and random interference, and a ledger of every task.
 *
 * --only takes a mix: calm (no release before the end), chaos, memory (an allocator that fails at random), expiry
 * (workers expire within a millisecond), shrink (tune all the time).
 *
 * What a round is. One to three pools at once with random options: capacity 1 to 16, now and then 64 or unlimited;
 * queue depth, expiry, every overload and release policy, nonblocking or a bound on blocked submitters, minimum and
 * preallocated workers, few workers beyond capacity, shared or own reactor, contained signals, an allocator that counts
 * and may fail. One to twelve submitters use all forms of submit with tiny deadlines, priorities, labels, timeouts,
 * dropped callbacks and batches. Tasks count, spin, submit to their own pool, panic, fault, end their thread, bracket
 * blocking parts, read every gauge, tune, release, reboot and wait for the release of the pool they run on. Chaos
 * threads do the same from outside and send signals without SA_RESTART to the submitters. A pool ends by
 * release_until and destroy, by destroy alone, by two destroys at once, by destroy with submitters at work, or by a
 * task of its own.
 *
 * What must hold. An accepted task meets exactly one fate, with a reason that the pool's options allow; a rejected one
 * meets none; every return code is one that the headers allow for these options; a snapshot adds up at any moment and
 * agrees with the ledger at rest; the allocator is balanced after the end, deferred ends included.
 *
 * What it does not show: order (priorities, first in first out), bounds on overtaking, speed, fork.
 */
#include "pools.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHAOS 2

static const char *const mix_names[MIXES] = {"any", "calm", "chaos", "memory", "expiry", "shrink"};

struct trial *trials[POOLS];
_Atomic unsigned trials_alive;

enum mix only;
_Atomic bool stop_chaos;
_Atomic uint64_t n_accepted, n_ran, n_panics, n_spawned, n_expired, n_dropped[CODES], n_rejected[CODES];

/* --- for a report ------------------------------------------------------------------------------------------------- */

static const char *const state_names[] = {"uninitialised", "running", "idle", "stopping", "stopped"};

static void dump(void)
{
    unsigned n = trials_alive;

    for (unsigned i = 0; i < n; i++) {
        struct trial *t = trials[i];
        const struct rp_pool_options *o = &t->options;
        struct rp_pool_snapshot s;
        struct rp_worker_info workers[64];
        unsigned open = 0, untold = 0, used = t->used < RECORDS ? t->used : RECORDS;

        for (unsigned k = 1; k < used; k++) {
            untold += t->records[k].verdict == VERDICT_NONE;
            open += t->records[k].verdict == ACCEPTED && t->records[k].fate == FATE_NONE;
        }
        fprintf(stderr,
                "pool %u: capacity %u, depth %u, expiry %" PRId64 " us, min %u, prealloc %d, extra %u, overload %d, "
                "release %d, nonblocking %d, max_blocking %u, own reactor %d, contain %d, no_purge %d, unordered %d, "
                "metrics %d, "
                "may_fail %d, "
                "calm %d, ending %d\n"
                "    released %d, over %d, destroyed %d, allocated %" PRId64 ", records %u, accepted without fate %u, "
                "without verdict %u\n",
                t->number, t->capacity, o->queue_depth, o->expiry_ns / 1000, o->min_workers, o->prealloc, o->max_extra,
                o->overload, o->release_policy, o->nonblocking, o->max_blocking, o->own_reactor, o->contain_signals,
                o->no_purge, o->unordered, o->metrics, t->may_fail, t->calm, (int)t->ending, t->released, t->over,
                t->destroyed, (int64_t)t->allocated, used, open, untold);
        int rc = t->pool ? rp_pool_snapshot(t->pool, &s) : -ESHUTDOWN;
        if (rc) {
            fprintf(stderr, "    no snapshot: %s\n", rp_strerror(rc));
            continue;
        }
        fprintf(stderr,
                "    capacity %u, running %u, busy %u, idle %u, waiting %u, blocked %u, closed %d\n"
                "    submitted %" PRIu64 ", completed %" PRIu64 ", dropped %" PRIu64 ", rejected %" PRIu64
                ", panicked %" PRIu64 ", spawned %" PRIu64 ", expired %" PRIu64 "\n",
                s.capacity, s.running, s.busy, s.idle, s.waiting, s.blocked, s.closed, s.submitted, s.completed,
                s.dropped, s.rejected, s.panicked, s.spawned, s.expired);
        int listed = rp_pool_workers(t->pool, workers, 64);
        for (int k = 0; k < listed && k < 64; k++)
            fprintf(stderr, "    worker %u: %s, tid %d, label %s, tasks %" PRIu64 "\n", workers[k].worker,
                    state_names[workers[k].state], workers[k].tid, workers[k].label ? workers[k].label : "-",
                    workers[k].tasks);
    }
}

/* --- the counting allocator --------------------------------------------------------------------------------------- */

static bool refuse(struct trial *t)
{
    return t->failing && one_in(4);
}

static void *count_malloc(void *user, size_t size)
{
    struct trial *t = user;
    void *p = refuse(t) ? NULL : malloc(size);

    t->allocated += p != NULL;
    return p;
}

static void *count_calloc(void *user, size_t n, size_t size)
{
    struct trial *t = user;
    void *p = refuse(t) ? NULL : calloc(n, size);

    t->allocated += p != NULL;
    return p;
}

static void count_free(void *user, void *p)
{
    struct trial *t = user;

    free(p);
    t->allocated -= p != NULL;
}

/* --- pools -------------------------------------------------------------------------------------------------------- */

static void on_panic(void *user, const struct rp_panic_info *info)
{
    if (!info->reason)
        fail("a panic without reason in pool %u", ((struct trial *)user)->number);
}

static void options_roll(struct trial *t)
{
    struct rp_pool_options *o = &t->options;
    enum mix mix = only;

    t->capacity = one_in(20) ? RP_UNLIMITED : one_in(12) ? 64 : 1 + rnd(one_in(2) ? 3 : 16);
    t->calm = mix == MIX_CALM || mix == MIX_SHRINK || (mix != MIX_CHAOS && one_in(3));
    t->discards = one_in(2);
    t->may_fail = mix == MIX_MEMORY || (mix == MIX_ANY && one_in(5));
    t->ending = (enum ending)rnd(ENDINGS);
    t->allocator = (struct rp_allocator){count_malloc, count_calloc, count_free, t};
    o->queue_depth = one_in(3) ? 0 : rnd(65);
    o->unordered = one_in(3);
    o->metrics = one_in(3);
    if (o->unordered && !one_in(4)) /* deep enough, and its tasks short enough, for workers to take several at once */
        o->queue_depth = 200 + rnd(800);
    o->expiry_ns = mix == MIX_EXPIRY || one_in(2) ? 1000000 : 1000000 + rnd(50000000);
    o->no_purge = mix != MIX_EXPIRY && one_in(8);
    o->overload = t->discards ? (int)rnd(6) : one_in(4) ? RP_OVERLOAD_FAIL : RP_OVERLOAD_DEFAULT;
    o->nonblocking = one_in(6);
    o->max_blocking = !o->nonblocking && one_in(5) ? 1 + rnd(4) : 0;
    o->release_policy = one_in(2) ? RP_RELEASE_DROP : RP_RELEASE_RUN;
    unsigned most = t->capacity < 16 ? t->capacity : 16;
    o->min_workers = one_in(3) ? rnd(most + 1) : 0;
    o->prealloc = t->capacity != RP_UNLIMITED && one_in(6);
    o->max_extra = one_in(2) ? 1 + rnd(3) : 0;
    o->own_reactor = one_in(3);
    o->contain_signals = one_in(4);
    o->on_panic = on_panic;
    o->panic_user = t;
    o->log = quiet_log;
    o->stack_size = STACK;
    o->name = "stress";
    o->allocator = &t->allocator;
    o->backend = backend;
}

static void trial_begin(unsigned number)
{
    struct trial *t = calloc(1, sizeof(*t));

    if (!t)
        fail("the test itself has no memory");
    t->number = number;
    options_roll(t);
    trials[number] = t;
    t->failing = t->may_fail && one_in(4);
    int rc = rp_pool_create(&t->pool, t->capacity, &t->options);
    code_check("create", rc, t->may_fail ? MAY_NOMEM | MAY_AGAIN : 0);
    t->failing = false;
    if (rc) {
        if (t->pool || t->allocated)
            fail("a create that failed with %d left %p and %" PRId64 " pieces", rc, (void *)t->pool,
                 (int64_t)t->allocated);
        if ((rc = rp_pool_create(&t->pool, t->capacity, &t->options)))
            fail("create without failing allocator: %s", rp_strerror(rc));
    }
    t->failing = t->may_fail;
    trials_alive = number + 1;
}

static void destroy_inside(void *arg)
{
    struct record *r = arg;

    destroy(r->trial);
    r->fate = FATE_RAN;
}

static void destroy_dropped(void *arg, int reason)
{
    struct record *r = arg;

    r->fate = reason;
}

/* Until such a task has run: it may be dropped, and find the pool closed or full. It uses the record kept for it. */
static void end_inside(struct trial *t)
{
    struct record *r = &t->records[0];
    struct rp_task task = {.fn = destroy_inside, .arg = r, .dropped = destroy_dropped, .overload = RP_OVERLOAD_BLOCK};

    r->trial = t;
    while (r->fate != FATE_RAN) {
        int rc = rp_pool_reboot(t->pool);
        r->fate = FATE_NONE;
        if (!rc)
            rc = rp_pool_submit_task(t->pool, &task);
        if (rc && rc != -EAGAIN && rc != -ESHUTDOWN)
            fail("submit at the end: %s", rp_strerror(rc));
        while (!rc && r->fate == FATE_NONE)
            nap(100000);
        nap(100000);
    }
}

static void *destroy_thread(void *arg)
{
    guest = true;
    destroy(arg);
    return NULL;
}

/* Nobody but the pool's own tasks uses it any more. */
static void rest(struct trial *t)
{
    int rc;

    while ((rc = rp_pool_release_until(t->pool, rp_after(SETTLE_NS), NULL)) == -ESHUTDOWN)
        ; /* a task that had not seen the end yet rebooted it */
    if (rc)
        fail("release_until of pool %u at the end: %s", t->number, rp_strerror(rc));
    if ((rc = rp_pool_snapshot(t->pool, &t->at_rest)))
        fail("snapshot at rest: %s", rp_strerror(rc));
    t->rested = true;
    n_spawned += t->at_rest.spawned;
    n_expired += t->at_rest.expired;
}

static void trial_end(struct trial *t)
{
    pthread_t other;

    t->failing = false;
    switch (t->ending) {
    case END_RELEASE:
        t->released = t->over = true;
        rest(t);
        destroy(t);
        return;
    case END_TWO_DESTROYS:
        if (pthread_create(&other, NULL, destroy_thread, t))
            fail("the test itself has no thread");
        destroy(t);
        pthread_join(other, NULL);
        return;
    case END_INSIDE:
        end_inside(t);
        return;
    default:
        destroy(t);
    }
}

/* --- a round ------------------------------------------------------------------------------------------------------ */

static void round_run(void)
{
    pthread_t chaos_threads[CHAOS];
    unsigned pools;

    stop_chaos = submitters_done = false;
    pools = 1 + (one_in(3) ? rnd(POOLS) : 0);
    for (unsigned i = 0; i < pools; i++) {
        trial_begin(i);
        trials[i]->used = 1; /* the first record is end_inside's */
    }
    submitter_count = 1 + rnd(SUBMITTERS);
    for (unsigned i = 0; i < submitter_count; i++)
        if (pthread_create(&submitter_threads[i], NULL, submitter, (void *)(uintptr_t)(i + 1)))
            fail("the test itself has no thread");
    for (unsigned i = 0; i < CHAOS; i++)
        if (pthread_create(&chaos_threads[i], NULL, chaos, (void *)(uintptr_t)(100 + i)))
            fail("the test itself has no thread");

    nap(1000000 + rnd(300000000));
    /* Pools that end under the hands of their submitters. A call made too late still finds the handle: no pool is made
     * until all submitters have gone, so the handle is nobody else's. */
    for (unsigned i = 0; i < pools; i++)
        if (trials[i]->ending == END_RACING)
            trial_end(trials[i]);
    stop_chaos = true;
    for (unsigned i = 0; i < CHAOS; i++)
        pthread_join(chaos_threads[i], NULL);
    for (unsigned i = 0; i < pools; i++) {
        trials[i]->failing = false;
        if (trials[i]->ending != END_RACING && !trials[i]->calm)
            reboot(trials[i]);
    }
    submitters_done = one_in(2);
    for (unsigned i = 0; i < submitter_count; i++)
        pthread_join(submitter_threads[i], NULL);
    for (unsigned i = 0; i < pools; i++)
        if (trials[i]->ending != END_RACING)
            trial_end(trials[i]);

    for (unsigned i = 0; i < pools; i++)
        if (!SETTLES(trials[i]->allocated == 0))
            fail("pool %u was destroyed and holds %" PRId64 " pieces of memory", i, (int64_t)trials[i]->allocated);
    for (unsigned i = 0; i < pools; i++) {
        ledger_check(trials[i]);
        if (trials[i]->destroyed != 1)
            fail("%d destroys of pool %u succeeded", trials[i]->destroyed, i);
    }
    trials_alive = 0;
    for (unsigned i = 0; i < pools; i++) {
        free(trials[i]);
        trials[i] = NULL;
    }
}

static void on_sigusr1(int signal)
{
    (void)signal;
}

/* A first pool leaves behind what a process has once: the shared reactor may stay, tables of liburcu and libgcc too. */
static void warm_up(void)
{
    struct rp_pool_options o = {.backend = backend, .contain_signals = true, .stack_size = STACK};
    struct rp_pool *pool;
    int rc = rp_pool_create(&pool, 2, &o);

    if (rc) {
        fprintf(stderr, "stress: create: %s\n", rp_strerror(rc));
        exit(1);
    }
    guest = true;
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_sigusr1}, NULL); /* no SA_RESTART */
    rp_pool_prewarm(pool, 2);
    rp_pool_destroy(pool);
}

static void report(void)
{
    printf(", submitted %" PRIu64 ", ran %" PRIu64 ", panics %" PRIu64 ", spawned %" PRIu64 ", expired %" PRIu64,
           (uint64_t)n_accepted, (uint64_t)n_ran, (uint64_t)n_panics, (uint64_t)n_spawned, (uint64_t)n_expired);
    for (int i = 0; i < CODES; i++)
        if (n_dropped[i])
            printf(", dropped %s %" PRIu64, strerrorname_np(i), (uint64_t)n_dropped[i]);
    for (int i = 0; i < CODES; i++)
        if (n_rejected[i])
            printf(", rejected %s %" PRIu64, i ? strerrorname_np(i) : "in a batch", (uint64_t)n_rejected[i]);
}

bool pools_mix(const char *name)
{
    for (only = MIX_ANY; only < MIXES; only++)
        if (!strcmp(name, mix_names[only]))
            return true;
    return false;
}

const struct load load_pools = {"pools", warm_up, round_run, dump, report};
