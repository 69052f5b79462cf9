/* Runs one workload: `bench WORKLOAD option=value ...`. */
#include "bench.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { OUT_OF_MEMORY = 3 };

static const struct workload {
    const char *name;
    void (*run)(void);
} workloads[] = {
    {"pairs", run_pairs},
    {"batch", run_batch},
    {"replacement", run_replacement},
    {"ring", run_ring},
    {"trace", run_trace},
#ifdef BENCH_BSA
    {"page-pairs", run_page_pairs},
    {"page-mix", run_page_mix},
    {"page-exhaustion", run_page_exhaustion},
    {"sections", run_sections},
    {"setup", run_setup},
#endif
};

static char **arguments;

void fail(const char *format, ...) {
    va_list values;

    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    exit(1);
}

void out_of_memory(void) {
    fprintf(stderr, "out of memory\n");
    exit(OUT_OF_MEMORY);
}

const char *option_text(const char *name) {
    size_t length = strlen(name);

    for (char **argument = arguments; *argument != NULL; argument++) {
        if (strncmp(*argument, name, length) == 0 && (*argument)[length] == '=') {
            return *argument + length + 1;
        }
    }
    fail("missing: %s=", name);
}

uint64_t option(const char *name) {
    return strtoull(option_text(name), NULL, 10);
}

void report(const char *name, double value) {
    printf("%s %.6f\n", name, value);
}

void report_text(const char *name, const char *text) {
    printf("%s %s\n", name, text);
}

void *own_memory(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    return memory == MAP_FAILED ? needed(NULL) : memory;
}

uint64_t resident_bytes(void) {
    FILE *rollup = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    unsigned long long kibibytes = 0;

    if (rollup == NULL) {
        fail("no /proc/self/smaps_rollup");
    }
    while (fgets(line, sizeof line, rollup) != NULL && sscanf(line, "Rss: %llu", &kibibytes) != 1) {
    }
    fclose(rollup);
    return kibibytes * 1024;
}

void shuffle(void **blocks, size_t count, uint64_t *seed) {
    for (size_t i = count; i > 1; i--) {
        size_t other = upper_below(random_bits(seed), i);
        void *block = blocks[i - 1];

        blocks[i - 1] = blocks[other];
        blocks[other] = block;
    }
}

/* --- threads ---------------------------------------------------------------------------------
 */

static unsigned thread_count = 1;
static pthread_barrier_t barrier;
static void (*work_of_all)(unsigned number);

static void *run_thread(void *number) {
    front_begin_thread((unsigned)(uintptr_t)number);
    work_of_all((unsigned)(uintptr_t)number);
    return NULL;
}

void run_threads(unsigned count, void (*work)(unsigned number)) {
    pthread_t threads[MOST_THREADS];

    if (count == 0 || count > MOST_THREADS) {
        fail("threads=%u", count);
    }
    thread_count = count;
    work_of_all = work;
    pthread_barrier_init(&barrier, NULL, count);
    for (unsigned i = 1; i < count; i++) {
        if (pthread_create(&threads[i], NULL, run_thread, (void *)(uintptr_t)i) != 0) {
            fail("cannot start a thread");
        }
    }
    run_thread(NULL);
    for (unsigned i = 1; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
}

void meet_others(void) {
    pthread_barrier_wait(&barrier);
}

uint64_t time_now(void) {
    struct timespec now;

    clock_gettime(thread_count == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* --- the program -----------------------------------------------------------------------------
 */

/* Which library is measured: LD_PRELOAD may fail with a warning only. */
static void report_library(void) {
    union {
        void *(*function)(size_t);
        void *address;
    } alloc = {.function = front_alloc};
    Dl_info info;

    if (dladdr(alloc.address, &info) == 0) {
        fail("nobody knows where the allocator comes from");
    }
    report_text("library", info.dli_fname);
}

static const struct workload *workload_named(const char *name) {
    for (size_t i = 0; i < sizeof workloads / sizeof workloads[0]; i++) {
        if (strcmp(name, workloads[i].name) == 0) {
            return &workloads[i];
        }
    }
    fail("no workload %s", name);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fail("usage: %s WORKLOAD option=value ...", argv[0]);
    }
    arguments = argv + 2;
    report_library();
#ifdef BENCH_BSA
    if (REFUSES) {
        expect_refusals();
        report("refusals", 1);
    }
#endif
    workload_named(argv[1])->run();
    return 0;
}
