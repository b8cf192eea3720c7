/*
 * Choosing a pool. Everything here runs in the submitter's RCU section, on one table of pools, without a lock; the
 * figures are one moment's for each pool, and may be old by the time the task arrives: a pool without room then says
 * so, and route.c goes on.
 *
 * In round robin each thread goes around by itself. One counter for all would be exact at each moment, at the price of
 * a contended word for each submit (11 ns measured against 2). The threads begin one pool after the other, since those
 * that start together would else choose the same pool in step; and a thread keeps its place in each of a few multi
 * pools, as one place for two that are used in turn would mean the same half of the pools of each.
 *
 * Loads are compared by cross-multiplying with the weights, so that nothing is divided. ants ranks by running workers,
 * which tells nothing as soon as all workers run; the load here is what is in flight and who blocks.
 */
#include "pool/balance_path.h"

#include "base/cpu.h"

#include <errno.h>

/* Submits; see bench/RESULTS.md. */
#define STAY_LEAST 32U
#define STAY_MOST 128U
#define STAY_PACE_NS 16000 /* for STAY_PACED of them */
#define LOOK_TURNS 16

_Thread_local uint64_t balance_random;
_Thread_local struct round balance_rounds[ROUNDS];

struct round *balance_round_find(struct multi *multi, unsigned seats)
{
    struct round *round = &balance_rounds[multi->serial % ROUNDS], *free = NULL;

    for (unsigned i = 0; i < ROUNDS; i++) {
        if (balance_rounds[i].serial == multi->serial)
            return &balance_rounds[i];
        if (!balance_rounds[i].serial)
            free = &balance_rounds[i];
    }
    if (free && round->serial)
        round = free;
    uint16_t first = (uint16_t)(add_relaxed(&multi->rounds, 1) % seats); /* only counts */
    *round = (struct round){.serial = multi->serial, .turn = first, .until = seats, .part = first};
    return round;
}

/*
 * Threads that submit at the same time and take turns with each task meet at one pool after the other, and each submit
 * waits for two lines that the other has just written. So where tasks queue anyway a thread stays for some: for no more
 * than wait already in each of three quarters of the pools (one may hang, and be full for that). It looks once in so
 * many turns, as a look takes a line from a worker, first at another pool each time, and often no further.
 */
void balance_around(const struct roster *roster, struct round *round)
{
    unsigned arounds = round->arounds++, shallow = 0, stay = STAY_MOST;
    bool stayed = round->stays;

    round->until = roster->seats;
    round->stays = round->left = 0;
    if (roster->seats == 1 || (!stayed && arounds % (LOOK_TURNS / roster->seats + 1)))
        return;
    unsigned at = round->looks++ % roster->seats;
    for (unsigned i = 0; i < roster->seats; i++) {
        unsigned queued = runq_queued(&roster->seat[at].pool->runq);
        if (queued >= STAY_LEAST)
            stay = queued < stay ? queued : stay;
        else if (i == 0 || ++shallow > roster->seats / 4)
            return;
        if (++at == roster->seats)
            at = 0;
    }
    round->paced_at = rp_now();
    round->stays = round->left = (uint8_t)(stay - 1);
    if (!round->owed_stays)
        return;
    if (round->owed_stays < stay && round->owed_until <= roster->seats) {
        round->turn = round->owed_turn < roster->seats ? round->owed_turn : 0;
        round->until = round->owed_until;
        round->left = round->owed_left;
        round->stays = round->owed_stays;
    }
    round->owed_stays = 0; /* else there were more pools, or more waited */
}

/*
 * What waited when it looked tells nothing after a while, as when tasks came in a burst and now come one by one: after
 * one more submit it goes in turn. When it stays again it goes on from there, so that it is not always the same that
 * have had more by then: who is slow after so many submits breaks off at the same pools each time.
 */
void balance_paced(struct round *round)
{
    int64_t now = rp_now();

    if (now - round->paced_at > STAY_PACE_NS) {
        bool here = round->left > 0; /* that one is the last of this pool's, or it is owed more */
        round->owed_turn = here ? round->turn : (uint16_t)(round->turn + 1);
        round->owed_until = (uint16_t)(here ? round->until : round->until - 1);
        round->owed_left = here ? round->left - 1 : round->stays;
        round->owed_stays = round->owed_until ? round->stays : 0;
        round->left = round->stays = 0;
        round->until = 1;
    }
    round->paced_at = now;
}

bool balance_room(const struct pool *pool)
{
    static const struct multi unweighted;
    struct seat seat = {.pool = (struct pool *)(uintptr_t)pool, .ring = runq_normal(&pool->runq), .weight = 1};

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

static struct choice local(const struct roster *roster)
{
    int cpu = cpu_current();

    return (struct choice){&roster->seat[cpu < 0 ? 0 : (unsigned)cpu % roster->seats], true};
}

static struct choice least(const struct multi *multi, const struct roster *roster)
{
    return (struct choice){balance_least(multi, roster), false};
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

static struct choice automatic(struct multi *multi, const struct roster *roster, bool part, bool *switched)
{
    bool last = true;
    unsigned turn = part ? balance_next_part(multi, roster) : balance_next_turn(multi, roster, &last);

    if (last && (turn & roster->sample) == 0)
        *switched = auto_sample(multi, roster);
    return load_relaxed(&multi->leaning) ? least(multi, roster) : balance_turn(multi, roster, turn); /* a mode */
}

struct choice balance_other(struct multi *multi, const struct roster *roster, bool part, bool *switched)
{
    switch (load_relaxed(&multi->strategy)) { /* from now on means from when it is seen */
    case RP_LOCAL:
        return local(roster);
    case RP_AUTO:
        return automatic(multi, roster, part, switched);
    default:
        return least(multi, roster);
    }
}
