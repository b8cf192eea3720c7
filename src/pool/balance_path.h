/*
 * The part of choosing a pool that most submits go through, inline for route.c: see balance.c.
 */
#ifndef POOL_BALANCE_PATH_H
#define POOL_BALANCE_PATH_H

#include "pool/multi.h"
#include "pool/submit_path.h"

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
    uint32_t done = ring_done(seat->ring);
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

/*
 * Whether there is room for sure, without a look at the head, which the pool's workers write all the time: the tail's
 * line, which a claim needs anyway, has a count of ended tasks that may be old, and so too small.
 */
static inline bool surely_open(const struct seat *seat)
{
    const struct pool *pool = seat->pool;
    uint64_t tail = load_acquire(&pool->runq.tail);
    uint32_t done = load_relaxed(&pool->runq.done_seen); /* seen late: too little */

    return !(tail & TAIL_CLOSED) && ((tail_accepted(tail) - done) & FLIGHT_MASK) < load_relaxed(&pool->runq.limit) &&
           load_relaxed(&pool->alive); /* hints: the claim decides */
}

/* --- random numbers: one generator for each thread ---------------------------------------------------------------- */

extern _Thread_local uint64_t balance_random; /* 0: not sown */

/* xorshift64* (S. Vigna, 2016), sown by the clock and the word's own address, which differs from thread to thread. */
static inline uint64_t random_next(void)
{
    uint64_t x = balance_random;

    if (__builtin_expect(!x, 0)) {
        x = ((uint64_t)rp_now() ^ (uint64_t)(uintptr_t)&balance_random) * UINT64_C(0x9e3779b97f4a7c15);
        x = (x ^ x >> 31) | 1;
    }
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    balance_random = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

/* Below n, by D. Lemire's multiplication; the bias of 2^-32 n is nothing to us. */
static inline unsigned below(uint32_t random, unsigned n)
{
    return (unsigned)((uint64_t)random * n >> 32);
}

/* --- the strategies ----------------------------------------------------------------------------------------------- */

/* From `first` on around the table: the first pool with room, or `first` itself. */
static inline const struct seat *balance_from(const struct multi *multi, const struct roster *roster, unsigned first)
{
    for (unsigned i = 0, at = first; i < roster->seats; i++) {
        if (surely_open(&roster->seat[at]) || measure_of(multi, &roster->seat[at]).rank == OPEN)
            return &roster->seat[at];
        if (++at == roster->seats)
            at = 0;
    }
    return &roster->seat[first];
}

/* One that cannot make a worker is found out when it is tried: to ask both would cost a cache line more. */
static inline const struct seat *balance_two(const struct multi *multi, const struct roster *roster)
{
    uint64_t random = random_next();
    unsigned n = roster->seats;

    if (n == 1)
        return &roster->seat[0];
    unsigned a = below((uint32_t)(random >> 32), n), b = below((uint32_t)random, n - 1);
    b += b >= a; /* another one than a */
    struct measure of_a = measure_queue(multi, &roster->seat[a]), of_b = measure_queue(multi, &roster->seat[b]);
    bool second = lighter(&of_b, &of_a);
    if (unlikely((second ? &of_b : &of_a)->rank !=
                 OPEN)) /* neither has room: what route.c would do next, at less cost */
        return balance_least(multi, roster);
    return &roster->seat[second ? b : a];
}

/*
 * What a strategy says. `passes`: it did not ask whether that pool has room, since the claim finds out at no cost;
 * where it has none the pool is passed over for the next one that has (balance_from).
 */
struct choice {
    const struct seat *seat; /* NULL: there is no pool */
    bool passes;
};

/* Whose turn it is in round robin, and may be passed over unless the user forbids that. */
static inline struct choice balance_turn(const struct multi *multi, const struct roster *roster, unsigned turn)
{
    return (struct choice){&roster->seat[turn], !multi->options.no_skip};
}

/* A thread's way around the pools of a multi pool: it keeps a few, and shares a word only to begin one. */
struct round {
    uint32_t serial;         /* of the multi pool; 0: none */
    uint32_t until;          /* so many turns until it has come around */
    uint16_t turn;           /* the next */
    uint16_t part;           /* whose turn it is to get a part of a batch */
    uint16_t arounds, looks; /* how often it has come around, and has looked then */
    uint8_t left;            /* more submits that go to the next turn's pool before the last of its turn */
    uint8_t stays;           /* what that is of each turn until it has come around */
    uint8_t owed_left;       /* where a way around by stays was broken off: these of then, to go on with */
    uint8_t owed_stays;      /* 0: none was */
    uint16_t owed_turn, owed_until;
    int64_t paced_at; /* while it stays: when it was last looked at how fast it submits */
};
_Static_assert(RP_MULTI_POOLS_MAX - 1 <= UINT16_MAX, "a turn is the number of a seat");
#define ROUNDS 4
extern _Thread_local struct round balance_rounds[ROUNDS];

/* How many submits lie between two of those looks. */
#define STAY_PACED 32

/* The thread's for this multi pool, or a new one, which begins with the pool after the last new one's. */
struct round *balance_round_find(struct multi *multi, unsigned seats);
/* It has come around: how long it stays with each pool, see balance.c. */
void balance_around(const struct roster *roster, struct round *round);
/* It stays: not for longer if it submits too slowly for that. */
void balance_paced(struct round *round);

static inline struct round *balance_round(struct multi *multi, const struct roster *roster)
{
    struct round *round = &balance_rounds[multi->serial % ROUNDS];

    return likely(round->serial == multi->serial) ? round : balance_round_find(multi, roster->seats);
}

/* Whose turn it is. *last: it goes on to the next one. */
static inline unsigned balance_next_turn(struct multi *multi, const struct roster *roster, bool *last)
{
    struct round *round = balance_round(multi, roster);
    unsigned turn = round->turn;

    if (unlikely(turn >= roster->seats)) /* there were more */
        turn = round->turn = round->left = 0;
    *last = !round->left;
    if (round->left) {
        if (unlikely(--round->left % STAY_PACED == 0))
            balance_paced(round);
        return turn;
    }
    round->turn = turn + 1 == roster->seats ? 0 : (uint16_t)(turn + 1);
    round->left = round->stays;
    if (--round->until == 0)
        balance_around(roster, round);
    return turn;
}

/* Whose turn it is to get a part of a batch. They go around by themselves, as each batch is cut for all pools alike. */
static inline unsigned balance_next_part(struct multi *multi, const struct roster *roster)
{
    struct round *round = balance_round(multi, roster);
    unsigned part = round->part < roster->seats ? round->part : 0; /* there were more */

    round->part = (uint16_t)(part + 1); /* 0 after the last of all that there may be */
    return part;
}

/* What the strategy says for a task, or a part of a batch. *switched: RP_AUTO has. */
static inline __attribute__((always_inline)) struct choice
balance_choose(struct multi *multi, const struct roster *roster, bool part, bool *switched)
{
    bool last;

    if (unlikely(!roster || !roster->seats))
        return (struct choice){0};
    switch (load_relaxed(&multi->strategy)) { /* from now on means from when it is seen */
    case RP_ROUND_ROBIN:
        return balance_turn(multi, roster,
                            part ? balance_next_part(multi, roster) : balance_next_turn(multi, roster, &last));
    case RP_TWO_CHOICES:
        return (struct choice){balance_two(multi, roster), false};
    case RP_RANDOM:
        return (struct choice){&roster->seat[below((uint32_t)(random_next() >> 32), roster->seats)], true};
    default:
        return balance_other(multi, roster, part, switched);
    }
}

#endif
