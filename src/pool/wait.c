/*
 * Waiting for futures: helping first, then a short look, then sleep; and never for ever.
 *
 * HELPING. A worker that waits for a future of its own pool which nobody has begun claims it and runs it in place. The
 * claim is one bit; but the future's entry is still in the run queue, where it takes a place in the ring and in flight.
 * To leave it there as a blank would fill the ring with blanks while all workers help. Instead places are swapped: the
 * helper takes the head of the queue, which is the entry of some task X, and leaves X at the future's place; whoever
 * takes the future's entry finds X there and runs it. So each entry taken is one task run, all accounts stay as they
 * are, and X, the next to run, waits for the turn of the one that was preferred to it.
 *
 *     helper                                            who takes the future's entry
 *       A1 claim: RUNNING | PLACE                         B1 claim fails, sees PLACE
 *       A2 take the head of the queue (same class)        B2 waits while place is OPEN
 *       A3 its own entry: all is done                     B3 FILLED: takes what is there
 *          X: swapped = X, place = FILLED                    EMPTY: nothing to do, and nothing to account for:
 *          nothing there: place = EMPTY                      the helper accounts for the entry that was taken here
 *
 * Who takes its own entry in A2, as most do, is through with it. The others go through A3 one at a time, under a lock
 * of the pool, and if X only keeps a place that is settled, X becomes what that is kept for, and so on to the end of
 * that chain. Else futures could end up in a ring of which each keeps its place for the next one, with their entries in
 * no queue: taken by nobody, held for ever. With it the last of them to settle follows the chain of the others to its
 * own entry.
 *
 * A2 finds nothing only if the future's entry was taken already. B2 is bounded by A2 and A3, some instructions, unless
 * a helper is preempted. X may itself have been claimed beside the queue, or cancelled: whoever takes it finds that
 * out.
 *
 * Who runs a queued future in place is no guest of its pool. From the claim to [end] an entry is in flight that he has
 * to account for, and no pool is freed before nothing is in flight; a section that he begins before [end] keeps it from
 * there on, as destroy waits for a grace period after that, until the end is told, or until he has become a guest to
 * tell more than a waiter (job_finish_unheld). One that has no entry is run by a guest.
 *
 * Not without end: a worker helps while half of its stack is left.
 *
 * SLEEPING. A worker that sleeps lets the pool have one more (extra.c), because what it waits for may need one. Where
 * max_extra are there already it looks again from time to time.
 * DEADLOCK. See knot.c.
 */
#include "base/alloc.h"
#include "base/cpu.h"
#include "base/futex.h"
#include "pool/knot.h"
#include "pool/then.h"

#include <errno.h>
#include <limits.h>

#define SPIN_NS 20000
#define SPIN_FUTURES 8
#define PAUSES 3 /* between two looks, each of which takes the line away from a runner that is about to write it */
#define WAITV_MAX 128
#define LOOK_NS 10000000
#define SHORT_NS 1000000
#define OWN_LOOKS 4
#define SHORT_LOOKS 100

/* --- places ----------------------------------------------------------------------------------------------------- */

/* Whether the entry only keeps a place that is settled: then *entry becomes what it is kept for. */
static bool place_chase(struct entry *entry)
{
    struct job *job = entry_job(entry);

    return job && job->ops->kept && job->ops->kept(job) && job->ops->swapped(job, entry);
}

/* A3 of an entry that is not its own. */
static void place_leave(struct pool *pool, struct rp_future *future, bool taken, struct entry *head)
{
    rp_lock_acquire(&pool->place_lock);
    while (taken && entry_job(head) != &future->job && place_chase(head))
        ;
    if (!taken || entry_job(head) != &future->job) {
        future_ref(future); /* the entry's that is left there; its share is the run's */
        if (taken)
            future->swapped = *head;
        store_release(&future->place, taken ? PLACE_FILLED : PLACE_EMPTY); /* [place] pairs with that in place_take */
    }
    rp_lock_release(&pool->place_lock);
}

static void place_settle(struct pool *pool, struct rp_future *future)
{
    struct entry head;
    bool taken = runq_take_class(&pool->runq, (unsigned)future->task.priority, &head);

    if (!taken || entry_job(&head) != &future->job)
        place_leave(pool, future, taken, &head);
}

bool place_take(struct rp_future *future, struct entry *entry)
{
    uint32_t place;

    for (unsigned spins = 0; (place = load_acquire(&future->place)) == PLACE_OPEN; spins++) { /* [place] */
        if (spins < 64)
            cpu_relax();
        else
            sched_yield(); /* the helper was preempted: give it the CPU */
    }
    if (place == PLACE_FILLED)
        *entry = future->swapped;
    return place == PLACE_FILLED;
}

/* --- helping ---------------------------------------------------------------------------------------------------- */

