/*
 * What a peer's file defines, and permits for libraries whose queue has no bound: strict means that a submitter takes a
 * permit of which there are as many as workers, and the task gives it back at its end. That is a semaphore around the
 * library, which is what its users do.
 */
#ifndef RINGPOOL_BENCH_PEER_H
#define RINGPOOL_BENCH_PEER_H

#include <errno.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

#include "executor.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct executor peer_executor;

struct permits {
    bool limited;
    sem_t free;
};

static inline void permits_init(struct permits *permits, const struct executor_config *config)
{
    permits->limited = config->strict;
    sem_init(&permits->free, 0, config->workers);
}

static inline void permits_take(struct permits *permits)
{
    if (permits->limited)
        while (sem_wait(&permits->free) && errno == EINTR)
            ;
}

static inline void permits_give(struct permits *permits)
{
    if (permits->limited)
        sem_post(&permits->free);
}

#ifdef __cplusplus
}
#endif

#endif
