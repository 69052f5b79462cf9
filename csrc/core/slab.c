/* One slab: see slab.h for the protocol. Freeing is O(1); creating and draining O(granules / 64).
 *
 * Locking: whoever owns the slab (its slot's lock, or the thread it is attached to) for all but
 * bsa_slab_free_remote, which needs none. */
#include "slab.h"

/* Sets the words of all pages but the first to what the head's word asks for. */
static void set_inside_words(struct bsa_slab slab, uint64_t word) {
    for (uint32_t i = 1; i < bsa_word_count(word); i++) {
        bsa_page_set_word(bsa_page_at(slab.section, slab.head + i), bsa_slab_inside_word(word, i));
    }
}

static void clear_inside_words(struct bsa_slab slab, uint32_t pages) {
    for (uint32_t i = 1; i < pages; i++) {
        bsa_page_set_word(bsa_page_at(slab.section, slab.head + i), 0);
    }
}

void bsa_slab_create(const struct bsa_class_table *classes, struct bsa_slab slab, unsigned order,
                     unsigned class_index, unsigned slot) {
    struct bsa_page *page = bsa_slab_page(slab);
    struct bsa_bits *bits = bsa_slab_bits(slab);
    uint64_t word = bsa_slab_word(order, class_index, slot, BSA_SLAB_FULL);

    /* No bit is set, but what a racing double free may have left behind on the remote side (or who
     * knows what, in metadata found somewhere). Not so the summary: where such a free has left a
     * name, the slab is on a stack, and must not be pushed on another. */
    for (uint32_t w = 0; w < bsa_bitmap_words(classes, order); w++) {
        if ((atomic_load_explicit(&bits[w].live, memory_order_relaxed) |
             atomic_load_explicit(&bits[w].remote, memory_order_relaxed)) != 0) {
            atomic_store_explicit(&bits[w].live, 0, memory_order_relaxed);
            atomic_store_explicit(&bits[w].remote, 0, memory_order_relaxed);
        }
    }
    bsa_set_free_count(page, classes->classes[class_index].capacity[order]);
    page->next = page->prev = BSA_NO_PAGE;
    bsa_page_set_word(page, word);
    set_inside_words(slab, word);
}

void bsa_slab_destroy(struct bsa_slab slab) {
    struct bsa_page *page = bsa_slab_page(slab);
    unsigned order = bsa_word_order(bsa_page_word(page));
    uint32_t pages = (uint32_t)1 << order;

    clear_inside_words(slab, pages);
    bsa_set_free_count(page, 0);
    bsa_page_set_word(page, bsa_block_word(BSA_CHANGING, order, pages));
}

uint32_t bsa_slab_index_of(const struct bsa_class_table *classes, struct bsa_slab slab,
                           uint64_t word, uintptr_t address) {
    const struct bsa_class *class = &classes->classes[bsa_word_class(word)];
    uint32_t offset = (uint32_t)(address - bsa_page_address(slab.section, slab.head));
    uint32_t index = offset / class->stride;

    return index < class->capacity[bsa_word_order(word)] && offset % class->stride < class->size
               ? index
               : UINT32_MAX;
}

uint32_t bsa_slab_remote_count(const struct bsa_class_table *classes, struct bsa_slab slab) {
    const struct bsa_bits *bits = bsa_slab_bits(slab);
    uint32_t words = bsa_bitmap_words(classes, bsa_word_order(bsa_page_word(bsa_slab_page(slab))));
    uint32_t count = 0;

    for (uint32_t w = 0; w < words; w++) {
        count += bsa_popcount(atomic_load_explicit(&bits[w].remote, memory_order_relaxed));
    }
    return count;
}

/* Takes back the bit of a double free from a word that is not named yet. Returns whether others
 * have set bits of the word meanwhile, and rely on us to name it. */
static bool withdraw(_Atomic uint64_t *remote, uint64_t bit) {
    return (atomic_fetch_and_explicit(remote, ~bit, memory_order_acq_rel) & ~bit) != 0;
}

/* Step 1: sets the bit, unless the object is free on either side. `*before` receives the word as it
 * was.
 *
 * The remote word is read before the live one, because draining goes the other way round: if the
 * object was freed before, its bit is in the word read, or was taken out of the live word before
 * that. A compare-exchange, because the look at the live word must still hold when the bit is set:
 * had the word been drained meanwhile, it would have changed. Each failure is another free or a
 * drain that went through. */
