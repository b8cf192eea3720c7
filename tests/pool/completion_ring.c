/*
 * The completion queue in the user's own ring: doorbells and single CQEs, by every way of delivery that this kernel
 * grants, on both of the library's backends; rings that are full, disabled, closed, or whose owner has ended.
 */
#include "cqe.h"
#include "life.h"
#include "pool/completion.h"

#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <sys/syscall.h>

#define TAG UINT64_C(0xd00bbe11)

/* --- what is granted -------------------------------------------------------------------------------------------- */

static bool uring_is_granted(void)
{
    struct io_uring ring;

    if (io_uring_queue_init(4, &ring, 0))
        return false;
    io_uring_queue_exit(&ring);
    return true;
}

static void ring_make(struct io_uring *ring, unsigned entries, unsigned flags)
{
    int rc = io_uring_queue_init(entries, ring, flags);

    cr_assert_eq(rc, 0, "io_uring_queue_init: %d", rc);
}

/* NULL when this way is not granted here. */
static struct rp_cq *cq_make(struct io_uring *ring, const struct rp_cq_options *more, int delivery, int backend)
{
    struct rp_cq_options options = more ? *more : (struct rp_cq_options){0};
    struct rp_cq *cq = NULL;

    options.ring = ring;
    options.tag = TAG;
    options.delivery = delivery;
    options.backend = backend;
    int rc = rp_cq_create(&cq, &options);
    cr_assert(rc == 0 || rc == -ENOTSUP, "create: %s", rp_strerror(rc));
    return cq;
}

