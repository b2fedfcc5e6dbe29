# Every target does its own set-up; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}'

.PHONY: setup
setup: $(STAMP) ## Make .venv from this machine's Python, with both commands in it

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.PHONY: check
check: setup ## Lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: requirements
requirements: ## Pin the dependencies again (needs uv)
	uv pip compile --generate-hashes --no-emit-index-url --python-version 3.11 --group dev --extra fetch pyproject.toml -o requirements/dev.txt
	uv pip compile --generate-hashes --no-emit-index-url --python-version 3.11 pyproject.toml -o requirements/operator.txt
	uv pip compile --generate-hashes --no-emit-index-url --python-version 3.11 -c requirements/dev.txt requirements/fetch.in -o requirements/fetch.txt
	uv pip compile --generate-hashes --no-emit-index-url --python-version 3.11 -c requirements/dev.txt requirements/build.in -o requirements/build.txt
	uv pip compile --generate-hashes --no-emit-index-url --python-version 3.11 requirements/moto.in -o requirements/moto.txt

.PHONY: manifests
manifests: setup ## Make again what is made from the chart: CRDs, schema, README, manifests/operator.yaml
	$(BIN)/python -m nosana_tools.chart

.PHONY: docs
docs: setup ## Make docs/reference and docs/metrics.md again from the code
	$(BIN)/python -m nosana_tools.reference

.PHONY: sandbox
sandbox: setup ## Start the sandbox and leave it up (GPUS=4 NODES=2)
	$(BIN)/nosana-sandbox up --gpus $(or $(GPUS),4) --nodes $(or $(NODES),2)

.PHONY: sandbox-down
sandbox-down: setup ## Stop the sandbox and remove all of it
	$(BIN)/nosana-sandbox down

.PHONY: demo
demo: setup ## Jobs all the way: posted, run, settled (JOBS="a.json b.json", KEEP=1, INSTALL=helm)
	$(BIN)/python -m nosana_sandbox.demo $(if $(KEEP),--keep) $(if $(INSTALL),--install $(INSTALL)) $(JOBS)

.PHONY: test
test: setup ## Every ring: unit, contract, cluster (needs Linux and root for the last)
	$(BIN)/python -m nosana_sandbox.prepare
	$(BIN)/pytest -n 3 --dist loadgroup -m "not soak"

.PHONY: unit
unit: setup ## The unit ring alone: no cluster, no Go
	$(BIN)/pytest -m "not contract and not cluster and not soak"

.PHONY: contract
contract: setup ## The contract ring alone: builds a bare API server, needs Go
	$(BIN)/python -m nosana_sandbox.prepare
	$(BIN)/pytest -m "contract and not soak"

.PHONY: soak
soak: setup ## The full numbers: 100 jobs with the operator killed at random moments, and more
	$(BIN)/python -m nosana_sandbox.prepare
	$(BIN)/pytest -m soak -s
	$(BIN)/python -m nosana_tools.mutations --workers 2

.PHONY: rights
rights: setup ## Record again what the operator asks of the API server in a full run (tests/data/rights)
	$(BIN)/python -m nosana_sandbox.prepare
	$(BIN)/pytest tests/cluster/test_install.py --update-recorded

.PHONY: bench
bench: setup ## Measure; figures go to benchmarks/out/NAME.json; fails when a goal is missed
	$(BIN)/python -m benchmarks.run

.PHONY: clean
clean: ## Remove what make made here (the sandbox's build cache stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis benchmarks/out dist
