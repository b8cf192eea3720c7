/*
 * The completion queue without a ring of the user's: asleep, busy, overflowing, dying, forked; and its descriptor.
 *
 * Tasks owe completions here as the pool's submit makes them owe: cq_reserve before the submit, cq_post at the end.
 */
#include "pool/completion.h"
#include "life.h"
#include "seed.h"

#include "base/rcu.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>

static struct rp_cq *cq_make(const struct rp_cq_options *options)
{
    struct rp_cq *cq = NULL;
    int rc = rp_cq_create(&cq, options);

    cr_assert_eq(rc, 0, "create: %s", rp_strerror(rc));
    return cq;
}

/* --- posting threads -------------------------------------------------------------------------------------------- */

struct poster {
    struct rp_cq *cq;
    uint64_t first, n;
    unsigned seed; /* 0: without pauses */
    _Atomic uint32_t failed;
    pthread_t thread;
};

static void *poster_main(void *arg)
{
    struct poster *me = arg;

    for (uint64_t i = 0; i < me->n; i++) {
        int rc;
        while ((rc = rp_cq_post(me->cq, me->first + i, (int)(me->first + i) * -3)) == -EAGAIN)
            sched_yield();
        if (rc)
            add_seq(&me->failed, 1);
        if (me->seed && rand_r(&me->seed) % 64 == 0)
            sched_yield();
    }
    return NULL;
}

static void poster_start(struct poster *me)
{
    cr_assert_eq(pthread_create(&me->thread, NULL, poster_main, me), 0);
}

static void poster_end(struct poster *me)
{
    cr_assert_eq(pthread_join(me->thread, NULL), 0);
    cr_assert_eq(load_seq(&me->failed), 0);
}

/* Who came, each once and with its own result. */
struct tally {
    unsigned char *seen;
    uint64_t n, came;
};

static void tally_make(struct tally *tally, uint64_t n)
{
    *tally = (struct tally){.seen = calloc(n, 1), .n = n};
    cr_assert_not_null(tally->seen);
}

static void tally_add(struct tally *tally, const struct rp_completion *out, int n)
{
    for (int i = 0; i < n; i++) {
        cr_assert_lt(out[i].user_data, tally->n);
        cr_assert_eq(tally->seen[out[i].user_data]++, 0, "%llu came twice", (unsigned long long)out[i].user_data);
        cr_assert_eq(out[i].result, (int)out[i].user_data * -3);
    }
    tally->came += (uint64_t)n;
}

/* --- what wait answers ------------------------------------------------------------------------------------------ */

Test(completion, wrong_arguments_are_refused)
{
    struct rp_completion out[4];
    struct rp_cq *cq = (struct rp_cq *)1;
    static const struct rp_cq_options wrong[] = {
        {.entries = (1U << 24) + 1}, {.delivery = 4},         {.delivery = -1},
        {.per_completion = true},    {.delivery = 1},         {.backend = 7},
        {.reserved = {0, 0, 1}},     {.reserved = {[5] = 1}},
    };

    cr_assert_eq(rp_cq_create(NULL, NULL), -EINVAL);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        cr_assert_eq(rp_cq_create(&cq, &wrong[i]), -EINVAL, "number %zu", i);
        cr_assert_null(cq);
    }
    cq = cq_make(NULL);
    cr_assert_eq(rp_cq_wait(NULL, out, 4, 0, 0), -EINVAL);
    cr_assert_eq(rp_cq_wait(cq, NULL, 4, 0, 0), -EINVAL);
    cr_assert_eq(rp_cq_wait(cq, out, 0, 0, 0), -EINVAL);
    cr_assert_eq(rp_cq_wait(cq, out, 4, 5, 0), -EINVAL);
    cr_assert_eq(rp_cq_wait(cq, out, UINT_MAX, 1, 0), -EINVAL);
    cr_assert_eq(rp_cq_wait(cq, out, 4, 1, -1), -EINVAL);
    cr_assert_eq(rp_cq_arm(cq), -EINVAL);
    cr_assert_eq(rp_cq_seen(cq, 1), -EINVAL);
    cr_assert_eq(rp_cq_detach(cq), 0);
    cr_assert_eq(rp_cq_post(NULL, 1, 1), -EINVAL);
    cr_assert_eq(rp_cq_fd(NULL), -EINVAL);
    cr_assert_eq(rp_cq_destroy(NULL), -EINVAL);
    cr_assert_eq(rp_cq_destroy(cq), 0);
}

