/* The Allocator type: making, closing, its table. Its methods are in files of their own
 * (allocator_methods.h). */
#include "allocator.h"

#include "allocator_methods.h"
#include "allocator_options.h"
#include "errors.h"
#include "lock.h"
#include "managed_regions.h"
#include "poison.h"

#include <structmember.h>

enum { ROOT_ALIGNMENT = 64 };

/* --- closing -----------------------------------------------------------------------------------
 */

/* Lets go of everything. The allocator is closed before any code of others can run. */
static void tear_down(AllocatorObject *self) {
    struct section_record **records = self->records;
    Py_ssize_t count = self->record_count;

    self->root = NULL;
    bsa_update_readiness(self);
    self->records = NULL;
    self->record_count = 0;
    bsa_extents_clear(&self->extents);
    PyMem_RawFree(self->root_memory);
    self->root_memory = NULL;
    self->parked_bytes = self->parked_count = 0;
    Py_CLEAR(self->on_oom);
    while (count-- > 0) {
        bsa_unpoison_region(records[count]->region->start, records[count]->region->size);
        bsa_record_free(records[count]);
    }
    PyMem_RawFree(records);
}

static bool close_allocator(AllocatorObject *self) {
    if (self->root == NULL) {
        return true;
    }
    if (self->fork_generation != bsa_fork_count) {
        bsa_settle_fork(self);
    }
    if (self->is_busy) {
        PyErr_SetString(self->state->in_use, "cannot close: another thread is at work in it");
        return false;
    }
    if (!bsa_check_not_pinned(self, "close")) {
        return false;
    }
    if (self->exports > 0) {
        PyErr_Format(self->state->in_use, "cannot close: %zd view%s alive", self->exports,
                     self->exports == 1 ? " of a Block is" : "s of Blocks are");
        return false;
    }
    tear_down(self);
    return true;
}

PyDoc_STRVAR(allocator_close_doc,
             "close($self, /)\n--\n\n"
             "Give the memory back; further use raises ClosedError. May be called again.\n\n"
             "Blocks become freed, raw allocations are forgotten. Raises InUseError, and changes "
             "nothing, while\n"
             "views of Blocks are alive or another thread is at work. Memory of Blocks that were "
             "exported stays\n"
             "mapped until those Blocks are gone.");

