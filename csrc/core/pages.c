/* The page layer of the facade: blocks from the first section that has one, under the limit.
 *
 * Sections are tried in order of registration: O(sections) where the first ones are full. Locking:
 * the page lock within each function; none is held on return. */
#include "root.h"

static bool within_limit(const struct bsa_root *root, uint64_t pages) {
    uint64_t limit = atomic_load_explicit(&root->limit_pages, memory_order_relaxed);

    return limit >= root->allocated_pages && pages <= limit - root->allocated_pages;
}

static size_t block_bytes(const struct bsa_root *root, uint64_t pages) {
    return (size_t)(pages << root->space.classes.page_shift);
}

static void count_pages(struct bsa_root *root, uint64_t more) {
    root->allocated_pages += more;
    if (root->peak_pages < root->allocated_pages) {
        root->peak_pages = root->allocated_pages;
    }
}

/* Trims the block just taken to the pages asked for, and counts it. */
static void finish_take(struct bsa_root *root, const struct bsa_page_request *request,
                        struct bsa_slab block) {
    bsa_buddy_shrink(block.section, block.head, request->count);
    count_pages(root, request->count);
    if (request->requested == BSA_FOR_SLAB) {
        bsa_page_set_word(bsa_slab_page(block),
                          bsa_block_word(BSA_CHANGING, request->order, request->count));
    } else {
        size_t bytes = block_bytes(root, request->count);

        bsa_slab_page(block)->requested = request->requested;
        root->page_slack += bytes - request->requested;
        root->per_order[request->order].live++;
        root->per_order[request->order].total++;
        root->total_blocks++;
        root->total_block_bytes += bytes;
        bsa_tally_add(bsa_page_tally(root), 1, bytes);
        bsa_unpoison_new(block.section, bsa_page_address(block.section, block.head), bytes);
    }
}

bool bsa_pages_take(struct bsa_root *root, const struct bsa_page_request *request,
                    struct bsa_slab *block) {
    struct bsa_section *section;
    bool taken = false;

    bsa_lock_pages(root);
    if (within_limit(root, request->count)) {
        for (section = bsa_first_section(root); section != NULL && !taken;
             section = bsa_next_section(root, section)) {
            block->section = section;
            taken = bsa_buddy_take(section, request->order, request->align_order, &block->head);
        }
    }
    if (taken) {
        finish_take(root, request, *block);
    }
    bsa_unlock_pages(root);
    return taken;
}

/* Under the page lock. */
static void give_back(struct bsa_root *root, struct bsa_slab block, bool was_slab) {
    struct bsa_page *page = bsa_slab_page(block);
    uint64_t word = bsa_page_word(page), count = bsa_word_count(word);

    root->allocated_pages -= count;
    if (!was_slab) {
        size_t bytes = block_bytes(root, count);

        root->page_slack -= bytes - page->requested;
        root->per_order[bsa_word_order(word)].live--;
        bsa_tally_remove(bsa_page_tally(root), 1, bytes);
        bsa_poison(block.section, bsa_page_address(block.section, block.head), bytes);
    }
    bsa_buddy_release(block.section, block.head);
}

void bsa_pages_give_back(struct bsa_root *root, struct bsa_slab block, bool was_slab) {
    bsa_lock_pages(root);
    give_back(root, block, was_slab);
    bsa_unlock_pages(root);
}

BSA_SLOW_PATH size_t bsa_give_back_retired(struct bsa_root *root, struct bsa_cache *cache) {
    struct bsa_slab slab;
    size_t pages = 0;

    while (bsa_cache_take_retired(&root->space, cache, &slab)) {
        pages += bsa_word_count(bsa_page_word(bsa_slab_page(slab)));
        bsa_pages_give_back(root, slab, true);
    }
    return pages;
}

