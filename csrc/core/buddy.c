/* Buddy allocator: blocks of 2^order pages, split on demand, merged on free.
 *
 * Knowlton 1965; Knuth, TAOCP vol. 1, 2.5, algorithms R and S. Taking and freeing touch at most
 * BSA_MAX_ORDER descriptors; over-aligned requests that no large block serves also look through the
 * lists of the orders below their alignment's. Blocks are naturally aligned in nominal page
 * numbers, so that the buddy's number is one bit away and lies in the same section or nowhere.
 *
 * Policy: the smallest order that fits is split, lower half first, last freed first within an
 * order.
 *
 * The block taken last. If it is freed before anything else has changed, all is as before it was
 * taken; so the same request gets it again, and splits what was merged just now. Therefore the
 * block that comes back is only marked free, and its merging is put off: the same request takes it
 * as it lies, in O(1), and everything else merges it first, which is called settling. Nobody can
 * tell the difference. Each function here that changes free lists begins with begin_change(), which
 * forgets the block and settles; whoever only looks settles.
 *
 * Truth: the page words (page.h). Derived from it, and rebuilt by bsa_buddy_rebuild(): free
 * lists, order mask, counters. Locking: every function here runs under the root's page lock. */
#include "buddy.h"

static uint32_t pages_of(unsigned order) {
    return (uint32_t)1 << order;
}

/* --- free lists --------------------------------------------------------------------------------
 */

