"""Other allocators, in the form that the machines ask for."""

import ctypes
from collections.abc import Callable
from typing import Any

_SIZE, _ADDRESS = ctypes.c_size_t, ctypes.c_void_p


class CAllocator:
    """malloc and free of a shared library, and what else it has of their family.

    library: a path or name as ctypes.CDLL takes it, a loaded ctypes.CDLL, or None: the malloc of
    this process. prefix: comes before each function's name, as "je_" in je_malloc.

    With realloc or malloc_usable_size it has `realloc` or `usable_size`. Its `malloc` takes `align`
    if there is aligned_alloc, and `zero` if there is calloc (a request may have one of them). A
    library's own checks end the process, so there is no testing of misuse. AttributeError: the
    library has no malloc or no free.
    """

    malloc: Callable[..., int | None]
    free: Callable[[int], None]
    realloc: Callable[[int, int], int | None]
    usable_size: Callable[[int], int]

    def __init__(self, library: str | ctypes.CDLL | None = None, prefix: str = "") -> None:
        self._library = library if isinstance(library, ctypes.CDLL) else ctypes.CDLL(library)
        self._prefix = prefix
        self._malloc = self._function("malloc", _ADDRESS, _SIZE)
        self.free = self._function("free", None, _ADDRESS)
        if self._has("realloc"):
            self.realloc = self._function("realloc", _ADDRESS, _ADDRESS, _SIZE)
        if self._has("malloc_usable_size"):
            self.usable_size = self._function("malloc_usable_size", _SIZE, _ADDRESS)
        # What `malloc` takes is seen by its parameters.
        self.malloc = self._plain
        if self._has("aligned_alloc"):
            self._aligned_alloc = self._function("aligned_alloc", _ADDRESS, _SIZE, _SIZE)
            self.malloc = self._aligned
        if self._has("calloc"):
            self._calloc = self._function("calloc", _ADDRESS, _SIZE, _SIZE)
            self.malloc = self._zeroed
            if self._has("aligned_alloc"):
                self.malloc = self._any

    def _has(self, name: str) -> bool:
        return hasattr(self._library, self._prefix + name)

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        # By index: a function object of our own, not the one that others may set types of.
        try:
            function = self._library[self._prefix + name]
        except AttributeError:
            raise AttributeError(f"{self._library!r} has no {self._prefix}{name}()") from None
        function.restype, function.argtypes = result, arguments
        return function

    def _plain(self, size: int) -> int | None:
        address: int | None = self._malloc(size)
        return address

    def _aligned(self, size: int, align: int | None = None) -> int | None:
        if align is None:
            return self._plain(size)
        # C wants a multiple of the alignment, and some libraries no less than a pointer's size.
        align = max(align, ctypes.sizeof(_ADDRESS))
        address: int | None = self._aligned_alloc(align, -(-size // align) * align)
        return address

    def _zeroed(self, size: int, zero: bool = False) -> int | None:
        address: int | None = self._calloc(1, size) if zero else self._malloc(size)
        return address

    def _any(self, size: int, align: int | None = None, zero: bool = False) -> int | None:
        return self._aligned(size, align) if align is not None else self._zeroed(size, zero)
