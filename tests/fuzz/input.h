/* The bytes of a fuzzer, taken apart into numbers. All bytes are a valid program, and behind its
 * end come zeros. */
#ifndef INPUT_H
#define INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct input {
    const uint8_t *at, *end;
};

static inline bool input_is_over(const struct input *input) {
    return input->at == input->end;
}

static inline unsigned take_byte(struct input *input) {
    return input_is_over(input) ? 0 : *input->at++;
}

static inline uint64_t take_number(struct input *input, unsigned bytes) {
    uint64_t number = 0;

    for (unsigned i = 0; i < bytes; i++) {
        number |= (uint64_t)take_byte(input) << 8 * i;
    }
    return number;
}

static inline unsigned take_below(struct input *input, unsigned bound) {
    return (bound <= 256 ? take_byte(input) : (unsigned)take_number(input, 2)) % bound;
}

/* What libFuzzer, or replay.c, calls with each input; returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

#endif
