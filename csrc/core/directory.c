/* See directory.h. */
#include "directory.h"

enum { FANOUT = BSA_DIRECTORY_FANOUT, LOG_FANOUT = 5, SLOPE_SHIFT = 58, MAX_HEIGHT = 6 };

_Static_assert(FANOUT == 1 << LOG_FANOUT, "right_entry is written for it");

#define NO_KEY UINT64_MAX /* of entries not in use: greater than any that is */

/* `child` leads to a node of the level below: its offset from the directory; in the lowest level to
 * a section: its offset and one. So readers need not know how high the tree is just now. */
struct entry {
    uint64_t key; /* the first that the child has */
    int64_t child;
};

static const struct entry no_entry = {NO_KEY, 0};

static bool is_section(int64_t child) {
    return (child & 1) != 0;
}

static struct bsa_directory_node *node_at(const struct bsa_directory *directory, int64_t child) {
    return (struct bsa_directory_node *)((uintptr_t)directory + (uintptr_t)child);
}

static int64_t offset_of(const struct bsa_directory *directory,
                         const struct bsa_directory_node *node) {
    return (int64_t)((uintptr_t)node - (uintptr_t)directory);
}

/* --- nodes -------------------------------------------------------------------------------------
 */

static uint64_t key_at(const struct bsa_directory_node *node, uint64_t i) {
    return atomic_load_explicit(&node->key[i], memory_order_relaxed);
}

static struct entry get_entry(const struct bsa_directory_node *node, uint64_t i) {
    return (struct entry){key_at(node, i),
                          atomic_load_explicit(&node->child[i], memory_order_acquire)};
}

static void set_entry(struct bsa_directory_node *node, uint64_t i, struct entry entry) {
    atomic_store_explicit(&node->key[i], entry.key, memory_order_relaxed);
    /* Release: who follows it sees all that was written into the child before. */
    atomic_store_explicit(&node->child[i], entry.child, memory_order_release);
}

static void clear_node(struct bsa_directory_node *node) {
    for (unsigned i = 0; i < FANOUT; i++) {
        set_entry(node, i, no_entry);
    }
}

static void copy_node(struct bsa_directory_node *to, const struct bsa_directory_node *from) {
    for (unsigned i = 0; i < FANOUT; i++) {
        set_entry(to, i, get_entry(from, i));
    }
}

/* Entries for each key between the node's first key and its last, times 2^SLOPE_SHIFT, rounded up:
 * so that keys at equal distances are guessed exactly. */
static uint64_t slope_of(const struct bsa_directory_node *node, unsigned count) {
    return count < 2 ? 0
                     : ((uint64_t)(count - 1) << SLOPE_SHIFT) /
                               (key_at(node, count - 1) - key_at(node, 0)) +
                           1;
}

/* The entry that has `wanted` if the keys lie at equal distances; else any. */
static BSA_FAST_PATH struct entry guessed_entry(const struct bsa_directory_node *node,
                                                uint64_t wanted) {
    uint64_t slope = atomic_load_explicit(&node->slope, memory_order_relaxed);

    return get_entry(node, ((wanted - key_at(node, 0)) * slope >> SLOPE_SHIFT) % FANOUT);
}

static BSA_FAST_PATH unsigned is_up_to(const _Atomic uint64_t *key, uint64_t wanted) {
    return atomic_load_explicit(key, memory_order_relaxed) <= wanted;
}

/* The last entry with a key up to `wanted`; the first one if there is none. The key is looked for
 * among every eighth, then among the seven that leaves: sums of comparisons, and no branch that
 * could be predicted wrongly. */
static BSA_FAST_PATH struct entry right_entry(const struct bsa_directory_node *node,
                                              uint64_t wanted) {
    const _Atomic uint64_t *key = node->key;
    unsigned i =
        8 * (is_up_to(key + 8, wanted) + is_up_to(key + 16, wanted) + is_up_to(key + 24, wanted));

    key += i;
    i += is_up_to(key + 1, wanted) + is_up_to(key + 2, wanted) + is_up_to(key + 3, wanted) +
         is_up_to(key + 4, wanted) + is_up_to(key + 5, wanted) + is_up_to(key + 6, wanted) +
         is_up_to(key + 7, wanted);
    return get_entry(node, i);
}

