/* The block taken last: that merging it is put off, and that nobody can tell.
 *
 * Twins: two heaps that are told the same. One of them is made to forget the block after each call,
 * so it merges at once. They must give the same addresses, and look the same whenever somebody
 * looks. */
#include "check.h"

#include "root.h" /* to see what is put off, and to damage it */

#define PAGE (4 * KIB)

static struct bsa_section *first_section(const struct heap *heap) {
    return bsa_first_section(heap->root);
}

static const struct bsa_last_block *last_of(const struct heap *heap) {
    return &first_section(heap)->derived.last;
}

/* From now on nothing is put off. */
static void forget(const struct heap *heap) {
    struct bsa_section *section = first_section(heap);

    for (; section != NULL; section = bsa_next_section(heap->root, section)) {
        if (section->derived.last.head.value != 0) {
            bsa_buddy_forget_last(section);
        }
    }
}

/* --- twins -------------------------------------------------------------------------------------
 */

enum { MOST_LIVE = 160, SECTIONS = 2 };

/* A way to set the twins up. */
struct setting {
    unsigned slots;
    bool serial, attached, limited;
};

struct twins {
    struct heap eager, lazy;
    struct setting setting;
    uint64_t seed;
    unsigned live;
    struct {
        uintptr_t eager, lazy;
    } blocks[MOST_LIVE]; /* that taken last is the last */
    unsigned put_off;    /* how often a merge was */
};

/* Two sections of different sizes, the upper part of each one beyond 4 GiB. */
static struct heap open_twin(const struct setting *setting, uint64_t seed) {
    struct heap heap =
        heap_with_hooks(PAGE, setting->slots, setting->serial, (struct bsa_hooks){0});

    for (unsigned i = 0; i < SECTIONS; i++) {
        size_t size = (90 + 60 * i + seed * 7) * PAGE;
        struct bsa_section_config config = {.physical_is_linear = true,
                                            .physical_base = 4 * GIB - size / 2};

        EXPECT_OK(bsa_add_region(heap.root, heap_memory(&heap, size, 1 * MIB, seed * 3 * PAGE),
                                 size, &config, NULL));
    }
    for (unsigned i = 0; setting->attached && i < setting->slots; i++) {
        EXPECT_OK(bsa_slot_attach(heap.root, i));
    }
    if (setting->limited) {
        bsa_set_limit(heap.root, 200 * PAGE);
    }
    return heap;
}

static struct twins open_twins(const struct setting *setting, uint64_t seed) {
    return (struct twins){.eager = open_twin(setting, seed),
                          .lazy = open_twin(setting, seed),
                          .setting = *setting,
                          .seed = seed};
}

static void close_twins(struct twins *twins) {
    heap_close(&twins->eager);
    heap_close(&twins->lazy);
}

static unsigned below(struct twins *twins, unsigned bound) {
    return random_below(&twins->seed, bound);
}

static void expect_same_place(const struct twins *twins, uintptr_t eager, uintptr_t lazy) {
    unsigned in_eager, in_lazy;

    EXPECT_OK(bsa_section_of(twins->eager.root, eager, &in_eager));
    EXPECT_OK(bsa_section_of(twins->lazy.root, lazy, &in_lazy));
    EXPECT_EQUAL(in_eager, in_lazy);
    EXPECT_EQUAL(eager % MIB, lazy % MIB);
}

/* What a request asks for. */
struct wish {
    enum { WISH_PAGES, WISH_LOW_PAGES, WISH_BYTES } kind;
    unsigned slot, flags;
    size_t amount, align;
};

static bsa_status fulfil(const struct heap *heap, const struct wish *wish, uintptr_t *address) {
    switch (wish->kind) {
    case WISH_PAGES:
        return bsa_alloc_pages_on(heap->root, wish->slot, wish->amount, wish->align, wish->flags,
                                  address);
    case WISH_LOW_PAGES:
        return bsa_alloc_pages_lowmem_on(heap->root, wish->slot, wish->amount, wish->align,
                                         address);
    default:
        return bsa_alloc_on(heap->root, wish->slot, wish->amount, wish->align, 0, address);
    }
}

/* Few sizes, so that the same request often comes again. */
static struct wish random_wish(struct twins *twins) {
    unsigned kind = below(twins, 20);
    struct wish wish = {WISH_PAGES, below(twins, twins->setting.slots), 0, 1U << below(twins, 5),
                        PAGE << (below(twins, 3) == 0 ? below(twins, 8) : 0)};

