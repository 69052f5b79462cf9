/* The smallest heap, by bisection.
 *
 * Whether a trace fits depends on splits, merges and slabs, for which there is no formula; but a
 * replay takes a fraction of a second. So sizes are bisected by whole pages, between one that was
 * seen to fail and one that was seen to be enough: O(log pages) trials, each a replay in a mapping
 * of its own, of which only what is touched becomes memory.
 *
 * More memory nearly always helps, but not strictly: where blocks lie depends on the heap's end,
 * and a heap one page larger may by bad luck split a block it would better have kept. What is
 * promised is therefore just what was tried: the result is enough, and one page less is not. */
#include "sizing.h"

#include "mapping.h"
#include "poison.h"

#include <string.h>

bool bsa_sizing_init(struct bsa_sizing *sizing, const struct bsa_events *events, uint64_t peak,
                     size_t page_size, unsigned slots, struct bsa_replay_entry *table, uint64_t ids,
                     void *root_memory) {
    *sizing = (struct bsa_sizing){
        .events = *events,
        .config = {.page_size = page_size, .slots = slots, .serial = true},
        .table = table,
        .ids = ids,
        .root_memory = root_memory,
    };
    if (bsa_init(root_memory, bsa_root_size(slots), &sizing->config, &sizing->root) != BSA_OK) {
        return false;
    }
    sizing->too_small = (peak > 0 ? peak - 1 : 0) / page_size;
    sizing->enough = sizing->too_small + sizing->too_small / 8 + 8;
    return true;
}

void bsa_sizing_clear(struct bsa_sizing *sizing) {
    if (sizing->region != NULL) {
        bsa_unpoison_region(sizing->region, sizing->pages * sizing->config.page_size);
        bsa_unmap(sizing->region, sizing->pages * sizing->config.page_size);
        sizing->region = NULL;
    }
}

/* Draws the conclusion from a trial, and chooses the next size. */
static bsa_sizing_status conclude(struct bsa_sizing *sizing, bool fits) {
    bsa_sizing_clear(sizing);
    if (fits) {
        sizing->enough = sizing->pages;
        sizing->is_bracketed = true;
    } else {
        sizing->too_small = sizing->pages;
        if (!sizing->is_bracketed) {
            sizing->enough += sizing->enough / 4;
        }
    }
    return sizing->is_bracketed && sizing->enough - sizing->too_small == 1 ? BSA_SIZING_DONE
                                                                           : BSA_SIZING_MORE;
}

/* Makes the heap of the next trial. */
static bsa_sizing_status begin(struct bsa_sizing *sizing) {
    const struct bsa_section_config zeroed = {.flags = BSA_ZEROED};
    size_t size;

    sizing->pages =
        sizing->is_bracketed ? (sizing->too_small + sizing->enough) / 2 : sizing->enough;
    if (__builtin_mul_overflow(sizing->pages, sizing->config.page_size, &size)) {
        size = SIZE_MAX; /* refused below, like all that no address space can hold */
    }
    sizing->region = bsa_map(size);
    if (sizing->region == NULL) {
        return BSA_SIZING_UNMAPPABLE;
    }
    bsa_init(sizing->root_memory, bsa_root_size(sizing->config.slots), &sizing->config,
             &sizing->root);
    if (bsa_add_region(sizing->root, sizing->region, size, &zeroed, NULL) != BSA_OK) {
        bsa_unmap(sizing->region, size);
        sizing->region = NULL;
        return conclude(sizing, false); /* too small even for its own metadata */
    }
    memset(sizing->table, 0, sizing->ids * sizeof *sizing->table);
    bsa_replay_init(&sizing->replay, sizing->root, &sizing->events, sizing->table);
    return BSA_SIZING_MORE;
}

/* Whether every event could be served by some heap; else `replay.next` names the first that none
 * will. A root without memory can tell. */
static bool check_events(struct bsa_sizing *sizing) {
    const struct bsa_events *events = &sizing->events;

    for (size_t event = 0; event < events->length; event++) {
        if (events->op[event] != BSA_EVENT_FREE &&
            bsa_granted_size(sizing->root, events->size[event], events->align[event]) == 0) {
            sizing->replay.next = event;
            sizing->failure = BSA_REPLAY_NO_MEMORY;
            return false;
        }
    }
    return true;
}

bsa_sizing_status bsa_sizing_run(struct bsa_sizing *sizing, size_t events) {
    struct bsa_replay *replay = &sizing->replay;
    size_t until;

    if (!sizing->is_checked && !check_events(sizing)) {
        return BSA_SIZING_BAD_EVENT;
    }
    sizing->is_checked = true;
    if (sizing->region == NULL) {
        bsa_sizing_status status = begin(sizing);

        if (sizing->region == NULL) {
            return status;
        }
    }
    until = replay->events.length - replay->next < events ? replay->events.length
                                                          : replay->next + events;
    sizing->failure = bsa_replay_run(replay, until);
    switch (sizing->failure) {
    case BSA_REPLAY_OK:
        return replay->next == replay->events.length ? conclude(sizing, true) : BSA_SIZING_MORE;
    case BSA_REPLAY_NO_MEMORY:
        return sizing->pages > UINT32_MAX ? BSA_SIZING_BAD_EVENT /* a heap has no more pages */
                                          : conclude(sizing, false);
    default:
        return BSA_SIZING_BAD_EVENT;
    }
}
