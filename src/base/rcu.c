/*
 * The slow half of RCU: registering a thread, waiting for readers, and what a fork needs.
 *
 * The registry of urcu-bp (0.13.2, urcu-bp.c) is an arena that starts with room for 8 readers. When it is full, its
 * last chunk is grown in place to twice its size, or a chunk of twice that size is mapped; the chunks only ever grow,
 * and a failure of that mmap is abort(). The registration is therefore preceded by a trial of the same allocation,
 * unless the arena is known to have a free slot.
 */
#include "base/rcu.h"

#include "base/fork.h"
#include "base/futex.h"

#include <errno.h>
#include <pthread.h>
#include <ringpool/base.h>
#include <ringpool/lock.h>
#include <sched.h>
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
    CHUNK_PAGE = 4096,      /* mappings start at such */
    KEYS_IN_THREAD = 32,    /* PTHREAD_KEY_2NDLEVEL_SIZE of glibc's internal headers */
    THREADS_UNKNOWN = 4096, /* taken for the number of threads where /proc is not mounted */
    ATTACH_TURNS = 8,       /* of the CPU, for another registration, then naps; measured, see bench/RESULTS.md */
    ATTACH_NAP_NS = 20000,  /* and the timer's slack */
    ATTACH_PATIENCE_NS = 10000000,
};

static struct rp_lock attach_lock; /* held over trial and registration, and over a fork */
static _Atomic bool forking;       /* it is held over a fork */
static bool
    key_in_thread; /* under attach_lock: glibc keeps bp's thread-specific value in the thread's own descriptor */

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
 * Free slots. The trial is most of what attaching costs, as it takes the lock of the address space twice, beside
 * threads that map stacks and fault. So it is left out while the arena has slots that nobody can have taken, which is
 * learned from the addresses that bp gives: slots are taken first to last, a chunk's first one stands at its mapping's
 * start, and a chunk is mapped only when all slots of those before it are taken. It has at least as many as all of them
 * together, hence as many as we have been given so far. A slot that becomes free again is not counted: another may be
 * first.
 *
 * Threads that register with bp by themselves show by gaps, and then nothing is left out any more; what remains is that
 * some come between two of ours and take the last free slots when there is no memory: then bp aborts.
 */
enum { CHUNKS_MOST = 24 };

static struct {
    uintptr_t first, last; /* of the slots in it that we were given */
} chunks[CHUNKS_MOST];     /* this and the next three: under attach_lock */
static unsigned nchunks;
static size_t slots_free; /* at least */
static bool strangers;    /* others register as well: nothing is known */

static bool chunk_has(unsigned i, uintptr_t slot)
{
    return slot >= chunks[i].first && slot <= chunks[i].last + sizeof(struct urcu_bp_reader);
}

/* A slot that begins a page need not begin a mapping: that it is no chunk's next is not enough. */
static bool near_a_chunk(uintptr_t slot)
{
    const size_t most = 2 * (threads_now() + CHUNK_READERS_MIN) * sizeof(struct urcu_bp_reader);

    for (unsigned i = 0; i < nchunks; i++)
        if (slot > chunks[i].first && slot - chunks[i].first < most)
            return true;
    return false;
}

static size_t slots_given(void)
{
    size_t slots = 0;

    for (unsigned i = 0; i < nchunks; i++)
        slots += (chunks[i].last - chunks[i].first) / sizeof(struct urcu_bp_reader) + 1;
    return slots;
}

/* In a thread that was registered just now. */
static void learn_slot(void)
{
    const uintptr_t slot = (uintptr_t)URCU_TLS(urcu_bp_reader);
    const uintptr_t page = slot & ~(uintptr_t)(CHUNK_PAGE - 1);
    const bool begins = slot - page < CHUNK_HEADER_BYTES;
    unsigned i = 0;

    if (strangers)
        return;
    const size_t slots_before = slots_free; /* a chunk is mapped only when none is left */
    slots_free -= slots_free > 0;
    while (i < nchunks && !chunk_has(i, slot))
        i++;
    if (i < nchunks) {
        chunks[i].last = slot > chunks[i].last ? slot : chunks[i].last;
    } else if (begins && nchunks < CHUNKS_MOST && !slots_before && !near_a_chunk(slot)) {
        slots_free = slots_given();
        slots_free -= slots_free > 0;
        chunks[nchunks].first = chunks[nchunks].last = slot;
        nchunks++;
    } else {
        strangers = true;
        slots_free = 0;
    }
}

/*
 * Can bp have the chunk that it may need? It grows only while every slot is taken, so that its last chunk has at most
 * as many slots as there are threads, and the next one twice that size. The trial asks with bp's own protection and
 * flags, as they decide which limits count (RLIMIT_AS, RLIMIT_DATA, strict overcommit, max_map_count).
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

    if (chunk == MAP_FAILED) {
        return false;
    }
    (void)munmap(chunk, size);
    return true;
}

/*
 * pthread_setspecific allocates for keys above 31, and bp answers its failure with abort() as well. Below that a worker
 * tries none, as its first malloc costs it a cache of 700 bytes.
 */
