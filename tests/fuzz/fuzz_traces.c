/* Fuzz target: the readers of traces, given bytes that may be anything.
 *
 * Bytes are refused with a sentence, or become a trace that is a possible history, of which any
 * slice is one, too, and which replays on a heap that stays sound. The first byte says what the
 * others are: a raw recording, a text, or columns that nobody has checked. */
#include "check.h"

#include "input.h"
#include "record_format.h"
#include "replay.h"
#include "trace_check.h"
#include "trace_read.h"

enum { MOST_EVENTS = 1024, FEW_IDS = 1024 };

/* --- what a trace must stand -------------------------------------------------------------------
 */

/* `valid`: then only memory can be missing. Else what is bad is skipped. */
static void replay_on_a_heap(const struct bsa_events *trace, uint64_t ids, bool valid) {
    struct heap heap = serial_heap_of(256 * KIB, 2);
    struct bsa_replay_entry *table = calloc(ids + 1, sizeof *table);
    struct bsa_replay replay;
    struct bsa_sample sample;
    bsa_replay_status status;

    EXPECT(table != NULL);
    bsa_replay_init(&replay, heap.root, trace, table);
    replay.skips_bad = !valid;
    status = bsa_replay_run(&replay, trace->length);
    EXPECT(status == BSA_REPLAY_OK || (valid && status == BSA_REPLAY_NO_MEMORY));
    EXPECT(status != BSA_REPLAY_OK || replay.next == trace->length);
    EXPECT_EQUAL(replay.live, bsa_live_count(heap.root));
    bsa_replay_sample(&replay, &sample);
    EXPECT_EQUAL(replay.requested, sample.requested);
    free(table);
    heap_close(&heap);
}

static void slice(const struct bsa_events *trace, size_t start, size_t stop) {
    struct bsa_trace_builder part = {0};
    struct bsa_trace_summary summary;
    struct bsa_trace_error error;
    struct bsa_events events;

    EXPECT(bsa_trace_build_slice(&part, trace, start, stop));
    events = bsa_trace_build_columns(&part);
    EXPECT(bsa_trace_check(&events, &summary, &error));
    bsa_trace_build_clear(&part);
}

static uint32_t largest_id(const struct bsa_events *trace) {
    uint32_t largest = 0;

    for (size_t i = 0; i < trace->length; i++) {
        largest = trace->id[i] > largest ? trace->id[i] : largest;
    }
    return largest;
}

/* A trace is valid, or told wrong in a sentence. `read`: it comes from a reader, whose traces can
 * be wrong only in claiming more bytes than there are. */
static void try_trace(const struct bsa_events *trace, bool read, struct input *input) {
    struct bsa_trace_summary summary;
    struct bsa_trace_error error;

    if (!bsa_trace_check(trace, &summary, &error)) {
        EXPECT(strncmp(error.text, "event ", 6) == 0);
        EXPECT(!read || strstr(error.text, "2^64 bytes") != NULL);
        if (largest_id(trace) < FEW_IDS) {
            replay_on_a_heap(trace, FEW_IDS, false);
        }
        return;
    }
    EXPECT(summary.peak_event <= trace->length);
    if (trace->length > 0) {
        size_t start = take_number(input, 2) % trace->length;

        slice(trace, start, start + take_number(input, 2) % (trace->length - start + 1));
    }
    replay_on_a_heap(trace, summary.ids, true);
}

/* --- readers -----------------------------------------------------------------------------------
 */

static void finish(struct bsa_trace_builder *b, bool done, const struct bsa_trace_error *error,
                   struct input *input) {
    struct bsa_events trace = bsa_trace_build_columns(b);

    if (done) {
        try_trace(&trace, true, input);
    } else {
        EXPECT(error->text[0] != 0 && strlen(error->text) < sizeof error->text);
    }
    bsa_trace_build_clear(b);
}

static void read_recording(const uint8_t *bytes, size_t length, struct input *input) {
    struct bsa_trace_builder b = {0};
    struct bsa_recording_facts facts;
    struct bsa_trace_error error;
    bool done = bsa_trace_read_recording(bytes, length, &b, &facts, &error);

    EXPECT(!done || b.length <= 2 * length / sizeof(struct bsa_record_event));
    finish(&b, done, &error, input);
}

/* The header is followed by 64 KiB that mean nothing: the input leaves them out. */
static void read_spread_recording(struct input *input) {
    size_t given = (size_t)(input->end - input->at);
    size_t header = sizeof(struct bsa_record_header), events = given < header ? 0 : given - header;
    uint8_t *bytes = calloc(1, BSA_RECORD_HEADER_BYTES + events);

    EXPECT(bytes != NULL);
    memcpy(bytes, input->at, given - events);
    memcpy(bytes + BSA_RECORD_HEADER_BYTES, input->at + given - events, events);
    read_recording(bytes, BSA_RECORD_HEADER_BYTES + events, input);
    free(bytes);
}

static void read_text(struct input *input) {
    size_t length = (size_t)(input->end - input->at);
    struct bsa_trace_builder b = {0};
    struct bsa_trace_error error;
    uint64_t skipped = 0;
    bool done = bsa_trace_read_replay_text((const char *)input->at, length, &b, &skipped, &error);

    EXPECT(!done || skipped <= length);
    finish(&b, done, &error, input);
}

static void check_columns(struct input *input) {
    static uint8_t op[MOST_EVENTS];
    static uint32_t id[MOST_EVENTS], align[MOST_EVENTS], thread[MOST_EVENTS];
    static uint64_t size[MOST_EVENTS];
    struct bsa_events trace = {op, id, size, align, thread, 0};

    while (!input_is_over(input) && trace.length < MOST_EVENTS) {
        unsigned shape = take_byte(input);

        op[trace.length] = (uint8_t)(shape % 8);
        id[trace.length] = (uint32_t)take_number(input, shape / 8 % 8 == 0 ? 4 : 1);
        size[trace.length] = take_number(input, shape / 64 == 0 ? 8 : 2);
        align[trace.length] = shape / 64 == 1 ? (uint32_t)take_number(input, 4) : 0;
        thread[trace.length++] = (uint32_t)take_byte(input);
    }
    try_trace(&trace, false, input);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    struct input input = {bytes, bytes + length};

    switch (take_byte(&input) % 4) {
    case 0:
        read_recording(input.at, (size_t)(input.end - input.at), &input);
        break;
    case 1:
        read_spread_recording(&input);
        break;
    case 2:
        read_text(&input);
        break;
    default:
        check_columns(&input);
    }
    return 0;
}
