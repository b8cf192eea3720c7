/*
 * What the lives of the subject (subject.c, jobs.c) share: how to say what broke, and what is failing.
 */
#ifndef FAULT_SUBJECT_H
#define FAULT_SUBJECT_H

#include <ringpool.h>
#include <stdbool.h>
#include <stdint.h>

enum broken {
    LOST = 10,    /* an accepted task met no fate */
    TWICE,        /* one met two, or a rejected one met one */
    UNDOCUMENTED, /* a code that the header does not name for this call */
    MEMORY_LEFT,  /* the pool's allocator is not balanced */
    THREADS_LEFT,
    DESCRIPTORS_LEFT,
    MAPPINGS_LEFT,   /* of stacks and rings */
    NOT_RECOVERED,   /* the life after the fault was not flawless */
    DOES_NOT_ADD_UP, /* a snapshot */
    CHILD_FAILED,    /* a forked one */
    CANNOT_TELL = 70 /* the subject's own preparations failed */
};

#define MS INT64_C(1000000)
#define PATIENCE (100000 * MS) /* of a wait that no deadline is to end: longer than a machine may stand still */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#define STACK (2048UL * 1024)
#else
#define SANITIZED 0
#define STACK (176UL * 1024) /* of no other thread's and no allocator's size */
#endif

extern int backend;  /* enum rp_backend_choice */
extern bool lasting; /* the fault does not go away: waits have limits, and may end at them */

/* Of the pools; requests to it are counted, and fail as the arguments say. */
extern const struct rp_allocator hook_allocator;

/* Options of pools that say nothing. */
void on_panic(void *user, const struct rp_panic_info *info);
void on_log(void *user, int level, const char *message);

_Noreturn void broke(enum broken what, const char *format, ...) __attribute__((format(printf, 2, 3)));
void nap(int64_t ns);

/*
 * Checks a code against those that the header names for this call; 0 and counts are always good, others not if `sure`.
 */
int expect(bool sure, const char *call, int rc, const int *codes);
#define EXPECT(sure, call, rc, ...) expect(sure, call, rc, (const int[]){__VA_ARGS__, 0})

/* The life of futures and what is made of them, on a pool or a multi pool. `sure`: nothing fails. */
void jobs_live(bool sure, bool multi);

#endif
