"""The list of faults for `make mutants` stays applicable, and its driver finds out who kills a fault and who does not."""

import importlib.util
import pathlib
import shutil
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
DRIVER = ROOT / "tests" / "mutants" / "run.py"

pytestmark = pytest.mark.skipif(
    not (ROOT / "csrc" / "core").exists(), reason="not in the source tree"
)


@pytest.fixture(scope="module")
def driver():
    spec = importlib.util.spec_from_file_location("mutants_run", DRIVER)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_every_mutant_applies_and_says_what_it_breaks(driver, tmp_path):
    mutants = driver.load()
    assert len({mutant.name for mutant in mutants}) == len(mutants) >= 60
    core = shutil.copytree(ROOT / "csrc" / "core", tmp_path / "csrc" / "core")
    for mutant in mutants:
        mutant.apply(tmp_path)
        shutil.copy(ROOT / "csrc" / "core" / mutant.file, core)
        assert mutant.breaks and mutant.old != mutant.new


def test_a_mutant_whose_place_has_changed_is_named(driver, tmp_path):
    shutil.copytree(ROOT / "csrc" / "core", tmp_path / "csrc" / "core")
    gone = driver.Mutant("gone with the wind", "pages.c", "no such text", "", "nothing")
    twice = driver.Mutant("seen twice", "pages.c", "return", "", "nothing")
    for mutant in (gone, twice):
        with pytest.raises(ValueError, match=mutant.name):
            mutant.apply(tmp_path)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_the_test_that_kills_a_mutant_is_named_and_a_survivor_must_be_explained(driver, tmp_path):
    killers = [driver.Programs(tmp_path, ["test_lowmem"])]
    mutants = {mutant.name: mutant for mutant in driver.load()}
    early_end = mutants["pages: low memory ends one byte early"]
    kill = driver.find_killer(killers, early_end)
    assert kill.test.startswith("test_lowmem: a_heap_across_4_gib_gives_exactly_the_pages_below")
    assert driver.verdict(early_end, kill) == (kill.test, True)
    harmless = mutants["check: a partial slab may be empty"]  # to this program
    assert driver.find_killer(killers, harmless) is None
    assert driver.verdict(harmless, None) == (f"SURVIVES: {harmless.breaks}", False)
