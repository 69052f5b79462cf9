/* See page_cache.h for what caches are and who may touch them. */
#include "page_cache.h"
#include "root.h"

/* --- how much they hold ------------------------------------------------------------------------
 */

void bsa_page_caches_resize(struct bsa_root *root) {
    uint64_t share = atomic_load_explicit(&root->total_pages, memory_order_relaxed) /
                     ((uint64_t)BSA_CACHED_SHARE * root->space.slot_count);
    uint64_t pages = share < BSA_CACHED_PAGES ? share : BSA_CACHED_PAGES;

    if (!root->has_page_caches ||
        atomic_load_explicit(&root->limit_pages, memory_order_relaxed) != UINT64_MAX) {
        pages = 0;
    }
    for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
        uint64_t blocks = pages >> order;

        atomic_store_explicit(&root->cached_blocks[order],
                              blocks < BSA_CACHED_BLOCKS ? (uint32_t)blocks : BSA_CACHED_BLOCKS,
                              memory_order_relaxed);
    }
}

void bsa_page_cache_init(struct bsa_page_cache *cache, unsigned number, unsigned page_shift) {
    for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
        struct bsa_page_stack *stack = &cache->stacks[order];

        stack->live = bsa_cacheable_word(order);
        stack->cached = bsa_cached_word(order, number);
        stack->bytes = (uint64_t)1 << order << page_shift;
    }
}

/* --- to and from the buddy ---------------------------------------------------------------------
 */

/* Puts blocks that lie in a row on the stack, above `count` others; the last one first: it is taken
 * last. */
static void add_row(struct bsa_page_stack *stack, uint32_t count, struct bsa_slab first,
                    unsigned order, uint32_t blocks) {
    uintptr_t address = bsa_page_address(first.section, first.head);
    struct bsa_page *page = bsa_slab_page(first);
    uint64_t bytes = stack->bytes;

    for (struct bsa_cached_block *block = &stack->blocks[count + blocks]; blocks > 0; blocks--) {
        bsa_cached_block_set(--block, address, page, first.section);
        bsa_page_set_requested(page, bytes);
        address += bytes;
        page += (size_t)1 << order;
    }
}

uint32_t bsa_page_cache_fill(struct bsa_root *root, struct bsa_slot *slot, unsigned order) {
    struct bsa_page_stack *stack = &slot->pages.stacks[order];
    uint32_t wanted = (bsa_cached_room(root, order) + 1) / 2, count = 0;
    struct bsa_slab first;

    BSA_ASSERT(bsa_cached_count(stack) == 0);
    bsa_lock_pages(root);
    /* Half of it will do. To cut a block for the rest would leave its other parts for the next
     * time, and so on for ever. */
    while (count < (wanted + 1) / 2) {
        unsigned most = order + bsa_log2_floor(wanted - count);
        uint32_t blocks = bsa_pages_lend(root, order, most, stack->cached, &first);

        if (blocks == 0) {
            break;
        }
        add_row(stack, count, first, order, blocks);
        count += blocks;
    }
    /* Before the lock goes: who adds up under it counts no block twice. */
    bsa_cached_count_set(stack, count);
    bsa_unlock_pages(root);
    return count;
}

/* Gives the oldest blocks of the order to the buddy. */
static void give_back(struct bsa_root *root, struct bsa_page_cache *cache, unsigned order,
                      uint32_t blocks) {
    struct bsa_page_stack *stack = &cache->stacks[order];
    struct bsa_cached_block *oldest = stack->blocks;
    uint32_t count = bsa_cached_count(stack);

    bsa_lock_pages(root);
    bsa_pages_take_in(root, order, oldest, blocks);
    for (uint32_t i = blocks; i < count; i++) {
        bsa_cached_block_set(&oldest[i - blocks], oldest[i].address, oldest[i].page,
                             bsa_section_of_cached(&oldest[i]));
    }
    bsa_cached_count_set(stack, count - blocks);
    bsa_unlock_pages(root);
}

void bsa_page_cache_spill(struct bsa_root *root, struct bsa_slot *slot, unsigned order) {
    give_back(root, &slot->pages, order, (bsa_cached_count(&slot->pages.stacks[order]) + 1) / 2);
}

void bsa_page_cache_merge(struct bsa_root *root, struct bsa_slot *slot) {
    for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
        uint32_t count = bsa_cached_count(&slot->pages.stacks[order]);

        if (count != 0) {
            give_back(root, &slot->pages, order, count);
        }
    }
}

/* --- all slots' --------------------------------------------------------------------------------
 */

void bsa_page_caches_merge_shared(struct bsa_root *root) {
    for (unsigned i = 0; root->has_page_caches && i < root->space.slot_count; i++) {
        struct bsa_slot *slot = &root->space.slots[i];

        if (bsa_enter_shared(root, slot)) {
            bsa_page_cache_merge(root, slot);
            bsa_leave_slot(root, slot, true);
        }
    }
}

void bsa_page_caches_merge_all(struct bsa_root *root) {
    for (unsigned i = 0; root->has_page_caches && i < root->space.slot_count; i++) {
        bsa_page_cache_merge(root, &root->space.slots[i]);
    }
}

static uint64_t count_in(const struct bsa_page_stack *stack, const struct bsa_section *section) {
    uint32_t count = bsa_cached_count(stack);
    uint64_t found = 0;

    if (section == NULL) {
        return count;
    }
    for (uint32_t i = 0; i < count; i++) {
        found += bsa_section_of_cached(&stack->blocks[i]) == section;
    }
    return found;
}

void bsa_page_caches_count(const struct bsa_root *root, const struct bsa_section *section,
                           uint64_t counts[BSA_MAX_ORDER + 1]) {
    for (unsigned i = 0; root->has_page_caches && i < root->space.slot_count; i++) {
        for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
            counts[order] += count_in(&root->space.slots[i].pages.stacks[order], section);
        }
    }
}
