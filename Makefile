# Everything is set up into .venv; a second run starts in seconds. `make help` lists the commands.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location

.DEFAULT_GOAL := help
.PHONY: help setup machine demo serve test test-fast test-machine check simulate lock clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1  \t/p' Makefile

.venv/.runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tomada needs Python 3.11 or newer; set PYTHON=")'
	@echo "setting up .venv (once)" >&2
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@$(PIP_INSTALL) --require-hashes -r requirements.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

machine: .venv/.runtime ## build the program that speaks to WhatsApp; the other commands do it by themselves
	@$(BIN)/python machine/build.py

.venv/.dev: .venv/.runtime requirements-dev.lock | machine
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

setup: machine ## set everything up in .venv; the other commands do it by themselves

demo: machine ## show the whole product once, against the simulated network
	@$(BIN)/python -m tomada.demo

serve: machine ## start a server with the sandbox, to try by hand
	@$(BIN)/python -m tomada.demo --serve

check: .venv/.dev ## formatting, lint, types, dependency direction
	@$(BIN)/ruff format --check src tests bench machine
	@$(BIN)/ruff check src tests bench machine
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python machine/build.py check

test-machine: .venv/.dev
	@$(BIN)/python machine/build.py test

WORKERS ?= 4
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
test: check test-machine ## everything that CI runs, in WORKERS=4 processes: most tests wait, two cores are enough
	@$(BIN)/python -m pytest $(PARALLEL) tests

test-fast: .venv/.dev ## what one runs all the time: unit, the wire, one story over HTTP
	@$(BIN)/python -m pytest $(PARALLEL) tests/unit tests/integration/wire tests/acceptance/test_main_job.py

RUNS ?= 100000
SEED ?= 0
simulate: .venv/.dev ## lives of instances under every fault: RUNS=1000000 SEED=0
	@$(BIN)/python -m tests.simulation.lifecycle --runs $(RUNS) --seed $(SEED)

lock: ## pin the dependencies anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml --group dev -o requirements-dev.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml --group build -c requirements-dev.lock -o requirements.lock
	echo "$$(sed 's/ .*//;q' machine/toolchain.lock)" | uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-deps - -o machine/toolchain.lock

clean: ## remove .venv; data/ holds accounts and sessions and stays
	rm -rf .venv
