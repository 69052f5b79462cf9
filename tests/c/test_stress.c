/* Everything at once: threads on slots of their own and on a shared one, sizes of every class and
 * of pages, many at once, objects handed from thread to thread, sections added and slots trimmed
 * meanwhile. Every now and then all stand still, and what the heap says is compared with what the
 * threads hold. */
#include "threads_check.h"

enum { THREADS = 6, HELD = 400, MAILBOXES = 128, ROUNDS = 12, MANY = 24 };

struct object {
    uintptr_t address; /* 0: none */
    size_t size;
    uint64_t mark;
};

/* A place where one thread leaves an object for another. */
struct mailbox {
    pthread_mutex_t mutex;
    struct object object;
};

struct worker {
    struct heap *heap;
    struct mailbox *mailboxes;
    unsigned slot, steps;
    bool attaches;
    uint64_t seed, allocations;
    struct object held[HELD];
    unsigned count;
};

/* --- one step ----------------------------------------------------------------------------------
 */

/* As many small sizes as large ones: each power of two up to 256 KiB is as likely. */
static size_t random_size(uint64_t *seed) {
    size_t top = (size_t)1 << (3 + random_below(seed, 16));

    return top / 2 + 1 + random_below(seed, (unsigned)(top / 2));
}

static void hold(struct worker *worker, uintptr_t address, size_t size) {
    struct object object = {address, size, random_next(&worker->seed)};

    sign(address, size, object.mark);
    worker->held[worker->count++] = object;
    worker->allocations++;
}

static struct object let_go(struct worker *worker) {
    unsigned place = random_below(&worker->seed, worker->count);
    struct object object = worker->held[place];

    worker->held[place] = worker->held[--worker->count];
    return object;
}

static void give_back(struct worker *worker, struct object object) {
    check_signed(object.address, object.size, object.mark);
    EXPECT_OK(bsa_free_on(worker->heap->root, worker->slot, object.address));
}

static void take(struct worker *worker, size_t size) {
    uintptr_t address;
    bsa_status status = bsa_alloc_on(worker->heap->root, worker->slot, size, 0, 0, &address);

    EXPECT(status == BSA_OK || status == BSA_NO_MEMORY);
    if (status == BSA_OK) {
        hold(worker, address, size);
    }
}

static void take_pages(struct worker *worker) {
    size_t count = 1 + random_below(&worker->seed, 9);
    size_t align = random_below(&worker->seed, 2) == 0 ? 0 : 32 * KIB;
    uintptr_t address;
    bsa_status status =
        bsa_alloc_pages_on(worker->heap->root, worker->slot, count, align, BSA_EXACT, &address);

    EXPECT(status == BSA_OK || status == BSA_NO_MEMORY);
    if (status == BSA_OK) {
        EXPECT_EQUAL(0, align == 0 ? 0 : address % align);
        hold(worker, address, count * 4 * KIB);
    }
}

static void take_many(struct worker *worker) {
    size_t size = random_size(&worker->seed) % 2000;

    for (unsigned i = 0; i < MANY; i++) {
        take(worker, size);
    }
}

static void give_back_many(struct worker *worker) {
    uintptr_t addresses[MANY];

    for (unsigned i = 0; i < MANY; i++) {
        struct object object = let_go(worker);

        check_signed(object.address, object.size, object.mark);
        addresses[i] = object.address;
    }
    EXPECT_OK(bsa_free_many_on(worker->heap->root, worker->slot, addresses, MANY, NULL));
}

/* Leaves an object for others, and takes what lay there: to free, or to keep. */
static void exchange(struct worker *worker) {
    struct mailbox *mailbox = &worker->mailboxes[random_below(&worker->seed, MAILBOXES)];
    struct object mine = let_go(worker), found;

    pthread_mutex_lock(&mailbox->mutex);
    found = mailbox->object;
    mailbox->object = mine;
    pthread_mutex_unlock(&mailbox->mutex);
    if (found.address != 0 && random_below(&worker->seed, 4) != 0) {
        give_back(worker, found);
    } else if (found.address != 0) {
        worker->held[worker->count++] = found;
    }
}

static void step(struct worker *worker) {
    unsigned action = random_below(&worker->seed, 100);
    bool has_room = worker->count + MANY < HELD;

    if (action < 40 && has_room) {
        take(worker, random_size(&worker->seed));
    } else if (action < 45 && has_room) {
        take_pages(worker);
    } else if (action < 48 && has_room) {
        take_many(worker);
    } else if (action < 50 && worker->count >= MANY) {
        give_back_many(worker);
    } else if (action < 75 && worker->count > 0) {
        exchange(worker);
    } else if (worker->count > 0) {
        give_back(worker, let_go(worker));
    }
    if (action == 99 && random_below(&worker->seed, 8) == 0) {
        bsa_trim_on(worker->heap->root, worker->slot);
    }
}

