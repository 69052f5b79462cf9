/* One slot's cache of free blocks of low orders: page blocks without the page lock.
 *
 * As Linux's per-CPU page sets. A cached block is free, but unmerged and on no list of the buddy's:
 * its page word says BSA_CACHED and names the slot, so whoever frees it again is refused. The block
 * cached last is taken first. When an order has none, a few are taken from the buddy at once; when
 * it is full, the older half goes back at once: the page lock is taken once for many.
 *
 * A live block leaves its state by a compare-exchange of its word, from BSA_PAGES to what becomes
 * of it: BSA_CACHED here, BSA_CLAIMED in pages.c. So of two frees, or a free and a resize, that
 * race for one block exactly one succeeds. A block in any other state is its holder's alone, and
 * becomes live by a plain store, the last one of those that make it.
 *
 * Caches hold blocks where several slots compete for the page lock: not on serial roots, nor where
 * there is one slot, nor under a limit. Nothing counts blocks that come and go between a cache and
 * its user but the cache itself: the root's counts of page blocks include those cached, and so do
 * their peaks; who asks for what is live subtracts.
 *
 * Taking and freeing are O(1), and so are filling and spilling, apart from the buddy's work.
 * Locking: the slot's owner. What tells how many blocks of which sections a cache holds is atomic,
 * because others may add up how much is free meanwhile. */
#ifndef BSA_PAGE_CACHE_H
#define BSA_PAGE_CACHE_H

#include "slab.h"

enum {
    BSA_CACHED_ORDERS = 7,  /* 0 to 6 */
    BSA_CACHED_BLOCKS = 32, /* of an order, at most */
    BSA_CACHED_PAGES = 512, /* of an order, at most */
    BSA_CACHED_SHARE = 32,  /* of an order, in all slots: at most this part of the heap */
    BSA_FILLED_PAGES = 16,  /* taken from the buddy at once, or one block */
};

struct bsa_cached_block {
    _Atomic(struct bsa_section *) section;
    _Atomic uint32_t head;
};

struct bsa_page_cache {
    _Atomic uint32_t count[BSA_CACHED_ORDERS];
    uint64_t taken[BSA_CACHED_ORDERS]; /* blocks handed out from here, ever */
    uint64_t freed[BSA_CACHED_ORDERS]; /* blocks freed to here, ever */
    int64_t requested; /* bytes asked for: of those handed out, less of those freed */
    struct bsa_cached_block blocks[BSA_CACHED_ORDERS][BSA_CACHED_BLOCKS]; /* oldest first */
};

/* The word of a block in that slot's cache, from the one it has when it is live; and back. */
static inline uint64_t bsa_cached_word(uint64_t live, unsigned slot) {
    return bsa_with_state(live, BSA_CACHED) | (uint64_t)slot << BSA_WORD_SLOT_SHIFT;
}

static inline uint64_t bsa_uncached_word(uint64_t cached) {
    return (cached & ~(uint64_t)0xffff000f) | BSA_PAGES;
}

/* The word of a live block that caches hold. */
static inline uint64_t bsa_cacheable_word(unsigned order) {
    return bsa_block_word(BSA_PAGES, order, (uint32_t)1 << order);
}

static inline uint32_t bsa_cached_count(const struct bsa_page_cache *cache, unsigned order) {
    return atomic_load_explicit(&cache->count[order], memory_order_relaxed);
}

static inline struct bsa_slab bsa_cached_block_at(const struct bsa_cached_block *block) {
    return (struct bsa_slab){atomic_load_explicit(&block->section, memory_order_relaxed),
                             atomic_load_explicit(&block->head, memory_order_relaxed)};
}

static inline struct bsa_slab bsa_cached_block(const struct bsa_page_cache *cache, unsigned order,
                                               uint32_t place) {
    return bsa_cached_block_at(&cache->blocks[order][place]);
}

