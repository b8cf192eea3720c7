/*
 * How futures end: all that can see an end see the same one, whatever raced for it; continuations count for a release;
 * and a wait for one of several holds where the kernel cannot wait for several words, or memory is short.
 */
#include "futures.h"

#include <ringpool/completion.h>
#include <ringpool/context.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* --- one end, many observers -------------------------------------------------------------------------------------- */

enum { GETS, WAITS_ANY, WAITS_ALL, POLLS, OBSERVERS };

/* One future, and what each that looks at it saw. */
struct scene {
    struct rp_future *future, *next;
    struct rp_ctx *ctx;
    unsigned how; /* what races with its run */
    pthread_barrier_t barrier;
    _Atomic uint32_t ran, dropped, reason, went_on, place;
    int seen[OBSERVERS];
    void *value[OBSERVERS];
};

static int ends_when_asked(void *arg, void **value)
{
    struct scene *scene = arg;

    add_seq(&scene->ran, 1);
    *value = scene;
    for (int i = 0; i < 300 && !rp_ctx_done(rp_ctx_current()); i++)
        cpu_relax();
    return 7;
}

static void scene_dropped(void *arg, int reason)
{
    struct scene *scene = arg;

    store_seq(&scene->reason, (uint32_t)-reason);
    add_seq(&scene->dropped, 1);
}

static int goes_on(void *arg, int result, void *value, void **next_value)
{
    struct scene *scene = arg;

    add_seq(&scene->went_on, 1);
    *next_value = value;
    return result;
}

static void observe(struct scene *scene, unsigned how, int *seen, void **value)
{
    if (how == WAITS_ANY)
        rp_future_wait_any(&scene->future, 1, 0);
    else if (how == WAITS_ALL)
        rp_future_wait_all(&scene->future, 1, 0);
    while (how == POLLS && !rp_future_done(scene->future))
        cpu_relax();
    *seen = rp_future_get(scene->future, value);
}

static void *observer_main(void *arg)
{
    struct scene *scene = arg;
    unsigned me = add_seq(&scene->place, 1);

    pthread_barrier_wait(&scene->barrier);
    observe(scene, me, &scene->seen[me], &scene->value[me]);
    return NULL;
}

static void *ender_main(void *arg)
{
    struct scene *scene = arg;

    pthread_barrier_wait(&scene->barrier);
    if (scene->how % 3 == 0)
        rp_future_cancel(scene->future);
    else if (scene->how % 3 == 1)
        rp_ctx_cancel(scene->ctx, 0);
    else
        rp_future_run(scene->future); /* the third way: by a thread that is not a worker */
    return NULL;
}

static void scene_make(struct scene *scene, struct rp_pool *pool, struct rp_cq *cq)
{
    const struct rp_task task = {.arg = scene,
                                 .dropped = scene_dropped,
                                 .ctx = scene->ctx,
                                 .cq = cq,
                                 .user_data = (uint64_t)(uintptr_t)scene,
                                 .timeout = scene->how % 5 == 4 ? 20000 : 0};

    cr_assert_eq(rp_pool_submit_future_task(pool, ends_when_asked, &task, &scene->future), 0);
    cr_assert_eq(rp_future_then(scene->future, NULL, goes_on, scene, &scene->next), 0);
}

/* All agree, and what they agree on is what happened. */
static void scene_check(struct scene *scene, const struct rp_completion *completion)
{
    bool returned = scene->seen[0] == 7;
    void *value = scene;
    int next = rp_future_get(scene->next, &value);

    for (int i = 0; i < OBSERVERS; i++) {
        cr_assert_eq(scene->seen[i], scene->seen[0], "observer %d saw %d, another one %d", i, scene->seen[i],
                     scene->seen[0]);
        cr_assert_eq(scene->value[i], returned ? scene : NULL);
    }
    cr_assert(returned || scene->seen[0] == -ECANCELED || scene->seen[0] == -ETIMEDOUT, "%d", scene->seen[0]);
    cr_assert_eq(completion->user_data, (uint64_t)(uintptr_t)scene);
    cr_assert_eq(completion->result, scene->seen[0]);
    cr_assert(next == scene->seen[0] || (scene->how % 3 == 1 && next == -ECANCELED), "the next one: %d after %d", next,
              scene->seen[0]); /* its context is that of the first */
    cr_assert_eq(load_seq(&scene->went_on), next == 7);
    cr_assert_eq(load_seq(&scene->ran) + load_seq(&scene->dropped), 1, "%u runs, %u drops", load_seq(&scene->ran),
                 load_seq(&scene->dropped));
    if (load_seq(&scene->dropped))
        cr_assert_eq(-(int)load_seq(&scene->reason), scene->seen[0]);
    else
        cr_assert(returned || scene->how % 5 == 4, "it ran and returned, and all saw %d", scene->seen[0]);
}

