/* The regions that an allocator manages, and their records. Under the allocator's lock. */
#ifndef BSA_PY_MANAGED_REGIONS_H
#define BSA_PY_MANAGED_REGIONS_H

#include "allocator.h"

/* One section under management. Outlives it as long as there are Sections that ask for it. */
struct section_record {
    AllocatorObject *allocator; /* borrowed */
    struct region *region;
    PyObject *phys;               /* callable, or NULL */
    struct bsa_section_info info; /* as it was when added; `index` is kept up to date */
    PyObject *object;             /* weak reference to the Section that stands for it, or NULL */
    Py_ssize_t holders;           /* the allocator, and Sections: the last one frees the record */
    bool is_removed;
};

/* Whether the object, or NULL, says how addresses are translated; false with TypeError set. */
bool bsa_check_phys(PyObject *phys);

/* Puts what `source` stands for under management. `section` (may be NULL) receives the new Section.
 * False with an exception set. May run any code. */
bool bsa_manage_region(AllocatorObject *self, PyObject *source, PyObject *phys, PyObject **section);

/* The record of the section that holds the address, which lies in one. */
struct section_record *bsa_record_of(AllocatorObject *self, uintptr_t address);

/* New reference to the record's Section. */
PyObject *bsa_section_for(AllocatorObject *self, struct section_record *record);

/* One holder of the record less. */
void bsa_record_release(struct section_record *record);

/* The allocator's end of it. May run any code. */
void bsa_record_free(struct section_record *record);

#endif