    if (kind < 2) {
        wish.kind = WISH_LOW_PAGES;
    } else if (kind < 5) {
        wish.kind = WISH_BYTES;
        wish.amount = below(twins, 9000);
        wish.align = 0;
    } else if (kind < 7) {
        wish.flags = BSA_EXACT;
        wish.amount = 1 + below(twins, 12);
    }
    return wish;
}

static void allocate(struct twins *twins, const struct wish *wish) {
    uintptr_t eager = 0, lazy = 0;
    bsa_status status = fulfil(&twins->eager, wish, &eager);

    EXPECT_STATUS(status, fulfil(&twins->lazy, wish, &lazy));
    if (status == BSA_OK) {
        expect_same_place(twins, eager, lazy);
        twins->blocks[twins->live].eager = eager;
        twins->blocks[twins->live++].lazy = lazy;
    }
}

static void free_block(struct twins *twins, unsigned victim) {
    unsigned slot = below(twins, twins->setting.slots);

    EXPECT_OK(bsa_free_on(twins->eager.root, slot, twins->blocks[victim].eager));
    EXPECT_OK(bsa_free_on(twins->lazy.root, slot, twins->blocks[victim].lazy));
    memmove(&twins->blocks[victim], &twins->blocks[victim + 1],
            (--twins->live - victim) * sizeof twins->blocks[0]);
}

static void resize(struct twins *twins, unsigned which) {
    size_t size = below(twins, 9) == 0 ? below(twins, 3000) : below(twins, 20) * PAGE;
    uintptr_t eager, lazy;
    bsa_status status =
        bsa_realloc_on(twins->eager.root, 0, twins->blocks[which].eager, size, &eager);

    EXPECT_STATUS(status,
                  bsa_realloc_on(twins->lazy.root, 0, twins->blocks[which].lazy, size, &lazy));
    if (status == BSA_OK) {
        expect_same_place(twins, eager, lazy);
        twins->blocks[which].eager = eager;
        twins->blocks[which].lazy = lazy;
    }
}

/* What is rarely called for. */
static void do_something_else(struct twins *twins) {
    switch (below(twins, 4)) {
    case 0:
        EXPECT_EQUAL(bsa_trim_on(twins->eager.root, 0), bsa_trim_on(twins->lazy.root, 0));
        break;
    case 1:
        EXPECT_OK(bsa_rebuild(twins->eager.root));
        EXPECT_OK(bsa_rebuild(twins->lazy.root));
        break;
    default:
        if (twins->live > 0) {
            resize(twins, below(twins, twins->live));
        }
    }
}

static void step(struct twins *twins, bool growing) {
    struct wish wish = random_wish(twins);
    unsigned what = below(twins, 20);

    if (what == 0) {
        do_something_else(twins);
    } else if (what < 8 && twins->live < MOST_LIVE) { /* a pair, and perhaps its like */
        unsigned live = twins->live;

        for (unsigned again = 1 + below(twins, 3); again > 0 && live == twins->live; again--) {
            allocate(twins, &wish);
            forget(&twins->eager);
            if (twins->live > live) {
                free_block(twins, live);
                twins->put_off += last_of(&twins->lazy)->is_back;
                forget(&twins->eager);
            }
        }
    } else if (twins->live < MOST_LIVE && what < (growing ? 16U : 12U)) {
        allocate(twins, &wish);
    } else if (twins->live > 0) {
        free_block(twins, below(twins, 2) == 0 ? twins->live - 1 : below(twins, twins->live));
    }
    forget(&twins->eager);
}

/* Before looking settles the heap, or merges page caches. */
static void expect_sound_as_it_is(const struct twins *twins) {
    EXPECT_SOUND(twins->eager.root);
    EXPECT_SOUND(twins->lazy.root);
    EXPECT_EQUAL(bsa_free_page_count(twins->eager.root), bsa_free_page_count(twins->lazy.root));
}

/* All that can be asked, every page word, and the high-water marks. */
static void expect_alike(const struct twins *twins) {
    struct snapshot snapshot = snapshot_of(twins->eager.root, EVERYTHING);

    EXPECT(snapshot_still_holds(&snapshot, twins->lazy.root));
    for (unsigned i = 0; i < SECTIONS; i++) {
        const struct bsa_section *eager = bsa_nth_section(twins->eager.root, i);
        const struct bsa_section *lazy = bsa_nth_section(twins->lazy.root, i);

        EXPECT_EQUAL(eager->high_water, lazy->high_water);
        for (bsa_page_index page = 0; page < eager->total_pages; page++) {
            EXPECT_EQUAL(bsa_word_at(eager, page), bsa_word_at(lazy, page));
        }
    }
}

