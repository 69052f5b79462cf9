/* Page words and bitmaps are the truth: everything else is computed from them, after a wipe, in
 * another root, at another address, after a crash; and damaged headers and words are refused, or
 * named by the check. */
#include "check.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "root.h"

#define PAGE (4 * KIB)

static struct bsa_section *first_section(const struct heap *heap) {
    return bsa_first_section(heap->root);
}

/* Objects of several sizes from all slots, page blocks of all kinds, holes between, remote frees
 * pending. */
static unsigned populate(struct bsa_root *root, uintptr_t *live, unsigned most) {
    unsigned count = 0, slots = bsa_slots(root);
    uint64_t seed = 31;

    for (unsigned i = 0; i < most; i++) {
        size_t size = i % 10 == 0 ? 1 + random_below(&seed, 20000) : 1 + random_below(&seed, 500);
        bsa_status status = i % 33 == 0 ? bsa_alloc_pages(root, 1 + random_below(&seed, 7), 0,
                                                          BSA_EXACT, &live[count])
                                        : bsa_alloc_on(root, i % slots, size, 0, 0, &live[count]);

        count += status == BSA_OK;
    }
    for (unsigned i = 0; i < count; i++) {
        if (random_below(&seed, 3) == 0) {
            EXPECT_OK(bsa_free_on(root, random_below(&seed, slots), live[i]));
            live[i--] = live[--count];
        }
    }
    EXPECT(count > most / 3);
    EXPECT_SOUND(root);
    return count;
}

static void free_everything(struct heap *heap, const uintptr_t *live, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        EXPECT_OK(bsa_free_on(heap->root, i % 3, live[i]));
    }
    bsa_trim(heap->root);
    EXPECT_EQUAL(bsa_total_pages(heap->root), bsa_free_page_count(heap->root));
    EXPECT_EQUAL(0, bsa_live_count(heap->root));
}

/* --- wiping ------------------------------------------------------------------------------------
 */

static void wipe_section(struct bsa_section *section) {
    struct bsa_section_derived *derived = &section->derived;

    memset(derived->free_list, 0xee, sizeof derived->free_list);
    memset(derived->free_count, 0xee, sizeof derived->free_count);
    derived->free_mask = 0xeeeeeeee;
    atomic_store(&derived->free_pages, 0xeeeeeeee);
    for (uint32_t i = 0; i < section->total_pages; i++) {
        struct bsa_page *page = bsa_page_at(section, i);
        uint64_t word = bsa_page_word(page);

        if (bsa_word_state(word) != BSA_PAGES) { /* whose size as asked for stands there */
            page->next.value = page->prev.value = 0xeeeeeeee;
        }
        atomic_store(&page->remote_next, 0xeeeeeeee);
        page->relist_in = 0xeee0;
        if (i < section->high_water) {
            atomic_store(&page->summary, 0xeeeeeeeeeeeeeeee);
        }
        page->relist_at = 0xeeee;
        if (bsa_word_back(word) != 0) {
            bsa_page_set_word(page, 0); /* which head a page of a slab belongs to */
        } else if (bsa_word_state(word) == BSA_SLAB) {
            bsa_page_set_word(page, word | (uint64_t)7 << BSA_WORD_LIST_SHIFT);
        }
    }
}

static void wipe_root(struct bsa_root *root) {
    root->allocated_pages = root->page_slack = 0xeeeeeeee;
    for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
        root->per_order[order].live = 0xeeeeeeee;
    }
    for (unsigned i = 0; i < root->space.slot_count; i++) {
        struct bsa_slot *slot = &root->space.slots[i];

        slot->tally.count.below = slot->tally.bytes.below = 0xeeeeeeee;
        for (unsigned c = 0; c < root->space.classes.count; c++) {
            struct bsa_cache *cache = &slot->caches[c];

            memset(&cache->slab, 0xee, sizeof cache->slab);
            cache->page = (struct bsa_page *)(uintptr_t)0xeeeeeeeeeeeeeee0;
            cache->base = 0xeeeeeeee;
            cache->bits = (struct bsa_bits *)(uintptr_t)0xeeeeeeeeeeeeeee0;
            cache->row = cache->word = cache->first = 0xeeeeeeee;
            cache->top = cache->freed + 3;
            cache->first_partial.value = cache->last_partial.value = 0xeeeeeeee;
            cache->empty.value = cache->retired.value = 0xeeeeeeee;
            cache->drained = 0xeeeeeeee;
            atomic_store(&cache->remote, 0xeeeeeeee);
        }
    }
}

static void a_heap_without_its_derived_fields_is_rebuilt_as_it_was(void) {
    for (int serial = 0; serial < 2; serial++) {
        struct heap heap = serial ? serial_heap_of(3 * MIB, 3) : heap_of(3 * MIB, 3);
        static uintptr_t live[3000];
        struct bsa_stats before, after;
        struct snapshot snapshot;
        unsigned count;

        heap_add(&heap, 600 * KIB, PAGE, 5 * PAGE + 8);
        count = populate(heap.root, live, 3000);
        bsa_trim(
            heap.root); /* else rebuilding takes back remote frees, and gives back empty slabs */
        snapshot = snapshot_of(heap.root, THE_TRUTH);
        before = stats_of(heap.root);
        for (struct bsa_section *section = first_section(&heap); section != NULL;
             section = bsa_next_section(heap.root, section)) {
            wipe_section(section);
        }
        wipe_root(heap.root);
        EXPECT_OK(bsa_rebuild(heap.root));
        EXPECT_SOUND(heap.root);
        EXPECT(snapshot_still_holds(&snapshot, heap.root));
        after = stats_of(heap.root);
        EXPECT_EQUAL(before.current_count, after.current_count);
        EXPECT_EQUAL(before.current_bytes, after.current_bytes);
        EXPECT_EQUAL(before.requested_bytes, after.requested_bytes);
        EXPECT_EQUAL(before.allocated_bytes, after.allocated_bytes);
        for (unsigned i = 0; i < BSA_CLASSES; i++) {
            EXPECT_EQUAL(before.per_class[i].live, after.per_class[i].live);
        }
        for (unsigned i = 0; i <= BSA_MAX_ORDER; i++) {
            EXPECT_EQUAL(before.per_order[i].live, after.per_order[i].live);
        }
        free_everything(&heap, live, count);
        count = populate(heap.root, live, 3000); /* and serves as ever */
        free_everything(&heap, live, count);
        heap_close(&heap);
    }
}