/* --- rooms -------------------------------------------------------------------------------------
 */

static void give_room(struct bsa_directory *directory, struct bsa_directory_node *node) {
    set_entry(node, 0, (struct entry){NO_KEY, directory->spare});
    directory->spare = offset_of(directory, node);
}

/* There always is one: a tree has a node beside its top only from FANOUT + 1 sections on. */
static struct bsa_directory_node *take_room(struct bsa_directory *directory) {
    struct bsa_directory_node *node = node_at(directory, directory->spare);

    BSA_ASSERT(directory->spare != 0);
    directory->spare = get_entry(node, 0).child;
    clear_node(node);
    return node;
}

/* Takes this very room out of the spare ones. False: it is in use. */
static bool take_this_room(struct bsa_directory *directory, struct bsa_directory_node *room) {
    struct bsa_directory_node *node;
    int64_t wanted = offset_of(directory, room);

    if (directory->spare == wanted) {
        directory->spare = get_entry(room, 0).child;
        return true;
    }
    for (int64_t at = directory->spare; at != 0; at = get_entry(node, 0).child) {
        node = node_at(directory, at);
        if (get_entry(node, 0).child == wanted) {
            set_entry(node, 0, get_entry(room, 0));
            return true;
        }
    }
    return false;
}

/* --- trees -------------------------------------------------------------------------------------
 */

/* Entries of a level; level 0 is the lowest. */
static uint64_t count_of(const struct bsa_directory_tree *tree, unsigned level) {
    unsigned shift = LOG_FANOUT * level;

    return (tree->count + ((uint64_t)1 << shift) - 1) >> shift;
}

/* The node that has the entry of this index among all of its level, at index % FANOUT. */
static struct bsa_directory_node *node_of(const struct bsa_directory *directory,
                                          const struct bsa_directory_tree *tree, unsigned level,
                                          uint64_t index) {
    struct bsa_directory_node *node = (struct bsa_directory_node *)(uintptr_t)&tree->top;

    for (unsigned above = tree->height; above > level; above--) {
        node = node_at(directory,
                       get_entry(node, (index >> LOG_FANOUT * (above - level)) % FANOUT).child);
    }
    return node;
}

static struct entry entry_of(const struct bsa_directory *directory,
                             const struct bsa_directory_tree *tree, unsigned level,
                             uint64_t index) {
    return get_entry(node_of(directory, tree, level, index), index % FANOUT);
}

/* Sets an entry, and the keys above of which it is the first. */
static void put_entry(struct bsa_directory *directory, struct bsa_directory_tree *tree,
                      unsigned level, uint64_t index, struct entry entry) {
    set_entry(node_of(directory, tree, level, index), index % FANOUT, entry);
    while (level < tree->height && index % FANOUT == 0) {
        level++;
        index /= FANOUT;
        atomic_store_explicit(&node_of(directory, tree, level, index)->key[index % FANOUT],
                              entry.key, memory_order_relaxed);
    }
}

/* Puts a level between a full top and what is below it. */
static void raise_top(struct bsa_directory *directory, struct bsa_directory_tree *tree) {
    struct bsa_directory_node *node = take_room(directory);

    copy_node(node, &tree->top);
    clear_node(&tree->top);
    set_entry(&tree->top, 0, (struct entry){key_at(node, 0), offset_of(directory, node)});
    tree->height++;
}

/* Takes out the level below a top that has one entry. */
static void lower_top(struct bsa_directory *directory, struct bsa_directory_tree *tree) {
    struct bsa_directory_node *node = node_at(directory, get_entry(&tree->top, 0).child);

    copy_node(&tree->top, node);
    give_room(directory, node);
    tree->height--;
}

