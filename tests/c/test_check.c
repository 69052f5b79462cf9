/* bsa_check names what is wrong: for each kind of damage, done by hand, the violation it must name;
 * and it passes again once the damage is undone. */
#include "check.h"

#include "root.h"

#define PAGE (4 * KIB)

/* A heap with everything in it that can be damaged. */
struct patient {
    struct heap heap;
    struct bsa_root *root;
    struct bsa_section *section;
    uint32_t block, exact, free_block;                 /* heads */
    uint32_t current, partial[3], empty, full, remote; /* slabs' heads */
    struct bsa_cache *cache;                           /* the one of all these slabs */
};

static struct bsa_page *page_at(struct patient *patient, uint32_t index) {
    return bsa_page_at(patient->section, index);
}

static uint32_t head_of(struct patient *patient, uintptr_t address) {
    return bsa_page_of(patient->section, slab_of(patient->root, address).base);
}

/* Fills slabs of 256-byte objects, and frees so that each state occurs. */
static void make_slabs(struct patient *patient) {
    enum { SLABS = 8 };
    uintptr_t objects[SLABS][64];
    unsigned capacity = 0;

    for (unsigned s = 0; s < SLABS; s++) {
        unsigned i = 0;

        do {
            objects[s][i++] = must_alloc(patient->root, 0, 256);
            capacity = slab_of(patient->root, objects[s][0]).capacity;
            EXPECT(capacity <= 64);
        } while (i < capacity && !(s == SLABS - 1 && i == 3));
    }
    for (unsigned i = 0; i < capacity; i++) {
        EXPECT_OK(bsa_free_on(patient->root, 0, objects[0][i]));
    }
    patient->empty = head_of(patient, objects[0][0]);
    for (unsigned k = 0; k < 3; k++) {
        EXPECT_OK(bsa_free_on(patient->root, 0, objects[1 + k][5]));
        patient->partial[k] = head_of(patient, objects[1 + k][0]);
    }
    patient->full = head_of(patient, objects[4][0]);
    EXPECT_OK(bsa_free_on(patient->root, 1, objects[5][1]));
    patient->remote = head_of(patient, objects[5][0]);
    patient->current = head_of(patient, objects[SLABS - 1][0]);
    patient->cache = &patient->root->space.slots[0].caches[bsa_class_of_size(256)];
    EXPECT_EQUAL(BSA_SLAB_EMPTY, slab_of(patient->root, objects[0][0]).state);
    EXPECT_EQUAL(BSA_SLAB_PARTIAL, slab_of(patient->root, objects[1][0]).state);
    EXPECT_EQUAL(BSA_SLAB_FULL, slab_of(patient->root, objects[4][0]).state);
    EXPECT_EQUAL(BSA_SLAB_FULL, slab_of(patient->root, objects[5][0]).state);
    EXPECT_EQUAL(BSA_SLAB_CURRENT, slab_of(patient->root, objects[7][0]).state);
}

static struct patient admit(void) {
    struct patient patient = {.heap = heap_of(4 * MIB, 2)};
    uintptr_t block, exact;

    patient.root = patient.heap.root;
    patient.section = bsa_first_section(patient.root);
    make_slabs(&patient);
    block = must_alloc_pages(patient.root, 4);
    EXPECT_OK(bsa_alloc_pages(patient.root, 5, 0, BSA_EXACT, &exact));
    patient.block = bsa_page_of(patient.section, block);
    patient.exact = bsa_page_of(patient.section, exact);
    patient.section->high_water = patient.section->total_pages; /* so that all words are read */
    patient.free_block = patient.exact + 5; /* the tail's first piece: one page */
    EXPECT_EQUAL(bsa_block_word(BSA_FREE, 0, 1), bsa_word_at(patient.section, patient.free_block));
    EXPECT_SOUND(patient.root);
    return patient;
}

static void expect_violation(struct patient *patient, const char *invariant, int line) {
    struct bsa_violation violation = {"nothing", 0, 0};

    if (bsa_check(patient->root, &violation) != BSA_CORRUPTION) {
        fail(__FILE__, line, "not noticed: %s", invariant);
    }
    if (strcmp(violation.invariant, invariant) != 0) {
        fail(__FILE__, line, "named \"%s\", not \"%s\"", violation.invariant, invariant);
    }
    EXPECT_STATUS(BSA_CORRUPTION, bsa_check(patient->root, NULL));
}

