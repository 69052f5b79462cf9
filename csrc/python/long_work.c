/* Whether an allocator can be used now: open, not in the midst of long work, not made useless by a
 * fork.
 *
 * Long work owns the allocator while the GIL is released. Who comes meanwhile waits at a lock,
 * behind a turnstile, and has its turn before the next long work begins. */
#include "block.h"
#include "managed_regions.h"

/* In a forked child: private memory is the child's own copy, shared memory is not. An inert
 * allocator keeps its old generation, so that no fast path takes it for usable. */
void bsa_settle_fork(AllocatorObject *self) {
    if (self->is_busy) {
        self->is_inert = true; /* the fork caught the heap in the middle of something */
        self->is_busy = false;
    }
    for (Py_ssize_t i = 0; i < self->record_count && !self->is_inert; i++) {
        self->is_inert = bsa_region_is_shared(self->records[i]->region);
    }
    if (!self->is_inert) {
        self->turnstile = PyThread_allocate_lock();
        self->waiting = 0;
        self->long_work = PyThread_allocate_lock(); /* a thread left behind may hold the old one */
        self->fork_generation = bsa_fork_count;
    }
    bsa_update_readiness(self);
}

/* The turnstile is kept until this thread has the GIL again, so that no other long work begins
 * before: work upon work would never let anybody in, since it releases the GIL only while busy. */
static void wait_for_long_work(AllocatorObject *self) {
    PyThread_type_lock turnstile = self->turnstile, long_work = self->long_work;

    self->waiting++;
    Py_BEGIN_ALLOW_THREADS
        PyThread_acquire_lock(turnstile, WAIT_LOCK);
        PyThread_acquire_lock(long_work, WAIT_LOCK);
        PyThread_release_lock(long_work);
    Py_END_ALLOW_THREADS
    self->waiting--;
    PyThread_release_lock(turnstile);
}

/* Lets those who wait have their turn. Not for ever: at the end of the process a daemon thread may
 * have died in there. */
static void let_others_in(AllocatorObject *self) {
    PyThread_type_lock turnstile = self->turnstile;

    if (self->waiting > 0) {
        Py_BEGIN_ALLOW_THREADS
            if (PyThread_acquire_lock_timed(turnstile, 100000, 0) == PY_LOCK_ACQUIRED) {
                PyThread_release_lock(turnstile);
            }
        Py_END_ALLOW_THREADS
    }
}

bool bsa_check_open_slow(AllocatorObject *self) {
    while (self->root != NULL) {
        if (self->fork_generation != bsa_fork_count) {
            bsa_settle_fork(self);
        }
        if (self->is_inert) {
            PyErr_SetString(PyExc_RuntimeError,
                            "this allocator is the parent process's: its memory is shared, or was "
                            "in use at the fork");
            return false;
        }
        if (!self->is_busy) {
            return true;
        }
        wait_for_long_work(self);
    }
    PyErr_SetString(self->state->closed, "the allocator is closed");
    return false;
}

bool bsa_allocator_begin_long(AllocatorObject *self) {
    if (!bsa_check_open(self)) {
        return false;
    }
    let_others_in(self);
    if (!bsa_check_open(self)) { /* others may have closed it, or begun long work themselves */
        return false;
    }
    self->is_busy = true;
    bsa_update_readiness(self);
    PyThread_acquire_lock(self->long_work, WAIT_LOCK);
    return true;
}

void bsa_allocator_end_long(AllocatorObject *self) {
    self->is_busy = false;
    bsa_update_readiness(self);
    PyThread_release_lock(self->long_work);
    bsa_flush_queue(self);
}

bool bsa_check_not_pinned(AllocatorObject *self, const char *what) {
    if (!bsa_any_call(&self->pins)) {
        return true;
    }
    PyErr_Format(self->state->in_use, "cannot %s: a callback or another thread is at work in it",
                 what);
    return false;
}
