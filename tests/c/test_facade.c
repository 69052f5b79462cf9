/* Allocations of any size through the public interface: routing, misuse, slots, the last effort,
 * realloc, bulk, hooks, statistics. */
#include "check.h"

#include <sys/mman.h>

#include "root.h" /* to tell the page lock from the slots' */

#define PAGE (4 * KIB)

static void fill(uintptr_t address, size_t size, unsigned tag) {
    unsigned char *bytes = (unsigned char *)address;

    for (size_t i = 0; i < size; i++) {
        bytes[i] = (unsigned char)(tag * 31 + i * 7);
    }
}

static bool is_filled(uintptr_t address, size_t size, unsigned tag) {
    const unsigned char *bytes = (const unsigned char *)address;

    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != (unsigned char)(tag * 31 + i * 7)) {
            return false;
        }
    }
    return true;
}

static struct bsa_allocation lookup(const struct bsa_root *root, uintptr_t address) {
    struct bsa_allocation found;

    EXPECT_OK(bsa_lookup(root, address, &found));
    return found;
}

static void must_free(struct bsa_root *root, unsigned slot, uintptr_t address) {
    EXPECT_OK(bsa_free_on(root, slot, address));
}

/* --- routing -----------------------------------------------------------------------------------
 */

static void every_size_is_served_and_aligned(void) {
    struct heap heap = heap_of(16 * MIB, 1);

    for (size_t size = 0; size < 80000; size += size < 600 ? 1 : 997) {
        uintptr_t address = must_alloc(heap.root, 0, size);
        struct bsa_allocation found = lookup(heap.root, address);

        EXPECT(found.usable_size >= size && found.usable_size > 0);
        EXPECT_EQUAL(0, address % (size >= 16 ? 16 : 8));
        EXPECT_EQUAL(size <= PAGE / 2 ? BSA_KIND_OBJECT : BSA_KIND_PAGES, found.kind);
        EXPECT_EQUAL(address, found.address);
        if (found.kind == BSA_KIND_PAGES) {
            EXPECT(found.usable_size >= PAGE && found.usable_size < 2 * size + PAGE);
            EXPECT_EQUAL(0, found.usable_size & (found.usable_size - 1)); /* not exact */
            EXPECT_EQUAL(size, found.requested_size);
        }
        fill(address, found.usable_size, (unsigned)size);
        EXPECT(is_filled(address, size, (unsigned)size));
        must_free(heap.root, 0, address);
    }
    EXPECT_EQUAL(0, bsa_live_count(heap.root));
    heap_close(&heap);
}

static void every_alignment_is_kept_for_every_size(void) {
    struct heap heap = heap_without_sections(PAGE, 1);

    heap_add(&heap, 16 * MIB, 2 * MIB, 4096);
    for (size_t align = 1; align <= 2 * MIB; align *= 2) {
        for (size_t size = 0; size <= 3 * PAGE; size += 311) {
            uintptr_t address;

            EXPECT_OK(bsa_alloc(heap.root, size, align, 0, &address));
            EXPECT_EQUAL(0, address % align);
            EXPECT(lookup(heap.root, address).usable_size >= size);
            EXPECT_EQUAL(size <= PAGE / 2 && align <= PAGE / 2 ? BSA_KIND_OBJECT : BSA_KIND_PAGES,
                         lookup(heap.root, address).kind);
            EXPECT_OK(bsa_free(heap.root, address));
        }
    }
    heap_close(&heap);
}

static void wrong_arguments_are_refused(void) {
    struct heap heap = heap_of(1 * MIB, 2);
    uintptr_t address;

    EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root, bsa_alloc(heap.root, 8, 3, 0, &address));
    EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root, bsa_alloc(heap.root, 8, SIZE_MAX, 0, &address));
    EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root, bsa_alloc(heap.root, 8, 24, 0, &address));
    EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root, bsa_alloc(heap.root, 8, 0, 64, &address));
    EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root, bsa_alloc_pages(heap.root, 1, 0, 8, &address));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc(heap.root, 2 * MIB, 0, 0, &address));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc(heap.root, (size_t)1 << 32, 0, 0, &address));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc(heap.root, SIZE_MAX / 2, 0, 0, &address));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc(heap.root, SIZE_MAX, 0, 0, &address));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc(heap.root, SIZE_MAX - PAGE, 0, 0, &address));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root,
                   bsa_alloc(heap.root, 1, SIZE_MAX / 2 + 1, 0, &address));
    EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root, bsa_slot_attach(heap.root, 2));
    EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root, bsa_slot_detach(heap.root, BSA_NO_SLOT));
    heap_close(&heap);
}

static void a_caller_without_a_slot_may_free_and_take_pages(void) {
    struct heap heap = heap_of(1 * MIB, 2);
    uintptr_t object = must_alloc(heap.root, 1, 40), pages, none;
    unsigned callers[] = {BSA_NO_SLOT, 2, 65535, 65537};

    for (unsigned i = 0; i < COUNT_OF(callers); i++) {
        EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root,
                       bsa_alloc_on(heap.root, callers[i], 40, 0, 0, &none));
        EXPECT_OK(bsa_alloc_on(heap.root, callers[i], 3 * PAGE, 0, 0, &pages));
        must_free(heap.root, callers[i], pages);
        EXPECT_OK(bsa_alloc_pages_on(heap.root, callers[i], 3, 0, 0, &pages));
        EXPECT_OK(bsa_free_pages_on(heap.root, callers[i], pages, 3));
        must_free(heap.root, callers[i], object);
        EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_free_on(heap.root, callers[i], object));
        bsa_trim_on(heap.root, callers[i]);
        EXPECT_EQUAL(0, stats_of(heap.root).allocated_bytes);
        object = must_alloc(heap.root, 1, 40);
    }
    must_free(heap.root, 1, object);
    heap_close(&heap);
}

static void zeroed_memory_is_zero_even_where_it_was_used_before(void) {
    struct heap heap = heap_of(4 * MIB, 1);

    for (size_t size = 1; size < 70000; size = size * 3 / 2 + 1) {
        uintptr_t address = must_alloc(heap.root, 0, size);
        struct bsa_allocation found = lookup(heap.root, address);

        memset((void *)address, 0xff, found.usable_size);
        must_free(heap.root, 0, address);
        EXPECT_OK(bsa_alloc(heap.root, size, 0, BSA_ZERO, &address));
        for (size_t i = 0; i < found.usable_size; i++) {
            EXPECT_EQUAL(0, ((unsigned char *)address)[i]);
        }
        must_free(heap.root, 0, address);
    }
    for (size_t count = 1; count < 10; count++) {
        uintptr_t address = must_alloc_pages(heap.root, count);

        memset((void *)address, 0xff, count * PAGE);
        must_free(heap.root, 0, address);
        EXPECT_OK(bsa_alloc_pages(heap.root, count, 0, BSA_ZERO | BSA_EXACT, &address));
        EXPECT(((unsigned char *)address)[0] == 0 &&
               memcmp((void *)address, (void *)(address + 1), count * PAGE - 1) == 0);
        must_free(heap.root, 0, address);
    }
    heap_close(&heap);
}

/* --- slabs -------------------------------------------------------------------------------------
 */

static void one_empty_slab_is_kept_and_further_ones_go_back_at_once(void) {
    struct heap heap = heap_of(16 * MIB, 1);
    static uintptr_t objects[4000];
    uint64_t slab_bytes, most;
    enum bsa_page_state state;
    unsigned capacity;

    objects[0] = must_alloc(heap.root, 0, 64);
    slab_bytes = stats_of(heap.root).allocated_bytes;
    EXPECT(slab_bytes >= PAGE);
    must_free(heap.root, 0, objects[0]);
    EXPECT_EQUAL(slab_bytes, stats_of(heap.root).allocated_bytes); /* kept */
    for (unsigned i = 0; i < COUNT_OF(objects); i++) {
        objects[i] = must_alloc(heap.root, 0, 64);
    }
    capacity = slab_of(heap.root, objects[0]).capacity;
    most = stats_of(heap.root).allocated_bytes;
    EXPECT(most >= sizeof objects / sizeof objects[0] * 64);
    for (unsigned i = 0; i < COUNT_OF(objects); i++) {
        uint64_t before = stats_of(heap.root).allocated_bytes, after;

        must_free(heap.root, 0, objects[i]);
        after = stats_of(heap.root).allocated_bytes;
        EXPECT(after == before || after == before - slab_bytes);
        EXPECT_OK(bsa_page_state_of(heap.root, objects[0], &state));
        EXPECT_EQUAL(i + 1 < capacity ? BSA_PAGE_SLAB : BSA_PAGE_EMPTY_SLAB, state);
    }
    EXPECT_EQUAL(slab_bytes, stats_of(heap.root).allocated_bytes);
    EXPECT_EQUAL(slab_bytes / PAGE, bsa_trim(heap.root));
    EXPECT_EQUAL(0, stats_of(heap.root).allocated_bytes);
    heap_close(&heap);
}

