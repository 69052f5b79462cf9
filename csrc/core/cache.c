/* See cache.h for the lists and the rules. */
#include "cache.h"

void bsa_slot_init(struct bsa_slot *slot, const struct bsa_class_table *classes, unsigned number,
                   struct bsa_tally *counted_in) {
    memset(slot, 0, sizeof *slot);
    bsa_forget_last_section(slot);
    bsa_page_cache_init(&slot->pages, number, classes->page_shift);
    for (unsigned i = 0; i < classes->count; i++) {
        slot->caches[i].class_index = (uint16_t)i;
        slot->caches[i].slot = (uint16_t)number;
        slot->caches[i].object_size = classes->classes[i].size;
        slot->caches[i].granule_shift = classes->granule_shift;
        slot->caches[i].counted_in = counted_in;
        bsa_cache_forget(&slot->caches[i]);
    }
}

/* --- lists -------------------------------------------------------------------------------------
 */

/* The slab with this number; most often of the section that the caller is at. */
static struct bsa_slab slab_at(const struct bsa_space *space, bsa_page_no number,
                               struct bsa_section *hint) {
    struct bsa_section *section = hint != NULL && bsa_section_has_number(hint, number)
                                      ? hint
                                      : bsa_section_by_number(&space->directory, number);

    return (struct bsa_slab){section, bsa_index_of(section, number)};
}

static bsa_page_no number_of(struct bsa_slab slab) {
    return bsa_number_of(slab.section, slab.head);
}

static uint32_t capacity_of(const struct bsa_space *space, struct bsa_slab slab) {
    return bsa_slab_capacity(&space->classes, bsa_page_word(bsa_slab_page(slab)));
}

static bool is_empty(const struct bsa_space *space, struct bsa_slab slab) {
    return bsa_free_count(bsa_slab_page(slab)) == capacity_of(space, slab);
}

/* The list a slab is on is part of its state: every move says from where. With the list goes the
 * free count at which a free must look at it again. */
static void move(struct bsa_slab slab, enum bsa_slab_state from, enum bsa_slab_state to,
                 uint32_t relist_at) {
    struct bsa_page *page = bsa_slab_page(slab);
    uint64_t word = bsa_page_word(page);

    BSA_ASSERT(bsa_word_list(word) == (unsigned)from);
    (void)from;
    bsa_page_set_word(page, bsa_relisted_word(word, to));
    bsa_set_relist_at(page, relist_at);
}

static void partial_append(struct bsa_space *space, struct bsa_cache *cache, struct bsa_slab slab) {
    struct bsa_page *page = bsa_slab_page(slab);

    move(slab, BSA_SLAB_FULL, BSA_SLAB_PARTIAL, capacity_of(space, slab));
    page->prev = cache->last_partial;
    page->next = BSA_NO_PAGE;
    if (cache->last_partial.value != 0) {
        struct bsa_slab last = slab_at(space, cache->last_partial, slab.section);

        bsa_slab_page(last)->next = number_of(slab);
    } else {
        cache->first_partial = number_of(slab);
    }
    cache->last_partial = number_of(slab);
}

/* Afterwards the slab counts as full: it is on no list. */
static void partial_remove(struct bsa_space *space, struct bsa_cache *cache, struct bsa_slab slab) {
    struct bsa_page *page = bsa_slab_page(slab);

    move(slab, BSA_SLAB_PARTIAL, BSA_SLAB_FULL, 1);
    if (page->prev.value != 0) {
        bsa_slab_page(slab_at(space, page->prev, slab.section))->next = page->next;
    } else {
        cache->first_partial = page->next;
    }
    if (page->next.value != 0) {
        bsa_slab_page(slab_at(space, page->next, slab.section))->prev = page->prev;
    } else {
        cache->last_partial = page->prev;
    }
}

static void set_current(struct bsa_space *space, struct bsa_cache *cache, struct bsa_slab slab) {
    move(slab, BSA_SLAB_FULL, BSA_SLAB_CURRENT,
         cache->empty.value != 0 ? capacity_of(space, slab) : BSA_NEVER_RELISTED);
    cache->slab = slab;
    cache->page = bsa_slab_page(slab);
    cache->word = cache->first = 0;
    cache->row = 0;
}

static void drop_current(struct bsa_cache *cache) {
    move(cache->slab, BSA_SLAB_CURRENT, BSA_SLAB_FULL, 1);
    bsa_cache_forget_current(cache);
}

/* Keeps the slab, empty and on no list; BSA_NO_PAGE: keeps none. The current one is given up when
 * it becomes empty as well. */
