/*
 * Idle workers: who is parked, who is looking for work, and how a task finds one of them.
 *
 * THE PARKING PROTOCOL. Everything about lost wake-ups is argued here and nowhere else.
 *
 * Vocabulary. A worker is *busy*, *searching* (looks for work and is counted in the idle word), *parked* (on the
 * stack) or *leaving*. One word holds the stack and the count:
 *
 *     63..32  tag        changes with every push and pop, so a CAS by a thread that slept in between fails (ABA)
 *     31..20  searching  how many workers (or the expiry ticker) look for work now
 *     19..0   top + 1    number of the worker parked last, 0: none
 *
 * The stack is linked by worker numbers, not pointers: worker_at() turns one into a descriptor under RCU, which keeps
 * the descriptor's memory readable while a slow thread still looks at it. RCU does not make the pop right (a worker
 * parks again within microseconds, far sooner than a grace period); the tag does.
 *
 * Each worker's `park` word:
 *     PARK_AWAKE     -> PARK_PARKING   its worker, before it pushes itself
 *     PARK_PARKING   -> PARK_SLEEPING  its worker, by CAS; failure means that it was called meanwhile
 *     either         -> PARK_NOTIFIED  whoever popped it: it is counted as searching already
 *     either         -> one of PARK_EXPIRED, PARK_DISMISSED, PARK_SURPLUS   whoever took it off to end it: it is not
 *                       counted as searching
 * A parked worker's sleep is ended only by whoever took it off the stack, exactly once.
 *
 * Submitter                               Worker without work
 *   P1 publish the slot        (seq_cst)    W1 push itself, leaving the searching count   (seq_cst CAS)
 *   P2 load the idle word      (seq_cst)    W2 look at the queue again                    (seq_cst)
 *   P3 if nobody searches: pop one,         W3 if something is ready: do P2, P3 itself
 *      or make one, or leave it             W4 PARKING -> SLEEPING, sleep
 *
 * Why no task is stranded. P1/P2 and W1/W2 are store-then-load on the two same words, all sequentially consistent, so
 * at least one of the two sides sees the other. If the submitter sees the parked worker it pops it; if the worker sees
 * the task it runs P3, and may pop itself.
 *   "Somebody searches" is a good reason to skip P3 because a searcher leaves that state in two ways only: it found a
 * task, then searching_end() looks at the queue once more and wakes the next (the wake chain); or it parks, then W2
 * looks. Both looks come after the count was dropped, so a submitter that still saw the count published before it.
 *   "Somebody is awake" would not be a reason: awake does not mean will look.
 *   A head slot that is claimed but not published hides later tasks from every look; its own submitter makes P2 once
 * it has published, so that they are found then.
 *   Nobody parked, nobody searching: if fewer workers live than may, and more tasks are in flight than workers live,
 * one is made, and counts as searching from then on, as if it had been popped. If not more are in flight, then each
 * queued task has a worker that is neither parked nor at a task: it comes from one, is being made, or was told to
 * leave. Not being on the stack at P2 it is still to come to W2, or to the look of a leaving worker, after P1.
 * Otherwise every worker that may live is busy, and looks at the queue after its task.
 *
 * How many chains. One wake chain calls one worker at a time, and to a worker that a CPU must be roused for comes some
 * 20 us after its call. Where those that were called stay away with a task each, asleep in it as a rule, that is all
 * that a burst of such tasks waits for: a thousand took 20 ms to begin. So a called worker that finds the very task
 * after the last called one's, and soon after that one, lets one chain more run, twice as many as there are CPUs at
 * most, and no more than 16; any other brings them back to one. Tasks that keep a CPU busy show by that: the next
 * worker comes late, or others have taken tasks meanwhile. Nothing above asks for this: one too many is a searcher that
 * finds nothing.
 *
 * Where it sleeps. On a private futex, but for those of a crowd (futex_crowd_join), as the kernel's wake passes all that
 * sleep in the same bucket of a small table. Which of both is fixed before a worker's thread starts; who calls it has
 * read that before the exchange of `park`, behind which the worker may end and its descriptor be another one's.
 *
 * Taking more than one. The expiry ticker, a shrinking tune and the release take the whole stack with one CAS; the list
 * is private then. The ticker counts itself as searching while it holds the list, since submitters see nobody parked,
 * and leaves that state as a searcher does: it puts the list back and looks. Only then it tells those it cut off.
 *
 * A leaving worker drops itself from the live count and then looks at the queue: a submitter that saw the old count,
 * and so made no worker, is seen by that look. If something is ready and nobody searches it enlists again.
 */
