/*
 * The backend on io_uring: the thread sleeps in io_uring_enter with the deadline as the wait's own timeout, and the
 * bell is a multishot poll request on an eventfd.
 *
 * The ring has one submitter for life, the reactor's thread: a request dies with the thread that armed it, and this
 * thread is the one that stays. Deadlines are not ring requests, since the kernel keeps those in a linear list: the
 * wait carries the earliest one, the wheel above keeps the rest.
 *
 * Nothing rests on the ring alone. Whatever it refuses (a submission for want of memory, a wait that a filter installed
 * later denies), the bell is still a descriptor that can be polled without it.
 */
#include "ring/backend.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include <ringpool/base.h>

#include "ring/bell.h"
#include "ring/reactor.h"

/* Younger than liburing 2.3: an idle thread that waits on its ring shall not count as waiting for a disk (6.15). */
#ifndef IORING_ENTER_NO_IOWAIT
#define IORING_ENTER_NO_IOWAIT (1U << 7)
#endif
#ifndef IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT (1U << 17)
#endif

/*
 * One poll request at a time and a few messages: the smallest ring is roomy, and limits on locked memory count it.
 * The completion queue is twice as long, so that the messages under way and the bell never overflow it.
 */
#define RING_ENTRIES 8
#define MESSAGES_MAX 6

/* user_data of the poll request, and of a message that was withdrawn; messages count from FIRST_MESSAGE. */
enum { THE_BELL = 0, WITHDRAWN = 1, FIRST_MESSAGE = 2 };

struct uring {
    struct backend backend;
    struct io_uring ring;
    int bell;
    unsigned enter_flags;
    bool queued;  /* the poll request stands in the submission queue */
    bool armed;   /* the kernel has it: the ring hears the bell */
    bool oneshot; /* the kernel knows no multishot poll: armed anew after every ring of the bell */
    bool broken;  /* the ring refuses what it once granted: polls the bell directly for good */
};

static struct uring *uring_of(struct backend *backend)
{
    return (struct uring *)backend;
}

/*
 * The kernel is asked, not its version: each set of flags is tried. Deferred task run spares a running owner the
 * interruption by every completion (7.4 us instead of 0.6 for the one who signals).
 */
static int setup(struct uring *uring)
{
    static const struct {
        unsigned flags;
        const char *note;
    } ways[] = {
        {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, "single issuer, deferred task run"},
        {IORING_SETUP_COOP_TASKRUN, "cooperative task run"},
        {0, "interrupting task run"},
    };
    int rc = -EINVAL;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0] && rc == -EINVAL; i++) {
        struct io_uring_params params = {.flags = ways[i].flags};
        rc = io_uring_queue_init_params(RING_ENTRIES, &uring->ring, &params);
        snprintf(uring->backend.note, sizeof uring->backend.note, "%s", ways[i].note);
    }
    return rc;
}

/* Some filters grant the set-up and deny the rest: nothing is believed before a request has come back. */
static int round_trip(struct io_uring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    struct io_uring_cqe *cqe;
    io_uring_prep_nop(sqe);
    int rc;
    do {
        rc = io_uring_submit_and_wait(ring, 1);
    } while (rc == -EINTR);
    if (rc < 0) {
        return rc;
    }
    do {
        rc = io_uring_wait_cqe(ring, &cqe);
    } while (rc == -EINTR);
    if (rc < 0) {
        return rc;
    }
    rc = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return rc;
}

/* Hands the kernel what is queued. The poll request is armed once nothing is left behind, whatever stood before it. */
static int submit(struct uring *uring)
{
    int rc;
    do {
        rc = io_uring_submit(&uring->ring);
    } while (rc == -EINTR);
    if (uring->queued && io_uring_sq_ready(&uring->ring) == 0) {
        uring->queued = false;
        uring->armed = true;
    }
    return rc;
}

/* Whether the kernel has the poll request. A failed submission leaves it in the queue, for the next attempt. */
static bool arm(struct uring *uring)
{
    if (!uring->queued) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
        if (!sqe) {
            return false;
        }
        if (uring->oneshot) {
            io_uring_prep_poll_add(sqe, uring->bell, POLLIN);
        } else {
            io_uring_prep_poll_multishot(sqe, uring->bell, POLLIN);
        }
        io_uring_sqe_set_data64(sqe, THE_BELL);
        uring->queued = true;
    }
    submit(uring);
    return uring->armed;
}

