/* The facade: routes a request to the slabs or to the pages, and makes the last effort before it
 * fails.
 *
 * Sizes and alignments up to half a page (and 32 KiB) go to the caller's slot's cache of their
 * class, the rest to the pages. The way of an object is: cache -> refill (drain, next slab) -> new
 * slab of the preferred or a smaller order -> trim every slot within reach and look again -> fail.
 * Freeing finds section, page, slab and index from the address alone, and checks each.
 *
 * Locking: a slot's lock (or none, see root.h) around its caches; the page lock inside pages.c. No
 * lock is held when a function here returns or calls a hook. */
#include "root.h"

static void trace(const struct bsa_root *root, enum bsa_trace_op op, uintptr_t address, size_t size,
                  unsigned slot) {
    if (BSA_UNLIKELY(root->hooks.trace != NULL)) {
        root->hooks.trace(root->hooks.context, op, address, size, slot);
    }
}

static BSA_SLOW_PATH bsa_status failed(struct bsa_root *root, unsigned slot, bsa_status status) {
    if (status == BSA_NO_MEMORY) {
        struct bsa_slot *counted = bsa_slot_of(root, slot);

        bsa_lock_pages(root);
        (counted != NULL && root->serial ? &counted->tally : &root->page_tally)->failures++;
        bsa_unlock_pages(root);
    }
    return status;
}

/* --- trimming ----------------------------------------------------------------------------------
 */

static size_t trim_slot(struct bsa_root *root, struct bsa_slot *slot) {
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

/* Does what others have asked the slot's owner, the caller, to do. */
static void honour_request(struct bsa_root *root, struct bsa_slot *slot) {
    if (BSA_UNLIKELY(atomic_load_explicit(&slot->trim_request, memory_order_relaxed) != 0)) {
        atomic_store_explicit(&slot->trim_request, 0, memory_order_relaxed);
        trim_slot(root, slot);
    }
}

/* Trims a slot that is not the caller's, or asks its owner to. */
static size_t trim_other(struct bsa_root *root, struct bsa_slot *slot) {
    size_t pages = 0;

    if (root->serial) {
        return trim_slot(root, slot);
    }
    if (bsa_enter_shared(root, slot)) {
        pages = trim_slot(root, slot);
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

            pages += trim_slot(root, other);
            bsa_leave_slot(root, other, locked);
        } else {
            pages += trim_other(root, other);
        }
    }
    return pages;
}

/* --- objects -----------------------------------------------------------------------------------
 */

/* The largest order of slab that a heap of this size should spend on one class. */
static unsigned largest_slab_order(const struct bsa_root *root) {
    uint64_t share = atomic_load_explicit(&root->total_pages, memory_order_relaxed) / 64;

    return share == 0 ? 0 : bsa_log2_floor(share);
}

/* Gets the cache a slab of its preferred order, or a smaller one. */
static bool add_slab(struct bsa_root *root, struct bsa_cache *cache) {
    unsigned order = bsa_cache_order(&root->space, cache), largest = largest_slab_order(root);
    struct bsa_slab slab;

    order = order < largest ? order : largest;
    for (;; order--) {
        struct bsa_page_request request = {order, 0, (uint32_t)1 << order, BSA_FOR_SLAB};

        if (bsa_pages_take(root, &request, &slab)) {
            bsa_cache_add_slab(&root->space, cache, slab, order);
            return true;
        }
        if (order == 0) {
            return false;
        }
    }
}

/* The slow half of taking an object: from the cache's next slab or from a new one, or 0. The caller
 * owns the slot. */
static uintptr_t object_or_slab(struct bsa_root *root, struct bsa_slot *slot,
                                struct bsa_cache *cache) {
    uintptr_t address = bsa_cache_refill(&root->space, cache);

    bsa_account_drained(root, cache);
    bsa_give_back_retired(root, cache);
    honour_request(root, slot);
    if (address == 0 && add_slab(root, cache)) {
        address = bsa_cache_take(&root->space, cache);
    }
    return address;
}

static uintptr_t object_take(struct bsa_root *root, struct bsa_slot *slot,
                             struct bsa_cache *cache) {
    bool locked = bsa_enter_slot(root, slot);
    uintptr_t address = bsa_cache_take(&root->space, cache);

    if (address == 0) {
        address = object_or_slab(root, slot, cache);
    }
    if (address != 0) {
        bsa_tally_add(cache->counted_in, 1, cache->object_size);
        bsa_unpoison_new(bsa_find_section(root, NULL, address), address, cache->object_size);
    }
    bsa_leave_slot(root, slot, locked);
    return address;
}

