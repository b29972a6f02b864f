# `make help` lists the commands.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help demo test check bench chaos proof

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cfqueue needs Python >= 3.11; $$($(PYTHON) --version) was found. Try: make PYTHON=python3.12"; exit 1; }
	@echo "Making $(VENV) and installing cfqueue (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $(STAMP)

$(VENV)/.dev: $(STAMP)
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

demo: $(STAMP) ## the main job on real input, on this machine; ARGS="--exit" ends by itself
	@$(BIN)/cfqueue demo $(ARGS)

test: $(VENV)/.dev ## the test suite; ARGS="-k name" chooses
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev ## formatting, lint, types, import contracts, docs
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/docs -m "not worker"

bench: $(VENV)/.dev ## benchmarks beside their peers; writes benchmarks/results/*.json
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: $(VENV)/.dev ## fault injection with a ledger; SEED= MESSAGES= BROKER=
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(MESSAGES),--messages $(MESSAGES)) $(if $(BROKER),--broker $(BROKER)) $(ARGS)

proof: $(VENV)/.dev ## what is too large for `make test`; writes reports under docs/
	@$(BIN)/python -m tests.chaos --messages 20000 --kills 60 --report docs/chaos.md
	@$(BIN)/python -m tests.proof.rows --report docs/rows.md
	@$(BIN)/python -m tests.proof.versions --report docs/versions.md
	@$(BIN)/python -m benchmarks --report docs/benchmarks.md
