/* The raw recording: what the recorder writes while a program runs and the reader takes apart
 * later.
 *
 * A page-aligned header, then one array of 24-byte events in the order in which they happened.
 * Writer and reader run on the same machine, so numbers are in its own byte order; the header says
 * which.
 *
 * An event counts once its tag is not zero: the tag is stored last. A claimed event whose tag is
 * zero was torn: its thread was stopped between claiming its place and filling it. */
#ifndef BSA_RECORD_FORMAT_H
#define BSA_RECORD_FORMAT_H

#include <stdint.h>

#define BSA_RECORD_MAGIC      "BSA\x1arec\n" /* 8 bytes, without the terminating zero */
#define BSA_RECORD_VERSION    1u
#define BSA_RECORD_BYTE_ORDER 0x01020304u

/* The file grows, and is mapped, a window at a time. Header and window are multiples of 64 KiB, the
 * largest page size in use. */
#define BSA_RECORD_HEADER_BYTES  65536u
#define BSA_RECORD_WINDOW_EVENTS 131072u
#define BSA_RECORD_WINDOW_BYTES                                                                    \
    (BSA_RECORD_WINDOW_EVENTS * (uint64_t)sizeof(struct bsa_record_event))

struct bsa_record_header {
    char magic[8]; /* stored last: without it, the header is unfinished */
    uint32_t version;
    uint32_t byte_order;
    int32_t pid;      /* the one process that is recorded */
    uint32_t cut;     /* 1: the file could not grow any more, later events are missing */
    uint64_t claimed; /* places handed out to events; the last ones may lie beyond the file */
    uint64_t backed;  /* bytes of the file that have storage; a shorter file was truncated */
};

struct bsa_record_event {
    uint64_t address;
    uint64_t size;
    uint64_t tag;
};

/* What happened, and what `address` and `size` mean. A realloc is two events of one thread: the old
 * block leaves before the call, the new one arrives after it, and others may be given the old place
 * in between. */
enum bsa_record_kind {
    BSA_RECORD_NONE = 0,
    BSA_RECORD_MALLOC,        /* result, bytes asked for; aligned allocations too */
    BSA_RECORD_CALLOC,        /* result, bytes asked for */
    BSA_RECORD_FREE,          /* the block, 0 */
    BSA_RECORD_REALLOC_BEGIN, /* the old block, bytes asked for */
    BSA_RECORD_REALLOC_END,   /* result or 0, bytes asked for */
};

/* Tag: bits 0-7 the kind, bits 8-15 the alignment code, bits 32-63 the number of the thread.
 * Alignment code: 0 = none asked for, k + 1 = 2^k bytes. */
static inline uint64_t bsa_record_tag(enum bsa_record_kind kind, unsigned align_code,
                                      uint32_t thread) {
    return (uint64_t)thread << 32 | (uint64_t)(align_code & 0xff) << 8 | (uint64_t)kind;
}

static inline unsigned bsa_record_tag_kind(uint64_t tag) {
    return (unsigned)(tag & 0xff);
}

static inline unsigned bsa_record_tag_align_code(uint64_t tag) {
    return (unsigned)(tag >> 8 & 0xff);
}

static inline uint32_t bsa_record_tag_thread(uint64_t tag) {
    return (uint32_t)(tag >> 32);
}

#endif
