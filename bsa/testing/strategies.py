"""Hypothesis strategies for what allocators are asked for, and made of."""

import array
import ctypes
import mmap
import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias, TypeVar

from hypothesis import strategies as st

import bsa

from . import models

T = TypeVar("T")
Choices: TypeAlias = st.SearchStrategy[T] | Sequence[T]  # what is drawn from
Buffer: TypeAlias = Any  # whatever exports a writable buffer
Region: TypeAlias = tuple[int, int, int | None]  # offset, bytes, physical address

PAGE_SIZES = (256, 512, 1024, 4096, 16384, 65536)
METADATA = 8192  # bytes enough for the metadata of the heaps made here, but not far too many


def choices(of: Choices[T]) -> st.SearchStrategy[T]:
    """A strategy as it is; one of the values of a list."""
    return of if isinstance(of, st.SearchStrategy) else st.sampled_from(of)


def _expect_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value!r}")


def border_sizes(most: int, page_size: int = 4096, region: int = 1 << 16) -> list[int]:
    """Bytes up to `most` at which something changes, and those beside them.

    Powers of two, the sizes of bsa's classes, half a page, a page, `region` bytes, sys.maxsize.
    """
    borders = {0, page_size // 2, page_size, region, sys.maxsize, *models.size_classes(1 << 16)}
    borders |= {1 << order for order in range(most.bit_length())}
    near = {border + more for border in borders for more in (-1, 0, 1)}
    return sorted(size for size in near if 0 <= size <= most)


def sizes(
    most: int = sys.maxsize, *, page_size: int = 4096, region: int = 1 << 16
) -> st.SearchStrategy[int]:
    """Bytes to ask for, 0 to `most`: small ones, up to two pages, and border_sizes().

    In a machine every other one is a size that its program has used of late, or near such a one.
    """
    _expect_at_least(0, most=most)
    fresh = st.one_of(
        st.integers(0, min(64, most)),
        st.integers(0, min(300, most)),
        st.integers(0, min(2 * page_size, most)),
        st.sampled_from(border_sizes(most, page_size, region)),
    )

    def used(runner: Any) -> st.SearchStrategy[int]:
        exerciser: Any = getattr(runner, "exerciser", None)
        known = exerciser.used_sizes() if hasattr(exerciser, "used_sizes") else []
        return _near(known, most) if known else fresh

    in_machine = st.runner(default=None).flatmap(used)
    return st.booleans().flatmap(lambda again: in_machine if again else fresh)


def _near(known: Iterable[int], most: int) -> st.SearchStrategy[int]:
    """The sizes, the next ones, and those of the next classes of most allocators; up to `most`."""
    more = st.sampled_from([0, 1, -1, 8, -8, 16, -16]) | st.integers(-16, 16)
    sums = st.builds(operator.add, st.sampled_from(sorted(set(known))), more)
    return sums.map(lambda size: min(max(size, 0), most))


def huge_sizes() -> st.SearchStrategy[int]:
    """Bytes that no allocator has, 2^48 to sys.maxsize."""
    return st.sampled_from([1 << order for order in range(48, 63)] + [sys.maxsize])


def alignments(most: int = 1 << 22) -> st.SearchStrategy[int | None]:
    """None, or a power of two up to `most` bytes."""
    _expect_at_least(1, most=most)
    return st.none() | st.sampled_from([1 << order for order in range(most.bit_length())])


def _of_array(size: int) -> Buffer:
    return array.array("B", bytes(size))


def _of_ctypes(size: int) -> Buffer:
    return (ctypes.c_ubyte * size)()


def _private_mapping(size: int) -> Buffer:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _shared_mapping(size: int) -> Buffer:
    return mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)


def _of_numpy(size: int) -> Buffer:
    import numpy

    return numpy.zeros(size, numpy.uint8)


