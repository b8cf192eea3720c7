/*
 * What the loads of the stress test share: randomness that a seed repeats, the one way to fail, and what must be as
 * before when a round is over.
 */
#ifndef TESTS_STRESS_STRESS_H
#define TESTS_STRESS_STRESS_H

#include <inttypes.h>
#include <ringpool.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#define STACK ((size_t)2048 * 1024) /* the sanitizers put a megabyte of their own at the end of each stack */
#else
#define SANITIZED false
#define STACK ((size_t)128 * 1024)
#endif

/* So long, in naps of its own, a round waits for what is under way. */
#define SETTLE_NS INT64_C(5000000000)

/* A load: pools.c, multi.c, jobs.c. A round depends on seed and round number alone (and on the machine's scheduler). */
struct load {
    const char *name;
    void (*warm_up)(void);
    void (*round_run)(void);
    void (*dump)(void);   /* when a round failed: what its pools say of themselves */
    void (*report)(void); /* its figures, each after a comma */
};
extern const struct load load_pools, load_multi, load_jobs;
/* `any`, `calm` and so on: see pools.c. false: no such mix. */
bool pools_mix(const char *name);

extern uint64_t seed;
extern _Atomic uint64_t round_number;
extern _Atomic uint64_t progress; /* counted up by whatever moves: while it stands still the watchdog counts */
extern int backend;               /* enum rp_backend_choice */

/* A number below `below`: of a generator of the thread, which is sown from seed, round and the thread's place. */
uint32_t rnd(uint32_t below);
bool one_in(uint32_t n);
/*
 * Each thread of a round begins with it. Those that do not, a pool's workers, get places in the order of their coming.
 */
void sow(uint64_t place);

/* Tells what is wrong, and of the first failure all there is to know, and how to replay it; ends the process. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * What a call returned, which fails unless it is a success or one of `allowed`, which ends with 0; or -ENOMEM where
 * memory may fail, or -ESHUTDOWN where somebody may have closed.
 */
int expect(const char *call, int rc, bool may_fail, bool may_be_closed, const int *allowed);

static inline void nap(int64_t ns)
{
    nanosleep(&(struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}, NULL);
}

/* Waits until `condition` holds, for at most SETTLE_NS of naps; this wait is none of the watchdog's. */
#define SETTLES(condition)                                                                                             \
    ({                                                                                                                 \
        int64_t naps = 0;                                                                                              \
        while (!(condition) && naps < SETTLE_NS) {                                                                     \
            nap(200000);                                                                                               \
            naps += 200000;                                                                                            \
            progress++;                                                                                                \
        }                                                                                                              \
        (condition);                                                                                                   \
    })

/* An allocator that counts the pieces it has given out, and fails now and then while it is told to. */
struct counting {
    _Atomic int64_t pieces;
    _Atomic bool fails;
};
extern struct counting counting;
extern const struct rp_allocator counting_allocator;

/* Options of pools that say nothing. */
void quiet_panic(void *user, const struct rp_panic_info *info);
void quiet_log(void *user, int level, const char *message);

/* Fails unless the process has the threads and descriptors that it had before the first round. */
void residue_check(void);

#endif
