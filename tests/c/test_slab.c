/* Size classes, and the slab layer on its own: no buddy and no facade, the program itself gives out
 * pages.
 *
 * The page giver hands out blocks from the front of the heap, and keeps what comes back in a list
 * for each order: the slab layer asks for no more. */
#include "check.h"

#include "cache.h"
#include "directory.h"
#include "section.h"
#include "size_class.h"
#include "slab.h"

enum { SLOTS = 2, MOST_BLOCKS = 4096 };

struct layer {
    struct bsa_space space;
    struct bsa_section *section;
    unsigned char *region;
    uint32_t next_page, pages_out;
    uint32_t returned[BSA_MAX_SLAB_ORDER + 1][MOST_BLOCKS];
    unsigned returned_count[BSA_MAX_SLAB_ORDER + 1];
};

static struct layer *layer_open(unsigned page_shift, size_t size) {
    struct layer *layer = aligned_memory(64, sizeof *layer);
    struct bsa_layout layout;

    memset(layer, 0, sizeof *layer);
    bsa_class_table_init(&layer->space.classes, page_shift);
    layer->space.slot_count = SLOTS;
    layer->space.slots = aligned_memory(64, SLOTS * sizeof *layer->space.slots);
    for (unsigned i = 0; i < SLOTS; i++) {
        struct bsa_slot *slot = &layer->space.slots[i];

        bsa_slot_init(slot, &layer->space.classes, i, &slot->tally);
    }
    layer->region = aligned_memory(64 * KIB, size);
    memset(layer->region, 0xa5, size);
    EXPECT(bsa_layout_region(&layout, &layer->space.classes, (uintptr_t)layer->region, size));
    layer->section = bsa_section_create(&layout, &layer->space.classes, 0);
    layer->section->derived.base = 1;
    bsa_directory_insert(&layer->space.directory, layer->section);
    return layer;
}

static void layer_close(struct layer *layer) {
    free(layer->region);
    free(layer->space.slots);
    free(layer);
}

static struct bsa_cache *cache_of(struct layer *layer, unsigned slot, size_t size) {
    return &layer->space.slots[slot].caches[bsa_class_for(&layer->space.classes, size, 0)];
}

/* "Here is one": a naturally aligned block of 2^order pages. */
static struct bsa_slab page_block(struct layer *layer, unsigned order) {
    uint32_t pages = 1U << order, head;

    if (layer->returned_count[order] > 0) {
        head = layer->returned[order][--layer->returned_count[order]];
    } else {
        while (bsa_nominal_page(layer->section, layer->next_page) % pages != 0) {
            layer->next_page++;
        }
        head = layer->next_page;
        layer->next_page += pages;
        EXPECT(layer->next_page <= layer->section->total_pages);
    }
    layer->pages_out += pages;
    return (struct bsa_slab){layer->section, head};
}

/* "This one is empty, take it back." */
static unsigned take_back(struct layer *layer, struct bsa_cache *cache) {
    struct bsa_slab slab;
    unsigned count = 0;

    while (bsa_cache_take_retired(&layer->space, cache, &slab)) {
        uint64_t word = bsa_page_word(bsa_slab_page(slab));
        unsigned order = bsa_word_order(word);

        EXPECT(bsa_word_state(word) != BSA_SLAB && bsa_word_state(word) != BSA_FREE);
        EXPECT_EQUAL(1U << order, bsa_word_count(word));
        layer->returned[order][layer->returned_count[order]++] = slab.head;
        layer->pages_out -= 1U << order;
        count++;
    }
    return count;
}

static uintptr_t layer_alloc(struct layer *layer, struct bsa_cache *cache) {
    uintptr_t address = bsa_cache_alloc(&layer->space, cache);

    if (address == 0) { /* "needs a slab" */
        unsigned order = bsa_cache_order(&layer->space, cache);

        bsa_cache_add_slab(&layer->space, cache, page_block(layer, order), order);
        address = bsa_cache_alloc(&layer->space, cache);
        EXPECT(address != 0);
    }
    return address;
}

/* What the facade does with an address: page, head, index. */
static struct bsa_slab slab_at(struct layer *layer, uintptr_t address, uint32_t *index) {
    struct bsa_slab slab = {layer->section, bsa_page_of(layer->section, address)};
    uint64_t word = bsa_page_word(bsa_slab_page(slab)), head_word;

    EXPECT_EQUAL(BSA_SLAB, bsa_word_state(word));
    slab.head -= bsa_word_back(word);
    head_word = bsa_page_word(bsa_slab_page(slab));
    EXPECT_EQUAL((uint32_t)head_word, (uint32_t)word);
    *index = bsa_slab_index_of(&layer->space.classes, slab, word, address);
    EXPECT(*index < bsa_slab_capacity(&layer->space.classes, word));
    EXPECT_EQUAL(address, bsa_slab_object_address(&layer->space.classes, slab, word, *index));
    return slab;
}

static bsa_status layer_free(struct layer *layer, struct bsa_cache *cache, uintptr_t address) {
    uint32_t index;
    struct bsa_slab slab = slab_at(layer, address, &index);
    struct bsa_page *page = bsa_page_around(layer->section, address);
    uint64_t granule = bsa_granule_at(layer->section, address);
    bsa_status status =
        bsa_cache_free(cache, layer->section, page, bsa_page_word(page), address, granule, &page);

    if (status == BSA_OK && bsa_slab_count_down(page)) {
        bsa_cache_relist(&layer->space, cache, slab);
    }
    return status;
}

static bsa_status layer_free_remote(struct layer *layer, uintptr_t address) {
    uint32_t index;
    struct bsa_slab slab = slab_at(layer, address, &index);
    uint64_t word = bsa_page_word(bsa_slab_page(slab));
    bool must_push;
    bsa_status status = bsa_slab_free_remote(slab, address, &must_push);

    if (must_push) {
        bsa_cache_push_remote(bsa_cache_of(&layer->space, word), slab);
    }
    return status;
}

