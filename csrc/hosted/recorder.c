/* The malloc recorder: an LD_PRELOAD library that writes down every allocation of one process.
 *
 * Each interposed function calls the next definition in search order, found by dlsym(RTLD_NEXT),
 * and not glibc's __libc_malloc: a program linked against jemalloc keeps jemalloc, whose other
 * entry points (mallocx, malloc_usable_size) would not understand glibc's blocks.
 *
 * Events go into the file named by BSA_RECORD_FILE (an absolute path that does not exist yet)
 * through shared mappings, so the kernel has them however the process ends, SIGKILL included.
 * Layout: record_format.h.
 *
 * Order. A thread claims the place of an event with one fetch_add. "free" is claimed before the
 * block is given back, "malloc" after it was obtained: whoever is handed a block that another
 * thread freed comes later in the file. Relaxed order is enough for the claim, since the
 * allocator's own synchronisation puts the two claims in order and they change the same word.
 *
 * Locks. None, so a signal handler or a fork at any moment cannot deadlock. Two threads that need
 * the same new window both map it; one wins, the other unmaps.
 *
 * Processes. One is recorded: the first that creates the file. A forked child stops recording,
 * because what says "on" lies in a page that the kernel clears on fork (MADV_WIPEONFORK,
 * Linux 4.14). A program that a child executes finds a file with another pid and leaves it alone.
 * When the recorded process itself executes another program (env, sh -c 'exec ...'), recording
 * starts anew with that one. A vfork child shares the memory of its parent, so its events are the
 * parent's.
 *
 * Trouble. If the file cannot grow (disk full, limits, chroot), recording stops, the header says
 * so, and the program goes on. Storage is allocated before a window is mapped: running into a full
 * disk through a mapping would be a SIGBUS. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "record_format.h"

#define EXPORT      __attribute__((visibility("default")))
#define LIKELY(x)   __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* ---- The functions that do the work --------------------------------------------------------- */

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*memalign)(size_t, size_t);
    void *(*valloc)(size_t);
    void *(*pvalloc)(size_t);
    void (*free)(void *);
} next;

static bool next_is_known;

/* dlsym may allocate while we ask it for malloc. Such blocks come from here and stay: a few hundred
 * bytes, once. Each is preceded by its size, for realloc. */
#define EARLY_BYTES 16384u
#define EARLY_ALIGN 16u

static _Alignas(EARLY_ALIGN) unsigned char early_memory[EARLY_BYTES];
static size_t early_used;

static void *early_alloc(size_t size) {
    size_t rounded;
    unsigned char *block;

    if (size > EARLY_BYTES) {
        return NULL;
    }
    rounded = (size + EARLY_ALIGN - 1) / EARLY_ALIGN * EARLY_ALIGN + EARLY_ALIGN;
    if (rounded > EARLY_BYTES - early_used) {
        return NULL;
    }
    block = early_memory + early_used + EARLY_ALIGN;
    memcpy(block - EARLY_ALIGN, &size, sizeof size);
    early_used += rounded;
    return block;
}

static bool is_early(const void *block) {
    return (uintptr_t)block - (uintptr_t)early_memory < EARLY_BYTES;
}

static size_t early_size(const void *block) {
    size_t size;

    memcpy(&size, (const unsigned char *)block - EARLY_ALIGN, sizeof size);
    return size;
}

/* Stores through memcpy: ISO C has no conversion from an object pointer to a function pointer. */
static void find_next(void *function, const char *name) {
    void *found = dlsym(RTLD_NEXT, name);

    memcpy(function, &found, sizeof found);
}

static void find_all_next(void) {
    find_next(&next.malloc, "malloc");
    find_next(&next.calloc, "calloc");
    find_next(&next.realloc, "realloc");
    find_next(&next.posix_memalign, "posix_memalign");
    find_next(&next.aligned_alloc, "aligned_alloc");
    find_next(&next.memalign, "memalign");
    find_next(&next.valloc, "valloc");
    find_next(&next.pvalloc, "pvalloc");
    find_next(&next.free, "free");
    next_is_known = true;
}

