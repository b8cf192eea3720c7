/*
 * Making and ending workers: descriptors with their stacks, the cache of those whose thread has ended, and what happens
 * when a thread cannot be made.
 *
 * The cache has two generations, after the manner of Go's sync.Pool: an ended worker goes to `fresh`; each purge frees
 * what is still in `victim` and turns fresh into victim. So a descriptor that is not used again between two purges is
 * freed, and a burst that comes back sooner finds stack, descriptor and table number ready.
 *
 * Who counts what: `alive` is claimed before a worker is made and given up by the worker itself (or by the failure to
 * make it); `threads` counts what still has to pass worker_retire, the last point at which a thread touches the pool.
 */
#include "base/alloc.h"
#include "base/fork.h"
#include "base/futex.h"
#include "base/rcu.h"
#include "base/signals.h"
#include "pool/pool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* How many descriptors a spawn looks at: a thread that has just retired may not be gone yet. */
#define CACHE_TRIES 8
#define SLAB_MOST 64 /* stacks of one mapping, where many workers are made */
#ifndef FILL_MANY    /* the model has one of its own */
#define FILL_MANY 64 /* so many are missing that others help */
#endif
#define HELPERS_MOST 3U
#define RETRY_FIRST_NS INT64_C(1000000)
#define RETRY_MOST_NS INT64_C(1000000000)

struct worker *worker_at(const struct pool *pool, unsigned number)
{
    return table_get(&pool->table, number);
}

void worker_free(struct worker *worker)
{
    struct stack stack = worker->stack; /* which holds the descriptor */

    alloc_free(&worker->pool->allocator, worker->measures);
    stack_unmap(&stack);
}

/* --- descriptors: each right above its worker's stack, as nearly all of a page is free there ---------------------- */

static int descriptor_create(struct pool *pool, struct worker **out)
{
    struct measures *measures = pool->measured ? measures_create(&pool->allocator) : NULL;
    struct worker *worker = NULL;
    struct stack stack;

    if (pool->measured && !measures)
        return -ENOMEM;
    rp_lock_acquire(&pool->lock);
    if (!pool->slab.left && pool->stacks_expected > 1)
        stack_slab_map(&pool->slab, &pool->shape,
                       pool->stacks_expected < SLAB_MOST ? pool->stacks_expected : SLAB_MOST);
    pool->stacks_expected -= pool->stacks_expected > 0;
    int rc = stack_map(&stack, &pool->shape, &pool->slab);
    if (!rc) {
        worker = stack_above(&stack);
        worker->stack = stack;
        worker->pool = pool;
        worker->measures = measures;
        run_limit_init(&worker->run_limit, pool, worker);
        rc = table_put(&pool->table, &pool->allocator, worker, &worker->number);
    }
    rp_lock_release(&pool->lock);
    if (rc) {
        if (worker)
            worker_free(worker);
        else
            alloc_free(&pool->allocator, measures);
        return rc;
    }
    /* Here, as snprintf would take another page of the worker's stack. */
    snprintf(worker->name, sizeof(worker->name), "%.9s-%u", pool->name, worker->number % 100000);
    *out = worker;
    return 0;
}

/* Its thread was joined, it is out of the table, and a grace period has passed. */
static void descriptor_free(struct worker *worker)
{
    timer_cancel_wait(&worker->run_limit.timer);
    worker_free(worker);
}

/* liburcu's own loop over entries takes the list's head for one at its end, which is not aligned as a worker is. */
static struct worker *cached_worker(struct cds_list_head *node)
{
    return caa_container_of(node, struct worker, cache);
}

/*
 * Whether no thread stands on the descriptor's stack any more. One that has retired may still run destructors of
 * thread-local data, for as long as it likes, and even call us from there: so this never waits.
 */
static bool descriptor_settled(struct worker *worker)
{
    if (worker->joinable && pthread_tryjoin_np(worker->thread, NULL))
        return false;
    worker->joinable = false;
    return true;
}

/* The most recently ended worker's descriptor, whose stack is the warmest, of the first few that can be used. */
static struct worker *cache_take(struct pool *pool)
{
    struct cds_list_head *generations[] = {&pool->fresh, &pool->victim};
    struct worker *found = NULL;
    struct cds_list_head *node;
    int tries = CACHE_TRIES;

