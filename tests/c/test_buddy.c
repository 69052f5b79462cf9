/* Regions, sections and the buddy pages, through the public interface. */
#include "check.h"

#include <sys/mman.h>
#include <unistd.h>

#define PAGE (4 * KIB)

static struct heap heap_at_odd_page(size_t size) {
    struct heap heap = heap_without_sections(PAGE, 1);

    for (size_t offset = PAGE;; offset += PAGE) {
        void *region = heap_memory(&heap, size, 256 * KIB, offset);
        unsigned index;

        EXPECT_OK(bsa_add_region(heap.root, region, size, NULL, &index));
        if (section_info(heap.root, index).start / PAGE % 2 == 1) {
            return heap;
        }
        EXPECT_OK(bsa_remove_region(heap.root, index));
    }
}

static uintptr_t first_free(const struct bsa_root *root, unsigned section, unsigned order) {
    uintptr_t address = 0;

    bsa_free_list(root, section, order, &address, 1);
    return address;
}

/* --- covering ----------------------------------------------------------------------------------
 */

/* What the free blocks of a heap without allocations must be: naturally aligned, as large as fit;
 * and at the start the lists have them by address. */
static void expect_blocks_covering(const struct bsa_root *root, unsigned index, bool by_address) {
    struct bsa_section_info info = section_info(root, index);
    size_t page_size = bsa_page_size(root);
    uintptr_t expected[BSA_MAX_ORDER + 1][64];
    size_t count[BSA_MAX_ORDER + 1] = {0};

    for (uint64_t page = 0; page < info.total_pages;) {
        uint64_t number = info.start / page_size + page;
        unsigned order = 0;

        while (order < BSA_MAX_ORDER && number % ((uint64_t)2 << order) == 0 &&
               page + ((uint64_t)2 << order) <= info.total_pages) {
            order++;
        }
        EXPECT(count[order] < 64);
        expected[order][count[order]++] = info.start + page * page_size;
        page += (uint64_t)1 << order;
    }
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        uintptr_t blocks[64];

        EXPECT_EQUAL(count[order], bsa_free_list(root, index, order, blocks, 64));
        EXPECT_EQUAL(count[order], info.free_blocks[order]);
        if (!by_address) {
            qsort(blocks, count[order], sizeof blocks[0], compare_addresses);
        }
        for (size_t i = 0; i < count[order]; i++) {
            EXPECT_EQUAL(expected[order][i], blocks[i]);
        }
    }
    EXPECT_EQUAL(info.total_pages, info.free_pages);
}

static void expect_covered(const struct bsa_root *root, unsigned index) {
    expect_blocks_covering(root, index, true);
}

static void expect_whole(const struct bsa_root *root, unsigned index) {
    expect_blocks_covering(root, index, false);
}

static void a_new_heap_is_covered_by_the_largest_aligned_blocks_in_address_order(void) {
    static const size_t sizes[] = {64 * KIB, 129 * KIB, 1 * MIB, 3 * MIB + 12345, 16 * MIB};

    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        for (size_t offset = 0; offset < 9 * PAGE; offset += 3001) {
            struct heap heap = heap_without_sections(PAGE, 1);

            heap_add(&heap, sizes[i], 1 * MIB, offset);
            expect_covered(heap.root, 0);
            heap_close(&heap);
        }
    }
}

static void every_page_size_from_256_bytes_to_2_mib_works(void) {
    for (size_t page_size = 256; page_size <= 2 * MIB; page_size *= 2) {
        struct heap heap = heap_without_sections(page_size, 1);
        uintptr_t a, b;

        heap_add(&heap, 40 * page_size + 64 * KIB, 64, 64);
        expect_covered(heap.root, 0);
        EXPECT_EQUAL(page_size, bsa_page_size(heap.root));
        EXPECT(section_info(heap.root, 0).total_pages >= 32);
        a = must_alloc_pages(heap.root, 3);
        EXPECT_OK(bsa_alloc_pages(heap.root, 2, 4 * page_size, 0, &b));
        EXPECT_EQUAL(0, a % page_size);
        EXPECT_EQUAL(0, b % (4 * page_size));
        memset((void *)a, 1, 3 * page_size);
        memset((void *)b, 2, 2 * page_size);
        EXPECT_EQUAL(6 * page_size, stats_of(heap.root).allocated_bytes);
        EXPECT_SOUND(heap.root);
        EXPECT_OK(bsa_free(heap.root, a));
        EXPECT_OK(bsa_free_pages(heap.root, b, 2));
        EXPECT_EQUAL(0, stats_of(heap.root).allocated_bytes);
        heap_close(&heap);
    }
}

static void page_sizes_and_slot_counts_out_of_range_are_refused(void) {
    static const size_t bad[] = {0,    1,    128,     255,      257,
                                 3000, 4095, 4 * MIB, SIZE_MAX, SIZE_MAX / 2 + 1};
    size_t size = bsa_root_size(1);
    unsigned char *memory = aligned_memory(64, size + 64);
    struct bsa_root *root = NULL;
    struct bsa_config config = {PAGE, 1, false, {0}};

    EXPECT_EQUAL(0, bsa_root_size(0));
    EXPECT_EQUAL(0, bsa_root_size(BSA_MAX_SLOTS + 1));
    EXPECT_EQUAL(0, bsa_root_size(UINT32_MAX));
    EXPECT(bsa_root_size(BSA_MAX_SLOTS) > bsa_root_size(1));
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_init(NULL, size, &config, &root));
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_init(memory + 8, size, &config, &root));
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_init(memory, size - 1, &config, &root));
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        config.page_size = bad[i];
        EXPECT_STATUS(BSA_INVALID_PARAM, bsa_init(memory, size, &config, &root));
    }
    config.page_size = PAGE;
    config.slots = 0;
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_init(memory, size, &config, &root));
    config.slots = 2;
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_init(memory, size, &config, &root));
    EXPECT(root == NULL);
    free(memory);
}

/* --- regions -----------------------------------------------------------------------------------
 */

static void a_region_may_start_and_end_anywhere(void) {
    for (size_t offset = 0; offset <= PAGE; offset += offset < 70 ? 1 : 509) {
        struct heap heap = heap_without_sections(PAGE, 1);
        size_t size = 300 * KIB + 37 * offset;
        unsigned char *region = heap_memory(&heap, size, PAGE, offset);
        struct bsa_section_info info;
        uintptr_t address;

        EXPECT_OK(bsa_add_region(heap.root, region, size, NULL, NULL));
        info = section_info(heap.root, 0);
        EXPECT_EQUAL(0, info.start % PAGE);
        EXPECT(info.meta_start >= (uintptr_t)region && info.meta_start - (uintptr_t)region < PAGE);
        EXPECT_EQUAL(info.start, info.meta_start + info.meta_size);
        EXPECT(info.start + info.size <= (uintptr_t)region + size);
        /* As many whole pages as fit. */
        EXPECT((uintptr_t)region + size - (info.start + info.size) < 2 * PAGE);
        EXPECT_EQUAL(info.size, info.total_pages * PAGE);
        address = must_alloc_pages(heap.root, 1);
        EXPECT(address >= info.start && address < info.start + info.size);
        EXPECT_OK(bsa_free_pages(heap.root, address, 1));
        heap_close(&heap);
    }
}

static void a_region_too_small_for_its_metadata_and_one_page_is_refused(void) {
    struct heap heap = heap_without_sections(PAGE, 1);
    unsigned char *region = heap_memory(&heap, 64 * KIB, PAGE, 1);
    bool accepted = false;

    for (size_t size = 0; size < 64 * KIB; size += 61) {
        bsa_status status = bsa_add_region(heap.root, region, size, NULL, NULL);

        EXPECT(status == BSA_INVALID_PARAM || status == BSA_OK);
        EXPECT(!accepted || status == BSA_OK);
        accepted = status == BSA_OK;
        if (accepted) {
            EXPECT(section_info(heap.root, 0).total_pages >= 1);
            EXPECT_SOUND(heap.root);
            EXPECT_OK(bsa_remove_region(heap.root, 0));
        } else {
            EXPECT_EQUAL(0xa5, region[0]); /* a refusal writes nothing */
            EXPECT_EQUAL(0, bsa_section_count(heap.root));
        }
    }
    EXPECT(accepted);
    heap_close(&heap);
}