/* Puts another value there, looks what the check says, and puts the right one back. */
#define DAMAGED(place, value, invariant)                                                           \
    do {                                                                                           \
        __typeof__(place) right_ = (place);                                                        \
        (place) = (__typeof__(place))(value);                                                      \
        expect_violation(&patient, invariant, __LINE__);                                           \
        (place) = right_;                                                                          \
        EXPECT_SOUND(patient.root);                                                                \
    } while (0)

#define DAMAGED_WORD(page, value, invariant)                                                       \
    do {                                                                                           \
        struct bsa_page *page_ = page_at(&patient, page);                                          \
        uint64_t right_ = bsa_page_word(page_);                                                    \
        bsa_page_set_word(page_, value);                                                           \
        expect_violation(&patient, invariant, __LINE__);                                           \
        bsa_page_set_word(page_, right_);                                                          \
        EXPECT_SOUND(patient.root);                                                                \
    } while (0)

#define DAMAGED_ATOMIC(place, value, invariant)                                                    \
    do {                                                                                           \
        uint64_t right_ = (uint64_t)atomic_load(place), wrong_ = (uint64_t)(value);                \
        atomic_store(place, (__typeof__(atomic_load(place)))wrong_);                               \
        expect_violation(&patient, invariant, __LINE__);                                           \
        atomic_store(place, (__typeof__(atomic_load(place)))right_);                               \
        EXPECT_SOUND(patient.root);                                                                \
    } while (0)

/* With the free count as it was. */
#define DAMAGED_TURN(page, value, invariant)                                                       \
    do {                                                                                           \
        struct bsa_page *page_ = page_at(&patient, page);                                          \
        uint16_t right_ = page_->relist_at;                                                        \
        bsa_set_relist_at(page_, value);                                                           \
        expect_violation(&patient, invariant, __LINE__);                                           \
        bsa_set_relist_at(page_, right_);                                                          \
        EXPECT_SOUND(patient.root);                                                                \
    } while (0)

/* --- blocks ------------------------------------------------------------------------------------
 */

static void damaged_page_words_are_named(void) {
    struct patient patient = admit();
    uint64_t block = bsa_word_at(patient.section, patient.block);
    uint64_t slab = bsa_word_at(patient.section, patient.full);

    DAMAGED_WORD(patient.block, 0, "heads tile the heap");
    DAMAGED_WORD(patient.block, bsa_block_word(BSA_PAGES, 2, 0), "heads tile the heap");
    DAMAGED_WORD(patient.block, bsa_block_word((enum bsa_head_state)9, 2, 4),
                 "heads tile the heap");
    DAMAGED_WORD(patient.block, bsa_block_word(BSA_PAGES, 3, 4),
                 "a block's order is that of its page count");
    DAMAGED_WORD(patient.block, bsa_block_word(BSA_PAGES, 31, 4),
                 "a block's order is that of its page count");
    DAMAGED_WORD(patient.exact, bsa_block_word(BSA_FREE, 3, 5),
                 "a free block has a power of two of pages");
    DAMAGED_WORD(patient.block, block | (uint64_t)3 << BSA_WORD_BACK_SHIFT,
                 "a head is not behind another head");
    DAMAGED_WORD(patient.block + 1, bsa_block_word(BSA_PAGES, 0, 1),
                 "a page inside a block is no head");
    DAMAGED_WORD(patient.exact + 4, bsa_slab_inside_word(0, 1), "a page inside a block is no head");
    DAMAGED_WORD(patient.full + 1, 0, "every page of a slab names its head");
    DAMAGED_WORD(patient.full + 1, bsa_slab_inside_word(slab, 2),
                 "every page of a slab names its head");
    DAMAGED_WORD(patient.full + 1, bsa_slab_inside_word(slab + (1U << BSA_WORD_SLOT_SHIFT), 1),
                 "every page of a slab names its head");
    DAMAGED_WORD(patient.full, slab | (uint64_t)127 << BSA_WORD_CLASS_SHIFT,
                 "a slab has a class, an order and an owner that exist");
    DAMAGED_WORD(patient.full, slab | (uint64_t)77 << BSA_WORD_SLOT_SHIFT,
                 "a slab has a class, an order and an owner that exist");
    DAMAGED(page_at(&patient, patient.block)->requested, 4 * PAGE + 1,
            "a block holds what was asked for");
    DAMAGED_ATOMIC(&page_at(&patient, patient.block)->summary, 1, "only slabs have remote frees");
    DAMAGED_ATOMIC(&page_at(&patient, patient.block + 1)->summary, 1,
                   "only slabs have remote frees");
    DAMAGED_ATOMIC(&page_at(&patient, patient.free_block)->summary, 1,
                   "only slabs have remote frees");
    DAMAGED_ATOMIC(&page_at(&patient, patient.full + 1)->summary, 1,
                   "only slabs have remote frees");
    heap_close(&patient.heap);
}

