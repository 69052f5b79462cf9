"""What an allocator must do, in a few lines of Python: slow, obvious, and exact.

BuddyModel predicts which pages the next request gets. Its policy: sections in order of registration;
the smallest order that fits is split, lower half first; last freed first within an order; at the start
the lowest block of an order comes first. ObjectsModel knows only what holds for any policy of slabs:
which objects are live, and how large a request's object is.

Pages are numbered from 0 within each section; `first` is the number of a section's first page in the
address space, which is what alignment and buddies are reckoned by.
"""

MAX_ORDER = 20


def order_of(pages):
    """The order of the smallest block of at least `pages` pages."""
    return (pages - 1).bit_length()


def floor_order(pages):
    return pages.bit_length() - 1


def alignment_of(number):
    """The largest order that `number` is a multiple of."""
    return (number & -number).bit_length() - 1 if number else MAX_ORDER


class SectionModel:
    """The buddy pages of one section."""

    def __init__(self, first, pages):
        self.first, self.pages = first, pages
        self.free = [[] for _ in range(MAX_ORDER + 1)]  # heads; the last is the next to be taken
        self.live = {}  # head: pages
        end = pages
        while end > 0:
            order = min(alignment_of(first + end), floor_order(end), MAX_ORDER)
            end -= 1 << order
            self.free[order].append(end)

    @property
    def free_pages(self):
        return sum(len(heads) << order for order, heads in enumerate(self.free))

    def take(self, count, align_order=0, exact=False):
        """The head of a new block, or None if none fits."""
        order = order_of(count)
        found = self._find(order, align_order)
        if found is None:
            return None
        head, size = found
        self.free[size].remove(head)
        for half in reversed(range(order, size)):
            self.free[half].append(head + (1 << half))
        self.live[head] = 1 << order
        if exact:
            self.shrink(head, count)
        return head

    def _find(self, order, align_order):
        for size in range(max(order, align_order), MAX_ORDER + 1):
            if self.free[size]:
                return self.free[size][-1], size
        for size in range(order, min(align_order, MAX_ORDER + 1)):
            for head in reversed(self.free[size]):
                if (self.first + head) % (1 << align_order) == 0:
                    return head, size
        return None

    def release(self, head):
        """Free the block: the tail beyond its largest power of two piece by piece, then that."""
        self.shrink(head, 1 << floor_order(self.live[head]))
        self._put(head, floor_order(self.live.pop(head)))

    def shrink(self, head, count):
        """Keep `count` pages, freeing from the top down."""
        while self.live[head] > count:
            have = self.live[head]
            order = min(floor_order(have - count), alignment_of(have))
            self.live[head] = have - (1 << order)
            self._put(head + have - (1 << order), order)

    def grow(self, head, count):
        """Extend the block in place; False if what follows it is not free."""
        end = head + self.live[head]
        if alignment_of(self.first + head) < order_of(count) or head + count > self.pages:
            return False
        blocks = {at: order for order, heads in enumerate(self.free) for at in heads}
        absorbed = []
        while end < head + count:
            if end not in blocks:
                return False
            absorbed.append(end)
            end += 1 << blocks[end]
        for at in absorbed:
            self.free[blocks[at]].remove(at)
        self.live[head] = end - head
        self.shrink(head, count)
        return True

    def _put(self, head, order):
        while order < MAX_ORDER:
            buddy = (self.first + head ^ 1 << order) - self.first
            if buddy not in self.free[order]:
                break
            self.free[order].remove(buddy)
            head = min(head, buddy)
            order += 1
        self.free[order].append(head)


class BuddyModel:
    """All sections. A block is (section, head)."""

    def __init__(self, page_size):
        self.page_size = page_size
        self.sections = []

    def add(self, first, pages):
        self.sections.append(SectionModel(first, pages))
        return self.sections[-1]

    def take(self, count, align=0, exact=False):
        """The block for a request of `count` pages aligned to `align` bytes, or None."""
        align_order = floor_order(max(align // self.page_size, 1))
        if order_of(count) > MAX_ORDER:
            return None
        for section in self.sections:
            head = section.take(count, align_order, exact)
            if head is not None:
                return section, head
        return None

    def resize(self, block, nbytes):
        """Where the block is after a resize to `nbytes`, which no object serves; None: it failed.

        It stays if it can; a power of two of pages stays one, an exact block exact.
        """
        section, head = block
        have = section.live[head]
        count = max(-(-nbytes // self.page_size), 1)
        keep = 1 << order_of(count) if have & (have - 1) == 0 else count
        if keep <= have:
            section.shrink(head, keep)
        elif not section.grow(head, keep):
            block = self.take(count)
            if block is not None:
                section.release(head)
        return block

    def free_blocks(self):
        return tuple(
            sum(len(section.free[order]) for section in self.sections)
            for order in range(MAX_ORDER + 1)
        )


class ObjectsModel:
    """Live allocations of any kind, by address, and the sizes that requests are served with."""

    def __init__(self, page_size, size_classes):
        self.page_size, self.size_classes = page_size, size_classes
        self.live = {}  # address: usable bytes

    def is_object(self, size, align=0):
        return size <= self.size_classes[-1] and align <= self.size_classes[-1]

    def granted(self, size, align=0):
        """Bytes that a request is served with: its class's, or a power of two of pages."""
        if not self.is_object(size, align):
            return self.page_size << order_of(-(-max(size, 1) // self.page_size))
        return min(c for c in self.size_classes if c >= size and c % (align or 1) == 0)

    def least_alignment(self, size, align=0):
        return max(
            align, self.page_size if not self.is_object(size, align) else 16 if size >= 16 else 8
        )

    def add(self, address, usable):
        """Records a new allocation, which must overlap none that is live."""
        for other, length in self.live.items():
            assert address + usable <= other or other + length <= address, "two share memory"
        self.live[address] = usable

    def remove(self, address):
        return self.live.pop(address)
