# Everything works on a fresh clone with make and Python 3.11 or newer: `make demo`, then `make test`.
PYTHON ?= python3
BIN := .venv/bin
RUN := .venv/.ready-run
DEV := .venv/.ready-dev
INSTALL := $(BIN)/python -m pip install -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-wheel coverage lint docs bench clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/'

# An idle thread soon sleeps; one that spins for long would starve whatever shares the cores.
demo: $(RUN)  ## meta-train on ten thousand patients, adapt to new ones, write demo/
	GOMP_SPINCOUNT=1000 $(BIN)/ehrmeta --threads 2 demo

test: $(DEV)  ## run every test, the slow ones too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

coverage: $(DEV)  ## run every test and list the lines that none of them reaches
	$(INSTALL) pytest-cov
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --cov ehrmeta --cov-report term-missing:skip-covered

# Elsewhere, so that nothing is imported from this checkout; what builds a wheel is left out.
WHEEL := build/wheel
test-wheel: $(DEV)  ## run every test against the built wheel in an environment of its own
	rm -rf $(WHEEL) && mkdir -p $(WHEEL)
	$(BIN)/python -m build --wheel --no-isolation --outdir $(WHEEL) .
	$(PYTHON) -m venv $(WHEEL)/.venv
	$(WHEEL)/.venv/bin/python -m pip install -c constraints.txt "$$(ls $(WHEEL)/*.whl)[dev]"
	cp -r tests benchmarks tutorials docs datasets README.md CHANGELOG.md CONTRIBUTING.md pyproject.toml $(WHEEL)
	cd $(WHEEL) && OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 tests benchmarks --pyargs ehrmeta \
		--ignore tests/test_packaging.py

lint: $(DEV)  ## format check, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The first time every tutorial runs, which takes minutes; later only those that have changed.
docs: $(DEV)  ## build the site in docs/_build/html: guide, tutorials with pictures, API reference
	GOMP_SPINCOUNT=1000 $(BIN)/python -m sphinx -a -W --keep-going docs docs/_build/html

SUITE ?= --help
bench: $(RUN)  ## run a benchmark suite beside its peers: make bench SUITE="patients --quick"
	$(INSTALL) -e '.[bench]'
	$(BIN)/python -m benchmarks $(SUITE)

clean:  ## remove the environment and everything built
	rm -rf .venv build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf docs/_build docs/api/generated docs/tutorials
	find ehrmeta benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment: what the package itself needs, then the tools. A stamp is written last, so a failed
# installation is tried again and a finished one is not repeated.
$(RUN): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || \
		{ echo "ehrmeta needs Python 3.11 or newer, and '$(PYTHON)' is not installed." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ehrmeta needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
		"Name a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) -e .
	@touch $@

$(DEV): $(RUN)
	$(INSTALL) -e '.[dev]'
	@touch $@
