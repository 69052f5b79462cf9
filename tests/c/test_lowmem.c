/* Pages below 4 GiB of physical memory: linear translation, translating functions, several
 * sections. */
#include "check.h"

#define PAGE    (4 * KIB)
#define LOW_END (4 * GIB)

/* A translation by function: physical = address - start + base, with holes, failures and side
 * effects. */
struct translation {
    struct bsa_root *root;
    uintptr_t start;       /* of the heap */
    uint64_t base;         /* physical address of `start` */
    size_t hole, hole_end; /* offsets within which pages are high */
    size_t broken;         /* offset of a page that has no translation; SIZE_MAX: none */
    unsigned calls, locks_held;
    uintptr_t taken[64]; /* pages that the function allocates while it is being called */
    unsigned taken_count, take;
    bool give;
};

static bool translate(void *context, uintptr_t address, uint64_t *physical) {
    struct translation *t = context;
    size_t offset = address - t->start;

    t->calls++;
    EXPECT_EQUAL(0, t->locks_held);
    if (offset == t->broken) {
        return false;
    }
    if (t->take > 0) {
        /* Takes the very page that is being asked about. */
        t->take--;
        EXPECT_OK(bsa_alloc_pages(t->root, 1, 0, 0, &t->taken[t->taken_count++]));
    } else if (t->give && t->taken_count > 0) {
        EXPECT_OK(bsa_free(t->root, t->taken[--t->taken_count]));
    }
    *physical = offset >= t->hole && offset < t->hole_end ? LOW_END : t->base + offset;
    return true;
}

static void count_lock(void *context, struct bsa_lock *lock) {
    (void)lock;
    ((struct translation *)context)->locks_held++;
}

static void count_unlock(void *context, struct bsa_lock *lock) {
    (void)lock;
    ((struct translation *)context)->locks_held--;
}

static struct heap heap_translated_by(struct translation *t, size_t size) {
    struct bsa_section_config config = {.physical = translate, .context = t};
    struct heap heap = heap_with_hooks(
        PAGE, 1, false,
        (struct bsa_hooks){.lock = count_lock, .unlock = count_unlock, .context = t});

    EXPECT_OK(bsa_add_region(heap.root, heap_memory(&heap, size, 1 * MIB, 0), size, &config, NULL));
    t->root = heap.root;
    t->start = section_info(heap.root, 0).start;
    t->broken = SIZE_MAX;
    return heap;
}

/* One section whose heap's first byte has this physical address. */
static struct heap heap_linear_at(size_t size, uint64_t physical_heap) {
    struct heap heap = heap_without_sections(PAGE, 1);
    void *region = heap_memory(&heap, size, 1 * MIB, 0);
    struct bsa_section_config config = {.physical_is_linear = true};

    EXPECT_OK(
        bsa_add_region(heap.root, region, size, &config, NULL)); /* to learn the heap's place */
    config.physical_base = physical_heap - (section_info(heap.root, 0).start - (uintptr_t)region);
    EXPECT_OK(bsa_remove_region(heap.root, 0));
    EXPECT_OK(bsa_add_region(heap.root, region, size, &config, NULL));
    return heap;
}

static unsigned take_all_low(struct bsa_root *root, uintptr_t *pages) {
    unsigned count = 0;

    while (bsa_alloc_pages_lowmem(root, 1, 0, &pages[count]) == BSA_OK) {
        count++;
    }
    return count;
}

/* --- linear ------------------------------------------------------------------------------------
 */

static void a_heap_across_4_gib_gives_exactly_the_pages_below(void) {
    for (unsigned below = 0; below <= 256; below += below < 4 ? 1 : 63) {
        struct heap heap = heap_linear_at(1 * MIB + 128 * KIB, LOW_END - below * PAGE);
        uintptr_t pages[400], start = section_info(heap.root, 0).start;
        uint64_t free_pages = bsa_free_page_count(heap.root);
        unsigned expected = below < free_pages ? below : (unsigned)free_pages;
        unsigned count = take_all_low(heap.root, pages);

        EXPECT_EQUAL(expected, count);
        EXPECT_EQUAL(free_pages - expected, bsa_free_page_count(heap.root));
        EXPECT_SOUND(heap.root);
        for (unsigned i = 0; i < count; i++) {
            EXPECT(pages[i] - start < below * PAGE);
            EXPECT_OK(bsa_free_pages(heap.root, pages[i], 1));
        }
        heap_close(&heap);
    }
}

