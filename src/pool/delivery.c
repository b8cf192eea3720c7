/*
 * How a completion queue tells a consumer that is away: a descriptor, or the user's own io_uring ring.
 *
 * Coalesced: the consumer that leaves the queue empty arms what is wanted (delivery_arm), under the protocol of
 * completion.c; the poster that clears it rings, once. A ring that waits for one doorbell gets one message however many
 * completions follow it.
 *
 * One by one (per_completion): there is no consumer of ours; whoever posts sends. Sending is for one at a time, as the
 * queue is taken from by one at a time: WAKE_PUMP in `wake` says that nobody pumps and that there are credits. The
 * poster who clears it has the pump: it takes completions and sends each as a CQE, for as long as there are any, and
 * sets the bit again with another look (the same two columns). After PUMP_MOST of them it passes the pump on to the
 * reactor, for it has a task to return to. Without credits the pump is left standing: `starved` is set, then credits
 * are looked at again; rp_cq_seen adds credits, then takes `starved` away: one of the two goes on.
 *
 * What a ring cannot take now (no memory, its queue has overflowed, it is not enabled yet) is sent again by the reactor
 * after a pause, which doubles up to a quarter of a second. What it will never take is remembered for rp_cq_arm. So
 * nothing here waits for the owner of the ring, and a ring whose owner has died costs the pool nothing but memory.
 *
 * Parting. Whoever sends is counted in `ringing` from before it looks at `attached` until it has sent, a deferred
 * sending from its posting until it has run. detach clears `attached`, then waits for the count: either it sees the
 * sender, or the sender sees that there is no ring any more (sequentially consistent, both store before they look).
 *
 * The library keeps a copy of the ring's descriptor: the user's may be closed, and its number given out again, while a
 * poster is about to use it.
 */
#include "base/futex.h"
#include "pool/completion.h"
#include "ring/bell.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <urcu/compiler.h>

/* Younger than liburing 2.3 (kernel 6.13): a message sent by io_uring_register, from no ring. */
#define REGISTER_SEND_MSG_RING 31

#define PUMP_MOST 64
#define PUMP_BATCH 6
#define PAUSE_LEAST_NS INT64_C(1000000)
#define PAUSE_MOST_NS INT64_C(256000000)

static inline struct rp_cq *cq_of_work(struct work *work)
{
    return caa_container_of(work, struct rp_cq, work);
}

static inline struct rp_cq *cq_of_timer(struct timer *timer)
{
    return caa_container_of(timer, struct rp_cq, retry);
}

/* --- sending ---------------------------------------------------------------------------------------------------- */

static int send_alone(int ring_fd, const struct ring_message *message)
{
    struct io_uring_sqe sqe = {
        .opcode = IORING_OP_MSG_RING, .fd = ring_fd, .len = (uint32_t)message->res, .off = message->data};
    int saved = errno;
    int rc = syscall(SYS_io_uring_register, -1, REGISTER_SEND_MSG_RING, &sqe, 1) < 0 ? -errno : 1;

    errno = saved;
    return rc;
}

/* A kernel that knows the call looks at the descriptor that is none; one that does not, at the call. */
static bool can_send_alone(void)
{
    return send_alone(-1, &(struct ring_message){0}) == -EBADF;
}

/* As reactor_send, by the way that the queue was given. */
static int send_messages(struct rp_cq *cq, const struct ring_message *messages, unsigned n)
{
    if (cq->delivery == RP_CQ_REACTOR)
        return reactor_send(cq->reactor, cq->ring_fd, messages, n);
    for (unsigned i = 0; i < n; i++) {
        int rc = send_alone(cq->ring_fd, &messages[i]);
        if (rc < 0)
            return i ? (int)i : rc;
    }
    return (int)n;
}

static bool is_final(int rc)
{
    switch (rc) {
    case -EBADF:
    case -EINVAL:
    case -EOPNOTSUPP:
    case -ENOSYS:
    case -EPERM:
    case -EACCES:
        return true;
    default:
        return false; /* -EBADFD, -EOVERFLOW, -ENOMEM, -EAGAIN, -EBUSY, -ECANCELED and what may yet come */
    }
}

/* Gives back the place in `ringing` of a deferred sending that will not run. */
static void undefer(struct rp_cq *cq)
{
    store_seq(&cq->deferred, 0);
    cq_ringing_end(cq);
}

/*
 * The reactor goes on with it: soon, or after a pause. One at a time: a second one finds the first and leaves it to it.
 */
