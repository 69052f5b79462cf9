/* The regions that this process's open allocators manage: no byte may be claimed twice. */
#ifndef BSA_CLAIMS_H
#define BSA_CLAIMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One region; lives in its holder's memory. */
struct bsa_claim {
    uintptr_t start;
    size_t size;
    const void *domain; /* whose `owner` may be used: an interpreter */
    void *owner;
    struct bsa_claim *previous, *next;
};

/* Enters the claim, whether it overlaps others or not. */
void bsa_claim_enter(struct bsa_claim *claim);
void bsa_claim_leave(struct bsa_claim *claim);

/* Looks for the latest claim that shares a byte with the region. `*conflict` receives a copy.
 * O(claims). */
bool bsa_claim_conflict(uintptr_t start, size_t size, struct bsa_claim *conflict);

#endif
