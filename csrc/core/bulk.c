/* Many allocations or frees in one call, all or none.
 *
 * Freeing first proves every address right and none repeated, then frees. Both go by rising
 * address, so that equal ones stand side by side, and neighbours share what they look at.
 * bsa_alloc_many delivers addresses nearly always so; others are sorted. O(n) where they come
 * sorted, else O(n w) for addresses that differ in w bits. Locking: that of each single operation.
 */
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

/* --- sorting -----------------------------------------------------------------------------------
 */

enum { FEW = 16 }; /* from so many on, passes over all bits cost less than insertion */

static void insertion_sort(uintptr_t *addresses, size_t count) {
    for (size_t i = 1; i < count; i++) {
        uintptr_t inserted = addresses[i];
        size_t at = i;

        for (; at > 0 && addresses[at - 1] > inserted; at--) {
            addresses[at] = addresses[at - 1];
        }
        addresses[at] = inserted;
    }
}

/* Moves those without the bit before those with it; returns how many they are. Without a branch
 * that the bit decides: it would be guessed wrong half the time. */
static size_t partition(uintptr_t *addresses, size_t count, unsigned bit) {
    size_t without = 0;

    for (size_t i = 0; i < count; i++) {
        uintptr_t address = addresses[i];

        addresses[i] = addresses[without];
        addresses[without] = address;
        without += (~address >> bit) & 1;
    }
    return without;
}

/* Sorts addresses that differ in these bits at most. Radix exchange (Knuth, TAOCP vol. 3, 5.2.2,
 * algorithm R): in place; no order of the input is worse than another. As deep as there are bits.
 */
static void sort(uintptr_t *addresses, size_t count, uintptr_t bits) {
    while (bits != 0 && count > FEW) {
        unsigned bit = bsa_log2_floor(bits);
        size_t without = partition(addresses, count, bit);

        bits ^= (uintptr_t)1 << bit;
        sort(addresses, without, bits);
        addresses += without;
        count -= without;
    }
    insertion_sort(addresses, count);
}

/* The bits in which any two differ. */
static uintptr_t differing_bits(const uintptr_t *addresses, size_t count) {
    uintptr_t bits = 0;

    for (size_t i = 1; i < count; i++) {
        bits |= addresses[i] ^ addresses[0];
    }
    return bits;
}

static bool is_sorted(const uintptr_t *addresses, size_t count) {
    for (size_t i = 1; i < count; i++) {
        if (addresses[i - 1] > addresses[i]) {
            return false;
        }
    }
    return true;
}

/* --- proving -----------------------------------------------------------------------------------
 */

/* Whether a live allocation starts at the address; errors as bsa_free's. `*section` is the one that
 * the last address was in, or NULL. */
static inline bsa_status prove(struct bsa_root *root, unsigned slot, uintptr_t address,
                               struct bsa_section **section) {
    struct bsa_allocation found;

    if (BSA_UNLIKELY(*section == NULL || !bsa_heap_holds(*section, address))) {
        *section = bsa_find_section(root, bsa_slot_of(root, slot), address);
    }
    return BSA_LIKELY(*section != NULL &&
                      bsa_is_live_object(
                          *section, bsa_page_word(bsa_page_around(*section, address)), address))
               ? BSA_OK
               : bsa_lookup(root, address, &found);
}

/* Proves all addresses of the sorted array; `*wrong` receives the first that cannot be freed. */
static bsa_status prove_all(struct bsa_root *root, unsigned slot, const uintptr_t *addresses,
                            size_t count, uintptr_t *wrong) {
    struct bsa_section *section = NULL;

    for (size_t i = 0; i < count; i++) {
        bsa_status status = i > 0 && addresses[i] == addresses[i - 1]
                                ? BSA_NOT_ALLOCATED
                                : prove(root, slot, addresses[i], &section);

        if (status != BSA_OK) {
            *wrong = addresses[i];
            return status;
        }
    }
    return BSA_OK;
}

bsa_status bsa_free_many_on(struct bsa_root *root, unsigned slot, uintptr_t *addresses,
                            size_t count, uintptr_t *wrong) {
    uintptr_t unasked;
    bsa_status status;

    wrong = wrong == NULL ? &unasked : wrong;
    if (!is_sorted(addresses, count)) {
        sort(addresses, count, differing_bits(addresses, count));
    }
    status = prove_all(root, slot, addresses, count, wrong);
    for (size_t i = 0; i < count && status == BSA_OK; i++) {
        status = bsa_free_on(root, slot, addresses[i]);
        if (status != BSA_OK) {
            *wrong = addresses[i];
        }
    }
    return status;
}