static void defer(struct rp_cq *cq, bool later)
{
    if (exchange_seq(&cq->deferred, 1))
        return;
    add_seq(&cq->ringing, 1);
    if (!later) {
        reactor_post(cq->reactor, &cq->work);
        return;
    }
    int64_t pause = load_relaxed(&cq->pause_ns); /* relaxed: only a length of time */
    store_relaxed(&cq->pause_ns, 2 * pause < PAUSE_MOST_NS ? 2 * pause : PAUSE_MOST_NS);
    timer_arm(&cq->retry, rp_after(pause));
    if (!load_seq(&cq->attached) && timer_cancel(&cq->retry)) /* detach came before the timer: it has not seen it */
        undefer(cq);
}

/* What became of a sending: whether it may go on now. A failure is deferred, or remembered for good. */
static bool went_well(struct rp_cq *cq, int rc)
{
    if (rc > 0) {
        store_relaxed(&cq->pause_ns, PAUSE_LEAST_NS); /* relaxed: only a length of time */
        return true;
    }
    if (is_final(rc))
        store_seq(&cq->refused, (uint32_t)-rc);
    else
        defer(cq, true);
    return false;
}

static void send_doorbell(struct rp_cq *cq)
{
    struct ring_message message = {.data = cq->tag};

    if (load_seq(&cq->attached))
        went_well(cq, send_messages(cq, &message, 1));
}

/* --- the pump --------------------------------------------------------------------------------------------------- */

/* Leaves the pump, for want of completions. false: some have come, and the pump is still the caller's. */
static bool leave_dry(struct rp_cq *cq)
{
    uint64_t pump = WAKE_PUMP;

    if (cq_pump_left(cq) && load_seq(&cq->attached))
        return true;
    return !cas_seq(&cq->wake, &pump, 0); /* fails: a poster has it now */
}

/* The same for want of credits. */
static bool leave_starved(struct rp_cq *cq)
{
    store_seq(&cq->starved, 1);
    return load_seq(&cq->credits) == 0 || !exchange_seq(&cq->starved, 0);
}

/* Sends up to a batch of what is there; the caller knows of a completion and a credit. As reactor_send. */
static int pump_batch(struct rp_cq *cq)
{
    struct ring_message messages[PUMP_BATCH];
    struct rp_completion next;
    unsigned credits = load_seq(&cq->credits); /* only we take some away */
    unsigned n = 0;

    while (n < PUMP_BATCH && n < credits && cq_peek(cq, n, &next))
        messages[n++] = (struct ring_message){.data = next.user_data, .res = next.result};
    sub_seq(&cq->credits, n); /* before the user can see the first, and give it back */
    int rc = send_messages(cq, messages, n);
    unsigned sent = rc > 0 ? (unsigned)rc : 0;
    add_seq(&cq->credits, n - sent);
    if (sent)
        cq_drop_head(cq, sent);
    return rc;
}

/* Has the pump, and is counted in ringing. */
static void pump(struct rp_cq *cq)
{
    unsigned sent = 0;

    while (load_seq(&cq->attached)) {
        if (!cq_ready(cq)) {
            if (leave_dry(cq))
                return;
        } else if (!load_seq(&cq->credits)) {
            if (leave_starved(cq))
                return;
        } else if (sent >= PUMP_MOST) {
            defer(cq, false);
            return;
        } else {
            int rc = pump_batch(cq);
            if (!went_well(cq, rc))
                return;
            sent += (unsigned)rc;
        }
    }
}

/* On the reactor. */
static void run_deferred(struct rp_cq *cq)
{
    store_seq(&cq->deferred, 0); /* before it acts: what it defers in turn is another one */
    if (cq->per_completion)
        pump(cq);
    else
        send_doorbell(cq);
    cq_ringing_end(cq);
}

static void work_run(struct work *work)
{
    run_deferred(cq_of_work(work));
}

static void retry_fire(struct timer *timer)
{
    run_deferred(cq_of_timer(timer));
}

/* --- what the queue calls --------------------------------------------------------------------------------------- */

void delivery_ring(struct rp_cq *cq, uint64_t bits)
{
    if (bits & WAKE_FUTEX) {
        add_seq(&cq->rung, 1);
        futex_wake(&cq->rung, 1);
    }
    if (bits & WAKE_FD) {
        bell_ring(cq->fd);
        add_acq_rel(&cq->rang, 1); /* [rang] */
    }
    if (bits & (WAKE_RING | WAKE_PUMP)) {
        if (cq->delivery == RP_CQ_REACTOR)
            defer(cq, false);
        else if (bits & WAKE_PUMP)
            pump(cq);
        else
            send_doorbell(cq);
    }
}

/* Somebody has cleared what was armed, and rings or has rung. */
static void was_told(struct rp_cq *cq)
{
    if (cq->armed & WAKE_FD) {
        cq->begun++;
        cq->sounding = true;
    }
    cq->armed = 0;
}

