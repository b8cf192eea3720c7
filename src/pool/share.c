/*
 * Shares: the protocol, and why it begins each task once, is in share.h; the holder's take is in runq_path.h.
 */
#include "pool/share.h"

#include "base/alloc.h"
#include "base/cpu.h"
#include "pool/runq_path.h"

/* Measured; see bench/RESULTS.md. */
#define SHARE_NS 16000 /* of work in a share */
#define STRIDE_NS 300  /* of a task, for its next one's lines to be asked for */
#define STRIDE_MOST 8
#define STRIDE_LIMIT 64
#define ALIKE_NS 16000
#define ALIKE_MOST 64U
#define REST_TURNS 64 /* about 1.6 us */

int shares_create(struct ring *ring, const struct rp_allocator *allocator)
{
    unsigned n = SHARE_CPUS;

    if (n < 2)
        return 0;
    n = n < SHARES_MOST ? n : SHARES_MOST;
    ring->shares = alloc_aligned(allocator, CACHE_APART, n * sizeof(struct share));
    if (!ring->shares)
        return -ENOMEM;
    ring->nshares = n;
    return 0;
}

/* --- looks ------------------------------------------------------------------------------------------------------ */

static inline uint32_t used(const struct ring *ring)
{
    return load_seq(&ring->shares_used);
}

unsigned shares_left(const struct ring *ring)
{
    unsigned left = 0;

    for (uint32_t i = 0, n = used(ring); i < n; i++)
        left += share_left(load_seq(&ring->shares[i].word));
    return left;
}

uint32_t shares_done(const struct ring *ring)
{
    uint32_t done = 0;

    for (uint32_t i = 0, n = used(ring); i < n; i++)
        done += head_done(load_seq(&ring->shares[i].word));
    return done;
}

/* The position before the head that ends in these 32 bits. */
static uint64_t position_before(uint64_t head, uint32_t low)
{
    return (head - (uint32_t)(head - low)) & POSITION_MASK;
}

/*
 * How far the position, which is the head or was, is ahead of the first task that is left in a share; *where becomes
 * that share. 0: nothing is. The head is before the shares: what is put into one after that is not before it.
 */
static uint32_t lag(const struct ring *ring, uint64_t position, unsigned *where)
{
    uint32_t most = 0;

    for (uint32_t i = 0, n = used(ring); i < n; i++) {
        uint64_t word = load_seq(&ring->shares[i].word);
        int32_t behind = (int32_t)((uint32_t)position - share_next(word));
        if (share_left(word) && behind > (int32_t)most) {
            most = (uint32_t)behind;
            *where = i;
        }
    }
    return most;
}

static int64_t slots_to_spare(const struct runq *q)
{
    return (int64_t)q->size - load_seq(&q->limit);
}

bool share_lags(const struct runq *q, uint64_t position)
{
    unsigned where;
    uint32_t behind = lag(runq_normal(q), position, &where);

    return behind && (int64_t)behind + 2 * SHARE_MOST > slots_to_spare(q);
}

/* --- the holder ------------------------------------------------------------------------------------------------- */

/*
 * 0: nobody else takes any, or hardly any can wait: then a submitter is about to write there. Only what is found twice
 * in a row is believed, as one or another is off the CPU at times.
 */
static unsigned stride(const struct runq *q, struct taker *taker, uint32_t tasks)
{
    uint64_t step = (((taker->last - taker->timed_last) & POSITION_MASK) + tasks / 2) / tasks;
    bool again = step == taker->step;

    taker->step = step;
    if (load_relaxed(&q->limit) < STRIDE_LIMIT) /* a hint */
        return 0;
    if (!again)
        return taker->stride;
    return step > 1 && step <= STRIDE_MOST ? (unsigned)step : 0;
}

void taker_learn(const struct runq *q, struct taker *taker)
{
    int64_t now = rp_now();
    uint32_t tasks = taker->taken - taker->timed_taken;
    bool shares = runq_normal(q)->nshares;

    if (taker->timed_at) {
        int64_t each = (now - taker->timed_at) / tasks;
        int64_t fit = each ? SHARE_NS / each : 0, alike = each ? ALIKE_NS / each : ALIKE_MOST;
        taker->brief = each < BRIEF_NS;
        taker->alike = alike < ALIKE_MOST ? (uint32_t)alike : ALIKE_MOST;
        taker->share_most = taker->brief || !shares ? 1 : fit < SHARE_MOST ? (unsigned)fit : SHARE_MOST;
        taker->stride = each >= STRIDE_NS && taker->share_most == 1 ? stride(q, taker, tasks) : 0;
    }
    taker->timed_last = taker->last;
    taker->timed_at = now;
    taker->timed_taken = taker->taken;
}

/* One that nobody holds and in which nothing is left. */
static bool share_acquire(struct ring *ring, struct taker *taker)
{
    for (unsigned i = 0; i < ring->nshares; i++) {
        struct share *share = &ring->shares[i];
        uint32_t nobody = 0;

        if (load_relaxed(&share->held) || !cas_seq(&share->held, &nobody, 1)) /* a hint */
            continue;
        uint64_t word = load_seq(&share->word);
        if (share_left(word)) { /* its last holder has left it so */
            store_seq(&share->held, 0);
            continue;
        }
        for (uint32_t n = used(ring); n <= i;)
            cas_seq(&ring->shares_used, &n, i + 1);
        taker->share = share;
        taker->word = word;
        return true;
    }
    return false;
}

