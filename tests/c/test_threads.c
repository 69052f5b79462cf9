/* Real threads, for ThreadSanitizer to watch: remote frees, shared and attached slots, racing
 * double frees, sections added and slots trimmed meanwhile. Payloads tell whether an object was
 * ever in two hands. */
#include "threads_check.h"

#include <sched.h>

/* --- a ring from one thread to another ---------------------------------------------------------
 */

enum { RING = 1024 };

struct ring {
    _Alignas(64) _Atomic unsigned head; /* next to be written */
    _Alignas(64) _Atomic unsigned tail; /* next to be read */
    uintptr_t address[RING];
    size_t size[RING];
};

static void ring_put(struct ring *ring, uintptr_t address, size_t size) {
    unsigned head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    while (head - atomic_load_explicit(&ring->tail, memory_order_acquire) == RING) {
        sched_yield();
    }
    ring->address[head % RING] = address;
    ring->size[head % RING] = size;
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
}

static uintptr_t ring_take(struct ring *ring, size_t *size) {
    unsigned tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    uintptr_t address;

    while (atomic_load_explicit(&ring->head, memory_order_acquire) == tail) {
        sched_yield();
    }
    address = ring->address[tail % RING];
    *size = ring->size[tail % RING];
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    return address;
}

struct party {
    struct bsa_root *root;
    unsigned slot, objects;
    bool attach;
    struct ring *ring;
    uint64_t seed;
};

static void *produce(void *argument) {
    struct party *party = argument;

    if (party->attach) {
        EXPECT_OK(bsa_slot_attach(party->root, party->slot));
    }
    for (unsigned i = 0; i < party->objects; i++) {
        size_t size = 8 + random_below(&party->seed, 200);
        uintptr_t address = must_alloc(party->root, party->slot, size);

        sign(address, size, i);
        ring_put(party->ring, address, size);
    }
    if (party->attach) {
        EXPECT_OK(bsa_slot_detach(party->root, party->slot));
    }
    return NULL;
}

static void *consume(void *argument) {
    struct party *party = argument;

    if (party->attach) {
        EXPECT_OK(bsa_slot_attach(party->root, party->slot));
    }
    for (unsigned i = 0; i < party->objects; i++) {
        size_t size;
        uintptr_t address = ring_take(party->ring, &size);

        check_signed(address, size, i);
        EXPECT_OK(bsa_free_on(party->root, party->slot, address));
    }
    if (party->attach) {
        EXPECT_OK(bsa_slot_detach(party->root, party->slot));
    }
    return NULL;
}

static void hand_over(bool attached) {
    enum { PAIRS = 2 };
    struct heap heap = heap_of(16 * MIB, 2 * PAIRS);
    static struct ring rings[PAIRS];
    struct party producers[PAIRS], consumers[PAIRS];
    pthread_t threads[2 * PAIRS];

    memset(rings, 0, sizeof rings);
    for (unsigned i = 0; i < PAIRS; i++) {
        producers[i] = (struct party){heap.root, i, 30000 * SCALE, attached, &rings[i], i + 1};
        consumers[i] =
            (struct party){heap.root, PAIRS + i, 30000 * SCALE, attached, &rings[i], i + 1};
    }
    start_threads(threads, PAIRS, produce, producers, sizeof producers[0]);
    start_threads(threads + PAIRS, PAIRS, consume, consumers, sizeof consumers[0]);
    join_threads(threads, 2 * PAIRS);
    /* At most RING objects of 15 classes are under way for each pair; the rest is slabs not full.
     */
    EXPECT(stats_of(heap.root).peak_allocated_bytes < 3 * MIB);
    EXPECT_EQUAL(PAIRS * 30000 * SCALE, stats_of(heap.root).total_count);
    expect_all_free(heap.root);
    heap_close(&heap);
}

static void objects_handed_to_another_thread_come_back_to_attached_slots(void) {
    hand_over(true);
}

static void objects_handed_to_another_thread_come_back_to_shared_slots(void) {
    hand_over(false);
}

