/*
 * The canary of the ThreadSanitizer build: two threads write one plain word. See canary_memory.c.
 */
#include <criterion/criterion.h>
#include <pthread.h>

static int word;

static void *write_word(void *arg)
{
    word++;
    return arg;
}

Test(canary, race)
{
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, write_word, NULL), 0);
    word++;
    pthread_join(thread, NULL);
}
