"""A heap of 64 GiB on a machine that has no 64 GiB.

Memory that bsa maps itself is not reserved: only pages that are touched cost anything. Nor does the heap's own
metadata: it is written where it is needed, so that even this heap is ready at once.

    python3 examples/huge.py
"""

import resource
import time

import bsa


def resident():
    """KiB of physical memory that this process has used at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main():
    before, start = resident(), time.perf_counter()
    try:
        heap = bsa.Allocator(64 << 30)
    except bsa.OutOfMemoryError as error:
        print(f"this system does not let us map that much: {error}")
        return
    took = time.perf_counter() - start
    print(f"{heap!r}")
    print(f"ready after {took * 1e6:.0f} us, for {resident() - before} KiB of memory")

    with heap:
        block = heap.alloc_pages(1 << 20)  # 4 GiB in one piece
        block[0], block[-1] = 1, 2
        small = [heap.malloc(64) for _ in range(1000)]
        heap.check()
        print(
            f"{block.size >> 30} GiB and {len(small)} small objects later: {resident() - before} KiB"
        )
        print(f"largest free block: {heap.largest_free >> 30} GiB")


if __name__ == "__main__":
    main()
