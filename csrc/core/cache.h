/* One slot's cache of slabs of one class; and the slab layer as a whole, which knows no page
 * allocator.
 *
 * Its dealings with who has pages are three: bsa_cache_alloc returns 0, "needs a slab" (of 2^order
 * pages, bsa_cache_order); bsa_cache_add_slab, "here is one"; bsa_cache_take_retired, "these are
 * empty, take them back". Used alone it needs a bsa_space with the sections whose pages are handed
 * out, and an array of slots.
 *
 * Each slab is on at most one list, and its page word says on which (enum bsa_slab_state): it is
 * the current one, objects are taken from; or partial, waiting first in first out (a slab just
 * become partial has one free object; by the time it reaches the front it has many); or the one
 * empty slab kept; or full, on no list until something in it is freed.
 *
 * Before all that, a cache gives the objects that it *remembers*: up to BSA_REMEMBERED of those
 * freed last, last freed first. They are free in the bitmaps like any other, so nothing is lost
 * when they are forgotten; and they are as free as when they were remembered, because bitmaps are
 * searched only when none is remembered, and all are forgotten when a slab becomes empty. A partial
 * slab may so run out of free objects where it stands; it leaves the list when its turn comes.
 *
 * Taking an object, freeing one and learning of remote frees are O(1) in the number of slabs and
 * objects; taking amortised, because of the slabs on the list that have run out.
 *
 * Locking: the slot's owner for all but bsa_cache_push_remote. */
#ifndef BSA_CACHE_H
#define BSA_CACHE_H

#include "directory.h"
#include "page_cache.h"
#include "slab.h"

enum { BSA_REMEMBERED = 12, BSA_NEVER_RELISTED = 0 };

/* A number and its peak, kept as the peak and how far below it the number is: so the sign of what
 * is counted anyway tells when the peak is passed. */
struct bsa_gauge {
    int64_t below, peak;
};

static inline int64_t bsa_gauge_value(const struct bsa_gauge *gauge) {
    return gauge->peak - gauge->below;
}

/* Counts of one slot's small objects and, on a serial root, of everything (in slot 0). */
struct bsa_tally {
    struct bsa_gauge count, bytes; /* live */
    uint64_t failures;
};

struct bsa_cache {
    struct bsa_object *top; /* of the objects remembered in `freed`: behind the last */
    uint32_t object_size;
    uint32_t granule_shift;
    uint32_t word, first;         /* struct bsa_starts: where the next row is looked for */
    uint64_t row;                 /* bits of the objects that are to be taken next */
    struct bsa_bits *bits;        /* their word */
    uintptr_t base;               /* address of its first granule */
    struct bsa_page *page;        /* of the current slab's head; NULL: there is none */
    struct bsa_tally *counted_in; /* its slot's tally, or the one for all */
    uint64_t total;               /* objects handed out, ever */
    uint64_t taken_back;          /* of those, freed locally or drained */
    uint16_t class_index, slot;
    struct bsa_slab slab; /* the current one; later a hint where others may be found */
    bsa_page_no first_partial, last_partial, empty;
    bsa_page_no retired; /* a chain of slabs to be given back */
    uint64_t drained;    /* taken back from remote frees, not yet accounted for by who counts */
    uint64_t pending;    /* serial roots: freed remotely, not yet drained */
    uint64_t overlaps;   /* objects found freed from two sides at once */
    struct bsa_object freed[BSA_REMEMBERED];

    _Alignas(BSA_CACHE_LINE) _Atomic uint32_t remote; /* top of the stack of slabs to drain */
};

enum bsa_slot_mode { BSA_SLOT_SHARED = 0, BSA_SLOT_ATTACHED, BSA_SLOT_SERIAL };