static void rebuilding_takes_back_what_was_freed_remotely(void) {
    struct heap heap = heap_of(2 * MIB, 3);
    static uintptr_t live[2000];
    unsigned count = populate(heap.root, live, 2000);

    for (unsigned i = 0; i < count; i += 4) {
        EXPECT_OK(bsa_free_on(heap.root, BSA_NO_SLOT, live[i]));
    }
    wipe_section(first_section(&heap));
    wipe_root(heap.root);
    EXPECT_OK(bsa_rebuild(heap.root));
    EXPECT_SOUND(heap.root);
    EXPECT_EQUAL(count - (count + 3) / 4, bsa_live_count(heap.root));
    for (unsigned i = 0; i < count; i++) {
        struct bsa_allocation found;

        EXPECT_EQUAL(i % 4 == 0, bsa_lookup(heap.root, live[i], &found) != BSA_OK);
        if (i % 4 != 0) {
            EXPECT_OK(bsa_free_on(heap.root, 1, live[i]));
        }
    }
    bsa_trim(heap.root);
    EXPECT_EQUAL(0, stats_of(heap.root).allocated_bytes);
    heap_close(&heap);
}

static void rebuilding_a_sound_heap_changes_nothing(void) {
    struct heap heap = heap_of(2 * MIB, 2);
    static uintptr_t live[2000];
    struct snapshot snapshot;

    populate(heap.root, live, 2000);
    bsa_trim(heap.root);
    snapshot = snapshot_of(heap.root, THE_TRUTH);
    EXPECT_OK(bsa_rebuild(heap.root));
    EXPECT_OK(bsa_rebuild(heap.root));
    EXPECT(snapshot_still_holds(&snapshot, heap.root));
    heap_close(&heap);
}

/* --- elsewhere ---------------------------------------------------------------------------------
 */

static void the_same_bytes_at_another_address_are_the_same_heap(void) {
    static const size_t moves[] = {0, PAGE, 3 * PAGE, 64 * KIB, 7 * 64 * KIB};

    for (unsigned m = 0; m < COUNT_OF(moves); m++) {
        for (unsigned slots = 1; slots <= 3; slots++) {
            struct heap old = heap_without_sections(PAGE, 2),
                        new = heap_without_sections(PAGE, slots);
            size_t size = 1 * MIB;
            unsigned char *from = heap_memory(&old, size, 1 * MIB, 123);
            unsigned char *to = heap_memory(&new, size, 1 * MIB, 123 + moves[m]);
            static uintptr_t live[1000];
            struct snapshot before, after;
            struct bsa_section_info info;
            uint64_t moved = (uint64_t)(to - from), alignment = PAGE;
            unsigned count, index = 99;

            EXPECT_OK(bsa_add_region(old.root, from, size, NULL, NULL));
            EXPECT_EQUAL(1, section_info(old.root, 0).generation);
            count = populate(old.root, live, 1000);
            bsa_trim(old.root);
            for (unsigned i = 0; i < count; i++) {
                memset((void *)live[i], (int)i, 1);
            }
            if (slots < 2) {
                /* Whose slot is not there any more goes to another: the walk says whose. */
                for (unsigned i = 0; i < count; i++) {
                    EXPECT_OK(bsa_free(old.root, live[i]));
                }
                for (count = 0; count < 50; count++) {
                    live[count] = must_alloc(old.root, 0, 100 * count);
                    memset((void *)live[count], (int)count, 1);
                }
                bsa_trim(old.root);
            }
            before = snapshot_of(old.root, THE_TRUTH);
            memcpy(to, from, size);
            EXPECT_OK(bsa_attach_region(new.root, to, size, NULL, &index));
            EXPECT_EQUAL(0, index);
            EXPECT_SOUND(new.root);
            after = snapshot_of(new.root, THE_TRUTH);
            EXPECT(snapshots_agree(&before, &after));
            info = section_info(new.root, 0);
            EXPECT_EQUAL(2, info.generation);
            while (moved % (2 * alignment) == 0 && alignment < (uint64_t)1 << 62) {
                alignment *= 2;
            }
            EXPECT(info.alignment == alignment || (moved == 0 && info.alignment > alignment));
            EXPECT_EQUAL(stats_of(old.root).current_bytes, stats_of(new.root).current_bytes);
            EXPECT_EQUAL(stats_of(old.root).requested_bytes, stats_of(new.root).requested_bytes);
            for (unsigned i = 0; i < count; i++) {
                live[i] += moved;
                EXPECT_EQUAL(i & 0xff, *(unsigned char *)live[i]);
            }
            free_everything(&new, live, count);
            snapshot_drop(&before);
            snapshot_drop(&after);
            heap_close(&new);
            heap_close(&old);
        }
    }
}

static void a_region_moved_by_no_multiple_of_the_page_is_refused(void) {
    struct heap old = heap_without_sections(PAGE, 1), new = heap_without_sections(PAGE, 1);
    size_t size = 256 * KIB;
    unsigned char *from = heap_memory(&old, size, PAGE, 0), *to = heap_memory(&new, size, PAGE, 64);
    struct bsa_section_config config = {.flags = BSA_NOT_MEMORY};

    EXPECT_OK(bsa_add_region(old.root, from, size, NULL, NULL));
    memcpy(to, from, size);
    EXPECT(bsa_attach_region(new.root, to, size, NULL, NULL) != BSA_OK);
    EXPECT_EQUAL(0, bsa_section_count(new.root));
    EXPECT_OK(bsa_remove_region(old.root, 0));
    /* With metadata and heap apart, the heap alone may be in the wrong place. */
    EXPECT_OK(bsa_add_section(old.root, from, size, 100 * MIB, 1 * MIB, &config, NULL));
    memcpy(to, from, size);
    EXPECT_STATUS(BSA_INVALID_PARAM,
                  bsa_attach_section(new.root, to, size, 100 * MIB + 64, &config, NULL));
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_attach_section(new.root, to, size, 0, &config, NULL));
    EXPECT_STATUS(BSA_CORRUPTION, bsa_attach_region(new.root, to, size, &config, NULL));
    EXPECT_OK(bsa_attach_section(new.root, to, size, 200 * MIB, &config, NULL));
    EXPECT_EQUAL(200 * MIB, section_info(new.root, 0).start);
    EXPECT_EQUAL(4 * MIB, section_info(new.root, 0).alignment); /* 100 MiB = 25 * 4 MiB */
    EXPECT_SOUND(new.root);
    heap_close(&new);
    heap_close(&old);
}