/* Adds an entry behind the last of its level; the tree counts it afterwards. */
static void append_entry(struct bsa_directory *directory, struct bsa_directory_tree *tree,
                         unsigned level, struct entry entry) {
    uint64_t index = count_of(tree, level);

    if (level == tree->height && index == FANOUT) {
        raise_top(directory, tree);
    }
    if (level < tree->height && index % FANOUT == 0) {
        int64_t node = offset_of(directory, take_room(directory));

        append_entry(directory, tree, level + 1, (struct entry){entry.key, node});
    }
    put_entry(directory, tree, level, index, entry);
}

/* Takes the last entry of a level away; the tree still counts it. */
static void drop_last(struct bsa_directory *directory, struct bsa_directory_tree *tree,
                      unsigned level) {
    uint64_t index = count_of(tree, level) - 1;
    struct bsa_directory_node *node = node_of(directory, tree, level, index);

    set_entry(node, index % FANOUT, no_entry);
    if (level < tree->height && index % FANOUT == 0) {
        drop_last(directory, tree, level + 1);
        give_room(directory, node);
    }
}

static void insert_entry(struct bsa_directory *directory, struct bsa_directory_tree *tree,
                         struct entry entry) {
    uint64_t at = tree->count;

    if (at == 0) {
        clear_node(&tree->top);
    }
    append_entry(directory, tree, 0, entry);
    tree->count++;
    for (; at > 0 && entry_of(directory, tree, 0, at - 1).key > entry.key; at--) {
        put_entry(directory, tree, 0, at, entry_of(directory, tree, 0, at - 1));
    }
    put_entry(directory, tree, 0, at, entry);
}

static void remove_key(struct bsa_directory *directory, struct bsa_directory_tree *tree,
                       uint64_t key) {
    uint64_t at = 0;

    while (entry_of(directory, tree, 0, at).key != key) {
        at++;
        BSA_ASSERT(at < tree->count);
    }
    for (; at + 1 < tree->count; at++) {
        put_entry(directory, tree, 0, at, entry_of(directory, tree, 0, at + 1));
    }
    drop_last(directory, tree, 0);
    tree->count--;
    while (tree->height > 0 && count_of(tree, tree->height) == 1) {
        lower_top(directory, tree);
    }
}

/* Has the tree use another node in the place of this one, if it does use it. */
static void replace_node(struct bsa_directory *directory, struct bsa_directory_tree *tree,
                         struct bsa_directory_node *old, struct bsa_directory_node *replacement) {
    for (unsigned level = 1; level <= tree->height; level++) {
        for (uint64_t i = 0; i < count_of(tree, level); i++) {
            struct entry entry = entry_of(directory, tree, level, i);

            if (entry.child == offset_of(directory, old)) {
                entry.child = offset_of(directory, replacement);
                put_entry(directory, tree, level, i, entry);
            }
        }
    }
}

/* The section's room goes with it: a node in there moves to another one. */
static void vacate(struct bsa_directory *directory, struct bsa_directory_node *room) {
    if (!take_this_room(directory, room)) {
        struct bsa_directory_node *other = take_room(directory);

        copy_node(other, room);
        replace_node(directory, &directory->by_address, room, other);
        replace_node(directory, &directory->by_number, room, other);
    }
}

/* --- writers -----------------------------------------------------------------------------------
 */

static void set_slopes(struct bsa_directory *directory, struct bsa_directory_tree *tree) {
    for (unsigned level = 0; level <= tree->height; level++) {
        uint64_t count = count_of(tree, level);

        for (uint64_t i = 0; i < count; i += FANOUT) {
            struct bsa_directory_node *node = node_of(directory, tree, level, i);
            unsigned entries = count - i < FANOUT ? (unsigned)(count - i) : FANOUT;

            atomic_store_explicit(&node->slope, slope_of(node, entries), memory_order_relaxed);
        }
    }
}

/* The count goes odd before the first entry changes, and even after the last. A reader takes "none"
 * for an answer only if the count was even before it looked and has not changed since; links are
 * read with acquire, so the second look at the count comes after them. */
static void write_begin(struct bsa_directory *directory) {
    atomic_fetch_add_explicit(&directory->sequence, 1, memory_order_acq_rel);
    atomic_thread_fence(memory_order_release); /* before the keys, too, which are relaxed */
}

