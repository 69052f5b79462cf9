/* Building a trace: gives every live address a small number, its id, and writes events as columns.
 *
 * The id freed last is used again first, so the ids of a trace are dense and their number is the
 * largest number of blocks that were live at once: a replay needs one array of that length. Threads
 * are numbered by first appearance. Each event costs one or two lookups in a hash table. */
#include "trace_build.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 1024u

/* The key 0 is no key of an address map, and 0 may be a thread's name. */
#define THREAD_KEY(name) ((name) + 1)

/* ---- Growing arrays ------------------------------------------------------------------------ */

/* `array` is the address of a pointer to items; copied, since it may point to items of any type. */
static bool resize_array(void *array, size_t capacity, size_t item) {
    void *items;

    memcpy(&items, array, sizeof items);
    if (capacity > SIZE_MAX / item || (items = realloc(items, capacity * item)) == NULL) {
        return false;
    }
    memcpy(array, &items, sizeof items);
    return true;
}

static size_t larger(size_t capacity) {
    return capacity == 0 ? FIRST_CAPACITY : capacity * 2;
}

static bool reserve_event(struct bsa_trace_builder *b) {
    size_t capacity = larger(b->capacity);

    if (b->length < b->capacity) {
        return true;
    }
    if (!resize_array(&b->op, capacity, sizeof *b->op) ||
        !resize_array(&b->id, capacity, sizeof *b->id) ||
        !resize_array(&b->size, capacity, sizeof *b->size) ||
        !resize_array(&b->align, capacity, sizeof *b->align) ||
        !resize_array(&b->thread, capacity, sizeof *b->thread)) {
        return false;
    }
    b->capacity = capacity;
    return true;
}

static bool push_number(struct bsa_trace_numbers *n, uint32_t number) {
    if (n->length == n->capacity) {
        if (!resize_array(&n->items, larger(n->capacity), sizeof *n->items)) {
            return false;
        }
        n->capacity = larger(n->capacity);
    }
    n->items[n->length++] = number;
    return true;
}

/* ---- Threads ------------------------------------------------------------------------------- */

static bool reserve_thread(struct bsa_trace_builder *b) {
    size_t capacity = larger(b->threads_capacity);

    if (b->names.used < b->threads_capacity) {
        return true;
    }
    if (!resize_array(&b->threads, capacity, sizeof *b->threads)) {
        return false;
    }
    b->threads_capacity = capacity;
    return true;
}

/* The thread of that name, known or new; NULL if memory ran out. */
static struct bsa_trace_thread *find_thread(struct bsa_trace_builder *b, uint64_t name) {
    const uint32_t *known = bsa_address_map_find(&b->names, THREAD_KEY(name));
    uint32_t place = (uint32_t)b->names.used;

    if (known != NULL) {
        return &b->threads[*known];
    }
    if (!reserve_thread(b) || !bsa_address_map_add(&b->names, THREAD_KEY(name), place)) {
        return NULL;
    }
    b->threads[place] = (struct bsa_trace_thread){0};
    return &b->threads[place];
}

static uint32_t number_of(struct bsa_trace_builder *b, struct bsa_trace_thread *thread) {
    if (!thread->is_numbered) {
        thread->number = b->threads_numbered++;
        thread->is_numbered = true;
    }
    return thread->number;
}

/* ---- Ids ----------------------------------------------------------------------------------- */

/* Four thousand million blocks live at once are counted as running out of memory: they would. */
static bool take_id(struct bsa_trace_builder *b, uint32_t *id) {
    if (b->spare.length > 0) {
        *id = b->spare.items[--b->spare.length];
        return true;
    }
    *id = b->ids_made;
    b->ids_made += b->ids_made < UINT32_MAX;
    return *id < UINT32_MAX;
}

/* ---- Events -------------------------------------------------------------------------------- */

static bool put(struct bsa_trace_builder *b, enum bsa_event_op op, uint32_t id,
                const struct bsa_trace_event *event, struct bsa_trace_thread *thread) {
    bool is_free = op == BSA_EVENT_FREE;

    if (!reserve_event(b)) {
        return false;
    }
    b->op[b->length] = (uint8_t)op;
    b->id[b->length] = id;
    b->size[b->length] = is_free ? 0 : event->size;
    b->align[b->length] = is_free ? 0 : event->align;
    b->thread[b->length] = number_of(b, thread);
    b->length++;
    return true;
}

static bool put_free(struct bsa_trace_builder *b, uint32_t id, const struct bsa_trace_event *event,
                     struct bsa_trace_thread *thread) {
    return put(b, BSA_EVENT_FREE, id, event, thread) && push_number(&b->spare, id);
}

/* An address cannot be handed out twice: if it is still live here, its release went unseen. */
static bool free_if_live(struct bsa_trace_builder *b, const struct bsa_trace_event *event,
                         struct bsa_trace_thread *thread) {
    uint32_t id;

    if (!bsa_address_map_take(&b->ids, event->address, &id)) {
        return true;
    }
    b->oddities.missed_frees++;
    return put_free(b, id, event, thread);
}

static bool add_alloc(struct bsa_trace_builder *b, enum bsa_event_op op,
                      const struct bsa_trace_event *event, struct bsa_trace_thread *thread) {
    uint32_t id;

    return free_if_live(b, event, thread) && take_id(b, &id) &&
           bsa_address_map_add(&b->ids, event->address, id) && put(b, op, id, event, thread);
}