static bsa_status object_alloc(struct bsa_root *root, unsigned number, unsigned class_index,
                               uintptr_t *address) {
    struct bsa_slot *slot = bsa_slot_of(root, number);

    if (slot == NULL) {
        return BSA_INVALID_PARAM;
    }
    *address = object_take(root, slot, &slot->caches[class_index]);
    if (*address == 0) {
        bsa_trim_on(root, number);
        *address = object_take(root, slot, &slot->caches[class_index]);
    }
    return *address == 0 ? BSA_NO_MEMORY : BSA_OK;
}

/* Why there is nothing to free at the address, in a slab: it is no object's, or that one is free.
 */
static BSA_SLOW_PATH bsa_status no_live_object(const struct bsa_root *root,
                                               struct bsa_section *section, uint64_t word,
                                               uintptr_t address) {
    const struct bsa_class_table *classes = &root->space.classes;
    struct bsa_slab slab = bsa_slab_around(section, word, address);
    uint32_t index = bsa_slab_index_of(classes, slab, word, address);

    return index != UINT32_MAX && address == bsa_slab_object_address(classes, slab, word, index)
               ? BSA_NOT_ALLOCATED
               : BSA_INVALID_PARAM;
}

static BSA_APART bsa_status object_free_remote(struct bsa_root *root, struct bsa_section *section,
                                               uint64_t word, uintptr_t address) {
    struct bsa_cache *owner = bsa_cache_of(&root->space, word);
    struct bsa_slab slab = bsa_slab_around(section, word, address);
    bool must_push;

    bsa_poison_if_live(section, address, owner->object_size);
    if (bsa_slab_free_remote(slab, address, &must_push) != BSA_OK) {
        return no_live_object(root, section, word, address);
    }
    if (must_push) {
        bsa_cache_push_remote(owner, slab);
    }
    if (root->serial) {
        owner->pending++;
        bsa_tally_remove(&root->space.slots[0].tally, 1, owner->object_size);
    }
    return BSA_OK;
}

/* What the freeing of an object brings about where its slab changes its list. */
static BSA_APART bsa_status freed_rarely(struct bsa_root *root, struct bsa_cache *cache,
                                         struct bsa_section *section, uint64_t word,
                                         uintptr_t address) {
    bsa_cache_relist(&root->space, cache, bsa_slab_around(section, word, address));
    if (BSA_UNLIKELY(cache->retired.value != 0)) {
        bsa_give_back_retired(root, cache);
    }
    return BSA_OK;
}

/* Frees an object of the cache, whose slot is the caller's own for now. `page`, on which the
 * address lies, has that word. */
static BSA_APART bsa_status object_free_own(struct bsa_root *root, struct bsa_cache *cache,
                                            uintptr_t address, struct bsa_section *section,
                                            struct bsa_page *page, uint64_t word) {
    bool must_relist;

    bsa_poison_if_live(section, address, cache->object_size);
    if (BSA_UNLIKELY(bsa_cache_free(cache, section, page, word, address, &must_relist) != BSA_OK)) {
        return no_live_object(root, section, word, address);
    }
    bsa_tally_remove(cache->counted_in, 1, cache->object_size);
    return BSA_LIKELY(!must_relist) ? BSA_OK : freed_rarely(root, cache, section, word, address);
}

/* Frees the object at the address; `page`, on which it lies, had that word. */
static bsa_status object_free(struct bsa_root *root, unsigned number, struct bsa_section *section,
                              struct bsa_page *page, uint64_t word, uintptr_t address) {
    struct bsa_slot *slot = &root->space.slots[number];
    bsa_status status;
    bool locked;

    if (bsa_word_slot(word) != number) {
        return object_free_remote(root, section, word, address);
    }
    locked = bsa_enter_slot(root, slot);
    /* By now another thread of this slot may have freed the slab away; the list is not compared,
     * for it may have changed. */
    status = (uint32_t)bsa_page_word(page) == (uint32_t)word
                 ? object_free_own(root, &slot->caches[bsa_word_class(word)], address, section,
                                   page, word)
                 : BSA_NOT_ALLOCATED;
    bsa_leave_slot(root, slot, locked);
    return status;
}

/* --- pages -------------------------------------------------------------------------------------
 */

/* Takes a cached block of the slot, which is the caller's own for now. False: none is to be had. */
static bool take_cached(struct bsa_root *root, struct bsa_slot *slot,
                        const struct bsa_page_request *request, uintptr_t *address) {
    honour_request(root, slot);
    if (bsa_cached_count(&slot->pages, request->order) == 0) {
        bsa_page_cache_fill(root, slot, request->order);
    }
    return bsa_page_cache_take(&slot->pages, request->order, request->requested, address);
}

