/* See claims.h. A list under a mutex: regions are few, and entered rarely. */
#include "claims.h"

#include <pthread.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct bsa_claim *first;

static void after_fork_in_child(void) {
    pthread_mutex_init(&mutex, NULL);
}

static void init_once(void) {
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

void bsa_claim_enter(struct bsa_claim *claim) {
    pthread_once(&once, init_once);
    pthread_mutex_lock(&mutex);
    claim->previous = NULL;
    claim->next = first;
    if (first != NULL) {
        first->previous = claim;
    }
    first = claim;
    pthread_mutex_unlock(&mutex);
}

void bsa_claim_leave(struct bsa_claim *claim) {
    pthread_mutex_lock(&mutex);
    *(claim->previous != NULL ? &claim->previous->next : &first) = claim->next;
    if (claim->next != NULL) {
        claim->next->previous = claim->previous;
    }
    pthread_mutex_unlock(&mutex);
}

static bool overlaps(const struct bsa_claim *claim, uintptr_t start, size_t size) {
    return start < claim->start ? claim->start - start < size : start - claim->start < claim->size;
}

bool bsa_claim_conflict(uintptr_t start, size_t size, struct bsa_claim *conflict) {
    const struct bsa_claim *claim;

    pthread_once(&once, init_once);
    pthread_mutex_lock(&mutex);
    for (claim = first; claim != NULL && !overlaps(claim, start, size);) {
        claim = claim->next;
    }
    if (claim != NULL) {
        *conflict = *claim;
    }
    pthread_mutex_unlock(&mutex);
    return claim != NULL;
}
