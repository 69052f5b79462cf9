"""Puts what a run found into docs/performance.md: between its markers, and as pictures beside it."""

from build import ROOT

PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"


def update(levels, aims):
    """`levels`: "c" and "python" to what run.py has of them; those not measured stay as they are."""
    text = PAGE.read_text(encoding="utf-8")
    for name, level in levels.items():
        text = between_markers(text, name, level.tables)
        if level.drawn:
            (IMAGES / f"performance-{name}.svg").write_text(str(level.drawn), encoding="utf-8")
    PAGE.write_text(between_markers(text, "aims", aims), encoding="utf-8")


def update_table(name, lines):
    """The same for one table that is measured apart."""
    PAGE.write_text(between_markers(PAGE.read_text("utf-8"), name, lines), encoding="utf-8")


def between_markers(text, name, lines):
    """The page with other lines between `<!-- name -->` and `<!-- end of name -->`."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{PAGE}: no lines {begin.strip()} and {end}")
    return before + begin + "\n" + "\n".join(lines) + "\n\n" + end + after