/* Whether page caches of this root hold blocks of the order. */
static bool is_cached_order(const struct bsa_root *root, unsigned order) {
    return order < BSA_CACHED_ORDERS && bsa_cached_room(root, order) != 0;
}

/* A block from the slot's page cache, if it holds such. It makes way for what is larger than its
 * blocks. */
static BSA_APART bool pages_from_cache(struct bsa_root *root, struct bsa_slot *slot,
                                       const struct bsa_page_request *request, uintptr_t *address) {
    bool locked = bsa_enter_slot(root, slot), taken = false;

    if (!is_cached_order(root, request->order)) {
        bsa_page_cache_merge(root, slot);
    } else if (request->count == (uint32_t)1 << request->order &&
               request->align_order <= request->order) { /* they are naturally aligned */
        taken = take_cached(root, slot, request, address);
    }
    bsa_leave_slot(root, slot, locked);
    return taken;
}

static BSA_FAST_PATH bsa_status pages_alloc(struct bsa_root *root, unsigned slot,
                                            const struct bsa_page_request *request,
                                            uintptr_t *address) {
    struct bsa_slab block;

    if (root->has_page_caches && slot < root->space.slot_count &&
        pages_from_cache(root, &root->space.slots[slot], request, address)) {
        return BSA_OK;
    }
    if (BSA_UNLIKELY(!bsa_pages_take(root, request, &block))) {
        bsa_trim_on(root, slot);
        if (!bsa_pages_take(root, request, &block)) {
            return BSA_NO_MEMORY;
        }
    }
    *address = bsa_page_address(block.section, block.head);
    return BSA_OK;
}

/* The block for `size` bytes. `align` is a power of two, or 0. False: larger than any. */
static bool request_for_size(const struct bsa_root *root, size_t size, size_t align,
                             struct bsa_page_request *request) {
    unsigned shift = root->space.classes.page_shift;
    uint64_t pages = ((uint64_t)size >> shift) + ((size & (((size_t)1 << shift) - 1)) != 0);

    pages = pages == 0 ? 1 : pages;
    if (pages > (uint64_t)1 << BSA_MAX_ORDER) {
        return false;
    }
    request->order = bsa_log2_ceil(pages);
    request->count = (uint32_t)1 << request->order;
    request->align_order = align >> shift == 0 ? 0 : bsa_log2_floor(align) - shift;
    request->requested = size;
    return true;
}

static BSA_FAST_PATH bsa_status request_for_pages(const struct bsa_root *root, size_t count,
                                                  size_t align, unsigned flags,
                                                  struct bsa_page_request *request) {
    unsigned shift = root->space.classes.page_shift;

    if (count == 0 || count > (size_t)1 << BSA_MAX_ORDER ||
        (flags & ~(unsigned)(BSA_ZERO | BSA_EXACT)) != 0 ||
        (align != 0 && (!bsa_is_power_of_two(align) || align >> shift == 0))) {
        return BSA_INVALID_PARAM;
    }
    request->order = bsa_log2_ceil(count);
    request->count = (flags & BSA_EXACT) != 0 ? (uint32_t)count : (uint32_t)1 << request->order;
    request->align_order = align == 0 ? 0 : bsa_log2_floor(align) - shift;
    request->requested = (uint64_t)count << shift;
    return BSA_OK;
}

/* --- alloc -------------------------------------------------------------------------------------
 */

/* Clears new memory. */
static BSA_APART void clear(struct bsa_root *root, uintptr_t address) {
    struct bsa_allocation found;

    if (bsa_lookup(root, address, &found) == BSA_OK) {
        memset((void *)address, 0, found.usable_size);
    }
}

static bool any_heap_is_not_memory(const struct bsa_root *root) {
    return atomic_load_explicit(&root->some_heap_is_not_memory, memory_order_relaxed);
}

static bsa_status alloc_sized(struct bsa_root *root, unsigned slot, size_t size, size_t align,
                              uintptr_t *address) {
    unsigned class_index = bsa_class_for(&root->space.classes, size, align);
    struct bsa_page_request request;

    if (class_index < BSA_CLASSES) {
        return object_alloc(root, slot, class_index, address);
    }
    if (!request_for_size(root, size, align, &request)) {
        return BSA_NO_MEMORY;
    }
    return pages_alloc(root, slot, &request, address);
}