static inline void bsa_cached_block_set(struct bsa_page_cache *cache, unsigned order,
                                        uint32_t place, struct bsa_slab block) {
    atomic_store_explicit(&cache->blocks[order][place].section, block.section,
                          memory_order_relaxed);
    atomic_store_explicit(&cache->blocks[order][place].head, block.head, memory_order_relaxed);
}

static inline void bsa_cached_count_set(struct bsa_page_cache *cache, unsigned order,
                                        uint32_t count) {
    atomic_store_explicit(&cache->count[order], count, memory_order_relaxed);
}

/* Takes a block, of which `requested` bytes are asked for. False: there is none. */
static BSA_FAST_PATH bool bsa_page_cache_take(struct bsa_page_cache *cache, unsigned order,
                                              uint64_t requested, uintptr_t *address) {
    uint32_t count = bsa_cached_count(cache, order);
    struct bsa_slab block;
    struct bsa_page *page;

    if (BSA_UNLIKELY(count == 0)) {
        return false;
    }
    block = bsa_cached_block(cache, order, count - 1);
    bsa_cached_count_set(cache, order, count - 1);
    cache->taken[order]++;
    cache->requested += (int64_t)requested;
    page = bsa_slab_page(block);
    bsa_page_set_requested(page, requested);
    *address = bsa_page_address(block.section, block.head);
    bsa_unpoison_new(block.section, *address, (size_t)1 << order << block.section->page_shift);
    /* From here on anybody may free it. Relaxed: nobody else writes the word of a cached block. */
    bsa_page_set_word(page,
                      bsa_uncached_word(atomic_load_explicit(&page->word, memory_order_relaxed)));
    return true;
}

/* Frees the live block, which has that word, into the cache of that slot, which holds `count` of
 * its order, and has room. False: somebody else has just freed it, or changes it. */
static BSA_FAST_PATH bool bsa_page_cache_put(struct bsa_page_cache *cache, unsigned slot,
                                             struct bsa_slab block, uint64_t word, uint32_t count) {
    struct bsa_page *page = bsa_slab_page(block);
    unsigned order = bsa_word_order(word);

    if (BSA_UNLIKELY(!bsa_page_claim(page, word, bsa_cached_word(word, slot)))) {
        return false;
    }
    bsa_poison(block.section, bsa_page_address(block.section, block.head),
               (size_t)1 << order << block.section->page_shift);
    cache->freed[order]++;
    cache->requested -= (int64_t)bsa_page_requested(page);
    bsa_cached_block_set(cache, order, count, block);
    bsa_cached_count_set(cache, order, count + 1);
    return true;
}

struct bsa_root;
struct bsa_slot;

/* Sets how many blocks of an order a cache of this root holds at most; 0: caches are not used. To
 * be called when sections, or the limit, have changed. Under the page lock. */
void bsa_page_caches_resize(struct bsa_root *root);

/* Takes a few blocks of the order, of which there are none, from the buddy. The caller owns the
 * slot; so with those that follow, and no lock but the slot's is held. */
void bsa_page_cache_fill(struct bsa_root *root, struct bsa_slot *slot, unsigned order);
/* Gives the older half of the order's blocks, at least one, to the buddy. There are some. */
void bsa_page_cache_spill(struct bsa_root *root, struct bsa_slot *slot, unsigned order);
/* Gives all blocks to the buddy. */
void bsa_page_cache_merge(struct bsa_root *root, struct bsa_slot *slot);

/* Merges the caches of all shared slots; those of attached ones are out of reach. */
void bsa_page_caches_merge_shared(struct bsa_root *root);
/* Merges all caches. Needs quiescence. */
void bsa_page_caches_merge_all(struct bsa_root *root);

/* Adds the blocks of each order that caches hold, of that section's (NULL: of all) pages. */
void bsa_page_caches_count(const struct bsa_root *root, const struct bsa_section *section,
                           uint64_t counts[BSA_MAX_ORDER + 1]);

#endif