Test(completion, wait_gives_what_there_is_and_says_when_nothing_came)
{
    struct rp_completion out[4];
    struct rp_cq *cq = cq_make(NULL);

    cr_assert_eq(rp_cq_wait(cq, out, 4, 0, 0), 0);
    cr_assert_eq(rp_cq_wait(cq, out, 4, 0, 1), 0);
    cr_assert_eq(rp_cq_wait(cq, out, 4, 1, 1), -ETIMEDOUT);
    cr_assert_eq(rp_cq_wait(cq, out, 4, 1, rp_after(2 * MS)), -ETIMEDOUT);
    for (uint64_t i = 0; i < 3; i++)
        cr_assert_eq(rp_cq_post(cq, i + 7, -(int)i), 0);
    cr_assert_eq(rp_cq_wait(cq, out, 2, 1, 1), 2, "what is there is had after the deadline too");
    cr_assert_eq(out[0].user_data, 7);
    cr_assert_eq(out[1].result, -1);
    cr_assert_eq(rp_cq_wait(cq, out, 4, 4, rp_after(2 * MS)), 1, "fewer than asked for, as the deadline passed");
    cr_assert_eq(out[0].user_data, 9);
    cr_assert_eq(rp_cq_wait(cq, out, 4, 1, 1), -ETIMEDOUT);
    cr_assert_eq(rp_cq_destroy(cq), 0);
}

Test(completion, a_user_data_and_a_result_arrive_whole)
{
    static const uint64_t data[] = {0, 1, UINT64_MAX, UINT64_C(0x8000000000000000), UINT64_C(0x123456789abcdef0)};
    static const int result[] = {0, -1, INT_MIN, INT_MAX, -ECANCELED};
    struct rp_completion out[5];
    struct rp_cq *cq = cq_make(&(struct rp_cq_options){.entries = 1});

    for (int i = 0; i < 5; i++)
        cr_assert_eq(rp_cq_post(cq, data[i], result[i]), 0);
    cr_assert_eq(rp_cq_wait(cq, out, 5, 5, 0), 5);
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(out[i].user_data, data[i]);
        cr_assert_eq(out[i].result, result[i]);
    }
    cr_assert_eq(rp_cq_destroy(cq), 0);
}

/* --- nothing is lost -------------------------------------------------------------------------------------------- */

Test(completion, eight_entries_hold_a_hundred_thousand)
{
    enum { N = 100000 };
    static struct rp_completion out[N];
    struct tally tally;
    struct rp_cq *cq = cq_make(&(struct rp_cq_options){.entries = 8});
    struct poster poster = {.cq = cq, .n = N};

    tally_make(&tally, N);
    poster_start(&poster);
    poster_end(&poster);
    int n = rp_cq_wait(cq, out, N, N, 0);
    cr_assert_eq(n, N);
    tally_add(&tally, out, n);
    free(tally.seen);
    cr_assert_eq(rp_cq_destroy(cq), 0);
}

/*
 * Adversary: posters that pause at random, a consumer that asks for any number, so that it sleeps for one, for many,
 * over generations that grow under it, and catches up in between. Holds: each comes once, and the consumer, which waits
 * without a deadline, is told.
 */
static void posters_against_a_consumer(unsigned entries, unsigned limit, uint64_t each, const char *test)
{
    enum { POSTERS = 4, MOST = 64 };
    unsigned seed = seed_of(test);
    struct rp_completion out[MOST];
    struct tally tally;
    struct poster poster[POSTERS];
    struct rp_cq *cq = cq_make(&(struct rp_cq_options){.entries = entries, .limit = limit});

    tally_make(&tally, POSTERS * each);
    for (unsigned i = 0; i < POSTERS; i++) {
        poster[i] = (struct poster){.cq = cq, .first = i * each, .n = each, .seed = seed + i};
        poster_start(&poster[i]);
    }
    while (tally.came < tally.n) {
        uint64_t left = tally.n - tally.came;
        unsigned most = left < MOST ? (unsigned)left : MOST;
        unsigned least = (unsigned)rand_r(&seed) % (most + 1);
        if (limit && least > limit)
            least = limit;
        int n = rp_cq_wait(cq, out, most, least, 0);
        cr_assert_geq(n, (int)least);
        tally_add(&tally, out, n);
        if (rand_r(&seed) % 256 == 0)
            nap(MS / 10);
    }
    cr_assert_eq(rp_cq_wait(cq, out, MOST, 0, 0), 0);
    for (unsigned i = 0; i < POSTERS; i++)
        poster_end(&poster[i]);
    free(tally.seen);
    cr_assert_eq(rp_cq_destroy(cq), 0);
}