    rp_lock_acquire(&pool->lock);
    for (unsigned i = 0; i < 2 && !found && tries; i++)
        cds_list_for_each(node, generations[i])
        {
            if (descriptor_settled(cached_worker(node))) {
                found = cached_worker(node);
                cds_list_del(node);
                pool->cached--;
                break;
            }
            if (--tries == 0)
                break;
        }
    rp_lock_release(&pool->lock);
    return found;
}

static void cache_put_locked(struct pool *pool, struct worker *worker)
{
    cds_list_add(&worker->cache, &pool->fresh);
    pool->cached++;
}

/* --- threads ---------------------------------------------------------------------------------------------------- */

static int thread_start(struct pool *pool, struct worker *worker)
{
    sigset_t before;
    pthread_attr_t attr = pool->attr; /* a copy, as others make threads too: no call changes what both lead to */
    pthread_t thread;                 /* the worker keeps its own id at its end: this copy may be late */

    signals_block(&before); /* the worker inherits it; nor may a handler fork from here on */
    fork_hold_off();
    int rc = pthread_attr_setstack(&attr, worker->stack.base, worker->stack.size);
    if (!rc)
        rc = pthread_create(&thread, &attr, worker_main, worker);
    fork_let_go();
    signals_restore(&before);
    return -rc;
}

/*
 * What `alive` and, if so, the searching count promised is not to be had. Both are given back first; then whoever
 * parked meanwhile and relied on the count is called, as by a searcher that leaves; and last the retry is armed, whose
 * look stands for all others.
 */
void worker_failed(struct pool *pool, bool searching, int rc)
{
    store_seq(&pool->spawn_failing, 1);
    add_seq(&pool->failures, 1);
    sub_seq(&pool->alive, 1);
    if (searching) {
        uint64_t word = sub_seq(&pool->idle.word, IDLE_SEARCHER);
        if (idle_searching(word) == 1 && idle_top(word) && runq_ready(&pool->runq))
            idle_call_one(pool);
    }
    worker_retry_later(pool, rc);
    pool_notify_enders(pool);
}

static int spawn_counted(struct pool *pool, bool searching)
{
    struct worker *worker = cache_take(pool);
    int rc = 0;

    if (!worker)
        rc = descriptor_create(pool, &worker);
    if (rc)
        return rc;
    worker->born_searching = searching;
    worker->enlisted = true;
    worker->crowded = futex_crowd_join();
    store_relaxed(&worker->park, PARK_AWAKE); /* before its thread starts */
    worker_turn(worker, RP_WORKER_UNINITIALISED);
    add_seq(&pool->threads, 1);
    rc = thread_start(pool, worker);
    if (!rc) {
        add_relaxed(&pool->spawned, 1); /* a counter */
        return 0;
    }
    futex_crowd_leave();
    worker_turn(worker, RP_WORKER_STOPPED); /* before others may make it live again */
    rp_lock_acquire(&pool->lock);
    cache_put_locked(pool, worker);
    sub_seq(&pool->threads, 1);
    pool_maybe_reap(pool);
    rp_lock_release(&pool->lock);
    return rc;
}

int worker_spawn(struct pool *pool, bool searching)
{
    int rc = spawn_counted(pool, searching);

    if (rc)
        worker_failed(pool, searching, rc);
    return rc;
}

int worker_add(struct pool *pool, bool searching)
{
    uint32_t alive = load_seq(&pool->alive);

    do {
        if (alive >= load_seq(&pool->target))
            return -EAGAIN;
    } while (!cas_seq(&pool->alive, &alive, alive + 1));
    return worker_spawn(pool, searching);
}

/* The worker counts as searching, so that the task which it is made for does not make another. */
int worker_ensure(struct pool *pool)
{
    uint32_t none = 0;

    if (load_seq(&pool->alive) || !cas_seq(&pool->alive, &none, 1))
        return 0;
    int rc = worker_spawn(pool, idle_search_begin(pool, 1));

    return rc && load_seq(&pool->alive) ? 0 : rc;
}

