/* The checks are on in the very library that is measured: what must be refused is. */
#include "bench.h"

enum { HEAP = 16 << 20, PAGE = 4096 };

static struct bsa_root *root;

static void expect(bsa_status expected, uintptr_t address, const char *what) {
    bsa_status status = bsa_free(root, address);

    if (status != expected) {
        fail("%s: %s, not %s", what, bsa_status_text(status), bsa_status_text(expected));
    }
}

static uintptr_t allocated(size_t size) {
    uintptr_t address;

    if (bsa_alloc(root, size, 0, 0, &address) != BSA_OK) {
        out_of_memory();
    }
    return address;
}

/* Frees twice what slot 0 allocated, the first time from another slot: the owner does not know of
 * it yet. */
static void expect_remote_refusals(void) {
    uintptr_t object = allocated(64);

    if (bsa_free_on(root, 1, object) != BSA_OK) {
        fail("an object cannot be freed by another slot");
    }
    expect(BSA_NOT_ALLOCATED, object, "a double free, after one from another slot");
    if (bsa_free_on(root, 1, object) != BSA_NOT_ALLOCATED) {
        fail("a double free from another slot was not refused");
    }
}

static void expect_refusals_of_freed(size_t size, const char *what) {
    uintptr_t block = allocated(size);

    expect(BSA_OK, block, "a free");
    expect(BSA_NOT_ALLOCATED, block, what);
}

void expect_refusals(void) {
    uintptr_t object, pages;
    struct bsa_section_info info;
    int foreign;

    front_open(HEAP, 2, 1);
    root = front_root();
    object = allocated(64);
    pages = allocated(4 * PAGE);
    bsa_section_info(root, 0, &info);
    expect_refusals_of_freed(64, "a double free of an object");
    expect_refusals_of_freed(PAGE, "a double free of a page");
    expect_refusals_of_freed(4 * PAGE, "a double free of pages");
    expect_remote_refusals();
    expect(BSA_INVALID_PARAM, object + 8, "an address inside an object");
    expect(BSA_NOT_ALLOCATED, pages + PAGE, "an interior page");
    expect(BSA_INVALID_PARAM, pages + 8, "an address inside a page");
    expect(BSA_NOT_FOUND, info.meta_start, "an address in the metadata");
    expect(BSA_NOT_FOUND, (uintptr_t)&foreign, "an address outside every heap");
    expect(BSA_NOT_FOUND, 0, "address 0");
    expect(BSA_OK, object, "a free");
    expect(BSA_OK, pages, "a free");
}
