/*
 * Shares: what a worker takes at once is begun once, in order, by it or by thieves; it counts as queued until then, and
 * holds up neither the slots nor the counts of the ring. Most of it on a bare run queue, where no thread decides.
 */
#include "checkers.h"
#include "gates.h"
#include "seed.h"

#include "base/alloc.h"
#include "base/cpu.h"
#include "pool/pool.h"
#include "pool/runq_path.h"

#include <ringpool/future.h>

#include <string.h>

#define CAPACITY 2U
#define DEPTH 1024U

static struct runq queue;
static struct rp_allocator allocator;

static void nothing(void *arg)
{
    (void)arg;
}

static void queue_make_as(unsigned depth, bool shares)
{
    memset(&queue, 0, sizeof(queue));
    cr_assert_eq(alloc_init(&allocator, NULL), 0);
    cr_assert_eq(runq_init(&queue, &allocator, CAPACITY, depth, shares), 0);
    atomic_store(&queue.limit, CAPACITY + depth);
}

static void queue_make(unsigned depth)
{
    if (cpu_allowed() < 2)
        cr_skip_test("no shares on a single CPU");
    queue_make_as(depth, true);
}

static void queue_end(void)
{
    runq_destroy(&queue);
}

/* Submits tasks numbered from `first` on; how many were accepted. */
static unsigned put(unsigned first, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct entry entry = {.fn = nothing, .arg = (void *)(uintptr_t)(first + i), .plain = ENTRY_PLAIN};
        uint64_t position;
        if (runq_claim(&queue, CLASS_NORMAL, 1, true, &position) != 1)
            return i;
        runq_publish(&queue, CLASS_NORMAL, position, &entry, true);
    }
    return n;
}

/* The number of the next task, whose predecessor ends by that if `ends`; UINT_MAX: none. */
static unsigned take(struct taker *taker, bool ends)
{
    struct entry entry;
    bool owed = ends;

    if (!runq_take(&queue, taker, &owed, &entry))
        return UINT_MAX;
    cr_assert_not(owed);
    return (unsigned)(uintptr_t)entry.arg;
}

static unsigned rob(void)
{
    struct entry entry;

    return share_rob(runq_normal(&queue), 0, &entry) == 1 ? (unsigned)(uintptr_t)entry.arg : UINT_MAX;
}

Test(share, takes_so_many_at_once_and_begins_them_in_order)
{
    struct taker taker = {.share_most = SHARE_MOST};

    queue_make(DEPTH);
    cr_assert_eq(put(0, 400), 400);
    for (unsigned i = 0; i < SHARE_MOST; i++)
        cr_assert_eq(take(&taker, i > 0), i);
    cr_assert_eq(load_relaxed(&runq_normal(&queue)->head) & POSITION_MASK, SHARE_MOST);
    cr_assert_eq(head_done(load_relaxed(&runq_normal(&queue)->head)), 0, "its ends are not counted at the head");
    cr_assert_eq(runq_done(&queue), SHARE_MOST - 1);
    for (unsigned i = SHARE_MOST; i < 400; i++)
        cr_assert_eq(take(&taker, true), i);
    cr_assert_eq(take(&taker, false), UINT_MAX);
    runq_end(&queue);
    cr_assert_eq(runq_done(&queue), 400);
    cr_assert_eq(runq_flight(&queue), 0);
    queue_end();
}

static void leaves(unsigned nshares, unsigned depth)
{
    struct taker taker = {.share_most = SHARE_MOST};

    queue_make(DEPTH);
    runq_normal(&queue)->nshares = nshares; /* as on so many CPUs; it takes the first one that nobody holds */
    cr_assert_eq(put(0, SHARE_MOST + depth - 1), SHARE_MOST + depth - 1);
    cr_assert_eq(take(&taker, false), 0);
    cr_assert_eq(load_relaxed(&runq_normal(&queue)->head) & POSITION_MASK, 1);
    cr_assert_eq(put(SHARE_MOST + depth - 1, 2), 2);
    cr_assert_eq(take(&taker, true), 1);
    cr_assert_eq(load_relaxed(&runq_normal(&queue)->head) & POSITION_MASK, 1 + SHARE_MOST);
    queue_end();
}

Test(share, leaves_as_much_to_each_of_eight_others)
{
    leaves(2, SHARE_MOST);
    leaves(4, 3 * SHARE_MOST);
    leaves(9, 8 * SHARE_MOST);
    leaves(64, 8 * SHARE_MOST);
}

