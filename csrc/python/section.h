/* The Section object: one region under management, as Python sees it. */
#ifndef BSA_PY_SECTION_H
#define BSA_PY_SECTION_H

#include "allocator.h"

struct SectionObject {
    PyObject_HEAD
    AllocatorObject *allocator;
    struct section_record *record; /* NULL once removed or closed */
};

/* New reference; the record has no object yet. */
PyObject *bsa_section_new(AllocatorObject *self, struct section_record *record);

#endif