/* --- everybody does everything -----------------------------------------------------------------
 */

enum { WORKERS = 4, MAILBOXES = 64 };

static struct { _Atomic uintptr_t address; /* 0: empty */ } mailboxes[MAILBOXES];

/* What lies in a mailbox says its own size and mark in its first 16 bytes. */
static void post(struct bsa_root *root, unsigned slot, unsigned box, uintptr_t address) {
    uintptr_t before =
        atomic_exchange_explicit(&mailboxes[box].address, address, memory_order_acq_rel);

    if (before != 0) {
        uint64_t mark;
        size_t size;

        memcpy(&mark, (void *)before, sizeof mark);
        memcpy(&size, (void *)(before + 8), sizeof size);
        check_signed(before, size, mark);
        EXPECT_OK(bsa_free_on(root, slot, before));
    }
}

static void empty_mailboxes(struct bsa_root *root) {
    for (unsigned box = 0; box < MAILBOXES; box++) {
        post(root, 0, box, 0);
    }
}

struct worker {
    struct bsa_root *root;
    unsigned slot, steps;
    bool attach, pages, trims;
    uint64_t seed;
};

static void *work(void *argument) {
    enum { MOST = 200 };
    struct worker *worker = argument;
    struct bsa_root *root = worker->root;
    uintptr_t live[MOST];
    size_t sizes[MOST];
    unsigned count = 0;

    if (worker->attach) {
        EXPECT_OK(bsa_slot_attach(root, worker->slot));
    }
    for (unsigned step = 0; step < worker->steps; step++) {
        unsigned action = random_below(&worker->seed, 100);
        size_t size = 16 + (worker->pages && action % 10 == 0 ? random_below(&worker->seed, 20000)
                                                              : random_below(&worker->seed, 400));

        if (action < 50 && count < MOST) {
            unsigned flags = action % 16 == 0 ? BSA_ZERO : 0;
            bsa_status status = bsa_alloc_on(root, worker->slot, size, 0, flags, &live[count]);

            EXPECT(status == BSA_OK || status == BSA_NO_MEMORY);
            if (status == BSA_OK) {
                sizes[count] = size;
                sign(live[count], size, ((uint64_t)worker->slot << 32) + size);
                count++;
            }
        } else if (count > 0) {
            unsigned victim = random_below(&worker->seed, count);
            uint64_t mark = ((uint64_t)worker->slot << 32) + sizes[victim];

            if (action < 75) {
                check_signed(live[victim], sizes[victim], mark);
                EXPECT_OK(bsa_free_on(root, worker->slot, live[victim]));
                live[victim] = live[--count];
                sizes[victim] = sizes[count];
            } else if (action < 95) {
                post(root, worker->slot, random_below(&worker->seed, MAILBOXES), live[victim]);
                live[victim] = live[--count];
                sizes[victim] = sizes[count];
            } else {
                uintptr_t moved;

                check_signed(live[victim], sizes[victim], mark);
                if (bsa_realloc_on(root, worker->slot, live[victim], size, &moved) == BSA_OK) {
                    live[victim] = moved;
                    sizes[victim] = size;
                }
                sign(live[victim], sizes[victim], ((uint64_t)worker->slot << 32) + sizes[victim]);
            }
        }
        if (worker->trims && step % 512 == 0) {
            bsa_trim_on(root, worker->slot);
        }
    }
    while (count > 0) {
        count--;
        check_signed(live[count], sizes[count], ((uint64_t)worker->slot << 32) + sizes[count]);
        EXPECT_OK(bsa_free_on(root, worker->slot, live[count]));
    }
    if (worker->attach) {
        EXPECT_OK(bsa_slot_detach(root, worker->slot));
    }
    return NULL;
}

