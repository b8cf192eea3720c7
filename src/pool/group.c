/*
 * Task groups: futures that nobody holds, counted.
 *
 * `word` counts the members that have not ended, and the owner, in steps of 2; its lowest bit says that somebody sleeps
 * on it. The members stand on two lists: `queued`, from which a waiting worker takes one to run, and which a cancel
 * ends; and `running`. A deadlock is looked for in both.
 *
 * The group watches its own context, and ends its queued members when that ends. The watch holds the group, the group
 * its context: the knot is cut when the count reaches zero, after the owner and the last member.
 */
#include "base/alloc.h"
#include "pool/knot.h"

#include <errno.h>
#include <limits.h>
#include <ringpool/group.h>
#include <ringpool/multi.h>
#include <ringpool/pool.h>
#include <string.h>

#define ONE 2U
#define WAITERS 1U

/* Legend: c constant; G under `lock`. */
struct rp_group {
    _Atomic uint32_t word;
    _Atomic uint32_t refs; /* the owner, each member's future, the watch */
    unsigned generation;   /* c */
    bool keep_going;       /* c */
    struct door door;      /* c */
    struct rp_ctx *ctx;    /* c: held */
    struct watch watch;    /* on ctx */
    struct rp_lock lock;
    struct cds_list_head queued, running; /* G */
    _Atomic int error;                    /* G writes, once */
    struct rp_allocator allocator;        /* c */
};

static int group_usable(const struct rp_group *group)
{
    return !group ? -EINVAL : group->generation == fork_generation() ? 0 : -ECHILD;
}

void group_unref(struct rp_group *group)
{
    if (sub_acq_rel(&group->refs, 1) != 1)
        return;
    struct rp_allocator allocator = group->allocator;

    ctx_unref(group->ctx);
    alloc_free(&allocator, group);
}

struct rp_ctx *group_context(const struct rp_group *group)
{
    return group->ctx;
}

/* One less: wakes the waiters after the last member, cuts the knot after the owner. The caller holds the group. */
static void count_down(struct rp_group *group)
{
    uint32_t word = sub_seq(&group->word, ONE); /* [ended] pairs with the loads in rp_group_wait */

    if (word / ONE == 2 && word & WAITERS)
        futex_wake(&group->word, INT_MAX);
    if (word / ONE == 1 && ctx_unwatch(group->ctx, &group->watch))
        group_unref(group);
}

/* --- members ---------------------------------------------------------------------------------------------------- */

void group_member_started(struct rp_future *future)
{
    struct rp_group *group = future->group;

    rp_lock_acquire(&group->lock);
    if (!cds_list_empty(&future->member)) /* else it has ended already, by its timeout */
        cds_list_move(&future->member, &group->running);
    rp_lock_release(&group->lock);
}

static void unlist(struct rp_future *future)
{
    rp_lock_acquire(&future->group->lock);
    cds_list_del_init(&future->member);
    rp_lock_release(&future->group->lock);
}

/* true: it is the group's first error. */
static bool error_set(struct rp_group *group, int error)
{
    int none = 0;

    return error < 0 && cas_acq_rel(&group->error, &none, error);
}

void group_member_ended(struct rp_future *future)
{
    struct rp_group *group = future->group;

    unlist(future);
    int result = future_result(future, NULL);
    if (error_set(group, result) && !group->keep_going)
        rp_ctx_cancel(group->ctx, result);
    count_down(group);
}

/* The first of the list, held, and moved to the running ones, so that each is met once. */
static struct rp_future *queued_take(struct rp_group *group)
{
    struct rp_future *future = NULL;

    rp_lock_acquire(&group->lock);
    if (!cds_list_empty(&group->queued)) {
        future = cds_list_first_entry(&group->queued, struct rp_future, member);
        future_ref(future);
        cds_list_move(&future->member, &group->running);
    }
    rp_lock_release(&group->lock);
    return future;
}

static void end_queued(struct rp_group *group, int reason)
{
    struct rp_future *future;

    while ((future = queued_take(group))) {
        future_finish(future, FUTURE_RUNNING | FUTURE_DONE, reason);
        future_unref(future);
    }
}

static void context_ended(struct watch *watch, int reason)
{
    struct rp_group *group = caa_container_of(watch, struct rp_group, watch);

    end_queued(group, reason);
    group_unref(group);
}

static bool any_of(struct cds_list_head *list, bool (*test)(struct rp_future *member, void *arg), void *arg)
{
    struct cds_list_head *node; /* not the entries: the list's head is no future, nor aligned as one */

    cds_list_for_each(node, list) if (test(caa_container_of(node, struct rp_future, member), arg)) return true;
    return false;
}

bool group_any_member(struct rp_group *group, bool (*test)(struct rp_future *member, void *arg), void *arg)
{
    rp_lock_acquire(&group->lock);
    bool found = any_of(&group->running, test, arg) || any_of(&group->queued, test, arg);
    rp_lock_release(&group->lock);
    return found;
}

/* --- the user's calls ------------------------------------------------------------------------------------------- */

static int options_check(const struct rp_group_options *o)
{
    static const uint64_t none[sizeof(o->reserved) / sizeof(o->reserved[0])];

    return o->deadline < 0 || memcmp(o->reserved, none, sizeof(none)) != 0 ? -EINVAL : 0;
}

