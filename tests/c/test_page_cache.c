/* Page caches: what they keep, that they count as free everywhere, when they are merged, what they
 * refuse, and that check tells when they are damaged. */
#include "check.h"

#include "root.h" /* to tell the page lock from the slots', and to damage caches */

#define PAGE (4 * KIB)

enum { MANY = 300 };

/* Locks taken, by what they guard. */
struct locks {
    struct bsa_root *root;
    unsigned pages, slots;
};

static void on_lock(void *context, struct bsa_lock *lock) {
    struct locks *locks = context;

    if (locks->root != NULL && lock == &locks->root->page_lock) {
        locks->pages++;
    } else {
        locks->slots++;
    }
}

static void on_unlock(void *context, struct bsa_lock *lock) {
    (void)context, (void)lock;
}

/* Two slots, both attached to this thread. */
static struct heap attached_heap(size_t size) {
    struct heap heap = heap_of(size, 2);

    EXPECT_OK(bsa_slot_attach(heap.root, 0));
    EXPECT_OK(bsa_slot_attach(heap.root, 1));
    return heap;
}

static uintptr_t take(struct bsa_root *root, unsigned slot, size_t count) {
    uintptr_t address = 0;

    EXPECT_OK(bsa_alloc_pages_on(root, slot, count, 0, 0, &address));
    return address;
}

static enum bsa_page_state state_of_page(const struct bsa_root *root, uintptr_t address) {
    enum bsa_page_state state;

    EXPECT_OK(bsa_page_state_of(root, address, &state));
    return state;
}

static uint32_t cached(const struct heap *heap, unsigned slot, unsigned order) {
    return bsa_cached_count(&heap->root->space.slots[slot].pages.stacks[order]);
}

static uint32_t all_cached(const struct heap *heap) {
    uint32_t count = 0;

    for (unsigned slot = 0; slot < bsa_slots(heap->root); slot++) {
        for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
            count += cached(heap, slot, order);
        }
    }
    return count;
}

/* Takes and frees blocks of every order that caches of this heap hold, so that they hold some. */
static void warm(struct heap *heap, unsigned slot) {
    for (unsigned order = 0; order < BSA_CACHED_ORDERS && bsa_cached_room(heap->root, order) != 0;
         order++) {
        EXPECT_OK(bsa_free_on(heap->root, slot, take(heap->root, slot, (size_t)1 << order)));
    }
}

static void expect_nothing_live(const struct bsa_root *root) {
    struct bsa_stats stats = stats_of(root);

    EXPECT_EQUAL(bsa_total_pages(root), bsa_free_page_count(root));
    EXPECT_EQUAL(bsa_total_pages(root), section_info(root, 0).free_pages);
    EXPECT_EQUAL(0, bsa_live_count(root));
    EXPECT_EQUAL(0, stats.current_count);
    EXPECT_EQUAL(0, stats.current_bytes);
    EXPECT_EQUAL(0, stats.requested_bytes);
    EXPECT_EQUAL(0, stats.allocated_bytes);
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        EXPECT_EQUAL(0, stats.per_order[order].live);
    }
    EXPECT_SOUND(root);
}

/* --- what is kept ------------------------------------------------------------------------------
 */

static void a_freed_block_is_kept_and_handed_out_first(void) {
    struct heap heap = attached_heap(256 * MIB);

    for (size_t count = 1; count <= 64; count *= 2) {
        uintptr_t first = take(heap.root, 0, count), second = take(heap.root, 0, count);

        EXPECT_OK(bsa_free_pages_on(heap.root, 0, first, count));
        EXPECT_OK(bsa_free_pages_on(heap.root, 0, second, count));
        EXPECT_EQUAL(BSA_PAGE_CACHED, state_of_page(heap.root, first));
        EXPECT_EQUAL(second, take(heap.root, 0, count));
        EXPECT_EQUAL(BSA_PAGE_BLOCK, state_of_page(heap.root, second));
        EXPECT_EQUAL(first, take(heap.root, 0, count));
        EXPECT_OK(bsa_free_on(heap.root, 0, first));
        EXPECT_OK(bsa_free_on(heap.root, 0, second));
    }
    expect_nothing_live(heap.root);
    heap_close(&heap);
}

static void pairs_of_an_attached_slot_take_no_lock(void) {
    struct locks locks = {NULL, 0, 0};
    struct heap heap = heap_with_hooks(
        PAGE, 2, false,
        (struct bsa_hooks){.lock = on_lock, .unlock = on_unlock, .context = &locks});

    heap_add(&heap, 128 * MIB, PAGE, 0);
    locks.root = heap.root;
    EXPECT_OK(bsa_slot_attach(heap.root, 0));
    warm(&heap, 0);
    locks.pages = locks.slots = 0;
    for (unsigned i = 0; i < 1000; i++) {
        EXPECT_OK(bsa_free_on(heap.root, 0, take(heap.root, 0, 1 + i % 64)));
        EXPECT_OK(bsa_free_on(heap.root, 0, must_alloc(heap.root, 0, PAGE + i * 100)));
    }
    EXPECT_EQUAL(0, locks.pages + locks.slots);
    /* Of a shared slot just its own. */
    warm(&heap, 1);
    locks.pages = locks.slots = 0;
    for (unsigned i = 0; i < 1000; i++) {
        EXPECT_OK(bsa_free_on(heap.root, 1, take(heap.root, 1, 1 + i % 64)));
    }
    EXPECT_EQUAL(0, locks.pages);
    EXPECT_EQUAL(2000, locks.slots);
    heap_close(&heap);
}

