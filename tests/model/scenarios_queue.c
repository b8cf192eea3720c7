/*
 * Completion queues and strands: each end told once, no consumer forgotten, no order lost.
 */
#include "scene.h"

#include <errno.h>
#include <ringpool/completion.h>
#include <ringpool/context.h>
#include <ringpool/strand.h>

/* --- completion queues -------------------------------------------------------------------------------------------- */

static struct {
    struct rp_cq *cq;
    unsigned posts, taken[16];
} queue;

static void queue_open(unsigned entries)
{
    const struct rp_cq_options options = {.entries = entries, .allocator = &model_allocator};

    memset(&queue, 0, sizeof(queue));
    must(rp_cq_create(&queue.cq, &options) == 0, "no queue");
}

static void post_three(void *arg)
{
    uint64_t first = NUMBER(arg);

    for (uint64_t i = 0; i < 3; i++) {
        int rc = rp_cq_post(queue.cq, first + i, (int)(first + i));
        must(rc == 0, "post: %d", rc);
    }
}

static void take(unsigned min, unsigned max)
{
    struct rp_completion out[8];
    int n = rp_cq_wait(queue.cq, out, max, min, 0);

    must(n >= (int)min && n <= (int)max, "wait for %u to %u gave %d", min, max, n);
    for (int i = 0; i < n; i++) {
        must(out[i].user_data < 16 && out[i].result == (int)out[i].user_data, "a completion of nobody's");
        must(!queue.taken[out[i].user_data]++, "completion %d came twice", out[i].result);
        queue.posts++;
    }
}

static void consume_nine(void *arg)
{
    (void)arg;
    while (queue.posts < 9) {
        unsigned left = 9 - queue.posts, min = 1 + choose(left < 4 ? left : 4);
        take(min, min + choose(9 - min < 8 - min ? 9 - min : 8 - min));
    }
}

/* Three post, one takes, as many as it likes at a time; the queue grows on the way. */
static void cq_wait(void)
{
    queue_open(4);
    actor("consumer", consume_nine, NULL);
    for (unsigned i = 0; i < 9; i += 3)
        actor("poster", post_three, ARG(i));
    settle(false);
    actors_join();
    must(queue.posts == 9, "%u completions of 9", queue.posts);
    must(rp_cq_destroy(queue.cq) == 0, "destroy");
    must(blocks_left() == 0, "%u blocks stay", blocks_left());
}

/* Tasks that owe completions while the queue is destroyed: nothing is touched that was freed, and all is. */
static void owing(void *arg)
{
    unsigned i = NUMBER(arg);

    scene.ran[i]++;
    turn("a task that owes");
}

static void submit_owing(unsigned first)
{
    for (uint64_t i = 0; i < 2; i++) {
        const struct rp_task task = {.fn = owing, .arg = ARG(first + i), .cq = queue.cq, .user_data = first + i};
        int rc = rp_pool_submit_task(ledger.pool, &task);
        must(rc == 0, "submit: %d", rc);
    }
}

/* Their results are 0: only the user_data tells them apart. */
static void take_owed(unsigned min)
{
    struct rp_completion out[3];
    int n = rp_cq_wait(queue.cq, out, 3, min, 0);

    must(n >= (int)min, "wait for %u gave %d", min, n);
    for (int i = 0; i < n; i++)
        must(out[i].user_data < 4 && out[i].result == 0 && !queue.taken[out[i].user_data]++, "a completion too many");
}

static void destroy_queue(void *arg)
{
    (void)arg;
    int rc = rp_cq_destroy(queue.cq);
    must(rc == 0, "destroy: %d", rc);
}

static void cq_owed(void)
{
    scene_open(2, &(struct rp_pool_options){.queue_depth = 4});
    queue_open(4);
    submit_owing(0);
    if (chance(2)) {
        submit_owing(2);
        take_owed(choose(3));
    }
    actor("destroyer", destroy_queue, NULL);
    scene_settled();
    actors_join();
    must(scene.ran[0] == 1 && scene.ran[1] == 1, "a task that owes has not run");
    scene_close();
}

/*
 * Whatever becomes of tasks that owe completions, and whoever takes them from the queue: each posts one, which says
 * what.
 */
