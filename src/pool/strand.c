/*
 * Strands: a table of the keys that have tasks, and one task of the pool, the runner, for each of them.
 *
 * A key's life, all of it under the lock of its shard:
 *
 *    OPENING    the first submitter has put it into the table with his task and asks the pool to take the runner. Others
 *               who come for the key wait, or are refused: until the pool has said yes nobody else is told yes. So a
 *               refusal by the pool concerns one task only, that of the submitter who is still there to hear of it.
 *    OPEN       the runner is queued or runs; tasks are appended, which needs nothing of the pool.
 *    DROPPING   the pool has dropped the runner; tasks are refused.
 *    DONE       no tasks and no runner. It leaves the table at once, unless its opener, who has not returned from the
 *               pool yet, still points to it (`pins`); then whoever comes for the key opens it again.
 *
 * Why tasks of a key do not overlap: a runner exists from the opening to DONE, one at a time; it hands the key on only
 * by giving the pool another runner for it, and touches it no more. Why none is forgotten: DONE is decided under the
 * lock under which tasks are appended.
 *
 * The table is linear hashing (W. Litwin, "Linear Hashing", VLDB 1980) in shards: it grows and shrinks by one bucket at
 * a time, so that no submit pays for a million keys. Rejected: doubling tables (a pause under the lock), liburcu's hash
 * (it resizes on a thread of its own, which must be had, and aborts the process without memory; readers without a lock
 * are of no use here, since every access changes the key). Shards are chosen by the upper bits of the hash, buckets by
 * the lower. Blocks for keys and tasks are of one size, and each shard keeps some that are free.
 *
 * Fairness. While nobody waits for a worker the runner goes on. Else after a burst it submits its successor, which the
 * pool queues behind the others; a pool without a queue lets it wait in line with the other submitters, and stands in
 * for its worker. What the pool does not take now from where nobody can wait (a thread that ends in its task) is
 * submitted again by a timer.
 *
 * The end. Each shard counts its keys and the calls inside of it; CLOSED is a bit of that count, so that entering and
 * closing exclude each other, and the one that brings it to CLOSED and 0 knows that the shard is over. The last shard
 * ends the strand.
 */
#include <ringpool/strand.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/futex.h"
#include "base/rcu.h"
#include "pool/completion.h"
#include "pool/pool.h"

#include <errno.h>
#include <limits.h>

#define SHARDS 32U /* a power of two */
#define SHARD_BITS 5
#define BURST 16U
#define SPARES_MOST 64U
#define BUCKETS_LEAST 8U
#define SEGMENTS 28 /* of buckets: 8, 8, 16, 32 ...; keys beyond only make the chains longer */
#define RETRY_NS INT64_C(1000000)

#define HOLDS_CLOSED (UINT64_C(1) << 63)

enum { OPENING, OPEN, DROPPING, DONE };
enum { ENDED = 1, DEFERRED = 2 };
enum { COMPLETED, DROPPED, PANICKED, FATES };

struct item {
    struct item *next;
    void (*fn)(void *arg);
    void *arg;
    void (*dropped)(void *arg, int reason);
    const char *label;
    int64_t deadline;
    struct rp_cq *cq; /* reserved in it; NULL: none */
    uint64_t user_data;
};

struct key {
    struct key *next; /* in the bucket */
    uint64_t value;
    struct item *first, **end; /* queued, oldest first */
    struct shard *shard;
    struct key *orphan; /* the next one, in the list of orphans */
    unsigned queued;
    uint16_t pins; /* openers that have not returned from the pool */
    uint8_t state;
    uint8_t priority;
    uint32_t epoch; /* openings so far: an opener resolves his own only */
};

union block {
    struct item item;
    struct key key;
    union block *next;
};
_Static_assert(sizeof(union block) == 64, "a key, or a task, is one cache line");

/* Under `lock` all but holds, strand and changed. */
struct shard {
    alignas(CACHE_APART) struct rp_lock lock;
    _Atomic uint32_t changed; /* futex: an OPENING was resolved, or a key has room, while `waiting` */
    _Atomic uint64_t holds;   /* keys, calls inside; HOLDS_CLOSED */
    struct rp_strand *strand; /* constant */
    unsigned waiting;         /* for `changed` */
    unsigned spares, running, keys;
    union block *spare;
    unsigned buckets; /* in use */
    struct key **segment[SEGMENTS];
    uint64_t queued, submitted, ended[FATES];
};

struct rp_strand {
    struct shard shard[SHARDS];

    alignas(CACHE_APART) _Atomic uint64_t queued; /* all shards', where max_queued counts them */
    _Atomic uint32_t room;                        /* futex: one of them has started, while `blocked` */
    _Atomic uint32_t blocked;                     /* submitters that wait for `room` */

