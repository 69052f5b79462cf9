/* See extents.h. Knuth, TAOCP vol. 3, 6.4, algorithms L and R (deletion by moving back). */
#include "extents.h"

enum { LEAST_ROOM = 64 };

void bsa_extents_init(struct extent_index *index) {
    memset(index, 0, sizeof *index);
    index->listed.previous = index->listed.next = &index->listed;
}

void bsa_extents_clear(struct extent_index *index) {
    PyMem_RawFree(index->table);
    bsa_extents_init(index);
}

static size_t place_of(const struct extent_index *index, uintptr_t address) {
    /* Fibonacci hashing (Knuth 6.4): the low bits of addresses hardly vary. */
    return (size_t)((uint64_t)address * 0x9e3779b97f4a7c15ULL >> 20) & (index->room - 1);
}

static void put(struct extent_index *index, struct extent *extent) {
    size_t place = place_of(index, extent->address);

    while (index->table[place] != NULL) {
        place = (place + 1) & (index->room - 1);
    }
    index->table[place] = extent;
    extent->is_indexed = true;
    index->used++;
}

static bool grow(struct extent_index *index) {
    size_t old_room = index->room, room = old_room == 0 ? LEAST_ROOM : old_room;
    struct extent **old = index->table, **table;

    while (room < 2 * index->count) {
        room *= 2;
    }
    table = PyMem_RawCalloc(room, sizeof *table);
    if (table == NULL) {
        PyErr_NoMemory();
        return false;
    }
    index->table = table;
    index->room = room;
    index->used = 0;
    for (size_t i = 0; i < old_room; i++) {
        if (old[i] != NULL) {
            put(index, old[i]);
        }
    }
    PyMem_RawFree(old);
    return true;
}

bool bsa_extents_ready(struct extent_index *index) {
    struct extent *anchor = &index->listed;

    if (anchor->next == anchor) {
        return true;
    }
    if (index->room < 2 * index->count && !grow(index)) {
        return false;
    }
    for (struct extent *extent = anchor->next, *next; extent != anchor; extent = next) {
        next = extent->next;
        put(index, extent);
    }
    anchor->previous = anchor->next = anchor;
    return true;
}

void bsa_extents_each(const struct extent_index *index,
                      void (*visit)(void *context, const struct extent *extent), void *context) {
    const struct extent *anchor = &index->listed;

    for (const struct extent *extent = anchor->next; extent != anchor; extent = extent->next) {
        visit(context, extent);
    }
    for (size_t place = 0; place < index->room; place++) {
        if (index->table[place] != NULL) {
            visit(context, index->table[place]);
        }
    }
}

struct extent *bsa_extent_at(const struct extent_index *index, uintptr_t address) {
    if (index->used == 0) {
        return NULL;
    }
    for (size_t place = place_of(index, address); index->table[place] != NULL;
         place = (place + 1) & (index->room - 1)) {
        if (index->table[place]->address == address) {
            return index->table[place];
        }
    }
    return NULL;
}

void bsa_extent_unindex(struct extent_index *index, struct extent *extent) {
    size_t mask = index->room - 1, hole = place_of(index, extent->address), at;

    while (index->table[hole] != extent) {
        hole = (hole + 1) & mask;
    }
    /* Moves back whoever probed past the hole to get where it is. */
    for (at = (hole + 1) & mask; index->table[at] != NULL; at = (at + 1) & mask) {
        size_t home = place_of(index, index->table[at]->address);

        if (((at - home) & mask) >= ((at - hole) & mask)) {
            index->table[hole] = index->table[at];
            hole = at;
        }
    }
    index->table[hole] = NULL;
    index->used--;
    extent->is_indexed = false;
}