static void cq_fates(void)
{
    static const int policies[] = {RP_OVERLOAD_BLOCK, RP_OVERLOAD_DISCARD_OLDEST, RP_OVERLOAD_DISCARD_NEWEST,
                                   RP_OVERLOAD_CALLER_RUNS};
    struct rp_completion out[4];
    bool accepted[4];
    int expected = 0;

    queue_open(8);
    scene_open(1, &(struct rp_pool_options){.queue_depth = 1 + choose(2),
                                            .release_policy = chance(2) ? RP_RELEASE_DROP : RP_RELEASE_RUN});
    for (unsigned i = 0; i < 4; i++) {
        const struct rp_task task = {
            .fn = owing, .arg = ARG(i), .cq = queue.cq, .user_data = i, .overload = policies[choose(4)]};
        int rc = rp_pool_submit_task(ledger.pool, &task);
        must(rc == 0 || rc == -EAGAIN, "submit: %d", rc);
        expected += accepted[i] = !rc;
        if (i == 1 && !rp_pool_submit_future(ledger.pool, plain, ARG(4), &scene.future[0]))
            actor("runner", run_first, NULL); /* swaps places with one of them */
    }
    actors_join();
    must(rp_pool_release_until(ledger.pool, 0, NULL) == 0, "release");
    int n = rp_cq_wait(queue.cq, out, 4, 0, 0);
    must(n == expected, "%d completions of %d", n, expected);
    for (int i = 0; i < n; i++) {
        unsigned which = (unsigned)out[i].user_data;
        must(which < 4 && accepted[which] && !queue.taken[which]++, "completion %u twice, or of nobody's", which);
        must(scene.ran[which] == (out[i].result == 0), "task %u ran %u times and posted %d", which, scene.ran[which],
             out[i].result);
    }
    must(rp_cq_destroy(queue.cq) == 0, "destroy");
    scene_close();
}

/* --- strands ------------------------------------------------------------------------------------------------------ */

static struct {
    struct rp_strand *strand;
    bool busy[2];     /* a task of the key runs */
    unsigned last[2]; /* of each submitter: the number of its task that ran last */
    unsigned ran, accepted, dropped;
    bool wild;                  /* some tasks panic, or end their threads */
    bool cancelling, cancelled; /* the context's cancel has begun, and returned */
    bool over[2];               /* it had returned when the key's last task began */
} serial;

struct part {
    unsigned submitter, number, key;
    bool ctx;       /* it has one */
    bool hurried;   /* it has a timeout, which may pass while it runs */
    unsigned fates; /* runs and drops */
    int result;     /* that its completion is to have */
};
static struct part parts[8];

static void part_run(void *arg)
{
    struct part *part = arg;

    must(!serial.busy[part->key], "two tasks of a key at once");
    must(!part->fates++, "task %u of submitter %u meets a second fate", part->number, part->submitter);
    must(!part->ctx || !serial.over[part->key], "it runs after one that began when its context had been cancelled");
    must(rp_ctx_current() == (part->ctx ? scene.ctx : NULL), "another's context is current");
    serial.over[part->key] = serial.cancelled;
    serial.busy[part->key] = true;
    turn("a task of a key");
    must(serial.last[part->submitter] < part->number, "task %u of submitter %u runs after task %u", part->number,
         part->submitter, serial.last[part->submitter]);
    serial.last[part->submitter] = part->number;
    serial.busy[part->key] = false;
    serial.ran++;
    if (serial.wild && chance(4)) {
        part->result = -EFAULT;
        if (chance(2))
            rp_panic("by its choice");
        pthread_exit(NULL);
    }
}

static void part_dropped(void *arg, int reason)
{
    struct part *part = arg;

    must(reason == -ESHUTDOWN || (reason == -ECANCELED && part->ctx && serial.cancelling), "dropped: %d", reason);
    must(!part->fates++, "task %u of submitter %u meets a second fate", part->number, part->submitter);
    part->result = reason;
    serial.dropped++;
}

static void submit_parts(void *arg)
{
    struct part *part = arg;

    for (unsigned i = 0; i < 3; i++) {
        const struct rp_task task = {.fn = part_run,
                                     .arg = &part[i],
                                     .dropped = part_dropped,
                                     .ctx = part[i].ctx ? scene.ctx : NULL,
                                     .timeout = part[i].hurried ? 1 + (int64_t)choose(2) * MS : 0,
                                     .cq = queue.cq,
                                     .user_data = (uint64_t)(&part[i] - parts)};
        int rc = rp_strand_submit_task(serial.strand, part[i].key, &task);
        must(rc == 0 || rc == -ESHUTDOWN || (rc == -ECANCELED && part[i].ctx && serial.cancelling), "strand submit: %d",
             rc);
        if (rc)
            break;
        serial.accepted++;
    }
}

static void strand_open(const struct rp_strand_options *options)
{
    struct rp_strand_options o = *options;

    memset(&serial, 0, sizeof(serial));
    memset(&queue, 0, sizeof(queue)); /* none, unless the scenario opens one */
    o.allocator = &model_allocator;
    must(rp_strand_create(&serial.strand, ledger.pool, &o) == 0, "no strand");
    for (unsigned i = 0; i < 6; i++)
        parts[i] = (struct part){.submitter = i / 3, .number = i % 3 + 1};
}