Test(share, what_is_left_counts_as_queued)
{
    struct taker taker = {.share_most = 8};

    queue_make(DEPTH);
    cr_assert_eq(put(0, 200), 200);
    cr_assert_eq(take(&taker, false), 0);
    cr_assert_eq(runq_queued(&queue), 199);
    struct runq_counts counts = runq_count(&queue);
    cr_assert_eq(counts.queued, 199);
    cr_assert_eq(counts.taken, 1);
    cr_assert_eq(counts.done, 0);
    cr_assert_eq(take(&taker, true), 1);
    counts = runq_count(&queue);
    cr_assert_eq(counts.queued, 198);
    cr_assert_eq(counts.taken, 1);
    cr_assert_eq(counts.done, 1);
    cr_assert_eq(runq_flight(&queue), 199);
    queue_end();
}

Test(share, thieves_take_the_last_ones_and_its_holder_the_rest)
{
    struct taker taker = {.share_most = 8};

    queue_make(DEPTH);
    cr_assert_eq(put(0, 200), 200);
    cr_assert_eq(rob(), UINT_MAX, "nothing was put aside yet");
    cr_assert_eq(take(&taker, false), 0);
    cr_assert_eq(rob(), 7);
    cr_assert_eq(rob(), 6);
    for (unsigned i = 1; i < 6; i++)
        cr_assert_eq(take(&taker, true), i);
    cr_assert_eq(rob(), UINT_MAX);
    cr_assert_eq(take(&taker, true), 8);
    cr_assert_eq(runq_done(&queue), 6);
    queue_end();
}

Test(share, a_holder_whose_tasks_were_all_stolen_counts_its_last_end)
{
    struct taker taker = {.share_most = 3};

    queue_make(DEPTH);
    cr_assert_eq(put(0, 200), 200);
    cr_assert_eq(take(&taker, false), 0);
    cr_assert_eq(rob(), 2);
    cr_assert_eq(rob(), 1);
    cr_assert_eq(take(&taker, true), 3);
    cr_assert_eq(runq_done(&queue), 1);
    queue_end();
}

static void refuse(void *arg, int reason)
{
    (void)arg;
    (void)reason;
}

Test(share, a_task_keeps_all_that_belongs_to_it)
{
    struct taker taker = {.share_most = 4};
    struct entry out;
    bool owed = false;

    queue_make(DEPTH);
    for (unsigned i = 0; i < 200; i++) {
        struct entry entry = {.fn = nothing,
                              .arg = (void *)(uintptr_t)i,
                              .dropped = refuse,
                              .label = "labelled",
                              .deadline = 1000 + i,
                              .timeout = 2000 + i,
                              .cpu = (int)i};
        uint64_t position;
        cr_assert_eq(runq_claim(&queue, CLASS_NORMAL, 1, true, &position), 1);
        runq_publish(&queue, CLASS_NORMAL, position, &entry, true);
    }
    cr_assert_eq(take(&taker, false), 0);
    cr_assert_eq(share_rob(runq_normal(&queue), 0, &out), 1);
    cr_assert(out.dropped == refuse && out.deadline == 1003 && out.timeout == 2003 && out.cpu == 3);
    cr_assert_str_eq(out.label, "labelled");
    cr_assert(runq_take(&queue, &taker, &owed, &out));
    cr_assert(out.dropped == refuse && out.deadline == 1001 && out.timeout == 2001 && out.cpu == 1);
    queue_end();
}

Test(share, one_that_is_let_go_is_emptied_by_others_and_held_again)
{
    struct taker first = {.share_most = 4}, second = {.share_most = 4};

    queue_make(DEPTH);
    cr_assert_eq(put(0, 300), 300);
    cr_assert_eq(take(&first, false), 0);
    const struct share *share = first.share;
    cr_assert_not_null(share);
    share_leave(&first);
    cr_assert_null(first.share);
    cr_assert(runq_ready(&queue));
    cr_assert_eq(take(&second, false), 4);
    cr_assert(second.share != share, "something is left in it");
    share_leave(&second);
    for (unsigned i = 0; i < 6; i++)
        cr_assert_neq(rob(), UINT_MAX);
    cr_assert_eq(rob(), UINT_MAX);
    cr_assert_eq(take(&second, false), 8);
    cr_assert(second.share == share);
    queue_end();
}

