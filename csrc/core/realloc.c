/* Changing the size of an allocation: in place where its neighbours or its class allow, else by a
 * new one and a copy.
 *
 * O(1), and the copy. Locking: that of each single operation. */
#include "facade.h"

/* What lives at the address: of an object, what is most often asked about, address, size and kind;
 * errors as bsa_lookup's. */
static bsa_status find_old(const struct bsa_root *root, struct bsa_slot *slot, uintptr_t address,
                           struct bsa_allocation *old) {
    struct bsa_section *section = bsa_find_section(root, slot, address);

    if (BSA_LIKELY(section != NULL)) {
        uint64_t word = bsa_word_at(section, bsa_page_of(section, address));

        if (BSA_LIKELY(bsa_is_live_object(section, word, address))) {
            *old = (struct bsa_allocation){
                .address = address,
                .usable_size = root->space.classes.classes[bsa_word_class(word)].size,
                .kind = BSA_KIND_OBJECT,
            };
            return BSA_OK;
        }
    }
    return bsa_lookup(root, address, old);
}

/* Whether an object of `old` bytes should serve `size`: it fits, and would not waste half of
 * itself. */
static bool object_serves(const struct bsa_root *root, size_t old, size_t size) {
    const struct bsa_class_table *classes = &root->space.classes;

    return size <= old && classes->classes[bsa_class_at_hand(classes, size)].size > old / 2;
}

static bsa_status resize_in_place(struct bsa_root *root, const struct bsa_allocation *old,
                                  size_t size) {
    struct bsa_section *section;

    if (old->kind == BSA_KIND_OBJECT) {
        return object_serves(root, old->usable_size, size) ? BSA_OK : BSA_NO_MEMORY;
    }
    if (bsa_class_for(&root->space.classes, size, 0) < BSA_CLASSES) {
        return BSA_NO_MEMORY; /* an object serves as well */
    }
    section = bsa_find_section(root, NULL, old->address);
    return bsa_pages_resize(root, section, old->address, size);
}

/* A smaller block that cannot move stays where it is, as small as it gets. */
static bsa_status shrink_where_it_is(struct bsa_root *root, const struct bsa_allocation *old,
                                     size_t size) {
    if (old->kind == BSA_KIND_OBJECT) {
        return BSA_OK;
    }
    return bsa_pages_resize(root, bsa_find_section(root, NULL, old->address), old->address, size);
}

static bool is_memory(const struct bsa_root *root, uintptr_t address) {
    return !bsa_any_heap_is_not_memory(root) ||
           (bsa_find_section(root, NULL, address)->derived.flags & BSA_NOT_MEMORY) == 0;
}

/* A new allocation with the bytes of the old one, which stays. */
static bsa_status copy_to_new(struct bsa_root *root, unsigned slot,
                              const struct bsa_allocation *old, size_t size, uintptr_t *address) {
    size_t kept = size < old->usable_size ? size : old->usable_size;
    uintptr_t moved;
    bsa_status status = bsa_alloc_untraced(root, slot, size, &moved);

    if (status != BSA_OK) {
        return status;
    }
    if (!is_memory(root, old->address) || !is_memory(root, moved)) {
        bsa_free_untraced(root, slot, moved);
        return BSA_INVALID_PARAM;
    }
    memcpy((void *)moved, (const void *)old->address, kept);
    *address = moved;
    return BSA_OK;
}

/* bsa_realloc_copy_on, untraced. */
static bsa_status resize_or_copy(struct bsa_root *root, unsigned slot, uintptr_t old, size_t size,
                                 uintptr_t *address) {
    struct bsa_allocation was;
    bsa_status status = find_old(root, bsa_slot_of(root, slot), old, &was);

    if (status != BSA_OK) {
        return status;
    }
    *address = old;
    status = resize_in_place(root, &was, size);
    if (status == BSA_NO_MEMORY) {
        status = copy_to_new(root, slot, &was, size, address);
        if (status != BSA_OK && size <= was.usable_size) {
            status = shrink_where_it_is(root, &was, size);
        }
    }
    return status == BSA_OK ? BSA_OK : bsa_failed(root, slot, status);
}

bsa_status bsa_realloc_copy_on(struct bsa_root *root, unsigned slot, uintptr_t old, size_t size,
                               uintptr_t *address) {
    bsa_status status = resize_or_copy(root, slot, old, size, address);

    if (status == BSA_OK) {
        bsa_trace(root, *address == old ? BSA_TRACE_REALLOC : BSA_TRACE_ALLOC, *address, size,
                  slot);
    }
    return status;
}

bsa_status bsa_realloc_on(struct bsa_root *root, unsigned slot, uintptr_t old, size_t size,
                          uintptr_t *address) {
    bsa_status status = resize_or_copy(root, slot, old, size, address);

    if (status != BSA_OK) {
        return status;
    }
    if (*address != old) {
        bsa_free_on(root, slot, old);
    }
    bsa_trace(root, BSA_TRACE_REALLOC, *address, size, slot);
    return BSA_OK;
}
