/* The Slab type: a snapshot of one slab. */
#include "allocator.h"

typedef struct {
    PyObject_HEAD
    struct bsa_slab_info info;
} SlabObject;

PyObject *bsa_slab_new(struct module_state *state, const struct bsa_slab_info *info) {
    SlabObject *slab = PyObject_New(SlabObject, state->slab_type);

    if (slab != NULL) {
        slab->info = *info;
    }
    return (PyObject *)slab;
}

static void slab_dealloc(SlabObject *slab) {
    PyTypeObject *type = Py_TYPE(slab);

    PyObject_Free(slab);
    Py_DECREF(type);
}

static const char *state_name(enum bsa_slab_state state) {
    static const char *const names[] = {
        [BSA_SLAB_FULL] = "full",
        [BSA_SLAB_CURRENT] = "current",
        [BSA_SLAB_PARTIAL] = "partial",
        [BSA_SLAB_EMPTY] = "empty",
    };

    return names[state];
}

enum slab_number {
    SLAB_SIZE,
    SLAB_STRIDE,
    SLAB_BASE,
    SLAB_NBYTES,
    SLAB_CAPACITY,
    SLAB_FREE_COUNT,
    SLAB_REMOTE_FREE_COUNT,
    SLAB_CPU,
};

static PyObject *slab_get_number(SlabObject *slab, void *which) {
    const struct bsa_slab_info *info = &slab->info;

    switch ((enum slab_number)(uintptr_t)which) {
    case SLAB_SIZE:
        return PyLong_FromSize_t(info->size);
    case SLAB_STRIDE:
        return PyLong_FromSize_t(info->stride);
    case SLAB_BASE:
        return PyLong_FromUnsignedLongLong(info->base);
    case SLAB_NBYTES:
        return PyLong_FromSize_t(info->bytes);
    case SLAB_CAPACITY:
        return PyLong_FromUnsignedLong(info->capacity);
    case SLAB_FREE_COUNT:
        return PyLong_FromUnsignedLong(info->free_count);
    case SLAB_REMOTE_FREE_COUNT:
        return PyLong_FromUnsignedLong(info->remote_free_count);
    default:
        return PyLong_FromUnsignedLong(info->slot);
    }
}

static PyObject *slab_get_state(SlabObject *slab, void *ignored) {
    (void)ignored;
    return PyUnicode_FromString(state_name(slab->info.state));
}

static bool is_free(const struct bsa_slab_info *info, unsigned index) {
    return (info->free_bits[index / 64] >> index % 64 & 1) != 0;
}

static PyObject *slab_get_bitmap(SlabObject *slab, void *ignored) {
    Py_ssize_t size = (Py_ssize_t)(slab->info.capacity + 7) / 8;
    PyObject *bitmap = PyBytes_FromStringAndSize(NULL, size);

    (void)ignored;
    for (Py_ssize_t i = 0; bitmap != NULL && i < size; i++) {
        PyBytes_AS_STRING(bitmap)[i] = (char)(slab->info.free_bits[i / 8] >> i % 8 * 8);
    }
    return bitmap;
}

PyDoc_STRVAR(slab_objects_doc,
             "objects($self, /)\n--\n\n"
             "Addresses of the objects that were live, ascending (tuple of int).");

static PyObject *slab_objects(SlabObject *slab, PyObject *ignored) {
    PyObject *list = PyList_New(0), *tuple = NULL;
    bool complete = list != NULL;

    (void)ignored;
    for (unsigned i = 0; complete && i < slab->info.capacity; i++) {
        if (!is_free(&slab->info, i)) {
            PyObject *address =
                PyLong_FromUnsignedLongLong(slab->info.base + i * slab->info.stride);

            complete = address != NULL && PyList_Append(list, address) == 0;
            Py_XDECREF(address);
        }
    }
    if (complete) {
        tuple = PyList_AsTuple(list);
    }
    Py_XDECREF(list);
    return tuple;
}

static PyObject *slab_repr(SlabObject *slab) {
    const struct bsa_slab_info *info = &slab->info;

    return PyUnicode_FromFormat("<bsa.Slab of %u objects of %zu bytes at %p, %s, %u free>",
                                info->capacity, info->size, (void *)info->base,
                                state_name(info->state), info->free_count);
}

PyDoc_STRVAR(slab_repr_html_doc, "_repr_html_($self, /)\n--\n\n"
                                 "What Jupyter shows: the numbers and a map of the objects (str).");

static PyObject *slab_repr_html(PyObject *self, PyObject *ignored) {
    (void)ignored;
    return bsa_html_of(self, "slab_html");
}

static PyMethodDef slab_methods[] = {
    {"objects", (PyCFunction)slab_objects, METH_NOARGS, slab_objects_doc},
    {"_repr_html_", slab_repr_html, METH_NOARGS, slab_repr_html_doc},
    {"__reduce__", bsa_refuse_pickle, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef slab_getset[] = {
    {"size", (getter)slab_get_number, NULL, "Bytes of an object.", (void *)SLAB_SIZE},
    {"stride", (getter)slab_get_number, NULL,
     "Bytes from the start of one object to that of the next: its size, but for the 8-byte class.",
     (void *)SLAB_STRIDE},
    {"base", (getter)slab_get_number, NULL, "Address of the first object.", (void *)SLAB_BASE},
    {"nbytes", (getter)slab_get_number, NULL, "Bytes of the slab's pages.", (void *)SLAB_NBYTES},
    {"capacity", (getter)slab_get_number, NULL, "Number of objects.", (void *)SLAB_CAPACITY},
    {"free_count", (getter)slab_get_number, NULL, "Objects free for the owner to hand out.",
     (void *)SLAB_FREE_COUNT},
    {"remote_free_count", (getter)slab_get_number, NULL,
     "Objects freed from other slots, which the owner has not taken back yet.",
     (void *)SLAB_REMOTE_FREE_COUNT},
    {"cpu", (getter)slab_get_number, NULL, "The slot that owns the slab.", (void *)SLAB_CPU},
    {"state", (getter)slab_get_state, NULL,
     "'current' (objects are taken from it), 'partial', 'full' or 'empty' (kept).", NULL},
    {"bitmap", (getter)slab_get_bitmap, NULL,
     "One bit an object, least significant first: 1 = free (bytes).", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(
    slab_doc,
    "A snapshot of one slab: a block of pages cut into equal objects.\n\n"
    "From Allocator.slabs() and Allocator.slab_of(); it does not change when the slab does.");

static PyType_Slot slab_slots[] = {
    {Py_tp_doc, (void *)slab_doc}, {Py_tp_dealloc, slab_dealloc}, {Py_tp_repr, slab_repr},
    {Py_tp_methods, slab_methods}, {Py_tp_getset, slab_getset},   {0, NULL},
};

static PyType_Spec slab_spec = {
    .name = "bsa.Slab",
    .basicsize = sizeof(SlabObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slab_slots,
};

int bsa_add_slab_type(PyObject *module, struct module_state *state) {
    state->slab_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &slab_spec, NULL);
    return state->slab_type == NULL ? -1 : PyModule_AddType(module, state->slab_type);
}
