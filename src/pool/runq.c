/*
 * The run queue; runq.h says what it promises and why the tail is one word.
 *
 * The order of a dequeue among the classes is decided by the worker's own turn counter, so it costs no shared word:
 * of 16 turns one looks at low first, three at normal first, the others at high first. The bound that follows: while a
 * worker keeps taking tasks, the oldest task of any class is passed over by it at most 15 times in a row.
 */
#include "pool/runq.h"

#include "base/alloc.h"
#include "pool/measure.h"
#include "pool/runq_path.h"

#include <sched.h>

/* Measured; see bench/RESULTS.md. */
#define LOST_TAKE_TURNS 64 /* about 1.6 us */
/* Slots beyond what may be in flight, where that is much: a submitter asks early for lines a worker just leaves. */
#define RING_APART 128U
#define RING_DEEP 512U

static void ring_destroy(const struct rp_allocator *allocator, struct ring *ring)
{
    if (!ring)
        return;
    alloc_free_aligned(allocator, ring->slots);
    alloc_free_aligned(allocator, ring->extras);
    alloc_free_aligned(allocator, ring->shares);
    alloc_free(allocator, ring->stamps);
    alloc_free_aligned(allocator, ring);
}

static struct ring *ring_create(const struct rp_allocator *allocator, uint64_t size)
{
    struct ring *ring = alloc_aligned(allocator, CACHE_APART, sizeof(*ring));
    if (!ring)
        return NULL;
    ring->slots = alloc_aligned(allocator, CACHE_APART, size * sizeof(struct slot));
    ring->extras = alloc_aligned(allocator, CACHE_APART, size * sizeof(struct extras));
    if (!ring->slots || !ring->extras) {
        ring_destroy(allocator, ring);
        return NULL;
    }
    ring->mask = size - 1;
    for (uint64_t i = 0; i < size; i++)
        store_relaxed(&ring->slots[i].sequence, i); /* published with the ring */
    return ring;
}

int runq_init(struct runq *q, const struct rp_allocator *allocator, unsigned capacity, unsigned depth, bool shares)
{
    uint64_t want = (uint64_t)depth + (capacity < RING_MAX ? capacity : RING_MAX);
    uint64_t size = RING_MIN;

    if (shares)
        want += RING_SLACK;
    else if (want >= RING_DEEP)
        want += RING_APART;
    while (size < want)
        size *= 2;
    q->size = size;
    q->allocator = allocator;
    struct ring *ring = ring_create(allocator, size);
    if (!ring)
        return -ENOMEM;
    store_release(&q->rings[CLASS_NORMAL], ring);
    return shares ? shares_create(ring, allocator) : 0;
}

void runq_destroy(struct runq *q)
{
    for (unsigned c = 0; c < CLASSES; c++)
        ring_destroy(q->allocator, load_relaxed(&q->rings[c])); /* nobody else is left */
}

static int ring_measure(struct runq *q, struct ring *ring)
{
    ring->stamps = alloc_zeroed(q->allocator, ring->mask + 1, sizeof(*ring->stamps));
    return ring->stamps ? 0 : -ENOMEM;
}

int runq_measure(struct runq *q)
{
    int rc = ring_measure(q, runq_normal(q));

    if (!rc)
        runq_stamp_every(q, 1);
    return rc;
}

int runq_add_class(struct runq *q, unsigned class)
{
    const struct ring *normal = runq_normal(q);

    if (load_relaxed(&q->rings[class])) /* only written under the lock that we hold */
        return 0;
    struct ring *ring = ring_create(q->allocator, q->size);
    if (!ring || (normal->stamps && ring_measure(q, ring))) {
        ring_destroy(q->allocator, ring);
        return -ENOMEM;
    }
    store_relaxed(&ring->stamp_limit, load_relaxed(&normal->stamp_limit)); /* a change may be missed until the next */
    store_seq(&q->sides, 1); /* first: a task in the ring must be looked for */
    store_seq(&q->rings[class], ring);
    return 0;
}

/* --- claim ------------------------------------------------------------------------------------------------------ */