BSA_SLOW_PATH bsa_status bsa_pages_free(struct bsa_root *root, struct bsa_section *section,
                                        uintptr_t address, size_t count, size_t *bytes) {
    bsa_page_index head = bsa_page_of(section, address);
    bool aligned = address % ((uintptr_t)1 << section->page_shift) == 0;
    bsa_status status = BSA_OK;
    uint64_t word;

    bsa_lock_pages(root);
    word = bsa_word_at(section, aligned ? head : bsa_block_of(section, head));
    if (bsa_word_state(word) == BSA_PAGES && !aligned) {
        status = BSA_INVALID_PARAM;
    } else if (bsa_word_state(word) != BSA_PAGES) {
        status = BSA_NOT_ALLOCATED;
    } else if (count > bsa_word_count(word)) {
        status = BSA_INVALID_PARAM;
    } else {
        *bytes = block_bytes(root, bsa_word_count(word));
        give_back(root, (struct bsa_slab){section, head}, false);
    }
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

    root->page_slack += (new_bytes - bytes) - (old_bytes - page->requested);
    page->requested = bytes;
    root->per_order[bsa_word_order(before)].live--;
    root->per_order[bsa_word_order(after)].live++;
    root->per_order[bsa_word_order(after)].total += bsa_word_order(after) != bsa_word_order(before);
    root->allocated_pages -= bsa_word_count(before);
    count_pages(root, bsa_word_count(after));
    bsa_tally_add(bsa_page_tally(root), 0, new_bytes - old_bytes);
}

bsa_status bsa_pages_resize(struct bsa_root *root, struct bsa_section *section, uintptr_t address,
                            uint64_t bytes) {
    uint64_t page_bytes = (uint64_t)1 << section->page_shift;
    uint64_t pages = (bytes >> section->page_shift) + (bytes % page_bytes != 0);
    bsa_page_index head = bsa_page_of(section, address);
    bsa_status status = BSA_OK;
    uint64_t word;
    uint32_t have, keep;

    pages = pages == 0 ? 1 : pages;
    if (pages > (uint64_t)1 << BSA_MAX_ORDER) {
        return BSA_NO_MEMORY;
    }
    bsa_lock_pages(root);
    word = bsa_word_at(section, head);
    have = bsa_word_count(word);
    keep = pages_to_keep(word, pages);
    if (bsa_word_state(word) != BSA_PAGES) {
        status = BSA_NOT_ALLOCATED;
    } else if (keep <= have) {
        bsa_buddy_shrink(section, head, keep);
        bsa_poison(section, address + (keep * page_bytes), (have - keep) * page_bytes);
    } else if (!within_limit(root, keep - have) || !bsa_buddy_grow(section, head, keep)) {
        status = BSA_NO_MEMORY;
    }
    if (status == BSA_OK) {
        recount(root, bsa_page_at(section, head), word, bytes);
        if (keep > have) {
            bsa_unpoison_new(section, address + have * page_bytes, (keep - have) * page_bytes);
        }
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
                           struct bsa_slab block) {
    bool taken;

    bsa_lock_pages(root);
    taken = within_limit(root, request->count) &&
            bsa_buddy_take_at(block.section, request->order, block.head);
    if (taken) {
        finish_take(root, request, block);
    }
    bsa_unlock_pages(root);
    return taken;
}

static bsa_status take_low_from(struct bsa_root *root, const struct bsa_page_request *request,
                                struct bsa_slab *block) {
    uint64_t bytes = block_bytes(root, (uint64_t)1 << request->order), physical;

    while (next_candidate(root, block->section, request, &block->head)) {
        if (!translate(block->section, block->head, &physical)) {
            return BSA_NO_TRANSLATION;
        }
        if (ends_low(physical, bytes) && take_candidate(root, request, *block)) {
            return BSA_OK;
        }
        block->head += (bsa_page_index)1 << request->order;
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
                              struct bsa_slab *block) {
    bsa_status status = BSA_NO_MEMORY;

    block->section = NULL;
    while (status == BSA_NO_MEMORY &&
           (block->section = following_section(root, block->section)) != NULL) {
        block->head = 0;
        status = take_low_from(root, request, block);
    }
    return status;
}