static void many_blocks_take_the_page_lock_once(void) {
    struct locks locks = {NULL, 0, 0};
    struct heap heap = heap_with_hooks(
        PAGE, 2, false,
        (struct bsa_hooks){.lock = on_lock, .unlock = on_unlock, .context = &locks});
    uintptr_t pages[MANY];

    heap_add(&heap, 64 * MIB, PAGE, 0);
    locks.root = heap.root;
    EXPECT_OK(bsa_slot_attach(heap.root, 0));
    locks.pages = 0;
    for (unsigned i = 0; i < MANY; i++) {
        pages[i] = take(heap.root, 0, 1);
    }
    EXPECT(locks.pages <= MANY / (BSA_CACHED_BLOCKS / 4) + 1);
    locks.pages = 0;
    for (unsigned i = 0; i < MANY; i++) {
        EXPECT_OK(bsa_free_on(heap.root, 0, pages[i]));
        EXPECT(cached(&heap, 0, 0) <= BSA_CACHED_BLOCKS);
    }
    EXPECT(locks.pages <= MANY / (BSA_CACHED_BLOCKS / 2) + 1);
    expect_nothing_live(heap.root);
    heap_close(&heap);
}

/* Where no free block is smaller than what a cache takes at once. */
static void blocks_taken_in_a_row_lie_in_a_row(void) {
    enum { FILLED = BSA_CACHED_BLOCKS / 2 };
    struct heap heap = attached_heap(16 * MIB);
    uintptr_t pages[FILLED];

    for (unsigned order = 0; 1 << order < FILLED; order++) {
        while (bsa_free_list(heap.root, 0, order, NULL, 0) != 0) {
            EXPECT_OK(bsa_alloc_pages_on(heap.root, BSA_NO_SLOT, (size_t)1 << order, 0, 0, pages));
        }
    }
    for (unsigned i = 0; i < FILLED; i++) {
        pages[i] = take(heap.root, 0, 1);
        EXPECT_EQUAL(pages[0] + i * PAGE, pages[i]);
    }
    heap_close(&heap);
}

/* Where the smallest blocks come together to less than was wanted, no larger one is cut for the
 * rest: what it would leave would be the smallest blocks of the next time. */
static void what_is_left_of_a_cut_block_is_taken_whole(void) {
    for (unsigned order = 0; order < 3; order++) {
        struct heap heap = attached_heap(16 * MIB);
        uintptr_t pages;

        while (bsa_free_list(heap.root, 0, order, NULL, 0) == 0) {
            EXPECT_OK(bsa_alloc_pages_on(heap.root, BSA_NO_SLOT, (size_t)1 << order, 0, 0, &pages));
        }
        for (unsigned turn = 0; turn < 2; turn++) {
            do {
                take(heap.root, 0, (size_t)1 << order);
            } while (cached(&heap, 0, order) != 0);
            for (unsigned low = order; low < order + 3; low++) {
                EXPECT_EQUAL(0, bsa_free_list(heap.root, 0, low, NULL, 0));
            }
        }
        heap_close(&heap);
    }
}

/* In heaps whose first blocks are of different orders, so that whole ones are cut. */
static void the_high_water_mark_lies_above_all_that_was_cut(void) {
    for (unsigned i = 0; i < 8; i++) {
        struct heap heap = attached_heap(8 * MIB + i * 128 * KIB);
        struct bsa_section_info info;
        uintptr_t pages;

        EXPECT_OK(bsa_alloc_pages_on(heap.root, BSA_NO_SLOT, 8, 0, 0, &pages));
        for (unsigned k = 0; k < 8; k++) {
            pages = take(heap.root, 0, 8);
            info = section_info(heap.root, 0);
            EXPECT((pages - info.start) / PAGE < info.high_water);
        }
        heap_close(&heap);
    }
}

static void the_smallest_blocks_that_fit_are_taken_first(void) {
    struct heap heap = attached_heap(4 * MIB);
    uintptr_t holes[3], pages[6];

    for (unsigned i = 0; i < 6; i++) {
        EXPECT_OK(bsa_alloc_pages_on(heap.root, BSA_NO_SLOT, 4, 0, 0, &pages[i]));
    }
    for (unsigned i = 0; i < 3; i++) {
        EXPECT_OK(bsa_free_on(heap.root, BSA_NO_SLOT, pages[2 * i]));
        holes[i] = pages[2 * i];
    }
    for (unsigned i = 0; i < 3; i++) {
        uintptr_t page = take(heap.root, 0, 4);

        EXPECT(page == holes[0] || page == holes[1] || page == holes[2]);
    }
    heap_close(&heap);
}