static unsigned list_of(struct layer *layer, uintptr_t address) {
    uint32_t index;

    return bsa_word_list(bsa_page_word(bsa_slab_page(slab_at(layer, address, &index))));
}

static unsigned free_count_of(struct layer *layer, uintptr_t address) {
    uint32_t index;

    return bsa_free_count(bsa_slab_page(slab_at(layer, address, &index)));
}

static unsigned capacity_of(struct layer *layer, const struct bsa_cache *cache) {
    const struct bsa_class *class = &layer->space.classes.classes[cache->class_index];

    return class->capacity[class->order];
}

/* --- classes -----------------------------------------------------------------------------------
 */

static void class_sizes_rise_and_round_little(void) {
    static const size_t wanted[] = {8, 16, 32, 48, 64, 128, 256, 512, 1024, 2048};
    struct bsa_class_table table;
    unsigned found = 0;

    bsa_class_table_init(&table, 21);
    EXPECT_EQUAL(BSA_CLASSES, table.count);
    EXPECT_EQUAL(32768, table.largest);
    for (unsigned i = 0; i < table.count; i++) {
        size_t size = bsa_class_size(i);

        EXPECT_EQUAL(size, table.classes[i].size);
        EXPECT(i == 0 || size > bsa_class_size(i - 1));
        EXPECT(i == 0 || size % 16 == 0);
        EXPECT_EQUAL(i, bsa_class_of_size(size));
        for (unsigned k = 0; k < COUNT_OF(wanted); k++) {
            found += size == wanted[k];
        }
    }
    EXPECT_EQUAL(COUNT_OF(wanted), found);
    for (size_t size = 1; size <= 32768; size++) {
        size_t granted = bsa_class_size(bsa_class_of_size(size));

        EXPECT(granted >= size);
        EXPECT(bsa_class_of_size(size) == 0 || bsa_class_size(bsa_class_of_size(size) - 1) < size);
        EXPECT(size < 64 || (granted - size) * 5 < granted);   /* below 20 % */
        EXPECT(size < 128 || (granted - size) * 9 <= granted); /* eight to a doubling */
    }
    for (size_t doubling = 64; doubling < 32768; doubling *= 2) {
        unsigned classes = bsa_class_of_size(2 * doubling) - bsa_class_of_size(doubling);

        EXPECT(classes >= (doubling >= 128 ? 8 : 4));
    }
}

static void classes_reach_half_a_page_and_at_most_32_kib(void) {
    for (unsigned shift = 8; shift <= 21; shift++) {
        struct bsa_class_table table;
        /* With pages of 64 KiB, a single one has all the words there may be. */
        unsigned least = shift == 16 ? 2 : 4;
        uint32_t half = 1U << (shift - 1), granule;

        bsa_class_table_init(&table, shift);
        granule = 1U << table.granule_shift;
        EXPECT_EQUAL(shift <= 10   ? 1U << (shift - 6)
                     : shift <= 16 ? 16
                                   : 1U << (shift - 12),
                     granule);
        EXPECT_EQUAL(half < 32768 ? half : 32768, table.largest);
        EXPECT_EQUAL(table.largest, table.classes[table.count - 1].size);
        EXPECT_EQUAL(BSA_CLASSES, bsa_class_for(&table, (size_t)table.largest + 1, 0));
        EXPECT_EQUAL(BSA_CLASSES, bsa_class_for(&table, 1, (size_t)table.largest * 2));
        EXPECT_EQUAL(BSA_CLASSES, bsa_class_for(&table, SIZE_MAX, 0));
        EXPECT_EQUAL(0, bsa_class_for(&table, 0, 0));
        for (unsigned i = 0; i < table.count; i++) {
            const struct bsa_class *class = &table.classes[i];

            EXPECT(class->order <= BSA_MAX_SLAB_ORDER);
            EXPECT(class->capacity[0] >= 2);
            EXPECT(class->stride >= class->size && class->stride < class->size + granule);
            EXPECT_EQUAL(0, class->stride % granule);
            EXPECT(class->capacity[class->order] >= least);
            for (unsigned order = 0; order <= BSA_MAX_SLAB_ORDER; order++) {
                EXPECT((uint64_t) class->capacity[order] * class->stride <= (uint64_t)1
                                                                                << (shift + order));
                EXPECT(class->capacity[order] == 0 || bsa_bitmap_words(&table, order) <= 64);
            }
        }
    }
}

static void a_class_for_an_alignment_has_every_object_aligned(void) {
    struct bsa_class_table table;

    bsa_class_table_init(&table, 12);
    for (size_t align = 1; align <= 2048; align *= 2) {
        for (size_t size = 0; size <= 2048; size += 7) {
            unsigned index = bsa_class_for(&table, size, align);

            EXPECT(index < table.count);
            EXPECT(bsa_class_size(index) >= size && bsa_class_size(index) % align == 0);
            for (unsigned smaller = bsa_class_of_size(size == 0 ? 1 : size); smaller < index;
                 smaller++) {
                EXPECT(bsa_class_size(smaller) % align != 0);
            }
        }
    }
}

/* With pages of 4 KiB: two pages; four where those lose hardly anything, and two lose more; else
 * the fewest that lose at most a sixteenth, up to eight. */
static void slabs_are_as_large_as_they_must_be(void) {
    static const struct {
        size_t size;
        unsigned order;
    } wanted[] = {{8, 1},    {64, 1},   {416, 1},  {576, 1},  {640, 2},  {704, 2},
                  {768, 2},  {832, 2},  {960, 2},  {1024, 1}, {1280, 1}, {1408, 2},
                  {1536, 1}, {1664, 3}, {1920, 1}, {2048, 1}};
    struct bsa_class_table table;

    bsa_class_table_init(&table, 12);
    for (unsigned i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        EXPECT_EQUAL(wanted[i].order, table.classes[bsa_class_of_size(wanted[i].size)].order);
    }
}

