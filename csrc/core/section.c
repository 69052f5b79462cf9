/* Region -> layout -> section.
 *
 * [ header | page descriptors | local bitmaps | remote bitmaps | heap of whole pages | tail below a
 * page ]
 *
 * O(1) in the number of pages where the bytes are known to be zero, else one clearing of the
 * metadata. No locks: a section that is being made is nobody else's yet. */
#include "section.h"

/* Bytes of metadata for `pages` pages. The arrays hold one entry more than pages, and start such
 * that a page of even nominal number starts a pair of entries: blocks of two pages then own whole
 * cache lines. */
static uint64_t metadata_size(const struct bsa_class_table *classes, uint64_t pages) {
    uint64_t entry = sizeof(struct bsa_page) + 2 * (uint64_t)classes->bitmap_bytes;

    return bsa_round_up(sizeof(struct bsa_section), BSA_CACHE_LINE) + (pages + 1) * entry +
           3 * BSA_CACHE_LINE;
}

/* The number of pages is limited by the 32 bits of a page number. */
static uint64_t most_pages(uint64_t bytes, uint64_t bytes_a_page) {
    uint64_t pages = bytes / bytes_a_page;

    return pages < UINT32_MAX - 1 ? pages : UINT32_MAX - 1;
}

bool bsa_layout_region(struct bsa_layout *layout, const struct bsa_class_table *classes,
                       uintptr_t region, size_t size) {
    uint64_t page = (uint64_t)1 << classes->page_shift;
    uint64_t start = bsa_round_up(region, page),
             end = bsa_round_down((uint64_t)region + size, page);
    uint64_t entry = sizeof(struct bsa_page) + 2 * (uint64_t)classes->bitmap_bytes;
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
    layout->meta = (uintptr_t)start;
    layout->meta_size = metadata_size(classes, pages);
    layout->heap_offset = bsa_round_up(layout->meta_size, page);
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

    if (meta_end < meta || meta_start < meta || (uint64_t)heap + heap_size < heap || start < heap ||
        end <= start) {
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

/* Places the next area at a cache line, shifted by one entry where the first page's nominal number
 * is odd, and returns the offset of the entry of page 0. */
static uint64_t place_area(struct bsa_section *section, unsigned slot, enum bsa_area_kind kind,
                           uint64_t entry, uint64_t *offset) {
    uint64_t length = ((uint64_t)section->total_pages + 1) * entry;
    uint64_t start = bsa_round_up(*offset, BSA_CACHE_LINE);

    section->areas[slot] = (struct bsa_area){kind, 0, start, length};
    *offset = start + length;
    return start + (bsa_nominal_page(section, 0) & 1) * entry;
}

static void place_areas(struct bsa_section *section) {
    uint64_t offset = sizeof *section;

    section->pages_offset =
        place_area(section, 0, BSA_AREA_PAGES, sizeof(struct bsa_page), &offset);
    section->local_offset =
        place_area(section, 1, BSA_AREA_LOCAL_BITS, section->bitmap_bytes, &offset);
    section->remote_offset =
        place_area(section, 2, BSA_AREA_REMOTE_BITS, section->bitmap_bytes, &offset);
}

struct bsa_section *bsa_section_create(const struct bsa_layout *layout,
                                       const struct bsa_class_table *classes, unsigned flags) {
    struct bsa_section *section = (struct bsa_section *)layout->meta;
    uint64_t nominal_base = (flags & BSA_OFFSET_ONLY) != 0 ? 0 : layout->meta;

    memset(section, 0, (flags & BSA_ZEROED) != 0 ? sizeof *section : layout->meta_size);
    section->version = BSA_SECTION_VERSION;
    section->byte_order = BSA_BYTE_ORDER_MARK;
    section->header_size = (uint32_t)sizeof *section;
    section->page_shift = classes->page_shift;
    section->class_hash = bsa_class_table_hash(classes);
    section->nominal_base = nominal_base;
    section->heap_offset = layout->heap_offset;
    section->nominal_heap = (flags & BSA_OFFSET_ONLY) != 0 ? section->heap_offset : layout->heap;
    section->total_pages = layout->pages;
    section->bitmap_bytes = classes->bitmap_bytes;
    place_areas(section);
    section->derived.heap_start = layout->heap;
    section->derived.heap_size = (uint64_t)layout->pages << classes->page_shift;
    section->derived.flags = flags;
    section->derived.real_alignment = bsa_kept_alignment(layout->heap - section->nominal_heap);
    section->magic = BSA_SECTION_MAGIC;
    return section;
}

static bool area_is_valid(const struct bsa_section *section, unsigned slot, enum bsa_area_kind kind,
                          uint64_t entry, uint64_t entry_offset, uint64_t size) {
    const struct bsa_area *area = &section->areas[slot];

    return area->kind == (uint32_t)kind && area->offset >= sizeof *section &&
           area->offset % BSA_CACHE_LINE == 0 &&
           area->length == ((uint64_t)section->total_pages + 1) * entry && area->offset < size &&
           area->length <= size - area->offset &&
           entry_offset == area->offset + (bsa_nominal_page(section, 0) & 1) * entry;
}

bool bsa_section_is_valid(const struct bsa_section *section, const struct bsa_class_table *classes,
                          uint64_t size) {
    uint64_t page = (uint64_t)1 << classes->page_shift, bits = classes->bitmap_bytes;

    if (size < sizeof *section || section->magic != BSA_SECTION_MAGIC ||
        section->version != BSA_SECTION_VERSION || section->byte_order != BSA_BYTE_ORDER_MARK ||
        section->header_size != sizeof *section || section->page_shift != classes->page_shift ||
        section->class_hash != bsa_class_table_hash(classes) || section->bitmap_bytes != bits) {
        return false;
    }
    if (section->total_pages == 0 || section->high_water > section->total_pages ||
        section->nominal_heap % page != 0 || section->heap_offset % page != 0) {
        return false;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (section->areas[i + 1].offset < section->areas[i].offset + section->areas[i].length) {
            return false;
        }
    }
    if (section->heap_offset != 0 &&
        (section->heap_offset > size ||
         section->heap_offset < section->areas[2].offset + section->areas[2].length ||
         (uint64_t)section->total_pages << classes->page_shift > size - section->heap_offset)) {
        return false;
    }
    return area_is_valid(section, 0, BSA_AREA_PAGES, sizeof(struct bsa_page), section->pages_offset,
                         size) &&
           area_is_valid(section, 1, BSA_AREA_LOCAL_BITS, bits, section->local_offset, size) &&
           area_is_valid(section, 2, BSA_AREA_REMOTE_BITS, bits, section->remote_offset, size);
}
