/* The smallest heap for a trace, for Python: one private function around csrc/hosted/sizing.c. */
#include "../hosted/sizing.h"

#include "errors.h"
#include "arguments.h"
#include "mapping.h"
#include "simulation.h"

#include <errno.h>

enum { ROOT_ALIGNMENT = 64 };

/* What one call holds. All zero holds nothing. */
struct sizing_call {
    struct module_state *state;
    PyObject *progress; /* borrowed from the arguments; NULL for none */
    struct bsa_columns columns;
    size_t peak, page_size, slots;
    struct bsa_replay_entry *table;
    void *root_memory;
    struct bsa_sizing sizing;
};

enum { COLUMNS, PEAK = COLUMNS + BSA_COLUMNS, PAGE_SIZE, SLOTS, PROGRESS, ARGUMENTS };

static bool parse_arguments(struct sizing_call *call, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != ARGUMENTS) {
        PyErr_Format(PyExc_TypeError, "_smallest_heap() takes %d arguments, not %zd", ARGUMENTS,
                     nargs);
        return false;
    }
    call->slots = bsa_processors();
    call->progress = Py_IsNone(args[PROGRESS]) ? NULL : args[PROGRESS];
    return bsa_hold_columns(call->state, &call->columns, args + COLUMNS) &&
           bsa_to_size(call->state, args[PEAK], "peak", &call->peak) &&
           bsa_to_size(call->state, args[PAGE_SIZE], "page_size", &call->page_size) &&
           (Py_IsNone(args[SLOTS]) || bsa_to_size(call->state, args[SLOTS], "cpus", &call->slots));
}

/* Page size and slots are those that an Allocator with these arguments would take. */
static bool prepare(struct sizing_call *call) {
    size_t root_size = call->slots <= BSA_MAX_SLOTS ? bsa_root_size((unsigned)call->slots) : 0;
    uint64_t ids = call->columns.ids;
    uintptr_t root;

    call->table = PyMem_RawCalloc(ids > 0 ? ids : 1, sizeof *call->table);
    call->root_memory = PyMem_RawCalloc(1, root_size + ROOT_ALIGNMENT);
    if (call->table == NULL || call->root_memory == NULL) {
        PyErr_NoMemory();
        return false;
    }
    root = ((uintptr_t)call->root_memory + ROOT_ALIGNMENT - 1) & ~(uintptr_t)(ROOT_ALIGNMENT - 1);
    if (root_size == 0 ||
        !bsa_sizing_init(&call->sizing, &call->columns.events, call->peak, call->page_size,
                         (unsigned)call->slots, call->table, ids, (void *)root)) {
        PyErr_SetString(call->state->invalid_param, "no allocator has such a page_size or cpus");
        return false;
    }
    return true;
}

static void raise_failure(const struct sizing_call *call, bsa_sizing_status status, int error) {
    const struct bsa_sizing *sizing = &call->sizing;
    const struct bsa_events *events = &sizing->events;
    size_t event = sizing->replay.next;

    if (status == BSA_SIZING_UNMAPPABLE) {
        bsa_raise_cannot_map(call->state, sizing->pages * call->page_size, strerror(error));
    } else if (sizing->failure == BSA_REPLAY_NO_MEMORY) {
        PyErr_Format(call->state->out_of_memory,
                     "event %zu (%s): %llu bytes fit into no heap with pages of %zu bytes", event,
                     bsa_op_name(events->op[event]), (unsigned long long)events->size[event],
                     call->page_size);
    } else {
        PyErr_Format(call->state->invalid_param, "event %zu (%s of id %u): %s", event,
                     bsa_op_name(events->op[event]), (unsigned)events->id[event],
                     bsa_replay_status_text(sizing->failure));
    }
}

/* Runs the search, batch by batch. */
static bool run_all(struct sizing_call *call) {
    struct bsa_sizing *sizing = &call->sizing;
    bsa_sizing_status status;

    do {
        PyThreadState *without_gil = PyEval_SaveThread();
        int error;

        status = bsa_sizing_run(sizing, BSA_BATCH_EVENTS);
        error = errno;
        PyEval_RestoreThread(without_gil);
        if (status > BSA_SIZING_MORE) {
            raise_failure(call, status, error);
            return false;
        }
        if (!bsa_pause(call->progress, "(Kn)",
                       (unsigned long long)(sizing->pages * call->page_size),
                       (Py_ssize_t)sizing->replay.next)) {
            return false;
        }
    } while (status == BSA_SIZING_MORE);
    return true;
}

static void release(struct sizing_call *call) {
    bsa_sizing_clear(&call->sizing);
    PyMem_RawFree(call->root_memory);
    PyMem_RawFree(call->table);
    bsa_release_columns(&call->columns);
}

PyDoc_STRVAR(smallest_heap_doc,
             "_smallest_heap($module, op, id, size, align, thread, peak, page_size, cpus,\n"
             "               progress, /)\n--\n\n"
             "Bytes of the smallest heap that is enough for the events.");

static PyObject *core_smallest_heap(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    struct sizing_call call = {.state = bsa_module_state(module)};
    PyObject *result = NULL;

    if (parse_arguments(&call, args, nargs) && prepare(&call) && run_all(&call)) {
        result = PyLong_FromUnsignedLongLong(call.sizing.enough * call.page_size);
    }
    release(&call);
    return result;
}

static PyMethodDef functions[] = {
    {"_smallest_heap", BSA_METHOD(core_smallest_heap), METH_FASTCALL, smallest_heap_doc},
    {NULL, NULL, 0, NULL},
};

int bsa_sizing_exec(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