/* What every kind of allocation ends with. */
static BSA_FAST_PATH bsa_status finish_alloc(struct bsa_root *root, unsigned slot, size_t size,
                                             unsigned flags, bsa_status status, uintptr_t address) {
    if (BSA_UNLIKELY(status != BSA_OK)) {
        return failed(root, slot, status);
    }
    if ((flags & BSA_ZERO) != 0) {
        clear(root, address);
    }
    trace(root, BSA_TRACE_ALLOC, address, size, slot);
    return BSA_OK;
}

static bool is_initialized(const struct bsa_root *root) {
    return atomic_load_explicit(&root->section_count, memory_order_relaxed) != 0;
}

static BSA_APART bsa_status alloc_general(struct bsa_root *root, unsigned slot, size_t size,
                                          size_t align, unsigned flags, uintptr_t *address) {
    bsa_status status;

    if ((align != 0 && !bsa_is_power_of_two(align)) || (flags & ~(unsigned)BSA_ZERO) != 0 ||
        ((flags & BSA_ZERO) != 0 && any_heap_is_not_memory(root))) {
        return BSA_INVALID_PARAM;
    }
    if (!is_initialized(root)) {
        return BSA_NOT_INITIALIZED;
    }
    *address = 0;
    status = alloc_sized(root, slot, size, align, address);
    return finish_alloc(root, slot, size, flags, status, *address);
}

static BSA_APART uintptr_t raise_peaks(struct bsa_tally *tally, uintptr_t taken) {
    bsa_tally_raise(tally);
    return taken;
}

/* Counts the object just taken. */
static BSA_FAST_PATH uintptr_t counted(struct bsa_root *root, const struct bsa_cache *cache,
                                       uintptr_t taken) {
    (void)root;
    bsa_unpoison_new(bsa_find_section(root, NULL, taken), taken, cache->object_size);
    return BSA_LIKELY(!bsa_tally_passes(cache->counted_in, 1, cache->object_size))
               ? taken
               : raise_peaks(cache->counted_in, taken);
}

/* The cache for objects of that size, of a slot that needs no lock; NULL: there is none. */
static BSA_FAST_PATH struct bsa_cache *cache_at_hand(struct bsa_root *root, unsigned number,
                                                     size_t size) {
    if (BSA_LIKELY(number < root->space.slot_count)) {
        struct bsa_slot *slot = &root->space.slots[number];

        if (BSA_LIKELY(size < atomic_load_explicit(&slot->fast_sizes, memory_order_relaxed))) {
            return &slot->caches[bsa_class_at_hand(&root->space.classes, size)];
        }
    }
    return NULL;
}

/* Takes the object that is remembered, or else the next of the row. There is one. */
static BSA_FAST_PATH uintptr_t object_at_hand(struct bsa_root *root, struct bsa_cache *cache) {
    return BSA_LIKELY(bsa_cache_remembers(cache))
               ? counted(root, cache, bsa_cache_take_freed(cache))
               : counted(root, cache, bsa_cache_take_row(cache));
}

static BSA_FAST_PATH bool has_object_at_hand(const struct bsa_cache *cache) {
    return BSA_LIKELY(cache != NULL) &&
           (BSA_LIKELY(bsa_cache_remembers(cache)) || BSA_LIKELY(cache->row != 0));
}

/* Where no object is at hand: the next row of the current slab, or the long way. */
static BSA_APART bsa_status alloc_next(struct bsa_root *root, unsigned number, size_t size,
                                       uintptr_t *address) {
    struct bsa_cache *cache = cache_at_hand(root, number, size);

    if (cache != NULL && bsa_cache_next_row(&root->space, cache)) {
        *address = counted(root, cache, bsa_cache_take_row(cache));
        return BSA_OK;
    }
    return alloc_general(root, number, size, 0, 0, address);
}

bsa_status bsa_alloc_on(struct bsa_root *root, unsigned number, size_t size, size_t align,
                        unsigned flags, uintptr_t *address) {
    struct bsa_cache *cache;

    if (BSA_UNLIKELY((align | flags) != 0)) {
        return alloc_general(root, number, size, align, flags, address);
    }
    cache = cache_at_hand(root, number, size);
    if (BSA_UNLIKELY(!has_object_at_hand(cache))) {
        return alloc_next(root, number, size, address);
    }
    *address = object_at_hand(root, cache);
    return BSA_OK;
}

static BSA_APART uintptr_t malloc_next(struct bsa_root *root, unsigned number, size_t size) {
    uintptr_t address;

    return alloc_next(root, number, size, &address) == BSA_OK ? address : 0;
}

