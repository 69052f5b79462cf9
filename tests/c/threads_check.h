/* What the C tests with threads share: starting them, and payloads that tell whether an object was
 * ever in two hands. */
#ifndef THREADS_CHECK_H
#define THREADS_CHECK_H

#include "check.h"

#include <pthread.h>
#include <stdatomic.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { SCALE = 1 };
#else
enum { SCALE = 4 };
#endif

static inline void start_threads(pthread_t *threads, unsigned count, void *(*body)(void *),
                                 void *arguments, size_t argument_size) {
    for (unsigned i = 0; i < count; i++) {
        EXPECT(pthread_create(&threads[i], NULL, body, (char *)arguments + i * argument_size) == 0);
    }
}

static inline void join_threads(pthread_t *threads, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        EXPECT(pthread_join(threads[i], NULL) == 0);
    }
}

/* Nothing is live, and after a trim nothing is taken. */
static inline void expect_all_free(struct bsa_root *root) {
    EXPECT_SOUND(root);
    bsa_trim(root);
    EXPECT_SOUND(root);
    EXPECT_EQUAL(0, bsa_live_count(root));
    EXPECT_EQUAL(bsa_total_pages(root), bsa_free_page_count(root));
    EXPECT_EQUAL(0, stats_of(root).overlaps);
}

/* --- payloads ----------------------------------------------------------------------------------
 */

/* Writes who owns the memory; is checked and wiped before it is freed. */
static inline void sign(uintptr_t address, size_t size, uint64_t mark) {
    memset((void *)address, (int)(mark & 0xff), size);
    if (size >= 16) {
        memcpy((void *)address, &mark, sizeof mark);
        memcpy((void *)(address + 8), &size, sizeof size);
    }
}

static inline void check_signed(uintptr_t address, size_t size, uint64_t mark) {
    const unsigned char *bytes = (const unsigned char *)address;

    if (size >= 16) {
        uint64_t found_mark;
        size_t found_size;

        memcpy(&found_mark, bytes, sizeof found_mark);
        memcpy(&found_size, bytes + 8, sizeof found_size);
        EXPECT_EQUAL(mark, found_mark);
        EXPECT_EQUAL(size, found_size);
    }
    for (size_t i = size >= 16 ? 16 : 0; i < size; i++) {
        EXPECT_EQUAL(mark & 0xff, bytes[i]);
    }
    memset((void *)address, 0xdd, size);
}

#endif
