/* The Allocator type: making, regions, closing, forks, long work. What it allocates is in
 * allocation.c, what it answers in inspection.c. */
#include "allocator.h"

#include "allocator_methods.h"
#include "arguments.h"
#include "block.h"
#include "errors.h"
#include "lock.h"
#include "mapping.h"
#include "poison.h"
#include "section.h"

#include <pthread.h>
#include <structmember.h>

enum { ROOT_ALIGNMENT = 64 };

#ifdef Py_GIL_DISABLED
_Thread_local struct bsa_held *bsa_innermost;
#endif

/* --- usability ---------------------------------------------------------------------------------
 */

static _Thread_local struct bsa_pin *pins; /* of the calling thread, innermost first */

/* The pins of threads that a fork has left behind are none. */
static void forget_lost_pins(AllocatorObject *self) {
    if (self->pins_generation != bsa_fork_count) {
        self->pins = 0;
        self->pins_generation = bsa_fork_count;
    }
}

void bsa_pin(AllocatorObject *self, struct bsa_pin *pin) {
    *pin = (struct bsa_pin){self, pins};
    pins = pin;
    forget_lost_pins(self);
    self->pins++;
}

void bsa_unpin(struct bsa_pin *pin) {
    pins = pin->outer;
    pin->allocator->pins--;
}

/* In a forked child only the thread that forked is left, and only it knows its pins: they are
 * counted before it can start others, which may be the first to use the allocator. */
static void count_pins_in_child(void) {
    for (const struct bsa_pin *pin = pins; pin != NULL; pin = pin->outer) {
        forget_lost_pins(pin->allocator);
        pin->allocator->pins++;
    }
}

/* Handlers run in the order in which they were registered: forks are counted already. */
static void register_fork_handler(void) {
    pthread_atfork(NULL, NULL, count_pins_in_child);
}

void bsa_pins_init(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, register_fork_handler);
}

/* In a forked child: private memory is the child's own copy, shared memory is not. An inert
 * allocator keeps its old generation, so that no fast path takes it for usable. */
void bsa_settle_fork(AllocatorObject *self) {
    if (self->is_busy) {
        self->is_inert = true; /* the fork caught the heap in the middle of something */
        self->is_busy = false;
    }
    for (Py_ssize_t i = 0; i < self->record_count && !self->is_inert; i++) {
        self->is_inert = bsa_region_is_shared(self->records[i]->region);
    }
    forget_lost_pins(self);
    if (!self->is_inert) {
        self->turnstile = PyThread_allocate_lock();
        self->waiting = 0;
        self->long_work = PyThread_allocate_lock(); /* a thread left behind may hold the old one */
        self->fork_generation = bsa_fork_count;
    }
}

/* The turnstile is kept until this thread has the GIL again, so that no other long work begins
 * before: work upon work would never let anybody in, since it releases the GIL only while busy. */
static void wait_for_long_work(AllocatorObject *self) {
    PyThread_type_lock turnstile = self->turnstile, long_work = self->long_work;

    self->waiting++;
    Py_BEGIN_ALLOW_THREADS
        PyThread_acquire_lock(turnstile, WAIT_LOCK);
        PyThread_acquire_lock(long_work, WAIT_LOCK);
        PyThread_release_lock(long_work);
    Py_END_ALLOW_THREADS
    self->waiting--;
    PyThread_release_lock(turnstile);
}

/* Lets those who wait have their turn. Not for ever: at the end of the process a daemon thread may
 * have died in there. */
static void let_others_in(AllocatorObject *self) {
    PyThread_type_lock turnstile = self->turnstile;

    if (self->waiting > 0) {
        Py_BEGIN_ALLOW_THREADS
            if (PyThread_acquire_lock_timed(turnstile, 100000, 0) == PY_LOCK_ACQUIRED) {
                PyThread_release_lock(turnstile);
            }
        Py_END_ALLOW_THREADS
    }
}

