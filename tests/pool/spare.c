/*
 * Spare futures: what a thread keeps of those that it destroys, that the next ones show nothing of the last, and where
 * they go.
 */
#include "futures.h"

#include "pool/spare.h"

#include <ringpool/completion.h>
#include <ringpool/context.h>
#include <ringpool/group.h>
#include <ringpool/multi.h>
#include <ringpool/retry.h>

static unsigned kept(void)
{
    return spares ? spares->n : 0;
}

static void make_and_destroy(struct rp_pool *pool)
{
    struct rp_future *future = future_make(pool, answer, pool);
    void *value = NULL;

    cr_assert_eq(rp_future_get(future, &value), 42);
    cr_assert_eq(value, pool);
    rp_future_destroy(future);
}

/* --- kept and taken ----------------------------------------------------------------------------------------------- */

Test(spare, the_next_future_is_made_of_the_last_whatever_its_pool)
{
    struct rp_pool *pool = pool_make(1, NULL), *other = pool_make(1, NULL);
    struct rp_future *first = future_make(pool, answer, NULL);

    cr_assert_eq(rp_future_get(first, NULL), 42);
    rp_future_destroy(first);
    cr_assert_eq(kept(), 1);
    struct rp_future *next = future_make(other, answer, &other);
    cr_assert_eq(next, first);
    cr_assert_eq(kept(), 0);
    pool_end(pool);
    void *value = NULL;
    cr_assert_eq(rp_future_get(next, &value), 42);
    cr_assert_eq(value, &other);
    rp_future_destroy(next);
    pool_end(other);
}

Test(spare, a_thread_keeps_so_many)
{
    enum { N = 2 * SPARES_MOST };
    struct rp_pool *pool = pool_make(2, NULL);
    struct rp_future *futures[N];

    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < N; i++)
            futures[i] = future_make(pool, answer, NULL);
        cr_assert_eq(kept(), 0);
        for (unsigned i = 0; i < N; i++) {
            cr_assert_eq(rp_future_get(futures[i], NULL), 42);
            rp_future_destroy(futures[i]);
            cr_assert_eq(kept(), i < SPARES_MOST ? i + 1 : SPARES_MOST);
        }
    }
    pool_end(pool);
}

/* A refused submit gives back what it took. */
Test(spare, one_that_is_refused_is_kept)
{
    struct rp_pool *pool = pool_make(1, NULL), *released = pool_make(1, NULL);
    struct rp_future *future = NULL;

    make_and_destroy(pool);
    cr_assert_eq(rp_pool_release(released), 0);
    cr_assert_eq(rp_pool_submit_future(released, answer, NULL, &future), -ESHUTDOWN);
    cr_assert_null(future);
    cr_assert_eq(kept(), 1);
    make_and_destroy(pool);
    pool_end(pool);
    pool_end(released);
}

/* --- not kept ----------------------------------------------------------------------------------------------------- */

static void done_with(struct rp_future *future)
{
    cr_assert_geq(rp_future_get_until(future, NULL, 0), 0);
    rp_future_destroy(future);
    cr_assert_eq(kept(), 0);
}

Test(spare, none_is_kept_that_says_more)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future, *next;
    struct rp_ctx *ctx;
    struct rp_cq *cq;

    cr_assert_eq(rp_ctx_create(&ctx, NULL, 0), 0);
    cr_assert_eq(rp_cq_create(&cq, NULL), 0);
    const struct rp_task like[] = {
        {.label = "named"},
        {.priority = RP_PRIO_HIGH},
        {.overload = RP_OVERLOAD_FAIL},
        {.timeout = PATIENCE},
        {.deadline = rp_after(PATIENCE)},
        {.ctx = ctx},
        {.cq = cq},
    };
    for (size_t i = 0; i < sizeof(like) / sizeof(*like); i++) {
        cr_assert_eq(rp_pool_submit_future_task(pool, answer, &like[i], &future), 0, "%zu", i);
        done_with(future);
    }
    future = future_make(pool, answer, NULL);
    cr_assert_eq(rp_future_then(future, NULL, plus_one, NULL, &next), 0);
    done_with(next);
    cr_assert_eq(rp_future_get(future, NULL), 42);
    rp_future_destroy(future);
    cr_assert_eq(kept(), 1, "what was continued is one like others");
    pool_end(pool);
    rp_ctx_destroy(ctx);
    rp_cq_destroy(cq);
}

