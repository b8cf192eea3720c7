/*
 * The health check: a pool that does no work is taken out, rebooted and put back, and each step is told.
 */
#include "multi.h"

#include <sys/syscall.h>
#include <unistd.h>

struct diary {
    struct rp_multi *multi;
    _Atomic uint32_t out, rebooted, back, cause, index, spare;
    _Atomic uint32_t destroys; /* on_health destroys the multi pool */
    _Atomic int rc;
    _Atomic uint32_t warnings;
};

static void on_health(void *user, const struct rp_multi_health *event)
{
    struct diary *diary = user;

    store_seq(&diary->index, event->index);
    store_seq(&diary->cause, (uint32_t)event->cause);
    if (event->spare)
        store_seq(&diary->spare, event->spare);
    if (event->step == RP_MULTI_OUT && load_seq(&diary->destroys))
        store_seq(&diary->rc, rp_multi_destroy(diary->multi));
    add_seq(event->step == RP_MULTI_OUT        ? &diary->out
            : event->step == RP_MULTI_REBOOTED ? &diary->rebooted
                                               : &diary->back,
            1);
}

static void on_log(void *user, int level, const char *message)
{
    (void)message;
    if (level == RP_LOG_WARNING)
        add_seq(&((struct diary *)user)->warnings, 1);
}

static struct rp_multi *watched(struct diary *diary, unsigned pools, unsigned capacity, unsigned max_extra)
{
    struct rp_pool_options pool = {.log = on_log, .log_user = diary, .max_extra = max_extra};
    struct rp_multi_options options = {
        .pool = &pool, .health_ns = 2 * MS, .hang_ns = 20 * MS, .on_health = on_health, .health_user = diary};

    return diary->multi = multi_make(pools, capacity, RP_ROUND_ROBIN, &options);
}

static bool is_out(struct rp_multi *multi, unsigned index)
{
    struct rp_multi_info info[8];

    cr_assert_gt(rp_multi_pools(multi, info, 8), (int)index);
    return info[index].out;
}

/* Its hung workers are stood in for by as many others, so that it works though nobody can end their tasks. */
Test(multi_health, a_hung_pool_goes_out_is_rebooted_and_comes_back)
{
    struct diary diary = {0};
    struct gate gate = {0};
    _Atomic uint32_t ran = 0;
    struct rp_multi *multi = watched(&diary, 2, 2, 0);

    hold_pool(multi, 1, &gate, 2);
    cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0); /* the check sleeps until a submit comes */
    AWAIT(load_seq(&diary.back) == 1);
    cr_assert_eq(load_seq(&diary.out), 1);
    cr_assert_eq(load_seq(&diary.rebooted), 1);
    cr_assert_eq(load_seq(&diary.index), 1);
    cr_assert_eq(load_seq(&diary.cause), RP_MULTI_HUNG);
    cr_assert_eq(load_seq(&diary.spare), 2);
    cr_assert_geq(load_seq(&diary.warnings), 3);
    cr_assert_not(is_out(multi, 1));
    for (int i = 0; i < 10; i++)
        cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, 1), count_task, (void *)&ran), 0);
    AWAIT(load_seq(&ran) == 11);
    gate_open(&gate);
    AWAIT(rp_pool_running(rp_multi_pool(multi, 1)) <= 2); /* the spare ones end as the hung ones return */
    struct rp_multi_info info[2];
    AWAIT(rp_multi_pools(multi, info, 2) == 2 && info[1].spare == 0);
    multi_end(multi);
}