bool bsa_check_open_slow(AllocatorObject *self) {
    while (self->root != NULL) {
        if (self->fork_generation != bsa_fork_count) {
            bsa_settle_fork(self);
        }
        if (self->is_inert) {
            PyErr_SetString(PyExc_RuntimeError,
                            "this allocator is the parent process's: its memory is shared, or was "
                            "in use at the fork");
            return false;
        }
        if (!self->is_busy) {
            return true;
        }
        wait_for_long_work(self);
    }
    PyErr_SetString(self->state->closed, "the allocator is closed");
    return false;
}

bool bsa_allocator_begin_long(AllocatorObject *self) {
    let_others_in(self);
    if (!bsa_check_open(self)) {
        return false;
    }
    self->is_busy = true;
    PyThread_acquire_lock(self->long_work, WAIT_LOCK);
    return true;
}

void bsa_allocator_end_long(AllocatorObject *self) {
    self->is_busy = false;
    PyThread_release_lock(self->long_work);
    bsa_flush_queue(self);
}

bool bsa_slot_for_alloc(const AllocatorObject *self, unsigned *slot) {
    *slot = bsa_slot_for_free(self);
    if (*slot < self->slots) {
        return true;
    }
    PyErr_Format(self->state->invalid_param,
                 "this thread is pinned to slot %u, the allocator has %u", *slot, self->slots);
    return false;
}

/* --- sections ----------------------------------------------------------------------------------
 */

/* The translation of a section whose `phys` is callable. Runs with no lock held, since all is
 * serial. */
static bool call_phys(void *context, uintptr_t address, uint64_t *physical) {
    struct section_record *record = context;
    PyObject *callable = Py_XNewRef(record->phys);
    PyObject *argument = PyLong_FromSize_t(address), *result = NULL;
    struct module_state *state = record->allocator->state;
    size_t value = 0;
    bool converted = false;

    if (callable == NULL) {
        PyErr_SetString(state->closed, "the allocator is being torn down");
    } else if (argument != NULL) {
        bsa_let_go();
        result = PyObject_CallOneArg(callable, argument);
        bsa_take_again();
    }
    if (result != NULL) {
        converted = bsa_to_size(state, result, "physical address", &value);
    }
    *physical = value;
    Py_XDECREF(result);
    Py_XDECREF(argument);
    Py_XDECREF(callable);
    /* Long work of another thread may have begun in it: the core is not ours before that ends. */
    return converted && bsa_check_open(record->allocator);
}

static bool check_phys(PyObject *phys) {
    if (phys == NULL || phys == Py_None || PyIndex_Check(phys) || PyCallable_Check(phys)) {
        return true;
    }
    PyErr_Format(PyExc_TypeError, "phys must be None, an integer or callable, not %.100s",
                 Py_TYPE(phys)->tp_name);
    return false;
}

static bool configure_phys(AllocatorObject *self, PyObject *phys, struct section_record *record,
                           struct bsa_section_config *config) {
    size_t base;

    if (phys == NULL || phys == Py_None) {
        return true;
    }
    if (PyIndex_Check(phys)) {
        if (!bsa_to_size(self->state, phys, "phys", &base)) {
            return false;
        }
        config->physical_is_linear = true;
        config->physical_base = base;
        return true;
    }
    if (!check_phys(phys)) {
        return false;
    }
    record->phys = Py_NewRef(phys);
    config->physical = call_phys;
    config->context = record;
    return true;
}

void bsa_record_release(struct section_record *record) {
    if (--record->holders == 0) {
        PyMem_RawFree(record);
    }
}

/* The allocator's end of it. May run any code. */
static void record_free(struct section_record *record) {
    PyObject *object = record->object, *phys = record->phys;
    struct region *region = record->region;

    record->is_removed = true;
    record->object = record->phys = NULL;
    record->region = NULL;
    bsa_record_release(record);
    Py_XDECREF(region);
    Py_XDECREF(phys);
    Py_XDECREF(object);
}

