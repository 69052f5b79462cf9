/* What the module keeps per interpreter: its types and exceptions. */
#ifndef BSA_PY_STATE_H
#define BSA_PY_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "bsa.h"

typedef struct BlockObject BlockObject;

struct module_state {
    PyTypeObject *allocator_type, *section_type, *slab_type, *block_type, *walk_type, *stats_type,
        *region_type;
    PyObject *alloc_error, *invalid_param, *out_of_memory, *memory_overlap, *not_allocated,
        *not_found, *not_initialized, *in_use, *closed, *corruption;
    BlockObject *spare_blocks; /* dead Block objects, to be used again */
    int spare_count;
};

struct module_state *bsa_module_state(PyObject *module);
struct PyModuleDef *bsa_module_def(void);

/* One function per type: makes it, keeps it in the state and adds it to the module. */
int bsa_add_allocator_type(PyObject *module, struct module_state *state);
int bsa_add_section_type(PyObject *module, struct module_state *state);
int bsa_add_slab_type(PyObject *module, struct module_state *state);
int bsa_add_block_type(PyObject *module, struct module_state *state);
int bsa_add_walk_type(PyObject *module, struct module_state *state);
int bsa_add_stats_type(PyObject *module, struct module_state *state);

/* Adds _cells (cells.c) to the module; -1 with an exception set on failure. */
int bsa_cells_exec(PyObject *module);

/* Visits what the spare Block objects refer to: each its type. */
int bsa_visit_spare_blocks(struct module_state *state, visitproc visit, void *context);

/* Frees the spare Block objects. */
void bsa_free_spare_blocks(struct module_state *state);

/* A method for types that can be neither pickled nor copied. */
PyObject *bsa_refuse_pickle(PyObject *self, PyObject *ignored);

/* METH_FASTCALL functions as the method tables want them. */
#define BSA_METHOD(function) ((PyCFunction)(void (*)(void))(function))

#endif