    alignas(CACHE_APART) struct rp_pool *pool; /* constant from here */
    unsigned burst, max_queued, max_per_key, generation;
    int overload, release_policy;
    struct rp_allocator allocator;
    struct reactor *reactor;
    struct rp_strand *next, **link; /* under registry_lock */

    _Atomic uint32_t open_shards; /* not over */
    _Atomic uint32_t end;         /* futex: ENDED, DEFERRED */
    _Atomic uint32_t dropping;    /* released, and the policy is to drop */
    _Atomic uint32_t doomed;      /* destroy has been called */
    struct rp_lock orphan_lock;
    struct key *orphans; /* under orphan_lock: runners that the timer submits again */
    struct timer orphan_timer;
};

/* A runner at work, on its stack. */
struct turn {
    struct rp_strand *strand;
    struct key *key;
    struct item *item; /* that runs; NULL: none */
    int fate;          /* of it */
    struct turn *outer;
};
static _Thread_local struct turn *turns;

static void run_key(void *arg);
static void runner_dropped(void *arg, int reason);

static bool inside(const struct rp_strand *strand)
{
    for (const struct turn *turn = turns; turn; turn = turn->outer)
        if (turn->strand == strand)
            return true;
    return false;
}

static inline bool is_foreign(const struct rp_strand *strand)
{
    return strand->generation != fork_generation();
}

/* --- fork: no child finds a shard between two states ------------------------------------------------------------ */

static struct rp_lock registry_lock;
static struct rp_strand *registry;

static void before_fork(void)
{
    rp_lock_acquire(&registry_lock);
    for (struct rp_strand *strand = registry; strand; strand = strand->next)
        for (unsigned i = 0; i < SHARDS; i++)
            rp_lock_acquire(&strand->shard[i].lock);
}

static void after_fork(void)
{
    for (struct rp_strand *strand = registry; strand; strand = strand->next)
        for (unsigned i = 0; i < SHARDS; i++)
            rp_lock_release(&strand->shard[i].lock);
    rp_lock_release(&registry_lock);
}

static const struct fork_hooks hooks = {before_fork, after_fork, after_fork};

/* --- blocks ----------------------------------------------------------------------------------------------------- */

static union block *block_get(struct shard *shard)
{
    union block *block = shard->spare;

    if (!block)
        return alloc_zeroed(&shard->strand->allocator, 1, sizeof(*block));
    shard->spare = block->next;
    shard->spares--;
    return block;
}

static void block_put(struct shard *shard, void *p)
{
    union block *block = p;

    if (shard->spares >= SPARES_MOST) {
        alloc_free(&shard->strand->allocator, block);
        return;
    }
    block->next = shard->spare;
    shard->spare = block;
    shard->spares++;
}

/* --- the table -------------------------------------------------------------------------------------------------- */