static struct section_record *record_new(AllocatorObject *self, PyObject *source, PyObject *phys,
                                         struct bsa_section_config *config) {
    struct section_record *record = PyMem_RawCalloc(1, sizeof *record);

    if (record == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    record->allocator = self;
    record->holders = 1;
    record->is_removed = true; /* until it is managed */
    *config = (struct bsa_section_config){0};
    if (!configure_phys(self, phys, record, config) ||
        (record->region = bsa_region_from(self->state, source)) == NULL) {
        record_free(record);
        return NULL;
    }
    if (record->region->source == NULL) {
        config->flags |= BSA_ZEROED; /* only the kernel's own fresh memory is known to be zero */
    }
    return record;
}

static bool append_record(AllocatorObject *self, struct section_record *record) {
    size_t size = ((size_t)self->record_count + 1) * sizeof *self->records;
    struct section_record **grown = PyMem_RawRealloc(self->records, size);

    if (grown == NULL) {
        PyErr_NoMemory();
        return false;
    }
    self->records = grown;
    self->records[self->record_count++] = record;
    return true;
}

/* Says what is wrong with a region that the core refused as an invalid parameter. Of the reasons
 * only the size is common; the others are looked at first, so that each message is true. */
static void raise_invalid_region(AllocatorObject *self, const struct region *region,
                                 const struct bsa_section_config *config) {
    uint64_t page_size = bsa_page_size(self->root);

    if (config->physical_is_linear && config->physical_base + region->size < region->size) {
        PyErr_Format(self->state->invalid_param,
                     "the physical addresses of %zu bytes from %p on pass 64 bits", region->size,
                     (void *)(uintptr_t)config->physical_base);
    } else if (bsa_total_pages(self->root) + region->size / page_size >= UINT32_MAX) {
        PyErr_Format(self->state->invalid_param,
                     "no page numbers are left for %zu bytes more: an allocator has 2^32 of them",
                     region->size);
    } else {
        PyErr_Format(self->state->invalid_param,
                     "%zu bytes are too small for metadata and one page of %llu", region->size,
                     (unsigned long long)page_size);
    }
}

static bool raise_region(AllocatorObject *self, bsa_status status, const struct region *region,
                         const struct bsa_section_config *config) {
    if (status == BSA_INVALID_PARAM) {
        raise_invalid_region(self, region, config);
    } else {
        bsa_raise_address(self, status, (uintptr_t)region->start);
    }
    return false;
}

/* Enters the record's region into core and claims; all or nothing. */
static bool manage(AllocatorObject *self, struct section_record *record,
                   const struct bsa_section_config *config) {
    unsigned index;
    bsa_status status;

    if (!bsa_region_claim(self->state, record->region, (PyObject *)self)) {
        return false;
    }
    if (!bsa_check_open(self) || !append_record(self, record)) {
        return false;
    }
    status =
        bsa_add_region(self->root, record->region->start, record->region->size, config, &index);
    if (status != BSA_OK) {
        self->record_count--;
        return raise_region(self, status, record->region, config);
    }
    bsa_section_info(self->root, index, &record->info);
    record->is_removed = false;
    return true;
}

/* `section` (may be NULL) receives the new Section. It is made first: once the region is managed
 * nothing may fail any more. */
static bool add_region(AllocatorObject *self, PyObject *source, PyObject *phys,
                       PyObject **section) {
    struct bsa_section_config config;
    struct section_record *record = record_new(self, source, phys, &config);

    if (record == NULL) {
        return false;
    }
    if ((section != NULL && (*section = bsa_section_new(self, record)) == NULL) ||
        !bsa_check_open(self) || !manage(self, record, &config)) {
        record_free(record);
        if (section != NULL) {
            Py_CLEAR(*section);
        }
        return false;
    }
    return true;
}

PyObject *bsa_section_for(AllocatorObject *self, struct section_record *record) {
    PyObject *section = bsa_section_get(record);

    return section != NULL ? section : bsa_section_new(self, record);
}

struct section_record *bsa_record_of(AllocatorObject *self, uintptr_t address) {
    unsigned index = 0;

    bsa_section_of(self->root, address, &index);
    return self->records[index];
}

PyDoc_STRVAR(
    allocator_add_region_doc,
    "add_region($self, buffer_or_size, /, *, phys=None)\n--\n\n"
    "Put more memory under management, also while the allocator is in use.\n\n"
    "buffer_or_size: as in Allocator(). phys: None (physical = virtual), the physical address of "
    "the\n"
    "region's first byte, or a callable that gives the physical address of a page's address.\n"
    "Returns the new Section. Raises MemoryOverlapError if a byte is managed already, "
    "InvalidParamError\n"
    "if there is no room for metadata and one page, BufferError for a read-only or strided "
    "buffer,\n"
    "TypeError for a buffer of Python objects.");

static PyObject *allocator_add_region(AllocatorObject *self, PyObject *const *args,
                                      Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"buffer_or_size", "phys", NULL};
    static const struct signature signature = {"add_region", names, 1, 1, 2};
    PyObject *values[2], *section = NULL;

    BSA_LOCK(self);
    if (!bsa_sort_arguments(&signature, args, nargs, kwnames, values) ||
        !add_region(self, values[0], values[1], &section)) {
        return NULL;
    }
    return section;
}

