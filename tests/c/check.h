/* What the C tests share: expectations, heaps over fresh memory, snapshots, a random number
 * generator.
 *
 * A test is a function whose name is a true sentence. A snapshot holds everything that a caller can
 * see of a heap, with addresses counted from the heap's start, so that two of them tell whether
 * anything changed. */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bsa.h"

#define KIB ((size_t)1024)
#define MIB ((size_t)1024 * 1024)
#define GIB ((size_t)1024 * 1024 * 1024)

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* --- expectations ------------------------------------------------------------------------------
 */

static const char *current_test = "before the first test";

static inline _Noreturn void fail(const char *file, int line, const char *format, ...) {
    va_list arguments;

    fprintf(stderr, "%s:%d: %s: ", file, line, current_test);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fail(__FILE__, __LINE__, "not so: %s", #condition);                                    \
        }                                                                                          \
    } while (0)

#define EXPECT_EQUAL(expected, actual)                                                             \
    do {                                                                                           \
        uint64_t expected_ = (uint64_t)(expected), actual_ = (uint64_t)(actual);                   \
        if (expected_ != actual_) {                                                                \
            fail(__FILE__, __LINE__, "%s is %llu, not %llu", #actual, (unsigned long long)actual_, \
                 (unsigned long long)expected_);                                                   \
        }                                                                                          \
    } while (0)

#define EXPECT_STATUS(expected, call)                                                              \
    do {                                                                                           \
        bsa_status expected_ = (expected), actual_ = (call);                                       \
        if (expected_ != actual_) {                                                                \
            fail(__FILE__, __LINE__, "%s: %s, not %s", #call, bsa_status_text(actual_),            \
                 bsa_status_text(expected_));                                                      \
        }                                                                                          \
    } while (0)

#define EXPECT_OK(call) EXPECT_STATUS(BSA_OK, call)

#define EXPECT_SOUND(root)                                                                         \
    do {                                                                                           \
        struct bsa_violation violation_ = {"?", 0, 0};                                             \
        if (bsa_check(root, &violation_) != BSA_OK) {                                              \
            fail(__FILE__, __LINE__, "violated in section %u, page %u: %s", violation_.section,    \
                 violation_.page, violation_.invariant);                                           \
        }                                                                                          \
    } while (0)

/* The call is refused with this status, and nothing has changed. */
#define EXPECT_REFUSED(expected, root, call)                                                       \
    do {                                                                                           \
        struct snapshot before_ = snapshot_of(root, EVERYTHING);                                   \
        EXPECT_STATUS(expected, call);                                                             \
        EXPECT(snapshot_still_holds(&before_, root));                                              \
        EXPECT_SOUND(root);                                                                        \
    } while (0)

/* Names the test first: whatever ends the program, its last word tells which test it was in. */
#define RUN(test)                                                                                  \
    do {                                                                                           \
        current_test = #test;                                                                      \
        fprintf(stderr, "%s\n", current_test);                                                     \
        test();                                                                                    \
    } while (0)

/* A test that shows a defect still there: run once BSA_TEST_DEFECTS is defined. */
#ifdef BSA_TEST_DEFECTS
#define RUN_WHEN_FIXED(test) RUN(test)
#else
#define RUN_WHEN_FIXED(test) (void)test
#endif

/* --- random numbers ----------------------------------------------------------------------------
 */

/* xorshift64 (Marsaglia 2003). */
static inline uint64_t random_next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline unsigned random_below(uint64_t *state, unsigned bound) {
    return (unsigned)((random_next(state) >> 20) % bound);
}

/* --- heaps -------------------------------------------------------------------------------------
 */

enum { MOST_REGIONS = 400 };

struct heap {
    struct bsa_root *root;
    void *root_memory;
    unsigned regions;
    void *region[MOST_REGIONS];
};

static inline void *aligned_memory(size_t alignment, size_t size) {
    void *memory = NULL;

    if (posix_memalign(&memory, alignment, size) != 0) {
        fail(__FILE__, __LINE__, "the test itself is out of memory");
    }
    return memory;
}

