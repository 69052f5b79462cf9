"""What a run of the benchmarks found: rows (what is measured) by candidates (who was)."""

import statistics
from dataclasses import dataclass, field

from bsa.bench.series import Series


@dataclass(frozen=True)
class Row:
    """One thing that is measured. `what` says how, and in what condition the heap is."""

    name: str
    what: str
    unit: str = "ns"


@dataclass
class Results:
    """Filled as the turns go by; `turns` is how many there are."""

    turns: int
    machine: dict
    candidates: dict = field(default_factory=dict)  #: name to version
    absent: dict = field(default_factory=dict)  #: name to what would bring it
    rows: dict = field(default_factory=dict)  #: name to Row
    left_out: dict = field(default_factory=dict)  #: (row, candidate or None for all) to the reason
    checks: list = field(default_factory=list)  #: what was asserted of the build measured
    _figures: dict = field(default_factory=dict)

    def add(self, turn, row, candidate, value):
        """The figure of one turn."""
        self.rows.setdefault(row.name, row)
        values = self._figures.setdefault((row.name, candidate), [None] * self.turns)
        values[turn] = value

    def leave_out(self, row, candidate, reason):
        self.rows.setdefault(row.name, row)
        self.left_out[row.name, candidate] = reason

    def get(self, row, candidate):
        """The Series, or None: not measured."""
        if (row, candidate) in self.left_out or (row, candidate) not in self._figures:
            return None
        return Series(tuple(self._figures[row, candidate]))

    def ratio(self, row, candidate, other):
        """The first's by the other's, turn by turn; None if either is missing."""
        first, second = self.get(row, candidate), self.get(row, other)
        ratio = first and second and first.by(second)
        return ratio if ratio and ratio.present else None

    def measured_by(self, row):
        """The candidates that have figures for the row."""
        return [name for name in self.candidates if self.get(row, name)]

    def noisy(self):
        """What should be measured again in quieter times: (row, candidate) pairs."""
        return [key for key in self._figures if (one := self.get(*key)) and one.is_noisy]

    def as_json(self):
        return {
            "machine": self.machine,
            "turns": self.turns,
            "candidates": self.candidates,
            "absent": self.absent,
            "checks": self.checks,
            "rows": [self._row_as_json(row) for row in self.rows.values()],
        }

    def _row_as_json(self, row):
        named = {name: self.get(row.name, name) for name in self.candidates}
        reasons = {
            name or "all": why for (of, name), why in self.left_out.items() if of == row.name
        }
        return {
            "name": row.name,
            "what": row.what,
            "unit": row.unit,
            "figures": {name: series.as_json() for name, series in named.items() if series},
            "left_out": reasons,
        }


def middle(chunks):
    """The median of what a process reports of its equal parts, without the first: it was cold."""
    return statistics.median(chunks[1:] or chunks)
