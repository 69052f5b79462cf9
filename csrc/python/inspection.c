/* What an Allocator answers: addresses, sums, statistics, the walk, the check. */
#include "allocator_methods.h"
#include "arguments.h"
#include "block.h"
#include "errors.h"
#include "lock.h"
#include "managed_regions.h"

/* Converts the address, then looks whether the allocator is open. */
static bool to_address(AllocatorObject *self, PyObject *argument, size_t *address) {
    return bsa_to_size(self->state, argument, "address", address) && bsa_check_open(self);
}

/* A tuple of `count` numbers. */
static PyObject *tuple_of_counts(const uint64_t *counts, Py_ssize_t count) {
    PyObject *tuple = PyTuple_New(count);

    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(counts[i]);

        if (number == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, i, number);
        }
    }
    return tuple;
}

/* --- one address -------------------------------------------------------------------------------
 */

const char bsa_allocator_usable_size_doc[] =
    PyDoc_STR("usable_size($self, addr, /)\n--\n\n"
              "Bytes granted to the live allocation that starts at addr. Errors as for free().");

PyObject *bsa_allocator_usable_size(AllocatorObject *self, PyObject *argument) {
    struct bsa_allocation found;
    size_t address;
    bsa_status status;

    BSA_LOCK(self);
    if (!to_address(self, argument, &address)) {
        return NULL;
    }
    status = bsa_lookup(self->root, address, &found);
    return status == BSA_OK ? PyLong_FromSize_t(found.usable_size)
                            : bsa_raise_address(self, status, address);
}

const char bsa_allocator_section_of_doc[] =
    PyDoc_STR("section_of($self, addr, /)\n--\n\n"
              "The Section whose heap holds the address; NotFoundError if none does.");

PyObject *bsa_allocator_section_of(AllocatorObject *self, PyObject *argument) {
    size_t address;
    unsigned index;
    bsa_status status;

    BSA_LOCK(self);
    if (!to_address(self, argument, &address)) {
        return NULL;
    }
    status = bsa_section_of(self->root, address, &index);
    return status == BSA_OK ? bsa_section_for(self, self->records[index])
                            : bsa_raise_address(self, status, address);
}

const char bsa_allocator_slab_of_doc[] =
    PyDoc_STR("slab_of($self, addr, /)\n--\n\n"
              "A snapshot of the Slab that holds the address, or None if its page is in no slab; "
              "NotFoundError\n"
              "outside every heap.");

PyObject *bsa_allocator_slab_of(AllocatorObject *self, PyObject *argument) {
    struct bsa_slab_info info;
    size_t address;
    bsa_status status;

    BSA_LOCK(self);
    if (!to_address(self, argument, &address)) {
        return NULL;
    }
    status = bsa_slab_of(self->root, address, &info);
    if (status == BSA_NOT_ALLOCATED) {
        Py_RETURN_NONE;
    }
    return status == BSA_OK ? bsa_slab_new(self->state, &info)
                            : bsa_raise_address(self, status, address);
}

const char bsa_allocator_page_state_doc[] =
    PyDoc_STR("page_state($self, addr, /)\n--\n\n"
              "'free', 'block', 'slab' or 'empty_slab': what the page of the address belongs to "
              "(lower-case names of\n"
              "PageState). NotFoundError outside every heap.");

PyObject *bsa_allocator_page_state(AllocatorObject *self, PyObject *argument) {
    static const char *const names[] = {
        [BSA_PAGE_FREE] = "free",
        [BSA_PAGE_BLOCK] = "block",
        [BSA_PAGE_SLAB] = "slab",
        [BSA_PAGE_EMPTY_SLAB] = "empty_slab",
    };
    enum bsa_page_state state;
    size_t address;
    bsa_status status;

    BSA_LOCK(self);
    if (!to_address(self, argument, &address)) {
        return NULL;
    }
    status = bsa_page_state_of(self->root, address, &state);
    return status == BSA_OK ? PyUnicode_FromString(names[state])
                            : bsa_raise_address(self, status, address);
}

/* Whether the extent that starts at the address, if any, is one that its Block has freed. */
static int is_parked(AllocatorObject *self, uintptr_t address) {
    const struct extent *extent;

    if (self->parked_count == 0) {
        return 0;
    }
    if (!bsa_extents_ready(&self->extents)) {
        return -1;
    }
    extent = bsa_extent_at(&self->extents, address);
    return extent != NULL && extent->is_parked;
}

