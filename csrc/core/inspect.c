/* Questions: sections, single addresses, walks, statistics, fragmentation indices.
 *
 * A walk goes from head to head, O(blocks + objects), and reads no descriptor inside a block.
 * Locking: bsa_lookup and bsa_slab_of take none and are exact for an allocation that lives
 * throughout the call; sums over sections take the page lock; walks and statistics need quiescence.
 */
#include "root.h"

static bsa_status not_found(const struct bsa_root *root) {
    return bsa_section_count(root) == 0 ? BSA_NOT_INITIALIZED : BSA_NOT_FOUND;
}

/* Asking changes nothing, but a lock is a lock. */
static void lock(const struct bsa_root *root) {
    bsa_lock_pages((struct bsa_root *)(uintptr_t)root);
}

static void unlock(const struct bsa_root *root) {
    bsa_unlock_pages((struct bsa_root *)(uintptr_t)root);
}

/* Nor does merging change what is free: of what page caches hold, as far as they are within reach,
 * and what the sections have put off. To be unlocked. */
static void merge_and_lock(const struct bsa_root *root) {
    struct bsa_section *section;

    bsa_page_caches_merge_shared((struct bsa_root *)(uintptr_t)root);
    lock(root);
    for (section = bsa_first_section(root); section != NULL;
         section = bsa_next_section(root, section)) {
        bsa_buddy_settle(section);
    }
}

/* Pages that page caches hold. */
static uint64_t cached_pages(const struct bsa_root *root) {
    uint64_t cached[BSA_MAX_ORDER + 1] = {0}, pages = 0;

    bsa_page_caches_count(root, NULL, cached);
    for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
        pages += cached[order] << order;
    }
    return pages;
}

/* --- sections ----------------------------------------------------------------------------------
 */

size_t bsa_page_size(const struct bsa_root *root) {
    return (size_t)1 << root->space.classes.page_shift;
}

unsigned bsa_slots(const struct bsa_root *root) {
    return root->space.slot_count;
}

unsigned bsa_section_count(const struct bsa_root *root) {
    return atomic_load_explicit(&root->section_count, memory_order_relaxed);
}

unsigned bsa_class_count(const struct bsa_root *root) {
    return root->space.classes.count;
}

static uint32_t free_pages_of(const struct bsa_section *section) {
    return atomic_load_explicit(&section->derived.free_pages, memory_order_relaxed);
}

static void describe_section(const struct bsa_section *section, struct bsa_section_info *info) {
    bool is_apart = section->heap_offset == 0;

    *info = (struct bsa_section_info){
        .index = section->derived.index,
        .meta_start = is_apart ? (uintptr_t)section
                               : bsa_heap_start(section) - (uintptr_t)section->heap_offset,
        .meta_size = is_apart ? (size_t)(section->areas[1].offset + section->areas[1].length)
                              : (size_t)section->heap_offset,
        .start = bsa_heap_start(section),
        .size = (size_t)bsa_heap_size(section),
        .total_pages = section->total_pages,
        .free_pages = free_pages_of(section),
        .high_water = section->high_water,
        .alignment = section->derived.real_alignment,
        .generation = section->generation,
    };
    memcpy(info->free_blocks, section->derived.free_count, sizeof info->free_blocks);
}

/* What page caches hold is free, too: it is merged as far as the caches are within reach, and the
 * rest counted as it is. */
static void describe_cached(const struct bsa_root *root, const struct bsa_section *section,
                            struct bsa_section_info *info) {
    uint64_t cached[BSA_MAX_ORDER + 1] = {0};

    bsa_page_caches_count(root, section, cached);
    for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
        info->free_blocks[order] += (uint32_t)cached[order];
        info->free_pages += (uint32_t)(cached[order] << order);
    }
}

bsa_status bsa_section_info(const struct bsa_root *root, unsigned index,
                            struct bsa_section_info *info) {
    const struct bsa_section *section;

    merge_and_lock(root);
    section = bsa_nth_section(root, index);
    if (section != NULL) {
        describe_section(section, info);
        describe_cached(root, section, info);
    }
    unlock(root);
    return section == NULL ? BSA_NOT_FOUND : BSA_OK;
}

