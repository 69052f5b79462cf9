"""Memory of a known place, and reading and writing at addresses as a program in C would."""

import ctypes
import mmap

# Every region lies at its own offset from a multiple of this. It is a power of two no smaller than
# any alignment that machines ask for, so that the same program meets the same alignments each time.
BASE = 1 << 23


def address_of(buffer: mmap.mmap) -> int:
    """Address of the mapping's first byte."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def peek(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


def poke(address: int, data: bytes) -> None:
    ctypes.memmove(address, data, len(data))


class Ground:
    """Memory of which a region is carved: `size` bytes, `offset` bytes after a multiple of BASE.

    Where the region is larger than BASE, the multiple is one of the next power of two.
    """

    def __init__(self, offset: int, size: int) -> None:
        base = max(BASE, 1 << (size - 1).bit_length()) if size > 1 else BASE
        offset %= base
        self.mapping = mmap.mmap(-1, 3 * base)
        skip = -address_of(self.mapping) % base + offset
        self.region = memoryview(self.mapping)[skip : skip + size]

    def give_back(self) -> None:
        """Unmap it. Raises BufferError if anybody still has the region."""
        self.region.release()
        self.mapping.close()
