/*
 * Search: what a worker without work does before it parks.
 *
 * It looks around for a short while, because a task that comes within microseconds is had without a system call on
 * either side. Eight rules bound that (measured; see bench/RESULTS.md). None of them is part of the parking protocol:
 * whatever is seen or not seen here, idle_park looks again.
 *   one searcher: it announces itself in the idle word, so that submitters wake nobody else, and only one may, or two
 *     of those that take turns, or have run dry after a long burst, as the one may only stand by (below); and two where
 *     tasks are not short, as the one may have been called and stand behind another worker on a busy CPU, for a time
 *     slice: whoever has a CPU and nothing to do would park meanwhile, and that CPU would be idle (but not who finds
 *     what others had first: see rest);
 *   longer: while a submitter without room has given up its CPU it looks for as long as a task takes: the submitter
 *     stands behind one, and comes back after it;
 *   lazy: where no worker is parked and none may be made there is nothing to announce, and it just looks;
 *   same CPU: it never looks around on the CPU of the thread that submitted last: that one could not run;
 *   gather: whoever takes each task the moment it is published works in its submitter's very cache lines, and slows it
 *     to a fifth. So where tasks come in a stream it lets some gather before it looks. Whether they do it finds out by
 *     trying, more and more seldom while it is in vain: a round trip must not pay for it. Nor may it come too close
 *     while it works: what a processor fetches ahead for it are then the slots that its submitter is about to write.
 *     But a worker of a multi pool does not wait for that, as others have use for the CPU: see turns; nor one whose
 *     tasks come in long batches, as their submitter takes a whole row of lines at a time;
 *   rest: who finds tasks again and again that another had first (one that waits for its future and runs it itself, as
 *     a rule) makes that one slower by each look at the queue. It looks every few microseconds, until it gets tasks
 *     again;
 *   yield: who was called again and again as soon as it slept, and for nothing, since others take what comes, stays the
 *     one searcher for a few turns of the CPU instead: each of those calls cost the submitter a system call. Among
 *     brief tasks it stands by for as long as others take them: a second one that ran dry at the head would only be in
 *     the way of both, on the submitter's CPU as it is. Where they stop, as one blocks in a task, it takes the next;
 *   turns: the workers of a multi pool's pools share the CPUs with one another, so that each is called for the few
 *     tasks that came while the others ran, and parks again. One that has found many at a time lately gives up the CPU
 *     instead, as a searcher, until many have gathered; if nobody else wants it, it lets some gather instead. There may
 *     be two such: with one, whoever takes what has gathered would call the next, who finds nothing and parks.
 */
#include "base/cpu.h"
#include "pool/pool.h"

#include <sched.h>

#define FEW_WORKERS 16
#define LOOKS 16 /* less than a microsecond */
#define LOOK_FEW_NS 20000
#define LOOK_MANY_NS 5000
#ifndef LOOK_LONGER_NS        /* the model has one of its own */
#define LOOK_LONGER_NS 150000 /* who waits for longer tasks sleeps, on two CPUs: tasks_last in room.c */
#endif
#define SHORT_NS 400 /* of shorter tasks one worker takes what two would */

#define GATHER_LEAST_NS 1000
#define GATHER_MOST_NS 5000
#define STREAM_LEAST 8    /* so many gathered are a stream */
#define STREAM_ENOUGH 128 /* and with so many it need not be longer */
#define APART 256U        /* tasks, */
#define APART_SHARE 4     /* and no more than this part of what may be in flight: so far a worker stays behind */
#define PATIENCE_LEAST 32U
#define PATIENCE_MOST 256U

#define VAIN_MANY 8U
#define VAIN_MOST 16U
#define VAIN_TASK 4U /* so many vain finds one task makes up for */
#define REST_NS 4000

#define BURSTS_MANY 4
#define BURSTS_MOST 16
#define TURNS_MOST 16
#define TURNS_ENOUGH 512 /* tasks, or half of what may be in flight */
#define TURN_LONG_NS 500000
#define TURN_ALONE_NS 1500
#define TURN_GATHER_NS 3000
#define REFRAIN_LEAST 2
#define REFRAIN_MOST 4096

#define HASTY_NS 20000
#define HASTY_AMONG_NS 200000 /* of a pool among several, whose workers run in between, and where others take */
#define HASTY_MANY 4
#define YIELDS 4
#define STAND_BYS 64
#define LONG_BURST 64 /* tasks in a row, or such that others took meanwhile */

