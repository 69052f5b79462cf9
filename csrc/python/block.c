/* The Block type. The rules:
 *
 * - While a view is alive, nothing that would take its bytes away succeeds.
 * - Consumers may drop the view at once and keep only a reference to the Block, with a pointer into
 * it. So once a Block has been exported, its bytes go back only when the Block object itself goes:
 * free() parks them, a resize() that moves parks the old ones, and the region under them stays
 * mapped.
 * - A Block that never was exported gives its bytes back at once.
 * - The destructor never fails and never waits: where the allocator is busy it queues the dead
 * Block. */
#include "block.h"

#include "arguments.h"
#include "errors.h"
#include "lock.h"
#include "section.h"

/* Without the GIL the list would need a lock of its own. */
#ifdef Py_GIL_DISABLED
enum { SPARE_BLOCKS = 0 };
#else
enum { SPARE_BLOCKS = 64 };
#endif

/* --- giving memory back ------------------------------------------------------------------------
 */

static size_t usable_at(const AllocatorObject *self, uintptr_t address) {
    struct bsa_allocation found = {0};

    bsa_lookup(self->root, address, &found);
    return found.usable_size;
}

/* Counts a parked extent off. */
static Py_NO_INLINE void unpark(AllocatorObject *self, struct extent *extent) {
    self->parked_bytes -= usable_at(self, extent->address);
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

/* The last of a dead Block: its object. Keeps a pending exception. */
static inline void block_bury(BlockObject *block) {
    AllocatorObject *allocator = block->allocator;
    struct module_state *state = allocator->state;
    struct region *region = block->extent.region;
    struct extent *older = block->older;

    if (state->spare_count < SPARE_BLOCKS) {
        block->next = state->spare_blocks;
        state->spare_blocks = block;
        state->spare_count++;
    } else {
        block_del(block);
    }
    /* These may run any code, which may make a Block of this very object: they come last. */
    Py_XDECREF(region);
    release_older(older);
    Py_DECREF(allocator);
}

/* Frees the dead Block's memory. False: it is queued, until long work has ended. */
static bool let_go_of_memory(BlockObject *block) {
    AllocatorObject *self = block->allocator;

    BSA_LOCK(self);
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

static void block_dealloc(BlockObject *block) {
    PyObject_GC_UnTrack(block);
    if (let_go_of_memory(block)) {
        block_bury(block); /* and perhaps the allocator: not under its lock */
    }
}

void bsa_flush_queue(AllocatorObject *self) {
    while (self->queue != NULL) {
        BlockObject *block = self->queue;

        self->queue = block->next;
        block_give_back(block);
        block_bury(block);
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

static void extent_init(BlockObject *block, uintptr_t address, size_t size) {
    struct extent *extent = &block->extent;

    extent->address = address;
    extent->size = size;
    extent->block = block;
    extent->region = NULL;
    extent->is_parked = false;
}

/* All but what the Block owns. */
static inline BlockObject *block_without_extent(AllocatorObject *self) {
    BlockObject *block = block_object(self->state);

    if (block != NULL) {
        block->allocator = (AllocatorObject *)Py_NewRef(self);
        block->older = NULL;
        block->exports = block->pins = 0;
        block->next = NULL;
    }
    return block;
}

static inline PyObject *make_owner(BlockObject *block, uintptr_t address, size_t size) {
    extent_init(block, address, size);
    block->state = BLOCK_LIVE;
    bsa_extent_add(&block->allocator->extents, &block->extent);
    PyObject_GC_Track(block);
    return (PyObject *)block;
}

PyObject *bsa_block_new(AllocatorObject *self, uintptr_t address, size_t size) {
    BlockObject *block = block_without_extent(self);

    return block == NULL ? NULL : make_owner(block, address, size);
}

BlockObject *bsa_block_reserve(AllocatorObject *self) {
    BlockObject *block = block_without_extent(self);

    if (block != NULL) {
        extent_init(block, 0, 0);
        block->state = BLOCK_DETACHED;
    }
    return block;
}

PyObject *bsa_block_fill(BlockObject *block, uintptr_t address, size_t size) {
    return make_owner(block, address, size);
}

/* --- what may be done now ----------------------------------------------------------------------
 */

/* Whether the Block still owns memory in an open allocator. Waits for long work: call it after
 * converting arguments. */
static bool check_live(BlockObject *block) {
    if (!bsa_check_open(block->allocator)) {
        return false;
    }
    if (block->state == BLOCK_LIVE) {
        return true;
    }
    if (block->state == BLOCK_RESIZING) {
        PyErr_SetString(block->allocator->state->in_use, "the Block is being resized");
    } else {
        PyErr_Format(block->allocator->state->not_allocated, "the Block has been %s",
                     block->state == BLOCK_FREED ? "freed" : "detached");
    }
    return false;
}

static bool check_no_views(const BlockObject *block, const char *what) {
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

static void park(AllocatorObject *self, struct extent *extent) {
    extent->is_parked = true;
    self->parked_bytes += usable_at(self, extent->address);
    self->parked_count++;
}

bool bsa_block_free(BlockObject *block) {
    AllocatorObject *self = block->allocator;

    if (!check_live(block) || !check_no_views(block, "free")) {
        return false;
    }
    if (block->extent.region != NULL) {
        park(self, &block->extent);
    } else {
        extent_give_back(self, &block->extent);
    }
    block->state = BLOCK_FREED;
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
    if (!check_live(block) || !check_no_views(block, "detach")) {
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
    }
    return address;
}

/* --- resize ------------------------------------------------------------------------------------
 */

/* Puts new memory under the Block. */
static void set_extent(BlockObject *block, uintptr_t address, size_t size) {
    extent_init(block, address, size);
    bsa_extent_add(&block->allocator->extents, &block->extent);
}

/* A Block that was never exported: the core may do what it likes. */
static bool resize_unexported(BlockObject *block, size_t size) {
    AllocatorObject *self = block->allocator;
    struct allocation_request request = {
        .kind = REQUEST_REALLOC, .amount = size, .old = block->extent.address, .is_of_block = true};
    uintptr_t address;

    if (!bsa_allocate(self, &request, &address)) {
        return false;
    }
    bsa_extent_remove(&self->extents, &block->extent);
    set_extent(block, address, size);
    return true;
}

/* Parks the Block's extent, listed in its own right from now on, and puts new memory under the
 * Block. */
static void replace_parked(BlockObject *block, struct extent *old, uintptr_t address, size_t size) {
    AllocatorObject *self = block->allocator;

    bsa_extent_remove(&self->extents, &block->extent);
    *old = block->extent;
    old->older = block->older;
    block->older = old;
    bsa_extent_add(&self->extents, old);
    park(self, old);
    set_extent(block, address, size);
}

/* A Block that was exported: its bytes stay where they are, a consumer may look at them. */
static bool resize_exported(BlockObject *block, size_t size) {
    AllocatorObject *self = block->allocator;
    struct allocation_request request = {.kind = REQUEST_BYTES, .amount = size};
    struct extent *old;
    uintptr_t address;

    if (size <= usable_at(self, block->extent.address)) {
        block->extent.size = size;
        return true;
    }
    old = PyMem_RawMalloc(sizeof *old);
    if (old == NULL) {
        PyErr_NoMemory();
        return false;
    }
    if (!bsa_allocate(self, &request, &address)) {
        PyMem_RawFree(old);
        return false;
    }
    memcpy((void *)address, (const void *)block->extent.address, block->extent.size);
    replace_parked(block, old, address, size);
    return true;
}

PyDoc_STRVAR(
    block_resize_doc,
    "resize($self, size, /)\n--\n\n"
    "Change the size in bytes, in place or by moving; contents up to the smaller size are kept.\n\n"
    "Raises InUseError while views are alive, OutOfMemoryError (the Block is then unchanged),\n"
    "NotAllocatedError if it was freed or detached.");

static PyObject *block_resize(BlockObject *block, PyObject *argument) {
    size_t size;
    bool resized;

    BSA_LOCK(block->allocator);
    if (!bsa_to_size(block->allocator->state, argument, "size", &size) || !check_live(block) ||
        !check_no_views(block, "resize")) {
        return NULL;
    }
    block->state = BLOCK_RESIZING; /* on_oom may run any code, which must leave it alone */
    resized = block->extent.region != NULL ? resize_exported(block, size)
                                           : resize_unexported(block, size);
    block->state = BLOCK_LIVE;
    return resized ? Py_NewRef(Py_None) : NULL;
}

/* --- nested heaps ------------------------------------------------------------------------------
 */

static struct region *region_of(const BlockObject *block) {
    return bsa_record_of(block->allocator, block->extent.address)->region;
}

static void note_export(BlockObject *block) {
    block->exports++;
    block->allocator->exports++;
    if (block->extent.region == NULL) {
        block->extent.region = (struct region *)Py_NewRef(region_of(block));
    }
}

static BlockObject *block_around_open(AllocatorObject *self, uintptr_t start, size_t size) {
    struct bsa_allocation found;
    struct extent *extent;

    if (!bsa_check_open(self) || !bsa_extents_ready(&self->extents) ||
        bsa_lookup_inside(self->root, start, &found) != BSA_OK) {
        return NULL;
    }
    extent = bsa_extent_at(&self->extents, found.address);
    if (extent == NULL || extent->block->state != BLOCK_LIVE || extent != &extent->block->extent ||
        size > extent->size || start - extent->address > extent->size - size ||
        Py_REFCNT(extent->block) == 0) { /* dead, its destructor waits for the lock */
        return NULL;
    }
    note_export(extent->block);
    extent->block->pins++;
    return (BlockObject *)Py_NewRef(extent->block);
}

BlockObject *bsa_block_around(AllocatorObject *self, uintptr_t start, size_t size) {
    BSA_LOCK(self);
    return self->root == NULL ? NULL : block_around_open(self, start, size);
}

static void unexport(BlockObject *block) {
    block->exports--;
    block->allocator->exports--;
}

static void unpin(BlockObject *block) {
    BSA_LOCK(block->allocator);
    block->pins--;
    unexport(block);
}

void bsa_block_unpin(BlockObject *block) {
    unpin(block);
    Py_DECREF(block);
}

/* --- the buffer protocol -----------------------------------------------------------------------
 */

static int block_getbuffer(BlockObject *block, Py_buffer *view, int flags) {
    BSA_LOCK(block->allocator);
    view->obj = NULL;
    if (!check_live(block) ||
        PyBuffer_FillInfo(view, (PyObject *)block, (void *)block->extent.address,
                          (Py_ssize_t)block->extent.size, 0, flags) < 0) {
        return -1;
    }
    note_export(block);
    return 0;
}

static void block_releasebuffer(BlockObject *block, Py_buffer *view) {
    BSA_LOCK(block->allocator);
    (void)view;
    unexport(block);
}

/* --- items -------------------------------------------------------------------------------------
 */

static unsigned char *bytes_of(const BlockObject *block) {
    return (unsigned char *)block->extent.address;
}

static Py_ssize_t block_length(BlockObject *block) {
    BSA_LOCK(block->allocator);
    return check_live(block) ? (Py_ssize_t)block->extent.size : -1;
}

/* Converts an index, then looks whether the Block is live: `__index__` may run any code. */
static bool item_place(BlockObject *block, PyObject *index, Py_ssize_t *place) {
    *place = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if ((*place == -1 && PyErr_Occurred()) || !check_live(block)) {
        return false;
    }
    if (*place < 0) {
        *place += (Py_ssize_t)block->extent.size;
    }
    if (*place < 0 || *place >= (Py_ssize_t)block->extent.size) {
        PyErr_SetString(PyExc_IndexError, "Block index out of range");
        return false;
    }
    return true;
}

struct slice {
    Py_ssize_t start, stop, step, length;
};

static bool slice_places(BlockObject *block, PyObject *key, struct slice *slice) {
    if (PySlice_Unpack(key, &slice->start, &slice->stop, &slice->step) < 0 || !check_live(block)) {
        return false;
    }
    slice->length = PySlice_AdjustIndices((Py_ssize_t)block->extent.size, &slice->start,
                                          &slice->stop, slice->step);
    return true;
}

static PyObject *get_slice(BlockObject *block, PyObject *key) {
    struct slice slice;
    PyObject *bytes;
    char *to;

    if (!slice_places(block, key, &slice)) {
        return NULL;
    }
    if (slice.step == 1) {
        return PyBytes_FromStringAndSize((const char *)bytes_of(block) + slice.start, slice.length);
    }
    bytes = PyBytes_FromStringAndSize(NULL, slice.length);
    if (bytes == NULL) {
        return NULL;
    }
    to = PyBytes_AS_STRING(bytes);
    for (Py_ssize_t i = 0; i < slice.length; i++) {
        to[i] = (char)bytes_of(block)[slice.start + i * slice.step];
    }
    return bytes;
}

static bool is_index_key(PyObject *key) {
    if (PyIndex_Check(key) || PySlice_Check(key)) {
        return true;
    }
    PyErr_Format(PyExc_TypeError, "Block indices must be integers or slices, not %.100s",
                 Py_TYPE(key)->tp_name);
    return false;
}

static PyObject *block_subscript(BlockObject *block, PyObject *key) {
    Py_ssize_t place;

    BSA_LOCK(block->allocator);
    if (!is_index_key(key)) {
        return NULL;
    }
    if (PySlice_Check(key)) {
        return get_slice(block, key);
    }
    return item_place(block, key, &place) ? PyLong_FromLong(bytes_of(block)[place]) : NULL;
}

static int set_item(BlockObject *block, PyObject *key, PyObject *value) {
    struct module_state *state = block->allocator->state;
    Py_ssize_t place;
    size_t byte;

    if (!bsa_to_size(state, value, "byte", &byte) || !item_place(block, key, &place)) {
        return -1;
    }
    if (byte > 255) {
        PyErr_Format(state->invalid_param, "byte must be from 0 to 255, is %zu", byte);
        return -1;
    }
    bytes_of(block)[place] = (unsigned char)byte;
    return 0;
}

/* Assigns to a slice with steps. By way of a copy: the bytes may be the Block's own. */
static int scatter(BlockObject *block, const struct slice *slice, const Py_buffer *from) {
    unsigned char *copy = PyMem_Malloc((size_t)from->len + 1);

    if (copy == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(copy, from->buf, (size_t)from->len);
    for (Py_ssize_t i = 0; i < slice->length; i++) {
        bytes_of(block)[slice->start + i * slice->step] = copy[i];
    }
    PyMem_Free(copy);
    return 0;
}

static int set_slice(BlockObject *block, PyObject *key, PyObject *value) {
    struct slice slice;
    Py_buffer buffer;
    int result = -1;

    if (PyObject_GetBuffer(value, &buffer, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    if (slice_places(block, key, &slice)) {
        if (buffer.len != slice.length) {
            PyErr_Format(PyExc_ValueError,
                         "cannot assign %zd bytes to a slice of %zd: a Block keeps its size",
                         buffer.len, slice.length);
        } else if (slice.step == 1) {
            memmove(bytes_of(block) + slice.start, buffer.buf, (size_t)buffer.len);
            result = 0;
        } else {
            result = scatter(block, &slice, &buffer);
        }
    }
    PyBuffer_Release(&buffer);
    return result;
}

static int block_ass_subscript(BlockObject *block, PyObject *key, PyObject *value) {
    BSA_LOCK(block->allocator);
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "bytes of a Block cannot be deleted");
        return -1;
    }
    if (!is_index_key(key)) {
        return -1;
    }
    return PySlice_Check(key) ? set_slice(block, key, value) : set_item(block, key, value);
}

/* --- attributes --------------------------------------------------------------------------------
 */

static bool is_freed(const BlockObject *block) {
    return block->state >= BLOCK_FREED || block->allocator->root == NULL;
}

static PyObject *block_get_address(BlockObject *block, void *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    return check_live(block) ? PyLong_FromUnsignedLongLong(block->extent.address) : NULL;
}

static PyObject *block_get_offset(BlockObject *block, void *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    if (!check_live(block)) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(block->extent.address - (uintptr_t)region_of(block)->start);
}

static PyObject *block_get_size(BlockObject *block, void *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    return PyLong_FromSize_t(block->extent.size);
}

static PyObject *block_get_usable_size(BlockObject *block, void *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    return check_live(block) ? PyLong_FromSize_t(usable_at(block->allocator, block->extent.address))
                             : NULL;
}

static PyObject *block_get_section(BlockObject *block, void *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    if (!check_live(block)) {
        return NULL;
    }
    return bsa_section_for(block->allocator,
                           bsa_record_of(block->allocator, block->extent.address));
}

static PyObject *block_get_allocator(BlockObject *block, void *ignored) {
    (void)ignored;
    return Py_NewRef(block->allocator);
}

static PyObject *block_get_freed(BlockObject *block, void *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    return PyBool_FromLong(is_freed(block));
}

static PyObject *block_repr(BlockObject *block) {
    BSA_LOCK(block->allocator);
    if (is_freed(block)) {
        return PyUnicode_FromFormat("<bsa.Block of %zu bytes, %s>", block->extent.size,
                                    block->state == BLOCK_DETACHED ? "detached" : "freed");
    }
    return PyUnicode_FromFormat("<bsa.Block of %zu bytes at %p>", block->extent.size,
                                (void *)block->extent.address);
}

/* --- with --------------------------------------------------------------------------------------
 */

static PyObject *block_enter(BlockObject *block, PyObject *ignored) {
    BSA_LOCK(block->allocator);
    (void)ignored;
    return check_live(block) ? Py_NewRef(block) : NULL;
}

static PyObject *block_exit(BlockObject *block, PyObject *const *args, Py_ssize_t nargs) {
    bool in_flight = nargs > 0 && args[0] != Py_None;

    BSA_LOCK(block->allocator);
    if (!is_freed(block) && !bsa_block_free(block)) {
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

static PyMethodDef block_methods[] = {
    {"free", (PyCFunction)block_free, METH_NOARGS, block_free_doc},
    {"resize", (PyCFunction)block_resize, METH_O, block_resize_doc},
    {"detach", (PyCFunction)block_detach, METH_NOARGS, block_detach_doc},
    {"__enter__", (PyCFunction)block_enter, METH_NOARGS, NULL},
    {"__exit__", BSA_METHOD(block_exit), METH_FASTCALL, NULL},
    {"__reduce__", bsa_refuse_pickle, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef block_getset[] = {
    {"address", (getter)block_get_address, NULL, "Address of the first byte.", NULL},
    {"offset", (getter)block_get_offset, NULL,
     "Bytes from the first byte of Section.buffer to the first byte of this Block.", NULL},
    {"size", (getter)block_get_size, NULL, "Bytes asked for.", NULL},
    {"usable_size", (getter)block_get_usable_size, NULL, "Bytes granted, at least size.", NULL},
    {"section", (getter)block_get_section, NULL, "The Section that holds it.", NULL},
    {"allocator", (getter)block_get_allocator, NULL, "The Allocator that made it.", NULL},
    {"freed", (getter)block_get_freed, NULL,
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
    {Py_tp_dealloc, block_dealloc},
    {Py_tp_traverse, block_traverse},
    {Py_tp_repr, block_repr},
    {Py_tp_methods, block_methods},
    {Py_tp_getset, block_getset},
    {Py_mp_length, block_length},
    {Py_mp_subscript, block_subscript},
    {Py_mp_ass_subscript, block_ass_subscript},
    {Py_bf_getbuffer, block_getbuffer},
    {Py_bf_releasebuffer, block_releasebuffer},
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
