/* Calls under way in an allocator, and whose they are.
 *
 * A list with an entry for each, on the heap: not in the frame of the call, nor in an order of
 * calls, for greenlets move their frames away, and end in any order. In a forked child only the
 * calls of the thread that forked go on; the others are dropped at the first look. Under the
 * allocator's lock; O(calls under way). */
#ifndef BSA_PY_CALLS_H
#define BSA_PY_CALLS_H

#include <stdbool.h>

struct bsa_call;

/* All zero is none. */
struct bsa_calls {
    struct bsa_call *first;
    unsigned generation; /* the fork count at the last look */
};

/* Must be called once before any call begins; may be called again. */
void bsa_calls_init(void);

/* A call of the calling thread begins, and ends. NULL with MemoryError set. */
struct bsa_call *bsa_call_begin(struct bsa_calls *calls);
void bsa_call_end(struct bsa_calls *calls, struct bsa_call *call);

/* Whether any call is under way; whether one of the calling thread is. */
bool bsa_any_call(struct bsa_calls *calls);
bool bsa_any_call_of_mine(struct bsa_calls *calls);

#endif
