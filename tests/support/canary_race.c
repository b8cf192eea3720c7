/*
 * The canary of the ThreadSanitizer build: two threads write one plain word. See canary_memory.c.
 */
#include <criterion/criterion.h>
#include <pthread.h>

static volatile int word; /* volatile: the writes stay as many as they are */

/* Often, as ThreadSanitizer may miss a race of two accesses in the very same moment. */
static void write_often(void)
{
    for (int i = 0; i < 10000; i++)
        word++;
}

static void *write_word(void *arg)
{
    write_often();
    return arg;
}

Test(canary, race)
{
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, write_word, NULL), 0);
    write_often();
    pthread_join(thread, NULL);
}