/*
 * Adversary: a cancel, the end of the context, a thread that runs it in place, and a run timeout, each at once with the
 * worker; four threads that look in four ways, a continuation and a completion queue. Holds: one CAS of the word
 * decides, and every one of them tells the same; fn ran, or dropped was called, never both. Two words for "done" and
 * "why" show as observers that differ.
 */
Test(future_end, all_observers_of_a_race_agree_on_one_end, .timeout = 240)
{
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 64, .log_level = RP_LOG_NONE});
    unsigned ends[2] = {0};
    struct rp_cq *cq;

    cr_assert_eq(rp_cq_create(&cq, NULL), 0);
    for (unsigned round = 0; round < (UNDER_TSAN ? 200 : 900); round++) {
        struct scene scene = {.how = round};
        pthread_t threads[OBSERVERS + 1];
        struct rp_completion completion;
        struct gate gate = {0};

        cr_assert_eq(rp_ctx_create(&scene.ctx, NULL, 0), 0);
        pthread_barrier_init(&scene.barrier, NULL, OBSERVERS + 2);
        for (int i = 0; i < 2; i++)
            cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
        scene_make(&scene, pool, cq);
        for (int i = 0; i < OBSERVERS; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, observer_main, &scene), 0);
        cr_assert_eq(pthread_create(&threads[OBSERVERS], NULL, ender_main, &scene), 0);
        gate_open(&gate);
        pthread_barrier_wait(&scene.barrier);
        for (int i = 0; i <= OBSERVERS; i++)
            pthread_join(threads[i], NULL);
        cr_assert_eq(rp_cq_wait(cq, &completion, 1, 1, rp_after(PATIENCE)), 1);
        AWAIT(rp_pool_busy(pool) + rp_pool_waiting(pool) == 0); /* dropped comes when the queue gets to it */
        scene_check(&scene, &completion);
        cr_assert_eq(rp_cq_wait(cq, &completion, 1, 0, 0), 0, "a second completion");
        ends[scene.seen[0] == 7]++;
        rp_future_destroy(scene.future);
        rp_future_destroy(scene.next);
        rp_ctx_destroy(scene.ctx);
        pthread_barrier_destroy(&scene.barrier);
    }
    cr_log_info("%u ended otherwise, %u returned", ends[0], ends[1]);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    pool_end(pool);
}

/* --- releases ----------------------------------------------------------------------------------------------------- */

struct releaser {
    struct rp_pool *pool;
    struct gate *gate;
    _Atomic uint32_t ran;
    int rc;
};

static int releases(void *arg, int result, void *value, void **next_value)
{
    struct releaser *releaser = arg;

    (void)value;
    (void)next_value;
    releaser->rc = rp_pool_release_until(releaser->pool, rp_after(PATIENCE), NULL);
    add_seq(&releaser->ran, 1);
    return result;
}

static int passes_on(void *arg, int result, void *value, void **next_value)
{
    struct releaser *releaser = arg;

    (void)value;
    (void)next_value;
    add_seq(&releaser->ran, 1);
    gate_pass(releaser->gate);
    return result;
}

static int call_release(struct rp_pool *pool, void *arg)
{
    (void)arg;
    return rp_pool_release_until(pool, rp_after(PATIENCE), NULL);
}

/* Adversary: a continuation runs in the place of the task that it continues. Holds: it waits for all but itself. */
Test(future_end, a_continuation_may_release_its_pool)
{
    for (unsigned queued = 0; queued < 20; queued++) {
        struct gate gate = {0};
        struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 64});
        struct releaser releaser = {.pool = pool};
        struct rp_future *first = future_make(pool, pass_gate, &gate), *next, *last;
        _Atomic uint32_t others = 0;

        AWAIT(load_seq(&gate.inside) == 1);
        cr_assert_eq(rp_future_then(first, NULL, releases, &releaser, &next), 0);
        for (unsigned i = 0; i < queued; i++)
            cr_assert_eq(rp_pool_submit(pool, count_task, &others), 0);
        gate_open(&gate);
        cr_assert_eq(rp_future_get(next, NULL), 0);
        cr_assert_eq(releaser.rc, 0);
        cr_assert_eq(load_seq(&others), queued);
        cr_assert_eq(rp_future_then(next, NULL, releases, &releaser, &last), -ESHUTDOWN);
        cr_assert_null(last);
        rp_future_destroy(first);
        rp_future_destroy(next);
        pool_end(pool);
    }
}