static void only_the_start_of_a_live_object_can_be_freed(void) {
    static const size_t sizes[] = {1, 16, 48, 80, 144, 176, 704, 1280, 1792, 2048};

    for (unsigned z = 0; z < COUNT_OF(sizes); z++) {
        for (unsigned slot = 0; slot < 2; slot++) {
            struct heap heap = heap_of(1 * MIB, 2);
            uintptr_t live = must_alloc(heap.root, 0, sizes[z]);
            uintptr_t freed = must_alloc(heap.root, 0, sizes[z]);
            struct bsa_slab_info slab = slab_of(heap.root, live);
            struct snapshot before;

            must_free(heap.root, 0, freed);
            before = snapshot_of(heap.root, EVERYTHING);
            for (uintptr_t at = slab.base; at < slab.base + slab.bytes; at++) {
                size_t offset = at - slab.base;
                bool starts = offset % slab.stride == 0 && offset / slab.stride < slab.capacity;
                struct bsa_allocation found;

                EXPECT_STATUS(offset % slab.stride >= slab.size ||
                                      offset / slab.stride >= slab.capacity
                                  ? BSA_INVALID_PARAM
                              : at - live < slab.size ? BSA_OK
                                                      : BSA_NOT_ALLOCATED,
                              bsa_lookup_inside(heap.root, at, &found));
                if (at == live) {
                    EXPECT_OK(bsa_lookup(heap.root, at, &found));
                    continue;
                }
                EXPECT_STATUS(starts ? BSA_NOT_ALLOCATED : BSA_INVALID_PARAM,
                              bsa_free_on(heap.root, slot, at));
                EXPECT_STATUS(starts ? BSA_NOT_ALLOCATED : BSA_INVALID_PARAM,
                              bsa_lookup(heap.root, at, &found));
            }
            EXPECT(snapshot_still_holds(&before, heap.root));
            EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root,
                           bsa_realloc_on(heap.root, slot, freed, 5, &freed));
            must_free(heap.root, slot, live);
            EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_free_on(heap.root, 0, live));
            EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_free_on(heap.root, 1, live));
            heap_close(&heap);
        }
    }
}

static void what_a_user_writes_into_objects_misleads_nobody(void) {
    struct heap heap = heap_of(2 * MIB, 2);
    struct bsa_section_info info = section_info(heap.root, 0);
    uintptr_t objects[2000];
    unsigned count = 0;
    uint64_t seed = 11;

    /* Every byte of the heap is written: with ones, with zeros, with a copy of the metadata itself.
     */
    while (count < 2000) {
        size_t size = 1 + random_below(&seed, 900);
        unsigned pattern = random_below(&seed, 3);

        objects[count] = must_alloc(heap.root, count % 2, size);
        size = lookup(heap.root, objects[count]).usable_size;
        if (pattern == 2) {
            memcpy((void *)objects[count], (void *)info.meta_start, size);
        } else {
            memset((void *)objects[count], pattern == 0 ? 0xff : 0, size);
        }
        count++;
    }
    EXPECT_SOUND(heap.root);
    for (unsigned i = 0; i < count; i++) {
        must_free(heap.root, i % 3, objects[i]);
        memset((void *)objects[i], 0xff, 8); /* written after it was freed */
    }
    bsa_trim(heap.root);
    EXPECT_EQUAL(0, stats_of(heap.root).allocated_bytes);
    EXPECT_EQUAL(0, bsa_live_count(heap.root));
    heap_close(&heap);
}

static void an_address_inside_an_allocation_leads_to_it(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t object = must_alloc(heap.root, 0, 100), block = must_alloc(heap.root, 0, 5 * PAGE);
    struct bsa_allocation found;
    struct bsa_slab_info slab = slab_of(heap.root, object), none;

    for (size_t offset = 0; offset < slab.size; offset += 13) {
        EXPECT_OK(bsa_lookup_inside(heap.root, object + offset, &found));
        EXPECT_EQUAL(object, found.address);
    }
    for (size_t offset = 0; offset < 8 * PAGE; offset += 1021) {
        EXPECT_OK(bsa_lookup_inside(heap.root, block + offset, &found));
        EXPECT_EQUAL(block, found.address);
        EXPECT_EQUAL(5 * PAGE, found.requested_size);
        EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_slab_of(heap.root, block + offset, &none));
    }
    EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_lookup_inside(heap.root, object + slab.size, &found));
    EXPECT_STATUS(BSA_NOT_FOUND, bsa_lookup_inside(heap.root, 12345, &found));
    must_free(heap.root, 0, block);
    EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_lookup_inside(heap.root, block + 77, &found));
    heap_close(&heap);
}

/* --- two slots ---------------------------------------------------------------------------------
 */

static void objects_freed_by_another_slot_are_counted_and_used_again(void) {
    struct heap heap = heap_of(16 * MIB, 2);
    uintptr_t objects[512] = {0}, again;
    struct bsa_slab_info slab;
    unsigned capacity;

    objects[0] = must_alloc(heap.root, 0, 64);
    slab = slab_of(heap.root, objects[0]);
    capacity = slab.capacity;
    EXPECT_EQUAL(0, slab.slot);
    EXPECT_EQUAL(BSA_SLAB_CURRENT, slab.state);
    for (unsigned i = 1; i < capacity; i++) {
        objects[i] = must_alloc(heap.root, 0, 64);
        EXPECT_EQUAL(slab.base, slab_of(heap.root, objects[i]).base);
    }
    for (int round = 0; round < 5; round++) {
        for (unsigned i = 0; i < capacity; i++) {
            EXPECT_EQUAL(i, slab_of(heap.root, objects[0]).remote_free_count);
            must_free(heap.root, 1, objects[i]);
            EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_free_on(heap.root, 1, objects[i]));
            EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_free_on(heap.root, 0, objects[i]));
        }
        slab = slab_of(heap.root, objects[0]);
        EXPECT_EQUAL(capacity, slab.remote_free_count);
        EXPECT_EQUAL(0, slab.free_count);
        for (unsigned i = 0; i < capacity; i++) {
            EXPECT_EQUAL(objects[i], must_alloc(heap.root, 0, 64));
            EXPECT_EQUAL(0, slab_of(heap.root, objects[0]).remote_free_count);
        }
    }
    again = must_alloc(heap.root, 1, 64);
    EXPECT_EQUAL(1, slab_of(heap.root, again).slot); /* each slot has slabs of its own */
    EXPECT(slab_of(heap.root, again).base != slab.base);
    heap_close(&heap);
}

static void an_object_freed_remotely_cannot_be_freed_again(void) {
    for (int serial = 0; serial < 2; serial++) {
        struct heap heap = serial ? serial_heap_of(1 * MIB, 3) : heap_of(1 * MIB, 3);
        uintptr_t object = must_alloc(heap.root, 0, 100);

        must_free(heap.root, 1, object);
        for (unsigned slot = 0; slot < 3; slot++) {
            EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_free_on(heap.root, slot, object));
        }
        EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_realloc(heap.root, object, 8, &object));
        /* Counted off at once, or when it is drained. */
        EXPECT_EQUAL(serial ? 0 : 1, stats_of(heap.root).per_class[bsa_class_of_size(100)].live);
        heap_close(&heap);
    }
}

