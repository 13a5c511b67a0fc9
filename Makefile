# Everything that a developer runs. Stamps in .venv make each step happen once, and again when what it depends on changes.
#
#   make demo    show on generated data what the cache does to an analysis
#   make test    all checks: lint, types, tests; the same as in CI
#   make test-long    what takes long, and over each server the tests for which servers take turns in `make test`
#   make lint    only ruff and mypy
#   make bench   the benchmarks
#   make test-cephfs    what two clients of a real CephFS make of one cache, and S3 by Ceph's gateway; needs root and
#                       Debian's packages of Ceph
#   make conformance    the test suites of other projects, without JCache and with it, cold and warm; takes long
#   make man     write the manual pages anew, from what the commands say of themselves
#   make clean   remove what was built, the environment too

MIN_PYTHON := (3, 11)
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < $(MIN_PYTHON))' 2>/dev/null && echo $$python && break; done)
PYTEST_ARGS ?=
# Test files that run side by side: tests wait for servers, clocks and processes a seventh of the time.
TEST_JOBS ?= 3

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# pip compiles what it installs on one processor; what cannot be compiled is nobody's to import.
COMPILE := $(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
SOURCES := $(shell find jcache plugins docs/man -type f ! -path '*/__pycache__/*')

# What the tests and the demo use where Debian has it: a real XRootD daemon and its clients, a real nginx, strace to count
# system calls, FUSE to mount, and a client of HTTP that asks over many connections at once.
DEBIAN_COMMANDS := xrootd nginx strace fusermount3 aria2c xrdcp
DEBIAN_PACKAGES := xrootd-server nginx-light strace fuse3 aria2 xrootd-client
# What `jcache serve --xrootd` needs besides; not every release has it.
DEBIAN_PLUGINS := xrootd-client-http-plugins

.DELETE_ON_ERROR:
.SUFFIXES:
.NOTPARALLEL:
.PHONY: help demo test test-long test-cephfs conformance lint bench man clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/demo.stamp $(VENV)/jcache.stamp $(VENV)/debian.stamp
	$(BIN)/jcache demo $(DEMO_ARGS)

# Lint runs beside the tests, and is shown behind them: it has one processor only, and so has what ends last of the tests.
test: $(VENV)/ecosystem.stamp $(VENV)/jcache.stamp $(VENV)/debian.stamp
	@$(MAKE) --no-print-directory lint > $(VENV)/lint.log 2>&1 & lint=$$!; \
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS); \
	tests=$$?; wait $$lint; lint=$$?; cat $(VENV)/lint.log; exit $$((tests | lint))

test-long: $(VENV)/ecosystem.stamp $(VENV)/root.stamp $(VENV)/jcache.stamp $(VENV)/debian.stamp
	env -u PYTHONDONTWRITEBYTECODE JCACHE_TEST_LONG=1 $(BIN)/pytest -m "long or turns" -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-cephfs: $(VENV)/test.stamp $(VENV)/jcache.stamp $(VENV)/debian.stamp
	JCACHE_TEST_CEPHFS=1 $(BIN)/pytest -rs tests/end_to_end/test_cephfs.py tests/origins/test_s3_origin.py $(PYTEST_ARGS)

conformance: $(VENV)/ecosystem.stamp $(VENV)/jcache.stamp $(VENV)/debian.stamp
	$(BIN)/python tests/conformance $(SUITES)
	JCACHE_TEST_LONG=1 $(BIN)/pytest tests/hooks/test_filesystem_contract.py

lint: $(VENV)/test.stamp $(VENV)/jcache.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/test.stamp $(VENV)/jcache.stamp $(VENV)/debian.stamp
	$(BIN)/pytest bench/test_parts.py --benchmark-enable --benchmark-columns=median,iqr,rounds
	$(BIN)/python bench $(BENCH_ARGS)

man: $(VENV)/jcache.stamp
	$(BIN)/python tests/support/manual.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/python.stamp:
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11 or later; say where it is: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) 'hatchling>=1.24'
	@touch $@

# The dependencies. XRootD's client has no wheel for every platform and takes long to build: without it, the rest works.
$(VENV)/demo.stamp: EXTRAS := demo
$(VENV)/test.stamp: EXTRAS := test
$(VENV)/demo.stamp $(VENV)/test.stamp: pyproject.toml $(VENV)/python.stamp
	$(PIP) --no-compile --only-binary=xrootd '.[$(EXTRAS),xrootd]' || { \
		echo "make: going on without XRootD: its client cannot be installed here" >&2; $(PIP) '.[$(EXTRAS)]'; }
	@$(COMPILE)
	@touch $@

# The libraries that the tests are run with, beside what is there: found out all at once, pip would try versions for minutes.
# DuckDB is of the version that its extension is for, whichever an earlier run has installed.
$(VENV)/ecosystem.stamp: $(VENV)/test.stamp
	$(BIN)/python -m pip freeze --exclude jcache --exclude duckdb > $(VENV)/constraints.txt
	$(PIP) --no-compile --constraint $(VENV)/constraints.txt '.[ecosystem]' \
		|| echo "make: going on without the libraries that are cached: their tests are skipped" >&2
	@$(COMPILE)
	@touch $@

# ROOT takes long to download, and half a gigabyte.
$(VENV)/root.stamp: $(VENV)/ecosystem.stamp
	$(PIP) --only-binary=root --constraint $(VENV)/constraints.txt '.[root]' \
		|| echo "make: going on without ROOT, which has no wheel for this Python: its test is skipped" >&2
	@touch $@

# JCache itself, installed as a user has it.
$(VENV)/jcache.stamp: $(SOURCES) pyproject.toml $(wildcard README.md) $(VENV)/python.stamp
	$(PIP) --no-build-isolation --force-reinstall --no-deps .
	@touch $@

# Tried once: where it may not be installed, the demo and the tests say what they do without.
$(VENV)/debian.stamp: $(VENV)/python.stamp
	@missing=; for command in $(DEBIAN_COMMANDS); do \
		PATH="$$PATH:/usr/sbin:/sbin" command -v $$command >/dev/null || missing="$$missing $$command"; done; \
	if test -n "$$missing" && command -v apt-get >/dev/null; then \
		if test "$$(id -u)" = 0; then root=; elif sudo -n true 2>/dev/null; then root="sudo -n"; else root=false; fi; \
		echo "installing $(DEBIAN_PACKAGES) (missing:$$missing)"; \
		{ $$root apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			$$root apt-get install -y -qq --no-install-recommends $(DEBIAN_PACKAGES); } >/dev/null 2>&1 \
			|| echo "not installed:$$missing; what needs it is skipped"; \
		DEBIAN_FRONTEND=noninteractive \
			$$root apt-get install -y -qq --no-install-recommends $(DEBIAN_PLUGINS) >/dev/null 2>&1 \
			|| echo "not installed: $(DEBIAN_PLUGINS); what needs it is skipped"; \
	fi
	@touch $@