static void run_workers(struct heap *heap, struct worker model, bool same_slot) {
    struct worker workers[WORKERS];
    pthread_t threads[WORKERS];

    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = model;
        workers[i].slot = same_slot ? 0 : i;
        workers[i].seed = 1000 + i;
    }
    start_threads(threads, WORKERS, work, workers, sizeof workers[0]);
    join_threads(threads, WORKERS);
    empty_mailboxes(heap->root);
    expect_all_free(heap->root);
}

static void threads_may_share_one_slot(void) {
    struct heap heap = heap_of(8 * MIB, 1);

    run_workers(&heap, (struct worker){.root = heap.root, .steps = 20000 * SCALE, .pages = true},
                true);
    heap_close(&heap);
}

static void threads_may_have_a_shared_slot_each(void) {
    struct heap heap = heap_of(8 * MIB, WORKERS);

    run_workers(
        &heap,
        (struct worker){.root = heap.root, .steps = 20000 * SCALE, .pages = true, .trims = true},
        false);
    heap_close(&heap);
}

static void threads_may_attach_a_slot_each(void) {
    struct heap heap = heap_of(8 * MIB, WORKERS);

    run_workers(
        &heap,
        (struct worker){.root = heap.root, .steps = 20000 * SCALE, .attach = true, .pages = true},
        false);
    heap_close(&heap);
}

/* --- where memory is short ---------------------------------------------------------------------
 */

static void requests_that_fail_for_lack_of_memory_damage_nothing(void) {
    struct heap heap = heap_of(256 * KIB, WORKERS);

    run_workers(&heap, (struct worker){.root = heap.root, .steps = 10000 * SCALE, .pages = true},
                false);
    EXPECT(stats_of(heap.root).failures > 0);
    heap_close(&heap);
}

/* --- meanwhile ---------------------------------------------------------------------------------
 */

struct meanwhile {
    struct heap *heap;
    _Atomic bool stop;
};

static void *add_sections(void *argument) {
    struct meanwhile *meanwhile = argument;

    for (unsigned i = 0; i < 60 && !atomic_load(&meanwhile->stop); i++) {
        heap_add(meanwhile->heap, 64 * KIB + i * 512, 64, 8 * i);
        sched_yield();
    }
    return NULL;
}

static void *trim_always(void *argument) {
    struct meanwhile *meanwhile = argument;

    while (!atomic_load(&meanwhile->stop)) {
        bsa_trim_on(meanwhile->heap->root, BSA_NO_SLOT);
        sched_yield();
    }
    return NULL;
}

static void sections_may_be_added_while_others_work(void) {
    for (int attach = 0; attach < 2; attach++) {
        struct heap heap = heap_of(128 * KIB, WORKERS);
        struct meanwhile meanwhile = {&heap, false};
        pthread_t adder;

        EXPECT(pthread_create(&adder, NULL, add_sections, &meanwhile) == 0);
        {
            struct worker workers[WORKERS];
            pthread_t threads[WORKERS];

            for (unsigned i = 0; i < WORKERS; i++) {
                workers[i] = (struct worker){heap.root, i, 5000 * SCALE, attach, true, true, 5 + i};
            }
            start_threads(threads, WORKERS, work, workers, sizeof workers[0]);
            join_threads(threads, WORKERS);
        }
        EXPECT(pthread_join(adder, NULL) == 0);
        empty_mailboxes(heap.root);
        EXPECT_EQUAL(61, bsa_section_count(heap.root));
        expect_all_free(heap.root);
        heap_close(&heap);
    }
}

static void others_may_trim_while_owners_work(void) {
    for (int attach = 0; attach < 2; attach++) {
        struct heap heap = heap_of(4 * MIB, WORKERS);
        struct meanwhile meanwhile = {&heap, false};
        struct worker workers[WORKERS];
        pthread_t threads[WORKERS], trimmer;

        EXPECT(pthread_create(&trimmer, NULL, trim_always, &meanwhile) == 0);
        for (unsigned i = 0; i < WORKERS; i++) {
            workers[i] = (struct worker){heap.root, i, 5000 * SCALE, attach, true, false, 50 + i};
        }
        start_threads(threads, WORKERS, work, workers, sizeof workers[0]);
        join_threads(threads, WORKERS);
        atomic_store(&meanwhile.stop, true);
        EXPECT(pthread_join(trimmer, NULL) == 0);
        empty_mailboxes(heap.root);
        expect_all_free(heap.root);
        heap_close(&heap);
    }
}

