/* See errors.h. */
#include "errors.h"

#include <stdarg.h>

/* --- the types ---------------------------------------------------------------------------------
 */

/* bsa.NAME with the given bases, kept in `*place` and added to the module. */
static int add_error(PyObject *module, PyObject **place, const char *name, PyObject *base,
                     PyObject *builtin, const char *doc) {
    PyObject *bases = builtin == NULL ? Py_NewRef(base) : PyTuple_Pack(2, base, builtin);
    char full_name[64];

    if (bases == NULL) {
        return -1;
    }
    PyOS_snprintf(full_name, sizeof full_name, "bsa.%s", name);
    *place = PyErr_NewExceptionWithDoc(full_name, doc, bases, NULL);
    Py_DECREF(bases);
    return *place == NULL ? -1 : PyModule_AddObjectRef(module, name, *place);
}

/* So that an exception that Python code makes has the attributes too. */
static int add_out_of_memory_attributes(PyObject *type) {
    static const char *const names[] = {"requested", "align", "free", "largest_free",
                                        "unusable_index"};

    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
        if (PyObject_SetAttrString(type, names[i], Py_None) < 0) {
            return -1;
        }
    }
    return 0;
}

int bsa_add_errors(PyObject *module, struct module_state *state) {
    if (add_error(module, &state->alloc_error, "AllocError", PyExc_Exception, NULL,
                  "The base of all errors that bsa raises on its own account.") < 0) {
        return -1;
    }
    const struct {
        PyObject **place;
        const char *name;
        PyObject *builtin;
        const char *doc;
    } errors[] = {
        {&state->invalid_param, "InvalidParamError", PyExc_ValueError,
         "An argument that can never be right: a count of 0, an alignment that is no power of two, "
         "an address between two objects or owned by a Block."},
        {&state->out_of_memory, "OutOfMemoryError", PyExc_MemoryError,
         "No block could hold the request, or the limit forbids it.\n\n"
         "Attributes, in bytes: requested, align, free, largest_free; and unusable_index, the "
         "share "
         "of free memory in blocks too small for the request, 0.0 to 1.0."},
        {&state->memory_overlap, "MemoryOverlapError", PyExc_ValueError,
         "The region shares a byte with one that an open allocator of this process manages."},
        {&state->not_allocated, "NotAllocatedError", PyExc_ValueError,
         "No live allocation starts at the address: freed already, or inside a block."},
        {&state->not_found, "NotFoundError", PyExc_LookupError,
         "The address lies outside every heap of the allocator."},
        {&state->not_initialized, "NotInitializedError", PyExc_RuntimeError,
         "The allocator has no section yet: add_region() gives it one."},
        {&state->in_use, "InUseError", PyExc_BufferError,
         "Something still uses the memory: live views of a Block, live allocations of a section, "
         "or "
         "work under way in another thread."},
        {&state->closed, "ClosedError", PyExc_ValueError, "The allocator has been closed."},
        {&state->corruption, "CorruptionError", PyExc_RuntimeError,
         "check() found metadata that bsa cannot have written; the message names the first "
         "violated "
         "invariant."},
    };

    for (size_t i = 0; i < Py_ARRAY_LENGTH(errors); i++) {
        if (add_error(module, errors[i].place, errors[i].name, state->alloc_error,
                      errors[i].builtin, errors[i].doc) < 0) {
            return -1;
        }
    }
    return add_out_of_memory_attributes(state->out_of_memory);
}

/* --- raising -----------------------------------------------------------------------------------
 */

/* The order of a block for so many bytes, as far as there are orders. */
static unsigned order_for(size_t bytes, size_t page_size) {
    unsigned order = 0;

    while (order < BSA_MAX_ORDER && page_size << order < bytes) {
        order++;
    }
    return order;
}

static int set_size(PyObject *error, const char *name, size_t value) {
    PyObject *number = PyLong_FromSize_t(value);
    int result = number == NULL ? -1 : PyObject_SetAttrString(error, name, number);

    Py_XDECREF(number);
    return result;
}

struct shortage {
    size_t requested, align, free, largest;
    double unusable_index;
    uint64_t limit;
};

static struct shortage measure_shortage(AllocatorObject *self, size_t requested, size_t align) {
    size_t page_size = bsa_page_size(self->root);
    uint64_t blocks[BSA_MAX_ORDER + 1];

