/* Allocating through an Allocator: arguments first, then "open?", then one call into the core, then
 * one translation of its answer. */
#include "allocator_methods.h"
#include "arguments.h"
#include "block.h"
#include "lock.h"
#include "request.h"

/* Clearing this much takes long enough to let other threads run. */
#define LONG_CLEARING ((size_t)1 << 20)

/* Clears the bytes of a new allocation, with the GIL released where that takes long. The allocator
 * is pinned meanwhile, so that it is open afterwards; long work that began then is waited for.
 * False: a fork in between has made it unusable. */
static bool clear(AllocatorObject *self, uintptr_t address, size_t size) {
    struct bsa_call *pin = size < LONG_CLEARING ? NULL : bsa_pin(self);
    bool open;

    if (pin == NULL) {
        PyErr_Clear(); /* without a pin others have to wait */
        memset((void *)address, 0, size);
        return true;
    }
    Py_BEGIN_ALLOW_THREADS
        memset((void *)address, 0, size);
    Py_END_ALLOW_THREADS
    open = bsa_check_open(self);
    bsa_unpin(self, pin);
    return open;
}

static inline PyObject *block_or_give_back(AllocatorObject *self, uintptr_t address, size_t size) {
    PyObject *block = bsa_block_new(self, address, size);

    if (block == NULL && self->root != NULL) {
        bsa_free_on(self->root, bsa_slot_for_free(self), address);
    }
    return block;
}

/* The address of a raw allocation as an int; without memory for that, the allocation goes back. */
static inline PyObject *address_or_give_back(AllocatorObject *self, uintptr_t address,
                                             size_t size) {
    PyObject *number = PyLong_FromUnsignedLongLong(address);

    (void)size;
    if (number == NULL) {
        bsa_free_on(self->root, bsa_slot_for_free(self), address);
    }
    return number;
}

/* --- bytes -------------------------------------------------------------------------------------
 */

/* alloc and malloc differ in what they make of the address. */
typedef PyObject *maker(AllocatorObject *self, uintptr_t address, size_t size);

static const char *const sized_names[] = {"size", "align", "zero", NULL};

/* Clears what was allocated, if that was asked for. */
static bool clear_if_asked(AllocatorObject *self, const struct allocation_request *request,
                           unsigned flags, uintptr_t address) {
    return (flags & BSA_ZERO) == 0 ||
           clear(self, address, bsa_granted_size(self->root, request->amount, request->align));
}

/* The general way. BSA_ZERO is not the core's to do here, so that the GIL can be released for it.
 */
static Py_NO_INLINE PyObject *allocate_general(AllocatorObject *self,
                                               const struct signature *signature, maker *make,
                                               PyObject *const *args, Py_ssize_t nargs,
                                               PyObject *kwnames) {
    struct allocation_request request = {.kind = REQUEST_BYTES};
    PyObject *values[3], *made;
    unsigned flags = 0;
    uintptr_t address;

    if (!bsa_sort_arguments(signature, args, nargs, kwnames, values) ||
        !bsa_to_size(self->state, values[0], "size", &request.amount) ||
        !bsa_to_align(self->state, values[1], &request.align) ||
        !bsa_to_flag(values[2], BSA_ZERO, &flags) || !bsa_allocate(self, &request, &address)) {
        return NULL;
    }
    made = make(self, address, request.amount);
    /* Clearing comes last: it lets other threads run, and by then a Block owns the memory. */
    if (made != NULL && self->root != NULL && !clear_if_asked(self, &request, flags, address)) {
        Py_CLEAR(made);
    }
    return made;
}

/* Whether the call of alloc or malloc has nothing but a plain size, and the allocator and this
 * thread's slot are ready. */
static inline bool is_plain(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames, size_t *size, unsigned *slot) {
    if (nargs != 1 || kwnames != NULL || !bsa_is_ready(self)) {
        return false;
    }
    *size = bsa_int_at_hand(args[0]);
    *slot = bsa_slot_for_free(self);
    return *size != SIZE_MAX && *slot < self->slots;
}

/* What follows the refusal of a plain request: there is no section, or not enough memory. */
static Py_NO_INLINE PyObject *allocate_again(AllocatorObject *self, size_t size, maker *make) {
    struct allocation_request request = {.kind = REQUEST_BYTES, .amount = size};
    bsa_status status = bsa_section_count(self->root) == 0 ? BSA_NOT_INITIALIZED : BSA_NO_MEMORY;
    uintptr_t address;

    if (!bsa_ask_again(self, &request, status) || !bsa_allocate(self, &request, &address)) {
        return NULL;
    }
    return make(self, address, size);
}

/* Under the allocator's lock. */
static Py_ALWAYS_INLINE inline PyObject *allocate(AllocatorObject *self,
                                                  const struct signature *signature, maker *make,
                                                  PyObject *const *args, Py_ssize_t nargs,
                                                  PyObject *kwnames) {
    uintptr_t address;
    unsigned slot;
    size_t size;

    if (!is_plain(self, args, nargs, kwnames, &size, &slot)) {
        return allocate_general(self, signature, make, args, nargs, kwnames);
    }
    address = bsa_malloc_on(self->root, slot, size);
    return address != 0 ? make(self, address, size) : allocate_again(self, size, make);
}

