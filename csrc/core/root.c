/* The root and its sections: set-up, attaching, removal, rebuilding, slots.
 *
 * Adding a section is O(sections) for the overlap test and O(log sections) for the directory; it
 * needs no quiescence. Locking: the page lock around every change of the chain and the directory.
 */
#include "root.h"

size_t bsa_root_size(unsigned slots) {
    if (slots == 0 || slots > BSA_MAX_SLOTS) {
        return 0;
    }
    return bsa_round_up(sizeof(struct bsa_root), BSA_CACHE_LINE) + slots * sizeof(struct bsa_slot);
}

static void raise_peak(struct bsa_gauge *gauge) {
    if (gauge->below < 0) {
        gauge->peak -= gauge->below;
        gauge->below = 0;
    }
}

BSA_APART void bsa_tally_raise(struct bsa_tally *tally) {
    raise_peak(&tally->count);
    raise_peak(&tally->bytes);
}

/* The caller owns the slot. */
static void set_mode(struct bsa_root *root, unsigned number, enum bsa_slot_mode mode) {
    struct bsa_slot *slot = &root->space.slots[number];
    bool fast = mode != BSA_SLOT_SHARED && root->hooks.trace == NULL;
    uint32_t owner = bsa_owner_bits(bsa_slab_word(0, 0, number, 0));

    atomic_store_explicit(&slot->fast_sizes, fast ? root->space.classes.largest + 1 : 0,
                          memory_order_relaxed);
    atomic_store_explicit(&slot->fast_owner, fast ? owner : BSA_NO_OWNER, memory_order_relaxed);
    atomic_store_explicit(&slot->fast_pages,
                          fast && root->has_page_caches ? 1U << (BSA_CACHED_ORDERS - 1) : 0,
                          memory_order_relaxed);
    atomic_store_explicit(&slot->mode, mode, memory_order_release);
}

bsa_status bsa_init(void *memory, size_t size, const struct bsa_config *config,
                    struct bsa_root **made) {
    struct bsa_root *root = memory;
    uint64_t page = config->page_size;

    if (memory == NULL || (uintptr_t)memory % BSA_CACHE_LINE != 0 || !bsa_is_power_of_two(page) ||
        page < (uint64_t)1 << BSA_MIN_PAGE_SHIFT || page > (uint64_t)1 << BSA_MAX_PAGE_SHIFT ||
        bsa_root_size(config->slots) == 0 || size < bsa_root_size(config->slots)) {
        return BSA_INVALID_PARAM;
    }
    memset(root, 0, sizeof *root);
    root->hooks = config->hooks;
    root->serial = config->serial;
    root->has_page_caches = !config->serial && config->slots > 1;
    bsa_class_table_init(&root->space.classes, bsa_log2_floor(page));
    root->space.slots =
        (struct bsa_slot *)((uintptr_t)memory + bsa_round_up(sizeof *root, BSA_CACHE_LINE));
    root->space.slot_count = config->slots;
    for (unsigned i = 0; i < config->slots; i++) {
        struct bsa_slot *slot = &root->space.slots[i];

        /* Of a serial root all is counted in one place, so that peaks are exact. */
        bsa_slot_init(slot, &root->space.classes, i,
                      &root->space.slots[root->serial ? 0 : i].tally);
        set_mode(root, i, root->serial ? BSA_SLOT_SERIAL : BSA_SLOT_SHARED);
    }
    atomic_store_explicit(&root->limit_pages, UINT64_MAX, memory_order_relaxed);
    root->magic = BSA_ROOT_MAGIC;
    *made = root;
    return BSA_OK;
}

void bsa_set_limit(struct bsa_root *root, uint64_t bytes) {
    uint64_t pages = bytes == UINT64_MAX ? bytes : bytes >> root->space.classes.page_shift;

    bsa_lock_pages(root);
    atomic_store_explicit(&root->limit_pages, pages, memory_order_relaxed);
    bsa_page_caches_resize(root);
    bsa_unlock_pages(root);
    bsa_page_caches_merge_shared(root);
}

BSA_APART struct bsa_section *bsa_find_section_slow(const struct bsa_root *root,
                                                    struct bsa_slot *slot, uintptr_t address) {
    struct bsa_section *section = bsa_section_by_address(&root->space.directory, address);

    if (section != NULL && slot != NULL) {
        atomic_store_explicit(&slot->last_section, section, memory_order_release);
    }
    return section;
}

