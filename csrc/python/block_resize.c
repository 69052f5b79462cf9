/* Block.resize: in place or by moving. What was exported moves only by way of new memory, and
 * leaves the old bytes parked. */
#include "arguments.h"
#include "block_methods.h"
#include "lock.h"
#include "request.h"

/* Puts new memory under the Block. */
static void set_extent(BlockObject *block, uintptr_t address, size_t size) {
    bsa_extent_init(block, address, size);
    bsa_extent_add(&block->allocator->extents, &block->extent);
}

/* A Block that was never exported: the core may do what it likes. */
static bool resize_unexported(BlockObject *block, size_t size) {
    AllocatorObject *self = block->allocator;
    struct allocation_request request = {
        .kind = REQUEST_REALLOC, .amount = size, .old = block->extent.address, .is_of_block = true};
    uintptr_t address;

    if (!bsa_allocate(self, &request, &address)) {
        return false;
    }
    bsa_extent_remove(&self->extents, &block->extent);
    if (address != request.old) {
        bsa_free_on(self->root, bsa_slot_for_free(self), request.old);
    }
    set_extent(block, address, size);
    return true;
}

/* Parks the Block's extent, listed in its own right from now on, and puts new memory under the
 * Block. */
static void replace_parked(BlockObject *block, struct extent *old, uintptr_t address, size_t size) {
    AllocatorObject *self = block->allocator;

    bsa_extent_remove(&self->extents, &block->extent);
    *old = block->extent;
    old->older = block->older;
    block->older = old;
    bsa_extent_add(&self->extents, old);
    bsa_extent_park(self, old);
    set_extent(block, address, size);
}

/* A Block that was exported: its bytes stay where they are, a consumer may look at them. */
static bool resize_exported(BlockObject *block, size_t size) {
    AllocatorObject *self = block->allocator;
    struct allocation_request request = {.kind = REQUEST_BYTES, .amount = size};
    struct extent *old;
    uintptr_t address;

    if (size <= bsa_usable_at(self, block->extent.address)) {
        block->extent.size = size;
        return true;
    }
    old = PyMem_RawMalloc(sizeof *old);
    if (old == NULL) {
        PyErr_NoMemory();
        return false;
    }
    if (!bsa_allocate(self, &request, &address)) {
        PyMem_RawFree(old);
        return false;
    }
    memcpy((void *)address, (const void *)block->extent.address, block->extent.size);
    replace_parked(block, old, address, size);
    return true;
}

const char bsa_block_resize_doc[] = PyDoc_STR(
    "resize($self, size, /)\n--\n\n"
    "Change the size in bytes, in place or by moving; contents up to the smaller size are kept.\n\n"
    "Raises InUseError while views are alive, OutOfMemoryError (the Block is then unchanged),\n"
    "NotAllocatedError if it was freed or detached.");

PyObject *bsa_block_resize(BlockObject *block, PyObject *argument) {
    size_t size;
    bool resized;

    BSA_LOCK(block->allocator);
    if (!bsa_to_size(block->allocator->state, argument, "size", &size) ||
        !bsa_block_check_live(block) || !bsa_block_check_no_views(block, "resize")) {
        return NULL;
    }
    block->state = BLOCK_RESIZING; /* on_oom may run any code, which must leave it alone */
    resized = block->extent.region != NULL ? resize_exported(block, size)
                                           : resize_unexported(block, size);
    block->state = BLOCK_LIVE;
    return resized ? Py_NewRef(Py_None) : NULL;
}
