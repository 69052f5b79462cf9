/* Poisoning: tells a checker which bytes of a heap nobody may touch.
 *
 * Built with BSA_POISON_ASAN (for AddressSanitizer) or BSA_POISON_MEMCHECK (for valgrind), all
 * bytes of a heap that lie in no live allocation are poisoned, so that a use after free, or beyond
 * what was granted, is reported where it happens. In any other build nothing is left of it.
 *
 * Who frees poisons first and then lets go: afterwards the bytes may be somebody else's. Metadata
 * is never poisoned. A section that is removed is unpoisoned, as its bytes are the caller's again;
 * who merely drops a root does that for its regions with bsa_unpoison_region. */
#ifndef BSA_POISON_H
#define BSA_POISON_H

#include "section.h"

#if defined BSA_POISON_ASAN
#define BSA_POISONING 1

void __asan_poison_memory_region(const volatile void *address, size_t size);
void __asan_unpoison_memory_region(const volatile void *address, size_t size);

#define BSA_MARK_NOBODYS(address, size) __asan_poison_memory_region(address, size)
#define BSA_MARK_NEW(address, size)     __asan_unpoison_memory_region(address, size)
#define BSA_MARK_WRITTEN(address, size) __asan_unpoison_memory_region(address, size)

#elif defined BSA_POISON_MEMCHECK
#define BSA_POISONING 1

#include <valgrind/memcheck.h>

#define BSA_MARK_NOBODYS(address, size) VALGRIND_MAKE_MEM_NOACCESS(address, size)
#define BSA_MARK_NEW(address, size)     VALGRIND_MAKE_MEM_UNDEFINED(address, size)
#define BSA_MARK_WRITTEN(address, size) VALGRIND_MAKE_MEM_DEFINED(address, size)

#else
#define BSA_POISONING 0
#endif

#if BSA_POISONING

static inline bool bsa_is_memory(const struct bsa_section *section) {
    return (section->derived.flags & BSA_NOT_MEMORY) == 0;
}

/* Nobody may touch these bytes of the section's heap. */
static inline void bsa_poison(const struct bsa_section *section, uintptr_t address, size_t size) {
    if (bsa_is_memory(section)) {
        BSA_MARK_NOBODYS((void *)address, size);
    }
}

/* They are handed out; what they hold means nothing. */
static inline void bsa_unpoison_new(const struct bsa_section *section, uintptr_t address,
                                    size_t size) {
    if (bsa_is_memory(section)) {
        BSA_MARK_NEW((void *)address, size);
    }
}

/* A region whose root is dropped is its owner's again. */
static inline void bsa_unpoison_region(void *start, size_t size) {
    BSA_MARK_WRITTEN(start, size);
}

/* They are in use, with what somebody has written there. */
static inline void bsa_unpoison_written(const struct bsa_section *section, uintptr_t address,
                                        size_t size) {
    if (bsa_is_memory(section)) {
        BSA_MARK_WRITTEN((void *)address, size);
    }
}

#else

/* Macros, because even an empty function tells in what a compiler inlines around it. */
#define bsa_poison(section, address, size)           ((void)0)
#define bsa_unpoison_new(section, address, size)     ((void)0)
#define bsa_unpoison_written(section, address, size) ((void)0)
#define bsa_unpoison_region(start, size)             ((void)0)

#endif

#endif
