/*
 * The completion queue: many post, one takes, and it neither overflows nor wakes anybody who is awake.
 *
 * Cells. A generation of cells is a ring; a poster gets the next ticket by one fetch-and-add and writes the cell that
 * the ticket names. There is nothing to check before writing, since `owed`, the completions reserved and not yet taken,
 * never exceeds the cells of the generation that its posters use:
 *
 *    reserve   owed + 1; beyond the newest generation's bound it first links a larger one behind it (at least twice as
 *              large), or gives the place back and fails. So it is submit that meets -ENOMEM, never the end of a task.
 *    post      ticket = tail++; write user_data; store the word with ticket + 1 [publish].
 *    take      the cell at head holds head + 1 [publish]: read it, go on; then owed - taken.
 *
 * Why ticket t finds the cell of t - size empty. Let R be the last of the reservations behind the tickets 0..t of this
 * generation in the order of their additions to `owed`. R's sum did not exceed size (or its poster would have been sent
 * on to a larger generation), and counts t + 1 additions at least, so t + 1 - size completions of this generation had
 * been taken and subtracted before. All changes of `owed` and of `tail` are read-modify-writes that acquire and
 * release: the consumer's reading happens before its subtraction, that before R's addition, that before R's ticket, and
 * that before t or is t. For the same reason no cell needs to be cleared: a word of another round holds another ticket.
 *
 * A closed generation. Whoever grows links the new one, makes it `cells`, then sets CELLS_CLOSED in the old tail; the
 * tickets given out before are `final`. A poster whose ticket says closed goes on to `next`. The consumer leaves a
 * generation when it has taken `final` completions. Posters with an old pointer may still knock there, so it is kept
 * until the consumer has brought `owed` to 0: then nobody is between reserve and the end of his post's writing, and who
 * reserves from then on finds the consumer's own generation or a later one in `cells`. At most twice the memory of the
 * largest backlog, therefore.
 *
 * Rejected: a bounded ring with a list behind it (two structures, and an order between them to argue); a linked list
 * with a node per completion (an allocation each, and twice the cache misses); liburcu's wfcqueue (the same list, with
 * atomics that ThreadSanitizer cannot see). What all share: a poster that is preempted between its ticket and its word
 * hides those behind it until it runs again.
 *
 * Waking. `wake` is 0 while the consumer is awake. Going to sleep it stores what is to be done to wake it, and looks
 * again; a poster publishes, then reads it:
 *
 *    consumer                                poster
 *    wake = how             (seq)            word = ticket + 1      (seq) [publish]
 *    look at the cell       (seq)            look at wake           (seq)
 *
 * One of the two sees the other's store. The poster that finds something there and takes it away by CAS is the one that
 * rings; all others go on without a system call. For a consumer that wants n, the futex bit carries a threshold: the
 * ticket of the last one it waits for. Posters of earlier tickets stay silent. That ticket may be published before an
 * earlier one, so the threshold is only set while it has not been given out (its poster will then read `wake` after
 * the consumer's store, and ring); when it has, or when a closed generation ends the count of tickets, any poster
 * rings.
 *
 * The end. destroy stores WAKE_DEAD and takes what is there; a poster that reads DEAD after its [publish] takes what is
 * there itself, under the lock. By the same two columns every completion is taken by one of them, and whoever brings
 * `owed` to CLOSED and 0 frees the queue: after a grace period, which ends the sections of those that only looked, and
 * after the last of those counted in `ringing`, who left their section to ring.
 */
#include "pool/completion.h"

#include "base/alloc.h"
#include "base/fork.h"
#include "base/futex.h"
#include "base/rcu.h"
#include "pool/pool.h"

#include <errno.h>
#include <limits.h>

#define ENTRIES_DEFAULT 256U
#define ENTRIES_LEAST 4U
#define ENTRIES_MOST (1U << 24)
#define CELLS_MOST (UINT64_C(1) << 31) /* a word holds half of a ticket */

#define SPIN_LEAST_NS 1000
#define SPIN_MOST_NS 20000
#define VAIN_SOON_NS 1000
#define VAIN_PAUSES 8 /* some 100 to 200 ns. Measured; see bench/RESULTS.md */
#define PAUSES                                                                                                         \
    16 /* between two looks of one who spins, some 400 ns: so that completions come in lines, not one by one */

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/*
 * No fork falls between two halves of a change to the generations, so that a child can free them. For moments only:
 * memory is got and given back outside.
 */
