# The few commands that people type. `make help` lists them.
PYTHON ?= python3

.PHONY: help setup test nightly lint format bench clean
help:  ## Show this list.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup:  ## Install the checkout with everything the tests need.
	$(PYTHON) -m pip install -e '.[dev]'

test:  ## The default suite, minutes.
	$(PYTHON) -m pytest

nightly:  ## Everything, the slow tests included.
	$(PYTHON) -m pytest -m "slow or not slow" --timeout=3600

lint:  ## Linter, formatter, types.
	ruff check . && ruff format --check . && mypy

format:  ## Let the formatter and the linter mend what they can.
	ruff check --fix . && ruff format .

bench:  ## All benchmarks beside their peers; the tables go to benchmarks/README.md.
	$(PYTHON) -m benchmarks.ingest && $(PYTHON) -m benchmarks.storage && $(PYTHON) -m benchmarks.query

clean:  ## Remove caches, compiled kernels too (needed after editing a function that other kernels inline).
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
