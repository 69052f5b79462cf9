/* Verifies every invariant, and names the first that does not hold.
 *
 * Each invariant is stated here once, as a test with a sentence. O(heads + listed blocks + bitmap
 * words + pages below the high-water mark + caches). Every loop over links is bounded by the number
 * of blocks, so that a damaged list ends the check and not the program. Needs quiescence. */
#include "root.h"

/* Slabs of all caches. First counted by going through the heaps, then counted off by going through
 * the lists, each of whose members is proven to be its cache's: what is left at the end is on no
 * list. */
struct slab_counts {
    uint64_t by_list[4]; /* enum bsa_slab_state */
    uint64_t live;
    uint64_t with_remote_frees;
    uint64_t cached; /* page blocks in page caches */
};

/* What the root's and the slots' counts have to come to. */
struct live_counts {
    uint64_t objects, blocks[BSA_MAX_ORDER + 1]; /* blocks: those cached, too */
    uint64_t object_bytes, block_bytes;
};

struct checker {
    const struct bsa_root *root;
    const struct bsa_section *section;
    struct bsa_violation *violation;
    struct slab_counts left;
    struct live_counts live;
};

static bool violated(const struct checker *checker, bsa_page_index page, const char *invariant) {
    checker->violation->invariant = invariant;
    checker->violation->section = checker->section == NULL ? 0 : checker->section->derived.index;
    checker->violation->page = page;
    return false;
}

#define HOLDS(condition, page, invariant)                                                          \
    if (!(condition)) {                                                                            \
        return violated(checker, page, invariant);                                                 \
    }

static bool is_managed(const struct bsa_root *root, const struct bsa_section *section) {
    return bsa_directory_has(&root->space.directory, section);
}

/* --- blocks ------------------------------------------------------------------------------------
 */

/* The buddy of the block, if it is a free block of that order. */
static bool find_free_buddy(const struct bsa_section *section, bsa_page_index head, unsigned order,
                            bsa_page_index *buddy) {
    uint64_t first = bsa_nominal_page(section, 0);
    uint64_t at = (bsa_nominal_page(section, head) ^ (uint64_t)1 << order) - first;

    *buddy = (bsa_page_index)at;
    return order < BSA_MAX_ORDER && at < section->total_pages &&
           bsa_word_at(section, *buddy) == bsa_block_word(BSA_FREE, order, (uint32_t)1 << order);
}

/* Whether the page starts the block whose merging is put off. */
static bool is_back(const struct bsa_section *section, bsa_page_index page) {
    const struct bsa_last_block *last = &section->derived.last;

    return last->is_back && last->head.value == bsa_number_of(section, page).value;
}

static bool is_merged(const struct bsa_section *section, bsa_page_index head, unsigned order) {
    bsa_page_index buddy;

    return !find_free_buddy(section, head, order, &buddy) || is_back(section, head) ||
           is_back(section, buddy);
}

static bool head_is_valid(const struct checker *checker, bsa_page_index head) {
    const struct bsa_space *space = &checker->root->space;
    const struct bsa_section *section = checker->section;
    uint64_t word = bsa_word_at(section, head);
    uint32_t count = bsa_word_count(word);
    unsigned order = bsa_word_order(word);

    HOLDS((bsa_word_state(word) == BSA_FREE || bsa_word_state(word) == BSA_PAGES ||
           bsa_word_state(word) == BSA_SLAB || bsa_word_state(word) == BSA_CACHED) &&
              count > 0 && count <= section->total_pages - head,
          head, "heads tile the heap");
    HOLDS(order <= BSA_MAX_ORDER && order == bsa_log2_ceil(count), head,
          "a block's order is that of its page count");
    HOLDS((bsa_nominal_page(section, head) & (((uint64_t)1 << order) - 1)) == 0, head,
          "a block is naturally aligned");
    HOLDS(bsa_word_back(word) == 0, head, "a head is not behind another head");
    if (bsa_word_state(word) == BSA_FREE) {
        HOLDS(bsa_is_power_of_two(count), head, "a free block has a power of two of pages");
        HOLDS(is_merged(section, head, order), head, "free buddies are merged");
    }
    if (bsa_word_state(word) == BSA_SLAB) {
        HOLDS(bsa_word_class(word) < space->classes.count && order <= BSA_MAX_SLAB_ORDER &&
                  bsa_slab_capacity(&space->classes, word) != 0 &&
                  bsa_word_slot(word) < space->slot_count && bsa_is_power_of_two(count),
              head, "a slab has a class, an order and an owner that exist");
    }
    if (bsa_word_state(word) == BSA_CACHED) {
        HOLDS(order < BSA_CACHED_ORDERS && bsa_word_slot(word) < space->slot_count &&
                  word == bsa_cached_word(order, bsa_word_slot(word)),
              head, "a cached block has an order and an owner that cache blocks");
    }
    if (bsa_word_state(word) == BSA_PAGES) {
        uint64_t bytes = (uint64_t)count << section->page_shift;

        HOLDS(bsa_page_requested(bsa_page_at(section, head)) <= bytes, head,
              "a block holds what was asked for");
    }
    return true;
}