/* Everything but what needs quiescence may be asked at any time. */
static void *ask_always(void *argument) {
    struct meanwhile *meanwhile = argument;
    struct bsa_root *root = meanwhile->heap->root;
    uintptr_t start = section_info(root, 0).start, size = section_info(root, 0).size;
    uint64_t seed = 3, pages = 0;

    while (!atomic_load(&meanwhile->stop)) {
        uintptr_t at = start + (uintptr_t)random_below(&seed, (unsigned)size);
        uint64_t blocks[BSA_MAX_ORDER + 1];
        uintptr_t list[16];
        struct bsa_allocation found;
        enum bsa_page_state state;
        unsigned index;

        EXPECT_OK(bsa_section_of(root, at, &index));
        EXPECT_OK(bsa_page_state_of(root, at, &state));
        bsa_lookup(root, at & ~(uintptr_t)15, &found);
        bsa_lookup_inside(root, at, &found);
        bsa_free_blocks(root, blocks);
        bsa_free_list(root, 0, random_below(&seed, 8), list, 16);
        pages +=
            bsa_free_page_count(root) + bsa_total_pages(root) + section_info(root, 0).free_pages;
    }
    EXPECT(pages > 0);
    return NULL;
}

static void questions_may_be_asked_while_others_work(void) {
    struct heap heap = heap_of(2 * MIB, WORKERS);
    struct meanwhile meanwhile = {&heap, false};
    struct worker workers[WORKERS];
    pthread_t threads[WORKERS], asker;

    EXPECT(pthread_create(&asker, NULL, ask_always, &meanwhile) == 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){heap.root, i, 5000 * SCALE, false, true, true, 70 + i};
    }
    start_threads(threads, WORKERS, work, workers, sizeof workers[0]);
    join_threads(threads, WORKERS);
    atomic_store(&meanwhile.stop, true);
    EXPECT(pthread_join(asker, NULL) == 0);
    empty_mailboxes(heap.root);
    expect_all_free(heap.root);
    heap_close(&heap);
}

/* --- racing frees ------------------------------------------------------------------------------
 */

enum { TARGETS = 64 };

struct race {
    struct bsa_root *root;
    unsigned slot;
    uintptr_t *targets;
    unsigned rounds;
    pthread_barrier_t *barrier;
    unsigned freed; /* by this thread */
};

static void *race_to_free(void *argument) {
    struct race *race = argument;

    for (unsigned round = 0; round < race->rounds; round++) {
        pthread_barrier_wait(race->barrier); /* the targets are there */
        for (unsigned i = 0; i < TARGETS; i++) {
            bsa_status status = bsa_free_on(race->root, race->slot, race->targets[i]);

            /* INVALID_PARAM: the slab itself has been given back, the address starts no page. */
            EXPECT(status == BSA_OK || status == BSA_NOT_ALLOCATED || status == BSA_INVALID_PARAM);
            race->freed += status == BSA_OK;
        }
        pthread_barrier_wait(race->barrier);
    }
    return NULL;
}

