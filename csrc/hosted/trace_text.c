/* Reads the text format of Android's memory_replay, one event a line:
 *
 *     186: malloc 0xb6027400 1024            thread, result, size
 *     186: calloc 0xb6027800 4 16            thread, result, count, size
 *     186: realloc 0xb6028000 0xb6027400 64  thread, result, old block, size
 *     186: memalign 0xb6029000 64 256        thread, result, alignment, size
 *     186: free 0xb6029000                   thread, block
 *     186: thread_done 0x0                   thread
 *
 * Newer files end a line with the times in nanoseconds when the call began and ended (a
 * thread_done: when the thread ended), the newest ones that of a free or realloc also with the
 * bytes of the block that were in memory; these are checked and dropped. A last line without its
 * newline is refused: half a number looks like a number. */
#include "trace_read.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#define MAX_ALIGN   ((uint32_t)1 << 31)
#define FOUND_CHARS 24

/* At the end of a line, at most: two times and a number of bytes. */
#define MORE_NUMBERS 3

struct reader {
    const char *at;  /* what is not read yet of the line */
    const char *end; /* its newline */
    uint64_t line;
    uint64_t skipped;
    struct bsa_trace_error *error;
};

/* ---- Pieces of a line ---------------------------------------------------------------------- */

static void quote(const struct reader *r, char found[FOUND_CHARS + 3]) {
    char *to = found;

    *to++ = '\'';
    for (int i = 0; i < FOUND_CHARS && r->at + i < r->end; i++) {
        *to++ = isprint((unsigned char)r->at[i]) ? r->at[i] : '?';
    }
    *to++ = '\'';
    *to = 0;
}

static bool expected(const struct reader *r, const char *what) {
    char found[FOUND_CHARS + 3];

    if (r->at == r->end) {
        return bsa_trace_fail(r->error, "line %" PRIu64 ": expected %s, found the end of the line",
                              r->line, what);
    }
    quote(r, found);
    return bsa_trace_fail(r->error, "line %" PRIu64 ": expected %s, found %s", r->line, what,
                          found);
}

static void skip_blanks(struct reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\r')) {
        r->at++;
    }
}

/* A piece ends at a blank or at the end of the line. */
static bool is_piece_end(const struct reader *r, const char *at) {
    return at == r->end || *at == ' ' || *at == '\t' || *at == '\r';
}

static unsigned digit_value(char c) {
    if (c >= '0' && c <= '9') {
        return (unsigned)(c - '0');
    }
    if (c >= 'a' && c <= 'f') {
        return (unsigned)(c - 'a') + 10;
    }
    return c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10 : 16;
}

/* Digits up to the first that is none; NULL if there is none at all or the number exceeds 64 bits.
 */
static const char *scan_number(const char *at, const char *end, unsigned base, uint64_t *value) {
    const char *first = at;

    *value = 0;
    for (; at < end && digit_value(*at) < base; at++) {
        unsigned digit = digit_value(*at);

        if (*value > (UINT64_MAX - digit) / base) {
            return NULL;
        }
        *value = *value * base + digit;
    }
    return at == first ? NULL : at;
}

static bool read_decimal(struct reader *r, const char *what, uint64_t *value) {
    const char *after;

    skip_blanks(r);
    after = scan_number(r->at, r->end, 10, value);
    if (after == NULL || !is_piece_end(r, after)) {
        return expected(r, what);
    }
    r->at = after;
    return true;
}

static bool read_address(struct reader *r, const char *what, uint64_t *value) {
    const char *digits, *after;

    skip_blanks(r);
    digits = r->at;
    if (r->end - digits > 2 && digits[0] == '0' && (digits[1] | 0x20) == 'x') {
        digits += 2;
    }
    after = scan_number(digits, r->end, 16, value);
    if (after == NULL || !is_piece_end(r, after)) {
        return expected(r, what);
    }
    r->at = after;
    return true;
}

static bool read_thread(struct reader *r, uint64_t *thread) {
    const char *after = scan_number(r->at, r->end, 10, thread);

    if (after == NULL || after == r->end || *after != ':' || *thread > UINT32_MAX) {
        return expected(r, "a thread id and a colon");
    }
    r->at = after + 1;
    return true;
}

/* ---- What follows the result, by operation --------------------------------------------------- */

static bool read_nothing(struct reader *r, struct bsa_trace_event *event) {
    (void)r;
    (void)event;
    return true;
}

static bool read_size(struct reader *r, struct bsa_trace_event *event) {
    return read_decimal(r, "a size", &event->size);
}

