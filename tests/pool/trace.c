/*
 * What a pool tells its log at each level, and what the worker list shows of a worker's life.
 */
#include "life.h"

#define LINES 64

/* The lines that the log was told, in order. */
struct notes {
    pthread_mutex_t lock;
    unsigned n;
    struct {
        int level;
        char text[160];
    } line[LINES];
};

static void note(void *user, int level, const char *message)
{
    struct notes *notes = user;

    pthread_mutex_lock(&notes->lock);
    if (notes->n < LINES) {
        notes->line[notes->n].level = level;
        snprintf(notes->line[notes->n].text, sizeof(notes->line[0].text), "%s", message);
        notes->n++;
    }
    pthread_mutex_unlock(&notes->lock);
}

/* The lines that begin so, each without that beginning, joined by commas. To be called when nobody writes any more. */
static const char *lines_of(const struct notes *notes, const char *beginning, char *out, size_t size)
{
    size_t used = 0, skip = strlen(beginning);

    out[0] = 0;
    for (unsigned i = 0; i < notes->n && used < size; i++)
        if (strncmp(notes->line[i].text, beginning, skip) == 0)
            used += (size_t)snprintf(out + used, size - used, "%s%s", used ? "," : "", notes->line[i].text + skip);
    return out;
}

/* One worker is made, runs one task, expires; then the pool ends. */
static struct notes *live_with_log(int level)
{
    static struct notes notes = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct rp_pool_options options = {
        .name = "life", .log = note, .log_user = &notes, .log_level = level, .expiry_ns = 300 * MS};
    struct rp_pool *pool = pool_make(1, &options);
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
    AWAIT(load_seq(&ran) == 1 && rp_pool_running(pool) == 0);
    cr_assert_eq(rp_pool_tune(pool, 2), 0);
    pool_end(pool);
    return &notes;
}

Test(pool_trace, debug_tells_every_state_of_a_worker_and_of_the_pool)
{
    const struct notes *notes = live_with_log(RP_LOG_DEBUG);
    char text[512];

    cr_assert_str_eq(lines_of(notes, "pool life: worker 0 is ", text, sizeof(text)),
                     "uninitialised,idle,running,idle,stopping,stopped");
    for (unsigned i = 0; i < notes->n; i++)
        if (strstr(notes->line[i].text, "worker"))
            cr_assert_eq(notes->line[i].level, RP_LOG_DEBUG, "%s", notes->line[i].text);
    lines_of(notes, "pool life: ", text, sizeof(text));
    cr_assert_eq(strncmp(text, "created, capacity 1, queue depth 0, reactor on ", 47), 0, "%s", text);
    const char *tuned = strstr(text, ",tuned to 2,"); /* the worker that no longer runs may stop before or after it */
    const char *released = strstr(text, ",released,"), *destroyed = strstr(text, ",destroyed");
    cr_assert(tuned && released && destroyed && tuned < released && released < destroyed, "%s", text);
    cr_assert_str_eq(destroyed, ",destroyed", "the last line");
}

Test(pool_trace, info_tells_decisions_only)
{
    char text[512];

    cr_assert_str_eq(lines_of(live_with_log(RP_LOG_INFO), "", text, sizeof(text)),
                     "pool life: tuned to 2,pool life: released");
}

Test(pool_trace, by_default_a_pool_in_order_says_nothing)
{
    cr_assert_eq(live_with_log(RP_LOG_DEFAULT)->n, 0);
}

/* --- the worker list -------------------------------------------------------------------------------------------- */

/* Doors in the hooks: the worker waits in each until the test has looked. */
struct doors {
    struct gate start, stop;
};

static int wait_to_start(void *user, unsigned worker, void **local)
{
    (void)worker;
    (void)local;
    gate_pass(&((struct doors *)user)->start);
    return 0;
}

static void wait_to_stop(void *user, unsigned worker, void *local)
{
    (void)worker;
    (void)local;
    gate_pass(&((struct doors *)user)->stop);
}

static int call_prewarm(struct rp_pool *pool, void *n)
{
    return rp_pool_prewarm(pool, *(unsigned *)n);
}