/* False while dlsym, called from here, allocates. No second thread can be here at that time:
 * creating one allocates, and so does the loader before the program starts. */
static bool find_next_once(void) {
    static bool searching;

    if (!searching) {
        searching = true;
        find_all_next();
    }
    return next_is_known;
}

static inline bool next_ready(void) {
    return LIKELY(next_is_known) || find_next_once();
}

/* ---- The recording ------------------------------------------------------------------------- */

/* 65536 windows hold eight thousand million events. */
#define MAX_WINDOWS 65536u

struct window {
    struct bsa_record_event *events; /* NULL until somebody needs it */
    uint32_t written;                /* the writer of the last event unmaps the window */
};

/* Lives in a page that fork clears in the child: there, `on` reads 0. */
struct session {
    uint32_t on;
};

static struct session no_session;
static struct session *session; /* NULL until the recorder has decided whether to record */
static struct bsa_record_header *header;
static struct window windows[MAX_WINDOWS];
static uint32_t threads;
static __thread uint32_t my_thread __attribute__((tls_model("initial-exec")));

static struct {
    char path[PATH_MAX];
    dev_t device;
    ino_t inode;
} file;

static uint32_t thread_number(void) {
    if (UNLIKELY(my_thread == 0)) {
        my_thread = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
    }
    return my_thread;
}

/* Writing beyond the limit on file sizes raises SIGXFSZ, which would kill the program. */
static bool size_is_allowed(uint64_t bytes) {
    struct rlimit limit;

    return getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
           (limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur);
}

/* A signal may interrupt the allocation of storage; a program under a fast timer must not be kept
 * here for ever. */
#define STORAGE_TRIES 64

static bool give_storage(int fd, uint64_t offset, uint64_t bytes) {
    int error = EINTR;

    if (!size_is_allowed(offset + bytes)) {
        return false;
    }
    for (int i = 0; i < STORAGE_TRIES && error == EINTR; i++) {
        error = posix_fallocate(fd, (off_t)offset, (off_t)bytes);
    }
    return error == 0;
}

static void *map_part(int fd, uint64_t offset, uint64_t bytes) {
    void *part;

    if (!give_storage(fd, offset, bytes)) {
        return NULL;
    }
    part = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
    return part == MAP_FAILED ? NULL : part;
}

/* No descriptor is kept: a program that closes all of them, or counts on their numbers, must not
 * meet ours. The path may meanwhile name another file, which is none of our business. */