Test(share, who_gets_none_takes_one_at_a_time)
{
    struct taker taker[SHARES_MOST + 1];
    unsigned n = 0;

    queue_make(DEPTH);
    cr_assert_eq(put(0, 900), 900);
    memset(taker, 0, sizeof(taker));
    for (unsigned i = 0; i <= runq_normal(&queue)->nshares; i++) {
        taker[i].share_most = SHARE_MOST;
        cr_assert_eq(take(&taker[i], false), i * SHARE_MOST);
        n += taker[i].share != NULL;
    }
    cr_assert_eq(n, runq_normal(&queue)->nshares);
    cr_assert_eq(load_relaxed(&runq_normal(&queue)->head) & POSITION_MASK, n * SHARE_MOST + 1);
    queue_end();
}

/* A blocked holder's tasks stay behind while another worker goes on. */
Test(share, no_slot_is_missing_however_long_tasks_wait_behind_one)
{
    struct taker blocked = {.share_most = SHARE_MOST}, other = {.share_most = 1};
    uint64_t next = 0, ended = 0, stolen = 0;
    struct entry entry;

    queue_make(DEPTH);
    next += put(0, DEPTH + CAPACITY);
    cr_assert_eq(next, DEPTH + CAPACITY);
    cr_assert_eq(take(&blocked, false), 0);
    for (unsigned i = 0; i < 20 * DEPTH; i++) {
        bool owed = false;
        if (!runq_take(&queue, &other, &owed, &entry)) {
            cr_assert(share_lags(&queue, load_seq(&runq_normal(&queue)->head)), "none at the head after %u", i);
            cr_assert(share_steal(runq_normal(&queue), &entry));
            stolen++;
        }
        runq_end(&queue);
        ended++;
        cr_assert_eq(put((unsigned)next, 1), 1, "no room though one has ended, after %u", i);
        next++;
    }
    cr_assert_eq(stolen, SHARE_MOST - 1);
    cr_assert_eq(runq_done(&queue), ended & FLIGHT_MASK);
    queue_end();
}

/* The limit grows while a task lags in a share: its slot is among those that a batch would be given. */
Test(share, a_batch_is_given_no_slot_that_is_kept)
{
    struct taker blocked = {.share_most = 2}, other = {.share_most = 1};
    struct entry entry = {.fn = nothing, .plain = ENTRY_PLAIN};
    uint64_t position = 0;
    int claimed;

    queue_make(DEPTH);
    put(0, DEPTH + CAPACITY);
    cr_assert_eq(take(&blocked, false), 0);
    while (take(&other, false) != UINT_MAX) {
        runq_end(&queue);
        put(0, 1);
    }
    atomic_store(&queue.limit, CAPACITY + DEPTH + 200);
    while ((claimed = runq_claim(&queue, CLASS_NORMAL, 8, true, &position)) > 0)
        for (int i = 0; i < claimed; i++, position++) {
            cr_assert_eq(load_relaxed(&slot_at(runq_normal(&queue), position)->sequence), position & POSITION_MASK);
            runq_publish(&queue, CLASS_NORMAL, position, &entry, i + 1 == claimed);
        }
    cr_assert_eq(claimed, -EBUSY, "%d", claimed);
    cr_assert_leq(position, queue.size + 1, "beyond the slot of the first task that is left");
    cr_assert_gt(position + 8, queue.size + 1, "not as far as that");
    queue_end();
}

/* A share at an odd position, and then one task at a time up to the next look. */
Test(share, nobody_comes_further_ahead_of_a_task_than_there_are_slots_to_spare)
{
    for (unsigned odd = 0; odd < SHARE_MOST; odd++) {
        struct taker blocked = {.share_most = 8}, others = {.share_most = SHARE_MOST}, other = {.share_most = 1};

        queue_make(DEPTH);
        uint64_t spare = queue.size - CAPACITY - DEPTH, next = put(0, DEPTH);
        cr_assert_eq(take(&blocked, false), 0);
        for (unsigned i = 0; i < odd; i++)
            cr_assert_neq(take(&other, false), UINT_MAX);
        for (struct taker *taker = &others; taker; taker = taker == &others ? &other : NULL)
            while (take(taker, false) != UINT_MAX) {
                runq_end(&queue);
                next += put((unsigned)next, 1);
            }
        uint64_t head = load_relaxed(&runq_normal(&queue)->head) & POSITION_MASK;
        cr_assert_leq(head - 1, spare, "%u: %u ahead, %u to spare", odd, (unsigned)head - 1, (unsigned)spare);
        cr_assert_gt(head + 3 * SHARE_MOST, spare, "it stands still too early");
        queue_end();
    }
}