/* Whether nothing names remote frees on a page that is no slab's head: they would keep a slab made
 * there from ever being pushed. Beyond the high-water mark nobody looks. */
static bool is_unnamed(const struct bsa_section *section, bsa_page_index page) {
    return page >= section->high_water ||
           atomic_load_explicit(&bsa_page_at(section, page)->summary, memory_order_relaxed) == 0;
}

/* Pages after the head, as far as they can ever have been heads. */
static bool inside_is_valid(const struct checker *checker, bsa_page_index head) {
    const struct bsa_section *section = checker->section;
    uint64_t word = bsa_word_at(section, head);
    bool slab = bsa_word_state(word) == BSA_SLAB;

    HOLDS(slab || is_unnamed(section, head), head, "only slabs have remote frees");
    for (uint32_t i = 1; i < bsa_word_count(word); i++) {
        if (!slab && head + i >= section->high_water) {
            break;
        }
        HOLDS(bsa_word_at(section, head + i) == (slab ? bsa_slab_inside_word(word, i) : 0),
              head + i,
              slab ? "every page of a slab names its head" : "a page inside a block is no head");
        HOLDS(is_unnamed(section, head + i), head + i, "only slabs have remote frees");
    }
    return true;
}

static bool heads_are_valid(const struct checker *checker, uint32_t *free_pages,
                            uint32_t free_blocks[BSA_MAX_ORDER + 1], uint64_t *blocks) {
    const struct bsa_section *section = checker->section;

    for (bsa_page_index head = 0; head < section->total_pages;) {
        uint64_t word = bsa_word_at(section, head);

        if (!head_is_valid(checker, head) || !inside_is_valid(checker, head)) {
            return false;
        }
        if (bsa_word_state(word) == BSA_FREE) {
            *free_pages += bsa_word_count(word);
            free_blocks[bsa_word_order(word)] += !is_back(section, head);
        }
        *blocks += 1;
        head += bsa_word_count(word);
    }
    return true;
}

static bool free_list_is_valid(const struct checker *checker, unsigned order, uint32_t expected) {
    const struct bsa_section *section = checker->section;
    bsa_page_no at = section->derived.free_list[order], previous = BSA_NO_PAGE;
    uint32_t count = 0;

    for (; at.value != 0 && count <= expected; count++) {
        const struct bsa_page *page;

        HOLDS(bsa_section_has_number(section, at), 0, "a free list stays in its section");
        page = bsa_page_at(section, bsa_index_of(section, at));
        HOLDS(bsa_page_word(page) == bsa_block_word(BSA_FREE, order, (uint32_t)1 << order),
              bsa_index_of(section, at), "a listed block is free and of the list's order");
        HOLDS(page->prev.value == previous.value, bsa_index_of(section, at),
              "links of a free list agree in both directions");
        previous = at;
        at = page->next;
    }
    HOLDS(count == expected && section->derived.free_count[order] == expected, 0,
          "every free block is on the list of its order");
    HOLDS((section->derived.free_mask >> order & 1) == (expected != 0), 0,
          "the mask tells which lists are not empty");
    return true;
}

/* Whether freeing the block taken last, and asking as before, gives the same block from the same
 * lists: where it merges the buddies are the upper halves that were split off for it, listed last,
 * and from the order on that is looked for there is nothing else. */