/* No worker may stand in: it stays out until a task returns, and gets no task meanwhile. */
Test(multi_health, a_pool_that_cannot_be_cured_stays_out_until_it_works)
{
    struct diary diary = {0};
    struct gate gate = {0}, more = {0};
    _Atomic uint32_t ran = 0;
    struct rp_multi *multi = watched(&diary, 3, 1, 1);

    hold_pool(multi, 0, &gate, 1);
    cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0);
    AWAIT(load_seq(&diary.back) == 1); /* by its one spare worker */
    hold_pool(multi, 0, &more, 1);
    AWAIT(load_seq(&diary.out) == 2 && load_seq(&diary.rebooted) == 2);
    cr_assert(is_out(multi, 0));
    for (uint32_t i = 0; i < 30; i++) {
        cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0);
        AWAIT(load_seq(&ran) == i + 2);
    }
    cr_assert_eq(given(multi, 0), 2);
    cr_assert_eq(load_seq(&diary.back), 1);
    gate_open(&more);
    AWAIT(load_seq(&diary.back) == 2);
    cr_assert_not(is_out(multi, 0));
    gate_open(&gate);
    multi_end(multi);
}

static int submit_gated(struct rp_pool *multi, void *gate)
{
    return rp_multi_submit((struct rp_multi *)(void *)multi, gate_pass, gate);
}

/* The only pool is the worst and the best: it is used though it is out, and its reboot refuses nobody. */
Test(multi_health, the_only_pool_is_rebooted_without_refusing_anybody)
{
    struct diary diary = {0};
    struct gate gate = {0};
    struct caller caller;
    struct rp_multi *multi = watched(&diary, 1, 2, 0);

    hold(multi, &gate, 2);
    caller_start(&caller, (struct rp_pool *)(void *)multi, submit_gated, &gate);
    cr_assert_eq(caller_end(&caller), 0); /* into a spare worker */
    cr_assert_geq(load_seq(&diary.out), 1);
    gate_open(&gate);
    multi_end(multi);
}

static int choose_first(void *user, const struct rp_multi_view *pools, unsigned n)
{
    (void)user;
    (void)pools;
    return n ? 0 : -ENOENT;
}

/* The check sleeps until a submit comes, of whatever form. */
Test(multi_health, a_batch_by_the_users_strategy_wakes_the_check)
{
    struct diary diary = {0};
    struct gate gate = {0};
    struct rp_pool_options pool = {.log_level = RP_LOG_NONE};
    struct rp_multi_options options = {.pool = &pool,
                                       .health_ns = 1 * MS,
                                       .hang_ns = 20 * MS,
                                       .on_health = on_health,
                                       .health_user = &diary,
                                       .choose = choose_first};
    struct rp_multi *multi = multi_make(2, 1, RP_CUSTOM, &options);
    struct rp_task task = {.fn = gate_pass, .arg = &gate};

    nap(20 * MS); /* for the check to go to sleep; if it has not by then, the test sees less and still passes */
    cr_assert_eq(rp_multi_submit_batch(multi, &task, 1), 1);
    AWAIT(load_seq(&diary.out) == 1);
    cr_assert_eq(load_seq(&diary.index), 0);
    gate_open(&gate);
    multi_end(multi);
}

static void beating(void *arg)
{
    struct gate *gate = arg;

    add_seq(&gate->inside, 1);
    while (!load_seq(&gate->opened)) {
        rp_heartbeat();
        nap(MS);
    }
}

/*
 * Adversary: a sick pool whose queue has room, and a full one that works. Holds: nothing is put behind the hung task.
 */
