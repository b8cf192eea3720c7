/*
 * The slow half of RCU: registering a thread, waiting for readers, and what a fork needs.
 *
 * The registry of urcu-bp (0.13.2, urcu-bp.c) is an arena that starts with room for 8 readers. When it is full, its
 * last chunk is grown in place to twice its size, or a chunk of twice that size is mapped; the chunks only ever grow,
 * and a failure of that mmap is abort(). The registration is therefore preceded by a trial of the same allocation.
 */
#include "base/rcu.h"

#include "base/fork.h"

#include <errno.h>
#include <ringpool/lock.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <urcu/urcu-bp.h>

#ifdef RCU_TSAN
char rcu_tsan_tag;
#endif

enum {
    CHUNK_HEADER_BYTES = 64, /* struct registry_chunk is 32 */
    CHUNK_READERS_MIN = 8,
    THREADS_UNKNOWN = 4096, /* taken for the number of threads where /proc is not mounted */
};

static struct rp_lock attach_lock; /* held over trial and registration, and over a fork */

/*
 * At least as many as are registered, by whomever: bp takes a reader out before its thread ends. The link count of the
 * task directory is the number of threads + 2, and costs one system call however many there are.
 */
static size_t threads_now(void)
{
    struct stat task;

    return stat("/proc/self/task", &task) == 0 && task.st_nlink > 2 ? (size_t)task.st_nlink - 2 : THREADS_UNKNOWN;
}

/*
 * Can bp have the chunk that it may need? It grows only while every slot is taken, so that its last chunk has at most
 * as many slots as there are threads, and the next one twice that size. The trial asks with bp's own protection and
 * flags, as they decide which limits count (RLIMIT_AS, RLIMIT_DATA, strict overcommit, max_map_count). The malloc is
 * for pthread_setspecific, which allocates for keys above 31, and whose failure bp answers with abort() as well.
 *
 * What is left: another thread may take the last of the memory between the trial and the registration. attach_lock
 * keeps that from happening between two of our own registrations; a foreign mmap in those two microseconds, or a
 * program that registers with urcu-bp by itself in them, can still end in bp's abort().
 */
static bool arena_may_grow(void)
{
    size_t readers = threads_now() + CHUNK_READERS_MIN;
    size_t size = 2 * (CHUNK_HEADER_BYTES + readers * sizeof(struct urcu_bp_reader));
    void *chunk = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    void *specific;

    if (chunk == MAP_FAILED) {
        return false;
    }
    (void)munmap(chunk, size);
    specific = malloc(4096); /* beyond malloc's per-thread caches, which calloc does not use */
    free(specific);
    return specific != NULL;
}

int rcu_attach_slow(void)
{
    int saved = errno;
    int rc = fork_install();

    if (rc == 0) {
        rp_lock_acquire(&attach_lock);
        if (arena_may_grow()) {
            urcu_bp_register_thread();
        } else {
            rc = -ENOMEM;
        }
        rp_lock_release(&attach_lock);
    }
    errno = saved;
    return rc;
}

void rcu_wait(void)
{
    int saved = errno;

    urcu_bp_synchronize_rcu();
    RCU_TSAN_ACQUIRE();
    errno = saved;
}

/*
 * bp blocks all signals of the thread between these, and holds its two locks. They are not recursive: a program that
 * uses urcu-bp itself must not call urcu_bp_before_fork() and its kin from handlers of its own as well.
 */
void rcu_fork_prepare(void)
{
    rp_lock_acquire(&attach_lock);
    urcu_bp_before_fork();
}

void rcu_fork_parent(void)
{
    urcu_bp_after_fork_parent();
    rp_lock_release(&attach_lock);
}

void rcu_fork_child(void)
{
    urcu_bp_after_fork_child();
    rp_lock_release(&attach_lock);
}
