/*
 * The handlers around fork(2).
 *
 * One lock, held from prepare to parent or child, keeps the set of hooks the same for all three, and makes a thread
 * that registers one wait until the fork is over: from the return of fork_register() on, every fork runs the hook.
 * Order of locks: this one, then those of the hooks, then rcu's.
 */
#include "base/fork.h"

#include "base/rcu.h"

#include <errno.h>
#include <pthread.h>
#include <ringpool/lock.h>
#include <stddef.h>

enum { HOOKS_MAX = 8 };

static struct rp_lock hooks_lock; /* guards hooks_at and hooks_count, and holds forks off */
static const struct fork_hooks *hooks_at[HOOKS_MAX];
static unsigned hooks_count;

static _Atomic bool installed;

_Atomic unsigned fork_generation_word;

/* How many registrations of the handlers below this thread's fork has entered and not yet left. */
static _Thread_local unsigned depth;

static void prepare(void)
{
    if (depth++ > 0) {
        return;
    }
    rp_lock_acquire(&hooks_lock);
    for (unsigned i = hooks_count; i-- > 0;) {
        if (hooks_at[i]->prepare) {
            hooks_at[i]->prepare();
        }
    }
    rcu_fork_prepare();
}

static void parent(void)
{
    if (--depth > 0) {
        return;
    }
    rcu_fork_parent();
    for (unsigned i = 0; i < hooks_count; i++) {
        if (hooks_at[i]->parent) {
            hooks_at[i]->parent();
        }
    }
    rp_lock_release(&hooks_lock);
}

static void child(void)
{
    if (--depth > 0) {
        return;
    }
    rcu_fork_child();
    add_relaxed(&fork_generation_word, 1); /* relaxed: a child's later threads are ordered by their creation */
    for (unsigned i = 0; i < hooks_count; i++) {
        if (hooks_at[i]->child) {
            hooks_at[i]->child();
        }
    }
    rp_lock_release(&hooks_lock);
}

/*
 * No lock guards this: a fork that comes before the handlers are installed would leave it locked in the child for
 * ever. Instead two threads at once may install the handlers twice, which `depth` makes harmless: the first prepare
 * and the last parent or child of a fork do the work. pthread_once would neither lock up, but could not try again
 * after a failure.
 */
int fork_install(void)
{
    if (load_acquire(&installed)) {
        return 0;
    }
    if (pthread_atfork(prepare, parent, child)) {
        return -ENOMEM;
    }
    store_release(&installed, true);
    return 0;
}

static int add_hooks_locked(const struct fork_hooks *hooks)
{
    for (unsigned i = 0; i < hooks_count; i++) {
        if (hooks_at[i] == hooks) {
            return 0;
        }
    }
    if (hooks_count == HOOKS_MAX) {
        return -ENOMEM;
    }
    hooks_at[hooks_count++] = hooks;
    return 0;
}

void fork_hold_off(void)
{
    if (depth == 0) {
        rp_lock_acquire(&hooks_lock);
    }
}

void fork_let_go(void)
{
    if (depth == 0) {
        rp_lock_release(&hooks_lock);
    }
}

int fork_register(const struct fork_hooks *hooks)
{
    int rc = fork_install();

    if (rc) {
        return rc;
    }
    rp_lock_acquire(&hooks_lock);
    rc = add_hooks_locked(hooks);
    rp_lock_release(&hooks_lock);
    return rc;
}
