/* Converting arguments: names to places, objects to C numbers, with one clear error for each
 * mistake. */
#ifndef BSA_PY_ARGUMENTS_H
#define BSA_PY_ARGUMENTS_H

#include "state.h"

struct signature {
    const char *function;
    const char *const *names; /* positional ones first, then keyword-only ones, then NULL */
    int required, positional, total;
};

/* Sorts the arguments of a METH_FASTCALL | METH_KEYWORDS call into `values` (NULL: not given). */
bool bsa_sort_arguments(const struct signature *signature, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames, PyObject **values);

/* An integer from 0 to 2^64 - 1. Negative: InvalidParamError; beyond: OverflowError; no integer:
 * TypeError. `what` names it in messages. */
bool bsa_to_size(struct module_state *state, PyObject *object, const char *what, size_t *size);

/* The value of an int that is not negative, where it is at hand: SIZE_MAX for all else. Up to 3.11
 * that is any below 2^60, later one of a single digit. */
static inline size_t bsa_int_at_hand(PyObject *object) {
    const PyLongObject *number = (PyLongObject *)object;

    if (!PyLong_CheckExact(object)) {
        return SIZE_MAX;
    }
#if PY_VERSION_HEX >= 0x030C0000
    return PyUnstable_Long_IsCompact(number) && PyUnstable_Long_CompactValue(number) >= 0
               ? (size_t)PyUnstable_Long_CompactValue(number)
               : SIZE_MAX;
#else
    switch (Py_SIZE(number)) {
    case 1:
        return number->ob_digit[0];
    case 2:
        return number->ob_digit[0] | (size_t)number->ob_digit[1] << PyLong_SHIFT;
    default:
        return SIZE_MAX;
    }
#endif
}

/* NULL and None are 0. */
bool bsa_to_align(struct module_state *state, PyObject *object, size_t *align);

/* NULL is false; else the object's truth. */
bool bsa_to_flag(PyObject *object, unsigned flag, unsigned *flags);

#endif
