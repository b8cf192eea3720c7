/*
 * Choosing a pool. Everything here runs in the submitter's RCU section, on one table of pools, without a lock; the
 * figures are one moment's for each pool, and may be old by the time the task arrives: a pool without room then says so,
 * and route.c goes on.
 *
 * Round robin has one counter for all threads. A counter for each thread or CPU would spare the contended word (11 ns
 * measured against 2), but could promise nothing: threads that start together would choose the same pool in step, and a
 * thread that submits to two multi pools in turn would meet the same half of each.
 *
 * Loads are compared by cross-multiplying with the weights, so that nothing is divided. ants ranks by running workers,
 * which tells nothing as soon as all workers run; the load here is what is in flight and who blocks.
 */
#include "base/cpu.h"
#include "pool/multi.h"

#include <errno.h>

/* CLOSED takes nothing; FULL has no room; OPEN has. */
enum { CLOSED, FULL, OPEN };

struct measure {
    int rank;
    uint64_t load;
    uint64_t weight;
};

/* Closed is read with the tail, so that load and rank are of one moment. */
static inline struct measure measure_queue(const struct multi *multi, const struct seat *seat)
{
    const struct pool *pool = seat->pool;
    uint32_t done = head_done(load_seq(seat->head));
    uint64_t tail = load_seq(&pool->runq.tail);
    uint32_t flight = (tail_accepted(tail) - done) & FLIGHT_MASK;
    struct measure m = {.load = flight, .weight = seat->weight};

    if (multi->options.weigh_by_capacity)
        m.weight *= load_relaxed(&pool->capacity); /* a figure to compare by */
    if (tail & TAIL_CLOSED) {
        m.rank = CLOSED;
    } else if (flight >= load_relaxed(&pool->runq.limit)) { /* a hint: the claim decides */
        m.rank = FULL;
        m.load += room_blocked(pool); /* who blocks at this very pool: none where there is room, which saves a line */
    } else {
        m.rank = OPEN;
    }
    return m;
}

/* A pool without a worker that cannot make one counts as full. */
static inline struct measure measure_of(const struct multi *multi, const struct seat *seat)
{
    struct measure m = measure_queue(multi, seat);

    if (m.rank == OPEN && !load_relaxed(&seat->pool->alive) && load_relaxed(&seat->pool->spawn_failing)) /* hints */
        m.rank = FULL;
    return m;
}

/* Loads stay below 2^32, the product of weights below 2^52 only where a user asks for it: 128 bits never overflow. */
static inline bool lighter(const struct measure *a, const struct measure *b)
{
    if (a->rank != b->rank)
        return a->rank > b->rank;
    if (a->weight == b->weight)
        return a->load < b->load;
    return (unsigned __int128)a->load * b->weight < (unsigned __int128)b->load * a->weight;
}

bool balance_room(const struct pool *pool)
{
    static const struct multi unweighted;
    struct seat seat = {.pool = (struct pool *)(uintptr_t)pool, .head = &runq_normal(&pool->runq)->head, .weight = 1};

    return measure_of(&unweighted, &seat).rank == OPEN;
}

void balance_view(const struct multi *multi, const struct seat *seat, struct rp_multi_view *view)
{
    const struct pool *pool = seat->pool;
    struct runq_counts counts = runq_count(&pool->runq);
    unsigned running = load_seq(&pool->alive);
    unsigned busy = counts.taken < running ? counts.taken : running;

    *view = (struct rp_multi_view){
        .index = seat->index,
        .weight = seat->weight,
        .capacity = load_relaxed(&pool->capacity), /* a figure to choose by */
        .busy = busy,
        .waiting = counts.queued + (counts.taken - busy) + room_blocked(pool),
        .room = measure_of(multi, seat).rank == OPEN,
    };
}

/* --- random numbers: one generator for each thread ---------------------------------------------------------------- */

