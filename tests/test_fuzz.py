"""The fuzz targets (tests/fuzz), run on their seeds by any compiler; `make fuzz` looks for more."""

import re
import sys

import pytest

from test_c import ALL, CC, HOSTED, ROOT, run

FUZZ = ROOT / "tests" / "fuzz"
HOSTED_SOURCES = set((ROOT / "csrc" / "hosted").glob("*.c"))
HOSTED_SOURCES -= {ROOT / "csrc" / "hosted" / "recorder.c"}  # a library that wants to be malloc
sys.path.append(str(FUZZ))

import seeds  # noqa: E402


@pytest.mark.parametrize("target", seeds.TARGETS)
def test_the_target_stands_its_seeds(target, tmp_path):
    sources = [FUZZ / f"fuzz_{target}.c", FUZZ / "replay.c", ALL, *HOSTED_SOURCES]
    inputs = seeds.write(target, tmp_path / "seeds")
    assert len(inputs) > 10
    run(CC, *HOSTED, f"-I{FUZZ}", *sources, "-o", tmp_path / target)
    run(tmp_path / target, *inputs)


def test_whatever_was_found_is_a_seed_of_some_target():
    targets = [re.match(r"[a-z]+", path.name)[0] for path in seeds.FOUND.iterdir()]
    assert targets and set(targets) <= set(seeds.TARGETS)