void delivery_disarm(struct rp_cq *cq)
{
    uint64_t armed = cq->armed;

    if (!armed)
        return;
    if (cas_seq(&cq->wake, &armed, 0))
        cq->armed = 0;
    else
        was_told(cq);
}

/*
 * Makes the descriptor unreadable. Who is about to ring, for a completion that was taken long ago, may have rung
 * already or will do so yet: nobody can tell. So it counts as silent for whoever wants it to sound, and as late, to be
 * made silent once more, until all that were told have rung.
 */
static void quieten(struct rp_cq *cq)
{
    cq->late = load_acquire(&cq->rang) != cq->begun; /* [rang] */
    bell_drain(cq->fd);
    cq->sounding = false;
}

/* Whether what was armed before is armed still, also after the descriptor was made silent. */
static bool still_armed(struct rp_cq *cq)
{
    if (load_seq(&cq->wake) != cq->armed)
        return false;
    if (!cq->sounding && !cq->late)
        return true;
    quieten(cq);
    if (load_seq(&cq->wake) == cq->armed)
        return true;
    was_told(cq); /* and its ring may be the one that was silenced */
    cq->sounding = false;
    cq->late = true;
    return false;
}

/* Completions stay behind: the descriptor says so, a ring does not, as its owner was given all that he asked for. */
static void sound(struct rp_cq *cq)
{
    if (!(cq->signals & WAKE_FD) || cq->sounding)
        return;
    bell_ring(cq->fd);
    cq->sounding = true;
}

unsigned delivery_arm(struct rp_cq *cq, struct rp_completion *out, unsigned n, unsigned max)
{
    while (cq->signals) {
        if (cq->armed && still_armed(cq))
            return n; /* posters that find it there ring */
        if (cq->armed)
            was_told(cq);
        if (n < max)
            n += cq_take(cq, out + n, max - n);
        if (cq_ready(cq)) {
            if (n < max)
                continue; /* it has come since: who is given less than max takes the queue for empty */
            sound(cq);
            return n;
        }
        if (cq->sounding || cq->late)
            quieten(cq);
        uint64_t none = 0;
        if (!cas_seq(&cq->wake, &none, cq->signals))
            return n;
        cq->armed = cq->signals;
        if (!cq_ready(cq))
            return n;
        delivery_disarm(cq);
    }
    return n;
}

/* Makes the descriptor. C. */
static int fd_open(struct rp_cq *cq)
{
    if (cq->fd >= 0)
        return 0;
    int fd = bell_open();
    if (fd < 0) /* what the system says beside a lack of descriptors is one of means */
        return fd == -EMFILE || fd == -ENFILE ? fd : -ENOMEM;
    cq->fd = fd;
    return 0;
}

int rp_cq_fd(struct rp_cq *cq)
{
    int rc = cq_enter(cq);

    if (rc)
        return rc;
    if (cq->per_completion && load_seq(&cq->attached))
        rc = -EBUSY;
    else
        rc = fd_open(cq);
    if (!rc && !(cq->signals & WAKE_FD)) {
        delivery_disarm(cq);
        cq->signals |= WAKE_FD;
        delivery_arm(cq, NULL, 0, 0);
    }
    if (!rc) {
        cq->fd_wanted = true;
        rc = cq->fd;
    }
    cq_leave(cq);
    return rc;
}

/* --- the user's ring -------------------------------------------------------------------------------------------- */

/* The delivery asked for, or the first that is granted; 0: none. */
static int choose(const struct rp_cq *cq, int asked)
{
    if ((asked == RP_CQ_AUTO || asked == RP_CQ_SEND) && can_send_alone())
        return RP_CQ_SEND;
    if ((asked == RP_CQ_AUTO || asked == RP_CQ_REACTOR) && reactor_sends(cq->reactor))
        return RP_CQ_REACTOR;
    if ((asked == RP_CQ_AUTO || asked == RP_CQ_POLL) && !cq->per_completion)
        return RP_CQ_POLL;
    return 0;
}

static int copy_descriptor(struct rp_cq *cq, int fd)
{
    int saved = errno;
    int rc = 0;

    cq->ring_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (cq->ring_fd < 0)
        rc = errno == EINVAL ? -EMFILE : -errno;
    errno = saved;
    return rc;
}

/* Entering a ring with nothing to do: does nothing, but says what is none. One that is disabled yet is one. */
static int ring_check(int fd)
{
    int saved = errno;
    int rc = syscall(SYS_io_uring_enter, fd, 0, 0, 0, NULL, 0) < 0 && errno == EOPNOTSUPP ? -EBADF : 0;

    errno = saved;
    return rc;
}