static struct rp_lock structure_lock;

static void before_fork(void)
{
    rp_lock_acquire(&structure_lock);
}

static void after_fork(void)
{
    rp_lock_release(&structure_lock);
}

static const struct fork_hooks hooks = {before_fork, after_fork, after_fork};

static inline bool is_foreign(const struct rp_cq *cq)
{
    return cq->generation != fork_generation();
}

/* --- cells ------------------------------------------------------------------------------------------------------ */

static struct cells *cells_make(struct rp_cq *cq, uint64_t size)
{
    struct cells *cells = alloc_aligned(&cq->allocator, CACHE_APART, sizeof(*cells) + size * sizeof(struct cell));

    if (!cells)
        return NULL;
    cells->mask = size - 1;
    cells->bound = cq->limit && cq->limit < size ? cq->limit : size;
    store_relaxed(&cells->final, UINT64_MAX); /* published with the generation */
    return cells;
}

static uint64_t power_of_two(uint64_t n)
{
    return n <= 1 ? 1 : UINT64_C(1) << (64 - __builtin_clzll(n - 1));
}

static void rung_by(struct rp_cq *cq)
{
    add_seq(&cq->rung, 1);
    futex_wake(&cq->rung, 1);
}

/* Makes room for `owed` completions. Under cq->lock. */
static int grow_locked(struct rp_cq *cq, uint64_t owed)
{
    struct cells *old = load_relaxed(&cq->cells); /* changes under this lock only */
    uint64_t size = power_of_two(owed);

    if (owed <= old->bound)
        return 0;
    if (size < 2 * (old->mask + 1))
        size = 2 * (old->mask + 1);
    struct cells *new = size <= CELLS_MOST ? cells_make(cq, size) : NULL;
    if (!new)
        return -ENOMEM;
    rp_lock_acquire(&structure_lock);
    old->next = new;
    store_release(&cq->cells, new); /* pairs with the loads in put and cq_reserve */
    rp_lock_release(&structure_lock);
    uint64_t given = or_seq(&old->tail, CELLS_CLOSED);
    store_seq(&old->final, given); /* [final] */
    uint64_t wake = load_seq(&cq->wake);
    if (wake != WAKE_DEAD && wake & WAKE_FUTEX && cas_seq(&cq->wake, &wake, 0))
        rung_by(cq); /* its threshold counts tickets of the old one */
    return 0;
}

static __attribute__((noinline)) int reserve_slow(struct rp_cq *cq, uint64_t owed)
{
    int rc = -ESHUTDOWN;

    if (!(owed & OWED_CLOSED)) {
        rc = -EAGAIN;
        if (!cq->limit || owed <= cq->limit) {
            rp_lock_acquire(&cq->lock);
            rc = grow_locked(cq, owed);
            rp_lock_release(&cq->lock);
        }
    }
    if (rc)
        cq_unreserve(cq);
    return rc;
}

int cq_reserve(struct rp_cq *cq)
{
    if (unlikely(is_foreign(cq)))
        return -ECHILD;
    uint64_t owed = add_acq_rel(&cq->owed, 1) + 1;
    if (likely(owed <= load_acquire(&cq->cells)->bound))
        return 0;
    return reserve_slow(cq, owed);
}

/* The word of a cell: the consumer tells by the upper half that it is of this round. */
static inline uint64_t word_of(uint64_t ticket, int result)
{
    return (ticket + 1) << 32 | (uint32_t)result;
}

static inline bool word_is_of(uint64_t word, uint64_t ticket)
{
    return (uint32_t)(word >> 32) == (uint32_t)(ticket + 1);
}

static inline uint64_t put(struct rp_cq *cq, uint64_t user_data, int result)
{
    struct cells *cells = load_acquire(&cq->cells);
    uint64_t ticket;

    while (unlikely((ticket = add_acq_rel(&cells->tail, 1)) & CELLS_CLOSED))
        cells = cells->next;
    struct cell *cell = &cells->cell[ticket & cells->mask];
    cell->user_data = user_data;
    store_seq(&cell->word, word_of(ticket, result)); /* [publish] */
    return ticket;
}

