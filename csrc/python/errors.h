/* The exceptions, and the translation of the core's status codes into them. */
#ifndef BSA_PY_ERRORS_H
#define BSA_PY_ERRORS_H

#include "allocator.h"

int bsa_add_errors(PyObject *module, struct module_state *state);

/* Raises what the status stands for; the message speaks of `address`. Always returns NULL. An
 * exception that is set already (by a callback) is left alone. */
PyObject *bsa_raise_address(AllocatorObject *self, bsa_status status, uintptr_t address);

/* Raises OutOfMemoryError with its attributes. `what`, a format for PyUnicode_FromFormat or NULL,
 * goes before the standard message. Always returns NULL. */
PyObject *bsa_raise_out_of_memory(AllocatorObject *self, size_t requested, size_t align,
                                  const char *what, ...);

/* Raises OutOfMemoryError for memory that the operating system does not give. */
void bsa_raise_cannot_map(struct module_state *state, size_t size, const char *reason);

#endif