static void a_block_out_of_place_is_named(void) {
    struct patient patient = admit();
    uint64_t word = bsa_word_at(patient.section, patient.exact);

    page_at(&patient, patient.exact)->requested = 0;
    /* Five pages as 2 + 1 + 2: the last pair starts at an odd number. */
    bsa_page_set_word(page_at(&patient, patient.exact), bsa_block_word(BSA_PAGES, 1, 2));
    bsa_page_set_word(page_at(&patient, patient.exact + 2), bsa_block_word(BSA_PAGES, 0, 1));
    bsa_page_set_word(page_at(&patient, patient.exact + 3), bsa_block_word(BSA_PAGES, 1, 2));
    expect_violation(&patient, "a block is naturally aligned", __LINE__);
    bsa_page_set_word(page_at(&patient, patient.exact + 2), 0);
    bsa_page_set_word(page_at(&patient, patient.exact + 3), 0);
    bsa_page_set_word(page_at(&patient, patient.exact), word);
    page_at(&patient, patient.exact)->requested = 5 * PAGE;
    EXPECT_SOUND(patient.root);
    heap_close(&patient.heap);
}

static void free_buddies_that_were_not_merged_are_named(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    struct patient patient = {.heap = heap, .root = heap.root};
    uintptr_t address;

    patient.section = bsa_first_section(heap.root);
    EXPECT_OK(bsa_alloc_pages(heap.root, 1, 8 * 4 * KIB, 0, &address)); /* its buddy is free */
    patient.block = bsa_page_of(patient.section, address);
    DAMAGED_WORD(patient.block, bsa_block_word(BSA_FREE, 0, 1), "free buddies are merged");
    heap_close(&heap);
}

static void damaged_free_lists_are_named(void) {
    struct patient patient = admit();
    struct bsa_section_derived *derived = &patient.section->derived;
    struct bsa_page *page = page_at(&patient, patient.free_block);
    unsigned long long one = 1;

    DAMAGED(derived->free_mask, derived->free_mask & ~1U,
            "the mask tells which lists are not empty");
    DAMAGED(derived->free_mask, derived->free_mask | 1U << 19,
            "the mask tells which lists are not empty");
    DAMAGED(derived->free_count[0], derived->free_count[0] + one,
            "every free block is on the list of its order");
    DAMAGED(derived->free_list[0].value, 0, "every free block is on the list of its order");
    DAMAGED(derived->free_list[0].value, 0x7fffffff, "a free list stays in its section");
    DAMAGED(derived->free_list[0].value, bsa_number_of(patient.section, patient.block).value,
            "a listed block is free and of the list's order");
    DAMAGED(page->prev.value, 77, "links of a free list agree in both directions");
    DAMAGED(page->next.value, bsa_number_of(patient.section, patient.free_block).value,
            "links of a free list agree in both directions"); /* a circle */
    DAMAGED_ATOMIC(&derived->free_pages, atomic_load(&derived->free_pages) + 1,
                   "the count of free pages is that of the free blocks");
    DAMAGED(patient.section->high_water, patient.section->total_pages + 1,
            "the high-water mark is in the heap");
    heap_close(&patient.heap);
}

