/* The directory on its own, with thousands of sections that are nothing but their headers: beside a
 * plain array, and with readers beside a writer. */
#include "check.h"

#include <pthread.h>

#include "directory.h"

enum { MOST = 2200, STEPS = 2500, LAYOUTS = 4 };

/* Where the sections of a directory may lie. The plain array that it is compared with: in order of
 * address, with one section or none for each place. */
struct world {
    struct bsa_directory directory;
    struct bsa_section *sections; /* of each place: managed or not */
    bool managed[MOST];
    unsigned count;
};

static uint64_t distance(unsigned layout, unsigned i, uint64_t *seed) {
    switch (layout) {
    case 0: /* equal ones side by side */
        return 64 * KIB;
    case 1: /* of many sizes */
        return 4 * KIB + 4 * KIB * random_below(seed, 500);
    case 2: /* in crowds far apart */
        return i % 100 == 0 ? 1000 * GIB : 8 * KIB;
    default: /* at ever larger distances */
        return (uint64_t)(4 + i) * (4 + i) * 4 * KIB;
    }
}

/* Each heap is followed by some bytes that are nobody's. Page numbers go in another order. */
static struct world *world_open(unsigned layout) {
    struct world *world = aligned_memory(64, sizeof *world);
    uint64_t start = (uint64_t)1 << 32, seed = 99;

    memset(world, 0, sizeof *world);
    world->sections = aligned_memory(64, MOST * sizeof *world->sections);
    memset(world->sections, 0xa5, MOST * sizeof *world->sections);
    for (unsigned i = 0; i < MOST; i++) {
        struct bsa_section *section = &world->sections[i];
        uint64_t size = distance(layout, i, &seed);

        section->derived.heap_start = (uintptr_t)start;
        section->derived.heap_size = size - 2 * KIB;
        section->page_shift = 12;
        section->total_pages = (uint32_t)(1 + i % 7);
        section->derived.base = 1 + 8 * (i * 7 % MOST);
        start += size;
    }
    return world;
}

static void world_close(struct world *world) {
    free(world->sections);
    free(world);
}

static void expect_found_or_not(const struct world *world, unsigned place) {
    const struct bsa_section *section = &world->sections[place];
    const struct bsa_section *expected = world->managed[place] ? section : NULL;
    uintptr_t start = bsa_heap_start(section), end = start + (uintptr_t)bsa_heap_size(section);
    uint32_t first = section->derived.base, behind = first + section->total_pages;

    EXPECT(bsa_section_by_address(&world->directory, start) == expected);
    EXPECT(bsa_section_by_address(&world->directory, start + (end - start) / 2) == expected);
    EXPECT(bsa_section_by_address(&world->directory, end - 1) == expected);
    EXPECT(bsa_section_by_address(&world->directory, end) == NULL);
    EXPECT(bsa_section_by_address(&world->directory, start - 1) == NULL);
    EXPECT(bsa_section_by_number(&world->directory, (bsa_page_no){first}) == expected);
    EXPECT(bsa_section_by_number(&world->directory, (bsa_page_no){behind - 1}) == expected);
    EXPECT(bsa_section_by_number(&world->directory, (bsa_page_no){behind}) == NULL);
}

static void expect_like_the_array(const struct world *world) {
    EXPECT(bsa_directory_is_valid(&world->directory));
    EXPECT_EQUAL(world->count, world->directory.by_address.count);
    for (unsigned i = 0; i < MOST; i++) {
        expect_found_or_not(world, i);
    }
    EXPECT(bsa_section_by_address(&world->directory, 0) == NULL);
    EXPECT(bsa_section_by_address(&world->directory, UINTPTR_MAX) == NULL);
    EXPECT(bsa_section_by_number(&world->directory, BSA_NO_PAGE) == NULL);
    EXPECT(bsa_section_by_number(&world->directory, (bsa_page_no){UINT32_MAX}) == NULL);
}

/* Adds the section, or removes it. A header that is not managed any more is somebody else's. */
static void turn(struct world *world, unsigned place) {
    struct bsa_section *section = &world->sections[place];

    if (world->managed[place]) {
        bsa_directory_remove(&world->directory, section);
        memset(&section->room, 0x5a, sizeof section->room);
        world->count--;
    } else {
        bsa_directory_insert(&world->directory, section);
        world->count++;
    }
    world->managed[place] = !world->managed[place];
}

