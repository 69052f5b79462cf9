/* Trimming: what caches hold idle goes back to the buddy.
 *
 * The last effort before a request fails, and what bsa_trim is for. O(classes) for each slot, and
 * what is given back. A slot that is attached to another thread is out of reach: its owner is
 * asked, and trims when it comes by. Locking: see facade.h. */
#include "facade.h"

size_t bsa_trim_slot(struct bsa_root *root, struct bsa_slot *slot) {
    size_t pages = 0;

    for (unsigned c = 0; c < root->space.classes.count; c++) {
        struct bsa_cache *cache = &slot->caches[c];

        bsa_cache_trim(&root->space, cache);
        bsa_account_drained(root, cache);
        pages += bsa_give_back_retired(root, cache);
    }
    bsa_page_cache_merge(root, slot);
    return pages;
}

/* Trims a slot that is not the caller's, or asks its owner to. */
static size_t trim_other(struct bsa_root *root, struct bsa_slot *slot) {
    size_t pages = 0;

    if (root->serial) {
        return bsa_trim_slot(root, slot);
    }
    if (bsa_enter_shared(root, slot)) {
        pages = bsa_trim_slot(root, slot);
        bsa_leave_slot(root, slot, true);
        return pages;
    }
    atomic_store_explicit(&slot->trim_request, 1, memory_order_relaxed);
    return 0;
}

size_t bsa_trim_on(struct bsa_root *root, unsigned slot) {
    size_t pages = 0;

    for (unsigned i = 0; i < root->space.slot_count; i++) {
        struct bsa_slot *other = &root->space.slots[i];

        if (i == slot) {
            bool locked = bsa_enter_slot(root, other);

            pages += bsa_trim_slot(root, other);
            bsa_leave_slot(root, other, locked);
        } else {
            pages += trim_other(root, other);
        }
    }
    return pages;
}