static void *work(void *argument) {
    struct worker *worker = argument;

    if (worker->attaches) {
        EXPECT_OK(bsa_slot_attach(worker->heap->root, worker->slot));
    }
    for (unsigned i = 0; i < worker->steps; i++) {
        step(worker);
    }
    if (worker->attaches) {
        EXPECT_OK(bsa_slot_detach(worker->heap->root, worker->slot));
    }
    return NULL;
}

/* --- while all stand still ---------------------------------------------------------------------
 */

struct inventory {
    uintptr_t addresses[THREADS * HELD + MAILBOXES];
    size_t count, found;
};

static bool find_in_inventory(void *context, const struct bsa_allocation *allocation) {
    struct inventory *inventory = context;

    EXPECT(bsearch(&allocation->address, inventory->addresses, inventory->count, sizeof(uintptr_t),
                   compare_addresses) != NULL);
    inventory->found++;
    return true;
}

static void add_to_inventory(struct inventory *inventory, const struct object *object) {
    if (object->address != 0) {
        inventory->addresses[inventory->count++] = object->address;
    }
}

/* The heap holds what the threads hold, and nothing else; the counters say so, too. */
static void expect_inventory(struct heap *heap, const struct worker *workers,
                             const struct mailbox *mailboxes) {
    static struct inventory inventory;
    uint64_t allocations = 0;

    inventory.count = inventory.found = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        for (unsigned k = 0; k < workers[i].count; k++) {
            add_to_inventory(&inventory, &workers[i].held[k]);
        }
        allocations += workers[i].allocations;
    }
    for (unsigned i = 0; i < MAILBOXES; i++) {
        add_to_inventory(&inventory, &mailboxes[i].object);
    }
    qsort(inventory.addresses, inventory.count, sizeof(uintptr_t), compare_addresses);
    bsa_walk(heap->root, find_in_inventory, &inventory);
    EXPECT_SOUND(heap->root);
    EXPECT_EQUAL(inventory.count, inventory.found);
    EXPECT_EQUAL(0, stats_of(heap->root).overlaps);
    EXPECT_EQUAL(allocations, stats_of(heap->root).total_count);
    bsa_trim(heap->root); /* takes back what others have freed */
    EXPECT_EQUAL(inventory.count, bsa_live_count(heap->root));
}

static void free_all(struct worker *workers, struct mailbox *mailboxes) {
    for (unsigned i = 0; i < THREADS; i++) {
        while (workers[i].count > 0) {
            give_back(&workers[i], let_go(&workers[i]));
        }
    }
    for (unsigned i = 0; i < MAILBOXES; i++) {
        if (mailboxes[i].object.address != 0) {
            give_back(&workers[0], mailboxes[i].object);
        }
        pthread_mutex_destroy(&mailboxes[i].mutex);
    }
}

/* --- the run -----------------------------------------------------------------------------------
 */

static void what_threads_hold_is_what_the_heap_says(void) {
    struct heap heap = heap_of(3 * MIB, 5);
    static struct mailbox mailboxes[MAILBOXES];
    static struct worker workers[THREADS];
    pthread_t threads[THREADS];

    for (unsigned i = 0; i < MAILBOXES; i++) {
        pthread_mutex_init(&mailboxes[i].mutex, NULL);
    }
    /* Two threads share slot 0, two attach theirs, two lock theirs. */
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i].heap = &heap;
        workers[i].mailboxes = mailboxes;
        workers[i].slot = i < 2 ? 0 : i - 1;
        workers[i].attaches = i == 2 || i == 3;
        workers[i].steps = 1500 * SCALE;
        workers[i].seed = 77 + i;
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        start_threads(threads, THREADS, work, workers, sizeof workers[0]);
        heap_add(&heap, 256 * KIB + round * 1000, 64, 8 * round); /* meanwhile */
        join_threads(threads, THREADS);
        expect_inventory(&heap, workers, mailboxes);
    }
    EXPECT_EQUAL(1 + ROUNDS, bsa_section_count(heap.root));
    EXPECT(stats_of(heap.root).failures > 0);
    free_all(workers, mailboxes);
    expect_all_free(heap.root);
    heap_close(&heap);
}

int main(void) {
    RUN(what_threads_hold_is_what_the_heap_says);
    return 0;
}