uint32_t runq_flight_reread(struct runq *q, uint64_t tail, uint32_t seen)
{
    uint32_t done = runq_done(q); /* pairs with [end] */

    cas_relaxed(&q->done_seen, &seen, done); /* unless somebody remembered a later one */
    uint32_t flight = (tail_accepted(tail) - done) & FLIGHT_MASK;
    return flight < FLIGHT_MAX ? flight : 0; /* done has passed a stale tail: the CAS will find out */
}

/* Under the ring's lock, since its room and the claim are two words; the holder is in and out without a wait. */
static int claim_side(struct runq *q, unsigned class, unsigned n, bool newcomer, uint64_t *first)
{
    struct ring *ring = load_seq(&q->rings[class]);

    if (load_acquire(&q->tail) & TAIL_CLOSED) /* in a forked child the lock may be held by a thread of its parent */
        return -ESHUTDOWN;
    rp_lock_acquire(&ring->claim_lock);
    uint64_t position = load_relaxed(&ring->tail) & POSITION_MASK; /* under the lock */
    uint64_t tail = load_seq(&q->tail);
    int rc;
    for (;;) {
        unsigned take = room_from(ring, load_acquire(&ring->head), position, n);
        rc = take ? claim_look(q, tail, newcomer, &take) : -EBUSY;
        if (rc) {
            uint64_t now = load_seq(&q->tail);
            if (now == tail)
                break;
            tail = now;
        } else if (cas_seq(&q->tail, &tail, tail_plus(tail, class, take))) {
            store_relaxed(&ring->tail, position + take); /* under the lock */
            *first = position;
            rc = (int)take;
            break;
        }
    }
    rp_lock_release(&ring->claim_lock);
    return rc;
}

int runq_claim(struct runq *q, unsigned class, unsigned n, bool newcomer, uint64_t *first)
{
    return class == CLASS_NORMAL ? runq_claim_normal(q, n, newcomer, first) : claim_side(q, class, n, newcomer, first);
}

unsigned slots_free_first(const struct ring *ring, uint64_t position, unsigned n)
{
    unsigned first = 0;

    while (first < n && !slots_free(ring, position + first, 1))
        first++;
    return first;
}

/* --- publish and take ------------------------------------------------------------------------------------------- */

/* One turn of a wait for another thread that is between two instructions. */
static void spin(unsigned turn)
{
    if (turn < 64)
        cpu_relax();
    else
        sched_yield(); /* it was preempted: give it the CPU */
}

/* Bounded: the slot's consumer is between taking and vacating, or a worker for what fills the ring is being made. */
void slot_await(struct slot *slot, uint64_t position)
{
    for (unsigned spins = 0; load_acquire(&slot->sequence) != position; spins++)
        spin(spins);
}

void runq_stamp_every(struct runq *q, uint64_t every)
{
    for (unsigned c = 0; c < CLASSES; c++) {
        struct ring *ring = load_acquire(&q->rings[c]);
        if (ring)
            store_relaxed(&ring->stamp_limit, UINT64_MAX / every); /* a hint, as where it is read */
    }
}

static uint64_t stamped_every(const struct ring *ring)
{
    uint64_t limit = load_relaxed(&ring->stamp_limit);

    return limit ? UINT64_MAX / limit : 0;
}

uint64_t runq_stamped_every(const struct runq *q)
{
    return stamped_every(runq_normal(q));
}

/* Where nothing is measured this is met at position 0. */
void ring_put_stamped(struct ring *ring, uint64_t position, struct entry *entry, bool last)
{
    uint64_t every = stamped_every(ring);

    if (every) {
        ring->stamps[position & ring->mask] = stamp_now(every);
        entry->plain |= ENTRY_STAMPED;
    }
    ring_put(ring, position, entry, last);
}

void runq_publish(struct runq *q, unsigned class, uint64_t position, const struct entry *entry, bool last)
{
    ring_publish(load_acquire(&q->rings[class]), position, entry, last);
}

/*
 * Two workers that run tasks of some nanoseconds meet at the head each time, where that line's way between their CPUs
 * takes longer than a task: together they do half of what one does alone. So the loser stands back for the time of many
 * such tasks. One that runs longer tasks does not: it would lose more by that. And between two tasks it then makes way
 * (worker_makes_way).
 */