/* The finalizer of MurmurHash3 (A. Appleby): keys are often counters or addresses. */
static uint64_t hash_of(uint64_t key)
{
    key = (key ^ key >> 33) * UINT64_C(0xff51afd7ed558ccd);
    key = (key ^ key >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return key ^ key >> 33;
}

static struct shard *shard_of(struct rp_strand *strand, uint64_t key)
{
    return &strand->shard[hash_of(key) >> (64 - SHARD_BITS)];
}

static unsigned highest_power(unsigned n)
{
    return 1U << (31 - __builtin_clz(n));
}

/* Segment 0 holds the first 8 buckets, segment s from 8 << (s - 1) on as many again. */
static unsigned segment_of(unsigned bucket)
{
    return bucket < BUCKETS_LEAST ? 0 : 32U - 3 - (unsigned)__builtin_clz(bucket);
}

static struct key **bucket_at(struct shard *shard, unsigned bucket)
{
    unsigned s = segment_of(bucket);

    return &shard->segment[s][s ? bucket - (BUCKETS_LEAST << (s - 1)) : bucket];
}

/* The bucket of a hash while n are in use: those that were split this round take one bit more. */
static unsigned bucket_of(uint64_t hash, unsigned n)
{
    unsigned power = highest_power(n);
    unsigned bucket = (unsigned)hash & (2 * power - 1);

    return bucket < n ? bucket : bucket & (power - 1);
}

/* Splits one bucket. Without memory the chains stay longer for a while. */
static void table_grow(struct shard *shard)
{
    unsigned new = shard->buckets, s = segment_of(new);

    if (s >= SEGMENTS)
        return;
    if (!shard->segment[s])
        shard->segment[s] = alloc_zeroed(&shard->strand->allocator, BUCKETS_LEAST << (s - 1), sizeof(struct key *));
    if (!shard->segment[s])
        return;
    shard->buckets++;
    struct key **link = bucket_at(shard, new - highest_power(new)), **to = bucket_at(shard, new);
    while (*link) {
        struct key *key = *link;
        if (bucket_of(hash_of(key->value), shard->buckets) != new) {
            link = &key->next;
            continue;
        }
        *link = key->next;
        key->next = *to;
        *to = key;
    }
}

/* Joins the last bucket with the one that it was split from. */
static void table_shrink(struct shard *shard)
{
    unsigned last = --shard->buckets;
    struct key **from = bucket_at(shard, last), **to = bucket_at(shard, last - highest_power(last));

    while (*to)
        to = &(*to)->next;
    *to = *from;
    *from = NULL;
    if (last == highest_power(last)) { /* the first of its segment */
        alloc_free(&shard->strand->allocator, shard->segment[segment_of(last)]);
        shard->segment[segment_of(last)] = NULL;
    }
}

static struct key **table_find(struct shard *shard, uint64_t value)
{
    struct key **link = bucket_at(shard, bucket_of(hash_of(value), shard->buckets));

    while (*link && (*link)->value != value)
        link = &(*link)->next;
    return link;
}

static struct key *table_add(struct shard *shard, uint64_t value)
{
    struct key *key = (struct key *)block_get(shard);

    if (!key)
        return NULL;
    if (++shard->keys > shard->buckets)
        table_grow(shard);
    struct key **bucket = bucket_at(shard, bucket_of(hash_of(value), shard->buckets));
    *key = (struct key){.next = *bucket, .value = value, .shard = shard, .state = DONE};
    key->end = &key->first;
    *bucket = key;
    return key;
}

static void table_remove(struct shard *shard, struct key *key)
{
    struct key **link = table_find(shard, key->value);

    *link = key->next;
    block_put(shard, key);
    shard->keys--;
    for (int i = 0; i < 4 && shard->buckets > BUCKETS_LEAST && shard->keys < shard->buckets / 4; i++)
        table_shrink(shard);
}

/* --- entering and ending ---------------------------------------------------------------------------------------- */

static void strand_free(struct rp_strand *strand)
{
    struct rp_allocator allocator = strand->allocator;

    rp_lock_acquire(&registry_lock);
    *strand->link = strand->next;
    if (strand->next)
        strand->next->link = strand->link;
    rp_lock_release(&registry_lock);
    if (strand->reactor)
        timer_cancel_wait(&strand->orphan_timer);
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &strand->shard[i];
        while (shard->spare) {
            union block *block = shard->spare;
            shard->spare = block->next;
            alloc_free(&allocator, block);
        }
        for (unsigned s = 0; s < SEGMENTS; s++)
            alloc_free(&allocator, shard->segment[s]);
    }
    reactor_put(strand->reactor);
    alloc_free_aligned(&allocator, strand);
}

/* A shard is over; with the last one the strand may be gone. */
static void shard_ended(struct rp_strand *strand)
{
    if (sub_seq(&strand->open_shards, 1) != 1)
        return;
    if (or_seq(&strand->end, ENDED) & DEFERRED)
        strand_free(strand);
    else
        futex_wake(&strand->end, INT_MAX);
}

static int shard_enter(struct shard *shard)
{
    uint64_t holds = load_relaxed(&shard->holds); /* the CAS orders */

    do
        if (holds & HOLDS_CLOSED)
            return -ESHUTDOWN;
    while (!cas_acq_rel(&shard->holds, &holds, holds + 1));
    return 0;
}

/* Gives back a hold, a call's or a key's. The strand may be gone after it. */
static void shard_leave(struct shard *shard)
{
    struct rp_strand *strand = shard->strand;

    if (sub_seq(&shard->holds, 1) == (HOLDS_CLOSED | 1))
        shard_ended(strand);
}

/* --- keys under the lock ---------------------------------------------------------------------------------------- */

/* Tells those that wait for a key of the shard. */
static void shard_changed(struct shard *shard)
{
    if (!shard->waiting)
        return;
    add_seq(&shard->changed, 1);
    futex_wake(&shard->changed, INT_MAX);
}

/* It has neither tasks nor a runner. true: it has left the table, and its hold is the caller's to give back. */
static bool key_done(struct key *key)
{
    struct shard *shard = key->shard;

    key->state = DONE;
    shard_changed(shard);
    if (key->pins)
        return false;
    table_remove(shard, key);
    return true;
}

static void key_append(struct key *key, struct item *item)
{
    item->next = NULL;
    *key->end = item;
    key->end = &item->next;
    key->queued++;
    key->shard->queued++;
    key->shard->submitted++;
}

static struct item *key_pop(struct key *key)
{
    struct rp_strand *strand = key->shard->strand;
    struct item *item = key->first;

