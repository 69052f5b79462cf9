/* A hash table from 64-bit keys to 32-bit values: addresses to ids, thread ids to thread numbers.
 */
#ifndef BSA_ADDRESS_MAP_H
#define BSA_ADDRESS_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bsa_address_map_entry {
    uint64_t key; /* 0: this place is empty */
    uint32_t value;
};

/* All zero: an empty table without memory. */
struct bsa_address_map {
    struct bsa_address_map_entry *entries;
    size_t places; /* 0 or a power of two */
    size_t used;
};

/* Adds a key that is not in the table and not 0. False: out of memory, nothing changed. */
bool bsa_address_map_add(struct bsa_address_map *map, uint64_t key, uint32_t value);

/* The value of a key, or NULL; valid until the next change. */
const uint32_t *bsa_address_map_find(const struct bsa_address_map *map, uint64_t key);

/* Removes a key and stores its value. False: there is no such key. */
bool bsa_address_map_take(struct bsa_address_map *map, uint64_t key, uint32_t *value);

void bsa_address_map_clear(struct bsa_address_map *map);

#endif
