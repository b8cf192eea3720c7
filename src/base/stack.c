/*
 * Thread stacks: one mapping each, whose lowest page is never made accessible, so that an overflow faults instead of
 * reaching a neighbour.
 *
 * The mapping starts without access and all but the guard page is opened afterwards: at no time does a stack exist
 * without its guard. Huge pages are refused, as an idle worker would otherwise hold 2 MiB instead of two pages. All
 * functions keep errno.
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

int stack_map(struct stack *stack, size_t size, size_t above)
{
    const size_t page = page_size();
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE;
    int saved = errno;
    char *map;

    if (size > SIZE_MAX / 2 || above > SIZE_MAX / 4) {
        return -ENOMEM;
    }
    above = (above + CACHE_APART - 1) & ~(size_t)(CACHE_APART - 1);
    size = ((size ? size : 1) + above + page - 1) & ~(page - 1);
    map = mmap(NULL, page + size, PROT_NONE, flags, -1, 0);
    if (map == MAP_FAILED) {
        goto failed;
    }
    if (mprotect(map + page, size, PROT_READ | PROT_WRITE)) {
        (void)munmap(map, page + size);
        goto failed;
    }
    (void)madvise(map + page, size, MADV_NOHUGEPAGE); /* EINVAL on a kernel without huge pages */
    *stack = (struct stack){.base = map + page, .size = size - above, .above = above};
    errno = saved;
    return 0;

failed:
    /* EAGAIN is a memory limit too: of locked memory, after mlockall(MCL_FUTURE). */
    errno = saved;
    return -ENOMEM;
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
