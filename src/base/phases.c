/*
 * Two counts of readers and a phase that says which of them newcomers use: the pair of reference counts of P. McKenney,
 * "Is Parallel Programming Hard, And, If So, What Can You Do About It?", section on toy RCU implementations.
 *
 *   reader                                     grace period (one at a time)
 *     R1 load the phase                          G1 full fence
 *     R2 add to that count                       G2 turn the phase
 *     R3 full fence                              G3 wait until the old phase's count is 0
 *     R4 the section's loads                     G4 G2 and G3 once more, for the other count
 *     R5 subtract from the same count
 *
 * Why no section outlasts a grace period that it began before. R2, R3, R4 and the caller's unpublishing, G1, G3 are
 * store-then-load on the same two words: either the section's loads see what the caller unpublished, or the caller sees
 * the section's count. Both counts are waited for, whichever phase the reader saw in R1, however long ago.
 *
 * Why a grace period ends. From G2 on newcomers use the other count, so that the old one gets no more of them but for
 * those that had loaded the phase before: one for each thread.
 *
 * Why no wake is lost. Who waits has stored `waits` before it looks at the count, as the kernel does once more before
 * the sleep; who brings it to 0 does so before it loads `waits`; all of it is sequentially consistent.
 *
 * Modelled in tests/model/c11/phases.c.
 */
#include "base/phases.h"

#include "base/atomic.h"
#include "base/futex.h"

#include <ringpool/lock.h>
#include <stdalign.h>
#include <urcu/arch.h>

static struct rp_lock grace_lock; /* a grace period */
static _Atomic uint32_t phase;    /* 0, 1; under grace_lock */
static _Atomic uint32_t waits;    /* a grace period is under way; under grace_lock */
static struct {
    alignas(CACHE_APART) _Atomic uint32_t readers; /* futex */
} counts[2];

static _Thread_local unsigned depth;
static _Thread_local unsigned mine; /* the count that this section is in */

void phases_enter(void)
{
    if (depth++)
        return;
    mine = load_seq(&phase);
    add_seq(&counts[mine].readers, 1);
    cmm_smp_mb();
}

void phases_exit(void)
{
    if (--depth)
        return;
    if (sub_seq(&counts[mine].readers, 1) == 1 && load_seq(&waits))
        futex_wake(&counts[mine].readers, 1); /* grace_lock: one waits */
}

bool phases_inside(void)
{
    return depth != 0;
}

void phases_wait(void)
{
    cmm_smp_mb();
    rp_lock_acquire(&grace_lock);
    store_seq(&waits, 1);
    for (int both = 0; both < 2; both++) {
        uint32_t old = load_seq(&phase), readers;

        store_seq(&phase, !old);
        while ((readers = load_seq(&counts[old].readers)))
            futex_wait(&counts[old].readers, readers, 0);
    }
    store_seq(&waits, 0);
    rp_lock_release(&grace_lock);
}

void phases_fork_prepare(void)
{
    rp_lock_acquire(&grace_lock);
}

void phases_fork_parent(void)
{
    rp_lock_release(&grace_lock);
}

/* The readers were other threads. */
void phases_fork_child(void)
{
    store_seq(&counts[0].readers, 0);
    store_seq(&counts[1].readers, 0);
    rp_lock_release(&grace_lock);
}
