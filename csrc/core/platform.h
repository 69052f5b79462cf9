/* What the core asks of its surroundings: locks. Everything else it brings itself.
 *
 * Lock order: a slot's lock, then the root's page lock. No other pair is ever held together, and no
 * hook but lock and unlock is called while any is held. A serial root takes none. */
#ifndef BSA_PLATFORM_H
#define BSA_PLATFORM_H

#include "bits.h"
#include "bsa.h"

static inline _Atomic uint32_t *bsa_spin_word(struct bsa_lock *lock) {
    return (_Atomic uint32_t *)(void *)lock->opaque;
}

static inline void bsa_spin_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Acquire on taking and release on leaving: what one holder wrote the next one sees. */
static inline void bsa_spin_lock(struct bsa_lock *lock) {
    _Atomic uint32_t *word = bsa_spin_word(lock);

    while (atomic_exchange_explicit(word, 1, memory_order_acquire) != 0) {
        while (atomic_load_explicit(word, memory_order_relaxed) != 0) {
            bsa_spin_pause();
        }
    }
}

static inline void bsa_spin_unlock(struct bsa_lock *lock) {
    atomic_store_explicit(bsa_spin_word(lock), 0, memory_order_release);
}

static inline void bsa_lock_acquire(const struct bsa_hooks *hooks, struct bsa_lock *lock) {
    if (hooks->lock != NULL) {
        hooks->lock(hooks->context, lock);
    } else {
        bsa_spin_lock(lock);
    }
}

static inline void bsa_lock_release(const struct bsa_hooks *hooks, struct bsa_lock *lock) {
    if (hooks->unlock != NULL) {
        hooks->unlock(hooks->context, lock);
    } else {
        bsa_spin_unlock(lock);
    }
}

#endif
