/* The page descriptor: one for each page of a heap, and the atomic word that tells what the page
 * is.
 *
 * The words are the truth. The first page of each block, and no other, is a *head*; its word holds
 * state, order and page count at once, so that whoever reads it sees a block that exists. Heads
 * tile the heap: going from each head by its count meets every page exactly once, at every
 * instruction of a split (which writes the new head before it shrinks the old one) and of a merge
 * (which grows the survivor before it clears the absorbed one).
 *
 * An all-zero word means "inside a larger block", so fresh zero memory needs no set-up. The pages
 * of a slab after its head say what their head says of class, order and owner, and how far back it
 * is: freeing an object asks one word, whatever page the object is on. */
#ifndef BSA_PAGE_H
#define BSA_PAGE_H

#include "bits.h"

/* A page's number within its section. */
typedef uint32_t bsa_page_index;

/* A page's number within the root: each section has a range of its own, so that links reach across
 * sections. Number 0 is no page. A type of its own, so that the two cannot be mixed up. */
typedef struct {
    uint32_t value;
} bsa_page_no;

#define BSA_NO_PAGE ((bsa_page_no){0})

enum bsa_head_state {
    BSA_INSIDE = 0,
    BSA_FREE,
    BSA_PAGES,    /* a live block */
    BSA_SLAB,     /* cut into objects */
    BSA_CHANGING, /* a block on its way to a slab or back: nobody's to free */
    BSA_CACHED,   /* a free block in a slot's page cache */
    BSA_CLAIMED,  /* a live block that is being made, resized or freed: nobody else's to free */
};

struct bsa_page {
    _Atomic uint64_t word;
    _Atomic uint64_t summary; /* slab: which words of the remote bitmap hold bits (slab.h) */
    union {
        struct {
            bsa_page_no next, prev; /* the free list, or the list of a slot's cache */
        };
        _Atomic uint64_t requested; /* live block: bytes asked for */
    };
    _Atomic uint32_t remote_next; /* the owner's stack of slabs with remote frees */
    uint16_t relist_in;           /* slab: frees until it changes its list, modulo 2^16 */
    uint16_t relist_at;           /* slab: the free count at which it does */
};

_Static_assert(sizeof(struct bsa_page) == 32, "a descriptor is half a cache line");

/* Objects of the slab that are free for its owner to hand out. */
static inline uint32_t bsa_free_count(const struct bsa_page *page) {
    return (uint16_t)(page->relist_at - page->relist_in);
}

static inline void bsa_set_free_count(struct bsa_page *page, uint32_t count) {
    page->relist_in = (uint16_t)(page->relist_at - count);
}

/* The free count at which a free must look at the slab's list again. It never gets to 0 by a free.
 */
static inline void bsa_set_relist_at(struct bsa_page *page, uint32_t relist_at) {
    uint32_t count = bsa_free_count(page);

    page->relist_at = (uint16_t)relist_at;
    bsa_set_free_count(page, count);
}

/* Layout of the word, from the lowest bit:
 * state 4 | class 7 | order 5 | slot 16 | page count 21 | pages back to the head 8 | list 3.
 * A head has a page count and nothing to go back; a page of a slab after its head the reverse, and
 * no list. */
enum {
    BSA_WORD_CLASS_SHIFT = 4,
    BSA_WORD_ORDER_SHIFT = 11,
    BSA_WORD_SLOT_SHIFT = 16,
    BSA_WORD_COUNT_SHIFT = 32,
    BSA_WORD_BACK_SHIFT = 53,
    BSA_WORD_LIST_SHIFT = 61,
};

static inline enum bsa_head_state bsa_word_state(uint64_t word) {
    return (enum bsa_head_state)(word & 0xf);
}

static inline unsigned bsa_word_order(uint64_t word) {
    return (unsigned)(word >> BSA_WORD_ORDER_SHIFT) & 0x1f;
}

static inline unsigned bsa_word_class(uint64_t word) {
    return (unsigned)(word >> BSA_WORD_CLASS_SHIFT) & 0x7f;
}

static inline unsigned bsa_word_slot(uint64_t word) {
    return (unsigned)(word >> BSA_WORD_SLOT_SHIFT) & 0xffff;
}

static inline uint32_t bsa_word_count(uint64_t word) {
    return (uint32_t)(word >> BSA_WORD_COUNT_SHIFT) & 0x1fffff;
}

static inline uint32_t bsa_word_back(uint64_t word) {
    return (uint32_t)(word >> BSA_WORD_BACK_SHIFT) & 0xff;
}

/* The list of its slot's cache that a slab is on: an enum bsa_slab_state. */
static inline unsigned bsa_word_list(uint64_t word) {
    return (unsigned)(word >> BSA_WORD_LIST_SHIFT);
}

static inline uint64_t bsa_block_word(enum bsa_head_state state, unsigned order, uint32_t count) {
    return (uint64_t)state | (uint64_t)order << BSA_WORD_ORDER_SHIFT |
           (uint64_t)count << BSA_WORD_COUNT_SHIFT;
}

static inline uint64_t bsa_with_state(uint64_t word, enum bsa_head_state state) {
    return (word & ~(uint64_t)0xf) | (uint64_t)state;
}

static inline uint64_t bsa_slab_word(unsigned order, unsigned class_index, unsigned slot,
                                     unsigned list) {
    return bsa_block_word(BSA_SLAB, order, (uint32_t)1 << order) |
           (uint64_t)class_index << BSA_WORD_CLASS_SHIFT | (uint64_t)slot << BSA_WORD_SLOT_SHIFT |
           (uint64_t)list << BSA_WORD_LIST_SHIFT;
}

/* The same on another list. */
static inline uint64_t bsa_relisted_word(uint64_t word, unsigned list) {
    return (word & (((uint64_t)1 << BSA_WORD_LIST_SHIFT) - 1)) | (uint64_t)list
                                                                     << BSA_WORD_LIST_SHIFT;
}

/* Of the page `back` pages behind the head that has this word. */
static inline uint64_t bsa_slab_inside_word(uint64_t head_word, uint32_t back) {
    return (head_word & UINT32_MAX) | (uint64_t)back << BSA_WORD_BACK_SHIFT;
}

/* What the words of all pages of a slot's slabs have in common: state and slot. */
static inline uint32_t bsa_owner_bits(uint64_t word) {
    return (uint32_t)word & 0xffff000fU;
}

#define BSA_NO_OWNER UINT32_MAX

/* Acquire pairs with the release below: who sees a word sees what was written before it, above all
 * the bitmaps of a slab that has just been made. */
static inline uint64_t bsa_page_word(const struct bsa_page *page) {
    return atomic_load_explicit(&page->word, memory_order_acquire);
}

static inline void bsa_page_set_word(struct bsa_page *page, uint64_t word) {
    atomic_store_explicit(&page->word, word, memory_order_release);
}

/* Makes a live block's word another, if it still is `live`. Of several that try exactly one
 * succeeds. Acquire: who has claimed a block sees how it was made. Release: and what was done with
 * it is over before it is made anew. */
static inline bool bsa_page_claim(struct bsa_page *page, uint64_t live, uint64_t claimed) {
    return atomic_compare_exchange_strong_explicit(&page->word, &live, claimed,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

/* Atomic, because who looks an address up may meet a block that comes and goes. */
static inline uint64_t bsa_page_requested(const struct bsa_page *page) {
    return atomic_load_explicit(&page->requested, memory_order_relaxed);
}

static inline void bsa_page_set_requested(struct bsa_page *page, uint64_t bytes) {
    atomic_store_explicit(&page->requested, bytes, memory_order_relaxed);
}

#endif
