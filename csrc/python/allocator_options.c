/* The options of an Allocator: as given when it is made, and as set afterwards. */
#include "allocator_options.h"

#include "allocator_methods.h"
#include "arguments.h"
#include "block.h"
#include "lock.h"
#include "managed_regions.h"
#include "mapping.h"

/* --- converting --------------------------------------------------------------------------------
 */

static bool to_limit(struct module_state *state, PyObject *object, uint64_t *limit) {
    size_t bytes = 0;

    *limit = UINT64_MAX;
    if (object == NULL || object == Py_None) {
        return true;
    }
    if (!bsa_to_size(state, object, "limit", &bytes)) {
        return false;
    }
    *limit = bytes == SIZE_MAX ? SIZE_MAX - 1 : bytes;
    return true;
}

static bool check_on_oom(PyObject *object) {
    if (object != NULL && object != Py_None && !PyCallable_Check(object)) {
        PyErr_Format(PyExc_TypeError, "on_oom must be callable or None, not %.100s",
                     Py_TYPE(object)->tp_name);
        return false;
    }
    return true;
}

bool bsa_convert_options(struct module_state *state, PyObject *const values[],
                         struct allocator_options *options) {
    options->page_size = 4096;
    options->cpus = bsa_processors();
    if ((values[0] != NULL && !bsa_to_size(state, values[0], "page_size", &options->page_size)) ||
        (values[1] != NULL && values[1] != Py_None &&
         !bsa_to_size(state, values[1], "cpus", &options->cpus)) ||
        !bsa_check_phys(values[2]) || !to_limit(state, values[3], &options->limit) ||
        !check_on_oom(values[4])) {
        return false;
    }
    if (options->cpus == 0 || options->cpus > BSA_MAX_SLOTS) {
        PyErr_Format(state->invalid_param, "cpus must be from 1 to %d, is %zu", BSA_MAX_SLOTS,
                     options->cpus);
        return false;
    }
    options->phys = values[2];
    options->on_oom = values[4] == Py_None ? NULL : values[4];
    return true;
}

/* --- setting -----------------------------------------------------------------------------------
 */

PyObject *bsa_allocator_get_limit(AllocatorObject *self, void *ignored) {
    BSA_LOCK(self);
    (void)ignored;
    if (self->limit == UINT64_MAX) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLongLong(self->limit);
}

static int refuse_deletion(const char *name) {
    PyErr_Format(PyExc_AttributeError, "%s cannot be deleted; None resets it", name);
    return -1;
}

int bsa_allocator_set_limit(AllocatorObject *self, PyObject *value, void *ignored) {
    uint64_t limit;

    BSA_LOCK(self);
    (void)ignored;
    if (value == NULL) {
        return refuse_deletion("limit");
    }
    if (!to_limit(self->state, value, &limit) || !bsa_check_open(self)) {
        return -1;
    }
    self->limit = limit;
    bsa_set_limit(self->root, limit);
    return 0;
}

PyObject *bsa_allocator_get_on_oom(AllocatorObject *self, void *ignored) {
    BSA_LOCK(self);
    (void)ignored;
    return Py_NewRef(self->on_oom == NULL ? Py_None : self->on_oom);
}

int bsa_allocator_set_on_oom(AllocatorObject *self, PyObject *value, void *ignored) {
    BSA_LOCK(self);
    (void)ignored;
    if (value == NULL) {
        return refuse_deletion("on_oom");
    }
    if (!check_on_oom(value) || !bsa_check_open(self)) {
        return -1;
    }
    if (value != Py_None) {
        bsa_track_blocks(self);
    }
    Py_XSETREF(self->on_oom, value == Py_None ? NULL : Py_NewRef(value));
    return 0;
}