Test(share, a_ring_without_slots_to_spare_has_none)
{
    struct taker taker = {.share_most = SHARE_MOST};

    queue_make(DEPTH);
    atomic_store(&queue.limit, (uint32_t)queue.size - RING_SLACK + 1);
    cr_assert_eq(put(0, 400), 400);
    cr_assert_eq(take(&taker, false), 0);
    cr_assert_eq(load_relaxed(&runq_normal(&queue)->head) & POSITION_MASK, 1);
    cr_assert_null(taker.share);
    queue_end();
}

/* Positions count modulo 2^40, in a share modulo 2^32, and the count of what has ended modulo 2^23. */
static void begin_at(uint64_t position)
{
    struct ring *ring = runq_normal(&queue);

    atomic_store(&ring->head, (position & POSITION_MASK) | position << POSITION_BITS);
    atomic_store(&ring->halves, position >> (POSITION_BITS - 1));
    atomic_store(&queue.tail, position & POSITION_MASK);
    atomic_store(&queue.done_seen, (uint32_t)position & FLIGHT_MASK);
    for (uint64_t i = 0; i < queue.size; i++)
        atomic_store(&ring->slots[(position + i) & ring->mask].sequence, (position + i) & POSITION_MASK);
}

Test(share, counts_and_positions_wrap)
{
    static const uint64_t wraps[] = {UINT64_C(1) << 23, UINT64_C(1) << 32, UINT64_C(1) << 39, UINT64_C(1) << 40};

    for (unsigned i = 0; i < sizeof(wraps) / sizeof(wraps[0]); i++) {
        struct taker taker = {.share_most = SHARE_MOST};
        uint64_t start = wraps[i] - 100;

        queue_make(DEPTH);
        begin_at(start);
        cr_assert_eq(put(0, 600), 600);
        cr_assert_eq(take(&taker, false), 0);
        unsigned stolen = rob();
        cr_assert_eq(stolen, SHARE_MOST - 1);
        runq_end(&queue);
        for (unsigned k = 1; k < 600; k++)
            if (k != stolen)
                cr_assert_eq(take(&taker, true), k);
        runq_end(&queue);
        cr_assert_eq(runq_flight(&queue), 0);
        cr_assert_eq(runq_count(&queue).done, start + 600);
        queue_end();
    }
}

/* --- how many at once ------------------------------------------------------------------------------------------- */

/*
 * As after 64 tasks that took so long each, the head going on by `step` from one to the next. Again if it was held up
 * so that they seem to have taken longer.
 */
static void learn_steps(struct taker *taker, int64_t each, unsigned step)
{
    const struct taker before = *taker;
    int64_t began;

    do {
        *taker = before;
        began = rp_now();
        taker->timed_taken = taker->taken;
        taker->timed_last = taker->last;
        taker->taken += 64;
        taker->last = (taker->last + (uint64_t)64 * step) & POSITION_MASK;
        taker->timed_at = began - 64 * each;
        taker_learn(&queue, taker);
    } while (taker->timed_at - began > 5000);
}

static void learn(struct taker *taker, int64_t each)
{
    learn_steps(taker, each, 1);
}

Test(share, how_many_are_taken_at_once_follows_from_how_long_they_run)
{
    struct taker taker = {.share_most = SHARE_FIRST};

    queue_make(DEPTH);
    taker_learn(&queue, &taker);
    cr_assert_eq(taker.share_most, SHARE_FIRST, "of one look nothing follows");
    learn(&taker, 400);
    cr_assert_eq(taker.share_most, SHARE_MOST);
    cr_assert_not(taker.brief);
    learn(&taker, 100000);
    cr_assert_leq(taker.share_most, 1);
    learn(&taker, 4000);
    cr_assert(taker.share_most >= 2 && taker.share_most <= 4);
    learn(&taker, 0);
    cr_assert_eq(taker.share_most, 1, "brief ones one by one");
    cr_assert(taker.brief);
    taker.timed_at = 0;
    taker_learn(&queue, &taker);
    cr_assert(taker.brief, "a time without work tells nothing");
    queue_end();
}

