/* Limits, compiler hints and assertion tiers of the core.
 *
 * The core is freestanding C11: these three string functions are all it expects from outside,
 * because compilers emit calls to them even in freestanding code. */
#ifndef BSA_CONFIG_H
#define BSA_CONFIG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *memset(void *to, int byte, size_t count);
void *memcpy(void *restrict to, const void *restrict from, size_t count);
void *memmove(void *to, const void *from, size_t count);

#define BSA_MIN_PAGE_SHIFT  8    /* 256 B: below it a page has no room for eight useful objects */
#define BSA_MAX_PAGE_SHIFT  21   /* 2 MiB */
#define BSA_MAX_OBJECTS     4096 /* 64 bitmap words, as many as the summary word has bits */
#define BSA_MAX_OBJECT_SIZE 32768
#define BSA_MAX_SLAB_ORDER  3
#define BSA_CACHE_LINE      64

#define BSA_LIKELY(condition)   __builtin_expect(!!(condition), 1)
#define BSA_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
/* Kept out of its callers, so that fast paths need not save registers for others; the second is
 * slow itself. */
#define BSA_APART     __attribute__((noinline))
#define BSA_SLOW_PATH __attribute__((noinline, cold))
/* Into which all is put that it calls and that is not kept apart, as far as the compiler sees it.
 */
#define BSA_FLAT __attribute__((flatten))
/* Put into its callers whatever the compiler thinks of its size. */
#define BSA_FAST_PATH inline __attribute__((always_inline))

/* Three tiers of assertions against our own mistakes; a caller's mistakes are status codes in every
 * build. BSA_DEBUG is 0 in a release, 1 for the cheap tier, 2 adds internal ones, 3 those that cost
 * more than the operation they guard. */
#ifndef BSA_DEBUG
#define BSA_DEBUG 0
#endif
#define BSA_ASSERT_TIER(tier, condition)                                                           \
    do {                                                                                           \
        if ((tier) <= BSA_DEBUG && !(condition)) {                                                 \
            __builtin_trap();                                                                      \
        }                                                                                          \
    } while (0)
#define BSA_ASSERT(condition)           BSA_ASSERT_TIER(1, condition)
#define BSA_ASSERT_INTERNAL(condition)  BSA_ASSERT_TIER(2, condition)
#define BSA_ASSERT_EXPENSIVE(condition) BSA_ASSERT_TIER(3, condition)

#endif