static void regions_whose_addresses_wrap_are_refused(void) {
    struct heap heap = heap_without_sections(PAGE, 1);
    unsigned char *region = heap_memory(&heap, 64 * KIB, PAGE, 0);

    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_add_region(heap.root, region, SIZE_MAX, NULL, NULL));
    EXPECT_STATUS(BSA_INVALID_PARAM,
                  bsa_add_region(heap.root, region, SIZE_MAX - (uintptr_t)region + 1, NULL, NULL));
    EXPECT_STATUS(BSA_INVALID_PARAM,
                  bsa_add_region(heap.root, (void *)(UINTPTR_MAX - 100), 4096, NULL, NULL));
    EXPECT_STATUS(BSA_INVALID_PARAM,
                  bsa_add_region(heap.root, (void *)(UINTPTR_MAX - 100), 50, NULL, NULL));
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_add_region(heap.root, (void *)UINTPTR_MAX, 1, NULL, NULL));
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_add_region(heap.root, NULL, 0, NULL, NULL));
    EXPECT_STATUS(BSA_INVALID_PARAM,
                  bsa_add_section(heap.root, region, 64 * KIB, UINTPTR_MAX - 5 * PAGE, 6 * PAGE,
                                  &(struct bsa_section_config){.flags = BSA_NOT_MEMORY}, NULL));
    EXPECT_STATUS(BSA_INVALID_PARAM,
                  bsa_add_section(heap.root, (void *)(UINTPTR_MAX - 10), 5, 16 * MIB, 6 * PAGE,
                                  &(struct bsa_section_config){.flags = BSA_NOT_MEMORY}, NULL));
    EXPECT_EQUAL(0, bsa_section_count(heap.root));
    heap_close(&heap);
}

static void a_region_that_shares_one_byte_with_another_is_refused_and_touching_is_fine(void) {
    struct heap heap = heap_without_sections(PAGE, 1);
    unsigned char *memory = heap_memory(&heap, 256 * KIB, PAGE, 0);
    unsigned char *middle = memory + 64 * KIB + 7;
    size_t size = 100 * KIB;

    EXPECT_OK(bsa_add_region(heap.root, middle, size, NULL, NULL));
    EXPECT_REFUSED(BSA_MEMORY_OVERLAP, heap.root,
                   bsa_add_region(heap.root, middle, size, NULL, NULL));
    EXPECT_REFUSED(BSA_MEMORY_OVERLAP, heap.root,
                   bsa_add_region(heap.root, middle + 1, size - 1, NULL, NULL));
    EXPECT_REFUSED(BSA_MEMORY_OVERLAP, heap.root,
                   bsa_add_region(heap.root, memory, 256 * KIB, NULL, NULL));
    EXPECT_REFUSED(BSA_MEMORY_OVERLAP, heap.root,
                   bsa_add_region(heap.root, memory, 64 * KIB + 8, NULL, NULL));
    EXPECT_REFUSED(BSA_MEMORY_OVERLAP, heap.root,
                   bsa_add_region(heap.root, middle + size - 1, 50 * KIB, NULL, NULL));
    /* Overlap is tested before "too small", even in the tail that no page uses. */
    EXPECT_REFUSED(BSA_MEMORY_OVERLAP, heap.root,
                   bsa_add_region(heap.root, middle + size - 1, 1, NULL, NULL));
    EXPECT_REFUSED(BSA_MEMORY_OVERLAP, heap.root, bsa_add_region(heap.root, middle, 1, NULL, NULL));
    EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root,
                   bsa_add_region(heap.root, middle + size, 1, NULL, NULL));
    EXPECT_OK(bsa_add_region(heap.root, memory, 64 * KIB + 7, NULL, NULL));
    EXPECT_OK(bsa_add_region(heap.root, middle + size, 50 * KIB, NULL, NULL));
    EXPECT_EQUAL(3, bsa_section_count(heap.root));
    heap_close(&heap);
}

static void blocks_never_merge_across_touching_sections(void) {
    struct heap heap = heap_without_sections(PAGE, 1);
    unsigned char *memory = heap_memory(&heap, 2 * MIB, 1 * MIB, 0);
    uintptr_t pages[600];
    unsigned count = 0;

    EXPECT_OK(bsa_add_region(heap.root, memory, 1 * MIB, NULL, NULL));
    EXPECT_OK(bsa_add_region(heap.root, memory + 1 * MIB, 1 * MIB, NULL, NULL));
    while (bsa_alloc_pages(heap.root, 1, 0, 0, &pages[count]) == BSA_OK) {
        count++;
    }
    EXPECT_EQUAL(bsa_total_pages(heap.root), count);
    while (count > 0) {
        EXPECT_OK(bsa_free(heap.root, pages[--count]));
    }
    EXPECT_SOUND(heap.root);
    for (unsigned i = 0; i < 2; i++) {
        struct bsa_section_info info = section_info(heap.root, i);

        for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
            uintptr_t blocks[64];
            size_t n = bsa_free_list(heap.root, i, order, blocks, 64);

            for (size_t k = 0; k < n; k++) {
                EXPECT(blocks[k] >= info.start &&
                       blocks[k] + (PAGE << order) <= info.start + info.size);
            }
        }
    }
    heap_close(&heap);
}

static void a_section_in_use_cannot_be_removed_and_a_free_one_can(void) {
    struct heap heap = heap_without_sections(PAGE, 2);
    uintptr_t first, object, second;

    heap_add(&heap, 1 * MIB, PAGE, 0);
    heap_add(&heap, 1 * MIB, PAGE, 0);
    EXPECT_STATUS(BSA_NOT_FOUND, bsa_remove_region(heap.root, 2));
    first = must_alloc_pages(heap.root, 1);
    object = must_alloc(heap.root, 1, 100);
    EXPECT_REFUSED(BSA_IN_USE, heap.root, bsa_remove_region(heap.root, 0));
    EXPECT_OK(bsa_free(heap.root, first));
    EXPECT_STATUS(BSA_IN_USE, bsa_remove_region(heap.root, 0));
    /* Freed from another slot, the object still waits to be drained: removal sees to that. */
    EXPECT_OK(bsa_free_on(heap.root, 0, object));
    second = section_info(heap.root, 1).start;
    EXPECT_OK(bsa_remove_region(heap.root, 0));
    EXPECT_EQUAL(1, bsa_section_count(heap.root));
    EXPECT_EQUAL(second, section_info(heap.root, 0).start);
    EXPECT_EQUAL(0, section_info(heap.root, 0).index);
    EXPECT_STATUS(BSA_NOT_FOUND, bsa_free(heap.root, first));
    EXPECT_OK(bsa_remove_region(heap.root, 0));
    EXPECT_EQUAL(0, bsa_total_pages(heap.root));
    EXPECT_STATUS(BSA_NOT_INITIALIZED, bsa_free(heap.root, first));
    EXPECT_STATUS(BSA_NOT_INITIALIZED, bsa_alloc_pages(heap.root, 1, 0, 0, &first));
    heap_close(&heap);
}