/* The claim as a test for each delivery, skipped where it is not granted; the body is given a backend that can. */
#define DELIVERIES(claim)                                                                                              \
    static void claim(int delivery, int backend);                                                                      \
    static void claim##_tried(int delivery, int backend)                                                               \
    {                                                                                                                  \
        struct io_uring ring;                                                                                          \
        struct holdings before = holdings_now();                                                                       \
        if (!uring_is_granted())                                                                                       \
            cr_skip_test("no io_uring here");                                                                          \
        ring_make(&ring, 4, 0);                                                                                        \
        struct rp_cq *cq = cq_make(&ring, NULL, delivery, backend);                                                    \
        if (!cq)                                                                                                       \
            cr_skip_test("the kernel does not grant this delivery");                                                   \
        cr_assert_geq(rp_cq_destroy(cq), 0);                                                                           \
        io_uring_queue_exit(&ring);                                                                                    \
        ASSERT_NOTHING_LEFT(before); /* lest the claim counts a reactor that is still going */                         \
        claim(delivery, backend);                                                                                      \
    }                                                                                                                  \
    Test(completion_ring, claim##_sent)                                                                                \
    {                                                                                                                  \
        claim##_tried(RP_CQ_SEND, RP_BACKEND_EPOLL);                                                                   \
    }                                                                                                                  \
    Test(completion_ring, claim##_by_the_reactor)                                                                      \
    {                                                                                                                  \
        claim##_tried(RP_CQ_REACTOR, RP_BACKEND_IO_URING);                                                             \
    }                                                                                                                  \
    Test(completion_ring, claim##_polled)                                                                              \
    {                                                                                                                  \
        claim##_tried(RP_CQ_POLL, RP_BACKEND_EPOLL);                                                                   \
    }                                                                                                                  \
    static void claim(int delivery, int backend)

/* Arms, and submits what that has put into the ring. */
static void arm(struct io_uring *ring, struct rp_cq *cq)
{
    int rc = rp_cq_arm(cq);

    cr_assert_geq(rc, 0, "arm: %s", rp_strerror(rc));
    if (rc)
        cr_assert_eq(io_uring_submit(ring), 1);
}

struct arrival {
    uint64_t user_data;
    int res;
};

static struct arrival wait_cqe(struct io_uring *ring)
{
    struct io_uring_cqe *cqe;

    cr_assert(cqe_comes(ring), "no CQE came");
    cr_assert_eq(io_uring_peek_cqe(ring, &cqe), 0);
    struct arrival arrival = {.user_data = cqe->user_data, .res = cqe->res};
    io_uring_cqe_seen(ring, cqe);
    return arrival;
}

/* Whether a CQE is there, also one that the ring's thread has yet to make. */
static bool has_cqe(struct io_uring *ring)
{
    struct io_uring_cqe *cqe;

    io_uring_get_events(ring);
    return io_uring_peek_cqe(ring, &cqe) == 0;
}

struct poster {
    struct rp_cq *cq;
    uint64_t first, n;
    unsigned seed;
    _Atomic uint32_t failed, ended;
    pthread_t thread;
};

static void *poster_main(void *arg)
{
    struct poster *me = arg;

    for (uint64_t i = 0; i < me->n; i++) {
        if (rp_cq_post(me->cq, me->first + i, (int)(me->first + i)))
            add_seq(&me->failed, 1);
        if (me->seed && rand_r(&me->seed) % 32 == 0)
            sched_yield();
    }
    store_seq(&me->ended, 1);
    return NULL;
}

static void poster_start(struct poster *me)
{
    cr_assert_eq(pthread_create(&me->thread, NULL, poster_main, me), 0);
}

static void poster_end(struct poster *me)
{
    AWAIT(load_seq(&me->ended));
    cr_assert_eq(pthread_join(me->thread, NULL), 0);
    cr_assert_eq(load_seq(&me->failed), 0);
}

#define POSTERS 3

static void posters_start(struct poster *poster, struct rp_cq *cq, uint64_t each)
{
    for (unsigned i = 0; i < POSTERS; i++) {
        poster[i] = (struct poster){.cq = cq, .first = i * each, .n = each, .seed = i + 1};
        poster_start(&poster[i]);
    }
}

static void posters_end(struct poster *poster)
{
    for (unsigned i = 0; i < POSTERS; i++)
        poster_end(&poster[i]);
}

static uint64_t each_of(uint64_t fast)
{
    return UNDER_TSAN || UNDER_ASAN ? fast / 10 : fast;
}

/* --- doorbells -------------------------------------------------------------------------------------------------- */

/*
 * Adversary: posters that pause at random against a loop that takes until the queue is empty and then waits for its
 * ring alone. Holds: every completion comes once, the loop is told of each, by far fewer doorbells than completions.
 */
static void loop_over_ring(int delivery, int backend, unsigned flags)
{
    uint64_t each = each_of(20000), came = 0, doorbells = 0;
    struct rp_completion out[64];
    struct poster poster[POSTERS];
    struct io_uring ring;

    ring_make(&ring, 8, flags);
    struct rp_cq *cq = cq_make(&ring, &(struct rp_cq_options){.entries = 4}, delivery, backend);
    unsigned char *seen = calloc(POSTERS, each);
    cr_assert_not_null(seen);
    arm(&ring, cq);
    posters_start(poster, cq, each);
    while (came < POSTERS * each) {
        cr_assert_eq(wait_cqe(&ring).user_data, TAG);
        doorbells++;
        int n;
        do {
            n = rp_cq_wait(cq, out, 64, 0, 0);
            cr_assert_geq(n, 0);
            for (int i = 0; i < n; i++)
                cr_assert_eq(seen[out[i].user_data]++, 0);
            came += (uint64_t)n;
        } while (n == 64);
        arm(&ring, cq);
    }
    posters_end(poster);
    cr_assert_lt(doorbells, came);
    cr_assert_eq(rp_cq_wait(cq, out, 64, 0, 0), 0);
    int left = rp_cq_detach(cq);
    cr_assert_geq(left, 0);
    cr_assert_leq(left, 1);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    io_uring_queue_exit(&ring);
    free(seen);
}

DELIVERIES(a_loop_is_told_of_every_completion)
{
    loop_over_ring(delivery, backend, 0);
}

DELIVERIES(a_loop_with_deferred_task_run_is_told_too)
{
    struct io_uring ring;

    if (io_uring_queue_init(4, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN))
        cr_skip_test("no deferred task run here");
    io_uring_queue_exit(&ring);
    loop_over_ring(delivery, backend, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
}

DELIVERIES(one_doorbell_rings_for_many_completions)
{
    struct rp_completion out[100];
    struct io_uring ring;

    ring_make(&ring, 8, 0);
    struct rp_cq *cq = cq_make(&ring, NULL, delivery, backend);
    for (int round = 0; round < 5; round++) {
        arm(&ring, cq);
        cr_assert_not(has_cqe(&ring));
        for (int i = 0; i < 100; i++)
            cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
        cr_assert_eq(wait_cqe(&ring).user_data, TAG);
        cr_assert_not(has_cqe(&ring), "one CQE for all of them");
        cr_assert_eq(rp_cq_wait(cq, out, 50, 0, 0), 50);
        cr_assert_eq(rp_cq_wait(cq, out, 100, 0, 0), 50);
    }
    cr_assert_geq(rp_cq_detach(cq), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    io_uring_queue_exit(&ring);
}

/* Waiting in rp_cq_wait and in the ring may alternate: a wait takes back the doorbell, and leaves it armed again. */
DELIVERIES(a_blocking_wait_in_between_leaves_the_doorbell_armed)
{
    struct rp_completion out[4];
    struct io_uring ring;

    ring_make(&ring, 8, 0);
    struct rp_cq *cq = cq_make(&ring, NULL, delivery, backend);
    arm(&ring, cq);
    for (int round = 0; round < 50; round++) {
        struct poster poster = {.cq = cq, .n = 1};
        poster_start(&poster);
        cr_assert_eq(rp_cq_wait(cq, out, 4, 1, rp_after(PATIENCE)), 1);
        poster_end(&poster);
        while (has_cqe(&ring)) { /* it may have rung before the wait took it back, or after that by who was late */
            wait_cqe(&ring);
            cr_assert_eq(rp_cq_wait(cq, out, 4, 0, 0), 0);
            arm(&ring, cq);
        }
        cr_assert_eq(rp_cq_wait(cq, out, 4, 0, 0), 0);
        cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
        cr_assert_eq(wait_cqe(&ring).user_data, TAG);
        cr_assert_eq(rp_cq_wait(cq, out, 4, 0, 0), 1);
        arm(&ring, cq);
    }
    cr_assert_geq(rp_cq_detach(cq), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    io_uring_queue_exit(&ring);
}

/* --- parting ---------------------------------------------------------------------------------------------------- */

/*
 * Adversary: a detach in the middle of the posting. Holds: after it the ring gets nothing but what detach announced,
 * and every completion that the loop has not taken is still in the queue.
 */
DELIVERIES(after_detach_nothing_is_sent_and_nothing_is_lost)
{
    for (int round = 0; round < 20; round++) {
        uint64_t each = 2000, came = 0;
        struct rp_completion out[64];
        struct poster poster[POSTERS];
        struct io_uring ring;
        ring_make(&ring, 8, 0);
        struct rp_cq *cq = cq_make(&ring, NULL, delivery, backend);
        arm(&ring, cq);
        posters_start(poster, cq, each);
        for (int i = 0; i < round; i++) {
            wait_cqe(&ring);
            int n;
            do
                came += (uint64_t)(n = rp_cq_wait(cq, out, 64, 0, 0));
            while (n == 64);
            if (came == POSTERS * each)
                break;
            arm(&ring, cq);
        }
        int left = rp_cq_detach(cq), found = 0;
        cr_assert(left == 0 || left == 1);
        int there = (int)io_uring_cq_ready(&ring); /* doorbells of calls that the loop made without looking */
        cr_assert_eq(rp_cq_detach(cq), 0);
        posters_end(poster);
        for (; has_cqe(&ring); found++)
            wait_cqe(&ring);
        cr_assert_leq(found, there + left, "%d CQEs, %d announced and %d there", found, left, there);
        io_uring_queue_exit(&ring);
        while (came < POSTERS * each) {
            int n = rp_cq_wait(cq, out, 64, 1, rp_after(PATIENCE));
            cr_assert_geq(n, 1);
            came += (uint64_t)n;
        }
        cr_assert_eq(rp_cq_arm(cq), -EINVAL);
        cr_assert_eq(rp_cq_destroy(cq), 0);
    }
}

DELIVERIES(destroy_with_posts_in_flight_parts_from_the_ring)
{
    for (int round = 0; round < 50; round++) {
        struct io_uring ring;
        struct bank bank = {0};
        struct rp_allocator allocator = bank_allocator(&bank);
        ring_make(&ring, 8, 0);
        struct rp_cq *cq =
            cq_make(&ring, &(struct rp_cq_options){.entries = 4, .allocator = &allocator}, delivery, backend);
        arm(&ring, cq);
        for (int i = 0; i < round; i++)
            cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
        cr_assert_eq(cq_reserve(cq), 0);
        cr_assert_eq(cq_reserve(cq), 0);
        cr_assert_eq(rp_cq_destroy(cq), 0);
        int found = 0;
        for (; has_cqe(&ring); found++)
            wait_cqe(&ring);
        cr_assert_leq(found, 1);
        cq_post(cq, 1, 0);
        cq_unreserve(cq);
        cr_assert_not(has_cqe(&ring));
        cr_assert_eq(load_seq(&bank.live), 0);
        io_uring_queue_exit(&ring);
    }
}

/* --- rings that cannot take it ---------------------------------------------------------------------------------- */

/* The user has closed the ring without a word. Holds: posting goes on, nobody hangs, all is had from the queue. */
DELIVERIES(a_closed_ring_holds_nobody_up)
{
    struct rp_completion out[256];
    struct io_uring ring;

    ring_make(&ring, 8, 0);
    struct rp_cq *cq = cq_make(&ring, NULL, delivery, backend);
    arm(&ring, cq);
    io_uring_queue_exit(&ring);
    int reused = open("/dev/null", O_RDWR | O_CLOEXEC); /* the number of its descriptor is given out again */
    for (int i = 0; i < 200; i++)
        cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
    cr_assert_eq(rp_cq_wait(cq, out, 256, 200, rp_after(PATIENCE)), 200);
    cr_assert_geq(rp_cq_detach(cq), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    close(reused);
}

struct owner {
    struct io_uring ring;
    int rc;
};

static void *owner_main(void *arg)
{
    struct owner *me = arg;

    me->rc = io_uring_queue_init(8, &me->ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    return NULL;
}

/* The thread that alone could see the doorbell has ended: what is sent to it vanishes. */
DELIVERIES(a_ring_whose_owner_has_ended_holds_nobody_up)
{
    struct rp_completion out[256];
    struct owner owner;
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, owner_main, &owner), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    if (owner.rc)
        cr_skip_test("no deferred task run here");
    struct rp_cq *cq = cq_make(&owner.ring, NULL, delivery, backend);
    for (int i = 0; i < 200; i++)
        cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
    cr_assert_eq(rp_cq_wait(cq, out, 256, 200, rp_after(PATIENCE)), 200);
    cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
    cr_assert_geq(rp_cq_detach(cq), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    io_uring_queue_exit(&owner.ring);
}

/* A ring that is made disabled refuses messages until it is enabled: they are sent again. */
DELIVERIES(a_disabled_ring_gets_its_doorbell_when_it_is_enabled)
{
    struct rp_completion out[4];
    struct io_uring ring;

    ring_make(&ring, 8, IORING_SETUP_R_DISABLED);
    struct rp_cq *cq = cq_make(&ring, NULL, delivery, backend);
    cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
    cr_assert_eq(rp_cq_post(cq, 2, 0), 0);
    if (delivery != RP_CQ_POLL)
        AWAIT(load_seq(&cq->deferred) && load_seq(&cq->pause_ns) > 4 * MS); /* it has been refused, more than once */
    cr_assert_eq(syscall(SYS_io_uring_register, ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0), 0);
    arm(&ring, cq);
    cr_assert_eq(wait_cqe(&ring).user_data, TAG);
    cr_assert_eq(rp_cq_wait(cq, out, 4, 0, 0), 2);
    cr_assert_geq(rp_cq_detach(cq), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    io_uring_queue_exit(&ring);
}

DELIVERIES(a_ring_that_stays_disabled_holds_up_neither_detach_nor_destroy)
{
    struct rp_completion out[4];
    struct io_uring ring;

    ring_make(&ring, 8, IORING_SETUP_R_DISABLED);
    for (int i = 0; i < 3; i++) {
        struct rp_cq *cq = cq_make(&ring, NULL, delivery, backend);
        cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
        if (delivery != RP_CQ_POLL)
            AWAIT(load_seq(&cq->pause_ns) > MS << i);
        if (i) {
            cr_assert_geq(rp_cq_detach(cq), 0);
            cr_assert_eq(rp_cq_wait(cq, out, 4, 1, 0), 1);
        }
        cr_assert_eq(rp_cq_destroy(cq), 0);
    }
    io_uring_queue_exit(&ring);
}

/* The ring's completion queue is full of the user's own: the doorbell is not lost. */
DELIVERIES(a_full_ring_gets_its_doorbell)
{
    struct rp_completion out[4];
    struct io_uring ring;
    unsigned own = 0, doorbells = 0;

    ring_make(&ring, 2, 0);
    struct rp_cq *cq = cq_make(&ring, NULL, delivery, backend);
    arm(&ring, cq);
    for (int i = 0; i < 12; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
        io_uring_prep_nop(sqe);
        io_uring_sqe_set_data64(sqe, 1);
        int rc = io_uring_submit(&ring);
        cr_assert(rc == 1 || rc == -EBUSY);
    }
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
    while (!doorbells) {
        uint64_t data = wait_cqe(&ring).user_data;
        own += data == 1;
        doorbells += data == TAG;
    }
    cr_assert_leq(own, 12);
    cr_assert_eq(rp_cq_wait(cq, out, 4, 0, 0), 3);
    cr_assert_geq(rp_cq_detach(cq), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    io_uring_queue_exit(&ring);
}

Test(completion_ring, a_descriptor_that_is_no_ring_is_told)
{
    struct rp_cq *cq;
    struct io_uring ring;

    memset(&ring, 0, sizeof(ring));
    ring.ring_fd = -1;
    cr_assert_eq(rp_cq_create(&cq, &(struct rp_cq_options){.ring = &ring}), -EBADF);
    cr_assert_null(cq);
    if (!uring_is_granted())
        cr_skip_test("no io_uring here");
    ring.ring_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    cr_assert_eq(rp_cq_create(&cq, &(struct rp_cq_options){.ring = &ring}), -EBADF);
    cr_assert_null(cq);
    close(ring.ring_fd);
}

/* --- one by one ------------------------------------------------------------------------------------------------- */

/*
 * Adversary: posters faster than the loop, which gives credits back in uneven lots. Holds: never more CQEs in the ring
 * than credits, every completion comes once, with its own user_data and res.
 */
static void loop_one_by_one(int delivery, int backend, unsigned flags, unsigned credits)
{
    uint64_t each = each_of(10000), came = 0;
    unsigned held = 0;
    struct poster poster[POSTERS];
    struct io_uring ring;

    ring_make(&ring, 8, flags); /* its completion queue has 16 */
    struct rp_cq_options options = {.entries = 4, .per_completion = true, .credits = credits};
    struct rp_cq *cq = cq_make(&ring, &options, delivery, backend);
    unsigned char *seen = calloc(POSTERS, each);
    cr_assert_not_null(seen);
    arm(&ring, cq);
    posters_start(poster, cq, each);
    while (came < POSTERS * each) {
        struct arrival cqe = wait_cqe(&ring);
        cr_assert_lt(cqe.user_data, POSTERS * each);
        cr_assert_eq(seen[cqe.user_data]++, 0);
        cr_assert_eq(cqe.res, (int)cqe.user_data);
        came++;
        held++;
        cr_assert_leq(held, credits ? credits : 16, "more in the ring than credits");
        if (held >= 1 + came % (credits ? credits : 16)) {
            cr_assert_eq(rp_cq_seen(cq, held), 0);
            held = 0;
        }
    }
    posters_end(poster);
    cr_assert_not(has_cqe(&ring));
    cr_assert_eq(rp_cq_seen(cq, held + 1), -EINVAL);
    cr_assert_eq(rp_cq_detach(cq), (int)held);
    cr_assert_eq(rp_cq_seen(cq, held), -EINVAL);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    io_uring_queue_exit(&ring);
    free(seen);
}

static void skip_unless_one_by_one(int delivery, int backend)
{
    struct io_uring ring;

    if (!uring_is_granted())
        cr_skip_test("no io_uring here");
    ring_make(&ring, 4, 0);
    struct rp_cq *cq = cq_make(&ring, &(struct rp_cq_options){.per_completion = true}, delivery, backend);
    if (!cq)
        cr_skip_test("the kernel does not grant this delivery");
    cr_assert_eq(rp_cq_destroy(cq), 0);
    io_uring_queue_exit(&ring);
}

Test(completion_ring, one_by_one_within_the_credits_sent)
{
    skip_unless_one_by_one(RP_CQ_SEND, RP_BACKEND_EPOLL);
    loop_one_by_one(RP_CQ_SEND, RP_BACKEND_EPOLL, 0, 0);
    loop_one_by_one(RP_CQ_SEND, RP_BACKEND_EPOLL, 0, 1);
    loop_one_by_one(RP_CQ_SEND, RP_BACKEND_EPOLL, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 5);
}

Test(completion_ring, one_by_one_within_the_credits_by_the_reactor)
{
    skip_unless_one_by_one(RP_CQ_REACTOR, RP_BACKEND_IO_URING);
    loop_one_by_one(RP_CQ_REACTOR, RP_BACKEND_IO_URING, 0, 0);
    loop_one_by_one(RP_CQ_REACTOR, RP_BACKEND_IO_URING, 0, 1);
    loop_one_by_one(RP_CQ_REACTOR, RP_BACKEND_IO_URING, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 5);
}

Test(completion_ring, one_by_one_cannot_be_polled)
{
    struct io_uring ring;
    struct rp_cq *cq;

    if (!uring_is_granted())
        cr_skip_test("no io_uring here");
    ring_make(&ring, 4, 0);
    struct rp_cq_options options = {.ring = &ring, .per_completion = true, .delivery = RP_CQ_POLL};
    cr_assert_eq(rp_cq_create(&cq, &options), -ENOTSUP);
    cr_assert_null(cq);
    io_uring_queue_exit(&ring);
}

/*
 * Adversary: a detach while several threads pump, with and without credits left, over enabled and disabled rings.
 * Holds: what detach announced plus what the queue still has is everything; nothing is sent afterwards.
 */
static void detach_while_pumping(int delivery, int backend, unsigned flags)
{
    skip_unless_one_by_one(delivery, backend);
    for (unsigned round = 0; round < 60; round++) {
        uint64_t each = 200, came = 0, taken = 0;
        struct rp_completion out[64];
        struct poster poster[POSTERS];
        struct io_uring ring;
        ring_make(&ring, 64, flags);
        struct rp_cq_options options = {.entries = 4, .per_completion = true, .credits = 1 + round % 60};
        struct rp_cq *cq = cq_make(&ring, &options, delivery, backend);
        posters_start(poster, cq, each);
        while (!flags && came < round) {
            wait_cqe(&ring);
            came++;
            cr_assert_eq(rp_cq_seen(cq, 1), 0);
        }
        cr_assert_eq(rp_cq_wait(cq, out, 64, 0, 0), -EBUSY);
        cr_assert_eq(rp_cq_fd(cq), -EBUSY);
        int left = rp_cq_detach(cq);
        cr_assert_geq(left, 0);
        posters_end(poster);
        if (flags)
            cr_assert_eq(left, 0);
        for (int i = 0; i < left; i++)
            wait_cqe(&ring);
        cr_assert_not(has_cqe(&ring), "more than were announced");
        came += (unsigned)left;
        while (came + taken < POSTERS * each) {
            int n = rp_cq_wait(cq, out, 64, 1, rp_after(PATIENCE));
            cr_assert_geq(n, 1, "%llu of %llu", (unsigned long long)(came + taken), (unsigned long long)POSTERS * each);
            taken += (uint64_t)n;
        }
        cr_assert_eq(rp_cq_wait(cq, out, 64, 0, 0), 0);
        cr_assert_eq(rp_cq_destroy(cq), 0);
        io_uring_queue_exit(&ring);
    }
}

Test(completion_ring, detach_ends_the_pump_sent)
{
    detach_while_pumping(RP_CQ_SEND, RP_BACKEND_EPOLL, 0);
    detach_while_pumping(RP_CQ_SEND, RP_BACKEND_EPOLL, IORING_SETUP_R_DISABLED);
}

Test(completion_ring, detach_ends_the_pump_by_the_reactor)
{
    detach_while_pumping(RP_CQ_REACTOR, RP_BACKEND_IO_URING, 0);
    detach_while_pumping(RP_CQ_REACTOR, RP_BACKEND_IO_URING, IORING_SETUP_R_DISABLED);
}

/* --- what stays ------------------------------------------------------------------------------------------------- */

static int child_with_ring(void *arg)
{
    struct rp_cq *cq = arg;

    cq_post(cq, 77, 0); /* must not reach the parent's ring */
    CHECK(rp_cq_detach(cq) == -ECHILD);
    CHECK(rp_cq_destroy(cq) == 0);
    return 0;
}

DELIVERIES(a_forked_child_rings_no_bell_in_the_parents_ring)
{
    struct rp_completion out[4];
    struct io_uring ring;

    ring_make(&ring, 8, 0);
    struct rp_cq *cq = cq_make(&ring, NULL, delivery, backend);
    arm(&ring, cq);
    cr_assert_eq(in_child(child_with_ring, cq), 0);
    cr_assert_not(has_cqe(&ring));
    cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
    cr_assert_eq(wait_cqe(&ring).user_data, TAG);
    cr_assert_eq(rp_cq_wait(cq, out, 4, 0, 0), 1);
    cr_assert_geq(rp_cq_detach(cq), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    io_uring_queue_exit(&ring);
}

DELIVERIES(nothing_stays_behind)
{
    struct holdings before = holdings_now();
    struct io_uring ring;
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);

    ring_make(&ring, 8, 0);
    for (int i = 0; i < 3; i++) {
        struct rp_cq *cq = cq_make(&ring, &(struct rp_cq_options){.allocator = &allocator}, delivery, backend);
        cr_assert_eq(rp_cq_post(cq, 1, 0), 0);
        cr_assert_geq(rp_cq_fd(cq), 0);
        cr_assert_eq(rp_cq_destroy(cq), 0);
    }
    for (uint32_t n = 1; n <= 2; n++) {
        struct rp_cq_options options = {.allocator = &allocator, .ring = &ring};
        struct rp_cq *cq;
        store_seq(&bank.fail_at, load_seq(&bank.calls) + n);
        cr_assert_eq(rp_cq_create(&cq, &options), -ENOMEM);
    }
    io_uring_queue_exit(&ring);
    cr_assert_eq(load_seq(&bank.live), 0);
    ASSERT_NOTHING_LEFT(before);
}
