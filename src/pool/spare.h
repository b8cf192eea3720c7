/*
 * Spare futures: a thread keeps a few that it has done with, and takes them for the next ones that it makes. Only such
 * as say nothing beyond a function and its argument, in malloc's memory: all but what each one sets is in them already.
 * So a round trip by a future, which as a rule is made and destroyed by one thread, takes no memory, and writes a dozen
 * words instead of fifty. Those whose owner has given them up before they end are freed by whoever ends them: workers
 * keep none.
 *
 * The list is the thread's own, and nobody else's: no word of it is shared. It goes when the thread ends, and what is
 * destroyed after that, by other destructors of thread-specific data, is freed. The forked child of a thread keeps its
 * list; those of threads that it does not have are lost to it, as all that stood in their stacks.
 */
#ifndef POOL_SPARE_H
#define POOL_SPARE_H

#include <stdbool.h>
#include <stddef.h>

#define SPARES_MOST 16 /* 10 KiB a thread */

/* In each future; of the thread that keeps it. */
struct spare {
    struct spare *next; /* NULL: this is none, but the end of the list */
    unsigned n;         /* with it and those behind it */
};

extern _Thread_local struct spare *spares; /* the list; NULL: the thread has kept none yet */

/* The rest of spare_keep: whether the thread may keep any; then its list is empty. */
bool spare_begin(void);

/* Of one as its last use left it, or NULL. */
static inline struct spare *spare_take(void)
{
    struct spare *first = spares;

    if (!first || !first->next)
        return NULL;
    spares = first->next;
    return first;
}

/* Nobody has it any more. false: it is to be freed. */
static inline bool spare_keep(struct spare *spare)
{
    if ((!spares || spares->n >= SPARES_MOST) && !spare_begin())
        return false;
    spare->next = spares;
    spare->n = spares->n + 1;
    spares = spare;
    return true;
}

#endif
