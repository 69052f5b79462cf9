/* bsa: buddy and slab memory allocation over memory that the caller owns.
 *
 * The one header that a kernel or a C program includes. A *root* (memory given by the caller)
 * manages any number of *sections* (regions of bytes under management). Pages come from a buddy
 * allocator per section, small objects from slabs, which belong to one *slot* (a CPU, a thread)
 * each.
 *
 * Slots. A *shared* slot is locked around each operation. An *attached* slot belongs to one thread
 * and is never locked; other threads ask its owner for what they need. With `serial` set the caller
 * promises that no two calls on this root ever overlap (an interpreter lock does that): no lock is
 * taken and every slot is within reach of every call. Freeing an object of another slot is
 * lock-free in every mode.
 *
 * Page caches. Where there are several slots, and neither `serial` nor a limit is set, each slot
 * keeps a few free blocks of up to 64 pages at hand. They count as free everywhere, and are merged
 * before free blocks or page states are told, before larger requests and before a request fails.
 * Those of an attached slot can be merged by its owner alone, or where quiescence is required;
 * until then they are told as the free blocks that they are.
 *
 * Quiescence. bsa_walk, bsa_walk_slabs, bsa_slab_of, bsa_check, bsa_stats, bsa_usage,
 * bsa_live_count, bsa_reset_peak, bsa_page_states, bsa_attach_region, bsa_attach_section,
 * bsa_remove_region and bsa_rebuild need that no other call on the root runs meanwhile. bsa_lookup
 * is exact for an allocation that lives throughout the call.
 *
 * Every caller's mistake is answered with a status in every build, and changes nothing. */
#ifndef BSA_H
#define BSA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BSA_MAX_ORDER 20 /* the largest block has 2^20 pages: 4 GiB of 4 KiB pages */
#define BSA_CLASSES   73 /* object sizes 8 ... 32768 */
#define BSA_MAX_SLOTS 65535
#define BSA_NO_SLOT   0xffffffffU /* a caller without a slot: may free, may not allocate objects */

typedef enum bsa_status {
    BSA_OK = 0,
    BSA_INVALID_PARAM,   /* an argument that can never be right */
    BSA_NO_MEMORY,       /* no block could hold the request, or the limit forbids it */
    BSA_MEMORY_OVERLAP,  /* the region shares a byte with one already managed */
    BSA_NOT_ALLOCATED,   /* inside a heap, but not the start of a live allocation */
    BSA_NOT_FOUND,       /* an address outside every heap */
    BSA_NOT_INITIALIZED, /* no section yet */
    BSA_IN_USE,          /* the section holds live allocations */
    BSA_CORRUPTION,      /* metadata that cannot be what bsa wrote */
    BSA_NO_TRANSLATION,  /* the section's physical function failed */
} bsa_status;

/* Memory for one lock, given to the lock hooks. All zero is unlocked. */
struct bsa_lock {
    unsigned char opaque[64];
};

enum bsa_trace_op { BSA_TRACE_ALLOC = 1, BSA_TRACE_FREE, BSA_TRACE_REALLOC };

/* What the environment may provide; every pointer may be NULL. No hook is called with a lock held,
 * except `lock` and `unlock` themselves. */
struct bsa_hooks {
    /* Bracket each operation that is not told its slot: enter returns the caller's slot (default:
     * 0) and keeps the caller on it (a kernel disables preemption) until leave. */
    unsigned (*enter)(void *context);
    void (*leave)(void *context, unsigned slot);
    void (*lock)(void *context, struct bsa_lock *lock); /* default: a spin lock */
    void (*unlock)(void *context, struct bsa_lock *lock);
    /* After each operation. A realloc that moves is a FREE of the old, then a REALLOC of the new.
     */
    void (*trace)(void *context, enum bsa_trace_op op, uintptr_t address, size_t size,
                  unsigned slot);
    void *context;
};

struct bsa_config {
    size_t page_size; /* power of two, 256 B to 2 MiB */
    unsigned slots;   /* 1 to BSA_MAX_SLOTS */
    bool serial;      /* calls never overlap, see above */
    struct bsa_hooks hooks;
};

