/* Objects: from a slot's cache of their class, and back to their slab.
 *
 * The way of an object is: cache -> refill (drain, next slab) -> new slab of the preferred or a
 * smaller order -> trim every slot within reach and look again -> fail. Both ways O(1), but for new
 * slabs. What is most frequent, and needs none of this, stands in allocator.c. Locking: see
 * facade.h. */
#include "facade.h"

enum { SLAB_MOST_SHARE = 256 }; /* of a heap, in each slab: the part */

/* The largest order of slab that a heap of this size should spend on one class. */
static unsigned largest_slab_order(const struct bsa_root *root) {
    uint64_t share =
        atomic_load_explicit(&root->total_pages, memory_order_relaxed) / SLAB_MOST_SHARE;

    return share == 0 ? 0 : bsa_log2_floor(share);
}

/* Gets the cache a slab of its preferred order, or a smaller one. */
static bool add_slab(struct bsa_root *root, struct bsa_cache *cache) {
    unsigned order = bsa_cache_order(&root->space, cache), largest = largest_slab_order(root);
    struct bsa_slab slab;

    order = order < largest ? order : largest;
    for (;; order--) {
        if (bsa_pages_take_slab(root, order, &slab)) {
            bsa_cache_add_slab(&root->space, cache, slab, order);
            return true;
        }
        if (order == 0) {
            return false;
        }
    }
}

/* The slow half of taking an object: from the cache's next slab or from a new one, or 0. The caller
 * owns the slot. */
static uintptr_t object_or_slab(struct bsa_root *root, struct bsa_slot *slot,
                                struct bsa_cache *cache) {
    uintptr_t address = bsa_cache_refill(&root->space, cache);

    bsa_account_drained(root, cache);
    bsa_give_back_retired(root, cache);
    bsa_honour_request(root, slot);
    if (address == 0 && add_slab(root, cache)) {
        address = bsa_cache_take(&root->space, cache);
    }
    return address;
}

static uintptr_t object_take(struct bsa_root *root, struct bsa_slot *slot,
                             struct bsa_cache *cache) {
    bool locked = bsa_enter_slot(root, slot);
    uintptr_t address = bsa_cache_take(&root->space, cache);

    if (address == 0) {
        address = object_or_slab(root, slot, cache);
    }
    if (address != 0) {
        bsa_tally_add(cache->counted_in, 1, cache->object_size);
        bsa_unpoison_new(bsa_find_section(root, NULL, address), address, cache->object_size);
    }
    bsa_leave_slot(root, slot, locked);
    return address;
}

bsa_status bsa_object_alloc(struct bsa_root *root, unsigned number, unsigned class_index,
                            uintptr_t *address) {
    struct bsa_slot *slot = bsa_slot_of(root, number);

    if (slot == NULL) {
        return BSA_INVALID_PARAM;
    }
    *address = object_take(root, slot, &slot->caches[class_index]);
    if (*address == 0) {
        bsa_trim_on(root, number);
        *address = object_take(root, slot, &slot->caches[class_index]);
    }
    return *address == 0 ? BSA_NO_MEMORY : BSA_OK;
}

BSA_SLOW_PATH bsa_status bsa_no_live_object(const struct bsa_root *root,
                                            struct bsa_section *section, uintptr_t address) {
    const struct bsa_class_table *classes = &root->space.classes;
    uint64_t word = bsa_page_word(bsa_page_around(section, address));
    struct bsa_slab slab = bsa_slab_around(section, word, address);
    uint32_t index;

    if (bsa_word_state(word) != BSA_SLAB) { /* given up, all of it free, since it was one */
        return BSA_NOT_ALLOCATED;
    }
    index = bsa_slab_index_of(classes, slab, word, address);
    return index != UINT32_MAX && address == bsa_slab_object_address(classes, slab, word, index)
               ? BSA_NOT_ALLOCATED
               : BSA_INVALID_PARAM;
}

static BSA_APART bsa_status free_remote(struct bsa_root *root, struct bsa_section *section,
                                        uint64_t word, uintptr_t address) {
    struct bsa_cache *owner = bsa_cache_of(&root->space, word);
    struct bsa_slab slab = bsa_slab_around(section, word, address);
    bool must_push;

    bsa_poison_if_live(section, address, owner->object_size);
    if (bsa_slab_free_remote(slab, address, &must_push) != BSA_OK) {
        return bsa_no_live_object(root, section, address);
    }
    if (must_push) {
        bsa_cache_push_remote(owner, slab);
    }
    if (root->serial) {
        owner->pending++;
        bsa_tally_remove(&root->space.slots[0].tally, 1, owner->object_size);
    }
    return BSA_OK;
}

BSA_APART bsa_status bsa_object_freed_rarely(struct bsa_root *root, struct bsa_section *section,
                                             uintptr_t address) {
    uint64_t word = bsa_page_word(bsa_page_around(section, address));
    struct bsa_cache *cache = bsa_cache_of(&root->space, word);

    bsa_cache_relist(&root->space, cache, bsa_slab_around(section, word, address));
    if (BSA_UNLIKELY(cache->retired.value != 0)) {
        bsa_give_back_retired(root, cache);
    }
    return BSA_OK;
}

/* Frees the object at the address, in a slab of the slot, which is the caller's own for now;
 * `page`, on which it lies, has that word. */
static bsa_status free_own(struct bsa_root *root, struct bsa_section *section,
                           struct bsa_page *page, uint64_t word, uintptr_t address) {
    uint64_t granule = bsa_granule_at(section, address);

    return bsa_has_granule(section, granule)
               ? bsa_object_free_own(root, bsa_cache_of(&root->space, word), section, page, word,
                                     address, granule)
               : bsa_no_live_object(root, section, address);
}

bsa_status bsa_object_free(struct bsa_root *root, unsigned number, struct bsa_section *section,
                           struct bsa_page *page, uint64_t word, uintptr_t address) {
    struct bsa_slot *slot = &root->space.slots[number];
    bsa_status status;
    bool locked;

    if (bsa_word_slot(word) != number) {
        return free_remote(root, section, word, address);
    }
    locked = bsa_enter_slot(root, slot);
    /* By now another thread of this slot may have freed the slab away; the list is not compared,
     * for it may have changed. */
    status = (uint32_t)bsa_page_word(page) == (uint32_t)word
                 ? free_own(root, section, page, word, address)
                 : BSA_NOT_ALLOCATED;
    bsa_leave_slot(root, slot, locked);
    return status;
}