static void a_region_that_was_removed_can_be_attached_again(void) {
    struct heap heap = heap_of(512 * KIB, 1);
    unsigned char *region = heap.region[0];
    struct snapshot snapshot = snapshot_of(heap.root, THE_TRUTH);

    for (uint64_t generation = 2; generation < 5; generation++) {
        EXPECT_OK(bsa_remove_region(heap.root, 0));
        EXPECT_OK(bsa_attach_region(heap.root, region, 512 * KIB, NULL, NULL));
        EXPECT_EQUAL(generation, section_info(heap.root, 0).generation);
        EXPECT_OK(bsa_free(heap.root, must_alloc(heap.root, 0, 10)));
    }
    bsa_trim(heap.root);
    EXPECT(snapshot_still_holds(&snapshot, heap.root));
    heap_close(&heap);
}

static void attaching_what_is_no_heap_of_this_kind_is_refused(void) {
    struct heap heap = heap_of(512 * KIB, 1), same = heap_without_sections(PAGE, 1);
    struct heap other_pages = heap_without_sections(2 * PAGE, 1);
    unsigned char *region = heap.region[0], *rubbish = heap_memory(&same, 512 * KIB, PAGE, 0);
    struct bsa_section_info info = section_info(heap.root, 0);

    EXPECT_STATUS(BSA_CORRUPTION, bsa_attach_region(same.root, rubbish, 512 * KIB, NULL, NULL));
    memset(rubbish, 0, 512 * KIB);
    EXPECT_STATUS(BSA_CORRUPTION, bsa_attach_region(same.root, rubbish, 512 * KIB, NULL, NULL));
    EXPECT_STATUS(BSA_CORRUPTION, bsa_attach_region(same.root, rubbish, 0, NULL, NULL));
    EXPECT_STATUS(BSA_MEMORY_OVERLAP, bsa_attach_region(heap.root, region, 512 * KIB, NULL, NULL));
    EXPECT_STATUS(BSA_CORRUPTION,
                  bsa_attach_region(other_pages.root, region, 512 * KIB, NULL, NULL));
    for (size_t size = 1; size < info.meta_size + info.size; size += 4001) {
        EXPECT_STATUS(BSA_CORRUPTION, bsa_attach_region(same.root, region, size, NULL, NULL));
    }
    EXPECT_EQUAL(0, bsa_section_count(same.root));
    EXPECT_OK(bsa_attach_region(same.root, region, info.meta_size + info.size, NULL, NULL));
    heap_close(&other_pages);
    heap_close(&same);
    free(heap.root_memory);
    free(region);
}

/* Sizes whose metadata leaves more or fewer bytes of its last page over, so that headers of one
 * region lie here and there; each heap is left as after a crash. */
static void the_last_header_of_a_region_is_the_one_it_is_attached_by(void) {
    unsigned char *region = aligned_memory(PAGE, MIB), *last = NULL;
    unsigned moves = 0;

    memset(region, 0xa5, MIB);
    for (size_t size = MIB; size > 64 * KIB; size -= 5 * PAGE) {
        struct heap heap = heap_without_sections(PAGE, 1), other = heap_without_sections(PAGE, 1);
        uint32_t pages;

        EXPECT_OK(bsa_add_region(heap.root, region, size, NULL, NULL));
        moves += (unsigned char *)first_section(&heap) != last;
        last = (unsigned char *)first_section(&heap);
        EXPECT_EQUAL((uintptr_t)region, section_info(heap.root, 0).meta_start);
        pages = section_info(heap.root, 0).total_pages;
        EXPECT_OK(bsa_attach_region(other.root, region, size, NULL, NULL));
        EXPECT_EQUAL(pages, section_info(other.root, 0).total_pages);
        EXPECT((unsigned char *)first_section(&other) == last);
        EXPECT_SOUND(other.root);
        heap_close(&heap);
        heap_close(&other);
    }
    EXPECT(moves > 10);
    free(region);
}

static void a_header_that_is_wrong_in_one_field_is_refused(void) {
    struct heap heap = heap_of(512 * KIB, 1), other = heap_without_sections(PAGE, 1);
    struct bsa_section *section = first_section(&heap), right = *section;
    struct bsa_section wrong[10];

    EXPECT_OK(bsa_remove_region(heap.root, 0));
    for (unsigned i = 0; i < COUNT_OF(wrong); i++) {
        wrong[i] = right;
    }
    wrong[0].magic++;
    wrong[1].version++;
    wrong[2].byte_order = 0x04030201;
    wrong[3].header_size += 64;
    wrong[4].page_shift++;
    wrong[5].class_hash++;
    wrong[6].bitmap_bytes *= 2;
    wrong[7].total_pages = 0;
    wrong[8].high_water = right.total_pages + 1;
    wrong[9].areas[1].offset = right.areas[0].offset; /* the bitmaps over the descriptors */
    for (unsigned i = 0; i < COUNT_OF(wrong); i++) {
        *section = wrong[i];
        EXPECT_STATUS(BSA_CORRUPTION,
                      bsa_attach_region(other.root, heap.region[0], 512 * KIB, NULL, NULL));
        EXPECT_EQUAL(0, bsa_section_count(other.root));
    }
    *section = right;
    EXPECT_OK(bsa_attach_region(other.root, heap.region[0], 512 * KIB, NULL, NULL));
    heap_close(&other);
    heap_close(&heap);
}

static void a_heap_elsewhere_that_overlaps_another_is_refused(void) {
    struct heap heap = heap_of(512 * KIB, 1), old = heap_without_sections(PAGE, 1);
    struct bsa_section_config config = {.flags = BSA_NOT_MEMORY};
    unsigned char *meta = heap_memory(&old, 64 * KIB, PAGE, 0);
    uintptr_t taken = section_info(heap.root, 0).start;

    EXPECT_OK(bsa_add_section(old.root, meta, 64 * KIB, 100 * MIB, 1 * MIB, &config, NULL));
    EXPECT_OK(bsa_remove_region(old.root, 0));
    EXPECT_REFUSED(BSA_MEMORY_OVERLAP, heap.root,
                   bsa_attach_section(heap.root, meta, 64 * KIB, taken, &config, NULL));
    EXPECT_REFUSED(
        BSA_MEMORY_OVERLAP, heap.root,
        bsa_attach_section(heap.root, meta, 64 * KIB, (uintptr_t)meta + PAGE, &config, NULL));
    EXPECT_OK(bsa_attach_section(heap.root, meta, 64 * KIB, 100 * MIB, &config, NULL));
    heap_close(&heap);
    heap_close(&old);
}

static void a_heap_elsewhere_that_wraps_is_refused(void) {
    struct heap old = heap_without_sections(PAGE, 1), new = heap_without_sections(PAGE, 1);
    struct bsa_section_config config = {.flags = BSA_NOT_MEMORY};
    unsigned char *meta = heap_memory(&old, 64 * KIB, PAGE, 0);

    EXPECT_OK(bsa_add_section(old.root, meta, 64 * KIB, 100 * MIB, 1 * MIB, &config, NULL));
    EXPECT_OK(bsa_remove_region(old.root, 0));
    EXPECT_STATUS(BSA_INVALID_PARAM, bsa_attach_section(new.root, meta, 64 * KIB,
                                                        UINTPTR_MAX - 2 * PAGE + 1, &config, NULL));
    heap_close(&new);
    heap_close(&old);
}

