/* The struct sequence that Allocator.stats() returns. */
#include "allocator.h"

static PyStructSequence_Field stats_fields[] = {
    {"current_bytes", "bytes granted to live allocations"},
    {"current_count", "live allocations"},
    {"peak_bytes", "the most that current_bytes and parked_bytes together have been"},
    {"peak_count", "the most allocations that have been held at once"},
    {"total_bytes", "bytes granted ever"},
    {"total_count", "allocations ever"},
    {"failures", "requests refused for lack of memory (each try counts)"},
    {"parked_bytes", "bytes of freed Blocks that were exported and are still alive"},
    {"per_class", "(object size, live, ever) of each size class"},
    {"per_order", "(live, ever) page blocks of each order, 0 to 20"},
    {NULL, NULL},
};

static PyStructSequence_Desc stats_desc = {
    "bsa.Stats",
    "Counts and bytes of an Allocator's allocations.\n\n"
    "Bytes are as granted: an object counts with its class's size, a page block with its pages. A "
    "Block\n"
    "that was freed after an export is parked: no longer in current_*, but in parked_bytes.",
    stats_fields,
    Py_ARRAY_LENGTH(stats_fields) - 1,
};

static PyObject *per_class(const struct bsa_stats *stats, Py_ssize_t count) {
    PyObject *tuple = PyTuple_New(count);

    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *use = Py_BuildValue("nKK", (Py_ssize_t)bsa_class_size((unsigned)i),
                                      (unsigned long long)stats->per_class[i].live,
                                      (unsigned long long)stats->per_class[i].total);

        if (use == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, i, use);
        }
    }
    return tuple;
}

static PyObject *per_order(const struct bsa_stats *stats) {
    PyObject *tuple = PyTuple_New(BSA_MAX_ORDER + 1);

    for (Py_ssize_t order = 0; tuple != NULL && order <= BSA_MAX_ORDER; order++) {
        PyObject *use = Py_BuildValue("KK", (unsigned long long)stats->per_order[order].live,
                                      (unsigned long long)stats->per_order[order].total);

        if (use == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, order, use);
        }
    }
    return tuple;
}

/* Everything is asked for first: making Python objects may run finalisers, which may close the
 * allocator. */
PyObject *bsa_stats_new(AllocatorObject *self) {
    Py_ssize_t classes = (Py_ssize_t)bsa_class_count(self->root), place = 0;
    struct bsa_stats stats;
    PyObject *sequence;

    bsa_stats(self->root, &stats);
    const uint64_t numbers[] = {
        stats.current_bytes - self->parked_bytes,
        stats.current_count - self->parked_count,
        stats.peak_bytes,
        stats.peak_count,
        stats.total_bytes,
        stats.total_count,
        stats.failures,
        self->parked_bytes,
    };

    sequence = PyStructSequence_New(self->state->stats_type);
    if (sequence == NULL) {
        return NULL;
    }
    for (; place < (Py_ssize_t)Py_ARRAY_LENGTH(numbers); place++) {
        PyStructSequence_SetItem(sequence, place, PyLong_FromUnsignedLongLong(numbers[place]));
    }
    PyStructSequence_SetItem(sequence, place++, per_class(&stats, classes));
    PyStructSequence_SetItem(sequence, place, per_order(&stats));
    if (PyErr_Occurred()) {
        Py_CLEAR(sequence);
    }
    return sequence;
}

int bsa_add_stats_type(PyObject *module, struct module_state *state) {
    state->stats_type = PyStructSequence_NewType(&stats_desc);
    return state->stats_type == NULL ? -1 : PyModule_AddType(module, state->stats_type);
}
