/* Touches memory that is nobody's, in the way that its argument names; tests/test_poison.py builds
 * this with a checker and expects to be told the line. Without an argument it touches only what is
 * allowed: all bytes granted, and those of regions that are managed no more. */
#include "check.h"

#define PAGE (4 * KIB)

static volatile unsigned char *bytes_at(uintptr_t address) {
    return (volatile unsigned char *)address;
}

static void touch_all(const struct bsa_root *root, uintptr_t address) {
    struct bsa_allocation found;

    EXPECT_OK(bsa_lookup(root, address, &found));
    memset((void *)address, 1, found.usable_size);
}

static void use_what_is_granted(void) {
    struct heap heap = heap_of(1 * MIB, 2);
    uintptr_t object = must_alloc(heap.root, 0, 100), pages = must_alloc_pages(heap.root, 5), moved;
    uintptr_t many[20];

    touch_all(heap.root, object);
    touch_all(heap.root, pages);
    EXPECT_OK(bsa_realloc(heap.root, pages, 3 * PAGE, &pages));
    touch_all(heap.root, pages);
    EXPECT_OK(bsa_realloc(heap.root, pages, 9 * PAGE, &pages));
    touch_all(heap.root, pages);
    EXPECT_OK(bsa_realloc(heap.root, object, 3000, &moved));
    touch_all(heap.root, moved);
    EXPECT_OK(bsa_alloc_many(heap.root, COUNT_OF(many), 200, 0, many));
    EXPECT_OK(bsa_rebuild(heap.root));
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        touch_all(heap.root, many[i]);
    }
    touch_all(heap.root, moved);
    EXPECT_OK(bsa_free_many(heap.root, many, COUNT_OF(many), NULL));
    EXPECT_OK(bsa_free(heap.root, moved));
    EXPECT_OK(bsa_free(heap.root, pages));
    EXPECT_OK(bsa_remove_region(heap.root, 0));
    memset(heap.region[0], 2, 1 * MIB);
    heap_close(&heap);
}

static void write_freed_object(struct bsa_root *root) {
    uintptr_t object = must_alloc(root, 0, 100);

    EXPECT_OK(bsa_free_on(root, 0, object));
    bytes_at(object)[50] = 1; /* culprit: freed-object */
}

static void write_remotely_freed_object(struct bsa_root *root) {
    uintptr_t object = must_alloc(root, 0, 100);

    EXPECT_OK(bsa_free_on(root, 1, object));
    bytes_at(object)[50] = 1; /* culprit: remotely-freed-object */
}

static void read_freed_pages(struct bsa_root *root) {
    uintptr_t pages = must_alloc_pages(root, 4);

    memset((void *)pages, 1, 4 * PAGE);
    EXPECT_OK(bsa_free(root, pages));
    EXPECT(bytes_at(pages)[3 * PAGE] < 2); /* culprit: freed-pages */
}

static void write_behind_an_object(struct bsa_root *root) {
    uintptr_t object = must_alloc(root, 0, 100);
    struct bsa_allocation found;

    EXPECT_OK(bsa_lookup(root, object, &found));
    bytes_at(object)[found.usable_size] = 1; /* culprit: behind-an-object */
}

static void write_shrunk_pages(struct bsa_root *root) {
    uintptr_t pages = must_alloc_pages(root, 8);

    EXPECT_OK(bsa_realloc(root, pages, 3 * PAGE, &pages));
    bytes_at(pages)[4 * PAGE] = 1; /* culprit: shrunk-pages */
}

static void write_moved_object(struct bsa_root *root) {
    uintptr_t object = must_alloc(root, 0, 100), moved;

    EXPECT_OK(bsa_realloc(root, object, 1000, &moved));
    EXPECT(object != moved);
    bytes_at(object)[0] = 1; /* culprit: moved-object */
}

static void write_before_any_allocation(struct bsa_root *root) {
    bytes_at(section_info(root, 0).start)[0] = 1; /* culprit: never-allocated */
}

static void write_after_a_rebuild(struct bsa_root *root) {
    uintptr_t object = must_alloc(root, 0, 100), other = must_alloc(root, 0, 100);

    EXPECT_OK(bsa_free_on(root, 0, object));
    EXPECT_OK(bsa_rebuild(root));
    bytes_at(other)[0] = 1;
    bytes_at(object)[0] = 1; /* culprit: freed-before-a-rebuild */
}

static const struct {
    const char *name;
    void (*misuse)(struct bsa_root *root);
} misuses[] = {
    {"freed-object", write_freed_object},
    {"remotely-freed-object", write_remotely_freed_object},
    {"freed-pages", read_freed_pages},
    {"behind-an-object", write_behind_an_object},
    {"shrunk-pages", write_shrunk_pages},
    {"moved-object", write_moved_object},
    {"never-allocated", write_before_any_allocation},
    {"freed-before-a-rebuild", write_after_a_rebuild},
};

int main(int count, char **arguments) {
    struct heap heap;

    if (count == 1) {
        RUN(use_what_is_granted);
        return 0;
    }
    heap = heap_of(1 * MIB, 2);
    for (size_t i = 0; i < COUNT_OF(misuses); i++) {
        if (strcmp(misuses[i].name, arguments[1]) == 0) {
            misuses[i].misuse(heap.root);
        }
    }
    heap_close(&heap);
    return 0;
}
