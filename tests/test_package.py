"""What is built and shipped: the two libraries, the files beside them, the sdist."""

import ast
import importlib.util
import os
import pathlib
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
import tarfile

import pytest

import bsa

PACKAGE = pathlib.Path(bsa.__file__).resolve().parent
ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORDER = PACKAGE / "lib" / "libbsa_record.so"

INTERPOSED = {"malloc", "calloc", "realloc", "reallocarray", "free"}
INTERPOSED |= {"aligned_alloc", "memalign", "posix_memalign", "valloc", "pvalloc"}

needs_nm = pytest.mark.skipif(shutil.which("nm") is None, reason="no nm")
needs_recorder = pytest.mark.skipif(not RECORDER.exists(), reason="built without the recorder")
needs_source_tree = pytest.mark.skipif(
    not (ROOT / "setup.py").exists() or importlib.util.find_spec("setuptools") is None,
    reason="needs the source tree and setuptools",
)
plain_build = pytest.mark.skipif(bool(os.environ.get("BSA_SANITIZE")), reason="instrumented build")


def exported(library):
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", str(library)], check=True, capture_output=True, text=True
    )
    return {line.split()[-1].partition("@")[0] for line in listing.stdout.splitlines()}


def test_public_modules_are_imported_when_they_are_asked_for():
    script = """
import sys, bsa
names = ("synthetic", "testing", "views")
assert not [name for name in names if "bsa." + name in sys.modules]
assert set(names) < set(dir(bsa)) and "Allocator" in dir(bsa)
assert all(getattr(bsa, name) is sys.modules["bsa." + name] for name in names)
assert not hasattr(bsa, "no_such_name")
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@needs_nm
@plain_build
def test_the_extension_exports_only_its_init_function():
    assert exported(sys.modules["bsa._core"].__file__) == {"PyInit__core"}


@needs_nm
@needs_recorder
def test_the_recorder_exports_only_what_it_interposes():
    assert exported(RECORDER) == INTERPOSED


@needs_recorder
def test_a_scan_of_the_package_does_not_meet_the_recorder():
    found = {module.name for module in pkgutil.walk_packages(bsa.__path__, "bsa.")}
    assert "bsa._core" in found
    assert not [name for name in found if "libbsa_record" in name or name.startswith("bsa.lib")]


def test_stubs_and_the_typing_marker_are_installed():
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_core.pyi").exists()


def test_the_version_is_one_literal():
    assignments = [
        ast.literal_eval(node.value)
        for node in ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__version__"
    ]
    assert assignments == [bsa.__version__]


def setup_py(*arguments):
    command = [sys.executable, "setup.py", "-q", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


@needs_source_tree
def test_setup_py_reads_the_same_version():
    assert setup_py("--version").split()[-1] == bsa.__version__


@needs_source_tree
@pytest.mark.parametrize(
    "name, expected",
    [
        ("bsa.lib.libbsa_record", "bsa/lib/libbsa_record.so"),
        ("libbsa_record", "libbsa_record.so"),  # as in-place and editable installs ask
        ("bsa._core", "bsa/_core" + sysconfig.get_config_var("EXT_SUFFIX")),
        ("_core", "_core" + sysconfig.get_config_var("EXT_SUFFIX")),
    ],
)
def test_only_the_recorder_has_a_plain_name(name, expected):
    script = f"""
import setuptools
from distutils.core import run_setup
command = run_setup("setup.py", stop_after="init").get_command_obj("build_ext")
command.ensure_finalized()
print(command.get_ext_filename({name!r}))"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split()[-1] == expected


@needs_source_tree
def test_the_sdist_holds_every_file_of_the_repository(tmp_path):
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    listing = subprocess.run([git, "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("git refuses: " + listing.stderr)

    setup_py("egg_info", "--egg-base", tmp_path, "sdist", "--dist-dir", tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        shipped = {name.partition("/")[2] for name in archive.getnames()}
    present = {name for name in listing.stdout.splitlines() if (ROOT / name).exists()}
    assert present - shipped == set()
    assert not [name for name in shipped if name.endswith((".so", ".o", ".pyc"))]
