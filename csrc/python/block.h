/* The Block object: memory that cannot dangle. Under its allocator's lock, except where noted. */
#ifndef BSA_PY_BLOCK_H
#define BSA_PY_BLOCK_H

#include "allocator.h"

enum block_state {
    BLOCK_LIVE = 0,
    BLOCK_RESIZING,
    BLOCK_FREED,
    BLOCK_DETACHED,
    BLOCK_ORPHANED, /* the object is dead; a nested heap keeps it, and its memory */
};

struct BlockObject {
    PyObject_HEAD
    AllocatorObject *allocator;
    struct extent extent;
    struct extent *older; /* extents parked by resize */
    Py_ssize_t exports;   /* live views, and pins */
    Py_ssize_t pins;      /* nested heaps in it */
    enum block_state state;
    bool is_tracked;   /* by the collector */
    BlockObject *next; /* in the allocator's queue, or among the spare ones */
};

/* A Block for a live allocation that no Block owns yet. NULL with MemoryError: the allocation is
 * then still the caller's. */
PyObject *bsa_block_new(AllocatorObject *self, uintptr_t address, size_t size);

/* The same in two steps: a Block that owns nothing yet, which may fail and run finalisers, and
 * giving it the allocation, which does not. */
BlockObject *bsa_block_reserve(AllocatorObject *self);
PyObject *bsa_block_fill(BlockObject *block, uintptr_t address, size_t size);

/* Shows all Blocks of the allocator to the collector, now and in future.
 *
 * A Block refers to its allocator and to a region of that, no more. So it is in a cycle only if one
 * of those leads back to it: through a callback, through an exporter that may refer to other
 * objects, or because the allocator is of a subclass, which has attributes. As long as there is
 * nothing of that kind, the collector need not know of Blocks, of which there may be millions. (The
 * module leads anywhere, too: but it is there to the end of the interpreter, which for the main one
 * is the end of all. In others all Blocks are tracked.) */
void bsa_track_blocks(AllocatorObject *self);

/* Block.free(). False with an exception set. */
bool bsa_block_free(BlockObject *block);

/* The Block of the allocator that holds the whole region, pinned as by a view; NULL: none, or an
 * exception is set. No reference: one to an object that is just dying could not be had. Where a
 * pinned Block dies, its memory waits for the last pin. Without the lock, both. */
BlockObject *bsa_block_around(AllocatorObject *self, uintptr_t start, size_t size);
void bsa_block_unpin(BlockObject *block);

/* For the collector: what an orphaned Block refers to, where one pin alone keeps it. Whoever has
 * the pin has those references, then. */
int bsa_block_visit_orphan(BlockObject *block, visitproc visit, void *arg);

/* Frees the memory of the queued dead Blocks; the allocator is usable. */
void bsa_flush_queue(AllocatorObject *self);

#endif
