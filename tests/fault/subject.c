/*
 * The subject of the fault tests: lives of pools through the public functions, with a ledger of every task.
 *
 *   subject [--backend auto|io_uring|epoll] [--jobs | --multi] [--lasting] [--hostile] [--flawless] [--unmapped]
 *           [--hook N[-]] [--malloc N[-]] [--count] [--seconds S] [--storm] [--forks] [--capacity N] [--announce]
 *
 * Between the two marks (marks.h) it makes two pools, with --multi two multi pools, one after the other, and does with
 * each what the functions of a life below do; with --jobs it lives the life of jobs.c instead, on a pool and on a multi
 * pool. Faults may strike in there. Afterwards nothing may be left of them, and a third life must go without a
 * flaw. --lasting says that the fault does not go away between the marks: then a release may time out. --hostile says
 * that it never does: then the third life may err too. --flawless says that nothing is refused, only slow or disturbed:
 * then no life may err. --unmapped says that munmap fails: then mappings may stay. --hook fails the Nth request (with a
 * dash: all from the Nth on) to the pool's own allocator, --malloc to the process's; --count prints how many there
 * were. --seconds repeats the whole for so long, --storm sends signals without SA_RESTART to the submitting threads all
 * the time, --forks forks at random moments, and the children must find the pools dead and make new ones. --announce
 * says so when it has begun: a process that ends without that died of its exec.
 *
 * What must hold, each with its exit code. It says on stderr what it saw.
 */
#include "subject.h"

#include "marks.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <ringpool.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HELPERS 2
#define RECORDS 512

/* `verdict` is the submitter's, the counts those of whoever runs or drops the task. */
struct record {
    struct life *life;
    _Atomic int verdict; /* 1: accepted, negative: the code, 0: not submitted */
    _Atomic unsigned ran, dropped;
    _Atomic int reason;
    unsigned kind;
};

struct life {
    struct rp_pool *_Atomic pool; /* one of the two */
    struct rp_multi *_Atomic multi;
    bool flawless; /* no fault can strike */
    _Atomic unsigned used;
    struct record record[RECORDS];
};

int backend;
bool lasting;
static unsigned capacity_wanted = 4;
static bool hostile, flawless, unmapped, counting, storming, forking, jobs, several;
static double seconds;

/* --- failing ------------------------------------------------------------------------------------------------------ */

void broke(enum broken what, const char *format, ...)
{
    char text[256];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    prctl(MARK, MARK_END);
    fprintf(stderr, "subject: broke %d: %s\n", (int)what, text);
    _exit((int)what);
}