/* Two submitters to one key, or to two: order and one at a time, whatever the pool has room for. */
static void strand_order(void)
{
    unsigned keys = 1 + choose(2);

    scene_open(1 + choose(2), &(struct rp_pool_options){.queue_depth = choose(3)});
    strand_open(&(struct rp_strand_options){
        .burst = 1 + choose(2), .max_queued = chance(3) ? 2 : 0, .max_per_key = chance(3) ? 1 : 0});
    serial.wild = chance(3);
    for (unsigned i = 3; i < 6; i++)
        parts[i].key = keys - 1;
    actor("submitter1", submit_parts, &parts[0]);
    actor("submitter2", submit_parts, &parts[3]);
    settle(true); /* a runner whose thread has ended is submitted again by a timer */
    actors_join();
    must(serial.accepted == 6 && serial.ran == 6, "%u accepted, %u ran", serial.accepted, serial.ran);
    must(rp_strand_destroy(serial.strand) == 0, "destroy");
    settle(true);
    rest_check();
    scene_close();
}

static void cancel_context(void *arg)
{
    (void)arg;
    model_sleep(choose(2));
    serial.cancelling = true;
    rp_ctx_cancel(scene.ctx, 0);
    serial.cancelled = true;
}

/* Each accepted part has posted once, and what became of it. */
static void parts_told(void)
{
    struct rp_completion out[8];
    int n = rp_cq_wait(queue.cq, out, 8, 0, 0);

    must(n == (int)serial.accepted, "%d completions of %u", n, serial.accepted);
    for (int i = 0; i < n; i++) {
        must(out[i].user_data < 6 && !queue.taken[out[i].user_data]++, "a completion twice, or of nobody's");
        const struct part *part = &parts[out[i].user_data];
        must(out[i].result == part->result || (part->hurried && !part->result && out[i].result == -ETIMEDOUT),
             "a completion says %d where %d was", out[i].result, part->result);
    }
}

/*
 * Tasks with a context, with a timeout and with neither. The context is cancelled while they wait in their keys, while
 * a key is handed from runner to runner, and while its runner's thread ends: once a task has begun after the cancel,
 * none of the context's follows it.
 */
static void strand_context(void)
{
    const struct rp_ctx_options options = {.allocator = &model_allocator};
    unsigned keys = 1 + choose(2);

    scene_open(1 + choose(2), &(struct rp_pool_options){.queue_depth = choose(3)});
    must(rp_ctx_create_with(&scene.ctx, NULL, &options) == 0, "no context");
    strand_open(&(struct rp_strand_options){.burst = 1 + choose(2), .max_per_key = chance(3) ? 1 : 0});
    queue_open(8);
    serial.wild = chance(3);
    for (unsigned i = 0; i < 6; i++) {
        parts[i].ctx = chance(2);
        parts[i].hurried = !parts[i].ctx && chance(2);
        parts[i].key = i < 3 ? 0 : keys - 1;
    }
    actor("submitter1", submit_parts, &parts[0]);
    actor("submitter2", submit_parts, &parts[3]);
    actor("canceller", cancel_context, NULL);
    settle(true); /* a runner whose thread has ended is submitted again by a timer */
    actors_join();
    must(serial.ran + serial.dropped == serial.accepted, "%u accepted, %u ran, %u dropped", serial.accepted, serial.ran,
         serial.dropped);
    parts_told();
    must(rp_strand_destroy(serial.strand) == 0, "destroy");
    rp_ctx_destroy(scene.ctx);
    must(rp_cq_destroy(queue.cq) == 0, "destroy");
    settle(true);
    rest_check();
    scene_close();
}

static void end_strand(void *arg)
{
    (void)arg;
    model_sleep(choose(2));
    int rc = rp_strand_release_until(serial.strand, 0);
    must(rc == 0, "release_until: %d", rc);
    must(serial.ran + serial.dropped >= serial.accepted, "released with %u tasks left",
         serial.accepted - serial.ran - serial.dropped);
}

/* A release beside a submitter: what was accepted runs or is dropped before it returns. */
static void strand_end(void)
{
    scene_open(1 + choose(2), &(struct rp_pool_options){.queue_depth = choose(3)});
    strand_open(
        &(struct rp_strand_options){.release_policy = chance(2) ? RP_RELEASE_DROP : RP_RELEASE_RUN, .burst = 1});
    actor("submitter1", submit_parts, &parts[0]);
    actor("submitter2", submit_parts, &parts[3]);
    actor("ender", end_strand, NULL);
    settle(true);
    actors_join();
    must(serial.ran + serial.dropped == serial.accepted, "%u accepted, %u ran, %u dropped", serial.accepted, serial.ran,
         serial.dropped);
    must(rp_strand_destroy(serial.strand) == 0, "destroy");
    settle(true);
    rest_check();
    scene_close();
}

const struct scenario scenarios_queue[] = {
    {"cq-wait", "a consumer that sleeps for n completions is woken by the one that makes them so many", cq_wait},
    {"cq-owed", "tasks that owe a completion outlive the queue", cq_owed},
    {"cq-fates", "each task that owes a completion posts one, and what became of it", cq_fates},
    {"strand-order", "tasks of a key run in order and never two at once", strand_order},
    {"strand-context", "a key's tasks of a cancelled context are dropped in their turn, the others run",
     strand_context},
    {"strand-end", "a strand's end meets every accepted task", strand_end},
    {0},
};
