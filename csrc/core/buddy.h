/* The buddy allocator of one section. All functions run under the root's page lock. */
#ifndef BSA_BUDDY_H
#define BSA_BUDDY_H

#include "section.h"

/* Covers the heap with the largest naturally aligned blocks that fit; the section is new. */
void bsa_buddy_cover(struct bsa_section *section);

/* Takes a block of 2^order pages aligned to 2^align_order pages; its head says BSA_CLAIMED. */
bool bsa_buddy_take(struct bsa_section *section, unsigned order, unsigned align_order,
                    bsa_page_index *head);

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
void bsa_buddy_release(struct bsa_section *section, bsa_page_index head);

/* Does what was put off. To be called before anything but these functions looks at free lists,
 * their counts or mask. */
void bsa_buddy_settle(struct bsa_section *section);

/* Head of the block that holds the page, in at most BSA_MAX_ORDER + 1 looks. Needs no lock while
 * the page belongs to a live block. */
bsa_page_index bsa_block_of(const struct bsa_section *section, bsa_page_index page);

/* Whether the page words are such that heads tile the heap. */
bool bsa_buddy_is_tiled(const struct bsa_section *section);

/* Recomputes lists, mask and counters from the page words, merges what a crash has left unmerged,
 * and clears heads that it left inside blocks. The heads tile the heap. */
void bsa_buddy_rebuild(struct bsa_section *section);

#endif