Test(completion, every_completion_comes_once_while_the_queue_grows)
{
    posters_against_a_consumer(1, 0, UNDER_TSAN || UNDER_ASAN ? 20000 : 100000, "grows");
}

Test(completion, every_completion_comes_once_at_a_limit)
{
    posters_against_a_consumer(4, 7, UNDER_TSAN || UNDER_ASAN ? 5000 : 20000, "limit");
}

/* A consumer that takes so many, each time as many as it likes and asleep for them, and then ends. */
struct mortal {
    struct rp_cq *cq;
    struct tally *tally; /* one consumer at a time */
    uint64_t life;
    unsigned seed;
    int wrong;
    pthread_t thread;
};

static void *mortal_main(void *arg)
{
    struct mortal *me = arg;
    struct rp_completion out[16];

    while (me->life && !me->wrong) {
        unsigned most = me->life < 16 ? (unsigned)me->life : 16, least = 1 + (unsigned)rand_r(&me->seed) % most;
        int n = rp_cq_wait(me->cq, out, most, least, 0);
        if (n < (int)least) {
            me->wrong = n ? n : -EPROTO;
            break;
        }
        me->life -= (unsigned)n;
        for (int i = 0; i < n; i++)
            me->wrong |= me->tally->seen[out[i].user_data]++ || out[i].result != (int)out[i].user_data * -3;
        me->tally->came += (uint64_t)n;
    }
    return NULL;
}

/*
 * Adversary: the consumer's thread ends with completions left and others on their way; a new one takes over, again and
 * again. Holds: the queue belongs to no thread: each completion comes once, and every heir is woken for its own.
 */
Test(completion, what_a_consumer_leaves_behind_is_had_by_the_next)
{
    enum { HEIRS = 40, EACH = 2 * 1000 };
    unsigned seed = seed_of("heirs");
    struct tally tally;
    struct rp_cq *cq = cq_make(&(struct rp_cq_options){.entries = 8});
    struct poster poster[2];

    tally_make(&tally, (uint64_t)2 * HEIRS * EACH);
    for (unsigned i = 0; i < 2; i++) {
        poster[i] = (struct poster){.cq = cq, .first = i * HEIRS * EACH, .n = HEIRS * EACH, .seed = seed + i};
        poster_start(&poster[i]);
    }
    for (unsigned i = 0; i < HEIRS; i++) {
        struct mortal heir = {.cq = cq, .tally = &tally, .life = 2 * EACH, .seed = seed + 2 + i};
        cr_assert_eq(pthread_create(&heir.thread, NULL, mortal_main, &heir), 0);
        cr_assert_eq(pthread_join(heir.thread, NULL), 0);
        cr_assert_eq(heir.wrong, 0);
    }
    cr_assert_eq(tally.came, tally.n);
    for (unsigned i = 0; i < 2; i++)
        poster_end(&poster[i]);
    free(tally.seen);
    cr_assert_eq(rp_cq_destroy(cq), 0);
}

/* Adversary: the consumer asks for one, is woken for it, and sleeps again before the next is posted. */
Test(completion, a_sleeping_consumer_is_told_of_each)
{
    struct rp_completion out;
    struct rp_cq *there = cq_make(NULL), *back = cq_make(NULL);
    struct poster poster = {.cq = there, .n = 1};

    for (int i = 0; i < 300; i++) {
        poster_start(&poster);
        cr_assert_eq(rp_cq_wait(there, &out, 1, 1, rp_after(PATIENCE)), 1, "round %d", i);
        poster_end(&poster);
    }
    cr_assert_eq(rp_cq_destroy(there), 0);
    cr_assert_eq(rp_cq_destroy(back), 0);
}