static PyObject *allocator_close(AllocatorObject *self, PyObject *ignored) {
    BSA_LOCK(self);
    (void)ignored;
    if (!close_allocator(self)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *allocator_enter(AllocatorObject *self, PyObject *ignored) {
    BSA_LOCK(self);
    (void)ignored;
    return bsa_check_open(self) ? Py_NewRef(self) : NULL;
}

static PyObject *allocator_exit(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs) {
    bool in_flight = nargs > 0 && args[0] != Py_None;

    BSA_LOCK(self);
    if (!close_allocator(self)) {
        if (!in_flight) {
            return NULL;
        }
        PyErr_Clear(); /* the exception in flight matters more */
    }
    Py_RETURN_FALSE;
}

/* --- making ------------------------------------------------------------------------------------
 */

static bool make_root(AllocatorObject *self, size_t page_size, unsigned slots) {
    struct bsa_config config = {.page_size = page_size, .slots = slots, .serial = true};
    size_t size = bsa_root_size(slots);
    uintptr_t aligned;

    self->root_memory = PyMem_RawCalloc(1, size + ROOT_ALIGNMENT);
    self->long_work = PyThread_allocate_lock();
    self->turnstile = PyThread_allocate_lock();
    if (self->root_memory == NULL || self->long_work == NULL || self->turnstile == NULL) {
        PyErr_NoMemory();
        return false;
    }
    aligned =
        ((uintptr_t)self->root_memory + ROOT_ALIGNMENT - 1) & ~(uintptr_t)(ROOT_ALIGNMENT - 1);
    if (bsa_init((void *)aligned, size, &config, &self->root) != BSA_OK) {
        PyErr_Format(self->state->invalid_param,
                     "page_size must be a power of two from 256 to 2097152, is %zu", page_size);
        return false;
    }
    self->slots = slots;
    bsa_update_readiness(self);
    return true;
}

/* Locked, though nobody knows the allocator yet: its claim makes it known. */
static bool add_first_region(AllocatorObject *self, PyObject *buffer, PyObject *phys) {
    BSA_LOCK(self);
    return bsa_manage_region(self, buffer, phys, NULL);
}

/* Without the GIL a Block may be dying in another thread when it is to be tracked. */
#ifdef Py_GIL_DISABLED
enum { TRACKS_ALL_BLOCKS = true };
#else
enum { TRACKS_ALL_BLOCKS = false };
#endif

/* Whether Blocks may be in cycles through the allocator from the first on (block.h). */
static bool may_lead_back(const AllocatorObject *self, const struct allocator_options *options) {
    return TRACKS_ALL_BLOCKS || !Py_IS_TYPE(self, self->state->allocator_type) ||
           options->on_oom != NULL || PyInterpreterState_Get() != PyInterpreterState_Main();
}

static PyObject *allocator_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"buffer", "page_size", "cpus", "phys", "limit", "on_oom", NULL};
    PyObject *buffer = NULL, *values[5] = {NULL}, *module;
    struct module_state *state;
    struct allocator_options options;
    AllocatorObject *self;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O$OOOOO:Allocator", names, &buffer, &values[0],
                                     &values[1], &values[2], &values[3], &values[4])) {
        return NULL;
    }
    module = PyType_GetModuleByDef(type, bsa_module_def());
    if (module == NULL) {
        return NULL;
    }
    state = bsa_module_state(module);
    if (!bsa_convert_options(state, values, &options)) {
        return NULL;
    }
    self = (AllocatorObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->module = Py_NewRef(module);
    self->state = state;
    self->fork_generation = bsa_fork_count;
    bsa_update_readiness(self); /* not before it has a root */
    self->limit = options.limit;
    self->tracks_blocks = may_lead_back(self, &options);
    bsa_extents_init(&self->extents);
    if (!make_root(self, options.page_size, (unsigned)options.cpus)) {
        Py_DECREF(self);
        return NULL;
    }
    bsa_set_limit(self->root, self->limit);
    self->on_oom = Py_XNewRef(options.on_oom);
    if (buffer != NULL && buffer != Py_None && !add_first_region(self, buffer, options.phys)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int allocator_traverse(AllocatorObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    Py_VISIT(self->on_oom);
    for (Py_ssize_t i = 0; i < self->record_count; i++) {
        Py_VISIT(self->records[i]->phys);
        Py_VISIT(self->records[i]->region);
    }
    return 0;
}

/* Breaks cycles through callbacks. Buffers stay: Blocks may outlive this, and use them. */
static int allocator_clear(AllocatorObject *self) {
    BSA_LOCK(self);
    Py_CLEAR(self->on_oom);
    for (Py_ssize_t i = 0; i < self->record_count; i++) {
        Py_CLEAR(self->records[i]->phys);
    }
    return 0;
}

static void allocator_dealloc(AllocatorObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject *module = self->module;

    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    tear_down(self);
    if (self->long_work != NULL) {
        PyThread_free_lock(self->long_work);
    }
    if (self->turnstile != NULL) {
        PyThread_free_lock(self->turnstile);
    }
    type->tp_free(self);
    Py_DECREF(type);
    Py_XDECREF(module);
}

static PyObject *allocator_get_closed(AllocatorObject *self, void *ignored) {
    BSA_LOCK(self);
    (void)ignored;
    return PyBool_FromLong(self->root == NULL);
}

/* --- the type ----------------------------------------------------------------------------------
 */

static int allocator_bool(PyObject *self) {
    (void)self;
    return 1;
}

static PyMemberDef allocator_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(AllocatorObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    allocator_doc,
    "Allocator(buffer=None, *, page_size=4096, cpus=None, phys=None, limit=None, "
    "on_oom=None)\n--\n\n"
    "A heap over memory of yours: pages from a buddy allocator, small objects from slabs.\n\n"
    ">>> import bsa\n"
    ">>> heap = bsa.Allocator(bytearray(1 << 20))\n"
    ">>> with heap.alloc(100) as block:      # a Block: safe, freed when it goes away\n"
    "...     block[:5] = b'hello'\n"
    "...     block[:5]\n"
    "b'hello'\n"
    ">>> address = heap.malloc(64)           # a raw address: fast, yours to free\n"
    ">>> heap.free(address)\n\n"
    "buffer: a size in bytes (that much fresh private memory is mapped), or any writable "
    "C-contiguous\n"
    "buffer (bytearray, mmap, memoryview, array, ndarray, SharedMemory.buf ...), which stays "
    "exported until\n"
    "its section is removed or the allocator closed; or None, and add_region() later.\n"
    "page_size: bytes, a power of two from 256 to 2 MiB. cpus: slots of per-CPU caches, one per "
    "processor by\n"
    "default; threads get them by themselves. phys: see add_region(). limit: bytes of pages that "
    "may be in\n"
    "use, or None. on_oom: called as on_oom(allocator, nbytes) before a request fails; true means "
    "\"try again\".\n\n"
    "Blocks (alloc, alloc_pages, ...) cannot dangle. Raw addresses (malloc) are checked when they "
    "are freed:\n"
    "a double free, an interior or a foreign address raises and changes nothing. What stays unsafe "
    "is writing\n"
    "through raw addresses, and writing the managed buffer's bytes directly.");

static PyMethodDef allocator_methods[] = {
    {"add_region", BSA_METHOD(bsa_allocator_add_region), METH_FASTCALL | METH_KEYWORDS,
     bsa_allocator_add_region_doc},
    {"remove_region", (PyCFunction)bsa_allocator_remove_region, METH_O,
     bsa_allocator_remove_region_doc},
    {"close", (PyCFunction)allocator_close, METH_NOARGS, allocator_close_doc},
    {"__enter__", (PyCFunction)allocator_enter, METH_NOARGS, NULL},
    {"__exit__", BSA_METHOD(allocator_exit), METH_FASTCALL, NULL},
    {"__reduce__", bsa_refuse_pickle, METH_NOARGS, NULL},
    /* allocation.c */
    {"alloc", BSA_METHOD(bsa_allocator_alloc), METH_FASTCALL | METH_KEYWORDS,
     bsa_allocator_alloc_doc},
    {"alloc_from", (PyCFunction)bsa_allocator_alloc_from, METH_O, bsa_allocator_alloc_from_doc},
    {"alloc_pages", BSA_METHOD(bsa_allocator_alloc_pages), METH_FASTCALL | METH_KEYWORDS,
     bsa_allocator_alloc_pages_doc},
    {"alloc_pages_lowmem", BSA_METHOD(bsa_allocator_alloc_pages_lowmem),
     METH_FASTCALL | METH_KEYWORDS, bsa_allocator_alloc_pages_lowmem_doc},
    {"malloc", BSA_METHOD(bsa_allocator_malloc), METH_FASTCALL | METH_KEYWORDS,
     bsa_allocator_malloc_doc},
    {"realloc", BSA_METHOD(bsa_allocator_realloc), METH_FASTCALL, bsa_allocator_realloc_doc},
    {"free", (PyCFunction)bsa_allocator_free, METH_O, bsa_allocator_free_doc},
    {"malloc_many", BSA_METHOD(bsa_allocator_malloc_many), METH_FASTCALL | METH_KEYWORDS,
     bsa_allocator_malloc_many_doc},
    {"free_many", (PyCFunction)bsa_allocator_free_many, METH_O, bsa_allocator_free_many_doc},
    {"dealloc_pages", BSA_METHOD(bsa_allocator_dealloc_pages), METH_FASTCALL,
     bsa_allocator_dealloc_pages_doc},
    {"block", (PyCFunction)bsa_allocator_block, METH_O, bsa_allocator_block_doc},
    {"trim", (PyCFunction)bsa_allocator_trim, METH_NOARGS, bsa_allocator_trim_doc},
    /* inspection.c */
    {"usable_size", (PyCFunction)bsa_allocator_usable_size, METH_O, bsa_allocator_usable_size_doc},
    {"section_of", (PyCFunction)bsa_allocator_section_of, METH_O, bsa_allocator_section_of_doc},
    {"slab_of", (PyCFunction)bsa_allocator_slab_of, METH_O, bsa_allocator_slab_of_doc},
    {"page_state", (PyCFunction)bsa_allocator_page_state, METH_O, bsa_allocator_page_state_doc},
    {"free_blocks", (PyCFunction)bsa_allocator_free_blocks, METH_NOARGS,
     bsa_allocator_free_blocks_doc},
    {"unusable_index", (PyCFunction)bsa_allocator_unusable_index, METH_O,
     bsa_allocator_unusable_index_doc},
    {"extfrag_index", (PyCFunction)bsa_allocator_extfrag_index, METH_O,
     bsa_allocator_extfrag_index_doc},
    {"stats", (PyCFunction)bsa_allocator_stats, METH_NOARGS, bsa_allocator_stats_doc},
    {"reset_peak", (PyCFunction)bsa_allocator_reset_peak, METH_NOARGS,
     bsa_allocator_reset_peak_doc},
    {"slabs", BSA_METHOD(bsa_allocator_slabs), METH_FASTCALL | METH_KEYWORDS,
     bsa_allocator_slabs_doc},
    {"walk", (PyCFunction)bsa_allocator_walk, METH_NOARGS, bsa_allocator_walk_doc},
    {"check", (PyCFunction)bsa_allocator_check, METH_NOARGS, bsa_allocator_check_doc},
    {"_repr_html_", (PyCFunction)bsa_allocator_repr_html, METH_NOARGS, bsa_allocator_repr_html_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef allocator_getset[] = {
    {"limit", (getter)bsa_allocator_get_limit, (setter)bsa_allocator_set_limit,
     "Bytes that allocated_bytes may reach, or None.", NULL},
    {"on_oom", (getter)bsa_allocator_get_on_oom, (setter)bsa_allocator_set_on_oom,
     "Called as on_oom(allocator, nbytes) when a request fails; true: try again. Or None.", NULL},
    {"closed", (getter)allocator_get_closed, NULL, "Whether close() has been called.", NULL},
    {"sections", (getter)bsa_allocator_get_sections, NULL,
     "The Sections, in order of registration (tuple).", NULL},
    {"page_size", (getter)bsa_allocator_get_number, NULL, "Bytes of a page.",
     (void *)BSA_PAGE_SIZE},
    {"cpus", (getter)bsa_allocator_get_number, NULL, "Number of slots of per-CPU caches.",
     (void *)BSA_CPUS},
    {"total_pages", (getter)bsa_allocator_get_number, NULL, "Pages of all heaps.",
     (void *)BSA_TOTAL_PAGES},
    {"free_pages", (getter)bsa_allocator_get_number, NULL, "Pages in free blocks.",
     (void *)BSA_FREE_PAGES},
    {"managed_bytes", (getter)bsa_allocator_get_number, NULL,
     "Bytes of all heaps, without metadata.", (void *)BSA_MANAGED_BYTES},
    {"allocated_bytes", (getter)bsa_allocator_get_number, NULL,
     "Bytes of pages that are not free: includes rounding, slabs and cached empty slabs.",
     (void *)BSA_ALLOCATED_BYTES},
    {"requested_bytes", (getter)bsa_allocator_get_number, NULL,
     "Live bytes as asked for: exact for Blocks and pages, a raw small object counts as granted.",
     (void *)BSA_REQUESTED_BYTES},
    {"metadata_bytes", (getter)bsa_allocator_get_number, NULL,
     "Bytes of the regions that hold metadata.", (void *)BSA_METADATA_BYTES},
    {"largest_free", (getter)bsa_allocator_get_number, NULL, "Bytes of the largest free block.",
     (void *)BSA_LARGEST_FREE},
    {"size_classes", (getter)bsa_allocator_get_size_classes, NULL,
     "Bytes of the objects that slabs serve, ascending (tuple).", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot allocator_slots[] = {
    {Py_tp_doc, (void *)allocator_doc},
    {Py_tp_new, allocator_new},
    {Py_tp_dealloc, allocator_dealloc},
    {Py_tp_traverse, allocator_traverse},
    {Py_tp_clear, allocator_clear},
    {Py_tp_repr, bsa_allocator_repr},
    {Py_tp_methods, allocator_methods},
    {Py_tp_getset, allocator_getset},
    {Py_tp_members, allocator_members},
    {Py_mp_length, bsa_allocator_length},
    {Py_sq_contains, bsa_allocator_contains},
    {Py_nb_bool, allocator_bool},
    {0, NULL},
};

static PyType_Spec allocator_spec = {
    .name = "bsa.Allocator",
    .basicsize = sizeof(AllocatorObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = allocator_slots,
};

int bsa_add_allocator_type(PyObject *module, struct module_state *state) {
    state->allocator_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &allocator_spec, NULL);
    return state->allocator_type == NULL ? -1 : PyModule_AddType(module, state->allocator_type);
}
