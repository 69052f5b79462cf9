/* One slab: a block of pages cut into equal objects, with two bitmaps out of line.
 *
 * A set bit of the *live* bitmap is an object that was handed out; its owner alone writes it. A set
 * bit of the *remote* bitmap is one of those that another slot has freed and the owner has not yet
 * taken back. Words of the two take turns in memory (struct bsa_bits). All ownership comes from the
 * page words and the bitmaps: no byte of an object is ever read.
 *
 * The bitmaps have a bit for every granule of the heap (size_class.h). So an object's bit follows
 * from its address alone, whatever its size: no division, and no table. Only where an object starts
 * can a bit be set, so one that is set proves an address right: it is no address between two
 * objects, none in the tail, and none of an object that is free. A free slab has no bit set; fresh
 * zero memory needs no set-up.
 *
 * The remote-free protocol. The freer of an object
 *   1. sets the object's bit in its word of the remote bitmap; a bit already set there, or not set
 * in the live bitmap, is a double free;
 *   2. the word was not 0: done, it never touches the slab again. The freer that found 0 *names*
 * the word:
 *   3. it sets the word's bit in the slab's summary; the summary was not 0: done;
 *   4. the summary was 0: it pushes the slab on its owner's stack (cache.h), through a link of its
 * own. The owner drains only slabs that it took off that stack: it reads the link, exchanges the
 * summary with 0, and takes the bits of the words it named, no others. A word goes from 0 to not 0
 * once, is named once, and is taken once: so no bit is lost. A freer between steps 1 and 3 or 3 and
 * 4 still keeps a bit out of the owner's reach, or the slab off its stack; and a slab is given up
 * only when no object in it is live: so no freer touches a slab that is already somebody else's. */
#ifndef BSA_SLAB_H
#define BSA_SLAB_H

#include "poison.h"
#include "section.h"

/* A slab's place: the metadata that describes it. */
struct bsa_slab {
    struct bsa_section *section;
    bsa_page_index head;
};

/* The slab that holds the address, which lies on a page with that word. */
static inline struct bsa_slab bsa_slab_around(struct bsa_section *section, uint64_t word,
                                              uintptr_t address) {
    return (struct bsa_slab){section, bsa_page_of(section, address) - bsa_word_back(word)};
}

static inline struct bsa_page *bsa_slab_page(struct bsa_slab slab) {
    return bsa_page_at(slab.section, slab.head);
}

static inline struct bsa_bits *bsa_slab_bits(struct bsa_slab slab) {
    return bsa_bits_at(slab.section, slab.head);
}

static inline uint32_t bsa_slab_capacity(const struct bsa_class_table *classes, uint64_t word) {
    return classes->classes[bsa_word_class(word)].capacity[bsa_word_order(word)];
}

/* Makes the block of 2^order pages at `slab` a slab of the class, all free, owned by the slot.
 */
void bsa_slab_create(const struct bsa_class_table *classes, struct bsa_slab slab, unsigned order,
                     unsigned class_index, unsigned slot);

/* Makes the slab, all of it free, a block again that its giver may free. */
void bsa_slab_destroy(struct bsa_slab slab);

/* Objects of those 64 that are live on both sides. */
static inline uint64_t bsa_live_bits(const struct bsa_bits *bits) {
    return atomic_load_explicit(&bits->live, memory_order_relaxed) &
           ~atomic_load_explicit(&bits->remote, memory_order_relaxed);
}

/* Whether a live object starts at the address, which lies in a slab of the section. */
static inline bool bsa_slab_is_live(const struct bsa_section *section, uintptr_t address) {
    uint64_t granule = bsa_granule_at(section, address);

    return bsa_has_granule(section, granule) &&
           (bsa_live_bits(section->derived.bits + granule / 64) >> granule % 64 & 1) != 0;
}

/* The same where the address lies on a page of any kind, which has that word. */
static inline bool bsa_is_live_object(const struct bsa_section *section, uint64_t word,
                                      uintptr_t address) {
    return bsa_word_state(word) == BSA_SLAB && bsa_slab_is_live(section, address);
}

