/* The page layer of the facade: blocks from the first section that has one, under the limit.
 *
 * Sections are tried in order of registration: O(sections) where the first ones are full. Locking:
 * the page lock within each function; none is held on return. */
#include "root.h"

static BSA_FAST_PATH bool within_limit(const struct bsa_root *root, uint64_t pages) {
    uint64_t limit = atomic_load_explicit(&root->limit_pages, memory_order_relaxed);

    return limit >= root->allocated_pages && pages <= limit - root->allocated_pages;
}

static size_t block_bytes(const struct bsa_root *root, uint64_t pages) {
    return (size_t)(pages << root->space.classes.page_shift);
}

static BSA_FAST_PATH void count_pages(struct bsa_root *root, uint64_t more) {
    root->allocated_pages += more;
    if (root->peak_pages < root->allocated_pages) {
        root->peak_pages = root->allocated_pages;
    }
}

/* Counts page blocks just taken, of so many pages together. */
static BSA_FAST_PATH void count_blocks(struct bsa_root *root, unsigned order, uint32_t blocks,
                                       uint64_t pages) {
    root->per_order[order].live += blocks;
    count_pages(root, pages);
    bsa_tally_add(bsa_page_tally(root), blocks, block_bytes(root, pages));
}

/* Trims the block just taken to the pages asked for, and makes it a live one. Returns its address.
 */
static BSA_FAST_PATH uintptr_t make_live(struct bsa_root *root,
                                         const struct bsa_page_request *request,
                                         struct bsa_slab block) {
    uintptr_t address = bsa_page_address(block.section, block.head);
    size_t bytes = block_bytes(root, request->count);

    if (BSA_UNLIKELY(request->count != (uint32_t)1 << request->order)) {
        bsa_buddy_shrink(block.section, block.head, request->count);
    }
    count_blocks(root, request->order, 1, request->count);
    root->page_slack += bytes - request->requested;
    root->per_order[request->order].total++;
    root->total_blocks++;
    root->total_block_bytes += bytes;
    bsa_page_set_requested(bsa_slab_page(block), request->requested);
    bsa_unpoison_new(block.section, address, bytes);
    /* From here on anybody may free it. */
    bsa_page_set_word(bsa_slab_page(block),
                      bsa_block_word(BSA_PAGES, request->order, request->count));
    return address;
}

/* A block of the first section that has one, within the limit. Under the page lock. */
static BSA_FAST_PATH bool take_block(struct bsa_root *root, unsigned order, unsigned align_order,
                                     uint32_t count, struct bsa_slab *block) {
    struct bsa_section *section = within_limit(root, count) ? bsa_first_section(root) : NULL;

    for (; section != NULL; section = bsa_next_section(root, section)) {
        if (BSA_LIKELY(bsa_buddy_take(section, order, align_order, &block->head))) {
            block->section = section;
            return true;
        }
    }
    return false;
}

bool bsa_pages_take(struct bsa_root *root, const struct bsa_page_request *request,
                    uintptr_t *address) {
    struct bsa_slab block;
    bool taken;

    bsa_lock_pages(root);
    taken = take_block(root, request->order, request->align_order, request->count, &block);
    if (BSA_LIKELY(taken)) {
        *address = make_live(root, request, block);
    }
    bsa_unlock_pages(root);
    return taken;
}

bool bsa_pages_take_slab(struct bsa_root *root, unsigned order, struct bsa_slab *slab) {
    uint32_t count = (uint32_t)1 << order;
    bool taken;

    bsa_lock_pages(root);
    taken = take_block(root, order, 0, count, slab);
    if (taken) {
        count_pages(root, count);
        bsa_page_set_word(bsa_slab_page(*slab), bsa_block_word(BSA_CHANGING, order, count));
    }
    bsa_unlock_pages(root);
    return taken;
}

uint32_t bsa_pages_lend(struct bsa_root *root, unsigned order, unsigned most, uint64_t word,
                        struct bsa_slab *first) {
    struct bsa_section *section = bsa_first_section(root);
    unsigned taken;

    for (; section != NULL; section = bsa_next_section(root, section)) {
        if (bsa_buddy_take_some(section, order, most, &first->head, &taken)) {
            uint32_t blocks = (uint32_t)1 << (taken - order);

            first->section = section;
            count_blocks(root, order, blocks, (uint64_t)1 << taken);
            bsa_buddy_cut(section, first->head, order, blocks, word);
            return blocks;
        }
    }
    return 0;
}

/* Under the page lock: so many page blocks less, of so many pages together. */
static BSA_FAST_PATH void uncount_blocks(struct bsa_root *root, unsigned order, uint32_t blocks,
                                         uint64_t pages) {
    root->allocated_pages -= pages;
    root->per_order[order].live -= blocks;
    bsa_tally_remove(bsa_page_tally(root), blocks, block_bytes(root, pages));
}

