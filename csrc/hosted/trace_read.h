/* Readers: from the bytes of a file to a trace. */
#ifndef BSA_TRACE_READ_H
#define BSA_TRACE_READ_H

#include "trace_build.h"
#include "trace_error.h"

/* What a raw recording says of itself. */
struct bsa_recording_facts {
    int32_t pid;
    bool cut;      /* the file could not grow: later events are missing */
    uint64_t torn; /* events whose thread was stopped while writing them */
};

/* Reads a raw recording (record_format.h) into an empty builder. The error names a byte offset. */
bool bsa_trace_read_recording(const void *bytes, size_t length, struct bsa_trace_builder *b,
                              struct bsa_recording_facts *facts, struct bsa_trace_error *error);

/* Reads a text of Android's memory_replay into an empty builder and counts the lines that did
 * nothing (requests that failed, frees of NULL), which are left out. The error names a line. */
bool bsa_trace_read_replay_text(const char *text, size_t length, struct bsa_trace_builder *b,
                                uint64_t *skipped, struct bsa_trace_error *error);

#endif
