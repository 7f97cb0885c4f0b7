# The two commands: `make build` and `make test`. Each makes .venv and installs what it needs.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WHAT_TO_INSTALL := pyproject.toml constraints.txt
# Tests run on this many processes, one thread each: two fill the smallest machine that CI has.
WORKERS ?= 2

.PHONY: build test coverage check docs install clean

build: $(VENV)/.all
	$(BIN)/mobilekd build --profile android-arm64

# Which lines ran takes half as long again to write down: only `make coverage` does.
PYTEST_OPTIONS ?= --durations=25
coverage: PYTEST_OPTIONS = --cov --cov-report=term:skip-covered
coverage: test

test: $(VENV)/.dev check
	$(BIN)/mobilekd toolchain install onnx2tf
	-$(BIN)/mobilekd toolchain install tflite-support # needs a CPython 3.11; a test says so where there is none
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder $(PYTEST_OPTIONS) -q

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/check_size.py

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

install: $(VENV)/.all

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "no CPython 3.11 to 3.13 runs here; install one, or: make PYTHON=/path/to/python"; exit 3; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch first and pinned: an open range would bring another torch, and another set of CUDA packages.
$(VENV)/.all: $(VENV)/.python $(WHAT_TO_INSTALL)
	$(PIP) install -q -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(PIP) install -q -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.all
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) dist build site
