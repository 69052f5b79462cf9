/* The Allocator object, as the files of the binding see it. Under the allocator's lock (lock.h: the
 * GIL, or what stands in for it), except where noted.
 *
 * The core's root is serial: the lock keeps calls apart. Work that releases it (a replay, a check)
 * owns the allocator meanwhile ("long work"): others wait with it released, destructors queue.
 * While a translation (phys) or a clearing of memory is under way the allocator is *pinned*: it
 * cannot be closed, nor lose a section. */
#ifndef BSA_PY_ALLOCATOR_H
#define BSA_PY_ALLOCATOR_H

#include "calls.h"
#include "extents.h"
#include "region.h"
#include "state.h"
#include "threads.h"

typedef struct AllocatorObject AllocatorObject;
typedef struct SectionObject SectionObject;
struct section_record;

struct AllocatorObject {
    PyObject_HEAD
    PyObject *weakrefs;
    PyObject *module; /* keeps `state` to the very last, also when the interpreter shuts down */
    struct module_state *state;
    struct bsa_root *root; /* NULL once closed */
    void *root_memory;
    unsigned slots;
    unsigned fork_generation;     /* the fork count of the process that it is the heap of */
    unsigned ready_in;            /* the same while it can be used right now; else BSA_NOWHERE */
    bool is_busy;                 /* long work is under way */
    bool is_inert;                /* in a forked child, over memory that the parent uses as well */
    bool tracks_blocks;           /* shows its Blocks to the collector (block.h) */
    PyThread_type_lock long_work; /* held while busy */
    PyThread_type_lock turnstile; /* held by a thread that waits, until it has had its turn */
    Py_ssize_t waiting;           /* threads that wait for long work to end */
    PyObject *on_oom;
    struct bsa_calls pins;      /* calls that need it open, with all its sections */
    struct bsa_calls oom_calls; /* calls of on_oom */
    uint64_t limit;             /* UINT64_MAX: none */
    struct section_record **records;
    Py_ssize_t record_count;
    struct extent_index extents;
    Py_ssize_t exports; /* live views of Blocks */
    size_t parked_bytes, parked_count;
    BlockObject *queue; /* dead Blocks whose memory could not be freed at once */
};

/* Whether the allocator can be used; waits for long work to end. False with ClosedError, or
 * RuntimeError where a fork has made it inert. May release the GIL: call it after converting
 * arguments. */
bool bsa_check_open_slow(AllocatorObject *self);

#define BSA_NOWHERE UINT_MAX

/* To be called when one of the three has changed. */
static inline void bsa_update_readiness(AllocatorObject *self) {
    self->ready_in = self->root != NULL && !self->is_busy ? self->fork_generation : BSA_NOWHERE;
}

/* Whether it can be used right now. */
static inline bool bsa_is_ready(const AllocatorObject *self) {
    return self->ready_in == bsa_fork_count;
}

static inline bool bsa_check_open(AllocatorObject *self) {
    return bsa_is_ready(self) || bsa_check_open_slow(self);
}

/* Adapts to a fork since the allocator was made or last used. Runs no Python code. */
void bsa_settle_fork(AllocatorObject *self);

/* Begins and ends long work on an open allocator: between the two the GIL may be released. */
bool bsa_allocator_begin_long(AllocatorObject *self);
void bsa_allocator_end_long(AllocatorObject *self);

/* Whether nothing needs it to stay as it is; false with InUseError set, that one cannot `what`. */
bool bsa_check_not_pinned(AllocatorObject *self, const char *what);

/* Pins it: until it is unpinned it stays open and keeps its sections. NULL with MemoryError. */
static inline struct bsa_call *bsa_pin(AllocatorObject *self) {
    return bsa_call_begin(&self->pins);
}

static inline void bsa_unpin(AllocatorObject *self, struct bsa_call *pin) {
    bsa_call_end(&self->pins, pin);
}

/* The rest of bsa_slot_for_free: the thread's number is none of the slots', or it has none yet. */
unsigned bsa_slot_for_free_slow(const AllocatorObject *self);

/* The calling thread's slot for a free. One it is pinned to may lie beyond the slots: every free is
 * then a remote one. */
static inline unsigned bsa_slot_for_free(const AllocatorObject *self) {
    unsigned number = bsa_this_thread.number;

    return number < self->slots ? number : bsa_slot_for_free_slow(self);
}

/* Bytes of the largest free block of an open allocator; 0: none. */
uint64_t bsa_largest_free(const AllocatorObject *self);

PyObject *bsa_slab_new(struct module_state *state, const struct bsa_slab_info *info);
PyObject *bsa_stats_new(AllocatorObject *self);
PyObject *bsa_walk_new(AllocatorObject *self);

/* What a function of bsa/html.py makes of the object, for Jupyter: a new str. */
PyObject *bsa_html_of(PyObject *object, const char *function);

#endif
