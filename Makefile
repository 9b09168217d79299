# make demo [CORPORA=DIR]   the main job, end to end, on the corpus that ships here or on yours
# make demo-s3 [CORPORA=DIR]  the same from a bucket on an S3 server of the tests, with a cache smaller than the data
# make climb-demo [CORPORA=DIR] [LANGUAGES="ca en es"]  pilots of three languages, a law fitted to them, the run it plans
# make test                 the whole test suite
# make lint                 ruff, mypy, import-linter
# make docs                 the documentation site, into build/site; make docs-pictures draws its pictures anew
# make bench [BENCH=--quick]  every benchmark, beside other loaders
# Each makes .venv first, once; a change of pyproject.toml or of the kernels makes it again.

CORPORA ?= recipes/quickstart
DEMO    ?= runs/$(shell basename -- "$$(realpath -m -- "$(CORPORA)")")
RECIPE  ?= recipes/demo.yaml
VENV    := .venv
BIN     := $(VENV)/bin

# Of demo-s3: shards so small, and a cache so small, that even a small corpus does not fit into it.
SHARD_BYTES ?= $(shell size=$$(du -sb -- "$(CORPORA)" | cut -f 1); echo $$((size > 131072 ? size / 64 : 2048)))
CACHE_LIMIT ?= $(shell echo $$((8 * $(SHARD_BYTES) * $$(find "$(CORPORA)" -type f | wc -l) + 8192)))
IS_GIVEN     = $(filter command environment,$(word 1,$(origin $(1))))

.PHONY: demo demo-s3 demo-of-bucket climb-demo test lint docs docs-pictures bench clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,8s/^# //p' Makefile

# The supported Pythons are Composer's: 3.10 to 3.12.
FIND_PYTHON = for p in $(PYTHON) python3 python3.12 python3.11 python3.10; do \
	  $$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && { echo $$p; break; }; done

$(VENV)/installed: pyproject.toml setup.py mixstream/_kernels.c
	@python=$$($(FIND_PYTHON)); \
	  [ -n "$$python" ] || { echo "mixstream needs Python 3.10, 3.11 or 3.12; none was found (PYTHON=/path/to/python3.11 names one)" >&2; exit 2; }; \
	  echo "installing into $(VENV) with $$($$python --version), once (some minutes, about 6 GB) ..."; \
	  $$python -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=24.2'  # older ones try versions for many minutes
	@PYTHONWARNINGS='ignore:Editable installation' \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@if command -v npm >/dev/null; then \
	  timeout 180 npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite azurite@3 </dev/null >/dev/null 2>&1 \
	    || echo "Azurite could not be installed; the tests of Azure will skip" >&2; fi
	@touch $@

demo: $(VENV)/installed
	$(BIN)/mixstream convert "$(CORPORA)" --out "$(DEMO)/streams" --sequence-length 128 --holdout 0.15 \
	  $(if $(call IS_GIVEN,SHARD_BYTES),--shard-bytes $(SHARD_BYTES))
	$(BIN)/mixstream train $(RECIPE) --streams "$(DEMO)/streams" --out "$(DEMO)"
	$(BIN)/mixstream report "$(DEMO)/proxy" "$(DEMO)/base" "$(DEMO)/uniform" --out "$(DEMO)/report.html"

# The bucket lives as long as the command: what was trained goes on, streams are made and uploaded anew.
demo-s3: $(VENV)/installed
	$(BIN)/python -m tests.servers.s3 --bucket mixstream -- $(MAKE) --no-print-directory demo-of-bucket

demo-of-bucket: URL := s3://mixstream/streams
demo-of-bucket: OUT := $(DEMO)-s3
demo-of-bucket:
	$(BIN)/mixstream convert "$(CORPORA)" --out "$(URL)" --sequence-length 128 --holdout 0.15 \
	  --shard-bytes $(SHARD_BYTES)
	$(BIN)/mixstream train $(RECIPE) --streams "$(URL)" --out "$(OUT)" \
	  --cache-dir "$(OUT)/cache" --cache-limit "$(CACHE_LIMIT)"
	$(BIN)/mixstream report "$(OUT)/proxy" "$(OUT)/base" "$(OUT)/uniform" --out "$(OUT)/report.html"

# What takes long, pilots and the two runs, goes on where it was interrupted.
LANGUAGES    ?= ca en es
CLIMB        ?= runs/climb-$(shell basename -- "$$(realpath -m -- "$(CORPORA)")")
CLIMB_TOKENS ?= 400k
climb-demo: export OMP_NUM_THREADS := $(or $(OMP_NUM_THREADS),1)  # so small a model is no quicker on two
climb-demo: $(VENV)/installed
	$(BIN)/mixstream convert $(foreach language,$(LANGUAGES),"$(CORPORA)"/$(language).*) --out "$(CLIMB)/streams" \
	  --sequence-length 64 --holdout 0.15
	$(BIN)/mixstream climb pilots recipes/climb_demo.yaml --streams "$(CLIMB)/streams" --out "$(CLIMB)/pilots"
	$(BIN)/mixstream climb run "$(CLIMB)/pilots"
	$(BIN)/mixstream climb collect "$(CLIMB)/pilots" --out "$(CLIMB)/runs.parquet"
	$(BIN)/mixstream climb fit "$(CLIMB)/runs.parquet" --out "$(CLIMB)/climb.json" --folds 6
	$(BIN)/mixstream climb solve "$(CLIMB)/climb.json" --streams "$(CLIMB)/streams" --tokens $(CLIMB_TOKENS) \
	  --objective sum_loss --max-repeats 40 --runs "$(CLIMB)/runs.parquet" --out "$(CLIMB)/weights.json" \
	  --beside "$(CLIMB)/beside"
	$(BIN)/mixstream train recipes/climb_demo_base.yaml --streams "$(CLIMB)/streams" --out "$(CLIMB)/base" \
	  --weights "$(CLIMB)/weights.json"
	$(BIN)/mixstream train recipes/climb_demo_base.yaml --streams "$(CLIMB)/streams" --out "$(CLIMB)/uniform" \
	  --weights "$(CLIMB)/beside/uniform.json"
	$(BIN)/mixstream climb compare "$(CLIMB)/climb.json" "$(CLIMB)/base" "$(CLIMB)/uniform"

test: $(VENV)/installed
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/installed
	$(BIN)/mkdocs build --strict --quiet
	@echo "the site is in build/site; open build/site/index.html, or serve it, so that its search works: python3 -m http.server -d build/site"

docs-pictures: $(VENV)/installed
	$(BIN)/python docs/pictures.py

bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python benchmarks/run_all.py $(BENCH)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
