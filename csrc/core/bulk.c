/* Many allocations or frees in one call, all or none.
 *
 * Freeing first proves every address right and none repeated (by sorting: O(n log n), or O(n) where
 * they come sorted, as bsa_alloc_many delivers them), then frees. Locking: that of each single
 * operation. */
#include "root.h"

bsa_status bsa_alloc_many_on(struct bsa_root *root, unsigned slot, size_t count, size_t size,
                             size_t align, uintptr_t *addresses) {
    for (size_t i = 0; i < count; i++) {
        bsa_status status = bsa_alloc_on(root, slot, size, align, 0, &addresses[i]);

        if (status != BSA_OK) {
            while (i > 0) {
                bsa_free_on(root, slot, addresses[--i]);
            }
            return status;
        }
    }
    return BSA_OK;
}

/* Lets the element at `at` sink in the heap of `count` elements with the largest on top. */
static void sift_down(uintptr_t *heap, size_t at, size_t count) {
    uintptr_t sinking = heap[at];

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= count) {
            break;
        }
        child += child + 1 < count && heap[child + 1] > heap[child];
        if (heap[child] <= sinking) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = sinking;
}

/* Heapsort (Williams 1964): in place, no recursion, O(n log n) at worst. */
static void sort(uintptr_t *addresses, size_t count) {
    for (size_t i = count / 2; i > 0; i--) {
        sift_down(addresses, i - 1, count);
    }
    for (size_t end = count; end > 1;) {
        uintptr_t largest = addresses[0];

        addresses[0] = addresses[--end];
        addresses[end] = largest;
        sift_down(addresses, 0, end);
    }
}

static bool is_sorted(const uintptr_t *addresses, size_t count) {
    for (size_t i = 1; i < count; i++) {
        if (addresses[i - 1] > addresses[i]) {
            return false;
        }
    }
    return true;
}

/* The first address of the sorted array that cannot be freed. */
static bsa_status find_wrong(const struct bsa_root *root, const uintptr_t *addresses, size_t count,
                             uintptr_t *wrong) {
    for (size_t i = 0; i < count; i++) {
        struct bsa_allocation found;
        bsa_status status = i > 0 && addresses[i] == addresses[i - 1]
                                ? BSA_NOT_ALLOCATED
                                : bsa_lookup(root, addresses[i], &found);

        if (status != BSA_OK) {
            if (wrong != NULL) {
                *wrong = addresses[i];
            }
            return status;
        }
    }
    return BSA_OK;
}

bsa_status bsa_free_many_on(struct bsa_root *root, unsigned slot, uintptr_t *addresses,
                            size_t count, uintptr_t *wrong) {
    bsa_status status;

    if (!is_sorted(addresses, count)) {
        sort(addresses, count);
    }
    status = find_wrong(root, addresses, count, wrong);
    for (size_t i = 0; i < count && status == BSA_OK; i++) {
        status = bsa_free_on(root, slot, addresses[i]);
        if (status != BSA_OK && wrong != NULL) {
            *wrong = addresses[i];
        }
    }
    return status;
}
