/* Buddy allocator: blocks of 2^order pages, split on demand, merged on free.
 *
 * Knowlton 1965; Knuth, TAOCP vol. 1, 2.5, algorithms R and S. Taking and freeing touch at most
 * BSA_MAX_ORDER descriptors; over-aligned requests that no large block serves also look through the
 * lists of the orders below their alignment's. Blocks are naturally aligned in nominal page
 * numbers, so that the buddy's number is one bit away and lies in the same section or nowhere.
 *
 * Policy: the smallest order that fits is split, lower half first, last freed first within an
 * order. Truth: the page words (page.h). Derived from it, and rebuilt by bsa_buddy_rebuild(): free
 * lists, order mask, counters. Locking: every function here runs under the root's page lock. */
#include "buddy.h"

static uint32_t pages_of(unsigned order) {
    return (uint32_t)1 << order;
}

/* --- free lists --------------------------------------------------------------------------------
 */

static void list_push(struct bsa_section *section, bsa_page_index head, unsigned order) {
    struct bsa_section_derived *derived = &section->derived;
    struct bsa_page *page = bsa_page_at(section, head);
    bsa_page_no first = derived->free_list[order];

    page->prev = BSA_NO_PAGE;
    page->next = first;
    if (first.value != 0) {
        bsa_page_at(section, bsa_index_of(section, first))->prev = bsa_number_of(section, head);
    }
    derived->free_list[order] = bsa_number_of(section, head);
    derived->free_count[order]++;
    derived->free_mask |= (uint32_t)1 << order;
}

static void list_remove(struct bsa_section *section, bsa_page_index head, unsigned order) {
    struct bsa_section_derived *derived = &section->derived;
    const struct bsa_page *page = bsa_page_at(section, head);

    if (page->prev.value != 0) {
        bsa_page_at(section, bsa_index_of(section, page->prev))->next = page->next;
    } else {
        derived->free_list[order] = page->next;
    }
    if (page->next.value != 0) {
        bsa_page_at(section, bsa_index_of(section, page->next))->prev = page->prev;
    }
    if (--derived->free_count[order] == 0) {
        derived->free_mask &= ~((uint32_t)1 << order);
    }
}

static void set_head(struct bsa_section *section, bsa_page_index head, enum bsa_head_state state,
                     uint32_t count) {
    bsa_page_set_word(bsa_page_at(section, head),
                      bsa_block_word(state, bsa_log2_ceil(count), count));
}

/* The same for a free block of 2^order pages. */
static void set_free(struct bsa_section *section, bsa_page_index head, unsigned order) {
    bsa_page_set_word(bsa_page_at(section, head), bsa_block_word(BSA_FREE, order, pages_of(order)));
}

static void count_free(struct bsa_section *section, uint32_t more) {
    _Atomic uint32_t *free_pages = &section->derived.free_pages;

    atomic_store_explicit(free_pages, atomic_load_explicit(free_pages, memory_order_relaxed) + more,
                          memory_order_relaxed);
}

/* --- splitting ---------------------------------------------------------------------------------
 */

/* Halves the free, unlisted block `*head` until the part of `order` that holds `target` is left in
 * `*head`; the other halves go to the free lists. */
static void split_towards(struct bsa_section *section, bsa_page_index *head, unsigned from,
                          unsigned order, bsa_page_index target) {
    while (from > order) {
        bsa_page_index upper = *head + pages_of(--from), other = upper;

        bsa_raise_high_water(section, upper + 1);
        set_free(section, upper, from); /* the new head before the old shrinks */
        set_free(section, *head, from);
        if (target >= upper) {
            other = *head;
            *head = upper;
        }
        list_push(section, other, from);
    }
}

/* Turns the part of 2^order pages at `target` of a listed free block into a live block. */
static void carve(struct bsa_section *section, bsa_page_index block, bsa_page_index target,
                  unsigned order) {
    unsigned from = bsa_word_order(bsa_word_at(section, block));

    list_remove(section, block, from);
    split_towards(section, &block, from, order, target);
    BSA_ASSERT(block == target);
    bsa_raise_high_water(section, block + 1);
    set_head(section, block, BSA_PAGES, pages_of(order));
    count_free(section, 0U - pages_of(order));
}

