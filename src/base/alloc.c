/*
 * The allocator hook. Sizes are checked here, once, so that neither a user's calloc nor a caller has to.
 *
 * The hook has no aligned allocation: aligned memory is a larger block whose own address stands right below the
 * aligned one. A request for nothing still gets memory, so that NULL always means that memory is short.
 */
#include "base/alloc.h"

#include <errno.h>
#include <stdlib.h>

static void *libc_malloc(void *user, size_t size)
{
    (void)user;
    return malloc(size);
}

static void *libc_calloc(void *user, size_t n, size_t size)
{
    (void)user;
    return calloc(n, size);
}

static void libc_free(void *user, void *p)
{
    (void)user;
    free(p);
}

const struct rp_allocator alloc_libc = {.malloc = libc_malloc, .calloc = libc_calloc, .free = libc_free};

int alloc_init(struct rp_allocator *out, const struct rp_allocator *user)
{
    if (!user || (!user->malloc && !user->calloc && !user->free)) {
        *out = alloc_libc;
        return 0;
    }
    if (!user->malloc || !user->calloc || !user->free) {
        return -EINVAL;
    }
    *out = *user;
    return 0;
}

void *alloc_raw(const struct rp_allocator *a, size_t size)
{
    return a->malloc(a->user, size ? size : 1);
}

void *alloc_zeroed(const struct rp_allocator *a, size_t n, size_t size)
{
    size_t total;

    if (__builtin_mul_overflow(n, size, &total)) {
        return NULL;
    }
    return total ? a->calloc(a->user, n, size) : a->calloc(a->user, 1, 1);
}

void alloc_free(const struct rp_allocator *a, void *p)
{
    if (p) {
        a->free(a->user, p);
    }
}

static void *aligned(const struct rp_allocator *a, size_t align, size_t size, bool zeroed)
{
    size_t least = _Alignof(void *); /* for the address below */
    size_t room, total;
    uintptr_t block, at;

    if (align < least) {
        align = least;
    }
    if (__builtin_add_overflow(align - 1, sizeof(void *), &room) || __builtin_add_overflow(size, room, &total)) {
        return NULL;
    }
    block = (uintptr_t)(zeroed ? a->calloc(a->user, 1, total) : a->malloc(a->user, total));
    if (!block) {
        return NULL;
    }
    at = (block + room) & ~(uintptr_t)(align - 1);
    ((void **)at)[-1] = (void *)block;
    return (void *)at;
}

void *alloc_aligned(const struct rp_allocator *a, size_t align, size_t size)
{
    return aligned(a, align, size, true);
}

void *alloc_aligned_raw(const struct rp_allocator *a, size_t align, size_t size)
{
    return aligned(a, align, size, false);
}

void alloc_free_aligned(const struct rp_allocator *a, void *p)
{
    if (p) {
        a->free(a->user, ((void **)p)[-1]);
    }
}
