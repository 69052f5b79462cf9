/* Reads a raw recording: a header that limits what is believed, then events in their order.
 *
 * The bytes may be anything, so each number is copied out before it is looked at, and the length of
 * the file decides how many events there are, not the header. */
#include "trace_read.h"

#include <inttypes.h>
#include <string.h>

#include "record_format.h"

#define EVENT_BYTES sizeof(struct bsa_record_event)

static bool header_is_known(const struct bsa_record_header *h, struct bsa_trace_error *error) {
    if (memcmp(h->magic, BSA_RECORD_MAGIC, sizeof h->magic) != 0) {
        return bsa_trace_fail(error,
                              "offset 0: expected a recording, which begins with BSA\\x1arec");
    }
    if (h->byte_order != BSA_RECORD_BYTE_ORDER) {
        return bsa_trace_fail(error, "offset %zu: recorded on a machine of another byte order",
                              offsetof(struct bsa_record_header, byte_order));
    }
    if (h->version != BSA_RECORD_VERSION) {
        return bsa_trace_fail(error, "offset %zu: recording of version %" PRIu32 ", expected %u",
                              offsetof(struct bsa_record_header, version), h->version,
                              BSA_RECORD_VERSION);
    }
    return true;
}

static bool header_fits_file(const struct bsa_record_header *h, size_t length,
                             struct bsa_trace_error *error) {
    if (h->backed < BSA_RECORD_HEADER_BYTES) {
        return bsa_trace_fail(error, "offset %zu: expected a length of at least %u, found %" PRIu64,
                              offsetof(struct bsa_record_header, backed), BSA_RECORD_HEADER_BYTES,
                              h->backed);
    }
    if (length < h->backed) {
        return bsa_trace_fail(error, "offset %zu: truncated: expected %" PRIu64 " bytes", length,
                              h->backed);
    }
    return true;
}

static bool read_header(const unsigned char *bytes, size_t length, struct bsa_record_header *h,
                        struct bsa_trace_error *error) {
    if (length < sizeof *h) {
        return bsa_trace_fail(error, "offset %zu: truncated inside the header", length);
    }
    memcpy(h, bytes, sizeof *h);
    return header_is_known(h, error) && header_fits_file(h, length, error);
}

/* The trace has 32 bits for an alignment. Larger ones lie beyond what a heap could honour. */
static uint32_t align_of(unsigned code) {
    return code == 0 ? 0 : (uint32_t)1 << (code > 32 ? 31 : code - 1);
}

static const enum bsa_trace_input input_of_kind[] = {
    [BSA_RECORD_MALLOC] = BSA_INPUT_ALLOC,
    [BSA_RECORD_CALLOC] = BSA_INPUT_ZALLOC,
    [BSA_RECORD_FREE] = BSA_INPUT_FREE,
    [BSA_RECORD_REALLOC_BEGIN] = BSA_INPUT_REALLOC_BEGIN,
    [BSA_RECORD_REALLOC_END] = BSA_INPUT_REALLOC_END,
};

static bool read_event(const unsigned char *at, uint64_t offset, struct bsa_trace_event *event,
                       struct bsa_trace_error *error) {
    struct bsa_record_event raw;
    unsigned kind;

    memcpy(&raw, at, sizeof raw);
    kind = bsa_record_tag_kind(raw.tag);
    if (kind == BSA_RECORD_NONE || kind > BSA_RECORD_REALLOC_END) {
        return bsa_trace_fail(error, "offset %" PRIu64 ": unknown kind of event, %u", offset, kind);
    }
    if (raw.address == 0 && kind != BSA_RECORD_REALLOC_END) {
        return bsa_trace_fail(error, "offset %" PRIu64 ": an event at address 0", offset);
    }
    *event = (struct bsa_trace_event){
        .kind = input_of_kind[kind],
        .address = raw.address,
        .old = raw.address,
        .size = raw.size,
        .align = align_of(bsa_record_tag_align_code(raw.tag)),
        .thread = bsa_record_tag_thread(raw.tag),
    };
    return true;
}

static bool is_torn(const unsigned char *at) {
    uint64_t tag;

    memcpy(&tag, at + offsetof(struct bsa_record_event, tag), sizeof tag);
    return tag == 0;
}

static bool read_events(const unsigned char *bytes, uint64_t count, struct bsa_trace_builder *b,
                        struct bsa_recording_facts *facts, struct bsa_trace_error *error) {
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = BSA_RECORD_HEADER_BYTES + i * EVENT_BYTES;
        struct bsa_trace_event event;

        if (is_torn(bytes + offset)) {
            facts->torn++;
        } else if (!read_event(bytes + offset, offset, &event, error) ||
                   !bsa_trace_build_add(b, &event)) {
            return false;
        }
    }
    return true;
}

bool bsa_trace_read_recording(const void *bytes, size_t length, struct bsa_trace_builder *b,
                              struct bsa_recording_facts *facts, struct bsa_trace_error *error) {
    struct bsa_record_header h = {0};
    uint64_t stored;

    error->text[0] = 0;
    if (!read_header(bytes, length, &h, error)) {
        return false;
    }
    stored = (h.backed - BSA_RECORD_HEADER_BYTES) / EVENT_BYTES;
    if (stored > h.claimed) {
        stored = h.claimed;
    }
    *facts = (struct bsa_recording_facts){h.pid, h.cut != 0, h.claimed - stored};
    return read_events(bytes, stored, b, facts, error);
}
