/* Small objects: pairs, batches, random replacement, producer and consumer. */
#include "bench.h"

#include <sched.h>
#include <stdatomic.h>

#define HEAP_BYTES ((size_t)16 << 30) /* address space; what is not touched costs nothing */

enum { OBJECT = 64, MOST_CHUNKS = 64, RING = 1024, PATIENCE = 1000 };

static void open_heap(void) {
    front_open(HEAP_BYTES, (unsigned)option("slots"), 1);
}

/* --- pairs: an object allocated and freed at once --------------------------------------------
 */

MEASURED static void alloc_and_free(uint64_t times) {
    for (uint64_t i = 0; i < times; i++) {
        front_free(needed(front_alloc(OBJECT)));
    }
}

void run_pairs(void) {
    uint64_t ops = option("ops");

    open_heap();
    front_begin_thread(0);
    for (uint64_t chunk = option("chunks"); chunk > 0; chunk--) {
        uint64_t start = time_now();

        alloc_and_free(ops);
        report("pair", (double)(time_now() - start) / (double)ops);
    }
}

/* --- batch: many objects allocated, then freed in random order -------------------------------
 */

MEASURED static void alloc_all(void **blocks, size_t count) {
    for (size_t i = 0; i < count; i++) {
        blocks[i] = needed(front_alloc(OBJECT));
    }
}

MEASURED static void free_all(void **blocks, size_t count) {
    for (size_t i = 0; i < count; i++) {
        front_free(blocks[i]);
    }
}

void run_batch(void) {
    size_t live = option("live");
    uint64_t rounds = option("ops") > live ? option("ops") / live : 1, seed = 2;
    void **blocks = own_memory(live * sizeof *blocks);

    open_heap();
    front_begin_thread(0);
    for (uint64_t chunk = option("chunks"); chunk > 0; chunk--) {
        uint64_t alloc_time = 0, free_time = 0;

        for (uint64_t round = 0; round < rounds; round++) {
            uint64_t start = time_now();

            alloc_all(blocks, live);
            alloc_time += time_now() - start;
            shuffle(blocks, live, &seed);
            start = time_now();
            free_all(blocks, live);
            free_time += time_now() - start;
        }
        report("alloc", (double)alloc_time / (double)(rounds * live));
        report("free", (double)free_time / (double)(rounds * live));
    }
}

/* --- replacement: a random live object freed, another of random size in its place ------------
 */

typedef size_t (*sizes)(uint64_t bits);

static inline size_t uniform_size(uint64_t bits) {
    return 8 + lower_below(bits, 1017);
}

/* 70 % 16..64, 20 % 64..256, 10 % 256..2048 bytes. */
static inline size_t mostly_small_size(uint64_t bits) {
    uint64_t percent = lower_below(bits, 100);
    uint64_t within = bits * 100; /* what the percent left over */

    if (percent < 70) {
        return 16 + lower_below(within, 49);
    }
    if (percent < 90) {
        return 64 + lower_below(within, 193);
    }
    return 256 + lower_below(within, 1793);
}

static inline void *filled(size_t size) {
    uint64_t *block = needed(front_alloc(size));

    *block = size;
    return block;
}

static inline void fill(void **blocks, size_t count, uint64_t *seed, sizes size_of) {
    for (size_t i = 0; i < count; i++) {
        blocks[i] = filled(size_of(random_bits(seed)));
    }
}

static inline void replace(void **blocks, size_t count, uint64_t times, uint64_t *seed,
                           sizes size_of) {
    for (uint64_t i = 0; i < times; i++) {
        uint64_t bits = random_bits(seed);
        void **block = &blocks[upper_below(bits, count)];

        front_free(*block);
        *block = filled(size_of(bits));
    }
}

MEASURED static void replace_uniform(void **blocks, size_t count, uint64_t times, uint64_t *seed) {
    replace(blocks, count, times, seed, uniform_size);
}

MEASURED static void replace_mostly_small(void **blocks, size_t count, uint64_t times,
                                          uint64_t *seed) {
    replace(blocks, count, times, seed, mostly_small_size);
}

/* What all threads share; each has its own objects. */
static struct replacement {
    size_t live;
    uint64_t ops, chunks;
    bool is_uniform;
    double times[MOST_THREADS][MOST_CHUNKS]; /* ns an operation */
    _Atomic uint64_t live_bytes;
} replacement;

static uint64_t sum_of_sizes(void **blocks, size_t count) {
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++) {
        sum += *(uint64_t *)blocks[i];
    }
    return sum;
}

