/* A section: one region under management, and the map between its addresses, pages and metadata.
 *
 * The header lies in the first page of the metadata, at a cache line that differs from region to
 * region; behind it the page descriptors and the bitmaps, found through a table of areas (kind,
 * offset, length), so that areas can be added.
 * Metadata holds indices and offsets, never pointers: mapped elsewhere, the same bytes are the same
 * heap. Buddy numbers and alignment count from the nominal base, the region's address when it was
 * set up (or 0).
 *
 * In `derived` stands what can be computed from the page words and bitmaps: bsa_section_rebuild
 * does. */
#ifndef BSA_SECTION_H
#define BSA_SECTION_H

#include "page.h"
#include "platform.h"
#include "size_class.h"

#define BSA_SECTION_MAGIC   0x6e6f697463657362ULL /* "bsection" in memory of little-endian order */
#define BSA_SECTION_VERSION 3U
#define BSA_BYTE_ORDER_MARK 0x01020304U

enum bsa_area_kind { BSA_AREA_PAGES = 1, BSA_AREA_BITS, BSA_AREAS = 8 };

/* What is known of 64 granules of a heap: of the objects that start there. Both words in one cache
 * line: whoever frees looks at both. */
struct bsa_bits {
    _Atomic uint64_t live;   /* handed out by the owner */
    _Atomic uint64_t remote; /* of those: freed by another slot, not yet taken back */
};

struct bsa_area {
    uint32_t kind; /* 0: unused */
    uint32_t reserved;
    uint64_t offset, length; /* bytes from the header */
};

enum { BSA_DIRECTORY_FANOUT = 32 };

/* Cache lines at which a header may begin; more than the CPU's caches tell apart are no use. */
enum { BSA_COLOURS = 64 };

/* A node of the directory's trees (directory.h). */
struct bsa_directory_node {
    _Alignas(BSA_CACHE_LINE) _Atomic uint64_t slope; /* beside the first key: both make a guess */
    _Atomic uint64_t key[BSA_DIRECTORY_FANOUT];
    _Atomic int64_t child[BSA_DIRECTORY_FANOUT];
};

/* The block that was taken last, until anything else of the buddy's changes (buddy.c). */
struct bsa_last_block {
    bsa_page_no head;     /* 0: none */
    uint8_t order, least; /* what was asked for: 2^order pages, of a block of 2^least at least */
    bool is_back;         /* it is free again, on no list and not merged yet */
};

struct bsa_section_derived {
    /* Where this process finds things: all that freeing asks of a section, in one cache line. */
    _Alignas(BSA_CACHE_LINE) uintptr_t heap_start;
    uint64_t granules;      /* of the heap */
    struct bsa_page *pages; /* the entries of page 0 */
    struct bsa_bits *bits;
    uint64_t heap_size;                 /* bytes */
    uint32_t page_shift, granule_shift; /* log2 of the bytes of a page, and of a granule */
    uint32_t granules_shift;            /* log2 of the granules of a page */
    uint32_t base;                      /* number of page 0 in the root */
    uint32_t index;                     /* in order of registration */
    uint32_t flags;                     /* enum bsa_section_flags */

    bsa_page_no free_list[BSA_MAX_ORDER + 1];
    uint32_t free_count[BSA_MAX_ORDER + 1];
    uint32_t free_mask; /* bit o: free_list[o] is not empty */
    _Atomic uint32_t free_pages;
    struct bsa_last_block last;
    uint64_t real_alignment;
    uint64_t region_start, region_size; /* raw bytes of the metadata's region */
    uint64_t heap_region_start,
        heap_region_size;   /* of the heap's, where that is another; else the same */
    int64_t previous, next; /* in order of registration; offsets from the root, 0 is none */
    bool physical_is_linear;
    uint64_t physical_base; /* of the region's first byte */
    bsa_physical physical;
    void *physical_context;
};

struct bsa_section {
    uint64_t magic;
    uint32_t version;
    uint32_t byte_order;
    uint32_t header_size;
    uint32_t page_shift;
    uint64_t class_hash;
    uint64_t nominal_base; /* nominal address of the region's first page-aligned byte */
    uint64_t nominal_heap; /* nominal address of the heap's first byte */
    uint64_t generation;   /* times attached */
    uint32_t dirty;        /* 1 while a root manages it */
    uint32_t total_pages;
    uint32_t high_water; /* no page from here on has been a head, but for the first covering */
    uint32_t bitmap_bytes;
    struct bsa_lock lock; /* for heaps that processes share */
    struct bsa_area areas[BSA_AREAS];
    uint64_t
        heap_offset; /* of the heap from the region's first page, where they share it; else 0 */
    struct bsa_section_derived derived;
    struct bsa_directory_node room; /* lent to the directory of whoever manages the section */
};

/* One without a heap: it holds no address, and has no granule. */
extern const struct bsa_section bsa_no_section;

/* What a section would look like. */
struct bsa_layout {
    uintptr_t meta;
    uint64_t meta_size; /* bytes of header and areas */
    uintptr_t heap;
    uint32_t pages;
    uint64_t
        heap_offset; /* of the heap from the region's first page, where they share it; else 0 */
};

/* Lays metadata and heap out in one region. False: no room for one page, or addresses that wrap. */
bool bsa_layout_region(struct bsa_layout *layout, const struct bsa_class_table *classes,
                       uintptr_t region, size_t size);

