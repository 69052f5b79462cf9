/* See calls.h. Threads have serials of their own: what the system calls a thread by may be another
 * one's after it has ended, or after a fork. */
#include "calls.h"

#include "state.h"
#include "threads.h"

#include <pthread.h>
#include <stdatomic.h>

struct bsa_call {
    uint64_t thread; /* serial */
    struct bsa_call *next;
};

static BSA_THREAD_LOCAL uint64_t own_serial; /* 0: none yet */
static _Atomic uint64_t serials;
static uint64_t survivor; /* the thread that forked this process; 0: it has made no calls */

static uint64_t this_thread(void) {
    if (own_serial == 0) {
        own_serial = 1 + atomic_fetch_add_explicit(&serials, 1, memory_order_relaxed);
    }
    return own_serial;
}

static void note_survivor(void) {
    survivor = own_serial;
}

static void register_fork_handler(void) {
    pthread_atfork(NULL, NULL, note_survivor);
}

void bsa_calls_init(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, register_fork_handler);
}

static void take_out(struct bsa_call **place) {
    struct bsa_call *call = *place;

    *place = call->next;
    PyMem_RawFree(call);
}

/* Drops the calls of threads that a fork has left behind. */
static void drop_lost(struct bsa_calls *calls) {
    struct bsa_call **place = &calls->first;

    if (calls->generation == bsa_fork_count) {
        return;
    }
    calls->generation = bsa_fork_count;
    while (*place != NULL) {
        if ((*place)->thread == survivor) {
            place = &(*place)->next;
        } else {
            take_out(place);
        }
    }
}

struct bsa_call *bsa_call_begin(struct bsa_calls *calls) {
    struct bsa_call *call = PyMem_RawMalloc(sizeof *call);

    if (call == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    drop_lost(calls);
    *call = (struct bsa_call){this_thread(), calls->first};
    calls->first = call;
    return call;
}

void bsa_call_end(struct bsa_calls *calls, struct bsa_call *call) {
    struct bsa_call **place = &calls->first;

    while (*place != call) {
        place = &(*place)->next;
    }
    take_out(place);
}

bool bsa_any_call(struct bsa_calls *calls) {
    drop_lost(calls);
    return calls->first != NULL;
}

bool bsa_any_call_of_mine(struct bsa_calls *calls) {
    const struct bsa_call *call;

    drop_lost(calls);
    call = calls->first;
    while (call != NULL && call->thread != this_thread()) {
        call = call->next;
    }
    return call != NULL;
}