/* Of a removed section nobody may read a byte any more: its memory may be gone. */
static void sections_that_come_and_go_are_always_found(void) {
    enum { PLACES = 24 };
    size_t bytes = 12 * PAGE;
    struct heap heap = heap_without_sections(PAGE, 1);
    unsigned char *arena =
        mmap(NULL, PLACES * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t start[PLACES] = {0}; /* of the heap; 0: no section there */
    unsigned index;
    uint64_t seed = 41;

    EXPECT(arena != MAP_FAILED);
    for (unsigned step = 0; step < 1500; step++) {
        unsigned place = random_below(&seed, PLACES);
        unsigned char *region = arena + place * bytes;

        if (start[place] != 0) {
            EXPECT_OK(bsa_section_of(heap.root, start[place], &index));
            EXPECT_OK(bsa_remove_region(heap.root, index));
            EXPECT_EQUAL(0, mprotect(region, bytes, PROT_NONE));
            start[place] = 0;
        } else {
            EXPECT_EQUAL(0, mprotect(region, bytes, PROT_READ | PROT_WRITE));
            EXPECT_OK(bsa_add_region(heap.root, region, bytes, NULL, &index));
            start[place] = section_info(heap.root, index).start;
        }
        for (unsigned i = 0; i < PLACES; i++) {
            EXPECT_EQUAL(start[i] != 0,
                         bsa_section_of(heap.root, (uintptr_t)arena + (i + 1) * bytes - 1,
                                        &index) == BSA_OK);
            EXPECT(start[i] == 0 || section_info(heap.root, index).start == start[i]);
        }
        EXPECT_SOUND(heap.root);
    }
    heap_close(&heap);
    munmap(arena, PLACES * bytes);
}

/* Page numbers have 32 bits: a heap whose sections come and go must use them again. */
static void page_numbers_of_removed_sections_are_given_again(void) {
    enum { PAGES = 1 << 24, SECTIONS = 300 }; /* more than 2^32 pages in all */
    const size_t page_size = 256, meta_size = (size_t)PAGES * 52;
    struct heap heap = heap_without_sections(page_size, 1);
    struct bsa_section_config config = {.flags = BSA_NOT_MEMORY | BSA_ZEROED};
    unsigned char *meta = mmap(NULL, 2 * meta_size, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    EXPECT(meta != MAP_FAILED);
    madvise(meta, 2 * meta_size, MADV_NOHUGEPAGE); /* each touch would clear 2 MiB */
    heap_add(&heap, 64 * KIB, PAGE, 0);            /* stays, and keeps the first numbers */
    for (unsigned i = 0; i < SECTIONS; i++) {
        unsigned char *half = meta + i % 2 * meta_size;
        uintptr_t range = (uintptr_t)(1 + i % 2) << 40, block;

        if (i >= 2) {
            EXPECT_OK(bsa_remove_region(heap.root, 1));
            EXPECT_EQUAL(0, madvise(half, meta_size, MADV_DONTNEED)); /* all zero again */
        }
        EXPECT_OK(
            bsa_add_section(heap.root, half, meta_size, range, PAGES * page_size, &config, NULL));
        EXPECT_OK(bsa_alloc_pages(heap.root, 1024, 0, 0, &block)); /* too large for the first */
        EXPECT_OK(bsa_free(heap.root, block));
        EXPECT_SOUND(heap.root);
    }
    while (bsa_section_count(heap.root) > 0) {
        EXPECT_OK(bsa_remove_region(heap.root, 0));
    }
    heap_close(&heap);
    munmap(meta, 2 * meta_size);
}

static void three_hundred_sections_are_used_in_registration_order(void) {
    enum { SECTIONS = 300, BYTES = 48 * 1024 };
    struct heap heap = heap_without_sections(PAGE, 1);
    uintptr_t start[SECTIONS];
    uint64_t total = 0, seed = 7;
    unsigned order[SECTIONS];

    for (unsigned i = 0; i < SECTIONS; i++) {
        unsigned index = heap_add(&heap, BYTES, 64, (size_t)random_below(&seed, 500) * 8);

        EXPECT_EQUAL(i, index);
        start[i] = section_info(heap.root, i).start;
        total += section_info(heap.root, i).total_pages;
    }
    EXPECT_EQUAL(total, bsa_total_pages(heap.root));
    EXPECT_EQUAL(total, bsa_free_page_count(heap.root));
    EXPECT_SOUND(heap.root);
    for (unsigned i = 0; i < SECTIONS; i++) {
        uint32_t pages = section_info(heap.root, i).total_pages;
        unsigned index;

        for (uint32_t k = 0; k < pages; k++) {
            uintptr_t address = must_alloc_pages(heap.root, 1);

            EXPECT_OK(bsa_section_of(heap.root, address + 100, &index));
            EXPECT_EQUAL(i, index);
        }
        EXPECT_STATUS(BSA_NOT_FOUND, bsa_section_of(heap.root, start[i] - 1, &index));
    }
    EXPECT_EQUAL(0, bsa_free_page_count(heap.root));
    /* Free and remove them in random order; what remains is found all along. */
    for (unsigned i = 0; i < SECTIONS; i++) {
        unsigned other = random_below(&seed, i + 1);

        order[i] = order[other];
        order[other] = i;
    }
    for (unsigned i = 0; i < SECTIONS; i++) {
        uint32_t pages;
        unsigned index;

        EXPECT_OK(bsa_section_of(heap.root, start[order[i]], &index));
        EXPECT_EQUAL(start[order[i]], section_info(heap.root, index).start);
        pages = section_info(heap.root, index).total_pages;
        for (uint32_t k = 0; k < pages; k++) {
            EXPECT_OK(bsa_free(heap.root, start[order[i]] + k * PAGE));
        }
        if (i % 2 == 0) {
            EXPECT_OK(bsa_remove_region(heap.root, index));
            EXPECT_STATUS(BSA_NOT_FOUND, bsa_free(heap.root, start[order[i]]));
        }
    }
    EXPECT_EQUAL(SECTIONS / 2, bsa_section_count(heap.root));
    EXPECT_EQUAL(bsa_total_pages(heap.root), bsa_free_page_count(heap.root));
    heap_close(&heap);
}

static void a_section_added_in_use_serves_what_the_first_cannot(void) {
    struct heap heap = heap_of(256 * KIB, 1);
    struct bsa_section_info second;
    uint64_t baseline;
    uintptr_t address;

    while (bsa_alloc_pages(heap.root, 1, 0, 0, &address) == BSA_OK) {
    }
    EXPECT_EQUAL(0, bsa_free_page_count(heap.root));
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc(heap.root, 8 * PAGE, 0, 0, &address));
    heap_add(&heap, 1 * MIB, PAGE, 0);
    second = section_info(heap.root, 1);
    baseline = bsa_free_page_count(heap.root);
    EXPECT_EQUAL(second.total_pages, baseline);
    EXPECT_OK(bsa_alloc(heap.root, 8 * PAGE, 0, 0, &address));
    EXPECT(address >= second.start && address < second.start + second.size);
    EXPECT_EQUAL(section_info(heap.root, 0).size + second.size -
                     bsa_free_page_count(heap.root) * PAGE,
                 stats_of(heap.root).allocated_bytes);
    EXPECT_OK(bsa_free_pages(heap.root, address, 8));
    EXPECT_EQUAL(baseline, bsa_free_page_count(heap.root));
    heap_close(&heap);
}

static void metadata_and_heap_may_lie_apart_and_a_heap_that_is_no_memory_is_never_touched(void) {
    enum { PAGES = 1000 };
    struct heap heap = heap_without_sections(PAGE, 1);
    struct bsa_section_config config = {.flags = BSA_NOT_MEMORY};
    size_t meta_size = 200 * KIB, heap_size = PAGES * PAGE;
    unsigned char *meta = heap_memory(&heap, meta_size, 64, 24);
    unsigned char *range = mmap(NULL, heap_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t a, b, moved;

    EXPECT(range != MAP_FAILED);
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_add_region(heap.root, range, heap_size, &config, NULL));
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_add_section(heap.root, meta, 20 * KIB, (uintptr_t)range,
                                                     heap_size, &config, NULL));
    EXPECT_STATUS(
        BSA_MEMORY_OVERLAP,
        bsa_add_section(heap.root, meta, meta_size, (uintptr_t)meta + 1, heap_size, &config, NULL));
    EXPECT_OK(
        bsa_add_section(heap.root, meta, meta_size, (uintptr_t)range, heap_size, &config, NULL));
    EXPECT_EQUAL(PAGES, section_info(heap.root, 0).total_pages);
    EXPECT_REFUSED(BSA_MEMORY_OVERLAP, heap.root,
                   bsa_add_region(heap.root, meta + meta_size - 1, 1, NULL, NULL));
    EXPECT_REFUSED(BSA_MEMORY_OVERLAP, heap.root,
                   bsa_add_region(heap.root, range + heap_size - 1, 1, NULL, NULL));
    expect_covered(heap.root, 0);
    a = must_alloc_pages(heap.root, 7);
    b = must_alloc(heap.root, 0, 100);
    EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root,
                   bsa_alloc_pages(heap.root, 1, 0, BSA_ZERO, &moved));
    EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root, bsa_alloc(heap.root, 8, 0, BSA_ZERO, &moved));
    EXPECT_OK(bsa_realloc(heap.root, a, 3 * PAGE, &moved)); /* in place */
    EXPECT_EQUAL(a, moved);
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_realloc(heap.root, b, 1000, &moved)); /* by copying */
    EXPECT_OK(bsa_free(heap.root, b));
    EXPECT_OK(bsa_free(heap.root, a));
    bsa_trim(heap.root);
    expect_whole(heap.root, 0);
    /* Without it, what is left is memory. */
    heap_add(&heap, 64 * KIB, PAGE, 0);
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_alloc(heap.root, 8, 0, BSA_ZERO, &moved));
    EXPECT_OK(bsa_remove_region(heap.root, 0));
    EXPECT_OK(bsa_alloc(heap.root, 8, 0, BSA_ZERO, &moved));
    heap_close(&heap);
    munmap(range, heap_size);
}

