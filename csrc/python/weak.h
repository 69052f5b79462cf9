/* What a weak reference refers to. */
#ifndef BSA_PY_WEAK_H
#define BSA_PY_WEAK_H

#include "state.h"

/* New reference to the object; NULL: it is no more, or about to be no more. */
static inline PyObject *bsa_weak_get(PyObject *reference) {
#if PY_VERSION_HEX >= 0x030d0000
    PyObject *object = NULL;

    PyWeakref_GetRef(reference, &object);
    return object;
#else
    PyObject *object = PyWeakref_GetObject(reference);

    return object == Py_None ? NULL : Py_NewRef(object);
#endif
}

#endif
