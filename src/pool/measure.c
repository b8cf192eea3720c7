/* See measure.h. */
#include "pool/measure.h"

#include "base/alloc.h"
#include "pool/pool.h"

#define EVERY_NS 16000 /* of work for each task that is measured */
#define EVERY_MOST 1024
#define ROW_LEAST 32 /* tasks, for fewer of them to be measured */
#define ROW_NS 16000 /* and so much work for it to be looked at while it goes on */
#define LONG_NS 16000
#define LONG_TASKS 256
#define SURELY_NS 1000000 /* longer than a row of tasks each of which is measured */
#define EWMA_PART 16
#define USUAL_PART 8
#define RATE_NS 1000000000

struct measures *measures_create(const struct rp_allocator *allocator)
{
    return alloc_zeroed(allocator, 1, sizeof(struct measures));
}

/* --- counts ----------------------------------------------------------------------------------------------------- */

static inline void own_add(_Atomic uint64_t *count, uint64_t n)
{
    store_relaxed(count, load_relaxed(count) + n); /* own word; a report's figure */
}

static void tally_add(struct tally *tally, int64_t ns, uint32_t n)
{
    uint64_t value = ns > 0 ? (uint64_t)ns : 0;

    own_add(&tally->count[rp_histogram_bucket(value)], n);
    own_add(&tally->sum, value * n);
    if (value > load_relaxed(&tally->most)) /* own word */
        store_relaxed(&tally->most, value);
}

static void tally_raise(struct tally *tally, uint64_t value)
{
    uint64_t most = load_relaxed(&tally->most); /* by CAS */

    while (value > most && !cas_relaxed(&tally->most, &most, value))
        ;
}

static void tally_add_shared(struct tally *tally, int64_t ns, uint32_t n)
{
    uint64_t value = ns > 0 ? (uint64_t)ns : 0;

    add_relaxed(&tally->count[rp_histogram_bucket(value)], n); /* a counter, as those below */
    add_relaxed(&tally->sum, value * n);
    tally_raise(tally, value);
}

static void tally_merge(struct tally *into, const struct tally *from)
{
    for (unsigned i = 0; i < RP_HISTOGRAM_BUCKETS; i++) {
        uint64_t n = load_relaxed(&from->count[i]); /* nobody writes there */
        if (n)
            add_relaxed(&into->count[i], n); /* a counter, as those below */
    }
    add_relaxed(&into->sum, load_relaxed(&from->sum));
    tally_raise(into, load_relaxed(&from->most));
}

static void ewma_set(struct measures *measures, int64_t ewma, int64_t at)
{
    store_relaxed(&measures->ewma, ewma); /* a report's figures; of a shared set one of two that meet may be lost */
    store_relaxed(&measures->ewma_at, at);
}

void measures_merge(struct measures *into, const struct measures *from)
{
    tally_merge(&into->wait, &from->wait);
    tally_merge(&into->run, &from->run);
    if (load_relaxed(&from->ewma_at) > load_relaxed(&into->ewma_at)) /* reports: the later one tells */
        ewma_set(into, load_relaxed(&from->ewma), load_relaxed(&from->ewma_at));
}

void tally_read(const struct tally *tally, struct rp_histogram *out)
{
    for (unsigned i = 0; i < RP_HISTOGRAM_BUCKETS; i++) {
        uint64_t n = load_relaxed(&tally->count[i]); /* reports: each figure stands alone */
        out->count[i] += n;
        out->total += n;
    }
    out->sum += load_relaxed(&tally->sum);
    uint64_t most = load_relaxed(&tally->most);
    out->most = most > out->most ? most : out->most;
}

/* --- tasks ------------------------------------------------------------------------------------------------------ */

/* How much longer than usual is long. */
static int64_t long_ns(int64_t usual)
{
    return LONG_TASKS * usual > LONG_NS ? LONG_TASKS * usual : LONG_NS;
}

static void ewma_add(struct measures *measures, int64_t ns, int64_t now)
{
    int64_t ewma = load_relaxed(&measures->ewma); /* own word; a shared set's: as in ewma_set */

    ewma_set(measures, load_relaxed(&measures->ewma_at) ? ewma + (ns - ewma) / EWMA_PART : ns, now);
}

/* One that took so long. */
static void run_add(struct measures *measures, int64_t ns, uint32_t n, int64_t now)
{
    tally_add(&measures->run, ns, n > 1 && ns >= long_ns(measures->usual_ns) ? 1 : n);
    ewma_add(measures, ns, now);
}

static uint32_t stamp_weight(uint64_t stamp)
{
    return 1U << (stamp & ((1U << STAMP_BITS) - 1));
}

static int64_t stamp_time(uint64_t stamp)
{
    return (int64_t)(stamp >> STAMP_BITS);
}

void measure_begin(struct measures *measures, uint64_t stamp)
{
    int64_t now = rp_now();

    if (stamp)
        tally_add(&measures->wait, now - stamp_time(stamp), stamp_weight(stamp));
    measures->stamp = stamp;
    measures->began = now;
}

void measure_end(struct measures *measures)
{
    int64_t now = rp_now(), ns = now - measures->began;

    measures->began = 0;
    if (!measures->row_timed++ || ns < measures->row_timed_least)
        measures->row_timed_least = ns;
    measures->row_timed_ns += ns;
    run_add(measures, ns, stamp_weight(measures->stamp), now);
}

void measure_shared_wait(struct measures *measures, uint64_t stamp)
{
    tally_add_shared(&measures->wait, rp_now() - stamp_time(stamp), stamp_weight(stamp));
}