static void everything_freed_remotely_is_free_pages_again_after_a_trim(void) {
    struct heap heap = heap_of(16 * MIB, 2);
    static uintptr_t objects[3000];
    uint64_t baseline = bsa_free_page_count(heap.root);

    for (unsigned i = 0; i < COUNT_OF(objects); i++) {
        objects[i] = must_alloc(heap.root, 0, 64);
    }
    for (unsigned i = 0; i < COUNT_OF(objects); i++) {
        must_free(heap.root, 1, objects[i]);
    }
    EXPECT(bsa_free_page_count(heap.root) < baseline);
    bsa_trim_on(heap.root, 1);
    EXPECT_EQUAL(baseline, bsa_free_page_count(heap.root));
    EXPECT_EQUAL(0, bsa_live_count(heap.root));
    EXPECT_EQUAL(0, stats_of(heap.root).overlaps);
    heap_close(&heap);
}

static void memory_stays_bounded_when_one_slot_allocates_and_another_frees(void) {
    for (int serial = 0; serial < 2; serial++) {
        struct heap heap = serial ? serial_heap_of(16 * MIB, 2) : heap_of(16 * MIB, 2);
        uintptr_t objects[1000];
        uint64_t after_two = 0;

        for (unsigned round = 0; round < 100; round++) {
            for (unsigned i = 0; i < 1000; i++) {
                objects[i] = must_alloc(heap.root, 0, 96);
            }
            for (unsigned i = 0; i < 1000; i++) {
                must_free(heap.root, 1, objects[(i * 7 + round) % 1000]);
            }
            after_two = round == 1 ? stats_of(heap.root).peak_allocated_bytes : after_two;
        }
        EXPECT(stats_of(heap.root).peak_allocated_bytes <= 2 * after_two);
        EXPECT_EQUAL(serial ? 0 : stats_of(heap.root).current_count, bsa_live_count(heap.root));
        bsa_trim(heap.root);
        EXPECT_EQUAL(0, stats_of(heap.root).allocated_bytes);
        EXPECT_EQUAL(0, bsa_live_count(heap.root));
        heap_close(&heap);
    }
}

static unsigned slabs_in_state;

static bool count_slab(void *context, const struct bsa_slab_info *slab) {
    slabs_in_state += slab->state == *(enum bsa_slab_state *)context;
    return true;
}

static unsigned count_slabs(const struct bsa_root *root, enum bsa_slab_state state) {
    slabs_in_state = 0;
    bsa_walk_slabs(root, count_slab, &state);
    return slabs_in_state;
}

static void an_attached_slot_is_trimmed_by_its_owner_when_others_have_asked(void) {
    struct heap heap = heap_of(1 * MIB, 2);
    uintptr_t object, other;

    EXPECT_OK(bsa_slot_attach(heap.root, 1));
    object = must_alloc(heap.root, 1, 64);
    must_free(heap.root, 1, object);
    EXPECT_EQUAL(1, count_slabs(heap.root, BSA_SLAB_CURRENT));
    EXPECT_EQUAL(0, bsa_trim_on(heap.root, 0)); /* not within reach: asked */
    EXPECT_EQUAL(1, count_slabs(heap.root, BSA_SLAB_CURRENT));
    other = must_alloc(heap.root, 1, 1000);                    /* the owner's next slow path */
    EXPECT_EQUAL(1, count_slabs(heap.root, BSA_SLAB_CURRENT)); /* that of 1000 bytes alone */
    must_free(heap.root, 1, other);
    other = must_alloc(heap.root, 1, 300);
    EXPECT_EQUAL(2, count_slabs(heap.root, BSA_SLAB_CURRENT)); /* asked once, honoured once */
    must_free(heap.root, 1, other);
    EXPECT_OK(bsa_slot_detach(heap.root, 1));
    EXPECT(bsa_trim_on(heap.root, 0) > 0); /* within reach again */
    EXPECT_EQUAL(0, stats_of(heap.root).allocated_bytes);
    heap_close(&heap);
}

/* --- the last effort ---------------------------------------------------------------------------
 */

/* Takes all pages, so that only what slabs hold can serve. */
static unsigned take_all(struct bsa_root *root, uintptr_t *pages) {
    unsigned count = 0;

    bsa_trim(root);
    while (bsa_free_page_count(root) > 0) {
        EXPECT_OK(bsa_alloc_pages(root, 1, 0, 0, &pages[count]));
        count++;
    }
    return count;
}

static void empty_slabs_of_every_shared_slot_are_given_back_before_a_request_fails(void) {
    for (int serial = 0; serial < 2; serial++) {
        struct heap heap = serial ? serial_heap_of(1 * MIB, 4) : heap_of(1 * MIB, 4);
        uintptr_t pages[256], objects[4], address;
        uint64_t in_slabs;

        for (unsigned slot = 0; slot < 4; slot++) {
            objects[slot] = must_alloc(heap.root, slot, (size_t)64 << slot);
        }
        in_slabs = stats_of(heap.root).allocated_bytes / PAGE;
        take_all(heap.root, pages);
        for (unsigned slot = 0; slot < 4; slot++) {
            must_free(heap.root, 3 - slot, objects[slot]); /* remotely */
        }
        EXPECT_EQUAL(0, bsa_free_page_count(heap.root));
        for (uint64_t i = 0; i < in_slabs; i++) {
            EXPECT_OK(bsa_alloc_pages_on(heap.root, 0, 1, 0, 0, &address));
        }
        EXPECT_EQUAL(0, stats_of(heap.root).failures);
        EXPECT_REFUSED(BSA_NO_MEMORY, heap.root,
                       bsa_alloc_pages_on(heap.root, 0, 1, 0, 0, &address));
        EXPECT_EQUAL(1, stats_of(heap.root).failures);
        heap_close(&heap);
    }
}

static void an_object_is_found_in_pages_that_other_classes_and_slots_no_longer_need(void) {
    struct heap heap = heap_of(512 * KIB, 2);
    uintptr_t pages[256], object = must_alloc(heap.root, 1, 300), address;

    take_all(heap.root, pages);
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc_on(heap.root, 0, 64, 0, 0, &address));
    must_free(heap.root, 0, object);
    EXPECT_OK(bsa_alloc_on(heap.root, 0, 64, 0, 0, &address));
    EXPECT_SOUND(heap.root);
    heap_close(&heap);
}

/* The two heaps are used alike; the short way gives 0 where the other gives a reason. */
static void the_short_way_to_memory_leads_where_the_long_one_does(void) {
    static const size_t sizes[] = {0, 1, 16, 64, 64, 2048, 2049, 5000, SIZE_MAX};

    for (unsigned slot = 0; slot < 3; slot++) { /* attached, shared, none */
        struct heap heaps[2];
        unsigned refused = 0;

        for (unsigned h = 0; h < 2; h++) { /* with buddies at equal places */
            heaps[h] = heap_without_sections(PAGE, 2);
            heap_add(&heaps[h], 256 * KIB, 256 * KIB, 0);
            EXPECT_OK(bsa_slot_attach(heaps[h].root, 0));
        }
        for (unsigned i = 0; i < 900; i++) {
            size_t size = sizes[i % COUNT_OF(sizes)];
            uintptr_t start[2], got[2] = {0};
            bsa_status status = bsa_alloc_on(heaps[0].root, slot, size, 0, 0, &got[0]);

            got[1] = bsa_malloc_on(heaps[1].root, slot, size);
            EXPECT_EQUAL(status == BSA_OK, got[1] != 0);
            refused += status != BSA_OK;
            for (unsigned h = 0; h < 2 && status == BSA_OK; h++) {
                start[h] = bsa_heap_start(bsa_first_section(heaps[h].root));
            }
            if (status == BSA_OK) {
                EXPECT_EQUAL(got[0] - start[0], got[1] - start[1]);
            }
        }
        EXPECT(refused > 100);
        for (unsigned h = 0; h < 2; h++) {
            EXPECT_SOUND(heaps[h].root);
        }
        EXPECT_EQUAL(stats_of(heaps[0].root).failures, stats_of(heaps[1].root).failures);
        EXPECT_EQUAL(stats_of(heaps[0].root).peak_bytes, stats_of(heaps[1].root).peak_bytes);
        heap_close(&heaps[0]);
        heap_close(&heaps[1]);
    }
}

static void remote_frees_are_drained_before_a_request_fails(void) {
    struct heap heap = heap_of(512 * KIB, 2);
    static uintptr_t objects[8000];
    unsigned count = 0;

    while (bsa_alloc_on(heap.root, 0, 128, 0, 0, &objects[count]) == BSA_OK) {
        count++;
    }
    EXPECT_EQUAL(0, bsa_free_page_count(heap.root));
    for (unsigned i = 0; i < count; i += 5) {
        must_free(heap.root, 1, objects[i]);
    }
    for (unsigned i = 0; i < count; i += 5) {
        EXPECT_OK(bsa_alloc_on(heap.root, 0, 128, 0, 0, &objects[i]));
    }
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_on(heap.root, 0, 128, 0, 0, &objects[count]));
    heap_close(&heap);
}