static void a_region_that_begins_a_page_before_the_header_is_refused(void) {
    for (size_t page = 256; page <= 4 * KIB; page *= 2) {
        unsigned char *memory = aligned_memory(4 * KIB, 65 * page + 4 * KIB);
        struct heap old = heap_without_sections(page, 1), new = heap_without_sections(page, 1);

        memset(memory, 0, 65 * page);
        EXPECT_OK(bsa_add_region(old.root, memory + 15 * page, 50 * page, NULL, NULL));
        for (size_t before = 0; before < 15; before++) {
            EXPECT_STATUS(BSA_CORRUPTION, bsa_attach_region(new.root, memory + before * page,
                                                            (65 - before) * page, NULL, NULL));
        }
        EXPECT_OK(bsa_attach_region(new.root, memory + 15 * page, 50 * page, NULL, NULL));
        EXPECT_SOUND(new.root);
        heap_close(&new);
        heap_close(&old);
        free(memory);
    }
}

/* The metadata is as long as it says and no longer; AddressSanitizer watches. */
static void no_more_metadata_is_read_than_there_is(void) {
    struct bsa_section_config config = {.flags = BSA_NOT_MEMORY};
    uintptr_t heap_start = 100 * MIB + PAGE, objects[PAGE / 64];
    struct heap old = heap_without_sections(PAGE, 1), new = heap_without_sections(PAGE, 1);
    unsigned char *meta = heap_memory(&old, 64 * KIB, PAGE, 0), *copy;
    size_t size;

    EXPECT_OK(bsa_add_section(old.root, meta, 64 * KIB, heap_start, 4 * PAGE, &config, NULL));
    size = section_info(old.root, 0).meta_size;
    copy = aligned_memory(64, size);
    memcpy(copy, meta, size);
    EXPECT_OK(bsa_attach_section(new.root, copy, size, heap_start, &config, NULL));
    for (unsigned i = 0; i < COUNT_OF(objects); i++) {
        objects[i] = must_alloc(new.root, 0, 64);
    }
    EXPECT_EQUAL(heap_start + 3 * PAGE, objects[0]); /* the last page */
    for (unsigned i = 0; i < 40; i++) {
        EXPECT_OK(bsa_free(new.root, objects[i]));
    }
    for (unsigned i = 0; i < 40; i++) { /* more than are remembered */
        EXPECT(must_alloc(new.root, 0, 64) >= heap_start + 3 * PAGE);
    }
    EXPECT_SOUND(new.root);
    heap_close(&new);
    heap_close(&old);
    free(copy);
}

static void no_heap_begins_at_0(void) {
    struct heap heap = heap_without_sections(PAGE, 1);
    struct bsa_section_config config = {.flags = BSA_NOT_MEMORY};
    unsigned char *meta = heap_memory(&heap, 64 * KIB, PAGE, 0);

    EXPECT_STATUS(BSA_INVALID_PARAM,
                  bsa_add_section(heap.root, meta, 64 * KIB, 0, 1 * MIB, &config, NULL));
    EXPECT_OK(bsa_add_section(heap.root, meta, 64 * KIB, 1, 1 * MIB, &config, NULL));
    EXPECT_EQUAL(PAGE, section_info(heap.root, 0).start);
    heap_close(&heap);
}

static void slabs_of_a_slot_that_is_not_there_go_to_another(void) {
    struct heap old = heap_of(512 * KIB, 3), new = heap_without_sections(PAGE, 2);
    uintptr_t object = must_alloc(old.root, 2, 100);

    EXPECT_OK(bsa_attach_region(new.root, old.region[0], 512 * KIB, NULL, NULL));
    EXPECT_SOUND(new.root);
    EXPECT(slab_of(new.root, object).slot < 2);
    EXPECT_OK(bsa_free(new.root, object));
    bsa_trim(new.root);
    EXPECT_EQUAL(0, stats_of(new.root).allocated_bytes);
    heap_close(&new);
    free(old.root_memory);
    free(old.region[0]);
}

static void of_the_empty_slabs_found_one_is_kept_and_the_rest_given_back(void) {
    struct heap old = heap_of(512 * KIB, 3), new = heap_without_sections(PAGE, 1);
    uint64_t slab_bytes = 0;

    for (unsigned slot = 0; slot < 3; slot++) { /* each slot keeps one */
        uintptr_t object = must_alloc(old.root, slot, 100);

        slab_bytes = slab_of(old.root, object).bytes;
        EXPECT_OK(bsa_free_on(old.root, slot, object));
    }
    EXPECT_EQUAL(3 * slab_bytes, stats_of(old.root).allocated_bytes);
    EXPECT_OK(bsa_attach_region(new.root, old.region[0], 512 * KIB, NULL, NULL));
    EXPECT_SOUND(new.root);
    EXPECT_EQUAL(slab_bytes, stats_of(new.root).allocated_bytes);
    EXPECT_EQUAL(slab_bytes / PAGE, bsa_trim(new.root));
    heap_close(&new);
    free(old.root_memory);
    free(old.region[0]);
}

static void a_heap_attached_has_had_at_least_its_present_peak(void) {
    struct heap old = heap_of(512 * KIB, 1), new = heap_without_sections(PAGE, 1);
    struct bsa_stats stats;

    must_alloc(old.root, 0, 100);
    must_alloc_pages(old.root, 4);
    EXPECT_OK(bsa_attach_region(new.root, old.region[0], 512 * KIB, NULL, NULL));
    stats = stats_of(new.root);
    EXPECT(stats.peak_allocated_bytes >= stats.allocated_bytes);
    EXPECT(stats.peak_count >= stats.current_count);
    EXPECT(stats.peak_bytes >= stats.current_bytes);
    heap_close(&new);
    free(old.root_memory);
    free(old.region[0]);
}

/* --- damage ------------------------------------------------------------------------------------
 */

static bool visit_any(void *context, const struct bsa_allocation *allocation) {
    *(uint64_t *)context += allocation->usable_size;
    return true;
}