Test(spare, none_is_kept_of_a_users_memory_nor_made_for_it)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_pool *plain = pool_make(1, NULL);
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.allocator = &allocator});

    done_with(future_make(pool, answer, NULL));
    make_and_destroy(plain);
    cr_assert_eq(kept(), 1);
    struct rp_future *future = future_make(pool, answer, NULL);
    cr_assert_eq(kept(), 1);
    cr_assert_eq(rp_future_get(future, NULL), 42);
    rp_future_destroy(future);
    cr_assert_eq(kept(), 1);
    pool_end(pool);
    pool_end(plain);
    cr_assert_eq(load_seq(&bank.live), 0);
    cr_assert_eq(load_seq(&bank.strange), 0);
}

static void tell_kept(void *arg)
{
    store_seq((_Atomic uint32_t *)arg, kept() + 1);
}

/* Its owner has given it up before it ends. */
Test(spare, a_worker_keeps_none)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 8});
    _Atomic uint32_t told = 0;

    for (unsigned i = 0; i < 4; i++)
        rp_future_detach(future_make(pool, pass_gate, &gate));
    gate_open(&gate);
    cr_assert_eq(rp_pool_submit(pool, tell_kept, (void *)&told), 0);
    AWAIT(load_seq(&told));
    cr_assert_eq(load_seq(&told), 1);
    cr_assert_eq(kept(), 0);
    pool_end(pool);
}

/* --- as if new ---------------------------------------------------------------------------------------------------- */

static int ask_context(void *arg, void **value)
{
    (void)arg;
    *value = rp_ctx_current();
    return 7;
}

static int wait_cancelled(void *arg, void **value)
{
    (void)value;
    add_seq(&((struct gate *)arg)->inside, 1);
    while (!rp_ctx_err(rp_ctx_current()))
        nap(100000);
    return 5;
}

static void *get_it(void *arg)
{
    return rp_future_get(arg, NULL) == 0 ? arg : NULL;
}

/* What its one worker did before is over to the last instruction: who gives a future up earlier leaves it to that. */
static void one_more(struct rp_pool *pool)
{
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_pool_submit(pool, count_task, (void *)&ran), 0);
    AWAIT(load_seq(&ran));
}

/* Each way to an end and each kind of use leaves its bits in the word, and more. The next one has none of them. */
static void is_new(struct rp_pool *pool, struct rp_future *last)
{
    struct gate gate = {0};
    void *value = &gate;

    one_more(pool);
    rp_future_destroy(last);
    cr_assert_geq(kept(), 1);
    struct rp_future *next = future_make(pool, pass_gate, &gate);
    cr_assert_eq(next, last);
    AWAIT(load_seq(&gate.inside));
    cr_assert_not(rp_future_done(next));
    cr_assert_eq(rp_future_try_get(next, &value), -EBUSY);
    cr_assert_eq(rp_future_get_timeout(next, &value, 1000000), -ETIMEDOUT);
    gate_open(&gate);
    cr_assert_eq(rp_future_get(next, &value), 0);
    cr_assert_null(value);
    rp_future_destroy(next);
}

Test(spare, shows_nothing_of_what_the_last_one_was)
{
    struct gate gate = {0}, begun = {0};
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 8, .log = quiet});
    struct rp_future *future, *next;
    void *context = NULL;
    pthread_t thread;

    future = future_make(pool, panic, NULL);
    cr_assert_eq(rp_future_get(future, NULL), -EFAULT);
    is_new(pool, future);

    future = future_make(pool, ask_context, NULL);
    cr_assert_eq(rp_future_get(future, &context), 7);
    cr_assert_not_null(context);
    is_new(pool, future);

    future = future_make(pool, wait_cancelled, &begun);
    AWAIT(load_seq(&begun.inside));
    cr_assert_eq(rp_future_cancel(future), 0);
    cr_assert_eq(rp_future_get(future, NULL), 5);
    is_new(pool, future);

    future = future_make(pool, pass_gate, &gate);
    cr_assert_eq(rp_future_then(future, NULL, plus_one, NULL, &next), 0);
    pthread_create(&thread, NULL, get_it, future);
    nap(2000000);
    gate_open(&gate);
    void *got;
    pthread_join(thread, &got);
    cr_assert_eq(got, future);
    cr_assert_eq(rp_future_get(next, NULL), 1);
    rp_future_destroy(next);
    is_new(pool, future);
    pool_end(pool);
}

