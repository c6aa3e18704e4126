# Everything that a developer can do; `make help` lists it.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DATA ?=
IMAGE ?= deeprank
# The name as it was given, quoted for the shell: it may have spaces, quotes and dollar signs. Without DATA, DEEPRANK_DATA counts.
SET_DATA = $(if $(value DATA),DEEPRANK_DATA='$(subst ','\'',$(value DATA))' )
BASE_IMAGE ?=
IMAGE_ARGS ?=
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
# The image format `docker` has health checks, buildah's default format has none.
BUILD ?= $(shell docker info >/dev/null 2>&1 && echo docker build || echo buildah bud --layers --isolation chroot --format docker)

.PHONY: help setup demo test test-slow lint bench docs settings-docs image clean
.DEFAULT_GOAL := help

help: ## Print this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 23

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) -e '.[dev,bench]'
	$(BIN)/python -m deeprank.home
	@touch $@

setup: $(STAMP) ## Create virtual environment, state folder and ZenML stack
	$(BIN)/python -m pipelines.setup

demo: setup ## Train, evaluate and register a model on example images; DATA=folder for your own
	$(SET_DATA)$(BIN)/zenml pipeline run pipelines.training -c configs/demo.yaml
	@$(BIN)/deeprank summary

lint: $(STAMP) ## Check format, style, types and imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One worker runs all tests of a file, so that fixtures are built once. Files start in order of collection: the e2e tests first.
test: lint ## Lint, then run the quick tests, one of which runs the whole pipeline
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow'

test-slow: $(STAMP) ## Run the tests that take minutes
	$(BIN)/pytest -m slow

bench: $(STAMP) ## Compare with other tools, side by side
	@for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

docs: $(STAMP) settings-docs ## Build the documentation site in build/docs
	$(PIP_INSTALL) -e '.[docs]'
	$(BIN)/mkdocs build --strict --site-dir build/docs

settings-docs: $(STAMP) ## Write docs/settings.md from the settings' classes
	$(BIN)/python -m pipelines.settings_docs

image: ## Build the container image with docker or buildah; BASE_IMAGE=…, IMAGE_ARGS='--build-arg TORCH_INDEX=' (CUDA)
	$(BUILD) --file docker/Dockerfile --tag $(IMAGE) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE='$(BASE_IMAGE)') \
		--build-arg COMMIT="$$(git describe --always --dirty --abbrev=40)" $(IMAGE_ARGS) .

clean: ## Remove virtual environment and state folder
	rm -rf .venv .deeprank build *.egg-info