/* `size` bytes that start `offset` bytes after a multiple of `alignment`, filled with rubbish. */
static inline void *heap_memory(struct heap *heap, size_t size, size_t alignment, size_t offset) {
    unsigned char *raw = aligned_memory(alignment, size + offset);

    EXPECT(heap->regions < MOST_REGIONS);
    heap->region[heap->regions++] = raw;
    memset(raw + offset, 0xa5, size);
    return raw + offset;
}

static inline struct heap heap_with_hooks(size_t page_size, unsigned slots, bool serial,
                                          struct bsa_hooks hooks) {
    struct heap heap = {.root_memory = aligned_memory(64, bsa_root_size(slots))};
    struct bsa_config config = {page_size, slots, serial, hooks};

    EXPECT_OK(bsa_init(heap.root_memory, bsa_root_size(slots), &config, &heap.root));
    return heap;
}

/* A root without sections. */
static inline struct heap heap_without_sections(size_t page_size, unsigned slots) {
    return heap_with_hooks(page_size, slots, false, (struct bsa_hooks){0});
}

static inline unsigned heap_add(struct heap *heap, size_t size, size_t alignment, size_t offset) {
    unsigned index = 0;

    EXPECT_OK(
        bsa_add_region(heap->root, heap_memory(heap, size, alignment, offset), size, NULL, &index));
    return index;
}

/* One section of 4 KiB pages in `size` bytes. */
static inline struct heap heap_of(size_t size, unsigned slots) {
    struct heap heap = heap_without_sections(4 * KIB, slots);

    heap_add(&heap, size, 64 * KIB, 0);
    return heap;
}

static inline struct heap serial_heap_of(size_t size, unsigned slots) {
    struct heap heap = heap_with_hooks(4 * KIB, slots, true, (struct bsa_hooks){0});

    heap_add(&heap, size, 64 * KIB, 0);
    return heap;
}

/* Every test ends with a sound heap. */
static inline void heap_close(struct heap *heap) {
    EXPECT_SOUND(heap->root);
    for (unsigned i = 0; i < heap->regions; i++) {
        free(heap->region[i]);
    }
    free(heap->root_memory);
}

static inline struct bsa_section_info section_info(const struct bsa_root *root, unsigned index) {
    struct bsa_section_info info;

    EXPECT_OK(bsa_section_info(root, index, &info));
    return info;
}

static inline struct bsa_stats stats_of(const struct bsa_root *root) {
    struct bsa_stats stats;

    bsa_stats(root, &stats);
    return stats;
}

static inline struct bsa_slab_info slab_of(const struct bsa_root *root, uintptr_t address) {
    struct bsa_slab_info info;

    EXPECT_OK(bsa_slab_of(root, address, &info));
    return info;
}

static inline uintptr_t must_alloc(struct bsa_root *root, unsigned slot, size_t size) {
    uintptr_t address = 0;

    EXPECT_OK(bsa_alloc_on(root, slot, size, 0, 0, &address));
    EXPECT(address != 0);
    return address;
}

static inline uintptr_t must_alloc_pages(struct bsa_root *root, size_t count) {
    uintptr_t address = 0;

    EXPECT_OK(bsa_alloc_pages(root, count, 0, 0, &address));
    EXPECT(address != 0);
    return address;
}

/* --- snapshots ---------------------------------------------------------------------------------
 */

enum snapshot_kind {
    THE_TRUTH, /* live allocations and free blocks */
    EVERYTHING /* the order of the free lists, slabs and statistics as well */
};

struct snapshot {
    enum snapshot_kind kind;
    size_t count, room;
    uint64_t *values;
    const struct bsa_root *root; /* while it is being taken */
};