uintptr_t bsa_malloc_on(struct bsa_root *root, unsigned number, size_t size) {
    struct bsa_cache *cache = cache_at_hand(root, number, size);

    return has_object_at_hand(cache) ? object_at_hand(root, cache)
                                     : malloc_next(root, number, size);
}

size_t bsa_granted_size(const struct bsa_root *root, size_t size, size_t align) {
    struct bsa_page_request request;

    if (BSA_LIKELY(size <= root->space.classes.largest && align == 0)) {
        return root->space.classes.classes[bsa_class_of_size(size)].size;
    }
    if (bsa_class_for(&root->space.classes, size, align) < BSA_CLASSES) {
        return bsa_class_size(bsa_class_for(&root->space.classes, size, align));
    }
    return request_for_size(root, size, align, &request)
               ? (size_t)request.count << root->space.classes.page_shift
               : 0;
}

static BSA_APART bsa_status alloc_pages_general(struct bsa_root *root, unsigned slot, size_t count,
                                                size_t align, unsigned flags, uintptr_t *address) {
    struct bsa_page_request request;
    bsa_status status = request_for_pages(root, count, align, flags, &request);

    if (status == BSA_OK && (flags & BSA_ZERO) != 0 && any_heap_is_not_memory(root)) {
        status = BSA_INVALID_PARAM;
    }
    if (status == BSA_OK && !is_initialized(root)) {
        status = BSA_NOT_INITIALIZED;
    }
    if (status != BSA_OK) {
        return status;
    }
    *address = 0;
    status = pages_alloc(root, slot, &request, address);
    return finish_alloc(root, slot, (size_t)request.requested, flags, status, *address);
}

/* Cached pages, rounded up, of a slot that needs no lock, if there are any. */
static BSA_FAST_PATH bool pages_at_hand(struct bsa_root *root, unsigned number, size_t count,
                                        uintptr_t *address) {
    struct bsa_slot *slot;

    if (BSA_UNLIKELY(number >= root->space.slot_count ||
                     count - 1 >= (size_t)1 << (BSA_CACHED_ORDERS - 1))) {
        return false;
    }
    slot = &root->space.slots[number];
    return BSA_LIKELY(atomic_load_explicit(&slot->fast_pages, memory_order_relaxed) &&
                      bsa_page_caches_are_used(root)) &&
           bsa_page_cache_take(&slot->pages, bsa_log2_ceil(count),
                               (uint64_t)count << root->space.classes.page_shift, address);
}

bsa_status bsa_alloc_pages_on(struct bsa_root *root, unsigned slot, size_t count, size_t align,
                              unsigned flags, uintptr_t *address) {
    return BSA_LIKELY((align | flags) == 0 && pages_at_hand(root, slot, count, address))
               ? BSA_OK
               : alloc_pages_general(root, slot, count, align, flags, address);
}

bsa_status bsa_alloc_pages_lowmem_on(struct bsa_root *root, unsigned slot, size_t count,
                                     size_t align, uintptr_t *address) {
    struct bsa_page_request request;
    struct bsa_slab block;
    bsa_status status = request_for_pages(root, count, align, 0, &request);

    if (status == BSA_OK && !is_initialized(root)) {
        status = BSA_NOT_INITIALIZED;
    }
    if (status != BSA_OK) {
        return status;
    }
    *address = 0;
    status = bsa_pages_take_low(root, &request, &block);
    if (status == BSA_NO_MEMORY) {
        bsa_trim_on(root, slot);
        status = bsa_pages_take_low(root, &request, &block);
    }
    if (status == BSA_OK) {
        *address = bsa_page_address(block.section, block.head);
    }
    return finish_alloc(root, slot, (size_t)request.requested, 0, status, *address);
}

/* --- free --------------------------------------------------------------------------------------
 */

/* Whether that is the word of a live block that page caches hold when it is freed; `count` pages
 * are said to be in it, at least one. */
static BSA_FAST_PATH bool goes_to_cache(uint64_t word, size_t count) {
    unsigned order = bsa_word_order(word);

    return word == bsa_cacheable_word(order) && order < BSA_CACHED_ORDERS &&
           (count - 1) >> order == 0;
}

/* Puts the live block with this word into the cache of the slot, which is the caller's own for now.
 * False: it is for the buddy, or live no longer. */
static bool put_cached(struct bsa_root *root, unsigned number, struct bsa_slab block,
                       uint64_t word) {
    struct bsa_slot *slot = &root->space.slots[number];
    unsigned order = bsa_word_order(word);

    honour_request(root, slot);
    if (!bsa_page_caches_are_used(root)) {
        bsa_page_cache_merge(root, slot);
    }
    if (bsa_cached_room(root, order) == 0) {
        return false;
    }
    if (bsa_cached_count(&slot->pages, order) >= bsa_cached_room(root, order)) {
        bsa_page_cache_spill(root, slot, order);
    }
    return bsa_page_cache_put(&slot->pages, number, block, word,
                              bsa_cached_count(&slot->pages, order));
}

