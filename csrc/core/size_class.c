/* The class table of a page size. See size_class.h for the sizes; here: how large slabs are.
 *
 * A slab is the smallest block of two pages or more that loses at most a sixteenth to its tail; or
 * of four pages, where that loses at most a 24th and two pages lose more. So it holds at least four
 * objects, and no more than it must: the fewer there are, the more often all of them are free, and
 * the less lies idle. Two pages, so that the heads of two slabs are never in one cache line; not so
 * where pages are beyond 64 KiB, and the second page would cost more than it saves. The summary of
 * remote frees has 64 bits, one for each word of a bitmap: so no slab has more words. */
#include "size_class.h"

enum {
    SLAB_MAX_WASTE_FRACTION = 16,
    SLAB_GOOD_FRACTION = 24,
    SLAB_ONE_PAGE_SHIFT = 17, /* pages from 128 KiB up may be a slab each */
    BITMAP_BYTES_MIN = 8,
    MAX_WORDS = 64,
};

size_t bsa_class_size(unsigned class_index) {
    unsigned step = (class_index - 1) % 8 + 1, exponent = (class_index - 1) / 8 + 6;

    if (class_index == 0) {
        return 8;
    }
    if (class_index <= 16) {
        return (size_t)class_index * 16;
    }
    return ((size_t)1 << exponent) + (size_t)step * ((size_t)1 << (exponent - 3));
}

static uint32_t objects_in(const struct bsa_class_table *table, uint32_t stride, unsigned order) {
    uint32_t bytes = (uint32_t)1 << (table->page_shift + order);

    return bsa_bitmap_words(table, order) > MAX_WORDS ? 0 : bytes / stride;
}

/* Whether objects of the class leave at most that fraction of a block of the order. */
static bool fills(const struct bsa_class_table *table, const struct bsa_class *class,
                  unsigned order, uint32_t fraction) {
    uint32_t bytes = (uint32_t)1 << (table->page_shift + order);

    return bytes - class->capacity[order] * class->stride <= bytes / fraction;
}

/* Whether a slab of the order has more objects than one of the order below. */
static bool has_more(const struct bsa_class *class, unsigned order) {
    return order <= BSA_MAX_SLAB_ORDER && class->capacity[order] > class->capacity[order - 1];
}

static unsigned preferred_order(const struct bsa_class_table *table,
                                const struct bsa_class *class) {
    unsigned order = table->page_shift < SLAB_ONE_PAGE_SHIFT && has_more(class, 1);

    if (order == 1 && has_more(class, 2) && !fills(table, class, 1, SLAB_GOOD_FRACTION) &&
        fills(table, class, 2, SLAB_GOOD_FRACTION)) {
        return 2;
    }
    while (has_more(class, order + 1) && !fills(table, class, order, SLAB_MAX_WASTE_FRACTION)) {
        order++;
    }
    return order;
}

void bsa_class_table_init(struct bsa_class_table *table, unsigned page_shift) {
    uint32_t half_page = (uint32_t)1 << (page_shift - 1);
    uint32_t bitmap = (uint32_t)1 << (page_shift - 7); /* a bit for every 16 bytes */

    memset(table, 0, sizeof *table);
    table->page_shift = page_shift;
    table->largest = half_page < BSA_MAX_OBJECT_SIZE ? half_page : BSA_MAX_OBJECT_SIZE;
    table->count = bsa_class_of_size(table->largest) + 1;
    table->bitmap_bytes = bitmap < BITMAP_BYTES_MIN ? BITMAP_BYTES_MIN
                          : bitmap > MAX_WORDS * 8  ? MAX_WORDS * 8
                                                    : bitmap;
    table->granule_shift = page_shift - bsa_log2_floor((uint64_t)table->bitmap_bytes * 8);
    for (unsigned i = 0; i < table->count; i++) {
        struct bsa_class *class = &table->classes[i];

        class->size = (uint32_t)bsa_class_size(i);
        class->stride = (uint32_t)bsa_round_up(class->size, (uint64_t)1 << table->granule_shift);
        class->step = class->stride >> table->granule_shift;
        class->rest = 64 % class->step;
        for (uint32_t bit = 0; bit < 64; bit += class->step) {
            class->starts |= (uint64_t)1 << bit;
        }
        for (unsigned order = 0; order <= BSA_MAX_SLAB_ORDER; order++) {
            class->capacity[order] = (uint16_t)objects_in(table, class->stride, order);
        }
        class->order = (uint8_t)preferred_order(table, class);
    }
    for (uint32_t i = 1; i <= table->largest / 8; i++) {
        table->of_size[i] = (uint8_t)bsa_class_of_size((size_t)8 * i);
    }
}

unsigned bsa_class_for(const struct bsa_class_table *table, size_t size, size_t align) {
    unsigned index;

    if (size > table->largest || align > table->largest) {
        return BSA_CLASSES;
    }
    index = bsa_class_of_size(size == 0 ? 1 : size);
    while (align != 0 && (bsa_class_size(index) & (align - 1)) != 0) {
        index++;
    }
    return index;
}

struct bsa_starts bsa_starts_in(const struct bsa_class *class, unsigned order, uint32_t word) {
    uint32_t past = word * 64 % class->step;

    return (struct bsa_starts){.class = class,
                               .word = word,
                               .first = past == 0 ? 0 : class->step - past,
                               .end = class->capacity[order] * class->step};
}

uint64_t bsa_class_table_hash(const struct bsa_class_table *table) {
    uint64_t hash = 0xcbf29ce484222325ULL; /* FNV-1a, over the numbers that shape a slab */

    for (unsigned i = 0; i < table->count; i++) {
        uint32_t numbers[2] = {table->classes[i].size, table->bitmap_bytes};

        for (unsigned k = 0; k < 2; k++) {
            hash = (hash ^ numbers[k]) * 0x100000001b3ULL;
        }
    }
    return hash;
}