/* Against the starts one by one: the first of each word, and the words that have none. */
static void the_starts_of_a_slab_are_those_of_its_objects(void) {
    for (unsigned shift = 8; shift <= 21; shift++) {
        struct bsa_class_table table;

        bsa_class_table_init(&table, shift);
        for (unsigned i = 0; i < table.count * (BSA_MAX_SLAB_ORDER + 1); i++) {
            const struct bsa_class *class = &table.classes[i % table.count];
            unsigned order = i / table.count;
            uint64_t wanted[64] = {0};
            struct bsa_starts at;

            for (uint32_t k = 0; k < class->capacity[order]; k++) {
                uint32_t granule = (k * class->stride) >> table.granule_shift;

                wanted[granule / 64] |= 1ULL << granule % 64;
            }
            if (class->capacity[order] == 0) {
                continue;
            }
            for (uint32_t w = 0; w < bsa_bitmap_words(&table, order); w++) {
                at = bsa_starts_in(class, order, w);
                EXPECT_EQUAL(wanted[w], bsa_starts_bits(&at));
            }
            at = bsa_starts_in(class, order, 0);
            for (uint32_t w = 0; w < bsa_bitmap_words(&table, order); w++) {
                if (wanted[w] != 0) {
                    EXPECT_EQUAL(w, at.word);
                    EXPECT_EQUAL(wanted[w], bsa_starts_bits(&at));
                    bsa_starts_next(&at);
                }
            }
            EXPECT_EQUAL(0, at.word);
            EXPECT_EQUAL(wanted[0], bsa_starts_bits(&at));
        }
    }
}

static void the_table_of_sizes_agrees_with_what_it_was_computed_from(void) {
    for (unsigned shift = 8; shift <= 21; shift++) {
        struct bsa_class_table table;

        bsa_class_table_init(&table, shift);
        for (size_t size = 1; size <= table.largest; size++) {
            EXPECT_EQUAL(bsa_class_of_size(size), bsa_class_at_hand(&table, size));
        }
        EXPECT_EQUAL(0, bsa_class_at_hand(&table, 0));
    }
}

static void the_hash_tells_tables_apart(void) {
    uint64_t hashes[14];

    for (unsigned shift = 8; shift <= 21; shift++) {
        struct bsa_class_table table;

        bsa_class_table_init(&table, shift);
        hashes[shift - 8] = bsa_class_table_hash(&table);
        for (unsigned other = 8; other < shift && shift <= 16; other++) {
            EXPECT(hashes[other - 8] != hashes[shift - 8]);
        }
    }
}

/* --- the layer alone ---------------------------------------------------------------------------
 */

static void the_first_object_needs_a_slab_and_the_next_ones_do_not(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 64);
    unsigned capacity = capacity_of(layer, cache);
    uintptr_t objects[512] = {0};

    EXPECT_EQUAL(0, bsa_cache_alloc(&layer->space, cache));
    for (unsigned i = 0; i < capacity; i++) {
        objects[i] = layer_alloc(layer, cache);
        EXPECT_EQUAL(objects[0] + i * 64, objects[i]);
        EXPECT_EQUAL(capacity - 1 - i, free_count_of(layer, objects[0]));
        EXPECT_EQUAL(i + 1, bsa_cache_live(cache));
    }
    EXPECT_EQUAL(BSA_SLAB_CURRENT, list_of(layer, objects[0]));
    EXPECT_EQUAL(0, bsa_cache_alloc(&layer->space, cache)); /* full: needs another */
    EXPECT_EQUAL(BSA_SLAB_FULL, list_of(layer, objects[0]));
    objects[capacity] = layer_alloc(layer, cache);
    EXPECT(objects[capacity] >= objects[0] + capacity * 64);
    EXPECT_EQUAL(capacity + 1, cache->total);
    layer_close(layer);
}

static void every_class_of_every_page_size_serves_a_slab_full(void) {
    for (unsigned shift = 8; shift <= 21; shift += shift < 16 ? 1 : 5) {
        size_t slab_bytes = (size_t)8 << shift;
        struct layer *layer = layer_open(shift, 4 * slab_bytes + 1 * MIB);

        for (unsigned c = 0; c < layer->space.classes.count; c++) {
            struct bsa_cache *cache = &layer->space.slots[1].caches[c];
            unsigned capacity = capacity_of(layer, cache), k;
            size_t size = bsa_class_size(c);
            uintptr_t objects[4097] = {0}, end;

            for (k = 0; k < capacity; k++) {
                objects[k] = layer_alloc(layer, cache);
                memset((void *)objects[k], (int)k, size);
            }
            EXPECT_EQUAL(0, bsa_cache_alloc(&layer->space, cache));
            end = objects[0] + ((uintptr_t)1 << shift << bsa_cache_order(&layer->space, cache));
            for (k = 0; k < capacity; k++) {
                const unsigned char *bytes = (const unsigned char *)objects[k];

                EXPECT_EQUAL((unsigned char)k, bytes[0]);
                EXPECT_EQUAL((unsigned char)k, bytes[size - 1]);
                EXPECT(objects[k] + size <= end);
                EXPECT_OK(layer_free(layer, cache, objects[k]));
                EXPECT_STATUS(BSA_NOT_ALLOCATED, layer_free(layer, cache, objects[k]));
            }
            EXPECT_EQUAL(0, bsa_cache_live(cache));
            bsa_cache_trim(&layer->space, cache);
            EXPECT_EQUAL(1, take_back(layer, cache));
            EXPECT_EQUAL(0, layer->pages_out);
            layer->next_page = 0;
            memset(layer->returned_count, 0, sizeof layer->returned_count);
        }
        layer_close(layer);
    }
}

