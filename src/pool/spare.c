/*
 * How a thread's list of spare futures begins and ends; spare.h says what it is for.
 */
#include "pool/spare.h"

#include "base/alloc.h"
#include "pool/future.h"

#include <pthread.h>

static struct spare bottom;                       /* of each list; never written */
static struct spare closed = {NULL, SPARES_MOST}; /* the list of a thread that ends; never written */
_Thread_local struct spare *spares;

static _Atomic uint64_t key_word; /* the key, and MADE */
#define MADE (UINT64_C(1) << 32)

/* The end of a thread. */
static void end(void *unused)
{
    struct spare *spare;

    (void)unused;
    while ((spare = spare_take()))
        alloc_free_aligned(&alloc_libc, caa_container_of(spare, struct rp_future, spare));
    spares = &closed;
}

/* Without a lock, which a fork beside it would leave taken in the child. */
static bool key_get(pthread_key_t *key)
{
    uint64_t word = load_acquire(&key_word); /* pairs with the CAS */

    if (!word) {
        if (pthread_key_create(key, end))
            return false;
        if (cas_seq(&key_word, &word, *key | MADE))
            return true;
        pthread_key_delete(*key); /* another thread was first */
    }
    *key = (pthread_key_t)word;
    return true;
}

bool spare_begin(void)
{
    pthread_key_t key;

    if (spares || !key_get(&key) || pthread_setspecific(key, &bottom))
        return false;
    spares = &bottom;
    return true;
}
