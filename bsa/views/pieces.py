"""The pieces of a heap as spans: each at its true place, with a colour and a text of its own."""

from bsa.units import counted, format_size
from bsa.views import colours
from bsa.views.strips import Span


def spans(space, objects, births):
    """Spans of a Space in bytes from the region's first; with `objects` those of each object in the
    slabs. Where `births` tell what was asked for, the rounding loss is a span of its own."""
    for extent in space.extents:
        yield from _spans_of(space, extent, objects, births)


def spans_between(space, start, end, births):
    """Those of the bytes from `start` to `end`, down to objects, counted from `start`."""
    for extent in space.extents:
        if extent.start < end and extent.end > start:
            for span in _spans_of(space, extent, True, births):
                first, last = max(span.start, start), min(span.end, end)
                if first < last:
                    yield span._replace(start=first - start, end=last - start)


def slab_text(extent):
    slab, live = extent.slab, counted(extent.live, "object")
    return (
        f"slab of slot {slab.cpu}, {slab.state}: {live} of {slab.size} bytes live, "
        f"room for {slab.capacity}, {format_size(slab.nbytes)}"
    )


def _spans_of(space, extent, objects, births):
    where = f"{extent.start:#x}: "
    if extent.kind == "slab":
        yield from _slab_spans(space, extent, where, objects, births)
    elif extent.kind == "free":
        paint = colours.free_paint(extent.order, space.top_order)
        text = f"{where}free block of order {extent.order}, {format_size(extent.size)}"
        yield Span(extent.start, extent.end, paint, text, True)
    elif extent.kind == "metadata":
        text = f"{where}metadata, {format_size(extent.size)}"
        yield Span(extent.start, extent.end, colours.METADATA, text)
    else:
        name = "page block" if extent.kind == "pages" else f"page block ({extent.kind})"
        birth = births.get(space.base + extent.start)
        yield from _granted(extent.start, extent.size, colours.PAGES, where + name, birth)


def _slab_spans(space, extent, where, objects, births):
    slab = extent.slab
    if extent.is_idle:
        text = f"{where}empty slab for {slab.size}-byte objects, {format_size(slab.nbytes)}"
        yield Span(extent.start, extent.end, colours.EMPTY_SLAB, text)
    elif not objects:
        yield Span(extent.start, extent.end, colours.SLAB, where + slab_text(extent))
    else:
        yield from _object_spans(space, extent, where, births)


def _object_spans(space, extent, where, births):
    """Live objects, and what is free between them as one piece each."""
    slab, position = extent.slab, extent.start
    idle = f"{where}slab for {slab.size}-byte objects: unused here"
    for address in slab.objects():
        start = address - space.base
        if start > position:
            yield Span(position, start, colours.SLACK, idle, True)
        name = f"{start:#x}: object"
        yield from _granted(start, slab.size, colours.OBJECT, name, births.get(address))
        position = start + slab.size
    if position < extent.end:
        yield Span(position, extent.end, colours.SLACK, idle, True)


def _granted(start, size, paint, name, birth):
    """An allocation; where it is known what was asked for, with its rounding loss apart."""
    if birth is None:
        yield Span(start, start + size, paint, f"{name}, {format_size(size)}")
        return
    text = (
        f"{name}: {counted(birth.size, 'byte')} asked for, {size:,} granted; event {birth.event:,}, "
        f"thread {birth.thread}"
    )
    asked = start + asked_of(birth, size)
    yield Span(start, asked, paint, text)
    if asked < start + size:
        yield Span(asked, start + size, colours.LOSS, f"lost by rounding, {text}")


def asked_of(birth, size):
    """Bytes asked for, of an allocation of `size` bytes; 0 counts as 1."""
    return min(max(birth.size, 1), size)
