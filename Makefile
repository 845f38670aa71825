.DEFAULT_GOAL := help
PYTHON ?= python

.PHONY: help install format lint test test-all parity faults slurm gpu soak calibrate wheel audit inventory

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:  ## Install the package with its development tools, at the tested versions
	$(PYTHON) -m pip install -c constraints.txt -e '.[dev]'

format:  ## Format the code
	ruff format . && ruff check --fix .

lint:  ## Check format, style, types and the layers of imports
	ruff format --check . && ruff check . && mypy && lint-imports

test:  ## The default tests, in two processes
	$(PYTHON) -m pytest -n 2

test-all:  ## Every test that this machine can run
	$(PYTHON) -m pytest -n 2 -m 'not gpu'

parity:  ## Compare the models with the official implementations' golden data
	$(PYTHON) -m pytest -m parity

faults:  ## Kill, hang and starve real sweeps
	$(PYTHON) -m pytest -m faults

slurm:  ## Run sweeps on a one-node Slurm that the tests start
	$(PYTHON) -m pytest -m slurm

gpu:  ## Measure all that needs a card, in 8 minutes, and write it into docs/benchmarks.md; without one it says so
	$(PYTHON) -m benchmarks.gpu --write docs/benchmarks.md

soak:  ## Kill a sweep fifty times, damage its cache, resume it, and compare with one that nobody disturbed
	$(PYTHON) -m benchmarks.soak --kills 50 --real

calibrate:  ## Count how often the analysis is wrong, on simulated studies; writes docs/calibration.md
	$(PYTHON) -m benchmarks.calibrate --write docs/calibration.md

audit:  ## Look the tested versions up among the known vulnerabilities (needs '.[audit]' and the network)
	$(PYTHON) -m pip_audit --strict -r constraints.txt --no-deps --disable-pip \
		|| { echo "a known vulnerability, or the list of them can't be had from here: see above"; exit 1; }

inventory:  ## List what is installed as CycloneDX, in inventory.json (needs '.[audit]')
	$(PYTHON) -m cyclonedx_py environment --pyproject pyproject.toml --output-reproducible -o inventory.json

wheel:  ## Build the wheel
	$(PYTHON) -m build --wheel
