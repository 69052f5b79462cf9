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

TSAN_LIB = $(shell gcc -print-file-name=libtsan.so)
# ThreadSanitizer of older compilers cannot live with much address randomisation: switch it off where that is allowed.
FIXED_ADDRESSES = $(shell setarch $$(uname -m) -R true 2>/dev/null && echo "setarch $$(uname -m) -R")
ASAN_LIBS = $(shell gcc -print-file-name=libasan.so) $(shell gcc -print-file-name=libstdc++.so.6)
ASAN_OPTIONS := detect_leaks=0:allocator_may_return_null=1:allow_user_poisoning=0

# Of an instrumented build, the tests of how the package is built, of the C programs and of models say nothing new.
VARIANT_TESTS := --ignore=tests/test_package.py --ignore=tests/test_bench.py --ignore=tests/test_bench_suite.py --ignore=tests/test_c.py --ignore=tests/test_fuzz.py --ignore=tests/test_mutants.py --ignore=tests/protocol
# Nor do those of what is drawn and typed.
VARIANT_TESTS += --ignore-glob='*/test_view*.py' --ignore=tests/test_plot.py --ignore=tests/test_report.py --ignore=tests/test_typing.py
VARIANT_TESTS += --ignore=tests/test_notebooks.py

.PHONY: help demo test test-c test-asan test-tsan test-debug test-leaks test-valgrind test-notebooks notebooks fuzz mutants coverage bench bench-peers bench-lab bench-instructions bench-checks lint format dist check-dist prepare build clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 20

demo: build ## record a real program, replay it, draw where its memory went
	@$(PY) -m bsa demo

test: build ## all tests
	@$(PY) -m pytest $(ARGS)

test-c: build ## only the C programs and the check that the core is freestanding
	@$(PY) -m pytest tests/test_c.py $(ARGS)

test-tsan: build ## the C programs and the Python tests with threads under ThreadSanitizer
	@BSA_C_SANITIZE=thread $(PY) -m pytest tests/test_c.py -k program $(ARGS)
	@BSA_SANITIZE=thread $(PY) setup.py -q build
	@# Only what Python prints is captured: reports are seen, and make the run fail at its end.
	@env PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build-tsan/lib" LD_PRELOAD="$(TSAN_LIB)" \
	    $(FIXED_ADDRESSES) $(PY) -m pytest --capture=sys tests/test_threads.py tests/test_free_threading.py $(ARGS)

test-asan: build ## the C programs and the Python tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@BSA_C_SANITIZE=address,undefined $(PY) -m pytest tests/test_c.py tests/test_fuzz.py -k "program or target" $(ARGS)
	@BSA_SANITIZE=address,undefined $(PY) setup.py -q build
	@# Free memory is not poisoned but in tests/test_poison.py: many tests read a whole buffer, heap and all.
	@# Without pymalloc, nothing counts the blocks that tests/test_leaks.py compares.
	@# libstdc++ too, or AddressSanitizer misses the exceptions of C++ libraries loaded later (NumPy's, for one).
	@env BSA_SANITIZE=address,undefined PYTHONMALLOC=malloc PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build-asan/lib" \
	    ASAN_OPTIONS=$(ASAN_OPTIONS) UBSAN_OPTIONS=print_stacktrace=1 \
	    LD_PRELOAD="$(ASAN_LIBS)" $(PY) -m pytest -rfE $(VARIANT_TESTS) --ignore=tests/test_leaks.py $(ARGS)

test-debug: build ## the Python tests with every internal assertion on
	@BSA_DEBUG=1 $(PY) setup.py -q build
	@PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build-debug/lib" $(PY) -m pytest $(VARIANT_TESTS) $(ARGS)

test-leaks: prepare ## no call leaks a reference: by Debian's debug build of Python, which counts them
	@$(MAKE) prepare PACKAGES=python3-dbg
	@python3-dbg setup.py -q build --build-base build-dbg --build-lib build-dbg/lib
	@PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build-dbg/lib" \
	    python3-dbg -m pytest tests/test_leaks.py $(ARGS)

test-valgrind: build ## uses after free are found by valgrind, too
	@$(MAKE) prepare PACKAGES=valgrind
	@BSA_VALGRIND=1 $(PY) setup.py -q build
	@env BSA_VALGRIND=1 PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build-valgrind/lib" \
	    $(PY) -m pytest tests/test_poison.py $(ARGS)

JUPYTER := python3-nbclient python3-ipykernel python3-matplotlib