Test(share, where_the_next_task_will_be_follows_from_how_the_head_went_on)
{
    struct taker taker = {.share_most = 1, .last = POSITION_MASK - 1000};

    queue_make_as(DEPTH, false);
    taker_learn(&queue, &taker);
    learn_steps(&taker, 500, 2);
    cr_assert_eq(taker.stride, 0, "once may be chance");
    learn_steps(&taker, 500, 2);
    cr_assert_eq(taker.stride, 2);
    learn_steps(&taker, 500, 7);
    cr_assert_eq(taker.stride, 2, "as when one of them is off the CPU");
    learn_steps(&taker, 500, 7);
    cr_assert_eq(taker.stride, 7, "also where positions wrap");
    learn_steps(&taker, 500, 1000);
    learn_steps(&taker, 500, 1000);
    cr_assert_eq(taker.stride, 0, "of so many it cannot be told which comes next");
    learn_steps(&taker, 500, 2);
    learn_steps(&taker, 500, 2);
    cr_assert_eq(taker.stride, 2);
    learn_steps(&taker, 20, 2);
    cr_assert_eq(taker.stride, 0, "of short ones the next is taken before its line is there");
    learn_steps(&taker, 500, 1);
    learn_steps(&taker, 500, 1);
    cr_assert_eq(taker.stride, 0, "who is alone has the lines");
    atomic_store(&queue.limit, 4);
    learn_steps(&taker, 500, 2);
    learn_steps(&taker, 500, 2);
    cr_assert_eq(taker.stride, 0, "where hardly any wait the submitter is about to write there");
    queue_end();
}

/* --- busy workers look ------------------------------------------------------------------------------------------ */

Test(share, who_is_busy_steals_only_from_one_that_has_rested_for_long)
{
    struct taker taker = {.share_most = 4};
    struct ring *ring;
    struct entry entry;
    int64_t now = 1000000;

    queue_make(DEPTH);
    ring = runq_normal(&queue);
    cr_assert_eq(put(0, 300), 300);
    cr_assert_eq(share_rob(ring, now, &entry), 0);
    cr_assert_eq(take(&taker, false), 0);
    cr_assert_eq(share_rob(ring, now, &entry), -EAGAIN, "seen for the first time");
    cr_assert_eq(share_rob(ring, now + SHARE_LOOK_NS - 1, &entry), -EAGAIN);
    cr_assert_eq(take(&taker, true), 1);
    cr_assert_eq(share_rob(ring, now + SHARE_LOOK_NS, &entry), -EAGAIN, "it has moved");
    cr_assert_eq(share_rob(ring, now + 2 * SHARE_LOOK_NS, &entry), 1);
    cr_assert_eq((uintptr_t)entry.arg, 3);
    cr_assert_eq(share_rob(ring, now + 2 * SHARE_LOOK_NS, &entry), 1, "the rest of it at once");
    cr_assert_eq((uintptr_t)entry.arg, 2);
    queue_end();
}

/* --- threads ---------------------------------------------------------------------------------------------------- */

#define ROUNDS_TASKS 200000U
#define TAKERS 3

struct hands {
    pthread_t thread;
    unsigned seed;
    bool thief;
};

static _Atomic uint32_t met[ROUNDS_TASKS];
static _Atomic uint32_t over;

static void meet(const struct entry *entry)
{
    atomic_fetch_add(&met[(uintptr_t)entry->arg], 1);
}

static void *take_all(void *arg)
{
    struct hands *me = arg;
    struct taker taker = {0};
    bool owed = false;
    struct entry entry;

    while (!atomic_load(&over) || !runq_drained(&queue)) {
        taker.share_most = 1 + (unsigned)rand_r(&me->seed) % SHARE_MOST;
        if (me->thief ? share_steal(runq_normal(&queue), &entry) : runq_take(&queue, &taker, &owed, &entry)) {
            if (owed)
                runq_end(&queue);
            meet(&entry);
            owed = true;
            if (me->thief) {
                runq_end(&queue);
                owed = false;
            }
            if (rand_r(&me->seed) % 512 == 0)
                share_leave(&taker);
        } else {
            if (owed)
                runq_end(&queue);
            owed = false;
            if (!me->thief && share_steal(runq_normal(&queue), &entry)) {
                meet(&entry);
                runq_end(&queue);
            }
            sched_yield();
        }
    }
    if (owed)
        runq_end(&queue);
    share_leave(&taker);
    return NULL;
}

