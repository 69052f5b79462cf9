/* The Block type. The rules:
 *
 * - While a view is alive, nothing that would take its bytes away succeeds.
 * - Consumers may drop the view at once and keep only a reference to the Block, with a pointer into
 * it. So once a Block has been exported, its bytes go back only when the Block object itself goes:
 * free() parks them, a resize() that moves parks the old ones, and the region under them stays
 * mapped.
 * - A Block that never was exported gives its bytes back at once.
 * - The destructor never fails and never waits: where the allocator is busy it queues the dead
 * Block, and where a nested heap lies in it, the memory stays until that goes.
 *
 * Here are its making and its end, and the table; the rest is in block_*.c. */
#include "block.h"

#include "block_methods.h"
#include "lock.h"

/* Without the GIL the list would need a lock of its own. */
#ifdef Py_GIL_DISABLED
enum { SPARE_BLOCKS = 0 };
#else
enum { SPARE_BLOCKS = 64 };
#endif

/* --- the collector -----------------------------------------------------------------------------
 */

static inline void track(BlockObject *block) {
    if (!block->is_tracked) {
        block->is_tracked = true;
        PyObject_GC_Track(block);
    }
}

static inline void untrack(BlockObject *block) {
    if (block->is_tracked) {
        block->is_tracked = false;
        PyObject_GC_UnTrack(block);
    }
}

/* Of those that are dead already the memory waits in a queue, or for the end of a nested heap. */
static void track_if_alive(void *ignored, const struct extent *extent) {
    (void)ignored;
    if (Py_REFCNT(extent->block) > 0) {
        track(extent->block);
    }
}

void bsa_track_blocks(AllocatorObject *self) {
    if (!self->tracks_blocks) {
        self->tracks_blocks = true;
        bsa_extents_each(&self->extents, track_if_alive, NULL);
    }
}

/* --- giving memory back ------------------------------------------------------------------------
 */

/* Counts a parked extent off. */
static Py_NO_INLINE void unpark(AllocatorObject *self, struct extent *extent) {
    self->parked_bytes -= bsa_usable_at(self, extent->address);
    self->parked_count--;
}

/* Forgets the extent and frees its memory. The allocator is usable. */
static inline void extent_give_back(AllocatorObject *self, struct extent *extent) {
    if (extent->is_parked) {
        unpark(self, extent);
    }
    bsa_extent_remove(&self->extents, extent);
    bsa_free_on(self->root, bsa_slot_for_free(self), extent->address);
}

/* Frees everything that the Block still holds in an open allocator. */
static void block_give_back(BlockObject *block) {
    AllocatorObject *self = block->allocator;

    if (block->state == BLOCK_LIVE || block->extent.is_parked) {
        extent_give_back(self, &block->extent);
    }
    for (struct extent *older = block->older; older != NULL; older = older->older) {
        extent_give_back(self, older);
    }
}

static bool holds_memory(const BlockObject *block) {
    return block->state == BLOCK_LIVE || block->extent.is_parked || block->older != NULL;
}

static void release_older(struct extent *older) {
    while (older != NULL) {
        struct extent *next = older->older;

        Py_DECREF(older->region);
        PyMem_RawFree(older);
        older = next;
    }
}

/* Frees an object without any contents. */
static void block_del(BlockObject *block) {
    PyTypeObject *type = Py_TYPE(block);

    PyObject_GC_Del(block);
    Py_DECREF(type);
}

/* Keeps the object of a dead Block for the next one, or frees it. */
static inline void block_bury(BlockObject *block) {
    struct module_state *state = block->allocator->state;

    if (state->spare_count < SPARE_BLOCKS) {
        block->next = state->spare_blocks;
        state->spare_blocks = block;
        state->spare_count++;
    } else {
        block_del(block);
    }
}

