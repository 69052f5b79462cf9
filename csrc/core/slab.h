/* One slab: a block of pages cut into equal objects, with two bitmaps out of line.
 *
 * A set bit of the *local* bitmap is a free object; its owner alone writes it. A set bit of the
 * *remote* bitmap is an object that another slot has freed and the owner has not yet taken back. An
 * object is live where both are clear. Words of the two take turns in memory (struct bsa_bits). All
 * ownership comes from the page words: no byte of an object is ever read.
 *
 * The remote-free protocol. The freer of an object
 *   1. sets the object's bit in its word of the remote bitmap; a bit already set there, or in the
 * local bitmap, is a double free;
 *   2. the word was not 0: done, it never touches the slab again. The freer that found 0 *names*
 * the word:
 *   3. it sets the word's bit in the slab's summary; the summary was not 0: done;
 *   4. the summary was 0: it pushes the slab on its owner's stack (cache.h), through a link of its
 * own. The owner drains only slabs that it took off that stack: it reads the link, exchanges the
 * summary with 0, and takes the bits of the words it named, no others. A word goes from 0 to not 0
 * once, is named once, and is taken once: so no bit is lost. A freer between steps 1 and 3 or 3 and
 * 4 still keeps a bit out of the owner's reach, or the slab off its stack; and a slab is given up
 * only when the local bits cover every object: so no freer touches a slab that is already somebody
 * else's. */
#ifndef BSA_SLAB_H
#define BSA_SLAB_H

#include "poison.h"
#include "section.h"

/* A slab's place: the metadata that describes it. */
struct bsa_slab {
    struct bsa_section *section;
    bsa_page_index head;
};

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

/* Whether the object is free on either side. */
bool bsa_slab_object_is_free(struct bsa_slab slab, uint32_t index);

/* Bits pending on the remote side. Exact while no other slot frees. */
uint32_t bsa_slab_remote_count(const struct bsa_class_table *classes, struct bsa_slab slab);

/* An object about to be freed: poisoned unless the free is a double one. */
#if BSA_POISONING
static inline void bsa_poison_if_live(struct bsa_slab slab, uint32_t index, uintptr_t address,
                                      size_t size) {
    if (!bsa_slab_object_is_free(slab, index)) {
        bsa_poison(slab.section, address, size);
    }
}
#else
#define bsa_poison_if_live(slab, index, address, size) ((void)0)
#endif

/* An object, and what handing it out and freeing it change. */
struct bsa_object {
    uintptr_t address;
    struct bsa_page *page; /* of its slab's head */
    struct bsa_bits *bits; /* its words of the bitmaps */
    uint32_t index;        /* in its slab; its bit is the one of this number modulo 64 */
};

static inline uint64_t bsa_object_bit(const struct bsa_object *object) {
    return (uint64_t)1 << object->index % 64;
}

/* The object of that index, at the address. */
static inline struct bsa_object bsa_slab_object(struct bsa_slab slab, uint32_t index,
                                                uintptr_t address) {
    return (struct bsa_object){address, bsa_slab_page(slab), bsa_slab_bits(slab) + index / 64,
                               index};
}

/* From an address to slab and object: `page`, on which the address lies, is a slab's and has that
 * word, which names that shape. False: no object starts there, but between two or in the tail. */
static BSA_FAST_PATH bool bsa_slab_find(const struct bsa_shape *shape, struct bsa_slab page,
                                        uint64_t word, uintptr_t address, struct bsa_slab *slab,
                                        struct bsa_object *object) {
    uint32_t index;

    *slab = (struct bsa_slab){page.section, page.head - bsa_word_back(word)};
    index =
        bsa_object_index(shape, (uint32_t)(address - bsa_page_address(page.section, slab->head)));
    if (BSA_UNLIKELY(index == UINT32_MAX)) {
        return false;
    }
    *object = bsa_slab_object(*slab, index, address);
    return true;
}

/* The owner's free. NOT_ALLOCATED: free already, on either side. */
static BSA_FAST_PATH bsa_status bsa_slab_free_local(const struct bsa_object *object) {
    struct bsa_bits *bits = object->bits;
    uint64_t local = atomic_load_explicit(&bits->local, memory_order_relaxed);
    uint64_t remote = atomic_load_explicit(&bits->remote, memory_order_relaxed);

    /* Relaxed: a first free that happened before this one is visible in either word anyway. */
    if (BSA_UNLIKELY(((local | remote) >> object->index % 64 & 1) != 0)) {
        return BSA_NOT_ALLOCATED;
    }
    atomic_store_explicit(&bits->local, local | bsa_object_bit(object), memory_order_relaxed);
    object->page->free_count++;
    return BSA_OK;
}

/* Another slot's free: steps 1 to 3. `*must_push`: step 4 is the caller's to do. NOT_ALLOCATED:
 * free already. Lock-free: it tries again only when another free or drain of the same word went
 * through. */
bsa_status bsa_slab_free_remote(struct bsa_slab slab, uint32_t index, bool *must_push);

/* Takes the named remote bits into the local bitmap; the slab was taken off its owner's stack.
 * Returns how many objects came back; adds to `*overlaps` those that were free locally as well (an
 * object freed from two sides at once). */
uint32_t bsa_slab_drain(const struct bsa_class_table *classes, struct bsa_slab slab,
                        uint64_t *overlaps);

/* Makes the slab the slot's, recomputes what is derived (the free count, what the pages say of
 * their head), and takes every remote bit, named or not. Needs quiescence. */
void bsa_slab_rebuild(const struct bsa_class_table *classes, struct bsa_slab slab, unsigned slot);

#endif
