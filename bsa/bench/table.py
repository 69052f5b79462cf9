"""Tables of figures: Markdown, padded, so that they can be read on a terminal as well."""

NOTE = "(smallest to largest); ~ marks a spread above 15 %: measure again when the machine is quiet"


def figure(series):
    """`46.2 (45.0 to 48.1)`, with a ~ in front if it is noisy; a dash if there is none."""
    if series is None:
        return "-"
    present = series.present
    low, median, high = map(short, (min(present), series.median, max(present)))
    text = median if len(present) == 1 else f"{median} ({low} to {high})"
    return "~" + text if series.is_noisy else text


def short(number):
    """Three significant digits, or all before the point."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def table(head, rows):
    """Lines of text: the first column to the left, the others to the right."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [_line(row, widths) for row in (head, rule, *rows)]


def _line(row, widths):
    first, *others = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "| " + " | ".join([first, *others]) + " |"


def figures(results, rows, candidates, corner=""):
    """Everyone's figures, a line for each row."""
    lines = [[row, *(figure(results.get(row, name)) for name in candidates)] for row in rows]
    return table([corner, *candidates], lines)


def ratios(results, rows, candidate, others, corner=""):
    """The candidate's figures by those of each of the others."""
    lines = [
        [row, *(figure(results.ratio(row, candidate, name)) for name in others)] for row in rows
    ]
    return table([corner, *(f"by {name}" for name in others)], lines)


def explanations(results):
    """What the rows mean, what is missing and why, and what was asserted."""
    names = {}
    for row in results.rows.values():
        names.setdefault(row.what, []).append(row.name)
    lines = [f"- {', '.join(of_same)}: {what}." for what, of_same in names.items()]
    lines += [
        f"- Left out: {name}{f' of {who}' if who else ''}: {why}."
        for (name, who), why in results.left_out.items()
    ]
    return lines + [f"- Asserted of the bsa that is measured: {check}." for check in results.checks]


def across(rows, candidates, value):
    """The other way round: a line for each candidate, a column for each row."""
    lines = [[name, *(figure(value(row, name)) for row in rows)] for name in candidates]
    return table(["", *rows], lines)


def side_by_side(results, rows, candidate, other):
    """Both figures and their ratio."""
    lines = [
        [
            row,
            figure(results.get(row, candidate)),
            figure(results.get(row, other)),
            figure(results.ratio(row, candidate, other)),
        ]
        for row in rows
    ]
    return table(["", candidate, other, "ratio"], lines)