static void a_heap_that_puts_merging_off_is_like_one_that_does_not(void) {
    static const struct setting settings[] = {
        {.slots = 1},
        {.slots = 1, .attached = true},
        {.slots = 2, .serial = true},
        {.slots = 2, .limited = true},
        {.slots = 2}, /* with page caches */
        {.slots = 3, .attached = true},
    };

    for (unsigned i = 0; i < COUNT_OF(settings); i++) {
        for (uint64_t seed = 1; seed <= 3; seed++) {
            struct twins twins = open_twins(&settings[i], 10 * i + seed);

            for (unsigned n = 0; n < 3000; n++) {
                step(&twins, n / 300 % 2 == 0);
                if (n % 7 == 0) {
                    expect_sound_as_it_is(&twins);
                }
                if (n % 50 == 0) {
                    expect_alike(&twins);
                }
            }
            EXPECT(twins.put_off > 100); /* else this has tested nothing */
            close_twins(&twins);
        }
    }
}

/* --- what is put off, and by whom it is done ---------------------------------------------------
 */

static uintptr_t aligned_pages(const struct heap *heap, size_t count, size_t align) {
    uintptr_t address = 0;

    EXPECT_OK(bsa_alloc_pages(heap->root, count, align, 0, &address));
    return address;
}

/* Takes four pages and frees them. */
static uintptr_t put_off_merging(const struct heap *heap) {
    uintptr_t address = must_alloc_pages(heap->root, 4);

    EXPECT_OK(bsa_free(heap->root, address));
    EXPECT(last_of(heap)->is_back);
    return address;
}

static void the_same_request_gets_the_block_as_it_lies(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t address = put_off_merging(&heap);

    for (unsigned i = 0; i < 3; i++) {
        EXPECT_EQUAL(bsa_total_pages(heap.root), bsa_free_page_count(heap.root));
        EXPECT_SOUND(heap.root);
        EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_free(heap.root, address));
        EXPECT_EQUAL(address, must_alloc_pages(heap.root, 4));
        EXPECT(!last_of(&heap)->is_back && last_of(&heap)->head.value != 0);
        EXPECT_SOUND(heap.root);
        EXPECT_OK(bsa_free(heap.root, address));
        EXPECT(last_of(&heap)->is_back);
    }
    heap_close(&heap);
}

/* Of another order, more aligned, or of a block in the middle. */
static void any_other_request_merges_first(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t address = put_off_merging(&heap), other;

    EXPECT_EQUAL(address, must_alloc_pages(heap.root, 2));
    EXPECT(!last_of(&heap)->is_back);
    EXPECT_OK(bsa_free(heap.root, address));
    put_off_merging(&heap);
    EXPECT_OK(bsa_alloc_pages(heap.root, 4, 64 * PAGE, 0, &other));
    EXPECT_EQUAL(0, other % (64 * PAGE));
    EXPECT(!last_of(&heap)->is_back);
    EXPECT_SOUND(heap.root);
    heap_close(&heap);
}

/* An over-aligned block may leave smaller free ones below the order it was cut from, which the same
 * count without alignment takes. */
static void the_same_count_aligned_otherwise_is_another_request(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t held = aligned_pages(&heap, 1, 64 * PAGE), over = aligned_pages(&heap, 1, 32 * PAGE);

    EXPECT_OK(bsa_free(heap.root, over));
    EXPECT(last_of(&heap)->is_back);
    EXPECT_EQUAL(held + PAGE, must_alloc_pages(heap.root, 1));
    EXPECT_SOUND(heap.root);
    heap_close(&heap);
}

static void free_lists_are_told_merged(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    struct snapshot fresh = snapshot_of(heap.root, EVERYTHING);
    struct bsa_section_info before = section_info(heap.root, 0), after;
    uint64_t blocks[BSA_MAX_ORDER + 1];
    uintptr_t address = put_off_merging(&heap);
    enum bsa_page_state state;

    after = section_info(heap.root, 0);
    EXPECT_EQUAL(0, memcmp(before.free_blocks, after.free_blocks, sizeof before.free_blocks));
    EXPECT_EQUAL(before.free_pages, after.free_pages);
    put_off_merging(&heap);
    bsa_free_blocks(heap.root, blocks);
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        EXPECT_EQUAL(before.free_blocks[order], blocks[order]);
        put_off_merging(&heap);
        EXPECT_EQUAL(before.free_blocks[order], bsa_free_list(heap.root, 0, order, NULL, 0));
    }
    put_off_merging(&heap);
    EXPECT_OK(bsa_page_state_of(heap.root, address, &state));
    EXPECT_EQUAL(BSA_PAGE_FREE, state);
    put_off_merging(&heap);
    EXPECT(snapshot_still_holds(&fresh, heap.root));
    heap_close(&heap);
}