def buffers(
    min_size: int = 1, max_size: int = 1 << 18, *, offsets: bool = True
) -> st.SearchStrategy[Buffer]:
    """Fresh, zero, writable buffers of `min_size` to `max_size` bytes, of every kind there is.

    bytearray, array.array, ctypes array, private and shared mmap, ndarray if NumPy is installed;
    with `offsets`, also memoryviews of a part that starts at any byte of one of them.
    """
    _expect_at_least(max(min_size, 1), max_size=max_size)
    kinds: list[Callable[[int], Buffer]]
    kinds = [bytearray, _of_array, _of_ctypes, _private_mapping, _shared_mapping]
    if find_spec("numpy") is not None:
        kinds.append(_of_numpy)

    def part(kind: Callable[[int], Buffer], size: int, skip: int, after: int) -> Buffer:
        return memoryview(kind(skip + size + after)).cast("B")[skip : skip + size]

    def all_of(kind: Callable[[int], Buffer], size: int) -> Buffer:
        return kind(size)

    lengths, margins = st.integers(max(min_size, 1), max_size), st.integers(0, 70)
    whole = st.builds(all_of, st.sampled_from(kinds), lengths)
    parts = st.builds(part, st.sampled_from(kinds), lengths, margins, margins)
    return whole | parts if offsets else whole


def regions(page_size: int = 4096, max_pages: int = 80) -> st.SearchStrategy[Region]:
    """(offset, bytes, physical) of regions with room for one page at least.

    `offset`: of the first byte, from a multiple of a power of two that is larger than any block.
    Starts and lengths are odd as a rule. `physical`: address of the first byte, often around 4 GiB,
    or None: as virtual.
    """

    _expect_at_least(1, page_size=page_size, max_pages=max_pages)

    def region(offset: int, pages: int, more: int, below: int | None) -> Region:
        size = METADATA + page_size * (pages + 2) + more
        if below is None:
            return offset, size, None
        # 4 GiB after an even number of pages: amid a page as a rule; after an odd one: at a border.
        pages_below = -(-METADATA // page_size) + below
        return offset, size, (1 << 32) - pages_below * page_size + below % 2 * (offset % page_size)

    return st.builds(
        region,
        st.integers(0, 70000),
        st.integers(1, max_pages),
        st.integers(0, page_size - 1),
        st.none() | st.integers(0, max_pages),
    )


def configurations(
    page_sizes: Choices[int] = PAGE_SIZES,
    *,
    max_cpus: int = 3,
    max_sections: int = 2,
    max_pages: int = 80,
) -> st.SearchStrategy[dict[str, Any]]:
    """Setups of programs: page_size and cpus for bsa.Allocator, and one or several regions.

    page_sizes: a strategy, or a list to choose from.
    """
    _expect_at_least(1, max_cpus=max_cpus, max_sections=max_sections, max_pages=max_pages)

    def setups(page_size: int) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries(
            {
                "page_size": st.just(page_size),
                "cpus": st.integers(1, max_cpus),
                "regions": st.lists(
                    regions(page_size, max_pages), min_size=1, max_size=max_sections
                ),
            }
        )

    return choices(page_sizes).flatmap(setups)


@st.composite
def traces(
    draw: st.DrawFn, max_events: int = 100, *, max_size: int = 1 << 16, max_threads: int = 3
) -> bsa.Trace:
    """bsa.Trace objects: histories that are possible, ids used again after a free."""
    op_of = bsa.TraceOp
    steps = st.tuples(
        st.sampled_from(sorted(op_of)),
        st.integers(0, max_events),  # which of the live blocks
        sizes(max_size),
        alignments(1 << 12),
        st.integers(0, max_threads - 1),
    )
    events: list[tuple[int, int, int, int, int]] = []
    live: list[int] = []
    free: list[int] = []
    for op, pick, size, align, thread in draw(st.lists(steps, max_size=max_events)):
        if not live or op in (op_of.ALLOC, op_of.ZALLOC):
            op = op if live else op_of.ALLOC
            live.append(free.pop() if free else len(live))
            which = live[-1]
        elif op == op_of.REALLOC:
            which = live[pick % len(live)]
        else:
            which = live.pop(pick % len(live))
            free.append(which)
            size = 0
        events.append((op, which, size, align or 0 if op == op_of.ALLOC else 0, thread))
    trace: bsa.Trace = bsa.Trace.from_events(events)
    return trace