Test(multi_health, a_sick_pool_gets_nothing_though_all_others_are_full)
{
    struct diary diary = {0};
    struct gate gate = {0}, spare = {0}, full = {0};
    _Atomic uint32_t ran = 0;
    struct caller caller;
    struct rp_pool_options pool = {.queue_depth = 2, .max_extra = 1, .log_level = RP_LOG_NONE};
    struct rp_multi_options options = {
        .pool = &pool, .health_ns = 2 * MS, .hang_ns = 200 * MS, .on_health = on_health, .health_user = &diary};
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, &options);

    hold_pool(multi, 0, &gate, 1);
    cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, 1), beating, &full), 0);
    cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0);
    AWAIT(load_seq(&diary.back) == 1); /* by its one spare worker */
    AWAIT(given(multi, 0) == 1);
    hold_pool(multi, 0, &spare, 1);
    AWAIT(load_seq(&diary.out) == 2 && load_seq(&diary.rebooted) == 2);
    for (int i = 0; i < 4 && rp_pool_try_submit(rp_multi_pool(multi, 1), count_task, (void *)&ran) == 0; i++)
        ;
    int rc = rp_multi_try_submit(multi, count_task, (void *)&ran);
    caller_start(&caller, (struct rp_pool *)(void *)multi, submit_gated, &full);
    AWAIT(multi_look(multi).blocked == 1 || load_seq(&caller.returned));
    if (load_seq(&diary.out) == 2) { /* else the other one has seemed sick, too, for want of the CPU */
        cr_assert_eq(rc, -EAGAIN);
        cr_assert_eq(given(multi, 0), 2);
    }
    gate_open(&full);
    cr_assert_eq(caller_end(&caller), 0);
    gate_open(&spare);
    gate_open(&gate);
    multi_end(multi);
}

/* Its age is reset again and again; another pool hangs meanwhile, which shows that looks were made. */
Test(multi_health, a_task_that_beats_does_not_hang)
{
    struct diary diary = {0};
    struct gate gate = {0}, hung = {0};
    struct rp_pool_options pool = {.log_level = RP_LOG_NONE};
    struct rp_multi_options options = {
        .pool = &pool, .health_ns = 5 * MS, .hang_ns = 3000 * MS, .on_health = on_health, .health_user = &diary};
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, &options);

    cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, 0), beating, &gate), 0);
    cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, 1), gate_pass, &hung), 0);
    AWAIT(load_seq(&gate.inside) == 1 && load_seq(&hung.inside) == 1);
    struct caller caller;
    caller_start(&caller, (struct rp_pool *)(void *)multi, submit_gated, &hung);
    AWAIT(load_seq(&diary.out) >= 1);
    cr_assert_eq(load_seq(&diary.index), 1);
    cr_assert_not(is_out(multi, 0));
    gate_open(&gate);
    gate_open(&hung);
    cr_assert_eq(caller_end(&caller), 0);
    multi_end(multi);
}

static void short_task(void *arg)
{
    (void)arg;
}

static void slow_task(void *arg)
{
    usleep(50000);
    count_task(arg);
}

/*
 * Of a stream of short tasks a worker says since when one of them runs, and that goes for some more: also for these,
 * until somebody asks. Whoever takes the first answer finds them all at one, for as long as they take together.
 */
Test(multi_health, slow_tasks_after_short_ones_do_not_hang)
{
    struct diary diary = {0};
    struct gate gate = {0};
    _Atomic uint32_t ran = 0;
    struct rp_pool_options pool = {.queue_depth = 1024, .log_level = RP_LOG_NONE};
    struct rp_multi_options options = {
        .pool = &pool, .health_ns = 1000 * MS, .hang_ns = 400 * MS, .on_health = on_health, .health_user = &diary};
    struct rp_multi *multi = multi_make(4, 1, RP_ROUND_ROBIN, &options);

    for (unsigned i = 0; i < 4; i++) {
        hold_pool(multi, i, &gate, 1);
        for (int n = 0; n < 600; n++)
            cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, i), short_task, NULL), 0);
        for (int n = 0; n < 25; n++)
            cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, i), slow_task, (void *)&ran), 0);
    }
    cr_assert_eq(rp_multi_submit(multi, short_task, NULL), 0); /* the check sleeps until a submit comes, and looks */
    usleep(200000);
    gate_open(&gate);
    AWAIT(load_seq(&ran) == 4 * 25);
    multi_end(multi);
    cr_assert_eq(load_seq(&diary.out), 0);
}

