/*
 * The contract of a backend: how the reactor's thread sleeps, and how others end its sleep.
 *
 * A backend knows neither timers nor work. It promises one thing: backend_ring() ends the sleep that runs, or the next
 * one if none runs. The bell is sticky, and several rings may melt into one. Every sleep may end without cause, so the
 * reactor decides by its own state what there is to do; therefore no failure of a sleep is reported: a backend that
 * cannot sleep in its first way sleeps in a poorer one.
 */
#ifndef RING_BACKEND_H
#define RING_BACKEND_H

#include "base/atomic.h"

struct backend;
struct ring_message;

/* Why a backend could not be opened: the call that failed, and its negative errno. */
struct backend_refusal {
    const char *call;
    int rc;
};

struct backend_ops {
    const char *name;
    /* On the thread that will sleep. 0 or a negative errno, with *refusal filled and nothing left behind. */
    int (*open)(struct backend **out, struct backend_refusal *refusal);
    /* Until the bell, `deadline` (absolute ns; INT64_MAX: none), or for no reason. Only the thread that opened. */
    void (*sleep)(struct backend *backend, int64_t deadline);
    /* Any thread, also while the sleep runs. Keeps errno; no cancellation point; no lock. */
    void (*ring)(struct backend *backend);
    /* What reactor_send promises; NULL: cannot. Only the thread that opened. */
    int (*send)(struct backend *backend, int ring_fd, const struct ring_message *messages, unsigned n);
    /* Frees all. Only the thread that opened; nobody rings any more. */
    void (*close)(struct backend *backend);
    /* The same in a forked child: gives back the child's copies and leaves alone what the parent still uses. */
    void (*forget)(struct backend *backend);
};

/* Heads every backend. */
struct backend {
    const struct backend_ops *ops;
    bool sends;     /* `send` works here */
    char note[112]; /* how it sleeps, for people; may be empty */
};

extern const struct backend_ops uring_backend; /* io_uring */
extern const struct backend_ops epoll_backend; /* epoll; a futex where descriptors are exhausted; -ENOMEM only */

#endif
