/* Alignment, logarithms and bit scans: pure functions. */
#ifndef BSA_BITS_H
#define BSA_BITS_H

#include "config.h"

static inline bool bsa_is_power_of_two(uint64_t value) {
    return value != 0 && (value & (value - 1)) == 0;
}

/* `alignment` is a power of two. The result wraps to 0 where `value` is too close to the top. */
static inline uint64_t bsa_round_up(uint64_t value, uint64_t alignment) {
    return (value + alignment - 1) & ~(alignment - 1);
}

static inline uint64_t bsa_round_down(uint64_t value, uint64_t alignment) {
    return value & ~(alignment - 1);
}

/* `bits` is less than 64. */
static inline uint64_t bsa_rotate_right(uint64_t value, unsigned bits) {
    return value >> bits | value << (-bits & 63);
}

/* Number of the lowest set bit; `word` is not 0. */
static inline unsigned bsa_lowest_bit(uint64_t word) {
    return (unsigned)__builtin_ctzll(word);
}

/* floor(log2(value)); `value` is not 0. */
static inline unsigned bsa_log2_floor(uint64_t value) {
    return 63U - (unsigned)__builtin_clzll(value);
}

/* The least n with 2^n >= value; `value` is not 0. */
static inline unsigned bsa_log2_ceil(uint64_t value) {
    return value == 1 ? 0 : bsa_log2_floor(value - 1) + 1;
}

static inline unsigned bsa_popcount(uint64_t word) {
    word -= (word >> 1) & 0x5555555555555555ULL;
    word = (word & 0x3333333333333333ULL) + ((word >> 2) & 0x3333333333333333ULL);
    word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
    return (unsigned)((word * 0x0101010101010101ULL) >> 56);
}

#endif
