/* Fuzz target: set-up. Roots of any page size and slot count; regions of any place and size, with
 * heaps beside them or nowhere; and regions managed again, moved and damaged.
 *
 * What is refused must have been wrong, and no byte outside the regions is written. A damaged
 * region that is taken, and then passes bsa_check, still passes after every use. */
#include "check.h"

#include "input.h"
#include "poison.h" /* an image is copied with its free memory */
#include "root.h"

enum { ARENA = 256 * 1024, MOST_SECTIONS = 8, MOST_STEPS = 24, MOST_USES = 32 };

struct range {
    uint64_t start, size; /* raw bytes, as given */
};

struct section {
    struct range meta, heap; /* `heap` has no bytes where it shares the region */
    bool is_memory;
};

struct state {
    struct input input;
    struct bsa_root *root;
    void *root_memory;
    unsigned char *arena;
    size_t page;
    struct section sections[MOST_SECTIONS];
    unsigned section_count;
};

/* --- roots -------------------------------------------------------------------------------------
 */

/* Most page sizes and counts are right: else there is nothing more to try. */
static struct bsa_config take_config(struct input *input) {
    unsigned shape = take_byte(input);
    struct bsa_config config = {.serial = shape % 2 == 0};

    config.slots = shape % 16 == 15 ? (unsigned)take_number(input, 4) : 1 + shape / 2 % 3;
    config.page_size =
        shape % 32 == 31 ? (size_t)take_number(input, 4) : (size_t)256 << take_byte(input) % 9;
    return config;
}

static bool is_right(const struct bsa_config *config) {
    size_t page = config->page_size;

    return page >= 256 && page <= 2 * MIB && (page & (page - 1)) == 0 && config->slots >= 1 &&
           config->slots <= BSA_MAX_SLOTS;
}

/* False: refused, as it should be. */
static bool make_root(struct state *s, const struct bsa_config *config, unsigned spoil) {
    size_t size = bsa_root_size(config->slots), room = size > MIB ? 64 : size;
    size_t off = spoil % 16 == 0 ? spoil / 16 : 0, given = spoil % 16 == 1 ? room - 1 : room;
    bool good = is_right(config) && size != 0 && room == size && off == 0 && given == room;
    bsa_status status;

    EXPECT((size != 0) == (config->slots >= 1 && config->slots <= BSA_MAX_SLOTS));
    s->root_memory = aligned_memory(64, room + off + 64);
    status = bsa_init((char *)s->root_memory + off, given, config, &s->root);
    EXPECT_STATUS(good ? BSA_OK : BSA_INVALID_PARAM, status);
    if (!good) {
        free(s->root_memory);
    }
    return good;
}

/* --- what is managed ---------------------------------------------------------------------------
 */

static bool share_a_byte(struct range a, struct range b) {
    return a.size != 0 && b.size != 0 &&
           (a.start < b.start ? b.start - a.start < a.size : a.start - b.start < b.size);
}

static bool is_managed(const struct state *s, struct range range) {
    for (unsigned i = 0; i < s->section_count; i++) {
        if (share_a_byte(range, s->sections[i].meta) || share_a_byte(range, s->sections[i].heap)) {
            return true;
        }
    }
    return false;
}

static bool wraps(struct range range) {
    return range.start + range.size < range.start;
}

static bool lies_in(uint64_t start, uint64_t size, struct range range) {
    return start >= range.start && size <= range.size && start - range.start <= range.size - size;
}

static struct range take_from_arena(struct state *s) {
    uint64_t start = take_number(&s->input, 3) % ARENA, size = take_number(&s->input, 3);

    return (struct range){(uintptr_t)s->arena + start, size % (ARENA - start + 1)};
}

/* --- using what is there -----------------------------------------------------------------------
 */

static bool gather(void *context, const struct bsa_allocation *found) {
    uintptr_t *list = context;

    list[1 + list[0]++] = found->address;
    return list[0] < MOST_USES;
}

/* Takes and gives back memory of all kinds; the heap was sound. */
static void use(struct bsa_root *root, struct input *input) {
    uintptr_t list[MOST_USES + 1] = {0}, address;
    unsigned slots = bsa_slots(root);

    bsa_walk(root, gather, list);
    for (uintptr_t i = 1; i <= list[0]; i++) {
        EXPECT_OK(bsa_free_on(root, take_byte(input) % (slots + 1), list[i]));
        EXPECT_SOUND(root);
    }
    for (unsigned i = 0; i < 6; i++) {
        size_t size = take_byte(input) % 2 == 0 ? (size_t)take_number(input, 2) : 8;

        if (bsa_alloc_on(root, i % slots, size, 0, 0, &address) == BSA_OK) {
            EXPECT_SOUND(root);
            EXPECT(i % 2 == 0 || bsa_free_on(root, 0, address) == BSA_OK);
        }
        EXPECT_SOUND(root);
    }
    bsa_trim(root);
    EXPECT_SOUND(root);
}