/* Moves on with each task of the normal class that somebody takes. */
static uint64_t head_position(const struct pool *pool)
{
    return load_relaxed(&runq_normal(&pool->runq)->head) & POSITION_MASK;
}

void search_init(struct search *search)
{
    *search = (struct search){.patience = PATIENCE_LEAST, .gather_ns = GATHER_LEAST_NS};
}

void search_parked(struct worker *worker, int64_t now)
{
    struct search *search = &worker->search;
    uint64_t taken = (head_position(worker->pool) - search->head) & POSITION_MASK; /* by others */
    bool among = worker->taker.brief && taken >= LONG_BURST;
    if (load_relaxed(&worker->pool->owner)) /* set soon after creation */
        among = true;
    bool hasty = now - load_relaxed(&worker->parked_at) < (among ? HASTY_AMONG_NS : HASTY_NS); /* own word */

    search->hasty = hasty ? search->hasty + 1 : 0;
    search->called_at = now;
}

static void wait_ns(int64_t span)
{
    int64_t until = rp_now() + span;

    do
        for (int i = 0; i < 8; i++)
            cpu_relax();
    while (rp_now() < until);
}

static void gather_longer(struct search *search, unsigned gathered)
{
    if (gathered < STREAM_ENOUGH && search->gather_ns < GATHER_MOST_NS)
        search->gather_ns += GATHER_LEAST_NS;
}

static void let_gather(struct pool *pool, struct search *search)
{
    if (!search->streaming && ++search->looks < search->patience)
        return;
    search->dry_at = rp_now();
    wait_ns(search->gather_ns);
    unsigned gathered = runq_queued(&pool->runq);

    search->looks = 0;
    search->streaming = gathered >= STREAM_LEAST;
    if (!search->streaming) {
        search->patience = search->patience < PATIENCE_MOST ? 2 * search->patience : PATIENCE_MOST;
        search->gather_ns = GATHER_LEAST_NS;
        return;
    }
    search->patience = PATIENCE_LEAST;
    gather_longer(search, gathered);
}

/* Whether it runs where its last task came from. */
static bool beside_submitter(const struct worker *worker)
{
    int cpu = worker->submitter_cpu;

    return cpu >= 0 && (cpu & ~CPU_BATCH) == cpu_current();
}

bool search_is_close(const struct worker *worker)
{
    const struct runq *q = &worker->pool->runq;

    if (worker->submitter_cpu >= 0 && worker->submitter_cpu & CPU_BATCH)
        return false;
    if (load_relaxed(&worker->pool->owner) || beside_submitter(worker)) /* set soon after creation */
        return false;
    unsigned apart = load_relaxed(&q->limit) / APART_SHARE;  /* a hint */
    return runq_queued(q) < (apart < APART ? apart : APART); /* which takes a line from the submitter */
}

void search_fall_back(struct worker *worker)
{
    struct search *search = &worker->search;

    wait_ns(search->gather_ns);
    gather_longer(search, runq_queued(&worker->pool->runq));
}

/* Whether what it found last it got. */
static void learn_finds(struct search *search, uint64_t burst)
{
    if (search->found && burst == 0)
        search->vain += search->vain < VAIN_MOST;
    else if (search->found)
        search->vain -= search->vain < VAIN_TASK ? search->vain : VAIN_TASK;
    search->found = false;
}

static bool looks(struct pool *pool, unsigned n)
{
    for (; n; n--) {
        if (runq_incoming(&pool->runq))
            return true;
        cpu_relax();
    }
    return false;
}

/* How much longer than for its span it is to look. */
static int64_t look_longer(const struct pool *pool)
{
    int64_t each = (int64_t)pool_task_ns(pool);

    if (!load_relaxed(&pool->room.yielding)) /* a hint */
        return 0;
    return each < LOOK_LONGER_NS ? each : LOOK_LONGER_NS;
}

