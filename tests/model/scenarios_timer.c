/*
 * Public timers whose function runs in a pool: what a cancel says, and what a destroy leaves behind.
 */
#include "ledger.h"

#include <ringpool/timer.h>

#define MS INT64_C(1000000)

static struct {
    struct rp_timer *timer;
    struct gate gate; /* the pool's only worker stands at it */
    unsigned runs;
    bool runs_now, over; /* over: somebody was told that nothing of it runs or will */
} bell;

static void bell_run(struct rp_timer *timer, void *arg)
{
    (void)timer;
    (void)arg;
    must(!bell.over, "a timer's function is called after it was told to be over");
    must(!bell.runs_now, "a timer's function runs twice at once");
    bell.runs_now = true;
    turn("a timer's function");
    bell.runs_now = false;
    bell.runs++;
    must(!bell.over, "a timer's function ends after it was told to be over");
}

static void stand_at_gate(void *arg)
{
    (void)arg;
    gate_wait(&bell.gate);
}

static void open_late(void *arg)
{
    (void)arg;
    model_sleep((int64_t)choose(5) * MS / 2);
    gate_open(&bell.gate);
}

/* After a cancel that met a run that one may still come; after all else nothing may. */
static void end_timer(void *arg)
{
    (void)arg;
    model_sleep((int64_t)choose(4) * MS);
    if (chance(3)) {
        int fate = rp_timer_cancel(bell.timer);
        must(fate == RP_TIMER_IDLE || fate == RP_TIMER_RUNS || fate == RP_TIMER_CANCELED, "cancel: %d", fate);
        bell.over = fate != RP_TIMER_RUNS;
    } else if (chance(2)) {
        int fate = rp_timer_cancel_wait(bell.timer);
        must(fate == RP_TIMER_IDLE || fate == RP_TIMER_RUNS || fate == RP_TIMER_CANCELED, "cancel_wait: %d", fate);
        bell.over = true;
    } else {
        must(rp_timer_destroy(bell.timer) == 0, "destroy");
        bell.timer = NULL;
        bell.over = true;
    }
}

/* A periodic timer is due again and again while its run waits for room, gets it, and is taken back. */
static void timer_full(void)
{
    memset(&bell, 0, sizeof(bell));
    open_pool(1, &(struct rp_pool_options){.queue_depth = choose(2)});
    const struct rp_timer_options options = {.pool = ledger.pool, .allocator = &model_allocator};
    must(rp_timer_create(&bell.timer, bell_run, NULL, &options) == 0, "no timer");
    must(rp_pool_submit(ledger.pool, stand_at_gate, NULL) == 0, "submit");
    if (chance(2))
        rp_pool_try_submit(ledger.pool, stand_at_gate, NULL);
    must(rp_timer_arm_periodic(bell.timer, model_now() + 1, MS) == 0, "arm");
    actor("opener", open_late, NULL);
    actor("ender", end_timer, NULL);
    actors_join();
    settle(true);
    unsigned runs = bell.runs;
    must(!bell.runs_now, "a run does not end");
    if (bell.timer)
        must(rp_timer_destroy(bell.timer) == 0, "destroy");
    settle(true);
    must(bell.runs == runs, "it runs though it was disarmed");
    rest_check();
    close_pool();
    must(blocks_left() == 0, "%u blocks stay", blocks_left());
}

const struct scenario scenarios_timer[] = {
    {"timer-full", "a timer that was cancelled beside its fire, while its run waits for room, runs no more",
     timer_full},
    {0},
};
