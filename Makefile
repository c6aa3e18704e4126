# What a developer can do here. `make help` lists it.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DATA ?=

.PHONY: help setup demo test test-slow lint bench clean
.DEFAULT_GOAL := help

help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	$(BIN)/python -m deeprank.home
	@touch $@

setup: $(STAMP) ## Virtual environment, packages, state folder, ZenML stack
	$(BIN)/python -m pipelines.setup

demo: setup ## Train, evaluate and register a model on photographs; DATA=folder for your own
	DEEPRANK_DATA='$(DATA)' $(BIN)/zenml pipeline run pipelines.training -c configs/demo.yaml
	@$(BIN)/deeprank summary

lint: $(STAMP) ## Format, lint, types, arrows between rooms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## Lint, then the quick tests and the whole pipeline once
	$(BIN)/pytest -m 'not slow'

test-slow: $(STAMP) ## The tests that take minutes
	$(BIN)/pytest -m slow

bench: $(STAMP) ## Side by side with the tools a user would pick instead
	@for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

clean: ## Remove environment and state
	rm -rf .venv .deeprank build *.egg-info