/* The last of a dead Block without memory. Keeps a pending exception. */
static inline void block_end(BlockObject *block) {
    AllocatorObject *allocator = block->allocator;
    struct region *region = block->extent.region;
    struct extent *older = block->older;

    block_bury(block);
    /* These may run any code, which may make a Block of this very object: they come last. */
    Py_XDECREF(region);
    release_older(older);
    Py_DECREF(allocator);
}

/* Frees the dead Block's memory. False: not yet, for a nested heap lies in it, or it is queued
 * until long work has ended. */
static bool let_go_of_memory(BlockObject *block) {
    AllocatorObject *self = block->allocator;

    BSA_LOCK(self);
    if (block->pins > 0) {
        block->state = BLOCK_ORPHANED;
        return false;
    }
    if (holds_memory(block) && self->root != NULL) {
        if (self->fork_generation != bsa_fork_count) {
            bsa_settle_fork(self);
        }
        if (self->is_busy) {
            block->next = self->queue;
            self->queue = block;
            return false;
        }
        if (!self->is_inert) {
            block_give_back(block);
        }
    }
    return true;
}

/* Any dead Block. */
static Py_NO_INLINE void dealloc_general(BlockObject *block) {
    if (let_go_of_memory(block)) {
        block_end(block); /* and perhaps the allocator: not under its lock */
    }
}

/* Frees the memory of a Block that has one piece of it, for itself. False: it is none, or the
 * allocator is not ready. */
static inline bool free_plain(BlockObject *block) {
    AllocatorObject *self = block->allocator;

    BSA_LOCK(self);
    if (block->state != BLOCK_LIVE || block->pins > 0 || block->older != NULL ||
        !bsa_is_ready(self)) {
        return false;
    }
    extent_give_back(self, &block->extent);
    return true;
}

void bsa_block_dealloc(BlockObject *block) {
    untrack(block);
    if (free_plain(block)) {
        block_end(block);
    } else {
        dealloc_general(block);
    }
}

void bsa_flush_queue(AllocatorObject *self) {
    while (self->queue != NULL) {
        BlockObject *block = self->queue;

        self->queue = block->next;
        block_give_back(block);
        block_end(block);
    }
}

int bsa_visit_spare_blocks(struct module_state *state, visitproc visit, void *context) {
    for (BlockObject *block = state->spare_blocks; block != NULL; block = block->next) {
        int result = visit((PyObject *)Py_TYPE(block), context);

        if (result != 0) {
            return result;
        }
    }
    return 0;
}

void bsa_free_spare_blocks(struct module_state *state) {
    while (state->spare_blocks != NULL) {
        BlockObject *block = state->spare_blocks;

        state->spare_blocks = block->next;
        block_del(block);
    }
    state->spare_count = 0;
}

/* --- making ------------------------------------------------------------------------------------
 */

static inline BlockObject *block_object(struct module_state *state) {
    BlockObject *block = state->spare_blocks;

    if (block == NULL) {
        return PyObject_GC_New(BlockObject, state->block_type);
    }
    state->spare_blocks = block->next;
    state->spare_count--;
    _Py_NewReference((PyObject *)block); /* it has kept its type, and the reference to that */
    return block;
}

/* All but what the Block owns. */
static inline BlockObject *block_without_extent(AllocatorObject *self) {
    BlockObject *block = block_object(self->state);

    if (block != NULL) {
        block->allocator = (AllocatorObject *)Py_NewRef(self);
        block->older = NULL;
        block->exports = block->pins = 0;
        block->is_tracked = false;
    }
    return block;
}

static inline PyObject *make_owner(BlockObject *block, uintptr_t address, size_t size) {
    bsa_extent_init(block, address, size);
    block->state = BLOCK_LIVE;
    bsa_extent_add(&block->allocator->extents, &block->extent);
    if (block->allocator->tracks_blocks) {
        track(block);
    }
    return (PyObject *)block;
}

PyObject *bsa_block_new(AllocatorObject *self, uintptr_t address, size_t size) {
    BlockObject *block = block_without_extent(self);

    return block == NULL ? NULL : make_owner(block, address, size);
}