static void caches_hold_no_more_than_a_share_of_the_heap(void) {
    struct heap heap = attached_heap(1 * MIB);
    uintptr_t pages[MANY];
    unsigned count = 0;

    while (count < MANY && bsa_alloc_pages_on(heap.root, 0, 1, 0, 0, &pages[count]) == BSA_OK) {
        count++;
    }
    EXPECT_EQUAL(bsa_total_pages(heap.root), count);
    for (unsigned i = 0; i < count; i++) {
        EXPECT_OK(bsa_free_on(heap.root, i % 2, pages[i]));
        EXPECT(all_cached(&heap) <= bsa_total_pages(heap.root) / BSA_CACHED_SHARE);
    }
    EXPECT(all_cached(&heap) > 0);
    expect_nothing_live(heap.root);
    heap_close(&heap);
}

static void exact_blocks_and_large_ones_are_not_kept(void) {
    struct heap heap = attached_heap(16 * MIB);
    uintptr_t exact, large = take(heap.root, 0, 128);

    EXPECT_OK(bsa_alloc_pages_on(heap.root, 0, 3, 0, BSA_EXACT, &exact));
    EXPECT_OK(bsa_free_on(heap.root, 0, exact));
    EXPECT_OK(bsa_free_on(heap.root, 0, large));
    EXPECT_EQUAL(0, all_cached(&heap));
    EXPECT_EQUAL(BSA_PAGE_FREE, state_of_page(heap.root, exact));
    EXPECT_EQUAL(BSA_PAGE_FREE, state_of_page(heap.root, large));
    heap_close(&heap);
}

static void what_was_asked_for_is_told_of_each_block_anew(void) {
    static const size_t counts[] = {4, 3, 4, 4, 3, 3, 4};
    struct heap heap = attached_heap(16 * MIB);
    uintptr_t first = take(heap.root, 0, 4);
    struct bsa_allocation found;

    EXPECT_OK(bsa_free_on(heap.root, 0, first));
    EXPECT_OK(bsa_free_on(heap.root, 0, take(heap.root, 0, 1)));
    for (unsigned i = 0; i < COUNT_OF(counts); i++) {
        EXPECT_EQUAL(first, take(heap.root, 0, counts[i]));
        EXPECT_OK(bsa_lookup(heap.root, first, &found));
        EXPECT_EQUAL(counts[i] * PAGE, found.requested_size);
        EXPECT_EQUAL(4 * PAGE, found.usable_size);
        EXPECT_EQUAL(counts[i] * PAGE, stats_of(heap.root).requested_bytes);
        EXPECT_OK(bsa_free_pages_on(heap.root, 0, first, counts[i]));
        EXPECT_EQUAL(0, stats_of(heap.root).requested_bytes);
        EXPECT_SOUND(heap.root);
    }
    heap_close(&heap);
}

static void fewer_pages_than_the_block_has_may_be_said(void) {
    struct heap heap = attached_heap(16 * MIB);

    for (size_t count = 1; count <= 16; count++) {
        uintptr_t block = take(heap.root, 0, 16);

        EXPECT_OK(bsa_free_pages_on(heap.root, 0, block, count));
        EXPECT_EQUAL(BSA_PAGE_CACHED, state_of_page(heap.root, block));
    }
    expect_nothing_live(heap.root);
    heap_close(&heap);
}

static void an_alignment_above_the_size_is_kept(void) {
    struct heap heap = attached_heap(16 * MIB);

    for (unsigned i = 0; i < 40; i++) {
        size_t align = PAGE << i % 8, count = (size_t)1 << i % 4;
        uintptr_t address;

        EXPECT_OK(bsa_alloc_pages_on(heap.root, 0, count, align, 0, &address));
        EXPECT_EQUAL(0, address % align);
        EXPECT_OK(bsa_free_pages_on(heap.root, i % 2, address, count));
    }
    expect_nothing_live(heap.root);
    heap_close(&heap);
}

static void one_slot_and_serial_roots_keep_nothing(void) {
    for (int serial = 0; serial < 2; serial++) {
        struct heap heap = serial ? serial_heap_of(16 * MIB, 2) : heap_of(16 * MIB, 1);
        uintptr_t page;

        EXPECT_OK(bsa_slot_attach(heap.root, 0));
        page = take(heap.root, 0, 1);
        EXPECT_OK(bsa_free_on(heap.root, 0, page));
        EXPECT_EQUAL(BSA_PAGE_FREE, state_of_page(heap.root, page));
        EXPECT_EQUAL(0, all_cached(&heap));
        EXPECT_EQUAL(PAGE, stats_of(heap.root).peak_allocated_bytes);
        heap_close(&heap);
    }
}

/* --- misuse ------------------------------------------------------------------------------------
 */

