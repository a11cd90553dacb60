# `make demo` and `make test` are all a newcomer needs; both set up .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One thread a process: on small and shared machines more of them make these small models slower.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where this is set, each process that a test starts compiles all it imports again: more than half of its time.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-slow test-all lint docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   set up $(VENV) and run the main job on a small generated set (a few minutes, CPU is enough)"
	@echo "make test   set up $(VENV) and run the tests that guard every promise (under 6 minutes on 2 cores)"
	@echo "make test-all    the same and the slow tests (under 30 minutes); make test-slow: these alone"
	@echo "make lint   ruff and mypy"
	@echo "make docs   build/docs/index.html: this documentation as pages to search; a warning is an error"
	@echo "make clean  remove $(VENV), demo/ and caches"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Byte-compiling 20,000 files that are never imported takes longer than compiling the imported ones on first use.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/surgdino demo

PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow

test-all: $(VENV)/.installed-dev
	$(PYTEST)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -E -W --keep-going -q docs build/docs
	@echo build/docs/index.html

clean:
	rm -rf $(VENV) demo build dist docs/reference/generated .pytest_cache .ruff_cache .mypy_cache
