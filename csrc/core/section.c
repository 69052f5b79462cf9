/* Region -> layout -> section.
 *
 * [ colour | header | page descriptors | bitmaps | heap of whole pages | tail below a page ]
 *
 * O(1) in the number of pages where the bytes are known to be zero, else one clearing of the
 * metadata. No locks: a section that is being made is nobody else's yet. */
#include "section.h"

const struct bsa_section bsa_no_section;

static uint64_t bits_entry(const struct bsa_class_table *classes) {
    return 2 * (uint64_t)classes->bitmap_bytes;
}

/* Bytes of metadata for `pages` pages. The arrays hold one entry more than pages, and start such
 * that a page of even nominal number starts a pair of entries: blocks of two pages then own whole
 * cache lines. */
static uint64_t metadata_size(const struct bsa_class_table *classes, uint64_t pages) {
    uint64_t entry = sizeof(struct bsa_page) + bits_entry(classes);

    return bsa_round_up(sizeof(struct bsa_section), BSA_CACHE_LINE) + (pages + 1) * entry +
           2 * BSA_CACHE_LINE;
}

/* The number of pages is limited by the 32 bits of a page number. */
static uint64_t most_pages(uint64_t bytes, uint64_t bytes_a_page) {
    uint64_t pages = bytes / bytes_a_page;

    return pages < UINT32_MAX - 1 ? pages : UINT32_MAX - 1;
}

/* How far behind the region's first page-aligned byte the header lies: some of the cache lines that
 * rounding to a page leaves over anyway. Without, the headers of equal regions at equal distances,
 * and all metadata behind them, would drive each other out of the same few sets of the CPU's
 * caches. */
static uint64_t colour_of(uint64_t first_page, uint64_t bytes_left) {
    uint64_t hash = first_page * 0x9e3779b97f4a7c15ULL >> 32; /* Knuth, TAOCP vol. 3, 6.4 */
    uint64_t colours = bytes_left / BSA_CACHE_LINE + 1;

    colours = colours < BSA_COLOURS ? colours : BSA_COLOURS;
    return (hash * colours >> 32) * BSA_CACHE_LINE;
}

bool bsa_layout_region(struct bsa_layout *layout, const struct bsa_class_table *classes,
                       uintptr_t region, size_t size) {
    uint64_t page = (uint64_t)1 << classes->page_shift;
    uint64_t start = bsa_round_up(region, page),
             end = bsa_round_down((uint64_t)region + size, page);
    uint64_t entry = sizeof(struct bsa_page) + bits_entry(classes);
    uint64_t pages;

    if ((uint64_t)region + size < region || start < region || end <= start) {
        return false;
    }
    pages = most_pages(end - start, page + entry);
    /* The estimate leaves out the header and the rounding to a page: a few steps down at most. */
    while (pages > 0 &&
           bsa_round_up(metadata_size(classes, pages), page) + pages * page > end - start) {
        pages--;
    }
    layout->meta_size = metadata_size(classes, pages);
    layout->heap_offset = bsa_round_up(layout->meta_size, page);
    layout->meta = (uintptr_t)(start + colour_of(start >> classes->page_shift,
                                                 layout->heap_offset - layout->meta_size));
    layout->heap = (uintptr_t)(start + layout->heap_offset);
    layout->pages = (uint32_t)pages;
    return pages > 0;
}

bool bsa_layout_apart(struct bsa_layout *layout, const struct bsa_class_table *classes,
                      uintptr_t meta, size_t meta_size, uintptr_t heap, size_t heap_size) {
    uint64_t page = (uint64_t)1 << classes->page_shift;
    uint64_t meta_start = bsa_round_up(meta, BSA_CACHE_LINE), meta_end = (uint64_t)meta + meta_size;
    uint64_t start = bsa_round_up(heap, page),
             end = bsa_round_down((uint64_t)heap + heap_size, page);
    uint64_t pages;

    /* From 0 on an address would look like none. */
    if (meta_end < meta || meta_start < meta || (uint64_t)heap + heap_size < heap || start < heap ||
        start == 0 || end <= start) {
        return false;
    }
    pages = most_pages(end - start, page);
    if (meta_end < meta_start || metadata_size(classes, pages) > meta_end - meta_start) {
        return false;
    }
    layout->meta = (uintptr_t)meta_start;
    layout->meta_size = metadata_size(classes, pages);
    layout->heap = (uintptr_t)start;
    layout->heap_offset = 0;
    layout->pages = (uint32_t)pages;
    return true;
}

/* Places the next area at a cache line. */
static void place_area(struct bsa_section *section, unsigned slot, enum bsa_area_kind kind,
                       uint64_t entry, uint64_t *offset) {
    uint64_t length = ((uint64_t)section->total_pages + 1) * entry;
    uint64_t start = bsa_round_up(*offset, BSA_CACHE_LINE);

    section->areas[slot] = (struct bsa_area){kind, 0, start, length};
    *offset = start + length;
}

/* Where the entry of page 0 is: the second one where the page's nominal number is odd. */
static uintptr_t first_entry(const struct bsa_section *section, unsigned slot, uint64_t entry) {
    return (uintptr_t)section + section->areas[slot].offset +
           (bsa_nominal_page(section, 0) & 1) * entry;
}