static inline void snapshot_put(struct snapshot *snapshot, uint64_t value) {
    if (snapshot->count == snapshot->room) {
        snapshot->room = snapshot->room == 0 ? 256 : 2 * snapshot->room;
        snapshot->values = realloc(snapshot->values, snapshot->room * sizeof *snapshot->values);
        EXPECT(snapshot->values != NULL);
    }
    snapshot->values[snapshot->count++] = value;
}

static inline uint64_t from_heap_start(const struct bsa_root *root, uintptr_t address) {
    unsigned index = 0;

    EXPECT_OK(bsa_section_of(root, address, &index));
    return address - section_info(root, index).start;
}

static inline bool snapshot_allocation(void *context, const struct bsa_allocation *found) {
    struct snapshot *snapshot = context;

    snapshot_put(snapshot, found->section);
    snapshot_put(snapshot, from_heap_start(snapshot->root, found->address));
    snapshot_put(snapshot, found->usable_size);
    snapshot_put(snapshot, found->requested_size);
    snapshot_put(snapshot, found->kind);
    snapshot_put(snapshot, found->slot);
    return true;
}

static inline bool snapshot_slab(void *context, const struct bsa_slab_info *slab) {
    struct snapshot *snapshot = context;

    snapshot_put(snapshot, from_heap_start(snapshot->root, slab->base));
    snapshot_put(snapshot, slab->free_count);
    snapshot_put(snapshot, slab->remote_free_count);
    snapshot_put(snapshot, slab->state);
    return true;
}

static inline int compare_addresses(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;

    return (x > y) - (x < y);
}

static inline void snapshot_free_blocks(struct snapshot *snapshot, unsigned section) {
    uintptr_t start = section_info(snapshot->root, section).start;

    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        size_t count = bsa_free_list(snapshot->root, section, order, NULL, 0);
        uintptr_t *blocks = calloc(count + 1, sizeof *blocks);

        EXPECT(blocks != NULL);
        EXPECT_EQUAL(count, bsa_free_list(snapshot->root, section, order, blocks, count));
        if (snapshot->kind == THE_TRUTH) {
            qsort(blocks, count, sizeof *blocks, compare_addresses);
        }
        snapshot_put(snapshot, count);
        for (size_t i = 0; i < count; i++) {
            snapshot_put(snapshot, blocks[i] - start);
        }
        free(blocks);
    }
}

static inline struct snapshot snapshot_of(const struct bsa_root *root, enum snapshot_kind kind) {
    struct snapshot snapshot = {kind, 0, 0, NULL, root};
    unsigned sections = bsa_section_count(root);
    struct bsa_stats stats = stats_of(root);

    snapshot_put(&snapshot, sections);
    for (unsigned i = 0; i < sections; i++) {
        snapshot_put(&snapshot, section_info(root, i).free_pages);
        snapshot_free_blocks(&snapshot, i);
    }
    bsa_walk(root, snapshot_allocation, &snapshot);
    if (kind == EVERYTHING) {
        bsa_walk_slabs(root, snapshot_slab, &snapshot);
        snapshot_put(&snapshot, stats.current_count);
        snapshot_put(&snapshot, stats.current_bytes);
        snapshot_put(&snapshot, stats.requested_bytes);
        snapshot_put(&snapshot, stats.allocated_bytes);
        snapshot_put(&snapshot, stats.overlaps);
    }
    return snapshot;
}

static inline void snapshot_drop(struct snapshot *snapshot) {
    free(snapshot->values);
    snapshot->values = NULL;
}

static inline bool snapshots_agree(const struct snapshot *a, const struct snapshot *b) {
    return a->count == b->count && memcmp(a->values, b->values, a->count * sizeof *a->values) == 0;
}

/* Whether the heap looks as it did; ends the snapshot. */
static inline bool snapshot_still_holds(struct snapshot *before, const struct bsa_root *root) {
    struct snapshot now = snapshot_of(root, before->kind);
    bool same = snapshots_agree(before, &now);

    snapshot_drop(&now);
    snapshot_drop(before);
    return same;
}

#endif