void measure_shared_run(struct measures *measures, int64_t ns, uint64_t stamp, int64_t now)
{
    tally_add_shared(&measures->run, ns, stamp_weight(stamp));
    ewma_add(measures, ns, now);
}

/* --- rates ------------------------------------------------------------------------------------------------------ */

double rate_look(struct rate *rate, int64_t now, uint64_t completed)
{
    if (now - rate->at[1] >= RATE_NS) {
        rate->at[0] = rate->at[1];
        rate->completed[0] = rate->completed[1];
        rate->at[1] = now;
        rate->completed[1] = completed;
    }
    int64_t took = now - rate->at[0];
    if (took <= 0 || completed <= rate->completed[0]) /* a snapshot may lack a task */
        return 0;
    return (double)(completed - rate->completed[0]) * 1e9 / (double)took;
}

/* --- rows ------------------------------------------------------------------------------------------------------- */

/* The greatest power of two of tasks that take no more than EVERY_NS. */
static uint64_t every_for(int64_t each)
{
    uint64_t every = 1;

    while (every < EVERY_MOST && (int64_t)(2 * every) * each <= EVERY_NS)
        every *= 2;
    return every;
}

/* Back only by much, as each change is a line that all submitters read, and workers may not be of one mind. */
static void every_learn(struct pool *pool, int64_t each, uint64_t tasks)
{
    uint64_t now = runq_stamped_every(&pool->runq), wanted = every_for(each);

    if (wanted > now && tasks < ROW_LEAST)
        return;
    if (wanted > now || now >= 4 * wanted || (wanted < now && each >= EVERY_NS))
        runq_stamp_every(&pool->runq, wanted);
}

/* So many tasks took so long beside those that were measured. */
static void usual_learn(struct measures *measures, int64_t took, uint64_t tasks)
{
    int64_t each = took / (int64_t)tasks, usual = measures->usual_ns;

    if (each <= 0)
        return;
    if (!usual || each < usual)
        measures->usual_ns = each;
    else
        measures->usual_ns += (each < 2 * usual ? each - usual : usual) / USUAL_PART;
}

static void row_begins_at(struct worker *worker, int64_t now)
{
    struct measures *measures = worker->measures;

    measures->row_at = now;
    measures->row_tasks = load_relaxed(&worker->tasks); /* own word */
    measures->row_timed = 0;
    measures->row_timed_ns = 0;
}

void measure_forget(struct measures *measures)
{
    measures->began = 0;
    measures->row_at = 0;
    measures->usual_ns = 0;
    measures->suspect_ns = 0;
}

void measure_row_begins(struct worker *worker)
{
    row_begins_at(worker, rp_now());
}

static void suspect_add(struct measures *measures, int64_t now)
{
    if (measures->suspect_ns)
        run_add(measures, measures->suspect_ns, 1, now);
    measures->suspect_ns = 0;
}

/*
 * What one of a row's tasks takes, by what is usual and by those that were measured: the shortest of them, and not by a
 * single one that is long itself, lest one that was held up hide another.
 */
static int64_t row_expected(const struct measures *measures)
{
    int64_t usual = measures->usual_ns, least = measures->row_timed_least;
    bool tells = measures->row_timed > 1 || (measures->row_timed == 1 && least < long_ns(usual));

    return tells && least > usual ? least : usual;
}

/* So many tasks of the row were not measured and took so long. */
static void others_learn(struct measures *measures, int64_t took, uint64_t others, int64_t now)
{
    int64_t expected = row_expected(measures);
    int64_t excess = took - (int64_t)others * expected;

    if (excess < long_ns(expected)) {
        suspect_add(measures, now);
        usual_learn(measures, took, others);
    } else if (excess >= SURELY_NS) {
        suspect_add(measures, now);
        run_add(measures, excess + expected, 1, now);
    } else if (!measures->suspect_ns) {
        measures->suspect_ns = excess + expected;
    } else {
        measures->suspect_ns = 0;
        measures->usual_ns = took / (int64_t)others;
    }
}

static void row_learn(struct worker *worker, int64_t now)
{
    struct measures *measures = worker->measures;
    uint64_t tasks = load_relaxed(&worker->tasks) - measures->row_tasks; /* own word */
    uint64_t others = tasks > measures->row_timed ? tasks - measures->row_timed : 0;
    int64_t took = now - measures->row_at;

    if (!tasks)
        return;
    if (!measures->usual_ns) /* as others have found, at the least: lest a long one hide behind too much */
        measures->usual_ns = EVERY_NS / 2 / (int64_t)runq_stamped_every(&worker->pool->runq);
    if (others)
        others_learn(measures, took - measures->row_timed_ns, others, now);
    else
        usual_learn(measures, took, tasks);
    every_learn(worker->pool, took / (int64_t)tasks, tasks);
}

void measure_row(struct worker *worker, int64_t now)
{
    int64_t row_at = worker->measures->row_at;

    if (row_at && now - row_at < ROW_NS)
        return;
    if (row_at)
        row_learn(worker, now);
    row_begins_at(worker, now);
}

void measure_row_ends(struct worker *worker, int64_t now)
{
    if (worker->measures->row_at)
        row_learn(worker, now);
    suspect_add(worker->measures, now); /* nothing follows that could tell otherwise */
    worker->measures->row_at = 0;
}

void measure_rests(struct pool *pool)
{
    if (runq_stamped_every(&pool->runq) > 1 && !runq_flight(&pool->runq))
        runq_stamp_every(&pool->runq, 1);
}