static inline int drop_reason(struct pool *pool, const struct entry *entry)
{
    return load_seq(&pool->dropping) ? -ESHUTDOWN : entry->deadline && rp_now() >= entry->deadline ? -ETIMEDOUT : 0;
}

/* It was claimed here beside the queue: its entry's place in flight is this run's, which is no guest. */
static void run_queued(struct pool *pool, struct rp_future *future, bool onward)
{
    struct entry entry;
    future_entry(future, &entry);

    place_settle(pool, future);
    int reason = drop_reason(pool, &entry);
    if (reason) {
        add_seq(&pool->guests, 1); /* as long as it is in flight */
        task_drop(pool, &entry, reason);
        guest_leave(pool);
        return;
    }
    if (pool->measured)
        entry_measure(&entry);
    bool returned = frame_run(pool, worker_self(pool), &entry, FRAME_PLACE);
    job_finish_unheld(pool, &future->job, returned ? JOB_RETURNED : JOB_PANICKED, onward);
}

/* It was claimed here, and has no entry. By a guest. */
static void run_unqueued(struct pool *pool, struct rp_future *future, bool onward)
{
    struct entry entry;
    future_entry(future, &entry);
    int reason = drop_reason(pool, &entry);

    if (reason) {
        frame_drop(pool, &entry, reason, false);
        add_relaxed(&pool->outside_dropped, 1); /* a counter */
        fates_count(&pool->fates, reason);
        return;
    }
    if (pool->measured)
        entry_measure(&entry);
    bool returned = frame_run(pool, worker_self(pool), &entry, FRAME_CALLER);
    job_finish(pool, &future->job, returned ? JOB_OUTSIDE_RETURNED : JOB_OUTSIDE_PANICKED, onward);
}

/*
 * The pool where it is queued, set before that could be seen, and kept there by a claim; before that only to be
 * compared.
 */
static inline struct pool *core_of(struct rp_future *future)
{
    return load_acquire(&load_acquire(&future->pool)->handle.core);
}

static bool help_queued(struct rp_future *future, bool worker, bool onward)
{
    if ((worker && !worker_self(core_of(future))) || !future_claim(future, FUTURE_QUEUED, FUTURE_PLACE))
        return false;
    run_queued(core_of(future), future, onward);
    return true;
}

static bool help_ready(struct rp_future *future, bool worker, bool onward)
{
    struct pool *pool;

    if (guest_enter(load_acquire(&future->pool), &pool))
        return false;
    future_ref(future); /* the list's, as the run takes its share; before it can give that back */
    bool claimed = (!worker || worker_self(pool)) && future_claim(future, FUTURE_READY, 0);
    if (claimed)
        run_unqueued(pool, future, onward);
    else
        future_unref(future);
    guest_leave(pool);
    return claimed;
}

bool future_run_here(struct rp_future *future, bool worker, bool onward)
{
    uint32_t word = load_acquire(&future->word);

    if (future->kind & KIND_RETRY || word & (FUTURE_RUNNING | FUTURE_DONE) || !(word & (FUTURE_QUEUED | FUTURE_READY)))
        return false;
    if (worker && !frame_may_nest())
        return false;
    return word & FUTURE_QUEUED ? help_queued(future, worker, onward) : help_ready(future, worker, onward);
}

/* What a continuation continues, held; NULL: it depends on nothing any more. */
static struct rp_future *source_of(struct rp_future *future)
{
    struct rp_future *source = NULL;

    if (!(future->kind & KIND_NEXT) || load_acquire(&future->word) & ~(FUTURE_WAITERS | FUTURE_WATCHED))
        return NULL;
    rp_lock_acquire(&future->lock);
    if (future->source) {
        source = future->source;
        future_ref(source);
    }
    rp_lock_release(&future->lock);
    return source;
}

/* The first of the chain that the future continues, held. */
struct rp_future *future_root(struct rp_future *future)
{
    struct rp_future *source;

    future_ref(future);
    while ((source = source_of(future))) {
        future_unref(future);
        future = source;
    }
    return future;
}

bool future_help(struct rp_future *future)
{
    if (!frame_current())
        return false;
    struct rp_future *root = future_root(future);
    bool ran = future_run_here(root, true, root != future);
    future_unref(root);
    return ran;
}

/* --- sleeping --------------------------------------------------------------------------------------------------- */

/* The pool that the calling thread is a worker of. */
static struct pool *worker_pool(void)
{
    for (const struct frame *frame = frame_current(); frame; frame = frame->outer)
        if (frame->worker)
            return frame->pool;
    return NULL;
}

static int words_sleep(struct futex_expected *words, unsigned n, int64_t deadline)
{
    int rc = n == 1 ? futex_wait(words->word, words->expected, deadline) : futex_wait_any(words, n, deadline);

    return rc == -ETIMEDOUT && deadline ? rc : 0;
}

