/*
 * Futures, continuations, groups and retries: one outcome, no waiter forgotten.
 *
 * The reactor of the model fires timers; what is checked before time passes (settle(false)) does not owe its end to
 * one.
 */
#include "scene.h"

#include <errno.h>
#include <ringpool/context.h>
#include <ringpool/retry.h>

struct scene scene;

void scene_open(unsigned capacity, const struct rp_pool_options *options)
{
    memset(&scene, 0, sizeof(scene));
    open_pool(capacity, options);
}

void scene_settled(void)
{
    settle(false);
    rest_check();
}

void scene_close(void)
{
    for (int i = 0; i < MOST; i++)
        rp_future_destroy(scene.future[i]);
    close_pool();
    must(blocks_left() == 0, "%u blocks stay", blocks_left());
}

int plain(void *arg, void **value)
{
    unsigned i = NUMBER(arg);

    must(!scene.ran[i]++ && !scene.dropped[i], "future %u runs twice or after it was dropped", i);
    turn("a future");
    *value = arg;
    return 7;
}

static void dropped(void *arg, int reason)
{
    unsigned i = NUMBER(arg);

    must(reason < 0 && !scene.ran[i] && !scene.dropped[i]++, "future %u is dropped twice or after it ran", i);
}

static void make(unsigned i, int (*fn)(void *arg, void **value))
{
    scene.silent[i] = chance(2); /* of no kind, if it has no context either: its end is the short one */
    const struct rp_task task = {.arg = ARG(i), .dropped = scene.silent[i] ? NULL : dropped, .ctx = scene.ctx};
    int rc = rp_pool_submit_future_task(ledger.pool, fn, &task, &scene.future[i]);

    must(rc == 0, "submit of future %u: %d", i, rc);
}

/* Whether it met one fate. */
static bool ended_once(unsigned i)
{
    unsigned fates = scene.ran[i] + scene.dropped[i];

    return scene.silent[i] ? fates <= 1 : fates == 1;
}

/* --- one outcome -------------------------------------------------------------------------------------------------- */

/* Observer i looks at future 0 and notes what it saw. */
static void observe(void *arg)
{
    unsigned i = NUMBER(arg);
    void *value = NULL;

    if (chance(3)) {
        int rc = rp_future_wait_any(scene.future, 1, 0);
        must(rc == 0, "wait_any: %d", rc);
        rc = rp_future_try_get(scene.future[0], &value);
        must(rc != -EBUSY, "wait_any has returned and it is not done");
        scene.seen[i] = rc;
    } else {
        scene.seen[i] = rp_future_get(scene.future[0], &value);
    }
    must(value == (scene.seen[i] == 7 ? ARG(0) : NULL), "the value does not belong to the result %d", scene.seen[i]);
    scene.looked[i] = true;
}

static void cancel_first(void *arg)
{
    (void)arg;
    if (scene.ctx && chance(2))
        rp_ctx_cancel(scene.ctx, 0);
    else
        rp_future_cancel(scene.future[0]);
}

void run_first(void *arg)
{
    (void)arg;
    int rc = rp_future_run(scene.future[0]);
    must(rc == 0 || rc == -EALREADY, "run: %d", rc);
    must(rc || rp_future_done(scene.future[0]), "run has returned and it is not done");
}

/* A worker, a cancel, a context's end and a thread that runs it in place, and two that look. */
static void future_outcome(void)
{
    scene_open(1 + choose(2), &(struct rp_pool_options){.queue_depth = 2, .min_workers = choose(2)});
    if (chance(2))
        must(rp_ctx_create(&scene.ctx, NULL, 0) == 0, "no context");
    make(0, plain);
    if (chance(2))
        make(1, plain);
    actor("observer1", observe, ARG(1));
    actor("observer2", observe, ARG(2));
    actor("canceller", cancel_first, NULL);
    if (chance(2))
        actor("runner", run_first, NULL);
    scene_settled();
    actors_join();
    must(scene.seen[1] == scene.seen[2], "one saw %d, the other %d", scene.seen[1], scene.seen[2]);
    must(scene.seen[1] == 7 || scene.seen[1] == -ECANCELED, "both saw %d", scene.seen[1]);
    must(scene.ran[0] == (scene.seen[1] == 7) && ended_once(0),
         "it ran %u times and was dropped %u times, and all saw %d", scene.ran[0], scene.dropped[0], scene.seen[1]);
    rp_ctx_destroy(scene.ctx);
    scene_close();
}