/* What attaches and passes the check can be used. */
static void expect_usable_or_refused(void *region, size_t size, void *root_memory) {
    struct bsa_config config = {PAGE, 2, false, {0}};
    struct bsa_violation violation = {NULL, 0, 0};
    struct bsa_root *root;
    bsa_status status;
    uintptr_t address;
    uint64_t bytes = 0;

    EXPECT_OK(bsa_init(root_memory, bsa_root_size(2), &config, &root));
    status = bsa_attach_region(root, region, size, NULL, NULL);
    if (status != BSA_OK) {
        EXPECT(status == BSA_CORRUPTION || status == BSA_INVALID_PARAM);
        EXPECT_EQUAL(0, bsa_section_count(root));
        return;
    }
    if (bsa_check(root, &violation) != BSA_OK) {
        EXPECT(violation.invariant != NULL && strlen(violation.invariant) > 10);
        return;
    }
    bsa_walk(root, visit_any, &bytes);
    EXPECT(bytes <= bsa_total_pages(root) * PAGE);
    for (unsigned i = 0; i < 6 && bsa_alloc_pages(root, 1, 0, 0, &address) == BSA_OK; i++) {
        memset((void *)address, 0xff, PAGE);
    }
    for (unsigned i = 0; i < 6 && bsa_alloc(root, 100, 0, BSA_ZERO, &address) == BSA_OK; i++) {
        memset((void *)address, 0xff, 100);
    }
    EXPECT_SOUND(root);
}

static unsigned char *damaged_region; /* of the last fixture, to be damaged and put right again */

static void damage_each_byte(size_t from, size_t to, size_t region_size,
                             const unsigned char *intact, void *root_memory) {
    static const unsigned char masks[] = {0x01, 0x02, 0x10, 0x80, 0xff};

    for (size_t at = from; at < to; at++) {
        for (unsigned m = 0; m < COUNT_OF(masks); m++) {
            memcpy(damaged_region, intact, region_size);
            damaged_region[at] ^= masks[m];
            expect_usable_or_refused(damaged_region, region_size, root_memory);
        }
    }
}

struct damage {
    unsigned char *intact;
    void *root_memory;
    size_t size, header, descriptors, descriptors_end;
};

static struct damage damage_open(size_t size) {
    struct damage damage = {.size = size, .root_memory = aligned_memory(64, bsa_root_size(2))};
    struct bsa_config config = {PAGE, 2, false, {0}};
    struct bsa_root *root;
    const struct bsa_section *section;
    uintptr_t address, block, pages[256];
    unsigned count = 0;

    damaged_region = aligned_memory(PAGE, damage.size);
    memset(damaged_region, 0, damage.size);
    EXPECT_OK(bsa_init(damage.root_memory, bsa_root_size(2), &config, &root));
    EXPECT_OK(bsa_add_region(root, damaged_region, damage.size, NULL, NULL));
    /* Damage above the high-water mark is not seen: let there be nothing above it. */
    while (bsa_alloc_pages(root, 1, 0, 0, &pages[count]) == BSA_OK) {
        count++;
    }
    while (count > 0) {
        EXPECT_OK(bsa_free(root, pages[--count]));
    }
    for (unsigned i = 0; i < 40; i++) {
        address = must_alloc(root, i % 2, 100 + i / 20 * 300);
    }
    block = must_alloc_pages(root, 2);
    EXPECT_OK(bsa_alloc_pages(root, 3, 0, BSA_EXACT, &address));
    EXPECT_OK(bsa_free(root, block));
    section = bsa_first_section(root);
    damage.header = (uintptr_t)section - (uintptr_t)damaged_region;
    damage.descriptors = (uintptr_t)section->derived.pages - (uintptr_t)damaged_region;
    damage.descriptors_end = damage.descriptors + section->total_pages * sizeof(struct bsa_page);
    damage.intact = malloc(damage.size);
    EXPECT(damage.intact != NULL);
    memcpy(damage.intact, damaged_region, damage.size);
    return damage;
}

static void damage_close(struct damage *damage) {
    free(damaged_region);
    free(damage->intact);
    free(damage->root_memory);
}

static void no_damaged_byte_of_a_header_leads_to_more_than_a_refusal(void) {
    struct damage damage = damage_open(112 * KIB);

    expect_usable_or_refused(damaged_region, damage.size, damage.root_memory);
    damage_each_byte(damage.header, damage.header + offsetof(struct bsa_section, heap_offset),
                     damage.size, damage.intact, damage.root_memory);
    damage_each_byte(damage.header + offsetof(struct bsa_section, derived),
                     damage.header + sizeof(struct bsa_section), damage.size, damage.intact,
                     damage.root_memory);
    damage_close(&damage);
}

static void no_damaged_heap_offset_lets_the_heap_overlap_its_metadata(void) {
    struct damage damage = damage_open(1 * MIB);
    struct bsa_section *section = (struct bsa_section *)(damaged_region + damage.header);
    uint64_t right = section->heap_offset;

    EXPECT(right >= 4 * PAGE);
    for (uint64_t wrong = 0; wrong < right; wrong += PAGE) {
        memcpy(damaged_region, damage.intact, damage.size);
        section->heap_offset = wrong;
        expect_usable_or_refused(damaged_region, damage.size, damage.root_memory);
    }
    damage_close(&damage);
}

static void no_damaged_byte_of_a_page_descriptor_leads_to_more_than_a_refusal(void) {
    struct damage damage = damage_open(112 * KIB);

    damage_each_byte(damage.descriptors, damage.descriptors_end, damage.size, damage.intact,
                     damage.root_memory);
    damage_close(&damage);
}

static void set_word(struct bsa_section *section, uint32_t page, enum bsa_head_state state,
                     uint32_t count) {
    section->high_water = section->high_water < page + 1 ? page + 1 : section->high_water;
    bsa_page_set_word(bsa_page_at(section, page),
                      bsa_block_word(state, bsa_log2_ceil(count), count));
}

/* Neither in the root that manages it nor in another. */
static void expect_no_heap(struct heap *heap) {
    struct heap other = heap_without_sections(PAGE, 1);

    EXPECT_STATUS(BSA_CORRUPTION, bsa_rebuild(heap->root));
    EXPECT_STATUS(BSA_CORRUPTION,
                  bsa_attach_region(other.root, heap->region[0], 1 * MIB, NULL, NULL));
    heap_close(&other);
    free(heap->region[0]);
    free(heap->root_memory);
}

static void blocks_that_do_not_start_aligned_are_no_heap(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    struct bsa_section *section = first_section(&heap);
    uintptr_t address;
    uint32_t head;

    EXPECT_OK(bsa_alloc_pages(heap.root, 4, 4 * PAGE, 0, &address));
    head = bsa_page_of(section, address);
    set_word(section, head, BSA_PAGES, 1);
    set_word(section, head + 1, BSA_PAGES, 2);
    set_word(section, head + 3, BSA_PAGES, 1);
    expect_no_heap(&heap);
}