/* Adversary: a release from outside while continuations run or are still to come. Holds: it ends after the last one. */
Test(future_end, a_release_waits_for_continuations)
{
    for (int round = 0; round < 20; round++) {
        struct gate first_gate = {0}, gate = {0};
        struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = round % 2 ? 64 : 0});
        struct releaser part = {.pool = pool, .gate = &gate};
        struct rp_future *first = future_make(pool, pass_gate, &first_gate), *next[4];
        struct caller caller;

        for (int i = 0; i < 4; i++)
            cr_assert_eq(rp_future_then(i ? next[i - 1] : first, NULL, passes_on, &part, &next[i]), 0);
        AWAIT(load_seq(&first_gate.inside) == 1);
        caller_start(&caller, pool, call_release, NULL);
        AWAIT(rp_pool_is_closed(pool));
        gate_open(&first_gate);
        AWAIT(load_seq(&gate.inside) == 1);
        nap(round % 3 * MS / 4);
        cr_assert_not(load_seq(&caller.returned), "a continuation still runs");
        gate_open(&gate);
        cr_assert_eq(caller_end(&caller), 0);
        cr_assert_eq(load_seq(&part.ran), 4);
        rp_future_destroy(first);
        for (int i = 0; i < 4; i++) {
            cr_assert_eq(rp_future_get(next[i], NULL), 0);
            rp_future_destroy(next[i]);
        }
        pool_end(pool);
    }
}

/* --- one of several, without the kernel's help -------------------------------------------------------------------- */

/* From here on this process has no futex_waitv. */
static int deny_waitv(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 449, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0))
        return -errno;
    return syscall(449, NULL, 0, 0, NULL, 0) < 0 && errno == ENOSYS ? 0 : -EPROTO;
}

static void *open_main(void *arg)
{
    gate_open(arg);
    return NULL;
}

Test(future_end, wait_any_holds_on_a_kernel_without_futex_waitv)
{
    struct gate gates[3];
    struct rp_pool *pool = pool_make(3, NULL);
    struct rp_future *futures[3];

    cr_assert_eq(deny_waitv(), 0);
    for (int round = 0; round < 200; round++) {
        pthread_t thread;

        memset(gates, 0, sizeof(gates));
        for (int i = 0; i < 3; i++)
            futures[i] = future_make(pool, pass_gate, &gates[i]);
        cr_assert_eq(rp_future_wait_any(futures, 3, rp_after(MS / 10)), -ETIMEDOUT);
        pthread_create(&thread, NULL, open_main, &gates[round % 3]);
        cr_assert_eq(rp_future_wait_any(futures, 3, rp_after(PATIENCE)), round % 3);
        pthread_join(thread, NULL);
        for (int i = 0; i < 3; i++)
            gate_open(&gates[i]);
        cr_assert_eq(rp_future_wait_all(futures, 3, rp_after(PATIENCE)), 0);
        for (int i = 0; i < 3; i++)
            rp_future_destroy(futures[i]);
        AWAIT(rp_pool_busy(pool) == 0);
    }
    pool_end(pool);
}

static int waits_for_itself(void *arg, void **value)
{
    struct rp_future *futures[2];

    (void)value;
    memcpy(futures, arg, sizeof(futures));
    return rp_future_wait_any(futures, 2, 0);
}

Test(future_end, a_wait_any_that_can_never_end_is_edeadlk_there_too)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 4});
    struct rp_future *futures[2];

    cr_assert_eq(deny_waitv(), 0);
    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    for (int i = 0; i < 2; i++)
        futures[i] = future_make(pool, waits_for_itself, futures);
    gate_open(&gate);
    int first = rp_future_get(futures[0], NULL), second = rp_future_get(futures[1], NULL);
    cr_assert((first == -EDEADLK) + (second == -EDEADLK) == 1, "%d and %d", first, second);
    cr_assert(first == 1 || second == 0, "the other one hears of the end");
    for (int i = 0; i < 2; i++)
        rp_future_destroy(futures[i]);
    pool_end(pool);
}

/* Adversary: the array of watches cannot be had. Holds: the call says so, and may come again. */
Test(future_end, wait_any_without_memory_says_so_and_may_come_again)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.allocator = &allocator, .queue_depth = 512});
    struct rp_future *futures[200];

    for (int i = 0; i < 200; i++)
        futures[i] = future_make(pool, pass_gate, &gate);
    AWAIT(load_seq(&gate.inside) == 1);
    store_seq(&bank.fail_at, load_seq(&bank.calls) + 1);
    cr_assert_eq(rp_future_wait_any(futures, 200, rp_after(PATIENCE)), -ENOMEM);
    cr_assert_eq(rp_future_wait_any(futures, 200, rp_after(MS)), -ETIMEDOUT);
    gate_open(&gate);
    cr_assert_geq(rp_future_wait_any(futures, 200, rp_after(PATIENCE)), 0);
    cr_assert_eq(rp_future_wait_all(futures, 200, rp_after(PATIENCE)), 0);
    for (int i = 0; i < 200; i++)
        rp_future_destroy(futures[i]);
    pool_end(pool);
    cr_assert_eq(load_seq(&bank.live), 0);
}