static void a_block_may_end_at_4_gib_and_not_one_byte_later(void) {
    struct heap heap = heap_linear_at(1 * MIB, LOW_END - 16 * PAGE);
    struct heap later = heap_linear_at(1 * MIB, LOW_END - 16 * PAGE + 1);
    uintptr_t pages[300];

    EXPECT_EQUAL(16, take_all_low(heap.root, pages));
    EXPECT_EQUAL(15, take_all_low(later.root, pages));
    heap_close(&heap);
    heap_close(&later);
}

static void the_sub_block_counts_and_not_the_free_block_it_comes_from(void) {
    struct heap heap = heap_linear_at(16 * MIB, LOW_END - 5 * PAGE);
    struct bsa_section_info info = section_info(heap.root, 0);
    uint64_t largest = 0;
    uintptr_t address;

    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        largest = info.free_blocks[order] != 0 ? order : largest;
    }
    EXPECT(largest >= 9); /* the low pages are a small part of their blocks */
    EXPECT_OK(bsa_alloc_pages_lowmem(heap.root, 1, 0, &address));
    EXPECT_OK(bsa_free(heap.root, address));
    for (unsigned i = 0; i < 5; i++) {
        EXPECT_OK(bsa_alloc_pages_lowmem(heap.root, 1, 0, &address));
        EXPECT(address - info.start < 5 * PAGE);
    }
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc_pages_lowmem(heap.root, 1, 0, &address));
    EXPECT_OK(bsa_alloc_pages(heap.root, 1, 0, 0, &address));
    EXPECT(address - info.start >= 5 * PAGE);
    heap_close(&heap);
}

static void an_alignment_is_kept_below_4_gib(void) {
    struct heap heap = heap_linear_at(4 * MIB, LOW_END - 300 * PAGE);
    uintptr_t start = section_info(heap.root, 0).start, address;

    for (size_t count = 1; count <= 16; count *= 2) {
        for (size_t align = PAGE; align <= 256 * KIB; align *= 2) {
            EXPECT_OK(bsa_alloc_pages_lowmem(heap.root, count, align, &address));
            EXPECT_EQUAL(0, address % align);
            EXPECT(address + count * PAGE <= start + 300 * PAGE);
            EXPECT_OK(bsa_free_pages(heap.root, address, count));
        }
    }
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_pages_lowmem(heap.root, 1, (size_t)1 << 42, &address));
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_pages_lowmem(heap.root, 1, (size_t)1 << 63, &address));
    heap_close(&heap);
}

/* Any naturally aligned block of the size inside the low pages and all free. */
static void a_low_block_is_found_if_there_is_one(void) {
    uint64_t seed = 21;
    unsigned answers[2] = {0, 0};

    for (int round = 0; round < 40; round++) {
        unsigned below = 3 + random_below(&seed, 120);
        struct heap heap = heap_linear_at(1 * MIB, LOW_END - below * PAGE);
        struct bsa_section_info info = section_info(heap.root, 0);
        unsigned char states[256];
        uintptr_t pages[256];
        unsigned count = 0;

        while (bsa_alloc_pages(heap.root, 1, 0, 0, &pages[count]) == BSA_OK) {
            count++;
        }
        for (unsigned i = 0; i < count; i++) {
            if (random_below(&seed, 3) != 0) {
                EXPECT_OK(bsa_free(heap.root, pages[i]));
            }
        }
        EXPECT_OK(bsa_page_states(heap.root, 0, states));
        for (unsigned order = 0; order < 5; order++) {
            bool expected = false;
            uintptr_t address;
            bsa_status status;

            for (uint32_t page = 0; page + (1U << order) <= below; page++) {
                bool suits = (info.start / PAGE + page) % (1U << order) == 0;

                for (uint32_t k = 0; suits && k < 1U << order; k++) {
                    suits = page + k < info.total_pages && states[page + k] == BSA_PAGE_FREE;
                }
                expected = expected || suits;
            }
            status = bsa_alloc_pages_lowmem(heap.root, (size_t)1 << order, 0, &address);
            EXPECT_EQUAL(expected ? BSA_OK : BSA_NO_MEMORY, status);
            answers[expected]++;
            if (status == BSA_OK) {
                EXPECT_OK(bsa_free(heap.root, address));
            }
        }
        heap_close(&heap);
    }
    EXPECT(answers[0] > 20 && answers[1] > 20);
}

