"""Buddy and slab memory allocation over any writable buffer.

>>> import bsa
>>> heap = bsa.Allocator(bytearray(1 << 20))
>>> block = heap.alloc(100)
>>> block[:5] = b"hello"
>>> block[:5]
b'hello'
"""

import sys as _sys
import typing as _typing
from enum import IntEnum
from importlib import import_module as _import_module

try:
    from ._core import (
        MAX_ORDER,
        AllocError,
        Allocator,
        Block,
        ClosedError,
        CorruptionError,
        InUseError,
        InvalidParamError,
        MemoryOverlapError,
        NotAllocatedError,
        NotFoundError,
        NotInitializedError,
        OutOfMemoryError,
        Section,
        Slab,
        Stats,
        current_cpu,
        set_cpu,
    )
except ModuleNotFoundError as error:
    raise ImportError(
        f"bsa in {__path__[0]} is not built for this Python, "
        f"{_sys.version_info[0]}.{_sys.version_info[1]}: run `make build PYTHON=...` there, "
        "or leave the source folder if bsa is installed"
    ) from error

from . import metrics
from .births import Birth, replay_births
from .compare import Comparison, compare
from .pinning import Pin, Pins, pins
from .sizing import smallest_heap
from .importers.buddyinfo import BuddyInfo
from .timeline import Timeline, replay
from .trace import RecordError, Trace, TraceError, TraceOp

if _typing.TYPE_CHECKING:
    from . import synthetic, testing, views

__version__ = "0.1.0"


class PageState(IntEnum):
    """What a page belongs to: the bytes of Section.page_states()."""

    FREE = 0
    BLOCK = 1
    SLAB = 2
    EMPTY_SLAB = 3


class cpu:
    """Pin the calling thread to slot `number` within a `with` statement; see set_cpu()."""

    def __init__(self, number):
        self.number = number
        self._previous = []

    def __enter__(self):
        self._previous.append(set_cpu(self.number))
        return self

    def __exit__(self, *exception):
        set_cpu(self._previous.pop())


_SUBMODULES = ("synthetic", "testing", "views")  # imported when they are first asked for


if not _typing.TYPE_CHECKING:  # who checks types would take it for a module with any attribute

    def __getattr__(name):
        if name in _SUBMODULES:
            return _import_module(f"{__name__}.{name}")
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}", name=name, obj=_sys.modules[__name__]
        )


def __dir__():
    return sorted({*globals(), *_SUBMODULES})


__all__ = [
    "MAX_ORDER",
    "AllocError",
    "Allocator",
    "Birth",
    "Block",
    "BuddyInfo",
    "ClosedError",
    "Comparison",
    "CorruptionError",
    "InUseError",
    "InvalidParamError",
    "MemoryOverlapError",
    "NotAllocatedError",
    "NotFoundError",
    "NotInitializedError",
    "OutOfMemoryError",
    "PageState",
    "Pin",
    "Pins",
    "RecordError",
    "Section",
    "Slab",
    "Stats",
    "Timeline",
    "Trace",
    "TraceError",
    "TraceOp",
    "compare",
    "cpu",
    "current_cpu",
    "metrics",
    "pins",
    "replay",
    "replay_births",
    "set_cpu",
    "smallest_heap",
    "synthetic",
    "testing",
    "views",
]
