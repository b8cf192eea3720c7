/*
 * The idle stack and the searching count. The protocol, and why it strands no task, is in idle.h.
 */
#include "pool/idle.h"

#include "base/futex.h"
#include "base/rcu.h"
#include "pool/pool.h"

#define CHAINS_MOST 16U
#define FOLLOWS_NS 100000 /* a time slice is longer, a wake-up of a sleeping CPU shorter */

static inline uint64_t retag(uint64_t word, unsigned top, unsigned searching)
{
    return ((word & ~(IDLE_TAG - 1)) + IDLE_TAG) | ((uint64_t)searching << 20) | top;
}

/* Ends the sleep of a worker that the caller has taken off the stack. */
static void park_call(struct worker *worker, uint32_t how)
{
    bool crowded = worker->crowded; /* before it may leave, and another one begin in its descriptor */

    if (exchange_acq_rel(&worker->park, how) != PARK_SLEEPING)
        return;
    if (crowded) /* the descriptor is not freed before its thread was joined */
        futex_wake_shared(&worker->park, 1);
    else
        futex_wake(&worker->park, 1);
}

static bool alive_claim(struct pool *pool)
{
    uint32_t alive = load_seq(&pool->alive);

    while (alive < load_seq(&pool->target))
        if (cas_seq(&pool->alive, &alive, alive + 1))
            return true;
    return false;
}

/* Calls the worker that is on top of the stack by this word. In a section. false: the word is stale. */
static bool call_top(struct pool *pool, uint64_t word)
{
    struct worker *worker = worker_at(pool, idle_top(word) - 1);

    if (!worker)
        return false;                             /* that worker has left and was freed */
    unsigned below = load_relaxed(&worker->next); /* validated by the tag */
    if (!cas_seq(&pool->idle.word, &word, retag(word, below, idle_searching(word) + 1)))
        return false;
    park_call(worker, PARK_NOTIFIED);
    return true;
}

/* idle_wake_one, where fewer than `most` search. */
static bool wake_one(struct pool *pool, unsigned most)
{
    for (;;) {
        uint64_t word = load_seq(&pool->idle.word); /* P2, and again whenever the word has changed */

        if (idle_searching(word) >= most)
            return false;
        if (idle_top(word)) {
            if (call_top(pool, word))
                return false;
            continue;
        }
        if (!idle_may_grow(pool))
            return false; /* enough workers will look */
        if (load_seq(&pool->spawn_failing))
            return false; /* the retry timer will look */
        if (!cas_seq(&pool->idle.word, &word, word + IDLE_SEARCHER))
            continue;
        if (alive_claim(pool))
            return true;
        word = sub_seq(&pool->idle.word, IDLE_SEARCHER); /* no more may live: leave the role as a searcher does */
        if (idle_searching(word) != 1 || !runq_ready(&pool->runq))
            return false;
    }
}

bool idle_wake_one(struct pool *pool)
{
    return wake_one(pool, 1);
}

static void call_one(struct pool *pool, unsigned most)
{
    rcu_enter();
    bool owed = wake_one(pool, most);
    rcu_exit();
    if (owed)
        worker_spawn(pool, true);
}

void idle_call_one(struct pool *pool)
{
    call_one(pool, 1);
}

bool idle_call_beside(struct pool *pool)
{
    uint64_t word = load_relaxed(&pool->idle.word); /* validated by the CAS */
    unsigned searching = idle_searching(word);

    if (!idle_top(word) || !searching || searching >= pool->cpus)
        return false;
    rcu_enter();
    (void)call_top(pool, word); /* in vain: something has moved */
    rcu_exit();
    return true;
}

bool idle_search_begin(struct pool *pool, unsigned most)
{
    uint64_t word = load_seq(&pool->idle.word);

    while (idle_searching(word) < most)
        if (cas_seq(&pool->idle.word, &word, word + IDLE_SEARCHER))
            return true;
    return false;
}

void idle_search_end(struct pool *pool)
{
    uint64_t word = sub_seq(&pool->idle.word, IDLE_SEARCHER);

    if (idle_searching(word) == 1 && runq_ready(&pool->runq))
        idle_call_one(pool); /* the wake chain */
}

