/* The Allocator object, as the files of the binding see it. Under the allocator's lock (lock.h: the
 * GIL, or what stands in for it), except where noted.
 *
 * The core's root is serial: the lock keeps calls apart. Work that releases it (a replay, a check)
 * owns the allocator meanwhile ("long work"): others wait with it released, destructors queue.
 * While a translation (phys) or a clearing of memory is under way the allocator is *pinned*: it
 * cannot be closed, nor lose a section. */
#ifndef BSA_PY_ALLOCATOR_H
#define BSA_PY_ALLOCATOR_H

#include "extents.h"
#include "region.h"
#include "state.h"
#include "threads.h"

typedef struct AllocatorObject AllocatorObject;
typedef struct SectionObject SectionObject;

/* One section under management. Outlives it as long as there are Sections that ask for it. */
struct section_record {
    AllocatorObject *allocator; /* borrowed */
    struct region *region;
    PyObject *phys;               /* callable, or NULL */
    struct bsa_section_info info; /* as it was when added; `index` is kept up to date */
    PyObject *object;             /* weak reference to the Section that stands for it, or NULL */
    Py_ssize_t holders;           /* the allocator, and Sections: the last one frees the record */
    bool is_removed;
};

struct AllocatorObject {
    PyObject_HEAD
    PyObject *weakrefs;
    PyObject *module; /* keeps `state` to the very last, also when the interpreter shuts down */
    struct module_state *state;
    struct bsa_root *root; /* NULL once closed */
    void *root_memory;
    unsigned slots;
    unsigned fork_generation;
    bool is_busy;  /* long work is under way */
    bool is_inert; /* in a forked child, over memory that the parent uses as well */
    Py_ssize_t pins;
    unsigned pins_generation;     /* the fork count when they were counted */
    PyThread_type_lock long_work; /* held while busy */
    PyThread_type_lock turnstile; /* held by a thread that waits, until it has had its turn */
    Py_ssize_t waiting;           /* threads that wait for long work to end */
    PyObject *on_oom;
    struct oom_call *oom_calls;
    uint64_t limit; /* UINT64_MAX: none */
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

/* Whether it can be used right now. */
static inline bool bsa_is_ready(const AllocatorObject *self) {
    return self->root != NULL && !self->is_busy && self->fork_generation == bsa_fork_count;
}

static inline bool bsa_check_open(AllocatorObject *self) {
    return bsa_is_ready(self) || bsa_check_open_slow(self);
}

/* Adapts to a fork since the allocator was made or last used. Runs no Python code. */
void bsa_settle_fork(AllocatorObject *self);

/* Begins and ends long work on an open allocator: between the two the GIL may be released. */
bool bsa_allocator_begin_long(AllocatorObject *self);
void bsa_allocator_end_long(AllocatorObject *self);

/* Must be called once after bsa_threads_init, before anything is pinned; may be called again. */
void bsa_pins_init(void);

/* One reason of the calling thread's why the allocator must stay open and keep its sections; lies
 * in the frame that pins it. A forked child thereby knows which pins are its own thread's. */
struct bsa_pin {
    AllocatorObject *allocator;
    struct bsa_pin *outer;
};

/* Pins and unpins, the last pin first. */
void bsa_pin(AllocatorObject *self, struct bsa_pin *pin);
void bsa_unpin(struct bsa_pin *pin);

/* The calling thread's slot for a free. One it is pinned to may lie beyond the slots: every free is
 * then a remote one. */
static inline unsigned bsa_slot_for_free(const AllocatorObject *self) {
    unsigned number = bsa_thread_number();

    return number < self->slots || bsa_thread_is_pinned() ? number : number % self->slots;
}

/* Whether the calling thread's slot exists; false with InvalidParamError set. */
bool bsa_slot_for_alloc(const AllocatorObject *self, unsigned *slot);

/* What is asked of the core; the ways to ask are one, with the out-of-memory callback around it. */
struct allocation_request {
    enum { REQUEST_BYTES, REQUEST_PAGES, REQUEST_LOW_PAGES, REQUEST_MANY, REQUEST_REALLOC } kind;
    size_t amount; /* bytes, or pages */
    size_t align;
    unsigned flags;       /* enum bsa_alloc_flags */
    size_t count;         /* MANY */
    uintptr_t *addresses; /* MANY */
    uintptr_t old;        /* REALLOC */
    bool is_of_block;     /* REALLOC, by the Block that owns it */
};

/* Allocates, calling on_oom as often as it asks for. False with an exception set. */
bool bsa_allocate(AllocatorObject *self, const struct allocation_request *request,
                  uintptr_t *address);

/* Whether no Block owns the address; false with InvalidParamError (or MemoryError) set. */
bool bsa_check_not_owned(AllocatorObject *self, uintptr_t address);

/* The record of the section that holds the address, which lies in one. */
struct section_record *bsa_record_of(AllocatorObject *self, uintptr_t address);

/* New reference to the record's Section. */
PyObject *bsa_section_for(AllocatorObject *self, struct section_record *record);

/* One holder of the record less. */
void bsa_record_release(struct section_record *record);

/* Bytes of the largest free block of an open allocator; 0: none. */
uint64_t bsa_largest_free(const AllocatorObject *self);

PyObject *bsa_slab_new(struct module_state *state, const struct bsa_slab_info *info);
PyObject *bsa_stats_new(AllocatorObject *self);
PyObject *bsa_walk_new(AllocatorObject *self);

/* What a function of bsa/html.py makes of the object, for Jupyter: a new str. */
PyObject *bsa_html_of(PyObject *object, const char *function);

#endif
