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

/* --- to and from the buddy ---------------------------------------------------------------------
 */

static unsigned number_of_slot(const struct bsa_root *root, const struct bsa_slot *slot) {
    return (unsigned)(slot - root->space.slots);
}

void bsa_page_cache_fill(struct bsa_root *root, struct bsa_slot *slot, unsigned order) {
    uint32_t few = order < 4 ? (uint32_t)BSA_FILLED_PAGES >> order : 1;
    uint32_t room = bsa_cached_room(root, order);
    uint32_t wanted = few < room ? few : room, count = 0;
    struct bsa_slab first;

    BSA_ASSERT(bsa_cached_count(&slot->pages, order) == 0);
    bsa_lock_pages(root);
    while (count < wanted) {
        unsigned most = order + bsa_log2_floor(wanted - count);
        uint32_t blocks = bsa_pages_lend(root, order, most, number_of_slot(root, slot), &first);

        if (blocks == 0) {
            break;
        }
        /* The last one first: it is taken last. */
        for (uint32_t i = blocks; i-- > 0;) {
            bsa_cached_block_set(&slot->pages, order, count++,
                                 (struct bsa_slab){first.section, first.head + (i << order)});
        }
    }
    /* Before the lock goes: who adds up under it counts no block twice. */
    bsa_cached_count_set(&slot->pages, order, count);
    bsa_unlock_pages(root);
}

/* Gives the oldest blocks of the order to the buddy. */
static void give_back(struct bsa_root *root, struct bsa_page_cache *cache, unsigned order,
                      uint32_t blocks) {
    uint32_t count = bsa_cached_count(cache, order);

    bsa_lock_pages(root);
    bsa_pages_take_in(root, order, cache->blocks[order], blocks);
    for (uint32_t i = blocks; i < count; i++) {
        bsa_cached_block_set(cache, order, i - blocks, bsa_cached_block(cache, order, i));
    }
    bsa_cached_count_set(cache, order, count - blocks);
    bsa_unlock_pages(root);
}

void bsa_page_cache_spill(struct bsa_root *root, struct bsa_slot *slot, unsigned order) {
    give_back(root, &slot->pages, order, (bsa_cached_count(&slot->pages, order) + 1) / 2);
}

void bsa_page_cache_merge(struct bsa_root *root, struct bsa_slot *slot) {
    for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
        uint32_t count = bsa_cached_count(&slot->pages, order);

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

static uint64_t count_in(const struct bsa_page_cache *cache, const struct bsa_section *section,
                         unsigned order) {
    uint32_t count = bsa_cached_count(cache, order);
    uint64_t found = 0;

    if (section == NULL) {
        return count;
    }
    for (uint32_t i = 0; i < count; i++) {
        found += bsa_cached_block(cache, order, i).section == section;
    }
    return found;
}

void bsa_page_caches_count(const struct bsa_root *root, const struct bsa_section *section,
                           uint64_t counts[BSA_MAX_ORDER + 1]) {
    for (unsigned i = 0; root->has_page_caches && i < root->space.slot_count; i++) {
        for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
            counts[order] += count_in(&root->space.slots[i].pages, section, order);
        }
    }
}