/* --- taking ----------------------------------------------------------------------------------------------------- */

/* Frees the generations before `end`; those are nobody's any more. */
static void cells_free(struct rp_cq *cq, struct cells *from, const struct cells *end)
{
    while (from != end) {
        struct cells *next = from->next;
        alloc_free_aligned(&cq->allocator, from);
        from = next;
    }
}

/* Subtracts what was taken. Returns what is owed still. */
static uint64_t settle(struct rp_cq *cq, unsigned taken)
{
    uint64_t left = sub_acq_rel(&cq->owed, taken) - taken;

    if (likely(left || cq->oldest == cq->place.at) || load_seq(&cq->leaving))
        return left;
    struct cells *used = cq->oldest;
    rp_lock_acquire(&structure_lock);
    cq->oldest = cq->place.at;
    rp_lock_release(&structure_lock);
    cells_free(cq, used, cq->place.at);
    return left;
}

/* Goes on to the next generation if this one is used up. */
static inline bool generation_ended(struct place *place)
{
    if (likely(place->head != load_seq(&place->at->final))) /* [final] */
        return false;
    *place = (struct place){.at = place->at->next};
    return true;
}

/* Whether the completion at a place, which this brings to its generation, is there. Sequentially consistent. */
static bool ready_at(struct place *place)
{
    do
        if (word_is_of(load_seq(&place->at->cell[place->head & place->at->mask].word), place->head)) /* [publish] */
            return true;
    while (generation_ended(place));
    return false;
}

bool cq_ready(struct rp_cq *cq)
{
    return ready_at(&cq->place);
}

bool cq_pump_left(struct rp_cq *cq)
{
    struct place place = cq->place;
    uint64_t none = 0;

    add_seq(&cq->leaving, 1); /* before the pump is anybody's, who would free the cells that are looked at here */
    cas_seq(&cq->wake, &none, WAKE_PUMP);
    bool ready = ready_at(&place);
    sub_seq(&cq->leaving, 1);
    return !ready;
}

/* Takes without settling. */
static unsigned collect(struct rp_cq *cq, struct rp_completion *out, unsigned max)
{
    struct place *place = &cq->place;
    unsigned n = 0;

    while (n < max) {
        struct cell *cell = &place->at->cell[place->head & place->at->mask];
        uint64_t word = load_acquire(&cell->word); /* [publish] */
        if (word_is_of(word, place->head)) {
            if (out)
                out[n] = (struct rp_completion){.user_data = cell->user_data, .result = (int)(uint32_t)word};
            n++;
            place->head++;
        } else if (!generation_ended(place)) {
            break;
        }
    }
    return n;
}

unsigned cq_take(struct rp_cq *cq, struct rp_completion *out, unsigned max)
{
    unsigned n = collect(cq, out, max);

    if (n)
        settle(cq, n);
    return n;
}

bool cq_peek(struct rp_cq *cq, unsigned i, struct rp_completion *out)
{
    uint64_t ticket = cq->place.head + i;
    struct cells *at = cq->place.at;
    struct cell *cell = &at->cell[ticket & at->mask];
    uint64_t word = load_acquire(&cell->word); /* [publish] */

    if (!word_is_of(word, ticket))
        return false;
    *out = (struct rp_completion){.user_data = cell->user_data, .result = (int)(uint32_t)word};
    return true;
}

void cq_drop_head(struct rp_cq *cq, unsigned n)
{
    cq->place.head += n;
    settle(cq, n);
}

/* --- posting ---------------------------------------------------------------------------------------------------- */

void cq_ringing_end(struct rp_cq *cq)
{
    /* Release: the ring is over before the queue is freed or parted from its ring. It may be gone from here on. */
    if (sub_acq_rel(&cq->ringing, 1) == (RINGING_AWAITED | 1))
        futex_wake(&cq->ringing, INT_MAX);
}

void cq_ringing_wait(struct rp_cq *cq)
{
    uint32_t ringing = or_seq(&cq->ringing, RINGING_AWAITED) | RINGING_AWAITED;

    while (ringing != RINGING_AWAITED) {
        futex_wait(&cq->ringing, ringing, 0);
        ringing = load_seq(&cq->ringing);
    }
    and_seq(&cq->ringing, ~RINGING_AWAITED);
}

