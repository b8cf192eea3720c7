/*
 * The run queue's part of a task's path: claim, publish, take. Inline, because a submit and a worker's turn are some
 * tens of instructions each around two atomic operations: to hand a task from function to function through memory would
 * cost more than what they do with it. runq.c has what is not the rule.
 */
#ifndef POOL_RUNQ_PATH_H
#define POOL_RUNQ_PATH_H

#include "pool/share.h"

#include <errno.h>

/* The distance from position to sequence, as a signed number: both count modulo 2^40. */
static inline int64_t ahead(uint64_t sequence, uint64_t position)
{
    return (int64_t)((sequence - position) << (64 - POSITION_BITS)) >> (64 - POSITION_BITS);
}

static inline struct slot *slot_at(const struct ring *ring, uint64_t position)
{
    return &ring->slots[position & ring->mask];
}

/* Turns of a submitter that lost a claim to another: about 1.6 us. Measured; see bench/RESULTS.md. */
#define LOST_CLAIM_TURNS 64

/* --- claim ------------------------------------------------------------------------------------------------------ */

/* Flight at this tail after a look at the true count of ended tasks, which is remembered in place of `seen`. */
uint32_t runq_flight_reread(struct runq *q, uint64_t tail, uint32_t seen);

/* How many more tasks the limit admits at this tail, rereading done only when the remembered one admits too few. */
static inline unsigned room_at(struct runq *q, uint64_t tail, unsigned want)
{
    uint32_t limit = load_seq(&q->limit);
    uint32_t seen = load_relaxed(&q->done_seen); /* stale: flight is only too high */
    uint32_t flight = (tail_accepted(tail) - seen) & FLIGHT_MASK;

    if (__builtin_expect(flight + want > limit, 0))
        flight = runq_flight_reread(q, tail, seen);
    return flight < limit ? limit - flight : 0;
}

static inline uint64_t tail_plus(uint64_t tail, unsigned class, unsigned n)
{
    if (class == CLASS_NORMAL)
        return (tail & ~POSITION_MASK) | ((tail + n) & POSITION_MASK);
    return (tail + ((uint64_t)n << POSITION_BITS)) & ~TAIL_CLOSED; /* the claim is made on an open queue only */
}

/*
 * The first position of the class's ring, if `n` slots from there are free or about to be; -EBUSY if not.
 * A batch only asks for its last slot: the ones before it were vacated by consumers that came earlier, each of which
 * may still be in the few instructions between taking and vacating; runq_publish waits for those. Where there are
 * shares they may be kept for longer, and each is asked (slots_free_first).
 */
static inline int slots_free(const struct ring *ring, uint64_t position, unsigned n)
{
    int64_t distance = ahead(load_acquire(&slot_at(ring, position + n - 1)->sequence), position + n - 1);

    return distance == 0 ? 0 : -EBUSY; /* above 0: the position is stale */
}

/* How many of n slots from the position on are free: one before the last is kept where a task lags in a share. */
unsigned slots_free_first(const struct ring *ring, uint64_t position, unsigned n);

/* How many of n slots from the position on are free or about to be, where the head is or was; 0 of a stale position. */
static inline unsigned room_from(const struct ring *ring, uint64_t head, uint64_t position, unsigned n)
{
    int64_t size = (int64_t)ring->mask + 1, room = size - ahead(position, head);

    return room <= 0 || room > size ? 0 : room < (int64_t)n ? (unsigned)room : n;
}

/* The same of the normal ring, whose head is only looked at where the one that is remembered leaves too little room. */
static inline unsigned ring_room(struct runq *q, const struct ring *ring, uint64_t position, unsigned n)
{
    unsigned room = room_from(ring, load_relaxed(&q->head_seen), position, n); /* stale: only too little */

    if (__builtin_expect(room < n, 0)) {
        uint64_t head = load_acquire(&ring->head);
        store_relaxed(&q->head_seen, head); /* an older one over a later one costs another look */
        room = room_from(ring, head, position, n);
    }
    return room;
}

/* One look at the tail; n is how many are wanted, and become how many there are. 0: claim them by a CAS from `tail`. */
static inline int claim_look(struct runq *q, uint64_t tail, bool newcomer, unsigned *n)
{
    if (tail & TAIL_CLOSED)
        return -ESHUTDOWN;
    unsigned room = room_at(q, tail, *n);
    if (room == 0 || (newcomer && gate_shut_at(q, tail)))
        return -EAGAIN;
    if (room < *n)
        *n = room;
    return 0;
}