    if (!item)
        return NULL;
    key->first = item->next;
    if (!key->first)
        key->end = &key->first;
    key->queued--;
    key->shard->queued--;
    if (strand->max_per_key && key->queued + 1 == strand->max_per_key)
        shard_changed(key->shard);
    return item;
}

/* One task less is queued: [room]. */
static void room_made(struct rp_strand *strand)
{
    if (!strand->max_queued)
        return;
    sub_seq(&strand->queued, 1);
    if (load_seq(&strand->blocked)) {
        add_seq(&strand->room, 1);
        futex_wake(&strand->room, 1);
    }
}

/* --- the runner ------------------------------------------------------------------------------------------------- */

static int runner_submit(struct key *key, int overload, int64_t deadline, const char *label)
{
    struct rp_task runner = {
        .fn = run_key,
        .arg = key,
        .dropped = runner_dropped,
        .label = label,
        .priority = key->priority,
        .overload = overload,
        .deadline = deadline,
    };

    return rp_pool_submit_task(key->shard->strand->pool, &runner);
}

static void item_drop(struct item *item, int reason)
{
    if (item->dropped)
        item->dropped(item->arg, reason);
    if (item->cq)
        cq_post(item->cq, item->user_data, reason);
}

/*
 * Ends the queued tasks of a key that has no runner: those at its head that are late, or all of them for `reason`. true:
 * some are left, and the key is still the caller's.
 */
static bool key_drop(struct key *key, int reason)
{
    struct shard *shard = key->shard;
    struct rp_strand *strand = shard->strand;
    struct item *item;

    rp_lock_acquire(&shard->lock);
    key->state = reason ? DROPPING : OPEN;
    shard_changed(shard);
    while ((item = key->first) && (reason || (item->deadline && rp_now() >= item->deadline))) {
        key_pop(key);
        shard->running++;
        rp_lock_release(&shard->lock);
        room_made(strand);
        item_drop(item, reason ? reason : -ETIMEDOUT);
        rp_lock_acquire(&shard->lock);
        shard->running--;
        shard->ended[DROPPED]++;
        block_put(shard, item);
    }
    bool gone = !item && key_done(key);
    rp_lock_release(&shard->lock);
    if (gone)
        shard_leave(shard);
    return item;
}

static void orphan_add(struct key *key)
{
    struct rp_strand *strand = key->shard->strand;

    rp_lock_acquire(&strand->orphan_lock);
    key->orphan = strand->orphans;
    strand->orphans = key;
    timer_arm(&strand->orphan_timer, rp_after(RETRY_NS));
    rp_lock_release(&strand->orphan_lock);
}

/* A key has tasks and no runner: gets it one, from where the caller cannot wait. */
static void key_reopen(struct key *key)
{
    int rc = runner_submit(key, RP_OVERLOAD_FAIL, 0, NULL);

    if (rc == -ESHUTDOWN || rc == -ECHILD)
        key_drop(key, -ESHUTDOWN);
    else if (rc)
        orphan_add(key);
}

static void orphans_fire(struct timer *timer)
{
    struct rp_strand *strand = caa_container_of(timer, struct rp_strand, orphan_timer);

    rp_lock_acquire(&strand->orphan_lock);
    struct key *key = strand->orphans;
    strand->orphans = NULL;
    rp_lock_release(&strand->orphan_lock);
    while (key) { /* as long as there is one the strand lives */
        struct key *next = key->orphan;
        key_reopen(key);
        key = next;
    }
}

static void runner_dropped(void *arg, int reason)
{
    struct key *key = arg;

    /* The deadline was that of the task which opened the key; those behind it are not late with it. */
    if (key_drop(key, reason == -ETIMEDOUT ? 0 : reason))
        key_reopen(key);
}

/* The accounts of the turn's task. */
static void item_ended_locked(struct turn *turn)
{
    struct shard *shard = turn->key->shard;

    if (!turn->item)
        return;
    shard->running--;
    shard->ended[turn->fate]++;
    block_put(shard, turn->item);
    turn->item = NULL;
}

/* Goes on to the next task of the key. false: there is none, the key is gone, and perhaps the strand. */
static bool item_next(struct turn *turn)
{
    struct key *key = turn->key;
    struct shard *shard = key->shard;
    bool gone = false;

    rp_lock_acquire(&shard->lock);
    item_ended_locked(turn);
    if (key->state == OPENING) { /* its opener has not returned yet: the pool has taken it all the same */
        key->state = OPEN;
        shard_changed(shard);
    }
    turn->item = key_pop(key);
    if (turn->item)
        shard->running++;
    else
        gone = key_done(key);
    bool more = turn->item;
    rp_lock_release(&shard->lock);
    if (more)
        room_made(turn->strand);
    if (gone)
        shard_leave(shard);
    return more;
}

