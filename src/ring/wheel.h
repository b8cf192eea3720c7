/*
 * The timing wheel: where armed timers wait, sorted only as far as their turn is near. A pure data structure, with no
 * lock, no clock and no descriptor; the reactor brings all three.
 *
 * Hierarchical wheel after G. Varghese and A. Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987), scheme 7: a
 * digit of the due time in base 64 per level. A timer stands on the level of the highest digit in which its due time
 * differs from the wheel's own time, in the slot named by that digit. Hence everything on a lower level is due before
 * everything on a higher one, and on one level the slots are due in their order: the first timer due is in the first
 * occupied slot of the lowest occupied level, which two bitmaps give without a search, however much empty time lies
 * between. Insert and remove are O(1), with no memory of their own.
 *
 * Two departures from the paper:
 *  - Every slot keeps the earliest due time put into it. So the sleeper learns the exact time of the first timer, wakes
 *    once for it and not once per level; a slot is spread over the lower levels only when one of its timers is due, and
 *    a timer that is alone in its slot fires from whatever level it stands on. The tick does not limit the accuracy,
 *    therefore: timers fire at their own due time, never before it. It only says how far the wheel sorts: within 65 us
 *    timers fire together if the sleeper is that late, and in any order.
 *  - The wheel's own time may lag behind the clock without harm. It moves when a slot is emptied, up to that slot's
 *    start; between, an empty or a quiet wheel costs nothing.
 *
 * After removals a slot's earliest time may be too early, never too late; the sleeper then wakes for nothing, once,
 * and the slot's time is exact again.
 */
#ifndef RING_WHEEL_H
#define RING_WHEEL_H

#include "ring/reactor.h"

#define WHEEL_TICK_SHIFT 16 /* the tick: 2^16 ns */
#define WHEEL_DIGIT_BITS 6
#define WHEEL_SLOTS (1U << WHEEL_DIGIT_BITS)
#define WHEEL_LEVELS 8 /* 16 + 8 * 6 bits hold every int64_t: there is no overflow list */

struct wheel_slot {
    struct timer *first; /* newest first */
    int64_t earliest;    /* no timer of the slot is due before; meaningless while it is empty */
};

struct wheel {
    uint64_t tick;                   /* the wheel's own time, in ticks; never ahead of the clock */
    uint64_t levels;                 /* bit per level: has an occupied slot */
    uint64_t occupied[WHEEL_LEVELS]; /* bit per slot: has a timer */
    struct timer *spreading;         /* taken out of a slot, on their way to `expired` or to lower levels */
    struct wheel_slot slot[WHEEL_LEVELS][WHEEL_SLOTS];
};

/* An empty wheel whose own time is `now` (ns). */
void wheel_init(struct wheel *wheel, int64_t now);

/* Puts in a timer that is in no list, at timer->due (any value; what is past is due at once). */
void wheel_insert(struct wheel *wheel, struct timer *timer);

/* Takes out a timer, from the wheel or from a list that wheel_collect gave. */
void wheel_remove(struct wheel *wheel, struct timer *timer);

/*
 * When to collect next: no timer is due before. INT64_MAX: the wheel is empty (or the only timers are due then, which
 * is the same for 292 years); INT64_MIN: the last wheel_collect ran out of steps.
 */
int64_t wheel_earliest(const struct wheel *wheel);

/*
 * Moves timers that are due at `now` to *expired, which must be empty, those of an earlier tick before those of a
 * later one as far as they are sorted; touches at most `steps` timers, so that the lock above is held for a bounded
 * time. What is left over shows in wheel_earliest.
 */
void wheel_collect(struct wheel *wheel, int64_t now, struct timer **expired, unsigned steps);

#endif
