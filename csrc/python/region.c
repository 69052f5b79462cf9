/* See region.h. */
#include "region.h"

#include "arguments.h"
#include "block.h"
#include "errors.h"
#include "mapping.h"
#include "weak.h"

#include <errno.h>
#include <string.h>

static struct region *region_new(struct module_state *state) {
    struct region *region = PyObject_GC_New(struct region, state->region_type);

    if (region != NULL) {
        region->start = NULL;
        region->size = 0;
        region->source = NULL;
        region->buffer.obj = NULL;
        region->host = NULL;
        region->owner = NULL;
        region->is_claimed = region->is_opaque = false;
        PyObject_GC_Track(region);
    }
    return region;
}

static struct region *map_region(struct module_state *state, PyObject *size_object) {
    struct region *region;
    size_t size;

    if (!bsa_to_size(state, size_object, "size", &size)) {
        return NULL;
    }
    if (size == 0) {
        PyErr_SetString(state->invalid_param, "size must be at least one page, is 0");
        return NULL;
    }
    region = region_new(state);
    if (region == NULL) {
        return NULL;
    }
    region->size = size;
    region->start = bsa_map(size);
    if (region->start == NULL) {
        Py_DECREF(region);
        bsa_raise_cannot_map(state, size, strerror(errno));
        return NULL;
    }
    return region;
}

/* Whether the format (PEP 3118) has an 'O' that is not part of a field's name, as in "T{O:first:}".
 */
static bool holds_objects(const Py_buffer *buffer) {
    bool in_name = false;

    for (const char *at = buffer->format; at != NULL && *at != '\0'; at++) {
        if (*at == ':') {
            in_name = !in_name;
        } else if (*at == 'O' && !in_name) {
            return true;
        }
    }
    return false;
}