/* How many chains may run from here on. */
static unsigned chains_learn(struct pool *pool, uint64_t position, int64_t now)
{
    struct idle *idle = &pool->idle;
    bool soon = now - load_relaxed(&idle->found_at) < FOLLOWS_NS; /* hints, as all of this */
    uint64_t gone = position - load_relaxed(&idle->found); /* of several that were called they come in any order */
    unsigned more = load_relaxed(&idle->chains);
    unsigned most = pool->cpus == 1 ? 1 : pool->cpus < CHAINS_MOST / 2 ? 2 * pool->cpus : CHAINS_MOST;

    more = !soon || gone + most > 2 * (uint64_t)most ? 0 : more + 1 < most ? more + 1 : more;
    store_relaxed(&idle->found, position);
    store_relaxed(&idle->found_at, now);
    store_relaxed(&idle->chains, more);
    return 1 + more;
}

void idle_called_found(struct pool *pool, uint64_t position, int64_t now)
{
    unsigned chains = chains_learn(pool, position, now);
    unsigned searching = idle_searching(sub_seq(&pool->idle.word, IDLE_SEARCHER)) - 1;

    for (; searching < chains && runq_ready(&pool->runq); searching++)
        call_one(pool, chains);
}

/* Until it was called: how. */
static uint32_t park_sleep(struct worker *worker)
{
    uint32_t park;

    while ((park = load_acquire(&worker->park)) == PARK_SLEEPING)
        if (worker->crowded)
            futex_wait_shared(&worker->park, PARK_SLEEPING);
        else
            futex_wait(&worker->park, PARK_SLEEPING, 0);
    return park;
}

uint32_t idle_park(struct pool *pool, struct worker *worker, bool searching, int64_t now)
{
    uint64_t word = load_relaxed(&pool->idle.word); /* validated by the CAS */

    store_relaxed(&worker->park, PARK_PARKING); /* ordered by the push */
    store_relaxed(&worker->parked_at, now);
    do {
        store_relaxed(&worker->next, idle_top(word));
    } while (!cas_seq(&pool->idle.word, &word,
                      retag(word, worker->number + 1, idle_searching(word) - (searching ? 1 : 0)))); /* W1 */
    if (runq_ready(&pool->runq))                                                                     /* W2 */
        idle_call_one(pool); /* W3: may well call the caller itself */
    pool_dismiss_if_drained(pool);
    idle_dismiss_surplus(pool); /* a shrinking tune may not have found us on the stack */
    tick_arm(pool);

    uint32_t park = PARK_PARKING;
    if (cas_acq_rel(&worker->park, &park, PARK_SLEEPING)) /* W4 */
        park = park_sleep(worker);
    else
        park = load_acquire(&worker->park);
    store_relaxed(&worker->park, PARK_AWAKE); /* nobody else writes it until the next push */
    return park;
}

/* --- taking the whole stack ------------------------------------------------------------------------------------- */

static unsigned take_all(struct pool *pool, unsigned searchers)
{
    uint64_t word = load_relaxed(&pool->idle.word); /* validated by the CAS */

    while (!cas_seq(&pool->idle.word, &word, retag(word, 0, idle_searching(word) + searchers)))
        ;
    return idle_top(word);
}

/* Whoever parks stays in the table until it was called, so a private list needs no RCU. */
static struct worker *below(const struct pool *pool, const struct worker *worker)
{
    unsigned next = load_relaxed(&worker->next); /* the list is private */

    return next ? worker_at(pool, next - 1) : NULL;
}

/* Tells a private list how to leave and returns its length. */
static unsigned dismiss_list(struct pool *pool, struct worker *worker, uint32_t how)
{
    unsigned n = 0;

    while (worker) {
        struct worker *next = below(pool, worker);
        park_call(worker, how);
        worker = next;
        n++;
    }
    return n;
}

void idle_dismiss_all(struct pool *pool)
{
    unsigned top = take_all(pool, 0);

    if (top)
        dismiss_list(pool, worker_at(pool, top - 1), PARK_DISMISSED);
}