static void smaller_slabs_are_tried_where_no_larger_block_is_free(void) {
    struct heap heap = heap_of(4 * MIB, 1);
    static uintptr_t pages[1024];
    unsigned count = take_all(heap.root, pages), single = 0;

    qsort(pages, count, sizeof pages[0], compare_addresses);
    for (unsigned i = 0; i < count; i += 2) {
        must_free(heap.root, 0, pages[i]);
        single++;
    }
    for (size_t size = 8; size <= 2048 && single > 0; size *= 2, single--) {
        uintptr_t object = must_alloc(heap.root, 0, size);

        EXPECT_EQUAL(PAGE, slab_of(heap.root, object).bytes);
    }
    heap_close(&heap);
}

static void a_slab_takes_a_256th_of_the_heap_or_a_page(void) {
    for (size_t size = 128 * KIB; size <= 16 * MIB; size *= 2) {
        struct heap heap = heap_of(size, 1);
        uint64_t share = bsa_total_pages(heap.root) / 256;
        unsigned most = share == 0 ? 0 : bsa_log2_floor(share);

        for (unsigned c = 0; c < bsa_class_count(heap.root); c++) {
            unsigned preferred = heap.root->space.classes.classes[c].order;
            uintptr_t object = must_alloc(heap.root, 0, bsa_class_size(c));

            EXPECT_EQUAL(PAGE << (preferred < most ? preferred : most),
                         slab_of(heap.root, object).bytes);
            must_free(heap.root, 0, object);
            bsa_trim(heap.root);
        }
        heap_close(&heap);
    }
}

/* The cache's current slab was in a section that is gone, memory and all. */
static void a_removed_section_is_never_looked_at_again(void) {
    struct heap heap = heap_without_sections(PAGE, 1);
    size_t size = 64 * PAGE;
    unsigned char *first =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t pages[64], objects[64], object;
    unsigned held = 0, capacity;

    EXPECT(first != MAP_FAILED);
    EXPECT_OK(bsa_add_region(heap.root, first, size, NULL, NULL));
    heap_add(&heap, 1 * MIB, PAGE, 0);
    while (section_info(heap.root, 0).free_pages > 0) {
        pages[held++] = must_alloc_pages(heap.root, 1);
    }
    objects[0] = must_alloc(heap.root, 0, 1000);
    capacity = slab_of(heap.root, objects[0]).capacity;
    EXPECT(capacity <= COUNT_OF(objects));
    for (unsigned i = 1; i < capacity; i++) { /* a full slab in the second section */
        objects[i] = must_alloc(heap.root, 0, 1000);
    }
    while (held > 0) {
        must_free(heap.root, 0, pages[--held]);
    }
    object = must_alloc(heap.root, 0, 1000); /* the current one in the first */
    EXPECT(object - (uintptr_t)first < size);
    must_free(heap.root, 0, object);
    EXPECT_OK(bsa_remove_region(heap.root, 0));
    EXPECT_EQUAL(0, mprotect(first, size, PROT_NONE));
    must_free(heap.root, BSA_NO_SLOT, objects[3]);
    EXPECT_EQUAL(objects[3], must_alloc(heap.root, 0, 1000)); /* drained and found */
    EXPECT_STATUS(BSA_NOT_FOUND, bsa_free(heap.root, object));
    heap_close(&heap);
    munmap(first, size);
}

static void a_tiny_heap_serves_objects_down_to_its_only_page(void) {
    struct heap heap = heap_without_sections(PAGE, 1);
    void *region = heap_memory(&heap, 64 * KIB, PAGE, 0);
    size_t size = PAGE;
    uintptr_t object, again;

    while (bsa_add_region(heap.root, region, size, NULL, NULL) != BSA_OK) {
        size += 64;
    }
    EXPECT_EQUAL(1, bsa_total_pages(heap.root));
    for (size_t bytes = 1; bytes <= 2048; bytes *= 2) {
        object = must_alloc(heap.root, 0, bytes);
        EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc(heap.root, PAGE, 0, 0, &again));
        must_free(heap.root, 0, object);
    }
    EXPECT_OK(bsa_alloc(heap.root, PAGE, 0, 0, &object));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_alloc(heap.root, 1, 0, 0, &again));
    must_free(heap.root, 0, object);
    heap_close(&heap);
}

static void a_heap_full_of_small_objects_serves_a_large_one_once_they_are_freed(void) {
    struct heap heap = heap_of(2 * MIB, 1);
    static uintptr_t objects[1100];
    uintptr_t large = must_alloc(heap.root, 0, 2048);
    uint64_t baseline;
    unsigned count = 0;

    must_free(heap.root, 0, large);
    baseline = bsa_free_page_count(heap.root);
    while (bsa_alloc(heap.root, 2048, 8, 0, &objects[count]) == BSA_OK) {
        count++;
    }
    EXPECT(count > 500);
    for (unsigned i = 0; i < count; i++) {
        must_free(heap.root, 0, objects[i]);
    }
    EXPECT_OK(bsa_alloc(heap.root, 16 * PAGE, PAGE, 0, &large));
    must_free(heap.root, 0, large);
    EXPECT(bsa_free_page_count(heap.root) >= baseline);
    bsa_trim(heap.root);
    EXPECT_EQUAL(bsa_total_pages(heap.root), bsa_free_page_count(heap.root));
    heap_close(&heap);
}

static void an_attached_slots_slabs_are_out_of_reach_until_its_owner_comes_by(void) {
    struct heap heap = heap_of(512 * KIB, 2);
    uintptr_t pages[256], object, address;

    EXPECT_OK(bsa_slot_attach(heap.root, 1));
    object = must_alloc(heap.root, 1, 64);
    take_all(heap.root, pages);
    must_free(heap.root, 0, object);
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_pages_on(heap.root, 0, 1, 0, 0, &address));
    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_pages_on(heap.root, 0, 1, 0, 0, &address));
    EXPECT_STATUS(BSA_OK,
                  bsa_alloc_on(heap.root, 1, 2000, 0, 0, &address)); /* from what it trims */
    EXPECT_SOUND(heap.root);
    heap_close(&heap);
}

/* --- realloc -----------------------------------------------------------------------------------
 */

static void realloc_keeps_contents_in_every_direction(void) {
    static const size_t sizes[] = {0,    1,    8,     9,     16,    40,    64,
                                   100,  500,  1000,  2047,  2048,  2049,  4096,
                                   4097, 8192, 12000, 16384, 30000, 65536, 70000};

    for (int serial = 0; serial < 2; serial++) {
        struct heap heap = serial ? serial_heap_of(8 * MIB, 2) : heap_of(8 * MIB, 2);

        for (unsigned from = 0; from < COUNT_OF(sizes); from++) {
            for (unsigned to = 0; to < COUNT_OF(sizes); to++) {
                size_t kept = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
                uintptr_t old = must_alloc(heap.root, 0, sizes[from]), moved = 0;

                fill(old, sizes[from], from);
                EXPECT_OK(bsa_realloc_on(heap.root, to % 2, old, sizes[to], &moved));
                EXPECT(is_filled(moved, kept, from));
                EXPECT(lookup(heap.root, moved).usable_size >= sizes[to]);
                fill(moved, sizes[to], to);
                EXPECT(moved == old || bsa_lookup(heap.root, old, &(struct bsa_allocation){0}) ==
                                           BSA_NOT_ALLOCATED);
                must_free(heap.root, 0, moved);
            }
        }
        EXPECT_SOUND(heap.root);
        bsa_trim(heap.root);
        EXPECT_EQUAL(0, stats_of(heap.root).allocated_bytes);
        EXPECT_EQUAL(0, stats_of(heap.root).current_bytes);
        EXPECT_EQUAL(0, stats_of(heap.root).requested_bytes);
        heap_close(&heap);
    }
}