static void a_cached_block_is_nobodys_to_free_or_change(void) {
    struct heap heap = attached_heap(16 * MIB);
    uintptr_t block = take(heap.root, 0, 4), moved = 0;
    struct bsa_allocation found;

    EXPECT_OK(bsa_free_pages_on(heap.root, 0, block, 4));
    for (unsigned slot = 0; slot < 3; slot++) {
        EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_free_on(heap.root, slot, block));
        EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_free_pages_on(heap.root, slot, block, 4));
        EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_free_on(heap.root, slot, block + PAGE));
        EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_realloc_on(heap.root, slot, block, 100, &moved));
        EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_free_many_on(heap.root, slot, &block, 1, NULL));
    }
    EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_lookup(heap.root, block, &found));
    EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_lookup_inside(heap.root, block + PAGE, &found));
    expect_nothing_live(heap.root);
    heap_close(&heap);
}

static void wrong_frees_are_refused_and_change_nothing(void) {
    struct heap heap = attached_heap(16 * MIB);
    uintptr_t block = take(heap.root, 0, 3);
    uint64_t free_pages = bsa_free_page_count(heap.root);

    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_free_pages_on(heap.root, 0, block, 0));
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_free_pages_on(heap.root, 0, block, 5));
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_free_pages_on(heap.root, 0, block, SIZE_MAX));
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_free_pages_on(heap.root, 0, block + 1, 1));
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_free_on(heap.root, 0, block + 16));
    EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_free_pages_on(heap.root, 0, block + PAGE, 1));
    EXPECT_STATUS(BSA_NOT_FOUND, bsa_free_pages_on(heap.root, 0, block + GIB, 1));
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_alloc_pages_on(heap.root, 0, 0, 0, 0, &block));
    EXPECT_EQUAL(free_pages, bsa_free_page_count(heap.root));
    EXPECT_EQUAL(1, bsa_live_count(heap.root));
    heap_close(&heap);
}

static void no_other_address_frees_a_page(void) {
    struct heap heap = attached_heap(16 * MIB);
    uintptr_t page = take(heap.root, 0, 1);

    for (unsigned bit = 0; bit < 8 * sizeof page; bit++) {
        uintptr_t wrong = page ^ (uintptr_t)1 << bit;

        EXPECT(bsa_free_pages_on(heap.root, 0, wrong, 1) != BSA_OK);
        EXPECT_EQUAL(1, bsa_live_count(heap.root));
    }
    EXPECT_OK(bsa_free_pages_on(heap.root, 0, page, 1));
    expect_nothing_live(heap.root);
    heap_close(&heap);
}

/* Whatever stands behind the last page's descriptor. */
static void a_page_behind_the_heap_is_none(void) {
    struct heap heap = attached_heap(16 * MIB);
    struct bsa_section *section = bsa_first_section(heap.root);
    struct bsa_page *behind = bsa_page_at(section, section->total_pages);
    uint64_t word = bsa_page_word(behind);

    EXPECT_OK(bsa_free_on(heap.root, 0, take(heap.root, 0, 1)));
    bsa_page_set_word(behind, bsa_cacheable_word(0));
    EXPECT_STATUS(
        BSA_NOT_FOUND,
        bsa_free_pages_on(heap.root, 0, bsa_heap_start(section) + bsa_heap_size(section), 1));
    bsa_page_set_word(behind, word);
    heap_close(&heap);
}

/* --- when they are merged ----------------------------------------------------------------------
 */

static void a_request_larger_than_any_cached_block_merges_the_slots_cache(void) {
    struct heap heap = attached_heap(16 * MIB);

    warm(&heap, 0);
    warm(&heap, 1);
    EXPECT_OK(bsa_free_on(heap.root, 0, take(heap.root, 0, 128)));
    for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
        EXPECT_EQUAL(0, cached(&heap, 0, order));
    }
    EXPECT(all_cached(&heap) > 0); /* of slot 1, out of reach */
    heap_close(&heap);
}

/* What is left of the heap lies in the cache of slot 1, which may be attached. Returns a block. */
static uintptr_t exhaust_but_caches(struct heap *heap, bool attached) {
    uintptr_t pages[2 * MANY];
    unsigned count = 0;

    if (attached) {
        EXPECT_OK(bsa_slot_attach(heap->root, 1));
    }
    while (bsa_alloc_pages_on(heap->root, BSA_NO_SLOT, 1, 0, 0, &pages[count]) == BSA_OK) {
        EXPECT(++count < COUNT_OF(pages));
    }
    EXPECT_OK(bsa_free_on(heap->root, 1, pages[7]));
    EXPECT_EQUAL(1, all_cached(heap));
    return pages[9];
}

static void a_request_that_would_fail_gets_what_shared_slots_have_cached(void) {
    struct heap heap = heap_of(2 * MIB, 2);
    uintptr_t address;

    exhaust_but_caches(&heap, false);
    EXPECT_OK(bsa_alloc_on(heap.root, 0, 64, 0, 0, &address)); /* a slab */
    EXPECT_EQUAL(0, bsa_free_page_count(heap.root));
    EXPECT_SOUND(heap.root);
    heap_close(&heap);
}