static void free_blocks_and_slabs_of_three_pages_are_no_heap(void) {
    static const enum bsa_head_state states[] = {BSA_FREE, BSA_SLAB, BSA_CHANGING};

    for (unsigned i = 0; i < COUNT_OF(states); i++) {
        struct heap heap = heap_of(1 * MIB, 1);
        struct bsa_section *section = first_section(&heap);
        uintptr_t address;

        EXPECT_OK(bsa_alloc_pages(heap.root, 3, 0, BSA_EXACT, &address));
        set_word(section, bsa_page_of(section, address), states[i], 3);
        expect_no_heap(&heap);
    }
}

static void a_block_that_ends_behind_the_heap_is_no_heap(void) {
    for (uint32_t beyond = 1; beyond <= 3; beyond++) {
        struct heap heap = heap_of(1 * MIB, 1);
        struct bsa_section *section = first_section(&heap);
        uint32_t last = section->total_pages - 1;

        while (bsa_word_state(bsa_word_at(section, last)) == BSA_INSIDE) {
            last--;
        }
        set_word(section, last, BSA_PAGES, section->total_pages - last + beyond);
        expect_no_heap(&heap);
    }
}

static void slabs_of_classes_or_orders_that_do_not_exist_are_no_heap(void) {
    for (int wrong_class = 0; wrong_class < 2; wrong_class++) {
        struct heap heap = heap_of(1 * MIB, 1);
        struct bsa_section *section = first_section(&heap);
        unsigned order = wrong_class ? BSA_MAX_SLAB_ORDER : BSA_MAX_SLAB_ORDER + 1;
        unsigned class_index = wrong_class ? bsa_class_count(heap.root) : 0;
        uintptr_t address;

        EXPECT_OK(bsa_alloc_pages(heap.root, (size_t)1 << order, 0, 0, &address));
        bsa_page_set_word(bsa_page_at(section, bsa_page_of(section, address)),
                          bsa_slab_word(order, class_index, 0, BSA_SLAB_FULL));
        expect_no_heap(&heap);
    }
}

/* A slab has fewer objects than bits; a bit of none, set by who knows what, must not become one. */
static void bits_of_no_object_are_dropped(void) {
    struct heap heap = heap_of(512 * KIB, 1);
    uintptr_t object = must_alloc(heap.root, 0, 2000);
    struct bsa_slab_info info = slab_of(heap.root, object);
    struct bsa_section *section = first_section(&heap);
    struct bsa_bits *bits;

    bits = bsa_bits_at(section, bsa_page_of(section, info.base));
    atomic_store(&bits->remote, UINT64_MAX << 1);
    atomic_store(&bits->live, atomic_load(&bits->live) | 2);
    EXPECT_OK(bsa_rebuild(heap.root));
    EXPECT_SOUND(heap.root);
    for (unsigned i = 1; i < info.capacity; i++) {
        EXPECT_EQUAL(info.base, slab_of(heap.root, must_alloc(heap.root, 0, 2000)).base);
    }
    EXPECT(slab_of(heap.root, must_alloc(heap.root, 0, 2000)).base != info.base);
    heap_close(&heap);
}

/* Many bytes at once. */
static void no_rubbish_in_the_metadata_leads_to_more_than_a_refusal(void) {
    struct damage damage = damage_open(112 * KIB);
    uint64_t seed = 17;

    for (unsigned round = 0; round < 3000; round++) {
        memcpy(damaged_region, damage.intact, damage.size);
        for (unsigned i = 0; i <= round % 20; i++) {
            size_t at =
                damage.descriptors +
                random_below(&seed, (unsigned)(damage.descriptors_end - damage.descriptors));

            damaged_region[at] = (unsigned char)random_next(&seed);
        }
        expect_usable_or_refused(damaged_region, damage.size, damage.root_memory);
    }
    damage_close(&damage);
}

/* --- crashes -----------------------------------------------------------------------------------
 */

static uint32_t largest_free_block(const struct heap *heap, uint32_t *pages) {
    for (unsigned order = BSA_MAX_ORDER + 1; order-- > 0;) {
        uintptr_t address;

        if (bsa_free_list(heap->root, 0, order, &address, 1) > 0) {
            *pages = 1U << order;
            return bsa_page_of(first_section(heap), address);
        }
    }
    fail(__FILE__, __LINE__, "no free block");
}

/* Rebuilds; the heap must be what it was at the snapshot. */
static void expect_recovery(struct heap *heap, struct snapshot *snapshot) {
    EXPECT_OK(bsa_rebuild(heap->root));
    EXPECT_SOUND(heap->root);
    EXPECT(snapshot_still_holds(snapshot, heap->root));
    heap_close(heap);
}

static void a_split_that_was_cut_off_after_its_first_word_is_undone(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    struct snapshot snapshot = snapshot_of(heap.root, THE_TRUTH);
    uint32_t pages, head = largest_free_block(&heap, &pages);

    set_word(first_section(&heap), head + pages / 2, BSA_FREE, pages / 2);
    expect_recovery(&heap, &snapshot);
}

static void a_split_that_was_cut_off_after_both_words_is_undone(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    struct snapshot snapshot = snapshot_of(heap.root, THE_TRUTH);
    uint32_t pages, head = largest_free_block(&heap, &pages);

    set_word(first_section(&heap), head + pages / 2, BSA_FREE, pages / 2);
    set_word(first_section(&heap), head, BSA_FREE, pages / 2);
    expect_recovery(&heap, &snapshot);
}

static void a_free_that_was_cut_off_before_merging_is_finished(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    struct snapshot snapshot = snapshot_of(heap.root, THE_TRUTH);
    uintptr_t address;

    EXPECT_OK(bsa_alloc_pages(heap.root, 1, 8 * PAGE, 0, &address)); /* its buddy is free */
    set_word(first_section(&heap), bsa_page_of(first_section(&heap), address), BSA_FREE, 1);
    expect_recovery(&heap, &snapshot);
}

static void a_merge_that_was_cut_off_after_its_first_word_is_finished(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uint32_t pages, head = largest_free_block(&heap, &pages);
    struct snapshot snapshot = snapshot_of(heap.root, THE_TRUTH);
    uintptr_t address, same;

    EXPECT_OK(bsa_alloc_pages(heap.root, pages, 0, 0, &address));
    EXPECT_EQUAL(head, bsa_page_of(first_section(&heap), address));
    EXPECT_OK(
        bsa_realloc(heap.root, address, pages / 2 * PAGE, &same)); /* its upper half is free */
    /* The survivor grows; the absorbed one still says that it is a free block. */
    set_word(first_section(&heap), head, BSA_FREE, pages);
    expect_recovery(&heap, &snapshot);
}