static void use_pages(struct bsa_root *root, struct input *input) {
    size_t count = 1 + take_byte(input) % 8;
    uintptr_t address;

    if (bsa_alloc_pages(root, count, 0, BSA_EXACT, &address) == BSA_OK) {
        EXPECT_SOUND(root);
        EXPECT_OK(bsa_free_pages(root, address, count));
    }
    EXPECT_SOUND(root);
}

/* --- adding and removing -----------------------------------------------------------------------
 */

/* Whether such a region, refused as invalid, may have been too small. */
static bool may_be_too_small(const struct state *s, uint64_t size) {
    return size < 4 * s->page + 4096;
}

static void entered(struct state *s, struct section section) {
    struct bsa_section_info info = section_info(s->root, s->section_count);
    struct range heap = section.heap.size == 0 ? section.meta : section.heap;

    EXPECT(lies_in(info.meta_start, info.meta_size, section.meta));
    EXPECT(lies_in(info.start, info.size, heap));
    EXPECT(info.start % s->page == 0 && info.size == info.total_pages * s->page);
    EXPECT(info.total_pages > 0 && info.free_pages == info.total_pages);
    s->sections[s->section_count++] = section;
}

static void step_add_region(struct state *s) {
    struct bsa_section_config config = {.flags =
                                            take_byte(&s->input) % 4 == 0 ? BSA_OFFSET_ONLY : 0};
    struct range region = take_from_arena(s);
    bool managed = is_managed(s, region);
    bsa_status status;

    if (s->section_count == MOST_SECTIONS) {
        return;
    }
    status = bsa_add_region(s->root, (void *)(uintptr_t)region.start, region.size, &config, NULL);
    EXPECT((status == BSA_MEMORY_OVERLAP) == managed);
    if (status == BSA_OK) {
        entered(s, (struct section){region, {0, 0}, true});
    } else if (!managed) {
        EXPECT_STATUS(BSA_INVALID_PARAM, status);
        EXPECT(may_be_too_small(s, region.size));
    }
}

/* A region of no memory at all: too small or not to be addressed, so nothing of it is touched. */
static void step_add_nowhere(struct state *s) {
    struct range region = {take_number(&s->input, 8), take_number(&s->input, 8)};

    if (!wraps(region)) {
        region.size %= s->page;
    }
    EXPECT(bsa_add_region(s->root, (void *)(uintptr_t)region.start, region.size, NULL, NULL) !=
           BSA_OK);
}

static void step_add_apart(struct state *s) {
    unsigned shape = take_byte(&s->input);
    bool is_memory = shape % 2 == 0;
    struct range meta = take_from_arena(s), heap = take_from_arena(s);
    struct bsa_section_config config = {
        .flags = (shape / 2 % 4 == 0 ? BSA_OFFSET_ONLY : 0U) | (is_memory ? 0U : BSA_NOT_MEMORY),
        .physical_is_linear = shape / 8 % 2 == 0,
        .physical_base = shape / 16 == 0 ? take_number(&s->input, 8) : 0,
    };
    bool overlap;
    bsa_status status;

    if (s->section_count == MOST_SECTIONS) {
        return;
    }
    if (!is_memory) {
        heap = (struct range){take_number(&s->input, 8), take_number(&s->input, 8)};
    }
    overlap = is_managed(s, meta) || is_managed(s, heap) || share_a_byte(meta, heap);
    status = bsa_add_section(s->root, (void *)(uintptr_t)meta.start, meta.size, heap.start,
                             heap.size, &config, NULL);
    EXPECT((status == BSA_MEMORY_OVERLAP) == overlap);
    if (status == BSA_OK) {
        EXPECT(!wraps(heap));
        entered(s, (struct section){meta, heap, is_memory});
    }
}

static void step_remove(struct state *s) {
    unsigned index = take_byte(&s->input) % MOST_SECTIONS;
    bsa_status status = bsa_remove_region(s->root, index);

    EXPECT((status == BSA_NOT_FOUND) == (index >= s->section_count));
    if (status == BSA_OK) {
        s->section_count--;
        memmove(&s->sections[index], &s->sections[index + 1],
                (s->section_count - index) * sizeof *s->sections);
    }
}

static bool all_is_memory(const struct state *s) {
    for (unsigned i = 0; i < s->section_count; i++) {
        if (!s->sections[i].is_memory) {
            return false;
        }
    }
    return true;
}

