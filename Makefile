# What a developer can do here. `make help` lists it.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DATA ?=
IMAGE ?= deeprank
BASE_IMAGE ?=
IMAGE_ARGS ?=
# `docker` format: the other one knows no health checks.
BUILD ?= $(shell docker info >/dev/null 2>&1 && echo docker build || echo buildah bud --layers --isolation chroot --format docker)

.PHONY: help setup demo test test-slow lint bench image clean
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

demo: setup ## Train, evaluate and register a model on images; DATA=folder for your own
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

image: ## The container image `deeprank`, by docker or else buildah; BASE_IMAGE=…, IMAGE_ARGS='--build-arg TORCH_INDEX=' (CUDA)
	$(BUILD) --file docker/Dockerfile --tag $(IMAGE) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE='$(BASE_IMAGE)') \
		--build-arg COMMIT="$$(git describe --always --dirty --abbrev=40)" $(IMAGE_ARGS) .

clean: ## Remove environment and state
	rm -rf .venv .deeprank build *.egg-info