/* Handles given up while others still use what is behind them; nothing is freed early, and nothing stays. */
static void give_up(void *arg)
{
    unsigned i = NUMBER(arg);
    struct rp_future *future = scene.future[i];

    scene.future[i] = NULL;
    if (chance(3))
        rp_future_cancel(future);
    rp_future_destroy(future);
}

static void future_given_up(void)
{
    scene_open(1 + choose(2), &(struct rp_pool_options){.queue_depth = 3});
    for (unsigned i = 0; i < 3; i++)
        make(i, plain);
    for (unsigned i = 0; i < 3; i++)
        actor("owner", give_up, ARG(i));
    scene_settled();
    actors_join();
    for (unsigned i = 0; i < 3; i++)
        must(ended_once(i), "future %u: no fate, or two", i);
    scene_close();
}

/* --- waits that help, and those that cannot be -------------------------------------------------------------------- */

static int waits_for_next(void *arg, void **value)
{
    unsigned i = NUMBER(arg);

    *value = arg;
    scene.ran[i]++;
    int rc = rp_future_get(scene.future[i + 1], NULL);
    return rc < 0 ? rc : 7;
}

/* Each waits for the next one: on one worker they end up on one stack. */
static void future_help(void)
{
    scene_open(1 + choose(2), &(struct rp_pool_options){.queue_depth = 4, .max_extra = choose(2)});
    for (unsigned i = 0; i < 4; i++) /* the last first: all are there when it is looked for */
        make(3 - i, i ? waits_for_next : plain);
    actor("observer", observe, ARG(5));
    if (chance(2))
        actor("runner", run_first, NULL);
    scene_settled();
    actors_join();
    must(scene.seen[5] == 7, "the first one ended with %d", scene.seen[5]);
    for (unsigned i = 0; i < 4; i++)
        must(scene.ran[i] == 1, "future %u ran %u times", i, scene.ran[i]);
    scene_close();
}

static int waits_for_gate(void *arg, void **value)
{
    *value = arg;
    scene.ran[NUMBER(arg)]++;
    gate_wait(&scene.gate);
    return 7;
}

static void run_one(void *arg)
{
    unsigned i = NUMBER(arg);
    int rc = rp_future_run(scene.future[i]);

    must(rc == 0 || rc == -EALREADY, "run of %u: %d", i, rc);
    must(rc || rp_future_done(scene.future[i]), "run of %u has returned and it is not done", i);
}

/*
 * Each is run by a thread that has no use for the others, whose entries it meets: all run, whoever keeps whose place.
 */
static void future_places(void)
{
    bool held = chance(2); /* the only worker is busy, as a rule */

    scene_open(1, &(struct rp_pool_options){.queue_depth = 4});
    if (held)
        make(4, waits_for_gate);
    for (unsigned i = 0; i < 4; i++)
        make(i, plain);
    for (unsigned i = 0; i < 4; i++)
        actor("runner", run_one, ARG(i));
    actors_join();
    gate_open(&scene.gate);
    scene_settled();
    for (unsigned i = 0; i < (held ? 5 : 4); i++)
        must(scene.ran[i] == 1, "future %u ran %u times", i, scene.ran[i]);
    scene_close();
}

static int destroys(void *arg, void **value)
{
    int rc = rp_pool_destroy(ledger.pool);

    must(rc == 0 || rc == -EALREADY, "destroy inside: %d", rc);
    return plain(arg, value);
}

/*
 * Who runs a future in place is no guest: the pool stays until its end is told all the same, whoever destroys it, and
 * waits for that or leaves it to the reactor.
 */
