/* What a Block says of itself. */
#include "block_methods.h"
#include "lock.h"
#include "managed_regions.h"

static struct section_record *record_of(const BlockObject *block) {
    return bsa_record_of(block->allocator, block->extent.address);
}

PyObject *bsa_block_get_address(BlockObject *block, void *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    return bsa_block_check_live(block) ? PyLong_FromUnsignedLongLong(block->extent.address) : NULL;
}

PyObject *bsa_block_get_offset(BlockObject *block, void *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    if (!bsa_block_check_live(block)) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(block->extent.address -
                                       (uintptr_t)record_of(block)->region->start);
}

PyObject *bsa_block_get_size(BlockObject *block, void *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    return PyLong_FromSize_t(block->extent.size);
}

PyObject *bsa_block_get_usable_size(BlockObject *block, void *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    return bsa_block_check_live(block)
               ? PyLong_FromSize_t(bsa_usable_at(block->allocator, block->extent.address))
               : NULL;
}

PyObject *bsa_block_get_section(BlockObject *block, void *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    if (!bsa_block_check_live(block)) {
        return NULL;
    }
    return bsa_section_for(block->allocator, record_of(block));
}

PyObject *bsa_block_get_allocator(BlockObject *block, void *ignored) {
    (void)ignored;
    return Py_NewRef(block->allocator);
}

PyObject *bsa_block_get_freed(BlockObject *block, void *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    return PyBool_FromLong(bsa_block_is_freed(block));
}

PyObject *bsa_block_repr(BlockObject *block) {
    BSA_LOCK(block->allocator);
    if (bsa_block_is_freed(block)) {
        return PyUnicode_FromFormat("<bsa.Block of %zu bytes, %s>", block->extent.size,
                                    block->state == BLOCK_DETACHED ? "detached" : "freed");
    }
    return PyUnicode_FromFormat("<bsa.Block of %zu bytes at %p>", block->extent.size,
                                (void *)block->extent.address);
}
