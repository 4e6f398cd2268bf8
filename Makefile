# `make help` lists the commands. All of them use the virtual environment that `make install` makes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN_DIR ?= runs/latent_2

.DEFAULT_GOAL := help
.PHONY: help install run test lint bench results notebooks clean

help: ## list these commands
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

$(VENV)/.installed: requirements.txt requirements-dev.txt requirements-export.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed ## make .venv with everything that is needed (5.5 GB, a few minutes)

run: install ## train latent size 2, measure it, draw it: RUN_DIR=runs/latent_2
	$(BIN)/python -m vae train --latent-size 2 --resume --run-dir $(RUN_DIR)

test: lint ## check the style and run the tests
	$(BIN)/python -m pytest -n 2

lint: install ## check the style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/vermin --quiet --no-tips --target=3.10- --violations vae tools
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

bench: install ## where a training step's time goes, and the time to the reference's quality
	$(BIN)/python tools/bench.py

results: install ## make what of assets/ is missing, after a plan with times (8 hours for all, on 2 cores)
	$(BIN)/python tools/results.py

notebooks: install ## write the notebooks and the README's tables again, with the repository's address
	$(BIN)/python tools/address.py
	$(BIN)/python tools/notebooks.py
	$(BIN)/python tools/readme.py

clean: ## remove the virtual environment and caches, not the runs
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info
