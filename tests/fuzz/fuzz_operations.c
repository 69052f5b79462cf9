/* Fuzz target: sequences of all operations of bsa.h, on several sections and slots.
 *
 * A list of what should be live is kept beside the heap. After each step bsa_check must pass, the
 * walk must meet exactly the list, and each allocation must hold the bytes it was given; a step is
 * refused only with a status that its arguments explain. In the end all is freed, and the heap must
 * be as it was when it was made. */
#include "check.h"

#include "input.h"

enum { MOST_LIVE = 64, MOST_SECTIONS = 6, MOST_STEPS = 400, REMEMBERED = 8, MARKED = 32 };

struct live {
    uintptr_t address;
    size_t usable, requested;
    bool is_pages;
    unsigned tag;
};

struct section {
    void *meta, *heap; /* to be freed; `heap` may be NULL */
    uintptr_t start;
    uint32_t total_pages;
    uint32_t free_blocks[BSA_MAX_ORDER + 1]; /* when it was added */
};

struct state {
    struct input input;
    struct bsa_root *root;
    void *root_memory;
    size_t page;
    unsigned slots;
    bool serial, is_traced, is_attached[4];
    uint64_t limit;
    struct live live[MOST_LIVE];
    unsigned live_count, next_tag;
    struct section sections[MOST_SECTIONS];
    unsigned section_count;
    uintptr_t freed[REMEMBERED]; /* addresses that were live once */
    unsigned freed_count;
    unsigned translations_left; /* until one fails */
    bool translation_failed;
    unsigned traced; /* calls of the trace hook since the last step */
};

/* --- what should be live -----------------------------------------------------------------------
 */

static unsigned char mark_byte(const struct live *live, size_t i) {
    return (unsigned char)(live->tag * 37 + i * 11 + 1);
}

/* The first and the last bytes: whoever writes into a neighbour meets one of them. */
static size_t marked(const struct live *live) {
    return live->usable < MARKED ? live->usable : MARKED;
}

static void mark(const struct live *live) {
    unsigned char *bytes = (unsigned char *)live->address;

    for (size_t i = 0; i < marked(live); i++) {
        bytes[i] = mark_byte(live, i);
        bytes[live->usable - 1 - i] = mark_byte(live, live->usable - 1 - i);
    }
}

/* Of the first `size` bytes that were there before a realloc. */
static bool is_marked(const struct live *live, uintptr_t address, size_t size) {
    const unsigned char *bytes = (const unsigned char *)address;

    for (size_t i = 0; i < marked(live); i++) {
        size_t last = live->usable - 1 - i;

        if ((i < size && bytes[i] != mark_byte(live, i)) ||
            (last < size && bytes[last] != mark_byte(live, last))) {
            return false;
        }
    }
    return true;
}

static struct live *live_at(struct state *s, uintptr_t address) {
    for (unsigned i = 0; i < s->live_count; i++) {
        if (s->live[i].address == address) {
            return &s->live[i];
        }
    }
    return NULL;
}

static void expect_no_overlap(const struct state *s, uintptr_t address, size_t size) {
    for (unsigned i = 0; i < s->live_count; i++) {
        const struct live *other = &s->live[i];

        EXPECT(address + size <= other->address || other->address + other->usable <= address);
    }
}

/* A new allocation: it is where it may be, and as large as it should. */
static void enter(struct state *s, uintptr_t address, size_t requested, size_t align) {
    struct bsa_allocation found;
    struct bsa_section_info info;
    unsigned index;
    struct live *live;

    EXPECT_OK(bsa_lookup(s->root, address, &found));
    EXPECT_EQUAL(address, found.address);
    EXPECT(found.usable_size >= requested && found.usable_size > 0);
    EXPECT_OK(bsa_section_of(s->root, address, &index));
    EXPECT_EQUAL(index, found.section);
    info = section_info(s->root, index);
    EXPECT(address + found.usable_size <= info.start + info.size);
    EXPECT(align == 0 || address % (align < info.alignment ? align : info.alignment) == 0);
    expect_no_overlap(s, address, found.usable_size);
    EXPECT(s->live_count < MOST_LIVE);
    live = &s->live[s->live_count++];
    *live = (struct live){address, found.usable_size, requested, found.kind == BSA_KIND_PAGES,
                          s->next_tag++};
    mark(live);
}

