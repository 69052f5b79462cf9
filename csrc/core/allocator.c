/* The facade: routes a request to the objects or to the page blocks.
 *
 * Sizes and alignments up to half a page (and 32 KiB) go to the caller's slot's cache of their
 * class, the rest to the pages. Here stands what is most frequent, on the shortest way: an object
 * at hand, and the free of an object of the slot's own. Freeing finds section, page, slab and
 * object from the address alone, and checks each. Locking: see facade.h. */
#include "facade.h"

BSA_SLOW_PATH bsa_status bsa_failed(struct bsa_root *root, unsigned slot, bsa_status status) {
    if (status == BSA_NO_MEMORY) {
        struct bsa_slot *counted = bsa_slot_of(root, slot);

        bsa_lock_pages(root);
        (counted != NULL && root->serial ? &counted->tally : &root->page_tally)->failures++;
        bsa_unlock_pages(root);
    }
    return status;
}

/* Clears new memory. */
static BSA_APART void clear(struct bsa_root *root, uintptr_t address) {
    struct bsa_allocation found;

    if (bsa_lookup(root, address, &found) == BSA_OK) {
        memset((void *)address, 0, found.usable_size);
    }
}

BSA_APART bsa_status bsa_finish_alloc_slow(struct bsa_root *root, unsigned slot, size_t size,
                                           unsigned flags, bsa_status status, uintptr_t address) {
    if (BSA_UNLIKELY(status != BSA_OK)) {
        return bsa_failed(root, slot, status);
    }
    if ((flags & BSA_ZERO) != 0) {
        clear(root, address);
    }
    bsa_trace(root, BSA_TRACE_ALLOC, address, size, slot);
    return BSA_OK;
}

static BSA_APART uintptr_t raise_peaks(struct bsa_tally *tally, uintptr_t taken) {
    bsa_tally_raise(tally);
    return taken;
}

/* Counts the object just taken. */
static BSA_FAST_PATH uintptr_t counted(struct bsa_root *root, const struct bsa_cache *cache,
                                       uintptr_t taken) {
    (void)root;
    bsa_unpoison_new(bsa_find_section(root, NULL, taken), taken, cache->object_size);
    return BSA_LIKELY(!bsa_tally_passes(cache->counted_in, 1, cache->object_size))
               ? taken
               : raise_peaks(cache->counted_in, taken);
}

/* The cache for objects of that size, of a slot that needs no lock; NULL: there is none. */
static BSA_FAST_PATH struct bsa_cache *cache_at_hand(struct bsa_root *root, unsigned number,
                                                     size_t size) {
    if (BSA_LIKELY(number < root->space.slot_count)) {
        struct bsa_slot *slot = &root->space.slots[number];

        if (BSA_LIKELY(size < atomic_load_explicit(&slot->fast_sizes, memory_order_relaxed))) {
            return bsa_cache_at(slot, bsa_class_at_hand(&root->space.classes, size));
        }
    }
    return NULL;
}

/* Takes the object that is remembered, or else the next of the row. There is one. */
static BSA_FAST_PATH uintptr_t object_at_hand(struct bsa_root *root, struct bsa_cache *cache) {
    return BSA_LIKELY(bsa_cache_remembers(cache))
               ? counted(root, cache, bsa_cache_take_freed(cache))
               : counted(root, cache, bsa_cache_take_row(cache));
}

static BSA_FAST_PATH bool has_object_at_hand(const struct bsa_cache *cache) {
    return BSA_LIKELY(cache != NULL) &&
           (BSA_LIKELY(bsa_cache_remembers(cache)) || BSA_LIKELY(cache->row != 0));
}

/* An object or a page block, the long way. */
static bsa_status alloc_sized(struct bsa_root *root, unsigned slot, size_t size, size_t align,
                              uintptr_t *address) {
    unsigned class_index = bsa_class_for(&root->space.classes, size, align);

    return class_index < BSA_CLASSES ? bsa_object_alloc(root, slot, class_index, address)
                                     : bsa_page_block_alloc(root, slot, size, align, address);
}

static BSA_APART bsa_status alloc_general(struct bsa_root *root, unsigned slot, size_t size,
                                          size_t align, unsigned flags, uintptr_t *address) {
    bsa_status status;

    if ((align != 0 && !bsa_is_power_of_two(align)) || (flags & ~(unsigned)BSA_ZERO) != 0 ||
        ((flags & BSA_ZERO) != 0 && bsa_any_heap_is_not_memory(root))) {
        return BSA_INVALID_PARAM;
    }
    if (!bsa_is_initialized(root)) {
        return BSA_NOT_INITIALIZED;
    }
    *address = 0;
    status = alloc_sized(root, slot, size, align, address);
    return bsa_finish_alloc(root, slot, size, flags, status, *address);
}

/* A page block, for what is larger than any object. */
static BSA_FAST_PATH bsa_status alloc_block(struct bsa_root *root, unsigned number, size_t size,
                                            uintptr_t *address) {
    bsa_status status;

    if (!bsa_is_initialized(root)) {
        return BSA_NOT_INITIALIZED;
    }
    *address = 0;
    status = bsa_page_block_alloc(root, number, size, 0, address);
    return bsa_finish_alloc(root, number, size, 0, status, *address);
}

/* Where no object is at hand: a page block, the next row of the current slab, or the long way. */
static BSA_APART bsa_status alloc_next(struct bsa_root *root, unsigned number, size_t size,
                                       uintptr_t *address) {
    struct bsa_cache *cache;

    if (size > root->space.classes.largest) {
        return alloc_block(root, number, size, address);
    }
    cache = cache_at_hand(root, number, size);
    if (BSA_LIKELY(cache != NULL) && bsa_cache_next_row(&root->space, cache)) {
        *address = counted(root, cache, bsa_cache_take_row(cache));
        return BSA_OK;
    }
    return alloc_general(root, number, size, 0, 0, address);
}