static void freed_objects_are_used_again_before_a_slab_is_asked_for(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 64);
    unsigned capacity = capacity_of(layer, cache), reused = 0;
    uintptr_t objects[512] = {0}, again[512];

    for (unsigned i = 0; i < capacity; i++) {
        objects[i] = layer_alloc(layer, cache);
    }
    EXPECT_EQUAL(0, bsa_cache_alloc(&layer->space, cache));
    for (unsigned i = 0; i < capacity; i += 2) {
        EXPECT_OK(layer_free(layer, cache, objects[i]));
        EXPECT_EQUAL(BSA_SLAB_PARTIAL, list_of(layer, objects[1]));
    }
    EXPECT_EQUAL(0, take_back(layer, cache));
    while ((again[reused] = bsa_cache_alloc(&layer->space, cache)) != 0) {
        reused++;
    }
    EXPECT_EQUAL((capacity + 1) / 2, reused);
    for (unsigned i = 0; i < reused; i++) { /* those remembered, then the lowest first */
        unsigned wanted = i < BSA_REMEMBERED ? BSA_REMEMBERED - 1 - i : i;

        EXPECT_EQUAL(objects[2 * wanted], again[i]);
    }
    layer_close(layer);
}

/* The most there are: more than a cache remembers. */
static void the_object_freed_last_is_handed_out_first(void) {
    enum { FREED = BSA_REMEMBERED + 3 };
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 48);
    uintptr_t objects[4][256], pick[FREED];
    unsigned capacity = capacity_of(layer, cache);

    EXPECT(capacity <= COUNT_OF(objects[0]));
    for (unsigned s = 0; s < 4; s++) {
        for (unsigned i = 0; i < capacity; i++) {
            objects[s][i] = layer_alloc(layer, cache);
        }
    }
    for (unsigned i = 0; i < FREED; i++) {
        pick[i] = objects[i * 7 % 4][i * 31 % capacity];
        EXPECT_OK(layer_free(layer, cache, pick[i]));
        EXPECT_STATUS(BSA_NOT_ALLOCATED, layer_free(layer, cache, pick[i]));
        EXPECT_STATUS(BSA_NOT_ALLOCATED, layer_free_remote(layer, pick[i]));
    }
    for (unsigned i = BSA_REMEMBERED; i-- > 0;) {
        EXPECT_EQUAL(pick[i], bsa_cache_alloc(&layer->space, cache));
    }
    for (unsigned i = 0; i < 3; i++) {
        EXPECT(bsa_cache_alloc(&layer->space, cache) != 0);
    }
    EXPECT_EQUAL(0, bsa_cache_alloc(&layer->space, cache));
    layer_close(layer);
}

/* Else an object could be handed out that lies in another class's slab by now. */
static void objects_of_a_slab_that_was_given_back_are_forgotten(void) {
    for (unsigned trimmed = 0; trimmed < 2; trimmed++) {
        struct layer *layer = layer_open(12, 4 * MIB);
        struct bsa_cache *cache = cache_of(layer, 0, 1024);
        uintptr_t objects[3][64];
        unsigned capacity = capacity_of(layer, cache), slabs = trimmed ? 1 : 3;

        EXPECT(capacity <= BSA_REMEMBERED && capacity <= COUNT_OF(objects[0]));
        for (unsigned s = 0; s < slabs; s++) {
            for (unsigned i = 0; i < capacity; i++) {
                objects[s][i] = layer_alloc(layer, cache);
            }
        }
        for (unsigned s = 0; s < slabs; s++) {
            for (unsigned i = 0; i < capacity; i++) {
                EXPECT_OK(layer_free(layer, cache, objects[s][i]));
            }
        }
        if (trimmed) {
            EXPECT(bsa_cache_remembered(cache) != 0);
            bsa_cache_trim(&layer->space, cache);
        }
        EXPECT_EQUAL(0, bsa_cache_remembered(cache));
        EXPECT(take_back(layer, cache) > 0);
        layer_close(layer);
    }
}

static void the_first_empty_slab_is_kept_and_a_further_one_given_back(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 256);
    unsigned capacity = capacity_of(layer, cache),
             pages = 1U << bsa_cache_order(&layer->space, cache);
    uintptr_t objects[4][512] = {{0}};

    for (unsigned s = 0; s < 4; s++) {
        for (unsigned i = 0; i < capacity; i++) {
            objects[s][i] = layer_alloc(layer, cache);
        }
    }
    EXPECT_EQUAL(4 * pages, layer->pages_out);
    for (unsigned s = 0; s < 3; s++) {
        EXPECT_EQUAL(BSA_SLAB_FULL, list_of(layer, objects[s][0]));
        for (unsigned i = 0; i < capacity; i++) {
            EXPECT_OK(layer_free(layer, cache, objects[s][i]));
        }
        EXPECT_EQUAL(s == 0 ? 0 : 1, take_back(layer, cache));
    }
    EXPECT_EQUAL(BSA_SLAB_EMPTY, list_of(layer, objects[0][0]));
    EXPECT_EQUAL(2 * pages, layer->pages_out);
    /* The current one empties as well: only one of the two stays. */
    for (unsigned i = 0; i < capacity; i++) {
        EXPECT_OK(layer_free(layer, cache, objects[3][i]));
    }
    EXPECT_EQUAL(1, take_back(layer, cache));
    EXPECT_EQUAL(pages, layer->pages_out);
    EXPECT_EQUAL(objects[0][0], bsa_cache_alloc(&layer->space, cache)); /* the kept one serves */
    EXPECT_OK(layer_free(layer, cache, objects[0][0]));
    bsa_cache_trim(&layer->space, cache);
    EXPECT_EQUAL(1, take_back(layer, cache));
    EXPECT_EQUAL(0, layer->pages_out);
    EXPECT_EQUAL(0, bsa_cache_live(cache));
    layer_close(layer);
}

/* All objects of a slab, the cache's current one at the end. */
static void take_slab(struct layer *layer, struct bsa_cache *cache, uintptr_t *objects) {
    for (unsigned i = 0; i < capacity_of(layer, cache); i++) {
        objects[i] = layer_alloc(layer, cache);
    }
}