static void a_block_that_is_cut_resized_or_joined_is_not_taken_back_as_it_was(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t address = must_alloc_pages(heap.root, 4), other;

    EXPECT_OK(bsa_realloc(heap.root, address, 2 * PAGE, &other));
    EXPECT_EQUAL(address, other);
    EXPECT_OK(bsa_free(heap.root, address));
    EXPECT(!last_of(&heap)->is_back);
    address = must_alloc_pages(heap.root, 4);
    EXPECT_OK(bsa_realloc(heap.root, address, 8 * PAGE, &other));
    EXPECT_OK(bsa_free(heap.root, other));
    EXPECT(!last_of(&heap)->is_back);
    EXPECT_OK(bsa_alloc_pages(heap.root, 3, 0, BSA_EXACT, &address));
    EXPECT_OK(bsa_free(heap.root, address));
    EXPECT(!last_of(&heap)->is_back);
    EXPECT_SOUND(heap.root);
    heap_close(&heap);
}

static void a_neighbour_grows_into_the_block(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t address = aligned_pages(&heap, 1, 2 * PAGE), grown;

    EXPECT_EQUAL(address + PAGE, must_alloc_pages(heap.root, 1));
    EXPECT_OK(bsa_free(heap.root, address + PAGE));
    EXPECT(last_of(&heap)->is_back);
    EXPECT_OK(bsa_realloc(heap.root, address, 2 * PAGE, &grown));
    EXPECT_EQUAL(address, grown);
    EXPECT_SOUND(heap.root);
    heap_close(&heap);
}

/* Anything may happen while an address is being translated. */
static bool put_off_merging_and_translate(void *context, uintptr_t address, uint64_t *physical) {
    put_off_merging(context);
    *physical = address % GIB;
    return true;
}

static void a_block_of_low_memory_is_taken_from_merged_ones(void) {
    struct heap heap = heap_without_sections(PAGE, 1);
    struct bsa_section_config config = {.physical = put_off_merging_and_translate,
                                        .context = &heap};
    uintptr_t address;

    EXPECT_OK(
        bsa_add_region(heap.root, heap_memory(&heap, 1 * MIB, 1 * MIB, 0), 1 * MIB, &config, NULL));
    for (size_t count = 1; count <= 8; count *= 2) {
        EXPECT_OK(bsa_alloc_pages_lowmem(heap.root, count, 0, &address));
        EXPECT_SOUND(heap.root);
    }
    heap_close(&heap);
}

/* As a process that dies leaves it. */
static void bytes_copied_before_merging_are_the_same_heap(void) {
    struct heap heap = heap_of(1 * MIB, 1), other = heap_without_sections(PAGE, 1);
    unsigned char *copy = heap_memory(&other, 1 * MIB, 64 * KIB, 0);

    put_off_merging(&heap);
    memcpy(copy, heap.region[0], 1 * MIB);
    EXPECT_OK(bsa_attach_region(other.root, copy, 1 * MIB, NULL, NULL));
    EXPECT_SOUND(other.root);
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        EXPECT_EQUAL(bsa_free_list(heap.root, 0, order, NULL, 0),
                     bsa_free_list(other.root, 0, order, NULL, 0));
    }
    put_off_merging(&heap);
    EXPECT_OK(bsa_remove_region(heap.root, 0)); /* all of it is free */
    EXPECT_OK(bsa_attach_region(heap.root, heap.region[0], 1 * MIB, NULL, NULL));
    EXPECT(last_of(&heap)->head.value == 0);
    heap_close(&heap);
    heap_close(&other);
}

/* --- check -------------------------------------------------------------------------------------
 */

static uint32_t number_of(const struct heap *heap, uintptr_t address) {
    return bsa_number_of(first_section(heap), bsa_page_of(first_section(heap), address)).value;
}