/* Deferred, as it runs on the check's own thread, which must not wait for itself. */
Test(multi_health, the_callback_may_destroy)
{
    struct holdings before = holdings_now();
    struct diary diary = {.destroys = 1, .rc = 1};
    struct gate gate = {0};
    struct rp_multi *multi = watched(&diary, 2, 1, 0);

    hold(multi, &gate, 2);
    AWAIT(load_seq(&diary.rebooted) >= 1);
    cr_assert_eq(load_seq(&diary.rc), 0);
    gate_open(&gate);
    ASSERT_NOTHING_LEFT(before);
}

/* Whether the check's thread sleeps without a time limit, so that it takes no turn at all. */
static bool check_is_asleep(void)
{
    unsigned long nr, word, op, value, timeout = 1;
    char state[256];
    DIR *tasks = opendir("/proc/self/task");

    cr_assert_not_null(tasks);
    for (struct dirent *entry; (entry = readdir(tasks));)
        if (entry->d_name[0] != '.' && thread_is_named(entry->d_name, "rp-health")) {
            thread_file(entry->d_name, "syscall", state, sizeof(state));
            if (sscanf(state, "%lu %lx %lx %lx %lx", &nr, &word, &op, &value, &timeout) != 5 || nr != SYS_futex)
                timeout = 1;
        }
    closedir(tasks);
    return timeout == 0;
}

Test(multi_health, is_asleep_while_nothing_is_in_flight)
{
    struct diary diary = {0};
    struct rp_multi *multi = watched(&diary, 2, 1, 0);
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0);
    AWAIT(load_seq(&ran) == 1);
    AWAIT(check_is_asleep());
    cr_assert_eq(count_threads_named("rp-health"), 1);
    multi_end(multi);
}

/* A pool that was out when all was released stays so; nothing in it wants a look. */
Test(multi_health, is_asleep_after_the_release_of_a_sick_pool)
{
    struct diary diary = {0};
    struct gate gate = {0}, spare = {0};
    _Atomic uint32_t ran = 0;
    struct rp_multi *multi = watched(&diary, 2, 1, 1);

    hold_pool(multi, 0, &gate, 1);
    cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0);
    AWAIT(load_seq(&diary.back) == 1);
    hold_pool(multi, 0, &spare, 1);
    AWAIT(load_seq(&diary.out) == 2 && load_seq(&diary.rebooted) == 2);
    cr_assert_eq(rp_multi_release(multi), 0);
    gate_open(&gate);
    gate_open(&spare);
    cr_assert_eq(rp_multi_release_until(multi, rp_after(PATIENCE), NULL), 0);
    AWAIT(check_is_asleep());
    cr_assert_eq(rp_multi_reboot(multi), 0);
    for (uint32_t i = 0; i < 8; i++)
        cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0);
    AWAIT(load_seq(&ran) == 9 && !is_out(multi, 0)); /* as the first submit has it looked at again */
    multi_end(multi);
}

/* --- isolation ---------------------------------------------------------------------------------------------------- */

static void panicking(void *arg)
{
    (void)arg;
    rp_panic("on purpose");
}

/*
 * Adversary: pool 0 is full, then panics without end, then hangs. Whatever is submitted through the multi pool must run
 * all the same, and one who blocks must not be bound to the pool that hangs.
 */
Test(multi_health, one_bad_pool_holds_up_nobody)
{
    static const enum rp_strategy all[] = {RP_ROUND_ROBIN, RP_LEAST_TASKS, RP_TWO_CHOICES,
                                           RP_RANDOM,      RP_LOCAL,       RP_AUTO};

    for (unsigned s = 0; s < sizeof(all) / sizeof(all[0]); s++) {
        struct rp_pool_options pool = {.log_level = RP_LOG_NONE};
        struct rp_multi *multi = multi_make(3, 2, all[s], &(struct rp_multi_options){.pool = &pool});
        _Atomic uint32_t ran = 0;
        struct gate gate = {0};

        for (int i = 0; i < 200; i++) {
            cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, 0), panicking, NULL), 0);
            cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0);
        }
        hold_pool(multi, 0, &gate, 2);
        for (int i = 0; i < 2000; i++)
            cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0);
        AWAIT(load_seq(&ran) == 2200);
        cr_assert_eq(given(multi, 0), 2);
        gate_open(&gate);
        multi_end(multi);
    }
}