static void cq_free(struct rp_cq *cq)
{
    struct rp_allocator allocator = cq->allocator;

    if (!is_foreign(cq)) {
        rcu_wait();
        cq_ringing_wait(cq);
    }
    delivery_close(cq);
    cells_free(cq, cq->oldest, NULL);
    alloc_free_aligned(&allocator, cq);
}

/*
 * For a consumer that is gone: takes what is there, and gives back `held` places. Whether nothing is owed any more.
 * cq_ready looks sequentially consistently, as the consumer's column demands; collect, which does not, takes what it
 * saw.
 */
static bool take_for_dead(struct rp_cq *cq, unsigned held)
{
    unsigned n = held;

    rp_lock_acquire(&cq->lock);
    while (cq_ready(cq))
        n += collect(cq, NULL, INT_MAX);
    rp_lock_release(&cq->lock);
    return n && sub_acq_rel(&cq->owed, n) - n == OWED_CLOSED;
}

/* A poster found that somebody wants to be told. In the section that cq_post opened, which this ends. */
static __attribute__((noinline)) void tell(struct rp_cq *cq, uint64_t ticket, uint64_t wake)
{
    while (wake && wake != WAKE_DEAD) {
        if (ticket + 1 < wake >> WAKE_SHIFT)
            break;
        if (cas_seq(&cq->wake, &wake, 0)) {
            add_seq(&cq->ringing, 1);
            rcu_exit();
            delivery_ring(cq, wake);
            cq_ringing_end(cq);
            return;
        }
        wake = load_seq(&cq->wake);
    }
    if (wake != WAKE_DEAD) {
        rcu_exit();
        return;
    }
    add_seq(&cq->ringing, 1);
    rcu_exit();
    bool last = take_for_dead(cq, 0);
    cq_ringing_end(cq);
    if (last)
        cq_free(cq);
}

void cq_post(struct rp_cq *cq, uint64_t user_data, int result)
{
    if (unlikely(is_foreign(cq)))
        return;
    rcu_enter(); /* from the publishing on the queue may be freed by others; not while this section lasts */
    uint64_t ticket = put(cq, user_data, result);
    uint64_t wake = load_seq(&cq->wake);
    if (unlikely(wake))
        tell(cq, ticket, wake);
    else
        rcu_exit();
}

void cq_unreserve(struct rp_cq *cq)
{
    if (unlikely(is_foreign(cq)))
        return;
    if (unlikely(sub_acq_rel(&cq->owed, 1) - 1 == OWED_CLOSED))
        cq_free(cq);
}

int rp_cq_post(struct rp_cq *cq, uint64_t user_data, int result)
{
    if (!cq)
        return -EINVAL;
    int rc = rcu_attach();
    if (!rc)
        rc = cq_reserve(cq);
    if (!rc)
        cq_post(cq, user_data, result);
    return rc;
}

/* --- waiting ---------------------------------------------------------------------------------------------------- */

int cq_enter(struct rp_cq *cq)
{
    uint32_t found = 0;

    if (!cq)
        return -EINVAL;
    if (is_foreign(cq))
        return -ECHILD;
    if (likely(cas_acquire(&cq->consuming, &found, CONSUMER_INSIDE))) /* from cq_leave of the consumer before */
        return 0;
    return load_relaxed(&cq->consuming) & CONSUMER_GONE ? -ESHUTDOWN : -EBUSY; /* either is a fact for this call */
}

void cq_leave(struct rp_cq *cq)
{
    /* Only the bit of the destroyer can stand beside ours; the queue may be gone from here on. */
    if (unlikely(exchange_release(&cq->consuming, 0) & CONSUMER_AWAITED))
        futex_wake(&cq->consuming, 1);
}