static void remember_freed(struct state *s, uintptr_t address) {
    s->freed[s->freed_count++ % REMEMBERED] = address;
}

static void leave(struct state *s, struct live *live) {
    remember_freed(s, live->address);
    *live = s->live[--s->live_count];
}

struct meeting {
    struct state *state;
    unsigned met;
    uintptr_t last;
    unsigned last_section;
};

static bool meet(void *context, const struct bsa_allocation *found) {
    struct meeting *meeting = context;
    const struct live *live = live_at(meeting->state, found->address);

    EXPECT(live != NULL);
    EXPECT_EQUAL(live->usable, found->usable_size);
    EXPECT_EQUAL(live->is_pages, found->kind == BSA_KIND_PAGES);
    EXPECT(meeting->met == 0 || found->section > meeting->last_section ||
           found->address > meeting->last);
    meeting->last = found->address;
    meeting->last_section = found->section;
    meeting->met++;
    return true;
}

static void expect_usage(const struct bsa_root *root, const struct bsa_stats *stats) {
    struct bsa_usage usage;

    bsa_usage(root, &usage);
    EXPECT_EQUAL(stats->current_bytes, usage.current_bytes);
    EXPECT_EQUAL(stats->requested_bytes, usage.requested_bytes);
    EXPECT_EQUAL(stats->allocated_bytes, usage.allocated_bytes);
    EXPECT_EQUAL(stats->peak_allocated_bytes, usage.peak_allocated_bytes);
}

/* Where calls may overlap, what another slot has freed counts as live until its owner drains it. */
static void expect_counts(const struct state *s, bool all_drained) {
    struct bsa_stats stats = stats_of(s->root);
    uint64_t bytes = 0;

    for (unsigned i = 0; i < s->live_count; i++) {
        bytes += s->live[i].usable;
    }
    EXPECT_EQUAL(stats.current_count, bsa_live_count(s->root));
    EXPECT(stats.current_count >= s->live_count && stats.current_bytes >= bytes);
    if (s->serial || all_drained) {
        EXPECT_EQUAL(s->live_count, stats.current_count);
        EXPECT_EQUAL(bytes, stats.current_bytes);
    }
    EXPECT(stats.peak_count >= stats.current_count && stats.peak_bytes >= stats.current_bytes);
    EXPECT(stats.allocated_bytes >= stats.current_bytes);
    EXPECT_EQUAL((bsa_total_pages(s->root) - bsa_free_page_count(s->root)) * s->page,
                 stats.allocated_bytes);
    EXPECT_EQUAL(0, stats.overlaps);
    expect_usage(s->root, &stats);
}

static void expect_all_well(struct state *s) {
    struct meeting meeting = {s, 0, 0, 0};

    EXPECT_SOUND(s->root);
    bsa_walk(s->root, meet, &meeting);
    EXPECT_EQUAL(s->live_count, meeting.met);
    for (unsigned i = 0; i < s->live_count; i++) {
        EXPECT(is_marked(&s->live[i], s->live[i].address, s->live[i].usable));
    }
    expect_counts(s, false);
}

/* --- arguments ---------------------------------------------------------------------------------
 */

/* A slot of the root, or now and then none. */
static unsigned take_slot(struct state *s) {
    unsigned slot = take_below(&s->input, s->slots + 1);

    return slot < s->slots ? slot : BSA_NO_SLOT;
}