int bsa_allocator_contains(AllocatorObject *self, PyObject *argument) {
    struct bsa_allocation found;
    size_t address;
    int parked;

    BSA_LOCK(self);
    if (!PyIndex_Check(argument)) {
        return bsa_check_open(self) ? 0 : -1;
    }
    if (!bsa_to_size(self->state, argument, "address", &address)) {
        if (!PyErr_ExceptionMatches(self->state->invalid_param) &&
            !PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return -1;
        }
        PyErr_Clear(); /* no address at all is no live one either */
        return bsa_check_open(self) ? 0 : -1;
    }
    if (!bsa_check_open(self)) {
        return -1;
    }
    if (bsa_lookup(self->root, address, &found) != BSA_OK) {
        return 0;
    }
    parked = is_parked(self, address);
    return parked < 0 ? -1 : !parked;
}

Py_ssize_t bsa_allocator_length(AllocatorObject *self) {
    BSA_LOCK(self);
    return bsa_check_open(self) ? (Py_ssize_t)(bsa_live_count(self->root) - self->parked_count)
                                : -1;
}

/* --- sums --------------------------------------------------------------------------------------
 */

static uint64_t metadata_bytes(const AllocatorObject *self) {
    uint64_t bytes = 0;

    for (Py_ssize_t i = 0; i < self->record_count; i++) {
        bytes += self->records[i]->info.meta_size;
    }
    return bytes;
}

uint64_t bsa_largest_free(const AllocatorObject *self) {
    uint64_t counts[BSA_MAX_ORDER + 1], largest = 0;

    bsa_free_blocks(self->root, counts);
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        if (counts[order] != 0) {
            largest = (uint64_t)bsa_page_size(self->root) << order;
        }
    }
    return largest;
}

struct correction {
    const AllocatorObject *allocator;
    uint64_t bytes;
};

/* What the core takes as asked for by the Block, beyond what the Block knows better. */
static void correct(void *context, const struct extent *extent) {
    struct correction *correction = context;
    struct bsa_allocation found = {0};

    bsa_lookup(correction->allocator->root, extent->address, &found);
    correction->bytes += found.requested_size - (extent->is_parked ? 0 : extent->size);
}

/* As the core counts, but parked memory is not live, and a Block's size is what was asked for. */
static uint64_t requested_bytes(const AllocatorObject *self) {
    struct correction correction = {self, 0};
    struct bsa_stats stats;

    bsa_stats(self->root, &stats);
    bsa_extents_each(&self->extents, correct, &correction);
    return stats.requested_bytes - correction.bytes;
}

static uint64_t number(const AllocatorObject *self, enum bsa_number which) {
    uint64_t page_size = bsa_page_size(self->root), total = bsa_total_pages(self->root);

    switch (which) {
    case BSA_PAGE_SIZE:
        return page_size;
    case BSA_CPUS:
        return self->slots;
    case BSA_TOTAL_PAGES:
        return total;
    case BSA_FREE_PAGES:
        return bsa_free_page_count(self->root);
    case BSA_MANAGED_BYTES:
        return total * page_size;
    case BSA_ALLOCATED_BYTES:
        return (total - bsa_free_page_count(self->root)) * page_size;
    case BSA_REQUESTED_BYTES:
        return requested_bytes(self);
    case BSA_METADATA_BYTES:
        return metadata_bytes(self);
    default:
        return bsa_largest_free(self);
    }
}

PyObject *bsa_allocator_get_number(AllocatorObject *self, void *which) {
    BSA_LOCK(self);
    if (!bsa_check_open(self)) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(number(self, (enum bsa_number)(uintptr_t)which));
}

static PyObject *tuple_of_sections(AllocatorObject *self) {
    PyObject *sections = PyTuple_New(self->record_count);

    for (Py_ssize_t i = 0; sections != NULL && i < PyTuple_GET_SIZE(sections); i++) {
        PyObject *section = bsa_section_for(self, self->records[i]);

        if (section == NULL) {
            Py_CLEAR(sections);
        } else {
            PyTuple_SET_ITEM(sections, i, section);
        }
    }
    return sections;
}

PyObject *bsa_allocator_get_sections(AllocatorObject *self, void *ignored) {
    PyObject *sections;
    struct bsa_call *pin;

    BSA_LOCK(self);
    (void)ignored;
    if (!bsa_check_open(self)) {
        return NULL;
    }
    pin = bsa_pin(self); /* making objects may run finalisers, which must not take sections away */
    if (pin == NULL) {
        return NULL;
    }
    sections = tuple_of_sections(self);
    bsa_unpin(self, pin);
    return sections;
}

PyObject *bsa_allocator_get_size_classes(AllocatorObject *self, void *ignored) {
    uint64_t sizes[BSA_CLASSES];
    unsigned count;

    BSA_LOCK(self);
    (void)ignored;
    if (!bsa_check_open(self)) {
        return NULL;
    }
    count = bsa_class_count(self->root);
    for (unsigned i = 0; i < count; i++) {
        sizes[i] = bsa_class_size(i);
    }
    return tuple_of_counts(sizes, (Py_ssize_t)count);
}

