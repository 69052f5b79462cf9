/* Other allocators' placement of a trace, for Python: one private function around
 * csrc/hosted/placement.c. */
#include "../hosted/placement.h"

#include "arguments.h"
#include "simulation.h"

/* What one call holds. All zero holds nothing. */
struct placement_call {
    struct module_state *state;
    PyObject *progress; /* borrowed from the arguments; NULL for none */
    struct bsa_columns columns;
    size_t policy, header;
    uint32_t *table;
    struct bsa_placement placement;
};

enum { COLUMNS, POLICY = COLUMNS + BSA_COLUMNS, HEADER, PROGRESS, ARGUMENTS };

static bool parse_arguments(struct placement_call *call, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != ARGUMENTS) {
        PyErr_Format(PyExc_TypeError, "_place() takes %d arguments, not %zd", ARGUMENTS, nargs);
        return false;
    }
    call->progress = Py_IsNone(args[PROGRESS]) ? NULL : args[PROGRESS];
    if (!bsa_hold_columns(call->state, &call->columns, args + COLUMNS) ||
        !bsa_to_size(call->state, args[POLICY], "policy", &call->policy) ||
        !bsa_to_size(call->state, args[HEADER], "header", &call->header)) {
        return false;
    }
    if (call->policy >= BSA_PLACEMENT_POLICIES || call->header > BSA_PIECE_MIN) {
        PyErr_Format(call->state->invalid_param, "header must be from 0 to %d, is %zu",
                     BSA_PIECE_MIN, call->header);
        return false;
    }
    return true;
}

static void raise_failure(const struct placement_call *call, bsa_placement_status status) {
    const struct bsa_placement *placement = &call->placement;
    size_t event = placement->next;
    const char *op = bsa_op_name(placement->events.op[event]);

    if (status == BSA_PLACEMENT_NO_MEMORY) {
        PyErr_NoMemory();
    } else if (status == BSA_PLACEMENT_TOO_LARGE) {
        PyErr_Format(call->state->out_of_memory,
                     "event %zu (%s): no address space has room for %llu bytes more", event, op,
                     (unsigned long long)placement->events.size[event]);
    } else {
        PyErr_Format(call->state->invalid_param, "event %zu (%s of id %u) is not possible", event,
                     op, (unsigned)placement->events.id[event]);
    }
}

/* Runs everything, batch by batch. */
static bool run_all(struct placement_call *call) {
    struct bsa_placement *placement = &call->placement;
    size_t events = call->columns.events.length;

    while (placement->next < events) {
        bsa_placement_status status;
        PyThreadState *without_gil = PyEval_SaveThread();
        size_t left = events - placement->next;

        status = bsa_placement_run(
            placement, placement->next + (left < BSA_BATCH_EVENTS ? left : BSA_BATCH_EVENTS));
        PyEval_RestoreThread(without_gil);
        if (status != BSA_PLACEMENT_OK) {
            raise_failure(call, status);
            return false;
        }
        if (!bsa_pause(call->progress, "(n)", (Py_ssize_t)placement->next)) {
            return false;
        }
    }
    return true;
}

PyDoc_STRVAR(place_doc,
             "_place($module, op, id, size, align, thread, policy, header, progress, /)\n--\n\n"
             "Bytes from the first to beyond the last that the events' blocks ever took.\n"
             "policy: 0 first fit, 1 best fit, 2 TLSF.");

static PyObject *core_place(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    struct placement_call call = {.state = bsa_module_state(module)};
    PyObject *result = NULL;

    if (parse_arguments(&call, args, nargs)) {
        call.table = PyMem_RawCalloc(call.columns.ids + 1, sizeof *call.table);
        if (call.table == NULL) {
            PyErr_NoMemory();
        } else {
            bsa_placement_init(&call.placement, (enum bsa_placement_policy)call.policy, call.header,
                               &call.columns.events, call.table);
            if (run_all(&call)) {
                result = PyLong_FromUnsignedLongLong(call.placement.peak);
            }
        }
    }
    bsa_placement_clear(&call.placement);
    PyMem_RawFree(call.table);
    bsa_release_columns(&call.columns);
    return result;
}

static PyMethodDef functions[] = {
    {"_place", BSA_METHOD(core_place), METH_FASTCALL, place_doc},
    {NULL, NULL, 0, NULL},
};

int bsa_placement_exec(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
