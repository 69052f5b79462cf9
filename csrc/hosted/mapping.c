/* See mapping.h. Linux tells in /proc/self/maps what is shared. */
#include "mapping.h"

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static char *map_anywhere(size_t size) {
    void *start = mmap(NULL, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return start == MAP_FAILED ? NULL : start;
}

/* The least power of two that is at least a page and `size`, up to the largest block of 4 KiB
 * pages. */
static size_t alignment_for(size_t size, size_t page) {
    const size_t most = (size_t)1 << 32;
    size_t alignment = page;

    while (alignment < size && alignment < most) {
        alignment *= 2;
    }
    return alignment;
}

/* Blocks are aligned by address: where a heap's start differs, so does its layout. An aligned start
 * makes the layout the same in every run. Maps more than asked for, and gives back what is around
 * it. */
void *bsa_map(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), alignment = alignment_for(size, page);
    size_t length = (size + page - 1) / page * page, before;
    char *start;

    if (length < size || length + alignment < length) {
        errno = ENOMEM;
        return NULL;
    }
    start = map_anywhere(length + alignment);
    if (start == NULL) {
        return NULL;
    }
    before = -(uintptr_t)start & (alignment - 1);
    if (before > 0) {
        munmap(start, before);
    }
    if (before < alignment) {
        munmap(start + before + length, alignment - before);
    }
    return start + before;
}

void bsa_unmap(void *start, size_t size) {
    munmap(start, size);
}

/* Reads "start-end rwxs ..." lines up to the one that holds the address. */
static bool is_shared_in(FILE *maps, uintptr_t address) {
    uintptr_t start, end;
    char permissions[5];
    int fields;

    while ((fields = fscanf(maps, "%" SCNxPTR "-%" SCNxPTR " %4s%*[^\n]", &start, &end,
                            permissions)) == 3) {
        if (address >= start && address < end) {
            return permissions[3] == 's';
        }
    }
    return true;
}

bool bsa_mapping_is_shared(const void *address) {
    FILE *maps = fopen("/proc/self/maps", "re");
    bool shared = true;

    if (maps != NULL) {
        shared = is_shared_in(maps, (uintptr_t)address);
        fclose(maps);
    }
    return shared;
}

unsigned bsa_processors(void) {
    long count = sysconf(_SC_NPROCESSORS_ONLN);

    return count < 1 ? 1 : (unsigned)count;
}