static void realloc_stays_in_place_where_class_or_neighbours_allow(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t object = must_alloc(heap.root, 0, 100), block, moved;

    EXPECT_OK(bsa_alloc(heap.root, 2 * PAGE, 16 * PAGE, 0, &block));
    EXPECT_OK(bsa_realloc(heap.root, object, 112, &moved));
    EXPECT_EQUAL(object, moved);
    EXPECT_OK(bsa_realloc(heap.root, block, 4 * PAGE, &moved));
    EXPECT_EQUAL(block, moved);
    EXPECT_EQUAL(4 * PAGE, lookup(heap.root, block).usable_size);
    EXPECT_OK(bsa_realloc(heap.root, block, 3 * PAGE, &moved));
    EXPECT_EQUAL(block, moved);
    EXPECT_EQUAL(4 * PAGE, lookup(heap.root, block).usable_size);
    EXPECT_EQUAL(3 * PAGE, lookup(heap.root, block).requested_size);
    EXPECT_OK(bsa_realloc(heap.root, block, PAGE, &moved));
    EXPECT_EQUAL(block, moved);
    EXPECT_EQUAL(PAGE, lookup(heap.root, block).usable_size);
    EXPECT_SOUND(heap.root);
    heap_close(&heap);
}

static void realloc_moves_what_would_waste_half_of_itself(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t object = must_alloc(heap.root, 0, 2048), block = must_alloc(heap.root, 0, PAGE),
              moved;

    EXPECT_OK(bsa_realloc(heap.root, object, 1025, &moved));
    EXPECT_EQUAL(object, moved);
    EXPECT_OK(bsa_realloc(heap.root, object, 1024, &moved));
    EXPECT_EQUAL(1024, lookup(heap.root, moved).usable_size);
    EXPECT_OK(bsa_realloc(heap.root, block, 2049, &moved));
    EXPECT_EQUAL(block, moved);
    EXPECT_OK(bsa_realloc(heap.root, block, 2048, &moved)); /* an object serves as well */
    EXPECT_EQUAL(BSA_KIND_OBJECT, lookup(heap.root, moved).kind);
    heap_close(&heap);
}

static void realloc_reads_no_byte_behind_the_old_allocation(void) {
    struct heap heap = heap_without_sections(PAGE, 1);
    size_t size = 64 * PAGE;
    unsigned char *region =
        mmap(NULL, size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t pages[64], end = (uintptr_t)region + size, moved;
    unsigned count = 0;

    EXPECT(region != MAP_FAILED);
    EXPECT_EQUAL(0, mprotect(region + size, PAGE, PROT_NONE));
    EXPECT_OK(bsa_add_region(heap.root, region, size, NULL, NULL));
    while (bsa_alloc_pages(heap.root, 1, 0, 0, &pages[count]) == BSA_OK) {
        count++;
    }
    for (unsigned i = 0; i < count; i++) {
        if (pages[i] != end - PAGE) {
            must_free(heap.root, 0, pages[i]);
        }
    }
    fill(end - PAGE, PAGE, 5);
    EXPECT_OK(bsa_realloc(heap.root, end - PAGE, 2 * PAGE, &moved));
    EXPECT(moved < end - PAGE && is_filled(moved, PAGE, 5));
    heap_close(&heap);
    munmap(region, size + PAGE);
}

static void a_failed_realloc_leaves_the_old_allocation_as_it_was(void) {
    struct heap heap = heap_of(512 * KIB, 1);
    uintptr_t pages[256], object = must_alloc(heap.root, 0, 2000), block, moved = 0;

    block = must_alloc(heap.root, 0, 2 * PAGE);
    fill(object, 2000, 1);
    fill(block, 2 * PAGE, 2);
    take_all(heap.root, pages);
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_realloc(heap.root, object, 5000, &moved));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_realloc(heap.root, block, 3 * PAGE, &moved));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_realloc(heap.root, block, SIZE_MAX, &moved));
    EXPECT_REFUSED(BSA_NO_MEMORY, heap.root, bsa_realloc(heap.root, object, SIZE_MAX - 10, &moved));
    EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root, bsa_realloc(heap.root, object + 1, 1, &moved));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_realloc(heap.root, block + PAGE, 1, &moved));
    EXPECT_REFUSED(BSA_NOT_FOUND, heap.root, bsa_realloc(heap.root, 64, 1, &moved));
    EXPECT(is_filled(object, 2000, 1));
    EXPECT(is_filled(block, 2 * PAGE, 2));
    /* A smaller size never fails, though no page is free to move to. */
    EXPECT_OK(bsa_realloc(heap.root, object, 8, &moved));
    EXPECT_OK(bsa_realloc(heap.root, block, 100, &moved));
    EXPECT(is_filled(moved, 100, 2));
    heap_close(&heap);
}

static void a_realloc_that_copies_can_be_undone(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t object = must_alloc(heap.root, 0, 100), copy;

    fill(object, 100, 1);
    EXPECT_OK(bsa_realloc_copy_on(heap.root, 0, object, 112, &copy));
    EXPECT_EQUAL(object, copy); /* in place: there is no copy */
    EXPECT_OK(bsa_realloc_copy_on(heap.root, 0, object, 5000, &copy));
    EXPECT(copy != object && is_filled(copy, 100, 1) && is_filled(object, 100, 1));
    EXPECT_EQUAL(2, bsa_live_count(heap.root));
    must_free(heap.root, 0, copy);
    EXPECT_OK(bsa_realloc_copy_on(heap.root, 0, object, 5000, &copy));
    must_free(heap.root, 0, object);
    EXPECT_EQUAL(1, bsa_live_count(heap.root));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root,
                   bsa_realloc_copy_on(heap.root, 0, object, 8, &copy));
    EXPECT_SOUND(heap.root);
    heap_close(&heap);
}

/* --- bulk --------------------------------------------------------------------------------------
 */

static void bulk_allocation_is_all_or_nothing(void) {
    struct heap heap = heap_of(512 * KIB, 1);
    static uintptr_t many[10000];
    struct snapshot before = snapshot_of(heap.root, THE_TRUTH);

    EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc_many(heap.root, COUNT_OF(many), 100, 0, many));
    EXPECT_EQUAL(0, bsa_live_count(heap.root));
    bsa_trim(heap.root);
    EXPECT(snapshot_still_holds(&before, heap.root));
    EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root, bsa_alloc_many(heap.root, 10, 100, 7, many));
    EXPECT_OK(bsa_alloc_many(heap.root, 0, 100, 0, NULL));
    EXPECT_OK(bsa_alloc_many(heap.root, 1000, 100, 0, many));
    EXPECT_EQUAL(1000, bsa_live_count(heap.root));
    for (unsigned i = 0; i < 1000; i++) {
        EXPECT_EQUAL(many[i], lookup(heap.root, many[i]).address);
    }
    EXPECT_OK(bsa_free_many(heap.root, many, 1000, NULL));
    EXPECT_EQUAL(0, bsa_live_count(heap.root));
    heap_close(&heap);
}

/* Neighbours are proved by what they have in common. */
static void bulk_freeing_tells_neighbours_apart(void) {
    struct heap heap = heap_of(1 * MIB, 1);
    uintptr_t many[1000], wrong;
    struct bsa_slab_info slab;

    EXPECT_OK(bsa_alloc_many(heap.root, COUNT_OF(many), 48, 0, many));
    for (unsigned i = 0; i < COUNT_OF(many); i += 37) {
        uintptr_t right = many[i];

        many[i] = right + 8;
        EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root,
                       bsa_free_many(heap.root, many, COUNT_OF(many), &wrong));
        EXPECT_EQUAL(right + 8, wrong);
        many[i] = right;
    }
    EXPECT_OK(bsa_free(heap.root, many[500]));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root,
                   bsa_free_many(heap.root, many, COUNT_OF(many), &wrong));
    EXPECT_EQUAL(many[500], wrong);
    EXPECT_OK(bsa_slab_of(heap.root, many[500], &slab));
    many[500] = (uintptr_t)1 << 62; /* far behind the section; the last one once sorted */
    EXPECT_REFUSED(BSA_NOT_FOUND, heap.root, bsa_free_many(heap.root, many, COUNT_OF(many), NULL));
    many[999] = slab.base + slab.capacity * slab.stride; /* the tail */
    EXPECT_REFUSED(BSA_INVALID_PARAM, heap.root,
                   bsa_free_many(heap.root, many, COUNT_OF(many), NULL));
    heap_close(&heap);
}

