# Headwater. `make` alone lists what there is. Works with GNU make 3.81 (macOS) and any POSIX make.
UV_VERSION = 0.13.8
BIN = .venv/bin
# further words for a command, e.g. make test ARGS="tests/cli -x"
ARGS =
# how many processes share the tests; each has a PostgreSQL of its own. Three on two cores: a third of the time is waiting
WORKERS = 3
# an interpreter to use before any that is found on PATH, e.g. make setup PYTHON=/usr/local/bin/python3.12
PYTHON =

.PHONY: help setup demo ui test test-all conformance lint format types bench doctor clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## .venv with everything of uv.lock, and .env; does nothing when both are there
	@UV_VERSION=$(UV_VERSION) PYTHON="$(PYTHON)" sh scripts/setup.sh

demo: setup ## real data through every stream and every model, then one table; ends by itself
	@$(BIN)/headwater demo $(ARGS)

ui: setup ## the Dagster UI on http://127.0.0.1:3000 with daemon and demo sources
	@$(BIN)/headwater up $(ARGS)

# a test that fails is run once more and named as such: a machine that stalls refuses nobody, and does not go unseen
# the same examples for everybody here; `make test-all` draws new ones each time
test: setup ## the tests, without the slow ones
	@$(BIN)/python -m pytest -m "not slow" --hypothesis-profile=ci --reruns 1 -rR -n $(WORKERS) --dist loadfile \
		--no-loadscope-reorder $(ARGS)

test-all: setup ## all tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

# what stands on programs of others, which are fetched from the package index: docs/export.md, docs/singer.md
CONFORMANCE = tests/export/test_conformance.py tests/singer/test_target_streams.py tests/singer/test_tap_postgres.py \
	tests/singer/test_log_based.py tests/airbyte/test_real_sources.py tests/airbyte/test_images.py \
	tests/process/test_lost_loader.py

conformance: setup ## the suites of Singer and Airbyte over what we export and load; real taps and sources
	@$(BIN)/python -m pytest $(CONFORMANCE) --timeout 1800 --reruns 1 -rR -n $(WORKERS) --dist loadfile $(ARGS)

lint: setup ## style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup ## put the code in shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: setup ## strict types
	@$(BIN)/pyright

bench: setup ## every claim of docs/performance.md, measured
	@$(BIN)/python -m benchmarks $(ARGS)

doctor: setup ## everything that could stop a run, checked before anything runs
	@$(BIN)/headwater doctor $(ARGS)

clean: ## caches and build results; .venv, .env and the data under .headwater stay
	@rm -rf .ruff_cache .pytest_cache .hypothesis build dist dbt_project/target dbt_project/logs
	@find . -name __pycache__ -type d -not -path './.venv/*' -exec rm -rf {} +