struct bsa_root;

/* Translates the address of a page into its physical address. Returns false if it cannot, which
 * fails the request that asked. Called with no lock held, only from bsa_alloc_pages_lowmem. */
typedef bool (*bsa_physical)(void *context, uintptr_t address, uint64_t *physical);

enum bsa_section_flags {
    BSA_ZEROED = 1,      /* the metadata's bytes are known to be zero: they are not cleared */
    BSA_OFFSET_ONLY = 2, /* nominal base 0: numbers and alignment relative to the region's start */
    BSA_NOT_MEMORY =
        4, /* the heap is a range of addresses nobody may touch: never zeroed or copied */
};

struct bsa_section_config {
    unsigned flags;
    /* Physical address of the (heap's) region's first byte if `physical_is_linear`, else `physical`
     * (or, where that is NULL, the address itself). */
    bool physical_is_linear;
    uint64_t physical_base;
    bsa_physical physical;
    void *context;
};

struct bsa_section_info {
    unsigned index;       /* place in the order of registration */
    uintptr_t meta_start; /* first byte of metadata */
    size_t meta_size;     /* bytes, up to the heap where both share a region */
    uintptr_t start;      /* first byte of the heap */
    size_t size;          /* bytes of heap */
    uint32_t total_pages;
    uint32_t free_pages;
    uint32_t high_water; /* pages from here on were never split off their first block */
    uint64_t alignment;  /* the largest alignment of nominal addresses that real addresses keep */
    uint64_t generation; /* times attached */
    uint32_t free_blocks[BSA_MAX_ORDER + 1];
};

enum bsa_kind { BSA_KIND_OBJECT = 1, BSA_KIND_PAGES };

/* One live allocation. */
struct bsa_allocation {
    uintptr_t address;
    size_t usable_size;    /* bytes */
    size_t requested_size; /* bytes; of an object its class's size */
    enum bsa_kind kind;
    unsigned section; /* index */
    unsigned slot;    /* of an object's slab */
};

enum bsa_slab_state { BSA_SLAB_FULL = 0, BSA_SLAB_CURRENT, BSA_SLAB_PARTIAL, BSA_SLAB_EMPTY };

struct bsa_slab_info {
    uintptr_t base;
    size_t size; /* bytes of an object */
    size_t bytes;
    size_t stride; /* bytes from one object to the next: 16 at least from pages of 1 KiB on */
    unsigned capacity;
    unsigned free_count;        /* free on the owner's side */
    unsigned remote_free_count; /* freed by others, not yet drained */
    unsigned slot;
    enum bsa_slab_state state;
    uint64_t free_bits[64]; /* bit i of word w: object 64 w + i is free, on either side */
};

enum bsa_page_state {
    BSA_PAGE_FREE = 0,
    BSA_PAGE_BLOCK,
    BSA_PAGE_SLAB,
    BSA_PAGE_EMPTY_SLAB,
    BSA_PAGE_CACHED /* free, in a slot's page cache */
};

struct bsa_use {
    uint64_t live;  /* allocations alive now */
    uint64_t total; /* allocations ever */
};

struct bsa_stats {
    uint64_t current_count, current_bytes; /* live, bytes as granted */
    uint64_t peak_count, peak_bytes; /* exact where serial; else the sum of the slots' peaks, and of
                                        page blocks including those in page caches */
    uint64_t total_count, total_bytes;
    uint64_t failures;
    uint64_t overlaps;             /* objects found freed from two sides at once */
    uint64_t requested_bytes;      /* live; of objects as granted, of page blocks as asked */
    uint64_t allocated_bytes;      /* bytes of pages that are not free */
    uint64_t peak_allocated_bytes; /* exact, but for including what lay in page caches */
    struct bsa_use per_class[BSA_CLASSES];
    struct bsa_use per_order[BSA_MAX_ORDER + 1]; /* page blocks; resized ones count again */
};