/* The clock is not asked before it has looked: a task that comes at once would wait for that. */
static bool look_around(struct pool *pool, struct search *search, bool rests)
{
    if (!rests && looks(pool, LOOKS)) {
        search->soon = !search->dry_at;
        return true;
    }
    int64_t span = load_relaxed(&pool->target) <= FEW_WORKERS ? LOOK_FEW_NS : LOOK_MANY_NS;
    int64_t now = rp_now(), until = now + span;
    search->dry_at = search->dry_at ? search->dry_at : now;

    do {
        if (rests)
            wait_ns(REST_NS);
        if (looks(pool, rests ? 1 : LOOKS))
            return true;
        now = rp_now();
    } while (now < until || now < until + look_longer(pool));
    return false;
}

/* `stands_by`: takes nothing while others do. */
static bool yield_around(struct pool *pool, struct search *search, bool stands_by)
{
    uint64_t head = head_position(pool);

    search->dry_at = rp_now();
    for (int turns = 0, vain = 0; turns < STAND_BYS && vain < YIELDS; turns++) {
        sched_yield();
        uint64_t before = head;
        head = head_position(pool);
        bool others = stands_by && head != before;
        if (!others && runq_incoming(&pool->runq))
            return true;
        vain += !others;
    }
    return runq_incoming(&pool->runq);
}

/* Whether the caller is a worker of a multi pool that has found many tasks at a time lately. */
static bool learn_bursts(const struct worker *worker, struct search *search, uint64_t burst)
{
    if (!load_relaxed(&worker->pool->owner)) /* set soon after creation: seen late, one search goes the other way */
        return false;
    if (burst >= STREAM_LEAST)
        search->bursts += search->bursts < BURSTS_MOST ? 2 : 0;
    else if (search->bursts > 0)
        search->bursts--;
    return search->bursts >= BURSTS_MANY;
}

/*
 * Among such streams a turn comes back within microseconds. One that takes as long as a time slice went to somebody who
 * wants the CPU for other things, and all that time tasks may have waited for us while others were not called: so no
 * more turns for a while, for twice as long each time that happens; each turn that was short halves that.
 */
static bool take_turns(struct pool *pool, struct search *search)
{
    unsigned half = load_relaxed(&pool->runq.limit) / 2; /* a hint */
    unsigned enough = half < TURNS_ENOUGH ? half : TURNS_ENOUGH;
    int64_t before = search->dry_at = rp_now();
    bool found = false;

    for (int i = 0; i < TURNS_MOST && !found; i++) {
        sched_yield();
        int64_t now = rp_now();
        if (now - before < TURN_ALONE_NS) { /* nobody else wants the CPU */
            wait_ns(TURN_GATHER_NS);
            found = runq_incoming(&pool->runq);
        } else if (now - before > TURN_LONG_NS) {
            search->refrain = search->refrain ? 2 * search->refrain : REFRAIN_LEAST;
            search->refrain = search->refrain < REFRAIN_MOST ? search->refrain : REFRAIN_MOST;
            search->bursts = -search->refrain;
            return runq_incoming(&pool->runq);
        }
        before = now;
        found = found || runq_queued(&pool->runq) >= enough;
    }
    found = found || runq_incoming(&pool->runq);
    if (found)
        search->refrain /= 2;
    return found;
}

bool search_for_work(struct worker *worker, bool *searching)
{
    struct pool *pool = worker->pool;
    struct search *search = &worker->search;
    uint64_t burst = load_relaxed(&worker->tasks) - search->tasks; /* own word: tasks since it last searched */
    bool same_cpu = beside_submitter(worker);

    search->tasks += burst;
    search->called = search->soon = false;
    search->dry_at = 0;
    search->head = head_position(pool);
    learn_finds(search, burst);
    bool streams = learn_bursts(worker, search, burst);
    if (same_cpu && !streams && search->hasty < HASTY_MANY)
        return false;
    if (!*searching) {
        uint64_t word = load_relaxed(&pool->idle.word); /* a hint */
        bool lazy = !idle_top(word) && load_relaxed(&pool->alive) >= load_relaxed(&pool->target);
        bool two = streams || burst >= LONG_BURST || (pool_task_ns(pool) >= SHORT_NS && search->vain < VAIN_MANY);
        if (!lazy && !(*searching = idle_search_begin(pool, two ? 2 : 1)))
            return false;
    }
    if (streams)
        return take_turns(pool, search);
    if (same_cpu)
        return yield_around(pool, search, worker->taker.brief);
    let_gather(pool, search);
    return search->found = look_around(pool, search, search->vain >= VAIN_MANY);
}
