/*
 * Thread stacks: each with a page below that is not accessible, so that an overflow faults instead of reaching a
 * neighbour. It is set before anybody is given the stack.
 *
 * Since Linux 6.13 such a page can be marked in the page tables. Before that it is a mapping of its own, which splits
 * the one around it: two mappings a stack, of which a process has 65,530 by default, and more work for the kernel than
 * all else that a stack takes. A slab is one mapping for many stacks, of which the last one is taken first.
 *
 * Huge pages are refused, as an idle worker would otherwise hold 2 MiB instead of two pages. All functions keep errno.
 */
#include "base/stack.h"

#include "base/atomic.h"

#include <errno.h>
#include <link.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Bytes above a stack, and of a stack with those and its guard page; 0: more than there can be. */
static size_t above_bytes(const struct stack_shape *shape)
{
    return (shape->above + CACHE_APART - 1) & ~(size_t)(CACHE_APART - 1);
}

static size_t whole_bytes(const struct stack_shape *shape)
{
    const size_t page = page_size();

    if (shape->size > SIZE_MAX / 2 || shape->above > SIZE_MAX / 4)
        return 0;
    return page + (((shape->size ? shape->size : 1) + above_bytes(shape) + page - 1) & ~(page - 1));
}

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/*
 * Whether pages can be marked. Asked once, by advice that no marked page can follow, as an emulator may take any advice
 * and do nothing. Not by a call that takes the page as an argument: valgrind would read it.
 */
enum { UNKNOWN, MARKS, SPLITS };
static _Atomic uint32_t marking;

static bool guard_mark(char *at, size_t page)
{
    uint32_t known = load_relaxed(&marking); /* a hint */

    if (known == SPLITS)
        return false;
    if (madvise(at, page, MADV_GUARD_INSTALL)) {
        if (errno == EINVAL) /* an older kernel, or all memory is locked */
            store_relaxed(&marking, SPLITS);
        return false;
    }
    if (known == UNKNOWN) {
        bool marked = madvise(at, page, MADV_POPULATE_READ) && errno == EFAULT;
        store_relaxed(&marking, marked ? MARKS : SPLITS);
        return marked;
    }
    return true;
}

/* Makes a page inaccessible. To mlockall a marked page is where the mapping ends. */
static bool guard_set(char *at, size_t page, bool locked)
{
    return (!locked && guard_mark(at, page)) || mprotect(at, page, PROT_NONE) == 0;
}

/* NULL: memory or mappings are exhausted. */
static char *reserve(size_t bytes)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE;
    char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);

    if (map == MAP_FAILED)
        return NULL;
    (void)madvise(map, bytes, MADV_NOHUGEPAGE); /* EINVAL on a kernel without huge pages */
    return map;
}

void stack_slab_map(struct stack_slab *slab, const struct stack_shape *shape, unsigned n)
{
    int saved = errno;

    *slab = (struct stack_slab){.each = whole_bytes(shape)};
    if (slab->each && slab->each <= SIZE_MAX / 2 / n && (slab->start = reserve(n * slab->each)))
        slab->left = n;
    errno = saved;
}

void stack_slab_unmap(struct stack_slab *slab)
{
    int saved = errno;

    /* If it can be cut out only by one mapping more, which is one too many, it stays: address space, no memory. */
    if (slab->left)
        (void)munmap(slab->start, slab->left * slab->each);
    *slab = (struct stack_slab){0};
    errno = saved;
}

int stack_map(struct stack *stack, const struct stack_shape *shape, struct stack_slab *slab)
{
    const size_t page = page_size(), whole = whole_bytes(shape), above = above_bytes(shape);
    const bool of_slab = slab && slab->left;
    int saved = errno, rc = -ENOMEM; /* EAGAIN is a memory limit too: of locked memory, after mlockall(MCL_FUTURE) */
    char *map = NULL;

    if (of_slab)
        map = (char *)slab->start + (slab->left - 1) * whole;
    else if (whole)
        map = reserve(whole);
    if (map && guard_set(map, page, shape->locked)) {
        *stack = (struct stack){.base = map + page, .size = whole - page - above, .above = above};
        rc = 0;
        if (of_slab)
            slab->left--;
    } else if (map && !of_slab) {
        (void)munmap(map, whole);
    }
    errno = saved;
    return rc;
}

void stack_unmap(struct stack *stack)
{
    const size_t page = page_size();
    int saved = errno;

    if (!stack->base) {
        return;
    }
    if (munmap((char *)stack->base - page, page + stack->size + stack->above)) {
        /* Merged with a neighbour, it cannot be cut out without one mapping more, which may be one too many. */
        (void)madvise(stack->base, stack->size + stack->above, MADV_DONTNEED);
    }
    *stack = (struct stack){0};
    errno = saved;
}

static int tls_of_object(struct dl_phdr_info *info, size_t size, void *sum)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type == PT_TLS)
            *(size_t *)sum += header->p_memsz + header->p_align;
    }
    return 0;
}

size_t stack_tls_size(void)
{
    size_t sum = 0;

    dl_iterate_phdr(tls_of_object, &sum);
    return sum;
}
