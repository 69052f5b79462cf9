/* The root: what ties sections, slots and locks together. Private to the core.
 *
 * Lock rules: see platform.h. The page lock guards every section's buddy state, the directory's
 * writers, the chain of sections and the fields that say so. */
#ifndef BSA_ROOT_H
#define BSA_ROOT_H

#include "buddy.h"
#include "cache.h"

#define BSA_ROOT_MAGIC 0x746f6f7261736200ULL

struct bsa_root {
    uint64_t magic;
    struct bsa_hooks hooks;
    bool serial;
    bool has_page_caches;
    struct bsa_space space;
    _Atomic uint32_t section_count;
    _Atomic uint64_t limit_pages;
    _Atomic uint64_t total_pages;
    _Atomic bool some_heap_is_not_memory;
    _Atomic uint32_t cached_blocks[BSA_CACHED_ORDERS]; /* that a page cache holds at most */

    _Alignas(BSA_CACHE_LINE) struct bsa_lock page_lock;
    /* Under the page lock. */
    int64_t first_section,
        last_section; /* chain in order of registration: offsets as in directory.h */
    uint64_t allocated_pages, peak_pages;
    uint64_t page_slack; /* bytes granted to live page blocks beyond those asked for */
    struct bsa_use per_order[BSA_MAX_ORDER + 1];
    uint64_t total_blocks, total_block_bytes; /* page blocks ever, as granted */
    struct bsa_tally page_tally;              /* of page blocks, unless serial */
};

static inline struct bsa_section *bsa_first_section(const struct bsa_root *root) {
    return bsa_section_at(&root->space.directory, root->first_section);
}

static inline struct bsa_section *bsa_next_section(const struct bsa_root *root,
                                                   const struct bsa_section *section) {
    return bsa_section_at(&root->space.directory, section->derived.next);
}

/* In order of registration, from 0; NULL: there are not so many. */
static inline struct bsa_section *bsa_nth_section(const struct bsa_root *root, unsigned index) {
    struct bsa_section *section = bsa_first_section(root);

    while (section != NULL && index-- > 0) {
        section = bsa_next_section(root, section);
    }
    return section;
}

/* Blocks of the order that a page cache holds at most. */
static inline uint32_t bsa_cached_room(const struct bsa_root *root, unsigned order) {
    return atomic_load_explicit(&root->cached_blocks[order], memory_order_relaxed);
}

static inline bool bsa_page_caches_are_used(const struct bsa_root *root) {
    return bsa_cached_room(root, 0) != 0;
}

static inline void bsa_lock_pages(struct bsa_root *root) {
    if (!root->serial) {
        bsa_lock_acquire(&root->hooks, &root->page_lock);
    }
}

static inline void bsa_unlock_pages(struct bsa_root *root) {
    if (!root->serial) {
        bsa_lock_release(&root->hooks, &root->page_lock);
    }
}

/* Makes the slot's lists the caller's own: no lock where it is attached (to the caller, by
 * contract) or the root is serial. Returns whether bsa_leave_slot has a lock to release. */
static inline bool bsa_enter_slot(struct bsa_root *root, struct bsa_slot *slot) {
    if (atomic_load_explicit(&slot->mode, memory_order_acquire) != BSA_SLOT_SHARED) {
        return false;
    }
    bsa_lock_acquire(&root->hooks, &slot->lock);
    return true;
}

/* Makes the lists of another slot the caller's own, unless it is attached: then false. To be left
 * with its lock released. */
static inline bool bsa_enter_shared(struct bsa_root *root, struct bsa_slot *slot) {
    if (atomic_load_explicit(&slot->mode, memory_order_acquire) != BSA_SLOT_SHARED) {
        return false;
    }
    bsa_lock_acquire(&root->hooks, &slot->lock);
    /* Again under the lock: it may have been attached while we waited. */
    if (atomic_load_explicit(&slot->mode, memory_order_acquire) != BSA_SLOT_SHARED) {
        bsa_lock_release(&root->hooks, &slot->lock);
        return false;
    }
    return true;
}

static inline void bsa_leave_slot(struct bsa_root *root, struct bsa_slot *slot, bool locked) {
    if (locked) {
        bsa_lock_release(&root->hooks, &slot->lock);
    }
}

/* The rest of bsa_find_section: asks the directory. */
struct bsa_section *bsa_find_section_slow(const struct bsa_root *root, struct bsa_slot *slot,
                                          uintptr_t address);

