/* Items and slices of a Block: one byte is an int, several are bytes. Converting keys and values
 * may run any code, so whether the Block is live is looked at afterwards. */
#include "arguments.h"
#include "block_methods.h"
#include "lock.h"

static unsigned char *bytes_of(const BlockObject *block) {
    return (unsigned char *)block->extent.address;
}

Py_ssize_t bsa_block_length(BlockObject *block) {
    BSA_LOCK(block->allocator);
    return bsa_block_check_live(block) ? (Py_ssize_t)block->extent.size : -1;
}

/* Converts an index, then looks whether the Block is live: `__index__` may run any code. */
static bool item_place(BlockObject *block, PyObject *index, Py_ssize_t *place) {
    *place = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if ((*place == -1 && PyErr_Occurred()) || !bsa_block_check_live(block)) {
        return false;
    }
    if (*place < 0) {
        *place += (Py_ssize_t)block->extent.size;
    }
    if (*place < 0 || *place >= (Py_ssize_t)block->extent.size) {
        PyErr_SetString(PyExc_IndexError, "Block index out of range");
        return false;
    }
    return true;
}

struct slice {
    Py_ssize_t start, stop, step, length;
};

static bool slice_places(BlockObject *block, PyObject *key, struct slice *slice) {
    if (PySlice_Unpack(key, &slice->start, &slice->stop, &slice->step) < 0 ||
        !bsa_block_check_live(block)) {
        return false;
    }
    slice->length = PySlice_AdjustIndices((Py_ssize_t)block->extent.size, &slice->start,
                                          &slice->stop, slice->step);
    return true;
}

static PyObject *get_slice(BlockObject *block, PyObject *key) {
    struct slice slice;
    PyObject *bytes;
    char *to;

    if (!slice_places(block, key, &slice)) {
        return NULL;
    }
    if (slice.step == 1) {
        return PyBytes_FromStringAndSize((const char *)bytes_of(block) + slice.start, slice.length);
    }
    bytes = PyBytes_FromStringAndSize(NULL, slice.length);
    if (bytes == NULL) {
        return NULL;
    }
    to = PyBytes_AS_STRING(bytes);
    for (Py_ssize_t i = 0; i < slice.length; i++) {
        to[i] = (char)bytes_of(block)[slice.start + i * slice.step];
    }
    return bytes;
}

static bool is_index_key(PyObject *key) {
    if (PyIndex_Check(key) || PySlice_Check(key)) {
        return true;
    }
    PyErr_Format(PyExc_TypeError, "Block indices must be integers or slices, not %.100s",
                 Py_TYPE(key)->tp_name);
    return false;
}

PyObject *bsa_block_subscript(BlockObject *block, PyObject *key) {
    Py_ssize_t place;

    BSA_LOCK(block->allocator);
    if (!is_index_key(key)) {
        return NULL;
    }
    if (PySlice_Check(key)) {
        return get_slice(block, key);
    }
    return item_place(block, key, &place) ? PyLong_FromLong(bytes_of(block)[place]) : NULL;
}

static int set_item(BlockObject *block, PyObject *key, PyObject *value) {
    struct module_state *state = block->allocator->state;
    Py_ssize_t place;
    size_t byte;

    if (!bsa_to_size(state, value, "byte", &byte) || !item_place(block, key, &place)) {
        return -1;
    }
    if (byte > 255) {
        PyErr_Format(state->invalid_param, "byte must be from 0 to 255, is %zu", byte);
        return -1;
    }
    bytes_of(block)[place] = (unsigned char)byte;
    return 0;
}

/* Assigns to a slice with steps. By way of a copy: the bytes may be the Block's own. */
static int scatter(BlockObject *block, const struct slice *slice, const Py_buffer *from) {
    unsigned char *copy = PyMem_Malloc((size_t)from->len + 1);

    if (copy == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(copy, from->buf, (size_t)from->len);
    for (Py_ssize_t i = 0; i < slice->length; i++) {
        bytes_of(block)[slice->start + i * slice->step] = copy[i];
    }
    PyMem_Free(copy);
    return 0;
}

static int set_slice(BlockObject *block, PyObject *key, PyObject *value) {
    struct slice slice;
    Py_buffer buffer;
    int result = -1;

    if (PyObject_GetBuffer(value, &buffer, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    if (slice_places(block, key, &slice)) {
        if (buffer.len != slice.length) {
            PyErr_Format(PyExc_ValueError,
                         "cannot assign %zd bytes to a slice of %zd: a Block keeps its size",
                         buffer.len, slice.length);
        } else if (slice.step == 1) {
            memmove(bytes_of(block) + slice.start, buffer.buf, (size_t)buffer.len);
            result = 0;
        } else {
            result = scatter(block, &slice, &buffer);
        }
    }
    PyBuffer_Release(&buffer);
    return result;
}

int bsa_block_ass_subscript(BlockObject *block, PyObject *key, PyObject *value) {
    BSA_LOCK(block->allocator);
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "bytes of a Block cannot be deleted");
        return -1;
    }
    if (!is_index_key(key)) {
        return -1;
    }
    return PySlice_Check(key) ? set_slice(block, key, value) : set_item(block, key, value);
}
