/* What lies in each of many equal cells of a section, for pictures of heaps that have too many
 * pieces to be drawn one by one.
 *
 * A piece is a page block, a slab, an object in a slab, or a free block. Every kind of piece has a
 * column for each order: per cell the bytes of such pieces that lie in it, and the number of those
 * that do so at least in part. O(live allocations + slabs + free blocks + cells). */
#include "allocator.h"
#include "arguments.h"
#include "bits.h"
#include "lock.h"

enum piece { PIECE_PAGES, PIECE_SLAB, PIECE_IDLE_SLAB, PIECE_OBJECT, PIECE_FREE, PIECE_STUCK };

enum { PIECES = PIECE_STUCK + 1, ORDERS = BSA_MAX_ORDER + 1 };

struct cells {
    const struct bsa_root *root;
    struct bsa_section_info section;
    uintptr_t start; /* of the first cell */
    size_t size, count;
    uintptr_t first, end; /* of the part of the heap that they cover: nothing else counts */
    PyObject
        *columns[PIECES][ORDERS]; /* bytes objects: `count` sums, `count` numbers; NULL: none */
};

enum { ALLOCATOR, SECTION, START, SIZE, COUNT, ARGUMENTS };

static uint64_t *column_of(struct cells *cells, enum piece piece, unsigned order) {
    PyObject **column = &cells->columns[piece][order];
    size_t bytes = 2 * cells->count * sizeof(uint64_t);

    if (*column == NULL) {
        *column = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
        if (*column == NULL) {
            return NULL;
        }
        memset(PyBytes_AS_STRING(*column), 0, bytes);
    }
    return (uint64_t *)(void *)PyBytes_AS_STRING(*column);
}

/* Adds a piece to the cells it lies in. False with MemoryError set. */
static bool add(struct cells *cells, enum piece piece, unsigned order, uintptr_t start,
                size_t size) {
    uintptr_t end = start + size < cells->end ? start + size : cells->end;
    uint64_t *column;

    start = start < cells->first ? cells->first : start;
    if (start >= end) {
        return true;
    }
    column = column_of(cells, piece, order);
    if (column == NULL) {
        return false;
    }
    for (size_t cell = (start - cells->start) / cells->size; start < end; cell++) {
        uintptr_t next = cells->start + (cell + 1) * cells->size;

        next = next < end ? next : end;
        column[cell] += next - start;
        column[cells->count + cell]++;
        start = next;
    }
    return true;
}

/* Adds pages as the buddy blocks they are: one, or say 4 and 1 where just 5 pages were kept. */
static bool add_pages(struct cells *cells, enum piece piece, uintptr_t start, size_t bytes) {
    size_t pages = bytes / bsa_page_size(cells->root);

    while (pages > 0) {
        unsigned order = bsa_log2_floor(pages);
        size_t size = bsa_page_size(cells->root) << order;

        if (!add(cells, piece, order, start, size)) {
            return false;
        }
        start += size;
        pages -= (size_t)1 << order;
    }
    return true;
}

static bool visit_allocation(void *context, const struct bsa_allocation *found) {
    return found->kind == BSA_KIND_OBJECT
               ? add(context, PIECE_OBJECT, 0, found->address, found->usable_size)
               : add_pages(context, PIECE_PAGES, found->address, found->usable_size);
}

static bool visit_slab(void *context, const struct bsa_slab_info *slab) {
    bool is_idle = slab->free_count + slab->remote_free_count == slab->capacity;

    return add_pages(context, is_idle ? PIECE_IDLE_SLAB : PIECE_SLAB, slab->base, slab->bytes);
}

/* Whether a free block has a buddy in the heap, which then must be in use, or a part of it. */
static bool is_stuck(const struct cells *cells, unsigned order, uintptr_t address) {
    uintptr_t size = (uintptr_t)bsa_page_size(cells->root) << order, buddy = address ^ size;
    const struct bsa_section_info *heap = &cells->section;

    return order < BSA_MAX_ORDER && buddy >= heap->start &&
           buddy + size <= heap->start + heap->size;
}

static bool add_free(struct cells *cells, unsigned order) {
    unsigned section = cells->section.index;
    size_t count = bsa_free_list(cells->root, section, order, NULL, 0);
    uintptr_t *addresses = PyMem_New(uintptr_t, count + 1);
    bool complete = addresses != NULL;

    if (!complete) {
        PyErr_NoMemory();
        return false;
    }
    bsa_free_list(cells->root, section, order, addresses, count);
    for (size_t i = 0; complete && i < count; i++) {
        enum piece piece = is_stuck(cells, order, addresses[i]) ? PIECE_STUCK : PIECE_FREE;

        complete = add(cells, piece, order, addresses[i], bsa_page_size(cells->root) << order);
    }
    PyMem_Free(addresses);
    return complete;
}

