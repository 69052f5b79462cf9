/* What can be done with a raw address: freeing it, changing its size, taking it into a Block. */
#include "allocator_methods.h"
#include "arguments.h"
#include "block.h"
#include "errors.h"
#include "lock.h"
#include "request.h"

static inline PyObject *free_address(AllocatorObject *self, size_t address) {
    bsa_status status;

    if (!bsa_check_open(self) || !bsa_check_not_owned(self, address)) {
        return NULL;
    }
    status = bsa_free_on(self->root, bsa_slot_for_free(self), address);
    if (status != BSA_OK) {
        return bsa_raise_address(self, status, address);
    }
    Py_RETURN_NONE;
}

/* Whatever is no plain int. */
static Py_NO_INLINE PyObject *free_general(AllocatorObject *self, PyObject *argument) {
    size_t address;

    if (Py_IS_TYPE(argument, self->state->block_type)) {
        BlockObject *block = (BlockObject *)argument;

        if (block->allocator != self) {
            return PyErr_Format(self->state->not_found, "the Block belongs to another allocator");
        }
        return bsa_block_free(block) ? Py_NewRef(Py_None) : NULL;
    }
    return bsa_to_size(self->state, argument, "address", &address) ? free_address(self, address)
                                                                   : NULL;
}

const char bsa_allocator_free_doc[] =
    PyDoc_STR("free($self, addr_or_block, /)\n--\n\n"
              "Free what malloc() or realloc() returned, or a Block.\n\n"
              "Raises NotFoundError outside every heap, NotAllocatedError if no live allocation "
              "starts there (a double\n"
              "free, an interior page), InvalidParamError between two objects or for an address "
              "that a Block owns,\n"
              "InUseError for a Block with live views. A refused free changes nothing.");

PyObject *bsa_allocator_free(AllocatorObject *self, PyObject *argument) {
    size_t address = bsa_int_at_hand(argument);

    BSA_LOCK(self);
    return address != SIZE_MAX ? free_address(self, address) : free_general(self, argument);
}

static bool check_count(Py_ssize_t nargs, Py_ssize_t wanted, const char *function) {
    if (nargs != wanted) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments (%zd given)", function, wanted,
                     nargs);
    }
    return nargs == wanted;
}

/* The new address as an int; the old allocation is freed. Without memory for the int the move is
 * undone. */
static PyObject *finish_move(AllocatorObject *self, uintptr_t old, uintptr_t address) {
    PyObject *number = PyLong_FromUnsignedLongLong(address);

    bsa_free_on(self->root, bsa_slot_for_free(self), number != NULL ? old : address);
    return number;
}

const char bsa_allocator_realloc_doc[] = PyDoc_STR(
    "realloc($self, addr, size, /)\n--\n\n"
    "Change the size of a raw allocation, in place or by moving it; returns its (new) address.\n\n"
    "Contents up to the smaller size are kept. size 0 shrinks it as far as it goes. On failure the "
    "old\n"
    "allocation is untouched. Raises what free() and alloc() raise; address 0 is NotFoundError.");

PyObject *bsa_allocator_realloc(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs) {
    struct allocation_request request = {.kind = REQUEST_REALLOC};
    PyObject *number;
    uintptr_t address;
    size_t old;

    BSA_LOCK(self);
    if (!check_count(nargs, 2, "realloc") || !bsa_to_size(self->state, args[0], "address", &old) ||
        !bsa_to_size(self->state, args[1], "size", &request.amount) || !bsa_check_open(self) ||
        !bsa_check_not_owned(self, old)) {
        return NULL;
    }
    request.old = old;
    number = PyLong_CheckExact(args[0]) ? Py_NewRef(args[0]) : PyLong_FromUnsignedLongLong(old);
    if (number == NULL || !bsa_allocate(self, &request, &address)) {
        Py_XDECREF(number);
        return NULL;
    }
    if (address != old) {
        Py_SETREF(number, finish_move(self, old, address));
    }
    return number;
}

const char bsa_allocator_dealloc_pages_doc[] =
    PyDoc_STR("dealloc_pages($self, addr, count, /)\n--\n\n"
              "Give back pages obtained from alloc_pages() and detached.\n\n"
              "addr: address of the block's first byte. count: pages asked for; checked, the whole "
              "block is freed.\n"
              "Raises NotFoundError outside every heap, NotAllocatedError unless addr starts a "
              "live page block,\n"
              "InvalidParamError for a wrong count or a block owned by a Block object.");

PyObject *bsa_allocator_dealloc_pages(AllocatorObject *self, PyObject *const *args,
                                      Py_ssize_t nargs) {
    size_t address, count;
    bsa_status status;

    BSA_LOCK(self);
    if (!check_count(nargs, 2, "dealloc_pages") ||
        !bsa_to_size(self->state, args[0], "address", &address) ||
        !bsa_to_size(self->state, args[1], "count", &count) || !bsa_check_open(self) ||
        !bsa_check_not_owned(self, address)) {
        return NULL;
    }
    status = bsa_free_pages_on(self->root, bsa_slot_for_free(self), address, count);
    if (status == BSA_INVALID_PARAM && address % bsa_page_size(self->root) == 0) {
        return PyErr_Format(self->state->invalid_param,
                            "count must be from 1 to the pages of the block, is %zu", count);
    }
    if (status == BSA_INVALID_PARAM) {
        return PyErr_Format(self->state->invalid_param, "0x%zx starts no page, so no page block",
                            address);
    }
    if (status != BSA_OK) {
        return bsa_raise_address(self, status, address);
    }
    Py_RETURN_NONE;
}

/* The usable size of the raw allocation at the address; false with an exception set. */
static bool find_raw(AllocatorObject *self, uintptr_t address, size_t *size) {
    struct bsa_allocation found;
    bsa_status status;

    if (!bsa_check_open(self) || !bsa_check_not_owned(self, address)) {
        return false;
    }
    status = bsa_lookup(self->root, address, &found);
    if (status != BSA_OK) {
        bsa_raise_address(self, status, address);
        return false;
    }
    *size = found.usable_size;
    return true;
}

const char bsa_allocator_block_doc[] =
    PyDoc_STR("block($self, addr, /)\n--\n\n"
              "Take a raw allocation into a Block, whose size is the usable size; Block.detach() "
              "is the way back.\n\n"
              "Raises what free() raises.");

PyObject *bsa_allocator_block(AllocatorObject *self, PyObject *argument) {
    BlockObject *block;
    size_t address, size;

    BSA_LOCK(self);
    if (!bsa_to_size(self->state, argument, "address", &address)) {
        return NULL;
    }
    block = bsa_block_reserve(self); /* first: it may run finalisers */
    if (block == NULL || !find_raw(self, address, &size)) {
        Py_XDECREF(block);
        return NULL;
    }
    return bsa_block_fill(block, address, size);
}

const char bsa_allocator_trim_doc[] =
    PyDoc_STR("trim($self, /)\n--\n\n"
              "Take back remote frees and give cached empty slabs back to the pages.\n\n"
              "Returns the number of pages freed.");

PyObject *bsa_allocator_trim(AllocatorObject *self, PyObject *ignored) {
    BSA_LOCK(self);
    (void)ignored;
    if (!bsa_check_open(self)) {
        return NULL;
    }
    return PyLong_FromSize_t(bsa_trim_on(self->root, bsa_slot_for_free(self)));
}