static bool is_aligned(const struct bsa_section *section, bsa_page_index page,
                       unsigned align_order) {
    return (bsa_nominal_page(section, page) & (((uint64_t)1 << align_order) - 1)) == 0;
}

/* A listed block below the alignment's order that happens to start aligned. Being smaller than the
 * alignment and naturally aligned, a block can only be aligned at its start. */
static bool find_aligned_small(const struct bsa_section *section, unsigned order,
                               unsigned align_order, bsa_page_index *block) {
    for (; order < align_order && order <= BSA_MAX_ORDER; order++) {
        bsa_page_no at = section->derived.free_list[order];

        for (; at.value != 0; at = bsa_page_at(section, bsa_index_of(section, at))->next) {
            *block = bsa_index_of(section, at);
            if (is_aligned(section, *block, align_order)) {
                return true;
            }
        }
    }
    return false;
}

bool bsa_buddy_take(struct bsa_section *section, unsigned order, unsigned align_order,
                    bsa_page_index *head) {
    unsigned least = align_order > order ? align_order : order;
    uint32_t orders =
        least > BSA_MAX_ORDER ? 0 : section->derived.free_mask & (0xffffffffU << least);

    /* From the alignment's order up, any block does: it is naturally aligned. */
    if (orders != 0) {
        *head = bsa_index_of(section, section->derived.free_list[bsa_lowest_bit(orders)]);
    } else if (!find_aligned_small(section, order, align_order, head)) {
        return false;
    }
    carve(section, *head, *head, order);
    return true;
}

bsa_page_index bsa_block_of(const struct bsa_section *section, bsa_page_index page) {
    uint64_t nominal = bsa_nominal_page(section, page), first = bsa_nominal_page(section, 0);

    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        uint64_t start = bsa_round_down(nominal, pages_of(order));
        bsa_page_index head = (bsa_page_index)(start - first);
        uint64_t word;

        if (start < first) {
            break;
        }
        word = bsa_word_at(section, head);
        if (bsa_word_state(word) != BSA_INSIDE && page - head < bsa_word_count(word)) {
            return head;
        }
    }
    BSA_ASSERT(false); /* heads tile the heap */
    return page;
}

/* Rounds up to the alignment; false where the section ends before. */
static bool align_page(const struct bsa_section *section, unsigned align_order,
                       bsa_page_index *page) {
    uint64_t nominal = bsa_nominal_page(section, *page);
    uint64_t up = bsa_round_up(nominal, (uint64_t)1 << align_order);

    if (up - nominal >= section->total_pages - *page) {
        return false;
    }
    *page += (uint32_t)(up - nominal);
    return true;
}

bool bsa_buddy_next_free(const struct bsa_section *section, unsigned order, unsigned align_order,
                         bsa_page_index *page) {
    unsigned step = align_order > order ? align_order : order;

    while (*page < section->total_pages && align_page(section, step, page)) {
        bsa_page_index head = bsa_block_of(section, *page);
        uint64_t word = bsa_word_at(section, head);

        if (bsa_word_state(word) == BSA_FREE && bsa_word_order(word) >= order) {
            return true;
        }
        *page = head + bsa_word_count(word);
    }
    return false;
}

bool bsa_buddy_take_at(struct bsa_section *section, unsigned order, bsa_page_index page) {
    bsa_page_index block = bsa_block_of(section, page);
    uint64_t word = bsa_word_at(section, block);

    if (bsa_word_state(word) != BSA_FREE || bsa_word_order(word) < order) {
        return false;
    }
    carve(section, block, page, order);
    return true;
}

/* --- merging -----------------------------------------------------------------------------------
 */

