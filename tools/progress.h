/*
 * A progress bar: one line on stderr, redrawn at most ten times a second, and only if stderr is a terminal that
 * understands it. It leaves nothing behind in the terminal: no mode is changed, and clearing removes the line.
 */
#ifndef RINGPOOL_TOOLS_PROGRESS_H
#define RINGPOOL_TOOLS_PROGRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* All but `done` belongs to the thread that draws. */
struct progress {
    bool shown; /* there is a terminal */
    bool drawn; /* the line is on it now */
    const char *phase;
    uint64_t total; /* bytes; 0: unknown, a count is shown instead of a bar */
    int64_t next;   /* when to draw again */
    atomic_uint_fast64_t done;
};

void progress_init(struct progress *progress);

/* Begins a phase. phase must outlive it. */
void progress_phase(struct progress *progress, const char *phase, uint64_t total);

/* Any thread. Relaxed: nothing but the drawing depends on the sum. */
static inline void progress_add(struct progress *progress, uint64_t n)
{
    atomic_fetch_add_explicit(&progress->done, n, memory_order_relaxed);
}

/* Draws if it is time to. */
void progress_show(struct progress *progress);

/* Removes the line, before anything else is written to the terminal. */
void progress_clear(struct progress *progress);

#endif