/* The least order of addresses there is: all bits of their places the other way round. */
static void bulk_freeing_sorts(void) {
    struct heap heap = heap_of(4 * MIB, 1);
    static uintptr_t many[4096], mixed[4096];

    EXPECT_OK(bsa_alloc_many(heap.root, COUNT_OF(many), 64, 0, many));
    for (unsigned i = 0; i < COUNT_OF(many); i++) {
        unsigned place = 0;

        for (unsigned bit = 0; bit < 12; bit++) {
            place |= (i >> bit & 1) << (11 - bit);
        }
        mixed[place] = many[i];
    }
    EXPECT_OK(bsa_free_many(heap.root, mixed, COUNT_OF(many), NULL));
    EXPECT_EQUAL(0, bsa_live_count(heap.root));
    for (unsigned i = 1; i < COUNT_OF(many); i++) {
        EXPECT(mixed[i - 1] < mixed[i]);
    }
    heap_close(&heap);
}

static void bulk_freeing_refuses_all_if_one_is_wrong(void) {
    struct heap heap = heap_of(1 * MIB, 2);
    uintptr_t many[100], wrong = 0, freed;
    uint64_t seed = 8;

    for (unsigned i = 0; i < 100; i++) {
        many[i] = must_alloc(heap.root, i % 2, 1 + random_below(&seed, 6000));
    }
    for (unsigned i = 100; i-- > 1;) { /* in no order */
        unsigned other = random_below(&seed, i + 1);
        uintptr_t swapped = many[i];

        many[i] = many[other];
        many[other] = swapped;
    }
    freed = many[50];
    many[50] = many[51];
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_free_many(heap.root, many, 100, &wrong));
    for (unsigned i = 1, repeated = 0; i < 100; i++) {
        if (many[i] == many[i - 1]) {
            EXPECT_EQUAL(many[i], wrong);
            EXPECT_EQUAL(1, ++repeated);
            many[i] = freed;
        }
    }
    EXPECT_OK(bsa_free_on(heap.root, 0, freed));
    EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_free_many(heap.root, many, 100, &wrong));
    EXPECT_EQUAL(freed, wrong);
    for (unsigned i = 0; i < 100; i++) {
        many[i] = many[i] == freed ? 1 : many[i];
    }
    EXPECT_REFUSED(BSA_NOT_FOUND, heap.root, bsa_free_many(heap.root, many, 100, NULL));
    EXPECT_EQUAL(1, many[0]); /* sorted by now */
    EXPECT_EQUAL(99, bsa_live_count(heap.root));
    for (unsigned i = 0; i < 3; i++) { /* wherever the other one stands */
        uintptr_t twice[3] = {many[98], many[98], many[98]};

        twice[i] = many[1];
        EXPECT_REFUSED(BSA_NOT_ALLOCATED, heap.root, bsa_free_many(heap.root, twice, 3, &wrong));
        EXPECT_EQUAL(many[98], wrong);
    }
    EXPECT_OK(bsa_free_many(heap.root, many + 1, 99, &wrong));
    bsa_trim(heap.root);
    EXPECT_EQUAL(0, stats_of(heap.root).allocated_bytes);
    heap_close(&heap);
}

/* --- hooks -------------------------------------------------------------------------------------
 */

struct hooked {
    struct bsa_root *root;
    unsigned slot, inside, enters, leaves, locks, held, traces;
    bool page_lock_held;
    struct bsa_lock *slot_lock;
    enum bsa_trace_op op;
    uintptr_t address;
    size_t size;
    unsigned traced_slot;
};

static unsigned on_enter(void *context) {
    struct hooked *hooked = context;

    EXPECT_EQUAL(0, hooked->inside++);
    EXPECT_EQUAL(0, hooked->held);
    hooked->enters++;
    return hooked->slot;
}

static void on_leave(void *context, unsigned slot) {
    struct hooked *hooked = context;

    EXPECT_EQUAL(1, hooked->inside--);
    EXPECT_EQUAL(0, hooked->held);
    EXPECT_EQUAL(hooked->slot, slot);
    hooked->leaves++;
}

/* A slot's lock, then the page lock, and no other pair. */
static void on_lock(void *context, struct bsa_lock *lock) {
    struct hooked *hooked = context;

    EXPECT(lock->opaque[0] == 0);
    lock->opaque[0] = 1;
    EXPECT(!hooked->page_lock_held);
    if (hooked->root != NULL && lock == &hooked->root->page_lock) {
        hooked->page_lock_held = true;
    } else {
        EXPECT(hooked->slot_lock == NULL);
        hooked->slot_lock = hooked->root == NULL ? NULL : lock;
    }
    hooked->held++;
    hooked->locks++;
}

static void on_unlock(void *context, struct bsa_lock *lock) {
    struct hooked *hooked = context;

    EXPECT(lock->opaque[0] == 1);
    lock->opaque[0] = 0;
    if (hooked->root != NULL && lock == &hooked->root->page_lock) {
        hooked->page_lock_held = false;
    } else {
        EXPECT(hooked->slot_lock == (hooked->root == NULL ? NULL : lock));
        hooked->slot_lock = NULL;
    }
    hooked->held--;
}

static void on_trace(void *context, enum bsa_trace_op op, uintptr_t address, size_t size,
                     unsigned slot) {
    struct hooked *hooked = context;

    EXPECT_EQUAL(0, hooked->held);
    hooked->traces++;
    hooked->op = op;
    hooked->address = address;
    hooked->size = size;
    hooked->traced_slot = slot;
}

static struct heap hooked_heap(struct hooked *hooked, bool serial) {
    struct heap heap = heap_with_hooks(
        PAGE, 3, serial,
        (struct bsa_hooks){on_enter, on_leave, on_lock, on_unlock, on_trace, hooked});

    hooked->root = heap.root;
    heap_add(&heap, 1 * MIB, PAGE, 0);
    return heap;
}

static void expect_traced(struct hooked *hooked, enum bsa_trace_op op, uintptr_t address,
                          size_t size) {
    EXPECT_EQUAL(1, hooked->traces);
    EXPECT_EQUAL(op, hooked->op);
    EXPECT_EQUAL(address, hooked->address);
    EXPECT_EQUAL(size, hooked->size);
    EXPECT_EQUAL(hooked->slot, hooked->traced_slot);
    hooked->traces = 0;
}

static void hooks_are_called_around_and_never_under_a_lock(void) {
    for (int serial = 0; serial < 2; serial++) {
        struct hooked hooked = {.slot = 2};
        struct heap heap = hooked_heap(&hooked, serial);
        uintptr_t object, block, many[200], grown;

        EXPECT_EQUAL(0, hooked.enters); /* set-up is no operation */
        EXPECT_OK(bsa_alloc(heap.root, 100, 0, 0, &object));
        expect_traced(&hooked, BSA_TRACE_ALLOC, object, 100);
        EXPECT_EQUAL(2, slab_of(heap.root, object).slot);
        EXPECT_OK(bsa_alloc_pages(heap.root, 3, 0, 0, &block));
        expect_traced(&hooked, BSA_TRACE_ALLOC, block, 3 * PAGE);
        EXPECT_OK(bsa_realloc(heap.root, object, 105, &grown));
        expect_traced(&hooked, BSA_TRACE_REALLOC, object, 105);
        EXPECT_STATUS(BSA_NO_MEMORY, bsa_alloc(heap.root, 4 * MIB, 0, 0, &grown));
        EXPECT_STATUS(BSA_NOT_ALLOCATED, bsa_free(heap.root, block + PAGE));
        EXPECT_EQUAL(0, hooked.traces); /* failures are not traced */
        EXPECT_OK(bsa_free(heap.root, object));
        expect_traced(&hooked, BSA_TRACE_FREE, object, 112);
        EXPECT_OK(bsa_free_pages(heap.root, block, 3));
        expect_traced(&hooked, BSA_TRACE_FREE, block, 4 * PAGE);
        EXPECT_EQUAL(7, hooked.enters);
        EXPECT_OK(bsa_alloc_many(heap.root, 200, 900, 0, many));
        EXPECT_EQUAL(200, hooked.traces);
        EXPECT_OK(bsa_free_many(heap.root, many, 200, NULL));
        EXPECT_EQUAL(400, hooked.traces);
        bsa_trim(heap.root);
        EXPECT_EQUAL(10, hooked.enters);
        EXPECT_EQUAL(10, hooked.leaves);
        /* Told its slot, an operation calls neither. */
        object = must_alloc(heap.root, 1, 50);
        must_free(heap.root, 0, object);
        bsa_trim_on(heap.root, 1);
        object = must_alloc(heap.root, 2, 50);
        hooked.traces = 0;
        EXPECT_OK(bsa_realloc_copy_on(heap.root, 2, object, 60, &grown));
        expect_traced(&hooked, BSA_TRACE_REALLOC, object, 60);
        EXPECT_OK(bsa_realloc_copy_on(heap.root, 2, object, 5000, &grown));
        expect_traced(&hooked, BSA_TRACE_ALLOC, grown, 5000);
        must_free(heap.root, 2, object);
        must_free(heap.root, 2, grown);
        EXPECT_EQUAL(10, hooked.enters);
        EXPECT_EQUAL(0, hooked.inside);
        EXPECT_EQUAL(0, hooked.held);
        EXPECT_EQUAL(serial ? 0 : 1, hooked.locks > 0);
        hooked.root = heap.root;
        heap_close(&heap);
    }
}