static void free_slab(struct layer *layer, struct bsa_cache *cache, const uintptr_t *objects) {
    for (unsigned i = 0; i < capacity_of(layer, cache); i++) {
        EXPECT_OK(layer_free(layer, cache, objects[i]));
    }
}

static void an_empty_current_slab_is_the_one_that_is_kept(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 256);
    uintptr_t full[64], current[64];

    EXPECT(capacity_of(layer, cache) <= COUNT_OF(full));
    take_slab(layer, cache, full);
    take_slab(layer, cache, current);
    free_slab(layer, cache, current);
    EXPECT_EQUAL(BSA_SLAB_CURRENT, list_of(layer, current[0]));
    EXPECT_EQUAL(0, take_back(layer, cache));
    free_slab(layer, cache, full);
    EXPECT_EQUAL(1, take_back(layer, cache));
    EXPECT_EQUAL(BSA_SLAB_CURRENT, list_of(layer, current[0]));
    layer_close(layer);
}

static void a_slab_that_becomes_current_beside_an_empty_one_is_given_back_when_empty(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 256);
    uintptr_t objects[3][64];

    EXPECT(capacity_of(layer, cache) <= COUNT_OF(objects[0]));
    for (unsigned s = 0; s < 3; s++) {
        take_slab(layer, cache, objects[s]);
    }
    free_slab(layer, cache, objects[0]);
    EXPECT_OK(layer_free(layer, cache, objects[1][5]));
    bsa_cache_forget(cache);
    EXPECT_EQUAL(objects[1][5], bsa_cache_alloc(&layer->space, cache));
    EXPECT_EQUAL(BSA_SLAB_EMPTY, list_of(layer, objects[0][0]));
    EXPECT_EQUAL(BSA_SLAB_CURRENT, list_of(layer, objects[1][0]));
    free_slab(layer, cache, objects[1]);
    EXPECT_EQUAL(1, take_back(layer, cache));
    EXPECT_EQUAL(BSA_SLAB_EMPTY, list_of(layer, objects[0][0]));
    layer_close(layer);
}

static void a_current_slab_that_others_empty_stays_current(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 256);
    uintptr_t objects[64];

    EXPECT(capacity_of(layer, cache) <= COUNT_OF(objects));
    take_slab(layer, cache, objects);
    for (unsigned i = 0; i < capacity_of(layer, cache); i++) {
        EXPECT_OK(layer_free_remote(layer, objects[i]));
    }
    bsa_cache_drain(&layer->space, cache);
    EXPECT_EQUAL(BSA_SLAB_CURRENT, list_of(layer, objects[0]));
    EXPECT_EQUAL(0, take_back(layer, cache));
    layer_close(layer);
}

static void a_slab_of_a_smaller_order_will_do(void) {
    struct layer *layer = layer_open(12, 4 * MIB);

    for (unsigned c = 0; c < layer->space.classes.count; c++) {
        struct bsa_cache *cache = &layer->space.slots[0].caches[c];

        for (unsigned order = 0; order <= BSA_MAX_SLAB_ORDER; order++) {
            unsigned capacity = layer->space.classes.classes[c].capacity[order];
            uintptr_t objects[4097];
            unsigned k = 0;

            EXPECT_EQUAL(0, bsa_cache_alloc(&layer->space, cache));
            bsa_cache_add_slab(&layer->space, cache, page_block(layer, order), order);
            while ((objects[k] = bsa_cache_alloc(&layer->space, cache)) != 0) {
                k++;
            }
            EXPECT_EQUAL(capacity, k);
            while (k > 0) {
                EXPECT_OK(layer_free(layer, cache, objects[--k]));
            }
            bsa_cache_trim(&layer->space, cache);
            EXPECT_EQUAL(1, take_back(layer, cache));
        }
    }
    layer_close(layer);
}

static void a_given_back_slab_leaves_no_trace_in_its_pages(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 2048);
    uintptr_t object = layer_alloc(layer, cache);
    uint32_t index;
    struct bsa_slab slab = slab_at(layer, object, &index);
    unsigned pages = 1U << bsa_cache_order(&layer->space, cache);

    for (uint32_t i = 1; i < pages; i++) {
        EXPECT_EQUAL(bsa_slab_inside_word(bsa_slab_word(bsa_cache_order(&layer->space, cache),
                                                        cache->class_index, 0, BSA_SLAB_CURRENT),
                                          i),
                     bsa_word_at(layer->section, slab.head + i));
    }
    EXPECT_OK(layer_free(layer, cache, object));
    bsa_cache_trim(&layer->space, cache);
    EXPECT_EQUAL(1, take_back(layer, cache));
    for (uint32_t i = 1; i < pages; i++) {
        EXPECT_EQUAL(0, bsa_word_at(layer->section, slab.head + i));
    }
    layer_close(layer);
}

/* --- remote frees ------------------------------------------------------------------------------
 */

static void remote_frees_are_counted_and_come_back_when_drained(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 64);
    unsigned capacity = capacity_of(layer, cache);
    uintptr_t objects[512] = {0}, drained[512];
    uint32_t index;
    struct bsa_slab slab;

    for (unsigned i = 0; i < capacity; i++) {
        objects[i] = layer_alloc(layer, cache);
    }
    slab = slab_at(layer, objects[0], &index);
    for (unsigned i = 0; i < capacity; i++) {
        EXPECT_EQUAL(i, bsa_slab_remote_count(&layer->space.classes, slab));
        EXPECT_OK(layer_free_remote(layer, objects[i]));
        EXPECT_STATUS(BSA_NOT_ALLOCATED, layer_free_remote(layer, objects[i]));
        EXPECT_STATUS(BSA_NOT_ALLOCATED, layer_free(layer, cache, objects[i]));
    }
    EXPECT_EQUAL(0, free_count_of(layer, objects[0])); /* the owner has not looked yet */
    for (unsigned i = 0; i < capacity; i++) {
        drained[i] = bsa_cache_alloc(&layer->space, cache);
        EXPECT_EQUAL(objects[i], drained[i]);
    }
    EXPECT_EQUAL(0, bsa_slab_remote_count(&layer->space.classes, slab));
    EXPECT_EQUAL(capacity, cache->drained);
    EXPECT_EQUAL(0, cache->overlaps);
    layer_close(layer);
}