/* Fills the columns. False with MemoryError set. */
static bool add_all(struct cells *cells) {
    bsa_walk(cells->root, visit_allocation, cells);
    if (!PyErr_Occurred()) {
        bsa_walk_slabs(cells->root, visit_slab, cells);
    }
    for (unsigned order = 0; order < ORDERS && !PyErr_Occurred(); order++) {
        add_free(cells, order);
    }
    return !PyErr_Occurred();
}

/* New dict of the columns there are: (piece, order) to bytes. */
static PyObject *dict_of_columns(const struct cells *cells) {
    static const char *const names[PIECES] = {"pages", "slab", "idle", "object", "free", "stuck"};
    PyObject *dict = PyDict_New();

    for (unsigned i = 0; dict != NULL && i < PIECES * ORDERS; i++) {
        PyObject *column = cells->columns[i / ORDERS][i % ORDERS];
        PyObject *key = column == NULL ? NULL : Py_BuildValue("sI", names[i / ORDERS], i % ORDERS);

        if (column != NULL && (key == NULL || PyDict_SetItem(dict, key, column) < 0)) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(key);
    }
    return dict;
}

static bool parse_arguments(struct module_state *state, struct cells *cells, PyObject *const *args,
                            Py_ssize_t nargs, size_t *section) {
    if (nargs != ARGUMENTS || !PyObject_TypeCheck(args[ALLOCATOR], state->allocator_type)) {
        PyErr_SetString(PyExc_TypeError, "_cells() takes an Allocator and four numbers");
        return false;
    }
    return bsa_to_size(state, args[SECTION], "section", section) &&
           bsa_to_size(state, args[START], "start", &cells->start) &&
           bsa_to_size(state, args[SIZE], "size", &cells->size) &&
           bsa_to_size(state, args[COUNT], "count", &cells->count);
}

/* Whether there is such a section, and the cells end where addresses do at the latest. */
static bool prepare(struct module_state *state, struct cells *cells, size_t section) {
    uintptr_t heap_end;
    size_t bytes;

    if (section > UINT_MAX ||
        bsa_section_info(cells->root, (unsigned)section, &cells->section) != BSA_OK ||
        cells->size == 0 || cells->count > PY_SSIZE_T_MAX / (2 * sizeof(uint64_t)) ||
        __builtin_mul_overflow(cells->size, cells->count, &bytes) ||
        __builtin_add_overflow(cells->start, bytes, &cells->end)) {
        PyErr_SetString(state->invalid_param, "no such section, or no such cells");
        return false;
    }
    heap_end = cells->section.start + cells->section.size;
    cells->first = cells->start > cells->section.start ? cells->start : cells->section.start;
    cells->end = cells->end < heap_end ? cells->end : heap_end;
    return true;
}

PyDoc_STRVAR(
    cells_doc,
    "_cells($module, allocator, section, start, size, count, /)\n--\n\n"
    "What lies in `count` cells of `size` bytes from the address `start` on.\n\n"
    "section: index. Returns {(piece, order): column}; piece is 'pages', 'slab', 'idle' (a "
    "slab without live\n"
    "objects), 'object' (order 0), 'free' or 'stuck' (free, its buddy in the heap but in "
    "use). A column is\n"
    "bytes: unsigned 64-bit numbers, one a cell for the bytes, then one a cell for the "
    "pieces in it.");

static PyObject *core_cells(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    struct module_state *state = bsa_module_state(module);
    struct cells cells = {0};
    AllocatorObject *allocator;
    PyObject *result = NULL;
    size_t section;

    if (!parse_arguments(state, &cells, args, nargs, &section)) {
        return NULL;
    }
    allocator = (AllocatorObject *)args[ALLOCATOR];
    BSA_LOCK(allocator);
    if (!bsa_check_open(allocator)) {
        return NULL;
    }
    cells.root = allocator->root;
    if (prepare(state, &cells, section) && add_all(&cells)) {
        result = dict_of_columns(&cells);
    }
    for (unsigned i = 0; i < PIECES * ORDERS; i++) {
        Py_XDECREF(cells.columns[i / ORDERS][i % ORDERS]);
    }
    return result;
}

static PyMethodDef functions[] = {
    {"_cells", BSA_METHOD(core_cells), METH_FASTCALL, cells_doc},
    {NULL, NULL, 0, NULL},
};

int bsa_cells_exec(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
