/* The core alone, as a kernel or a bare-metal program would use it: a static array is the heap.
 *
 *     cc -std=c11 -Icsrc/core examples/standalone.c csrc/core/all.c && ./a.out */
#include <stdio.h>

#include "bsa.h"

static _Alignas(64) unsigned char root_memory[64 * 1024], heap[1 << 20];

int main(void) {
    struct bsa_config config = {.page_size = 4096, .slots = 1, .serial = true};
    struct bsa_stats stats;
    struct bsa_root *root;
    uintptr_t name, table, pages;

    if (bsa_init(root_memory, sizeof root_memory, &config, &root) != BSA_OK ||
        bsa_add_region(root, heap, sizeof heap, NULL, NULL) != BSA_OK ||
        bsa_alloc(root, 24, 0, 0, &name) != BSA_OK ||
        bsa_alloc(root, 1000, 64, BSA_ZERO, &table) != BSA_OK ||
        bsa_alloc_pages(root, 5, 0, BSA_EXACT, &pages) != BSA_OK) {
        fputs("out of memory\n", stderr);
        return 1;
    }
    snprintf((char *)name, 24, "object %p", (void *)name);
    bsa_stats(root, &stats);
    printf("%s, table %p, five pages %p\n", (const char *)name, (void *)table, (void *)pages);
    printf("live: %llu allocations of %llu bytes, in pages of %llu bytes\n",
           (unsigned long long)stats.current_count, (unsigned long long)stats.current_bytes,
           (unsigned long long)stats.allocated_bytes);
    printf("freed: %s", bsa_status_text(bsa_free(root, name)));
    printf(", %s", bsa_status_text(bsa_free(root, table)));
    printf(", %s\n", bsa_status_text(bsa_free_pages(root, pages, 5)));
    printf("freed twice: %s\n", bsa_status_text(bsa_free(root, pages)));
    printf("trimmed: %zu pages", bsa_trim(root));
    printf("; sound: %s\n", bsa_status_text(bsa_check(root, NULL)));
    return bsa_free_page_count(root) == bsa_total_pages(root) ? 0 : 1;
}
