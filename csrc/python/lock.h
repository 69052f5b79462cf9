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
    PyCriticalSection section; /* first: CPython's own list of them leads to the rest */
    PyObject *object;
};

static inline void bsa_lock(struct bsa_held *held, PyObject *object) {
    held->object = object;
    PyCriticalSection_Begin(&held->section, object);
}

static inline void bsa_unlock(struct bsa_held *held) {
    PyCriticalSection_End(&held->section);
}

/* Locks the object until the end of the enclosing block. */
#define BSA_LOCK(object)                                                                           \
    __attribute__((cleanup(bsa_unlock))) struct bsa_held bsa_held_;                                \
    bsa_lock(&bsa_held_, (PyObject *)(object))

/* Around a call of a user's function: it may wait for other threads in any way. The innermost lock
 * is the one that CPython knows; a list of our own would not survive greenlets, which switch stacks
 * and CPython's list with them. */
static inline struct bsa_held *bsa_let_go(void) {
    struct bsa_held *held = (struct bsa_held *)PyThreadState_Get()->critical_section;

    bsa_unlock(held);
    return held;
}

static inline void bsa_take_again(struct bsa_held *held) {
    bsa_lock(held, held->object);
}

#else

struct bsa_held;

#define BSA_LOCK(object)     ((void)0)
#define bsa_let_go()         ((struct bsa_held *)NULL)
#define bsa_take_again(held) ((void)(held))

#endif

#endif