Test(completion, a_submit_beyond_the_limit_is_refused_until_some_are_taken)
{
    struct rp_completion out[4];
    struct rp_cq *cq = cq_make(&(struct rp_cq_options){.limit = 3});

    for (int i = 0; i < 3; i++)
        cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
    cr_assert_eq(rp_cq_post(cq, 1, 0), -EAGAIN);
    cr_assert_eq(cq_reserve(cq), -EAGAIN);
    cr_assert_eq(rp_cq_wait(cq, out, 1, 1, 0), 1);
    cr_assert_eq(cq_reserve(cq), 0);
    cr_assert_eq(rp_cq_post(cq, 1, 0), -EAGAIN, "a place that is reserved counts");
    cq_unreserve(cq);
    cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
    cr_assert_eq(rp_cq_wait(cq, out, 4, 3, 0), 3);
    cr_assert_eq(rp_cq_destroy(cq), 0);
}

/* --- memory ----------------------------------------------------------------------------------------------------- */

/* Memory is asked for by reserve alone: what it granted can be posted when there is none any more. */
Test(completion, a_reserved_completion_needs_no_memory)
{
    enum { N = 1000 };
    struct rp_completion out[N];
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_cq *cq = cq_make(&(struct rp_cq_options){.entries = 4, .allocator = &allocator});

    for (int i = 0; i < N; i++)
        cr_assert_eq(cq_reserve(cq), 0);
    store_seq(&bank.fail_on, 1);
    store_seq(&bank.fail_at, load_seq(&bank.calls) + 1);
    for (int i = 0; i < N; i++)
        cq_post(cq, (uint64_t)i, i);
    int refused = 0;
    while (!(refused = cq_reserve(cq)))
        cq_post(cq, 0, 0);
    cr_assert_eq(refused, -ENOMEM);
    cr_assert_gt(load_seq(&bank.failures), 0);
    cr_assert_eq(rp_cq_wait(cq, out, N, N, 0), N, "nothing is lost by the refusal");
    for (int i = 0; i < N; i++)
        cr_assert_eq(out[i].result, i);
    cr_assert_eq(cq_reserve(cq), 0, "there are free cells again");
    cq_unreserve(cq);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    cr_assert_eq(load_seq(&bank.live), 0);
    cr_assert_eq(load_seq(&bank.strange), 0);
}

Test(completion, memory_of_a_backlog_is_given_back_when_it_is_taken)
{
    static struct rp_completion out[5000];
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_cq *cq = cq_make(&(struct rp_cq_options){.entries = 4, .allocator = &allocator});
    uint32_t made = load_seq(&bank.live);

    for (uint64_t i = 0; i < 5000; i++)
        cr_assert_eq(rp_cq_post(cq, i, 0), 0);
    cr_assert_gt(load_seq(&bank.live), made + 3);
    cr_assert_eq(rp_cq_wait(cq, out, 5000, 5000, 0), 5000);
    cr_assert_eq(load_seq(&bank.live), made, "only the largest stays");
    cr_assert_eq(rp_cq_destroy(cq), 0);
    cr_assert_eq(load_seq(&bank.live), 0);
}

Test(completion, any_failure_of_create_is_told_and_leaks_nothing)
{
    for (uint32_t n = 1; n <= 2; n++) {
        struct bank bank = {.fail_at = n};
        struct rp_allocator allocator = bank_allocator(&bank);
        struct rp_cq *cq = (struct rp_cq *)1;
        cr_assert_eq(rp_cq_create(&cq, &(struct rp_cq_options){.allocator = &allocator}), -ENOMEM);
        cr_assert_null(cq);
        cr_assert_eq(load_seq(&bank.live), 0);
    }
    struct rp_allocator half = {.free = bank_free};
    struct rp_cq *cq;
    cr_assert_eq(rp_cq_create(&cq, &(struct rp_cq_options){.allocator = &half}), -EINVAL);
}

/* --- one consumer, and its end ---------------------------------------------------------------------------------- */

struct consumer {
    struct rp_cq *cq;
    _Atomic int rc;
    _Atomic uint32_t returned;
    pthread_t thread;
};

static void *consumer_main(void *arg)
{
    struct consumer *me = arg;
    struct rp_completion out;

    me->rc = rp_cq_wait(me->cq, &out, 1, 1, 0);
    store_seq(&me->returned, 1);
    return NULL;
}