BlockObject *bsa_block_reserve(AllocatorObject *self) {
    BlockObject *block = block_without_extent(self);

    if (block != NULL) {
        bsa_extent_init(block, 0, 0);
        block->state = BLOCK_DETACHED;
    }
    return block;
}

PyObject *bsa_block_fill(BlockObject *block, uintptr_t address, size_t size) {
    return make_owner(block, address, size);
}

/* --- what may be done now ----------------------------------------------------------------------
 */

bool bsa_raise_not_live(const BlockObject *block) {
    if (block->state == BLOCK_RESIZING) {
        PyErr_SetString(block->allocator->state->in_use, "the Block is being resized");
    } else {
        PyErr_Format(block->allocator->state->not_allocated, "the Block has been %s",
                     block->state == BLOCK_FREED ? "freed" : "detached");
    }
    return false;
}

bool bsa_block_check_no_views(const BlockObject *block, const char *what) {
    /* A nested heap's pin is not a view of its own, beside the one that its region is; but it
     * keeps. */
    Py_ssize_t views = block->exports > block->pins ? block->exports - block->pins : block->exports;

    if (views == 0) {
        return true;
    }
    PyErr_Format(block->allocator->state->in_use, "cannot %s the Block: %zd view%s alive", what,
                 views, views == 1 ? " is" : "s are");
    return false;
}

/* --- free, detach ------------------------------------------------------------------------------
 */

void bsa_extent_park(AllocatorObject *self, struct extent *extent) {
    extent->is_parked = true;
    self->parked_bytes += bsa_usable_at(self, extent->address);
    self->parked_count++;
}

bool bsa_block_free(BlockObject *block) {
    AllocatorObject *self = block->allocator;

    if (!bsa_block_check_live(block) || !bsa_block_check_no_views(block, "free")) {
        return false;
    }
    if (block->extent.region != NULL) {
        bsa_extent_park(self, &block->extent);
    } else {
        extent_give_back(self, &block->extent);
    }
    block->state = BLOCK_FREED;
    track(block); /* bsa_track_blocks would not find it any more */
    return true;
}

PyDoc_STRVAR(block_free_doc, "free($self, /)\n--\n\n"
                             "Give the memory back. A Block that was ever exported keeps its bytes "
                             "from being used again until the\n"
                             "Block object itself is gone.\n\n"
                             "Raises InUseError while views are alive, NotAllocatedError if it was "
                             "freed or detached before.");

static PyObject *block_free(BlockObject *block, PyObject *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    return bsa_block_free(block) ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(block_detach_doc, "detach($self, /)\n--\n\n"
                               "Give up ownership and return the address, which is then yours to "
                               "free(). Allocator.block() is the way\n"
                               "back.\n\n"
                               "Raises InUseError if the Block was ever exported, "
                               "NotAllocatedError if it was freed or detached.");

static PyObject *block_detach(BlockObject *block, PyObject *ignored) {
    AllocatorObject *self = block->allocator;
    PyObject *address;

    BSA_LOCK(block->allocator);
    (void)ignored;
    if (!bsa_block_check_live(block) || !bsa_block_check_no_views(block, "detach")) {
        return NULL;
    }
    if (block->extent.region != NULL || block->older != NULL) {
        return PyErr_Format(self->state->in_use,
                            "cannot detach the Block: it was exported, and a consumer may still "
                            "hold its address");
    }
    address = PyLong_FromUnsignedLongLong(block->extent.address);
    if (address != NULL) {
        bsa_extent_remove(&self->extents, &block->extent);
        block->state = BLOCK_DETACHED;
        track(block); /* as in bsa_block_free */
    }
    return address;
}

/* --- with --------------------------------------------------------------------------------------
 */

static PyObject *block_enter(BlockObject *block, PyObject *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    return bsa_block_check_live(block) ? Py_NewRef(block) : NULL;
}

static PyObject *block_exit(BlockObject *block, PyObject *const *args, Py_ssize_t nargs) {
    bool in_flight = nargs > 0 && args[0] != Py_None;

    BSA_LOCK(block->allocator);
    if (!bsa_block_is_freed(block) && !bsa_block_free(block)) {
        if (!in_flight) {
            return NULL;
        }
        PyErr_Clear(); /* the exception in flight matters more */
    }
    Py_RETURN_FALSE;
}

/* --- the type ----------------------------------------------------------------------------------
 */

static int block_traverse(BlockObject *block, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(block));
    Py_VISIT(block->allocator);
    Py_VISIT(block->extent.region);
    for (const struct extent *older = block->older; older != NULL; older = older->older) {
        Py_VISIT(older->region);
    }
    return 0;
}