/* Looks around for up to `need` completions before it sleeps; longer where that has paid before. */
static bool spin(struct rp_cq *cq, unsigned need, int64_t deadline)
{
    struct cells *at = cq->place.at;
    uint64_t last = cq->place.head + (need <= at->mask ? need - 1 : at->mask);

    if (!cq->spin_most_ns)
        return false;
    int64_t until = rp_now() + cq->spin_ns;
    if (deadline && deadline < until)
        until = deadline;
    do {
        for (int i = 0; i < PAUSES; i++)
            cpu_relax();
        /* Relaxed: what is taken is looked at again. */
        if (word_is_of(load_relaxed(&at->cell[last & at->mask].word), last) || load_relaxed(&at->final) != UINT64_MAX) {
            cq->spin_ns = 2 * cq->spin_ns < cq->spin_most_ns ? 2 * cq->spin_ns : cq->spin_most_ns;
            return true;
        }
    } while (rp_now() < until);
    cq->spin_ns = cq->spin_ns / 2 > SPIN_LEAST_NS ? cq->spin_ns / 2 : SPIN_LEAST_NS;
    return false;
}

/* Puts the word into wake, which is 0, and looks again. Whether to sleep. */
static bool fall_asleep(struct rp_cq *cq, unsigned need, uint64_t *word)
{
    uint64_t last = cq->place.head + need, none = 0;

    *word = last << WAKE_SHIFT | WAKE_FUTEX;
    if (!cas_seq(&cq->wake, &none, *word) || load_seq(&cq->dying)) /* [dying] */
        return false;
    if (load_seq(&cq->place.at->tail) < last) /* open, and the last of them has no ticket yet */
        return true;
    uint64_t any = WAKE_FUTEX;
    if (!cas_seq(&cq->wake, word, any))
        return false;
    *word = any;
    return !cq_ready(cq);
}

/* Sleeps until `need` more are there, or a part of them, or the deadline. */
static void sleep_for(struct rp_cq *cq, unsigned need, int64_t deadline)
{
    uint64_t word;
    uint32_t seen = load_relaxed(&cq->rung); /* before wake is set: a ring for that changes it */

    if (fall_asleep(cq, need, &word)) {
        bool task = rp_blocking_begin() != -EPERM;
        while (load_seq(&cq->wake) == word)
            if (futex_wait(&cq->rung, seen, deadline) == -ETIMEDOUT)
                break;
        if (task)
            rp_blocking_end();
    }
    cas_seq(&cq->wake, &word, 0); /* or it is 0 already, or DEAD */
}

/*
 * A consumer that does nothing but poll has the line of the next completion again and again when that is about to be
 * written. It pauses between two looks, during which some gather: true. One that does something else in between does
 * not.
 */
static bool gather(struct rp_cq *cq)
{
    int64_t now = rp_now();
    bool soon = now - cq->vain_at < VAIN_SOON_NS && cq->spin_most_ns;

    for (int i = 0; i < VAIN_PAUSES && soon; i++)
        cpu_relax();
    cq->vain_at = now;
    return soon;
}

static int wait_for(struct rp_cq *cq, struct rp_completion *out, unsigned max, unsigned min, int64_t deadline)
{
    unsigned n = cq_take(cq, out, max);

    if (!n && !min && gather(cq))
        n = cq_take(cq, out, max);

    while (n < min && !load_relaxed(&cq->dying)) { /* a hint; fall_asleep looks again */
        if (deadline && rp_now() >= deadline)
            break;
        delivery_disarm(cq);
        if (!spin(cq, min - n, deadline))
            sleep_for(cq, min - n, deadline);
        n += cq_take(cq, out + n, max - n);
    }
    n = delivery_arm(cq, out, n, max);
    if (n || !min)
        return (int)n;
    return load_relaxed(&cq->dying) ? -ESHUTDOWN : -ETIMEDOUT; /* relaxed: it stays */
}

int rp_cq_wait(struct rp_cq *cq, struct rp_completion *out, unsigned max, unsigned min, int64_t deadline)
{
    if (!out || !max || max > INT_MAX || min > max || deadline < 0)
        return -EINVAL;
    int rc = cq_enter(cq);
    if (unlikely(rc))
        return rc;
    if (unlikely(cq->per_completion && load_relaxed(&cq->attached))) /* changes under cq_enter only */
        rc = -EBUSY;
    else
        rc = wait_for(cq, out, max, min, deadline);
    cq_leave(cq);
    return rc;
}

/* --- the beginning and the end ---------------------------------------------------------------------------------- */

static int options_check(const struct rp_cq_options *options)
{
    for (size_t i = 0; i < sizeof(options->reserved) / sizeof(options->reserved[0]); i++)
        if (options->reserved[i])
            return -EINVAL;
    if (options->entries > ENTRIES_MOST || (unsigned)options->delivery > RP_CQ_POLL ||
        (unsigned)options->backend > RP_BACKEND_EPOLL || (options->per_completion && !options->ring) ||
        (options->delivery && !options->ring))
        return -EINVAL;
    return 0;
}