int delivery_open(struct rp_cq *cq, const struct rp_cq_options *options)
{
    unsigned length = options->ring->cq.ring_entries;

    cq->ring = options->ring;
    cq->tag = options->tag;
    cq->per_completion = options->per_completion;
    cq->credits_most = options->credits && options->credits < length ? options->credits : length;
    store_relaxed(&cq->credits, cq->credits_most);
    store_relaxed(&cq->pause_ns, PAUSE_LEAST_NS);
    int rc = copy_descriptor(cq, options->ring->ring_fd);
    if (!rc)
        rc = ring_check(cq->ring_fd);
    if (!rc)
        rc = reactor_get(&cq->reactor, options->backend, false);
    if (rc)
        return rc;
    cq->delivery = choose(cq, options->delivery);
    if (!cq->delivery)
        return -ENOTSUP;
    cq->work.run = work_run;
    timer_init(&cq->retry, cq->reactor, retry_fire);
    if (cq->delivery == RP_CQ_POLL && (rc = fd_open(cq)) != 0)
        return rc;
    if (cq->per_completion) {
        store_relaxed(&cq->wake, WAKE_PUMP); /* nobody else knows the queue yet */
    } else {
        cq->signals = cq->delivery == RP_CQ_POLL ? WAKE_FD : WAKE_RING;
        delivery_arm(cq, NULL, 0, 0);
    }
    store_seq(&cq->attached, 1);
    return 0;
}

static int arm_poll(struct rp_cq *cq)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(cq->ring);

    if (!sqe)
        return -EAGAIN;
    io_uring_prep_poll_add(sqe, cq->fd, POLLIN);
    io_uring_sqe_set_data64(sqe, cq->tag);
    cq->polled = true;
    return 1;
}

int rp_cq_arm(struct rp_cq *cq)
{
    int rc = cq_enter(cq);

    if (rc)
        return rc;
    if (!load_seq(&cq->attached))
        rc = -EINVAL;
    else if (cq->delivery == RP_CQ_POLL)
        rc = arm_poll(cq);
    else
        rc = -(int)load_seq(&cq->refused);
    cq_leave(cq);
    return rc;
}

int rp_cq_seen(struct rp_cq *cq, unsigned n)
{
    int rc = cq_enter(cq);

    if (rc)
        return rc;
    if (!cq->per_completion || !load_seq(&cq->attached) || n > cq->credits_most - load_seq(&cq->credits)) {
        cq_leave(cq);
        return -EINVAL;
    }
    add_seq(&cq->credits, n);
    if (n && exchange_seq(&cq->starved, 0)) {
        add_seq(&cq->ringing, 1);
        delivery_ring(cq, WAKE_PUMP);
        cq_ringing_end(cq);
    }
    cq_leave(cq);
    return 0;
}

/* How many CQEs may be left behind in the ring, before the consumer's side is taken back. */
static int detach_pump(struct rp_cq *cq)
{
    uint64_t pump = WAKE_PUMP;

    cas_seq(&cq->wake, &pump, 0); /* or a poster has it, who finds that there is no ring */
    store_seq(&cq->starved, 0);
    return (int)(cq->credits_most - load_seq(&cq->credits));
}

static int detach_doorbell(struct rp_cq *cq)
{
    uint64_t wanted = cq->delivery == RP_CQ_POLL ? WAKE_FD : WAKE_RING;
    bool silent = cq->armed && load_seq(&cq->wake) == cq->armed;

    delivery_disarm(cq);
    if (wanted == WAKE_RING || !cq->fd_wanted)
        cq->signals &= ~wanted;
    return cq->delivery == RP_CQ_POLL ? cq->polled : !silent;
}

int delivery_detach(struct rp_cq *cq)
{
    if (!load_seq(&cq->attached))
        return 0;
    if (reactor_is_self(cq->reactor))
        return -EDEADLK;
    store_seq(&cq->attached, 0);
    if (timer_cancel_wait(&cq->retry))
        undefer(cq);
    cq_ringing_wait(cq);
    int left = cq->per_completion ? detach_pump(cq) : detach_doorbell(cq);
    cq->ring = NULL;
    bell_close(cq->ring_fd);
    cq->ring_fd = -1;
    delivery_arm(cq, NULL, 0, 0);
    return left;
}

void delivery_close(struct rp_cq *cq)
{
    if (cq->fd >= 0)
        bell_close(cq->fd);
    if (cq->ring_fd >= 0)
        bell_close(cq->ring_fd);
    reactor_put(cq->reactor);
}
