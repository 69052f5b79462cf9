# Everything goes through here; `make help` lists what there is.
#
# On Debian (where there is apt-get) this uses Debian's own Python and Debian's packages, and installs those that are
# missing: no package index, no virtual environment. Elsewhere, or with PYTHON=/some/python, it uses that Python in a
# virtual environment, .venv-VERSION, filled by pip.
#
# Plain shell and make up to the target `prepare`: on a fresh machine there is no Python yet.

PYTHON ?=
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# Settings of the user's own Python must not leak into the one used here.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONSTARTUP PYTHONOPTIMIZE PYTHONWARNINGS
export PYTHONNOUSERSITE := 1

ifeq ($(PYTHON)$(shell command -v apt-get 2>/dev/null),)
PYTHON := python3
endif

# python3-dev brings no compiler, and gcc only recommends the C library's headers.
PACKAGES ?= gcc libc6-dev python3-dev python3-setuptools python3-pytest python3-hypothesis

ifeq ($(PYTHON),)
PY := /usr/bin/python3
else
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2] + sys.abiflags)')
PY := $(VENV)/bin/python
endif

ASAN_LIBS = $(shell gcc -print-file-name=libasan.so) $(shell gcc -print-file-name=libstdc++.so.6)

# Of an instrumented build, the tests of how the package is built and of the C programs say nothing new.
VARIANT_TESTS := --ignore=tests/test_package.py --ignore=tests/test_c.py

.PHONY: help demo test test-c test-asan test-tsan test-debug bench lint format dist check-dist prepare build clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

demo: build ## record a real program, replay it, draw where its memory went
	@$(PY) -m bsa demo

test: build ## all tests
	@$(PY) -m pytest $(ARGS)

test-c: build ## only the C programs and the check that the core is freestanding
	@$(PY) -m pytest tests/test_c.py $(ARGS)

test-tsan: build ## the C programs under ThreadSanitizer
	@BSA_C_SANITIZE=thread $(PY) -m pytest tests/test_c.py -k program $(ARGS)

test-asan: build ## the C programs and the Python tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@BSA_C_SANITIZE=address,undefined $(PY) -m pytest tests/test_c.py -k program $(ARGS)
	@BSA_SANITIZE=address,undefined $(PY) setup.py -q build
	@# libstdc++ too, or AddressSanitizer misses the exceptions of C++ libraries loaded later (NumPy's, for one).
	@env BSA_SANITIZE=address,undefined PYTHONMALLOC=malloc PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build-asan/lib" \
	    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	    LD_PRELOAD="$(ASAN_LIBS)" $(PY) -m pytest -rfE $(VARIANT_TESTS) $(ARGS)

test-debug: build ## the Python tests with every internal assertion on
	@BSA_DEBUG=1 $(PY) setup.py -q build
	@PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build-debug/lib" $(PY) -m pytest $(VARIANT_TESTS) $(ARGS)

bench: build ## speed, as ratios to other ways of doing the same
	@for script in tests/bench/bench_*.py; do \
	    PYTHONPATH="$(CURDIR)" $(PY) $$script $(ARGS) || exit 1; \
	done

lint: ## formatting and static checks; needs clang-format, black, pyflakes and mypy
	@.ci/lint $(PY)

format: ## format all C and Python files
	@clang-format -i $$(find csrc tests examples -name '*.[ch]')
	@black -q .

dist: prepare ## sdist in dist/
	@$(PY) setup.py -q sdist

check-dist: dist ## the wheel built from the sdist, and an editable install, pass their tests
	@.ci/check-dist $(PY)

build: prepare ## build in place
	@$(PY) setup.py -q build_ext --inplace

ifeq ($(PYTHON),)

prepare:
	@missing=; \
	for package in $(PACKAGES); do \
	    dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || missing="$$missing $$package"; \
	done; \
	test -n "$$missing" || exit 0; \
	if test "$$(id -u)" = 0; then sudo=; elif command -v sudo >/dev/null; then sudo=sudo; else \
	    echo "Missing packages, and neither root nor sudo to install them. As root:"; \
	    echo "    apt-get install$$missing"; \
	    exit 1; \
	fi; \
	echo "Installing$$missing"; \
	apt="env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300"; \
	$$sudo $$apt update || echo "apt-get update failed: trying with the package lists that are there"; \
	$$sudo $$apt -o Dpkg::Use-Pty=0 install --no-install-recommends $$missing >/dev/null
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bsa needs Python 3.11: make PYTHON=...")'

else

prepare: $(VENV)/.ready

# Only the interpreter and the tools live there; bsa is built and imported in place.
$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bsa needs Python 3.11: make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV) || { echo "No virtual environment: on Debian, apt-get install python3-venv"; exit 1; }
	@$(PY) -m pip install --quiet --disable-pip-version-check setuptools pytest hypothesis
	@touch $@

endif

clean: ## remove everything built
	@rm -rf build build-* dist demo *.egg-info .venv-* .pytest_cache .hypothesis .mypy_cache
	@rm -rf bsa/*.so bsa/lib
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