static void item_run(struct turn *turn)
{
    struct frame *outer = frame_current();
    struct item *item = turn->item;
    struct rp_strand *strand = turn->strand;
    int reason = 0;

    if (load_relaxed(&strand->dropping) || load_relaxed(&outer->pool->dropping)) /* seen late: the next will see it */
        reason = -ESHUTDOWN;
    else if (item->deadline && rp_now() >= item->deadline)
        reason = -ETIMEDOUT;
    if (reason) {
        turn->fate = DROPPED;
        item_drop(item, reason);
        return;
    }
    struct entry entry = {.fn = item->fn, .arg = item->arg, .label = item->label};
    if (outer->worker && load_relaxed(&outer->worker->label) != item->label) /* own word */
        store_release(&outer->worker->label, item->label);
    turn->fate = PANICKED; /* until it has returned */
    bool returned = frame_run(outer->pool, outer->worker, &entry, FRAME_PART);
    turns = turn; /* a panic has jumped over those on top of it */
    if (returned)
        turn->fate = COMPLETED;
    if (item->cq)
        cq_post(item->cq, item->user_data, returned ? 0 : -EFAULT);
}

/* Whether somebody waits for a worker of the pool. */
static bool somebody_waits(const struct pool *pool)
{
    return runq_queued(&pool->runq) || room_blocked(pool);
}

/* Gives the key to a runner behind those who wait. A pool that takes none lets this one go on. */
static bool hand_on(struct turn *turn)
{
    struct shard *shard = turn->key->shard;

    rp_lock_acquire(&shard->lock);
    item_ended_locked(turn);
    bool more = turn->key->first;
    rp_lock_release(&shard->lock);
    return more && runner_submit(turn->key, RP_OVERLOAD_BLOCK, 0, NULL) == 0;
}

static void turn_loop(struct turn *turn)
{
    unsigned row = 0;

    while (item_next(turn)) {
        item_run(turn);
        if (is_foreign(turn->strand))
            return; /* the task has forked, and this is the child */
        if (++row < turn->strand->burst)
            continue;
        row = 0;
        if (somebody_waits(frame_current()->pool) && hand_on(turn))
            return;
    }
}

/* The task has ended its thread. The worker's own handler reports it. */
static void turn_exits(void *arg)
{
    struct turn *turn = arg;
    struct key *key = turn->key;
    struct item *item = turn->item;

    turns = turn->outer;
    if (!item || is_foreign(turn->strand))
        return;
    if (item->cq)
        cq_post(item->cq, item->user_data, -EFAULT);
    rp_lock_acquire(&key->shard->lock);
    item_ended_locked(turn);
    rp_lock_release(&key->shard->lock);
    key_reopen(key); /* without tasks the next runner ends it */
}

static void run_key(void *arg)
{
    struct key *key = arg;
    struct turn turn = {.strand = key->shard->strand, .key = key, .outer = turns};

    turns = &turn;
    pthread_cleanup_push(turn_exits, &turn);
    turn_loop(&turn);
    pthread_cleanup_pop(0);
    turns = turn.outer;
}

/* --- submit ----------------------------------------------------------------------------------------------------- */

struct how {
    int overload;
    bool discard; /* in place of -EAGAIN: drop it */
    int priority;
    int64_t deadline;
};

/* Sleeps on a futex word that was `seen`. */
static int wait_on(struct rp_strand *strand, _Atomic uint32_t *word, uint32_t seen, int64_t deadline)
{
    struct frame *frame = frame_current();
    int rc = rp_blocking_begin();
    bool task = rc != -EPERM;

    if (rc == -EAGAIN && frame->worker && frame->pool->handle == strand->pool) {
        rp_blocking_end();
        return -EDEADLK;
    }
    rc = futex_wait(word, seen, deadline);
    if (task)
        rp_blocking_end();
    return rc == -ETIMEDOUT ? rc : 0;
}

/* Waits, or not, for a change in the shard. Gives up the lock and takes it again. 0: look again. */
static int shard_wait(struct shard *shard, const struct how *how)
{
    uint32_t seen = load_seq(&shard->changed); /* changes under the lock */

    if (how->overload != RP_OVERLOAD_BLOCK || inside(shard->strand))
        return -EAGAIN;
    shard->waiting++;
    rp_lock_release(&shard->lock);
    int rc = wait_on(shard->strand, &shard->changed, seen, how->deadline);
    rp_lock_acquire(&shard->lock);
    shard->waiting--;
    return rc;
}