static bool sleeps(struct rp_cq *cq)
{
    uint64_t wake = load_seq(&cq->wake);

    return wake != WAKE_DEAD && wake & WAKE_FUTEX;
}

Test(completion, a_second_consumer_is_refused)
{
    struct rp_completion out;
    struct rp_cq *cq = cq_make(NULL);
    struct consumer consumer = {.cq = cq};

    cr_assert_eq(pthread_create(&consumer.thread, NULL, consumer_main, &consumer), 0);
    AWAIT(sleeps(cq));
    cr_assert_eq(rp_cq_wait(cq, &out, 1, 0, 0), -EBUSY);
    cr_assert_eq(rp_cq_fd(cq), -EBUSY);
    cr_assert_eq(rp_cq_detach(cq), -EBUSY);
    cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
    cr_assert_eq(pthread_join(consumer.thread, NULL), 0);
    cr_assert_eq(consumer.rc, 1);
    cr_assert_eq(rp_cq_destroy(cq), 0);
}

Test(completion, destroy_sends_a_waiting_consumer_away)
{
    for (int i = 0; i < 100; i++) {
        struct consumer consumer = {.cq = cq_make(NULL)};
        cr_assert_eq(pthread_create(&consumer.thread, NULL, consumer_main, &consumer), 0);
        if (i % 2)
            AWAIT(sleeps(consumer.cq));
        else
            AWAIT(load_seq(&consumer.cq->consuming) != 0); /* on its way into the sleep */
        cr_assert_eq(rp_cq_destroy(consumer.cq), 0);
        cr_assert_eq(pthread_join(consumer.thread, NULL), 0);
        cr_assert_eq(consumer.rc, -ESHUTDOWN);
    }
}

/* Adversary: tasks that end after their queue was destroyed, in any mixture. Holds: the last of them frees it. */
Test(completion, a_destroyed_queue_lives_until_nothing_is_owed)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);

    for (unsigned posted = 0; posted < 4; posted++)
        for (unsigned owed = 0; owed < 5; owed++) {
            struct rp_cq *cq = cq_make(&(struct rp_cq_options){.entries = 1, .allocator = &allocator});
            for (unsigned i = 0; i < posted; i++)
                cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
            for (unsigned i = 0; i < owed; i++)
                cr_assert_eq(cq_reserve(cq), 0);
            cr_assert_eq(rp_cq_destroy(cq), 0);
            for (unsigned i = 0; i < owed; i++) {
                cr_assert_gt(load_seq(&bank.live), 0);
                if (i % 2)
                    cq_unreserve(cq);
                else
                    cq_post(cq, i, 0);
            }
            cr_assert_eq(load_seq(&bank.live), 0, "%u posted, %u owed", posted, owed);
        }
    cr_assert_eq(load_seq(&bank.strange), 0);
}

struct debtor {
    struct rp_cq *cq;
    unsigned n;
    pthread_barrier_t *start;
    pthread_t thread;
};

static void *debtor_main(void *arg)
{
    struct debtor *me = arg;

    if (rcu_attach())
        return me;
    pthread_barrier_wait(me->start);
    for (unsigned i = 0; i < me->n; i++)
        cq_post(me->cq, i, 0);
    return NULL;
}

/* Adversary: destroy, at the moment that several threads post what they owe. Holds: freed once, by whoever is last. */
Test(completion, destroy_may_race_with_the_last_posts)
{
    enum { DEBTORS = 3, EACH = 4 };
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);

    for (int round = 0; round < (UNDER_TSAN ? 150 : 600); round++) {
        pthread_barrier_t start;
        struct debtor debtor[DEBTORS];
        struct rp_cq *cq = cq_make(&(struct rp_cq_options){.entries = 1, .allocator = &allocator});
        pthread_barrier_init(&start, NULL, DEBTORS + 1);
        for (int i = 0; i < DEBTORS * EACH; i++)
            cr_assert_eq(cq_reserve(cq), 0);
        for (int i = 0; i < DEBTORS; i++) {
            debtor[i] = (struct debtor){.cq = cq, .n = EACH, .start = &start};
            cr_assert_eq(pthread_create(&debtor[i].thread, NULL, debtor_main, &debtor[i]), 0);
        }
        pthread_barrier_wait(&start);
        if (round % 3 == 0) {
            struct rp_completion out[EACH];
            rp_cq_wait(cq, out, EACH, 1, 0);
        }
        cr_assert_eq(rp_cq_destroy(cq), 0);
        for (int i = 0; i < DEBTORS; i++) {
            void *failed;
            cr_assert_eq(pthread_join(debtor[i].thread, &failed), 0);
            cr_assert_null(failed);
        }
        pthread_barrier_destroy(&start);
        cr_assert_eq(load_seq(&bank.live), 0, "round %d", round);
    }
    cr_assert_eq(load_seq(&bank.strange), 0);
}