const char bsa_allocator_alloc_doc[] =
    PyDoc_STR("alloc($self, size, align=None, *, zero=False)\n--\n\n"
              "Allocate size bytes as a Block, freed when it goes away.\n\n"
              "size: bytes, 0 included. align: bytes, a power of two; None: 16 from 16 bytes up, "
              "else 8. zero: clear\n"
              "the bytes first. Raises OutOfMemoryError, InvalidParamError, NotInitializedError, "
              "ClosedError.");

PyObject *bsa_allocator_alloc(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames) {
    static const struct signature signature = {"alloc", sized_names, 1, 2, 3};

    BSA_LOCK(self);
    return allocate(self, &signature, block_or_give_back, args, nargs, kwnames);
}

const char bsa_allocator_malloc_doc[] =
    PyDoc_STR("malloc($self, size, align=None, *, zero=False)\n--\n\n"
              "Allocate size bytes and return their address, yours to free().\n\n"
              "Arguments and errors as for alloc(). Nothing keeps the memory alive but you.");

PyObject *bsa_allocator_malloc(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames) {
    static const struct signature signature = {"malloc", sized_names, 1, 2, 3};

    BSA_LOCK(self);
    return allocate(self, &signature, address_or_give_back, args, nargs, kwnames);
}

const char bsa_allocator_alloc_from_doc[] =
    PyDoc_STR("alloc_from($self, bytes_like, /)\n--\n\n"
              "Allocate a Block with a copy of the bytes of any C-contiguous buffer.\n\n"
              "Raises TypeError if bytes_like gives no buffer, and what alloc() raises.");

PyObject *bsa_allocator_alloc_from(AllocatorObject *self, PyObject *source) {
    struct allocation_request request = {.kind = REQUEST_BYTES};
    PyObject *block = NULL;
    Py_buffer buffer;
    uintptr_t address;

    BSA_LOCK(self);
    if (PyObject_GetBuffer(source, &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    request.amount = (size_t)buffer.len;
    if (bsa_allocate(self, &request, &address)) {
        memcpy((void *)address, buffer.buf, request.amount);
        block = block_or_give_back(self, address, request.amount);
    }
    PyBuffer_Release(&buffer);
    return block;
}

/* --- pages -------------------------------------------------------------------------------------
 */

static PyObject *allocate_pages(AllocatorObject *self, struct allocation_request *request) {
    uintptr_t address;

    if (!bsa_allocate(self, request, &address)) {
        return NULL;
    }
    return block_or_give_back(self, address, request->amount * bsa_page_size(self->root));
}

const char bsa_allocator_alloc_pages_doc[] =
    PyDoc_STR("alloc_pages($self, count, align=None, *, exact=False)\n--\n\n"
              "Allocate count pages as a Block.\n\n"
              "The block is rounded up to a power of two of pages; exact=True frees the rest of it "
              "again. align: bytes,\n"
              "a power of two, at least a page; None or 0: a page. Raises InvalidParamError for a "
              "count of 0 or above\n"
              "1048576 and a wrong align, OutOfMemoryError if nothing fits.");

PyObject *bsa_allocator_alloc_pages(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                                    PyObject *kwnames) {
    static const char *const names[] = {"count", "align", "exact", NULL};
    static const struct signature signature = {"alloc_pages", names, 1, 2, 3};
    struct allocation_request request = {.kind = REQUEST_PAGES};
    PyObject *values[3];

    BSA_LOCK(self);
    if (!bsa_sort_arguments(&signature, args, nargs, kwnames, values) ||
        !bsa_to_size(self->state, values[0], "count", &request.amount) ||
        !bsa_to_align(self->state, values[1], &request.align) ||
        !bsa_to_flag(values[2], BSA_EXACT, &request.flags)) {
        return NULL;
    }
    return allocate_pages(self, &request);
}

const char bsa_allocator_alloc_pages_lowmem_doc[] =
    PyDoc_STR("alloc_pages_lowmem($self, count, align=None)\n--\n\n"
              "Allocate count pages whose physical end is at most 4 GiB, as a Block.\n\n"
              "What is physical the `phys` of each section says. Arguments and errors as for "
              "alloc_pages(); what a\n"
              "callable phys raises propagates, and nothing is allocated.");

PyObject *bsa_allocator_alloc_pages_lowmem(AllocatorObject *self, PyObject *const *args,
                                           Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"count", "align", NULL};
    static const struct signature signature = {"alloc_pages_lowmem", names, 1, 2, 2};
    struct allocation_request request = {.kind = REQUEST_LOW_PAGES};
    PyObject *values[2];

    BSA_LOCK(self);
    if (!bsa_sort_arguments(&signature, args, nargs, kwnames, values) ||
        !bsa_to_size(self->state, values[0], "count", &request.amount) ||
        !bsa_to_align(self->state, values[1], &request.align)) {
        return NULL;
    }
    return allocate_pages(self, &request);
}