static void damaged_headers_and_roots_are_named(void) {
    struct patient patient = admit();
    struct bsa_directory *directory = &patient.root->space.directory;
    const char *packed = "the directory is ordered and packed, and has every section once";
    const char *located = "what is derived from a header agrees with it";

    DAMAGED(patient.section->magic, 0, "a managed section has a header of bsa's");
    DAMAGED(patient.section->dirty, 0, "a managed section has a header of bsa's");
    DAMAGED(patient.section->bitmap_bytes, 64, "a managed section has a header of bsa's");
    DAMAGED(patient.section->derived.granules_shift, 93, located);
    DAMAGED(patient.section->derived.granules, 93, located);
    DAMAGED(patient.section->derived.bits, bsa_bits_at(patient.section, 1), located);
    DAMAGED(patient.section->derived.index, 5, "the directory finds every section");
    DAMAGED(patient.section->derived.next, 64, "the chain has the directory's sections");
    DAMAGED(patient.root->first_section, -64, "the chain has the directory's sections");
    DAMAGED_ATOMIC(&directory->by_address.top.child[0], 0, packed);
    DAMAGED_ATOMIC(&directory->by_number.top.child[0], 0, packed);
    DAMAGED_ATOMIC(&directory->by_address.top.key[0], 1, packed);
    DAMAGED_ATOMIC(&directory->by_number.top.key[1], 5, packed);
    DAMAGED_ATOMIC(&directory->by_number.top.slope, 1, packed);
    DAMAGED_ATOMIC(&directory->by_address.top.child[1], directory->by_address.top.child[0], packed);
    DAMAGED(directory->by_address.count, 2, packed);
    DAMAGED(directory->spare, 0, packed);
    DAMAGED(patient.root->per_order[0].live, 77, "the root counts the page blocks of every order");
    DAMAGED(patient.root->space.slots[0].tally.count.below, 12345,
            "what is live is what was counted");
    DAMAGED_ATOMIC(&patient.root->section_count, 2, "the root counts its sections and their pages");
    DAMAGED(patient.root->allocated_pages, 3, "the root counts the allocated pages");
    heap_close(&patient.heap);
}

static void a_circle_in_the_directory_ends_the_check(void) {
    static unsigned char memory[40][64 * KIB];
    struct heap heap = heap_without_sections(PAGE, 1);
    struct bsa_directory *directory = &heap.root->space.directory;
    struct bsa_directory_node *node;
    struct bsa_violation violation;
    int64_t offset;

    for (unsigned i = 0; i < COUNT_OF(memory); i++) {
        EXPECT_OK(bsa_add_region(heap.root, memory[i], sizeof memory[i], NULL, NULL));
    }
    offset = atomic_load(&directory->by_number.top.child[0]);
    node = (struct bsa_directory_node *)((uintptr_t)directory + (uintptr_t)offset);
    for (unsigned i = 0; i < BSA_DIRECTORY_FANOUT; i++) {
        atomic_store(&node->child[i], offset);
    }
    EXPECT_STATUS(BSA_CORRUPTION, bsa_check(heap.root, &violation));
    free(heap.root_memory);
}

/* --- slabs -------------------------------------------------------------------------------------
 */

static void damaged_bitmaps_and_counts_are_named(void) {
    struct patient patient = admit();
    struct bsa_bits *bits = bsa_bits_at(patient.section, patient.partial[0]);
    _Atomic uint64_t *live = &bits->live, *remote = &bits->remote;
    struct bsa_page *page = page_at(&patient, patient.partial[0]);
    const char *starts = "bitmaps have bits where objects start alone";

    DAMAGED_ATOMIC(live, atomic_load(live) ^ 1, "a slab's free count is that of its bitmap");
    DAMAGED_ATOMIC(live, 0, "a slab's free count is that of its bitmap");
    DAMAGED(page->relist_in, 3, "a slab's free count is that of its bitmap");
    DAMAGED_ATOMIC(live, atomic_load(live) | 2, starts);
    DAMAGED_ATOMIC(remote, (uint64_t)1 << 63, starts);
    DAMAGED_ATOMIC(&bits[1].remote, 1 << 16, "an object is freed from one side");
    DAMAGED_ATOMIC(remote, 1, "the summary names the words with remote frees");
    DAMAGED_ATOMIC(&page->summary, 1, "every slab with remote frees waits to be drained");
    DAMAGED_ATOMIC(&page_at(&patient, patient.remote)->summary, 0,
                   "the summary names the words with remote frees");
    DAMAGED_ATOMIC(&page_at(&patient, patient.remote)->summary,
                   atomic_load(&page_at(&patient, patient.remote)->summary) | (uint64_t)1 << 63,
                   "the summary names words of its own slab");
    heap_close(&patient.heap);
}

static uint64_t on_list(struct patient *patient, uint32_t head, unsigned list) {
    uint64_t word = bsa_word_at(patient->section, head);

    return bsa_slab_word(bsa_word_order(word), bsa_word_class(word), bsa_word_slot(word), list);
}