struct bsa_slot {
    _Alignas(BSA_CACHE_LINE) struct bsa_lock lock;
    /* What the fast paths serve; nothing while the slot is shared, or calls are traced. */
    _Atomic uint32_t fast_sizes;   /* sizes below this */
    _Atomic uint32_t fast_owner;   /* frees in slabs whose words have these owner bits */
    _Atomic uint32_t fast_pages;   /* blocks of up to so many pages, in `pages` */
    _Atomic uint32_t mode;         /* enum bsa_slot_mode; changed by attach and detach alone */
    _Atomic uint32_t trim_request; /* others ask the attached owner to trim */
    _Atomic(struct bsa_section *) last_section; /* a hint; bsa_no_section: none */
    struct bsa_tally tally;
    struct bsa_cache caches[BSA_CLASSES];
    struct bsa_page_cache pages; /* last: small offsets of the caches make shorter code */
};

/* What the slab layer shares: classes, the way from addresses and page numbers to sections, the
 * slots. */
struct bsa_space {
    struct bsa_class_table classes;
    struct bsa_directory directory;
    struct bsa_slot *slots;
    unsigned slot_count;
};

/* `counted_in`: the tally for the slot's objects. */
void bsa_slot_init(struct bsa_slot *slot, const struct bsa_class_table *classes, unsigned number,
                   struct bsa_tally *counted_in);

/* The slow half of bsa_cache_alloc, where bsa_cache_take has just returned 0: drains, and looks
 * into the current slab again; then makes the next partial or the empty slab the current one. */
uintptr_t bsa_cache_refill(struct bsa_space *space, struct bsa_cache *cache);

/* The section that the slot met last, or bsa_no_section. Acquire: its header is visible. */
static inline struct bsa_section *bsa_last_section(const struct bsa_slot *slot) {
    return atomic_load_explicit(&slot->last_section, memory_order_acquire);
}

static inline void bsa_forget_last_section(struct bsa_slot *slot) {
    atomic_store_explicit(&slot->last_section, (struct bsa_section *)&bsa_no_section,
                          memory_order_relaxed);
}

/* Objects handed out and not taken back. */
static inline uint64_t bsa_cache_live(const struct bsa_cache *cache) {
    return cache->total - cache->taken_back;
}

/* Leaves the cache without remembered objects. */
static inline void bsa_cache_forget(struct bsa_cache *cache) {
    cache->top = cache->freed;
}

/* Leaves the cache without a current slab. */
static inline void bsa_cache_forget_current(struct bsa_cache *cache) {
    cache->page = NULL;
    cache->row = 0;
}

static inline bool bsa_cache_remembers(const struct bsa_cache *cache) {
    return cache->top != cache->freed;
}

static inline uint32_t bsa_cache_remembered(const struct bsa_cache *cache) {
    return (uint32_t)(cache->top - cache->freed);
}

/* Takes the object freed last. One is remembered. */
static BSA_FAST_PATH uintptr_t bsa_cache_take_freed(struct bsa_cache *cache) {
    const struct bsa_object *object = --cache->top;
    uint64_t live = atomic_load_explicit(&object->bits->live, memory_order_relaxed);
    uint64_t bit = bsa_object_bit(object, cache->granule_shift);

    BSA_ASSERT((live & bit) == 0);
    atomic_store_explicit(&object->bits->live, live | bit, memory_order_relaxed);
    object->page->relist_in++;
    cache->total++;
    return object->address;
}

/* Takes the first object of the row. There is one. */
static BSA_FAST_PATH uintptr_t bsa_cache_take_row(struct bsa_cache *cache) {
    uint64_t row = cache->row, rest = row & (row - 1);
    uint64_t live = atomic_load_explicit(&cache->bits->live, memory_order_relaxed);

    BSA_ASSERT((live & (row ^ rest)) == 0);
    cache->row = rest;
    atomic_store_explicit(&cache->bits->live, live | (row ^ rest), memory_order_relaxed);
    cache->page->relist_in++;
    cache->total++;
    return cache->base + ((uintptr_t)bsa_lowest_bit(row) << cache->granule_shift);
}

/* Makes the next row of the current slab; false: it has no free object. There is no row. */
bool bsa_cache_next_row(const struct bsa_space *space, struct bsa_cache *cache);