static void an_object_freed_locally_cannot_be_freed_remotely(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 64);
    uintptr_t kept = layer_alloc(layer, cache), freed = layer_alloc(layer, cache);

    EXPECT_OK(layer_free(layer, cache, freed));
    EXPECT_STATUS(BSA_NOT_ALLOCATED, layer_free_remote(layer, freed));
    EXPECT_OK(layer_free_remote(layer, kept));
    EXPECT_STATUS(BSA_NOT_ALLOCATED, layer_free_remote(layer, freed)); /* in a word in use */
    bsa_cache_drain(&layer->space, cache);
    EXPECT_STATUS(BSA_NOT_ALLOCATED, layer_free_remote(layer, kept));
    EXPECT_EQUAL(0, bsa_cache_live(cache));
    layer_close(layer);
}

/* A remote free between steps: its bit is set, but it has not named the word or not pushed the slab
 * yet. The slab must stay until it has. */
static void a_slab_is_kept_until_a_remote_free_under_way_is_over(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 1024);
    unsigned capacity = capacity_of(layer, cache);
    uintptr_t objects[64] = {0};
    uint32_t index;
    struct bsa_slab slab;
    _Atomic uint64_t *remote;
    bool must_push;

    for (unsigned i = 0; i < capacity; i++) {
        objects[i] = layer_alloc(layer, cache);
    }
    slab = slab_at(layer, objects[0], &index);
    remote = &bsa_slab_bits(slab)->remote;
    atomic_fetch_or(remote, 1); /* step 1 alone */
    for (unsigned i = 1; i < capacity; i++) {
        EXPECT_OK(layer_free(layer, cache, objects[i]));
    }
    bsa_cache_trim(&layer->space, cache);
    EXPECT_EQUAL(0, take_back(layer, cache));
    atomic_fetch_and(remote, ~(uint64_t)1);
    EXPECT_OK(bsa_slab_free_remote(slab, objects[0], &must_push)); /* steps 1 to 3 */
    EXPECT(must_push);
    bsa_cache_trim(&layer->space, cache);
    EXPECT_EQUAL(0, take_back(layer, cache));
    bsa_cache_push_remote(cache, slab); /* step 4 */
    bsa_cache_trim(&layer->space, cache);
    EXPECT_EQUAL(1, take_back(layer, cache));
    EXPECT_EQUAL(0, bsa_cache_live(cache));
    layer_close(layer);
}

/* A double free that raced with the owner's own free: it has named its word, and is about to push
 * the slab. Were the slab given up and made anew meanwhile, it would be pushed twice: the stack
 * would be a circle. */
static void a_named_slab_is_kept_until_it_has_been_pushed(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 1024);
    uintptr_t object = layer_alloc(layer, cache);
    uint32_t index;
    struct bsa_slab slab = slab_at(layer, object, &index);

    EXPECT_OK(layer_free(layer, cache, object));
    atomic_fetch_or(&bsa_slab_bits(slab)->remote, 1);
    atomic_fetch_or(&bsa_slab_page(slab)->summary, 1);
    bsa_cache_trim(&layer->space, cache);
    EXPECT_EQUAL(0, take_back(layer, cache));
    bsa_cache_push_remote(cache, slab);
    bsa_cache_trim(&layer->space, cache);
    EXPECT_EQUAL(1, take_back(layer, cache));
    EXPECT_EQUAL(1, cache->overlaps);
    EXPECT_EQUAL(0, bsa_cache_live(cache));
    layer_close(layer);
}

/* What such a double free leaves behind: the object is free on both sides, and its word is named.
 */
static void name_as_a_double_free_does(struct layer *layer, uintptr_t object) {
    uint32_t index;
    struct bsa_slab slab = slab_at(layer, object, &index);
    uint64_t granule = bsa_granule_at(layer->section, object);
    struct bsa_bits *bits = layer->section->derived.bits + granule / 64;

    atomic_fetch_or(&bits->remote, 1ULL << granule % 64);
    atomic_fetch_or(&bsa_slab_page(slab)->summary, 1ULL << (bits - bsa_slab_bits(slab)));
}

/* The same with a slab that is not the current one: emptied after it was named, or before. */
static void a_named_slab_is_kept_where_another_empty_one_is(void) {
    for (int named_first = 0; named_first < 2; named_first++) {
        struct layer *layer = layer_open(12, 4 * MIB);
        struct bsa_cache *cache = cache_of(layer, 0, 256);
        uintptr_t empty[64], named[64], current[64];
        unsigned last = capacity_of(layer, cache) - 1;
        uint32_t index;

        EXPECT(last < COUNT_OF(named));
        take_slab(layer, cache, named);
        take_slab(layer, cache, empty);
        take_slab(layer, cache, current);
        if (named_first) {
            free_slab(layer, cache, empty);
            EXPECT_EQUAL(BSA_SLAB_EMPTY, list_of(layer, empty[0]));
            EXPECT_OK(layer_free(layer, cache, named[last]));
            name_as_a_double_free_does(layer, named[last]);
            for (unsigned i = 0; i < last; i++) {
                EXPECT_OK(layer_free(layer, cache, named[i]));
            }
        } else {
            free_slab(layer, cache, named);
            EXPECT_EQUAL(BSA_SLAB_EMPTY, list_of(layer, named[0]));
            name_as_a_double_free_does(layer, named[last]);
            bsa_cache_trim(&layer->space, cache);
        }
        EXPECT_EQUAL(0, take_back(layer, cache));
        bsa_cache_push_remote(cache, slab_at(layer, named[0], &index));
        bsa_cache_trim(&layer->space, cache);
        EXPECT_EQUAL(named_first ? 2 : 1, take_back(layer, cache));
        EXPECT_EQUAL(1, cache->overlaps);
        layer_close(layer);
    }
}