static void keep_empty(struct bsa_space *space, struct bsa_cache *cache, bsa_page_no kept) {
    cache->empty = kept;
    if (cache->page != NULL) {
        bsa_set_relist_at(cache->page,
                          kept.value != 0 ? capacity_of(space, cache->slab) : BSA_NEVER_RELISTED);
    }
}

/* Takes the empty slab from its place; it is on no list then. */
static struct bsa_slab take_empty(struct bsa_space *space, struct bsa_cache *cache) {
    struct bsa_slab slab = slab_at(space, cache->empty, cache->slab.section);

    move(slab, BSA_SLAB_EMPTY, BSA_SLAB_FULL, 1);
    keep_empty(space, cache, BSA_NO_PAGE);
    return slab;
}

/* `slab` is on no list, and empty. */
static void retire(struct bsa_cache *cache, struct bsa_slab slab) {
    bsa_slab_page(slab)->next = cache->retired;
    cache->retired = number_of(slab);
}

/* --- freeing -----------------------------------------------------------------------------------
 */

/* Whether a racing double free has named a word of the slab: it is on a stack, or about to be, and
 * must not be given up before it has been drained. */
static bool is_named(struct bsa_slab slab) {
    return atomic_load_explicit(&bsa_slab_page(slab)->summary, memory_order_relaxed) != 0;
}

/* An empty slab off the lists: the first one is kept, a further one goes back. */
static void keep_or_retire(struct bsa_space *space, struct bsa_cache *cache, struct bsa_slab slab) {
    bool have_one =
        cache->empty.value != 0 || (cache->page != NULL && is_empty(space, cache->slab));

    bsa_cache_forget(cache);
    if (is_named(slab)) {
        partial_append(space, cache, slab);
    } else if (have_one) {
        retire(cache, slab);
    } else {
        move(slab, BSA_SLAB_FULL, BSA_SLAB_EMPTY, BSA_NEVER_RELISTED);
        keep_empty(space, cache, number_of(slab));
    }
}

BSA_APART void bsa_cache_relist(struct bsa_space *space, struct bsa_cache *cache,
                                struct bsa_slab slab) {
    unsigned list = bsa_word_list(bsa_page_word(bsa_slab_page(slab)));

    if (!is_empty(space, slab)) {
        if (list == BSA_SLAB_FULL) {
            partial_append(space, cache, slab);
        }
        return;
    }
    if (list == BSA_SLAB_CURRENT) {
        if (cache->empty.value == 0) {
            return;
        }
        drop_current(cache);
    } else if (list == BSA_SLAB_PARTIAL) {
        partial_remove(space, cache, slab);
    }
    keep_or_retire(space, cache, slab);
}

/* --- remote frees ------------------------------------------------------------------------------
 */

void bsa_cache_push_remote(struct bsa_cache *owner, struct bsa_slab slab) {
    struct bsa_page *page = bsa_slab_page(slab);
    uint32_t top = atomic_load_explicit(&owner->remote, memory_order_relaxed);

    /* Push one, take all: no ABA. Release: the owner sees link and summary. */
    do {
        atomic_store_explicit(&page->remote_next, top, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&owner->remote, &top, number_of(slab).value,
                                                    memory_order_release, memory_order_relaxed));
}

/* A slab on the stack that is not this cache's got there by a racing double free, which looked at
 * its word before it was given up. Its new owner gets it; if it has none, the names mean nothing.
 */
static void forward(struct bsa_space *space, struct bsa_slab slab, uint64_t word) {
    if (bsa_word_state(word) == BSA_SLAB) {
        bsa_cache_push_remote(bsa_cache_of(space, word), slab);
    } else {
        atomic_store_explicit(&bsa_slab_page(slab)->summary, 0, memory_order_relaxed);
    }
}

static void drain_slab(struct bsa_space *space, struct bsa_cache *cache, struct bsa_slab slab) {
    uint32_t freed = bsa_slab_drain(slab, &cache->overlaps);
    bool waited = bsa_word_list(bsa_page_word(bsa_slab_page(slab))) == BSA_SLAB_PARTIAL &&
                  is_empty(space, slab); /* for this drain: see keep_or_retire */

    cache->taken_back += freed;
    cache->drained += freed;
    if (freed != 0 || waited) {
        bsa_cache_relist(space, cache, slab);
    }
}

