"""Placement by first fit, best fit and TLSF, as plainly as can be: a list of all pieces, searched.

Written from the description in csrc/hosted/placement.c, independently of how it is done there.
"""

from bsa.trace import TraceOp

GRANULE, LEAST = 16, 32


def place(trace, policy, header):
    """The highest address that the trace's blocks reach, heap starting at 0."""
    model = Model(CHOICES[policy], header)
    for event in trace:
        model.run(event)
    return model.peak


class Model:
    """`pieces`: [start, size, id or None for a hole], in address order, without neighbouring holes
    nor a hole at the end."""

    def __init__(self, choose, header):
        self.choose, self.header = choose, header
        self.pieces, self.peak = [], 0
        self.age = 0  # TLSF takes the hole made last

    def run(self, event):
        if event.op == TraceOp.FREE:
            self.free(event.id)
        elif event.op == TraceOp.REALLOC:
            self.resize(event.id, self.needed(event.size), event.align)
        else:
            self.place(event.id, self.needed(event.size), event.align)
        self.peak = max(self.peak, self.top)

    @property
    def top(self):
        return sum(self.pieces[-1][:2]) if self.pieces else 0

    def needed(self, size):
        return max(LEAST, -(-(size + self.header) // GRANULE) * GRANULE)

    def place(self, block, size, align):
        asked = size if align <= GRANULE else size + align + LEAST
        hole = self.choose([p for p in self.pieces if p[2] is None], asked)
        start, room = (hole[0], hole[1]) if hole else (self.top, None)
        at = start
        while align > GRANULE and (at % align or 0 < at - start < LEAST):
            at += GRANULE
        if room is None:
            room = at - start + size
        parts = [
            [start, at - start, None],
            [at, size, block],
            [at + size, start + room - at - size, None],
        ]
        if parts[2][1] < LEAST:
            parts[1][1] += parts[2][1]
            parts[2][1] = 0
        self.replace(hole, parts)

    def replace(self, old, parts):
        """Puts the parts that are not empty where the piece `old` is, or at the end."""
        at = self.pieces.index(old) if old else len(self.pieces)
        self.pieces[at : at + bool(old)] = [self.made(part) for part in parts if part[1]]
        self.tidy()

    def made(self, part):
        self.age += 1
        return [*part[:3], self.age]

    def tidy(self):
        """Merges neighbouring holes; the last piece is no hole."""
        tidied = []
        for piece in self.pieces:
            if tidied and tidied[-1][2] is None and piece[2] is None:
                tidied[-1] = self.made([tidied[-1][0], tidied[-1][1] + piece[1], None])
            else:
                tidied.append(piece)
        if tidied and tidied[-1][2] is None:
            tidied.pop()
        self.pieces = tidied

    def find(self, block):
        return next(piece for piece in self.pieces if piece[2] == block)

    def free(self, block):
        piece = self.find(block)
        self.replace(piece, [[piece[0], piece[1], None]])

    def resize(self, block, size, align):
        piece = self.find(block)
        at = self.pieces.index(piece)
        after = self.pieces[at + 1] if at + 1 < len(self.pieces) else None
        if size > piece[1] and after is None:
            piece[1] = size
        elif size > piece[1] and after[2] is None and piece[1] + after[1] >= size:
            del self.pieces[at + 1]
            piece[1] += after[1]
        if size > piece[1]:
            piece[2] = "moving"
            self.place(block, size, align)
            self.free("moving")
        elif piece[1] - size >= LEAST:
            self.replace(piece, [[piece[0], size, block], [piece[0] + size, piece[1] - size, None]])


# ---- Which hole ----


def first_fit(holes, size):
    return next((hole for hole in holes if hole[1] >= size), None)


def best_fit(holes, size):
    return min(
        (hole for hole in holes if hole[1] >= size), key=lambda h: (h[1], h[0]), default=None
    )


def tlsf(holes, size):
    """Lists are a 32nd of a doubling wide, below 512 bytes 16 bytes; a request takes from the first
    list that has only holes that are large enough, and from it the hole made last."""
    lists = {}
    for hole in holes:
        lists.setdefault(least_of_list(hole[1]), []).append(hole)
    fitting = [least for least in lists if least >= size]
    return max(lists[min(fitting)], key=lambda hole: hole[3]) if fitting else None


def least_of_list(size):
    """The smallest size in the list that `size` belongs to."""
    width = max(GRANULE, 1 << size.bit_length() - 1 >> 5)
    return size // width * width


CHOICES = {"first fit": first_fit, "best fit": best_fit, "tlsf": tlsf}