/* Those of bsa_stats's bytes that are at hand, without sums over classes. */
struct bsa_usage {
    uint64_t current_bytes, requested_bytes, allocated_bytes, peak_allocated_bytes;
};

/* The first violated invariant that bsa_check met. */
struct bsa_violation {
    const char *invariant; /* a sentence; static */
    unsigned section;      /* index */
    uint32_t page;         /* in that section */
};

/* --- set-up ------------------------------------------------------------------------------------
 */

/* Bytes of memory that a root with `slots` slots needs; 0 if `slots` is out of range. */
size_t bsa_root_size(unsigned slots);

/* Makes `memory` (aligned to 64, bsa_root_size bytes) a root without sections. INVALID_PARAM for a
 * page size or slot count out of range, or memory too small or unaligned. */
bsa_status bsa_init(void *memory, size_t size, const struct bsa_config *config,
                    struct bsa_root **root);

/* Puts the region under management; its prefix becomes metadata, the rest heap. MEMORY_OVERLAP if
 * it shares a byte with a managed region, else INVALID_PARAM if too small for one page. `config`
 * may be NULL. `index` (may be NULL) receives the section's index. */
bsa_status bsa_add_region(struct bsa_root *root, void *region, size_t size,
                          const struct bsa_section_config *config, unsigned *index);

/* As bsa_add_region, with metadata and heap in different places; the heap need not be memory, but
 * its first page is not at 0. */
bsa_status bsa_add_section(struct bsa_root *root, void *meta, size_t meta_size, uintptr_t heap,
                           size_t heap_size, const struct bsa_section_config *config,
                           unsigned *index);

/* Manages again a region that a root managed before, at this address or another, with its live
 * allocations. CORRUPTION if its header is not one of bsa's, or not one of this page size, byte
 * order, version or class table; INVALID_PARAM if it moved by no multiple of the page. */
bsa_status bsa_attach_region(struct bsa_root *root, void *region, size_t size,
                             const struct bsa_section_config *config, unsigned *index);

/* The same for metadata and heap in different places. */
bsa_status bsa_attach_section(struct bsa_root *root, void *meta, size_t meta_size, uintptr_t heap,
                              const struct bsa_section_config *config, unsigned *index);

/* Takes a section without live allocations out of management, after draining and trimming all
 * slots. IN_USE if it holds any, NOT_FOUND if there is no such section. Later sections move down an
 * index. */
bsa_status bsa_remove_region(struct bsa_root *root, unsigned index);

/* Recomputes everything derived (lists, masks, counters, the slots' caches) from page words and
 * bitmaps. */
bsa_status bsa_rebuild(struct bsa_root *root);

/* Attaches the slot to the calling thread, or gives it back to all. INVALID_PARAM: no such slot. */
bsa_status bsa_slot_attach(struct bsa_root *root, unsigned slot);
bsa_status bsa_slot_detach(struct bsa_root *root, unsigned slot);

/* Bytes of allocated_bytes that requests may reach; UINT64_MAX (at first): no limit. What attached
 * slots keep in page caches counts until they give it up. */
void bsa_set_limit(struct bsa_root *root, uint64_t bytes);

/* --- allocation --------------------------------------------------------------------------------
 */

enum bsa_alloc_flags {
    BSA_ZERO = 1,  /* clear the bytes */
    BSA_EXACT = 2, /* pages: keep only those asked for, free the rest of the block */
};

/* Memory for `size` bytes (0 counts as 1) aligned to `align` (0: 16 from 16 bytes up, else 8).
 * INVALID_PARAM: align no power of two. NO_MEMORY: nothing fits, or could ever. */
bsa_status bsa_alloc(struct bsa_root *root, size_t size, size_t align, unsigned flags,
                     uintptr_t *address);

/* Bytes that bsa_alloc would grant for such a request; 0: none could ever hold it. */
size_t bsa_granted_size(const struct bsa_root *root, size_t size, size_t align);