static int64_t spin_most(void)
{
    cpu_set_t set;

    /* On one CPU who spins keeps the others from posting. A larger machine than the set holds has more than one. */
    return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) < 2 ? 0 : SPIN_MOST_NS;
}

static int cq_init(struct rp_cq *cq, const struct rp_cq_options *options)
{
    unsigned entries = options->entries ? options->entries : ENTRIES_DEFAULT;
    struct cells *cells;

    cq->generation = fork_generation();
    cq->fd = cq->ring_fd = -1;
    cq->limit = options->limit;
    cq->spin_most_ns = spin_most();
    cq->spin_ns = SPIN_LEAST_NS;
    cells = cells_make(cq, power_of_two(entries > ENTRIES_LEAST ? entries : ENTRIES_LEAST));
    if (!cells)
        return -ENOMEM;
    store_relaxed(&cq->cells, cells); /* nobody else knows the queue yet */
    cq->place.at = cq->oldest = cells;
    return options->ring ? delivery_open(cq, options) : 0;
}

int rp_cq_create(struct rp_cq **out, const struct rp_cq_options *options)
{
    static const struct rp_cq_options none;
    struct rp_allocator allocator;

    if (!out)
        return -EINVAL;
    *out = NULL;
    options = options ? options : &none;
    int rc = options_check(options);
    if (!rc)
        rc = alloc_init(&allocator, options->allocator);
    if (!rc)
        rc = rcu_attach();
    if (!rc)
        rc = fork_register(&hooks);
    if (rc)
        return rc;
    struct rp_cq *cq = alloc_aligned(&allocator, CACHE_APART, sizeof(*cq));
    if (!cq)
        return -ENOMEM;
    cq->allocator = allocator;
    rc = cq_init(cq, options);
    if (rc) {
        delivery_close(cq);
        cells_free(cq, cq->oldest, NULL);
        alloc_free_aligned(&allocator, cq);
        return rc;
    }
    *out = cq;
    return 0;
}

int rp_cq_detach(struct rp_cq *cq)
{
    int rc = cq_enter(cq);

    if (rc)
        return rc;
    rc = delivery_detach(cq);
    cq_leave(cq);
    return rc;
}

/* Sends the consumer away for good. */
static int consumer_dismiss(struct rp_cq *cq)
{
    uint32_t found;

    store_seq(&cq->dying, 1); /* [dying]: before it sleeps the consumer sets wake, then reads this */
    uint64_t wake = load_seq(&cq->wake);
    if (wake & WAKE_FUTEX && cas_seq(&cq->wake, &wake, 0))
        rung_by(cq);
    for (;;) {
        found = 0;
        if (cas_seq(&cq->consuming, &found, CONSUMER_GONE))
            return 0;
        found = or_seq(&cq->consuming, CONSUMER_AWAITED);
        if (found & CONSUMER_GONE)
            return -EALREADY;
        if (found)
            futex_wait(&cq->consuming, found | CONSUMER_AWAITED, 0);
        else
            and_seq(&cq->consuming, ~(uint32_t)CONSUMER_AWAITED);
    }
}

int rp_cq_destroy(struct rp_cq *cq)
{
    if (!cq)
        return -EINVAL;
    if (is_foreign(cq)) {
        cq_free(cq);
        return 0;
    }
    int rc = rcu_attach();
    if (rc)
        return rc;
    if (load_seq(&cq->attached)) {
        /* Before anything else, as it may refuse. */
        while ((rc = rp_cq_detach(cq)) == -EBUSY)
            sched_yield(); /* the consumer is inside; a ring's does not stay */
        if (rc < 0)
            return rc == -ESHUTDOWN ? -EALREADY : rc;
    }
    rc = consumer_dismiss(cq);
    if (rc)
        return rc;
    add_seq(&cq->owed, OWED_CLOSED + 1); /* and a place for this call */
    store_seq(&cq->wake, WAKE_DEAD);     /* the consumer is gone: posters take for it */
    if (take_for_dead(cq, 1))
        cq_free(cq);
    return 0;
}