Test(share, each_task_is_met_once_by_holders_and_thieves)
{
    struct hands hands[TAKERS + 2];
    unsigned seed = seed_of("share");

    queue_make(DEPTH);
    for (unsigned i = 0; i < TAKERS + 2; i++) {
        hands[i] = (struct hands){.seed = seed + i, .thief = i >= TAKERS};
        cr_assert_eq(pthread_create(&hands[i].thread, NULL, take_all, &hands[i]), 0);
    }
    for (unsigned sent = 0; sent < ROUNDS_TASKS;) {
        sent += put(sent, ROUNDS_TASKS - sent);
        sched_yield();
    }
    atomic_store(&over, 1);
    for (unsigned i = 0; i < TAKERS + 2; i++)
        pthread_join(hands[i].thread, NULL);
    for (unsigned i = 0; i < ROUNDS_TASKS; i++)
        cr_assert_eq(met[i], 1, "task %u was met %u times", i, met[i]);
    cr_assert_eq(runq_flight(&queue), 0);
    cr_assert_eq(runq_count(&queue).done, ROUNDS_TASKS);
    queue_end();
}

/* --- in a pool -------------------------------------------------------------------------------------------------- */

#define PIECES 2100U

static struct rp_pool_options options(bool unordered)
{
    return (struct rp_pool_options){.queue_depth = PIECES, .prealloc = true, .no_purge = true, .unordered = unordered};
}

static const struct runq *runq_of(const struct rp_pool *pool)
{
    return &((const struct pool *)pool->handle.core)->runq;
}

/* As long as those that are taken several at a time, where nothing slows this machine down. */
static void piece(void *arg)
{
    int64_t until = rp_now() + 600;

    (void)arg;
    while (rp_now() < until)
        ;
}

static void counted_piece(void *count)
{
    piece(NULL);
    atomic_fetch_add((_Atomic uint32_t *)count, 1);
}

Test(share, a_pool_has_none_unless_it_may_start_tasks_in_any_order)
{
    struct rp_pool_options o = options(false);
    struct rp_pool *pool = pool_of(2, &o);

    cr_assert_eq(runq_normal(runq_of(pool))->nshares, 0);
    for (unsigned i = 0; i < PIECES; i++)
        cr_assert_eq(rp_pool_submit(pool, piece, NULL), 0);
    ASSERT_EVENTUALLY(nothing_in_flight(pool));
    finish(pool);
    o.unordered = true;
    pool = pool_of(2, &o);
    cr_assert_eq(runq_normal(runq_of(pool))->nshares, cpu_allowed() < 2 ? 0 : cpu_allowed() < 16 ? cpu_allowed() : 16);
    finish(pool);
}

/* Whatever it was put aside with: of thousands of pieces one blocks somewhere, and all others end. */
Test(share, one_that_blocks_holds_up_no_other)
{
    struct rp_pool_options o = options(true);
    unsigned seed = seed_of("one_that_blocks_holds_up_no_other");
    struct rp_pool *pool = pool_of(2, &o);

    for (unsigned round = 1; round <= 20; round++) {
        struct gate gate = GATE_SHUT;
        unsigned at = 500 + (unsigned)rand_r(&seed) % 1000;
        for (unsigned i = 0; i < PIECES; i++)
            cr_assert_eq(rp_pool_submit(pool, i == at ? gate_hold : piece, &gate), 0);
        ASSERT_EVENTUALLY(snapshot_of(pool).completed == (uint64_t)round * PIECES - 1);
        cr_assert_eq(gate.inside, 1);
        cr_assert_eq(rp_pool_waiting(pool), 0);
        gate_open(&gate);
        ASSERT_EVENTUALLY(nothing_in_flight(pool));
    }
    finish(pool);
}

static int immediately(void *arg, void **value)
{
    (void)arg;
    (void)value;
    return 0;
}

/* Whoever runs a future itself takes what is at the head in its place, and so past what waits in a share. */
Test(share, futures_that_run_out_of_turn_take_no_slot_from_others)
{
    struct rp_pool_options o = options(true);
    struct rp_pool *pool = pool_of(1, &o);
    struct gate gate = GATE_SHUT;
    struct rp_task task = {.overload = RP_OVERLOAD_FAIL};

    for (unsigned i = 0; i < PIECES; i++)
        cr_assert_eq(rp_pool_submit(pool, i == PIECES - 1000 ? gate_hold : piece, &gate), 0);
    ASSERT_EVENTUALLY(gate.inside == 1);
    for (unsigned i = 0; i < 3 * PIECES; i++) {
        struct rp_future *future;
        int rc = rp_pool_submit_future_task(pool, immediately, &task, &future);
        cr_assert_eq(rc, 0, "no room for future %u: %d", i, rc);
        cr_assert_eq(rp_future_run(future), 0);
        rp_future_destroy(future);
    }
    gate_open(&gate);
    ASSERT_EVENTUALLY(nothing_in_flight(pool));
    finish(pool);
}

