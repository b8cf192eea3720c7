/*
 * The handlers around fork(2).
 *
 * One lock, held from prepare to parent or child, keeps the set of hooks the same for all three, and makes a thread
 * that registers one wait until the fork is over: from the return of fork_register() on, every fork runs the hook.
 * Order of locks: this one, then those of the hooks, then rcu's.
 *
 * Holding forks off is shared, as threads are made by several at a time. One word counts who does, with a bit for a
 * fork:
 *
 *   holder                                          fork
 *     H1 no bit: count, by CAS; else sleep            F1 set the bit
 *     H2 uncount; the last one beside a bit wakes     F2 sleep until the count is 0
 *                                                     F3 store 0, wake all
 *
 * F1 and H1 change the same word: a holder that F1 does not see finds the bit. None comes any more then, so F2 ends,
 * and F3 overwrites no count. Who sleeps in H1 does so on a word with the bit, which F3 takes away before it wakes; H2
 * may wake such ones beside the fork, and they sleep again. Modelled in tests/model/c11/forks.c.
 */
#include "base/fork.h"

#include "base/futex.h"
#include "base/rcu.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <ringpool/lock.h>
#include <stddef.h>

enum { HOOKS_MAX = 8 };

static struct rp_lock hooks_lock; /* guards hooks_at and hooks_count */
static const struct fork_hooks *hooks_at[HOOKS_MAX];
static unsigned hooks_count;

static _Atomic uint32_t holders; /* futex: threads that hold forks off, and FORK */
#define FORK (UINT32_C(1) << 31)

static _Atomic bool installed;

_Atomic unsigned fork_generation_word;

/* How many registrations of the handlers below this thread's fork has entered and not yet left. */
static _Thread_local unsigned depth;

static void holders_await(void)
{
    uint32_t seen = or_seq(&holders, FORK) | FORK; /* F1 */

    for (; seen != FORK; seen = load_acquire(&holders)) /* F2; pairs with H2 */
        futex_wait(&holders, seen, 0);
}

static void holders_release(void)
{
    store_release(&holders, 0); /* F3; pairs with H1 */
    futex_wake(&holders, INT_MAX);
}

static void prepare(void)
{
    if (depth++ > 0) {
        return;
    }
    rp_lock_acquire(&hooks_lock);
    holders_await();
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
    holders_release();
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
    holders_release();
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
    if (depth > 0) {
        return;
    }
    uint32_t seen = load_relaxed(&holders); /* validated by the CAS */

    do {
        while (seen & FORK) {
            futex_wait(&holders, seen, 0);
            seen = load_relaxed(&holders); /* as above */
        }
    } while (!cas_acq_rel(&holders, &seen, seen + 1)); /* H1 */
}

void fork_let_go(void)
{
    if (depth == 0 && sub_acq_rel(&holders, 1) == FORK + 1) { /* H2 */
        futex_wake(&holders, INT_MAX);
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
