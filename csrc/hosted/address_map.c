/* Open addressing with linear probing; at most half of the places are used.
 *
 * Removal shifts the entries behind the gap back (Knuth, TAOCP vol. 3, 6.4, algorithm R), so there
 * are no tombstones: a trace adds and removes millions of addresses, and lookups must not slow down
 * with its age. Invariant: between the home of a key and its place, no place is empty. */
#include "address_map.h"

#include <stdlib.h>

#define FIRST_PLACES 1024u

/* Fibonacci hashing: addresses are multiples of 16, whose low bits say nothing; the high bits of
 * the product depend on all of them. */
static size_t home_of(const struct bsa_address_map *map, uint64_t key) {
    return (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (map->places - 1);
}

static size_t place_after(const struct bsa_address_map *map, size_t place) {
    return (place + 1) & (map->places - 1);
}

/* The place of the key, or the empty one where it would go. */
static size_t place_of(const struct bsa_address_map *map, uint64_t key) {
    size_t place = home_of(map, key);

    while (map->entries[place].key != 0 && map->entries[place].key != key) {
        place = place_after(map, place);
    }
    return place;
}

static bool grow(struct bsa_address_map *map) {
    struct bsa_address_map larger = {.places = map->places ? map->places * 2 : FIRST_PLACES};

    larger.entries = calloc(larger.places, sizeof *larger.entries);
    if (larger.entries == NULL) {
        return false;
    }
    larger.used = map->used;
    for (size_t i = 0; i < map->places; i++) {
        if (map->entries[i].key != 0) {
            larger.entries[place_of(&larger, map->entries[i].key)] = map->entries[i];
        }
    }
    free(map->entries);
    *map = larger;
    return true;
}

bool bsa_address_map_add(struct bsa_address_map *map, uint64_t key, uint32_t value) {
    if (map->used >= map->places / 2 && !grow(map)) {
        return false;
    }
    map->entries[place_of(map, key)] = (struct bsa_address_map_entry){key, value};
    map->used++;
    return true;
}

const uint32_t *bsa_address_map_find(const struct bsa_address_map *map, uint64_t key) {
    const struct bsa_address_map_entry *entry;

    if (map->used == 0 || key == 0) {
        return NULL;
    }
    entry = &map->entries[place_of(map, key)];
    return entry->key == key ? &entry->value : NULL;
}

/* True if the entry at `place` may fill the `gap` before it: its home does not lie between them. */
static bool may_move(const struct bsa_address_map *map, size_t gap, size_t place) {
    size_t mask = map->places - 1;
    size_t from_home = (place - home_of(map, map->entries[place].key)) & mask;

    return from_home >= ((place - gap) & mask);
}

static void close_gap(struct bsa_address_map *map, size_t gap) {
    for (size_t place = place_after(map, gap); map->entries[place].key != 0;
         place = place_after(map, place)) {
        if (may_move(map, gap, place)) {
            map->entries[gap] = map->entries[place];
            gap = place;
        }
    }
    map->entries[gap].key = 0;
}

bool bsa_address_map_take(struct bsa_address_map *map, uint64_t key, uint32_t *value) {
    const uint32_t *found = bsa_address_map_find(map, key);

    if (found == NULL) {
        return false;
    }
    *value = *found;
    close_gap(map, place_of(map, key));
    map->used--;
    return true;
}

void bsa_address_map_clear(struct bsa_address_map *map) {
    free(map->entries);
    *map = (struct bsa_address_map){0};
}