static size_t take_size(struct state *s) {
    unsigned scale = take_byte(&s->input);

    switch (scale % 8) {
    case 0:
        return take_byte(&s->input) % 16;
    case 1:
        return s->page / 2 - 8 + take_byte(&s->input) % 16;
    case 2:
        return s->page * (1 + scale / 32);
    case 3:
        return (size_t)take_number(&s->input, 8);
    case 4:
    case 5:
        return (size_t)take_number(&s->input, 2);
    default:
        return take_byte(&s->input) % 64 * 8;
    }
}

static size_t take_align(struct state *s) {
    unsigned byte = take_byte(&s->input);

    return byte < 160 ? 0 : byte < 250 ? (size_t)1 << byte % 20 : (size_t)take_number(&s->input, 8);
}

static bool is_power_of_two(size_t number) {
    return number != 0 && (number & (number - 1)) == 0;
}

/* --- may it be refused? ------------------------------------------------------------------------
 */

/* For want of memory only where it could not be found: no slab of an attached slot may hide it, and
 * no limit forbid it. */
static void expect_out_of_pages(const struct state *s, size_t pages, size_t align) {
    uint64_t blocks[BSA_MAX_ORDER + 1];

    for (unsigned i = 0; i < s->slots; i++) {
        if (s->is_attached[i]) {
            return;
        }
    }
    if (s->limit != UINT64_MAX || align > s->page || pages > (size_t)1 << BSA_MAX_ORDER) {
        return;
    }
    bsa_free_blocks(s->root, blocks);
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        EXPECT(blocks[order] == 0 || (size_t)1 << order < pages);
    }
}

static size_t pages_for(const struct state *s, size_t size) {
    return size == 0 ? 1 : size / s->page + (size % s->page != 0);
}

static void expect_explained(const struct state *s, bsa_status status, size_t size, size_t align,
                             unsigned slot) {
    if (status == BSA_NOT_INITIALIZED) {
        EXPECT_EQUAL(0, s->section_count);
    } else if (status == BSA_INVALID_PARAM) {
        EXPECT((align != 0 && !is_power_of_two(align)) || slot >= s->slots);
    } else {
        EXPECT_STATUS(BSA_NO_MEMORY, status);
        expect_out_of_pages(s, pages_for(s, size), align);
    }
}

/* --- steps -------------------------------------------------------------------------------------
 */

static void expect_zeros(uintptr_t address, size_t size) {
    for (size_t i = 0; i < size; i++) {
        EXPECT_EQUAL(0, ((const unsigned char *)address)[i]);
    }
}

static void step_alloc(struct state *s) {
    unsigned slot = take_slot(s), flags = take_byte(&s->input) % 8 == 0 ? BSA_ZERO : 0;
    size_t size = take_size(s), align = take_align(s);
    uintptr_t address;
    bsa_status status;

    if (s->live_count == MOST_LIVE) {
        return;
    }
    status = bsa_alloc_on(s->root, slot, size, align, flags, &address);
    if (status != BSA_OK) {
        expect_explained(s, status, size, align, slot);
        return;
    }
    if (flags == BSA_ZERO) {
        expect_zeros(address, size);
    }
    enter(s, address, size, align);
    EXPECT_EQUAL(bsa_granted_size(s->root, size, align), s->live[s->live_count - 1].usable);
}

static void step_alloc_pages(struct state *s) {
    unsigned slot = take_slot(s), flags = take_byte(&s->input) % 4;
    size_t count = take_below(&s->input, 40), align = take_align(s);
    uintptr_t address;
    bsa_status status;

    if (s->live_count == MOST_LIVE) {
        return;
    }
    status = bsa_alloc_pages_on(s->root, slot, count, align, flags, &address);
    if (status == BSA_INVALID_PARAM) {
        EXPECT(count == 0 || (align != 0 && (!is_power_of_two(align) || align < s->page)));
    } else if (status != BSA_OK) {
        expect_explained(s, status, count * s->page, align, 0);
    } else {
        if ((flags & BSA_ZERO) != 0) {
            expect_zeros(address, count * s->page);
        }
        enter(s, address, count * s->page, align == 0 ? s->page : align);
        EXPECT((flags & BSA_EXACT) == 0 || s->live[s->live_count - 1].usable == count * s->page);
    }
}