static BSA_APART bool free_to_cache(struct bsa_root *root, unsigned number, struct bsa_slab block,
                                    uint64_t word) {
    struct bsa_slot *slot = &root->space.slots[number];
    bool locked = bsa_enter_slot(root, slot);
    bool done = put_cached(root, number, block, word);

    bsa_leave_slot(root, slot, locked);
    return done;
}

/* Frees the page block of at least `count` pages that starts at the address in the section's heap;
 * `*bytes` receives its size. Errors as bsa_free_pages's. */
static BSA_FAST_PATH bsa_status pages_free(struct bsa_root *root, unsigned number,
                                           struct bsa_section *section, uintptr_t address,
                                           size_t count, size_t *bytes) {
    if (root->has_page_caches && number < root->space.slot_count &&
        address % bsa_page_size(root) == 0) {
        struct bsa_slab block = {section, bsa_page_of(section, address)};
        uint64_t word = bsa_page_word(bsa_slab_page(block));

        if (goes_to_cache(word, count) && free_to_cache(root, number, block, word)) {
            *bytes = (size_t)bsa_word_count(word) << section->page_shift;
            return BSA_OK;
        }
    }
    return bsa_pages_free(root, section, address, count, bytes);
}

static bsa_status free_untraced(struct bsa_root *root, unsigned number, uintptr_t address) {
    struct bsa_section *section = bsa_find_section(root, bsa_slot_of(root, number), address);
    struct bsa_page *page;
    uint64_t word;
    size_t size;

    if (section == NULL) {
        return is_initialized(root) ? BSA_NOT_FOUND : BSA_NOT_INITIALIZED;
    }
    page = bsa_page_around(section, address);
    word = bsa_page_word(page);
    return bsa_word_state(word) == BSA_SLAB
               ? object_free(root, number, section, page, word, address)
               : pages_free(root, number, section, address, 1, &size);
}

static bsa_status free_traced(struct bsa_root *root, unsigned number, uintptr_t address) {
    struct bsa_allocation was = {0};
    bsa_status status = bsa_lookup(root, address, &was);

    if (status == BSA_OK) {
        status = free_untraced(root, number, address);
    }
    if (status == BSA_OK) {
        trace(root, BSA_TRACE_FREE, address, was.usable_size, number);
    }
    return status;
}

static BSA_APART bsa_status free_general(struct bsa_root *root, unsigned number,
                                         uintptr_t address) {
    return root->hooks.trace == NULL ? free_untraced(root, number, address)
                                     : free_traced(root, number, address);
}

/* Frees what is at an address of the section. The common case first: an object of the slot's own,
 * which needs no lock. */
static BSA_FAST_PATH bsa_status free_in(struct bsa_root *root, unsigned number,
                                        struct bsa_section *section, uintptr_t address) {
    struct bsa_slot *slot = &root->space.slots[number];
    struct bsa_page *page = bsa_page_around(section, address);
    /* Relaxed: where the slot owns the slab, it has written the word itself. */
    uint64_t word = atomic_load_explicit(&page->word, memory_order_relaxed);

    return BSA_LIKELY(bsa_owner_bits(word) ==
                      atomic_load_explicit(&slot->fast_owner, memory_order_relaxed))
               ? object_free_own(root, &slot->caches[bsa_word_class(word)], address, section, page,
                                 word)
               : free_general(root, number, address);
}

/* Where the section is another one than the last time. */
static BSA_APART bsa_status free_elsewhere(struct bsa_root *root, unsigned number,
                                           uintptr_t address) {
    struct bsa_section *section = bsa_find_section_slow(root, &root->space.slots[number], address);

    return BSA_LIKELY(section != NULL) ? free_in(root, number, section, address)
                                       : free_general(root, number, address);
}

bsa_status bsa_free_on(struct bsa_root *root, unsigned number, uintptr_t address) {
    struct bsa_section *section;

    if (BSA_UNLIKELY(number >= root->space.slot_count)) {
        return free_general(root, number, address);
    }
    section = atomic_load_explicit(&root->space.slots[number].last_section, memory_order_acquire);
    return BSA_LIKELY(section != NULL && bsa_heap_holds(section, address))
               ? free_in(root, number, section, address)
               : free_elsewhere(root, number, address);
}

