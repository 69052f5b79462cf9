/* What the files of the Block type share, and its methods that live in files of their own, for its
 * table in block.c. Under the allocator's lock, except where noted. */
#ifndef BSA_PY_BLOCK_METHODS_H
#define BSA_PY_BLOCK_METHODS_H

#include "block.h"

/* Raises what stands in the way of a Block without memory. Always returns false. */
bool bsa_raise_not_live(const BlockObject *block);

/* Whether the Block still owns memory in an open allocator; false with an exception set. Waits for
 * long work: call it after converting arguments. */
static inline bool bsa_block_check_live(BlockObject *block) {
    return bsa_check_open(block->allocator) &&
           (block->state == BLOCK_LIVE || bsa_raise_not_live(block));
}

/* Whether no view would lose its bytes; false with InUseError set, that one cannot `what` it. */
bool bsa_block_check_no_views(const BlockObject *block, const char *what);

static inline bool bsa_block_is_freed(const BlockObject *block) {
    return block->state >= BLOCK_FREED || block->allocator->root == NULL;
}

/* Bytes granted to the live allocation at the address. */
static inline size_t bsa_usable_at(const AllocatorObject *self, uintptr_t address) {
    struct bsa_allocation found = {0};

    bsa_lookup(self->root, address, &found);
    return found.usable_size;
}

/* The Block's own extent for a new allocation; not in the index yet. */
static inline void bsa_extent_init(BlockObject *block, uintptr_t address, size_t size) {
    struct extent *extent = &block->extent;

    extent->address = address;
    extent->size = size;
    extent->block = block;
    extent->region = NULL;
    extent->is_parked = false;
}

/* Marks the extent as freed, but kept until its Block goes. */
void bsa_extent_park(AllocatorObject *self, struct extent *extent);

/* The destructor: gives the memory back now or, where that cannot be, later. Runs once more when
 * nothing keeps an orphaned Block any longer. Without the lock. */
void bsa_block_dealloc(BlockObject *block);

/* block_resize.c */
PyObject *bsa_block_resize(BlockObject *block, PyObject *argument);
extern const char bsa_block_resize_doc[];

/* block_exports.c */
int bsa_block_getbuffer(BlockObject *block, Py_buffer *view, int flags);
void bsa_block_releasebuffer(BlockObject *block, Py_buffer *view);

/* block_items.c */
Py_ssize_t bsa_block_length(BlockObject *block);
PyObject *bsa_block_subscript(BlockObject *block, PyObject *key);
int bsa_block_ass_subscript(BlockObject *block, PyObject *key, PyObject *value);

/* block_attributes.c */
PyObject *bsa_block_get_address(BlockObject *block, void *ignored);
PyObject *bsa_block_get_offset(BlockObject *block, void *ignored);
PyObject *bsa_block_get_size(BlockObject *block, void *ignored);
PyObject *bsa_block_get_usable_size(BlockObject *block, void *ignored);
PyObject *bsa_block_get_section(BlockObject *block, void *ignored);
PyObject *bsa_block_get_allocator(BlockObject *block, void *ignored);
PyObject *bsa_block_get_freed(BlockObject *block, void *ignored);
PyObject *bsa_block_repr(BlockObject *block);

#endif