static void future_run_destroy(void)
{
    bool inside = chance(2);

    scene_open(1 + choose(2), &(struct rp_pool_options){.queue_depth = 3, .min_workers = choose(2)});
    for (unsigned i = 0; i < 3; i++)
        make(i, inside && i < 2 ? destroys : plain);
    for (unsigned i = 0; i < 3; i++)
        actor("runner", run_one, ARG(i));
    if (chance(2))
        actor("observer", observe, ARG(5));
    if (!inside)
        close_pool();
    settle(true);
    actors_join();
    for (unsigned i = 0; i < 3; i++) {
        must(scene.ran[i] == 1, "future %u ran %u times", i, scene.ran[i]);
        rp_future_destroy(scene.future[i]);
    }
    must(blocks_left() == 0, "%u blocks stay", blocks_left());
}

static int waits_for_last_two(void *arg, void **value)
{
    *value = arg;
    scene.ran[NUMBER(arg)]++;
    for (unsigned i = MOST - 2; i < MOST; i++)
        rp_future_get(scene.future[i], NULL);
    return 7;
}

static void run_or_cancel(void *arg)
{
    unsigned i = NUMBER(arg);
    struct rp_future *future = scene.future[i];

    if (chance(6)) {
        rp_future_cancel(future);
    } else {
        int rc = rp_future_run(future);
        must(rc == 0 || rc == -EALREADY || rc == -ESHUTDOWN, "run of %u: %d", i, rc);
    }
    if (chance(2)) {
        scene.future[i] = NULL;
        rp_future_destroy(future);
    }
}

static void make_of_class(unsigned i, bool classes)
{
    static const int priorities[] = {RP_PRIO_NORMAL, RP_PRIO_NORMAL, RP_PRIO_HIGH, RP_PRIO_LOW};
    const struct rp_task task = {
        .arg = ARG(i), .dropped = dropped, .ctx = scene.ctx, .priority = classes ? priorities[choose(4)] : 0};
    int rc = rp_pool_submit_future_task(ledger.pool, plain, &task, &scene.future[i]);

    must(rc == 0, "submit of future %u: %d", i, rc);
}

/*
 * The same beside a worker that helps, cancels, handles that are given up, tasks that discard the oldest, and a
 * release: each meets one fate.
 */
static void future_places_harsh(void)
{
    unsigned n = 3 + choose(3), capacity = 1 + choose(2);
    bool helps = chance(2), releases = chance(4), discards = !releases && chance(3), classes = chance(2);

    scene_open(capacity, &(struct rp_pool_options){.queue_depth = n + 3 + choose(2) - capacity,
                                                   .max_extra = choose(2),
                                                   .release_policy = chance(2) ? RP_RELEASE_DROP : RP_RELEASE_RUN});
    if (chance(4))
        must(rp_ctx_create(&scene.ctx, NULL, 0) == 0, "no context");
    for (unsigned i = 0; i < n; i++)
        make_of_class(i, classes);
    if (helps) {
        make(MOST - 2, plain);
        make(MOST - 1, plain);
        make(MOST - 3, waits_for_last_two);
    }
    for (unsigned i = 0; i < n; i++)
        actor("runner", run_or_cancel, ARG(i));
    for (int i = 0; discards && i < 3; i++) {
        struct chore *job = job_new();
        job->overload = RP_OVERLOAD_DISCARD_OLDEST;
        actor("discarder", submit_job, job);
    }
    if (releases)
        actor("releaser", release, NULL);
    if (!releases)
        scene_settled();
    actors_join();
    if (releases)
        released();
    for (unsigned i = 0; i < n; i++)
        must(scene.ran[i] + scene.dropped[i] == 1, "future %u: ran %u, dropped %u", i, scene.ran[i], scene.dropped[i]);
    rp_ctx_destroy(scene.ctx);
    scene_close();
}

static int waits_for_other(void *arg, void **value)
{
    unsigned i = NUMBER(arg);

    (void)value;
    scene.ran[i]++;
    gate_wait(&scene.gate);
    return rp_future_get(scene.future[!i], NULL);
}