/* --- with a pool ------------------------------------------------------------------------------------------------ */

static void post_one(void *cq)
{
    cq_post(cq, 1, 0);
}

static int submit_post(struct rp_pool *pool, struct rp_cq *cq)
{
    int rc = cq_reserve(cq);

    if (!rc && (rc = rp_pool_submit(pool, post_one, cq)) != 0)
        cq_unreserve(cq);
    return rc;
}

Test(completion, tasks_post_what_they_owe)
{
    struct rp_pool_options options = {.queue_depth = 64};
    struct rp_pool *pool = pool_make(3, &options);
    struct rp_cq *cq = cq_make(&(struct rp_cq_options){.entries = 8});
    struct rp_completion out[100];

    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 100; i++)
            cr_assert_eq(submit_post(pool, cq), 0);
        cr_assert_eq(rp_cq_wait(cq, out, 100, 100, 0), 100);
    }
    pool_end(pool);
    cr_assert_eq(rp_cq_destroy(cq), 0);
}

struct waiting_task {
    struct rp_pool *pool;
    struct rp_cq *cq;
    _Atomic int rc;
};

static void wait_inside(void *arg)
{
    struct waiting_task *me = arg;
    struct rp_completion out;
    int rc = submit_post(me->pool, me->cq);

    me->rc = rc ? rc : rp_cq_wait(me->cq, &out, 1, 1, 0);
}

/* Adversary: the only worker waits for a completion of a task that is queued behind it. */
Test(completion, a_wait_inside_a_task_lets_the_pool_run_what_it_waits_for)
{
    struct rp_pool_options options = {.queue_depth = 4};
    struct rp_pool *pool = pool_make(1, &options);
    struct waiting_task task = {.pool = pool, .cq = cq_make(NULL)};

    cr_assert_eq(rp_pool_submit(pool, wait_inside, &task), 0);
    AWAIT(task.rc == 1);
    pool_end(pool);
    cr_assert_eq(rp_cq_destroy(task.cq), 0);
}

/* --- the descriptor --------------------------------------------------------------------------------------------- */

static bool readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, 0) == 1;
}

Test(completion, the_descriptor_is_readable_while_completions_wait)
{
    struct rp_completion out[4];
    struct rp_cq *cq = cq_make(NULL);

    cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
    int fd = rp_cq_fd(cq);
    cr_assert_geq(fd, 0);
    cr_assert_eq(rp_cq_fd(cq), fd);
    cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    cr_assert(readable(fd), "there was one before it was made");
    cr_assert_eq(rp_cq_post(cq, 2, 0), 0);
    cr_assert_eq(rp_cq_wait(cq, out, 1, 1, 0), 1);
    cr_assert(readable(fd), "one is left");
    cr_assert_eq(rp_cq_wait(cq, out, 1, 0, 0), 1);
    cr_assert_not(readable(fd), "exactly as many as asked for, and none is left");
    cr_assert_eq(rp_cq_wait(cq, out, 1, 0, 0), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rp_cq_post(cq, 3, 0), 0);
    cr_assert(readable(fd));
    cr_assert_eq(rp_cq_wait(cq, out, 4, 3, 0), 3);
    cr_assert_not(readable(fd));
    cr_assert_eq(rp_cq_wait(cq, out, 1, 1, rp_after(MS)), -ETIMEDOUT);
    cr_assert_not(readable(fd));
    cr_assert_eq(rp_cq_post(cq, 4, 0), 0);
    cr_assert(readable(fd), "a wait in between has not made it deaf");
    cr_assert_eq(rp_cq_destroy(cq), 0);
    cr_assert_eq(fcntl(fd, F_GETFD), -1, "closed");
}

/*
 * Adversary: posters that pause at random, so that the queue is emptied and armed again and again between two posts.
 * Holds: level-triggered epoll tells of every completion, and stays silent in the end.
 */
