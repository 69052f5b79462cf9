/* What the functions that run a trace share: holding its columns, and pausing between batches.
 *
 * They work batch by batch. During a batch the GIL is released; between two it is held, signals are
 * looked at and `progress` is called. */
#ifndef BSA_PY_SIMULATION_H
#define BSA_PY_SIMULATION_H

#include "events.h"
#include "state.h"

#define BSA_BATCH_EVENTS                                                                           \
    65536 /* about a millisecond: Ctrl-C and other threads do not wait longer */

enum { BSA_COLUMNS = 5 };

/* The columns of a trace. All zero holds nothing. */
struct bsa_columns {
    Py_buffer views[BSA_COLUMNS];
    struct bsa_events events;
    uint64_t ids; /* the largest id plus 1 */
};

/* Holds op, id, size, align and thread, args[0] to args[4]. False with an exception set if they are
 * no such columns; release them in any case. */
bool bsa_hold_columns(const struct module_state *state, struct bsa_columns *columns,
                      PyObject *const *args);
void bsa_release_columns(struct bsa_columns *columns);

/* "alloc" for BSA_EVENT_ALLOC, and so on; "event" for what is no operation. */
const char *bsa_op_name(uint8_t op);

/* Looks at signals and calls `progress` (NULL: nothing) with arguments built as by
 * Py_BuildValue("(...)"). False with an exception set: the work is to end. */
bool bsa_pause(PyObject *progress, const char *format, ...);

/* Add to the module: _replay (replay.c), _smallest_heap (sizing.c), _place (placement.c). -1 with
 * an exception set on failure. */
int bsa_replay_exec(PyObject *module);
int bsa_sizing_exec(PyObject *module);
int bsa_placement_exec(PyObject *module);

#endif
