/* See directory.h. */
#include "directory.h"

enum { READ_STEPS = 512 }; /* deeper than a treap gets; a reader amid rotations may go in circles */

enum key { BY_ADDRESS, BY_NUMBER };

static uint64_t key_of(const struct bsa_section *section, enum key key) {
    return key == BY_ADDRESS ? bsa_heap_start(section) : section->derived.base;
}

static uint64_t length_of(const struct bsa_section *section, enum key key) {
    return key == BY_ADDRESS ? bsa_heap_size(section) : section->total_pages;
}

static struct bsa_directory_node *node_of(struct bsa_section *section, enum key key) {
    return key == BY_ADDRESS ? &section->derived.by_address : &section->derived.by_number;
}

/* splitmix64's finaliser (Steele, Lea, Flood 2014): neighbouring keys get unrelated priorities. */
static uint64_t priority_of(const struct bsa_section *section, enum key key) {
    uint64_t x = key_of(section, key) + 0x9e3779b97f4a7c15ULL;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static int64_t get(const _Atomic int64_t *link) {
    return atomic_load_explicit(link, memory_order_relaxed);
}

static void set(_Atomic int64_t *link, int64_t offset) {
    /* Release: who finds a section sees all that was written into it before. */
    atomic_store_explicit(link, offset, memory_order_release);
}

/* Joins two trees of which every key of `left` is below every key of `right`. */
static int64_t join(struct bsa_directory *directory, int64_t left, int64_t right, enum key key) {
    struct bsa_section *l = bsa_section_at(directory, left), *r = bsa_section_at(directory, right);

    if (l == NULL || r == NULL) {
        return l == NULL ? right : left;
    }
    if (priority_of(l, key) >= priority_of(r, key)) {
        struct bsa_directory_node *node = node_of(l, key);

        set(&node->right, join(directory, get(&node->right), right, key));
        return left;
    }
    set(&node_of(r, key)->left, join(directory, left, get(&node_of(r, key)->left), key));
    return right;
}

/* Cuts the tree in two: keys below `at`, and the rest. */
static void cut(struct bsa_directory *directory, int64_t tree, uint64_t at, enum key key,
                _Atomic int64_t *below, _Atomic int64_t *rest) {
    struct bsa_section *top = bsa_section_at(directory, tree);

    if (top == NULL) {
        set(below, 0);
        set(rest, 0);
    } else if (key_of(top, key) < at) {
        struct bsa_directory_node *node = node_of(top, key);

        set(below, tree);
        cut(directory, get(&node->right), at, key, &node->right, rest);
    } else {
        struct bsa_directory_node *node = node_of(top, key);

        set(rest, tree);
        cut(directory, get(&node->left), at, key, below, &node->left);
    }
}

static _Atomic int64_t *top_of(struct bsa_directory *directory, enum key key) {
    return key == BY_ADDRESS ? &directory->by_address : &directory->by_number;
}

static void insert(struct bsa_directory *directory, struct bsa_section *section, enum key key) {
    _Atomic int64_t *link = top_of(directory, key);
    struct bsa_directory_node *node = node_of(section, key);
    struct bsa_section *at;

    while ((at = bsa_section_at(directory, get(link))) != NULL &&
           priority_of(at, key) > priority_of(section, key)) {
        link = key_of(section, key) < key_of(at, key) ? &node_of(at, key)->left
                                                      : &node_of(at, key)->right;
    }
    cut(directory, get(link), key_of(section, key), key, &node->left, &node->right);
    set(link, bsa_offset_of(directory, section));
}

static void remove_key(struct bsa_directory *directory, struct bsa_section *section, enum key key) {
    _Atomic int64_t *link = top_of(directory, key);
    struct bsa_directory_node *node = node_of(section, key);
    struct bsa_section *at;

    while ((at = bsa_section_at(directory, get(link))) != section) {
        BSA_ASSERT(at != NULL);
        link = key_of(section, key) < key_of(at, key) ? &node_of(at, key)->left
                                                      : &node_of(at, key)->right;
    }
    set(link, join(directory, get(&node->left), get(&node->right), key));
}

/* The count goes odd before the first link changes, and even after the last. A reader takes "none"
 * for an answer only if the count was even before it looked and has not changed since; links are
 * read with acquire, so the second look at the count comes after them. */
static void write_begin(struct bsa_directory *directory) {
    atomic_fetch_add_explicit(&directory->sequence, 1, memory_order_acq_rel);
}

static void write_end(struct bsa_directory *directory) {
    atomic_fetch_add_explicit(&directory->sequence, 1, memory_order_release);
}

void bsa_directory_insert(struct bsa_directory *directory, struct bsa_section *section) {
    write_begin(directory);
    insert(directory, section, BY_ADDRESS);
    insert(directory, section, BY_NUMBER);
    write_end(directory);
}

void bsa_directory_remove(struct bsa_directory *directory, struct bsa_section *section) {
    write_begin(directory);
    remove_key(directory, section, BY_ADDRESS);
    remove_key(directory, section, BY_NUMBER);
    write_end(directory);
}

static struct bsa_section *descend(const struct bsa_directory *directory, uint64_t wanted,
                                   enum key key) {
    const _Atomic int64_t *link =
        key == BY_ADDRESS ? &directory->by_address : &directory->by_number;

    for (int step = 0; step < READ_STEPS; step++) {
        struct bsa_section *at =
            bsa_section_at(directory, atomic_load_explicit(link, memory_order_acquire));

        if (at == NULL || wanted - key_of(at, key) < length_of(at, key)) {
            return at;
        }
        link = wanted < key_of(at, key) ? &node_of(at, key)->left : &node_of(at, key)->right;
    }
    return NULL;
}

static struct bsa_section *find(const struct bsa_directory *directory, uint64_t wanted,
                                enum key key) {
    for (;;) {
        uint32_t before = atomic_load_explicit(&directory->sequence, memory_order_acquire);
        struct bsa_section *found = descend(directory, wanted, key);

        /* What a reader finds is right even while a writer is at work; only "none" may be wrong. */
        if (found != NULL) {
            return found;
        }
        if ((before & 1) == 0 &&
            atomic_load_explicit(&directory->sequence, memory_order_relaxed) == before) {
            return NULL;
        }
        bsa_spin_pause();
    }
}

struct bsa_section *bsa_section_by_address(const struct bsa_directory *directory,
                                           uintptr_t address) {
    return find(directory, address, BY_ADDRESS);
}

struct bsa_section *bsa_section_by_number(const struct bsa_directory *directory,
                                          bsa_page_no number) {
    return find(directory, number.value, BY_NUMBER);
}
