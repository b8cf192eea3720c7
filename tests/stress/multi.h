/* `stress multi`: see multi.c. */
#ifndef TESTS_STRESS_MULTI_H
#define TESTS_STRESS_MULTI_H

int stress_multi(int argc, char **argv);

#endif
