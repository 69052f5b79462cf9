/* The front over bsa, with the core in the same shared library, compiled as for release.
 *
 * Each call looks up the calling thread's slot, which a thread-local variable holds. A refused free
 * ends the process: no number is worth anything after it. */
#include "front.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static struct bsa_root *root;
static unsigned slot_count;
/* In the fixed part of thread-local storage, as a malloc would have it. */
static _Thread_local __attribute__((tls_model("initial-exec"))) unsigned slot = BSA_NO_SLOT;

static _Noreturn __attribute__((cold, noinline)) void fail(const char *what, bsa_status status) {
    fprintf(stderr, "%s: %s\n", what, bsa_status_text(status));
    exit(1);
}

static void *map(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED) {
        fprintf(stderr, "no %zu bytes of address space\n", bytes);
        exit(1);
    }
    return memory;
}

static inline void expect(const char *what, bsa_status status) {
    if (__builtin_expect(status != BSA_OK, 0)) {
        fail(what, status);
    }
}

void front_open(size_t bytes, unsigned slots, unsigned sections) {
    const struct bsa_config config = {.page_size = 4096, .slots = slots};
    const struct bsa_section_config zeroed = {.flags = BSA_ZEROED};
    size_t root_size = bsa_root_size(slots), each = bytes / sections;
    char *region = map(bytes);

    slot_count = slots;
    expect("init", bsa_init(map(root_size), root_size, &config, &root));
    for (unsigned i = 0; i < sections; i++) {
        expect("add_region", bsa_add_region(root, region + i * each, each, &zeroed, NULL));
    }
}

struct bsa_root *front_root(void) {
    return root;
}

void front_begin_thread(unsigned number) {
    slot = number % slot_count;
    expect("slot_attach", bsa_slot_attach(root, slot));
}

void *front_alloc(size_t size) {
    return (void *)bsa_malloc_on(root, slot, size);
}

void *front_alloc_aligned(size_t size, size_t align) {
    uintptr_t address;

    return bsa_alloc_on(root, slot, size, align, 0, &address) == BSA_OK ? (void *)address : NULL;
}

void *front_realloc(void *old, size_t size) {
    uintptr_t address;

    return bsa_realloc_on(root, slot, (uintptr_t)old, size, &address) == BSA_OK ? (void *)address
                                                                                : NULL;
}

void front_free(void *block) {
    expect("free", bsa_free_on(root, slot, (uintptr_t)block));
}

void *front_alloc_pages(unsigned order) {
    uintptr_t address;

    return bsa_alloc_pages_on(root, slot, (size_t)1 << order, 0, 0, &address) == BSA_OK
               ? (void *)address
               : NULL;
}

void front_free_pages(void *block, unsigned order) {
    expect("free_pages", bsa_free_pages_on(root, slot, (uintptr_t)block, (size_t)1 << order));
}
