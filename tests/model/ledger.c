/*
 * The ledger: every accepted task meets exactly one fate, and a pool at rest says so in all its words.
 */
#include "ledger.h"

#include "core.h"

#include "pool/pool.h"

#include <errno.h>
#include <ringpool/multi.h>

struct ledger ledger;

static void on_panic(void *user, const struct rp_panic_info *info)
{
    (void)user;
    (void)info;
    ledger.panics++;
    turn("the panic handler");
}

struct rp_pool *another_pool(unsigned capacity, const struct rp_pool_options *options)
{
    struct rp_pool_options o = options ? *options : (struct rp_pool_options){0};
    struct rp_pool *pool;

    o.allocator = &model_allocator;
    o.log_level = RP_LOG_NONE;
    o.no_purge = !o.expiry_ns;
    o.on_panic = on_panic;
    o.unordered = model.share_first > 1;
    int rc = rp_pool_create(&pool, capacity, &o);
    must(rc == 0, "create: %s", rp_strerror(rc));
    return pool;
}

void open_pool(unsigned capacity, const struct rp_pool_options *options)
{
    memset(&ledger, 0, sizeof(ledger));
    ledger.capacity = capacity;
    ledger.pool = another_pool(capacity, options);
}

struct chore *job_new(void)
{
    must(ledger.jobs < JOBS, "too many jobs");
    return &ledger.job[ledger.jobs++];
}

/* Another one for each job. */
static const char *job_label(const struct chore *job)
{
    static const char labels[JOBS];

    return &labels[job - ledger.job];
}

static void job_run(void *arg)
{
    struct chore *job = arg;
    const char *label = frame_current()->label; /* none, if it was submitted without the rest of a task */

    trace("job %d runs", (int)(job - ledger.job));
    must(!job->runs && !job->drops, "job %d runs twice or after it was dropped", (int)(job - ledger.job));
    must(!label || label == job_label(job), "job %d has the label of another", (int)(job - ledger.job));
    job->runs++;
    if (++ledger.running > ledger.most)
        ledger.most = ledger.running;
    turn("a task");
    if (job->opens)
        gate_open(job->opens);
    if (job->inside)
        job->inside(job);
    if (job->waits)
        gate_wait(job->waits);
    ledger.running--;
    if (job->panics)
        rp_panic("by its choice");
    if (job->exits)
        pthread_exit(NULL);
}

static void job_dropped(void *arg, int reason)
{
    struct chore *job = arg;

    trace("job %d is dropped: %d", (int)(job - ledger.job), reason);
    must(!job->runs && !job->drops, "job %d is dropped twice or after it ran", (int)(job - ledger.job));
    job->drops++;
    job->reason = reason;
    turn("dropped");
}

static struct rp_task task_of(struct chore *job)
{
    return (struct rp_task){
        .fn = job_run,
        .arg = job,
        .dropped = job_dropped,
        .label = job_label(job),
        .priority = job->priority,
        .overload = job->overload,
        .deadline = job->deadline,
        .timeout = job->timeout,
    };
}

static int said(struct chore *job, int rc)
{
    trace("submit of job %d says %d", (int)(job - ledger.job), rc);
    job->rc = rc;
    job->submitted = true;
    return rc;
}

int job_submit_to_pool(struct chore *job)
{
    struct rp_task task = task_of(job);

    if (job->priority || job->overload || job->deadline || job->timeout || chance(2))
        return said(job, rp_pool_submit_task(ledger.pool, &task));
    return said(job, rp_pool_submit(ledger.pool, job_run, job));
}

int job_submit(struct chore *job)
{
    struct rp_task task = task_of(job);

    if (!ledger.multi)
        return job_submit_to_pool(job);
    return said(job,
                chance(2) ? rp_multi_submit_task(ledger.multi, &task) : rp_multi_submit(ledger.multi, job_run, job));
}

int job_try(struct chore *job)
{
    return said(job, rp_pool_try_submit(ledger.pool, job_run, job));
}

int job_submit_until(struct chore *job, int64_t deadline)
{
    return said(job, rp_pool_submit_until(ledger.pool, job_run, job, deadline));
}

int jobs_submit_batch(struct chore *first, unsigned n)
{
    struct rp_task tasks[JOBS] = {0};

    for (unsigned i = 0; i < n; i++)
        tasks[i] = task_of(&first[i]);
    int accepted = rp_pool_submit_batch(ledger.pool, tasks, n);
    for (unsigned i = 0; i < n; i++)
        said(&first[i], (int)i < accepted ? 0 : accepted < 0 ? accepted : -EAGAIN);
    return accepted;
}

void submit_job(void *arg)
{
    job_submit(arg);
}

void submit_batch(void *arg)
{
    struct chore *first = arg;

    jobs_submit_batch(first, (unsigned)(&ledger.job[ledger.jobs] - first));
}

