/* Checks a trace by living it: one flag and one size per id, one pass, no lookups. */
#include "trace_check.h"

#include <inttypes.h>
#include <stdlib.h>

struct life {
    uint64_t *sizes; /* of live ids */
    bool *live;
    uint64_t bytes;
};

static uint64_t number_limit(const struct bsa_events *trace) {
    return trace->length > BSA_TRACE_FREE_NUMBERS ? trace->length : BSA_TRACE_FREE_NUMBERS;
}

static bool event_is_well_formed(const struct bsa_events *t, size_t i, uint64_t limit,
                                 struct bsa_trace_error *error) {
    if (t->op[i] < BSA_EVENT_ALLOC || t->op[i] > BSA_EVENT_FREE) {
        return bsa_trace_fail(error, "event %zu: unknown operation %u", i, t->op[i]);
    }
    if (t->id[i] >= limit) {
        return bsa_trace_fail(error, "event %zu: id %" PRIu32 " is not below %" PRIu64, i, t->id[i],
                              limit);
    }
    if (t->thread[i] >= limit) {
        return bsa_trace_fail(error, "event %zu: thread %" PRIu32 " is not below %" PRIu64, i,
                              t->thread[i], limit);
    }
    if ((t->align[i] & (t->align[i] - 1)) != 0) {
        return bsa_trace_fail(error, "event %zu: alignment %" PRIu32 " is no power of two", i,
                              t->align[i]);
    }
    return true;
}

/* First pass: what can be said of each event alone, and how many ids there are. */
static bool events_are_well_formed(const struct bsa_events *t, struct bsa_trace_summary *s,
                                   struct bsa_trace_error *error) {
    uint64_t limit = number_limit(t);

    for (size_t i = 0; i < t->length; i++) {
        if (!event_is_well_formed(t, i, limit, error)) {
            return false;
        }
        s->ids = t->id[i] >= s->ids ? (uint64_t)t->id[i] + 1 : s->ids;
        s->threads = t->thread[i] >= s->threads ? (uint64_t)t->thread[i] + 1 : s->threads;
    }
    return true;
}

static bool live_through(struct life *life, const struct bsa_events *t, size_t i,
                         struct bsa_trace_error *error) {
    static const char *const verbs[] = {"", "allocates", "allocates", "reallocates", "frees"};
    uint32_t id = t->id[i];
    bool begins = t->op[i] == BSA_EVENT_ALLOC || t->op[i] == BSA_EVENT_ZALLOC;
    uint64_t size = t->op[i] == BSA_EVENT_FREE ? 0 : t->size[i];

    if (life->live[id] == begins) {
        return bsa_trace_fail(error, "event %zu: %s id %" PRIu32 ", which is %slive", i,
                              verbs[t->op[i]], id, begins ? "" : "not ");
    }
    life->bytes -= life->sizes[id];
    if (size > UINT64_MAX - life->bytes) {
        return bsa_trace_fail(error, "event %zu: more than 2^64 bytes are live", i);
    }
    life->bytes += size;
    life->sizes[id] = size;
    life->live[id] = t->op[i] != BSA_EVENT_FREE;
    return true;
}

static bool history_is_possible(struct life *life, const struct bsa_events *t,
                                struct bsa_trace_summary *s, struct bsa_trace_error *error) {
    for (size_t i = 0; i < t->length; i++) {
        if (!live_through(life, t, i, error)) {
            return false;
        }
        if (life->bytes > s->peak_bytes) {
            s->peak_bytes = life->bytes;
            s->peak_event = i;
        }
    }
    return true;
}

bool bsa_trace_check(const struct bsa_events *trace, struct bsa_trace_summary *summary,
                     struct bsa_trace_error *error) {
    struct life life = {0};
    bool ok;

    *summary = (struct bsa_trace_summary){0};
    error->text[0] = 0;
    if (!events_are_well_formed(trace, summary, error)) {
        return false;
    }
    life.sizes = calloc(summary->ids + 1, sizeof *life.sizes);
    life.live = calloc(summary->ids + 1, sizeof *life.live);
    ok = life.sizes != NULL && life.live != NULL &&
         history_is_possible(&life, trace, summary, error);
    free(life.sizes);
    free(life.live);
    return ok;
}