/* Two that wait for each other: somebody is told, and the other one hears of his end. */
static void future_knot(void)
{
    scene_open(2, &(struct rp_pool_options){.queue_depth = 2, .max_extra = choose(2)});
    make(0, waits_for_other);
    make(1, waits_for_other);
    gate_open(&scene.gate);
    scene_settled();
    for (int i = 0; i < 2; i++)
        scene.seen[i] = rp_future_get(scene.future[i], NULL);
    must(scene.seen[0] == -EDEADLK && scene.seen[1] == -EDEADLK, "%d and %d", scene.seen[0], scene.seen[1]);
    scene_close();
}

/* --- continuations ------------------------------------------------------------------------------------------------ */

static int goes_on(void *arg, int result, void *value, void **next_value)
{
    unsigned i = NUMBER(arg);

    must(!scene.ran[i]++, "continuation %u runs twice", i);
    *next_value = value;
    return result;
}

static void tie(void *arg)
{
    unsigned i = NUMBER(arg);
    int rc = rp_future_then(scene.future[0], NULL, goes_on, arg, &scene.future[i]);

    must(rc == 0, "then: %d", rc);
    if (chance(4))
        rp_future_cancel(scene.future[i]);
    scene.seen[i] = rp_future_get(scene.future[i], NULL);
}

/*
 * Tied while the source ends, or is cancelled, and perhaps cancelled themselves, with room in the queue or none: each
 * gets its source's end, once, or its own.
 */
static void future_then(void)
{
    bool cancelled = chance(2);

    scene_open(1 + choose(2), &(struct rp_pool_options){.queue_depth = 1 + choose(3)});
    make(0, plain);
    actor("tie1", tie, ARG(1));
    actor("tie2", tie, ARG(2));
    if (cancelled)
        actor("canceller", cancel_first, NULL);
    if (chance(2)) /* they take the room */
        for (unsigned i = 3; i < 5; i++)
            make(i, plain);
    scene_settled();
    actors_join();
    int first = rp_future_get(scene.future[0], NULL);
    for (unsigned i = 1; i < 3; i++) {
        must(scene.seen[i] == first || scene.seen[i] == -ECANCELED, "continuation %u: %d after %d", i, scene.seen[i],
             first);
        must(scene.ran[i] == (scene.seen[i] == 7), "continuation %u ran %u times and ended with %d", i, scene.ran[i],
             scene.seen[i]);
    }
    scene_close();
}

/* The pool closes while a chain is on its way: all of it runs or all that follows is told, and the release ends. */
static void release_pool(void *arg)
{
    (void)arg;
    int rc = rp_pool_release_until(ledger.pool, 0, NULL);
    must(rc == 0, "release_until: %d", rc);
    for (unsigned i = 1; i < 3; i++)
        must(!scene.future[i] || rp_future_done(scene.future[i]), "released, and continuation %u is not done", i);
}

static void then_release(void)
{
    bool drop = chance(2);

    scene_open(1 + choose(2),
               &(struct rp_pool_options){.queue_depth = 2, .release_policy = drop ? RP_RELEASE_DROP : RP_RELEASE_RUN});
    make(0, plain);
    for (unsigned i = 1; i < 3; i++)
        must(rp_future_then(scene.future[i - 1], NULL, goes_on, ARG(i), &scene.future[i]) == 0, "no continuation");
    actor("releaser", release_pool, NULL);
    scene_settled();
    actors_join();
    for (unsigned i = 0; i < 3; i++) {
        int rc = rp_future_get(scene.future[i], NULL);
        must(rc == 7 || (drop && rc == -ESHUTDOWN), "future %u: %d", i, rc);
        must(scene.ran[i] == (rc == 7), "future %u: %d and %u runs", i, rc, scene.ran[i]);
    }
    scene_close();
}

static int waits_at_gate(void *arg, void **value)
{
    gate_wait(&scene.gate);
    return plain(arg, value);
}

/* Some end their thread: those behind them on its list are left without one. */
static int may_exit(void *arg, int result, void *value, void **next_value)
{
    unsigned i = NUMBER(arg);

    must(!scene.ran[i]++, "continuation %u runs twice", i);
    turn("a continuation");
    if (scene.exits[i])
        pthread_exit(NULL);
    *next_value = value;
    return result;
}

