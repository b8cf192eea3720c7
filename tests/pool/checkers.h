/*
 * Which checker the tests were built for: some things cannot be done under one.
 */
#ifndef TESTS_POOL_CHECKERS_H
#define TESTS_POOL_CHECKERS_H

#if defined(__has_feature)
#define BUILT_WITH(sanitizer) __has_feature(sanitizer)
#else
#define BUILT_WITH(sanitizer) 0
#endif
#if defined(__SANITIZE_THREAD__) || BUILT_WITH(thread_sanitizer)
#define UNDER_TSAN true
#else
#define UNDER_TSAN false
#endif
#if defined(__SANITIZE_ADDRESS__) || BUILT_WITH(address_sanitizer)
#define UNDER_ASAN true
#else
#define UNDER_ASAN false
#endif

#endif
