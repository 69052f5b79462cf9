/* One look at a heap in numbers: what is live, what is lost and where, what is free in which
 * pieces.
 *
 * The losses and the sums over free blocks are defined in bsa/metrics.py, with formulas and
 * origins; the indices per order in bsa.h. */
#ifndef BSA_METRICS_H
#define BSA_METRICS_H

#include "bsa.h"

/* Bytes of a huge page on x86-64, and often elsewhere. */
#define BSA_HUGE_PAGE ((uint64_t)2 << 20)

/* All fields are 64 bits wide, so that an array of these is a table of numbers; bytes, where
 * nothing else is said. Those per order have BSA_MAX_ORDER + 1 entries; indices are thousandths. */
struct bsa_sample {
    int64_t event;                          /* events run before */
    int64_t requested;                      /* live bytes of the trace, as asked for */
    int64_t granted;                        /* the same as granted */
    int64_t allocated;                      /* of all pages that are not free */
    int64_t peak_requested, peak_allocated; /* the most so far: of the trace, of the heap's life */
    /* Where the heap was empty before the trace, `allocated` is `requested` and these three. */
    int64_t class_rounding; /* of objects, up to their class */
    int64_t page_rounding;  /* of page blocks, up to their block */
    int64_t slab_slack;     /* in slabs' pages, but in no live object */
    int64_t free;
    int64_t largest_free; /* the largest free block */
    int64_t huge_free;    /* in blocks of a huge page or more */
    int64_t free_squares; /* the sum of the free blocks' squared sizes, in pages; below 2^53 */
    int64_t free_blocks[BSA_MAX_ORDER + 1];
    int64_t unusable[BSA_MAX_ORDER + 1];
    int64_t extfrag[BSA_MAX_ORDER + 1];
};

/* Fills in all that the heap itself can tell: not `event`, nor what concerns the trace alone. The
 * rounding of page blocks is of all of them; the caller takes off what was there before. */
void bsa_sample_heap(const struct bsa_root *root, const struct bsa_usage *usage,
                     struct bsa_sample *sample);

#endif
