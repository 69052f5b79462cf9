/* The Section object: one region under management, as Python sees it. */
#ifndef BSA_PY_SECTION_H
#define BSA_PY_SECTION_H

#include "managed_regions.h"

struct SectionObject {
    PyObject_HEAD
    AllocatorObject *allocator;
    PyObject *weakrefs;
    struct section_record *record; /* held */
};

/* New reference to the record's Section, or NULL: it has none. */
PyObject *bsa_section_get(const struct section_record *record);

/* New reference; the record had none just now. */
PyObject *bsa_section_new(AllocatorObject *self, struct section_record *record);

#endif