static int64_t look_at(int64_t deadline, int64_t span)
{
    int64_t at = rp_after(span);

    return deadline && deadline < at ? deadline : at;
}

/*
 * Lets one more worker stand in at the pool where something wanted is queued; that pool, entered as a guest, or NULL.
 */
static struct pool *grant_there(const struct want *want)
{
    struct pool *found = NULL;

    for (unsigned i = 0; i < want->n && !found; i++) {
        struct rp_future *root = future_root(want->futures[i]);
        struct rp_pool *at = load_acquire(&root->word) & FUTURE_QUEUED ? load_acquire(&root->pool) : NULL;
        if (at && !guest_enter(at, &found) && !extra_grant(found)) {
            guest_leave(found);
            found = NULL;
        }
        future_unref(root);
    }
    return found;
}

/*
 * Publishes the sleeper. -EBUSY: for want of a worker, or of room, it would be for ever. In the caller's own pool one
 * more stands in then. If another pool is short, one of its own may just be about to let one stand in, as we do here:
 * that is given some time, and one stands in there for us. 1: do not sleep, look.
 */
static int publish(struct sleeper *me, const struct want *want, struct futex_expected *words, unsigned n,
                   int64_t deadline, struct pool *pool, unsigned *extras, struct pool **there)
{
    int rc;

    for (unsigned looks = 0; (rc = knot_join(me, want, deadline, NULL)) == -EBUSY; looks++) {
        bool more = pool && extra_grant(pool);
        *extras += more;
        if (more && looks < OWN_LOOKS)
            continue;
        if (looks >= SHORT_LOOKS)
            return -EDEADLK;
        if (looks >= OWN_LOOKS && !*there && (*there = grant_there(want)))
            continue;
        if (words_sleep(words, n, look_at(deadline, SHORT_NS)) != -ETIMEDOUT)
            return 1;
        if (deadline && rp_now() >= deadline)
            return -ETIMEDOUT;
    }
    return rc;
}

int wait_sleep(const struct want *want, struct futex_expected *words, unsigned n, int64_t deadline)
{
    if (!frame_current())
        return words_sleep(words, n, deadline);
    struct pool *pool = worker_pool();
    struct sleeper me;
    struct pool *there = NULL;
    unsigned extras = pool && extra_grant(pool);
    int rc = publish(&me, want, words, n, deadline, pool, &extras, &there);

    if (!rc) {
        /* Without a stand-in: there may be one later, and it may be needed then, see knot.c. */
        int64_t until = pool && !extras ? look_at(deadline, LOOK_NS) : deadline;
        unsigned held = pool ? room_sleep(pool) : 0;
        rc = words_sleep(words, n, until);
        if (rc == -ETIMEDOUT && until != deadline)
            rc = 0;
        if (pool)
            room_wake(pool, held);
        knot_leave(&me);
    }
    for (; extras; extras--)
        extra_return(pool);
    if (there) {
        extra_return(there);
        guest_leave(there);
    }
    return rc > 0 ? 0 : rc;
}

/* One CPU: nobody makes progress while we look. Asked once; a process that is moved later spins in vain, or sleeps. */
static bool alone(void)
{
    static _Atomic int cpus;
    int n = load_relaxed(&cpus); /* any thread finds the same */

    if (!n) {
        cpu_set_t set;
        n = sched_getaffinity(0, sizeof(set), &set) ? 2 : CPU_COUNT(&set);
        store_relaxed(&cpus, n);
    }
    return n == 1;
}

static bool any_done(struct rp_future *const *futures, unsigned n, unsigned *which)
{
    for (unsigned i = 0; i < n; i++)
        if (future_is_done(futures[i])) {
            *which = i;
            return true;
        }
    return false;
}

/* Where the last future that this thread waited for was claimed; -1: none was. */
static _Thread_local int last_cpu = -1;

/*
 * The same-CPU rule of worker.c: a thread that is to run it here could not while we look. One that nobody has claimed
 * is likely to be run where the last one was.
 */
static bool runs_here(struct rp_future *const *futures, unsigned n)
{
    int here = cpu_current();

    for (unsigned i = 0; i < n; i++) {
        int cpu = load_relaxed(&futures[i]->cpu); /* a hint */
        if ((cpu < 0 ? last_cpu : cpu) == here)
            return true;
    }
    return false;
}

static bool spin(struct rp_future *const *futures, unsigned n, int64_t deadline, unsigned *which)
{
    int64_t until = 0;

    if (n > SPIN_FUTURES || alone())
        return any_done(futures, n, which);
    do {
        if (runs_here(futures, n))
            return false;
        for (int i = 0; i < 8; i++) {
            if (any_done(futures, n, which))
                return true;
            for (int pause = 0; pause < PAUSES; pause++)
                cpu_relax();
        }
        if (!until)
            until = rp_now() + SPIN_NS;
        if (deadline && deadline < until)
            until = deadline;
    } while (rp_now() < until);
    return false;
}