static BSA_FAST_PATH void list_push(struct bsa_section *section, bsa_page_index head,
                                    unsigned order) {
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

/* As list_push, to an empty list; the mask is the caller's to set. */
static BSA_FAST_PATH void list_start(struct bsa_section *section, bsa_page_index head,
                                     unsigned order) {
    struct bsa_page *page = bsa_page_at(section, head);

    page->prev = page->next = BSA_NO_PAGE;
    section->derived.free_list[order] = bsa_number_of(section, head);
    section->derived.free_count[order] = 1;
}

static BSA_FAST_PATH void list_remove(struct bsa_section *section, bsa_page_index head,
                                      unsigned order) {
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

static BSA_FAST_PATH void set_free(struct bsa_section *section, bsa_page_index head,
                                   unsigned order) {
    bsa_buddy_set_block(section, head, BSA_FREE, order);
}

/* What every change of the free lists begins with: what is known of the block taken last, and was
 * put off, holds no longer. */
static BSA_FAST_PATH void begin_change(struct bsa_section *section) {
    if (section->derived.last.head.value != 0) {
        bsa_buddy_forget_last(section);
    }
}

/* --- splitting ---------------------------------------------------------------------------------
 */

/* Makes the lower end of the free, unlisted block a claimed one of 2^order pages; what is above it
 * goes to the free lists. All new heads are written before the one they come from shrinks, at once.
 * Where the smallest order that fits is split, which is nearly always, all these lists are empty.
 */
static BSA_FAST_PATH void keep_lower_end(struct bsa_section *section, bsa_page_index head,
                                         unsigned from, unsigned order) {
    uint32_t halves = pages_of(from) - pages_of(order); /* a bit for each order */
    bool lists_are_empty = (section->derived.free_mask & halves) == 0;

    bsa_raise_high_water(section, head + (from > order ? pages_of(from - 1) : 0) + 1);
    for (unsigned half = from; half-- > order;) {
        set_free(section, head + pages_of(half), half);
        if (BSA_LIKELY(lists_are_empty)) {
            list_start(section, head + pages_of(half), half);
        } else {
            list_push(section, head + pages_of(half), half);
        }
    }
    section->derived.free_mask |= halves;
    bsa_buddy_set_block(section, head, BSA_CLAIMED, order);
    bsa_buddy_count_free(section, 0U - pages_of(order));
}

/* Halves the free, unlisted block `*head` of order `*order` until one part starts at `target`, and
 * leaves that in `*head`; the other halves go to the free lists. */
static void split_towards(struct bsa_section *section, bsa_page_index *head, unsigned *order,
                          bsa_page_index target) {
    while (*head != target) {
        bsa_page_index upper = *head + pages_of(--*order), other = upper;

        bsa_raise_high_water(section, upper + 1);
        set_free(section, upper, *order); /* the new head before the old shrinks */
        set_free(section, *head, *order);
        if (target >= upper) {
            other = *head;
            *head = upper;
        }
        list_push(section, other, *order);
    }
}

/* Turns the part of 2^order pages at `target` of a listed free block into a block being made. */
static void carve(struct bsa_section *section, bsa_page_index block, bsa_page_index target,
                  unsigned order) {
    unsigned from = bsa_word_order(bsa_word_at(section, block));

    list_remove(section, block, from);
    split_towards(section, &block, &from, target);
    keep_lower_end(section, block, from, order);
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

/* Takes the first block of a list, or its lower end of 2^order pages. */
static BSA_FAST_PATH bsa_page_index take_first(struct bsa_section *section, unsigned from,
                                               unsigned order) {
    bsa_page_index head = bsa_index_of(section, section->derived.free_list[from]);

    list_remove(section, head, from);
    keep_lower_end(section, head, from, order);
    return head;
}

BSA_APART bool bsa_buddy_take_listed(struct bsa_section *section, unsigned order, unsigned least,
                                     bsa_page_index *head) {
    uint32_t orders;

    begin_change(section);
    orders = least > BSA_MAX_ORDER ? 0 : section->derived.free_mask & (0xffffffffU << least);
    /* From the alignment's order up, any block does: it is naturally aligned. */
    if (BSA_LIKELY(orders != 0)) {
        *head = take_first(section, bsa_lowest_bit(orders), order);
        section->derived.last = (struct bsa_last_block){bsa_number_of(section, *head),
                                                        (uint8_t)order, (uint8_t)least, false};
        return true;
    }
    if (!find_aligned_small(section, order, least, head)) {
        return false;
    }
    carve(section, *head, *head, order);
    return true;
}

bool bsa_buddy_take_some(struct bsa_section *section, unsigned order, unsigned most,
                         bsa_page_index *head, unsigned *taken) {
    uint32_t orders;
    unsigned from;

    begin_change(section);
    orders = section->derived.free_mask & (0xffffffffU << order);
    if (orders == 0) {
        return false;
    }
    from = bsa_lowest_bit(orders);
    *taken = from < most ? from : most;
    *head = take_first(section, from, *taken);
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

bool bsa_buddy_next_free(struct bsa_section *section, unsigned order, unsigned align_order,
                         bsa_page_index *page) {
    unsigned step = align_order > order ? align_order : order;

    bsa_buddy_settle(section);
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
    bsa_page_index block;
    uint64_t word;

    begin_change(section);
    block = bsa_block_of(section, page);
    word = bsa_word_at(section, block);
    if (bsa_word_state(word) != BSA_FREE || bsa_word_order(word) < order) {
        return false;
    }
    carve(section, block, page, order);
    return true;
}

void bsa_buddy_cut(struct bsa_section *section, bsa_page_index head, unsigned order,
                   uint32_t pieces, uint64_t word) {
    BSA_ASSERT(section->derived.last.head.value == 0); /* the block comes from take_some */
    bsa_raise_high_water(section, head + ((pieces - 1) << order) + 1);
    while (pieces-- > 0) {
        bsa_page_set_word(bsa_page_at(section, head + (pieces << order)), word);
    }
}

/* --- merging -----------------------------------------------------------------------------------
 */

/* Whether a free block of 2^order pages starts at `page`, and that is before `end`. */
static bool is_free_block(const struct bsa_section *section, uint64_t page, unsigned order,
                          bsa_page_index end) {
    return page < end && bsa_word_at(section, (bsa_page_index)page) ==
                             bsa_block_word(BSA_FREE, order, pages_of(order));
}

/* Makes the block of 2^order pages a free one of 2^grown pages, all of whose parts are unlisted.
 * The survivor grows before the absorbed heads go. */
static void merge(struct bsa_section *section, bsa_page_index head, unsigned order,
                  unsigned grown) {
    uint64_t first = bsa_nominal_page(section, 0), at = first + head;

    set_free(section, (bsa_page_index)(bsa_round_down(at, pages_of(grown)) - first), grown);
    for (; order < grown; order++) {
        bsa_page_set_word(bsa_page_at(section, (bsa_page_index)((at | pages_of(order)) - first)),
                          0);
        at = bsa_round_down(at, pages_of(order + 1));
    }
}

/* Lists a block of 2^order pages that is nobody's any more, merged as far as its buddies are free.
 * Blocks from `end` on are left alone. Its pages are the caller's to count. */
static void list_merged(struct bsa_section *section, bsa_page_index head, unsigned order,
                        bsa_page_index end) {
    uint64_t first = bsa_nominal_page(section, 0), at = first + head;
    unsigned grown = order;

    for (; grown < BSA_MAX_ORDER; grown++) {
        uint64_t buddy = (at ^ pages_of(grown)) - first; /* huge where it lies before the heap */

        if (!is_free_block(section, buddy, grown, end)) {
            break;
        }
        list_remove(section, (bsa_page_index)buddy, grown);
        at &= ~(uint64_t)pages_of(grown);
    }
    merge(section, head, order, grown);
    list_push(section, (bsa_page_index)(at - first), grown);
}

BSA_APART void bsa_buddy_shrink(struct bsa_section *section, bsa_page_index head, uint32_t count) {
    uint64_t word = bsa_word_at(section, head);
    enum bsa_head_state state = bsa_word_state(word);
    uint32_t have = bsa_word_count(word);

    BSA_ASSERT(count > 0 && count <= have);
    begin_change(section);
    while (have > count) {
        /* The largest piece at the end that is naturally aligned and leaves enough. */
        unsigned order = bsa_log2_floor(have - count), aligned = bsa_lowest_bit(have);

        order = order < aligned ? order : aligned;
        have -= pages_of(order);
        bsa_raise_high_water(section, head + have + 1);
        set_free(section, head + have, order);
        set_head(section, head, state, have);
        bsa_buddy_count_free(section, pages_of(order));
        list_merged(section, head + have, order, section->total_pages);
    }
}

BSA_APART BSA_FLAT void bsa_buddy_release_listed(struct bsa_section *section, bsa_page_index head) {
    uint32_t count = bsa_word_count(bsa_word_at(section, head));
    unsigned order = bsa_log2_floor(count);

    BSA_ASSERT(bsa_word_state(bsa_word_at(section, head)) != BSA_INSIDE &&
               bsa_word_state(bsa_word_at(section, head)) != BSA_FREE);
    begin_change(section);
    if (BSA_UNLIKELY(count != pages_of(order))) {
        bsa_buddy_shrink(section, head, pages_of(order));
    }
    bsa_buddy_count_free(section, pages_of(order));
    list_merged(section, head, order, section->total_pages);
}

BSA_APART void bsa_buddy_forget_last(struct bsa_section *section) {
    struct bsa_last_block last = section->derived.last;

    section->derived.last = (struct bsa_last_block){0};
    if (last.is_back) {
        list_merged(section, bsa_index_of(section, last.head), last.order, section->total_pages);
    }
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
    uint64_t word = bsa_word_at(section, head);
    uint32_t have = bsa_word_count(word);
    bsa_page_index end;

    if (count > section->total_pages - head || !is_aligned(section, head, bsa_log2_ceil(count))) {
        return false;
    }
    begin_change(section);
    end = free_run_end(section, head + have, head + count);
    if (end == 0) {
        return false;
    }
    set_head(section, head, bsa_word_state(word), end - head);
    for (bsa_page_index page = head + have; page < end;) {
        uint64_t absorbed = bsa_word_at(section, page);

        list_remove(section, page, bsa_word_order(absorbed));
        bsa_buddy_count_free(section, 0U - bsa_word_count(absorbed));
        bsa_page_set_word(bsa_page_at(section, page), 0);
        page += bsa_word_count(absorbed);
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
        bsa_buddy_count_free(section, pages_of(order));
    }
}

/* Clears the words of pages inside the block that claim to be heads. */
static void clear_inside(struct bsa_section *section, bsa_page_index head, uint32_t count) {
    for (bsa_page_index page = head + 1; page < head + count && page < section->high_water;
         page++) {
        bsa_page_set_word(bsa_page_at(section, page), 0);
    }
}

static bool head_is_plausible(const struct bsa_section *section, bsa_page_index head,
                              uint64_t word) {
    uint32_t count = bsa_word_count(word);

    return bsa_word_state(word) != BSA_INSIDE && bsa_word_state(word) <= BSA_CLAIMED &&
           count != 0 && count <= section->total_pages - head &&
           bsa_word_order(word) == bsa_log2_ceil(count) && bsa_word_order(word) <= BSA_MAX_ORDER &&
           is_aligned(section, head, bsa_word_order(word)) &&
           (bsa_word_state(word) == BSA_PAGES || bsa_word_state(word) == BSA_CLAIMED ||
            bsa_is_power_of_two(count));
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
    derived->last = (struct bsa_last_block){0};
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
        if (bsa_word_state(word) == BSA_CLAIMED) {
            set_head(section, head, BSA_PAGES, count);
        } else if (bsa_word_state(word) != BSA_PAGES && bsa_word_state(word) != BSA_SLAB) {
            /* Free; no object was in one that was changing. The rest is not listed yet. */
            bsa_buddy_count_free(section, count);
            list_merged(section, head, bsa_word_order(word), head);
        }
    }
}