bsa_status bsa_section_of(const struct bsa_root *root, uintptr_t address, unsigned *index) {
    const struct bsa_section *section = bsa_find_section(root, NULL, address);

    if (section == NULL) {
        return not_found(root);
    }
    *index = section->derived.index;
    return BSA_OK;
}

uint64_t bsa_total_pages(const struct bsa_root *root) {
    return atomic_load_explicit(&root->total_pages, memory_order_relaxed);
}

uint64_t bsa_free_page_count(const struct bsa_root *root) {
    const struct bsa_section *section;
    uint64_t pages;

    lock(root);
    pages = cached_pages(root);
    for (section = bsa_first_section(root); section != NULL;
         section = bsa_next_section(root, section)) {
        pages += free_pages_of(section);
    }
    unlock(root);
    return pages;
}

void bsa_free_blocks(const struct bsa_root *root, uint64_t counts[BSA_MAX_ORDER + 1]) {
    const struct bsa_section *section;

    memset(counts, 0, (BSA_MAX_ORDER + 1) * sizeof counts[0]);
    merge_and_lock(root);
    bsa_page_caches_count(root, NULL, counts);
    for (section = bsa_first_section(root); section != NULL;
         section = bsa_next_section(root, section)) {
        for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
            counts[order] += section->derived.free_count[order];
        }
    }
    unlock(root);
}

static size_t copy_free_list(const struct bsa_section *section, unsigned order,
                             uintptr_t *addresses, size_t room) {
    bsa_page_no at = section->derived.free_list[order];
    size_t count = 0;

    for (; at.value != 0; at = bsa_page_at(section, bsa_index_of(section, at))->next) {
        if (count < room) {
            addresses[count] = bsa_page_address(section, bsa_index_of(section, at));
        }
        count++;
    }
    return count;
}

size_t bsa_free_list(const struct bsa_root *root, unsigned index, unsigned order,
                     uintptr_t *addresses, size_t room) {
    const struct bsa_section *section;
    size_t count = 0;

    merge_and_lock(root);
    section = bsa_nth_section(root, index);
    if (section != NULL && order <= BSA_MAX_ORDER) {
        count = copy_free_list(section, order, addresses, room);
    }
    unlock(root);
    return count;
}

/* --- one address -------------------------------------------------------------------------------
 */

static void describe_object(const struct bsa_root *root, struct bsa_slab slab, uint64_t word,
                            uint32_t index, struct bsa_allocation *found) {
    size_t size = root->space.classes.classes[bsa_word_class(word)].size;

    *found = (struct bsa_allocation){
        .address = bsa_slab_object_address(&root->space.classes, slab, word, index),
        .usable_size = size,
        .requested_size = size,
        .kind = BSA_KIND_OBJECT,
        .section = slab.section->derived.index,
        .slot = bsa_word_slot(word),
    };
}

static void describe_block(struct bsa_slab block, uint64_t word, struct bsa_allocation *found) {
    *found = (struct bsa_allocation){
        .address = bsa_page_address(block.section, block.head),
        .usable_size = (size_t)bsa_word_count(word) << block.section->page_shift,
        .requested_size = (size_t)bsa_page_requested(bsa_slab_page(block)),
        .kind = BSA_KIND_PAGES,
        .section = block.section->derived.index,
        .slot = BSA_NO_SLOT,
    };
}

/* The slab that holds the page, if its word names one. */
static bool find_slab(const struct bsa_section *section, bsa_page_index page, struct bsa_slab *slab,
                      uint64_t *word) {
    uint32_t back = bsa_word_back(bsa_word_at(section, page));

    if (back > page) {
        return false;
    }
    *slab = (struct bsa_slab){(struct bsa_section *)(uintptr_t)section, page - back};
    *word = bsa_page_word(bsa_slab_page(*slab));
    return bsa_word_state(*word) == BSA_SLAB && back < bsa_word_count(*word);
}