void nap(int64_t ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

int expect(bool sure, const char *call, int rc, const int *codes)
{
    if (rc >= 0)
        return rc;
    if (sure)
        broke(NOT_RECOVERED, "%s gave %d (%s) though nothing fails any more", call, rc, rp_strerror(rc));
    while (*codes && *codes != rc)
        codes++;
    if (!*codes)
        broke(UNDOCUMENTED, "%s gave %d (%s)", call, rc, rp_strerror(rc));
    return rc;
}

/* --- allocators that fail ----------------------------------------------------------------------------------------- */

struct tap {
    _Atomic unsigned long asked;
    unsigned long first; /* 0: never fails */
    bool onward;
};

static struct tap hook_tap, malloc_tap;
static _Atomic bool between;
static _Atomic long hooked; /* pieces that the pools hold */

static bool refuses(struct tap *tap)
{
    if (!between)
        return false;
    unsigned long n = ++tap->asked;

    return tap->first && (n == tap->first || (tap->onward && n > tap->first));
}

static void *hook_calloc(void *user, size_t n, size_t size)
{
    (void)user;
    void *p = refuses(&hook_tap) ? NULL : calloc(n, size);
    hooked += p != NULL;
    return p;
}

static void *hook_malloc(void *user, size_t size)
{
    return hook_calloc(user, 1, size);
}

static void hook_free(void *user, void *p)
{
    (void)user;
    hooked -= p != NULL;
    free(p);
}

const struct rp_allocator hook_allocator = {hook_malloc, hook_calloc, hook_free, NULL};

#if !SANITIZED
/* The process's own, for what is not taken from the hook: the shared reactor, glibc's part of a thread, liburcu's. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *malloc(size_t size)
{
    if (refuses(&malloc_tap)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_malloc(size);
}

/* Its parameters as <stdlib.h> names them, for clang-tidy. */
void *calloc(size_t __nmemb, size_t __size)
{
    if (refuses(&malloc_tap)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_calloc(__nmemb, __size);
}
#endif

/* --- the pool of a life, or its multi pool ------------------------------------------------------------------------ */

static int submit(struct life *life, void (*fn)(void *arg), void *arg)
{
    return life->multi ? rp_multi_submit(life->multi, fn, arg) : rp_pool_submit(life->pool, fn, arg);
}

static int try_submit(struct life *life, void (*fn)(void *arg), void *arg)
{
    return life->multi ? rp_multi_try_submit(life->multi, fn, arg) : rp_pool_try_submit(life->pool, fn, arg);
}

static int submit_until(struct life *life, void (*fn)(void *arg), void *arg, int64_t deadline)
{
    return life->multi ? rp_multi_submit_until(life->multi, fn, arg, deadline)
                       : rp_pool_submit_until(life->pool, fn, arg, deadline);
}

static int submit_task(struct life *life, const struct rp_task *task)
{
    return life->multi ? rp_multi_submit_task(life->multi, task) : rp_pool_submit_task(life->pool, task);
}

static int submit_tasks(struct life *life, const struct rp_task *tasks, unsigned n)
{
    return life->multi ? rp_multi_submit_batch(life->multi, tasks, n) : rp_pool_submit_batch(life->pool, tasks, n);
}

static int tune(struct life *life, unsigned capacity)
{
    return life->multi ? rp_multi_tune(life->multi, capacity) : rp_pool_tune(life->pool, capacity);
}

static int release_until(struct life *life, int64_t deadline, struct rp_release_report *report)
{
    return life->multi ? rp_multi_release_until(life->multi, deadline, report)
                       : rp_pool_release_until(life->pool, deadline, report);
}

static int reboot(struct life *life)
{
    return life->multi ? rp_multi_reboot(life->multi) : rp_pool_reboot(life->pool);
}

static int destroy(struct life *life)
{
    int rc = life->multi ? rp_multi_destroy(life->multi) : rp_pool_destroy(life->pool);

    life->multi = NULL;
    life->pool = NULL;
    return rc;
}

/* --- tasks -------------------------------------------------------------------------------------------------------- */

enum kind { PLAIN, PARENT, PANICS, BRACKETS, SLOW, KINDS };

static struct record *record_new(struct life *life, unsigned kind)
{
    unsigned n = life->used++;

    if (n >= RECORDS)
        broke(CANNOT_TELL, "too few records");
    life->record[n].life = life;
    life->record[n].kind = kind;
    return &life->record[n];
}

static void settle(struct record *record, const char *call, int rc, bool dated, bool inside)
{
    record->verdict = rc < 0 ? rc : 1;
    if (rc == -ETIMEDOUT && !dated)
        broke(UNDOCUMENTED, "%s timed out without a deadline", call);
    if (rc == -EDEADLK && !inside)
        broke(UNDOCUMENTED, "%s outside of a task gave EDEADLK", call);
    if (record->life->flawless && (rc == -EAGAIN || rc == -ETIMEDOUT)) /* no room, or not in time */
        return;
    if (rc == -ESHUTDOWN && inside) /* the pool is being released while its tasks run */
        return;
    EXPECT(record->life->flawless, call, rc, -EAGAIN, -ENOMEM, -ETIMEDOUT, -EDEADLK);
}

static void task_run(void *arg)
{
    struct record *record = arg;
    struct life *life = record->life;

    record->ran++;
    if (record->kind == PARENT) {
        struct record *child = record_new(life, PLAIN);
        settle(child, "submit in a task", submit(life, task_run, child), false, true);
    } else if (record->kind == PANICS) {
        rp_panic("as asked");
    } else if (record->kind == BRACKETS) {
        (void)rp_blocking_begin(); /* -EAGAIN tells that no stand-in is granted */
        nap(300000);
        (void)rp_blocking_end();
    } else if (record->kind == SLOW) {
        nap(2000000);
    }
}

static void task_dropped(void *arg, int reason)
{
    struct record *record = arg;

    record->reason = reason;
    record->dropped++;
}

static void submit_one(struct life *life, unsigned i)
{
    struct record *record = record_new(life, i % KINDS);
    struct rp_task task = {.fn = task_run,
                           .dropped = task_dropped,
                           .arg = record,
                           .label = "fault",
                           .priority = (int)(i % 3),
                           .timeout = record->kind == SLOW ? 1 * MS : 0};

    /* Where the fault lasts there may never be room: nobody waits without a limit. */
    switch (lasting ? 1 + i % 3 : i % 4) {
    case 0:
        settle(record, "submit", submit(life, task_run, record), false, false);
        break;
    case 1:
        settle(record, "try_submit", try_submit(life, task_run, record), false, false);
        break;
    case 2:
        settle(record, "submit_until", submit_until(life, task_run, record, rp_after(50 * MS)), true, false);
        break;
    default:
        task.deadline = rp_after(100 * MS);
        settle(record, "submit_task", submit_task(life, &task), true, false);
        break;
    }
}

static void submit_batch(struct life *life)
{
    enum { N = 12 };
    struct rp_task tasks[N];
    struct record *record[N];

    for (int i = 0; i < N; i++) {
        record[i] = record_new(life, PLAIN);
        tasks[i] = (struct rp_task){.fn = task_run,
                                    .dropped = task_dropped,
                                    .arg = record[i],
                                    .overload = lasting ? RP_OVERLOAD_FAIL : RP_OVERLOAD_BLOCK};
    }
    int taken = submit_tasks(life, tasks, N);
    EXPECT(life->flawless, "submit_batch", taken, -EAGAIN, -ENOMEM);
    for (int i = 0; i < N; i++)
        record[i]->verdict = i < taken ? 1 : -EAGAIN;
}

/* --- the submitting threads beside the main one ------------------------------------------------------------------- */

static pthread_t helper[HELPERS];
static struct life *_Atomic helped;
static _Atomic unsigned turn, turns_done;
static _Atomic bool over;

/*
 * Made before the first mark; they wait by naps, so that their waiting is no futex call that a fault could be spent on.
 */
static void *helper_main(void *arg)
{
    unsigned seen = 0;

    while (!over) {
        if (turn == seen) {
            nap(50000);
            continue;
        }
        seen = turn;
        for (unsigned i = 0; i < 16; i++)
            submit_one(helped, i + (unsigned)(size_t)arg);
        turns_done++;
    }
    return NULL;
}

static void helpers_begin(struct life *life)
{
    helped = life;
    turns_done = 0;
    turn++;
}

static void helpers_await(void)
{
    while (turns_done < HELPERS)
        nap(50000);
}

/* --- a life ------------------------------------------------------------------------------------------------------- */

void on_panic(void *user, const struct rp_panic_info *info)
{
    (void)user;
    (void)info;
}

void on_log(void *user, int level, const char *message)
{
    (void)user;
    (void)level;
    (void)message;
}

#define POOLS 3

/* Two differ in their strategy, and the second has a health check. */
static int multi_create(struct life *life, const struct rp_pool_options *pool, bool second)
{
    struct rp_multi_options options = {.pool = pool, .health_ns = second ? MS : 0};
    struct rp_multi *multi = NULL;
    int rc = rp_multi_create(&multi, POOLS, capacity_wanted, second ? RP_LEAST_TASKS : RP_ROUND_ROBIN, &options);

    if (!rc != !!multi)
        broke(UNDOCUMENTED, "create gave %d and left %p", rc, (void *)multi);
    life->multi = multi;
    return rc;
}

static int pool_create(struct life *life, const struct rp_pool_options *options)
{
    struct rp_pool *pool = NULL;
    int rc = rp_pool_create(&pool, capacity_wanted, options);

    if (!rc != !!pool)
        broke(UNDOCUMENTED, "create gave %d and left %p", rc, (void *)pool);
    life->pool = pool;
    return rc;
}

/* The second pool asks for all that a thread can be asked for. false: it could not be made. */
static bool pool_make(struct life *life, bool second)
{
    struct rp_pool_options options = {.expiry_ns = 3 * MS,
                                      .queue_depth = 16,
                                      .on_panic = on_panic,
                                      .log = on_log,
                                      .stack_size = STACK,
                                      .allocator = &hook_allocator,
                                      .backend = backend};
    cpu_set_t cpus;

    if (second) {
        CPU_ZERO(&cpus);
        CPU_SET(sched_getcpu(), &cpus);
        options.cpus = &cpus;
        options.cpus_size = sizeof(cpus);
        options.sched_policy = SCHED_BATCH;
        options.min_workers = capacity_wanted > 2 ? 2 : capacity_wanted;
        options.own_reactor = true;
        options.metrics = true;
        options.contain_signals = !SANITIZED;
    }
    int rc = several ? multi_create(life, &options, second) : pool_create(life, &options);

    if (rc == -EPERM && !second && backend != RP_BACKEND_IO_URING)
        broke(UNDOCUMENTED, "create gave EPERM though it was asked for neither scheduling nor backend");
    if ((rc == -ENOSYS || rc == -EMFILE || rc == -ENFILE) && backend != RP_BACKEND_IO_URING)
        broke(UNDOCUMENTED, "create gave %d though no backend was asked for", rc);
    if (rc == -EINVAL && !second)
        broke(UNDOCUMENTED, "create gave EINVAL for plain options");
    EXPECT(life->flawless, "create", rc, -ENOMEM, -EAGAIN, -EPERM, -ENOSYS, -EMFILE, -ENFILE, -EINVAL);
    return rc == 0;
}

static void snapshot_check(const struct life *life)
{
    struct rp_pool_snapshot s;
    struct rp_worker_info workers[4];
    int rc = life->multi ? rp_multi_snapshot(life->multi, &s) : rp_pool_snapshot(life->pool, &s);

    EXPECT(life->flawless, "snapshot", rc, -ENOMEM);
    (void)rp_pool_workers(life->multi ? rp_multi_pool(life->multi, 1) : life->pool, workers, 4);
    if (rc == 0 && (s.busy + s.idle != s.running ||
                    s.submitted != s.completed + s.dropped + s.panicked + s.busy + (s.waiting - s.blocked)))
        broke(DOES_NOT_ADD_UP, "running %u, busy %u, idle %u, waiting %u, blocked %u, submitted %llu, completed %llu",
              s.running, s.busy, s.idle, s.waiting, s.blocked, (unsigned long long)s.submitted,
              (unsigned long long)s.completed);
}

/* 0, unless the fault lasts: then perhaps no worker can be made for what waits. */
static bool release(struct life *life)
{
    struct rp_release_report report;
    int rc = release_until(life, rp_after(lasting ? 100 * MS : PATIENCE), &report);

    if (rc == -ETIMEDOUT && !lasting)
        broke(life->flawless ? NOT_RECOVERED : LOST, "the release does not end: busy %u, queued %u, blocked %u",
              report.busy, report.queued, report.blocked);
    EXPECT(life->flawless, "release_until", rc, -ETIMEDOUT, several ? -ENOMEM : -ETIMEDOUT);
    return rc == 0;
}

static void ledger_check(const struct life *life)
{
    unsigned used = life->used;

    for (unsigned i = 0; i < used; i++) {
        const struct record *r = &life->record[i];
        unsigned fates = r->ran + r->dropped;

        /* Submit and its kin have no dropped callback: a drop of theirs is silent. */
        if (fates > 1 || (r->verdict <= 0 && fates))
            broke(TWICE, "task %u (verdict %d) ran %u times and was dropped %u times", i, r->verdict, r->ran,
                  r->dropped);
        if (r->dropped && r->reason != -ETIMEDOUT && r->reason != -ESHUTDOWN)
            broke(UNDOCUMENTED, "task %u was dropped with %d", i, r->reason);
        if (r->verdict > 0 && !fates && !lasting)
            broke(LOST, "task %u of kind %u was accepted and met no fate", i, r->kind);
    }
}

/* Pools come and go, with tasks in them; a weight is set, and another strategy. */
static void exchange(struct life *life)
{
    EXPECT(life->flawless, "add", rp_multi_add(life->multi, capacity_wanted), -ENOMEM, -EAGAIN, -EPERM, -ENOSYS,
           -EMFILE, -ENFILE, -EINVAL);
    EXPECT(life->flawless, "set_weight", rp_multi_set_weight(life->multi, 1, 2), -ENOMEM);
    for (unsigned i = 0; i < 8; i++)
        submit_one(life, i);
    EXPECT(life->flawless, "remove", rp_multi_remove(life->multi, 0), -ENOMEM);
    EXPECT(life->flawless, "set_strategy", rp_multi_set_strategy(life->multi, RP_TWO_CHOICES), -ENOMEM);
    EXPECT(life->flawless, "prewarm", rp_multi_prewarm(life->multi, 2 * POOLS), -ENOMEM, -EAGAIN, -EPERM, -EINVAL);
}

/* What a program does with a pool. */
static void live(struct life *life, bool second)
{
    memset(life->record, 0, sizeof(life->record));
    life->used = 0;
    if (!pool_make(life, second))
        return;
    helpers_begin(life);
    for (unsigned i = 0; i < 20; i++)
        submit_one(life, i);
    snapshot_check(life);
    EXPECT(life->flawless, "tune", tune(life, (capacity_wanted + 6) * (several ? POOLS : 1)), -ENOMEM);
    submit_batch(life);
    if (several)
        exchange(life);
    EXPECT(life->flawless, "tune", tune(life, several ? 4 * POOLS : 2), -ENOMEM);
    submit_batch(life);
    helpers_await();
    nap(8000000); /* workers expire */
    snapshot_check(life);
    for (unsigned i = 0; i < 6; i++)
        submit_one(life, i);
    bool ended = release(life);
    EXPECT(life->flawless, "reboot", reboot(life), -ENOMEM);
    for (unsigned i = 0; i < 6; i++)
        submit_one(life, i);
    snapshot_check(life);
    if (ended)
        release(life);
    EXPECT(life->flawless, "destroy", destroy(life), -ENOMEM);
    ledger_check(life);
}

/* --- what is left ------------------------------------------------------------------------------------------------- */

static unsigned entries(const char *path)
{
    DIR *folder = opendir(path);
    unsigned n = 0;

    if (!folder)
        broke(CANNOT_TELL, "cannot read %s", path);
    while (readdir(folder))
        n++;
    closedir(folder);
    return n;
}

/* Mappings of workers' stacks, known by their size, and of rings. Where 64 MiB begin it is a heap of malloc's. */
static unsigned mappings(bool tell)
{
    char line[512];
    unsigned n = 0;
    FILE *file = fopen("/proc/self/maps", "re");

    if (!file)
        broke(CANNOT_TELL, "cannot read /proc/self/maps");
    while (fgets(line, sizeof(line), file)) {
        char *end;
        unsigned long from = strtoul(line, &end, 16), size = strtoul(end + 1, &end, 16) - from;
        bool stack = !strpbrk(end, "/[") && size >= STACK && size < STACK + STACK / 4 && from % (64UL << 20);

        if (stack || strstr(line, "io_uring")) {
            n++;
            if (tell)
                fprintf(stderr, "    %s", line);
        }
    }
    fclose(file);
    return n;
}

struct inventory {
    unsigned threads, descriptors, mappings;
};

static struct inventory inventory_now(void)
{
    return (struct inventory){entries("/proc/self/task"), entries("/proc/self/fd"), mappings(false)};
}

/* The kernel takes a joined thread out of /proc a little later: hence the patience. */
static void inventory_check(struct inventory before)
{
    struct inventory after = inventory_now();

    for (int i = 0; i < 2000 && after.threads > before.threads; i++) {
        nap(1000000);
        after = inventory_now();
    }
    if (hooked)
        broke(MEMORY_LEFT, "%ld pieces of memory are left", (long)hooked);
    if (after.threads != before.threads)
        broke(THREADS_LEFT, "%u threads, before %u", after.threads, before.threads);
    if (after.descriptors != before.descriptors)
        broke(DESCRIPTORS_LEFT, "%u descriptors, before %u", after.descriptors, before.descriptors);
    if (after.mappings != before.mappings && !unmapped && mappings(true))
        broke(MAPPINGS_LEFT, "%u mappings, before %u", after.mappings, before.mappings);
}

/* --- interference from inside ------------------------------------------------------------------------------------- */

static void on_signal(int signal)
{
    (void)signal;
}

static pthread_t storm_thread, fork_thread, main_thread;
static _Atomic bool calm;

static void *storm(void *unused)
{
    (void)unused;
    while (!calm) {
        pthread_kill(main_thread, SIGUSR1);
        for (int i = 0; i < HELPERS; i++)
            pthread_kill(helper[i], SIGUSR1);
        nap(20000);
    }
    return NULL;
}

static void count_run(void *arg)
{
    ++*(_Atomic unsigned *)arg;
}

static int new_one(struct life *life)
{
    struct rp_pool *pool = NULL;
    struct rp_multi *multi = NULL;
    int rc = several ? rp_multi_create(&multi, 2, 1, RP_RANDOM, NULL) : rp_pool_create(&pool, 2, NULL);

    life->pool = pool;
    life->multi = multi;
    return rc;
}

/* In the child the parent's pool is dead, and a new one works. */
static _Noreturn void child_main(struct life *parents)
{
    static _Atomic unsigned ran;
    static struct life own;

    alarm(120);
    if (parents && try_submit(parents, count_run, &ran) != -ECHILD)
        _exit(1);
    if (new_one(&own))
        _exit(2);
    for (int i = 0; i < 8; i++)
        if (submit(&own, count_run, &ran))
            _exit(3);
    if (destroy(&own) || ran != 8)
        _exit(4);
    if (parents && destroy(parents))
        _exit(5);
    _exit(0);
}

/*
 * The pool may be destroyed between our look and the fork, and its handle lead to nothing: then the child gets
 * -ESHUTDOWN, so it is asked for only while the life cannot end, which `helped` tells by not having counted its turns.
 */
static void *forker(void *unused)
{
    unsigned seed = 1;

    (void)unused;
    while (!calm) {
        nap((int64_t)(rand_r(&seed) % 3000) * 1000);
        struct life *life = helped;
        pid_t pid = fork();
        int status;

        if (pid == 0)
            child_main(turns_done < HELPERS ? life : NULL);
        if (pid < 0)
            continue; /* EAGAIN, ENOMEM: the machine's, not ours */
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        if (status)
            broke(CHILD_FAILED, "a child ended with status 0x%x", (unsigned)status);
    }
    return NULL;
}

/* --- main --------------------------------------------------------------------------------------------------------- */

static double now(void)
{
    return (double)rp_now() / 1e9;
}

static void once(void)
{
    static struct life life;
    struct inventory before = inventory_now();

    prctl(MARK, MARK_BEGIN);
    between = true;
    life.flawless = flawless;
    if (jobs) {
        jobs_live(flawless, false);
        jobs_live(flawless, true);
    } else {
        live(&life, false);
        live(&life, true);
    }
    between = false;
    prctl(MARK, MARK_END);
    inventory_check(before);

    bool lasted = lasting;
    lasting = hostile;
    life.flawless = !hostile;
    if (jobs)
        jobs_live(!hostile, false);
    else
        live(&life, false);
    lasting = lasted;
    inventory_check(before);
}

static void tap_set(struct tap *tap, const char *value)
{
    char *end;

    tap->first = strtoul(value, &end, 10);
    tap->onward = *end == '-';
}

static int backend_named(const char *name)
{
    return strcmp(name, "epoll") == 0      ? RP_BACKEND_EPOLL
           : strcmp(name, "io_uring") == 0 ? RP_BACKEND_IO_URING
                                           : RP_BACKEND_AUTO;
}

static void arguments(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "--lasting") == 0)
            lasting = true;
        else if (strcmp(argv[i], "--hostile") == 0)
            hostile = lasting = true;
        else if (strcmp(argv[i], "--flawless") == 0)
            flawless = true;
        else if (strcmp(argv[i], "--unmapped") == 0)
            unmapped = true;
        else if (strcmp(argv[i], "--announce") == 0)
            (void)!write(STDERR_FILENO, "begun\n", 6);
        else if (strcmp(argv[i], "--count") == 0)
            counting = true;
        else if (strcmp(argv[i], "--storm") == 0)
            storming = true;
        else if (strcmp(argv[i], "--forks") == 0)
            forking = true;
        else if (strcmp(argv[i], "--jobs") == 0)
            jobs = true;
        else if (strcmp(argv[i], "--multi") == 0)
            several = true;
        else if (strcmp(argv[i], "--backend") == 0)
            backend = backend_named(value), i++;
        else if (strcmp(argv[i], "--hook") == 0)
            tap_set(&hook_tap, value), i++;
        else if (strcmp(argv[i], "--malloc") == 0)
            tap_set(&malloc_tap, value), i++;
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = strtod(value, NULL), i++;
        else if (strcmp(argv[i], "--capacity") == 0)
            capacity_wanted = (unsigned)strtoul(value, NULL, 10), i++;
        else
            broke(CANNOT_TELL, "unknown argument %s", argv[i]);
    }
}

static void threads_begin(void)
{
    bool failed = false;

    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_signal}, NULL);
    main_thread = pthread_self();
    for (size_t i = 0; i < HELPERS; i++)
        failed |= pthread_create(&helper[i], NULL, helper_main, (void *)i) != 0; /* NOLINT(performance-no-int-to-ptr) */
    failed |= storming && pthread_create(&storm_thread, NULL, storm, NULL);
    failed |= forking && pthread_create(&fork_thread, NULL, forker, NULL);
    if (failed)
        broke(CANNOT_TELL, "cannot make my own threads");
}

static void threads_end(void)
{
    calm = true;
    if (storming)
        pthread_join(storm_thread, NULL);
    if (forking)
        pthread_join(fork_thread, NULL);
    over = true;
    for (int i = 0; i < HELPERS; i++)
        pthread_join(helper[i], NULL);
}

int main(int argc, char **argv)
{
    arguments(argc, argv);
    threads_begin();
    double until = now() + seconds;
    do
        once();
    while (now() < until);
    threads_end();
    if (counting)
        printf("hook %lu\nmalloc %lu\n", (unsigned long)hook_tap.asked, (unsigned long)malloc_tap.asked);
    return 0;
}
