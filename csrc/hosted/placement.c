/* See placement.h.
 *
 * The model heap is a row of pieces from address 0 up, live blocks and holes; two holes are never
 * neighbours, since a freed block merges with those beside it. Behind the last live block, at
 * `top`, begins memory that was not used yet or was given back: it is taken only if no hole will
 * do, as the "wilderness" of Doug Lea's allocator.
 *
 * A block takes its size and the header, rounded up to 16 bytes and at least 32, from the low end
 * of the hole that the policy chooses: the lowest one that is large enough (first fit), the
 * smallest (best fit; of equal ones the lowest), or TLSF's. The rest of the hole stays one if it
 * has 32 bytes. An alignment above 16 is had as memalign of those allocators has it: by asking for
 * so much more that an aligned block can be cut out, and freeing what is before and behind it. A
 * realloc shrinks, or grows into the hole (or the wilderness) behind the block, in place; else the
 * block is placed anew while it still is where it was.
 *
 * An event costs O(log holes) expected for first and best fit, O(1) for TLSF. */
#include "placement.h"

#include <stdlib.h>

#define MOST_BYTES ((uint64_t)1 << 62) /* of a heap, so that no sum of two can wrap */

/* --- pieces ------------------------------------------------------------------------------------
 */

static struct bsa_piece *piece_at(const struct bsa_placement *p, uint32_t piece) {
    return &p->pieces[piece];
}

/* Every event makes three pieces at most: what is cut out of a hole, and the holes around it. */
static bool reserve_pieces(struct bsa_placement *p) {
    uint32_t capacity = p->capacity * 2 + 64;
    struct bsa_piece *pieces;

    if (p->capacity - p->pieces_made >= 4) {
        return true;
    }
    pieces = p->capacity > UINT32_MAX / 4 ? NULL : realloc(p->pieces, capacity * sizeof *pieces);
    if (pieces == NULL) {
        return false;
    }
    p->pieces = pieces;
    p->capacity = capacity;
    *(p->policy == BSA_TLSF ? &p->holes.lists.pieces : &p->holes.tree.pieces) = pieces;
    return true;
}

static uint32_t new_piece(struct bsa_placement *p, uint64_t start, uint64_t size) {
    uint32_t piece = p->spare;

    if (piece != 0) {
        p->spare = piece_at(p, piece)->after;
    } else {
        piece = ++p->pieces_made;
    }
    *piece_at(p, piece) = (struct bsa_piece){.start = start, .size = size};
    return piece;
}

static void forget_piece(struct bsa_placement *p, uint32_t piece) {
    piece_at(p, piece)->after = p->spare;
    p->spare = piece;
}

static void link_after(struct bsa_placement *p, uint32_t before, uint32_t piece) {
    uint32_t after = before == 0 ? 0 : piece_at(p, before)->after;

    piece_at(p, piece)->before = before;
    piece_at(p, piece)->after = after;
    if (before != 0) {
        piece_at(p, before)->after = piece;
    }
    if (after != 0) {
        piece_at(p, after)->before = piece;
    } else {
        p->last = piece;
    }
}

static void unlink_piece(struct bsa_placement *p, uint32_t piece) {
    uint32_t before = piece_at(p, piece)->before, after = piece_at(p, piece)->after;

    if (before != 0) {
        piece_at(p, before)->after = after;
    }
    if (after != 0) {
        piece_at(p, after)->before = before;
    } else {
        p->last = before;
    }
}

static void set_top(struct bsa_placement *p, uint64_t top) {
    p->top = top;
    p->peak = top > p->peak ? top : p->peak;
}

/* --- holes -------------------------------------------------------------------------------------
 */

static void insert_hole(struct bsa_placement *p, uint32_t hole) {
    piece_at(p, hole)->is_hole = true;
    if (p->policy == BSA_TLSF) {
        bsa_hole_lists_insert(&p->holes.lists, hole);
    } else {
        bsa_hole_tree_insert(&p->holes.tree, hole);
    }
}

