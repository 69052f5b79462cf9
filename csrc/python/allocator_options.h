/* The options of an Allocator. */
#ifndef BSA_PY_ALLOCATOR_OPTIONS_H
#define BSA_PY_ALLOCATOR_OPTIONS_H

#include "state.h"

struct allocator_options {
    size_t page_size, cpus;
    uint64_t limit;
    PyObject *phys, *on_oom; /* borrowed */
};

/* From the arguments page_size, cpus, phys, limit and on_oom, each NULL where it is not given.
 * False with an exception set. */
bool bsa_convert_options(struct module_state *state, PyObject *const values[],
                         struct allocator_options *options);

#endif