static bool set_remote_bit(struct bsa_bits *bits, uint64_t bit, uint64_t *before) {
    /* Acquire: pairs with the owner's release in take_word. Release: what was written into the
     * object is over before the owner hands it out again. */
    *before = atomic_load_explicit(&bits->remote, memory_order_acquire);
    do {
        if ((atomic_load_explicit(&bits->live, memory_order_relaxed) & ~*before & bit) == 0) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&bits->remote, before, *before | bit,
                                                    memory_order_acq_rel, memory_order_acquire));
    return true;
}

bsa_status bsa_slab_free_remote(struct bsa_slab slab, uintptr_t address, bool *must_push) {
    uint64_t granule = bsa_granule_at(slab.section, address), bit = (uint64_t)1 << granule % 64;
    uint64_t word_bit, before;
    struct bsa_bits *bits;
    bsa_status status = BSA_OK;

    *must_push = false;
    if (!bsa_has_granule(slab.section, granule)) {
        return BSA_NOT_ALLOCATED;
    }
    bits = slab.section->derived.bits + granule / 64;
    word_bit = (uint64_t)1 << (bits - bsa_slab_bits(slab));
    if (!set_remote_bit(bits, bit, &before)) {
        return BSA_NOT_ALLOCATED;
    }
    if (before != 0) {
        return BSA_OK;
    }
    /* The word was empty, as it also is after a racing free of the same object has come and been
     * drained. Until we name it no drain takes our bit: so if the object is not live now, it was
     * that other free. */
    if ((atomic_load_explicit(&bits->live, memory_order_relaxed) & bit) == 0) {
        if (!withdraw(&bits->remote, bit)) {
            return BSA_NOT_ALLOCATED;
        }
        status = BSA_NOT_ALLOCATED;
    }
    /* Release: the bit is there for who sees the name; acquire orders the push after the owner's
     * reading of the link. */
    *must_push = atomic_fetch_or_explicit(&bsa_slab_page(slab)->summary, word_bit,
                                          memory_order_acq_rel) == 0;
    return status;
}

/* Takes the bits of one remote word out of the live word: cleared there before they are cleared
 * here, so that a second free finds the first in one of the two at any time. Returns the bits that
 * were live. */
static uint64_t take_word(struct bsa_bits *bits, uint64_t *overlaps) {
    uint64_t live = atomic_load_explicit(&bits->live, memory_order_relaxed);
    uint64_t freed = atomic_load_explicit(&bits->remote, memory_order_acquire);

    do {
        atomic_store_explicit(&bits->live, live & ~freed, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&bits->remote, &freed, 0, memory_order_acq_rel,
                                                    memory_order_acquire));
    *overlaps += bsa_popcount(freed & ~live);
    return freed & live;
}

uint32_t bsa_slab_drain(struct bsa_slab slab, uint64_t *overlaps) {
    struct bsa_page *page = bsa_slab_page(slab);
    struct bsa_bits *bits = bsa_slab_bits(slab);
    uint32_t count = 0;
    /* Acquire: the named words' bits are visible. Release: from here on a freer may push the slab
     * again, and overwrite the link that was read before. */
    uint64_t named = atomic_exchange_explicit(&page->summary, 0, memory_order_acq_rel);

    for (; named != 0; named &= named - 1) {
        count += bsa_popcount(take_word(&bits[bsa_lowest_bit(named)], overlaps));
    }
    bsa_set_free_count(page, bsa_free_count(page) + count);
    return count;
}

void bsa_slab_rebuild(const struct bsa_class_table *classes, struct bsa_slab slab, unsigned slot) {
    struct bsa_page *page = bsa_slab_page(slab);
    uint64_t was = bsa_page_word(page), overlaps = 0;
    uint64_t word = bsa_slab_word(bsa_word_order(was), bsa_word_class(was), slot, BSA_SLAB_FULL);
    const struct bsa_class *class = &classes->classes[bsa_word_class(was)];
    struct bsa_bits *bits = bsa_slab_bits(slab);
    uint32_t live = 0;

    atomic_store_explicit(&page->summary, 0, memory_order_relaxed);
    for (uint32_t w = 0; w < bsa_bitmap_words(classes, bsa_word_order(was)); w++) {
        struct bsa_starts at = bsa_starts_in(class, bsa_word_order(was), w);
        uint64_t starts = bsa_starts_bits(&at);

        take_word(&bits[w], &overlaps);
        starts &= atomic_load_explicit(&bits[w].live, memory_order_relaxed);
        atomic_store_explicit(&bits[w].live, starts, memory_order_relaxed);
        live += bsa_popcount(starts);
    }
    bsa_set_free_count(page, bsa_slab_capacity(classes, word) - live);
    page->next = page->prev = BSA_NO_PAGE;
    bsa_page_set_word(page, word);
    set_inside_words(slab, word);
}