static void of_two_racing_remote_frees_exactly_one_succeeds(void) {
    enum { ROUNDS = 400 * SCALE };
    struct heap heap = heap_of(1 * MIB, 3);
    pthread_barrier_t barrier;
    uintptr_t targets[TARGETS];
    struct race races[2];
    pthread_t threads[2];

    EXPECT(pthread_barrier_init(&barrier, NULL, 3) == 0);
    for (unsigned i = 0; i < 2; i++) {
        races[i] = (struct race){heap.root, 1 + i, targets, ROUNDS, &barrier, 0};
    }
    start_threads(threads, 2, race_to_free, races, sizeof races[0]);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < TARGETS; i++) {
            targets[i] = must_alloc(heap.root, 0, 64 + round % 3 * 64);
        }
        pthread_barrier_wait(&barrier);
        if (round % 2 == 0) {
            bsa_trim_on(heap.root, 0); /* drains while they free */
        }
        pthread_barrier_wait(&barrier);
        EXPECT_EQUAL(TARGETS * (round + 1), races[0].freed + races[1].freed);
        if (round % 64 == 0) {
            EXPECT_SOUND(heap.root);
        }
    }
    join_threads(threads, 2);
    EXPECT(races[0].freed > 0 && races[1].freed > 0);
    expect_all_free(heap.root);
    pthread_barrier_destroy(&barrier);
    heap_close(&heap);
}

/* Owner and another thread free the same object at once: that is misuse which both may get away
 * with, but no metadata is damaged, and no object is counted twice. */
static void a_racing_local_and_remote_free_damage_nothing(void) {
    enum { ROUNDS = 400 * SCALE };
    struct heap heap = heap_of(1 * MIB, 2);
    pthread_barrier_t barrier;
    uintptr_t targets[TARGETS];
    struct race other = {heap.root, 1, targets, ROUNDS, &barrier, 0};
    pthread_t thread;
    unsigned freed = 0;

    EXPECT(pthread_barrier_init(&barrier, NULL, 2) == 0);
    start_threads(&thread, 1, race_to_free, &other, sizeof other);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < TARGETS; i++) {
            targets[i] = must_alloc(heap.root, 0, 512);
        }
        pthread_barrier_wait(&barrier);
        for (unsigned i = TARGETS; i-- > 0;) {
            bsa_status status = bsa_free_on(heap.root, 0, targets[i]);

            EXPECT(status == BSA_OK || status == BSA_NOT_ALLOCATED || status == BSA_INVALID_PARAM);
            freed += status == BSA_OK;
        }
        pthread_barrier_wait(&barrier);
        bsa_trim_on(heap.root, 0);
        EXPECT_SOUND(heap.root);
        EXPECT_EQUAL(0, bsa_live_count(heap.root));
        EXPECT(freed + other.freed >= TARGETS * (round + 1));
        EXPECT_EQUAL(bsa_total_pages(heap.root), bsa_free_page_count(heap.root));
    }
    join_threads(&thread, 1);
    EXPECT_SOUND(heap.root);
    pthread_barrier_destroy(&barrier);
    heap_close(&heap);
}

/* --- racing frees of page blocks ---------------------------------------------------------------
 */

/* A block that moves is copied while somebody else may free it and use it anew: a race of those who
 * do so, and ThreadSanitizer would be right to report it. So for it no block grows. */
#ifdef __SANITIZE_THREAD__
enum { LARGEST_SHIFT = 0 };
#else
enum { LARGEST_SHIFT = 3 };
#endif

static void *race_to_resize(void *argument) {
    struct race *race = argument;

    for (unsigned round = 0; round < race->rounds; round++) {
        pthread_barrier_wait(race->barrier);
        for (unsigned i = 0; i < TARGETS; i++) {
            uintptr_t moved = race->targets[i];
            bsa_status status =
                bsa_realloc_on(race->root, race->slot, race->targets[i],
                               (size_t)4 * KIB << (round + i) % (LARGEST_SHIFT + 1), &moved);

            EXPECT(status == BSA_OK || status == BSA_NOT_ALLOCATED);
            if (status == BSA_OK) {
                status = bsa_free_on(race->root, race->slot, moved);
                EXPECT(status == BSA_OK || status == BSA_NOT_ALLOCATED);
            }
        }
        pthread_barrier_wait(race->barrier);
    }
    return NULL;
}