static bool room_take(struct rp_strand *strand)
{
    if (!strand->max_queued)
        return true;
    uint64_t queued = load_seq(&strand->queued);
    do
        if (queued >= strand->max_queued)
            return false;
    while (!cas_seq(&strand->queued, &queued, queued + 1));
    return true;
}

static bool is_closed(const struct shard *shard)
{
    return load_seq(&shard->holds) & HOLDS_CLOSED;
}

/*
 * A place among max_queued: [room]. The waiter says that it is blocked, then looks; who makes room subtracts, then looks
 * for the blocked: one sees the other. A waiter that gives up passes on the wake that it may have had.
 */
static int room_wait(struct shard *shard, const struct how *how)
{
    struct rp_strand *strand = shard->strand;
    int rc = 0;

    if (room_take(strand))
        return 0;
    if (how->overload != RP_OVERLOAD_BLOCK || inside(strand))
        return -EAGAIN;
    add_seq(&strand->blocked, 1);
    for (;;) {
        uint32_t seen = load_seq(&strand->room);
        if (is_closed(shard))
            rc = -ESHUTDOWN;
        if (rc || room_take(strand))
            break;
        rc = wait_on(strand, &strand->room, seen, how->deadline);
    }
    sub_seq(&strand->blocked, 1);
    if (rc && load_seq(&strand->blocked)) {
        add_seq(&strand->room, 1);
        futex_wake(&strand->room, 1);
    }
    return rc;
}

/*
 * Gets the key into a state in which a task may be appended: *key is OPEN, or DONE (perhaps new) and to be opened.
 * Under the lock.
 */
static int key_get(struct shard *shard, uint64_t value, const struct how *how, struct key **out)
{
    struct rp_strand *strand = shard->strand;
    int rc = 0;

    for (;;) {
        struct key *key = *table_find(shard, value);
        if (is_closed(shard))
            return -ESHUTDOWN;
        if (!key)
            key = table_add(shard, value);
        if (!key)
            return -ENOMEM;
        *out = key;
        if (key->state == DROPPING)
            return -ESHUTDOWN;
        if (key->state != OPENING && !(strand->max_per_key && key->queued >= strand->max_per_key))
            return 0;
        if (rc)
            return rc;
        rc = shard_wait(shard, how);
        if (rc == -EAGAIN || rc == -EDEADLK)
            return rc;
    }
}

/* The submitter's own part of an opening, once the pool has answered. true: the key is gone. */
static bool opened(struct key *key, uint32_t epoch, int rc, struct item *item)
{
    struct shard *shard = key->shard;

    key->pins--;
    if (rc) { /* nobody else was let in: the item is the only one */
        key->first = NULL;
        key->end = &key->first;
        key->queued = 0;
        shard->queued--;
        shard->submitted--;
        block_put(shard, item);
        return key_done(key);
    }
    if (key->epoch == epoch && key->state == OPENING) {
        key->state = OPEN;
        shard_changed(shard);
    }
    return key->state == DONE && key_done(key);
}

/* Opens the key with its first task. Under the lock, which it gives up on the way. */
static int key_open(struct key *key, struct item *item, const struct how *how)
{
    struct shard *shard = key->shard;
    uint32_t epoch = ++key->epoch;

    key->state = OPENING;
    key->priority = (uint8_t)how->priority;
    key->pins++;
    rp_lock_release(&shard->lock);
    int rc = runner_submit(key, how->overload, how->deadline, item->label);
    rp_lock_acquire(&shard->lock);
    bool gone = opened(key, epoch, rc, item);
    if (gone)
        shard_leave(shard); /* the key's; the call has its own */
    return rc;
}

/* In the shard, with a place among max_queued. 0: the item, a copy, is the key's. */
static int submit_locked(struct shard *shard, uint64_t value, const struct item *item, const struct how *how)
{
    struct key *key = NULL;
    int rc = key_get(shard, value, how, &key);
    bool was_there = key && (key->state != DONE || key->pins || key->first);

    if (rc)
        return rc;
    union block *block = block_get(shard);
    if (!block) {
        if (!was_there)
            table_remove(shard, key);
        return -ENOMEM;
    }
    block->item = *item;
    key_append(key, &block->item);
    if (key->state == OPEN)
        return 0;
    if (!was_there)
        add_acq_rel(&shard->holds, 1); /* the key's; not closed to us, who hold it */
    return key_open(key, &block->item, how);
}

/* It is accepted and dropped. */
static void discard(struct shard *shard, struct item *item)
{
    item_drop(item, -EAGAIN);
    rp_lock_acquire(&shard->lock);
    shard->submitted++;
    shard->ended[DROPPED]++;
    rp_lock_release(&shard->lock);
}