/* Whether nothing in flight needs the sections to stay. */
static bool check_not_pinned(AllocatorObject *self, const char *what) {
    if (self->pins == 0) {
        return true;
    }
    PyErr_Format(self->state->in_use, "cannot %s: a callback or another thread is at work in it",
                 what);
    return false;
}

struct view_count {
    const struct section_record *record;
    Py_ssize_t views;
};

static void count_views(void *context, const struct extent *extent) {
    struct view_count *count = context;

    if (extent->region == count->record->region && extent == &extent->block->extent) {
        count->views += extent->block->exports;
    }
}

static bool check_no_views(AllocatorObject *self, const struct section_record *record) {
    struct view_count count = {record, 0};

    bsa_extents_each(&self->extents, count_views, &count);
    if (count.views != 0) {
        PyErr_Format(self->state->in_use, "cannot remove the region: %zd view%s alive", count.views,
                     count.views == 1 ? " of a Block is" : "s of Blocks are");
    }
    return count.views == 0;
}

static void forget_record(AllocatorObject *self, Py_ssize_t index) {
    self->record_count--;
    for (Py_ssize_t i = index; i < self->record_count; i++) {
        self->records[i] = self->records[i + 1];
        self->records[i]->info.index = (unsigned)i;
    }
}

PyDoc_STRVAR(allocator_remove_region_doc,
             "remove_region($self, section, /)\n--\n\n"
             "Take a Section without live allocations out of management and release its memory.\n\n"
             "Remote frees are drained and empty slabs given back first. Raises InUseError if the "
             "section still\n"
             "holds allocations (memory of freed Blocks that were exported counts), "
             "InvalidParamError if it is\n"
             "not a section of this allocator.");

static PyObject *allocator_remove_region(AllocatorObject *self, PyObject *argument) {
    struct section_record *record;
    SectionObject *section = (SectionObject *)argument;
    bsa_status status;

    BSA_LOCK(self);
    if (!PyObject_TypeCheck(argument, self->state->section_type)) {
        return PyErr_Format(PyExc_TypeError, "remove_region() takes a Section, not %.100s",
                            Py_TYPE(argument)->tp_name);
    }
    if (!bsa_check_open(self) || !check_not_pinned(self, "remove a region")) {
        return NULL;
    }
    record = section->record;
    if (section->allocator != self || record->is_removed) {
        return PyErr_Format(self->state->invalid_param,
                            "the section is not (or no longer) one of this allocator's");
    }
    if (!check_no_views(self, record)) {
        return NULL;
    }
    status = bsa_remove_region(self->root, record->info.index);
    if (status != BSA_OK) {
        return bsa_raise_address(self, status, record->info.start);
    }
    forget_record(self, record->info.index);
    record_free(record);
    Py_RETURN_NONE;
}

