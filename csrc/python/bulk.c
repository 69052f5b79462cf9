/* Many raw allocations, or frees, in one call: all or none. The addresses go and come as arrays of
 * 8-byte numbers. */
#include "allocator_methods.h"
#include "arguments.h"
#include "errors.h"
#include "lock.h"
#include "request.h"

/* --- malloc_many -------------------------------------------------------------------------------
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
    } while (bsa_ask_again(self, request, BSA_NO_MEMORY));
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

/* --- free_many ---------------------------------------------------------------------------------
 */

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
