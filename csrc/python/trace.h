/* The functions of bsa._core that bsa/trace.py is made of. */
#ifndef BSA_PYTHON_TRACE_H
#define BSA_PYTHON_TRACE_H

#include <Python.h>

/* Adds them to the module. -1 with an exception set on failure. */
int bsa_trace_exec(PyObject *module);

#endif