static void step_alloc_lowmem(struct state *s) {
    unsigned slot = take_slot(s);
    size_t count = take_below(&s->input, 8), align = take_align(s);
    uintptr_t address;
    bsa_status status;

    if (s->live_count == MOST_LIVE) {
        return;
    }
    s->translations_left = take_byte(&s->input) % 16;
    s->translation_failed = false;
    status = bsa_alloc_pages_lowmem_on(s->root, slot, count, align, &address);
    if (status == BSA_OK) {
        enter(s, address, count * s->page, align == 0 ? s->page : align);
    } else if (status == BSA_NO_TRANSLATION) {
        EXPECT(s->translation_failed);
    } else {
        EXPECT(status == BSA_NO_MEMORY || status == BSA_INVALID_PARAM ||
               status == BSA_NOT_INITIALIZED);
    }
}

static struct live *take_live(struct state *s) {
    return s->live_count == 0 ? NULL : &s->live[take_below(&s->input, s->live_count)];
}

static void step_free(struct state *s) {
    unsigned slot = take_slot(s);
    struct live *live = take_live(s);

    if (live != NULL) {
        EXPECT_OK(bsa_free_on(s->root, slot, live->address));
        leave(s, live);
    }
}

static void step_free_pages(struct state *s) {
    unsigned slot = take_slot(s);
    size_t count = take_below(&s->input, 16);
    struct live *live = take_live(s);

    if (live == NULL) {
        return;
    }
    if (!live->is_pages) {
        bsa_status status = bsa_free_pages_on(s->root, slot, live->address, count);

        EXPECT(status == BSA_NOT_ALLOCATED || status == BSA_INVALID_PARAM);
    } else if (count == 0 || count > live->usable / s->page) {
        EXPECT_STATUS(BSA_INVALID_PARAM, bsa_free_pages_on(s->root, slot, live->address, count));
    } else {
        EXPECT_OK(bsa_free_pages_on(s->root, slot, live->address, count));
        leave(s, live);
    }
}

/* In one call, or in two. */
static bsa_status reallocate(struct state *s, unsigned slot, uintptr_t old, size_t size,
                             uintptr_t *address) {
    bsa_status status;

    if (size % 2 == 0) {
        return bsa_realloc_on(s->root, slot, old, size, address);
    }
    status = bsa_realloc_copy_on(s->root, slot, old, size, address);
    if (status == BSA_OK && *address != old) {
        EXPECT_OK(bsa_free_on(s->root, slot, old));
    }
    return status;
}

static void step_realloc(struct state *s) {
    unsigned slot = take_slot(s);
    struct live *live = take_live(s), was;
    size_t size = take_size(s);
    uintptr_t address;
    bsa_status status;

    if (live == NULL) {
        return;
    }
    status = reallocate(s, slot, live->address, size, &address);
    if (status != BSA_OK) {
        EXPECT(size > live->usable || slot >= s->slots);
        expect_explained(s, status, size, 0, slot);
        return;
    }
    EXPECT(is_marked(live, address, size));
    was = *live;
    *live = s->live[--s->live_count];
    enter(s, address, size, 0);
    if (address != was.address) {
        remember_freed(s, was.address);
    }
}

static void step_alloc_many(struct state *s) {
    uintptr_t addresses[MOST_LIVE];
    unsigned slot = take_slot(s);
    size_t count = take_below(&s->input, MOST_LIVE - s->live_count + 1);
    size_t size = take_size(s), align = take_align(s);
    bsa_status status = bsa_alloc_many_on(s->root, slot, count, size, align, addresses);

    for (size_t i = 0; i < count && status == BSA_OK; i++) {
        enter(s, addresses[i], size, align);
    }
    EXPECT(status == BSA_OK || status == BSA_NO_MEMORY || status == BSA_INVALID_PARAM ||
           status == BSA_NOT_INITIALIZED);
}

