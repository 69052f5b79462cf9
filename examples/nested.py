"""A heap inside a Block of another heap: everything in it goes away at once.

Good for a request, a frame, a level: allocate as you like, then free the whole by closing the inner heap. The
outer heap knows that its Block is in use meanwhile, and will not give it up.

    python3 examples/nested.py
"""

import bsa


def main():
    with bsa.Allocator(1 << 20) as outer:
        for request in range(3):
            arena = outer.alloc_pages(64)
            with bsa.Allocator(arena, page_size=1024) as inner:
                addresses = [inner.malloc(size) for size in range(8, 2000, 24)]
                print(f"request {request}: {inner!r}, {len(addresses)} allocations")
                try:
                    arena.free()
                except bsa.InUseError as error:
                    print(f"  the outer heap says: {error}")
            arena.free()
            del arena  # it was exported to the inner heap: its bytes come back when the object goes
        print(f"outer: {outer.free_pages} of {outer.total_pages} pages free")


if __name__ == "__main__":
    main()