static void a_serial_root_takes_no_lock_whatever_is_attached(void) {
    struct hooked hooked = {.slot = 1};
    struct heap heap = hooked_heap(&hooked, true);

    EXPECT_OK(bsa_slot_attach(heap.root, 1));
    must_free(heap.root, 1, must_alloc(heap.root, 1, 100));
    EXPECT_OK(bsa_slot_detach(heap.root, 1));
    must_free(heap.root, 1, must_alloc(heap.root, 1, 100));
    must_free(heap.root, 0, must_alloc(heap.root, 1, 100));
    bsa_trim(heap.root);
    EXPECT_EQUAL(0, hooked.locks);
    heap_close(&heap);
}

static void an_attached_slot_takes_no_lock_on_its_fast_path(void) {
    struct hooked hooked = {.slot = 1};
    struct heap heap = hooked_heap(&hooked, false);
    uintptr_t first = must_alloc(heap.root, 1, 100), object;
    unsigned locks;

    EXPECT_OK(bsa_slot_attach(heap.root, 1));
    locks = hooked.locks;
    object = must_alloc(heap.root, 1, 100);
    must_free(heap.root, 1, object);
    must_free(heap.root, 0, first); /* remotely */
    EXPECT_EQUAL(locks, hooked.locks);
    EXPECT_OK(bsa_slot_detach(heap.root, 1));
    locks = hooked.locks;
    object = must_alloc(heap.root, 1, 100);
    must_free(heap.root, 1, object);
    EXPECT(hooked.locks >= locks + 2);
    heap_close(&heap);
}

/* --- walk and statistics -----------------------------------------------------------------------
 */

struct walked {
    unsigned count, stop_after;
    uintptr_t last;
    uint64_t bytes;
};

static bool visit(void *context, const struct bsa_allocation *allocation) {
    struct walked *walked = context;

    EXPECT(allocation->address > walked->last);
    walked->last = allocation->address;
    walked->bytes += allocation->usable_size;
    return ++walked->count != walked->stop_after;
}

static void a_walk_lists_every_live_allocation_in_address_order(void) {
    struct heap heap = heap_of(4 * MIB, 2);
    static uintptr_t live[1500];
    unsigned count = 0;
    uint64_t seed = 4;
    struct walked all = {0}, three = {.stop_after = 3};

    for (; count < 1500; count++) {
        live[count] = must_alloc(heap.root, count % 2, 1 + random_below(&seed, 3000));
    }
    for (unsigned i = 0; i < 1500; i += 2) {
        must_free(heap.root, 0, live[i]); /* half of them remotely: gone from the walk at once */
    }
    bsa_walk(heap.root, visit, &all);
    EXPECT_EQUAL(750, all.count);
    bsa_walk(heap.root, visit, &three);
    EXPECT_EQUAL(3, three.count);
    bsa_trim(heap.root);
    EXPECT_EQUAL(all.count, stats_of(heap.root).current_count);
    EXPECT_EQUAL(all.bytes, stats_of(heap.root).current_bytes);
    heap_close(&heap);
}

static void statistics_are_exact(void) {
    enum { MOST = 2000 };
    struct heap heap = serial_heap_of(8 * MIB, 3);
    static struct {
        uintptr_t address;
        size_t requested, usable;
        unsigned index; /* class, or BSA_CLASSES + order */
    } live[MOST];
    static struct bsa_use uses[BSA_CLASSES + BSA_MAX_ORDER + 1];
    struct bsa_stats expected = {0}, stats;
    unsigned count = 0;
    uint64_t seed = 42;

    memset(uses, 0, sizeof uses);
    for (unsigned step = 0; step < 30000; step++) {
        bool growing = step / 3000 % 2 == 0;

        if (count < MOST && random_below(&seed, 20) < (growing ? 12U : 8U)) {
            size_t size = random_below(&seed, 20) == 0 ? random_below(&seed, 30000)
                                                       : random_below(&seed, 600);
            uintptr_t address;
            bsa_status status =
                bsa_alloc_on(heap.root, random_below(&seed, 3), size, 0, 0, &address);
            struct bsa_allocation found;

            if (status != BSA_OK) {
                EXPECT_EQUAL(BSA_NO_MEMORY, status);
                expected.failures++;
                continue;
            }
            found = lookup(heap.root, address);
            live[count].address = address;
            live[count].usable = found.usable_size;
            live[count].requested = found.requested_size;
            live[count].index = found.kind == BSA_KIND_OBJECT
                                    ? bsa_class_of_size(found.usable_size)
                                    : BSA_CLASSES + bsa_log2_ceil(found.usable_size / PAGE);
            EXPECT(found.kind == BSA_KIND_OBJECT || found.requested_size == size);
            uses[live[count].index].live++;
            uses[live[count].index].total++;
            expected.current_count++;
            expected.total_count++;
            expected.current_bytes += found.usable_size;
            expected.total_bytes += found.usable_size;
            expected.requested_bytes += found.requested_size;
            count++;
        } else if (count > 0) {
            unsigned victim = random_below(&seed, count);

            must_free(heap.root, random_below(&seed, 4), live[victim].address);
            uses[live[victim].index].live--;
            expected.current_count--;
            expected.current_bytes -= live[victim].usable;
            expected.requested_bytes -= live[victim].requested;
            live[victim] = live[--count];
        }
        bsa_stats(heap.root, &stats);
        expected.peak_count = expected.peak_count > expected.current_count ? expected.peak_count
                                                                           : expected.current_count;
        expected.peak_bytes = expected.peak_bytes > expected.current_bytes ? expected.peak_bytes
                                                                           : expected.current_bytes;
        expected.peak_allocated_bytes = expected.peak_allocated_bytes > stats.allocated_bytes
                                            ? expected.peak_allocated_bytes
                                            : stats.allocated_bytes;
        EXPECT_EQUAL(expected.current_count, stats.current_count);
        EXPECT_EQUAL(expected.current_count, bsa_live_count(heap.root));
        EXPECT_EQUAL(expected.current_bytes, stats.current_bytes);
        EXPECT_EQUAL(expected.requested_bytes, stats.requested_bytes);
        EXPECT_EQUAL(expected.peak_count, stats.peak_count);
        EXPECT_EQUAL(expected.peak_bytes, stats.peak_bytes);
        EXPECT_EQUAL(expected.total_count, stats.total_count);
        EXPECT_EQUAL(expected.total_bytes, stats.total_bytes);
        EXPECT_EQUAL(expected.failures, stats.failures);
        EXPECT_EQUAL(expected.peak_allocated_bytes, stats.peak_allocated_bytes);
        EXPECT_EQUAL((bsa_total_pages(heap.root) - bsa_free_page_count(heap.root)) * PAGE,
                     stats.allocated_bytes);
        if (step % 100 == 0) {
            for (unsigned i = 0; i < COUNT_OF(uses); i++) {
                struct bsa_use use =
                    i < BSA_CLASSES ? stats.per_class[i] : stats.per_order[i - BSA_CLASSES];

                EXPECT_EQUAL(uses[i].live, use.live);
                EXPECT_EQUAL(uses[i].total, use.total);
            }
        }
        if (step == 20000) {
            bsa_reset_peak(heap.root);
            expected.peak_count = expected.current_count;
            expected.peak_bytes = expected.current_bytes;
            expected.peak_allocated_bytes = stats.allocated_bytes;
        }
    }
    EXPECT(expected.failures == 0 || expected.total_count > 1000);
    heap_close(&heap);
}

