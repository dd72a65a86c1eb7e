# The project's commands. `make help` lists them.
PYTHON      ?= python3
ACCELERATOR ?= $(if $(wildcard .venv/.installed-gpu),gpu,cpu)
PRESET      ?= digits-dcgan
DATA_ROOT   ?= data
MODEL_DIR   ?= models
PORT        ?= $(or $(ATELIER_PORT),3000)
BIND        ?= $(or $(ATELIER_BIND),127.0.0.1)
URL         ?= http://127.0.0.1:$(PORT)
IMAGES      ?= digits
NUM_IMAGES  ?= 10000
CASES       ?= 5000
JOBS        ?= 2
ONLY        ?=              # of `make reproduce`: kunal627 and other sources, ours, or presets; by default all of them
MINUTES     ?=              # of training per run, at most; by default the full lengths
METRICS     ?= fid,precision,recall
RESOLUTION  ?=              # to compare at: a side in pixels, or `reference`; the generator's own by default
ROLES       ?= trainer service evaluation    # and service-gpu
BASE        ?=              # of the images; `debootstrap` makes one of Debian's packages. By default python:3.11-slim-bookworm
TORCH       ?=              # of the trainer's image, such as torch==2.13.0+cpu; by default constraints.txt's, with CUDA

VERSIONS    ?= lowest-direct highest    # of `make test-versions`
SERVER_TESTS := tests/service/server tests/service/test_worker.py tests/system/crashes/test_shutdown.py tests/system/crashes/test_supervision.py

GENERATORS  ?=              # files to put into a bento; by default those in MODEL_DIR

# $(call quoted,TEXT): one word of the shell, whatever spaces and quotes it holds
quoted = '$(subst ','\'',$(strip $(1)))'