/* How many from the head on are published, with as many more behind them as others need; at most as many as `most`. */
static unsigned extent(const struct ring *ring, uint64_t head, unsigned most)
{
    uint64_t beyond = head + most + SHARE_DEPTH(ring->nshares - 1) - 1;
    unsigned n = 0;

    if (ahead(load_acquire(&slot_at(ring, beyond)->sequence), beyond + 1) != 0)
        return 0;
    while (n < most && ahead(load_acquire(&slot_at(ring, head + n)->sequence), head + n + 1) == 0) /* [publish] */
        n++;
    return n;
}

/* The lines of what the next share may be come while this one is worked on. */
static void fetch(const struct ring *ring, uint64_t position)
{
    for (unsigned i = 0; i < SHARE_MOST; i += 2)
        prefetch_to_write(slot_at(ring, position + i));
}

bool share_refill(const struct runq *q, struct taker *taker, bool *ends)
{
    struct ring *ring = runq_normal(q);
    uint64_t head = load_relaxed(&ring->head); /* validated by the CAS */
    unsigned n = extent(ring, head, taker->share_most);

    if (n < 2 || slots_to_spare(q) < RING_SLACK || share_lags(q, head))
        return false;
    if (!taker->share && !share_acquire(ring, taker))
        return false;
    struct share *share = taker->share;
    uint64_t done = (taker->word & ~POSITION_MASK) + (*ends ? DONE_ONE : 0);
    bool taken = false;

    *ends = false;
    do {
        uint64_t at = head & POSITION_MASK, next = (at + n) & POSITION_MASK;
        taker->word = done | (uint64_t)(uint32_t)at << 8 | n * SHARE_LEFT_ONE;
        store_seq(&share->word, taker->word | SHARE_TENTATIVE);              /* R1, [end] */
        taken = cas_seq(&ring->head, &head, (head & ~POSITION_MASK) | next); /* R2 */
        if (taken) {
            taker->position = at;
            if (__builtin_expect((at ^ next) > (POSITION_MASK >> 1), 0))
                ring_passed_half(ring);
        } else {
            taker->word = done;
            store_seq(&share->word, done);
            taker_lost(taker);
            head = load_relaxed(&ring->head);
            n = share_lags(q, head) ? 0 : extent(ring, head, taker->share_most);
        }
    } while (!taken && n);
    store_seq(&share->word, taker->word); /* R3 */
    if (taken)
        fetch(ring, taker->position + n);
    return taken;
}

void share_leave(struct taker *taker)
{
    if (!taker->share)
        return;
    store_seq(&taker->share->held, 0);
    taker->share = NULL;
    taker->word = 0;
}

/* --- the thief -------------------------------------------------------------------------------------------------- */

static bool steal(struct ring *ring, struct share *share, struct entry *out)
{
    uint64_t word = load_seq(&share->word);

    do {
        if (!share_left(word) || (word & SHARE_TENTATIVE))
            return false;
    } while (!cas_seq(&share->word, &word, word - SHARE_LEFT_ONE));
    uint64_t position = position_before(load_seq(&ring->head), share_next(word) + share_left(word) - 1);
    struct slot *slot = slot_at(ring, position);
    (void)load_acquire(&slot->sequence); /* [publish]: the holder has seen that it is */
    slot_empty(ring, slot, position, out, out);
    return true;
}

bool share_steal(struct ring *ring, struct entry *out)
{
    unsigned first = 0;

    if (lag(ring, load_seq(&ring->head), &first) && steal(ring, &ring->shares[first], out))
        return true;
    for (uint32_t i = 0, n = used(ring); i < n; i++)
        if (steal(ring, &ring->shares[i], out))
            return true;
    return false;
}

/* Whether the share has not moved since it was last asked so, SHARE_LOOK_NS ago or longer. */
static bool rests_long(struct share *share, int64_t now)
{
    uint64_t word = load_relaxed(&share->word); /* a hint, as the two below */

    if (load_relaxed(&share->rests) != word || !load_relaxed(&share->rests_at)) {
        store_relaxed(&share->rests, word);
        store_relaxed(&share->rests_at, now);
        return false;
    }
    return now - load_relaxed(&share->rests_at) >= SHARE_LOOK_NS;
}

static bool rests(const struct share *share)
{
    uint64_t word = load_relaxed(&share->word); /* a hint */

    cpu_pause(REST_TURNS);
    return load_relaxed(&share->word) == word; /* likewise */
}

int share_rob(struct ring *ring, int64_t now, struct entry *out)
{
    int rc = 0;

    for (uint32_t i = 0, n = used(ring); i < n; i++) {
        struct share *share = &ring->shares[i];

        if (!share_left(load_seq(&share->word)))
            continue;
        rc = -EAGAIN;
        if (!(now ? rests_long(share, now) : rests(share)) || !steal(ring, share, out))
            continue;
        if (now)
            store_relaxed(&share->rests, load_relaxed(&share->word)); /* a hint: it rests on, but for us */
        return 1;
    }
    return rc;
}
