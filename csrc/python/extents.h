/* Extents: the pieces of memory that Block objects own, and the index that finds them by address.
 *
 * Lazy: a new extent only enters a list, so that a Block that comes and goes costs no index. Who
 * asks by address first moves the listed ones into the index, a hash table with linear probing.
 * Under the allocator's lock. */
#ifndef BSA_PY_EXTENTS_H
#define BSA_PY_EXTENTS_H

#include "region.h"

struct extent {
    uintptr_t address;
    size_t size; /* bytes asked for */
    BlockObject *block;
    struct region
        *region; /* held once exported, which says: the bytes go back only when the Block does */
    bool is_indexed;
    bool is_parked;                 /* freed, but kept since it was exported */
    struct extent *previous, *next; /* while listed */
    struct extent *older;           /* parked before by the same Block */
};

struct extent_index {
    struct extent listed; /* a ring's anchor */
    struct extent **table;
    size_t room, used; /* room: 0 or a power of two */
    size_t count;      /* extents listed or indexed */
};

void bsa_extents_init(struct extent_index *index);
void bsa_extents_clear(struct extent_index *index);

static inline void bsa_extent_add(struct extent_index *index, struct extent *extent) {
    struct extent *anchor = &index->listed;

    extent->is_indexed = false;
    extent->previous = anchor;
    extent->next = anchor->next;
    anchor->next->previous = extent;
    anchor->next = extent;
    index->count++;
}

void bsa_extent_unindex(struct extent_index *index, struct extent *extent);

static inline void bsa_extent_remove(struct extent_index *index, struct extent *extent) {
    if (extent->is_indexed) {
        bsa_extent_unindex(index, extent);
    } else {
        extent->previous->next = extent->next;
        extent->next->previous = extent->previous;
    }
    index->count--;
}

/* Readies the index for bsa_extent_at; false with MemoryError set. */
bool bsa_extents_ready(struct extent_index *index);

/* Calls `visit` for every extent. */
void bsa_extents_each(const struct extent_index *index,
                      void (*visit)(void *context, const struct extent *extent), void *context);

/* The extent that starts at the address, or NULL. The index is ready. */
struct extent *bsa_extent_at(const struct extent_index *index, uintptr_t address);

#endif