static BSA_APART bsa_status free_pages_general(struct bsa_root *root, unsigned slot,
                                               uintptr_t address, size_t count) {
    struct bsa_section *section = bsa_find_section(root, bsa_slot_of(root, slot), address);
    bsa_status status;
    size_t size;

    if (section == NULL) {
        return is_initialized(root) ? BSA_NOT_FOUND : BSA_NOT_INITIALIZED;
    }
    status = count == 0 || address % bsa_page_size(root) != 0
                 ? BSA_INVALID_PARAM
                 : pages_free(root, slot, section, address, count, &size);
    if (status == BSA_OK) {
        trace(root, BSA_TRACE_FREE, address, size, slot);
    }
    return status;
}

/* Frees a page block into the cache of a slot that needs no lock, where all is as it mostly is. */
static BSA_FAST_PATH bool free_pages_fast(struct bsa_root *root, unsigned number, uintptr_t address,
                                          size_t count) {
    struct bsa_section *section;
    struct bsa_slot *slot;
    bsa_page_index head;
    unsigned order;
    uint32_t cached;
    uint64_t word;

    if (BSA_UNLIKELY(number >= root->space.slot_count)) {
        return false;
    }
    slot = &root->space.slots[number];
    section = atomic_load_explicit(&slot->last_section, memory_order_acquire);
    if (BSA_UNLIKELY(!atomic_load_explicit(&slot->fast_pages, memory_order_relaxed) ||
                     section == NULL || !bsa_heap_holds(section, address))) {
        return false;
    }
    head = bsa_page_of(section, address);
    word = atomic_load_explicit(&bsa_page_at(section, head)->word, memory_order_relaxed);
    order = bsa_word_order(word);
    if (BSA_UNLIKELY(bsa_page_address(section, head) != address || !goes_to_cache(word, count))) {
        return false;
    }
    cached = bsa_cached_count(&slot->pages, order);
    return BSA_LIKELY(cached < bsa_cached_room(root, order)) &&
           bsa_page_cache_put(&slot->pages, number, (struct bsa_slab){section, head}, word, cached);
}

bsa_status bsa_free_pages_on(struct bsa_root *root, unsigned slot, uintptr_t address,
                             size_t count) {
    return BSA_LIKELY(free_pages_fast(root, slot, address, count))
               ? BSA_OK
               : free_pages_general(root, slot, address, count);
}

/* --- realloc -----------------------------------------------------------------------------------
 */

/* Whether an object of `old` bytes should serve `size`: it fits, and would not waste half of
 * itself. */
static bool object_serves(const struct bsa_root *root, size_t old, size_t size) {
    unsigned class_index;

    if (size > old) {
        return false;
    }
    class_index = bsa_class_for(&root->space.classes, size, 0);
    return class_index >= BSA_CLASSES || bsa_class_size(class_index) > old / 2;
}

static bsa_status resize_in_place(struct bsa_root *root, const struct bsa_allocation *old,
                                  size_t size) {
    struct bsa_section *section;

    if (old->kind == BSA_KIND_OBJECT) {
        return object_serves(root, old->usable_size, size) ? BSA_OK : BSA_NO_MEMORY;
    }
    if (bsa_class_for(&root->space.classes, size, 0) < BSA_CLASSES) {
        return BSA_NO_MEMORY; /* an object serves as well */
    }
    section = bsa_find_section(root, NULL, old->address);
    return bsa_pages_resize(root, section, old->address, size);
}

/* A smaller block that cannot move stays where it is, as small as it gets. */
static bsa_status shrink_where_it_is(struct bsa_root *root, const struct bsa_allocation *old,
                                     size_t size) {
    if (old->kind == BSA_KIND_OBJECT) {
        return BSA_OK;
    }
    return bsa_pages_resize(root, bsa_find_section(root, NULL, old->address), old->address, size);
}

static bool is_memory(const struct bsa_root *root, uintptr_t address) {
    return (bsa_find_section(root, NULL, address)->derived.flags & BSA_NOT_MEMORY) == 0;
}

/* A new allocation with the bytes of the old one, which stays. */
static bsa_status copy_to_new(struct bsa_root *root, unsigned slot,
                              const struct bsa_allocation *old, size_t size, uintptr_t *address) {
    size_t kept = size < old->usable_size ? size : old->usable_size;
    uintptr_t moved;
    bsa_status status = alloc_sized(root, slot, size, 0, &moved);

    if (status != BSA_OK) {
        return status;
    }
    if (!is_memory(root, old->address) || !is_memory(root, moved)) {
        free_untraced(root, slot, moved);
        return BSA_INVALID_PARAM;
    }
    memcpy((void *)moved, (const void *)old->address, kept);
    *address = moved;
    return BSA_OK;
}

