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

/* How many forks lie between the process that started and this one; changes only in a child. Any thread, a load. */
extern _Atomic unsigned fork_generation_word; /* written by a child before it has a second thread */

static inline unsigned fork_generation(void)
{
    return load_relaxed(&fork_generation_word);
}

#endif
