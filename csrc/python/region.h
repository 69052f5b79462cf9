/* The memory under a section: a mapping of our own, or somebody's buffer. Counted: the section
 * holds it, and each Block of it that was ever exported, whichever lives longer. */
#ifndef BSA_PY_REGION_H
#define BSA_PY_REGION_H

#include "claims.h"
#include "state.h"

struct region {
    PyObject_HEAD
    void *start;
    size_t size;
    PyObject *source; /* whose buffer it is; NULL for a mapping of our own */
    Py_buffer buffer;
    BlockObject *host; /* the Block that all of it lies in, pinned, no reference; or NULL */
    PyObject *owner;   /* weak reference to the allocator that claims it */
    struct bsa_claim claim;
    bool is_claimed;
    bool is_opaque; /* the collector must not see source and buffer */
};

/* From `object`: an int maps that many bytes, an exporter's buffer is taken, an object that is but
 * index-able is a size as well. NULL with an exception set. May run any code. */
struct region *bsa_region_from(struct module_state *state, PyObject *object);

/* Claims it for the allocator `owner`; false with MemoryOverlapError set if another open allocator
 * of this process manages a byte of it (unless it lies wholly inside one Block of that one, which
 * is pinned). */
bool bsa_region_claim(struct module_state *state, struct region *region, PyObject *owner);

int bsa_add_region_type(PyObject *module, struct module_state *state);

/* Whether it leads to objects that may refer to any others. */
bool bsa_region_refers_to_others(const struct region *region);

/* Whether bytes of it are shared with other processes, so that a fork leaves two users of one heap.
 */
bool bsa_region_is_shared(const struct region *region);

#endif