static void step_use(struct state *s) {
    uintptr_t address;

    if (all_is_memory(s)) {
        use(s->root, &s->input);
    } else {
        EXPECT_STATUS(BSA_INVALID_PARAM, bsa_alloc(s->root, 8, 0, BSA_ZERO, &address));
        use_pages(s->root, &s->input);
    }
}

/* --- managing again ----------------------------------------------------------------------------
 */

/* Few places, most of them in the header: there each byte means something. */
static unsigned damage(struct input *input, unsigned char *bytes, size_t size) {
    unsigned count = take_byte(input) % 4;

    for (unsigned i = 0; i < count; i++) {
        size_t place = (size_t)take_number(input, 2) % size;

        bytes[place] ^= (unsigned char)(1 + take_byte(input) % 255);
    }
    return count;
}

static void expect_the_same_heap(const struct bsa_root *root, const struct bsa_root *again,
                                 unsigned index) {
    EXPECT_EQUAL(section_info(root, index).free_pages, section_info(again, 0).free_pages);
    EXPECT_EQUAL(section_info(root, index).total_pages, section_info(again, 0).total_pages);
}

/* Pages beyond the high-water mark were never touched: bsa_check does not look whether that is so.
 */
static bool is_fresh_beyond_the_mark(const struct bsa_section *section) {
    bsa_page_index head = 0;

    while (head < section->total_pages) {
        uint64_t word = bsa_word_at(section, head);

        for (bsa_page_index page = head; page < head + bsa_word_count(word); page++) {
            bool is_inside = page != head && bsa_word_state(word) != BSA_SLAB;

            if (page >= section->high_water && (bsa_page_at(section, page)->summary != 0 ||
                                                (is_inside && bsa_word_at(section, page) != 0))) {
                return false;
            }
        }
        head += bsa_word_count(word);
    }
    return true;
}

/* Copies a region as it is, and manages the copy with a root of its own. */
static void step_attach_copy(struct state *s) {
    struct state copy = {.input = s->input};
    struct bsa_config config = {s->page, 1 + take_byte(&s->input) % 3, true, {0}};
    unsigned index = take_byte(&s->input) % MOST_SECTIONS, off = take_byte(&s->input), spoilt;
    const struct section *from = &s->sections[index];
    struct bsa_section_info info;
    unsigned char *to;
    bsa_status status;

    if (index >= s->section_count || from->heap.size != 0) {
        return;
    }
    info = section_info(s->root, index);
    off = off % 4 == 0 ? off : 0;
    copy.arena = aligned_memory(64 * KIB, ARENA + 64 * KIB + 256);
    to = copy.arena + from->meta.start % s->page + off;
    bsa_unpoison_region((void *)(uintptr_t)from->meta.start, from->meta.size);
    memcpy(to, (void *)(uintptr_t)from->meta.start, from->meta.size);
    spoilt = damage(&s->input, to + (info.meta_start - from->meta.start), info.meta_size);
    EXPECT(make_root(&copy, &config, 2));
    status = bsa_attach_region(copy.root, to, from->meta.size, NULL, NULL);
    if (spoilt == 0 && off == 0) {
        EXPECT_STATUS(BSA_OK, status);
        expect_the_same_heap(s->root, copy.root, index);
    }
    if (status == BSA_OK) {
        bool sound = bsa_check(copy.root, &(struct bsa_violation){0}) == BSA_OK;

        EXPECT(sound || spoilt != 0);
        if (sound && is_fresh_beyond_the_mark(bsa_first_section(copy.root))) {
            use(copy.root, &s->input);
            EXPECT_OK(bsa_rebuild(copy.root));
            EXPECT_SOUND(copy.root);
        }
    }
    free(copy.root_memory);
    free(copy.arena);
    EXPECT_OK(bsa_rebuild(s->root)); /* poisons the original anew */
}

/* --- the whole ---------------------------------------------------------------------------------
 */

static void (*const steps[])(struct state *) = {
    step_add_region, step_add_region, step_add_nowhere, step_add_apart,   step_add_apart,
    step_remove,     step_use,        step_use,         step_attach_copy, step_attach_copy,
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    struct state s = {.input = {bytes, bytes + length}};
    struct bsa_config config = take_config(&s.input);

    if (!make_root(&s, &config, take_byte(&s.input))) {
        return 0;
    }
    s.page = config.page_size;
    s.arena = aligned_memory(MIB, ARENA);
    for (unsigned i = 0; i < MOST_STEPS && !input_is_over(&s.input); i++) {
        steps[take_byte(&s.input) % COUNT_OF(steps)](&s);
        EXPECT_EQUAL(s.section_count, bsa_section_count(s.root));
        EXPECT_SOUND(s.root);
    }
    free(s.arena);
    free(s.root_memory);
    return 0;
}
