/* One slot's cache of free blocks of low orders: page blocks without the page lock.
 *
 * As Linux's per-CPU page sets. A cached block is free, but unmerged and on no list of the buddy's:
 * its page word says BSA_CACHED and names the slot, so whoever frees it again is refused. The block
 * cached last is taken first. When an order has none, half of what it may hold is taken from the
 * buddy at once; when it is full, the older half goes back at once: the page lock is taken once for
 * many.
 *
 * A live block leaves its state by a compare-exchange of its word, from BSA_PAGES to what becomes
 * of it: BSA_CACHED here, BSA_CLAIMED in pages.c. So of two frees, or a free and a resize, that
 * race for one block exactly one succeeds. A block in any other state is its holder's alone, and
 * becomes live by a plain store, the last one of those that make it.
 *
 * Each order's stack has the words of its blocks at hand. Nothing is read of a block before its
 * word is exchanged: what was wrong with the request, if that fails, the general way finds out.
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
    BSA_CACHED_BLOCKS = 64, /* of an order, at most */
    BSA_CACHED_PAGES = 512, /* of an order, at most */
    BSA_CACHED_SHARE = 32,  /* of an order, in all slots: at most this part of the heap */
};

struct bsa_cached_block {
    uintptr_t address;
    struct bsa_page *page; /* its head's */
    _Atomic(struct bsa_section *) section;
};

/* The cached blocks of one order. */
struct bsa_page_stack {
    uint64_t live, cached; /* the word of each when it is handed out, and when it is here */
    uint64_t bytes;        /* of each; as asked for they are noted in all that are here */
    uint64_t taken;        /* blocks handed out from here, ever */
    int64_t slack;         /* bytes not asked for: of those handed out, less of those freed */
    _Atomic uint32_t count;
    struct bsa_cached_block blocks[BSA_CACHED_BLOCKS]; /* the one cached last is the last */
};

struct bsa_page_cache {
    struct bsa_page_stack stacks[BSA_CACHED_ORDERS];
};

/* The word of a live block that caches hold. */
static inline uint64_t bsa_cacheable_word(unsigned order) {
    return bsa_block_word(BSA_PAGES, order, (uint32_t)1 << order);
}

/* The word of a block of the order in that slot's cache. */
static inline uint64_t bsa_cached_word(unsigned order, unsigned slot) {
    return bsa_with_state(bsa_cacheable_word(order), BSA_CACHED) | (uint64_t)slot
                                                                       << BSA_WORD_SLOT_SHIFT;
}

static inline uint32_t bsa_cached_count(const struct bsa_page_stack *stack) {
    return atomic_load_explicit(&stack->count, memory_order_relaxed);
}

static inline void bsa_cached_count_set(struct bsa_page_stack *stack, uint32_t count) {
    atomic_store_explicit(&stack->count, count, memory_order_relaxed);
}

static inline struct bsa_section *bsa_section_of_cached(const struct bsa_cached_block *block) {
    return atomic_load_explicit(&block->section, memory_order_relaxed);
}

static BSA_FAST_PATH void bsa_cached_block_set(struct bsa_cached_block *block, uintptr_t address,
                                               struct bsa_page *page, struct bsa_section *section) {
    block->address = address;
    block->page = page;
    atomic_store_explicit(&block->section, section, memory_order_relaxed);
}

/* Takes the last of `count` blocks, of which all but `slack` bytes are asked for. */
static BSA_FAST_PATH uintptr_t bsa_page_stack_take(struct bsa_page_stack *stack, uint32_t count,
                                                   uint64_t slack) {
    const struct bsa_cached_block *block = &stack->blocks[count - 1];
    uintptr_t address = block->address;

    bsa_cached_count_set(stack, count - 1);
    stack->taken++;
    if (slack != 0) {
        stack->slack += (int64_t)slack;
        bsa_page_set_requested(block->page, stack->bytes - slack);
    }
    bsa_unpoison_new(bsa_section_of_cached(block), address, stack->bytes);
    bsa_page_set_word(block->page, stack->live); /* from here on anybody may free it */
    return address;
}

/* Frees the block at the address, whose head is `page`, on top of `count` others; there is room.
 * False: it is no live one of their order. */
static BSA_FAST_PATH bool bsa_page_stack_put(struct bsa_page_stack *stack, uint32_t count,
                                             struct bsa_section *section, struct bsa_page *page,
                                             uintptr_t address) {
    if (BSA_UNLIKELY(!bsa_page_claim(page, stack->live, stack->cached))) {
        return false;
    }
    bsa_poison(section, address, stack->bytes);
    if (BSA_UNLIKELY(bsa_page_requested(page) != stack->bytes)) {
        stack->slack -= (int64_t)(stack->bytes - bsa_page_requested(page));
        bsa_page_set_requested(page, stack->bytes);
    }
    bsa_cached_block_set(&stack->blocks[count], address, page, section);
    bsa_cached_count_set(stack, count + 1);
    return true;
}

struct bsa_root;
struct bsa_slot;

/* Makes the cache, which is all zero, that of slot `number`. */
void bsa_page_cache_init(struct bsa_page_cache *cache, unsigned number, unsigned page_shift);

/* Sets how many blocks of an order a cache of this root holds at most; 0: caches are not used. To
 * be called when sections, or the limit, have changed. Under the page lock. */
void bsa_page_caches_resize(struct bsa_root *root);

/* Takes blocks of the order, of which there are none, from the buddy, up to half of what the cache
 * holds at most. Returns how many. The caller owns the slot; so with those that follow, and no lock
 * but the slot's is held. */
uint32_t bsa_page_cache_fill(struct bsa_root *root, struct bsa_slot *slot, unsigned order);
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