static void slabs_on_wrong_lists_are_named(void) {
    struct patient patient = admit();
    const char *wrong_count = "a slab is on the list that its free count calls for";

    DAMAGED_WORD(patient.full, on_list(&patient, patient.full, BSA_SLAB_PARTIAL),
                 "a slab changes its list at the right count");
    DAMAGED_WORD(patient.full, on_list(&patient, patient.full, BSA_SLAB_EMPTY), wrong_count);
    DAMAGED_WORD(patient.partial[1], on_list(&patient, patient.partial[1], BSA_SLAB_FULL),
                 wrong_count);
    DAMAGED_WORD(patient.empty, on_list(&patient, patient.empty, BSA_SLAB_PARTIAL), wrong_count);
    DAMAGED_WORD(patient.empty, on_list(&patient, patient.empty, BSA_SLAB_FULL), wrong_count);
    DAMAGED_WORD(patient.full, on_list(&patient, patient.full, BSA_SLAB_CURRENT),
                 "every current and every empty slab is its cache's one");
    DAMAGED_WORD(patient.current, on_list(&patient, patient.current, BSA_SLAB_PARTIAL),
                 "the current slab says so");
    DAMAGED_WORD(patient.empty, on_list(&patient, patient.empty, BSA_SLAB_CURRENT),
                 "the empty slab says so");
    DAMAGED_WORD(patient.partial[1], on_list(&patient, patient.partial[1], BSA_SLAB_CURRENT),
                 "a partial list holds its cache's partial slabs");
    heap_close(&patient.heap);
}

static void a_slab_on_a_list_that_does_not_exist_is_named(void) {
    struct patient patient = admit();

    for (unsigned list = 4; list < 8; list++) {
        DAMAGED_WORD(patient.full, on_list(&patient, patient.full, list),
                     "a slab is on the list that its free count calls for");
    }
    heap_close(&patient.heap);
}

static void a_slab_of_another_slot_or_class_is_named(void) {
    struct patient patient = admit();
    uint64_t word = bsa_word_at(patient.section, patient.partial[1]);

    DAMAGED_WORD(patient.partial[1], word ^ (uint64_t)1 << BSA_WORD_SLOT_SHIFT,
                 "every page of a slab names its head");
    word = bsa_word_at(patient.section, patient.current);
    DAMAGED_WORD(patient.current, word ^ (uint64_t)1 << BSA_WORD_SLOT_SHIFT,
                 "every page of a slab names its head");
    heap_close(&patient.heap);
}

/* --- caches ------------------------------------------------------------------------------------
 */

static void damaged_caches_are_named(void) {
    struct patient patient = admit();
    struct bsa_cache *cache = patient.cache;
    uint32_t second = bsa_number_of(patient.section, patient.partial[1]).value;
    uint32_t full = bsa_number_of(patient.section, patient.full).value;

    DAMAGED(cache->first_partial.value, second, "links of a partial list agree in both directions");
    DAMAGED(cache->first_partial.value, full, "a partial list holds its cache's partial slabs");
    DAMAGED(cache->first_partial.value, 0x7fffffff,
            "a partial list holds its cache's partial slabs");
    DAMAGED(cache->first_partial.value, 0, "a cache knows its last partial slab");
    DAMAGED(cache->last_partial.value, second, "a cache knows its last partial slab");
    DAMAGED(page_at(&patient, patient.partial[1])->prev.value, 0,
            "links of a partial list agree in both directions");
    DAMAGED(page_at(&patient, patient.partial[0])->next.value,
            bsa_number_of(patient.section, patient.partial[0]).value,
            "links of a partial list agree in both directions"); /* a circle */
    DAMAGED(page_at(&patient, patient.partial[1])->next.value, 0,
            "a cache knows its last partial slab");
    DAMAGED(cache->empty.value, 0, "a slab changes its list at the right count");
    DAMAGED(cache->empty.value, full, "the empty slab says so");
    DAMAGED(cache->retired.value, full, "retired slabs have been given back");
    DAMAGED(cache->total, cache->total + 1, "caches count their live objects");
    heap_close(&patient.heap);
}

static void damaged_memories_of_a_cache_are_named(void) {
    struct patient patient = admit();
    struct bsa_cache *cache = patient.cache;
    const char *own = "a cache remembers free objects of its own";

    EXPECT(bsa_cache_remembered(cache) >= 2);
    DAMAGED(cache->top, cache->freed + BSA_REMEMBERED + 1, "a cache remembers a few objects");
    DAMAGED(cache->freed[1].page, page_at(&patient, patient.block), own);
    DAMAGED(cache->freed[1].bits, bsa_bits_at(patient.section, patient.full), own);
    DAMAGED(cache->freed[1].address, cache->freed[0].address, "a cache remembers an object once");
    heap_close(&patient.heap);
}

