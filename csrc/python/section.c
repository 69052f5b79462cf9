/* The Section type. Like Linux's sections of memory: a heap of whole pages, its metadata before it.
 */
#include "section.h"

#include "arguments.h"
#include "errors.h"
#include "lock.h"
#include "weak.h"

#include <structmember.h>

PyObject *bsa_section_get(const struct section_record *record) {
    return record->object == NULL ? NULL : bsa_weak_get(record->object);
}

/* A Section that its record does not know yet. */
static SectionObject *section_of_record(AllocatorObject *self, struct section_record *record) {
    SectionObject *section = PyObject_GC_New(SectionObject, self->state->section_type);

    if (section != NULL) {
        section->allocator = (AllocatorObject *)Py_NewRef(self);
        section->weakrefs = NULL;
        section->record = record;
        record->holders++;
        PyObject_GC_Track(section);
    }
    return section;
}

PyObject *bsa_section_new(AllocatorObject *self, struct section_record *record) {
    PyObject *section, *reference = NULL, *other;
    struct bsa_call *pin;

    pin = bsa_pin(self); /* a finaliser or thread that runs now must not take the record away */
    if (pin == NULL) {
        return NULL;
    }
    section = (PyObject *)section_of_record(self, record);
    if (section != NULL) {
        reference = PyWeakref_NewRef(section, NULL);
    }
    bsa_unpin(self, pin);
    other = reference == NULL ? NULL : bsa_section_get(record);
    if (reference == NULL || other != NULL) { /* or has asked for it, too */
        Py_XDECREF(reference);
        Py_XDECREF(section);
        return other;
    }
    Py_XSETREF(record->object, reference);
    return section;
}

static int section_traverse(SectionObject *section, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(section));
    Py_VISIT(section->allocator);
    return 0;
}

static void release_record(SectionObject *section) {
    BSA_LOCK(section->allocator);
    bsa_record_release(section->record);
}

static void section_dealloc(SectionObject *section) {
    PyTypeObject *type = Py_TYPE(section);

    PyObject_GC_UnTrack(section);
    if (section->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)section);
    }
    release_record(section);
    Py_DECREF(section->allocator);
    PyObject_GC_Del(section);
    Py_DECREF(type);
}

/* Whether the section is still under management. */
static bool check_managed(SectionObject *section) {
    if (!bsa_check_open(section->allocator)) {
        return false;
    }
    if (section->record->is_removed) {
        PyErr_SetString(section->allocator->state->closed, "the section has been removed");
        return false;
    }
    return true;
}

enum section_number {
    SECTION_INDEX,
    SECTION_START,
    SECTION_SIZE,
    SECTION_TOTAL_PAGES,
    SECTION_FREE_PAGES,
    SECTION_REGION_START,
    SECTION_REGION_SIZE,
    SECTION_METADATA_SIZE,
};

static PyObject *section_get_number(SectionObject *section, void *which) {
    struct bsa_section_info info;
    const struct region *region;

    BSA_LOCK(section->allocator);
    if (!check_managed(section)) {
        return NULL;
    }
    region = section->record->region;
    bsa_section_info(section->allocator->root, section->record->info.index, &info);
    switch ((enum section_number)(uintptr_t)which) {
    case SECTION_INDEX:
        return PyLong_FromUnsignedLong(info.index);
    case SECTION_START:
        return PyLong_FromUnsignedLongLong(info.start);
    case SECTION_SIZE:
        return PyLong_FromSize_t(info.size);
    case SECTION_TOTAL_PAGES:
        return PyLong_FromUnsignedLong(info.total_pages);
    case SECTION_FREE_PAGES:
        return PyLong_FromUnsignedLong(info.free_pages);
    case SECTION_REGION_START:
        return PyLong_FromUnsignedLongLong((uintptr_t)region->start);
    case SECTION_REGION_SIZE:
        return PyLong_FromSize_t(region->size);
    default:
        return PyLong_FromSize_t(info.meta_size);
    }
}

static PyObject *section_get_buffer(SectionObject *section, void *ignored) {
    BSA_LOCK(section->allocator);
    (void)ignored;
    if (!check_managed(section)) {
        return NULL;
    }
    if (section->record->region->source == NULL) {
        Py_RETURN_NONE;
    }
    return Py_NewRef(section->record->region->source);
}

PyDoc_STRVAR(section_free_blocks_doc,
             "free_blocks($self, /)\n--\n\n"
             "Number of free blocks of each order, 0 to 20 (tuple of int).");

static PyObject *section_free_blocks(SectionObject *section, PyObject *ignored) {
    struct bsa_section_info info;
    PyObject *counts;

    BSA_LOCK(section->allocator);
    (void)ignored;
    if (!check_managed(section)) {
        return NULL;
    }
    bsa_section_info(section->allocator->root, section->record->info.index, &info);
    counts = PyTuple_New(BSA_MAX_ORDER + 1);
    for (Py_ssize_t order = 0; counts != NULL && order <= BSA_MAX_ORDER; order++) {
        PyObject *count = PyLong_FromUnsignedLong(info.free_blocks[order]);

        if (count == NULL) {
            Py_CLEAR(counts);
        } else {
            PyTuple_SET_ITEM(counts, order, count);
        }
    }
    return counts;
}

PyDoc_STRVAR(section_free_list_doc, "free_list($self, order, /)\n--\n\n"
                                    "Addresses of the free blocks of 2**order pages, in the order "
                                    "in which they would be taken (tuple of\n"
                                    "int). Raises InvalidParamError for an order above 20.");

