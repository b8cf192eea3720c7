/*
 * What the end of a future sets going: its watches, and the futures that continue it. See then.c.
 */
#ifndef POOL_THEN_H
#define POOL_THEN_H

#include "pool/future.h"

/*
 * Ends the job with the result, then starts the continuations that this released: one on the calling thread, if
 * `onward`, and as many there as the pool has no room for; the others through the queue. `guest`: the caller is one.
 */
void then_end(struct pool *pool, struct job *job, int result, bool onward, bool guest);

/* Continuations that their thread has left behind: offers them to the pool again, on the reactor; ends them with it. */
void then_orphans_fire(struct timer *timer);
void then_orphans_end(struct pool *pool);

/* The future is done and somebody watches it: fires the watches, without growing the stack. */
void then_fire(struct rp_future *future);

#endif