static void addresses_are_physical_where_nothing_else_is_said(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    bool high = section_info(heap.root, 0).start >= LOW_END;
    uintptr_t address;

    EXPECT_EQUAL(high ? BSA_NO_MEMORY : BSA_OK, bsa_alloc_pages_lowmem(heap.root, 1, 0, &address));
    heap_close(&heap);
}

static void sections_are_searched_in_turn(void) {
    struct heap heap = heap_linear_at(256 * KIB, LOW_END);
    struct bsa_section_config low = {.physical_is_linear = true, .physical_base = 1 * MIB};
    struct bsa_section_info third;
    uintptr_t pages[64], address;
    unsigned count;

    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_pages_lowmem(heap.root, 1, 0, &address));
    heap_add(&heap, 128 * KIB, PAGE, 0); /* by its addresses: high */
    EXPECT_OK(
        bsa_add_region(heap.root, heap_memory(&heap, 96 * KIB, PAGE, 0), 96 * KIB, &low, NULL));
    third = section_info(heap.root, 2);
    if (section_info(heap.root, 1).start >= LOW_END) {
        count = take_all_low(heap.root, pages);
        EXPECT_EQUAL(third.total_pages, count);
        for (unsigned i = 0; i < count; i++) {
            EXPECT(pages[i] >= third.start && pages[i] < third.start + third.size);
        }
    }
    heap_close(&heap);
}

static void low_memory_recovers_from_fragmentation(void) {
    struct heap heap = heap_linear_at(2 * MIB, 16 * MIB);
    uintptr_t pages[512], address;
    unsigned count = take_all_low(heap.root, pages);

    EXPECT_EQUAL(section_info(heap.root, 0).total_pages, count);
    qsort(pages, count, sizeof pages[0], compare_addresses);
    for (unsigned i = 0; i < count; i += 2) {
        EXPECT_OK(bsa_free_pages(heap.root, pages[i], 1));
    }
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_pages_lowmem(heap.root, 2, 2 * PAGE, &address));
    for (unsigned i = 1; i < count; i += 2) {
        EXPECT_OK(bsa_free_pages(heap.root, pages[i], 1));
    }
    EXPECT_OK(bsa_alloc_pages_lowmem(heap.root, 2, 2 * PAGE, &address));
    EXPECT_OK(bsa_free_pages(heap.root, address, 2));
    heap_close(&heap);
}

static void empty_slabs_are_given_back_before_a_low_request_fails(void) {
    struct heap heap = heap_linear_at(128 * KIB, 1 * MIB);
    uintptr_t pages[64], object = must_alloc(heap.root, 0, 50);
    unsigned in_use = (unsigned)(stats_of(heap.root).allocated_bytes / PAGE);

    EXPECT_OK(bsa_free(heap.root, object));
    EXPECT(in_use >= 1);
    EXPECT_EQUAL(section_info(heap.root, 0).total_pages, take_all_low(heap.root, pages));
    heap_close(&heap);
}

