# make serve         runs the demo server, with its page, at http://localhost:8001/
# make test          runs the tests that every change needs, in 90 seconds once everything is built
# make test-all      runs all tests, on an installed copy of the compiled and of the pure build
# make verify        runs what takes hours: all of Autobahn's cases, fuzzing, load
# make lint          runs ruff and mypy; make check, also test-all
# make coverage      measures which branches of the core its own tests reach
# make bench         measures wsframe beside other libraries
# make bench-compare BASE=REV   tells which rows of the benchmarks are faster or slower than in that commit
# make docs          builds the manual, in site/index.html
# make fuzz          looks for inputs that break the core, for SECONDS=600; make fuzz-asan, the compiled one
#
# Each makes its own virtual environment. They need Python 3.11 or newer, and make.

PYTHON ?= python3
# A process more than there are cores, since tests wait for peers. One that is idle takes tests from the others.
PROCESSES := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST ?= -n $(PROCESSES) --dist worksteal
PIP = -m pip --disable-pip-version-check

# Everything that is compiled: the list stands in setup.py. When one of these changes, all are compiled again.
COMPILED := $(shell sed -n '/^SOURCES = (/,/^)/s|^ *"\(.*\)",|src/wsframe/\1|p' setup.py)
SOURCES = pyproject.toml setup.py $(COMPILED) $(wildcard src/wsframe/*.pxd src/wsframe/*/*.pxd)

.PHONY: serve test test-all verify check lint test-compiled test-pure autobahn bench bench-compare coverage \
	fuzz fuzz-asan load docs dist clean

serve: .venv/serve
	.venv/bin/python -m wsframe serve

test: .venv/test
	.venv/bin/python -m pytest $(PYTEST)

test-all: test-compiled test-pure

verify: autobahn fuzz fuzz-asan load

check: lint test-all

lint: .venv/check
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# An installed copy, as users have it: no editable install, no src/ on the path.
test-compiled: .venv-compiled/test
	.venv-compiled/bin/python -c "import wsframe; assert wsframe.compiled"
	.venv-compiled/bin/python -m pytest --all $(PYTEST)

test-pure: .venv-pure/test
	.venv-pure/bin/python -c "import wsframe; assert not wsframe.compiled"
	.venv-pure/bin/python -m pytest --all $(PYTEST)

# All sections, both builds: an hour and a half. It needs wstest; see tests/autobahn.
autobahn: .venv-compiled/test .venv-pure/test
	.venv-compiled/bin/python tests/autobahn/test_autobahn.py --head
	.venv-pure/bin/python tests/autobahn/test_autobahn.py

# BENCH="--quick --only decode", for instance; benchmarks/README.md says more.
BENCH ?= --json docs/benchmarks/run.json --chart docs/benchmarks/run.svg
bench: .venv/bench
	.venv/bin/python -m benchmarks $(BENCH)

# COMPARE="--only decode", for instance.
BASE ?= HEAD
bench-compare: .venv/bench
	.venv/bin/python -m benchmarks.compare $(BASE) $(COMPARE)

# All branches of the core, by its own tests, in Python: there is none to see in the compiled build.
# (masking.py has a branch that each build takes the other way.)
coverage: .venv-pure/test
	.venv-pure/bin/python -m coverage run -m pytest $(CORE_TESTS)
	.venv-pure/bin/python -m coverage report --include '$(CORE)' --show-missing --fail-under 100

CORE_NAMES = errors events uri frames deflate prepared handshake origins connection client server
EMPTY =
COMMA = ,
CORE = $(subst $(EMPTY) $(EMPTY),$(COMMA),$(CORE_NAMES:%=*/site-packages/wsframe/%.py))
CORE_TESTS = $(CORE_NAMES:%=tests/core/test_%.py)

