PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test lint check bench clean

quickstart: .venv/installed        ## label the bundled texts: no key, no GPU, no model hub
	$(BIN)/freeal run configs/quickstart.yaml

test: .venv/installed              ## run the tests
	$(BIN)/python -m pytest

lint: .venv/installed              ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

bench: .venv/installed             ## what the local scorer and the student are worth, side by side
	$(BIN)/python benchmarks/local_scorer.py
	$(BIN)/python benchmarks/student.py
	$(BIN)/python benchmarks/client_overhead.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
