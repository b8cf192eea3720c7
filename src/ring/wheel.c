/*
 * The hierarchical timing wheel; wheel.h tells the idea.
 *
 * The invariant, checked against a sorted list by tests/ring/wheel.c: a timer on level l differs from wheel->tick in
 * digit l, is greater there, and agrees in all higher digits; on level 0 it may also stand in the slot of wheel->tick
 * itself (due in this tick, or past). wheel->tick may move only so that this holds for every timer that stays, which is
 * so for any move up to the start of the first occupied slot.
 */
#include "ring/wheel.h"

#include <string.h>

void wheel_init(struct wheel *wheel, int64_t now)
{
    memset(wheel, 0, sizeof *wheel);
    wheel->tick = now > 0 ? (uint64_t)now >> WHEEL_TICK_SHIFT : 0;
}

static void push(struct timer **list, struct timer *timer)
{
    timer->next = *list;
    timer->link = list;
    if (*list) {
        (*list)->link = &timer->next;
    }
    *list = timer;
}

static void unlink_timer(struct timer *timer)
{
    *timer->link = timer->next;
    if (timer->next) {
        timer->next->link = timer->link;
    }
    timer->next = NULL;
    timer->link = NULL;
}

void wheel_insert(struct wheel *wheel, struct timer *timer)
{
    uint64_t tick = timer->due > 0 ? (uint64_t)timer->due >> WHEEL_TICK_SHIFT : 0;
    if (tick < wheel->tick) {
        tick = wheel->tick;
    }
    uint64_t differs = tick ^ wheel->tick;
    unsigned level = differs ? (63U - (unsigned)__builtin_clzll(differs)) / WHEEL_DIGIT_BITS : 0;
    unsigned index = (tick >> (level * WHEEL_DIGIT_BITS)) % WHEEL_SLOTS;
    struct wheel_slot *slot = &wheel->slot[level][index];

    if (!slot->first || timer->due < slot->earliest) {
        slot->earliest = timer->due;
    }
    push(&slot->first, timer);
    wheel->occupied[level] |= UINT64_C(1) << index;
    wheel->levels |= UINT64_C(1) << level;
}

static void slot_emptied(struct wheel *wheel, unsigned level, unsigned index)
{
    wheel->occupied[level] &= ~(UINT64_C(1) << index);
    if (!wheel->occupied[level]) {
        wheel->levels &= ~(UINT64_C(1) << level);
    }
}

void wheel_remove(struct wheel *wheel, struct timer *timer)
{
    struct timer **link = timer->link;
    unlink_timer(timer);
    if (*link) {
        return;
    }
    /* The list is empty now, or the timer was its last. Only the head of a slot lies inside the array of slots, so the
     * address tells whether a slot became empty, and which: no timer needs to remember its slot. */
    size_t offset = (size_t)((uintptr_t)link - (uintptr_t)wheel->slot);
    if (offset < sizeof wheel->slot) {
        size_t index = offset / sizeof(struct wheel_slot);
        slot_emptied(wheel, (unsigned)(index / WHEEL_SLOTS), (unsigned)(index % WHEEL_SLOTS));
    }
}

int64_t wheel_earliest(const struct wheel *wheel)
{
    if (wheel->spreading) {
        return INT64_MIN;
    }
    if (!wheel->levels) {
        return INT64_MAX;
    }
    unsigned level = (unsigned)__builtin_ctzll(wheel->levels);
    unsigned index = (unsigned)__builtin_ctzll(wheel->occupied[level]);
    return wheel->slot[level][index].earliest;
}

/* Moves the wheel's time to the start of its first slot and that slot's timers to `spreading`, in O(1). */
static void take_first_slot(struct wheel *wheel)
{
    unsigned level = (unsigned)__builtin_ctzll(wheel->levels);
    unsigned index = (unsigned)__builtin_ctzll(wheel->occupied[level]);
    unsigned shift = level * WHEEL_DIGIT_BITS;
    struct wheel_slot *slot = &wheel->slot[level][index];

    wheel->tick = (((wheel->tick >> shift) & ~(uint64_t)(WHEEL_SLOTS - 1)) | index) << shift;
    wheel->spreading = slot->first;
    wheel->spreading->link = &wheel->spreading;
    slot->first = NULL;
    slot_emptied(wheel, level, index);
}

void wheel_collect(struct wheel *wheel, int64_t now, struct timer **expired, unsigned steps)
{
    while (steps > 0) {
        struct timer *timer = wheel->spreading;
        if (!timer) {
            if (!wheel->levels || wheel_earliest(wheel) > now) {
                return;
            }
            take_first_slot(wheel);
            continue;
        }
        unlink_timer(timer);
        if (timer->due <= now) {
            push(expired, timer);
            expired = &timer->next;
        } else {
            wheel_insert(wheel, timer);
        }
        steps--;
    }
}
