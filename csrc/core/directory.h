/* The directory: which section holds an address, or a page number.
 *
 * Two treaps (Seidel and Aragon 1996) over nodes in the section headers, one by heap address and
 * one by page number, with priorities hashed from the key: O(log sections) expected, no memory of
 * its own and no limit on their number. Writers hold the page lock. Readers take no lock: a
 * sequence count tells them that a writer was at work, and they look again. */
#ifndef BSA_DIRECTORY_H
#define BSA_DIRECTORY_H

#include "section.h"

struct bsa_directory {
    _Atomic uint32_t sequence; /* odd while a writer is at work */
    _Atomic int64_t by_address,
        by_number; /* the trees' tops: offsets from the directory, 0 is none */
};

void bsa_directory_insert(struct bsa_directory *directory, struct bsa_section *section);

/* Needs quiescence: readers may still be at the section. */
void bsa_directory_remove(struct bsa_directory *directory, struct bsa_section *section);

/* NULL: none. */
struct bsa_section *bsa_section_by_address(const struct bsa_directory *directory,
                                           uintptr_t address);
struct bsa_section *bsa_section_by_number(const struct bsa_directory *directory,
                                          bsa_page_no number);

static inline struct bsa_section *bsa_section_at(const struct bsa_directory *directory,
                                                 int64_t offset) {
    return offset == 0 ? NULL : (struct bsa_section *)((uintptr_t)directory + (uintptr_t)offset);
}

static inline int64_t bsa_offset_of(const struct bsa_directory *directory,
                                    const struct bsa_section *section) {
    return (int64_t)((uintptr_t)section - (uintptr_t)directory);
}

#endif