static void an_attached_slot_gives_up_its_cache_when_asked(void) {
    struct heap heap = heap_of(2 * MIB, 2);
    uintptr_t address;

    exhaust_but_caches(&heap, true);
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_pages_on(heap.root, 0, 1, 0, 0, &address));
    EXPECT_EQUAL(1, bsa_free_page_count(heap.root));
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_pages_on(heap.root, 1, 2, 0, 0, &address));
    EXPECT_EQUAL(0, all_cached(&heap));
    EXPECT_OK(bsa_alloc_pages_on(heap.root, 0, 1, 0, 0, &address));
    heap_close(&heap);
}

static void so_does_one_that_only_frees(void) {
    struct heap heap = heap_of(2 * MIB, 2);
    uintptr_t block = exhaust_but_caches(&heap, true), address;

    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_pages_on(heap.root, 0, 1, 0, 0, &address));
    EXPECT_OK(bsa_free_on(heap.root, 1, block));
    EXPECT_EQUAL(1, all_cached(&heap));
    EXPECT_OK(bsa_alloc_pages_on(heap.root, 0, 1, 0, 0, &address));
    heap_close(&heap);
}

static void low_memory_that_is_cached_is_found(void) {
    struct heap heap = heap_without_sections(PAGE, 2);
    struct bsa_section_config config = {.physical_is_linear = true, .physical_base = 0};
    uintptr_t address, pages[2 * MANY];
    unsigned count = 0;

    EXPECT_OK(
        bsa_add_region(heap.root, heap_memory(&heap, 2 * MIB, PAGE, 0), 2 * MIB, &config, NULL));
    while (bsa_alloc_pages_on(heap.root, 0, 1, 0, 0, &pages[count]) == BSA_OK) {
        EXPECT(++count < COUNT_OF(pages));
    }
    EXPECT_OK(bsa_free_on(heap.root, 1, pages[3]));
    EXPECT_EQUAL(1, all_cached(&heap));
    EXPECT_OK(bsa_alloc_pages_lowmem_on(heap.root, 0, 1, 0, &address));
    EXPECT_EQUAL(pages[3], address);
    heap_close(&heap);
}

static void trim_detach_and_attach_merge(void) {
    struct heap heap = attached_heap(256 * MIB);

    warm(&heap, 0);
    EXPECT(cached(&heap, 0, BSA_CACHED_ORDERS - 1) > 0);
    EXPECT_EQUAL(0, bsa_trim_on(heap.root, 0)); /* they were free before */
    EXPECT_EQUAL(0, all_cached(&heap));
    warm(&heap, 0);
    EXPECT_OK(bsa_slot_detach(heap.root, 0));
    EXPECT_EQUAL(0, all_cached(&heap));
    warm(&heap, 0);
    EXPECT_OK(bsa_slot_attach(heap.root, 0));
    EXPECT_EQUAL(0, all_cached(&heap));
    expect_nothing_live(heap.root);
    heap_close(&heap);
}

/* As at the start: the fewest, largest blocks. */
static void expect_whole(const struct bsa_root *root, const uint64_t at_start[BSA_MAX_ORDER + 1]) {
    uint64_t blocks[BSA_MAX_ORDER + 1];

    bsa_free_blocks(root, blocks);
    EXPECT(memcmp(blocks, at_start, sizeof blocks) == 0);
}

static void questions_about_pages_merge_what_is_within_reach(void) {
    struct heap heap = heap_of(16 * MIB, 2);
    static unsigned char states[4096];
    uint64_t at_start[BSA_MAX_ORDER + 1];
    struct bsa_section_info info = section_info(heap.root, 0);
    uintptr_t page, blocks[8];

    bsa_free_blocks(heap.root, at_start);
    warm(&heap, 0);
    expect_whole(heap.root, at_start);
    warm(&heap, 1);
    EXPECT_EQUAL(at_start[4], bsa_free_list(heap.root, 0, 4, blocks, 8));
    EXPECT_EQUAL(0, all_cached(&heap));
    warm(&heap, 1);
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        EXPECT_EQUAL(info.free_blocks[order], section_info(heap.root, 0).free_blocks[order]);
    }
    page = take(heap.root, 0, 1);
    EXPECT_OK(bsa_free_on(heap.root, 0, page));
    EXPECT_EQUAL(BSA_PAGE_FREE, state_of_page(heap.root, page));
    /* At quiescence attached slots are within reach, too. */
    EXPECT_OK(bsa_slot_attach(heap.root, 0));
    warm(&heap, 0);
    EXPECT(info.total_pages <= sizeof states);
    EXPECT_OK(bsa_page_states(heap.root, 0, states));
    for (uint32_t i = 0; i < info.total_pages; i++) {
        EXPECT_EQUAL(BSA_PAGE_FREE, states[i]);
    }
    expect_whole(heap.root, at_start);
    heap_close(&heap);
}