/* --- the chain of sections ---------------------------------------------------------------------
 */

static bool ranges_overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size) {
    return a_size != 0 && b_size != 0 && (a < b ? b - a < a_size : a - b < b_size);
}

static bool overlaps_any(const struct bsa_root *root, uint64_t start, uint64_t size) {
    const struct bsa_section *section = bsa_first_section(root);

    for (; section != NULL; section = bsa_next_section(root, section)) {
        const struct bsa_section_derived *derived = &section->derived;

        if (ranges_overlap(start, size, derived->region_start, derived->region_size) ||
            ranges_overlap(start, size, derived->heap_region_start, derived->heap_region_size)) {
            return true;
        }
    }
    return false;
}

static bool numbers_are_free(const struct bsa_root *root, uint64_t base, uint64_t count) {
    const struct bsa_section *section = bsa_first_section(root);

    for (; section != NULL; section = bsa_next_section(root, section)) {
        if (ranges_overlap(base, count, section->derived.base, section->total_pages)) {
            return false;
        }
    }
    return base + count <= UINT32_MAX;
}

/* Finds `count` page numbers in a row that no section has: behind the last section's, or else from
 * 1 on, or else in the gap behind any other's. */
static bool find_numbers(const struct bsa_root *root, uint32_t count, uint32_t *base) {
    const struct bsa_section *section = bsa_section_at(&root->space.directory, root->last_section);
    uint64_t candidate =
        section == NULL ? 1 : (uint64_t)section->derived.base + section->total_pages;

    if (!numbers_are_free(root, candidate, count)) {
        candidate = 1;
        section = bsa_first_section(root);
        for (; section != NULL && !numbers_are_free(root, candidate, count);
             section = bsa_next_section(root, section)) {
            candidate = (uint64_t)section->derived.base + section->total_pages;
        }
    }
    *base = (uint32_t)candidate;
    return numbers_are_free(root, candidate, count);
}

static void note_heaps_that_are_not_memory(struct bsa_root *root) {
    const struct bsa_section *section = bsa_first_section(root);
    bool any = false;

    for (; section != NULL; section = bsa_next_section(root, section)) {
        any |= (section->derived.flags & BSA_NOT_MEMORY) != 0;
    }
    atomic_store_explicit(&root->some_heap_is_not_memory, any, memory_order_relaxed);
}

static void chain_append(struct bsa_root *root, struct bsa_section *section) {
    struct bsa_directory *directory = &root->space.directory;
    int64_t offset = bsa_offset_of(directory, section);

    section->derived.index = atomic_load_explicit(&root->section_count, memory_order_relaxed);
    section->derived.previous = root->last_section;
    section->derived.next = 0;
    if (root->last_section != 0) {
        bsa_section_at(directory, root->last_section)->derived.next = offset;
    } else {
        root->first_section = offset;
    }
    root->last_section = offset;
    atomic_store_explicit(&root->section_count, section->derived.index + 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&root->total_pages, section->total_pages, memory_order_relaxed);
    bsa_directory_insert(directory, section);
    bsa_page_caches_resize(root);
    note_heaps_that_are_not_memory(root);
}

static void chain_remove(struct bsa_root *root, struct bsa_section *section) {
    struct bsa_directory *directory = &root->space.directory;
    struct bsa_section *previous = bsa_section_at(directory, section->derived.previous);
    struct bsa_section *next = bsa_section_at(directory, section->derived.next);

    bsa_directory_remove(directory, section);
    *(previous != NULL ? &previous->derived.next : &root->first_section) = section->derived.next;
    *(next != NULL ? &next->derived.previous : &root->last_section) = section->derived.previous;
    for (; next != NULL; next = bsa_next_section(root, next)) {
        next->derived.index--;
    }
    note_heaps_that_are_not_memory(root);
    atomic_fetch_sub_explicit(&root->section_count, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&root->total_pages, section->total_pages, memory_order_relaxed);
    bsa_page_caches_resize(root);
}

/* --- adding ------------------------------------------------------------------------------------
 */

struct placement {
    uintptr_t region; /* raw bytes, before rounding: of the metadata */
    size_t region_size;
    uintptr_t heap_region; /* and of the heap */
    size_t heap_region_size;
    struct bsa_layout layout;
};

static const struct bsa_section_config default_config;