/* The same with metadata and heap apart. */
bool bsa_layout_apart(struct bsa_layout *layout, const struct bsa_class_table *classes,
                      uintptr_t meta, size_t meta_size, uintptr_t heap, size_t heap_size);

/* Writes the header for the layout, with all pages inside nothing yet; clears the metadata first
 * unless its bytes are known to be zero. Touches the header alone then. */
struct bsa_section *bsa_section_create(const struct bsa_layout *layout,
                                       const struct bsa_class_table *classes, unsigned flags);

/* Whether the header is one that bsa_section_create wrote for such a table, in `size` bytes. */
bool bsa_section_is_valid(const struct bsa_section *section, const struct bsa_class_table *classes,
                          uint64_t size);

/* Notes in `derived` where this process finds a section whose heap starts at `heap`. */
void bsa_section_locate(struct bsa_section *section, uintptr_t heap);

/* Whether all of that still is what the header says. */
bool bsa_section_is_located(const struct bsa_section *section);

/* The largest alignment of nominal addresses that real ones keep where the heap lies `moved` bytes
 * from its nominal place. */
static inline uint64_t bsa_kept_alignment(uint64_t moved) {
    return moved == 0 ? (uint64_t)1 << 63 : moved & (~moved + 1);
}

static inline struct bsa_page *bsa_page_at(const struct bsa_section *section,
                                           bsa_page_index index) {
    return section->derived.pages + index;
}

static inline uint64_t bsa_word_at(const struct bsa_section *section, bsa_page_index index) {
    return bsa_page_word(bsa_page_at(section, index));
}

/* The first words of the page's bitmaps. */
static inline struct bsa_bits *bsa_bits_at(const struct bsa_section *section, bsa_page_index page) {
    return section->derived.bits + ((uint64_t)page << section->derived.granules_shift >> 6);
}

static inline uintptr_t bsa_heap_start(const struct bsa_section *section) {
    return section->derived.heap_start;
}

static inline uint64_t bsa_heap_size(const struct bsa_section *section) {
    return section->derived.heap_size;
}

static inline uintptr_t bsa_page_address(const struct bsa_section *section, bsa_page_index index) {
    return bsa_heap_start(section) + ((uintptr_t)index << section->derived.page_shift);
}

static inline bool bsa_heap_holds(const struct bsa_section *section, uintptr_t address) {
    return address - bsa_heap_start(section) < bsa_heap_size(section);
}

/* `address` lies in the heap. */
static inline bsa_page_index bsa_page_of(const struct bsa_section *section, uintptr_t address) {
    return (bsa_page_index)((address - bsa_heap_start(section)) >> section->derived.page_shift);
}

static inline bool bsa_starts_page(const struct bsa_section *section, uintptr_t address) {
    return (address & (((uintptr_t)1 << section->derived.page_shift) - 1)) == 0;
}

/* The entry of that page. */
static inline struct bsa_page *bsa_page_around(const struct bsa_section *section,
                                               uintptr_t address) {
    return bsa_page_at(section, bsa_page_of(section, address));
}

/* Number of the granule that starts at the address. Its bit is that of this number modulo 64 in the
 * words of this number / 64, counted from those of page 0. Where no granule of the heap starts, the
 * number is none of them, and beyond `derived.granules`: what is left of an address amid a granule
 * turns up in the highest bits. */
static inline uint64_t bsa_granule_at(const struct bsa_section *section, uintptr_t address) {
    return bsa_rotate_right(address - bsa_heap_start(section), section->derived.granule_shift);
}

static inline bool bsa_has_granule(const struct bsa_section *section, uint64_t granule) {
    return granule < section->derived.granules;
}

/* The entry of the page of that granule, which the heap has. */
static inline struct bsa_page *bsa_page_of_granule(const struct bsa_section *section,
                                                   uint64_t granule) {
    return section->derived.pages + (granule >> section->derived.granules_shift);
}

static inline bsa_page_no bsa_number_of(const struct bsa_section *section, bsa_page_index index) {
    return (bsa_page_no){section->derived.base + index};
}

static inline bool bsa_section_has_number(const struct bsa_section *section, bsa_page_no number) {
    return number.value - section->derived.base < section->total_pages;
}

static inline bsa_page_index bsa_index_of(const struct bsa_section *section, bsa_page_no number) {
    return number.value - section->derived.base;
}

/* Asks for the descriptor of an address before the header is read, which tells where that is: both
 * are far away. Where it is by all appearances: the first area follows the header (see section.c),
 * and the heap starts where the caller says. No access: nothing is read, nothing can fault. */
static inline void bsa_prefetch_page(const struct bsa_section *section, unsigned page_shift,
                                     uintptr_t heap_start, uintptr_t address) {
    uintptr_t index = (address >> page_shift) - (heap_start >> page_shift & ~(uintptr_t)1);

    __builtin_prefetch((const void *)((uintptr_t)(section + 1) + index * sizeof(struct bsa_page)));
}

/* The number that buddies and alignment count in. */
static inline uint64_t bsa_nominal_page(const struct bsa_section *section, bsa_page_index index) {
    return (section->nominal_heap >> section->page_shift) + index;
}

/* Must precede the first write of a head at `page`: check and walk trust the words beyond the mark.
 */
static inline void bsa_raise_high_water(struct bsa_section *section, uint32_t pages) {
    if (section->high_water < pages) {
        section->high_water = pages;
    }
}

#endif