static void what_an_attached_slot_has_cached_counts_as_free_blocks_unmerged(void) {
    struct heap heap = attached_heap(16 * MIB);
    uint64_t blocks[BSA_MAX_ORDER + 1], pages = 0;
    struct bsa_section_info info;

    warm(&heap, 0);
    heap_add(&heap, 1 * MIB, PAGE, 0);
    bsa_free_blocks(heap.root, blocks);
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        pages += blocks[order] << order;
    }
    EXPECT_EQUAL(bsa_total_pages(heap.root), pages);
    EXPECT(blocks[3] >= cached(&heap, 0, 3) && cached(&heap, 0, 3) > 0);
    for (unsigned section = 0; section < 2; section++) {
        info = section_info(heap.root, section);
        EXPECT_EQUAL(info.total_pages, info.free_pages);
    }
    heap_close(&heap);
}

static void a_section_whose_pages_are_cached_can_be_removed(void) {
    struct heap heap = attached_heap(1 * MIB);
    uintptr_t pages[64];

    heap_add(&heap, 16 * MIB, PAGE, 0);
    for (unsigned i = 0; i < 64; i++) {
        pages[i] = take(heap.root, i % 2, 4);
    }
    for (unsigned i = 0; i < 64; i++) {
        EXPECT_OK(bsa_free_on(heap.root, i / 2 % 2, pages[i]));
    }
    EXPECT(all_cached(&heap) > 0);
    EXPECT_OK(bsa_remove_region(heap.root, 1));
    EXPECT_SOUND(heap.root);
    EXPECT_OK(bsa_remove_region(heap.root, 0));
    EXPECT_EQUAL(0, bsa_total_pages(heap.root));
    heap_close(&heap);
}

/* --- limits ------------------------------------------------------------------------------------
 */

static void under_a_limit_nothing_is_kept(void) {
    struct heap heap = heap_of(16 * MIB, 2);
    uintptr_t address, page;

    EXPECT_OK(bsa_slot_attach(heap.root, 0));
    warm(&heap, 0);
    warm(&heap, 1);
    bsa_set_limit(heap.root, 0);
    for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
        EXPECT_EQUAL(0, cached(&heap, 1, order));
    }
    /* Nor are blocks that the attached slot still has handed out. */
    EXPECT(all_cached(&heap) > 0);
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_pages_on(heap.root, 0, 1, 0, 0, &address));
    EXPECT_EQUAL(0, all_cached(&heap));
    bsa_set_limit(heap.root, 8 * PAGE);
    page = take(heap.root, 0, 4);
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_pages_on(heap.root, 1, 8, 0, 0, &address));
    EXPECT_OK(bsa_free_on(heap.root, 0, page));
    EXPECT_EQUAL(0, all_cached(&heap));
    EXPECT_OK(bsa_alloc_pages_on(heap.root, 1, 8, 0, 0, &address));
    bsa_set_limit(heap.root, UINT64_MAX);
    warm(&heap, 0);
    EXPECT(all_cached(&heap) > 0);
    heap_close(&heap);
}

static void what_was_cached_before_a_limit_leaves_room_for_frees(void) {
    struct heap heap = attached_heap(64 * MIB);
    uintptr_t pages[MANY];

    for (unsigned i = 0; i < MANY; i++) {
        pages[i] = take(heap.root, 0, 1);
    }
    for (unsigned i = 0; i < MANY; i++) {
        if (i == MANY / 2) {
            EXPECT(cached(&heap, 0, 0) > 0);
            bsa_set_limit(heap.root, 64 * MIB);
        }
        EXPECT_OK(bsa_free_on(heap.root, 0, pages[i]));
    }
    EXPECT_EQUAL(0, all_cached(&heap));
    expect_nothing_live(heap.root);
    heap_close(&heap);
}

/* --- counts ------------------------------------------------------------------------------------
 */

struct live {
    uintptr_t address;
    uint64_t bytes, requested;
};