/* Number of the object that the address is within, of the slab whose head has that word;
 * UINT32_MAX: it is between two or in the tail. */
uint32_t bsa_slab_index_of(const struct bsa_class_table *classes, struct bsa_slab slab,
                           uint64_t word, uintptr_t address);

/* Where that object starts. */
static inline uintptr_t bsa_slab_object_address(const struct bsa_class_table *classes,
                                                struct bsa_slab slab, uint64_t word,
                                                uint32_t index) {
    return bsa_page_address(slab.section, slab.head) +
           (uintptr_t)index * classes->classes[bsa_word_class(word)].stride;
}

/* Bits pending on the remote side. Exact while no other slot frees. */
uint32_t bsa_slab_remote_count(const struct bsa_class_table *classes, struct bsa_slab slab);

/* An object about to be freed: poisoned unless the free is a wrong one. */
#if BSA_POISONING
static inline void bsa_poison_if_live(struct bsa_section *section, uintptr_t address, size_t size) {
    if (bsa_slab_is_live(section, address)) {
        bsa_poison(section, address, size);
    }
}
#else
#define bsa_poison_if_live(section, address, size) ((void)0)
#endif

/* An object, and what handing it out and freeing it change. */
struct bsa_object {
    uintptr_t address;
    struct bsa_page *page; /* of its slab's head */
    struct bsa_bits *bits; /* its words of the bitmaps */
};

/* The object's bit in those words: pages, and so sections, start at the first bit of a word. */
static BSA_FAST_PATH uint64_t bsa_object_bit(const struct bsa_object *object,
                                             unsigned granule_shift) {
    return (uint64_t)1 << (object->address >> granule_shift) % 64;
}

/* The owner's free of the object at the address, where that granule of the heap starts, if a live
 * one starts there; else NOT_ALLOCATED. `page`, on which the address lies, is a slab's and has that
 * word. bsa_slab_count_down must follow. */
static BSA_FAST_PATH bsa_status bsa_slab_free_local(const struct bsa_section *section,
                                                    struct bsa_page *page, uint64_t word,
                                                    uintptr_t address, uint64_t granule,
                                                    struct bsa_object *object) {
    struct bsa_bits *bits = section->derived.bits + granule / 64;
    uint64_t live = atomic_load_explicit(&bits->live, memory_order_relaxed);
    uint64_t remote = atomic_load_explicit(&bits->remote, memory_order_relaxed);

    /* Relaxed: a first free that happened before this one is visible in either word anyway. */
    if (BSA_UNLIKELY(((live & ~remote) >> granule % 64 & 1) == 0)) {
        return BSA_NOT_ALLOCATED;
    }
    atomic_store_explicit(&bits->live, live & ~((uint64_t)1 << granule % 64), memory_order_relaxed);
    *object = (struct bsa_object){address, page - bsa_word_back(word), bits};
    return BSA_OK;
}

/* Counts an object freed in the slab with that head. True: it may have to change its list. */
static BSA_FAST_PATH bool bsa_slab_count_down(struct bsa_page *head) {
    return --head->relist_in == 0;
}

/* Another slot's free: steps 1 to 3. `*must_push`: step 4 is the caller's to do. NOT_ALLOCATED:
 * no live object starts there. Lock-free: it tries again only when another free or drain of the
 * same word went through. */
bsa_status bsa_slab_free_remote(struct bsa_slab slab, uintptr_t address, bool *must_push);

/* Takes the named remote bits out of the live bitmap; the slab was taken off its owner's stack.
 * Returns how many objects came back; adds to `*overlaps` those that were free locally as well (an
 * object freed from two sides at once). */
uint32_t bsa_slab_drain(struct bsa_slab slab, uint64_t *overlaps);

/* Makes the slab the slot's, recomputes what is derived (the free count, what the pages say of
 * their head), and takes every remote bit, named or not. Needs quiescence. */
void bsa_slab_rebuild(const struct bsa_class_table *classes, struct bsa_slab slab, unsigned slot);

#endif