static void metadata_of_its_own_stays_within_the_bytes_given(void) {
    for (size_t page_size = 256; page_size <= 2 * MIB; page_size *= 2) {
        struct heap heap = heap_without_sections(page_size, 1);
        struct bsa_section_config config = {.flags = BSA_NOT_MEMORY};
        size_t meta_size = 1 * KIB, heap_size = 3 * page_size;
        unsigned char *meta = heap_memory(&heap, 16 * KIB, 64, 0);

        while (bsa_add_section(heap.root, meta, meta_size, (uintptr_t)1 << 40, heap_size, &config,
                               NULL) == BSA_INVALID_PARAM) {
            meta_size += 8;
            EXPECT(meta_size < 16 * KIB);
        }
        EXPECT_EQUAL(3, section_info(heap.root, 0).total_pages);
        EXPECT(section_info(heap.root, 0).meta_size <= meta_size);
        heap_close(&heap);
    }
}

static void the_largest_block_has_two_to_the_twenty_pages(void) {
    const size_t page_size = 256, largest = page_size << BSA_MAX_ORDER;
    size_t meta_size = (size_t)52 << BSA_MAX_ORDER;
    struct heap heap = heap_without_sections(page_size, 1);
    struct bsa_section_config config = {.flags = BSA_NOT_MEMORY | BSA_ZEROED};
    void *meta = mmap(NULL, meta_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t block;

    EXPECT(meta != MAP_FAILED);
    EXPECT_OK(
        bsa_add_section(heap.root, meta, meta_size, (uintptr_t)1 << 40, largest, &config, NULL));
    EXPECT_OK(bsa_alloc_pages(heap.root, (size_t)1 << BSA_MAX_ORDER, 0, 0, &block));
    EXPECT_OK(bsa_free(heap.root, block));
    EXPECT_OK(bsa_alloc(heap.root, largest, 0, 0, &block));
    EXPECT_OK(bsa_free(heap.root, block));
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc(heap.root, largest + 1, 0, 0, &block));
    EXPECT_STATUS(BSA_INVALID_PARAM,
                  bsa_alloc_pages(heap.root, ((size_t)1 << BSA_MAX_ORDER) + 1, 0, 0, &block));
    heap_close(&heap);
    munmap(meta, meta_size);
}

/* Below the mark a rebuild looks for heads that a crash has left inside blocks. */
static void the_high_water_mark_lies_above_every_block_that_was_split_off(void) {
    struct heap heap = heap_of(4 * MIB, 1);
    uintptr_t start = section_info(heap.root, 0).start, block, pieces[16];
    unsigned split_off = 0;

    EXPECT_EQUAL(0, section_info(heap.root, 0).high_water);
    EXPECT_OK(bsa_alloc_pages(heap.root, 1, 1 * MIB, 0, &block));
    for (unsigned order = 0; order < 8; order++) {
        size_t count = bsa_free_list(heap.root, 0, order, pieces, COUNT_OF(pieces));

        EXPECT(count <= COUNT_OF(pieces));
        for (size_t i = 0; i < count; i++) {
            if (pieces[i] == block + (PAGE << order)) {
                EXPECT((pieces[i] - start) / PAGE < section_info(heap.root, 0).high_water);
                split_off++;
            }
        }
    }
    EXPECT_EQUAL(8, split_off);
    heap_close(&heap);
}

static void numbers_of_an_offset_only_heap_count_from_the_region(void) {
    struct heap heap = heap_without_sections(PAGE, 1);
    struct bsa_section_config config = {.flags = BSA_OFFSET_ONLY};
    size_t size = 1 * MIB;
    unsigned char *region = heap_memory(&heap, size, 1 * MIB, 5 * PAGE);
    struct bsa_section_info info;
    uintptr_t address;

    EXPECT_OK(bsa_add_region(heap.root, region, size, &config, NULL));
    info = section_info(heap.root, 0);
    EXPECT_EQUAL(PAGE, info.alignment);
    EXPECT_OK(bsa_alloc_pages(heap.root, 4, 64 * KIB, 0, &address));
    EXPECT_EQUAL(0, (address - (uintptr_t)region) % (64 * KIB));
    EXPECT_EQUAL(0, address % info.alignment);
    EXPECT_OK(bsa_free(heap.root, address));
    heap_close(&heap);
}

static size_t resident_bytes(unsigned char *memory, size_t size) {
    size_t pages = size / PAGE, resident = 0;
    unsigned char *map = malloc(pages);

    EXPECT(map != NULL && mincore(memory, size, map) == 0);
    for (size_t i = 0; i < pages; i++) {
        resident += map[i] & 1U;
    }
    free(map);
    return resident * PAGE;
}

static void setting_up_sixteen_zeroed_gib_touches_less_than_a_mib(void) {
    size_t size = 16 * GIB;
    struct heap heap = heap_without_sections(PAGE, 1);
    struct bsa_section_config config = {.flags = BSA_ZEROED};
    unsigned char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct bsa_section_info info;
    struct snapshot snapshot;
    uintptr_t address;

    if (memory == MAP_FAILED) {
        fprintf(stderr, "%s: skipped, 16 GiB cannot be mapped here\n", current_test);
        heap_close(&heap);
        return;
    }
    madvise(memory, size, MADV_NOHUGEPAGE);
    EXPECT_OK(bsa_add_region(heap.root, memory, size, &config, NULL));
    info = section_info(heap.root, 0);
    EXPECT(info.size > 15 * GIB);
    EXPECT(info.meta_size * 1000 <= size * 24); /* 2.4 % */
    expect_covered(heap.root, 0);
    EXPECT_SOUND(heap.root);
    snapshot = snapshot_of(heap.root, EVERYTHING);
    EXPECT_OK(bsa_alloc_pages(heap.root, 1, 0, 0, &address));
    EXPECT_OK(bsa_free(heap.root, address));
    EXPECT_SOUND(heap.root);
    EXPECT(snapshot_still_holds(&snapshot, heap.root));
    EXPECT(resident_bytes(memory, size) < 1 * MIB);
    heap_close(&heap);
    munmap(memory, size);
}

static void metadata_takes_at_most_two_point_four_percent_from_64_mib_up(void) {
    struct heap heap = heap_without_sections(PAGE, 1);
    size_t size = 64 * MIB;
    struct bsa_section_config config = {.flags = BSA_ZEROED};
    unsigned char *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    EXPECT(memory != MAP_FAILED);
    EXPECT_OK(bsa_add_region(heap.root, memory, size, &config, NULL));
    EXPECT((size - section_info(heap.root, 0).size) * 1000 <= size * 24);
    heap_close(&heap);
    munmap(memory, size);
}

/* --- requests ----------------------------------------------------------------------------------
 */