bsa_status bsa_alloc_on(struct bsa_root *root, unsigned number, size_t size, size_t align,
                        unsigned flags, uintptr_t *address) {
    struct bsa_cache *cache;

    if (BSA_UNLIKELY((align | flags) != 0)) {
        return alloc_general(root, number, size, align, flags, address);
    }
    cache = cache_at_hand(root, number, size);
    if (BSA_UNLIKELY(!has_object_at_hand(cache))) {
        return alloc_next(root, number, size, address);
    }
    *address = object_at_hand(root, cache);
    return BSA_OK;
}

bsa_status bsa_alloc_untraced(struct bsa_root *root, unsigned number, size_t size,
                              uintptr_t *address) {
    struct bsa_cache *cache = cache_at_hand(root, number, size);

    if (BSA_LIKELY(has_object_at_hand(cache))) {
        *address = object_at_hand(root, cache);
        return BSA_OK;
    }
    return alloc_sized(root, number, size, 0, address);
}

static BSA_APART uintptr_t malloc_next(struct bsa_root *root, unsigned number, size_t size) {
    uintptr_t address;

    return alloc_next(root, number, size, &address) == BSA_OK ? address : 0;
}

uintptr_t bsa_malloc_on(struct bsa_root *root, unsigned number, size_t size) {
    struct bsa_cache *cache = cache_at_hand(root, number, size);

    return has_object_at_hand(cache) ? object_at_hand(root, cache)
                                     : malloc_next(root, number, size);
}

size_t bsa_granted_size(const struct bsa_root *root, size_t size, size_t align) {
    if (BSA_LIKELY(size <= root->space.classes.largest && align == 0)) {
        return root->space.classes.classes[bsa_class_of_size(size)].size;
    }
    if (bsa_class_for(&root->space.classes, size, align) < BSA_CLASSES) {
        return bsa_class_size(bsa_class_for(&root->space.classes, size, align));
    }
    return bsa_page_block_size(root, size, align);
}

bsa_status bsa_free_untraced(struct bsa_root *root, unsigned number, uintptr_t address) {
    struct bsa_section *section = bsa_find_section(root, bsa_slot_of(root, number), address);
    struct bsa_page *page;
    uint64_t word;
    size_t size;

    if (section == NULL) {
        return bsa_is_initialized(root) ? BSA_NOT_FOUND : BSA_NOT_INITIALIZED;
    }
    page = bsa_page_around(section, address);
    word = bsa_page_word(page);
    return bsa_word_state(word) == BSA_SLAB
               ? bsa_object_free(root, number, section, page, word, address)
               : bsa_page_block_free(root, number, section, address, 1, &size);
}

static bsa_status free_traced(struct bsa_root *root, unsigned number, uintptr_t address) {
    struct bsa_allocation was = {0};
    bsa_status status = bsa_lookup(root, address, &was);

    if (status == BSA_OK) {
        status = bsa_free_untraced(root, number, address);
    }
    if (status == BSA_OK) {
        bsa_trace(root, BSA_TRACE_FREE, address, was.usable_size, number);
    }
    return status;
}

static BSA_APART bsa_status free_general(struct bsa_root *root, unsigned number,
                                         uintptr_t address) {
    return root->hooks.trace == NULL ? bsa_free_untraced(root, number, address)
                                     : free_traced(root, number, address);
}

/* Frees what is at an address of the section, where that granule of its heap starts. The common
 * case first: an object of the slot's own, which needs no lock. */
static BSA_FAST_PATH bsa_status free_in(struct bsa_root *root, struct bsa_slot *slot,
                                        unsigned number, struct bsa_section *section,
                                        uintptr_t address, uint64_t granule) {
    struct bsa_page *page = bsa_page_of_granule(section, granule);
    /* Relaxed: where the slot owns the slab, it has written the word itself. */
    uint64_t word = atomic_load_explicit(&page->word, memory_order_relaxed);

    return BSA_LIKELY(bsa_owner_bits(word) ==
                      atomic_load_explicit(&slot->fast_owner, memory_order_relaxed))
               ? bsa_object_free_own(root, bsa_cache_at(slot, bsa_word_class(word)), section, page,
                                     word, address, granule)
               : free_general(root, number, address);
}

/* Where the section is another one than the last time, or no granule starts. */
static BSA_APART bsa_status free_elsewhere(struct bsa_root *root, unsigned number,
                                           uintptr_t address) {
    struct bsa_slot *slot = &root->space.slots[number];
    struct bsa_section *section = bsa_find_section_slow(root, slot, address);

    if (BSA_LIKELY(section != NULL)) {
        uint64_t granule = bsa_granule_at(section, address);

        if (BSA_LIKELY(bsa_has_granule(section, granule))) {
            return free_in(root, slot, number, section, address, granule);
        }
    }
    return free_general(root, number, address);
}

bsa_status bsa_free_on(struct bsa_root *root, unsigned number, uintptr_t address) {
    struct bsa_section *section;
    struct bsa_slot *slot;
    uint64_t granule;

    if (BSA_UNLIKELY(number >= root->space.slot_count)) {
        return free_general(root, number, address);
    }
    slot = &root->space.slots[number];
    section = bsa_last_section(slot);
    granule = bsa_granule_at(section, address);
    return BSA_LIKELY(bsa_has_granule(section, granule))
               ? free_in(root, slot, number, section, address, granule)
               : free_elsewhere(root, number, address);
}