static void cancel_second(void *arg)
{
    (void)arg;
    model_sleep(choose(2) * MS);
    rp_future_cancel(scene.future[2]);
}

static void run_third(void *arg)
{
    (void)arg;
    model_sleep(choose(2) * MS);
    int rc = rp_future_run(scene.future[3]);
    must(rc == 0 || rc == -EALREADY, "run: %d", rc);
    must(rc || rp_future_done(scene.future[3]), "run has returned and it is not done");
}

static void close_late(void *arg)
{
    (void)arg;
    model_sleep(choose(3) * MS);
    must(rp_pool_release(ledger.pool) == 0, "release");
}

/* Tasks that take the room that there is, so that what is offered comes back. */
static void fill(unsigned i)
{
    const struct rp_task task = {.arg = ARG(i), .overload = RP_OVERLOAD_FAIL};

    scene.silent[i] = true;
    int rc = rp_pool_submit_future_task(ledger.pool, plain, &task, &scene.future[i]);
    must(rc == 0 || rc == -EAGAIN, "submit: %d", rc);
}

/*
 * Continuations of one source that end the thread on which the others wait, with room for these or none, cancelled, run
 * by another thread and shut out meanwhile: each meets one end.
 */
static void then_orphans(void)
{
    scene_open(1 + choose(2),
               &(struct rp_pool_options){.queue_depth = choose(3),
                                         .release_policy = chance(2) ? RP_RELEASE_DROP : RP_RELEASE_RUN});
    make(0, waits_at_gate);
    for (unsigned i = 1; i < 5; i++) {
        scene.exits[i] = i != 3 && chance(2);
        must(rp_future_then(scene.future[0], NULL, may_exit, ARG(i), &scene.future[i]) == 0, "no continuation");
    }
    for (unsigned i = 5; i < 8; i++)
        if (chance(2))
            fill(i);
    bool cancels = chance(2), runs = chance(2), closes = chance(3);
    if (cancels)
        actor("canceller", cancel_second, NULL);
    if (runs)
        actor("runner", run_third, NULL);
    if (closes)
        actor("closer", close_late, NULL);
    gate_open(&scene.gate);
    settle(true); /* the reactor offers them */
    actors_join();
    for (unsigned i = 1; i < 5; i++) {
        int rc = rp_future_get(scene.future[i], NULL);
        must(rc == 7 || rc == -EFAULT || (rc == -ECANCELED && cancels && i == 2) || (rc == -ESHUTDOWN && closes),
             "continuation %u ended with %d", i, rc);
        must(scene.ran[i] == (rc == 7 || rc == -EFAULT) && scene.exits[i] >= (rc == -EFAULT),
             "continuation %u ran %u times and ended with %d", i, scene.ran[i], rc);
    }
    scene_close();
}

/* --- groups and retries ------------------------------------------------------------------------------------------- */

static int member(void *arg)
{
    unsigned i = NUMBER(arg);

    must(!scene.ran[i]++, "member %u runs twice", i);
    turn("a member");
    return i == 1 ? -EPROTO : 0;
}

static void join_group(void *arg)
{
    unsigned i = NUMBER(arg);

    for (unsigned k = i; k < i + 2; k++) {
        int rc = rp_group_submit(scene.group, member, ARG(k));
        must(rc == 0 || (rc == -ECANCELED && !scene.seen[5]), "group submit: %d", rc);
        if (rc)
            scene.dropped[k] = 1;
    }
}

/* Members from two threads, one of which fails, and a cancel beside: the wait ends when the last one has. */
static void group_ends(void)
{
    scene_open(1 + choose(2), &(struct rp_pool_options){.queue_depth = 4});
    must(rp_group_create(&scene.group, ledger.pool, NULL) == 0, "no group");
    actor("member0", join_group, ARG(0));
    actor("member2", join_group, ARG(2));
    actors_join();
    int rc = rp_group_wait(scene.group, 0);
    must(rc == (scene.dropped[1] ? -ECANCELED : -EPROTO) || rc == -EPROTO, "the group ended with %d", rc);
    unsigned before = scene.ran[0] + scene.ran[1] + scene.ran[2] + scene.ran[3];
    scene_settled();
    must(before == scene.ran[0] + scene.ran[1] + scene.ran[2] + scene.ran[3], "a member ran after the wait");
    rp_group_destroy(scene.group);
    scene_close();
}

