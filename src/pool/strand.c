/*
 * The way of a strand's task: into its key, and out by the key's runner, one task of the pool for each key that has
 * tasks.
 *
 * A key's life, all of it under the lock of its shard:
 *
 *    OPENING    the first submitter has put it into the table with his task and asks the pool to take the runner.
 *               Others who come for the key wait, or are refused: until the pool has said yes nobody else is told yes.
 *               So a refusal by the pool concerns one task only, that of the submitter who is still there to hear of
 *               it.
 *    OPEN       the runner is queued or runs; tasks are appended, which needs nothing of the pool.
 *    DROPPING   the pool has dropped the runner; tasks are refused.
 *    DONE       no tasks and no runner. It leaves the table at once, unless its opener, who has not returned from the
 *               pool yet, still points to it (`pins`); then whoever comes for the key opens it again.
 *
 * Why tasks of a key do not overlap: a runner exists from the opening to DONE, one at a time; it hands the key on only
 * by giving the pool another runner for it, and touches it no more. Why none is forgotten: DONE is decided under the
 * lock under which tasks are appended.
 *
 * Fairness. While nobody waits for a worker the runner goes on. Else after a burst it submits its successor, which the
 * pool queues behind the others; a pool without a queue lets it wait in line with the other submitters, and stands in
 * for its worker. What the pool does not take now from where nobody can wait (a thread that ends in its task) is
 * submitted again by a timer.
 */
#include "pool/strand.h"

#include "base/futex.h"
#include "base/rcu.h"
#include "pool/completion.h"
#include "pool/job.h"
#include "pool/pool.h"

#include <errno.h>
#include <limits.h>

#define RETRY_NS INT64_C(1000000)

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

bool strand_inside(const struct rp_strand *strand)
{
    for (const struct turn *turn = turns; turn; turn = turn->outer)
        if (turn->strand == strand)
            return true;
    return false;
}

/* --- keys under the lock ---------------------------------------------------------------------------------------- */

void shard_changed(struct shard *shard)
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

    return door_submit_task(key->shard->strand->door, &runner);
}

/* An item with a context or a timeout is a job, which has its completion too; NULL: it is none. */
static struct job *item_job(const struct item *item)
{
    return item->fn == job_run ? item->arg : NULL;
}

static void item_drop(struct item *item, int reason)
{
    if (item->dropped)
        item->dropped(item->arg, reason);
    if (item->cq)
        cq_post(item->cq, item->user_data, reason);
}

/*
 * Ends the queued tasks of a key that has no runner: those at its head that are late, or all of them for `reason`.
 * true: some are left, and the key is still the caller's.
 */