static int group_init(struct rp_group *group, struct door door, const struct rp_group_options *o)
{
    struct rp_ctx *parent = o->ctx ? o->ctx : ctx_inherited();
    const struct rp_ctx_options options = {.deadline = o->deadline, .allocator = &group->allocator};
    int rc = rp_ctx_create_with(&group->ctx, parent, &options);

    if (rc)
        return rc;
    store_relaxed(&group->word, ONE); /* the owner; nobody else sees it yet */
    store_relaxed(&group->refs, 2);   /* the owner and the watch */
    group->generation = fork_generation();
    group->keep_going = o->keep_going;
    group->door = door;
    CDS_INIT_LIST_HEAD(&group->queued);
    CDS_INIT_LIST_HEAD(&group->running);
    group->watch = (struct watch){.fire = context_ended, .deferred = true};
    if (ctx_watch(group->ctx, &group->watch)) /* it has ended: submits will say so */
        store_relaxed(&group->refs, 1);
    return 0;
}

static int group_create(struct rp_group **out, struct door door, const struct rp_group_options *options)
{
    static const struct rp_group_options defaults;
    const struct rp_group_options *o = options ? options : &defaults;
    struct rp_allocator allocator;

    if (!out)
        return -EINVAL;
    *out = NULL;
    int rc = options_check(o);
    if (rc)
        return rc;
    struct rp_group *group = door_alloc(door, sizeof(*group), &allocator, &rc);
    if (rc)
        return rc;
    group->allocator = allocator;
    rc = group_init(group, door, o);
    if (rc)
        alloc_free(&allocator, group);
    else
        *out = group;
    return rc;
}

int rp_group_create(struct rp_group **out, struct rp_pool *pool, const struct rp_group_options *options)
{
    return group_create(out, door_pool(pool), options);
}

int rp_multi_group_create(struct rp_group **out, struct rp_multi *multi, const struct rp_group_options *options)
{
    return group_create(out, door_multi(multi), options);
}

/*
 * The member counts, and stands on the running list, before it is submitted: it may end before we look again. It comes
 * onto the queued list only once its entry is in the queue, and is looked after there if the context ended meanwhile.
 */
static int member_submit(struct rp_group *group, struct rp_future *future)
{
    future->group = group;
    add_relaxed(&group->refs, 1); /* the caller holds one */
    rp_lock_acquire(&group->lock);
    cds_list_add(&future->member, &group->running);
    rp_lock_release(&group->lock);
    add_seq(&group->word, ONE);
    int rc = future_submit(future);
    if (rc) {
        unlist(future);
        count_down(group);
        return rc;
    }
    rp_lock_acquire(&group->lock);
    if (!(load_seq(&future->word) & (FUTURE_RUNNING | FUTURE_DONE)))
        cds_list_move(&future->member, &group->queued);
    rp_lock_release(&group->lock);
    int reason = ctx_err(group->ctx);
    if (reason)
        end_queued(group, reason);
    return 0;
}

int rp_group_submit_task(struct rp_group *group, int (*fn)(void *arg), const struct rp_task *like)
{
    struct rp_future *future;
    int rc = group_usable(group);

    if (rc || !fn || !like || like->fn || like->ctx)
        return rc ? rc : -EINVAL;
    struct rp_task task = *like;
    task.ctx = group->ctx;
    rc = future_create(group->door, &task, KIND_PART, &future);
    if (rc)
        return rc;
    future->call.part = fn;
    rc = member_submit(group, future);
    if (rc)
        future_discard(future);
    else
        future_leave(future, FUTURE_GONE); /* it has no owner */
    return rc;
}

int rp_group_submit(struct rp_group *group, int (*fn)(void *arg), void *arg)
{
    return rp_group_submit_task(group, fn, &(struct rp_task){.arg = arg});
}

/* A worker of the pool runs one of the queued members. */
static bool help(struct rp_group *group)
{
    struct rp_future *future = NULL;

    rp_lock_acquire(&group->lock);
    if (!cds_list_empty(&group->queued)) {
        future = caa_container_of(group->queued.prev, struct rp_future, member); /* the newest: its data is warm */
        future_ref(future);
    }
    rp_lock_release(&group->lock);
    if (!future)
        return false;
    bool ran = future_run_here(future, true, false);
    bool again = ran || load_acquire(&future->word) & (FUTURE_RUNNING | FUTURE_DONE); /* somebody else: the next one */
    future_unref(future);
    return again;
}

static bool members_left(struct rp_group *group)
{
    return load_seq(&group->word) / ONE > 1; /* [ended] */
}

int rp_group_wait(struct rp_group *group, int64_t deadline)
{
    int rc = deadline < 0 ? -EINVAL : group_usable(group);
    const struct want want = {.group = group};

    if (rc)
        return rc;
    while (members_left(group)) {
        if (frame_current() && help(group))
            continue;
        uint32_t seen = or_seq(&group->word, WAITERS) | WAITERS;
        if (seen / ONE <= 1)
            break;
        struct futex_expected word = {&group->word, seen};
        rc = wait_sleep(&want, &word, 1, deadline);
        if (rc && members_left(group))
            return rc;
    }
    return load_acquire(&group->error);
}

int rp_group_cancel(struct rp_group *group, int cause)
{
    int rc = group_usable(group);

    if (!rc)
        rp_ctx_cancel(group->ctx, cause);
    return rc;
}

struct rp_ctx *rp_group_ctx(struct rp_group *group)
{
    return group ? group->ctx : NULL;
}

void rp_group_destroy(struct rp_group *group)
{
    if (!group)
        return;
    if (!group_usable(group))
        count_down(group); /* the owner; in a forked child nobody is left to be told */
    group_unref(group);
}
