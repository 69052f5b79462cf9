/* needs: hosted/metrics.c
 *
 * Numbers that are kept or summed up in one pass are those that the plain questions give. */
#include "metrics.h"

#include "check.h"

#define BLOCKS 300

/* Some objects and page blocks, of which every third is freed, half of those by another slot. */
static void use(struct bsa_root *root, unsigned slots) {
    uintptr_t addresses[BLOCKS];

    for (unsigned i = 0; i < BLOCKS; i++) {
        EXPECT_OK(bsa_alloc_on(root, i % slots, i * i % 9000, 0, 0, &addresses[i]));
    }
    for (unsigned i = 0; i < BLOCKS; i += 3) {
        EXPECT_OK(bsa_free_on(root, (i + i % 2) % slots, addresses[i]));
    }
}

static void expect_usage_of_stats(const struct bsa_root *root) {
    struct bsa_stats stats;
    struct bsa_usage usage;

    bsa_stats(root, &stats);
    bsa_usage(root, &usage);
    EXPECT_EQUAL(stats.current_bytes, usage.current_bytes);
    EXPECT_EQUAL(stats.requested_bytes, usage.requested_bytes);
    EXPECT_EQUAL(stats.allocated_bytes, usage.allocated_bytes);
    EXPECT_EQUAL(stats.peak_allocated_bytes, usage.peak_allocated_bytes);
}

static void usage_is_that_of_the_statistics(void) {
    struct heap heaps[] = {heap_of(8 * MIB, 3), serial_heap_of(8 * MIB, 3)};

    for (unsigned i = 0; i < COUNT_OF(heaps); i++) {
        expect_usage_of_stats(heaps[i].root);
        use(heaps[i].root, 3);
        expect_usage_of_stats(heaps[i].root);
        bsa_trim(heaps[i].root);
        expect_usage_of_stats(heaps[i].root);
        heap_close(&heaps[i]);
    }
}

static void expect_indices_of_each_order(const uint64_t blocks[BSA_MAX_ORDER + 1]) {
    int64_t unusable[BSA_MAX_ORDER + 1], extfrag[BSA_MAX_ORDER + 1];

    bsa_fragmentation_indices(blocks, unusable, extfrag);
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        EXPECT_EQUAL(bsa_unusable_index(blocks, order), unusable[order]);
        EXPECT_EQUAL(bsa_extfrag_index(blocks, order), extfrag[order]);
    }
}

static void the_indices_of_all_orders_are_those_of_each(void) {
    for (uint64_t pattern = 0; pattern < 1 << 12; pattern++) {
        uint64_t blocks[BSA_MAX_ORDER + 1] = {0};

        for (unsigned bit = 0; bit < 12; bit++) {
            blocks[bit * 3 % (BSA_MAX_ORDER + 1)] += (pattern >> bit & 1) * (bit + 1);
        }
        expect_indices_of_each_order(blocks);
    }
}

static void a_look_at_a_heap_adds_up(void) {
    struct heap heap = serial_heap_of(8 * MIB, 2);
    struct bsa_usage usage;
    struct bsa_sample sample;
    struct bsa_section_info info;

    use(heap.root, 2);
    info = section_info(heap.root, 0);
    bsa_usage(heap.root, &usage);
    bsa_sample_heap(heap.root, &usage, &sample);
    EXPECT_EQUAL(info.size, sample.allocated + sample.free);
    EXPECT_EQUAL((uint64_t)info.free_pages * bsa_page_size(heap.root), sample.free);
    EXPECT_EQUAL(usage.current_bytes, sample.allocated - sample.slab_slack);
    EXPECT_EQUAL(usage.requested_bytes, usage.current_bytes - (uint64_t)sample.page_rounding);
    EXPECT(sample.largest_free > 0 && sample.huge_free <= sample.free);
    heap_close(&heap);
}

int main(void) {
    RUN(usage_is_that_of_the_statistics);
    RUN(the_indices_of_all_orders_are_those_of_each);
    RUN(a_look_at_a_heap_adds_up);
    return 0;
}