static void remove_hole(struct bsa_placement *p, uint32_t hole) {
    piece_at(p, hole)->is_hole = false;
    if (p->policy == BSA_TLSF) {
        bsa_hole_lists_remove(&p->holes.lists, hole);
    } else {
        bsa_hole_tree_remove(&p->holes.tree, hole);
    }
}

static uint32_t find_hole(const struct bsa_placement *p, uint64_t size) {
    return p->policy == BSA_TLSF ? bsa_hole_lists_find(&p->holes.lists, size)
                                 : bsa_hole_tree_find(&p->holes.tree, size);
}

/* A piece of the same place as both; `second` comes right after `first`, and neither is indexed. */
static void merge(struct bsa_placement *p, uint32_t first, uint32_t second) {
    piece_at(p, first)->size += piece_at(p, second)->size;
    unlink_piece(p, second);
    forget_piece(p, second);
}

/* Makes a block a hole, merged with those beside it; the last one becomes wilderness. */
static void free_piece(struct bsa_placement *p, uint32_t piece) {
    uint32_t before = piece_at(p, piece)->before, after = piece_at(p, piece)->after;

    if (after != 0 && piece_at(p, after)->is_hole) {
        remove_hole(p, after);
        merge(p, piece, after);
    }
    if (before != 0 && piece_at(p, before)->is_hole) {
        remove_hole(p, before);
        merge(p, before, piece);
        piece = before;
    }
    if (p->last == piece) {
        set_top(p, piece_at(p, piece)->start);
        unlink_piece(p, piece);
        forget_piece(p, piece);
    } else {
        insert_hole(p, piece);
    }
}

/* Cuts a block down to `size` bytes, if what is left over can be a hole. */
static void trim(struct bsa_placement *p, uint32_t piece, uint64_t size) {
    uint64_t left_over = piece_at(p, piece)->size - size;
    uint32_t tail;

    if (left_over < BSA_PIECE_MIN) {
        return;
    }
    tail = new_piece(p, piece_at(p, piece)->start + size, left_over);
    piece_at(p, piece)->size = size;
    link_after(p, piece, tail);
    free_piece(p, tail);
}

/* --- blocks ------------------------------------------------------------------------------------
 */

/* Bytes of the piece for a request; false: no address space has so many. */
static bool size_for(const struct bsa_placement *p, uint64_t requested, uint64_t *size) {
    if (requested >= MOST_BYTES) {
        return false;
    }
    *size = (requested + p->header + BSA_PIECE_GRANULE - 1) / BSA_PIECE_GRANULE * BSA_PIECE_GRANULE;
    *size = *size > BSA_PIECE_MIN ? *size : BSA_PIECE_MIN;
    return true;
}

/* The first aligned place at or behind `start` before which there is nothing, or enough for a hole.
 */
static uint64_t aligned_start(uint64_t start, uint64_t align) {
    uint64_t place = (start + align - 1) & ~(align - 1);

    while (place != start && place - start < BSA_PIECE_MIN) {
        place += align;
    }
    return place;
}

/* Splits a block in two and frees the first part. Returns the second. */
static uint32_t cut_front(struct bsa_placement *p, uint32_t piece, uint64_t size) {
    uint32_t rest;

    if (size == 0) {
        return piece;
    }
    rest = new_piece(p, piece_at(p, piece)->start + size, piece_at(p, piece)->size - size);
    piece_at(p, piece)->size = size;
    link_after(p, piece, rest);
    free_piece(p, piece);
    return rest;
}

/* Takes a piece with room for the block from a hole; 0: no hole will do. */
static uint32_t take_hole(struct bsa_placement *p, uint64_t size) {
    uint32_t hole = find_hole(p, size);

    if (hole != 0) {
        remove_hole(p, hole);
    }
    return hole;
}