static void write_end(struct bsa_directory *directory) {
    set_slopes(directory, &directory->by_address);
    set_slopes(directory, &directory->by_number);
    atomic_fetch_add_explicit(&directory->sequence, 1, memory_order_release);
}

void bsa_directory_insert(struct bsa_directory *directory, struct bsa_section *section) {
    int64_t child = bsa_offset_of(directory, section) + 1;

    write_begin(directory);
    atomic_store_explicit(&directory->page_shift, section->page_shift, memory_order_relaxed);
    give_room(directory, &section->room);
    insert_entry(directory, &directory->by_address, (struct entry){bsa_heap_start(section), child});
    insert_entry(directory, &directory->by_number, (struct entry){section->derived.base, child});
    write_end(directory);
}

void bsa_directory_remove(struct bsa_directory *directory, struct bsa_section *section) {
    write_begin(directory);
    remove_key(directory, &directory->by_address, bsa_heap_start(section));
    remove_key(directory, &directory->by_number, section->derived.base);
    vacate(directory, &section->room);
    write_end(directory);
}

/* --- readers -----------------------------------------------------------------------------------
 */

typedef struct entry choose_entry(const struct bsa_directory_node *node, uint64_t wanted);
typedef bool has_key(const struct bsa_section *section, uint64_t wanted);

static bool has_address(const struct bsa_section *section, uint64_t address) {
    return bsa_heap_holds(section, (uintptr_t)address);
}

static bool has_number(const struct bsa_section *section, uint64_t number) {
    return bsa_section_has_number(section, (bsa_page_no){(uint32_t)number});
}

/* The section that an entry of the lowest level leads to, or NULL. */
static struct bsa_section *section_of(const struct bsa_directory *directory, struct entry entry) {
    return bsa_section_at(directory, entry.child & ~(int64_t)1);
}

/* The entry of the lowest level that the choices lead to, or one that leads nowhere. Ends though a
 * writer be at work: each step is one level down, because a room changes its level only in
 * removals. */
static BSA_FAST_PATH struct entry descend(const struct bsa_directory *directory,
                                          const struct bsa_directory_tree *tree, uint64_t wanted,
                                          choose_entry *choose) {
    struct entry entry = choose(&tree->top, wanted);

    while (!is_section(entry.child) && entry.child != 0) {
        entry = choose(node_at(directory, entry.child), wanted);
    }
    return entry;
}

/* Whether "none" may be wrong, because a writer has been at work since `before` was read. */
static bool has_changed(const struct bsa_directory *directory, uint32_t before) {
    atomic_thread_fence(memory_order_acquire); /* after the keys: pairs with write_begin's */
    return (before & 1) != 0 ||
           atomic_load_explicit(&directory->sequence, memory_order_relaxed) != before;
}

/* The exact way, where guesses have led astray. */
static BSA_FAST_PATH struct bsa_section *search(const struct bsa_directory *directory,
                                                const struct bsa_directory_tree *tree,
                                                uint64_t wanted, has_key *has) {
    for (;;) {
        uint32_t before = atomic_load_explicit(&directory->sequence, memory_order_acquire);
        struct bsa_section *found =
            section_of(directory, descend(directory, tree, wanted, right_entry));

        if (BSA_LIKELY(found != NULL && has(found, wanted))) {
            return found;
        }
        if (!has_changed(directory, before)) {
            return NULL;
        }
        bsa_spin_pause();
    }
}

struct bsa_section *bsa_section_by_address(const struct bsa_directory *directory,
                                           uintptr_t address) {
    const struct bsa_directory_tree *tree = &directory->by_address;
    struct entry guess = descend(directory, tree, address, guessed_entry);
    struct bsa_section *section = section_of(directory, guess);

    if (BSA_LIKELY(section != NULL)) {
        bsa_prefetch_page(section,
                          atomic_load_explicit(&directory->page_shift, memory_order_relaxed),
                          (uintptr_t)guess.key, address);
        if (BSA_LIKELY(bsa_heap_holds(section, address))) {
            return section;
        }
    }
    return search(directory, tree, address, has_address);
}

