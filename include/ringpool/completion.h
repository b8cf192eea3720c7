/*
 * Completion queues: where the results of tasks come together, for one consumer.
 *
 * Every accepted task that names a queue posts exactly one completion there: its user_data, and 0 or why it failed or
 * was dropped. Many threads post, one consumer takes. The consumer waits in rp_cq_wait, or polls the descriptor of
 * rp_cq_fd in its own event loop, or has the queue ring a doorbell in the io_uring ring that it runs anyway
 * (rp_cq_options.ring). While it is awake, posting takes neither a lock nor a system call; only the thread that finds
 * it asleep pays for waking it. Completions keep no order among different tasks.
 *
 * Nothing is lost: memory for a completion is had when its task is submitted (-ENOMEM then), and the queue grows as far
 * as completions are owed. A consumer that has died holds nobody up; its queue grows up to rp_cq_options.limit.
 *
 * Owner: one thread at a time is the consumer. It calls rp_cq_wait, _fd, _arm, _seen and _detach; a second thread that
 * is in one of them at the same moment gets -EBUSY and nothing happens. Errors that all share:
 *   -EINVAL     an argument is out of its range (a NULL queue too)
 *   -ECHILD     the queue was made before this process was forked; destroy only frees it
 *   -ESHUTDOWN  the queue is being destroyed
 */
#ifndef RINGPOOL_COMPLETION_H
#define RINGPOOL_COMPLETION_H

#include <ringpool/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct io_uring;
struct rp_cq;

/* result: 0, or why the task failed or was dropped (a negative errno), or what rp_cq_post was given. */
struct rp_completion {
    uint64_t user_data;
    int result;
};

/* How completions reach a ring of the user's. */
enum rp_cq_delivery {
    RP_CQ_AUTO = 0,    /* the first of these that the kernel and the backend grant */
    RP_CQ_SEND = 1,    /* the posting thread sends a message without a ring of its own (kernel 6.13) */
    RP_CQ_REACTOR = 2, /* the reactor sends it from its ring (kernel 5.18, io_uring granted) */
    RP_CQ_POLL = 3,    /* the ring polls the queue's descriptor: see rp_cq_arm; not with per_completion */
};

/* Zero means default for every field; reserved words must be zero (-EINVAL). */
struct rp_cq_options {
    unsigned entries;      /* completions that the queue holds at first; 0: 256; it grows by itself. At most 2^24 */
    struct io_uring *ring; /* the user's own ring, which must stay where it is until detach; NULL: none */
    uint64_t tag;          /* user_data of the doorbell CQE in that ring */
    bool per_completion;   /* each completion arrives there as a CQE of its own, with its user_data and result */
    /* Beyond the agreed ones: */
    int delivery;     /* enum rp_cq_delivery */
    int backend;      /* enum rp_backend_choice, of the reactor that repeats what a ring could not take */
    unsigned credits; /* per_completion: CQEs that may be in the ring and not given back; 0 and more than the length of
                         the ring's completion queue: that length */
    unsigned limit;   /* most completions owed and not taken; a submit beyond it gets -EAGAIN; 0: none */
    const struct rp_allocator *allocator; /* copied; NULL: malloc */
    uint64_t reserved[6];
};

/*
 * Makes a queue. options may be NULL. On success *cq belongs to the caller, who ends it with rp_cq_destroy; on failure
 * it is NULL. Any thread; does not block, but for starting the shared reactor with options.ring.
 * -EINVAL; -ENOMEM; with options.ring also -EBADF: it is not a ring; -EMFILE, -ENFILE: no descriptor for a copy of
 * it; -EAGAIN: no thread for the reactor; -ENOTSUP: the delivery asked for, or for per_completion any, is not granted;
 * -EPERM, -ENOSYS: the backend asked for by name is not.
 */
RP_API int rp_cq_create(struct rp_cq **cq, const struct rp_cq_options *options);