int bsa_block_visit_orphan(BlockObject *block, visitproc visit, void *arg) {
    return block->state == BLOCK_ORPHANED && block->pins == 1 ? block_traverse(block, visit, arg)
                                                              : 0;
}

static PyMethodDef block_methods[] = {
    {"free", (PyCFunction)block_free, METH_NOARGS, block_free_doc},
    {"resize", (PyCFunction)bsa_block_resize, METH_O, bsa_block_resize_doc},
    {"detach", (PyCFunction)block_detach, METH_NOARGS, block_detach_doc},
    {"__enter__", (PyCFunction)block_enter, METH_NOARGS, NULL},
    {"__exit__", BSA_METHOD(block_exit), METH_FASTCALL, NULL},
    {"__reduce__", bsa_refuse_pickle, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef block_getset[] = {
    {"address", (getter)bsa_block_get_address, NULL, "Address of the first byte.", NULL},
    {"offset", (getter)bsa_block_get_offset, NULL,
     "Bytes from the first byte of Section.buffer to the first byte of this Block.", NULL},
    {"size", (getter)bsa_block_get_size, NULL, "Bytes asked for.", NULL},
    {"usable_size", (getter)bsa_block_get_usable_size, NULL, "Bytes granted, at least size.", NULL},
    {"section", (getter)bsa_block_get_section, NULL, "The Section that holds it.", NULL},
    {"allocator", (getter)bsa_block_get_allocator, NULL, "The Allocator that made it.", NULL},
    {"freed", (getter)bsa_block_get_freed, NULL,
     "Whether it was freed or detached, or its allocator closed.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(block_doc, "A piece of an Allocator's memory that cannot dangle; made by alloc(), "
                        "alloc_pages(), block().\n\n"
                        "It is a writable buffer: memoryview(b), numpy.frombuffer(b); b[i] is an "
                        "int, b[i:j] bytes, both can be\n"
                        "assigned to. Dropping the last reference frees it, as do free() and "
                        "leaving its with statement. While a\n"
                        "view is alive it can be neither freed nor resized (InUseError).");

static PyType_Slot block_slots[] = {
    {Py_tp_doc, (void *)block_doc},
    {Py_tp_dealloc, bsa_block_dealloc},
    {Py_tp_traverse, block_traverse},
    {Py_tp_repr, bsa_block_repr},
    {Py_tp_methods, block_methods},
    {Py_tp_getset, block_getset},
    {Py_mp_length, bsa_block_length},
    {Py_mp_subscript, bsa_block_subscript},
    {Py_mp_ass_subscript, bsa_block_ass_subscript},
    {Py_bf_getbuffer, bsa_block_getbuffer},
    {Py_bf_releasebuffer, bsa_block_releasebuffer},
    {0, NULL},
};

static PyType_Spec block_spec = {
    .name = "bsa.Block",
    .basicsize = sizeof(BlockObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = block_slots,
};

int bsa_add_block_type(PyObject *module, struct module_state *state) {
    state->block_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &block_spec, NULL);
    return state->block_type == NULL ? -1 : PyModule_AddType(module, state->block_type);
}