/* runq_claim of the normal class. */
static inline __attribute__((always_inline)) int runq_claim_normal(struct runq *q, unsigned n, bool newcomer,
                                                                   uint64_t *first)
{
    struct ring *ring = runq_normal(q);
    uint64_t tail = load_relaxed(&q->tail); /* validated by the CAS */

    for (;;) {
        uint64_t position = tail & POSITION_MASK;
        unsigned take = n;
        int rc = claim_look(q, tail, newcomer, &take);
        if (!rc && take > 1 && !(take = ring_room(q, ring, position, take)))
            rc = -EBUSY;
        if (!rc)
            rc = slots_free(ring, position, take);
        if (!rc && take > 1 && __builtin_expect(load_relaxed(&ring->shares_used) != 0, 0) &&
            !(take = slots_free_first(ring, position, take)))
            rc = -EBUSY;
        if (__builtin_expect(rc, 0)) {
            uint64_t now = load_seq(&q->tail);
            if (now == tail)
                return rc;
            tail = now;
        } else if (cas_seq(&q->tail, &tail, tail_plus(tail, CLASS_NORMAL, take))) {
            *first = position;
            return (int)take;
        } else {
            cpu_pause(
                LOST_CLAIM_TURNS); /* another submitter runs beside us: let it have the line for some more claims */
            tail = load_relaxed(&q->tail);
        }
    }
}

/* --- publish ---------------------------------------------------------------------------------------------------- */

/*
 * The line of the slot so many ahead is asked for in time: by one at a time, by a batch. Measured; see
 * bench/RESULTS.md.
 */
#define PUBLISH_AHEAD 8
#define BATCH_AHEAD 32

/* Until the consumer of the slot's former task has left it. */
void slot_await(struct slot *slot, uint64_t position);

static inline __attribute__((always_inline)) void ring_put(struct ring *ring, uint64_t position,
                                                           const struct entry *entry, bool last)
{
    struct slot *slot = slot_at(ring, position);

    position &= POSITION_MASK;
    if (__builtin_expect(load_acquire(&slot->sequence) != position, 0))
        slot_await(slot, position);
    slot->fn = entry->fn;
    slot->arg = entry->arg;
    slot->cpu = entry->cpu;
    slot->plain = entry->plain;
    if (entry_has_extras(entry->plain))
        ring->extras[position & ring->mask] = (struct extras){
            .dropped = entry->dropped, .label = entry->label, .deadline = entry->deadline, .timeout = entry->timeout};
    uint64_t published = (position + 1) & POSITION_MASK;
    if (last)
        store_seq(&slot->sequence, published); /* [publish] pairs with the load in ring_take; and see idle.h */
    else
        store_release(&slot->sequence, published); /* [publish] */
}

/*
 * Whether the entry of that position is to be measured: a hint. The hash is that of Fibonacci (D. Knuth, The Art of
 * Computer Programming, 6.4): such positions are evenly apart, and in step with no period that tasks may have.
 */
static inline bool ring_stamps(const struct ring *ring, uint64_t position)
{
    return __builtin_expect(position * UINT64_C(0x9e3779b97f4a7c15) <= load_relaxed(&ring->stamp_limit), 0);
}

/* ring_put of such a one. */
void ring_put_stamped(struct ring *ring, uint64_t position, struct entry *entry, bool last);

static inline __attribute__((always_inline)) void ring_publish(struct ring *ring, uint64_t position,
                                                               const struct entry *entry, bool last)
{
    bool stamps = ring_stamps(ring, position);

    prefetch_to_write(slot_at(ring, position + PUBLISH_AHEAD));
    if (stamps) {
        struct entry own = *entry; /* so that on the short way it is never in memory */
        ring_put_stamped(ring, position, &own, last);
    } else {
        ring_put(ring, position, entry, last);
    }
}

/* --- take ------------------------------------------------------------------------------------------------------- */

/* The part of an entry that a worker's loop has in registers. */
static inline void entry_brief(struct entry *brief, const struct entry *whole)
{
    brief->fn = whole->fn;
    brief->arg = whole->arg;
    brief->cpu = whole->cpu;
    brief->plain = whole->plain;
}

/* What is beside the slot of an entry, to be told by its extras or a stamp. */
static inline void slot_more(const struct ring *ring, uint64_t position, uint32_t plain, struct entry *more)
{
    if (entry_has_extras(plain)) {
        const struct extras *extras = &ring->extras[position & ring->mask];
        more->dropped = extras->dropped;
        more->label = extras->label;
        more->deadline = extras->deadline;
        more->timeout = extras->timeout;
    }
    if (plain & ENTRY_STAMPED)
        more->stamp = ring->stamps[position & ring->mask];
}

/*
 * Reads the task of a position that is the caller's, and frees its slot. What only extras tell is put into *more, and
 * not set where there are none (entry_complete). A worker's loop has *more in memory, and *out, which is fn, arg, cpu
 * and plain then, in registers; for others they are one.
 */
static inline __attribute__((always_inline)) void slot_empty(struct ring *ring, struct slot *slot, uint64_t position,
                                                             struct entry *out, struct entry *more)
{
    out->fn = slot->fn;
    out->arg = slot->arg;
    out->cpu = slot->cpu;
    out->plain = slot->plain;
    if (__builtin_expect(out->plain != ENTRY_PLAIN, 0))
        slot_more(ring, position, out->plain, more);
    store_release(&slot->sequence, (position + ring->mask + 1) & POSITION_MASK); /* [vacate] pairs with slots_free */
}

