/* What is wrong with a trace, as a sentence that names the place. */
#ifndef BSA_TRACE_ERROR_H
#define BSA_TRACE_ERROR_H

#include <stdbool.h>

/* Empty text: memory ran out. */
struct bsa_trace_error {
    char text[200];
};

/* Writes the sentence; always returns false, for `return bsa_trace_fail(...)`. */
__attribute__((format(printf, 2, 3))) bool bsa_trace_fail(struct bsa_trace_error *error,
                                                          const char *format, ...);

#endif
