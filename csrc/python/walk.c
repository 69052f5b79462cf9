/* The iterator that Allocator.walk() returns: a snapshot, so that what is done while it is gone
 * through does not matter. */
#include "allocator.h"
#include "block.h"
#include "lock.h"

enum walk_kind { WALK_OBJECT, WALK_PAGES, WALK_BLOCK, WALK_PARKED };

struct walk_item {
    uintptr_t address;
    size_t usable_size;
    enum walk_kind kind;
};

typedef struct {
    PyObject_HEAD
    struct walk_item *items;
    size_t count, room, next;
    const AllocatorObject *allocator; /* while the snapshot is taken */
} WalkObject;

static bool make_room(WalkObject *walk) {
    size_t room = walk->room == 0 ? 64 : 2 * walk->room;
    struct walk_item *items = PyMem_Realloc(walk->items, room * sizeof *items);

    if (items == NULL) {
        return false;
    }
    walk->items = items;
    walk->room = room;
    return true;
}

static enum walk_kind kind_of(const WalkObject *walk, const struct bsa_allocation *allocation) {
    const struct extent *extent = bsa_extent_at(&walk->allocator->extents, allocation->address);

    if (extent != NULL) {
        return extent->is_parked ? WALK_PARKED : WALK_BLOCK;
    }
    return allocation->kind == BSA_KIND_OBJECT ? WALK_OBJECT : WALK_PAGES;
}

static bool take_item(void *context, const struct bsa_allocation *allocation) {
    WalkObject *walk = context;

    if (walk->count == walk->room && !make_room(walk)) {
        PyErr_NoMemory();
        return false;
    }
    walk->items[walk->count++] =
        (struct walk_item){allocation->address, allocation->usable_size, kind_of(walk, allocation)};
    return true;
}

PyObject *bsa_walk_new(AllocatorObject *self) {
    WalkObject *walk;

    if (!bsa_extents_ready(&self->extents)) {
        return NULL;
    }
    walk = PyObject_New(WalkObject, self->state->walk_type);
    if (walk == NULL) {
        return NULL;
    }
    walk->items = NULL;
    walk->count = walk->room = walk->next = 0;
    walk->allocator = self;
    bsa_walk(self->root, take_item, walk);
    walk->allocator = NULL;
    if (PyErr_Occurred()) {
        Py_CLEAR(walk);
    }
    return (PyObject *)walk;
}

static void walk_dealloc(WalkObject *walk) {
    PyTypeObject *type = Py_TYPE(walk);

    PyMem_Free(walk->items);
    PyObject_Free(walk);
    Py_DECREF(type);
}

static PyObject *walk_next(WalkObject *walk) {
    static const char *const names[] = {
        [WALK_OBJECT] = "object",
        [WALK_PAGES] = "pages",
        [WALK_BLOCK] = "block",
        [WALK_PARKED] = "parked",
    };
    const struct walk_item *item;

    BSA_LOCK(walk);
    if (walk->next == walk->count) {
        return NULL;
    }
    item = &walk->items[walk->next++];
    return Py_BuildValue("Kns", (unsigned long long)item->address, (Py_ssize_t)item->usable_size,
                         names[item->kind]);
}

static PyObject *walk_length_hint(WalkObject *walk, PyObject *ignored) {
    BSA_LOCK(walk);
    (void)ignored;
    return PyLong_FromSize_t(walk->count - walk->next);
}

static PyMethodDef walk_methods[] = {
    {"__length_hint__", (PyCFunction)walk_length_hint, METH_NOARGS, NULL},
    {"__reduce__", bsa_refuse_pickle, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot walk_slots[] = {
    {Py_tp_dealloc, walk_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, walk_next},
    {Py_tp_methods, walk_methods},
    {0, NULL},
};

static PyType_Spec walk_spec = {
    .name = "bsa._core.Walk",
    .basicsize = sizeof(WalkObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = walk_slots,
};

int bsa_add_walk_type(PyObject *module, struct module_state *state) {
    state->walk_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &walk_spec, NULL);
    return state->walk_type == NULL ? -1 : 0;
}