/*
 * What a completion says of the poll request. One without F_MORE is its last: the kernel ends a
 * multishot whenever the completion queue overflows, and it must be armed again before the next sleep. The bell is
 * drained after its completion is taken, so a ring from then on makes a new one; and whoever rang before has already
 * changed what the reactor will look at.
 */
static void hear_bell(struct uring *uring, const struct io_uring_cqe *cqe)
{
    if (!(cqe->flags & IORING_CQE_F_MORE)) {
        uring->armed = false;
    }
    if (cqe->res == -EINVAL && !uring->oneshot) {
        uring->oneshot = true;
    } else if (cqe->res < 0) {
        uring->broken = true;
    }
}

/* Takes the completions there are. Those of messages give their results to `results`, and how many is returned. */
static unsigned reap(struct uring *uring, int *results)
{
    struct io_uring_cqe *cqe;
    bool heard = false;
    unsigned messages = 0;
    while (io_uring_peek_cqe(&uring->ring, &cqe) == 0) {
        if (cqe->user_data == THE_BELL) {
            heard = true;
            hear_bell(uring, cqe);
        } else if (cqe->user_data >= FIRST_MESSAGE && results) {
            results[cqe->user_data - FIRST_MESSAGE] = cqe->res;
            messages++;
        }
        io_uring_cqe_seen(&uring->ring, cqe);
    }
    if (heard) {
        bell_drain(uring->bell);
    }
    return messages;
}

/* The sleep that needs no ring. */
static void poll_bell(struct uring *uring, int64_t deadline)
{
    bell_wait(uring->bell, deadline);
    bell_drain(uring->bell);
}

static int wait_in_ring(struct uring *uring, int64_t deadline)
{
    struct __kernel_timespec timeout = {0};
    struct io_uring_getevents_arg arg = {.ts = (uintptr_t)&timeout};
    unsigned wanted = 1;
#ifdef RP_VALGRIND
    /* memcheck lets no other thread run while one blocks in io_uring_enter, but knows poll. The bell, not the ring, is
     * polled: a poll of the ring is not woken by a completion that deferred task run has yet to make. */
    bell_wait(uring->bell, deadline);
    wanted = 0;
#endif
    if (deadline == INT64_MAX) {
        arg.ts = 0;
    } else {
        int64_t now = rp_now();
        int64_t left = deadline > now ? deadline - now : 0;
        timeout.tv_sec = left / 1000000000;
        timeout.tv_nsec = left % 1000000000;
    }
    return io_uring_enter2((unsigned)uring->ring.ring_fd, 0, wanted, uring->enter_flags, (sigset_t *)&arg, sizeof arg);
}

static void uring_sleep(struct backend *backend, int64_t deadline)
{
    struct uring *uring = uring_of(backend);
    if (uring->broken || (!uring->armed && !arm(uring))) {
        poll_bell(uring, deadline);
    } else {
        int rc = wait_in_ring(uring, deadline);
        if (rc == -EAGAIN || rc == -EBUSY) {
            poll_bell(uring, deadline); /* short of memory now: asking again at once would spin */
        } else if (rc < 0 && rc != -ETIME && rc != -EINTR) {
            uring->broken = true;
        }
    }
    reap(uring, NULL);
}

/*
 * Messages. They go linked, so that a failed one ends those behind it and what was posted is a prefix. The sleep does
 * not run meanwhile, and a bell that is heard here ends the caller's section: the reactor looks at everything after it.
 */

/* What the kernel has not taken off the queue is turned into nothing: the next submission sends it on its way. */
static void withdraw(struct io_uring_sqe **queued, unsigned from, unsigned n)
{
    for (unsigned i = from; i < n; i++) {
        io_uring_prep_nop(queued[i]);
        io_uring_sqe_set_data64(queued[i], WITHDRAWN);
    }
}