static bool last_block_comes_again(const struct bsa_section *section) {
    const struct bsa_last_block *last = &section->derived.last;
    bsa_page_index head = bsa_index_of(section, last->head), buddy;
    unsigned order = last->order;

    for (; find_free_buddy(section, head, order, &buddy); order++) {
        if (buddy < head ||
            section->derived.free_list[order].value != bsa_number_of(section, buddy).value ||
            (order >= last->least && section->derived.free_count[order] != 1)) {
            return false;
        }
    }
    return order >= last->least;
}

static bool last_block_is_valid(const struct checker *checker) {
    const struct bsa_section *section = checker->section;
    const struct bsa_last_block *last = &section->derived.last;
    bsa_page_index head = bsa_index_of(section, last->head);
    uint64_t word;

    if (last->head.value == 0) {
        HOLDS(!last->is_back, 0, "a block that is back is one");
        return true;
    }
    HOLDS(bsa_section_has_number(section, last->head) && last->order <= BSA_MAX_ORDER, 0,
          "the block taken last is as it was");
    word = bsa_word_at(section, head);
    HOLDS(bsa_word_order(word) == last->order &&
              bsa_word_count(word) == (uint32_t)1 << last->order &&
              (bsa_word_state(word) == BSA_FREE) == last->is_back,
          head, "the block taken last is as it was");
    HOLDS(last_block_comes_again(section), head,
          "the block taken last, freed, would be taken again");
    return true;
}

static bool section_is_valid(const struct checker *checker, uint64_t *allocated) {
    const struct bsa_section *section = checker->section;
    uint32_t free_pages = 0, free_blocks[BSA_MAX_ORDER + 1] = {0};
    uint64_t blocks = 0;

    HOLDS(section->magic == BSA_SECTION_MAGIC && section->dirty == 1 &&
              section->page_shift == checker->root->space.classes.page_shift &&
              section->bitmap_bytes == checker->root->space.classes.bitmap_bytes,
          0, "a managed section has a header of bsa's");
    HOLDS(bsa_section_is_located(section), 0, "what is derived from a header agrees with it");
    HOLDS(section->high_water <= section->total_pages, 0, "the high-water mark is in the heap");
    if (!heads_are_valid(checker, &free_pages, free_blocks, &blocks)) {
        return false;
    }
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        if (!free_list_is_valid(checker, order, free_blocks[order])) {
            return false;
        }
    }
    if (!last_block_is_valid(checker)) {
        return false;
    }
    HOLDS(free_pages == atomic_load_explicit(&section->derived.free_pages, memory_order_relaxed), 0,
          "the count of free pages is that of the free blocks");
    *allocated += section->total_pages - free_pages;
    return true;
}

/* --- slabs -------------------------------------------------------------------------------------
 */

static bool bitmaps_are_valid(const struct checker *checker, struct bsa_slab slab, uint64_t word,
                              uint64_t *remote_words) {
    const struct bsa_class_table *classes = &checker->root->space.classes;
    const struct bsa_bits *bits = bsa_slab_bits(slab);
    unsigned order = bsa_word_order(word);
    uint32_t live = 0;

    for (uint32_t w = 0; w < bsa_bitmap_words(classes, order); w++) {
        uint64_t l = atomic_load_explicit(&bits[w].live, memory_order_relaxed);
        uint64_t r = atomic_load_explicit(&bits[w].remote, memory_order_relaxed);
        struct bsa_starts at = bsa_starts_in(&classes->classes[bsa_word_class(word)], order, w);

        HOLDS(((l | r) & ~bsa_starts_bits(&at)) == 0, slab.head,
              "bitmaps have bits where objects start alone");
        HOLDS((r & ~l) == 0, slab.head, "an object is freed from one side");
        live += bsa_popcount(l);
        *remote_words |= (uint64_t)(r != 0) << w;
    }
    HOLDS(live + bsa_free_count(bsa_slab_page(slab)) == bsa_slab_capacity(classes, word), slab.head,
          "a slab's free count is that of its bitmap");
    return true;
}

static bool list_fits_count(unsigned list, uint32_t free_count, uint32_t capacity) {
    switch (list) {
    case BSA_SLAB_FULL:
        return free_count == 0;
    case BSA_SLAB_PARTIAL: /* may have run out of free objects where it stands */
        return free_count < capacity;
    case BSA_SLAB_EMPTY:
        return free_count == capacity;
    default:
        return list == BSA_SLAB_CURRENT;
    }
}