/* Cancelled before it began, and run by its waiter: with the bits of both, and a place in the queue. */
Test(spare, shows_nothing_of_one_that_never_came_to_a_worker)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_shut(1, &gate);
    struct rp_future *cancelled = future_make(pool, answer, NULL), *run = future_make(pool, answer, NULL);

    cr_assert_eq(rp_future_cancel(cancelled), 0);
    cr_assert_eq(rp_future_run(run), 0);
    cr_assert_eq(rp_future_get(run, NULL), 42);
    cr_assert_eq(rp_future_get(cancelled, NULL), -ECANCELED);
    gate_open(&gate);
    AWAIT(rp_pool_busy(pool) == 0);
    is_new(pool, run);
    is_new(pool, cancelled);
    pool_end(pool);
}

/* --- where they go ------------------------------------------------------------------------------------------------ */

static pthread_key_t late_key;

static void destroy_late(void *arg)
{
    static _Thread_local unsigned rounds;
    struct rp_future **futures = arg;

    if (rounds++ == 0) { /* after all other destructors of the round have been called */
        pthread_setspecific(late_key, arg);
        return;
    }
    rp_future_destroy(futures[0]);
    futures[0] = spares && !spares->next ? NULL : futures[0];
}

static void *keeps_and_ends(void *arg)
{
    struct rp_future **futures = arg;

    pthread_setspecific(late_key, futures);
    for (unsigned i = 1; i < SPARES_MOST; i++)
        rp_future_destroy(futures[i]);
    return kept() == SPARES_MOST - 1 ? arg : NULL;
}

/* LeakSanitizer sees what a thread that ended left behind, AddressSanitizer what was freed twice. */
Test(spare, a_thread_that_ends_frees_its_own_and_keeps_no_more)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = SPARES_MOST});
    struct rp_future *futures[SPARES_MOST];
    pthread_t thread;
    void *kept_all;

    cr_assert_eq(pthread_key_create(&late_key, destroy_late), 0);
    for (unsigned i = 0; i < SPARES_MOST; i++)
        futures[i] = future_make(pool, answer, NULL);
    cr_assert_eq(rp_future_wait_all(futures, SPARES_MOST, rp_after(PATIENCE)), 0);
    one_more(pool);
    pthread_create(&thread, NULL, keeps_and_ends, futures);
    pthread_join(thread, &kept_all);
    cr_assert_eq(kept_all, futures);
    cr_assert_null(futures[0], "one that a destructor gave up later was kept");
    pthread_key_delete(late_key);
    pool_end(pool);
}

static int in_the_child(void *arg)
{
    struct rp_future *before = arg, *future;
    struct rp_pool *pool;

    rp_future_destroy(before);
    CHECK(kept() == 1);
    CHECK(rp_pool_create(&pool, 1, NULL) == 0);
    CHECK(rp_pool_submit_future(pool, answer, NULL, &future) == 0);
    CHECK(kept() == 0);
    CHECK(rp_future_get(future, NULL) == 42);
    rp_future_destroy(future);
    CHECK(kept() == 1);
    rp_pool_destroy(pool);
    return 0;
}

Test(spare, a_forked_child_uses_its_threads_but_keeps_none_of_its_parents)
{
    NEEDS_THREADS_IN_CHILDREN();
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *done = future_make(pool, answer, NULL);

    cr_assert_eq(rp_future_get(done, NULL), 42);
    make_and_destroy(pool);
    cr_assert_eq(in_child(in_the_child, done), 0);
    rp_future_destroy(done);
    pool_end(pool);
}
