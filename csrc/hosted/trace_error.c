/* The one place where the sentences about damaged traces are put together. */
#include "trace_error.h"

#include <stdarg.h>
#include <stdio.h>

bool bsa_trace_fail(struct bsa_trace_error *error, const char *format, ...) {
    va_list args;

    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return false;
}