static bsa_status lookup_object(const struct bsa_root *root, struct bsa_slab slab, uint64_t word,
                                uintptr_t address, bool inside, struct bsa_allocation *found) {
    uint32_t index = bsa_slab_index_of(&root->space.classes, slab, word, address);

    if (index == UINT32_MAX) {
        return BSA_INVALID_PARAM;
    }
    describe_object(root, slab, word, index, found);
    if (!inside && address != found->address) {
        return BSA_INVALID_PARAM;
    }
    return bsa_slab_is_live(slab.section, found->address) ? BSA_OK : BSA_NOT_ALLOCATED;
}

/* The live page block that starts at (or, `inside`, holds) the address. Under the page lock. */
static bsa_status lookup_block(const struct bsa_root *root, struct bsa_section *section,
                               uintptr_t address, bool inside, struct bsa_allocation *found) {
    bool aligned = address % bsa_page_size(root) == 0;
    struct bsa_slab block = {section, bsa_page_of(section, address)};
    uint64_t word;

    block.head = inside || !aligned ? bsa_block_of(section, block.head) : block.head;
    word = bsa_page_word(bsa_slab_page(block));
    if (bsa_word_state(word) != BSA_PAGES) {
        return BSA_NOT_ALLOCATED;
    }
    if (!inside && !aligned) {
        return BSA_INVALID_PARAM;
    }
    describe_block(block, word, found);
    return BSA_OK;
}

static bsa_status lookup(const struct bsa_root *root, uintptr_t address, bool inside,
                         struct bsa_allocation *found) {
    struct bsa_section *section = bsa_find_section(root, NULL, address);
    struct bsa_slab slab;
    bsa_status status;
    uint64_t word;

    if (section == NULL) {
        return not_found(root);
    }
    if (find_slab(section, bsa_page_of(section, address), &slab, &word)) {
        return lookup_object(root, slab, word, address, inside, found);
    }
    lock(root);
    status = lookup_block(root, section, address, inside, found);
    unlock(root);
    return status;
}

bsa_status bsa_lookup(const struct bsa_root *root, uintptr_t address,
                      struct bsa_allocation *found) {
    return lookup(root, address, false, found);
}

bsa_status bsa_lookup_inside(const struct bsa_root *root, uintptr_t address,
                             struct bsa_allocation *found) {
    return lookup(root, address, true, found);
}

static void describe_slab(const struct bsa_root *root, struct bsa_slab slab, uint64_t word,
                          struct bsa_slab_info *info) {
    const struct bsa_class_table *classes = &root->space.classes;
    const struct bsa_class *class = &classes->classes[bsa_word_class(word)];
    unsigned capacity = class->capacity[bsa_word_order(word)];

    *info = (struct bsa_slab_info){
        .base = bsa_page_address(slab.section, slab.head),
        .size = class->size,
        .stride = class->stride,
        .bytes = (size_t)bsa_word_count(word) << slab.section->page_shift,
        .capacity = capacity,
        .free_count = bsa_free_count(bsa_slab_page(slab)),
        .remote_free_count = bsa_slab_remote_count(classes, slab),
        .slot = bsa_word_slot(word),
        .state = (enum bsa_slab_state)bsa_word_list(word),
    };
    for (unsigned i = 0; i < capacity; i++) {
        uintptr_t address = bsa_slab_object_address(classes, slab, word, i);

        info->free_bits[i / 64] |= (uint64_t)!bsa_slab_is_live(slab.section, address) << i % 64;
    }
}

bsa_status bsa_slab_of(const struct bsa_root *root, uintptr_t address, struct bsa_slab_info *info) {
    const struct bsa_section *section = bsa_find_section(root, NULL, address);
    struct bsa_slab slab;
    uint64_t word;

    if (section == NULL) {
        return not_found(root);
    }
    if (!find_slab(section, bsa_page_of(section, address), &slab, &word)) {
        return BSA_NOT_ALLOCATED;
    }
    describe_slab(root, slab, word, info);
    return BSA_OK;
}

