/* The regions that an allocator manages: translations, records, adding and removing.
 *
 * A region enters records, claims and core all at once or not at all; whatever may fail or run
 * other code comes first. Adding is O(sections + claims), removing O(sections + pages of it). */
#include "managed_regions.h"

#include "allocator_methods.h"
#include "arguments.h"
#include "block.h"
#include "errors.h"
#include "lock.h"
#include "section.h"

/* --- translations ------------------------------------------------------------------------------
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
        struct bsa_held *held = bsa_let_go();

        result = PyObject_CallOneArg(callable, argument);
        bsa_take_again(held);
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

bool bsa_check_phys(PyObject *phys) {
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
    if (!bsa_check_phys(phys)) {
        return false;
    }
    record->phys = Py_NewRef(phys);
    config->physical = call_phys;
    config->context = record;
    return true;
}

/* --- records -----------------------------------------------------------------------------------
 */

void bsa_record_release(struct section_record *record) {
    if (--record->holders == 0) {
        PyMem_RawFree(record);
    }
}

void bsa_record_free(struct section_record *record) {
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
        bsa_record_free(record);
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

/* --- adding ------------------------------------------------------------------------------------
 */

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
    if (record->phys != NULL || bsa_region_refers_to_others(record->region)) {
        bsa_track_blocks(self);
    }
    return true;
}

/* The Section is made first: once the region is managed nothing may fail any more. */
bool bsa_manage_region(AllocatorObject *self, PyObject *source, PyObject *phys,
                       PyObject **section) {
    struct bsa_section_config config;
    struct section_record *record = record_new(self, source, phys, &config);

    if (record == NULL) {
        return false;
    }
    if ((section != NULL && (*section = bsa_section_new(self, record)) == NULL) ||
        !bsa_check_open(self) || !manage(self, record, &config)) {
        bsa_record_free(record);
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

const char bsa_allocator_add_region_doc[] = PyDoc_STR(
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

PyObject *bsa_allocator_add_region(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames) {
    static const char *const names[] = {"buffer_or_size", "phys", NULL};
    static const struct signature signature = {"add_region", names, 1, 1, 2};
    PyObject *values[2], *section = NULL;

    BSA_LOCK(self);
    if (!bsa_sort_arguments(&signature, args, nargs, kwnames, values) ||
        !bsa_manage_region(self, values[0], values[1], &section)) {
        return NULL;
    }
    return section;
}

/* --- removing ----------------------------------------------------------------------------------
 */

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

const char bsa_allocator_remove_region_doc[] = PyDoc_STR(
    "remove_region($self, section, /)\n--\n\n"
    "Take a Section without live allocations out of management and release its memory.\n\n"
    "Remote frees are drained and empty slabs given back first. Raises InUseError if the "
    "section still\n"
    "holds allocations (memory of freed Blocks that were exported counts), "
    "InvalidParamError if it is\n"
    "not a section of this allocator.");

PyObject *bsa_allocator_remove_region(AllocatorObject *self, PyObject *argument) {
    struct section_record *record;
    SectionObject *section = (SectionObject *)argument;
    bsa_status status;

    BSA_LOCK(self);
    if (!PyObject_TypeCheck(argument, self->state->section_type)) {
        return PyErr_Format(PyExc_TypeError, "remove_region() takes a Section, not %.100s",
                            Py_TYPE(argument)->tp_name);
    }
    if (!bsa_check_open(self) || !bsa_check_not_pinned(self, "remove a region")) {
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
    bsa_record_free(record);
    Py_RETURN_NONE;
}
