/*
 * The ledger of a scenario: what was submitted, and what became of it.
 */
#ifndef MODEL_LEDGER_H
#define MODEL_LEDGER_H

#include "model.h"

enum { JOBS = 24 };

struct chore {
    int rc;                            /* what submit said */
    bool submitted;                    /* it has returned */
    unsigned runs, drops;              /* fates */
    int reason;                        /* of the drop */
    struct gate *opens, *waits;        /* when it has started; before it ends */
    void (*inside)(struct chore *job); /* called by the task */
    bool panics, exits;                /* how it ends, if not by returning */
    int priority, overload;            /* enum rp_priority, enum rp_overload */
    int64_t deadline, timeout;
};

struct ledger {
    struct rp_pool *pool;
    struct rp_multi *multi; /* jobs are submitted through it, if there is one */
    unsigned capacity;
    struct chore job[JOBS];
    unsigned jobs;
    unsigned running, most; /* tasks that run now, and the most at once so far */
    unsigned panics;        /* calls of the panic handler */
    unsigned reboots;       /* begun */
};
extern struct ledger ledger;

/*
 * An empty ledger and its pool. Options that the scenario leaves alone: the model's allocator, no log, and, unless it
 * names an expiry, no purge, so that no tick makes good what was forgotten.
 */
void open_pool(unsigned capacity, const struct rp_pool_options *options);
struct rp_pool *another_pool(unsigned capacity, const struct rp_pool_options *options);

/* A new job; jobs are submitted once. */
struct chore *job_new(void);
int job_submit(struct chore *job);
/* To ledger.pool, in any case. */
int job_submit_to_pool(struct chore *job);
/* Whether the job went as a plain submit or as a task is chosen; a deadline in it bounds the submitter. */
int job_try(struct chore *job);
int job_submit_until(struct chore *job, int64_t deadline);
int jobs_submit_batch(struct chore *first, unsigned n);

/* As actors: submit the job arg; submit three in a row (arg: the first). */
void submit_job(void *arg);
/* As actors: submit all jobs from arg on as a batch; open the gate arg; release the pool. */
void submit_batch(void *arg);
void open_gate(void *arg);
void release(void *arg);

/* Every accepted job met exactly one fate, every refused one none. */
void fates_check(void);
/* Each job was accepted. */
void accepted_check(void);
/* No task is in flight, and nobody is on the way: the pool's words say so, and its workers are parked. */
void rest_check(void);
struct pool;
void pool_rest_check(const struct pool *pool);
/* After a release: what was accepted is over, and no worker lives. */
void released(void);
/* settle without time, then all three. */
void all_done(void);
/* Destroys the pool and checks the fates. */
void close_pool(void);

#endif
