/* Replay for Python: one private function from the columns of a trace to the samples of a timeline.
 *
 * The engine (csrc/hosted/replay.c) runs batch by batch. During a batch this thread owns the
 * allocator and the GIL is released; between two the GIL is held, signals are looked at and
 * `progress` is called. An exception there, or a failing event, ends the replay between two events:
 * the allocator stays valid, and what was allocated stays so. */
#include "../hosted/replay.h"
#include "allocator.h"
#include "arguments.h"
#include "errors.h"
#include "lock.h"
#include "simulation.h"

/* What one call holds. All zero holds nothing. */
struct replay_call {
    struct module_state *state;
    AllocatorObject *allocator; /* borrowed from the arguments */
    PyObject *progress;         /* the same; NULL for none */
    struct bsa_columns columns;
    struct bsa_replay_entry *table;
    Py_buffer given; /* the caller's table; nothing is held if there is none */
    PyObject *rows;  /* bytes: struct bsa_sample, as many as `samples` */
    size_t samples;
    size_t sampled;
    bool skips_bad;
    struct bsa_call *pin; /* of the allocator, or NULL */
    struct bsa_replay replay;
};

/* ---- Arguments ----------------------------------------------------------------------------- */

/* How many samples to take: the last one always, and not more than there are events. */
static bool parse_samples(struct replay_call *call, PyObject *object) {
    size_t events = call->columns.events.length;
    size_t samples;

    if (!bsa_to_size(call->state, object, "samples", &samples)) {
        return false;
    }
    samples = samples < events ? samples : events;
    call->samples = samples > 0 ? samples : 1;
    return true;
}

/* Holds the table of a replay that goes on where another one ended. None: there is none. */
static bool hold_table(struct replay_call *call, PyObject *object) {
    if (Py_IsNone(object)) {
        return true;
    }
    if (PyObject_GetBuffer(object, &call->given, PyBUF_WRITABLE) < 0) {
        return false;
    }
    if ((size_t)call->given.len / sizeof *call->table < call->columns.ids ||
        (uintptr_t)call->given.buf % _Alignof(struct bsa_replay_entry) != 0) {
        PyErr_SetString(call->state->invalid_param, "the table has no room for every id");
        return false;
    }
    return true;
}

enum { ALLOCATOR, COLUMNS, SAMPLES = COLUMNS + BSA_COLUMNS, SKIPS_BAD, PROGRESS, TABLE, ARGUMENTS };

static bool parse_arguments(struct replay_call *call, PyObject *const *args, Py_ssize_t nargs) {
    int skips_bad;

    if (nargs != ARGUMENTS) {
        PyErr_Format(PyExc_TypeError, "_replay() takes %d arguments, not %zd", ARGUMENTS, nargs);
        return false;
    }
    if (!PyObject_TypeCheck(args[ALLOCATOR], call->state->allocator_type)) {
        PyErr_Format(PyExc_TypeError, "replay() needs a bsa.Allocator, not %.100s",
                     Py_TYPE(args[ALLOCATOR])->tp_name);
        return false;
    }
    skips_bad = PyObject_IsTrue(args[SKIPS_BAD]);
    if (skips_bad < 0) {
        return false;
    }
    call->allocator = (AllocatorObject *)args[ALLOCATOR];
    call->skips_bad = skips_bad != 0;
    call->progress = Py_IsNone(args[PROGRESS]) ? NULL : args[PROGRESS];
    return bsa_hold_columns(call->state, &call->columns, args + COLUMNS) &&
           parse_samples(call, args[SAMPLES]) && hold_table(call, args[TABLE]);
}

/* ---- Running ------------------------------------------------------------------------------- */

static struct bsa_sample *next_sample(const struct replay_call *call) {
    return (struct bsa_sample *)(void *)PyBytes_AS_STRING(call->rows) + call->sampled;
}

