"""What pins a larger block, in the report: an order worth asking about, and the answer.

For the orders just above the largest free block's, often the answer is one block that is as large
itself, which teaches nothing. So the least of the next few orders is taken whose block would have
something in it that is free already.
"""

from itertools import islice

from bsa import views
from bsa._core import MAX_ORDER, InvalidParamError
from bsa.pinning import pins
from bsa.units import format_size

_ORDERS = 4  # asked about at most: each takes a pass over all that is live


def pins_html(heap, births):
    """A sentence, and the picture; without it if the largest block that there could be is free."""
    asked = _question(heap)
    if asked is None:
        return "<p>A block of every order that the heap has room for is free.</p>"
    picture = views.pins_map(heap, asked.order, births=births)
    return f"<p>{_remark(heap, asked)}</p>{picture._repr_html_()}"


def _question(heap):
    """The Pins to be shown, or None."""
    answers = []
    for found in islice(_answers(heap), _ORDERS):
        if found.size < _wanted(found):
            return found
        answers.append(found)
    return answers[0] if answers else None


def _answers(heap):
    """Pins of each order above the largest free block's."""
    for order in range((heap.largest_free // heap.page_size).bit_length(), MAX_ORDER + 1):
        try:
            yield pins(heap, order)
        except InvalidParamError:  # no section has room for such a block
            return


def _wanted(found):
    return found.page_size << found.order


def _remark(heap, found):
    text = f"The largest free block has {format_size(heap.largest_free)}."
    if found.size >= _wanted(found):
        text += " What stands in the way of a larger one is itself at least as large as that."
    return text