static unsigned queue_messages(struct uring *uring, struct io_uring_sqe **queued, int ring_fd,
                               const struct ring_message *messages, unsigned n)
{
    unsigned i = 0;
    for (; i < n && i < MESSAGES_MAX && (queued[i] = io_uring_get_sqe(&uring->ring)); i++) {
        io_uring_prep_msg_ring(queued[i], ring_fd, (unsigned)messages[i].res, messages[i].data, 0);
        io_uring_sqe_set_data64(queued[i], FIRST_MESSAGE + i);
        if (i > 0) {
            queued[i - 1]->flags |= IOSQE_IO_LINK;
        }
    }
    return i;
}

/* Until `taken` results are there. A wait that is denied leaves the rest as they were set: posted. */
static void await_results(struct uring *uring, int *results, unsigned taken)
{
    unsigned came = reap(uring, results);
    while (came < taken) {
        struct io_uring_cqe *cqe;
        int rc = io_uring_wait_cqe(&uring->ring, &cqe);
        if (rc < 0 && rc != -EINTR && rc != -EAGAIN) {
            uring->broken = true;
            return;
        }
        came += reap(uring, results);
    }
}

static int uring_send(struct backend *backend, int ring_fd, const struct ring_message *messages, unsigned n)
{
    struct uring *uring = uring_of(backend);
    struct io_uring_sqe *queued[MESSAGES_MAX];
    int results[MESSAGES_MAX] = {0};
    int before = (int)io_uring_sq_ready(&uring->ring); /* what was refused last time */
    unsigned count = queue_messages(uring, queued, ring_fd, messages, n);
    int rc = submit(uring);
    unsigned taken = rc > before ? (unsigned)(rc - before) : 0;
    withdraw(queued, taken, count);
    await_results(uring, results, taken);
    unsigned posted = 0;
    while (posted < taken && results[posted] >= 0) {
        posted++;
    }
    if (posted > 0) {
        return (int)posted;
    }
    return taken > 0 ? results[0] : rc < 0 ? rc : -EAGAIN;
}

/* Whether the kernel knows messages (5.18). A filter may deny the question: then they are not used. */
static bool knows_messages(struct io_uring *ring)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool known = probe && io_uring_opcode_supported(probe, IORING_OP_MSG_RING);
    io_uring_free_probe(probe);
    return known;
}

static void uring_ring(struct backend *backend)
{
    bell_ring(uring_of(backend)->bell);
}

static void uring_close(struct backend *backend)
{
    struct uring *uring = uring_of(backend);
    io_uring_queue_exit(&uring->ring);
    bell_close(uring->bell);
    free(uring);
}

static int refuse(struct backend_refusal *refusal, const char *call, int rc)
{
    *refusal = (struct backend_refusal){.call = call, .rc = rc};
    return rc;
}

static int uring_open(struct backend **out, struct backend_refusal *refusal)
{
    struct uring *uring = calloc(1, sizeof *uring);
    if (!uring) {
        return refuse(refusal, "calloc", -ENOMEM);
    }
    uring->backend.ops = &uring_backend;

    int rc = setup(uring);
    if (rc < 0) {
        refuse(refusal, "io_uring_setup", rc);
        goto no_ring;
    }
    rc = round_trip(&uring->ring);
    if (rc < 0) {
        refuse(refusal, "io_uring_enter", rc);
        goto no_use;
    }
    if (!(uring->ring.features & IORING_FEAT_EXT_ARG)) {
        rc = refuse(refusal, "IORING_FEAT_EXT_ARG", -ENOSYS);
        goto no_use;
    }
    uring->bell = bell_open();
    if (uring->bell < 0) {
        rc = refuse(refusal, "eventfd", uring->bell);
        goto no_use;
    }
    uring->enter_flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    if (uring->ring.features & IORING_FEAT_NO_IOWAIT) {
        uring->enter_flags |= IORING_ENTER_NO_IOWAIT;
    }
    uring->backend.sends = knows_messages(&uring->ring);
    *out = &uring->backend;
    return 0;

no_use:
    io_uring_queue_exit(&uring->ring);
no_ring:
    free(uring);
    return rc;
}

const struct backend_ops uring_backend = {
    .name = "io_uring",
    .open = uring_open,
    .sleep = uring_sleep,
    .ring = uring_ring,
    .send = uring_send,
    .close = uring_close,
    /* io_uring_queue_exit only unmaps and closes; it writes nothing to the ring and tells the kernel nothing about it,
     * so in a child it gives back the child's mappings and descriptors and the parent's ring goes on. */
    .forget = uring_close,
};
