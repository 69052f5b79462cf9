/* Many sections: what finding the section of an address costs. The same 250 MiB, cut into one
 * section or up to a thousand, full of objects of which every other was freed again. */
#include "bench.h"

enum { HEAP = 250 << 20, OBJECT = 64 };

/* Fills the heap; returns the number of objects. */
static size_t exhaust(void **blocks) {
    size_t count = 0;

    while ((blocks[count] = front_alloc(OBJECT)) != NULL) {
        count++;
    }
    return count;
}

MEASURED static void replace_anywhere(void **blocks, size_t count, uint64_t times, uint64_t *seed) {
    for (uint64_t i = 0; i < times; i++) {
        void **block = &blocks[upper_below(random_bits(seed), count)];

        front_free(*block);
        *block = needed(front_alloc(OBJECT));
    }
}

MEASURED static void alloc_and_free(uint64_t times) {
    for (uint64_t i = 0; i < times; i++) {
        front_free(needed(front_alloc(OBJECT)));
    }
}

void run_sections(void) {
    uint64_t ops = option("ops"), seed = 13;
    void **blocks = own_memory((HEAP / OBJECT + 1) * sizeof *blocks);
    size_t count;

    front_open(HEAP, (unsigned)option("slots"), (unsigned)option("sections"));
    front_begin_thread(0);
    count = exhaust(blocks);
    shuffle(blocks, count, &seed);
    for (size_t i = count / 2; i < count; i++) {
        front_free(blocks[i]);
    }
    for (uint64_t chunk = option("chunks"); chunk > 0; chunk--) {
        uint64_t start = time_now();

        replace_anywhere(blocks, count / 2, ops, &seed);
        report("random", (double)(time_now() - start) / (double)ops);
        start = time_now();
        alloc_and_free(ops);
        report("same", (double)(time_now() - start) / (double)ops);
    }
}
