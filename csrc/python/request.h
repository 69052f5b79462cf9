/* What is asked of the core for memory; the ways to ask are one, with the out-of-memory callback
 * around it. Under the allocator's lock. */
#ifndef BSA_PY_REQUEST_H
#define BSA_PY_REQUEST_H

#include "allocator.h"

struct allocation_request {
    enum { REQUEST_BYTES, REQUEST_PAGES, REQUEST_LOW_PAGES, REQUEST_MANY, REQUEST_REALLOC } kind;
    size_t amount; /* bytes, or pages */
    size_t align;
    unsigned flags;       /* enum bsa_alloc_flags */
    size_t count;         /* MANY */
    uintptr_t *addresses; /* MANY */
    uintptr_t old;        /* REALLOC; stays live where the new address is another */
    bool is_of_block;     /* REALLOC, by the Block that owns it */
};

/* Allocates, calling on_oom as often as it asks for. False with an exception set. */
bool bsa_allocate(AllocatorObject *self, const struct allocation_request *request,
                  uintptr_t *address);

/* What follows a refusal: true: try again; false: an exception is set. */
bool bsa_ask_again(AllocatorObject *self, const struct allocation_request *request,
                   bsa_status status);

bool bsa_check_not_owned_slow(AllocatorObject *self, uintptr_t address);

/* Whether no Block owns the address; false with InvalidParamError (or MemoryError) set. */
static inline bool bsa_check_not_owned(AllocatorObject *self, uintptr_t address) {
    return self->extents.count == 0 || bsa_check_not_owned_slow(self, address);
}

#endif
