/* What the files of the facade share: allocator.c routes each request to objects.c or
 * page_blocks.c; trim.c makes the last effort before one fails. Private to the core.
 *
 * Locking: a slot's lock (or none, see root.h) around its caches; the page lock inside pages.c. No
 * lock is held when a function here returns or calls a hook. */
#ifndef BSA_FACADE_H
#define BSA_FACADE_H

#include "root.h"

static inline bool bsa_is_initialized(const struct bsa_root *root) {
    return atomic_load_explicit(&root->section_count, memory_order_relaxed) != 0;
}

static inline bool bsa_any_heap_is_not_memory(const struct bsa_root *root) {
    return atomic_load_explicit(&root->some_heap_is_not_memory, memory_order_relaxed);
}

static inline void bsa_trace(const struct bsa_root *root, enum bsa_trace_op op, uintptr_t address,
                             size_t size, unsigned slot) {
    if (BSA_UNLIKELY(root->hooks.trace != NULL)) {
        root->hooks.trace(root->hooks.context, op, address, size, slot);
    }
}

/* --- allocator.c --- */

/* Counts the failure, if it is one of memory. Returns the status. */
bsa_status bsa_failed(struct bsa_root *root, unsigned slot, bsa_status status);
/* The rest of bsa_finish_alloc. */
bsa_status bsa_finish_alloc_slow(struct bsa_root *root, unsigned slot, size_t size, unsigned flags,
                                 bsa_status status, uintptr_t address);
/* What every kind of allocation ends with: counts a failure, or clears and traces. */
static BSA_FAST_PATH bsa_status bsa_finish_alloc(struct bsa_root *root, unsigned slot, size_t size,
                                                 unsigned flags, bsa_status status,
                                                 uintptr_t address) {
    return BSA_LIKELY(status == BSA_OK && (flags & BSA_ZERO) == 0 && root->hooks.trace == NULL)
               ? BSA_OK
               : bsa_finish_alloc_slow(root, slot, size, flags, status, address);
}
/* As bsa_alloc_on and bsa_free_on; no trace, no failure counted. */
bsa_status bsa_alloc_untraced(struct bsa_root *root, unsigned number, size_t size,
                              uintptr_t *address);
bsa_status bsa_free_untraced(struct bsa_root *root, unsigned number, uintptr_t address);

/* --- objects.c --- */

/* An object of the class, from the slot's cache. INVALID_PARAM: no such slot. */
bsa_status bsa_object_alloc(struct bsa_root *root, unsigned number, unsigned class_index,
                            uintptr_t *address);
/* Frees the object at the address; `page`, on which it lies, had that word, a slab's. */
bsa_status bsa_object_free(struct bsa_root *root, unsigned number, struct bsa_section *section,
                           struct bsa_page *page, uint64_t word, uintptr_t address);
/* Why there is nothing to free at the address, which lies in a slab: it is no object's, or that one
 * is free. */
bsa_status bsa_no_live_object(const struct bsa_root *root, struct bsa_section *section,
                              uintptr_t address);
/* What the freeing of an object brings about where its slab may change its list. */
bsa_status bsa_object_freed_rarely(struct bsa_root *root, struct bsa_section *section,
                                   uintptr_t address);

/* Frees an object of the cache, whose slot is the caller's own for now; see bsa_cache_free. */
static BSA_FAST_PATH bsa_status bsa_object_free_own(struct bsa_root *root, struct bsa_cache *cache,
                                                    struct bsa_section *section,
                                                    struct bsa_page *page, uint64_t word,
                                                    uintptr_t address, uint64_t granule) {
    struct bsa_page *head;

    bsa_poison_if_live(section, address, cache->object_size);
    if (BSA_UNLIKELY(bsa_cache_free(cache, section, page, word, address, granule, &head) !=
                     BSA_OK)) {
        return bsa_no_live_object(root, section, address);
    }
    bsa_tally_remove(cache->counted_in, 1, cache->object_size);
    return BSA_LIKELY(!bsa_slab_count_down(head)) ? BSA_OK
                                                  : bsa_object_freed_rarely(root, section, address);
}

/* --- page_blocks.c --- */

/* A block for `size` bytes, from the slot's page cache or the buddy. `align` is a power of two, or
 * 0. */
bsa_status bsa_page_block_alloc(struct bsa_root *root, unsigned slot, size_t size, size_t align,
                                uintptr_t *address);
/* The size of such a block; 0: there is none so large. */
size_t bsa_page_block_size(const struct bsa_root *root, size_t size, size_t align);
/* Frees the page block of at least `count` pages that starts at the address in the section's heap;
 * `*bytes` receives its size. Errors as bsa_free_pages's. */
bsa_status bsa_page_block_free(struct bsa_root *root, unsigned number, struct bsa_section *section,
                               uintptr_t address, size_t count, size_t *bytes);

/* --- trim.c --- */

/* Gives back what the slot, which is the caller's own for now, holds idle. Returns the pages. */
size_t bsa_trim_slot(struct bsa_root *root, struct bsa_slot *slot);

/* Does what others have asked the slot's owner, the caller, to do. */
static inline void bsa_honour_request(struct bsa_root *root, struct bsa_slot *slot) {
    if (BSA_UNLIKELY(atomic_load_explicit(&slot->trim_request, memory_order_relaxed) != 0)) {
        atomic_store_explicit(&slot->trim_request, 0, memory_order_relaxed);
        bsa_trim_slot(root, slot);
    }
}

#endif
