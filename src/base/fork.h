/*
 * What happens around fork(2): hooks of the floors above, in one pthread_atfork registration for the process.
 * prepare runs in the reverse order of registration, parent and child in its order. rcu's own work is done here too
 * (before the hooks' child, after their prepare).
 *
 * Only fork(2) itself is seen: _Fork(3), vfork(2), posix_spawn(3) and a bare clone(2) run no handlers, and their
 * children may do nothing but exec or exit. Neither is a fork seen that began in another thread before the first
 * fork_install() of the process ended.
 */
#ifndef BASE_FORK_H
#define BASE_FORK_H

#include "base/atomic.h"

/*
 * Each may be NULL. prepare takes the locks of its floor, parent and child give them back: for every prepare exactly
 * one of the two runs, on the same thread. In the child, that thread is the only one and may call rcu_attach() and
 * rcu_wait(). Hooks register no hooks.
 */
struct fork_hooks {
    void (*prepare)(void);
    void (*parent)(void);
    void (*child)(void);
};

/*
 * Registers hooks (static storage, at most 8 sets) once; the same pointer again is a no-op. 0 or -ENOMEM. Any thread,
 * which must not hold a lock that a hook takes: this waits for a fork that another thread is in.
 */
int fork_register(const struct fork_hooks *hooks);

/* Makes forks be seen from now on, as fork_register does, without a hook. 0 or -ENOMEM. Any thread. */
int fork_install(void);

/*
 * No fork of the process begins between these, once fork_install() was successful: for calls into the C library that
 * take a lock of its own which fork(2) does not know about, and which a child would find taken for ever (glibc's list
 * of loaded objects, thread-local storage of a new thread). Any thread, and several at a time, that hold no lock that a
 * hook takes (under such a lock they are not needed); blocks while another thread forks. They do not nest, and nothing
 * of the user's runs in between. In a fork handler of the user's they do nothing: the thread that forks needs not wait
 * for itself.
 */
void fork_hold_off(void);
void fork_let_go(void);

/* How many forks lie between the process that started and this one; changes only in a child. Any thread, a load. */
extern _Atomic unsigned fork_generation_word; /* written by a child before it has a second thread */

static inline unsigned fork_generation(void)
{
    return load_relaxed(&fork_generation_word);
}

#endif