/* `count` pages, rounded up to a power of two, aligned to `align` bytes (0: a page). INVALID_PARAM:
 * count 0, align no power of two or below a page, more than 2^BSA_MAX_ORDER pages. */
bsa_status bsa_alloc_pages(struct bsa_root *root, size_t count, size_t align, unsigned flags,
                           uintptr_t *address);

/* As bsa_alloc_pages, from pages whose physical end is at most 4 GiB. */
bsa_status bsa_alloc_pages_lowmem(struct bsa_root *root, size_t count, size_t align,
                                  uintptr_t *address);

/* NOT_FOUND outside every heap; NOT_ALLOCATED if no live allocation starts here (freed already, an
 * interior page); INVALID_PARAM between two objects of a slab or amid a page of a live block. */
bsa_status bsa_free(struct bsa_root *root, uintptr_t address);

/* Gives back a page block; `count` is checked against it, the whole block is freed. */
bsa_status bsa_free_pages(struct bsa_root *root, uintptr_t address, size_t count);

/* Changes the allocation's size, in place where its class or neighbours allow, else by moving it.
 * On failure nothing changed. `*address` receives the (new) address. */
bsa_status bsa_realloc(struct bsa_root *root, uintptr_t old, size_t size, uintptr_t *address);

/* `count` allocations as by bsa_alloc, all or none. */
bsa_status bsa_alloc_many(struct bsa_root *root, size_t count, size_t size, size_t align,
                          uintptr_t *addresses);

/* Frees all, or refuses all if one is wrong or repeated (`*wrong`, may be NULL, receives it). Sorts
 * the array. */
bsa_status bsa_free_many(struct bsa_root *root, uintptr_t *addresses, size_t count,
                         uintptr_t *wrong);

/* Drains remote frees, gives back empty slabs and merges the page caches of every slot within
 * reach; others are asked to. Returns the number of pages freed (what is cached was free before).
 */
size_t bsa_trim(struct bsa_root *root);

/* The same operations by a caller that knows its slot (or has none: BSA_NO_SLOT, or any number
 * beyond the root's slots); the enter and leave hooks are not called. */
bsa_status bsa_alloc_on(struct bsa_root *root, unsigned slot, size_t size, size_t align,
                        unsigned flags, uintptr_t *address);
/* The shortest way to memory for a program that asks for nothing but a size and needs no reason:
 * the address, or 0 where bsa_alloc_on would fail. */
uintptr_t bsa_malloc_on(struct bsa_root *root, unsigned slot, size_t size);
bsa_status bsa_alloc_pages_on(struct bsa_root *root, unsigned slot, size_t count, size_t align,
                              unsigned flags, uintptr_t *address);
bsa_status bsa_alloc_pages_lowmem_on(struct bsa_root *root, unsigned slot, size_t count,
                                     size_t align, uintptr_t *address);
bsa_status bsa_free_on(struct bsa_root *root, unsigned slot, uintptr_t address);
bsa_status bsa_free_pages_on(struct bsa_root *root, unsigned slot, uintptr_t address, size_t count);
bsa_status bsa_realloc_on(struct bsa_root *root, unsigned slot, uintptr_t old, size_t size,
                          uintptr_t *address);
bsa_status bsa_alloc_many_on(struct bsa_root *root, unsigned slot, size_t count, size_t size,
                             size_t align, uintptr_t *addresses);
bsa_status bsa_free_many_on(struct bsa_root *root, unsigned slot, uintptr_t *addresses,
                            size_t count, uintptr_t *wrong);
size_t bsa_trim_on(struct bsa_root *root, unsigned slot);

/* As bsa_realloc_on, but what moves is copied: the old allocation stays live, and the caller frees
 * it, or, to undo the move, the new one. */
bsa_status bsa_realloc_copy_on(struct bsa_root *root, unsigned slot, uintptr_t old, size_t size,
                               uintptr_t *address);

/* --- questions ---------------------------------------------------------------------------------
 */

