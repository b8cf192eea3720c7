/*
 * The allocator hook: everything comes from it, goes back to it, and its refusal is passed on.
 */
#include "base/alloc.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* An allocator that counts what is out, and refuses when told to. */
struct counting {
    long out;
    long asked;
    bool refuses;
};

static void *counting_malloc(void *user, size_t size)
{
    struct counting *c = user;

    c->asked++;
    if (c->refuses) {
        return NULL;
    }
    c->out++;
    return malloc(size);
}

static void *counting_calloc(void *user, size_t n, size_t size)
{
    struct counting *c = user;

    c->asked++;
    if (c->refuses) {
        return NULL;
    }
    c->out++;
    return calloc(n, size);
}

static void counting_free(void *user, void *p)
{
    struct counting *c = user;

    c->out--;
    free(p);
}

static struct rp_allocator counting_allocator(struct counting *c)
{
    return (struct rp_allocator){
        .malloc = counting_malloc, .calloc = counting_calloc, .free = counting_free, .user = c};
}

static bool all_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i]) {
            return false;
        }
    }
    return true;
}

Test(alloc, no_hook_means_libc)
{
    struct rp_allocator a, empty = {0};
    void *p;

    cr_assert_eq(alloc_init(&a, NULL), 0);
    p = a.malloc(a.user, 10);
    cr_assert_not_null(p);
    alloc_free(&a, p);
    cr_assert_eq(alloc_init(&a, &empty), 0);
    p = alloc_zeroed(&a, 3, 5);
    cr_assert_not_null(p);
    cr_assert(all_zero(p, 15));
    alloc_free(&a, p);
}

Test(alloc, half_a_hook_is_invalid)
{
    struct counting c = {0};
    struct rp_allocator a, whole = counting_allocator(&c);

    for (unsigned set = 1; set < 7; set++) {
        struct rp_allocator some = {.malloc = set & 1 ? whole.malloc : NULL,
                                    .calloc = set & 2 ? whole.calloc : NULL,
                                    .free = set & 4 ? whole.free : NULL};

        cr_assert_eq(alloc_init(&a, &some), -EINVAL, "functions set: %x", set);
    }
    cr_assert_eq(alloc_init(&a, &whole), 0);
    cr_assert_eq(a.user, &c);
}

Test(alloc, all_memory_comes_from_the_hook_and_goes_back_there)
{
    struct counting c = {0};
    struct rp_allocator a = counting_allocator(&c);
    void *p = alloc_zeroed(&a, 10, 10);
    void *q = alloc_aligned(&a, 128, 100);

    cr_assert_eq(c.out, 2);
    alloc_free(&a, p);
    alloc_free_aligned(&a, q);
    cr_assert_eq(c.out, 0);
}

Test(alloc, a_refusal_is_null)
{
    struct counting c = {.refuses = true};
    struct rp_allocator a = counting_allocator(&c);

    cr_assert_null(alloc_zeroed(&a, 1, 1));
    cr_assert_null(alloc_aligned(&a, 64, 64));
    cr_assert_eq(c.asked, 2);
}

Test(alloc, overflow_is_null_and_never_reaches_the_hook)
{
    struct counting c = {0};
    struct rp_allocator a = counting_allocator(&c);
    volatile size_t huge = SIZE_MAX;

    cr_assert_null(alloc_zeroed(&a, huge, 2));
    cr_assert_null(alloc_zeroed(&a, huge / 2, 3));
    cr_assert_null(alloc_aligned(&a, 64, huge));
    cr_assert_null(alloc_aligned(&a, 64, huge - 64));
    cr_assert_null(alloc_aligned(&a, huge / 2 + 1, huge / 2));
    cr_assert_eq(c.asked, 0);
}

Test(alloc, nothing_is_still_an_address)
{
    struct counting c = {0};
    struct rp_allocator a = counting_allocator(&c);
    void *p = alloc_zeroed(&a, 0, 8), *q = alloc_aligned(&a, 64, 0);

    cr_assert_not_null(p);
    cr_assert_not_null(q);
    alloc_free(&a, p);
    alloc_free_aligned(&a, q);
    cr_assert_eq(c.out, 0);
}

Test(alloc, aligned_memory_is_aligned_zeroed_and_all_there)
{
    struct counting c = {0};
    struct rp_allocator a = counting_allocator(&c);

    for (size_t align = 1; align <= 1 << 16; align *= 2) {
        for (size_t size = 1; size <= 300; size += 23) {
            unsigned char *p = alloc_aligned(&a, align, size);

            cr_assert_not_null(p);
            cr_assert_eq((uintptr_t)p % align, 0u);
            cr_assert(all_zero(p, size));
            memset(p, 0xff, size);
            alloc_free_aligned(&a, p);
        }
    }
    cr_assert_eq(c.out, 0);
}

Test(alloc, free_takes_null)
{
    struct counting c = {0};
    struct rp_allocator a = counting_allocator(&c);

    alloc_free(&a, NULL);
    alloc_free_aligned(&a, NULL);
    cr_assert_eq(c.out, 0);
}