/* Random use of two slots beside plain sums. */
static void statistics_are_exact_and_peaks_bounds(void) {
    enum { STEPS = 20000, LIVE = 200 };
    struct heap heap = attached_heap(64 * MIB);
    static struct live live[LIVE];
    uint64_t seed = 5, bytes = 0, requested = 0, count = 0, total = 0, peak = 0, slack = 0;
    struct bsa_stats stats;
    struct bsa_usage usage;

    memset(live, 0, sizeof live);
    for (unsigned i = 0; i < STEPS; i++) {
        struct live *one = &live[random_below(&seed, LIVE)];
        unsigned slot = random_below(&seed, 3) == 0;

        if (one->address != 0) {
            EXPECT_OK(bsa_free_on(heap.root, slot, one->address));
            bytes -= one->bytes;
            requested -= one->requested;
            count--;
            one->address = 0;
        } else {
            struct bsa_allocation found;

            one->requested = PAGE / 2 + 1 + random_below(&seed, 40 * PAGE);
            one->address = must_alloc(heap.root, slot, one->requested);
            EXPECT_OK(bsa_lookup(heap.root, one->address, &found));
            EXPECT_EQUAL(one->requested, found.requested_size);
            one->bytes = found.usable_size;
            bytes += one->bytes;
            requested += one->requested;
            count++, total++;
        }
        peak = peak < bytes ? bytes : peak;
        if (i % 100 == 0) {
            stats = stats_of(heap.root);
            bsa_usage(heap.root, &usage);
            EXPECT_EQUAL(count, stats.current_count);
            EXPECT_EQUAL(count, bsa_live_count(heap.root));
            EXPECT_EQUAL(total, stats.total_count);
            EXPECT_EQUAL(bytes, stats.current_bytes);
            EXPECT_EQUAL(requested, stats.requested_bytes);
            EXPECT_EQUAL(bytes, stats.allocated_bytes);
            EXPECT_EQUAL(bytes, usage.current_bytes);
            EXPECT_EQUAL(requested, usage.requested_bytes);
            EXPECT_EQUAL(bytes, usage.allocated_bytes);
            EXPECT_EQUAL(bsa_total_pages(heap.root) - bytes / PAGE, bsa_free_page_count(heap.root));
        }
        if (i == STEPS / 2) {
            EXPECT_OK(bsa_rebuild(heap.root));
            EXPECT_EQUAL(0, all_cached(&heap));
        }
    }
    /* Above the truth by what caches can hold, at most. */
    stats = stats_of(heap.root);
    slack = 2 * BSA_CACHED_ORDERS * (uint64_t)BSA_CACHED_PAGES * PAGE;
    EXPECT(stats.peak_allocated_bytes >= peak && stats.peak_allocated_bytes <= peak + slack);
    EXPECT(stats.peak_bytes >= peak && stats.peak_bytes <= peak + slack);
    EXPECT(stats.peak_count >= count);
    EXPECT_SOUND(heap.root);
    heap_close(&heap);
}

static void a_peak_that_is_reset_is_what_is_live(void) {
    struct heap heap = heap_of(16 * MIB, 2);
    uintptr_t page = take(heap.root, 0, 1);

    warm(&heap, 1);
    bsa_reset_peak(heap.root);
    EXPECT_EQUAL(PAGE, stats_of(heap.root).peak_allocated_bytes);
    EXPECT_EQUAL(PAGE, stats_of(heap.root).peak_bytes);
    EXPECT_EQUAL(1, stats_of(heap.root).peak_count);
    EXPECT_OK(bsa_free_on(heap.root, 0, page));
    heap_close(&heap);
}

/* --- rebuilding --------------------------------------------------------------------------------
 */

static void cached_blocks_are_free_after_a_crash(void) {
    struct heap old = attached_heap(16 * MIB), new = heap_without_sections(PAGE, 1);
    uint64_t at_start[BSA_MAX_ORDER + 1];

    bsa_free_blocks(old.root, at_start);
    warm(&old, 0);
    warm(&old, 1);
    EXPECT_OK(bsa_attach_region(new.root, old.region[0], 16 * MIB, NULL, NULL));
    expect_whole(new.root, at_start);
    EXPECT_EQUAL(0, stats_of(new.root).allocated_bytes);
    heap_close(&new);
    free(old.root_memory);
    free(old.region[0]);
}

static void a_block_claimed_when_a_crash_came_is_still_live(void) {
    struct heap heap = heap_of(1 * MIB, 2);
    uintptr_t block;
    struct bsa_page *page;

    EXPECT_OK(bsa_alloc_pages_on(heap.root, 0, 3, 0, BSA_EXACT, &block));
    page =
        bsa_page_at(bsa_first_section(heap.root), bsa_page_of(bsa_first_section(heap.root), block));
    bsa_page_set_word(page, bsa_with_state(bsa_page_word(page), BSA_CLAIMED));
    EXPECT_STATUS(BSA_CORRUPTION, bsa_check(heap.root, NULL));
    EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_free_on(heap.root, 0, block));
    EXPECT_OK(bsa_rebuild(heap.root));
    EXPECT_SOUND(heap.root);
    EXPECT_OK(bsa_free_pages_on(heap.root, 0, block, 3));
    heap_close(&heap);
}

/* --- check -------------------------------------------------------------------------------------
 */

static void expect_violation(const struct bsa_root *root, const char *invariant) {
    struct bsa_violation violation;

    EXPECT_STATUS(BSA_CORRUPTION, bsa_check(root, &violation));
    if (strcmp(invariant, violation.invariant) != 0) {
        fail(__FILE__, __LINE__, "%s, not %s", violation.invariant, invariant);
    }
}

/* Damages a field, expects the finding, and repairs it. */
#define DAMAGED(field, value, invariant)                                                           \
    do {                                                                                           \
        __typeof__(field) was = (field);                                                           \
        (field) = (value);                                                                         \
        expect_violation(heap.root, invariant);                                                    \
        (field) = was;                                                                             \
        EXPECT_SOUND(heap.root);                                                                   \
    } while (0)