size_t bsa_page_size(const struct bsa_root *root);
unsigned bsa_slots(const struct bsa_root *root);
unsigned bsa_section_count(const struct bsa_root *root);
bsa_status bsa_section_info(const struct bsa_root *root, unsigned index,
                            struct bsa_section_info *info);
/* Index of the section whose heap holds the address; NOT_FOUND. O(log sections) and, for the index,
 * O(sections). */
bsa_status bsa_section_of(const struct bsa_root *root, uintptr_t address, unsigned *index);

uint64_t bsa_total_pages(const struct bsa_root *root);
uint64_t bsa_free_page_count(const struct bsa_root *root);
/* Free blocks of every order, over all sections. */
void bsa_free_blocks(const struct bsa_root *root, uint64_t counts[BSA_MAX_ORDER + 1]);
/* Addresses of the free blocks of one order of one section, in the order in which they would be
 * taken; at most `room` are stored, all are counted. */
size_t bsa_free_list(const struct bsa_root *root, unsigned section, unsigned order,
                     uintptr_t *addresses, size_t room);

/* The live allocation that starts at (bsa_lookup) or holds (bsa_lookup_inside) the address; errors
 * as bsa_free's. */
bsa_status bsa_lookup(const struct bsa_root *root, uintptr_t address, struct bsa_allocation *found);
bsa_status bsa_lookup_inside(const struct bsa_root *root, uintptr_t address,
                             struct bsa_allocation *found);
/* The slab that holds the address: NOT_ALLOCATED if its page is in none, NOT_FOUND. */
bsa_status bsa_slab_of(const struct bsa_root *root, uintptr_t address, struct bsa_slab_info *info);
bsa_status bsa_page_state_of(const struct bsa_root *root, uintptr_t address,
                             enum bsa_page_state *state);
/* One enum bsa_page_state a page. */
bsa_status bsa_page_states(const struct bsa_root *root, unsigned section, unsigned char *states);

/* Calls `visit` for every live allocation in address order within each section, sections in order
 * of registration, until it returns false. */
void bsa_walk(const struct bsa_root *root,
              bool (*visit)(void *context, const struct bsa_allocation *allocation), void *context);
void bsa_walk_slabs(const struct bsa_root *root,
                    bool (*visit)(void *context, const struct bsa_slab_info *slab), void *context);

void bsa_stats(const struct bsa_root *root, struct bsa_stats *stats);
/* O(slots), on a serial root O(1), where bsa_stats is O(slots x classes). */
void bsa_usage(const struct bsa_root *root, struct bsa_usage *usage);
void bsa_reset_peak(struct bsa_root *root);
size_t bsa_live_count(const struct bsa_root *root);

/* Verifies every invariant of every structure. CORRUPTION: `violation` names the first violated.
 * What it reads: all heads, lists and bitmaps, and of each section the page words below the
 * high-water mark; damage to those from there on is not seen. Without such damage, a section that
 * passes is one that every operation here leaves passing. */
bsa_status bsa_check(const struct bsa_root *root, struct bsa_violation *violation);

/* Linux's unusable free space index and fragmentation index for a request of 2^order pages, in
 * thousandths, from the free blocks per order (mm/vmstat.c). The latter is -1000 where the request
 * would succeed, and 0 where nothing is free. */
int bsa_unusable_index(const uint64_t free_blocks[BSA_MAX_ORDER + 1], unsigned order);
int bsa_extfrag_index(const uint64_t free_blocks[BSA_MAX_ORDER + 1], unsigned order);
/* Both for all orders, in O(orders). */
void bsa_fragmentation_indices(const uint64_t free_blocks[BSA_MAX_ORDER + 1],
                               int64_t unusable[BSA_MAX_ORDER + 1],
                               int64_t extfrag[BSA_MAX_ORDER + 1]);

/* --- size classes ------------------------------------------------------------------------------
 */

/* Number of classes a root with this page size serves, and their sizes. */
unsigned bsa_class_count(const struct bsa_root *root);
size_t bsa_class_size(unsigned class_index);

const char *bsa_status_text(bsa_status status);

#ifdef __cplusplus
}
#endif

#endif