static bool key_drop(struct key *key, int reason)
{
    struct shard *shard = key->shard;
    struct rp_strand *strand = shard->strand;
    struct item *item;

    rp_lock_acquire(&shard->lock);
    key->state = reason ? DROPPING : OPEN;
    key->reason = reason;
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

void strand_orphans_fire(struct timer *timer)
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

/* It has run. */
static void item_tell(struct item *item, int result)
{
    struct job *job = item_job(item);

    if (job)
        job->ops->end(job, result);
    else if (item->cq)
        cq_post(item->cq, item->user_data, result);
}

static void item_run(struct turn *turn)
{
    struct frame *outer = frame_current();
    struct item *item = turn->item;
    struct rp_strand *strand = turn->strand;
    struct job *job = item_job(item);
    int reason = 0;

    if (load_relaxed(&strand->dropping) || load_relaxed(&outer->pool->dropping)) /* seen late: the next will see it */
        reason = -ESHUTDOWN;
    else if (item->deadline && rp_now() >= item->deadline)
        reason = -ETIMEDOUT;
    else if (job)
        reason = job->ops->claim(job);
    if (reason) {
        turn->fate = DROPPED;
        item_drop(item, reason);
        return;
    }
    struct entry entry = {.fn = item->fn, .arg = item->arg, .label = item->label, .timeout = job ? item->timeout : 0};
    if (outer->worker)
        worker_labels(outer->worker, item->label);
    turn->fate = PANICKED; /* until it has returned */
    bool returned = frame_run(outer->pool, outer->worker, &entry, FRAME_PART);
    turns = turn; /* a panic has jumped over those on top of it */
    if (returned)
        turn->fate = COMPLETED;
    item_tell(item, returned ? 0 : -EFAULT);
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
        if (strand_is_foreign(turn->strand))
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
    if (!item || strand_is_foreign(turn->strand))
        return;
    item_tell(item, -EFAULT);
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

struct strand_how {
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

    if (rc == -EAGAIN && frame->worker && door_leads_to(strand->door, frame->pool)) {
        rp_blocking_end();
        return -EDEADLK;
    }
    rc = futex_wait(word, seen, deadline);
    if (task)
        rp_blocking_end();
    return rc == -ETIMEDOUT ? rc : 0;
}

/* Waits, or not, for a change in the shard. Gives up the lock and takes it again. 0: look again. */
static int shard_wait(struct shard *shard, const struct strand_how *how)
{
    uint32_t seen = load_seq(&shard->changed); /* changes under the lock */

    if (how->overload != RP_OVERLOAD_BLOCK || strand_inside(shard->strand))
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
 * A place among max_queued: [room]. The waiter says that it is blocked, then looks; who makes room subtracts, then
 * looks for the blocked: one sees the other. A waiter that gives up passes on the wake that it may have had.
 */
static int room_wait(struct shard *shard, const struct strand_how *how)
{
    struct rp_strand *strand = shard->strand;
    int rc = 0;

    if (room_take(strand))
        return 0;
    if (how->overload != RP_OVERLOAD_BLOCK || strand_inside(strand))
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
static int key_get(struct shard *shard, uint64_t value, const struct strand_how *how, struct key **out)
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
        if (key->state == DROPPING) /* not to be waited for: the caller may be what is being dropped */
            return key->reason == -ESHUTDOWN ? -ESHUTDOWN : -EAGAIN;
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
static int key_open(struct key *key, struct item *item, const struct strand_how *how)
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
static int submit_locked(struct shard *shard, uint64_t value, const struct item *item, const struct strand_how *how)
{
    struct key *key = NULL;
    int rc = key_get(shard, value, how, &key);

    if (rc)
        return rc;
    bool was_there = key->state != DONE || key->pins || key->first;
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

static int submit_item(struct rp_strand *strand, uint64_t value, struct item *item, const struct strand_how *how)
{
    struct shard *shard = &strand->shard[shard_number(value)];
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

static int task_fits(const struct rp_task *task)
{
    if (!task->fn || (unsigned)task->priority > RP_PRIO_LOW || (unsigned)task->overload > RP_OVERLOAD_CALLER_RUNS ||
        task->deadline < 0 || task->timeout < 0)
        return -EINVAL;
    return task->deadline && rp_now() >= task->deadline ? -ETIMEDOUT : 0;
}

/* What the end of the task will need: its completion, or with a context or a timeout the job that has all. */
static int item_reserve(struct rp_strand *strand, const struct rp_task *task, struct item *item)
{
    struct entry entry = {.fn = task->fn, .arg = task->arg};

    if (!task->ctx && !task->timeout)
        return item->cq ? cq_reserve(item->cq) : 0;
    int rc = job_from_task(strand->door, task, &entry);
    if (rc)
        return rc;
    item->fn = entry.fn;
    item->arg = entry.arg;
    item->dropped = entry.dropped;
    item->cq = NULL;
    item->timeout = task->timeout;
    return 0;
}

static void item_unreserve(const struct item *item)
{
    struct entry entry = {.arg = item->arg};

    if (item_job(item))
        job_discard(&entry);
    else if (item->cq)
        cq_unreserve(item->cq);
}

int rp_strand_submit_task(struct rp_strand *strand, uint64_t key, const struct rp_task *task)
{
    if (!strand || !task)
        return -EINVAL;
    if (strand_is_foreign(strand))
        return -ECHILD;
    int rc = task_fits(task);
    if (!rc)
        rc = rcu_attach();
    if (rc)
        return rc;
    int overload = overload_of(strand, task->overload);
    if (overload < 0)
        return overload;
    bool block = overload == RP_OVERLOAD_BLOCK;
    struct strand_how how = {
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
    rc = item_reserve(strand, task, &item);
    if (rc)
        return rc;
    rc = submit_item(strand, key, &item, &how);
    if (rc)
        item_unreserve(&item);
    return rc;
}

int rp_strand_submit(struct rp_strand *strand, uint64_t key, void (*fn)(void *arg), void *arg)
{
    return rp_strand_submit_task(strand, key, &(struct rp_task){.fn = fn, .arg = arg});
}
