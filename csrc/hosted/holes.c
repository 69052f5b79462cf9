/* See holes.h.
 *
 * The tree is a treap (Seidel and Aragon 1996), a search tree kept balanced by priorities hashed
 * from the holes' numbers, in which each hole knows the largest one of its subtree. So the first
 * hole in order that is large enough is found on one way down: first fit where the order is that of
 * addresses, best fit where it is that of sizes. Each operation is O(log holes) expected.
 *
 * The lists are those of TLSF, two-level segregated fit (Masmano, Ripoll, Crespo and Real 2004):
 * sizes fall into levels by their power of two, and each level into 32 lists, last in first out;
 * bit maps name those that are not empty. Each operation is O(1). */
#include "holes.h"

/* --- the tree ----------------------------------------------------------------------------------
 */

static uint32_t priority(uint32_t hole) {
    uint32_t hash = hole * 0x9e3779b1U;

    return (hash ^ hash >> 15) * 0x85ebca77U;
}

static uint64_t largest_of(const struct bsa_piece *pieces, uint32_t hole) {
    return hole == 0 ? 0 : pieces[hole].largest;
}

static void update_largest(struct bsa_piece *pieces, uint32_t hole) {
    struct bsa_piece *piece = &pieces[hole];
    uint64_t left = largest_of(pieces, piece->left), right = largest_of(pieces, piece->right);
    uint64_t below = left > right ? left : right;

    piece->largest = piece->size > below ? piece->size : below;
}

static bool comes_before(const struct bsa_hole_tree *tree, uint32_t a, uint32_t b) {
    const struct bsa_piece *first = &tree->pieces[a], *second = &tree->pieces[b];

    if (tree->is_by_size && first->size != second->size) {
        return first->size < second->size;
    }
    return first->start < second->start;
}

/* Puts `child` (0: nothing) where `old` hangs on its parent. */
static void hang(struct bsa_hole_tree *tree, uint32_t parent, uint32_t old, uint32_t child) {
    if (child != 0) {
        tree->pieces[child].parent = parent;
    }
    if (parent == 0) {
        tree->root = child;
    } else if (tree->pieces[parent].left == old) {
        tree->pieces[parent].left = child;
    } else {
        tree->pieces[parent].right = child;
    }
}

/* Exchanges a hole with its parent, keeping the order. */
static void rotate_up(struct bsa_hole_tree *tree, uint32_t hole) {
    struct bsa_piece *pieces = tree->pieces;
    uint32_t parent = pieces[hole].parent, inner;

    hang(tree, pieces[parent].parent, parent, hole);
    if (pieces[parent].left == hole) {
        inner = pieces[hole].right;
        pieces[parent].left = inner;
        pieces[hole].right = parent;
    } else {
        inner = pieces[hole].left;
        pieces[parent].right = inner;
        pieces[hole].left = parent;
    }
    if (inner != 0) {
        pieces[inner].parent = parent;
    }
    pieces[parent].parent = hole;
    update_largest(pieces, parent);
    update_largest(pieces, hole);
}

void bsa_hole_tree_insert(struct bsa_hole_tree *tree, uint32_t hole) {
    struct bsa_piece *pieces = tree->pieces, *piece = &pieces[hole];
    uint32_t parent = 0, at = tree->root;
    bool goes_left = false;

    while (at != 0) {
        parent = at;
        pieces[at].largest = piece->size > pieces[at].largest ? piece->size : pieces[at].largest;
        goes_left = comes_before(tree, hole, at);
        at = goes_left ? pieces[at].left : pieces[at].right;
    }
    piece->left = piece->right = 0;
    piece->parent = parent;
    piece->largest = piece->size;
    *(parent == 0 ? &tree->root : goes_left ? &pieces[parent].left : &pieces[parent].right) = hole;
    while (piece->parent != 0 && priority(piece->parent) < priority(hole)) {
        rotate_up(tree, hole);
    }
}