static double replacement_time(void **blocks, uint64_t *seed) {
    uint64_t start;

    meet_others();
    start = time_now();
    if (replacement.is_uniform) {
        replace_uniform(blocks, replacement.live, replacement.ops, seed);
    } else {
        replace_mostly_small(blocks, replacement.live, replacement.ops, seed);
    }
    return (double)(time_now() - start) / (double)replacement.ops;
}

static void replace_in_thread(unsigned number) {
    uint64_t seed = 3 + number;
    void **blocks = own_memory(replacement.live * sizeof *blocks);
    sizes size_of = replacement.is_uniform ? uniform_size : mostly_small_size;

    fill(blocks, replacement.live, &seed, size_of);
    for (uint64_t chunk = 0; chunk < replacement.chunks; chunk++) {
        replacement.times[number][chunk] = replacement_time(blocks, &seed);
    }
    replacement.live_bytes += sum_of_sizes(blocks, replacement.live);
}

static double slowest(unsigned threads, uint64_t chunk) {
    double slowest_time = 0;

    for (unsigned i = 0; i < threads; i++) {
        if (replacement.times[i][chunk] > slowest_time) {
            slowest_time = replacement.times[i][chunk];
        }
    }
    return slowest_time;
}

static void report_memory(uint64_t resident_before) {
    double live = (double)replacement.live_bytes;

    report("live_bytes", live);
    report("live_per_resident", live / (double)(resident_bytes() - resident_before));
#ifdef BENCH_BSA
    struct bsa_usage usage;

    bsa_usage(front_root(), &usage);
    report("live_per_held", live / (double)usage.allocated_bytes);
#endif
}

void run_replacement(void) {
    unsigned threads = (unsigned)option("threads");
    uint64_t resident_before;

    replacement = (struct replacement){
        .live = option("live"),
        .ops = option("ops"),
        .chunks = option("chunks"),
        .is_uniform = option("uniform") != 0,
    };
    if (replacement.chunks > MOST_CHUNKS) {
        fail("more than %d chunks", MOST_CHUNKS);
    }
    open_heap();
    resident_before = resident_bytes() + threads * replacement.live * sizeof(void *);
    run_threads(threads, replace_in_thread);
    for (uint64_t chunk = 0; chunk < replacement.chunks; chunk++) {
        report("replacement", slowest(threads, chunk));
    }
    report_memory(resident_before);
}

/* --- ring: one thread allocates, the other frees ---------------------------------------------
 */

static struct ring {
    _Alignas(128) _Atomic size_t written;
    _Alignas(128) _Atomic size_t read;
    _Alignas(128) void *blocks[RING];
} ring;

/* Lets others run where there are fewer processors than threads. */
static inline void wait_a_little(unsigned *spins) {
    if (++*spins % PATIENCE == 0) {
        sched_yield();
    }
}

MEASURED static void produce(uint64_t count, uint64_t *seed) {
    unsigned spins = 0;

    for (uint64_t i = 0; i < count; i++) {
        void *block = filled(uniform_size(random_bits(seed)));
        size_t written = atomic_load_explicit(&ring.written, memory_order_relaxed);

        while (written - atomic_load_explicit(&ring.read, memory_order_acquire) == RING) {
            wait_a_little(&spins);
        }
        ring.blocks[written % RING] = block;
        atomic_store_explicit(&ring.written, written + 1, memory_order_release);
    }
}

MEASURED static void consume(uint64_t count) {
    unsigned spins = 0;

    for (uint64_t i = 0; i < count; i++) {
        size_t read = atomic_load_explicit(&ring.read, memory_order_relaxed);

        while (atomic_load_explicit(&ring.written, memory_order_acquire) == read) {
            wait_a_little(&spins);
        }
        front_free(ring.blocks[read % RING]);
        atomic_store_explicit(&ring.read, read + 1, memory_order_release);
    }
}

/* The time of a part is the consumer's: it ends last. */
static void run_ring_thread(unsigned number) {
    uint64_t ops = option("ops"), seed = 5;

    for (uint64_t chunk = option("chunks"); chunk > 0; chunk--) {
        uint64_t start;

        meet_others();
        start = time_now();
        if (number == 1) {
            produce(ops, &seed);
        } else {
            consume(ops);
            report("object", (double)(time_now() - start) / (double)ops);
        }
    }
}

void run_ring(void) {
    open_heap();
    run_threads(2, run_ring_thread);
    report("resident", (double)resident_bytes());
}