/* --- fragmentation -----------------------------------------------------------------------------
 */

const char bsa_allocator_free_blocks_doc[] =
    PyDoc_STR("free_blocks($self, /)\n--\n\n"
              "Number of free blocks of each order, 0 to 20, over all sections (tuple of int). A "
              "block of order o has\n"
              "2**o pages.");

PyObject *bsa_allocator_free_blocks(AllocatorObject *self, PyObject *ignored) {
    uint64_t counts[BSA_MAX_ORDER + 1];

    BSA_LOCK(self);
    (void)ignored;
    if (!bsa_check_open(self)) {
        return NULL;
    }
    bsa_free_blocks(self->root, counts);
    return tuple_of_counts(counts, BSA_MAX_ORDER + 1);
}

static PyObject *index_for(AllocatorObject *self, PyObject *argument,
                           int (*index)(const uint64_t[BSA_MAX_ORDER + 1], unsigned)) {
    uint64_t counts[BSA_MAX_ORDER + 1];
    size_t order;

    BSA_LOCK(self);
    if (!bsa_to_size(self->state, argument, "order", &order) || !bsa_check_open(self)) {
        return NULL;
    }
    if (order > BSA_MAX_ORDER) {
        return PyErr_Format(self->state->invalid_param, "order must be from 0 to %d, is %zu",
                            BSA_MAX_ORDER, order);
    }
    bsa_free_blocks(self->root, counts);
    return PyFloat_FromDouble(index(counts, (unsigned)order) / 1000.0);
}

const char bsa_allocator_unusable_index_doc[] = PyDoc_STR(
    "unusable_index($self, order, /)\n--\n\n"
    "Linux's unusable free space index: the share of free memory in blocks too small for 2**order "
    "pages.\n\n"
    "0.0: all of it is usable; 1.0: none (also where nothing is free). (free - suitable) / free, "
    "in the\n"
    "kernel's integer thousandths (mm/vmstat.c, unusable_free_index; Gorman and Whitcroft 2006).");

PyObject *bsa_allocator_unusable_index(AllocatorObject *self, PyObject *order) {
    return index_for(self, order, bsa_unusable_index);
}

const char bsa_allocator_extfrag_index_doc[] =
    PyDoc_STR("extfrag_index($self, order, /)\n--\n\n"
              "Linux's fragmentation index: why a request for 2**order pages would fail.\n\n"
              "-1.0: it would not fail. Towards 0.0: for lack of memory; towards 1.0: because free "
              "memory is in pieces.\n"
              "1 - (1 + free pages / 2**order) / free blocks, in the kernel's integer thousandths "
              "(mm/vmstat.c,\n"
              "__fragmentation_index); 0.0 where nothing is free.");

PyObject *bsa_allocator_extfrag_index(AllocatorObject *self, PyObject *order) {
    return index_for(self, order, bsa_extfrag_index);
}

/* --- statistics --------------------------------------------------------------------------------
 */

const char bsa_allocator_stats_doc[] =
    PyDoc_STR("stats($self, /)\n--\n\n"
              "Counts and bytes of what was allocated, now and ever: see Stats.");

PyObject *bsa_allocator_stats(AllocatorObject *self, PyObject *ignored) {
    BSA_LOCK(self);
    (void)ignored;
    return bsa_check_open(self) ? bsa_stats_new(self) : NULL;
}

const char bsa_allocator_reset_peak_doc[] =
    PyDoc_STR("reset_peak($self, /)\n--\n\n"
              "Let the peaks of stats() start anew from what is live now.");

PyObject *bsa_allocator_reset_peak(AllocatorObject *self, PyObject *ignored) {
    BSA_LOCK(self);
    (void)ignored;
    if (!bsa_check_open(self)) {
        return NULL;
    }
    bsa_reset_peak(self->root);
    Py_RETURN_NONE;
}

/* --- slabs -------------------------------------------------------------------------------------
 */

struct slab_visit {
    struct module_state *state;
    PyObject *list;
    bool any_size;
    size_t size;
    bool failed;
};

static bool visit_slab(void *context, const struct bsa_slab_info *info) {
    struct slab_visit *visit = context;
    PyObject *slab;

    if (!visit->any_size && info->size != visit->size) {
        return true;
    }
    slab = bsa_slab_new(visit->state, info);
    visit->failed = slab == NULL || PyList_Append(visit->list, slab) < 0;
    Py_XDECREF(slab);
    return !visit->failed;
}

