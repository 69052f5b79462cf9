/* Is this trace a possible history? And what are its totals? */
#ifndef BSA_TRACE_CHECK_H
#define BSA_TRACE_CHECK_H

#include "trace_build.h"
#include "trace_error.h"

/* Ids and thread numbers are below the number of events or below this, whichever is more: arrays
 * with an entry per id then stay in proportion to the trace, whatever a file claims. */
#define BSA_TRACE_FREE_NUMBERS 65536u

struct bsa_trace_summary {
    uint64_t ids;        /* the largest id plus 1, or 0 */
    uint64_t threads;    /* the largest thread number plus 1, or 0 */
    uint64_t peak_event; /* the first event after which most bytes were live, or 0 */
    uint64_t peak_bytes; /* how many: as requested */
};

/* One pass. A trace is valid if every operation is known, every alignment 0 or a power of two,
 * numbers are within the limit above, only dead ids are allocated, only live ones reallocated and
 * freed, and live bytes fit in 64 bits. The error names the first event for which that does not
 * hold. */
bool bsa_trace_check(const struct bsa_events *trace, struct bsa_trace_summary *summary,
                     struct bsa_trace_error *error);

#endif