/* Two threads do as they are told with the same page blocks of a third. */
static void race_for_pages(bool attached, void *(*first)(void *), void *(*second)(void *),
                           bool exactly_one) {
    enum { ROUNDS = 150 * SCALE };
    struct heap heap = heap_of(8 * MIB, 3);
    pthread_barrier_t barrier;
    uintptr_t targets[TARGETS];
    struct race races[2];
    pthread_t threads[2];

    EXPECT(pthread_barrier_init(&barrier, NULL, 3) == 0);
    for (unsigned i = 0; i < 2; i++) {
        races[i] = (struct race){heap.root, 1 + i, targets, ROUNDS, &barrier, 0};
        EXPECT(!attached || bsa_slot_attach(heap.root, 1 + i) == BSA_OK);
    }
    start_threads(&threads[0], 1, first, &races[0], 0);
    start_threads(&threads[1], 1, second, &races[1], 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < TARGETS; i++) {
            targets[i] = must_alloc(heap.root, 0, (size_t)4 * KIB << round % 4);
        }
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
        EXPECT(!exactly_one || races[0].freed + races[1].freed == TARGETS * (round + 1));
        EXPECT_EQUAL(0, bsa_live_count(heap.root));
        EXPECT_EQUAL(bsa_total_pages(heap.root), bsa_free_page_count(heap.root));
        if (round % 16 == 0) {
            EXPECT_SOUND(heap.root);
        }
    }
    join_threads(threads, 2);
    expect_all_free(heap.root);
    pthread_barrier_destroy(&barrier);
    heap_close(&heap);
}

static void of_two_racing_frees_of_a_page_block_exactly_one_succeeds(void) {
    race_for_pages(true, race_to_free, race_to_free, true);
    race_for_pages(false, race_to_free, race_to_free, true);
}

/* Misuse again: a block that moves may be freed meanwhile. But nothing is damaged, and nothing is
 * left. */
static void a_free_and_a_resize_that_race_damage_nothing(void) {
    race_for_pages(true, race_to_free, race_to_resize, false);
    race_for_pages(false, race_to_resize, race_to_resize, false);
}

/* --- never forgotten ---------------------------------------------------------------------------
 */

/* The owner drains in the middle of others' frees, over and over: at the end each object has come
 * back. */
static void no_remote_free_is_ever_forgotten(void) {
    enum { ROUNDS = 150 * SCALE, OBJECTS = 600 };
    struct heap heap = heap_of(2 * MIB, 2);
    static struct ring ring;

    memset(&ring, 0, sizeof ring);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct party consumer = {heap.root, 1, OBJECTS, false, &ring, 1};
        pthread_t thread;

        start_threads(&thread, 1, consume, &consumer, sizeof consumer);
        for (unsigned i = 0; i < OBJECTS; i++) {
            uintptr_t address = must_alloc(heap.root, 0, 16);

            sign(address, 16, i);
            ring_put(&ring, address, 16);
        }
        join_threads(&thread, 1);
        bsa_trim_on(heap.root, 0);
        EXPECT_EQUAL(0, bsa_live_count(heap.root));
        EXPECT_EQUAL(bsa_total_pages(heap.root), bsa_free_page_count(heap.root));
    }
    expect_all_free(heap.root);
    heap_close(&heap);
}

int main(void) {
    RUN(objects_handed_to_another_thread_come_back_to_attached_slots);
    RUN(objects_handed_to_another_thread_come_back_to_shared_slots);
    RUN(threads_may_share_one_slot);
    RUN(threads_may_have_a_shared_slot_each);
    RUN(threads_may_attach_a_slot_each);
    RUN(requests_that_fail_for_lack_of_memory_damage_nothing);
    RUN(of_two_racing_remote_frees_exactly_one_succeeds);
    RUN(a_racing_local_and_remote_free_damage_nothing);
    RUN(of_two_racing_frees_of_a_page_block_exactly_one_succeeds);
    RUN(a_free_and_a_resize_that_race_damage_nothing);
    RUN(no_remote_free_is_ever_forgotten);
    RUN(others_may_trim_while_owners_work);
    RUN(sections_may_be_added_while_others_work);
    RUN(questions_may_be_asked_while_others_work);
    return 0;
}
