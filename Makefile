# make demo [CORPORA=DIR]   the main job, end to end, on the corpus that ships here or on yours
# make test                 the whole test suite
# make lint                 ruff, mypy, import-linter
# make bench [BENCH=--quick]  every benchmark, beside other loaders
# Each makes .venv first, once; a change of pyproject.toml or of the kernels makes it again.

CORPORA ?= recipes/quickstart
DEMO    ?= runs/$(shell basename -- "$$(realpath -m -- "$(CORPORA)")")
VENV    := .venv
BIN     := $(VENV)/bin

.PHONY: demo test lint bench clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,5s/^# //p' Makefile

# The supported Pythons are Composer's: 3.10 to 3.12.
FIND_PYTHON = for p in $(PYTHON) python3 python3.12 python3.11 python3.10; do \
	  $$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && { echo $$p; break; }; done

$(VENV)/installed: pyproject.toml setup.py mixstream/_kernels.c
	@python=$$($(FIND_PYTHON)); \
	  [ -n "$$python" ] || { echo "mixstream needs Python 3.10, 3.11 or 3.12; none was found (PYTHON=/path/to/python3.11 names one)" >&2; exit 2; }; \
	  echo "installing into $(VENV) with $$($$python --version), once (some minutes, about 6 GB) ..."; \
	  $$python -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@if command -v npm >/dev/null; then \
	  timeout 180 npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite azurite@3 </dev/null >/dev/null 2>&1 \
	    || echo "Azurite could not be installed; the tests of Azure will skip" >&2; fi
	@touch $@

demo: $(VENV)/installed
	$(BIN)/mixstream convert "$(CORPORA)" --out "$(DEMO)/streams" --sequence-length 128 --holdout 0.15
	$(BIN)/mixstream train recipes/demo.yaml --streams "$(DEMO)/streams" --out "$(DEMO)"
	$(BIN)/mixstream report "$(DEMO)/proxy" "$(DEMO)/base" "$(DEMO)/uniform" --out "$(DEMO)/report.html"

test: $(VENV)/installed
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python benchmarks/run_all.py $(BENCH)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
