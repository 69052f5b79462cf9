/* The function of bsa._core that bsa/timeline.py is made of. */
#ifndef BSA_PYTHON_REPLAY_H
#define BSA_PYTHON_REPLAY_H

#include <Python.h>

/* Adds it to the module. -1 with an exception set on failure. */
int bsa_replay_exec(PyObject *module);

#endif