/* --- pages -------------------------------------------------------------------------------------
 */

static enum bsa_page_state state_of(uint64_t word) {
    if (bsa_word_state(word) == BSA_SLAB) {
        return bsa_word_list(word) == BSA_SLAB_EMPTY ? BSA_PAGE_EMPTY_SLAB : BSA_PAGE_SLAB;
    }
    if (bsa_word_state(word) == BSA_CACHED) {
        return BSA_PAGE_CACHED;
    }
    return bsa_word_state(word) == BSA_PAGES ? BSA_PAGE_BLOCK : BSA_PAGE_FREE;
}

bsa_status bsa_page_state_of(const struct bsa_root *root, uintptr_t address,
                             enum bsa_page_state *state) {
    const struct bsa_section *section = bsa_find_section(root, NULL, address);

    if (section == NULL) {
        return not_found(root);
    }
    merge_and_lock(root);
    *state = state_of(bsa_word_at(section, bsa_block_of(section, bsa_page_of(section, address))));
    unlock(root);
    return BSA_OK;
}

bsa_status bsa_page_states(const struct bsa_root *root, unsigned index, unsigned char *states) {
    const struct bsa_section *section = bsa_nth_section(root, index);

    if (section == NULL) {
        return BSA_NOT_FOUND;
    }
    bsa_page_caches_merge_all((struct bsa_root *)(uintptr_t)root);
    for (bsa_page_index head = 0; head < section->total_pages;) {
        uint64_t word = bsa_word_at(section, head);

        memset(states + head, (int)state_of(word), bsa_word_count(word));
        head += bsa_word_count(word);
    }
    return BSA_OK;
}

/* --- walks -------------------------------------------------------------------------------------
 */

typedef bool (*allocation_visitor)(void *context, const struct bsa_allocation *allocation);

static bool walk_objects(const struct bsa_root *root, struct bsa_slab slab, uint64_t word,
                         allocation_visitor visit, void *context) {
    uint32_t capacity = bsa_slab_capacity(&root->space.classes, word);
    struct bsa_allocation found;

    for (uint32_t index = 0; index < capacity; index++) {
        describe_object(root, slab, word, index, &found);
        if (bsa_slab_is_live(slab.section, found.address) && !visit(context, &found)) {
            return false;
        }
    }
    return true;
}

static bool walk_section(const struct bsa_root *root, struct bsa_section *section,
                         allocation_visitor visit, void *context) {
    struct bsa_slab block = {section, 0};
    struct bsa_allocation found;
    bool more = true;

    while (more && block.head < section->total_pages) {
        uint64_t word = bsa_page_word(bsa_slab_page(block));

        if (bsa_word_state(word) == BSA_SLAB) {
            more = walk_objects(root, block, word, visit, context);
        } else if (bsa_word_state(word) == BSA_PAGES) {
            describe_block(block, word, &found);
            more = visit(context, &found);
        }
        block.head += bsa_word_count(word);
    }
    return more;
}

void bsa_walk(const struct bsa_root *root, allocation_visitor visit, void *context) {
    struct bsa_section *section = bsa_first_section(root);

    while (section != NULL && walk_section(root, section, visit, context)) {
        section = bsa_next_section(root, section);
    }
}

void bsa_walk_slabs(const struct bsa_root *root,
                    bool (*visit)(void *context, const struct bsa_slab_info *slab), void *context) {
    struct bsa_section *section = bsa_first_section(root);
    struct bsa_slab_info info;
    bool more = true;

    for (; section != NULL && more; section = bsa_next_section(root, section)) {
        struct bsa_slab slab = {section, 0};

        while (more && slab.head < section->total_pages) {
            uint64_t word = bsa_page_word(bsa_slab_page(slab));

            if (bsa_word_state(word) == BSA_SLAB) {
                describe_slab(root, slab, word, &info);
                more = visit(context, &info);
            }
            slab.head += bsa_word_count(word);
        }
    }
}