test-notebooks: build ## the notebooks in examples/, every cell run by a Jupyter kernel
	@$(MAKE) prepare PACKAGES="$(JUPYTER)"
	@$(PY) -c "import ipykernel, matplotlib, nbclient, nbformat" # without these the tests would be skipped
	@$(PY) -m pytest tests/test_notebooks.py $(ARGS)

notebooks: build ## runs the notebooks in examples/, leaves them as pages with all pictures in build/notebooks
	@$(MAKE) prepare PACKAGES="$(JUPYTER) python3-nbconvert"
	@PYTHONPATH="$(CURDIR)" PYDEVD_DISABLE_FILE_VALIDATION=1 $(PY) -m nbconvert --log-level WARN \
	    --execute --to html --output-dir build/notebooks examples/*.ipynb
	@ls build/notebooks/*.html

SECONDS_EACH ?= 600
FUZZ_TARGETS := operations regions traces
FUZZ_FLAGS := -std=c11 -D_GNU_SOURCE -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
    -DBSA_DEBUG=3 -DBSA_POISON_ASAN -Icsrc/core -Icsrc/hosted -Itests/c -Itests/fuzz
FUZZED := csrc/core/all.c $(filter-out %/recorder.c,$(wildcard csrc/hosted/*.c))

fuzz: prepare ## inputs that break the core or the readers of traces; SECONDS_EACH=600 for each target
	@$(MAKE) prepare PACKAGES="clang libclang-rt-dev"
	@$(PY) tests/fuzz/seeds.py build-fuzz/seeds
	@for target in $(FUZZ_TARGETS); do \
	    echo "fuzzing $$target for $(SECONDS_EACH) s"; \
	    mkdir -p build-fuzz/$$target; \
	    clang $(FUZZ_FLAGS) tests/fuzz/fuzz_$$target.c $(FUZZED) -o build-fuzz/fuzz_$$target || exit 1; \
	    build-fuzz/fuzz_$$target -max_total_time=$(SECONDS_EACH) -max_len=70000 -timeout=60 -verbosity=0 -print_funcs=0 \
	        -print_final_stats=1 -artifact_prefix=build-fuzz/$$target- \
	        build-fuzz/$$target build-fuzz/seeds/$$target || exit 1; \
	done

mutants: build ## puts faults into the core and tells which test finds each; ARGS="buddy": only those of that name
	@$(PY) tests/mutants/run.py $(ARGS)

coverage: build ## lines and branches of the C code that the tests reach; needs gcovr
	@rm -rf build-coverage
	@BSA_COVERAGE=1 $(PY) setup.py -q build
	@BSA_C_COVERAGE=1 $(PY) -m pytest -q tests/test_c.py -k program --basetemp=build-coverage/c
	@PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build-coverage/lib" $(PY) -m pytest -q $(VARIANT_TESTS)
	@gcovr --root . --filter csrc/core --filter csrc/python --json build-coverage/all.json build-coverage
	@gcovr --root . --add-tracefile build-coverage/all.json --filter csrc/core --branches
	@gcovr --root . --add-tracefile build-coverage/all.json --filter csrc/core --filter csrc/python
	@gcovr --root . --add-tracefile build-coverage/all.json --filter csrc/core --print-summary \
	    --fail-under-line 95 --fail-under-branch 90 --output build-coverage/core.txt
	@gcovr --root . --add-tracefile build-coverage/all.json --filter csrc/python --print-summary \
	    --fail-under-line 90 --output build-coverage/python.txt

bench: build ## speed beside other ways to get memory; ARGS="--quick": under a minute
	@PYTHONPATH="$(CURDIR)" $(PY) tests/bench/run.py $(ARGS)

bench-peers: ## install the allocators that bench compares with, from Debian's packages
	@$(MAKE) prepare PACKAGES="libmimalloc2.0 libjemalloc2 libtcmalloc-minimal4"

bench-lab: build ## what replays with samples, the report and the pictures of Jupyter cost
	@PYTHONPATH="$(CURDIR)" $(PY) tests/bench/lab.py

bench-instructions: build ## instructions of each operation, beside those kept; ARGS=--update keeps them
	@$(MAKE) prepare PACKAGES=valgrind
	@PYTHONPATH="$(CURDIR)" $(PY) tests/bench/instructions.py $(ARGS)

bench-checks: build ## instructions of a free without each of its checks; ARGS=--document keeps the table
	@$(MAKE) prepare PACKAGES=valgrind
	@PYTHONPATH="$(CURDIR)" $(PY) tests/bench/checks.py $(ARGS)

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