/*
 * Takes up to max completions into out: waits until `min` have come, until `deadline` (0: none). Returns how many;
 * fewer than min only when the deadline passed. min 0 takes what is there, perhaps nothing, and does not block;
 * one that comes within a microsecond of another that found nothing pauses for some 200 ns if it finds nothing either,
 * as who looks without end keeps the others from posting.
 * Inside a task the wait counts as blocking (rp_blocking_begin), so that the pool can run what it waits for.
 * -EINVAL: no out, max 0 or above INT_MAX, min above max, a negative deadline; -ETIMEDOUT: none came by the deadline;
 * -EBUSY: another thread is the consumer just now, or the completions go into a ring one by one.
 */
RP_API int rp_cq_wait(struct rp_cq *cq, struct rp_completion *out, unsigned max, unsigned min, int64_t deadline);

/*
 * A descriptor (eventfd) for poll, select, epoll or a ring: readable while completions wait, level-triggered. It is
 * made at the first call and closed by destroy. Only rp_cq_wait changes its state: it stays readable until a call has
 * left the queue empty, and becomes so again with the next completion. (With EPOLLET: call rp_cq_wait until it returns
 * less than max.) It may be readable once with nothing to take. Do not read, write or close it.
 * -EMFILE, -ENFILE, -ENOMEM: no descriptor; -EBUSY as rp_cq_wait.
 */
RP_API int rp_cq_fd(struct rp_cq *cq);

/*
 * With options.ring, to be called once after create and once after every doorbell CQE, on the thread that submits to
 * the ring. 0: nothing is needed, the kernel sends messages. 1: one poll request with the tag was put into the ring's
 * submission queue and goes with the next submission, so the next doorbell is on its way.
 *
 * The loop: a CQE with the tag comes; rp_cq_wait(cq, out, max, 0, 0) until it returns less than max; rp_cq_arm.
 * A doorbell may come with nothing to take. While completions remain after a call that returned max, no other doorbell
 * comes.
 * -EAGAIN: the submission queue is full, submit and call again; -EINVAL: no ring, or detached; any other code: why the
 * ring refuses messages for good (completions can still be taken by rp_cq_wait, per_completion after a detach).
 */
RP_API int rp_cq_arm(struct rp_cq *cq);

/*
 * per_completion: n CQEs of this queue have been seen, their credits come back. A queue without credits keeps its
 * completions until then. 0, or -EINVAL: more than were delivered, not per_completion, or detached.
 */
RP_API int rp_cq_seen(struct rp_cq *cq, unsigned n);

/*
 * Parts the queue from the user's ring, to which nothing is sent after this has returned. What was not delivered stays
 * in the queue, as what comes later, and is had from rp_cq_wait. Returns the most CQEs of this queue that may still
 * come to the ring, beside those that are there (RP_CQ_POLL: its poll request, which can be removed by its tag, ends
 * with one as every request does). To be called before io_uring_queue_exit, and before the owner of a ring with
 * IORING_SETUP_DEFER_TASKRUN ends: messages to that one vanish silently. Waits for messages under way. Without a ring,
 * or detached before: 0. -EDEADLK: on the reactor's own thread (a timer's callback); -EBUSY as rp_cq_wait.
 */
RP_API int rp_cq_detach(struct rp_cq *cq);

/*
 * Posts a completion that belongs to no task. 0; -ENOMEM; -EAGAIN: options.limit. Any thread; does not block. Must not
 * race with destroy, as a submit with this queue must not.
 */
RP_API int rp_cq_post(struct rp_cq *cq, uint64_t user_data, int result);

/*
 * Detaches, drops what was not taken, and ends the queue, in any state. Tasks that still owe a completion may end
 * later: theirs is dropped, and the last one frees the memory. A consumer that waits on another thread returns
 * -ESHUTDOWN. 0; -EALREADY: another thread destroys it; -EDEADLK as detach (nothing happened). In a forked child it
 * frees.
 */
RP_API int rp_cq_destroy(struct rp_cq *cq);

#ifdef __cplusplus
}
#endif

#endif
