# Everything from a fresh checkout. Needed before: Python 3.11 or later with its
# headers and venv module, and a C compiler.
#
#   make demo     see it work
#   make test     run the tests            (PYTEST_ARGS='-k tcp' runs some)
#   make lint     ruff: style and likely mistakes
#   make types    mypy: types
#   make docs     the documentation, into build/docs
#   make conformance  which items of RFC 9622 and RFC 9623 are tested
#   make check    all of the above but the demo
#   make bench    every benchmark, into docs/performance: a quarter of an hour
#   make bench-short  the main ones, in a minute, to look at
#   make bench-check  have the hot paths become longer? (needs valgrind)
#   make clean    remove what these made
#
# Another interpreter: make PYTHON=python3.13 VENV=.venv313 test

SHELL := /bin/sh
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$name && break; done)
VENV ?= .venv
PYTEST_ARGS ?=
BENCH_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
STAMPS := $(VENV)/stamps
PROJECT := setup.py pyproject.toml lib/greentaps/_version.py

.PHONY: help demo test lint types docs conformance check bench bench-short bench-check clean
.DELETE_ON_ERROR:

help:
	@sed -n '/^#   make/s/^# *//p' Makefile

demo: $(STAMPS)/demo
	$(BIN)/python -m greentaps demo

test: $(STAMPS)/test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMPS)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMPS)/types
	$(BIN)/mypy

docs: $(STAMPS)/docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "Open build/docs/index.html"

conformance: $(STAMPS)/test
	$(BIN)/python tests/rfc9622/conformance.py

check: lint types docs test

bench: $(STAMPS)/bench
	$(BIN)/python -m benchmarks.run --record docs/performance $(BENCH_ARGS)

bench-short: $(STAMPS)/bench
	$(BIN)/python -m benchmarks.run --short $(BENCH_ARGS)

bench-check: $(STAMPS)/bench
	$(BIN)/python -m benchmarks.check $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build dist .tox .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf lib/greentaps.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- the virtual environment, step by step; each stamp says that its step is done --

$(STAMPS)/venv:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later found: install one," \
		"or say where it is: make PYTHON=/path/to/python"; exit 1; }
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Could not make $(VENV)." \
		"On Debian this needs: apt-get install python3-venv"; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/pyuv: $(STAMPS)/venv deps/pyuv/pyproject.toml $(wildcard deps/pyuv/backend/*.[hp]*)
	@echo "Building pyuv"
	$(PIP) --force-reinstall ./deps/pyuv
	@touch $@

# Each of the extras of setup.py, installed when first asked for.
$(addprefix $(STAMPS)/,test demo lint types docs bench): $(STAMPS)/%: $(STAMPS)/pyuv $(PROJECT)
	@echo "Installing greentaps[$*]"
	$(PIP) --editable '.[$*]'
	@touch $@