static void trimming_to_an_exact_size_may_be_cut_off_anywhere(void) {
    for (unsigned steps = 1; steps <= 4; steps++) {
        struct heap heap = heap_of(1 * MIB, 1);
        uintptr_t address = must_alloc_pages(heap.root, 8);
        struct bsa_section *section = first_section(&heap);
        uint32_t head = bsa_page_of(section, address);

        /* 8 -> 6 -> 5 pages: the tail's head before the block shrinks. */
        set_word(section, head + 6, BSA_FREE, 2);
        if (steps >= 2) {
            set_word(section, head, BSA_PAGES, 6);
        }
        if (steps >= 3) {
            set_word(section, head + 5, BSA_FREE, 1);
        }
        if (steps >= 4) {
            set_word(section, head, BSA_PAGES, 5);
        }
        bsa_page_at(section, head)->requested = 5 * PAGE;
        EXPECT_OK(bsa_rebuild(heap.root));
        EXPECT_SOUND(heap.root);
        EXPECT_EQUAL((steps >= 4   ? 5
                      : steps >= 2 ? 6
                                   : 8) *
                         PAGE,
                     stats_of(heap.root).allocated_bytes);
        EXPECT_OK(bsa_free(heap.root, address));
        EXPECT_EQUAL(0, stats_of(heap.root).allocated_bytes);
        heap_close(&heap);
    }
}

static void growing_into_free_neighbours_may_be_cut_off_after_its_first_word(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t address;
    struct bsa_section *section = first_section(&heap);

    EXPECT_OK(bsa_alloc_pages(heap.root, 5, 0, BSA_EXACT, &address));
    set_word(section, bsa_page_of(section, address), BSA_PAGES, 8);
    EXPECT_OK(bsa_rebuild(heap.root));
    EXPECT_SOUND(heap.root);
    EXPECT_EQUAL(8 * PAGE, stats_of(heap.root).allocated_bytes);
    EXPECT_OK(bsa_free(heap.root, address));
    heap_close(&heap);
}

static void making_and_unmaking_a_slab_may_be_cut_off_between_its_pages(void) {
    struct heap heap = heap_of(4 * MIB, 1);
    uintptr_t object = must_alloc(heap.root, 0, 2000);
    struct bsa_section *section = first_section(&heap);
    uint32_t head = bsa_page_of(section, slab_of(heap.root, object).base);
    struct snapshot snapshot = snapshot_of(heap.root, THE_TRUTH);

    EXPECT(slab_of(heap.root, object).bytes > PAGE);
    bsa_page_set_word(bsa_page_at(section, head + 1), 0);
    expect_recovery(&heap, &snapshot);
}

static void a_block_on_its_way_to_a_slab_or_back_is_free_after_a_crash(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    struct bsa_section *section = first_section(&heap);
    struct snapshot snapshot;
    uintptr_t block, buddy;

    /* Beside a live block, so that it is not merged, and beside a free one. */
    EXPECT_OK(bsa_alloc_pages(heap.root, 2, 4 * PAGE, 0, &block));
    EXPECT_OK(bsa_alloc_pages(heap.root, 2, 0, 0, &buddy));
    EXPECT_EQUAL(block + 2 * PAGE, buddy);
    EXPECT_OK(bsa_free(heap.root, block));
    snapshot = snapshot_of(heap.root, THE_TRUTH);
    set_word(section, bsa_page_of(section, block), BSA_CHANGING, 2);
    EXPECT_OK(bsa_rebuild(heap.root));
    EXPECT_SOUND(heap.root);
    EXPECT(snapshot_still_holds(&snapshot, heap.root));
    EXPECT_OK(bsa_free(heap.root, buddy));
    snapshot = snapshot_of(heap.root, THE_TRUTH);
    EXPECT_OK(bsa_alloc_pages(heap.root, 2, 4 * PAGE, 0, &block));
    set_word(section, bsa_page_of(section, block), BSA_CHANGING, 2);
    expect_recovery(&heap, &snapshot);
}

/* --- crashes at any instruction ---------------------------------------------------------------
 *
 * A child works on a heap in shared memory, one machine instruction at a time. After each that
 * changed a byte its parent attaches a copy, as another process would if the child died there.
 * On x86 alone: where an atomic operation is a loop over a reservation, steps lose it each time.
 * And not under ThreadSanitizer, which makes many steps of each and has nothing to say here. */

#if (defined(__x86_64__) || defined(__i386__)) && !defined(__SANITIZE_THREAD__)
#define STEP_BY_STEP 1

struct witness {
    unsigned char *shared, *copy;
    size_t bytes, meta_bytes; /* of the region; of its start, where all changes are */
    uintptr_t object, block;  /* live all the time */
    void *root_memory;
    unsigned attached;
};

static void look_at_a_copy(struct witness *witness) {
    struct bsa_config config = {PAGE, 2, false, {0}};
    uintptr_t moved = (uintptr_t)witness->copy - (uintptr_t)witness->shared;
    struct bsa_allocation found;
    struct bsa_root *root;

    EXPECT_OK(bsa_init(witness->root_memory, bsa_root_size(2), &config, &root));
    EXPECT_OK(bsa_attach_region(root, witness->copy, witness->bytes, NULL, NULL));
    EXPECT_SOUND(root);
    EXPECT(stats_of(root).requested_bytes <= stats_of(root).current_bytes);
    EXPECT_OK(bsa_lookup(root, witness->object + moved, &found));
    EXPECT_EQUAL(112, found.usable_size);
    EXPECT_OK(bsa_lookup(root, witness->block + moved, &found));
    EXPECT_EQUAL(PAGE, found.usable_size);
    witness->attached++;
}

/* So that low memory is the end of a larger block. */
static bool every_fourth_page_is_low(void *context, uintptr_t address, uint64_t *physical) {
    (void)context;
    *physical = address / PAGE % 4 == 3 ? PAGE : (uint64_t)1 << 40;
    return true;
}

/* Every kind of change: splits, merges, exact blocks, growth, low memory, slabs made and given
 * back, local and remote frees and their draining. */
static void work(struct bsa_root *root) {
    uintptr_t a, b, objects[10];

    EXPECT_OK(bsa_alloc_pages_lowmem(root, 1, 0, &a));
    EXPECT_OK(bsa_free(root, a));
    EXPECT_OK(bsa_alloc_pages(root, 1, 0, 0, &a));
    EXPECT_OK(bsa_alloc_pages(root, 3, 0, BSA_EXACT, &b));
    EXPECT_OK(bsa_realloc(root, b, 4 * PAGE, &b));
    EXPECT_OK(bsa_realloc(root, b, 2 * PAGE - 5, &b));
    EXPECT_OK(bsa_free(root, a));
    EXPECT_OK(bsa_free(root, b));
    for (unsigned i = 0; i < COUNT_OF(objects); i++) {
        objects[i] = must_alloc(root, 0, 1500);
    }
    for (unsigned i = 0; i < COUNT_OF(objects); i++) {
        EXPECT_OK(bsa_free_on(root, i % 2, objects[i]));
    }
    bsa_trim(root);
}