static void a_request_before_the_first_section_is_refused(void) {
    struct heap heap = heap_without_sections(PAGE, 1);
    enum bsa_page_state state;
    struct bsa_allocation found;
    struct bsa_slab_info slab;
    uintptr_t address;
    unsigned index;

    EXPECT_STATUS(BSA_NOT_INITIALIZED, bsa_alloc(heap.root, 1, 0, 0, &address));
    EXPECT_STATUS(BSA_NOT_INITIALIZED, bsa_alloc_pages(heap.root, 1, 0, 0, &address));
    EXPECT_STATUS(BSA_NOT_INITIALIZED, bsa_alloc_pages_lowmem(heap.root, 1, 0, &address));
    EXPECT_STATUS(BSA_NOT_INITIALIZED, bsa_free(heap.root, 4096));
    EXPECT_STATUS(BSA_NOT_INITIALIZED, bsa_free_pages(heap.root, 4096, 1));
    EXPECT_STATUS(BSA_NOT_INITIALIZED, bsa_realloc(heap.root, 4096, 1, &address));
    EXPECT_STATUS(BSA_NOT_INITIALIZED, bsa_lookup(heap.root, 4096, &found));
    EXPECT_STATUS(BSA_NOT_INITIALIZED, bsa_slab_of(heap.root, 4096, &slab));
    EXPECT_STATUS(BSA_NOT_INITIALIZED, bsa_page_state_of(heap.root, 4096, &state));
    EXPECT_STATUS(BSA_NOT_INITIALIZED, bsa_section_of(heap.root, 4096, &index));
    EXPECT_EQUAL(0, bsa_trim(heap.root));
    heap_close(&heap);
}

static void impossible_page_requests_are_refused(void) {
    static const size_t counts[] = {0,
                                    ((size_t)1 << BSA_MAX_ORDER) + 1,
                                    (size_t)1 << 32,
                                    SIZE_MAX / PAGE,
                                    SIZE_MAX / PAGE + 1,
                                    SIZE_MAX / 2,
                                    SIZE_MAX / 2 + 1,
                                    SIZE_MAX / 2 + 2,
                                    SIZE_MAX - 1,
                                    SIZE_MAX};
    static const size_t aligns[] = {1,        2,        8,        PAGE / 2,       PAGE - 1,
                                    PAGE + 1, 3 * PAGE, SIZE_MAX, SIZE_MAX - PAGE};
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t address;

    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root,
                       bsa_alloc_pages(heap.root, counts[i], 0, 0, &address));
        EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root,
                       bsa_alloc_pages(heap.root, counts[i], PAGE, BSA_EXACT, &address));
        EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root,
                       bsa_alloc_pages_lowmem(heap.root, counts[i], 0, &address));
    }
    for (size_t i = 0; i < COUNT_OF(aligns); i++) {
        EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root,
                       bsa_alloc_pages(heap.root, 1, aligns[i], 0, &address));
        EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root,
                       bsa_alloc_pages_lowmem(heap.root, 1, aligns[i], &address));
    }
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root,
                   bsa_alloc_pages(heap.root, (size_t)1 << BSA_MAX_ORDER, 0, 0, &address));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root,
                   bsa_alloc_pages(heap.root, 1, SIZE_MAX / 2 + 1, 0, &address));
    EXPECT_EQUAL(2, stats_of(heap.root).failures);
    heap_close(&heap);
}

static void a_count_is_rounded_up_to_a_power_of_two(void) {
    struct heap heap = heap_of(16 * MIB, 1);

    for (size_t count = 1; count <= 70; count++) {
        uintptr_t address = must_alloc_pages(heap.root, count);
        struct bsa_allocation found;
        size_t rounded = 1;

        while (rounded < count) {
            rounded *= 2;
        }
        EXPECT_EQUAL(0, address % PAGE);
        EXPECT_EQUAL(rounded * PAGE, stats_of(heap.root).allocated_bytes);
        EXPECT_OK(bsa_lookup(heap.root, address, &found));
        EXPECT_EQUAL(rounded * PAGE, found.usable_size);
        EXPECT_EQUAL(count * PAGE, found.requested_size);
        EXPECT_EQUAL(BSA_KIND_PAGES, found.kind);
        EXPECT_OK(bsa_free_pages(heap.root, address, count));
        EXPECT_EQUAL(0, stats_of(heap.root).allocated_bytes);
    }
    heap_close(&heap);
}

static void an_alignment_beyond_that_of_the_heaps_start_is_served(void) {
    struct heap heap = heap_at_odd_page(16 * MIB);

    for (size_t count = 1; count <= 64; count *= 4) {
        for (size_t align = PAGE; align <= 4 * MIB; align *= 2) {
            uint64_t before = bsa_free_page_count(heap.root);
            uintptr_t address;

            EXPECT_OK(bsa_alloc_pages(heap.root, count, align, 0, &address));
            EXPECT_EQUAL(0, address % align);
            EXPECT_EQUAL(before - count,
                         bsa_free_page_count(heap.root)); /* the block is no larger */
            EXPECT_SOUND(heap.root);
            EXPECT_OK(bsa_free_pages(heap.root, address, count));
            expect_whole(heap.root, 0);
        }
    }
    heap_close(&heap);
}

/* Whether any free run holds a block of 2^order pages, aligned to its size and to `align`. */
static bool holds_aligned_block(const struct bsa_root *root, unsigned order, size_t align) {
    uintptr_t blocks[2048];

    for (unsigned o = order; o <= BSA_MAX_ORDER; o++) {
        size_t count = bsa_free_list(root, 0, o, blocks, COUNT_OF(blocks));

        EXPECT(count <= COUNT_OF(blocks));
        for (size_t i = 0; i < count; i++) {
            for (size_t at = 0; at < PAGE << o; at += PAGE << order) {
                if ((blocks[i] + at) % align == 0) {
                    return true;
                }
            }
        }
    }
    return false;
}

static void an_over_aligned_request_succeeds_whenever_some_free_block_holds_it(void) {
    struct heap heap = heap_at_odd_page(2 * MIB);
    uintptr_t pages[512];
    unsigned count = 0, answers[2] = {0, 0};
    uint64_t seed = 99;

    while (bsa_alloc_pages(heap.root, 1, 0, 0, &pages[count]) == BSA_OK) {
        count++;
    }
    for (int round = 0; round < 3000; round++) {
        unsigned order = random_below(&seed, 4);
        size_t align = PAGE << random_below(&seed, 11);
        bool expected = holds_aligned_block(heap.root, order, align);
        uintptr_t address;
        bsa_status status = bsa_alloc_pages(heap.root, (size_t)1 << order, align, 0, &address);

        EXPECT_EQUAL(expected ? BSA_OK : BSA_NO_MEMORY, status);
        answers[expected]++;
        if (status == BSA_OK) {
            EXPECT_EQUAL(0, address % align);
            EXPECT_OK(bsa_free(heap.root, address));
        }
        if (count > 0 && round % 12 == 0) {
            unsigned victim = random_below(&seed, count);

            EXPECT_OK(bsa_free(heap.root, pages[victim]));
            pages[victim] = pages[--count];
        }
    }
    EXPECT(answers[0] > 300 && answers[1] > 300);
    heap_close(&heap);
}

static void an_exact_block_keeps_only_the_pages_asked_for(void) {
    struct heap heap = heap_of(4 * MIB, 1);

    for (size_t count = 1; count <= 40; count++) {
        uintptr_t address;
        struct bsa_allocation found;

        EXPECT_OK(bsa_alloc_pages(heap.root, count, 0, BSA_EXACT, &address));
        EXPECT_EQUAL(count * PAGE, stats_of(heap.root).allocated_bytes);
        EXPECT_OK(bsa_lookup(heap.root, address, &found));
        EXPECT_EQUAL(count * PAGE, found.usable_size);
        EXPECT_SOUND(heap.root);
        EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root, bsa_free_pages(heap.root, address, count + 1));
        EXPECT_OK(bsa_free_pages(heap.root, address, count));
        EXPECT_SOUND(heap.root);
        EXPECT_EQUAL(0, stats_of(heap.root).allocated_bytes);
    }
    expect_whole(heap.root, 0);
    heap_close(&heap);
}

