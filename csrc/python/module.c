/* The module bsa._core: multi-phase, with everything it keeps in its state. */
#include "allocator.h"
#include "arguments.h"
#include "errors.h"
#include "region.h"
#include "simulation.h"
#include "trace.h"

struct module_state *bsa_module_state(PyObject *module) {
    return PyModule_GetState(module);
}

PyObject *bsa_refuse_pickle(PyObject *self, PyObject *ignored) {
    (void)ignored;
    return PyErr_Format(
        PyExc_TypeError,
        "cannot pickle or copy a '%.100s' object: it stands for memory of this process",
        Py_TYPE(self)->tp_name);
}

/* --- threads and slots -------------------------------------------------------------------------
 */

static PyObject *pinned_or_none(void) {
    if (!bsa_thread_is_pinned()) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLong(bsa_thread_number());
}

PyDoc_STRVAR(
    set_cpu_doc,
    "set_cpu($module, cpu, /)\n--\n\n"
    "Pin the calling thread to a slot of every allocator; None: let it have its own again.\n\n"
    "cpu: slot number, from 0. An allocator with fewer slots refuses allocations from this thread\n"
    "(InvalidParamError); frees are remote frees there. Returns the previous pin (int or None).");

static PyObject *set_cpu(PyObject *module, PyObject *argument) {
    struct module_state *state = bsa_module_state(module);
    PyObject *previous = pinned_or_none();
    size_t number = 0;

    if (argument != Py_None && !bsa_to_size(state, argument, "cpu", &number)) {
        Py_CLEAR(previous);
    } else if (number >= BSA_MAX_SLOTS) {
        PyErr_Format(state->invalid_param, "cpu must be from 0 to %d, is %zu", BSA_MAX_SLOTS - 1,
                     number);
        Py_CLEAR(previous);
    } else if (argument == Py_None) {
        bsa_thread_unpin();
    } else {
        bsa_thread_pin((unsigned)number);
    }
    return previous;
}

PyDoc_STRVAR(current_cpu_doc, "current_cpu($module, /)\n--\n\n"
                              "The calling thread's slot number: the one it is pinned to, else its "
                              "own. An allocator with n slots takes\n"
                              "its own number modulo n.");

static PyObject *current_cpu(PyObject *module, PyObject *ignored) {
    (void)module;
    (void)ignored;
    return PyLong_FromUnsignedLong(bsa_thread_number());
}

/* --- the module --------------------------------------------------------------------------------
 */

static int add_types(PyObject *module, struct module_state *state) {
    if (bsa_add_allocator_type(module, state) < 0 || bsa_add_section_type(module, state) < 0 ||
        bsa_add_slab_type(module, state) < 0 || bsa_add_block_type(module, state) < 0 ||
        bsa_add_walk_type(module, state) < 0 || bsa_add_stats_type(module, state) < 0 ||
        bsa_add_region_type(module, state) < 0) {
        return -1;
    }
    return 0;
}

static int module_exec(PyObject *module) {
    struct module_state *state = bsa_module_state(module);

    bsa_threads_init();
    bsa_calls_init();
    if (bsa_add_errors(module, state) < 0 || add_types(module, state) < 0 ||
        PyModule_AddIntConstant(module, "MAX_ORDER", BSA_MAX_ORDER) < 0 ||
        bsa_trace_exec(module) < 0 || bsa_replay_exec(module) < 0 || bsa_sizing_exec(module) < 0 ||
        bsa_placement_exec(module) < 0 || bsa_cells_exec(module) < 0) {
        return -1;
    }
    return 0;
}

/* Every reference the state holds, for traverse and clear. */
static int visit_state(struct module_state *state, int (*each)(PyObject **place, void *context),
                       void *context) {
    PyObject **const places[] = {
        (PyObject **)&state->allocator_type,
        (PyObject **)&state->section_type,
        (PyObject **)&state->slab_type,
        (PyObject **)&state->block_type,
        (PyObject **)&state->walk_type,
        (PyObject **)&state->stats_type,
        (PyObject **)&state->region_type,
        &state->alloc_error,
        &state->invalid_param,
        &state->out_of_memory,
        &state->memory_overlap,
        &state->not_allocated,
        &state->not_found,
        &state->not_initialized,
        &state->in_use,
        &state->closed,
        &state->corruption,
    };

    for (size_t i = 0; i < Py_ARRAY_LENGTH(places); i++) {
        int result = each(places[i], context);

        if (result != 0) {
            return result;
        }
    }
    return 0;
}

struct visit {
    visitproc visit;
    void *context;
};

static int visit_place(PyObject **place, void *context) {
    const struct visit *visit = context;

    return *place == NULL ? 0 : visit->visit(*place, visit->context);
}

static int module_traverse(PyObject *module, visitproc visit, void *context) {
    struct module_state *state = bsa_module_state(module);
    struct visit both = {visit, context};

    int result = bsa_visit_spare_blocks(state, visit, context);

    return result != 0 ? result : visit_state(state, visit_place, &both);
}

static int clear_place(PyObject **place, void *context) {
    (void)context;
    Py_CLEAR(*place);
    return 0;
}

static int module_clear(PyObject *module) {
    struct module_state *state = bsa_module_state(module);

    bsa_free_spare_blocks(state);
    return visit_state(state, clear_place, NULL);
}

static void module_free(void *module) {
    module_clear(module);
}

static PyMethodDef module_methods[] = {
    {"set_cpu", set_cpu, METH_O, set_cpu_doc},
    {"current_cpu", current_cpu, METH_NOARGS, current_cpu_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    /* What the process has in common, claims and thread numbers, has locks of its own. */
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED}, /* see lock.h */
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bsa._core",
    .m_doc = "The C side of bsa; import bsa instead.",
    .m_size = sizeof(struct module_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

struct PyModuleDef *bsa_module_def(void) {
    return &module_def;
}

PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&module_def);
}
