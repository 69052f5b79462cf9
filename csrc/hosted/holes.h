/* Holes of a simulated heap, indexed so that one for a request is found at once: a search tree for
 * first fit and best fit, segregated lists for TLSF.
 *
 * The heap is cut into pieces, live blocks and holes, which the caller keeps in an array; a piece
 * is named by its number there, and number 0 is none. */
#ifndef BSA_HOLES_H
#define BSA_HOLES_H

#include <stdbool.h>
#include <stdint.h>

#define BSA_PIECE_GRANULE 16 /* starts and sizes of pieces are multiples of it */

struct bsa_piece {
    uint64_t start, size;   /* bytes */
    uint32_t before, after; /* its neighbours by address */
    bool is_hole;
    /* Of a hole in a tree: its children and parent, and the largest hole of its subtree. In a list:
     * `left` and `right` are its neighbours there. */
    uint32_t left, right, parent;
    uint64_t largest;
};

/* In the order of addresses, or of sizes and then addresses. All zero: no holes. */
struct bsa_hole_tree {
    struct bsa_piece *pieces;
    uint32_t root;
    bool is_by_size;
};

void bsa_hole_tree_insert(struct bsa_hole_tree *tree, uint32_t hole);
void bsa_hole_tree_remove(struct bsa_hole_tree *tree, uint32_t hole);
/* The first hole in the tree's order that has at least `size` bytes. */
uint32_t bsa_hole_tree_find(const struct bsa_hole_tree *tree, uint64_t size);

enum {
    BSA_TLSF_LISTS_LOG2 = 5, /* lists to each doubling of sizes */
    BSA_TLSF_LISTS = 1 << BSA_TLSF_LISTS_LOG2,
    BSA_TLSF_LEVELS = 64,
};

/* All zero: no holes. */
struct bsa_hole_lists {
    struct bsa_piece *pieces;
    uint64_t levels;                 /* bit f: a list of level f is not empty */
    uint32_t lists[BSA_TLSF_LEVELS]; /* bit s of level f: that list is not empty */
    uint32_t first[BSA_TLSF_LEVELS][BSA_TLSF_LISTS];
};

void bsa_hole_lists_insert(struct bsa_hole_lists *lists, uint32_t hole);
void bsa_hole_lists_remove(struct bsa_hole_lists *lists, uint32_t hole);
/* The first hole of the first list whose holes all have at least `size` bytes. */
uint32_t bsa_hole_lists_find(const struct bsa_hole_lists *lists, uint64_t size);

#endif
