/*
 * The multi pool's own structs, and which file does what: multi.c is its life, multi_verbs.c and multi_gauge.c what may
 * be done with it and read of it, roster.c keeps the table of pools, balance.c chooses one, route.c submits to it with
 * the fallback, lobby.c is where submitters block, health.c looks for sick ones.
 */
#ifndef POOL_MULTI_H
#define POOL_MULTI_H

#include "base/atomic.h"
#include "base/log.h"
#include "pool/handle.h"
#include "pool/pool.h"
#include "ring/reactor.h"

#include <ringpool/multi.h>

/*
 * One pool of a multi pool. Made with it, freed when its memory was (`gone`).
 * Legend: l under the multi pool's lock, h the health check's thread, r read by others as well.
 */
struct member {
    struct pool_owner owner;
    struct multi *multi;
    struct pool *pool;          /* constant; readable as long as the pool is */
    unsigned index;             /* constant */
    uint32_t weight;            /* l */
    _Atomic uint32_t out;       /* l: 1: not in the rotation; written by h; r */
    _Atomic uint32_t spare;     /* h; r: extra workers granted for hung ones */
    int cause;                  /* h: of `out` */
    bool watched;               /* under the lobby's lock */
    struct cds_list_head drain; /* l: in the list of removed pools */
};

/* A pool that may be chosen. */
struct seat {
    struct pool *pool;
    const struct ring *ring; /* its normal one: spares who compares pools a step */
    uint32_t index, weight;
};

/*
 * The pool table: which pools there are, and which are in the rotation. It is never changed once published, but
 * replaced by another one and freed after a grace period by whoever replaced it. Read in an RCU section; all pools in
 * it can be read there too, since a pool ends only after a grace period that began when no table named it any more.
 */
struct roster {
    unsigned members; /* how many of by_index are not NULL */
    unsigned slots;
    unsigned seats;  /* 0 only if there is no member */
    bool all_out;    /* and so all in */
    uint32_t sample; /* RP_AUTO looks at the load every so many turns, less one: a power of two, about the seats */
    struct member **by_index;
    struct seat seat[];
};

enum { MULTI_CLOSED = 1, MULTI_DYING = 2, MULTI_GENERATION = 4 };

/* The health check: see health.c. */
struct health {
    _Atomic uint32_t armed; /* there may be something to look at; else the thread sleeps */
    _Atomic uint32_t word;  /* futex: bumped to wake the thread */
    _Atomic uint32_t begun; /* futex: 1 once `rc` is set */
    _Atomic uint32_t stop;
    int rc;
    bool made;
    pthread_t thread;
};

/* Submitters that block: see lobby.c. */
struct lobby {
    _Atomic uint32_t waiting;                      /* under lock; read by every submit */
    alignas(CACHE_APART) _Atomic uint32_t pending; /* the head has been called and has not looked */
    _Atomic uint32_t overtaken;                    /* submits that passed the head */
    struct rp_lock lock;
    struct cds_list_head waiters; /* under lock: first come first */
};

#define OVERTAKES 1024

/* Legend: C constant once created, l under lock. */
struct multi {
    alignas(CACHE_APART) _Atomic(struct roster *) roster; /* l; read under RCU */
    _Atomic uint32_t strategy;                            /* enum rp_strategy; any thread */
    _Atomic uint32_t leaning;                             /* of RP_AUTO: 1 least tasks; whoever samples, by CAS */
    _Atomic uint32_t forked;                              /* set in a forked child */
    int64_t spin_ns;            /* C: how long a submitter looks for room before it waits; 0: on a single CPU */
    _Atomic uint32_t rebooting; /* pools that are closed for a moment only */
    struct health health;
    struct rp_multi_options options;              /* C; what it points to is ours */
    struct rp_pool_options pool_options;          /* C */
    struct rp_allocator allocator;                /* C */
    struct log log;                               /* C */
    char name[NAME_BYTES];                        /* C */
    void *cpus;                                   /* C: copied */
    struct reactor *reactor;                      /* C */
    struct handle *handle;                        /* C */
    uint32_t serial;                              /* C: another one for each of the process, not 0 */
    alignas(CACHE_APART) _Atomic uint32_t rounds; /* that threads have begun, in round robin */

    struct lobby lobby;

    alignas(CACHE_APART) struct rp_lock lock;
    struct cds_list_head draining;   /* l: members that were removed and have not ended */
    struct rp_pool_snapshot retired; /* l: counters of those that have, */
    struct fates fates;              /* l */
    struct measures *measured;       /* l: and what they have measured; NULL: none has */
    _Atomic uint64_t total;          /* l: the latest total of a tune, and a count of tunes above */
    _Atomic uint32_t state;          /* l: MULTI_CLOSED, MULTI_DYING, and a count of changes of the first above */
    _Atomic uint32_t unfinished;     /* futex: pools taken out whose memory is not freed yet; GUESTS_AWAITED */
    _Atomic uint32_t guests; /* futex: calls outside of an RCU section, and the health check's thread; GUESTS_AWAITED */
    _Atomic uint32_t deferred, reaped; /* destroyed from inside: the last one out posts reap */
    _Atomic uint64_t rejected;         /* submits that found no open pool */
    struct work reap;
};

struct rp_multi {
    struct handle handle;
};

static inline struct member *member_of(const struct pool *pool)
{
    struct pool_owner *owner = load_acquire(&pool->owner);

    return owner ? caa_container_of(owner, struct member, owner) : NULL;
}

/* --- multi.c ------------------------------------------------------------------------------------------------------ */