BIN := .venv/bin
LINT := $(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy
INSTALLED := .venv/.installed-$(ACCELERATOR)
EXTRAS := train,serve,eval,imagenet,data,docs,dev,$(ACCELERATOR)

.DEFAULT_GOAL := help
.PHONY: help setup demo train serve evaluate reproduce test test-versions quick coverage lint format bench fuzz bento \
	images test-images sbom audit bundled constraints clean tutorial dist docs docs-serve

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Create .venv and install everything into it (ACCELERATOR=gpu for onnxruntime-gpu)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "GAN Atelier needs Python 3.11 or newer; choose one with PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -z "$(wildcard .venv/.installed-*)" -o -f $@ || \
		$(BIN)/pip uninstall --quiet --yes onnxruntime onnxruntime-gpu    # they overwrite each other's files
	@$(BIN)/python scripts/setup.py $(EXTRAS)
	@rm -f .venv/.installed-*; touch $@

demo: setup ## Run all components on the embedded digits: train, export, serve, generate, interpolate, score
	$(BIN)/python -m examples.demo

train: setup ## Train PRESET on DATA_ROOT and export its generator into MODEL_DIR
	$(BIN)/trainer train --preset $(call quoted,$(PRESET)) --data-root $(call quoted,$(DATA_ROOT)) --export $(call quoted,$(MODEL_DIR)) $(ARGS)

serve: setup ## Serve the generators in MODEL_DIR (the bundled digits while there are none) on PORT
	$(BIN)/python -m service serve --host $(call quoted,$(BIND)) --port $(call quoted,$(PORT))

evaluate: setup ## Score the service at URL against the test split of IMAGES
	test -f $(call quoted,extractors/$(IMAGES)-classifier.onnx) || $(BIN)/evaluation extractor classifier \
		--images $(call quoted,$(IMAGES)) --data-root $(call quoted,$(DATA_ROOT)) \
		--output $(call quoted,extractors/$(IMAGES)-classifier.onnx)
	$(BIN)/evaluation score $(call quoted,$(URL)) --reference $(call quoted,$(IMAGES)@test) \
		--data-root $(call quoted,$(DATA_ROOT)) --metrics $(call quoted,$(METRICS)) \
		$(addprefix --resolution ,$(strip $(RESOLUTION))) \
		--extractor $(call quoted,extractors/$(IMAGES)-classifier.onnx) --num-images $(NUM_IMAGES) --output report $(ARGS)

reproduce: setup ## Train the presets of published GANs (ONLY=kunal627 MINUTES=10), score them, write docs/results
	$(BIN)/python -m scripts.reproduce $(ONLY) --data-root $(call quoted,$(DATA_ROOT)) $(addprefix --minutes ,$(strip $(MINUTES))) $(ARGS)

test: setup ## Lint and run every test, JOBS files at a time, then those that need the machine to themselves
	@.ci/test $(JOBS) '$(LINT)'

quick: setup ## Run the tests that take no more than a few seconds each
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m 'not slow and not alone'

coverage: setup ## Measure the branch coverage of the packages by every test except those of load and of container images
	rm -rf build/coverage
	$(BIN)/python -m coverage run -m pytest -n $(JOBS) --dist loadfile -m 'not alone' --ignore tests/system/containers; tests=$$?; \
	$(BIN)/python -m coverage combine --quiet && $(BIN)/python -m coverage html --quiet --fail-under 0 && $(BIN)/python -m coverage report && exit $$tests

test-versions: setup ## Test the service's use of private parts on the lowest and the newest VERSIONS that pyproject.toml allows
	@index=$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(BIN)/pip config get global.index-url 2>/dev/null)}}; \
	if [ "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	for versions in $(VERSIONS); do \
		folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT INT TERM && \
		$(BIN)/uv venv --quiet --python $(BIN)/python "$$folder" && \
		$(BIN)/uv pip install --quiet --python "$$folder/bin/python" --resolution "$$versions" \
			--editable '.[serve,cpu]' 'httpx>=0.27' 'psutil>=6' 'pytest>=8' 'pytest-timeout>=2.3' || \
			{ echo "error: could not install the $$versions versions; is the package index reachable?"; exit 1; }; \
		"$$folder/bin/python" -m pytest -p no:cacheprovider $(SERVER_TESTS) || exit 1; \
		rm -rf "$$folder"; \
	done

lint: setup ## Check format, lint and types
	$(LINT)

format: setup ## Format the code and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Compare training, service and evaluation with other tools, in half an hour; JSON and tables in benchmarks/results
	$(BIN)/python -m benchmarks --data-root $(call quoted,$(DATA_ROOT)) $(ARGS)

docs: setup ## Build the documentation site into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean

docs-serve: setup ## Show the documentation site at http://127.0.0.1:8000 while it is written
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:8000

bento: setup ## Build a bento that serves GENERATORS (those in MODEL_DIR; the bundled digits while there are none)
	@set -- $(or $(strip $(GENERATORS)),$(call quoted,$(MODEL_DIR))/*.onnx); \
		test -e "$$1" || set -- service/bundled/digits.onnx; \
		echo "$(BIN)/python -m service store build $$*"; $(BIN)/python -m service store build "$$@"

images: ## Build the images of ROLES with docker, podman or buildah, whichever works; prints their sizes
	$(PYTHON) .ci/images.py $(ROLES) $(addprefix --base ,$(strip $(BASE))) $(addprefix --torch ,$(strip $(TORCH)))

test-images: setup ## Build the images of all roles and run them: train, serve, score, stop, and every user error
	TEST_IMAGES=all BASE='$(strip $(BASE))' TORCH='$(strip $(TORCH))' $(BIN)/python -m pytest tests/system/containers

sbom: setup ## Write a bill of materials (CycloneDX) and the licenses of each role's packages into sbom
	$(BIN)/python .ci/supply_chain.py sbom --output sbom

audit: setup ## List the known vulnerabilities of each role's packages
	$(BIN)/python .ci/supply_chain.py audit $(ARGS)

fuzz: setup ## Send a real service at least CASES (5000) valid and invalid requests
	$(BIN)/python -m tests.support.service.fuzz --cases $(CASES)

bundled: setup ## Train the small digits generator that the service bundles, service/bundled/digits.onnx
	$(BIN)/trainer train --preset digits-dcgan --name bundled-digits --runs runs --export service/bundled/digits.onnx

tutorial: setup ## Run the notebook docs/start/tutorial.ipynb from first to last cell, and store its output
	$(BIN)/python examples/notebook.py docs/start/tutorial.ipynb

dist: setup ## Build the source distribution, and the wheel from it, into dist
	rm -rf dist
	$(BIN)/uv build --quiet --python $(BIN)/python --no-build-isolation --out-dir dist
	@ls dist

constraints: setup ## Refresh constraints.txt, the versions that `make setup` installs
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --extra train --extra serve --extra eval --extra imagenet --extra data --extra cpu --extra gpu --extra docs --extra dev \
		--output-file constraints.txt pyproject.toml

clean: ## Remove the files of builds and tests (keeps data, runs and models)
	rm -rf build dist demo site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