/* Puts a private list back onto an empty stack; those that parked meanwhile parked later and go on top of it. */
static void put_back(struct pool *pool, struct worker *first)
{
    uint64_t word = load_relaxed(&pool->idle.word); /* validated by the CAS */

    for (;;) {
        if (!idle_top(word)) {
            if (cas_seq(&pool->idle.word, &word, retag(word, first->number + 1, idle_searching(word))))
                return;
            continue;
        }
        unsigned top = take_all(pool, 0);
        if (top) {
            struct worker *last = worker_at(pool, top - 1);
            struct worker *head = last;
            for (struct worker *next; (next = below(pool, last));)
                last = next;
            store_relaxed(&last->next, first->number + 1); /* the list is private */
            first = head;
        }
        word = load_relaxed(&pool->idle.word);
    }
}

/*
 * Reads the shared stack without taking it: a hint, since it may change under the walk. Whether some worker parked
 * before `before`, and the earliest park time seen. Bounded by the number of workers, as a changing list may loop.
 */
static bool some_parked_before(const struct pool *pool, int64_t before, int64_t *oldest)
{
    bool found = false;

    *oldest = 0;
    rcu_enter();
    unsigned next = idle_top(load_acquire(&pool->idle.word));
    for (unsigned steps = load_relaxed(&pool->alive); next && steps; steps--) {
        struct worker *worker = worker_at(pool, next - 1);
        if (!worker)
            break;
        int64_t at = load_relaxed(&worker->parked_at);
        if (!*oldest || at < *oldest)
            *oldest = at;
        if (at < before) {
            found = true;
            break;
        }
        next = load_relaxed(&worker->next);
    }
    rcu_exit();
    return found;
}

/* Cuts the list behind its fresh part, of which as many expired ones are part as must stay. Returns what was cut. */
static struct worker *cut(const struct pool *pool, struct worker **first, unsigned most, int64_t before,
                          int64_t *oldest)
{
    unsigned fresh = 0, total = 0;
    struct worker *worker = *first;

    /* Park times grow towards the top but for races of two pushes: the first expired one ends the fresh part. */
    for (; worker && load_relaxed(&worker->parked_at) >= before; worker = below(pool, worker))
        fresh++;
    for (total = fresh; worker; worker = below(pool, worker))
        total++;
    unsigned keep = total - fresh > most ? total - most : fresh;
    if (keep == 0) {
        struct worker *all = *first;
        *first = NULL;
        return all;
    }
    worker = *first;
    while (--keep)
        worker = below(pool, worker);
    struct worker *rest = below(pool, worker);
    *oldest = load_relaxed(&worker->parked_at);
    store_relaxed(&worker->next, 0);
    return rest;
}

/* Takes the stack, puts back what is to stay, and tells the rest. */
static unsigned dismiss_some(struct pool *pool, unsigned most, int64_t before, uint32_t how, int64_t *oldest)
{
    rp_lock_acquire(&pool->dismiss_lock); /* one at a time: each counts as a searcher */
    unsigned top = take_all(pool, 1);
    struct worker *kept = top ? worker_at(pool, top - 1) : NULL;
    *oldest = 0;
    struct worker *rest = kept ? cut(pool, &kept, most, before, oldest) : NULL;
    if (kept)
        put_back(pool, kept);
    idle_search_end(pool); /* the look after the put-back */
    rp_lock_release(&pool->dismiss_lock);
    unsigned n = dismiss_list(pool, rest, how);
    pool_dismiss_if_drained(pool); /* a release in between found the stack empty */
    return n;
}

unsigned idle_dismiss_expired(struct pool *pool, unsigned most, int64_t before, int64_t *oldest)
{
    if (!some_parked_before(pool, before, oldest) || most == 0)
        return 0;
    unsigned n = dismiss_some(pool, most, before, PARK_EXPIRED, oldest);
    idle_dismiss_surplus(pool); /* whoever looked for surplus while we held the stack found it empty */
    return n;
}

/*
 * A shrinking tune that finds the stack empty because we hold it leaves the rest to us: it has stored its target before
 * its look, and we look at the target after the put-back.
 */
void idle_dismiss_surplus(struct pool *pool)
{
    uint32_t target;
    int64_t oldest;

    do {
        uint32_t alive = load_seq(&pool->alive);

        target = load_seq(&pool->target);
        if (alive <= target || !idle_top(load_seq(&pool->idle.word)))
            return;
        dismiss_some(pool, alive - target, INT64_MAX, PARK_SURPLUS, &oldest);
    } while (load_seq(&pool->target) < target);
}
