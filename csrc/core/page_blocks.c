/* Page blocks: from a slot's page cache, or from the buddy (pages.c).
 *
 * O(1) from the cache; else what the buddy takes. What finds none trims every slot within reach and
 * looks again. Locking: see facade.h. */
#include "facade.h"

/* Takes a cached block of the slot, which is the caller's own for now. False: none is to be had. */
static bool take_cached(struct bsa_root *root, struct bsa_slot *slot,
                        const struct bsa_page_request *request, uintptr_t *address) {
    struct bsa_page_stack *stack = &slot->pages.stacks[request->order];
    uint32_t cached;

    bsa_honour_request(root, slot);
    cached = bsa_cached_count(stack);
    if (cached == 0) {
        cached = bsa_page_cache_fill(root, slot, request->order);
    }
    if (cached == 0) {
        return false;
    }
    *address = bsa_page_stack_take(stack, cached, stack->bytes - request->requested);
    return true;
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

/* A block, where the buddy has none at first. */
static BSA_APART bsa_status take_after_trimming(struct bsa_root *root, unsigned slot,
                                                const struct bsa_page_request *request,
                                                uintptr_t *address) {
    bsa_trim_on(root, slot);
    return bsa_pages_take(root, request, address) ? BSA_OK : BSA_NO_MEMORY;
}

/* A block, from the slot's page cache or the buddy. */
static BSA_FAST_PATH bsa_status take(struct bsa_root *root, unsigned slot,
                                     const struct bsa_page_request *request, uintptr_t *address) {
    if (root->has_page_caches && slot < root->space.slot_count &&
        pages_from_cache(root, &root->space.slots[slot], request, address)) {
        return BSA_OK;
    }
    return BSA_LIKELY(bsa_pages_take(root, request, address))
               ? BSA_OK
               : take_after_trimming(root, slot, request, address);
}

/* The block for `size` bytes. `align` is a power of two, or 0. False: larger than any. */
static BSA_FAST_PATH bool request_for_size(const struct bsa_root *root, size_t size, size_t align,
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

BSA_FLAT bsa_status bsa_page_block_alloc(struct bsa_root *root, unsigned slot, size_t size,
                                         size_t align, uintptr_t *address) {
    struct bsa_page_request request;

    return request_for_size(root, size, align, &request) ? take(root, slot, &request, address)
                                                         : BSA_NO_MEMORY;
}

size_t bsa_page_block_size(const struct bsa_root *root, size_t size, size_t align) {
    struct bsa_page_request request;

    return request_for_size(root, size, align, &request)
               ? (size_t)request.count << root->space.classes.page_shift
               : 0;
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

static BSA_APART BSA_FLAT bsa_status alloc_pages_general(struct bsa_root *root, unsigned slot,
                                                         size_t count, size_t align, unsigned flags,
                                                         uintptr_t *address) {
    struct bsa_page_request request;
    bsa_status status = request_for_pages(root, count, align, flags, &request);

    if (status == BSA_OK && (flags & BSA_ZERO) != 0 && bsa_any_heap_is_not_memory(root)) {
        status = BSA_INVALID_PARAM;
    }
    if (status == BSA_OK && !bsa_is_initialized(root)) {
        status = BSA_NOT_INITIALIZED;
    }
    if (status != BSA_OK) {
        return status;
    }
    *address = 0;
    status = take(root, slot, &request, address);
    return bsa_finish_alloc(root, slot, (size_t)request.requested, flags, status, *address);
}

/* The stack of blocks of `count` pages in the cache of a slot that needs no lock; NULL: there is
 * none, or `count` is no power of two. */
static BSA_FAST_PATH struct bsa_page_stack *stack_at_hand(const struct bsa_root *root,
                                                          unsigned number, size_t count) {
    struct bsa_slot *slot;

    if (BSA_UNLIKELY(number >= root->space.slot_count)) {
        return NULL;
    }
    slot = &root->space.slots[number];
    if (BSA_UNLIKELY(count - 1 >= atomic_load_explicit(&slot->fast_pages, memory_order_relaxed) ||
                     (count & (count - 1)) != 0)) {
        return NULL;
    }
    return slot->pages.stacks + bsa_lowest_bit(count);
}

/* Pages from the cache of a slot that needs no lock, where all is as it mostly is. */
static BSA_FAST_PATH bool alloc_pages_fast(struct bsa_root *root, unsigned number, size_t count,
                                           uintptr_t *address) {
    struct bsa_page_stack *stack = stack_at_hand(root, number, count);
    uint32_t cached;

    if (BSA_UNLIKELY(stack == NULL)) {
        return false;
    }
    cached = bsa_cached_count(stack);
    /* Neither where there is none, nor where caches are to hold none. */
    if (BSA_UNLIKELY(cached - 1 >= bsa_cached_room(root, bsa_lowest_bit(count)))) {
        return false;
    }
    *address = bsa_page_stack_take(stack, cached, 0);
    return true;
}

bsa_status bsa_alloc_pages_on(struct bsa_root *root, unsigned slot, size_t count, size_t align,
                              unsigned flags, uintptr_t *address) {
    return BSA_LIKELY((align | flags) == 0 && alloc_pages_fast(root, slot, count, address))
               ? BSA_OK
               : alloc_pages_general(root, slot, count, align, flags, address);
}

bsa_status bsa_alloc_pages_lowmem_on(struct bsa_root *root, unsigned slot, size_t count,
                                     size_t align, uintptr_t *address) {
    struct bsa_page_request request;
    bsa_status status = request_for_pages(root, count, align, 0, &request);

    if (status == BSA_OK && !bsa_is_initialized(root)) {
        status = BSA_NOT_INITIALIZED;
    }
    if (status != BSA_OK) {
        return status;
    }
    *address = 0;
    status = bsa_pages_take_low(root, &request, address);
    if (status == BSA_NO_MEMORY) {
        bsa_trim_on(root, slot);
        status = bsa_pages_take_low(root, &request, address);
    }
    return bsa_finish_alloc(root, slot, (size_t)request.requested, 0, status, *address);
}

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
    struct bsa_page_stack *stack = &slot->pages.stacks[order];

    bsa_honour_request(root, slot);
    if (!bsa_page_caches_are_used(root)) {
        bsa_page_cache_merge(root, slot);
    }
    if (bsa_cached_room(root, order) == 0) {
        return false;
    }
    if (bsa_cached_count(stack) >= bsa_cached_room(root, order)) {
        bsa_page_cache_spill(root, slot, order);
    }
    return bsa_page_stack_put(stack, bsa_cached_count(stack), block.section, bsa_slab_page(block),
                              bsa_page_address(block.section, block.head));
}

/* Frees the page block that starts at the address to the slot's page cache, if it is one that such
 * caches hold; `*bytes` receives its size. */
static BSA_APART bool free_to_cache(struct bsa_root *root, unsigned number,
                                    struct bsa_section *section, uintptr_t address, size_t count,
                                    size_t *bytes) {
    struct bsa_slab block = {section, bsa_page_of(section, address)};
    uint64_t word = bsa_page_word(bsa_slab_page(block));
    bool locked, done;

    if (!bsa_starts_page(section, address) || !goes_to_cache(word, count)) {
        return false;
    }
    locked = bsa_enter_slot(root, &root->space.slots[number]);
    done = put_cached(root, number, block, word);
    bsa_leave_slot(root, &root->space.slots[number], locked);
    *bytes = (size_t)bsa_word_count(word) << section->page_shift;
    return done;
}

/* bsa_page_block_free, for calls from here. */
static BSA_FAST_PATH bsa_status free_block(struct bsa_root *root, unsigned number,
                                           struct bsa_section *section, uintptr_t address,
                                           size_t count, size_t *bytes) {
    return root->has_page_caches && number < root->space.slot_count &&
                   free_to_cache(root, number, section, address, count, bytes)
               ? BSA_OK
               : bsa_pages_free(root, section, address, count, bytes);
}

BSA_FLAT bsa_status bsa_page_block_free(struct bsa_root *root, unsigned number,
                                        struct bsa_section *section, uintptr_t address,
                                        size_t count, size_t *bytes) {
    return free_block(root, number, section, address, count, bytes);
}

static BSA_APART BSA_FLAT bsa_status free_pages_general(struct bsa_root *root, unsigned slot,
                                                        uintptr_t address, size_t count) {
    struct bsa_section *section = bsa_find_section(root, bsa_slot_of(root, slot), address);
    bsa_status status;
    size_t size;

    if (section == NULL) {
        return bsa_is_initialized(root) ? BSA_NOT_FOUND : BSA_NOT_INITIALIZED;
    }
    status = count == 0 || !bsa_starts_page(section, address)
                 ? BSA_INVALID_PARAM
                 : free_block(root, slot, section, address, count, &size);
    if (status == BSA_OK) {
        bsa_trace(root, BSA_TRACE_FREE, address, size, slot);
    }
    return status;
}

/* The number of the page that starts at the address; if none of the section's does, a number that
 * none has: of an address amid a page, what is left turns up in the highest bits. */
static BSA_FAST_PATH uint64_t page_starting_at(const struct bsa_section *section,
                                               uintptr_t address) {
    return bsa_rotate_right(address - bsa_heap_start(section), section->page_shift);
}

/* Frees a page block of `count` pages into the cache of a slot that needs no lock, where all is as
 * it mostly is. */
static BSA_FAST_PATH bool free_pages_fast(struct bsa_root *root, unsigned number, uintptr_t address,
                                          size_t count) {
    struct bsa_page_stack *stack = stack_at_hand(root, number, count);
    struct bsa_section *section;
    uint32_t cached;
    uint64_t head;

    if (BSA_UNLIKELY(stack == NULL)) {
        return false;
    }
    section = bsa_last_section(&root->space.slots[number]);
    head = page_starting_at(section, address);
    cached = bsa_cached_count(stack);
    return BSA_LIKELY(head < section->total_pages &&
                      cached < bsa_cached_room(root, bsa_lowest_bit(count))) &&
           bsa_page_stack_put(stack, cached, section, bsa_page_at(section, (bsa_page_index)head),
                              address);
}

bsa_status bsa_free_pages_on(struct bsa_root *root, unsigned slot, uintptr_t address,
                             size_t count) {
    return BSA_LIKELY(free_pages_fast(root, slot, address, count))
               ? BSA_OK
               : free_pages_general(root, slot, address, count);
}
