/* The events of a trace, as columns. */
#ifndef BSA_EVENTS_H
#define BSA_EVENTS_H

#include <stddef.h>
#include <stdint.h>

enum bsa_event_op {
    BSA_EVENT_ALLOC = 1,
    BSA_EVENT_ZALLOC,
    BSA_EVENT_REALLOC, /* same id, new size */
    BSA_EVENT_FREE,
};

/* A trace, or a part of one; owned by somebody else. `id` names an allocation while it is alive;
 * numbers are dense and used again. */
struct bsa_events {
    const uint8_t *op;
    const uint32_t *id;
    const uint64_t *size;
    const uint32_t *align; /* 0: none asked for */
    const uint32_t *thread;
    size_t length;
};

#endif
