/* See metrics.h. Everything is a sum over the counts of free blocks per order, or kept by the heap
 * anyway: a look costs O(orders), however large the heap is. */
#include "metrics.h"

static void sum_free_blocks(const uint64_t free_blocks[BSA_MAX_ORDER + 1], uint64_t page,
                            struct bsa_sample *sample) {
    uint64_t pages = 0, squares = 0, huge_pages = 0, largest = 0;

    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        uint64_t in_order = free_blocks[order] << order;

        pages += in_order;
        squares += in_order << order;
        huge_pages += page << order >= BSA_HUGE_PAGE ? in_order : 0;
        largest = in_order > 0 ? (uint64_t)1 << order : largest;
        sample->free_blocks[order] = (int64_t)free_blocks[order];
    }
    sample->free = (int64_t)(pages * page);
    sample->largest_free = (int64_t)(largest * page);
    sample->huge_free = (int64_t)(huge_pages * page);
    sample->free_squares = (int64_t)squares;
}

void bsa_sample_heap(const struct bsa_root *root, const struct bsa_usage *usage,
                     struct bsa_sample *sample) {
    uint64_t free_blocks[BSA_MAX_ORDER + 1];

    bsa_free_blocks(root, free_blocks);
    sum_free_blocks(free_blocks, bsa_page_size(root), sample);
    bsa_fragmentation_indices(free_blocks, sample->unusable, sample->extfrag);
    sample->allocated = (int64_t)usage->allocated_bytes;
    sample->peak_allocated = (int64_t)usage->peak_allocated_bytes;
    sample->page_rounding = (int64_t)(usage->current_bytes - usage->requested_bytes);
    sample->slab_slack = (int64_t)(usage->allocated_bytes - usage->current_bytes);
}
