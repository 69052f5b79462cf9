/* What keeps a Block's memory where it is: views of it, and heaps nested in it.
 *
 * Both are counted in `exports`. A view holds a reference to the Block; a nested heap cannot always
 * get one, for it finds the Block by an address, and it may be dying just then. So that counts a
 * pin, under the lock that the destructor takes as well, and outlives the object if it must. */
#include "block_methods.h"
#include "lock.h"
#include "managed_regions.h"

static struct region *region_of(const BlockObject *block) {
    return bsa_record_of(block->allocator, block->extent.address)->region;
}

static void note_export(BlockObject *block) {
    block->exports++;
    block->allocator->exports++;
    if (block->extent.region == NULL) {
        block->extent.region = (struct region *)Py_NewRef(region_of(block));
    }
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
    note_export(extent->block);
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

int bsa_block_getbuffer(BlockObject *block, Py_buffer *view, int flags) {
    BSA_LOCK(block->allocator);
    view->obj = NULL;
    if (!bsa_block_check_live(block) ||
        PyBuffer_FillInfo(view, (PyObject *)block, (void *)block->extent.address,
                          (Py_ssize_t)block->extent.size, 0, flags) < 0) {
        return -1;
    }
    note_export(block);
    return 0;
}

void bsa_block_releasebuffer(BlockObject *block, Py_buffer *view) {
    BSA_LOCK(block->allocator);
    (void)view;
    unexport(block);
}
