"""The benchmarks measure what they say, name what they leave out, and refuse what makes no sense. No test is about time."""

import json
import pathlib

import pytest

import bsa
from bsa import bench
from bsa.__main__ import main
from bsa.bench import machine, picture, python_level, table, worker
from bsa.bench.results import Results, Row, middle
from bsa.bench.series import Series, geometric_mean

ROOT = pathlib.Path(__file__).resolve().parent.parent

ROW = Row("row", "what is measured")


# ---- Figures ----


def results_of(turns=3, **figures):
    """Results of one row, with a series for each candidate."""
    results = Results(turns, machine.description(quick=True))
    for name, values in figures.items():
        results.candidates[name] = "1.0"
        for turn, value in enumerate(values):
            results.add(turn, ROW, name, value)
    return results


def test_a_series_has_a_median_and_is_noisy_from_a_spread_of_15_percent():
    assert Series((3, 1, 2)).median == 2
    assert not Series((100, 110, 114)).is_noisy
    assert Series((100, 110, 120)).is_noisy
    assert not Series((5,)).is_noisy


def test_ratios_are_taken_turn_by_turn():
    assert Series((10, 40)).by(Series((5, 10))).values == (2, 4)
    assert Series((10, None)).by(Series((5, 10))).values == (2, None)


def test_a_geometric_mean_leaves_out_turns_in_which_one_is_missing():
    assert geometric_mean([Series((2, 4)), Series((8, None))]).values == (pytest.approx(4), None)


def test_the_first_part_of_a_process_is_cold_and_does_not_count():
    assert middle([100, 1, 3, 2]) == 2
    assert middle([100]) == 100


def test_a_figure_tells_its_range_and_its_noise():
    assert table.figure(Series((46.2, 45.0, 48.1))) == "46.2 (45.0 to 48.1)"
    assert table.figure(Series((1, 2, 1200))) == "~2.00 (1.00 to 1,200)"
    assert table.figure(None) == "-"


def test_json_has_every_figure_and_every_reason():
    results = results_of(bsa=(1, 2, 3), glibc=(2, 2, 2))
    results.absent["mimalloc"] = "not installed"
    results.leave_out(Row("other", "more"), None, "too little memory")
    kept = json.loads(json.dumps(results.as_json()))
    row, other = kept["rows"]
    assert row["figures"]["bsa"] == {
        "median": 2,
        "minimum": 1,
        "maximum": 3,
        "spread": 1,
        "noisy": True,
        "turns": [1, 2, 3],
    }
    assert other["left_out"] == {"all": "too little memory"} and other["figures"] == {}
    assert kept["absent"] == {"mimalloc": "not installed"}
    assert kept["machine"]["processors"] >= 1


def test_a_figure_that_was_left_out_in_one_turn_is_never_shown():
    results = results_of(bsa=(1, 2, 3))
    results.leave_out(ROW, "bsa", "it crashed")
    assert results.get("row", "bsa") is None
    assert "- Left out: row of bsa: it crashed." in table.explanations(results)


def test_the_picture_has_a_dot_for_each_ratio():
    rows = {"S1": {"glibc": Series((2, 3)), "other": Series((0.5, 0.25))}}
    text = str(picture.draw("title", "subtitle", rows))
    assert "S1, glibc: 2.50 (2.00 to 3.00)" in text and "S1, other: 0.38 (0.25 to 0.50)" in text


# ---- From Python ----


@pytest.fixture(scope="module")
def python_results():
    results = Results(1, machine.description(quick=True))
    python_level.measure(results, 0, [ROOT / "tests" / "traces" / "git.bsa"])
    return results


def test_everyone_is_measured_from_python(python_results):
    for row in python_level.SIZES:
        measured = set(python_results.measured_by(row))
        assert measured == set(python_results.candidates), python_results.left_out
    for row in ("memoryview", "many", "set-up", "replay git", "replay git, 1000 samples"):
        assert python_results.get(row, "bsa").median > 0


def test_numpy_is_a_candidate_or_named_as_absent(python_results):
    assert ("np.empty" in python_results.candidates) != ("np.empty" in python_results.absent)
    assert ("np.empty" in python_results.candidates) == worker.HAS_NUMPY


def test_tables_and_picture_show_all_of_python(python_results):
    text = "\n".join(bench.tables(python_results))
    for name in (*python_results.rows, *python_results.candidates, *python_results.absent):
        assert name in text
    assert "1 MiB, bsa Block" in str(bench.drawn(python_results))


def test_a_build_without_checks_is_not_measured(monkeypatch):
    make = bsa.Allocator

    class Careless:
        def __init__(self, size):
            self._heap = make(size)
            self.sections = self._heap.sections

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._heap.close()

        def malloc(self, size):
            return self._heap.malloc(size)

        def free(self, address):
            pass

    monkeypatch.setattr(worker.bsa, "Allocator", Careless)
    with pytest.raises(AssertionError, match="was not refused"):
        worker.assert_refusals()


@pytest.mark.parametrize(
    "arguments, status, text",
    [
        (["--turns", "0"], 2, "0 is less than 1"),
        (["--json", "/no/such/folder/x.json"], 1, "there is no folder"),
        (["no such trace"], 1, "no such trace"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(arguments, status, text, capsys):
    try:
        found = main(["bench", *arguments])
    except SystemExit as error:
        found = error.code
    out, err = capsys.readouterr()
    assert (found, out, len(err.splitlines())) == (status, "", 1) and text in err


def test_the_command_keeps_figures_and_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "QUICK_SECONDS", 0)
    kept, drawn = tmp_path / "x.json", tmp_path / "x.svg"
    command = ["bench", "--quick", "--turns", "1", "--json", str(kept), "--picture", str(drawn)]
    assert main(command) == 0
    assert json.loads(kept.read_text())["machine"]["quick"] is True
    assert drawn.read_text().startswith("<svg") and "64 KiB" in capsys.readouterr().out