static int submit_item(struct rp_strand *strand, uint64_t value, struct item *item, const struct how *how)
{
    struct shard *shard = shard_of(strand, value);
    int rc = shard_enter(shard);

    if (rc)
        return rc;
    rc = room_wait(shard, how);
    if (!rc) {
        rp_lock_acquire(&shard->lock);
        rc = submit_locked(shard, value, item, how);
        rp_lock_release(&shard->lock);
        if (rc)
            room_made(strand);
    }
    if (rc == -EAGAIN && how->discard) {
        discard(shard, item);
        rc = 0;
    }
    shard_leave(shard);
    return rc;
}

/* The policy that holds, or -ENOTSUP. */
static int overload_of(const struct rp_strand *strand, int overload)
{
    if (overload == RP_OVERLOAD_DEFAULT)
        overload = strand->overload;
    return overload >= RP_OVERLOAD_BLOCK && overload <= RP_OVERLOAD_DISCARD_NEWEST ? overload : -ENOTSUP;
}

static int task_check(const struct rp_task *task)
{
    if (!task->fn || (unsigned)task->priority > RP_PRIO_LOW || (unsigned)task->overload > RP_OVERLOAD_CALLER_RUNS ||
        task->deadline < 0 || task->timeout < 0)
        return -EINVAL;
    if (task->ctx || task->timeout)
        return -ENOTSUP;
    return task->deadline && rp_now() >= task->deadline ? -ETIMEDOUT : 0;
}

int rp_strand_submit_task(struct rp_strand *strand, uint64_t key, const struct rp_task *task)
{
    if (!strand || !task)
        return -EINVAL;
    if (is_foreign(strand))
        return -ECHILD;
    int rc = task_check(task);
    if (!rc)
        rc = rcu_attach();
    if (rc)
        return rc;
    int overload = overload_of(strand, task->overload);
    if (overload < 0)
        return overload;
    bool block = overload == RP_OVERLOAD_BLOCK;
    struct how how = {
        .overload = block ? overload : RP_OVERLOAD_FAIL,
        .discard = overload == RP_OVERLOAD_DISCARD_NEWEST,
        .priority = task->priority,
        .deadline = task->deadline,
    };
    struct item item = {.fn = task->fn,
                        .arg = task->arg,
                        .dropped = task->dropped,
                        .label = task->label,
                        .deadline = task->deadline,
                        .cq = task->cq,
                        .user_data = task->user_data};
    if (item.cq && (rc = cq_reserve(item.cq)) != 0)
        return rc;
    rc = submit_item(strand, key, &item, &how);
    if (rc && item.cq)
        cq_unreserve(item.cq);
    return rc;
}

int rp_strand_submit(struct rp_strand *strand, uint64_t key, void (*fn)(void *arg), void *arg)
{
    return rp_strand_submit_task(strand, key, &(struct rp_task){.fn = fn, .arg = arg});
}

/* --- making, releasing, destroying ------------------------------------------------------------------------------ */

static int options_check(const struct rp_strand_options *options)
{
    for (size_t i = 0; i < sizeof(options->reserved) / sizeof(options->reserved[0]); i++)
        if (options->reserved[i])
            return -EINVAL;
    if ((unsigned)options->backend > RP_BACKEND_EPOLL || (unsigned)options->overload > RP_OVERLOAD_CALLER_RUNS ||
        (unsigned)options->release_policy > RP_RELEASE_DROP)
        return -EINVAL;
    return options->overload > RP_OVERLOAD_DISCARD_NEWEST ? -ENOTSUP : 0;
}

static int shards_init(struct rp_strand *strand)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &strand->shard[i];
        shard->strand = strand;
        shard->buckets = BUCKETS_LEAST;
        shard->segment[0] = alloc_zeroed(&strand->allocator, BUCKETS_LEAST, sizeof(struct key *));
        if (!shard->segment[0])
            return -ENOMEM;
    }
    return 0;
}

static void strand_register(struct rp_strand *strand)
{
    rp_lock_acquire(&registry_lock);
    strand->next = registry;
    strand->link = &registry;
    if (registry)
        registry->link = &strand->next;
    registry = strand;
    rp_lock_release(&registry_lock);
}

static int strand_init(struct rp_strand *strand, struct rp_pool *pool, const struct rp_strand_options *options)
{
    strand->pool = pool;
    strand->generation = fork_generation();
    strand->burst = options->burst ? options->burst : BURST;
    strand->max_queued = options->max_queued;
    strand->max_per_key = options->max_per_key;
    strand->overload = options->overload ? options->overload : RP_OVERLOAD_BLOCK;
    strand->release_policy = options->release_policy;
    store_relaxed(&strand->open_shards, SHARDS); /* nobody else knows it yet */
    strand_register(strand);
    int rc = reactor_get(&strand->reactor, options->backend, false);
    if (rc)
        return rc;
    timer_init(&strand->orphan_timer, strand->reactor, orphans_fire);
    return shards_init(strand);
}