static void an_exact_block_grows_back_into_its_tail(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t address, tail, moved;

    EXPECT_OK(bsa_alloc_pages(heap.root, 5, 0, BSA_EXACT, &address));
    memset((void *)address, 0x5a, 5 * PAGE);
    EXPECT_OK(bsa_realloc(heap.root, address, 7 * PAGE, &moved));
    EXPECT_EQUAL(address, moved);
    EXPECT_EQUAL(7 * PAGE, stats_of(heap.root).allocated_bytes);
    EXPECT_EQUAL(0x5a, ((unsigned char *)moved)[5 * PAGE - 1]);
    EXPECT_OK(bsa_realloc(heap.root, address, 5 * PAGE - 10, &moved));
    EXPECT_EQUAL(address, moved);
    EXPECT_EQUAL(5 * PAGE, stats_of(heap.root).allocated_bytes);
    EXPECT_EQUAL(5 * PAGE - 10, stats_of(heap.root).requested_bytes);
    /* Someone else in the tail: it has to move. */
    tail = must_alloc_pages(heap.root, 1);
    EXPECT_EQUAL(address + 5 * PAGE, tail);
    EXPECT_OK(bsa_realloc(heap.root, address, 6 * PAGE, &moved));
    EXPECT(moved != address);
    EXPECT_EQUAL(0x5a, *(unsigned char *)moved);
    EXPECT_EQUAL(0x5a, ((unsigned char *)moved)[5 * PAGE - 11]);
    EXPECT_OK(bsa_free(heap.root, tail));
    EXPECT_OK(bsa_free(heap.root, moved));
    expect_whole(heap.root, 0);
    heap_close(&heap);
}

/* --- freeing -----------------------------------------------------------------------------------
 */

static void a_heap_freed_in_any_order_is_as_at_the_start(void) {
    uint64_t seed = 5;

    for (int round = 0; round < 20; round++) {
        struct heap heap = heap_at_odd_page(2 * MIB);
        struct snapshot start = snapshot_of(heap.root, THE_TRUTH);
        uintptr_t blocks[600];
        unsigned count = 0;

        while (bsa_alloc_pages(heap.root, 1 + random_below(&seed, 9), 0,
                               random_below(&seed, 2) == 0 ? BSA_EXACT : 0,
                               &blocks[count]) == BSA_OK) {
            count++;
        }
        EXPECT_SOUND(heap.root);
        while (count > 0) {
            unsigned victim = random_below(&seed, count);

            EXPECT_OK(bsa_free(heap.root, blocks[victim]));
            blocks[victim] = blocks[--count];
        }
        EXPECT(snapshot_still_holds(&start, heap.root));
        heap_close(&heap);
    }
}

static void every_other_page_freed_holds_no_larger_block_until_the_rest_is_freed(void) {
    struct heap heap = heap_of(256 * KIB, 1);
    uintptr_t pages[64], address;
    unsigned count = 0;

    while (bsa_alloc_pages(heap.root, 1, 0, 0, &pages[count]) == BSA_OK) {
        count++;
    }
    EXPECT_EQUAL(section_info(heap.root, 0).total_pages, count);
    qsort(pages, count, sizeof pages[0], compare_addresses);
    for (unsigned i = 0; i < count; i += 2) {
        EXPECT_OK(bsa_free_pages(heap.root, pages[i], 1));
    }
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc_pages(heap.root, 2, 0, 0, &address));
    EXPECT_EQUAL((count + 1) / 2, bsa_free_page_count(heap.root));
    for (unsigned i = 1; i < count; i += 2) {
        EXPECT_OK(bsa_free_pages(heap.root, pages[i], 1));
    }
    EXPECT_OK(bsa_alloc_pages(heap.root, 8, 0, 0, &address));
    EXPECT_OK(bsa_free_pages(heap.root, address, 8));
    expect_whole(heap.root, 0);
    heap_close(&heap);
}

static void a_free_that_is_wrong_is_refused_and_changes_nothing(void) {
    struct heap heap = heap_of(4 * MIB, 1);
    struct bsa_section_info info = section_info(heap.root, 0);
    uintptr_t block = must_alloc_pages(heap.root, 4), freed = must_alloc_pages(heap.root, 2);
    uintptr_t exact, object = must_alloc(heap.root, 0, 64);
    struct bsa_root *root = heap.root;

    EXPECT_OK(bsa_alloc_pages(root, 3, 0, BSA_EXACT, &exact));
    EXPECT_OK(bsa_free(root, freed));
    /* outside every heap: before, in the metadata, behind, nowhere */
    EXPECT_REFUSED(BSA_NOT_FOUND, root, bsa_free(root, 0));
    EXPECT_REFUSED(BSA_NOT_FOUND, root, bsa_free(root, UINTPTR_MAX));
    EXPECT_REFUSED(BSA_NOT_FOUND, root, bsa_free(root, info.meta_start));
    EXPECT_REFUSED(BSA_NOT_FOUND, root, bsa_free(root, info.start - PAGE));
    EXPECT_REFUSED(BSA_NOT_FOUND, root, bsa_free(root, info.start - 1));
    EXPECT_REFUSED(BSA_NOT_FOUND, root, bsa_free(root, info.start + info.size));
    EXPECT_REFUSED(BSA_NOT_FOUND, root, bsa_free_pages(root, info.start + info.size, 1));
    EXPECT_REFUSED(BSA_NOT_FOUND, root, bsa_free_pages(root, info.start - PAGE, 0));
    /* not at a page's start */
    EXPECT_REFUSED(BSA_INVALID_PARAM, root, bsa_free(root, block + 1));
    EXPECT_REFUSED(BSA_INVALID_PARAM, root, bsa_free(root, block + PAGE - 1));
    EXPECT_REFUSED(BSA_INVALID_PARAM, root, bsa_free_pages(root, block + 8, 1));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, root, bsa_free(root, info.start + info.size - 1)); /* free */
    /* not the first page of a live block */
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, root, bsa_free(root, block + PAGE));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, root, bsa_free(root, block + 3 * PAGE));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, root, bsa_free_pages(root, block + 2 * PAGE, 2));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, root, bsa_free(root, freed));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, root, bsa_free_pages(root, freed, 2));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, root, bsa_free(root, info.start + info.size - PAGE));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, root, bsa_free(root, exact + 3 * PAGE));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, root,
                   bsa_free_pages(root, slab_of(root, object).base, 1)); /* a slab's page */
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, root,
                   bsa_free_pages(root, slab_of(root, object).base + PAGE, 1));
    /* wrong counts */
    EXPECT_REFUSED(BSA_INVALID_PARAM, root, bsa_free_pages(root, block, 0));
    EXPECT_REFUSED(BSA_INVALID_PARAM, root, bsa_free_pages(root, block, 5));
    EXPECT_REFUSED(BSA_INVALID_PARAM, root, bsa_free_pages(root, block, SIZE_MAX));
    EXPECT_REFUSED(BSA_INVALID_PARAM, root, bsa_free_pages(root, exact, 4));
    EXPECT_OK(bsa_free_pages(root, block, 3)); /* the whole block goes */
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, root, bsa_free(root, block));
    EXPECT_OK(bsa_free(root, exact));
    EXPECT_OK(bsa_free(root, object));
    bsa_trim(root);
    expect_whole(root, 0);
    heap_close(&heap);
}

static void a_cached_empty_slabs_page_cannot_be_freed(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t object = must_alloc(heap.root, 0, 64), base = slab_of(heap.root, object).base;

    EXPECT_OK(bsa_free(heap.root, object));
    EXPECT(stats_of(heap.root).allocated_bytes >= PAGE);
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_free_pages(heap.root, base, 1));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_free(heap.root, base));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_free_pages(heap.root, base + PAGE, 1));
    heap_close(&heap);
}

/* --- limit and queries -------------------------------------------------------------------------
 */

