"""Numbers as people read and write them: `64M` to a number, a number to `64 MiB` or `2 pages`.

Prefixes are binary throughout, as everywhere where pages are counted.
"""

import re

_PREFIXES = "KMGTP"
_SIZE = re.compile(
    rf"(0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?)\s*(?:([{_PREFIXES}])(?:i?B)?|B)?", re.I
)


def parse_size(text):
    """The number of bytes that `text` (4096, 0x1000, 64M, 1.5 GiB) means; ValueError if none."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size: write bytes, or a number with K, M, G, T (64M)")
    size = _number(match[1]) * 1024 ** (" " + _PREFIXES).index((match[2] or " ").upper())
    if size >= 2**63:
        raise ValueError(f"{text!r} is more than any memory")
    if size != int(size):
        raise ValueError(f"{text!r} is no whole number of bytes")
    return int(size)


def _number(text):
    if text.lower().startswith("0x"):
        return int(text, 16)
    return float(text) if "." in text else int(text)


def format_size(size):
    """`size` bytes with three significant digits and a binary unit: 23.4 MiB."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1000:
            return f"{_three_digits(value)} {unit}"
        value /= 1024
    return f"{_three_digits(value)} PiB"


def _three_digits(value):
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def exact_size(size):
    """The shortest text that parse_size turns into exactly `size`: 64M, 4097."""
    prefix = ""
    for candidate in _PREFIXES:
        if size == 0 or size % 1024:
            break
        size, prefix = size // 1024, candidate
    return f"{size}{prefix}"


def printable(text, most):
    """What a foreign `text` looks like on one line: with a mark for each character that cannot be
    printed, and cut in the middle to `most` characters."""
    if len(text) > most:
        text = f"{text[:most // 2 - 1]}…{text[-(most - most // 2):]}"
    return marked(text)


def marked(text, but=""):
    """`text` with a mark for each character that cannot be printed, but for those of `but`."""
    return "".join(c if c.isprintable() or c in but else "\N{REPLACEMENT CHARACTER}" for c in text)


def counted(number, noun):
    """`number` of what the noun says: 1 page, 12,000 pages."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(part, whole):
    """`part` of `whole`, as 12.3 %; nothing of nothing is 0 %."""
    return f"{100 * part / whole if whole else 0:.1f} %"
