/*
 * The reactor: one immortal thread that sleeps for everybody. It drives timers (a timing wheel in user space) and runs
 * posted work. Two backends wait for it, io_uring and epoll, behind the contract in ring/backend.h; nothing above this
 * header knows which.
 *
 * One reactor is shared by all pools of a process unless a pool asks for its own. It is counted: the first get starts
 * the thread, the last put ends it.
 */
#ifndef RING_REACTOR_H
#define RING_REACTOR_H

#include "base/atomic.h"
#include "base/log.h"

struct reactor;

/*
 * Gets the shared reactor (own == false), making it if need be, or a new one. `backend` is enum rp_backend_choice's
 * value; a shared reactor of another backend than asked for explicitly is not handed out: a second shared one is made.
 * 0; -ENOMEM; -EAGAIN: no thread; and only when io_uring was asked for by name: -ENOSYS, -EPERM: it is not there;
 * -EMFILE, -ENFILE: no descriptor for it (epoll goes on without any). A failure leaves nothing behind.
 */
int reactor_get(struct reactor **out, int backend, bool own);

/*
 * Gives it back; NULL is allowed. The last put runs what is still posted, ends the thread and waits for that; on the
 * reactor's own thread it ends by itself once the callback has returned. Timers that are still armed do not fire.
 *
 * In a forked child the reactors it inherits are dead: nothing fires or runs, arming and posting do nothing, cancelling
 * answers false, the last put frees. reactor_get makes new ones there.
 */
void reactor_put(struct reactor *reactor);

/* "io_uring (...)" or "epoll (...)", static or living as long as the reactor. */
const char *reactor_backend(const struct reactor *reactor);

/* Whether the caller is the reactor's thread. */
bool reactor_is_self(const struct reactor *reactor);

/*
 * A timer, embedded by its owner, whose memory it stays. All fields belong to the reactor. Accuracy: it never fires
 * early; late by the kernel's own wake-up and by what the thread does before it (see ring/wheel.h). Timers of different
 * due times fire in any order if the thread finds them due at once.
 */
struct timer {
    struct timer *next, **link;        /* wheel slot, or what is about to fire; under the reactor's lock */
    int64_t due;                       /* absolute ns; under the reactor's lock */
    void (*fire)(struct timer *timer); /* on the reactor's thread, without its lock; must not block; may free it */
    struct reactor *reactor;
    uint32_t state;   /* under the reactor's lock: idle or armed */
    int64_t interval; /* ns; 0: fires once; under the reactor's lock */
    uint64_t skipped; /* due times of a periodic timer that passed without a fire; under the reactor's lock */
};

void timer_init(struct timer *timer, struct reactor *reactor, void (*fire)(struct timer *timer));

/* Arms it for `due`, or moves it there if armed; also inside its own fire. O(1). Any thread. Never fails: no memory. */
void timer_arm(struct timer *timer, int64_t due);

/*
 * Disarms. true: it was armed and will not fire for that arming; false: it was not armed, or fire has begun. O(1). Any
 * thread.
 */
bool timer_cancel(struct timer *timer);

/*
 * Arms it for `due` and then for due + k * interval (ns, more than 0), whatever the lateness of each: a due time that
 * has passed before the thread came to it is counted in `skipped`, which begins at 0 here, and not made up for. It is
 * armed for the next time before fire is called.
 */
void timer_arm_periodic(struct timer *timer, int64_t due, int64_t interval);

/*
 * timer_cancel with the whole answer: TIMER_ARMED: it was armed and is not; TIMER_FIRES: its fire runs. A set of bits.
 */
enum { TIMER_ARMED = 1, TIMER_FIRES = 2 };
unsigned timer_disarm(struct timer *timer);

/* How many due times the last timer_arm_periodic has skipped so far. */
uint64_t timer_skipped(const struct timer *timer);

/*
 * timer_cancel, then waits until fire, if it has begun, has returned; what was armed again during this wait, by fire
 * itself for instance, is disarmed as well: afterwards the timer may be freed. Returns what timer_cancel would have.
 * On the reactor's own thread it does not wait. Must not be called with a lock held that fire takes.
 */
bool timer_cancel_wait(struct timer *timer);

/* Work for the reactor's thread, embedded by its owner; runs once, soon, in order of posting. */
struct work {
    struct work *next;
    void (*run)(struct work *work);
};
void reactor_post(struct reactor *reactor, struct work *work);

/* What arrives in another ring as a completion: its user_data and res. */
struct ring_message {
    uint64_t data;
    int32_t res;
};

/* Whether reactor_send can work: the reactor has a ring, whose kernel knows messages. Any thread. */
bool reactor_sends(const struct reactor *reactor);

/*
 * Posts messages to the ring that `ring_fd` stands for, in order; waits until the kernel has taken them, which is soon.
 * How many were posted, from the first on; if not one, why: -EOPNOTSUPP: see reactor_sends; -EBADF, -EBADFD: not a
 * ring, or one that is not enabled yet; -EOVERFLOW, -ENOMEM, -EAGAIN: not now. Only on the reactor's thread.
 */
int reactor_send(struct reactor *reactor, int ring_fd, const struct ring_message *messages, unsigned n);

#endif