/* Whether a linear translation wraps within the section, which no machine's does. */
static bool physical_wraps(const struct bsa_section_config *config, const struct placement *place,
                           uint64_t heap_size) {
    uint64_t span = place->layout.heap + heap_size - place->heap_region;

    return config->physical_is_linear && config->physical_base + span < config->physical_base;
}

/* Gives the section what only this process knows of it, and a range of page numbers. */
static bsa_status introduce(struct bsa_root *root, struct bsa_section *section,
                            const struct bsa_section_config *config,
                            const struct placement *place) {
    struct bsa_section_derived *derived = &section->derived;

    if (physical_wraps(config, place, bsa_heap_size(section)) ||
        !find_numbers(root, section->total_pages, &derived->base)) {
        return BSA_INVALID_PARAM;
    }
    derived->region_start = place->region;
    derived->region_size = place->region_size;
    derived->heap_region_start = place->heap_region;
    derived->heap_region_size = place->heap_region_size;
    derived->flags = config->flags;
    derived->physical_is_linear = config->physical_is_linear;
    derived->physical_base =
        config->physical_base +
        (place->layout.heap - place->heap_region); /* of the heap's first byte */
    derived->physical = config->physical;
    derived->physical_context = config->context;
    section->generation++;
    section->dirty = 1;
    return BSA_OK;
}

static bsa_status add(struct bsa_root *root, const struct placement *place,
                      const struct bsa_section_config *config, unsigned *index) {
    uint64_t heap_size = (uint64_t)place->layout.pages << root->space.classes.page_shift;
    struct bsa_section *section;
    uint32_t base;
    bsa_status status;

    /* Tested before the first byte is written, so that a refusal leaves the region as it was. */
    if (physical_wraps(config, place, heap_size) ||
        !find_numbers(root, place->layout.pages, &base)) {
        return BSA_INVALID_PARAM;
    }
    section = bsa_section_create(&place->layout, &root->space.classes, config->flags);
    status = introduce(root, section, config, place);
    BSA_ASSERT(status == BSA_OK);
    bsa_buddy_cover(section);
    bsa_poison(section, bsa_heap_start(section), bsa_heap_size(section));
    chain_append(root, section);
    if (index != NULL) {
        *index = section->derived.index;
    }
    return status;
}

bsa_status bsa_add_region(struct bsa_root *root, void *region, size_t size,
                          const struct bsa_section_config *config, unsigned *index) {
    struct placement place = {(uintptr_t)region, size, (uintptr_t)region, size, {0}};
    bsa_status status = BSA_INVALID_PARAM;

    config = config == NULL ? &default_config : config;
    bsa_lock_pages(root);
    if (overlaps_any(root, place.region, size)) {
        status = BSA_MEMORY_OVERLAP;
    } else if ((config->flags & BSA_NOT_MEMORY) == 0 &&
               bsa_layout_region(&place.layout, &root->space.classes, place.region, size)) {
        status = add(root, &place, config, index);
    }
    bsa_unlock_pages(root);
    return status;
}

bsa_status bsa_add_section(struct bsa_root *root, void *meta, size_t meta_size, uintptr_t heap,
                           size_t heap_size, const struct bsa_section_config *config,
                           unsigned *index) {
    struct placement place = {(uintptr_t)meta, meta_size, heap, heap_size, {0}};
    bsa_status status = BSA_INVALID_PARAM;

    config = config == NULL ? &default_config : config;
    bsa_lock_pages(root);
    if (overlaps_any(root, place.region, meta_size) || overlaps_any(root, heap, heap_size) ||
        ranges_overlap(place.region, meta_size, heap, heap_size)) {
        status = BSA_MEMORY_OVERLAP;
    } else if (bsa_layout_apart(&place.layout, &root->space.classes, place.region, meta_size, heap,
                                heap_size)) {
        status = add(root, &place, config, index);
    }
    bsa_unlock_pages(root);
    return status;
}

/* --- rebuilding --------------------------------------------------------------------------------
 */

/* A crash may have come before it was noted how much of a block was asked for: then all of it. */
static void settle_requested(const struct bsa_section *section, bsa_page_index head,
                             uint64_t word) {
    uint64_t bytes = (uint64_t)bsa_word_count(word) << section->page_shift;
    struct bsa_page *page = bsa_page_at(section, head);

    if (bsa_page_requested(page) > bytes) {
        bsa_page_set_requested(page, bytes);
    }
}

static uint64_t granted_slack(const struct bsa_section *section, bsa_page_index head,
                              uint64_t word) {
    return ((uint64_t)bsa_word_count(word) << section->page_shift) -
           bsa_page_requested(bsa_page_at(section, head));
}

