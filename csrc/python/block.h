/* The Block object: memory that cannot dangle. Needs the GIL. */
#ifndef BSA_PY_BLOCK_H
#define BSA_PY_BLOCK_H

#include "allocator.h"

enum block_state { BLOCK_LIVE = 0, BLOCK_RESIZING, BLOCK_FREED, BLOCK_DETACHED };

struct BlockObject {
    PyObject_HEAD
    AllocatorObject *allocator;
    struct extent extent;
    struct extent *older; /* extents parked by resize */
    Py_ssize_t exports;   /* live views, and pins */
    Py_ssize_t pins;      /* nested heaps in it */
    enum block_state state;
    BlockObject *next; /* in the allocator's queue, or among the spare ones */
};

/* A Block for a live allocation that no Block owns yet. NULL with MemoryError: the allocation is
 * then still the caller's. */
PyObject *bsa_block_new(AllocatorObject *self, uintptr_t address, size_t size);

/* Sees to it that the next bsa_block_new makes no object, and so neither fails nor runs finalisers.
 */
bool bsa_block_reserve(struct module_state *state);

/* Block.free(). False with an exception set. */
bool bsa_block_free(BlockObject *block);

/* The live Block of the allocator that holds the whole region, pinned as by a view; NULL: none, or
 * an exception is set. */
BlockObject *bsa_block_around(AllocatorObject *self, uintptr_t start, size_t size);
void bsa_block_unpin(BlockObject *block);

/* Frees the memory of the queued dead Blocks; the allocator is usable. */
void bsa_flush_queue(AllocatorObject *self);

#endif