/* Where it depends on the cache, see current_is_valid. */
static bool relist_count_is_valid(const struct bsa_page *page, unsigned list, uint32_t capacity) {
    switch (list) {
    case BSA_SLAB_FULL:
        return page->relist_at == 1;
    case BSA_SLAB_PARTIAL:
        return page->relist_at == capacity;
    default:
        return true;
    }
}

/* Draining takes what is named, also where there is nothing; what lies behind is another slab's. */
static bool names_own_words(const struct bsa_space *space, const struct bsa_page *page,
                            uint64_t word) {
    uint32_t words = bsa_bitmap_words(&space->classes, bsa_word_order(word));

    return words >= 64 || atomic_load_explicit(&page->summary, memory_order_relaxed) >> words == 0;
}

static bool slab_is_valid(struct checker *checker, bsa_page_index head) {
    const struct bsa_space *space = &checker->root->space;
    struct bsa_slab slab = {(struct bsa_section *)(uintptr_t)checker->section, head};
    const struct bsa_page *page = bsa_slab_page(slab);
    uint64_t word = bsa_page_word(page), remote_words = 0;
    uint32_t capacity;

    capacity = bsa_slab_capacity(&space->classes, word);
    if (!bitmaps_are_valid(checker, slab, word, &remote_words)) {
        return false;
    }
    HOLDS((remote_words & ~atomic_load_explicit(&page->summary, memory_order_relaxed)) == 0, head,
          "the summary names the words with remote frees");
    HOLDS(names_own_words(space, page, word), head, "the summary names words of its own slab");
    HOLDS(list_fits_count(bsa_word_list(word), bsa_free_count(page), capacity), head,
          "a slab is on the list that its free count calls for");
    HOLDS(relist_count_is_valid(page, bsa_word_list(word), capacity), head,
          "a slab changes its list at the right count");
    checker->left.by_list[bsa_word_list(word) & 3]++;
    checker->left.live += capacity - bsa_free_count(page);
    checker->live.objects += capacity - bsa_free_count(page);
    checker->live.object_bytes += (uint64_t)(capacity - bsa_free_count(page)) *
                                  space->classes.classes[bsa_word_class(word)].size;
    checker->left.with_remote_frees +=
        atomic_load_explicit(&page->summary, memory_order_relaxed) != 0;
    return true;
}

/* --- caches ------------------------------------------------------------------------------------
 */

static const struct bsa_page *page_numbered(struct checker *checker, bsa_page_no number,
                                            bsa_page_index *index) {
    checker->section = bsa_section_by_number(&checker->root->space.directory, number);
    if (checker->section == NULL) {
        return NULL;
    }
    *index = bsa_index_of(checker->section, number);
    return bsa_page_at(checker->section, *index);
}

static bool belongs_to(const struct bsa_page *page, const struct bsa_cache *cache) {
    uint64_t word = bsa_page_word(page);

    return bsa_word_state(word) == BSA_SLAB && bsa_word_slot(word) == cache->slot &&
           bsa_word_class(word) == cache->class_index;
}

static bool partial_list_is_valid(struct checker *checker, const struct bsa_cache *cache) {
    bsa_page_no at = cache->first_partial, previous = BSA_NO_PAGE;

    while (at.value != 0) {
        bsa_page_index index = 0;
        const struct bsa_page *page = page_numbered(checker, at, &index);

        HOLDS(page != NULL && belongs_to(page, cache) &&
                  bsa_word_list(bsa_page_word(page)) == BSA_SLAB_PARTIAL,
              index, "a partial list holds its cache's partial slabs");
        HOLDS(page->prev.value == previous.value && checker->left.by_list[BSA_SLAB_PARTIAL]-- > 0,
              index, "links of a partial list agree in both directions");
        previous = at;
        at = page->next;
    }
    HOLDS(cache->last_partial.value == previous.value, 0, "a cache knows its last partial slab");
    return true;
}

static bool remote_stack_is_valid(struct checker *checker, const struct bsa_cache *cache) {
    bsa_page_no at = {atomic_load_explicit(&cache->remote, memory_order_relaxed)};

    while (at.value != 0) {
        bsa_page_index index = 0;
        const struct bsa_page *page = page_numbered(checker, at, &index);

        HOLDS(page != NULL && belongs_to(page, cache) &&
                  atomic_load_explicit(&page->summary, memory_order_relaxed) != 0 &&
                  checker->left.with_remote_frees-- > 0,
              index, "a slab waiting to be drained has remote frees, and waits once");
        at.value = atomic_load_explicit(&page->remote_next, memory_order_relaxed);
    }
    return true;
}

