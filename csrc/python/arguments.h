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

/* NULL and None are 0. */
bool bsa_to_align(struct module_state *state, PyObject *object, size_t *align);

/* NULL is false; else the object's truth. */
bool bsa_to_flag(PyObject *object, unsigned flag, unsigned *flags);

#endif
