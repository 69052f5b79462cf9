/* See arguments.h. */
#include "arguments.h"

static int place_of(const struct signature *signature, PyObject *name) {
    for (int i = 0; i < signature->total; i++) {
        if (PyUnicode_CompareWithASCIIString(name, signature->names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static bool sort_keywords(const struct signature *signature, PyObject *const *args,
                          PyObject *kwnames, PyObject **values) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        int place = place_of(signature, name);

        if (place < 0) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'",
                         signature->function, name);
            return false;
        }
        if (values[place] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'",
                         signature->function, name);
            return false;
        }
        values[place] = args[i];
    }
    return true;
}

bool bsa_sort_arguments(const struct signature *signature, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames, PyObject **values) {
    if (nargs > signature->positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional arguments (%zd given)",
                     signature->function, signature->positional, nargs);
        return false;
    }
    for (int i = 0; i < signature->total; i++) {
        values[i] = i < nargs ? args[i] : NULL;
    }
    if (kwnames != NULL && !sort_keywords(signature, args + nargs, kwnames, values)) {
        return false;
    }
    for (int i = 0; i < signature->required; i++) {
        if (values[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s'",
                         signature->function, signature->names[i]);
            return false;
        }
    }
    return true;
}

/* Raises why the int is no size. */
static void raise_no_size(struct module_state *state, PyObject *number, const char *what) {
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);

    if (overflow > 0 || (overflow == 0 && value >= 0)) {
        PyErr_Format(PyExc_OverflowError, "%s does not fit in 64 bits", what);
    } else if (overflow == 0) {
        PyErr_Format(state->invalid_param, "%s must not be negative, is %lld", what, value);
    } else { /* Python refuses to write numbers of thousands of digits */
        PyErr_Format(state->invalid_param, "%s must not be negative, is below -2^63", what);
    }
}

static bool int_to_size(struct module_state *state, PyObject *number, const char *what,
                        size_t *size) {
    *size = PyLong_AsSize_t(number);
    if (*size == (size_t)-1 && PyErr_Occurred()) {
        PyErr_Clear();
        raise_no_size(state, number, what);
        return false;
    }
    return true;
}

bool bsa_to_size(struct module_state *state, PyObject *object, const char *what, size_t *size) {
    PyObject *number;
    bool converted;

    if (PyLong_CheckExact(object)) {
        return int_to_size(state, object, what, size);
    }
    if (!PyIndex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be an integer, not %.100s", what,
                     Py_TYPE(object)->tp_name);
        return false;
    }
    number = PyNumber_Index(object);
    if (number == NULL) {
        return false;
    }
    converted = int_to_size(state, number, what, size);
    Py_DECREF(number);
    return converted;
}

bool bsa_to_align(struct module_state *state, PyObject *object, size_t *align) {
    *align = 0;
    if (object == NULL || object == Py_None) {
        return true;
    }
    return bsa_to_size(state, object, "align", align);
}

bool bsa_to_flag(PyObject *object, unsigned flag, unsigned *flags) {
    int truth = object == NULL ? 0 : PyObject_IsTrue(object);

    if (truth > 0) {
        *flags |= flag;
    }
    return truth >= 0;
}
