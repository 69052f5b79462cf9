/* Replay for Python: one private function from the columns of a trace to the samples of a timeline.
 *
 * The engine (csrc/hosted/replay.c) runs batch by batch. During a batch this thread owns the
 * allocator and the GIL is released; between two the GIL is held, signals are looked at and
 * `progress` is called. An exception there, or a failing event, ends the replay between two events:
 * the allocator stays valid, and what was allocated stays so. */
#include "replay.h"

#include "../hosted/replay.h"
#include "allocator.h"
#include "arguments.h"
#include "errors.h"

#define BATCH_EVENTS 65536 /* about a millisecond: Ctrl-C and other threads do not wait longer */

enum { OP, ID, SIZE, ALIGN, THREAD, COLUMNS };

static const struct {
    const char *name, *format;
    Py_ssize_t item;
} column_kinds[COLUMNS] = {
    [OP] = {"op", "B", 1},       [ID] = {"id", "I", 4},         [SIZE] = {"size", "Q", 8},
    [ALIGN] = {"align", "I", 4}, [THREAD] = {"thread", "I", 4},
};

/* What one call holds. All zero holds nothing. */
struct replay_call {
    struct module_state *state;
    AllocatorObject *allocator; /* borrowed from the arguments */
    PyObject *progress;         /* the same; NULL for none */
    Py_buffer columns[COLUMNS];
    struct bsa_replay_entry *table;
    PyObject *rows; /* bytes: struct bsa_sample, as many as `samples` */
    size_t samples;
    size_t sampled;
    bool is_pinning; /* the allocator */
    struct bsa_replay replay;
};

/* ---- Arguments ----------------------------------------------------------------------------- */

static bool hold_column(Py_buffer *column, PyObject *object, unsigned kind) {
    if (PyObject_GetBuffer(object, column, PyBUF_ND | PyBUF_FORMAT) < 0) {
        return false;
    }
    if (column->ndim == 1 && column->itemsize == column_kinds[kind].item &&
        column->format != NULL && strcmp(column->format, column_kinds[kind].format) == 0) {
        return true;
    }
    PyErr_Format(PyExc_TypeError, "%s: expected a one-dimensional buffer of format '%s'",
                 column_kinds[kind].name, column_kinds[kind].format);
    return false;
}

/* Gets the five columns from args[0] on, all of one length. */
static bool hold_columns(struct replay_call *call, PyObject *const *args) {
    for (unsigned kind = 0; kind < COLUMNS; kind++) {
        if (!hold_column(&call->columns[kind], args[kind], kind)) {
            return false;
        }
        if (call->columns[kind].shape[0] != call->columns[0].shape[0]) {
            PyErr_SetString(call->state->invalid_param, "the columns have different lengths");
            return false;
        }
    }
    return true;
}

static struct bsa_events events_of(const struct replay_call *call) {
    return (struct bsa_events){
        .op = call->columns[OP].buf,
        .id = call->columns[ID].buf,
        .size = call->columns[SIZE].buf,
        .align = call->columns[ALIGN].buf,
        .thread = call->columns[THREAD].buf,
        .length = (size_t)call->columns[OP].shape[0],
    };
}

static uint64_t table_size(const struct bsa_events *events) {
    uint64_t size = 0;

    for (size_t event = 0; event < events->length; event++) {
        size = events->id[event] < size ? size : (uint64_t)events->id[event] + 1;
    }
    return size;
}

/* How many samples to take: the last one always, and not more than there are events. */
static bool parse_samples(struct replay_call *call, PyObject *object) {
    size_t events = (size_t)call->columns[OP].shape[0];
    size_t samples;

    if (!bsa_to_size(call->state, object, "samples", &samples)) {
        return false;
    }
    samples = samples < events ? samples : events;
    call->samples = samples > 0 ? samples : 1;
    return true;
}

static bool parse_arguments(struct replay_call *call, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3 + COLUMNS) {
        PyErr_Format(PyExc_TypeError, "_replay() takes %d arguments, not %zd", 3 + COLUMNS, nargs);
        return false;
    }
    if (!PyObject_TypeCheck(args[0], call->state->allocator_type)) {
        PyErr_Format(PyExc_TypeError, "replay() needs a bsa.Allocator, not %.100s",
                     Py_TYPE(args[0])->tp_name);
        return false;
    }
    call->allocator = (AllocatorObject *)args[0];
    call->progress = Py_IsNone(args[2 + COLUMNS]) ? NULL : args[2 + COLUMNS];
    return hold_columns(call, args + 1) && parse_samples(call, args[1 + COLUMNS]);
}

/* ---- Running ------------------------------------------------------------------------------- */

static struct bsa_sample *next_sample(const struct replay_call *call) {
    return (struct bsa_sample *)(void *)PyBytes_AS_STRING(call->rows) + call->sampled;
}

/* Runs one batch, taking the samples that fall into it. Without the GIL. */
static bsa_replay_status run_batch(struct replay_call *call) {
    struct bsa_replay *replay = &call->replay;
    size_t end = replay->next + BATCH_EVENTS;

    while (call->sampled < call->samples) {
        size_t due = bsa_replay_sample_point(replay->events.length, call->samples, call->sampled);
        bsa_replay_status status = bsa_replay_run(replay, due < end ? due : end);

        if (status != BSA_REPLAY_OK || replay->next < due) {
            return status;
        }
        bsa_replay_sample(replay, next_sample(call));
        call->sampled++;
    }
    return BSA_REPLAY_OK;
}

