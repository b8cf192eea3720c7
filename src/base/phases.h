/*
 * Grace periods for readers that are not registered: threads for which liburcu's registry could not be had, or not yet.
 * A part of rcu.h, which alone uses it. A section costs an atomic operation on a word that all such readers share: for
 * the few, and the rare.
 */
#ifndef BASE_PHASES_H
#define BASE_PHASES_H

#include <stdbool.h>

/* Bracket a section of the calling thread. Sections nest; nothing inside may sleep. */
void phases_enter(void);
void phases_exit(void);

/* Whether the calling thread is in one. async-signal-safe. */
bool phases_inside(void);

/* Waits until all sections that run now have ended, on a futex. The caller is in none. */
void phases_wait(void);

/* For rcu.c: no wait is under way between prepare and parent or child. */
void phases_fork_prepare(void);
void phases_fork_parent(void);
void phases_fork_child(void);

#endif
