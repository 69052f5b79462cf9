/* See claims.h. A list under a mutex: regions are few, and entered rarely. */
#include "claims.h"

#include <pthread.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct bsa_claim *first;
static uint64_t entered;

static void after_fork_in_child(void) {
    pthread_mutex_init(&mutex, NULL);
}

static void init_once(void) {
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

static bool overlaps(const struct bsa_claim *claim, uintptr_t start, size_t size) {
    return start < claim->start ? claim->start - start < size : start - claim->start < claim->size;
}

/* The latest claim that shares a byte with this one. */
static const struct bsa_claim *latest_overlapping(const struct bsa_claim *claim) {
    const struct bsa_claim *other = first;

    while (other != NULL && !overlaps(other, claim->start, claim->size)) {
        other = other->next;
    }
    return other;
}

static void put_first(struct bsa_claim *claim) {
    claim->serial = ++entered;
    claim->previous = NULL;
    claim->next = first;
    if (first != NULL) {
        first->previous = claim;
    }
    first = claim;
}

bool bsa_claim_enter(struct bsa_claim *claim, struct bsa_claim *conflict,
                     void (*keep)(void *owner)) {
    const struct bsa_claim *other;
    bool enters;

    pthread_once(&once, init_once);
    pthread_mutex_lock(&mutex);
    other = latest_overlapping(claim);
    enters = other == NULL || other->serial == claim->within;
    if (enters) {
        put_first(claim);
    } else {
        *conflict = *other;
        if (other->domain == claim->domain) {
            keep(other->owner);
        }
    }
    pthread_mutex_unlock(&mutex);
    return enters;
}

void bsa_claim_leave(struct bsa_claim *claim) {
    pthread_mutex_lock(&mutex);
    *(claim->previous != NULL ? &claim->previous->next : &first) = claim->next;
    if (claim->next != NULL) {
        claim->next->previous = claim->previous;
    }
    pthread_mutex_unlock(&mutex);
}
