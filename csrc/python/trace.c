/* Traces for Python: four functions from buffers to buffers; bsa/trace.py makes a type of them.
 *
 * A trace is five bytes objects, (op, id, size, align, thread). Work goes on with the GIL released,
 * on buffers held meanwhile. What is wrong with the data is a ValueError whose text names the
 * place. */
#include "trace.h"

#include "trace_check.h"
#include "trace_read.h"

/* ---- Results ------------------------------------------------------------------------------- */

static PyObject *column(const void *items, size_t count, size_t item) {
    return PyBytes_FromStringAndSize(items, (Py_ssize_t)(count * item));
}

/* (op, id, size, align, thread, facts). Takes over the reference to `facts`, which may be NULL with
 * an exception set. */
static PyObject *columns_and_facts(const struct bsa_trace_builder *b, PyObject *facts) {
    struct bsa_events t = bsa_trace_build_columns(b);

    if (facts == NULL) {
        return NULL;
    }
    /* "N" takes over references, and passes on the failure of any. */
    return Py_BuildValue(
        "(NNNNNN)", column(t.op, t.length, sizeof *t.op), column(t.id, t.length, sizeof *t.id),
        column(t.size, t.length, sizeof *t.size), column(t.align, t.length, sizeof *t.align),
        column(t.thread, t.length, sizeof *t.thread), facts);
}

static PyObject *raise_trace_error(const struct bsa_trace_error *error) {
    if (error->text[0] == 0) {
        return PyErr_NoMemory();
    }
    PyErr_SetString(PyExc_ValueError, error->text);
    return NULL;
}

#define ULL(number) ((unsigned long long)(number))

static PyObject *oddity_facts(const struct bsa_trace_oddities *o) {
    return Py_BuildValue("{sKsKsK}", "unknown_frees", ULL(o->unknown_frees), "unknown_reallocs",
                         ULL(o->unknown_reallocs), "missed_frees", ULL(o->missed_frees));
}

static PyObject *recording_facts(const struct bsa_recording_facts *f,
                                 const struct bsa_trace_oddities *o) {
    return Py_BuildValue("{sisNsKsKsKsK}", "pid", f->pid, "cut", PyBool_FromLong(f->cut), "torn",
                         ULL(f->torn), "unknown_frees", ULL(o->unknown_frees), "unknown_reallocs",
                         ULL(o->unknown_reallocs), "missed_frees", ULL(o->missed_frees));
}

static PyObject *text_facts(uint64_t skipped, const struct bsa_trace_oddities *o) {
    return Py_BuildValue("{sKsKsKsK}", "skipped", ULL(skipped), "unknown_frees",
                         ULL(o->unknown_frees), "unknown_reallocs", ULL(o->unknown_reallocs),
                         "missed_frees", ULL(o->missed_frees));
}

/* ---- Reading ------------------------------------------------------------------------------- */

PyDoc_STRVAR(read_recording_doc,
             "_read_recording($module, buffer, /)\n--\n\n"
             "The trace in a raw recording: (op, id, size, align, thread, facts).");

