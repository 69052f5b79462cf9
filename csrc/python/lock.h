/* One lock for each allocator, where there is no GIL; where there is, that is the lock of all.
 *
 * It guards what belongs to the allocator: the core's root (which is serial), records, Sections,
 * Blocks and their extents. Every function that Python calls takes it first and holds it until it
 * returns, so the code between is the same with and without the GIL, and may rely on no more than
 * with it: the lock is a critical section of CPython, let go of while the thread waits for
 * anything, releases the GIL that there is not, or runs other code that does. So nobody waits for a
 * lock while holding another, and no order is needed. Locking twice is right, but slow.
 *
 * What may be the last reference to the allocator is dropped after its lock. */
#ifndef BSA_PY_LOCK_H
#define BSA_PY_LOCK_H

#include "state.h"

#ifdef Py_GIL_DISABLED

/* One lock that the calling thread has taken. */
struct bsa_held {
    PyCriticalSection section;
    PyObject *object;
    struct bsa_held *outer;
};

extern _Thread_local struct bsa_held *bsa_innermost; /* of the calling thread */

static inline void bsa_lock(struct bsa_held *held, PyObject *object) {
    held->object = object;
    held->outer = bsa_innermost;
    bsa_innermost = held;
    PyCriticalSection_Begin(&held->section, object);
}

static inline void bsa_unlock(struct bsa_held *held) {
    bsa_innermost = held->outer;
    PyCriticalSection_End(&held->section);
}

/* Locks the object until the end of the enclosing block. */
#define BSA_LOCK(object)                                                                           \
    __attribute__((cleanup(bsa_unlock))) struct bsa_held bsa_held_;                                \
    bsa_lock(&bsa_held_, (PyObject *)(object))

/* Around a call of a user's function: it may wait for other threads in any way. */
static inline void bsa_let_go(void) {
    PyCriticalSection_End(&bsa_innermost->section);
}

static inline void bsa_take_again(void) {
    PyCriticalSection_Begin(&bsa_innermost->section, bsa_innermost->object);
}

#else

#define BSA_LOCK(object) ((void)0)
#define bsa_let_go()     ((void)0)
#define bsa_take_again() ((void)0)

#endif

#endif