/* xorshift64* (S. Vigna, 2016), sown by the clock and the word's own address, which differs from thread to thread. */
static inline uint64_t random_next(void)
{
    static _Thread_local uint64_t word;
    uint64_t x = word;

    if (__builtin_expect(!x, 0)) {
        x = ((uint64_t)rp_now() ^ (uint64_t)(uintptr_t)&word) * UINT64_C(0x9e3779b97f4a7c15);
        x = (x ^ x >> 31) | 1;
    }
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    word = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

/* Below n, by D. Lemire's multiplication; the bias of 2^-32 n is nothing to us. */
static inline unsigned below(uint32_t random, unsigned n)
{
    return (unsigned)((uint64_t)random * n >> 32);
}

/* --- the strategies ----------------------------------------------------------------------------------------------- */

/* From `first` on around the table: the first pool with room, or `first` itself. */
static const struct seat *from(const struct multi *multi, const struct roster *roster, unsigned first)
{
    for (unsigned i = 0, at = first; i < roster->seats; i++) {
        if (measure_of(multi, &roster->seat[at]).rank == OPEN)
            return &roster->seat[at];
        if (++at == roster->seats)
            at = 0;
    }
    return &roster->seat[first];
}

/* Begins anywhere, so that equals share; nothing is lighter than an empty pool with room. */
const struct seat *balance_least(const struct multi *multi, const struct roster *roster)
{
    const struct seat *best = NULL;
    struct measure least = {0};

    if (!roster->seats)
        return NULL;
    unsigned at = below((uint32_t)(random_next() >> 32), roster->seats);
    for (unsigned i = 0; i < roster->seats; i++) {
        struct measure m = measure_of(multi, &roster->seat[at]);
        if (!best || lighter(&m, &least)) {
            best = &roster->seat[at];
            least = m;
        }
        if (least.rank == OPEN && !least.load)
            break;
        if (++at == roster->seats)
            at = 0;
    }
    return least.rank == CLOSED ? NULL : best;
}

/* One that cannot make a worker is found out when it is tried: to ask both would cost a cache line more. */
static const struct seat *two_choices(const struct multi *multi, const struct roster *roster)
{
    uint64_t random = random_next();
    unsigned n = roster->seats;

    if (n == 1)
        return &roster->seat[0];
    unsigned a = below((uint32_t)(random >> 32), n), b = below((uint32_t)random, n - 1);
    b += b >= a; /* another one than a */
    struct measure of_a = measure_queue(multi, &roster->seat[a]), of_b = measure_queue(multi, &roster->seat[b]);
    return &roster->seat[lighter(&of_b, &of_a) ? b : a];
}

static const struct seat *round_robin(const struct multi *multi, const struct roster *roster, uint64_t turn)
{
    unsigned at = (unsigned)(turn % roster->seats);

    return multi->options.no_skip ? &roster->seat[at] : from(multi, roster, at);
}

static const struct seat *local(const struct multi *multi, const struct roster *roster)
{
    int cpu = cpu_current();

    return from(multi, roster, cpu < 0 ? 0 : (unsigned)cpu % roster->seats);
}

/*
 * RP_AUTO looks at the load every so many turns as there are pools, so that a submit pays for about one of them. It
 * needs no timer: without submits there is nothing to choose.
 */
static bool auto_sample(struct multi *multi, const struct roster *roster)
{
    const struct rp_multi_options *o = &multi->options;
    uint64_t load = 0, waiting = 0, capacity = 0;
    uint32_t leaning = load_relaxed(&multi->leaning); /* validated by the CAS */

    for (unsigned i = 0; i < roster->seats; i++) {
        const struct pool *pool = roster->seat[i].pool;
        load += runq_flight(&pool->runq) + room_blocked(pool);
        waiting += runq_queued(&pool->runq) + room_blocked(pool);
        capacity += load_relaxed(&pool->capacity); /* a figure to compare by */
    }
    uint64_t percent = (uint64_t)(leaning ? o->auto_low : o->auto_high) * capacity;
    uint32_t wanted = load * 100 >= percent || (o->auto_waiting && waiting >= o->auto_waiting);
    return wanted != leaning && cas_relaxed(&multi->leaning, &leaning, wanted);
}

static const struct seat *automatic(struct multi *multi, const struct roster *roster, bool *switched)
{
    uint64_t turn = add_relaxed(&multi->turn, 1); /* a counter */

    if ((turn & roster->sample) == 0)
        *switched = auto_sample(multi, roster);
    return load_relaxed(&multi->leaning) ? balance_least(multi, roster) : round_robin(multi, roster, turn); /* a mode */
}

const struct seat *balance_choose(struct multi *multi, const struct roster *roster, bool *switched)
{
    if (__builtin_expect(!roster->seats, 0))
        return NULL;
    switch (load_relaxed(&multi->strategy)) { /* from now on means from when it is seen */
    case RP_LEAST_TASKS:
        return balance_least(multi, roster);
    case RP_TWO_CHOICES:
        return two_choices(multi, roster);
    case RP_RANDOM:
        return from(multi, roster, below((uint32_t)(random_next() >> 32), roster->seats));
    case RP_LOCAL:
        return local(multi, roster);
    case RP_AUTO:
        return automatic(multi, roster, switched);
    default:
        return round_robin(multi, roster, add_relaxed(&multi->turn, 1)); /* a counter */
    }
}
