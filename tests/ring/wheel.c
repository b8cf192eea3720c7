/*
 * The timing wheel against a model: an array that is searched from end to end.
 */
#include "ring/wheel.h"

#include <stdlib.h>

#include "support.h"

enum { TIMERS = 300 };

struct model {
    struct wheel wheel;
    struct timer timer[TIMERS];
    int64_t now;
    uint64_t random;
};

/* xorshift64*, S. Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled" (2016) */
static uint64_t draw(struct model *model)
{
    model->random ^= model->random >> 12;
    model->random ^= model->random << 25;
    model->random ^= model->random >> 27;
    return model->random * UINT64_C(2685821657736338717);
}

/* A distance of any order of magnitude, from nanoseconds to months. */
static int64_t distance(struct model *model)
{
    return (int64_t)(draw(model) >> (11 + draw(model) % 53));
}

static int64_t true_earliest(const struct model *model)
{
    int64_t earliest = INT64_MAX;
    for (int i = 0; i < TIMERS; i++) {
        if (model->timer[i].state && model->timer[i].due < earliest) {
            earliest = model->timer[i].due;
        }
    }
    return earliest;
}

static void put_in(struct model *model, struct timer *timer, int64_t due)
{
    if (timer->state) {
        wheel_remove(&model->wheel, timer);
    }
    timer->due = due;
    timer->state = 1;
    wheel_insert(&model->wheel, timer);
}

static void take_out(struct model *model, struct timer *timer)
{
    if (timer->state) {
        wheel_remove(&model->wheel, timer);
        timer->state = 0;
    }
}

/* Collects all that is due in portions of random size; removes some of them again from the list of the expired. */
static void advance(struct model *model)
{
    int64_t step = distance(model);
    model->now = model->now > INT64_MAX - step ? INT64_MAX - 1 : model->now + step;
    while (wheel_earliest(&model->wheel) <= model->now) {
        struct timer *expired = NULL;
        wheel_collect(&model->wheel, model->now, &expired, 1 + (unsigned)(draw(model) % 9));
        if (expired && draw(model) % 4 == 0) {
            struct timer *second = expired->next ? expired->next : expired;
            cr_assert_leq(second->due, model->now, "early");
            take_out(model, second);
        }
        if (draw(model) % 4 == 0) {
            put_in(model, &model->timer[draw(model) % TIMERS], model->now + distance(model) % 1000000);
        }
        while (expired) {
            cr_assert_leq(expired->due, model->now, "early");
            take_out(model, expired);
        }
    }
    cr_assert_gt(true_earliest(model), model->now, "something due was left in the wheel");
}

Test(wheel, agrees_with_a_sorted_list_under_random_operations)
{
    unsigned seed = seed_of("wheel");
    for (unsigned round = 0; round < 200; round++) {
        struct model *model = calloc(1, sizeof *model);
        model->random = seed + round * UINT64_C(0x9E3779B97F4A7C15) + 1;
        model->now = (int64_t)(draw(model) >> 2);
        wheel_init(&model->wheel, model->now);
        for (int i = 0; i < 2000 && model->now < INT64_MAX / 2; i++) {
            struct timer *timer = &model->timer[draw(model) % TIMERS];
            switch (draw(model) % 8) {
            case 0:
            case 1:
            case 2:
                put_in(model, timer, model->now + distance(model));
                break;
            case 3:
                put_in(model, timer, model->now - distance(model));
                break;
            case 4:
            case 5:
                take_out(model, timer);
                break;
            default:
                advance(model);
                break;
            }
            cr_assert_leq(wheel_earliest(&model->wheel), true_earliest(model), "would sleep too long, seed %u", seed);
        }
        for (int i = 0; i < TIMERS; i++) {
            take_out(model, &model->timer[i]);
        }
        cr_assert_eq(wheel_earliest(&model->wheel), INT64_MAX, "an empty wheel wants to be woken, seed %u", seed);
        free(model);
    }
}

