/*
 * What a pool with the option metrics measures of its tasks: how long they waited in the queue, and how long they ran.
 *
 * To read the clock three times for each empty task would take longer than the task's whole way. So of brief tasks one
 * in 2, 4, .. 1024 is measured and counts for as many, about one in 16 us of work. Which, a hash of its position in the
 * queue says: where that is within the ring's stamp_limit the submitter leaves a stamp, the time of its submit and for
 * how many tasks that counts. Workers set the limit by how long their tasks are; while tasks are longer than that, or
 * few, each is measured.
 *
 * A long one among brief ones is not missed: a worker also knows, from clocks that it reads anyway, when a row of tasks
 * began that it did one after the other, and when it ended. What a row takes longer than is usual by as much as
 * LONG_TASKS of them, and by LONG_NS, is the time of one task; and who is measured and is as long counts for itself
 * alone. Two such rows one after the other are tasks that have become longer, unless it is by more than SURELY_NS.
 *
 * Each worker writes counts of its own, which readers add up; threads that are no workers share one set of the pool's.
 */
#ifndef POOL_MEASURE_H
#define POOL_MEASURE_H

#include "base/atomic.h"

#include <ringpool/base.h>
#include <ringpool/histogram.h>

struct pool;
struct worker;

/* Legend: o the owner, by plain additions; a anybody, where the set is shared; r read at any time. */
struct tally {
    _Atomic uint64_t most, sum;                   /* o or a; r */
    _Atomic uint64_t count[RP_HISTOGRAM_BUCKETS]; /* likewise */
};

struct measures {
    struct tally wait, run;
    _Atomic int64_t ewma;    /* o or a; r: of the time that tasks ran, ns, */
    _Atomic int64_t ewma_at; /* likewise: and when the last of them ended; 0: none has */
    int64_t began;           /* o: the task that is measured; 0: none is */
    uint64_t stamp;          /* o: its own */
    int64_t row_at;          /* o: since when it has done tasks without a pause; 0: it has not */
    uint64_t row_tasks;      /* o: its count of them then */
    uint64_t row_timed;      /* o: so many of those were measured, */
    int64_t row_timed_ns;    /* o: and took so long, */
    int64_t row_timed_least; /* o: the shortest of them so */
    int64_t usual_ns;        /* o: how long one of the others takes; 0: not known */
    int64_t suspect_ns;      /* o: a long task of the row before, if tasks have not become longer; 0: there was none */
};

/* How many tasks had completed, at two looks at that which were a second or more apart. */
struct rate {
    int64_t at[2];
    uint64_t completed[2];
};

/* Tasks per second since the earlier of them, now that so many have. */
double rate_look(struct rate *rate, int64_t now, uint64_t completed);

/* NULL: no memory. Freed by alloc_free. */
struct measures *measures_create(const struct rp_allocator *allocator);

/* Adds all of `from`, of which nobody writes any more, to a shared set. */
void measures_merge(struct measures *into, const struct measures *from);

/* Adds what is there at the moment. Any thread. */
void tally_read(const struct tally *tally, struct rp_histogram *out);

/*
 * The time in ns above STAMP_BITS, and below the binary logarithm of for how many tasks it counts. 0: for one, no time.
 */
#define STAMP_BITS 5

static inline uint64_t stamp_now(uint64_t every)
{
    return (uint64_t)rp_now() << STAMP_BITS | (unsigned)__builtin_ctzll(every);
}

/* One task begins, and ends, that is measured. */
void measure_begin(struct measures *measures, uint64_t stamp);
void measure_end(struct measures *measures);

/* The same for threads that share a set; `ns` is what the task took that has ended now. */
void measure_shared_wait(struct measures *measures, uint64_t stamp);
void measure_shared_run(struct measures *measures, int64_t ns, uint64_t stamp, int64_t now);

/*
 * A worker's row of tasks: it may have one to do from now on; it is at some moment of it, of which the clock is known;
 * it has none at that moment. A new thread forgets what the last one on its stack knew.
 */
void measure_forget(struct measures *measures);
void measure_row_begins(struct worker *worker);
void measure_row(struct worker *worker, int64_t now);
void measure_row_ends(struct worker *worker, int64_t now);

/* A worker is about to sleep: if nothing is in flight, what comes next is measured whole. */
void measure_rests(struct pool *pool);

#endif