void bsa_cache_drain(struct bsa_space *space, struct bsa_cache *cache) {
    bsa_page_no next;

    if (atomic_load_explicit(&cache->remote, memory_order_relaxed) == 0) {
        return;
    }
    /* Acquire: links and summaries of all that were pushed. */
    next.value = atomic_exchange_explicit(&cache->remote, 0, memory_order_acquire);
    while (next.value != 0) {
        struct bsa_slab slab = slab_at(space, next, cache->slab.section);
        uint64_t word = bsa_page_word(bsa_slab_page(slab));

        /* The link first: once the summary is 0 a freer may push the slab again. */
        next.value = atomic_load_explicit(&bsa_slab_page(slab)->remote_next, memory_order_relaxed);
        if (bsa_word_state(word) == BSA_SLAB && bsa_cache_of(space, word) == cache) {
            drain_slab(space, cache, slab);
        } else {
            forward(space, slab, word);
        }
    }
}

/* --- refilling ---------------------------------------------------------------------------------
 */

bool bsa_cache_next_row(const struct bsa_space *space, struct bsa_cache *cache) {
    const struct bsa_class *class = &space->classes.classes[cache->class_index];
    struct bsa_starts at = {class, cache->word, cache->first, 0};
    struct bsa_bits *bits;
    uint32_t word;
    uint64_t free;

    if (cache->page == NULL || bsa_free_count(cache->page) == 0) {
        return false;
    }
    at.end = class->capacity[bsa_word_order(bsa_page_word(cache->page))] * class->step;
    bits = bsa_slab_bits(cache->slab);
    do {
        word = at.word;
        free = bsa_starts_bits(&at) & ~atomic_load_explicit(&bits[word].live, memory_order_relaxed);
        bsa_starts_next(&at);
    } while (free == 0);
    cache->row = free;
    cache->bits = &bits[word];
    cache->base = bsa_page_address(cache->slab.section, cache->slab.head) +
                  ((uintptr_t)word * 64 << cache->granule_shift);
    cache->word = at.word;
    cache->first = at.first;
    return true;
}

/* Makes the first partial slab with a free object the current one, or else the empty one. Those
 * without left the list in spirit when their last object was taken. */
static void next_current(struct bsa_space *space, struct bsa_cache *cache) {
    while (cache->first_partial.value != 0) {
        struct bsa_slab slab = slab_at(space, cache->first_partial, cache->slab.section);

        partial_remove(space, cache, slab);
        if (bsa_free_count(bsa_slab_page(slab)) != 0) {
            set_current(space, cache, slab);
            return;
        }
    }
    if (cache->empty.value != 0) {
        set_current(space, cache, take_empty(space, cache));
    }
}

uintptr_t bsa_cache_refill(struct bsa_space *space, struct bsa_cache *cache) {
    uintptr_t address;

    bsa_cache_drain(space, cache);
    address = bsa_cache_take(space, cache);
    if (address == 0) {
        if (cache->page != NULL) {
            drop_current(cache);
        }
        next_current(space, cache);
        address = bsa_cache_take(space, cache);
    }
    return address;
}

void bsa_cache_add_slab(struct bsa_space *space, struct bsa_cache *cache, struct bsa_slab slab,
                        unsigned order) {
    BSA_ASSERT(cache->page == NULL);
    bsa_slab_create(&space->classes, slab, order, cache->class_index, cache->slot);
    set_current(space, cache, slab);
}

/* --- giving back -------------------------------------------------------------------------------
 */

void bsa_cache_trim(struct bsa_space *space, struct bsa_cache *cache) {
    bsa_cache_drain(space, cache);
    if (cache->empty.value != 0 && !is_named(slab_at(space, cache->empty, cache->slab.section))) {
        retire(cache, take_empty(space, cache));
    }
    if (cache->page != NULL && is_empty(space, cache->slab) && !is_named(cache->slab)) {
        drop_current(cache);
        bsa_cache_forget(cache);
        retire(cache, cache->slab);
    }
}

bool bsa_cache_take_retired(struct bsa_space *space, struct bsa_cache *cache,
                            struct bsa_slab *slab) {
    if (cache->retired.value == 0) {
        return false;
    }
    *slab = slab_at(space, cache->retired, cache->slab.section);
    cache->retired = bsa_slab_page(*slab)->next;
    bsa_slab_destroy(*slab);
    return true;
}

void bsa_cache_adopt(struct bsa_space *space, struct bsa_cache *cache, struct bsa_slab slab) {
    struct bsa_page *page = bsa_slab_page(slab);

    bsa_set_relist_at(page, 1);
    cache->total += capacity_of(space, slab) - bsa_free_count(page);
    if (is_empty(space, slab)) {
        keep_or_retire(space, cache, slab);
    } else if (bsa_free_count(page) != 0) {
        partial_append(space, cache, slab);
    }
}