static PyObject *read_recording(PyObject *module, PyObject *arg) {
    Py_buffer view;
    struct bsa_trace_builder b = {0};
    struct bsa_recording_facts facts = {0};
    struct bsa_trace_error error;
    PyObject *result;
    bool ok;

    (void)module;
    if (PyObject_GetBuffer(arg, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
        ok = bsa_trace_read_recording(view.buf, (size_t)view.len, &b, &facts, &error);
    Py_END_ALLOW_THREADS
    result = !ok ? raise_trace_error(&error)
                 : columns_and_facts(&b, recording_facts(&facts, &b.oddities));
    bsa_trace_build_clear(&b);
    PyBuffer_Release(&view);
    return result;
}

PyDoc_STRVAR(read_memory_replay_doc,
             "_read_memory_replay($module, buffer, /)\n--\n\n"
             "The trace in a memory_replay text: (op, id, size, align, thread, facts).");

static PyObject *read_memory_replay(PyObject *module, PyObject *arg) {
    Py_buffer view;
    struct bsa_trace_builder b = {0};
    struct bsa_trace_error error;
    uint64_t skipped;
    PyObject *result;
    bool ok;

    (void)module;
    if (PyObject_GetBuffer(arg, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
        ok = bsa_trace_read_replay_text(view.buf, (size_t)view.len, &b, &skipped, &error);
    Py_END_ALLOW_THREADS
    result =
        !ok ? raise_trace_error(&error) : columns_and_facts(&b, text_facts(skipped, &b.oddities));
    bsa_trace_build_clear(&b);
    PyBuffer_Release(&view);
    return result;
}

/* ---- Columns ------------------------------------------------------------------------------- */

static bool column_length_is(PyObject *bytes, Py_ssize_t length, Py_ssize_t item) {
    return PyBytes_GET_SIZE(bytes) / item == length && PyBytes_GET_SIZE(bytes) % item == 0;
}

/* Only bytes objects: nobody can change them while the GIL is released. */
static bool columns_from_bytes(PyObject *const columns[5], struct bsa_events *t) {
    Py_ssize_t length = PyBytes_GET_SIZE(columns[0]);

    if (!column_length_is(columns[1], length, sizeof *t->id) ||
        !column_length_is(columns[2], length, sizeof *t->size) ||
        !column_length_is(columns[3], length, sizeof *t->align) ||
        !column_length_is(columns[4], length, sizeof *t->thread)) {
        PyErr_SetString(PyExc_ValueError, "columns differ in length");
        return false;
    }
    t->op = (const uint8_t *)PyBytes_AS_STRING(columns[0]);
    t->id = (const uint32_t *)(const void *)PyBytes_AS_STRING(columns[1]);
    t->size = (const uint64_t *)(const void *)PyBytes_AS_STRING(columns[2]);
    t->align = (const uint32_t *)(const void *)PyBytes_AS_STRING(columns[3]);
    t->thread = (const uint32_t *)(const void *)PyBytes_AS_STRING(columns[4]);
    t->length = (size_t)length;
    return true;
}

PyDoc_STRVAR(check_columns_doc, "_check_columns($module, op, id, size, align, thread, /)\n--\n\n"
                                "(ids, threads, peak event, peak bytes) of a valid trace.");

static PyObject *check_columns(PyObject *module, PyObject *args) {
    PyObject *columns[5];
    struct bsa_events t;
    struct bsa_trace_summary s;
    struct bsa_trace_error error;
    bool ok;

    (void)module;
    if (!PyArg_ParseTuple(args, "SSSSS:_check_columns", &columns[0], &columns[1], &columns[2],
                          &columns[3], &columns[4]) ||
        !columns_from_bytes(columns, &t)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
        ok = bsa_trace_check(&t, &s, &error);
    Py_END_ALLOW_THREADS
    return !ok ? raise_trace_error(&error)
               : Py_BuildValue("(KKKK)", ULL(s.ids), ULL(s.threads), ULL(s.peak_event),
                               ULL(s.peak_bytes));
}

PyDoc_STRVAR(slice_columns_doc,
             "_slice_columns($module, op, id, size, align, thread, start, stop, /)\n--\n\n"
             "The events of a valid trace from start up to stop as a trace of their own:\n"
             "(op, id, size, align, thread, facts).");

static PyObject *slice_columns(PyObject *module, PyObject *args) {
    PyObject *columns[5], *result;
    Py_ssize_t start, stop;
    struct bsa_events t;
    struct bsa_trace_summary s;
    struct bsa_trace_error error;
    struct bsa_trace_builder b = {0};
    bool ok;

    (void)module;
    if (!PyArg_ParseTuple(args, "SSSSSnn:_slice_columns", &columns[0], &columns[1], &columns[2],
                          &columns[3], &columns[4], &start, &stop) ||
        !columns_from_bytes(columns, &t)) {
        return NULL;
    }
    if (start < 0 || start > stop || (size_t)stop > t.length) {
        PyErr_SetString(PyExc_ValueError, "slice out of range");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
        ok = bsa_trace_check(&t, &s, &error) &&
             bsa_trace_build_slice(&b, &t, (size_t)start, (size_t)stop);
    Py_END_ALLOW_THREADS
    result = !ok ? raise_trace_error(&error) : columns_and_facts(&b, oddity_facts(&b.oddities));
    bsa_trace_build_clear(&b);
    return result;
}

/* ---- The module ---------------------------------------------------------------------------- */

static PyMethodDef trace_functions[] = {
    {"_read_recording", read_recording, METH_O, read_recording_doc},
    {"_read_memory_replay", read_memory_replay, METH_O, read_memory_replay_doc},
    {"_check_columns", check_columns, METH_VARARGS, check_columns_doc},
    {"_slice_columns", slice_columns, METH_VARARGS, slice_columns_doc},
    {0},
};

int bsa_trace_exec(PyObject *module) {
    return PyModule_AddFunctions(module, trace_functions);
}