/* Runs one batch, taking the samples that fall into it. Without the GIL. */
static bsa_replay_status run_batch(struct replay_call *call) {
    struct bsa_replay *replay = &call->replay;
    size_t end = replay->next + BSA_BATCH_EVENTS;

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

/* ---- Failing ------------------------------------------------------------------------------- */

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
    const char *op = bsa_op_name(events->op[event]);

    if (status == BSA_REPLAY_NO_MEMORY) {
        bsa_raise_out_of_memory(call->allocator, events->size[event], events->align[event],
                                "event %zu (%s): ", event, op);
    } else if (status == BSA_REPLAY_REFUSED) {
        PyErr_Format(exception_of(call->state, replay->refusal), "event %zu (%s of %llu bytes): %s",
                     event, op, (unsigned long long)events->size[event],
                     bsa_status_text(replay->refusal));
    } else {
        PyErr_Format(call->state->invalid_param, "event %zu (%s of id %u): %s", event, op,
                     (unsigned)events->id[event], bsa_replay_status_text(status));
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
        struct bsa_held *held;
        bool goes_on;

        if (!begin_batch(call)) {
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
        held = bsa_let_go();
        goes_on = bsa_pause(call->progress, "(n)", (Py_ssize_t)call->replay.next);
        bsa_take_again(held);
        if (!goes_on) {
            return false;
        }
    }
    return true;
}

/* ---- The function -------------------------------------------------------------------------- */

/* Gets what the run needs, once the arguments are known, and pins the allocator: until the end it
 * can neither be closed nor lose a section, also not between two batches. */
static bool prepare(struct replay_call *call) {
    uint64_t ids = call->columns.ids;

    call->table = call->given.obj != NULL ? call->given.buf
                                          : PyMem_RawCalloc(ids > 0 ? ids : 1, sizeof *call->table);
    if (call->table == NULL || call->samples > PY_SSIZE_T_MAX / sizeof(struct bsa_sample)) {
        PyErr_NoMemory();
        return false;
    }
    call->rows =
        PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(call->samples * sizeof(struct bsa_sample)));
    if (call->rows == NULL || !bsa_check_open(call->allocator)) {
        return false;
    }
    call->pin = bsa_pin(call->allocator);
    if (call->pin == NULL) {
        return false;
    }
    bsa_replay_init(&call->replay, call->allocator->root, &call->columns.events, call->table);
    call->replay.skips_bad = call->skips_bad;
    return true;
}

static bool run(struct replay_call *call) {
    bool done;

    BSA_LOCK(call->allocator);
    done = prepare(call) && run_all(call);
    if (call->pin != NULL) {
        bsa_unpin(call->allocator, call->pin);
    }
    return done;
}

static void release(struct replay_call *call) {
    bsa_release_columns(&call->columns);
    if (call->given.obj == NULL) {
        PyMem_RawFree(call->table);
    }
    PyBuffer_Release(&call->given);
    Py_XDECREF(call->rows);
}

/* A dict: how many events were skipped, by kind; only kinds that there were. */
static PyObject *skipped_events(const struct bsa_replay *replay) {
    static const char *const names[BSA_REPLAY_STATUSES] = {
        [BSA_REPLAY_NO_MEMORY] = "no_memory",
        [BSA_REPLAY_REFUSED] = "refused",
        [BSA_REPLAY_UNKNOWN_OP] = "unknown_ops",
        [BSA_REPLAY_REPEATED_ID] = "repeated_ids",
        [BSA_REPLAY_UNKNOWN_FREE] = "unknown_frees",
        [BSA_REPLAY_DOUBLE_FREE] = "double_frees",
        [BSA_REPLAY_UNKNOWN_REALLOC] = "unknown_reallocs",
        [BSA_REPLAY_TAKEN] = "taken",
        [BSA_REPLAY_ORPHANED] = "orphaned",
    };
    PyObject *counts = PyDict_New();

    for (unsigned status = BSA_REPLAY_OK + 1; status < BSA_REPLAY_STATUSES; status++) {
        PyObject *count;

        if (counts == NULL || replay->skipped[status] == 0) {
            continue;
        }
        count = PyLong_FromUnsignedLongLong(replay->skipped[status]);
        if (count == NULL || PyDict_SetItemString(counts, names[status], count) < 0) {
            Py_CLEAR(counts);
        }
        Py_XDECREF(count);
    }
    return counts;
}

PyDoc_STRVAR(
    replay_doc,
    "_replay($module, allocator, op, id, size, align, thread, samples, skips_bad,\n"
    "        progress, table, /)\n--\n\n"
    "Run the events; (samples as bytes, number of survivors, skipped events by kind).\n\n"
    "table: None, or writable memory of two 64-bit numbers an id, zero at first: there the\n"
    "replay leaves the address (0 if it does not live) and the bytes of each block. With\n"
    "the table of a replay before, in the same heap, it goes on from there; then survivors\n"
    "and samples count only what has changed since.");

static PyObject *core_replay(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    struct replay_call call = {.state = bsa_module_state(module)};
    PyObject *result = NULL;

    if (parse_arguments(&call, args, nargs) && run(&call)) {
        PyObject *skipped = skipped_events(&call.replay);

        if (skipped != NULL) {
            result = Py_BuildValue("(OLN)", call.rows, (long long)call.replay.live, skipped);
        }
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
