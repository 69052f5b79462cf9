/* Where other allocators would put a trace's blocks: models of first fit, best fit and TLSF.
 *
 * Placement only: addresses are numbers, no memory is behind them. What comes out is how far the
 * heap must reach, for comparison with what the buddy needs. */
#ifndef BSA_PLACEMENT_H
#define BSA_PLACEMENT_H

#include <stddef.h>

#include "events.h"
#include "holes.h"

enum bsa_placement_policy { BSA_FIRST_FIT, BSA_BEST_FIT, BSA_TLSF, BSA_PLACEMENT_POLICIES };

#define BSA_PIECE_MIN 32 /* bytes: a hole must hold its size at both ends and two links */

typedef enum bsa_placement_status {
    BSA_PLACEMENT_OK = 0,
    BSA_PLACEMENT_NO_MEMORY, /* of this process, for the model itself */
    BSA_PLACEMENT_TOO_LARGE, /* the event's block does not fit into any address space */
    BSA_PLACEMENT_BAD_EVENT, /* no such operation; an id that is alive, or is not */
} bsa_placement_status;

/* All but `next` and `peak` is private. */
struct bsa_placement {
    enum bsa_placement_policy policy;
    uint64_t header;
    struct bsa_events events;
    uint32_t *table; /* by id: the piece of what is alive, or 0 */
    struct bsa_piece *pieces;
    uint32_t pieces_made, capacity;
    uint32_t spare; /* chain of pieces to use again, by `after` */
    uint32_t last;  /* the piece with the highest address; never a hole */
    uint64_t top;   /* its end */
    union {
        struct bsa_hole_tree tree;
        struct bsa_hole_lists lists;
    } holes;
    size_t next;   /* the first event not run yet; after a failure, the one that failed */
    uint64_t peak; /* the highest `top` there was */
};

/* Prepares the model. A block has `header` bytes (at most BSA_PIECE_MIN) beside those asked for.
 * `table`, all zero, has an entry for every id. */
void bsa_placement_init(struct bsa_placement *placement, enum bsa_placement_policy policy,
                        uint64_t header, const struct bsa_events *events, uint32_t *table);

/* Runs the events before `until`, in order. */
bsa_placement_status bsa_placement_run(struct bsa_placement *placement, size_t until);

void bsa_placement_clear(struct bsa_placement *placement);

#endif
