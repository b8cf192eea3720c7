/*
 * A watch: what somebody leaves with a context or a future, to be told once when it ends.
 *
 * The watched object keeps its watches in a list under its lock. Firing takes them all off under that lock, and calls
 * each in one of two ways:
 *   - under the lock, where the watch may lie on its owner's stack: `fire` then only stores a word and wakes. Taking
 *     such a watch off, under the same lock, finds it either still there or already fired: never half-way.
 *   - deferred, after the lock was released, where `fire` does more than that. Then the watch carries a reference to
 *     its owner, which belongs to whoever ends the watch: to the one who takes it off, if it was still there, else to
 *     `fire`. Nobody waits for anybody.
 */
#ifndef POOL_WATCH_H
#define POOL_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <urcu/list.h>

struct watch {
    struct cds_list_head node;                     /* under the watched object's lock, until fired */
    void (*fire)(struct watch *watch, int reason); /* once, see above */
    bool deferred;                                 /* constant while it is set */
    bool set;                                      /* under the lock: on the list */
};

static inline void watch_set_locked(struct cds_list_head *list, struct watch *watch)
{
    watch->set = true;
    cds_list_add_tail(&watch->node, list);
}

/* true: it will not fire. */
static inline bool watch_clear_locked(struct watch *watch)
{
    bool set = watch->set;

    if (set)
        cds_list_del(&watch->node);
    watch->set = false;
    return set;
}

/* Fires those that may be fired under the lock, and moves the others to `later`, which is the caller's own. */
static inline void watch_fire_locked(struct cds_list_head *list, struct cds_list_head *later, int reason)
{
    while (!cds_list_empty(list)) {
        struct watch *watch = cds_list_first_entry(list, struct watch, node);

        watch_clear_locked(watch);
        if (watch->deferred)
            cds_list_add_tail(&watch->node, later);
        else
            watch->fire(watch, reason);
    }
}

/* Without the lock: the rest. */
static inline void watch_fire_later(struct cds_list_head *later, int reason)
{
    while (!cds_list_empty(later)) {
        struct watch *watch = cds_list_first_entry(later, struct watch, node);

        cds_list_del(&watch->node);
        watch->fire(watch, reason);
    }
}

#endif