static int fails_first(void *arg, void **value)
{
    unsigned i = NUMBER(arg);

    (void)value;
    turn("an attempt");
    return ++scene.ran[i] < 3 ? -EPROTO : 7;
}

/* Between attempts it stands in a timer: a cancel finds it there, in the queue or at work, and it ends once. */
static void retry_cancel(void)
{
    scene_open(1, &(struct rp_pool_options){.queue_depth = 1});
    int rc = rp_pool_submit_retry(ledger.pool, fails_first, &(struct rp_task){.arg = ARG(0), .dropped = dropped},
                                  &(struct rp_retry){.delay = MS}, &scene.future[0]);
    must(rc == 0, "submit_retry: %d", rc);
    actor("canceller", cancel_first, NULL);
    if (chance(2)) {
        actors_join();
        settle(false);
        must(rp_future_done(scene.future[0]), "it was cancelled and waits for its timer");
    }
    scene.seen[0] = rp_future_get(scene.future[0], NULL);
    actors_join();
    must(scene.seen[0] == 7 ? scene.ran[0] == 3 : scene.seen[0] == -ECANCELED || scene.seen[0] == -EPROTO,
         "it ended with %d after %u attempts", scene.seen[0], scene.ran[0]);
    settle(true);
    rest_check();
    scene_close();
}

static void submit_retry(void *arg)
{
    int rc =
        rp_pool_submit_retry(ledger.pool, fails_first, &(struct rp_task){.arg = ARG(0), .dropped = dropped, .ctx = arg},
                             &(struct rp_retry){.delay = MS}, &scene.future[0]);

    must(rc == 0, "submit_retry: %d", rc);
}

/* The first attempt may be over before its submitter has set the watch: a context that ends then still ends the wait. */
static void retry_context(void)
{
    struct rp_ctx *ctx;

    scene_open(1, &(struct rp_pool_options){.queue_depth = 1});
    must(rp_ctx_create(&ctx, NULL, 0) == 0, "no context");
    actor("submitter", submit_retry, ctx);
    actors_join();
    if (chance(2))
        settle(false);
    rp_ctx_cancel(ctx, 0);
    unsigned begun = scene.ran[0] + 1; /* one may be about to begin */
    settle(false);
    must(rp_future_done(scene.future[0]), "its context has ended and it waits for its timer");
    must(scene.ran[0] <= begun, "%u attempts after its context had ended", scene.ran[0] + 1 - begun);
    int rc = rp_future_get(scene.future[0], NULL);
    must(rc == 7 ? scene.ran[0] == 3 : rc == -ECANCELED, "it ended with %d after %u attempts", rc, scene.ran[0]);
    rp_ctx_destroy(ctx);
    settle(true);
    rest_check();
    scene_close();
}

const struct scenario scenarios_future[] = {
    {"future-outcome", "whatever races for a future's end, all see the same one", future_outcome},
    {"future-given-up", "a handle may go in any state; the task meets one fate and all memory comes back",
     future_given_up},
    {"future-help", "workers that wait for tasks of their pool run them", future_help},
    {"future-places", "threads run futures that wait in the queue, and leave each other's entries in their places",
     future_places},
    {"future-places-harsh", "so they do beside helpers, cancels, discards and a release", future_places_harsh},
    {"future-run-destroy", "what runs a future in place keeps the pool to its end", future_run_destroy},
    {"future-knot", "two tasks that wait for each other are told", future_knot},
    {"future-then", "a continuation gets its source's end, once, whenever it was tied", future_then},
    {"then-release", "a release waits for continuations or drops them", then_release},
    {"then-orphans", "continuations whose thread another one has ended meet one end each", then_orphans},
    {"group", "a group's wait ends after the last member, with the first error", group_ends},
    {"retry-cancel", "a cancel between attempts ends the future once", retry_cancel},
    {"retry-context", "so does the end of its context, however late its submitter is", retry_context},
    {0},
};