/* Takes an object that is remembered, or else one of the current slab; 0: look further. */
static inline uintptr_t bsa_cache_take(const struct bsa_space *space, struct bsa_cache *cache) {
    if (bsa_cache_remembers(cache)) {
        return bsa_cache_take_freed(cache);
    }
    return cache->row != 0 || bsa_cache_next_row(space, cache) ? bsa_cache_take_row(cache) : 0;
}

/* An object's address, or 0: needs a slab. */
static inline uintptr_t bsa_cache_alloc(struct bsa_space *space, struct bsa_cache *cache) {
    uintptr_t address = bsa_cache_take(space, cache);

    return BSA_LIKELY(address != 0) ? address : bsa_cache_refill(space, cache);
}

/* The order of slab to offer where memory is not short; any smaller one will do. */
static inline unsigned bsa_cache_order(const struct bsa_space *space,
                                       const struct bsa_cache *cache) {
    return space->classes.classes[cache->class_index].order;
}

/* Takes a block of 2^order pages (order at most BSA_MAX_SLAB_ORDER) as the current slab. There
 * is no current slab with free objects: bsa_cache_alloc has just returned 0. */
void bsa_cache_add_slab(struct bsa_space *space, struct bsa_cache *cache, struct bsa_slab slab,
                        unsigned order);

/* Frees the object at the address, in a slab that the cache owns; otherwise as bsa_slab_free_local,
 * which see. `*head`: of its slab. Where bsa_slab_count_down(head) says so, bsa_cache_relist is
 * next. */
static BSA_FAST_PATH bsa_status bsa_cache_free(struct bsa_cache *cache,
                                               const struct bsa_section *section,
                                               struct bsa_page *page, uint64_t word,
                                               uintptr_t address, uint64_t granule,
                                               struct bsa_page **head) {
    struct bsa_object object;

    if (BSA_UNLIKELY(bsa_slab_free_local(section, page, word, address, granule, &object) !=
                     BSA_OK)) {
        return BSA_NOT_ALLOCATED;
    }
    cache->taken_back++;
    if (cache->top != cache->freed + BSA_REMEMBERED) {
        /* Who gets it next will write to it, and many stores would wait behind one that misses the
         * CPU's cache. Asking for the line early is no access: nothing is read, nothing can fault.
         */
        __builtin_prefetch((const void *)address, 1);
        *cache->top++ = object;
    }
    *head = object.page;
    return BSA_OK;
}

/* Puts a slab in which objects have just become free where it belongs. Afterwards the cache may
 * have retired slabs. */
void bsa_cache_relist(struct bsa_space *space, struct bsa_cache *cache, struct bsa_slab slab);

/* Puts a slab with fresh remote bits on its owner's stack; any thread, lock-free. */
void bsa_cache_push_remote(struct bsa_cache *owner, struct bsa_slab slab);

/* Takes back what others have freed. */
void bsa_cache_drain(struct bsa_space *space, struct bsa_cache *cache);

/* Drains, and retires the slabs that are empty, the current one included. */
void bsa_cache_trim(struct bsa_space *space, struct bsa_cache *cache);

/* A retired slab, made a block of 2^order pages again for its giver; false: none. */
bool bsa_cache_take_retired(struct bsa_space *space, struct bsa_cache *cache,
                            struct bsa_slab *slab);

/* Enlists a slab found in memory whose word names this cache; for bsa_rebuild. */
void bsa_cache_adopt(struct bsa_space *space, struct bsa_cache *cache, struct bsa_slab slab);

/* The slot's cache of that class. In a register, and left there: GCC would rather compute a sum for
 * each field that is used. */
static BSA_FAST_PATH struct bsa_cache *bsa_cache_at(struct bsa_slot *slot, unsigned class_index) {
    struct bsa_cache *cache = &slot->caches[class_index];

    __asm__("" : "+r"(cache));
    return cache;
}

static inline struct bsa_cache *bsa_cache_of(struct bsa_space *space, uint64_t slab_word) {
    return &space->slots[bsa_word_slot(slab_word)].caches[bsa_word_class(slab_word)];
}

#endif