static uint32_t take_wilderness(struct bsa_placement *p, uint64_t size) {
    uint32_t piece = new_piece(p, p->top, size);

    link_after(p, p->last, piece);
    return piece;
}

/* A block of `size` bytes. */
static uint32_t place(struct bsa_placement *p, uint64_t size, uint64_t align) {
    bool is_aligned = align <= BSA_PIECE_GRANULE;
    uint32_t piece = take_hole(p, is_aligned ? size : size + align + BSA_PIECE_MIN);
    uint64_t start = piece != 0 ? piece_at(p, piece)->start : p->top;
    uint64_t front = is_aligned ? 0 : aligned_start(start, align) - start;

    if (piece == 0) {
        piece = take_wilderness(p, front + size);
    }
    piece = cut_front(p, piece, front);
    trim(p, piece, size);
    if (piece == p->last) {
        set_top(p, piece_at(p, piece)->start + piece_at(p, piece)->size);
    }
    return piece;
}

static bool resize_in_place(struct bsa_placement *p, uint32_t piece, uint64_t size) {
    uint32_t after = piece_at(p, piece)->after;
    uint64_t room = piece_at(p, piece)->size;

    if (room < size && piece == p->last) {
        piece_at(p, piece)->size = size;
        set_top(p, piece_at(p, piece)->start + size);
        return true;
    }
    if (room < size && piece_at(p, after)->is_hole && room + piece_at(p, after)->size >= size) {
        remove_hole(p, after);
        merge(p, piece, after);
        room = piece_at(p, piece)->size;
    }
    if (room < size) {
        return false;
    }
    trim(p, piece, size);
    return true;
}

/* --- events ------------------------------------------------------------------------------------
 */

/* Allocates for the entry, or reallocates: then what is there goes only when the new is there. */
static bsa_placement_status run_alloc(struct bsa_placement *p, size_t event, uint32_t *entry) {
    uint32_t old = *entry;
    uint64_t size;

    if (!size_for(p, p->events.size[event], &size) || p->top > MOST_BYTES) {
        return BSA_PLACEMENT_TOO_LARGE;
    }
    if (!reserve_pieces(p)) {
        return BSA_PLACEMENT_NO_MEMORY;
    }
    if (old == 0 || !resize_in_place(p, old, size)) {
        *entry = place(p, size, p->events.align[event]);
        if (old != 0) {
            free_piece(p, old);
        }
    }
    return BSA_PLACEMENT_OK;
}

static bsa_placement_status run_event(struct bsa_placement *p, size_t event) {
    uint32_t *entry = &p->table[p->events.id[event]];
    uint8_t op = p->events.op[event];
    bool begins = op == BSA_EVENT_ALLOC || op == BSA_EVENT_ZALLOC;

    if ((*entry == 0) != begins || op < BSA_EVENT_ALLOC || op > BSA_EVENT_FREE) {
        return BSA_PLACEMENT_BAD_EVENT;
    }
    if (op == BSA_EVENT_FREE) {
        free_piece(p, *entry);
        *entry = 0;
        return BSA_PLACEMENT_OK;
    }
    return run_alloc(p, event, entry);
}

void bsa_placement_init(struct bsa_placement *placement, enum bsa_placement_policy policy,
                        uint64_t header, const struct bsa_events *events, uint32_t *table) {
    *placement = (struct bsa_placement){
        .policy = policy, .header = header, .events = *events, .table = table};
    if (policy != BSA_TLSF) {
        placement->holes.tree.is_by_size = policy == BSA_BEST_FIT;
    }
}

bsa_placement_status bsa_placement_run(struct bsa_placement *placement, size_t until) {
    while (placement->next < until) {
        bsa_placement_status status = run_event(placement, placement->next);

        if (status != BSA_PLACEMENT_OK) {
            return status;
        }
        placement->next++;
    }
    return BSA_PLACEMENT_OK;
}

void bsa_placement_clear(struct bsa_placement *placement) {
    free(placement->pieces);
    placement->pieces = NULL;
}
