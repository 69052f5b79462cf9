/* Setting up a heap of 64 GiB: how long it takes, and how much memory it touches. Without the
 * system calls that reserve the address space. */
#include "bench.h"

#include <sys/mman.h>

enum { PAGE = 4096 };

#define HEAP ((size_t)64 << 30)

static void *reserve(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? needed(NULL) : memory;
}

static size_t touched_bytes(void *memory, size_t bytes) {
    unsigned char *present = own_memory(bytes / PAGE);
    size_t count = 0;

    if (mincore(memory, bytes, present) != 0) {
        fail("mincore failed");
    }
    for (size_t i = 0; i < bytes / PAGE; i++) {
        count += present[i] & 1;
    }
    munmap(present, bytes / PAGE);
    return count * PAGE;
}

void run_setup(void) {
    const struct bsa_config config = {.page_size = PAGE, .slots = (unsigned)option("slots")};
    const struct bsa_section_config zeroed = {.flags = BSA_ZEROED};
    size_t root_size = bsa_root_size(config.slots);
    struct bsa_root *root;

    for (uint64_t chunk = option("chunks"); chunk > 0; chunk--) {
        void *region = reserve(HEAP), *root_memory = reserve(root_size);
        uint64_t start = time_now();

        if (bsa_init(root_memory, root_size, &config, &root) != BSA_OK ||
            bsa_add_region(root, region, HEAP, &zeroed, NULL) != BSA_OK) {
            fail("no heap of 64 GiB");
        }
        report("setup", (double)(time_now() - start));
        report("touched",
               (double)(touched_bytes(region, HEAP) + touched_bytes(root_memory, root_size)));
        munmap(region, HEAP);
        munmap(root_memory, root_size);
    }
}