#ifndef POOL_IDLE_H
#define POOL_IDLE_H

#include "base/atomic.h"

#include <stdalign.h>

struct pool;
struct worker;

/*
 * EXPIRED: leave if more live than the minimum, or all is over; DISMISSED: if all is over; SURPLUS: if more live than
 * the target.
 */
enum { PARK_AWAKE, PARK_PARKING, PARK_SLEEPING, PARK_NOTIFIED, PARK_EXPIRED, PARK_DISMISSED, PARK_SURPLUS };

struct idle {
    alignas(CACHE_APART) _Atomic uint64_t word;
    _Atomic uint64_t found;   /* hints: the position of the last called worker's task, */
    _Atomic int64_t found_at; /* when it found that, */
    _Atomic uint32_t chains;  /* and how many more than one may run since */
};

#define IDLE_TOP_MASK UINT64_C(0xfffff)
#define IDLE_SEARCHER (UINT64_C(1) << 20)
#define IDLE_SEARCHING_MASK (UINT64_C(0xfff) << 20)
#define IDLE_TAG (UINT64_C(1) << 32)

static inline unsigned idle_top(uint64_t word)
{
    return (unsigned)(word & IDLE_TOP_MASK);
}

static inline unsigned idle_searching(uint64_t word)
{
    return (unsigned)((word & IDLE_SEARCHING_MASK) >> 20);
}

/*
 * P3: if nobody searches, calls a parked worker, or, with nobody parked, enlists one more: then it returns true, and
 * the caller owes worker_spawn(pool, true), outside of a section. The caller is in an RCU read-side section.
 */
bool idle_wake_one(struct pool *pool);

/* The same for a caller that holds no section: the spawn is done. */
void idle_call_one(struct pool *pool);

/*
 * Where tasks are ready and a CPU is free, and those that search have not come for long, as one that was called may
 * stand behind another worker on another CPU: calls one more that is parked. false: nobody is; or nobody searches, and
 * the next submit calls one; or as many do as there are CPUs. Any thread, in a section or not.
 */
bool idle_call_beside(struct pool *pool);

/* Announces the caller as a searcher, one of at most `most`; false if so many there are. */
bool idle_search_begin(struct pool *pool, unsigned most);

/* The caller, counted as searching, found a task, or gives up the role without parking: the wake chain. */
void idle_search_end(struct pool *pool);

/* The same for one that was called at `now`, and found the task at this position first thing. */
void idle_called_found(struct pool *pool, uint64_t position, int64_t now);

/*
 * Parks the caller until it is called: PARK_NOTIFIED, and then it is counted as searching; PARK_EXPIRED,
 * PARK_DISMISSED or PARK_SURPLUS. `searching` says whether it is counted so now.
 */
uint32_t idle_park(struct pool *pool, struct worker *worker, bool searching, int64_t now);

/* Tells every parked worker to leave, as PARK_DISMISSED. */
void idle_dismiss_all(struct pool *pool);

/*
 * Tells parked workers to leave as PARK_EXPIRED, at most `most` and the longest parked first, and only such as parked
 * before `before`. Returns how many it told; *oldest becomes the park time of the longest parked one that remains, or
 * 0.
 */
unsigned idle_dismiss_expired(struct pool *pool, unsigned most, int64_t before, int64_t *oldest);

/*
 * Tells as many parked workers to leave, as PARK_SURPLUS, as live above the target. Each looks again whether that
 * holds.
 */
void idle_dismiss_surplus(struct pool *pool);

#endif