/* A freer that was slow to push may find that the slab has another owner by then. */
static void a_slab_on_the_stack_of_another_cache_reaches_its_owner(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *owner = cache_of(layer, 0, 64), *other = cache_of(layer, 1, 64);
    uintptr_t object = layer_alloc(layer, owner);
    uint32_t index;
    struct bsa_slab slab = slab_at(layer, object, &index);
    bool must_push;

    EXPECT_OK(bsa_slab_free_remote(slab, object, &must_push));
    EXPECT(must_push);
    bsa_cache_push_remote(other, slab);
    bsa_cache_drain(&layer->space, other);
    EXPECT_EQUAL(1, bsa_cache_live(owner));
    bsa_cache_drain(&layer->space, owner);
    EXPECT_EQUAL(0, bsa_cache_live(owner));
    EXPECT_EQUAL(0, bsa_cache_live(other));
    layer_close(layer);
}

/* Or that it is no slab any more: then the name is wiped out, for a slab made there later must be
 * pushed like any other; and so are the bits, for its objects are new. */
static void a_late_double_free_leaves_no_trace_in_the_next_slab(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 1024);
    uintptr_t object = layer_alloc(layer, cache), again;
    uint32_t index;
    struct bsa_slab slab = slab_at(layer, object, &index);

    EXPECT_OK(layer_free(layer, cache, object));
    bsa_cache_trim(&layer->space, cache);
    EXPECT_EQUAL(1, take_back(layer, cache));
    atomic_fetch_or(&bsa_slab_bits(slab)->remote, 1);
    atomic_fetch_or(&bsa_slab_page(slab)->summary, 1);
    bsa_cache_push_remote(cache, slab);
    bsa_cache_drain(&layer->space, cache);
    EXPECT_EQUAL(0, atomic_load(&bsa_slab_page(slab)->summary));
    again = layer_alloc(layer, cache);
    EXPECT_EQUAL(object, again);
    EXPECT_EQUAL(0, bsa_slab_remote_count(&layer->space.classes, slab));
    EXPECT_OK(layer_free_remote(layer, again));
    bsa_cache_drain(&layer->space, cache);
    EXPECT_EQUAL(0, bsa_cache_live(cache));
    layer_close(layer);
}

/* Looking at a full slab means reading its descriptor: with rubbish in all of them but one, the
 * owner still finds what was freed remotely in that one. */
static void full_slabs_are_not_looked_at_again(void) {
    enum { SLABS = 200 };
    struct layer *layer = layer_open(12, 16 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 128);
    unsigned capacity = capacity_of(layer, cache);
    static struct bsa_page saved[SLABS];
    static uintptr_t first[SLABS], second[SLABS];
    uint32_t index;

    for (unsigned s = 0; s < SLABS; s++) {
        for (unsigned i = 0; i < capacity; i++) {
            uintptr_t object = layer_alloc(layer, cache);

            first[s] = i == 0 ? object : first[s];
            second[s] = i == 1 ? object : second[s];
        }
    }
    EXPECT_EQUAL(0, bsa_cache_alloc(&layer->space, cache));
    for (unsigned chosen = 0; chosen < SLABS; chosen += 67) {
        for (unsigned s = 0; s < SLABS; s++) {
            struct bsa_page *page = bsa_slab_page(slab_at(layer, first[s], &index));

            EXPECT_EQUAL(BSA_SLAB_FULL, list_of(layer, first[s]));
            saved[s] = *page;
        }
        EXPECT_OK(layer_free_remote(layer, second[chosen]));
        saved[chosen] = *bsa_slab_page(slab_at(layer, first[chosen], &index));
        for (unsigned s = 0; s < SLABS; s++) {
            if (s != chosen) {
                memset(bsa_slab_page(slab_at(layer, first[s], &index)), 0xee, sizeof saved[s]);
            }
        }
        EXPECT_EQUAL(second[chosen], bsa_cache_alloc(&layer->space, cache));
        EXPECT_EQUAL(0, bsa_cache_alloc(&layer->space, cache));
        for (unsigned s = 0; s < SLABS; s++) {
            if (s != chosen) {
                uint32_t head = bsa_page_of(layer->section, first[s]);

                memcpy(bsa_page_at(layer->section, head), &saved[s], sizeof saved[s]);
            }
        }
    }
    layer_close(layer);
}

static void partial_slabs_are_used_first_in_first_out(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 256);
    unsigned capacity = capacity_of(layer, cache);
    uintptr_t objects[5][64] = {{0}};

    for (unsigned s = 0; s < 5; s++) {
        for (unsigned i = 0; i < capacity; i++) {
            objects[s][i] = layer_alloc(layer, cache);
        }
    }
    EXPECT_EQUAL(0, bsa_cache_alloc(&layer->space, cache));
    EXPECT_OK(layer_free(layer, cache, objects[3][5]));
    EXPECT_OK(layer_free(layer, cache, objects[1][2]));
    EXPECT_OK(layer_free(layer, cache, objects[4][0]));
    EXPECT_OK(layer_free(layer, cache, objects[3][1]));
    bsa_cache_forget(cache);
    EXPECT_EQUAL(objects[3][1], bsa_cache_alloc(&layer->space, cache));
    EXPECT_EQUAL(objects[3][5], bsa_cache_alloc(&layer->space, cache));
    EXPECT_EQUAL(objects[1][2], bsa_cache_alloc(&layer->space, cache));
    EXPECT_EQUAL(objects[4][0], bsa_cache_alloc(&layer->space, cache));
    EXPECT_EQUAL(0, bsa_cache_alloc(&layer->space, cache));
    layer_close(layer);
}

