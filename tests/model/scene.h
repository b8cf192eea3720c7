/*
 * What scenarios of futures, completion queues and strands share with their actors and tasks.
 */
#ifndef MODEL_SCENE_H
#define MODEL_SCENE_H

#include "ledger.h"

#include <ringpool/future.h>
#include <ringpool/group.h>

#define MS INT64_C(1000000)

enum { MOST = 9 };

struct scene {
    struct rp_future *future[MOST];
    struct rp_ctx *ctx;
    struct rp_group *group;
    unsigned ran[MOST], dropped[MOST];
    int seen[MOST];
    bool looked[MOST];
    bool silent[MOST]; /* nobody is told if it is dropped */
    bool exits[MOST];  /* ends its thread */
    struct gate gate;
};
extern struct scene scene;

/* The number of the element: tasks and actors get a pointer into an array of the scene. */
#define NUMBER(arg) ((unsigned)((const unsigned *)(arg)-scene.ran))
#define ARG(i) (&scene.ran[i])

void scene_open(unsigned capacity, const struct rp_pool_options *options);
/* Nobody sleeps who should not, and the pool is at rest. */
void scene_settled(void);
void scene_close(void);

/* A future's function, of the element: runs once, and never after it was dropped. */
int plain(void *arg, void **value);
/* As an actor: runs the first future, if nobody else does. */
void run_first(void *arg);

#endif