static void locate(const struct bsa_section *section, uintptr_t heap,
                   struct bsa_section_derived *derived) {
    derived->heap_start = heap;
    derived->heap_size = (uint64_t)section->total_pages << section->page_shift;
    derived->real_alignment = bsa_kept_alignment(heap - section->nominal_heap);
    derived->page_shift = section->page_shift;
    derived->granule_shift =
        section->page_shift - bsa_log2_floor((uint64_t)section->bitmap_bytes * 8);
    derived->granules_shift = derived->page_shift - derived->granule_shift;
    derived->granules = derived->heap_size >> derived->granule_shift;
    derived->pages = (struct bsa_page *)first_entry(section, 0, sizeof(struct bsa_page));
    derived->bits = (struct bsa_bits *)first_entry(section, 1, 2 * (uint64_t)section->bitmap_bytes);
}

void bsa_section_locate(struct bsa_section *section, uintptr_t heap) {
    locate(section, heap, &section->derived);
}

bool bsa_section_is_located(const struct bsa_section *section) {
    const struct bsa_section_derived *is = &section->derived;
    struct bsa_section_derived should;

    locate(section, is->heap_start, &should);
    return is->heap_size == should.heap_size && is->real_alignment == should.real_alignment &&
           is->page_shift == should.page_shift && is->granule_shift == should.granule_shift &&
           is->granules_shift == should.granules_shift && is->granules == should.granules &&
           is->pages == should.pages && is->bits == should.bits;
}

struct bsa_section *bsa_section_create(const struct bsa_layout *layout,
                                       const struct bsa_class_table *classes, unsigned flags) {
    struct bsa_section *section = (struct bsa_section *)layout->meta;
    uintptr_t start =
        layout->heap_offset != 0 ? layout->heap - (uintptr_t)layout->heap_offset : layout->meta;
    uint64_t end_of_header = sizeof *section;

    if ((flags & BSA_ZEROED) == 0) {
        /* The bytes before the header too, where an old one may lie. */
        memset((void *)start, 0, layout->meta - start + layout->meta_size);
    }
    memset(section, 0, sizeof *section);
    section->version = BSA_SECTION_VERSION;
    section->byte_order = BSA_BYTE_ORDER_MARK;
    section->header_size = (uint32_t)sizeof *section;
    section->page_shift = classes->page_shift;
    section->class_hash = bsa_class_table_hash(classes);
    section->nominal_base = (flags & BSA_OFFSET_ONLY) != 0 ? 0 : start;
    section->heap_offset = layout->heap_offset;
    section->nominal_heap = (flags & BSA_OFFSET_ONLY) != 0 ? section->heap_offset : layout->heap;
    section->total_pages = layout->pages;
    section->bitmap_bytes = classes->bitmap_bytes;
    place_area(section, 0, BSA_AREA_PAGES, sizeof(struct bsa_page), &end_of_header);
    place_area(section, 1, BSA_AREA_BITS, bits_entry(classes), &end_of_header);
    bsa_section_locate(section, layout->heap);
    section->derived.flags = flags;
    section->magic = BSA_SECTION_MAGIC;
    return section;
}

static bool area_is_valid(const struct bsa_section *section, unsigned slot, enum bsa_area_kind kind,
                          uint64_t entry, uint64_t size) {
    const struct bsa_area *area = &section->areas[slot];

    return area->kind == (uint32_t)kind && area->offset >= sizeof *section &&
           area->offset % BSA_CACHE_LINE == 0 &&
           area->length == ((uint64_t)section->total_pages + 1) * entry && area->offset < size &&
           area->length <= size - area->offset;
}

bool bsa_section_is_valid(const struct bsa_section *section, const struct bsa_class_table *classes,
                          uint64_t size) {
    uint64_t page = (uint64_t)1 << classes->page_shift;
    uint64_t heap_offset; /* from the header */

    if (size < sizeof *section || section->magic != BSA_SECTION_MAGIC ||
        section->version != BSA_SECTION_VERSION || section->byte_order != BSA_BYTE_ORDER_MARK ||
        section->header_size != sizeof *section || section->page_shift != classes->page_shift ||
        section->class_hash != bsa_class_table_hash(classes) ||
        section->bitmap_bytes != classes->bitmap_bytes) {
        return false;
    }
    if (section->total_pages == 0 || section->high_water > section->total_pages ||
        section->nominal_heap % page != 0 || section->heap_offset % page != 0) {
        return false;
    }
    heap_offset = section->heap_offset - (uintptr_t)section % page;
    if (section->areas[1].offset < section->areas[0].offset + section->areas[0].length) {
        return false;
    }
    if (section->heap_offset != 0 &&
        (heap_offset > size || heap_offset < section->areas[1].offset + section->areas[1].length ||
         (uint64_t)section->total_pages << classes->page_shift > size - heap_offset)) {
        return false;
    }
    return area_is_valid(section, 0, BSA_AREA_PAGES, sizeof(struct bsa_page), size) &&
           area_is_valid(section, 1, BSA_AREA_BITS, bits_entry(classes), size);
}
