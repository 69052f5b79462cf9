"""The figures of one thing measured in several turns, and what may be said of them."""

import math
import statistics
from dataclasses import dataclass

NOISY = 0.15  #: spread above which figures are flagged: something else was running


@dataclass(frozen=True)
class Series:
    """A figure for each turn, in the order of the turns; None where that turn gave none."""

    values: tuple

    @property
    def present(self):
        return [value for value in self.values if value is not None]

    @property
    def median(self):
        return statistics.median(self.present)

    @property
    def spread(self):
        """From the smallest to the largest, as a share of the median."""
        if len(self.present) < 2 or self.median == 0:
            return 0.0
        return (max(self.present) - min(self.present)) / abs(self.median)

    @property
    def is_noisy(self):
        return self.spread > NOISY

    def by(self, other):
        """The ratio to `other`, turn by turn: what both met in a turn cancels out."""
        return Series(tuple(map(_ratio, self.values, other.values)))

    def as_json(self):
        present = self.present
        return {
            "median": self.median,
            "minimum": min(present),
            "maximum": max(present),
            "spread": round(self.spread, 4),
            "noisy": self.is_noisy,
            "turns": list(self.values),
        }


def _ratio(value, other):
    return None if value is None or not other else value / other


def geometric_mean(series):
    """Turn by turn, of those that all have."""
    turns = zip(*(one.values for one in series), strict=True)
    return Series(tuple(None if None in turn else _mean(turn) for turn in turns))


def _mean(values):
    return math.exp(math.fsum(map(math.log, values)) / len(values))