/* --- closing -----------------------------------------------------------------------------------
 */

/* Lets go of everything. The allocator is closed before any code of others can run. */
static void tear_down(AllocatorObject *self) {
    struct section_record **records = self->records;
    Py_ssize_t count = self->record_count;

    self->root = NULL;
    self->records = NULL;
    self->record_count = 0;
    bsa_extents_clear(&self->extents);
    PyMem_RawFree(self->root_memory);
    self->root_memory = NULL;
    self->parked_bytes = self->parked_count = 0;
    Py_CLEAR(self->on_oom);
    while (count-- > 0) {
        bsa_unpoison_region(records[count]->region->start, records[count]->region->size);
        record_free(records[count]);
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
    if (!check_not_pinned(self, "close")) {
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
    return true;
}

struct options {
    size_t page_size, cpus;
    uint64_t limit;
    PyObject *phys, *on_oom; /* borrowed */
};

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

static bool convert_options(struct module_state *state, PyObject *const values[],
                            struct options *options) {
    options->page_size = 4096;
    options->cpus = bsa_processors();
    if ((values[0] != NULL && !bsa_to_size(state, values[0], "page_size", &options->page_size)) ||
        (values[1] != NULL && values[1] != Py_None &&
         !bsa_to_size(state, values[1], "cpus", &options->cpus)) ||
        !check_phys(values[2]) || !to_limit(state, values[3], &options->limit) ||
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

/* Locked, though nobody knows the allocator yet: its claim makes it known. */
static bool add_first_region(AllocatorObject *self, PyObject *buffer, PyObject *phys) {
    BSA_LOCK(self);
    return add_region(self, buffer, phys, NULL);
}

static PyObject *allocator_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"buffer", "page_size", "cpus", "phys", "limit", "on_oom", NULL};
    PyObject *buffer = NULL, *values[5] = {NULL}, *module;
    struct module_state *state;
    struct options options;
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
    if (!convert_options(state, values, &options)) {
        return NULL;
    }
    self = (AllocatorObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->module = Py_NewRef(module);
    self->state = state;
    self->fork_generation = bsa_fork_count;
    self->limit = options.limit;
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

/* --- settable properties -----------------------------------------------------------------------
 */

static PyObject *allocator_get_limit(AllocatorObject *self, void *ignored) {
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

static int allocator_set_limit(AllocatorObject *self, PyObject *value, void *ignored) {
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

static PyObject *allocator_get_on_oom(AllocatorObject *self, void *ignored) {
    BSA_LOCK(self);
    (void)ignored;
    return Py_NewRef(self->on_oom == NULL ? Py_None : self->on_oom);
}

static int allocator_set_on_oom(AllocatorObject *self, PyObject *value, void *ignored) {
    BSA_LOCK(self);
    (void)ignored;
    if (value == NULL) {
        return refuse_deletion("on_oom");
    }
    if (!check_on_oom(value) || !bsa_check_open(self)) {
        return -1;
    }
    Py_XSETREF(self->on_oom, value == Py_None ? NULL : Py_NewRef(value));
    return 0;
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
    {"add_region", BSA_METHOD(allocator_add_region), METH_FASTCALL | METH_KEYWORDS,
     allocator_add_region_doc},
    {"remove_region", (PyCFunction)allocator_remove_region, METH_O, allocator_remove_region_doc},
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
    {"limit", (getter)allocator_get_limit, (setter)allocator_set_limit,
     "Bytes that allocated_bytes may reach, or None.", NULL},
    {"on_oom", (getter)allocator_get_on_oom, (setter)allocator_set_on_oom,
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