/* Makes workers until none is left to be made; several may, each one at a time, and all stop at an error. */
static void fill(struct pool *pool, struct fill *it)
{
    uint32_t left = load_seq(&it->left);

    while (left) {
        if (!cas_seq(&it->left, &left, left - 1))
            continue;
        bool over = runq_closed(&pool->runq) || (load_seq(&pool->populating) && load_seq(&pool->begin_error));
        int rc = over ? -ECANCELED : worker_add(pool, false);
        if (rc) {
            store_seq(&it->error, rc);
            store_seq(&it->left, 0);
        }
        left = load_seq(&it->left);
    }
}

void worker_helps_fill(struct pool *pool)
{
    struct fill *shared = &pool->fill;
    uint32_t seats = load_seq(&shared->seats);

    if (!seats)
        return;
    add_seq(&shared->helpers, 1); /* before it takes one: who sees none left sees this */
    while (seats && !cas_seq(&shared->seats, &seats, seats - 1))
        ;
    if (seats)
        fill(pool, shared);
    if (sub_seq(&shared->helpers, 1) == 1)
        futex_wake(&shared->helpers, 1);
}

/* So many stacks are about to be taken; 0: no more, and what is left of a slab is given back. */
static void stacks_expect(struct pool *pool, unsigned n)
{
    rp_lock_acquire(&pool->lock);
    pool->stacks_expected = n;
    if (!n)
        stack_slab_unmap(&pool->slab);
    rp_lock_release(&pool->lock);
}

/* Has up to `most` of those that begin help. */
static void fill_helped(struct pool *pool, struct fill *shared, unsigned most)
{
    store_seq(&shared->seats, most);
    fill(pool, shared);
    store_seq(&shared->seats, 0);
    for (uint32_t helpers; (helpers = load_seq(&shared->helpers));)
        futex_wait(&shared->helpers, helpers, 0);
}

/*
 * As many attempts as are missing at first: workers that do not stay, or that others end, are not made for ever. While
 * a pool is being created the first that cannot begin ends them, as it ends the creation.
 *
 * A new thread takes its first steps on another CPU than its maker, as a rule on one that sleeps, which has to be
 * roused for each. So where many are missing, workers that have just begun help: two makers on two CPUs need two thirds
 * of the time of one, and of the CPUs' time. Not where a hook may have given them what a thread passes on to those that
 * it makes, an affinity say.
 */
int worker_fill(struct pool *pool, unsigned n)
{
    uint32_t alive = load_seq(&pool->alive);
    struct fill own = {.left = 0}, *shared = &pool->fill;

    if (n <= alive)
        return 0;
    bool helped = pool->cpus > 1 && n - alive >= FILL_MANY && !pool->hooks.worker_start &&
                  rp_lock_try(&shared->lock); /* else somebody else fills */
    struct fill *it = helped ? shared : &own;
    store_seq(&it->error, 0);
    store_seq(&it->left, n - alive);
    stacks_expect(pool, n - alive);
    if (helped)
        fill_helped(pool, shared, pool->cpus <= HELPERS_MOST ? pool->cpus - 1 : HELPERS_MOST);
    else
        fill(pool, &own);
    stacks_expect(pool, 0);
    int rc = load_seq(&it->error);
    if (helped)
        rp_lock_release(&shared->lock);
    return rc == -ECANCELED || load_seq(&pool->alive) >= load_seq(&pool->target) ? 0 : rc;
}

/* --- trying again ----------------------------------------------------------------------------------------------- */

/*
 * While `spawn_failing` is set no task makes a worker, and the retry timer is armed or fires: a task that found nobody
 * parked is looked after by the timer at the latest.
 */
void worker_retry_later(struct pool *pool, int rc)
{
    rp_lock_acquire(&pool->lock);
    int64_t last = load_relaxed(&pool->retry_ns); /* our lock */
    bool first = last == 0;
    int64_t wait = first ? RETRY_FIRST_NS : last * 2 < RETRY_MOST_NS ? last * 2 : RETRY_MOST_NS;
    store_relaxed(&pool->retry_ns, wait);
    int64_t due = rp_after(wait);
    rp_lock_release(&pool->lock);
    timer_arm(&pool->retry, due);
    if (first)
        log_emit(&pool->log, RP_LOG_WARNING, "pool %s: a worker could not be made: %s", pool->name, rp_strerror(rc));
}

