/* Size classes: which object sizes slabs serve, and how large their slabs are.
 *
 * 8, then every multiple of 16 up to 256, then eight classes to each doubling up to 32 KiB:
 * rounding costs less than 20 % from 64 B and less than 11 % from 128 B. Pure functions of the
 * size; the table of a page size is computed once. */
#ifndef BSA_SIZE_CLASS_H
#define BSA_SIZE_CLASS_H

#include "bits.h"
#include "bsa.h"

struct bsa_class {
    uint32_t size;
    uint8_t order;                             /* of a slab where memory is not short */
    uint16_t capacity[BSA_MAX_SLAB_ORDER + 1]; /* objects in a slab of each order */
};

/* The objects in a slab of one class and order. */
struct bsa_shape {
    uint32_t size;
    uint32_t reciprocal; /* ceil(2^32 / size) */
    uint32_t capacity;
};

enum { BSA_SHAPES = (BSA_MAX_SLAB_ORDER + 1) << 7 }; /* see bsa_word_shape */

struct bsa_class_table {
    unsigned page_shift;
    unsigned count;        /* classes up to half a page, at most BSA_CLASSES */
    uint32_t largest;      /* bytes; larger requests are served in pages */
    uint32_t bitmap_bytes; /* of each of a page's two bitmaps */
    struct bsa_class classes[BSA_CLASSES];
    struct bsa_shape shapes[BSA_SHAPES]; /* the same once more, in the order that freeing asks */
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

/* Index of the object that starts `offset` bytes into a slab of the shape, or UINT32_MAX if none
 * does.
 *
 * offset * ceil(2^32 / size) / 2^32 is exact for multiples of size below 2^32 (Granlund and
 * Montgomery 1994); all others fail the multiplication back. */
static inline uint32_t bsa_object_index(const struct bsa_shape *shape, uint32_t offset) {
    uint32_t index = (uint32_t)((uint64_t)offset * shape->reciprocal >> 32);

    return index * shape->size == offset && index < shape->capacity ? index : UINT32_MAX;
}

#endif