/* Some of the live ones; now and then with one of them twice, or with one that is not live. */
static void step_free_many(struct state *s) {
    uintptr_t addresses[MOST_LIVE + 1], wrong = 0;
    unsigned slot = take_slot(s), every = 1 + take_byte(&s->input) % 4,
             spoil = take_byte(&s->input);
    size_t count = 0;
    bsa_status status;

    for (unsigned i = 0; i < s->live_count; i += every) {
        addresses[count++] = s->live[i].address;
    }
    if (count > 0 && spoil % 4 == 0) {
        uintptr_t bad = spoil % 8 == 0 ? addresses[0] : addresses[0] + 1;

        addresses[count++] = bad;
        EXPECT(bsa_free_many_on(s->root, slot, addresses, count, &wrong) != BSA_OK);
        EXPECT_EQUAL(bad, wrong);
        return;
    }
    status = bsa_free_many_on(s->root, slot, addresses, count, &wrong);
    EXPECT_STATUS(BSA_OK, status);
    for (size_t i = 0; i < count; i++) {
        leave(s, live_at(s, addresses[i]));
    }
}

/* An address that is not live, but likely to be mistaken for one that is. */
static uintptr_t take_wrong_address(struct state *s) {
    const struct live *live;
    const struct section *section;

    switch (take_byte(&s->input) % 4) {
    case 0:
        return s->freed[take_byte(&s->input) % REMEMBERED];
    case 1:
        live = take_live(s);
        return live == NULL ? 0 : live->address + (uintptr_t)take_number(&s->input, 2);
    case 2:
        if (s->section_count == 0) {
            return 0;
        }
        section = &s->sections[take_below(&s->input, s->section_count)];
        return section->start - s->page + (uintptr_t)take_number(&s->input, 3);
    default:
        return (uintptr_t)take_number(&s->input, 8);
    }
}

static void step_misuse(struct state *s) {
    unsigned slot = take_slot(s), way = take_byte(&s->input) % 3;
    uintptr_t address = take_wrong_address(s), moved, many[2] = {address, address};
    bsa_status status;

    if (live_at(s, address) != NULL) {
        return;
    }
    if (way == 0) {
        status = bsa_free_on(s->root, slot, address);
    } else if (way == 1) {
        status = bsa_free_many_on(s->root, slot, many, 2, NULL);
    } else {
        status = bsa_realloc_on(s->root, slot, address, take_size(s), &moved);
    }
    EXPECT(status == BSA_NOT_ALLOCATED || status == BSA_INVALID_PARAM || status == BSA_NOT_FOUND ||
           (status == BSA_NOT_INITIALIZED && s->section_count == 0));
    EXPECT(bsa_free_pages_on(s->root, slot, address, 1) != BSA_OK);
}

static void step_ask(struct state *s) {
    const struct live *live = take_live(s);
    struct bsa_allocation found;
    struct bsa_slab_info slab;
    enum bsa_page_state state;
    uintptr_t address = take_wrong_address(s);

    if (live != NULL) {
        uintptr_t inside = live->address + take_number(&s->input, 3) % live->usable;

        EXPECT_OK(bsa_lookup_inside(s->root, inside, &found));
        EXPECT_EQUAL(live->address, found.address);
        EXPECT_STATUS(live->is_pages ? BSA_NOT_ALLOCATED : BSA_OK,
                      bsa_slab_of(s->root, live->address, &slab));
        EXPECT_OK(bsa_page_state_of(s->root, inside, &state));
        EXPECT_EQUAL(live->is_pages ? BSA_PAGE_BLOCK : BSA_PAGE_SLAB, state);
    }
    if (bsa_lookup_inside(s->root, address, &found) == BSA_OK) {
        EXPECT(live_at(s, found.address) != NULL);
    }
    EXPECT((bsa_lookup(s->root, address, &found) == BSA_OK) == (live_at(s, address) != NULL));
    bsa_slab_of(s->root, address, &slab);
    bsa_reset_peak(s->root);
}

/* --- sections ----------------------------------------------------------------------------------
 */