static void damage_to_page_caches_is_named(void) {
    struct heap heap = attached_heap(16 * MIB);
    struct bsa_page_stack *stack = heap.root->space.slots[0].pages.stacks;
    struct bsa_cached_block *other = heap.root->space.slots[1].pages.stacks[0].blocks, *last;
    struct bsa_section *section = bsa_first_section(heap.root);
    const char *own = "a page cache holds cached blocks of its own";
    uint32_t top;

    warm(&heap, 0);
    warm(&heap, 1);
    top = cached(&heap, 0, 0) - 1;
    EXPECT(top > 0);
    last = &stack->blocks[top];
    DAMAGED(stack->count, BSA_CACHED_BLOCKS + 1, "a page cache holds a few blocks of an order");
    DAMAGED(stack->count, top, "every cached block is in its slot's page cache");
    DAMAGED(last->address, stack[1].blocks[0].address, own);
    DAMAGED(last->address, other->address, own);
    DAMAGED(last->address, last->address + 1, own);
    DAMAGED(last->address, bsa_heap_start(section) + bsa_heap_size(section), own);
    DAMAGED(last->page, stack->blocks[0].page, own);
    DAMAGED(last->section, section + 1, "a page cache holds blocks of managed sections");
    DAMAGED(last->page->requested, PAGE - 1, "a cached block has all of its bytes noted");
    DAMAGED(*last, stack->blocks[0], "a page cache holds a block once");
    DAMAGED(*last, stack[1].blocks[0], own);
    DAMAGED(*last, *other, own);
    heap_close(&heap);
}

static void damage_to_a_cached_blocks_word_is_named(void) {
    struct heap heap = attached_heap(16 * MIB);
    struct bsa_page *page;

    warm(&heap, 0);
    page = heap.root->space.slots[0].pages.stacks[2].blocks[0].page;
    for (unsigned bit = 0; bit < 64; bit++) {
        bsa_page_set_word(page, bsa_page_word(page) ^ (uint64_t)1 << bit);
        EXPECT_STATUS(BSA_CORRUPTION, bsa_check(heap.root, NULL));
        bsa_page_set_word(page, bsa_page_word(page) ^ (uint64_t)1 << bit);
        EXPECT_SOUND(heap.root);
    }
    DAMAGED(page->word, bsa_block_word(BSA_CACHED, 2, 4) | (uint64_t)7 << BSA_WORD_SLOT_SHIFT,
            "a cached block has an order and an owner that cache blocks");
    heap_close(&heap);
}

int main(void) {
    RUN(a_freed_block_is_kept_and_handed_out_first);
    RUN(pairs_of_an_attached_slot_take_no_lock);
    RUN(many_blocks_take_the_page_lock_once);
    RUN(blocks_taken_in_a_row_lie_in_a_row);
    RUN(what_is_left_of_a_cut_block_is_taken_whole);
    RUN(the_high_water_mark_lies_above_all_that_was_cut);
    RUN(the_smallest_blocks_that_fit_are_taken_first);
    RUN(caches_hold_no_more_than_a_share_of_the_heap);
    RUN(exact_blocks_and_large_ones_are_not_kept);
    RUN(what_was_asked_for_is_told_of_each_block_anew);
    RUN(fewer_pages_than_the_block_has_may_be_said);
    RUN(an_alignment_above_the_size_is_kept);
    RUN(one_slot_and_serial_roots_keep_nothing);
    RUN(a_cached_block_is_nobodys_to_free_or_change);
    RUN(wrong_frees_are_refused_and_change_nothing);
    RUN(no_other_address_frees_a_page);
    RUN(a_page_behind_the_heap_is_none);
    RUN(a_request_larger_than_any_cached_block_merges_the_slots_cache);
    RUN(a_request_that_would_fail_gets_what_shared_slots_have_cached);
    RUN(an_attached_slot_gives_up_its_cache_when_asked);
    RUN(so_does_one_that_only_frees);
    RUN(low_memory_that_is_cached_is_found);
    RUN(trim_detach_and_attach_merge);
    RUN(questions_about_pages_merge_what_is_within_reach);
    RUN(what_an_attached_slot_has_cached_counts_as_free_blocks_unmerged);
    RUN(a_section_whose_pages_are_cached_can_be_removed);
    RUN(under_a_limit_nothing_is_kept);
    RUN(what_was_cached_before_a_limit_leaves_room_for_frees);
    RUN(statistics_are_exact_and_peaks_bounds);
    RUN(a_peak_that_is_reset_is_what_is_live);
    RUN(cached_blocks_are_free_after_a_crash);
    RUN(a_block_claimed_when_a_crash_came_is_still_live);
    RUN(damage_to_page_caches_is_named);
    RUN(damage_to_a_cached_blocks_word_is_named);
    return 0;
}