/* Of the only worker that has not stopped; the descriptors of those that have may still be there. */
static int state_of_the_worker(struct rp_pool *pool)
{
    struct rp_worker_info info[4];
    int n = rp_pool_workers(pool, info, 4), state = RP_WORKER_STOPPED;

    cr_assert(n > 0 && n <= 4);
    for (int i = 0; i < n; i++)
        if (info[i].state != RP_WORKER_STOPPED) {
            cr_assert_eq(state, RP_WORKER_STOPPED, "there are two");
            state = info[i].state;
        }
    return state;
}

/* Each state lasts as long as the test wants: a start hook, a task and a stop hook that wait. */
Test(pool_trace, the_worker_list_shows_every_state)
{
    static struct doors doors;
    static struct gate task;
    struct rp_pool_options options = {
        .worker_start = wait_to_start, .worker_stop = wait_to_stop, .worker_user = &doors, .expiry_ns = 60 * 1000 * MS};

    gate_open(&doors.start); /* create tries the hook with a first worker, which is let through and sent away */
    struct rp_pool *pool = pool_make(1, &options);
    gate_open(&doors.stop);
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(rp_pool_reboot(pool), 0);
    doors = (struct doors){0};

    struct caller maker;
    caller_start(&maker, pool, call_prewarm, &(unsigned){1});
    AWAIT(load_seq(&doors.start.inside) == 1);
    cr_assert_eq(state_of_the_worker(pool), RP_WORKER_UNINITIALISED);
    gate_open(&doors.start);
    cr_assert_eq(caller_end(&maker), 1);
    AWAIT(state_of_the_worker(pool) == RP_WORKER_IDLE);
    cr_assert_eq(rp_pool_submit(pool, gate_pass, &task), 0);
    AWAIT(load_seq(&task.inside) == 1);
    cr_assert_eq(state_of_the_worker(pool), RP_WORKER_RUNNING);
    gate_open(&task);
    AWAIT(state_of_the_worker(pool) == RP_WORKER_IDLE);
    cr_assert_eq(rp_pool_release(pool), 0);
    AWAIT(load_seq(&doors.stop.inside) == 1);
    cr_assert_eq(state_of_the_worker(pool), RP_WORKER_STOPPING);
    gate_open(&doors.stop);
    AWAIT(state_of_the_worker(pool) == RP_WORKER_STOPPED);
    pool_end(pool);
}

/* --- heartbeats ------------------------------------------------------------------------------------------------- */

struct patient {
    struct gate gate;
    _Atomic int64_t before;
    _Atomic uint32_t beaten;
};

static void beat_when_let(void *arg)
{
    struct patient *patient = arg;

    gate_pass(&patient->gate);
    store_seq(&patient->before, rp_now());
    rp_heartbeat();
    store_seq(&patient->beaten, 1);
    while (load_seq(&patient->beaten) == 1)
        futex_wait(&patient->beaten, 1, 0);
}

Test(pool_trace, a_heartbeat_makes_a_task_young_again)
{
    static struct patient patient;
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_worker_info info;
    struct rp_release_report report;

    cr_assert_eq(rp_pool_submit(pool, beat_when_let, &patient), 0);
    AWAIT(load_seq(&patient.gate.inside) == 1);
    cr_assert_eq(rp_pool_workers(pool, &info, 1), 1);
    int64_t started = info.since;
    AWAIT(rp_now() > started + 20 * MS); /* of which the start is known to some milliseconds */
    gate_open(&patient.gate);
    AWAIT(load_seq(&patient.beaten) == 1);
    cr_assert_eq(rp_pool_workers(pool, &info, 1), 1);
    cr_assert_geq(info.since, load_seq(&patient.before));
    cr_assert_leq(info.since, rp_now());
    cr_assert_eq(info.state, RP_WORKER_RUNNING);

    int64_t before = rp_now();
    cr_assert_eq(rp_pool_release_until(pool, rp_after(1), &report), -ETIMEDOUT);
    cr_assert_eq(report.listed, 1);
    cr_assert_leq(report.worker[0].running_ns, rp_now() - load_seq(&patient.before));
    cr_assert_geq(report.worker[0].running_ns, before - info.since);
    store_seq(&patient.beaten, 2);
    futex_wake(&patient.beaten, 1);
    pool_end(pool);
}
