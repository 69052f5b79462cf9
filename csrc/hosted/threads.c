/* See threads.h. Numbers are handed out lowest first from a bitmap; a destructor of a
 * thread-specific value gives them back. Threads beyond the bitmap share number 0. */
#include "threads.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>

enum { NUMBERS = 4096 };

BSA_THREAD_LOCAL struct bsa_thread bsa_this_thread = {BSA_NO_NUMBER, false};
unsigned bsa_fork_count;

/* What the thread goes back to when it is unpinned; 0: it has none yet, else its number plus 1. */
static BSA_THREAD_LOCAL unsigned own_number_plus_1;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static uint64_t taken[NUMBERS / 64];

static void take(unsigned number) {
    taken[number / 64] |= (uint64_t)1 << number % 64;
}

static void give_back(void *value) {
    uintptr_t number = (uintptr_t)value - 1;

    pthread_mutex_lock(&mutex);
    taken[number / 64] &= ~((uint64_t)1 << number % 64);
    pthread_mutex_unlock(&mutex);
    own_number_plus_1 = 0;
    if (!bsa_this_thread.is_pinned) {
        bsa_this_thread.number = BSA_NO_NUMBER;
    }
}

/* The child has one thread, which may have forked while another held the mutex. The numbers of the
 * others are free. */
static void after_fork_in_child(void) {
    pthread_mutex_init(&mutex, NULL);
    memset(taken, 0, sizeof taken);
    if (own_number_plus_1 != 0) {
        take(own_number_plus_1 - 1);
    }
    bsa_fork_count++;
}

static void init_once(void) {
    pthread_key_create(&key, give_back);
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

void bsa_threads_init(void) {
    pthread_once(&once, init_once);
}

/* The lowest number that no thread has; NUMBERS if all are taken. */
static unsigned lowest_untaken(void) {
    for (unsigned word = 0; word < NUMBERS / 64; word++) {
        if (taken[word] != UINT64_MAX) {
            return word * 64 + (unsigned)__builtin_ctzll(~taken[word]);
        }
    }
    return NUMBERS;
}

static unsigned own_number(void) {
    unsigned number;

    if (own_number_plus_1 != 0) {
        return own_number_plus_1 - 1;
    }
    bsa_threads_init();
    pthread_mutex_lock(&mutex);
    number = lowest_untaken();
    if (number < NUMBERS) {
        take(number);
    }
    pthread_mutex_unlock(&mutex);
    if (number == NUMBERS) {
        return 0;
    }
    pthread_setspecific(key, (void *)((uintptr_t)number + 1));
    own_number_plus_1 = number + 1;
    return number;
}

void bsa_thread_take_number(void) {
    bsa_this_thread = (struct bsa_thread){own_number(), false};
}

void bsa_thread_pin(unsigned number) {
    bsa_this_thread = (struct bsa_thread){number, true};
}

void bsa_thread_unpin(void) {
    bsa_this_thread = (struct bsa_thread){BSA_NO_NUMBER, false};
}