/* What check says if this were known of the block. */
static void expect_violated(const struct heap *heap, struct bsa_last_block damaged,
                            const char *invariant) {
    struct bsa_last_block *last = &first_section(heap)->derived.last, was = *last;
    struct bsa_violation violation;

    EXPECT_SOUND(heap->root);
    *last = damaged;
    EXPECT_STATUS(BSA_CORRUPTION, bsa_check(heap->root, &violation));
    EXPECT(strcmp(violation.invariant, invariant) == 0);
    *last = was;
}

static void check_tells_when_the_block_is_not_the_one_taken_last(void) {
    static const char as_it_was[] = "the block taken last is as it was";
    struct heap heap = heap_of(1 * MIB, 1);
    uint32_t held = number_of(&heap, must_alloc_pages(heap.root, 8));
    uint32_t number = number_of(&heap, must_alloc_pages(heap.root, 4));

    expect_violated(&heap, (struct bsa_last_block){{held}, 2, 2, false}, as_it_was);
    expect_violated(&heap, (struct bsa_last_block){{UINT32_MAX}, 2, 2, false}, as_it_was);
    expect_violated(&heap, (struct bsa_last_block){{number}, 3, 3, false}, as_it_was);
    expect_violated(&heap, (struct bsa_last_block){{number}, 2, 2, true}, as_it_was);
    expect_violated(&heap, (struct bsa_last_block){{0}, 0, 0, true}, "a block that is back is one");
    heap_close(&heap);
}

static void check_tells_when_a_block_lies_unmerged_or_unlisted_without_being_the_last(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uint32_t number = number_of(&heap, put_off_merging(&heap));

    expect_violated(&heap, (struct bsa_last_block){{number}, 2, 2, false},
                    "free buddies are merged");
    expect_violated(&heap, (struct bsa_last_block){{0}, 0, 0, false}, "free buddies are merged");
    heap_close(&heap);
    heap = heap_of(1 * MIB, 1);
    aligned_pages(&heap, 1, 2 * PAGE);
    EXPECT_OK(bsa_free(heap.root, must_alloc_pages(heap.root, 1))); /* its buddy is not free */
    expect_violated(&heap, (struct bsa_last_block){{0}, 0, 0, false},
                    "every free block is on the list of its order");
    heap_close(&heap);
}

static void check_tells_when_the_block_would_not_be_taken_again(void) {
    static const char taken_again[] = "the block taken last, freed, would be taken again";
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t lower = aligned_pages(&heap, 1, 64 * PAGE), upper = must_alloc_pages(heap.root, 1);
    uintptr_t over = aligned_pages(&heap, 1, 32 * PAGE);
    struct bsa_last_block last = *last_of(&heap);

    EXPECT_EQUAL(lower + PAGE, upper);
    /* Merged it would be too small, or others would come before it. */
    expect_violated(&heap, (struct bsa_last_block){last.head, 0, 7, false}, taken_again);
    expect_violated(&heap, (struct bsa_last_block){last.head, 0, 1, false}, taken_again);
    EXPECT_OK(bsa_free(heap.root, lower)); /* now first on the list, before the last one's buddy */
    EXPECT_EQUAL(number_of(&heap, over), last.head.value);
    expect_violated(&heap, last, taken_again);
    EXPECT_EQUAL(lower, must_alloc_pages(heap.root, 1));
    EXPECT_EQUAL(over + PAGE, must_alloc_pages(heap.root, 1));
    EXPECT_OK(bsa_free(heap.root, lower)); /* first again, but the lower half */
    expect_violated(&heap, (struct bsa_last_block){{number_of(&heap, upper)}, 0, 1, false},
                    taken_again);
    heap_close(&heap);
}

int main(void) {
    RUN(a_heap_that_puts_merging_off_is_like_one_that_does_not);
    RUN(the_same_request_gets_the_block_as_it_lies);
    RUN(any_other_request_merges_first);
    RUN(the_same_count_aligned_otherwise_is_another_request);
    RUN(free_lists_are_told_merged);
    RUN(a_block_that_is_cut_resized_or_joined_is_not_taken_back_as_it_was);
    RUN(a_neighbour_grows_into_the_block);
    RUN(a_block_of_low_memory_is_taken_from_merged_ones);
    RUN(bytes_copied_before_merging_are_the_same_heap);
    RUN(check_tells_when_the_block_is_not_the_one_taken_last);
    RUN(check_tells_when_a_block_lies_unmerged_or_unlisted_without_being_the_last);
    RUN(check_tells_when_the_block_would_not_be_taken_again);
    return 0;
}