/*
 * A worker that sleeps does nothing for as long as it likes, and one that hangs beside it does not make the pool sick.
 */
Test(multi_health, a_pool_asleep_or_with_one_worker_left_is_well)
{
    struct diary diary = {0};
    struct gate gate = {0};
    _Atomic uint32_t ran = 0;
    struct rp_multi *multi = watched(&diary, 3, 2, 0);

    hold_pool(multi, 0, &gate, 1);
    for (unsigned pool = 0; pool < 2; pool++) {
        cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, pool), count_task, (void *)&ran), 0);
        AWAIT(load_seq(&ran) == pool + 1);
    }
    hold_pool(multi, 2, &gate, 2); /* later: when these hang the others have been still for longer */
    cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0); /* wakes the check */
    AWAIT(load_seq(&diary.back) == 1);
    cr_assert_eq(load_seq(&diary.out), 1);
    cr_assert_eq(load_seq(&diary.index), 2);
    cr_assert_not(is_out(multi, 0));
    cr_assert_not(is_out(multi, 1));
    open_and_end(multi, &gate);
}

/* Two workers that submit while their pool is closed by the check, which is held in the drop of a task. */
struct window {
    struct rp_multi *multi;
    struct gate dropping, submitting;
    _Atomic uint32_t inside, done, accepted, ran;
};

static void held_drop(void *arg, int reason)
{
    (void)reason;
    gate_pass(&((struct window *)arg)->dropping);
}

static void submit_in_window(void *arg)
{
    struct window *window = arg;

    add_seq(&window->inside, 1);
    gate_pass(&window->submitting);
    int rc = rp_multi_submit(window->multi, count_task, (void *)&window->ran);
    if (!rc)
        add_seq(&window->accepted, 1);
    if (!rc || rc == -EDEADLK)
        add_seq(&window->done, 1);
}

/*
 * Adversary: while the check reboots a pool all its workers submit, and so does somebody else, who takes the one place
 * there is when the pool opens. Holds: the workers, who alone could make room, do not wait for it for ever.
 */
Test(multi_health, workers_that_submit_while_their_pool_is_rebooted_do_not_wait_for_one_another)
{
    struct diary diary = {0};
    struct window window = {0};
    struct caller other;
    struct rp_pool_options pool = {
        .queue_depth = 1, .max_extra = 1, .release_policy = RP_RELEASE_DROP, .log_level = RP_LOG_NONE};
    struct rp_multi_options options = {
        .pool = &pool, .health_ns = 2 * MS, .hang_ns = 200 * MS, .on_health = on_health, .health_user = &diary};
    struct rp_task dropped = {.fn = submit_in_window, .arg = &window, .dropped = held_drop};

    window.multi = multi_make(1, 1, RP_ROUND_ROBIN, &options);
    cr_assert_eq(rp_multi_submit(window.multi, submit_in_window, &window), 0);
    AWAIT(load_seq(&diary.back) == 1); /* with one worker more */
    cr_assert_eq(rp_multi_submit(window.multi, submit_in_window, &window), 0);
    AWAIT(load_seq(&window.inside) == 2);
    cr_assert_eq(rp_multi_submit_task(window.multi, &dropped), 0);
    AWAIT(load_seq(&window.dropping.inside) == 1);
    caller_start(&other, (struct rp_pool *)(void *)window.multi, submit_counted, (void *)&window.ran);
    AWAIT(multi_look(window.multi).blocked == 1);
    gate_open(&window.submitting);
    AWAIT(multi_look(window.multi).blocked == 3);
    gate_open(&window.dropping);
    cr_assert_eq(caller_end(&other), 0);
    AWAIT(load_seq(&window.done) == 2);
    AWAIT(load_seq(&window.ran) == load_seq(&window.accepted) + 1);
    multi_end(window.multi);
}