static bool value_may_be_set(void)
{
    void *specific;

    if (key_in_thread)
        return true;
    specific = malloc(4096); /* beyond malloc's per-thread caches, which calloc does not use */
    free(specific);
    return specific != NULL;
}

/*
 * In a thread that was registered. A pthread_key_t of glibc's is an index, and asking for one that nobody made gives
 * NULL.
 */
static void find_key(void)
{
    for (pthread_key_t key = 0; key < KEYS_IN_THREAD && !key_in_thread; key++) {
        key_in_thread = pthread_getspecific(key) == URCU_TLS(urcu_bp_reader);
    }
}

/*
 * Threads that end. bp's destructor of thread-specific data takes a lock that urcu_bp_before_fork() leaves out
 * (init_lock of urcu-bp.c): a fork in that moment would leave the child with that lock taken, and its first
 * registration would never return. So the threads that we make say that they end, and a fork waits until none is
 * between that and the end of bp's destructor, which is over when a destructor of ours is called for the second round
 * of destructors.
 *
 * The wait is bounded: destructors of the user's run in between and may do anything, call us too. A program's own
 * thread that was attached and ends in the moment of a fork does not say so: that is left.
 */
#define ENDING_PATIENCE_NS INT64_C(100000000)
enum { NOT_ENDING, FIRST_ROUND, SECOND_ROUND };

static _Atomic uint32_t ending; /* futex: threads that are there; raised under attach_lock only, so not during a fork */
static pthread_key_t ending_key;
static bool ending_key_made;            /* under attach_lock */
static _Thread_local uint8_t my_ending; /* of these: as small as can be, see tests/build/exports.sh */

static void thread_ended(void)
{
    my_ending = NOT_ENDING;
    sub_seq(&ending, 1);
    futex_wake(&ending, 1); /* one fork at a time waits */
}

static void end_round(void *unused)
{
    (void)unused;
    if (my_ending == FIRST_ROUND && pthread_setspecific(ending_key, &ending) == 0)
        my_ending = SECOND_ROUND;
    else if (my_ending != NOT_ENDING)
        thread_ended();
}

void rcu_thread_ends(void)
{
    rp_lock_acquire(&attach_lock);
    if (!ending_key_made)
        ending_key_made = pthread_key_create(&ending_key, end_round) == 0;
    /* Without memory for this the child of a fork in the wrong moment is on its own. */
    if (ending_key_made && pthread_setspecific(ending_key, &ending) == 0) {
        my_ending = FIRST_ROUND;
        add_seq(&ending, 1);
    }
    rp_lock_release(&attach_lock);
}

/* The thread that forks may be one of them. */
static void await_ending(void)
{
    int64_t patience = rp_after(ENDING_PATIENCE_NS);
    uint32_t self = my_ending != NOT_ENDING, n;

    while ((n = load_seq(&ending)) > self && rp_now() < patience)
        futex_wait(&ending, n, patience);
}

/*
 * Others' registrations are waited for: of a thousand threads that begin together one is soon preempted in its own, and
 * if the others went on unregistered meanwhile, they would leave it no CPU for as long as they have work. Soon by naps,
 * as who only yields may have the CPU back at once, by its priority or by the scheduler's books. A thread does so for
 * ATTACH_PATIENCE_NS once, and not for a fork, which holds the lock while it runs handlers of the user's: these may wait
 * for a task of ours.
 */
static bool attach_begin(void)
{
    static _Thread_local bool waited;
    int64_t until = waited ? 0 : rp_after(ATTACH_PATIENCE_NS);
    _Atomic uint32_t nobody = 0;

    for (unsigned turns = 0; !rp_lock_try(&attach_lock); turns++) {
        if (load_relaxed(&forking)) /* a hint */
            return false;
        waited = rp_now() >= until;
        if (waited)
            return false;
        if (turns < ATTACH_TURNS)
            sched_yield();
        else
            futex_wait(&nobody, 0, rp_after(ATTACH_NAP_NS));
    }
    return true;
}

/* Not in a section: it would end as another kind than it began. */
int rcu_attach_slow(void)
{
    int saved = errno;
    int rc = fork_install();

    if (rc == 0 && !phases_inside() && attach_begin()) {
        if ((slots_free || arena_may_grow()) && value_may_be_set()) {
            urcu_bp_register_thread();
            learn_slot();
            find_key();
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
    phases_wait();
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
    store_relaxed(&forking, true); /* a hint, as below */
    await_ending();
    phases_fork_prepare();
    urcu_bp_before_fork();
}

void rcu_fork_parent(void)
{
    urcu_bp_after_fork_parent();
    phases_fork_parent();
    store_relaxed(&forking, false);
    rp_lock_release(&attach_lock);
}

void rcu_fork_child(void)
{
    urcu_bp_after_fork_child();
    phases_fork_child();
    store_seq(&ending, my_ending != NOT_ENDING); /* of the others there is none */
    store_relaxed(&forking, false);
    rp_lock_release(&attach_lock);
}
