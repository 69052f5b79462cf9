/* Pages, from a heap of 256 MiB: pairs, a mix of orders, exhaustion. Over bsa only: malloc has no
 * pages. */
#include "bench.h"

enum { HEAP = 256 << 20, MOST_PAGES = HEAP / 4096, ORDERS = 7 };

static void open_heap(void) {
    front_open(HEAP, (unsigned)option("slots"), 1);
}

/* --- pairs: a page allocated and freed at once, by one thread or several ---------------------
 */

MEASURED static void alloc_and_free(uint64_t times) {
    for (uint64_t i = 0; i < times; i++) {
        front_free_pages(needed(front_alloc_pages(0)), 0);
    }
}

static double pair_times[MOST_THREADS]; /* of a chunk, ns */

static void run_pairs_in_thread(unsigned number) {
    uint64_t ops = option("ops"), threads = option("threads");

    if (option("held") != 0 && number == 0) {
        needed(front_alloc_pages(0));
    }
    for (uint64_t chunk = option("chunks"); chunk > 0; chunk--) {
        uint64_t start;

        meet_others();
        start = time_now();
        alloc_and_free(ops);
        pair_times[number] = (double)(time_now() - start) / (double)ops;
        meet_others();
        for (uint64_t i = 0; number == 0 && i < threads; i++) {
            report("pair", pair_times[i]);
        }
    }
}

void run_page_pairs(void) {
    open_heap();
    run_threads((unsigned)option("threads"), run_pairs_in_thread);
}

/* --- mix: blocks of 1 to 64 pages, half of the heap live -------------------------------------
 */

/* A place is empty or holds a block, each half of the time. A block has 127 / 7 pages on average.
 */
enum { PLACES = MOST_PAGES * ORDERS / 127 };

static struct place {
    void *block;
    unsigned order;
} places[PLACES];

MEASURED static void toggle(uint64_t times, uint64_t *seed) {
    for (uint64_t i = 0; i < times; i++) {
        uint64_t bits = random_bits(seed);
        struct place *place = &places[upper_below(bits, PLACES)];

        if (place->block != NULL) {
            front_free_pages(place->block, place->order);
            place->block = NULL;
        } else {
            place->order = (unsigned)lower_below(bits, ORDERS);
            place->block = needed(front_alloc_pages(place->order));
        }
    }
}

void run_page_mix(void) {
    uint64_t ops = option("ops"), seed = 7;

    open_heap();
    front_begin_thread(0);
    for (uint64_t chunk = option("chunks"); chunk > 0; chunk--) {
        uint64_t start = time_now();

        toggle(ops, &seed);
        report("operation", (double)(time_now() - start) / (double)ops);
    }
}

/* --- exhaustion: every page, one by one, then all freed in random order ----------------------
 */

MEASURED static size_t alloc_every_page(void **pages) {
    size_t count = 0;

    while ((pages[count] = front_alloc_pages(0)) != NULL) {
        count++;
    }
    return count;
}

MEASURED static void free_every_page(void **pages, size_t count) {
    for (size_t i = 0; i < count; i++) {
        front_free_pages(pages[i], 0);
    }
}

void run_page_exhaustion(void) {
    void **pages = own_memory((MOST_PAGES + 1) * sizeof *pages);
    uint64_t seed = 11;

    open_heap();
    front_begin_thread(0);
    for (uint64_t chunk = option("chunks"); chunk > 0; chunk--) {
        uint64_t start = time_now(), alloc_time, free_time;
        size_t count = alloc_every_page(pages);

        alloc_time = time_now() - start;
        shuffle(pages, count, &seed);
        start = time_now();
        free_every_page(pages, count);
        free_time = time_now() - start;
        report("alloc", (double)alloc_time / (double)count);
        report("free", (double)free_time / (double)count);
        report("operation", (double)(alloc_time + free_time) / (double)(2 * count));
    }
}
