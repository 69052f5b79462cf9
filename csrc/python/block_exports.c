/* What keeps a Block's memory where it is: views of it, and heaps nested in it.
 *
 * Both are counted in `exports`. A view holds a reference to the Block; a nested heap cannot always
 * get one, for it finds the Block by an address, and it may be dying just then. So that counts a
 * pin, under the lock that the destructor takes as well, and outlives the object if it must. */
#include "block_methods.h"
#include "lock.h"
#include "managed_regions.h"

/* Holds the region under the Block, if that can be told without a search. */
static inline bool hold_region_at_hand(BlockObject *block) {
    const AllocatorObject *self = block->allocator;

    if (block->extent.region == NULL && self->record_count == 1) {
        block->extent.region = (struct region *)Py_NewRef(self->records[0]->region);
    }
    return block->extent.region != NULL;
}

static void hold_region(BlockObject *block) {
    if (!hold_region_at_hand(block)) {
        struct section_record *record = bsa_record_of(block->allocator, block->extent.address);

        block->extent.region = (struct region *)Py_NewRef(record->region);
    }
}

static inline void count_export(BlockObject *block) {
    block->exports++;
    block->allocator->exports++;
}

/* Also a dead one, as long as it has its memory. */
static bool may_be_pinned(const BlockObject *block) {
    return block->state == BLOCK_LIVE || block->state == BLOCK_ORPHANED;
}

static BlockObject *block_around_open(AllocatorObject *self, uintptr_t start, size_t size) {
    struct bsa_allocation found;
    struct extent *extent;

    if (!bsa_check_open(self) || !bsa_extents_ready(&self->extents) ||
        bsa_lookup_inside(self->root, start, &found) != BSA_OK) {
        return NULL;
    }
    extent = bsa_extent_at(&self->extents, found.address);
    if (extent == NULL || !may_be_pinned(extent->block) || extent != &extent->block->extent ||
        size > extent->size || start - extent->address > extent->size - size) {
        return NULL;
    }
    hold_region(extent->block);
    count_export(extent->block);
    extent->block->pins++;
    return extent->block;
}

BlockObject *bsa_block_around(AllocatorObject *self, uintptr_t start, size_t size) {
    BSA_LOCK(self);
    return self->root == NULL ? NULL : block_around_open(self, start, size);
}

static void unexport(BlockObject *block) {
    block->exports--;
    block->allocator->exports--;
}

/* Whether the Block is dead, and this was what has kept it. */
static bool unpin(BlockObject *block) {
    BSA_LOCK(block->allocator);
    block->pins--;
    unexport(block);
    if (block->state != BLOCK_ORPHANED || block->pins > 0) {
        return false;
    }
    block->state = BLOCK_LIVE; /* as it was when it died: its destructor runs anew */
    return true;
}

void bsa_block_unpin(BlockObject *block) {
    PyObject *allocator = Py_NewRef(block->allocator); /* to the end of its lock */

    if (unpin(block)) {
        bsa_block_dealloc(block);
    }
    Py_DECREF(allocator);
}

/* As PyBuffer_FillInfo, which takes as long as the rest of an export. */
static inline void describe(BlockObject *block, Py_buffer *view, int flags) {
    view->obj = Py_NewRef(block);
    view->buf = (void *)block->extent.address;
    view->len = (Py_ssize_t)block->extent.size;
    view->readonly = 0;
    view->itemsize = 1;
    view->format = (flags & PyBUF_FORMAT) == PyBUF_FORMAT ? "B" : NULL;
    view->ndim = 1;
    view->shape = (flags & PyBUF_ND) == PyBUF_ND ? &view->len : NULL;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? &view->itemsize : NULL;
    view->suboffsets = NULL;
    view->internal = NULL;
}

/* Exports it, or says why not. */
static Py_NO_INLINE int export_general(BlockObject *block, Py_buffer *view, int flags) {
    view->obj = NULL;
    if (!bsa_block_check_live(block)) {
        return -1;
    }
    hold_region(block);
    count_export(block);
    describe(block, view, flags);
    return 0;
}

int bsa_block_getbuffer(BlockObject *block, Py_buffer *view, int flags) {
    BSA_LOCK(block->allocator);
    if (block->state != BLOCK_LIVE || !bsa_is_ready(block->allocator) ||
        !hold_region_at_hand(block)) {
        return export_general(block, view, flags);
    }
    count_export(block);
    describe(block, view, flags);
    return 0;
}

void bsa_block_releasebuffer(BlockObject *block, Py_buffer *view) {
    BSA_LOCK(block->allocator);
    (void)view;
    unexport(block);
}