struct bsa_section *bsa_section_by_number(const struct bsa_directory *directory,
                                          bsa_page_no number) {
    const struct bsa_directory_tree *tree = &directory->by_number;
    struct bsa_section *section =
        section_of(directory, descend(directory, tree, number.value, guessed_entry));

    return BSA_LIKELY(section != NULL && bsa_section_has_number(section, number))
               ? section
               : search(directory, tree, number.value, has_number);
}

/* --- invariants --------------------------------------------------------------------------------
 */

bool bsa_directory_has(const struct bsa_directory *directory, const struct bsa_section *section) {
    const struct bsa_directory_tree *tree = &directory->by_address;

    for (uint64_t i = 0; i < tree->count; i++) {
        if (section_of(directory, entry_of(directory, tree, 0, i)) == section) {
            return true;
        }
    }
    return false;
}

/* The first key of what an entry leads to. */
static uint64_t first_key(const struct bsa_directory *directory,
                          const struct bsa_directory_tree *tree, int64_t child) {
    if (!is_section(child)) {
        return key_at(node_at(directory, child), 0);
    }
    return tree == &directory->by_address ? bsa_heap_start(bsa_section_at(directory, child - 1))
                                          : bsa_section_at(directory, child - 1)->derived.base;
}

/* Whether an entry of the tree is what its place asks for: the next in order, and with the first
 * key of what it leads to. */
static bool entry_is_valid(const struct bsa_directory *directory,
                           const struct bsa_directory_tree *tree, unsigned level, uint64_t index) {
    struct entry entry = entry_of(directory, tree, level, index);

    return entry.child != 0 && is_section(entry.child) == (level == 0) &&
           first_key(directory, tree, entry.child) == entry.key &&
           (index == 0 || entry_of(directory, tree, level, index - 1).key < entry.key);
}

/* Whether the node that begins with this entry has nothing behind the level's last one, and guesses
 * with the right slope. */
static bool node_is_valid(const struct bsa_directory *directory,
                          const struct bsa_directory_tree *tree, unsigned level, uint64_t index) {
    const struct bsa_directory_node *node = node_of(directory, tree, level, index);
    uint64_t rest = count_of(tree, level) - index;
    unsigned count = rest < FANOUT ? (unsigned)rest : FANOUT;

    for (unsigned i = count; i < FANOUT; i++) {
        if (key_at(node, i) != NO_KEY || get_entry(node, i).child != 0) {
            return false;
        }
    }
    return atomic_load_explicit(&node->slope, memory_order_relaxed) == slope_of(node, count);
}

static bool level_is_valid(const struct bsa_directory *directory,
                           const struct bsa_directory_tree *tree, unsigned level) {
    for (uint64_t i = 0; i < count_of(tree, level); i++) {
        if (!entry_is_valid(directory, tree, level, i) ||
            (i % FANOUT == 0 && !node_is_valid(directory, tree, level, i))) {
            return false;
        }
    }
    return true;
}

/* The levels from the top down, since those above lead to a node. Counts the rooms in use. */
static bool tree_is_valid(const struct bsa_directory *directory,
                          const struct bsa_directory_tree *tree, uint64_t *rooms) {
    if (tree->height > MAX_HEIGHT || count_of(tree, tree->height) > FANOUT ||
        (tree->height > 0 && count_of(tree, tree->height) < 2)) {
        return false;
    }
    for (unsigned level = tree->height + 1; level-- > 0;) {
        *rooms += level > 0 ? count_of(tree, level) : 0;
        if (!level_is_valid(directory, tree, level)) {
            return false;
        }
    }
    return true;
}

bool bsa_directory_is_valid(const struct bsa_directory *directory) {
    uint64_t rooms = 0, sections = directory->by_address.count;

    if ((atomic_load_explicit(&directory->sequence, memory_order_relaxed) & 1) != 0 ||
        directory->by_number.count != sections ||
        !tree_is_valid(directory, &directory->by_address, &rooms) ||
        !tree_is_valid(directory, &directory->by_number, &rooms)) {
        return false;
    }
    for (int64_t at = directory->spare; at != 0 && rooms <= sections; rooms++) {
        at = get_entry(node_at(directory, at), 0).child;
    }
    return rooms == sections;
}
