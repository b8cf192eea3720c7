/*
 * The model: coroutines instead of threads, and a scheduler that decides at every access of a shared word who goes on.
 *
 * Everything that happens in one schedule follows from its seed: whom the scheduler prefers, where it changes its mind,
 * when time passes, which waits end without cause, which threads cannot be made, how long a store stays in its buffer.
 * A violation prints the seed and ends the process; the same seed again gives the same interleaving.
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ringpool/pool.h>

#define FOREVER INT64_MAX

/* A violation of what must hold: reports and does not return. */
_Noreturn void violated(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define must(condition, ...)                                                                                           \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            violated(__VA_ARGS__);                                                                                     \
    } while (0)

/* --- choices ---------------------------------------------------------------------------------------------------- */

/* A number below n, by the seed. */
unsigned choose(unsigned n);
/* true once in n times. */
static inline bool chance(unsigned n)
{
    return choose(n) == 0;
}

/* --- actors ----------------------------------------------------------------------------------------------------- */

/* A thread of the scenario's own. It may begin at once or late; main waits for it in actors_join. */
void actor(const char *name, void (*run)(void *arg), void *arg);
void actors_join(void);

/*
 * Main sleeps until nobody else can go on: whatever was owed has happened, or never will. With `time`, sleeps that end
 * by themselves and timers count as going on; without, a wake-up that only a timer would make good counts as lost.
 */
void settle(bool time);
/* How many coroutines have not ended, without main and reactors. */
unsigned threads_left(void);

/* A door for tasks to wait at: outside of the library's own mechanisms, so that it hides nothing. */
struct gate {
    bool open;
};
void gate_wait(struct gate *gate);
void gate_open(struct gate *gate);
/* Gives the scheduler a turn, inside a task for example. */
void turn(const char *what);
int64_t model_now(void);
void model_sleep(int64_t ns);

/* --- what may fail, for this schedule ----------------------------------------------------------------------------- */

/* At most so many threads cannot be made (-EAGAIN), and allocations not be had; each call once in two. */
void fail_threads(unsigned most);
void fail_allocations(unsigned most);

/* --- shares, for this schedule ------------------------------------------------------------------------------------ */

/* Workers take `first` tasks at once where `depth` more are published behind them. */
void share_plan(unsigned first, unsigned depth);

/* --- memory ----------------------------------------------------------------------------------------------------- */

/* Freed memory of this allocator is poisoned and never given out again; an atomic access to it is a violation. */
extern const struct rp_allocator model_allocator;
/* Blocks that were not freed. */
unsigned blocks_left(void);

/* --- scenarios -------------------------------------------------------------------------------------------------- */

struct scenario {
    const char *name;
    const char *claim; /* what must hold */
    void (*run)(void);
};
extern const struct scenario *const scenario_lists[]; /* each ends with a name of NULL; the last list is NULL */

#endif