static bool add_free(struct bsa_trace_builder *b, uint64_t address,
                     const struct bsa_trace_event *event, struct bsa_trace_thread *thread) {
    uint32_t id;

    if (!bsa_address_map_take(&b->ids, address, &id)) {
        b->oddities.unknown_frees++;
        return true;
    }
    return put_free(b, id, event, thread);
}

/* A begin whose end went unseen is forgotten: its block stays live, without an address. */
static bool add_realloc_begin(struct bsa_trace_builder *b, const struct bsa_trace_event *event,
                              struct bsa_trace_thread *thread) {
    struct bsa_trace_pending *p = &thread->pending;

    *p = (struct bsa_trace_pending){.address = event->old, .begun = true};
    p->known = bsa_address_map_take(&b->ids, event->old, &p->id);
    return true;
}

/* A failed realloc leaves the block where it is, unless the source says that somebody else lives
 * there now: then it stays live, without an address. */
static bool put_back(struct bsa_trace_builder *b, const struct bsa_trace_pending *p) {
    return !p->known || bsa_address_map_find(&b->ids, p->address) != NULL ||
           bsa_address_map_add(&b->ids, p->address, p->id);
}

static bool finish_unsuccessful(struct bsa_trace_builder *b, const struct bsa_trace_pending *p,
                                const struct bsa_trace_event *event,
                                struct bsa_trace_thread *thread) {
    if (event->size > 0) {
        return put_back(b, p);
    }
    /* The C library frees a block that is resized to nothing, and returns NULL. */
    b->oddities.unknown_frees += p->begun && !p->known;
    return !p->known || put_free(b, p->id, event, thread);
}

static bool finish_successful(struct bsa_trace_builder *b, const struct bsa_trace_pending *p,
                              const struct bsa_trace_event *event,
                              struct bsa_trace_thread *thread) {
    if (!p->known) {
        b->oddities.unknown_reallocs++;
        return add_alloc(b, BSA_EVENT_ALLOC, event, thread);
    }
    return free_if_live(b, event, thread) && bsa_address_map_add(&b->ids, event->address, p->id) &&
           put(b, BSA_EVENT_REALLOC, p->id, event, thread);
}

static bool add_realloc_end(struct bsa_trace_builder *b, const struct bsa_trace_event *event,
                            struct bsa_trace_thread *thread) {
    struct bsa_trace_pending p = thread->pending;

    thread->pending = (struct bsa_trace_pending){0};
    return event->address == 0 ? finish_unsuccessful(b, &p, event, thread)
                               : finish_successful(b, &p, event, thread);
}

static bool add_realloc(struct bsa_trace_builder *b, const struct bsa_trace_event *event,
                        struct bsa_trace_thread *thread) {
    if (event->old == 0) {
        return event->address == 0 || add_alloc(b, BSA_EVENT_ALLOC, event, thread);
    }
    return add_realloc_begin(b, event, thread) && add_realloc_end(b, event, thread);
}

bool bsa_trace_build_add(struct bsa_trace_builder *b, const struct bsa_trace_event *event) {
    struct bsa_trace_thread *thread = find_thread(b, event->thread);

    if (thread == NULL) {
        return false;
    }
    switch (event->kind) {
    case BSA_INPUT_ALLOC:
        return add_alloc(b, BSA_EVENT_ALLOC, event, thread);
    case BSA_INPUT_ZALLOC:
        return add_alloc(b, BSA_EVENT_ZALLOC, event, thread);
    case BSA_INPUT_FREE:
        return add_free(b, event->address, event, thread);
    case BSA_INPUT_REALLOC:
        return add_realloc(b, event, thread);
    case BSA_INPUT_REALLOC_BEGIN:
        return add_realloc_begin(b, event, thread);
    case BSA_INPUT_REALLOC_END:
        return add_realloc_end(b, event, thread);
    }
    return true;
}

struct bsa_events bsa_trace_build_columns(const struct bsa_trace_builder *b) {
    return (struct bsa_events){b->op, b->id, b->size, b->align, b->thread, b->length};
}

/* ---- Slices -------------------------------------------------------------------------------- */

static const enum bsa_trace_input input_of_op[] = {
    [BSA_EVENT_ALLOC] = BSA_INPUT_ALLOC,
    [BSA_EVENT_ZALLOC] = BSA_INPUT_ZALLOC,
    [BSA_EVENT_REALLOC] = BSA_INPUT_REALLOC,
    [BSA_EVENT_FREE] = BSA_INPUT_FREE,
};

/* Ids play the addresses, which must not be 0. */
static struct bsa_trace_event event_at(const struct bsa_events *t, size_t i) {
    uint64_t address = (uint64_t)t->id[i] + 1;

    return (struct bsa_trace_event){input_of_op[t->op[i]], address,     address, t->size[i],
                                    t->align[i],           t->thread[i]};
}

bool bsa_trace_build_slice(struct bsa_trace_builder *b, const struct bsa_events *whole,
                           size_t start, size_t stop) {
    for (size_t i = start; i < stop; i++) {
        struct bsa_trace_event event = event_at(whole, i);

        if (!bsa_trace_build_add(b, &event)) {
            return false;
        }
    }
    return true;
}

void bsa_trace_build_clear(struct bsa_trace_builder *b) {
    free(b->op);
    free(b->id);
    free(b->size);
    free(b->align);
    free(b->thread);
    free(b->spare.items);
    free(b->threads);
    bsa_address_map_clear(&b->ids);
    bsa_address_map_clear(&b->names);
    *b = (struct bsa_trace_builder){0};
}