/* Whether the buddy of the block is free and whole; `*buddy` receives it. */
static bool buddy_is_free(const struct bsa_section *section, bsa_page_index head, unsigned order,
                          bsa_page_index *buddy) {
    uint64_t first = bsa_nominal_page(section, 0);
    uint64_t other = bsa_nominal_page(section, head) ^ pages_of(order);

    if (other < first || other - first >= section->total_pages) {
        return false;
    }
    *buddy = (bsa_page_index)(other - first);
    return bsa_word_at(section, *buddy) == bsa_block_word(BSA_FREE, order, pages_of(order));
}

/* Makes one free block of two unlisted ones; the survivor grows before the absorbed head goes. */
static bsa_page_index merge(struct bsa_section *section, bsa_page_index a, bsa_page_index b,
                            unsigned order) {
    bsa_page_index lower = a < b ? a : b, upper = a < b ? b : a;

    set_free(section, lower, order + 1);
    bsa_page_set_word(bsa_page_at(section, upper), 0);
    return lower;
}

/* Lists a block of 2^order pages whose head says BSA_FREE, merged as far as its buddies are free.
 */
static void list_merged(struct bsa_section *section, bsa_page_index head, unsigned order) {
    bsa_page_index buddy;

    count_free(section, pages_of(order));
    while (order < BSA_MAX_ORDER && buddy_is_free(section, head, order, &buddy)) {
        list_remove(section, buddy, order);
        head = merge(section, head, buddy, order++);
    }
    list_push(section, head, order);
}

void bsa_buddy_shrink(struct bsa_section *section, bsa_page_index head, uint32_t count) {
    uint32_t have = bsa_word_count(bsa_word_at(section, head));

    BSA_ASSERT(count > 0 && count <= have);
    while (have > count) {
        /* The largest piece at the end that is naturally aligned and leaves enough. */
        unsigned order = bsa_log2_floor(have - count), aligned = bsa_lowest_bit(have);

        order = order < aligned ? order : aligned;
        have -= pages_of(order);
        bsa_raise_high_water(section, head + have + 1);
        set_free(section, head + have, order);
        set_head(section, head, BSA_PAGES, have);
        list_merged(section, head + have, order);
    }
}

void bsa_buddy_release(struct bsa_section *section, bsa_page_index head) {
    uint32_t count = bsa_word_count(bsa_word_at(section, head));
    unsigned order = bsa_log2_floor(count);

    BSA_ASSERT(bsa_word_state(bsa_word_at(section, head)) == BSA_PAGES ||
               bsa_word_state(bsa_word_at(section, head)) == BSA_CHANGING);
    bsa_buddy_shrink(section, head, pages_of(order));
    set_free(section, head, order);
    list_merged(section, head, order);
}

/* End of the run of free blocks from `page` that reaches `end`; 0 if it does not. */
static bsa_page_index free_run_end(const struct bsa_section *section, bsa_page_index page,
                                   bsa_page_index end) {
    while (page < end) {
        uint64_t word = bsa_word_at(section, page);

        if (bsa_word_state(word) != BSA_FREE) {
            return 0;
        }
        page += bsa_word_count(word);
    }
    return page;
}

bool bsa_buddy_grow(struct bsa_section *section, bsa_page_index head, uint32_t count) {
    uint32_t have = bsa_word_count(bsa_word_at(section, head));
    bsa_page_index end;

    if (count > section->total_pages - head || !is_aligned(section, head, bsa_log2_ceil(count))) {
        return false;
    }
    end = free_run_end(section, head + have, head + count);
    if (end == 0) {
        return false;
    }
    set_head(section, head, BSA_PAGES, end - head);
    for (bsa_page_index page = head + have; page < end;) {
        uint64_t word = bsa_word_at(section, page);

        list_remove(section, page, bsa_word_order(word));
        count_free(section, 0U - bsa_word_count(word));
        bsa_page_set_word(bsa_page_at(section, page), 0);
        page += bsa_word_count(word);
    }
    bsa_buddy_shrink(section, head, count);
    return true;
}