static void the_limit_bounds_what_requests_may_reach(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t a, b, moved;

    bsa_set_limit(heap.root, 10 * PAGE + 17);
    a = must_alloc_pages(heap.root, 8);
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc_pages(heap.root, 3, 0, 0, &b));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc_pages_lowmem(heap.root, 4, 0, &b));
    b = must_alloc_pages(heap.root, 2);
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc(heap.root, 10, 0, 0, &moved));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_realloc(heap.root, b, 3 * PAGE, &moved));
    EXPECT_OK(bsa_free(heap.root, b));
    /* What an empty slab holds is given back before a request fails for the limit. */
    b = must_alloc(heap.root, 0, 10);
    EXPECT_OK(bsa_free(heap.root, b));
    b = must_alloc_pages(heap.root, 2);
    EXPECT_EQUAL(10 * PAGE, stats_of(heap.root).allocated_bytes);
    bsa_set_limit(heap.root, 0);
    EXPECT_OK(bsa_realloc(heap.root, b, 2 * PAGE - 1, &moved)); /* no page more */
    EXPECT_EQUAL(b, moved);
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc_pages(heap.root, 1, 0, 0, &moved));
    EXPECT_OK(bsa_free(heap.root, a));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc_pages(heap.root, 1, 0, 0, &moved));
    bsa_set_limit(heap.root, UINT64_MAX);
    a = must_alloc_pages(heap.root, 16);
    EXPECT_OK(bsa_free(heap.root, a));
    EXPECT_OK(bsa_free(heap.root, b));
    heap_close(&heap);
}

static void queries_add_up_over_all_sections(void) {
    struct heap heap = heap_of(64 * KIB, 1);
    uint64_t blocks[BSA_MAX_ORDER + 1], pages = 0;
    struct bsa_section_info a, b;
    struct bsa_section_info none;

    heap_add(&heap, 128 * KIB, PAGE, 0);
    must_alloc_pages(heap.root, 2);
    a = section_info(heap.root, 0);
    b = section_info(heap.root, 1);
    EXPECT_EQUAL(2, bsa_section_count(heap.root));
    EXPECT_STATUS(BSA_NOT_FOUND, bsa_section_info(heap.root, 2, &none));
    EXPECT_EQUAL(a.total_pages + b.total_pages, bsa_total_pages(heap.root));
    EXPECT_EQUAL(a.free_pages + b.free_pages, bsa_free_page_count(heap.root));
    EXPECT_EQUAL(a.total_pages - 2, a.free_pages);
    bsa_free_blocks(heap.root, blocks);
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        EXPECT_EQUAL(a.free_blocks[order] + b.free_blocks[order], blocks[order]);
        pages += blocks[order] << order;
    }
    EXPECT_EQUAL(bsa_free_page_count(heap.root), pages);
    EXPECT_EQUAL(bsa_total_pages(heap.root) * PAGE - pages * PAGE,
                 stats_of(heap.root).allocated_bytes);
    heap_close(&heap);
}

static void free_lists_and_page_states_tell_the_same(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    unsigned char states[256], from_lists[256];
    struct bsa_section_info info = section_info(heap.root, 0);
    uint64_t seed = 3;

    for (int i = 0; i < 60; i++) {
        uintptr_t address;

        if (bsa_alloc_pages(heap.root, 1 + random_below(&seed, 6), 0, BSA_EXACT, &address) ==
                BSA_OK &&
            random_below(&seed, 2) == 0) {
            EXPECT_OK(bsa_free(heap.root, address));
        }
    }
    memset(from_lists, BSA_PAGE_BLOCK, sizeof from_lists);
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        uintptr_t blocks[256];
        size_t count = bsa_free_list(heap.root, 0, order, blocks, 256);

        for (size_t i = 0; i < count; i++) {
            memset(from_lists + (blocks[i] - info.start) / PAGE, BSA_PAGE_FREE, (size_t)1 << order);
        }
    }
    EXPECT_OK(bsa_page_states(heap.root, 0, states));
    EXPECT(memcmp(states, from_lists, info.total_pages) == 0);
    for (uint32_t page = 0; page < info.total_pages; page++) {
        enum bsa_page_state state;

        EXPECT_OK(bsa_page_state_of(heap.root, info.start + page * PAGE + 99, &state));
        EXPECT_EQUAL(states[page], state);
    }
    EXPECT_STATUS(BSA_NOT_FOUND, bsa_page_states(heap.root, 1, states));
    EXPECT_EQUAL(0, bsa_free_list(heap.root, 1, 0, NULL, 0));
    EXPECT_EQUAL(0, bsa_free_list(heap.root, 0, BSA_MAX_ORDER + 1, NULL, 0));
    heap_close(&heap);
}

static void expect_indices_of_all_orders(const uint64_t free_blocks[BSA_MAX_ORDER + 1]) {
    int64_t unusable[BSA_MAX_ORDER + 1], extfrag[BSA_MAX_ORDER + 1];

    bsa_fragmentation_indices(free_blocks, unusable, extfrag);
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        EXPECT(unusable[order] == bsa_unusable_index(free_blocks, order));
        EXPECT(extfrag[order] == bsa_extfrag_index(free_blocks, order));
    }
}

static void fragmentation_indices_follow_the_kernels_formulas(void) {
    uint64_t none[BSA_MAX_ORDER + 1] = {0}, singles[BSA_MAX_ORDER + 1] = {100};
    uint64_t mixed[BSA_MAX_ORDER + 1] = {4, 2, 0, 3};

    EXPECT_EQUAL(1000, bsa_unusable_index(none, 0));
    EXPECT_EQUAL(0, bsa_extfrag_index(none, 3));
    EXPECT_EQUAL(0, bsa_unusable_index(singles, 0));
    EXPECT_EQUAL(1000, bsa_unusable_index(singles, 1));
    EXPECT(bsa_extfrag_index(singles, 0) == -1000);
    /* 1000 - (1000 + 1000 * 100 / 2) / 100 */
    EXPECT_EQUAL(490, bsa_extfrag_index(singles, 1));
    EXPECT_EQUAL(250, bsa_unusable_index(mixed, 3)); /* 8 of 32 pages */
    EXPECT_EQUAL(125, bsa_unusable_index(mixed, 1));
    /* 1000 - (1000 + 1000 * 32 / 16) / 9 */
    EXPECT_EQUAL(667, bsa_extfrag_index(mixed, 4));
    expect_indices_of_all_orders(none);
    expect_indices_of_all_orders(singles);
    expect_indices_of_all_orders(mixed);
}

/* --- the model ---------------------------------------------------------------------------------
 */

/* The policy in its simplest form: a list of block starts for every order, last freed in front. */
enum { MODEL_PAGES = 1024, MODEL_ORDERS = 11 };

struct model {
    uint64_t first; /* nominal number of page 0 */
    uint32_t pages;
    uint32_t list[MODEL_ORDERS][MODEL_PAGES];
    uint32_t count[MODEL_ORDERS];
};

static void model_push(struct model *model, unsigned order, uint32_t page) {
    uint32_t *list = model->list[order];

    memmove(list + 1, list, model->count[order]++ * sizeof *list);
    list[0] = page;
}

static bool model_remove(struct model *model, unsigned order, uint32_t page) {
    for (uint32_t i = 0; i < model->count[order]; i++) {
        uint32_t *found = &model->list[order][i];

        if (*found == page) {
            memmove(found, found + 1, (--model->count[order] - i) * sizeof *found);
            return true;
        }
    }
    return false;
}

static void model_start(struct model *model, const struct bsa_section_info *info) {
    memset(model, 0, sizeof *model);
    model->first = info->start / PAGE;
    model->pages = info->total_pages;
    EXPECT(model->pages <= MODEL_PAGES);
    for (uint32_t page = 0; page < model->pages;) {
        unsigned order = 0;

        while ((model->first + page) % (2U << order) == 0 && page + (2U << order) <= model->pages) {
            order++;
        }
        EXPECT(order < MODEL_ORDERS);
        model->list[order][model->count[order]++] = page;
        page += 1U << order;
    }
}

static bool model_find(const struct model *model, unsigned order, unsigned align_order,
                       unsigned *from, uint32_t *page) {
    for (*from = align_order > order ? align_order : order; *from < MODEL_ORDERS; ++*from) {
        if (model->count[*from] > 0) {
            *page = model->list[*from][0];
            return true;
        }
    }
    for (*from = order; *from < align_order && *from < MODEL_ORDERS; ++*from) {
        for (uint32_t i = 0; i < model->count[*from]; i++) {
            *page = model->list[*from][i];
            if ((model->first + *page) % (1U << align_order) == 0) {
                return true;
            }
        }
    }
    return false;
}