void bsa_pages_take_in(struct bsa_root *root, unsigned order, const struct bsa_cached_block *blocks,
                       uint32_t count) {
    uncount_blocks(root, order, count, (uint64_t)count << order);
    for (uint32_t i = 0; i < count; i++) {
        struct bsa_section *section = bsa_section_of_cached(&blocks[i]);

        bsa_buddy_release(section, bsa_page_of(section, blocks[i].address));
    }
}

static void give_back_slab(struct bsa_root *root, struct bsa_slab slab) {
    bsa_lock_pages(root);
    root->allocated_pages -= bsa_word_count(bsa_page_word(bsa_slab_page(slab)));
    bsa_buddy_release(slab.section, slab.head);
    bsa_unlock_pages(root);
}

BSA_SLOW_PATH size_t bsa_give_back_retired(struct bsa_root *root, struct bsa_cache *cache) {
    struct bsa_slab slab;
    size_t pages = 0;

    while (bsa_cache_take_retired(&root->space, cache, &slab)) {
        pages += bsa_word_count(bsa_page_word(bsa_slab_page(slab)));
        give_back_slab(root, slab);
    }
    return pages;
}

/* Under the page lock: makes a block with this word nobody else's to free. Only page caches free
 * blocks without the lock. False: one has just done so. */
static inline bool claim(const struct bsa_root *root, struct bsa_page *page, uint64_t word) {
    return !root->has_page_caches || bsa_page_claim(page, word, bsa_with_state(word, BSA_CLAIMED));
}

/* Under the page lock: the page block that starts at `head`, if it is live and has at least `count`
 * pages. */
static BSA_FAST_PATH bsa_status free_head(struct bsa_root *root, struct bsa_section *section,
                                          bsa_page_index head, size_t count, size_t *bytes) {
    struct bsa_page *page = bsa_page_at(section, head);
    uint64_t word = bsa_page_word(page);

    if (BSA_UNLIKELY(bsa_word_state(word) != BSA_PAGES)) {
        return BSA_NOT_ALLOCATED;
    }
    if (BSA_UNLIKELY(count > bsa_word_count(word))) {
        return BSA_INVALID_PARAM;
    }
    if (BSA_UNLIKELY(!claim(root, page, word))) {
        return BSA_NOT_ALLOCATED;
    }
    *bytes = block_bytes(root, bsa_word_count(word));
    root->page_slack -= *bytes - bsa_page_requested(page);
    bsa_poison(section, bsa_page_address(section, head), *bytes);
    uncount_blocks(root, bsa_word_order(word), 1, bsa_word_count(word));
    bsa_buddy_release(section, head);
    return BSA_OK;
}

/* Why no block can start at the address, which is inside a page. */
static BSA_SLOW_PATH bsa_status inside_page(const struct bsa_section *section, uintptr_t address) {
    bsa_page_index head = bsa_block_of(section, bsa_page_of(section, address));

    return bsa_word_state(bsa_word_at(section, head)) == BSA_PAGES ? BSA_INVALID_PARAM
                                                                   : BSA_NOT_ALLOCATED;
}

bsa_status bsa_pages_free(struct bsa_root *root, struct bsa_section *section, uintptr_t address,
                          size_t count, size_t *bytes) {
    bsa_status status;

    bsa_lock_pages(root);
    status = BSA_LIKELY(bsa_starts_page(section, address))
                 ? free_head(root, section, bsa_page_of(section, address), count, bytes)
                 : inside_page(section, address);
    bsa_unlock_pages(root);
    return status;
}

/* The pages a block of `bytes` keeps: an exact block stays exact, any other a power of two. */
static uint32_t pages_to_keep(uint64_t word, uint64_t pages) {
    return bsa_is_power_of_two(bsa_word_count(word)) ? (uint32_t)1 << bsa_log2_ceil(pages)
                                                     : (uint32_t)pages;
}

/* Under the page lock: the block has `count` pages now, of which `bytes` were asked for. */
static void recount(struct bsa_root *root, struct bsa_page *page, uint64_t before, uint64_t bytes) {
    uint64_t after = bsa_page_word(page);
    size_t old_bytes = block_bytes(root, bsa_word_count(before));
    size_t new_bytes = block_bytes(root, bsa_word_count(after));

    root->page_slack += (new_bytes - bytes) - (old_bytes - bsa_page_requested(page));
    bsa_page_set_requested(page, bytes);
    root->per_order[bsa_word_order(before)].live--;
    root->per_order[bsa_word_order(after)].live++;
    root->per_order[bsa_word_order(after)].total += bsa_word_order(after) != bsa_word_order(before);
    root->allocated_pages -= bsa_word_count(before);
    count_pages(root, bsa_word_count(after));
    bsa_tally_add(bsa_page_tally(root), 0, new_bytes - old_bytes);
}

/* Under the page lock: a claimed block keeps that many pages. False: its neighbours are not free.
 */
static bool resize_claimed(struct bsa_root *root, struct bsa_section *section, bsa_page_index head,
                           uint32_t keep) {
    uint32_t have = bsa_word_count(bsa_word_at(section, head));

    if (keep > have) {
        return within_limit(root, keep - have) && bsa_buddy_grow(section, head, keep);
    }
    bsa_buddy_shrink(section, head, keep);
    bsa_poison(section, bsa_page_address(section, head + keep),
               (uint64_t)(have - keep) << section->page_shift);
    return true;
}

