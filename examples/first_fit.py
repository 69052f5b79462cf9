"""A small allocator with a bug, and the short program that shows it.

The machine that found the program is in docs/testing.md. Once found, a program needs no Hypothesis:
it can be kept, and run again, like this.
"""

from bsa.testing import AllocatorFault, run_program


class FirstFit:
    """First fit in a bytearray. Addresses are offsets in it."""

    def __init__(self, size=1024):
        self.memory = bytearray(size)
        self.regions = [(0, size)]
        self.holes = [(0, size)]  # (start, bytes), by address
        self.live = {}  # start: bytes

    def read(self, address, size):
        return self.memory[address : address + size]

    def write(self, address, data):
        self.memory[address : address + len(data)] = data

    def malloc(self, size):
        size = max(size, 1)
        for hole, (start, length) in enumerate(self.holes):
            if length >= size:
                rest = [(start + size, length - size)] if length > size else []
                self.holes[hole : hole + 1] = rest
                self.live[start] = size
                return start
        return None

    def free(self, address):
        if address not in self.live:
            raise ValueError(f"nothing lives at {address}")
        self.holes.append((address, self.live.pop(address)))
        self.holes.sort()
        self.merge()

    def merge(self):
        """Make one hole of two that touch."""
        for hole in reversed(range(len(self.holes) - 1)):
            (start, length), (following, more) = self.holes[hole : hole + 2]
            if start + length == following:
                self.holes[hole] = (start, length + more)
                # ... and the second one stays: its bytes are in two holes now.


class Mended(FirstFit):
    """The same, and one hole takes the place of two."""

    def merge(self):
        for hole in reversed(range(len(self.holes) - 1)):
            (start, length), (following, more) = self.holes[hole : hole + 2]
            if start + length == following:
                self.holes[hole : hole + 2] = [(start, length + more)]


# As the machine has printed it.
PROGRAM = {
    "machine": "allocator",
    "setup": {},
    "steps": [
        ("malloc", 0),
        ("free", 0),
        ("malloc", 1024),
        ("malloc", 0),
    ],
}

if __name__ == "__main__":
    try:
        run_program(PROGRAM, make_allocator=FirstFit)
    except AllocatorFault as fault:
        print("FirstFit:", fault)
    run_program(PROGRAM, make_allocator=Mended)
    print("Mended: all is well")