/* Counts a block found in memory, and enlists it if it is a slab; its old slot may not exist here.
 */
static void adopt(struct bsa_root *root, struct bsa_section *section, bsa_page_index head) {
    uint64_t word = bsa_word_at(section, head);
    struct bsa_slab slab = {section, head};

    if (bsa_word_state(word) == BSA_SLAB) {
        unsigned slot = bsa_word_slot(word) % root->space.slot_count;
        struct bsa_cache *cache = &root->space.slots[slot].caches[bsa_word_class(word)];
        uint64_t live;

        bsa_slab_rebuild(&root->space.classes, slab, slot);
        live = bsa_cache_live(cache);
        bsa_cache_adopt(&root->space, cache, slab);
        live = bsa_cache_live(cache) - live;
        bsa_tally_add(cache->counted_in, live, live * cache->object_size);
    } else if (bsa_word_state(word) == BSA_PAGES) {
        root->per_order[bsa_word_order(word)].live++;
        settle_requested(section, head, word);
        root->page_slack += granted_slack(section, head, word);
        bsa_tally_add(bsa_page_tally(root), 1,
                      (uint64_t)bsa_word_count(word) << section->page_shift);
    }
}

/* Whether every slab's word names a class and order that exist. The heads tile the heap. */
static bool slabs_are_valid(const struct bsa_root *root, const struct bsa_section *section) {
    for (bsa_page_index head = 0; head < section->total_pages;) {
        uint64_t word = bsa_word_at(section, head);

        if (bsa_word_state(word) == BSA_SLAB &&
            (bsa_word_class(word) >= root->space.classes.count ||
             bsa_word_order(word) > BSA_MAX_SLAB_ORDER ||
             bsa_slab_capacity(&root->space.classes, word) == 0)) {
            return false;
        }
        head += bsa_word_count(word);
    }
    return true;
}

#if BSA_POISONING
static void unpoison_live_objects(const struct bsa_root *root, struct bsa_slab slab) {
    uint64_t word = bsa_page_word(bsa_slab_page(slab));
    uint32_t capacity = bsa_slab_capacity(&root->space.classes, word);
    size_t size = bsa_class_size(bsa_word_class(word));

    for (uint32_t i = 0; i < capacity; i++) {
        uintptr_t address = bsa_slab_object_address(&root->space.classes, slab, word, i);

        if (bsa_slab_is_live(slab.section, address)) {
            bsa_unpoison_written(slab.section, address, size);
        }
    }
}

/* Of a section found in memory: all is poisoned but what is live. */
static void poison_as_found(const struct bsa_root *root, struct bsa_section *section) {
    bsa_poison(section, bsa_heap_start(section), bsa_heap_size(section));
    for (bsa_page_index head = 0; head < section->total_pages;) {
        uint64_t word = bsa_word_at(section, head);
        uint32_t count = bsa_word_count(word);

        if (bsa_word_state(word) == BSA_SLAB) {
            unpoison_live_objects(root, (struct bsa_slab){section, head});
        } else if (bsa_word_state(word) == BSA_PAGES) {
            bsa_unpoison_written(section, bsa_page_address(section, head),
                                 (size_t)count << section->page_shift);
        }
        head += count;
    }
}
#else
#define poison_as_found(root, section) ((void)0)
#endif

static bsa_status rebuild_section(struct bsa_root *root, struct bsa_section *section) {
    if (!bsa_buddy_is_tiled(section) || !slabs_are_valid(root, section)) {
        return BSA_CORRUPTION;
    }
    bsa_buddy_rebuild(section);
    for (bsa_page_index head = 0; head < section->total_pages;) {
        uint32_t count = bsa_word_count(bsa_word_at(section, head));

        adopt(root, section, head);
        head += count;
    }
    root->allocated_pages +=
        section->total_pages -
        atomic_load_explicit(&section->derived.free_pages, memory_order_relaxed);
    if (root->peak_pages < root->allocated_pages) {
        root->peak_pages = root->allocated_pages;
    }
    poison_as_found(root, section);
    return BSA_OK;
}

static void give_back_all_retired(struct bsa_root *root) {
    for (unsigned i = 0; i < root->space.slot_count; i++) {
        for (unsigned c = 0; c < root->space.classes.count; c++) {
            bsa_give_back_retired(root, &root->space.slots[i].caches[c]);
        }
    }
}

