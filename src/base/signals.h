/*
 * Which signals the library's own threads take.
 */
#ifndef BASE_SIGNALS_H
#define BASE_SIGNALS_H

#include <signal.h>

/*
 * Blocks for the calling thread, and so for those that it makes, what comes from outside: the user's signals are for
 * the user's threads. What a thread's own instruction raises stays open, so that a crash handler sees ours too. Until
 * signals_restore.
 */
void signals_block(sigset_t *before);
void signals_restore(const sigset_t *before);

#endif