static void sections_come_and_go_in_any_order_and_are_found_like_in_an_array(void) {
    for (unsigned layout = 0; layout < LAYOUTS; layout++) {
        struct world *world = world_open(layout);
        uint64_t seed = 7 + layout;

        expect_like_the_array(world);
        for (unsigned step = 0; step < STEPS; step++) {
            unsigned place = random_below(&seed, MOST);

            /* Mostly additions at first, and mostly removals at the end. */
            if (world->managed[place] == (random_below(&seed, STEPS) < step)) {
                turn(world, place);
                EXPECT(step % 64 != 0 || bsa_directory_is_valid(&world->directory));
                expect_found_or_not(world, place);
                expect_found_or_not(world, random_below(&seed, MOST));
            }
            if (step % 1250 == 1249) {
                expect_like_the_array(world);
            }
        }
        for (unsigned i = 0; i < MOST; i++) {
            if (world->managed[i]) {
                turn(world, i);
            }
        }
        expect_like_the_array(world);
        turn(world, 3);
        expect_like_the_array(world);
        world_close(world);
    }
}

/* Around every number of sections at which a tree gets another node or another level. */
static void trees_grow_and_shrink_by_one_section_at_a_time(void) {
    struct world *world = world_open(0);

    for (unsigned i = 0; i < 1100; i++) {
        turn(world, i);
        EXPECT((i > 70 && i < 1000) || bsa_directory_is_valid(&world->directory));
    }
    EXPECT_EQUAL(2, world->directory.by_address.height);
    expect_like_the_array(world);
    for (unsigned i = 0; i < 1100; i++) {
        turn(world, i);
        EXPECT((i > 100 && i < 1030) || bsa_directory_is_valid(&world->directory));
    }
    EXPECT_EQUAL(0, world->directory.by_address.height);
    expect_like_the_array(world);
    world_close(world);
}

/* --- readers beside a writer -------------------------------------------------------------------
 */

enum { READERS = 2, ADDED = 1100 };

struct watched {
    struct world *world;
    unsigned order[ADDED];
    _Atomic unsigned added;
    _Atomic unsigned reading;
};

static void *read_always(void *argument) {
    struct watched *watched = argument;
    const struct bsa_directory *directory = &watched->world->directory;
    uint64_t seed = 3 + atomic_fetch_add(&watched->reading, 1);
    unsigned added;

    do {
        const struct bsa_section *section;

        added = atomic_load_explicit(&watched->added, memory_order_acquire);
        section = &watched->world->sections[watched->order[random_below(&seed, added)]];
        EXPECT(bsa_section_by_address(directory, bsa_heap_start(section)) == section);
        EXPECT(bsa_section_by_number(directory, bsa_number_of(section, 0)) == section);
        EXPECT(bsa_section_by_address(directory, bsa_heap_start(section) - 1) == NULL);
    } while (added < ADDED);
    return NULL;
}

static void readers_find_every_section_while_others_are_added(void) {
    for (unsigned layout = 0; layout < LAYOUTS; layout++) {
        static struct watched watched;
        pthread_t readers[READERS];
        uint64_t seed = 5;

        watched.world = world_open(layout);
        atomic_store(&watched.reading, 0);
        for (unsigned i = 0; i < ADDED; i++) {
            unsigned other = random_below(&seed, i + 1);

            watched.order[i] = watched.order[other];
            watched.order[other] = i * 2;
        }
        turn(watched.world, watched.order[0]);
        atomic_store(&watched.added, 1);
        for (unsigned i = 0; i < READERS; i++) {
            EXPECT(pthread_create(&readers[i], NULL, read_always, &watched) == 0);
        }
        while (atomic_load(&watched.reading) < READERS) {
        }
        for (unsigned i = 1; i < ADDED; i++) {
            turn(watched.world, watched.order[i]);
            atomic_store_explicit(&watched.added, i + 1, memory_order_release);
        }
        for (unsigned i = 0; i < READERS; i++) {
            EXPECT(pthread_join(readers[i], NULL) == 0);
        }
        expect_like_the_array(watched.world);
        world_close(watched.world);
    }
}

int main(void) {
    RUN(sections_come_and_go_in_any_order_and_are_found_like_in_an_array);
    RUN(trees_grow_and_shrink_by_one_section_at_a_time);
    RUN(readers_find_every_section_while_others_are_added);
    return 0;
}