static bool translate(void *context, uintptr_t address, uint64_t *physical) {
    struct state *s = context;

    if (s->translations_left == 0) {
        s->translation_failed = true;
        return false;
    }
    s->translations_left--;
    *physical = address & 0x1ffffffffULL; /* some low, some high */
    return true;
}

static struct bsa_section_config take_section_config(struct state *s) {
    unsigned byte = take_byte(&s->input);
    struct bsa_section_config config = {
        .flags = byte % 4 == 0 ? BSA_OFFSET_ONLY : 0,
        .physical_is_linear = byte / 4 % 2 == 0,
        .physical_base = ((uint64_t)1 << 32) - byte * s->page,
        .context = s,
    };

    config.physical = config.physical_is_linear ? NULL : translate;
    return config;
}

static void step_add_section(struct state *s) {
    size_t pages = 1 + take_below(&s->input, 80), odd = take_byte(&s->input);
    size_t size = pages * s->page + odd, meta_size = 4096 + pages * (s->page / 4 + 1200);
    bool apart = take_byte(&s->input) % 4 == 0;
    struct bsa_section_config config = take_section_config(s);
    struct section *section = &s->sections[s->section_count];
    struct bsa_section_info info;
    unsigned index;
    bsa_status status;

    if (s->section_count == MOST_SECTIONS) {
        return;
    }
    /* At a fixed place within the largest alignments, so that runs are alike. */
    section->meta = aligned_memory((size_t)1 << 16, (apart ? meta_size : size) + odd);
    section->heap = apart ? aligned_memory((size_t)1 << 16, size + odd) : NULL;
    if (apart) {
        status = bsa_add_section(s->root, (char *)section->meta + odd, meta_size,
                                 (uintptr_t)section->heap + odd, size, &config, &index);
    } else {
        status = bsa_add_region(s->root, (char *)section->meta + odd, size, &config, &index);
    }
    if (status != BSA_OK) {
        EXPECT_STATUS(BSA_INVALID_PARAM, status); /* no room beside the metadata */
        free(section->meta);
        free(section->heap);
        return;
    }
    EXPECT_EQUAL(s->section_count, index);
    info = section_info(s->root, index);
    section->start = info.start;
    section->total_pages = info.total_pages;
    memcpy(section->free_blocks, info.free_blocks, sizeof info.free_blocks);
    s->section_count++;
}

static bool is_used(const struct state *s, const struct section *section) {
    for (unsigned i = 0; i < s->live_count; i++) {
        if (s->live[i].address - section->start < (uintptr_t)section->total_pages * s->page) {
            return true;
        }
    }
    return false;
}

static void step_remove_section(struct state *s) {
    unsigned index = take_below(&s->input, MOST_SECTIONS);

    if (index >= s->section_count) {
        EXPECT_STATUS(BSA_NOT_FOUND, bsa_remove_region(s->root, index));
        return;
    }
    if (is_used(s, &s->sections[index])) {
        EXPECT_STATUS(BSA_IN_USE, bsa_remove_region(s->root, index));
        return;
    }
    EXPECT_OK(bsa_remove_region(s->root, index));
    free(s->sections[index].meta);
    free(s->sections[index].heap);
    s->section_count--;
    memmove(&s->sections[index], &s->sections[index + 1],
            (s->section_count - index) * sizeof *s->sections);
}

static void step_attach_slot(struct state *s) {
    unsigned slot = take_below(&s->input, s->slots + 1);
    bool attach = take_byte(&s->input) % 2 == 0;
    bsa_status status = attach ? bsa_slot_attach(s->root, slot) : bsa_slot_detach(s->root, slot);

    EXPECT_STATUS(slot < s->slots ? BSA_OK : BSA_INVALID_PARAM, status);
    if (slot < s->slots) {
        s->is_attached[slot] = attach && !s->serial;
    }
}

static void step_limit(struct state *s) {
    s->limit = take_byte(&s->input) % 2 == 0 ? UINT64_MAX : take_number(&s->input, 3);
    bsa_set_limit(s->root, s->limit);
}