/* Whether the search for the next row goes on at a word in which objects start. */
static bool place_is_valid(const struct bsa_class *class, unsigned order,
                           const struct bsa_cache *cache) {
    struct bsa_starts at = bsa_starts_in(class, order, cache->word);

    return cache->first == at.first && bsa_starts_bits(&at) != 0;
}

/* `at`: the place of the row, which is not empty. */
static bool row_is_valid(const struct checker *checker, const struct bsa_cache *cache,
                         struct bsa_starts at) {
    unsigned shift = checker->root->space.classes.granule_shift;

    HOLDS(cache->base == bsa_page_address(cache->slab.section, cache->slab.head) +
                             ((uintptr_t)at.word * 64 << shift),
          cache->slab.head, "the cache's copies are those of its current slab");
    HOLDS((cache->row & bsa_starts_bits(&at) &
           ~atomic_load_explicit(&cache->bits->live, memory_order_relaxed)) == cache->row,
          cache->slab.head, "a row holds free objects");
    bsa_starts_next(&at);
    HOLDS(cache->word == at.word && cache->first == at.first, cache->slab.head,
          "the next row is looked for behind the last one");
    return true;
}

/* The row of a cache that has a current slab. */
static bool search_is_valid(const struct checker *checker, const struct bsa_cache *cache) {
    const struct bsa_class_table *classes = &checker->root->space.classes;
    const struct bsa_class *class = &classes->classes[cache->class_index];
    unsigned order = bsa_word_order(bsa_page_word(cache->page));
    uint64_t word = (uint64_t)(cache->bits - bsa_slab_bits(cache->slab));

    HOLDS(place_is_valid(class, order, cache), cache->slab.head,
          "the next row is looked for where objects start");
    if (cache->row == 0) {
        return true;
    }
    HOLDS(word < bsa_bitmap_words(classes, order), cache->slab.head,
          "the cache's copies are those of its current slab");
    return row_is_valid(checker, cache, bsa_starts_in(class, order, (uint32_t)word));
}

static bool current_is_valid(struct checker *checker, const struct bsa_cache *cache) {
    uint32_t capacity;

    if (cache->page == NULL) {
        HOLDS(cache->row == 0, 0, "a row holds free objects");
        return true;
    }
    checker->section = cache->slab.section;
    HOLDS(belongs_to(cache->page, cache) &&
              bsa_word_list(bsa_page_word(cache->page)) == BSA_SLAB_CURRENT,
          cache->slab.head, "the current slab says so");
    HOLDS(cache->page == bsa_slab_page(cache->slab), cache->slab.head,
          "the cache's copies are those of its current slab");
    capacity = bsa_slab_capacity(&checker->root->space.classes, bsa_page_word(cache->page));
    HOLDS(cache->page->relist_at == (cache->empty.value != 0 ? capacity : BSA_NEVER_RELISTED),
          cache->slab.head, "a slab changes its list at the right count");
    checker->left.by_list[BSA_SLAB_CURRENT]--;
    return search_is_valid(checker, cache);
}

static bool empty_is_valid(struct checker *checker, const struct bsa_cache *cache) {
    bsa_page_index index = 0;
    const struct bsa_page *page;

    if (cache->empty.value == 0) {
        return true;
    }
    page = page_numbered(checker, cache->empty, &index);
    HOLDS(page != NULL && belongs_to(page, cache) &&
              bsa_word_list(bsa_page_word(page)) == BSA_SLAB_EMPTY,
          index, "the empty slab says so");
    checker->left.by_list[BSA_SLAB_EMPTY]--;
    return true;
}

static bool remembered_are_valid(const struct checker *checker, const struct bsa_cache *cache) {
    HOLDS(bsa_cache_remembered(cache) <= BSA_REMEMBERED, 0, "a cache remembers a few objects");
    for (uint32_t i = 0; i < bsa_cache_remembered(cache); i++) {
        const struct bsa_object *object = &cache->freed[i];

        HOLDS(belongs_to(object->page, cache) &&
                  (atomic_load_explicit(&object->bits->live, memory_order_relaxed) &
                   bsa_object_bit(object, cache->granule_shift)) == 0,
              0, "a cache remembers free objects of its own");
        for (uint32_t other = 0; other < i; other++) {
            HOLDS(cache->freed[other].address != object->address, 0,
                  "a cache remembers an object once");
        }
    }
    return true;
}