static void reset_tally(struct bsa_tally *tally) {
    tally->count.below = tally->count.peak;
    tally->bytes.below = tally->bytes.peak;
}

static void reset_slot(struct bsa_root *root, unsigned number) {
    struct bsa_slot *slot = &root->space.slots[number];

    reset_tally(&slot->tally);
    for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
        bsa_cached_count_set(&slot->pages.stacks[order], 0);
        slot->pages.stacks[order].slack = 0;
    }
    for (unsigned c = 0; c < root->space.classes.count; c++) {
        struct bsa_cache *cache = &slot->caches[c];

        bsa_cache_forget(cache);
        bsa_cache_forget_current(cache);
        cache->slab.section = NULL;
        cache->first_partial = cache->last_partial = cache->empty = cache->retired = BSA_NO_PAGE;
        cache->total = cache->taken_back = cache->drained = cache->pending = 0;
        atomic_store_explicit(&cache->remote, 0, memory_order_relaxed);
    }
}

bsa_status bsa_rebuild(struct bsa_root *root) {
    struct bsa_section *section = bsa_first_section(root);
    bsa_status status = BSA_OK;

    for (unsigned i = 0; i < root->space.slot_count; i++) {
        reset_slot(root, i);
    }
    reset_tally(&root->page_tally);
    root->allocated_pages = root->page_slack = 0;
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        root->per_order[order].live = 0;
    }
    for (; section != NULL && status == BSA_OK; section = bsa_next_section(root, section)) {
        status = rebuild_section(root, section);
    }
    if (status == BSA_OK) {
        give_back_all_retired(root);
    }
    return status;
}

/* --- attaching ---------------------------------------------------------------------------------
 */

static bsa_status attach(struct bsa_root *root, struct bsa_section *section,
                         const struct placement *place, const struct bsa_section_config *config,
                         unsigned *index) {
    uint64_t page = (uint64_t)1 << section->page_shift;
    uint64_t moved = place->layout.heap - section->nominal_heap;
    struct bsa_section_derived found = section->derived;
    bsa_status status;

    if (moved % page != 0) {
        return BSA_INVALID_PARAM;
    }
    section->derived = (struct bsa_section_derived){0};
    bsa_section_locate(section, place->layout.heap);
    if (!bsa_buddy_is_tiled(section) || !slabs_are_valid(root, section)) {
        section->derived = found;
        return BSA_CORRUPTION;
    }
    status = introduce(root, section, config, place);
    if (status != BSA_OK) {
        section->derived = found;
        return status;
    }
    chain_append(root, section);
    status = rebuild_section(root, section);
    if (index != NULL) {
        *index = section->derived.index;
    }
    return status;
}

/* The section whose header is at one of the cache lines where one may begin, or NULL: in the first
 * page of a region, or right at the start where the heap is apart. */
static struct bsa_section *find_header(const struct bsa_root *root, uintptr_t start, size_t size,
                                       bool is_apart) {
    size_t page = bsa_page_size(root);
    size_t lines = is_apart ? 1 : BSA_COLOURS, end = lines * BSA_CACHE_LINE;

    end = end < page ? end : page;
    for (size_t at = 0; at < end && at < size; at += BSA_CACHE_LINE) {
        struct bsa_section *section = (struct bsa_section *)(start + at);

        if (bsa_section_is_valid(section, &root->space.classes, size - at)) {
            return section;
        }
    }
    return NULL;
}

/* Under the page lock. `heap` 0: it follows the metadata in the same region. */
static bsa_status attach_at(struct bsa_root *root, struct placement *place, uintptr_t heap,
                            const struct bsa_section_config *config, unsigned *index) {
    uint64_t alignment = heap == 0 ? (uint64_t)1 << root->space.classes.page_shift : BSA_CACHE_LINE;
    uint64_t start = bsa_round_up(place->region, alignment), skipped = start - place->region;
    struct bsa_section *section = NULL;
    uint64_t heap_size;

    if (start >= place->region && skipped < place->region_size) {
        section =
            find_header(root, (uintptr_t)start, place->region_size - (size_t)skipped, heap != 0);
    }
    if (section == NULL || (heap == 0) != (section->heap_offset != 0)) {
        return BSA_CORRUPTION;
    }
    place->layout.meta = (uintptr_t)section;
    place->layout.heap = heap != 0 ? heap : (uintptr_t)(start + section->heap_offset);
    heap_size = (uint64_t)section->total_pages << section->page_shift;
    if (heap != 0 && (uint64_t)heap + heap_size < heap) {
        return BSA_INVALID_PARAM;
    }
    if (heap != 0 && (overlaps_any(root, heap, heap_size) ||
                      ranges_overlap(place->region, place->region_size, heap, heap_size))) {
        return BSA_MEMORY_OVERLAP;
    }
    if (heap != 0) {
        place->heap_region = heap;
        place->heap_region_size = heap_size;
    }
    return attach(root, section, place, config, index);
}