/* The size of the class that serves `size` bytes; false if none does. */
static bool class_of(const AllocatorObject *self, size_t size, size_t *class_size) {
    for (unsigned i = 0; i < bsa_class_count(self->root); i++) {
        *class_size = bsa_class_size(i);
        if (*class_size >= size) {
            return true;
        }
    }
    return false;
}

const char bsa_allocator_slabs_doc[] = PyDoc_STR("slabs($self, size=None)\n--\n\n"
                                                 "Snapshots of all slabs, or of those whose class "
                                                 "serves size bytes, in address order within each\n"
                                                 "section (list of Slab).");

PyObject *bsa_allocator_slabs(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames) {
    static const char *const names[] = {"size", NULL};
    static const struct signature signature = {"slabs", names, 0, 1, 1};
    struct slab_visit visit = {.state = self->state};
    PyObject *values[1];

    BSA_LOCK(self);
    if (!bsa_sort_arguments(&signature, args, nargs, kwnames, values)) {
        return NULL;
    }
    visit.any_size = values[0] == NULL || values[0] == Py_None;
    if (!visit.any_size && !bsa_to_size(self->state, values[0], "size", &visit.size)) {
        return NULL;
    }
    visit.list = PyList_New(0);
    visit.failed = visit.list == NULL || !bsa_check_open(self);
    if (!visit.failed && (visit.any_size || class_of(self, visit.size, &visit.size))) {
        bsa_walk_slabs(self->root, visit_slab, &visit);
    }
    if (visit.failed) {
        Py_CLEAR(visit.list);
    }
    return visit.list;
}

/* --- walk, check -------------------------------------------------------------------------------
 */

const char bsa_allocator_walk_doc[] =
    PyDoc_STR("walk($self, /)\n--\n\n"
              "Every live allocation as (address, usable size, kind), from a snapshot, in address "
              "order within each\n"
              "section.\n\n"
              "kind: 'object' or 'pages' (raw), 'block' (owned by a Block), 'parked' (freed, but "
              "its Block was exported\n"
              "and is still alive).");

PyObject *bsa_allocator_walk(AllocatorObject *self, PyObject *ignored) {
    BSA_LOCK(self);
    (void)ignored;
    return bsa_check_open(self) ? bsa_walk_new(self) : NULL;
}

const char bsa_allocator_check_doc[] = PyDoc_STR(
    "check($self, /)\n--\n\n"
    "Verify every invariant of every structure; CorruptionError names the first violated.\n\n"
    "O(blocks + slabs). The GIL is released meanwhile.");

PyObject *bsa_allocator_check(AllocatorObject *self, PyObject *ignored) {
    struct bsa_violation violation;
    bsa_status status;

    BSA_LOCK(self);
    (void)ignored;
    if (!bsa_allocator_begin_long(self)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
        status = bsa_check(self->root, &violation);
    Py_END_ALLOW_THREADS
    bsa_allocator_end_long(self);
    if (status != BSA_OK) {
        return PyErr_Format(self->state->corruption, "violated: %s (section %u, page %u)",
                            violation.invariant, violation.section, (unsigned)violation.page);
    }
    Py_RETURN_NONE;
}

/* --- repr --------------------------------------------------------------------------------------
 */

PyObject *bsa_allocator_repr(AllocatorObject *self) {
    uint64_t page_size;

    BSA_LOCK(self);
    if (self->root == NULL) {
        return PyUnicode_FromString("<bsa.Allocator, closed>");
    }
    if (self->is_busy || self->is_inert) {
        return PyUnicode_FromFormat("<bsa.Allocator, %s>",
                                    self->is_inert ? "of the parent process" : "at work");
    }
    page_size = bsa_page_size(self->root);
    return PyUnicode_FromFormat(
        "<bsa.Allocator: %zd section%s, %llu of %llu pages of %llu bytes free, %zu live>",
        self->record_count, self->record_count == 1 ? "" : "s",
        (unsigned long long)bsa_free_page_count(self->root),
        (unsigned long long)bsa_total_pages(self->root), (unsigned long long)page_size,
        bsa_live_count(self->root) - self->parked_count);
}

const char bsa_allocator_repr_html_doc[] =
    PyDoc_STR("_repr_html_($self, /)\n--\n\n"
              "What Jupyter shows: the numbers and a map of the pages (str).");

PyObject *bsa_allocator_repr_html(PyObject *self, PyObject *ignored) {
    (void)ignored;
    return bsa_html_of(self, "allocator_html");
}

PyObject *bsa_html_of(PyObject *object, const char *function) {
    PyObject *module = PyImport_ImportModule("bsa.html"), *html;

    if (module == NULL) {
        return NULL;
    }
    html = PyObject_CallMethod(module, function, "O", object);
    Py_DECREF(module);
    return html;
}
