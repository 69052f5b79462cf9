/* See simulation.h. */
#include "simulation.h"

#include <stdarg.h>
#include <string.h>

enum { OP, ID, SIZE, ALIGN, THREAD };

static const struct {
    const char *name, *format;
    Py_ssize_t item;
} column_kinds[BSA_COLUMNS] = {
    [OP] = {"op", "B", 1},       [ID] = {"id", "I", 4},         [SIZE] = {"size", "Q", 8},
    [ALIGN] = {"align", "I", 4}, [THREAD] = {"thread", "I", 4},
};

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

static uint64_t count_ids(const struct bsa_events *events) {
    uint64_t ids = 0;

    for (size_t event = 0; event < events->length; event++) {
        ids = events->id[event] < ids ? ids : (uint64_t)events->id[event] + 1;
    }
    return ids;
}

bool bsa_hold_columns(const struct module_state *state, struct bsa_columns *columns,
                      PyObject *const *args) {
    Py_buffer *views = columns->views;

    for (unsigned kind = 0; kind < BSA_COLUMNS; kind++) {
        if (!hold_column(&views[kind], args[kind], kind)) {
            return false;
        }
        if (views[kind].shape[0] != views[0].shape[0]) {
            PyErr_SetString(state->invalid_param, "the columns have different lengths");
            return false;
        }
    }
    columns->events = (struct bsa_events){
        .op = views[OP].buf,
        .id = views[ID].buf,
        .size = views[SIZE].buf,
        .align = views[ALIGN].buf,
        .thread = views[THREAD].buf,
        .length = (size_t)views[OP].shape[0],
    };
    columns->ids = count_ids(&columns->events);
    return true;
}

void bsa_release_columns(struct bsa_columns *columns) {
    for (unsigned kind = 0; kind < BSA_COLUMNS; kind++) {
        PyBuffer_Release(&columns->views[kind]);
    }
}

const char *bsa_op_name(uint8_t op) {
    static const char *const names[] = {"event", "alloc", "zalloc", "realloc", "free"};

    return op < sizeof names / sizeof *names ? names[op] : names[0];
}

bool bsa_pause(PyObject *progress, const char *format, ...) {
    PyObject *arguments, *result;
    va_list values;

    if (PyErr_CheckSignals() < 0) {
        return false;
    }
    if (progress == NULL) {
        return true;
    }
    va_start(values, format);
    arguments = Py_VaBuildValue(format, values);
    va_end(values);
    result = arguments == NULL ? NULL : PyObject_CallObject(progress, arguments);
    Py_XDECREF(arguments);
    Py_XDECREF(result);
    return result != NULL;
}