static bool between_batches(struct replay_call *call) {
    PyObject *result;

    if (PyErr_CheckSignals() < 0) {
        return false;
    }
    if (call->progress == NULL) {
        return true;
    }
    result = PyObject_CallFunction(call->progress, "n", (Py_ssize_t)call->replay.next);
    Py_XDECREF(result);
    return result != NULL;
}

/* ---- Failing ------------------------------------------------------------------------------- */

static const char *op_name(uint8_t op) {
    static const char *const names[] = {"event", "alloc", "zalloc", "realloc", "free"};

    return op < sizeof names / sizeof *names ? names[op] : names[0];
}

static PyObject *exception_of(const struct module_state *state, bsa_status refusal) {
    switch (refusal) {
    case BSA_NOT_INITIALIZED:
        return state->not_initialized;
    case BSA_NOT_ALLOCATED: /* somebody else freed it between two batches */
        return state->not_allocated;
    case BSA_NOT_FOUND:
        return state->not_found;
    default:
        return state->invalid_param;
    }
}

/* Sets the exception for the event that failed. */
static void raise_failure(const struct replay_call *call, bsa_replay_status status) {
    const struct bsa_replay *replay = &call->replay;
    const struct bsa_events *events = &replay->events;
    size_t event = replay->next;
    const char *op = op_name(events->op[event]);

    if (status != BSA_REPLAY_REFUSED) {
        PyErr_Format(call->state->invalid_param, "event %zu (%s of id %u): %s", event, op,
                     (unsigned)events->id[event], bsa_replay_status_text(status));
    } else if (replay->refusal == BSA_NO_MEMORY) {
        bsa_raise_out_of_memory(call->allocator, events->size[event], events->align[event],
                                "event %zu (%s): ", event, op);
    } else {
        PyErr_Format(exception_of(call->state, replay->refusal), "event %zu (%s of %llu bytes): %s",
                     event, op, (unsigned long long)events->size[event],
                     bsa_status_text(replay->refusal));
    }
}

static bool is_owned_by_block(void *extents, uintptr_t address) {
    return bsa_extent_at(extents, address) != NULL;
}

/* Since the last batch a Block may have got an address that the trace is going to free. */
static bool begin_batch(struct replay_call *call) {
    struct extent_index *extents = &call->allocator->extents;

    if (!bsa_allocator_begin_long(call->allocator)) {
        return false;
    }
    /* Only now: beginning may have let others in. */
    if (extents->count > 0 && !bsa_extents_ready(extents)) {
        bsa_allocator_end_long(call->allocator);
        return false;
    }
    call->replay.is_taken = extents->count > 0 ? is_owned_by_block : NULL;
    call->replay.context = extents;
    return true;
}

/* Runs everything, batch by batch. */
static bool run_all(struct replay_call *call) {
    while (call->sampled < call->samples) {
        bsa_replay_status status;
        PyThreadState *without_gil;

        if (!bsa_check_open(call->allocator) || !begin_batch(call)) {
            return false;
        }
        without_gil = PyEval_SaveThread();
        status = run_batch(call);
        PyEval_RestoreThread(without_gil);
        bsa_allocator_end_long(call->allocator);
        if (status != BSA_REPLAY_OK) {
            raise_failure(call, status);
            return false;
        }
        if (!between_batches(call)) {
            return false;
        }
    }
    return true;
}

/* ---- The function -------------------------------------------------------------------------- */

/* Gets what the run needs, once the arguments are known, and pins the allocator: until the end it
 * can neither be closed nor lose a section, also not between two batches. */
static bool prepare(struct replay_call *call) {
    struct bsa_events events = events_of(call);
    uint64_t ids = table_size(&events);

    call->table = PyMem_RawCalloc(ids > 0 ? ids : 1, sizeof *call->table);
    if (call->table == NULL || call->samples > PY_SSIZE_T_MAX / sizeof(struct bsa_sample)) {
        PyErr_NoMemory();
        return false;
    }
    call->rows =
        PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(call->samples * sizeof(struct bsa_sample)));
    if (call->rows == NULL || !bsa_check_open(call->allocator)) {
        return false;
    }
    call->allocator->pins++;
    call->is_pinning = true;
    bsa_replay_init(&call->replay, call->allocator->root, &events, call->table, ids);
    return true;
}

static void release(struct replay_call *call) {
    if (call->is_pinning) {
        call->allocator->pins--;
    }
    for (unsigned kind = 0; kind < COLUMNS; kind++) {
        PyBuffer_Release(&call->columns[kind]);
    }
    PyMem_RawFree(call->table);
    Py_XDECREF(call->rows);
}

PyDoc_STRVAR(
    replay_doc,
    "_replay($module, allocator, op, id, size, align, thread, samples, progress, /)\n--\n\n"
    "Run the events; (samples as bytes, number of survivors).");

static PyObject *core_replay(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    struct replay_call call = {.state = bsa_module_state(module)};
    PyObject *result = NULL;

    if (parse_arguments(&call, args, nargs) && prepare(&call) && run_all(&call)) {
        result = Py_BuildValue("(OK)", call.rows, (unsigned long long)call.replay.live);
    }
    release(&call);
    return result;
}

static PyMethodDef functions[] = {
    {"_replay", BSA_METHOD(core_replay), METH_FASTCALL, replay_doc},
    {NULL, NULL, 0, NULL},
};

int bsa_replay_exec(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
