/* Building a trace: from events that speak of addresses to columns that speak of ids. */
#ifndef BSA_TRACE_BUILD_H
#define BSA_TRACE_BUILD_H

#include "events.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address_map.h"

/* What a source tells the builder. A whole realloc is one event, or two where it took time: the old
 * address is given up at the begin, and the result (0: failed, the old block stays) is known at the
 * end. Between the two come events of other threads only. */
enum bsa_trace_input {
    BSA_INPUT_ALLOC,         /* address, size, align */
    BSA_INPUT_ZALLOC,        /* address, size, align */
    BSA_INPUT_FREE,          /* address */
    BSA_INPUT_REALLOC,       /* old, address, size, align */
    BSA_INPUT_REALLOC_BEGIN, /* old */
    BSA_INPUT_REALLOC_END,   /* address, size, align */
};

struct bsa_trace_event {
    enum bsa_trace_input kind;
    uint64_t address;
    uint64_t old;
    uint64_t size;
    uint32_t align;
    uint64_t thread; /* any name of the thread */
};

/* What did not fit together, because the source saw only a part. */
struct bsa_trace_oddities {
    uint64_t unknown_frees;    /* of blocks whose allocation is not in the source: skipped */
    uint64_t unknown_reallocs; /* the same; they became allocations */
    uint64_t missed_frees;     /* a live address was allocated again: freed first */
};

struct bsa_trace_numbers {
    uint32_t *items;
    size_t length, capacity;
};

/* A thread of the source. Its number in the trace is that of its first event there. */
struct bsa_trace_thread {
    uint32_t number;
    bool is_numbered;
    struct bsa_trace_pending {
        uint64_t address;
        uint32_t id;
        bool known; /* it has an id */
        bool begun;
    } pending; /* the block it is reallocating, from the begin to the end */
};

/* All zero: an empty trace. Fields are the builder's own but for reading `columns` and `oddities`.
 */
struct bsa_trace_builder {
    uint8_t *op;
    uint32_t *id, *align, *thread;
    uint64_t *size;
    size_t length, capacity;
    struct bsa_address_map ids;     /* of live addresses */
    struct bsa_address_map names;   /* of threads, to places in `threads` */
    struct bsa_trace_numbers spare; /* ids to use again */
    uint32_t ids_made;
    struct bsa_trace_thread *threads;
    size_t threads_capacity;
    uint32_t threads_numbered;
    struct bsa_trace_oddities oddities;
};

/* Adds one event. False: out of memory; the builder can only be cleared then. */
bool bsa_trace_build_add(struct bsa_trace_builder *b, const struct bsa_trace_event *event);

/* The trace so far; valid until the next change of the builder. */
struct bsa_events bsa_trace_build_columns(const struct bsa_trace_builder *b);

/* Rebuilds the events `start` up to `stop` of a valid trace as a trace of their own, with ids and
 * threads numbered anew. What concerns blocks allocated before `start` is odd, and treated so. */
bool bsa_trace_build_slice(struct bsa_trace_builder *b, const struct bsa_events *whole,
                           size_t start, size_t stop);

void bsa_trace_build_clear(struct bsa_trace_builder *b);

#endif