/* Caches filled, used, spilled and merged. */
static void work_through_page_caches(struct bsa_root *root) {
    uintptr_t pages[4], large;

    EXPECT_OK(bsa_slot_attach(root, 1));
    EXPECT(bsa_cached_room(root, 0) == 2);
    for (unsigned i = 0; i < COUNT_OF(pages); i++) {
        EXPECT_OK(bsa_alloc_pages_on(root, 1, 1, 0, 0, &pages[i]));
    }
    for (unsigned i = 0; i < COUNT_OF(pages); i++) {
        EXPECT_OK(bsa_free_pages_on(root, 1, pages[i], 1));
    }
    EXPECT(bsa_cached_count(&root->space.slots[1].pages.stacks[0]) == 2);
    EXPECT_OK(bsa_alloc_pages_on(root, 1, 1, 0, 0, &pages[0]));
    EXPECT_OK(bsa_realloc_on(root, 1, pages[0], 2 * PAGE, &pages[0]));
    EXPECT_OK(bsa_alloc_pages_on(root, 1, 4, 0, 0, &large));
    EXPECT(bsa_cached_count(&root->space.slots[1].pages.stacks[0]) == 0);
    EXPECT_OK(bsa_free_on(root, 1, pages[0]));
    EXPECT_OK(bsa_free_on(root, 1, large));
}

/* A child that does the work is stopped at every instruction; more than `least` of them change
 * something. */
static void crash_anywhere(size_t bytes, void (*child_work)(struct bsa_root *root),
                           unsigned least) {
    struct heap heap = heap_without_sections(PAGE, 2);
    struct witness witness = {.copy = aligned_memory(PAGE, bytes),
                              .root_memory = aligned_memory(64, bsa_root_size(2)),
                              .bytes = bytes};
    struct bsa_section_config config = {.physical = every_fourth_page_is_low};
    int status;
    pid_t child;

    witness.shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT(witness.shared != MAP_FAILED);
    EXPECT_OK(bsa_add_region(heap.root, witness.shared, bytes, &config, NULL));
    witness.meta_bytes = section_info(heap.root, 0).meta_size;
    memcpy(witness.copy, witness.shared, bytes);
    witness.block = must_alloc_pages(heap.root, 1);
    witness.object = must_alloc(heap.root, 0, 100);
    child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        EXPECT_EQUAL(0, ptrace(PTRACE_TRACEME, 0, NULL, NULL));
        raise(SIGSTOP);
        child_work(heap.root);
        _exit(0);
    }
    EXPECT(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
    while (WIFSTOPPED(status)) {
        if (memcmp(witness.copy, witness.shared, witness.meta_bytes) != 0) {
            memcpy(witness.copy, witness.shared, witness.meta_bytes);
            look_at_a_copy(&witness);
            memcpy(witness.copy, witness.shared, witness.meta_bytes);
        }
        EXPECT_EQUAL(0, ptrace(PTRACE_SINGLESTEP, child, NULL, NULL));
        EXPECT_EQUAL(child, waitpid(child, &status, 0));
    }
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    EXPECT(witness.attached > least);
    free(witness.copy);
    free(witness.root_memory);
    free(heap.root_memory);
    munmap(witness.shared, bytes);
}

static void a_crash_at_any_instruction_leaves_a_heap_that_can_be_attached(void) {
    crash_anywhere(96 * KIB, work, 200);
    crash_anywhere(600 * KIB, work_through_page_caches, 60);
}
#endif

int main(void) {
    RUN(a_heap_without_its_derived_fields_is_rebuilt_as_it_was);
    RUN(rebuilding_takes_back_what_was_freed_remotely);
    RUN(rebuilding_a_sound_heap_changes_nothing);
    RUN(the_same_bytes_at_another_address_are_the_same_heap);
    RUN(a_region_moved_by_no_multiple_of_the_page_is_refused);
    RUN(a_region_that_was_removed_can_be_attached_again);
    RUN(attaching_what_is_no_heap_of_this_kind_is_refused);
    RUN(the_last_header_of_a_region_is_the_one_it_is_attached_by);
    RUN(a_header_that_is_wrong_in_one_field_is_refused);
    RUN(a_heap_elsewhere_that_overlaps_another_is_refused);
    RUN(a_heap_elsewhere_that_wraps_is_refused);
    RUN(a_region_that_begins_a_page_before_the_header_is_refused);
    RUN(no_more_metadata_is_read_than_there_is);
    RUN(no_heap_begins_at_0);
    RUN(slabs_of_a_slot_that_is_not_there_go_to_another);
    RUN(of_the_empty_slabs_found_one_is_kept_and_the_rest_given_back);
    RUN(a_heap_attached_has_had_at_least_its_present_peak);
    RUN(no_damaged_byte_of_a_header_leads_to_more_than_a_refusal);
    RUN(no_damaged_byte_of_a_page_descriptor_leads_to_more_than_a_refusal);
    RUN(blocks_that_do_not_start_aligned_are_no_heap);
    RUN(free_blocks_and_slabs_of_three_pages_are_no_heap);
    RUN(a_block_that_ends_behind_the_heap_is_no_heap);
    RUN(slabs_of_classes_or_orders_that_do_not_exist_are_no_heap);
    RUN(bits_of_no_object_are_dropped);
    RUN(no_rubbish_in_the_metadata_leads_to_more_than_a_refusal);
    RUN(no_damaged_heap_offset_lets_the_heap_overlap_its_metadata);
    RUN(a_split_that_was_cut_off_after_its_first_word_is_undone);
    RUN(a_split_that_was_cut_off_after_both_words_is_undone);
    RUN(a_free_that_was_cut_off_before_merging_is_finished);
    RUN(a_merge_that_was_cut_off_after_its_first_word_is_finished);
    RUN(trimming_to_an_exact_size_may_be_cut_off_anywhere);
    RUN(growing_into_free_neighbours_may_be_cut_off_after_its_first_word);
    RUN(making_and_unmaking_a_slab_may_be_cut_off_between_its_pages);
    RUN(a_block_on_its_way_to_a_slab_or_back_is_free_after_a_crash);
#ifdef STEP_BY_STEP
    RUN(a_crash_at_any_instruction_leaves_a_heap_that_can_be_attached);
#endif
    return 0;
}