static void usage_is_that_of_the_statistics(void) {
    for (int serial = 0; serial < 2; serial++) {
        struct heap heap = serial ? serial_heap_of(4 * MIB, 3) : heap_of(4 * MIB, 3);
        struct bsa_usage usage;
        struct bsa_stats stats;
        uintptr_t address;

        for (unsigned i = 0; i < 60; i++) {
            address = must_alloc(heap.root, i % 3, 150 * i);
            if (i % 4 == 1) {
                must_free(heap.root, i % 2, address);
            }
            bsa_usage(heap.root, &usage);
            stats = stats_of(heap.root);
            EXPECT_EQUAL(stats.current_bytes, usage.current_bytes);
            EXPECT_EQUAL(stats.requested_bytes, usage.requested_bytes);
            EXPECT_EQUAL(stats.allocated_bytes, usage.allocated_bytes);
            EXPECT_EQUAL(stats.peak_allocated_bytes, usage.peak_allocated_bytes);
        }
        heap_close(&heap);
    }
}

static void statistics_follow_a_realloc(void) {
    struct heap heap = serial_heap_of(1 * MIB, 1);
    static const size_t sizes[] = {10, 3 * PAGE, PAGE, 9 * PAGE, 100, 2 * PAGE + 1, 2000, 1};
    uintptr_t address = must_alloc(heap.root, 0, 1);

    for (unsigned i = 0; i < COUNT_OF(sizes); i++) {
        struct bsa_allocation found;
        struct bsa_stats stats;

        EXPECT_OK(bsa_realloc(heap.root, address, sizes[i], &address));
        found = lookup(heap.root, address);
        stats = stats_of(heap.root);
        EXPECT_EQUAL(1, stats.current_count);
        EXPECT_EQUAL(found.usable_size, stats.current_bytes);
        EXPECT_EQUAL(found.requested_size, stats.requested_bytes);
        EXPECT(stats.peak_bytes >= stats.current_bytes);
        for (unsigned order = 0; order <= BSA_MAX_ORDER; order++) {
            EXPECT_EQUAL(found.kind == BSA_KIND_PAGES && found.usable_size == PAGE << order,
                         stats.per_order[order].live);
        }
    }
    heap_close(&heap);
}

static void every_status_has_a_text(void) {
    for (int status = BSA_OK; status <= BSA_NO_TRANSLATION; status++) {
        EXPECT(strlen(bsa_status_text((bsa_status)status)) > 3);
        EXPECT(strcmp(bsa_status_text((bsa_status)status), "unknown status") != 0);
    }
    EXPECT(strcmp(bsa_status_text((bsa_status)99), "unknown status") == 0);
}

/* Random use of everything from two slots, with contents checked. */
static void contents_survive_random_use(void) {
    enum { MOST = 800 };
    static struct {
        uintptr_t address;
        size_t size;
        unsigned tag;
    } live[MOST];

    for (int mode = 0; mode < 3; mode++) {
        struct heap heap = mode == 2 ? serial_heap_of(2 * MIB, 2) : heap_of(2 * MIB, 2);
        unsigned count = 0;
        uint64_t seed = 1234 + (uint64_t)mode;

        heap_add(&heap, 300 * KIB, PAGE, 24);
        if (mode == 1) {
            EXPECT_OK(bsa_slot_attach(heap.root, 0));
        }
        for (unsigned step = 0; step < 20000; step++) {
            unsigned slot = random_below(&seed, 2), action = random_below(&seed, 10);
            size_t size =
                random_below(&seed, 8) == 0 ? random_below(&seed, 60000) : random_below(&seed, 700);

            if (action < 4 && count < MOST) {
                uintptr_t address;
                bsa_status status = bsa_alloc_on(heap.root, slot, size, 0, 0, &address);

                EXPECT(status == BSA_OK || status == BSA_NO_MEMORY);
                if (status == BSA_OK) {
                    live[count].address = address;
                    live[count].size = size;
                    live[count].tag = step;
                    fill(address, size, step);
                    count++;
                }
            } else if (count > 0) {
                unsigned victim = random_below(&seed, count);
                size_t kept = live[victim].size < size ? live[victim].size : size;
                uintptr_t moved;

                EXPECT(is_filled(live[victim].address, live[victim].size, live[victim].tag));
                if (action < 7) {
                    must_free(heap.root, slot, live[victim].address);
                    live[victim] = live[--count];
                } else if (bsa_realloc_on(heap.root, slot, live[victim].address, size, &moved) ==
                           BSA_OK) {
                    EXPECT(is_filled(moved, kept, live[victim].tag));
                    live[victim].address = moved;
                    live[victim].size = size;
                    fill(moved, size, live[victim].tag);
                }
            }
            if (step % 1000 == 0) {
                EXPECT_SOUND(heap.root);
                bsa_trim_on(heap.root, slot);
            }
        }
        while (count > 0) {
            must_free(heap.root, 0, live[--count].address);
        }
        EXPECT_OK(bsa_slot_detach(heap.root, 0));
        bsa_trim(heap.root);
        EXPECT_EQUAL(0, stats_of(heap.root).allocated_bytes);
        heap_close(&heap);
    }
}

int main(void) {
    RUN(every_size_is_served_and_aligned);
    RUN(every_alignment_is_kept_for_every_size);
    RUN(wrong_arguments_are_refused);
    RUN(a_caller_without_a_slot_may_free_and_take_pages);
    RUN(zeroed_memory_is_zero_even_where_it_was_used_before);
    RUN(one_empty_slab_is_kept_and_further_ones_go_back_at_once);
    RUN(only_the_start_of_a_live_object_can_be_freed);
    RUN(what_a_user_writes_into_objects_misleads_nobody);
    RUN(an_address_inside_an_allocation_leads_to_it);
    RUN(objects_freed_by_another_slot_are_counted_and_used_again);
    RUN(an_object_freed_remotely_cannot_be_freed_again);
    RUN(everything_freed_remotely_is_free_pages_again_after_a_trim);
    RUN(memory_stays_bounded_when_one_slot_allocates_and_another_frees);
    RUN(an_attached_slot_is_trimmed_by_its_owner_when_others_have_asked);
    RUN(empty_slabs_of_every_shared_slot_are_given_back_before_a_request_fails);
    RUN(an_object_is_found_in_pages_that_other_classes_and_slots_no_longer_need);
    RUN(the_short_way_to_memory_leads_where_the_long_one_does);
    RUN(remote_frees_are_drained_before_a_request_fails);
    RUN(smaller_slabs_are_tried_where_no_larger_block_is_free);
    RUN(a_slab_takes_a_256th_of_the_heap_or_a_page);
    RUN(a_removed_section_is_never_looked_at_again);
    RUN(a_tiny_heap_serves_objects_down_to_its_only_page);
    RUN(a_heap_full_of_small_objects_serves_a_large_one_once_they_are_freed);
    RUN(an_attached_slots_slabs_are_out_of_reach_until_its_owner_comes_by);
    RUN(realloc_keeps_contents_in_every_direction);
    RUN(realloc_stays_in_place_where_class_or_neighbours_allow);
    RUN(realloc_moves_what_would_waste_half_of_itself);
    RUN(realloc_reads_no_byte_behind_the_old_allocation);
    RUN(a_failed_realloc_leaves_the_old_allocation_as_it_was);
    RUN(a_realloc_that_copies_can_be_undone);
    RUN(bulk_allocation_is_all_or_nothing);
    RUN(bulk_freeing_tells_neighbours_apart);
    RUN(bulk_freeing_sorts);
    RUN(bulk_freeing_refuses_all_if_one_is_wrong);
    RUN(hooks_are_called_around_and_never_under_a_lock);
    RUN(a_serial_root_takes_no_lock_whatever_is_attached);
    RUN(an_attached_slot_takes_no_lock_on_its_fast_path);
    RUN(a_walk_lists_every_live_allocation_in_address_order);
    RUN(statistics_are_exact);
    RUN(usage_is_that_of_the_statistics);
    RUN(statistics_follow_a_realloc);
    RUN(every_status_has_a_text);
    RUN(contents_survive_random_use);
    return 0;
}
