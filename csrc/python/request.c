/* One request to the core: the ways to ask are one, with the out-of-memory callback around it.
 *
 * A refusal for lack of memory is put before on_oom, and tried again as often as that says so. The
 * callback may run any code, so all is looked at afresh each time. */
#include "request.h"

#include "errors.h"
#include "lock.h"

/* --- the out-of-memory callback ----------------------------------------------------------------
 */

/* on_oom's answer as a bool: 1 or 0; -1 with what it, or its answer, raised. */
static int call_on_oom(AllocatorObject *self, PyObject *callable, PyObject *number) {
    PyObject *arguments[] = {(PyObject *)self, number};
    struct bsa_held *held = bsa_let_go();
    PyObject *answer = PyObject_Vectorcall(callable, arguments, 2, NULL);
    int again = answer == NULL ? -1 : PyObject_IsTrue(answer);

    Py_XDECREF(answer);
    bsa_take_again(held);
    return again;
}

/* Whether on_oom says "try again"; -1 with an exception set. */
static int ask_on_oom(AllocatorObject *self, size_t bytes) {
    PyObject *callable = Py_NewRef(self->on_oom), *number = PyLong_FromSize_t(bytes);
    struct bsa_call *call = number == NULL ? NULL : bsa_call_begin(&self->oom_calls);
    int again = -1;

    if (call != NULL) {
        again = call_on_oom(self, callable, number);
        bsa_call_end(&self->oom_calls, call);
    }
    Py_XDECREF(number);
    Py_DECREF(callable);
    return again;
}

/* --- asking the core ---------------------------------------------------------------------------
 */

static bool is_of_pages(const struct allocation_request *request) {
    return request->kind == REQUEST_PAGES || request->kind == REQUEST_LOW_PAGES;
}

/* Bytes that the request asks for; SIZE_MAX where that is too many to count. */
static size_t bytes_of(const AllocatorObject *self, const struct allocation_request *request) {
    size_t unit = is_of_pages(request) ? bsa_page_size(self->root) : 1, bytes;
    size_t count = request->kind == REQUEST_MANY ? request->count : 1;

    if (__builtin_mul_overflow(request->amount, unit, &bytes) ||
        __builtin_mul_overflow(bytes, count, &bytes)) {
        return SIZE_MAX;
    }
    return bytes;
}

/* Pinned: a translation may run any code. */
static bsa_status attempt_low_pages(AllocatorObject *self, unsigned slot,
                                    const struct allocation_request *request, uintptr_t *address) {
    struct bsa_call *pin = bsa_pin(self);
    bsa_status status;

    if (pin == NULL) {
        return BSA_NO_TRANSLATION; /* MemoryError is set, as if a translation had raised it */
    }
    status = bsa_alloc_pages_lowmem_on(self->root, slot, request->amount, request->align, address);
    bsa_unpin(self, pin);
    return status;
}

static bsa_status attempt(AllocatorObject *self, unsigned slot,
                          const struct allocation_request *request, uintptr_t *address) {
    switch (request->kind) {
    case REQUEST_BYTES:
        return bsa_alloc_on(self->root, slot, request->amount, request->align, request->flags,
                            address);
    case REQUEST_PAGES:
        return bsa_alloc_pages_on(self->root, slot, request->amount, request->align, request->flags,
                                  address);
    case REQUEST_LOW_PAGES:
        return attempt_low_pages(self, slot, request, address);
    case REQUEST_MANY:
        return bsa_alloc_many_on(self->root, slot, request->count, request->amount, request->align,
                                 request->addresses);
    default:
        return bsa_realloc_copy_on(self->root, slot, request->old, request->amount, address);
    }
}

/* Raises what a refusal of the request means. */
static void raise_refusal(AllocatorObject *self, const struct allocation_request *request,
                          bsa_status status) {
    size_t page_size = bsa_page_size(self->root), align = request->align;

    if (PyErr_Occurred()) {
        return; /* a translation's own exception, or no memory to pin the allocator */
    }
    if (status == BSA_NO_MEMORY) {
        bsa_raise_out_of_memory(self, bytes_of(self, request), align, NULL);
    } else if (status != BSA_INVALID_PARAM || request->kind == REQUEST_REALLOC) {
        bsa_raise_address(self, status, request->old);
    } else if (align != 0 && (align & (align - 1)) != 0) {
        PyErr_Format(self->state->invalid_param, "align must be a power of two, is %zu", align);
    } else if (is_of_pages(request) && align != 0 && align < page_size) {
        PyErr_Format(self->state->invalid_param, "align must be at least a page (%zu), is %zu",
                     page_size, align);
    } else {
        PyErr_Format(self->state->invalid_param, "count must be from 1 to %zu pages, is %zu",
                     (size_t)1 << BSA_MAX_ORDER, request->amount);
    }
}

/* Whether the refusal may be put before on_oom: not where no amount of freeing could help. */
static bool may_ask(AllocatorObject *self, const struct allocation_request *request,
                    bsa_status status) {
    size_t largest = bsa_page_size(self->root) << BSA_MAX_ORDER;
    size_t one = is_of_pages(request) ? 0 : request->amount;

    return status == BSA_NO_MEMORY && self->on_oom != NULL && one <= largest &&
           !bsa_any_call_of_mine(&self->oom_calls); /* not from within itself */
}

bool bsa_ask_again(AllocatorObject *self, const struct allocation_request *request,
                   bsa_status status) {
    int again;

    if (!may_ask(self, request, status)) {
        raise_refusal(self, request, status);
        return false;
    }
    again = ask_on_oom(self, bytes_of(self, request));
    if (again == 0 && bsa_check_open(self)) {
        raise_refusal(self, request, status);
    }
    return again > 0;
}

bool bsa_check_not_owned_slow(AllocatorObject *self, uintptr_t address) {
    if (!bsa_extents_ready(&self->extents)) {
        return false;
    }
    if (bsa_extent_at(&self->extents, address) != NULL) {
        PyErr_Format(self->state->invalid_param, "%p is owned by a Block", (void *)address);
        return false;
    }
    return true;
}

/* Whether what is to be reallocated is raw: on_oom may have taken it into a Block since. */
static bool check_still_raw(AllocatorObject *self, const struct allocation_request *request) {
    return request->kind != REQUEST_REALLOC || request->is_of_block ||
           bsa_check_not_owned(self, request->old);
}

unsigned bsa_slot_for_free_slow(const AllocatorObject *self) {
    unsigned number = bsa_thread_number();

    return number < self->slots || bsa_thread_is_pinned() ? number : number % self->slots;
}

/* Whether the calling thread's slot exists; false with InvalidParamError set. */
static bool slot_for_alloc(const AllocatorObject *self, unsigned *slot) {
    *slot = bsa_slot_for_free(self);
    if (*slot < self->slots) {
        return true;
    }
    PyErr_Format(self->state->invalid_param,
                 "this thread is pinned to slot %u, the allocator has %u", *slot, self->slots);
    return false;
}

bool bsa_allocate(AllocatorObject *self, const struct allocation_request *request,
                  uintptr_t *address) {
    bsa_status status;

    do {
        unsigned slot;

        if (!bsa_check_open(self) || !slot_for_alloc(self, &slot) ||
            !check_still_raw(self, request)) {
            return false;
        }
        status = attempt(self, slot, request, address);
    } while (status != BSA_OK && bsa_ask_again(self, request, status));
    return status == BSA_OK;
}
