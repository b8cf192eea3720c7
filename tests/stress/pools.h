/*
 * What the files of the load `pools` share: the record of a submission, the pool it was made on, and what a round's
 * threads see of each other. pools.c makes rounds and pools, pools_tasks.c is what their threads and tasks do,
 * pools_ledger.c what they may be told and what must be true at the end.
 */
#ifndef TESTS_STRESS_POOLS_H
#define TESTS_STRESS_POOLS_H

#include "stress.h"

#include <pthread.h>

#define POOLS 3
#define SUBMITTERS 12
#define RECORDS 12000

enum mix { MIX_ANY, MIX_CALM, MIX_CHAOS, MIX_MEMORY, MIX_EXPIRY, MIX_SHRINK, MIXES };

enum form { SUBMIT, TRY, UNTIL, TASK, FORM_BATCH, CROSS };
enum { VERDICT_NONE, ACCEPTED, REJECTED };
enum { FATE_NONE, FATE_RAN = 1 }; /* or the negative reason of dropped */
enum ending { END_RELEASE, END_DESTROY, END_TWO_DESTROYS, END_RACING, END_INSIDE, ENDINGS };

/*
 * One submission. `verdict` belongs to the submitting thread and is read after it was joined; NONE stays where a task
 * ended the thread inside of submit. `fate` is written by whoever runs or drops the task.
 */
struct record {
    struct trial *trial;
    _Atomic int fate;
    _Atomic int verdict;
    uint32_t choice;     /* what the task does */
    unsigned generation; /* 0: submitted from outside, else by a task of that generation less one */
    bool told;           /* has a dropped callback */
    bool dated;          /* has a deadline */
};

/* A pool of the round. Constant while threads run, but for the atomics and the records. */
struct trial {
    struct rp_pool *pool;
    unsigned number;
    struct rp_pool_options options;
    unsigned capacity;
    struct rp_allocator allocator;
    bool calm;     /* nobody releases it before the end */
    bool discards; /* tasks may ask for any overload policy */
    bool may_fail; /* its allocator fails now and then */
    enum ending ending;
    _Atomic bool failing;      /* the allocator does so now */
    _Atomic bool released;     /* a release or destroy has begun at some time */
    _Atomic bool over;         /* no reboot and no new submission from now on */
    _Atomic int64_t allocated; /* pieces of memory it holds */
    _Atomic int destroyed;     /* destroys that returned 0 */
    _Atomic uint64_t panics;
    _Atomic unsigned used; /* records taken */
    struct record records[RECORDS];
    bool rested; /* the snapshot below was taken at rest */
    struct rp_pool_snapshot at_rest;
};

/* Those of the round: set while neither submitters nor chaos run. */
extern struct trial *trials[POOLS];
extern _Atomic unsigned trials_alive;

extern enum mix only;                            /* what --only asked for */
extern _Atomic bool stop_chaos, submitters_done; /* the round tells its threads */

/* To whom chaos sends its signals. */
extern pthread_t submitter_threads[SUBMITTERS];
extern unsigned submitter_count;

extern _Thread_local unsigned depth; /* tasks on this thread's stack */
extern _Thread_local bool guest;     /* a thread of the test, not a worker */

/* The end line. Reasons and codes by errno. */
#define CODES 160
extern _Atomic uint64_t n_accepted, n_ran, n_panics, n_spawned, n_expired, n_dropped[CODES], n_rejected[CODES];

/* --- the ledger --------------------------------------------------------------------------------------------------- */

enum { MAY_SHUT = 1, MAY_AGAIN = 2, MAY_NOMEM = 4, MAY_TIME = 8, MAY_INVAL = 16, MAY_ALREADY = 32, MAY_PERM = 64 };
void code_check(const char *call, int rc, unsigned long allowed);

struct record *record_take(struct trial *t, unsigned generation);
void meet_fate(struct record *r, int fate);
void dropped(void *arg, int reason);
void verdict(struct trial *t, struct record *r, enum form form, int overload, int rc);
void ledger_check(struct trial *t);

/* --- threads and tasks -------------------------------------------------------------------------------------------- */

/* Threads of a round; arg is the place that each is sown with. */
void *submitter(void *arg);
void *chaos(void *arg);

static inline void reboot(struct trial *t)
{
    if (!t->over)
        code_check("reboot", rp_pool_reboot(t->pool), MAY_SHUT);
}

static inline void destroy(struct trial *t)
{
    t->released = t->over = true;
    int rc = rp_pool_destroy(t->pool);
    code_check("destroy", rc, MAY_ALREADY);
    t->destroyed += rc == 0;
}

#endif