static bool cache_is_valid(struct checker *checker, const struct bsa_cache *cache) {
    if (!partial_list_is_valid(checker, cache) || !current_is_valid(checker, cache) ||
        !empty_is_valid(checker, cache) || !remote_stack_is_valid(checker, cache)) {
        return false;
    }
    checker->section = NULL;
    if (!remembered_are_valid(checker, cache)) {
        return false;
    }
    HOLDS(cache->retired.value == 0, 0, "retired slabs have been given back");
    checker->left.live -= bsa_cache_live(cache);
    return true;
}

/* --- page caches -------------------------------------------------------------------------------
 */

static bool is_repeated(const struct bsa_cached_block *blocks, uint32_t place) {
    uint32_t first = 0;

    while (blocks[first].address != blocks[place].address) {
        first++;
    }
    return first < place;
}

static bool cached_blocks_are_valid(struct checker *checker, unsigned slot, unsigned order) {
    const struct bsa_page_stack *stack = &checker->root->space.slots[slot].pages.stacks[order];
    const struct bsa_cached_block *blocks = stack->blocks;
    uint32_t count = bsa_cached_count(stack);

    HOLDS(count <= (checker->root->has_page_caches ? BSA_CACHED_BLOCKS : 0), 0,
          "a page cache holds a few blocks of an order");
    for (uint32_t i = 0; i < count; i++) {
        const struct bsa_section *section = bsa_section_of_cached(&blocks[i]);
        bsa_page_index head;

        HOLDS(is_managed(checker->root, section), 0,
              "a page cache holds blocks of managed sections");
        checker->section = section;
        HOLDS(bsa_heap_holds(section, blocks[i].address), 0,
              "a page cache holds cached blocks of its own");
        head = bsa_page_of(section, blocks[i].address);
        HOLDS(bsa_page_address(section, head) == blocks[i].address &&
                  bsa_page_at(section, head) == blocks[i].page &&
                  bsa_word_at(section, head) == bsa_cached_word(order, slot),
              head, "a page cache holds cached blocks of its own");
        HOLDS(bsa_page_requested(blocks[i].page) == stack->bytes, head,
              "a cached block has all of its bytes noted");
        HOLDS(!is_repeated(blocks, i), head, "a page cache holds a block once");
    }
    checker->section = NULL;
    checker->left.cached -= count;
    return true;
}

static bool page_caches_are_valid(struct checker *checker) {
    for (unsigned i = 0; i < checker->root->space.slot_count; i++) {
        for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
            if (!cached_blocks_are_valid(checker, i, order)) {
                return false;
            }
        }
    }
    HOLDS(checker->left.cached == 0, 0, "every cached block is in its slot's page cache");
    return true;
}

static bool caches_are_valid(struct checker *checker) {
    const struct bsa_space *space = &checker->root->space;
    const struct slab_counts *left = &checker->left;

    for (unsigned i = 0; i < space->slot_count; i++) {
        for (unsigned c = 0; c < space->classes.count; c++) {
            if (!cache_is_valid(checker, &space->slots[i].caches[c])) {
                return false;
            }
        }
    }
    HOLDS(left->by_list[BSA_SLAB_PARTIAL] == 0, 0, "every partial slab is on its cache's list");
    HOLDS(left->by_list[BSA_SLAB_CURRENT] == 0 && left->by_list[BSA_SLAB_EMPTY] == 0, 0,
          "every current and every empty slab is its cache's one");
    HOLDS(left->with_remote_frees == 0, 0, "every slab with remote frees waits to be drained");
    HOLDS(left->live == 0, 0, "caches count their live objects");
    return true;
}

/* --- counts ------------------------------------------------------------------------------------
 */

static bool tally_is(const struct bsa_tally *tally, uint64_t count, uint64_t bytes) {
    return (uint64_t)bsa_gauge_value(&tally->count) == count &&
           (uint64_t)bsa_gauge_value(&tally->bytes) == bytes;
}

