/*
 * Knots: threads that sleep for one another and for nobody else. See knot.c.
 */
#ifndef POOL_KNOT_H
#define POOL_KNOT_H

#include "pool/future.h"

/* What a thread that is inside a task sleeps for: any of `n` futures, all members of a group, or room in a pool. */
struct want {
    struct rp_future *const *futures;
    unsigned n;
    struct rp_group *group;
    struct pool *room; /* whose guest it is */
};

/* The record of one sleep, on the sleeper's stack. Under the one lock of knot.c, where it is not its owner's. */
struct sleeper {
    struct cds_list_head node;
    const void *thread;
    const struct frame *frames; /* of the thread, which do not change while it is on the list */
    const struct want *want;
    void (*stir)(struct sleeper *me); /* has it look again, NULL: cannot be done; under the lock */
    bool timed;                       /* sleeps until a deadline at most, and not one at the end of time */
    bool freed;                       /* during a look: not taken for stuck */
};

/*
 * Before the sleep of a thread that is inside a task, and after it. -EDEADLK: what it wants can never come; -EBUSY: not
 * before a pool has more workers; -ENOMEM: in each case nothing was published, and there is nothing to leave.
 */
int knot_join(struct sleeper *me, const struct want *want, int64_t deadline, void (*stir)(struct sleeper *me));
void knot_leave(struct sleeper *me);

/* The pool may have fewer workers than before: those that this has left in a knot look again. */
void knot_tell(struct pool *pool);

#endif