struct busy {
    struct rp_pool *pool;
    _Atomic uint32_t stop;
};

/*
 * There is always one of it in the queue, so that no worker ever finds that empty; and so slow that the head of the
 * ring does not come around to what waits in a share while anybody waits for that.
 */
static void again(void *arg)
{
    struct busy *busy = arg;

    nanosleep(&(struct timespec){.tv_nsec = 100 * MS}, NULL);
    if (!atomic_load(&busy->stop))
        rp_pool_submit(busy->pool, again, busy);
}

Test(share, nor_where_the_other_worker_is_never_idle)
{
    struct rp_pool_options o = options(true);
    unsigned seed = seed_of("nor_where_the_other_worker_is_never_idle");
    struct busy busy = {.pool = pool_of(2, &o)};
    _Atomic uint32_t ran = 0;

    for (unsigned round = 0; round < 3; round++) {
        struct gate gate = GATE_SHUT;
        unsigned at = 500 + (unsigned)rand_r(&seed) % 1000;
        atomic_store(&busy.stop, 0);
        atomic_store(&ran, 0);
        for (unsigned i = 0; i < PIECES - 10; i++)
            cr_assert_eq(i == at ? rp_pool_submit(busy.pool, gate_hold, &gate)
                                 : rp_pool_submit(busy.pool, counted_piece, &ran),
                         0);
        for (unsigned i = 0; i < 3; i++)
            cr_assert_eq(rp_pool_submit(busy.pool, again, &busy), 0);
        ASSERT_EVENTUALLY(atomic_load(&ran) == PIECES - 11);
        cr_assert_eq(gate.inside, 1);
        atomic_store(&busy.stop, 1);
        gate_open(&gate);
        ASSERT_EVENTUALLY(nothing_in_flight(busy.pool));
    }
    finish(busy.pool);
}

/* The holder ends its thread, or is one too many, with something put aside. */
static void exits(void *arg)
{
    (void)arg;
    pthread_exit(NULL);
}

Test(share, a_worker_that_goes_leaves_nothing_behind)
{
    struct rp_pool_options o = options(true);
    unsigned seed = seed_of("a_worker_that_goes_leaves_nothing_behind");

    o.log_level = RP_LOG_NONE;
    struct rp_pool *pool = pool_of(2, &o);
    uint64_t submitted = 0, panicked = 0;
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < PIECES; i++, submitted++) {
            bool goes = !UNDER_TSAN && (unsigned)rand_r(&seed) % 500 == 0;
            panicked += goes;
            cr_assert_eq(rp_pool_submit(pool, goes ? exits : piece, NULL), 0);
            if ((unsigned)rand_r(&seed) % 700 == 0)
                cr_assert_geq(rp_pool_tune(pool, 1 + (unsigned)rand_r(&seed) % 3), 0);
        }
        ASSERT_EVENTUALLY(nothing_in_flight(pool));
    }
    struct rp_pool_snapshot s = snapshot_of(pool);
    cr_assert_eq(s.completed, submitted - panicked);
    cr_assert_eq(s.panicked, panicked);
    finish(pool);
}

Test(share, a_release_drops_what_is_put_aside_like_what_is_queued)
{
    struct rp_pool_options o = options(true);

    o.release_policy = RP_RELEASE_DROP;
    for (unsigned round = 0; round < 20; round++) {
        struct rp_pool *pool = pool_of(2, &o);
        for (unsigned i = 0; i < PIECES; i++)
            cr_assert_eq(rp_pool_submit(pool, piece, NULL), 0);
        cr_assert_eq(rp_pool_release_until(pool, 0, NULL), 0);
        struct rp_pool_snapshot s = snapshot_of(pool);
        cr_assert_eq(s.completed + s.dropped, PIECES);
        cr_assert_eq(s.busy + s.waiting, 0);
        finish(pool);
    }
}