/* Under the page lock: the live block with this word is to hold `bytes` bytes in `keep` pages. */
static bsa_status resize_head(struct bsa_root *root, struct bsa_section *section,
                              bsa_page_index head, uint64_t word, uint32_t keep, uint64_t bytes) {
    struct bsa_page *page = bsa_page_at(section, head);
    bsa_status status = BSA_NO_MEMORY;
    uint32_t have = bsa_word_count(word);

    if (!claim(root, page, word)) {
        return BSA_NOT_ALLOCATED;
    }
    if (resize_claimed(root, section, head, keep)) {
        recount(root, page, word, bytes);
        if (keep > have) {
            bsa_unpoison_new(section, bsa_page_address(section, head + have),
                             (uint64_t)(keep - have) << section->page_shift);
        }
        status = BSA_OK;
    }
    bsa_page_set_word(page, bsa_with_state(bsa_page_word(page), BSA_PAGES));
    return status;
}

bsa_status bsa_pages_resize(struct bsa_root *root, struct bsa_section *section, uintptr_t address,
                            uint64_t bytes) {
    uint64_t page_bytes = (uint64_t)1 << section->page_shift;
    uint64_t pages = (bytes >> section->page_shift) + (bytes % page_bytes != 0);
    bsa_page_index head = bsa_page_of(section, address);
    bsa_status status = BSA_NOT_ALLOCATED;
    uint64_t word;

    pages = pages == 0 ? 1 : pages;
    if (pages > (uint64_t)1 << BSA_MAX_ORDER) {
        return BSA_NO_MEMORY;
    }
    bsa_lock_pages(root);
    word = bsa_word_at(section, head);
    if (bsa_word_state(word) == BSA_PAGES) {
        status = resize_head(root, section, head, word, pages_to_keep(word, pages), bytes);
    }
    bsa_unlock_pages(root);
    return status;
}

/* --- low memory --------------------------------------------------------------------------------
 */

#define LOW_MEMORY_END ((uint64_t)1 << 32)

static bool ends_low(uint64_t physical, uint64_t bytes) {
    return physical <= LOW_MEMORY_END && bytes <= LOW_MEMORY_END - physical;
}

/* Physical address of the page: known, or asked for with no lock held. */
static bool translate(const struct bsa_section *section, bsa_page_index page, uint64_t *physical) {
    const struct bsa_section_derived *derived = &section->derived;
    uintptr_t address = bsa_page_address(section, page);

    if (derived->physical_is_linear) {
        *physical = derived->physical_base + ((uint64_t)page << section->page_shift);
        return true;
    }
    if (derived->physical != NULL) {
        return derived->physical(derived->physical_context, address, physical);
    }
    *physical = address;
    return true;
}

static bool next_candidate(struct bsa_root *root, struct bsa_section *section,
                           const struct bsa_page_request *request, bsa_page_index *page) {
    bool found;

    bsa_lock_pages(root);
    found = bsa_buddy_next_free(section, request->order, request->align_order, page);
    bsa_unlock_pages(root);
    return found;
}

/* Takes the candidate if it is still free and within the limit. */
static bool take_candidate(struct bsa_root *root, const struct bsa_page_request *request,
                           struct bsa_slab block, uintptr_t *address) {
    bool taken;

    bsa_lock_pages(root);
    taken = within_limit(root, request->count) &&
            bsa_buddy_take_at(block.section, request->order, block.head);
    if (taken) {
        *address = make_live(root, request, block);
    }
    bsa_unlock_pages(root);
    return taken;
}

static bsa_status take_low_from(struct bsa_root *root, const struct bsa_page_request *request,
                                struct bsa_section *section, uintptr_t *address) {
    uint64_t bytes = block_bytes(root, (uint64_t)1 << request->order), physical;
    struct bsa_slab block = {section, 0};

    while (next_candidate(root, section, request, &block.head)) {
        if (!translate(section, block.head, &physical)) {
            return BSA_NO_TRANSLATION;
        }
        if (ends_low(physical, bytes) && take_candidate(root, request, block, address)) {
            return BSA_OK;
        }
        block.head += (bsa_page_index)1 << request->order;
    }
    return BSA_NO_MEMORY;
}

static struct bsa_section *following_section(struct bsa_root *root, struct bsa_section *section) {
    bsa_lock_pages(root);
    section = section == NULL ? bsa_first_section(root) : bsa_next_section(root, section);
    bsa_unlock_pages(root);
    return section;
}

bsa_status bsa_pages_take_low(struct bsa_root *root, const struct bsa_page_request *request,
                              uintptr_t *address) {
    struct bsa_section *section = NULL;
    bsa_status status = BSA_NO_MEMORY;

    while (status == BSA_NO_MEMORY && (section = following_section(root, section)) != NULL) {
        status = take_low_from(root, request, section, address);
    }
    return status;
}
