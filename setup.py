"""Build the two shared libraries of bsa; what describes the project is in pyproject.toml.

bsa._core                 the extension module: csrc/core (one translation unit), csrc/hosted and csrc/python
bsa/lib/libbsa_record.so  the malloc recorder, for LD_PRELOAD: no Python in it, Linux only

Environment switches. Each combination builds into a directory of its own (build-asan/lib, build-debug/lib, ...) with
`python setup.py build`, and never in place, so that a plain build is not overwritten by an instrumented one:

BSA_SANITIZE=address,undefined | thread   sanitizers; without the recorder, which would fight theirs over malloc; with
                                          AddressSanitizer, free memory is poisoned (csrc/core/poison.h)
BSA_VALGRIND=1                            free memory is poisoned for valgrind; needs its headers
BSA_DEBUG=1                               all three tiers of internal assertions
BSA_COVERAGE=1                            gcov counters
BSA_WERROR=1                              warnings are errors (for CI, not for users with newer compilers); no variant
"""

import os
import re
import sys
from glob import glob
from pathlib import Path
from sysconfig import get_path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

RECORDER_NAME = "libbsa_record"
RECORDER_SOURCE = "csrc/hosted/recorder.c"
SANITIZERS = {
    "address,undefined": "asan",
    "address": "asan",
    "undefined": "ubsan",
    "thread": "tsan",
}

sanitize = os.environ.get("BSA_SANITIZE", "")
debug = os.environ.get("BSA_DEBUG", "0") not in ("", "0")
valgrind = os.environ.get("BSA_VALGRIND", "0") not in ("", "0")
coverage = os.environ.get("BSA_COVERAGE", "0") not in ("", "0")
werror = os.environ.get("BSA_WERROR", "0") not in ("", "0")

if sanitize and sanitize not in SANITIZERS:
    sys.exit(f"BSA_SANITIZE={sanitize} is none of: {', '.join(SANITIZERS)}")

# Flags. They come after those of the Python they build for, so they win over its -O2, -DNDEBUG and -fwrapv.
compile_args = ["-std=c11", "-O2", "-pthread", "-fvisibility=hidden"]
# Two counters that are stored one by one and loaded as a pair stall the fast paths for a dozen cycles.
compile_args += ["-fno-tree-slp-vectorize"]
compile_args += ["-Wall", "-Wextra", "-Wconversion", "-Wstrict-prototypes"]
link_args = ["-pthread"]
variant = []

if werror:
    compile_args += ["-Werror"]
if debug:
    variant += ["debug"]
    compile_args += ["-UNDEBUG", "-DBSA_DEBUG=3", "-O1", "-g"]
if coverage:
    variant += ["coverage"]
    compile_args += ["--coverage", "-O0", "-g"]
    link_args += ["--coverage"]
if sanitize:
    variant += [SANITIZERS[sanitize]]
    # -fno-wrapv: under Debian's -fwrapv a signed overflow is defined, and UBSan would not see it.
    compile_args += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all"]
    compile_args += ["-fno-wrapv", "-fno-omit-frame-pointer", "-O1", "-g"]
    link_args += [f"-fsanitize={sanitize}"]
    if "address" in sanitize:
        compile_args += ["-DBSA_POISON_ASAN"]
if valgrind:
    variant += ["valgrind"]
    compile_args += ["-DBSA_POISON_MEMCHECK", "-O1", "-g"]


class BuildExt(build_ext):
    """build_ext that gives the recorder a plain name, and keeps instrumented builds out of the source tree."""

    def run(self):
        if self.inplace and variant:
            sys.exit(
                f"a {'-'.join(variant)} build never goes in place: use `python setup.py build`"
            )
        if self.inplace:
            os.makedirs("bsa/lib", exist_ok=True)
        super().run()

    def get_ext_filename(self, fullname):
        # Called with "bsa.lib.libbsa_record" for the build and with "libbsa_record" for in-place and editable installs.
        *folders, name = fullname.split(".")
        if name == RECORDER_NAME:
            return os.path.join(*folders, name + ".so")
        return super().get_ext_filename(fullname)


# Sorted: glob() gives the order of the directory, which would make builds differ between machines.
headers = sorted(glob("csrc/**/*.h", recursive=True))
core = sorted(glob("csrc/core/*.c"))  # compiled through all.c, which includes the others
hosted = sorted(set(glob("csrc/hosted/*.c")) - {RECORDER_SOURCE})
python = sorted(glob("csrc/python/*.c"))

include_dirs = ["csrc/core", "csrc/hosted", "csrc/python"]
macros = [("_GNU_SOURCE", "1")]  # as Python.h has it; hosted files include system headers before it

# As a system directory CPython's headers are exempt from our warnings; a -I for the same directory is then ignored.
python_headers = ["-isystem", get_path("include")]
if hasattr(sys, "gettotalrefcount"):
    # Debian's debug Python has links to the headers of the other one, and GCC follows those of system directories: it
    # would find the other's pyconfig.h.
    python_headers = ["-Wno-conversion"]

extensions = [
    Extension(
        "bsa._core",
        sources=["csrc/core/all.c", *hosted, *python],
        depends=["setup.py", *headers, *core],
        include_dirs=include_dirs,
        define_macros=macros,
        extra_compile_args=[*compile_args, *python_headers],
        extra_link_args=link_args,
    )
]

if sys.platform == "linux" and not sanitize:
    extensions.append(
        Extension(
            # In a folder that is no package: ".so" is a suffix of extension modules, and a scan of the package
            # (pkgutil, IDEs) would try to import what it finds there.
            f"bsa.lib.{RECORDER_NAME}",
            sources=[RECORDER_SOURCE],
            depends=["setup.py", *headers],
            include_dirs=include_dirs,
            define_macros=macros,
            # initial-exec: other thread-locals are allocated on first use, with the malloc being recorded.
            # no-builtin: else the compiler may turn "malloc, then memset" inside our calloc into a call of calloc.
            extra_compile_args=[*compile_args, "-ftls-model=initial-exec", "-fno-builtin"],
            extra_link_args=[*link_args, "-Wl,-z,defs"],
        )
    )

options = {}
if variant:
    build_base = "-".join(["build", *variant])
    options["build"] = {"build_base": build_base, "build_lib": f"{build_base}/lib"}

setup(
    # Read, not imported: the extension is not built yet.
    version=re.search(r'^__version__ = "(.+)"', Path("bsa/__init__.py").read_text(), re.M)[1],
    # Not in pyproject.toml: setuptools below 77 takes only a table there, newer ones want a string.
    license="MIT",
    packages=find_packages(include=["bsa", "bsa.*"]),  # bsa/lib is none: no __init__.py
    include_package_data=False,  # what package_data names, not what MANIFEST.in ships
    package_data={"bsa": ["py.typed", "*.pyi"]},
    ext_modules=extensions,
    cmdclass={"build_ext": BuildExt},
    options=options,
)
