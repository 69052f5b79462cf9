/* Threads to numbers: each thread has a small number of its own, reused after it has ended, and may
 * pin itself to another for a while. An allocator takes it, modulo its slots, as the thread's slot.
 */
#ifndef BSA_THREADS_H
#define BSA_THREADS_H

#include <limits.h>
#include <stdbool.h>

/* In the fixed part of thread-local storage the access costs one instruction, also from a library
 * that was loaded late. */
#define BSA_THREAD_LOCAL _Thread_local __attribute__((tls_model("initial-exec")))

/* A thread that has no number yet. Larger than any number and any count of slots. */
#define BSA_NO_NUMBER UINT_MAX

struct bsa_thread {
    unsigned number; /* the one it is pinned to, else its own, or BSA_NO_NUMBER */
    bool is_pinned;
};

extern BSA_THREAD_LOCAL struct bsa_thread bsa_this_thread;

/* Gives the calling thread its own number. */
void bsa_thread_take_number(void);

/* The calling thread's number: the one it is pinned to, else its own. */
static inline unsigned bsa_thread_number(void) {
    if (__builtin_expect(bsa_this_thread.number == BSA_NO_NUMBER, 0)) {
        bsa_thread_take_number();
    }
    return bsa_this_thread.number;
}

static inline bool bsa_thread_is_pinned(void) {
    return bsa_this_thread.is_pinned;
}

/* Pins the calling thread to `number`, or unpins it. */
void bsa_thread_pin(unsigned number);
void bsa_thread_unpin(void);

/* How many forks lie between the process that loaded this code and this one. */
extern unsigned bsa_fork_count __attribute__((visibility("hidden")));

/* Must be called once before forks are counted; may be called again. */
void bsa_threads_init(void);

#endif