void taker_lost(struct taker *taker)
{
    int64_t now = rp_now();

    if (now - taker->lost_at < (int64_t)(taker->taken - taker->lost_taken) * BRIEF_NS) {
        taker->meets = true;
        cpu_pause(LOST_TAKE_TURNS);
        now = rp_now();
    }
    taker->lost_at = now;
    taker->lost_taken = taker->taken;
}

void ring_passed_half(struct ring *ring)
{
    add_seq(&ring->halves, 1);
}

/* By one who takes a single task, from the head. */
static inline bool class_take_one(struct runq *q, unsigned class, struct entry *out)
{
    struct ring *ring = load_acquire(&q->rings[class]);

    return ring && (class != CLASS_NORMAL || !load_relaxed(&ring->shares_used)) && /* as in runq_take */
           ring_take(ring, NULL, false, NULL, out, out);
}

static bool class_take(struct runq *q, unsigned class, struct taker *taker, struct entry *out)
{
    struct ring *ring = load_acquire(&q->rings[class]);
    bool shared = class == CLASS_NORMAL && load_relaxed(&ring->shares_used); /* as in runq_take */
    bool none = false;

    if (class == CLASS_NORMAL && share_is_open(taker) && share_take(ring, taker, &none, out, out))
        return true;
    return ring && ring_take(ring, shared ? q : NULL, false, taker, out, out);
}

bool runq_take_guarded(struct runq *q, struct taker *taker, bool *owed, struct entry *out)
{
    if (!ring_take(runq_normal(q), q, *owed, taker, out, out))
        return false;
    *owed = false;
    return true;
}

bool runq_take_by_turn(struct runq *q, struct taker *taker, struct entry *out)
{
    static const uint8_t order[16][CLASSES] = {
#define HIGH_FIRST {CLASS_HIGH, CLASS_NORMAL, CLASS_LOW}
#define NORMAL_FIRST                                                                                                   \
    {                                                                                                                  \
        CLASS_NORMAL, CLASS_HIGH, CLASS_LOW                                                                            \
    }
#define LOW_FIRST                                                                                                      \
    {                                                                                                                  \
        CLASS_LOW, CLASS_HIGH, CLASS_NORMAL                                                                            \
    }
        HIGH_FIRST, HIGH_FIRST, HIGH_FIRST, NORMAL_FIRST, HIGH_FIRST, HIGH_FIRST, HIGH_FIRST, NORMAL_FIRST,
        HIGH_FIRST, HIGH_FIRST, HIGH_FIRST, NORMAL_FIRST, HIGH_FIRST, HIGH_FIRST, HIGH_FIRST, LOW_FIRST,
    };

    unsigned turn = taker->turn++ % 16;

    for (unsigned i = 0; i < CLASSES; i++)
        if (class_take(q, order[turn][i], taker, out))
            return true;
    return false;
}

bool runq_take_lowest(struct runq *q, struct entry *out)
{
    struct taker taker = {0};

    return class_take(q, CLASS_LOW, &taker, out) || share_steal(runq_normal(q), out) ||
           class_take(q, CLASS_NORMAL, &taker, out) || class_take(q, CLASS_HIGH, &taker, out);
}

static bool class_drained(struct runq *q, unsigned class)
{
    struct ring *ring = load_acquire(&q->rings[class]);

    if (!ring)
        return true;
    uint64_t head = load_seq(&ring->head); /* before the tail: never beyond it */
    uint64_t tail = class == CLASS_NORMAL ? load_seq(&q->tail) : load_seq(&ring->tail);
    return ((tail ^ head) & POSITION_MASK) == 0;
}

static __attribute__((noinline)) bool class_take_awaiting(struct runq *q, unsigned class, struct entry *out)
{
    struct taker taker = {0};

    for (unsigned spins = 0;; spins++) {
        if (class_take(q, class, &taker, out) || (class == CLASS_NORMAL && share_steal(runq_normal(q), out)))
            return true;
        if (class_drained(q, class) && (class != CLASS_NORMAL || !shares_left(runq_normal(q))))
            return false;
        spin(spins);
    }
}

