"""Raw recordings, as the recorder of `python -m bsa record` leaves them.

Format: csrc/hosted/record_format.h, read by csrc/hosted/trace_read.c; private to one version and
machine. Nothing is lost. A recorder that comes late sees frees of blocks that it does not know:
these are skipped and counted unless the caller refuses them. Addresses come back all the time, so a
double free counts as one of an unknown block.
"""

from bsa import _core
from bsa.importers.history import odd_counts

BAD = "skip"


def recognises(data):
    return data.startswith(b"BSA\x1arec\n")


def read(data, bad):
    """The columns and meta of a raw recording."""
    *columns, facts = _core._read_recording(data)
    if bad == "raise" and odd_counts(facts):
        raise ValueError(f"expected a whole history, found {odd_counts(facts)}")
    return columns, {"source": "recorder", **facts}
