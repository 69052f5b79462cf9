/* Replay: runs the recorded allocations of a program against a root, and measures the heap on the
 * way.
 *
 * Plain C over bsa.h: no Python, no threads, no allocation. The caller owns every array, decides
 * how many events run at a time, and looks at the heap between them. */
#ifndef BSA_REPLAY_H
#define BSA_REPLAY_H

#include "bsa.h"
#include "events.h"

/* What an id stands for. All zero: nothing is alive under it. */
struct bsa_replay_entry {
    uintptr_t address;
    uint64_t requested;
};

typedef enum bsa_replay_status {
    BSA_REPLAY_OK = 0,
    BSA_REPLAY_REFUSED,  /* the allocator refused; see `refusal` */
    BSA_REPLAY_BAD_OP,   /* no enum bsa_event_op */
    BSA_REPLAY_BAD_ID,   /* beyond the table */
    BSA_REPLAY_ID_ALIVE, /* allocates an id that is alive */
    BSA_REPLAY_ID_DEAD,  /* reallocates or frees an id that is not alive */
    BSA_REPLAY_TAKEN,    /* reallocates or frees memory that has got another owner */
} bsa_replay_status;

struct bsa_replay {
    struct bsa_root *root;
    struct bsa_events events;
    struct bsa_replay_entry *table;
    uint64_t table_size;
    unsigned slots;
    size_t next;             /* the first event not run yet; after a failure, the one that failed */
    bsa_status refusal;      /* the allocator's answer to `next` after BSA_REPLAY_REFUSED */
    uint64_t live;           /* ids alive */
    uint64_t requested;      /* their bytes, as asked for */
    uint64_t granted_before; /* bytes that were live in the root when the replay began */
    /* Whether the memory that an event gave an address to belongs to somebody else by now. May be
     * set between two runs; NULL: nothing does. */
    bool (*is_taken)(void *context, uintptr_t address);
    void *context;
};

/* One look at the heap. Every field is 64 bits wide, so that an array of these is a table of
 * numbers. The fields per order have BSA_MAX_ORDER + 1 entries; indices are thousandths. */
struct bsa_sample {
    int64_t event;     /* events run before */
    int64_t requested; /* live bytes of this replay, as asked for */
    int64_t granted;   /* the same as granted */
    int64_t allocated; /* bytes of all pages that are not free */
    int64_t free_blocks[BSA_MAX_ORDER + 1];
    int64_t unusable[BSA_MAX_ORDER + 1];
    int64_t extfrag[BSA_MAX_ORDER + 1];
};

/* Prepares a replay of `events` against `root`. `table`, all zero, has an entry for every id below
 * `table_size`. */
void bsa_replay_init(struct bsa_replay *replay, struct bsa_root *root,
                     const struct bsa_events *events, struct bsa_replay_entry *table,
                     uint64_t table_size);

/* Runs the events before `until`, in order. On failure the failing event has changed nothing, those
 * before it stand, and `next` names it. */
bsa_replay_status bsa_replay_run(struct bsa_replay *replay, size_t until);

void bsa_replay_sample(const struct bsa_replay *replay, struct bsa_sample *sample);

/* The event after which look number `k` (from 0) of `samples` is due: evenly spaced, the last one
 * after the last event. */
size_t bsa_replay_sample_point(size_t events, size_t samples, size_t k);

/* A sentence for people, without the event's number; static. */
const char *bsa_replay_status_text(bsa_replay_status status);

#endif