static void slabs_that_would_miss_their_turn_are_named(void) {
    struct patient patient = admit();
    const char *count = "a slab changes its list at the right count";

    DAMAGED_TURN(patient.full, 2, count);
    DAMAGED_TURN(patient.partial[0], 1, count);
    DAMAGED_TURN(patient.current, BSA_NEVER_RELISTED, count);
    heap_close(&patient.heap);
}

static void damaged_remote_stacks_are_named(void) {
    struct patient patient = admit();
    struct bsa_page *waiting = page_at(&patient, patient.remote);
    const char *waits = "a slab waiting to be drained has remote frees, and waits once";

    DAMAGED_ATOMIC(&patient.cache->remote, 0, "every slab with remote frees waits to be drained");
    DAMAGED_ATOMIC(&patient.cache->remote, bsa_number_of(patient.section, patient.full).value,
                   waits);
    DAMAGED_ATOMIC(&patient.cache->remote, 0x7fffffff, waits);
    DAMAGED_ATOMIC(&waiting->remote_next, bsa_number_of(patient.section, patient.remote).value,
                   waits); /* a circle */
    heap_close(&patient.heap);
}

static void a_current_slabs_copies_that_are_wrong_are_named(void) {
    struct patient patient = admit();
    const char *copies = "the cache's copies are those of its current slab";
    const char *place = "the next row is looked for where objects start";

    EXPECT(patient.cache->row != 0);
    DAMAGED(patient.cache->base, patient.cache->base + 256, copies);
    DAMAGED(patient.cache->word, patient.cache->word + 1,
            "the next row is looked for behind the last one");
    DAMAGED(patient.cache->word, 64, place);
    DAMAGED(patient.cache->first, patient.cache->first + 1, place);
    DAMAGED(patient.cache->bits, bsa_bits_at(patient.section, patient.full), copies);
    DAMAGED(patient.cache->row, patient.cache->row | 1, "a row holds free objects");
    DAMAGED(patient.cache->row, patient.cache->row << 1, "a row holds free objects");
    DAMAGED(patient.cache->page, page_at(&patient, patient.full), "the current slab says so");
    heap_close(&patient.heap);
}

/* Every bit of every derived number that the check covers: damage is noticed whichever bit it hits.
 */
static void every_bit_of_a_page_word_matters(void) {
    struct patient patient = admit();
    uint32_t heads[] = {patient.free_block, patient.partial[0], patient.empty, patient.current};

    for (unsigned h = 0; h < COUNT_OF(heads); h++) {
        struct bsa_page *page = page_at(&patient, heads[h]);
        uint64_t word = bsa_page_word(page);

        for (unsigned bit = 0; bit < 64; bit++) {
            bsa_page_set_word(page, word ^ (uint64_t)1 << bit);
            if (bsa_check(patient.root, NULL) != BSA_CORRUPTION) {
                fail(__FILE__, __LINE__, "bit %u of word %u not noticed", bit, h);
            }
        }
        bsa_page_set_word(page, word);
        EXPECT_SOUND(patient.root);
    }
    heap_close(&patient.heap);
}

int main(void) {
    RUN(damaged_page_words_are_named);
    RUN(a_block_out_of_place_is_named);
    RUN(free_buddies_that_were_not_merged_are_named);
    RUN(damaged_free_lists_are_named);
    RUN(damaged_headers_and_roots_are_named);
    RUN(a_circle_in_the_directory_ends_the_check);
    RUN(damaged_bitmaps_and_counts_are_named);
    RUN(slabs_on_wrong_lists_are_named);
    RUN(a_slab_of_another_slot_or_class_is_named);
    RUN(damaged_caches_are_named);
    RUN(damaged_memories_of_a_cache_are_named);
    RUN(slabs_that_would_miss_their_turn_are_named);
    RUN(damaged_remote_stacks_are_named);
    RUN(every_bit_of_a_page_word_matters);
    RUN(a_slab_on_a_list_that_does_not_exist_is_named);
    RUN(a_current_slabs_copies_that_are_wrong_are_named);
    return 0;
}
