/* The replay engine: a loop over columns, a table from id to address.
 *
 * Ids are dense, so the table is an array and an event costs one entry beside the allocator's own
 * work. Event thread t runs on slot t modulo the root's slots: an object freed by another thread
 * than the one that allocated it is a remote free, as it was in the program.
 *
 * The replay is about places, not contents: zeroed allocations are not cleared, so that a large
 * sparse calloc costs no more memory here than it did in the program.
 *
 * A trace is input that may be wrong. Each event is checked against the table before it reaches the
 * allocator, and the allocator checks the rest. Where bad events are skipped, so is what follows
 * from them: the table remembers which ids stand for nothing because of that. */
#include "replay.h"

static unsigned slot_of(const struct bsa_replay *replay, size_t event) {
    uint32_t thread = replay->events.thread[event];

    /* Nearly always there is a slot for each thread, and a division is dear. */
    return thread < replay->slots ? thread : thread % replay->slots;
}

static bsa_replay_status refused(struct bsa_replay *replay, bsa_status refusal) {
    replay->refusal = refusal;
    return refusal == BSA_NO_MEMORY ? BSA_REPLAY_NO_MEMORY : BSA_REPLAY_REFUSED;
}

/* Counts `added` bytes; a negative number has wrapped, and wraps back. */
static void count_requested(struct bsa_replay *replay, uint64_t added) {
    replay->requested += added;
    if (replay->requested > replay->peak_requested) {
        replay->peak_requested = replay->requested;
    }
}

static bsa_replay_status run_alloc(struct bsa_replay *replay, size_t event,
                                   struct bsa_replay_entry *entry) {
    uint64_t size = replay->events.size[event];
    uintptr_t address;
    bsa_status status;

    if (entry->address != 0) {
        return BSA_REPLAY_REPEATED_ID;
    }
    status = bsa_alloc_on(replay->root, slot_of(replay, event), size, replay->events.align[event],
                          0, &address);
    if (status != BSA_OK) {
        return refused(replay, status);
    }
    *entry = (struct bsa_replay_entry){.address = address, .requested = size};
    replay->live++;
    count_requested(replay, size);
    return BSA_REPLAY_OK;
}

/* Whether the entry's allocation may be changed; `if_absent` says what is wrong with a change of
 * nothing. */
static bsa_replay_status check_entry(const struct bsa_replay *replay,
                                     const struct bsa_replay_entry *entry,
                                     bsa_replay_status if_absent) {
    if (entry->address == 0) {
        return entry->requested == BSA_REPLAY_LOST ? BSA_REPLAY_ORPHANED : if_absent;
    }
    if (replay->is_taken != NULL && replay->is_taken(replay->context, entry->address)) {
        return BSA_REPLAY_TAKEN;
    }
    return BSA_REPLAY_OK;
}

static bsa_replay_status run_realloc(struct bsa_replay *replay, size_t event,
                                     struct bsa_replay_entry *entry) {
    uint64_t size = replay->events.size[event];
    bsa_replay_status entry_status = check_entry(replay, entry, BSA_REPLAY_UNKNOWN_REALLOC);
    bsa_status status;

    if (entry_status != BSA_REPLAY_OK) {
        return entry_status;
    }
    status =
        bsa_realloc_on(replay->root, slot_of(replay, event), entry->address, size, &entry->address);
    if (status != BSA_OK) {
        return refused(replay, status);
    }
    count_requested(replay, size - entry->requested);
    entry->requested = size;
    return BSA_REPLAY_OK;
}

/* Nothing is alive under the id any more. */
static void forget(struct bsa_replay *replay, struct bsa_replay_entry *entry,
                   enum bsa_replay_absence absence) {
    replay->live--;
    replay->requested -= entry->requested;
    *entry = (struct bsa_replay_entry){.requested = absence};
}

static bsa_replay_status run_free(struct bsa_replay *replay, size_t event,
                                  struct bsa_replay_entry *entry) {
    bsa_replay_status entry_status = check_entry(
        replay, entry,
        entry->requested == BSA_REPLAY_FREED ? BSA_REPLAY_DOUBLE_FREE : BSA_REPLAY_UNKNOWN_FREE);
    bsa_status status;

    if (entry_status != BSA_REPLAY_OK) {
        return entry_status;
    }
    status = bsa_free_on(replay->root, slot_of(replay, event), entry->address);
    if (status != BSA_OK) {
        return refused(replay, status);
    }
    forget(replay, entry, BSA_REPLAY_FREED);
    return BSA_REPLAY_OK;
}