/* --- set-up ------------------------------------------------------------------------------------
 */

/* The order of the largest naturally aligned block that ends at `end` and starts at 0 or later. */
static unsigned last_block_order(const struct bsa_section *section, uint32_t end) {
    uint64_t nominal_end = bsa_nominal_page(section, 0) + end;
    unsigned order = bsa_lowest_bit(nominal_end);

    order = order < BSA_MAX_ORDER ? order : BSA_MAX_ORDER;
    while (pages_of(order) > end) {
        order--;
    }
    return order;
}

void bsa_buddy_cover(struct bsa_section *section) {
    /* From the end, so that the lists start in address order. */
    for (uint32_t end = section->total_pages; end > 0;) {
        unsigned order = last_block_order(section, end);

        end -= pages_of(order);
        set_free(section, end, order);
        list_push(section, end, order);
        count_free(section, pages_of(order));
    }
}

/* Clears the words of pages inside the block that claim to be heads. */
static void clear_inside(struct bsa_section *section, bsa_page_index head, uint32_t count) {
    for (bsa_page_index page = head + 1; page < head + count && page < section->high_water;
         page++) {
        bsa_page_set_word(bsa_page_at(section, page), 0);
    }
}

/* Lists a free block whose lower neighbours are listed already, merged with those that are its
 * buddies. */
static void relist_free(struct bsa_section *section, bsa_page_index head, unsigned order) {
    bsa_page_index buddy;

    count_free(section, pages_of(order));
    while (order < BSA_MAX_ORDER && buddy_is_free(section, head, order, &buddy) && buddy < head) {
        list_remove(section, buddy, order);
        head = merge(section, head, buddy, order++);
    }
    list_push(section, head, order);
}

static bool head_is_plausible(const struct bsa_section *section, bsa_page_index head,
                              uint64_t word) {
    uint32_t count = bsa_word_count(word);

    return bsa_word_state(word) != BSA_INSIDE && bsa_word_state(word) <= BSA_CHANGING &&
           count != 0 && count <= section->total_pages - head &&
           bsa_word_order(word) == bsa_log2_ceil(count) && bsa_word_order(word) <= BSA_MAX_ORDER &&
           is_aligned(section, head, bsa_word_order(word)) &&
           (bsa_word_state(word) == BSA_PAGES || bsa_is_power_of_two(count));
}

bool bsa_buddy_is_tiled(const struct bsa_section *section) {
    bsa_page_index head = 0;

    while (head < section->total_pages) {
        uint64_t word = bsa_word_at(section, head);

        if (!head_is_plausible(section, head, word)) {
            return false;
        }
        head += bsa_word_count(word);
    }
    return true;
}

void bsa_buddy_rebuild(struct bsa_section *section) {
    struct bsa_section_derived *derived = &section->derived;
    uint32_t count;

    memset(derived->free_list, 0, sizeof derived->free_list);
    memset(derived->free_count, 0, sizeof derived->free_count);
    derived->free_mask = 0;
    /* A name left in a page that was a slab once would keep one made there from ever being pushed.
     */
    for (bsa_page_index page = 0; page < section->high_water; page++) {
        atomic_store_explicit(&bsa_page_at(section, page)->summary, 0, memory_order_relaxed);
    }
    atomic_store_explicit(&derived->free_pages, 0, memory_order_relaxed);
    for (bsa_page_index head = 0; head < section->total_pages; head += count) {
        uint64_t word = bsa_word_at(section, head);

        count = bsa_word_count(word);
        if (bsa_word_state(word) != BSA_SLAB) {
            clear_inside(section, head, count);
        }
        if (bsa_word_state(word) == BSA_CHANGING) {
            set_head(section, head, BSA_FREE, count); /* no object was in it */
        }
        if (bsa_word_state(word) == BSA_FREE || bsa_word_state(word) == BSA_CHANGING) {
            relist_free(section, head, bsa_word_order(word));
        }
    }
}
