/* The Allocator's methods that live in files of their own, for its table in allocator.c. */
#ifndef BSA_PY_ALLOCATOR_METHODS_H
#define BSA_PY_ALLOCATOR_METHODS_H

#include "allocator.h"

/* managed_regions.c */
PyObject *bsa_allocator_add_region(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames);
PyObject *bsa_allocator_remove_region(AllocatorObject *self, PyObject *section);
extern const char bsa_allocator_add_region_doc[], bsa_allocator_remove_region_doc[];

/* allocator_options.c */
PyObject *bsa_allocator_get_limit(AllocatorObject *self, void *ignored);
int bsa_allocator_set_limit(AllocatorObject *self, PyObject *value, void *ignored);
PyObject *bsa_allocator_get_on_oom(AllocatorObject *self, void *ignored);
int bsa_allocator_set_on_oom(AllocatorObject *self, PyObject *value, void *ignored);

/* allocation.c */
PyObject *bsa_allocator_alloc(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);
PyObject *bsa_allocator_alloc_from(AllocatorObject *self, PyObject *source);
PyObject *bsa_allocator_alloc_pages(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                                    PyObject *kwnames);
PyObject *bsa_allocator_alloc_pages_lowmem(AllocatorObject *self, PyObject *const *args,
                                           Py_ssize_t nargs, PyObject *kwnames);
PyObject *bsa_allocator_malloc(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames);
extern const char bsa_allocator_alloc_doc[], bsa_allocator_alloc_from_doc[],
    bsa_allocator_alloc_pages_doc[], bsa_allocator_alloc_pages_lowmem_doc[],
    bsa_allocator_malloc_doc[];

/* raw.c */
PyObject *bsa_allocator_free(AllocatorObject *self, PyObject *address);
PyObject *bsa_allocator_realloc(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *bsa_allocator_dealloc_pages(AllocatorObject *self, PyObject *const *args,
                                      Py_ssize_t nargs);
PyObject *bsa_allocator_block(AllocatorObject *self, PyObject *address);
PyObject *bsa_allocator_trim(AllocatorObject *self, PyObject *ignored);
extern const char bsa_allocator_free_doc[], bsa_allocator_realloc_doc[],
    bsa_allocator_dealloc_pages_doc[], bsa_allocator_block_doc[], bsa_allocator_trim_doc[];

/* bulk.c */
PyObject *bsa_allocator_malloc_many(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                                    PyObject *kwnames);
PyObject *bsa_allocator_free_many(AllocatorObject *self, PyObject *addresses);
extern const char bsa_allocator_malloc_many_doc[], bsa_allocator_free_many_doc[];

/* inspection.c */
enum bsa_number {
    BSA_PAGE_SIZE,
    BSA_CPUS,
    BSA_TOTAL_PAGES,
    BSA_FREE_PAGES,
    BSA_MANAGED_BYTES,
    BSA_ALLOCATED_BYTES,
    BSA_REQUESTED_BYTES,
    BSA_METADATA_BYTES,
    BSA_LARGEST_FREE,
};

PyObject *bsa_allocator_get_number(AllocatorObject *self, void *which);
PyObject *bsa_allocator_get_sections(AllocatorObject *self, void *ignored);
PyObject *bsa_allocator_get_size_classes(AllocatorObject *self, void *ignored);
PyObject *bsa_allocator_usable_size(AllocatorObject *self, PyObject *address);
PyObject *bsa_allocator_section_of(AllocatorObject *self, PyObject *address);
PyObject *bsa_allocator_slab_of(AllocatorObject *self, PyObject *address);
PyObject *bsa_allocator_page_state(AllocatorObject *self, PyObject *address);
PyObject *bsa_allocator_free_blocks(AllocatorObject *self, PyObject *ignored);
PyObject *bsa_allocator_unusable_index(AllocatorObject *self, PyObject *order);
PyObject *bsa_allocator_extfrag_index(AllocatorObject *self, PyObject *order);
PyObject *bsa_allocator_stats(AllocatorObject *self, PyObject *ignored);
PyObject *bsa_allocator_reset_peak(AllocatorObject *self, PyObject *ignored);
PyObject *bsa_allocator_slabs(AllocatorObject *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);
PyObject *bsa_allocator_walk(AllocatorObject *self, PyObject *ignored);
PyObject *bsa_allocator_check(AllocatorObject *self, PyObject *ignored);
PyObject *bsa_allocator_repr_html(PyObject *self, PyObject *ignored);
PyObject *bsa_allocator_repr(AllocatorObject *self);
Py_ssize_t bsa_allocator_length(AllocatorObject *self);
int bsa_allocator_contains(AllocatorObject *self, PyObject *address);
extern const char bsa_allocator_usable_size_doc[], bsa_allocator_section_of_doc[],
    bsa_allocator_slab_of_doc[], bsa_allocator_page_state_doc[], bsa_allocator_free_blocks_doc[],
    bsa_allocator_unusable_index_doc[], bsa_allocator_extfrag_index_doc[],
    bsa_allocator_stats_doc[], bsa_allocator_reset_peak_doc[], bsa_allocator_slabs_doc[],
    bsa_allocator_walk_doc[], bsa_allocator_check_doc[], bsa_allocator_repr_html_doc[];

#endif