Test(wheel, knows_the_exact_time_of_the_first_timer)
{
    static struct wheel wheel;
    struct timer timer[3] = {{.due = 0}};
    int64_t start = INT64_C(123456789012345);
    wheel_init(&wheel, start);
    timer[0].due = start + 3600 * INT64_C(1000000000) + 17;
    timer[1].due = start + 3600 * INT64_C(1000000000) + 16;
    timer[2].due = start + 86400 * INT64_C(1000000000);
    for (int i = 0; i < 3; i++) {
        wheel_insert(&wheel, &timer[i]);
    }
    cr_assert_eq(wheel_earliest(&wheel), timer[1].due);

    /* One wake-up for it, not one per level: just before there is nothing, just then there is this one. */
    struct timer *expired = NULL;
    wheel_collect(&wheel, timer[1].due - 1, &expired, 100);
    cr_assert_null(expired);
    wheel_collect(&wheel, timer[1].due, &expired, 100);
    cr_assert_eq(expired, &timer[1]);
    cr_assert_null(expired->next);
    cr_assert_eq(wheel_earliest(&wheel), timer[0].due);
}

Test(wheel, takes_every_time_there_is)
{
    static const int64_t dues[] = {INT64_MIN, -1, 0, 1, 65535, 65536, INT64_MAX - 1, INT64_MAX};
    enum { N = sizeof dues / sizeof dues[0] };
    static struct wheel wheel;
    struct timer timer[N] = {{.due = 0}};
    struct timer *expired = NULL;
    unsigned n = 0;
    wheel_init(&wheel, 0);
    for (int i = 0; i < N; i++) {
        timer[i].due = dues[i];
        wheel_insert(&wheel, &timer[i]);
    }
    wheel_collect(&wheel, INT64_MAX - 1, &expired, 100);
    while (expired) {
        wheel_remove(&wheel, expired);
        n++;
    }
    cr_assert_eq(n, N - 1);
    wheel_remove(&wheel, &timer[N - 1]);
    cr_assert_eq(wheel_earliest(&wheel), INT64_MAX);
}

Test(wheel, a_portion_touches_no_more_timers_than_asked)
{
    enum { N = 1000 };
    static struct wheel wheel;
    static struct timer timer[N];
    wheel_init(&wheel, 0);
    for (int i = 0; i < N; i++) {
        timer[i].due = INT64_C(1000000000);
        wheel_insert(&wheel, &timer[i]);
    }
    unsigned total = 0, portions = 0;
    while (wheel_earliest(&wheel) <= INT64_C(1000000000)) {
        struct timer *expired = NULL;
        unsigned n = 0;
        wheel_collect(&wheel, INT64_C(1000000000), &expired, 10);
        while (expired) {
            wheel_remove(&wheel, expired);
            n++;
        }
        cr_assert_leq(n, 10);
        total += n;
        portions++;
    }
    cr_assert_eq(total, N);
    cr_assert_eq(portions, N / 10);
}

Test(wheel, a_million_timers_come_and_go)
{
    enum { N = 1000000 };
    static struct wheel wheel;
    struct timer *timer = calloc(N, sizeof *timer);
    uint64_t random = 88172645463325252U;
    cr_assert_not_null(timer);
    wheel_init(&wheel, 0);
    for (int i = 0; i < N; i++) {
        random = random * 6364136223846793005U + 1442695040888963407U;
        timer[i].due = (int64_t)(random >> 29); /* 34 s */
        wheel_insert(&wheel, &timer[i]);
    }
    for (int i = 0; i < N; i += 2) {
        wheel_remove(&wheel, &timer[i]);
    }
    unsigned fired = 0;
    int64_t now = 0;
    while (wheel_earliest(&wheel) != INT64_MAX) {
        struct timer *expired = NULL;
        wheel_collect(&wheel, now, &expired, 4096);
        while (expired) {
            cr_assert(expired->due <= now && (expired - timer) % 2 == 1);
            wheel_remove(&wheel, expired);
            fired++;
        }
        if (wheel_earliest(&wheel) > now) {
            now += 10000000;
        }
    }
    cr_assert_eq(fired, N / 2);
    free(timer);
}