void worker_retry_settled(struct pool *pool)
{
    if (!load_relaxed(&pool->retry_ns)) /* a failure that is not seen is later than this */
        return;
    rp_lock_acquire(&pool->lock);
    store_relaxed(&pool->retry_ns, 0);
    rp_lock_release(&pool->lock);
}

/* On the reactor. A task that waits for a worker gets one, or the next try. */
void worker_retry_fire(struct timer *timer)
{
    struct pool *pool = caa_container_of(timer, struct pool, retry);

    store_seq(&pool->spawn_failing, 0);
    if (runq_ready(&pool->runq))
        idle_call_one(pool);
    worker_fill(pool, pool->min_workers);
    pool_progress(pool);
}

/* --- the end of a worker ---------------------------------------------------------------------------------------- */

void worker_retire(struct worker *worker)
{
    struct pool *pool = worker->pool;

    futex_crowd_leave();
    worker_turn(worker, RP_WORKER_STOPPED); /* before others may make it live again, or free the pool */
    rp_lock_acquire(&pool->lock);
    worker->joinable = true;
    worker->thread = pthread_self(); /* the creator may not have stored it yet */
    cache_put_locked(pool, worker);
    tick_arm_for_cache(pool);
    if (sub_seq(&pool->threads, 1) == 1)
        pool_notify_enders(pool);
    pool_maybe_reap(pool);
    rp_lock_release(&pool->lock);
    rcu_thread_ends();
}

/* Takes descriptors out of the table, and over what they have measured. */
static void cache_unlist_locked(struct pool *pool, struct cds_list_head *list)
{
    struct cds_list_head *node;

    cds_list_for_each(node, list)
    {
        struct worker *worker = cached_worker(node);
        table_take(&pool->table, worker->number);
        if (worker->measures)
            measures_merge(pool->measured, worker->measures);
        pool->cached--;
    }
}

/* One grace period for all of a list that is out of the table. Not under the lock, not in a section. */
static void cache_free(struct cds_list_head *list)
{
    struct cds_list_head *node, *next;

    if (cds_list_empty(list))
        return;
    rcu_wait();
    cds_list_for_each_safe(node, next, list) descriptor_free(cached_worker(node));
}

void worker_cache_age(struct pool *pool)
{
    CDS_LIST_HEAD(unused);
    struct cds_list_head *node, *next;

    rp_lock_acquire(&pool->lock);
    cds_list_for_each_safe(node, next, &pool->victim)
    {
        if (descriptor_settled(cached_worker(node))) /* else it is a victim once more */
            cds_list_move(node, &unused);
    }
    cache_unlist_locked(pool, &unused);
    cds_list_splice(&pool->fresh, &pool->victim);
    CDS_INIT_LIST_HEAD(&pool->fresh);
    rp_lock_release(&pool->lock);
    cache_free(&unused);
}

/*
 * The last join of a worker. A destructor of thread-local data that destroys the pool runs on one: its stack is lost.
 */
static void descriptor_join(struct worker *worker)
{
    if (!worker->joinable)
        return;
    if (pthread_equal(worker->thread, pthread_self())) {
        pthread_detach(worker->thread);
        worker->stack = (struct stack){0};
    } else {
        pthread_join(worker->thread, NULL);
    }
    worker->joinable = false;
}

void worker_cache_clear(struct pool *pool)
{
    CDS_LIST_HEAD(all);
    struct cds_list_head *node;
    int cancel;

    rp_lock_acquire(&pool->lock);
    cds_list_splice(&pool->fresh, &all);
    cds_list_splice(&pool->victim, &all);
    cache_unlist_locked(pool, &all);
    rp_lock_release(&pool->lock);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* pthread_join is a cancellation point */
    cds_list_for_each(node, &all) descriptor_join(cached_worker(node));
    pthread_setcancelstate(cancel, &cancel);
    cache_free(&all);
}

unsigned worker_cached(struct pool *pool)
{
    rp_lock_acquire(&pool->lock);
    unsigned cached = pool->cached;
    rp_lock_release(&pool->lock);
    return cached;
}
