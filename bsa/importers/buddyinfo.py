"""Linux's /proc/buddyinfo: free blocks of each order, zone by zone.

Format (Linux, Documentation/filesystems/proc.rst): a line a zone, the counts from order 0 up.

    Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3

That is a picture of one moment, not a history: it makes no Trace, but free counts for whatever
computes with `Allocator.free_blocks()`. Several snapshots may follow one another in a file, as this
makes it:

    while sleep 1; do cat /proc/buddyinfo; done > buddyinfo.txt
"""

import os
import re
from typing import NamedTuple

from bsa.importers.history import expected, lines

# At most 64 orders: what has more is no memory's, and a block of 2^1000000 pages takes long to count.
_LINE = re.compile(rb"Node +(\d+), +zone +(\S+)((?: +\d+){1,64})\s*")


class Zone(NamedTuple):
    """One line: a zone of a node."""

    node: int
    name: str  #: DMA, DMA32, Normal, Movable ...
    free_blocks: tuple[int, ...]  #: free blocks of 2^0, 2^1, ... pages


class BuddyInfo(NamedTuple):
    """One snapshot: all zones of all nodes."""

    zones: tuple[Zone, ...]

    @classmethod
    def load(cls, path: str | os.PathLike[str] = "/proc/buddyinfo") -> "BuddyInfo":
        """The last snapshot in a file. Errors as of load_all."""
        return cls.load_all(path)[-1]

    @classmethod
    def load_all(cls, path: str | os.PathLike[str]) -> list["BuddyInfo"]:
        """All snapshots in a file, in order. TraceError: damaged, with file and line, or empty."""
        from bsa.trace import TraceError  # which imports this package

        with open(path, "rb") as file:
            data = file.read()
        try:
            return [cls(tuple(zones)) for zones in _snapshots(data)]
        except ValueError as error:
            raise TraceError(f"{os.fsdecode(path)}: {error}") from None

    def free_blocks(self, node: int | None = None, zone: str | None = None) -> tuple[int, ...]:
        """Free blocks of each order from 0 up, over all zones, or those of a node or a name.

        LookupError: there is no such zone.
        """
        found = [
            z.free_blocks
            for z in self.zones
            if (node is None or z.node == node) and (zone is None or z.name == zone)
        ]
        if not found:
            raise LookupError(f"no zone with node={node!r}, zone={zone!r}")
        return tuple(map(sum, zip(*found)))

    def free_pages(self, node: int | None = None, zone: str | None = None) -> int:
        """Pages in these blocks. LookupError: there is no such zone."""
        return sum(count << order for order, count in enumerate(self.free_blocks(node, zone)))


def recognises(data):
    return _LINE.match(data) is not None


def _snapshots(data):
    """Lists of zones: a zone that was seen already begins the next one."""
    snapshots, seen = [], set()
    for line, row in enumerate(lines(data), 1):
        zone = _zone(line, row)
        if not snapshots or zone[:2] in seen:
            snapshots.append([])
            seen.clear()
        seen.add(zone[:2])
        snapshots[-1].append(zone)
        if len(zone.free_blocks) != len(snapshots[0][0].free_blocks):
            raise expected(line, f"{len(snapshots[0][0].free_blocks)} counts", row)
    if not snapshots:
        raise expected(1, "a line of /proc/buddyinfo", b"")
    if any(len(zones) != len(snapshots[0]) for zones in snapshots):
        raise ValueError(f"line {line}: expected snapshots of {len(snapshots[0])} zones each")
    return snapshots


def _zone(line, row):
    match = _LINE.fullmatch(row)
    if match is None:
        raise expected(line, "Node, zone and counts of free blocks", row)
    node, name, counts = match.groups()
    return Zone(int(node), name.decode("ascii", "replace"), tuple(map(int, counts.split())))
