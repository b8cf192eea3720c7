/*
 * The allocator hook: everything that belongs to an object comes from the hook that the object was made with.
 */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <ringpool/base.h>

/* Memory that is kept for a later use is as good as freed to AddressSanitizer, from POISON to UNPOISON or its free. */
#if defined(__SANITIZE_ADDRESS__)
#define ALLOC_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ALLOC_ASAN 1
#endif
#endif
#ifdef ALLOC_ASAN
#include <sanitizer/asan_interface.h>
#define ALLOC_POISON(p, size) ASAN_POISON_MEMORY_REGION((p), (size))
#define ALLOC_UNPOISON(p, size) ASAN_UNPOISON_MEMORY_REGION((p), (size))
#else
#define ALLOC_POISON(p, size) ((void)0)
#define ALLOC_UNPOISON(p, size) ((void)0)
#endif

/* Of malloc, calloc and free. */
extern const struct rp_allocator alloc_libc;

/* *out becomes a copy of *user, or libc's for NULL. -EINVAL when only some of the three functions are set. */
int alloc_init(struct rp_allocator *out, const struct rp_allocator *user);

/* Memory with anything in it, or NULL. Freed by alloc_free. */
void *alloc_raw(const struct rp_allocator *a, size_t size);
/* Zeroed memory, or NULL (also when n * size overflows). Freed by alloc_free; NULL is allowed there. */
void *alloc_zeroed(const struct rp_allocator *a, size_t n, size_t size);
void alloc_free(const struct rp_allocator *a, void *p);

/*
 * Memory at a multiple of `align` (a power of two), zeroed, or with anything in it. Freed only by alloc_free_aligned;
 * NULL is allowed there.
 */
void *alloc_aligned(const struct rp_allocator *a, size_t align, size_t size);
void *alloc_aligned_raw(const struct rp_allocator *a, size_t align, size_t size);
void alloc_free_aligned(const struct rp_allocator *a, void *p);

#endif