/* bsa_realloc_copy_on, untraced. */
static bsa_status resize_or_copy(struct bsa_root *root, unsigned slot, uintptr_t old, size_t size,
                                 uintptr_t *address) {
    struct bsa_allocation was;
    bsa_status status = bsa_lookup(root, old, &was);

    if (status != BSA_OK) {
        return status;
    }
    *address = old;
    status = resize_in_place(root, &was, size);
    if (status == BSA_NO_MEMORY) {
        status = copy_to_new(root, slot, &was, size, address);
        if (status != BSA_OK && size <= was.usable_size) {
            status = shrink_where_it_is(root, &was, size);
        }
    }
    return status == BSA_OK ? BSA_OK : failed(root, slot, status);
}

bsa_status bsa_realloc_copy_on(struct bsa_root *root, unsigned slot, uintptr_t old, size_t size,
                               uintptr_t *address) {
    bsa_status status = resize_or_copy(root, slot, old, size, address);

    if (status == BSA_OK) {
        trace(root, *address == old ? BSA_TRACE_REALLOC : BSA_TRACE_ALLOC, *address, size, slot);
    }
    return status;
}

bsa_status bsa_realloc_on(struct bsa_root *root, unsigned slot, uintptr_t old, size_t size,
                          uintptr_t *address) {
    bsa_status status = resize_or_copy(root, slot, old, size, address);

    if (status != BSA_OK) {
        return status;
    }
    if (*address != old) {
        bsa_free_on(root, slot, old);
    }
    trace(root, BSA_TRACE_REALLOC, *address, size, slot);
    return BSA_OK;
}

/* --- by the caller's slot ----------------------------------------------------------------------
 */

static unsigned enter(const struct bsa_root *root) {
    return root->hooks.enter != NULL ? root->hooks.enter(root->hooks.context) : 0;
}

static void leave(const struct bsa_root *root, unsigned slot) {
    if (root->hooks.leave != NULL) {
        root->hooks.leave(root->hooks.context, slot);
    }
}

bsa_status bsa_alloc(struct bsa_root *root, size_t size, size_t align, unsigned flags,
                     uintptr_t *address) {
    unsigned slot = enter(root);
    bsa_status status = bsa_alloc_on(root, slot, size, align, flags, address);

    leave(root, slot);
    return status;
}

bsa_status bsa_alloc_pages(struct bsa_root *root, size_t count, size_t align, unsigned flags,
                           uintptr_t *address) {
    unsigned slot = enter(root);
    bsa_status status = bsa_alloc_pages_on(root, slot, count, align, flags, address);

    leave(root, slot);
    return status;
}

bsa_status bsa_alloc_pages_lowmem(struct bsa_root *root, size_t count, size_t align,
                                  uintptr_t *address) {
    unsigned slot = enter(root);
    bsa_status status = bsa_alloc_pages_lowmem_on(root, slot, count, align, address);

    leave(root, slot);
    return status;
}

bsa_status bsa_free(struct bsa_root *root, uintptr_t address) {
    unsigned slot = enter(root);
    bsa_status status = bsa_free_on(root, slot, address);

    leave(root, slot);
    return status;
}

bsa_status bsa_free_pages(struct bsa_root *root, uintptr_t address, size_t count) {
    unsigned slot = enter(root);
    bsa_status status = bsa_free_pages_on(root, slot, address, count);

    leave(root, slot);
    return status;
}

bsa_status bsa_realloc(struct bsa_root *root, uintptr_t old, size_t size, uintptr_t *address) {
    unsigned slot = enter(root);
    bsa_status status = bsa_realloc_on(root, slot, old, size, address);

    leave(root, slot);
    return status;
}

bsa_status bsa_alloc_many(struct bsa_root *root, size_t count, size_t size, size_t align,
                          uintptr_t *addresses) {
    unsigned slot = enter(root);
    bsa_status status = bsa_alloc_many_on(root, slot, count, size, align, addresses);

    leave(root, slot);
    return status;
}

bsa_status bsa_free_many(struct bsa_root *root, uintptr_t *addresses, size_t count,
                         uintptr_t *wrong) {
    unsigned slot = enter(root);
    bsa_status status = bsa_free_many_on(root, slot, addresses, count, wrong);

    leave(root, slot);
    return status;
}

size_t bsa_trim(struct bsa_root *root) {
    unsigned slot = enter(root);
    size_t pages = bsa_trim_on(root, slot);

    leave(root, slot);
    return pages;
}