/* Turns whatever an exporter raised into BufferError, with that as its cause. */
static void raise_buffer_error(PyObject *object) {
    PyObject *type, *cause, *traceback, *value;

    PyErr_Fetch(&type, &cause, &traceback);
    PyErr_NormalizeException(&type, &cause, &traceback);
    PyErr_Format(PyExc_BufferError, "%.100s object gives no writable, C-contiguous buffer",
                 Py_TYPE(object)->tp_name);
    if (cause != NULL) {
        PyObject *new_type, *new_traceback;

        if (traceback != NULL) {
            PyException_SetTraceback(cause, traceback);
        }
        PyErr_Fetch(&new_type, &value, &new_traceback);
        PyErr_NormalizeException(&new_type, &value, &new_traceback);
        PyException_SetCause(value, Py_NewRef(cause));
        PyException_SetContext(value, Py_NewRef(cause));
        PyErr_Restore(new_type, value, new_traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(cause);
    Py_XDECREF(traceback);
}

/* The object as a size, if operator.index takes it; else NULL with the pending exception kept. */
static PyObject *index_of(PyObject *object) {
    PyObject *type, *value, *traceback, *size = NULL;

    PyErr_Fetch(&type, &value, &traceback);
    if (PyIndex_Check(object)) {
        size = PyNumber_Index(object);
    }
    PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    return size;
}

/* The exporter has refused, and its exception is set. */
static struct region *region_from_refusal(struct module_state *state, PyObject *object) {
    PyObject *size = index_of(object);
    struct region *region;

    if (size == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
            raise_buffer_error(object);
        }
        return NULL;
    }
    PyErr_Clear();
    region = map_region(state, size);
    Py_DECREF(size);
    return region;
}

/* Whether the exporter stands for what `__buffer__` of a class has returned, which is a memoryview.
 * Where that complains when it is cleared, it is unusable afterwards, and crashes when it goes
 * (CPython's issue 77894). */
static bool wraps_a_fragile_view(PyObject *exporter) {
    return Py_Version < 0x030C0700 && strcmp(Py_TYPE(exporter)->tp_name, "_buffer_wrapper") == 0;
}

/* Whether tp_clear takes the bytes away (ctypes), or tries to and complains (memoryview), though we
 * hold the buffer. -1 with an exception set: no memory to find out. */
static int loses_bytes_when_cleared(PyObject *exporter) {
    PyObject *found;

    if (exporter == NULL || PyMemoryView_Check(exporter) || wraps_a_fragile_view(exporter)) {
        return exporter != NULL;
    }
    found = PyObject_GetAttrString((PyObject *)Py_TYPE(exporter), "_b_needsfree_");
    if (found != NULL) {
        Py_DECREF(found);
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

static struct region *buffer_region(struct module_state *state, PyObject *object) {
    struct region *region = region_new(state);
    int source_loses, exporter_loses;

    if (region == NULL) {
        return NULL;
    }
    if (PyObject_GetBuffer(object, &region->buffer, PyBUF_CONTIG | PyBUF_FORMAT) < 0) {
        region->buffer.obj = NULL;
        Py_DECREF(region);
        return region_from_refusal(state, object);
    }
    region->source = Py_NewRef(object);
    source_loses = loses_bytes_when_cleared(object);
    exporter_loses = source_loses < 0 ? -1 : loses_bytes_when_cleared(region->buffer.obj);
    region->is_opaque = source_loses != 0 || exporter_loses != 0;
    if (exporter_loses < 0) {
        Py_DECREF(region);
        return NULL;
    }
    region->start = region->buffer.buf;
    region->size = (size_t)region->buffer.len;
    if (holds_objects(&region->buffer)) {
        Py_DECREF(region);
        PyErr_Format(PyExc_TypeError,
                     "%.100s holds Python objects: its bytes are not free to be managed",
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    return region;
}

struct region *bsa_region_from(struct module_state *state, PyObject *object) {
    if (PyLong_Check(object) || (!PyObject_CheckBuffer(object) && PyIndex_Check(object))) {
        return map_region(state, object);
    }
    if (!PyObject_CheckBuffer(object)) {
        PyErr_Format(PyExc_TypeError, "expected a writable buffer or a size in bytes, not %.100s",
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    return buffer_region(state, object);
}

static void keep(void *owner) {
    Py_INCREF((PyObject *)owner);
}

/* Puts the region into the Block of another allocator that holds all of it, as far as the claim
 * that is in its way stands for that one. */
static void nest(struct region *region, PyObject *owner, const struct bsa_claim *conflict) {
    PyObject *other = NULL;

    if (conflict->domain == region->claim.domain) {
        other = bsa_weak_get(conflict->owner);
        Py_DECREF((PyObject *)conflict->owner); /* kept for us */
    }
    if (region->host != NULL) {
        bsa_block_unpin(region->host);
        region->host = NULL;
    }
    if (other != NULL && other != owner) {
        region->host =
            bsa_block_around((AllocatorObject *)other, region->claim.start, region->size);
    }
    Py_XDECREF(other);
    region->claim.within = conflict->serial;
}

bool bsa_region_claim(struct module_state *state, struct region *region, PyObject *owner) {
    struct bsa_claim conflict;

    region->owner = PyWeakref_NewRef(owner, NULL);
    if (region->owner == NULL) {
        return false;
    }
    region->claim = (struct bsa_claim){.start = (uintptr_t)region->start,
                                       .size = region->size,
                                       .domain = PyInterpreterState_Get(),
                                       .owner = region->owner};
    /* The latest claim on the bytes is in the way: of nested heaps, the innermost. */
    while (!bsa_claim_enter(&region->claim, &conflict, keep)) {
        nest(region, owner, &conflict);
        if (region->host == NULL) {
            if (!PyErr_Occurred()) {
                PyErr_Format(state->memory_overlap,
                             "%zu bytes at %p overlap a region that is managed already "
                             "(%zu bytes at %p)",
                             region->size, region->start, conflict.size, (void *)conflict.start);
            }
            return false;
        }
    }
    region->is_claimed = true;
    return true;
}

/* A memoryview is left out: the collector would try to clear it, and complain that we hold its
 * buffer. */
static int region_traverse(struct region *region, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(region));
    if (region->source != NULL && !region->is_opaque) {
        Py_VISIT(region->source);
        Py_VISIT(region->buffer.obj);
    }
    return region->host == NULL ? 0 : bsa_block_visit_orphan(region->host, visit, arg);
}

/* Keeps a pending exception. May run any code. */
static void region_dealloc(struct region *region) {
    PyObject *error_type, *value, *traceback;
    PyTypeObject *type = Py_TYPE(region);

    PyObject_GC_UnTrack(region);
    PyErr_Fetch(&error_type, &value, &traceback);
    if (region->is_claimed) {
        bsa_claim_leave(&region->claim);
    }
    if (region->source != NULL) {
        PyBuffer_Release(&region->buffer);
        Py_DECREF(region->source);
    } else if (region->start != NULL) {
        bsa_unmap(region->start, region->size);
    }
    if (region->host != NULL) {
        bsa_block_unpin(region->host);
    }
    Py_XDECREF(region->owner);
    PyErr_Restore(error_type, value, traceback);
    PyObject_GC_Del(region);
    Py_DECREF(type);
}

/* An exporter need not say whose the buffer is: then there is no object. */
static bool is_known_to_collector(PyObject *object) {
    return object != NULL && PyObject_IS_GC(object);
}

bool bsa_region_refers_to_others(const struct region *region) {
    return region->host != NULL || is_known_to_collector(region->source) ||
           is_known_to_collector(region->buffer.obj);
}

bool bsa_region_is_shared(const struct region *region) {
    const char *start = region->start;

    return region->source != NULL &&
           (bsa_mapping_is_shared(start) || bsa_mapping_is_shared(start + region->size - 1));
}

static PyType_Slot region_slots[] = {
    {Py_tp_dealloc, region_dealloc},
    {Py_tp_traverse, region_traverse},
    {0, NULL},
};

static PyType_Spec region_spec = {
    .name = "bsa._core.Region",
    .basicsize = sizeof(struct region),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = region_slots,
};

int bsa_add_region_type(PyObject *module, struct module_state *state) {
    state->region_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &region_spec, NULL);
    return state->region_type == NULL ? -1 : 0;
}