static bsa_replay_status run_event(struct bsa_replay *replay, size_t event) {
    struct bsa_replay_entry *entry = &replay->table[replay->events.id[event]];

    switch (replay->events.op[event]) {
    case BSA_EVENT_ALLOC:
    case BSA_EVENT_ZALLOC:
        return run_alloc(replay, event, entry);
    case BSA_EVENT_REALLOC:
        return run_realloc(replay, event, entry);
    case BSA_EVENT_FREE:
        return run_free(replay, event, entry);
    default:
        return BSA_REPLAY_UNKNOWN_OP;
    }
}

/* What the id of a skipped event stands for from now on. An allocation that did not succeed leaves
 * nothing; one that somebody else has freed or taken over is no longer ours to free; after the free
 * of nothing there is still nothing. A realloc that does not fit leaves the old block. */
static void settle_skipped(struct bsa_replay *replay, size_t event, bsa_replay_status status) {
    struct bsa_replay_entry *entry = &replay->table[replay->events.id[event]];
    bool frees = replay->events.op[event] == BSA_EVENT_FREE;

    if (entry->address != 0) {
        if (status == BSA_REPLAY_REFUSED || status == BSA_REPLAY_TAKEN) {
            forget(replay, entry, frees ? BSA_REPLAY_FREED : BSA_REPLAY_LOST);
        }
    } else if (status == BSA_REPLAY_NO_MEMORY || status == BSA_REPLAY_REFUSED) {
        entry->requested = BSA_REPLAY_LOST;
    } else if (status == BSA_REPLAY_ORPHANED && frees) {
        entry->requested = BSA_REPLAY_FREED;
    }
}

/* Goes on behind the bad event `next`, if that is what is wanted. */
static bool skip(struct bsa_replay *replay, bsa_replay_status status) {
    if (!replay->skips_bad ||
        (status == BSA_REPLAY_REFUSED && replay->refusal == BSA_NOT_INITIALIZED)) {
        return false;
    }
    settle_skipped(replay, replay->next, status);
    replay->skipped[status]++;
    return true;
}

void bsa_replay_init(struct bsa_replay *replay, struct bsa_root *root,
                     const struct bsa_events *events, struct bsa_replay_entry *table) {
    struct bsa_usage usage;

    bsa_usage(root, &usage);
    *replay = (struct bsa_replay){
        .root = root,
        .events = *events,
        .table = table,
        .slots = bsa_slots(root),
        .granted_before = usage.current_bytes,
        .page_rounding_before = usage.current_bytes - usage.requested_bytes,
    };
}

bsa_replay_status bsa_replay_run(struct bsa_replay *replay, size_t until) {
    while (replay->next < until) {
        bsa_replay_status status = run_event(replay, replay->next);

        if (status != BSA_REPLAY_OK && !skip(replay, status)) {
            return status;
        }
        replay->next++;
    }
    return BSA_REPLAY_OK;
}

void bsa_replay_sample(const struct bsa_replay *replay, struct bsa_sample *sample) {
    struct bsa_usage usage;

    bsa_usage(replay->root, &usage);
    bsa_sample_heap(replay->root, &usage, sample);
    sample->event = (int64_t)replay->next;
    sample->requested = (int64_t)replay->requested;
    sample->peak_requested = (int64_t)replay->peak_requested;
    sample->granted = (int64_t)(usage.current_bytes - replay->granted_before);
    sample->page_rounding -= (int64_t)replay->page_rounding_before;
    sample->class_rounding = sample->granted - sample->requested - sample->page_rounding;
}

size_t bsa_replay_sample_point(size_t events, size_t samples, size_t k) {
    /* (k + 1) * events / samples, without the product's overflow. */
    return events / samples * (k + 1) + events % samples * (k + 1) / samples;
}

const char *bsa_replay_status_text(bsa_replay_status status) {
    static const char *const texts[BSA_REPLAY_STATUSES] = {
        [BSA_REPLAY_OK] = "the event was run",
        [BSA_REPLAY_NO_MEMORY] = "it does not fit",
        [BSA_REPLAY_REFUSED] = "the allocator refuses the event",
        [BSA_REPLAY_UNKNOWN_OP] = "there is no such operation",
        [BSA_REPLAY_REPEATED_ID] = "it allocates an id that is alive already",
        [BSA_REPLAY_UNKNOWN_FREE] = "it frees an id that was never allocated",
        [BSA_REPLAY_DOUBLE_FREE] = "it frees an id that was freed already",
        [BSA_REPLAY_UNKNOWN_REALLOC] = "it reallocates an id that is not alive",
        [BSA_REPLAY_TAKEN] = "its memory has got another owner",
        [BSA_REPLAY_ORPHANED] = "its block was skipped before",
    };

    return texts[status];
}