static void the_limit_bounds_low_requests(void) {
    struct heap heap = heap_linear_at(1 * MIB, 16 * MIB);
    uintptr_t address;

    bsa_set_limit(heap.root, 5 * PAGE);
    EXPECT_OK(bsa_alloc_pages_lowmem(heap.root, 4, 0, &address));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc_pages_lowmem(heap.root, 2, 0, &address));
    EXPECT_OK(bsa_alloc_pages_lowmem(heap.root, 1, 0, &address));
    heap_close(&heap);
}

static void a_physical_base_that_wraps_is_refused(void) {
    struct heap heap = heap_without_sections(PAGE, 1);
    unsigned char *region = heap_memory(&heap, 128 * KIB, PAGE, 0);
    struct bsa_section_config config = {.physical_is_linear = true,
                                        .physical_base = UINT64_MAX - 64 * KIB};

    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_add_region(heap.root, region, 128 * KIB, &config, NULL));
    EXPECT_EQUAL(0xa5, region[0]);
    EXPECT_OK(bsa_add_region(heap.root, region, 128 * KIB, NULL, NULL));
    EXPECT_OK(bsa_remove_region(heap.root, 0));
    EXPECT_STATUS(BSA_INVALID_PARAM,
                  bsa_attach_region(heap.root, region, 128 * KIB, &config, NULL));
    EXPECT_EQUAL(0, bsa_section_count(heap.root));
    heap_close(&heap);
}

/* --- functions ---------------------------------------------------------------------------------
 */

static void a_function_may_have_holes(void) {
    struct translation t = {.hole = 3 * PAGE, .hole_end = 40 * PAGE};
    struct heap heap = heap_translated_by(&t, 512 * KIB);
    uintptr_t pages[128];
    unsigned count = take_all_low(heap.root, pages);

    EXPECT_EQUAL(section_info(heap.root, 0).total_pages - 37, count);
    for (unsigned i = 0; i < count; i++) {
        EXPECT(pages[i] - t.start < 3 * PAGE || pages[i] - t.start >= 40 * PAGE);
    }
    EXPECT_EQUAL(0, t.locks_held);
    heap_close(&heap);
}

static void a_function_that_fails_fails_the_request_and_nothing_changes(void) {
    struct translation t = {.hole = 0, .hole_end = 10 * PAGE};
    struct heap heap = heap_translated_by(&t, 512 * KIB);
    uintptr_t address;

    t.broken = 6 * PAGE;
    EXPECT_REFUSED(BSA_NO_TRANSLATION, heap.root,
                   bsa_alloc_pages_lowmem(heap.root, 1, 0, &address));
    EXPECT_REFUSED(BSA_NO_TRANSLATION, heap.root,
                   bsa_alloc_pages_lowmem(heap.root, 2, 0, &address));
    t.broken = SIZE_MAX;
    EXPECT_OK(bsa_alloc_pages_lowmem(heap.root, 1, 0, &address));
    heap_close(&heap);
}

static void a_function_that_fails_ends_the_search_in_all_sections(void) {
    struct translation t = {.hole = 0};
    struct heap heap = heap_translated_by(&t, 512 * KIB);
    struct bsa_section_config low = {.physical_is_linear = true, .physical_base = 1 * MIB};
    uintptr_t address;

    EXPECT_OK(
        bsa_add_region(heap.root, heap_memory(&heap, 96 * KIB, PAGE, 0), 96 * KIB, &low, NULL));
    t.broken = 0;
    EXPECT_REFUSED(BSA_NO_TRANSLATION, heap.root,
                   bsa_alloc_pages_lowmem(heap.root, 1, 0, &address));
    heap_close(&heap);
}

static void a_function_is_asked_only_about_pages_that_could_serve(void) {
    struct translation t = {.hole = 0};
    struct heap heap = heap_translated_by(&t, 512 * KIB);
    uintptr_t pages[128], address;
    unsigned count = take_all_low(heap.root, pages), held = 0;

    qsort(pages, count, sizeof pages[0], compare_addresses);
    for (unsigned i = 0; i < count; i++) {
        if (pages[i] / PAGE % 2 == 0) {
            EXPECT_OK(bsa_free(heap.root, pages[i]));
        } else {
            pages[held++] = pages[i];
        }
    }
    t.calls = 0;
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_pages_lowmem(heap.root, 2, 0, &address));
    EXPECT_EQUAL(0, t.calls);
    while (held > 0) {
        EXPECT_OK(bsa_free(heap.root, pages[--held]));
    }
    heap_close(&heap);
}

