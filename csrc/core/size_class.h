/* Size classes: which object sizes slabs serve, and how large their slabs are.
 *
 * 8, then every multiple of 16 up to 256, then eight classes to each doubling up to 32 KiB:
 * rounding costs less than 20 % from 64 B and less than 11 % from 128 B. Pure functions of the
 * size; the table of a page size is computed once. */
#ifndef BSA_SIZE_CLASS_H
#define BSA_SIZE_CLASS_H

#include "bits.h"
#include "bsa.h"

/* The bitmaps of a slab have a bit for every *granule* of it, 16 bytes where pages are of 1 to 64
 * KiB. The bit of an object is that of the granule it starts at. */
struct bsa_class {
    uint32_t size;
    uint32_t stride;                           /* bytes from one object to the next */
    uint32_t step;                             /* the same in granules */
    uint32_t rest;                             /* 64 modulo that */
    uint64_t starts;                           /* the bits at multiples of `step` */
    uint8_t order;                             /* of a slab where memory is not short */
    uint16_t capacity[BSA_MAX_SLAB_ORDER + 1]; /* objects in a slab of each order; 0: no slab */
};

struct bsa_class_table {
    unsigned page_shift;
    unsigned count;        /* classes up to half a page, at most BSA_CLASSES */
    uint32_t largest;      /* bytes; larger requests are served in pages */
    uint32_t bitmap_bytes; /* of each of a page's two bitmaps */
    unsigned granule_shift;
    struct bsa_class classes[BSA_CLASSES];
    uint8_t of_size[BSA_MAX_OBJECT_SIZE / 8 + 1]; /* the class of 8 i bytes */
};

/* The smallest class for `size` bytes, 1 to BSA_MAX_OBJECT_SIZE. */
static inline unsigned bsa_class_of_size(size_t size) {
    unsigned exponent;

    if (size <= 256) {
        return size <= 8 ? 0 : (unsigned)((size + 15) >> 4);
    }
    exponent = bsa_log2_floor(size - 1);
    return 17 + (exponent - 8) * 8 + (unsigned)((size - 1) >> (exponent - 3) & 7);
}

/* The same from the table, without a branch. `size` is at most the table's largest, 0 counts as 1.
 */
static inline unsigned bsa_class_at_hand(const struct bsa_class_table *table, size_t size) {
    return table->of_size[(size + 7) / 8];
}

/* Fills the table for pages of 2^page_shift bytes. */
void bsa_class_table_init(struct bsa_class_table *table, unsigned page_shift);

/* The smallest class with objects of at least `size` bytes, all aligned to `align` (a power of two,
 * 0: any), or BSA_CLASSES if only pages serve. */
unsigned bsa_class_for(const struct bsa_class_table *table, size_t size, size_t align);

/* A number that differs where two tables differ: kept in each section's header. */
uint64_t bsa_class_table_hash(const struct bsa_class_table *table);

/* Words in each bitmap of a slab of that order. */
static inline uint32_t bsa_bitmap_words(const struct bsa_class_table *table, unsigned order) {
    return table->bitmap_bytes / 8 << order;
}

/* Where objects start, word after word of a slab's bitmaps. */
struct bsa_starts {
    const struct bsa_class *class;
    uint32_t word;
    uint32_t first; /* granules from the word's start to the first object that starts there or after
                     */
    uint32_t end;   /* granules from the slab's start to the end of its last object */
};

/* Those in word `word` of a slab of the class and order. */
struct bsa_starts bsa_starts_in(const struct bsa_class *class, unsigned order, uint32_t word);

/* Their bits; 0: no object starts in the word. */
static inline uint64_t bsa_starts_bits(const struct bsa_starts *at) {
    uint32_t rest = at->end > at->word * 64 ? at->end - at->word * 64 : 0;
    uint64_t bits = at->first >= 64 ? 0 : at->class->starts << at->first;

    return rest >= 64 ? bits : bits & (((uint64_t)1 << rest) - 1);
}

/* Goes to the next word that has any; after the last one, to word 0. O(1). */
static inline void bsa_starts_next(struct bsa_starts *at) {
    uint32_t rest = at->class->rest;

    at->first += at->first < rest ? at->class->step - rest : 0U - rest;
    at->word += 1 + at->first / 64;
    at->first %= 64;
    if (at->word * 64 + at->first >= at->end) {
        at->word = at->first = 0;
    }
}

#endif
