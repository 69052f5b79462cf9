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
 * allocator, and the allocator checks the rest. */
#include "replay.h"

static unsigned slot_of(const struct bsa_replay *replay, size_t event) {
    uint32_t thread = replay->events.thread[event];

    /* Nearly always there is a slot for each thread, and a division is dear. */
    return thread < replay->slots ? thread : thread % replay->slots;
}

static bsa_replay_status refused(struct bsa_replay *replay, bsa_status refusal) {
    replay->refusal = refusal;
    return BSA_REPLAY_REFUSED;
}

static bsa_replay_status run_alloc(struct bsa_replay *replay, size_t event,
                                   struct bsa_replay_entry *entry) {
    uint64_t size = replay->events.size[event];
    uintptr_t address;
    bsa_status status;

    if (entry->address != 0) {
        return BSA_REPLAY_ID_ALIVE;
    }
    status = bsa_alloc_on(replay->root, slot_of(replay, event), size, replay->events.align[event],
                          0, &address);
    if (status != BSA_OK) {
        return refused(replay, status);
    }
    *entry = (struct bsa_replay_entry){.address = address, .requested = size};
    replay->live++;
    replay->requested += size;
    return BSA_REPLAY_OK;
}

/* Whether the entry's allocation may be changed. */
static bsa_replay_status check_entry(const struct bsa_replay *replay,
                                     const struct bsa_replay_entry *entry) {
    if (entry->address == 0) {
        return BSA_REPLAY_ID_DEAD;
    }
    if (replay->is_taken != NULL && replay->is_taken(replay->context, entry->address)) {
        return BSA_REPLAY_TAKEN;
    }
    return BSA_REPLAY_OK;
}

static bsa_replay_status run_realloc(struct bsa_replay *replay, size_t event,
                                     struct bsa_replay_entry *entry) {
    uint64_t size = replay->events.size[event];
    bsa_replay_status entry_status = check_entry(replay, entry);
    bsa_status status;

    if (entry_status != BSA_REPLAY_OK) {
        return entry_status;
    }
    status =
        bsa_realloc_on(replay->root, slot_of(replay, event), entry->address, size, &entry->address);
    if (status != BSA_OK) {
        return refused(replay, status);
    }
    replay->requested += size - entry->requested; /* wraps back where it shrinks */
    entry->requested = size;
    return BSA_REPLAY_OK;
}

static bsa_replay_status run_free(struct bsa_replay *replay, size_t event,
                                  struct bsa_replay_entry *entry) {
    bsa_replay_status entry_status = check_entry(replay, entry);
    bsa_status status;

    if (entry_status != BSA_REPLAY_OK) {
        return entry_status;
    }
    status = bsa_free_on(replay->root, slot_of(replay, event), entry->address);
    if (status != BSA_OK) {
        return refused(replay, status);
    }
    replay->live--;
    replay->requested -= entry->requested;
    *entry = (struct bsa_replay_entry){0};
    return BSA_REPLAY_OK;
}

static bsa_replay_status run_event(struct bsa_replay *replay, size_t event) {
    uint32_t id = replay->events.id[event];

    if (id >= replay->table_size) {
        return BSA_REPLAY_BAD_ID;
    }
    switch (replay->events.op[event]) {
    case BSA_EVENT_ALLOC:
    case BSA_EVENT_ZALLOC:
        return run_alloc(replay, event, &replay->table[id]);
    case BSA_EVENT_REALLOC:
        return run_realloc(replay, event, &replay->table[id]);
    case BSA_EVENT_FREE:
        return run_free(replay, event, &replay->table[id]);
    default:
        return BSA_REPLAY_BAD_OP;
    }
}

void bsa_replay_init(struct bsa_replay *replay, struct bsa_root *root,
                     const struct bsa_events *events, struct bsa_replay_entry *table,
                     uint64_t table_size) {
    struct bsa_stats stats;

    bsa_stats(root, &stats);
    *replay = (struct bsa_replay){
        .root = root,
        .events = *events,
        .table = table,
        .table_size = table_size,
        .slots = bsa_slots(root),
        .granted_before = stats.current_bytes,
    };
}

bsa_replay_status bsa_replay_run(struct bsa_replay *replay, size_t until) {
    while (replay->next < until) {
        bsa_replay_status status = run_event(replay, replay->next);

        if (status != BSA_REPLAY_OK) {
            return status;
        }
        replay->next++;
    }
    return BSA_REPLAY_OK;
}

void bsa_replay_sample(const struct bsa_replay *replay, struct bsa_sample *sample) {
    uint64_t free_blocks[BSA_MAX_ORDER + 1];
    struct bsa_stats stats;

    bsa_stats(replay->root, &stats);
    bsa_free_blocks(replay->root, free_blocks);
    sample->event = (int64_t)replay->next;
    sample->requested = (int64_t)replay->requested;
    sample->granted = (int64_t)(stats.current_bytes - replay->granted_before);
    sample->allocated = (int64_t)stats.allocated_bytes;
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        sample->free_blocks[order] = (int64_t)free_blocks[order];
        sample->unusable[order] = bsa_unusable_index(free_blocks, order);
        sample->extfrag[order] = bsa_extfrag_index(free_blocks, order);
    }
}

size_t bsa_replay_sample_point(size_t events, size_t samples, size_t k) {
    /* (k + 1) * events / samples, without the product's overflow. */
    return events / samples * (k + 1) + events % samples * (k + 1) / samples;
}

const char *bsa_replay_status_text(bsa_replay_status status) {
    switch (status) {
    case BSA_REPLAY_OK:
        return "the event was run";
    case BSA_REPLAY_REFUSED:
        return "the allocator refuses the event";
    case BSA_REPLAY_BAD_OP:
        return "there is no such operation";
    case BSA_REPLAY_BAD_ID:
        return "the id is out of range";
    case BSA_REPLAY_ID_ALIVE:
        return "it allocates an id that is alive already";
    case BSA_REPLAY_ID_DEAD:
        return "it uses an id that is not alive";
    case BSA_REPLAY_TAKEN:
        return "its memory has got another owner";
    }
    return "unknown status";
}