static void model_free_block(struct model *model, unsigned order, uint32_t page) {
    while (order + 1 < MODEL_ORDERS) {
        uint64_t buddy = (model->first + page) ^ (1U << order);

        if (buddy < model->first || !model_remove(model, order, (uint32_t)(buddy - model->first))) {
            break;
        }
        page = (uint32_t)(buddy - model->first) < page ? (uint32_t)(buddy - model->first) : page;
        order++;
    }
    model_push(model, order, page);
}

/* Frees pages from the end down to `keep`, in the largest aligned pieces. */
static void model_shrink(struct model *model, uint32_t page, uint32_t have, uint32_t keep) {
    while (have > keep) {
        unsigned order = 0;

        while (have % (2U << order) == 0 && have - (2U << order) >= keep) {
            order++;
        }
        have -= 1U << order;
        model_free_block(model, order, page + have);
    }
}

static bool model_alloc(struct model *model, uint32_t count, unsigned align_order, bool exact,
                        uint32_t *page) {
    unsigned order = 0, from;

    while (1U << order < count) {
        order++;
    }
    if (!model_find(model, order, align_order, &from, page)) {
        return false;
    }
    EXPECT(model_remove(model, from, *page));
    for (unsigned o = from; o-- > order;) {
        model_push(model, o, *page + (1U << o));
    }
    model_shrink(model, *page, 1U << order, exact ? count : 1U << order);
    return true;
}

static void model_free(struct model *model, uint32_t page, uint32_t count) {
    unsigned order = 0;

    while (2U << order <= count) {
        order++;
    }
    model_shrink(model, page, count, 1U << order);
    model_free_block(model, order, page);
}

static void expect_lists_of_model(const struct bsa_root *root, const struct model *model,
                                  uintptr_t start) {
    for (unsigned order = 0; order < MODEL_ORDERS; order++) {
        uintptr_t blocks[MODEL_PAGES];

        EXPECT_EQUAL(model->count[order], bsa_free_list(root, 0, order, blocks, MODEL_PAGES));
        for (uint32_t i = 0; i < model->count[order]; i++) {
            EXPECT_EQUAL(start + model->list[order][i] * PAGE, blocks[i]);
        }
    }
}

static void the_model_predicts_every_address(void) {
    static struct model model;

    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct heap heap = heap_without_sections(PAGE, 1);
        struct bsa_section_info info;
        struct {
            uint32_t page, count;
        } live[MODEL_PAGES];
        unsigned count = 0;
        uint64_t random = seed;

        heap_add(&heap, (100 + seed * 70) * PAGE, 1 * MIB, seed * 3 * PAGE);
        info = section_info(heap.root, 0);
        model_start(&model, &info);
        for (int step = 0; step < 4000; step++) {
            bool growing = step / 500 % 2 == 0;

            if (count == 0 || random_below(&random, 10) < (growing ? 6U : 4U)) {
                uint32_t pages = 1 + random_below(&random, random_below(&random, 4) == 0 ? 40 : 5);
                unsigned align_order = random_below(&random, 3) == 0 ? random_below(&random, 9) : 0;
                bool exact = random_below(&random, 3) == 0;
                uint32_t page = 0;
                uintptr_t address = 0;
                bool expected = model_alloc(&model, pages, align_order, exact, &page);

                EXPECT_STATUS(expected ? BSA_OK : BSA_NO_MEMORY,
                              bsa_alloc_pages(heap.root, pages, PAGE << align_order,
                                              exact ? BSA_EXACT : 0, &address));
                if (expected) {
                    EXPECT_EQUAL(info.start + page * PAGE, address);
                    live[count].page = page;
                    for (live[count].count = 1; !exact && live[count].count < pages;) {
                        live[count].count *= 2;
                    }
                    live[count].count = exact ? pages : live[count].count;
                    count++;
                }
            } else {
                unsigned victim = random_below(&random, count);

                EXPECT_OK(bsa_free_pages(heap.root, info.start + live[victim].page * PAGE,
                                         live[victim].count));
                model_free(&model, live[victim].page, live[victim].count);
                live[victim] = live[--count];
            }
            if (step % 50 == 0) {
                expect_lists_of_model(heap.root, &model, info.start);
                EXPECT_SOUND(heap.root);
            }
        }
        heap_close(&heap);
    }
}

static void the_smallest_order_that_fits_is_split_lower_half_first(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t a, b, c;
    unsigned order = 0;

    while (first_free(heap.root, 0, order) == 0) {
        order++;
    }
    a = first_free(heap.root, 0, order);
    EXPECT_EQUAL(a, must_alloc_pages(heap.root, 1));
    while (first_free(heap.root, 0, order) == 0) {
        order++;
    }
    b = must_alloc_pages(heap.root, (size_t)1 << order);
    c = must_alloc_pages(heap.root, (size_t)1 << order);
    EXPECT_OK(bsa_free(heap.root, c));
    EXPECT_OK(bsa_free(heap.root, b));
    EXPECT_EQUAL(b, must_alloc_pages(heap.root, (size_t)1 << order)); /* last freed first */
    heap_close(&heap);
}

int main(void) {
    RUN(a_new_heap_is_covered_by_the_largest_aligned_blocks_in_address_order);
    RUN(every_page_size_from_256_bytes_to_2_mib_works);
    RUN(page_sizes_and_slot_counts_out_of_range_are_refused);
    RUN(a_region_may_start_and_end_anywhere);
    RUN(a_region_too_small_for_its_metadata_and_one_page_is_refused);
    RUN(regions_whose_addresses_wrap_are_refused);
    RUN(a_region_that_shares_one_byte_with_another_is_refused_and_touching_is_fine);
    RUN(blocks_never_merge_across_touching_sections);
    RUN(a_section_in_use_cannot_be_removed_and_a_free_one_can);
    RUN(sections_that_come_and_go_are_always_found);
    RUN(page_numbers_of_removed_sections_are_given_again);
    RUN(three_hundred_sections_are_used_in_registration_order);
    RUN(a_section_added_in_use_serves_what_the_first_cannot);
    RUN(metadata_and_heap_may_lie_apart_and_a_heap_that_is_no_memory_is_never_touched);
    RUN(metadata_of_its_own_stays_within_the_bytes_given);
    RUN(the_largest_block_has_two_to_the_twenty_pages);
    RUN(the_high_water_mark_lies_above_every_block_that_was_split_off);
    RUN(numbers_of_an_offset_only_heap_count_from_the_region);
    RUN(setting_up_sixteen_zeroed_gib_touches_less_than_a_mib);
    RUN(metadata_takes_at_most_two_point_four_percent_from_64_mib_up);
    RUN(a_request_before_the_first_section_is_refused);
    RUN(impossible_page_requests_are_refused);
    RUN(a_count_is_rounded_up_to_a_power_of_two);
    RUN(an_alignment_beyond_that_of_the_heaps_start_is_served);
    RUN(an_over_aligned_request_succeeds_whenever_some_free_block_holds_it);
    RUN(an_exact_block_keeps_only_the_pages_asked_for);
    RUN(an_exact_block_grows_back_into_its_tail);
    RUN(a_heap_freed_in_any_order_is_as_at_the_start);
    RUN(every_other_page_freed_holds_no_larger_block_until_the_rest_is_freed);
    RUN(a_free_that_is_wrong_is_refused_and_changes_nothing);
    RUN(a_cached_empty_slabs_page_cannot_be_freed);
    RUN(the_limit_bounds_what_requests_may_reach);
    RUN(queries_add_up_over_all_sections);
    RUN(free_lists_and_page_states_tell_the_same);
    RUN(fragmentation_indices_follow_the_kernels_formulas);
    RUN(the_smallest_order_that_fits_is_split_lower_half_first);
    RUN(the_model_predicts_every_address);
    return 0;
}
