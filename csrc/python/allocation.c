/* Allocating and freeing through an Allocator: arguments first, then "open?", then one call into
 * the core, then one translation of its answer. */
#include "allocator_methods.h"
#include "arguments.h"
#include "block.h"
#include "errors.h"
#include "lock.h"

/* Clearing this much takes long enough to let other threads run. */
#define LONG_CLEARING ((size_t)1 << 20)

/* --- the out-of-memory callback ----------------------------------------------------------------
 */

/* A call of on_oom under way: no thread calls it from within itself. Not in the frame of the call,
 * nor in an order of calls: greenlets move their frames away, and end in any order. */
struct oom_call {
    unsigned long thread;
    struct oom_call *next;
};

static bool is_in_oom_callback(const AllocatorObject *self) {
    const struct oom_call *call = self->oom_calls;

    while (call != NULL && call->thread != PyThread_get_thread_ident()) {
        call = call->next;
    }
    return call != NULL;
}

static struct oom_call *begin_oom_call(AllocatorObject *self) {
    struct oom_call *call = PyMem_RawMalloc(sizeof *call);

    if (call == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *call = (struct oom_call){PyThread_get_thread_ident(), self->oom_calls};
    self->oom_calls = call;
    return call;
}

static void end_oom_call(AllocatorObject *self, struct oom_call *call) {
    struct oom_call **place = &self->oom_calls;

    while (*place != call) {
        place = &(*place)->next;
    }
    *place = call->next;
    PyMem_RawFree(call);
}

/* Whether on_oom says "try again"; -1 with what it raised. */
static int ask_on_oom(AllocatorObject *self, size_t bytes) {
    PyObject *callable = Py_NewRef(self->on_oom), *number = PyLong_FromSize_t(bytes), *answer;
    struct oom_call *call = number == NULL ? NULL : begin_oom_call(self);
    int again = -1;

    if (call != NULL) {
        PyObject *arguments[] = {(PyObject *)self, number};

        bsa_let_go();
        answer = PyObject_Vectorcall(callable, arguments, 2, NULL);
        bsa_take_again();
        end_oom_call(self, call);
        if (answer != NULL) {
            again = PyObject_IsTrue(answer);
            Py_DECREF(answer);
        }
    }
    Py_XDECREF(number);
    Py_DECREF(callable);
    return again;
}

/* --- one request -------------------------------------------------------------------------------
 */

static bool is_of_pages(const struct allocation_request *request) {
    return request->kind == REQUEST_PAGES || request->kind == REQUEST_LOW_PAGES;
}

/* Bytes that the request asks for; SIZE_MAX where that is too many to count. */
static size_t bytes_of(const AllocatorObject *self, const struct allocation_request *request) {
    size_t unit = is_of_pages(request) ? bsa_page_size(self->root) : 1, bytes;
    size_t count = request->kind == REQUEST_MANY ? request->count : 1;

    if (__builtin_mul_overflow(request->amount, unit, &bytes) ||
        __builtin_mul_overflow(bytes, count, &bytes)) {
        return SIZE_MAX;
    }
    return bytes;
}

static bsa_status attempt(AllocatorObject *self, unsigned slot,
                          const struct allocation_request *request, uintptr_t *address) {
    struct bsa_pin pin;
    bsa_status status;

    switch (request->kind) {
    case REQUEST_BYTES:
        return bsa_alloc_on(self->root, slot, request->amount, request->align, request->flags,
                            address);
    case REQUEST_PAGES:
        return bsa_alloc_pages_on(self->root, slot, request->amount, request->align, request->flags,
                                  address);
    case REQUEST_LOW_PAGES:
        bsa_pin(self, &pin); /* a translation may run any code */
        status =
            bsa_alloc_pages_lowmem_on(self->root, slot, request->amount, request->align, address);
        bsa_unpin(&pin);
        return status;
    case REQUEST_MANY:
        return bsa_alloc_many_on(self->root, slot, request->count, request->amount, request->align,
                                 request->addresses);
    default:
        return bsa_realloc_on(self->root, slot, request->old, request->amount, address);
    }
}

/* Raises what a refusal of the request means. */
static void raise_refusal(AllocatorObject *self, const struct allocation_request *request,
                          bsa_status status) {
    size_t page_size = bsa_page_size(self->root), align = request->align;

    if (PyErr_Occurred()) {
        return; /* a translation's own exception */
    }
    if (status == BSA_NO_MEMORY) {
        bsa_raise_out_of_memory(self, bytes_of(self, request), align, NULL);
    } else if (status != BSA_INVALID_PARAM || request->kind == REQUEST_REALLOC) {
        bsa_raise_address(self, status, request->old);
    } else if (align != 0 && (align & (align - 1)) != 0) {
        PyErr_Format(self->state->invalid_param, "align must be a power of two, is %zu", align);
    } else if (is_of_pages(request) && align != 0 && align < page_size) {
        PyErr_Format(self->state->invalid_param, "align must be at least a page (%zu), is %zu",
                     page_size, align);
    } else {
        PyErr_Format(self->state->invalid_param, "count must be from 1 to %zu pages, is %zu",
                     (size_t)1 << BSA_MAX_ORDER, request->amount);
    }
}

/* Whether the refusal may be put before on_oom: not where no amount of freeing could help. */
static bool may_ask(const AllocatorObject *self, const struct allocation_request *request,
                    bsa_status status) {
    size_t largest = bsa_page_size(self->root) << BSA_MAX_ORDER;
    size_t one = is_of_pages(request) ? 0 : request->amount;

    return status == BSA_NO_MEMORY && self->on_oom != NULL && one <= largest &&
           !is_in_oom_callback(self);
}

/* What follows a refusal: true: try again; false: an exception is set. */
static bool ask_again(AllocatorObject *self, const struct allocation_request *request,
                      bsa_status status) {
    int again;

    if (!may_ask(self, request, status)) {
        raise_refusal(self, request, status);
        return false;
    }
    again = ask_on_oom(self, bytes_of(self, request));
    if (again == 0 && bsa_check_open(self)) {
        raise_refusal(self, request, status);
    }
    return again > 0;
}

/* Whether what is to be reallocated is raw: on_oom may have taken it into a Block since. */
static bool check_still_raw(AllocatorObject *self, const struct allocation_request *request) {
    return request->kind != REQUEST_REALLOC || request->is_of_block ||
           bsa_check_not_owned(self, request->old);
}

bool bsa_allocate(AllocatorObject *self, const struct allocation_request *request,
                  uintptr_t *address) {
    bsa_status status;

    do {
        unsigned slot;

        if (!bsa_check_open(self) || !bsa_slot_for_alloc(self, &slot) ||
            !check_still_raw(self, request)) {
            return false;
        }
        status = attempt(self, slot, request, address);
    } while (status != BSA_OK && ask_again(self, request, status));
    return status == BSA_OK;
}

/* Clears the bytes of a new allocation, with the GIL released where that takes long. The allocator
 * is pinned meanwhile, so that it is open afterwards; long work that began then is waited for.
 * False: a fork in between has made it unusable. */
static bool clear(AllocatorObject *self, uintptr_t address, size_t size) {
    struct bsa_pin pin;
    bool open;

    if (size < LONG_CLEARING) {
        memset((void *)address, 0, size);
        return true;
    }
    bsa_pin(self, &pin);
    Py_BEGIN_ALLOW_THREADS
        memset((void *)address, 0, size);
    Py_END_ALLOW_THREADS
    open = bsa_check_open(self);
    bsa_unpin(&pin);
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
static inline PyObject *address_or_give_back(AllocatorObject *self, uintptr_t address) {
    PyObject *number = PyLong_FromUnsignedLongLong(address);

    if (number == NULL) {
        bsa_free_on(self->root, bsa_slot_for_free(self), address);
    }
    return number;
}

/* --- bytes -------------------------------------------------------------------------------------
 */

static const char *const sized_names[] = {"size", "align", "zero", NULL};

/* alloc's and malloc's arguments are the same. */
static bool parse_sized(AllocatorObject *self, const struct signature *signature,
                        PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                        struct allocation_request *request) {
    PyObject *values[3];

    return bsa_sort_arguments(signature, args, nargs, kwnames, values) &&
           bsa_to_size(self->state, values[0], "size", &request->amount) &&
           bsa_to_align(self->state, values[1], &request->align) &&
           bsa_to_flag(values[2], BSA_ZERO, &request->flags);
}

/* The general way of alloc and malloc. BSA_ZERO is not the core's to do here, so that the GIL can
 * be released for it: it is left in `flags`. */
static bool allocate_general(AllocatorObject *self, const struct signature *signature,
                             PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                             struct allocation_request *request, uintptr_t *address) {
    unsigned flags;
    bool allocated;

    *request = (struct allocation_request){.kind = REQUEST_BYTES};
    if (!parse_sized(self, signature, args, nargs, kwnames, request)) {
        return false;
    }
    flags = request->flags;
    request->flags = 0;
    allocated = bsa_allocate(self, request, address);
    request->flags = flags;
    return allocated;
}

/* Clears what was allocated, if that was asked for. */
static bool clear_if_asked(AllocatorObject *self, const struct allocation_request *request,
                           uintptr_t address) {
    return (request->flags & BSA_ZERO) == 0 ||
           clear(self, address, bsa_granted_size(self->root, request->amount, request->align));
}

/* The value of an int of one digit that is not negative, SIZE_MAX for all else. */
static inline size_t small_int(PyObject *number) {
    if (!PyLong_CheckExact(number)) {
        return SIZE_MAX;
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (PyUnstable_Long_IsCompact((PyLongObject *)number)) {
        Py_ssize_t value = PyUnstable_Long_CompactValue((PyLongObject *)number);

        return value >= 0 ? (size_t)value : SIZE_MAX;
    }
    return SIZE_MAX;
#else
    return Py_SIZE(number) == 1 ? ((PyLongObject *)number)->ob_digit[0] : SIZE_MAX;
#endif
}

/* Whether the call of alloc or malloc has nothing but a plain size, and the allocator and this
 * thread's slot are ready. */
static inline bool is_plain(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames, size_t *size, unsigned *slot) {
    if (nargs != 1 || kwnames != NULL || !bsa_is_ready(self)) {
        return false;
    }
    *size = small_int(args[0]);
    *slot = bsa_slot_for_free(self);
    return *size != SIZE_MAX && *slot < self->slots;
}

/* What follows the refusal of a plain request. */
static Py_NO_INLINE bool allocate_again(AllocatorObject *self, size_t size, bsa_status status,
                                        uintptr_t *address) {
    struct allocation_request request = {.kind = REQUEST_BYTES, .amount = size};

    return ask_again(self, &request, status) && bsa_allocate(self, &request, address);
}

static inline bool allocate_plain(AllocatorObject *self, unsigned slot, size_t size,
                                  uintptr_t *address) {
    bsa_status status = bsa_alloc_on(self->root, slot, size, 0, 0, address);

    return status == BSA_OK || allocate_again(self, size, status, address);
}

const char bsa_allocator_alloc_doc[] =
    PyDoc_STR("alloc($self, size, align=None, *, zero=False)\n--\n\n"
              "Allocate size bytes as a Block, freed when it goes away.\n\n"
              "size: bytes, 0 included. align: bytes, a power of two; None: 16 from 16 bytes up, "
              "else 8. zero: clear\n"
              "the bytes first. Raises OutOfMemoryError, InvalidParamError, NotInitializedError, "
              "ClosedError.");

static Py_NO_INLINE PyObject *alloc_general(AllocatorObject *self, PyObject *const *args,
                                            Py_ssize_t nargs, PyObject *kwnames) {
    static const struct signature signature = {"alloc", sized_names, 1, 2, 3};
    struct allocation_request request;
    PyObject *block;
    uintptr_t address;

    if (!allocate_general(self, &signature, args, nargs, kwnames, &request, &address)) {
        return NULL;
    }
    block = block_or_give_back(self, address, request.amount);
    /* The Block owns the memory before the clearing lets other threads run. */
    if (block != NULL && self->root != NULL && !clear_if_asked(self, &request, address)) {
        Py_CLEAR(block);
    }
    return block;
}

PyObject *bsa_allocator_alloc(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames) {
    uintptr_t address;
    unsigned slot;
    size_t size;

    BSA_LOCK(self);
    if (!is_plain(self, args, nargs, kwnames, &size, &slot)) {
        return alloc_general(self, args, nargs, kwnames);
    }
    if (!allocate_plain(self, slot, size, &address)) {
        return NULL;
    }
    return block_or_give_back(self, address, size);
}

const char bsa_allocator_malloc_doc[] =
    PyDoc_STR("malloc($self, size, align=None, *, zero=False)\n--\n\n"
              "Allocate size bytes and return their address: the fast path, yours to free().\n\n"
              "Arguments and errors as for alloc(). Nothing keeps the memory alive but you.");

static Py_NO_INLINE PyObject *malloc_general(AllocatorObject *self, PyObject *const *args,
                                             Py_ssize_t nargs, PyObject *kwnames) {
    static const struct signature signature = {"malloc", sized_names, 1, 2, 3};
    struct allocation_request request;
    uintptr_t address;

    if (!allocate_general(self, &signature, args, nargs, kwnames, &request, &address) ||
        !clear_if_asked(self, &request, address)) {
        return NULL;
    }
    return address_or_give_back(self, address);
}

PyObject *bsa_allocator_malloc(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames) {
    uintptr_t address;
    unsigned slot;
    size_t size;

    BSA_LOCK(self);
    if (!is_plain(self, args, nargs, kwnames, &size, &slot)) {
        return malloc_general(self, args, nargs, kwnames);
    }
    if (!allocate_plain(self, slot, size, &address)) {
        return NULL;
    }
    return address_or_give_back(self, address);
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

/* --- raw addresses -----------------------------------------------------------------------------
 */

bool bsa_check_not_owned(AllocatorObject *self, uintptr_t address) {
    if (self->extents.count == 0) {
        return true;
    }
    if (!bsa_extents_ready(&self->extents)) {
        return false;
    }
    if (bsa_extent_at(&self->extents, address) != NULL) {
        PyErr_Format(self->state->invalid_param, "%p is owned by a Block", (void *)address);
        return false;
    }
    return true;
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
    size_t address;
    bsa_status status;

    BSA_LOCK(self);
    if (Py_IS_TYPE(argument, self->state->block_type)) {
        BlockObject *block = (BlockObject *)argument;

        if (block->allocator != self) {
            return PyErr_Format(self->state->not_found, "the Block belongs to another allocator");
        }
        return bsa_block_free(block) ? Py_NewRef(Py_None) : NULL;
    }
    if (!bsa_to_size(self->state, argument, "address", &address) || !bsa_check_open(self) ||
        !bsa_check_not_owned(self, address)) {
        return NULL;
    }
    status = bsa_free_on(self->root, bsa_slot_for_free(self), address);
    if (status != BSA_OK) {
        return bsa_raise_address(self, status, address);
    }
    Py_RETURN_NONE;
}

static bool check_count(Py_ssize_t nargs, Py_ssize_t wanted, const char *function) {
    if (nargs != wanted) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments (%zd given)", function, wanted,
                     nargs);
    }
    return nargs == wanted;
}

const char bsa_allocator_realloc_doc[] = PyDoc_STR(
    "realloc($self, addr, size, /)\n--\n\n"
    "Change the size of a raw allocation, in place or by moving it; returns its (new) address.\n\n"
    "Contents up to the smaller size are kept. size 0 shrinks it as far as it goes. On failure the "
    "old\n"
    "allocation is untouched. Raises what free() and alloc() raise; address 0 is NotFoundError.");

PyObject *bsa_allocator_realloc(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs) {
    struct allocation_request request = {.kind = REQUEST_REALLOC};
    uintptr_t address;
    size_t old;

    BSA_LOCK(self);
    if (!check_count(nargs, 2, "realloc") || !bsa_to_size(self->state, args[0], "address", &old) ||
        !bsa_to_size(self->state, args[1], "size", &request.amount) || !bsa_check_open(self) ||
        !bsa_check_not_owned(self, old)) {
        return NULL;
    }
    request.old = old;
    if (!bsa_allocate(self, &request, &address)) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(address);
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

/* --- in bulk -----------------------------------------------------------------------------------
 */

const char bsa_allocator_malloc_many_doc[] =
    PyDoc_STR("malloc_many($self, count, size, align=None)\n--\n\n"
              "Make count raw allocations of size bytes each, all or none.\n\n"
              "Returns their addresses as a read-only memoryview of unsigned 64-bit numbers "
              "(format 'Q'), which owns\n"
              "the numbers only. Errors as for alloc().");

/* A read-only memoryview of format 'Q' over the bytes object. */
static PyObject *numbers_view(PyObject *bytes) {
    PyObject *view = PyMemoryView_FromObject(bytes), *numbers;

    if (view == NULL) {
        return NULL;
    }
    numbers = PyObject_CallMethod(view, "cast", "s", "Q");
    Py_DECREF(view);
    return numbers;
}

/* An object has 8 bytes at least: that so many cannot fit is found out without an array for them.
 */
static bool may_hold_many(AllocatorObject *self, const struct allocation_request *request) {
    do {
        if (!bsa_check_open(self)) {
            return false;
        }
        if (bsa_section_count(self->root) == 0) {
            bsa_raise_address(self, BSA_NOT_INITIALIZED, 0);
            return false;
        }
        if (request->count <= bsa_total_pages(self->root) * bsa_page_size(self->root) / 8) {
            return true;
        }
    } while (ask_again(self, request, BSA_NO_MEMORY));
    return false;
}

PyObject *bsa_allocator_malloc_many(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                                    PyObject *kwnames) {
    static const char *const names[] = {"count", "size", "align", NULL};
    static const struct signature signature = {"malloc_many", names, 2, 3, 3};
    struct allocation_request request = {.kind = REQUEST_MANY};
    PyObject *values[3], *bytes, *view;
    uintptr_t unused;

    BSA_LOCK(self);
    if (!bsa_sort_arguments(&signature, args, nargs, kwnames, values) ||
        !bsa_to_size(self->state, values[0], "count", &request.count) ||
        !bsa_to_size(self->state, values[1], "size", &request.amount) ||
        !bsa_to_align(self->state, values[2], &request.align) || !bsa_check_open(self)) {
        return NULL;
    }
    if (!may_hold_many(self, &request)) {
        return NULL;
    }
    bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(request.count * sizeof(uint64_t)));
    if (bytes == NULL) {
        return NULL;
    }
    request.addresses = (uintptr_t *)(void *)PyBytes_AS_STRING(bytes);
    view = numbers_view(bytes);
    if (view != NULL && !bsa_allocate(self, &request, &unused)) {
        Py_CLEAR(view);
    }
    Py_DECREF(bytes);
    return view;
}

struct addresses {
    uintptr_t *values;
    size_t count;
};

static bool addresses_room(struct addresses *addresses, size_t count) {
    addresses->count = count;
    addresses->values = PyMem_New(uintptr_t, count == 0 ? 1 : count);
    if (addresses->values == NULL) {
        PyErr_NoMemory();
    }
    return addresses->values != NULL;
}

static bool is_signed(const Py_buffer *buffer) {
    return strchr("qln", buffer->format[strlen(buffer->format) - 1]) != NULL;
}

static bool holds_native_integers(const Py_buffer *buffer) {
    const char *format = buffer->format == NULL ? "B" : buffer->format;

    format += strchr(PY_LITTLE_ENDIAN ? "@=<" : "@=>", *format) != NULL && *format != '\0';
    return buffer->ndim == 1 && buffer->itemsize == sizeof(uint64_t) && format[0] != '\0' &&
           format[1] == '\0' && strchr("QqLlNn", format[0]) != NULL;
}

/* Copies the numbers of a one-dimensional, perhaps strided buffer. */
static bool copy_buffer(AllocatorObject *self, const Py_buffer *buffer,
                        struct addresses *addresses) {
    /* ctypes leaves the strides out also where they are asked for. */
    Py_ssize_t stride = buffer->strides == NULL ? buffer->itemsize : buffer->strides[0];
    const char *item = buffer->buf;

    if (!holds_native_integers(buffer)) {
        PyErr_SetString(PyExc_TypeError,
                        "addresses must come as integers, in an iterable or in a one-dimensional "
                        "buffer of native 8-byte integers");
        return false;
    }
    if (!addresses_room(addresses, (size_t)buffer->shape[0])) {
        return false;
    }
    for (size_t i = 0; i < addresses->count; i++, item += stride) {
        int64_t number;

        memcpy(&number, item, sizeof number);
        if (number < 0 && is_signed(buffer)) {
            PyErr_Format(self->state->invalid_param, "address must not be negative, is %lld",
                         (long long)number);
            return false;
        }
        addresses->values[i] = (uintptr_t)number;
    }
    return true;
}

static bool copy_iterable(AllocatorObject *self, PyObject *iterable, struct addresses *addresses) {
    PyObject *list = PySequence_List(iterable);
    bool copied;

    if (list == NULL) {
        return false;
    }
    copied = addresses_room(addresses, (size_t)PyList_GET_SIZE(list));
    for (size_t i = 0; i < addresses->count && copied; i++) {
        size_t number = 0;

        copied = bsa_to_size(self->state, PyList_GET_ITEM(list, (Py_ssize_t)i), "address", &number);
        addresses->values[i] = number;
    }
    Py_DECREF(list);
    return copied;
}

static bool copy_addresses(AllocatorObject *self, PyObject *source, struct addresses *addresses) {
    Py_buffer buffer;
    bool copied;

    if (!PyObject_CheckBuffer(source)) {
        return copy_iterable(self, source, addresses);
    }
    if (PyObject_GetBuffer(source, &buffer, PyBUF_STRIDED_RO | PyBUF_FORMAT) < 0) {
        return false;
    }
    copied = copy_buffer(self, &buffer, addresses);
    PyBuffer_Release(&buffer);
    return copied;
}

static bool none_is_owned(AllocatorObject *self, const struct addresses *addresses) {
    for (size_t i = 0; i < addresses->count; i++) {
        if (!bsa_check_not_owned(self, addresses->values[i])) {
            return false;
        }
    }
    return true;
}

const char bsa_allocator_free_many_doc[] = PyDoc_STR(
    "free_many($self, addrs, /)\n--\n\n"
    "Free many raw allocations: all of them, or none if one is wrong or repeated.\n\n"
    "addrs: an iterable of ints, or a one-dimensional buffer of native 8-byte integers (what "
    "malloc_many()\n"
    "returns, an array('Q'), an ndarray). Errors as for free(); the message names the address.");

PyObject *bsa_allocator_free_many(AllocatorObject *self, PyObject *source) {
    struct addresses addresses = {NULL, 0};
    uintptr_t wrong = 0;
    PyObject *result = NULL;

    BSA_LOCK(self);
    if (copy_addresses(self, source, &addresses) && bsa_check_open(self) &&
        (self->extents.count == 0 || none_is_owned(self, &addresses))) {
        bsa_status status = bsa_free_many_on(self->root, bsa_slot_for_free(self), addresses.values,
                                             addresses.count, &wrong);

        result = status == BSA_OK ? Py_NewRef(Py_None) : bsa_raise_address(self, status, wrong);
    }
    PyMem_Free(addresses.values);
    return result;
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
