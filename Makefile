# Every target does the set-up that it needs by itself; that takes less than a second when there is nothing to do.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run demo setup test test-thorough test-deep check lint bench screenshots

export PYTHON
# Without cached byte code a capture process takes twice as long to start.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
PYTEST := $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder
CODE := $(wildcard app scripts demo setup benchmarks tests)

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand --tabs=14

run: ## serve on http://127.0.0.1:8000, over LIBVIRT_URI, the system's libvirt, or demo VMs
	@exec setup/run.sh

demo: ## the same over demo VMs, in any case
	@exec setup/run.sh demo

setup: ## only the set-up for run and demo
	@setup/setup.sh demo

# What continuous integration calls is this, and there it has all that lands: lint, and the thorough tests as well.
test: $(if $(filter true,$(CI)),lint) ## every promise once: real QEMU guests and a real browser included
	@setup/setup.sh dev
	$(PYTEST) -m "not thorough and not deep"
ifeq ($(CI),true)
	$(PYTEST) -m "thorough and not deep"
endif

test-thorough: ## other phases, roles, shapes and widths, and rare faults
	@setup/setup.sh dev
	$(PYTEST) -m "thorough and not deep"

test-deep: ## the long and heavy tests
	@setup/setup.sh deep
	$(BIN)/pytest -m deep

check: lint ## the fast part: format, lint, types, import rules, unit tests
	$(BIN)/pytest tests/unit

lint: ## format, lint, types, import rules
	@setup/setup.sh dev
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports
	shellcheck .ci/run setup/*.sh demo/init.sh

bench: ## the benchmarks; writes docs/benchmarks.md
	@setup/setup.sh dev
	$(BIN)/python -m benchmarks

screenshots: ## pictures of every state of the page, to look at; into var/screenshots
	@setup/setup.sh dev
	$(BIN)/python -m tests.screenshots