/* --- statistics --------------------------------------------------------------------------------
 */

static void add_tally(struct bsa_stats *stats, const struct bsa_tally *tally) {
    stats->current_count += (uint64_t)bsa_gauge_value(&tally->count);
    stats->current_bytes += (uint64_t)bsa_gauge_value(&tally->bytes);
    stats->peak_count += (uint64_t)tally->count.peak;
    stats->peak_bytes += (uint64_t)tally->bytes.peak;
    stats->failures += tally->failures;
}

/* What the root counts as live page blocks although page caches hold it, and what they count for
 * it. */
static void settle_caches(const struct bsa_root *root, struct bsa_stats *stats) {
    uint64_t cached[BSA_MAX_ORDER + 1] = {0}, pages = cached_pages(root);
    unsigned shift = root->space.classes.page_shift;

    bsa_page_caches_count(root, NULL, cached);
    stats->current_bytes -= pages << shift;
    stats->allocated_bytes -= pages << shift;
    for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
        stats->current_count -= cached[order];
        stats->per_order[order].live -= cached[order];
        for (unsigned i = 0; i < root->space.slot_count; i++) {
            uint64_t total = root->space.slots[i].pages.stacks[order].taken;

            stats->per_order[order].total += total;
            stats->total_count += total;
            stats->total_bytes += total << order << shift;
        }
    }
}

/* Bytes granted to live page blocks beyond those asked for. */
static uint64_t page_slack(const struct bsa_root *root) {
    uint64_t slack = root->page_slack;

    for (unsigned i = 0; root->has_page_caches && i < root->space.slot_count; i++) {
        for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
            slack += (uint64_t)root->space.slots[i].pages.stacks[order].slack;
        }
    }
    return slack;
}

void bsa_usage(const struct bsa_root *root, struct bsa_usage *usage) {
    unsigned shift = root->space.classes.page_shift;
    unsigned tallies = root->serial ? 1 : root->space.slot_count; /* serial: all in the first */
    uint64_t cached = cached_pages(root) << shift;
    int64_t bytes = bsa_gauge_value(&root->page_tally.bytes) - (int64_t)cached;

    for (unsigned i = 0; i < tallies; i++) {
        bytes += bsa_gauge_value(&root->space.slots[i].tally.bytes);
    }
    *usage = (struct bsa_usage){
        .current_bytes = (uint64_t)bytes,
        .requested_bytes = (uint64_t)bytes - page_slack(root),
        .allocated_bytes = (root->allocated_pages << shift) - cached,
        .peak_allocated_bytes = root->peak_pages << shift,
    };
}

void bsa_stats(const struct bsa_root *root, struct bsa_stats *stats) {
    unsigned shift = root->space.classes.page_shift;

    memset(stats, 0, sizeof *stats);
    add_tally(stats, &root->page_tally);
    for (unsigned i = 0; i < root->space.slot_count; i++) {
        add_tally(stats, &root->space.slots[i].tally);
        for (unsigned c = 0; c < root->space.classes.count; c++) {
            const struct bsa_cache *cache = &root->space.slots[i].caches[c];

            stats->per_class[c].live += bsa_cache_live(cache) - cache->pending;
            stats->per_class[c].total += cache->total;
            stats->total_count += cache->total;
            stats->total_bytes += cache->total * cache->object_size;
            stats->overlaps += cache->overlaps;
        }
    }
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        stats->per_order[order] = root->per_order[order];
    }
    stats->total_count += root->total_blocks;
    stats->total_bytes += root->total_block_bytes;
    stats->allocated_bytes = root->allocated_pages << shift;
    stats->peak_allocated_bytes = root->peak_pages << shift;
    settle_caches(root, stats);
    stats->requested_bytes = stats->current_bytes - page_slack(root);
}

static void forget_peak(struct bsa_gauge *gauge) {
    gauge->peak -= gauge->below;
    gauge->below = 0;
}

