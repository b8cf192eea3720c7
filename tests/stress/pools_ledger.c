/*
 * The ledger of the load `pools`: which codes a call may return, which fates a task may meet, and the sum at the end.
 */
#include "pools.h"

#include <errno.h>

/* --- return codes ------------------------------------------------------------------------------------------------- */

/* Whether submit may say `rc` to a task of this record with this overload policy, by the headers. */
static bool code_allowed(const struct trial *t, const struct record *r, enum form form, int overload, int rc)
{
    if (overload == RP_OVERLOAD_DEFAULT)
        overload = t->options.overload ? t->options.overload : RP_OVERLOAD_BLOCK;
    switch (-rc) {
    case 0:
        return true;
    case EAGAIN:
        return form == TRY || form == CROSS || overload == RP_OVERLOAD_FAIL || overload == RP_OVERLOAD_DISCARD_OLDEST ||
               (overload == RP_OVERLOAD_BLOCK && (t->options.nonblocking || t->options.max_blocking)) || t->may_fail;
    case EDEADLK:
        return depth > 0 && overload == RP_OVERLOAD_BLOCK && form != TRY && form != CROSS;
    case ETIMEDOUT:
        return r->dated;
    case ESHUTDOWN:
        return t->released;
    case ENOMEM:
        return t->may_fail;
    }
    return false;
}

void code_check(const char *call, int rc, unsigned long allowed)
{
    static const int codes[] = {ESHUTDOWN, EAGAIN, ENOMEM, ETIMEDOUT, EINVAL, EALREADY, EPERM};

    progress++;
    if (rc >= 0)
        return;
    for (unsigned i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i] == -rc && allowed >> i & 1)
            return;
    fail("%s returned %d (%s)", call, rc, rp_strerror(rc));
}

/* --- fates and verdicts ------------------------------------------------------------------------------------------- */

struct record *record_take(struct trial *t, unsigned generation)
{
    unsigned i = t->used < RECORDS ? t->used++ : RECORDS;

    if (i >= RECORDS)
        return NULL;
    struct record *r = &t->records[i];
    r->trial = t;
    r->choice = rnd(100000);
    r->generation = generation;
    return r;
}

void meet_fate(struct record *r, int fate)
{
    int before = atomic_exchange(&r->fate, fate);

    progress++;
    if (before != FATE_NONE)
        fail("record %td of pool %u meets fate %d after %d", r - r->trial->records, r->trial->number, fate, before);
    if (r->verdict == REJECTED)
        fail("record %td of pool %u was rejected and meets fate %d", r - r->trial->records, r->trial->number, fate);
}

static bool reason_allowed(const struct record *r, int reason)
{
    const struct trial *t = r->trial;

    switch (-reason) {
    case ETIMEDOUT:
        return r->dated;
    case ESHUTDOWN:
        return t->released && (t->options.release_policy == RP_RELEASE_DROP || t->may_fail);
    case EAGAIN:
        return t->discards;
    }
    return false;
}

void dropped(void *arg, int reason)
{
    struct record *r = arg;

    meet_fate(r, reason < 0 ? reason : -CODES + 1);
    if (!reason_allowed(r, reason))
        fail("record %td of pool %u dropped for %d (%s)", r - r->trial->records, r->trial->number, reason,
             rp_strerror(reason));
    n_dropped[-reason]++;
}

void verdict(struct trial *t, struct record *r, enum form form, int overload, int rc)
{
    static const char *const names[] = {"submit", "try_submit", "submit_until", "submit_task", "submit_batch", "cross"};

    progress++;
    if (!code_allowed(t, r, form, overload, rc))
        fail("%s to pool %u with overload policy %d at nesting %u returned %d (%s)", names[form], t->number, overload,
             depth, rc, rp_strerror(rc));
    r->verdict = rc ? REJECTED : ACCEPTED;
    if (rc && r->fate != FATE_NONE)
        fail("%s of record %td to pool %u returned %d after fate %d", names[form], r - t->records, t->number, rc,
             r->fate);
    if (rc)
        n_rejected[-rc]++;
    else
        n_accepted++;
}

/* --- the sum ------------------------------------------------------------------------------------------------------ */

void ledger_check(struct trial *t)
{
    uint64_t accepted = 0, ran = 0, told = 0, silent = 0, unknown = 0;
    unsigned used = t->used < RECORDS ? t->used : RECORDS;
    bool drops = t->discards || t->options.release_policy == RP_RELEASE_DROP || t->may_fail;

    for (unsigned i = 1; i < used; i++) { /* without the one of end_inside */
        struct record *r = &t->records[i];
        unknown += r->verdict == VERDICT_NONE;
        if (r->verdict == REJECTED && r->fate != FATE_NONE)
            fail("record %u of pool %u was rejected and met fate %d", i, t->number, r->fate);
        if (r->verdict != ACCEPTED)
            continue;
        accepted++;
        ran += r->fate == FATE_RAN;
        told += r->fate < 0;
        silent += r->fate == FATE_NONE;
        if (r->fate == FATE_NONE && (r->told || !(drops || r->dated)))
            fail("record %u of pool %u was accepted and met no fate", i, t->number);
        if (r->fate < 0 && !r->told)
            fail("record %u of pool %u was told of a drop that it did not ask for", i, t->number);
    }
    if (!t->rested || unknown)
        return;
    const struct rp_pool_snapshot *s = &t->at_rest;
    if (s->busy || s->idle || s->running || s->waiting || s->blocked || !s->closed)
        fail("pool %u after release_until: running %u, busy %u, waiting %u", t->number, s->running, s->busy,
             s->waiting);
    if (s->submitted != accepted || s->dropped != told + silent || s->panicked != t->panics ||
        s->completed != ran - t->panics)
        fail("pool %u at rest: submitted %" PRIu64 " completed %" PRIu64 " dropped %" PRIu64 " panicked %" PRIu64
             ", but the ledger has %" PRIu64 " accepted, %" PRIu64 " ran, %" PRIu64 " told and %" PRIu64
             " untold drops, %" PRIu64 " panics",
             t->number, s->submitted, s->completed, s->dropped, s->panicked, accepted, ran, told, silent,
             (uint64_t)t->panics);
}