static bool read_count_and_size(struct reader *r, struct bsa_trace_event *event) {
    uint64_t count;
    struct reader before = *r;

    if (!read_decimal(r, "a count", &count) || !read_size(r, event)) {
        return false;
    }
    if (count != 0 && event->size > UINT64_MAX / count) {
        skip_blanks(&before);
        return expected(&before, "a count times a size below 2^64");
    }
    event->size *= count;
    return true;
}

static bool read_old_and_size(struct reader *r, struct bsa_trace_event *event) {
    return read_address(r, "the address of the old block", &event->old) && read_size(r, event);
}

/* The C library rounds an alignment that is no power of two up to the next one. */
static uint32_t power_of_two_from(uint64_t align) {
    uint32_t power = 1;

    while (power < align) {
        power *= 2;
    }
    return align == 0 ? 0 : power;
}

static bool read_align_and_size(struct reader *r, struct bsa_trace_event *event) {
    uint64_t align;
    struct reader before = *r;

    if (!read_decimal(r, "an alignment", &align)) {
        return false;
    }
    if (align > MAX_ALIGN) {
        skip_blanks(&before);
        return expected(&before, "an alignment up to 2^31");
    }
    event->align = power_of_two_from(align);
    return read_size(r, event);
}

/* ---- Lines --------------------------------------------------------------------------------- */

struct operation {
    const char *name;
    enum bsa_trace_input kind;
    bool (*read_rest)(struct reader *r, struct bsa_trace_event *event);
    bool is_event;
};

static const struct operation operations[] = {
    {"malloc", BSA_INPUT_ALLOC, read_size, true},
    {"free", BSA_INPUT_FREE, read_nothing, true},
    {"calloc", BSA_INPUT_ZALLOC, read_count_and_size, true},
    {"realloc", BSA_INPUT_REALLOC, read_old_and_size, true},
    {"memalign", BSA_INPUT_ALLOC, read_align_and_size, true},
    {"thread_done", BSA_INPUT_FREE, read_nothing, false},
};

static const struct operation *find_operation(const char *name, size_t length) {
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (strlen(operations[i].name) == length && memcmp(operations[i].name, name, length) == 0) {
            return &operations[i];
        }
    }
    return NULL;
}

static const struct operation *read_operation(struct reader *r) {
    const struct operation *operation;
    const char *after;

    skip_blanks(r);
    for (after = r->at; !is_piece_end(r, after); after++) {
    }
    operation = find_operation(r->at, (size_t)(after - r->at));
    if (operation == NULL) {
        expected(r, "malloc, calloc, realloc, memalign, free or thread_done");
        return NULL;
    }
    r->at = after;
    return operation;
}

static bool read_line_end(struct reader *r) {
    uint64_t dropped;

    for (int i = 0; i < MORE_NUMBERS; i++) {
        skip_blanks(r);
        if (r->at < r->end && !read_decimal(r, "a time or the end of the line", &dropped)) {
            return false;
        }
    }
    skip_blanks(r);
    return r->at == r->end || expected(r, "the end of the line");
}

/* A result of 0 is a request that failed, or a free that did nothing. Only a realloc to 0 bytes,
 * which frees the old block, has that result and does something. */
static bool did_nothing(const struct bsa_trace_event *event) {
    bool freed = event->kind == BSA_INPUT_REALLOC && event->size == 0 && event->old != 0;

    return event->address == 0 && !freed;
}

static bool read_line(struct reader *r, struct bsa_trace_builder *b) {
    struct bsa_trace_event event = {0};
    const struct operation *operation;

    if (!read_thread(r, &event.thread) || (operation = read_operation(r)) == NULL ||
        !read_address(r, "an address", &event.address) || !operation->read_rest(r, &event) ||
        !read_line_end(r)) {
        return false;
    }
    event.kind = operation->kind;
    if (!operation->is_event) {
        return true;
    }
    if (did_nothing(&event)) {
        r->skipped++;
        return true;
    }
    return bsa_trace_build_add(b, &event);
}

static bool read_lines(struct reader *r, const char *text, const char *text_end,
                       struct bsa_trace_builder *b) {
    while (text < text_end) {
        const char *newline = memchr(text, '\n', (size_t)(text_end - text));

        r->line++;
        if (newline == NULL) {
            return bsa_trace_fail(r->error, "line %" PRIu64 ": truncated: it has no newline",
                                  r->line);
        }
        r->at = text;
        r->end = newline;
        if (!read_line(r, b)) {
            return false;
        }
        text = newline + 1;
    }
    return true;
}

bool bsa_trace_read_replay_text(const char *text, size_t length, struct bsa_trace_builder *b,
                                uint64_t *skipped, struct bsa_trace_error *error) {
    struct reader r = {.error = error};
    bool ok;

    error->text[0] = 0;
    ok = read_lines(&r, text, text + length, b);
    *skipped = r.skipped;
    return ok;
}