/* Counts a half of the positions that the head has passed. */
void ring_passed_half(struct ring *ring);

/* Asks for the lines with which the caller will take its next task, if others do as they did. */
static inline void taker_fetch(struct ring *ring, const struct taker *taker)
{
    prefetch_to_write(&ring->head);
    prefetch_to_write(slot_at(ring, taker->last + taker->stride));
}

/* After a take that another was faster with. */
void taker_lost(struct taker *taker);

/*
 * Takes the oldest published task; with `ends`, which is for the normal ring, one that was taken before ends by it.
 * With q, whose ring it is, only where share_lags allows that. Without a taker, whose caller will not take another
 * soon, nothing is learned.
 */
static inline __attribute__((always_inline)) bool ring_take(struct ring *ring, const struct runq *q, bool ends,
                                                            struct taker *taker, struct entry *out, struct entry *more)
{
    uint64_t head = load_relaxed(&ring->head); /* validated by the CAS */

    for (;;) {
        uint64_t at = head & POSITION_MASK;
        if (q && (at % SHARE_MOST == 0 || taker->share_most > 1) && share_lags(q, at))
            return false;
        struct slot *slot = slot_at(ring, at);
        int64_t distance = ahead(load_acquire(&slot->sequence), at + 1); /* [publish] */

        if (__builtin_expect(distance == 0, 1)) {
            bool half = ((at + 1) & (POSITION_MASK >> 1)) == 0;
            uint64_t next = head + 1 + (ends ? DONE_ONE : 0);
            if (__builtin_expect(half && at == POSITION_MASK, 0)) /* it wraps: without the carry */
                next -= DONE_ONE;
            if (!cas_seq(&ring->head, &head, next)) { /* [end] */
                if (taker)
                    taker_lost(taker);
                head = load_relaxed(&ring->head);
                continue;
            }
            if (__builtin_expect(half, 0))
                ring_passed_half(ring);
            slot_empty(ring, slot, at, out, more);
            if (taker) {
                taker->taken++;
                taker->last = at;
            }
            return true;
        }
        head = load_relaxed(&ring->head);
        if ((head & POSITION_MASK) == at)
            return false; /* not published yet */
    }
}

/*
 * Takes the next task of the caller's share; if *ends, its last one ends by that. false: what was left has been stolen.
 */
static inline __attribute__((always_inline)) bool share_take(struct ring *ring, struct taker *taker, bool *ends,
                                                             struct entry *out, struct entry *more)
{
    uint64_t word = taker->word;

    while (__builtin_expect(share_left(word) != 0, 1)) {
        uint64_t next = share_after(word, *ends);
        if (__builtin_expect(!cas_seq(&taker->share->word, &word, next), 0)) /* [end] */
            continue;
        uint64_t at = taker->position++ & POSITION_MASK;
        taker->word = next;
        taker->taken++;
        *ends = false;
        slot_empty(ring, slot_at(ring, at), at, out, more);
        return true;
    }
    taker->word = word;
    return false;
}

/* runq_take once a side class is in use; what it does at the head once a share is. */
bool runq_take_by_turn(struct runq *q, struct taker *taker, struct entry *out);
bool runq_take_guarded(struct runq *q, struct taker *taker, bool *owed, struct entry *out);

/* runq_take, by one who knows whether the ring has shares. */
static inline __attribute__((always_inline)) bool runq_take_as(struct runq *q, struct taker *taker, bool *owed,
                                                               struct entry *out, struct entry *more, bool shares)
{
    if (__builtin_expect(load_relaxed(&q->sides) != 0, 0)) { /* what we miss is met by runq_ready, or wakes a worker */
        if (*owed)
            runq_end(q);
        *owed = false;
        bool taken = runq_take_by_turn(q, taker, more);
        entry_brief(out, more);
        return taken;
    }
    struct ring *ring = runq_normal(q);
    if (shares) {
        bool open = share_is_open(taker);
        if (!open && taker->share_most > 1) {
            bool ends = *owed;
            open = share_refill(q, taker, &ends);
            *owed = ends;
        }
        if (open && share_take(ring, taker, owed, out, more))
            return true;
        bool shared = load_relaxed(&ring->shares_used); /* where it is late the head has not moved by a share */
        if (__builtin_expect(shared, 0)) {
            bool ends = *owed, taken = runq_take_guarded(q, taker, &ends, more);
            *owed = ends;
            entry_brief(out, more);
            return taken;
        }
    }
    if (!ring_take(ring, NULL, *owed, taker, out, more))
        return false;
    *owed = false;
    return true;
}

/*
 * Takes the oldest published task of the class whose turn it is, else of any. false: none is ready, or share_lags
 * forbids to take it.
 * If *owed, the caller has a task that has ended and is not in done: it is counted, and *owed reset, at the latest by a
 * take.
 */
static inline bool runq_take(struct runq *q, struct taker *taker, bool *owed, struct entry *out)
{
    return runq_take_as(q, taker, owed, out, out, runq_normal(q)->shares != NULL);
}

#endif