static void step_trim(struct state *s) {
    uint64_t free_before = bsa_free_page_count(s->root);
    size_t freed = bsa_trim_on(s->root, take_slot(s));

    EXPECT_EQUAL(free_before + freed, bsa_free_page_count(s->root));
}

static void step_rebuild(struct state *s) {
    EXPECT_OK(bsa_rebuild(s->root));
}

/* --- the whole ---------------------------------------------------------------------------------
 */

static void on_trace(void *context, enum bsa_trace_op op, uintptr_t address, size_t size,
                     unsigned slot) {
    struct state *s = context;

    (void)size;
    (void)slot;
    EXPECT(op >= BSA_TRACE_ALLOC && op <= BSA_TRACE_REALLOC);
    EXPECT(address != 0);
    s->traced++;
}

static void set_up(struct state *s) {
    unsigned shape = take_byte(&s->input);
    struct bsa_config config = {.slots = 1 + shape % 4, .serial = shape / 4 % 2 == 0};

    config.page_size = (size_t)256 << take_below(&s->input, 6);
    s->is_traced = shape / 8 % 4 == 0;
    if (s->is_traced) {
        config.hooks.trace = on_trace;
        config.hooks.context = s;
    }
    s->page = config.page_size;
    s->slots = config.slots;
    s->serial = config.serial;
    s->limit = UINT64_MAX;
    s->root_memory = aligned_memory(64, bsa_root_size(config.slots));
    EXPECT_OK(bsa_init(s->root_memory, bsa_root_size(config.slots), &config, &s->root));
}

static void expect_as_new(const struct state *s) {
    for (unsigned i = 0; i < s->section_count; i++) {
        struct bsa_section_info info = section_info(s->root, i);

        EXPECT_EQUAL(s->sections[i].total_pages, info.free_pages);
        EXPECT(memcmp(s->sections[i].free_blocks, info.free_blocks, sizeof info.free_blocks) == 0);
    }
}

static void tear_down(struct state *s) {
    for (; s->live_count > 0; s->live_count--) {
        EXPECT_OK(
            bsa_free_on(s->root, s->live_count % s->slots, s->live[s->live_count - 1].address));
    }
    for (unsigned slot = 0; slot < s->slots; slot++) {
        EXPECT_OK(bsa_slot_detach(s->root, slot));
    }
    bsa_trim_on(s->root, 0);
    expect_all_well(s);
    expect_counts(s, true);
    expect_as_new(s);
    while (s->section_count > 0) {
        EXPECT_OK(bsa_remove_region(s->root, 0));
        EXPECT_SOUND(s->root);
        free(s->sections[0].meta);
        free(s->sections[0].heap);
        memmove(s->sections, s->sections + 1, --s->section_count * sizeof *s->sections);
    }
    free(s->root_memory);
}

/* Those that allocate and free stand here more often than the rest. */
static void (*const steps[])(struct state *) = {
    step_alloc,        step_alloc,          step_alloc,       step_alloc,   step_alloc,
    step_free,         step_free,           step_free,        step_free,    step_realloc,
    step_realloc,      step_alloc_pages,    step_alloc_pages, step_trim,    step_free_pages,
    step_alloc_lowmem, step_alloc_many,     step_free_many,   step_misuse,  step_misuse,
    step_add_section,  step_remove_section, step_attach_slot, step_rebuild, step_limit,
    step_ask,
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    static struct state state;

    state = (struct state){.input = {bytes, bytes + length}};
    set_up(&state);
    step_add_section(&state);
    for (unsigned i = 0; i < MOST_STEPS && !input_is_over(&state.input); i++) {
        unsigned count = state.live_count;

        state.traced = 0;
        steps[take_below(&state.input, COUNT_OF(steps))](&state);
        EXPECT(!state.is_traced || count == state.live_count || state.traced > 0);
        expect_all_well(&state);
    }
    tear_down(&state);
    return 0;
}