Test(completion, epoll_is_told_of_every_completion)
{
    enum { POSTERS = 3, MOST = 16 };
    uint64_t each = UNDER_TSAN || UNDER_ASAN ? 3000 : 20000;
    unsigned seed = seed_of("epoll");
    struct rp_completion out[MOST];
    struct tally tally;
    struct poster poster[POSTERS];
    struct epoll_event event = {.events = EPOLLIN};
    struct rp_cq *cq = cq_make(&(struct rp_cq_options){.entries = 1});
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, rp_cq_fd(cq), &event), 0);
    tally_make(&tally, POSTERS * each);
    for (unsigned i = 0; i < POSTERS; i++) {
        poster[i] = (struct poster){.cq = cq, .first = i * each, .n = each, .seed = seed + i};
        poster_start(&poster[i]);
    }
    while (tally.came < tally.n) {
        cr_assert_eq(epoll_wait(epoll, &event, 1, 30000), 1, "%llu came",
                     (unsigned long long)tally.came); /* one take per event: it must stay readable for the rest */
        int n = rp_cq_wait(cq, out, 1 + (unsigned)rand_r(&seed) % MOST, 0, 0);
        cr_assert_geq(n, 0);
        tally_add(&tally, out, n);
    }
    for (unsigned i = 0; i < POSTERS; i++)
        poster_end(&poster[i]);
    cr_assert_eq(rp_cq_wait(cq, out, MOST, 0, 0), 0);
    cr_assert_eq(rp_cq_wait(cq, out, MOST, 0, 0), 0);
    cr_assert_eq(epoll_wait(epoll, &event, 1, 0), 0, "a late ring is not left standing");
    close(epoll);
    free(tally.seen);
    cr_assert_eq(rp_cq_destroy(cq), 0);
}

Test(completion, without_a_descriptor_to_be_had_the_queue_goes_on)
{
    struct rlimit limit, none;
    struct rp_completion out;
    struct rp_cq *cq = cq_make(NULL);

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    int fd = rp_cq_fd(cq);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert_eq(fd, -EMFILE);
    cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
    cr_assert_eq(rp_cq_wait(cq, &out, 1, 1, 0), 1);
    cr_assert_geq(rp_cq_fd(cq), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
}

/* --- fork ------------------------------------------------------------------------------------------------------- */

static int child_of_queue(void *arg)
{
    struct rp_cq *cq = arg, *own;
    struct rp_completion out[4];
    int fd = cq->fd;

    CHECK(rp_cq_wait(cq, out, 4, 1, 0) == -ECHILD);
    CHECK(rp_cq_post(cq, 1, 0) == -ECHILD);
    CHECK(cq_reserve(cq) == -ECHILD);
    CHECK(rp_cq_fd(cq) == -ECHILD);
    CHECK(rp_cq_arm(cq) == -ECHILD);
    CHECK(rp_cq_seen(cq, 1) == -ECHILD);
    CHECK(rp_cq_detach(cq) == -ECHILD);
    cq_post(cq, 1, 0); /* a task's, that went on in the child: does nothing */
    CHECK(rp_cq_destroy(cq) == 0);
    CHECK(fcntl(fd, F_GETFD) == -1);
    CHECK(rp_cq_create(&own, NULL) == 0);
    CHECK(rp_cq_post(own, 5, 0) == 0);
    CHECK(rp_cq_wait(own, out, 1, 1, 0) == 1);
    CHECK(rp_cq_destroy(own) == 0);
    return 0;
}

Test(completion, a_forked_child_is_refused_and_leaves_the_parent_alone)
{
    struct rp_completion out[128];
    struct rp_cq *cq = cq_make(&(struct rp_cq_options){.entries = 4});
    int fd = rp_cq_fd(cq);

    for (int i = 0; i < 100; i++)
        cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
    cr_assert_eq(cq_reserve(cq), 0);
    cr_assert_eq(in_child(child_of_queue, cq), 0);
    cq_post(cq, 1, 0);
    cr_assert(readable(fd));
    cr_assert_eq(rp_cq_wait(cq, out, 128, 101, 0), 101);
    cr_assert_not(readable(fd));
    cr_assert_eq(rp_cq_destroy(cq), 0);
}
