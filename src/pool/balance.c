/*
 * Choosing a pool. Everything here runs in the submitter's RCU section, on one table of pools, without a lock; the
 * figures are one moment's for each pool, and may be old by the time the task arrives: a pool without room then says so,
 * and route.c goes on.
 *
 * Round robin counts rounds for all threads, and turns within a round for each thread. One counter for all turns would be
 * exact at each moment, at the price of a contended word for each submit (11 ns measured against 2). Counters of the
 * threads' own alone could promise nothing: threads that start together would choose the same pool in step, and one that
 * submits to two multi pools in turn would meet the same half of each.
 *
 * Loads are compared by cross-multiplying with the weights, so that nothing is divided. ants ranks by running workers,
 * which tells nothing as soon as all workers run; the load here is what is in flight and who blocks.
 */
#include "pool/balance_path.h"

#include "base/cpu.h"

#include <errno.h>

_Thread_local struct round balance_rounds[ROUNDS];

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

/* --- the strategies ----------------------------------------------------------------------------------------------- */

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

static const struct seat *local(const struct multi *multi, const struct roster *roster)
{
    int cpu = cpu_current();

    return balance_from(multi, roster, cpu < 0 ? 0 : (unsigned)cpu % roster->seats);
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
    uint32_t turn = balance_next_turn(multi, roster->seats);

    if ((turn & roster->sample) == 0)
        *switched = auto_sample(multi, roster);
    return load_relaxed(&multi->leaning) ? balance_least(multi, roster)
                                         : balance_turn(multi, roster, turn); /* a mode */
}

const struct seat *balance_other(struct multi *multi, const struct roster *roster, bool *switched)
{
    switch (load_relaxed(&multi->strategy)) { /* from now on means from when it is seen */
    case RP_LOCAL:
        return local(multi, roster);
    case RP_AUTO:
        return automatic(multi, roster, switched);
    default:
        return balance_least(multi, roster);
    }
}