    bsa_free_blocks(self->root, blocks);
    return (struct shortage){
        requested,
        align,
        (size_t)bsa_free_page_count(self->root) * page_size,
        (size_t)bsa_largest_free(self),
        bsa_unusable_index(blocks, order_for(requested, page_size)) / 1000.0,
        self->limit,
    };
}

static void raise_shortage(struct module_state *state, const struct shortage *shortage,
                           PyObject *message) {
    PyObject *error = PyObject_CallOneArg(state->out_of_memory, message);
    PyObject *index = PyFloat_FromDouble(shortage->unusable_index);

    if (error != NULL && index != NULL && set_size(error, "requested", shortage->requested) == 0 &&
        set_size(error, "align", shortage->align) == 0 &&
        set_size(error, "free", shortage->free) == 0 &&
        set_size(error, "largest_free", shortage->largest) == 0 &&
        PyObject_SetAttrString(error, "unusable_index", index) == 0) {
        PyErr_SetObject(state->out_of_memory, error);
    }
    Py_XDECREF(index);
    Py_XDECREF(error);
}

/* `prefix` may be NULL. */
static PyObject *shortage_message(const struct shortage *shortage, PyObject *prefix) {
    char limit[64] = "", align[64] = "";

    if (shortage->align > 16) {
        PyOS_snprintf(align, sizeof align, " aligned to %zu", shortage->align);
    }
    if (shortage->limit != UINT64_MAX) {
        PyOS_snprintf(limit, sizeof limit, ", the limit is %llu",
                      (unsigned long long)shortage->limit);
    }
    return PyUnicode_FromFormat(
        "%V%zu bytes%s do not fit: %zu bytes are free, the largest free block has %zu%s", prefix,
        "", shortage->requested, align, shortage->free, shortage->largest, limit);
}

PyObject *bsa_raise_out_of_memory(AllocatorObject *self, size_t requested, size_t align,
                                  const char *what, ...) {
    struct shortage shortage = measure_shortage(self, requested, align);
    PyObject *prefix = NULL, *message;
    va_list arguments;

    va_start(arguments, what);
    if (what != NULL) {
        prefix = PyUnicode_FromFormatV(what, arguments);
    }
    va_end(arguments);
    message = shortage_message(&shortage, prefix);
    if (message != NULL) {
        raise_shortage(self->state, &shortage, message);
    }
    Py_XDECREF(prefix);
    Py_XDECREF(message);
    return NULL;
}

void bsa_raise_cannot_map(struct module_state *state, size_t size, const char *reason) {
    PyObject *message = PyUnicode_FromFormat("cannot map %zu bytes: %s", size, reason), *error;

    if (message == NULL) {
        return;
    }
    error = PyObject_CallOneArg(state->out_of_memory, message);
    if (error != NULL && set_size(error, "requested", size) == 0) {
        PyErr_SetObject(state->out_of_memory, error);
    }
    Py_XDECREF(error);
    Py_DECREF(message);
}

PyObject *bsa_raise_address(AllocatorObject *self, bsa_status status, uintptr_t address) {
    struct module_state *state = self->state;
    char shown[24];

    if (PyErr_Occurred()) {
        return NULL;
    }
    PyOS_snprintf(shown, sizeof shown, "0x%zx", (size_t)address);
    switch (status) {
    case BSA_NOT_ALLOCATED:
        return PyErr_Format(state->not_allocated, "no live allocation starts at %s", shown);
    case BSA_NOT_FOUND:
        return PyErr_Format(state->not_found, "%s lies outside every heap", shown);
    case BSA_NOT_INITIALIZED:
        return PyErr_Format(state->not_initialized, "the allocator has no section yet");
    case BSA_IN_USE:
        return PyErr_Format(state->in_use, "the section holds live allocations");
    case BSA_MEMORY_OVERLAP:
        return PyErr_Format(state->memory_overlap,
                            "the region overlaps one that is managed already");
    case BSA_CORRUPTION:
        return PyErr_Format(state->corruption, "metadata is corrupt");
    default:
        return PyErr_Format(state->invalid_param,
                            "%s lies inside an object or page: no allocation could start there",
                            shown);
    }
}