static PyObject *tuple_of_addresses(const uintptr_t *addresses, size_t count) {
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);

    for (size_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *address = PyLong_FromUnsignedLongLong(addresses[i]);

        if (address == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, address);
        }
    }
    return tuple;
}

static PyObject *section_free_list(SectionObject *section, PyObject *argument) {
    struct module_state *state = section->allocator->state;
    size_t order, count;
    uintptr_t *addresses;
    PyObject *tuple;
    unsigned index;

    BSA_LOCK(section->allocator);
    if (!bsa_to_size(state, argument, "order", &order) || !check_managed(section)) {
        return NULL;
    }
    if (order > BSA_MAX_ORDER) {
        return PyErr_Format(state->invalid_param, "order must be from 0 to %d, is %zu",
                            BSA_MAX_ORDER, order);
    }
    index = section->record->info.index;
    count = bsa_free_list(section->allocator->root, index, (unsigned)order, NULL, 0);
    addresses = PyMem_New(uintptr_t, count == 0 ? 1 : count);
    if (addresses == NULL) {
        return PyErr_NoMemory();
    }
    bsa_free_list(section->allocator->root, index, (unsigned)order, addresses, count);
    tuple = tuple_of_addresses(addresses, count);
    PyMem_Free(addresses);
    return tuple;
}

PyDoc_STRVAR(section_page_states_doc,
             "page_states($self, /)\n--\n\n"
             "One byte a page: the PageState of each (bytes of length total_pages).");

static PyObject *section_page_states(SectionObject *section, PyObject *ignored) {
    PyObject *states;

    BSA_LOCK(section->allocator);
    (void)ignored;
    if (!check_managed(section)) {
        return NULL;
    }
    states = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)section->record->info.total_pages);
    if (states != NULL) {
        bsa_page_states(section->allocator->root, section->record->info.index,
                        (unsigned char *)PyBytes_AS_STRING(states));
    }
    return states;
}

static PyObject *section_repr(SectionObject *section) {
    const struct bsa_section_info *info;

    BSA_LOCK(section->allocator);
    if (section->record->is_removed) {
        return PyUnicode_FromString("<bsa.Section, removed>");
    }
    info = &section->record->info;
    return PyUnicode_FromFormat("<bsa.Section %u: %u pages at %p>", info->index,
                                (unsigned)info->total_pages, (void *)info->start);
}

PyDoc_STRVAR(section_repr_html_doc,
             "_repr_html_($self, /)\n--\n\n"
             "What Jupyter shows: the numbers and a map of the pages (str).");

static PyObject *section_repr_html(PyObject *self, PyObject *ignored) {
    (void)ignored;
    return bsa_html_of(self, "section_html");
}

static PyMethodDef section_methods[] = {
    {"free_blocks", (PyCFunction)section_free_blocks, METH_NOARGS, section_free_blocks_doc},
    {"free_list", (PyCFunction)section_free_list, METH_O, section_free_list_doc},
    {"page_states", (PyCFunction)section_page_states, METH_NOARGS, section_page_states_doc},
    {"_repr_html_", section_repr_html, METH_NOARGS, section_repr_html_doc},
    {"__reduce__", bsa_refuse_pickle, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef section_getset[] = {
    {"index", (getter)section_get_number, NULL, "Place in the order of registration.",
     (void *)SECTION_INDEX},
    {"start", (getter)section_get_number, NULL, "Address of the heap's first byte.",
     (void *)SECTION_START},
    {"size", (getter)section_get_number, NULL, "Bytes of heap.", (void *)SECTION_SIZE},
    {"total_pages", (getter)section_get_number, NULL, "Pages of heap.",
     (void *)SECTION_TOTAL_PAGES},
    {"free_pages", (getter)section_get_number, NULL, "Pages in free blocks.",
     (void *)SECTION_FREE_PAGES},
    {"region_start", (getter)section_get_number, NULL, "Address of the region's first byte.",
     (void *)SECTION_REGION_START},
    {"region_size", (getter)section_get_number, NULL, "Bytes of the region as handed over.",
     (void *)SECTION_REGION_SIZE},
    {"metadata_size", (getter)section_get_number, NULL,
     "Bytes from the metadata's start to the heap.", (void *)SECTION_METADATA_SIZE},
    {"buffer", (getter)section_get_buffer, NULL,
     "The object whose buffer the region is, or None for memory that bsa mapped itself.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef section_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(SectionObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    section_doc,
    "A region under an Allocator's management: header and metadata, then a heap of whole pages.\n\n"
    "From Allocator.add_region() and Allocator.sections; always the same object for the same "
    "section. Once\n"
    "removed, or its allocator closed, all but what shows it raises ClosedError.");

static PyType_Slot section_slots[] = {
    {Py_tp_doc, (void *)section_doc},   {Py_tp_dealloc, section_dealloc},
    {Py_tp_traverse, section_traverse}, {Py_tp_repr, section_repr},
    {Py_tp_methods, section_methods},   {Py_tp_getset, section_getset},
    {Py_tp_members, section_members},   {0, NULL},
};

static PyType_Spec section_spec = {
    .name = "bsa.Section",
    .basicsize = sizeof(SectionObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = section_slots,
};

int bsa_add_section_type(PyObject *module, struct module_state *state) {
    state->section_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &section_spec, NULL);
    return state->section_type == NULL ? -1 : PyModule_AddType(module, state->section_type);
}