/* Announces a sleeper: false: the future is done. */
static bool announce(struct rp_future *future, struct futex_expected *word)
{
    uint32_t seen = or_seq(&future->word, FUTURE_WAITERS);

    *word = (struct futex_expected){&future->word, seen | FUTURE_WAITERS};
    return !(seen & FUTURE_DONE);
}

static int wait_long(struct rp_future *future, int64_t deadline)
{
    const struct want want = {.futures = &future, .n = 1};
    struct futex_expected word;
    unsigned which;

    while (future_help(future))
        if (future_is_done(future))
            return 0;
    if (spin(&future, 1, deadline, &which))
        return 0;
    while (announce(future, &word)) {
        int rc = wait_sleep(&want, &word, 1, deadline);
        if (future_is_done(future))
            return 0;
        if (rc)
            return rc;
        future_help(future);
    }
    return 0;
}

int future_wait(struct rp_future *future, int64_t deadline)
{
    int rc = wait_long(future, deadline);

    last_cpu = load_relaxed(&future->cpu); /* a hint */
    return rc;
}

/* --- one of many ------------------------------------------------------------------------------------------------ */

static int array_check(struct rp_future *const *futures, unsigned n, int64_t deadline)
{
    if (deadline < 0 || n > INT_MAX || (n && !futures))
        return -EINVAL;
    for (unsigned i = 0; i < n; i++) {
        int rc = future_usable(futures[i]);
        if (rc)
            return rc;
    }
    return 0;
}

/* By the kernel's wait for several words. 0: look again. -ENOSYS: it has none. */
static int any_sleep_words(const struct want *want, int64_t deadline)
{
    struct futex_expected words[WAITV_MAX];

    for (unsigned i = 0; i < want->n; i++)
        if (!announce(want->futures[i], &words[i]))
            return 0;
    return wait_sleep(want, words, want->n, deadline);
}

struct any_watch {
    struct watch watch;
    _Atomic uint32_t *told;
};

/* Under the future's lock, so that the waiter is still there. */
static void any_tell(struct watch *watch, int reason)
{
    struct any_watch *any = caa_container_of(watch, struct any_watch, watch);

    (void)reason;
    store_release(any->told, 1);
    futex_wake(any->told, 1);
}

/* By a watch on each: a word of our own is set under the lock that clearing the watch takes, so no call is lost. */
static int any_sleep_watches(const struct want *want, int64_t deadline)
{
    const struct rp_allocator *allocator = &want->futures[0]->allocator;
    struct any_watch *watches = alloc_zeroed(allocator, want->n, sizeof(*watches));
    _Atomic uint32_t told = 0;
    unsigned set = 0;
    int rc = 0;

    if (!watches)
        return -ENOMEM;
    for (; set < want->n; set++) {
        watches[set] = (struct any_watch){.watch = {.fire = any_tell}, .told = &told};
        if (!future_watch(want->futures[set], &watches[set].watch))
            break;
    }
    struct futex_expected word = {&told, 0};
    while (set == want->n && !rc && !load_acquire(&told))
        rc = wait_sleep(want, &word, 1, deadline);
    while (set--)
        future_unwatch(want->futures[set], &watches[set].watch);
    alloc_free(allocator, watches);
    return rc;
}

static bool help_any(struct rp_future *const *futures, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (future_help(futures[i]))
            return true;
    return false;
}

int rp_future_wait_any(struct rp_future *const *futures, unsigned n, int64_t deadline)
{
    const struct want want = {.futures = futures, .n = n};
    int rc = n ? array_check(futures, n, deadline) : -EINVAL;
    unsigned which;

    if (rc)
        return rc;
    if (any_done(futures, n, &which))
        return (int)which;
    while (help_any(futures, n))
        if (any_done(futures, n, &which))
            return (int)which;
    if (spin(futures, n, deadline, &which))
        return (int)which;
    bool words = n <= WAITV_MAX && (n == 1 || futex_wait_any_works());
    do {
        rc = words ? any_sleep_words(&want, deadline) : any_sleep_watches(&want, deadline);
        if (any_done(futures, n, &which))
            return (int)which;
        help_any(futures, n);
    } while (!rc);
    return rc;
}

int rp_future_wait_all(struct rp_future *const *futures, unsigned n, int64_t deadline)
{
    int rc = array_check(futures, n, deadline);

    for (unsigned i = 0; i < n && !rc; i++)
        if (!future_is_done(futures[i]))
            rc = future_wait(futures[i], deadline);
    return rc;
}
