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
    uint64_t
        within; /* serial of the claim that this one may overlap, and all older ones; 0: none */
    uint64_t serial; /* given on entering, from 1 */
    struct bsa_claim *previous, *next;
};

/* Enters the claim. Not so where it shares a byte with others and the latest of them is not the one
 * that it may overlap: then false, `*conflict` is a copy of that one, and `keep` was called with
 * its owner if it is of the same domain, so that the owner outlives its claim. O(claims). */
bool bsa_claim_enter(struct bsa_claim *claim, struct bsa_claim *conflict,
                     void (*keep)(void *owner));
void bsa_claim_leave(struct bsa_claim *claim);

#endif
