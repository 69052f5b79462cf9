/* A trace replayed, again and again: what a real program asked for, as an array of events. Threads
 * are not followed: all events run in one.
 *
 * The file: the number of events, the number of ids, then the events, as this machine's memory has
 * them. It is made on the spot from a trace that has been checked. */
#include "bench.h"

#include <stdio.h>

enum op { ALLOC = 1, ZALLOC, REALLOC, FREE };

struct event {
    uint64_t size;
    uint32_t id, align;
    uint64_t op;
};

static uint64_t event_count, id_count;
static struct event *events;
static void **blocks; /* by id */

static void read_items(void *to, size_t size, size_t count, FILE *file) {
    if (fread(to, size, count, file) != count) {
        fail("%s is cut short", option_text("file"));
    }
}

static void read_events(void) {
    FILE *file = fopen(option_text("file"), "rb");

    if (file == NULL) {
        fail("cannot open %s", option_text("file"));
    }
    read_items(&event_count, sizeof event_count, 1, file);
    read_items(&id_count, sizeof id_count, 1, file);
    if (event_count == 0) {
        fail("the trace is empty");
    }
    events = own_memory(event_count * sizeof *events);
    blocks = own_memory(id_count * sizeof *blocks);
    read_items(events, sizeof *events, event_count, file);
    fclose(file);
}

/* aligned_alloc() wants a multiple of the alignment, so all get one. */
static void *allocated(const struct event *event) {
    size_t align = event->align;

    if (align <= 16) {
        return needed(front_alloc(event->size));
    }
    return needed(front_alloc_aligned((event->size + align - 1) & ~(align - 1), align));
}

/* A realloc to nothing frees in some libraries and not in others: all are asked for a byte. */
static void *reallocated(const struct event *event) {
    return needed(front_realloc(blocks[event->id], event->size != 0 ? event->size : 1));
}

MEASURED static void replay(void) {
    for (uint64_t i = 0; i < event_count; i++) {
        const struct event *event = &events[i];

        switch (event->op) {
        case ALLOC:
        case ZALLOC:
            blocks[event->id] = allocated(event);
            break;
        case REALLOC:
            blocks[event->id] = reallocated(event);
            break;
        default:
            front_free(blocks[event->id]);
            blocks[event->id] = NULL;
        }
    }
}

static void free_survivors(void) {
    for (uint64_t id = 0; id < id_count; id++) {
        if (blocks[id] != NULL) {
            front_free(blocks[id]);
            blocks[id] = NULL;
        }
    }
}

void run_trace(void) {
    uint64_t rounds;

    read_events();
    rounds = option("ops") > event_count ? option("ops") / event_count : 1;
    front_open((size_t)16 << 30, (unsigned)option("slots"), 1);
    front_begin_thread(0);
    for (uint64_t chunk = option("chunks"); chunk > 0; chunk--) {
        uint64_t time = 0;

        for (uint64_t round = 0; round < rounds; round++) {
            uint64_t start = time_now();

            replay();
            time += time_now() - start;
            free_survivors();
        }
        report("event", (double)time / (double)(rounds * event_count));
    }
}
