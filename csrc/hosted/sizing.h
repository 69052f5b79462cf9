/* The smallest heap that is enough for a trace: found by trying. */
#ifndef BSA_SIZING_H
#define BSA_SIZING_H

#include "replay.h"

typedef enum bsa_sizing_status {
    BSA_SIZING_DONE = 0,   /* `enough` is the answer */
    BSA_SIZING_MORE,       /* call again */
    BSA_SIZING_BAD_EVENT,  /* no heap of any size would take event `replay.next` */
    BSA_SIZING_UNMAPPABLE, /* the operating system gives no memory for the trial; errno says why */
} bsa_sizing_status;

/* All but `enough`, `pages`, `replay` and `failure` is private. */
struct bsa_sizing {
    struct bsa_events events;
    struct bsa_config config;
    struct bsa_replay_entry *table; /* the caller's, of `ids` entries */
    uint64_t ids;
    void *root_memory; /* the caller's */
    struct bsa_root *root;
    bool is_checked;    /* every event could be served by some heap */
    uint64_t too_small; /* pages: seen to fail, or less than is live at the peak */
    uint64_t enough;    /* pages: seen to be enough, once `is_bracketed` */
    bool is_bracketed;
    /* The trial under way. */
    void *region; /* NULL: none is */
    uint64_t pages;
    struct bsa_replay replay;
    bsa_replay_status failure; /* of `replay`, after BSA_SIZING_BAD_EVENT */
};

/* Prepares the search. `peak` is the most bytes that are live at a time, as asked for. `table` has
 * an entry for each of `ids` ids. `root_memory` is aligned to 64 and has bsa_root_size(slots)
 * bytes. False: page size or slots are out of range. */
bool bsa_sizing_init(struct bsa_sizing *sizing, const struct bsa_events *events, uint64_t peak,
                     size_t page_size, unsigned slots, struct bsa_replay_entry *table, uint64_t ids,
                     void *root_memory);

/* Runs at most `events` events of one trial. */
bsa_sizing_status bsa_sizing_run(struct bsa_sizing *sizing, size_t events);

/* Gives back what a search that is not done holds; safe after any bsa_sizing_init. */
void bsa_sizing_clear(struct bsa_sizing *sizing);

#endif
