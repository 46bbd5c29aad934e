# Every target does its own set-up; `make` alone shows them.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
BENCH_ARGS ?=
MUTANTS_ARGS ?=
BENCH_VENV := .venv-bench
VEGETA := v12.13.0

.DEFAULT_GOAL := help
.PHONY: help setup run test test-unit test-repeat test-long services lint format bench mutants lock clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The lock is installed with hashes, then the checkout itself; the two cannot share one call.
$(BIN)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "weir: needs Python 3.11 or newer; name one with `make PYTHON=python3.11 ...`")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(BIN)/.ready-dev: requirements-dev.lock $(BIN)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

setup: $(BIN)/.ready  ## make .venv and install what running needs

run: $(BIN)/.ready  ## run the server on config.toml
	exec $(BIN)/python supervisor.py

test: $(BIN)/.ready-dev  ## the whole test suite, quick unit stage first
	$(BIN)/python -m pytest -q -m "not process and not engines and not long" $(PYTEST_ARGS)
	$(BIN)/python -m pytest -q -m "(process or engines) and not long" $(PYTEST_ARGS)

test-unit: $(BIN)/.ready-dev  ## the quick stage alone: no server processes
	$(BIN)/python -m pytest -q -m "not process and not engines and not long" $(PYTEST_ARGS)

test-repeat: $(BIN)/.ready-dev  ## the actor suites 50 times, each time in another random order
	@set -o pipefail; for seed in $$(seq 1 50); do \
	  $(BIN)/python -m pytest -q -p no:cacheprovider --randomly-seed=$$seed tests/runtime tests/actors $(PYTEST_ARGS) \
	    | tail -n 1 | sed "s/^/seed $$seed: /" || exit 1; \
	done

test-long: $(BIN)/.ready-dev  ## the long matrices
	$(BIN)/python -m pytest -q -m "long" $(PYTEST_ARGS)

services:  ## install Redis, PostgreSQL and Kafka for the tests, where they are missing
	@tools/services/install.sh

lint: $(BIN)/.ready-dev  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(BIN)/.ready-dev  ## rewrite the sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The peers live in an environment of their own: what they need is nothing Weir needs.
$(BENCH_VENV)/.ready: bench/requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "weir: needs Python 3.11 or newer; name one with `make PYTHON=python3.11 ...`")'
	test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bench/requirements.lock
	@touch $@

# For the constant-rate rows. Without Go, or without a network, the bench says which rows it skips.
$(BENCH_VENV)/bin/vegeta: $(BENCH_VENV)/.ready
	@if command -v go > /dev/null; then \
	  GOBIN="$(CURDIR)/$(BENCH_VENV)/bin" go install github.com/tsenart/vegeta/v12@$(VEGETA) \
	    || echo "bench: vegeta could not be installed; its rows will be skipped"; \
	else echo "bench: no Go on PATH (https://go.dev/dl), so no vegeta"; fi

bench: $(BIN)/.ready $(BENCH_VENV)/bin/vegeta  ## compare with the peers (BENCH_ARGS=--quick for a first look)
	$(BENCH_VENV)/bin/python -m bench.flow $(BENCH_ARGS)

mutants: $(BIN)/.ready-dev  ## change the runtime in small places: do its tests notice? (MUTANTS_ARGS="--sample 150")
	$(BIN)/python -m tools.mutants $(MUTANTS_ARGS)

lock: $(BIN)/.ready-dev  ## resolve the lock files anew (needs uv on PATH)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements.lock bench/requirements.in -o bench/requirements.lock

clean:  ## remove what the targets made (not your data)
	rm -rf $(VENV) $(BENCH_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