static void a_partial_slab_that_ran_dry_is_passed_over(void) {
    struct layer *layer = layer_open(12, 4 * MIB);
    struct bsa_cache *cache = cache_of(layer, 0, 256);
    uintptr_t objects[4][64] = {{0}};

    for (unsigned s = 0; s < 4; s++) {
        take_slab(layer, cache, objects[s]);
    }
    EXPECT_EQUAL(0, bsa_cache_alloc(&layer->space, cache));
    for (unsigned s = 0; s < 2; s++) { /* their last free object is remembered, and taken */
        EXPECT_OK(layer_free(layer, cache, objects[s][3]));
        EXPECT_EQUAL(objects[s][3], bsa_cache_alloc(&layer->space, cache));
        EXPECT_EQUAL(BSA_SLAB_PARTIAL, list_of(layer, objects[s][3]));
    }
    EXPECT_OK(layer_free(layer, cache, objects[2][5]));
    bsa_cache_forget(cache);
    EXPECT_EQUAL(objects[2][5], bsa_cache_alloc(&layer->space, cache));
    EXPECT_EQUAL(BSA_SLAB_FULL, list_of(layer, objects[0][3]));
    EXPECT_EQUAL(BSA_SLAB_FULL, list_of(layer, objects[1][3]));
    EXPECT_OK(layer_free(layer, cache, objects[0][7]));
    EXPECT_EQUAL(BSA_SLAB_PARTIAL, list_of(layer, objects[0][7]));
    layer_close(layer);
}

/* Random allocation, local and remote freeing, draining and trimming on two slots against plain
 * arrays. */
static void counts_and_states_hold_through_random_use(void) {
    enum { MOST = 6000 };
    static uintptr_t live[SLOTS][MOST];
    static const size_t sizes[] = {8, 64, 144, 1024};

    for (unsigned z = 0; z < COUNT_OF(sizes); z++) {
        struct layer *layer = layer_open(12, 16 * MIB);
        unsigned count[SLOTS] = {0};
        uint64_t seed = 77 + z;

        for (unsigned step = 0; step < 60000; step++) {
            unsigned slot = random_below(&seed, SLOTS);
            struct bsa_cache *cache = cache_of(layer, slot, sizes[z]);
            bool growing = step / 4000 % 2 == 0;

            if (count[slot] < MOST && random_below(&seed, 16) < (growing ? 10U : 6U)) {
                uintptr_t object = layer_alloc(layer, cache);

                memset((void *)object, (int)slot + 1, sizes[z]);
                live[slot][count[slot]++] = object;
            } else if (count[slot] > 0) {
                unsigned victim = random_below(&seed, count[slot]);
                uintptr_t object = live[slot][victim];

                EXPECT_EQUAL(slot + 1, *(unsigned char *)object);
                EXPECT_EQUAL(slot + 1, ((unsigned char *)object)[sizes[z] - 1]);
                EXPECT_OK(random_below(&seed, 2) == 0 ? layer_free(layer, cache, object)
                                                      : layer_free_remote(layer, object));
                live[slot][victim] = live[slot][--count[slot]];
            }
            if (random_below(&seed, 1000) == 0) {
                bsa_cache_trim(&layer->space, cache);
            }
            take_back(layer, cache);
        }
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            struct bsa_cache *cache = cache_of(layer, slot, sizes[z]);

            bsa_cache_drain(&layer->space, cache);
            EXPECT_EQUAL(count[slot], bsa_cache_live(cache));
            while (count[slot] > 0) {
                EXPECT_OK(layer_free_remote(layer, live[slot][--count[slot]]));
            }
            bsa_cache_trim(&layer->space, cache);
            take_back(layer, cache);
            EXPECT_EQUAL(0, bsa_cache_live(cache));
            EXPECT_EQUAL(0, cache->overlaps);
        }
        EXPECT_EQUAL(0, layer->pages_out);
        layer_close(layer);
    }
}

int main(void) {
    RUN(class_sizes_rise_and_round_little);
    RUN(classes_reach_half_a_page_and_at_most_32_kib);
    RUN(a_class_for_an_alignment_has_every_object_aligned);
    RUN(slabs_are_as_large_as_they_must_be);
    RUN(the_starts_of_a_slab_are_those_of_its_objects);
    RUN(the_table_of_sizes_agrees_with_what_it_was_computed_from);
    RUN(the_hash_tells_tables_apart);
    RUN(the_first_object_needs_a_slab_and_the_next_ones_do_not);
    RUN(every_class_of_every_page_size_serves_a_slab_full);
    RUN(freed_objects_are_used_again_before_a_slab_is_asked_for);
    RUN(the_object_freed_last_is_handed_out_first);
    RUN(objects_of_a_slab_that_was_given_back_are_forgotten);
    RUN(the_first_empty_slab_is_kept_and_a_further_one_given_back);
    RUN(an_empty_current_slab_is_the_one_that_is_kept);
    RUN(a_slab_that_becomes_current_beside_an_empty_one_is_given_back_when_empty);
    RUN(a_current_slab_that_others_empty_stays_current);
    RUN(a_slab_of_a_smaller_order_will_do);
    RUN(a_given_back_slab_leaves_no_trace_in_its_pages);
    RUN(remote_frees_are_counted_and_come_back_when_drained);
    RUN(an_object_freed_locally_cannot_be_freed_remotely);
    RUN(a_slab_is_kept_until_a_remote_free_under_way_is_over);
    RUN(a_named_slab_is_kept_until_it_has_been_pushed);
    RUN(a_named_slab_is_kept_where_another_empty_one_is);
    RUN(a_slab_on_the_stack_of_another_cache_reaches_its_owner);
    RUN(a_late_double_free_leaves_no_trace_in_the_next_slab);
    RUN(full_slabs_are_not_looked_at_again);
    RUN(partial_slabs_are_used_first_in_first_out);
    RUN(a_partial_slab_that_ran_dry_is_passed_over);
    RUN(counts_and_states_hold_through_random_use);
    return 0;
}