static void forget_peaks(struct bsa_tally *tally) {
    forget_peak(&tally->count);
    forget_peak(&tally->bytes);
}

void bsa_reset_peak(struct bsa_root *root) {
    bsa_page_caches_merge_shared(root);
    root->peak_pages = root->allocated_pages;
    forget_peaks(&root->page_tally);
    for (unsigned i = 0; i < root->space.slot_count; i++) {
        forget_peaks(&root->space.slots[i].tally);
    }
}

size_t bsa_live_count(const struct bsa_root *root) {
    int64_t count = bsa_gauge_value(&root->page_tally.count);
    uint64_t cached[BSA_MAX_ORDER + 1] = {0};

    for (unsigned i = 0; i < root->space.slot_count; i++) {
        count += bsa_gauge_value(&root->space.slots[i].tally.count);
    }
    bsa_page_caches_count(root, NULL, cached);
    for (unsigned order = 0; order < BSA_CACHED_ORDERS; order++) {
        count -= (int64_t)cached[order];
    }
    return (size_t)count;
}

/* --- fragmentation -----------------------------------------------------------------------------
 */

/* usable: pages in blocks of the asked order and above, which all are of use to such a request. */
struct free_sums {
    uint64_t pages, blocks, usable;
};

static struct free_sums sum_free(const uint64_t free_blocks[BSA_MAX_ORDER + 1], unsigned order) {
    struct free_sums sums = {0, 0, 0};

    for (unsigned o = 0; o <= BSA_MAX_ORDER; o++) {
        sums.blocks += free_blocks[o];
        sums.pages += free_blocks[o] << o;
        sums.usable += o >= order ? free_blocks[o] << o : 0;
    }
    return sums;
}

static int unusable_of(const struct free_sums *sums) {
    if (sums->pages == 0) {
        return 1000;
    }
    return (int)((sums->pages - sums->usable) * 1000 / sums->pages);
}

static int extfrag_of(const struct free_sums *sums, unsigned order) {
    if (sums->blocks == 0) {
        return 0;
    }
    if (sums->usable != 0) {
        return -1000;
    }
    return 1000 - (int)((1000 + (sums->pages * 1000 >> order)) / sums->blocks);
}

int bsa_unusable_index(const uint64_t free_blocks[BSA_MAX_ORDER + 1], unsigned order) {
    struct free_sums sums = sum_free(free_blocks, order);

    return unusable_of(&sums);
}

int bsa_extfrag_index(const uint64_t free_blocks[BSA_MAX_ORDER + 1], unsigned order) {
    struct free_sums sums = sum_free(free_blocks, order);

    return extfrag_of(&sums, order);
}

void bsa_fragmentation_indices(const uint64_t free_blocks[BSA_MAX_ORDER + 1],
                               int64_t unusable[BSA_MAX_ORDER + 1],
                               int64_t extfrag[BSA_MAX_ORDER + 1]) {
    struct free_sums sums = sum_free(free_blocks, 0);

    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        unusable[order] = unusable_of(&sums);
        extfrag[order] = extfrag_of(&sums, order);
        sums.usable -= free_blocks[order] << order;
    }
}

/* --- words -------------------------------------------------------------------------------------
 */

const char *bsa_status_text(bsa_status status) {
    static const char *const texts[] = {
        [BSA_OK] = "success",
        [BSA_INVALID_PARAM] = "invalid parameter",
        [BSA_NO_MEMORY] = "no memory",
        [BSA_MEMORY_OVERLAP] = "overlaps memory that is already managed",
        [BSA_NOT_ALLOCATED] = "no live allocation starts here",
        [BSA_NOT_FOUND] = "outside every heap",
        [BSA_NOT_INITIALIZED] = "no section yet",
        [BSA_IN_USE] = "in use",
        [BSA_CORRUPTION] = "metadata is corrupt",
        [BSA_NO_TRANSLATION] = "physical address not available",
    };

    return (unsigned)status < sizeof texts / sizeof texts[0] ? texts[status] : "unknown status";
}