int rp_strand_create(struct rp_strand **out, struct rp_pool *pool, const struct rp_strand_options *options)
{
    static const struct rp_strand_options none;
    struct rp_allocator allocator;

    if (!out)
        return -EINVAL;
    *out = NULL;
    options = options ? options : &none;
    int rc = pool ? options_check(options) : -EINVAL;
    if (!rc)
        rc = alloc_init(&allocator, options->allocator);
    if (!rc)
        rc = rcu_attach();
    if (!rc)
        rc = fork_register(&hooks);
    if (rc)
        return rc;
    struct rp_strand *strand = alloc_aligned(&allocator, CACHE_APART, sizeof(*strand));
    if (!strand)
        return -ENOMEM;
    strand->allocator = allocator;
    rc = strand_init(strand, pool, options);
    if (rc)
        strand_free(strand);
    else
        *out = strand;
    return rc;
}

/* Counted as one shard more, so that the strand cannot end under it; nothing if it has ended. */
static void close_shards(struct rp_strand *strand)
{
    uint32_t open = load_seq(&strand->open_shards);

    do
        if (!open)
            return;
    while (!cas_seq(&strand->open_shards, &open, open + 1));
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &strand->shard[i];
        uint64_t before = or_seq(&shard->holds, HOLDS_CLOSED);
        rp_lock_acquire(&shard->lock);
        shard_changed(shard);
        rp_lock_release(&shard->lock);
        if (before == 0)
            shard_ended(strand);
    }
    add_seq(&strand->room, 1);
    futex_wake(&strand->room, INT_MAX);
    shard_ended(strand);
}

int rp_strand_release(struct rp_strand *strand)
{
    if (!strand)
        return -EINVAL;
    if (is_foreign(strand))
        return -ECHILD;
    if (strand->release_policy == RP_RELEASE_DROP)
        store_seq(&strand->dropping, 1);
    close_shards(strand);
    return 0;
}

/* 0, or -ETIMEDOUT. */
static int end_wait(struct rp_strand *strand, int64_t deadline)
{
    bool task = rp_blocking_begin() != -EPERM;
    uint32_t end;
    int rc = 0;

    while (!((end = load_seq(&strand->end)) & ENDED) && rc != -ETIMEDOUT)
        rc = futex_wait(&strand->end, end, deadline);
    if (task)
        rp_blocking_end();
    return end & ENDED ? 0 : -ETIMEDOUT;
}

int rp_strand_release_until(struct rp_strand *strand, int64_t deadline)
{
    if (deadline < 0)
        return -EINVAL;
    int rc = rp_strand_release(strand);
    if (rc)
        return rc;
    return inside(strand) ? -EDEADLK : end_wait(strand, deadline);
}

int rp_strand_snapshot(struct rp_strand *strand, struct rp_strand_snapshot *out)
{
    if (!strand || !out)
        return -EINVAL;
    if (is_foreign(strand))
        return -ECHILD;
    *out = (struct rp_strand_snapshot){0};
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &strand->shard[i];
        rp_lock_acquire(&shard->lock);
        out->submitted += shard->submitted;
        out->completed += shard->ended[COMPLETED];
        out->dropped += shard->ended[DROPPED];
        out->panicked += shard->ended[PANICKED];
        out->queued += shard->queued;
        out->running += shard->running;
        out->keys += shard->keys;
        rp_lock_release(&shard->lock);
    }
    return 0;
}

/* In a forked child: what is queued goes with the rest, its functions are the parent's to call. */
static void keys_free(struct shard *shard)
{
    for (unsigned i = 0; i < shard->buckets; i++)
        while (*bucket_at(shard, i)) {
            struct key *key = *bucket_at(shard, i);
            for (struct item *item; (item = key->first);) {
                key->first = item->next;
                alloc_free(&shard->strand->allocator, item);
            }
            *bucket_at(shard, i) = key->next;
            alloc_free(&shard->strand->allocator, key);
        }
}

int rp_strand_destroy(struct rp_strand *strand)
{
    if (!strand)
        return -EINVAL;
    if (is_foreign(strand)) {
        for (unsigned i = 0; i < SHARDS; i++)
            keys_free(&strand->shard[i]);
        strand_free(strand);
        return 0;
    }
    if (exchange_seq(&strand->doomed, 1))
        return -EALREADY;
    bool within = inside(strand);
    rp_strand_release(strand);
    if (within) {
        if (or_seq(&strand->end, DEFERRED) & ENDED)
            strand_free(strand);
        return 0;
    }
    end_wait(strand, 0);
    strand_free(strand);
    return 0;
}
