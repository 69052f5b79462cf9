/* The front: the few calls that workloads make, over malloc or over bsa.
 *
 * The same workloads are compiled twice. Over malloc, a call is a call of the C library, or of what
 * LD_PRELOAD puts in its place. With BENCH_BSA it is one into a shared library that holds bsa
 * (front_bsa.c). Either way it is one call out of line, and the compiler knows nothing about it
 * (-fno-builtin): no pair is optimised away. */
#ifndef FRONT_H
#define FRONT_H

#include <stddef.h>

#ifdef BENCH_BSA

#include "bsa.h"

/* Makes the heap: `bytes` of fresh memory in `sections` equal regions next to each other. More than
 * one slot switches on what slots cache. Ends the process if there is no such memory. */
void front_open(size_t bytes, unsigned slots, unsigned sections);

struct bsa_root *front_root(void);

/* To be called by every thread first, with a number of its own: it gets a slot, which it need not
 * lock. Threads of malloc have caches likewise. */
void front_begin_thread(unsigned number);

void *front_alloc(size_t size);
void *front_alloc_aligned(size_t size, size_t align);
void *front_realloc(void *old, size_t size);
void front_free(void *block);

/* 2^order pages; NULL when there are none. */
void *front_alloc_pages(unsigned order);
void front_free_pages(void *block, unsigned order);

#else

#include <stdlib.h>

static inline void front_open(size_t bytes, unsigned slots, unsigned sections) {
    (void)bytes, (void)slots, (void)sections;
}

static inline void front_begin_thread(unsigned number) {
    (void)number;
}

#define front_alloc                      malloc
#define front_realloc                    realloc
#define front_free                       free
#define front_alloc_aligned(size, align) aligned_alloc(align, size)

#endif
#endif