static bsa_status attach_locked(struct bsa_root *root, void *meta, size_t size, uintptr_t heap,
                                const struct bsa_section_config *config, unsigned *index) {
    struct placement place = {(uintptr_t)meta, size, (uintptr_t)meta, size, {0}};
    bsa_status status = BSA_MEMORY_OVERLAP;

    bsa_lock_pages(root);
    if (!overlaps_any(root, place.region, size)) {
        status = attach_at(root, &place, heap, config == NULL ? &default_config : config, index);
    }
    bsa_unlock_pages(root);
    if (status == BSA_OK) {
        give_back_all_retired(root);
    }
    return status;
}

bsa_status bsa_attach_region(struct bsa_root *root, void *region, size_t size,
                             const struct bsa_section_config *config, unsigned *index) {
    return attach_locked(root, region, size, 0, config, index);
}

bsa_status bsa_attach_section(struct bsa_root *root, void *meta, size_t meta_size, uintptr_t heap,
                              const struct bsa_section_config *config, unsigned *index) {
    return heap == 0 ? BSA_INVALID_PARAM
                     : attach_locked(root, meta, meta_size, heap, config, index);
}

/* --- removal -----------------------------------------------------------------------------------
 */

/* Hints must not outlive the section's memory. */
static void forget_section(struct bsa_root *root, const struct bsa_section *section) {
    for (unsigned i = 0; i < root->space.slot_count; i++) {
        struct bsa_slot *slot = &root->space.slots[i];

        bsa_forget_last_section(slot);
        for (unsigned c = 0; c < root->space.classes.count; c++) {
            if (slot->caches[c].slab.section == section) {
                slot->caches[c].slab.section = NULL;
            }
        }
    }
}

/* Drains, trims and merges the caches of every slot; at quiescence all are within reach. */
static void trim_all(struct bsa_root *root) {
    for (unsigned i = 0; i < root->space.slot_count; i++) {
        for (unsigned c = 0; c < root->space.classes.count; c++) {
            struct bsa_cache *cache = &root->space.slots[i].caches[c];

            bsa_cache_trim(&root->space, cache);
            bsa_account_drained(root, cache);
            bsa_give_back_retired(root, cache);
        }
    }
    bsa_page_caches_merge_all(root);
}

bsa_status bsa_remove_region(struct bsa_root *root, unsigned index) {
    struct bsa_section *section = bsa_nth_section(root, index);
    bsa_status status = BSA_OK;

    if (section == NULL) {
        return BSA_NOT_FOUND;
    }
    trim_all(root);
    bsa_lock_pages(root);
    if (atomic_load_explicit(&section->derived.free_pages, memory_order_relaxed) !=
        section->total_pages) {
        status = BSA_IN_USE;
    } else {
        chain_remove(root, section);
        forget_section(root, section);
        section->dirty = 0;
        bsa_unpoison_written(section, bsa_heap_start(section), bsa_heap_size(section));
    }
    bsa_unlock_pages(root);
    return status;
}

/* --- slots -------------------------------------------------------------------------------------
 */

static bsa_status change_mode(struct bsa_root *root, unsigned number, enum bsa_slot_mode mode) {
    struct bsa_slot *slot = bsa_slot_of(root, number);
    bool locked;

    if (slot == NULL) {
        return BSA_INVALID_PARAM;
    }
    if (!root->serial) {
        locked = bsa_enter_slot(root, slot);
        bsa_page_cache_merge(root, slot);
        set_mode(root, number, mode);
        bsa_leave_slot(root, slot, locked);
    }
    return BSA_OK;
}

bsa_status bsa_slot_attach(struct bsa_root *root, unsigned slot) {
    return change_mode(root, slot, BSA_SLOT_ATTACHED);
}

bsa_status bsa_slot_detach(struct bsa_root *root, unsigned slot) {
    return change_mode(root, slot, BSA_SLOT_SHARED);
}
