/* The same calls by the slot that the hooks say is the caller's. */
#include "root.h"

static unsigned enter(const struct bsa_root *root) {
    return root->hooks.enter != NULL ? root->hooks.enter(root->hooks.context) : 0;
}

static void leave(const struct bsa_root *root, unsigned slot) {
    if (root->hooks.leave != NULL) {
        root->hooks.leave(root->hooks.context, slot);
    }
}

bsa_status bsa_alloc(struct bsa_root *root, size_t size, size_t align, unsigned flags,
                     uintptr_t *address) {
    unsigned slot = enter(root);
    bsa_status status = bsa_alloc_on(root, slot, size, align, flags, address);

    leave(root, slot);
    return status;
}

bsa_status bsa_alloc_pages(struct bsa_root *root, size_t count, size_t align, unsigned flags,
                           uintptr_t *address) {
    unsigned slot = enter(root);
    bsa_status status = bsa_alloc_pages_on(root, slot, count, align, flags, address);

    leave(root, slot);
    return status;
}

bsa_status bsa_alloc_pages_lowmem(struct bsa_root *root, size_t count, size_t align,
                                  uintptr_t *address) {
    unsigned slot = enter(root);
    bsa_status status = bsa_alloc_pages_lowmem_on(root, slot, count, align, address);

    leave(root, slot);
    return status;
}

bsa_status bsa_free(struct bsa_root *root, uintptr_t address) {
    unsigned slot = enter(root);
    bsa_status status = bsa_free_on(root, slot, address);

    leave(root, slot);
    return status;
}

bsa_status bsa_free_pages(struct bsa_root *root, uintptr_t address, size_t count) {
    unsigned slot = enter(root);
    bsa_status status = bsa_free_pages_on(root, slot, address, count);

    leave(root, slot);
    return status;
}

bsa_status bsa_realloc(struct bsa_root *root, uintptr_t old, size_t size, uintptr_t *address) {
    unsigned slot = enter(root);
    bsa_status status = bsa_realloc_on(root, slot, old, size, address);

    leave(root, slot);
    return status;
}

bsa_status bsa_alloc_many(struct bsa_root *root, size_t count, size_t size, size_t align,
                          uintptr_t *addresses) {
    unsigned slot = enter(root);
    bsa_status status = bsa_alloc_many_on(root, slot, count, size, align, addresses);

    leave(root, slot);
    return status;
}

bsa_status bsa_free_many(struct bsa_root *root, uintptr_t *addresses, size_t count,
                         uintptr_t *wrong) {
    unsigned slot = enter(root);
    bsa_status status = bsa_free_many_on(root, slot, addresses, count, wrong);

    leave(root, slot);
    return status;
}

size_t bsa_trim(struct bsa_root *root) {
    unsigned slot = enter(root);
    size_t pages = bsa_trim_on(root, slot);

    leave(root, slot);
    return pages;
}