/* The section whose heap holds the address; NULL: none. `slot` (may be NULL) remembers the last
 * one. */
static inline struct bsa_section *bsa_find_section(const struct bsa_root *root,
                                                   struct bsa_slot *slot, uintptr_t address) {
    if (BSA_LIKELY(slot != NULL)) {
        struct bsa_section *section = bsa_last_section(slot);

        if (BSA_LIKELY(bsa_heap_holds(section, address))) {
            return section;
        }
    }
    return bsa_find_section_slow(root, slot, address);
}

static inline struct bsa_slot *bsa_slot_of(struct bsa_root *root, unsigned slot) {
    return slot < root->space.slot_count ? &root->space.slots[slot] : NULL;
}

/* --- pages.c: the buddy, with the limit and the last effort --- */

struct bsa_page_request {
    unsigned order;
    unsigned align_order;
    uint32_t count;     /* pages to keep of the block */
    uint64_t requested; /* bytes */
};

/* Takes a block, from the first section that has one. False: none, or the limit forbids it. */
bool bsa_pages_take(struct bsa_root *root, const struct bsa_page_request *request,
                    uintptr_t *address);
/* The same from pages that end below 4 GiB physically. NO_MEMORY, NO_TRANSLATION. */
bsa_status bsa_pages_take_low(struct bsa_root *root, const struct bsa_page_request *request,
                              uintptr_t *address);
/* A block of 2^order pages that becomes a slab: its head says BSA_CHANGING. */
bool bsa_pages_take_slab(struct bsa_root *root, unsigned order, struct bsa_slab *slab);
/* Frees the page block that starts at the address, an address of the section's heap, if it has at
 * least `count` pages; `*bytes` receives its size. Errors as bsa_free_pages's. */
bsa_status bsa_pages_free(struct bsa_root *root, struct bsa_section *section, uintptr_t address,
                          size_t count, size_t *bytes);
/* Changes the size of the live page block at the address in place. NO_MEMORY: its neighbours are
 * not free; nothing changed. */
bsa_status bsa_pages_resize(struct bsa_root *root, struct bsa_section *section, uintptr_t address,
                            uint64_t bytes);

/* Takes blocks of 2^order pages for a page cache, all in a row, of at most 2^most pages together,
 * and gives their heads that word. Returns how many; 0: there is none. Under the page lock. */
uint32_t bsa_pages_lend(struct bsa_root *root, unsigned order, unsigned most, uint64_t word,
                        struct bsa_slab *first);
/* Returns some. Under the page lock. */
void bsa_pages_take_in(struct bsa_root *root, unsigned order, const struct bsa_cached_block *blocks,
                       uint32_t count);

/* Gives the cache's retired slabs back to the buddy. Returns the pages freed. */
size_t bsa_give_back_retired(struct bsa_root *root, struct bsa_cache *cache);

/* --- tallies --- */

/* Raises the peaks that have been passed. */
void bsa_tally_raise(struct bsa_tally *tally);

/* Adds, and tells whether a peak was passed: bsa_tally_raise is next. `count` and `bytes` may be
 * negative, cast. */
static BSA_FAST_PATH bool bsa_tally_passes(struct bsa_tally *tally, size_t count, size_t bytes) {
    tally->count.below -= (int64_t)count;
    tally->bytes.below -= (int64_t)bytes;
    return (tally->count.below | tally->bytes.below) < 0;
}

static inline void bsa_tally_add(struct bsa_tally *tally, size_t count, size_t bytes) {
    if (BSA_UNLIKELY(bsa_tally_passes(tally, count, bytes))) {
        bsa_tally_raise(tally);
    }
}

static BSA_FAST_PATH void bsa_tally_remove(struct bsa_tally *tally, size_t count, size_t bytes) {
    tally->count.below += (int64_t)count;
    tally->bytes.below += (int64_t)bytes;
}

/* Under the page lock. */
static inline struct bsa_tally *bsa_page_tally(struct bsa_root *root) {
    return root->serial ? &root->space.slots[0].tally : &root->page_tally;
}

/* Objects that others freed leave a serial root's tally at once, any other's when they are drained.
 */
static inline void bsa_account_drained(struct bsa_root *root, struct bsa_cache *cache) {
    if (root->serial) {
        cache->pending -= cache->drained;
    } else {
        bsa_tally_remove(&root->space.slots[cache->slot].tally, cache->drained,
                         cache->drained * cache->object_size);
    }
    cache->drained = 0;
}

#endif
