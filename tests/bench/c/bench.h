/* What workloads share: options, time, random numbers, memory of their own, and how they report.
 *
 * A workload is a function. It takes its options from the command line (`live=100000`), does its
 * work in `chunks` equal parts and reports a figure for each: "name value", a line on stdout.
 * Whoever reads them drops the first chunk, which finds the heap and the caches cold. */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "front.h"

/* A loop that is measured: a function of its own, which callgrind sees as the caller. */
#define MEASURED __attribute__((noinline, noclone))

/* The number in the argument `name=number`. Ends the process if it is missing. */
uint64_t option(const char *name);
/* The text in the argument `name=text`. */
const char *option_text(const char *name);

void report(const char *name, double value);
void report_text(const char *name, const char *text);

_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the process with a status of its own: a figure without the memory would be wrong. */
_Noreturn void out_of_memory(void) __attribute__((cold));

static inline void *needed(void *block) {
    if (__builtin_expect(block == NULL, 0)) {
        out_of_memory();
    }
    return block;
}

/* Nanoseconds: processor time of a thread that is alone, so that programs beside this one do not
 * count; the time on the wall where threads wait for each other. */
uint64_t time_now(void);

/* Zeroed memory that no measured allocator knows of, present from the start. */
void *own_memory(size_t bytes);

/* Bytes of this process that lie in memory. */
uint64_t resident_bytes(void);

/* Steele, Lea and Flood's SplitMix64. The state is the seed. */
static inline uint64_t random_bits(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15U;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

/* A number below `limit` (at most 2^32) from the upper half of random bits. */
static inline uint64_t upper_below(uint64_t bits, uint64_t limit) {
    return (bits >> 32) * limit >> 32;
}

/* The same from the lower half. */
static inline uint64_t lower_below(uint64_t bits, uint64_t limit) {
    return (bits & 0xffffffffU) * limit >> 32;
}

void shuffle(void **blocks, size_t count, uint64_t *seed);

enum { MOST_THREADS = 64 };

/* Runs `work` in `count` threads at once, this one among them. It gets its number, and calls
 * meet_others() before each part that all are to begin together. */
void run_threads(unsigned count, void (*work)(unsigned number));
void meet_others(void);

void run_pairs(void);
void run_batch(void);
void run_replacement(void);
void run_ring(void);
void run_trace(void);
void run_page_pairs(void);
void run_page_mix(void);
void run_page_exhaustion(void);
void run_sections(void);
void run_setup(void);
/* Ends the process unless bsa refuses what must be refused, objects and pages alike. */
void expect_refusals(void);

#endif