void bsa_hole_tree_remove(struct bsa_hole_tree *tree, uint32_t hole) {
    struct bsa_piece *pieces = tree->pieces, *piece = &pieces[hole];
    uint64_t largest;
    uint32_t at;

    while (piece->left != 0 && piece->right != 0) {
        bool left_rises = priority(piece->left) > priority(piece->right);

        rotate_up(tree, left_rises ? piece->left : piece->right);
    }
    hang(tree, piece->parent, hole, piece->left != 0 ? piece->left : piece->right);
    for (at = piece->parent; at != 0; at = pieces[at].parent) {
        largest = pieces[at].largest;
        update_largest(pieces, at);
        if (pieces[at].largest == largest) {
            return; /* so it is above */
        }
    }
}

uint32_t bsa_hole_tree_find(const struct bsa_hole_tree *tree, uint64_t size) {
    const struct bsa_piece *pieces = tree->pieces;
    uint32_t at = tree->root;

    if (at == 0 || pieces[at].largest < size) {
        return 0;
    }
    for (;;) {
        if (largest_of(pieces, pieces[at].left) >= size) {
            at = pieces[at].left;
        } else if (pieces[at].size >= size) {
            return at;
        } else {
            at = pieces[at].right;
        }
    }
}

/* --- the lists ---------------------------------------------------------------------------------
 */

enum { LEVEL_0_LOG2 = 9 }; /* sizes below 2^9 = 32 granules share level 0, a list for each size */

static unsigned log2_floor(uint64_t value) {
    return 63U - (unsigned)__builtin_clzll(value);
}

static void list_of(uint64_t size, unsigned *level, unsigned *list) {
    if (size < (uint64_t)1 << LEVEL_0_LOG2) {
        *level = 0;
        *list = (unsigned)size / BSA_PIECE_GRANULE;
    } else {
        *level = log2_floor(size) - LEVEL_0_LOG2 + 1;
        *list = (unsigned)(size >> (log2_floor(size) - BSA_TLSF_LISTS_LOG2)) % BSA_TLSF_LISTS;
    }
}

void bsa_hole_lists_insert(struct bsa_hole_lists *lists, uint32_t hole) {
    struct bsa_piece *piece = &lists->pieces[hole];
    unsigned level, list;
    uint32_t *first;

    list_of(piece->size, &level, &list);
    first = &lists->first[level][list];
    piece->left = 0;
    piece->right = *first;
    if (*first != 0) {
        lists->pieces[*first].left = hole;
    }
    *first = hole;
    lists->lists[level] |= (uint32_t)1 << list;
    lists->levels |= (uint64_t)1 << level;
}

void bsa_hole_lists_remove(struct bsa_hole_lists *lists, uint32_t hole) {
    const struct bsa_piece *piece = &lists->pieces[hole];
    unsigned level, list;

    list_of(piece->size, &level, &list);
    if (piece->right != 0) {
        lists->pieces[piece->right].left = piece->left;
    }
    if (piece->left != 0) {
        lists->pieces[piece->left].right = piece->right;
        return;
    }
    lists->first[level][list] = piece->right;
    if (piece->right == 0) {
        lists->lists[level] &= ~((uint32_t)1 << list);
        if (lists->lists[level] == 0) {
            lists->levels &= ~((uint64_t)1 << level);
        }
    }
}

uint32_t bsa_hole_lists_find(const struct bsa_hole_lists *lists, uint64_t size) {
    unsigned level, list;
    uint32_t fitting;

    if (size >= (uint64_t)1 << LEVEL_0_LOG2) { /* the list of `size` itself has smaller ones, too */
        size += ((uint64_t)1 << (log2_floor(size) - BSA_TLSF_LISTS_LOG2)) - 1;
    }
    list_of(size, &level, &list);
    fitting = lists->lists[level] & UINT32_MAX << list;
    if (fitting == 0) {
        uint64_t levels = level == 63 ? 0 : lists->levels & UINT64_MAX << (level + 1);

        if (levels == 0) {
            return 0;
        }
        level = (unsigned)__builtin_ctzll(levels);
        fitting = lists->lists[level];
    }
    return lists->first[level][__builtin_ctz(fitting)];
}