bool runq_take_class(struct runq *q, unsigned class, struct entry *out)
{
    return class_take_one(q, class, out) || class_take_awaiting(q, class, out);
}

/* --- looks ------------------------------------------------------------------------------------------------------ */

static bool ring_ready(struct ring *ring)
{
    uint64_t head = load_seq(&ring->head) & POSITION_MASK;
    uint64_t sequence = load_seq(&slot_at(ring, head)->sequence);

    return ahead(sequence, head + 1) >= 0 || (load_seq(&ring->head) & POSITION_MASK) != head;
}

bool runq_incoming(struct runq *q)
{
    if (ring_ready(runq_normal(q)))
        return true;
    if (!load_seq(&q->sides))
        return false;
    for (unsigned c = CLASS_HIGH; c <= CLASS_LOW; c++) {
        struct ring *ring = load_seq(&q->rings[c]);
        if (ring && ring_ready(ring))
            return true;
    }
    return false;
}

/* The rings first: see share.h. */
bool runq_ready(struct runq *q)
{
    return runq_incoming(q) || shares_left(runq_normal(q));
}

/*
 * All that was taken of a ring, given its head as it was read after `halves`: so that is late by one or not at all,
 * which the bit tells whose changes it counts.
 */
static uint64_t taken_since(uint64_t halves, uint64_t head)
{
    head &= POSITION_MASK;
    halves += (halves ^ (head >> (POSITION_BITS - 1))) & 1;
    return (halves >> 1 << POSITION_BITS) + head;
}

static uint64_t ring_taken(const struct ring *ring)
{
    uint64_t halves = load_seq(&ring->halves);

    return taken_since(halves, load_seq(&ring->head));
}

static uint64_t sides_taken(const struct runq *q)
{
    uint64_t sum = 0;

    for (unsigned c = CLASS_HIGH; c <= CLASS_LOW; c++) {
        const struct ring *ring = load_acquire(&q->rings[c]);
        if (ring)
            sum += ring_taken(ring);
    }
    return sum;
}

bool runq_drained(struct runq *q)
{
    return runq_queued(q) == 0;
}

/* The heads are read before the tail, so that the difference is never negative. */
unsigned runq_queued(const struct runq *q)
{
    const struct ring *ring = runq_normal(q);
    uint32_t heads = (uint32_t)(sides_taken(q) + load_seq(&ring->head)) & FLIGHT_MASK;
    unsigned left = shares_left(ring);

    return ((tail_accepted(load_seq(&q->tail)) - heads) & FLIGHT_MASK) + left;
}

unsigned runq_flight(const struct runq *q)
{
    uint32_t done = runq_done(q);

    return (tail_accepted(load_seq(&q->tail)) - done) & FLIGHT_MASK;
}

/*
 * Done, the heads, the tail in this order, so no difference is negative; the same once more means that they were of one
 * moment. What is left in shares may be seen before it is taken there.
 */
struct runq_counts runq_count(const struct runq *q)
{
    const struct ring *ring = runq_normal(q);
    struct runq_counts counts;

    for (int tries = 0; tries < 8; tries++) {
        uint32_t done = runq_done(q);
        uint64_t halves = load_seq(&ring->halves);
        uint64_t head = load_seq(&ring->head);
        uint64_t sides = sides_taken(q);
        uint64_t heads = taken_since(halves, head) + sides;
        unsigned left = shares_left(ring);
        uint64_t tail = load_seq(&q->tail);
        unsigned unended = ((uint32_t)heads - done) & FLIGHT_MASK;

        left = left < unended ? left : unended;
        counts.taken = unended - left;
        counts.queued = ((tail_accepted(tail) - (uint32_t)heads) & FLIGHT_MASK) + left;
        counts.done = heads - unended;
        if (load_seq(&ring->head) == head && sides_taken(q) == sides && runq_done(q) == done &&
            load_seq(&q->tail) == tail)
            break;
    }
    return counts;
}

bool runq_closed(const struct runq *q)
{
    return load_seq(&q->tail) & TAIL_CLOSED;
}
