/* The directory: which section holds an address, or a page number.
 *
 * Two B+-trees (Bayer and McCreight 1972; Comer 1979), one by heap address and one by page number,
 * in their simplest form: packed. All nodes of a level but the last are full, as if the sections
 * were one sorted array cut into nodes, the nodes' first keys an array above it, and so on up to a
 * top of one node. Finding takes log32(sections) nodes: two up to 1024 sections, three up to 32768.
 * Adding and removing a section moves the entries behind its own, O(sections), as the test for
 * overlaps is before it; there is nothing to balance.
 *
 * In each node the place of a key is first guessed, by interpolation (Peterson 1957) with a slope
 * that the node keeps: right wherever sections lie at nearly equal distances, as those of a heap
 * that grows do. Only if the section that the guesses lead to is not the one are keys compared.
 *
 * The two tops lie here. Every section has room in its header for one node more, which is more than
 * both trees ever need: so the directory needs no memory but the sections', and there is no limit
 * on their number.
 *
 * Writers hold the page lock. Readers take no lock: what they find is a section by its own word,
 * and right even while entries are moved; that there is none they believe only if a sequence count
 * tells that no writer was at work, or look again. */
#ifndef BSA_DIRECTORY_H
#define BSA_DIRECTORY_H

#include "section.h"

struct bsa_directory_tree {
    struct bsa_directory_node top;
    uint32_t count;  /* sections */
    uint32_t height; /* levels of nodes below the top */
};

/* All zero it is empty. */
struct bsa_directory {
    _Atomic uint32_t sequence;   /* odd while a writer is at work */
    _Atomic uint32_t page_shift; /* the sections'; for bsa_prefetch_page */
    struct bsa_directory_tree by_address, by_number;
    int64_t spare; /* chain of the sections' rooms that are not in use; 0 is none */
};

void bsa_directory_insert(struct bsa_directory *directory, struct bsa_section *section);

/* Needs quiescence: readers may still be at the section, or at a node in its header. */
void bsa_directory_remove(struct bsa_directory *directory, struct bsa_section *section);

/* NULL: none. */
struct bsa_section *bsa_section_by_address(const struct bsa_directory *directory,
                                           uintptr_t address);
struct bsa_section *bsa_section_by_number(const struct bsa_directory *directory,
                                          bsa_page_no number);

/* Whether it has the section, which is not looked at. O(sections). Under the page lock. */
bool bsa_directory_has(const struct bsa_directory *directory, const struct bsa_section *section);

/* Whether the trees are ordered, packed and level, have as many sections as they count, and whether
 * each room is in use once or spare. Under the page lock. */
bool bsa_directory_is_valid(const struct bsa_directory *directory);

static inline struct bsa_section *bsa_section_at(const struct bsa_directory *directory,
                                                 int64_t offset) {
    return offset == 0 ? NULL : (struct bsa_section *)((uintptr_t)directory + (uintptr_t)offset);
}

static inline int64_t bsa_offset_of(const struct bsa_directory *directory,
                                    const struct bsa_section *section) {
    return (int64_t)((uintptr_t)section - (uintptr_t)directory);
}

#endif
