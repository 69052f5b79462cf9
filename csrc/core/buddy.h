/* The buddy allocator of one section. All functions run under the root's page lock. */
#ifndef BSA_BUDDY_H
#define BSA_BUDDY_H

#include "section.h"

/* Covers the heap with the largest naturally aligned blocks that fit; the section is new. */
void bsa_buddy_cover(struct bsa_section *section);

/* Writes the word of a block of 2^order pages. */
static BSA_FAST_PATH void bsa_buddy_set_block(struct bsa_section *section, bsa_page_index head,
                                              enum bsa_head_state state, unsigned order) {
    bsa_page_set_word(bsa_page_at(section, head),
                      bsa_block_word(state, order, (uint32_t)1 << order));
}

/* Counts free pages, which others may read meanwhile. */
static BSA_FAST_PATH void bsa_buddy_count_free(struct bsa_section *section, uint32_t more) {
    _Atomic uint32_t *free_pages = &section->derived.free_pages;

    atomic_store_explicit(free_pages, atomic_load_explicit(free_pages, memory_order_relaxed) + more,
                          memory_order_relaxed);
}

/* Forgets the block taken last, and merges it if that was put off. There is one. */
void bsa_buddy_forget_last(struct bsa_section *section);

/* Does what was put off. To be called before anything but these functions looks at free lists,
 * their counts or mask. */
static inline void bsa_buddy_settle(struct bsa_section *section) {
    if (section->derived.last.is_back) {
        bsa_buddy_forget_last(section);
    }
}

/* bsa_buddy_take from the free lists: `least` is the larger one of the request's orders. */
bool bsa_buddy_take_listed(struct bsa_section *section, unsigned order, unsigned least,
                           bsa_page_index *head);
/* bsa_buddy_release to the free lists. */
void bsa_buddy_release_listed(struct bsa_section *section, bsa_page_index head);

/* Takes a block of 2^order pages aligned to 2^align_order pages; its head says BSA_CLAIMED. */
static BSA_FAST_PATH bool bsa_buddy_take(struct bsa_section *section, unsigned order,
                                         unsigned align_order, bsa_page_index *head) {
    unsigned least = align_order > order ? align_order : order;
    struct bsa_last_block *last = &section->derived.last;

    if (BSA_UNLIKELY(!last->is_back || last->order != order || last->least != least)) {
        return bsa_buddy_take_listed(section, order, least, head);
    }
    *head = bsa_index_of(section, last->head);
    last->is_back = false;
    bsa_buddy_set_block(section, *head, BSA_CLAIMED, order);
    bsa_buddy_count_free(section, 0U - ((uint32_t)1 << order));
    return true;
}

/* Takes the smallest block of 2^order pages or more; of one of more than 2^most pages only so many.
 * `*taken` receives its order; its head says BSA_CLAIMED. */
bool bsa_buddy_take_some(struct bsa_section *section, unsigned order, unsigned most,
                         bsa_page_index *head, unsigned *taken);

/* Cuts a claimed block into that many pieces of 2^order pages. They all get the word, the first one
 * last, when it shrinks. */
void bsa_buddy_cut(struct bsa_section *section, bsa_page_index head, unsigned order,
                   uint32_t pieces, uint64_t word);

/* The first block at or after `*page` in address order that could be taken. */
bool bsa_buddy_next_free(struct bsa_section *section, unsigned order, unsigned align_order,
                         bsa_page_index *page);

/* Takes just that block of 2^order pages, if it still is free, as bsa_buddy_take does. `page` is a
 * multiple of its size. */
bool bsa_buddy_take_at(struct bsa_section *section, unsigned order, bsa_page_index page);

/* Frees the last pages of a block that is not free, so that `count` (at least 1, at most what it
 * has) remain.
 */
void bsa_buddy_shrink(struct bsa_section *section, bsa_page_index head, uint32_t count);

/* Grows a block that is not free to `count` pages, if the pages behind it are free and it is
 * aligned for its new order; else changes nothing. */
bool bsa_buddy_grow(struct bsa_section *section, bsa_page_index head, uint32_t count);

/* Frees a block that nobody else can free: it goes to the free lists, merged as far as its buddies
 * are free. That of the block taken last may be put off. */
static BSA_FAST_PATH void bsa_buddy_release(struct bsa_section *section, bsa_page_index head) {
    struct bsa_last_block *last = &section->derived.last;

    if (last->head.value != bsa_number_of(section, head).value) {
        bsa_buddy_release_listed(section, head);
        return;
    }
    BSA_ASSERT(!last->is_back);
    last->is_back = true;
    bsa_buddy_set_block(section, head, BSA_FREE, last->order);
    bsa_buddy_count_free(section, (uint32_t)1 << last->order);
}

/* Head of the block that holds the page, in at most BSA_MAX_ORDER + 1 looks. Needs no lock while
 * the page belongs to a live block. */
bsa_page_index bsa_block_of(const struct bsa_section *section, bsa_page_index page);

/* Whether the page words are such that heads tile the heap. */
bool bsa_buddy_is_tiled(const struct bsa_section *section);

/* Recomputes lists, mask and counters from the page words, merges what a crash has left unmerged,
 * and clears heads that it left inside blocks. The heads tile the heap. */
void bsa_buddy_rebuild(struct bsa_section *section);

#endif