static void a_function_is_asked_in_low_memory_requests_only(void) {
    struct translation t = {.hole = 0};
    struct heap heap = heap_translated_by(&t, 512 * KIB);
    uintptr_t address, object;

    EXPECT_OK(bsa_alloc_pages(heap.root, 3, 0, 0, &address));
    object = must_alloc(heap.root, 0, 100);
    EXPECT_OK(bsa_realloc(heap.root, address, 8 * PAGE, &address));
    EXPECT_OK(bsa_free(heap.root, address));
    EXPECT_OK(bsa_free(heap.root, object));
    bsa_trim(heap.root);
    EXPECT_EQUAL(0, t.calls);
    EXPECT_OK(bsa_alloc_pages_lowmem(heap.root, 1, 0, &address));
    EXPECT(t.calls > 0);
    heap_close(&heap);
}

static void a_candidate_that_the_function_itself_takes_is_not_handed_out_twice(void) {
    struct translation t = {.take = 7};
    struct heap heap = heap_translated_by(&t, 512 * KIB);
    uintptr_t address;

    EXPECT_OK(bsa_alloc_pages_lowmem(heap.root, 1, 0, &address));
    EXPECT_EQUAL(7, t.taken_count);
    for (unsigned i = 0; i < 7; i++) {
        EXPECT(t.taken[i] != address);
    }
    EXPECT_EQUAL(8 * PAGE, stats_of(heap.root).allocated_bytes);
    EXPECT_SOUND(heap.root);
    /* And one that frees meanwhile. */
    t.give = true;
    EXPECT_OK(bsa_alloc_pages_lowmem(heap.root, 4, 0, &address));
    EXPECT_SOUND(heap.root);
    EXPECT_EQUAL((1 + t.taken_count + 4) * PAGE, stats_of(heap.root).allocated_bytes);
    heap_close(&heap);
}

static void a_function_that_takes_everything_leaves_nothing_to_hand_out(void) {
    struct translation t = {.take = 60};
    struct heap heap = heap_translated_by(&t, 192 * KIB);
    uintptr_t address;
    uint32_t pages = section_info(heap.root, 0).total_pages;

    EXPECT(pages <= 60);
    t.take = pages;
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_pages_lowmem(heap.root, 1, 0, &address));
    EXPECT_EQUAL(pages, t.taken_count);
    EXPECT_EQUAL(0, bsa_free_page_count(heap.root));
    heap_close(&heap);
}

int main(void) {
    RUN(a_heap_across_4_gib_gives_exactly_the_pages_below);
    RUN(a_block_may_end_at_4_gib_and_not_one_byte_later);
    RUN(the_sub_block_counts_and_not_the_free_block_it_comes_from);
    RUN(an_alignment_is_kept_below_4_gib);
    RUN(a_low_block_is_found_if_there_is_one);
    RUN(addresses_are_physical_where_nothing_else_is_said);
    RUN(sections_are_searched_in_turn);
    RUN(low_memory_recovers_from_fragmentation);
    RUN(empty_slabs_are_given_back_before_a_low_request_fails);
    RUN(the_limit_bounds_low_requests);
    RUN(a_physical_base_that_wraps_is_refused);
    RUN(a_function_may_have_holes);
    RUN(a_function_that_fails_fails_the_request_and_nothing_changes);
    RUN(a_function_that_fails_ends_the_search_in_all_sections);
    RUN(a_function_is_asked_only_about_pages_that_could_serve);
    RUN(a_function_is_asked_in_low_memory_requests_only);
    RUN(a_candidate_that_the_function_itself_takes_is_not_handed_out_twice);
    RUN(a_function_that_takes_everything_leaves_nothing_to_hand_out);
    return 0;
}