# Half of the time is for Hypothesis (an example of all tests takes up to a second), and half for atheris, which is
# guided by coverage: so in pure Python.
SECONDS ?= 600
fuzz: export HYPOTHESIS_PROFILE = deep
fuzz: .venv-fuzz/fuzz
	HYPOTHESIS_EXAMPLES=$$(($(SECONDS) / 2 + 1)) .venv-fuzz/bin/python -m pytest -o timeout=0 $(PROPERTIES)
	.venv-fuzz/bin/python -m fuzz --all --seconds $$(($(SECONDS) / 2))

PROPERTIES = $(wildcard tests/core/test_properties*.py) tests/core/test_other_libraries.py

# The corpus, with what make fuzz has added to it, and COUNT mutations of it for each target; by gcc.
COUNT ?= 20000
ASAN_PYTHON = LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	.venv-asan/bin/python
fuzz-asan: .venv-asan/test
	$(ASAN_PYTHON) -c "import wsframe; assert wsframe.compiled"
	$(ASAN_PYTHON) -m fuzz --replay fuzz/corpus reports/fuzz
	$(ASAN_PYTHON) -m fuzz --mutate fuzz/corpus reports/fuzz --count $(COUNT)

# Thousands of connections, and clients that vanish; docs/load.md says what must hold.
load: .venv/test
	.venv/bin/python -m tests.load
	.venv/bin/python -m tests.load --loop uvloop
	.venv/bin/python -m tests.load --adapter sync

# What MkDocs warns of is an error; its own future is not what it should warn of.
# The reference is made from copies of the .py files: what is compiled beside them would be read first.
docs: .venv-docs/docs
	rm -rf build/docs && mkdir -p build/docs
	cd src && find wsframe -name "*.py" | tar -cf - -T - | tar -xf - -C ../build/docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

dist: .venv/check
	.venv/bin/python $(PIP) install build
	WSFRAME_EXTENSION=no .venv/bin/python -m build

.venv/serve: $(SOURCES)
	@echo "wsframe: installing into .venv, and compiling $(words $(COMPILED)) modules: about a minute"
	find src -name "*.c" -delete  # Cython does not see what changed in setup.py
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) install --editable '.[cli]'
	@touch $@

.venv/test: .venv/serve
	@echo "wsframe: installing the peers and tools of the tests: about a minute"
	.venv/bin/python $(PIP) install --quiet --upgrade 'pip>=25.1'
	.venv/bin/python $(PIP) install --quiet --group test
	@touch $@

.venv/bench: .venv/test
	.venv/bin/python $(PIP) install --quiet --group bench
	@touch $@

.venv/check: .venv/test
	.venv/bin/python $(PIP) install --quiet --group check
	@touch $@

.venv-compiled/test .venv-asan/test: export WSFRAME_EXTENSION = yes
.venv-pure/test .venv-fuzz/fuzz: export WSFRAME_EXTENSION = no
.venv-asan/test: export CC = gcc
.venv-asan/test: export CFLAGS = -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer
.venv-compiled/test .venv-pure/test .venv-fuzz/fuzz .venv-asan/test: $(SOURCES) $(shell find src -name '*.py' -o -name '*.html')
	@echo "wsframe: installing a copy, WSFRAME_EXTENSION=$(WSFRAME_EXTENSION), into $(@D): a minute or two"
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) install --quiet --upgrade 'pip>=25.1'
	$(@D)/bin/python $(PIP) install --quiet --group $(@F)
	rm -rf build/lib* build/bdist* build/temp*
	$(@D)/bin/python $(PIP) install --force-reinstall --no-deps .
	$(@D)/bin/python $(PIP) install --quiet .
	@touch $@

# It reads the sources of wsframe, and does not import them.
.venv-docs/docs: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) install --quiet --upgrade 'pip>=25.1'
	$(@D)/bin/python $(PIP) install --quiet --group $(@F)
	@touch $@

clean:
	rm -rf .venv* build dist reports site src/*.egg-info
	find src -name '*.so' -o -name '*.c' | xargs rm -f
	find . -name __pycache__ -prune -exec rm -rf {} +