/* Of a serial root all is counted in one tally, where objects freed remotely no longer count. */
static bool serial_tally_is_valid(const struct checker *checker, uint64_t blocks) {
    const struct bsa_space *space = &checker->root->space;
    uint64_t count = checker->live.objects + blocks;
    uint64_t bytes = checker->live.object_bytes + checker->live.block_bytes;

    for (unsigned i = 0; i < space->slot_count; i++) {
        for (unsigned c = 0; c < space->classes.count; c++) {
            const struct bsa_cache *cache = &space->slots[i].caches[c];

            count -= cache->pending;
            bytes -= cache->pending * cache->object_size;
        }
    }
    return tally_is(&space->slots[0].tally, count, bytes);
}

static bool tallies_are_valid(const struct checker *checker, uint64_t blocks) {
    const struct bsa_root *root = checker->root;
    uint64_t count = checker->live.objects, bytes = checker->live.object_bytes;

    if (root->serial) {
        return serial_tally_is_valid(checker, blocks);
    }
    for (unsigned i = 0; i < root->space.slot_count; i++) {
        count -= (uint64_t)bsa_gauge_value(&root->space.slots[i].tally.count);
        bytes -= (uint64_t)bsa_gauge_value(&root->space.slots[i].tally.bytes);
    }
    return count == 0 && bytes == 0 &&
           tally_is(&root->page_tally, blocks, checker->live.block_bytes);
}

static bool counts_are_valid(const struct checker *checker) {
    uint64_t blocks = 0;

    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        HOLDS(checker->root->per_order[order].live == checker->live.blocks[order], 0,
              "the root counts the page blocks of every order");
        blocks += checker->live.blocks[order];
    }
    HOLDS(tallies_are_valid(checker, blocks), 0, "what is live is what was counted");
    return true;
}

/* --- all ---------------------------------------------------------------------------------------
 */

static bool sections_are_valid(struct checker *checker) {
    const struct bsa_section *section = bsa_first_section(checker->root);
    uint64_t allocated = 0, total = 0;
    unsigned index = 0;

    /* First, because what follows looks sections up. */
    HOLDS(bsa_directory_is_valid(&checker->root->space.directory), 0,
          "the directory is ordered and packed, and has every section once");
    for (; section != NULL; section = bsa_next_section(checker->root, section), index++) {
        HOLDS(is_managed(checker->root, section), 0, "the chain has the directory's sections");
        checker->section = section;
        HOLDS(section->derived.index == index &&
                  bsa_section_by_address(&checker->root->space.directory,
                                         bsa_heap_start(section)) == section &&
                  bsa_section_by_number(&checker->root->space.directory,
                                        bsa_number_of(section, 0)) == section,
              0, "the directory finds every section");
        if (!section_is_valid(checker, &allocated)) {
            return false;
        }
        for (bsa_page_index head = 0; head < section->total_pages;) {
            uint64_t word = bsa_word_at(section, head);

            if (bsa_word_state(word) == BSA_SLAB && !slab_is_valid(checker, head)) {
                return false;
            }
            checker->left.cached += bsa_word_state(word) == BSA_CACHED;
            if (bsa_word_state(word) == BSA_CACHED || bsa_word_state(word) == BSA_PAGES) {
                checker->live.blocks[bsa_word_order(word)]++;
                checker->live.block_bytes += (uint64_t)bsa_word_count(word) << section->page_shift;
            }
            head += bsa_word_count(word);
        }
        total += section->total_pages;
    }
    checker->section = NULL;
    HOLDS(checker->root->space.directory.by_address.count == index, 0,
          "the directory is ordered and packed, and has every section once");
    HOLDS(index == bsa_section_count(checker->root) && total == bsa_total_pages(checker->root), 0,
          "the root counts its sections and their pages");
    HOLDS(allocated == checker->root->allocated_pages, 0, "the root counts the allocated pages");
    return true;
}

bsa_status bsa_check(const struct bsa_root *root, struct bsa_violation *violation) {
    struct bsa_violation ignored;
    struct checker checker = {
        root, NULL, violation == NULL ? &ignored : violation, {{0}, 0, 0, 0}, {0, {0}, 0, 0}};

    return sections_are_valid(&checker) && caches_are_valid(&checker) &&
                   page_caches_are_valid(&checker) && counts_are_valid(&checker)
               ? BSA_OK
               : BSA_CORRUPTION;
}