/* As pool_enter: 0 and a section, left by handle_exit. */
static inline int multi_enter(const struct rp_multi *handle, struct multi **multi)
{
    void *core = NULL;
    int rc = handle_enter((const struct handle *)handle, &core); /* its first member; may be NULL */

    *multi = core;
    return rc;
}

/* As guest_enter and guest_leave. */
int multi_guest_enter(const struct rp_multi *handle, struct multi **multi);
void multi_guest_leave(struct multi *multi);
/* Whether the caller is in a task or hook of one of its pools, or its health check's thread. */
bool multi_inside(const struct multi *multi);
/* A pool that was taken out is freed. */
void multi_finished_one(struct multi *multi);
/* Opens or closes the pool as the multi pool is. A guest of both. */
void multi_settle_pool(struct multi *multi, struct pool *pool);

/* A pool that the caller holds as a guest. */
struct held {
    struct member *member;
    unsigned weight;
    unsigned share;
    struct ender ender;
};

/*
 * Holds the pools of the moment, or nothing and -ENOMEM. multi_held_leave gives them back. `closed`, if not NULL:
 * closes the multi pool in the same moment, so that none is added which is not held; *closed becomes the state.
 */
int multi_hold_all(struct multi *multi, bool draining, struct held **held, unsigned *n, uint32_t *closed);
void multi_held_leave(struct multi *multi, struct held *held, unsigned n);

/* --- multi_verbs.c ------------------------------------------------------------------------------------------------ */

/* 0, or -EINVAL: there is no such strategy, or it lacks its function. */
int multi_check_strategy(const struct rp_multi_options *options, enum rp_strategy strategy);

/* --- roster.c: outside of a section, but for what only reads ------------------------------------------------------ */

/* Makes the first pools and their table; weights may be NULL. */
int roster_create(struct multi *multi, unsigned pools, unsigned capacity, const unsigned *weights);
/* Makes a pool and puts it into the table. Its number, or an error. */
int roster_add(struct multi *multi, unsigned capacity, unsigned weight);
/* Takes pool `index` out, to be ended by the caller with member_end. -ENOENT, -EBUSY, -ENOMEM. */
int roster_take(struct multi *multi, unsigned index, struct member **member);
/* Takes all out: the table that held them, the caller's to free. Nobody reads it any more. */
struct roster *roster_take_all(struct multi *multi);
void roster_free(struct multi *multi, struct roster *roster);
int roster_set_weight(struct multi *multi, unsigned index, unsigned weight);
/* Into the rotation or out of it. 0 or -ENOMEM. */
int roster_set_out(struct multi *multi, struct member *member, bool out);
/*
 * The member of the smallest number from *index on, held as a guest of its pool; NULL: no more. *index becomes the
 * next.
 */
struct member *roster_next(struct multi *multi, unsigned *index);
/* The same of those in the rotation. */
struct member *roster_next_in(struct multi *multi, unsigned *index);
/* The same of exactly that number. */
struct member *roster_hold(struct multi *multi, unsigned index);

/* --- balance.c: in a section -------------------------------------------------------------------------------------- */

/* balance_choose of balance_path.h by the strategies that look at many pools, or at who submits. */
struct choice balance_other(struct multi *multi, const struct roster *roster, bool part, bool *switched);
/* The least loaded of those with room, else of those that are open; NULL: there is none. */
const struct seat *balance_least(const struct multi *multi, const struct roster *roster);
/* Whether a task would be accepted now. */
bool balance_room(const struct pool *pool);
void balance_view(const struct multi *multi, const struct seat *seat, struct rp_multi_view *view);

/* --- route.c ------------------------------------------------------------------------------------------------------ */

/* Submits a job's entry, see door_submit. */
int route_job(struct rp_multi *multi, const struct entry *entry, const struct rp_task *task,
              _Atomic(struct rp_pool *) *at);

/* --- lobby.c ------------------------------------------------------------------------------------------------------ */

void lobby_init(struct lobby *lobby);
/*
 * Blocks until attempt, which only the first in the list makes, returns something else than -EAGAIN: that; -ETIMEDOUT;
 * -EAGAIN: as many as may wait do; why the context (or NULL) has ended. A guest, outside of a section.
 */
int lobby_wait(struct multi *multi, int64_t deadline, struct rp_ctx *ctx, int (*attempt)(void *arg), void *arg);
/* Something changed that a blocked submitter may wait for. Any thread, also under a pool's lock. */
void lobby_progress(struct lobby *lobby);
/* A pool has come into the table. */
void lobby_pool_added(struct multi *multi);

/* Whether a newcomer may submit past those who wait. */
static inline bool lobby_pass(struct lobby *lobby)
{
    if (__builtin_expect(!load_relaxed(&lobby->waiting), 1)) /* seen late: it overtakes one more */
        return true;
    return add_relaxed(&lobby->overtaken, 1) < OVERTAKES; /* a count that is to be near enough */
}

/* --- health.c ----------------------------------------------------------------------------------------------------- */

int health_begin(struct multi *multi);
/* Tells the thread to end; and, when it has no guest any more, joins it. */
void health_stop(struct multi *multi);
void health_join(struct multi *multi);
bool health_is_self(const struct multi *multi);
void health_arm_slow(struct multi *multi);

/*
 * A task comes: before its submit in the section that submits it, for whose end a check that goes to sleep waits before
 * its last look (health_sleep); and after its submit if that was not in one section.
 */
static inline void health_arm(struct multi *multi)
{
    if (__builtin_expect(!load_seq(&multi->health.armed), 0))
        health_arm_slow(multi);
}

#endif