void open_gate(void *arg)
{
    gate_open(arg);
}

void release(void *arg)
{
    int rc = rp_pool_release(ledger.pool);

    (void)arg;
    must(rc == 0, "release: %d", rc);
}

void fates_check(void)
{
    for (unsigned i = 0; i < ledger.jobs; i++) {
        const struct chore *job = &ledger.job[i];
        unsigned fates = job->runs + job->drops;

        must(job->submitted, "the submit of job %u has not returned", i);
        if (job->rc == 0)
            must(fates == 1, "job %u was accepted and %s", i, fates ? "met two fates" : "is stranded");
        else
            must(fates == 0, "job %u was refused with %d and %s", i, job->rc, job->runs ? "ran" : "was dropped");
    }
}

void accepted_check(void)
{
    for (unsigned i = 0; i < ledger.jobs; i++)
        must(ledger.job[i].submitted && ledger.job[i].rc == 0, "job %u was not accepted: %d", i, ledger.job[i].rc);
}

/* The number of workers on the stack, each marked as asleep. */
static unsigned parked(const struct pool *pool)
{
    uint64_t word = pool->idle.word;
    unsigned next = idle_top(word), n = 0;

    while (next) {
        const struct worker *worker = table_get(&pool->table, next - 1);
        must(worker, "the stack names worker %u, which is not in the table", next - 1);
        must(worker->park == PARK_SLEEPING, "worker %u is on the stack and not asleep", next - 1);
        must(++n < 64, "the stack is a ring");
        next = worker->next;
    }
    return n;
}

void rest_check(void)
{
    pool_rest_check(ledger.pool->handle.core);
}

void pool_rest_check(const struct pool *pool)
{
    model.calm = true; /* nobody else can go on anyway */
    flush_everybody();
    must(ledger.running == 0, "%u tasks still run", ledger.running);
    must(runq_flight(&pool->runq) == 0, "%u tasks in flight at rest", runq_flight(&pool->runq));
    must(runq_queued(&pool->runq) == 0, "%u tasks queued at rest", runq_queued(&pool->runq));
    must(idle_searching(pool->idle.word) == 0, "%u searching at rest", idle_searching(pool->idle.word));
    must(pool->alive == parked(pool), "%u workers alive, %u parked at rest", pool->alive, parked(pool));
    must(pool->alive == pool->threads, "%u workers alive, %u threads at rest", pool->alive, pool->threads);
    must(pool->alive == pool->settled, "%u workers alive, %u settled at rest", pool->alive, pool->settled);
    must(pool->room.attention == 0, "attention %#llx at rest", (unsigned long long)pool->room.attention);
    must(pool->guests == 0 && pool->excused == 0, "%u guests, %u excused at rest", pool->guests, pool->excused);
    must(pool->extra == 0, "%u extra at rest", pool->extra);
    must(runq_closed(&pool->runq) || pool->alive <= pool->target, "%u workers alive at rest, %u may", pool->alive,
         pool->target);
    must(pool->tick_armed || pool->no_purge || (pool->alive <= pool->min_workers && !pool->cached),
         "no tick at rest though something can expire");
    must(!runq_closed(&pool->runq) || pool->alive == 0, "%u workers alive after the release", pool->alive);
    model.calm = false;
}

void released(void)
{
    settle(false);
    fates_check();
    must(rp_pool_running(ledger.pool) == 0, "%u workers after the release", rp_pool_running(ledger.pool));
    rest_check();
}

static void snapshot_check(void)
{
    struct rp_pool_snapshot s;
    unsigned accepted = 0, ran = 0, panicked = 0;

    for (unsigned i = 0; i < ledger.jobs; i++) {
        const struct chore *job = &ledger.job[i];
        accepted += job->submitted && job->rc == 0;
        panicked += job->runs && (job->panics || job->exits);
        ran += job->runs && !job->panics && !job->exits;
    }
    must(rp_pool_snapshot(ledger.pool, &s) == 0, "no snapshot");
    must(s.submitted == accepted && s.completed == ran && s.panicked == panicked &&
             s.dropped == accepted - ran - panicked,
         "the snapshot says %llu = %llu + %llu + %llu, the ledger %u, %u, %u", (unsigned long long)s.submitted,
         (unsigned long long)s.completed, (unsigned long long)s.panicked, (unsigned long long)s.dropped, accepted, ran,
         panicked);
    must(ledger.panics == panicked, "%u panics, %u reports", panicked, ledger.panics);
}

void all_done(void)
{
    settle(false);
    fates_check();
    rest_check();
    snapshot_check();
}

void close_pool(void)
{
    int rc = rp_pool_destroy(ledger.pool);

    must(rc == 0, "destroy: %d", rc);
    fates_check();
    must(ledger.running == 0, "destroy has returned while %u tasks run", ledger.running);
}