static int open_again(void) {
    struct stat st;
    int fd = open(file.path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    if (fd >= 0 && (fstat(fd, &st) != 0 || st.st_dev != file.device || st.st_ino != file.inode)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static void note_backed(uint64_t bytes) {
    uint64_t known = __atomic_load_n(&header->backed, __ATOMIC_RELAXED);

    while (known < bytes && !__atomic_compare_exchange_n(&header->backed, &known, bytes, true,
                                                         __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
    }
}

static struct bsa_record_event *map_window_file(uint64_t index) {
    uint64_t offset = BSA_RECORD_HEADER_BYTES + index * BSA_RECORD_WINDOW_BYTES;
    struct bsa_record_event *events;
    int fd = open_again();

    if (fd < 0) {
        return NULL;
    }
    events = map_part(fd, offset, BSA_RECORD_WINDOW_BYTES);
    close(fd);
    if (events != NULL) {
        note_backed(offset + BSA_RECORD_WINDOW_BYTES);
    }
    return events;
}

/* Returns the window's events, or NULL if it cannot be had; errno is unchanged. */
static struct bsa_record_event *add_window(uint64_t index) {
    struct bsa_record_event *mine, *theirs = NULL;
    int saved_errno = errno;

    mine = map_window_file(index);
    if (mine != NULL && !__atomic_compare_exchange_n(&windows[index].events, &theirs, mine, false,
                                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        munmap(mine, BSA_RECORD_WINDOW_BYTES);
        mine = theirs;
    }
    errno = saved_errno;
    return mine;
}

static struct bsa_record_event *window_events(uint64_t index) {
    struct bsa_record_event *events;

    if (index >= MAX_WINDOWS) {
        return NULL;
    }
    events = __atomic_load_n(&windows[index].events, __ATOMIC_ACQUIRE);
    return LIKELY(events != NULL) ? events : add_window(index);
}

/* Until every event of a window is written, somebody still holds a place in it: only then may the
 * mapping go. */
static void finish_event(uint64_t index) {
    struct window *w = &windows[index];

    if (__atomic_add_fetch(&w->written, 1, __ATOMIC_ACQ_REL) == BSA_RECORD_WINDOW_EVENTS) {
        int saved_errno = errno;
        munmap(w->events, BSA_RECORD_WINDOW_BYTES);
        errno = saved_errno;
    }
}

static void cut_recording(struct session *s) {
    __atomic_store_n(&header->cut, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&s->on, 0, __ATOMIC_RELAXED);
}

static void write_event(struct session *s, uint64_t tag, uint64_t address, uint64_t size) {
    uint64_t place = __atomic_fetch_add(&header->claimed, 1, __ATOMIC_RELAXED);
    uint64_t index = place / BSA_RECORD_WINDOW_EVENTS;
    struct bsa_record_event *event, *events = window_events(index);

    if (UNLIKELY(events == NULL)) {
        cut_recording(s);
        return;
    }
    event = &events[place % BSA_RECORD_WINDOW_EVENTS];
    event->address = address;
    event->size = size;
    __atomic_store_n(&event->tag, tag, __ATOMIC_RELEASE);
    finish_event(index);
}

/* ---- Starting ------------------------------------------------------------------------------ */

static bool was_left_by_this_process(int fd) {
    struct bsa_record_header left;

    return pread(fd, &left, sizeof left, 0) == (ssize_t)sizeof left &&
           memcmp(left.magic, BSA_RECORD_MAGIC, sizeof left.magic) == 0 && left.pid == getpid();
}

/* Creating the file is the claim: only one process can. One that exists is ours only if this very
 * process, before it executed the present program, has made it. */
static int claim_file(void) {
    int fd = open(file.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd >= 0) {
        return fd;
    }
    fd = open(file.path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && (!was_left_by_this_process(fd) || ftruncate(fd, 0) != 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static bool remember_file(int fd) {
    struct stat st;

    if (fstat(fd, &st) != 0) {
        return false;
    }
    file.device = st.st_dev;
    file.inode = st.st_ino;
    return true;
}

static struct session *make_session(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *s = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (s == MAP_FAILED || madvise(s, page, MADV_WIPEONFORK) != 0) {
        return &no_session;
    }
    return s;
}

static bool make_header(int fd) {
    header = map_part(fd, 0, BSA_RECORD_HEADER_BYTES);
    if (header == NULL) {
        return false;
    }
    header->version = BSA_RECORD_VERSION;
    header->byte_order = BSA_RECORD_BYTE_ORDER;
    header->pid = getpid();
    header->backed = BSA_RECORD_HEADER_BYTES;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(header->magic, BSA_RECORD_MAGIC, sizeof header->magic);
    return true;
}

static struct session *open_recording(void) {
    struct session *s = make_session();
    int fd = s == &no_session ? -1 : claim_file();

    if (fd < 0) {
        return &no_session;
    }
    if (remember_file(fd) && make_header(fd)) {
        s->on = 1;
    }
    close(fd);
    return s;
}

static bool path_is_given(void) {
    const char *path = getenv("BSA_RECORD_FILE");

    if (path == NULL || path[0] != '/' || strlen(path) >= sizeof file.path) {
        return false;
    }
    strcpy(file.path, path);
    return true;
}

/* Decides, once, whether this process is recorded. Until the C library has its environment nothing
 * is decided: the loader allocates before that. */
static struct session *start(void) {
    static bool started;
    int saved_errno = errno;
    struct session *s;

    if (environ == NULL || __atomic_exchange_n(&started, true, __ATOMIC_ACQ_REL)) {
        return &no_session;
    }
    s = path_is_given() ? open_recording() : &no_session;
    __atomic_store_n(&session, s, __ATOMIC_RELEASE);
    errno = saved_errno;
    return s;
}

/* A program that never allocates is recorded too: as one without events. */
__attribute__((constructor)) static void start_before_main(void) {
    if (session == NULL) {
        start();
    }
}

static inline void record(enum bsa_record_kind kind, unsigned align_code, const void *block,
                          size_t size) {
    struct session *s = __atomic_load_n(&session, __ATOMIC_ACQUIRE);

    if (UNLIKELY(s == NULL)) {
        s = start();
    }
    if (__atomic_load_n(&s->on, __ATOMIC_RELAXED)) {
        write_event(s, bsa_record_tag(kind, align_code, thread_number()), (uintptr_t)block, size);
    }
}

/* ---- The interposed functions -------------------------------------------------------------- */

/* Declared here, not by including malloc.h: its attributes let a compiler assume things about our
 * own definitions, such as that free(malloc(n)) may go. */
EXPORT void *memalign(size_t align, size_t size);
EXPORT void *valloc(size_t size);
EXPORT void *pvalloc(size_t size);

/* The C library rounds an alignment that is no power of two up to the next one. */
static unsigned align_code(size_t align) {
    unsigned shift = 0;

    while (shift < 63 && (uint64_t)1 << shift < align) {
        shift++;
    }
    return shift + 1;
}

static void *recorded(void *block, size_t align, size_t size) {
    if (LIKELY(block != NULL)) {
        record(BSA_RECORD_MALLOC, align == 0 ? 0 : align_code(align), block, size);
    }
    return block;
}

EXPORT void *malloc(size_t size) {
    return next_ready() ? recorded(next.malloc(size), 0, size) : early_alloc(size);
}

EXPORT void *calloc(size_t count, size_t size) {
    void *block;

    if (!next_ready()) {
        return early_alloc(count * size);
    }
    block = next.calloc(count, size);
    if (LIKELY(block != NULL)) {
        record(BSA_RECORD_CALLOC, 0, block, count * size);
    }
    return block;
}

EXPORT void free(void *block) {
    if (block == NULL || is_early(block)) {
        return;
    }
    record(BSA_RECORD_FREE, 0, block, 0);
    next.free(block);
}

/* A block from the time of the search moves to the real allocator the first time it is resized. */
static void *move_early(void *block, size_t size) {
    size_t kept = early_size(block);
    void *moved = malloc(size);

    if (moved != NULL) {
        memcpy(moved, block, kept < size ? kept : size);
    }
    return moved;
}

EXPORT void *realloc(void *block, size_t size) {
    void *result;

    if (block == NULL) {
        return next_ready() ? recorded(next.realloc(NULL, size), 0, size) : early_alloc(size);
    }
    if (is_early(block)) {
        return move_early(block, size);
    }
    record(BSA_RECORD_REALLOC_BEGIN, 0, block, size);
    result = next.realloc(block, size);
    record(BSA_RECORD_REALLOC_END, 0, result, size);
    return result;
}

/* Built on the realloc that the program sees: the C library's own would come back to us and be
 * recorded twice, and in a program that brings its own realloc the blocks are that one's. */
EXPORT void *reallocarray(void *block, size_t count, size_t size) {
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(block, bytes);
}

EXPORT int posix_memalign(void **block, size_t align, size_t size) {
    int error = next_ready() ? next.posix_memalign(block, align, size) : ENOMEM;

    if (LIKELY(error == 0)) {
        recorded(*block, align, size);
    }
    return error;
}

EXPORT void *aligned_alloc(size_t align, size_t size) {
    return next_ready() ? recorded(next.aligned_alloc(align, size), align, size) : NULL;
}

EXPORT void *memalign(size_t align, size_t size) {
    return next_ready() ? recorded(next.memalign(align, size), align, size) : NULL;
}

EXPORT void *valloc(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    return next_ready() ? recorded(next.valloc(size), page, size) : NULL;
}

EXPORT void *pvalloc(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    return next_ready() ? recorded(next.pvalloc(size), page, size) : NULL;
}
