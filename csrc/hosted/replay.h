/* Replay: runs the recorded allocations of a program against a root, and measures the heap on the
 * way.
 *
 * Plain C over bsa.h: no Python, no threads, no allocation. The caller owns every array, decides
 * how many events run at a time, and looks at the heap between them. */
#ifndef BSA_REPLAY_H
#define BSA_REPLAY_H

#include "bsa.h"
#include "events.h"
#include "metrics.h"

/* What an id stands for. All zero: nothing ever was alive under it. */
struct bsa_replay_entry {
    uintptr_t address;  /* 0: nothing is alive */
    uint64_t requested; /* its bytes; where nothing is alive, an enum bsa_replay_absence */
};

enum bsa_replay_absence {
    BSA_REPLAY_NEVER = 0,
    BSA_REPLAY_FREED,
    BSA_REPLAY_LOST, /* its allocation, or what became of it, was skipped */
};

/* What became of an event: all but OK are bad. */
typedef enum bsa_replay_status {
    BSA_REPLAY_OK = 0,
    BSA_REPLAY_NO_MEMORY,       /* an allocation or a realloc does not fit */
    BSA_REPLAY_REFUSED,         /* the allocator refused for another reason: see `refusal` */
    BSA_REPLAY_UNKNOWN_OP,      /* no enum bsa_event_op */
    BSA_REPLAY_REPEATED_ID,     /* allocates an id that is alive */
    BSA_REPLAY_UNKNOWN_FREE,    /* frees what was never allocated */
    BSA_REPLAY_DOUBLE_FREE,     /* frees what was freed */
    BSA_REPLAY_UNKNOWN_REALLOC, /* reallocates what is not alive */
    BSA_REPLAY_TAKEN,           /* reallocates or frees memory that has got another owner */
    BSA_REPLAY_ORPHANED,        /* reallocates or frees what was skipped before */
    BSA_REPLAY_STATUSES
} bsa_replay_status;

struct bsa_replay {
    struct bsa_root *root;
    struct bsa_events events;
    struct bsa_replay_entry *table; /* by id */
    unsigned slots;
    bool skips_bad;          /* goes on after a bad event, which it counts in `skipped` */
    size_t next;             /* the first event not run yet; after a failure, the one that failed */
    bsa_status refusal;      /* the allocator's answer to `next` after BSA_REPLAY_REFUSED */
    uint64_t live;           /* ids alive */
    uint64_t requested;      /* their bytes, as asked for */
    uint64_t peak_requested; /* the most there ever were */
    uint64_t granted_before; /* bytes that were live in the root when the replay began */
    uint64_t page_rounding_before;
    uint64_t skipped[BSA_REPLAY_STATUSES];
    /* Whether the memory that an event gave an address to belongs to somebody else by now. May be
     * set between two runs; NULL: nothing does. */
    bool (*is_taken)(void *context, uintptr_t address);
    void *context;
};

/* Prepares a replay of `events` against `root`. `table`, all zero, has an entry for every id. */
void bsa_replay_init(struct bsa_replay *replay, struct bsa_root *root,
                     const struct bsa_events *events, struct bsa_replay_entry *table);

/* Runs the events before `until`, in order. A bad event changes nothing in the heap. Unless bad
 * ones are skipped it ends the run: those before it stand, and `next` names it. Without any section
 * every event would be bad; that is never skipped. */
bsa_replay_status bsa_replay_run(struct bsa_replay *replay, size_t until);

void bsa_replay_sample(const struct bsa_replay *replay, struct bsa_sample *sample);

/* The event after which look number `k` (from 0) of `samples` is due: evenly spaced, the last one
 * after the last event. */
size_t bsa_replay_sample_point(size_t events, size_t samples, size_t k);

/* A sentence for people, without the event's number; static. */
const char *bsa_replay_status_text(bsa_replay_status status);

#endif
